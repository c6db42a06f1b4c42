# SPDX-License-Identifier: GPL-3.0-or-later
"""Deep Learning Mapper."""

from __future__ import annotations

from qgis.core import QgsProcessingContext

from specdeepmap.algorithms.base import Algorithm
from specdeepmap.algorithms.layers import ClassStyle, load_with
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

    def finish(self, job: Job, result: Result, context: QgsProcessingContext) -> None:
        """Show map, polygons and error map in the colours of their classes."""
        classes = {result.output: result.classes, result.vector: result.classes, result.error_map: AGREEMENT.entries}
        for path, entries in classes.items():
            if path is not None:
                load_with(context, str(path), ClassStyle(entries))
