# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of labels: on the image's grid, checked, with names and colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from osgeo import gdal

from specdeepmap.core.data.classes import ClassEntry
from specdeepmap.core.data.grid import Grid
from specdeepmap.core.data.labels import LabelRaster
from specdeepmap.core.data.tiling import Window
from specdeepmap.core.errors import Canceled, ConfigError, DatasetError, RasterError
from tests.helpers import TRANSFORM, Array, Recorder, utm, write_raster

GRID = Grid(8, 6, TRANSFORM, utm())
WHOLE = Window(0, 0, 8, 6)


@pytest.fixture
def ids(random: np.random.Generator) -> Array:
    return random.choice([0, 1, 7, 255], (6, 8)).astype(np.uint8)


def moved(columns: float = 0, rows: float = 0, pixel: float = 10.0) -> tuple[float, ...]:
    """Give the transform of a grid that starts elsewhere, in pixels of the image."""
    return (TRANSFORM[0] + 10 * columns, pixel, 0.0, TRANSFORM[3] - 10 * rows, 0.0, -pixel)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "i8", "f4", "f8"])
def test_labels_of_every_number_type(tmp_path: Path, progress: Recorder, ids: Array, dtype: str) -> None:
    labels = LabelRaster(str(write_raster(tmp_path / "l.tif", ids.astype(dtype))), GRID, progress)
    read = labels.read(WHOLE)
    assert read.dtype == np.uint8 and np.array_equal(read, ids)
    assert labels.values(progress) == {1, 7, 255}
    assert progress.infos == progress.warnings == []


def test_beyond_the_border_nothing_is_labelled(tmp_path: Path, progress: Recorder, ids: Array) -> None:
    labels = LabelRaster(str(write_raster(tmp_path / "l.tif", ids)), GRID, progress)
    wanted = np.pad(ids, ((2, 5), (3, 4)))
    assert np.array_equal(labels.read_padded(Window(-3, -2, 15, 13)), wanted)


@pytest.mark.parametrize("value", [256, 1000, -1, -9999, 1.5])
def test_values_that_are_no_class_id_are_named(tmp_path: Path, progress: Recorder, ids: Array, value: float) -> None:
    values = ids.astype("f8" if value != int(value) else "i4")
    values[4, 5] = value
    labels = LabelRaster(str(write_raster(tmp_path / "l.tif", values)), GRID, progress)
    with pytest.raises(DatasetError, match=rf"LABELS .*l\.tif holds the value {value:g}\. .*0 to 255"):
        labels.values(progress)
    declared = LabelRaster(str(write_raster(tmp_path / "d.tif", values, nodata=value)), GRID, progress)
    assert declared.read(WHOLE)[4, 5] == 0


@pytest.mark.parametrize(("dtype", "nodata"), [("u1", 7), ("i2", 7), ("f4", 7), ("f4", float("nan"))])
def test_nodata_becomes_0(tmp_path: Path, progress: Recorder, ids: Array, dtype: str, nodata: float) -> None:
    values = ids.astype(dtype)
    if np.isnan(nodata):
        values[ids == 7] = np.nan
    labels = LabelRaster(str(write_raster(tmp_path / "l.tif", values, nodata=nodata)), GRID, progress)
    assert np.array_equal(labels.read(WHOLE), np.where(ids == 7, 0, ids))


def test_what_a_mask_leaves_out_is_unlabelled(tmp_path: Path, progress: Recorder, ids: Array) -> None:
    mask = np.arange(48).reshape(6, 8) % 3 > 0
    labels = LabelRaster(str(write_raster(tmp_path / "l.tif", ids, mask=mask)), GRID, progress)
    assert np.array_equal(labels.read(WHOLE), np.where(mask, ids, 0))
    labels = LabelRaster(str(tmp_path / "l.tif"), GRID, progress, zero_as=9)
    assert np.array_equal(labels.read(WHOLE), np.where(mask, np.where(ids == 0, 9, ids), 0))


@pytest.mark.parametrize("nodata", [None, 0, 255])
@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_zero_becomes_a_class(tmp_path: Path, progress: Recorder, ids: Array, nodata: int | None, dtype: str) -> None:
    source = write_raster(tmp_path / "l.tif", ids.astype(dtype), nodata=nodata)
    labels = LabelRaster(str(source), GRID, progress, zero_as=9)
    wanted = np.where(ids == 0, 9, ids)
    if nodata == 255:
        wanted[ids == 255] = 0
    assert np.array_equal(labels.read(WHOLE), wanted)
    assert labels.values(progress) == set(np.unique(wanted)) - {0}
    assert bool(progress.infos) == (nodata == 0), "that 0 was no data is told"
    assert (labels.read_padded(Window(-1, 0, 9, 6))[:, 0] == 0).all(), "beyond the border is not 0 as a class"


