# SPDX-License-Identifier: GPL-3.0-or-later
"""Lead a walk through QGIS from step to step, while QGIS's own event loops run."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from qgis.core import QgsApplication, QgsProject, QgsTask
from qgis.gui import QgsMessageViewer
from qgis.PyQt.QtCore import QObject, QTimer
from qgis.PyQt.QtWidgets import QApplication, QMessageBox, QTextEdit
from qgis.utils import iface

Condition = Callable[[], Any]
Steps = Iterator[Condition]
"""A way to go: each item is what to wait for before the next step. A step must not block: it would never end."""


class Guide(QObject):
    """A timer that takes the next step when it is time for it, and leaves QGIS in the end.

    Args:
        steps: the way.
        seconds: after that, the walk is given up.
        ended: told the traceback of what went wrong, or None.
    """

    def __init__(self, steps: Steps, seconds: float, ended: Callable[[str | None], None]) -> None:
        super().__init__()
        self._steps, self._ended = steps, ended
        self._condition: Condition = at_rest()
        self._deadline = time.monotonic() + seconds
        self._walking = True
        self._timer = QTimer(self)
        self._timer.setInterval(50)
        self._timer.timeout.connect(self._tick)
        self._timer.start()
        self._keeper = QTimer(self)
        self._keeper.setInterval(5000)
        self._keeper.timeout.connect(_keep_threads)
        self._keeper.start()

    def _tick(self) -> None:
        if not self._walking:
            self._leave()
            return
        try:
            _refuse_questions(QApplication.activeModalWidget())
            if time.monotonic() > self._deadline:
                raise TimeoutError(f"The walk took too long. It waited in {place(self._steps)}.")
            if self._condition():
                self._condition = next(self._steps)
        except StopIteration:
            self._end(None)
        except Exception:
            self._end(traceback.format_exc())

    def _end(self, error: str | None) -> None:
        self._walking = False
        self._ended(error)

    def _leave(self) -> None:
        """Close what is open, the innermost dialog first, then QGIS."""
        modal = QApplication.activeModalWidget()
        if modal is not None:
            modal.close()
            return
        self._timer.stop()
        self._keeper.stop()
        QgsProject.instance().setDirty(False)  # else QGIS asks whether to save
        iface.actionExit().trigger()


def _keep_threads() -> None:
    """Give the threads of QGIS's task manager something to do, in turn.

    One that was idle for 30 seconds ends, and is started again for the next task. When it ends for the second time, as
    QGIS closes, QGIS 3.40 crashes, whatever ran in it: its own algorithms do that, too.
    """
    silent = QgsTask.Flag.Hidden | QgsTask.Flag.Silent
    QgsApplication.taskManager().addTask(QgsTask.fromFunction("", lambda task: None, flags=silent))


def place(steps: Any) -> str:
    """Say in which line of which functions a walk waits."""
    lines = []
    while steps is not None and getattr(steps, "gi_frame", None) is not None:
        lines.append(f"{steps.gi_code.co_name}:{steps.gi_frame.f_lineno}")
        steps = steps.gi_yieldfrom
    return " > ".join(lines)


def _refuse_questions(modal: Any) -> None:
    """Raise where QGIS asks or complains: a walk that goes well is never asked."""
    if isinstance(modal, QMessageBox):
        raise RuntimeError(f"QGIS asks: {modal.text()}")
    if isinstance(modal, QgsMessageViewer):
        raise RuntimeError(f"QGIS says: {modal.findChild(QTextEdit).toPlainText()}")


def at_rest(ticks: int = 3) -> Condition:
    """Give a condition that holds after some turns of the event loop."""
    left = iter(range(ticks))
    return lambda: next(left, None) is None
