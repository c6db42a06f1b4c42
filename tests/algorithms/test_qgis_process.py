# SPDX-License-Identifier: GPL-3.0-or-later
"""The six steps through ``qgis_process``, as users without a display run them; and what it says of bad input."""

from __future__ import annotations

import csv
import json
import os
import pickle
import pty
import re
import select
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from osgeo import gdal

from specdeepmap.core.data.classes import AGREEMENT, ClassTable
from specdeepmap.core.data.scene import CLASSES
from tests.desktop import CHIPS, NAMES, QGIS_PROCESS, ROOT, SMALLEST, Chain, command, environ, run, run_json
from tests.helpers import Array, read_pixels, write_raster

pytestmark = pytest.mark.torch


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """Give the error of a run that failed as it should: not with exit code 0, not with a traceback."""
    everything = done.stdout + done.stderr
    assert done.returncode == 1, everything  # neither success nor a crash
    assert "Traceback" not in everything
    assert 'File "' not in everything
    assert "Something went wrong that should not" not in everything
    assert "Results" not in done.stdout
    return everything


# The chain


def test_splitter(chain: Chain) -> None:
    results = chain.splitter["results"]
    assert results == {
        "OUTPUT_FOLDER": str(chain.data),
        "TILE_COUNT": 9,
        "SKIPPED_COUNT": 0,
        "TILE_INDEX": str(chain.data / "tiles.gpkg"),
    }
    assert len(list((chain.data / "images").glob("*_tile_*.tif"))) == 9


def test_json_on_standard_output_names_inputs_and_version(chain: Chain) -> None:
    """``--json`` was parsed as a whole, so nothing of ours is mixed into it."""
    answer = chain.splitter
    assert answer["algorithm_details"]["id"] == "specdeepmap:rastersplitter"
    assert answer["inputs"]["IMAGE"] == str(chain.image)
    assert answer["provider_details"]["long_name"].startswith("SpecDeepMap ")


def test_maker(chain: Chain) -> None:
    results = chain.maker["results"]
    names = {"TRAIN_CSV", "VALIDATION_CSV", "TEST_CSV", "SUMMARY_CSV", "STATISTICS_CSV"}
    assert {"OUTPUT_FOLDER", *names} <= set(results)
    assert all(Path(results[name]).is_file() for name in names)
    assert results["OUTPUT_FOLDER"] == str(chain.data)


def test_trainer(chain: Chain) -> None:
    results = chain.trainer["results"]
    for name in ("BEST_CHECKPOINT", "LAST_CHECKPOINT", "HISTORY_CSV"):
        assert Path(results[name]).is_file(), name
    assert results["EPOCHS_TRAINED"] == 1
    assert 0 <= results["BEST_VAL_IOU"] <= 1
    assert Path(results["MODEL_FOLDER"]).parent.parent == chain.data / "runs"
    assert list(Path(results["LOG_FOLDER"]).rglob("*tfevents*"))
    assert [text for text in chain.trainer["log"]["info"] if text.startswith("Epoch 1 of 1")]


def test_tester(chain: Chain) -> None:
    results = chain.tester["results"]
    table = list(csv.reader(Path(results["SCORES_CSV"]).read_text(encoding="utf-8").splitlines()))
    assert table[0][:2] == ["Class", "IoU"]
    assert table[-1][0] == "Mean IoU"
    assert float(table[-1][1]) == pytest.approx(results["MEAN_IOU"], abs=1e-4)
    assert results["CONFUSION_CSV"].endswith("scores_confusion.csv")
    tested = len((chain.data / "test_files.csv").read_text().splitlines()) - 1
    assert len(list(Path(results["PREDICTION_FOLDER"]).glob("*_prediction.tif"))) == tested
    assert {"OVERALL_ACCURACY", "MACRO_F1", "KAPPA"} <= set(results)


