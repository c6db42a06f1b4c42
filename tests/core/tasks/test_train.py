# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the Deep Learning Trainer."""

from __future__ import annotations

import getpass
import html
import json
import math
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from specdeepmap.core.data.dataset import SUMMARY_NAME, Dataset
from specdeepmap.core.errors import Canceled, ConfigError, DeviceError
from specdeepmap.core.jobs import TrainResult
from specdeepmap.core.learn.callbacks import COLUMNS
from specdeepmap.core.learn.checkpoint import load_checkpoint
from specdeepmap.core.learn.losses import LOSSES
from specdeepmap.core.learn.options import OPTIMIZERS
from specdeepmap.core.learn.segmenter import Batch, Segmenter
from tests.chips import SMALL, TINY, Impatient, curve, dataset_of, history, same, stripes, train
from tests.helpers import Recorder, snapshot

pytestmark = pytest.mark.torch


def test_overfits_four_chips(striped: Path, tmp_path: Path) -> None:
    progress = Recorder()
    result = train(striped, tmp_path, progress, epochs=40, learning_rate=0.01, augmentation=False)
    rows = history(result.history_csv)
    assert len(rows) == 40 == result.epochs_trained and tuple(rows[0]) == COLUMNS
    assert rows[-1]["train_iou"] > 0.95 and rows[0]["train_iou"] < 0.8
    assert rows[-1]["train_loss"] < 0.3 * rows[0]["train_loss"]
    assert progress.shares == sorted(progress.shares) and progress.shares[-1] == 1


def test_spectral_network_starts_as_the_linear_classifier_and_goes_on(
    noisy: Path, striped: Path, tmp_path: Path
) -> None:
    progress = Recorder()
    settings = {"architecture": "spectral", "augmentation": False}
    rows = history(train(noisy, tmp_path, progress, epochs=30, learning_rate=0.01, **settings).history_csv)
    assert 0.35 < rows[0]["train_iou"] < 0.6 < 0.7 < rows[-1]["train_iou"]
    assert rows[-1]["val_iou"] > rows[0]["val_iou"] + 0.1
    assert any("starts as the linear discriminant" in text for text in progress.infos)
    row = history(train(striped, tmp_path / "easy", epochs=1, **settings).history_csv)[0]
    assert row["train_iou"] > 0.95


def test_one_line_per_epoch(shared_out: Path, striped: Path, tmp_path: Path) -> None:
    progress = Recorder()
    rows = history(train(shared_out, tmp_path / "a", progress, epochs=3).history_csv)
    lines = [text for text in progress.infos if text.startswith("Epoch ")]
    assert len(lines) == 3
    for number, (row, line) in enumerate(zip(rows, lines, strict=True), 1):
        assert line.startswith(
            f"Epoch {number} of 3: loss {row['train_loss']:.4f}, IoU {row['train_iou']:.4f}, validation loss "
            f"{row['val_loss']:.4f}, IoU {row['val_iou']:.4f}, learning rate {row['lr']:.3g}, "
        )
        assert re.search(r"\d s left at most$", line)
    progress = Recorder()
    train(striped, tmp_path / "b", progress, epochs=1)
    (line,) = [text for text in progress.infos if text.startswith("Epoch ")]
    assert "validation" not in line and "nan" not in line


def test_same_seed_same_curve(dataset_folder: Path, tmp_path: Path) -> None:
    runs = {}
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        result = train(dataset_folder, tmp_path / name, seed=seed, epochs=3)
        state = load_checkpoint(result.last_checkpoint)[1]
        runs[name] = curve(result.history_csv), state
    assert runs["first"][0] == runs["again"][0] != runs["other"][0]
    for name, tensor in runs["first"][1].items():
        assert torch.equal(tensor, runs["again"][1][name])


