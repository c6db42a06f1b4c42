# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of augmentations: image and labels move together, each chip in its own way, nothing in place."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from specdeepmap.core.data.classes import IGNORE_INDEX
from specdeepmap.core.errors import ConfigError
from specdeepmap.core.learn.augmentations import AUGMENTATIONS, build_augmenter

pytestmark = pytest.mark.torch

STRENGTHS = {
    "flips_and_turns": 1.0,
    "rotation": 30.0,
    "scale": 0.5,
    "gain": 0.2,
    "noise": 0.3,
    "band_drop": 0.5,
    "cutout": 0.4,
}
SPECTRAL = ("gain", "noise", "band_drop")
LEVELS = (0.0,) * 6
SHAPES = ((16, 16), (12, 21), (21, 12))

Batch = tuple[Tensor, Tensor]
names = pytest.mark.parametrize("name", STRENGTHS)


def ramp(count: int, height: int, width: int, along_rows: bool) -> Batch:
    """Give images of two bands whose first is 1 + the label, and labels that count rows or columns."""
    size = height if along_rows else width
    line = torch.arange(size, dtype=torch.uint8)
    labels = (line[:, None] if along_rows else line[None]).expand(height, width)
    labels = labels.expand(count, height, width).contiguous()
    return torch.stack((1.0 + labels, torch.full(labels.shape, 5.0)), dim=1), labels


def batch(count: int = 8, bands: int = 6, height: int = 16, width: int = 16, gaps: bool = True) -> Batch:
    """Give noise with four classes; where there are gaps, a corner is missing and the last band is unusable."""
    random = Generator().manual_seed(3)
    images = torch.randn(count, bands, height, width, generator=random)
    labels = torch.randint(4, (count, height, width), generator=random).to(torch.uint8)
    labels[:, :4, 6:9] = IGNORE_INDEX
    if gaps:
        images[:, :, :3, :5] = 0
        images[:, -1] = 0
        labels[:, :3, :5] = IGNORE_INDEX
    return images, labels


def apply(name: str, given: Batch, seed: int = 1, level: float = 0.0) -> Batch:
    levels = (level,) * given[0].shape[1]
    return build_augmenter({name: STRENGTHS[name]}, levels)(*given, Generator().manual_seed(seed))


def alike(first: Tensor, second: Tensor) -> list[bool]:
    """Tell for each chip whether the two are the same."""
    return [torch.equal(a, b) for a, b in zip(first, second, strict=True)]


def test_strengths_of_all_augmentations_are_tested() -> None:
    assert list(STRENGTHS) == list(AUGMENTATIONS)
    assert len({entry.title for entry in AUGMENTATIONS.values()}) == len(AUGMENTATIONS)


@names
@given(seed=st.integers(0, 10_000), shape=st.sampled_from(SHAPES), along_rows=st.booleans())
def test_pixels_and_their_labels_move_together(name: str, seed: int, shape: tuple[int, int], along_rows: bool) -> None:
    images, labels = ramp(4, *shape, along_rows)
    changed, moved = apply(name, (images, labels), seed)
    assert changed.shape == images.shape and changed.dtype == images.dtype
    assert moved.shape == labels.shape and moved.dtype == labels.dtype
    hidden = moved == IGNORE_INDEX
    if name in SPECTRAL:
        assert torch.equal(moved, labels)
        return
    assert (changed[:, 0] - 1 - moved)[~hidden].abs().max() < 0.501  # half a pixel, from nearest to bilinear
    assert (changed[:, 1][~hidden] - 5).abs().max() < 1e-4  # nothing fades at the rim
    assert (changed.movedim(1, -1)[hidden] == 0).all()
    assert set(moved.unique().tolist()) <= {*labels.unique().tolist(), IGNORE_INDEX}


@names
def test_every_chip_is_changed_in_its_own_way(name: str) -> None:
    one = batch(count=1)
    images, labels = (tensor.expand(40, *tensor.shape[1:]) for tensor in one)
    changed, moved = apply(name, (images, labels))
    same = alike(changed, images)
    kinds = {changed[i].numpy().tobytes() + moved[i].numpy().tobytes() for i in range(40)}
    if name == "flips_and_turns":
        assert len(kinds) == 8
    else:
        assert 10 <= sum(same) <= 30  # about half are left alone
        assert len(kinds) >= (4 if name == "band_drop" else 41 - sum(same))
    assert all(torch.equal(a, b) for a, b, s in zip(moved, labels, same, strict=True) if s)


