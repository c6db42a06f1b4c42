# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the first layer: the right filters on the right bands, whatever bands there are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specdeepmap.core.learn.firstlayer import adapt_first_layer, match_bands, spread_over_bands

pytestmark = pytest.mark.torch

SENTINEL = (443.0, 490.0, 560.0, 665.0, 705.0, 740.0, 783.0, 842.0, 865.0, 945.0, 1375.0, 1610.0, 2190.0)
RED_GREEN_BLUE = (665.0, 560.0, 490.0)


def filters(bands: int) -> torch.Tensor:
    torch.manual_seed(3)
    return torch.randn(4, bands, 3, 3)


def test_twelve_bands_get_their_own_filters() -> None:
    weight = filters(13)
    wanted = tuple(nm for nm in SENTINEL if nm != 1375)  # Level-2A has no B10
    adapted = adapt_first_layer(weight, SENTINEL, wanted, 12)
    assert torch.equal(adapted.weight, weight[:, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12]])
    assert adapted.changed
    assert "12 of the weights' 13 bands" in adapted.note and "1375 nm" in adapted.note


def test_the_network_begins_as_the_pretrained_one_on_the_bands_it_knows() -> None:
    weight, image = filters(3), torch.randn(2, 13, 9, 9)
    adapted = adapt_first_layer(weight, RED_GREEN_BLUE, SENTINEL, 13, 50)
    seen = torch.conv2d(image, adapted.weight)
    assert torch.allclose(seen, torch.conv2d(image[:, [3, 2, 1]], weight), atol=1e-5)
    assert adapted.changed and "10 of the data's 13 bands start at 0" in adapted.note


@pytest.mark.parametrize("wanted", [(), SENTINEL, (None,) * 13, tuple(nm + 4 for nm in SENTINEL)])
def test_the_same_bands_in_the_same_order_stay(wanted: tuple[float | None, ...]) -> None:
    weight = filters(13)
    adapted = adapt_first_layer(weight, SENTINEL, wanted, 13)
    assert adapted.weight is weight and not adapted.changed


def test_the_same_bands_in_another_order_are_put_in_order() -> None:
    weight = filters(3)
    adapted = adapt_first_layer(weight, RED_GREEN_BLUE, RED_GREEN_BLUE[::-1], 3, 50)
    assert torch.equal(adapted.weight, weight.flip(1)) and adapted.changed


@pytest.mark.parametrize(("wanted", "places"), [((842.0, 665.0, 560.0), (1, 2)), ((665.0, 560.0, 842.0), (0, 1))])
def test_as_many_bands_that_are_others_do_not_pass_for_them(wanted: tuple[float, ...], places: tuple[int, ...]) -> None:
    weight = filters(3)
    adapted = adapt_first_layer(weight, RED_GREEN_BLUE, wanted, 3, 50)
    assert torch.equal(adapted.weight[:, places], weight[:, :2])
    assert not adapted.weight[:, wanted.index(842.0)].any()


@pytest.mark.parametrize("bands", [1, 2, 3, 6, 7, 500])
@pytest.mark.parametrize("wanted", [False, True])
def test_without_a_common_band_the_filters_are_repeated(bands: int, wanted: bool) -> None:
    weight = filters(3)
    adapted = adapt_first_layer(weight, RED_GREEN_BLUE, (9000.0,) * bands if wanted else (), bands, 50)
    assert torch.allclose(adapted.weight, weight[:, torch.arange(bands) % 3] * (3 / bands))
    assert adapted.changed == (bands != 3)


def test_repeated_bands_are_seen_as_once() -> None:
    weight, image = filters(3), torch.randn(1, 3, 9, 9)
    wide = spread_over_bands(weight, 6)
    assert torch.allclose(torch.conv2d(image.repeat(1, 2, 1, 1), wide), torch.conv2d(image, weight), atol=1e-5)


def test_hyperspectral_bands_take_the_nearest_only() -> None:
    weight = filters(13)
    wanted = tuple(400.0 + 4.2 * number for number in range(500))
    adapted = adapt_first_layer(weight, SENTINEL, wanted, 500)
    used = adapted.weight.abs().sum((0, 2, 3)).nonzero().flatten().tolist()
    assert len(used) == 13
    assert all(abs(wanted[band] - nm) <= 2.1 for band, nm in zip(used, SENTINEL, strict=True))
    for index, band in enumerate(used):
        assert torch.equal(adapted.weight[:, band], weight[:, index])


def test_a_band_whose_partner_is_taken_shares_it() -> None:
    weight = filters(13)
    wanted = (490.0, 560.0, 665.0, 842.0)
    adapted = adapt_first_layer(weight, SENTINEL, wanted, 4)
    assert torch.equal(adapted.weight[:, 3], weight[:, 7] + weight[:, 8])  # B8 and B8A see the same
    assert torch.equal(adapted.weight[:, :3], weight[:, 1:4])


def test_two_bands_of_one_wavelength_keep_their_order() -> None:
    assert match_bands((11450.0, 11450.0), (485.0, 11450.0, 11450.0)) == {0: 1, 1: 2}


def test_a_band_without_wavelength_finds_none_and_hinders_none() -> None:
    weight = filters(3)
    assert adapt_first_layer(weight, (560.0, None, 665.0), (560.0, 590.0, 665.0), 3).weight is weight
    adapted = adapt_first_layer(weight, (560.0, None, 665.0), (560.0, 590.0, 665.0, 842.0), 4)
    assert torch.equal(adapted.weight[:, [0, 2]], weight[:, [0, 2]])
    assert not adapted.weight[:, [1, 3]].any()


def test_neighbours_of_sentinel_are_not_taken_for_each_other() -> None:
    for index, nm in enumerate(SENTINEL):
        pairs = match_bands(SENTINEL, (nm,))
        expected = {7, 8} if nm in (842.0, 865.0) else {index}
        assert set(pairs) == expected


def test_the_tolerance_grows_with_the_wavelength() -> None:
    assert match_bands((1610.0,), (1650.0,)) == {0: 0}
    assert match_bands((705.0,), (740.0,)) == {}
    assert match_bands((490.0,), (450.0,)) == {}
    assert match_bands((490.0,), (450.0,), 50) == {0: 0}


waves = st.lists(st.none() | st.floats(400, 2500), max_size=30)


@given(known=waves, wanted=waves, extra=st.integers(0, 3))
def test_any_bands(known: list[float | None], wanted: list[float | None], extra: int) -> None:
    seen, bands = max(len(known), 1), max(len(wanted) + extra, 1)
    weight = filters(seen)
    adapted = adapt_first_layer(weight, known, wanted, bands)
    assert adapted.weight.shape == (4, bands, 3, 3)
    assert adapted.note.endswith(".")
    pairs = match_bands(known, wanted)
    for source, target in pairs.items():
        assert abs((known[source] or 0) - (wanted[target] or 0)) <= max(30, 0.03 * (known[source] or 0))
    if pairs:
        total = weight[:, sorted(pairs)].sum(1)
        if adapted.changed:
            assert torch.allclose(adapted.weight.sum(1), total, atol=1e-4)  # each filter is used once
