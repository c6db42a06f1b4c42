# SPDX-License-Identifier: GPL-3.0-or-later
"""The public contract: what scripts, models and ``qgis_process`` calls depend on.

The tables are written by hand from the design, not from the code. What stands in them must never be renamed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest

from tests.desktop import NAMES


@dataclass(frozen=True)
class Asked:
    """One parameter: QGIS's type name, default, flags (A = advanced, o = optional), bounds and enum names."""

    kind: str
    default: Any = None
    flags: str = ""
    low: float | None = None
    high: float | None = None
    names: tuple[str, ...] = ()
    more: bool = False  # more names may be added


def whole(default: int | None, low: float, flags: str = "", high: float | None = None) -> Asked:
    return Asked("integer", default, flags, low, high)


def number(default: float | None, low: float | None = None, high: float | None = None, flags: str = "") -> Asked:
    return Asked("number", default, flags, low, high)


def choice(default: str, *names: str, flags: str = "", more: bool = False) -> Asked:
    return Asked("enum", default, flags, names=names, more=more)


DEVICE = choice("auto", "auto", "cpu", "gpu")
LOAD_TABLES = Asked("boolean", False, "A")

PARAMETERS: dict[str, dict[str, Asked]] = {
    "rastersplitter": {
        "IMAGE": Asked("raster"),
        "LABELS": Asked("layer"),  # raster, polygons or points
        "CLASS_FIELD": Asked("field", flags="o"),
        "ZERO_AS": whole(None, 1, "Ao", 255),
        "TILE_SIZE_X": whole(256, 8),
        "TILE_SIZE_Y": whole(256, 8),
        "STEP_X": whole(256, 1),
        "STEP_Y": whole(256, 1),
        "MIN_LABEL_COVERAGE": number(50, 0, 100),
        "EDGES": choice("pad", "pad", "shift", "drop", flags="A"),
        "NODATA": number(None, flags="Ao"),
        "COMPRESSION": choice("zstd", "none", "lzw", "deflate", "zstd", flags="A"),
        "OUTPUT_FOLDER": Asked("folderDestination"),
    },
    "datasetmaker": {
        "DATA_FOLDER": Asked("folder"),
        "TRAIN_PERCENT": number(80, 0, 100),
        "VALIDATION_PERCENT": number(10, 0, 100),
        "TEST_PERCENT": number(10, 0, 100),
        "SPLIT": choice("stratified", "stratified", "blocks", "random", "given"),
        "BLOCK_SIZE": whole(0, 0, "A"),
        "BUFFER": whole(0, 0, "A"),
        "SCALER": number(None, 0, 500000, flags="o"),
        "STATISTICS": Asked("boolean", True),
        "SEED": whole(42, 0, "A"),
        "OUTPUT_FOLDER": Asked("folderDestination", flags="o"),
        "LOAD_TABLES": LOAD_TABLES,
    },
    "trainer": {
        "DATASET_FOLDER": Asked("folder"),
        "ARCHITECTURE": choice("auto", "auto", "unet", "unetplusplus", "deeplabv3plus", "segformer", more=True),
        "BACKBONE": Asked("string", "resnet18"),
        "PRETRAINED_WEIGHTS": choice("none", "none", "imagenet", more=True),
        "WEIGHTS_FILE": Asked("file", flags="Ao"),
        "INIT_CHECKPOINT": Asked("file", flags="o"),
        "RESUME": Asked("boolean", False, "A"),
        "FREEZE_BACKBONE": Asked("boolean", True),
        "UNFREEZE_EPOCH": whole(0, 0, "A"),
        "AUGMENTATION": Asked("boolean", True),
        "AUGMENT_ROTATION": number(0, 0, 180, "A"),
        "AUGMENT_SCALE": number(0, 0, 100, "A"),
        "AUGMENT_NOISE": number(0, 0, 2, "A"),
        "AUGMENT_GAIN": number(0, 0, 50, "A"),
        "AUGMENT_BAND_DROP": number(0, 0, 90, "A"),
        "AUGMENT_CUTOUT": number(0, 0, 75, "A"),
        "EARLY_STOPPING": Asked("boolean", True),
        "PATIENCE": whole(20, 1, "A"),
        "CLASS_WEIGHTS": Asked("boolean", True),
        "CLASS_WEIGHT_POWER": number(0.5, 0, 1, "A"),
        "NORMALIZE": Asked("boolean", True),
        "BATCH_SIZE": whole(8, 1),
        "EPOCHS": whole(50, 1),
        "LEARNING_RATE": number(None, 0, 100, flags="o"),  # what suits the architecture
        "LR_FINDER": Asked("boolean", False),
        "DEVICE": DEVICE,
        "LOSS": choice("cross_entropy", "cross_entropy", "dice", "focal", "cross_entropy_dice", flags="A", more=True),
        "OPTIMIZER": choice("adamw", "adam", "adamw", "sgd", flags="A"),
        "WEIGHT_DECAY": number(0.01, 0, 10, flags="A"),
        "GRADIENT_CLIP": number(0, 0, 100000, flags="A"),
        "SCHEDULER": choice("cosine", "cosine", "plateau", "one_cycle", "constant", flags="A"),
        "PRECISION": choice("auto", "auto", "float32", "bfloat16", "float16", flags="A"),
        "DEVICES": whole(1, 1, "A"),
        "HALVE_BATCH_SIZE": Asked("boolean", False, "A"),
        "NUM_WORKERS": whole(-1, -1, "A"),
        "SAVE_TOP_K": whole(1, -1, "A"),
        "SEED": whole(42, 0, "A"),
        "LOG_FOLDER": Asked("folderDestination", flags="o"),
        "MODEL_FOLDER": Asked("folderDestination", flags="o"),
        "LOAD_TABLES": LOAD_TABLES,
    },
    "tensorboard": {
        "LOG_FOLDER": Asked("folder"),
        "PORT": whole(6006, 0, high=65535),
        "OPEN_BROWSER": Asked("boolean", True),
        "DURATION": number(0, 0, 604800, flags="A"),  # a week
    },
    "tester": {
        "TEST_CSV": Asked("file"),
        "CHECKPOINT": Asked("file"),
        "DEVICE": DEVICE,
        "PRECISION": choice("auto", "auto", "float32", "bfloat16", "float16", flags="A"),
        "BATCH_SIZE": whole(0, 0, "A"),
        "MASK_UNLABELLED": Asked("boolean", True),
        "SCORES_CSV": Asked("fileDestination"),
        "CONFUSION_CSV": Asked("fileDestination", flags="Ao"),
        "CHIP_SCORES_CSV": Asked("fileDestination", flags="Ao"),
        "PREDICTION_FOLDER": Asked("folderDestination", flags="o"),
        "REPORT": Asked("fileDestination", flags="o"),
        "LOAD_TABLES": LOAD_TABLES,
    },
    "mapper": {
        "IMAGE": Asked("raster"),
        "CHECKPOINT": Asked("file"),
        "GROUND_TRUTH": Asked("raster", flags="o"),
        "ZERO_AS": whole(None, 1, "Ao", high=255),
        "NODATA": number(None, flags="Ao"),
        "EXTENT": Asked("extent", flags="Ao"),
        "MATCH_BANDS": choice("none", "none", "name", "wavelength", flags="A"),
        "OVERLAP": number(10, 0, 45),
        "BLEND": Asked("boolean", False, "A"),
        "DEVICE": DEVICE,
        "PRECISION": choice("auto", "auto", "float32", "bfloat16", "float16", flags="A"),
        "DEVICES": whole(1, 1, "A"),
        "TILE_SIZE": whole(0, 0, "A"),
        "BATCH_SIZE": whole(0, 0, "A"),
        "TTA": Asked("boolean", False, "A"),
        "MIN_AREA": whole(0, 0, "A"),
        "OUTPUT": Asked("rasterDestination"),
        "CONFIDENCE": Asked("rasterDestination", flags="o"),
        "PROBABILITIES": Asked("rasterDestination", flags="o"),
        "PROBABILITY_FORMAT": choice("float32", "float32", "percent", flags="A"),
        "MARGIN": Asked("rasterDestination", flags="Ao"),
        "ENTROPY": Asked("rasterDestination", flags="Ao"),
        "VECTOR": Asked("vectorDestination", flags="o"),
        "SCORES_CSV": Asked("fileDestination", flags="o"),
        "CONFUSION_CSV": Asked("fileDestination", flags="Ao"),
        "ERROR_MAP": Asked("rasterDestination", flags="Ao"),
        "LOAD_TABLES": LOAD_TABLES,
    },
}

