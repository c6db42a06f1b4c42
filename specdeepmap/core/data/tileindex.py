# SPDX-License-Identifier: GPL-3.0-or-later
"""The tile index ``tiles.gpkg``: one polygon per chip, to look at and to edit in QGIS."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from osgeo import gdal, ogr, osr

from specdeepmap.core.data.grid import Grid, spatial_reference
from specdeepmap.core.errors import DatasetError, RasterError

LAYER = "tiles"
_FIELDS = (
    ("name", ogr.OFTString),
    ("source", ogr.OFTString),
    ("col", ogr.OFTInteger),
    ("row", ogr.OFTInteger),
    ("coverage", ogr.OFTReal),
    ("dominant", ogr.OFTInteger),
    ("split", ogr.OFTString),
)


@dataclass(frozen=True)
class TileRecord:
    """A row of the index.

    Attributes:
        name: of the chip, without extension.
        source: stem of the image that it was cut from.
        col, row: offsets in the source image, in pixels.
        coverage: labelled share of the chip, in percent.
        dominant: class value of most labelled pixels; 0 where none is labelled.
        grid: of the chip.
    """

    name: str
    source: str
    col: int
    row: int
    coverage: float
    dominant: int
    grid: Grid


def write_index(path: Path, records: Iterable[TileRecord], earlier: Path | None, source: str) -> None:
    """Write the index, keeping rows that an earlier one has of other sources, and the split of chips of the same name.

    Args:
        path: the file to write.
        records: rows to add; the first one's CRS becomes that of a new index.
        earlier: an index to start from.
        source: the source whose rows in the earlier index are replaced.

    Raises:
        RasterError: if it cannot be written.
    """
    reason = _complaint(lambda: _write_rows(path, list(records), earlier, source))
    if reason:
        raise RasterError(
            f"{path.parent} cannot be written: {reason}. Is the disk full, or the folder write-protected? Free "
            "some space or choose another folder."
        )


def copy_index(source: Path, target: Path) -> None:
    """Copy an index, with what QGIS has saved beside it, in a write-ahead log, while it shows the layer.

    Raises:
        OSError: if it cannot be read or written.
    """
    if not source.with_name(source.name + "-wal").exists():
        shutil.copyfile(source, target)
        return
    try:
        address = f"{source.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as one, closing(sqlite3.connect(target)) as other:
            one.backup(other)
            other.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise OSError(f"{source} cannot be copied: {error}. Close it in QGIS and try again") from error


def read_splits(path: Path) -> dict[str, str]:
    """Read the field ``split`` of each chip, by name; empty where it has none.

    Raises:
        DatasetError: if it is no tile index.
    """
    try:
        dataset = gdal.OpenEx(str(path), gdal.OF_VECTOR)
    except RuntimeError as error:
        raise DatasetError(f"{path} cannot be opened: {error}") from error
    layer = _layer(dataset, path)
    return {feature.GetField("name"): (feature.GetField("split") or "").strip() for feature in layer}


def write_splits(path: Path, splits: Mapping[str, str]) -> None:
    """Fill in the field ``split`` in place, in one transaction; chips that are not named get none.

    Raises:
        RasterError: if the file cannot be changed, for example because another program holds it.
    """
    reason = _complaint(lambda: _change_splits(path, splits))
    if reason:
        _complaint(lambda: _open_once(path))  # SQLite takes back what was half-written
        raise RasterError(f"{path} cannot be changed: {reason}.")


def _write_rows(path: Path, records: Sequence[TileRecord], earlier: Path | None, source: str) -> None:
    splits: dict[str, str] = {}
    if earlier is not None:
        copy_index(earlier, path)
        dataset = gdal.OpenEx(str(path), gdal.OF_VECTOR | gdal.OF_UPDATE)
        layer = _layer(dataset, earlier)
        replaced = {feature.GetFID(): feature for feature in layer if feature["source"] == source}
        splits = {feature["name"]: feature["split"] or "" for feature in replaced.values()}
        for number in replaced:
            layer.DeleteFeature(number)
    else:
        dataset = ogr.GetDriverByName("GPKG").CreateDataSource(str(path))
        crs = records[0].grid.crs if records else ""
        layer = dataset.CreateLayer(LAYER, spatial_reference(crs) if crs else None, ogr.wkbPolygon)
        for name, kind in _FIELDS:
            layer.CreateField(ogr.FieldDefn(name, kind))
        _add_style(dataset, layer.GetGeometryColumn())
    layer.StartTransaction()
    if any(_add(layer, record, splits.get(record.name, "")) != ogr.OGRERR_NONE for record in records):
        raise RuntimeError(gdal.GetLastErrorMsg())
    _commit(layer)


def _add_style(dataset: gdal.Dataset, geometry: str) -> None:
    """Store the style by set where QGIS looks for a layer's default style in a GeoPackage."""
    styles = dataset.CreateLayer("layer_styles", None, ogr.wkbNone, options=["FID=id"])
    values: dict[str, str | int] = {
        "f_table_catalog": "",
        "f_table_schema": "",
        "f_table_name": LAYER,
        "f_geometry_column": geometry,
        "styleName": "set",
        "styleQML": (Path(__file__).parent / "tiles.qml").read_text(encoding="utf-8"),
        "styleSLD": "",
        "useAsDefault": 1,
        "description": "chips by set",
        "owner": "",
    }
    for name, value in values.items():
        field = ogr.FieldDefn(name, ogr.OFTInteger if isinstance(value, int) else ogr.OFTString)
        if isinstance(value, int):
            field.SetSubType(ogr.OFSTBoolean)
        styles.CreateField(field)
    styles.CreateField(ogr.FieldDefn("update_time", ogr.OFTDateTime))  # QGIS sorts by it
    feature = ogr.Feature(styles.GetLayerDefn())
    for name, value in values.items():
        feature.SetField(name, value)
    if styles.CreateFeature(feature) != ogr.OGRERR_NONE:
        raise RuntimeError(gdal.GetLastErrorMsg())


