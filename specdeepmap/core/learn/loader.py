# SPDX-License-Identifier: GPL-3.0-or-later
"""Loading: chips from disk to batches of tensors.

``load_chip`` is the one way from a chip to network input; training, validation and the tester share it, and
it shares ``Normalization.apply`` with the mapper.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from specdeepmap.core.data.classes import IGNORE_INDEX, UNLABELLED, ClassTable
from specdeepmap.core.data.dataset import ChipPair
from specdeepmap.core.data.labels import LabelRaster, check_one_band
from specdeepmap.core.data.normalization import Normalization
from specdeepmap.core.data.parallel import in_threads
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.errors import DatasetError
from specdeepmap.core.learn.seeds import ORDER, generator
from specdeepmap.core.progress import Progress

CACHE_SHARE = 0.25
"""Share of the free memory that decoded chips may take."""

CONTAINER = Path("/sys/fs/cgroup")
"""Where Linux tells the memory limit of a container or a cluster job."""

Sample = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class LoadedChip:
    """A chip as a network gets it.

    Attributes:
        image: ``(bands, rows, columns)``, normalised.
        labels: class values ``(rows, columns)``; unlabelled where the image has no data.
        has_data: ``(rows, columns)``, where at least one usable band has data.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    has_data: NDArray[np.bool_]


def load_chip(pair: ChipPair, normalization: Normalization) -> LoadedChip:
    """Read a chip as network input.

    Raises:
        DatasetError: if the chips do not fit each other or the dataset's statistics.
    """
    raster = Raster.open(pair.image, georeference="NONE")
    if raster.count != len(normalization.mean):
        raise DatasetError(
            f"{pair.image} has {raster.count} bands, but {len(normalization.mean)} are expected from the band "
            "statistics or the model. Chips of one dataset need the same bands."
        )
    window = raster.whole
    labels_raster = Raster.open(pair.label)
    check_one_band(labels_raster, "The label chip")
    if labels_raster.whole != window:
        raise DatasetError(f"{pair.image} and {pair.label} differ in size. Run the Raster Splitter again.")
    # Chips of a pair lie on each other pixel by pixel, whatever their georeference says.
    labels = LabelRaster(str(pair.label), labels_raster.grid, Progress(), parameter="the label chip").read(window)
    values, valid = raster.read(window)
    valid[~raster.good] = False
    has_data = data_mask(valid, normalization)
    labels[~has_data] = UNLABELLED
    return LoadedChip(normalization.apply(values, valid), labels, has_data)


def data_mask(valid: NDArray[np.bool_], normalization: Normalization) -> NDArray[np.bool_]:
    """Tell where an image has data in at least one band that the network uses: ``(rows, columns)``."""
    bad = np.asarray(normalization.bad, np.bool_)
    return np.asarray((valid[~bad] if bad.any() else valid).any(axis=0), np.bool_)


class Chips:
    """Chips as tensors: image ``(C, H, W)`` float32 and class indices ``(H, W)`` uint8.

    Args:
        pairs: the chips.
        classes: encodes the labels.
        normalization: prepares the images.
        cached: keep decoded chips in memory.
    """

    def __init__(
        self, pairs: Sequence[ChipPair], classes: ClassTable, normalization: Normalization, cached: bool
    ) -> None:
        self._pairs, self._classes, self._normalization = pairs, classes, normalization
        self._kept: dict[int, Sample] | None = {} if cached else None

    @property
    def cached(self) -> bool:
        """Whether decoded chips are kept in memory."""
        return self._kept is not None

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Rows and columns of each chip, from the headers of the files."""
        wholes = (Raster.open(pair.image, georeference="NONE").whole for pair in self._pairs)
        return [(whole.height, whole.width) for whole in wholes]

    def __getitem__(self, index: int) -> Sample:
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        chip = load_chip(self._pairs[index], self._normalization)
        indices = self._classes.encode(chip.labels)
        unknown = chip.labels[(indices == IGNORE_INDEX) & (chip.labels != UNLABELLED)]
        if unknown.size:
            raise DatasetError(
                f"The label chip {self._pairs[index].label} holds class {unknown[0]}, which the summary of the dataset "
                "does not know. Were chips cut again? Run the Dataset Maker again."
            )
        sample = channels_last(chip.image), torch.from_numpy(indices)
        if self._kept is not None:
            self._kept[index] = sample
        return sample


class Order:
    """Which chips make which batch of an epoch: shuffled in training, in the order of the table otherwise.

    A last batch of a single chip breaks batch normalisation; in training it joins the batch before, or where
    there is none, the chip is taken twice.

    Args:
        count: number of chips.
        batch_size: chips per batch.
        seed: of the shuffling; None = not for training.
        sizes: of the chips, rows and columns; None = all alike. Outside of training no batch mixes them, since a chip
            that is filled up to the size of another one is predicted differently.
        rank, ranks: this process, and how many share the chips. In training each takes equally many, for which some
            chips may be taken twice; otherwise every chip is taken once.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int | None,
        rank: int = 0,
        ranks: int = 1,
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self._count, self._size, self._seed, self._sizes = count, batch_size, seed, sizes
        self._rank, self._ranks = rank, ranks

    def batches(self, epoch: int) -> list[list[int]]:
        """Give the batches of an epoch."""
        if self._seed is None:
            return self._by_size(list(range(self._count))[self._rank :: self._ranks])
        drawn = torch.randperm(self._count, generator=generator(self._seed, ORDER, epoch)).tolist()
        drawn += (drawn * self._ranks)[: -self._count % self._ranks]  # there may be fewer chips than processes
        batches = self._cut(drawn[self._rank :: self._ranks])
        if len(batches) > 1 and self._size > 1 and len(batches[-1]) == 1:
            single = batches.pop()
            batches[-1] += single
        return [batch * 2 if len(batch) == 1 else batch for batch in batches]

    def _by_size(self, chips: Sequence[int]) -> list[list[int]]:
        groups: dict[tuple[int, int], list[int]] = {}
        for chip in chips:
            groups.setdefault(self._sizes[chip] if self._sizes else (0, 0), []).append(chip)
        return [batch for group in groups.values() for batch in self._cut(group)]

    def _cut(self, chips: Sequence[int]) -> list[list[int]]:
        return [list(chips[start : start + self._size]) for start in range(0, len(chips), self._size)]


