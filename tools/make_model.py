# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the model that chains all steps: ``QT_QPA_PLATFORM=offscreen /usr/bin/python3 tools/make_model.py``.

Run it again after a change, and commit ``specdeepmap/models/from_labels_to_map.model3``. In QGIS the model can be
opened, changed and saved in the graphical modeler.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), "/usr/share/qgis/python/plugins"]

from qgis.core import (  # noqa: E402
    QgsApplication,
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelChildParameterSource,
    QgsProcessingModelOutput,
    QgsProcessingModelParameter,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
)
from qgis.PyQt.QtCore import QPointF  # noqa: E402

from specdeepmap.core.jobs import Job, TileJob, TrainJob  # noqa: E402
from specdeepmap.core.learn.architectures import ARCHITECTURES  # noqa: E402
from specdeepmap.provider import SpecDeepMapProvider  # noqa: E402

TARGET = ROOT / "specdeepmap" / "models" / "from_labels_to_map.model3"

Source = QgsProcessingModelChildParameterSource
INTEGER = QgsProcessingParameterNumber.Type.Integer
DOUBLE = QgsProcessingParameterNumber.Type.Double


def main() -> int:
    """Write the model; 0 when it is written."""
    application = QgsApplication([], False)
    application.initQgis()
    provider = SpecDeepMapProvider()
    QgsApplication.processingRegistry().addProvider(provider)
    model = QgsProcessingModelAlgorithm("From labels to map", "SpecDeepMap", "")
    add_inputs(model)
    add_steps(model)
    TARGET.parent.mkdir(exist_ok=True)
    written = model.toFile(str(TARGET))
    QgsApplication.processingRegistry().removeProvider(provider)
    return 0 if written else 1


def add_inputs(model: QgsProcessingModelAlgorithm) -> None:
    """Add what the user is asked for.

    The defaults are those of the algorithms: where ``qgis_process`` runs a model without a value, QGIS takes the
    algorithm's default and not the model's.
    """
    tile, train = defaults(TileJob), defaults(TrainJob)
    inputs: list[QgsProcessingParameterDefinition] = [
        QgsProcessingParameterRasterLayer("image", "Image"),
        QgsProcessingParameterRasterLayer("labels", "Labels"),
        QgsProcessingParameterNumber("chip_size", "Chip size (pixels)", INTEGER, tile["tile_size_x"], False, 8),
        QgsProcessingParameterNumber(
            "coverage", "Minimum label coverage (%)", DOUBLE, tile["min_label_coverage"], False, 0, 100
        ),
        QgsProcessingParameterEnum(
            "architecture", "Architecture", list(ARCHITECTURES), False, train["architecture"], usesStaticStrings=True
        ),
        QgsProcessingParameterString("backbone", "Backbone", train["backbone"]),
        QgsProcessingParameterNumber("epochs", "Epochs", INTEGER, train["epochs"], False, 1),
    ]
    for row, parameter in enumerate(inputs):
        place = QgsProcessingModelParameter(parameter.name())
        place.setPosition(QPointF(120, 80 + 70 * row))
        model.addModelParameter(parameter, place)
    model.setParameterOrder([parameter.name() for parameter in inputs])


def defaults(job: type[Job]) -> dict[str, Any]:
    """Give the defaults of a job's fields."""
    return {field.name: field.default for field in dataclasses.fields(job)}


def add_steps(model: QgsProcessingModelAlgorithm) -> None:
    """Add the algorithms, each fed by the declared outputs of those before it."""
    asked, fixed, made = Source.fromModelParameter, Source.fromStaticValue, Source.fromChildOutput
    size = asked("chip_size")
    sizes = {"TILE_SIZE_X": size, "TILE_SIZE_Y": size, "STEP_X": size, "STEP_Y": size}
    sources = {"IMAGE": asked("image"), "LABELS": asked("labels"), "MIN_LABEL_COVERAGE": asked("coverage")}
    add_step(model, "rastersplitter", 0, {**sources, **sizes}, {"OUTPUT_FOLDER": "Dataset"})
    shares = {"TRAIN_PERCENT": fixed(60), "VALIDATION_PERCENT": fixed(20), "TEST_PERCENT": fixed(20)}
    folder = made("rastersplitter", "OUTPUT_FOLDER")
    add_step(model, "datasetmaker", 1, {"DATA_FOLDER": folder, **shares}, {})
    network = {name.upper(): asked(name) for name in ("architecture", "backbone", "epochs")}
    add_step(model, "trainer", 2, {"DATASET_FOLDER": made("datasetmaker", "OUTPUT_FOLDER"), **network}, {})
    checkpoint = {"CHECKPOINT": made("trainer", "BEST_CHECKPOINT")}
    tests = {"TEST_CSV": made("datasetmaker", "TEST_CSV"), **checkpoint}
    add_step(model, "tester", 3, tests, {"SCORES_CSV": "Scores"})
    add_step(model, "mapper", 4, {"IMAGE": asked("image"), **checkpoint}, {"OUTPUT": "Map"})


def add_step(
    model: QgsProcessingModelAlgorithm, name: str, row: int, values: dict[str, Source], results: dict[str, str]
) -> None:
    """Add an algorithm; ``results`` names those of its outputs that are the model's own."""
    child = QgsProcessingModelChildAlgorithm(f"specdeepmap:{name}")
    child.setChildId(name)
    child.setDescription(child.algorithm().displayName())
    child.setPosition(QPointF(420 + 40 * row, 100 + 110 * row))
    for parameter, source in values.items():
        child.addParameterSources(parameter, [source])
    outputs = {}
    for output, title in results.items():
        final = QgsProcessingModelOutput(title, title)
        final.setChildId(name)
        final.setChildOutputName(output)
        final.setMandatory(True)
        final.setPosition(QPointF(720 + 40 * row, 130 + 110 * row))
        outputs[title] = final
    child.setModelOutputs(outputs)
    model.addChildAlgorithm(child)


if __name__ == "__main__":
    sys.exit(main())
