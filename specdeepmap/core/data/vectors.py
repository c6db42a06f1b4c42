# SPDX-License-Identifier: GPL-3.0-or-later
"""Vector labels: polygons and points with a class field, burned onto an image's grid.

A source is a path or any other name that OGR knows, with QGIS's additions where a layer or some of its
features are meant: ``fields.gpkg|layername=crops|subset=year = 2024``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from osgeo import gdal, ogr, osr

from specdeepmap.core.data.classes import UNLABELLED, ClassEntry
from specdeepmap.core.data.raster import Grid, spatial_reference
from specdeepmap.core.data.writer import GeoTiff
from specdeepmap.core.errors import Canceled, ConfigError, DatasetError, RasterError, nearest
from specdeepmap.core.progress import Progress

_OPTIONS = ("TILED=YES", "COMPRESS=ZSTD", "ZSTD_LEVEL=1", "SPARSE_OK=TRUE", "BIGTIFF=IF_SAFER")
_ROWS = 512  # read at once when pixels are counted


@dataclass(frozen=True)
class VectorSource:
    """Where vector labels lie: OGR name, layer name and filter, the last two empty where none is given."""

    name: str
    layer: str
    subset: str

    @classmethod
    def parse(cls, text: str) -> VectorSource:
        """Take QGIS's notation apart."""
        name, *parts = text.split("|")
        values = dict(part.split("=", 1) for part in parts if "=" in part)
        lowered = {key.lower(): value for key, value in values.items()}
        return cls(name, lowered.get("layername", ""), lowered.get("subset", ""))


def is_vector(source: str) -> bool:
    """Tell whether a source is a vector dataset and no raster."""
    name = VectorSource.parse(source).name
    for kind, answer in ((gdal.OF_RASTER, False), (gdal.OF_VECTOR, True)):
        try:
            if gdal.OpenEx(name, kind) is not None:
                return answer
        except RuntimeError:
            continue
    return False


def burn_vectors(
    source: str, class_field: str | None, grid: Grid, target: Path, zero_as: int | None, progress: Progress
) -> tuple[ClassEntry, ...]:
    """Burn polygons or points onto a grid as a Byte raster; where they overlap, the last one wins.

    A pixel belongs to the polygon that its centre lies in. Text classes get ids 1 to n in alphabetical order
    over the whole layer.

    Args:
        source: see ``VectorSource``.
        class_field: holds class ids, or class names as text.
        grid: of the image.
        target: the raster to write.
        zero_as: class id that 0 stands for.
        progress: is told of overlaps and of features without a class.

    Returns:
        The names of text classes, without colours; nothing for class ids.

    Raises:
        ConfigError, DatasetError, RasterError: if the layer or its field cannot be used.
    """
    parsed = VectorSource.parse(source)
    try:
        dataset = gdal.OpenEx(parsed.name, gdal.OF_VECTOR)
    except RuntimeError as error:
        raise RasterError(f"LABELS {source} cannot be opened: {error}") from error
    if dataset is None:
        raise RasterError(f"LABELS {source} cannot be opened: {gdal.GetLastErrorMsg()}")
    layer = _layer(dataset, parsed, source)
    index, is_text = _field(layer, class_field, source)
    values, names = _class_values(layer, index, is_text, zero_as, source)
    memory = _projected(layer, index, values, grid, source, progress)
    kind = _kind(layer)
    with GeoTiff(target, grid, 1, np.uint8, None, _OPTIONS) as tif:
        _rasterize(tif.dataset, memory, ["ATTRIBUTE=value"], source, progress.part(0.0, 0.5))
    if kind == "polygon":
        _tell_overlaps(memory, grid, target, source, progress.part(0.5, 1.0))
    return tuple(ClassEntry(value, name, "") for value, name in names.items())


