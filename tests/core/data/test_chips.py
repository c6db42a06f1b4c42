# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of chips: one no-data value for all bands, masks, label chips, names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from osgeo import gdal

from specdeepmap.core.data.chips import Chip, ChipWriter, chip_nodata, chips_of, read_chip
from specdeepmap.core.data.classes import ClassTable
from specdeepmap.core.data.labels import LabelRaster
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.tiling import Window, split_windows
from specdeepmap.core.errors import Canceled, RasterError
from tests.helpers import Array, Recorder, write_raster

NAN = float("nan")


def banded(path: Path, bands: Array, nodata: Sequence[float | None]) -> Path:
    """Write a VRT whose bands have different no-data values, over a GeoTIFF each."""
    parts = [str(write_raster(path.with_name(f"{path.stem}_{index}.tif"), band)) for index, band in enumerate(bands)]
    made = gdal.BuildVRT(str(path), parts, separate=True)
    for index, value in enumerate(nodata):
        if value is not None:
            made.GetRasterBand(index + 1).SetNoDataValue(value)
    made.FlushCache()
    del made
    return path


def cut(folder: Path, source: Path, size: int = 8, compression: str = "zstd") -> list[tuple[Window, Path, Path]]:
    """Cut a whole image, with labels of class 5 everywhere; gives windows, image chips and label chips."""
    image = Raster.open(source)
    ones = np.full((image.grid.height, image.grid.width), 5, np.uint8)
    where = write_raster(folder / "in" / "truth.tif", ones, crs=image.grid.crs, transform=image.grid.transform or None)
    labels = LabelRaster(str(where), image.grid, Recorder())
    nodata = chip_nodata(image, Recorder())
    writer = ChipWriter(image, nodata, ClassTable.of([5]), folder, source.stem, compression)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(exist_ok=True)
    made = []
    for window in split_windows((image.grid.width, image.grid.height), (size, size), (size, size), "pad"):
        writer.write(read_chip(image, labels, window))
        name = f"{writer.name(window)}.tif"
        made.append((window, folder / "images" / name, folder / "labels" / name))
    return made


def whole(path: Path) -> tuple[Array, Array]:
    raster = Raster.open(path)
    return raster.read(Window(0, 0, raster.grid.width, raster.grid.height))


NODATA = {
    "u1": (0, 255, 7, 1, None),
    "i2": (0, -9999, 5, -32768, None),
    "f4": (0.0, -9999.0, NAN, 1.5, None),
}


@settings(max_examples=15)
@given(st.sampled_from(list(NODATA)), st.data())
def test_bands_with_different_nodata_keep_every_pixels_validity(
    tmp_path: Path, dtype: str, data: st.DataObject
) -> None:
    """Every no-data value of one band occurs in the others as a valid pixel, at random places."""
    nodata = data.draw(st.lists(st.sampled_from(NODATA[dtype]), min_size=2, max_size=4))
    random = np.random.default_rng(data.draw(st.integers(0, 999)))
    some = [value for value in (*NODATA[dtype], 3, 90) if value is not None]
    bands = random.choice(np.array(some), (len(nodata), 8, 20)).astype(dtype)
    source = banded(tmp_path / "image.vrt", bands, nodata)
    values, valid = whole(source)
    truth = np.stack(
        [
            np.isfinite(band) & (band != (np.inf if none is None else none))
            for band, none in zip(bands, nodata, strict=True)
        ]
    )
    assert np.array_equal(valid, truth)
    try:
        chips = cut(tmp_path / "out", source)
    except RasterError as error:
        assert "different no-data values" in str(error) and dtype != "f4", "NaN is always free"
        return
    for window, image, label in chips:
        inside = slice(None), slice(0, 8), slice(window.x, min(window.x_end, 20))
        width = inside[2].stop - window.x
        chip, chip_valid = whole(image)
        assert np.array_equal(chip_valid[..., :width], truth[inside]), "neither lost nor gained"
        assert np.array_equal(chip[..., :width][truth[inside]], values[inside][truth[inside]])
        if any(value is not None for value in nodata):
            assert not chip_valid[..., width:].any(), "padding is no-data"
        wanted = np.where(truth[inside].any(axis=0), 5, 0)
        assert np.array_equal(whole(label)[0][0][:, :width], wanted)


def test_a_value_that_no_band_has_is_found_in_blocks_far_away(tmp_path: Path) -> None:
    bands = np.full((2, 1030, 1030), 3, np.uint8)
    bands[0, 1029, 1029] = 9  # valid here, no-data in the second band
    progress = Recorder()
    image = Raster.open(banded(tmp_path / "i.vrt", bands, (7, 9)))
    assert chip_nodata(image, progress) == 7
    assert any("different no-data values" in text for text in progress.infos)
    bands[1, 1029, 0] = 7
    assert chip_nodata(Raster.open(banded(tmp_path / "i.vrt", bands, (7, 9))), progress) == 0
    with pytest.raises(Canceled):
        chip_nodata(image, Recorder(cancel_at=1))


