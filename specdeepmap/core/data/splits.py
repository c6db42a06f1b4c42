# SPDX-License-Identifier: GPL-3.0-or-later
"""Splits: which chips train, which validate, which test.

An assignment is an array with one number per chip: the position in ``SPLIT_NAMES``, or ``LEFT_OUT``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SPLIT_NAMES = ("train", "validation", "test")
LEFT_OUT = len(SPLIT_NAMES)

_PASSES = 8
_TRIES = 300  # groups that are tried to be moved, at most
_CANDIDATES = 48  # partners that are tried for each
_STARTS = 16  # splits that are thinned, before one is improved
_FEWEST, _MOST = 4, 1000  # tries to improve it
_THINNED = 200_000  # chips that are thinned in all these tries
_GOOD = 2e-3  # a difference of class shares that is not worth more work

Assignment = NDArray[np.int8]
Floats = NDArray[np.float64]


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
    """Make the class shares of the sets as equal as possible, at sizes that are exact.

    Starts at a random split and swaps chips between sets as long as that lowers ``imbalance``.

    Args:
        counts: labelled pixels ``(chips, classes)``.
        percents: share of the chips for each set.
        seed: of the random numbers; same seed, same split.
    """
    assignment = split_random(len(counts), percents, seed)
    groups = _Groups(counts.astype(np.float64), (counts > 0).astype(np.float64), np.ones(len(counts)))
    return _improved(groups, assignment, None, seed)


def split_groups(
    counts: NDArray[np.int64], groups: NDArray[np.intp], percents: Sequence[float], seed: int
) -> Assignment:
    """Keep chips of a group in one set, and make class shares as equal and sizes as right as possible.

    Args:
        counts: labelled pixels ``(chips, classes)``.
        groups: number of the group of each chip, from 0 without gaps.
        percents: share of the chips for each set.
        seed: of the random numbers; same seed, same split.
    """
    number = int(groups.max()) + 1
    pixels, chips, size = np.zeros((number, counts.shape[1])), np.zeros((number, counts.shape[1])), np.zeros(number)
    np.add.at(pixels, groups, counts)
    np.add.at(chips, groups, counts > 0)
    np.add.at(size, groups, 1)
    wanted = split_sizes(len(counts), percents)
    targets = np.array([*wanted, len(counts) - sum(wanted)], np.float64)
    start = _filled(size, targets, seed)
    return _improved(_Groups(pixels, chips, size), start, targets, seed)[groups]


def split_thinned(
    counts: NDArray[np.int64],
    groups: NDArray[np.intp],
    percents: Sequence[float],
    seed: int,
    thinned: Callable[[Assignment], Assignment],
) -> tuple[Assignment, Assignment]:
    """Do the same where chips of different sets must not be neighbours: what is left after thinning counts.

    Where nothing has to go, this is ``split_groups``. Elsewhere some other starts are thinned, too, and groups of the
    best are moved between sets and swapped, by chance, as long as what is left gets better.

    Args:
        counts, groups, percents, seed: as in ``split_groups``.
        thinned: leaves out chips of an assignment until no two of different sets are neighbours.

    Returns:
        The assignment before and after thinning.
    """
    first = split_groups(counts, groups, percents, seed)
    best = thinned(first)
    if np.array_equal(best, first):
        return first, best
    wanted = split_sizes(len(counts), percents)
    targets = np.array([*wanted, len(counts) - sum(wanted)], np.float64)
    sizes = np.bincount(groups).astype(np.float64)
    sets = [index for index in range(LEFT_OUT + 1) if targets[index] > 0]

    def cost(assignment: Assignment) -> float:
        return _cost_of(counts, assignment, targets)

    tries = min(max(_THINNED // len(counts), _FEWEST), _MOST)
    others = range(1, min(tries, _STARTS))
    starts = [first, *(_filled(sizes, targets, seed + number)[groups] for number in others)]
    costs = [cost(thinned(start)) for start in starts]
    lowest = min(costs)
    moved = np.zeros(len(sizes), np.int8)
    moved[groups] = starts[costs.index(lowest)]
    best = thinned(moved[groups])
    random = np.random.default_rng(seed + 2)
    for _ in range(tries):
        one, other = random.integers(len(sizes), size=2)
        tried = moved.copy()
        if random.random() < 0.5:
            tried[one], tried[other] = moved[other], moved[one]
        else:
            tried[one] = random.choice(sets)
        if np.array_equal(tried, moved):
            continue
        left = thinned(tried[groups])
        if (after := cost(left)) < lowest:
            lowest, moved, best = after, tried, left
    return moved[groups], best


def imbalance(counts: NDArray[np.int64], assignment: Assignment) -> float:
    """Measure a split: the largest difference of a class's share of the labelled pixels between two sets."""
    sums = np.stack([counts[assignment == index].sum(axis=0) for index in range(LEFT_OUT)]).astype(np.float64)
    return float(_spread(sums[None]).max())


@dataclass(frozen=True, eq=False)
class _Groups:
    """What moves between sets as a whole: labelled pixels and chips per class, number of chips."""

    pixels: Floats
    chips: Floats
    size: Floats

    @property
    def features(self) -> Floats:
        """All of it side by side: ``(groups, 2 * classes + 1)``."""
        return np.hstack((self.pixels, self.chips, self.size[:, None]))


