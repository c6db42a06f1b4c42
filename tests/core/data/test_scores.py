# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the scores, with scikit-learn as the reference."""

from __future__ import annotations

import csv
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from specdeepmap.core.data.classes import IGNORE_INDEX, ClassTable
from specdeepmap.core.data.scores import Scores, write_confusion, write_scores, write_table
from specdeepmap.core.errors import RasterError
from tests.helpers import Array, full_disk


def draw(seed: int, count: int, pixels: int) -> tuple[Array, Array]:
    """Draw a reference with unlabelled pixels, and a prediction that is right more often than not."""
    random = np.random.default_rng(seed)
    true = random.choice(count, pixels, p=random.dirichlet(np.full(count, 0.5))).astype(np.uint8)
    predicted = np.where(random.random(pixels) < 0.6, true, random.integers(0, count, pixels)).astype(np.uint8)
    return np.where(random.random(pixels) < 0.2, IGNORE_INDEX, true).astype(np.uint8), predicted


def close(value: Any) -> Any:
    """Equal but for the rounding of a few operations."""
    return pytest.approx(value, rel=1e-12, abs=1e-12, nan_ok=True)


@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 400))
def test_scores_equal_scikit_learn(seed: int, count: int, pixels: int) -> None:
    true, predicted = draw(seed, count, pixels)
    scores = Scores.of(true, predicted, count)
    labelled = true != IGNORE_INDEX
    if not labelled.any():
        assert math.isnan(scores.mean_iou) and math.isnan(scores.overall_accuracy)
        return
    true, predicted = true[labelled], predicted[labelled]
    every = range(count)
    present = np.isin(every, true)
    found = np.isin(every, predicted)

    def reference(measure: str, known: Array) -> Array:
        values = getattr(metrics, measure)(true, predicted, labels=every, average=None, zero_division=0)
        return np.where(known, values, np.nan)

    def mean(measure: str, average: str) -> float:
        """Average over the classes of the reference only; what was wrongly predicted as others still counts."""
        labels = np.flatnonzero(present)
        return float(getattr(metrics, measure)(true, predicted, labels=labels, average=average, zero_division=0))

    assert np.array_equal(scores.matrix, metrics.confusion_matrix(true, predicted, labels=every))
    for own, measure, known in (
        (scores.iou, "jaccard_score", present),
        (scores.f1, "f1_score", present),
        (scores.recall, "recall_score", present),
        (scores.precision, "precision_score", found),
    ):
        assert own == close(reference(measure, known)), measure
    assert scores.mean_iou == close(mean("jaccard_score", "macro"))
    assert scores.macro_f1 == close(mean("f1_score", "macro"))
    assert scores.weighted_f1 == close(mean("f1_score", "weighted"))
    assert scores.average_accuracy == close(mean("recall_score", "macro"))
    assert scores.overall_accuracy == close(metrics.accuracy_score(true, predicted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes that are only predicted, or of a single one
        assert scores.average_accuracy == close(metrics.balanced_accuracy_score(true, predicted))
    if len(set(true) | set(predicted)) > 1:
        assert scores.kappa == close(metrics.cohen_kappa_score(true, predicted))
    else:
        assert math.isnan(scores.kappa)


@given(st.integers(0, 10**6), st.integers(1, 7))
def test_scores_add_up_over_chunks(seed: int, chunks: int) -> None:
    true, predicted = draw(seed, 5, 300)
    pooled = Scores.empty(5)
    for mine, theirs in zip(np.array_split(true, chunks), np.array_split(predicted, chunks), strict=True):
        pooled = pooled + Scores.of(mine, theirs, 5)
    assert np.array_equal(pooled.matrix, Scores.of(true, predicted, 5).matrix)


def test_scores_are_pooled_and_not_averaged_over_chips() -> None:
    # A large chip that is all right, and a small one that is all wrong.
    chips = [(np.zeros(90, np.uint8), np.zeros(90, np.uint8)), (np.ones(10, np.uint8), np.zeros(10, np.uint8))]
    pooled = Scores.empty(2)
    for true, predicted in chips:
        pooled = pooled + Scores.of(true, predicted, 2)
    assert pooled.mean_iou == pytest.approx((90 / 100 + 0) / 2)
    averaged = np.mean([Scores.of(true, predicted, 2).mean_iou for true, predicted in chips])
    assert averaged == pytest.approx(0.5)
    assert pooled.mean_iou != pytest.approx(averaged)


def test_a_class_without_reference_stays_out_but_its_false_positives_count() -> None:
    true = np.array([0, 0, 0, 0, 1, 1], np.uint8)
    predicted = np.array([0, 0, 0, 2, 1, 2], np.uint8)
    scores = Scores.of(true, predicted, 3)
    for measure in (scores.iou, scores.f1, scores.recall):
        assert math.isnan(measure[2])
    assert scores.precision[2] == 0
    assert scores.iou[:2] == pytest.approx([3 / 4, 1 / 2]), "what went to class 2 is lost to 0 and 1"
    assert scores.mean_iou == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert scores.macro_f1 == pytest.approx((6 / 7 + 2 / 3) / 2)
    assert scores.overall_accuracy == pytest.approx(4 / 6)
    assert scores.average_accuracy == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert scores.weighted_f1 == pytest.approx((4 * 6 / 7 + 2 * 2 / 3) / 6)


def test_a_class_that_is_never_predicted_has_no_precision_but_iou_0() -> None:
    scores = Scores.of(np.array([0, 1], np.uint8), np.array([0, 0], np.uint8), 2)
    assert math.isnan(scores.precision[1])
    assert (scores.iou[1], scores.f1[1], scores.recall[1]) == (0, 0, 0)
    assert scores.mean_iou == pytest.approx(0.25)


def test_no_pixel_gives_no_score() -> None:
    scores = Scores.of(np.full(4, IGNORE_INDEX, np.uint8), np.zeros(4, np.uint8), 2)
    assert scores.support.tolist() == [0, 0]
    assert all(math.isnan(x) for x in (scores.mean_iou, scores.macro_f1, scores.overall_accuracy, scores.kappa))
    assert math.isnan(scores.average_accuracy) and math.isnan(scores.weighted_f1)


def test_unlabelled_pixels_do_not_count_whatever_is_predicted() -> None:
    true, predicted = draw(3, 4, 200)
    other = np.where(true == IGNORE_INDEX, 3 - predicted, predicted).astype(np.uint8)
    assert (other != predicted).any()
    assert np.array_equal(Scores.of(true, predicted, 4).matrix, Scores.of(true, other, 4).matrix)


def test_as_many_classes_as_there_can_be() -> None:
    true = np.arange(255, dtype=np.uint8)
    scores = Scores.of(np.append(true, 255).astype(np.uint8), np.append(true[::-1], 7).astype(np.uint8), 255)
    assert scores.matrix.sum() == 255 and scores.overall_accuracy == pytest.approx(1 / 255)


def test_the_tables(tmp_path: Path) -> None:
    classes = ClassTable.of([7, 200, 9], {200: "Straße, naß"})
    matrix = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 4]])
    write_scores(tmp_path / "scores.csv", Scores(matrix), classes)
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["Class", "IoU", "Name", "Precision", "Recall", "F1", "Support"]
    assert [row[0] for row in rows[1:]] == ["7", "9", "200", "Mean IoU"]
    assert [float(row[1]) for row in rows[1:]] == pytest.approx(
        [3 / 6, math.nan, 4 / 6, (3 / 6 + 4 / 6) / 2], nan_ok=True, abs=1e-6
    )
    assert rows[2][1] == "nan"
    assert rows[3][2] == "Straße, naß"
    assert [row[6] for row in rows[1:4]] == ["4", "0", "6"]
    assert len(rows[4]) == 2

    write_confusion(tmp_path / "confusion.csv", Scores(matrix), classes)
    with (tmp_path / "confusion.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][1:] == ["7", "9", "200"]
    assert [row[0] for row in rows[1:]] == ["7", "9", "200"]
    assert [[int(entry) for entry in row[1:]] for row in rows[1:]] == matrix.tolist()


def test_a_table_on_a_full_disk_ends_with_a_sentence(tmp_path: Path) -> None:
    with full_disk(100), pytest.raises(RasterError, match="cannot be written"):
        write_table(tmp_path / "table.csv", [("x" * 50,)] * 100)
