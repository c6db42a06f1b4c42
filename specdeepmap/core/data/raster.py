# SPDX-License-Identifier: GPL-3.0-or-later
"""Rasters: bands with their meaning on a grid, and windows read with the truth about missing pixels.

Arrays are ``(bands, rows, columns)``. A pixel of a band is *valid* where it is finite, not the band's
no-data value and not masked; no-data is compared in the raster's own numbers, before any scaling.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from osgeo import gdal, gdal_array

from specdeepmap.core.data.bands import Band, read_bands, read_nodata
from specdeepmap.core.data.grid import NOWHERE, Grid
from specdeepmap.core.data.tiling import Window
from specdeepmap.core.errors import ConfigError, NoRasterError, RasterError
from specdeepmap.core.progress import Progress

_WIDEST_CACHE = 256 * 2**20
_HUGE = 1e30  # no measured value is
_MANY_BANDS = 50  # with fewer, GDAL's way through its cache is as fast, see the benchmarks


class Raster:
    """A raster opened for reading. Not safe for use by several threads at a time."""

    def __init__(
        self,
        dataset: gdal.Dataset,
        name: str,
        nodata: float | None = None,
        uniform: bool = False,
        direct: bool = False,
    ) -> None:
        self._dataset = dataset
        self._override = nodata
        self._direct = direct
        self.name = name
        self.width: int = dataset.RasterXSize
        self.height: int = dataset.RasterYSize
        self.count: int = dataset.RasterCount
        if not self.count:
            raise RasterError(f"{name} has no band; if it holds several rasters, name one of them.")
        first = dataset.GetRasterBand(1)
        self.type_code: int = first.DataType
        # All bands of a GeoTIFF have one number type, and without a side file one no-data value.
        for number in range(2, 2 if uniform else self.count + 1):
            self.type_code = gdal.DataTypeUnion(self.type_code, dataset.GetRasterBand(number).DataType)
        if gdal.DataTypeIsComplex(self.type_code):
            raise RasterError(
                f"{name} holds complex numbers ({gdal.GetDataTypeName(self.type_code)}). Convert it to "
                "real numbers first, for example to amplitude."
            )
        if _holds_signed_bytes(first):
            raise RasterError(
                f"{name} holds signed bytes, which GDAL before 3.7 takes for 0 to 255: -1 would be 255. Convert it "
                "first, for example to Int16."
            )
        self.dtype: np.dtype[np.generic] = np.dtype(gdal_array.GDALTypeCodeToNumericTypeCode(self.type_code))
        self._nodata = read_nodata(dataset, nodata, uniform)
        self._masks = _masks_of(dataset, uniform)

    @cached_property
    def grid(self) -> Grid:
        """Where the pixels lie. Read when asked for: a CRS takes longer to make out than a chip to read."""
        with damage_told(self.name):
            transform = self._dataset.GetGeoTransform(can_return_null=True) or NOWHERE
            return Grid(self.width, self.height, tuple(transform), self._dataset.GetProjectionRef() or "")

    @cached_property
    def bands(self) -> tuple[Band, ...]:
        """What the bands mean. Read when asked for."""
        with damage_told(self.name):
            return read_bands(self._dataset, self._override)

    @property
    def whole(self) -> Window:
        """The window of all pixels."""
        return Window(0, 0, self.width, self.height)

    @classmethod
    def open(cls, source: str | Path, nodata: float | None = None, georeference: str = "") -> Raster:
        """Open a raster by any name that GDAL knows.

        Args:
            source: path or GDAL name.
            nodata: overrides the no-data value of all bands.
            georeference: where GDAL looks for the place of a GeoTIFF, which takes longer than reading a small chip:
                ``NONE`` or ``INTERNAL``; empty = everywhere. A side file that matters is read nevertheless.

        Raises:
            NoRasterError: if GDAL cannot open it.
            RasterError: if it is damaged, or holds complex numbers.
        """
        name = str(source)
        quick = georeference and name.lower().endswith((".tif", ".tiff")) and not _side_file_matters(name)
        options = [f"GEOREF_SOURCES={georeference}"] if quick else []
        gdal.ErrorReset()
        try:
            dataset = gdal.OpenEx(name, gdal.OF_RASTER | gdal.OF_VERBOSE_ERROR, open_options=options)
        except RuntimeError as error:
            raise NoRasterError(f"{name} cannot be opened as a raster: {_ended(str(error))}") from error
        if dataset is None:
            raise NoRasterError(f"{name} cannot be opened as a raster: {_ended(gdal.GetLastErrorMsg())}")
        with damage_told(name):
            direct = _better_directly(dataset, name)
            if direct:
                dataset = _directly_opened(name, options)
            return cls(dataset, name, nodata, bool(quick), direct)

    def expect(self, rows: int) -> None:
        """Prepare for being read in bands of so many rows from top to bottom: no block is decoded twice then."""
        widen_cache(self.cache_need(rows, self.width))

    def cache_need(self, rows: int, columns: int) -> int:
        """Give the bytes of the blocks that a window of so many rows and columns touches, see ``cache_need``."""
        return 0 if self._direct else cache_need(self._dataset, rows, columns)

    def windows_at_a_time(self, rows: int, columns: int, most: int) -> int:
        """Say how many windows that lie side by side are best read at a time: their blocks fit into the cache.

        Args:
            rows, columns: of a window.
            most: that may be read at a time.
        """
        while most > 1 and self.cache_need(rows, most * columns) > _WIDEST_CACHE // 2:
            most //= 2
        return most

    def cache_need_by_rows(self, rows: int, columns: int) -> int:
        """Give the bytes that the cache needs for windows that are read row by row, so that no block is decoded twice.

        Where blocks are higher than windows, the next row of windows needs those of this one again.
        """
        again = self._dataset.GetRasterBand(1).GetBlockSize()[1] > rows
        return self.cache_need(rows, self.width if again else columns)

    @property
    def dataset(self) -> gdal.Dataset:
        """The GDAL dataset, for warping and polygonising."""
        return self._dataset

    @property
    def nodata(self) -> float | None:
        """The no-data value that chips of this raster get: the first that a band declares."""
        return next((nodata for nodata in self._nodata if nodata is not None), None)

    @property
    def masked(self) -> bool:
        """Whether a mask or an alpha band says which pixels are valid."""
        return bool(self._masks)

    @property
    def masked_by_band(self) -> bool:
        """Whether bands have masks of their own."""
        return any(band is not None for _, band in self._masks)

    @property
    def placed_by_points(self) -> bool:
        """Whether only ground control points, or the model of a sensor (RPC), say where the pixels lie."""
        if self._dataset.GetGeoTransform(can_return_null=True) is not None:
            return False
        return bool(self._dataset.GetGCPCount() or self._dataset.GetMetadata("RPC"))

    @property
    def good(self) -> NDArray[np.bool_]:
        """Which bands say whether a pixel has data: those not flagged bad, or all if all are."""
        good = np.array([not band.bad for band in self.bands])
        return good if good.any() else ~good

    def read(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read a window that lies inside the raster.

        Returns:
            Values ``(bands, rows, columns)`` in the raster's own number type, and validity of the same
            shape.

        Raises:
            RasterError: if the file is damaged.
        """
        box = (window.x, window.y, window.width, window.height)
        try:
            values = self._read_bands(box)
            masks = [mask.ReadAsArray(*box) for mask, _ in self._masks]
        except RuntimeError as error:
            raise RasterError(f"{self.name} cannot be read at {window}: {error}") from error
        if values is None or any(mask is None for mask in masks):
            raise RasterError(f"{self.name} cannot be read at {window}: {gdal.GetLastErrorMsg()}")
        values = values.reshape(self.count, window.height, window.width).astype(self.dtype, copy=False)
        valid = self.valid(values)
        for (_, band), mask in zip(self._masks, masks, strict=True):
            masked = valid if band is None else valid[band]
            masked &= mask > 0
        return values, valid

    def _read_bands(self, box: tuple[int, int, int, int]) -> Any:
        """Read all bands of a box ``(x, y, width, height)``; None, or an exception, where GDAL cannot.

        What is stored pixel by pixel stays so in memory: networks want it like that.
        """
        if not self._direct:
            return self._dataset.ReadAsArray(*box, buf_type=self.type_code)
        pixels = self._dataset.ReadAsArray(*box, buf_type=self.type_code, interleave="pixel")
        return None if pixels is None else pixels.transpose(2, 0, 1)

    def read_padded(self, window: Window, mirror: bool) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read a window that may reach over the border.

        Args:
            window: needs at least one pixel inside the raster.
            mirror: the raster is mirrored at its borders, as often as needed; otherwise pixels beyond them
                are no-data (0 where the raster has no no-data value) and not valid.

        Returns:
            As ``read``.
        """
        inside = window.clipped(self.width, self.height)
        if inside == window:
            return self.read(window)
        if mirror:
            return self.read_mirrored([window])[0]
        values, valid = self.read(inside)
        pads = (
            (0, 0),
            (inside.y - window.y, window.y_end - inside.y_end),
            (inside.x - window.x, window.x_end - inside.x_end),
        )
        fill = 0 if self.nodata is None else self.nodata
        return np.pad(values, pads, constant_values=fill), np.pad(valid, pads, constant_values=False)

    def read_mirrored(self, windows: Sequence[Window]) -> list[tuple[NDArray[np.generic], NDArray[np.bool_]]]:
        """Read neighbouring windows at once; beyond its borders the raster is mirrored, as often as needed.

        Returns:
            Of each, as ``read``. Where windows lie inside the raster, they share memory.
        """
        columns = [_mirrored(window.x, window.x_end, self.width) for window in windows]
        rows = [_mirrored(window.y, window.y_end, self.height) for window in windows]
        x, y = (int(min(places.min() for places in axis)) for axis in (columns, rows))
        x_end, y_end = (int(max(places.max() for places in axis)) + 1 for axis in (columns, rows))
        values, valid = self.read(Window(x, y, x_end - x, y_end - y))
        places = [(across - y, along - x) for across, along in zip(rows, columns, strict=True)]
        return [(_picked(values, *each), _picked(valid, *each)) for each in places]

    def valid(self, values: NDArray[np.generic]) -> NDArray[np.bool_]:
        """Tell which values are data, by finiteness and no-data values, without the mask band."""
        first = self._nodata[0]
        same = all(nodata == first for nodata in self._nodata)
        if values.dtype.kind == "f":
            valid = np.isfinite(values)
        elif same and first is not None:
            return _differ(values, first)
        else:
            valid = np.ones_like(values, np.bool_)  # in the same order in memory
        if same:
            if first is not None:
                valid &= _differ(values, first)
            return valid
        for index, nodata in enumerate(self._nodata):
            if nodata is not None:
                valid[index] &= _differ(values[index], nodata)
        return valid


def check_nodata(nodata: float | None, image: Raster) -> None:
    """Check the parameter NODATA.

    Raises:
        ConfigError: if the image's number type cannot hold the value.
    """
    if nodata is None or image.dtype.kind == "f":
        return
    limits = np.iinfo(image.dtype)  # type: ignore[type-var]
    if not (math.isfinite(nodata) and nodata.is_integer() and limits.min <= nodata <= limits.max):
        raise ConfigError(
            f"NODATA is {nodata:g}, which an image of {image.dtype} cannot hold ({limits.min} to {limits.max}). Give "
            "the value that missing pixels really have."
        )


def warn_of_points(image: Raster, progress: Progress) -> None:
    """Warn where an image has no grid on the ground: what is made of it has none, either."""
    if image.placed_by_points:
        progress.warning(
            f"IMAGE {image.name} has no grid on the ground, only control points or the model of a sensor (RPC). What "
            "is made of it will have no place on the ground. Warp it first (in QGIS: Raster > Projections > Warp)."
        )


def warn_of_alpha(image: Raster, progress: Progress) -> None:
    """Warn where a band of an image says which pixels are valid: it is taken for a spectral one, too."""
    bands = range(1, image.count + 1)
    alpha = [
        number for number in bands if image.dataset.GetRasterBand(number).GetColorInterpretation() == gdal.GCI_AlphaBand
    ]
    if alpha:
        progress.warning(
            f"IMAGE {image.name}: band {alpha[0]} is an alpha band, which says where the image has data. It becomes a "
            "band of the chips nevertheless, and images without it cannot be mapped. Take it off first (in QGIS: "
            "Raster > Conversion > Translate, additional parameters -b 1 -b 2 -b 3). If it holds measurements, its "
            f"file says so wrongly, and pixels of 0 there are lost: gdal_edit.py -colorinterp_{alpha[0]} undefined "
            "corrects it."
        )


def open_input(parameter: str, source: str, nodata: float | None = None) -> Raster:
    """Open a raster that a user named.

    Args:
        parameter: its name, for messages.
        source: path or GDAL name.
        nodata: overrides the no-data value of all bands.

    Raises:
        RasterError: if it cannot be opened; it says what to do.
    """
    try:
        return Raster.open(source, nodata)
    except NoRasterError as error:
        if not _is_vector(source):
            raise RasterError(f"{parameter}: {error} Choose a file that QGIS opens as a raster layer.") from error
        raise RasterError(
            f"{parameter}: {source} is no raster but a vector layer. Burn it into a raster on the grid of the image "
            "first (in QGIS: Raster > Conversion > Rasterize)."
        ) from error


def _is_vector(source: str) -> bool:
    """Tell whether GDAL opens it as a vector dataset."""
    try:
        return gdal.OpenEx(source, gdal.OF_VECTOR) is not None
    except RuntimeError:
        return False


def _masks_of(dataset: gdal.Dataset, uniform: bool) -> list[tuple[gdal.Band, int | None]]:
    """Give the masks that say which pixels are valid: one for all bands, or those of single bands, and of which.

    Args:
        dataset: an open raster.
        uniform: whether its bands have all in common.
    """
    first = dataset.GetRasterBand(1)
    if first.GetMaskFlags() & (gdal.GMF_PER_DATASET | gdal.GMF_ALPHA):
        return [(first.GetMaskBand(), None)]
    bands = () if uniform else (dataset.GetRasterBand(number + 1) for number in range(dataset.RasterCount))
    return [(band.GetMaskBand(), index) for index, band in enumerate(bands) if band.GetMaskFlags() == 0]


def _better_directly(dataset: gdal.Dataset, name: str) -> bool:
    """Tell whether GDAL should read a file past its cache: tiles that hold many bands pixel by pixel, as they are.

    Into the cache it would take them apart band by band, each from end to end of the tile.
    """
    if dataset.RasterCount < _MANY_BANDS or dataset.GetDriver().ShortName != "GTiff" or name.startswith("/vsi"):
        return False
    structure = dataset.GetMetadata("IMAGE_STRUCTURE")
    tiled = dataset.GetRasterBand(1).GetBlockSize()[0] < dataset.RasterXSize
    return tiled and structure.get("INTERLEAVE") == "PIXEL" and "COMPRESSION" not in structure


def _directly_opened(name: str, options: list[str]) -> gdal.Dataset:
    """Open a file so that it is read without the cache.

    Not mapped into memory, though that would be faster: where a mapped file is cut off, the process dies.
    """
    gdal.SetThreadLocalConfigOption("GTIFF_DIRECT_IO", "YES")
    try:
        return gdal.OpenEx(name, gdal.OF_RASTER | gdal.OF_VERBOSE_ERROR, open_options=options)
    finally:
        gdal.SetThreadLocalConfigOption("GTIFF_DIRECT_IO", None)


@contextmanager
def damage_told(name: str) -> Iterator[None]:
    """Say of which file GDAL complains; it makes out what a file says of itself only when it is asked for it.

    Raises:
        RasterError: if GDAL raises an error.
    """
    try:
        yield
    except RuntimeError as error:
        raise RasterError(f"{name} is damaged: {error}") from error


def _ended(text: str) -> str:
    """Give a text that ends as a sentence does."""
    return text if text.endswith((".", "!")) else f"{text}."


def _differ(values: NDArray[np.generic], nodata: float) -> NDArray[np.bool_]:
    """Tell which values are not the no-data value; NaN differs from all.

    Headers round the smallest number of float32, -3.4028235e38, to some digits: what lies near it is meant.
    """
    if values.dtype.kind in "iu":
        return np.asarray(values != int(nodata), np.bool_)  # a float would make floats of all of them
    if abs(nodata) < _HUGE or not math.isfinite(nodata):
        return np.asarray(values != nodata, np.bool_)
    limit = np.asarray(0.99 * nodata)
    return np.asarray(np.greater(values, limit) if nodata < 0 else np.less(values, limit), np.bool_)


def _holds_signed_bytes(band: gdal.Band) -> bool:
    """Tell whether a band is one of signed bytes, which had no number type of their own before GDAL 3.7."""
    return bool(band.DataType == gdal.GDT_Byte) and (
        str(band.GetMetadataItem("PIXELTYPE", "IMAGE_STRUCTURE")) == "SIGNEDBYTE"
    )


def _side_file_matters(name: str) -> bool:
    """Tell whether a raster's side file holds more than class names and statistics."""
    try:
        with open(f"{name}.aux.xml", "rb") as file:  # noqa: PTH123 - thousands of these: a Path takes its time
            text = file.read()
    except OSError:
        return False
    return any(tag in text for tag in (b"<NoDataValue", b"<GeoTransform", b"<SRS", b"<GCPList", b"MaskBand"))


