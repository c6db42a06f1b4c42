# SPDX-License-Identifier: GPL-3.0-or-later
"""Map layers: the rasters that a prediction is written to, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.bands import Band
from specdeepmap.core.data.classes import UNLABELLED, ClassTable
from specdeepmap.core.data.grid import Grid
from specdeepmap.core.data.raster import Raster, cache_need
from specdeepmap.core.data.tiling import Window
from specdeepmap.core.data.writer import MAP_OPTIONS, GeoTiff
from specdeepmap.core.progress import Progress

Floats = NDArray[np.float32]

MAP = "map"
PROBABILITIES = "probabilities"

PERCENT_NODATA = 255

_ROWS = 256  # of pixels, copied at once


@dataclass(frozen=True)
class Piece:
    """A finished part of a map.

    Attributes:
        window: in map pixels.
        indices: of the classes, ``(rows, columns)``.
        probabilities: ``(classes, rows, columns)``, where they are wanted.
        has_data: ``(rows, columns)``.
    """

    window: Window
    indices: NDArray[np.uint8]
    probabilities: Floats | None
    has_data: NDArray[np.bool_]


def confidence(probabilities: Floats) -> Floats:
    """Give the probability of the likeliest class of each pixel, from ``(classes, rows, columns)``."""
    return np.asarray(probabilities.max(axis=0))


def margin(probabilities: Floats) -> Floats:
    """Give by how much the likeliest class is ahead of the second, from ``(classes, rows, columns)``."""
    if len(probabilities) == 1:
        return np.asarray(probabilities[0])
    two = np.partition(probabilities, -2, axis=0)[-2:]
    return np.asarray(two[1] - two[0])


def entropy(probabilities: Floats) -> Floats:
    """Give Shannon's entropy in nats, 0 to the logarithm of the class count, from ``(classes, rows, columns)``."""
    logarithms = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    nats = -(probabilities * logarithms).sum(axis=0)
    return np.asarray(np.clip(nats, 0, np.log(len(probabilities))), np.float32)


MEASURES: dict[str, Callable[[Floats], Floats]] = {"confidence": confidence, "margin": margin, "entropy": entropy}
"""What the probabilities of a pixel tell, one number each; NaN where the image has no data."""


class Layers:
    """The rasters of a map being written. Use it in a ``with`` statement.

    Args:
        paths: files by the name of the layer: ``map``, ``probabilities``, or one in ``MEASURES``.
        grid: of the part of the map that is written here.
        top: the first row of that part, in map pixels.
        classes: names and colours.
        notes: metadata of all files.
        format: of probabilities, see ``PROBABILITY_FORMATS``.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        grid: Grid,
        top: int,
        classes: ClassTable,
        notes: Mapping[str, str],
        format: str = "float32",  # noqa: A002 - the name of the parameter
    ) -> None:
        self._top, self._classes, self._percent = top, classes, format == "percent"
        self._files: dict[str, GeoTiff] = {}
        with ExitStack() as stack:
            for name, path in paths.items():
                self._files[name] = stack.enter_context(self._made(name, path, grid))
                self._files[name].note(notes)
            self._stack = stack.pop_all()

    def __enter__(self) -> Layers:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    @property
    def need_probabilities(self) -> bool:
        """Whether classes alone do not do."""
        return set(self._files) != {MAP}

    def cache_need(self, rows: int) -> int:
        """Give the bytes that GDAL's cache should have for pieces of so many rows, written from top to bottom.

        So no block is compressed before it is whole.
        """
        return sum(cache_need(file.dataset, rows, file.dataset.RasterXSize) for file in self._files.values())

    def write(self, piece: Piece) -> None:
        """Write a part of all layers."""
        window = piece.window.moved(0, -self._top)
        for name, file in self._files.items():
            if name == MAP:
                values = np.where(piece.has_data, self._classes.decode(piece.indices), np.uint8(UNLABELLED))[None]
            elif piece.probabilities is None:
                raise ValueError(f"the layer {name} needs probabilities")
            else:
                values = self._values(name, piece.probabilities, piece.has_data)
            file.write(values, window)

    def join(self, parts: Sequence[tuple[Mapping[str, Path], int]], progress: Progress) -> None:
        """Copy what several processes wrote: files by the name of the layer, and the map row they begin at.

        Raises:
            RasterError: if one is missing or damaged.
        """
        steps = len(parts) * len(self._files)
        for number, ((paths, top), (name, file)) in enumerate(product(parts, self._files.items())):
            raster = Raster.open(paths[name])
            for y in range(0, raster.height, _ROWS):
                progress.check()
                window = Window(0, y, raster.width, min(_ROWS, raster.height - y))
                file.write(raster.read(window)[0], window.moved(0, top))
            progress.report((number + 1) / steps)

    def _values(self, name: str, probabilities: Floats, has_data: NDArray[np.bool_]) -> NDArray[np.generic]:
        if name != PROBABILITIES:
            return np.where(has_data, MEASURES[name](probabilities), np.float32("nan"))[None]
        if self._percent:
            return np.where(
                has_data, np.rint(100 * np.nan_to_num(probabilities)).astype(np.uint8), np.uint8(PERCENT_NODATA)
            )
        return np.where(has_data, probabilities, np.float32("nan"))

    def _made(self, name: str, path: Path, grid: Grid) -> GeoTiff:
        if name == MAP:
            tif = GeoTiff(path, grid, 1, np.uint8, UNLABELLED, MAP_OPTIONS)
            tif.classify(self._classes)
            return tif
        names = self._classes.names if name == PROBABILITIES else (name.capitalize(),)
        if name == PROBABILITIES and self._percent:
            tif = GeoTiff(path, grid, len(names), np.uint8, PERCENT_NODATA, MAP_OPTIONS)
        else:
            options = (*MAP_OPTIONS, "PREDICTOR=3")
            tif = GeoTiff(path, grid, len(names), np.float32, float("nan"), options)
        tif.describe(tuple(Band(name=text) for text in names))
        return tif
