# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a job from a file: ``python -m specdeepmap.core job.json [--events]``.

For people, progress and messages go to standard error and the result, as JSON, to standard output. With
``--events`` everything goes to standard output as one JSON object per line, for a parent process, and a
closed standard input cancels the job.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from specdeepmap.core.environment import is_first_process
from specdeepmap.core.errors import Canceled, ConfigError, SpecDeepMapError
from specdeepmap.core.jobs import Job, TensorBoardJob, job_from_json
from specdeepmap.core.progress import EventProgress, Progress, TextProgress
from specdeepmap.core.run import GRACE_SECONDS, OTHERS_ERROR, wait_while
from specdeepmap.core.staging import remove_staged

_GDAL_CACHE_BYTES = 32 * 2**20
"""GDAL's own default is a twentieth of the memory. A job that needs more than this asks for it: ``Raster.expect``."""

_PEER_LEFT = ("closed by peer", "reset by peer", "by remote peer", "Broken pipe")
"""What Gloo and NCCL say where one of several processes waits for another that is gone."""

CANCELED = 130
"""Exit code after a cancel, as shells have it for Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job of a file; 0 = done, 1 = an error, 130 = canceled."""
    parser = argparse.ArgumentParser(prog="python -m specdeepmap.core", description="Run a SpecDeepMap job.")
    parser.add_argument("job", type=Path, help="the job as JSON, as SpecDeepMap saves it")
    parser.add_argument("--events", action="store_true", help="speak JSON lines to a parent process")
    options = parser.parse_args(arguments)
    from osgeo import gdal

    gdal.UseExceptions()  # this process is ours alone
    gdal.SetCacheMax(_GDAL_CACHE_BYTES)
    return _run_for_parent(options.job) if options.events else _run_for_person(options.job)


def _run_for_person(path: Path) -> int:
    progress = TextProgress(_only_from_first(sys.stderr))
    _stop_on_signals(progress)
    try:
        from specdeepmap.core.tasks import perform

        job = _read_job(path)
        result = perform(job, progress)
        stream = _only_from_first(sys.stdout)
        stream.write(json.dumps(result.to_json(), indent=2, ensure_ascii=False) + "\n")
        stream.flush()
        _serve_on(job, progress)
    except (Canceled, KeyboardInterrupt, SystemExit):  # Lightning makes SystemExit of a signal
        sys.stderr.write("Canceled.\n")
        return CANCELED
    except SpecDeepMapError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    except RuntimeError as error:
        if not any(text in str(error) for text in _PEER_LEFT):
            raise
        if progress.canceled:  # as was the other one, which has heard it first
            sys.stderr.write("Canceled.\n")
            return CANCELED
        sys.stderr.write(
            "Another of the processes has ended. It says why, unless the system ended it, for example where memory was "
            "short. This one stops, too.\n"
        )
        return 1
    return 0


def _only_from_first(stream: TextIO) -> TextIO:
    """Let one of several processes that train together speak for all."""
    return stream if is_first_process() else Path(os.devnull).open("w", encoding="utf-8")


def _stop_on_signals(progress: Progress) -> None:
    """Let Ctrl-C, or a cluster that wants its node back, stop the job politely; the second time at once."""

    def stop(number: int, _: object) -> None:
        progress.cancel()
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _run_for_parent(path: Path) -> int:
    """Keep the real standard output for events; what libraries print goes to standard error, the log."""
    events = _only_from_first(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    progress = EventProgress(events)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is the parent's to handle
    threading.Thread(target=_stop_with_parent, args=(progress,), daemon=True).start()
    try:
        from specdeepmap.core.tasks import perform

        job = _read_job(path)
        progress.send("result", values=perform(job, progress).to_json())
        _serve_on(job, progress)
    except Canceled:
        progress.send("canceled")
        return CANCELED
    except SpecDeepMapError as error:
        _log_traceback()
        values = {"kind": type(error).__name__, "text": str(error)}
        progress.send("error", **values)
        if not is_first_process():  # which is not heard
            with contextlib.suppress(OSError):
                path.with_name(OTHERS_ERROR).write_text(json.dumps(values), encoding="utf-8")
        return 1
    except BaseException as error:
        _log_traceback()
        progress.send("error", kind="", text=f"{type(error).__name__}: {error}")
        return 1
    return 0


def _log_traceback() -> None:
    with contextlib.suppress(OSError):  # the disk of the log may be full, which is no reason to be silent
        traceback.print_exc()


def _serve_on(job: Job, progress: Progress) -> None:
    """Keep the server of this process alive as long as its job says, or until a cancel: its ordinary end."""
    if isinstance(job, TensorBoardJob):
        with contextlib.suppress(Canceled, KeyboardInterrupt):
            wait_while(lambda: True, progress, job.duration or math.inf)


def _stop_with_parent(progress: EventProgress) -> None:
    """Wait for the parent to close standard input, then stop: politely, and after a while for good."""
    while os.read(0, 1024):
        pass
    progress.cancel()
    time.sleep(GRACE_SECONDS)
    remove_staged(progress.staged_paths)
    sys.stderr.write("stopped without waiting any longer\n")
    sys.stderr.flush()
    if sys.platform != "win32" and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)  # with all that train together
    os._exit(CANCELED)


def _read_job(path: Path) -> Job:
    """Read the job file.

    Raises:
        ConfigError: if it is missing or no job.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The job file {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"The job file {path} is no JSON: {error}.") from error
    return job_from_json(values)


if __name__ == "__main__":
    sys.exit(main())
