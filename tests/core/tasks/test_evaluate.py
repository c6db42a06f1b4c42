# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the Deep Learning Tester."""

from __future__ import annotations

import csv
import html
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from osgeo import gdal

from specdeepmap.core.data.dataset import ChipPair, Dataset, write_pairs
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.errors import Canceled, ConfigError, DatasetError, RasterError
from specdeepmap.core.jobs import EvaluateJob, EvaluateResult
from specdeepmap.core.learn.loader import load_chip
from specdeepmap.core.learn.predictor import Predictor
from specdeepmap.core.learn.testreport import SHOWN
from specdeepmap.core.tasks import evaluate as task
from specdeepmap.core.tasks.evaluate import evaluate
from tests.helpers import Recorder, read_pixels, snapshot, write_raster

pytestmark = pytest.mark.torch


def table_of(dataset: Path) -> Path:
    return dataset / "test_files.csv"


def run(
    dataset: Path, checkpoint: Path, folder: Path, progress: Recorder | None = None, **settings: Any
) -> EvaluateResult:
    table = settings.pop("test_csv", table_of(dataset))
    settings.setdefault("scores_csv", folder / "scores.csv")
    job = EvaluateJob(test_csv=table, checkpoint=checkpoint, device="cpu", **settings)
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
    f1 = np.where(true > 0, 2 * hits / np.maximum(true + found, 1), np.nan)
    assert result.macro_f1 == pytest.approx(np.nanmean(f1))
    assert result.weighted_f1 == pytest.approx(np.nansum(f1 * true) / true.sum())
    assert result.average_accuracy == pytest.approx(np.nanmean(recall))
    assert result.confusion_csv == tmp_path / "scores_confusion.csv"
    confusion = rows(result.confusion_csv)
    assert confusion[0][1:] == [str(value) for value in dataset.classes.values]
    assert [[int(entry) for entry in row[1:]] for row in confusion[1:]] == matrix.tolist()
    listed = rows(tmp_path / "chips.csv")
    assert result.mean_iou != pytest.approx(np.mean([float(row[1]) for row in listed[1:]])), "pooled, not averaged"
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
    assert auto.calibration_error == pytest.approx(other.calibration_error, abs=1e-5)


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


def test_classes_of_other_names_are_warned_of(dataset_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    progress = Recorder()
    run(dataset_folder, checkpoint, tmp_path, progress)
    assert not any("other names" in text for text in progress.warnings)
    folder = shutil.copytree(dataset_folder, tmp_path / "renamed")
    (first, *_) = Dataset.open(folder).classes.entries
    for pair in Dataset.open(folder).chips["test"]:
        values = read_pixels(pair.label)[0].astype(np.uint8)
        write_raster(pair.label, values, categories={first.value: "something else"})
    run(folder, checkpoint, tmp_path, progress)
    said = [text for text in progress.warnings if f"{first.value} ({first.name} / something else)" in text]
    assert len(said) == 1 and said[0].startswith("TEST_CSV: classes have other names")


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


def test_chips_that_overlap_those_of_the_training_are_warned_of(
    dataset_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Their names differ, and half of their ground was seen in training."""
    folder = copied(dataset_folder, tmp_path)
    chips = Dataset.open(folder).chips
    source, x, y = re.findall(r"(.*)_tile_(\d+)_(\d+)", chips["train"][0].name)[0]
    pairs = []
    for shift, chip in zip((16, 32 * 50), chips["test"], strict=False):  # one overlaps, one is far away
        name = f"{source}_tile_{int(x) + shift}_{int(y) + 16}.tif"
        moved = ChipPair(folder / "images" / name, folder / "labels" / name)
        shutil.copy(chip.image, moved.image)
        shutil.copy(chip.label, moved.label)
        pairs.append(moved)
    write_pairs(folder / "test_files.csv", pairs, folder)
    progress = Recorder()
    run(folder, checkpoint, tmp_path, progress)
    assert [text[:40] for text in progress.warnings] == ["1 of the 2 test chips share ground with "]
    assert "share ground" in (tmp_path / "scores_report.html").read_text(encoding="utf-8")
    (folder / "train_files.csv").unlink()
    (folder / "validation_files.csv").unlink()
    run(folder, checkpoint, tmp_path, progress := Recorder())
    assert [text[:49] for text in progress.warnings] == ["TEST_CSV: the model was trained or validated on c"], "may be"
    for number, pair in enumerate(pairs):
        for path in (pair.image, pair.label):
            path.rename(path.with_name(f"other_tile_{number}_0.tif"))
    others = [folder / "images" / f"other_tile_{number}_0.tif" for number in range(2)]
    others = [ChipPair(path, folder / "labels" / path.name) for path in others]
    write_pairs(folder / "test_files.csv", others, folder)
    run(folder, checkpoint, tmp_path, progress := Recorder())
    assert not progress.warnings


def test_chips_that_are_named_twice_count_once(dataset_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    wanted = run(dataset_folder, checkpoint, tmp_path).mean_iou
    folder = copied(dataset_folder, tmp_path)
    lines = table_of(folder).read_text(encoding="utf-8").splitlines()
    other = lines[1].replace("images/", "./images/")
    assert other != lines[1]
    table_of(folder).write_text("\n".join([*lines, lines[2], other, other]) + "\n", encoding="utf-8")
    progress = Recorder()
    result = run(folder, checkpoint, tmp_path, progress, prediction_folder=tmp_path / "predictions")
    assert result.mean_iou == wanted
    assert len(progress.warnings) == 1 and "3 of its" in progress.warnings[0]


def test_a_chip_of_every_image_is_checked(dataset_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Of the first chip alone, nobody would have heard that another image is in another unit."""
    folder = copied(dataset_folder, tmp_path)
    chips = Dataset.open(folder).chips["test"]
    pairs = [chips[0]]
    for number, chip in enumerate(chips[1:]):
        other = folder / "images" / f"other{number}_tile_0_0.tif"
        values = read_pixels(chip.image).astype(np.float32) / 10_000
        write_raster(other, values, names=[f"B{band}" for band in range(13, 0, -1)])
        shutil.copy(chip.label, folder / "labels" / other.name)
        pairs.append(ChipPair(other, folder / "labels" / other.name))
    write_pairs(folder / "test_files.csv", pairs, folder)
    progress = Recorder()
    run(folder, checkpoint, tmp_path, progress)
    assert [("band names" in text, "values are much smaller" in text) for text in progress.warnings] == [
        (True, False),
        (False, True),
    ], "once, though two images are like that"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("scores_csv", "Summary_train_val.csv"),
        ("scores_csv", "train_files.csv"),
        ("confusion_csv", "labels/{chip}.tif"),
        ("chip_scores_csv", "images/../images/{chip}.tif"),
        ("report", "dataset_report.html"),
        ("prediction_folder", "images"),
        ("prediction_folder", "labels"),
    ],
)
def test_files_of_the_dataset_are_not_replaced(
    dataset_folder: Path, checkpoint: Path, tmp_path: Path, name: str, path: str
) -> None:
    folder = copied(dataset_folder, tmp_path)
    before = snapshot(folder)
    chip = Dataset.open(folder).chips["test"][0].name
    with pytest.raises(ConfigError, match=f"{name.upper()} .* Choose another"):
        run(folder, checkpoint, tmp_path, **{name: folder / path.format(chip=chip)})
    assert snapshot(folder) == before


