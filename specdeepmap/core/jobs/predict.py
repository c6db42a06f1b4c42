# SPDX-License-Identifier: GPL-3.0-or-later
"""The job to map an image: the Deep Learning Mapper."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from specdeepmap.core.data.classes import ClassEntry
from specdeepmap.core.data.options import MATCHES, PROBABILITY_FORMATS, VECTOR_DRIVERS
from specdeepmap.core.environment import TORCH_MODULES
from specdeepmap.core.errors import ConfigError
from specdeepmap.core.jobs.base import (
    CHECKPOINT_FILES,
    CHECKPOINT_HELP,
    CSV_FILES,
    DEVICE_HELP,
    PRECISION_HELP,
    Job,
    Result,
    check_apart,
)
from specdeepmap.core.learn.options import DEVICES, PRECISIONS
from specdeepmap.core.record import ask, made, titles


@dataclass(frozen=True, kw_only=True)
class PredictResult(Result):
    """What the Deep Learning Mapper made."""

    output: Path = made("raster", "Map")
    confidence: Path | None = made("raster", "Confidence")
    probabilities: Path | None = made("raster", "Probabilities")
    margin: Path | None = made("raster", "Margin")
    entropy: Path | None = made("raster", "Entropy")
    vector: Path | None = made("vector", "Polygons")
    error_map: Path | None = made("raster", "Error map")
    scores_csv: Path | None = made("file", "Score table")
    confusion_csv: Path | None = made("file", "Confusion matrix")
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
        "The raster to map, of any size, in the units that the model was trained on, and with its bands in the same "
        "order; see MATCH_BANDS for others.",
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
    zero_as: int | None = ask(
        "integer",
        "Class for ground truth value 0",
        "Ground truth value 0 becomes this class id (1 to 255), as in the Raster Splitter. Set it for masks of 0 and "
        "1. Default: not set, 0 means unlabelled.",
        None,
        minimum=1,
        maximum=255,
        advanced=True,
    )
    nodata: float | None = ask(
        "number",
        "No-data value of the image (image units)",
        "Overrides the image's own no-data value, in image units. Default: not set, the image's own, or, where it "
        "declares none, that of the chips that the model was trained on.",
        None,
        advanced=True,
    )
    match_bands: str = ask(
        "choice",
        "Match bands",
        "How bands of the image are found for those of the model: none takes them as they stand; name by their names; "
        "wavelength by the nearest centre wavelength, within 10 nm or 1 %. The image may then have more bands, in "
        "any order. Default: none.",
        "none",
        options=titles(MATCHES),
        advanced=True,
    )
    overlap: float = ask(
        "number",
        "Overlap (%)",
        "How far each tile reaches over what is kept of it, on each side, so that tile borders do not show in the map: "
        "in percent of the tile size, or, with automatic tiles, of the model's chip size. Default: 10. More is "
        "smoother and slower.",
        10.0,
        minimum=0,
        maximum=45,
    )
    blend: bool = ask(
        "flag",
        "Blend tiles",
        "Let neighbouring tiles fade into each other where they overlap, instead of meeting at a border. Default: no. "
        "Slower; it smooths the probabilities at borders.",
        False,
        advanced=True,
    )
    tta: bool = ask(
        "flag",
        "Average flips and turns (TTA)",
        "Predict each tile in its eight flips and quarter turns and average the probabilities. Default: no. Often a "
        "little more accurate, and eight times as slow.",
        False,
        advanced=True,
    )
    min_area: int = ask(
        "integer",
        "Smallest patch (pixels)",
        "Patches of one class with fewer pixels join their largest neighbour, in map, polygons and scores; confidence "
        "and probabilities stay. Default: 0, none does.",
        0,
        minimum=0,
        advanced=True,
    )
    device: str = ask("choice", "Device", DEVICE_HELP, "auto", options=titles(DEVICES))
    precision: str = ask("choice", "Precision", PRECISION_HELP, "auto", options=titles(PRECISIONS), advanced=True)
    devices: int = ask(
        "integer",
        "Devices",
        "How many GPUs, or processes on the processor, share the tiles. The map is the same. Default: 1.",
        1,
        minimum=1,
        advanced=True,
    )
    tile_size: int = ask(
        "integer",
        "Tile size (pixels, 0 = automatic)",
        "Width and height of the tiles the image is mapped in. Default: 0 = auto: the chip size of the model, with "
        "which it scores best; up to 576 pixels where the network sees only the nearest surroundings of a pixel (the "
        "compact ones). Larger tiles are faster; score them before you trust them.",
        0,
        minimum=0,
        advanced=True,
    )
    batch_size: int = ask(
        "integer",
        "Batch size (tiles, 0 = automatic)",
        "Tiles per step. Default: 0 = auto, by the tile size and the memory; too large ones are halved.",
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
    probabilities: Path | None = ask(
        "raster_out",
        "Probabilities",
        "One band per class, in the order of the model's classes, 0 to 1. Default: not written.",
        None,
        suffix="tif",
    )
    probability_format: str = ask(
        "choice",
        "Number format of probabilities",
        "float32: 0 to 1, no data is NaN; percent: whole percent as Byte, no data is 255, a quarter of the size. "
        "Default: float32.",
        "float32",
        options=titles(PROBABILITY_FORMATS),
        advanced=True,
    )
    margin: Path | None = ask(
        "raster_out",
        "Margin",
        "By how much the probability of the chosen class exceeds that of the second, 0 to 1: low where two classes "
        "compete. Default: not written.",
        None,
        suffix="tif",
        advanced=True,
    )
    entropy: Path | None = ask(
        "raster_out",
        "Entropy",
        "Shannon's entropy of the probabilities in nats, from 0 (sure) to the logarithm of the number of classes (no "
        "idea). Default: not written.",
        None,
        suffix="tif",
        advanced=True,
    )
    vector: Path | None = ask(
        "vector_out",
        "Polygons",
        "The map as polygons with class id, name and area in square metres, as GeoPackage (.gpkg), Shapefile (.shp), "
        "FlatGeobuf (.fgb) or GeoJSON (.geojson). Default: not written.",
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

    confusion_csv: Path | None = ask(
        "file_out",
        "Confusion matrix",
        "Pixels by true class (rows) and predicted class (columns), as CSV; needs the ground truth. Default: not "
        "written.",
        None,
        files=CSV_FILES,
        suffix="csv",
        advanced=True,
    )
    error_map: Path | None = ask(
        "raster_out",
        "Error map",
        "Where map and ground truth agree (1) and disagree (2); 0 = not labelled. Needs the ground truth. Default: not "
        "written.",
        None,
        suffix="tif",
        advanced=True,
    )

    @property
    def outputs(self) -> dict[str, list[Path]]:
        """The files that are written, by parameter."""
        rasters = ("output", "confidence", "probabilities", "margin", "entropy", "error_map")
        names = (*rasters, "vector", "scores_csv", "confusion_csv")
        return {name.upper(): [path] for name in names if (path := getattr(self, name)) is not None}

    def check(self) -> None:
        for name in ("output", "confidence", "probabilities", "margin", "entropy", "error_map"):
            path = getattr(self, name)
            if path is not None and path.suffix.lower() not in (".tif", ".tiff"):
                raise ConfigError(f"{name.upper()} is {path}; it is written as GeoTIFF, so its name must end in .tif.")
        if self.vector is not None and self.vector.suffix.lower() not in VECTOR_DRIVERS:
            raise ConfigError(
                f"VECTOR {self.vector} ends in '{self.vector.suffix}'; it can end in {', '.join(VECTOR_DRIVERS)}."
            )
        for name in ("scores_csv", "confusion_csv", "error_map"):
            if getattr(self, name) is not None and self.ground_truth is None:
                raise ConfigError(f"{name.upper()} is set, but it needs GROUND_TRUTH; name a label raster there.")
        if self.zero_as is not None and self.ground_truth is None:
            raise ConfigError("ZERO_AS is set, but it needs GROUND_TRUTH; name a label raster there.")
        if self.extent is not None:
            if len(self.extent) != 4:
                raise ConfigError("EXTENT must hold four numbers: xmin, ymin, xmax, ymax in the image's units.")
            if not all(map(math.isfinite, self.extent)):
                raise ConfigError(f"EXTENT {list(self.extent)} must hold finite numbers: xmin, ymin, xmax, ymax.")
            if not (self.extent[0] < self.extent[2] and self.extent[1] < self.extent[3]):
                raise ConfigError(f"EXTENT {list(self.extent)} is empty; it is xmin, ymin, xmax, ymax.")
        inputs = {"IMAGE": [Path(self.image)], "CHECKPOINT": [self.checkpoint]}
        if self.ground_truth is not None:
            inputs["GROUND_TRUTH"] = [Path(self.ground_truth)]
        check_apart(self.outputs, inputs)