def test_zero_on_another_grid_is_a_class_only_where_there_are_labels(
    tmp_path: Path, progress: Recorder, ids: Array
) -> None:
    for nodata in (None, 0):
        source = write_raster(tmp_path / "l.tif", ids, transform=moved(columns=3), nodata=nodata)
        read = LabelRaster(str(source), GRID, progress, zero_as=9).read(WHOLE)
        assert (read[:, :3] == 0).all()
        assert np.array_equal(read[:, 3:], np.where(ids == 0, 9, ids)[:, :5])


def test_zero_as_an_id_that_is_taken_is_refused(tmp_path: Path, progress: Recorder, ids: Array) -> None:
    labels = LabelRaster(str(write_raster(tmp_path / "l.tif", ids)), GRID, progress, zero_as=7)
    with pytest.raises(ConfigError, match=r"ZERO_AS is 7, .*already holds a class 7"):
        labels.values(progress)


def test_names_and_colours(tmp_path: Path, progress: Recorder, ids: Array) -> None:
    source = write_raster(
        tmp_path / "l.tif",
        ids,
        categories={0: "nothing", 1: "Wald", 7: "Straße"},
        colors={1: (1, 2, 3), 7: (255, 0, 16), 255: (9, 9, 9)},
    )
    labels = LabelRaster(str(source), GRID, progress)
    table = labels.table({1, 7, 255})
    assert table.names == ("Wald", "Straße", "class 255")
    assert [entry.color for entry in table.entries] == ["#010203", "#ff0010", "#090909"]
    known = labels.table({1, 7}, (ClassEntry(7, "Road", "#aabbcc"),))
    assert known.entries == (ClassEntry(1, "Wald", "#010203"), ClassEntry(7, "Road", "#aabbcc"))
    zero = LabelRaster(str(source), GRID, progress, zero_as=2).table({1, 2})
    assert zero.names == ("Wald", "nothing")


def test_several_bands_are_a_warning(tmp_path: Path, progress: Recorder, ids: Array) -> None:
    source = write_raster(tmp_path / "l.tif", np.stack([ids, 255 - ids]))
    assert np.array_equal(LabelRaster(str(source), GRID, progress).read(WHOLE), ids)
    assert "2 bands" in progress.warnings[0]


@given(st.integers(-7, 7), st.integers(-5, 5), st.sampled_from([None, 7]))
def test_labels_on_a_moved_grid_are_warped_and_the_log_says_so(
    tmp_path: Path, columns: int, rows: int, nodata: int | None
) -> None:
    progress = Recorder()
    ids = np.random.default_rng(1).choice([0, 1, 7, 255], (6, 8)).astype(np.uint8)
    source = write_raster(tmp_path / "l.tif", ids, transform=moved(columns, rows), nodata=nodata)
    read = LabelRaster(str(source), GRID, progress).read(WHOLE)
    wanted = np.zeros((6, 8), np.uint8)
    for row in range(6):
        for column in range(8):
            if 0 <= row - rows < 6 and 0 <= column - columns < 8:
                value = ids[row - rows, column - columns]
                wanted[row, column] = 0 if value == nodata else value
    assert np.array_equal(read, wanted)
    assert any("warped" in text for text in progress.infos) == bool(columns or rows)


