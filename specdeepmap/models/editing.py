# SPDX-License-Identifier: GPL-3.0-or-later
"""The toolbox's menu entry that opens a shipped model in the graphical modeler; imported where there is a toolbox."""

from __future__ import annotations

from processing.gui.ContextAction import ContextAction
from processing.modeler.ModelerDialog import ModelerDialog
from qgis.core import QgsApplication
from qgis.PyQt.QtGui import QIcon

from specdeepmap.models import ShippedModel


class EditCopyAction(ContextAction):
    """Open a copy, since QGIS's own entry edits the models of the user and the project only."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "Edit a Copy of the Model…"

    def icon(self) -> QIcon:
        """Give the icon of the menu entry."""
        return QgsApplication.getThemeIcon("/processingModel.svg")

    def isEnabled(self) -> bool:
        """Tell whether the algorithm that was clicked on is a model of ours."""
        return isinstance(self.itemData, ShippedModel)

    def execute(self) -> None:
        """Open the modeler; what is saved there becomes a model of the user's own."""
        dialog = ModelerDialog.create(self.itemData.copy())
        dialog.update_model.connect(QgsApplication.processingRegistry().providerById("model").refreshAlgorithms)
        dialog.show()
        dialog.activate()
