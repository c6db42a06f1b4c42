# SPDX-License-Identifier: GPL-3.0-or-later
"""The real Processing dialogs, as a user opens them: single, batch and modeler; runs in the background."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from specdeepmap.core.data.land import CLASSES
from specdeepmap.core.data.options import COMPRESSIONS, EDGES, MATCHES, PROBABILITY_FORMATS, SPLITS, Choice
from specdeepmap.core.learn.architectures import ARCHITECTURES, AUTO, USUAL_BACKBONES
from specdeepmap.core.learn.losses import LOSSES
from specdeepmap.core.learn.options import DEVICES, OPTIMIZERS, PRECISIONS, SCHEDULERS
from specdeepmap.core.learn.weights import WEIGHTS
from tests.desktop import CHIPS, NAMES, SMALLEST, Chain
from tests.eventloop import Outcome, wait

pytestmark = pytest.mark.gui

CHOICES = {
    ("rastersplitter", "EDGES"): EDGES,
    ("rastersplitter", "COMPRESSION"): COMPRESSIONS,
    ("datasetmaker", "SPLIT"): SPLITS,
    ("trainer", "ARCHITECTURE"): {AUTO: Choice("Automatic"), **ARCHITECTURES},
    ("trainer", "LOSS"): LOSSES,
    ("trainer", "PRETRAINED_WEIGHTS"): WEIGHTS,
    ("trainer", "DEVICE"): DEVICES,
    ("trainer", "OPTIMIZER"): OPTIMIZERS,
    ("trainer", "SCHEDULER"): SCHEDULERS,
    ("trainer", "PRECISION"): PRECISIONS,
    ("tester", "DEVICE"): DEVICES,
    ("tester", "PRECISION"): PRECISIONS,
    ("mapper", "DEVICE"): DEVICES,
    ("mapper", "PRECISION"): PRECISIONS,
    ("mapper", "MATCH_BANDS"): MATCHES,
    ("mapper", "PROBABILITY_FORMAT"): PROBABILITY_FORMATS,
}

LEGEND = [(entry.value, entry.name, entry.color) for entry in CLASSES.entries]


@pytest.fixture(autouse=True)
def project(qgis: Any) -> Iterator[Any]:
    """An empty project, before and after."""
    from qgis.core import QgsProject

    QgsProject.instance().clear()
    yield QgsProject.instance()
    QgsProject.instance().clear()


def create(name: str) -> Any:
    from qgis.core import QgsApplication

    return QgsApplication.processingRegistry().createAlgorithmById(f"specdeepmap:{name}")


@pytest.fixture
def open_dialog(qgis: Any) -> Iterator[Callable[[str], Any]]:
    """Open an algorithm's dialog; all are closed in the end."""
    from processing.gui.AlgorithmDialog import AlgorithmDialog

    opened = []

    def show(name: str) -> Any:
        dialog = AlgorithmDialog(create(name))
        dialog.show()
        opened.append(dialog)
        return dialog

    yield show
    for dialog in opened:
        dialog.close()
        dialog.deleteLater()


def test_the_class_field_follows_the_label_layer(open_dialog: Callable[[str], Any], project: Any, chain: Chain) -> None:
    from qgis.core import QgsRasterLayer, QgsVectorLayer

    polygons = QgsVectorLayer("Polygon?crs=EPSG:32633&field=id:integer&field=crop:string", "polygons", "memory")
    points = QgsVectorLayer("Point?crs=EPSG:32633&field=crop:string&field=year:integer", "points", "memory")
    raster = QgsRasterLayer(str(chain.labels), "raster")
    project.addMapLayers([polygons, points, raster])
    dialog = open_dialog("rastersplitter")
    field = dialog.mainWidget().wrappers["CLASS_FIELD"]

    def offered(layer: Any) -> list[str]:
        dialog.setParameters({"LABELS": layer.id(), "IMAGE": raster.id()})
        return [field.widget.itemText(index) for index in range(field.widget.count())]

    assert offered(polygons) == ["id", "crop"]
    field.setValue("crop")
    assert dialog.createProcessingParameters()["CLASS_FIELD"] == "crop"
    assert offered(points) == ["crop", "year"]
    assert dialog.createProcessingParameters()["CLASS_FIELD"] == "crop", "what both layers have stays"
    assert offered(raster) == []
    assert dialog.createProcessingParameters().get("CLASS_FIELD") is None


# What the dialogs show


