# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of mapping with real networks: an identity maps labels to themselves, and every layer says what it should."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from osgeo import gdal
from torch import Tensor, nn

from specdeepmap.core.data.maplayers import MAP, PROBABILITIES, Layers
from specdeepmap.core.data.normalization import Normalization
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.tiling import Window
from specdeepmap.core.errors import Canceled, ConfigError, DeviceError, RasterError
from specdeepmap.core.jobs import PredictJob, PredictResult
from specdeepmap.core.learn import predictor as predictor_module
from specdeepmap.core.learn.architectures import ARCHITECTURES, Architecture
from specdeepmap.core.learn.predictor import Predictor, turned
from specdeepmap.core.tasks.mapping import Plan, map_area, network_input, read_tiles
from specdeepmap.core.tasks.predict import predict_raster
from tests.helpers import Array, Recorder, read_pixels, snapshot, write_raster
from tests.maps import CLASSES, NODATA, invent, write_image, write_model

pytestmark = pytest.mark.torch


class Identity(nn.Module):
    """The band with the largest value is the class."""

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        return images * self.factor


class Surroundings(nn.Module):
    """A network with padding effects: what it says depends on five pixels around."""

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(bands, 8, 5, padding=2), nn.GELU(), nn.Conv2d(8, classes, 7, padding=3))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


@pytest.fixture(autouse=True)
def designs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "identity", Architecture("Identity", "", build=Identity, stride=1, local=True))
    around = Architecture("Surroundings", "", build=Surroundings, stride=4, local=True)
    monkeypatch.setitem(ARCHITECTURES, "surroundings", around)


def run(folder: Path, image: Path, model: Path, progress: Recorder | None = None, **settings: Any) -> PredictResult:
    wanted = {"output": folder / "map.tif", "device": "cpu", "precision": "float32", **settings}
    return predict_raster(PredictJob(image=str(image), checkpoint=model, **wanted), progress or Recorder())


@settings(max_examples=80)
@given(
    width=st.integers(1, 48),
    height=st.integers(1, 48),
    overlap=st.sampled_from([0.0, 10.0, 20.0, 33.0, 45.0]),
    tile=st.sampled_from([0, 16]),
    batch=st.sampled_from([0, 1, 3]),
    missing=st.sampled_from([0.0, 0.1, 0.9]),
    way=st.sampled_from(["plain", "blend", "tta"]),
)
def test_an_identity_maps_labels_to_themselves(
    width: int,
    height: int,
    overlap: float,
    tile: int,
    batch: int,
    missing: float,
    way: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("identity")
    values, wanted = invent(width, height, missing, seed=width * height)
    image, model = write_image(folder / "image.tif", values), write_model(folder / "model.ckpt")
    flags = {} if way == "plain" else {way: True}
    run(folder, image, model, overlap=overlap, tile_size=tile, batch_size=batch, **flags)
    assert np.array_equal(read_pixels(folder / "map.tif")[0], wanted)


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, Array]:
    values, wanted = invent(90, 70)
    values[:, :40, :45] = NODATA  # whole tiles without data
    wanted[:40, :45] = 0
    return write_image(tmp_path / "image.tif", values), wanted


LAYERS = ("confidence", "probabilities", "margin", "entropy")


