# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of what files say about their bands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal

from specdeepmap.core.data.bands import Band, read_bands, write_bands
from specdeepmap.core.data.raster import Raster
from tests.helpers import write_raster

PIXELS = np.ones((3, 2, 2), np.int16)


def envi(folder: Path, header: str) -> tuple[Band, ...]:
    """Write an ENVI file with these lines in its header, and read its bands."""
    (folder / "cube.bsq").write_bytes(PIXELS.tobytes())
    (folder / "cube.hdr").write_text(
        "ENVI\nsamples = 2\nlines = 2\nbands = 3\nheader offset = 0\nfile type = ENVI Standard\n"
        f"data type = 2\ninterleave = bsq\nbyte order = 0\n{header}\n"
    )
    return Raster.open(folder / "cube.bsq").bands


def test_metadata_of_each_band_in_any_case(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "a.tif",
        PIXELS,
        names=["blau", "", "rot"],
        nodata=-1,
        metadata=[
            {"wavelength": "443.5", "wavelength_units": "Nanometers", "fwhm": "20", "bbl": "1"},
            {"Wavelength": "0.56", "WAVELENGTH_UNITS": "Micrometers", "FWHM": "0.035", "BBL": "0"},
            {},
        ],
    )
    assert Raster.open(path).bands == (
        Band("blau", 443.5, 20.0, False, -1.0),
        Band("Band 2", 560.0, 35.0, True, -1.0),
        Band("rot", None, None, False, -1.0),
    )


@pytest.mark.parametrize(
    ("units", "factor"),
    [
        ("Micrometers", 1e-3),
        ("Nanometers", 1),
        ("um", 1e-3),
        ("nm", 1),
        ("Unknown", 1e-3),
        ("", 1e-3),
        ("", 1),
        ("Angstroms", 10),
    ],
)
def test_an_envi_header(tmp_path: Path, units: str, factor: float) -> None:
    listed = ", ".join(f"{nm * factor:.4f}" for nm in (443, 560, 2190))
    widths = ", ".join(f"{nm * factor:.4f}" for nm in (20, 35, 180))
    line = f"wavelength units = {units}\n" if units else ""
    bands = envi(
        tmp_path,
        f"wavelength = {{{listed}}}\nfwhm = {{{widths}}}\n{line}bbl = {{1, 0, 1}}\n"
        "band names = {\n blue,\n green,\n swir}",
    )
    assert [band.wavelength_nm for band in bands] == pytest.approx([443, 560, 2190])
    assert [band.fwhm_nm for band in bands] == pytest.approx([20, 35, 180])
    assert [band.bad for band in bands] == [False, True, False]
    assert all(name in band.name for name, band in zip(("blue", "green", "swir"), bands, strict=True))


def test_envi_lists_as_the_domain_of_another_format(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", PIXELS)
    raster = gdal.Open(str(path), gdal.GA_Update)
    raster.SetMetadata(
        {"wavelength": "{0.443, 0.56, 2.19}", "wavelength_units": "Micrometers", "bbl": "{1,1,0}"}, "ENVI"
    )
    del raster
    bands = Raster.open(path).bands
    assert [band.wavelength_nm for band in bands] == [443, 560, 2190]
    assert [band.bad for band in bands] == [False, False, True]


def test_lists_of_another_length_are_worth_nothing(tmp_path: Path) -> None:
    bands = envi(tmp_path, "bbl = {0, 0}\nfwhm = {1}")
    assert not any(band.bad for band in bands)
    assert all(band.fwhm_nm is None for band in bands)


def test_the_imagery_domain(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", PIXELS)
    raster = gdal.Open(str(path), gdal.GA_Update)
    for index, (centre, width) in enumerate((("0.443", "0.020"), ("0.560", "0.035"), ("2.190", "0.180"))):
        items = {"CENTRAL_WAVELENGTH_UM": centre, "FWHM_UM": width}
        raster.GetRasterBand(index + 1).SetMetadata(items, "IMAGERY")
    del raster
    bands = Raster.open(path).bands
    assert [band.wavelength_nm for band in bands] == [443, 560, 2190]
    assert [band.fwhm_nm for band in bands] == [20, 35, 180]


@pytest.mark.parametrize("text", ["", "n/a", "-5", "0", "nan"])
def test_wavelengths_that_are_none(tmp_path: Path, text: str) -> None:
    path = write_raster(tmp_path / "a.tif", PIXELS[:1], metadata=[{"wavelength": text, "bbl": text or " "}])
    band = Raster.open(path).bands[0]
    assert band.wavelength_nm is None
    assert band.bad == (text == "0")


def test_an_override_of_nodata_holds_for_all_bands(tmp_path: Path) -> None:
    raster = gdal.Open(str(write_raster(tmp_path / "a.tif", PIXELS, nodata=3)))
    assert [band.nodata for band in read_bands(raster)] == [3, 3, 3]
    assert [band.nodata for band in read_bands(raster, -7.0)] == [-7, -7, -7]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    bands = (
        Band("ä, b", 443.123456, 20.5, False, scale=1e-4, offset=-0.1),
        Band("Band 2", None, None, True, offset=-1000.0),
        Band("Band 7", 2190.0, None, False),
    )
    raster = gdal.Open(str(write_raster(tmp_path / "a.tif", PIXELS)), gdal.GA_Update)
    write_bands(raster, bands)
    del raster
    raster = gdal.Open(str(tmp_path / "a.tif"))
    assert read_bands(raster) == bands
    assert raster.GetRasterBand(1).GetMetadataItem("wavelength_units") == "Nanometers"
    assert raster.GetRasterBand(1).GetMetadataItem("bbl") == "1"


@pytest.mark.parametrize("number", [0.0, float("nan"), float("inf")])
def test_a_scale_that_nobody_can_compute_with_is_none(tmp_path: Path, number: float) -> None:
    path = write_raster(tmp_path / "a.tif", PIXELS)
    raster = gdal.Open(str(path), gdal.GA_Update)
    raster.GetRasterBand(1).SetScale(number)
    raster.GetRasterBand(1).SetOffset(number)
    del raster
    assert read_bands(gdal.Open(str(path)))[0].coded_like(Band(""))


def test_nothing_is_claimed_that_is_not_known(tmp_path: Path) -> None:
    raster = gdal.Open(str(write_raster(tmp_path / "a.tif", PIXELS)), gdal.GA_Update)
    write_bands(raster, tuple(Band(f"Band {index}") for index in (1, 2, 3)))
    del raster
    raster = gdal.Open(str(tmp_path / "a.tif"))
    for index in (1, 2, 3):
        assert raster.GetRasterBand(index).GetMetadata() == {}
        assert raster.GetRasterBand(index).GetDescription() == ""


@pytest.mark.parametrize("units", ["Wavenumber", "GHz", "Index"])
def test_of_units_that_are_no_length_nothing_is_known(tmp_path: Path, units: str) -> None:
    items = [{"wavelength": "4545", "wavelength_units": units}]
    assert Raster.open(write_raster(tmp_path / "a.tif", PIXELS[:1], metadata=items)).bands[0].wavelength_nm is None
