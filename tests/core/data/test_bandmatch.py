# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of finding a model's bands in an image, and of showing an image in the model's order."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from osgeo import gdal

from specdeepmap.core.data.bandmatch import _HOW, TOLERANCE_NM, match_bands, plain_name, reordered
from specdeepmap.core.data.bands import Band
from specdeepmap.core.data.options import MATCHES
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.tiling import Window
from specdeepmap.core.errors import RasterError
from tests.helpers import Array, write_raster

SENTINEL = (443, 490, 560, 665, 705, 740, 783, 842, 865, 945, 1375, 1610, 2190)
SENTINEL_2A = (442.7, 492.4, 559.8, 664.6, 704.1, 740.5, 782.8, 832.8, 864.7, 945.1, 1373.5, 1613.7, 2202.4)


def bands_of(names: Sequence[str] = (), waves: Sequence[float | None] = ()) -> tuple[Band, ...]:
    count = len(names) or len(waves)
    given_names = names or [f"Band {number}" for number in range(1, count + 1)]
    return tuple(Band(name, nm) for name, nm in zip(given_names, waves or [None] * count, strict=True))


def by_name(image: Sequence[str], model: Sequence[str]) -> tuple[int, ...]:
    return match_bands(bands_of(image), model, [None] * len(model), "name", "IMAGE a.tif")


def by_wavelength(
    image: Sequence[float | None], model: Sequence[float | None], names: Sequence[str] = ()
) -> tuple[int, ...]:
    named = names or [f"M{number}" for number in range(1, len(model) + 1)]
    return match_bands(bands_of(waves=image), named, model, "wavelength", "IMAGE a.tif")


def error_of(how: str, image: tuple[Band, ...], names: Sequence[str], waves: Sequence[float | None]) -> str:
    with pytest.raises(RasterError) as caught:
        match_bands(image, names, waves, how, "IMAGE a.tif")
    text = str(caught.value)
    assert f"MATCH_BANDS is {how}," in text and "et MATCH_BANDS to " in text
    return text


def test_bands_as_they_stand() -> None:
    assert list(_HOW) == list(MATCHES) == ["none", "name", "wavelength"]
    assert match_bands(bands_of("cab"), "ab", (None, None), "none", "IMAGE") == (0, 1, 2)


def test_names_count_but_for_case_and_spaces() -> None:
    assert by_name(["B 8A", "NIR", "red edge", "b8"], ["RedEdge", "B8", "b8a"]) == (2, 3, 0)
    assert plain_name(" Straße\t1 ") == plain_name("STRASSE 1") != plain_name("Strasse 11")
    assert by_name(["Red", "green"], ["green"]) == (1,), "an image may have more bands"


@given(st.data())
def test_a_model_finds_its_bands_in_any_order_and_among_others(data: st.DataObject) -> None:
    image = data.draw(st.permutations([f"Name {index}" for index in range(8)]))
    waves = [400.0 + 25 * int(name.split()[1]) for name in image]
    wanted = data.draw(st.permutations(range(8)))[: data.draw(st.integers(1, 8))]
    names, nm = [image[index].upper() for index in wanted], [waves[index] + 3 for index in wanted]
    found = {match_bands(bands_of(image, waves), names, nm, how, "IMAGE") for how in ("name", "wavelength")}
    assert found == {tuple(wanted)}


def test_a_band_that_is_not_there_by_name() -> None:
    text = error_of("name", bands_of(["blue", "green"]), ["blue", "nir", "swir"], [None] * 3)
    assert "IMAGE a.tif" in text and ": nir, swir. " in text and "blue" not in text and "wavelength" in text
    text = error_of("name", bands_of(["blue", "green"]), [f"B{number}" for number in range(20)], [None] * 20)
    assert "B0, B1, B2, B3, B4 and 15 more" in text


def test_two_bands_of_one_name() -> None:
    text = error_of("name", bands_of(["nir", "red", "N I R"]), ["red", "NIR"], [None] * 2)
    assert "more than one" in text and ": NIR. " in text
    assert by_name(["x", "red", "X"], ["red"]) == (1,), "only what is wanted must be certain"
    text = error_of("name", bands_of(["nir", "red"]), ["red", "NIR", "nir"], [None] * 3)
    assert "nir for NIR and nir" in text and "none or wavelength" in text


