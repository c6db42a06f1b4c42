# SPDX-License-Identifier: GPL-3.0-or-later
"""Deep Learning Tester."""

from __future__ import annotations

from specdeepmap.algorithms.base import Algorithm
from specdeepmap.core.jobs import EvaluateJob


class Tester(Algorithm):
    """Score a model on test chips."""

    NAME = "tester"
    TITLE = "Deep Learning Tester"
    ABOUT = (
        "Measures a model on test chips that it has never seen: IoU, precision, recall and F1 of each class, from one "
        "confusion matrix over all labelled pixels. Use it after the Deep Learning Trainer."
    )
    JOB = EvaluateJob
