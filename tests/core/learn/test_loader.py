# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the way from chips to batches."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from specdeepmap.core.data.classes import IGNORE_INDEX, UNLABELLED, ClassTable
from specdeepmap.core.data.dataset import ChipPair, Dataset
from specdeepmap.core.data.normalization import Normalization
from specdeepmap.core.errors import DatasetError
from specdeepmap.core.learn.loader import Batches, Chips, Collate, fits_in_memory, load_chip, make_loader
from tests.helpers import Array, write_raster

pytestmark = pytest.mark.torch

CLASSES = ClassTable.of([1, 2, 4])


@given(count=st.integers(1, 60), size=st.integers(1, 17), seed=st.integers(0, 5))
def test_training_sees_every_chip_and_never_a_lonely_one(count: int, size: int, seed: int) -> None:
    batches = Batches(count, size, Generator().manual_seed(seed))
    listed = list(batches)
    assert len(listed) == len(batches)
    assert all(len(batch) >= 2 for batch in listed)
    seen = Counter(index for batch in listed for index in set(batch))
    assert seen == Counter(range(count))
    assert all(len(set(batch)) == len(batch) for batch in listed if len(set(batch)) > 1)
    assert all(len(set(batch)) <= size + 1 for batch in listed)
    if count > 1 and size > 1:
        assert sum(len(batch) for batch in listed) == count


def test_last_batch_of_one_chip_joins_the_one_before() -> None:
    sizes = [len(batch) for batch in Batches(9, 4, Generator().manual_seed(1))]
    assert sizes == [4, 5]


def test_only_chip_is_taken_twice() -> None:
    assert list(Batches(1, 8, Generator().manual_seed(1))) == [[0, 0]]


@given(count=st.integers(0, 60), size=st.integers(1, 17))
def test_validation_takes_every_chip_once_and_in_order(count: int, size: int) -> None:
    batches = Batches(count, size, None)
    assert [index for batch in batches for index in batch] == list(range(count))
    assert [len(batch) for batch in batches][:-1] == [size] * (len(batches) - 1)


def test_order_follows_the_seed_and_changes_by_epoch() -> None:
    def epochs(seed: int) -> list[list[list[int]]]:
        batches = Batches(40, 8, Generator().manual_seed(seed))
        return [list(batches) for _ in range(3)]

    assert epochs(3) == epochs(3)
    assert epochs(3) != epochs(4)
    first, second, third = epochs(3)
    assert first != second and second != third and first != third
    assert first != list(Batches(40, 8, None))


def sample(height: int, width: int) -> tuple[Tensor, Tensor]:
    return torch.rand(2, height, width) + 1, torch.randint(3, (height, width), dtype=torch.uint8)


def test_smaller_chips_are_filled_up_without_labels() -> None:
    samples = [sample(8, 12), sample(10, 6), sample(3, 3)]
    images, masks = Collate(None)(samples)
    assert images.shape == (3, 2, 10, 12) and masks.shape == (3, 10, 12)
    for index, (image, labels) in enumerate(samples):
        height, width = labels.shape
        assert torch.equal(images[index, :, :height, :width], image)
        assert torch.equal(masks[index, :height, :width], labels)
        assert int((masks[index] == IGNORE_INDEX).sum()) == 120 - height * width
        assert int((images[index] == 0).sum()) == 2 * (120 - height * width)


def test_augmentation_changes_image_and_mask_together() -> None:
    collate = Collate(Generator().manual_seed(3))
    labels = torch.arange(64, dtype=torch.uint8).reshape(8, 8)
    images, masks = collate([(labels[None].float(), labels)] * 30)
    assert torch.equal(images[:, 0].to(torch.uint8), masks)
    assert 2 < len({tuple(mask.flatten().tolist()) for mask in masks}) <= 8


def chip(folder: Path, name: str, image: Array, labels: Array, nodata: float | None = None) -> ChipPair:
    return ChipPair(
        write_raster(folder / "images" / f"{name}.tif", image, nodata=nodata),
        write_raster(folder / "labels" / f"{name}.tif", labels, nodata=0),
    )


