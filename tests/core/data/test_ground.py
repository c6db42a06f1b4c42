# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of where chips lie, and of what keeps sets apart on the ground."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from osgeo import osr

from specdeepmap.core.data.grid import Extent, Grid
from specdeepmap.core.data.ground import (
    automatic_block_size,
    boxes_of,
    common_grounds,
    find_blocks,
    leaks,
    without_neighbours,
)
from specdeepmap.core.data.splits import LEFT_OUT
from specdeepmap.core.data.tiling import Window
from tests.helpers import TRANSFORM, Array, utm


def boxes(size: float, step: float, columns: int, rows: int) -> list[tuple[float, float, float, float]]:
    corners = [(step * column, -step * row) for row in range(rows) for column in range(columns)]
    return [(5e5 + x, 5e6 + y - size, 5e5 + x + size, 5e6 + y) for x, y in corners]


def test_leaks_finds_overlaps_and_not_neighbours_that_touch() -> None:
    assignment = np.array([0, 1, 2, 0, 1, 2, LEFT_OUT, 0, 1], np.int8)
    assert leaks(boxes(640, 640, 3, 3), assignment) == []
    assert leaks(boxes(640, 700, 3, 3), assignment) == []
    assert leaks(boxes(640, 600, 3, 3), assignment) == [0, 1, 2, 3, 4, 5, 7, 8], "left-out chips do not leak"
    assert leaks(boxes(640, 600, 3, 3), np.zeros(9, np.int8)) == [], "one set shares with itself"


def test_leaks_takes_no_rounding_for_an_overlap() -> None:
    touching = [(0.1 + 0.2, 0.0, 0.6, 0.3), (0.0, 0.0, 0.3000001, 0.3)]
    assert leaks(touching, np.array([0, 1], np.int8)) == []
    corner = [(0.0, 0.0, 10.0, 10.0), (9.0, 9.0, 19.0, 19.0), (19.0, 9.0, 29.0, 19.0)]
    assert leaks(corner, np.array([0, 1, 2], np.int8)) == [0, 1]


def test_leaks_sees_a_small_chip_inside_a_large_one() -> None:
    nested = [(0.0, 0.0, 1000.0, 1000.0), (500.0, 500.0, 500.5, 500.5)]
    assert leaks(nested, np.array([0, 2], np.int8)) == [0, 1]


@given(st.integers(0, 10**6))
def test_leaks_equals_a_look_at_every_pair(seed: int) -> None:
    random = np.random.default_rng(seed)
    corners = random.integers(0, 12, (15, 2))
    extents = [(float(x), float(y), float(x + 4), float(y + 4)) for x, y in corners]
    assignment = random.integers(0, LEFT_OUT + 1, 15).astype(np.int8)
    wanted = {
        one
        for one in range(15)
        for two in range(15)
        if LEFT_OUT not in (assignment[one], assignment[two])
        and assignment[one] != assignment[two]
        and abs(corners[one] - corners[two]).max() < 4
    }
    assert leaks(extents, assignment) == sorted(wanted)


@st.composite
def chips_and_sets(draw: st.DrawFn) -> tuple[list[Extent], Array]:
    """Draw chips of about the same size anywhere, in sets by chance; some are left out from the start."""
    count, size = draw(st.integers(2, 30)), draw(st.sampled_from([4.0, 30.0, 2e-4]))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    corners = random.integers(0, draw(st.integers(3, 40)), (count, 2)) * size / 4
    sizes = size * random.choice([1.0, 1.5], (count, 2))
    extents = [(5e5 + x, 52.0 + y, 5e5 + x + w, 52.0 + y + h) for (x, y), (w, h) in zip(corners, sizes, strict=True)]
    return extents, random.integers(0, LEFT_OUT + 1, count).astype(np.int8)


def gap(one: Extent, two: Extent) -> float:
    """Give the larger of the gaps along x and y; negative where two boxes overlap."""
    along_x = max(one[0], two[0]) - min(one[2], two[2])
    along_y = max(one[1], two[1]) - min(one[3], two[3])
    return max(along_x, along_y)


