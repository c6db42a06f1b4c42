# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers: where their data lies, their classes, and how results are shown. Main thread only."""

from __future__ import annotations

from typing import ClassVar

from qgis.core import (
    QgsCategorizedSymbolRenderer,
    QgsFillSymbol,
    QgsMapLayer,
    QgsPalettedRasterRenderer,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsProviderRegistry,
    QgsRasterLayer,
    QgsRendererCategory,
    QgsVectorLayer,
)
from qgis.PyQt.QtGui import QColor

from specdeepmap.core.data.classes import UNLABELLED, ClassEntry
from specdeepmap.core.errors import ConfigError


def raster_source(layer: QgsRasterLayer, parameter: str) -> str:
    """Give the GDAL name of a raster layer.

    Raises:
        ConfigError: if the layer does not come from GDAL.
    """
    if layer.providerType() != "gdal":
        raise ConfigError(
            f"{parameter} is the layer '{layer.name()}', whose data comes from '{layer.providerType()}'. Export it "
            "to a file first (Export > Save As)."
        )
    parts = QgsProviderRegistry.instance().decodeUri("gdal", layer.source())
    return layer.source() if parts.get("layerName") else parts.get("path") or layer.source()


def class_entries(layer: QgsRasterLayer) -> tuple[ClassEntry, ...]:
    """Read classes from a layer's paletted renderer; a label that repeats the value is no name."""
    renderer = layer.renderer()
    if not isinstance(renderer, QgsPalettedRasterRenderer):
        return ()
    entries = []
    for entry in renderer.classes():
        value = entry.value
        if value == int(value) and UNLABELLED < value <= 255:
            label = entry.label.strip()
            name = "" if label in (str(value), str(int(value))) else label
            entries.append(ClassEntry(int(value), name, entry.color.name()))
    return tuple(entries)


class ClassStyle(QgsProcessingLayerPostProcessorInterface):
    """Show a class map, or polygons of one, with the names and colours of the classes.

    Args:
        entries: the classes.
    """

    _alive: ClassVar[list[ClassStyle]] = []  # QGIS keeps no reference

    def __init__(self, entries: tuple[ClassEntry, ...]) -> None:
        super().__init__()
        self._entries = entries
        self._alive.append(self)

    def postProcessLayer(
        self, layer: QgsMapLayer, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> None:
        """Style the layer that was just loaded."""
        if isinstance(layer, QgsRasterLayer):
            classes = [
                QgsPalettedRasterRenderer.Class(entry.value, QColor(entry.color), entry.name) for entry in self._entries
            ]
            layer.setRenderer(QgsPalettedRasterRenderer(layer.dataProvider(), 1, classes))
        elif isinstance(layer, QgsVectorLayer):
            layer.setRenderer(QgsCategorizedSymbolRenderer("class_id", [_category(entry) for entry in self._entries]))
        layer.triggerRepaint()


def load_with(context: QgsProcessingContext, path: str, style: ClassStyle) -> None:
    """Show a result with a style, where it is going to be loaded."""
    if context.willLoadLayerOnCompletion(path):
        context.layerToLoadOnCompletionDetails(path).setPostProcessor(style)


def load_layer(context: QgsProcessingContext, path: str, name: str, output: str) -> None:
    """Have a result loaded that no destination parameter asked for."""
    if context.project() is not None:
        context.addLayerToLoadOnCompletion(
            path, QgsProcessingContext.LayerDetails(name, context.project(), output)
        )


def _category(entry: ClassEntry) -> QgsRendererCategory:
    symbol = QgsFillSymbol.createSimple({"color": entry.color, "outline_style": "no"})
    return QgsRendererCategory(entry.value, symbol, entry.name)
