# SPDX-License-Identifier: GPL-3.0-or-later
"""Widgets of the dialogs; imported by Processing when a dialog opens.

Processing shows the raw names of static-string choices; these wrappers show readable texts in the dialog, in
batch processing and in the modeler, where a choice can also come from a model's input.
"""

from __future__ import annotations

from typing import Any

from processing.gui.wrappers import DIALOG_MODELER, WidgetWrapper
from qgis.core import (
    QgsProcessingModelChildParameterSource,
    QgsProcessingOutputString,
    QgsProcessingParameterEnum,
    QgsProcessingParameterString,
)
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtWidgets import QComboBox, QCompleter


class ChoiceWidgetWrapper(WidgetWrapper):
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
            self.setComboValue(value)

    def value(self) -> Any:
        """Give the name, or the model value, that is chosen."""
        return self.widget.currentData()


class SuggestionWidgetWrapper(WidgetWrapper):
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
            self.setComboValue(value)

    def value(self) -> Any:
        """Give the text, or the model value, that stands in the field."""
        text = self.widget.currentText().strip()
        index = self.widget.findText(text)
        return text if index < 0 else self.widget.itemData(index)


def _offer_model_values(wrapper: WidgetWrapper, combo: QComboBox) -> None:
    """In the modeler, offer the model's inputs and earlier results as values, too."""
    if wrapper.dialogType != DIALOG_MODELER:
        return
    kinds = [QgsProcessingParameterEnum, QgsProcessingParameterString]
    for source in wrapper.dialog.getAvailableValuesOfType(kinds, [QgsProcessingOutputString]):
        if isinstance(source, QgsProcessingModelChildParameterSource):
            combo.addItem(wrapper.dialog.resolveValueDescription(source), source)
