# SPDX-License-Identifier: GPL-3.0-or-later
"""The trainer's report: how good the best epoch is, beside what no network is needed for, and how it came about."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.scores import Scores
from specdeepmap.core.data.splits import SPLIT_NAMES
from specdeepmap.core.errors import RasterError
from specdeepmap.core.learn.architectures import ARCHITECTURES
from specdeepmap.core.learn.baselines import Baselines
from specdeepmap.core.learn.checkpoint import ModelCard
from specdeepmap.core.report import Point, Report, duration

REPORT_NAME = "training_report.html"
HISTORY_NAME = "history.csv"

TRAIN, VALIDATION, LINEAR, MAJORITY = "#0072b2", "#e69f00", "#009e73", "#999999"

_REASON = "architecture_reason"  # the first sentence tells it

_CURVES = (
    ("Loss", "loss", {"train": ("train_loss", TRAIN), "validation": ("val_loss", VALIDATION)}),
    ("Mean IoU", "mean IoU", {"train": ("train_iou", TRAIN), "validation": ("val_iou", VALIDATION)}),
    ("Learning rate", "learning rate", {"at the start of the epoch": ("lr", TRAIN)}),
)
"""Heading, axis, and the columns of the history with their colours."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingStory:
    """What there is to say of a training.

    Attributes:
        card: of the best checkpoint.
        rows: of the history, one per epoch.
        best: scores of the best epoch on the validation chips; None without such chips.
        best_epoch: its number as in the history, from 0.
        baselines: scores on the same chips; None without such chips.
        warnings: said before, during and after the training.
        examples: PNG files: image, reference and prediction of a validation chip each.
        seconds: that the training took.
        checkpoint: file name of the best checkpoint.
        chips: per set.
        pixels: labelled ones ``(sets, classes)``, sets as in ``SPLIT_NAMES``; None where not known.
    """

    card: ModelCard
    rows: Sequence[Mapping[str, float]]
    best: Scores | None
    best_epoch: int
    baselines: Baselines | None
    seconds: float
    warnings: Sequence[str] = ()
    examples: Sequence[bytes] = ()
    checkpoint: str = ""
    chips: Mapping[str, int] = field(default_factory=dict)
    pixels: NDArray[np.integer[Any]] | None = None

    @property
    def scores(self) -> Scores | None:
        """Scores of the best epoch; None where no validation pixel is labelled."""
        return self.best if self.best is not None and self.best.matrix.any() else None


def write_report(path: Path, story: TrainingStory) -> None:
    """Write the page.

    Raises:
        RasterError: if the file cannot be written.
    """
    try:
        path.write_text(make_page(story), encoding="utf-8")
    except OSError as error:
        raise RasterError(
            f"MODEL_FOLDER {path.parent} cannot be written: {error.strerror}. Is the disk full, or the folder "
            "write-protected? Free some space or choose another folder."
        ) from error


def make_page(story: TrainingStory) -> str:
    """Give the page as HTML."""
    report = Report("Training report")
    report.text(_summary(story))
    _add_comparison(report, story)
    report.heading("Warnings")
    report.warnings(story.warnings)
    _add_curves(report, story)
    _add_scores(report, story)
    _add_examples(report, story)
    _add_dataset(report, story)
    report.heading("Settings")
    told = story.card.settings.items()
    settings = [(name.upper(), _setting(value)) for name, value in told if value != "" and name != _REASON]
    report.table(("Parameter", "Value"), settings)
    report.heading("Versions")
    report.table(("Software", "Version"), list(story.card.versions.items()))
    report.heading("Files")
    report.links(_files(story))
    return report.html()


def _summary(story: TrainingStory) -> str:
    card = story.card
    known = ARCHITECTURES.get(card.architecture)
    title = known.title if known is not None else card.architecture
    epochs = f"{len(story.rows)} epoch{'' if len(story.rows) == 1 else 's'}"
    backbone = f" with backbone {card.backbone}" if card.backbone else ""
    why = card.settings.get(_REASON)
    chosen = f", chosen since {why}," if why else ""
    trained = (
        f"{title}{backbone}{chosen} for {len(card.bands)} bands and {len(card.classes)} classes, was trained "
        f"for {epochs} in {duration(story.seconds)}."
    )
    holder = f"The checkpoint {story.checkpoint}" if story.checkpoint else "The best checkpoint"
    if story.scores is None:
        return (
            f"{trained} No validation chip with labelled pixels says how good the network is on ground that it has not "
            f"seen. {holder} holds the network after epoch {story.best_epoch + 1}; test it on test chips."
        )
    return (
        f"{trained} The best epoch is number {story.best_epoch + 1}, with a mean IoU of {story.scores.mean_iou:.3f} on "
        f"the validation chips. {holder} holds the network after this epoch, for the Tester and the Mapper. The best "
        "epoch was chosen by these very chips, so the score is a little too good: the Tester's counts."
    )


