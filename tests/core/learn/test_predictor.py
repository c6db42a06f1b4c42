# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of a model at work: the same ground gives the same numbers wherever it is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from specdeepmap.core.data.dataset import Dataset
from specdeepmap.core.data.normalization import Normalization
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.tiling import Window, map_windows
from specdeepmap.core.errors import CheckpointError, DeviceError, RasterError
from specdeepmap.core.learn.architectures import ARCHITECTURES, build_network
from specdeepmap.core.learn.checkpoint import load_checkpoint
from specdeepmap.core.learn.loader import Chips, load_chip
from specdeepmap.core.learn.predictor import BATCH_PIXELS, Predictor
from specdeepmap.core.tasks.mapping import Plan, network_input, read_tiles
from tests.helpers import Recorder, write_raster

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    return Predictor(checkpoint, "cpu")


def offsets(name: str) -> tuple[int, int]:
    column, row = name.rsplit("_", 2)[1:]
    return int(column), int(row)


def test_training_tester_and_mapper_see_the_same_bits(dataset_folder: Path, predictor: Predictor) -> None:
    dataset = Dataset.open(dataset_folder)
    pairs = [pair for name in ("train", "validation", "test") for pair in dataset.chips[name]]
    assert dataset.statistics is not None and len(pairs) == 9
    image = Raster.open(dataset_folder.parent / "scene" / "sentinel2_image.tif")
    missing = 0
    for index, pair in enumerate(pairs):
        trained, encoded = Chips(pairs, dataset.classes, dataset.statistics, cached=True)[index]
        tested = load_chip(pair, predictor.card.normalization)
        window = Window(*offsets(pair.name), 32, 32)
        (mapped,) = next(read_tiles(image, Plan(window, (32, 32), 0, 1), predictor.card.normalization))
        seen = network_input([mapped], predictor.card.normalization)
        assert seen is not None
        assert trained.numpy().tobytes() == tested.image.tobytes() == seen[0].tobytes()
        assert np.array_equal(tested.has_data, mapped.has_data)
        assert np.array_equal(dataset.classes.encode(tested.labels), encoded.numpy())
        missing += int((~mapped.has_data).sum())
    assert missing > 0  # the scene has a corner without data


def test_probabilities_of_a_pixel_add_up_to_1(predictor: Predictor) -> None:
    images = [np.random.default_rng(seed).normal(0, 1, (13, 40, 24)).astype(np.float32) for seed in range(3)]
    chances = predictor.probabilities(images)
    assert chances.shape == (3, 7, 40, 24) and chances.dtype == np.float32
    assert chances.min() >= 0
    assert np.allclose(chances.sum(axis=1), 1, atol=1e-5)
    assert chances.max(axis=1).std() > 0