@pytest.mark.parametrize("name", NAMES)
def test_the_values_of_a_fresh_dialog_are_the_declared_defaults(name: str, open_dialog: Callable[[str], Any]) -> None:
    from processing.gui.AlgorithmDialogBase import AlgorithmDialogBase
    from qgis.core import QgsProcessingParameterDefinition as Definition

    dialog = open_dialog(name)
    assert dialog.isVisible()
    panel = dialog.mainWidget()
    given: dict[str, Any] = {}
    for definition in dialog.algorithm().parameterDefinitions():
        given[definition.name()] = panel.wrappers[definition.name()].parameterValue()
        if not definition.isDestination():
            assert given[definition.name()] == definition.defaultValue() or not given[definition.name()]
        elif definition.flags() & Definition.Flag.FlagOptional:
            assert given[definition.name()] is None  # not written unless asked for
        else:
            assert given[definition.name()] is not None
    with pytest.raises(AlgorithmDialogBase.InvalidParameterValue):  # each has a mandatory input, still empty
        panel.createProcessingParameters()


def test_filled_in_dialog_gives_exactly_what_a_script_would_write(
    open_dialog: Callable[[str], Any], tmp_path: Path
) -> None:
    dialog = open_dialog("trainer")
    dialog.setParameters({"DATASET_FOLDER": str(tmp_path)})
    given = dialog.createProcessingParameters()
    defaults = {d.name(): d.defaultValue() for d in dialog.algorithm().parameterDefinitions() if not d.isDestination()}
    assert {name: value for name, value in given.items() if value} == {
        name: value for name, value in {**defaults, "DATASET_FOLDER": str(tmp_path)}.items() if value
    }
    assert (given["EPOCHS"], given.get("LEARNING_RATE"), given["ARCHITECTURE"]) == (50, None, "auto")


@pytest.mark.parametrize(("name", "parameter"), CHOICES)
def test_choices_show_readable_texts_and_give_names(
    name: str, parameter: str, open_dialog: Callable[[str], Any]
) -> None:
    table = CHOICES[name, parameter]
    dialog = open_dialog(name)
    wrapper = dialog.mainWidget().wrappers[parameter]
    combo = wrapper.widget
    assert [combo.itemText(index) for index in range(combo.count())] == [entry.title for entry in table.values()]
    for index, option in enumerate(table):
        combo.setCurrentIndex(index)
        assert wrapper.parameterValue() == option
        wrapper.setParameterValue(option, dialog.processingContext())
        assert combo.currentIndex() == index


def test_every_choice_of_every_dialog_is_covered_above(qgis: Any) -> None:
    algorithms = {name: create(name) for name in NAMES}  # they own their definitions
    found = {
        (name, definition.name())
        for name, algorithm in algorithms.items()
        for definition in algorithm.parameterDefinitions()
        if definition.type() == "enum"
    }
    assert found == set(CHOICES)


def test_u_net_plus_plus_is_not_called_by_its_id(open_dialog: Callable[[str], Any]) -> None:
    combo = open_dialog("trainer").mainWidget().wrappers["ARCHITECTURE"].widget
    assert combo.findText("U-Net++") >= 0
    assert combo.findText("unetplusplus") < 0


def test_backbone_can_be_typed_and_is_searched_in_the_middle_of_names(open_dialog: Callable[[str], Any]) -> None:
    wrapper = open_dialog("trainer").mainWidget().wrappers["BACKBONE"]
    combo = wrapper.widget
    assert wrapper.parameterValue() == "resnet18"
    assert {combo.itemText(index) for index in range(combo.count())} >= set(USUAL_BACKBONES)
    combo.lineEdit().clear()
    combo.lineEdit().insert(" tu-resnet26 ")
    assert wrapper.parameterValue() == "tu-resnet26"
    completer = combo.completer()
    completer.setCompletionPrefix("convnext")
    assert completer.completionCount() >= 1
    assert "convnext" in completer.currentCompletion()


def test_a_learning_rate_keeps_its_digits_and_a_percentage_shows_few(open_dialog: Callable[[str], Any]) -> None:
    from qgis.gui import QgsDoubleSpinBox

    dialog = open_dialog("trainer")
    wrapper = dialog.mainWidget().wrappers["LEARNING_RATE"]
    wrapper.setParameterValue(3.2e-7, dialog.processingContext())
    assert wrapper.parameterValue() == pytest.approx(3.2e-7)
    share = open_dialog("datasetmaker").mainWidget().wrappers["TRAIN_PERCENT"].wrappedWidget()
    boxes = [share, *share.findChildren(QgsDoubleSpinBox)]
    assert [box.text() for box in boxes if isinstance(box, QgsDoubleSpinBox)] == ["80.00"]