@names
def test_the_chips_themselves_are_left_alone(name: str) -> None:
    images, labels = batch()
    before = images.clone(), labels.clone()
    changed, moved = apply(name, (images, labels))
    assert torch.equal(images, before[0]) and torch.equal(labels, before[1])
    assert not torch.equal(changed, images)
    assert torch.equal(moved, labels) == (name in SPECTRAL)


@names
def test_same_seed_same_changes(name: str) -> None:
    first, second, other = (apply(name, batch(), seed) for seed in (7, 7, 8))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


@names
def test_draws_go_on_from_batch_to_batch(name: str) -> None:
    augment, random = build_augmenter({name: STRENGTHS[name]}, LEVELS), Generator().manual_seed(1)
    assert not torch.equal(augment(*batch(), random)[0], augment(*batch(), random)[0])


@names
def test_missing_data_never_turns_into_something(name: str) -> None:
    images, labels = batch()
    for seed in range(5):
        changed, moved = apply(name, (images, labels), seed)
        assert changed.isfinite().all()
        assert (changed[:, -1] == 0).all()  # the unusable band
        missing = (changed == 0).all(dim=1)
        assert (moved[missing] == IGNORE_INDEX).all()
        if name in SPECTRAL:
            assert (changed[images == 0] == 0).all()


@names
def test_no_class_is_invented(name: str) -> None:
    images, labels = batch()
    labels = (labels * 80).where(labels != IGNORE_INDEX, IGNORE_INDEX)  # 0, 80, 160, 240: means are no classes
    for seed in range(5):
        _, moved = apply(name, (images, labels), seed)
        assert set(moved.unique().tolist()) <= {0, 80, 160, 240, IGNORE_INDEX}
        assert (moved != IGNORE_INDEX).float().mean() > 0.4


@pytest.mark.parametrize(("shape", "pictures"), [((6, 6), 8), ((6, 9), 4)])
def test_flips_and_turns_only_rearrange(shape: tuple[int, int], pictures: int) -> None:
    labels = torch.arange(shape[0] * shape[1], dtype=torch.uint8).reshape(1, *shape).expand(100, *shape)
    changed, moved = apply("flips_and_turns", (labels[:, None].float(), labels))
    assert torch.equal(changed[:, 0].to(torch.uint8), moved)
    assert torch.equal(moved.flatten(1).sort().values, labels.flatten(1))
    pairs = [tuple(chip.flatten().tolist()) for chip in moved]
    assert len(set(pairs)) == pictures
    assert min(pairs.count(picture) for picture in set(pairs)) >= 100 / pictures / 3


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("bands", [1, 5])
@pytest.mark.parametrize("shape", [(6, 6), (4, 7), (7, 4)])
def test_flips_and_turns_of_each_chip_are_those_of_numpy(
    shape: tuple[int, int], bands: int, form: torch.memory_format
) -> None:
    count, turns = 60, 8 if shape[0] == shape[1] else 4
    draws = torch.randint(turns, (count,), generator=Generator().manual_seed(1)).tolist()
    assert set(draws) == set(range(turns))
    images = torch.arange(1.0, 1 + count * bands * shape[0] * shape[1]).view(count, bands, *shape)
    labels = (torch.arange(count * shape[0] * shape[1]) % 251).to(torch.uint8).view(count, *shape)
    changed, moved = apply("flips_and_turns", (images.contiguous(memory_format=form), labels))
    for chip, draw in enumerate(draws):
        for before, after in ((images[chip].numpy(), changed[chip]), (labels[chip].numpy(), moved[chip])):
            wanted = before.swapaxes(-1, -2) if draw & 4 else before
            wanted = wanted[..., ::-1] if draw & 1 else wanted
            wanted = wanted[..., ::-1, :] if draw & 2 else wanted
            np.testing.assert_array_equal(after.numpy(), wanted, f"draw {draw}")
    assert (changed.dtype, moved.dtype) == (images.dtype, labels.dtype)
    assert changed.is_contiguous(memory_format=torch.channels_last) and moved.is_contiguous()


