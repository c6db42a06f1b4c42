# SPDX-License-Identifier: GPL-3.0-or-later
"""The QGIS plugin: provider in, provider out, and a word to EnMAP-Box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import QgsApplication, QgsSettings

from specdeepmap.provider import SpecDeepMapProvider

_ENMAPBOX_SETTING = ("EnMAP", "EnMAP-Box")
_APPLICATION_PATHS = "EMB_APPLICATION_PATH"


class SpecDeepMapPlugin:
    """What QGIS loads.

    Args:
        iface: the QGIS interface; None in ``qgis_process``.
    """

    def __init__(self, iface: Any) -> None:
        self.iface = iface
        self.provider: SpecDeepMapProvider | None = None

    def initProcessing(self) -> None:
        """Register the algorithms; all that ``qgis_process`` calls."""
        self.provider = SpecDeepMapProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self) -> None:
        """Register the algorithms and announce the application folder to EnMAP-Box."""
        self.initProcessing()
        _announce(present=True)

    def unload(self) -> None:
        """Take everything back; running TensorBoard servers end."""
        _announce(present=False)
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)
            self.provider = None


def _announce(present: bool) -> None:
    """Add this package to EnMAP-Box's application folders, or take it out; other entries stay."""
    own = str(Path(__file__).resolve().parent)
    settings = QgsSettings(*_ENMAPBOX_SETTING)
    entries = [entry for entry in str(settings.value(_APPLICATION_PATHS, "") or "").split(";") if entry]
    kept = [entry for entry in entries if entry != own]
    wanted = [*kept, own] if present else kept
    if wanted != entries:
        settings.setValue(_APPLICATION_PATHS, ";".join(wanted))