OUTPUTS: dict[str, dict[str, str]] = {
    "rastersplitter": {
        "OUTPUT_FOLDER": "outputFolder",
        "TILE_COUNT": "outputNumber",
        "SKIPPED_COUNT": "outputNumber",
        "TILE_INDEX": "outputVector",
    },
    "datasetmaker": {
        "OUTPUT_FOLDER": "outputFolder",
        "TRAIN_CSV": "outputFile",
        "VALIDATION_CSV": "outputFile",
        "TEST_CSV": "outputFile",
        "SUMMARY_CSV": "outputFile",
        "STATISTICS_CSV": "outputFile",
        "TILE_INDEX": "outputVector",
        "REPORT": "outputHtml",
    },
    "trainer": {
        "BEST_CHECKPOINT": "outputFile",
        "LAST_CHECKPOINT": "outputFile",
        "BEST_VAL_IOU": "outputNumber",
        "EPOCHS_TRAINED": "outputNumber",
        "HISTORY_CSV": "outputFile",
        "LOG_FOLDER": "outputFolder",
        "MODEL_FOLDER": "outputFolder",
        "REPORT": "outputHtml",
    },
    "tensorboard": {"URL": "outputString", "PORT": "outputNumber"},
    "tester": {
        "SCORES_CSV": "outputFile",
        "CONFUSION_CSV": "outputFile",
        "CHIP_SCORES_CSV": "outputFile",
        "PREDICTION_FOLDER": "outputFolder",
        "MEAN_IOU": "outputNumber",
        "OVERALL_ACCURACY": "outputNumber",
        "MACRO_F1": "outputNumber",
        "KAPPA": "outputNumber",
        "AVERAGE_ACCURACY": "outputNumber",
        "WEIGHTED_F1": "outputNumber",
        "CALIBRATION_ERROR": "outputNumber",
        "REPORT": "outputHtml",
    },
    "mapper": {
        "OUTPUT": "outputRaster",
        "CONFIDENCE": "outputRaster",
        "PROBABILITIES": "outputRaster",
        "MARGIN": "outputRaster",
        "ENTROPY": "outputRaster",
        "VECTOR": "outputVector",
        "ERROR_MAP": "outputRaster",
        "SCORES_CSV": "outputFile",
        "CONFUSION_CSV": "outputFile",
        "MEAN_IOU": "outputNumber",
        "OVERALL_ACCURACY": "outputNumber",
    },
}

