# SPDX-License-Identifier: GPL-3.0-or-later
"""The tester's report: what the scores say and mean, how sure the model is, the worst and the best chips."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from specdeepmap.core.data.calibration import Reliability
from specdeepmap.core.data.scores import Scores
from specdeepmap.core.errors import RasterError
from specdeepmap.core.learn.architectures import ARCHITECTURES
from specdeepmap.core.learn.baselines import Indices, LabelledChip, majority
from specdeepmap.core.learn.checkpoint import ModelCard
from specdeepmap.core.learn.pictures import RGB, composite, paint, png_bytes, strip
from specdeepmap.core.report import Columns, Report

SHOWN = 3
"""Chips that are shown of the worst, and of the best."""

SIDE = 256
"""Pixels that the side of a shown chip has at most; larger chips are thinned out."""

_ACROSS = 800
"""Pixels on the page that a small chip's three pictures are enlarged to."""

_SERIES = {"IoU": "#0072b2", "precision": "#e69f00", "recall": "#009e73", "F1": "#cc79a7"}
_AREAS = {"reference": "#0072b2", "prediction": "#e69f00"}
_MODEL, _PIXELS, _DIAGONAL = "#0072b2", "#d8dee6", "#999999"

_MEANINGS = (
    ("Mean IoU", "mean_iou", "Of the pixels that the reference or the model gives to a class, the share that both do; "
     "averaged over the classes, so that a rare one counts as much as a frequent one. 1 is perfect."),
    ("Overall accuracy", "overall_accuracy", "The share of the labelled pixels whose class is right. Frequent classes "
     "rule it: it can be high although a rare class is never found."),
    ("Average accuracy", "average_accuracy", "The share of a class's reference pixels that is found, averaged over the "
     "classes."),
    ("Macro F1", "macro_f1", "F1 is high only where most of a class is found and little else is taken for it; here "
     "every class counts alike."),
    ("Weighted F1", "weighted_f1", "The same, but each class counts by its reference pixels."),
    ("Kappa", "kappa", "How far the model is above guessing by how frequent the classes are: 0 is no better than "
     "that, 1 is perfect."),
)  # fmt: skip
"""Name of a score, where it stands, and what it says."""


@dataclass(frozen=True, eq=False)
class Exhibit:
    """A chip to be shown.

    Attributes:
        name: of the chip.
        scores: of its labelled pixels, at least one.
        picture: image, reference and prediction side by side.
    """

    name: str
    scores: Scores
    picture: RGB


