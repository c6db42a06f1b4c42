# SPDX-License-Identifier: GPL-3.0-or-later
"""The Processing provider: six algorithms and the models that chain them, under one roof."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import QgsApplication, QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon
from qgis.utils import iface

from specdeepmap import __version__
from specdeepmap.algorithms.base import Algorithm
from specdeepmap.algorithms.dataset_maker import DatasetMaker
from specdeepmap.algorithms.mapper import Mapper
from specdeepmap.algorithms.raster_splitter import RasterSplitter
from specdeepmap.algorithms.tensorboard import TensorBoardLauncher
from specdeepmap.algorithms.tester import Tester
from specdeepmap.algorithms.trainer import Trainer
from specdeepmap.models import FILES, ShippedModel

PROVIDER_ID = "specdeepmap"
ICON = Path(__file__).parent / "icon.svg"

ALGORITHMS: tuple[type[Algorithm], ...] = (
    RasterSplitter,
    DatasetMaker,
    Trainer,
    TensorBoardLauncher,
    Tester,
    Mapper,
)
"""In the order of work."""


class SpecDeepMapProvider(QgsProcessingProvider):
    """What the toolbox shows as SpecDeepMap."""

    def __init__(self) -> None:
        super().__init__()
        self._actions: list[Any] = []
        self._menu: Any = None

    def id(self) -> str:
        """Give the id that scripts use."""
        return PROVIDER_ID

    def name(self) -> str:
        """Give the name that the toolbox shows."""
        return "SpecDeepMap"

    def longName(self) -> str:
        """Give the name with the version."""
        return f"SpecDeepMap {__version__}"

    def icon(self) -> QIcon:
        """Give the icon that the toolbox shows."""
        return QIcon(str(ICON))

    def supportedOutputRasterLayerExtensions(self) -> list[str]:
        """Give the formats of maps, for the file dialogs."""
        return ["tif", "tiff"]

    def supportedOutputVectorLayerExtensions(self) -> list[str]:
        """Give the formats of polygons, for the file dialogs."""
        return ["gpkg", "shp", "fgb", "geojson", "json"]

    def load(self) -> bool:
        """Offer to edit the models, where there is a toolbox to click in."""
        if iface is not None:
            from processing.gui.ProviderActions import ProviderContextMenuActions

            from specdeepmap.models.editing import EditCopyAction

            self._actions, self._menu = [EditCopyAction()], ProviderContextMenuActions
            self._menu.registerProviderContextMenuActions(self._actions)
        return super().load()

    def loadAlgorithms(self) -> None:
        """Register the algorithms and, once they can be found, the models that are made of them.

        QGIS loads a provider before it stands in the registry. Whoever adds this one refreshes it afterwards.
        """
        for kind in ALGORITHMS:
            self.addAlgorithm(kind())
        if QgsApplication.processingRegistry().providerById(PROVIDER_ID) is self:
            for file in FILES:
                self.addAlgorithm(ShippedModel(file))

    def unload(self) -> None:
        """Stop the TensorBoard servers that were started from here, and take the menu entries back."""
        TensorBoardLauncher.stop_servers()
        if self._actions:  # of the very menu: Processing may be gone already, and would be imported anew
            self._menu.deregisterProviderContextMenuActions(self._actions)
            self._actions = []
