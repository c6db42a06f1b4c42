# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipped models in dialogs and in the graphical modeler; and many scenes with one model, in a batch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from specdeepmap.core.data.land import CLASSES
from tests.desktop import Chain, session_folder
from tests.eventloop import wait

pytestmark = pytest.mark.gui

LEGEND = [(entry.value, entry.name, entry.color) for entry in CLASSES.entries]
NAMES = ("from_labels_to_map", "train_and_map")


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


def legend(layer: Any) -> list[tuple[int, str, str]]:
    from qgis.core import QgsPalettedRasterRenderer

    assert isinstance(layer.renderer(), QgsPalettedRasterRenderer)
    return [(entry.value, entry.label, entry.color.name()) for entry in layer.renderer().classes()]


@pytest.mark.torch
def test_the_map_of_a_model_is_loaded_with_the_colours_of_its_classes(
    chain: Chain, project: Any, tmp_path: Path
) -> None:
    from processing.gui.AlgorithmDialog import AlgorithmDialog

    chain.maker  # noqa: B018 - runs it
    dialog = AlgorithmDialog(create("train_and_map"))
    dialog.show()
    ended: list[bool] = []
    dialog.algorithmFinished.connect(lambda ok, _: ended.append(ok))
    training = {"architecture": "unet", "backbone": "mobilenet_v2", "epochs": 1, "batch_size": 4, "device": "cpu"}
    places = {"dataset_folder": str(chain.data), "image": str(chain.image), "map": str(tmp_path / "map.tif")}
    dialog.setParameters({**places, **training})
    dialog.runAlgorithm()
    log = dialog.feedback
    wait(lambda: ended, 240)
    dialog.close()
    assert ended == [True], log.textLog()
    found = {Path(layer.source()).name: layer for layer in project.mapLayers().values()}
    assert legend(found["map.tif"]) == LEGEND


@pytest.mark.torch
def test_a_batch_of_the_mapper_maps_two_scenes_with_one_model(chain: Chain, project: Any, tmp_path: Path) -> None:
    """A third one between them, which is not there, does not stop it."""
    from osgeo import gdal
    from processing.gui.BatchAlgorithmDialog import BatchAlgorithmDialog
    from qgis.core import QgsProcessingContext
    from qgis.PyQt.QtWidgets import QTextEdit

    scenes = [tmp_path / f"scene {number}.tif" for number in range(3)]
    for scene, window in ((scenes[0], [0, 0, 60, 50]), (scenes[2], [30, 40, 66, 56])):
        gdal.Translate(str(scene), str(chain.image), srcWin=window)
    dialog = BatchAlgorithmDialog(create("mapper"))
    panel = dialog.mainWidget()
    panel.addRow(3 - panel.batchRowCount())
    maps = [tmp_path / f"map {number}.tif" for number in range(3)]
    column = panel.parameter_to_column
    for row, (scene, target) in enumerate(zip(scenes, maps, strict=True)):
        given = {"IMAGE": str(scene), "CHECKPOINT": str(chain.checkpoint), "DEVICE": "cpu"}
        for name, value in given.items():
            panel.wrappers[row][column[name]].setParameterValue(value, QgsProcessingContext())
        panel.tblParameters.cellWidget(row + 1, column["OUTPUT"]).setValue(str(target))
    panel.checkLoadLayersOnCompletion.setChecked(True)
    dialog.show()
    dialog.runAlgorithm()
    log = dialog.findChild(QTextEdit, "txtLog")
    wait(lambda: maps[2].is_file() and "1 executions failed" in log.toPlainText(), 240)
    text = log.toPlainText()
    dialog.close()
    assert text.count("correctly executed") == 2 and "IMAGE" in text and "scene 1.tif" in text, text
    assert not maps[1].exists()
    assert [gdal.Open(str(maps[number])).RasterXSize for number in (0, 2)] == [60, 66]
    assert [legend(layer) for layer in project.mapLayers().values()] == [LEGEND, LEGEND]


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_a_model_has_every_parameter(name: str, qgis: Any) -> None:
    from processing.gui.BatchAlgorithmDialog import BatchAlgorithmDialog

    model = create(name)  # its definitions go with it
    dialog = BatchAlgorithmDialog(create(name))
    dialog.show()
    shown = {"VERBOSE_LOG", *(definition.name() for definition in model.parameterDefinitions())}
    assert set(dialog.mainWidget().parameter_to_column) | {"VERBOSE_LOG"} == shown
    dialog.close()


