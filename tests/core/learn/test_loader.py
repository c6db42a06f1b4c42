# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the way from chips to batches."""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from specdeepmap.core.data.classes import IGNORE_INDEX, UNLABELLED, ClassTable
from specdeepmap.core.data.dataset import ChipPair, Dataset
from specdeepmap.core.data.normalization import Normalization
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.tiling import Window
from specdeepmap.core.errors import DatasetError
from specdeepmap.core.learn import loader
from specdeepmap.core.learn.loader import Chips, Loader, Order, collate, fits_in_memory, free_memory, load_chip
from specdeepmap.core.tasks.mapping import Plan, network_input, read_tiles
from tests.helpers import Array, write_raster

pytestmark = pytest.mark.torch

CLASSES = ClassTable.of([1, 2, 4])


@given(count=st.integers(1, 60), size=st.integers(1, 17), seed=st.integers(0, 5))
def test_training_sees_every_chip_and_never_a_lonely_one(count: int, size: int, seed: int) -> None:
    listed = Order(count, size, seed).batches(0)
    assert all(len(batch) >= 2 for batch in listed)
    seen = Counter(index for batch in listed for index in set(batch))
    assert seen == Counter(range(count))
    assert all(len(set(batch)) == len(batch) for batch in listed if len(set(batch)) > 1)
    assert all(len(set(batch)) <= size + 1 for batch in listed)
    if count > 1 and size > 1:
        assert sum(len(batch) for batch in listed) == count


def test_last_batch_of_one_chip_joins_the_one_before() -> None:
    assert [len(batch) for batch in Order(9, 4, 1).batches(0)] == [4, 5]


def test_only_chip_is_taken_twice() -> None:
    assert Order(1, 8, 1).batches(0) == [[0, 0]]


@given(count=st.integers(0, 60), size=st.integers(1, 17))
def test_validation_takes_every_chip_once_and_in_order(count: int, size: int) -> None:
    batches = Order(count, size, None).batches(3)
    assert [index for batch in batches for index in batch] == list(range(count))
    assert [len(batch) for batch in batches][:-1] == [size] * (len(batches) - 1)
    assert all(batches)


@given(count=st.integers(0, 40), size=st.integers(1, 17), ranks=st.integers(1, 4))
def test_processes_validate_each_chip_once_together(count: int, size: int, ranks: int) -> None:
    parts = [Order(count, size, None, rank, ranks).batches(0) for rank in range(ranks)]
    assert Counter(index for part in parts for batch in part for index in batch) == Counter(range(count))
    assert all(len(batch) <= size for part in parts for batch in part)


@given(count=st.integers(1, 40), size=st.integers(1, 17), ranks=st.integers(1, 4), epoch=st.integers(0, 3))
def test_processes_train_equally_many_batches_of_equal_sizes(count: int, size: int, ranks: int, epoch: int) -> None:
    """One that has a batch less would be waited for by the others forever."""
    parts = [Order(count, size, 5, rank, ranks).batches(epoch) for rank in range(ranks)]
    sizes = [[len(batch) for batch in part] for part in parts]
    assert sizes == sizes[:1] * ranks and sizes[0]
    seen = Counter(index for part in parts for batch in part for index in set(batch))
    assert set(seen) == set(range(count))
    if size > 1 and count >= 2 * ranks:
        assert sum(seen.values()) == count + -count % ranks and max(seen.values()) <= 2


def test_order_follows_seed_and_epoch_and_nothing_else() -> None:
    def epochs(seed: int) -> list[list[list[int]]]:
        order = Order(40, 8, seed)
        return [order.batches(epoch) for epoch in range(3)]

    assert epochs(3) == epochs(3)
    assert epochs(3) != epochs(4)
    first, second, third = epochs(3)
    assert first != second and second != third and first != third
    assert first != Order(40, 8, None).batches(0)
    torch.manual_seed(9)  # somebody else draws
    assert Order(40, 8, 3).batches(2) == third  # without the epochs before, as after an interruption
    parts = [Order(40, 8, 3, rank, 2).batches(2) for rank in (0, 1)]
    assert parts[0] != parts[1]


class Numbers:
    """Stands for ``Chips``: image and labels of a chip hold its number; remembers who asked for it."""

    def __init__(self, count: int, seconds: float = 0.0) -> None:
        self.count, self._seconds = count, seconds
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.asked.append(index)
        time.sleep(self._seconds * (index * 7 % 5))  # later ones are often done first
        side = 2 + index % 3
        return torch.full((1, side, side), float(index)), torch.full((side, side), index, dtype=torch.uint8)


def numbers_of(loader: Loader) -> list[list[int]]:
    return [labels[:, 0, 0].tolist() for _, labels in loader]


def loader_of(chips: Any, order: Order, threads: int = 0) -> Loader:
    return Loader(chips, order, threads)


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("threads", [0, 1, 3])
def test_any_number_of_threads_gives_the_batches_of_the_order(threads: int, seed: int | None) -> None:
    order = Order(17, 4, seed)
    loader = loader_of(Numbers(17, seconds=0.0005), order, threads)
    for epoch in (0, 1, 5):
        loader.epoch = epoch
        assert len(loader) == len(order.batches(epoch))
        assert numbers_of(loader) == order.batches(epoch)


