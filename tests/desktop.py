# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests with QGIS need: one application per session, ``qgis_process``, and the data of one whole chain.

QGIS's user data lie in a folder that goes with the session; the user's own profile is never read or written.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from specdeepmap.core.data.scene import make_scene

ROOT = Path(__file__).resolve().parents[1]
QGIS_PROCESS = ROOT / "tools" / "qgis_process"
QGIS_PLUGINS = "/usr/share/qgis/python/plugins"

NAMES = ("rastersplitter", "datasetmaker", "trainer", "tensorboard", "tester", "mapper")
"""The algorithms' ids without the provider's, in the order of work."""

CHIPS = {"TILE_SIZE_X": 32, "TILE_SIZE_Y": 32, "STEP_X": 32, "STEP_Y": 32, "MIN_LABEL_COVERAGE": 0}
SHARES = {"TRAIN_PERCENT": 60, "VALIDATION_PERCENT": 20, "TEST_PERCENT": 20}
SMALLEST = {"EPOCHS": 1, "BATCH_SIZE": 4, "BACKBONE": "mobilenet_v2", "NUM_WORKERS": 0, "DEVICE": "cpu"}
"""Settings with which the chain takes seconds."""


@functools.cache
def session_folder() -> Path:
    """Make the folder of this test run, with a space and a letter beyond ASCII in its path."""
    folder = Path(tempfile.mkdtemp(prefix="specdeepmap tests ä-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def start_qgis() -> Any:
    """Start QGIS in this process, with Processing and our provider.

    Returns:
        The application and the plugin.
    """
    profile = session_folder() / "profile"
    profile.mkdir()
    os.environ["QGIS_CUSTOM_CONFIG_PATH"] = str(profile)
    os.environ["XDG_CONFIG_HOME"] = str(profile)  # where EnMAP-Box's settings lie, too
    os.environ.setdefault("SPECDEEPMAP_PYTHON", str(ROOT / ".venv" / "bin" / "python"))
    from qgis.core import QgsApplication
    from qgis.PyQt.QtCore import QCoreApplication, QSettings

    QSettings.setPath(QSettings.Format.NativeFormat, QSettings.Scope.UserScope, str(profile))
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(profile))
    application = QgsApplication([], True, str(profile))
    QCoreApplication.setOrganizationName("QGIS")
    QCoreApplication.setApplicationName("QGIS3")
    application.initQgis()
    if QGIS_PLUGINS not in sys.path:
        sys.path.append(QGIS_PLUGINS)
    from processing.core.Processing import Processing

    from specdeepmap.plugin import SpecDeepMapPlugin

    Processing.initialize()
    plugin = SpecDeepMapPlugin(None)
    plugin.initProcessing()
    return application, plugin


def environ(folder: Path, **changes: str) -> dict[str, str]:
    """Give the environment of a ``qgis_process`` whose profile and temporary files lie in a folder."""
    temporary = folder / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    own = {
        "QT_QPA_PLATFORM": "offscreen",
        "QGIS_CUSTOM_CONFIG_PATH": str(folder / "profile"),
        "XDG_RUNTIME_DIR": str(folder / "runtime"),
        "TMPDIR": str(temporary),
    }
    return {**os.environ, **own, **changes}


def command(algorithm: str, parameters: Mapping[str, Any], *options: str) -> list[str]:
    """Give the command line of one run."""
    values = [
        f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in parameters.items()
    ]
    return [str(QGIS_PROCESS), *options, "run", f"specdeepmap:{algorithm}", "--", *values]


def run(algorithm: str, folder: Path | None = None, **parameters: Any) -> subprocess.CompletedProcess[str]:
    """Run an algorithm in a ``qgis_process`` of its own; ``folder`` holds its profile."""
    return subprocess.run(
        command(algorithm, parameters),
        env=environ(folder or session_folder() / "process"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_json(algorithm: str, **parameters: Any) -> dict[str, Any]:
    """Run an algorithm with ``--json`` and give what its standard output says."""
    done = subprocess.run(
        command(algorithm, parameters, "--json"),
        env=environ(session_folder() / "process"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{algorithm} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


class Chain:
    """The six steps on a tiny scene, each run when first asked for, through ``qgis_process``."""

    @cached_property
    def scene(self) -> tuple[Path, Path]:
        """Image and labels."""
        return make_scene(session_folder() / "chain" / "scene", size=96)

    @property
    def image(self) -> Path:
        return self.scene[0]

    @property
    def labels(self) -> Path:
        return self.scene[1]

    @property
    def data(self) -> Path:
        """The dataset folder."""
        return session_folder() / "chain" / "data set"

    @cached_property
    def splitter(self) -> dict[str, Any]:
        given = {"IMAGE": self.image, "LABELS": self.labels, **CHIPS, "OUTPUT_FOLDER": self.data}
        return run_json("rastersplitter", **given)

    @cached_property
    def maker(self) -> dict[str, Any]:
        self.splitter  # noqa: B018 - runs it
        return run_json("datasetmaker", DATA_FOLDER=self.data, **SHARES)

    @cached_property
    def trainer(self) -> dict[str, Any]:
        self.maker  # noqa: B018
        return run_json("trainer", DATASET_FOLDER=self.data, **SMALLEST)

    @property
    def checkpoint(self) -> Path:
        return Path(self.trainer["results"]["BEST_CHECKPOINT"])

    @cached_property
    def tester(self) -> dict[str, Any]:
        given = {"TEST_CSV": self.data / "test_files.csv", "CHECKPOINT": self.checkpoint, "DEVICE": "cpu"}
        folder = session_folder() / "chain" / "scores"
        return run_json("tester", **given, SCORES_CSV=folder / "scores.csv", PREDICTION_FOLDER=folder / "predictions")

    @cached_property
    def mapper(self) -> dict[str, Any]:
        folder = session_folder() / "chain" / "map"
        return run_json(
            "mapper",
            IMAGE=self.image,
            CHECKPOINT=self.checkpoint,
            GROUND_TRUTH=self.labels,
            DEVICE="cpu",
            OUTPUT=folder / "map.tif",
            CONFIDENCE=folder / "confidence.tif",
            VECTOR=folder / "polygons.gpkg",
            SCORES_CSV=folder / "scores.csv",
        )


@functools.cache
def chain() -> Chain:
    """Give the chain of this test run."""
    return Chain()
