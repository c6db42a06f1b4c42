# SPDX-License-Identifier: GPL-3.0-or-later
"""Styles: how results look and what they are called when they are loaded. Styling happens on the main thread."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from qgis.core import (
    QgsBasicNumericFormat,
    QgsCategorizedSymbolRenderer,
    QgsColorRampLegendNodeSettings,
    QgsColorRampShader,
    QgsFillSymbol,
    QgsGradientColorRamp,
    QgsGradientStop,
    QgsMapLayer,
    QgsPalettedRasterRenderer,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsRasterLayer,
    QgsRasterShader,
    QgsRendererCategory,
    QgsSingleBandPseudoColorRenderer,
    QgsVectorLayer,
)
from qgis.PyQt.QtGui import QColor

from specdeepmap.core.data.classes import ClassEntry

_VIRIDIS = ("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725")
"""Perceptually uniform: equal steps of the value look equal, also to the colour-blind and in grey."""


class Style(QgsProcessingLayerPostProcessorInterface):
    """Look of a layer that was just loaded; the base of all styles.

    Each layer needs one of its own: a run's context deletes them one by one when it ends.
    """

    _alive: ClassVar[list[Style]] = []  # QGIS keeps no reference

    def __init__(self) -> None:
        super().__init__()
        self._alive.append(self)


class ClassStyle(Style):
    """Show a class map, or polygons of one, with the names and colours of the classes.

    Args:
        entries: the classes.
    """

    def __init__(self, entries: tuple[ClassEntry, ...]) -> None:
        super().__init__()
        self._entries = entries

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


class StoredStyle(Style):
    """Show vectors as their file says; Processing loads them without."""

    def postProcessLayer(
        self, layer: QgsMapLayer, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> None:
        """Style the layer that was just loaded, or that an earlier step had loaded."""
        layer.loadDefaultStyle()
        layer.triggerRepaint()


class RampStyle(Style):
    """Show a measure from its lowest to its highest possible value, so that maps of two images can be compared.

    Of several bands the first is shown; the range stays when the user chooses another.

    Args:
        highest: value that the measure can have; the lowest is 0.
        unit: shown behind the legend's numbers.
    """

    def __init__(self, highest: float, unit: str = "") -> None:
        super().__init__()
        self._highest, self._unit = highest, unit

    def postProcessLayer(
        self, layer: QgsMapLayer, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> None:
        """Style the layer that was just loaded."""
        if not isinstance(layer, QgsRasterLayer):
            return
        provider = layer.dataProvider()
        kinds = QgsColorRampShader.Type.Interpolated, QgsColorRampShader.ClassificationMode.Continuous
        colors = QgsColorRampShader(0.0, self._highest, _ramp(), *kinds)
        colors.classifyColorRamp(band=1, input=provider)
        legend = QgsColorRampLegendNodeSettings()
        legend.setSuffix(self._unit)
        numbers = QgsBasicNumericFormat()
        numbers.setNumberDecimalPlaces(2)
        legend.setNumericFormat(numbers)
        colors.setLegendSettings(legend)
        shader = QgsRasterShader(0.0, self._highest)
        shader.setRasterShaderFunction(colors)
        renderer = QgsSingleBandPseudoColorRenderer(provider, 1, shader)
        renderer.setClassificationMin(0.0)
        renderer.setClassificationMax(self._highest)
        layer.setRenderer(renderer)
        layer.triggerRepaint()


def show(context: QgsProcessingContext, path: Path, label: str, name: str, style: Style, sort_key: int) -> None:
    """Name, style and place a result, where it is going to be loaded.

    Args:
        context: of the run.
        path: of the result.
        label: the name that QGIS gives it by itself; any other was chosen by the user and stays.
        name: the better one.
        style: its look.
        sort_key: results are put into the project from the lowest to the highest.
    """
    for place in context.layersToLoadOnCompletion():
        if Path(place) == path:  # the same place may be written with / and \ on Windows
            details = context.layerToLoadOnCompletionDetails(place)
            details.setPostProcessor(style)
            details.layerSortKey = sort_key
            if details.name == label:
                details.name = name


def load_layer(context: QgsProcessingContext, path: Path, name: str, output: str) -> None:
    """Have vectors loaded that no destination parameter asked for, with the style that their file brings along."""
    if context.project() is not None:
        details = QgsProcessingContext.LayerDetails(name, context.project(), output)
        details.forceName = True  # its file is called like that of any other image
        details.setPostProcessor(StoredStyle())
        context.addLayerToLoadOnCompletion(str(path), details)


def _ramp() -> QgsGradientColorRamp:
    last = len(_VIRIDIS) - 1
    stops = [QgsGradientStop(number / last, QColor(_VIRIDIS[number])) for number in range(1, last)]
    return QgsGradientColorRamp(QColor(_VIRIDIS[0]), QColor(_VIRIDIS[last]), False, stops)


def _category(entry: ClassEntry) -> QgsRendererCategory:
    symbol = QgsFillSymbol.createSimple({"color": entry.color, "outline_style": "no"})
    return QgsRendererCategory(entry.value, symbol, entry.name)
