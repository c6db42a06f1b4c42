# SPDX-License-Identifier: GPL-3.0-or-later
"""The entry in EnMAP-Box's Applications menu. Imported by EnMAP-Box only."""

from __future__ import annotations

from typing import Any

from enmapbox.gui.applications import EnMAPBoxApplication
from qgis.PyQt.QtGui import QIcon
from qgis.PyQt.QtWidgets import QMenu

from specdeepmap import __version__
from specdeepmap.provider import ALGORITHMS, ICON, PROVIDER_ID


class SpecDeepMapApplication(EnMAPBoxApplication):
    """A menu with the six algorithms, in the order of work."""

    def __init__(self, enmapBox: Any, parent: Any = None) -> None:
        super().__init__(enmapBox, parent=parent)
        self.name = "SpecDeepMap"
        self.version = __version__
        self.licence = "GNU GPL-3"

    def icon(self) -> QIcon:
        """Give the menu's icon."""
        return QIcon(str(ICON))

    def menu(self, appMenu: QMenu) -> QMenu:
        """Add the menu; each entry opens an algorithm's dialog."""
        menu = appMenu.addMenu(self.icon(), self.name)
        for kind in ALGORITHMS:
            action = menu.addAction(kind.TITLE)
            action.triggered.connect(
                lambda _=False, name=f"{PROVIDER_ID}:{kind.NAME}": self.enmapbox.showProcessingAlgorithmDialog(
                    name, modal=False, parent=self.enmapbox.ui
                )
            )
        return menu
