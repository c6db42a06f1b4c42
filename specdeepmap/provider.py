# SPDX-License-Identifier: GPL-3.0-or-later
"""The Processing provider: six algorithms under one roof."""

from __future__ import annotations

from pathlib import Path

from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from specdeepmap import __version__
from specdeepmap.algorithms.base import Algorithm
from specdeepmap.algorithms.dataset_maker import DatasetMaker
from specdeepmap.algorithms.mapper import Mapper
from specdeepmap.algorithms.raster_splitter import RasterSplitter
from specdeepmap.algorithms.tensorboard import TensorBoardLauncher
from specdeepmap.algorithms.tester import Tester
from specdeepmap.algorithms.trainer import Trainer

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

    def loadAlgorithms(self) -> None:
        """Register the algorithms."""
        for kind in ALGORITHMS:
            self.addAlgorithm(kind())

    def unload(self) -> None:
        """Stop the TensorBoard servers that were started from here."""
        TensorBoardLauncher.stop_servers()
