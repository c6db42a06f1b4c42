# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress: what a job says while it works, and how it hears that it should stop."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import IO

from specdeepmap.core.errors import Canceled


class Progress:
    """Report to nobody; the base of all others.

    The share of the work done, 0 to 1, never goes backwards. Safe to call from several threads.
    """

    def __init__(self) -> None:
        self._share = 0.0
        self._stop = threading.Event()
        self._lock = threading.RLock()

    def report(self, share: float, text: str = "") -> None:
        """Report the share of the work done and, where it is new, what is being done."""
        with self._lock:
            self._share = min(max(share, self._share), 1.0)
            self._show(self._share, text)

    def info(self, text: str) -> None:
        """Tell the user something worth knowing."""

    def warning(self, text: str) -> None:
        """Tell the user about something that may be wrong."""

    def staged(self, path: Path) -> None:
        """Tell that an output is being written under this temporary name."""

    def cancel(self) -> None:
        """Ask the job to stop at its next ``check``."""
        self._stop.set()

    @property
    def canceled(self) -> bool:
        """Whether somebody asked the job to stop."""
        try:
            self.check()
        except Canceled:
            return True
        return False

    def check(self) -> None:
        """Stop here if somebody asked for it.

        Raises:
            Canceled: after ``cancel``.
        """
        if self._stop.is_set():
            raise Canceled("canceled")

    def part(self, start: float, end: float) -> Progress:
        """Give a progress whose 0 to 1 is a part of this one's."""
        return _Part(self, start, end)

    def _show(self, share: float, text: str) -> None:
        """Show a new share; the part that differs between kinds of progress."""


class _Part(Progress):
    """A stretch of another progress."""

    def __init__(self, whole: Progress, start: float, end: float) -> None:
        super().__init__()
        self._whole, self._start, self._end = whole, start, end
        self.info = whole.info  # type: ignore[method-assign]
        self.warning = whole.warning  # type: ignore[method-assign]
        self.staged = whole.staged  # type: ignore[method-assign]
        self.cancel = whole.cancel  # type: ignore[method-assign]
        self.check = whole.check  # type: ignore[method-assign]

    def _show(self, share: float, text: str) -> None:
        self._whole.report(self._start + share * (self._end - self._start), text)


class TextProgress(Progress):
    """Write lines for a person, each whole percent once."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__()
        self._stream = stream
        self._percent = -1

    def info(self, text: str) -> None:
        """Write the text."""
        self._write(text)

    def warning(self, text: str) -> None:
        """Write the text, marked as a warning."""
        self._write(f"Warning: {text}")

    def _show(self, share: float, text: str) -> None:
        percent = int(share * 100)
        if text or percent // 10 > self._percent // 10:
            self._write(f"{percent:3d} % {text}".rstrip())
        self._percent = max(percent, self._percent)

    def _write(self, text: str) -> None:
        with self._lock:
            self._stream.write(text + "\n")
            self._stream.flush()


class EventProgress(Progress):
    """Write one JSON object per line, for a parent process."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__()
        self._stream = stream
        self._sent = -1.0
        self.staged_paths: list[Path] = []

    def send(self, event: str, **values: object) -> None:
        """Send an event; a parent that is gone is no error here, the closed stdin will tell."""
        line = json.dumps({"event": event, **values}, ensure_ascii=True)
        with self._lock:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                self._stop.set()

    def info(self, text: str) -> None:
        """Send the text."""
        self.send("info", text=text)

    def warning(self, text: str) -> None:
        """Send the text as a warning."""
        self.send("warning", text=text)

    def staged(self, path: Path) -> None:
        """Send the name and keep it, for who cleans up."""
        self.staged_paths.append(path)
        self.send("staged", path=os.fspath(path))

    def _show(self, share: float, text: str) -> None:
        if text or share - self._sent >= 0.001 or share >= 1.0:
            self._sent = share
            self.send("progress", share=round(share, 4), text=text)