def test_the_card_beside_the_model_is_not_replaced(dataset_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    model = shutil.copy(checkpoint, tmp_path / "model.ckpt")
    with pytest.raises(ConfigError, match=r"REPORT and CHECKPOINT are the same file, .*model\.json"):
        run(dataset_folder, Path(model), tmp_path, report=tmp_path / "model.json")


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


def calibration_of(pairs: Any, checkpoint: Path, everywhere: bool = False) -> float:
    """Compute the calibration error of labelled pixels, or of all of them, from its definition."""
    predictor = Predictor(checkpoint, "cpu")
    sure, right = [], []
    for pair in pairs:
        chip = load_chip(pair, predictor.card.normalization)
        probabilities = predictor.probabilities([chip.image])[0]
        counted = (chip.labels > 0) | everywhere
        chosen = np.array(predictor.card.classes.values)[probabilities.argmax(axis=0)]
        sure.append(probabilities.max(axis=0)[counted].astype(np.float64))
        right.append((chosen == chip.labels)[counted])
    confidence, correct = np.concatenate(sure), np.concatenate(right)
    bins = np.ceil(confidence * 15)
    gaps = [abs((correct[bins == b] - confidence[bins == b]).sum()) for b in np.unique(bins)]
    return float(sum(gaps) / len(confidence))


def test_calibration_is_that_of_the_labelled_pixels(dataset_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    folder = copied(dataset_folder, tmp_path)
    pairs = Dataset.open(folder).chips["test"]
    labels = read_pixels(pairs[0].label)[0]
    labels[:20] = 0
    write_raster(pairs[0].label, labels, nodata=0)
    result = run(folder, checkpoint, tmp_path)
    assert result.calibration_error == pytest.approx(calibration_of(pairs, checkpoint), abs=1e-6)
    assert abs(result.calibration_error - calibration_of(pairs, checkpoint, everywhere=True)) > 1e-3


def test_the_report_tells_the_scores_and_links_the_tables(
    dataset_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    result = run(dataset_folder, checkpoint, tmp_path, chip_scores_csv=tmp_path / "chips.csv")
    assert result.report == tmp_path / "scores_report.html"
    page = result.report.read_text("utf-8")
    for number in (result.mean_iou, result.overall_accuracy, result.average_accuracy, result.macro_f1):
        assert f"<td>{number:.3f}</td>" in page
    for number in (result.weighted_f1, result.kappa, result.calibration_error):
        assert f"<td>{number:.3f}</td>" in page
    for name in ("scores.csv", "scores_confusion.csv", "chips.csv"):
        assert f'<a href="{name}">' in page
    pairs = Dataset.open(dataset_folder).chips["test"]
    assert page.count("data:image/png") == len(pairs) == 2
    assert all(pair.name in page for pair in pairs) and checkpoint.name in page
    for place in (tmp_path, dataset_folder, checkpoint.parent, Path.home()):
        assert str(place) not in page


def test_the_report_may_lie_elsewhere(dataset_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    result = run(dataset_folder, checkpoint, tmp_path / "out", report=tmp_path / "pages" / "page.html")
    assert result.report == tmp_path / "pages" / "page.html"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scores.csv", "scores_confusion.csv"]
    assert "<a href" not in result.report.read_text("utf-8")


def test_a_large_test_set_shows_a_few_chips(dataset_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    pairs = []
    for number in range(3):
        folder = copied(dataset_folder, tmp_path / str(number))
        pairs += [pair for chips in Dataset.open(folder).chips.values() for pair in chips]
    table = tmp_path / "many.csv"
    table.write_text("image,mask\n" + "".join(f"{pair.image},{pair.label}\n" for pair in pairs), "utf-8")
    page = run(dataset_folder, checkpoint, tmp_path, test_csv=table).report.read_text("utf-8")
    assert page.count("data:image/png") == 2 * SHOWN < len(pairs)
    assert f"tested on {len(pairs)} chips" in page


def test_warnings_are_repeated_in_the_report(dataset_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    folder = copied(dataset_folder, tmp_path)
    pair = Dataset.open(folder).chips["train"][0]
    write_raster(pair.label, np.where(np.arange(32) < 3, 200, read_pixels(pair.label)[0]).astype(np.uint8), nodata=0)
    image = gdal.Open(str(pair.image), gdal.GA_Update)
    image.GetRasterBand(2).SetDescription("infra<red>")
    del image
    progress = Recorder()
    result = run(folder, checkpoint, tmp_path, progress, test_csv=folder / "train_files.csv")
    page = html.unescape(result.report.read_text("utf-8"))
    assert len(progress.warnings) == 3
    for part in ("band names", "test chips", "class 200"):
        assert any(part in warning for warning in progress.warnings), part
    assert all(f'<p class="warning">{warning}</p>' in page for warning in progress.warnings)


def test_one_class_alone_is_scored_and_reported(dataset_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    folder = copied(dataset_folder, tmp_path)
    for pair in Dataset.open(folder).chips["test"]:
        write_raster(pair.label, np.full((32, 32), 2, np.uint8), nodata=0)
    result = run(folder, checkpoint, tmp_path)
    page = result.report.read_text("utf-8")
    assert result.average_accuracy == result.overall_accuracy == pytest.approx(result.mean_iou)
    assert "these chips cannot tell" in page and page.endswith("</html>\n")


def test_a_report_that_fails_leaves_everything_as_it_was(
    dataset_folder: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(dataset_folder, checkpoint, tmp_path / "out")
    before = snapshot(tmp_path / "out")

    def half(path: Path, *_: object) -> None:
        path.write_text("<!DOCTYPE html>", "utf-8")
        raise RasterError("full")

    monkeypatch.setattr(task, "write_report", half)
    with pytest.raises(RasterError, match="full"):
        run(dataset_folder, checkpoint, tmp_path / "out", test_csv=dataset_folder / "train_files.csv")
    assert snapshot(tmp_path / "out") == before
    with pytest.raises(RasterError, match="full"):
        run(dataset_folder, checkpoint, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "names",
    [
        {"confusion_csv": "scores.csv"},
        {"chip_scores_csv": "scores.csv"},
        {"report": "scores.csv"},
        {"report": "a.csv", "chip_scores_csv": "a.csv"},
        {"chip_scores_csv": "scores_confusion.csv"},  # where the confusion matrix goes by itself
        {"confusion_csv": "scores_report.html"},
        {"confusion_csv": "folder/../scores.csv"},
    ],
)
def test_outputs_must_be_different_files(names: dict[str, str]) -> None:
    given = {"test_csv": Path("test.csv"), "checkpoint": Path("a.ckpt"), "scores_csv": Path("scores.csv")}
    EvaluateJob(**given)
    with pytest.raises(ConfigError, match=r"(\w+) and \w+ are the same file, .* Choose another name for \1\."):
        EvaluateJob(**given, **{name: Path(path) for name, path in names.items()})


@pytest.mark.parametrize("name", ["scores_csv", "report"])
def test_an_output_must_not_replace_an_input(name: str) -> None:
    given = {"test_csv": Path("test.csv"), "checkpoint": Path("a.ckpt"), "scores_csv": Path("scores.csv")}
    with pytest.raises(ConfigError, match=f"{name.upper()} and TEST_CSV are the same file, test.csv"):
        EvaluateJob(**{**given, name: Path("test.csv")})
    with pytest.raises(ConfigError, match=f"{name.upper()} and CHECKPOINT are the same file, a.ckpt"):
        EvaluateJob(**{**given, name: Path("a.ckpt")})