def test_missing_pixels_are_0_and_unlabelled(tmp_path: Path, random: np.random.Generator) -> None:
    image = random.normal(5, 2, (3, 8, 9)).astype(np.float32)
    labels = random.choice(np.array([1, 2, 4], np.uint8), (8, 9))
    image[:, 0, 0] = -99  # no data in any band
    image[0, 1, 1] = np.nan  # no data in one band
    image[(0, 1), 2, 2] = -99, np.inf  # no data but in the bad band
    normalization = Normalization(scale=2.0, mean=(1.0, 2.0, 3.0), std=(0.5, 1.0, 2.0), bad=(False, False, True))
    pair = chip(tmp_path, "a", image, labels, nodata=-99)
    network_input, encoded = Chips([pair], CLASSES, normalization, cached=False)[0]
    assert torch.isfinite(network_input).all()
    assert (network_input[:, 0, 0] == 0).all() and network_input[0, 1, 1] == 0 and network_input[1, 1, 1] != 0
    assert (network_input[2] == 0).all()
    wanted = CLASSES.encode(labels)
    wanted[0, 0] = wanted[2, 2] = IGNORE_INDEX
    assert encoded.tolist() == wanted.tolist()
    used = np.ones((8, 9), bool)
    used[[0, 1, 2], [0, 1, 2]] = False
    by_hand = (image[0] / 2 - 1) / 0.5
    assert np.allclose(network_input[0].numpy()[used], by_hand[used], atol=1e-5)
    loaded = load_chip(pair, normalization)
    assert loaded.has_data.sum() == 70 and not loaded.has_data[0, 0] and not loaded.has_data[2, 2]
    assert loaded.labels[0, 0] == UNLABELLED


def test_unknown_classes_are_not_trained_on(tmp_path: Path) -> None:
    labels = np.array([[1, 3], [9, 4]], np.uint8)
    pair = chip(tmp_path, "a", np.ones((1, 2, 2), np.float32), labels)
    _, encoded = Chips([pair], CLASSES, Normalization.none(1), cached=False)[0]
    assert encoded.tolist() == [[0, IGNORE_INDEX], [IGNORE_INDEX, 2]]


def test_chips_that_do_not_fit_are_named(tmp_path: Path) -> None:
    labels = np.ones((8, 8), np.uint8)
    pair = chip(tmp_path, "a", np.ones((2, 8, 8), np.float32), labels)
    with pytest.raises(DatasetError, match=r"a\.tif has 2 bands, but 3"):
        load_chip(pair, Normalization.none(3))
    other = chip(tmp_path, "b", np.ones((2, 8, 9), np.float32), labels)
    with pytest.raises(DatasetError, match="differ in size"):
        load_chip(other, Normalization.none(2))


@pytest.fixture(scope="module")
def chips_and_table(dataset_folder: Path) -> tuple[tuple[ChipPair, ...], ClassTable, Normalization]:
    dataset = Dataset.open(dataset_folder)
    assert dataset.statistics is not None
    return (*dataset.chips["train"], *dataset.chips["validation"]), dataset.classes, dataset.statistics


def test_cache_gives_the_same_chips(chips_and_table: tuple[tuple[ChipPair, ...], ClassTable, Normalization]) -> None:
    kept, read = (Chips(*chips_and_table, cached=cached) for cached in (True, False))
    for index in (2, 0, 2, 0):
        for first, second in zip(kept[index], read[index], strict=True):
            assert torch.equal(first, second)
    assert kept[2][0] is kept[2][0] and read[2][0] is not read[2][0]
    assert fits_in_memory(chips_and_table[0], 13)
    assert not fits_in_memory(chips_and_table[0], 10**12)
    assert fits_in_memory((), 10**12)


@pytest.mark.parametrize("seed", [None, 5])
def test_loader_processes_give_the_same_chips(
    seed: int | None, chips_and_table: tuple[tuple[ChipPair, ...], ClassTable, Normalization]
) -> None:
    epochs = []
    for workers in (0, 2):
        loader = make_loader(Chips(*chips_and_table, cached=False), 3, workers, seed, augment=False, pin=False)
        epochs.append([batch for _ in range(2) for batch in loader])
    assert len(epochs[0]) == len(epochs[1])
    for alone, helped in zip(*epochs, strict=True):
        assert torch.equal(alone[0], helped[0]) and torch.equal(alone[1], helped[1])


def test_loader_processes_augment_each_in_its_own_way_and_repeatably(tmp_path: Path) -> None:
    labels = np.arange(1, 65, dtype=np.uint8).reshape(8, 8)
    pair = chip(tmp_path, "a", labels[None].astype(np.float32), labels)
    chips = Chips([pair] * 24, ClassTable.of(range(1, 65)), Normalization.none(1), cached=False)

    def masks() -> list[Tensor]:
        return [mask for _, mask in make_loader(chips, 12, 2, seed=1, augment=True, pin=False)]

    first, again = masks(), masks()
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])  # the two processes


def test_validation_is_never_augmented(chips_and_table: tuple[tuple[ChipPair, ...], ClassTable, Normalization]) -> None:
    chips = Chips(*chips_and_table, cached=True)
    for index, (image, mask) in enumerate(make_loader(chips, 1, 0, None, augment=True, pin=False)):
        assert torch.equal(image[0], chips[index][0]) and torch.equal(mask[0], chips[index][1])
