# SPDX-License-Identifier: GPL-3.0-or-later
"""Deep Learning Mapper."""

from __future__ import annotations

import math
from typing import Any

from qgis.core import QgsLayerTreeLayer, QgsProcessingContext
from qgis.utils import iface

from specdeepmap.algorithms.base import Algorithm
from specdeepmap.algorithms.styles import ClassStyle, RampStyle, show
from specdeepmap.core.data.classes import AGREEMENT
from specdeepmap.core.jobs import Job, PredictJob, Result


class Mapper(Algorithm):
    """Map a whole raster with a model."""

    NAME = "mapper"
    TITLE = "Deep Learning Mapper"
    ABOUT = (
        "Maps a whole image with a trained model, tile by tile, so that scenes larger than the memory can be mapped. "
        "Overlapping tile borders are cropped, so that they do not show. Bands, scaling and classes come from the "
        "checkpoint."
    )
    JOB = PredictJob
    TABLES = ("SCORES_CSV", "CONFUSION_CSV")

    def __init__(self) -> None:
        super().__init__()
        self._layer_is_selected = False

    def job(self, parameters: dict[str, Any], context: QgsProcessingContext) -> Job:
        """Call the results after the image."""
        job = super().job(parameters, context)
        self.subject = self.parameterAsRasterLayer(parameters, "IMAGE", context).name()
        self._layer_is_selected = iface is not None and isinstance(
            iface.layerTreeView().currentNode(), QgsLayerTreeLayer
        )
        return job

    def finish(self, job: Job, result: Result, context: QgsProcessingContext) -> None:
        """Show map, polygons and error map in the colours of their classes, and measures from lowest to highest."""
        as_percent = job.probability_format == "percent"
        most = math.log(max(len(result.classes), 2))
        styles = {
            "output": ClassStyle(result.classes),
            "vector": ClassStyle(result.classes),
            "confidence": RampStyle(1.0),
            "probabilities": RampStyle(100.0, " %") if as_percent else RampStyle(1.0),
            "margin": RampStyle(1.0),
            "entropy": RampStyle(most, " nats"),
            "error_map": ClassStyle(AGREEMENT.entries),
        }
        for rank, (name, style) in enumerate(reversed(styles.items()), 1):
            path = getattr(result, name)
            if path is not None:
                label = self.parameterDefinition(name.upper()).description()
                # Above a selected layer QGIS puts each result below the one before it, else above.
                key = -rank if self._layer_is_selected else rank
                show(context, path, label, f"{label} of {self.subject}", style, key)
