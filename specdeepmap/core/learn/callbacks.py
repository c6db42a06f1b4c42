# SPDX-License-Identifier: GPL-3.0-or-later
"""Callbacks: what happens beside the training: cancel, the journal of epochs, early stopping."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from specdeepmap.core.errors import DatasetError
from specdeepmap.core.learn.segmenter import Segmenter
from specdeepmap.core.progress import Progress
from specdeepmap.core.report import duration
from specdeepmap.core.staging import write_whole

COLUMNS = ("epoch", "train_loss", "train_iou", "val_loss", "val_iou", "lr", "seconds")

Row = dict[str, float]


class Steering(Callback):
    """Report each batch and stop before the next one after a cancel.

    ``Canceled`` is a plain exception: Lightning turns ``KeyboardInterrupt`` into other errors.
    """

    def __init__(self, progress: Progress, epochs: int) -> None:
        self._progress, self._epochs = progress, epochs

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Hear a cancel."""
        self._progress.check()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        segmenter: Segmenter,  # type: ignore[override]
        _out: Any,
        _batch: Any,
        batch_idx: int,
    ) -> None:
        """Report the share of all epochs that is done; validation is the last tenth of each."""
        share = 0.9 * (batch_idx + 1) / max(int(trainer.num_training_batches), 1)
        self._progress.report((segmenter.epoch + share) / self._epochs)

    def on_validation_batch_start(self, *_: Any) -> None:
        """Hear a cancel."""
        self._progress.check()


class Journal(Callback):
    """Keep one row per epoch: for the user, the history table and TensorBoard.

    Args:
        path: of the history table.
        progress: is told.
        epochs: how many there will be at most.
        rows: of the epochs before an interruption.
    """

    def __init__(self, path: Path, progress: Progress, epochs: int, rows: Sequence[Row] = ()) -> None:
        self.path = path
        self.rows: list[Row] = list(rows)
        self._progress, self._epochs = progress, epochs
        self._before = len(self.rows)
        self._started = self._epoch_started = time.monotonic()
        self._rate = float("nan")

    @property
    def best(self) -> Row | None:
        """The row of the best epoch so far: by validation mean IoU, the earlier one where two are equal.

        Without a score the latest epoch is the best.
        """
        return _best(self.rows)

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Start the clock. What an earlier training left is replaced when the first epoch has ended, not before."""
        self._started = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Note time and learning rate."""
        self._epoch_started = time.monotonic()
        self._rate = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer: Trainer, segmenter: Segmenter) -> None:  # type: ignore[override]
        """Write the row of the epoch; validation lies behind it."""
        segmenter.pool()
        train, validation = segmenter.train_tally, segmenter.validation_tally
        row = {
            "epoch": segmenter.epoch,
            "train_loss": train.loss,
            "train_iou": train.scores.mean_iou,
            "val_loss": validation.loss,
            "val_iou": validation.scores.mean_iou,
            "lr": self._rate,
            "seconds": time.monotonic() - self._epoch_started,
        }
        validated = trainer.enable_validation and math.isfinite(validation.loss)  # chips may hold no label
        segmenter.finish_epoch(row["val_loss"] if validated else row["train_loss"])
        self.rows.append(row)
        if trainer.is_global_zero:
            write_history(self.path, self.rows)
        self._show(row)
        self._log(trainer, segmenter, row)

    def _show(self, row: Row) -> None:
        done = len(self.rows)
        left = (time.monotonic() - self._started) / (done - self._before) * (self._epochs - done)
        validation = (
            "" if math.isnan(row["val_iou"]) else (f", validation loss {row['val_loss']:.4f}, IoU {row['val_iou']:.4f}")
        )
        self._progress.info(
            f"Epoch {done} of {self._epochs}: loss {row['train_loss']:.4f}, IoU {row['train_iou']:.4f}{validation}, "
            f"learning rate {row['lr']:.3g}, {duration(left)} left at most"
        )
        self._progress.report(done / self._epochs)

    def _log(self, trainer: Trainer, segmenter: Segmenter, row: Row) -> None:
        if not isinstance(trainer.logger, TensorBoardLogger):
            return
        values = {
            "loss/train": row["train_loss"],
            "loss/validation": row["val_loss"],
            "mean IoU/train": row["train_iou"],
            "mean IoU/validation": row["val_iou"],
            "learning rate": row["lr"],
        }
        for entry, iou in zip(segmenter.card.classes.entries, segmenter.validation_tally.scores.iou, strict=True):
            values[f"validation IoU per class/{entry.value} {entry.name}"] = float(iou)
        known = {name: value for name, value in values.items() if math.isfinite(value)}
        trainer.logger.log_metrics(known, step=int(row["epoch"]))


class Patience(Callback):
    """Stop when the validation mean IoU has not risen for a while.

    Lightning's own ``EarlyStopping`` forgets what happened before an interruption.

    Args:
        journal: has the scores; it must come before this callback.
        epochs: how many without a better score end the training.
    """

    def __init__(self, journal: Journal, epochs: int) -> None:
        self._journal, self._epochs = journal, epochs

    def on_train_epoch_end(self, trainer: Trainer, _: Any) -> None:
        """Look back."""
        if patience_is_over(self._journal.rows, self._epochs):
            trainer.should_stop = True


def patience_is_over(rows: Sequence[Row], epochs: int) -> bool:
    """Tell whether the validation mean IoU has not risen in the last epochs, so many of them."""
    best = _best(rows)
    return best is not None and math.isfinite(best["val_iou"]) and rows[-1]["epoch"] - best["epoch"] >= epochs


def _best(rows: Sequence[Row]) -> Row | None:
    scored = [row for row in rows if math.isfinite(row["val_iou"])]
    if scored:
        return max(scored, key=lambda row: row["val_iou"])
    return rows[-1] if rows else None


def write_history(path: Path, rows: Sequence[Row]) -> None:
    """Write the history table: as a whole, since a training goes on from it after an interruption."""

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(_texts(row) for row in rows)

    write_whole(path, write)


def read_history(path: Path) -> list[Row]:
    """Read a history table.

    Raises:
        DatasetError: if it is missing or holds anything but numbers.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [{name: float(row[name]) for name in COLUMNS} for row in csv.DictReader(file)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"RESUME: the history {path} of the interrupted run cannot be read. Train without RESUME."
        ) from error


def _texts(row: Row) -> list[str]:
    # 17 digits: what is read back is what was written, so that a resumed run ranks its epochs alike
    return [str(int(row["epoch"])), *(f"{row[name]:.17g}" for name in COLUMNS[1:-1]), f"{row['seconds']:.3f}"]
