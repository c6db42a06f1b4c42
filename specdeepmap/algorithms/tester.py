# SPDX-License-Identifier: GPL-3.0-or-later
"""Deep Learning Tester."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsProcessingContext

from specdeepmap.algorithms.base import Algorithm
from specdeepmap.core.jobs import EvaluateJob, Job


class Tester(Algorithm):
    """Score a model on test chips."""

    NAME = "tester"
    TITLE = "Deep Learning Tester"
    ABOUT = (
        "Measures a model on test chips that it has never seen: IoU, precision, recall and F1 of each class, from one "
        "confusion matrix over all labelled pixels. Use it after the Deep Learning Trainer."
    )
    JOB = EvaluateJob
    TABLES = ("SCORES_CSV", "CONFUSION_CSV", "CHIP_SCORES_CSV")

    def job(self, parameters: dict[str, Any], context: QgsProcessingContext) -> Job:
        """Call the results after the model."""
        job = super().job(parameters, context)
        self.subject = job.checkpoint.stem
        return job
