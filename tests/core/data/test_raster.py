# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of reading rasters, and of which pixels are data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from osgeo import gdal

from specdeepmap.core.data.bandmatch import reordered
from specdeepmap.core.data.grid import Grid, bounds_in
from specdeepmap.core.data.raster import Raster, widen_cache
from specdeepmap.core.data.tiling import Window
from specdeepmap.core.errors import RasterError
from tests.helpers import TRANSFORM, Array, utm, write_raster

WHOLE = Window(0, 0, 6, 5)
GRID = Grid(100, 80, TRANSFORM, utm())


@pytest.fixture
def numbers(random: np.random.Generator) -> Array:
    return random.integers(1, 200, (3, 5, 6))


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "i4", "i8", "u8", "f4", "f8"])
def test_pixels_of_every_number_type(tmp_path: Path, numbers: Array, dtype: str) -> None:
    raster = Raster.open(write_raster(tmp_path / "a.tif", numbers.astype(dtype)))
    values, valid = raster.read(WHOLE)
    assert values.dtype == raster.dtype == np.dtype(dtype)
    assert np.array_equal(values, numbers) and valid.all()
    part, _ = raster.read(Window(2, 1, 3, 4))
    assert np.array_equal(part, numbers[:, 1:5, 2:5])


def test_a_single_band_and_a_single_pixel_keep_three_axes(tmp_path: Path) -> None:
    raster = Raster.open(write_raster(tmp_path / "a.tif", np.array([[7]], np.uint8)))
    values, valid = raster.read(Window(0, 0, 1, 1))
    assert values.shape == valid.shape == (1, 1, 1)


def test_each_band_has_its_own_nodata(tmp_path: Path, numbers: Array) -> None:
    numbers[:] = numbers[0]
    path = tmp_path / "a.vrt"
    sources = []
    for index, value in enumerate((numbers[0, 0, 0], numbers[0, 4, 5], None)):
        source = write_raster(
            tmp_path / f"{index}.tif", numbers[index].astype("i2"), nodata=None if value is None else int(value)
        )
        sources.append(str(source))
    vrt = gdal.BuildVRT(str(path), sources, separate=True)
    vrt.FlushCache()
    del vrt
    _, valid = Raster.open(path).read(WHOLE)
    assert np.array_equal(valid[0], numbers[0] != numbers[0, 0, 0])
    assert np.array_equal(valid[1], numbers[0] != numbers[0, 4, 5])
    assert valid[2].all()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_nan_and_infinity_are_no_data(tmp_path: Path, numbers: Array, dtype: str) -> None:
    values = numbers.astype(dtype)
    values[0, 0, 0], values[1, 1, 1], values[2, 2, 2] = np.nan, np.inf, -np.inf
    for nodata in (None, float("nan"), float(values[0, 3, 3])):
        _, valid = Raster.open(write_raster(tmp_path / "a.tif", values, nodata=nodata)).read(WHOLE)
        assert np.array_equal(valid, np.isfinite(values) & (values != nodata))


@pytest.mark.parametrize("nodata", [0.1, -3.4028234663852886e38, -9999.0, 1e20])
def test_nodata_is_compared_in_the_numbers_of_the_band(tmp_path: Path, numbers: Array, nodata: float) -> None:
    values = numbers.astype("f4")
    values[:, 2, 3] = nodata
    path = write_raster(tmp_path / "a.tif", values, nodata=nodata)
    _, valid = Raster.open(path).read(WHOLE)
    assert (valid.sum(axis=(1, 2)) == 29).all() and not valid[:, 2, 3].any()
    plain = write_raster(tmp_path / "b.tif", values)
    _, valid = Raster.open(plain, nodata).read(WHOLE)
    assert (valid.sum(axis=(1, 2)) == 29).all(), "an override works the same"


@pytest.mark.parametrize(("dtype", "nodata"), [("u1", -9999.0), ("u2", -32768.0), ("u1", 256.0), ("i2", 0.5)])
def test_a_nodata_that_the_type_cannot_hold_is_none(tmp_path: Path, numbers: Array, dtype: str, nodata: float) -> None:
    raster = Raster.open(write_raster(tmp_path / "a.tif", numbers.astype(dtype), nodata=nodata))
    assert raster.nodata is None
    assert raster.read(WHOLE)[1].all()


def test_an_override_wins_over_the_file(tmp_path: Path, numbers: Array) -> None:
    path = write_raster(tmp_path / "a.tif", numbers.astype("i2"), nodata=int(numbers[0, 0, 0]))
    raster = Raster.open(path, float(numbers[1, 1, 1]))
    assert raster.nodata == numbers[1, 1, 1]
    assert np.array_equal(raster.read(WHOLE)[1], numbers != numbers[1, 1, 1])


