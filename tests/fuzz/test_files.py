# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests with changed files: what reads them gives what it should, or says what is wrong with which file."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from osgeo import gdal
from safetensors.torch import save_file

from specdeepmap.core.data.dataset import CSV_NAMES, STATISTICS_NAME, SUMMARY_NAME, Dataset, read_pairs
from specdeepmap.core.data.labels import LabelRaster
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.tileindex import read_splits
from specdeepmap.core.errors import CheckpointError, ConfigError, SpecDeepMapError
from specdeepmap.core.jobs import Job, TrainJob, job_from_json
from specdeepmap.core.learn.callbacks import read_history
from specdeepmap.core.learn.checkpoint import KEY, ModelCard, load_checkpoint, parse_checkpoint
from specdeepmap.core.learn.weightfile import named_tensors, read_tensors
from specdeepmap.core.progress import Progress
from tests.fuzz.malice import content
from tests.fuzz.mutation import FUZZ, TEXTS, THOROUGH, as_json, changed_bytes, changed_json, changed_table
from tests.helpers import snapshot, write_raster

pytestmark = pytest.mark.torch

LONG = settings(FUZZ, max_examples=2 * FUZZ.max_examples)
FEW = settings(FUZZ, max_examples=FUZZ.max_examples // 4)

SECONDS = 20


@contextmanager
def soon() -> Iterator[None]:
    """Fail where something takes long; only on systems that can."""
    alarm = getattr(signal, "alarm", lambda _: None)
    alarm(SECONDS)
    try:
        yield
    finally:
        alarm(0)


def ends_well(read: Callable[[], Any], named: str) -> Any:
    """Read something; give what came, or None after a sentence that names the file."""
    try:
        with soon():
            return read()
    except SpecDeepMapError as error:
        assert named in str(error), error
        assert 10 < len(str(error)) < 4000, error
        return None


JOBS: list[dict[str, Any]] = [
    {
        **{"job": "tile", "image": "a.tif", "labels": "b.tif", "output_folder": "out", "tile_size_x": 32},
        "classes": [{"value": 1, "name": "water", "color": "#0000ff"}],
    },
    {"job": "prepare", "data_folder": "out", "scaler": 10000.0},
    {"job": "train", "dataset_folder": "out", "epochs": 3, "augment_noise": 0.5, "model_folder": "models"},
    {"job": "tensorboard", "log_folder": "logs", "port": 6006},
    {"job": "evaluate", "test_csv": "out/test_files.csv", "checkpoint": "a.ckpt", "scores_csv": "s.csv"},
    {
        **{"job": "predict", "image": "a.tif", "checkpoint": "a.ckpt", "output": "map.tif"},
        "extent": [0.0, 0.0, 1.0, 1.0],
    },
]


@settings(LONG)
@given(st.sampled_from(JOBS).flatmap(changed_json))
def test_jobs(tmp_path: Path, values: Any) -> None:
    """What is a job stays one when it is saved and read again."""
    try:
        with soon():
            job = job_from_json(json.loads(as_json(values)))
    except ConfigError as error:
        assert 10 < len(str(error)) < 50_000
        return
    assert isinstance(job, Job)
    job.save(tmp_path / "job.json")
    again = job_from_json(json.loads((tmp_path / "job.json").read_text(encoding="utf-8")))
    assert repr(again) == repr(job)  # NaN is unequal to itself


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"dataset_folder": "a\0b"}, "DATASET_FOLDER .* must be a path"),
        ({"dataset_folder": "a\ud800"}, "DATASET_FOLDER .* no text"),
        ({"dataset_folder": "a", "backbone": "a\udfff"}, "BACKBONE .* no text"),
        ({"dataset_folder": "a", "epochs": 10**400}, "EPOCHS .* too|EPOCHS .* this large"),
        ({"dataset_folder": "a", "learning_rate": 10**400}, "LEARNING_RATE"),
        ({"dataset_folder": "a", "loss": "x" * 10**6}, "LOSS is 'xxx"),
        ({"dataset_folder": "a", "x" * 10**6: 1}, "There is no parameter 'xxx"),
        ({"dataset_folder": [[["x" * 10**6]] * 100]}, "DATASET_FOLDER is"),
    ],
)
def test_values_that_no_job_has(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        TrainJob.from_json(values)
    assert len(str(caught.value)) < 2000


CARD = content()[KEY]


@settings(LONG)
@given(changed_json(json.loads(json.dumps(CARD))))
def test_cards(values: Any) -> None:
    """Of a card that is read, everything can be used: rebuilt, and written as JSON."""
    holds = {**content_once(), KEY: values}
    found = ends_well(lambda: parse_checkpoint(holds, Path("model.ckpt"), "CHECKPOINT"), "CHECKPOINT model.ckpt")
    if found is not None:
        card: ModelCard = found[0]
        json.dumps(card.to_json(), ensure_ascii=False).encode()
        assert [len(entry.rgb) for entry in card.classes.entries] == [3] * len(card.classes)
        pixel = np.ones((len(card.bands), 1, 1))
        assert card.normalization.apply(pixel, pixel > 0).shape == pixel.shape
        assert card.chip_width * card.chip_height * len(card.bands) <= 2**30


_CONTENT = content()


def content_once() -> dict[str, Any]:
    return dict(_CONTENT)


@settings(FUZZ)
@given(st.data(), st.sampled_from(["zip", "legacy", "safetensors"]))
def test_bytes_of_checkpoints_and_weights(
    tmp_path: Path, files: dict[str, bytes], data: st.DataObject, kind: str
) -> None:
    path = tmp_path / ("changed.safetensors" if kind == "safetensors" else "changed.ckpt")
    path.write_bytes(data.draw(changed_bytes(files[kind])))
    before = snapshot(tmp_path)
    ends_well(lambda: named_tensors(read_tensors(path, "WEIGHTS_FILE"), f"WEIGHTS_FILE {path}"), str(path))
    ends_well(lambda: load_checkpoint(path), str(path))
    assert snapshot(tmp_path) == before


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A model as a zip archive and in the old format, and weights as safetensors; small, so that changes hit."""
    folder = tmp_path_factory.mktemp("valid")
    holds = content()
    holds["state_dict"] = {"network.a": torch.ones(2, 3), "network.b": torch.ones(4)}
    torch.save(holds, folder / "zip")
    torch.save(holds, folder / "legacy", _use_new_zipfile_serialization=False)
    save_file(holds["state_dict"], folder / "safetensors")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**40, 2**63, 2**64 - 1])
def test_wrong_header_of_safetensors(tmp_path: Path, files: dict[str, bytes], length: int) -> None:
    path = tmp_path / "wrong.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + files["safetensors"][8:])
    with pytest.raises(CheckpointError, match=r"wrong\.safetensors"):
        read_tensors(path, "WEIGHTS_FILE")


SUMMARY = (
    b"Class ID,Train Count,Train Percentage,Validation Count,Validation Percentage,Test Count,Test Percentage,"
    b"Class Train Weight,Scaler,Ignored Background : Class Zero,Class Name,Class Color\n"
    b"1,10,50.00,5,50.00,5,50.00,1.0,10000,Yes,water,#0000ff\n2,10,50.00,5,50.00,5,50.00,1.0,10000,Yes,Wald,#00ff00\n"
)
STATISTICS = b"Band_Number,std,mean,Band_Name,Wavelength,Bad\n1,0.5,0.1,B1,490,0\n2,0.6,0.2,B2,560,0\n"
PAIRS = b"image,mask\nimages/a.tif,labels/a.tif\nimages/b.tif,labels/b.tif\n"

TABLES = {SUMMARY_NAME: SUMMARY, STATISTICS_NAME: STATISTICS, CSV_NAMES["train"]: PAIRS}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    for kind in ("images", "labels"):
        for name in "ab":
            write_raster(folder / kind / f"{name}.tif", np.ones((2 if kind == "images" else 1, 4, 4), np.uint8))
    for name in CSV_NAMES.values():
        (folder / name).write_bytes(PAIRS)
    (folder / SUMMARY_NAME).write_bytes(SUMMARY)
    (folder / STATISTICS_NAME).write_bytes(STATISTICS)
    Dataset.open(folder)
    return folder


@settings(FUZZ)
@given(
    st.data(), st.sampled_from([(SUMMARY_NAME, SUMMARY), (STATISTICS_NAME, STATISTICS), (CSV_NAMES["train"], PAIRS)])
)
def test_tables_of_a_dataset(dataset: Path, data: st.DataObject, table: tuple[str, bytes]) -> None:
    """Of a dataset that is read, all numbers can be used."""
    name, valid = table
    (dataset / name).write_bytes(data.draw(changed_table(valid)))
    before = snapshot(dataset)
    try:
        found: Dataset | None = ends_well(lambda: Dataset.open(dataset), str(dataset))
        if found is not None:
            assert 0 < found.scale < np.inf and all(0 <= weight < np.inf for weight in found.weights)
            assert all(1 <= value <= 255 for value in found.classes.values)
            assert all(len(entry.rgb) == 3 for entry in found.classes.entries)
            counts = ends_well(lambda: found.counts, str(dataset))
            assert counts is None or (counts >= 0).all()
        assert snapshot(dataset) == before
    finally:
        (dataset / name).write_bytes(valid)


@settings(FUZZ)
@given(changed_table(PAIRS))
def test_tables_of_test_chips(dataset: Path, raw: bytes) -> None:
    (dataset / "mine.csv").write_bytes(raw)
    found = ends_well(lambda: read_pairs(dataset / "mine.csv", "TEST_CSV"), "TEST_CSV")
    assert found is None or all(pair.image.is_file() and pair.label.is_file() for pair in found)


def test_chips_may_lie_elsewhere(dataset: Path, tmp_path: Path) -> None:
    """That is how a dataset refers to chips of another folder; a path names a file to read and nothing else."""
    table = tmp_path / "mine.csv"
    table.write_text(f"image,mask\n{dataset}/images/a.tif,../{dataset.name}x/../{tmp_path.name}/mine.csv\n", "utf-8")
    assert read_pairs(table)[0].image == dataset / "images" / "a.tif"
    table.write_text("image,mask\n/vsicurl/http://127.0.0.1:9/x.tif,/vsimem/x\n", "utf-8")
    ends_well(lambda: read_pairs(table, "TEST_CSV"), "does not exist")


HISTORY = b"epoch,train_loss,train_iou,val_loss,val_iou,lr,seconds\n0,1,0.5,1,0.5,0.001,3\n1,1,0.5,1,0.5,0.001,3\n"


@settings(FUZZ)
@given(changed_table(HISTORY))
def test_histories(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "history.csv").write_bytes(raw)
    ends_well(lambda: read_history(tmp_path / "history.csv"), "history.csv")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tile index with two chips."""
    from specdeepmap.core.data.grid import Grid
    from specdeepmap.core.data.tileindex import TileRecord, write_index

    path = tmp_path_factory.mktemp("index") / "tiles.gpkg"
    records = [TileRecord(name, "scene", 0, 0, 100.0, 1, Grid(4, 4)) for name in "ab"]
    write_index(path, records, None, "scene")
    return path


@settings(FEW)
@given(st.lists(TEXTS, min_size=2, max_size=2))
def test_splits_typed_by_hand(tmp_path: Path, index: Path, texts: list[str]) -> None:
    path = tmp_path / "tiles.gpkg"
    shutil.copyfile(index, path)
    wanted = [text.encode("utf-8", "replace").decode().replace("\0", "") for text in texts]
    source = gdal.OpenEx(str(path), gdal.OF_VECTOR | gdal.OF_UPDATE)
    layer = source.GetLayerByName("tiles")
    for feature, text in zip(layer, wanted, strict=True):
        feature.SetField("split", text)
        layer.SetFeature(feature)
    del feature, layer, source
    found = ends_well(lambda: read_splits(path), "tiles.gpkg")
    assert found == dict(zip("ab", (text.strip() for text in wanted), strict=True))


@settings(FEW)
@given(st.data())
def test_bytes_of_a_tile_index(tmp_path: Path, index: Path, data: st.DataObject) -> None:
    path = tmp_path / "tiles.gpkg"
    path.write_bytes(data.draw(changed_bytes(index.read_bytes())))
    ends_well(lambda: read_splits(path), "tiles.gpkg")


SIDE_FILE = (
    b'<PAMDataset><PAMRasterBand band="1"><CategoryNames><Category>none</Category><Category>water</Category>'
    b"</CategoryNames><ColorInterp>Palette</ColorInterp><ColorTable><Entry c1='0' c2='0' c3='0' c4='255'/>"
    b"<Entry c1='1' c2='2' c3='3' c4='255'/></ColorTable><GDALRasterAttributeTable><FieldDefn index='0'>"
    b"<Name>Value</Name><Type>0</Type><Usage>5</Usage></FieldDefn><FieldDefn index='1'><Name>Class</Name>"
    b"<Type>2</Type><Usage>2</Usage></FieldDefn><Row index='0'><F>1</F><F>lake</F></Row></GDALRasterAttributeTable>"
    b"</PAMRasterBand></PAMDataset>"
)


@settings(FEW)
@given(st.data())
def test_side_files_of_labels(tmp_path: Path, data: st.DataObject) -> None:
    path = write_raster(tmp_path / "labels.tif", np.ones((4, 4), np.uint8))
    raw = SIDE_FILE
    for old in data.draw(st.lists(st.sampled_from([b"water", b"lake", b"'1'", b">1<", b"'255'"]), max_size=3)):
        text = data.draw(TEXTS).replace("\0", "").encode("utf-8", "replace")
        raw = raw.replace(old, old[:1] + text + old[-1:] if old[:1] in b"'>" else text)
    raw = data.draw(changed_bytes(raw)) if data.draw(st.booleans()) else raw
    (tmp_path / "labels.tif.aux.xml").write_bytes(raw)

    def table() -> Any:
        labels = LabelRaster(str(path), Raster.open(path).grid, Progress())
        return labels.table(labels.values(Progress()))

    found = ends_well(table, "")
    assert found is None or all(len(entry.rgb) == 3 and entry.name for entry in found.entries)


def test_how_thorough() -> None:
    """The short run is the same every time, and not without examples."""
    assert FUZZ.max_examples >= 100 and FUZZ.derandomize is not THOROUGH
