# SPDX-License-Identifier: GPL-3.0-or-later
"""SpecDeepMap: deep-learning segmentation of spectral imagery in QGIS and EnMAP-Box.

Importing this package needs neither QGIS nor torch.
"""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specdeepmap.plugin import SpecDeepMapPlugin


def _version() -> str:
    """Read the version from metadata.txt, the one place where it stands."""
    parser = configparser.ConfigParser()
    parser.read(Path(__file__).parent / "metadata.txt", encoding="utf-8")
    return parser.get("general", "version")


__version__ = _version()


def classFactory(iface: Any) -> SpecDeepMapPlugin:
    """Give QGIS the plugin."""
    from specdeepmap.plugin import SpecDeepMapPlugin

    return SpecDeepMapPlugin(iface)


def enmapboxApplicationFactory(enmapBox: Any) -> list[Any]:
    """Give EnMAP-Box its application."""
    from specdeepmap.enmapbox import SpecDeepMapApplication

    return [SpecDeepMapApplication(enmapBox)]
