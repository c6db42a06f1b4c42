# SPDX-License-Identifier: GPL-3.0-or-later
"""A long day in QGIS: the small jobs that are run one after another, and what they must not pile up."""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.desktop import CHIPS, SHARES, SMALLEST, Chain
from tests.eventloop import Outcome, run_until
from tests.processes import descendants

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Footprint:
    """What this process holds at a moment: memory, and counts of things that have to be given back."""

    megabytes: float
    files: int
    threads: int
    children: int
    temporary: int

    @classmethod
    def taken(cls, temporary: Path) -> Footprint:
        """Look, after all that can go has gone: Qt's deferred deletions, Python's garbage, malloc's free pages."""
        from qgis.PyQt.QtCore import QCoreApplication, QEvent

        run_until(lambda: False, 0.2)
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        own = Path("/proc/self")
        resident = next(line for line in (own / "status").read_text().splitlines() if line.startswith("VmRSS:"))
        return cls(
            megabytes=int(resident.split()[1]) / 1024,
            files=len(list((own / "fd").iterdir())),
            threads=len(list((own / "task").iterdir())),
            children=len(descendants(os.getpid())),
            temporary=sum(1 for _ in temporary.rglob("*")),
        )


@dataclass(frozen=True)
class Work:
    """The jobs of one round, on the data of the chain; what they write goes to a folder that stays the same."""

    chain: Chain
    folder: Path

    def round(self) -> Iterator[Callable[[], None]]:
        """Give ten jobs: some end well, some fail, some are canceled; through scripts and through dialogs."""
        chain, out = self.chain, self.folder
        shutil.rmtree(out / "models", ignore_errors=True)  # a training does not write over another
        split = {"IMAGE": str(chain.image), "LABELS": str(chain.labels), **CHIPS, "OUTPUT_FOLDER": str(out / "data")}
        prepare = {"DATA_FOLDER": str(out / "data"), **SHARES}
        test = {
            "TEST_CSV": str(chain.data / "test_files.csv"),
            "CHECKPOINT": str(chain.checkpoint),
            "DEVICE": "cpu",
            "SCORES_CSV": str(out / "scores.csv"),
        }
        map_ = {
            "IMAGE": str(chain.image),
            "CHECKPOINT": str(chain.checkpoint),
            "DEVICE": "cpu",
            "OUTPUT": str(out / "map.tif"),
        }
        train = {"DATASET_FOLDER": str(chain.data), **SMALLEST, "EPOCHS": 5000, "EARLY_STOPPING": False}
        places = {"LOG_FOLDER": str(out / "logs"), "MODEL_FOLDER": str(out / "models")}
        yield lambda: in_script("rastersplitter", split)
        yield lambda: in_script("datasetmaker", prepare)
        yield lambda: failing("datasetmaker", {**prepare, "TRAIN_PERCENT": 100}, "add up to")
        yield lambda: failing(
            "rastersplitter", {**split, "TILE_SIZE_X": 4096, "MIN_LABEL_COVERAGE": 100}, "no chip reaches it"
        )
        yield lambda: canceled_in_script("rastersplitter", split)
        yield lambda: in_dialog("rastersplitter", split)
        yield lambda: in_script("tester", test)
        yield lambda: in_dialog("mapper", map_)
        yield lambda: failing("mapper", {**map_, "IMAGE": str(chain.labels)}, "band")
        yield lambda: canceled_in_dialog("trainer", {**train, **places})


def in_script(name: str, values: Values) -> None:
    """Run to a good end, as a script does."""
    import processing

    processing.run(f"specdeepmap:{name}", dict(values))


def failing(name: str, values: Values, reason: str) -> None:
    """Run to a bad end, of which the message tells."""
    from qgis.core import QgsProcessingException

    try:
        in_script(name, values)
    except QgsProcessingException as error:
        assert reason in str(error), error
    else:
        raise AssertionError(f"{name} did not fail")


def canceled_in_script(name: str, values: Values) -> None:
    """Cancel at the first sign of progress."""
    import processing
    from qgis.core import QgsProcessingException, QgsProcessingFeedback

    feedback = QgsProcessingFeedback()
    feedback.progressChanged.connect(lambda _: feedback.cancel())
    try:
        processing.run(f"specdeepmap:{name}", dict(values), feedback=feedback)
    except QgsProcessingException as error:
        assert str(error) == "Canceled.", error
    else:
        raise AssertionError(f"{name} was not canceled")


def in_dialog(name: str, values: Values) -> None:
    """Run to a good end in the dialog; layers go to the project, and out of it."""
    from qgis.core import QgsProject

    dialog = _open(name, values)
    outcome = Outcome(dialog)
    dialog.runAlgorithm()
    feedback = dialog.feedback
    assert run_until(lambda: outcome.ended, 120) and outcome.ok, feedback.textLog()
    _close(dialog)
    QgsProject.instance().clear()


def canceled_in_dialog(name: str, values: Values) -> None:
    """Press the dialog's cancel button when the first epoch is over."""
    dialog = _open(name, values)
    outcome = Outcome(dialog)
    dialog.runAlgorithm()
    feedback = dialog.feedback
    assert run_until(lambda: "Epoch 1 of" in feedback.textLog() or outcome.ended, 120)
    assert not outcome.ended, feedback.textLog()
    dialog.cancelButton().click()
    assert run_until(lambda: outcome.ended, 10) and not outcome.ok
    _close(dialog)


def _open(name: str, values: Values) -> Any:
    from processing.gui.AlgorithmDialog import AlgorithmDialog
    from qgis.core import QgsApplication

    dialog = AlgorithmDialog(QgsApplication.processingRegistry().createAlgorithmById(f"specdeepmap:{name}"))
    dialog.show()
    dialog.setParameters(dict(values))
    return dialog


def _close(dialog: Any) -> None:
    dialog.close()
    dialog.deleteLater()