def test_asking_for_probabilities_does_not_change_the_classes(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs that differ by less than probabilities can tell apart: their softmax has the first class win."""
    logits = 5e-8 * torch.randn(1, 7, 24, 24, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(predictor, "network", lambda batch: logits)
    images = [np.zeros((13, 24, 24), np.float32)]
    classes, chances = predictor.both(images)
    assert np.array_equal(classes, predictor.classes(images))
    assert np.array_equal(chances, predictor.probabilities(images))
    assert (classes != chances.argmax(axis=1)).any()


def test_images_do_not_influence_each_other(predictor: Predictor) -> None:
    images = [np.random.default_rng(seed).normal(0, 1, (13, 32, 32)).astype(np.float32) for seed in range(3)]
    together = predictor.probabilities(images)
    alone = np.concatenate([predictor.probabilities([image]) for image in images])
    assert np.allclose(together, alone, atol=1e-5)


def test_the_network_is_the_one_of_the_checkpoint(predictor: Predictor, checkpoint: Path) -> None:
    card, state = load_checkpoint(checkpoint)
    plain = build_network(card.architecture, card.backbone, len(card.bands), len(card.classes)).eval()
    plain.load_state_dict(state)
    images = torch.randn(2, len(card.bands), 40, 24)
    with torch.no_grad():
        assert torch.allclose(predictor.network(images), plain(images), rtol=1e-3, atol=1e-4)
    assert not predictor.network.training


def test_automatic_batch_size(predictor: Predictor) -> None:
    assert predictor.batch_size(32, 32) == BATCH_PIXELS["cpu"] // (32 * 32)
    assert predictor.batch_size(10_000, 10_000) == 1


def test_memory_that_does_not_suffice(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(predictor, "network", full)
    with pytest.raises(DeviceError, match=r"one image of 24 x 40 pixels.*TILE_SIZE 12"):
        predictor.probabilities([np.zeros((13, 40, 24), np.float32)] * 4)


def test_wrong_device_and_wrong_file(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="DEVICE is gpu"):
        Predictor(checkpoint, "gpu")
    with pytest.raises(CheckpointError, match="does not exist"):
        Predictor(tmp_path / "none.ckpt", "cpu")


def raster(path: Path, names: list[str], wavelengths: list[float]) -> Raster:
    metadata = [{"wavelength": f"{nm}", "wavelength_units": "Nanometers"} for nm in wavelengths]
    values = np.ones((len(names), 4, 4), np.int16)
    return Raster.open(write_raster(path, values, names=names, metadata=metadata))


def test_bands_that_differ(predictor: Predictor, tmp_path: Path) -> None:
    names, wavelengths = list(predictor.card.bands), [float(nm or 0) for nm in predictor.card.wavelengths_nm]
    progress = Recorder()
    predictor.check_raster(raster(tmp_path / "same.tif", names, wavelengths), "IMAGE", progress)
    assert not progress.warnings
    with pytest.raises(RasterError, match=r"IMAGE .*few\.tif has 12 bands, but the model was trained on 13"):
        predictor.check_raster(raster(tmp_path / "few.tif", names[1:], wavelengths[1:]), "IMAGE", progress)
    names[2], wavelengths[4] = "other", 1000.0
    predictor.check_raster(raster(tmp_path / "other.tif", names, wavelengths), "IMAGE", progress)
    assert len(progress.warnings) == 2
    assert "3 (B3 / other)" in progress.warnings[0] and "names" in progress.warnings[0]
    assert f"5 ({predictor.card.wavelengths_nm[4]:g} / 1000 nm)" in progress.warnings[1]


def test_many_differing_bands_are_counted(predictor: Predictor, tmp_path: Path) -> None:
    progress = Recorder()
    image = raster(tmp_path / "other.tif", ["x"] * 13, [float(nm or 0) for nm in predictor.card.wavelengths_nm])
    predictor.check_raster(image, "IMAGE", progress)
    assert len(progress.warnings) == 1 and progress.warnings[0].endswith("and 8 more.")


def test_bad_bands_reach_the_network_as_0() -> None:
    normalization = Normalization(scale=1.0, mean=(0.0, 0.0), std=(1.0, 1.0), bad=(False, True))
    values = np.full((2, 3, 3), 7, np.int16)
    assert normalization.apply(values, np.ones(values.shape, bool)).sum() == 63


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_networks_that_see_far_get_tiles_as_large_as_their_chips(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    """In tiles of 512 pixels, U-Net trained on chips of 32 had an overall accuracy of 0.44 instead of 0.91."""
    card = replace(predictor.card, architecture=architecture, backbone="resnet18", chip_width=32, chip_height=24)
    monkeypatch.setattr(predictor, "card", card)
    same = predictor.tile_size(1000, 1000, 3) == (32, 24)
    assert same == ARCHITECTURES[architecture].has_backbone


@pytest.mark.parametrize("chip", [16, 63, 130, 319, 700])
@pytest.mark.parametrize("bands", [3, 200, 2000])
def test_automatic_tiles_have_room_for_the_largest_overlap(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, chip: int, bands: int
) -> None:
    """A tile that is rounded down to the stride would leave nothing between its overlaps."""
    card = replace(predictor.card, architecture="spectral", bands=("b",) * bands, chip_width=chip, chip_height=chip)
    monkeypatch.setattr(predictor, "card", card)
    overlap = round(0.45 * chip)
    for size in (1, chip, 1000, 5000):
        tile, other = predictor.tile_size(size, size, overlap)
        assert tile == other and tile > 2 * overlap and map_windows(size, size, (tile, tile), overlap)