def test_mapper(chain: Chain) -> None:
    results = chain.mapper["results"]
    assert {"OUTPUT", "CONFIDENCE", "VECTOR", "SCORES_CSV", "MEAN_IOU", "OVERALL_ACCURACY"} <= set(results)
    chosen, missing = read_pixels(Path(results["OUTPUT"]))[0], (read_pixels(chain.image) == 0).all(axis=0)
    assert missing.any()
    assert (chosen == 0).tolist() == missing.tolist()
    confidence = read_pixels(Path(results["CONFIDENCE"]))[0]
    assert np.isnan(confidence).tolist() == missing.tolist()
    polygons = gdal.OpenEx(results["VECTOR"])
    areas: Counter[int] = Counter()
    for feature in polygons.GetLayer(0):
        areas[feature["class_id"]] += feature["area_m2"] / 100  # pixels of 10 m
    values, counts = np.unique(chosen[chosen > 0], return_counts=True)
    # The area is that on the ellipsoid: off the central meridian a pixel of 10 m is a little more than 100 m².
    assert areas == pytest.approx(dict(zip(values.tolist(), counts.tolist(), strict=True)), rel=0.001)


# Of everything that the mapper can write, by the name of the parameter.
MAPPED = {
    **{name: f"{name.lower()}.tif" for name in ("OUTPUT", "CONFIDENCE", "PROBABILITIES", "MARGIN", "ENTROPY")},
    **{"ERROR_MAP": "errors.tif", "VECTOR": "polygons.gpkg", "SCORES_CSV": "scores.csv"},
    "CONFUSION_CSV": "confusion.csv",
}
SETTINGS = {"MIN_AREA": 3, "TTA": True, "BLEND": True, "PROBABILITY_FORMAT": "percent", "TILE_SIZE": 64}


