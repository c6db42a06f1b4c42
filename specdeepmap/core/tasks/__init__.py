# SPDX-License-Identifier: GPL-3.0-or-later
"""One verb per job. Only ``run`` and ``__main__`` import from here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

from specdeepmap.core.jobs import Job, Result
from specdeepmap.core.progress import Progress

_VERBS = {
    "tile": "tile_raster",
    "prepare": "make_dataset",
    "train": "train",
    "tensorboard": "serve",
    "evaluate": "evaluate",
    "predict": "predict_raster",
}


def perform(job: Job, progress: Progress) -> Result:
    """Do what a job says, in this process."""
    module = import_module(f"specdeepmap.core.tasks.{job.verb}")
    task = cast(Callable[[Job, Progress], Result], getattr(module, _VERBS[job.verb]))
    return task(job, progress)
