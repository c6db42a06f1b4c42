# SPDX-License-Identifier: GPL-3.0-or-later
"""Windows and tiles: which pixels of a raster are read together.

A *window* is a rectangle of pixels, origin top-left, x to the right and y down; it may reach over the
raster's border. The splitter cuts windows at fixed steps; the mapper covers a grid with overlapping
*tile windows* whose kept parts partition it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from specdeepmap.core.errors import ConfigError


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels: offsets ``x, y`` and ``width, height``, in pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def x_end(self) -> int:
        """First column to the right of the window."""
        return self.x + self.width

    @property
    def y_end(self) -> int:
        """First row below the window."""
        return self.y + self.height

    def clipped(self, width: int, height: int) -> Window:
        """Give the part inside a raster of this size; without common pixels its size is 0."""
        x, y = min(max(self.x, 0), width), min(max(self.y, 0), height)
        return Window(x, y, max(min(self.x_end, width) - x, 0), max(min(self.y_end, height) - y, 0))

    def moved(self, dx: int, dy: int) -> Window:
        """Give the same window elsewhere."""
        return Window(self.x + dx, self.y + dy, self.width, self.height)


@dataclass(frozen=True)
class TileWindow:
    """A tile of a map: the window to read and the part of it to keep, both in raster pixels."""

    read: Window
    keep: Window


@dataclass(frozen=True)
class Span:
    """One axis of a tile: where it starts, and the range of the axis that is kept of it."""

    start: int
    keep_start: int
    keep_end: int


def tile_starts(size: int, tile: int, step: int, edges: str) -> list[int]:
    """Place the tiles of the splitter on an axis: at every multiple of the step inside the raster.

    Args:
        size: length of the axis in pixels.
        tile: length of a tile in pixels.
        step: distance between starts in pixels.
        edges: ``pad`` lets tiles reach over the border, ``shift`` moves such tiles inside, ``drop``
            leaves them out. A tile longer than the axis reaches over it with ``shift``, too.
    """
    starts = list(range(0, size, step))
    if edges == "drop":
        return [start for start in starts if start + tile <= size]
    if edges == "shift":
        return sorted({min(start, max(size - tile, 0)) for start in starts})
    return starts


def split_windows(size: tuple[int, int], tile: tuple[int, int], step: tuple[int, int], edges: str) -> list[Window]:
    """List the splitter's windows row by row; sizes are ``(x, y)`` in pixels."""
    columns = tile_starts(size[0], tile[0], step[0], edges)
    rows = tile_starts(size[1], tile[1], step[1], edges)
    return [Window(x, y, *tile) for y in rows for x in columns]


def block_windows(width: int, height: int, size: int) -> list[Window]:
    """Cut a grid into square blocks, row by row, for looking at every pixel once; those at the borders are smaller."""
    corners = ((x, y) for y in range(0, height, size) for x in range(0, width, size))
    return [Window(x, y, size, size).clipped(width, height) for x, y in corners]


def covering(size: int, tile: int, overlap: int) -> list[Span]:
    """Cover an axis with equal tiles whose kept parts partition it.

    Tiles start evenly spread and reach over both ends of the axis by ``overlap``, so that every kept pixel
    has at least that many neighbours on each side; a reader mirrors the image beyond its border.

    Args:
        size: length of the axis in pixels, at least 1.
        tile: length of a tile in pixels.
        overlap: pixels dropped at each side of a tile, less than half of it.

    Returns:
        One span per tile, in order; their kept parts are disjoint and their union is the axis.

    Raises:
        ConfigError: if nothing would be kept of a tile.
    """
    core = tile - 2 * overlap
    if core < 1:
        raise ConfigError(f"OVERLAP leaves nothing of a tile: {overlap} of {tile} pixels on each side.")
    count = -(-size // core)
    if count == 1:
        return [Span(-((tile - size) // 2), 0, size)]
    room = size + 2 * overlap - tile
    starts = [round(index * room / (count - 1)) - overlap for index in range(count)]
    # Two neighbours have at least 2 * overlap pixels in common; the border lies in the middle of them.
    inner = [(left + tile + right) // 2 for left, right in pairwise(starts)]
    borders = [0, *inner, size]
    return [Span(start, borders[index], borders[index + 1]) for index, start in enumerate(starts)]


def even_tile(size: int, overlap: int, longest: int, stride: int) -> int:
    """Give the length of the tiles that cover an axis with the fewest pixels computed.

    Args:
        size: length of the axis in pixels.
        overlap: pixels dropped at each side of a tile.
        longest: length that a tile may have, more than twice the overlap.
        stride: the length is a multiple of this.
    """
    fewest = -(-size // max(longest - 2 * overlap, 1))
    tiles = {count: -(-(-(-size // count) + 2 * overlap) // stride) * stride for count in range(fewest, fewest + 4)}
    fitting = {count: tile for count, tile in tiles.items() if tile <= longest}
    return min(fitting.values(), key=lambda tile: len(covering(size, tile, overlap)) * tile, default=longest)


def map_windows(width: int, height: int, tile: tuple[int, int], overlap: int) -> list[list[TileWindow]]:
    """Cover a grid with rows of tiles, whose ``keep`` windows partition it exactly; sizes are ``(x, y)`` in pixels."""
    return [
        [
            TileWindow(
                Window(column.start, row.start, *tile),
                Window(
                    column.keep_start,
                    row.keep_start,
                    column.keep_end - column.keep_start,
                    row.keep_end - row.keep_start,
                ),
            )
            for column in covering(width, tile[0], overlap)
        ]
        for row in covering(height, tile[1], overlap)
    ]
