# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of comparing class maps with ground truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from osgeo import gdal

from specdeepmap.core.data import mapcheck
from specdeepmap.core.data.classes import ClassTable
from specdeepmap.core.data.grid import Grid
from specdeepmap.core.data.labels import LabelRaster, names_and_colors
from specdeepmap.core.data.mapcheck import AGREEMENT, score_map
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.tiling import Window
from specdeepmap.core.errors import Canceled, DatasetError, RasterError
from tests.helpers import TRANSFORM, Array, Recorder, full_disk, read_pixels, utm, write_raster

# With GDAL's exceptions on, its destructor complains once more about the full disk.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CLASSES = ClassTable.of([2, 5, 255])
STRANGE = (3, 200)
"""Values of the ground truth that the model does not know."""


def invent(random: np.random.Generator, rows: int, columns: int) -> tuple[Array, Array]:
    """Make a map with some no-data pixels, and a ground truth with unlabelled and unknown ones."""
    mapped = random.choice([0, *CLASSES.values], (rows, columns), p=[0.1, 0.5, 0.3, 0.1]).astype(np.uint8)
    other = random.choice([0, *CLASSES.values, *STRANGE], (rows, columns)).astype(np.uint8)
    return mapped, np.where(random.random((rows, columns)) < 0.4, mapped, other)


def labels_of(path: Path, truth: Array, progress: Recorder) -> LabelRaster:
    rows, columns = truth.shape
    return LabelRaster(str(write_raster(path, truth)), Grid(columns, rows, TRANSFORM, utm()), progress)


def counted(mapped: Array, truth: Array) -> tuple[Array, dict[int, int]]:
    """Count pixels one class pair at a time: the confusion matrix, and what is unknown."""
    pairs = [[int(((truth == row) & (mapped == column)).sum()) for column in CLASSES.values] for row in CLASSES.values]
    strange = {value: int(((truth == value) & (mapped != 0)).sum()) for value in STRANGE}
    return np.array(pairs), {value: count for value, count in strange.items() if count}


@given(rows=st.integers(1, 20), columns=st.integers(1, 20), block=st.integers(1, 9), seed=st.integers(0, 9))
def test_pooled_scores_equal_those_of_the_whole(tmp_path: Path, rows: int, columns: int, block: int, seed: int) -> None:
    progress = Recorder()
    mapped, truth = invent(np.random.default_rng(seed), rows, columns)
    labels = labels_of(tmp_path / "truth.tif", truth, progress)
    class_map = write_raster(tmp_path / "map.tif", mapped, nodata=0)
    errors = tmp_path / "errors.tif"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapcheck, "_BLOCK", block)
        scores, unknown = score_map(class_map, labels, CLASSES, progress, error_map=errors)
    matrix, strange = counted(mapped, truth)
    assert np.array_equal(scores.matrix, matrix)
    assert unknown == strange
    counts = (mapped != 0) & np.isin(truth, CLASSES.values)
    wanted = np.where(counts, np.where(mapped == truth, 1, 2), 0)
    assert np.array_equal(read_pixels(errors)[0], wanted)


def test_a_map_of_a_part_of_the_image(tmp_path: Path, random: np.random.Generator, progress: Recorder) -> None:
    mapped, truth = invent(random, 50, 60)
    area = Window(7, 11, 31, 23)
    labels = labels_of(tmp_path / "truth.tif", truth, progress)
    part = np.s_[area.y : area.y_end, area.x : area.x_end]
    grid = labels.grid.cut(area)
    class_map = write_raster(tmp_path / "map.tif", mapped[part], nodata=0, transform=grid.transform)
    errors = tmp_path / "errors.tif"
    scores, unknown = score_map(class_map, labels, CLASSES, progress, area=area, error_map=errors)
    matrix, strange = counted(mapped[part], truth[part])
    assert np.array_equal(scores.matrix, matrix) and unknown == strange
    assert Raster.open(errors).grid.same_as(grid)
    assert not (tmp_path / "none.tif").exists()


def test_more_than_one_block_without_an_error_map(
    tmp_path: Path, random: np.random.Generator, progress: Recorder
) -> None:
    mapped, truth = invent(random, 1030, 1100)
    labels = labels_of(tmp_path / "truth.tif", truth, progress)
    class_map = write_raster(tmp_path / "map.tif", mapped, nodata=0)
    scores, unknown = score_map(class_map, labels, CLASSES, progress)
    matrix, strange = counted(mapped, truth)
    assert np.array_equal(scores.matrix, matrix) and unknown == strange
    assert progress.shares == [0.25, 0.5, 0.75, 1.0]
    assert {path.name for path in tmp_path.iterdir()} == {"map.tif", "truth.tif"}


