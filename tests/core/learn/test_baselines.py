# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of what no network is needed for, against scikit-learn and plain numpy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from specdeepmap.core.data.classes import IGNORE_INDEX
from specdeepmap.core.errors import Canceled
from specdeepmap.core.learn import baselines
from specdeepmap.core.learn.baselines import (
    Baselines,
    LabelledChip,
    LinearClassifier,
    gather_pixels,
    majority,
    measure_baselines,
)
from specdeepmap.core.progress import Progress
from tests.helpers import Recorder

Pixels = NDArray[np.float32]


def measured(
    train: Iterable[LabelledChip],
    validation: Iterable[LabelledChip],
    counts: list[int],
    progress: Progress | None = None,
) -> Baselines | None:
    """Gather and measure, as the trainer does."""
    gathered = gather_pixels(train, np.array(counts), progress)
    return measure_baselines(gathered, np.array(counts), validation, progress)


def clouds(random: np.random.Generator, sizes: tuple[int, ...], bands: int, apart: float) -> tuple[Pixels, Pixels]:
    """Make pixels ``(pixels, bands)`` of classes with one correlated noise, in random order."""
    mixing = random.normal(size=(bands, bands))
    classes = np.repeat(np.arange(len(sizes)), sizes).astype(np.uint8)
    random.shuffle(classes)
    centers = apart * random.normal(size=(len(sizes), bands))
    values = centers[classes] + random.normal(size=(len(classes), bands)) @ mixing
    return values.astype(np.float32), classes


def chip(pixels: Pixels, indices: NDArray[np.uint8], columns: int = 10) -> LabelledChip:
    """Lay pixels out as an image ``(bands, rows, columns)`` and its indices."""
    return pixels.T.reshape(pixels.shape[1], -1, columns), indices.reshape(-1, columns)


def fitted(pixels: Pixels, indices: NDArray[np.uint8], classes: int) -> baselines.Discriminant:
    classifier = LinearClassifier(classes)
    classifier.add(pixels, indices)
    found = classifier.fit()
    assert found is not None
    return found


