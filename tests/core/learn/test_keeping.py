# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the checkpoints that stay on disk: which ones, what is in them, and that they are whole."""

from __future__ import annotations

import gc
import getpass
import json
import math
import threading
import time
from collections.abc import Collection
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
from specdeepmap.core.learn.keeping import Checkpoints, Writer, find_checkpoints
from specdeepmap.core.learn.options import SCHEDULERS
from specdeepmap.core.learn.weightfile import read_tensors
from tests.helpers import Recorder, full_disk
from tests.trainings import fit_samples, model_card, samples, small_network, small_segmenter

pytestmark = pytest.mark.torch

NAN = math.nan

STATE: dict[str, Any] = {"optimizer_states": []}
"""Marks what a training goes on from."""


@dataclass
class Pen:
    """Stands for a trainer and its writer: writes the number of the epoch instead of weights, at once, and no card."""

    epoch: int = 0
    is_global_zero: bool = True
    done: list[str] = field(default_factory=list)

    def save_checkpoint(self, path: Path, weights_only: bool) -> None:
        self.done.append(f"save {path.name}")
        Path(path).write_text(f"{self.epoch} {weights_only}", "utf-8")

    def remove_checkpoint(self, path: Path) -> None:
        self.done.append(f"remove {path.name}")
        path.unlink()


def a_row(epoch: int, score: float) -> Row:
    return {**dict.fromkeys(COLUMNS, 0.5), "epoch": epoch, "val_iou": score}


def follow(
    folder: Path, scores: list[float], keep: int, rows: list[Row] | None = None, others: Collection[str] = ()
) -> tuple[Checkpoints, Pen]:
    """Let the callback see epochs with these validation scores, after those of the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    before = rows or []
    journal = Journal(folder / "history.csv", Recorder(), len(before) + len(scores), before)
    pen: Any = Pen()
    checkpoints = Checkpoints(folder, journal, keep, pen, others)
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


def best_files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in folder.glob("*-val_iou_*")}


def best_of(scores: list[float], keep: int) -> list[int]:
    """Give the epochs that are kept, the best first."""
    known = [(-score, epoch) for epoch, score in enumerate(scores) if not math.isnan(score)]
    rest = sorted((epoch for epoch, score in enumerate(scores) if math.isnan(score)), reverse=True)
    order = [epoch for _, epoch in sorted(known)] + rest
    return order if keep < 0 else order[:keep]


some_scores = st.lists(st.sampled_from([0.1, 0.2, 0.25, 0.7, NAN]), min_size=1, max_size=8)
some_keep = st.sampled_from([1, 2, 3, -1])


@given(scores=some_scores, keep=some_keep, interrupted=st.integers(0, 7))
def test_the_best_are_kept(
    scores: list[float], keep: int, interrupted: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("kept")
    done = min(interrupted, len(scores) - 1)
    follow(folder, scores[:done], keep)
    best = follow(folder, scores[done:], keep, [a_row(*pair) for pair in enumerate(scores[:done])])[0].best
    order = best_of(scores, keep)
    assert kept(folder) == set(order)
    assert best is not None
    assert best[0].read_text("utf-8") == f"{order[0]} True"
    assert best[1] == pytest.approx(scores[order[0]], nan_ok=True)


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


def test_a_name_that_an_earlier_training_has_used_stays_its(tmp_path: Path) -> None:
    follow(tmp_path, [0.2, 0.9, 0.3], -1)
    (tmp_path / "00001-val_iou_0.9000.ckpt").rename(tmp_path / "00001-val_iou_0.4000.ckpt")
    (tmp_path / "00003-val_iou_0.5000.json").write_text("a card whose checkpoint has gone", "utf-8")
    (tmp_path / "00003-val_iou_0.5000-v1.ckpt").write_text("of a third training", "utf-8")
    before = best_files(tmp_path)
    others = find_checkpoints(tmp_path)
    assert len(others) == 5
    first = follow(tmp_path, [0.2, 0.4, 0.3], 1, others=others)[0].best
    assert first is not None and first[0].name == "00001-val_iou_0.4000-v1.ckpt"
    rows = [a_row(*pair) for pair in enumerate([0.2, 0.4, 0.3])]
    again = follow(tmp_path, [], 1, rows, others)[0].best
    assert again == first, "the earlier training's checkpoint of the same epoch and score is not this one's"
    last = follow(tmp_path, [0.5], 1, rows, others)[0].best
    assert last is not None and last[0].name == "00003-val_iou_0.5000-v2.ckpt"
    assert best_files(tmp_path) == {**before, last[0].name: "3 True"}


def test_only_names_that_a_training_gives_are_those_of_others(tmp_path: Path) -> None:
    for name in (
        "last.ckpt",
        "job.json",
        "of-jane-val_iou_0.5000.ckpt",
        "00001-val_iou_0.5000.ckpt.bak",
        "history.csv",
    ):
        (tmp_path / name).touch()
    assert find_checkpoints(tmp_path) == find_checkpoints(tmp_path / "missing") == frozenset()
    for name in ("00001-val_iou_nan.json", "100000-val_iou_1.0000.ckpt", "00002-val_iou_0.2500-v12.ckpt"):
        (tmp_path / name).touch()
    wanted = {"00001-val_iou_nan", "100000-val_iou_1.0000", "00002-val_iou_0.2500-v12"}
    assert find_checkpoints(tmp_path) == wanted


def test_the_best_one_of_an_interrupted_run_that_was_deleted_is_no_best(tmp_path: Path) -> None:
    follow(tmp_path, [0.9, 0.2], 2)
    (tmp_path / "00000-val_iou_0.9000.ckpt").unlink()
    best = follow(tmp_path, [0.3], 2, [a_row(0, 0.9), a_row(1, 0.2)])[0].best
    assert best is not None and best[1] == 0.3


def test_last_is_written_after_all_else_of_its_epoch(tmp_path: Path) -> None:
    """A training that is resumed from it finds the best checkpoints that its history speaks of."""
    _, pen = follow(tmp_path, [0.2, 0.4], 1)
    first, second = "00000-val_iou_0.2000.ckpt", "00001-val_iou_0.4000.ckpt"
    assert pen.done == [
        *(f"save {first}", "save last.ckpt"),
        *(f"save {second}", f"remove {first}", "save last.ckpt"),
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


class Watched(Writer):
    """Notes the checkpoints in a folder and their epochs after each thing done: a training may be killed there."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self.seen: list[dict[str, int]] = []

    def _submit(self, work: Any) -> Any:
        def look() -> None:
            work()
            self.seen.append({path.name: stored(path) for path in self._folder.glob("*.ckpt")})

        return super()._submit(look)