def _add_comparison(report: Report, story: TrainingStory) -> None:
    """Add what no network is needed for, so that nobody takes such a score for a result."""
    if story.scores is None:
        return
    named: list[tuple[str, Scores | None]] = [("Network, best epoch", story.scores)]
    if story.baselines is not None:
        named.append(("Linear classifier of single pixels", story.baselines.linear))
        named.append(("Most frequent class everywhere", story.baselines.majority))
    rows = [
        (name, _number(scores.mean_iou), _number(scores.overall_accuracy))
        for name, scores in named
        if scores is not None
    ]
    report.table(("On the same validation chips", "Mean IoU", "Overall accuracy"), rows)


def _add_curves(report: Report, story: TrainingStory) -> None:
    for heading, axis, columns in _CURVES:
        lines = {
            name: (color, [(row["epoch"] + 1, row.get(column, math.nan)) for row in story.rows])
            for name, (column, color) in columns.items()
        }
        if heading == "Mean IoU":
            lines |= _baseline_curves(story)
        known = {name: line for name, line in lines.items() if any(math.isfinite(value) for _, value in line[1])}
        if known:
            report.heading(heading)
            report.lines(known, "epoch", axis, whole_x=True)


def _baseline_curves(story: TrainingStory) -> dict[str, tuple[str, list[Point]]]:
    """Give the mean IoU on the validation chips that no epoch changes."""
    if story.scores is None or story.baselines is None:
        return {}
    named = {
        "linear classifier (validation)": (LINEAR, story.baselines.linear),
        "most frequent class (validation)": (MAJORITY, story.baselines.majority),
    }
    return {
        name: (color, [(row["epoch"] + 1, scores.mean_iou) for row in story.rows])
        for name, (color, scores) in named.items()
        if scores is not None
    }


def _add_scores(report: Report, story: TrainingStory) -> None:
    scores, entries = story.scores, story.card.classes.entries
    if scores is None:
        return
    colors = [entry.color for entry in entries]
    report.heading("Classes (best epoch, validation chips)")
    columns = (scores.iou, scores.f1, scores.precision, scores.recall)
    rows = [
        (entry.name, entry.value, *(_number(float(column[k])) for column in columns), f"{int(scores.support[k]):,}")
        for k, entry in enumerate(entries)
    ]
    report.table(("Class", "Id", "IoU", "F1", "Precision", "Recall", "Reference pixels"), rows, colors)
    report.heading("Confusion (best epoch, validation chips)")
    report.text("Pixels, and their share of the reference class.")
    counts = [[int(count) for count in row] for row in scores.matrix]
    report.matrix(story.card.classes.titles, counts, colors, "reference ↓ predicted →")


def _add_examples(report: Report, story: TrainingStory) -> None:
    if not story.examples:
        return
    report.heading("Example chips")
    report.text("Image, reference and prediction. Grey: no data, or no label.")
    report.legend(story.card.classes.legend)
    report.pictures(story.examples, "image, reference and prediction of chip")


def _add_dataset(report: Report, story: TrainingStory) -> None:
    report.heading("Dataset")
    card = story.card
    numbers = ", ".join(f"{count} {name}" for name, count in story.chips.items())
    size = f"{card.chip_width} × {card.chip_height} pixels, {len(card.bands)} bands"
    hidden = sum(card.normalization.bad)
    report.text(
        (f"Chips: {numbers}; {size}" if numbers else f"Chips: {size}")
        + (f", {hidden} of them bad and not used." if hidden else ".")
    )
    counted = [] if story.pixels is None else [[f"{int(count):,}" for count in row] for row in story.pixels]
    header = ("Class", "Id", *(f"{name} pixels" for name in SPLIT_NAMES[: len(counted)]))
    entries = card.classes.entries
    rows = [(entry.name, entry.value, *(row[k] for row in counted)) for k, entry in enumerate(entries)]
    report.table(header, rows, [entry.color for entry in entries])


def _files(story: TrainingStory) -> dict[str, str]:
    """Give what lies beside the page."""
    files = {"History of the epochs": HISTORY_NAME}
    if story.checkpoint:
        files["Best checkpoint"] = story.checkpoint
        files["Its model card, to read"] = f"{Path(story.checkpoint).stem}.json"
    return files


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _setting(value: object) -> str:
    """Say a setting as the dialogs do."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "not set"
    return f"{value:g}" if isinstance(value, float) else str(value)
