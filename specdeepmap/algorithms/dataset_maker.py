# SPDX-License-Identifier: GPL-3.0-or-later
"""Dataset Maker."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsProcessingContext

from specdeepmap.algorithms.base import Algorithm
from specdeepmap.algorithms.layers import unsaved_layer
from specdeepmap.algorithms.styles import load_layer
from specdeepmap.core.errors import ConfigError
from specdeepmap.core.jobs import Job, PrepareJob, Result

_INDEX = "tiles.gpkg"


class DatasetMaker(Algorithm):
    """Split chips into training, validation and test sets."""

    NAME = "datasetmaker"
    TITLE = "Dataset Maker"
    ABOUT = (
        "Splits chips into sets for training, validation and test, and writes class summary and band statistics. Use "
        "it on a folder of the Raster Splitter. Continue with the Deep Learning Trainer."
    )
    JOB = PrepareJob
    TABLES = ("TRAIN_CSV", "VALIDATION_CSV", "TEST_CSV", "SUMMARY_CSV", "STATISTICS_CSV")
    HANDS_ON = (("OUTPUT_FOLDER", "trainer", "DATASET_FOLDER"), ("TEST_CSV", "tester", "TEST_CSV"))

    def job(self, parameters: dict[str, Any], context: QgsProcessingContext) -> Job:
        """Call the results after the folder."""
        job = super().job(parameters, context)
        self.subject = (job.output_folder or job.data_folder).name
        return job

    def check(self, job: Job, parameters: dict[str, Any], context: QgsProcessingContext) -> None:
        """Check that the folder holds what it must."""
        for name in ("images", "labels"):
            if not (job.data_folder / name).is_dir():
                raise ConfigError(
                    f"DATA_FOLDER {job.data_folder} holds no folder {name}/. Name the folder that the Raster Splitter "
                    "wrote."
                )
        if job.split == "given" and not (job.data_folder / _INDEX).is_file():
            raise ConfigError(
                f"SPLIT is given, but DATA_FOLDER {job.data_folder} holds no {_INDEX}. Run the Raster Splitter, or "
                "take another SPLIT."
            )
        edited = unsaved_layer(job.data_folder / _INDEX, context) if job.split == "given" else None
        if edited is not None:
            raise ConfigError(
                f"SPLIT is given, and the layer '{edited.name()}' has edits that are not saved yet: they would not "
                "count. Save them in QGIS (Save Layer Edits), or undo them."
            )

    def finish(self, job: Job, result: Result, context: QgsProcessingContext) -> None:
        """Have the split loaded; the tile index brings its style along."""
        if result.tile_index is not None:
            load_layer(context, result.tile_index, f"Split of {self.subject}", "TILE_INDEX")
