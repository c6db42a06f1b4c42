# SPDX-License-Identifier: GPL-3.0-or-later
"""Label rasters: class values on an image's grid, checked, with names and colours.

Labels are ``(rows, columns)`` of uint8; 0 is unlabelled.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray
from osgeo import gdal

from specdeepmap.core.data.classes import UNLABELLED, ClassEntry, ClassTable
from specdeepmap.core.data.grid import Grid, bounds_in
from specdeepmap.core.data.raster import Raster, damage_told, open_input
from specdeepmap.core.data.tiling import Window, block_windows
from specdeepmap.core.errors import ConfigError, DatasetError, RasterError
from specdeepmap.core.progress import Progress

_BLOCK = 1024  # pixels; rows and columns read at once when a whole raster is looked at


class LabelRaster:
    """A label raster seen on an image's grid.

    Args:
        source: path or GDAL name of the labels.
        grid: the image's grid; labels on another one are warped to it, nearest neighbour.
        progress: is told about warping.
        zero_as: class value that 0 stands for; unlabelled where None.
        parameter: the parameter's name, for messages.

    Raises:
        RasterError: if the labels cannot be opened, or share no ground with the image.
    """

    def __init__(
        self,
        source: str,
        grid: Grid,
        progress: Progress,
        zero_as: int | None = None,
        parameter: str = "LABELS",
    ) -> None:
        raster = open_input(parameter, source)
        self.name = f"{parameter} {source}"
        self.grid = grid
        self.zeros = False
        """Whether a pixel that was read is 0, and 0 is not the no-data value."""
        self._zero_as = zero_as
        self._nodata = raster.bands[0].nodata
        self._zero_counts = zero_as is not None and self._nodata == 0
        if self._zero_counts:
            self._nodata = None
            progress.info(f"{self.name}: 0 is the no-data value, and ZERO_AS makes it class {zero_as}.")
        if len(raster.bands) > 1:
            progress.warning(f"{self.name} has {len(raster.bands)} bands; the first one is used.")
        self._names, self._colors = names_and_colors(raster.dataset)
        self._raster = raster if raster.grid.same_as(grid) else self._on_grid(raster, progress)

    @property
    def zeros_may_be_a_class(self) -> bool:
        """Whether a pixel that was read is 0, and the file has another value for what is missing."""
        return self.zeros and self._nodata is not None and self._zero_as is None

    @property
    def names(self) -> dict[int, str]:
        """What the file calls its classes, by class value."""
        return dict(self._names)

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Read class values of a window inside the grid.

        Raises:
            DatasetError: if a value is no class id.
        """
        values, valid = self._raster.read(window)
        values, valid = values[0], valid[0]
        if self._zero_counts:
            valid = valid | (values == 0)
        whole = bool(valid.all())
        used = values if whole else values[valid]
        check_values(used, self.name)
        labels = (values if whole else np.where(valid, values, UNLABELLED)).astype(np.uint8)
        self.zeros = self.zeros or bool(np.any(used == 0))
        if self._zero_as is not None:
            if np.any(used == self._zero_as):
                raise ConfigError(
                    f"ZERO_AS is {self._zero_as}, but {self.name} already holds a class {self._zero_as}; the "
                    "two would become one. Choose an id that is free."
                )
            labels[valid & (values == 0)] = self._zero_as
        return labels

    def read_padded(self, window: Window) -> NDArray[np.uint8]:
        """Read a window that may reach over the border; there it is unlabelled."""
        inside = window.clipped(self.grid.width, self.grid.height)
        labels = np.full((window.height, window.width), UNLABELLED, np.uint8)
        y, x = inside.y - window.y, inside.x - window.x
        labels[y : y + inside.height, x : x + inside.width] = self.read(inside)
        return labels

    def values(self, progress: Progress) -> set[int]:
        """Look at every pixel and give the class values that occur, without 0.

        Raises:
            DatasetError: if a value is no class id.
        """
        found = np.zeros(256, np.bool_)
        blocks = block_windows(self.grid.width, self.grid.height, _BLOCK)
        for index, window in enumerate(blocks):
            progress.check()
            found |= np.bincount(self.read(window).ravel(), minlength=256) > 0
            progress.report((index + 1) / len(blocks))
        return {int(value) for value in np.flatnonzero(found)} - {UNLABELLED}

    def table(self, values: set[int], known: tuple[ClassEntry, ...] = ()) -> ClassTable:
        """Make the class table of these values.

        Args:
            values: class values.
            known: names and colours that win over those in the file; empty ones do not.
        """
        names = {**self._names, **{entry.value: entry.name for entry in known if entry.name}}
        colors = {**self._colors, **{entry.value: entry.color for entry in known if entry.color}}
        if self._zero_as is not None and self._zero_as not in names and names.get(0):
            names[self._zero_as] = names[0]
        return ClassTable.of(values, names, colors)

    def _on_grid(self, raster: Raster, progress: Progress) -> Raster:
        """Give the labels on the image's grid, or say why that cannot be."""
        same_size = (raster.grid.width, raster.grid.height) == (self.grid.width, self.grid.height)
        if not raster.grid.crs or not self.grid.crs:
            if same_size and (not raster.grid.crs) == (not self.grid.crs):
                progress.warning(
                    f"{self.name} and the image have no coordinate system; as they have the same size, "
                    "their pixels are taken to lie on each other."
                )
                return raster
            which = "The image" if not self.grid.crs else self.name
            raise RasterError(
                f"{which} has no coordinate system, so labels and image cannot be brought together. Assign "
                "the right one (in QGIS: Raster > Projections > Assign Projection)."
            )
        xmin, ymin, xmax, ymax = bounds_in(raster.grid, self.grid.crs)
        extent = self.grid.extent
        if xmax <= extent[0] or xmin >= extent[2] or ymax <= extent[1] or ymin >= extent[3]:
            raise RasterError(
                f"{self.name} and the image have no common ground: in the image's coordinate system the "
                f"labels reach from {xmin:.6g}, {ymin:.6g} to {xmax:.6g}, {ymax:.6g}, the image from "
                f"{extent[0]:.6g}, {extent[1]:.6g} to {extent[2]:.6g}, {extent[3]:.6g}. Are these the right "
                "layers, and are their coordinate systems right?"
            )
        progress.info(f"{self.name} lies on another grid than the image; it is warped to it (nearest neighbour).")
        return Raster(self._warped(raster), self.name)

    def _warped(self, raster: Raster) -> gdal.Dataset:
        """Warp to the image's grid without writing; what lies outside of the labels is NaN."""
        options = gdal.WarpOptions(
            format="VRT",
            outputBounds=self.grid.extent,
            width=self.grid.width,
            height=self.grid.height,
            dstSRS=self.grid.crs,
            resampleAlg="near",
            outputType=gdal.GDT_Float64,
            srcNodata="None" if self._nodata is None else self._nodata,
            dstNodata="nan",
            errorThreshold=0,
        )
        try:
            warped = gdal.Warp("", raster.dataset, options=options)
        except RuntimeError as error:
            raise RasterError(f"{self.name} cannot be warped to the image's grid: {error}") from error
        if warped is None:
            raise RasterError(f"{self.name} cannot be warped to the image's grid: {gdal.GetLastErrorMsg()}")
        self._source = raster  # the VRT reads from it
        return warped if self.grid.north_up else _placed(warped, self.grid)


