# SPDX-License-Identifier: GPL-3.0-or-later
"""The QGIS plugin: provider in, provider out, and a word to EnMAP-Box."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qgis.core import QgsApplication, QgsSettings
from qgis.gui import QgsProcessingAlgorithmDialogBase
from qgis.PyQt.QtCore import QUrl
from qgis.PyQt.QtGui import QDesktopServices, QIcon
from qgis.PyQt.QtWidgets import QAction, QApplication

from specdeepmap.help import page_url
from specdeepmap.provider import SpecDeepMapProvider

_ENMAPBOX_SETTING = ("EnMAP", "EnMAP-Box")
_APPLICATION_PATHS = "EMB_APPLICATION_PATH"

MENU = "SpecDeepMap"
_ICONS = Path(__file__).parent / "icons"


class SpecDeepMapPlugin:
    """What QGIS loads.

    Args:
        iface: the QGIS interface; None in ``qgis_process``.
    """

    def __init__(self, iface: Any) -> None:
        self.iface = iface
        self.provider: SpecDeepMapProvider | None = None
        self.actions: list[QAction] = []

    def initProcessing(self) -> None:
        """Register the algorithms and models; all that ``qgis_process`` calls."""
        self.provider = SpecDeepMapProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)
        self.provider.refreshAlgorithms()  # for the models, whose algorithms can be found from now on only

    def initGui(self) -> None:
        """Register the algorithms, add the menu, and announce the application folder to EnMAP-Box."""
        self.initProcessing()
        _announce(present=True)
        if self.iface is not None:
            self._add_action("Set up deep-learning environment…", "environment.svg", self.open_environment)
            self._add_action("Help", "", lambda: QDesktopServices.openUrl(QUrl(page_url("index"))))

    def open_environment(self) -> None:
        """Show the window that sets up the Python which does the work."""
        from specdeepmap.gui.environment_dialog import open_dialog

        open_dialog(self.iface.mainWindow())

    def unload(self) -> None:
        """Take everything back; running TensorBoard servers and installations end."""
        _announce(present=False)
        for action in self.actions:
            self.iface.removePluginMenu(MENU, action)
            action.deleteLater()
        self.actions.clear()
        if self.iface is not None:
            from specdeepmap.gui.environment_dialog import close_dialog

            close_dialog()
        if self.provider is not None:
            _close_dialogs(self.provider.id())
            QgsApplication.processingRegistry().removeProvider(self.provider)
            self.provider = None

    def _add_action(self, text: str, icon: str, triggered: Callable[[], object]) -> None:
        """Add an entry to the plugin's menu."""
        action = QAction(QIcon(str(_ICONS / icon)) if icon else QIcon(), text, self.iface.mainWindow())
        action.triggered.connect(lambda _=False: triggered())
        self.iface.addPluginToMenu(MENU, action)
        self.actions.append(action)


def _close_dialogs(provider: str) -> None:
    """Close the dialogs of a provider's algorithms, but those that run: QGIS crashes on Run once it is gone."""
    for window in QApplication.topLevelWidgets():
        if not isinstance(window, QgsProcessingAlgorithmDialogBase) or window.cancelButton().isEnabled():
            continue
        algorithm = window.algorithm()
        if algorithm is not None and algorithm.id().startswith(f"{provider}:"):
            window.close()


def _announce(present: bool) -> None:
    """Add this package to EnMAP-Box's application folders, or take it out; other entries stay."""
    own = str(Path(__file__).resolve().parent)
    settings = QgsSettings(*_ENMAPBOX_SETTING)
    entries = [entry for entry in str(settings.value(_APPLICATION_PATHS, "") or "").split(";") if entry]
    kept = [entry for entry in entries if entry != own]
    wanted = [*kept, own] if present else kept
    if wanted != entries:
        settings.setValue(_APPLICATION_PATHS, ";".join(wanted))
