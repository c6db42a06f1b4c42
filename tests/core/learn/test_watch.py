# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the watcher: healthy trainings are not disturbed, each failure is named once, with its likely cause."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdeepmap.core.data.scores import Scores
from specdeepmap.core.learn.baselines import Baselines, majority
from specdeepmap.core.learn.causes import Circumstances
from specdeepmap.core.learn.watch import EpochFacts, Watcher, verdict, warnings_before

SUPPORT = np.array([500, 300, 200])

FINE = Circumstances(
    trained_share=1.0,
    backbone_frozen=False,
    chip_width=128,
    chip_height=128,
    stride=32,
    batch_size=8,
    has_batch_norm=True,
    train_chips=160,
    class_weights=True,
    learning_rate=0.001,
    majority_iou=0.5 / 3,
)
"""Nothing to complain of: 20 steps per epoch, so that all counts from the third epoch on."""


def good(right: float, support: Iterable[int] = SUPPORT) -> Scores:
    """Scores of which this share of each class is right; the rest goes to the next class."""
    pixels = np.asarray(list(support), np.int64)
    hits = (right * pixels).astype(np.int64)
    return Scores(np.diag(hits) + np.roll(np.diag(pixels - hits), 1, axis=1))


def onesided(share: float, index: int = 0, support: Iterable[int] = SUPPORT) -> Scores:
    """Scores of which this share of all pixels is predicted as one class, and the rest as the next."""
    pixels = np.asarray(list(support), np.int64)
    matrix = np.zeros((len(pixels), len(pixels)), np.int64)
    matrix[:, index] = np.rint(share * pixels)
    matrix[:, (index + 1) % len(pixels)] = pixels - matrix[:, index]
    return Scores(matrix)


def watch(
    scores: Iterable[Scores], about: Circumstances = FINE, losses: Iterable[float] = (), names: tuple[str, ...] = ()
) -> list[tuple[int, str]]:
    """Let a watcher see epochs; give the warnings with their epochs."""
    watcher, given_losses = Watcher(about, names), iter(losses)
    said = []
    for epoch, entry in enumerate(scores):
        facts = EpochFacts(epoch, next(given_losses, 1.0), entry)
        said += [(epoch, text) for text in watcher.look(facts)]
    return said


def rising(count: int = 50) -> list[Scores]:
    return [good(0.3 + 0.6 * (1 - math.exp(-epoch / 10))) for epoch in range(count)]


@pytest.mark.parametrize(
    "scores",
    [
        pytest.param(rising(), id="rises and stays"),
        pytest.param([onesided(1.0)] * 4 + rising(), id="one class for four epochs, as batch statistics settle"),
        pytest.param([onesided(1.0, epoch % 3) for epoch in range(2)] + rising(), id="jumps at first"),
        pytest.param([good(0.9)] * 40, id="good from the first epoch on and flat"),
        pytest.param([*rising(20), onesided(1.0), onesided(1.0), *rising(20)], id="two bad epochs"),
        pytest.param([*rising(9), *[onesided(1.0), onesided(1.0), good(0.6)] * 9], id="every third epoch is good"),
        pytest.param([onesided(0.97)] * 3 + rising(), id="nearly one class"),
        pytest.param([onesided(0.99, 0, (970, 20, 10)) for _ in range(9)], id="one class is nearly all there is"),
        pytest.param([good(1.0, (900, 0, 0))] * 40, id="one class is all there is"),
        pytest.param([good(0.2 + 0.006 * epoch) for epoch in range(60)], id="slow"),
        pytest.param([Scores.empty(3)] * 40, id="no labelled validation pixel"),
    ],
)
def test_a_healthy_training_is_not_disturbed(scores: list[Scores]) -> None:
    assert watch(scores) == []


def test_a_rare_class_that_is_partly_found_is_no_collapse() -> None:
    # 940 + 60 pixels, 980 of them predicted as the first class; a third of the rare one is right.
    assert watch([Scores(np.array([[940, 0], [40, 20]]))] * 9, replace(FINE, majority_iou=0.47)) == []


@given(st.integers(1, 60), st.integers(1, 16))
def test_nothing_counts_before_batch_statistics_settled(train_chips: int, batch_size: int) -> None:
    about = replace(FINE, train_chips=train_chips, batch_size=batch_size)
    first = watch([onesided(1.0)] * 60, about)[0][0]
    assert first == max(2, math.ceil(30 / math.ceil(train_chips / batch_size))) + 2