def _filled(size: Floats, targets: Floats, seed: int) -> Assignment:
    """Give groups to sets in random order, each to the set that lacks most."""
    assignment = np.full(len(size), LEFT_OUT, np.int8)
    lack = targets.copy()
    for group in np.random.default_rng(seed).permutation(len(size)):
        chosen = int((lack / np.maximum(targets, 1)).argmax())
        assignment[group] = chosen
        lack[chosen] -= size[group]
    return assignment


def _improved(groups: _Groups, start: Assignment, targets: Floats | None, seed: int) -> Assignment:
    """Swap groups between sets, and move them where sizes may change, as long as the cost falls.

    Args:
        groups: to be assigned.
        start: an assignment.
        targets: wanted chips per set, the ones left out last; None = sizes stay as they are.
        seed: of the random numbers.
    """
    features, assignment = groups.features, start.copy()
    total = groups.chips.sum(axis=0)
    sums = np.stack([features[assignment == index].sum(axis=0) for index in range(LEFT_OUT + 1)])
    random = np.random.default_rng(seed + 1)
    cost = float(_cost(sums[None], total, targets)[0])
    tries = 0
    for _ in range(_PASSES):
        before = cost
        for group in random.permutation(len(assignment)):
            tries += 1
            if tries > _TRIES or cost < _GOOD:
                return assignment
            own = assignment[group]
            partners = np.flatnonzero(assignment != own)
            if len(partners) > _CANDIDATES:
                partners = random.choice(partners, _CANDIDATES, replace=False)
            others, sets = features[partners], assignment[partners]
            if targets is not None:  # a move is a swap with nothing
                empty = [index for index in range(LEFT_OUT + 1) if index != own and targets[index] > 0]
                others = np.vstack((others, np.zeros((len(empty), features.shape[1]))))
                sets = np.concatenate((sets, np.array(empty, np.int8)))
            if not len(sets):
                continue
            swapped = _swapped(sums, features[group], int(own), others, sets)
            costs = _cost(swapped, total, targets)
            best = int(costs.argmin())
            if costs[best] < cost - 1e-12:
                cost, sums = float(costs[best]), swapped[best]
                assignment[group] = sets[best]
                if best < len(partners):
                    assignment[partners[best]] = own
        if cost >= before:
            break
    return assignment


def _swapped(sums: Floats, group: Floats, own: int, others: Floats, sets: Assignment) -> Floats:
    """Give the sums of the sets after each possible swap: ``(swaps, sets + 1, features)``."""
    after = np.repeat(sums[None], len(sets), axis=0)
    gain = others - group
    after[:, own] += gain
    after[np.arange(len(sets)), sets] -= gain
    return after


def _cost(sums: Floats, total: Floats, targets: Floats | None) -> Floats:
    """Cost of splits ``(splits, sets + 1, features)``.

    The imbalance; 1 for each class that is missing in a set though enough chips have it, and for each that is
    missing in the training set; and, where sizes may change, the largest difference from a wanted share of the
    chips.
    """
    classes = len(total)
    pixels, chips, size = sums[..., :classes], sums[..., classes:-1], sums[..., -1]
    filled = pixels[:, :LEFT_OUT].sum(axis=2) > 0.5
    enough = total >= filled.sum(axis=1, keepdims=True)
    missing = (chips[:, :LEFT_OUT] < 0.5) & filled[:, :, None] & enough[:, None, :]
    spread = _spread(pixels[:, :LEFT_OUT])
    untrained = (chips[:, 0] < 0.5) & filled[:, :1] & (total > 0)  # it could never be learnt
    cost = spread.max(axis=1) + 0.05 * spread.mean(axis=1) + missing.sum(axis=(1, 2)) + untrained.sum(axis=1)
    if targets is not None:
        off = np.abs(size - targets) / targets.sum()
        empty = (size[:, :LEFT_OUT] < 0.5) & (targets[:LEFT_OUT] > 0)
        cost = cost + 2 * off.max(axis=1) + 2 * empty.sum(axis=1)
    return np.asarray(cost, np.float64)


def _cost_of(counts: NDArray[np.int64], assignment: Assignment, targets: Floats) -> float:
    """Cost of a thinned split of single chips: shares are those of the chips that are left, and each that went costs.

    Classes of chips that are left out count as missing: they could be in a set.
    """
    groups = _Groups(counts.astype(np.float64), (counts > 0).astype(np.float64), np.ones(len(counts)))
    sums = np.stack([groups.features[assignment == index].sum(axis=0) for index in range(LEFT_OUT + 1)])
    gone = float(sums[LEFT_OUT, -1])
    wanted = targets[:LEFT_OUT] * (len(counts) - gone) / targets[:LEFT_OUT].sum()
    cost = _cost(sums[None], groups.chips.sum(axis=0), np.array([*wanted, gone]))
    return float(cost[0]) + abs(gone - float(targets[LEFT_OUT])) / len(counts)


def _spread(pixels: Floats) -> Floats:
    """Largest minus smallest class share over the sets that have pixels: ``(splits, classes)``."""
    totals = pixels.sum(axis=2, keepdims=True)
    some = totals > 0.5
    shares = pixels / np.where(some, totals, 1.0)
    highest = np.where(some, shares, -np.inf).max(axis=1)
    lowest = np.where(some, shares, np.inf).min(axis=1)
    return np.asarray(np.maximum(highest - lowest, 0.0), np.float64)
