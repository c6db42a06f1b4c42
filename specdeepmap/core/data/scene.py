# SPDX-License-Identifier: GPL-3.0-or-later
"""A scene: a small invented landscape as a sensor sees it, with a label for every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from osgeo import gdal, osr

from specdeepmap.core.data.classes import UNLABELLED
from specdeepmap.core.data.land import CLASSES, MATERIALS, Array, Land, bump
from specdeepmap.core.errors import ConfigError, RasterError, nearest


@dataclass(frozen=True)
class Sensor:
    """What a sensor records of the land.

    Attributes:
        names: the bands' names, in the order of the file.
        wavelengths_nm: the bands' centres.
        fwhm_nm: the bands' full widths at half maximum.
        gdal_type: the GDAL number type of the digital numbers, which are reflectance x 10000.
        nodata: the digital number outside the swath.
        pixel_m: edge of a pixel.
        bad: indices of the bands without any data, from 0.
        corrected: whether the atmosphere has been corrected for; else water vapour darkens its bands.
    """

    names: tuple[str, ...]
    wavelengths_nm: tuple[float, ...]
    fwhm_nm: tuple[float, ...]
    gdal_type: int
    nodata: int
    pixel_m: float
    bad: tuple[int, ...] = ()
    corrected: bool = True


SENSORS = {
    "sentinel2": Sensor(
        names=("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12"),
        wavelengths_nm=(443, 490, 560, 665, 705, 740, 783, 842, 865, 945, 1375, 1610, 2190),
        fwhm_nm=(20, 65, 35, 30, 15, 15, 20, 106, 20, 20, 30, 90, 180),
        gdal_type=gdal.GDT_UInt16,
        nodata=0,
        pixel_m=10.0,
        corrected=False,
    ),
    "enmap": Sensor(  # two spectrometers, whose ranges overlap
        names=tuple(f"band {number}" for number in range(1, 225)),
        wavelengths_nm=tuple(np.r_[418.4:993.3:91j, 902.2:2445.5:133j].round(2).tolist()),
        fwhm_nm=tuple(np.r_[6:8:91j, 11:8:133j].round(2).tolist()),
        gdal_type=gdal.GDT_Int16,
        nodata=-32768,
        pixel_m=30.0,
        bad=tuple(range(130, 136)),
    ),
}
"""The sensors that can look at a scene, by name."""


def make_scene(folder: Path, sensor: str = "sentinel2", size: int = 512, seed: int = 42) -> tuple[Path, Path]:
    """Write an image of an invented landscape and its labels.

    The land depends on size and seed only, so the labels of two sensors agree. A corner of the image lies
    outside the swath and has no data in any band; its pixels are labelled all the same.

    Args:
        folder: where to write ``<sensor>_image.tif`` and ``<sensor>_labels.tif``; made where missing.
        sensor: a name in ``SENSORS``.
        size: rows and columns in pixels, at least 64; at 512 every class occurs in every quadrant.
        seed: the same seed gives the same pixels.

    Raises:
        ConfigError: if the sensor is unknown or the size too small.
        RasterError: if a file cannot be written.
    """
    if sensor not in SENSORS:
        known = ", ".join(SENSORS)
        raise ConfigError(f"There is no sensor '{sensor}'.{nearest(sensor, SENSORS)} It can be: {known}.")
    if size < 64:
        raise ConfigError(f"The size is {size} pixels; it must be at least 64.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RasterError(f"The folder {folder} cannot be made: {error}.") from error
    land = Land(size, np.random.default_rng([seed, 0]))
    image, labels = folder / f"{sensor}_image.tif", folder / f"{sensor}_labels.tif"
    _write_image(image, SENSORS[sensor], land, np.random.default_rng([seed, 1]))
    _write_labels(labels, SENSORS[sensor], land.labels)
    return image, labels


def _write_image(path: Path, sensor: Sensor, land: Land, rng: np.random.Generator) -> None:
    """Write what a sensor sees of the land, band by band."""
    size = len(land.labels)
    image = _create(path, sensor, size, len(sensor.names), sensor.gdal_type)
    corner = np.arange(size)[::-1]
    outside = corner[:, None] / 0.38 + corner / 0.22 < size
    for index, name in enumerate(sensor.names):
        band = image.GetRasterBand(index + 1)
        band.SetDescription(name)
        band.SetMetadataItem("wavelength", f"{sensor.wavelengths_nm[index]:g}")
        band.SetMetadataItem("wavelength_units", "Nanometers")
        band.SetMetadataItem("fwhm", f"{sensor.fwhm_nm[index]:g}")
        band.SetMetadataItem("bbl", "0" if index in sensor.bad else "1")
        band.SetNoDataValue(sensor.nodata)
    for index in range(len(sensor.names)):
        seen = sensor.nodata if index in sensor.bad else _observe(land, sensor, index, rng)
        _fill(path, image.GetRasterBand(index + 1), np.where(outside, sensor.nodata, seen))
    _close(path, image)


def _observe(land: Land, sensor: Sensor, index: int, rng: np.random.Generator) -> Array:
    """Give the digital numbers that a sensor records in one band."""
    nm = sensor.wavelengths_nm[index] + sensor.fwhm_nm[index] * np.linspace(-0.4, 0.4, 5)
    spectra = np.array([reflect(nm).mean() for reflect in MATERIALS.values()], np.float32)
    clear = (1 - 0.97 * bump(nm, 1380, 40) - 0.9 * bump(nm, 1880, 60)).mean()
    light = np.einsum("m,mrc->rc", spectra, land.mixture) * (land.gain + land.tilt * (nm.mean() / 1000 - 1))
    noise = 0.003 * rng.standard_normal(light.shape, np.float32)
    light = light + noise / clear if sensor.corrected else light * clear + noise
    return np.asarray(np.clip(np.rint(light * 10000), 1, 20000))


def _write_labels(path: Path, sensor: Sensor, labels: NDArray[np.uint8]) -> None:
    """Write class values with the classes' names and colours."""
    raster = _create(path, sensor, len(labels), 1, gdal.GDT_Byte)
    band, colors = raster.GetRasterBand(1), gdal.ColorTable()
    for entry in CLASSES.entries:
        colors.SetColorEntry(entry.value, (*entry.rgb, 255))
    band.SetColorTable(colors)
    band.SetCategoryNames(CLASSES.category_names())
    band.SetNoDataValue(UNLABELLED)
    _fill(path, band, labels)
    _close(path, raster)