@pytest.mark.parametrize("shape", SHAPES)
def test_rotation_keeps_distances_from_the_centre_and_angles_within_bounds(shape: tuple[int, int]) -> None:
    height, width = shape
    rows = (torch.arange(height) - (height - 1) / 2)[:, None].expand(shape)
    columns = (torch.arange(width) - (width - 1) / 2)[None].expand(shape)
    images = torch.stack((rows, columns, torch.ones(shape))).expand(60, 3, *shape)
    changed, moved = apply("rotation", (images, torch.zeros(60, *shape, dtype=torch.uint8)))
    inner = (rows**2 + columns**2).sqrt() < min(shape) / 2 - 1
    assert (moved[:, inner] == 0).all()
    radius = (changed[:, 0] ** 2 + changed[:, 1] ** 2).sqrt()
    assert torch.allclose(radius[:, inner], (rows**2 + columns**2).sqrt()[inner].expand(60, -1), atol=1e-3)
    row, column = height // 2, width - width // 2 + 2
    angles = torch.atan2(changed[:, 0, row, column], changed[:, 1, row, column])
    angles -= math.atan2(rows[row, column], columns[row, column])
    assert angles.abs().max() <= math.radians(30) + 1e-4
    assert angles.max() > math.radians(15) and angles.min() < -math.radians(15)


@pytest.mark.parametrize("shape", SHAPES)
def test_scale_stays_within_bounds_and_uses_the_room_it_has(shape: tuple[int, int]) -> None:
    images, labels = ramp(80, *shape, along_rows=False)
    changed, moved = apply("scale", (images, labels))
    column = changed[:, 0] - 1
    middle = shape[0] // 2
    steps, lefts, rights = [], [], []
    for chip, hidden in zip(column[:, middle], moved[:, middle] == IGNORE_INDEX, strict=True):
        seen = chip[~hidden]
        if not hidden.all():
            steps.append(float((seen[3:-2] - seen[2:-3]).median()))
            lefts.append(float(seen[0]))
            rights.append(float(seen[-1]))
            if steps[-1] < 0.99:
                assert not hidden.any()  # zoomed in: all of the new chip is filled
            if steps[-1] > 1.01:
                assert seen[0] < 1.5 and seen[-1] > shape[1] - 2.5  # zoomed out: all of the old chip is there
    assert min(steps) >= 1 / 1.5 - 1e-3 and max(steps) <= 1.5 + 1e-3
    assert min(steps) < 0.8 and max(steps) > 1.25
    assert max(lefts) > 2 and min(rights) < shape[1] - 3  # shifted both ways


def test_noise_has_the_deviation_that_was_asked_for() -> None:
    images, labels = torch.full((20, 6, 32, 32), 2.0), torch.zeros(20, 32, 32, dtype=torch.uint8)
    changed, _ = apply("noise", (images, labels))
    noise = (changed - images)[[not same for same in alike(changed, images)]]
    assert noise.std().item() == pytest.approx(STRENGTHS["noise"], rel=0.02)
    assert abs(noise.mean().item()) < 0.01
    together = torch.corrcoef(noise.movedim(1, 0).flatten(1))
    assert (together - torch.eye(6)).abs().max() < 0.05  # bands are hit independently
    assert noise[0].flatten(1).std(dim=1).min() > 0.2  # and every pixel for itself


def test_gain_is_one_factor_per_band_around_one_for_the_chip() -> None:
    images, labels = batch(count=400, bands=5, height=4, width=4, gaps=False)
    changed, _ = apply("gain", (images, labels))
    factors = changed / images
    assert (factors - factors[:, :, :1, :1]).abs().max() < 1e-4
    logs = factors[:, :, 0, 0].log()[[not same for same in alike(changed, images)]]
    deviation = STRENGTHS["gain"]
    assert logs.std(dim=1).square().mean().sqrt().item() == pytest.approx(deviation, rel=0.15)
    assert logs.mean(dim=1).std().item() == pytest.approx(deviation * math.sqrt(1 + 1 / 5), rel=0.15)


