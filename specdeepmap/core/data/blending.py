# SPDX-License-Identifier: GPL-3.0-or-later
"""Blending: neighbouring tiles of a map fade into each other instead of meeting at a border.

Around the border of two tiles lies a *zone* that both predict. In it the weight of one falls as the square of a cosine
while that of the other rises as the square of a sine: together they are 1 everywhere. What a tile gives is cut at the
zones into *blocks*, each of which one, two or four tiles share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.tiling import Span, Window

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Stretch:
    """A part of an axis: ``start`` and ``end`` in pixels, and the numbers of the one or two tiles that share it."""

    start: int
    end: int
    tiles: tuple[int, ...]

    def weights(self, tile: int) -> Floats:
        """Give the weight of a tile at each pixel."""
        length = self.end - self.start
        if len(self.tiles) == 1:
            return np.ones(length, np.float32)
        rising = np.sin(np.pi / 2 * (np.arange(length) + 0.5) / length) ** 2
        return np.asarray(rising if tile == self.tiles[1] else 1 - rising, np.float32)


def stretches(spans: Sequence[Span], overlap: int) -> list[Stretch]:
    """Cut an axis into what single tiles keep and the zones between them.

    Args:
        spans: of the tiles, whose kept parts partition the axis.
        overlap: pixels that each tile reaches over its kept part, at least.
    """
    lengths = [span.keep_end - span.keep_start for span in spans]
    halves = [min(overlap, left // 2, right // 2) for left, right in pairwise(lengths)]
    found = []
    for number, (span, before, behind) in enumerate(zip(spans, [0, *halves], [*halves, 0], strict=True)):
        if before:
            found.append(Stretch(span.keep_start - before, span.keep_start + before, (number - 1, number)))
        if span.keep_end - behind > span.keep_start + before:
            found.append(Stretch(span.keep_start + before, span.keep_end - behind, (number,)))
    return found


@dataclass
class _Block:
    """A block that is being added up."""

    window: Window
    probabilities: Floats
    has_data: NDArray[np.bool_]
    missing: int


class Blender:
    """Add up the probabilities that tiles give, and hand out each block as soon as all its tiles have been there.

    Only blocks between tiles wait in memory: those below a row of tiles until the next row comes.

    Args:
        rows, columns: spans of the tiles along both axes.
        overlap: pixels that each tile reaches over its kept part, at least.
    """

    def __init__(self, rows: Sequence[Span], columns: Sequence[Span], overlap: int) -> None:
        self._spans = rows, columns
        self._stretches = stretches(rows, overlap), stretches(columns, overlap)
        self._waiting: dict[tuple[int, int], _Block] = {}

    def reach(self, first: int, end: int) -> tuple[int, int]:
        """Give the rows of pixels that lie in rows of tiles: those shared with the row before ``first`` are not in it.

        Args:
            first, end: numbers of the first row of tiles, and of the one behind the last.
        """
        own = [stretch for stretch in self._stretches[0] if first <= min(stretch.tiles) < end]
        return own[0].start, own[-1].end

    def add(
        self, row: int, column: int, probabilities: Floats, has_data: NDArray[np.bool_]
    ) -> Iterator[tuple[Window, Floats, NDArray[np.bool_]]]:
        """Add a tile and give the blocks that are complete now.

        Args:
            row, column: of the tile.
            probabilities: of the whole tile, ``(classes, rows, columns)``.
            has_data: of the whole tile, ``(rows, columns)``.

        Yields:
            The window of a block, its probabilities, and where it has data.
        """
        top, left = self._spans[0][row].start, self._spans[1][column].start
        for y, down in self._of(0, row):
            for x, across in self._of(1, column):
                window = Window(across.start, down.start, across.end - across.start, down.end - down.start)
                local = window.moved(-left, -top)
                part = np.s_[local.y : local.y_end, local.x : local.x_end]
                weights = down.weights(row)[:, None] * across.weights(column)
                share = probabilities[:, part[0], part[1]] * weights
                block = self._waiting.get((y, x))
                if block is None:
                    missing = len(down.tiles) * len(across.tiles)
                    block = self._waiting[y, x] = _Block(window, share, has_data[part], missing)
                else:
                    block.probabilities += share
                block.missing -= 1
                if not block.missing:
                    del self._waiting[y, x]
                    yield block.window, block.probabilities, block.has_data

    def _of(self, axis: int, tile: int) -> Iterator[tuple[int, Stretch]]:
        return ((number, stretch) for number, stretch in enumerate(self._stretches[axis]) if tile in stretch.tiles)