def _create(path: Path, sensor: Sensor, size: int, bands: int, gdal_type: int) -> gdal.Dataset:
    """Make a raster on the grid of the scene: UTM zone 33 north, near Potsdam."""
    options = ["TILED=YES", "BLOCKXSIZE=128", "BLOCKYSIZE=128", "INTERLEAVE=BAND"]
    options += ["COMPRESS=DEFLATE", "PREDICTOR=2", "ZLEVEL=1"]
    raster = gdal.GetDriverByName("GTiff").Create(str(path), size, size, bands, gdal_type, options)
    if raster is None:
        raise RasterError(f"{path} cannot be written: {gdal.GetLastErrorMsg()}")
    system = osr.SpatialReference()
    system.ImportFromEPSG(32633)
    raster.SetProjection(system.ExportToWkt())
    raster.SetGeoTransform((367980.0, sensor.pixel_m, 0.0, 5808000.0, 0.0, -sensor.pixel_m))
    return raster


def _fill(path: Path, band: gdal.Band, numbers: NDArray[np.generic]) -> None:
    """Write a band, or say why it cannot be written."""
    if band.WriteArray(numbers.astype(np.int32)) != gdal.CE_None:
        raise RasterError(f"{path} cannot be written: {gdal.GetLastErrorMsg()}")


def _close(path: Path, raster: gdal.Dataset) -> None:
    """Bring a raster to the disk, or say why that is impossible."""
    gdal.ErrorReset()
    raster.FlushCache()
    if gdal.GetLastErrorType() >= gdal.CE_Failure:
        raise RasterError(f"{path} cannot be written: {gdal.GetLastErrorMsg()}")
