# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of how chips are put into sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specdeepmap.core.data.ground import without_neighbours
from specdeepmap.core.data.splits import (
    LEFT_OUT,
    SPLIT_NAMES,
    imbalance,
    split_groups,
    split_random,
    split_sizes,
    split_stratified,
    split_thinned,
)
from tests.helpers import Array


@st.composite
def percentages(draw: st.DrawFn) -> tuple[float, float, float]:
    cuts = sorted(draw(st.lists(st.integers(0, 1000), min_size=3, max_size=3)))
    return (cuts[0] / 10, (cuts[1] - cuts[0]) / 10, (cuts[2] - cuts[1]) / 10)


def skewed(seed: int, chips: int = 60, classes: int = 5) -> Array:
    """Labelled pixels of chips with one common class, some patchy ones and a rare one."""
    random = np.random.default_rng(seed)
    shares = np.geomspace(1, 0.01, classes)
    counts = random.gamma(0.3, 1, (chips, classes)) * shares * 5000
    counts[:, -1] *= random.random(chips) < 0.15
    counts[random.permutation(chips)[:4], -1] = 40
    return counts.astype(np.int64)


def test_split_sizes_of_100_chips() -> None:
    assert split_sizes(100, (86, 7, 7)) == [86, 7, 7]
    assert split_sizes(100, (80, 10, 10)) == [80, 10, 10]
    assert split_sizes(100, (50, 20, 10)) == [50, 20, 10]
    assert split_sizes(7, (100, 0, 0)) == [7, 0, 0]


@given(st.integers(1, 5000), percentages())
def test_split_sizes_are_near_the_percentages_and_never_exceed_the_count(
    count: int, percents: tuple[float, float, float]
) -> None:
    sizes = split_sizes(count, percents)
    assert sum(sizes) <= count
    assert abs(sum(sizes) - count * sum(percents) / 100) <= 0.5 + 1e-6
    for size, percent in zip(sizes, percents, strict=True):
        assert abs(size - count * percent / 100) < 1 + 1e-6
        assert percent > 0 or size == 0
    if sum(percents) == 100:
        assert sum(sizes) == count


@given(st.integers(1, 80), percentages(), st.integers(0, 10**6))
@settings(max_examples=15)
def test_every_chip_stands_in_one_set_or_none(count: int, percents: tuple[float, float, float], seed: int) -> None:
    sizes = split_sizes(count, percents)
    counts = np.random.default_rng(seed).integers(0, 100, (count, 3))
    for assignment in (split_random(count, percents, seed), split_stratified(counts, percents, seed)):
        assert assignment.shape == (count,)
        found = [int((assignment == index).sum()) for index in range(LEFT_OUT + 1)]
        assert found == [*sizes, count - sum(sizes)]


def test_same_seed_same_split_and_other_seed_other_split() -> None:
    counts = skewed(1)
    for split in (
        lambda seed: split_random(60, (70, 15, 15), seed),
        lambda seed: split_stratified(counts, (70, 15, 15), seed),
    ):
        assert np.array_equal(split(3), split(3))
        assert not np.array_equal(split(3), split(4))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("percents", [(60.0, 20.0, 20.0), (80.0, 10.0, 10.0), (40.0, 20.0, 10.0)])
def test_stratified_beats_the_best_of_5000_random_splits(seed: int, percents: tuple[float, float, float]) -> None:
    counts = skewed(seed)
    best = min(imbalance(counts, split_random(60, percents, 1000 + trial)) for trial in range(5000))
    assignment = split_stratified(counts, percents, seed)
    assert imbalance(counts, assignment) < best
    assert [int((assignment == index).sum()) for index in range(LEFT_OUT)] == split_sizes(60, percents)


