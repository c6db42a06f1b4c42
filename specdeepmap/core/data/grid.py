# SPDX-License-Identifier: GPL-3.0-or-later
"""Grids: where the pixels of a raster lie on the ground, and where that is in another coordinate system."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from osgeo import osr

from specdeepmap.core.data.tiling import Window
from specdeepmap.core.errors import RasterError

NOWHERE = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
"""Where QGIS shows a picture that has no place on the ground: its pixels are the units, its top is 0, below is less."""

Extent = tuple[float, float, float, float]
"""xmin, ymin, xmax, ymax in CRS units."""


@dataclass(frozen=True)
class Grid:
    """Where the pixels of a raster lie: size, affine transform (GDAL's six numbers), CRS as WKT."""

    width: int
    height: int
    transform: tuple[float, ...] = (0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    crs: str = ""

    def same_as(self, other: Grid, tolerance: float = 0.01) -> bool:
        """Tell whether two grids put their pixels on the same ground.

        Args:
            other: the other grid.
            tolerance: how far corners may lie apart, in pixels.
        """
        if (self.width, self.height) != (other.width, other.height) or not self.same_crs(other):
            return False
        pixel = max(abs(self.transform[1]), abs(self.transform[2])) or 1.0
        corners = ((0, 0), (self.width, 0), (0, self.height), (self.width, self.height))
        return all(math.dist(self.ground(*corner), other.ground(*corner)) <= tolerance * pixel for corner in corners)

    def same_crs(self, other: Grid) -> bool:
        """Tell whether two grids have the same CRS, or both have none."""
        if not self.crs or not other.crs or self.crs == other.crs:
            return self.crs == other.crs
        return bool(spatial_reference(self.crs).IsSame(spatial_reference(other.crs)))

    def ground(self, column: float, row: float) -> tuple[float, float]:
        """Give the CRS coordinates of a pixel's upper left corner."""
        a, b, c, d, e, f = self.transform
        return a + column * b + row * c, d + column * e + row * f

    def cut(self, window: Window) -> Grid:
        """Give the grid of a window; it may lie partly outside."""
        x, y = self.ground(window.x, window.y)
        _, b, c, _, e, f = self.transform
        return Grid(window.width, window.height, (x, b, c, y, e, f), self.crs)

    @property
    def north_up(self) -> bool:
        """Whether rows run along the x axis, top row in the north."""
        return self.transform[2] == 0 and self.transform[4] == 0 and self.transform[5] < 0

    @property
    def extent(self) -> Extent:
        """The bounding box of the grid."""
        corners = ((0, 0), (self.width, 0), (0, self.height), (self.width, self.height))
        xs, ys = zip(*(self.ground(*corner) for corner in corners), strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def window_of(self, extent: Extent) -> Window:
        """Give the pixels that an extent touches, clipped to the grid; its size may be 0."""
        a, b, _, d, _, f = self.transform
        columns = sorted(((extent[0] - a) / b, (extent[2] - a) / b))
        rows = sorted(((extent[1] - d) / f, (extent[3] - d) / f))
        x, y = math.floor(columns[0] + 1e-6), math.floor(rows[0] + 1e-6)
        window = Window(x, y, math.ceil(columns[1] - 1e-6) - x, math.ceil(rows[1] - 1e-6) - y)
        return window.clipped(self.width, self.height)


def bounds_in(grid: Grid, crs: str) -> Extent:
    """Give a grid's bounding box in another CRS.

    Raises:
        RasterError: if one cannot be transformed into the other.
    """
    return extents_in([grid], crs)[0]


def extents_in(grids: Sequence[Grid], crs: str) -> list[Extent]:
    """Give the bounding boxes of grids, which have one CRS, in another.

    Raises:
        RasterError: if one cannot be transformed into the other.
    """
    own = grids[0].crs
    if own == crs or not crs or not own:
        return [grid.extent for grid in grids]
    try:
        transformation = osr.CoordinateTransformation(spatial_reference(own), spatial_reference(crs))
        return [tuple(transformation.TransformBounds(*grid.extent, 21)) for grid in grids]
    except (RuntimeError, TypeError) as error:
        raise RasterError(f"The coordinate systems cannot be transformed into each other: {error}") from error


def spatial_reference(wkt: str) -> osr.SpatialReference:
    """Make a spatial reference of WKT, with x (east) always before y (north)."""
    reference = osr.SpatialReference()
    reference.ImportFromWkt(wkt)
    reference.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    return reference
