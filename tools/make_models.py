# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the shipped models: ``.venv/bin/python tools/make_models.py``.

Run it again after a change of the algorithms or of their help texts, and commit ``specdeepmap/models/*.model3``; a test
compares those with what is made here. The models' inputs are the algorithms' own parameters: bounds, options, help
and defaults cannot differ. They may not differ either: where ``qgis_process`` runs a model without a value, QGIS takes
the algorithm's default and not the model's.
"""

from __future__ import annotations

import os
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), "/usr/share/qgis/python/plugins"]

from qgis.core import (  # noqa: E402
    QgsApplication,
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelChildDependency,
    QgsProcessingModelChildParameterSource,
    QgsProcessingModelOutput,
    QgsProcessingModelParameter,
    QgsProcessingParameterDefinition,
)
from qgis.PyQt.QtCore import QPointF, QSizeF  # noqa: E402

from specdeepmap.models import GROUP  # noqa: E402

TARGET = ROOT / "specdeepmap" / "models"
ADVANCED = QgsProcessingParameterDefinition.Flag.FlagAdvanced
OPTIONAL = QgsProcessingParameterDefinition.Flag.FlagOptional

Source = QgsProcessingModelChildParameterSource


@dataclass(frozen=True)
class Asked:
    """An input of a model: the parameter of an algorithm, under the model's name.

    Attributes:
        source: algorithm and parameter, such as ``trainer.EPOCHS``.
        advanced: shown in the advanced part of the dialog.
        label, help: where the algorithm's own do not fit.
        optional: may stay empty, with no default.
        without: options that make no sense in a model.
    """

    source: str
    advanced: bool = False
    label: str = ""
    help: str = ""
    optional: bool = False
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Final:
    """An output of a model: that of a step; its name is the label in lower case, its help the algorithm's."""

    source: str
    label: str
    mandatory: bool = False


@dataclass(frozen=True)
class Step:
    """An algorithm in a model.

    Attributes:
        values: where each parameter's value comes from: the name of an input; ``trainer.BEST_CHECKPOINT``, an output
            of an earlier step; or ``=`` and an expression.
        after: another step that it waits for.
    """

    algorithm: str
    values: Mapping[str, str]
    after: str = ""


@dataclass(frozen=True)
class Model:
    """What a model file is made from."""

    title: str
    about: str
    example: str
    inputs: Mapping[str, Asked]
    outputs: tuple[Final, ...]
    steps: tuple[Step, ...]


TRAINING = {
    "architecture": Asked("trainer.ARCHITECTURE"),
    "backbone": Asked("trainer.BACKBONE"),
    "pretrained_weights": Asked("trainer.PRETRAINED_WEIGHTS", advanced=True),
    "batch_size": Asked("trainer.BATCH_SIZE", advanced=True),
    "epochs": Asked("trainer.EPOCHS"),
    "device": Asked("trainer.DEVICE", advanced=True),
}
"""What both models ask for a training."""

RESULTS = (
    Final("trainer.MODEL_FOLDER", "Model"),
    Final("tester.SCORES_CSV", "Scores", mandatory=True),
    Final("tester.REPORT", "Report"),
    Final("mapper.OUTPUT", "Map", mandatory=True),
    Final("mapper.CONFIDENCE", "Confidence"),
)
"""What both models give."""

_TRAINER = {name.upper(): name for name in TRAINING}
_CHECKPOINT = {"CHECKPOINT": "trainer.BEST_CHECKPOINT", "DEVICE": "device"}
_MAPPER = Step("mapper", {"IMAGE": "image", **_CHECKPOINT})

FROM_LABELS_TO_MAP = Model(
    title="From labels to map",
    about=(
        "The whole way in one run: cuts an image and its labels into chips, divides these into sets for training, "
        "validation and test, trains a network, measures it on the test chips and maps the whole image. Try it with "
        "few epochs first. To train again on the same chips, use Train and map."
    ),
    example=(
        'qgis_process run "specdeepmap:from_labels_to_map" -- image=scene.tif labels=labels.tif epochs=20 '
        "dataset=dataset scores=scores.csv map=map.tif"
    ),
    inputs={
        "image": Asked("rastersplitter.IMAGE", help="The image to train on and to map; any number of bands."),
        "labels": Asked("rastersplitter.LABELS"),
        "class_field": Asked("rastersplitter.CLASS_FIELD"),
        "zero_as": Asked("rastersplitter.ZERO_AS", advanced=True),
        "chip_size": Asked(
            "rastersplitter.TILE_SIZE_X",
            label="Chip size (pixels)",
            help="Width and height of a chip in pixels, at least 8. Default: 256. Take smaller ones for small scenes: "
            "there must be some chips for each of the three sets.",
        ),
        "step": Asked(
            "rastersplitter.STEP_X",
            advanced=True,
            label="Step (pixels; if skipped: the chip size)",
            help="Distance in pixels between neighbouring chips. Default: not set, the chip size. Smaller = "
            "overlapping chips: more of them, but chips of different sets then share ground, which makes accuracy "
            "look better than it is. Larger = gaps.",
            optional=True,
        ),
        "coverage": Asked("rastersplitter.MIN_LABEL_COVERAGE"),
        "split": Asked(
            "datasetmaker.SPLIT",
            help="stratified gives the three sets class shares that are as equal as possible; blocks does so with "
            "spatial blocks of chips, so that the sets lie apart: the honest choice where neighbouring chips are "
            "alike; random draws chips by chance. Default: stratified.",
            without=("given",),
        ),
        "train_percent": Asked("datasetmaker.TRAIN_PERCENT", advanced=True),
        "validation_percent": Asked("datasetmaker.VALIDATION_PERCENT", advanced=True),
        "test_percent": Asked("datasetmaker.TEST_PERCENT", advanced=True),
        **TRAINING,
    },
    outputs=(Final("rastersplitter.OUTPUT_FOLDER", "Dataset", mandatory=True), *RESULTS),
    steps=(
        Step(
            "rastersplitter",
            {
                "IMAGE": "image",
                "LABELS": "labels",
                "CLASS_FIELD": "class_field",
                "ZERO_AS": "zero_as",
                "TILE_SIZE_X": "chip_size",
                "TILE_SIZE_Y": "chip_size",
                "STEP_X": "=coalesce(@step, @chip_size)",
                "STEP_Y": "=coalesce(@step, @chip_size)",
                "MIN_LABEL_COVERAGE": "coverage",
            },
        ),
        Step(
            "datasetmaker",
            {
                "DATA_FOLDER": "rastersplitter.OUTPUT_FOLDER",
                "SPLIT": "split",
                "TRAIN_PERCENT": "train_percent",
                "VALIDATION_PERCENT": "validation_percent",
                "TEST_PERCENT": "test_percent",
            },
        ),
        # Were it fed by the Dataset Maker's OUTPUT_FOLDER, QGIS would give that a temporary folder.
        Step("trainer", {"DATASET_FOLDER": "rastersplitter.OUTPUT_FOLDER", **_TRAINER}, after="datasetmaker"),
        Step("tester", {"TEST_CSV": "datasetmaker.TEST_CSV", **_CHECKPOINT}),
        _MAPPER,
    ),
)

TRAIN_AND_MAP = Model(
    title="Train and map",
    about=(
        "Trains a network on a dataset folder that exists already, measures it on the test chips and maps an image. "
        "Use it after the Dataset Maker, as often as you like: each run has a folder of its own."
    ),
    example=(
        'qgis_process run "specdeepmap:train_and_map" -- dataset_folder=dataset image=scene.tif epochs=20 '
        "scores=scores.csv map=map.tif"
    ),
    inputs={
        "dataset_folder": Asked("trainer.DATASET_FOLDER"),
        "image": Asked(
            "mapper.IMAGE",
            help="The image to map, with the bands and the units of the chips: the one they were cut from, or another.",
        ),
        **TRAINING,
    },
    outputs=RESULTS,
    steps=(
        Step("trainer", {"DATASET_FOLDER": "dataset_folder", **_TRAINER}),
        Step("tester", {"TEST_CSV": "=@dataset_folder || '/test_files.csv'", **_CHECKPOINT}),
        _MAPPER,
    ),
)

MODELS = {"from_labels_to_map": FROM_LABELS_TO_MAP, "train_and_map": TRAIN_AND_MAP}
"""By the name of the file, which is the id in ``specdeepmap:<id>``, too."""


def main() -> int:
    """Write the models."""
    from specdeepmap.plugin import SpecDeepMapPlugin

    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    application = QgsApplication([], False)
    application.initQgis()
    plugin = SpecDeepMapPlugin(None)
    plugin.initProcessing()
    for name, plan in MODELS.items():
        (TARGET / f"{name}.model3").write_text(file_text(make_model(plan)), encoding="utf-8")
    plugin.unload()
    return 0


def file_text(model: QgsProcessingModelAlgorithm) -> str:
    """Give what a model's file holds, always in the same order of attributes; QGIS shuffles them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.model3"
        if not model.toFile(str(file)):
            raise OSError(f"The model {model.name()} could not be written to {file}.")
        root = ElementTree.parse(file).getroot()  # noqa: S314 - our own file
    for element in root.iter():
        element.attrib = {key: element.attrib[key] for key in ("name", "type", "value") if key in element.attrib}
    ElementTree.indent(root)
    return f"<!DOCTYPE model>\n{ElementTree.tostring(root, encoding='unicode')}\n"


def make_model(plan: Model) -> QgsProcessingModelAlgorithm:
    """Make a model; QGIS must know the algorithms."""
    model = QgsProcessingModelAlgorithm(plan.title, GROUP, GROUP.lower())
    for row, (name, asked) in enumerate(plan.inputs.items()):
        place = QgsProcessingModelParameter(name)
        place.setPosition(QPointF(140, 60 + 50 * row))
        model.addModelParameter(make_input(name, asked), place)
    model.setParameterOrder(list(plan.inputs))
    for row, step in enumerate(plan.steps):
        model.addChildAlgorithm(make_step(plan, step, row))
    texts = {definition.name(): definition.help() for definition in model.parameterDefinitions()}
    about = {"ALG_DESC": plan.about, "SHORT_DESCRIPTION": plan.about.split(". ")[0].rstrip(".") + "."}
    made = {"ALG_CREATOR": "SpecDeepMap team", "ALG_VERSION": "1.0", "EXAMPLES": plan.example}
    model.setHelpContent({**texts, **about, **made})
    return model


def make_input(name: str, asked: Asked) -> QgsProcessingParameterDefinition:
    """Make an input from the algorithm's parameter."""
    algorithm, _, source = asked.source.partition(".")
    parameter = QgsApplication.processingRegistry().algorithmById(f"specdeepmap:{algorithm}")
    parameter = parameter.parameterDefinition(source).clone()
    parameter.setName(name)
    parameter.setDescription(asked.label or parameter.description())
    parameter.setHelp(asked.help or parameter.help())
    flags = parameter.flags() | ADVANCED if asked.advanced else parameter.flags() & ~ADVANCED
    if asked.optional:
        flags |= OPTIONAL
        parameter.setDefaultValue(None)
    parameter.setFlags(flags)
    metadata = parameter.metadata()
    settings = metadata.get("widget_wrapper", {})
    if "layer" in settings:
        settings["layer"] = settings["layer"].lower()  # a parameter of the algorithm, an input of the model
    if asked.without:
        parameter.setOptions([option for option in parameter.options() if option not in asked.without])
        settings["pairs"] = [pair for pair in settings["pairs"] if pair[0] not in asked.without]
    parameter.setMetadata(metadata)
    return parameter


def make_step(plan: Model, step: Step, row: int) -> QgsProcessingModelChildAlgorithm:
    """Make a step, fed by the inputs and by the declared outputs of those before it."""
    child = QgsProcessingModelChildAlgorithm(f"specdeepmap:{step.algorithm}")
    child.setChildId(child_id(plan, step.algorithm))
    child.setDescription(child.algorithm().displayName())
    place = QPointF(440 + 60 * row, 120 + 150 * row)
    child.setPosition(place)
    for parameter, value in step.values.items():
        child.addParameterSources(parameter, [make_source(plan, value)])
    if step.after:
        child.setDependencies([QgsProcessingModelChildDependency(child_id(plan, step.after))])
    outputs = {}
    own = [final for final in plan.outputs if final.source.startswith(f"{step.algorithm}.")]
    for column, final in enumerate(own):
        output = QgsProcessingModelOutput(final.label, final.label)
        output.setChildId(child.childId())
        output.setChildOutputName(final.source.partition(".")[2])
        output.setMandatory(final.mandatory)
        output.setPosition(place + QPointF(270, 15 + 50 * column))
        output.setSize(QSizeF(160, 30))
        outputs[final.label] = output
    child.setModelOutputs(outputs)
    return child


def make_source(plan: Model, value: str) -> QgsProcessingModelChildParameterSource:
    """Make the source of a value, which is written as in ``Step``."""
    if value.startswith("="):
        return Source.fromExpression(value[1:])
    child, dot, output = value.partition(".")
    return Source.fromChildOutput(child_id(plan, child), output) if dot else Source.fromModelParameter(value)


def child_id(plan: Model, algorithm: str) -> str:
    """Give the id of a step. QGIS shows the outputs of a model in the alphabetical order of these."""
    return f"{[step.algorithm for step in plan.steps].index(algorithm) + 1}_{algorithm}"


if __name__ == "__main__":
    sys.exit(main())
