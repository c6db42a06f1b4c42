# SPDX-License-Identifier: GPL-3.0-or-later
"""Scores: one pooled confusion matrix, and every measure as a property of it.

The one definition used in training, testing and mapping. With true positives *TP*, false positives
*FP* and false negatives *FN* of a class (Sokolova & Lapalme 2009):

- IoU = TP / (TP + FP + FN), F1 = 2 TP / (2 TP + FP + FN),
- precision = TP / (TP + FP), recall = TP / (TP + FN).

A class without a reference pixel has IoU, F1 and recall NaN and stays out of every mean; what was
wrongly predicted as that class counts against the others. A class that was never predicted has
precision NaN.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.classes import IGNORE_INDEX, ClassTable
from specdeepmap.core.errors import RasterError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scores:
    """Measures of a confusion matrix ``(true class, predicted class)`` of pixel counts."""

    matrix: NDArray[np.int64]

    @classmethod
    def empty(cls, count: int) -> Scores:
        """Give the scores of nothing, for ``count`` classes."""
        return cls(np.zeros((count, count), np.int64))

    @classmethod
    def of(cls, true: NDArray[np.uint8], predicted: NDArray[np.uint8], count: int) -> Scores:
        """Count class indices; pixels whose true index is the ignore index are left out.

        Args:
            true: reference, as class indices.
            predicted: class indices of the same shape.
            count: number of classes; predicted indices are below it.
        """
        labelled = true != IGNORE_INDEX
        pairs = true[labelled].astype(np.int64) * count + predicted[labelled]
        return cls(np.bincount(pairs, minlength=count * count).reshape(count, count))

    def __add__(self, other: Scores) -> Scores:
        return Scores(self.matrix + other.matrix)

    @property
    def support(self) -> NDArray[np.int64]:
        """Reference pixels per class."""
        return np.asarray(self.matrix.sum(axis=1), np.int64)

    @property
    def iou(self) -> Floats:
        """Intersection over union per class."""
        return self._known(_ratio(self._true_positives, self._rows + self._columns - self._true_positives))

    @property
    def f1(self) -> Floats:
        """Harmonic mean of precision and recall per class."""
        return self._known(_ratio(2 * self._true_positives, self._rows + self._columns))

    @property
    def recall(self) -> Floats:
        """Share of the reference that was found, per class."""
        return _ratio(self._true_positives, self._rows)

    @property
    def precision(self) -> Floats:
        """Share of the prediction that is right, per class."""
        return _ratio(self._true_positives, self._columns)

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the classes that have reference pixels."""
        return _mean(self.iou)

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that have reference pixels."""
        return _mean(self.f1)

    @property
    def weighted_f1(self) -> float:
        """Mean F1, each class weighted by its reference pixels."""
        total = self._rows.sum()
        return float(np.nansum(self.f1 * self._rows) / total) if total else float("nan")

    @property
    def average_accuracy(self) -> float:
        """Mean recall of the classes that have reference pixels; also called balanced accuracy."""
        return _mean(self.recall)

    @property
    def overall_accuracy(self) -> float:
        """Share of all pixels that are right."""
        total = self.matrix.sum()
        return float(self._true_positives.sum() / total) if total else float("nan")

    @property
    def kappa(self) -> float:
        """Cohen's kappa (Cohen 1960): agreement beyond chance."""
        total = float(self.matrix.sum())
        if not total:
            return float("nan")
        chance = float((self._rows * self._columns).sum()) / total**2
        return (self.overall_accuracy - chance) / (1 - chance) if chance < 1 else float("nan")

    @property
    def _true_positives(self) -> Floats:
        return np.diag(self.matrix).astype(np.float64)

    @property
    def _rows(self) -> Floats:
        return np.asarray(self.matrix.sum(axis=1), np.float64)

    @property
    def _columns(self) -> Floats:
        return np.asarray(self.matrix.sum(axis=0), np.float64)

    def _known(self, values: Floats) -> Floats:
        return np.where(self._rows > 0, values, np.nan)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _mean(values: Floats) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def write_scores(path: Path, scores: Scores, classes: ClassTable) -> None:
    """Write the score table: a row per class, then the mean IoU."""
    header = ("Class", "IoU", "Name", "Precision", "Recall", "F1", "Support")
    rows: list[Sequence[object]] = [header]
    measures = zip(classes.entries, scores.iou, scores.precision, scores.recall, scores.f1, scores.support, strict=True)
    for entry, iou, precision, recall, f1, support in measures:
        numbers = (_text(precision), _text(recall), _text(f1))
        rows.append((entry.value, _text(iou), entry.name, *numbers, int(support)))
    rows.append(("Mean IoU", _text(scores.mean_iou)))
    write_table(path, rows)


def write_confusion(path: Path, scores: Scores, classes: ClassTable) -> None:
    """Write the confusion matrix: rows true, columns predicted, by class value."""
    rows: list[Sequence[object]] = [("true\\predicted", *classes.values)]
    rows += [
        (value, *(int(count) for count in counts)) for value, counts in zip(classes.values, scores.matrix, strict=True)
    ]
    write_table(path, rows)


def write_table(path: Path, rows: Sequence[Sequence[object]]) -> None:
    """Write rows as CSV in UTF-8.

    Raises:
        RasterError: if the file cannot be written.
    """
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    except OSError as error:
        raise RasterError(
            f"{path.parent} cannot be written: {error.strerror}. Is the disk full, or the folder "
            "write-protected? Free some space or choose another folder."
        ) from error


def _text(value: float) -> str:
    return f"{value:.6f}"  # NaN becomes nan
