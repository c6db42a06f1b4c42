# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of what happens beside a training: cancel, the journal of epochs, early stopping."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from specdeepmap.core.errors import Canceled, DatasetError
from specdeepmap.core.learn.callbacks import (
    COLUMNS,
    Journal,
    Patience,
    Row,
    Steering,
    read_history,
    write_history,
)
from tests.helpers import Recorder
from tests.trainings import fit_samples, samples, small_segmenter

pytestmark = pytest.mark.torch

NAN = math.nan


def a_row(epoch: int, score: float) -> Row:
    return {**dict.fromkeys(COLUMNS, 0.5), "epoch": epoch, "val_iou": score}


def journal_of(scores: list[float]) -> Journal:
    return Journal(Path("history.csv"), Recorder(), 99, [a_row(*pair) for pair in enumerate(scores)])


def test_cancel_is_heard_before_each_batch() -> None:
    progress = Recorder()
    steering = Steering(progress, 10)
    trainer: Any = SimpleNamespace(num_training_batches=4)
    segmenter: Any = SimpleNamespace(epoch=3)
    steering.on_train_batch_start(trainer)
    steering.on_train_batch_end(trainer, segmenter, None, None, 1)
    assert progress.shares == [pytest.approx(0.345)]
    progress.cancel()
    for hook in (steering.on_train_batch_start, steering.on_validation_batch_start):
        with pytest.raises(Canceled):
            hook(trainer)


@pytest.mark.parametrize("cancel_at", [1, 3, 4])
def test_a_canceled_training_stops_as_canceled(cancel_at: int, tmp_path: Path) -> None:
    """Two training batches and one of validation: the checks before them are 1, 2 and 3."""
    progress = Recorder(cancel_at)
    journal = Journal(tmp_path / "history.csv", progress, 2)
    with pytest.raises(Canceled):
        fit_samples(small_segmenter(), tmp_path, samples(8), samples(4), 2, callbacks=(Steering(progress, 2), journal))
    assert len(journal.rows) == (cancel_at > 3)


NUMBERS = st.one_of(st.just(NAN), st.floats(0, 1), st.floats(allow_nan=False, allow_infinity=False))
ROWS = st.lists(
    st.builds(
        lambda values, seconds: {**dict(zip(COLUMNS[1:-1], values, strict=True)), "seconds": seconds / 1000},
        st.tuples(*[NUMBERS] * 5),
        st.integers(0, 10**8),
    ),
    max_size=5,
)


def exact(rows: list[Row]) -> list[list[str]]:
    return [[float(row[name]).hex() for name in COLUMNS] for row in rows]


@given(rows=ROWS)
def test_what_is_read_from_a_history_is_what_was_written(
    rows: list[Row], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("history") / "history.csv"
    numbered = [{"epoch": epoch, **row} for epoch, row in enumerate(rows)]
    write_history(path, numbered)
    assert exact(read_history(path)) == exact(numbered)
    with path.open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == list(COLUMNS)


@pytest.mark.parametrize("text", [None, "", "a,b\n1,2\n", ",".join(COLUMNS) + "\n0,1,2,x,4,5,6\n", "\n"])
def test_histories_that_cannot_be_read(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    if text is not None:
        path.write_text(text, "utf-8")
    if text == "" or text == "\n":
        assert read_history(path) == []
        return
    with pytest.raises(DatasetError, match=r"RESUME: the history .*history\.csv .*Train without RESUME"):
        read_history(path)


def test_a_row_that_is_cut_off_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    write_history(path, [a_row(0, 0.1), a_row(1, 0.2)])
    text = path.read_text("utf-8").rstrip()
    path.write_text(text[: text.rindex(",")], "utf-8")
    with pytest.raises(DatasetError, match="history"):
        read_history(path)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.1, 0.3, 0.3, 0.2], 1),
        ([NAN, 0.0, NAN], 1),
        ([0.5, NAN], 0),
        ([NAN, NAN], 1),
        ([0.3], 0),
    ],
)
def test_best_row(scores: list[float], best: int) -> None:
    row = journal_of(scores).best
    assert row is not None and row["epoch"] == best


def test_no_rows_no_best() -> None:
    assert journal_of([]).best is None


