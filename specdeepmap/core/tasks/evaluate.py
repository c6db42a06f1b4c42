# SPDX-License-Identifier: GPL-3.0-or-later
"""Score a model on test chips: the Deep Learning Tester."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.calibration import Reliability
from specdeepmap.core.data.classes import IGNORE_INDEX, UNLABELLED
from specdeepmap.core.data.dataset import ChipPair
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.scores import Scores, write_confusion, write_scores, write_table
from specdeepmap.core.data.writer import write_class_chip
from specdeepmap.core.errors import DatasetError
from specdeepmap.core.jobs import EvaluateJob, EvaluateResult
from specdeepmap.core.learn.checkpoint import ModelCard
from specdeepmap.core.learn.loader import LoadedChip, load_chip
from specdeepmap.core.learn.predictor import Predictor
from specdeepmap.core.learn.testreport import Examination, Showcase, draw_chip, write_report
from specdeepmap.core.progress import Progress
from specdeepmap.core.staging import Staging
from specdeepmap.core.tasks.testcheck import Warned, check_test_chips, read_test_chips


class _Findings:
    """What the chips brought so far, in little more memory than a row per chip.

    Args:
        card: of the model.
    """

    def __init__(self, card: ModelCard) -> None:
        self._card = card
        self.scores = Scores.empty(len(card.classes))
        self.reliability = Reliability.empty()
        self.showcase = Showcase()
        self.rows: list[Sequence[object]] = []
        self.unknown: Counter[int] = Counter()
        self.lost = 0

    def add(
        self, name: str, chip: LoadedChip, indices: NDArray[np.uint8], confidence: NDArray[np.float32]
    ) -> LoadedChip:
        """Score a chip.

        Args:
            name: of the chip.
            chip: image and reference.
            indices: predicted class indices ``(rows, columns)``.
            confidence: probability of each.

        Returns:
            The chip, without data where the network gave no number: there is nothing to score.
        """
        lost = chip.has_data & (indices == IGNORE_INDEX)
        if lost.any():
            self.lost += int(lost.sum())
            chip = replace(chip, labels=np.where(lost, UNLABELLED, chip.labels), has_data=chip.has_data & ~lost)
        classes = self._card.classes
        true = classes.encode(chip.labels)
        labelled = true != IGNORE_INDEX
        scores = Scores.of(true, indices, len(classes))
        self.scores += scores
        self.reliability += Reliability.of(confidence[labelled], (indices == true)[labelled])
        numbers = (f"{scores.mean_iou:.6f}", f"{scores.overall_accuracy:.6f}", int(scores.matrix.sum()))
        self.rows.append((name, *numbers))
        values, counts = np.unique(chip.labels, return_counts=True)
        for value in classes.unknown(values):
            self.unknown[value] += int(counts[values == value][0])
        seen = np.where(chip.has_data, indices, IGNORE_INDEX).astype(np.uint8)
        self.showcase.offer(name, scores, lambda: draw_chip((chip.image, true), seen, self._card))
        return chip


def evaluate(job: EvaluateJob, progress: Progress) -> EvaluateResult:
    """Predict test chips, pool one confusion matrix and write its scores."""
    warned = Warned(progress)
    pairs = read_test_chips(job, warned)
    predictor = Predictor(job.checkpoint, job.device, job.precision)
    check_test_chips(job, pairs, predictor, warned)
    progress.report(0.0, f"Testing {len(pairs)} chips on {predictor.device.type}")
    with Staging(progress) as staging:
        findings = _predict_chips(job, pairs, predictor, staging, progress)
        if not findings.scores.matrix.any():
            raise DatasetError(
                f"TEST_CSV {job.test_csv}: no chip has a labelled pixel of a class that the model knows."
            )
        for value, count in sorted(findings.unknown.items()):
            warned.warning(f"The model does not know class {value}; its {count} reference pixels are left out.")
        if findings.lost:
            warned.warning(
                f"{findings.lost} pixels got no class and no score: the network gave no number there. The chips "
                "probably hold extreme values, such as a no-data value that they do not declare; or set PRECISION to "
                "float32."
            )
        _write(job, predictor.card, findings, warned.said, staging)
    scores = findings.scores
    _tell(predictor, scores, progress)
    return EvaluateResult(
        scores_csv=job.scores_csv,
        confusion_csv=job.confusion_file,
        chip_scores_csv=job.chip_scores_csv,
        prediction_folder=job.prediction_folder,
        mean_iou=scores.mean_iou,
        overall_accuracy=scores.overall_accuracy,
        macro_f1=scores.macro_f1,
        kappa=scores.kappa,
        average_accuracy=scores.average_accuracy,
        weighted_f1=scores.weighted_f1,
        calibration_error=findings.reliability.calibration_error,
        report=job.report_file,
    )


def _predict_chips(
    job: EvaluateJob, pairs: Sequence[ChipPair], predictor: Predictor, staging: Staging, progress: Progress
) -> _Findings:
    """Predict all chips; write the predictions where they are wanted."""
    findings = _Findings(predictor.card)
    for batch in _batches(job, pairs, predictor, progress):
        chosen, probabilities = predictor.both([chip.image for _, chip in batch])
        confidences = probabilities.max(axis=1)
        for (pair, chip), indices, confidence in zip(batch, chosen, confidences, strict=True):
            scored = findings.add(pair.name, chip, indices, confidence)
            if job.prediction_folder is not None:
                path = job.prediction_folder / f"{pair.name}_prediction.tif"
                _write_prediction(staging.file(path), job, pair, scored, indices, predictor)
        progress.report(len(findings.rows) / len(pairs))
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


def _write(job: EvaluateJob, card: ModelCard, findings: _Findings, warnings: Sequence[str], staging: Staging) -> None:
    """Write the tables and the report."""
    files = {"Score table": job.scores_csv, "Confusion matrix": job.confusion_file}
    write_scores(staging.file(job.scores_csv), findings.scores, card.classes)
    write_confusion(staging.file(job.confusion_file), findings.scores, card.classes)
    if job.chip_scores_csv is not None:
        files["Scores per chip"] = job.chip_scores_csv
        header = ("Chip", "Mean IoU", "Overall Accuracy", "Labelled Pixels")
        write_table(staging.file(job.chip_scores_csv), [header, *findings.rows])
    examination = Examination(
        card=card,
        checkpoint=job.checkpoint.name,
        chips=len(findings.rows),
        scores=findings.scores,
        reliability=findings.reliability,
        showcase=findings.showcase,
        warnings=warnings,
        files=files,
    )
    write_report(staging.file(job.report_file), examination, job.report_file.parent)


def _tell(predictor: Predictor, scores: Scores, progress: Progress) -> None:
    for entry, iou in zip(predictor.card.classes.entries, scores.iou, strict=True):
        progress.info(f"Class {entry.value} ({entry.name}): IoU {iou:.4f}")
    progress.info(
        f"Mean IoU {scores.mean_iou:.4f}, overall accuracy {scores.overall_accuracy:.4f}, macro F1 "
        f"{scores.macro_f1:.4f}, kappa {scores.kappa:.4f}; {int(scores.matrix.sum())} labelled pixels."
    )