def too_near(extents: list[Extent], assignment: Array, buffer: float) -> set[tuple[int, int]]:
    """Look at every pair of chips of different sets."""
    size = min(box[2] - box[0] for box in extents)
    limit = buffer - 1e-6 * size if buffer else -1e-2 * size
    return {
        (one, two)
        for one in range(len(extents))
        for two in range(one)
        if LEFT_OUT not in (assignment[one], assignment[two])
        and assignment[one] != assignment[two]
        and gap(extents[one], extents[two]) < limit
    }


@given(chips_and_sets(), st.sampled_from([0.0, 0.25, 1.0, 2.6]))
@settings(max_examples=150)
def test_without_neighbours_no_two_sets_come_too_near(drawn: tuple[list[Extent], Array], widths: float) -> None:
    extents, assignment = drawn
    buffer = widths * (extents[0][2] - extents[0][0])
    before = assignment.copy()
    kept = without_neighbours(extents, assignment, buffer)
    assert np.array_equal(assignment, before), "the argument is not changed"
    assert ((kept == assignment) | (kept == LEFT_OUT)).all(), "no chip changes its set"
    assert too_near(extents, kept, buffer) == set()
    assert buffer > 0 or leaks(extents, kept) == []
    for chip in np.flatnonzero(kept != assignment):
        back = kept.copy()
        back[chip] = assignment[chip]
        assert leaks_or_near(extents, back, buffer, int(chip)), "left out needlessly"


def leaks_or_near(extents: list[Extent], assignment: Array, buffer: float, chip: int) -> bool:
    """Tell whether a chip comes too near to another set, with a little more than the buffer."""
    size = min(box[2] - box[0] for box in extents)
    return any(
        LEFT_OUT != assignment[other] != assignment[chip] and gap(extents[chip], box) < buffer + 1e-6 * size
        for other, box in enumerate(extents)
    )


@pytest.mark.parametrize(("step", "buffer"), [(640, 0), (700, 0), (700, 59.9), (700, 60)])
def test_chips_that_keep_their_distance_all_stay(step: float, buffer: float, random: np.random.Generator) -> None:
    assignment = random.integers(0, 3, 36).astype(np.int8)
    assert np.array_equal(without_neighbours(boxes(640, step, 6, 6), assignment, buffer), assignment)


def test_the_larger_set_gives_way() -> None:
    row = boxes(640, 600, 12, 1)
    assignment = np.array([0] * 9 + [1, 1, 2], np.int8)
    kept = without_neighbours(row, assignment, 0)
    assert kept.tolist() == [0] * 8 + [LEFT_OUT, 1, LEFT_OUT, 2]


@given(chips_and_sets(), st.floats(0.3, 6))
def test_find_blocks_puts_centres_into_squares(drawn: tuple[list[Extent], Array], widths: float) -> None:
    extents, _ = drawn
    size = widths * (extents[0][2] - extents[0][0])
    blocks = find_blocks(extents, size)
    assert set(blocks.tolist()) == set(range(blocks.max() + 1)), "numbers without gaps"
    west, south = min(box[0] for box in extents), min(box[1] for box in extents)
    cells = [
        (
            math.floor(((box[0] + box[2]) / 2 - west) / size + 1e-9),
            math.floor(((box[1] + box[3]) / 2 - south) / size + 1e-9),
        )
        for box in extents
    ]
    for one in range(len(cells)):
        for two in range(one):
            assert (blocks[one] == blocks[two]) == (cells[one] == cells[two])


def test_blocks_of_two_by_two_chips() -> None:
    # Rows run from north to south; blocks start in the south-west.
    blocks = find_blocks(boxes(640, 640, 4, 4), 1280).reshape(4, 4)
    assert len(np.unique(blocks)) == 4
    for rows in (slice(0, 2), slice(2, 4)):
        for columns in (slice(0, 2), slice(2, 4)):
            assert len(np.unique(blocks[rows, columns])) == 1