class Loader:
    """The batches of an epoch: images ``(N, C, H, W)`` float32 and class indices ``(N, H, W)`` uint8.

    Threads read ahead: GDAL leaves Python's lock, and unlike processes they share one cache of chips.

    Args:
        chips: of the set.
        order: of the batches.
        threads: that read ahead; 0 = read when asked.
        pin: page-lock batches, for a GPU.
    """

    def __init__(self, chips: Chips, order: Order, threads: int = 0, pin: bool = False) -> None:
        self._chips, self._order, self._threads, self._pin = chips, order, threads, pin
        self.epoch = 0
        """The epoch that is loaded next; it decides the order."""

    def __len__(self) -> int:
        return len(self._order.batches(0))

    def __iter__(self) -> Iterator[Sample]:
        # A generator, so that the epoch counts as it is at the first batch: Lightning asks for the iterator of the
        # first epoch long before.
        batches = self._order.batches(self.epoch)
        if not self._threads:
            yield from map(self._batch, batches)
            return
        ahead = self._threads + 1
        yield from in_threads(self._batch, batches, len(batches), Progress(), ahead, threads=self._threads)

    def _batch(self, indices: Sequence[int]) -> Sample:
        images, labels = collate([self._chips[index] for index in indices])
        return (images.pin_memory(), labels.pin_memory()) if self._pin else (images, labels)


def collate(samples: Sequence[Sample]) -> Sample:
    """Stack samples; smaller chips are filled up, unlabelled, to the largest."""
    height = max(labels.shape[0] for _, labels in samples)
    width = max(labels.shape[1] for _, labels in samples)
    images, masks = [], []
    for image, labels in samples:
        pads = (0, width - labels.shape[1], 0, height - labels.shape[0])
        images.append(functional.pad(image, pads) if any(pads) else image)
        masks.append(functional.pad(labels, pads, value=IGNORE_INDEX) if any(pads) else labels)
    return stacked(images), torch.stack(masks)


def stacked(images: Sequence[Tensor]) -> Tensor:
    """Stack images ``(C, H, W)`` whose bands lie side by side in memory, and leave them so."""
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


def channels_last(image: NDArray[np.float32]) -> Tensor:
    """Give an image ``(C, H, W)`` whose bands lie side by side in memory, as the network wants them."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(1, 2, 0))).permute(2, 0, 1)


def fits_in_memory(pairs: Sequence[ChipPair], bands: int, processes: int = 1) -> bool:
    """Tell whether the decoded chips fit into the share of the free memory that they may take.

    Args:
        pairs: the chips.
        bands: of the images.
        processes: that each keep all chips, on this computer.
    """
    if not pairs:
        return True
    grid = Raster.open(pairs[0].image).grid
    return len(pairs) * grid.width * grid.height * (4 * bands + 1) <= CACHE_SHARE * free_memory() / processes


def free_memory() -> int:
    """Give the free memory in bytes, within a container's limit; 4 GB where the system does not tell."""
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        free = 4 * 2**30
    try:
        limit, used = (int((CONTAINER / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no container, or one without a limit: max
        return free
    return max(min(free, limit - used), 0)
