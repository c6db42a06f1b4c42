# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of resumed trainings: they end where they would have ended without the interruption, bit for bit."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from specdeepmap.core.environment import VARIABLE
from specdeepmap.core.errors import Canceled, CheckpointError, ChildError, ConfigError, DatasetError
from specdeepmap.core.jobs import TrainResult
from specdeepmap.core.learn.checkpoint import SCHEDULE_KEY, WARNINGS_KEY, load_checkpoint
from specdeepmap.core.learn.options import SCHEDULERS
from specdeepmap.core.run import run
from tests.chips import SMALL, Impatient, curve, dataset_of, history, stripes, train, train_job
from tests.helpers import Recorder, snapshot

pytestmark = pytest.mark.torch

linux = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")

EPOCHS = 5


def ending(result: TrainResult) -> dict[str, Any]:
    """Give what two equal trainings have in common when they end."""
    content = torch.load(result.last_checkpoint, weights_only=True)
    parts = {name: content[name] for name in ("state_dict", "optimizer_states", SCHEDULE_KEY)}
    best = load_checkpoint(result.best_checkpoint)
    parts["best"] = (result.best_checkpoint.name, best[0].metrics["epoch"], best[1])
    parts["kept"] = sorted(path.name for path in result.model_folder.glob("*.ckpt"))
    parts["curve"] = curve(result.history_csv)
    return parts