@pytest.mark.parametrize("threads", [0, 2])
def test_the_epoch_counts_as_it_is_at_the_first_batch(threads: int) -> None:
    """Lightning asks for the iterator before the epoch is known."""
    order = Order(30, 4, 5)
    loader = loader_of(Numbers(30), order, threads)
    batches = iter(loader)
    loader.epoch = 4
    assert [labels[:, 0, 0].tolist() for _, labels in batches] == order.batches(4) != order.batches(0)


def test_threads_read_some_batches_ahead_and_no_more() -> None:
    chips = Numbers(100)
    batches = iter(loader_of(chips, Order(100, 2, None), threads=2))
    assert chips.asked == []
    next(batches)
    time.sleep(0.1)
    assert 2 <= len(chips.asked) <= 2 * 4
    cast(Any, batches).close()


def test_who_leaves_an_epoch_midway_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    chips = Numbers(100, seconds=0.001)
    for number, _ in enumerate(loader_of(chips, Order(100, 2, 1), threads=3)):
        if number == 2:
            break
    gc.collect()
    assert set(threading.enumerate()) <= before
    asked = len(chips.asked)
    time.sleep(0.05)
    assert len(chips.asked) == asked < 30


def test_an_error_in_a_thread_comes_out() -> None:
    class Broken(Numbers):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            raise DatasetError(f"chip {index}")

    with pytest.raises(DatasetError, match="chip 0"):
        next(iter(loader_of(Broken(9), Order(9, 2, None), threads=2)))


def test_chips_of_several_sizes_make_a_batch() -> None:
    ((images, labels),) = list(loader_of(Numbers(3), Order(3, 8, None)))
    assert images.shape == (3, 1, 4, 4) and labels.shape == (3, 4, 4)
    assert (labels == IGNORE_INDEX).sum(dim=(1, 2)).tolist() == [12, 7, 0]
    assert images.dtype == torch.float32 and labels.dtype == torch.uint8


def sample(height: int, width: int) -> tuple[Tensor, Tensor]:
    return torch.rand(2, height, width) + 1, torch.randint(3, (height, width), dtype=torch.uint8)


def test_smaller_chips_are_filled_up_without_labels() -> None:
    samples = [sample(8, 12), sample(10, 6), sample(3, 3)]
    images, masks = collate(samples)
    assert images.shape == (3, 2, 10, 12) and masks.shape == (3, 10, 12)
    for index, (image, labels) in enumerate(samples):
        height, width = labels.shape
        assert torch.equal(images[index, :, :height, :width], image)
        assert torch.equal(masks[index, :height, :width], labels)
        assert int((masks[index] == IGNORE_INDEX).sum()) == 120 - height * width
        assert int((images[index] == 0).sum()) == 2 * (120 - height * width)


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


def test_classes_that_the_dataset_does_not_know_are_no_gaps(tmp_path: Path) -> None:
    """Chips were cut again, and nobody made the dataset anew."""
    labels = np.array([[1, 0], [9, 4]], np.uint8)
    pair = chip(tmp_path, "a", np.ones((1, 2, 2), np.float32), labels)
    with pytest.raises(DatasetError, match=r"a\.tif holds class 9, which the summary .*Run the Dataset Maker again"):
        Chips([pair], CLASSES, Normalization.none(1), cached=False)[0]


def test_a_band_flagged_bad_in_a_chip_is_missing_there(tmp_path: Path) -> None:
    image = write_raster(
        tmp_path / "images" / "a.tif", np.full((2, 4, 4), 7, np.float32), metadata=[{"bbl": "1"}, {"bbl": "0"}]
    )
    label = write_raster(tmp_path / "labels" / "a.tif", np.ones((4, 4), np.uint8))
    loaded = load_chip(
        ChipPair(image, label), Normalization(scale=1.0, mean=(1.0,) * 2, std=(2.0,) * 2, bad=(False,) * 2)
    )
    assert (loaded.image[0] == 3).all() and (loaded.image[1] == 0).all() and loaded.has_data.all()


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


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("cached", [True, False])
def test_batches_hold_the_chips_of_the_disk(
    cached: bool, threads: int, chips_and_table: tuple[tuple[ChipPair, ...], ClassTable, Normalization]
) -> None:
    pairs, classes, normalization = chips_and_table
    order = Order(len(pairs), 3, 5)
    loader = Loader(Chips(pairs, classes, normalization, cached), order, threads)
    for epoch in (0, 1):
        loader.epoch = epoch
        for batch, (images, labels) in zip(order.batches(epoch), loader, strict=True):
            for position, index in enumerate(batch):
                chip = load_chip(pairs[index], normalization)
                assert np.array_equal(images[position].numpy(), chip.image)
                assert np.array_equal(labels[position].numpy(), classes.encode(chip.labels))