def _placed(warped: gdal.Dataset, grid: Grid) -> gdal.Dataset:
    """Give a warped virtual raster on a grid that is turned, or whose first row is the southernmost.

    GDAL only makes such that are not, but reads others.
    """
    text = warped.GetMetadata("xml:VRT")[0]
    places = {
        "GeoTransform": grid.transform,
        "DstGeoTransform": grid.transform,
        "DstInvGeoTransform": gdal.InvGeoTransform(grid.transform),
    }
    for name, numbers in places.items():
        entry = f"<{name}>{','.join(map(repr, numbers))}</{name}>"
        text, found = re.subn(f"<{name}>[^<]*</{name}>", entry, text)
        if found != 1:
            raise RasterError("GDAL describes a warped raster in an unknown way.")
    return gdal.Open(text)


def check_values(values: NDArray[np.generic], name: str) -> None:
    """Check that label values are class ids.

    Raises:
        DatasetError: if one is not.
    """
    if values.dtype == np.uint8 or not values.size:
        return
    wrong = values[(values < 0) | (values > 255) | (values != np.floor(values))]  # type: ignore[operator]
    if wrong.size:
        raise DatasetError(
            f"{name} holds the value {wrong.flat[0]:g}. Class ids are whole numbers from 0 to 255 (0 = unlabelled). "
            "Reclassify the raster first, or declare that value as its no-data value."
        )