@pytest.fixture(scope="module")
def mapped(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Give the results of a mapping with all there is, set as a script would."""
    folder = tmp_path_factory.mktemp("everything") / "not yet there"
    outputs = {name: folder / file for name, file in MAPPED.items()}
    inputs = {"IMAGE": chain.image, "CHECKPOINT": chain.checkpoint, "GROUND_TRUTH": chain.labels, "DEVICE": "cpu"}
    answer = run_json("mapper", **inputs, **SETTINGS, **outputs)
    (warning,) = answer["log"].get("warning", [])
    assert "trained or validated on chips of an image that is called" in warning  # it was
    results: dict[str, Any] = answer["results"]
    return results


def test_mapper_writes_all_that_is_asked_for(mapped: dict[str, Any], chain: Chain) -> None:
    assert {name: Path(mapped[name]).name for name in MAPPED} == MAPPED
    assert all(Path(mapped[name]).is_file() for name in MAPPED)
    folder = Path(mapped["OUTPUT"]).parent
    assert {path.name for path in folder.iterdir()} - {"output.tif.aux.xml", "errors.tif.aux.xml"} == {*MAPPED.values()}
    chosen, errors = (read_pixels(Path(mapped[name]))[0] for name in ("OUTPUT", "ERROR_MAP"))
    chances, truth = read_pixels(Path(mapped["PROBABILITIES"])), read_pixels(chain.labels)[0]
    assert chances.dtype == np.uint8 and len(chances) == len(CLASSES)  # PROBABILITY_FORMAT has arrived
    assert set(np.unique(chosen)) <= {0, *CLASSES.values}
    counts = (chosen > 0) & (truth > 0)
    assert np.array_equal(errors, np.where(counts, np.where(chosen == truth, 1, 2), 0))
    assert mapped["OVERALL_ACCURACY"] == pytest.approx((errors == 1).sum() / counts.sum())
    table = list(csv.reader(Path(mapped["CONFUSION_CSV"]).read_text(encoding="utf-8").splitlines()))
    assert sum(int(cell) for row in table[1:] for cell in row[1:]) == counts.sum()


def test_mapper_settings_have_arrived(mapped: dict[str, Any], chain: Chain) -> None:
    """MIN_AREA, TTA and BLEND change the map; it would look well without them, too."""
    said = Counter(read_pixels(Path(mapped["OUTPUT"]))[0].ravel().tolist())
    plain = Counter(read_pixels(Path(chain.mapper["results"]["OUTPUT"]))[0].ravel().tolist())
    assert said[0] == plain[0] and said != plain
    polygons = gdal.OpenEx(mapped["VECTOR"])
    assert polygons.GetLayer(0).GetFeatureCount() > 0
    small = [feature for feature in polygons.GetLayer(0) if feature["area_m2"] < 2.9 * 100]
    assert len(small) <= 2  # those alone between missing pixels


@pytest.mark.parametrize(
    ("name", "classes"), [("OUTPUT", CLASSES), ("ERROR_MAP", AGREEMENT)], ids=["the map", "the error map"]
)
def test_layers_show_the_classes_of_the_model_and_no_others(
    mapped: dict[str, Any], chain: Chain, qgis: Any, name: str, classes: ClassTable
) -> None:
    """The colour table of a Byte raster has 256 entries, and QGIS by itself shows all of them."""
    from qgis.core import (
        QgsPalettedRasterRenderer,
        QgsProcessingContext,
        QgsProcessingFeedback,
        QgsProject,
        QgsRasterLayer,
    )

    from specdeepmap.algorithms.mapper import Mapper
    from specdeepmap.core.jobs import PredictJob, PredictResult

    context, path = QgsProcessingContext(), mapped[name]
    context.setProject(QgsProject.instance())
    context.addLayerToLoadOnCompletion(path, QgsProcessingContext.LayerDetails("it", QgsProject.instance(), name))
    job = PredictJob(image=str(chain.image), checkpoint=chain.checkpoint, output=Path(mapped["OUTPUT"]))
    made = {file.lower(): Path(mapped[file]) for file in MAPPED}
    result = PredictResult(**made, mean_iou=0.5, overall_accuracy=0.5, classes=CLASSES.entries)  # type: ignore[arg-type]
    mapper = Mapper()
    mapper.initAlgorithm()
    mapper.finish(job, result, context)
    layer = QgsRasterLayer(path, "it")
    assert layer.isValid()
    style = context.layerToLoadOnCompletionDetails(path).postProcessor()
    style.postProcessLayer(layer, context, QgsProcessingFeedback())
    renderer = layer.renderer()
    assert isinstance(renderer, QgsPalettedRasterRenderer)
    shown = [(entry.value, entry.label, entry.color.name()) for entry in renderer.classes()]
    assert shown == [(entry.value, entry.name, entry.color) for entry in classes.entries]
    # The file itself says the same of these classes, for programs without our style.
    plain = QgsRasterLayer(path, "own")  # its classes go with it
    own = {entry.value: (entry.label, entry.color.name()) for entry in plain.renderer().classes()}
    assert [own[entry.value] for entry in classes.entries] == [(entry.name, entry.color) for entry in classes.entries]


def test_tester_reports(chain: Chain) -> None:
    results = chain.tester["results"]
    numbers = ("MEAN_IOU", "OVERALL_ACCURACY", "MACRO_F1", "AVERAGE_ACCURACY", "WEIGHTED_F1", "CALIBRATION_ERROR")
    assert all(0 <= results[name] <= 1 for name in numbers)
    assert -1 <= results["KAPPA"] <= 1
    report = Path(results["REPORT"])
    assert report.name == "scores_report.html" and report.parent == Path(results["SCORES_CSV"]).parent
    page = report.read_text(encoding="utf-8")
    assert "<html" in page and "http" not in re.sub(r'http://www\.w3\.org/[^"]*', "", page)  # it needs no network
    assert all(entry.name in page for entry in CLASSES.entries)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as page:  # noqa: S310 - an address of our own
            return bool(page.status == 200)
    except urllib.error.URLError:
        return False


def test_tensorboard_answers_as_long_as_told(chain: Chain, tmp_path: Path) -> None:
    logs, seconds = Path(chain.trainer["results"]["LOG_FOLDER"]), 4
    given = {"LOG_FOLDER": logs, "DURATION": seconds, "PORT": 0, "OPEN_BROWSER": False}
    with Terminal(command("tensorboard", given), environ(tmp_path)) as terminal:
        address = terminal.wait_for(r"TensorBoard: (http://127.0.0.1:[0-9]+/)")
        began = time.monotonic()
        assert answers(address)
        time.sleep(seconds / 2)
        assert answers(address)
        text, code = terminal.wait()
    assert code == 0
    assert seconds - 1 < time.monotonic() - began < seconds + 4
    assert f"URL:\t{address}" in text
    assert not answers(address)
    assert children_of(tmp_path) == []
    assert not list((tmp_path / "tmp").glob("specdeepmap-*"))


def test_paths_may_be_relative(chain: Chain, tmp_path: Path) -> None:
    given = {"IMAGE": chain.image.name, "LABELS": chain.labels.name, **CHIPS, "OUTPUT_FOLDER": tmp_path.name}
    done = subprocess.run(
        command("rastersplitter", given),
        env=environ(tmp_path),
        cwd=chain.image.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((chain.image.parent / tmp_path.name / "labels").glob("*.tif"))) == 9
    shutil.rmtree(chain.image.parent / tmp_path.name)


# Bad input: what the values are


@pytest.mark.parametrize(
    ("algorithm", "given", "said"),
    [
        ("trainer", {"EPOCHS": "ten"}, ["EPOCHS is 'ten'", "whole number"]),
        ("trainer", {"EPOCHS": "1.5"}, ["EPOCHS is '1.5'", "whole number"]),
        ("trainer", {"EPOCHS": 0}, ["EPOCHS", "0", "at least 1"]),
        ("trainer", {"LEARNING_RATE": 0}, ["LEARNING_RATE", "0", "greater than 0"]),
        ("trainer", {"EPOCH": 1}, ["'EPOCH'", "Did you mean EPOCHS"]),
        ("trainer", {"ARCHITECTURE": "unet3"}, ["ARCHITECTURE is 'unet3'", "Did you mean unet", "deeplabv3plus"]),
        ("trainer", {"ARCHITECTURE": 1}, ["ARCHITECTURE is '1'", "deeplabv3plus"]),
        ("trainer", {"CLASS_WEIGHTS": "maybe"}, ["CLASS_WEIGHTS is 'maybe'", "true or false"]),
        ("datasetmaker", {"SCALER": "1,5"}, ["SCALER is '1,5'", "decimal point"]),
        ("datasetmaker", {"SCALER": "-1"}, ["SCALER", "-1", "greater than 0"]),
        ("datasetmaker", {"TRAIN_PERCENT": 101}, ["TRAIN_PERCENT", "101", "at most 100"]),
        ("datasetmaker", {"TRAIN_PERCENT": 90, "TEST_PERCENT": 20}, ["TRAIN_PERCENT", "120"]),
        ("datasetmaker", {"SPLIT": "Random"}, ["SPLIT is 'Random'", "Did you mean random"]),
        ("rastersplitter", {"TILE_SIZE_X": 7}, ["TILE_SIZE_X", "7", "at least 8"]),
        ("mapper", {"OVERLAP": 46}, ["OVERLAP", "46", "at most 45"]),
        ("mapper", {"SCORES_CSV": "scores.csv"}, ["SCORES_CSV", "GROUND_TRUTH"]),
        ("mapper", {"VECTOR": "polygons.xyz"}, ["VECTOR", "xyz"]),
        ("mapper", {"OUTPUT": "map.png"}, ["OUTPUT", "png"]),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_bad_values(
    algorithm: str, given: dict[str, Any], said: list[str], scene: dict[str, Any], tmp_path: Path
) -> None:
    good = {
        "trainer": {"DATASET_FOLDER": tmp_path},
        "datasetmaker": {"DATA_FOLDER": tmp_path},
        "rastersplitter": {**scene, "OUTPUT_FOLDER": tmp_path / "out"},
        "mapper": {"IMAGE": scene["IMAGE"], "CHECKPOINT": scene["IMAGE"], "OUTPUT": tmp_path / "map.tif"},
    }
    text = sentence(run(algorithm, **{**good[algorithm], **given}))
    assert [part for part in said if part not in text] == []


@pytest.fixture(scope="module")
def scene(chain: Chain) -> dict[str, Any]:
    return {"IMAGE": chain.image, "LABELS": chain.labels}


# Bad input: what lies behind the values


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.full((64, 64), 300, np.uint16), "300"),
        (np.full((64, 64), -1, np.int16), "-1"),
        (np.full((64, 64), 1.5, np.float32), "1.5"),
    ],
    ids=lambda value: str(value.flat[0]) if isinstance(value, np.ndarray) else "",
)
def test_labels_that_are_no_class_ids(values: Array, said: str, tmp_path: Path) -> None:
    image = write_raster(tmp_path / "image.tif", np.ones((3, 64, 64), np.uint8))
    labels = write_raster(tmp_path / "my labels.tif", values)
    text = sentence(run("rastersplitter", IMAGE=image, LABELS=labels, **CHIPS, OUTPUT_FOLDER=tmp_path / "out"))
    assert "my labels.tif" in text
    assert said in text.replace("−", "-")
    assert not list((tmp_path / "out").rglob("*.tif"))


def test_image_and_labels_without_common_ground(chain: Chain, tmp_path: Path) -> None:
    labels = write_raster(tmp_path / "far.tif", np.ones((64, 64), np.uint8), transform=(9e5, 10, 0, 1e6, 0, -10))
    done = run("rastersplitter", IMAGE=chain.image, LABELS=labels, **CHIPS, OUTPUT_FOLDER=tmp_path / "out")
    text = sentence(done)
    assert "LABELS" in text
    assert "IMAGE" in text
    assert "far.tif" in text


def test_raster_that_does_not_exist(tmp_path: Path, chain: Chain) -> None:
    done = run("rastersplitter", IMAGE=tmp_path / "none.tif", LABELS=chain.labels, OUTPUT_FOLDER=tmp_path / "out")
    text = sentence(done)
    assert "IMAGE" in text
    assert "none.tif" in text


def test_folder_without_chips(tmp_path: Path) -> None:
    text = sentence(run("datasetmaker", DATA_FOLDER=tmp_path))
    assert f"DATA_FOLDER {tmp_path}" in text
    assert "images/" in text


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    text = sentence(run("datasetmaker", DATA_FOLDER=tmp_path / "none"))
    assert "DATA_FOLDER" in text
    assert str(tmp_path / "none") in text


def test_unpaired_chips(chain: Chain, tmp_path: Path) -> None:
    chain.splitter  # noqa: B018
    copy = shutil.copytree(chain.data, tmp_path / "data", ignore=shutil.ignore_patterns("runs"))
    lost = sorted((copy / "labels").glob("*.tif"))[0]
    lost.unlink()
    text = sentence(run("datasetmaker", DATA_FOLDER=copy))
    assert lost.name in text
    assert "labels" in text


@pytest.mark.parametrize(
    ("algorithm", "parameter"),
    [("rastersplitter", "OUTPUT_FOLDER"), ("datasetmaker", "OUTPUT_FOLDER"), ("trainer", "MODEL_FOLDER")],
)
def test_output_folder_whose_place_a_file_takes(algorithm: str, parameter: str, chain: Chain, tmp_path: Path) -> None:
    chain.maker  # noqa: B018
    file = tmp_path / "taken"
    file.write_text("mine")
    good = {
        "rastersplitter": {"IMAGE": chain.image, "LABELS": chain.labels, **CHIPS},
        "datasetmaker": {"DATA_FOLDER": chain.data},
        "trainer": {"DATASET_FOLDER": chain.data, **SMALLEST},
    }
    text = sentence(run(algorithm, **good[algorithm], **{parameter: file / "out"}))
    assert str(file) in text
    assert file.read_text() == "mine"


def test_backbone_that_does_not_exist(chain: Chain) -> None:
    chain.maker  # noqa: B018
    text = sentence(run("trainer", DATASET_FOLDER=chain.data, **{**SMALLEST, "BACKBONE": "resnet19"}))
    assert "BACKBONE is 'resnet19'" in text
    assert "resnet18" in text


class Malice:
    """What a file of pickles may do when it is loaded: anything."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch '{self._mark}'",)