@pytest.mark.parametrize(
    ("image", "model", "who"),
    [
        (["nir", "red"], ["Band 1", "Band 2"], "the model's bands"),
        (["Band 1", "Band 2"], ["Band 1", "Band 2"], "the model's bands"),
        (["Band 1", "Band 2", "Band 3"], ["band 2", "band 3"], "the bands of IMAGE a.tif"),
    ],
)
def test_numbers_are_no_names(image: list[str], model: list[str], who: str) -> None:
    text = error_of("name", bands_of(image), model, [None] * len(model))
    assert f"{who} have no names" in text and "wavelength" in text and "none" in text


def test_numbers_that_a_file_gives_are_names() -> None:
    assert by_name(["Band 7", "Band 1"], ["Band 1", "Band 7"]) == (1, 0)


def test_the_nearest_wavelength_counts() -> None:
    assert by_wavelength((600, 490, 493.9, 496), (495, 598)) == (3, 0)
    assert by_wavelength((None, 500, None, 600), (600, 500)) == (3, 1)


def test_one_sensor_given_in_two_ways() -> None:
    order = np.random.default_rng(2).permutation(13)
    image = [SENTINEL_2A[index] for index in order]
    assert by_wavelength(image, SENTINEL) == tuple(np.argsort(order).tolist())
    assert by_wavelength(SENTINEL, SENTINEL_2A) == tuple(range(13))


@pytest.mark.parametrize(
    ("nm", "off"),
    [(500.0, TOLERANCE_NM), (1000.0, TOLERANCE_NM), (2200.0, 22.0), (11_000.0, 110.0)],
)
def test_how_far_a_band_may_be_off(nm: float, off: float) -> None:
    assert by_wavelength((nm + off,), (nm,)) == by_wavelength((nm - off,), (nm,)) == (0,)
    for wrong in (nm + off + 0.5, nm - off - 0.5):
        text = error_of("wavelength", bands_of(waves=(wrong,)), ["NIR"], (nm,))
        assert f"{nm:g} nm (NIR; nearest is {wrong:g} nm)" in text and "IMAGE a.tif" in text and "name" in text


def test_the_narrow_infrared_band_does_not_stand_for_the_broad_one() -> None:
    image = [nm for nm in SENTINEL if nm != 842]
    text = error_of("wavelength", bands_of(waves=image), [f"B{nm}" for nm in SENTINEL], SENTINEL)
    assert "842 nm (B842; nearest is 865 nm)" in text and "945" not in text


def test_a_band_cannot_stand_for_two() -> None:
    text = error_of("wavelength", bands_of(["x", "y"], (500, 600)), ["A", "B", "C"], (497, 503, 600))
    assert "x for A and B" in text and "C" not in text.split("model:")[1].split(".")[0] and "none or name" in text


def test_bands_of_one_wavelength_are_told_apart_by_name() -> None:
    thermal = (11450.0, 11450.0)
    image = bands_of(["B6 high", "B6 low"], thermal)
    assert match_bands(image, ["b6 low", "b6 high"], thermal, "wavelength", "IMAGE") == (1, 0)
    error_of("wavelength", image, ["a", "b"], thermal)


def test_the_date_of_a_stack_is_not_guessed() -> None:
    """The first of two bands of one wavelength would be as wrong as the second: a map of another season."""
    stack = bands_of(["May B2", "May B3", "July B2", "July B3"], (490, 560, 490, 560))
    text = error_of("wavelength", stack, ["B2", "B3"], (490, 560))
    assert "several bands of the same wavelength" in text and "490 nm (May B2, July B2)" in text and "to name" in text
    assert match_bands(stack, ["july b3", "july b2"], (560, 490), "wavelength", "IMAGE") == (3, 2)
    assert "490 nm (B2, b2)" in error_of("wavelength", bands_of(["B2", "b2"], (490, 490)), ["B2"], (490,))
    assert by_wavelength((490, 500), (495,)) == (0,), "two that are as near are two places of the spectrum"