def equal(first: Any, second: Any) -> bool:
    """Compare nested values, tensors bit for bit."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[name], second[name]) for name in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)


def interrupt(dataset: Path, folder: Path, after: int = 2, share: float = 0.0, **settings: Any) -> None:
    settings = {"epochs": EPOCHS, **settings}
    with pytest.raises(Canceled):
        train(dataset, folder, Impatient(after, share, settings["epochs"]), **settings)
    assert len(curve(folder / "models" / "history.csv")) == after


def assert_resume_is_exact(dataset: Path, folder: Path, after: int = 2, share: float = 0.0, **settings: Any) -> None:
    settings = {"epochs": EPOCHS, "batch_size": 2, "learning_rate": 0.003, **settings}
    straight = ending(train(dataset, folder / "straight", **settings))
    interrupt(dataset, folder / "interrupted", after, share, **settings)
    progress = Recorder()
    resumed = ending(train(dataset, folder / "interrupted", progress, resume=True, **settings))
    for name, value in straight.items():
        assert equal(value, resumed[name]), name
    assert any(f"going on after epoch {after}" in text for text in progress.infos)
    lines = [text.split(":")[0] for text in progress.infos if text.startswith("Epoch ")]
    assert lines == [f"Epoch {number} of {EPOCHS}" for number in range(after + 1, EPOCHS + 1)]


@pytest.mark.parametrize("scheduler", list(SCHEDULERS))
def test_each_schedule(noisy: Path, tmp_path: Path, scheduler: str) -> None:
    assert_resume_is_exact(noisy, tmp_path, architecture=SMALL, scheduler=scheduler, save_top_k=2)


@pytest.mark.parametrize("after", [1, 3], ids=["before it is unfrozen", "after it was unfrozen"])
def test_staged_unfreezing(model: Path, shared_out: Path, tmp_path: Path, after: int) -> None:
    assert_resume_is_exact(shared_out, tmp_path, after, weights_file=model, unfreeze_epoch=2)


def test_adapted_first_layer(checkpoint: Path, shared_out: Path, tmp_path: Path) -> None:
    assert_resume_is_exact(shared_out, tmp_path, weights_file=checkpoint)


def test_all_that_is_drawn_by_chance(noisy: Path, tmp_path: Path) -> None:
    strengths = {"rotation": 30, "scale": 20, "noise": 0.1, "gain": 10, "band_drop": 30, "cutout": 20}
    settings = {f"augment_{name}": strength for name, strength in strengths.items()}
    # spectral drops channels by chance, too
    assert_resume_is_exact(noisy, tmp_path, architecture="spectral", num_workers=2, **settings)


@pytest.mark.parametrize("workers", [0, 3])
def test_in_the_middle_of_an_epoch(noisy: Path, tmp_path: Path, workers: int) -> None:
    assert_resume_is_exact(noisy, tmp_path, 2, 0.5, architecture=SMALL, scheduler="one_cycle", num_workers=workers)


def test_fine_tuning(model: Path, shared_out: Path, tmp_path: Path) -> None:
    assert_resume_is_exact(shared_out, tmp_path, init_checkpoint=model, optimizer="sgd", gradient_clip=1.0)


def test_without_validation_chips(striped: Path, tmp_path: Path) -> None:
    assert_resume_is_exact(striped, tmp_path, architecture=SMALL, scheduler="plateau", augmentation=False)


def test_found_learning_rate_stays(shared_out: Path, tmp_path: Path) -> None:
    settings = {"architecture": SMALL, "lr_finder": True, "scheduler": "constant", "epochs": EPOCHS}
    interrupt(shared_out, tmp_path, **settings)
    progress = Recorder()
    result = train(shared_out, tmp_path, progress, resume=True, **settings)
    (rate,) = {row["lr"] for row in history(result.history_csv)}
    assert rate != 0.001 and not any(text.startswith("LR_FINDER") for text in progress.infos)
    assert load_checkpoint(result.last_checkpoint)[0].settings["learning_rate"] == rate


def test_patience_counts_epochs_before_the_interruption(noisy: Path, tmp_path: Path) -> None:
    # So small a step changes no parameter: the first epoch stays the best.
    settings = {"epochs": 60, "patience": 8, "learning_rate": 1e-30, "optimizer": "sgd", "architecture": "spectral"}
    interrupt(noisy, tmp_path, 6, **settings)
    assert train(noisy, tmp_path, resume=True, **settings).epochs_trained == 9


# Refused ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def half_done(shared_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("half_done")
    interrupt(shared_out, folder, architecture=SMALL)
    return folder


@pytest.fixture
def half(half_done: Path, tmp_path: Path) -> Path:
    """Give a copy of an interrupted run."""
    return Path(shutil.copytree(half_done, tmp_path / "half"))


def resume(dataset: Path, folder: Path, **settings: Any) -> TrainResult:
    settings = {"architecture": SMALL, "epochs": EPOCHS, **settings}
    return train(dataset, folder, resume=True, **settings)


def test_no_folder(shared_out: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="RESUME is on, but MODEL_FOLDER is not set"):
        train_job(shared_out, tmp_path, resume=True, model_folder=None)


def test_nothing_to_resume(shared_out: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"MODEL_FOLDER .*holds no last\.ckpt"):
        resume(shared_out, tmp_path)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("name", "value", "had"),
    [
        ("loss", "dice", "cross_entropy"),
        ("batch_size", 2, "4"),
        ("seed", 7, "42"),
        ("scheduler", "constant", "cosine"),
        ("augment_noise", 0.1, "0.0"),
        ("architecture", "unet", SMALL),
        ("normalize", False, "True"),
    ],
)
def test_another_training(shared_out: Path, half: Path, name: str, value: object, had: str) -> None:
    before = (half / "models" / "history.csv").read_bytes()
    with pytest.raises(ConfigError, match=rf"RESUME: {name.upper()} is {value}, but .* has {had}\. Set it to that"):
        resume(shared_out, half, **{name: value})
    assert (half / "models" / "history.csv").read_bytes() == before


@pytest.mark.parametrize("shares", [(33.0, 67.0), (67.0, 33.0)], ids=["another split", "other classes"])
def test_another_dataset(half: Path, tmp_path: Path, shares: tuple[float, float]) -> None:
    image, labels = stripes(96, 96)
    if shares[0] > 50:
        labels[labels == 4] = 3
    folder = dataset_of(tmp_path, image, labels, train_percent=shares[0], validation_percent=shares[1])
    with pytest.raises(ConfigError, match="trained on other chips, labels or classes than DATASET_FOLDER"):
        resume(folder, half)


def test_all_epochs_done(shared_out: Path, half: Path) -> None:
    with pytest.raises(ConfigError, match=r"has done its 2 epochs\. Raise EPOCHS above 2"):
        resume(shared_out, half, epochs=2)


def test_a_run_that_stopped_early_is_not_trained_by_an_epoch_more_each_time(shared_out: Path, tmp_path: Path) -> None:
    settings = {"architecture": SMALL, "epochs": 9, "learning_rate": 1e-12, "scheduler": "constant"}
    result = train(shared_out, tmp_path / "run", patience=2, **settings)
    before = snapshot(tmp_path / "run")
    assert result.epochs_trained == 3
    with pytest.raises(ConfigError, match=r"stopped early after epoch 3.*did not rise for 2 epochs\. Raise PATIENCE"):
        train(shared_out, tmp_path / "run", patience=2, resume=True, **settings)
    assert snapshot(tmp_path / "run") == before
    assert train(shared_out, tmp_path / "run", patience=4, resume=True, **settings).epochs_trained > 3


def test_a_run_that_has_ended_goes_on_at_the_rate_of_the_longer_one(shared_out: Path, tmp_path: Path) -> None:
    """At the end of the cosine the rate is 0; the first step of the longer run was made with it."""
    settings = {"architecture": SMALL, "learning_rate": 0.01}
    train(shared_out, tmp_path / "short", epochs=2, **settings)
    result = train(shared_out, tmp_path / "short", epochs=5, resume=True, **settings)
    longer = train(shared_out, tmp_path / "longer", epochs=5, **settings)
    rates, wanted = ([row["lr"] for row in history(each.history_csv)] for each in (result, longer))
    assert rates[2:] == wanted[2:] and rates[2] > 0


def test_more_epochs_than_at_first(shared_out: Path, half: Path) -> None:
    progress = Recorder()
    settings = {"architecture": SMALL, "epochs": EPOCHS + 1, "resume": True}
    result = train(shared_out, half, progress, **settings)
    assert [row["epoch"] for row in history(result.history_csv)] == list(range(EPOCHS + 1))
    assert any("EPOCHS is 6 now and was 5; the numbers will differ" in text for text in progress.infos)


def test_another_learning_rate_is_not_taken_in_silence(shared_out: Path, half: Path) -> None:
    progress = Recorder()
    settings = {"architecture": SMALL, "epochs": EPOCHS, "resume": True, "learning_rate": 0.5}
    result = train(shared_out, half, progress, **settings)
    assert max(row["lr"] for row in history(result.history_csv)) <= 0.001
    assert any("LEARNING_RATE stays 0.001" in text for text in progress.infos)


def test_weights_alone_are_nothing_to_go_on_from(shared_out: Path, half: Path) -> None:
    models = half / "models"
    (best,) = models.glob("0*.ckpt")
    shutil.copy(best, models / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"last\.ckpt holds no state to go on from"):
        resume(shared_out, half)


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), ("", "has 0 rows for 2 epochs")])
def test_lost_history(shared_out: Path, half: Path, content: str | None, said: str) -> None:
    path = half / "models" / "history.csv"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(DatasetError, match=said):
        resume(shared_out, half)


# What lies in the folder already ----------------------------------------------------------------------------------


def test_better_checkpoint_of_another_run(shared_out: Path, model: Path, half: Path, tmp_path: Path) -> None:
    stale = "00000-val_iou_0.9999.ckpt"
    fresh = tmp_path / "fresh" / "models"
    fresh.mkdir(parents=True)
    for folder in (fresh, half / "models"):
        shutil.copy(model, folder / stale)
    for result in (train(shared_out, fresh.parent, architecture=SMALL), resume(shared_out, half)):
        best = max(history(result.history_csv), key=lambda row: row["val_iou"])
        assert result.best_checkpoint.name == f"{int(best['epoch']):05d}-val_iou_{best['val_iou']:.4f}.ckpt" != stale
        assert load_checkpoint(result.best_checkpoint)[0].architecture == SMALL
        assert (result.model_folder / stale).is_file(), "what this run did not write, it does not remove"


def test_the_same_training_again_in_its_folder(shared_out: Path, tmp_path: Path) -> None:
    settings = {"architecture": SMALL, "epochs": EPOCHS}
    first = train(shared_out, tmp_path, **settings)
    earlier = {name: mark for name, mark in snapshot(first.model_folder).items() if name[0].isdigit()}
    interrupt(shared_out, tmp_path, **settings)
    again = train(shared_out, tmp_path, resume=True, **settings)
    assert again.epochs_trained == EPOCHS
    assert again.best_checkpoint.name == f"{first.best_checkpoint.stem}-v1.ckpt"
    assert equal(load_checkpoint(again.best_checkpoint)[1], load_checkpoint(first.best_checkpoint)[1])
    assert earlier.items() < snapshot(first.model_folder).items(), "what another training wrote stays"
    assert len([*first.model_folder.glob("0*.ckpt")]) == 2


def test_rows_after_the_last_checkpoint_are_trained_again(shared_out: Path, half: Path, tmp_path: Path) -> None:
    # The row of an epoch is written before its checkpoint.
    path = half / "models" / "history.csv"
    path.write_text(path.read_text() + "2,9.0,0.1,9.0,0.99,0.001,1.0\n")
    straight = train(shared_out, tmp_path / "straight", architecture=SMALL, epochs=EPOCHS)
    assert curve(resume(shared_out, half).history_csv) == curve(straight.history_csv)


# Killed -----------------------------------------------------------------------------------------------------------


class Killer(Recorder):
    """End all processes with a path in this folder on their command line, after the second epoch."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def info(self, text: str) -> None:
        super().info(text)
        if text.startswith("Epoch 2 "):
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit() and os.fsencode(self._folder) in command_line(entry):
                    os.kill(int(entry.name), signal.SIGKILL)