def check_one_band(raster: Raster, what: str) -> None:
    """Check that a label chip is none of an image, for which it is easily taken: chips of a pair have the same name.

    Raises:
        DatasetError: if it has several bands.
    """
    if raster.count > 1:
        raise DatasetError(
            f"{what} {raster.name} has {raster.count} bands; labels have one. Is it an image chip? Run the Raster "
            "Splitter again."
        )


def read_label_chip(raster: Raster, what: str) -> NDArray[np.uint8]:
    """Read the class values ``(rows, columns)`` of a label chip; 0 where it has no data.

    Args:
        raster: the chip.
        what: names it in messages.

    Raises:
        DatasetError: if it has several bands, or a value is no class id.
        RasterError: if it is damaged.
    """
    check_one_band(raster, what)
    values, valid = raster.read(raster.whole)
    check_values(values[0][valid[0]], f"{what} {raster.name}")
    return np.where(valid[0], values[0], UNLABELLED).astype(np.uint8)


def names_and_colors(dataset: gdal.Dataset, values: set[int] | None = None) -> tuple[dict[int, str], dict[int, str]]:
    """Read class names and colours by class value, from a raster's attribute table, categories and colour table.

    Args:
        dataset: an open GDAL dataset.
        values: the class values that matter; None = all.

    Raises:
        RasterError: if the file is damaged.
    """
    with damage_told(dataset.GetDescription()):
        return _names_and_colors(dataset, values)


def _names_and_colors(dataset: gdal.Dataset, values: set[int] | None) -> tuple[dict[int, str], dict[int, str]]:
    dataset.GetMetadata()  # loads the .aux.xml: GDAL 3.6 gives no category names before
    band = dataset.GetRasterBand(1)
    names, colors = _from_attributes(band.GetDefaultRAT())
    if names:
        return names, colors
    categories = enumerate(band.GetCategoryNames() or [])
    names = {value: name for value, name in categories if name and (values is None or value in values)}
    table = band.GetColorTable()
    if table is not None:
        for value in range(table.GetCount()) if values is None else sorted(values):
            red, green, blue, _ = table.GetColorEntry(value)
            colors[value] = f"#{red:02x}{green:02x}{blue:02x}"
    return names, colors


def _from_attributes(table: gdal.RasterAttributeTable | None) -> tuple[dict[int, str], dict[int, str]]:
    """Read names and colours from a raster attribute table; nothing where it has no values or no names."""
    columns = {} if table is None else {table.GetUsageOfCol(i): i for i in range(table.GetColumnCount())}
    value = columns.get(gdal.GFU_MinMax, columns.get(gdal.GFU_Min))
    name = columns.get(gdal.GFU_Name)
    if table is None or value is None or name is None:
        return {}, {}
    rgb = [columns.get(usage) for usage in (gdal.GFU_Red, gdal.GFU_Green, gdal.GFU_Blue)]
    names, colors = {}, {}
    for row in range(table.GetRowCount()):
        number = table.GetValueAsInt(row, value)
        names[number] = table.GetValueAsString(row, name)
        if None not in rgb:
            colors[number] = "#" + "".join(f"{table.GetValueAsInt(row, column):02x}" for column in rgb)
    return names, colors
