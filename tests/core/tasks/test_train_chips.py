# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the trainer on chips, labels and tables that lack something, or are not as they should be."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from specdeepmap.core.data.dataset import STATISTICS_NAME, Dataset
from specdeepmap.core.data.tileindex import read_splits, write_splits
from specdeepmap.core.errors import DatasetError
from specdeepmap.core.jobs import PrepareJob, TileJob
from specdeepmap.core.learn.checkpoint import load_checkpoint
from specdeepmap.core.learn.losses import LOSSES
from specdeepmap.core.progress import Progress
from specdeepmap.core.tasks import perform
from tests.chips import SMALL, cut, dataset_of, history, same, stripes, train
from tests.helpers import Recorder, read_pixels, write_raster

pytestmark = pytest.mark.torch


def test_without_validation_chips_the_last_epoch_is_the_best(striped: Path, tmp_path: Path) -> None:
    progress = Recorder()
    result = train(striped, tmp_path, progress, epochs=3, scheduler="plateau")
    assert result.best_checkpoint.name == "00002-val_iou_nan.ckpt" and math.isnan(result.best_val_iou)
    assert [row["epoch"] for row in history(result.history_csv)] == [0, 1, 2]
    assert any("no validation chips" in text for text in progress.warnings)
    assert "no validation chips" in result.report.read_text("utf-8")


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


@pytest.mark.parametrize("loss", list(LOSSES))
def test_chip_without_labels(tmp_path: Path, loss: str) -> None:
    image, labels = stripes()
    labels[:32, :32] = 0
    folder = dataset_of(tmp_path, image, labels)
    for batch_size in (1, 4):
        settings = {"architecture": SMALL, "batch_size": batch_size, "epochs": 3}
        result = train(folder, tmp_path / str(batch_size), loss=loss, **settings)
        assert all(math.isfinite(row["train_loss"]) for row in history(result.history_csv))
        assert all(torch.isfinite(tensor).all() for tensor in load_checkpoint(result.last_checkpoint)[1].values())


def test_chips_of_mixed_sizes(tmp_path: Path) -> None:
    folder = dataset_of(tmp_path, *stripes(96, 96), train_percent=67.0, validation_percent=33.0)
    for name in ("train", "validation"):
        pair = Dataset.open(folder).chips[name][1]
        write_raster(pair.image, read_pixels(pair.image)[:, :21, :30])
        write_raster(pair.label, read_pixels(pair.label)[0, :21, :30])
    result = train(folder, tmp_path)
    assert all(math.isfinite(value) for row in history(result.history_csv) for value in row.values())
    assert result.report.is_file()


def test_validation_chips_without_labels(tmp_path: Path) -> None:
    folder = dataset_of(tmp_path, *stripes(96, 96), train_percent=67.0, validation_percent=33.0)
    for pair in Dataset.open(folder).chips["validation"]:
        write_raster(pair.label, 0 * read_pixels(pair.label))
    perform(PrepareJob(data_folder=folder, split="given"), Progress())
    progress = Recorder()
    settings = {"scheduler": "plateau", "epochs": 9, "patience": 1, "learning_rate": 0.001}
    result = train(folder, tmp_path, progress, architecture=SMALL, **settings)
    assert result.epochs_trained == 9 and result.best_checkpoint.name == "00008-val_iou_nan.ckpt"
    assert any("hold no labelled pixel: the last epoch counts" in text for text in progress.warnings)
    rows = history(result.history_csv)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert {row["lr"] for row in rows} == {0.001}, "the schedule follows the training loss, which falls"
    assert result.report.is_file()


def test_validation_chips_of_a_class_that_weighs_nothing(tmp_path: Path) -> None:
    """No training chip holds it, so its weight is 0 and there is no validation loss, though there are scores."""
    folder = dataset_of(tmp_path, *stripes(96, 96), train_percent=67.0, validation_percent=33.0)
    for name, value in (("train", 3), ("validation", 4)):
        for pair in Dataset.open(folder).chips[name]:
            labels = read_pixels(pair.label)
            write_raster(
                pair.label, np.where(labels == 7 - value, value, labels) if name == "train" else 0 * labels + 4
            )
    perform(PrepareJob(data_folder=folder, split="given"), Progress())
    progress = Recorder()
    settings = {"scheduler": "plateau", "epochs": 8, "early_stopping": False, "learning_rate": 0.001}
    result = train(folder, tmp_path, progress, architecture=SMALL, **settings)
    rows = history(result.history_csv)
    assert all(math.isnan(row["val_loss"]) and row["val_iou"] >= 0 for row in rows)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert {row["lr"] for row in rows} == {0.001}, "the schedule follows the training loss, which falls"
    assert any("Epoch 8 of 8" in text and ", IoU" in text.partition("validation")[2] for text in progress.infos)


