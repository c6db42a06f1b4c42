# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the checkpoints that stay on disk: which ones, what is in them, and that they are whole."""

from __future__ import annotations

import getpass
import json
import math
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specdeepmap.core.errors import ConfigError
from specdeepmap.core.learn import keeping
from specdeepmap.core.learn.callbacks import COLUMNS, Journal, Row
from specdeepmap.core.learn.checkpoint import KEY, SCHEDULE_KEY, load_checkpoint
from specdeepmap.core.learn.keeping import Checkpoints, Writer
from specdeepmap.core.learn.options import SCHEDULERS
from specdeepmap.core.learn.weightfile import read_tensors
from tests.helpers import Recorder, full_disk
from tests.trainings import fit_samples, model_card, samples, small_network, small_segmenter

pytestmark = pytest.mark.torch

NAN = math.nan


@dataclass
class Pen:
    """Stands for a trainer and its writer: writes the number of the epoch instead of weights, at once."""

    epoch: int = 0
    is_global_zero: bool = True
    done: list[str] = field(default_factory=list)

    def save_checkpoint(self, path: Path, weights_only: bool) -> None:
        self.done.append(f"save {path.name}")
        Path(path).write_text(f"{self.epoch} {weights_only}", "utf-8")

    def remove_checkpoint(self, path: Path) -> None:
        self.done.append(f"remove {path.name}")
        path.unlink()
        path.with_suffix(".json").unlink()

    def do(self, work: Any) -> None:
        self.done.append("card")
        work()


def a_row(epoch: int, score: float) -> Row:
    return {**dict.fromkeys(COLUMNS, 0.5), "epoch": epoch, "val_iou": score}


