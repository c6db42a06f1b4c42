# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user sees in QGIS, found and described. For code that runs inside QGIS desktop."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from qgis.core import QgsApplication, QgsLayerTreeLayer, QgsMapLayer
from qgis.PyQt.QtCore import QModelIndex, Qt
from qgis.PyQt.QtWidgets import QAction, QApplication, QDialog, QMenu, QScrollArea, QTextEdit
from qgis.utils import iface

PROVIDER = "specdeepmap"


def algorithm_dialog(name: str | None = None) -> Any:
    """Find the open dialog of an algorithm of ours, or of any; None where there is none."""
    for widget in QApplication.topLevelWidgets():
        algorithm = widget.algorithm() if widget.isVisible() and hasattr(widget, "algorithm") else None
        if algorithm is not None and name in (None, algorithm.name()):
            return widget
    return None


def other_dialog() -> QDialog | None:
    """Find an open dialog that is not an algorithm's."""
    for widget in QApplication.topLevelWidgets():
        if isinstance(widget, QDialog) and widget.isVisible() and not hasattr(widget, "algorithm"):
            return widget
    return None


def log_of(dialog: Any) -> str:
    """Give what an algorithm's dialog shows as its log."""
    return str(dialog.findChild(QTextEdit, "txtLog").toPlainText())


def fit(dialog: QDialog, width: int, lowest: int, highest: int) -> None:
    """Make a dialog as high as its form, within bounds."""
    dialog.resize(width, lowest)
    areas = [area for area in dialog.findChildren(QScrollArea) if area.isVisible() and area.widget()]
    if areas:
        missing = max(area.widget().sizeHint().height() - area.viewport().height() for area in areas)
        dialog.resize(width, min(max(lowest + missing, lowest), highest))


def algorithm_index(tree: Any, name: str) -> QModelIndex | None:
    """Find one of our algorithms in the toolbox's tree."""
    for index in indices(tree.model(), QModelIndex()):
        algorithm = tree.algorithmForIndex(index)
        if algorithm is not None and algorithm.id() == f"{PROVIDER}:{name}":
            return index
    return None


def provider_index(tree: Any) -> QModelIndex | None:
    """Find our provider in the toolbox's tree."""
    model = tree.model()
    tops = (model.index(row, 0) for row in range(model.rowCount()))
    return next((index for index in tops if str(index.data()).startswith("SpecDeepMap")), None)


def indices(model: Any, parent: QModelIndex) -> Iterator[QModelIndex]:
    """Give all indices of a tree below one, parents first."""
    for row in range(model.rowCount(parent)):
        index = model.index(row, 0, parent)
        yield index
        yield from indices(model, index)


def plugin_action(word: str) -> QAction | None:
    """Find an entry of our menu in QGIS's menu of plugins by a word of its text."""
    ours = (menu.menu() for menu in iface.pluginMenu().actions() if "SpecDeepMap" in menu.text().replace("&", ""))
    actions = (action for menu in ours if isinstance(menu, QMenu) for action in menu.actions())
    return next((action for action in actions if word in action.text()), None)


def seconds_at_start(what: str) -> float | None:
    """Give how long something took when QGIS started, such as loading a plugin, as its own profiler has it."""
    profiler = QgsApplication.profiler()
    for index in indices(profiler, QModelIndex()):
        if index.data() == what:
            return float(index.siblingAtColumn(1).data())
    return None


def loaded(names: tuple[str, ...]) -> list[str]:
    """Give those modules that this Python has loaded."""
    return [name for name in names if name in sys.modules]


def layer_facts(node: QgsLayerTreeLayer) -> dict[str, Any]:
    """Describe a layer as the layer panel and the map show it."""
    layer = node.layer()
    entries = iface.layerTreeView().layerTreeModel().layerLegendNodes(node)
    return {
        "name": layer.name(),
        "source": layer.source(),
        "valid": layer.isValid(),
        "shown": node.isVisible(),
        "legend": [plain(entry.data(Qt.ItemDataRole.DisplayRole)) for entry in entries],
        **style_facts(layer),
    }


def style_facts(layer: QgsMapLayer) -> dict[str, Any]:
    """Describe a layer's renderer: its type, its classes or its ramp."""
    renderer = layer.renderer()
    kind = renderer.type()
    facts: dict[str, Any] = {"renderer": kind}
    if kind == "paletted":
        facts["classes"] = [[entry.value, entry.label, entry.color.name()] for entry in renderer.classes()]
    elif kind == "categorizedSymbol":
        facts["classes"] = [[c.value(), c.label(), c.symbol().color().name()] for c in renderer.categories()]
    elif kind == "singlebandpseudocolor":
        items = renderer.shader().rasterShaderFunction().colorRampItemList()
        facts["ramp"] = [[item.value, item.color.name()] for item in items]
    return facts


def plain(value: Any) -> Any:
    """Give a value as JSON knows it; other things as their text."""
    if isinstance(value, bool | int | float | str):
        return value
    return None if value is None or str(value) == "NULL" else str(value)