def test_pixels_that_are_no_numbers(tmp_path: Path) -> None:
    image, labels = stripes()
    image = image.astype(np.float32)
    image[0, 5:9, 5:9], image[1, 20:30], image[2, 40:50] = np.nan, np.inf, -np.inf
    folder = dataset_of(tmp_path, image, labels)
    for normalize in (True, False):
        result = train(folder, tmp_path / str(normalize), normalize=normalize)
        assert all(math.isfinite(row["train_loss"]) for row in history(result.history_csv))
        assert all(torch.isfinite(tensor).all() for tensor in load_checkpoint(result.last_checkpoint)[1].values())


@pytest.mark.parametrize("normalize", [True, False])
def test_missing_pixels_never_reach_the_network(tmp_path: Path, normalize: bool) -> None:
    runs = []
    for missing in (-32768, 32767):
        image, labels = stripes()
        image[:, 5:20, 3:50] = missing
        image[1, 40:60] = missing
        folder = dataset_of(tmp_path / str(missing), image, labels, nodata=missing, scaler=10_000.0)
        runs.append(train(folder, tmp_path / str(missing), normalize=normalize))
    assert same(*runs)


@pytest.mark.parametrize(
    ("dtype", "missing", "kept"),
    [
        (np.int64, -(2**63), -(2.0**63)),
        (np.uint64, 2**64 - 1, None),
        (np.int64, 2**62 + 1, None),
        (np.int16, -999, -999.0),
    ],
)
def test_no_data_values_of_64_bits(tmp_path: Path, dtype: type[np.generic], missing: int, kept: float | None) -> None:
    image, labels = stripes()
    image = image.astype(dtype)
    image[:, 5:20, 3:50] = missing
    folder = dataset_of(tmp_path, image, labels, nodata=missing)
    result = train(folder, tmp_path, architecture=SMALL, epochs=1)
    card = load_checkpoint(result.best_checkpoint)[0]
    assert card.image_nodata == kept, "what no float equals would be another value for the mapper"


def test_training_chips_among_those_of_validation_are_told(tmp_path: Path, shared_out: Path) -> None:
    folder = shutil.copytree(shared_out, tmp_path / "dataset")
    known = [f"../dataset/{row}" for row in (folder / "train_files.csv").read_text("utf-8").splitlines()[1:3]]
    known = [row.replace(",", ",../dataset/") for row in known]
    for rows, told in (([], False), (known, True)):
        with (folder / "validation_files.csv").open("a", encoding="utf-8") as table:
            table.writelines(f"{row}\n" for row in rows)
        progress = Recorder()
        result = train(folder, tmp_path / str(told), progress, architecture=SMALL, epochs=1)
        said = [text for text in progress.warnings if "validation chips are training chips, too" in text]
        assert bool(said) == told and (not told or said[0].startswith("2 of the 5 "))
        assert ("are training chips, too" in result.report.read_text("utf-8")) == told


def test_names_of_chips_that_were_cut_again_are_told(tmp_path: Path) -> None:
    image, labels = stripes()
    folder = tmp_path / "dataset"
    raster = write_raster(tmp_path / "scene.tif", image)
    shares = {"train_percent": 100.0, "validation_percent": 0.0, "test_percent": 0.0}
    old = write_raster(tmp_path / "old.tif", labels, categories={1: "corn", 2: "wheat", 4: "oats"})
    cut(raster, old, folder, **shares)
    new = write_raster(tmp_path / "new.tif", labels, categories={1: "barley", 2: "corn", 4: "oats"})
    for truth, told in ((old, False), (new, True)):
        job = TileJob(
            image=str(raster),
            labels=str(truth),
            output_folder=folder,
            **dict.fromkeys(("tile_size_x", "tile_size_y", "step_x", "step_y"), 32),
        )
        perform(job, Recorder())
        progress = Recorder()
        train(folder, tmp_path / str(told), progress, architecture=SMALL, epochs=1)
        said = [text for text in progress.warnings if "Classes have other names in the label chips" in text]
        assert bool(said) == told and (not told or "1 (corn / barley), 2 (wheat / corn)" in said[0])


def test_a_class_without_training_pixels_is_told(tmp_path: Path) -> None:
    image, labels = stripes()
    labels[:32][labels[:32] == 4] = 0
    dataset = dataset_of(tmp_path, image, labels, train_percent=50.0, validation_percent=50.0)
    table = dataset / "tiles.gpkg"
    splits = {name: "train" if int(name.rpartition("_")[2]) < 32 else "validation" for name in read_splits(table)}
    write_splits(table, splits)
    perform(PrepareJob(data_folder=dataset, split="given"), Progress())
    progress = Recorder()
    train(dataset, tmp_path, progress, epochs=1)
    assert any(
        "No training chip holds a pixel of class 4, which cannot be learnt" in text for text in progress.warnings
    )
