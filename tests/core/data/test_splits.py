# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of how chips are put into sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specdeepmap.core.data.splits import (
    LEFT_OUT,
    SPLIT_NAMES,
    imbalance,

    split_random,
    split_sizes,
    split_stratified,
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
def test_stratified_beats_the_best_of_2000_random_splits(seed: int, percents: tuple[float, float, float]) -> None:
    counts = skewed(seed)
    best = min(imbalance(counts, split_random(60, percents, 1000 + trial)) for trial in range(2000))
    assert imbalance(counts, split_stratified(counts, percents, seed)) < best


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
