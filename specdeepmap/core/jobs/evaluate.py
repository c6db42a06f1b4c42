# SPDX-License-Identifier: GPL-3.0-or-later
"""The job to score a model on test chips: the Deep Learning Tester."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from specdeepmap.core.environment import TORCH_MODULES
from specdeepmap.core.errors import ConfigError
from specdeepmap.core.jobs.base import CHECKPOINT_FILES, CHECKPOINT_HELP, CSV_FILES, DEVICE_HELP, Job, Result
from specdeepmap.core.learn.options import DEVICES
from specdeepmap.core.record import ask, made, titles


@dataclass(frozen=True, kw_only=True)
class EvaluateResult(Result):
    """What the Deep Learning Tester measured and wrote."""

    scores_csv: Path = made("file", "Score table")
    confusion_csv: Path = made("file", "Confusion matrix")
    chip_scores_csv: Path | None = made("file", "Scores per chip")
    prediction_folder: Path | None = made("folder", "Predictions")
    mean_iou: float = made("number", "Mean IoU")
    overall_accuracy: float = made("number", "Overall accuracy")
    macro_f1: float = made("number", "Macro F1")
    kappa: float = made("number", "Kappa")


@dataclass(frozen=True, kw_only=True)
class EvaluateJob(Job):
    """Deep Learning Tester: score a model on test chips."""

    verb: ClassVar[str] = "evaluate"
    result: ClassVar[type[Result]] = EvaluateResult
    modules: ClassVar[tuple[str, ...]] = TORCH_MODULES

    test_csv: Path = ask(
        "file",
        "Test files",
        "The table test_files.csv of the Dataset Maker (columns image and mask).",
        files=CSV_FILES,
    )
    checkpoint: Path = ask("file", "Checkpoint", CHECKPOINT_HELP, files=CHECKPOINT_FILES)
    device: str = ask("choice", "Device", DEVICE_HELP, "auto", options=titles(DEVICES))
    batch_size: int = ask(
        "integer",
        "Batch size (chips, 0 = automatic)",
        "Chips per step. Default: 0 = auto, as many as make about 4 million values. It does not change the scores.",
        0,
        minimum=0,
        advanced=True,
    )
    mask_unlabelled: bool = ask(
        "flag",
        "Mask unlabelled pixels",
        "Exported predictions are 0 where the label is 0. Default: yes. Scores never count such pixels.",
        True,
    )
    scores_csv: Path = ask(
        "file_out",
        "Score table",
        "IoU, precision, recall, F1 and pixel count of each class, and the mean IoU, as CSV.",
        files=CSV_FILES,
        suffix="csv",
    )
    confusion_csv: Path | None = ask(
        "file_out",
        "Confusion matrix (if skipped: beside the score table)",
        "Pixels by true class (rows) and predicted class (columns), as CSV. Default: beside the score "
        "table, its name with _confusion.",
        None,
        files=CSV_FILES,
        suffix="csv",
        advanced=True,
    )
    chip_scores_csv: Path | None = ask(
        "file_out",
        "Scores per chip",
        "Mean IoU and accuracy of each chip, to find the worst ones. Default: not written.",
        None,
        files=CSV_FILES,
        suffix="csv",
        advanced=True,
    )
    prediction_folder: Path | None = ask(
        "folder_out",
        "Folder for predictions",
        "Write the predicted classes of each chip as <chip>_prediction.tif. Default: not written.",
        None,
    )

    def check(self) -> None:
        tables = [path for path in (self.scores_csv, self.confusion_csv, self.chip_scores_csv) if path is not None]
        if len(set(tables)) < len(tables):
            raise ConfigError("SCORES_CSV, CONFUSION_CSV and CHIP_SCORES_CSV must be different files.")