@given(st.integers(1, 25), st.integers(1, 25), st.sampled_from([0.3, 1.0, 1.4]))
def test_automatic_blocks_are_whole_chips_and_about_two_dozen(columns: int, rows: int, step: float) -> None:
    extents = boxes(640, 640 * step, columns, rows)
    size = automatic_block_size(extents)
    factor = round(size / 640)
    assert size == factor * 640 and factor >= 1
    count = len(np.unique(find_blocks(extents, size)))
    larger = len(np.unique(find_blocks(extents, size + 640)))
    if factor > 1:
        assert count >= 12 and larger < 24, "as large as leaves about two dozen"
    else:
        assert len(np.unique(find_blocks(extents, 1280))) < 12, "small only where there are few"


def test_automatic_blocks_of_a_large_scene() -> None:
    assert automatic_block_size(boxes(640, 640, 24, 24)) == 5 * 640, "25 blocks"
    assert automatic_block_size(boxes(640, 640, 1, 1)) == 640


def variants(epsg: int) -> list[str]:
    """Give the same CRS in several words."""
    system = osr.SpatialReference()
    system.ImportFromEPSG(epsg)
    return [system.ExportToWkt([f"FORMAT={name}"]) for name in ("WKT1_GDAL", "WKT2_2019", "WKT2_2015")]


def test_common_grounds_are_those_of_one_crs_whatever_its_words() -> None:
    north, south = variants(32633), variants(32733)
    assert len(set(north)) == 3
    grids = [Grid(8, 8, TRANSFORM, crs) for pair in zip(north, south, strict=True) for crs in pair]
    for order in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]):
        found = common_grounds([grids[index] for index in order], list("abcdef"))
        assert sorted(sorted(order[place] for place in group) for group in found) == [[0, 2, 4], [1, 3, 5]]


def test_without_a_crs_only_chips_of_one_image_share_a_ground() -> None:
    grids = [Grid(8, 8), Grid(8, 8, (8.0, 1.0, 0.0, 0.0, 0.0, 1.0)), Grid(8, 8), Grid(8, 8, TRANSFORM, utm())]
    found = common_grounds(grids, ["a", "a", "b", "a"])
    assert sorted(group.tolist() for group in found) == [[0, 1], [2], [3]]
    assert common_grounds([], []) == []


def turned_chips(degrees: float, step: int, mirrored: bool = False) -> list[Grid]:
    """Cut 5 x 5 chips of 8 pixels of 10 m from an image whose rows are turned by an angle."""
    cosine, sine = 10 * math.cos(math.radians(degrees)), 10 * math.sin(math.radians(degrees))
    down = -1 if mirrored else 1
    image = Grid(99, 99, (4e5, cosine, down * sine, 5.8e6, sine, -down * cosine), utm())
    return [image.cut(Window(step * column, step * row, 8, 8)) for row in range(5) for column in range(5)]


@pytest.mark.parametrize("mirrored", [False, True])
@given(st.floats(-180, 180), st.integers(5, 10), st.integers(0, 10**6))
def test_turned_chips_are_as_near_to_each_other_as_upright_ones(
    mirrored: bool, degrees: float, step: int, seed: int
) -> None:
    upright, turned = (boxes_of(turned_chips(angle, step, mirrored)) for angle in (0, degrees))
    assignment = np.random.default_rng(seed).integers(0, LEFT_OUT + 1, 25).astype(np.int8)
    assert leaks(turned, assignment) == leaks(upright, assignment)
    for buffer in (0.0, 15.0):
        kept = without_neighbours(turned, assignment, buffer)
        assert np.array_equal(without_neighbours(upright, kept, buffer), kept), "chips that come too near stayed"
        kept = without_neighbours(upright, assignment, buffer)
        assert np.array_equal(without_neighbours(turned, kept, buffer), kept), "chips far enough apart went"
    assert automatic_block_size(turned) == pytest.approx(automatic_block_size(upright), abs=1e-6)


def test_chips_turned_by_different_angles_count_with_bounding_boxes() -> None:
    grids = [*turned_chips(0, 8), *turned_chips(30, 8)]
    assert boxes_of(grids) == [grid.extent for grid in grids]