@pytest.mark.parametrize(("share", "support"), [(1.0, SUPPORT), (0.985, SUPPORT), (1.0, (940, 60))])
def test_a_collapse_is_named_once(share: float, support: tuple[int, ...]) -> None:
    said = watch([onesided(share, 0, support)] * 40, replace(FINE, majority_iou=math.nan))
    assert [epoch for epoch, _ in said] == [4]
    assert f"{100 * share:.0f} % of the labelled pixels" in said[0][1] and "class number 1" in said[0][1]


def test_a_collapse_that_comes_late_is_named() -> None:
    said = watch([*rising(20), *[onesided(1.0, 2)] * 5], names=("water", "wood", "sand"))
    assert [epoch for epoch, _ in said] == [22]
    assert "class sand, which has 20 % of them" in said[0][1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_named_once(value: float) -> None:
    said = watch([*rising(3), *[onesided(1.0)] * 20], losses=[1.0, 0.9, 0.8, *[value] * 20])
    assert [epoch for epoch, _ in said] == [3]
    assert ("NaN" if math.isnan(value) else "infinite") in said[0][1]
    assert "LEARNING_RATE" in said[0][1]


def test_a_loss_of_no_labelled_pixel_is_no_failure() -> None:
    watcher = Watcher(FINE)
    assert watcher.look(EpochFacts(5, math.nan, Scores.empty(3), labelled=False)) == []


def test_a_loss_may_be_large_and_a_failure_after_a_recovery_is_seen() -> None:
    assert watch(rising(), losses=[1e30] * 50) == []
    said = watch([*rising(5), *[onesided(1.0)] * 5], losses=[1.0, math.nan, *[1.0] * 8])
    assert [epoch for epoch, _ in said] == [1, 7]


@pytest.mark.parametrize(
    "scores",
    [
        pytest.param([good(0.3)] * 40, id="flat"),
        pytest.param([good(0.34), *[good(0.34 - 0.1 * (epoch % 2)) for epoch in range(40)]], id="jitters below"),
    ],
)
def test_a_score_that_does_not_rise_is_named_once(scores: list[Scores]) -> None:
    said = watch(scores)
    assert [epoch for epoch, _ in said] == [11]
    assert f"{scores[0].mean_iou:.2f} at best" in said[0][1] and "0.17" in said[0][1]


def test_a_flat_score_is_measured_by_the_reference_where_the_majority_is_not_known() -> None:
    assert watch([good(0.3)] * 40, replace(FINE, majority_iou=math.nan)) != []
    assert watch([good(0.3)] * 40, replace(FINE, majority_iou=0.05)) == []
    assert watch([good(0.9, (900, 0, 0))] * 40, replace(FINE, majority_iou=math.nan)) == [], "one class: no comparison"


COLLAPSE, FLAT = [onesided(1.0)] * 8, [good(0.3)] * 40


@pytest.mark.parametrize(
    ("change", "scores", "hints"),
    [
        ({"trained_share": 0.02, "backbone_frozen": True}, COLLAPSE, ["2 % of the parameters", "FREEZE_BACKBONE"]),
        ({"trained_share": 0.3, "backbone_frozen": True}, FLAT, ["switch FREEZE_BACKBONE off"]),
        ({"learning_rate": 0.01}, COLLAPSE, ["LEARNING_RATE 0.01 is high for adam"]),
        ({"learning_rate": 1e-6}, FLAT, ["LEARNING_RATE 1e-06 is very low"]),
        ({"normalized": False}, COLLAPSE, ["NORMALIZE on"]),
        ({"class_weights": False}, [onesided(1.0, 0, (80, 10, 10))] * 8, ["80 %", "CLASS_WEIGHTS on"]),
        ({}, [onesided(1.0, 2)] * 8, ["CLASS_WEIGHTS make a rare class outweigh"]),
        ({"chip_width": 16, "train_chips": 400}, FLAT, ["chips of 16 × 128 pixels are smaller than the 32"]),
        ({"batch_size": 1}, COLLAPSE, ["raise BATCH_SIZE"]),
        ({"train_chips": 9, "batch_size": 1, "has_batch_norm": False}, COLLAPSE, ["9 training chips are few"]),
        ({"loss": "lovasz"}, COLLAPSE, ["try cross_entropy"]),
        ({"learning_rate": 0.1, "optimizer": "sgd"}, COLLAPSE, ["labels and the image on the map"]),
        ({}, [onesided(1.0, 1)] * 8, ["labels and the image on the map"]),
        ({}, [onesided(1.0, 0, (80, 10, 10))] * 8, ["labels and the image on the map"]),
        ({}, COLLAPSE, ["labels and the image on the map"]),
    ],
)
def test_the_cause_is_named_and_no_other(change: dict[str, object], scores: list[Scores], hints: list[str]) -> None:
    ((_, text),) = watch(scores, replace(FINE, **change))  # type: ignore[arg-type]
    for hint in hints:
        assert hint.lower() in text.lower()
    assert "(1)" not in text


def test_of_several_causes_the_likeliest_comes_first() -> None:
    about = replace(FINE, trained_share=0.01, learning_rate=0.1, normalized=False, batch_size=1)
    ((_, text),) = watch(COLLAPSE, about)
    marks = ["(1) Only 1 % of", "(2) LEARNING_RATE", "(3) The bands", "(4) Batch norm"]
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places) and "(5)" not in text
    ((_, text),) = watch(rising(), about, losses=[math.nan] * 50)
    assert "(1) LEARNING_RATE" in text and "parameters" not in text


