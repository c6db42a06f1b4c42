# SPDX-License-Identifier: GPL-3.0-or-later
"""A command of ``specdeepmap.core.environment`` in a process of its own, heard without waiting for it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from qgis.PyQt.QtCore import QObject, QProcess, QProcessEnvironment, QTimer, pyqtSignal

from specdeepmap.core import environment
from specdeepmap.core.environment import child_environ, own_python

_COMMANDS = Path(environment.__file__).parent
_GRACE_MS = 2500


class EnvironmentProcess(QObject):
    """Run one command at a time and pass on what it says; all on the main thread, nothing waits.

    Closing the command's standard input cancels it; the same happens when QGIS dies.
    """

    progressed = pyqtSignal(float, str)
    """Share done, 0 to 1, and what is being done where that is new."""
    said = pyqtSignal(str, bool)
    """A line, and whether it is a warning."""
    ended = pyqtSignal(object, str)
    """The result, or None with the reason; the reason is empty after a cancel."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._process: QProcess | None = None
        self._rest = b""
        self._result: Any = None
        self._error = ""
        self._canceled = False

    @property
    def works(self) -> bool:
        """Whether a command runs."""
        return self._process is not None

    def start(self, *arguments: str) -> None:
        """Run a command; its end is told by ``ended``."""
        python = own_python()
        if python is None:
            self.ended.emit(None, "QGIS's Python was not found beside QGIS.")
            return
        self._rest, self._result, self._error, self._canceled = b"", None, "", False
        process = QProcess(self)
        settings = QProcessEnvironment()
        for name, value in child_environ().items():
            settings.insert(name, value)
        process.setProcessEnvironment(settings)
        process.readyReadStandardOutput.connect(self._read)
        process.finished.connect(self._finish)
        process.errorOccurred.connect(self._fail)
        self._process = process
        process.start(str(python), ["-X", "utf8", "-u", str(_COMMANDS), *arguments, "--events"])

    def cancel(self) -> None:
        """Ask the command to stop, and make it after a while."""
        process = self._process
        if process is not None:
            self._canceled = True
            process.closeWriteChannel()
            patience = QTimer(process)  # goes with it
            patience.setSingleShot(True)
            patience.timeout.connect(process.kill)
            patience.start(_GRACE_MS)

    def stop(self) -> None:
        """Stop the command and wait for its end, and say no more: QGIS closes, or the plugin goes."""
        self.blockSignals(True)
        process = self._process
        if process is not None:
            process.closeWriteChannel()
            if not process.waitForFinished(_GRACE_MS):
                process.kill()
                process.waitForFinished(_GRACE_MS)

    def _read(self) -> None:
        if self._process is None:
            return
        *lines, self._rest = (self._rest + bytes(self._process.readAllStandardOutput())).split(b"\n")
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            self._hear(event)

    def _hear(self, event: dict[str, Any]) -> None:
        kind = event.get("event")
        if kind == "progress":
            self.progressed.emit(event["share"], event["text"])
        elif kind in ("info", "warning"):
            self.said.emit(event["text"], kind == "warning")
        elif kind == "result":
            self._result = event["values"]
        elif kind == "error":
            self._error = event["text"]
        elif kind == "canceled":
            self.said.emit(event["text"], False)

    def _fail(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart and self._process is not None:
            self._error = f"{self._process.program()} cannot be started: {self._process.errorString()}."
            self._finish(1)

    def _finish(self, code: int, *_: Any) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        died = process.exitStatus() == QProcess.ExitStatus.CrashExit
        canceled = (self._canceled and died) or code == 130
        if self._result is None and not self._error and not canceled:
            last = bytes(process.readAllStandardError()).decode(errors="replace").strip().splitlines()[-1:]
            how = "was ended from outside, or crashed; perhaps the memory did not suffice" if died else "failed"
            number = "signal" if died and os.name != "nt" else "exit code"
            self._error = f"The command {how} ({number} {code}). {last[0] if last else ''}".strip()
        process.deleteLater()
        self.ended.emit(self._result, self._error)