@pytest.mark.parametrize("seed", range(8))
def test_every_class_with_enough_chips_stands_in_every_set(seed: int) -> None:
    counts = skewed(seed, chips=50, classes=6)
    counts[:, 4] = 0
    counts[np.random.default_rng(seed).permutation(50)[:3], 4] = 1  # three chips, a pixel each
    assignment = split_stratified(counts, (80, 10, 10), seed)
    for index in range(len(SPLIT_NAMES)):
        assert (counts[assignment == index].sum(axis=0) > 0).all()
    plain = split_random(50, (80, 10, 10), seed)
    assert any((counts[plain == index].sum(axis=0) == 0).any() for index in range(len(SPLIT_NAMES)))


def test_a_class_with_two_chips_does_not_stop_the_others() -> None:
    counts = skewed(2, chips=40, classes=4)
    counts[:, 3] = 0
    counts[[5, 30], 3] = 500
    assignment = split_stratified(counts, (60, 20, 20), 0)
    for index in range(len(SPLIT_NAMES)):
        assert (counts[assignment == index, :3].sum(axis=0) > 0).all()


def test_imbalance_is_the_largest_difference_of_a_class_share() -> None:
    counts = np.array([[90, 10], [50, 50], [20, 80], [7, 0]])
    assert imbalance(counts, np.array([0, 1, 2, LEFT_OUT], np.int8)) == pytest.approx(0.7)
    assert imbalance(counts, np.array([0, 1, LEFT_OUT, 0], np.int8)) == pytest.approx(97 / 107 - 0.5)
    assert imbalance(counts, np.array([0, LEFT_OUT, LEFT_OUT, 0], np.int8)) == 0, "one set differs from none"
    same = np.array([[2, 1], [4, 2], [200, 100]])
    assert imbalance(same, np.array([0, 1, 2], np.int8)) == pytest.approx(0)


def grouped(seed: int, number: int = 40, classes: int = 4) -> tuple[Array, Array]:
    """Labelled pixels of chips, and their groups of one to eight chips in mixed order; a class fills whole groups."""
    random = np.random.default_rng(seed)
    groups = random.permutation(np.repeat(np.arange(number), random.integers(1, 9, number)))
    present = random.random((number, classes)) < np.linspace(0.9, 0.3, classes)
    present[:, 0] = True
    counts = random.integers(1, 500, (len(groups), classes)) * present[groups]
    return counts.astype(np.int64), groups.astype(np.intp)


@given(st.integers(0, 10**6), st.integers(3, 40), percentages())
@settings(max_examples=25)
def test_groups_stay_whole_and_sets_are_as_large_as_groups_allow(
    seed: int, number: int, percents: tuple[float, float, float]
) -> None:
    counts, groups = grouped(seed, number)
    before = counts.copy(), groups.copy()
    assignment = split_groups(counts, groups, percents, seed)
    assert np.array_equal(assignment, split_groups(counts, groups, percents, seed)), "same seed, same split"
    assert np.array_equal(counts, before[0]) and np.array_equal(groups, before[1])
    for group in range(number):
        assert len(np.unique(assignment[groups == group])) == 1
    for index, percent in enumerate(percents):
        assert percent > 0 or not (assignment == index).any(), "a set of 0 % stays empty"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("percents", [(60.0, 20.0, 20.0), (80.0, 10.0, 10.0), (40.0, 20.0, 10.0)])
def test_groups_fill_the_sets_to_the_wanted_sizes(seed: int, percents: tuple[float, float, float]) -> None:
    counts, groups = grouped(seed)
    assignment = split_groups(counts, groups, percents, seed)
    wanted = split_sizes(len(counts), percents)
    for index, size in enumerate(wanted):
        assert abs((assignment == index).sum() - size) <= 4, "half of the largest group"
    order = np.random.default_rng(seed).permutation(40)
    ends = np.cumsum(np.bincount(groups)[order])
    plain = np.searchsorted(np.cumsum(wanted), ends)[np.argsort(order)][groups].astype(np.int8)
    assert imbalance(counts, assignment) < imbalance(counts, plain), "better than groups by chance"