def test_when_no_value_is_free_the_error_says_so(tmp_path: Path) -> None:
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Raster.open(banded(tmp_path / "i.vrt", np.stack([every, every]), (0, 255)))
    with pytest.raises(RasterError, match=r"IMAGE .*i\.vrt.*different no-data values.*Set one no-data value"):
        chip_nodata(image, Recorder())


@pytest.mark.parametrize("nodata", [NAN, 0.0, None, 1e30])
def test_one_nodata_value_for_all_bands_needs_no_search(tmp_path: Path, nodata: float | None) -> None:
    progress = Recorder()
    bands = np.ones((3, 8, 8), np.float32)
    found = chip_nodata(Raster.open(banded(tmp_path / "i.vrt", bands, (nodata,) * 3)), progress)
    assert found == pytest.approx(nodata, nan_ok=True) if nodata is not None else found is None
    assert progress.infos == [] and progress.checks == 0


@pytest.mark.parametrize(("kind", "nodata"), [("mask", None), ("mask", 0), ("alpha", None)])
def test_what_a_mask_leaves_out_stays_out(
    tmp_path: Path, random: np.random.Generator, kind: str, nodata: int | None
) -> None:
    there = random.random((8, 20)) < 0.6
    image = random.integers(1, 9, (3, 8, 20)).astype(np.uint8)
    if kind == "mask":
        source = write_raster(tmp_path / "i.tif", image, nodata=nodata, mask=there)
    else:
        bands = np.concatenate([image, there[None] * np.uint8(255)])
        source = write_raster(tmp_path / "i.tif", bands, nodata=nodata, options=("ALPHA=YES", "PHOTOMETRIC=RGB"))
    assert Raster.open(source).masked
    for window, path, label in cut(tmp_path / "out", source):
        chip, valid = whole(path)
        width = min(8, 20 - window.x)
        part = there[:, window.x : window.x + width]
        assert np.array_equal(valid[:3, :, :width], np.broadcast_to(part, (3, 8, width)))
        assert np.array_equal(chip[:3, :, :width][:, part], image[:, :, window.x : window.x + width][:, part])
        assert np.array_equal(whole(label)[0][0][:, :width] == 5, part)
        assert sorted(file.name for file in path.parent.glob(f"{path.name}.*")) == [], "the mask lies inside"


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8"])
@pytest.mark.parametrize("compression", ["none", "lzw", "deflate", "zstd"])
def test_label_chips_are_byte_whatever_the_images_type(
    tmp_path: Path, random: np.random.Generator, dtype: str, compression: str
) -> None:
    source = write_raster(tmp_path / "i.tif", random.integers(0, 9, (2, 8, 8)).astype(dtype))
    ((_, image, label),) = cut(tmp_path / "out", source, compression=compression)
    opened = gdal.Open(str(label))
    band = opened.GetRasterBand(1)
    assert (band.DataType, band.GetNoDataValue(), opened.RasterCount) == (gdal.GDT_Byte, 0, 1)
    assert np.array_equal(whole(image)[0], whole(source)[0])
    wanted = {"none": None, "lzw": "LZW", "deflate": "DEFLATE", "zstd": "ZSTD"}[compression]
    for path in (image, label):
        assert gdal.Open(str(path)).GetMetadataItem("COMPRESSION", "IMAGE_STRUCTURE") == wanted


def test_counts_leave_out_the_unlabelled() -> None:
    labels = np.array([[0, 0, 7], [255, 7, 1]], np.uint8)
    counts = Chip(Window(0, 0, 3, 2), np.zeros((1, 2, 3)), None, labels).counts
    assert {value: int(counts[value]) for value in np.flatnonzero(counts)} == {1: 1, 7: 2, 255: 1}
    assert counts.shape == (256,)


def test_chips_of_an_image_are_told_by_its_whole_stem(tmp_path: Path) -> None:
    own = ["a_tile_0_0.tif", "a_tile_8_16.tif", "a_tile_0_0.tif.aux.xml", "a_tile_0_0.tif.msk"]
    others = ["b_tile_0_0.tif", "a_tile_3_tile_0_0.tif", "ba_tile_0_0.tif", "a_tile_0.tif", "a_tile_0_0.png", "a.tif"]
    for name in (*own, *others, "a.v1_tile_0_0.tif"):
        (tmp_path / name).touch()
    assert sorted(path.name for path in chips_of(tmp_path, "a")) == sorted(own)
    assert [path.name for path in chips_of(tmp_path, "a_tile_3")] == ["a_tile_3_tile_0_0.tif"]
    assert [path.name for path in chips_of(tmp_path, "a.v1")] == ["a.v1_tile_0_0.tif"]
    assert chips_of(tmp_path, ".") == []


@pytest.mark.parametrize("stem", ["S2A.20240101.v1", "a b", "ä", "my.tif.copy", "x.TIF"])
def test_a_chips_name_is_the_stem_and_the_offsets(tmp_path: Path, stem: str) -> None:
    source = write_raster(tmp_path / f"{stem}.tif", np.ones((1, 8, 16), np.uint8))
    names = [image.name for _, image, _ in cut(tmp_path / "out", source)]
    assert names == [f"{stem}_tile_0_0.tif", f"{stem}_tile_8_0.tif"]