def test_gain_is_one_of_the_values_before_normalisation() -> None:
    """Values from which the mean was taken hardly change by a factor; more light shifts the mean itself."""
    images, labels = batch(count=400, bands=5, height=4, width=4)
    mean, std = 3000.0, 300.0
    changed, _ = apply("gain", (images, labels), level=mean / std)
    missing = images == 0
    assert torch.equal(changed == 0, missing)
    factors = (changed * std + mean) / (images * std + mean)
    first = factors.masked_fill(missing, torch.nan).flatten(2).nanmedian(dim=2).values[:, :, None, None]
    assert ((factors - first).abs().masked_fill(missing, 0) < 1e-4)[:, :-1].all()
    logs = first[:, :-1, 0, 0].log()[[not same for same in alike(changed, images)]]
    assert logs.std().item() == pytest.approx(STRENGTHS["gain"] * math.sqrt(2), rel=0.15)


@pytest.mark.parametrize(("share", "counts"), [(0.05, {0, 1}), (0.5, {3}), (0.4, {2, 3}), (1.0, {5})])
def test_band_drop_keeps_to_its_share_and_leaves_a_band(share: float, counts: set[int]) -> None:
    images, labels = batch(count=300, bands=6, gaps=False)
    changed, _ = build_augmenter({"band_drop": share}, LEVELS)(images, labels, Generator().manual_seed(2))
    gone = (changed == 0).flatten(2).all(dim=2)
    assert torch.equal(changed[~gone], images[~gone])
    dropped = gone.sum(dim=1)
    assert set(dropped.tolist()) == counts | {0}
    assert dropped.float().mean().item() == pytest.approx(min(share * 6, 5) / 2, rel=0.2)
    assert gone.any(dim=0).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.1, 0.4, 1.0])
def test_cutout_hides_one_rectangle_within_its_share(share: float, shape: tuple[int, int]) -> None:
    images, labels = ramp(200, *shape, along_rows=True)
    changed, moved = build_augmenter({"cutout": share}, LEVELS)(images, labels, Generator().manual_seed(2))
    hidden = moved == IGNORE_INDEX
    assert torch.equal(hidden, (changed == 0).all(dim=1))
    assert torch.equal(moved[~hidden], labels[~hidden])
    rows, columns = hidden.any(dim=2), hidden.any(dim=1)
    assert torch.equal(hidden, rows[:, :, None] & columns[:, None, :])
    for line in torch.cat((rows.flatten(0), columns.flatten(0))).split([rows.numel(), columns.numel()]):
        edges = line.reshape(200, -1).int().diff(dim=1).abs().sum(dim=1)
        assert edges.max() <= 2  # in one piece
    area = hidden.float().mean(dim=(1, 2))
    assert area.max() <= share + 1e-6 and area.max() > 0.6 * share
    assert rows.any(dim=0).all() and columns.any(dim=0).all()  # it gets everywhere


def test_chain_keeps_the_fixed_order_and_leaves_out_what_has_no_strength() -> None:
    chain = build_augmenter({"cutout": 0.3, "noise": 0.0, "scale": 0.2, "flips_and_turns": 1}, LEVELS)
    assert [step.__class__.__name__ for step in chain.steps] == ["function", "partial", "partial"]
    by_hand, random = batch(), Generator().manual_seed(5)
    for name, strength in (("flips_and_turns", 1), ("scale", 0.2), ("cutout", 0.3)):
        by_hand = AUGMENTATIONS[name].build(strength, LEVELS)(*by_hand, random)
    chained = chain(*batch(), Generator().manual_seed(5))
    assert torch.equal(chained[0], by_hand[0]) and torch.equal(chained[1], by_hand[1])


def test_chain_of_nothing_changes_nothing() -> None:
    images, labels = batch()
    changed, moved = build_augmenter({"rotation": 0.0}, LEVELS)(images, labels, Generator())
    assert torch.equal(changed, images) and torch.equal(moved, labels)


def test_unknown_augmentation_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="rotation"):
        build_augmenter({"rotations": 3.0}, LEVELS)


def test_chain_reaches_the_processes_of_a_loader() -> None:
    chain = build_augmenter(STRENGTHS, LEVELS)
    copy = pickle.loads(pickle.dumps(chain))  # noqa: S301 - our own bytes
    first, second = (each(*batch(), Generator().manual_seed(4)) for each in (chain, copy))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
