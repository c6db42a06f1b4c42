# SPDX-License-Identifier: GPL-3.0-or-later
"""What the real dialogs do with results: named and styled layers, reports, tables, and the next step's dialog."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.desktop import CHIPS, NAMES, SHARES, SMALLEST, Chain
from tests.gui.test_dialogs import LEGEND, Outcome, create, wait

pytestmark = pytest.mark.gui

TEMPORARY = "TEMPORARY_OUTPUT"


@pytest.fixture(autouse=True)
def project(qgis: Any) -> Iterator[Any]:
    """An empty project, before and after."""
    from qgis.core import QgsProject

    QgsProject.instance().clear()
    yield QgsProject.instance()
    QgsProject.instance().clear()


@pytest.fixture(autouse=True)
def session(qgis: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """QGIS with its windows, where nothing was handed on yet."""
    from specdeepmap.algorithms import base

    monkeypatch.setattr(base, "iface", object())
    base.Algorithm.HANDOVER.forget()
    yield base.Algorithm.HANDOVER
    base.Algorithm.HANDOVER.forget()


@pytest.fixture
def dialog(qgis: Any) -> Iterator[Callable[[str], Any]]:
    """Open an algorithm's dialog; all are closed in the end."""
    from processing.gui.AlgorithmDialog import AlgorithmDialog

    opened = []

    def show(name: str) -> Any:
        opened.append(AlgorithmDialog(create(name)))
        opened[-1].show()
        return opened[-1]

    yield show
    for made in opened:
        made.close()
        made.deleteLater()


@pytest.fixture
def run(dialog: Callable[[str], Any]) -> Callable[..., Outcome]:
    """Run an algorithm through its dialog until it ends; the outcome knows the dialog."""

    def to_the_end(name: str, cancel: bool = False, **values: Any) -> Outcome:
        made = dialog(name)
        made.setParameters(values)
        outcome = Outcome(made)
        outcome.dialog = made  # type: ignore[attr-defined]
        made.runAlgorithm()
        if cancel:
            wait(lambda: made.cancelButton().isEnabled() or outcome.ended, 10)
            made.cancelButton().click()
        wait(lambda: outcome.ended, 90)
        return outcome

    return to_the_end


def offered(dialog: Any, parameter: str) -> str:
    """Give what stands in a field."""
    return str(dialog.mainWidget().wrappers[parameter].parameterValue() or "")


def cut(chain: Chain, folder: Path) -> dict[str, Any]:
    return {"IMAGE": str(chain.image), "LABELS": str(chain.labels), **CHIPS, "OUTPUT_FOLDER": str(folder)}


# Fields


@pytest.mark.parametrize("name", NAMES)
def test_the_mouse_on_a_field_or_its_label_shows_the_help(name: str, dialog: Callable[[str], Any]) -> None:
    made = dialog(name)
    for definition in made.algorithm().parameterDefinitions():
        wrapper = made.mainWidget().wrappers[definition.name()]
        widget = wrapper.wrappedWidget() or wrapper.widget
        label = wrapper.wrappedLabel() or getattr(wrapper, "label", None)
        shown = [widget, *([] if label is None else [label])]
        assert [part.toolTip() for part in shown if definition.help() not in part.toolTip()] == [], definition.name()
        assert label is not None or definition.type() == "boolean"  # a tick has its text beside it


@pytest.mark.parametrize("name", NAMES)
def test_advanced_parameters_are_folded(name: str, dialog: Callable[[str], Any]) -> None:
    from qgis.core import QgsProcessingParameterDefinition as Definition

    made = dialog(name)
    panel = made.mainWidget()
    for definition in made.algorithm().parameterDefinitions():
        if not definition.isDestination():
            wrapper = panel.wrappers[definition.name()]
            widget = wrapper.wrappedWidget() or wrapper.widget
            assert widget.isVisible() != bool(definition.flags() & Definition.Flag.FlagAdvanced), definition.name()


# From step to step