def follow(folder: Path, scores: list[float], keep: int, rows: list[Row] | None = None) -> tuple[Checkpoints, Pen]:
    """Let the callback see epochs with these validation scores, after those of the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    before = rows or []
    journal = Journal(folder / "history.csv", Recorder(), len(before) + len(scores), before)
    pen: Any = Pen()
    checkpoints = Checkpoints(folder, journal, keep, pen)
    segmenter: Any = SimpleNamespace(card=model_card())
    for epoch, score in enumerate(scores, start=len(before)):
        pen.epoch = epoch
        journal.rows.append(a_row(epoch, score))
        checkpoints.on_train_epoch_end(pen, segmenter)
        assert checkpoints.best is not None and checkpoints.best[0].is_file()
        assert checkpoints.last.read_text("utf-8") == f"{epoch} False"
    return checkpoints, pen


def kept(folder: Path) -> set[int]:
    return {int(path.name[:5]) for path in folder.glob("*-val_iou_*.ckpt")}


@given(
    scores=st.lists(st.sampled_from([0.1, 0.2, 0.25, 0.7, NAN]), min_size=1, max_size=8),
    keep=st.sampled_from([1, 2, 3, -1]),
    interrupted=st.integers(0, 7),
)
def test_the_best_are_kept(
    scores: list[float], keep: int, interrupted: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("kept")
    done = min(interrupted, len(scores) - 1)
    follow(folder, scores[:done], keep)
    best = follow(folder, scores[done:], keep, [a_row(*pair) for pair in enumerate(scores[:done])])[0].best
    known = [(-score, epoch) for epoch, score in enumerate(scores) if not math.isnan(score)]
    rest = sorted((epoch for epoch, score in enumerate(scores) if math.isnan(score)), reverse=True)
    order = [epoch for _, epoch in sorted(known)] + rest
    assert kept(folder) == set(order if keep < 0 else order[:keep])
    assert best is not None
    assert best[0].read_text("utf-8") == f"{order[0]} True"
    assert best[1] == pytest.approx(scores[order[0]], nan_ok=True)
    assert {path.stem for path in folder.glob("*.json")} == {path.stem for path in folder.glob("*.ckpt")}


def test_names(tmp_path: Path) -> None:
    best = follow(tmp_path, [0.1] * 26 + [0.71149], 1)[0].best
    assert best == (tmp_path / "00026-val_iou_0.7115.ckpt", 0.71149)


def test_without_scores_the_last_epoch_is_the_best(tmp_path: Path) -> None:
    best = follow(tmp_path, [NAN, NAN, NAN], 1)[0].best
    assert best is not None and best[0].name == "00002-val_iou_nan.ckpt" and math.isnan(best[1])
    assert kept(tmp_path) == {2}


def test_checkpoints_of_an_earlier_run_are_left_alone_and_never_given(tmp_path: Path) -> None:
    stale = tmp_path / "00003-val_iou_0.9999.ckpt"
    stale.write_text("stale", "utf-8")
    assert follow(tmp_path, [], 1)[0].best is None
    best = follow(tmp_path, [0.2, 0.3], 1)[0].best
    assert best is not None and best[0].name == "00001-val_iou_0.3000.ckpt"
    assert stale.read_text("utf-8") == "stale"


def test_the_best_one_of_an_interrupted_run_that_was_deleted_is_no_best(tmp_path: Path) -> None:
    follow(tmp_path, [0.9, 0.2], 2)
    (tmp_path / "00000-val_iou_0.9000.ckpt").unlink()
    (tmp_path / "00000-val_iou_0.9000.json").unlink()
    best = follow(tmp_path, [0.3], 2, [a_row(0, 0.9), a_row(1, 0.2)])[0].best
    assert best is not None and best[1] == 0.3


def test_last_is_written_after_all_else_of_its_epoch(tmp_path: Path) -> None:
    """A training that is resumed from it finds the best checkpoints that its history speaks of."""
    _, pen = follow(tmp_path, [0.2, 0.4], 1)
    first, second = "00000-val_iou_0.2000.ckpt", "00001-val_iou_0.4000.ckpt"
    assert pen.done == [
        *(f"save {first}", "card", "save last.ckpt", "card"),
        *(f"save {second}", "card", f"remove {first}", "save last.ckpt", "card"),
    ]


def test_a_process_that_is_not_the_first_takes_part_and_touches_no_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "history.csv", Recorder(), 2)
    pen: Any = Pen(is_global_zero=False)
    calls: list[str] = []
    pen.save_checkpoint = lambda path, weights_only: calls.append(path.name)
    checkpoints = Checkpoints(tmp_path, journal, 1, pen)
    for epoch, score in enumerate((0.2, 0.4)):
        journal.rows.append(a_row(epoch, score))
        checkpoints.on_train_epoch_end(pen, SimpleNamespace(card=model_card()))  # type: ignore[arg-type]
    # Saving gathers what all processes have: one that stays away is waited for.
    assert calls == ["00000-val_iou_0.2000.ckpt", "last.ckpt", "00001-val_iou_0.4000.ckpt", "last.ckpt"]
    assert pen.done == [] and list(tmp_path.iterdir()) == []


def test_each_checkpoint_bears_the_metrics_of_its_epoch(tmp_path: Path) -> None:
    follow(tmp_path, [0.2, NAN, 0.4], -1)
    for path, score in zip(sorted(tmp_path.glob("0*.json")), (0.2, None, 0.4), strict=True):
        metrics = json.loads(path.read_text("utf-8"))["metrics"]
        assert metrics["val_iou"] == score and "seconds" not in metrics


def train(folder: Path, epochs: int = 2, keep: int = 1, **recipe: Any) -> tuple[Checkpoints, Writer]:
    """Train a real, small network with the callbacks that keep it."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = Writer()
    journal = Journal(folder / "history.csv", Recorder(), epochs)
    checkpoints = Checkpoints(folder, journal, keep, writer)
    segmenter = small_segmenter(**recipe)
    callbacks = (journal, checkpoints)
    fit_samples(segmenter, folder, samples(8), samples(4, seed=2), epochs, callbacks=callbacks, writer=writer)
    return checkpoints, writer


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_best_holds_weights_only_and_last_what_resuming_needs(scheduler: str, tmp_path: Path) -> None:
    checkpoints, _ = train(tmp_path / "run", optimizer="adam", scheduler=scheduler)
    assert checkpoints.best is not None
    best, last = read_tensors(checkpoints.best[0], "BEST"), read_tensors(checkpoints.last, "LAST")
    assert {"state_dict", KEY} <= set(best)
    assert {"optimizer_states", SCHEDULE_KEY} & set(best) == set()
    assert {"state_dict", KEY, "optimizer_states", SCHEDULE_KEY} <= set(last)
    (optimizer,) = last["optimizer_states"]
    assert len(optimizer["state"]) == len(list(small_network().parameters()))
    assert best["state_dict"].keys() == last["state_dict"].keys()
    assert all(not tensor.requires_grad for tensor in last["state_dict"].values())


def test_best_is_less_than_half_of_last(tmp_path: Path) -> None:
    bands = 1000  # so that the weights outweigh the card
    segmenter = small_segmenter(small_network(bands=bands), card=model_card(bands), optimizer="adam")
    writer, journal = Writer(), Journal(tmp_path / "history.csv", Recorder(), 1)
    checkpoints = Checkpoints(tmp_path, journal, 1, writer)
    chips = samples(4, bands=bands)
    fit_samples(segmenter, tmp_path, chips, chips, callbacks=(journal, checkpoints), writer=writer)
    assert checkpoints.best is not None
    assert checkpoints.best[0].stat().st_size < 0.5 * checkpoints.last.stat().st_size


def test_no_path_and_no_name_of_a_user_is_in_a_file(tmp_path: Path) -> None:
    run = tmp_path / "somewhere-of-mine"
    train(run)
    names = {str(Path.home()), "somewhere-of-mine", "pytest-of-", str(Path.cwd()), *tmp_path.parts[1:]}
    names |= {name for name in (getpass.getuser(),) if len(name) > 4}  # short ones may stand there by chance
    files = [path for path in run.iterdir() if path.suffix in (".ckpt", ".json")]
    assert len(files) == 4
    for path in files:
        found = [name for name in names if len(name) > 4 and name.encode() in path.read_bytes()]
        assert not found, path.name


