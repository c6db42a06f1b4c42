# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user meets around a run: icons, help pages, help texts, checks before it, and how results are loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specdeepmap.core.errors import ConfigError
from tests.desktop import CHIPS, NAMES, Chain
from tests.helpers import read_pixels, write_raster

pytestmark = pytest.mark.qgis

UNITS = re.compile(
    r"pixels|%|percent|epochs|seconds|degrees|chips|tiles|threads|checkpoints|image units|standard deviations",
    re.IGNORECASE,
)

WITHOUT_UNIT = {
    ("rastersplitter", "ZERO_AS"),  # a class id
    ("datasetmaker", "SEED"),
    ("trainer", "CLASS_WEIGHT_POWER"),
    ("trainer", "LEARNING_RATE"),
    ("trainer", "WEIGHT_DECAY"),
    ("trainer", "GRADIENT_CLIP"),
    ("trainer", "DEVICES"),
    ("trainer", "SEED"),
    ("tensorboard", "PORT"),
    ("mapper", "DEVICES"),
    ("mapper", "ZERO_AS"),  # a class id
}

UNBOUNDED = {("rastersplitter", "NODATA"), ("mapper", "NODATA")}  # any number may stand for missing data


@pytest.fixture
def algorithm(qgis: Any) -> Callable[[str], Any]:
    from qgis.core import QgsApplication

    return lambda name: QgsApplication.processingRegistry().createAlgorithmById(f"specdeepmap:{name}")


def parameters(algorithm: Callable[[str], Any]) -> list[tuple[str, Any, Any]]:
    """Give all parameters: the algorithm's name, the algorithm, which owns them, and the definition."""
    made = [(name, algorithm(name)) for name in NAMES]
    return [(name, found, definition) for name, found in made for definition in found.parameterDefinitions()]


def complaint(algorithm: Any, values: Mapping[str, Any]) -> str:
    """Give what a dialog would say before a run; empty where the run may begin."""
    from qgis.core import QgsProcessingContext, QgsProject

    context = QgsProcessingContext()
    context.setProject(QgsProject.instance())
    fine, text = algorithm.checkParameterValues(dict(values), context)
    assert fine == (not text)
    return str(text)


# Parameters


def test_every_help_can_be_shown_as_it_is_and_says_its_default(algorithm: Callable[[str], Any]) -> None:
    from qgis.core import QgsProcessingParameterDefinition as Definition

    for name, _, definition in parameters(algorithm):
        text = definition.help()
        assert len(text) > 20, (name, definition.name())
        assert "<" not in text, "a tooltip would take it for HTML"
        mandatory = definition.defaultValue() is None and not definition.flags() & Definition.Flag.FlagOptional
        assert ("Default: " in text) != mandatory, (name, definition.name())


def test_every_number_has_bounds_and_digits_and_names_its_unit(algorithm: Callable[[str], Any]) -> None:
    from qgis.core import QgsProcessingParameterNumber

    without, digits = set(), {}
    for name, _, definition in parameters(algorithm):
        if not isinstance(definition, QgsProcessingParameterNumber):
            continue
        key = (name, definition.name())
        if not UNITS.search(f"{definition.description()} {definition.help()}") or key in WITHOUT_UNIT:
            without.add(key)
        whole = definition.dataType() == QgsProcessingParameterNumber.Type.Integer
        assert (definition.minimum() > -(2**31)) != (key in UNBOUNDED), key
        if not whole:
            assert (definition.maximum() <= 1e6) != (key in UNBOUNDED), key
            digits[key] = definition.metadata()["widget_wrapper"]["decimals"]
    assert without == WITHOUT_UNIT
    assert {digits[key] for key in digits if key[1].endswith("PERCENT")} == {2}
    assert digits["trainer", "LEARNING_RATE"] == 8