@pytest.mark.parametrize("name", NAMES)
def test_help_panel_explains_every_parameter(name: str, qgis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from specdeepmap.algorithms import base

    monkeypatch.setattr(base, "iface", object())  # as in QGIS with its windows
    algorithm = create(name)
    text = algorithm.shortHelpString()
    missing = [d.name() for d in algorithm.parameterDefinitions() if f"<i>{d.name()}</i>" not in text]
    assert missing == []
    assert text.count("<p>") == text.count("</p>") == len(algorithm.parameterDefinitions()) + 1


# Batch and modeler


@pytest.mark.parametrize("name", NAMES)
def test_batch_dialog_opens_with_readable_choices(name: str, qgis: Any) -> None:
    from processing.gui.BatchAlgorithmDialog import BatchAlgorithmDialog
    from qgis.PyQt.QtWidgets import QComboBox

    dialog = BatchAlgorithmDialog(create(name))
    dialog.show()
    shown = {combo.itemText(0) for combo in dialog.mainWidget().findChildren(QComboBox)}
    for (algorithm, _), table in CHOICES.items():
        if algorithm == name:
            assert next(iter(table.values())).title in shown
    dialog.close()


@pytest.mark.parametrize("name", NAMES)
def test_modeler_dialog_round_trips_values(name: str, qgis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from processing.modeler.ModelerParametersDialog import ModelerParametersDialog
    from qgis.core import QgsProcessingModelAlgorithm
    from qgis.core import QgsProcessingModelChildParameterSource as Source

    model = QgsProcessingModelAlgorithm()
    dialog = ModelerParametersDialog(create(name), model)
    dialog.show()
    wanted = {}
    for (algorithm, parameter), table in CHOICES.items():
        if algorithm == name:
            wanted[parameter] = list(table)[-1]
            dialog.widget.widget.wrappers[parameter].setValue(wanted[parameter])
    if name == "trainer":
        wanted["BACKBONE"] = "tu-resnet26"
        dialog.widget.widget.wrappers["BACKBONE"].setValue("tu-resnet26")
    child = dialog.createAlgorithm()
    dialog.close()
    assert {p: child.parameterSources()[p] for p in wanted} == {
        p: [Source.fromStaticValue(value)] for p, value in wanted.items()
    }
    model.addChildAlgorithm(child)
    again = ModelerParametersDialog(create(name), model, child.childId())
    second = again.createAlgorithm()
    again.close()
    assert {p: second.parameterSources()[p] for p in wanted} == {p: child.parameterSources()[p] for p in wanted}


def test_modeler_offers_the_models_inputs_for_choices_and_texts(qgis: Any) -> None:
    from processing.modeler.ModelerParametersDialog import ModelerParametersDialog
    from qgis.core import QgsProcessingModelAlgorithm, QgsProcessingModelParameter
    from qgis.core import QgsProcessingModelChildParameterSource as Source
    from qgis.core import QgsProcessingParameterEnum as Enum
    from qgis.core import QgsProcessingParameterString as Text

    model = QgsProcessingModelAlgorithm()
    model.addModelParameter(
        Enum("network", "Which network", list(ARCHITECTURES), usesStaticStrings=True),
        QgsProcessingModelParameter("network"),
    )
    model.addModelParameter(Text("encoder", "Which encoder"), QgsProcessingModelParameter("encoder"))
    model.addModelParameter(Enum("number", "Gives 0, 1 or 2", ["a", "b", "c"]), QgsProcessingModelParameter("number"))
    dialog = ModelerParametersDialog(create("trainer"), model)
    wrappers = dialog.widget.widget.wrappers
    for parameter, text in (("ARCHITECTURE", "Which network"), ("BACKBONE", "Which encoder")):
        combo = wrappers[parameter].widget
        index = combo.findText(text)
        assert index >= 0 and combo.findText("Gives 0, 1 or 2") < 0, parameter
        combo.setCurrentIndex(index)
    child = dialog.createAlgorithm()
    dialog.close()
    assert child.parameterSources()["ARCHITECTURE"] == [Source.fromModelParameter("network")]
    assert child.parameterSources()["BACKBONE"] == [Source.fromModelParameter("encoder")]
    model.addChildAlgorithm(child)
    again = ModelerParametersDialog(create("trainer"), model, child.childId())
    assert again.widget.widget.wrappers["ARCHITECTURE"].widget.currentText() == "Which network"
    assert again.widget.widget.wrappers["BACKBONE"].widget.currentText() == "Which encoder"
    again.close()


def test_the_modeler_keeps_expressions_that_it_does_not_offer(qgis: Any) -> None:
    from processing.modeler.ModelerParametersDialog import ModelerParametersDialog
    from qgis.core import QgsProcessingModelAlgorithm, QgsProcessingModelChildAlgorithm
    from qgis.core import QgsProcessingModelChildParameterSource as Source

    given = {
        "trainer": {"ARCHITECTURE": "if(1 > 2, 'segformer', 'unet')", "BACKBONE": "'resnet' || 18", "EPOCHS": "2 * 3"},
        "rastersplitter": {"CLASS_FIELD": "'cls'", "EDGES": "'drop'"},
    }
    for name, values in given.items():
        model, child = QgsProcessingModelAlgorithm(), QgsProcessingModelChildAlgorithm(f"specdeepmap:{name}")
        child.setChildId("step")
        for parameter, text in values.items():
            child.addParameterSources(parameter, [Source.fromExpression(text)])
        model.addChildAlgorithm(child)
        dialog = ModelerParametersDialog(create(name), model, "step")
        again = dialog.createAlgorithm().parameterSources()
        dialog.close()
        assert {parameter: again[parameter] for parameter in values} == {
            parameter: [Source.fromExpression(text)] for parameter, text in values.items()
        }


def test_what_does_not_exist_is_refused_and_not_replaced(open_dialog: Callable[[str], Any]) -> None:
    """Pasted settings may have been written by hand."""
    dialog = open_dialog("mapper")
    dialog.setParameters({"DEVICE": "cuda", "MATCH_BANDS": "wavelengths"})
    wrappers = dialog.mainWidget().wrappers
    assert [wrappers[name].widget.currentText() for name in ("DEVICE", "MATCH_BANDS")] == ["cuda", "wavelengths"]
    assert not dialog.createProcessingParameters(), "QGIS says which value is wrong, and runs nothing"


# Runs


class Pulse:
    """A timer of QGIS's event loop, and the longest time that it had to wait for its turn."""

    def __init__(self) -> None:
        from qgis.PyQt.QtCore import QTimer

        self.longest, self.ticks, self._last = 0.0, 0, time.monotonic()
        self._timer = QTimer()
        self._timer.setInterval(20)
        self._timer.timeout.connect(self._tick)
        self._timer.start()

    def stop(self) -> None:
        self._timer.stop()

    def _tick(self) -> None:
        now = time.monotonic()
        self.longest, self._last, self.ticks = max(self.longest, now - self._last), now, self.ticks + 1


@pytest.mark.torch
def test_training_leaves_qgis_responsive_and_stops_within_two_seconds(
    chain: Chain, open_dialog: Callable[[str], Any], tmp_path: Path
) -> None:
    chain.maker  # noqa: B018 - runs it
    dialog = open_dialog("trainer")
    long = {**SMALLEST, "EPOCHS": 5000, "EARLY_STOPPING": False}
    folders = {"MODEL_FOLDER": str(tmp_path / "models"), "LOG_FOLDER": str(tmp_path / "logs")}
    dialog.setParameters({"DATASET_FOLDER": str(chain.data), **long, **folders})
    outcome, pulse = Outcome(dialog), Pulse()
    dialog.runAlgorithm()
    feedback = dialog.feedback
    wait(lambda: "Epoch 2 of 5000" in feedback.textLog() or outcome.ended, 180)
    pulse.stop()
    assert not outcome.ended, feedback.textLog()
    assert pulse.ticks > 50
    assert pulse.longest < 0.5
    began = time.monotonic()
    dialog.cancelButton().click()
    wait(lambda: outcome.ended, 10)
    assert time.monotonic() - began < 2.2  # the timers of the test itself count, too
    assert not outcome.ok
    assert "Traceback" not in feedback.textLog()
    assert list((tmp_path / "models").glob("*val_iou*.ckpt"))


@pytest.mark.torch
def test_map_is_loaded_with_exactly_the_classes_their_names_and_colours(
    chain: Chain, open_dialog: Callable[[str], Any], project: Any, tmp_path: Path
) -> None:
    from qgis.core import QgsCategorizedSymbolRenderer, QgsPalettedRasterRenderer

    dialog = open_dialog("mapper")
    values = {"IMAGE": str(chain.image), "CHECKPOINT": str(chain.checkpoint), "DEVICE": "cpu"}
    targets = {"OUTPUT": str(tmp_path / "my map.tif"), "VECTOR": str(tmp_path / "my polygons.gpkg")}
    dialog.setParameters({**values, **targets})
    outcome = Outcome(dialog)
    dialog.runAlgorithm()
    feedback = dialog.feedback
    wait(lambda: outcome.ended, 90)
    assert outcome.ok, feedback.textLog()
    layers = {Path(layer.source().split("|")[0]).name: layer for layer in project.mapLayers().values()}
    assert set(layers) == {"my map.tif", "my polygons.gpkg"}
    renderer = layers["my map.tif"].renderer()
    assert isinstance(renderer, QgsPalettedRasterRenderer)
    assert [(entry.value, entry.label, entry.color.name()) for entry in renderer.classes()] == LEGEND
    renderer = layers["my polygons.gpkg"].renderer()
    assert isinstance(renderer, QgsCategorizedSymbolRenderer)
    shown = [(entry.value(), entry.label(), entry.symbol().color().name()) for entry in renderer.categories()]
    assert shown == LEGEND


def test_splitter_takes_classes_from_the_layers_renderer_and_loads_the_tile_index(
    chain: Chain, open_dialog: Callable[[str], Any], project: Any, tmp_path: Path
) -> None:
    from osgeo import gdal
    from qgis.core import QgsPalettedRasterRenderer, QgsRasterLayer
    from qgis.PyQt.QtGui import QColor

    layer = QgsRasterLayer(str(chain.labels), "labels as the user sees them")
    own = [(1, "Wasser", "#0000aa"), (2, "Wald", "#00aa00"), (3, "3", "#aaaa00")]  # "3" is no name but the value
    classes = [QgsPalettedRasterRenderer.Class(value, QColor(color), name) for value, name, color in own]
    layer.setRenderer(QgsPalettedRasterRenderer(layer.dataProvider(), 1, classes))
    project.addMapLayer(layer)
    dialog = open_dialog("rastersplitter")
    places = {"IMAGE": str(chain.image), "LABELS": layer.id(), "OUTPUT_FOLDER": str(tmp_path / "data")}
    dialog.setParameters({**places, **CHIPS})
    outcome = Outcome(dialog)
    dialog.runAlgorithm()
    feedback = dialog.feedback
    wait(lambda: outcome.ended, 60)
    assert outcome.ok, feedback.textLog()
    index = next(found for found in project.mapLayers().values() if found.id() != layer.id())
    assert Path(index.source().split("|")[0]) == tmp_path / "data" / "tiles.gpkg"
    assert index.isValid()
    assert index.featureCount() == 9
    chip = gdal.Open(str(next((tmp_path / "data" / "labels").glob("*.tif"))))
    chip.GetMetadata()  # loads the names
    band = chip.GetRasterBand(1)
    names, table = band.GetCategoryNames(), band.GetColorTable()
    assert names[1:3] == ["Wasser", "Wald"]
    assert names[3] == "cropland"  # what the layer does not name, the file does
    assert [QColor(*table.GetColorEntry(value)[:3]).name() for value in (1, 2, 3)] == ["#0000aa", "#00aa00", "#aaaa00"]


def test_bad_value_is_told_in_a_message_before_anything_runs(
    open_dialog: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qgis.PyQt.QtWidgets import QMessageBox

    told: list[str] = []
    monkeypatch.setattr(QMessageBox, "warning", lambda *arguments: told.append(arguments[2]))
    dialog = open_dialog("datasetmaker")
    dialog.setParameters({"DATA_FOLDER": str(tmp_path), "SCALER": 0})
    dialog.runAlgorithm()
    assert told == ["SCALER is 0; it must be greater than 0."]


def test_values_that_do_not_fit_together_are_told_before_anything_runs(
    open_dialog: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qgis.PyQt.QtWidgets import QMessageBox

    told: list[str] = []
    monkeypatch.setattr(QMessageBox, "warning", lambda *arguments: told.append(arguments[2]))
    dialog = open_dialog("datasetmaker")
    dialog.setParameters({"DATA_FOLDER": str(tmp_path), "TRAIN_PERCENT": 100})
    dialog.runAlgorithm()
    assert [text.split(";")[0] for text in told] == ["TRAIN_PERCENT, VALIDATION_PERCENT and TEST_PERCENT add up to 120"]
    assert not dialog.wasExecuted()


def test_what_only_the_files_tell_is_told_in_the_log(open_dialog: Callable[[str], Any], tmp_path: Path) -> None:
    from qgis.PyQt.QtWidgets import QTextEdit

    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    dialog = open_dialog("datasetmaker")
    dialog.setParameters({"DATA_FOLDER": str(tmp_path)})
    outcome = Outcome(dialog)
    dialog.runAlgorithm()
    wait(lambda: outcome.ended, 20)
    assert not outcome.ok
    log = dialog.findChild(QTextEdit, "txtLog").toPlainText()
    assert "holds no chip" in log
    assert "Traceback" not in log
