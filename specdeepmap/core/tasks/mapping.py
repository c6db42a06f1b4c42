# SPDX-License-Identifier: GPL-3.0-or-later
"""Mapping: the tiles of an image go through a network and come out as the pieces of a map.

On a graphics card, and on processors with cores to spare, reading, network and writing overlap, a thread each: GDAL and
numpy leave Python's lock. Where the network needs every core, they take turns: a core that is taken from it makes the
others wait, which costs more than it saves. One batch is read ahead and one is being written, so that memory does not
depend on the size of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from specdeepmap.core.data.blending import Blender
from specdeepmap.core.data.classes import IGNORE_INDEX
from specdeepmap.core.data.maplayers import Floats, Layers, Piece
from specdeepmap.core.data.normalization import Normalization
from specdeepmap.core.data.raster import Raster, widen_cache
from specdeepmap.core.data.tiling import TileWindow, Window, covering, map_windows
from specdeepmap.core.errors import DeviceError
from specdeepmap.core.learn.loader import data_mask
from specdeepmap.core.learn.predictor import Predictor, likeliest
from specdeepmap.core.progress import Progress

MOST_EMPTY = 8
"""Tiles of a batch for each one that has data, at most: empty ones cost memory, too, and a cancel waits for them."""

MANY_CORES = 6
"""From so many on, the network leaves one to reading and writing."""


@dataclass(frozen=True)
class Plan:
    """How an area is cut into tiles, in map pixels, and which of them are this process's own.

    Where tiles fade into each other, a process also predicts the next one's first row, and throws most of it away.

    Attributes:
        area: to map, in image pixels; its upper left corner is that of the map.
        tile: width and height of the tiles.
        overlap: pixels that each tile reaches over what is kept of it.
        batch: tiles at a time.
        blended: whether neighbouring tiles fade into each other.
        share: this process's number, from 0, and how many processes share the rows of tiles.
    """

    area: Window
    tile: tuple[int, int]
    overlap: int
    batch: int
    blended: bool = False
    share: tuple[int, int] = (0, 1)

    @cached_property
    def rows(self) -> list[list[TileWindow]]:
        """All tiles, row by row."""
        return map_windows(self.area.width, self.area.height, self.tile, self.overlap)

    @property
    def _own(self) -> tuple[int, int]:
        """The rows of tiles that are this process's: from, and up to but without."""
        number, count = self.share
        first, end = (len(self.rows) * index // count for index in (number, number + 1))
        return first, end

    @property
    def read_rows(self) -> range:
        """The rows of tiles to predict: one that fades into the next needs that, too."""
        first, end = self._own
        return range(first, end if first == end else min(end + self.blended, len(self.rows)))

    @property
    def reach(self) -> tuple[int, int]:
        """The rows of pixels that this process writes: from, and up to but without."""
        first, end = self._own
        if first == end:
            return 0, 0
        if self.blended:
            return self.blender().reach(first, end)
        return self.rows[first][0].keep.y, self.rows[end - 1][0].keep.y_end

    def blender(self) -> Blender:
        """Give what adds up blended tiles."""
        rows = covering(self.area.height, self.tile[1], self.overlap)
        columns = covering(self.area.width, self.tile[0], self.overlap)
        return Blender(rows, columns, self.overlap)


@dataclass(frozen=True)
class LoadedTile:
    """A tile ready for the network.

    Attributes:
        row, column: number of the tile along both axes.
        window: in map pixels.
        image: normalised; None where the tile has no data at all.
        has_data: where the image has data, ``(rows, columns)``.
    """

    row: int
    column: int
    window: TileWindow
    image: Floats | None
    has_data: NDArray[np.bool_]


@dataclass
class Counts:
    """Pixels of a map that have image data, and those of them that got no class: the network gave no number."""

    mapped: int = 0
    lost: int = 0


def map_area(image: Raster, plan: Plan, predictor: Predictor, layers: Layers, progress: Progress) -> Counts:
    """Predict this process's tiles of a plan and write the layers.

    Raises:
        RasterError: if the image cannot be read or a layer cannot be written.
        DeviceError: if the memory does not suffice.
    """
    count = sum(len(plan.rows[row]) for row in plan.read_rows)
    with_probabilities = layers.need_probabilities or plan.blended
    finisher = _Finisher(plan, layers, len(predictor.card.classes))
    width, height = plan.tile
    widen_cache(image.cache_need(height, width) + layers.cache_need(height))
    done = 0
    with _workers(predictor.device) as (reader, writer):
        source = read_tiles(image, plan, predictor.card.normalization)
        ahead = reader.submit(next, source, None)
        writing: Future[None] | None = None
        while (batch := ahead.result()) is not None:
            ahead = reader.submit(next, source, None)
            progress.check()
            found = _predict(predictor, batch, with_probabilities)
            if writing is not None:
                writing.result()
            writing = writer.submit(finisher.add, batch, found)
            done += len(batch)
            progress.report(done / count)
        if writing is not None:
            writing.result()
    return finisher.counts


class _AtOnce(Executor):
    """Do what is submitted, at once."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **more: Any) -> Future[Any]:
        """Work, and give the result."""
        future: Future[Any] = Future()
        try:
            future.set_result(work(*arguments, **more))
        except Exception as error:  # it is raised where the result is asked for, as threads do
            future.set_exception(error)
        return future


@contextmanager
def _workers(device: torch.device) -> Iterator[tuple[Executor, Executor]]:
    """Give those who read and write: threads where the network leaves cores to them."""
    cores = torch.get_num_threads()
    if device.type == "cpu" and cores < MANY_CORES:
        yield _AtOnce(), _AtOnce()
        return
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        try:
            if device.type == "cpu":
                torch.set_num_threads(cores - 1)
            yield reader, writer
        finally:
            torch.set_num_threads(cores)


def read_tiles(image: Raster, plan: Plan, normalization: Normalization) -> Iterator[list[LoadedTile]]:
    """Read tiles in batches, of which none goes over the end of a row: so each process makes the same ones.

    Tiles without data cost the network nothing, and do not count.
    """
    for row in plan.read_rows:
        batch: list[LoadedTile] = []
        full = 0
        for column, window in enumerate(plan.rows[row]):
            if full == plan.batch or len(batch) == MOST_EMPTY * plan.batch:
                yield batch
                batch, full = [], 0
            try:
                values, valid = image.read_padded(window.read.moved(plan.area.x, plan.area.y), mirror=True)
                has_data = data_mask(valid, normalization)
                normalized = normalization.apply(values, valid) if has_data.any() else None
            except MemoryError as error:
                raise DeviceError(
                    f"The memory does not suffice for tiles of {plan.tile[0]} x {plan.tile[1]} pixels with "
                    f"{image.count} bands. Take a smaller TILE_SIZE, or leave it out."
                ) from error
            full += normalized is not None
            batch.append(LoadedTile(row, column, window, normalized, has_data))
        yield batch


_Found = tuple[NDArray[np.uint8] | None, Floats | None]
"""Class indices or probabilities of a tile; neither of one without data."""


def _predict(predictor: Predictor, batch: Sequence[LoadedTile], with_probabilities: bool) -> list[_Found]:
    """Run the network on the tiles of a batch that have data."""
    images = [tile.image for tile in batch if tile.image is not None]
    results: Iterator[_Found] = iter(())
    if images and with_probabilities:
        results = ((None, chances) for chances in predictor.probabilities(images))
    elif images:
        results = ((indices, None) for indices in predictor.classes(images))
    return [(None, None) if tile.image is None else next(results) for tile in batch]


class _Finisher:
    """Cut or blend what tiles give, and write it.

    Args:
        plan: of the tiles.
        layers: are written.
        classes: number of classes.
    """

    def __init__(self, plan: Plan, layers: Layers, classes: int) -> None:
        self._layers, self._classes = layers, classes
        self._blender = plan.blender() if plan.blended else None
        self._end = plan.reach[1]
        self.counts = Counts()

    def add(self, batch: Sequence[LoadedTile], found: Sequence[_Found]) -> None:
        """Finish the tiles of a batch."""
        for tile, (indices, probabilities) in zip(batch, found, strict=True):
            if self._blender is not None:
                for piece in self._blended(self._blender, tile, probabilities):
                    self._write(piece)
            elif tile.image is not None:
                self._write(_cropped(tile, indices, probabilities))

    def _write(self, piece: Piece) -> None:
        """Write a piece; where there is no class, it has no data."""
        lost = piece.has_data & (piece.indices == IGNORE_INDEX)
        self.counts.mapped += int(piece.has_data.sum())
        self.counts.lost += int(lost.sum())
        self._layers.write(replace(piece, has_data=piece.has_data & ~lost) if lost.any() else piece)

    def _blended(self, blender: Blender, tile: LoadedTile, probabilities: Floats | None) -> Iterator[Piece]:
        """Give the pieces that a tile makes complete."""
        if probabilities is None:  # its neighbours have no data, either, where they meet it
            probabilities = np.zeros((self._classes, *tile.has_data.shape), np.float32)
        for window, sums, has_data in blender.add(tile.row, tile.column, probabilities, tile.has_data):
            if window.y < self._end and has_data.any():  # the next process writes the others
                yield Piece(window, likeliest(sums), sums, has_data)


def _cropped(tile: LoadedTile, indices: NDArray[np.uint8] | None, probabilities: Floats | None) -> Piece:
    """Give what is kept of a tile."""
    keep = tile.window.keep
    core = keep.moved(-tile.window.read.x, -tile.window.read.y)
    part = np.s_[core.y : core.y_end, core.x : core.x_end]
    chances = None if probabilities is None else probabilities[:, part[0], part[1]]
    if indices is not None:
        kept = indices[part]
    elif chances is not None:
        kept = likeliest(chances)
    else:
        raise ValueError("a tile with data has neither classes nor probabilities")
    return Piece(keep, kept, chances, tile.has_data[part])