def _change_splits(path: Path, splits: Mapping[str, str]) -> None:
    dataset = gdal.OpenEx(str(path), gdal.OF_VECTOR | gdal.OF_UPDATE)
    layer = _layer(dataset, path)
    layer.StartTransaction()
    for feature in layer:
        feature.SetField("split", splits.get(feature.GetField("name"), ""))
        if layer.SetFeature(feature) != ogr.OGRERR_NONE:
            reason = gdal.GetLastErrorMsg()
            layer.RollbackTransaction()
            raise RuntimeError(reason)
    _commit(layer)


def _open_once(path: Path) -> None:
    gdal.OpenEx(str(path), gdal.OF_VECTOR | gdal.OF_UPDATE)


def _commit(layer: ogr.Layer) -> None:
    if layer.CommitTransaction() != ogr.OGRERR_NONE:
        reason = gdal.GetLastErrorMsg()
        layer.RollbackTransaction()
        raise RuntimeError(reason)


def _complaint(change: Callable[[], None]) -> str:
    """Change a file, close it, and give what GDAL complained about; empty where all went well.

    No error is passed on, since its traceback would keep the file open.
    """
    gdal.ErrorReset()
    try:
        change()
    except AttributeError:  # GDAL gave None
        return str(gdal.GetLastErrorMsg()) or "GDAL cannot make it; is its path longer than 500 characters?"
    except (RuntimeError, OSError) as error:  # without a text where that would hold bytes that are no letters
        return str(error) or ascii(gdal.GetLastErrorMsg())
    return str(gdal.GetLastErrorMsg()) if gdal.GetLastErrorType() >= gdal.CE_Failure else ""


def _layer(dataset: gdal.Dataset | None, path: Path) -> ogr.Layer:
    layer = None if dataset is None else dataset.GetLayerByName(LAYER)
    if layer is None:
        raise DatasetError(f"{path} is no tile index of the Raster Splitter: it has no layer '{LAYER}'.")
    definition = layer.GetLayerDefn()
    names = {definition.GetFieldDefn(index).GetName() for index in range(definition.GetFieldCount())}
    missing = [name for name, _ in _FIELDS if name not in names]
    if missing:
        raise DatasetError(f"{path} is no tile index of the Raster Splitter: it lacks {', '.join(missing)}.")
    return layer


def _add(layer: ogr.Layer, record: TileRecord, split: str) -> int:
    feature = ogr.Feature(layer.GetLayerDefn())
    for name in ("name", "source", "col", "row", "coverage", "dominant"):
        feature.SetField(name, getattr(record, name))
    feature.SetField("split", split)
    feature.SetGeometry(_polygon(record.grid, layer.GetSpatialRef()))
    return int(layer.CreateFeature(feature))


def _polygon(grid: Grid, crs: osr.SpatialReference | None) -> ogr.Geometry:
    ring = ogr.Geometry(ogr.wkbLinearRing)
    corners: Sequence[tuple[int, int]] = (
        (0, 0),
        (grid.width, 0),
        (grid.width, grid.height),
        (0, grid.height),
        (0, 0),
    )
    for corner in corners:
        ring.AddPoint_2D(*grid.ground(*corner))
    polygon = ogr.Geometry(ogr.wkbPolygon)
    polygon.AddGeometry(ring)
    if crs is not None and grid.crs:
        own = spatial_reference(grid.crs)
        if not own.IsSame(crs):
            crs.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
            polygon.Transform(osr.CoordinateTransformation(own, crs))
    return polygon