def test_every_file_dialog_offers_all_files_and_names_in_capitals(algorithm: Callable[[str], Any]) -> None:
    from qgis.core import QgsProcessingParameterFile, QgsProcessingParameterFileDestination

    seen = 0
    for name, _, definition in parameters(algorithm):
        if isinstance(definition, QgsProcessingParameterFile):
            if definition.behavior() == QgsProcessingParameterFile.Behavior.Folder:
                continue
        elif not isinstance(definition, QgsProcessingParameterFileDestination):
            continue
        seen += 1
        text = definition.fileFilter()
        assert "All files (*)" in text, (name, definition.name())
        endings = set(re.findall(r"\*\.(\w+)", text))
        assert endings
        assert endings == {ending.swapcase() for ending in endings}, (name, definition.name())
    assert seen >= 11


# Icons and help pages


def test_each_algorithm_has_its_own_icon_or_the_plugins(
    algorithm: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qgis.PyQt.QtCore import QSize

    from specdeepmap.algorithms import base

    def pixels(name: str) -> bytes:
        picture = algorithm(name).icon().pixmap(QSize(16, 16)).toImage()
        return bytes(picture.constBits().asarray(picture.sizeInBytes()))

    square = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><rect width="8" height="8" fill="{}"/></svg>'
    (tmp_path / "icons").mkdir()
    (tmp_path / "icons" / "mapper.svg").write_text(square.format("#ff0000"))
    (tmp_path / "icon.svg").write_text(square.format("#0000ff"))
    monkeypatch.setattr(base, "_PACKAGE", tmp_path)
    assert pixels("mapper")[:3] == b"\x00\x00\xff"  # blue, green, red
    assert pixels("tester")[:3] == b"\xff\x00\x00"


def test_help_is_a_page_on_this_computer_where_there_is_one(qgis: Any, tmp_path: Path) -> None:
    from qgis.PyQt.QtCore import QUrl

    from specdeepmap.help import page_url

    folders = [tmp_path / "none", tmp_path / "pages ä #1"]
    page = folders[1] / "algorithms" / "trainer.html"
    page.parent.mkdir(parents=True)
    page.write_text("help")
    address = page_url("algorithms/trainer", folders)
    assert address.isascii()
    assert " " not in address
    assert Path(QUrl(address).toLocalFile()) == page


def test_help_is_on_the_web_where_no_pages_lie_here(qgis: Any, tmp_path: Path) -> None:
    from configparser import ConfigParser

    from specdeepmap.help import page_url
    from tests.desktop import ROOT

    metadata = ConfigParser(interpolation=None)
    metadata.read(ROOT / "metadata.txt", encoding="utf-8")
    home = metadata["general"]["homepage"]
    assert page_url("algorithms/tester", [tmp_path]) == f"{home}/blob/main/docs/algorithms/tester.rst"


@pytest.mark.parametrize("name", NAMES)
def test_the_help_button_opens_something(name: str, algorithm: Callable[[str], Any]) -> None:
    from qgis.PyQt.QtCore import QUrl

    address = QUrl(algorithm(name).helpUrl())
    assert address.isValid()
    assert Path(address.toLocalFile()).is_file() if address.isLocalFile() else address.scheme() == "https"


# Checks before a run


@pytest.fixture
def fine(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Values with which each dialog would start a run."""
    for name in ("data/images", "data/labels", "logs"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("train_files.csv", "test_files.csv", "model.ckpt", "weights.pth"):
        (tmp_path / "data" / name).write_text("")
    image = write_raster(tmp_path / "image.tif", np.ones((2, 16, 16), np.uint8))
    labels = write_raster(tmp_path / "labels.tif", np.ones((1, 16, 16), np.uint8))
    data = tmp_path / "data"
    return {
        "rastersplitter": {"IMAGE": str(image), "LABELS": str(labels), "OUTPUT_FOLDER": "TEMPORARY_OUTPUT"},
        "datasetmaker": {"DATA_FOLDER": str(data)},
        "trainer": {"DATASET_FOLDER": str(data)},
        "tensorboard": {"LOG_FOLDER": str(tmp_path / "logs")},
        "tester": {
            "TEST_CSV": str(data / "test_files.csv"),
            "CHECKPOINT": str(data / "model.ckpt"),
            "SCORES_CSV": "TEMPORARY_OUTPUT",
        },
        "mapper": {"IMAGE": str(image), "CHECKPOINT": str(data / "model.ckpt"), "OUTPUT": "TEMPORARY_OUTPUT"},
    }


@pytest.mark.parametrize("name", NAMES)
def test_good_values_may_run(name: str, algorithm: Callable[[str], Any], fine: dict[str, dict[str, Any]]) -> None:
    assert complaint(algorithm(name), fine[name]) == ""


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("rastersplitter", {"TILE_SIZE_X": 7}, ["TILE_SIZE_X is 7", "at least 8"]),
        ("datasetmaker", {"TRAIN_PERCENT": 100}, ["TRAIN_PERCENT", "VALIDATION_PERCENT", "add up to 120"]),
        ("datasetmaker", {"BUFFER": 5}, ["BUFFER is 5", "SPLIT is stratified"]),
        ("datasetmaker", {"SPLIT": "given"}, ["SPLIT is given", "tiles.gpkg"]),
        ("datasetmaker", {"DATA_FOLDER": "{logs}"}, ["DATA_FOLDER", "holds no folder images/"]),
        ("datasetmaker", {"DATA_FOLDER": "{none}"}, ["DATA_FOLDER", "none does not exist"]),
        ("datasetmaker", {"DATA_FOLDER": "{image}"}, ["DATA_FOLDER", "a folder is needed"]),
        ("trainer", {"DATASET_FOLDER": "{logs}"}, ["DATASET_FOLDER", "train_files.csv", "Dataset Maker"]),
        ("trainer", {"BACKBONE": "resnet19"}, ["BACKBONE is 'resnet19'", "Did you mean", "resnet18"]),
        ("trainer", {"BACKBONE": "tu-"}, ["BACKBONE is 'tu-'"]),
        ("trainer", {"RESUME": True}, ["RESUME", "MODEL_FOLDER"]),
        ("trainer", {"SAVE_TOP_K": 0}, ["SAVE_TOP_K is 0"]),
        ("trainer", {"ARCHITECTURE": "unetplusplus", "BACKBONE": "mit_b0"}, ["unetplusplus", "mit_b0", "resnet18"]),
        ("trainer", {"ARCHITECTURE": "spectral", "PRETRAINED_WEIGHTS": "imagenet"}, ["spectral", "no backbone"]),
        ("trainer", {"PRETRAINED_WEIGHTS": "sentinel2_toa_resnet50"}, ["BACKBONE resnet50", "BACKBONE is resnet18"]),
        ("trainer", {"WEIGHTS_FILE": "{weights}", "PRETRAINED_WEIGHTS": "imagenet"}, ["WEIGHTS_FILE", "both set"]),
        ("trainer", {"WEIGHTS_FILE": "{none}"}, ["WEIGHTS_FILE", "does not exist"]),
        ("trainer", {"LOAD_TABLES": "perhaps"}, ["LOAD_TABLES is 'perhaps'"]),
        ("tensorboard", {"LOG_FOLDER": "{none}"}, ["LOG_FOLDER", "does not exist"]),
        ("tester", {"CHECKPOINT": "{logs}"}, ["CHECKPOINT", "a file is needed"]),
        ("tester", {"SCORES_CSV": "a.csv", "CONFUSION_CSV": "a.csv"}, ["CONFUSION_CSV and SCORES_CSV are"]),
        ("mapper", {"SCORES_CSV": "TEMPORARY_OUTPUT"}, ["SCORES_CSV is set", "GROUND_TRUTH"]),
        ("mapper", {"OUTPUT": "map.png"}, ["OUTPUT is map.png", ".tif"]),
        ("mapper", {"OUTPUT": "map.tif", "MARGIN": "map.tif"}, ["MARGIN and OUTPUT are the same file"]),
        ("mapper", {"CHECKPOINT": "{none}"}, ["CHECKPOINT", "does not exist"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_said_before_a_run(
    name: str,
    given: dict[str, Any],
    said: list[str],
    algorithm: Callable[[str], Any],
    fine: dict[str, dict[str, Any]],
    tmp_path: Path,
) -> None:
    places = {"none": "none", "logs": "logs", "image": "image.tif", "weights": "data/weights.pth"}
    paths = {f"{{{key}}}": str(tmp_path / place) for key, place in places.items()}
    text = complaint(algorithm(name), {**fine[name], **{key: paths.get(value, value) for key, value in given.items()}})
    assert [part for part in said if part not in text] == []


def test_vectors_need_a_field_that_they_have(
    algorithm: Callable[[str], Any], fine: dict[str, dict[str, Any]], qgis: Any
) -> None:
    from qgis.core import QgsProject, QgsVectorLayer

    layer = QgsVectorLayer("Polygon?crs=EPSG:32633&field=crop:string", "my fields", "memory")
    QgsProject.instance().addMapLayer(layer)
    values = {**fine["rastersplitter"], "LABELS": layer.id()}
    assert "CLASS_FIELD is not set, and LABELS my fields" in complaint(algorithm("rastersplitter"), values)
    text = complaint(algorithm("rastersplitter"), {**values, "CLASS_FIELD": "corp"})
    assert "CLASS_FIELD is 'corp'" in text
    assert "It has: crop" in text
    assert complaint(algorithm("rastersplitter"), {**values, "CLASS_FIELD": "crop"}) == ""
    QgsProject.instance().removeMapLayer(layer)


def test_values_that_are_not_known_yet_are_not_judged(
    algorithm: Callable[[str], Any], fine: dict[str, dict[str, Any]]
) -> None:
    from qgis.core import QgsProperty

    wrong = {**fine["datasetmaker"], "TRAIN_PERCENT": 100}
    assert complaint(algorithm("datasetmaker"), wrong)
    later = QgsProperty.fromExpression("10")
    assert complaint(algorithm("datasetmaker"), {**wrong, "VALIDATION_PERCENT": later}) == ""


@pytest.mark.parametrize(
    ("name", "expression", "wanted"),
    [
        ("TILE_SIZE_X", "16 * 2", 32),
        ("TILE_SIZE_X", "NULL", 256),
        ("TILE_SIZE_X", "@not_there", 256),
        ("TILE_SIZE_X", "32.7", "TILE_SIZE_X is '32.7'"),
        ("TILE_SIZE_X", "3x2", "TILE_SIZE_X is the expression 3x2, which cannot be evaluated: "),
        ("TILE_SIZE_X", "nonsense(", "cannot be evaluated: "),
        ("NODATA", "NULL", None),
        ("NODATA", "-9999", -9999),
        ("ZERO_AS", "NULL", None),
        ("EDGES", "'dr' || 'op'", "drop"),
        ("EDGES", "NULL", "pad"),
    ],
)
def test_what_an_expression_gives_counts_and_no_other_value(
    algorithm: Callable[[str], Any], tmp_path: Path, name: str, expression: str, wanted: Any
) -> None:
    """QGIS itself would take 0, or the default, for what cannot be evaluated."""
    from qgis.core import QgsProcessingContext, QgsProcessingException, QgsProperty

    image = write_raster(tmp_path / "i.tif", np.ones((2, 8, 8), np.uint16))
    labels = write_raster(tmp_path / "l.tif", np.ones((8, 8), np.uint8))
    values = {"IMAGE": str(image), "LABELS": str(labels), "OUTPUT_FOLDER": str(tmp_path / "out")}
    values[name] = QgsProperty.fromExpression(expression)
    context, splitter = QgsProcessingContext(), algorithm("rastersplitter")
    splitter.initAlgorithm()
    try:
        found = getattr(splitter.job(values, context), name.lower())
    except (ConfigError, QgsProcessingException) as error:
        assert isinstance(wanted, str) and wanted in str(error)
    else:
        assert found == wanted


@pytest.mark.parametrize(("given", "wanted"), [("no", False), ("true", True), (0, False), (None, True)])
def test_a_flag_as_a_property(algorithm: Callable[[str], Any], chain: Chain, given: Any, wanted: bool) -> None:
    from qgis.core import QgsProcessingContext, QgsProperty

    maker = algorithm("datasetmaker")
    values = {"DATA_FOLDER": str(chain.data), "STATISTICS": QgsProperty.fromValue(given)}
    assert maker.job(values, QgsProcessingContext()).statistics is wanted


def test_a_model_whose_steps_have_no_input_yet_runs(qgis: Any, chain: Chain, tmp_path: Path) -> None:
    from qgis.core import (
        QgsProcessingContext,
        QgsProcessingFeedback,
        QgsProcessingModelAlgorithm,
        QgsProcessingModelChildAlgorithm,
    )
    from qgis.core import QgsProcessingModelChildParameterSource as Source

    data = tmp_path / "made by the model"
    given = {"IMAGE": str(chain.image), "LABELS": str(chain.labels), **CHIPS, "OUTPUT_FOLDER": str(data)}
    model = QgsProcessingModelAlgorithm("from image to sets", "tests")
    steps = {
        "rastersplitter": {name: Source.fromStaticValue(value) for name, value in given.items()},
        "datasetmaker": {"DATA_FOLDER": Source.fromChildOutput("rastersplitter", "OUTPUT_FOLDER")},
    }
    for name, sources in steps.items():
        child = QgsProcessingModelChildAlgorithm(f"specdeepmap:{name}")
        child.setChildId(name)
        for parameter, source in sources.items():
            child.addParameterSources(parameter, [source])
        model.addChildAlgorithm(child)
    context, feedback = QgsProcessingContext(), QgsProcessingFeedback()
    model.initAlgorithm()
    assert model.checkParameterValues({}, context) == (True, "")
    results, fine = model.run({}, context, feedback)
    assert fine, feedback.textLog()
    assert Path(results["CHILD_RESULTS"]["datasetmaker"]["TRAIN_CSV"]).parent == data


def test_the_backbones_known_here_are_those_of_the_library() -> None:
    library = pytest.importorskip("segmentation_models_pytorch")
    from specdeepmap.algorithms.backbones import BACKBONES

    assert sorted(BACKBONES) == sorted(library.encoders.get_encoder_names())


# Results


def load(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Run an algorithm as a dialog does and load its results into an empty project; give the layers by name."""
    from processing.gui.Postprocessing import handleAlgorithmResults
    from qgis.core import QgsApplication, QgsProcessingContext, QgsProcessingFeedback, QgsProject

    project = QgsProject.instance()
    algorithm = QgsApplication.processingRegistry().createAlgorithmById(f"specdeepmap:{name}")
    context, feedback = QgsProcessingContext(), QgsProcessingFeedback()
    context.setProject(project)
    results, fine = algorithm.run(dict(values), context, feedback)
    assert fine, feedback.textLog()
    assert handleAlgorithmResults(algorithm, context, feedback, results), feedback.textLog()
    return {layer.name(): layer for layer in project.mapLayers().values()}


@pytest.fixture
def project(qgis: Any) -> Any:
    from qgis.core import QgsProject

    QgsProject.instance().clear()
    yield QgsProject.instance()
    QgsProject.instance().clear()


def split_of(layer: Any) -> set[str]:
    return {feature["split"] or "" for feature in layer.getFeatures()}


def test_chips_and_split_are_loaded_as_one_coloured_layer(project: Any, chain: Chain, tmp_path: Path) -> None:
    folder = tmp_path / "fields ä"
    given = {"IMAGE": str(chain.image), "LABELS": str(chain.labels), **CHIPS, "OUTPUT_FOLDER": str(folder)}
    layers = load("rastersplitter", given)
    assert list(layers) == [f"Chips of {chain.image.stem}"]
    chips = layers[f"Chips of {chain.image.stem}"]
    assert chips.renderer().type() == "categorizedSymbol"
    assert split_of(chips) == {""}
    layers = load("datasetmaker", {"DATA_FOLDER": str(folder), "TRAIN_PERCENT": 60, "TEST_PERCENT": 30})
    assert list(layers) == ["Split of fields ä"], "the same file, loaded once"
    assert layers["Split of fields ä"].renderer().classAttribute() == "split"
    assert split_of(layers["Split of fields ä"]) == {"train", "validation", "test"}


def test_a_dataset_without_tile_index_loads_nothing(project: Any, chain: Chain, tmp_path: Path) -> None:
    import shutil

    import processing

    chain.splitter  # noqa: B018 - runs it
    copy = shutil.copytree(chain.data, tmp_path / "data", ignore=shutil.ignore_patterns("runs", "tiles.gpkg"))
    assert load("datasetmaker", {"DATA_FOLDER": str(copy)}) == {}
    result = processing.run("specdeepmap:datasetmaker", {"DATA_FOLDER": str(copy)})
    assert "TILE_INDEX" not in result


def test_tables_are_loaded_where_asked_for_and_numbers_are_numbers(project: Any, chain: Chain, tmp_path: Path) -> None:
    import shutil

    chain.splitter  # noqa: B018 - runs it
    copy = shutil.copytree(chain.data, tmp_path / "my data", ignore=shutil.ignore_patterns("runs"))
    layers = load("datasetmaker", {"DATA_FOLDER": str(copy), "LOAD_TABLES": True})
    tables = ("Training files", "Validation files", "Test files", "Class summary", "Band statistics")
    assert set(layers) == {"Split of my data", *(f"{table} of my data" for table in tables)}
    summary = layers["Class summary of my data"]
    kinds = {field.name(): field.typeName() for field in summary.fields()}
    assert (kinds["Class ID"], kinds["Train Percentage"]) == ("longlong", "double")
    assert (kinds["Class Name"], kinds["Scaler"]) == ("text", "text")
    assert summary.featureCount() == len((copy / "Summary_train_val.csv").read_text().splitlines()) - 1
    statistics = {field.name(): field.typeName() for field in layers["Band statistics of my data"].fields()}
    assert statistics["Bad"] == "longlong", "0 and 1 are not false and true"


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("epoch,val_iou\n0,nan\n1,0.5\n", {"epoch": "longlong", "val_iou": "double"}),
        ("true\\predicted,1,2\n1,5,0\n2,0,7\n", {"true\\predicted": "longlong", "1": "longlong", "2": "longlong"}),
        (
            "Class,IoU,Support\n1,0.5,6000000000\nMean IoU,0.5\n",
            {"Class": "text", "IoU": "double", "Support": "longlong"},
        ),
        ("a b,Ä&c\n0.5,x;y\n", {"a b": "double", "Ä&c": "text"}),
    ],
    ids=["nan", "header of numbers", "short last row", "odd names"],
)
def test_types_of_tables(text: str, kinds: dict[str, str], qgis: Any, tmp_path: Path) -> None:
    from qgis.core import QgsProcessingContext, QgsProcessingUtils

    from specdeepmap.algorithms.tables import table_source

    path = tmp_path / "täble #1 & more.csv"
    path.write_text(text, encoding="utf-8")
    context = QgsProcessingContext()  # owns the layer
    layer = QgsProcessingUtils.mapLayerFromString(table_source(path), context)
    assert layer.isValid()
    assert {field.name(): field.typeName() for field in layer.fields()} == kinds
    assert layer.featureCount() == text.count("\n") - 1


