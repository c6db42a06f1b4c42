# SPDX-License-Identifier: GPL-3.0-or-later
"""The job to score a model on test chips: the Deep Learning Tester."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from specdeepmap.core.environment import TORCH_MODULES
from specdeepmap.core.jobs.base import (
    CHECKPOINT_FILES,
    CHECKPOINT_HELP,
    CSV_FILES,
    DEVICE_HELP,
    HTML_FILES,
    PRECISION_HELP,
    Job,
    Result,
    check_apart,
)
from specdeepmap.core.learn.options import DEVICES, PRECISIONS
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
    average_accuracy: float = made("number", "Average accuracy")
    weighted_f1: float = made("number", "Weighted F1")
    calibration_error: float = made("number", "Calibration error")
    report: Path = made("html", "Test report")


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
    precision: str = ask("choice", "Precision", PRECISION_HELP, "auto", options=titles(PRECISIONS), advanced=True)
    batch_size: int = ask(
        "integer",
        "Batch size (chips, 0 = automatic)",
        "Chips per step. Default: 0 = auto, by the chip size and the memory. It does not change the scores.",
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
        "IoU, precision, recall, F1 (each 0 to 1) and pixel count of each class, and the mean IoU, as CSV.",
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
        "Write the predicted classes of each chip as CHIP_prediction.tif. Default: not written.",
        None,
    )

    report: Path | None = ask(
        "file_out",
        "Report (if skipped: beside the score table)",
        "A page for the browser: what the scores mean, the confusion matrix, the scores of each class, how far the "
        "model's confidence can be trusted, and the worst and the best chips. Default: beside the score table, its "
        "name with _report.",
        None,
        files=HTML_FILES,
        suffix="html",
    )

    @property
    def confusion_file(self) -> Path:
        """Where the confusion matrix goes."""
        return self.confusion_csv or self.scores_csv.with_name(f"{self.scores_csv.stem}_confusion.csv")

    @property
    def report_file(self) -> Path:
        """Where the report goes."""
        return self.report or self.scores_csv.with_name(f"{self.scores_csv.stem}_report.html")

    @property
    def outputs(self) -> dict[str, list[Path]]:
        """The files that are written, by parameter."""
        files = {
            "SCORES_CSV": self.scores_csv,
            "CONFUSION_CSV": self.confusion_file,
            "CHIP_SCORES_CSV": self.chip_scores_csv,
            "REPORT": self.report_file,
        }
        return {name: [path] for name, path in files.items() if path is not None}

    def check(self) -> None:
        check_apart(self.outputs, {"TEST_CSV": [self.test_csv], "CHECKPOINT": [self.checkpoint]})
