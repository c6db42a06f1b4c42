# SPDX-License-Identifier: GPL-3.0-or-later
"""While a network trains, QGIS answers at once: how late its event loop serves a timer of 10 ms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.desktop import SMALLEST, Chain
from tests.eventloop import Lateness, Outcome, percentile, run_until

pytestmark = [pytest.mark.gui, pytest.mark.torch]

GOAL_SECONDS = 0.1
EPOCHS = 40


def lateness_of_idling(seconds: float) -> list[float]:
    lateness = Lateness()
    run_until(lambda: False, seconds)
    return lateness.stop()


def test_the_event_loop_is_never_late_while_a_network_trains(chain: Chain, qgis: Any, tmp_path: Path) -> None:
    from processing.gui.AlgorithmDialog import AlgorithmDialog
    from qgis.core import QgsApplication

    chain.maker  # noqa: B018 - runs it
    registry = QgsApplication.processingRegistry()
    dialog = AlgorithmDialog(registry.createAlgorithmById("specdeepmap:trainer"))
    dialog.show()
    folders = {"MODEL_FOLDER": str(tmp_path / "models"), "LOG_FOLDER": str(tmp_path / "logs")}
    long = {**SMALLEST, "EPOCHS": EPOCHS, "EARLY_STOPPING": False}
    dialog.setParameters({"DATASET_FOLDER": str(chain.data), **long, **folders})
    try:
        idle = lateness_of_idling(3)
        outcome, lateness = Outcome(dialog), Lateness()
        dialog.runAlgorithm()
        feedback = dialog.feedback  # the dialog forgets it in the end
        assert run_until(lambda: outcome.ended, 240)
        busy = lateness.stop()
        assert outcome.ok, feedback.textLog()
        assert f"Epoch {EPOCHS} of {EPOCHS}" in feedback.textLog()
    finally:
        dialog.close()
        dialog.deleteLater()
    idle += lateness_of_idling(3)
    # Where others keep the machine busy, an idle QGIS is late, too; the tests' own machine has few cores.
    assert percentile(busy, 99) < max(GOAL_SECONDS, 3 * percentile(idle, 99)), max(busy)
