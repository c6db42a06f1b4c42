# SPDX-License-Identifier: GPL-3.0-or-later
"""Vector labels: polygons and points with a class field, burned onto an image's grid."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from osgeo import gdal, ogr, osr

from specdeepmap.core.data.classes import UNLABELLED, ClassEntry
from specdeepmap.core.data.grid import Grid, spatial_reference
from specdeepmap.core.data.vectorsource import VectorSource, find_class_field, kind_of_shape
from specdeepmap.core.data.writer import GeoTiff
from specdeepmap.core.errors import Canceled, ConfigError, DatasetError, RasterError
from specdeepmap.core.progress import Progress

_OPTIONS = ("TILED=YES", "COMPRESS=ZSTD", "ZSTD_LEVEL=1", "SPARSE_OK=TRUE", "BIGTIFF=IF_SAFER")
_ROWS = 512  # read at once when pixels are counted
_CHUNK = "CHUNKYSIZE=1024"  # rows burned at once: GDAL listens to a cancel only in between


def burn_vectors(
    source: str, class_field: str | None, grid: Grid, target: Path, zero_as: int | None, progress: Progress
) -> tuple[ClassEntry, ...]:
    """Burn polygons or points onto a grid as a Byte raster; where they overlap, the last one wins.

    A pixel belongs to the polygon that its centre lies in. Text classes get ids 1 to n in alphabetical order
    over the whole layer, whatever the filter.

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
    dataset, layer = parsed.open()
    index, is_text = find_class_field(layer, class_field, source)
    if is_text:
        layer.SetAttributeFilter(None)  # another filter must not give a class another id
        if zero_as is not None:
            progress.info(f"ZERO_AS is left aside: {class_field} holds text, so that no class is 0.")
    values, names = _class_values(layer, index, is_text, zero_as, source, progress)
    parsed.apply_filter(layer)
    memory = _projected(layer, index, values, grid, source, progress)
    with GeoTiff(target, grid, 1, np.uint8, None, _OPTIONS) as tif:
        _rasterize(tif.dataset, memory, ["ATTRIBUTE=value"], source, progress.part(0.0, 0.5))
    kinds = {kind_of_shape(feature.GetGeometryRef()) for feature in memory.GetLayer(0)}
    if "polygon" in kinds:
        what = "features" if "point" in kinds else "polygons"
        _tell_overlaps(memory, grid, target, source, what, progress.part(0.5, 0.9))
    if "point" in kinds:
        _tell_meetings(memory, grid, progress)
    _tell_lost(memory, grid, target, names, progress)
    del dataset  # only now: without it the layer is gone
    return tuple(ClassEntry(value, name, "") for value, name in names.items())


