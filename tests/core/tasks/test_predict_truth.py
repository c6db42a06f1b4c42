# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the Deep Learning Mapper with ground truth, which scores the map and never changes it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from osgeo import gdal

from specdeepmap.core.data.scores import Scores
from specdeepmap.core.errors import ConfigError, RasterError
from specdeepmap.core.learn.checkpoint import chip_mark
from tests.helpers import TRANSFORM, Recorder, write_raster
from tests.maps import CLASSES, NODATA
from tests.reading import CARD, Reader, invent, run

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("reader")]


def scores(path: Path) -> dict[str, list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row[0]: row[1:] for row in csv.reader(file)}


def test_ground_truth_scores_the_map(tmp_path: Path) -> None:
    values, wanted = invent(40, 33)
    image = write_raster(tmp_path / "image.tif", values, nodata=NODATA)
    truth = wanted.copy()
    truth[:5] = 0
    truth[5:9] = np.where(wanted[5:9] == 2, 5, truth[5:9])
    truth[9] = 77
    labels = write_raster(tmp_path / "truth.tif", truth, nodata=0)
    progress = Recorder()
    result = run(tmp_path, image, progress, ground_truth=str(labels), scores_csv=tmp_path / "scores.csv")
    counted = (truth > 0) & (wanted > 0) & (truth != 77)
    ious = []
    for value in CLASSES.values:
        hit, either = ((truth == value) & (wanted == value))[counted], ((truth == value) | (wanted == value))[counted]
        ious.append(hit.sum() / either.sum())
    assert result.mean_iou == pytest.approx(np.mean(ious))
    assert result.overall_accuracy == pytest.approx((truth == wanted)[counted].mean())
    table = scores(tmp_path / "scores.csv")
    assert [float(table[str(value)][0]) for value in CLASSES.values] == pytest.approx(ious, abs=1e-6)
    assert float(table["Mean IoU"][0]) == pytest.approx(np.mean(ious), abs=1e-6)
    (warning,) = progress.warnings
    assert "class 77" in warning and str(int((wanted[9] > 0).sum())) in warning


def test_ground_truth_on_another_grid_scores_and_never_changes_the_map(tmp_path: Path) -> None:
    values, wanted = invent(40, 33)
    image = write_raster(tmp_path / "image.tif", values, nodata=NODATA)
    fine = np.kron(wanted, np.ones((2, 2), np.uint8))[10:50, 6:60]
    x, step, _, y, _, _ = TRANSFORM
    labels = write_raster(
        tmp_path / "truth.tif", fine, nodata=0, transform=(x + 3 * step, step / 2, 0, y - 5 * step, 0, -step / 2)
    )
    run(tmp_path, image, output=tmp_path / "alone.tif")
    progress = Recorder()
    result = run(tmp_path, image, progress, ground_truth=str(labels), tile_size=16, overlap=20.0)
    assert (result.mean_iou, result.overall_accuracy) == (1.0, 1.0)
    assert described(tmp_path / "alone.tif") == described(tmp_path / "map.tif")
    assert any("warped" in text for text in progress.infos)


def described(path: Path) -> dict[str, Any]:
    """All that GDAL says of a map with its pixels' checksum, but for its name and the second it was made in."""
    known: dict[str, Any] = gdal.Info(str(path), format="json", computeChecksum=True)
    del known["description"], known["files"], known["metadata"][""]["TIFFTAG_DATETIME"]
    return known


def test_ground_truth_elsewhere_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "image.tif", invent(9, 9)[0], nodata=NODATA)
    labels = write_raster(tmp_path / "truth.tif", np.ones((9, 9), np.uint8), transform=(0, 10, 0, 0, 0, -10))
    with pytest.raises(RasterError, match="no common ground"):
        run(tmp_path, image, ground_truth=str(labels))
    assert not (tmp_path / "map.tif").exists()


def test_ground_truth_without_known_labels_warns(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "image.tif", invent(9, 9)[0], nodata=NODATA)
    labels = write_raster(tmp_path / "truth.tif", np.zeros((9, 9), np.uint8), nodata=0)
    progress = Recorder()
    result = run(tmp_path, image, progress, ground_truth=str(labels))
    assert result.mean_iou is not None and np.isnan(result.mean_iou)
    assert "no labelled pixel" in progress.warnings[0]


def test_zero_of_the_ground_truth_can_be_a_class(tmp_path: Path) -> None:
    values, labels = invent(30, 20)
    image = write_raster(tmp_path / "image.tif", values, nodata=NODATA)
    mask = np.where(labels == 5, 5, 0).astype(np.uint8)
    mask[:, :6] = 5  # where the map shows other classes
    truth = write_raster(tmp_path / "truth.tif", mask)
    progress = Recorder()
    blind = run(tmp_path, image, progress, ground_truth=str(truth))
    said = [text for text in progress.warnings if "set ZERO_AS" in text]
    assert len(said) == 1 and "no pixel of class 2, 9, and 0 means unlabelled" in said[0]
    progress = Recorder()
    seen = run(tmp_path, image, progress, ground_truth=str(truth), zero_as=9)
    assert not [text for text in progress.warnings if "set ZERO_AS" in text]
    known = labels > 0
    wanted = Scores.of(np.where(mask == 5, 1, 2)[known], CLASSES.encode(labels)[known], 3)
    assert seen.overall_accuracy == pytest.approx(wanted.overall_accuracy) != blind.overall_accuracy
    assert seen.mean_iou == pytest.approx(wanted.mean_iou)
    with pytest.raises(ConfigError, match="ZERO_AS is set, but it needs GROUND_TRUTH"):
        run(tmp_path, image, zero_as=1)


@pytest.mark.parametrize(("trained", "told"), [("image", True), ("other", False)])
def test_ground_truth_of_the_trained_image_is_told(
    tmp_path: Path, reader: type[Reader], trained: str, told: bool
) -> None:
    reader.card = replace(CARD, trained_on=tuple(map(chip_mark, (f"{trained}_tile_33_66", trained))))
    values, labels = invent(48, 40)
    image = write_raster(tmp_path / "image.tif", values, nodata=NODATA)
    truth = write_raster(tmp_path / "truth.tif", labels, nodata=0)
    progress = Recorder()
    run(tmp_path, image, progress, ground_truth=str(truth))
    assert any("image that is called image, too" in text for text in progress.warnings) == told
    progress = Recorder()
    run(tmp_path, image, progress)
    assert not progress.warnings, "without ground truth nothing is scored"
