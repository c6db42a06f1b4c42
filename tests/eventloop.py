# SPDX-License-Identifier: GPL-3.0-or-later
"""QGIS's event loop: let it run until something happens, and measure how late it serves a timer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

INTERVAL_SECONDS = 0.01


def run_until(condition: Callable[[], object], seconds: float) -> bool:
    """Let the event loop run until something holds; whether it did in time."""
    from qgis.PyQt.QtCore import QEventLoop, QTimer

    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        loop = QEventLoop()
        QTimer.singleShot(20, loop.quit)
        loop.exec()
    return True


def wait(condition: Callable[[], object], seconds: float) -> None:
    """Let the event loop run until something holds, which it must."""
    assert run_until(condition, seconds), "it did not happen in time"


class Outcome:
    """What the run of a Processing dialog came to."""

    def __init__(self, dialog: Any) -> None:
        self.ended, self.ok, self.results = False, False, {}
        dialog.algorithmFinished.connect(self._end)

    def _end(self, ok: bool, results: dict[str, Any]) -> None:
        self.ended, self.ok, self.results = True, ok, results


class Lateness:
    """A timer of 10 ms in the event loop: by how many seconds each of its ticks came too late.

    A loop that stands still for a second serves one tick, but a user may click at any time of that second. So the
    ticks that did not come are counted, too: one of 0.1 s stands for ten of 0.1 s, 0.09 s, ….
    """

    def __init__(self) -> None:
        from qgis.PyQt.QtCore import Qt, QTimer

        self.samples: list[float] = []
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(round(1000 * INTERVAL_SECONDS))
        self._timer.timeout.connect(self._tick)
        self._timer.start()

    def stop(self) -> list[float]:
        """Give the samples in seconds."""
        self._timer.stop()
        return self.samples

    def _tick(self) -> None:
        now = time.perf_counter()
        late, self._last = max(0.0, now - self._last - INTERVAL_SECONDS), now
        self.samples.append(late)
        self.samples += [late - missed * INTERVAL_SECONDS for missed in range(1, int(late / INTERVAL_SECONDS) + 1)]


def percentile(samples: Sequence[float], percent: float) -> float:
    """Give the smallest sample that so many percent do not exceed."""
    return sorted(samples)[max(0, math.ceil(len(samples) * percent / 100) - 1)]
