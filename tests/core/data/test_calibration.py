# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the calibration."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdeepmap.core.data.calibration import BINS, Reliability
from tests.helpers import Array


def draw(seed: int, pixels: int, dtype: type = np.float64) -> tuple[Array, Array]:
    """Draw confidences, often at an edge of a bin, and whether the prediction is right."""
    random = np.random.default_rng(seed)
    edges = random.integers(0, BINS + 1, pixels) / BINS
    confidence = np.where(random.random(pixels) < 0.3, edges, random.random(pixels)).astype(dtype)
    return confidence, random.random(pixels) < confidence**2


def by_definition(confidence: Array, correct: Array) -> float:
    """Follow Guo et al. 2017, equation 3, pixel by pixel."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for value, right in zip(confidence.tolist(), correct.tolist(), strict=True):
        number = next(b for b in range(1, BINS + 1) if value <= b / BINS)
        bins.setdefault(number, []).append((value, right))
    gaps = [
        len(found) / len(confidence) * abs(math.fsum(r for _, r in found) - math.fsum(c for c, _ in found)) / len(found)
        for found in bins.values()
    ]
    return math.fsum(gaps)


@given(st.integers(0, 10**6), st.integers(1, 300), st.sampled_from([np.float32, np.float64]))
def test_the_calibration_error_is_that_of_guo_et_al(seed: int, pixels: int, dtype: type) -> None:
    confidence, correct = draw(seed, pixels, dtype)
    reliability = Reliability.of(confidence, correct)
    assert reliability.calibration_error == pytest.approx(by_definition(confidence, correct), abs=1e-12)
    assert reliability.pixels.sum() == pixels and reliability.correct.sum() == correct.sum()
    assert reliability.overall_confidence == pytest.approx(confidence.astype(np.float64).mean(), abs=1e-12)


@given(st.integers(0, 10**6), st.integers(1, 7))
def test_chunks_add_up_and_take_no_memory(seed: int, chunks: int) -> None:
    confidence, correct = draw(seed, 300)
    pooled = Reliability.empty()
    for part, right in zip(np.array_split(confidence, chunks), np.array_split(correct, chunks), strict=True):
        pooled = pooled + Reliability.of(part, right)
    whole = Reliability.of(confidence, correct)
    assert pooled.calibration_error == pytest.approx(whole.calibration_error, abs=1e-12)
    assert np.array_equal(pooled.pixels, whole.pixels) and np.array_equal(pooled.correct, whole.correct)
    assert {pooled.pixels.shape, pooled.confidence.shape, pooled.correct.shape} == {(BINS,)}


def test_errors_are_those_of_bins_and_not_of_the_mean() -> None:
    # Half of the pixels are too sure and half too unsure: on average the confidence is right.
    reliability = Reliability.of(np.repeat([0.9, 0.5], 100), np.repeat([False, True], [30, 170]))
    assert reliability.accuracy[13] == pytest.approx(0.7) and reliability.accuracy[7] == pytest.approx(1.0)
    assert reliability.calibration_error == pytest.approx((0.2 + 0.5) / 2)


def test_bins_of_a_page() -> None:
    reliability = Reliability.of(np.array([[0.0, 1.0], [1.0, 0.61]]), np.array([[False, True], [False, True]]))
    assert reliability.edges.tolist() == [edge / BINS for edge in range(BINS + 1)]
    assert np.flatnonzero(reliability.pixels).tolist() == [0, 9, 14], "0 and 1 belong to the outer bins"
    assert reliability.shares[[0, 9, 14]].tolist() == [0.25, 0.25, 0.5]
    assert reliability.accuracy[[0, 9, 14]].tolist() == [0, 1, 0.5]
    assert reliability.mean_confidence[[0, 9, 14]] == pytest.approx([0, 0.61, 1])
    assert np.isnan(reliability.accuracy[1:9]).all() and np.isnan(reliability.mean_confidence[10:14]).all()


def test_no_pixel_has_no_error() -> None:
    for reliability in (Reliability.empty(), Reliability.of(np.zeros(0, np.float32), np.zeros(0, np.bool_))):
        assert math.isnan(reliability.calibration_error) and math.isnan(reliability.overall_confidence)
        assert reliability.confidence.dtype == np.float64 and reliability.shares.sum() == 0


def test_confidence_that_is_no_number_is_told() -> None:
    reliability = Reliability.of(np.array([0.5, np.nan], np.float32), np.array([True, False]))
    assert math.isnan(reliability.calibration_error) and reliability.pixels.sum() == 2
