# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of several processes that train one network together, on the processor and in a child Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from specdeepmap.core.data.dataset import Dataset
from specdeepmap.core.environment import VARIABLE, child_environ
from specdeepmap.core.errors import Canceled, ConfigError, DeviceError
from specdeepmap.core.jobs import TrainResult
from specdeepmap.core.learn.architectures import build_network
from specdeepmap.core.learn.checkpoint import load_checkpoint
from specdeepmap.core.learn.hardware import Hardware
from specdeepmap.core.learn.loader import Chips, Loader, Order
from specdeepmap.core.learn.review import measure
from specdeepmap.core.progress import Progress
from specdeepmap.core.run import run
from tests.chips import Impatient, dataset_of, history, stripes, train, train_job
from tests.helpers import Recorder

pytestmark = pytest.mark.torch

linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")

MARK = "SPECDEEPMAP_TEST_MARK"
TOO_LONG = 90.0


@pytest.fixture
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Give children this Python, and a mark by which they and theirs are known; none may be left."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    for name, value in ((VARIABLE, sys.executable), (MARK, str(tmp_path)), ("OMP_NUM_THREADS", "1")):
        monkeypatch.setenv(name, value)
    yield f"{MARK}={tmp_path}"
    deadline = time.monotonic() + 2
    while marked(f"{MARK}={tmp_path}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not marked(f"{MARK}={tmp_path}")


def marked(mark: str) -> list[int]:
    """Give the other processes that have this in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # it has just ended, or is another user's
            continue
    return [number for number in found if number != os.getpid()]


class Watchdog(Recorder):
    """Cancel what hangs."""

    def __init__(self) -> None:
        super().__init__()
        self._deadline = time.monotonic() + TOO_LONG

    def check(self) -> None:
        if time.monotonic() > self._deadline:
            pytest.fail("the processes wait for each other")
        super().check()


def train_together(dataset: Path, folder: Path, progress: Recorder | None = None, **settings: Any) -> TrainResult:
    result = run(train_job(dataset, folder, devices=2, **settings), progress or Watchdog())
    assert isinstance(result, TrainResult)
    return result


@linux
@pytest.mark.usefixtures("children")
def test_two_processes_are_one_training(tmp_path: Path) -> None:
    # Five chips to train and three, an odd number, to validate; batches of two: both processes are short of one.
    folder = dataset_of(tmp_path, *stripes(64, 128), train_percent=62.5, validation_percent=37.5)
    dataset = Dataset.open(folder)
    assert {name: len(found) for name, found in dataset.chips.items()} == {"train": 5, "validation": 3, "test": 0}
    progress = Watchdog()
    settings = {"model_folder": None, "log_folder": None, "epochs": 3, "batch_size": 2, "save_top_k": -1}
    result = train_together(folder, tmp_path, progress, learning_rate=0.01, **settings)
    assert len(list((folder / "runs").iterdir())) == 1
    rows = history(result.history_csv)
    assert [row["epoch"] for row in rows] == [0, 1, 2] and result.epochs_trained == 3
    assert [text.split(":")[0] for text in progress.infos if text.startswith("Epoch")] == [
        f"Epoch {number} of 3" for number in (1, 2, 3)
    ]
    assert any("2 × cpu" in text for text in progress.infos)
    assert result.report.is_file() and len(list(result.model_folder.glob("0*.ckpt"))) == 3
    assert not list(result.model_folder.glob(".*"))
    # What both have scored together is what one scores alone: no chip is missing, none counts twice.
    for row, path in zip(rows, sorted(result.model_folder.glob("0*.ckpt")), strict=True):
        card, state = load_checkpoint(path)
        network = build_network(card.architecture, card.backbone, len(card.bands), len(card.classes))
        network.load_state_dict(state)
        chips = Chips(dataset.chips["validation"], card.classes, card.normalization, cached=False)
        loader = Loader(chips, Order(len(chips), 1, None))
        scores = measure(network, loader, len(card.classes), Hardware(torch.device("cpu"), "float32"), Progress())
        assert scores.mean_iou == pytest.approx(row["val_iou"], abs=1e-6)
        assert len({round(row["val_iou"], 4) for row in rows}) > 1


@linux
@pytest.mark.usefixtures("children")
def test_going_on_together(shared_out: Path, tmp_path: Path) -> None:
    # Epochs after the first are no better: the process that writes keeps its best, and the others have to know it.
    settings = {"architecture": "spectral", "learning_rate": 1e-30, "optimizer": "sgd", "scheduler": "constant"}
    alone = train(shared_out, tmp_path / "alone", epochs=6, save_top_k=1, batch_size=6, **settings)
    best = max(history(alone.history_csv), key=lambda row: row["val_iou"])
    done = int(best["epoch"]) + 1
    with pytest.raises(Canceled):
        train(shared_out, tmp_path / "run", Impatient(done), epochs=20, batch_size=6, **settings)
    result = train_together(shared_out, tmp_path / "run", resume=True, epochs=done + 6, batch_size=6, **settings)
    rows = history(result.history_csv)
    assert [row["epoch"] for row in rows] == list(range(done + 6))
    assert result.best_val_iou == pytest.approx(max(row["val_iou"] for row in rows))


@linux
def test_cancel_together(shared_out: Path, tmp_path: Path, children: str) -> None:
    progress = Impatient(2)
    with pytest.raises(Canceled):
        train_together(shared_out, tmp_path, progress, epochs=100_000, num_workers=2)
    canceled = time.monotonic()
    while marked(children) and time.monotonic() < canceled + 4:
        time.sleep(0.05)
    assert not marked(children)
    card = load_checkpoint(tmp_path / "models" / "last.ckpt")[0]
    assert card.metrics["epoch"] >= 1
    assert not list((tmp_path / "models").glob(".*"))


@linux
@pytest.mark.parametrize("which", [slice(0, 2), slice(1, 2)], ids=["both", "second"])
def test_sigterm_ends_both(shared_out: Path, tmp_path: Path, children: str, which: slice) -> None:
    """A cluster sends it to all; Lightning's own answer lets them wait for each other for ever."""
    job = train_job(shared_out, tmp_path, devices=2, epochs=100_000, architecture="spectral")
    job.save(tmp_path / "job.json")
    command = [sys.executable, "-m", "specdeepmap.core", str(tmp_path / "job.json")]
    process = subprocess.Popen(command, env=child_environ(), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process:
        for line in process.stderr:
            if line.startswith("Epoch 2 "):
                break
        both = [process.pid, *(number for number in marked(children) if number != process.pid)]
        assert len(both) == 2
        for number in both[which]:
            os.kill(number, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while marked(children) and time.monotonic() < deadline:
            time.sleep(0.05)
        left = marked(children)
        for number in left:
            os.kill(number, signal.SIGKILL)
        errors = process.stderr.read()
    assert not left
    assert "Traceback" not in errors
    assert (which.start or process.returncode == 130) and process.returncode != 0
    assert load_checkpoint(tmp_path / "models" / "last.ckpt")[0].metrics["epoch"] >= 1


@pytest.mark.parametrize("settings", [{"lr_finder": True}, {"unfreeze_epoch": 3}], ids=["lr_finder", "unfreeze_epoch"])
def test_what_one_device_only_can_do(striped: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ConfigError, match=rf"{name.upper()} works on one device only\. Set DEVICES to 1"):
        train(striped, tmp_path, devices=2, **settings)
    assert not (tmp_path / "models").exists()


def test_more_gpus_than_there_are(striped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specdeepmap.core.tasks.train.choose_device", lambda _: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match=r"DEVICES is 2, but this computer has 1 GPU"):
        train(striped, tmp_path, devices=2, device="auto")


def test_more_processes_than_validation_chips(tmp_path: Path) -> None:
    """One of them would have nothing to validate, and all would end with an error of PyTorch's."""
    image, labels = stripes(96, 96)
    folder = dataset_of(tmp_path, image, labels, train_percent=89.0, validation_percent=11.0)
    assert len(Dataset.open(folder).chips["validation"]) == 1
    with pytest.raises(ConfigError, match=r"DEVICES: 2 processes .* only 1 validation chips.*Set DEVICES to 1"):
        train(folder, tmp_path, devices=2)
    assert not (tmp_path / "models").exists()