def masked_by_band(folder: Path, numbers: Array, masks: Array) -> Path:
    """Write a virtual raster whose bands have masks of their own; an empty one is none."""
    write_raster(folder / "pixels.tif", numbers.astype("i2"))
    write_raster(folder / "masks.tif", masks.astype("u1") * 255)
    source = (
        "<SimpleSource><SourceFilename relativeToVRT='1'>{}</SourceFilename><SourceBand>{}</SourceBand></SimpleSource>"
    )
    bands = ""
    for number, mask in enumerate(masks, 1):
        inner = f"<VRTRasterBand dataType='Byte'>{source.format('masks.tif', number)}</VRTRasterBand>"
        own = f"<MaskBand>{inner}</MaskBand>" if mask.any() else ""
        pixels = source.format("pixels.tif", number)
        bands += f"<VRTRasterBand dataType='Int16' band='{number}'>{own}{pixels}</VRTRasterBand>"
    rows, columns = numbers.shape[1:]
    text = f"<VRTDataset rasterXSize='{columns}' rasterYSize='{rows}'>{bands}</VRTDataset>"
    (folder / "masked.vrt").write_text(text, encoding="utf-8")
    return folder / "masked.vrt"


def test_masks_of_single_bands(tmp_path: Path, numbers: Array) -> None:
    masks = np.stack([np.arange(30).reshape(5, 6) % 4 > 0, np.zeros((5, 6), bool), np.arange(30).reshape(5, 6) < 20])
    raster = Raster.open(masked_by_band(tmp_path, numbers[:3], masks))
    assert raster.masked and raster.masked_by_band
    wanted = masks.copy()
    wanted[1] = True
    assert np.array_equal(raster.read(raster.whole)[1], wanted)
    other = reordered(raster, (2, 0, 2))
    assert np.array_equal(other.read(raster.whole)[1], wanted[[2, 0, 2]])
    again = reordered(Raster.open(tmp_path / "masked.vrt"), (1, 0))
    assert np.array_equal(again.read(raster.whole)[1], wanted[[1, 0]])


def test_a_mask_says_which_pixels_are_data(tmp_path: Path, numbers: Array) -> None:
    mask = np.arange(30).reshape(5, 6) % 4 > 0
    raster = Raster.open(write_raster(tmp_path / "a.tif", numbers.astype("u2"), mask=mask))
    assert raster.masked and raster.nodata is None
    values, valid = raster.read(Window(1, 0, 5, 5))
    assert all(np.array_equal(band, mask[:, 1:]) for band in valid)
    assert np.array_equal(values, numbers[:, :, 1:]), "masked pixels keep their values"


def test_an_alpha_band_says_which_pixels_are_data(tmp_path: Path, numbers: Array) -> None:
    image = np.concatenate([numbers, numbers[:1]]).astype("u1")
    image[3] = np.arange(30).reshape(5, 6) % 3 * 100
    raster = Raster.open(write_raster(tmp_path / "a.tif", image, options=("ALPHA=YES",)))
    assert raster.masked
    _, valid = raster.read(WHOLE)
    assert all(np.array_equal(band, image[3] > 0) for band in valid)
    plain = Raster.open(write_raster(tmp_path / "b.tif", image))
    assert not plain.masked and plain.read(WHOLE)[1].all(), "a fourth band is not always alpha"


def test_bands_of_different_types_are_read_in_one_that_holds_all(tmp_path: Path, numbers: Array) -> None:
    top = [200, 65535, -32768]
    paths = []
    for index, dtype in enumerate(("u1", "u2", "i2")):
        band = numbers[index].astype(dtype)
        band[0, 0] = top[index]
        paths.append(str(write_raster(tmp_path / f"{index}.tif", band)))
    vrt = gdal.BuildVRT(str(tmp_path / "a.vrt"), paths, separate=True)
    vrt.FlushCache()
    del vrt
    raster = Raster.open(tmp_path / "a.vrt")
    values, _ = raster.read(WHOLE)
    assert values[:, 0, 0].tolist() == top
    assert values.dtype == raster.dtype == np.int32


def test_complex_numbers_are_refused(tmp_path: Path, numbers: Array, gdal_errors: str) -> None:
    path = write_raster(tmp_path / "a.tif", numbers.astype("c8"))
    with pytest.raises(RasterError, match=r"a\.tif holds complex numbers.*amplitude"):
        Raster.open(path)


