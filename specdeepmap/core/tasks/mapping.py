# SPDX-License-Identifier: GPL-3.0-or-later
"""Mapping: the tiles of an image go through a network and come out as the pieces of a map.

GDAL, numpy and PyTorch leave Python's lock, so that threads work at the same time. On a graphics card reading, network
and writing overlap, a thread each. On a processor several batches are in work side by side, each with a share of the
cores: a layer that all cores compute together waits for the slowest of them, and for what reads or writes meanwhile.
Only a few batches are read ahead, so that memory does not depend on the size of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from specdeepmap.core.data.blending import Blender
from specdeepmap.core.data.classes import IGNORE_INDEX
from specdeepmap.core.data.maplayers import Floats, Layers, Piece
from specdeepmap.core.data.normalization import Normalization
from specdeepmap.core.data.parallel import in_threads
from specdeepmap.core.data.raster import Raster, widen_cache
from specdeepmap.core.data.tiling import TileWindow, Window, covering, map_windows
from specdeepmap.core.errors import DeviceError
from specdeepmap.core.learn.loader import data_mask
from specdeepmap.core.learn.predictor import Predictor, likeliest
from specdeepmap.core.progress import Progress

MOST_EMPTY = 8
"""Tiles of a batch for each one that has data, at most: empty ones cost memory, too, and a cancel waits for them."""

SIDE_BY_SIDE = 4
"""Batches that a processor works on at a time, at most: each takes memory."""


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
class Tile:
    """A tile as it was read.

    Attributes:
        row, column: number of the tile along both axes.
        window: in map pixels.
        raw: values ``(bands, rows, columns)``, and which of them are data; None where the tile has no data at all.
        has_data: where the image has data, ``(rows, columns)``.
    """

    row: int
    column: int
    window: TileWindow
    raw: tuple[NDArray[np.generic], NDArray[np.bool_]] | None
    has_data: NDArray[np.bool_]


_Ready = tuple[Sequence[Tile], Floats | None]
"""A batch, and what the network sees of it, see ``network_input``."""

_Result = tuple[NDArray[np.uint8] | None, Floats | None]
"""Class indices of a tile, and probabilities where they are needed; neither of one without data."""

_Found = tuple[Sequence[Tile], Sequence[_Result]]
"""A batch, and what the network finds on each of its tiles."""


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
    together = image.windows_at_a_time(height, width, plan.batch)
    widen_cache(image.cache_need_by_rows(height, together * width) + layers.cache_need(height))

    def prepare(batch: list[Tile]) -> _Ready:
        with _memory_told(plan, image):
            return batch, network_input(batch, predictor.card.normalization)

    def predict(ready: _Ready) -> _Found:
        return _predict(predictor, *ready, with_probabilities)

    def finish(found: _Found) -> None:
        finisher.add(*found)
        progress.report(finisher.done / count)

    batches = read_tiles(image, plan, predictor.card.normalization)
    if predictor.device.type == "cpu":
        _side_by_side(batches, lambda batch: predict(prepare(batch)), finish, count, progress)
    else:
        _in_line(map(prepare, batches), predict, finish, progress)
    return finisher.counts


def _side_by_side(
    batches: Iterator[list[Tile]],
    predict: Callable[[list[Tile]], _Found],
    finish: Callable[[_Found], None],
    count: int,
    progress: Progress,
) -> None:
    """Predict batches in threads that share the cores; read, and finish in order, in this one.

    Args:
        count: of the tiles; of batches there are fewer, so that ``finish`` is ahead with the share of the work.
    """
    cores = torch.get_num_threads()
    workers = min(cores, SIDE_BY_SIDE)
    torch.set_num_threads(cores // workers)  # of each thread that starts from now on
    try:
        with closing(in_threads(predict, batches, count, progress, ahead=workers + 1, threads=workers)) as found:
            for each in found:
                finish(each)
    finally:
        torch.set_num_threads(cores)


def _in_line(
    batches: Iterator[_Ready],
    predict: Callable[[_Ready], _Found],
    finish: Callable[[_Found], None],
    progress: Progress,
) -> None:
    """Predict in this thread, while others read the next batch and write the last one."""
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead = reader.submit(next, batches, None)
        writing: Future[None] | None = None
        while (batch := ahead.result()) is not None:
            ahead = reader.submit(next, batches, None)
            progress.check()
            found = predict(batch)
            if writing is not None:
                writing.result()
            writing = writer.submit(finish, found)
        if writing is not None:
            writing.result()


def read_tiles(image: Raster, plan: Plan, normalization: Normalization) -> Iterator[list[Tile]]:
    """Read tiles in batches, of which none goes over the end of a row: so each process makes the same ones.

    Tiles without data cost the network nothing, and do not count.

    Args:
        image: is mirrored at its borders.
        plan: of the tiles.
        normalization: says which bands the network uses.
    """
    for row in plan.read_rows:
        batch: list[Tile] = []
        full = 0
        for tile in _read_row(image, plan, normalization, row):
            if full == plan.batch or len(batch) == MOST_EMPTY * plan.batch:
                yield batch
                batch, full = [], 0
            full += tile.raw is not None
            batch.append(tile)
        yield batch


def _read_row(image: Raster, plan: Plan, normalization: Normalization, row: int) -> Iterator[Tile]:
    """Read a row of tiles, some of them at a time: what neighbours share is read once."""
    windows = plan.rows[row]
    count = image.windows_at_a_time(plan.tile[1], plan.tile[0], plan.batch)
    for start in range(0, len(windows), count):
        with _memory_told(plan, image):
            tiles = _read_strip(image, plan, normalization, row, slice(start, start + count))
        yield from tiles


def _read_strip(image: Raster, plan: Plan, normalization: Normalization, row: int, columns: slice) -> list[Tile]:
    """Read tiles that lie side by side."""
    windows = plan.rows[row][columns]
    pairs = image.read_mirrored([window.read.moved(plan.area.x, plan.area.y) for window in windows])
    for _, valid in pairs:
        valid[~image.good] = False
    has_data = [data_mask(valid, normalization) for _, valid in pairs]
    raw = [pair if data.any() else None for pair, data in zip(pairs, has_data, strict=True)]
    if None in raw:  # or a batch would hold many strips, for some tiles of each
        raw = [None if pair is None else (pair[0].copy(order="K"), pair[1].copy(order="K")) for pair in raw]
    return [
        Tile(row, columns.start + index, window, raw[index], has_data[index]) for index, window in enumerate(windows)
    ]


@contextmanager
def _memory_told(plan: Plan, image: Raster) -> Iterator[None]:
    """Say what to do where the memory does not suffice.

    Raises:
        DeviceError: if it does not.
    """
    try:
        yield
    except MemoryError as error:
        raise DeviceError(
            f"The memory does not suffice for tiles of {plan.tile[0]} x {plan.tile[1]} pixels with {image.count} "
            "bands. Take a smaller TILE_SIZE, or leave it out."
        ) from error


def network_input(tiles: Sequence[Tile], normalization: Normalization) -> Floats | None:
    """Give what the network sees of those tiles that have data; None where none has.

    Returns:
        ``(tiles, bands, rows, columns)`` with the bands of a pixel side by side in memory.
    """
    raw = [tile.raw for tile in tiles if tile.raw is not None]
    if not raw:
        return None
    bands, rows, columns = raw[0][0].shape
    images = np.empty((len(raw), rows, columns, bands), np.float32)
    for (values, valid), pixels in zip(raw, images, strict=True):
        normalization.apply(values, valid, pixels)
    return images.transpose(0, 3, 1, 2)


def _predict(predictor: Predictor, batch: Sequence[Tile], images: Floats | None, with_probabilities: bool) -> _Found:
    """Run the network on the tiles of a batch that have data."""
    results: Iterator[_Result] = iter(())
    if images is not None and with_probabilities:
        results = zip(*predictor.both(images), strict=True)
    elif images is not None:
        results = ((indices, None) for indices in predictor.classes(images))
    return batch, [(None, None) if tile.raw is None else next(results) for tile in batch]


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
        self.done = 0
        """Tiles so far."""

    def add(self, batch: Sequence[Tile], found: Sequence[_Result]) -> None:
        """Finish the tiles of a batch."""
        self.done += len(batch)
        for tile, (indices, probabilities) in zip(batch, found, strict=True):
            if self._blender is not None:
                for piece in self._blended(self._blender, tile, probabilities):
                    self._write(piece)
            elif indices is not None:
                self._write(_cropped(tile, indices, probabilities))

    def _write(self, piece: Piece) -> None:
        """Write a piece; where there is no class, it has no data."""
        lost = piece.has_data & (piece.indices == IGNORE_INDEX)
        self.counts.mapped += int(piece.has_data.sum())
        self.counts.lost += int(lost.sum())
        self._layers.write(replace(piece, has_data=piece.has_data & ~lost) if lost.any() else piece)

    def _blended(self, blender: Blender, tile: Tile, probabilities: Floats | None) -> Iterator[Piece]:
        """Give the pieces that a tile makes complete."""
        if probabilities is None:  # its neighbours have no data, either, where they meet it
            probabilities = np.zeros((self._classes, *tile.has_data.shape), np.float32)
        for window, sums, has_data in blender.add(tile.row, tile.column, probabilities, tile.has_data):
            if window.y < self._end and has_data.any():  # the next process writes the others
                yield Piece(window, likeliest(sums), sums, has_data)


def _cropped(tile: Tile, indices: NDArray[np.uint8], probabilities: Floats | None) -> Piece:
    """Give what is kept of a tile."""
    keep = tile.window.keep
    core = keep.moved(-tile.window.read.x, -tile.window.read.y)
    part = np.s_[core.y : core.y_end, core.x : core.x_end]
    chances = None if probabilities is None else probabilities[:, part[0], part[1]]
    return Piece(keep, indices[part], chances, tile.has_data[part])
