# SPDX-License-Identifier: GPL-3.0-or-later
"""One verb per job. Only ``run`` and ``__main__`` import from here."""

from __future__ import annotations

import errno
from collections.abc import Callable
from importlib import import_module
from typing import cast

from specdeepmap.core.errors import RasterError, SpecDeepMapError
from specdeepmap.core.jobs import Job, Result
from specdeepmap.core.progress import Progress

_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Is the disk full? Free some space, and run again."),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Choose a file or folder that you may read and write."),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENXIO), "Is the disk, or the network, still there? Run again."),
}
"""What to do where the system refuses a file, whichever of many it is."""

_VERBS = {
    "tile": "tile_raster",
    "prepare": "make_dataset",
    "train": "train",
    "tensorboard": "serve",
    "evaluate": "evaluate",
    "predict": "predict_raster",
}


def perform(job: Job, progress: Progress) -> Result:
    """Do what a job says, in this process.

    Raises:
        Canceled: if the progress was canceled.
        SpecDeepMapError: whatever the job met, with a message for the user.
    """
    module = import_module(f"specdeepmap.core.tasks.{job.verb}")
    task = cast(Callable[[Job, Progress], Result], getattr(module, _VERBS[job.verb]))
    try:
        return task(job, progress)
    except SpecDeepMapError:  # some are OSErrors, too
        raise
    except OSError as error:
        if error.errno not in _ADVICE:
            raise
        name = f" {error.filename2 or error.filename}" if error.filename else ""
        raise RasterError(f"The system refuses a file{name}: {error.strerror}. {_ADVICE[error.errno]}") from error
