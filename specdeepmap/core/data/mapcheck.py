# SPDX-License-Identifier: GPL-3.0-or-later
"""Checking a finished class map against ground truth on the same grid, block by block."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.classes import AGREEMENT, IGNORE_INDEX, UNLABELLED, ClassTable
from specdeepmap.core.data.labels import LabelRaster
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.scores import Scores
from specdeepmap.core.data.tiling import Window, block_windows
from specdeepmap.core.data.writer import MAP_OPTIONS, GeoTiff, build_overviews
from specdeepmap.core.errors import RasterError
from specdeepmap.core.progress import Progress

_BLOCK = 1024  # pixels; rows and columns read at once


def score_map(
    class_map: Path,
    labels: LabelRaster,
    classes: ClassTable,
    progress: Progress,
    area: Window | None = None,
    error_map: Path | None = None,
) -> tuple[Scores, dict[int, int]]:
    """Compare a class map with ground truth; pixels where either is 0 do not count.

    Args:
        class_map: a Byte raster with no-data 0.
        labels: the ground truth, on the grid of the image that was mapped.
        classes: of the map; pixels whose reference is none of them do not count.
        progress: is reported to; a cancel stops the work.
        area: the part of the labels' grid that the map covers; None = all of it.
        error_map: where to write a Byte GeoTIFF of ``AGREEMENT``, 0 where a pixel does not count; None = nowhere.

    Returns:
        The scores, pooled over all pixels that count, and the pixels by class value that the ground truth has on the
        map and the class table does not.

    Raises:
        DatasetError: if the ground truth holds a value that is no class id.
        RasterError: if the map does not fit the area or holds classes it cannot have, or a file cannot be read or
            written.
    """
    raster = Raster.open(class_map)
    area = area or Window(0, 0, labels.grid.width, labels.grid.height)
    if (raster.width, raster.height) != (area.width, area.height):
        raise RasterError(
            f"{class_map} has {raster.width} x {raster.height} pixels, where {area.width} x {area.height} were mapped. "
            f"Compare {labels.name} with the map of the same image and extent."
        )
    scores, unknown = Scores.empty(len(classes)), np.zeros(256, np.int64)
    blocks = block_windows(raster.width, raster.height, _BLOCK)
    with ExitStack() as stack:
        errors = None
        if error_map is not None:
            errors = stack.enter_context(GeoTiff(error_map, raster.grid, 1, np.uint8, UNLABELLED, MAP_OPTIONS))
            errors.classify(AGREEMENT)
        for done, window in enumerate(blocks, start=1):
            progress.check()
            predicted = _indices(raster, window, classes)
            reference = labels.read(window.moved(area.x, area.y))
            reference[predicted == IGNORE_INDEX] = UNLABELLED
            true = classes.encode(reference)
            unknown += np.bincount(reference[true == IGNORE_INDEX], minlength=256)
            scores = scores + Scores.of(true, predicted, len(classes))
            if errors is not None:
                errors.write(np.where(true == IGNORE_INDEX, UNLABELLED, 2 - (true == predicted))[None], window)
            progress.report(done / len(blocks))
    progress.check()
    if error_map is not None:
        build_overviews(error_map, "NEAREST", progress)
    unknown[UNLABELLED] = 0
    return scores, {int(value): int(unknown[value]) for value in np.flatnonzero(unknown)}


def _indices(raster: Raster, window: Window, classes: ClassTable) -> NDArray[np.uint8]:
    """Read class indices of a map; the ignore index where it has no data.

    Raises:
        RasterError: if it holds a class that is not in the table.
    """
    values = raster.read(window)[0][0].astype(np.uint8)
    foreign = classes.unknown(np.flatnonzero(np.bincount(values.ravel(), minlength=256)))
    if foreign:
        raise RasterError(f"{raster.name} holds class {foreign[0]}, which is none of its model's: {classes.values}.")
    return classes.encode(values)
