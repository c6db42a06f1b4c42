# SPDX-License-Identifier: GPL-3.0-or-later
"""What many tests need: small rasters, a progress that remembers, a disk that is full."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from osgeo import gdal, gdal_array, osr

from specdeepmap.core.errors import Canceled
from specdeepmap.core.progress import Progress

Array = NDArray[Any]

TRANSFORM = (500000.0, 10.0, 0.0, 5800000.0, 0.0, -10.0)
"""Of the test images: pixels of 10 m, in UTM."""


def utm(zone: int = 33) -> str:
    """Give the WKT of a northern UTM zone."""
    system = osr.SpatialReference()
    system.ImportFromEPSG(32600 + zone)
    return str(system.ExportToWkt())


class Recorder(Progress):
    """Remember all that was reported; ``cancel_at`` cancels at the check of this number, from 1."""

    def __init__(self, cancel_at: int = 0) -> None:
        super().__init__()
        self.infos: list[str] = []
        self.warnings: list[str] = []
        self.shares: list[float] = []
        self.staged_paths: list[Path] = []
        self.checks = 0
        self._cancel_at = cancel_at

    def info(self, text: str) -> None:
        self.infos.append(text)

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def staged(self, path: Path) -> None:
        self.staged_paths.append(path)

    def check(self) -> None:
        self.checks += 1
        if self.checks == self._cancel_at:
            raise Canceled("canceled")
        super().check()

    def _show(self, share: float, text: str) -> None:
        self.shares.append(share)


def write_raster(
    path: Path,
    values: Array,
    *,
    nodata: float | Sequence[float | None] | None = None,
    crs: str | None = None,
    transform: Sequence[float] | None = TRANSFORM,
    names: Sequence[str] = (),
    metadata: Sequence[Mapping[str, str]] = (),
    categories: Mapping[int, str] | None = None,
    colors: Mapping[int, tuple[int, int, int]] | None = None,
    mask: Array | None = None,
    options: Sequence[str] = ("ALPHA=NO",),
    driver: str = "GTiff",
) -> Path:
    """Write a raster of ``(bands, rows, columns)`` or ``(rows, columns)``; the CRS is UTM 33 by default.

    No-data values that differ by band need a driver that keeps them, such as ENVI or VRT.
    """
    values = values[None] if values.ndim == 2 else values
    count, rows, columns = values.shape
    code = gdal_array.NumericTypeCodeToGDALTypeCode(values.dtype.type)
    path.parent.mkdir(parents=True, exist_ok=True)
    own = list(options) if driver == "GTiff" else [o for o in options if o != "ALPHA=NO"]
    raster = gdal.GetDriverByName(driver).Create(str(path), columns, rows, count, code, options=own)
    crs = utm() if crs is None else crs
    if crs:
        raster.SetProjection(crs)
    if transform is not None:
        raster.SetGeoTransform(tuple(transform))
    for index in range(count):
        band = raster.GetRasterBand(index + 1)
        given = nodata if nodata is None or np.isscalar(nodata) else nodata[index]  # type: ignore[index]
        if given is not None:
            band.SetNoDataValue(given)
        if names:
            band.SetDescription(names[index])
        if metadata:
            band.SetMetadata(dict(metadata[index]))
    if colors is not None:
        table = gdal.ColorTable()
        for value, rgb in colors.items():
            table.SetColorEntry(value, (*rgb, 255))
        raster.GetRasterBand(1).SetColorTable(table)
    if categories is not None:
        listed = [""] * (max(categories) + 1)
        for value, name in categories.items():
            listed[value] = name
        raster.GetRasterBand(1).SetCategoryNames(listed)
    if mask is not None:
        gdal.SetConfigOption("GDAL_TIFF_INTERNAL_MASK", "YES")
        raster.CreateMaskBand(gdal.GMF_PER_DATASET)
        gdal.SetConfigOption("GDAL_TIFF_INTERNAL_MASK", None)
        raster.GetRasterBand(1).GetMaskBand().WriteArray(mask.astype(np.uint8) * 255)
    raster.WriteArray(np.ascontiguousarray(values))
    band = None
    raster.FlushCache()
    del raster
    return path


def read_pixels(path: Path) -> Array:
    """Read all pixels with GDAL alone: ``(bands, rows, columns)``."""
    raster = gdal.Open(str(path))
    values = raster.ReadAsArray()
    return np.asarray(values).reshape(raster.RasterCount, raster.RasterYSize, raster.RasterXSize)


def snapshot(folder: Path) -> dict[str, str]:
    """Give the content of all files below a folder, hashed, and the empty folders."""
    if not folder.exists():
        return {}
    return {
        path.relative_to(folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        )
        for path in sorted(folder.rglob("*"))
    }


@contextmanager
def open_as_in_qgis(index: Path, split: str) -> Iterator[None]:
    """Hold a tile index open as QGIS does, with a write-ahead log beside it into which the splits were saved."""
    gdal.SetConfigOption("OGR_SQLITE_JOURNAL", "WAL")
    dataset = gdal.OpenEx(str(index), gdal.OF_VECTOR | gdal.OF_UPDATE)
    gdal.SetConfigOption("OGR_SQLITE_JOURNAL", None)
    layer = dataset.GetLayerByName("tiles")
    layer.StartTransaction()
    for feature in list(layer):
        feature["split"] = split
        layer.SetFeature(feature)
    layer.CommitTransaction()
    try:
        yield
    finally:
        del layer, dataset, feature


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file grow over ``size`` bytes: a write then fails as it does on a full disk."""
    resource = pytest.importorskip("resource")  # not on Windows
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def valid_everywhere(values: Array) -> NDArray[np.bool_]:
    """Give the validity of an image without missing pixels."""
    return np.ones(values.shape, np.bool_)