@pytest.mark.parametrize("seed", range(10))
def test_a_class_in_enough_groups_stands_in_every_set(seed: int) -> None:
    counts, groups = grouped(seed)
    random = np.random.default_rng(seed)
    chosen = random.permutation(40)[:3]
    counts[:, 3] = np.where(np.isin(groups, chosen), 1, 0)  # three groups, a pixel per chip
    assignment = split_groups(counts, groups, (70, 15, 15), seed)
    for index in range(len(SPLIT_NAMES)):
        assert (counts[assignment == index].sum(axis=0) > 0).all()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("number", [1, 2])
def test_a_class_that_cannot_stand_in_every_set_stands_in_the_training_set(seed: int, number: int) -> None:
    counts, groups = grouped(seed)
    chosen = np.random.default_rng(seed).permutation(40)[:number]
    counts[:, 3] = np.where(np.isin(groups, chosen), 400, 0)
    assignment = split_groups(counts, groups, (40, 30, 30), seed)
    assert counts[assignment == 0, 3].sum() > 0
    assert (counts[assignment == 1, :3].sum(axis=0) > 0).all(), "the others are everywhere"
    assert (counts[assignment == 2, :3].sum(axis=0) > 0).all()
    single = np.zeros_like(counts)
    single[:, :3] = counts[:, :3]
    single[7, 3] = 10
    assert split_stratified(single, (20, 40, 40), seed)[7] == 0, "of single chips, too"


def overlapping(seed: int) -> tuple[Array, Array, list[tuple[float, float, float, float]]]:
    """Chips of 6 x 8 places that overlap by a quarter, in blocks of 2 x 2; two classes stand in few of them."""
    random = np.random.default_rng(seed)
    places = [(row, column) for row in range(6) for column in range(8)]
    groups = np.array([row // 2 * 4 + column // 2 for row, column in places], np.intp)
    counts = random.integers(100, 300, (len(places), 4))
    counts[:, 2:] = 0
    for rare in (2, 3):
        corner = random.permutation(12)[:4]
        counts[np.isin(groups, corner) & (random.random(len(places)) < 0.6), rare] = 200
    extents = [(75.0 * column, 75.0 * row, 75.0 * column + 100, 75.0 * row + 100) for row, column in places]
    return counts.astype(np.int64), groups, extents


@pytest.mark.parametrize("seed", range(6))
def test_classes_are_balanced_after_neighbours_were_left_out(seed: int) -> None:
    """Balanced before, as split_groups has them, sets lost classes afterwards: training, the largest, most of all."""
    counts, groups, extents = overlapping(seed)
    percents = (60.0, 20.0, 20.0)

    def thinned(assignment: Array) -> Array:
        return without_neighbours(extents, assignment, 0.0)

    whole, left = split_thinned(counts, groups, percents, seed, thinned)
    again = split_thinned(counts, groups, percents, seed, thinned)
    assert np.array_equal(whole, again[0]) and np.array_equal(left, again[1]), "same seed, same split"
    assert all(len(np.unique(whole[groups == group])) == 1 for group in range(groups.max() + 1))
    assert np.array_equal(left, thinned(whole))
    assert (counts[left == 0].sum(axis=0) > 0).all(), "no class is lost to training"


def test_at_least_one_of_these_splits_needs_it() -> None:
    """Or the test above could not fail."""
    lost = 0
    for seed in range(6):
        counts, groups, extents = overlapping(seed)
        kept = without_neighbours(extents, split_groups(counts, groups, (60.0, 20.0, 20.0), seed), 0.0)
        lost += int((counts[kept == 0].sum(axis=0) == 0).sum())
    assert lost


def test_where_nothing_is_near_groups_stay_as_they_were() -> None:
    counts, groups = grouped(3)
    whole, left = split_thinned(counts, groups, (70.0, 15.0, 15.0), 5, lambda assignment: assignment.copy())
    assert np.array_equal(whole, split_groups(counts, groups, (70.0, 15.0, 15.0), 5))
    assert np.array_equal(whole, left)
