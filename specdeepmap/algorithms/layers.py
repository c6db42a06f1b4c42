# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers: where their data lies, and their classes. Main thread only, but for what says otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsCategorizedSymbolRenderer,
    QgsExpression,
    QgsFeature,
    QgsFeatureRequest,
    QgsFields,
    QgsMapLayer,
    QgsPalettedRasterRenderer,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingUtils,
    QgsProject,
    QgsProviderRegistry,
    QgsRasterLayer,
    QgsVectorFileWriter,
    QgsVectorLayer,
    QgsVectorLayerFeatureSource,
)
from qgis.PyQt.QtCore import QThread

from specdeepmap.core.data.classes import UNLABELLED, ClassEntry
from specdeepmap.core.errors import Canceled, ConfigError

_IN_MEMORY = ("/vsimem/", "MEM:")


def raster_source(layer: QgsRasterLayer, parameter: str) -> str:
    """Give the GDAL name of a raster layer.

    Raises:
        ConfigError: if the layer does not come from GDAL, or is no file.
    """
    origin = f"comes from '{layer.providerType()}'" if layer.providerType() != "gdal" else ""
    if layer.source().startswith(_IN_MEMORY):  # the work is done in another process
        origin = "lies in the memory of QGIS only"
    if origin:
        raise ConfigError(
            f"{parameter} is the layer '{layer.name()}', whose data {origin}. Export it to a file first (Export > Save "
            "As)."
        )
    parts = QgsProviderRegistry.instance().decodeUri("gdal", layer.source())
    return layer.source() if parts.get("layerName") else _path(parts) or layer.source()


class LabelCopy:
    """A file to be made of the features of a layer that cannot be read from its own file as QGIS shows them.

    It is prepared on the main thread, and written in another.

    Args:
        layer: of vectors.
        position: of the field that is copied; below 0 where there is none.
        context: of the run.
    """

    def __init__(self, layer: QgsVectorLayer, position: int, context: QgsProcessingContext) -> None:
        # Messages name the file: by its name the user knows the layer.
        known = re.sub(r"[^\w -]+", "_", layer.name()).strip()[:60]
        self.path = QgsProcessingUtils.generateTempFilename(f"{known or 'labels'}.gpkg")
        self._name, self._position = layer.name(), position
        self._features = QgsVectorLayerFeatureSource(layer)  # as they are now, edits and joined fields included
        self._fields = QgsFields()
        if position >= 0:
            self._fields.append(layer.fields().at(position))
        self._kind, self._crs, self._transforms = layer.wkbType(), layer.crs(), context.transformContext()

    def write(self, feedback: QgsProcessingFeedback) -> None:
        """Write the file.

        Raises:
            ConfigError: if that fails.
            Canceled: if the feedback was canceled.
        """
        options = QgsVectorFileWriter.SaveVectorOptions()
        options.driverName, options.layerName = "GPKG", "labels"
        options.layerOptions = ["FID=_feature", "GEOMETRY_NAME=_geometry"]  # no field of a user is called so
        arguments = (self.path, self._fields, self._kind, self._crs, self._transforms, options)
        writer = QgsVectorFileWriter.create(*arguments)
        for feature in self._features.getFeatures(QgsFeatureRequest()):
            if feedback.isCanceled():
                raise Canceled
            copied = QgsFeature(self._fields)
            copied.setGeometry(feature.geometry())
            if self._position >= 0:
                copied.setAttribute(0, feature.attribute(self._position))
            if not writer.addFeature(copied):
                break
        if writer.hasError() != QgsVectorFileWriter.WriterError.NoError:
            raise ConfigError(f"The layer '{self._name}' cannot be copied to {self.path}: {writer.errorMessage()}")