def test_unknown_wavelengths() -> None:
    text = error_of("wavelength", bands_of(waves=(500, 600)), ["A", "B"], (500, None))
    assert "the model" in text and ": B. " in text and "name" in text
    text = error_of("wavelength", bands_of(["A", "B"]), ["A", "B"], (500, 600))
    assert "IMAGE a.tif have no wavelengths" in text and "name" in text


ORDER = (2, 0)


def same_but_for_the_order(shown: Raster, raster: Raster, order: Sequence[int] = ORDER) -> None:
    assert shown.count == len(order) and shown.name == raster.name and shown.grid == raster.grid
    assert shown.bands == tuple(raster.bands[index] for index in order)
    for window in (raster.whole, Window(1, 2, 3, 2)):
        (values, valid), (plain, plain_valid) = shown.read(window), raster.read(window)
        assert np.array_equal(values, plain[list(order)]) and np.array_equal(valid, plain_valid[list(order)])
    beyond = Window(-3, -2, 12, 9)
    assert np.array_equal(shown.read_padded(beyond, True)[0], raster.read_padded(beyond, True)[0][list(order)])
    assert shown.good.tolist() == [not shown.bands[index].bad for index in range(len(order))]


@pytest.fixture
def numbers() -> Array:
    values = np.random.default_rng(5).integers(1, 200, (3, 5, 6)).astype("i2")
    values[:, 1, 1], values[:, 2, 2], values[:, 3, 3] = -1, -2, -3
    return values


def described(count: int = 3) -> list[dict[str, str]]:
    units = {"wavelength_units": "Nanometers"}
    flags = "110"
    return [
        {"wavelength": f"{500 + 50 * band}", "bbl": flags[band], "fwhm": f"{band + 5}", **units}
        for band in range(count)
    ]


def test_the_order_as_it_is_changes_nothing(tmp_path: Path, numbers: Array) -> None:
    raster = Raster.open(write_raster(tmp_path / "a.tif", numbers))
    assert reordered(raster, range(3)) is raster
    for other in ((0, 1), (0, 2, 1), (0, 0, 0), (0, 1, 2, 2)):
        assert reordered(raster, other) is not raster
        same_but_for_the_order(reordered(raster, other), raster, other)


def test_names_wavelengths_and_flags_go_with_the_bands(tmp_path: Path, numbers: Array) -> None:
    path = write_raster(tmp_path / "a.tif", numbers, names=["a", "b", "c"], metadata=described(), nodata=-2)
    raster = Raster.open(path)
    shown = reordered(raster, ORDER)
    same_but_for_the_order(shown, raster)
    assert [(band.name, band.wavelength_nm, band.fwhm_nm, band.bad) for band in shown.bands] == [
        ("c", 600, 7, True),
        ("a", 500, 5, False),
    ]
    assert not shown.read(shown.whole)[1][:, 2, 2].any() and shown.nodata == -2


def test_an_envi_file_keeps_its_wavelengths_in_the_new_order(tmp_path: Path, numbers: Array) -> None:
    path = write_raster(tmp_path / "a.img", numbers, driver="ENVI")
    with path.with_suffix(".hdr").open("a", encoding="utf-8") as file:
        file.write(
            "wavelength = {500, 600, 700}\nfwhm = {5, 6, 7}\nwavelength units = Nanometers\nbbl = {1, 1, 0}\n"
            "data ignore value = -3\n"
        )
    raster = Raster.open(path)
    assert raster.bands[2].bad and raster.bands[2].fwhm_nm == 7, "what the test needs"
    shown = reordered(raster, (2, 0, 1))
    same_but_for_the_order(shown, raster, (2, 0, 1))
    assert [band.wavelength_nm for band in shown.bands] == [700, 500, 600]
    assert [band.fwhm_nm for band in shown.bands] == [7, 5, 6]
    assert [band.bad for band in shown.bands] == [True, False, False]


