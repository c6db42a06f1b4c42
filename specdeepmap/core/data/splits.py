# SPDX-License-Identifier: GPL-3.0-or-later
"""Splits: which chips train, which validate, which test.

An assignment is an array with one number per chip: the position in ``SPLIT_NAMES``, or ``LEFT_OUT``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.raster import Extent

SPLIT_NAMES = ("train", "validation", "test")
LEFT_OUT = len(SPLIT_NAMES)

_ROUNDS = 3000
_CANDIDATES = 256

Assignment = NDArray[np.int8]


def split_sizes(count: int, percents: Sequence[float]) -> list[int]:
    """Turn percentages into numbers of chips by the largest remainders; they never exceed ``count``.

    100 chips at 86, 7, 7 percent give 86, 7, 7.
    """
    # Rounding first keeps 0.07 * 100 from being 7.000000000000001 chips.
    exact = [round(count * percent / 100, 9) for percent in percents]
    sizes = [math.floor(share) for share in exact]
    total = min(math.floor(round(sum(exact), 9) + 0.5), count)
    by_remainder = sorted(range(len(sizes)), key=lambda i: (sizes[i] - exact[i], i))
    for index in by_remainder[: total - sum(sizes)]:
        sizes[index] += 1
    return sizes


def split_random(count: int, percents: Sequence[float], seed: int) -> Assignment:
    """Draw the sets by chance."""
    assignment = np.full(count, LEFT_OUT, np.int8)
    order = np.random.default_rng(seed).permutation(count)
    start = 0
    for index, size in enumerate(split_sizes(count, percents)):
        assignment[order[start : start + size]] = index
        start += size
    return assignment


def split_stratified(counts: NDArray[np.int64], percents: Sequence[float], seed: int) -> Assignment:
    """Make the class shares of the sets as equal as possible.

    Starts at a random split and swaps chips between sets as long as that lowers ``imbalance``, trying for
    one chip at a time the best of up to 256 partners.

    Args:
        counts: labelled pixels ``(chips, classes)``.
        percents: share of the chips for each set.
        seed: of the random numbers; same seed, same split.
    """
    assignment = split_random(len(counts), percents, seed)
    pixels = counts.astype(np.float64)
    present = (counts > 0).astype(np.float64)
    random = np.random.default_rng(seed + 1)
    cost = float(_cost(_sums(pixels, assignment)[None], _sums(present, assignment)[None], present)[0])
    for chip in np.resize(random.permutation(len(counts)), min(_ROUNDS, 20 * len(counts))):
        partners = np.flatnonzero(assignment != assignment[chip])
        if len(partners) > _CANDIDATES:
            partners = random.choice(partners, _CANDIDATES, replace=False)
        if not len(partners):
            break
        tried = _cost(
            _swapped(pixels, assignment, chip, partners),
            _swapped(present, assignment, chip, partners),
            present,
        )
        best = int(tried.argmin())
        if tried[best] < cost - 1e-12:
            cost = float(tried[best])
            partner = partners[best]
            assignment[[chip, partner]] = assignment[[partner, chip]]
    return assignment


def imbalance(counts: NDArray[np.int64], assignment: Assignment) -> float:
    """Measure a split: the largest difference of a class's share of the labelled pixels between two sets."""
    shares = _shares(_sums(counts.astype(np.float64), assignment)[None])
    return float(_spread(shares).max())


def leaks(extents: Sequence[Extent], assignment: Assignment, tolerance: float = 1e-3) -> list[int]:
    """Find chips that share ground with a chip of another set.

    Args:
        extents: of the chips, in one CRS.
        assignment: of the chips.
        tolerance: overlaps narrower than this share of the smaller chip are rounding.

    Returns:
        Positions of the leaking chips, ascending.
    """
    boxes = np.asarray(extents, np.float64).reshape(-1, 4)
    slack = tolerance * np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    used = np.flatnonzero(assignment != LEFT_OUT)
    leaking = []
    for chip in used:
        others = used[assignment[used] != assignment[chip]]
        near = boxes[others]
        width = np.minimum(near[:, 2], boxes[chip, 2]) - np.maximum(near[:, 0], boxes[chip, 0])
        height = np.minimum(near[:, 3], boxes[chip, 3]) - np.maximum(near[:, 1], boxes[chip, 1])
        rounding = np.minimum(slack[others], slack[chip])
        if np.any((width > rounding) & (height > rounding)):
            leaking.append(int(chip))
    return leaking


def _sums(values: NDArray[np.float64], assignment: Assignment) -> NDArray[np.float64]:
    """Add up ``(chips, classes)`` per set, the chips left out included: ``(sets + 1, classes)``."""
    return np.stack([values[assignment == index].sum(axis=0) for index in range(LEFT_OUT + 1)])


def _swapped(
    values: NDArray[np.float64], assignment: Assignment, chip: int, partners: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Give the sums after each possible swap: ``(partners, sets + 1, classes)``."""
    sums = np.repeat(_sums(values, assignment)[None], len(partners), axis=0)
    gain = values[partners] - values[chip]
    rows = np.arange(len(partners))
    sums[:, assignment[chip]] += gain
    sums[rows, assignment[partners]] -= gain
    return sums


def _shares(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn pixel sums into class shares; an empty set has NaN."""
    totals = sums[:, :LEFT_OUT].sum(axis=2, keepdims=True)
    return np.divide(sums[:, :LEFT_OUT], totals, out=np.full(sums[:, :LEFT_OUT].shape, np.nan), where=totals > 0)


def _spread(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest minus smallest share over the sets that have pixels: ``(…, classes)``."""
    highest = np.where(np.isnan(shares), -np.inf, shares).max(axis=1)
    lowest = np.where(np.isnan(shares), np.inf, shares).min(axis=1)
    return np.asarray(np.maximum(highest - lowest, 0.0), np.float64)


def _cost(pixels: NDArray[np.float64], chips: NDArray[np.float64], present: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cost of splits: the imbalance, and 1 for each class missing in a set though it has enough chips."""
    spread = _spread(_shares(pixels))
    filled = pixels[:, :LEFT_OUT].sum(axis=2) > 0
    enough = present.sum(axis=0) >= filled.sum(axis=1, keepdims=True)
    missing = (chips[:, :LEFT_OUT] == 0) & filled[:, :, None] & enough[:, None, :]
    return np.asarray(spread.max(axis=1) + 0.05 * spread.mean(axis=1) + missing.sum(axis=(1, 2)), np.float64)