def test_chips_are_handed_to_the_dataset_maker_and_tables_to_trainer_and_tester(
    chain: Chain, run: Callable[..., Outcome], dialog: Callable[[str], Any], tmp_path: Path
) -> None:
    data = tmp_path / "my data ä"
    assert offered(dialog("datasetmaker"), "DATA_FOLDER") == ""
    assert run("rastersplitter", **cut(chain, data)).ok
    maker = dialog("datasetmaker")
    assert offered(maker, "DATA_FOLDER") == str(data)
    assert maker.createProcessingParameters()["DATA_FOLDER"] == str(data)
    assert offered(dialog("trainer"), "DATASET_FOLDER") == ""
    assert run("datasetmaker", DATA_FOLDER=str(data), **SHARES).ok
    assert offered(dialog("trainer"), "DATASET_FOLDER") == str(data)
    assert offered(dialog("tester"), "TEST_CSV") == str(data / "test_files.csv")
    assert offered(dialog("tester"), "CHECKPOINT") == ""
    (data / "test_files.csv").unlink()
    assert offered(dialog("tester"), "TEST_CSV") == "", "what is gone is not offered"


@pytest.mark.torch
def test_a_training_hands_on_its_model_and_logs_and_tells_each_epoch_once(
    chain: Chain, run: Callable[..., Outcome], dialog: Callable[[str], Any], tmp_path: Path
) -> None:
    from qgis.PyQt.QtWidgets import QLabel, QTextEdit

    chain.maker  # noqa: B018 - runs it
    folders = {"MODEL_FOLDER": str(tmp_path / "models"), "LOG_FOLDER": str(tmp_path / "logs")}
    made = dialog("trainer")
    made.setParameters({"DATASET_FOLDER": str(chain.data), **{**SMALLEST, "EPOCHS": 3}, **folders})
    outcome, label = Outcome(made), made.findChild(QLabel, "lblProgress")
    beside: set[str] = set()
    made.runAlgorithm()
    wait(lambda: beside.add(label.text()) or outcome.ended, 90)  # type: ignore[func-returns-value]
    log = made.findChild(QTextEdit, "txtLog").toPlainText()
    assert outcome.ok, log
    lines = re.findall(r"^Epoch (\d) of 3: .* left at most$", log, re.MULTILINE)
    assert lines == ["1", "2", "3"], "one line per epoch"
    assert any(re.fullmatch(r"Epoch \d of 3: .* left at most", text) for text in beside), "above the progress bar"
    best = outcome.results["BEST_CHECKPOINT"]
    assert offered(dialog("tester"), "CHECKPOINT") == offered(dialog("mapper"), "CHECKPOINT") == best
    assert offered(dialog("tensorboard"), "LOG_FOLDER") == str(tmp_path / "logs")


def test_a_run_that_fails_or_is_canceled_changes_nothing(
    chain: Chain, run: Callable[..., Outcome], dialog: Callable[[str], Any], tmp_path: Path
) -> None:
    assert run("rastersplitter", **cut(chain, tmp_path / "first")).ok
    (tmp_path / "taken").write_text("a file")
    assert not run("rastersplitter", **cut(chain, tmp_path / "taken" / "second")).ok
    assert offered(dialog("datasetmaker"), "DATA_FOLDER") == str(tmp_path / "first")
    large = {**cut(chain, tmp_path / "third"), "TILE_SIZE_X": 8, "TILE_SIZE_Y": 8, "STEP_X": 1, "STEP_Y": 1}
    assert not run("rastersplitter", cancel=True, **large).ok
    assert offered(dialog("datasetmaker"), "DATA_FOLDER") == str(tmp_path / "first")