def test_the_checkpoint_holds_the_weights_of_its_epoch(tmp_path: Path) -> None:
    run = tmp_path / "run"
    writer, journal = Writer(), Journal(tmp_path / "history.csv", Recorder(), 3)
    run.mkdir()
    checkpoints, seen = Checkpoints(run, journal, -1, writer), []

    class Look(Journal):
        def on_train_epoch_end(self, trainer: Any, segmenter: Any) -> None:
            seen.append({name: tensor.clone() for name, tensor in segmenter.network.state_dict().items()})

        on_train_start = on_train_epoch_start = lambda *_: None  # type: ignore[assignment]

    callbacks = (journal, checkpoints, Look(tmp_path / "unused.csv", Recorder(), 3))
    fit_samples(small_segmenter(), run, samples(8), samples(4), 3, callbacks=callbacks, writer=writer)
    for weights, path in zip(seen, sorted(run.glob("0*.ckpt")), strict=True):
        card, stored = load_checkpoint(path)
        assert stored.keys() == weights.keys()
        assert all(torch.equal(stored[name], weights[name]) for name in weights)
        assert f"{card.metrics['epoch']:05d}" == path.name[:5]


class Gate:
    """Holds the writer back until it is opened."""

    def __init__(self, writer: Writer) -> None:
        self._open = threading.Event()
        writer.do(lambda: self._open.wait(10) and None)

    def open(self) -> None:
        self._open.set()


def test_what_is_written_is_a_copy(tmp_path: Path) -> None:
    writer, weights = Writer(), torch.zeros(4)
    nested = {"state": {"w": weights}, "list": [{"m": weights}], "number": 5}
    gate = Gate(writer)
    writer.save_checkpoint(nested, tmp_path / "a.ckpt")
    weights += 1  # the training goes on
    nested["number"] = 6
    gate.open()
    writer.wait()
    stored = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert stored["state"]["w"].tolist() == stored["list"][0]["m"].tolist() == [0, 0, 0, 0]
    assert stored["number"] == 5


def test_things_are_done_in_the_order_they_were_asked_for(tmp_path: Path) -> None:
    writer = Writer()
    gate = Gate(writer)
    path = tmp_path / "a.ckpt"
    for number in range(5):
        writer.save_checkpoint({"number": number}, path)
    writer.do(lambda: path.with_suffix(".json").write_text("card") and None)
    writer.remove_checkpoint(path)
    assert list(tmp_path.iterdir()) == []
    gate.open()
    writer.wait()
    assert list(tmp_path.iterdir()) == []
    writer.save_checkpoint({"number": 7}, path)
    writer.wait()
    assert torch.load(path, weights_only=True) == {"number": 7}
    assert [name.name for name in tmp_path.iterdir()] == ["a.ckpt"]


def test_files_under_their_final_name_are_always_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    writer, places = Writer(), []
    writer.save_checkpoint({"number": 1}, path)
    writer.wait()

    def half(content: Any, target: Path) -> None:
        places.append(Path(target))
        Path(target).write_bytes(b"half")
        assert torch.load(path, weights_only=True) == {"number": 1}
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeping.torch, "save", half)
    writer.save_checkpoint({"number": 2}, path)
    with pytest.raises(ConfigError, match=r"MODEL_FOLDER: .*last\.ckpt cannot be written .*No space.*Is the disk full"):
        writer.wait()
    assert len(places) == 1 and places[0].name.startswith(".")
    assert torch.load(path, weights_only=True) == {"number": 1}
    assert [name.name for name in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_full_disk_is_named_and_earlier_checkpoints_stay(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.ckpt")}
    tensors = {"big": torch.zeros(200_000)}
    writer = Writer()
    with full_disk(100_000):
        writer.save_checkpoint(tensors, tmp_path / "last.ckpt")
        with pytest.raises(ConfigError, match="MODEL_FOLDER"):
            writer.wait()
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.ckpt")} == before
    assert not list(tmp_path.glob(".*"))


def test_an_error_of_the_writer_is_heard_at_the_next_thing_asked_for(tmp_path: Path) -> None:
    writer = Writer()
    writer.save_checkpoint({}, tmp_path / "missing" / "a.ckpt")
    with pytest.raises(ConfigError, match="cannot be written"):
        for _ in range(500):
            time.sleep(0.01)
            writer.do(lambda: None)


def test_lightning_may_close_the_writer_before_it_has_done_its_work(tmp_path: Path) -> None:
    writer = Writer()
    gate = Gate(writer)
    writer.save_checkpoint({"number": 1}, tmp_path / "a.ckpt")
    writer.teardown()
    gate.open()
    writer.wait()
    assert (tmp_path / "a.ckpt").is_file()


def test_checkpoints_are_not_loaded_on_its_way() -> None:
    with pytest.raises(NotImplementedError):
        Writer().load_checkpoint("a.ckpt")
