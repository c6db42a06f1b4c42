# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the Deep Learning Tester."""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from osgeo import gdal

from specdeepmap.core.data.dataset import Dataset
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.errors import Canceled, DatasetError, RasterError
from specdeepmap.core.jobs import EvaluateJob, EvaluateResult
from specdeepmap.core.tasks.evaluate import evaluate
from tests.helpers import Recorder, read_pixels, snapshot, write_raster

pytestmark = pytest.mark.torch


def table_of(dataset: Path) -> Path:
    return dataset / "test_files.csv"


def run(
    dataset: Path, checkpoint: Path, folder: Path, progress: Recorder | None = None, **settings: Any
) -> EvaluateResult:
    table = settings.pop("test_csv", table_of(dataset))
    job = EvaluateJob(test_csv=table, checkpoint=checkpoint, device="cpu", scores_csv=folder / "scores.csv", **settings)
    return evaluate(job, progress or Recorder())


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_scores_are_those_of_the_predictions(dataset_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    result = run(
        dataset_folder,
        checkpoint,
        tmp_path,
        prediction_folder=tmp_path / "predictions",
        chip_scores_csv=tmp_path / "chips.csv",
    )
    dataset = Dataset.open(dataset_folder)
    matrix = np.zeros((8, 8), np.int64)
    chips = {}
    for pair in dataset.chips["test"]:
        truth = read_pixels(pair.label)[0]
        predicted = read_pixels(tmp_path / "predictions" / f"{pair.name}_prediction.tif")[0]
        counted = (truth > 0) & (predicted > 0)
        np.add.at(matrix, (truth[counted], predicted[counted]), 1)
        chips[pair.name] = (truth[counted] == predicted[counted]).mean(), counted.sum()
    matrix = matrix[1:, 1:]
    hits, true, found = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = np.where(true > 0, hits / (true + found - hits), np.nan)
        precision, recall = hits / found, hits / true
    table = rows(result.scores_csv)
    assert table[0][:2] == ["Class", "IoU"] and table[0][2:] == ["Name", "Precision", "Recall", "F1", "Support"]
    assert [row[0] for row in table[1:-1]] == [str(value) for value in dataset.classes.values]
    assert np.allclose([float(row[1]) for row in table[1:-1]], iou, atol=1e-6, equal_nan=True)
    assert np.allclose([float(row[3]) for row in table[1:-1]], precision, atol=1e-6, equal_nan=True)
    assert np.allclose([float(row[4]) for row in table[1:-1]], recall, atol=1e-6, equal_nan=True)
    assert [int(row[6]) for row in table[1:-1]] == true.tolist()
    assert table[-1][0] == "Mean IoU" and float(table[-1][1]) == pytest.approx(np.nanmean(iou), abs=1e-6)
    assert result.mean_iou == pytest.approx(np.nanmean(iou)) and math.isfinite(result.kappa)
    assert result.overall_accuracy == pytest.approx(hits.sum() / matrix.sum())
    assert result.confusion_csv == tmp_path / "scores_confusion.csv"
    confusion = rows(result.confusion_csv)
    assert confusion[0][1:] == [str(value) for value in dataset.classes.values]
    assert [[int(entry) for entry in row[1:]] for row in confusion[1:]] == matrix.tolist()
    listed = rows(tmp_path / "chips.csv")
    assert {row[0]: (float(row[2]), int(row[3])) for row in listed[1:]} == {
        name: (pytest.approx(accuracy, abs=1e-6), count) for name, (accuracy, count) in chips.items()
    }


@pytest.mark.parametrize("size", [1, 2, 50])
def test_batch_size_does_not_change_the_scores(
    dataset_folder: Path, checkpoint: Path, tmp_path: Path, size: int
) -> None:
    auto = run(dataset_folder, checkpoint, tmp_path / "auto")
    other = run(dataset_folder, checkpoint, tmp_path / "other", batch_size=size)
    assert auto.scores_csv.read_text("utf-8") == other.scores_csv.read_text("utf-8")
    assert auto.confusion_csv.read_text("utf-8") == other.confusion_csv.read_text("utf-8")


@pytest.mark.parametrize("mask", [True, False])
def test_predictions_are_georeferenced_coloured_and_masked(
    dataset_folder: Path, checkpoint: Path, tmp_path: Path, mask: bool
) -> None:
    folder = copied(dataset_folder, tmp_path)
    classes, pairs = Dataset.open(folder).classes, Dataset.open(folder).chips["test"]
    labels = read_pixels(pairs[0].label)[0]
    labels[:5] = 0
    write_raster(pairs[0].label, labels, nodata=0)
    run(folder, checkpoint, tmp_path, prediction_folder=tmp_path / "new" / "folder", mask_unlabelled=mask)
    unlabelled = 0
    for pair in pairs:
        path = tmp_path / "new" / "folder" / f"{pair.name}_prediction.tif"
        assert Raster.open(path).grid == Raster.open(pair.image).grid
        raster = gdal.Open(str(path))
        raster.GetMetadata()
        band = raster.GetRasterBand(1)
        assert band.DataType == gdal.GDT_Byte and band.GetNoDataValue() == 0
        assert band.GetCategoryNames() == classes.category_names()
        for entry in classes.entries:
            assert band.GetColorTable().GetColorEntry(entry.value)[:3] == entry.rgb
        values, truth = read_pixels(path)[0], read_pixels(pair.label)[0]
        seen = (read_pixels(pair.image) != 0).any(axis=0)
        assert set(np.unique(values)) <= {0, *classes.values}
        assert (values[~seen] == 0).all()
        assert ((values == 0) == (~seen | ((truth == 0) & mask))).all()
        unlabelled += int(((truth == 0) & seen).sum())
    assert unlabelled > 0


def copied(dataset: Path, folder: Path) -> Path:
    shutil.copytree(dataset, folder / "dataset")
    return folder / "dataset"


def test_unknown_reference_classes_are_left_out_with_a_warning(
    dataset_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    folder = copied(dataset_folder, tmp_path)
    pair = Dataset.open(folder).chips["test"][0]
    labels = read_pixels(pair.label)[0]
    labels[:4] = 200
    write_raster(pair.label, labels, nodata=0)
    seen = (read_pixels(pair.image) != 0).any(axis=0)
    progress = Recorder()
    result = run(folder, checkpoint, tmp_path / "out", progress)
    (warning,) = [text for text in progress.warnings if "200" in text]
    assert f"its {int(seen[:4].sum())} reference pixels" in warning
    before = run(dataset_folder, checkpoint, tmp_path / "before")
    support = [sum(int(row[6]) for row in rows(run_.scores_csv)[1:-1]) for run_ in (result, before)]
    truth = read_pixels(Dataset.open(dataset_folder).chips["test"][0].label)[0]
    assert support[1] - support[0] == int(((truth[:4] > 0) & seen[:4]).sum())
    assert not any(row[0] == "200" for row in rows(result.scores_csv))


def test_empty_table(dataset_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("image,mask\n", "utf-8")
    with pytest.raises(DatasetError, match=r"names no chip\. Raise TEST_PERCENT"):
        run(dataset_folder, checkpoint, tmp_path, test_csv=tmp_path / "empty.csv")


def test_chips_of_the_training_are_warned_of(dataset_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    progress = Recorder()
    run(dataset_folder, checkpoint, tmp_path, progress)
    assert not progress.warnings
    run(dataset_folder, checkpoint, tmp_path, progress, test_csv=dataset_folder / "train_files.csv")
    assert len(progress.warnings) == 1 and progress.warnings[0].startswith("5 of the 5 test chips")


def test_no_labelled_pixel_leaves_nothing_behind(dataset_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    folder = copied(dataset_folder, tmp_path)
    for pair in Dataset.open(folder).chips["test"]:
        write_raster(pair.label, np.zeros((32, 32), np.uint8), nodata=0)
    with pytest.raises(DatasetError, match="no chip has a labelled pixel"):
        run(folder, checkpoint, tmp_path / "out", prediction_folder=tmp_path / "out" / "predictions")
    assert not (tmp_path / "out").exists()


def test_images_of_other_bands(dataset_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    folder = copied(dataset_folder, tmp_path)
    pairs = Dataset.open(folder).chips["test"]
    write_raster(pairs[1].image, np.ones((4, 32, 32), np.uint16))
    with pytest.raises(DatasetError, match="has 4 bands, but 13"):
        run(folder, checkpoint, tmp_path)
    write_raster(pairs[0].image, np.ones((4, 32, 32), np.uint16))
    with pytest.raises(RasterError, match="has 4 bands, but the model was trained on 13"):
        run(folder, checkpoint, tmp_path)


def test_chips_of_several_sizes(dataset_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    folder = copied(dataset_folder, tmp_path)
    pair = Dataset.open(folder).chips["test"][0]
    write_raster(pair.image, read_pixels(pair.image)[:, :20, :27], nodata=0)
    write_raster(pair.label, read_pixels(pair.label)[0, :20, :27], nodata=0)
    result = run(folder, checkpoint, tmp_path, prediction_folder=tmp_path / "predictions")
    assert read_pixels(tmp_path / "predictions" / f"{pair.name}_prediction.tif").shape == (1, 20, 27)
    assert 0 <= result.mean_iou <= 1


@pytest.mark.parametrize("check", [1, 2, 3])
def test_cancel_leaves_earlier_outputs_alone(
    dataset_folder: Path, checkpoint: Path, tmp_path: Path, check: int
) -> None:
    out = tmp_path / "out"
    run(dataset_folder, checkpoint, out, prediction_folder=out / "predictions")
    before = snapshot(out)
    progress = Recorder(cancel_at=check)
    try:
        run(dataset_folder, checkpoint, out, progress, prediction_folder=out / "predictions")
    except Canceled:
        assert check <= 2  # there are two test chips
    else:
        assert check > 2
    assert snapshot(out) == before


def test_inputs_stay_as_they_are(dataset_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    folders = (dataset_folder, checkpoint.parent)
    before = [snapshot(folder) for folder in folders]
    run(dataset_folder, checkpoint, tmp_path, prediction_folder=tmp_path / "predictions")
    assert [snapshot(folder) for folder in folders] == before