def _picked(values: NDArray[Any], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[Any]:
    """Pick rows and columns of ``(bands, rows, columns)``: an axis at a time, and whole rows first, is fastest.

    What is stored pixel by pixel stays so, and what lies together is not copied.
    """
    (top, bottom), (left, right) = ((int(places.min()), int(places.max()) + 1) for places in (rows, columns))
    part = values[:, top:bottom, left:right]
    if values.transpose(1, 2, 0).flags.c_contiguous:
        return _taken(_taken(part.transpose(1, 2, 0), 0, rows - top), 1, columns - left).transpose(2, 0, 1)
    return _taken(_taken(part, 1, rows - top), 2, columns - left)


def _taken(values: NDArray[Any], axis: int, places: NDArray[np.intp]) -> NDArray[Any]:
    """Take places along an axis; the array itself where that is all, in order."""
    return values if np.array_equal(places, np.arange(values.shape[axis])) else values.take(places, axis=axis)


def _mirrored(start: int, end: int, size: int) -> NDArray[np.intp]:
    """Give the pixel seen at each position of an axis that is mirrored at both borders."""
    positions = np.arange(start, end) % (2 * size)
    return np.minimum(positions, 2 * size - 1 - positions)


def cache_need(dataset: gdal.Dataset, rows: int, columns: int) -> int:
    """Give the bytes of the blocks that a window of so many rows and columns touches at most.

    Rows of pixels that are stored in one piece are touched as a whole.
    """
    band = dataset.GetRasterBand(1)
    width, height = band.GetBlockSize()
    across = min(-(-columns // width) * width + width, dataset.RasterXSize)
    bits = gdal.GetDataTypeSize(band.DataType)
    return int((rows + height) * across * dataset.RasterCount * bits // 8)


def widen_cache(needed: int) -> None:
    """Widen GDAL's cache by so many bytes beyond what is in it, 256 MB at most; a wider one stays so."""
    gdal.SetCacheMax(max(gdal.GetCacheMax(), min(gdal.GetCacheUsed() + needed, _WIDEST_CACHE)))