def _layer(dataset: gdal.Dataset, parsed: VectorSource, source: str) -> ogr.Layer:
    """Choose the layer and apply the filter."""
    names = [dataset.GetLayer(number).GetName() for number in range(dataset.GetLayerCount())]
    if parsed.layer and parsed.layer not in names:
        raise ConfigError(f"LABELS {source}: there is no layer '{parsed.layer}'.{nearest(parsed.layer, names)}")
    if not parsed.layer and len(names) != 1:
        raise ConfigError(
            f"LABELS {source} holds {len(names)} layers ({', '.join(names)}). Name one: {parsed.name}|layername=…"
        )
    layer = dataset.GetLayerByName(parsed.layer or names[0])
    if parsed.subset and layer.SetAttributeFilter(parsed.subset) != 0:
        raise ConfigError(f"LABELS {source}: the filter '{parsed.subset}' cannot be used.")
    if _kind(layer) not in ("polygon", "point"):
        raise ConfigError(f"LABELS {source} holds neither polygons nor points. Buffer lines to polygons first.")
    return layer


def _kind(layer: ogr.Layer) -> str:
    """Tell what a layer holds: polygon, point or other; by its features where the layer does not say."""
    code = ogr.GT_Flatten(layer.GetGeomType())
    if code == ogr.wkbUnknown:
        layer.ResetReading()
        found = (feature.GetGeometryRef() for feature in layer)
        code = next((ogr.GT_Flatten(shape.GetGeometryType()) for shape in found if shape is not None), code)
        layer.ResetReading()
    kinds = {ogr.wkbPolygon: "polygon", ogr.wkbMultiPolygon: "polygon"}
    kinds |= {ogr.wkbCurvePolygon: "polygon", ogr.wkbMultiSurface: "polygon"}
    kinds |= {ogr.wkbPoint: "point", ogr.wkbMultiPoint: "point"}
    return kinds.get(code, "other")


def _field(layer: ogr.Layer, class_field: str | None, source: str) -> tuple[int, bool]:
    """Find the class field; tells its position and whether it holds text."""
    definition = layer.GetLayerDefn()
    fields = [definition.GetFieldDefn(number) for number in range(definition.GetFieldCount())]
    names = [field.GetName() for field in fields]
    if class_field is None:
        raise ConfigError(
            f"CLASS_FIELD is not set, and LABELS {source} are vectors. Name the field with the class: "
            f"{', '.join(names)}."
        )
    if class_field not in names:
        raise ConfigError(
            f"CLASS_FIELD is '{class_field}', which LABELS {source} does not have.{nearest(class_field, names)} "
            f"It has: {', '.join(names)}."
        )
    index = names.index(class_field)
    return index, fields[index].GetType() == ogr.OFTString


def _class_values(
    layer: ogr.Layer, index: int, is_text: bool, zero_as: int | None, source: str
) -> tuple[dict[object, int], dict[int, str]]:
    """Give the class id of each value of the field, and the names of text classes.

    Raises:
        ConfigError, DatasetError: if a value is no class id, or there are too many.
    """
    name = layer.GetLayerDefn().GetFieldDefn(index).GetName()
    found = {feature.GetField(index) for feature in layer if feature.IsFieldSetAndNotNull(index)}
    layer.ResetReading()
    if is_text:
        texts = sorted(text for text in found if str(text).strip())
        if len(texts) > 255:
            raise DatasetError(f"CLASS_FIELD {name} has {len(texts)} different texts; 255 classes are possible.")
        values: dict[object, int] = {text: number for number, text in enumerate(texts, 1)}
        return values, {number: str(text) for text, number in values.items()}
    wrong = sorted(value for value in found if value != int(value) or not 0 <= value <= 255)
    if wrong:
        raise DatasetError(
            f"CLASS_FIELD {name} of LABELS {source} holds the value {wrong[0]:g}. Class ids are whole numbers from "
            "0 to 255 (0 = unlabelled)."
        )
    if zero_as is not None and zero_as in found and 0 in found:
        raise ConfigError(
            f"ZERO_AS is {zero_as}, but CLASS_FIELD {name} already holds a class {zero_as}; the two would become "
            "one. Choose an id that is free."
        )
    return {value: int(value) or zero_as or UNLABELLED for value in found}, {}


