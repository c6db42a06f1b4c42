# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipped models: files that chain the algorithms, each an algorithm of its own in the toolbox.

``tools/make_models.py`` writes the files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import QgsProcessingAlgorithm, QgsProcessingContext, QgsProcessingModelAlgorithm
from qgis.PyQt.QtGui import QIcon

from specdeepmap.core.errors import nearest
from specdeepmap.help import page_url

GROUP = "Models"
"""The group of the toolbox, below the algorithms."""

_FOLDER = Path(__file__).parent
_ICON = _FOLDER.parent / "icons" / "models.svg"

FILES = (_FOLDER / "from_labels_to_map.model3", _FOLDER / "train_and_map.model3")


class ShippedModel(QgsProcessingModelAlgorithm):
    """A model whose id is the name of its file: ``specdeepmap:train_and_map``.

    QGIS itself makes no difference between a model's id and the title that the toolbox shows.

    Args:
        file: the model's file. QGIS is not told of it, so that nobody saves changes into the plugin's folder.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file
        self.fromFile(str(file))

    def createInstance(self) -> ShippedModel:
        """Give QGIS a fresh instance for each run."""
        return ShippedModel(self._file)

    def name(self) -> str:
        """Give the id that scripts use."""
        return self._file.stem

    def icon(self) -> QIcon:
        """Give the icon that the toolbox shows."""
        return QIcon(str(_ICON))

    def helpUrl(self) -> str:
        """Give the page that the dialog's Help button opens."""
        return page_url("models")

    def checkParameterValues(self, parameters: dict[str, Any], context: QgsProcessingContext) -> tuple[bool, str]:
        """Refuse what the model does not know: QGIS would run without it, and with the default instead."""
        known = [definition.name() for definition in self.parameterDefinitions()]
        for name in parameters:
            if name not in known and name != "VERBOSE_LOG":  # which any model takes
                return False, f"There is no parameter '{name}'.{nearest(name, known)}"
        return super().checkParameterValues(parameters, context)

    def asPythonCommand(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str:
        """Give the command for the history, as for any algorithm; QGIS gives none for a model without a file."""
        return str(QgsProcessingAlgorithm.asPythonCommand(self, parameters, context))

    def copy(self) -> QgsProcessingModelAlgorithm:
        """Give an ordinary model that can be changed and saved as the user's own."""
        model = QgsProcessingModelAlgorithm()
        model.loadVariant(self.toVariant())
        return model
