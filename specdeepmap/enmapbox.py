# SPDX-License-Identifier: GPL-3.0-or-later
"""The entry in EnMAP-Box's Applications menu. Imported by EnMAP-Box only."""

from __future__ import annotations

from typing import Any

from enmapbox.gui.applications import EnMAPBoxApplication
from qgis.core import QgsApplication
from qgis.PyQt.QtGui import QIcon
from qgis.PyQt.QtWidgets import QMenu

from specdeepmap import __version__
from specdeepmap.models import FILES
from specdeepmap.provider import ALGORITHMS, ICON, PROVIDER_ID

_ENVIRONMENT_ICON = ICON.parent / "icons" / "environment.svg"


class SpecDeepMapApplication(EnMAPBoxApplication):
    """A menu with the algorithms in the order of work, the models, and the window that sets up the environment."""

    def __init__(self, enmapBox: Any, parent: Any = None) -> None:
        super().__init__(enmapBox, parent=parent)
        self.name = "SpecDeepMap"
        self.version = __version__
        self.licence = "GNU GPL-3"

    def icon(self) -> QIcon:
        """Give the menu's icon."""
        return QIcon(str(ICON))

    def menu(self, appMenu: QMenu) -> QMenu:
        """Add the menu; each entry opens a dialog."""
        menu = appMenu.addMenu(self.icon(), self.name)
        for kind in ALGORITHMS:
            self._add_algorithm(menu, kind.NAME)
        menu.addSeparator()
        for file in FILES:
            self._add_algorithm(menu, file.stem)
        menu.addSeparator()
        action = menu.addAction(QIcon(str(_ENVIRONMENT_ICON)), "Set up deep-learning environment…")
        action.triggered.connect(lambda _=False: self.open_environment())
        return menu

    def open_environment(self) -> None:
        """Show the window that sets up the Python which does the work."""
        from specdeepmap.gui.environment_dialog import open_dialog

        open_dialog(self.enmapbox.ui)

    def _add_algorithm(self, menu: QMenu, name: str) -> None:
        """Add an entry that opens an algorithm's or a model's dialog; none for what is not registered."""
        key = f"{PROVIDER_ID}:{name}"
        algorithm = QgsApplication.processingRegistry().algorithmById(key)
        if algorithm is None:
            return
        action = menu.addAction(algorithm.icon(), algorithm.displayName())
        action.triggered.connect(
            lambda _=False: self.enmapbox.showProcessingAlgorithmDialog(key, modal=False, parent=self.enmapbox.ui)
        )
