# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of warnings on their way: said, remembered, and made of what the epoch was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specdeepmap.core.learn.callbacks import Journal
from specdeepmap.core.learn.watch import EpochFacts
from specdeepmap.core.learn.watching import Warnings, Watching
from tests.helpers import Recorder
from tests.trainings import fit_samples, samples, small_segmenter

pytestmark = pytest.mark.torch


class Watcher:
    """Remembers what it is shown, and warns in the second epoch."""

    def __init__(self) -> None:
        self.facts: list[EpochFacts] = []

    def look(self, facts: EpochFacts) -> list[str]:
        self.facts.append(facts)
        return ["first", "second"] if facts.epoch == 1 else []


def test_what_is_said_is_passed_on_and_remembered() -> None:
    progress = Recorder()
    warnings = Warnings(progress)
    warnings.say()
    warnings.say("a", "b")
    warnings.say("c")
    assert warnings.said == progress.warnings == ["a", "b", "c"] and not progress.infos


@pytest.mark.parametrize("validating", [True, False])
def test_the_watcher_sees_each_epoch_as_it_was(validating: bool, tmp_path: Path) -> None:
    watcher, progress = Watcher(), Recorder()
    journal = Journal(tmp_path / "history.csv", progress, 3)
    watching = Watching(watcher, Warnings(progress))  # type: ignore[arg-type]
    train, validation = samples(8, unlabelled=0), samples(3, seed=2, unlabelled=0) if validating else []
    segmenter = small_segmenter()
    fit_samples(segmenter, tmp_path, train, validation, epochs=3, callbacks=(journal, watching))
    assert [facts.epoch for facts in watcher.facts] == [0, 1, 2]
    assert [facts.train_loss for facts in watcher.facts] == [row["train_loss"] for row in journal.rows]
    assert {int(facts.scores.matrix.sum()) for facts in watcher.facts} == {64 * (3 if validating else 8)}
    wanted = segmenter.validation_tally if validating else segmenter.train_tally
    assert np.array_equal(watcher.facts[-1].scores.matrix, wanted.scores.matrix)
    assert all(facts.labelled for facts in watcher.facts)
    assert progress.warnings == ["first", "second"]


def test_training_without_a_label_is_told_from_a_loss_that_is_lost(tmp_path: Path) -> None:
    watcher: Any = Watcher()
    journal = Journal(tmp_path / "history.csv", Recorder(), 1)
    chips = samples(4, unlabelled=1.0)
    fit_samples(small_segmenter(), tmp_path, chips, callbacks=(journal, Watching(watcher, Warnings(Recorder()))))
    assert not watcher.facts[0].labelled and np.isnan(watcher.facts[0].train_loss)
