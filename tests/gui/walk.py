# SPDX-License-Identifier: GPL-3.0-or-later
"""Walk through QGIS desktop as a user does, from the Raster Splitter's dialog to the styled map.

Runs inside QGIS (``qgis --code``), started by ``tests/walking.py``. What was seen is written as JSON; on request,
pictures are taken on the way.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qgis.core import Qgis, QgsApplication, QgsContrastEnhancement, QgsProject, QgsRasterLayer, QgsRasterMinMaxOrigin
from qgis.PyQt.QtCore import QTimer
from qgis.PyQt.QtWidgets import QDockWidget, QWidget
from qgis.utils import iface

from tests.gui.guide import Condition, Guide, Steps, at_rest
from tests.gui.sights import (
    algorithm_dialog,
    algorithm_index,
    fit,
    indices,
    layer_facts,
    loaded,
    log_of,
    other_dialog,
    plain,
    plugin_action,
    provider_index,
    seconds_at_start,
)

TITLES = {
    "rastersplitter": "Raster Splitter",
    "datasetmaker": "Dataset Maker",
    "trainer": "Deep Learning Trainer",
    "tensorboard": "TensorBoard Launcher",
    "tester": "Deep Learning Tester",
    "mapper": "Deep Learning Mapper",
}
"""The algorithms by id, and what the user types into the toolbox's search box; in the order of work."""

HEAVY = ("torch", "lightning", "pandas", "segmentation_models_pytorch", "timm")
"""Modules that must not be loaded into QGIS."""

PYTHON = "Loading Python support"
"""What QGIS's profiler calls the start of its Python."""

WINDOW, WIDE_WINDOW = (1280, 800), (1440, 900)
DIALOG = (960, 520, 1100)
"""Width, least and largest height of a dialog in a picture."""

TRUE_COLOR = {"setRedBand": 4, "setGreenBand": 3, "setBlueBand": 2}


@dataclass(frozen=True)
class Plan:
    """What the walk is to do.

    Attributes:
        image: the scene.
        labels: its labels.
        folder: where the results go.
        found: where to write what was seen.
        seconds: after that, the walk gives up.
        tile: edge of a chip in pixels.
        training: what the user chooses in the trainer's dialog.
        device: where to compute.
        pictures: where to write pictures; None for none.
    """

    image: str
    labels: str
    folder: str
    found: str
    seconds: float
    tile: int
    training: dict[str, Any]
    device: str = "auto"
    pictures: str | None = None


