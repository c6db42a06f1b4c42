# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of windows and tiles."""

from __future__ import annotations

from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdeepmap.core.data.tiling import Window, covering, map_windows, split_windows, tile_starts
from specdeepmap.core.errors import ConfigError


@pytest.mark.parametrize(("tile", "overlap"), [(1, 0), (8, 0), (8, 1), (8, 3), (9, 4), (32, 3), (33, 14)])
def test_covering_of_every_size_from_one_pixel_to_three_tiles(tile: int, overlap: int) -> None:
    for size in range(1, 3 * tile + 1):
        spans = covering(size, tile, overlap)
        kept = [pixel for span in spans for pixel in range(span.keep_start, span.keep_end)]
        assert kept == list(range(size)), size
        for span in spans:
            assert span.keep_start - span.start >= overlap, size
            assert span.start + tile - span.keep_end >= overlap, size


@given(st.integers(1, 3000), st.integers(1, 300), st.data())
def test_covering_of_any_size(size: int, tile: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, (tile - 1) // 2))
    spans = covering(size, tile, overlap)
    assert spans[0].keep_start == 0 and spans[-1].keep_end == size
    for left, right in pairwise(spans):
        assert left.keep_end == right.keep_start
        assert left.start < right.start
    for span in spans:
        assert span.keep_start < span.keep_end
        assert span.start + overlap <= span.keep_start
        assert span.keep_end <= span.start + tile - overlap
    assert len(spans) == -(-size // (tile - 2 * overlap)), "no tile more than needed"


def test_covering_refuses_an_overlap_that_leaves_nothing() -> None:
    assert covering(100, 9, 4)
    for overlap in (5, 6, 90):
        with pytest.raises(ConfigError, match=f"OVERLAP .* {overlap} of 10"):
            covering(100, 10, overlap)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20), st.data())
def test_map_windows_partition_the_grid(width: int, height: int, tile: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, (tile - 1) // 2))
    times = np.zeros((height, width), int)
    for window in chain.from_iterable(map_windows(width, height, (tile, tile), overlap)):
        keep, read = window.keep, window.read
        assert keep == keep.clipped(width, height)
        times[keep.y : keep.y_end, keep.x : keep.x_end] += 1
        assert (read.width, read.height) == (tile, tile)
        assert read.x + overlap <= keep.x and keep.x_end + overlap <= read.x_end
        assert read.y + overlap <= keep.y and keep.y_end + overlap <= read.y_end
    assert (times == 1).all()


@given(st.integers(1, 200), st.integers(1, 80), st.integers(1, 80))
def test_tile_starts(size: int, tile: int, step: int) -> None:
    pad, shift, drop = (tile_starts(size, tile, step, edges) for edges in ("pad", "shift", "drop"))
    assert pad == [start for start in range(size) if start % step == 0]
    assert drop == [start for start in pad if start + tile <= size]
    assert shift == sorted(set(shift))
    assert set(drop) <= set(shift)
    assert all(start >= 0 and (start + tile <= size or (tile > size and start == 0)) for start in shift)
    covered = {pixel for start in pad for pixel in range(start, min(start + tile, size))}
    assert covered <= {pixel for start in shift for pixel in range(start, start + tile)}, "shift loses nothing"
    if step <= tile:
        assert covered == set(range(size))


def test_split_windows_go_row_by_row_and_keep_axes_apart() -> None:
    windows = split_windows((20, 10), (8, 4), (10, 5), "pad")
    assert windows == [Window(0, 0, 8, 4), Window(10, 0, 8, 4), Window(0, 5, 8, 4), Window(10, 5, 8, 4)]


def test_windows_are_clipped_and_moved() -> None:
    window = Window(-3, 5, 10, 10)
    assert window.clipped(5, 8) == Window(0, 5, 5, 3)
    assert (window.x_end, window.y_end) == (7, 15)
    assert window.moved(3, -5) == Window(0, 0, 10, 10)
    outside = Window(20, 0, 4, 4).clipped(8, 8)
    assert (outside.width, outside.height) == (0, 4)
