# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the Deep Learning Trainer."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch

from specdeepmap.core.data.dataset import STATISTICS_NAME, SUMMARY_NAME, Dataset
from specdeepmap.core.errors import Canceled, ConfigError, DatasetError
from specdeepmap.core.learn.callbacks import COLUMNS
from specdeepmap.core.learn.checkpoint import load_checkpoint
from tests.chips import dataset_of, stripes, train
from tests.helpers import Recorder, snapshot

pytestmark = pytest.mark.torch


def history(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = [{name: float(value) for name, value in row.items()} for row in reader]
    assert tuple(reader.fieldnames or ()) == COLUMNS
    return rows


@pytest.fixture(scope="module")
def striped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four chips of three classes that any network can tell apart, all for training."""
    return dataset_of(tmp_path_factory.mktemp("striped"), *stripes())


def test_overfits_four_chips(striped: Path, tmp_path: Path) -> None:
    progress = Recorder()
    result = train(striped, tmp_path, progress, epochs=40, learning_rate=0.01, augmentation=False)
    rows = history(result.history_csv)
    assert len(rows) == 40 == result.epochs_trained
    assert rows[-1]["train_iou"] > 0.95 and rows[0]["train_iou"] < 0.8
    assert rows[-1]["train_loss"] < 0.3 * rows[0]["train_loss"]
    assert progress.shares == sorted(progress.shares) and progress.shares[-1] == 1
    lines = [text for text in progress.infos if text.startswith("Epoch ")]
    assert len(lines) == 40 and "left" in lines[0] and lines[-1].startswith("Epoch 40 of 40: loss ")


def test_same_seed_same_curve(dataset_folder: Path, tmp_path: Path) -> None:
    runs = {}
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        result = train(dataset_folder, tmp_path / name, seed=seed, epochs=3)
        state = load_checkpoint(result.last_checkpoint)[1]
        rows = [{key: row[key] for key in row if key != "seconds"} for row in history(result.history_csv)]
        runs[name] = rows, state
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


def test_without_validation_chips_the_last_epoch_is_the_best(striped: Path, tmp_path: Path) -> None:
    progress = Recorder()
    result = train(striped, tmp_path, progress, epochs=3, scheduler="plateau")
    assert result.best_checkpoint.name == "00002-val_iou_nan.ckpt" and math.isnan(result.best_val_iou)
    assert [row["epoch"] for row in history(result.history_csv)] == [0, 1, 2]
    assert any("no validation chips" in text for text in progress.warnings)


def test_normalize_needs_statistics(tmp_path: Path) -> None:
    folder = dataset_of(tmp_path, *stripes(32, 32), statistics=False)
    with pytest.raises(DatasetError, match=r"NORMALIZE is on.*Normalize_Bands\.csv"):
        train(folder, tmp_path)
    assert train(folder, tmp_path, normalize=False, epochs=1).epochs_trained == 1


def test_without_normalize_the_scaler_is_used(tmp_path: Path) -> None:
    folder = dataset_of(tmp_path, *stripes(32, 32), scaler=1000.0)
    card, _ = load_checkpoint(train(folder, tmp_path, normalize=False, epochs=1).best_checkpoint)
    assert card.normalization.scale == 1000 and set(card.normalization.mean) == {0.0}
    card, _ = load_checkpoint(train(folder, tmp_path, epochs=1).best_checkpoint)
    assert card.normalization == Dataset.open(folder).statistics and card.normalization.mean[0] > 1


def test_statistics_of_other_bands_are_refused(tmp_path: Path) -> None:
    folder = dataset_of(tmp_path, *stripes(32, 32))
    lines = (folder / STATISTICS_NAME).read_text("utf-8").splitlines()
    (folder / STATISTICS_NAME).write_text("\n".join(lines[:-1]) + "\n", "utf-8")
    for normalize in (True, False):
        with pytest.raises(DatasetError, match="has 2 bands, the chips have 3"):
            train(folder, tmp_path, normalize=normalize)


def test_empty_training_set(striped: Path, tmp_path: Path) -> None:
    folder = dataset_of(tmp_path, *stripes())
    lines = (folder / "train_files.csv").read_text("utf-8").splitlines()
    (folder / "train_files.csv").write_text(lines[0] + "\n", "utf-8")
    with pytest.raises(DatasetError, match="training set is empty"):
        train(folder, tmp_path)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_any_batch_size(striped: Path, tmp_path: Path, batch_size: int) -> None:
    rows = history(train(striped, tmp_path, batch_size=batch_size, architecture="deeplabv3plus").history_csv)
    assert len(rows) == 2 and all(math.isfinite(row["train_loss"]) for row in rows)


def test_one_band_one_chip(tmp_path: Path) -> None:
    folder = dataset_of(tmp_path, *stripes(32, 32, bands=1))
    result = train(folder, tmp_path, epochs=3)
    assert len(load_checkpoint(result.best_checkpoint)[0].bands) == 1
    assert all(math.isfinite(row["train_loss"]) for row in history(result.history_csv))


@pytest.mark.parametrize("normalize", [True, False])
def test_band_and_chips_without_data_give_no_nan(tmp_path: Path, normalize: bool) -> None:
    image, labels = stripes()
    image[1] = -99
    image[:, :40, :40] = -99  # one chip has none at all
    folder = dataset_of(tmp_path, image, labels, nodata=-99)
    result = train(folder, tmp_path, normalize=normalize, batch_size=1, epochs=3, learning_rate=1e-4)
    assert all(math.isfinite(row["train_loss"]) for row in history(result.history_csv))
    assert all(torch.isfinite(tensor).all() for tensor in load_checkpoint(result.best_checkpoint)[1].values())


def test_class_weights_change_the_loss_and_come_from_the_table(tmp_path: Path) -> None:
    image, labels = stripes()
    labels[:, 8:][labels[:, 8:] == 4] = 1  # rare
    folder = dataset_of(tmp_path, image, labels)
    progress = Recorder()
    weights = Dataset.open(folder).weights
    assert max(weights) > 2 * min(weights)

    def first_loss(name: str, **settings: bool) -> float:
        return history(train(folder, tmp_path / name, progress, epochs=1, **settings).history_csv)[0]["train_loss"]

    weighted, plain = first_loss("a"), first_loss("b", class_weights=False)
    assert weighted != plain
    assert any(f"{max(weights):.2f}" in text for text in progress.infos if text.startswith("Class weights"))
    table = (folder / SUMMARY_NAME).read_text("utf-8")
    for weight in weights:
        assert f"{weight:.6f}" in table
        table = table.replace(f"{weight:.6f}", "1.000000")
    (folder / SUMMARY_NAME).write_text(table, "utf-8")
    assert first_loss("c") == plain


def test_cancel_keeps_the_checkpoints_of_finished_epochs(striped: Path, tmp_path: Path) -> None:
    class Impatient(Recorder):
        def info(self, text: str) -> None:
            super().info(text)
            if text.startswith("Epoch 3 "):
                self.cancel()

    with pytest.raises(Canceled):
        train(striped, tmp_path, Impatient(), epochs=500)
    assert len(history(tmp_path / "models" / "history.csv")) == 3
    for name, epoch in (("last.ckpt", 2), ("00002-val_iou_nan.ckpt", 2)):
        assert load_checkpoint(tmp_path / "models" / name)[0].metrics["epoch"] == epoch
    assert not list((tmp_path / "models").glob(".*"))


def test_random_weights_are_never_frozen(dataset_folder: Path, tmp_path: Path) -> None:
    progress = Recorder()
    result = train(dataset_folder, tmp_path, progress, epochs=1, freeze_backbone=True, save_top_k=-1)
    assert any("random weights, so it is not frozen" in text for text in progress.infos)
    free = train(dataset_folder, tmp_path / "free", epochs=1, freeze_backbone=False)
    first, second = (load_checkpoint(run.best_checkpoint)[1] for run in (result, free))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("freeze", [True, False])
def test_weights_file_and_freezing(checkpoint: Path, dataset_folder: Path, tmp_path: Path, freeze: bool) -> None:
    progress = Recorder()
    result = train(dataset_folder, tmp_path, progress, weights_file=checkpoint, freeze_backbone=freeze)
    known, trained = (load_checkpoint(path)[1] for path in (checkpoint, result.best_checkpoint))
    encoder = [name for name in known if name.startswith("model.encoder.")]
    kept = [name for name in encoder if torch.equal(known[name], trained[name])]
    assert (len(kept) == len(encoder)) == freeze
    assert not all(torch.equal(known[name], trained[name]) for name in known)
    assert any("100.0 %" in text for text in progress.infos)
    assert any("backbone is frozen" in text for text in progress.infos) == freeze


def test_weights_of_other_bands_and_freezing(checkpoint: Path, striped: Path, tmp_path: Path) -> None:
    progress = Recorder()
    result = train(striped, tmp_path, progress, weights_file=checkpoint)
    known, trained = (load_checkpoint(path)[1] for path in (checkpoint, result.best_checkpoint))
    moved = [
        name for name in known if name.startswith("model.encoder.") and not torch.equal(known[name], trained[name])
    ]
    assert len(moved) == 1 and known[moved[0]].shape[1] == 13 and trained[moved[0]].shape[1] == 3
    assert any("first layer, which was adapted to 3 bands" in text for text in progress.infos)


def test_folder_that_cannot_be_written(striped: Path, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("in the way")
    with pytest.raises(ConfigError, match="MODEL_FOLDER"):
        train(striped, tmp_path)


def test_wrong_names_are_found_before_anything_is_written(striped: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="resnet18"):
        train(striped, tmp_path, backbone="resnet81")
    assert not (tmp_path / "models").exists() and not (tmp_path / "logs").exists()


def test_loader_processes_change_nothing(striped: Path, tmp_path: Path) -> None:
    curves = []
    for workers in (0, 2):
        result = train(striped, tmp_path / str(workers), num_workers=workers, augmentation=False, batch_size=2)
        curves.append([row["train_loss"] for row in history(result.history_csv)])
    assert curves[0] == curves[1]


def test_augmentation_changes_the_curve(striped: Path, tmp_path: Path) -> None:
    curves = []
    for augmentation in (True, False):
        result = train(striped, tmp_path / str(augmentation), augmentation=augmentation)
        curves.append([row["train_loss"] for row in history(result.history_csv)])
    assert curves[0] != curves[1]


def test_bfloat16(striped: Path, tmp_path: Path) -> None:
    rows = history(train(striped, tmp_path, precision="bfloat16").history_csv)
    assert all(math.isfinite(row["train_loss"]) for row in rows)
