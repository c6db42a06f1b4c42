# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing GeoTIFFs: chips in one piece, maps window by window.

A write is believed only after the file was closed without a complaint: a full disk shows up there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from osgeo import gdal, gdal_array

from specdeepmap.core.data.bands import Band, write_bands
from specdeepmap.core.data.callback import GdalCallback
from specdeepmap.core.data.classes import UNLABELLED, ClassTable
from specdeepmap.core.data.grid import Grid
from specdeepmap.core.data.tiling import Window
from specdeepmap.core.errors import RasterError
from specdeepmap.core.progress import Progress

MAP_OPTIONS = ("TILED=YES", "COMPRESS=DEFLATE", "ZLEVEL=1", "BIGTIFF=IF_SAFER")
"""Creation options of a map, for viewers that read parts of it."""

_MASK_LOCK = threading.Lock()


class GeoTiff:
    """A GeoTIFF being written. Use it in a ``with`` statement; it is whole after it.

    Args:
        path: the file; it is overwritten.
        grid: size and place.
        count: number of bands.
        dtype: number type.
        nodata: no-data value of all bands.
        options: GDAL creation options, ``NAME=value``.

    Raises:
        RasterError: if it cannot be written.
    """

    def __init__(
        self,
        path: Path,
        grid: Grid,
        count: int,
        dtype: np.dtype[np.generic] | type[np.generic],
        nodata: float | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        self.path = path
        dtype = np.dtype(dtype)
        code = gdal_array.NumericTypeCodeToGDALTypeCode(dtype.type)
        gdal.ErrorReset()
        try:
            # Otherwise the last of four Byte bands would become an alpha band.
            self._dataset = gdal.GetDriverByName("GTiff").Create(
                str(path), grid.width, grid.height, count, code, options=["ALPHA=NO", *options]
            )
        except RuntimeError as error:
            raise self._failed(str(error)) from error
        if self._dataset is None:
            raise self._failed(gdal.GetLastErrorMsg())
        if grid.crs:
            self._dataset.SetProjection(grid.crs)
        if grid.transform != Grid(1, 1).transform:
            self._dataset.SetGeoTransform(grid.transform)
        if nodata is not None:
            own = nodata if dtype.kind == "f" else int(nodata)  # a 64-bit band takes no float
            self._dataset.GetRasterBand(1).SetNoDataValue(own)  # GeoTIFF keeps one for all bands

    def __enter__(self) -> GeoTiff:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._release()

    @property
    def dataset(self) -> gdal.Dataset:
        """The GDAL dataset, for burning."""
        return self._dataset

    def describe(self, bands: tuple[Band, ...]) -> None:
        """Write what is known of the bands."""
        write_bands(self._dataset, bands)

    def classify(self, classes: ClassTable) -> None:
        """Write class names and colours to the first band."""
        band = self._dataset.GetRasterBand(1)
        table = gdal.ColorTable()
        table.SetColorEntry(UNLABELLED, (0, 0, 0, 0))
        for entry in classes.entries:
            table.SetColorEntry(entry.value, (*entry.rgb, 255))
        band.SetColorTable(table)
        band.SetColorInterpretation(gdal.GCI_PaletteIndex)
        band.SetCategoryNames(classes.category_names())

    def note(self, items: Mapping[str, str]) -> None:
        """Write metadata of the whole file."""
        self._dataset.SetMetadata(dict(items))

    def write(self, values: NDArray[np.generic], window: Window | None = None) -> None:
        """Write ``(bands, rows, columns)`` at a window, by default from the upper left corner on."""
        x, y = (window.x, window.y) if window else (0, 0)
        self._checked(lambda: self._dataset.WriteArray(np.ascontiguousarray(values), x, y))

    def write_mask(self, valid: NDArray[np.bool_]) -> None:
        """Write a mask inside the file for all bands: ``(rows, columns)``, True = data."""
        with _MASK_LOCK:  # the option holds for the whole process
            gdal.SetConfigOption("GDAL_TIFF_INTERNAL_MASK", "YES")
            try:
                self._checked(lambda: self._dataset.CreateMaskBand(gdal.GMF_PER_DATASET))
            finally:
                gdal.SetConfigOption("GDAL_TIFF_INTERNAL_MASK", None)
        mask = self._dataset.GetRasterBand(1).GetMaskBand()
        self._checked(lambda: mask.WriteArray(valid.astype(np.uint8) * 255))

    def close(self) -> None:
        """Write what is left."""
        if self._dataset is None:
            return
        try:
            self._checked(self._flush)
        finally:
            self._release()

    def _release(self) -> None:
        self._dataset = None

    def _flush(self) -> None:
        """Write what is left and let go; what fails while Python takes an object away is not always to be heard of."""
        if gdal.GetUseExceptions():
            self._dataset.FlushCache()
        self._release()

    def _checked(self, call: Callable[[], int | None]) -> None:
        """Call GDAL, and raise what went wrong.

        The error is raised without its cause: that would keep the file open, and Windows removes no open file.
        """
        gdal.ErrorReset()
        try:
            failed = call() not in (None, 0) or gdal.GetLastErrorType() >= gdal.CE_Failure
            reason = gdal.GetLastErrorMsg()
        except RuntimeError as error:
            failed, reason = True, str(error)
        if failed:
            raise self._failed(reason)

    def _failed(self, reason: str) -> RasterError:
        return _unwritable(self.path, reason)


def _unwritable(path: Path, reason: str) -> RasterError:
    return RasterError(
        f"{path.parent} cannot be written: {reason or 'unknown reason'}. Is the disk full, or the "
        "folder write-protected? Free some space or choose another folder."
    )


def overview_levels(grid: Grid) -> tuple[int, ...]:
    """Give the overview factors that bring a raster down to about 256 pixels."""
    levels = []
    factor = 2
    while max(grid.width, grid.height) / factor >= 256:
        levels.append(factor)
        factor *= 2
    return tuple(levels)


def build_overviews(path: Path, resampling: str, progress: Progress) -> None:
    """Add overviews to a finished GeoTIFF: NEAREST for classes, which cannot be averaged, AVERAGE for others.

    Raises:
        RasterError: if they cannot be written.
    """
    gdal.ErrorReset()
    dataset = None
    try:
        dataset = gdal.OpenEx(str(path), gdal.OF_RASTER | gdal.OF_UPDATE)
        levels = overview_levels(Grid(dataset.RasterXSize, dataset.RasterYSize))
        failed = bool(levels) and dataset.BuildOverviews(resampling, list(levels), callback=GdalCallback(progress)) != 0
        failed = dataset.FlushCache() not in (None, 0) or failed
        dataset = None  # what is left is written now
        failed = failed or gdal.GetLastErrorType() >= gdal.CE_Failure
        reason = gdal.GetLastErrorMsg()
    except (RuntimeError, AttributeError) as error:  # AttributeError: GDAL gave None
        failed, reason = True, str(error)
    finally:
        dataset = None  # an open file could not be removed on Windows
    progress.check()  # GDAL reports an interruption as an error, too
    if failed:
        raise _unwritable(path, reason)


def write_class_chip(
    path: Path, labels: NDArray[np.uint8], grid: Grid, classes: ClassTable, options: tuple[str, ...] = ()
) -> None:
    """Write class values ``(rows, columns)`` as a Byte GeoTIFF with names, colours and no-data 0."""
    with GeoTiff(path, grid, 1, np.uint8, UNLABELLED, options) as tif:
        tif.classify(classes)
        tif.write(labels[None])