def test_each_band_keeps_its_own_nodata(tmp_path: Path, numbers: Array) -> None:
    sources = []
    for index, nodata in enumerate((-1, None, -3)):
        sources.append(str(write_raster(tmp_path / f"{index}.tif", numbers[index], nodata=nodata)))
    vrt = gdal.BuildVRT(str(tmp_path / "a.vrt"), sources, separate=True)
    vrt.FlushCache()
    del vrt
    raster = Raster.open(tmp_path / "a.vrt")
    shown = reordered(raster, ORDER)
    same_but_for_the_order(shown, raster)
    _, valid = shown.read(shown.whole)
    assert not valid[0, 3, 3] and valid[0, 1, 1] and not valid[1, 1, 1] and valid[1, 3, 3] and shown.nodata == -3


def test_a_given_nodata_counts_for_the_shown_bands(tmp_path: Path, numbers: Array) -> None:
    raster = Raster.open(write_raster(tmp_path / "a.tif", numbers, nodata=-1), nodata=-2)
    shown = reordered(raster, ORDER)
    same_but_for_the_order(shown, raster)
    _, valid = shown.read(shown.whole)
    assert valid[:, 1, 1].all() and not valid[:, 2, 2].any()


def test_masks_stay(tmp_path: Path, numbers: Array) -> None:
    mask = np.arange(30).reshape(5, 6) % 4 > 0
    raster = Raster.open(write_raster(tmp_path / "a.tif", numbers, mask=mask))
    shown = reordered(raster, ORDER)
    same_but_for_the_order(shown, raster)
    assert shown.masked and all(np.array_equal(band, mask) for band in shown.read(shown.whole)[1])


def test_an_alpha_band_that_is_not_shown_still_masks(tmp_path: Path, numbers: Array) -> None:
    image = np.concatenate([abs(numbers), abs(numbers[:1])]).astype("u1")
    image[3] = np.arange(30).reshape(5, 6) % 3 * 100
    raster = Raster.open(write_raster(tmp_path / "a.tif", image, options=("ALPHA=YES",)))
    shown = reordered(raster, ORDER)
    same_but_for_the_order(shown, raster)
    assert shown.masked and np.array_equal(shown.read(shown.whole)[1][0], image[3] > 0)


def test_bands_of_different_types(tmp_path: Path, numbers: Array) -> None:
    top = {"u1": 200, "u2": 65535, "i2": -32768}
    paths = []
    for index, (dtype, value) in enumerate(top.items()):
        band = abs(numbers[index]).astype(dtype)
        band[0, 0] = value
        paths.append(str(write_raster(tmp_path / f"{index}.tif", band)))
    vrt = gdal.BuildVRT(str(tmp_path / "a.vrt"), paths, separate=True)
    vrt.FlushCache()
    del vrt
    shown = reordered(Raster.open(tmp_path / "a.vrt"), ORDER)
    assert shown.read(shown.whole)[0][:, 0, 0].tolist() == [-32768, 200]


def test_the_image_stays_open_as_long_as_it_is_shown(tmp_path: Path, numbers: Array) -> None:
    def show() -> Raster:
        return reordered(
            reordered(Raster.open(write_raster(tmp_path / "a.tif", numbers, nodata=-1)), (1, 2, 0)), (1, 2)
        )

    shown = show()
    gc.collect()
    values, valid = shown.read(shown.whole)
    assert np.array_equal(values, numbers[[2, 0]]) and not valid[:, 1, 1].any()


def test_the_cache_is_widened_for_all_bands_of_the_file(tmp_path: Path) -> None:
    # Pixel by pixel, all bands lie in one block: one band is not read without the others.
    image = np.zeros((40, 64, 2048), "u2")
    raster = Raster.open(write_raster(tmp_path / "a.tif", image, options=("INTERLEAVE=PIXEL",)))
    before = gdal.GetCacheMax()
    try:
        gdal.SetCacheMax(2**20)
        reordered(raster, (1, 0)).expect(32)
        assert gdal.GetCacheMax() >= 32 * 2048 * 40 * 2
    finally:
        gdal.SetCacheMax(before)


def test_a_band_that_is_not_there(tmp_path: Path, numbers: Array, gdal_errors: str) -> None:
    raster = Raster.open(write_raster(tmp_path / "a.tif", numbers))
    with pytest.raises(RasterError, match=r"a\.tif has 3 bands, and none with number 8\."):
        reordered(raster, (0, 7))
