# SPDX-License-Identifier: GPL-3.0-or-later
"""Raster Splitter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qgis.core import QgsProcessingContext

from specdeepmap.algorithms.base import Algorithm
from specdeepmap.algorithms.layers import class_entries, load_layer
from specdeepmap.core.jobs import Job, Result, TileJob


class RasterSplitter(Algorithm):
    """Cut a raster and its labels into chips."""

    NAME = "rastersplitter"
    TITLE = "Raster Splitter"
    ABOUT = (
        "Cuts an image and its labels into chips of equal size, the first step towards a dataset. Chips keep number "
        "type, coordinate system, no-data, band names, wavelengths and class names. Continue with the Dataset Maker."
    )
    JOB = TileJob

    def job(self, parameters: dict[str, Any], context: QgsProcessingContext) -> Job:
        """Add the class names and colours of the label layer."""
        job = super().job(parameters, context)
        layer = self.parameterAsLayer(parameters, "LABELS", context)
        return replace(job, classes=class_entries(layer, job.class_field))

    def finish(self, job: Job, result: Result, context: QgsProcessingContext) -> None:
        """Have the tile index loaded."""
        load_layer(context, str(result.tile_index), "Chips", "TILE_INDEX")
