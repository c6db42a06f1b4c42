# SPDX-License-Identifier: GPL-3.0-or-later
"""Bands: name, wavelength, bad-band flag, no-data value and coding, as EnMAP-Box, ENVI and GDAL write them.

Keys are read case-insensitively from each band's metadata, from the dataset's ENVI domain and from
GDAL's IMAGERY domain; they are written to each band's metadata.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from osgeo import gdal, gdal_array

_TO_NM = {
    **{"nanometers": 1.0, "nanometer": 1.0, "nm": 1.0},
    **{"micrometers": 1e3, "micrometer": 1e3, "um": 1e3, "µm": 1e3, "μm": 1e3, "microns": 1e3, "micron": 1e3},
    **{"angstroms": 0.1, "angstrom": 0.1},
}
_NO_UNIT = ("", "unknown")

SAME_CODING = (
    "turn both into measured values first (in QGIS: Raster > Conversion > Translate, additional parameters "
    "-unscale -ot Float32)"
)
"""What to do about images whose stored numbers mean different things."""


@dataclass(frozen=True)
class Band:
    """One band of a raster.

    Attributes:
        name: as described in the file, or ``Band <number>``.
        wavelength_nm: centre wavelength in nanometres, where known.
        fwhm_nm: full width at half maximum in nanometres, where known.
        bad: flagged as bad (``bbl`` = 0); a bad band is kept, but never used.
        nodata: no-data value in the raster's own numbers.
        scale, offset: what the file says turns a stored number into the measured one, ``number * scale + offset``.
            Stored numbers are taken as they are; the two are kept to tell where images are coded in other ways.
    """

    name: str
    wavelength_nm: float | None = None
    fwhm_nm: float | None = None
    bad: bool = False
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0

    def coded_like(self, other: Band) -> bool:
        """Tell whether equal stored numbers mean equal measured ones."""
        pairs = ((self.scale, other.scale), (self.offset, other.offset))
        return all(math.isclose(one, another, rel_tol=1e-6, abs_tol=1e-12) for one, another in pairs)

    @property
    def coding(self) -> str:
        """Scale and offset, for messages."""
        return f"scale {self.scale:g}, offset {self.offset:g}"


def read_bands(dataset: gdal.Dataset, nodata: float | None = None) -> tuple[Band, ...]:
    """Read what a dataset says about its bands.

    Args:
        dataset: an open GDAL dataset.
        nodata: overrides what the bands declare.
    """
    count = dataset.RasterCount
    missing = read_nodata(dataset, nodata)
    envi = _lowered(dataset.GetMetadata("ENVI"))
    lists = {key: _envi_list(envi.get(key, ""), count) for key in ("wavelength", "fwhm", "bbl", "band names")}
    bands = []
    for index in range(count):
        band = dataset.GetRasterBand(index + 1)
        own = _lowered(band.GetMetadata())
        imagery = _lowered(band.GetMetadata("IMAGERY"))
        units = own.get("wavelength_units") or envi.get("wavelength units") or envi.get("wavelength_units")
        wavelength = _nanometers(own.get("wavelength") or lists["wavelength"][index], units or "")
        width = _nanometers(own.get("fwhm") or lists["fwhm"][index], units or "", like=wavelength)
        if wavelength is None:
            wavelength = _nanometers(imagery.get("central_wavelength_um", ""), "um")
            width = _nanometers(imagery.get("fwhm_um", ""), "um")
        flag = _number(own.get("bbl") or lists["bbl"][index])
        bands.append(
            Band(
                name=band.GetDescription() or lists["band names"][index] or f"Band {index + 1}",
                wavelength_nm=wavelength,
                fwhm_nm=width,
                bad=flag == 0,
                nodata=missing[index],
                scale=_usable(band.GetScale()) or 1.0,
                offset=_usable(band.GetOffset()) or 0.0,
            )
        )
    return tuple(bands)


def read_nodata(dataset: gdal.Dataset, nodata: float | None = None, uniform: bool = False) -> tuple[float | None, ...]:
    """Read the no-data value of each band, as the band's number type holds it.

    Args:
        dataset: an open GDAL dataset.
        nodata: overrides what the bands declare.
        uniform: all bands are known to have the type and the no-data value of the first.
    """
    if uniform:
        band = dataset.GetRasterBand(1)
        held = _held(band.GetNoDataValue() if nodata is None else nodata, band.DataType)
        return (held,) * int(dataset.RasterCount)
    bands = [dataset.GetRasterBand(number) for number in range(1, dataset.RasterCount + 1)]
    return tuple(_held(band.GetNoDataValue() if nodata is None else nodata, band.DataType) for band in bands)


def write_bands(dataset: gdal.Dataset, bands: tuple[Band, ...]) -> None:
    """Write names, wavelengths, bad-band flags, scales and offsets to a dataset with as many bands."""
    flagged = any(band.bad for band in bands)
    for index, band in enumerate(bands):
        target = dataset.GetRasterBand(index + 1)
        if band.name != f"Band {index + 1}":
            target.SetDescription(band.name)
        items = {}
        if band.wavelength_nm is not None:
            items = {"wavelength": f"{band.wavelength_nm:.10g}", "wavelength_units": "Nanometers"}
        if band.fwhm_nm is not None:
            items["fwhm"] = f"{band.fwhm_nm:.10g}"
        if flagged:
            items["bbl"] = "0" if band.bad else "1"
        if items:
            target.SetMetadata(items)
        if band.scale != 1.0:
            target.SetScale(band.scale)
        if band.offset != 0.0:
            target.SetOffset(band.offset)


def _usable(number: float | None) -> float | None:
    """Give a number of a file where it is one that can be computed with."""
    return number if number is not None and math.isfinite(number) else None


def _held(nodata: float | None, type_code: int) -> float | None:
    """Give a no-data value as a band's number type holds it; None where it cannot hold it.

    Files declare -9999 for unsigned bands: no pixel has that value, and none could be filled with it.
    """
    dtype = np.dtype(gdal_array.GDALTypeCodeToNumericTypeCode(type_code))
    if nodata is None or dtype.kind not in "iuf":
        return nodata
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return float(dtype.type(nodata))
    limits = np.iinfo(dtype)
    return nodata if limits.min <= nodata <= limits.max and nodata == int(nodata) else None


def _lowered(items: dict[str, str] | None) -> dict[str, str]:
    return {key.lower(): value.strip() for key, value in (items or {}).items()}


def _envi_list(text: str, count: int) -> list[str]:
    """Split ``{a, b, c}`` into one text per band; anything of another length is worth nothing."""
    entries = [entry.strip() for entry in text.strip("{} \n").split(",")]
    return entries if len(entries) == count else [""] * count


def _number(text: str) -> float | None:
    found = re.match(r"[+-]?\d*\.?\d+([eE][+-]?\d+)?", text.strip())
    return float(found.group()) if found else None


def _nanometers(text: str, units: str, like: float | None = None) -> float | None:
    """Turn a length into nanometres; without a unit, values below 100 are micrometres. Other units give None.

    ``like`` is a length in nanometres that stands in the same unit: a width without a unit is in
    micrometres when it is below 1 and its wavelength is known.
    """
    number = _number(text)
    if number is None or number <= 0:
        return None
    unit = units.strip().lower()
    factor = _TO_NM.get(unit)
    if factor is None and unit not in _NO_UNIT:  # such as GHz, wavenumber, index
        return None
    if factor is None:
        factor = 1e3 if number < (1.0 if like is not None else 100.0) else 1.0
    return round(number * factor, 6)
