# SPDX-License-Identifier: GPL-3.0-or-later
"""Watching: warn the user while a training goes wrong, and remember it for the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning import Callback, Trainer

from specdeepmap.core.learn.checkpoint import WARNINGS_KEY
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
            self._remember(text)
            self._progress.warning(text)

    def recall(self, texts: Sequence[str]) -> None:
        """Remember what was said before an interruption."""
        for text in texts:
            self._remember(text)

    def _remember(self, text: str) -> None:
        if text not in self.said:
            self.said.append(text)


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

    def on_save_checkpoint(self, trainer: Trainer, segmenter: Segmenter, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Note in the last checkpoint what was said, for the report of a training that goes on from it."""
        checkpoint[WARNINGS_KEY] = {"texts": list(self._warnings.said), "kinds": sorted(self._watcher.said)}