@pytest.mark.parametrize("turn", [0, 30, 90, 200])
@pytest.mark.parametrize("mirrored", [False, True])
def test_labels_come_to_grids_that_are_turned_or_south_up(
    tmp_path: Path, progress: Recorder, turn: float, mirrored: bool
) -> None:
    random = np.random.default_rng(3)
    ids = random.choice([0, 1, 7, 255], (40, 50)).astype(np.uint8)
    x, y = TRANSFORM[0], TRANSFORM[3]
    source = write_raster(tmp_path / "l.tif", ids, transform=(x - 200, 10.0, 0, y + 200, 0, -10.0))
    along, across = 7 * np.cos(np.radians(turn)), 7 * np.sin(np.radians(turn))
    way = 1 if mirrored else -1
    grid = Grid(24, 20, (x, along, -way * across, y, across, way * along), utm())
    read = LabelRaster(str(source), grid, progress).read(Window(0, 0, 24, 20))
    wanted = np.zeros((20, 24), np.uint8)
    for row in range(20):
        for column in range(24):
            east, north = grid.ground(column + 0.5, row + 0.5)
            place = int((y + 200 - north) // 10), int((east - x + 200) // 10)
            if 0 <= place[0] < 40 and 0 <= place[1] < 50:
                wanted[row, column] = ids[place]
    assert np.array_equal(read, wanted)
    assert len(np.unique(wanted)) == 4 and any("warped" in text for text in progress.infos)


def test_finer_labels_are_taken_from_the_nearest_pixel(tmp_path: Path, progress: Recorder, ids: Array) -> None:
    fine = np.kron(ids, np.ones((3, 3))).astype(np.uint8)
    fine[::3], fine[:, ::3] = 99, 99  # not the middle of any pixel of the image
    source = write_raster(tmp_path / "l.tif", fine, transform=moved(pixel=10 / 3))
    assert np.array_equal(LabelRaster(str(source), GRID, progress).read(WHOLE), ids)


def test_labels_in_another_crs_fall_on_their_ground(tmp_path: Path, progress: Recorder) -> None:
    big = Grid(60, 60, TRANSFORM, utm())
    ids = np.kron(np.arange(1, 10).reshape(3, 3), np.ones((20, 20))).astype(np.uint8)
    there = tmp_path / "l.tif"
    vrt = gdal.Warp(
        str(there),
        str(write_raster(tmp_path / "own.tif", ids)),
        options=gdal.WarpOptions(dstSRS="EPSG:32632", resampleAlg="near", xRes=2, yRes=2, dstNodata=0),
    )
    del vrt
    read = LabelRaster(str(there), big, progress).read(Window(0, 0, 60, 60))
    assert "warped" in progress.infos[0]
    labelled = read > 0
    assert labelled.mean() > 0.95 and (read[labelled] == ids[labelled]).mean() > 0.98
    inner = (slice(5, 15), slice(5, 15))
    assert (read[inner] == 1).all()


@pytest.mark.parametrize("columns", [8, -8, 900])
def test_no_common_ground_is_an_error(
    tmp_path: Path, progress: Recorder, ids: Array, columns: int, gdal_errors: str
) -> None:
    far = write_raster(tmp_path / "far.tif", ids, transform=moved(columns))
    with pytest.raises(RasterError, match=r"LABELS .*far\.tif and the image have no common ground"):
        LabelRaster(str(far), GRID, progress)
    zone = write_raster(tmp_path / "zone.tif", ids, crs=utm(31))
    with pytest.raises(RasterError, match="no common ground"):
        LabelRaster(str(zone), GRID, progress)


def test_both_without_crs(tmp_path: Path, progress: Recorder, ids: Array) -> None:
    source = write_raster(tmp_path / "l.tif", ids, crs="", transform=moved(columns=2))
    labels = LabelRaster(str(source), Grid(8, 6), progress)
    assert np.array_equal(labels.read(WHOLE), ids)
    assert "no coordinate system" in progress.warnings[0]
    with pytest.raises(RasterError, match="no coordinate system"):
        LabelRaster(str(source), Grid(8, 7), progress)


@pytest.mark.parametrize(("image_crs", "label_crs", "named"), [("", None, "The image"), (None, "", "LABELS")])
def test_one_without_crs_is_an_error_that_names_it(
    tmp_path: Path, progress: Recorder, ids: Array, image_crs: str | None, label_crs: str | None, named: str
) -> None:
    source = write_raster(tmp_path / "l.tif", ids, crs=label_crs)
    grid = Grid(8, 6, TRANSFORM, utm() if image_crs is None else image_crs)
    with pytest.raises(RasterError, match=f"^{named}.* has no coordinate system.*Assign"):
        LabelRaster(str(source), grid, progress)


def test_looking_at_all_values_can_be_canceled(tmp_path: Path, ids: Array) -> None:
    labels = LabelRaster(str(write_raster(tmp_path / "l.tif", ids)), GRID, Recorder())
    with pytest.raises(Canceled):
        labels.values(Recorder(cancel_at=1))


def test_values_are_found_in_every_block(tmp_path: Path, progress: Recorder) -> None:
    large = np.zeros((1100, 2100), np.uint8)
    large[0, 0], large[1099, 0], large[0, 2099], large[1099, 2099], large[500, 1500] = 1, 2, 3, 4, 5
    source = write_raster(tmp_path / "l.tif", large)
    labels = LabelRaster(str(source), Grid(2100, 1100, TRANSFORM, utm()), progress)
    assert labels.values(progress) == {1, 2, 3, 4, 5}
    assert progress.shares[-1] == 1