def no_checkpoint(path: Path, good: Path) -> None:
    path.write_text("this is a text")


def truncated(path: Path, good: Path) -> None:
    content = good.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def malicious(path: Path, good: Path) -> None:
    path.write_bytes(pickle.dumps({"specdeepmap": Malice(path.parent / "executed")}))


def absent(path: Path, good: Path) -> None:
    """Leave nothing there."""


@pytest.mark.parametrize("spoil", [no_checkpoint, truncated, malicious, absent])
def test_file_that_is_no_checkpoint(spoil: Callable[[Path, Path], None], chain: Chain, tmp_path: Path) -> None:
    path = tmp_path / "my model.ckpt"
    spoil(path, chain.checkpoint)
    done = run("mapper", IMAGE=chain.image, CHECKPOINT=path, OUTPUT=tmp_path / "map.tif", DEVICE="cpu")
    text = sentence(done)
    assert "CHECKPOINT" in text
    assert "my model.ckpt" in text
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "map.tif").exists()


def test_the_malicious_file_would_have_worked(tmp_path: Path) -> None:
    """Otherwise the test above shows nothing."""
    malicious(tmp_path / "file.ckpt", tmp_path)
    pickle.loads((tmp_path / "file.ckpt").read_bytes())  # noqa: S301 - ours
    assert (tmp_path / "executed").exists()


