# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeping: which epochs of a training stay on disk, written while the training goes on."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.plugins.io import CheckpointIO

from specdeepmap.core.errors import ConfigError
from specdeepmap.core.learn.callbacks import COLUMNS, Journal, Row
from specdeepmap.core.learn.checkpoint import KEY, OTHERS_KEY, ModelCard, write_card
from specdeepmap.core.learn.segmenter import Segmenter

LAST_NAME = "last.ckpt"

_STEM = re.compile(r"\d+-val_iou_(\d\.\d{4}|nan)(-v\d+)?")
_SUFFIXES = (".ckpt", ".json")

PAUSE = 30.0
"""Seconds between two writings of the last checkpoint, at least: what a power cut may cost."""


class Writer(CheckpointIO):
    """Write checkpoints and the copies of their cards in a thread, under other names until they are whole.

    The tensors are copied first, so that the training may go on. What a training goes on from after an interruption is
    three times as large as the network and soon outdated: it waits in memory for its turn, or for the end. So do
    the removals, since it may name what is removed.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._pending: list[Future[None]] = []
        self._state: Callable[[], None] | None = None
        self._gone: list[Path] = []
        self._writing: Future[None] | None = None
        self._since = -math.inf

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Take a copy and write it by and by.

        Raises:
            ConfigError: if something before could not be written.
        """
        going_on = "optimizer_states" in checkpoint
        if going_on:
            self._state = None  # outdated; two of them might not fit
        copy = _copied(checkpoint)
        if not going_on:
            self.do(lambda: _write(copy, Path(path)))
            return
        self._state = lambda: _write(copy, Path(path))
        busy = self._writing is not None and not self._writing.done()
        if not busy and time.monotonic() - self._since >= PAUSE:
            self._raise_failed()
            self._write_state(self._state)

    def wait(self) -> None:
        """Wait until everything is written, also what comes after something that could not be.

        Raises:
            ConfigError: if something cannot be written.
        """
        if self._state is not None:
            self._write_state(self._state)
        pending, self._pending = self._pending, []
        wait(pending)
        for future in pending:
            future.result()

    def do(self, work: Callable[[], None]) -> None:
        """Do something after all that was asked for before.

        Raises:
            ConfigError: if something before has failed.
        """
        self._raise_failed()
        self._submit(work)

    def _write_state(self, write: Callable[[], None]) -> None:
        """Write the state that waits; remove what it does not name any more only if all is well."""
        gone, before = self._gone, list(self._pending)

        def work() -> None:
            write()
            if not any(future.exception() for future in before):
                for path in gone:
                    _remove(path)

        self._state, self._gone, self._since = None, [], time.monotonic()
        self._writing = self._submit(work)

    def _submit(self, work: Callable[[], None]) -> Future[None]:
        self._pending.append(self._pool.submit(work))
        return self._pending[-1]

    def _raise_failed(self) -> None:
        while self._pending and self._pending[0].done():
            self._pending.pop(0).result()

    def teardown(self) -> None:
        """Do nothing: who made this waits for it."""

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Refuse: checkpoints are read by ``load_checkpoint`` of the learning room."""
        raise NotImplementedError

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint and the copy of its card, after the next state of the training is written."""
        self._gone.append(Path(path))


