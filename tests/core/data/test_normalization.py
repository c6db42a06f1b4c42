# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of band statistics and of what they do to pixels."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdeepmap.core.data.normalization import Moments, Normalization
from specdeepmap.core.errors import ConfigError
from tests.helpers import Array, valid_everywhere


def chips(seed: int, count: int, offset: float, spread: float, dtype: str = "f8") -> list[Array]:
    random = np.random.default_rng(seed)
    return [
        (random.normal(offset, spread, (3, random.integers(1, 9), random.integers(1, 9)))).astype(dtype)
        for _ in range(count)
    ]


def holes(seed: int, values: list[Array]) -> list[Array]:
    random = np.random.default_rng(seed)
    return [random.random(chip.shape) < random.choice([0.0, 0.1, 0.7, 1.0]) for chip in values]


@given(
    st.integers(0, 10**6),
    st.integers(1, 6),
    st.sampled_from([0.0, 1.0, -300.0, 1e4, 1e7, -1e9, 1e12]),
    st.sampled_from([1e-3, 1.0, 500.0]),
    st.sampled_from([1.0, 10000.0, 0.37]),
)
def test_moments_equal_numpy(seed: int, count: int, offset: float, spread: float, scale: float) -> None:
    images = chips(seed, count, offset, spread)
    missing = holes(seed + 1, images)
    moments = Moments.empty(3)
    for image, hole in zip(images, missing, strict=True):
        garbage = np.where(hole, np.random.default_rng(seed).choice([np.nan, np.inf, -9999.0]), image)
        moments = moments + Moments.of(garbage, ~hole, scale)
    for band in range(3):
        pixels = np.concatenate([image[band][~hole[band]] for image, hole in zip(images, missing, strict=True)])
        assert moments.count[band] == len(pixels)
        if len(pixels):
            scaled = pixels.astype(np.float64) / scale
            noise = 1e-12 * np.abs(scaled).max()  # what float64 leaves of such numbers
            assert moments.mean[band] == pytest.approx(scaled.mean(), rel=1e-12, abs=noise)
            assert moments.std[band] == pytest.approx(scaled.std(), rel=1e-9, abs=noise)


@given(st.integers(0, 10**6), st.sampled_from([0.0, 1e6]))
def test_merging_in_any_order_gives_the_same(seed: int, offset: float) -> None:
    images = chips(seed, 4, offset, 3.0)
    parts = [Moments.of(image, ~hole) for image, hole in zip(images, holes(seed, images), strict=True)]
    one, two, three, four = parts
    for other in (four + three + two + one, (one + two) + (three + four), one + (two + (three + four))):
        straight = one + two + three + four
        assert (other.count == straight.count).all()
        assert other.mean == pytest.approx(straight.mean, rel=1e-12, abs=1e-9)
        assert other.std == pytest.approx(straight.std, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "i4", "i8", "f4", "f8"])
