# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the class table."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdeepmap.core.data.classes import (
    IGNORE_INDEX,
    ClassEntry,
    ClassTable,
    class_weights,
    color,
)
from specdeepmap.core.errors import ConfigError

sparse_ids = st.sets(st.integers(1, 255), min_size=1, max_size=255)


@given(sparse_ids, st.integers(0, 2**32 - 1))
def test_decode_undoes_encode(ids: set[int], seed: int) -> None:
    table = ClassTable.of(ids)
    labels = np.random.default_rng(seed).choice([0, *ids], (7, 5)).astype(np.uint8)
    indices = table.encode(labels)
    assert indices.dtype == np.uint8
    assert ((indices == IGNORE_INDEX) == (labels == 0)).all()
    assert (indices[labels > 0] < len(ids)).all()
    assert (table.decode(indices) == labels).all()


@given(sparse_ids)
def test_indices_ascend_with_values(ids: set[int]) -> None:
    table = ClassTable.of(ids)
    assert table.values == tuple(sorted(ids))
    assert table.encode(np.array(sorted(ids), np.uint8)).tolist() == list(range(len(ids)))


@given(sparse_ids)
def test_unknown_values_are_ignored_and_named(ids: set[int]) -> None:
    table = ClassTable.of(ids)
    everything = np.arange(256, dtype=np.uint8)
    others = sorted(set(range(1, 256)) - ids)
    assert (table.encode(everything)[others] == IGNORE_INDEX).all()
    assert table.encode(everything)[0] == IGNORE_INDEX
    assert table.unknown(everything) == others


def test_a_full_table_of_255_classes_leaves_the_ignore_index_free() -> None:
    table = ClassTable.of(range(256))
    assert len(table) == 255
    assert table.encode(np.array([1, 255], np.uint8)).tolist() == [0, 254]
    assert table.decode(np.array([254, IGNORE_INDEX])).tolist() == [255, 0]


def test_names_and_colours_are_taken_or_filled_in() -> None:
    table = ClassTable.of([200, 7, 0], {7: "Wald", 200: ""}, {200: "#0102ff"})
    assert table.names == ("Wald", "class 200")
    assert table.entries[1].rgb == (1, 2, 255)
    names = table.category_names()
    assert (len(names), names[0], names[7], names[8], names[200]) == (201, "unlabelled", "Wald", "", "class 200")


def test_classes_of_one_name_are_told_apart_by_their_ids() -> None:
    entries = [(1, "water", "#0000ff"), (2, "forest", "#00ff00"), (5, "water", "#00ffff")]
    table = ClassTable(entries=tuple(ClassEntry(*entry) for entry in entries))
    assert table.titles == ("water (1)", "forest", "water (5)")
    assert table.legend == {"water (1)": "#0000ff", "forest": "#00ff00", "water (5)": "#00ffff"}


def test_a_table_sorts_itself_and_survives_json() -> None:
    table = ClassTable(entries=(ClassEntry(9, "b", "#000001"), ClassEntry(2, "ä", "#000002")))
    assert table.values == (2, 9)
    assert ClassTable.from_json(json.loads(json.dumps(table.to_json()))) == table


@pytest.mark.parametrize(("values", "said"), [((0, 1), "0"), ((1, 256), "256"), ((3, 3), "unique")])
def test_wrong_values_are_refused(values: tuple[int, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ClassTable(entries=tuple(ClassEntry(value, "x", "#000000") for value in values))


def test_colours_differ_and_are_colours() -> None:
    first = [color(index) for index in range(64)]
    assert len(set(first)) == 64
    assert all(len(ClassEntry(1, "x", text).rgb) == 3 and len(text) == 7 for text in first)


@given(st.lists(st.one_of(st.just(0), st.integers(1, 10**12)), min_size=1, max_size=20))
def test_class_weights(counts: list[int]) -> None:
    weights = class_weights(counts)
    present = np.array(counts) > 0
    assert (weights[~present] == 0).all()
    if not present.any():
        return
    used = weights[present]
    assert used.mean() == pytest.approx(1)
    assert (used > 0).all() and used.max() <= 10 * used.min() * (1 + 1e-9)
    order = np.argsort(np.array(counts)[present], kind="stable")
    assert (np.diff(used[order]) <= 1e-12).all(), "rarer never weighs less"


def test_class_weights_within_the_bound_are_inverse_frequencies() -> None:
    weights = class_weights([100, 200, 400])
    assert weights[0] / weights[2] == pytest.approx(4)
    assert weights[0] / weights[1] == pytest.approx(2)
    assert class_weights([1, 1000], bound=3)[0] / class_weights([1, 1000], bound=3)[1] == pytest.approx(3)


def test_colours_of_several_images_are_told_apart() -> None:
    """Each image's classes got the first colours; one that a user chose for two classes stays."""
    first = [color(index) for index in range(4)]
    found = ClassTable.of([1, 2, 3, 4], colors={1: first[0], 2: first[1], 3: first[2], 4: first[2]})
    assert [entry.color for entry in found.entries] == first
    found = ClassTable.of([1, 2, 3], colors={1: first[0], 2: first[0], 3: first[1]})
    assert [entry.color for entry in found.entries] == [first[0], first[2], first[1]]
    found = ClassTable.of([1, 2, 3], colors={1: "#010203", 2: "#010203"})
    assert [entry.color for entry in found.entries] == ["#010203", "#010203", first[0]]