def label_source(
    layer: QgsMapLayer, class_field: str, parameter: str, context: QgsProcessingContext
) -> tuple[str, LabelCopy | None]:
    """Give the GDAL name of a label layer, or the OGR name of a vector layer with layer name and filter.

    Args:
        layer: raster or vectors.
        class_field: name of the field of vectors that is needed; may be empty.
        parameter: names the layer in messages.
        context: of the run.

    Returns:
        The name, and what must be copied to it first: vectors that do not lie in a file, or that QGIS shows in another
        way, or at another place, than their file does.

    Raises:
        ConfigError: if the layer is neither.
    """
    if isinstance(layer, QgsRasterLayer):
        return raster_source(layer, parameter), None
    if not isinstance(layer, QgsVectorLayer):
        raise ConfigError(f"{parameter} is the layer '{layer.name()}', which is neither a raster nor vectors.")
    position = layer.fields().lookupField(class_field)
    if layer.providerType() == "ogr" and not layer.isModified() and _lies_in_file(layer, position):
        parts = QgsProviderRegistry.instance().decodeUri("ogr", layer.source())
        if _is_plain(layer, position, parts) and layer.crs() == layer.dataProvider().crs():
            named = f"|layername={parts['layerName']}" if parts.get("layerName") else ""
            subset = f"|subset={layer.subsetString()}" if layer.subsetString() else ""
            return f"{_path(parts)}{named}{subset}", None
    copy = LabelCopy(layer, position, context)
    return copy.path, copy


def _lies_in_file(layer: QgsVectorLayer, position: int) -> bool:
    """Tell whether a field stands in the layer's file: it is not joined, virtual, or the number of the feature."""
    fields = layer.fields()
    if position < 0:
        return True  # the work itself says that there is none
    return fields.fieldOrigin(position) == QgsFields.FieldOrigin.OriginProvider and (
        position not in layer.primaryKeyAttributes()
    )


def _is_plain(layer: QgsVectorLayer, position: int, parts: dict[str, Any]) -> bool:
    """Tell whether a file opened by path, layer name and filter holds what QGIS shows.

    Not so where QGIS was told to open it with options, to take only the points of a file that holds polygons, too, or
    a layer by its number; where the filter is a whole SELECT; and for text of Shapefiles, which QGIS decodes by itself,
    in the encoding that the user may have set.
    """
    if parts.get("openOptions") or parts.get("geometryType"):
        return False
    if parts.get("layerId") is not None and not parts.get("layerName"):
        return False
    if layer.subsetString().lstrip().upper().startswith("SELECT"):
        return False
    is_text = position >= 0 and not layer.fields().at(position).isNumeric()
    return not (is_text and layer.storageType() == "ESRI Shapefile")


def unsaved_layer(path: Path, context: QgsProcessingContext) -> QgsVectorLayer | None:
    """Find a layer of the project that shows a file and has edits that are not saved yet."""
    project = context.project()
    for layer in project.mapLayers().values() if project is not None else ():
        if isinstance(layer, QgsVectorLayer) and layer.isModified() and layer.providerType() == "ogr":
            shown = _path(QgsProviderRegistry.instance().decodeUri("ogr", layer.source()))
            if Path(shown).resolve() == path.resolve():
                return layer
    return None


def _path(parts: dict[str, Any]) -> str:
    """Put together the parts of a path that may lie in an archive or on a server, such as /vsizip/a.zip/b.tif."""
    return "".join(parts.get(part) or "" for part in ("vsiPrefix", "path", "vsiSuffix"))


def reload_layers(project: QgsProject | None, results: Iterable[str]) -> None:
    """Let open layers show what their files hold now: QGIS would go on with the files that were replaced.

    Args:
        project: with the layers; None where there is none.
        results: files that were written, and folders that files were written into.
    """
    if project is None or QThread.currentThread() != project.thread():
        return
    places = {Path(result).resolve() for result in results}
    for layer in project.mapLayers().values():
        shown = QgsProviderRegistry.instance().decodeUri(layer.providerType(), layer.source()).get("path")
        file = Path(shown).resolve() if shown else None
        if file is not None and not places.isdisjoint((file, *file.parents)):
            layer.reload()
            layer.triggerRepaint()