@pytest.mark.torch
def test_percent_are_shown_from_0_to_100_and_names_of_the_user_stay(project: Any, chain: Chain) -> None:
    from qgis.core import QgsProcessingOutputLayerDefinition as Definition

    def temporary(name: str = "") -> Any:
        wanted = Definition("TEMPORARY_OUTPUT", project)
        wanted.destinationName = name
        return wanted

    given = {"IMAGE": str(chain.image), "CHECKPOINT": str(chain.checkpoint), "PROBABILITY_FORMAT": "percent"}
    targets = {"OUTPUT": temporary("my own name"), "PROBABILITIES": temporary()}
    layers = load("mapper", {**given, **targets, "DEVICE": "cpu"})
    assert set(layers) == {"my own name", f"Probabilities of {chain.image.stem}"}
    renderer = layers[f"Probabilities of {chain.image.stem}"].renderer()
    assert (renderer.classificationMin(), renderer.classificationMax()) == (0.0, 100.0)


@pytest.mark.torch
def test_layers_that_are_open_show_what_the_last_run_made(project: Any, chain: Chain, tmp_path: Path) -> None:
    """The file gets another one in its place; GDAL goes on with the one that it has open."""
    from qgis.core import QgsProcessingOutputLayerDefinition as Definition
    from qgis.core import QgsRasterLayer

    given = {"IMAGE": str(chain.image), "CHECKPOINT": str(chain.checkpoint), "DEVICE": "cpu"}
    targets = {"OUTPUT": str(tmp_path / "m.tif"), "VECTOR": str(tmp_path / "m.gpkg")}

    def classes_of(layer: Any) -> bytes:
        block = layer.dataProvider().block(1, layer.extent(), layer.width(), layer.height())
        return bytes(block.data())

    def counted(layer: Any) -> int:
        assert layer.featureCount() == sum(1 for _ in layer.getFeatures())
        return int(layer.featureCount())

    own = f"of {chain.image.stem}"
    layers = load("mapper", {**given, **{name: Definition(path, project) for name, path in targets.items()}})
    before = classes_of(layers[f"Map {own}"]), counted(layers[f"Polygons {own}"])
    by_hand = QgsRasterLayer(targets["OUTPUT"], "loaded by hand")
    assert classes_of(by_hand) == before[0]
    project.addMapLayer(by_hand)
    wanted = {name: Definition(path, project) for name, path in targets.items()}
    layers = load("mapper", {**given, **wanted, "MIN_AREA": 100000})
    written = read_pixels(Path(targets["OUTPUT"])).tobytes()
    assert classes_of(layers[f"Map {own}"]) == classes_of(by_hand) == written != before[0]
    assert counted(layers[f"Polygons {own}"]) < before[1]