def test_only_dialogs_are_prefilled(
    chain: Chain, run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import processing
    from processing.gui.BatchAlgorithmDialog import BatchAlgorithmDialog
    from processing.modeler.ModelerParametersDialog import ModelerParametersDialog
    from qgis.core import QgsProcessingException, QgsProcessingModelAlgorithm

    data = tmp_path / "data"
    assert run("rastersplitter", **cut(chain, data)).ok
    algorithm = create("datasetmaker")
    assert algorithm.parameterDefinition("DATA_FOLDER").defaultValue() is None
    with pytest.raises(QgsProcessingException, match="DATA_FOLDER"):
        processing.run("specdeepmap:datasetmaker", {})
    modeler = ModelerParametersDialog(create("datasetmaker"), QgsProcessingModelAlgorithm())
    assert not modeler.widget.widget.wrappers["DATA_FOLDER"].value().staticValue()
    modeler.close()
    batch = BatchAlgorithmDialog(create("datasetmaker"))
    assert batch.mainWidget().wrappers[0][0].parameterValue() == str(data)
    batch.close()


def test_without_windows_nothing_is_kept(
    chain: Chain, session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import processing

    from specdeepmap.algorithms import base

    monkeypatch.setattr(base, "iface", None)
    processing.run("specdeepmap:rastersplitter", cut(chain, tmp_path / "data"))
    algorithm = create("datasetmaker")
    assert algorithm.parameterDefinition("DATA_FOLDER").defaultValueForGui() is None


# Reports, layers, tables


def test_a_report_is_listed_in_the_results_viewer_and_its_links_work(
    chain: Chain, run: Callable[..., Outcome], tmp_path: Path
) -> None:
    from processing.core.ProcessingResults import resultsList

    data = tmp_path / "data"
    assert run("rastersplitter", **cut(chain, data)).ok
    known = len(resultsList.getResults())
    assert run("datasetmaker", DATA_FOLDER=str(data), **SHARES).ok
    (added,) = resultsList.getResults()[known:]
    assert Path(added.filename) == data / "dataset_report.html"
    links = re.findall(r'href="([^"]+)"', Path(added.filename).read_text(encoding="utf-8"))
    assert {"train_files.csv", "Summary_train_val.csv", "Normalize_Bands.csv"} <= set(links)
    assert [link for link in links if not (data / link).is_file()] == []


@pytest.mark.torch
def test_all_layers_of_a_map_are_named_styled_and_in_order(
    chain: Chain, run: Callable[..., Outcome], project: Any
) -> None:
    given = {"IMAGE": str(chain.image), "CHECKPOINT": str(chain.checkpoint), "GROUND_TRUTH": str(chain.labels)}
    wanted = ("OUTPUT", "CONFIDENCE", "PROBABILITIES", "MARGIN", "ENTROPY", "VECTOR", "ERROR_MAP", "SCORES_CSV")
    targets = dict.fromkeys((*wanted, "CONFUSION_CSV"), TEMPORARY)
    outcome = run("mapper", **given, **targets, DEVICE="cpu", LOAD_TABLES=True)
    assert outcome.ok, outcome.dialog.feedback.textLog()  # type: ignore[attr-defined]
    tree = [node.layer() for node in project.layerTreeRoot().findLayers()]
    order = [layer.name().removesuffix(f" of {chain.image.stem}") for layer in tree]
    measures = ["Confidence", "Probabilities", "Margin", "Entropy"]
    assert order[:7] == ["Map", "Polygons", *measures, "Error map"]
    assert set(order[7:]) == {"Score table", "Confusion matrix"}
    layers = dict(zip(order, tree, strict=True))
    shown = [(entry.value, entry.label, entry.color.name()) for entry in layers["Map"].renderer().classes()]
    assert shown == LEGEND
    errors = [(entry.value, entry.label) for entry in layers["Error map"].renderer().classes()]
    assert errors == [(1, "agrees"), (2, "disagrees")]
    for name in measures:
        renderer, highest = layers[name].renderer(), math.log(len(LEGEND)) if name == "Entropy" else 1.0
        assert renderer.type() == "singlebandpseudocolor"
        assert (renderer.classificationMin(), renderer.classificationMax()) == (0.0, pytest.approx(highest))
        assert layers[name].dataProvider().sourceHasNoDataValue(1)
    assert {layers["Score table"].fields().field(name).typeName() for name in ("IoU", "F1")} == {"double"}


def test_the_image_is_not_taken_for_its_own_labels(chain: Chain, qgis: Any) -> None:
    """As QGIS fills in a fresh dialog: the active layer, in both fields."""
    from qgis.core import QgsApplication, QgsProcessingContext

    algorithm = QgsApplication.processingRegistry().createAlgorithmById("specdeepmap:rastersplitter")
    values = {"IMAGE": str(chain.image), "LABELS": str(chain.image), "OUTPUT_FOLDER": "TEMPORARY_OUTPUT"}
    ok, text = algorithm.checkParameterValues(values, QgsProcessingContext())
    assert not ok and "IMAGE and LABELS are both" in text
    ok, text = algorithm.checkParameterValues({**values, "LABELS": str(chain.labels)}, QgsProcessingContext())
    assert ok, text