def test_raster_with_another_band_count_than_the_model(chain: Chain, tmp_path: Path) -> None:
    image = write_raster(tmp_path / "four.tif", np.ones((4, 64, 64), np.uint16))
    done = run("mapper", IMAGE=image, CHECKPOINT=chain.checkpoint, OUTPUT=tmp_path / "map.tif", DEVICE="cpu")
    text = sentence(done)
    assert "IMAGE" in text
    assert "4 bands" in text
    assert "13" in text


def test_folder_without_logs(tmp_path: Path) -> None:
    text = sentence(run("tensorboard", LOG_FOLDER=tmp_path, DURATION=1, PORT=0, OPEN_BROWSER=False))
    assert f"LOG_FOLDER {tmp_path}" in text


# QGIS as it comes


def stock(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run QGIS's own ``qgis_process``, whose Python has no torch, in a home without anything."""
    home = tmp_path / "home"
    ini = tmp_path / "profile" / "profiles" / "default" / "QGIS" / "QGIS3.ini"
    ini.parent.mkdir(parents=True, exist_ok=True)
    ini.write_text("[PythonPlugins]\nspecdeepmap=true\n")
    home.mkdir(exist_ok=True)
    own = environ(tmp_path, HOME=str(home), QGIS_PLUGINPATH=str(ROOT))
    own.pop("SPECDEEPMAP_PYTHON", None)
    return subprocess.run(
        ["qgis_process", *arguments], env=own, capture_output=True, text=True, timeout=60, check=False
    )


def test_stock_qgis_lists_the_six_and_cuts_and_splits_chips(chain: Chain, tmp_path: Path) -> None:
    listed = json.loads(stock(tmp_path, "--json", "list").stdout)["providers"]["specdeepmap"]["algorithms"]
    assert set(listed) == {f"specdeepmap:{name}" for name in (*NAMES, "from_labels_to_map", "train_and_map")}
    data = tmp_path / "data"
    chips = [f"{name}={value}" for name, value in CHIPS.items()]
    places = [f"IMAGE={chain.image}", f"LABELS={chain.labels}", f"OUTPUT_FOLDER={data}"]
    cut = stock(tmp_path, "run", "specdeepmap:rastersplitter", "--", *places, *chips)
    assert cut.returncode == 0, cut.stderr
    made = stock(tmp_path, "run", "specdeepmap:datasetmaker", "--", f"DATA_FOLDER={data}")
    assert made.returncode == 0, made.stderr
    assert (data / "train_files.csv").is_file()


def test_stock_qgis_says_which_command_brings_what_training_needs(chain: Chain, tmp_path: Path) -> None:
    chain.maker  # noqa: B018
    text = sentence(stock(tmp_path, "run", "specdeepmap:trainer", "--", f"DATASET_FOLDER={chain.data}", "EPOCHS=1"))
    assert "No Python with the deep-learning packages" in text and "torch" in text
    assert f'"{ROOT / "specdeepmap" / "core" / "environment"}" install' in text
    assert "/python3" in text
    assert "SPECDEEPMAP_PYTHON" in text


def test_help_on_the_command_line_is_plain_text(tmp_path: Path) -> None:
    done = stock(tmp_path, "help", "specdeepmap:trainer")
    assert done.returncode == 0
    assert "LEARNING_RATE: Learning rate" in done.stdout
    assert not re.search("</?(p|b|i|dl|dd|dt|br)>", done.stdout)


# Ctrl-C


class Terminal:
    """A command in a terminal of its own, so that its lines come when they are said, and Ctrl-C reaches it."""

    def __init__(self, arguments: list[str], own: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            arguments, env=own, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self.text = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._master)

    def wait_for(self, pattern: str, seconds: float = 60) -> str:
        """Read until a pattern turns up; give its first group."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = re.search(pattern, self.text)
            if found:
                return found.group(1)
            assert self._read(), f"it ended without saying {pattern}:\n{self.text}"
        raise AssertionError(f"it did not say {pattern} in time:\n{self.text}")

    def wait(self, seconds: float = 30) -> tuple[str, int]:
        """Read to the end; give all that was said, and the exit code."""
        deadline = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < deadline, f"it does not end:\n{self.text}"
        return self.text, self.process.wait(5)

    def control_c(self) -> None:
        """Do as a terminal does: to all processes in the foreground."""
        os.killpg(self.process.pid, signal.SIGINT)

    def _read(self) -> bool:
        """Read what there is, waiting a little; whether there may be more."""
        if not select.select([self._master], [], [], 0.5)[0]:
            return True
        try:
            part = os.read(self._master, 65536)
        except OSError:  # how a terminal ends on Linux
            return False
        self.text += part.decode(errors="replace").replace("\r\n", "\n")
        return bool(part)


def children_of(folder: Path) -> list[str]:
    """Give the command lines of processes whose job lies in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line and "specdeepmap.core" in line:
            found.append(line)
    return found


def test_control_c_ends_a_training_and_leaves_no_process(chain: Chain, tmp_path: Path) -> None:
    chain.maker  # noqa: B018
    long = {**SMALLEST, "EPOCHS": 5000, "EARLY_STOPPING": False}
    models = tmp_path / "models"
    given = {"DATASET_FOLDER": chain.data, **long, "MODEL_FOLDER": models, "LOG_FOLDER": tmp_path / "logs"}
    with Terminal(command("trainer", given), environ(tmp_path)) as terminal:
        terminal.wait_for("(Epoch 2 of 5000)")
        assert children_of(tmp_path)
        began = time.monotonic()
        terminal.control_c()
        text, code = terminal.wait()
    # qgis_process itself looks for signals every 2 s only, and what was reached is written.
    assert time.monotonic() - began < 10
    assert code == 1
    assert "Canceled." in text
    assert "Traceback" not in text
    assert children_of(tmp_path) == []
    assert list(models.glob("*val_iou*.ckpt"))  # what was reached is kept
    assert not list(models.glob("*.part*"))


def test_the_wrapper_passes_arguments_on_and_keeps_standard_output_clean(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(QGIS_PROCESS), "--version"], env=environ(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith("QGIS 3.")