def test_the_class_field_of_the_model_follows_its_labels(project: Any) -> None:
    from processing.gui.AlgorithmDialog import AlgorithmDialog
    from qgis.core import QgsVectorLayer

    polygons = QgsVectorLayer("Polygon?crs=EPSG:32633&field=id:integer&field=crop:string", "polygons", "memory")
    project.addMapLayer(polygons)
    dialog = AlgorithmDialog(create("from_labels_to_map"))
    dialog.setParameters({"labels": polygons.id()})
    combo = dialog.mainWidget().wrappers["class_field"].widget
    assert [combo.itemText(index) for index in range(combo.count())] == ["id", "crop"]
    dialog.close()


@pytest.mark.parametrize("name", NAMES)
def test_the_modeler_opens_a_copy_that_is_saved_elsewhere(
    name: str, qgis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from processing.modeler.ModelerDialog import ModelerDialog
    from processing.modeler.ModelerUtils import ModelerUtils
    from qgis.core import QgsApplication, QgsProcessingModelAlgorithm
    from qgis.PyQt.QtWidgets import QFileDialog

    from specdeepmap.models.editing import EditCopyAction

    registry = QgsApplication.processingRegistry()
    action = EditCopyAction()
    action.setData(registry.algorithmById("specdeepmap:trainer"), None)
    assert not action.isEnabled()
    action.setData(registry.algorithmById(f"specdeepmap:{name}"), None)
    assert action.isEnabled()
    action.execute()
    modeler = ModelerDialog.dlgs[-1]
    model = modeler.model()
    assert model.name() == create(name).displayName()
    assert all(model.validateChildAlgorithm(key)[0] for key in model.childAlgorithms())
    asked: list[str] = []
    target = session_folder() / f"{name} of mine.model3"

    def choose(_parent: Any, _title: str, start: str, _filter: str) -> tuple[str, str]:
        asked.append(start)
        return str(target), ""

    monkeypatch.setattr(QFileDialog, "getSaveFileName", choose)
    assert modeler.saveModel(False)
    assert asked[0].startswith(str(Path(ModelerUtils.modelsFolders()[0]).as_posix()))
    mine = QgsProcessingModelAlgorithm()
    assert mine.fromFile(str(target))
    assert set(mine.childAlgorithms()) == set(model.childAlgorithms())
    modeler.close()


def test_the_toolbox_offers_to_edit_models_as_long_as_the_plugin_is_loaded(
    qgis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from processing.gui.ProviderActions import ProviderContextMenuActions
    from qgis.core import QgsApplication

    from specdeepmap import provider

    class Second(provider.SpecDeepMapProvider):
        def id(self) -> str:
            return "specdeepmap_second"

    def offered() -> list[str]:
        return [action.name for action in ProviderContextMenuActions.actions if "Copy of the Model" in str(action.name)]

    monkeypatch.setattr(provider, "iface", object())  # as in QGIS with its windows
    before = offered()
    registry = QgsApplication.processingRegistry()
    second = Second()
    assert registry.addProvider(second)
    assert len(offered()) == len(before) + 1
    # Where Processing goes first, QGIS forgets its modules, and a new one has never heard of the entry.
    monkeypatch.delitem(sys.modules, "processing.gui.ProviderActions")
    registry.removeProvider(second)
    assert offered() == before