def _copied(value: Any) -> Any:
    """Copy tensors, wherever they are, to the processor's memory."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(entry) for key, entry in value.items()}
    return [_copied(entry) for entry in value] if isinstance(value, list) else value


def _write(checkpoint: dict[str, Any], path: Path) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        torch.save(checkpoint, part)
        part.replace(path)
        write_card(part, ModelCard.from_json(checkpoint[KEY]))
        part.replace(path.with_suffix(".json"))
    except (OSError, RuntimeError) as error:  # RuntimeError: PyTorch's own file writer
        part.unlink(missing_ok=True)
        raise ConfigError(
            f"MODEL_FOLDER: the checkpoint {path} cannot be written ({str(error).splitlines()[0]}). Is the disk full? "
            "The checkpoints of earlier epochs are whole."
        ) from error


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_suffix(".json").unlink(missing_ok=True)


@dataclass(frozen=True)
class _Kept:
    """A checkpoint on disk."""

    epoch: int
    iou: float
    path: Path

    def rank(self) -> tuple[float, int]:
        """Best first: by score, earlier epochs first; without a score the latest epoch is the best."""
        return (-self.iou, self.epoch) if math.isfinite(self.iou) else (math.inf, -self.epoch)


def find_checkpoints(folder: Path) -> frozenset[str]:
    """Give the names, without their suffixes, of the best checkpoints of earlier trainings in a model folder."""
    return frozenset(path.stem for path in folder.glob("*") if path.suffix in _SUFFIXES and _STEM.fullmatch(path.stem))


class Checkpoints(Callback):
    """Keep the best checkpoints by validation mean IoU, and the last one.

    Lightning's own ``ModelCheckpoint`` cannot write the card beside a checkpoint nor name one without a
    score. Best checkpoints hold weights only; the last one also what a training needs to go on.

    Only what this training wrote is ever replaced, removed, or given as the best. Where an earlier one has used a
    name, ``-v1`` is put behind it (or ``-v2`` and so on), as ``ModelCheckpoint`` does.

    Args:
        folder: where to.
        journal: has the scores; it must come before this callback.
        keep: how many; -1 = all.
        writer: the trainer's.
        others: names of the checkpoints that lay in the folder when this training began; see ``find_checkpoints``.
    """

    def __init__(self, folder: Path, journal: Journal, keep: int, writer: Writer, others: Collection[str] = ()) -> None:
        self._folder, self._journal, self._keep, self._writer = folder, journal, keep, writer
        self._others = frozenset(others)
        known = (self._place(row) for row in journal.rows)
        self._kept = sorted((kept for kept in known if kept.path.is_file()), key=_Kept.rank)

    @property
    def best(self) -> tuple[Path, float] | None:
        """The best checkpoint so far and its validation mean IoU; None before the first epoch's end."""
        return (self._kept[0].path, self._kept[0].iou) if self._kept else None

    @property
    def strays(self) -> list[str]:
        """Names of checkpoints in the folder that this training neither keeps nor found there."""
        return sorted(find_checkpoints(self._folder) - self._others - {kept.path.stem for kept in self._kept})

    @property
    def last(self) -> Path:
        """The checkpoint of the last epoch."""
        return self._folder / LAST_NAME

    def on_train_epoch_end(self, trainer: Trainer, segmenter: Segmenter) -> None:  # type: ignore[override]
        """Save what this epoch brought; the last checkpoint at the end, since a training goes on from there."""
        row = self._journal.rows[-1]
        segmenter.card = segmenter.card.at({name: row[name] for name in COLUMNS if name != "seconds"})
        new = self._place(row)
        ranked = sorted([*self._kept, new], key=_Kept.rank)
        self._kept = ranked if self._keep < 0 else ranked[: self._keep]
        if new in self._kept:
            trainer.save_checkpoint(new.path, weights_only=True)  # all processes take part in it
        if trainer.is_global_zero:
            for gone in ranked[len(self._kept) :]:
                if gone != new:
                    self._writer.remove_checkpoint(gone.path)
        trainer.save_checkpoint(self.last, weights_only=False)

    def on_save_checkpoint(self, trainer: Trainer, segmenter: Segmenter, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Note in the last checkpoint what a training that goes on from it must leave alone."""
        checkpoint[OTHERS_KEY] = sorted(self._others)

    def _place(self, row: Row) -> _Kept:
        epoch, iou = int(row["epoch"]), row["val_iou"]
        name = f"{epoch:05d}-val_iou_{iou:.4f}"
        names = chain([name], (f"{name}-v{number}" for number in count(1)))
        free = next(stem for stem in names if stem not in self._others)
        return _Kept(epoch, iou, self._folder / f"{free}.ckpt")
