# SPDX-License-Identifier: GPL-3.0-or-later
"""The census: what all label chips of a folder hold, from reading each of them once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.classes import ClassTable
from specdeepmap.core.data.dataset import ChipPair
from specdeepmap.core.data.labels import check_values, names_and_colors
from specdeepmap.core.data.parallel import in_threads
from specdeepmap.core.data.raster import Grid, Raster
from specdeepmap.core.data.tiling import Window
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
    """What was read of a label chip: pixels per value 0 to 255, place, names and colours by value."""

    counts: NDArray[np.int64]
    grid: Grid
    names: dict[int, str]
    colors: dict[int, str]


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
    chips = list(in_threads(_read_label_chip, labels, len(labels), progress))
    classes = _class_table(chips, folder)
    counts = np.stack([chip.counts for chip in chips])[:, list(classes.values)]
    return Census(classes, counts, tuple(chip.grid for chip in chips))


def _read_label_chip(path: Path) -> _LabelChip:
    raster = Raster.open(path)
    window = Window(0, 0, raster.grid.width, raster.grid.height)
    values, valid = raster.read(window)
    check_values(values[0][valid[0]], f"DATA_FOLDER: the label chip {path}")
    labels = np.where(valid[0], values[0], 0).astype(np.uint8)
    counts = np.bincount(labels.ravel(), minlength=256)
    names, colors = names_and_colors(raster.dataset)
    # A colour table has 256 entries, most of them for nothing.
    own = {value: color for value, color in colors.items() if value in names or counts[value]}
    return _LabelChip(counts, raster.grid, names, own)


def _class_table(chips: Sequence[_LabelChip], folder: Path) -> ClassTable:
    """Make the table of the classes of all chips; of several names for a class the first one counts."""
    values = np.flatnonzero(sum(chip.counts for chip in chips))
    names: dict[int, str] = {}
    colors: dict[int, str] = {}
    for chip in chips:
        names = {**chip.names, **names}
        colors = {**chip.colors, **colors}
    table = ClassTable.of((int(value) for value in values), names, colors)
    if len(table) < 2:
        found = f"only class {table.values[0]}" if len(table) else "no class at all"
        raise DatasetError(
            f"DATA_FOLDER {folder}: the label chips hold {found}, and a network needs two. Value 0 means "
            "unlabelled; if it is a class of its own, run the Raster Splitter again with ZERO_AS set."
        )
    return table
