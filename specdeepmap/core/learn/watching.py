# SPDX-License-Identifier: GPL-3.0-or-later
"""Watching: warn the user while a training goes wrong, and remember it for the report."""

from __future__ import annotations

from lightning import Callback, Trainer

from specdeepmap.core.learn.segmenter import Segmenter
from specdeepmap.core.learn.watch import EpochFacts, Watcher
from specdeepmap.core.progress import Progress


class Warnings:
    """Pass warnings on and remember them.

    Args:
        progress: is told.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.said: list[str] = []

    def say(self, *texts: str) -> None:
        """Warn."""
        for text in texts:
            self.said.append(text)
            self._progress.warning(text)


class Watching(Callback):
    """Let a watcher look at every epoch.

    Args:
        watcher: knows what a failure looks like.
        warnings: are said where it sees one.
    """

    def __init__(self, watcher: Watcher, warnings: Warnings) -> None:
        self._watcher, self._warnings = watcher, warnings

    def on_train_epoch_end(self, trainer: Trainer, segmenter: Segmenter) -> None:  # type: ignore[override]
        """Look, once all processes have added up what they counted."""
        train, validation = segmenter.train_tally, segmenter.validation_tally
        facts = EpochFacts(
            epoch=segmenter.epoch,
            train_loss=train.loss,
            scores=(validation if trainer.enable_validation else train).scores,
            labelled=bool(train.scores.matrix.any()),
        )
        self._warnings.say(*self._watcher.look(facts))