@given(
    scores=st.lists(st.sampled_from([0.1, 0.2, 0.3, NAN]), min_size=1, max_size=9),
    patience=st.integers(1, 4),
    interrupted=st.integers(0, 8),
)
def test_patience_ends_after_exactly_so_many_epochs_without_a_better_one(
    scores: list[float], patience: int, interrupted: int
) -> None:
    def stops_after(before: int) -> int | None:
        """Give the epoch after which the training stops, its first epochs having been trained earlier."""
        journal = journal_of(scores[:before])
        watch = Patience(journal, patience)
        trainer: Any = SimpleNamespace(should_stop=False)
        for epoch in range(before, len(scores)):
            journal.rows.append(a_row(epoch, scores[epoch]))
            watch.on_train_epoch_end(trainer, None)
            if trainer.should_stop:
                return epoch
        return None

    highest, since, wanted = -1.0, None, None
    for epoch, score in enumerate(scores):
        if score > highest:
            highest, since = score, epoch
        if since is not None and epoch - since == patience:
            wanted = epoch
            break
    assert stops_after(0) == wanted
    before = min(interrupted, len(scores) - 1)
    if wanted is None or before <= wanted:
        assert stops_after(before) == wanted


def test_without_scores_nothing_stops() -> None:
    journal = journal_of([NAN] * 30)
    trainer: Any = SimpleNamespace(should_stop=False)
    Patience(journal, 1).on_train_epoch_end(trainer, None)
    assert not trainer.should_stop


def test_a_training_stops_early(tmp_path: Path) -> None:
    """Nothing is learnt at this rate, so the first epoch stays the best."""
    journal = Journal(tmp_path / "history.csv", Recorder(), 20)
    segmenter = small_segmenter(optimizer="sgd", learning_rate=1e-30, weight_decay=0.0)
    for module in segmenter.network.modules():
        module.momentum = 0.0  # nor by batch normalisation
    fit_samples(segmenter, tmp_path, samples(4), samples(4), 20, callbacks=(journal, Patience(journal, 3)))
    assert len(journal.rows) == 4


def test_the_journal_of_a_training(tmp_path: Path) -> None:
    progress = Recorder()
    journal = Journal(tmp_path / "history.csv", progress, 3)
    segmenter = fit_samples(small_segmenter(), tmp_path, samples(8), samples(4), 3, callbacks=(journal,))
    rows = read_history(journal.path)
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert exact(rows) == exact([{**row, "seconds": round(row["seconds"], 3)} for row in journal.rows])
    assert rows[-1]["val_loss"] == segmenter.validation_tally.loss
    assert rows[-1]["val_iou"] == segmenter.validation_tally.scores.mean_iou
    assert rows[-1]["train_loss"] == segmenter.train_tally.loss
    assert all(row["lr"] == 0.01 for row in rows)
    assert [text[:12] for text in progress.infos] == ["Epoch 1 of 3", "Epoch 2 of 3", "Epoch 3 of 3"]
    assert progress.shares == [pytest.approx(share) for share in (1 / 3, 2 / 3, 1)]
    logged = EventAccumulator(str(tmp_path / "logs"))
    logged.Reload()
    tags = logged.Tags()["scalars"]
    assert {"loss/train", "loss/validation", "mean IoU/train", "mean IoU/validation", "learning rate"} <= set(tags)
    assert "validation IoU per class/2 class 2" in tags
    losses = logged.Scalars("loss/validation")
    assert [event.step for event in losses] == [0, 1, 2]
    assert losses[-1].value == pytest.approx(rows[-1]["val_loss"])


def test_without_validation_the_journal_says_so_and_logs_no_score(tmp_path: Path) -> None:
    progress = Recorder()
    journal = Journal(tmp_path / "history.csv", progress, 1)
    fit_samples(small_segmenter(), tmp_path, samples(4), callbacks=(journal,))
    (row,) = journal.rows
    assert math.isnan(row["val_loss"]) and math.isnan(row["val_iou"]) and row["train_loss"] > 0
    assert "validation" not in progress.infos[0]
    logged = EventAccumulator(str(tmp_path / "logs"))
    logged.Reload()
    assert not [tag for tag in logged.Tags()["scalars"] if "validation" in tag]


def test_the_journal_goes_on_after_the_rows_of_an_interrupted_run(tmp_path: Path) -> None:
    progress, before = Recorder(), [a_row(0, 0.9), a_row(1, 0.1)]
    path = tmp_path / "history.csv"
    write_history(path, [*before, a_row(2, 0.0)])  # the last checkpoint is older than the last row
    journal = Journal(path, progress, 4, before)
    segmenter = small_segmenter()
    segmenter.first_epoch = 2
    fit_samples(segmenter, tmp_path, samples(4), samples(4), 4, callbacks=(journal,))
    rows = read_history(path)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert exact(rows[:2]) == exact(before) and journal.best == before[0]
    assert progress.infos[0].startswith("Epoch 3 of 4")
    assert progress.shares[-1] == 1
