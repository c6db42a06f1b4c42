# SPDX-License-Identifier: GPL-3.0-or-later
"""Callbacks: what happens beside the training: cancel, the journal of epochs, checkpoints."""

from __future__ import annotations

import csv
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from specdeepmap.core.learn.checkpoint import write_card
from specdeepmap.core.learn.segmenter import Segmenter
from specdeepmap.core.progress import Progress

COLUMNS = ("epoch", "train_loss", "train_iou", "val_loss", "val_iou", "lr", "seconds")


class Steering(Callback):
    """Report each batch and stop before the next one after a cancel.

    ``Canceled`` is a plain exception: Lightning turns ``KeyboardInterrupt`` into other errors.
    """

    def __init__(self, progress: Progress, epochs: int) -> None:
        self._progress, self._epochs = progress, epochs

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Hear a cancel."""
        self._progress.check()

    def on_train_batch_end(self, trainer: Trainer, _module: Any, _out: Any, _batch: Any, batch_idx: int) -> None:
        """Report the share of all epochs that is done; validation is the last tenth of each."""
        share = 0.9 * (batch_idx + 1) / max(int(trainer.num_training_batches), 1)
        self._progress.report((trainer.current_epoch + share) / self._epochs)

    def on_validation_batch_start(self, *_: Any) -> None:
        """Hear a cancel."""
        self._progress.check()


class Journal(Callback):
    """Keep one row per epoch: for the user, the history table and TensorBoard."""

    def __init__(self, path: Path, progress: Progress, epochs: int) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        self._progress, self._epochs = progress, epochs
        self._started = self._epoch_started = time.monotonic()
        self._rate = float("nan")

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Start the clock and the table."""
        self._started = time.monotonic()
        with self.path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(COLUMNS)

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Note time and learning rate."""
        self._epoch_started = time.monotonic()
        self._rate = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer: Trainer, segmenter: Segmenter) -> None:  # type: ignore[override]
        """Write the row of the epoch; validation lies behind it."""
        train, validation = segmenter.train_tally, segmenter.validation_tally
        row = {
            "epoch": trainer.current_epoch,
            "train_loss": train.loss,
            "train_iou": train.scores.mean_iou,
            "val_loss": validation.loss,
            "val_iou": validation.scores.mean_iou,
            "lr": self._rate,
            "seconds": time.monotonic() - self._epoch_started,
        }
        self.rows.append(row)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([row["epoch"], *(f"{row[name]:.8g}" for name in COLUMNS[1:])])
        self._show(row, labelled=bool(train.scores.matrix.any()))
        self._log(trainer, segmenter, row)

    def _show(self, row: dict[str, float], labelled: bool) -> None:
        done = len(self.rows)
        left = (time.monotonic() - self._started) / done * (self._epochs - done)
        validation = (
            ""
            if math.isnan(row["val_loss"])
            else (f", validation loss {row['val_loss']:.4f}, IoU {row['val_iou']:.4f}")
        )
        self._progress.info(
            f"Epoch {done} of {self._epochs}: loss {row['train_loss']:.4f}, IoU {row['train_iou']:.4f}{validation}, "
            f"learning rate {row['lr']:.3g}, {_duration(left)} left at most"
        )
        if labelled and not math.isfinite(row["train_loss"]):
            self._progress.warning(
                "The training loss is not a number. Lower LEARNING_RATE, and check the image values for extremes "
                "that are not declared as no-data."
            )
        self._progress.report(done / self._epochs)

    def _log(self, trainer: Trainer, segmenter: Segmenter, row: dict[str, float]) -> None:
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
            values[f"IoU per class (validation)/{entry.value} {entry.name}"] = float(iou)
        known = {name: value for name, value in values.items() if math.isfinite(value)}
        trainer.logger.log_metrics(known, step=int(row["epoch"]))


@dataclass(frozen=True)
class _Kept:
    """A checkpoint on disk."""

    epoch: int
    iou: float
    path: Path

    def rank(self) -> tuple[float, int]:
        """Best first: by score, earlier epochs first; without a score the latest epoch is the best."""
        return (-self.iou, self.epoch) if math.isfinite(self.iou) else (math.inf, -self.epoch)


class Checkpoints(Callback):
    """Keep the best checkpoints by validation mean IoU, and the last one.

    Lightning's own ``ModelCheckpoint`` cannot write the card beside a checkpoint nor name one without a
    score. Best checkpoints hold weights only. Files are written under another name and renamed when whole.

    Args:
        folder: where to.
        journal: has the scores; it must come before this callback.
        keep: how many; -1 = all.
    """

    def __init__(self, folder: Path, journal: Journal, keep: int) -> None:
        self._folder, self._journal, self._keep = folder, journal, keep
        self._kept: list[_Kept] = []

    @property
    def best(self) -> tuple[Path, float] | None:
        """The best checkpoint so far and its validation mean IoU; None before the first epoch's end."""
        return (self._kept[0].path, self._kept[0].iou) if self._kept else None

    @property
    def last(self) -> Path:
        """The checkpoint of the last epoch."""
        return self._folder / "last.ckpt"

    def on_train_epoch_end(self, trainer: Trainer, segmenter: Segmenter) -> None:  # type: ignore[override]
        """Save what this epoch brought."""
        row = self._journal.rows[-1]
        segmenter.card = segmenter.card.at({name: row[name] for name in COLUMNS if name != "seconds"})
        self._save(trainer, segmenter, self.last, weights_only=False)
        epoch, iou = int(row["epoch"]), row["val_iou"]
        new = _Kept(epoch, iou, self._folder / f"{epoch:05d}-val_iou_{iou:.4f}.ckpt")
        ranked = sorted([*self._kept, new], key=_Kept.rank)
        self._kept = ranked if self._keep < 0 else ranked[: self._keep]
        if new in self._kept:
            self._save(trainer, segmenter, new.path, weights_only=True)
        for gone in ranked[len(self._kept) :]:
            gone.path.unlink(missing_ok=True)
            gone.path.with_suffix(".json").unlink(missing_ok=True)

    def _save(self, trainer: Trainer, segmenter: Segmenter, path: Path, weights_only: bool) -> None:
        part = path.with_name(f".{path.name}.part")
        trainer.save_checkpoint(part, weights_only=weights_only)
        part.replace(path)
        write_card(path.with_suffix(".json"), segmenter.card)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
