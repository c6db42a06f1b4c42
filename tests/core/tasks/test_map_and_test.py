# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of mapper and tester together, with a trained U-Net: they say the same of the same ground, without seams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from specdeepmap.core.jobs import EvaluateJob, PredictJob
from specdeepmap.core.learn.checkpoint import load_checkpoint
from specdeepmap.core.progress import Progress
from specdeepmap.core.tasks import perform
from tests.chips import cut, noisy_stripes, train
from tests.helpers import Array, read_pixels, write_raster

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A noisy scene and its labels."""
    folder = tmp_path_factory.mktemp("ground")
    image, labels = noisy_stripes(256, 256)
    return write_raster(folder / "scene.tif", image), write_raster(folder / "truth.tif", labels)


@pytest.fixture(scope="module")
def unet(shared_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net that sees only the surroundings of a pixel, so that the middle of large tiles says the same in all."""
    return train(shared_out, tmp_path_factory.mktemp("unet"), backbone="resnet18", epochs=4).best_checkpoint


def mapped(image: Path, model: Path, target: Path, overlap: float, tile: int = 0) -> Array:
    job = PredictJob(
        image=str(image), checkpoint=model, output=target, device="cpu", precision="float32", overlap=overlap
    )
    perform(PredictJob.from_json({**job.to_json(), "tile_size": tile}), Progress())
    return read_pixels(target)[0]


def predicted(ground: tuple[Path, Path], size: int, model: Path, folder: Path) -> dict[tuple[int, int], Array]:
    """Predict chips of a size with the tester, by column and row of their upper left corner."""
    shares = {"train_percent": 0.0, "validation_percent": 0.0, "test_percent": 100.0, "statistics": False}
    dataset = cut(*ground, folder / "dataset", size, **shares)
    job = EvaluateJob(
        test_csv=dataset / "test_files.csv",
        checkpoint=model,
        device="cpu",
        precision="float32",
        batch_size=1,
        scores_csv=folder / "scores.csv",
        prediction_folder=folder / "predictions",
    )
    perform(job, Progress())
    found = {}
    for path in (folder / "predictions").glob("*.tif"):
        column, row = path.stem.removesuffix("_prediction").rsplit("_", 2)[1:]
        found[int(column), int(row)] = read_pixels(path)[0]
    return found


def test_a_raster_of_one_tile_is_predicted_alike(ground: tuple[Path, Path], unet: Path, tmp_path: Path) -> None:
    image, size = read_pixels(ground[0]), load_checkpoint(unet)[0].chip_width
    for (x, y), chip in predicted(ground, size, unet, tmp_path).items():
        part = write_raster(tmp_path / "part.tif", image[:, y : y + size, x : x + size])
        assert np.array_equal(mapped(part, unet, tmp_path / "map.tif", overlap=0.0), chip)


def test_away_from_the_borders_of_chips_mapper_and_tester_agree(
    ground: tuple[Path, Path], unet: Path, tmp_path: Path
) -> None:
    whole = mapped(ground[0], unet, tmp_path / "map.tif", overlap=10.0, tile=128)
    same = total = 0
    for (x, y), chip in predicted(ground, 128, unet, tmp_path).items():
        inner = np.s_[32:-32, 32:-32]
        same += int((chip[inner] == whole[y : y + 128, x : x + 128][inner]).sum())
        total += chip[inner].size
    assert total == 4 * 64 * 64
    assert same / total >= 0.99


def test_borders_of_tiles_hardly_show(ground: tuple[Path, Path], model: Path, tmp_path: Path) -> None:
    """Against a map made in one tile: without overlap, pixels at borders differ most; with it, they are like others."""
    whole = mapped(ground[0], model, tmp_path / "whole.tif", overlap=10.0, tile=320)
    excess = {}
    for overlap in (0.0, 25.0):
        differs = mapped(ground[0], model, tmp_path / "tiled.tif", overlap=overlap, tile=64) != whole
        at_border = np.zeros(256, bool)
        step = 32 if overlap else 64
        at_border[[edge + side for edge in range(step, 256, step) for side in (-1, 0)]] = True
        near = at_border[:, None] | at_border[None]
        excess[overlap] = differs[near].mean() - differs[~near].mean()
    assert excess[0.0] > 0.1  # otherwise this test sees nothing
    assert excess[25.0] <= 0.5 * excess[0.0]
