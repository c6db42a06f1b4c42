# SPDX-License-Identifier: GPL-3.0-or-later
"""The job to divide chips into sets: the Dataset Maker."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from specdeepmap.core.data.options import SPLITS
from specdeepmap.core.errors import ConfigError
from specdeepmap.core.jobs.base import Job, Result
from specdeepmap.core.record import Spec, ask, made, titles


@dataclass(frozen=True, kw_only=True)
class PrepareResult(Result):
    """What the Dataset Maker made."""

    output_folder: Path = made("folder", "Dataset folder")
    train_csv: Path = made("file", "Training files")
    validation_csv: Path = made("file", "Validation files")
    test_csv: Path = made("file", "Test files")
    summary_csv: Path = made("file", "Class summary")
    statistics_csv: Path | None = made("file", "Band statistics")
    tile_index: Path | None = field(default=None, metadata={"spec": Spec("vector", "Split map", "")})
    report: Path = made("html", "Report")


@dataclass(frozen=True, kw_only=True)
class PrepareJob(Job):
    """Dataset Maker: split chips into training, validation and test sets."""

    verb: ClassVar[str] = "prepare"
    result: ClassVar[type[Result]] = PrepareResult

    data_folder: Path = ask(
        "folder", "Folder with chips", "The folder that holds images/ and labels/, made by the Raster Splitter."
    )
    train_percent: float = ask(
        "number",
        "Training chips (%)",
        "Share of the chips to train on, in percent. Default: 80. The three shares may add up to less "
        "than 100; the rest is then left out.",
        80.0,
        minimum=0,
        maximum=100,
    )
    validation_percent: float = ask(
        "number",
        "Validation chips (%)",
        "Share of the chips that choose the best model during training, in percent. Default: 10.",
        10.0,
        minimum=0,
        maximum=100,
    )
    test_percent: float = ask(
        "number",
        "Test chips (%)",
        "Share of the chips kept for the accuracy assessment, in percent. Default: 10.",
        10.0,
        minimum=0,
        maximum=100,
    )
    split: str = ask(
        "choice",
        "Split",
        "stratified gives the three sets class shares that are as equal as possible; blocks does so with spatial "
        "blocks of chips, so that the sets lie apart: the honest choice where neighbouring chips are alike; random "
        "draws chips by chance; given takes the sets from the field split of tiles.gpkg (train, validation, test), "
        "which you may edit in QGIS; the percentages are then ignored. Default: stratified.",
        "stratified",
        options=titles(SPLITS),
    )
    block_size: int = ask(
        "integer",
        "Block size (pixels, 0 = automatic)",
        "Side of a square block in pixels, for SPLIT blocks. Default: 0 = auto, as large as leaves about two dozen "
        "blocks.",
        0,
        minimum=0,
        advanced=True,
    )
    buffer: int = ask(
        "integer",
        "Buffer (pixels)",
        "Chips of different sets keep at least this distance, for SPLIT blocks; chips that come nearer are left "
        "out. Default: 0, they may touch but never overlap.",
        0,
        minimum=0,
        advanced=True,
    )
    scaler: float | None = ask(
        "number",
        "Scaler (image units)",
        "Divides all image values, for example 10000 to turn stored integers into reflectance. It is "
        "recorded, and applied in training and prediction. Default: not set, values stay as they are; "
        "not needed when the bands are normalised.",
        None,
        above=0,
        maximum=500000,
    )
    statistics: bool = ask(
        "flag",
        "Compute band statistics",
        "Write mean and standard deviation of each band over the training chips, without no-data, to "
        "Normalize_Bands.csv. The trainer needs them to normalise. Default: yes.",
        True,
    )
    seed: int = ask(
        "integer",
        "Random seed",
        "Same seed, same split. Default: 42.",
        42,
        minimum=0,
        advanced=True,
    )
    output_folder: Path | None = ask(
        "folder_out",
        "Output folder (if skipped: the folder with chips)",
        "Where the tables are written. Default: empty, the folder with chips. Elsewhere, tiles.gpkg is "
        "copied along and the folder with chips stays untouched.",
        None,
    )

    def check(self) -> None:
        total = self.train_percent + self.validation_percent + self.test_percent
        if total > 100 + 1e-9:
            raise ConfigError(
                f"TRAIN_PERCENT, VALIDATION_PERCENT and TEST_PERCENT add up to {total:g}; "
                "they may be 100 together. Lower one of them."
            )
        for name, value in (("BLOCK_SIZE", self.block_size), ("BUFFER", self.buffer)):
            if value and self.split != "blocks":
                raise ConfigError(f"{name} is {value}, but only SPLIT blocks uses it; SPLIT is {self.split}.")
        if self.split != "given" and total == 0:
            raise ConfigError("TRAIN_PERCENT, VALIDATION_PERCENT and TEST_PERCENT are all 0; raise one of them.")