def render(layer: Any, size: int = 40) -> Any:
    """Draw a layer on nothing: ``(rows, columns, (blue, green, red, alpha))``."""
    from qgis.core import QgsMapRendererParallelJob, QgsMapSettings
    from qgis.PyQt.QtCore import QSize, Qt

    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setExtent(layer.extent())
    settings.setDestinationCrs(layer.crs())
    settings.setOutputSize(QSize(size, size))
    settings.setBackgroundColor(Qt.GlobalColor.transparent)
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    picture = job.renderedImage()
    pixels = bytes(picture.constBits().asarray(picture.sizeInBytes()))  # a copy: the picture goes
    return np.frombuffer(pixels, np.uint8).reshape(size, size, 4)


@pytest.mark.parametrize(("highest", "unit"), [(1.0, ""), (100.0, " %"), (2.08, " nats")])
def test_measures_are_shown_from_zero_to_their_highest_value_and_missing_ones_not(
    highest: float, unit: str, qgis: Any, tmp_path: Path
) -> None:
    from qgis.core import QgsProcessingContext, QgsProcessingFeedback, QgsRasterLayer

    from specdeepmap.algorithms.styles import RampStyle

    values = np.repeat(np.linspace(0.4, 0.6, 40, dtype=np.float32)[None] * highest, 40, axis=0)
    values[:20] = np.nan
    layer = QgsRasterLayer(str(write_raster(tmp_path / "measure.tif", values, nodata=np.nan)), "measure")
    RampStyle(highest, unit).postProcessLayer(layer, QgsProcessingContext(), QgsProcessingFeedback())
    renderer = layer.renderer()
    assert renderer.type() == "singlebandpseudocolor"
    assert (renderer.classificationMin(), renderer.classificationMax()) == (0.0, highest)
    picture = render(layer)
    assert (picture[:20, :, 3] == 0).all()
    assert (picture[20:, :, 3] == 255).all()
    middle = picture[30, 20, 2::-1].astype(int)
    assert abs(middle - [0x21, 0x91, 0x8C]).max() < 25, "half of the range, not of what occurs"


def test_the_ramp_is_perceptually_uniform(qgis: Any) -> None:
    """Lightness grows by nearly equal steps (CIE 1976)."""
    from specdeepmap.algorithms.styles import _VIRIDIS

    rgb = np.array([[int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)] for color in _VIRIDIS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16
    steps = np.diff(lightness)
    assert steps.min() > 0.75 * steps.mean()
    assert steps.max() < 1.25 * steps.mean()


def test_an_output_whose_place_is_computed_is_not_taken_for_skipped(qgis: Any) -> None:
    from qgis.core import QgsProperty

    from specdeepmap.algorithms.parameters import _is_empty

    assert _is_empty(QgsProperty()) and _is_empty(QgsProperty.fromValue(""))
    assert not _is_empty(QgsProperty.fromExpression("@project_folder || '/map.tif'"))
    assert not _is_empty(QgsProperty.fromValue("/a/map.tif"))