def _class_values(
    layer: ogr.Layer, index: int, is_text: bool, zero_as: int | None, source: str, progress: Progress
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
        if not all(_is_unicode(str(text)) for text in texts):
            raise DatasetError(
                f"CLASS_FIELD {name} of LABELS {source} holds text whose encoding its file does not tell. Save it as "
                "GeoPackage; or write the name of the encoding, such as ISO-8859-1, into a text file beside it that is "
                "called like it, but ends in .cpg."
            )
        if texts and all(str(text).strip().isdecimal() for text in texts):
            given = ", ".join(f"'{text}' is class {number}" for number, text in enumerate(texts[:10], 1))
            progress.warning(
                f"CLASS_FIELD {name} holds numbers as text. Text is a name, and names get ids in alphabetical order: "
                f"{given}{', …' if len(texts) > 10 else ''}. To keep the numbers as class ids, and 0 as unlabelled, "
                "make a field of whole numbers of them (Vector > Refactor Fields)."
            )
        if len(texts) > 255:
            raise DatasetError(f"CLASS_FIELD {name} has {len(texts)} different texts; 255 classes are possible.")
        titles = sorted({str(text).strip() for text in texts})
        if len(titles) < len(texts):
            progress.info(f"CLASS_FIELD {name}: texts that differ by blanks at their ends are one class.")
        numbers = {title: number for number, title in enumerate(titles, 1)}
        values: dict[object, int] = {text: numbers[str(text).strip()] for text in texts}
        return values, {number: title for title, number in numbers.items()}
    wrong = [value for value in found if not math.isfinite(value) or value != int(value) or not 0 <= value <= 255]
    if wrong:
        raise DatasetError(
            f"CLASS_FIELD {name} of LABELS {source} holds the value {min(wrong):g}. Class ids are whole numbers from "
            "0 to 255 (0 = unlabelled)."
        )
    if zero_as is not None and zero_as in found and 0 in found:
        raise ConfigError(
            f"ZERO_AS is {zero_as}, but CLASS_FIELD {name} already holds a class {zero_as}; the two would become "
            "one. Choose an id that is free."
        )
    if zero_as is None and 0 in found:
        progress.warning(
            f"CLASS_FIELD {name} holds the value 0. What has it counts as unlabelled; if 0 is a class of its own, set "
            "ZERO_AS to an id that is free."
        )
    return {value: int(value) or zero_as or UNLABELLED for value in found}, {}


def _is_unicode(text: str) -> bool:
    """Tell whether a text was decoded; bytes that could not be stand in it as surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


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
    without = beyond = neither = 0
    xmin, ymin, xmax, ymax = grid.extent
    reach = (math.inf, math.inf, -math.inf, -math.inf)
    for number, feature in enumerate(layer):
        if number % 1000 == 0:
            progress.check()
        geometry = feature.GetGeometryRef()
        value = values.get(feature.GetField(index)) if feature.IsFieldSetAndNotNull(index) else None
        if value is None or geometry is None or geometry.IsEmpty():
            without += 1
            continue
        if kind_of_shape(geometry) == "other":
            neither += 1
            continue
        geometry = geometry.Clone()
        if transformation is not None and not _transformed(geometry, transformation):
            beyond += 1
            continue
        west, east, south, north = geometry.GetEnvelope()
        reach = (min(reach[0], west), min(reach[1], south), max(reach[2], east), max(reach[3], north))
        if east < xmin or west >= xmax or north <= ymin or south > ymax:
            continue
        copy = ogr.Feature(target.GetLayerDefn())
        copy.SetField("value", value)
        copy.SetGeometryDirectly(geometry)
        target.CreateFeature(copy)
    if without:
        progress.warning(f"LABELS: {without} feature(s) without a class or a geometry are left out.")
    if neither:
        progress.warning(f"LABELS: {neither} feature(s) are neither polygons nor points; left out.")
    if beyond:
        progress.warning(f"LABELS: {beyond} feature(s) lie where the image's coordinate system has no place; left out.")
    if not math.isfinite(reach[0]):
        raise DatasetError(f"No feature of LABELS {source} has a class and a place. Is CLASS_FIELD the right field?")
    if target.GetFeatureCount() == 0:
        raise RasterError(
            f"The features of LABELS {source} and the image have no common ground: in the image's coordinate system "
            f"they reach from {reach[0]:.6g}, {reach[1]:.6g} to {reach[2]:.6g}, {reach[3]:.6g}, the image from "
            f"{xmin:.6g}, {ymin:.6g} to {xmax:.6g}, {ymax:.6g}. Are these the right layers, and are their coordinate "
            "systems right?"
        )
    return dataset


def _transformed(geometry: ogr.Geometry, transformation: osr.CoordinateTransformation) -> bool:
    """Transform a geometry in place; False where that is impossible."""
    try:
        return bool(geometry.Transform(transformation) == 0)
    except RuntimeError:
        return False


def _transformation(
    layer: ogr.Layer, grid: Grid, source: str, progress: Progress
) -> osr.CoordinateTransformation | None:
    """Give the way from the layer's CRS to the grid's; None where they are the same."""
    own = layer.GetSpatialRef()
    if own is not None and (own.GetName() or "").startswith("Undefined"):  # how a GeoPackage says that there is none
        own = None
    if own is None and not grid.crs:
        progress.warning(f"LABELS {source} and the image have no coordinate system; taken to be the same.")
        return None
    if own is None or not grid.crs:
        which, how = f"LABELS {source}", "Vector general > Assign projection"
        if own is not None:
            which, how = "The image", "Raster > Projections > Assign Projection"
        raise RasterError(
            f"{which} has no coordinate system, so labels and image cannot be brought together. Assign the right one "
            f"(in QGIS: {how})."
        )
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
    canceled: list[Canceled] = []

    def heard(share: float, *_: object) -> int:
        try:
            progress.check()
        except Canceled as error:  # an exception would be lost in GDAL
            canceled.append(error)
            return 0
        progress.report(share)
        return 1

    values = [] if options and options[0].startswith("ATTRIBUTE") else [burn]
    try:
        status = gdal.RasterizeLayer(
            raster, [1], memory.GetLayer(0), burn_values=values, options=[*options, _CHUNK], callback=heard
        )
    except RuntimeError as error:
        if canceled:
            raise canceled[0] from None
        raise RasterError(f"LABELS {source} cannot be burned: {error}") from error
    if canceled:
        raise canceled[0]
    if status != 0:
        raise RasterError(f"LABELS {source} cannot be burned: {gdal.GetLastErrorMsg()}")


def _tell_overlaps(memory: gdal.Dataset, grid: Grid, target: Path, source: str, what: str, progress: Progress) -> None:
    """Count the pixels that lie in several features, called so in the message, and say so."""
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
        progress.warning(f"LABELS: {pixels} pixels lie in several {what}; the last one in the layer wins.")


def _points(geometry: ogr.Geometry) -> Iterator[ogr.Geometry]:
    """Give the single points of points that may be many."""
    count = geometry.GetGeometryCount()
    if not count:
        yield geometry
    for part in range(count):
        yield from _points(geometry.GetGeometryRef(part))


def _tell_meetings(memory: gdal.Dataset, grid: Grid, progress: Progress) -> None:
    """Count the pixels that points of different classes lie in, and say so."""
    inverse = gdal.InvGeoTransform(grid.transform)
    found: dict[tuple[int, int], int] = {}
    shared: set[tuple[int, int]] = set()
    for number, feature in enumerate(memory.GetLayer(0)):
        if number % 1000 == 0:
            progress.check()
        geometry, value = feature.GetGeometryRef(), feature.GetField("value")
        for point in _points(geometry) if kind_of_shape(geometry) == "point" else ():
            column, row = map(math.floor, gdal.ApplyGeoTransform(inverse, point.GetX(), point.GetY()))
            if found.setdefault((column, row), value) != value:
                shared.add((column, row))
    memory.GetLayer(0).ResetReading()
    inside = sum(0 <= column < grid.width and 0 <= row < grid.height for column, row in shared)
    if inside:
        progress.warning(f"LABELS: {inside} pixels hold points of different classes; the last one in the layer wins.")


def _tell_lost(memory: gdal.Dataset, grid: Grid, target: Path, names: dict[int, str], progress: Progress) -> None:
    """Say which classes have features on the image, but no pixel."""
    features: dict[int, int] = {}
    for feature in memory.GetLayer(0):
        value = feature.GetField("value")
        features[value] = features.get(value, 0) + 1
    memory.GetLayer(0).ResetReading()
    dataset, burned = gdal.Open(str(target)), np.zeros(256, np.bool_)
    for y in range(0, grid.height, _ROWS):
        progress.check()
        burned[np.unique(dataset.GetRasterBand(1).ReadAsArray(0, y, grid.width, min(_ROWS, grid.height - y)))] = True
    lost = [value for value in sorted(features) if value != UNLABELLED and not burned[value]]
    if lost:
        listed = ", ".join(f"{names.get(value, value)} ({features[value]} features)" for value in lost)
        progress.warning(
            f"LABELS: these classes lie on the image but get no pixel: {listed}. They hold no pixel's centre, or lie "
            "below those of other classes. Are they smaller than a pixel of the image?"
        )
