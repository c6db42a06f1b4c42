# SPDX-License-Identifier: GPL-3.0-or-later
"""Score a model on test chips: the Deep Learning Tester."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.classes import UNLABELLED
from specdeepmap.core.data.dataset import ChipPair, read_pairs
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.scores import Scores, write_confusion, write_scores, write_table
from specdeepmap.core.data.writer import write_class_chip
from specdeepmap.core.errors import DatasetError
from specdeepmap.core.jobs import EvaluateJob, EvaluateResult
from specdeepmap.core.learn.checkpoint import ModelCard, chip_mark
from specdeepmap.core.learn.loader import LoadedChip, load_chip
from specdeepmap.core.learn.predictor import Predictor
from specdeepmap.core.progress import Progress
from specdeepmap.core.staging import Staging


@dataclass
class _Findings:
    """What the chips brought: one score per chip, and reference values that the model does not know."""

    names: list[str] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    unknown: dict[int, int] = field(default_factory=dict)


def evaluate(job: EvaluateJob, progress: Progress) -> EvaluateResult:
    """Predict test chips, pool one confusion matrix and write its scores."""
    pairs = read_pairs(job.test_csv, "TEST_CSV")
    if not pairs:
        raise DatasetError(f"TEST_CSV {job.test_csv} names no chip. Raise TEST_PERCENT in the Dataset Maker.")
    twice = [name for name, count in Counter(pair.name for pair in pairs).items() if count > 1]
    if job.prediction_folder is not None and twice:
        raise DatasetError(
            f"TEST_CSV {job.test_csv} names several chips {twice[0]}; their predictions would have one name in "
            "PREDICTION_FOLDER. Test them one after the other."
        )
    predictor = Predictor(job.checkpoint, job.device)
    predictor.check_raster(Raster.open(pairs[0].image), "TEST_CSV: the chip", progress)
    _warn_of_known_chips(pairs, predictor.card, progress)
    progress.report(0.0, f"Testing {len(pairs)} chips on {predictor.device.type}")
    confusion = job.confusion_csv or job.scores_csv.with_name(f"{job.scores_csv.stem}_confusion.csv")
    with Staging(progress) as staging:
        findings = _predict_chips(job, pairs, predictor, staging, progress)
        scores = sum(findings.scores, Scores.empty(len(predictor.card.classes)))
        if not scores.matrix.any():
            raise DatasetError(
                f"TEST_CSV {job.test_csv}: no chip has a labelled pixel of a class that the model knows."
            )
        write_scores(staging.file(job.scores_csv), scores, predictor.card.classes)
        write_confusion(staging.file(confusion), scores, predictor.card.classes)
        if job.chip_scores_csv is not None:
            _write_chip_scores(staging.file(job.chip_scores_csv), findings)
    _tell(predictor, scores, findings, progress)
    return EvaluateResult(
        scores_csv=job.scores_csv,
        confusion_csv=confusion,
        chip_scores_csv=job.chip_scores_csv,
        prediction_folder=job.prediction_folder,
        mean_iou=scores.mean_iou,
        overall_accuracy=scores.overall_accuracy,
        macro_f1=scores.macro_f1,
        kappa=scores.kappa,
    )


def _predict_chips(
    job: EvaluateJob, pairs: Sequence[ChipPair], predictor: Predictor, staging: Staging, progress: Progress
) -> _Findings:
    """Predict all chips; write the predictions where they are wanted."""
    classes = predictor.card.classes
    findings = _Findings()
    for batch in _batches(job, pairs, predictor, progress):
        probabilities = predictor.probabilities([chip.image for _, chip in batch])
        for (pair, chip), indices in zip(batch, probabilities.argmax(axis=1).astype(np.uint8), strict=True):
            findings.names.append(pair.name)
            findings.scores.append(Scores.of(classes.encode(chip.labels), indices, len(classes)))
            values, counts = np.unique(chip.labels, return_counts=True)
            for value in classes.unknown(values):
                findings.unknown[value] = findings.unknown.get(value, 0) + int(counts[values == value][0])
            if job.prediction_folder is not None:
                path = job.prediction_folder / f"{pair.name}_prediction.tif"
                _write_prediction(staging.file(path), job, pair, chip, indices, predictor)
        progress.report(len(findings.names) / len(pairs))
    return findings


def _batches(
    job: EvaluateJob, pairs: Sequence[ChipPair], predictor: Predictor, progress: Progress
) -> Iterator[list[tuple[ChipPair, LoadedChip]]]:
    """Yield batches of chips of one size, in order."""
    batch: list[tuple[ChipPair, LoadedChip]] = []
    for pair in pairs:
        progress.check()
        chip = load_chip(pair, predictor.card.normalization)
        size = job.batch_size or predictor.batch_size(*chip.labels.shape)
        if batch and (len(batch) >= size or batch[0][1].labels.shape != chip.labels.shape):
            yield batch
            batch = []
        batch.append((pair, chip))
    yield batch


def _write_prediction(
    path: Path,
    job: EvaluateJob,
    pair: ChipPair,
    chip: LoadedChip,
    indices: NDArray[np.uint8],
    predictor: Predictor,
) -> None:
    prediction = predictor.card.classes.decode(indices)
    prediction[~chip.has_data] = UNLABELLED
    if job.mask_unlabelled:
        prediction[chip.labels == UNLABELLED] = UNLABELLED
    write_class_chip(path, prediction, Raster.open(pair.image).grid, predictor.card.classes, ("COMPRESS=DEFLATE",))


def _write_chip_scores(path: Path, findings: _Findings) -> None:
    rows: list[Sequence[object]] = [("Chip", "Mean IoU", "Overall Accuracy", "Labelled Pixels")]
    for name, scores in zip(findings.names, findings.scores, strict=True):
        numbers = (f"{scores.mean_iou:.6f}", f"{scores.overall_accuracy:.6f}", int(scores.matrix.sum()))
        rows.append((name, *numbers))
    write_table(path, rows)


def _warn_of_known_chips(pairs: Sequence[ChipPair], card: ModelCard, progress: Progress) -> None:
    """Warn where chips are tested that the model was trained or validated on."""
    known = sum(chip_mark(pair.name) in card.trained_on for pair in pairs)
    if known:
        progress.warning(
            f"{known} of the {len(pairs)} test chips have the names of chips that the model was trained or validated "
            "on: the scores will look better than they are. Test on the test set of the split that it was trained with."
        )


def _tell(predictor: Predictor, scores: Scores, findings: _Findings, progress: Progress) -> None:
    for value, count in sorted(findings.unknown.items()):
        progress.warning(f"The model does not know class {value}; its {count} reference pixels are left out.")
    for entry, iou in zip(predictor.card.classes.entries, scores.iou, strict=True):
        progress.info(f"Class {entry.value} ({entry.name}): IoU {iou:.4f}")
    progress.info(
        f"Mean IoU {scores.mean_iou:.4f}, overall accuracy {scores.overall_accuracy:.4f}, macro F1 "
        f"{scores.macro_f1:.4f}, kappa {scores.kappa:.4f}; {int(scores.matrix.sum())} labelled pixels."
    )