class Walk:
    """The steps, and what was seen on the way.

    Args:
        plan: what to do.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.steps_seen: dict[str, dict[str, Any]] = {}
        self.found: dict[str, Any] = {"steps": self.steps_seen, "messages": []}
        self.layers: dict[str, QgsRasterLayer] = {}
        self.toolbox: Any = None
        QgsApplication.messageLog().messageReceived.connect(self._note)

    def steps(self) -> Steps:
        """Go all the way."""
        self.found["start_seconds"] = {what: seconds_at_start(what) for what in ("specdeepmap", PYTHON)}
        yield from self._arrive()
        yield from self._look_around()
        yield from self._load_scene()
        results: dict[str, Any] = {}
        for name in TITLES:
            yield from self._run(name, self._values(name, results))
            results |= self.steps_seen[name]["results"]
            if name == "tensorboard":
                yield from self._page(
                    "tensorboard", f"{results['URL']}#scalars&tagFilter=loss%7Cmean%20IoU", height=900
                )
        self.found["heavy_at_end"] = loaded(HEAVY)
        yield from self._look_at_map()
        for name, step in (("dataset", "datasetmaker"), ("training", "trainer"), ("test", "tester")):
            yield from self._page(f"report_{name}", Path(self.steps_seen[step]["results"]["REPORT"]).as_uri())

    def end(self, error: str | None) -> None:
        """Write down what was seen."""
        dialog = algorithm_dialog()
        self.found |= {"error": error, "open_log": None if dialog is None else log_of(dialog)}
        Path(self.plan.found).write_text(json.dumps(self.found, indent=1), encoding="utf-8")

    def _values(self, name: str, results: dict[str, Any]) -> dict[str, Any]:
        """Give what the user fills in, with what the steps before came to."""
        folder = Path(self.plan.folder)
        image, device = {"IMAGE": self.layers["image"].id()}, {"DEVICE": self.plan.device}
        if name == "rastersplitter":
            sides = dict.fromkeys(("TILE_SIZE_X", "TILE_SIZE_Y", "STEP_X", "STEP_Y"), self.plan.tile)
            return {**image, "LABELS": self.layers["labels"].id(), **sides, "OUTPUT_FOLDER": str(folder / "dataset")}
        if name == "datasetmaker":
            shares = {"TRAIN_PERCENT": 60, "VALIDATION_PERCENT": 20, "TEST_PERCENT": 20}
            return {"DATA_FOLDER": results["OUTPUT_FOLDER"], **shares}
        if name == "trainer":
            places = {"MODEL_FOLDER": str(folder / "models"), "LOG_FOLDER": str(folder / "logs")}
            return {"DATASET_FOLDER": results["OUTPUT_FOLDER"], **self.plan.training, **device, **places}
        if name == "tensorboard":
            return {"LOG_FOLDER": results["LOG_FOLDER"]}
        checkpoint = {"CHECKPOINT": results["BEST_CHECKPOINT"]}
        if name == "tester":
            return {"TEST_CSV": results["TEST_CSV"], **checkpoint, **device, "SCORES_CSV": str(folder / "scores.csv")}
        maps = {"OUTPUT": "map.tif", "CONFIDENCE": "confidence.tif", "VECTOR": "map.gpkg"}
        return {**image, **checkpoint, **device, **{key: str(folder / file) for key, file in maps.items()}}

    # Looking around before the work

    def _arrive(self) -> Steps:
        """Make the window as large as the pictures, with the toolbox in it."""
        window = iface.mainWindow()
        window.showNormal()
        window.resize(*WIDE_WINDOW)
        self.toolbox = window.findChild(QDockWidget, "ProcessingToolbox")
        self.toolbox.show()
        yield at_rest()

    def _look_around(self) -> Steps:
        """Open each dialog once, the one of the environment first, which takes a while, and look at the toolbox."""
        action = plugin_action("environment")
        if action is None:
            raise RuntimeError("QGIS's menu of plugins has no entry for the environment.")
        action.trigger()
        environment = other_dialog()
        for name in TITLES:
            yield from self._open(name)
            algorithm_dialog(name).close()
            yield lambda: algorithm_dialog() is None
        self.found["heavy_after_dialogs"] = loaded(HEAVY)
        yield lambda: not environment.process.works
        if environment.status is None:
            raise RuntimeError(f"The environment was not looked at: {environment.log.toPlainText()}")
        self.found["environment"] = environment.status
        environment.resize(DIALOG[0], 660)
        yield from self._picture("environment", environment)
        environment.close()
        yield from self._look_at_toolbox()

    def _look_at_toolbox(self) -> Steps:
        """Unfold our part of the toolbox."""
        tree = self.toolbox.algorithmTree
        self.toolbox.searchBox.setText("")
        tree.collapseAll()
        top = provider_index(tree)
        if top is None:
            raise RuntimeError("The toolbox does not show SpecDeepMap.")
        tree.expandRecursively(top)
        tree.setCurrentIndex(top)
        self.found["toolbox"] = [str(index.data()) for index in indices(tree.model(), top)]
        yield from self._picture("toolbox", self.toolbox)

    def _load_scene(self) -> Steps:
        """Load image and labels."""
        for kind, path in (("image", self.plan.image), ("labels", self.plan.labels)):
            self.layers[kind] = QgsRasterLayer(path, Path(path).stem)
            QgsProject.instance().addMapLayer(self.layers[kind])
        for setter, band in TRUE_COLOR.items():
            getattr(self.layers["image"].renderer(), setter)(band)
        stretch = QgsContrastEnhancement.ContrastEnhancementAlgorithm.StretchToMinimumMaximum
        self.layers["image"].setContrastEnhancement(stretch, QgsRasterMinMaxOrigin.Limits.CumulativeCut)
        yield self._drawn()

    # One algorithm

    def _open(self, name: str) -> Steps:
        """Search for an algorithm in the toolbox and open its dialog."""
        tree = self.toolbox.algorithmTree
        self.toolbox.searchBox.setText(TITLES[name])
        yield lambda: algorithm_index(tree, name) is not None
        tree.setCurrentIndex(algorithm_index(tree, name))
        QTimer.singleShot(0, self.toolbox.executeAlgorithm)  # it returns when the dialog is closed
        yield lambda: algorithm_dialog(name) is not None

    def _run(self, name: str, given: dict[str, Any]) -> Steps:
        """Open a dialog, fill it in, run it and close it."""
        begun = time.monotonic()
        yield from self._open(name)
        dialog = algorithm_dialog(name)
        boxes = dialog.mainWidget().wrappers
        prefilled = {key: plain(box.parameterValue()) for key, box in boxes.items()}
        self.steps_seen[name] = seen = {"prefilled": prefilled, "given": given, "ok": False, "results": {}}
        dialog.setParameters({key: value for key, value in given.items() if prefilled[key] != value})
        yield from self._picture(f"dialog_{name}", dialog)
        if name == "tensorboard":
            dialog.setParameters({"OPEN_BROWSER": False})
        outcome: list[Any] = []
        dialog.algorithmFinished.connect(lambda ok, results: outcome.extend((ok, results)))
        dialog.runButton().click()
        yield lambda: outcome or _refused(dialog)
        yield at_rest()
        ok, results = outcome
        seen |= {"ok": ok, "results": {key: plain(value) for key, value in results.items()}, "log": log_of(dialog)}
        seen["seconds"] = round(time.monotonic() - begun, 1)
        if not ok:
            raise RuntimeError(f"{TITLES[name]} failed.")
        dialog.close()
        yield lambda: algorithm_dialog() is None

    # The map

    def _look_at_map(self) -> Steps:
        """Note all layers as they came; then look at the map, and at the confidence."""
        root = QgsProject.instance().layerTreeRoot()
        yield self._drawn()
        self.found["layers"] = [layer_facts(node) for node in root.findLayers()]
        if self.plan.pictures is None:
            return
        iface.mainWindow().resize(*WINDOW)
        for dock in iface.mainWindow().findChildren(QDockWidget):
            dock.setVisible(dock.objectName() == "Layers")
        for name in ("map", "confidence"):
            for node in root.findLayers():
                wanted = Path(node.layer().source()).name == f"{name}.tif"
                node.setItemVisibilityChecked(wanted)
                node.setExpanded(wanted)
            yield at_rest()
            iface.zoomFull()
            yield self._drawn()
            iface.messageBar().clearWidgets()
            yield from self._picture(name, iface.mainWindow())

    # Pictures and messages

    def _drawn(self) -> Condition:
        """Give the condition that the canvas has been drawn."""
        rest = at_rest(6)
        return lambda: rest() and not iface.mapCanvas().isDrawing()

    def _picture(self, name: str, widget: QWidget) -> Steps:
        """Take a picture of a widget, of a dialog in a readable size."""
        if self.plan.pictures is None:
            return
        yield at_rest(4)
        if hasattr(widget, "algorithm"):
            fit(widget, *DIALOG)
        yield at_rest(4)
        widget.grab().save(str(Path(self.plan.pictures) / f"{name}.png"))

    def _page(self, name: str, url: str, height: int = 8000) -> Steps:
        """Take a picture of a page as a browser shows it."""
        if self.plan.pictures is None:
            return
        path = Path(self.plan.pictures) / f"{name}.png"
        options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
        sized = ["--hide-scrollbars", f"--window-size={WINDOW[0]},{height}", "--virtual-time-budget=15000"]
        own = [f"--user-data-dir={self.plan.pictures}/.browser", f"--screenshot={path}"]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        browser = subprocess.Popen(["chromium", *options.split(), *sized, *own, url], **silent)
        yield lambda: browser.poll() is not None
        if not path.exists():
            raise RuntimeError(f"The browser took no picture of {url}.")

    def _note(self, text: str, tag: str, level: Any) -> None:
        """Note what QGIS's log panel shows as a warning or an error."""
        names = {Qgis.MessageLevel.Warning: "warning", Qgis.MessageLevel.Critical: "error"}
        if level in names:
            self.found["messages"].append([names[level], tag, text])


def _refused(dialog: Any) -> bool:
    """Raise where a dialog has refused to run, and says so in a bar of its own."""
    bar = dialog.messageBar().currentItem()
    if bar is not None:
        raise RuntimeError(f"The dialog says: {bar.text()}")
    return False


def start() -> Guide:
    """Start the walk that the environment names."""
    plan = Plan(**json.loads(Path(os.environ["SPECDEEPMAP_WALK"]).read_text(encoding="utf-8")))
    walk = Walk(plan)
    return Guide(walk.steps(), plan.seconds, walk.end)


guide = start()  # kept, since its timer ends with it