def test_outputs(dataset_folder: Path, tmp_path: Path) -> None:
    result = train(dataset_folder, tmp_path / "Ümlaut and space", epochs=3, save_top_k=-1)
    rows = history(result.history_csv)
    assert [row["epoch"] for row in rows] == [0, 1, 2] and result.epochs_trained == 3
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert all(row["seconds"] > 0 and 0 < row["lr"] <= 0.001 for row in rows)
    best = max(rows, key=lambda row: row["val_iou"])
    assert result.best_val_iou == pytest.approx(best["val_iou"], rel=1e-6)
    assert result.best_checkpoint.name == f"{int(best['epoch']):05d}-val_iou_{best['val_iou']:.4f}.ckpt"
    assert len(list(result.model_folder.glob("0*.ckpt"))) == 3
    assert result.last_checkpoint == result.model_folder / "last.ckpt" and result.last_checkpoint.is_file()
    assert any("tfevents" in path.name for path in result.log_folder.rglob("*"))
    assert not list(result.model_folder.glob(".*"))
    assert result.report == result.model_folder / "training_report.html" and result.report.is_file()


def test_event_files_hold_the_curves(dataset_folder: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = train(dataset_folder, tmp_path)
    events = EventAccumulator(str(result.log_folder))
    events.Reload()
    rows = history(result.history_csv)
    for tag, column in (("loss/train", "train_loss"), ("mean IoU/validation", "val_iou"), ("learning rate", "lr")):
        found = [(event.step, event.value) for event in events.Scalars(tag)]
        assert found == [(row["epoch"], pytest.approx(row[column], rel=1e-5)) for row in rows]


def test_default_folders_lie_in_the_dataset_and_inputs_stay(striped: Path, tmp_path: Path) -> None:
    before = {name: value for name, value in snapshot(striped).items() if not name.startswith("runs")}
    result = train(striped, tmp_path, model_folder=None, log_folder=None, epochs=1)
    assert result.model_folder.parent == result.log_folder.parent
    assert result.model_folder.parent.parent == striped / "runs"
    after = {name: value for name, value in snapshot(striped).items() if not name.startswith("runs")}
    assert before == after


def test_early_stopping_counts_epochs_without_a_better_iou(dataset_folder: Path, tmp_path: Path) -> None:
    # So small a step changes no prediction: the first epoch stays the best.
    progress = Recorder()
    result = train(
        dataset_folder,
        tmp_path,
        progress,
        epochs=30,
        patience=3,
        learning_rate=1e-12,
        optimizer="sgd",
        augmentation=False,
        freeze_backbone=False,
        batch_size=8,
    )
    rows = history(result.history_csv)
    best = max(range(len(rows)), key=lambda epoch: rows[epoch]["val_iou"])
    assert len(rows) < 30 and len(rows) == best + 1 + 3
    assert any(text.startswith(f"Stopped early after epoch {len(rows)}") for text in progress.infos)


def test_early_stopping_looks_at_iou_and_not_at_loss(dataset_folder: Path, tmp_path: Path) -> None:
    result = train(dataset_folder, tmp_path, epochs=12, patience=2, learning_rate=0.01)
    rows = history(result.history_csv)
    best, waited = -1.0, 0
    for number, row in enumerate(rows):
        waited = 0 if row["val_iou"] > best else waited + 1
        best = max(best, row["val_iou"])
        assert waited < 2 or number == len(rows) - 1
    assert waited == 2 or len(rows) == 12


def test_without_early_stopping_all_epochs_are_trained(dataset_folder: Path, tmp_path: Path) -> None:
    result = train(dataset_folder, tmp_path, epochs=5, patience=1, early_stopping=False, learning_rate=1e-12)
    assert result.epochs_trained == 5


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_any_batch_size(striped: Path, tmp_path: Path, batch_size: int) -> None:
    rows = history(train(striped, tmp_path, batch_size=batch_size, architecture="deeplabv3plus").history_csv)
    assert len(rows) == 2 and all(math.isfinite(row["train_loss"]) for row in rows)


def test_class_weights_change_the_loss_and_come_from_the_table(tmp_path: Path) -> None:
    image, labels = stripes()
    labels[:, 8:][labels[:, 8:] == 4] = 1  # rare
    folder = dataset_of(tmp_path, image, labels)
    progress = Recorder()
    weights = Dataset.open(folder).weights
    assert max(weights) > 2 * min(weights)

    def first_loss(name: str, **settings: Any) -> float:
        settings = {"epochs": 1, "class_weight_power": 1.0, **settings}
        return history(train(folder, tmp_path / name, progress, **settings).history_csv)[0]["train_loss"]

    weighted, plain = first_loss("a"), first_loss("b", class_weights=False)
    assert weighted != plain
    assert first_loss("half", class_weight_power=0.5) not in (weighted, plain)
    assert first_loss("none", class_weight_power=0.0) == plain
    assert any(f"{max(weights):.2f}" in text for text in progress.infos if text.startswith("Class weights"))
    table = (folder / SUMMARY_NAME).read_text("utf-8")
    for weight in weights:
        assert f"{weight:.6f}" in table
        table = table.replace(f"{weight:.6f}", "1.000000")
    (folder / SUMMARY_NAME).write_text(table, "utf-8")
    assert first_loss("c") == plain


@pytest.mark.parametrize("named", [False, True])
def test_a_training_that_ends_before_it_began_leaves_no_folder(striped: Path, tmp_path: Path, named: bool) -> None:
    class AtOnce(Recorder):
        def warning(self, text: str) -> None:
            self.cancel()

        def info(self, text: str) -> None:
            self.cancel()

    folder = shutil.copytree(striped, tmp_path / "dataset", ignore=shutil.ignore_patterns("runs"))
    (tmp_path / "mine").mkdir()
    before = set(tmp_path.rglob("*"))
    folders = (tmp_path / "mine", tmp_path / "new") if named else (None, None)
    with pytest.raises(Canceled):
        train(folder, tmp_path, AtOnce(), model_folder=folders[0], log_folder=folders[1])
    assert set(tmp_path.rglob("*")) == before, "neither runs nor new, and mine is not ours"


def test_cancel_keeps_the_checkpoints_of_finished_epochs(striped: Path, tmp_path: Path) -> None:
    with pytest.raises(Canceled):
        train(striped, tmp_path, Impatient(3), epochs=500)
    assert len(history(tmp_path / "models" / "history.csv")) == 3
    for name, epoch in (("last.ckpt", 2), ("00002-val_iou_nan.ckpt", 2)):
        assert load_checkpoint(tmp_path / "models" / name)[0].metrics["epoch"] == epoch
    assert not list((tmp_path / "models").glob(".*"))


def test_folder_that_cannot_be_written(striped: Path, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("in the way")
    with pytest.raises(ConfigError, match="MODEL_FOLDER"):
        train(striped, tmp_path)


def test_wrong_names_are_found_before_anything_is_written(striped: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="resnet18"):
        train(striped, tmp_path, backbone="resnet81")
    assert not (tmp_path / "models").exists() and not (tmp_path / "logs").exists()


def test_how_chips_are_loaded_changes_nothing(noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"architecture": SMALL, "batch_size": 2, "augment_gain": 20}
    known = train(noisy, tmp_path / "known", num_workers=0, **settings)
    for workers in (1, 3, -1):
        assert same(known, train(noisy, tmp_path / str(workers), num_workers=workers, **settings))
    monkeypatch.setattr("specdeepmap.core.tasks.train.fits_in_memory", lambda *_: False)
    for workers in (0, 3):
        assert same(known, train(noisy, tmp_path / f"not kept {workers}", num_workers=workers, **settings))


@pytest.fixture(scope="module")
def turned(striped: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A training with flips and turns only."""
    return train(striped, tmp_path_factory.mktemp("turned"), epochs=1, architecture=SMALL)


@pytest.mark.parametrize(
    ("name", "strength"),
    [("rotation", 30), ("scale", 40), ("noise", 0.2), ("gain", 20), ("band_drop", 40), ("cutout", 40)],
)
def test_each_augmentation(striped: Path, tmp_path: Path, turned: TrainResult, name: str, strength: float) -> None:
    settings = {f"augment_{name}": strength, "epochs": 1, "architecture": SMALL}
    first = train(striped, tmp_path / "first", **settings)
    assert not same(first, turned)
    assert same(first, train(striped, tmp_path / "again", **settings))
    plain = train(striped, tmp_path / "plain", epochs=1, architecture=SMALL, augmentation=False)
    assert same(plain, train(striped, tmp_path / "off", augmentation=False, **settings))
    assert not same(plain, turned)


@pytest.mark.parametrize("loss", list(LOSSES))
def test_each_loss(tmp_path: Path, striped: Path, loss: str) -> None:
    progress = Recorder()
    settings = {"epochs": 25, "learning_rate": 0.02, "architecture": SMALL, "augmentation": False}
    result = train(striped, tmp_path, progress, loss=loss, **settings)
    rows = history(result.history_csv)
    assert rows[-1]["train_iou"] > 0.9 and rows[-1]["train_loss"] < 0.6 * rows[0]["train_loss"]
    assert load_checkpoint(result.best_checkpoint)[0].settings["loss"] == loss
    assert any("Class weights are not used" in text for text in progress.infos) == (loss == "lovasz")


def test_a_loss_without_class_weights_leaves_them_to_the_pixelwise_member(tmp_path: Path, striped: Path) -> None:
    progress = Recorder()
    train(striped, tmp_path, progress, loss="lovasz", epochs=1, architecture="spectral")
    said = [text for text in progress.infos if text.startswith("Class weights")]
    assert said == ["Class weights are used for the pixelwise member only: LOSS lovasz counts every class alike."]


def test_losses_are_different_ones(striped: Path, tmp_path: Path) -> None:
    runs = [train(striped, tmp_path / loss, loss=loss, epochs=1, architecture=SMALL) for loss in LOSSES]
    assert len({history(run.history_csv)[0]["train_loss"] for run in runs}) == len(LOSSES)


def test_gradients_are_clipped(striped: Path, tmp_path: Path) -> None:
    still = {"optimizer": "sgd", "weight_decay": 0.0, "architecture": SMALL, "scheduler": "constant"}

    def moved(name: str, **settings: float) -> float:
        """Give the way that the parameters went."""
        weights = []
        for rate in (1e-30, 0.1):
            run = train(striped, tmp_path / f"{name}{rate}", epochs=2, learning_rate=rate, **still, **settings)
            state = load_checkpoint(run.last_checkpoint)[1]
            names = sorted(key for key in state if key.endswith(("weight", "bias")))
            weights.append(torch.cat([state[key].flatten() for key in names]))
        return float((weights[1] - weights[0]).norm())

    # Two steps with momentum 0.9: at most 1 + 1.9 times rate times norm.
    assert 0 < moved("clipped", gradient_clip=0.01) < 3 * 0.1 * 0.01 < moved("free")


# Watchfulness -----------------------------------------------------------------------------------------------------


class Listener(Recorder):
    """Remember all texts in one list, warnings marked."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def info(self, text: str) -> None:
        super().info(text)
        self.texts.append(text)

    def warning(self, text: str) -> None:
        super().warning(text)
        self.texts.append(f"Warning: {text}")


@pytest.mark.parametrize("architecture", ["spectral", SMALL])
def test_a_failing_training_is_told_of_while_it_runs(noisy: Path, tmp_path: Path, architecture: str) -> None:
    progress = Listener()
    settings = {"architecture": architecture, "optimizer": "sgd", "learning_rate": 10.0, "scheduler": "constant"}
    result = train(noisy, tmp_path, progress, batch_size=2, epochs=40, early_stopping=False, **settings)
    first = next(number for number, text in enumerate(progress.texts) if "LEARNING_RATE 10 is high for sgd" in text)
    assert sum(text.startswith("Epoch ") for text in progress.texts[first:]) > 5
    page = html.unescape(result.report.read_text("utf-8"))
    for warning in progress.warnings:
        assert warning in page


@pytest.mark.parametrize("architecture", ["spectral", SMALL])
def test_a_healthy_training_is_not_warned_of(noisy: Path, tmp_path: Path, architecture: str) -> None:
    progress = Recorder()
    train(noisy, tmp_path, progress, architecture=architecture, epochs=40, batch_size=2, learning_rate=0.01)
    assert not [text for text in progress.warnings if not text.startswith("There are only 6 training chips")]


def test_the_report_names_what_needs_no_network(shared_out: Path, tmp_path: Path) -> None:
    progress = Recorder()
    result = train(shared_out, tmp_path, progress, epochs=1)
    page = html.unescape(result.report.read_text("utf-8"))
    for text in ("Network, best epoch", "Linear classifier of single pixels", "Most frequent class everywhere"):
        assert text in page
    assert f"{result.best_val_iou:.3f}" in page
    (said,) = [text for text in progress.warnings if "1.000 of a linear classifier of single pixels" in text]
    assert said in page


# Memory -----------------------------------------------------------------------------------------------------------

OUT_OF_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
)


@pytest.fixture(params=OUT_OF_MEMORY, ids=["GPU", "processor"])
def small_memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the memory suffice for two chips."""
    step = Segmenter.training_step

    def limited(segmenter: Segmenter, batch: Batch, number: int) -> torch.Tensor:
        if len(batch[0]) > 2:
            raise request.param
        return step(segmenter, batch, number)

    monkeypatch.setattr(Segmenter, "training_step", limited)


@pytest.mark.usefixtures("small_memory")
def test_too_little_memory(shared_out: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"BATCH_SIZE 6\. Set it to 3, or take smaller chips or a smaller BACKBONE"):
        train(shared_out, tmp_path, batch_size=6)


@pytest.mark.usefixtures("small_memory")
def test_halved_batch_size(shared_out: Path, tmp_path: Path) -> None:
    progress = Recorder()
    result = train(shared_out, tmp_path / "halved", progress, batch_size=8, halve_batch_size=True, architecture=SMALL)
    assert [re.findall(r"\d+", text) for text in progress.warnings if "starting again" in text] == [
        ["8", "4"],
        ["4", "2"],
    ]
    card = load_checkpoint(result.best_checkpoint)[0]
    assert card.settings["batch_size"] == 2
    assert same(result, train(shared_out, tmp_path / "small", batch_size=2, architecture=SMALL))


def test_not_even_one_chip(striped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OUT_OF_MEMORY[0]

    monkeypatch.setattr(Segmenter, "training_step", fail)
    with pytest.raises(DeviceError, match=r"BATCH_SIZE 1\. Take smaller chips or a smaller BACKBONE\."):
        train(striped, tmp_path, batch_size=4, halve_batch_size=True)


def test_other_errors_are_not_taken_for_lack_of_memory(
    striped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Segmenter, "training_step", fail)
    with pytest.raises(RuntimeError, match="mat1") as caught:
        train(striped, tmp_path, halve_batch_size=True)
    assert not isinstance(caught.value, DeviceError)


# What is chosen for the user --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sparse", "title"), [(50_000, "Spectral network"), (1000, "U-Net")])
def test_automatic_architecture(
    striped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sparse: int, title: str
) -> None:
    monkeypatch.setattr("specdeepmap.core.learn.architectures.SPARSE_PIXELS", sparse)
    progress = Recorder()
    result = train(striped, tmp_path, progress, architecture="auto", epochs=1)
    card = load_checkpoint(result.best_checkpoint)[0]
    assert card.architecture == ("spectral" if sparse == 50_000 else "unet")
    assert card.backbone == ("" if sparse == 50_000 else TINY)
    reason = card.settings["architecture_reason"]
    assert "4,096" in reason
    (said,) = [text for text in progress.infos if text.startswith("ARCHITECTURE auto: ")]
    assert title in said and reason in said


def test_found_learning_rate_is_used(striped: Path, tmp_path: Path) -> None:
    progress = Recorder()
    settings = {"architecture": SMALL, "scheduler": "constant", "epochs": 3}
    result = train(striped, tmp_path / "found", progress, lr_finder=True, learning_rate=0.123456, **settings)
    (said,) = [text for text in progress.infos if text.startswith("LR_FINDER")]
    match = re.fullmatch(r"LR_FINDER: the learning rate is (\S+), instead of LEARNING_RATE 0\.123456\.", said)
    assert match is not None
    rate = float(match[1])
    assert rate != 0.123456 and {row["lr"] for row in history(result.history_csv)} == {rate}
    assert load_checkpoint(result.best_checkpoint)[0].settings["learning_rate"] == rate
    assert same(result, train(striped, tmp_path / "given", learning_rate=rate, **settings))


# What a checkpoint tells ------------------------------------------------------------------------------------------


def test_no_path_and_no_user_in_what_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebodyelse")
    monkeypatch.setattr(socket, "gethostname", lambda: "bighost")
    assert getpass.getuser() == "somebodyelse"
    folder = dataset_of(tmp_path / "secretplace", *stripes(96, 96), train_percent=67.0, validation_percent=33.0)
    source = train(folder, tmp_path / "source", epochs=1).best_checkpoint
    result = train(folder, tmp_path / "secretout", weights_file=source)
    # job.json is for running the same job here again, so it must name its folders.
    files = [path for path in result.model_folder.iterdir() if path.is_file() and path.name != "job.json"]
    assert {path.suffix for path in files} == {".ckpt", ".json", ".csv", ".html"}
    for path in files:
        content = path.read_bytes().lower()
        for secret in ("somebodyelse", "bighost", "secretplace", "secretout", tmp_path.name, str(Path.home()) + "/"):
            assert secret.lower().encode() not in content, (path.name, secret)


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_bfloat16(striped: Path, tmp_path: Path, optimizer: str, clip: float) -> None:
    settings = {"optimizer": optimizer, "gradient_clip": clip}
    rows = history(train(striped, tmp_path, precision="bfloat16", **settings).history_csv)
    assert all(math.isfinite(row["train_loss"]) for row in rows)


def test_an_earlier_training_is_whole_until_the_first_epoch_has_ended(striped: Path, tmp_path: Path) -> None:
    train(striped, tmp_path, architecture=SMALL, epochs=2)
    kept = {name: (tmp_path / "models" / name).read_bytes() for name in ("last.ckpt", "last.json", "history.csv")}
    told = Recorder()

    class Impatient(Recorder):
        def info(self, text: str) -> None:
            super().info(text)
            if "learning rate" in text:  # what will be trained
                raise Canceled

    with pytest.raises(Canceled):
        train(striped, tmp_path, Impatient(), architecture=SMALL, epochs=2)
    assert {name: (tmp_path / "models" / name).read_bytes() for name in kept} == kept
    resumed = train(striped, tmp_path, architecture=SMALL, epochs=3, resume=True)
    assert resumed.epochs_trained == 3
    again = train(striped, tmp_path, told, architecture=SMALL, epochs=1)
    assert any("holds an earlier training" in text and "set RESUME" in text for text in told.warnings)
    assert resumed.best_checkpoint.is_file() and len(history(again.history_csv)) == 1


def test_halving_leaves_no_folder_behind(striped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, tried = Segmenter.training_step, []

    def fail_once(*arguments: Any) -> Any:
        tried.append(1)
        if len(tried) == 1:
            raise OUT_OF_MEMORY[0]
        return real(*arguments)

    dataset = Path(shutil.copytree(striped, tmp_path / "dataset", ignore=shutil.ignore_patterns("runs")))
    monkeypatch.setattr(Segmenter, "training_step", fail_once)
    places = {"model_folder": None, "log_folder": None}
    result = train(dataset, tmp_path, batch_size=4, epochs=1, halve_batch_size=True, **places)
    (folder,) = (dataset / "runs").iterdir()
    assert result.model_folder == folder / "models"
    assert json.loads((folder / "models" / "job.json").read_text(encoding="utf-8"))["batch_size"] == 2


def test_an_epoch_to_unfreeze_that_never_comes_is_told(striped: Path, tmp_path: Path) -> None:
    progress = Recorder()
    first = train(striped, tmp_path / "first", progress, epochs=1, unfreeze_epoch=1)
    assert "UNFREEZE_EPOCH has no effect: no backbone is frozen." in progress.warnings
    progress = Recorder()
    train(striped, tmp_path / "second", progress, epochs=2, unfreeze_epoch=2, weights_file=first.last_checkpoint)
    assert "UNFREEZE_EPOCH is 2, and there are 2 EPOCHS: the backbone stays frozen." in progress.warnings


def test_augmentations_that_are_switched_off_are_told(striped: Path, tmp_path: Path) -> None:
    progress = Recorder()
    train(striped, tmp_path, progress, epochs=1, augmentation=False, augment_noise=0.1, augment_cutout=5)
    assert "AUGMENTATION is off: AUGMENT_NOISE, AUGMENT_CUTOUT without effect." in progress.warnings
