# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a job: in a child Python, so that QGIS never imports torch and never freezes.

The child is started as ``python -X utf8 -u -m specdeepmap.core job.json --events`` and speaks JSON, one event
per line. Closing its standard input cancels it; the same happens when the parent dies.
"""

from __future__ import annotations

import contextlib
import json
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from specdeepmap.core.environment import DATA_MODULES, advice, child_environ, find_python
from specdeepmap.core.errors import (
    ERRORS,
    Canceled,
    ChildError,
    ConfigError,
    EnvironmentMissingError,
    SpecDeepMapError,
)
from specdeepmap.core.jobs import Job, Result
from specdeepmap.core.process import end_process, own_group
from specdeepmap.core.progress import Progress
from specdeepmap.core.staging import remove_staged

GRACE_SECONDS = 1.5
"""How long a canceled child may take to stop by itself."""

OTHERS_ERROR = "error_of_another.json"
"""What a process that works together with the child leaves beside the job's file: nobody listens to it."""

_POLL_SECONDS = 0.1


def run(job: Job, progress: Progress) -> Result:
    """Run a job to its end.

    Raises:
        Canceled: if the progress was canceled.
        SpecDeepMapError: whatever the job met, with a message for the user.
    """
    python = find_job_python(job, progress)
    if python is None:
        return run_here(job, progress)
    child = Child(job, python)
    try:
        return child.result(progress, until_exit=True)
    finally:
        child.stop()


def find_job_python(job: Job, progress: Progress) -> Path | None:
    """Find the interpreter for a job; None where a torch-free job can run in this one.

    Raises:
        Canceled: if the progress was canceled.
        EnvironmentMissingError: if no interpreter has the modules.
    """
    search = find_python(job.modules, check=progress.check)
    if search.python is not None:
        return search.python
    torch_free = set(job.modules) <= set(DATA_MODULES)
    if torch_free and all(find_spec(name) is not None for name in job.modules):
        return None
    raise EnvironmentMissingError(advice(search))


def run_here(job: Job, progress: Progress) -> Result:
    """Run a job in this process."""
    from specdeepmap.core.tasks import perform

    return perform(job, progress)


class Child:
    """A child Python that works on a job.

    Args:
        job: what to do.
        python: the interpreter.

    Raises:
        ChildError: if it cannot be started.
        ConfigError: if the job cannot be written down.
    """

    def __init__(self, job: Job, python: Path) -> None:
        self.kind = type(job)
        self._staged: list[Path] = []
        self._log_is_named = False
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="specdeepmap-"))
        except OSError as error:
            raise ChildError(_no_temporary_folder(Path(tempfile.gettempdir()), error)) from error
        self.log = self._folder / "log.txt"
        try:
            self._process = self._start(job, python)
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise ChildError(_no_temporary_folder(self._folder.parent, error)) from error
        except UnicodeEncodeError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise ConfigError(
                f"A path holds characters that are no text: {error.object[:200]!r}. Rename that file or folder."
            ) from error
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _start(self, job: Job, python: Path) -> subprocess.Popen[bytes]:
        """Start the child; the job and the log lie in the temporary folder."""
        job_file = self._folder / "job.json"
        job.save(job_file)
        command = [str(python), "-X", "utf8", "-u", "-m", "specdeepmap.core", str(job_file), "--events"]
        with self.log.open("wb") as log:
            return subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=child_environ(),
                **own_group(),
            )

    @property
    def alive(self) -> bool:
        """Whether the child still runs."""
        return self._process.poll() is None

    def result(self, progress: Progress, until_exit: bool) -> Result:
        """Pass the child's reports on until its result is there.

        Args:
            progress: hears all reports; asked for cancel ten times a second, also while the child is silent.
            until_exit: wait for the child to end, too; otherwise it runs on.

        Raises:
            Canceled: if the progress was canceled; the child is stopped then.
            SpecDeepMapError: what the child reported, or that it died.
        """
        result: Result | None = None
        for event in self._reports(progress):
            kind = event.get("event")
            if kind == "progress":
                progress.report(event["share"], event["text"])
            elif kind == "info":
                progress.info(event["text"])
            elif kind == "warning":
                progress.warning(event["text"])
            elif kind == "staged":
                self._staged.append(Path(event["path"]))
            elif kind == "result":
                result = self.kind.result.from_json(event["values"])
                if not until_exit:
                    return result
            elif kind == "canceled":
                raise Canceled("canceled")
            elif kind == "error":
                raise self._error(event)
        code = self._process.wait()
        if result is None or code != 0:
            raise self._error_of_another() or ChildError(self._death(code))
        return result

    def stop(self) -> None:
        """Ask the child to stop, make it, and tidy up; harmless when it has ended."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it is gone already
                self._process.stdin.close()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            end_process(self._process)
        self._listener.join(GRACE_SECONDS)
        if self._process.stdout is not None and not self._listener.is_alive():
            self._process.stdout.close()
        if self._process.returncode != 0:
            remove_staged([*self._staged, *self._unheard()])
        if not self._log_is_named:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _unheard(self) -> Iterator[Path]:
        """Yield the outputs that the child told of when nobody listened any more."""
        while not self._events.empty():
            event = self._events.get() or {}
            if event.get("event") == "staged":
                yield Path(event["path"])

    def _reports(self, progress: Progress) -> Iterator[dict[str, Any]]:
        """Yield events until the child closes its output."""
        while True:
            progress.check()
            try:
                event = self._events.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if event is None:
                return
            yield event

    def _listen(self) -> None:
        """Put the child's events into the queue; ``None`` when it says no more."""
        output = self._process.stdout
        if output is not None:
            for line in output:
                try:
                    event = json.loads(line)
                except ValueError:  # not ours; the log has what libraries say
                    continue
                if isinstance(event, dict):
                    self._events.put(event)
        self._events.put(None)

    def _error(self, event: dict[str, Any]) -> SpecDeepMapError:
        kind = event.get("kind", "")
        if kind in ERRORS:
            return ERRORS[kind](event["text"])
        if (cause := self._error_of_another()) is not None:
            return cause
        self._log_is_named = True
        return ChildError(f"Something went wrong that should not ({event['text']}). Details: {self.log}")

    def _error_of_another(self) -> SpecDeepMapError | None:
        """Give the error of another of the processes that work together: the first one says only that it is gone."""
        try:
            event = json.loads((self._folder / OTHERS_ERROR).read_text(encoding="utf-8"))
            return ERRORS[event["kind"]](event["text"])
        except (OSError, ValueError, KeyError):
            return None

    def _death(self, code: int) -> str:
        """Say how a child ended that gave no result."""
        self._log_is_named = True
        if code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = f"signal {-code}"
            hint = " This is often out of memory: try a smaller batch size." if name in _MEMORY_SIGNALS else ""
            return f"The working process was ended by the system ({name}).{hint} Log: {self.log}"
        return f"The working process ended without a result (exit code {code}). Log: {self.log}"


def _no_temporary_folder(folder: Path, error: OSError) -> str:
    return (
        f"The working process cannot be started ({error.strerror}: {error.filename or folder}). Is the disk of the "
        f"temporary folder {folder} full, or the folder write-protected? Free some space there and run again."
    )


_MEMORY_SIGNALS = ("SIGKILL", "SIGBUS")


def wait_while(condition: Callable[[], bool], progress: Progress, seconds: float = float("inf")) -> None:
    """Wait as long as a condition holds, at most some seconds, listening for cancel."""
    deadline = time.monotonic() + seconds
    while condition() and time.monotonic() < deadline:
        progress.check()
        time.sleep(_POLL_SECONDS)
