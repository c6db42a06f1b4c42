# SPDX-License-Identifier: GPL-3.0-or-later
"""Loading: chips from disk to batches of tensors.

``load_chip`` is the one way from a chip to network input; training, validation and the tester share it, and
it shares ``Normalization.apply`` with the mapper.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from specdeepmap.core.data.classes import IGNORE_INDEX, UNLABELLED, ClassTable
from specdeepmap.core.data.dataset import ChipPair
from specdeepmap.core.data.labels import LabelRaster
from specdeepmap.core.data.normalization import Normalization
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.errors import DatasetError
from specdeepmap.core.learn.augmentations import AUGMENTATIONS
from specdeepmap.core.progress import Progress

CACHE_SHARE = 0.25
"""Share of the free memory that decoded chips may take."""

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
    if labels_raster.whole != window:
        raise DatasetError(f"{pair.image} and {pair.label} differ in size. Run the Raster Splitter again.")
    # Chips of a pair lie on each other pixel by pixel, whatever their georeference says.
    labels = LabelRaster(str(pair.label), labels_raster.grid, Progress(), parameter="the label chip").read(window)
    values, valid = raster.read(window)
    has_data = data_mask(valid, normalization)
    labels[~has_data] = UNLABELLED
    return LoadedChip(normalization.apply(values, valid), labels, has_data)


def data_mask(valid: NDArray[np.bool_], normalization: Normalization) -> NDArray[np.bool_]:
    """Tell where an image has data in at least one band that the network uses: ``(rows, columns)``."""
    usable = ~np.asarray(normalization.bad)
    return np.asarray(valid[usable].any(axis=0), np.bool_)


class Chips(Dataset[Sample]):
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

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Sample:
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        chip = load_chip(self._pairs[index], self._normalization)
        sample = torch.from_numpy(chip.image), torch.from_numpy(self._classes.encode(chip.labels))
        if self._kept is not None:
            self._kept[index] = sample
        return sample


class Batches:
    """The order of the chips in an epoch: shuffled where training, a batch at a time.

    A last batch of a single chip breaks batch normalisation; in training it joins the batch before, or where
    there is none, the chip is taken twice.
    """

    def __init__(self, count: int, batch_size: int, random: Generator | None) -> None:
        self._count, self._size, self._random = count, batch_size, random

    def __iter__(self) -> Iterator[list[int]]:
        training = self._random is not None
        order = torch.randperm(self._count, generator=self._random).tolist() if training else range(self._count)
        batches = [list(order[start : start + self._size]) for start in range(0, self._count, self._size)]
        if training and len(batches) > 1 and self._size > 1 and len(batches[-1]) == 1:
            single = batches.pop()
            batches[-1] += single
        for batch in batches:
            yield batch * 2 if training and len(batch) == 1 else batch

    def __len__(self) -> int:
        full, rest = divmod(self._count, self._size)
        joins = self._random is not None and rest == 1 and full >= 1
        return full + (rest > 0 and not joins)


class Collate:
    """Turn samples into a batch; smaller chips are filled up, unlabelled, to the largest.

    Args:
        random: where training with augmentation; every sample is augmented by chance.
    """

    def __init__(self, random: Generator | None) -> None:
        self._random = random
        self._augment = [entry.build() for entry in AUGMENTATIONS.values()] if random is not None else []

    def __call__(self, samples: Sequence[Sample]) -> Sample:
        height = max(labels.shape[0] for _, labels in samples)
        width = max(labels.shape[1] for _, labels in samples)
        images, masks = [], []
        for image, labels in samples:
            for augment in self._augment:
                if self._random is not None:
                    image, labels = augment(image, labels, self._random)
            pads = (0, width - labels.shape[1], 0, height - labels.shape[0])
            images.append(functional.pad(image, pads))
            masks.append(functional.pad(labels, pads, value=IGNORE_INDEX))
        return torch.stack(images), torch.stack(masks)


def make_loader(
    chips: Chips, batch_size: int, workers: int, seed: int | None, augment: bool, pin: bool
) -> DataLoader[Sample]:
    """Make the loader of a set.

    Args:
        chips: of the set.
        batch_size: chips per batch.
        workers: processes that read ahead.
        seed: of order and augmentation in training; None keeps the order, for validation.
        augment: change image and mask by chance.
        pin: page-lock batches, for a GPU.
    """
    order = None if seed is None else torch.Generator().manual_seed(seed)
    changes = None if seed is None or not augment else torch.Generator().manual_seed(seed + 1)
    return DataLoader(
        chips,
        batch_sampler=Batches(len(chips), batch_size, order),
        num_workers=workers,
        collate_fn=Collate(changes),
        pin_memory=pin,
        persistent_workers=workers > 0,
        worker_init_fn=_WorkerSeed(changes) if workers and changes is not None else None,
    )


class _WorkerSeed:
    """Give each loader process random numbers of its own; otherwise all would augment alike."""

    def __init__(self, random: Generator) -> None:
        self._random = random

    def __call__(self, worker: int) -> None:
        self._random.manual_seed(self._random.initial_seed() + 1000 * (worker + 1))


def fits_in_memory(pairs: Sequence[ChipPair], bands: int) -> bool:
    """Tell whether the decoded chips fit into the share of the free memory that they may take."""
    if not pairs:
        return True
    grid = Raster.open(pairs[0].image).grid
    return len(pairs) * grid.width * grid.height * (4 * bands + 1) <= CACHE_SHARE * free_memory()


def free_memory() -> int:
    """Give the free memory in bytes; 4 GB where the system does not tell."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 4 * 2**30