TITLES = {
    "rastersplitter": "Raster Splitter",
    "datasetmaker": "Dataset Maker",
    "trainer": "Deep Learning Trainer",
    "tensorboard": "TensorBoard Launcher",
    "tester": "Deep Learning Tester",
    "mapper": "Deep Learning Mapper",
}

MANDATORY_DESTINATIONS = {("rastersplitter", "OUTPUT_FOLDER"), ("tester", "SCORES_CSV"), ("mapper", "OUTPUT")}

LISTED_ELSEWHERE = {("trainer", "PRETRAINED_WEIGHTS"): "documentation"}
"""Choices of so many names that the help says where to find them."""

UNBOUNDED = 1e300  # QGIS's bounds of a number without any are about ±1.8e308, of a whole one ±2147483647

CASES = [(name, parameter) for name, table in PARAMETERS.items() for parameter in table]


@pytest.fixture
def algorithm(qgis: Any) -> Any:
    from qgis.core import QgsApplication

    return lambda name: QgsApplication.processingRegistry().algorithmById(f"specdeepmap:{name}")


def kind_of(definition: Any) -> str:
    """Give QGIS's type name, with the kinds of numbers and of files told apart."""
    from qgis.core import QgsProcessingParameterFile, QgsProcessingParameterNumber

    kind = str(definition.type())
    if kind == "number" and definition.dataType() == QgsProcessingParameterNumber.Type.Integer:
        return "integer"
    if kind == "file" and definition.behavior() == QgsProcessingParameterFile.Behavior.Folder:
        return "folder"
    return kind


def flags_of(definition: Any) -> str:
    from qgis.core import QgsProcessingParameterDefinition

    flag = QgsProcessingParameterDefinition.Flag
    marks = (("A", flag.FlagAdvanced), ("o", flag.FlagOptional), ("hidden", flag.FlagHidden))
    return "".join(mark for mark, bit in marks if definition.flags() & bit)


