# SPDX-License-Identifier: GPL-3.0-or-later
"""The census: what all label chips of a folder hold, from reading each of them once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.classes import UNLABELLED, ClassTable
from specdeepmap.core.data.dataset import ChipPair, Dataset
from specdeepmap.core.data.grid import Grid
from specdeepmap.core.data.labels import names_and_colors, read_label_chip
from specdeepmap.core.data.parallel import in_threads
from specdeepmap.core.data.raster import Raster, damage_told
from specdeepmap.core.errors import DatasetError
from specdeepmap.core.progress import Progress


@dataclass(frozen=True, eq=False)
class Census:
    """The classes of all chips.

    Attributes:
        classes: that occur in at least one chip.
        counts: labelled pixels ``(chips, classes)``.
        grids: of the chips.
    """

    classes: ClassTable
    counts: NDArray[np.int64]
    grids: tuple[Grid, ...]


@dataclass(frozen=True, eq=False)
class _LabelChip:
    """What was read of a label chip: pixels per value 0 to 255, size and place."""

    counts: NDArray[np.int64]
    size: tuple[int, int]
    transform: tuple[float, ...]


def take_census(pairs: Sequence[ChipPair], folder: Path, progress: Progress) -> Census:
    """Read every label chip once, in threads.

    Args:
        pairs: the chips.
        folder: where they come from, for messages.
        progress: is reported to.

    Raises:
        DatasetError: if a chip holds values that are no class ids, or all hold fewer than two classes.
    """
    labels = [pair.label for pair in pairs]
    chips = list(in_threads(_read_label_chip, labels, len(labels), progress, ahead=256, group=16))
    systems = _systems(pairs)
    counts = np.stack([chip.counts for chip in chips])
    classes = _class_table(pairs, counts, folder)
    places = zip(chips, pairs, strict=True)
    grids = tuple(Grid(*chip.size, chip.transform, systems[source_of(pair.name)]) for chip, pair in places)
    return Census(classes, counts[:, list(classes.values)], grids)


def renamed_classes(dataset: Dataset) -> list[str]:
    """List the classes that the label chips call otherwise than the dataset's summary, as ``ClassTable.renamed`` does.

    One chip of each image is looked at.
    """
    chips = {source_of(pair.name): pair for pairs in dataset.chips.values() for pair in pairs}
    found = (dataset.classes.renamed(names_and_colors(Raster.open(pair.label).dataset)[0]) for pair in chips.values())
    return sorted({text for texts in found for text in texts})


def source_of(name: str) -> str:
    """Give the stem of the image that a chip was cut from, by the chip's name; the name itself where it is another."""
    return name.rpartition("_tile_")[0] or name


def _systems(pairs: Sequence[ChipPair]) -> dict[str, str]:
    """Read the CRS of the chips, once for each image that they were cut from."""
    systems: dict[str, str] = {}
    for pair in pairs:
        source = source_of(pair.name)
        if source not in systems:
            systems[source] = Raster.open(pair.label).grid.crs
    return systems


def _read_label_chip(path: Path) -> _LabelChip:
    raster = Raster.open(path, georeference="INTERNAL")
    counts = np.bincount(read_label_chip(raster, "DATA_FOLDER: the label chip").ravel(), minlength=256)
    counts[UNLABELLED] = 0
    with damage_told(str(path)):
        transform = raster.dataset.GetGeoTransform(can_return_null=True) or Raster.open(path).grid.transform
    return _LabelChip(counts, (raster.width, raster.height), tuple(transform))


def _class_table(pairs: Sequence[ChipPair], counts: NDArray[np.int64], folder: Path) -> ClassTable:
    """Make the table of the classes of all chips.

    Names are read once for each class and source image: making out a side file takes longer than reading a chip.

    Raises:
        DatasetError: if a class has two names, or there are fewer than two classes.
    """
    values = [int(value) for value in np.flatnonzero(counts.sum(axis=0))]
    names: dict[int, str] = {}
    colors: dict[int, str] = {}
    asked: set[tuple[str, int]] = set()
    for pair, row in zip(pairs, counts, strict=True):
        source = source_of(pair.name)
        new = {int(value) for value in np.flatnonzero(row) if (source, int(value)) not in asked}
        if new:
            asked |= {(source, value) for value in new}
            found = names_and_colors(Raster.open(pair.label).dataset, new)
            for value in sorted(new & names.keys() & found[0].keys()):
                if found[0][value] != names[value]:
                    raise DatasetError(
                        f"DATA_FOLDER {folder}: class {value} is '{names[value]}' in some chips and "
                        f"'{found[0][value]}' in {pair.name}. Give each class one id in all images, and cut them again."
                    )
            names, colors = {**found[0], **names}, {**found[1], **colors}
    table = ClassTable.of(values, names, colors)
    if len(table) < 2:
        only = f"only class {table.values[0]}" if len(table) else "no class at all"
        raise DatasetError(
            f"DATA_FOLDER {folder}: the label chips hold {only}, and a network needs two. Value 0 means "
            "unlabelled; if it is a class of its own, run the Raster Splitter again with ZERO_AS set."
        )
    return table
