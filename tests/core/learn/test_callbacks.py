# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of what happens beside a training: which checkpoints are kept, what is written down."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdeepmap.core.errors import Canceled
from specdeepmap.core.learn.callbacks import COLUMNS, Checkpoints, Journal, Steering
from specdeepmap.core.learn.checkpoint import ModelCard, load_checkpoint
from tests.helpers import Recorder

pytestmark = pytest.mark.torch

NAN = math.nan


@dataclass
class Pen:
    """Stands for a trainer: writes the number of the epoch instead of weights."""

    epoch: int = 0
    half_written: list[Path] = field(default_factory=list)

    def save_checkpoint(self, path: Path, weights_only: bool) -> None:
        self.half_written.append(path)
        Path(path).write_text(f"{self.epoch} {weights_only}", "utf-8")


def follow(folder: Path, scores: list[float], keep: int, card: ModelCard) -> Checkpoints:
    """Let the callback see epochs with these validation scores."""
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder / "history.csv", Recorder(), len(scores))
    checkpoints = Checkpoints(folder, journal, keep)
    pen, segmenter = Pen(), SimpleNamespace(card=card)
    for epoch, score in enumerate(scores):
        pen.epoch = epoch
        row = dict.fromkeys(COLUMNS, 0.5)
        journal.rows.append({**row, "epoch": epoch, "val_iou": score})
        checkpoints.on_train_epoch_end(pen, segmenter)  # type: ignore[arg-type]
        assert checkpoints.best is not None and checkpoints.best[0].is_file()
        assert checkpoints.last.read_text("utf-8") == f"{epoch} False"
    assert all(path.name.startswith(".") and not path.exists() for path in pen.half_written)
    return checkpoints


@pytest.fixture(scope="module")
def card(checkpoint: Path) -> ModelCard:
    return load_checkpoint(checkpoint)[0]


def kept(folder: Path) -> set[int]:
    return {int(path.name[:5]) for path in folder.glob("*-val_iou_*.ckpt")}


@given(
    scores=st.lists(st.sampled_from([0.1, 0.2, 0.25, 0.7, NAN]), min_size=1, max_size=8),
    keep=st.sampled_from([1, 2, 3, -1]),
)
def test_the_best_are_kept(
    scores: list[float], keep: int, card: ModelCard, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("kept")
    best = follow(folder, scores, keep, card).best
    known = [(-score, epoch) for epoch, score in enumerate(scores) if not math.isnan(score)]
    rest = sorted((epoch for epoch, score in enumerate(scores) if math.isnan(score)), reverse=True)
    order = [epoch for _, epoch in sorted(known)] + rest
    assert kept(folder) == set(order if keep < 0 else order[:keep])
    assert best is not None
    assert best[0].read_text("utf-8") == f"{order[0]} True"
    assert best[1] == pytest.approx(scores[order[0]], nan_ok=True)
    cards = {path.stem for path in folder.glob("*.json")}
    assert cards == {path.stem for path in folder.glob("*.ckpt")}


def test_names(tmp_path: Path, card: ModelCard) -> None:
    best = follow(tmp_path, [0.1] * 26 + [0.71149], 1, card).best
    assert best == (tmp_path / "00026-val_iou_0.7115.ckpt", 0.71149)


def test_without_scores_the_last_epoch_is_the_best(tmp_path: Path, card: ModelCard) -> None:
    best = follow(tmp_path, [NAN, NAN, NAN], 1, card).best
    assert best is not None and best[0].name == "00002-val_iou_nan.ckpt" and math.isnan(best[1])
    assert kept(tmp_path) == {2}


def test_checkpoints_of_an_earlier_run_are_left_alone_and_never_given(tmp_path: Path, card: ModelCard) -> None:
    stale = tmp_path / "00003-val_iou_0.9999.ckpt"
    stale.write_text("stale", "utf-8")
    checkpoints = Checkpoints(tmp_path, Journal(tmp_path / "history.csv", Recorder(), 1), 1)
    assert checkpoints.best is None
    best = follow(tmp_path, [0.2, 0.3], 1, card).best
    assert best is not None and best[0].name == "00001-val_iou_0.3000.ckpt"
    assert stale.read_text("utf-8") == "stale"


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path, card: ModelCard) -> None:
    checkpoints = follow(tmp_path, [0.5], 1, card)

    def fail(path: Path, weights_only: bool) -> None:
        Path(path).write_text("half", "utf-8")
        raise OSError("No space left on device")

    checkpoints._journal.rows.append({**dict.fromkeys(COLUMNS, 0.5), "epoch": 1, "val_iou": 0.9})
    with pytest.raises(OSError, match="No space"):
        checkpoints.on_train_epoch_end(SimpleNamespace(save_checkpoint=fail), SimpleNamespace(card=card))  # type: ignore[arg-type]
    assert kept(tmp_path) == {0} and checkpoints.last.read_text("utf-8") == "0 False"


def test_each_checkpoint_bears_the_metrics_of_its_epoch(tmp_path: Path, card: ModelCard) -> None:
    follow(tmp_path, [0.2, NAN, 0.4], -1, card)
    for path, score in zip(sorted(tmp_path.glob("0*.json")), (0.2, None, 0.4), strict=True):
        assert f'"val_iou": {"null" if score is None else score}' in path.read_text("utf-8")


def test_cancel_is_heard_before_each_batch() -> None:
    progress = Recorder()
    steering = Steering(progress, 10)
    trainer: Any = SimpleNamespace(num_training_batches=4, current_epoch=3)
    steering.on_train_batch_start(trainer)
    steering.on_train_batch_end(trainer, None, None, None, 1)
    assert progress.shares == [pytest.approx(0.345)]
    progress.cancel()
    for hook in (steering.on_train_batch_start, steering.on_validation_batch_start):
        with pytest.raises(Canceled):
            hook(trainer)
