# SPDX-License-Identifier: GPL-3.0-or-later
"""Widgets of the dialogs; imported by Processing when a dialog opens.

Processing shows the raw names of static-string choices; these wrappers show readable texts in the dialog, in
batch processing and in the modeler, where a choice can also come from a model's input.
"""

from __future__ import annotations

from typing import Any

from processing.gui.wrappers import DIALOG_MODELER, WidgetWrapper, WidgetWrapperFactory, dialogTypes
from qgis.core import (
    Qgis,
    QgsProcessingContext,
    QgsProcessingModelChildParameterSource,
    QgsProcessingOutputString,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterString,
    QgsProcessingUtils,
    QgsProject,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtWidgets import QComboBox, QCompleter, QLabel

_STATIC = Qgis.ProcessingModelChildParameterSource.StaticValue


class _OwnWidgetWrapper(WidgetWrapper):
    """A wrapper whose label tells what QGIS's own labels do when the mouse rests on them."""

    def createLabel(self) -> QLabel | None:
        """Make the label."""
        label = super().createLabel()
        if label is not None:
            label.setToolTip(self.parameterDefinition().toolTip())
        return label


class HandedOnWidget:
    """QGIS's own widget, with the value that an earlier step handed on; a model is made anew and gets none."""

    def __new__(cls, parameter: QgsProcessingParameterDefinition, dialog: Any, row: int = 0, column: int = 0) -> Any:
        """Make the widget that QGIS would have made."""
        parameter.setMetadata({})
        if dialogTypes.get(type(dialog).__name__) == DIALOG_MODELER:
            parameter.setGuiDefaultValueOverride(None)
        return WidgetWrapperFactory.create_wrapper(parameter, dialog, row, column)


class ChoiceWidgetWrapper(_OwnWidgetWrapper):
    """A list of readable texts whose values are names."""

    def createWidget(self, pairs: list[list[str]]) -> QComboBox:
        """Make the list: pairs of name and text."""
        combo = QComboBox()
        for name, title in pairs:
            combo.addItem(title, name)
        _offer_model_values(self, combo)
        combo.currentIndexChanged.connect(lambda _: self.widgetValueHasChanged.emit(self))
        return combo

    def setValue(self, value: Any) -> None:
        """Show a value."""
        if value is not None:
            _show(self, value)

    def value(self) -> Any:
        """Give the name, or the model value, that is chosen."""
        return self.widget.currentData()


class SuggestionWidgetWrapper(_OwnWidgetWrapper):
    """A text that can be typed, with suggestions that are searched while typing."""

    def createWidget(self, suggestions: list[str]) -> QComboBox:
        """Make the editable list."""
        combo = QComboBox()
        combo.setEditable(True)
        combo.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        for name in suggestions:
            combo.addItem(name, name)
        combo.completer().setCompletionMode(QCompleter.CompletionMode.PopupCompletion)
        combo.completer().setFilterMode(Qt.MatchFlag.MatchContains)
        _offer_model_values(self, combo)
        combo.editTextChanged.connect(lambda _: self.widgetValueHasChanged.emit(self))
        return combo

    def setValue(self, value: Any) -> None:
        """Show a value."""
        if value is not None:
            _show(self, value)

    def value(self) -> Any:
        """Give the text, or the model value, that stands in the field."""
        text = self.widget.currentText().strip()
        index = self.widget.findText(text)
        return text if index < 0 else self.widget.itemData(index)


class FieldWidgetWrapper(_OwnWidgetWrapper):
    """A list of the fields of a layer that is chosen in another widget; empty for a raster."""

    def createWidget(self, layer: str) -> QComboBox:
        """Make the list; it can be typed into, for files that are no layers yet."""
        self._layer_name = layer
        combo = QComboBox()
        combo.setEditable(True)
        combo.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        _offer_model_values(self, combo)
        combo.editTextChanged.connect(lambda _: self.widgetValueHasChanged.emit(self))
        return combo

    def postInitialize(self, wrappers: list[Any]) -> None:
        """Follow the widget of the layer."""
        for wrapper in wrappers:
            if wrapper.parameterDefinition().name() == self._layer_name:
                wrapper.widgetValueHasChanged.connect(self._list_fields)
                self._list_fields(wrapper)

    def setValue(self, value: Any) -> None:
        """Show a value."""
        self.widget.setCurrentText("") if value is None else _show(self, value)

    def value(self) -> Any:
        """Give the field, or the model value, that stands in the list; None where it is empty."""
        text = self.widget.currentText().strip()
        index = self.widget.findText(text)
        data = None if index < 0 else self.widget.itemData(index)
        return data or text or None

    def _list_fields(self, wrapper: Any) -> None:
        """List the fields of the layer; what was chosen stays where the new layer has it, too."""
        value = wrapper.parameterValue() if hasattr(wrapper, "parameterValue") else wrapper.value()
        context = QgsProcessingContext()
        context.setProject(QgsProject.instance())  # layers are named by their id there
        layer = QgsProcessingUtils.mapLayerFromString(str(value), context) if value else None
        names = [field.name() for field in layer.fields()] if isinstance(layer, QgsVectorLayer) else []
        combo, before = self.widget, self.widget.currentText()
        entries = ((combo.itemText(index), combo.itemData(index)) for index in range(combo.count()))
        of_model = [(text, data) for text, data in entries if isinstance(data, QgsProcessingModelChildParameterSource)]
        combo.clear()
        combo.addItems(names)
        for text, data in of_model:
            combo.addItem(text, data)
        combo.setCurrentText(before if combo.findText(before) >= 0 else "")


def _offer_model_values(wrapper: WidgetWrapper, combo: QComboBox) -> None:
    """In the modeler, offer the model's inputs and earlier results as values, too."""
    if wrapper.dialogType != DIALOG_MODELER:
        return
    kinds = [QgsProcessingParameterEnum, QgsProcessingParameterString]
    for source in wrapper.dialog.getAvailableValuesOfType(kinds, [QgsProcessingOutputString]):
        if isinstance(source, QgsProcessingModelChildParameterSource):
            given = wrapper.dialog.model.parameterDefinition(source.parameterName())
            if not isinstance(given, QgsProcessingParameterEnum) or given.usesStaticStrings():  # others give numbers
                combo.addItem(wrapper.dialog.resolveValueDescription(source), source)


def _show(wrapper: WidgetWrapper, value: Any) -> None:
    """Show a value; one that is not offered gets an entry of its own.

    An expression of a model must not be lost, and what does not exist is refused when the algorithm is to run.
    """
    combo: QComboBox = wrapper.widget
    if isinstance(value, QgsProcessingModelChildParameterSource) and value.source() == _STATIC:
        value = value.staticValue()
    index = next((index for index in range(combo.count()) if combo.itemData(index) == value), -1)
    if index < 0 and combo.isEditable() and not isinstance(value, QgsProcessingModelChildParameterSource):
        combo.setEditText(str(value))
        return
    if index < 0:
        combo.addItem(_described(wrapper, value), value)
        index = combo.count() - 1
    combo.setCurrentIndex(index)


def _described(wrapper: WidgetWrapper, value: Any) -> str:
    """Say what a value is."""
    if not isinstance(value, QgsProcessingModelChildParameterSource):
        return str(value)
    if value.source() == Qgis.ProcessingModelChildParameterSource.Expression:
        return f"expression: {value.expression()}"
    described = wrapper.dialog.resolveValueDescription(value)
    return described if isinstance(described, str) else "a value of the model"
