# SPDX-License-Identifier: GPL-3.0-or-later
"""Small datasets and small trainings, made with the core's own tasks."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from specdeepmap.core.data.scene import make_scene
from specdeepmap.core.data.splits import SPLIT_NAMES
from specdeepmap.core.jobs import PrepareJob, PrepareResult, TileJob, TrainJob, TrainResult
from specdeepmap.core.progress import Progress
from specdeepmap.core.tasks import perform
from specdeepmap.core.tasks.prepare import make_dataset
from specdeepmap.core.tasks.tile import tile_raster
from tests.helpers import Array, Recorder, write_raster

TINY = "tu-test_resnet"
"""A residual network that timm made for tests: 0.5 million parameters."""

SMALL = "justo_unet_simple"
"""The architecture that is trained fastest and still starts from nothing."""


def cut(image: Path, labels: Path, folder: Path, size: int = 32, nodata: float | None = None, **shares: Any) -> Path:
    """Cut a scene into a dataset folder; ``shares`` go to the Dataset Maker."""
    tile = TileJob(
        image=str(image),
        labels=str(labels),
        tile_size_x=size,
        tile_size_y=size,
        step_x=size,
        step_y=size,
        min_label_coverage=0.0,
        nodata=nodata,
        output_folder=folder,
    )
    perform(tile, Progress())
    perform(PrepareJob(data_folder=folder, **shares), Progress())
    return folder


def prepare(folder: Path, progress: Recorder | None = None, **values: Any) -> PrepareResult:
    """Make a dataset of a folder of chips."""
    return make_dataset(PrepareJob(data_folder=folder, **values), progress or Recorder())


def cut_by_8(folder: Path, image: Array, labels: Array, step: int = 8, **settings: Any) -> Path:
    """Let the splitter cut chips of 8 pixels."""
    source = write_raster(folder.parent / "image.tif", image, **settings)
    truth = write_raster(folder.parent / "labels.tif", labels)
    job = TileJob(
        image=str(source),
        labels=str(truth),
        output_folder=folder,
        tile_size_x=8,
        tile_size_y=8,
        step_x=step,
        step_y=step,
        min_label_coverage=0,
    )
    tile_raster(job, Recorder())
    return folder


def table(path: Path) -> list[dict[str, str]]:
    """Read a CSV table."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def sets_of(folder: Path) -> dict[str, list[str]]:
    """Give the names of the chips in each set."""
    return {name: [Path(row["image"]).stem for row in table(folder / f"{name}_files.csv")] for name in SPLIT_NAMES}


def scene_dataset(folder: Path) -> Path:
    """Make a dataset of nine chips, 5 to train, 2 to validate and 2 to test, of the invented Sentinel-2 scene."""
    image, labels = make_scene(folder / "scene", size=96)
    return cut(image, labels, folder / "dataset", train_percent=55.0, validation_percent=22.0, test_percent=23.0)


def stripes(rows: int = 64, columns: int = 64, bands: int = 3) -> tuple[Array, Array]:
    """Make an image whose classes 1, 2 and 4 are told apart by brightness: ``(bands, rows, columns)`` and labels."""
    pattern = (np.arange(columns) // 8 + (np.arange(rows) // 8)[:, None]) % 3
    labels = np.array([1, 2, 4], np.uint8)[pattern]
    noise = np.random.default_rng(3).integers(-40, 40, (bands, rows, columns))
    image = 1000 * (pattern + 1)[None] * np.arange(1, bands + 1).reshape(-1, 1, 1) + noise
    return image.astype(np.int16), labels


def noisy_stripes(rows: int = 64, columns: int = 64, bands: int = 3) -> tuple[Array, Array]:
    """Make stripes in so much noise that single pixels do not tell the classes apart, but their neighbours help."""
    image, labels = stripes(rows, columns, bands)
    noise = np.random.default_rng(4).normal(0, 1500, image.shape) * np.arange(1, bands + 1).reshape(-1, 1, 1)
    return (image + noise).clip(-32000, 32000).astype(np.int16), labels


def dataset_of(folder: Path, image: Array, labels: Array, nodata: float | None = None, **shares: Any) -> Path:
    """Make a dataset of an image and its labels; all chips are for training by default."""
    shares = {"train_percent": 100.0, "validation_percent": 0.0, "test_percent": 0.0, **shares}
    raster = write_raster(folder / "scene.tif", image, nodata=nodata)
    return cut(raster, write_raster(folder / "truth.tif", labels), folder / "dataset", **shares)


def train_job(dataset: Path, folder: Path, **settings: Any) -> TrainJob:
    """Describe a small training on the processor."""
    usual = {"architecture": "unet", "backbone": TINY, "epochs": 2, "batch_size": 4}
    usual |= {"device": "cpu", "precision": "float32"}
    folders = {"model_folder": folder / "models", "log_folder": folder / "logs"}
    return TrainJob(dataset_folder=dataset, **{**usual, **folders, **settings})


def train(dataset: Path, folder: Path, progress: Progress | None = None, **settings: Any) -> TrainResult:
    """Train a small network in this process."""
    result = perform(train_job(dataset, folder, **settings), progress or Progress())
    if not isinstance(result, TrainResult):
        raise TypeError(type(result).__name__)
    return result


def history(path: Path) -> list[dict[str, float]]:
    """Read a history table with the standard library alone."""
    with path.open(encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def curve(path: Path) -> list[dict[str, str]]:
    """Give the texts of a history table, but for the seconds: NaN equals NaN, and no digit is lost."""
    with path.open(encoding="utf-8") as file:
        return [{name: text for name, text in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def same(first: TrainResult, second: TrainResult) -> bool:
    """Tell whether two trainings had the same curve and ended at the same weights, bit for bit."""
    import torch

    from specdeepmap.core.learn.checkpoint import load_checkpoint

    one, other = (load_checkpoint(result.last_checkpoint)[1] for result in (first, second))
    alike = all(torch.equal(one[name], other[name]) for name in one)
    return curve(first.history_csv) == curve(second.history_csv) and alike


class Impatient(Recorder):
    """Cancel a training after some epochs, or some way into the next one.

    Args:
        epochs: that are finished.
        share: of the epoch after them, 0 to 1.
        of: epochs of the training.
    """

    def __init__(self, epochs: int, share: float = 0.0, of: int = 1) -> None:
        super().__init__()
        self._epochs, self._until = epochs, (epochs + share) / of if share else 0.0

    def info(self, text: str) -> None:
        super().info(text)
        if text.startswith(f"Epoch {self._epochs} ") and not self._until:
            self.cancel()

    def _show(self, share: float, text: str) -> None:
        super()._show(share, text)
        if self._until and share >= self._until:
            self.cancel()