@pytest.mark.parametrize("way", ["plain", "blend", "tta"])
def test_layers_agree_with_each_other(scene: tuple[Path, Array], tmp_path: Path, way: str) -> None:
    image, wanted = scene
    model = write_model(tmp_path / "model.ckpt", "surroundings")
    flags = {} if way == "plain" else {way: True}
    outputs = {name: tmp_path / f"{name}.tif" for name in LAYERS}
    run(tmp_path, image, model, tile_size=24, overlap=20.0, **outputs, **flags)
    data = wanted > 0
    classes = read_pixels(tmp_path / "map.tif")[0]
    confidence, chances, margin, entropy = (read_pixels(path) for path in outputs.values())
    assert np.array_equal(classes > 0, data)
    for layer in (confidence, chances, margin, entropy):
        assert layer.dtype == np.float32 and np.array_equal(np.isfinite(layer), np.broadcast_to(data, layer.shape))
    assert np.allclose(chances[:, data].sum(axis=0), 1, atol=1e-5)
    assert np.array_equal(confidence[0][data], chances.max(axis=0)[data])
    assert np.array_equal(classes[data], np.array(CLASSES.values)[chances.argmax(axis=0)][data])
    ordered = np.sort(chances, axis=0)
    assert np.allclose(margin[0][data], (ordered[2] - ordered[1])[data], atol=1e-6)
    assert entropy[0][data].min() >= 0 and entropy[0][data].max() <= np.float32(np.log(3))
    assert np.allclose(entropy[0][data], -(chances * np.log(chances)).sum(axis=0)[data], atol=1e-4)
    alone = run(tmp_path, image, model, output=tmp_path / "alone.tif", tile_size=24, overlap=20.0, **flags)
    assert np.array_equal(read_pixels(alone.output)[0], classes)


def test_probabilities_in_percent(scene: tuple[Path, Array], tmp_path: Path) -> None:
    image, wanted = scene
    model = write_model(tmp_path / "model.ckpt", "surroundings")
    run(tmp_path, image, model, probabilities=tmp_path / "float.tif")
    run(tmp_path, image, model, probabilities=tmp_path / "percent.tif", probability_format="percent")
    exact, percent = read_pixels(tmp_path / "float.tif"), read_pixels(tmp_path / "percent.tif")
    data = np.broadcast_to(wanted > 0, exact.shape)
    assert percent.dtype == np.uint8 and (percent[~data] == 255).all()
    assert np.abs(percent[data] / 100 - exact[data]).max() <= 0.005 + 1e-6
    raster = gdal.Open(str(tmp_path / "percent.tif"))
    assert [raster.GetRasterBand(n).GetDescription() for n in (1, 2, 3)] == ["water", "Wald", "Äcker"]
    assert raster.GetRasterBand(2).GetNoDataValue() == 255


def test_the_map_says_what_made_it(scene: tuple[Path, Array], tmp_path: Path) -> None:
    run(tmp_path, scene[0], write_model(tmp_path / "model.ckpt"))
    notes = gdal.Open(str(tmp_path / "map.tif")).GetMetadata()
    assert notes["MODEL"] == "model.ckpt" and notes["MODEL_NETWORK"] == "Identity"
    assert notes["MODEL_DATE"] == "2026-01-01T00:00:00+00:00"
    assert notes["TIFFTAG_SOFTWARE"].startswith("SpecDeepMap ") and len(notes["TIFFTAG_DATETIME"]) == 19
    assert str(tmp_path) not in "".join(notes.values())


def test_shifting_the_image_shifts_the_map(tmp_path: Path) -> None:
    """For a network that sees no further than its tile's overlap, the place of tile borders makes no difference."""
    values, _ = invent(80, 70, missing=0.0)
    model = write_model(tmp_path / "model.ckpt", "surroundings")
    run(tmp_path, write_image(tmp_path / "image.tif", values), model, tile_size=25, overlap=24.0)
    whole = read_pixels(tmp_path / "map.tif")[0]
    for x, y in ((1, 0), (0, 3), (7, 11)):
        part = write_image(tmp_path / "part.tif", values[:, y:, x:])
        run(tmp_path, part, model, output=tmp_path / "shifted.tif", tile_size=25, overlap=24.0)
        assert np.array_equal(read_pixels(tmp_path / "shifted.tif")[0][8:-8, 8:-8], whole[y:, x:][8:-8, 8:-8])