def test_what_is_no_raster_is_named(tmp_path: Path, gdal_errors: str) -> None:
    (tmp_path / "text.tif").write_text("hello")
    for name in (tmp_path / "text.tif", tmp_path / "missing ä.tif", tmp_path, ""):
        with pytest.raises(RasterError, match=r"cannot be opened as a raster: .") as caught:
            Raster.open(name)
        assert str(name) in str(caught.value)


def test_a_truncated_file_is_named(tmp_path: Path, random: np.random.Generator, gdal_errors: str) -> None:
    path = write_raster(tmp_path / "a.tif", random.integers(0, 250, (2, 200, 200)).astype("u1"))
    path.write_bytes(path.read_bytes()[:30000])
    with pytest.raises(RasterError, match=r"a\.tif cannot be .*: ."):
        Raster.open(path).read(Window(0, 0, 200, 200))


MANY = ("TILED=YES", "BLOCKXSIZE=16", "BLOCKYSIZE=16", "INTERLEAVE=PIXEL", "SPARSE_OK=TRUE")


def test_tiles_with_many_bands_are_read_past_the_cache(tmp_path: Path, random: np.random.Generator) -> None:
    image = random.integers(1, 200, (60, 40, 50)).astype("i2")
    image[:, 16:32, 16:32] = -5  # a tile that is not stored
    image[3, 2, 2] = -5
    path = write_raster(tmp_path / "a.tif", image, nodata=-5, options=MANY)
    used = gdal.GetCacheUsed()
    raster = Raster.open(path)
    shown = reordered(raster, range(59, -1, -2))
    for window in (raster.whole, Window(3, 5, 30, 17), Window(49, 39, 1, 1)):
        inside = np.s_[:, window.y : window.y_end, window.x : window.x_end]
        values, valid = raster.read(window)
        assert np.array_equal(values, image[inside]) and np.array_equal(valid, image[inside] != -5)
        assert np.array_equal(shown.read(window)[0], image[::-2][inside])
    assert gdal.GetCacheUsed() == used
    few = Raster.open(write_raster(tmp_path / "b.tif", image[:8], options=MANY))
    few.read(few.whole)
    assert gdal.GetCacheUsed() > used, "a few bands are read through the cache, and the next file as ever"


def test_tiles_with_many_bands_that_are_cut_off(tmp_path: Path, random: np.random.Generator, gdal_errors: str) -> None:
    path = write_raster(tmp_path / "a.tif", random.integers(1, 200, (60, 40, 50)).astype("u1"), options=MANY)
    path.write_bytes(path.read_bytes()[:60000])
    with pytest.raises(RasterError, match=r"a\.tif cannot be read at .*: ."):
        Raster.open(path).read(Window(0, 0, 50, 40))


def test_small_windows_decode_no_block_twice(tmp_path: Path, random: np.random.Generator) -> None:
    """Rows of windows lower than a block need the same blocks again: the cache has to hold a row of them."""
    image = random.integers(1, 200, (4, 128, 4096)).astype("u2")
    options = ("TILED=YES", "BLOCKXSIZE=128", "BLOCKYSIZE=128", "COMPRESS=DEFLATE")
    raster = Raster.open(write_raster(tmp_path / "a.tif", image, options=options))
    count = raster.windows_at_a_time(32, 32, 8)
    need = raster.cache_need_by_rows(32, count * 32)
    assert count == 8 and image.nbytes <= need < 3 * image.nbytes
    before = gdal.GetCacheMax()
    try:
        gdal.SetCacheMax(gdal.GetCacheUsed())
        widen_cache(need)
        raster.read(Window(0, 0, 32, 32))
        raster.read(Window(4000, 0, 32, 32))
        (tmp_path / "a.tif").write_bytes(b"")  # what is read now comes from the cache
        assert np.array_equal(raster.read(Window(32, 64, 32, 32))[0], image[:, 64:96, 32:64])
    finally:
        gdal.SetCacheMax(before)


