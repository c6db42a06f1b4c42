# SPDX-License-Identifier: GPL-3.0-or-later
"""The job to map an image: the Deep Learning Mapper."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from specdeepmap.core.data.classes import ClassEntry
from specdeepmap.core.environment import TORCH_MODULES
from specdeepmap.core.errors import ConfigError
from specdeepmap.core.jobs.base import CHECKPOINT_FILES, CHECKPOINT_HELP, CSV_FILES, DEVICE_HELP, Job, Result
from specdeepmap.core.learn.options import DEVICES
from specdeepmap.core.record import ask, made, titles


@dataclass(frozen=True, kw_only=True)
class PredictResult(Result):
    """What the Deep Learning Mapper made."""

    output: Path = made("raster", "Map")
    confidence: Path | None = made("raster", "Confidence")
    vector: Path | None = made("vector", "Polygons")
    scores_csv: Path | None = made("file", "Score table")
    mean_iou: float | None = made("number", "Mean IoU")
    overall_accuracy: float | None = made("number", "Overall accuracy")
    classes: tuple[ClassEntry, ...] = ()
    """Names and colours to show the map with; no output of its own."""


@dataclass(frozen=True, kw_only=True)
class PredictJob(Job):
    """Deep Learning Mapper: map a whole raster with a model."""

    verb: ClassVar[str] = "predict"
    result: ClassVar[type[Result]] = PredictResult
    modules: ClassVar[tuple[str, ...]] = TORCH_MODULES

    image: str = ask(
        "raster",
        "Image",
        "The raster to map, of any size, with the bands that the model was trained on, in the same order "
        "and the same units.",
    )
    checkpoint: Path = ask("file", "Checkpoint", CHECKPOINT_HELP, files=CHECKPOINT_FILES)
    ground_truth: str | None = ask(
        "raster",
        "Ground truth",
        "A label raster that scores the map; another grid is warped (nearest neighbour). It never changes "
        "the map. Default: none.",
        None,
    )
    extent: tuple[float, ...] | None = ask(
        "extent",
        "Extent",
        "Map only this part of the image. Default: the whole image.",
        None,
        advanced=True,
    )
    overlap: float = ask(
        "number",
        "Overlap (%)",
        "Share of a tile that is cropped on each side, so that tile borders do not show in the map. "
        "Default: 10. More is smoother and slower.",
        10.0,
        minimum=0,
        maximum=45,
    )
    device: str = ask("choice", "Device", DEVICE_HELP, "auto", options=titles(DEVICES))
    tile_size: int = ask(
        "integer",
        "Tile size (pixels, 0 = automatic)",
        "Width and height of the tiles the image is mapped in. Default: 0 = auto, at least the chip size of the model.",
        0,
        minimum=0,
        advanced=True,
    )
    batch_size: int = ask(
        "integer",
        "Batch size (tiles, 0 = automatic)",
        "Tiles per step. Default: 0 = auto, as many as make about 4 million values.",
        0,
        minimum=0,
        advanced=True,
    )
    output: Path = ask(
        "raster_out",
        "Map",
        "Class ids as a Byte raster; 0 = no data; with class names, colours and overviews.",
        suffix="tif",
    )
    confidence: Path | None = ask(
        "raster_out",
        "Confidence",
        "Probability of the chosen class, 0 to 1. Default: not written.",
        None,
        suffix="tif",
    )
    vector: Path | None = ask(
        "vector_out",
        "Polygons",
        "The map as polygons with class id, name and area in square metres. Default: not written.",
        None,
        suffix="gpkg",
    )
    scores_csv: Path | None = ask(
        "file_out",
        "Score table",
        "IoU, precision, recall and F1 of each class against the ground truth, as CSV. Default: not written.",
        None,
        files=CSV_FILES,
        suffix="csv",
    )

    def check(self) -> None:
        for name, path in (("OUTPUT", self.output), ("CONFIDENCE", self.confidence)):
            if path is not None and path.suffix.lower() not in (".tif", ".tiff"):
                raise ConfigError(f"{name} is {path}; it is written as GeoTIFF, so its name must end in .tif.")
        if self.scores_csv is not None and self.ground_truth is None:
            raise ConfigError("SCORES_CSV is set, but scores need GROUND_TRUTH; name a label raster there.")
        if self.extent is not None:
            if len(self.extent) != 4:
                raise ConfigError("EXTENT must hold four numbers: xmin, ymin, xmax, ymax in the image's units.")
            if not (self.extent[0] < self.extent[2] and self.extent[1] < self.extent[3]):
                raise ConfigError(f"EXTENT {list(self.extent)} is empty; it is xmin, ymin, xmax, ymax.")