def command_line(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""


@linux
def test_killed(shared_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setenv(VARIABLE, sys.executable)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as in this process; the number of threads decides the last digits
    settings = {"architecture": SMALL, "scheduler": "constant", "batch_size": 2}
    with pytest.raises(ChildError, match="SIGKILL"):
        run(train_job(shared_out, tmp_path / "killed", epochs=10_000, **settings), Killer(scratch))
    models = tmp_path / "killed" / "models"
    rows = history(models / "history.csv")
    done = int(load_checkpoint(models / "last.ckpt")[0].metrics["epoch"]) + 1
    best = max(rows[:done], key=lambda row: row["val_iou"])
    assert load_checkpoint(models / f"{int(best['epoch']):05d}-val_iou_{best['val_iou']:.4f}.ckpt")
    settings["epochs"] = len(rows) + 1  # epochs after the last state that was written are trained again
    resumed = ending(train(shared_out, tmp_path / "killed", resume=True, **settings))
    straight = ending(train(shared_out, tmp_path / "straight", **settings))
    for name, value in straight.items():
        assert equal(value, resumed[name]), name


def test_one_cycle_keeps_its_number_of_epochs(shared_out: Path, tmp_path: Path) -> None:
    train(shared_out, tmp_path, scheduler="one_cycle", epochs=1, architecture=SMALL)
    with pytest.raises(ConfigError, match=r"RESUME: EPOCHS is 4, but .* has 1\. Set it to that"):
        resume(shared_out, tmp_path, scheduler="one_cycle", epochs=4)


def test_the_report_tells_of_the_whole_training(shared_out: Path, half: Path) -> None:
    models = half / "models"
    last = models / "last.ckpt"
    content = torch.load(last, weights_only=True)
    assert content[WARNINGS_KEY] == {"texts": content[WARNINGS_KEY]["texts"], "kinds": []}
    content[WARNINGS_KEY] = {"texts": ["The network had collapsed."], "kinds": ["collapse"]}
    torch.save(content, last)
    rows = (models / "history.csv").read_text(encoding="utf-8").splitlines()
    rows[1:] = [",".join([*row.split(",")[:-1], "3600"]) for row in rows[1:]]
    (models / "history.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (best,) = models.glob("0*.ckpt")
    best.rename(half / "moved.ckpt")
    stray = models / "00004-val_iou_0.1234.ckpt"
    shutil.copy(half / "moved.ckpt", stray)
    progress = Recorder()
    result = train(shared_out, half, progress, architecture=SMALL, epochs=EPOCHS, resume=True)
    page = result.report.read_text(encoding="utf-8")
    assert "The network had collapsed." in page
    assert re.search(r"for 5 epochs in 2(\.\d+)? h", page), re.findall(r"epochs in [^.]*", page)
    assert any("trained again: " in text and stray.stem in text for text in progress.infos) and stray.is_file()
    number = int(result.best_checkpoint.name.split("-")[0]) + 1
    assert re.search(rf"best epoch is number\D*{number}\b", page), re.findall("best epoch[^.]*", page)
