# SPDX-License-Identifier: GPL-3.0-or-later
"""How late QGIS's event loop is while a network trains, beside idling: ``make bench-latency``.

The trainer runs from its real dialog on a tiny scene. A timer of 10 ms in QGIS's event loop measures by how many
milliseconds each tick comes too late; the limit is the same timer with QGIS idle, before the training. It needs a
display, for example of ``xvfb-run``.

- ``latency-p50``, ``latency-p99``, ``latency-max``: of all ticks, from the click on Run to the end of the training;
  ticks that a busy loop swallowed count, too.
- ``latency-goal``: the 99th percentile against 100 ms, below which an answer feels immediate.
- ``latency-share``: the share of ticks that were less than 100 ms late.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from table import Row, show  # noqa: E402

from tests import desktop  # noqa: E402
from tests.eventloop import Lateness, Outcome, percentile, run_until  # noqa: E402

GOAL_SECONDS = 0.1
IDLE_SECONDS = 10


def main() -> None:
    """Measure both and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=200)
    options = parser.parse_args()
    desktop.chain().maker  # noqa: B018 - makes the dataset
    desktop.start_qgis()
    with tempfile.TemporaryDirectory(prefix="specdeepmap-bench-") as name:
        idle, busy = measure(Path(name), options.epochs)
    show([*compare(idle, busy)], "latency")


def measure(folder: Path, epochs: int) -> tuple[list[float], list[float]]:
    """Give the lateness in seconds of every tick, idle and during a training."""
    dialog = open_trainer(folder, epochs)
    run_until(lambda: False, 1)  # until it is drawn
    lateness = Lateness()
    run_until(lambda: False, IDLE_SECONDS)
    idle = lateness.stop()
    outcome, lateness = Outcome(dialog), Lateness()
    dialog.runAlgorithm()
    feedback = dialog.feedback
    ended = run_until(lambda: outcome.ended, 60 + 10 * epochs)
    busy = lateness.stop()
    if not ended or not outcome.ok:
        raise RuntimeError(f"The training did not end well:\n{feedback.textLog()}")
    dialog.close()
    return idle, busy


def open_trainer(folder: Path, epochs: int) -> Any:
    """Open the trainer's dialog, filled in."""
    from processing.gui.AlgorithmDialog import AlgorithmDialog
    from qgis.core import QgsApplication

    dialog = AlgorithmDialog(QgsApplication.processingRegistry().createAlgorithmById("specdeepmap:trainer"))
    dialog.show()
    small = {**desktop.SMALLEST, "EPOCHS": epochs, "EARLY_STOPPING": False}
    folders = {"MODEL_FOLDER": str(folder / "models"), "LOG_FOLDER": str(folder / "logs")}
    dialog.setParameters({"DATASET_FOLDER": str(desktop.chain().data), **small, **folders})
    return dialog


def compare(idle: list[float], busy: list[float]) -> list[Row]:
    """Make the rows; a training may be late by some milliseconds where idling is late by hardly any."""
    rows = [
        Row.cost(f"latency-p{percent}", 1000 * percentile(busy, percent), 1000 * percentile(idle, percent), "ms", 0.0)
        for percent in (50, 99)
    ]
    rows.append(Row.cost("latency-max", 1000 * max(busy), 1000 * max(idle), "ms", 0.0))
    rows.append(Row.cost("latency-goal", 1000 * percentile(busy, 99), 1000 * GOAL_SECONDS, "ms", 1.0))
    timely = [100 * sum(late < GOAL_SECONDS for late in ticks) / len(ticks) for ticks in (busy, idle)]
    rows.append(Row.rate("latency-share", *timely, "% on time", 0.99))
    return rows


if __name__ == "__main__":
    main()