def reference(pixels: Pixels, indices: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute weights and offsets from the formulas, in two passes over all pixels at once."""
    values = pixels.astype(np.float64)
    means = np.stack([values[indices == k].mean(axis=0) for k in range(indices.max() + 1)])
    rest = values - means[indices]
    std = rest.std(axis=0)
    rest = rest / std
    number, bands = rest.shape
    c = rest.T @ rest / number
    t1, t2 = np.trace(c) ** 2, np.trace(c @ c)
    share = min(1.0, ((1 - 2 / bands) * t2 + t1) / ((number + 1 - 2 / bands) * (t2 - t1 / bands)))
    c = (1 - share) * c + share * np.trace(c) / bands * np.eye(bands)
    inverse = np.linalg.inv(c * np.outer(std, std))
    weights = inverse @ means.T
    return weights, -0.5 * np.diag(means @ inverse @ means.T)


def test_the_functions_are_those_of_the_formulas(random: np.random.Generator) -> None:
    pixels, indices = clouds(random, (40, 90, 20), bands=6, apart=1.0)
    pixels = pixels + np.array([0, 100, 0, 0, -50, 0], np.float32)  # far from 0, where sums of squares lose digits
    found, (weights, offsets) = fitted(pixels, indices, 3), reference(pixels, indices)
    np.testing.assert_allclose(found.weights, weights, rtol=1e-6)
    np.testing.assert_allclose(found.offsets, offsets, rtol=1e-6)


@given(st.lists(st.integers(0, 150), max_size=4))
def test_chips_add_up_to_all_pixels_at_once(cuts: list[int]) -> None:
    pixels, indices = clouds(np.random.default_rng(2), (60, 60, 30), bands=4, apart=1.0)
    classifier = LinearClassifier(3)
    for own, classes in zip(np.split(pixels, sorted(cuts)), np.split(indices, sorted(cuts)), strict=True):
        if len(own):
            classifier.add(own, classes)
    found, whole = classifier.fit(), fitted(pixels, indices, 3)
    assert found is not None and classifier.pixels == 150
    np.testing.assert_allclose(found.weights, whole.weights, rtol=1e-8)
    np.testing.assert_allclose(found.offsets, whole.offsets, rtol=1e-8)


def test_scikit_learn_predicts_the_same(random: np.random.Generator) -> None:
    # Of many pixels of few bands hardly anything is shrunk; of classes of one size both weigh all pixels alike.
    pixels, indices = clouds(random, (1500, 1500, 1500), bands=5, apart=0.5)
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(pixels, indices).predict(pixels)
    assert (fitted(pixels, indices, 3).predict(pixels) == theirs).mean() > 0.99
    assert 0.4 < (indices == theirs).mean() < 0.9, "the classes overlap"


def test_frequent_classes_do_not_win_by_their_frequency() -> None:
    pixels = np.array([[-1.5]] * 10 + [[-0.5]] * 10 + [[0.5], [1.5]], np.float32)
    found = fitted(pixels, np.repeat([0, 1], [20, 2]).astype(np.uint8), 2)
    assert found.predict(np.array([[-0.01], [0.01]], np.float32)).tolist() == [0, 1]


def test_fewer_pixels_than_bands_still_make_a_classifier(random: np.random.Generator) -> None:
    pixels, indices = clouds(random, (30, 30), bands=200, apart=8.0)
    train, rest = slice(0, 30), slice(30, None)
    assert (fitted(pixels[train], indices[train], 2).predict(pixels[rest]) == indices[rest]).mean() > 0.8


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6])
def test_bands_that_tell_nothing_change_nothing(constant: float, random: np.random.Generator) -> None:
    pixels, indices = clouds(random, (50, 50), bands=3, apart=1.5)
    more = np.insert(pixels, 1, np.float32(constant), axis=1)
    found = fitted(more, indices, 2)
    assert np.isfinite(found.weights).all()
    np.testing.assert_array_equal(found.predict(more), fitted(pixels, indices, 2).predict(pixels))
    more[:, 1] += 0.001 * max(constant, 1.0)  # a little more light than in training
    np.testing.assert_array_equal(found.predict(more), fitted(pixels, indices, 2).predict(pixels))


def test_a_band_without_noise_tells_classes_apart() -> None:
    pixels = np.zeros((40, 2), np.float32)
    indices = (np.arange(40) % 2).astype(np.uint8)
    pixels[:, 0] = indices
    np.testing.assert_array_equal(fitted(pixels, indices, 2).predict(pixels), indices)


def test_a_class_that_was_not_trained_is_never_predicted(random: np.random.Generator) -> None:
    pixels, indices = clouds(random, (40, 40), bands=3, apart=2.0)
    indices[indices == 1] = 2
    everywhere = np.concatenate([0 * pixels, pixels, 10 * pixels])
    assert set(np.unique(fitted(pixels, indices, 4).predict(everywhere))) == {0, 2}


def test_values_that_are_not_finite_do_no_harm(random: np.random.Generator) -> None:
    pixels, indices = clouds(random, (400, 400), bands=3, apart=2.0)
    pixels[0, 0], pixels[1, 1] = np.nan, np.inf
    assert (fitted(pixels, indices, 2).predict(pixels) == indices).mean() > 0.8


def test_majority_is_chosen_in_training_and_scored_in_validation() -> None:
    scores = majority(np.array([5, 9, 1]), np.array([60, 30, 10]))
    assert scores.matrix.tolist() == [[0, 60, 0], [0, 30, 0], [0, 10, 0]]
    assert scores.overall_accuracy == pytest.approx(0.3)
    assert scores.mean_iou == pytest.approx(0.1)


def test_baselines_are_measured_on_the_labelled_validation_pixels(random: np.random.Generator) -> None:
    pixels, indices = clouds(random, (300, 100, 100), bands=4, apart=3.0)
    train = chip(pixels[:400], indices[:400])
    held = indices[400:].copy()
    held[::4] = IGNORE_INDEX
    found = measured([train], [chip(pixels[400:], held)] * 2, [3, 2, 1])
    assert found is not None and found.linear is not None
    support = 2 * np.bincount(held[held != IGNORE_INDEX], minlength=3)
    np.testing.assert_array_equal(found.linear.support, support)
    np.testing.assert_array_equal(found.majority.support, support)
    assert found.majority.matrix[:, 0].sum() == support.sum()
    assert found.linear.overall_accuracy > 0.9 > found.majority.overall_accuracy
    given_counts = measured([train], [chip(pixels[400:], held)], [0, 1, 0])
    assert given_counts is not None and given_counts.majority.matrix[:, 1].any()


def test_without_anything_to_measure_there_is_nothing(random: np.random.Generator) -> None:
    pixels, indices = clouds(random, (50, 50), bands=2, apart=3.0)
    whole = chip(pixels, indices)
    assert measured([whole], [], [50, 50]) is None
    assert measured([whole], [chip(pixels, np.full_like(indices, IGNORE_INDEX))], [50, 50]) is None
    one = measured([chip(pixels, np.zeros_like(indices))], [whole], [100, 0])
    assert one is not None and one.linear is None and one.majority.mean_iou == pytest.approx(0.25)


def test_a_large_dataset_is_not_read_whole(monkeypatch: pytest.MonkeyPatch, random: np.random.Generator) -> None:
    monkeypatch.setattr(baselines, "PIXELS", 500)
    monkeypatch.setattr(baselines, "PIXELS_PER_CHIP", 120)
    pixels, indices = clouds(random, (950, 50), bands=3, apart=3.0)
    taken: list[NDArray[np.uint8]] = []
    add = LinearClassifier.add
    monkeypatch.setattr(LinearClassifier, "add", lambda self, own, found: (taken.append(found), add(self, own, found)))

    def endless() -> Iterator[LabelledChip]:
        while True:
            yield chip(pixels, indices)

    assert measured(endless(), [chip(pixels, indices)], [950, 50]) is not None
    assert len(taken) == 5  # 60 of the frequent class and all 50 of the rare one, five times
    assert [np.bincount(found).tolist() for found in taken] == [[60, 50]] * 5


def test_a_rare_class_that_stands_in_the_last_chip_is_gathered(
    monkeypatch: pytest.MonkeyPatch, random: np.random.Generator
) -> None:
    monkeypatch.setattr(baselines, "PIXELS", 500)
    pixels, indices = clouds(random, (40, 40, 20), bands=3, apart=9.0)
    common = indices < 2
    often, rare = chip(pixels[common], indices[common]), chip(pixels, indices)
    found = baselines.gather_pixels([*[often] * 20, rare, *[often] * 3, rare], np.array([960, 960, 40]))
    assert found.counts.tolist() == [280, 280, 20]
    scores = measured([*[often] * 20, rare], [rare], [840, 840, 20])
    assert scores is not None and scores.linear is not None and scores.linear.iou[2] > 0.5
    without = baselines.gather_pixels([often] * 20, np.array([800, 800, 0]))
    assert without.counts.tolist() == [280, 280, 0]


def test_a_cancel_is_heard(random: np.random.Generator) -> None:
    whole = chip(*clouds(random, (50, 50), bands=2, apart=3.0))
    for at in (1, 3):
        progress = Recorder(cancel_at=at)
        with pytest.raises(Canceled):
            measured([whole] * 2, [whole] * 2, [50, 50], progress)
        assert progress.checks == at


def test_moments_are_those_of_all_pixels(random: np.random.Generator) -> None:
    pixels, indices = clouds(random, (70, 20, 10), bands=4, apart=3.0)
    classifier = LinearClassifier(3)
    for start in range(0, 100, 30):
        classifier.add(pixels[start : start + 30], indices[start : start + 30])
    mean, covariance = classifier.moments()
    np.testing.assert_allclose(mean, pixels.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(covariance, np.cov(pixels.T.astype(np.float64), bias=True), atol=1e-6)


@pytest.mark.parametrize("keep", [10**9, 60_000, 500])
def test_the_sample_lacks_no_class_whatever_its_size(keep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rare class in the last chip would never be predicted by what learns from the sample."""
    monkeypatch.setattr(baselines, "PIXELS", 4000)
    random = np.random.default_rng(0)
    classes = [np.repeat(np.uint8(number % 2), 400) for number in range(10)]
    classes[-1] = np.concatenate([classes[-1][:390], np.full(10, 2, np.uint8)])
    chips = [(random.normal(size=(30, 20, 20)).astype(np.float32), indices.reshape(20, 20)) for indices in classes]
    counts = np.bincount(np.concatenate(classes))
    gathered = gather_pixels(chips, counts, keep=keep)
    assert gathered.sample is not None
    pixels, indices = gathered.sample
    kept = np.bincount(indices, minlength=3)
    assert pixels.shape == (len(indices), 30) and (kept > 0).all()
    assert pixels.size <= keep + 30 * 10 * 3, "but for rounding up, of each class in each chip"
    if keep == 10**9:
        assert np.array_equal(kept, gathered.counts)
        assert np.array_equal(pixels, np.concatenate([image.reshape(30, -1).T for image, _ in chips]))
