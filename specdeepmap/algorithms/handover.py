# SPDX-License-Identifier: GPL-3.0-or-later
"""Hand-over: what one step made is what the next step's dialog starts with.

Only dialogs see it: scripts, ``qgis_process`` and models get nothing that they did not ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import QgsProcessingAlgorithm

Ways = tuple[tuple[str, str, str], ...]
"""An output, the algorithm that goes on with it, and that one's parameter."""

_WIDGET = "specdeepmap.algorithms.widgets.HandedOnWidget"


class HandOver:
    """What the last successful runs made since QGIS was started. Setting and getting a value is safe in all threads."""

    def __init__(self) -> None:
        self._paths: dict[tuple[str, str], Path] = {}

    def remember(self, ways: Ways, outputs: Mapping[str, Any]) -> None:
        """Keep the outputs that a later step goes on with; those that were not made this time are forgotten."""
        for output, algorithm, parameter in ways:
            if output in outputs:
                self._paths[algorithm, parameter] = Path(str(outputs[output]))
            else:
                self._paths.pop((algorithm, parameter), None)

    def forget(self) -> None:
        """Start anew."""
        self._paths.clear()

    def offer(self, algorithm: QgsProcessingAlgorithm) -> None:
        """Have a new algorithm's dialog start with what is still there."""
        for definition in algorithm.parameterDefinitions():
            path = self._paths.get((algorithm.name(), definition.name()))
            if path is not None and path.exists():
                definition.setGuiDefaultValueOverride(str(path))
                definition.setMetadata({"widget_wrapper": {"class": _WIDGET}})
