# SPDX-License-Identifier: GPL-3.0-or-later
"""Calibration: whether a prediction is right as often as its confidence says.

The confidence of a pixel is the probability of the class that was chosen for it. Pixels are counted in equal bins of
confidence, so that a test set of any size takes the memory of a few numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Bins over 0 to 1, as in Guo et al. 2017."""

_EDGES = np.arange(BINS + 1) / BINS

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Reliability:
    """Pixels by the confidence of their prediction; a bin holds its upper edge and not its lower one.

    Attributes:
        pixels: per bin.
        confidence: sum over the pixels of each bin.
        correct: pixels per bin whose class is right.
    """

    pixels: NDArray[np.int64]
    confidence: Floats
    correct: NDArray[np.int64]

    @classmethod
    def empty(cls) -> Reliability:
        """Give the reliability of nothing."""
        return cls(np.zeros(BINS, np.int64), np.zeros(BINS), np.zeros(BINS, np.int64))

    @classmethod
    def of(cls, confidence: NDArray[np.floating[Any]], correct: NDArray[np.bool_]) -> Reliability:
        """Count pixels; leave out those without a label before.

        Args:
            confidence: 0 to 1.
            correct: whether the class is right; of the same shape.
        """
        values = confidence.ravel().astype(np.float64)
        bins = np.searchsorted(_EDGES[1:-1], values)
        right = bins[correct.ravel()]
        return cls(
            np.bincount(bins, minlength=BINS).astype(np.int64),
            np.bincount(bins, values, minlength=BINS).astype(np.float64),  # without any pixel it counts in integers
            np.bincount(right, minlength=BINS).astype(np.int64),
        )

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(self.pixels + other.pixels, self.confidence + other.confidence, self.correct + other.correct)

    @property
    def edges(self) -> Floats:
        """Confidence at the lower edge of each bin, and at the upper one of the last."""
        return _EDGES

    @property
    def accuracy(self) -> Floats:
        """Share of right pixels per bin; NaN where a bin is empty."""
        return self._per_pixel(self.correct)

    @property
    def mean_confidence(self) -> Floats:
        """Mean confidence per bin; NaN where a bin is empty."""
        return self._per_pixel(self.confidence)

    @property
    def shares(self) -> Floats:
        """Share of all pixels per bin."""
        return self.pixels / max(int(self.pixels.sum()), 1)

    @property
    def overall_confidence(self) -> float:
        """Mean confidence of all pixels."""
        total = int(self.pixels.sum())
        return float(self.confidence.sum() / total) if total else float("nan")

    @property
    def calibration_error(self) -> float:
        r"""Expected calibration error (Guo, Pleiss, Sun & Weinberger 2017, arXiv:1706.04599, equation 3).

        With :math:`n_b` of :math:`n` pixels in bin *b*,

        .. math:: \sum_b \frac{n_b}{n} \, |\mathrm{accuracy}_b - \mathrm{confidence}_b|
        """
        total = int(self.pixels.sum())
        return float(np.abs(self.correct - self.confidence).sum() / total) if total else float("nan")

    def _per_pixel(self, sums: NDArray[Any]) -> Floats:
        parts = sums.astype(np.float64)
        return np.divide(parts, self.pixels, out=np.full(BINS, np.nan), where=self.pixels > 0)
