# SPDX-License-Identifier: GPL-3.0-or-later
"""Vector sources: a layer of a vector dataset, named as QGIS names it, and its class field.

A source is a path or any other name that OGR knows, with QGIS's additions where a layer or some of its
features are meant: ``fields.gpkg|layername=crops|subset=year = 2024``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from osgeo import gdal, ogr

from specdeepmap.core.errors import ConfigError, DatasetError, RasterError, nearest

_NUMBERS = (ogr.OFTInteger, ogr.OFTInteger64, ogr.OFTReal)
_KINDS = {
    **dict.fromkeys((ogr.wkbPolygon, ogr.wkbMultiPolygon, ogr.wkbCurvePolygon, ogr.wkbMultiSurface), "polygon"),
    **dict.fromkeys((ogr.wkbPoint, ogr.wkbMultiPoint), "point"),
}
_ADDITION = re.compile(r"\|(layername|layerid|subset|geometrytype|uniquegeometrytype|authcfg|option:[^=|]*)=", re.I)


@dataclass(frozen=True)
class VectorSource:
    """Where vector labels lie.

    Attributes:
        text: the whole source, for messages.
        name: of the dataset, as OGR knows it.
        layer: its name; empty where none is given.
        subset: a filter in SQL; empty where none is given.
    """

    text: str
    name: str
    layer: str
    subset: str

    @classmethod
    def parse(cls, text: str) -> VectorSource:
        """Take QGIS's notation apart."""
        name, *parts = _ADDITION.split(text)  # a filter may hold a | of its own
        values = {key.lower(): value for key, value in zip(parts[::2], parts[1::2], strict=True)}
        return cls(text, name, values.get("layername", ""), values.get("subset", ""))

    def open(self) -> tuple[gdal.Dataset, ogr.Layer]:
        """Open the layer; it lives as long as its dataset.

        Raises:
            ConfigError, DatasetError, RasterError: if there is no such layer, or it cannot hold labels.
        """
        try:
            dataset = gdal.OpenEx(self.name, gdal.OF_VECTOR)
        except RuntimeError as error:
            raise RasterError(f"LABELS {self.text} cannot be opened: {error}") from error
        if dataset is None:
            raise RasterError(f"LABELS {self.text} cannot be opened: {gdal.GetLastErrorMsg()}")
        names = [dataset.GetLayer(number).GetName() for number in range(dataset.GetLayerCount())]
        if self.layer and self.layer not in names:
            raise ConfigError(f"LABELS {self.text}: there is no layer '{self.layer}'.{nearest(self.layer, names)}")
        if not self.layer and len(names) != 1:
            raise ConfigError(
                f"LABELS {self.text} holds {len(names)} layers ({', '.join(names)}). Name one: {self.name}|layername=…"
            )
        layer = dataset.GetLayerByName(self.layer or names[0])
        self.apply_filter(layer)
        empty = layer.GetFeatureCount() == 0
        kind_is_known = not empty or ogr.GT_Flatten(layer.GetGeomType()) != ogr.wkbUnknown
        if kind_is_known and kind_of(layer) not in ("polygon", "point"):
            raise ConfigError(f"LABELS {self.text} holds neither polygons nor points. Buffer lines to polygons first.")
        if empty:
            raise DatasetError(f"LABELS {self.text} holds no feature{' that fits the filter' if self.subset else ''}.")
        return dataset, layer

    def apply_filter(self, layer: ogr.Layer) -> None:
        """Apply the filter, where there is one, and try it: some formats notice a wrong one only when they read.

        Raises:
            ConfigError: if the filter cannot be used.
        """
        if not self.subset:
            return
        gdal.ErrorReset()
        try:
            usable = layer.SetAttributeFilter(self.subset) == 0
            layer.GetNextFeature()
            usable = usable and gdal.GetLastErrorType() < gdal.CE_Failure
        except RuntimeError:
            usable = False
        if not usable:
            raise ConfigError(f"LABELS {self.text}: the filter '{self.subset}' cannot be used.")
        layer.ResetReading()


def is_vector(source: str) -> bool:
    """Tell whether a source is a vector dataset and no raster."""
    parsed = VectorSource.parse(source)
    kinds = [(gdal.OF_RASTER, False), (gdal.OF_VECTOR, True)]
    for kind, answer in reversed(kinds) if parsed.layer else kinds:  # a GeoPackage may hold both
        try:
            if gdal.OpenEx(parsed.name, kind) is not None:
                return answer
        except RuntimeError:
            continue
    return False


def kind_of(layer: ogr.Layer) -> str:
    """Tell what a layer holds: polygon, point or other; by its features where the layer does not say."""
    code = ogr.GT_Flatten(layer.GetGeomType())
    if code != ogr.wkbUnknown:
        return _KINDS.get(code, "other")
    layer.ResetReading()
    shapes = (feature.GetGeometryRef() for feature in layer)
    kinds = {kind_of_shape(shape) for shape in shapes if shape is not None}
    layer.ResetReading()
    return next((kind for kind in ("polygon", "point") if kind in kinds), "other")


def kind_of_shape(shape: ogr.Geometry) -> str:
    """Tell what a geometry is: polygon, point or other; a collection is what all its parts are."""
    code = ogr.GT_Flatten(shape.GetGeometryType())
    if code != ogr.wkbGeometryCollection:
        return _KINDS.get(code, "other")
    kinds = {kind_of_shape(shape.GetGeometryRef(number)) for number in range(shape.GetGeometryCount())}
    return kinds.pop() if len(kinds) == 1 else "other"


def find_class_field(layer: ogr.Layer, class_field: str | None, source: str) -> tuple[int, bool]:
    """Find the class field.

    Returns:
        Its position, and whether it holds text.

    Raises:
        ConfigError: if it is not named, does not exist, or holds neither numbers nor text.
    """
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
    kind = fields[index].GetType()
    if kind not in (*_NUMBERS, ogr.OFTString):
        raise ConfigError(
            f"CLASS_FIELD {class_field} of LABELS {source} holds {fields[index].GetTypeName()} values. Classes are "
            "whole numbers or text; choose another field."
        )
    return index, kind == ogr.OFTString
