# SPDX-License-Identifier: GPL-3.0-or-later
"""The Dataset Maker's report: class shares, the split on the ground, warnings, band statistics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.bandstatistics import BandStatistics
from specdeepmap.core.data.census import Census
from specdeepmap.core.data.dataset import CSV_NAMES, STATISTICS_NAME, SUMMARY_NAME
from specdeepmap.core.data.splits import LEFT_OUT, SPLIT_NAMES, Assignment
from specdeepmap.core.report import Box, Report

COLORS = {"train": "#0072b2", "validation": "#e69f00", "test": "#009e73", "left out": "#c8c8c8"}


def write_report(
    names: Sequence[str],
    census: Census,
    assignment: Assignment,
    weights: NDArray[np.float64],
    grounds: Sequence[NDArray[np.intp]],
    findings: tuple[Sequence[str], Sequence[str]],
    statistics: BandStatistics | None,
) -> str:
    """Write the page.

    Args:
        names: of the chips.
        census: of their labels.
        assignment: of the chips.
        weights: per class.
        grounds: positions of chips that lie in one CRS.
        findings: remarks, and warnings.
        statistics: of the bands; None where none were measured.

    Returns:
        HTML.
    """
    report = Report("Dataset report")
    sets = [name for index, name in enumerate((*SPLIT_NAMES, "left out")) if np.any(assignment == index)]
    for remark in findings[0]:
        report.text(remark)
    report.heading("Warnings")
    report.warnings(findings[1])
    report.heading("Class shares per set (percent of the labelled pixels)")
    pixels = np.stack([census.counts[assignment == index].sum(axis=0) for index in range(LEFT_OUT)])
    shares = 100 * pixels / np.maximum(pixels.sum(axis=1, keepdims=True), 1)
    used = [index for index, name in enumerate(SPLIT_NAMES) if name in sets]
    entries = census.classes.entries
    bars = {title: [float(shares[index, k]) for index in used] for k, title in enumerate(census.classes.titles)}
    report.bars(bars, {SPLIT_NAMES[index]: COLORS[SPLIT_NAMES[index]] for index in used}, "%")
    header = ("Class", "Id", *(f"{name} pixels" for name in SPLIT_NAMES), "Chips", "Weight")
    rows = [
        (
            entry.name,
            entry.value,
            *(f"{int(count):,}" for count in pixels[:, k]),
            int((census.counts[:, k] > 0).sum()),
            f"{weights[k]:.3f}",
        )
        for k, entry in enumerate(entries)
    ]
    report.table(header, rows, [entry.color for entry in entries])
    report.heading("The split on the ground")
    _add_maps(report, names, census, assignment, grounds)
    report.legend({name: COLORS[name] for name in sets})
    if statistics is not None:
        report.heading(f"Bands (training chips{', scaled values' if statistics.normalization.scale != 1 else ''})")
        _add_bands(report, statistics)
    report.heading("Files")
    files = (*CSV_NAMES.values(), SUMMARY_NAME, *([] if statistics is None else [STATISTICS_NAME]))
    report.links({name: name for name in files})  # they lie beside the page
    return report.html()


def _add_maps(
    report: Report,
    names: Sequence[str],
    census: Census,
    assignment: Assignment,
    grounds: Sequence[NDArray[np.intp]],
) -> None:
    """Add one map per ground, the chips of different sets in different colours."""
    labels = (*SPLIT_NAMES, "left out")
    for positions in grounds:
        boxes = []
        for position in positions:
            name = labels[assignment[position]]
            boxes.append(Box(census.grids[position].extent, COLORS[name], f"{names[position]}: {name}"))
        report.map(boxes)


def _add_bands(report: Report, statistics: BandStatistics) -> None:
    """Add mean and standard deviation over wavelength, or over band numbers where it is not known."""
    known = all(band.wavelength_nm is not None for band in statistics.bands)
    normalization = statistics.normalization
    points = []
    for number, band in enumerate(statistics.bands, 1):
        place = float(band.wavelength_nm) if known and band.wavelength_nm is not None else float(number)
        hidden = normalization.bad[number - 1]
        mean, std = (float("nan"),) * 2 if hidden else (normalization.mean[number - 1], normalization.std[number - 1])
        points.append((place, mean, std))
    points.sort(key=lambda point: point[0])
    lines = {
        "mean": ("#0072b2", [(x, mean) for x, mean, _ in points]),
        "mean + standard deviation": ("#9ecae1", [(x, mean + std) for x, mean, std in points]),
        "mean − standard deviation": ("#9ecae1", [(x, mean - std) for x, mean, std in points]),
    }
    report.lines(lines, "wavelength (nm)" if known else "band", "value")