@pytest.mark.parametrize(("bands", "together"), [(4, 128), (40, 32), (200, 1)])
def test_windows_are_read_together_as_far_as_their_blocks_fit_into_the_cache(
    tmp_path: Path, bands: int, together: int
) -> None:
    """GDAL may decode wide blocks band by band, and would do so anew for each."""
    options = ("TILED=YES", "BLOCKXSIZE=512", "BLOCKYSIZE=512", "COMPRESS=DEFLATE", "SPARSE_OK=TRUE")
    empty = gdal.GetDriverByName("GTiff").Create(str(tmp_path / "a.tif"), 20000, 600, bands, gdal.GDT_UInt16, options)
    empty.FlushCache()
    raster = Raster.open(tmp_path / "a.tif")
    count = raster.windows_at_a_time(64, 64, 128)
    need = raster.cache_need_by_rows(64, count * 64)
    assert count == together and (count == 1 or raster.cache_need(64, count * 64) <= 2**27)
    assert need >= (512 + 64) * 20000 * bands * 2, "a row of blocks and what reaches over it"
    assert raster.cache_need_by_rows(1024, 1024) < raster.cache_need(1024, 20000)


def test_a_container_without_bands_is_named(tmp_path: Path) -> None:
    empty = gdal.GetDriverByName("MEM").Create("", 5, 5, 0)
    with pytest.raises(RasterError, match="has no band"):
        Raster(empty, "container.h5")


def test_bad_bands_have_no_say_unless_all_are_bad(tmp_path: Path, numbers: Array) -> None:
    for flags, good in (("101", [True, False, True]), ("000", [True] * 3), ("111", [True] * 3)):
        path = tmp_path / f"{flags}.tif"
        write_raster(path, numbers.astype("u1"), metadata=[{"bbl": flag} for flag in flags])
        assert Raster.open(path).good.tolist() == good


@given(st.data())
def test_read_padded_equals_numpys_padding(tmp_path: Path, data: st.DataObject) -> None:
    width, height = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    image = np.random.default_rng(0).integers(1, 99, (2, height, width)).astype("i2")
    image[0, 0, 0] = -5
    nodata = data.draw(st.sampled_from([None, -5]))
    raster = Raster.open(write_raster(tmp_path / "a.tif", image, nodata=nodata))
    x, y = data.draw(st.integers(-9, width - 1)), data.draw(st.integers(-9, height - 1))
    window = Window(x, y, data.draw(st.integers(1 - min(x, 0), 40)), data.draw(st.integers(1 - min(y, 0), 40)))
    far = 60
    around = ((0, 0), (far, far), (far, far))
    cut = (slice(None), slice(y + far, window.y_end + far), slice(x + far, window.x_end + far))
    missing = np.zeros(image.shape, bool) if nodata is None else image == nodata

    mirrored, mirrored_valid = np.pad(image, around, "symmetric"), ~np.pad(missing, around, "symmetric")
    values, valid = raster.read_padded(window, mirror=True)
    assert np.array_equal(values, mirrored[cut])
    assert np.array_equal(valid, mirrored_valid[cut])

    neighbour = Window(max(x - 4, -9), y, data.draw(st.integers(10, 40)), data.draw(st.integers(10, 40)))
    first, second = raster.read_mirrored([window, neighbour])
    assert np.array_equal(first[0], values) and np.array_equal(first[1], valid)
    there = (slice(None), slice(y + far, neighbour.y_end + far), slice(neighbour.x + far, neighbour.x_end + far))
    assert np.array_equal(second[0], mirrored[there])
    assert np.array_equal(second[1], mirrored_valid[there])

    values, valid = raster.read_padded(window, mirror=False)
    assert np.array_equal(values, np.pad(image, around, constant_values=nodata or 0)[cut])
    assert np.array_equal(valid, ~np.pad(missing, around, constant_values=True)[cut])


@pytest.mark.parametrize("nodata", [None, 3])
def test_what_is_stored_pixel_by_pixel_is_given_so_with_its_validity(tmp_path: Path, nodata: int | None) -> None:
    """Going through both in different orders takes three times as long."""
    image = np.arange(60 * 20 * 20).reshape(60, 20, 20).astype("u2")
    options = ("TILED=YES", "BLOCKXSIZE=16", "BLOCKYSIZE=16", "INTERLEAVE=PIXEL")
    raster = Raster.open(write_raster(tmp_path / "a.tif", image, nodata=nodata, options=options))
    for window in (Window(0, 0, 20, 20), Window(-3, -3, 26, 26)):
        values, valid = raster.read_padded(window, mirror=True)
        for array in (values, valid):
            assert array.transpose(1, 2, 0).flags.c_contiguous


def test_the_grid_of_a_file(tmp_path: Path, numbers: Array) -> None:
    grid = Raster.open(write_raster(tmp_path / "a.tif", numbers.astype("u1"))).grid
    assert grid.same_as(Grid(6, 5, TRANSFORM, utm()))
    assert grid.extent == (500000, 5800000 - 50, 500000 + 60, 5800000)
    assert grid.north_up
    plain = Raster.open(write_raster(tmp_path / "b.tif", numbers.astype("u1"), crs="", transform=None)).grid
    assert plain == Grid(6, 5, (0, 1, 0, 0, 0, -1)), "where QGIS shows it"


