# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of writing GeoTIFFs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal

from specdeepmap.core.data.bands import Band
from specdeepmap.core.data.classes import ClassTable
from specdeepmap.core.data.grid import Grid
from specdeepmap.core.data.labels import names_and_colors
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.tiling import Window
from specdeepmap.core.data.writer import GeoTiff, build_overviews, overview_levels, write_class_chip
from specdeepmap.core.errors import RasterError
from tests.helpers import TRANSFORM, Array, Recorder, full_disk, read_pixels, utm

# With GDAL's exceptions on, its destructor complains once more about the full disk.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

GRID = Grid(30, 20, TRANSFORM, utm())


@pytest.fixture
def numbers(random: np.random.Generator) -> Array:
    return random.integers(0, 100, (4, 20, 30))


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "i4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("nodata", [None, 99.0])
def test_pixels_type_place_and_bands_survive(tmp_path: Path, numbers: Array, dtype: str, nodata: float | None) -> None:
    bands = (
        Band("blau", 443.5, 20.0, False, nodata),
        Band("Band 2", None, None, True, nodata),
        Band("ä, b", 2190.0, None, False, nodata),
        Band("four", 1e4, 5.0, False, nodata),
    )
    path = tmp_path / "ä b.tif"
    with GeoTiff(path, GRID, 4, np.dtype(dtype), nodata, ("COMPRESS=ZSTD", "INTERLEAVE=BAND")) as tif:
        tif.describe(bands)
        tif.write(numbers.astype(dtype))
    raster = Raster.open(path)
    values, valid = raster.read(Window(0, 0, 30, 20))
    assert values.dtype == np.dtype(dtype) and np.array_equal(values, numbers)
    assert raster.grid == Grid(30, 20, TRANSFORM, raster.grid.crs) and raster.grid.same_crs(GRID)
    assert raster.bands == bands
    assert np.array_equal(valid, numbers != nodata), "four Byte bands, too, have no alpha band"


def test_nan_as_nodata(tmp_path: Path) -> None:
    with GeoTiff(tmp_path / "a.tif", GRID, 1, np.float32, float("nan")) as tif:
        tif.write(np.full((1, 20, 30), np.nan, np.float32))
    assert np.isnan(gdal.Open(str(tmp_path / "a.tif")).GetRasterBand(1).GetNoDataValue())


def test_windows_are_put_together(tmp_path: Path, numbers: Array) -> None:
    with GeoTiff(tmp_path / "a.tif", GRID, 4, np.int16) as tif:
        for x in range(0, 30, 7):
            for y in range(0, 20, 6):
                window = Window(x, y, 7, 6).clipped(30, 20)
                tif.write(numbers[:, y : window.y_end, x : window.x_end].astype("i2"), window)
    assert np.array_equal(read_pixels(tmp_path / "a.tif"), numbers)


def test_a_mask_lies_inside_the_file(tmp_path: Path, numbers: Array) -> None:
    mask = numbers[0] > 50
    with GeoTiff(tmp_path / "a.tif", GRID, 4, np.uint8) as tif:
        tif.write_mask(mask)
        tif.write(numbers.astype("u1"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]
    values, valid = Raster.open(tmp_path / "a.tif").read(Window(0, 0, 30, 20))
    assert np.array_equal(values, numbers)
    assert all(np.array_equal(band, mask) for band in valid)
    assert gdal.GetConfigOption("GDAL_TIFF_INTERNAL_MASK") is None


def test_a_grid_without_place_stays_without(tmp_path: Path, numbers: Array) -> None:
    with GeoTiff(tmp_path / "a.tif", Grid(30, 20), 4, np.uint8) as tif:
        tif.write(numbers.astype("u1"))
    raster = gdal.Open(str(tmp_path / "a.tif"))
    assert raster.GetProjectionRef() == "" and raster.GetGeoTransform(can_return_null=True) is None


def test_class_chips(tmp_path: Path, random: np.random.Generator) -> None:
    table = ClassTable.of([7, 200], {7: "Wald", 200: "Straße"}, {7: "#010203", 200: "#fffefd"})
    labels = random.choice([0, 7, 200], (20, 30)).astype(np.uint8)
    write_class_chip(tmp_path / "l.tif", labels, GRID, table)
    raster = gdal.Open(str(tmp_path / "l.tif"))
    band = raster.GetRasterBand(1)
    assert (band.DataType, band.GetNoDataValue()) == (gdal.GDT_Byte, 0)
    assert band.GetColorTable().GetColorEntry(0)[3] == 0, "unlabelled is transparent"
    names, colors = names_and_colors(raster)
    assert (names[7], names[200], colors[7], colors[200]) == ("Wald", "Straße", "#010203", "#fffefd")
    assert np.array_equal(read_pixels(tmp_path / "l.tif")[0], labels)


@pytest.mark.parametrize("size", [0, 2000, 30000])
@pytest.mark.parametrize("options", [(), ("COMPRESS=ZSTD",), ("TILED=YES", "BLOCKXSIZE=16", "BLOCKYSIZE=16")])
def test_a_full_disk_ends_with_a_sentence(
    tmp_path: Path, random: np.random.Generator, gdal_errors: str, size: int, options: tuple[str, ...]
) -> None:
    noise = random.random((4, 100, 100))  # 320 kB, which no compression makes small

    def write() -> None:
        with GeoTiff(tmp_path / "a.tif", Grid(100, 100, TRANSFORM, utm()), 4, np.float64, None, options) as tif:
            for row in range(0, 100, 10):
                tif.write(noise[:, row : row + 10], Window(0, row, 100, 10))

    with full_disk(size), pytest.raises(RasterError, match=r"cannot be written: .+Is the disk full"):
        write()
    if gdal_errors == "returns":
        write()
        assert np.array_equal(read_pixels(tmp_path / "a.tif"), noise)


def test_a_folder_that_is_not_there_ends_with_a_sentence(tmp_path: Path, gdal_errors: str) -> None:
    with pytest.raises(RasterError, match=r"missing cannot be written: .+"):
        GeoTiff(tmp_path / "missing" / "a.tif", GRID, 1, np.uint8)


def test_an_error_inside_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(KeyError), GeoTiff(tmp_path / "a.tif", GRID, 1, np.uint8):
        raise KeyError


@pytest.mark.parametrize("side", [1, 255, 256, 511, 512, 1024, 5000, 100000])
def test_overviews_bring_a_map_down_to_about_256_pixels(side: int) -> None:
    levels = overview_levels(Grid(side, 3))
    assert levels == tuple(2**power for power in range(1, len(levels) + 1))
    smallest = side / (levels[-1] if levels else 1)
    assert smallest < 512 and (not levels or smallest >= 256)


def test_overviews_hold_classes_only(tmp_path: Path) -> None:
    checker = (np.indices((600, 600)).sum(axis=0) % 2 * 9 + 1).astype(np.uint8)
    tif = GeoTiff(tmp_path / "a.tif", Grid(600, 600, TRANSFORM, utm()), 1, np.uint8, 0)
    tif.write(checker[None])
    tif.close()
    build_overviews(tmp_path / "a.tif", "NEAREST", Recorder())
    raster = gdal.Open(str(tmp_path / "a.tif"))
    band = raster.GetRasterBand(1)
    assert band.GetOverviewCount() == 1
    assert set(np.unique(band.GetOverview(0).ReadAsArray())) <= {1, 10}