def test_moments_of_every_number_type_are_float64(dtype: str) -> None:
    top = 200 if dtype == "u1" else 30000
    values = np.random.default_rng(1).integers(top // 2, top, (2, 40, 40)).astype(dtype)
    moments = Moments.of(values, valid_everywhere(values))
    assert moments.mean.dtype == np.float64
    assert moments.mean == pytest.approx(values.astype("f8").mean(axis=(1, 2)), rel=1e-14)
    assert moments.std == pytest.approx(values.astype("f8").std(axis=(1, 2)), rel=1e-12)


def test_empty_flagged_and_constant_bands() -> None:
    values = np.stack([np.arange(16.0), np.full(16, np.nan), np.full(16, 0.1), np.arange(16.0)]).reshape(4, 4, 4)
    moments = Moments.empty(4)
    for row in range(4):  # the constant band is summed up in parts, as over many chips
        part = values[:, row : row + 1]
        moments = moments + Moments.of(part, np.isfinite(part))
    made, empty, constant = moments.normalization(2.0, (False, False, False, True))
    assert (empty, constant) == ([2], [3])
    assert made.bad == (False, True, False, True)
    assert made.mean[1] == made.mean[3] == 0
    assert made.std[1:] == (1, 1, 1)
    assert made.mean[0] == pytest.approx(7.5) and made.std[0] == pytest.approx(np.arange(16).std())
    assert made.mean[2] == pytest.approx(0.1)
    assert made.scale == 2.0


@given(st.integers(0, 10**6), st.sampled_from([1.0, 10000.0]), st.sampled_from(["u2", "i2", "f4", "f8"]))
def test_apply_gives_mean_0_and_std_1(seed: int, scale: float, dtype: str) -> None:
    image = np.random.default_rng(seed).normal(3000, 400, (2, 30, 30)).astype(dtype)
    valid = valid_everywhere(image)
    made, _, _ = Moments.of(image, valid, scale).normalization(scale, (False, False))
    normalized = made.apply(image, valid)
    assert normalized.dtype == np.float32
    assert normalized.mean(axis=(1, 2)) == pytest.approx(0, abs=1e-4)
    assert normalized.std(axis=(1, 2)) == pytest.approx(1, abs=1e-4)
    wanted = (image.astype("f8") / scale - np.array(made.mean)[:, None, None]) / np.array(made.std)[:, None, None]
    assert normalized == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("raw", [np.nan, np.inf, -np.inf, 1e308, -1e308, 3.4e38])
def test_missing_pixels_and_bad_bands_become_0_whatever_they_hold(raw: float) -> None:
    image = np.full((3, 2, 2), 5.0)
    image[0, 0, 0] = raw
    image[1] = raw
    valid = valid_everywhere(image)
    valid[0, 0, 0] = False
    before = image.copy()
    made = Normalization(scale=1.0, mean=(1.0, 2.0, 3.0), std=(2.0, 1e-3, 0.5), bad=(False, True, False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        normalized = made.apply(image, valid)
    assert normalized[0, 0, 0] == 0 and (normalized[1] == 0).all()
    assert (normalized[0][valid[0]] == 2).all() and (normalized[2] == 4).all()
    assert np.array_equal(image, before, equal_nan=True), "the pixels that came in are not touched"


def test_no_normalization_only_scales() -> None:
    image = np.array([[[100, 250]], [[0, 50]]], np.int16)
    made = Normalization.none(2, 100.0, (False, True))
    assert made.apply(image, valid_everywhere(image)) == pytest.approx(np.array([[[1, 2.5]], [[0, 0]]]))
    assert Normalization.none(2).bad == (False, False)


@pytest.mark.parametrize(
    ("mean", "std", "bad"),
    [
        ((0.0,), (1.0, 1.0), (False,)),
        ((0.0,), (0.0,), (False,)),
        ((0.0,), (-1.0,), (False,)),
        ((float("nan"),), (1.0,), (False,)),
        ((0.0,), (float("inf"),), (False,)),
        ((0.0,), (1.0,), ()),
    ],
)
def test_impossible_statistics_are_refused(
    mean: tuple[float, ...], std: tuple[float, ...], bad: tuple[bool, ...]
) -> None:
    with pytest.raises(ConfigError):
        Normalization(scale=1.0, mean=mean, std=std, bad=bad)


@given(
    st.integers(0, 10**6),
    st.integers(1, 7),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([1, 50, 2**16]),
    st.sampled_from(["by band", "by pixel", "part of a strip"]),
    st.sampled_from(["u1", "i2", "u4", "f4", "f8"]),
)
def test_apply_equals_the_formula_however_many_rows_it_takes_at_a_time_and_however_they_lie(
    seed: int, bands: int, rows: int, columns: int, block: int, order: str, dtype: str
) -> None:
    random = np.random.default_rng(seed)
    image = random.integers(0, 200, (bands, rows, columns)).astype(dtype)
    if order != "by band":
        image = image.transpose(1, 2, 0).copy().transpose(2, 0, 1)
    if order == "part of a strip":
        image = np.pad(image.transpose(1, 2, 0), ((0, 0), (3, 2), (0, 0))).transpose(2, 0, 1)[..., 3:-2]
    valid = random.random(image.shape) > random.choice([0.0, 0.2])
    mean, std = random.normal(0.3, 0.2, bands), random.uniform(0.01, 2, bands)
    bad = tuple((random.random(bands) < 0.2).tolist())
    made = Normalization(scale=1e4, mean=tuple(mean.tolist()), std=tuple(std.tolist()), bad=bad)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("specdeepmap.core.data.normalization._BLOCK", block)
        normalized = made.apply(image, valid)
        there = np.full((rows, columns, bands), np.nan, np.float32)
        made.apply(image, valid, there)
    assert there.tobytes() == normalized.transpose(1, 2, 0).tobytes()
    factor, offset = (1.0 / (1e4 * std)).astype(np.float32), (-mean / std).astype(np.float32)
    wanted = image.astype(np.float32) * factor[:, None, None] + offset[:, None, None]
    wanted[~valid] = 0
    wanted[list(bad)] = 0
    assert normalized.tobytes() == wanted.tobytes()
    assert normalized.transpose(1, 2, 0).flags.c_contiguous, "the bands of a pixel lie side by side"