def test_grids_are_the_same_up_to_a_hundredth_of_a_pixel() -> None:
    a, b, c, d, e, f = TRANSFORM
    assert GRID.same_as(GRID)
    assert GRID.same_as(Grid(100, 80, (a + 0.05, b, c, d - 0.05, e, f), utm()))
    assert not GRID.same_as(Grid(100, 80, (a + 0.5, b, c, d, e, f), utm()))
    assert not GRID.same_as(Grid(100, 80, (a, b * 1.001, c, d, e, f), utm())), "corners drift apart"
    assert not GRID.same_as(Grid(100, 80, (a, b, c, d, e, -f), utm()))
    assert not GRID.same_as(Grid(100, 81, TRANSFORM, utm()))
    assert not GRID.same_as(Grid(100, 80, TRANSFORM, utm(32)))
    assert not GRID.same_as(Grid(100, 80, TRANSFORM, ""))
    assert Grid(3, 3).same_as(Grid(3, 3))


def test_a_crs_may_be_written_in_two_ways() -> None:
    from osgeo import osr

    system = osr.SpatialReference()
    system.ImportFromEPSG(32633)
    other = system.ExportToWkt(["FORMAT=WKT2_2019"])
    assert other != utm()
    assert GRID.same_as(Grid(100, 80, TRANSFORM, other))


def test_cut_moves_the_origin_also_outside_and_on_turned_grids() -> None:
    assert GRID.cut(Window(3, 4, 7, 8)) == Grid(
        7, 8, (TRANSFORM[0] + 30, 10.0, 0.0, TRANSFORM[3] - 40, 0.0, -10.0), utm()
    )
    turned = Grid(9, 9, (100.0, 8.0, 6.0, 200.0, 6.0, -8.0))
    assert not turned.north_up
    assert turned.cut(Window(-2, 5, 3, 3)).ground(0, 0) == turned.ground(-2, 5)
    assert turned.cut(Window(-2, 5, 3, 3)).ground(1, 2) == pytest.approx(turned.ground(-1, 7))


@given(st.integers(0, 99), st.integers(0, 79), st.integers(1, 50), st.integers(1, 50))
def test_window_of_gives_back_a_windows_extent(x: int, y: int, width: int, height: int) -> None:
    window = Window(x, y, width, height).clipped(100, 80)
    assert GRID.window_of(GRID.cut(window).extent) == window


def test_window_of_takes_every_pixel_that_is_touched() -> None:
    xmin, _, _, ymax = GRID.extent
    assert GRID.window_of((xmin + 5, ymax - 25, xmin + 15, ymax - 15)) == Window(0, 1, 2, 2)
    assert GRID.window_of((xmin - 500, ymax - 10, xmin + 10, ymax + 500)) == Window(0, 0, 1, 1)
    assert GRID.window_of((0.0, 0.0, 1e7, 1e7)) == Window(0, 0, 100, 80)
    outside = GRID.window_of((xmin - 500, ymax + 100, xmin - 400, ymax + 200))
    assert outside.width == outside.height == 0


def test_bounds_in_another_crs() -> None:
    assert bounds_in(GRID, utm()) == GRID.extent
    there = bounds_in(GRID, utm(32))
    back = bounds_in(Grid(1, 1, (there[0], there[2] - there[0], 0, there[3], 0, there[1] - there[3]), utm(32)), utm())
    assert back[0] <= GRID.extent[0] + 1 and back[2] >= GRID.extent[2] - 1
    assert back == pytest.approx(GRID.extent, abs=300), "a box around a turned box is a bit larger"


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("several", [False, True])
def test_a_huge_nodata_value_that_a_header_rounds(tmp_path: Path, sign: int, several: bool) -> None:
    """As ENVI headers do with the smallest number of float32."""
    lowest = sign * float(np.finfo(np.float32).max)
    values = np.array([[[1.0, lowest, -1e20 * sign, sign * 1e20]]] * 2, np.float32)
    path = write_raster(tmp_path / "a.tif", values, nodata=None)
    raster = Raster.open(path, sign * 3.40282e38)
    if several:
        raster._nodata = (sign * 3.40282e38, -9999.0)
    valid = raster.read(raster.whole)[1]
    assert valid[0, 0].tolist() == [True, False, True, True]
    assert valid[1, 0].tolist() == [True, several, True, True]
