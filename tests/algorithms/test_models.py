# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipped models: listed, explained, up to date, and run through ``qgis_process`` as users run them."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from specdeepmap.core.data.scene import CLASSES
from tests.desktop import ROOT, Chain, run_json, session_folder
from tests.helpers import read_pixels

NAMES = ("from_labels_to_map", "train_and_map")
TITLES = {"from_labels_to_map": "From labels to map", "train_and_map": "Train and map"}
STEPS = {
    "from_labels_to_map": ["rastersplitter", "datasetmaker", "trainer", "tester", "mapper"],
    "train_and_map": ["trainer", "tester", "mapper"],
}

TRAINING = {"architecture": "fpn", "backbone": "mobilenet_v2", "batch_size": 3, "epochs": 1, "device": "cpu"}
"""Settings of the smallest training, none of them a default."""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """The tool that writes the models' files."""
    spec = importlib.util.spec_from_file_location("make_models", ROOT / "tools" / "make_models.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def algorithm(name: str) -> Any:
    from qgis.core import QgsApplication

    return QgsApplication.processingRegistry().algorithmById(f"specdeepmap:{name}")


def children(model: Any) -> dict[str, Any]:
    """Give the steps of a model by the algorithm's name, in their order."""
    steps = [model.childAlgorithms()[key] for key in sorted(model.childAlgorithms())]
    return {step.algorithmId().removeprefix("specdeepmap:"): step for step in steps}


def sources(model: Any) -> dict[str, list[tuple[str, str]]]:
    """Give the parameters of the steps that each input of a model leads to."""
    from qgis.core import Qgis

    found: dict[str, list[tuple[str, str]]] = {}
    for step, child in children(model).items():
        for parameter, values in child.parameterSources().items():
            for value in values:
                if value.source() == Qgis.ProcessingModelChildParameterSource.ModelParameter:
                    found.setdefault(value.parameterName(), []).append((step, parameter))
                for name in re.findall(r"@(\w+)", value.expression()):
                    found.setdefault(name, []).append((step, parameter))
    return found


# What QGIS shows


@pytest.mark.parametrize("name", NAMES)
def test_files_are_what_the_tool_writes_now(name: str, qgis: Any, tool: ModuleType) -> None:
    assert tuple(tool.MODELS) == NAMES
    written = (ROOT / "specdeepmap" / "models" / f"{name}.model3").read_text(encoding="utf-8")
    now = tool.file_text(tool.make_model(tool.MODELS[name]))
    assert written == now, "the algorithms have changed: run .venv/bin/python tools/make_models.py"


@pytest.mark.parametrize("name", NAMES)
def test_models_are_listed_also_after_a_refresh(name: str, qgis: Any) -> None:
    for _ in range(2):
        model = algorithm(name)
        assert (model.displayName(), model.group(), model.provider().id()) == (TITLES[name], "Models", "specdeepmap")
        assert model.canExecute()[0]
        assert list(children(model)) == STEPS[name]
        assert [model.validateChildAlgorithm(key) for key in model.childAlgorithms()] == [(True, [])] * len(STEPS[name])
        assert model.parameterDefinition("map") is not None  # is there only where the steps are found
        assert not model.icon().isNull()
        qgis.provider.refreshAlgorithms()


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_and_the_model_are_explained(name: str, qgis: Any) -> None:
    model = algorithm(name)
    panel = model.shortHelpString()
    for definition in model.parameterDefinitions():
        assert len(definition.help()) > 20, definition.name()
        assert definition.help() in panel, definition.name()
    assert model.shortDescription().endswith(".")
    assert "SpecDeepMap team" in panel and "1.0" in panel and f"specdeepmap:{name}" in panel
    assert model.helpUrl().endswith(("models.html", "models.rst"))


@pytest.mark.parametrize("name", NAMES)
def test_every_input_reaches_a_step_with_the_default_and_the_bounds_of_that(name: str, qgis: Any) -> None:
    """QGIS takes the algorithm's default where a script gives none, so the model's may be no other."""
    model = algorithm(name)
    found = sources(model)
    inputs = [definition for definition in model.parameterDefinitions() if not definition.isDestination()]
    assert {definition.name() for definition in inputs} == set(found)
    for definition in inputs:
        for step, parameter in found[definition.name()]:
            own = algorithm(step).parameterDefinition(parameter)
            assert own.type() == definition.type() or definition.name() == "dataset_folder"
            if definition.defaultValue() is not None:
                assert definition.defaultValue() == own.defaultValue(), definition.name()
            if own.type() == "number":
                assert definition.dataType() == own.dataType(), definition.name()
                assert own.minimum() <= definition.minimum() and definition.maximum() <= own.maximum()
            if own.type() == "enum":
                assert set(definition.options()) | {"given"} == set(own.options()) | {"given"}


@pytest.mark.parametrize("name", NAMES)
def test_steps_take_the_models_own_outputs(name: str, qgis: Any) -> None:
    from qgis.core import Qgis

    for step, child in children(algorithm(name)).items():
        for values in child.parameterSources().values():
            for value in values:
                if value.source() == Qgis.ProcessingModelChildParameterSource.ChildOutput:
                    before = value.outputChildId().partition("_")[2]
                    assert STEPS[name].index(before) < STEPS[name].index(step)
                    assert algorithm(before).outputDefinition(value.outputName()) is not None


def test_only_what_is_needed_stands_in_front(qgis: Any) -> None:
    from qgis.core import QgsProcessingParameterDefinition

    advanced = QgsProcessingParameterDefinition.Flag.FlagAdvanced
    for name, most in (("from_labels_to_map", 9), ("train_and_map", 5)):
        inputs = [entry for entry in algorithm(name).parameterDefinitions() if not entry.isDestination()]
        assert len([entry for entry in inputs if not entry.flags() & advanced]) <= most


def test_a_copy_is_an_ordinary_model_without_a_file(qgis: Any) -> None:
    """So that the modeler asks where to save it, and never writes into the plugin's folder."""
    copy = algorithm("train_and_map").copy()
    assert (copy.name(), copy.sourceFilePath()) == ("Train and map", "")
    assert list(children(copy)) == STEPS["train_and_map"]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_model_does_not_know_is_refused(name: str, qgis: Any) -> None:
    """QGIS would take the default instead, without a word; the algorithms' own names are in capitals."""
    from qgis.core import QgsProcessingContext

    for wrong, offered in (("EPOCHS", "epochs"), ("bakbone", "backbone"), ("seed", "")):
        fine, reason = algorithm(name).checkParameterValues({wrong: 1}, QgsProcessingContext())
        assert not fine and reason.startswith(f"There is no parameter '{wrong}'.") and offered in reason
    fine, reason = algorithm(name).checkParameterValues({"epochs": 1}, QgsProcessingContext())
    assert not fine and "There is no" not in reason, "what QGIS itself checks is checked, too"


@pytest.mark.parametrize("name", NAMES)
def test_the_history_has_a_command_of_a_model(name: str, qgis: Any) -> None:
    from qgis.core import QgsProcessingContext

    command = algorithm(name).asPythonCommand({"epochs": 3}, QgsProcessingContext())
    assert command == f"processing.run(\"specdeepmap:{name}\", {{'epochs':3}})"


def test_files_hold_no_path_of_this_computer() -> None:
    for name in NAMES:
        text = (ROOT / "specdeepmap" / "models" / f"{name}.model3").read_text(encoding="utf-8")
        values = re.findall(r'value="([^"]*)"', text)
        assert len(values) > 500
        assert not [value for value in values if value.startswith(("/", "file:")) or str(ROOT) in value]


# Runs


def read_table(path: Path) -> list[list[str]]:
    return list(csv.reader(path.read_text(encoding="utf-8").splitlines()))


def check_results(results: dict[str, Any], chain: Chain) -> dict[str, Any]:
    """Check what both models give, and return the job that the trainer had."""
    chosen = read_pixels(Path(results["map"]))[0]
    assert chosen.shape == read_pixels(chain.image).shape[1:]
    assert set(np.unique(chosen)) <= {0, *CLASSES.values}
    assert (chosen > 0).any()
    assert read_table(Path(results["scores"]))[-1][0] == "Mean IoU"
    assert "<html" in Path(results["report"]).read_text(encoding="utf-8")
    folder = Path(results["model"])
    assert len(list(folder.glob("00000-val_iou_*.ckpt"))) == 1
    job: dict[str, Any] = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    assert {name: job[name] for name in TRAINING} == TRAINING
    return job


@pytest.mark.torch
def test_train_and_map_with_the_least_that_must_be_given(chain: Chain) -> None:
    chain.maker  # noqa: B018 - runs it
    folder = session_folder() / "train and map"
    outputs = {"scores": folder / "scores.csv", "map": folder / "map.tif"}
    answer = run_json("train_and_map", dataset_folder=chain.data, image=chain.image, **TRAINING, **outputs)
    results = answer["results"]
    job = check_results(results, chain)
    assert Path(job["dataset_folder"]) == chain.data
    assert job["pretrained_weights"] == "none"
    assert (results["map"], results["scores"]) == (str(outputs["map"]), str(outputs["scores"]))
    assert Path(results["model"]).parent.parent == chain.data / "runs"
    assert Path(results["report"]) == folder / "scores_report.html"
    assert results.get("confidence") is None


@pytest.mark.torch
def test_from_labels_to_map_with_everything(chain: Chain) -> None:
    folder = session_folder() / "from labels"
    chips = {"chip_size": 32, "step": 16, "coverage": 60, "split": "random"}
    shares = {"train_percent": 50, "validation_percent": 25, "test_percent": 20}
    files = {"report": "report.html", "scores": "scores.csv", "map": "map.tif", "confidence": "confidence.tif"}
    outputs = {**{name: folder / file for name, file in files.items()}, "dataset": folder / "d", "model": folder / "m"}
    inputs = {"image": chain.image, "labels": chain.labels, **chips, **shares, **TRAINING}
    results = run_json("from_labels_to_map", **inputs, **outputs)["results"]
    assert {name: results[name] for name in outputs} == {name: str(path) for name, path in outputs.items()}
    check_results(results, chain)
    confidence = read_pixels(outputs["confidence"])[0]
    assert (confidence[read_pixels(outputs["map"])[0] > 0] > 0).all()
    labels, grid = read_pixels(chain.labels)[0], range(0, 96, 16)
    missing = (read_pixels(chain.image) == 0).all(axis=0)
    full = np.pad(np.where(missing, 0, labels), (0, 32))
    kept = sum((full[row : row + 32, col : col + 32] > 0).mean() >= 0.6 for row in grid for col in grid)
    made = list((outputs["dataset"] / "images").glob("*.tif"))
    assert 0 < len(made) == kept < len(grid) ** 2
    assert read_pixels(made[0]).shape[1:] == (32, 32)
    rows = Counter({name: len(read_table(outputs["dataset"] / f"{name}_files.csv")) - 1 for name in ("train", "test")})
    assert rows["train"] == pytest.approx(kept * 0.50, abs=1)
    assert rows["test"] == pytest.approx(kept * 0.20, abs=1)


@pytest.mark.torch
def test_a_step_that_fails_ends_the_model_with_its_sentence(chain: Chain, tmp_path: Path) -> None:
    outputs = {"scores": tmp_path / "scores.csv", "map": tmp_path / "map.tif"}
    with pytest.raises(RuntimeError) as failure:
        run_json("train_and_map", dataset_folder=tmp_path, image=chain.image, **outputs)
    assert "Dataset Maker" in str(failure.value)
    assert "Traceback" not in str(failure.value)
