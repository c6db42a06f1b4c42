# SPDX-License-Identifier: GPL-3.0-or-later
"""Raster Splitter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qgis.core import QgsProcessingContext, QgsVectorLayer

from specdeepmap.algorithms.base import Algorithm
from specdeepmap.algorithms.layers import class_entries
from specdeepmap.algorithms.styles import load_layer
from specdeepmap.core.errors import ConfigError, nearest
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
    HANDS_ON = (("OUTPUT_FOLDER", "datasetmaker", "DATA_FOLDER"),)

    def job(self, parameters: dict[str, Any], context: QgsProcessingContext) -> Job:
        """Add the class names and colours of the label layer, and call the results after the image."""
        job = super().job(parameters, context)
        self.subject = self.parameterAsRasterLayer(parameters, "IMAGE", context).name()
        layer = self.parameterAsLayer(parameters, "LABELS", context)
        return replace(job, classes=class_entries(layer, job.class_field))

    def check(self, job: Job, parameters: dict[str, Any], context: QgsProcessingContext) -> None:
        """Check that the labels are others than the image, and the class field of vectors."""
        layer = self.parameterAsLayer(parameters, "LABELS", context)
        image = self.parameterAsLayer(parameters, "IMAGE", context)
        if layer is not None and image is not None and layer.source() == image.source():
            raise ConfigError(
                f"IMAGE and LABELS are both {layer.name()}. LABELS needs the class ids: another raster, polygons or "
                "points."
            )
        if not isinstance(layer, QgsVectorLayer):
            return
        names = [field.name() for field in layer.fields()]
        if job.class_field is None:
            raise ConfigError(
                f"CLASS_FIELD is not set, and LABELS {layer.name()} are vectors. Name the field with the class: "
                f"{', '.join(names)}."
            )
        if job.class_field not in names:
            raise ConfigError(
                f"CLASS_FIELD is '{job.class_field}', which LABELS {layer.name()} does not have."
                f"{nearest(job.class_field, names)} It has: {', '.join(names)}."
            )

    def finish(self, job: Job, result: Result, context: QgsProcessingContext) -> None:
        """Have the tile index loaded."""
        load_layer(context, result.tile_index, f"Chips of {self.subject}", "TILE_INDEX")