def test_blending_leaves_no_edge_where_two_tiles_disagree(tmp_path: Path) -> None:
    """Cropped tiles of a network that sees the border jump there; blended ones do not."""
    values = np.broadcast_to(np.arange(120, dtype=np.int16)[None, None], (3, 40, 120)).copy()
    image, model = write_image(tmp_path / "image.tif", values), write_model(tmp_path / "model.ckpt", "surroundings")
    card_scale = {"normalization": Normalization(scale=100.0, mean=(0.0,) * 3, std=(1.0,) * 3, bad=(False,) * 3)}
    write_model(model, "surroundings", **card_scale)
    steps = {}
    for blend in (False, True):
        path = tmp_path / f"{blend}.tif"
        run(tmp_path, image, model, tile_size=40, overlap=10.0, probabilities=path, blend=blend)
        steps[blend] = np.abs(np.diff(read_pixels(path)[0, 20]))
    run(tmp_path, image, model, tile_size=160, overlap=10.0, probabilities=tmp_path / "whole.tif")
    smooth = np.abs(np.diff(read_pixels(tmp_path / "whole.tif")[0, 20])).max()
    assert steps[True].max() <= steps[False].max() + 1e-6
    assert steps[True].max() < 1.5 * smooth + 0.01


class Tardy(Identity):
    """An identity that is slow with the tile that has the class of the first band in its first pixel."""

    def forward(self, images: Tensor) -> Tensor:
        if images[0, :, 0, 0].argmax() == 0:
            time.sleep(0.05)
        return super().forward(images)


@pytest.mark.parametrize("way", ["plain", "blend"])
def test_tiles_that_are_done_out_of_order_come_to_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    tardy = Architecture("Tardy", "", build=Tardy, stride=1, local=True)
    monkeypatch.setitem(ARCHITECTURES, "tardy", tardy)
    monkeypatch.setattr("torch.get_num_threads", lambda: 3)
    given: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", given.append)
    values, wanted = invent(64, 48)
    image, model = write_image(tmp_path / "image.tif", values), write_model(tmp_path / "model.ckpt", "tardy")
    run(tmp_path, image, model, tile_size=16, batch_size=1, overlap=10.0, blend=way == "blend")
    assert np.array_equal(read_pixels(tmp_path / "map.tif")[0], wanted)
    assert given == [1, 3], "each of three threads has a core; afterwards all is as it was"


