# SPDX-License-Identifier: GPL-3.0-or-later
"""Ground: where chips lie, which of them share it, and spatial blocks that keep sets apart.

Chips are boxes ``xmin, ymin, xmax, ymax`` in the units of one CRS, see ``boxes_of``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.grid import Extent, Grid, extents_in
from specdeepmap.core.data.splits import LEFT_OUT, Assignment
from specdeepmap.core.errors import RasterError

_ENOUGH_BLOCKS = 24
_TURNED = 0.1
_ROUNDING = 1e-3  # of a pixel: overlaps and gaps below it are none
_SAME_ANGLE = 1e-6  # radians: a thousandth of a pixel over a thousand of them


def common_grounds(grids: Sequence[Grid], sources: Sequence[str]) -> list[NDArray[np.intp]]:
    """Group chips whose places can be compared: by CRS, and without one by the image they were cut from.

    Args:
        grids: of the chips.
        sources: stem of each chip's source image.

    Returns:
        The positions of each group's chips.
    """
    first: dict[str, Grid] = {}  # of each CRS that was met
    same: dict[str, str] = {}
    for grid in grids:
        if grid.crs and grid.crs not in same:
            known = next((crs for crs, other in first.items() if grid.same_crs(other)), grid.crs)
            same[grid.crs] = known
            first.setdefault(known, grid)
    keys = [same[grid.crs] if grid.crs else f"without CRS: {name}" for grid, name in zip(grids, sources, strict=True)]
    return [np.flatnonzero(np.array([key == wanted for key in keys])) for wanted in sorted(set(keys))]


def boxes_of(grids: Sequence[Grid]) -> list[Extent]:
    """Give the boxes of chips that have one CRS.

    Where all are turned by the same angle, as those of a flight line are, the axes are turned with them, so that a box
    is its chip. Of chips that are turned by different angles they are the bounding boxes, which are larger than the
    chips.
    """
    _, along, _, _, across, _ = grids[0].transform
    length = math.hypot(along, across) or 1.0
    cosine, sine = along / length, across / length
    if not sine or any(_angle_from(grid, cosine, sine) > _SAME_ANGLE for grid in grids):
        return [grid.extent for grid in grids]
    return [_turned_back(grid, cosine, sine).extent for grid in grids]


def _angle_from(grid: Grid, cosine: float, sine: float) -> float:
    """Give the angle between the rows of a grid and a direction, in radians, of those below a right one."""
    _, along, _, _, across, _ = grid.transform
    return abs(cosine * across - sine * along) / (math.hypot(along, across) or 1.0)


def _turned_back(grid: Grid, cosine: float, sine: float) -> Grid:
    """Turn a grid about the origin, so that rows in this direction run along the x axis; distances stay."""
    a, b, c, d, e, f = grid.transform
    pairs = ((a, d), (b, e), (c, f))
    xs, ys = zip(*((cosine * x + sine * y, cosine * y - sine * x) for x, y in pairs), strict=True)
    return Grid(grid.width, grid.height, (*xs, *ys), grid.crs)


def leaks(extents: Sequence[Extent], assignment: Assignment) -> list[int]:
    """Find chips that share ground with a chip of another set.

    Returns:
        Positions of the leaking chips, ascending.
    """
    boxes = np.asarray(extents, np.float64).reshape(-1, 4)
    leaking = {chip for pair in _neighbours(boxes, assignment, _overlap_limit(boxes)) for chip in pair}
    return sorted(leaking)


@dataclass(frozen=True, eq=False)
class SharedGround:
    """Chips in two coordinate systems, such as those of neighbouring UTM zones, that lie on the same ground.

    Attributes:
        positions: of the chips of both.
        boxes: of these chips ``(chips, 4)``, in the first of the two; those of the other have turned, and are larger
            than the chips.
        second: which of them have the second.
    """

    positions: NDArray[np.intp]
    boxes: NDArray[np.float64]
    second: NDArray[np.bool_]

    def neighbours(self, assignment: Assignment, buffer: float = 0.0) -> list[tuple[int, int]]:
        """Give the positions of chips of different sets and systems that share ground, or lie closer than a buffer.

        Args:
            assignment: of all chips.
            buffer: in the units of the first system; 0 = an overlap below a tenth of a chip is none.
        """
        limit = buffer if buffer > 0 else -_TURNED * _smallest_side(self.boxes)
        pairs = _neighbours(self.boxes, assignment[self.positions], limit)
        across = ((one, other) for one, other in pairs if self.second[one] != self.second[other])
        return [(int(self.positions[one]), int(self.positions[other])) for one, other in across]


def shared_grounds(grids: Sequence[Grid], grounds: Sequence[NDArray[np.intp]]) -> list[SharedGround]:
    """Find the pairs of coordinate systems whose chips lie on the same ground.

    Args:
        grids: of the chips.
        grounds: positions of the chips of each system, see ``common_grounds``.
    """
    placed = [positions for positions in grounds if grids[positions[0]].crs]
    found = []
    for first, second in combinations(placed, 2):
        crs = grids[first[0]].crs
        try:
            boxes = np.asarray(_boxes_in(crs, grids, (first, second)), np.float64)
        except RasterError:  # a local system: nobody knows where it lies
            continue
        known = np.isfinite(boxes).all(axis=1)
        positions, of_second = np.concatenate((first, second)), np.arange(len(boxes)) >= len(first)
        boxes, positions, of_second = boxes[known], positions[known], of_second[known]
        if any(_neighbours(boxes, of_second.astype(np.int8), -_TURNED * _smallest_side(boxes))):
            found.append(SharedGround(positions, boxes, of_second))
    return found


def joined_grounds(
    grids: Sequence[Grid], grounds: Sequence[NDArray[np.intp]], shared: Sequence[SharedGround]
) -> list[tuple[NDArray[np.intp], list[Extent]]]:
    """Join the coordinate systems whose chips lie on the same ground, so that one block holds all chips of a place.

    Returns:
        Positions of the chips of each ground, and their boxes: see ``boxes_of``, or, of several systems, in the first.
    """
    group = np.arange(len(grids))
    for positions in grounds:
        group[positions] = positions[0]
    for ground in shared:
        group[np.isin(group, group[ground.positions])] = group[ground.positions[0]]
    joined = []
    for positions in (np.flatnonzero(group == number) for number in dict.fromkeys(group[g[0]] for g in grounds)):
        parts = [part for part in grounds if part[0] in positions]
        if len(parts) == 1:
            joined.append((positions, boxes_of([grids[index] for index in positions])))
        else:
            joined.append((np.concatenate(parts), _boxes_in(grids[parts[0][0]].crs, grids, parts)))
    return joined


def _boxes_in(crs: str, grids: Sequence[Grid], parts: Sequence[NDArray[np.intp]]) -> list[Extent]:
    """Give the boxes of chips in one system, those of a part having the same."""
    return [box for part in parts for box in extents_in([grids[index] for index in part], crs)]


def leaks_across(shared: Sequence[SharedGround], assignment: Assignment) -> list[int]:
    """Find chips that share ground with a chip of another set in another coordinate system.

    Returns:
        Positions of the leaking chips, ascending.
    """
    return sorted({chip for ground in shared for pair in ground.neighbours(assignment) for chip in pair})


def find_blocks(extents: Sequence[Extent], size: float) -> NDArray[np.intp]:
    """Put chips into square blocks by their centres.

    Args:
        extents: of the chips.
        size: of a block, in the units of the extents.

    Returns:
        The number of each chip's block, from 0 without gaps.
    """
    boxes = np.asarray(extents, np.float64).reshape(-1, 4)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    cells = np.floor((centres - boxes[:, :2].min(axis=0)) / size + 1e-9).astype(np.int64)
    return np.asarray(np.unique(cells, axis=0, return_inverse=True)[1], np.intp).reshape(-1)


def automatic_block_size(extents: Sequence[Extent]) -> float:
    """Choose blocks as large as leave about two dozen of them, in whole chips."""
    boxes = np.asarray(extents, np.float64).reshape(-1, 4)
    chip = float((boxes[:, 2:] - boxes[:, :2]).max())
    factor = 2
    while len(set(find_blocks(extents, (factor + 1) * chip).tolist())) >= _ENOUGH_BLOCKS:
        factor += 1
    enough = len(set(find_blocks(extents, factor * chip).tolist())) >= _ENOUGH_BLOCKS / 2
    return factor * chip if enough else chip


def without_neighbours(extents: Sequence[Extent], assignment: Assignment, buffer: float) -> Assignment:
    """Leave out chips until no two of different sets overlap, or lie closer than a buffer.

    Of two such chips the one in the larger set goes, since small sets cannot spare any; of two in sets of equal
    size, the one with more such neighbours.

    Args:
        extents: of the chips.
        assignment: of the chips.
        buffer: smallest gap that may be between two chips, in the units of the extents; 0 = they may touch.
    """
    boxes = np.asarray(extents, np.float64).reshape(-1, 4)
    limit = buffer * (1 - 1e-9) if buffer > 0 else _overlap_limit(boxes)
    return _thinned(assignment, list(_neighbours(boxes, assignment, limit)))


def without_neighbours_across(
    shared: Sequence[SharedGround], assignment: Assignment, buffers: Sequence[float]
) -> Assignment:
    """Do the same for chips of two coordinate systems.

    Args:
        shared: see ``shared_grounds``.
        assignment: of all chips.
        buffers: smallest gap on each of these grounds, in the units of its first system; 0 = they may touch.
    """
    for ground, buffer in zip(shared, buffers, strict=True):
        assignment = _thinned(assignment, ground.neighbours(assignment, buffer))
    return assignment


def _thinned(assignment: Assignment, pairs: Sequence[tuple[int, int]]) -> Assignment:
    """Leave out chips until none of these pairs is left."""
    count = len(assignment)
    kept = assignment.copy()
    sizes = np.bincount(assignment, minlength=LEFT_OUT + 1)
    degree = np.bincount(np.array(pairs, np.intp).ravel(), minlength=count) if pairs else np.zeros(count)
    for first, second in sorted(pairs, key=lambda pair: -max(degree[pair[0]], degree[pair[1]])):
        if kept[first] == LEFT_OUT or kept[second] == LEFT_OUT:
            continue
        gone = max((first, second), key=lambda chip: (sizes[kept[chip]], degree[chip]))
        sizes[kept[gone]] -= 1
        kept[gone] = LEFT_OUT
    # A chip may stay after all where its neighbours went for the sake of others.
    near: dict[int, list[int]] = {int(chip): [] for chip in np.flatnonzero(kept != assignment)}
    for first, second in pairs:
        near.get(first, []).append(second)
        near.get(second, []).append(first)
    for chip, others in sorted(near.items(), key=lambda item: len(item[1])):
        if all(kept[other] == LEFT_OUT for other in others):
            kept[chip] = assignment[chip]
    return kept


def _overlap_limit(boxes: NDArray[np.float64]) -> float:
    """Give the gap, negative, below which two chips overlap by more than rounding."""
    return -_ROUNDING * _smallest_side(boxes)


def _smallest_side(boxes: NDArray[np.float64]) -> float:
    return float((boxes[:, 2:] - boxes[:, :2]).min()) if len(boxes) else 0.0


def _neighbours(boxes: NDArray[np.float64], assignment: Assignment, limit: float) -> Iterator[tuple[int, int]]:
    """Yield pairs of chips of different sets whose gap is below a limit; a negative gap is an overlap.

    Chips are swept from west to east, so that each is compared with those near it only.
    """
    order = np.flatnonzero(assignment != LEFT_OUT)
    order = order[np.argsort(boxes[order, 0], kind="stable")]
    starts = boxes[order, 0]
    for place, chip in enumerate(order):
        end = np.searchsorted(starts, boxes[chip, 2] + max(limit, 0.0), side="right")
        near = order[place + 1 : end]
        near = near[assignment[near] != assignment[chip]]
        if not len(near):
            continue
        gap_x = np.maximum(boxes[near, 0], boxes[chip, 0]) - np.minimum(boxes[near, 2], boxes[chip, 2])
        gap_y = np.maximum(boxes[near, 1], boxes[chip, 1]) - np.minimum(boxes[near, 3], boxes[chip, 3])
        for other in near[np.maximum(gap_x, gap_y) < limit]:
            yield int(chip), int(other)