def test_the_ground_truth_may_lie_on_another_grid(tmp_path: Path, progress: Recorder) -> None:
    truth = np.array([[2, 5], [255, 0]], np.uint8)
    double = (TRANSFORM[0], 20.0, 0.0, TRANSFORM[3], 0.0, -20.0)
    coarse = write_raster(tmp_path / "truth.tif", truth, transform=double)
    labels = LabelRaster(str(coarse), Grid(4, 4, TRANSFORM, utm()), progress)
    mapped = np.full((4, 4), 5, np.uint8)
    scores, _ = score_map(write_raster(tmp_path / "map.tif", mapped, nodata=0), labels, CLASSES, progress)
    assert scores.matrix.tolist() == [[0, 4, 0], [0, 4, 0], [0, 4, 0]]


def test_nothing_to_compare(tmp_path: Path, progress: Recorder) -> None:
    labels = labels_of(tmp_path / "truth.tif", np.zeros((5, 5), np.uint8), progress)
    class_map = write_raster(tmp_path / "map.tif", np.full((5, 5), 2, np.uint8), nodata=0)
    scores, unknown = score_map(class_map, labels, CLASSES, progress, error_map=tmp_path / "errors.tif")
    assert not scores.matrix.any() and unknown == {}
    assert not read_pixels(tmp_path / "errors.tif").any()


def test_an_error_map_is_a_map_for_people(tmp_path: Path, random: np.random.Generator, progress: Recorder) -> None:
    mapped, truth = invent(random, 600, 520)
    labels = labels_of(tmp_path / "truth.tif", truth, progress)
    class_map = write_raster(tmp_path / "map.tif", mapped, nodata=0)
    score_map(class_map, labels, CLASSES, progress, error_map=tmp_path / "errors.tif")
    raster = gdal.Open(str(tmp_path / "errors.tif"))
    band = raster.GetRasterBand(1)
    assert band.DataType == gdal.GDT_Byte and band.GetNoDataValue() == 0
    names, colors = names_and_colors(raster, {1, 2})
    assert names == {1: "agrees", 2: "disagrees"}
    assert colors == {entry.value: entry.color for entry in AGREEMENT.entries}
    assert band.GetOverviewCount() == 1 and set(np.unique(band.GetOverview(0).ReadAsArray())) <= {0, 1, 2}
    assert band.GetBlockSize() == [256, 256]
    assert raster.GetMetadata("IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"


def test_a_map_of_another_size_is_refused(tmp_path: Path, progress: Recorder) -> None:
    labels = labels_of(tmp_path / "truth.tif", np.ones((5, 5), np.uint8), progress)
    class_map = write_raster(tmp_path / "map.tif", np.full((5, 4), 2, np.uint8), nodata=0)
    with pytest.raises(RasterError, match="4 x 5 pixels, where 5 x 5 were mapped"):
        score_map(class_map, labels, CLASSES, progress)


def test_a_class_that_the_model_cannot_predict_is_refused(tmp_path: Path, progress: Recorder) -> None:
    labels = labels_of(tmp_path / "truth.tif", np.full((5, 5), 2, np.uint8), progress)
    class_map = write_raster(tmp_path / "map.tif", np.full((5, 5), 7, np.uint8), nodata=0)
    with pytest.raises(RasterError, match="holds class 7"):
        score_map(class_map, labels, CLASSES, progress)


def test_a_ground_truth_that_is_no_class_map_is_refused(tmp_path: Path, progress: Recorder) -> None:
    labels = labels_of(tmp_path / "truth.tif", np.full((5, 5), 300, np.int16), progress)
    class_map = write_raster(tmp_path / "map.tif", np.full((5, 5), 2, np.uint8), nodata=0)
    with pytest.raises(DatasetError, match="300"):
        score_map(class_map, labels, CLASSES, progress)


@pytest.mark.parametrize("check", [1, 3, 5])
def test_cancel(tmp_path: Path, random: np.random.Generator, monkeypatch: pytest.MonkeyPatch, check: int) -> None:
    mapped, truth = invent(random, 20, 20)
    labels = labels_of(tmp_path / "truth.tif", truth, Recorder())
    class_map = write_raster(tmp_path / "map.tif", mapped, nodata=0)
    monkeypatch.setattr(mapcheck, "_BLOCK", 10)  # four blocks, and the overviews
    with pytest.raises(Canceled):
        score_map(class_map, labels, CLASSES, Recorder(cancel_at=check), error_map=tmp_path / "errors.tif")


def test_a_full_disk(tmp_path: Path, random: np.random.Generator, gdal_errors: str, progress: Recorder) -> None:
    mapped, truth = invent(random, 400, 400)
    labels = labels_of(tmp_path / "truth.tif", truth, progress)
    class_map = write_raster(tmp_path / "map.tif", mapped, nodata=0)
    with full_disk(5_000), pytest.raises(RasterError, match="disk full"):
        score_map(class_map, labels, CLASSES, progress, error_map=tmp_path / "errors.tif")
