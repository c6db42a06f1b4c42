# SPDX-License-Identifier: GPL-3.0-or-later
"""Polygons of a class map: class id, class name and area.

GDAL's polygons are drafted in a file of their own first, since most formats cannot change what was written: then each
gets its name and its area on the way into the file that was asked for.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from osgeo import gdal, ogr, osr

from specdeepmap.core.data.callback import GdalCallback, expect
from specdeepmap.core.data.classes import ClassTable
from specdeepmap.core.data.grid import Grid, spatial_reference
from specdeepmap.core.data.options import VECTOR_DRIVERS
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.errors import Canceled, RasterError
from specdeepmap.core.progress import Progress

LAYER = "classes"
_STYLES = "layer_styles"
_LAYER_OPTIONS = {
    "ESRI Shapefile": ("ENCODING=UTF-8",),
    "GeoJSON": ("RFC7946=YES", "COORDINATE_PRECISION=8"),  # 1e-8 degrees are a millimetre
}
_NEEDS_CRS = ("RFC7946=YES",)  # it checks that coordinates are degrees
_COMPANIONS = {"ESRI Shapefile": (".shx", ".dbf", ".prj", ".cpg")}
_FIELDS = (("class_id", ogr.OFTInteger), ("class_name", ogr.OFTString), ("area_m2", ogr.OFTReal))
_DRAFT = "FlatGeobuf"
"""A format that is only appended to, so that writing takes no longer with every polygon."""

_CHECK_EVERY = 1000  # polygons, some ten milliseconds
_HALF_ROUND = 2e7  # metres from pole to pole


def polygonize(class_map: Path, target: Path, classes: ClassTable, progress: Progress) -> None:
    """Turn a class map into polygons of 4-connected pixels; value 0 gives none.

    Fields: ``class_id``, ``class_name`` and ``area_m2``, in square metres on the ellipsoid; in map units where the map
    has no CRS. The layer has the map's CRS, but for GeoJSON: that is in WGS 84 (RFC 7946, section 4), rounded to a
    millimetre and cut where it crosses the date line, while its areas are those of the map. Shapefiles are in UTF-8.

    Args:
        class_map: a Byte raster with no-data 0. It is read row by row.
        target: the vector file, its format by the suffix, in small letters. It is overwritten.
        classes: names of the values.
        progress: is reported to; a cancel stops the work. It hears of the draft that lies beside the target meanwhile.

    Raises:
        RasterError: if the map cannot be read, or the file cannot be written.
    """
    kind = driver_name(target)
    raster = Raster.open(class_map)
    draft = target.with_name(f"{target.stem}.draft.fgb")
    # FlatGeobuf sorts its features in a file beside the target.
    passing = [draft, target.with_name(f"{target.stem}_temp.fgb")] if kind == _DRAFT else [draft]
    for path in passing:
        progress.staged(path)
    try:
        _checked(lambda: _draft(raster, draft, progress.part(0.0, 0.5)), target, progress)
        _checked(lambda: _fill(draft, target, raster.grid, classes, progress.part(0.5, 1.0)), target, progress)
        # Of the last bytes, GDAL does not tell whether they could be written.
        _checked(lambda: _expect_end(target) if kind == "GeoJSON" else _read_back(target, progress), target, progress)
    finally:
        for path in passing:
            path.unlink(missing_ok=True)


def other_layers(path: Path) -> list[str]:
    """Give the layers and tables of an existing GeoPackage that this module did not make; styles of QGIS aside."""
    if path.suffix.lower() != ".gpkg" or not path.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            names = {str(name) for (name,) in database.execute("SELECT table_name FROM gpkg_contents")}
            fields = {row[1] for row in database.execute(f'PRAGMA table_info("{LAYER}")')}
    except sqlite3.Error:  # no GeoPackage, or none that is whole
        return []
    ours = {LAYER} if {name for name, _ in _FIELDS} <= fields else set()
    return sorted(names - ours - {_STYLES})


def companions(target: Path) -> list[Path]:
    """Give the other files that come into being with a vector file, for good."""
    return [target.with_suffix(suffix) for suffix in _COMPANIONS.get(driver_name(target), ())]


def driver_name(target: Path) -> str:
    """Give the OGR driver for a file name with a known suffix."""
    return VECTOR_DRIVERS[target.suffix.lower()]


def _draft(raster: Raster, draft: Path, progress: Progress) -> None:
    """Write polygons with nothing but their class, in map coordinates."""
    band = raster.dataset.GetRasterBand(1)
    dataset = layer = None
    try:
        dataset = ogr.GetDriverByName(_DRAFT).CreateDataSource(str(draft))
        layer = dataset.CreateLayer(LAYER, None, ogr.wkbPolygon, ["SPATIAL_INDEX=NO"])
        layer.CreateField(ogr.FieldDefn(*_FIELDS[0]))
        # The map is its own mask: 0 is left out.
        expect(gdal.Polygonize(band, band, layer, 0, [], callback=GdalCallback(progress)))
    finally:
        layer = dataset = None  # an open file could not be removed on Windows


def _fill(draft: Path, target: Path, grid: Grid, classes: ClassTable, progress: Progress) -> None:
    """Copy the draft, with class names and areas."""
    kind = driver_name(target)
    names = {entry.value: entry.name for entry in classes.entries}
    ruler = _Ruler(grid)
    source = drafted = dataset = layer = polygon = feature = shape = None
    try:
        if draft.stat().st_size:  # GDAL writes nothing where there is no polygon
            source = ogr.Open(str(draft))
            drafted = source.GetLayer(0)
        count = 0 if drafted is None else drafted.GetFeatureCount()
        dataset = ogr.GetDriverByName(kind).CreateDataSource(str(target))
        crs = _writable_crs(grid, target, progress)
        layer = dataset.CreateLayer(LAYER, crs, ogr.wkbPolygon, _layer_options(kind, crs is not None))
        for name, number_type in _FIELDS:
            field = ogr.FieldDefn(name, number_type)
            if kind == "ESRI Shapefile" and crs is not None and number_type == ogr.OFTReal:
                field.SetWidth(24)
                field.SetPrecision(6)  # GDAL's 15 leave room for eight digits, a hundred square kilometres
            expect(layer.CreateField(field))
        if layer.TestCapability(ogr.OLCTransactions):
            layer.SyncToDisk()  # or taking the transaction back would take the table
        expect(layer.StartTransaction())
        feature = ogr.Feature(layer.GetLayerDefn())
        for index, polygon in enumerate(drafted or ()):
            if index % _CHECK_EVERY == 0:
                _check(layer, progress)
                progress.report(index / count)
            value, shape = polygon.GetField(0), polygon.GetGeometryRef()
            feature.SetFID(-1)
            feature.SetGeometry(shape)
            fields = (value, names.get(value, ""), ruler.area(shape))
            for place, content in enumerate(fields):
                feature.SetField(place, content)
            expect(layer.CreateFeature(feature))
        _check(layer, progress)
        expect(layer.CommitTransaction())
    finally:
        shape = polygon = feature = layer = dataset = drafted = source = None


def _read_back(target: Path, progress: Progress) -> None:
    """Read what was written.

    Raises:
        RuntimeError: if something of it cannot be read.
    """
    dataset = layer = feature = None
    try:
        dataset = ogr.Open(str(target))
        if dataset is None:
            raise RuntimeError("it cannot be opened")
        layer = dataset.GetLayer(0)
        missing = layer.GetFeatureCount()
        for feature in layer:
            if missing % _CHECK_EVERY == 0:
                progress.check()
            missing -= feature.IsFieldSetAndNotNull(0) and feature.GetGeometryRef() is not None
        if missing:
            raise RuntimeError(f"{missing} polygons are missing")
    finally:
        feature = layer = dataset = None


def _expect_end(document: Path) -> None:
    """Look for the last line of a GeoJSON, which it takes long to read.

    Raises:
        RuntimeError: if it is not there.
    """
    with document.open("rb") as file:
        file.seek(-min(document.stat().st_size, 64), os.SEEK_END)
        if file.read().rstrip().splitlines()[-1:] != [b"}"]:
            raise RuntimeError("its end is missing")


def _writable_crs(grid: Grid, target: Path, progress: Progress) -> osr.SpatialReference | None:
    """Give the map's CRS, None where vector files cannot name it: a rotated pole cannot be written as WKT 1."""
    if not grid.crs:
        return None
    crs = spatial_reference(grid.crs)
    try:
        if crs.ExportToWkt(["FORMAT=WKT1_GDAL"]):
            return crs
    except RuntimeError:
        pass
    gdal.ErrorReset()
    progress.warning(
        f"VECTOR {target} has no coordinate system: GDAL cannot write that of the map into vector files. Its "
        "coordinates are those of the map; set the system in QGIS (Layer > Set CRS of Layer)."
    )
    return None


