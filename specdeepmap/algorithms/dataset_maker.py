# SPDX-License-Identifier: GPL-3.0-or-later
"""Dataset Maker."""

from __future__ import annotations

from specdeepmap.algorithms.base import Algorithm
from specdeepmap.core.jobs import PrepareJob


class DatasetMaker(Algorithm):
    """Split chips into training, validation and test sets."""

    NAME = "datasetmaker"
    TITLE = "Dataset Maker"
    ABOUT = (
        "Splits chips into sets for training, validation and test, and writes class summary and band statistics. Use "
        "it on a folder of the Raster Splitter. Continue with the Deep Learning Trainer."
    )
    JOB = PrepareJob