@dataclass
class Dictation:
    """Stands for a trainer: gives the writer the card alone."""

    segmenter: Any
    writer: Writer
    is_global_zero: bool = True

    def save_checkpoint(self, path: Path, weights_only: bool) -> None:
        card = {KEY: self.segmenter.card.to_json()}
        self.writer.save_checkpoint(card if weights_only else card | STATE, path)


def stored(path: Path) -> int:
    """Give the epoch of a checkpoint."""
    epoch = torch.load(path, weights_only=True)[KEY]["metrics"]["epoch"]
    if not isinstance(epoch, int):
        raise TypeError(epoch)
    return epoch


def content(epoch: int, **more: Any) -> dict[str, Any]:
    """Make a checkpoint of an epoch that holds a card alone; with STATE, one that a training goes on from."""
    return {KEY: model_card().at({"epoch": epoch}).to_json(), **more}


def catch_up(writer: Writer) -> None:
    """Let a writer do what it was asked for, but for the state that waits; so a killed training leaves its folder."""
    done = threading.Event()
    writer.do(done.set)
    assert done.wait(10)


def write(folder: Path, scores: list[float], keep: int, waits: list[bool], first: int = 0) -> Watched:
    """Let the real writer have the epochs from ``first`` on; the state of an epoch that waits is not yet due."""
    folder.mkdir(parents=True, exist_ok=True)
    writer, rows = Watched(folder), [a_row(*pair) for pair in enumerate(scores)]
    journal = Journal(folder / "history.csv", Recorder(), len(scores), rows[:first])
    checkpoints = Checkpoints(folder, journal, keep, writer)
    segmenter: Any = SimpleNamespace(card=model_card())
    trainer: Any = Dictation(segmenter, writer)
    for row, wait in zip(rows[first:], waits[first:], strict=False):
        journal.rows.append(row)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(keeping, "PAUSE", math.inf if wait else 0.0)
            checkpoints.on_train_epoch_end(trainer, segmenter)
    return writer


def test_each_checkpoint_bears_the_metrics_of_its_epoch(tmp_path: Path) -> None:
    write(tmp_path, [0.2, NAN, 0.4], -1, [True] * 3).wait()
    paths = [*sorted(tmp_path.glob("0*.json")), tmp_path / "last.json"]
    for path, score in zip(paths, (0.2, None, 0.4, 0.4), strict=True):
        card = json.loads(path.read_text("utf-8"))
        assert card["metrics"]["val_iou"] == score and "seconds" not in card["metrics"]
        assert card == torch.load(path.with_suffix(".ckpt"), weights_only=True)[KEY]