class Showcase:
    """The worst and the best chips so far by overall accuracy; no more are kept, however many were seen.

    Of chips that are equally good, the one with more labelled pixels lies farther out.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[tuple[float, int, int], Exhibit]] = []
        self._seen = 0

    def __len__(self) -> int:
        return len(self._kept)

    def offer(self, name: str, scores: Scores, draw: Callable[[], RGB]) -> None:
        """Keep a chip where it is among the worst or the best; ``draw`` is called only then."""
        total = int(scores.matrix.sum())
        if not total:
            return
        right = int(np.trace(scores.matrix))
        self._seen += 1
        rank = (right / total, 2 * right - total, self._seen)  # no two are equal, so that none is worst and best
        if len(self._kept) == 2 * SHOWN and self._kept[SHOWN - 1][0] < rank < self._kept[SHOWN][0]:
            return
        bisect.insort(self._kept, (rank, Exhibit(name, scores, draw())), key=lambda entry: entry[0])
        if len(self._kept) > 2 * SHOWN:
            del self._kept[SHOWN]

    @property
    def worst(self) -> list[Exhibit]:
        """The worst first; of few chips, half of them."""
        return [exhibit for _, exhibit in self._kept[: (len(self._kept) + 1) // 2]]

    @property
    def best(self) -> list[Exhibit]:
        """The best first; none that is among the worst."""
        return [exhibit for _, exhibit in self._kept[(len(self._kept) + 1) // 2 :]][::-1]


def draw_chip(chip: LabelledChip, predicted: Indices, card: ModelCard) -> RGB:
    """Show a chip: image, reference and prediction side by side, the prediction wherever the image has data.

    Args:
        chip: the image and its reference.
        predicted: class indices, 255 where there is no data.
        card: knows classes and bands.
    """
    step = math.ceil(max(predicted.shape) / SIDE)
    natural = composite(chip[0][:, ::step, ::step], card.wavelengths_nm, card.normalization.bad)
    true, found = (paint(indices[::step, ::step], card.classes) for indices in (chip[1], predicted))
    return strip(natural, true, found)


@dataclass(frozen=True, eq=False, kw_only=True)
class Examination:
    """What there is to say of a test.

    Attributes:
        card: of the model.
        checkpoint: its file name.
        chips: how many were tested.
        scores: of all labelled pixels, at least one.
        reliability: of the same pixels.
        showcase: holds the worst and the best chips.
        warnings: said during the test.
        files: that were written besides the report, by what they are.
    """

    card: ModelCard
    checkpoint: str
    chips: int
    scores: Scores
    reliability: Reliability
    showcase: Showcase
    warnings: Sequence[str] = ()
    files: Mapping[str, Path] = field(default_factory=dict)


def write_report(path: Path, examination: Examination, folder: Path) -> None:
    """Write the page.

    Args:
        path: of the page.
        examination: what it tells.
        folder: where the page will lie: files in it and below are linked, others named.

    Raises:
        RasterError: if the file cannot be written.
    """
    try:
        path.write_text(make_page(examination, folder), encoding="utf-8")
    except OSError as error:
        raise RasterError(
            f"The folder {path.parent} of REPORT cannot be written: {error.strerror}. Is the disk full, or the folder "
            "write-protected? Free some space or choose another folder."
        ) from error


def make_page(examination: Examination, folder: Path) -> str:
    """Give the page as HTML."""
    report = Report("Test report")
    report.text(_summary(examination))
    report.heading("Warnings")
    report.warnings(examination.warnings)
    _add_scores(report, examination)
    _add_comparison(report, examination)
    _add_classes(report, examination)
    _add_confusion(report, examination)
    _add_reliability(report, examination.reliability)
    _add_chips(report, examination)
    _add_files(report, examination.files, folder)
    return report.html()


def _summary(examination: Examination) -> str:
    card = examination.card
    known = ARCHITECTURES.get(card.architecture)
    title = known.title if known is not None else card.architecture
    backbone = f" with backbone {card.backbone}" if card.backbone else ""
    return (
        f"The model {examination.checkpoint}, a {title}{backbone} for {len(card.bands)} bands and {len(card.classes)} "
        f"classes, was tested on {_counted(examination.chips, 'chip')}. All scores come from one confusion matrix over "
        "the labelled pixels of all chips."
    )


def _add_scores(report: Report, examination: Examination) -> None:
    scores, error = examination.scores, examination.reliability.calibration_error
    pixels = f"{int(scores.matrix.sum()):,}"
    what = "Those with a class that the model knows, and with image data. No others count."
    rows = [("Chips", f"{examination.chips:,}", "Chips that were tested."), ("Labelled pixels", pixels, what)]
    rows += [(name, _number(getattr(scores, measure)), meaning) for name, measure, meaning in _MEANINGS]
    says = (
        "How far the model's confidence lies, on average, from the share of pixels that it gets right: 0 is perfect, "
        f"{_number(error)} means {100 * error:.0f} percentage points."
    )
    report.heading("Scores")
    report.facts([*rows, ("Calibration error", _number(error), says)])


def _add_comparison(report: Report, examination: Examination) -> None:
    """Add what no model is needed for, and say where the model is not above it."""
    scores = examination.scores
    name = examination.card.classes.names[int(scores.support.argmax())]
    constant = majority(scores.support, scores.support)
    report.heading("Beside what no model is needed for")
    shown = (("Model", scores), (f"Most frequent class everywhere ({name})", constant))
    rows = [(row, _number(of.mean_iou), _number(of.overall_accuracy)) for row, of in shown]
    report.table(("On the same pixels", "Mean IoU", "Overall accuracy"), rows)
    if (scores.support > 0).sum() == 1:
        report.warnings([f"All labelled pixels are {name}: these chips cannot tell how well the model tells classes."])
        return
    measures = (("mean IoU", "mean_iou"), ("overall accuracy", "overall_accuracy"))
    lost = [text for text, measure in measures if getattr(scores, measure) <= getattr(constant, measure)]
    if lost:
        what = f"The model's {' and '.join(lost)} {'are' if len(lost) > 1 else 'is'}"
        report.warnings([f"{what} not above what calling every pixel {name} reaches."])
    else:
        report.text(f"The model is above calling every pixel {name} in both.")


def _add_classes(report: Report, examination: Examination) -> None:
    scores, entries = examination.scores, examination.card.classes.entries
    table = np.stack([scores.iou, scores.precision, scores.recall, scores.f1], axis=1).tolist()
    rows = [
        (entry.name, entry.value, *map(_number, values), f"{support:,}")
        for entry, values, support in zip(entries, table, scores.support.tolist(), strict=True)
    ]
    report.heading("Classes")
    report.text(
        "Precision: of the pixels that the model gives to a class, the share that is right. Recall: of the class's "
        "reference pixels, the share that the model finds. F1 joins the two."
    )
    header = ("Class", "Id", "IoU", "Precision", "Recall", "F1", "Reference pixels")
    report.table(header, rows, [entry.color for entry in entries])
    absent = [entry.name for entry, support in zip(entries, scores.support, strict=True) if not support]
    if absent:
        report.text(f"Without a reference pixel, and in no mean: {', '.join(absent)}.")
    titles = examination.card.classes.titles
    report.bars(dict(zip(titles, table, strict=True)), _SERIES, "", longest=1.0)
    report.heading("How much of each class there is, and how much the model sees")
    shares = 100 * np.stack([scores.support, scores.matrix.sum(axis=0)], axis=1) / scores.matrix.sum()
    report.bars(dict(zip(titles, shares.tolist(), strict=True)), _AREAS, "%")


def _add_confusion(report: Report, examination: Examination) -> None:
    classes = examination.card.classes
    report.heading("Confusion")
    report.text("Pixels, and their share of the reference class.")
    counts = [[int(count) for count in row] for row in examination.scores.matrix]
    report.matrix(classes.titles, counts, [entry.color for entry in classes.entries], "reference ↓ predicted →")


def _add_reliability(report: Report, reliability: Reliability) -> None:
    mean, right = reliability.overall_confidence, reliability.correct.sum() / reliability.pixels.sum()
    more = "more" if mean > right else "less"
    report.heading("Can the model's confidence be trusted?")
    report.text(
        f"The model is {100 * mean:.1f} % sure on average, and right in {100 * right:.1f} % of the labelled pixels"
        + (f": {more} sure than it should be. " if abs(mean - right) >= 0.005 else ". ")
        + "Where its line lies below the diagonal, it is more sure than it should be; above, less. Calibration error "
        f"(15 bins): {_number(reliability.calibration_error)}."
    )
    edges, shares = reliability.edges.tolist(), reliability.shares.tolist()
    points = zip(reliability.mean_confidence.tolist(), reliability.accuracy.tolist(), strict=True)
    lines = {
        "confidence and accuracy are equal": (_DIAGONAL, [(0.0, 0.0), (1.0, 1.0)]),
        "the model": (_MODEL, list(points)),
    }
    columns = Columns("share of the labelled pixels", _PIXELS, list(zip(edges, edges[1:], shares, strict=False)))
    report.lines(lines, "confidence", "share that is right", columns=columns)


def _add_chips(report: Report, examination: Examination) -> None:
    report.heading("Worst and best chips")
    report.text("Image, reference and prediction. Grey: no data, or no label.")
    report.legend(examination.card.classes.legend)
    showcase = examination.showcase
    for which, exhibits in (("Fewest pixels right", showcase.worst), ("Most pixels right", showcase.best)):
        for exhibit in exhibits:
            share, pixels = 100 * exhibit.scores.overall_accuracy, int(exhibit.scores.matrix.sum())
            said = f"{share:.1f} % of {_counted(pixels, 'labelled pixel')} right"
            report.text(f"{which}: {exhibit.name}, {said}, mean IoU {_number(exhibit.scores.mean_iou)}")
            report.pictures([png_bytes(exhibit.picture)], f"image, reference and prediction of {exhibit.name}", _ACROSS)


def _add_files(report: Report, files: Mapping[str, Path], folder: Path) -> None:
    """Link what lies beside the page, and name what does not: a path to elsewhere may tell who made it."""
    report.heading("Files")
    here = folder.resolve()
    places = {f"{what}: {path.name}": path.parent.resolve() / path.name for what, path in files.items()}
    near = {what: place for what, place in places.items() if place.is_relative_to(here)}
    report.links({what: place.relative_to(here).as_posix() for what, place in near.items()})
    for what in [what for what in places if what not in near]:
        report.text(f"{what}, in another folder")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"