@pytest.mark.parametrize(
    ("change", "count", "hint"),
    [
        ({}, 0, ""),
        ({"chip_width": 32, "chip_height": 32, "train_chips": 10, "batch_size": 2}, 0, ""),
        ({"chip_height": 31}, 1, "128 × 31 pixels"),
        ({"chip_height": 16, "stride": 8}, 0, ""),
        ({"batch_size": 1}, 1, "BATCH_SIZE is 1"),
        ({"batch_size": 1, "has_batch_norm": False}, 0, ""),
        ({"train_chips": 9}, 1, "are only 9 training chips"),
        ({"train_chips": 1}, 1, "is only 1 training chip:"),
        ({"train_chips": 9, "batch_size": 1, "chip_width": 8}, 3, ""),
    ],
)
def test_circumstances_that_bode_ill(change: dict[str, int], count: int, hint: str) -> None:
    found = warnings_before(replace(FINE, **change))  # type: ignore[arg-type]
    assert len(found) == count and hint in " ".join(found)


def test_the_verdict_compares_with_what_needs_no_network() -> None:
    constant, linear = majority(SUPPORT, SUPPORT), good(0.8)
    both, alone = Baselines(constant, linear), Baselines(constant, None)
    assert verdict(good(0.9), both) is None and verdict(good(0.6), alone) is None
    for network, baselines, hints in (
        (good(0.6), both, [f"{good(0.6).mean_iou:.3f} is not", f"{linear.mean_iou:.3f} of a linear classifier"]),
        (linear, both, ["not above"]),
        (constant, both, ["0.167 of one class everywhere", f"reaches {linear.mean_iou:.3f}", "learnt nothing"]),
        (constant, alone, ["0.167 of one class everywhere:"]),
    ):
        text = verdict(network, baselines)
        assert text is not None and all(hint in text for hint in hints)
    assert verdict(Scores.empty(3), both) is None


def test_a_finite_loss_that_runs_away_is_named_once() -> None:
    said = watch([*rising(3), *[onesided(0.5)] * 20], losses=[2.0, 1.9, 1.8, *[1e15] * 20])
    assert [epoch for epoch, _ in said] == [3]
    assert "run away to 1e+15" in said[0][1] and "LEARNING_RATE" in said[0][1]


def test_a_class_that_is_called_class_is_named_once() -> None:
    said = watch([onesided(1.0)] * 40, replace(FINE, majority_iou=math.nan), names=("class 7", "b", "c"))
    assert "predicted as class 7, which" in said[0][1]


def test_a_perfect_network_is_not_scolded() -> None:
    perfect = Scores(np.diag([50, 50]))
    assert verdict(perfect, Baselines(majority(np.array([50, 50]), np.array([50, 50])), perfect)) is None


def test_a_resumed_run_that_runs_away_is_named() -> None:
    watcher = Watcher(FINE)
    assert watcher.look(EpochFacts(7, 0.5, onesided(0.5))) == []
    assert "run away" in watcher.look(EpochFacts(8, 1e9, onesided(0.5)))[0]


def test_advice_without_a_backbone_names_none() -> None:
    poor = Scores(np.array([[30, 20], [20, 30]]))
    better = Baselines(majority(np.array([50, 50]), np.array([50, 50])), Scores(np.array([[40, 10], [10, 40]])))
    assert "BACKBONE" in str(verdict(poor, better)) and "BACKBONE" not in str(verdict(poor, better, backbone=False))
