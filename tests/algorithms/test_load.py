# SPDX-License-Identifier: GPL-3.0-or-later
"""Loading the plugin is quick and drags nothing heavy into QGIS; each test asks a fresh Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.desktop import NAMES, QGIS_PLUGINS, ROOT, environ

HEAVY = ("torch", "torchvision", "lightning", "timm", "segmentation_models_pytorch", "tensorboard", "pandas")

START = f"""
import json, sys, time
sys.path[:0] = [{str(ROOT)!r}]
sys.path.append({QGIS_PLUGINS!r})
from qgis.core import QgsApplication, QgsProcessingModelAlgorithm
application = QgsApplication([], True)
application.initQgis()
from processing.core.Processing import Processing
Processing.initialize()
"""

LOAD = """
began = time.process_time()  # what else the machine does is left out
from specdeepmap.plugin import SpecDeepMapPlugin
plugin = SpecDeepMapPlugin(None)
plugin.initProcessing()
seconds = time.process_time() - began
"""

DIALOGS = f"""
from processing.gui.AlgorithmDialog import AlgorithmDialog
from processing.gui.BatchAlgorithmDialog import BatchAlgorithmDialog
from processing.modeler.ModelerParametersDialog import ModelerParametersDialog
registry = QgsApplication.processingRegistry()
kept = []
for name in {NAMES!r}:
    algorithm = registry.createAlgorithmById(f"specdeepmap:{{name}}")
    kept += [AlgorithmDialog(algorithm), BatchAlgorithmDialog(algorithm.create())]
    kept += [ModelerParametersDialog(algorithm.create(), QgsProcessingModelAlgorithm())]
"""

TELL = """
print(json.dumps({"seconds": seconds, "modules": sorted(sys.modules)}))
sys.stdout.flush()
import os
os._exit(0)
"""


def ask(tmp_path: Path, *parts: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", "".join((START, *parts, TELL))],
        env=environ(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("parts", [(LOAD,), (LOAD, DIALOGS)], ids=["plugin", "dialogs"])
def test_nothing_heavy_is_imported(parts: tuple[str, ...], tmp_path: Path) -> None:
    modules = ask(tmp_path, *parts)["modules"]
    assert "specdeepmap.provider" in modules
    assert [name for name in HEAVY if name in modules] == []


def test_the_plugin_loads_within_three_tenths_of_a_second(tmp_path: Path) -> None:
    assert min(float(str(ask(tmp_path, LOAD)["seconds"])) for _ in range(3)) < 0.3
