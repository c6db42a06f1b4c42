# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that we start: in a group of their own, and ended with all that they started."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from specdeepmap.core.progress import Progress

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 0.3


def own_group() -> dict[str, Any]:
    """Give the arguments of ``Popen`` that put a process into a group of its own, without a window."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def end_process(process: subprocess.Popen[Any]) -> None:
    """End a process of its own group and the processes that it started; harmless when it has ended."""
    if sys.platform == "win32":
        process.kill()
    else:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            deadline = time.monotonic() + _GRACE_SECONDS
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
        process.kill()  # harmless when it has ended, and enough if it had left its group
    process.wait()


def run_lines(
    command: Sequence[str], environ: Mapping[str, str], progress: Progress, heard: Callable[[str], None]
) -> int:
    """Run a command and hear its output, both streams, line by line; ``""`` every tenth of a second of silence.

    Returns:
        Its exit code.

    Raises:
        Canceled: if the progress was canceled; the command has ended then, with all that it started.
        OSError: if it cannot be started.
    """
    process = _start(command, environ, subprocess.STDOUT)
    lines: queue.Queue[str | None] = queue.Queue()
    listener = threading.Thread(target=_listen, args=(process, lines), daemon=True)
    listener.start()
    try:
        while True:
            progress.check()
            try:
                line = lines.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                heard("")
                continue
            if line is None:
                return process.wait()
            heard(line)
    finally:
        if process.poll() is None:
            end_process(process)
        listener.join(_GRACE_SECONDS)
        if process.stdout is not None and not listener.is_alive():
            with contextlib.suppress(OSError):
                process.stdout.close()


def run_patiently(
    command: Sequence[str], environ: Mapping[str, str], seconds: float, check: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command until its end, and give what it said; given up, it ends with all that it started.

    Args:
        command: the command.
        environ: its environment variables.
        seconds: that it may take.
        check: is called while it is waited for, and may raise to give up.

    Raises:
        subprocess.TimeoutExpired: if it takes longer.
        OSError: if it cannot be started.
    """
    deadline = time.monotonic() + seconds
    process = _start(command, environ, subprocess.PIPE)
    try:
        while True:
            try:
                said, complained = process.communicate(timeout=_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    raise
                if check is not None:
                    check()
            else:
                return subprocess.CompletedProcess(command, process.returncode, said, complained)
    finally:
        if process.returncode is None:
            end_process(process)
            for stream in filter(None, (process.stdout, process.stderr)):
                stream.close()


def _start(command: Sequence[str], environ: Mapping[str, str], stderr: int) -> subprocess.Popen[str]:
    """Start a command that is asked nothing, and whose output is read as text, whatever it holds."""
    return subprocess.Popen(  # noqa: S603
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=dict(environ),
        text=True,
        encoding="utf-8",
        errors="replace",
        **own_group(),
    )


def _listen(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    """Put the lines of a process into a queue; ``None`` when it says no more."""
    if process.stdout is not None:
        for line in process.stdout:
            lines.put(line.rstrip())
    lines.put(None)