def _layer_options(kind: str, has_crs: bool) -> list[str]:
    return [option for option in _LAYER_OPTIONS.get(kind, ()) if has_crs or option not in _NEEDS_CRS]


def _check(layer: ogr.Layer, progress: Progress) -> None:
    """Stop here if somebody asked for it; nothing of a layer with transactions is left then, and no index is made."""
    try:
        progress.check()
    except Canceled:
        if layer.TestCapability(ogr.OLCTransactions):
            layer.RollbackTransaction()
        raise


class _Ruler:
    """Measure polygons in square metres, or in map units where the map has no CRS.

    A projected map is measured in Lambert's azimuthal equal-area projection around its own centre, with long edges
    divided, since they are not straight there. A geographic map, or one of the world, is measured in the cylindrical
    equal-area projection, in which meridians and parallels are straight (Snyder 1987, "Map Projections: A Working
    Manual", chapters 24 and 10). Both are on the map's own ellipsoid, so that no datum is shifted.
    """

    def __init__(self, grid: Grid) -> None:
        self._transformation: osr.CoordinateTransformation | None = None
        self._factor, self._longest, self._reached = 1.0, float("inf"), True
        if not grid.crs:
            return
        own = spatial_reference(grid.crs)
        if own.IsGeographic():
            self._transformation, self._factor = _halved_longitudes(own, grid), 2.0
        elif own.IsProjected():
            try:
                self._transformation = self._around_centre(own, grid)
            except RuntimeError:
                gdal.ErrorReset()
                self._reached = False
        else:
            self._factor = own.GetLinearUnits() ** 2  # a plane of its own, without a place on Earth

    def area(self, polygon: ogr.Geometry) -> float | None:
        """Give a polygon's area, None where the map's CRS does not reach. The polygon is changed."""
        if not self._reached:
            return None
        if self._transformation is not None:
            xmin, xmax, ymin, ymax = polygon.GetEnvelope()
            if max(xmax - xmin, ymax - ymin) > self._longest:
                polygon.Segmentize(self._longest)
            try:
                expect(polygon.Transform(self._transformation))
            except RuntimeError:
                gdal.ErrorReset()
                return None
        return float(polygon.GetArea() * self._factor)

    def _around_centre(self, own: osr.SpatialReference, grid: Grid) -> osr.CoordinateTransformation:
        """Give the way from a projected map to an equal-area one.

        Raises:
            RuntimeError: if the CRS does not reach to the map's centre.
        """
        xmin, ymin, xmax, ymax = grid.extent
        side = max(xmax - xmin, ymax - ymin)
        base, equal = osr.SpatialReference(), osr.SpatialReference()
        for system in (base, equal):
            system.CopyGeogCSFrom(own)
            system.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
        place = osr.CoordinateTransformation(own, base).TransformPoint((xmin + xmax) / 2, (ymin + ymax) / 2)
        longitude, latitude = (math.degrees(angle * base.GetAngularUnits()) for angle in place[:2])
        equal.SetProjCS("equal area")
        if side * own.GetLinearUnits() > _HALF_ROUND:
            equal.SetCEA(0.0, longitude, 0.0, 0.0)
        else:
            equal.SetLAEA(latitude, longitude, 0.0, 0.0)
            self._longest = side / 32  # the error goes with the square: a thousandth of the whole edge's
        return osr.CoordinateTransformation(own, equal)


