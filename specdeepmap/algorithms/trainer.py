# SPDX-License-Identifier: GPL-3.0-or-later
"""Deep Learning Trainer."""

from __future__ import annotations

from specdeepmap.algorithms.base import Algorithm
from specdeepmap.core.jobs import TrainJob


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
