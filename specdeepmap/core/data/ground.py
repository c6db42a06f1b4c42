# SPDX-License-Identifier: GPL-3.0-or-later
"""Ground: where chips lie, which of them share it, and spatial blocks that keep sets apart.

Chips are boxes ``xmin, ymin, xmax, ymax`` in the units of one CRS. Rotated chips count with their bounding box.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.raster import Extent, Grid, extents_in
from specdeepmap.core.data.splits import LEFT_OUT, Assignment
from specdeepmap.core.errors import RasterError

_ENOUGH_BLOCKS = 24
_TURNED = 0.1
_ROUNDING = 1e-3  # of a pixel: overlaps and gaps below it are none


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


def leaks(extents: Sequence[Extent], assignment: Assignment) -> list[int]:
    """Find chips that share ground with a chip of another set.

    Returns:
        Positions of the leaking chips, ascending.
    """
    boxes = np.asarray(extents, np.float64).reshape(-1, 4)
    leaking = {chip for pair in _neighbours(boxes, assignment, _overlap_limit(boxes)) for chip in pair}
    return sorted(leaking)


def leaks_across(grids: Sequence[Grid], grounds: Sequence[NDArray[np.intp]], assignment: Assignment) -> list[int]:
    """Find chips that share ground with a chip of another set in another CRS, such as that of the next UTM zone.

    A box turns from one CRS to the other, and its bounding box grows: an overlap below a tenth of a chip is none.

    Args:
        grids: of the chips.
        grounds: positions of the chips of each CRS, see ``common_grounds``.
        assignment: of the chips.

    Returns:
        Positions of the leaking chips, ascending.
    """
    placed = [positions for positions in grounds if grids[positions[0]].crs]
    if len(placed) < 2:
        return []
    crs, leaking = grids[placed[0][0]].crs, set()
    positions, extents = np.concatenate(placed), []
    for ground in placed:
        try:
            extents += extents_in([grids[index] for index in ground], crs)
        except RasterError:  # a local system: nobody knows where it lies
            extents += [(np.nan,) * 4] * len(ground)
    boxes = np.asarray(extents, np.float64)
    known = np.isfinite(boxes).all(axis=1)
    boxes, positions = boxes[known], positions[known]
    system = np.concatenate([np.full(len(ground), number) for number, ground in enumerate(placed)])[known]
    limit = -_TURNED * float((boxes[:, 2:] - boxes[:, :2]).min()) if len(boxes) else 0.0
    for first, second in _neighbours(boxes, assignment[positions], limit):
        if system[first] != system[second]:
            leaking |= {int(positions[first]), int(positions[second])}
    return sorted(leaking)


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
    pairs = list(_neighbours(boxes, assignment, limit))
    kept = assignment.copy()
    sizes = np.bincount(assignment, minlength=LEFT_OUT + 1)
    degree = np.bincount(np.array(pairs, np.intp).ravel(), minlength=len(boxes)) if pairs else np.zeros(len(boxes))
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
    return -_ROUNDING * float((boxes[:, 2:] - boxes[:, :2]).min()) if len(boxes) else 0.0


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