def test_the_provider_has_the_six_algorithms(qgis: Any) -> None:
    provider = qgis.provider
    assert (provider.id(), provider.name()) == ("specdeepmap", "SpecDeepMap")
    found = {algorithm.id(): algorithm.displayName() for algorithm in provider.algorithms()}  # models, too
    assert {name: found.get(f"specdeepmap:{name}") for name in NAMES} == TITLES


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_of_the_contract_and_no_dead_ones(name: str, algorithm: Any) -> None:
    present = {definition.name() for definition in algorithm(name).parameterDefinitions()}
    assert present == {parameter for algorithm, parameter in CASES if algorithm == name}


@pytest.mark.parametrize(("name", "parameter"), CASES)
def test_parameter_is_as_promised(name: str, parameter: str, algorithm: Any) -> None:
    wanted, definition = PARAMETERS[name][parameter], algorithm(name).parameterDefinition(parameter)
    assert kind_of(definition) == wanted.kind
    assert flags_of(definition) == wanted.flags
    assert definition.defaultValue() == wanted.default
    if wanted.kind in ("integer", "number"):
        assert wanted.low is None or definition.minimum() == wanted.low
        assert wanted.low is not None or definition.minimum() < -UNBOUNDED
        assert wanted.high is None or definition.maximum() == wanted.high
        assert wanted.high is not None or definition.maximum() >= 2**31 - 1
    if wanted.kind == "enum":
        assert definition.usesStaticStrings()
        assert not definition.allowMultiple()
        if wanted.more:
            assert set(wanted.names) <= set(definition.options())
        else:
            assert tuple(definition.options()) == wanted.names


@pytest.mark.parametrize(("name", "parameter"), CASES)
def test_every_parameter_has_a_label_and_a_help_that_tells_its_default(
    name: str, parameter: str, algorithm: Any
) -> None:
    wanted, definition = PARAMETERS[name][parameter], algorithm(name).parameterDefinition(parameter)
    assert definition.description().strip()
    text = definition.help()
    assert len(text) > 20
    assert text.endswith((".", ")"))
    if wanted.kind == "boolean":
        assert f"Default: {'yes' if wanted.default else 'no'}." in text
    elif isinstance(wanted.default, str):
        assert f"Default: {wanted.default}" in text
    elif wanted.default is not None:
        assert f"Default: {wanted.default:g}".replace("-", "−") in text
    elif "o" in wanted.flags:
        assert "Default: " in text
    else:
        assert "Default" not in text  # mandatory


@pytest.mark.parametrize(("name", "parameter"), [c for c in CASES if PARAMETERS[c[0]][c[1]].kind == "enum"])
def test_the_help_lists_every_name_that_a_script_may_give(name: str, parameter: str, algorithm: Any) -> None:
    definition = algorithm(name).parameterDefinition(parameter)
    words = re.split(r"[\s,;.:()]+", definition.help())
    if (name, parameter) in LISTED_ELSEWHERE:
        assert LISTED_ELSEWHERE[name, parameter] in words
        assert [option for option in PARAMETERS[name][parameter].names if option not in words] == []
        return
    assert [option for option in definition.options() if option not in words] == []


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_those_of_the_contract(name: str, algorithm: Any) -> None:
    declared = {output.name(): output.type() for output in algorithm(name).outputDefinitions()}
    assert declared == OUTPUTS[name]


def test_only_three_destinations_are_mandatory(algorithm: Any) -> None:
    found = {
        (name, definition.name())
        for name in NAMES
        for definition in algorithm(name).destinationParameterDefinitions()
        if "o" not in flags_of(definition)
    }
    assert found == MANDATORY_DESTINATIONS


def test_an_optional_destination_is_not_made_unless_asked_for(algorithm: Any) -> None:
    for name in NAMES:
        for definition in algorithm(name).destinationParameterDefinitions():
            mandatory = (name, definition.name()) in MANDATORY_DESTINATIONS
            assert definition.createByDefault() == mandatory, (name, definition.name())


@pytest.mark.parametrize("name", NAMES)
def test_help_panel_short_description_and_icon(name: str, algorithm: Any) -> None:
    found = algorithm(name)
    assert found.shortHelpString()
    assert found.shortDescription().endswith(".")
    assert not found.icon().isNull()
    assert found.createInstance().name() == name


def test_a_mandatory_value_that_is_missing_is_named(qgis: Any) -> None:
    import processing
    from qgis.core import QgsProcessingException

    with pytest.raises(QgsProcessingException, match="DATASET_FOLDER"):
        processing.run("specdeepmap:trainer", {})
