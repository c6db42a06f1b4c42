# SPDX-License-Identifier: GPL-3.0-or-later
"""Polygons of a class map: class id, class name and area."""

from __future__ import annotations

from pathlib import Path

from osgeo import gdal, ogr, osr

from specdeepmap.core.data.classes import ClassTable
from specdeepmap.core.data.raster import Grid, Raster, spatial_reference
from specdeepmap.core.errors import Canceled, ConfigError, RasterError
from specdeepmap.core.progress import Progress

_DRIVERS = {".gpkg": "GPKG", ".shp": "ESRI Shapefile", ".geojson": "GeoJSON", ".json": "GeoJSON"}
_CHANGEABLE = "GPKG"
"""The format whose features can be changed after they were written; others are copied from it."""
_COMPANIONS = {"ESRI Shapefile": (".gpkg", ".shx", ".dbf", ".prj", ".cpg"), "GeoJSON": (".gpkg",)}
LAYER = "classes"


def polygonize(class_map: Path, target: Path, classes: ClassTable, progress: Progress) -> None:
    """Turn a class map into polygons of 4-connected pixels; value 0 gives none.

    Fields: ``class_id``, ``class_name`` and ``area_m2``, in square metres; in map units where the map has no CRS.

    Args:
        class_map: a Byte raster with no-data 0.
        target: the vector file, its format by the suffix.
        classes: names of the values.
        progress: is reported to; a cancel stops the work.

    Raises:
        RasterError: if the file cannot be written.
    """
    kind = driver_name(target)
    if kind == _CHANGEABLE:
        _write(class_map, target, classes, progress)
        return
    draft = target.with_suffix(".gpkg")
    try:
        _write(class_map, draft, classes, progress)
        copy = gdal.VectorTranslate(str(target), str(draft), format=kind)
        if copy is None:
            raise RasterError(f"{target.parent} cannot be written: {gdal.GetLastErrorMsg()}")
        del copy
    except RuntimeError as error:
        raise RasterError(f"{target.parent} cannot be written: {error}") from error
    finally:
        draft.unlink(missing_ok=True)


def companions(target: Path) -> list[Path]:
    """Give the other files that come into being with a vector file, for some time or for good."""
    return [target.with_suffix(suffix) for suffix in _COMPANIONS.get(driver_name(target), ())]


def _write(class_map: Path, target: Path, classes: ClassTable, progress: Progress) -> None:
    """Write a GeoPackage."""
    raster = Raster.open(class_map)
    band = raster.dataset.GetRasterBand(1)
    dataset = layer = None
    try:
        dataset = ogr.GetDriverByName(_CHANGEABLE).CreateDataSource(str(target))
        crs = spatial_reference(raster.grid.crs) if raster.grid.crs else None
        layer = dataset.CreateLayer(LAYER, crs, ogr.wkbPolygon)
        layer.CreateField(ogr.FieldDefn("class_id", ogr.OFTInteger))
        layer.CreateField(ogr.FieldDefn("class_name", ogr.OFTString))
        layer.CreateField(ogr.FieldDefn("area_m2", ogr.OFTReal))
        layer.StartTransaction()
        # The map is its own mask: 0 is left out.
        status = gdal.Polygonize(band, band, layer, 0, [], callback=_Callback(progress.part(0.0, 0.6)))
        progress.check()
        if status != 0:
            raise RasterError(f"{target.parent} cannot be written: {gdal.GetLastErrorMsg()}")
        _describe(layer, raster.grid, classes, progress.part(0.6, 1.0))
        layer.CommitTransaction()
    except (RuntimeError, AttributeError) as error:  # AttributeError: GDAL gave None
        progress.check()  # GDAL reports an interruption as an error, too
        raise RasterError(f"{target.parent} cannot be written: {gdal.GetLastErrorMsg() or error}") from error
    finally:
        layer = dataset = None  # an open file could not be removed on Windows


def driver_name(target: Path) -> str:
    """Give the OGR driver for a file name.

    Raises:
        ConfigError: if its suffix is unknown.
    """
    if target.suffix.lower() not in _DRIVERS:
        raise ConfigError(f"VECTOR {target} ends in '{target.suffix}'; it can end in {', '.join(_DRIVERS)}.")
    return _DRIVERS[target.suffix.lower()]


class _Callback:
    """GDAL's progress callback: 0 stops the work."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __call__(self, share: float, *_: object) -> int:
        try:
            self._progress.check()
        except Canceled:
            return 0
        self._progress.report(share)
        return 1


def _describe(layer: ogr.Layer, grid: Grid, classes: ClassTable, progress: Progress) -> None:
    """Fill in names and areas."""
    names = {entry.value: entry.name for entry in classes.entries}
    transformation = _equal_area(grid)
    count = max(layer.GetFeatureCount(), 1)
    for index, feature in enumerate(layer):
        if index % 1000 == 0:
            progress.check()
            progress.report(index / count)
        geometry = feature.GetGeometryRef().Clone()
        if transformation is not None:
            geometry.Transform(transformation)
        feature.SetField("class_name", names.get(feature.GetField("class_id"), ""))
        feature.SetField("area_m2", geometry.GetArea())
        layer.SetFeature(feature)


def _equal_area(grid: Grid) -> osr.CoordinateTransformation | None:
    """Give the way to a projection that keeps areas, in metres; None without a CRS."""
    if not grid.crs:
        return None
    own = spatial_reference(grid.crs)
    world = osr.SpatialReference()
    world.ImportFromEPSG(6933)  # WGS 84 / NSIDC EASE-Grid 2.0 Global: cylindrical, equal area
    world.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    return osr.CoordinateTransformation(own, world)