@given(
    scores=some_scores,
    keep=some_keep,
    waits=st.lists(st.booleans(), min_size=8, max_size=8),
    killed=st.integers(1, 8),
)
def test_killed_at_any_time_a_training_finds_all_it_goes_on_with(
    scores: list[float], keep: int, waits: list[bool], killed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("killed")
    writer = write(folder, scores[:killed], keep, waits)
    catch_up(writer)
    for files in writer.seen:
        if "last.ckpt" in files:
            epochs = set(best_of(scores[: files["last.ckpt"] + 1], keep))
            found = {epoch for name, epoch in files.items() if name != "last.ckpt" and name.startswith(f"{epoch:05d}")}
            assert epochs <= found
    write(folder, scores, keep, waits, first=stored(folder / "last.ckpt") + 1).wait()
    assert stored(folder / "last.ckpt") == len(scores) - 1
    assert kept(folder) == set(best_of(scores, keep))
    assert {path.stem for path in folder.glob("*.json")} == {path.stem for path in folder.glob("*.ckpt")}


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give the epochs of the states that are written, in this order."""
    epochs, save = [], torch.save

    def note(content: Any, path: Path) -> None:
        save(content, path)
        if content.keys() >= STATE.keys():
            epochs.append(content[KEY]["metrics"]["epoch"])

    monkeypatch.setattr(keeping.torch, "save", note)
    return epochs


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


@pytest.mark.parametrize(("pause", "written"), [(math.inf, [0, 3]), (0.0, [0, 1, 2, 3])])
def test_a_training_writes_its_state_at_first_when_it_is_due_and_at_its_end(
    pause: float, written: list[int], states: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "PAUSE", pause)
    checkpoints, _ = train(tmp_path / "run", epochs=4)
    assert states == written
    assert stored(checkpoints.last) == 3


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
    _, last = load_checkpoint(checkpoints.last)
    assert all(torch.equal(last[name], weights) for name, weights in seen[-1].items())


class Gate:
    """Holds the writer back until it is opened."""

    def __init__(self, writer: Writer) -> None:
        self._open = threading.Event()
        writer.do(lambda: self._open.wait(10) and None)

    def open(self) -> None:
        self._open.set()


@pytest.mark.parametrize("more", [{}, STATE], ids=["best", "state"])
def test_what_is_written_is_a_copy(more: dict[str, Any], tmp_path: Path) -> None:
    writer, weights = Writer(), torch.zeros(4)
    writer.save_checkpoint(content(0, **STATE), tmp_path / "last.ckpt")  # so that the next state has to wait
    nested = content(5, state={"w": weights}, list=[{"m": weights}], **more)
    gate = Gate(writer)
    writer.save_checkpoint(nested, tmp_path / "a.ckpt")
    weights += 1  # the training goes on
    nested[KEY]["metrics"]["epoch"] = 6
    gate.open()
    writer.wait()
    found = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert found["state"]["w"].tolist() == found["list"][0]["m"].tolist() == [0, 0, 0, 0]
    assert stored(tmp_path / "a.ckpt") == 5
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))["metrics"] == {"epoch": 5}


def test_things_are_done_in_the_order_they_were_asked_for(tmp_path: Path) -> None:
    writer = Watched(tmp_path)
    gate = Gate(writer)
    path, last = tmp_path / "a.ckpt", tmp_path / "last.ckpt"
    for epoch in range(5):
        writer.save_checkpoint(content(epoch), path)
    writer.remove_checkpoint(path)
    writer.save_checkpoint(content(5, **STATE), last)
    assert list(tmp_path.iterdir()) == []
    gate.open()
    writer.wait()
    assert writer.seen == [
        {},
        *({"a.ckpt": epoch} for epoch in range(5)),
        {"last.ckpt": 5},
    ]
    assert names_in(tmp_path) == {"last.ckpt", "last.json"}
    writer.save_checkpoint(content(7), path)
    writer.save_checkpoint(content(7, **STATE), last)
    writer.wait()
    assert stored(path) == stored(last) == 7
    assert names_in(tmp_path) == {"a.ckpt", "a.json", "last.ckpt", "last.json"}


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_state_waits_for_its_turn_and_the_newest_is_written(
    states: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times, last = [0.0, 0.1, 29.9, 30.0, 31.0, 59.9, 60.1, 61.0, 62.0], tmp_path / "last.ckpt"
    writer = Writer()
    for epoch, seconds in enumerate(times):
        monkeypatch.setattr(keeping, "time", SimpleNamespace(monotonic=lambda seconds=seconds: 5000.0 + seconds))
        writer.save_checkpoint(content(epoch, **STATE), last)
        writer.save_checkpoint(content(epoch), tmp_path / f"{epoch}.ckpt")
        catch_up(writer)
        assert stored(last) == states[-1]
        assert stored(tmp_path / f"{epoch}.ckpt") == epoch  # the others do not wait
    assert states == [0, 3, 6]
    writer.wait()
    assert states == [0, 3, 6, 8] and stored(last) == 8
    writer.wait()
    assert states == [0, 3, 6, 8]


def test_what_is_outdated_stays_until_the_next_state_is_written(tmp_path: Path) -> None:
    """Until then an interrupted training goes on from a state whose best checkpoint it was."""
    writer, path, last = Writer(), tmp_path / "a.ckpt", tmp_path / "last.ckpt"
    all_of_it = {"a.ckpt", "a.json", "last.ckpt", "last.json"}
    writer.save_checkpoint(content(0), path)
    writer.save_checkpoint(content(0, **STATE), last)
    writer.remove_checkpoint(path)
    catch_up(writer)
    assert names_in(tmp_path) == all_of_it
    writer.save_checkpoint(content(1, **STATE), last)
    catch_up(writer)
    assert names_in(tmp_path) == all_of_it
    writer.wait()
    assert names_in(tmp_path) == {"last.ckpt", "last.json"} and stored(last) == 1


def copies(size: int) -> int:
    """Count the tensors of a size in memory."""
    return sum(type(found) is torch.Tensor and found.shape == (size,) for found in gc.get_objects())


def test_one_state_at_most_waits_in_memory(tmp_path: Path) -> None:
    writer, size, held = Writer(), 12_345, []
    weights = torch.zeros(size)
    for epoch in range(5):
        writer.save_checkpoint(content(epoch, weights=weights, **STATE), tmp_path / "last.ckpt")
        catch_up(writer)
        held.append(copies(size) - 1)
    assert held == [0, 1, 1, 1, 1]
    writer.wait()
    catch_up(writer)  # the thread has let go of what it wrote
    assert copies(size) == 1


def test_files_under_their_final_name_are_always_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    writer, places = Writer(), []
    writer.save_checkpoint(content(1, **STATE), path)
    writer.wait()

    def half(content: Any, target: Path) -> None:
        places.append(Path(target))
        Path(target).write_bytes(b"half")
        assert stored(path) == 1
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeping.torch, "save", half)
    writer.save_checkpoint(content(2, **STATE), path)
    with pytest.raises(ConfigError, match=r"MODEL_FOLDER: .*last\.ckpt cannot be written .*No space.*Is the disk full"):
        writer.wait()
    assert len(places) == 1 and places[0].name.startswith(".")
    assert stored(path) == json.loads(path.with_suffix(".json").read_text("utf-8"))["metrics"]["epoch"] == 1
    assert names_in(tmp_path) == {"last.ckpt", "last.json"}


def test_a_card_whose_copy_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    writer = Writer()
    writer.save_checkpoint(content(1), tmp_path / "a.ckpt")
    with pytest.raises(ConfigError, match=r"MODEL_FOLDER: .*a\.ckpt cannot be written"):
        writer.wait()


def test_a_full_disk_is_named_and_earlier_checkpoints_stay(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.ckpt")}
    writer = Writer()
    with full_disk(100_000):
        writer.save_checkpoint(content(1, big=torch.zeros(200_000), **STATE), tmp_path / "last.ckpt")
        with pytest.raises(ConfigError, match="MODEL_FOLDER"):
            writer.wait()
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.ckpt")} == before
    assert not list(tmp_path.glob(".*"))


def test_an_error_of_the_writer_is_heard_at_the_next_thing_asked_for(tmp_path: Path) -> None:
    writer = Writer()
    writer.save_checkpoint(content(1), tmp_path / "missing" / "a.ckpt")
    with pytest.raises(ConfigError, match="cannot be written"):
        for _ in range(500):
            time.sleep(0.01)
            writer.do(lambda: None)


def test_lightning_may_close_the_writer_before_it_has_done_its_work(tmp_path: Path) -> None:
    writer = Writer()
    gate = Gate(writer)
    for epoch in range(2):
        writer.save_checkpoint(content(epoch, **STATE), tmp_path / "last.ckpt")
    writer.teardown()
    gate.open()
    writer.wait()
    assert stored(tmp_path / "last.ckpt") == 1


def test_checkpoints_are_not_loaded_on_its_way() -> None:
    with pytest.raises(NotImplementedError):
        Writer().load_checkpoint("a.ckpt")