def layer_doubts(layer: QgsMapLayer, parameter: str) -> list[str]:
    """Say what QGIS was told of a layer that its file does not say: what is not in the file does not count."""
    doubts = []
    provider = layer.dataProvider()
    own, file = layer.crs(), provider.crs()
    if isinstance(layer, QgsRasterLayer) and own.isValid() and own != file:
        says = f"says {file.authid() or file.description()}" if file.isValid() else "has none"
        doubts.append(
            f"{parameter}: the layer '{layer.name()}' has the coordinate system {own.authid() or own.description()} in "
            f"QGIS, but its file {says}, and that counts. If the file is wrong, assign the right one to it (Raster > "
            "Projections > Assign Projection)."
        )
    renderer = layer.renderer()
    if isinstance(renderer, QgsCategorizedSymbolRenderer):
        joined = [category.label() for category in renderer.categories() if isinstance(category.value(), list)]
        if joined:
            doubts.append(
                f"{parameter}: the style of the layer '{layer.name()}' shows several values as one class "
                f"({', '.join(joined)}). They stay classes of their own: what counts is the class field. To join them, "
                "give them one value in a field (Field calculator)."
            )
    if isinstance(layer, QgsRasterLayer):
        options = QgsProviderRegistry.instance().decodeUri("gdal", layer.source()).get("openOptions")
        if options:
            doubts.append(
                f"{parameter}: the layer '{layer.name()}' was opened in QGIS with options ({', '.join(options)}), and "
                "its file is read without them. If they change what it shows, export the layer."
            )
        bands = range(1, layer.bandCount() + 1)
        values = {f"{user.min():g}" for band in bands for user in provider.userNoDataValues(band)}
        if values:
            other = "set NODATA" if parameter == "IMAGE" else "give such pixels the value 0 (Raster calculator)"
            doubts.append(
                f"{parameter}: the layer '{layer.name()}' has an additional no-data value in QGIS "
                f"({', '.join(sorted(values))}), which its file does not have; it does not count. Export the layer, or "
                f"{other}."
            )
        if any(provider.sourceHasNoDataValue(band) and not provider.useSourceNoDataValue(band) for band in bands):
            doubts.append(
                f"{parameter}: the no-data value of the layer '{layer.name()}' is switched off in QGIS; it counts all "
                "the same, since its file has it."
            )
    return doubts


def class_entries(layer: QgsMapLayer | None, field: str | None) -> tuple[ClassEntry, ...]:
    """Read classes from a layer's renderer.

    Args:
        layer: a raster with a paletted renderer of its first band, or vectors with a categorised one; any other has no
            classes.
        field: the class field of vectors; a renderer of another field says nothing.

    Returns:
        Value, name and colour. A name that repeats the value is none. Text classes have their position as value: what
        counts of them is name and colour.
    """
    renderer = None if layer is None else layer.renderer()
    if isinstance(renderer, QgsCategorizedSymbolRenderer) and field and _shows(renderer.classAttribute(), field):
        position = layer.fields().lookupField(field)
        return _category_entries(renderer, position >= 0 and layer.fields().at(position).isNumeric())
    if not isinstance(renderer, QgsPalettedRasterRenderer) or renderer.usesBands() != [1]:
        return ()
    entries = []
    for entry in renderer.classes():
        value = entry.value
        if value == int(value) and UNLABELLED < value <= 255:
            label = entry.label.strip()
            name = "" if label in (str(value), str(int(value))) else label
            entries.append(ClassEntry(int(value), name, entry.color.name()))
    return tuple(entries)


def _shows(attribute: str, field: str) -> bool:
    """Tell whether what a renderer goes by is a field, which may stand there as an expression."""
    return attribute in (field, QgsExpression.quotedColumnRef(field))


def _category_entries(renderer: QgsCategorizedSymbolRenderer, numeric: bool) -> tuple[ClassEntry, ...]:
    """Read classes from the categories of a vector layer; of a field of numbers, a style file may give them as text."""
    entries = []
    for position, category in enumerate(renderer.categories()[:255], 1):
        value, color = category.value(), category.symbol().color().name()
        if numeric and isinstance(value, str):
            value = _number(value)
        if isinstance(value, str) and value:
            entries.append(ClassEntry(position, value.strip(), color))
        elif isinstance(value, (int, float)) and UNLABELLED < value <= 255 and value == int(value):
            label = category.label().strip()
            entries.append(ClassEntry(int(value), "" if label in (str(value), str(int(value))) else label, color))
    return tuple(entries)


def _number(text: str) -> float | None:
    """Read a number; None where it is none."""
    try:
        return float(text)
    except ValueError:
        return None
