# SPDX-License-Identifier: GPL-3.0-or-later
"""Deep Learning Trainer."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsProcessingContext

from specdeepmap.algorithms.backbones import check_parts
from specdeepmap.algorithms.base import Algorithm
from specdeepmap.core.errors import ConfigError
from specdeepmap.core.jobs import Job, TrainJob

_TRAINING_TABLE = "train_files.csv"


class Trainer(Algorithm):
    """Train a network on a dataset folder."""

    NAME = "trainer"
    TITLE = "Deep Learning Trainer"
    ABOUT = (
        "Trains a network for pixel classification on a dataset folder of the Dataset Maker. The checkpoint with the "
        "best validation mean IoU is kept; measure it with the Deep Learning Tester and map with the Deep Learning "
        "Mapper. The work is done by a Python process of its own, so QGIS stays responsive."
    )
    JOB = TrainJob
    TABLES = ("HISTORY_CSV",)
    HANDS_ON = (
        ("BEST_CHECKPOINT", "tester", "CHECKPOINT"),
        ("BEST_CHECKPOINT", "mapper", "CHECKPOINT"),
        ("LOG_FOLDER", "tensorboard", "LOG_FOLDER"),
    )

    def job(self, parameters: dict[str, Any], context: QgsProcessingContext) -> Job:
        """Call the results after the dataset."""
        job = super().job(parameters, context)
        self.subject = job.dataset_folder.name
        return job

    def check(self, job: Job, parameters: dict[str, Any], context: QgsProcessingContext) -> None:
        """Check the dataset's table and whether the parts of the network go together."""
        if not (job.dataset_folder / _TRAINING_TABLE).is_file():
            raise ConfigError(
                f"DATASET_FOLDER {job.dataset_folder} holds no {_TRAINING_TABLE}. Run the Dataset Maker on it first."
            )
        check_parts(job)