def test_cached_chips_stay_as_they_are_whatever_is_done_to_a_batch(
    chips_and_table: tuple[tuple[ChipPair, ...], ClassTable, Normalization],
) -> None:
    chips = Chips(*chips_and_table, cached=True)
    loader = Loader(chips, Order(len(chips), 1, None))
    before = [image.clone() for (image,), _ in loader]
    for images, labels in loader:
        images.zero_()
        labels.zero_()
    assert all(torch.equal(image, kept) for ((image,), _), kept in zip(loader, before, strict=True))


def test_chips_first_seen_in_inference_can_be_trained_on(
    chips_and_table: tuple[tuple[ChipPair, ...], ClassTable, Normalization],
) -> None:
    chips = Chips(*chips_and_table, cached=True)
    with torch.inference_mode():
        assert chips[0][0].is_inference()
    ((images, _),) = list(Loader(chips, Order(1, 1, None)))
    weight = torch.ones(1, requires_grad=True)
    (images * weight).sum().backward()  # needs the images again
    assert weight.grad is not None


def test_all_four_ways_to_network_input_give_the_same_bits(tmp_path: Path, random: np.random.Generator) -> None:
    """Training and validation, the tester and the mapper; with missing pixels and a bad band."""
    image = random.integers(-200, 9000, (4, 16, 21)).astype(np.int16)
    image[:, :3, :5] = -999  # no data at all
    image[1, 7, 7:12] = -999  # no data in a band
    image[(0, 1, 3), 12, 4] = -999  # data in the bad band alone
    labels = random.choice(np.array([1, 2, 4], np.uint8), (16, 21))
    normalization = Normalization(
        scale=10000.0, mean=(0.31, 0.2, 0.4, 0.1), std=(0.17, 0.03, 0.9, 0.21), bad=(False, False, True, False)
    )
    pair = chip(tmp_path, "a", image, labels, nodata=-999)
    scene = write_raster(tmp_path / "scene.tif", np.pad(image, ((0, 0), (5, 9), (7, 3)), mode="edge"), nodata=-999)
    chips = Chips([pair, pair], CLASSES, normalization, cached=True)
    ((trained, encoded),) = list(Loader(chips, Order(2, 2, 1), threads=2))
    ((validated, _),) = list(Loader(chips, Order(2, 2, None)))
    tested = load_chip(pair, normalization)
    window = Window(7, 5, 21, 16)
    ((mapped,),) = list(read_tiles(Raster.open(scene), Plan(window, (21, 16), 0, 1), normalization))
    seen = network_input([mapped], normalization)
    assert seen is not None
    wanted = tested.image.tobytes()
    assert trained[0].numpy().tobytes() == trained[1].numpy().tobytes() == wanted
    assert validated[0].numpy().tobytes() == seen[0].tobytes() == wanted
    assert np.array_equal(tested.has_data, mapped.has_data)
    assert (~tested.has_data).sum() == 16 and not tested.has_data[12, 4]
    assert np.array_equal(encoded[0].numpy() == IGNORE_INDEX, ~tested.has_data)
    assert (tested.image[2] == 0).all() and (tested.image[1, 7, 7:12] == 0).all() and tested.image[0, 7, 7] != 0


def test_cache_and_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_memory() > 2**20

    def unknown(_: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr("os.sysconf", unknown)
    assert free_memory() == 4 * 2**30


@given(
    sizes=st.lists(st.sampled_from([(8, 8), (8, 9), (32, 32)]), min_size=1, max_size=20),
    batch=st.integers(1, 6),
    ranks=st.integers(1, 3),
)
def test_validation_never_mixes_sizes(sizes: list[tuple[int, int]], batch: int, ranks: int) -> None:
    orders = [Order(len(sizes), batch, None, rank, ranks, sizes) for rank in range(ranks)]
    batches = [indices for order in orders for indices in order.batches(0)]
    assert sorted(index for indices in batches for index in indices) == list(range(len(sizes)))
    assert all(len({sizes[index] for index in indices}) == 1 and len(indices) <= batch for indices in batches)


def test_sizes_are_read_from_the_files(tmp_path: Path) -> None:
    pairs = []
    for name, rows, columns in (("a", 8, 9), ("b", 5, 4)):
        labels = np.ones((rows, columns), np.uint8)
        pairs.append(chip(tmp_path, name, np.ones((1, rows, columns), np.float32), labels))
    assert Chips(pairs, CLASSES, Normalization.none(1), cached=False).sizes == [(8, 9), (5, 4)]


def test_memory_is_shared_among_processes_and_kept_within_a_container(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chips_and_table: tuple[tuple[ChipPair, ...], ClassTable, Normalization],
) -> None:
    pairs = chips_and_table[0]
    needed = len(pairs) * 32 * 32 * (4 * 13 + 1)
    monkeypatch.setattr(loader, "CONTAINER", tmp_path)
    (tmp_path / "memory.current").write_text("1000\n")
    cases = ((needed, 1, True), (needed - 4, 1, False), (needed, 2, False), (2 * needed, 2, True))
    for limit, processes, fits in cases:
        (tmp_path / "memory.max").write_text(f"{int(limit / loader.CACHE_SHARE) + 1000}\n")
        assert fits_in_memory(pairs, 13, processes) == fits
    (tmp_path / "memory.max").write_text("max\n")
    assert fits_in_memory(pairs, 13)