def _halved_longitudes(own: osr.SpatialReference, grid: Grid) -> osr.CoordinateTransformation:
    """Give the way from a geographic map to a cylindrical equal-area one of half the width.

    PROJ takes a longitude beyond half a turn to the other side of the Earth, and with it a corner of a polygon. None of
    a map of the world gets there once it is halved, wherever the map begins; areas are halved with it.
    """
    xmin, _, xmax, _ = grid.extent
    unit = own.GetAngularUnits()
    options = osr.CoordinateTransformationOptions()
    options.SetOperation(
        f"+proj=pipeline +step +proj=unitconvert +xy_in={unit!r} +xy_out=rad "
        f"+step +proj=affine +over +s11=0.5 +xoff={-(xmin + xmax) / 4 * unit!r} "
        f"+step +proj=cea +a={own.GetSemiMajor()!r} +b={own.GetSemiMinor()!r}"
    )
    plain = osr.SpatialReference('LOCAL_CS["longitude, latitude"]')  # leaves the order of the axes alone
    return osr.CoordinateTransformation(plain, plain, options)


def _checked(work: Callable[[], None], target: Path, progress: Progress) -> None:
    """Work, and look for complaints after the files were closed: a full disk shows up there.

    Raises:
        RasterError: if there was one. It has no cause: that would keep the files open, and Windows removes no open
            file.
    """
    gdal.ErrorReset()
    try:
        work()
        reason = gdal.GetLastErrorMsg() if gdal.GetLastErrorType() >= gdal.CE_Failure else None
    except (RuntimeError, AttributeError, TypeError) as error:  # AttributeError, TypeError: GDAL gave None
        reason = gdal.GetLastErrorMsg() or str(error)
    progress.check()  # GDAL reports an interruption as an error, too
    if reason is not None:
        raise RasterError(
            f"{target} cannot be written: {reason or 'unknown reason'}. Is the disk full, or the folder "
            "write-protected? Free some space or choose another folder."
        )