def test_what_fails_beside_the_others_is_told_and_leaves_nothing(
    scene: tuple[Path, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Normalization.apply, []

    def scarce(self: Normalization, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            raise MemoryError
        return real(self, *arguments)

    monkeypatch.setattr(Normalization, "apply", scarce)
    cores = torch.get_num_threads()
    with pytest.raises(DeviceError, match=r"tiles of 16 x 16 pixels with 3 bands\. Take a smaller TILE_SIZE"):
        run(tmp_path, scene[0], write_model(tmp_path / "model.ckpt"), tile_size=16, batch_size=1)
    assert torch.get_num_threads() == cores
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.tif", "model.ckpt"]


def test_a_cancel_stops_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    progress, seen = Recorder(), []
    real = Predictor.classes

    def watched(self: Predictor, images: Any) -> Any:
        seen.append(1)
        if len(seen) == 3:
            progress.cancel()
        return real(self, images)

    monkeypatch.setattr(Predictor, "classes", watched)
    image = write_image(tmp_path / "image.tif", invent(160, 160)[0])
    with pytest.raises(Canceled):
        run(tmp_path, image, write_model(tmp_path / "model.ckpt"), progress, tile_size=16, batch_size=1)
    assert len(seen) < 10 and not (tmp_path / "map.tif").exists()


@pytest.mark.parametrize("blended", [False, True])
@pytest.mark.parametrize("processes", [2, 3, 9])
def test_processes_that_share_the_tiles_make_the_map_of_one(
    scene: tuple[Path, Array], tmp_path: Path, blended: bool, processes: int
) -> None:
    image, model = Raster.open(scene[0]), write_model(tmp_path / "model.ckpt", "surroundings")
    predictor = Predictor(model, "cpu", "float32")
    area = Window(3, 2, 80, 60)
    grid = image.grid.cut(area)

    def mapped(number: int, count: int) -> tuple[dict[str, Path], int]:
        plan = Plan(area, (24, 24), 4, 2, blended, (number, count))
        top, end = plan.reach
        files = {name: tmp_path / f"{name}_{number}_{count}.tif" for name in (MAP, PROBABILITIES)}
        with Layers(files, grid.cut(Window(0, top, 80, max(end - top, 1))), top, CLASSES, {}) as layers:
            map_area(image, plan, predictor, layers, Recorder())
        return (files, top) if end > top else ({}, 0)

    alone, _ = mapped(0, 1)
    parts = [part for part in (mapped(number, processes) for number in range(processes)) if part[0]]
    files = {name: tmp_path / f"{name}.tif" for name in (MAP, PROBABILITIES)}
    with Layers(files, grid, 0, CLASSES, {}) as layers:
        layers.join(parts, Recorder())
    for name in files:
        assert np.array_equal(read_pixels(files[name]), read_pixels(alone[name]), equal_nan=True)
    assert len(parts) == min(processes, len(Plan(area, (24, 24), 4, 2).rows))


def test_small_patches_join_their_neighbours_in_map_polygons_and_scores_only(tmp_path: Path) -> None:
    values, _ = invent(40, 40, missing=0.0)
    index = np.zeros((40, 40), int)
    index[:, 20:] = 1
    index[5:7, 5:7] = 2
    values[:] = 0
    np.put_along_axis(values, index[None], 50, axis=0)
    image, model = write_image(tmp_path / "image.tif", values), write_model(tmp_path / "model.ckpt")
    clean = np.where(np.arange(40) < 20, 2, 5)[None].repeat(40, axis=0).astype(np.uint8)
    truth = write_raster(tmp_path / "truth.tif", clean, nodata=0)
    sure = {"confidence": tmp_path / "sure.tif"}
    raw = run(tmp_path, image, model, ground_truth=str(truth), **sure)
    before = read_pixels(tmp_path / "sure.tif")
    assert raw.overall_accuracy == pytest.approx(1 - 4 / 1600)
    result = run(tmp_path, image, model, ground_truth=str(truth), min_area=5, vector=tmp_path / "map.gpkg", **sure)
    assert np.array_equal(read_pixels(tmp_path / "map.tif")[0], clean)
    assert result.overall_accuracy == 1.0 and np.array_equal(read_pixels(tmp_path / "sure.tif"), before)
    source = gdal.OpenEx(str(tmp_path / "map.gpkg"))
    assert source.GetLayer(0).GetFeatureCount() == 2
    raster = gdal.Open(str(tmp_path / "map.tif"))
    raster.GetMetadata()
    assert raster.GetRasterBand(1).GetCategoryNames() == CLASSES.category_names()
    assert raster.GetRasterBand(1).GetNoDataValue() == 0 and raster.GetMetadata()["MODEL"] == "model.ckpt"
    assert not list(tmp_path.glob(".*"))


def test_the_error_map_tells_where(scene: tuple[Path, Array], tmp_path: Path) -> None:
    image, wanted = scene
    truth = wanted.copy()
    truth[60:] = 0
    truth[50:55] = np.where(truth[50:55] == 2, 5, 2)
    labels = write_raster(tmp_path / "truth.tif", truth, nodata=0)
    model = write_model(tmp_path / "model.ckpt")
    outputs = {"error_map": tmp_path / "errors.tif", "confusion_csv": tmp_path / "confusion.csv"}
    run(tmp_path, image, model, ground_truth=str(labels), **outputs)
    counted = (wanted > 0) & (truth > 0)
    errors = read_pixels(tmp_path / "errors.tif")[0]
    assert np.array_equal(errors, np.where(counted, np.where(wanted == truth, 1, 2), 0))
    rows = (tmp_path / "confusion.csv").read_text("utf-8").splitlines()
    total = sum(int(cell) for row in rows[1:] for cell in row.split(",")[1:])
    assert total == counted.sum()


@pytest.mark.parametrize("name", ["scores_csv", "confusion_csv", "error_map"])
def test_what_needs_ground_truth_says_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name.upper()} is set, but it needs GROUND_TRUTH"):
        run(tmp_path, tmp_path / "image.tif", tmp_path / "model.ckpt", **{name: tmp_path / "out.tif"})


def test_wrong_labels_are_found_before_the_work(scene: tuple[Path, Array], tmp_path: Path) -> None:
    truth = np.where(scene[1] > 0, 300, 0).astype(np.int16)
    labels = write_raster(tmp_path / "truth.tif", truth)
    progress = Recorder()
    model = write_model(tmp_path / "model.ckpt")
    with pytest.raises(Exception, match="holds the value 300"):
        run(tmp_path, scene[0], model, progress, ground_truth=str(labels))
    assert max(progress.shares, default=0) <= 0.02 and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("how", ["name", "wavelength"])
def test_bands_in_another_order_are_found(scene: tuple[Path, Array], tmp_path: Path, how: str) -> None:
    values = read_pixels(scene[0])
    extra = np.full_like(values[0], 7)
    bands = {"blue": 490, "nir": 842, "Red": 666, "green": 559}
    metadata = [{"wavelength": str(nm), "wavelength_units": "Nanometers"} for nm in bands.values()]
    stacked = np.stack([values[2], extra, values[0], values[1]])
    other = write_raster(tmp_path / "other.tif", stacked, nodata=NODATA, names=list(bands), metadata=metadata)
    model = write_model(tmp_path / "model.ckpt")
    with pytest.raises(RasterError, match="has 4 bands, but the model was trained on 3"):
        run(tmp_path, other, model)
    run(tmp_path, other, model, match_bands=how)
    assert np.array_equal(read_pixels(tmp_path / "map.tif")[0], scene[1])


def test_ground_truth_with_other_names_is_warned_of(scene: tuple[Path, Array], tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.ckpt")
    for name in (CLASSES.names[0], "something else"):
        truth = write_raster(tmp_path / "truth.tif", scene[1].astype(np.uint8), categories={CLASSES.values[0]: name})
        progress = Recorder()
        run(tmp_path, scene[0], model, progress, ground_truth=str(truth))
        said = [text for text in progress.warnings if text.startswith("GROUND_TRUTH: classes have other names")]
        assert len(said) == (name == "something else")


def test_values_in_another_unit_are_warned_of(scene: tuple[Path, Array], tmp_path: Path) -> None:
    model = write_model(
        tmp_path / "model.ckpt",
        normalization=Normalization(scale=1.0, mean=(2000.0,) * 3, std=(900.0,) * 3, bad=(False,) * 3),
    )
    progress = Recorder()
    run(tmp_path, scene[0], model, progress)
    assert any("values are much smaller" in text for text in progress.warnings)


def test_turns_are_undone() -> None:
    images = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    seen = set()
    for turn in range(8):
        there = turned(images, turn)
        assert torch.equal(turned(there, turn, back=True), images)
        seen.add(tuple(there[0, 0].flatten().tolist()))
    assert len(seen) == 8


def test_tta_averages_the_eight_turns(tmp_path: Path) -> None:
    predictor = Predictor(write_model(tmp_path / "model.ckpt", "surroundings"), "cpu", "float32")
    together = Predictor(tmp_path / "model.ckpt", "cpu", "float32", turns=True)
    image = np.random.default_rng(1).normal(0, 1, (3, 12, 20)).astype(np.float32)
    total = np.zeros((3, 12, 20))
    for turn in range(8):
        there = np.swapaxes(image, 1, 2) if turn & 4 else image
        axes = [axis for axis, bit in ((2, 1), (1, 2)) if turn & bit]
        chances = np.flip(predictor.probabilities([np.ascontiguousarray(np.flip(there, axes))])[0], axes)
        total += np.swapaxes(chances, 1, 2) if turn & 4 else chances
    assert np.allclose(together.probabilities([image])[0], total / 8, atol=1e-6)
    assert not np.allclose(together.probabilities([image])[0], predictor.probabilities([image])[0], atol=1e-3)
    assert np.array_equal(together.classes([image])[0], total.argmax(axis=0))


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A memory for two images at a time."""
    sizes: list[int] = []
    real = Predictor._run

    def little(self: Predictor, images: Any, read: Any) -> Any:
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, images, read)

    monkeypatch.setattr(predictor_module.Predictor, "_run", little)
    yield sizes


def test_batches_that_do_not_fit_are_halved(tmp_path: Path, scarce: list[int]) -> None:
    predictor = Predictor(write_model(tmp_path / "model.ckpt"), "cpu", "float32")
    images = [np.random.default_rng(seed).normal(0, 1, (3, 8, 8)).astype(np.float32) for seed in range(8)]
    classes = predictor.classes(images)
    assert np.array_equal(classes, np.stack([image.argmax(axis=0) for image in images]))
    assert scarce == [8, 4, 2, 2, 2, 2]
    predictor.classes(images[:4])
    assert scarce[6:] == [2, 2]


def test_one_image_that_does_not_fit_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(self: Predictor, images: Any, read: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(predictor_module.Predictor, "_run", nothing)
    predictor = Predictor(write_model(tmp_path / "model.ckpt"), "cpu", "float32")
    with pytest.raises(DeviceError, match=r"one image of 8 x 6 pixels.*TILE_SIZE 3"):
        predictor.classes([np.zeros((3, 6, 8), np.float32)])


def test_no_other_file_is_touched_when_the_output_is_an_input(scene: tuple[Path, Array], tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.ckpt")
    before = snapshot(tmp_path)
    for name in ("output", "margin", "error_map"):
        with pytest.raises(ConfigError, match="are the same file"):
            run(tmp_path, scene[0], model, ground_truth=str(scene[0]), **{name: scene[0]})
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("way", ["plain", "probabilities", "blend", "tta"])
def test_where_the_network_gives_no_number_there_is_no_class(tmp_path: Path, way: str) -> None:
    """The naive map has the first class there: the largest of NaNs stands at index 0."""
    values, _ = invent(60, 50, missing=0.0)
    values = values.astype(np.float32)
    values[0, 20, 30] = 3e38  # becomes infinite when it is scaled
    image = write_raster(tmp_path / "image.tif", values)
    narrow = Normalization(scale=1.0, mean=(0.0,) * 3, std=(0.1,) * 3, bad=(False,) * 3)
    model = write_model(tmp_path / "model.ckpt", "surroundings", normalization=narrow)
    outputs = {} if way == "plain" else {"probabilities": tmp_path / "p.tif", "probability_format": "percent"}
    flags = {way: True} if way in ("blend", "tta") else {}
    progress = Recorder()
    run(tmp_path, image, model, progress, **outputs, **flags)
    lost = read_pixels(tmp_path / "map.tif")[0] == 0
    assert lost[20, 30] and 0 < lost.sum() < 300 and not lost[:5].any()
    if outputs:
        assert np.array_equal((read_pixels(tmp_path / "p.tif") == 255).all(axis=0), lost)
    assert any(f"{lost.sum()} pixels got no class" in text for text in progress.warnings)


def test_an_image_without_data_is_told(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.tif", np.full((3, 20, 20), NODATA, np.int16))
    progress = Recorder()
    run(tmp_path, image, write_model(tmp_path / "model.ckpt"), progress)
    assert (read_pixels(tmp_path / "map.tif") == 0).all()
    assert any("no pixel with data" in text for text in progress.warnings)


def test_the_share_of_the_work_is_whole_at_the_end_only(tmp_path: Path) -> None:
    values, _ = invent(700, 600)
    image, model = write_image(tmp_path / "image.tif", values), write_model(tmp_path / "model.ckpt")
    progress = Recorder()
    run(tmp_path, image, model, progress, confidence=tmp_path / "sure.tif", vector=tmp_path / "map.gpkg")
    assert progress.shares.count(1.0) == 1 and progress.shares[-1] == 1.0


def test_what_an_image_is_made_of_is_not_overwritten(scene: tuple[Path, Array], tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.ckpt")
    gdal.Translate(str(tmp_path / "link.vrt"), str(scene[0]), format="VRT")
    gdal.BuildVRT(str(tmp_path / "nested.vrt"), [str(tmp_path / "link.vrt")])
    gdal.Warp(str(tmp_path / "warped.vrt"), str(tmp_path / "nested.vrt"), format="VRT")
    before = snapshot(tmp_path)
    for name in ("link.vrt", "nested.vrt", "warped.vrt"):
        with pytest.raises(ConfigError, match="OUTPUT and IMAGE are the same file"):
            run(tmp_path, tmp_path / name, model, output=scene[0])
    with pytest.raises(ConfigError, match="VECTOR and CHECKPOINT are the same file"):
        run(tmp_path, scene[0], model, vector=tmp_path / "model.json")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("asked", [{"min_area": 2**31}, {"tile_size": 10**6}, {"tile_size": 10**6, "overlap": 45.0}])
def test_senseless_sizes_do_no_harm(scene: tuple[Path, Array], tmp_path: Path, asked: dict[str, Any]) -> None:
    run(tmp_path, scene[0], write_model(tmp_path / "model.ckpt"), **asked)
    assert np.array_equal(read_pixels(tmp_path / "map.tif")[0] > 0, scene[1] > 0)


def test_a_wide_stretch_without_data_is_read_bit_by_bit(tmp_path: Path) -> None:
    """Tiles without data fill no batch; a row of them must not be one batch, which no cancel can interrupt."""
    image = write_image(tmp_path / "image.tif", np.full((3, 16, 3000), NODATA, np.int16))
    plan = Plan(Window(0, 0, 3000, 16), (16, 16), 0, 2)
    sizes = [len(batch) for batch in read_tiles(Raster.open(image), plan, Normalization.none(3))]
    assert sum(sizes) == 188 and max(sizes) <= 16


@pytest.mark.parametrize("bands", [3, 60])
@pytest.mark.parametrize("batch", [2, 5, 100])
@pytest.mark.parametrize("missing", [0, 40])
def test_tiles_read_together_are_those_read_alone(tmp_path: Path, bands: int, batch: int, missing: int) -> None:
    """Borders are mirrored, some tiles have no data; 60 bands that lie pixel by pixel stay so."""
    random = np.random.default_rng(bands)
    image = random.integers(1, 500, (bands, 37, 90)).astype(np.int16)
    image[:, :, 30 : 30 + missing] = NODATA
    image[0, 5, 80] = NODATA
    options = ("TILED=YES", "BLOCKXSIZE=16", "BLOCKYSIZE=16", "INTERLEAVE=PIXEL")
    raster = Raster.open(write_raster(tmp_path / "image.tif", image, nodata=NODATA, options=options))
    normalization = Normalization.none(bands, bad=(True,) + (False,) * (bands - 1))
    area = Window(4, 2, 86, 35)
    batches = list(read_tiles(raster, Plan(area, (16, 12), 3, batch), normalization))
    together = [tile for tiles in batches for tile in tiles]
    alone = [tile for tiles in read_tiles(raster, Plan(area, (16, 12), 3, 1), normalization) for tile in tiles]
    assert len(alone) == len(together) > 20
    assert {tile.raw is None for tile in alone} == {missing > 0, False}
    for one, other in zip(alone, together, strict=True):
        assert (one.row, one.column, one.window) == (other.row, other.column, other.window)
        assert np.array_equal(one.has_data, other.has_data)
        values, valid = raster.read_padded(one.window.read.moved(area.x, area.y), mirror=True)
        assert np.array_equal(other.has_data, valid[1:].any(axis=0))
        seen = network_input([other], normalization)
        assert (seen is None) == (other.raw is None) == (not other.has_data.any())
        if other.raw is not None:
            assert np.array_equal(other.raw[0], values) and np.array_equal(other.raw[1], valid)
            assert (other.raw[0].strides[0] == 2) == (bands == 60)
            assert seen is not None and seen[0].tobytes() == normalization.apply(values, valid).tobytes()


def test_tiles_beside_empty_ones_do_not_hold_all_that_was_read(tmp_path: Path) -> None:
    """A batch gathers tiles with data from far and wide: with the whole strip of each it would take many times more."""
    image = np.full((3, 16, 1600), NODATA, np.int16)
    image[:, :, ::320] = 7
    plan = Plan(Window(0, 0, 1600, 16), (16, 16), 0, 10)
    raster = Raster.open(write_image(tmp_path / "image.tif", image))
    raw = [tile.raw for batch in read_tiles(raster, plan, Normalization.none(3)) for tile in batch if tile.raw]
    assert len(raw) == 5
    for values, valid in raw:
        assert values.base is None or values.base.nbytes == values.nbytes
        assert valid.base is None or valid.base.nbytes == valid.nbytes
