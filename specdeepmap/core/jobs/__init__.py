# SPDX-License-Identifier: GPL-3.0-or-later
"""The six Jobs and their Results: every input and output of SpecDeepMap.

A Job holds all that one step needs, checks itself, saves as JSON and runs anywhere. The fields that
a form asks for are declared with ``ask``; the dialogs, ``qgis_process`` and the documentation show
these very labels and help texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from specdeepmap.core.errors import ConfigError, nearest
from specdeepmap.core.jobs.base import Job, Result
from specdeepmap.core.jobs.evaluate import EvaluateJob, EvaluateResult
from specdeepmap.core.jobs.predict import PredictJob, PredictResult
from specdeepmap.core.jobs.prepare import PrepareJob, PrepareResult
from specdeepmap.core.jobs.tensorboard import TensorBoardJob, TensorBoardResult
from specdeepmap.core.jobs.tile import TileJob, TileResult
from specdeepmap.core.jobs.train import TrainJob, TrainResult
from specdeepmap.core.record import shown

__all__ = [
    "JOBS",
    "EvaluateJob",
    "EvaluateResult",
    "Job",
    "PredictJob",
    "PredictResult",
    "PrepareJob",
    "PrepareResult",
    "Result",
    "TensorBoardJob",
    "TensorBoardResult",
    "TileJob",
    "TileResult",
    "TrainJob",
    "TrainResult",
    "job_from_json",
]

JOBS: dict[str, type[Job]] = {
    kind.verb: kind for kind in (TileJob, PrepareJob, TrainJob, TensorBoardJob, EvaluateJob, PredictJob)
}
"""Verb to job, in the order of work."""


def job_from_json(values: Mapping[str, Any]) -> Job:
    """Make the job that a ``job.json`` describes.

    Raises:
        ConfigError: if its verb or one of its parameters is wrong.
    """
    if not isinstance(values, Mapping):
        raise ConfigError('A job file must hold one JSON object: {"job": "train", …}.')
    verb = str(values.get("job", ""))
    if verb not in JOBS:
        raise ConfigError(f"job is {shown(verb)}.{nearest(verb, JOBS)} It can be: {', '.join(JOBS)}.")
    return JOBS[verb].from_json({name: value for name, value in values.items() if name != "job"})