def _projected(
    layer: ogr.Layer, index: int, values: dict[object, int], grid: Grid, source: str, progress: Progress
) -> gdal.Dataset:
    """Copy the features to memory, in the grid's CRS, with their class ids.

    Raises:
        RasterError: if the coordinate systems cannot be brought together.
    """
    transformation = _transformation(layer, grid, source, progress)
    dataset = gdal.GetDriverByName("Memory").Create("", 0, 0, 0, gdal.GDT_Unknown)
    target = dataset.CreateLayer("labels", spatial_reference(grid.crs) if grid.crs else None, ogr.wkbUnknown)
    target.CreateField(ogr.FieldDefn("value", ogr.OFTInteger))
    without = 0
    for number, feature in enumerate(layer):
        if number % 1000 == 0:
            progress.check()
        geometry = feature.GetGeometryRef()
        value = values.get(feature.GetField(index)) if feature.IsFieldSetAndNotNull(index) else None
        if value is None or geometry is None or geometry.IsEmpty():
            without += 1
            continue
        geometry = geometry.Clone()
        if transformation is not None:
            geometry.Transform(transformation)
        copy = ogr.Feature(target.GetLayerDefn())
        copy.SetField("value", value)
        copy.SetGeometryDirectly(geometry)
        target.CreateFeature(copy)
    if without:
        progress.warning(f"LABELS: {without} feature(s) without a class or a geometry are left out.")
    return dataset


def _transformation(
    layer: ogr.Layer, grid: Grid, source: str, progress: Progress
) -> osr.CoordinateTransformation | None:
    """Give the way from the layer's CRS to the grid's; None where they are the same."""
    own = layer.GetSpatialRef()
    if own is None and not grid.crs:
        progress.warning(f"LABELS {source} and the image have no coordinate system; taken to be the same.")
        return None
    if own is None or not grid.crs:
        which = "the image" if own is not None else f"LABELS {source}"
        raise RasterError(f"{which} has no coordinate system, so labels and image cannot be brought together.")
    wanted = spatial_reference(grid.crs)
    own = own.Clone()
    own.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    if own.IsSame(wanted):
        return None
    progress.info("LABELS have another coordinate system than the image; they are transformed.")
    return osr.CoordinateTransformation(own, wanted)


def _rasterize(
    raster: gdal.Dataset, memory: gdal.Dataset, options: list[str], source: str, progress: Progress, burn: int = 0
) -> None:
    """Burn the features of a memory dataset in their order."""

    def heard(share: float, *_: object) -> int:
        try:
            progress.check()
        except Canceled:
            return 0
        progress.report(share)
        return 1

    values = [] if options and options[0].startswith("ATTRIBUTE") else [burn]
    try:
        status = gdal.RasterizeLayer(
            raster, [1], memory.GetLayer(0), burn_values=values, options=options, callback=heard
        )
    except RuntimeError as error:
        progress.check()
        raise RasterError(f"LABELS {source} cannot be burned: {error}") from error
    progress.check()
    if status != 0:
        raise RasterError(f"LABELS {source} cannot be burned: {gdal.GetLastErrorMsg()}")


def _tell_overlaps(memory: gdal.Dataset, grid: Grid, target: Path, source: str, progress: Progress) -> None:
    """Count the pixels that lie in several polygons, and say so."""
    counts = target.with_name(f"{target.stem}_overlaps{target.suffix}")
    with GeoTiff(counts, grid, 1, np.uint8, None, _OPTIONS) as tif:
        _rasterize(tif.dataset, memory, ["MERGE_ALG=ADD"], source, progress, burn=1)
    dataset = gdal.Open(str(counts))
    pixels = 0
    for y in range(0, grid.height, _ROWS):
        progress.check()
        rows = dataset.GetRasterBand(1).ReadAsArray(0, y, grid.width, min(_ROWS, grid.height - y))
        pixels += int((rows > 1).sum())
    del dataset
    counts.unlink()
    if pixels:
        progress.warning(f"LABELS: {pixels} pixels lie in several polygons; the last one in the layer wins.")
