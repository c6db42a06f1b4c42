# SPDX-License-Identifier: GPL-3.0-or-later
"""Datasets: a folder of chips and the tables that say how to learn from them.

Paths in the tables are relative to the table's own folder and use ``/``; where that is impossible
(another drive) they are absolute.
"""

from __future__ import annotations

import csv
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.bands import Band
from specdeepmap.core.data.classes import ClassEntry, ClassTable, color
from specdeepmap.core.data.labels import read_label_chip
from specdeepmap.core.data.normalization import Normalization
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.scores import write_table
from specdeepmap.core.data.splits import SPLIT_NAMES
from specdeepmap.core.errors import ConfigError, DatasetError
from specdeepmap.core.record import LARGEST, shortened

CSV_NAMES = {"train": "train_files.csv", "validation": "validation_files.csv", "test": "test_files.csv"}
SUMMARY_NAME = "Summary_train_val.csv"
STATISTICS_NAME = "Normalize_Bands.csv"
INDEX_NAME = "tiles.gpkg"
REPORT_NAME = "dataset_report.html"
FILES = (*CSV_NAMES.values(), SUMMARY_NAME, STATISTICS_NAME, INDEX_NAME, REPORT_NAME)
"""What makes a dataset of a folder of chips."""

_TITLES = ("Train", "Validation", "Test")  # of the sets, in the summary's columns

# Side files and what GDAL, QGIS or an operating system leave in a folder of chips.
_NO_CHIP = {
    *(".xml", ".hdr", ".csv", ".json", ".txt", ".qml", ".qmd"),
    *(".ovr", ".msk", ".gpkg", ".db", ".ini", ".tfw"),
}


_NO_NUMBER = (ValueError, TypeError, OverflowError)
"""What comes of a table's texts that are no numbers; TypeError: a row is too short, OverflowError: it says inf."""


@dataclass(frozen=True)
class ChipPair:
    """An image chip and its label chip."""

    image: Path
    label: Path

    @property
    def name(self) -> str:
        """The name of the image chip without its extension."""
        return self.image.stem


@dataclass(frozen=True)
class Dataset:
    """What the tables of a dataset folder say.

    Attributes:
        folder: where the tables lie.
        chips: the pairs of each set, by name in ``SPLIT_NAMES``; a set may be empty.
        classes: all classes of the dataset.
        weights: a training weight per class.
        scale: divisor of the image values, 1 where none was given.
        statistics: mean and standard deviation per band; None where none were computed.
    """

    folder: Path
    chips: Mapping[str, tuple[ChipPair, ...]]
    classes: ClassTable
    weights: tuple[float, ...]
    scale: float
    statistics: Normalization | None

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Read a dataset folder.

        Raises:
            DatasetError: if a table is missing or wrong.
        """
        if not folder.is_dir():
            raise DatasetError(f"DATASET_FOLDER {folder} does not exist.")
        if not (folder / CSV_NAMES["train"]).is_file():
            raise DatasetError(
                f"DATASET_FOLDER {folder} holds no {CSV_NAMES['train']}. Run the Dataset Maker on it first."
            )
        classes, weights, scale = read_summary(folder / SUMMARY_NAME)
        tables = {name: folder / CSV_NAMES[name] for name in SPLIT_NAMES}
        chips = {name: read_pairs(path) if path.exists() else () for name, path in tables.items()}
        path = folder / STATISTICS_NAME
        statistics = read_statistics(path, scale) if path.exists() else None
        return cls(folder, chips, classes, weights, scale, statistics)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Labelled pixels ``(sets, classes)``, the sets in the order train, validation, test.

        They are counted in the chips where the summary does not tell: its columns of counts are optional.
        """
        known = read_counts(self.folder / SUMMARY_NAME)
        if known is not None:
            return known
        return np.stack([self._count(self.chips[name]) for name in SPLIT_NAMES])

    def shared(self, one: str, other: str) -> int:
        """Count the chips of a set that are in another, too: tables may have been edited or put together."""
        first, second = ({pair.image.resolve() for pair in self.chips[name]} for name in (one, other))
        return len(first & second)

    def _count(self, pairs: Sequence[ChipPair]) -> NDArray[np.int64]:
        found = np.zeros(256, np.int64)
        for pair in pairs:
            raster = Raster.open(pair.label, georeference="NONE")
            labels = read_label_chip(raster, "DATASET_FOLDER: the label chip")
            found += np.bincount(self.classes.encode(labels).ravel(), minlength=256)
        return found[: len(self.classes)]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of which chip is in which set, and of the counts of labels: whether two runs used the same."""
        lines = [f"{name}:{pair.name}" for name in SPLIT_NAMES for pair in self.chips[name]]
        summary = self.folder / SUMMARY_NAME
        known = read_counts(summary) if summary.is_file() else None
        lines += [] if known is None else [f"labels:{known.tolist()}"]
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def find_pairs(folder: Path) -> list[ChipPair]:
    """Pair the chips of ``images/`` and ``labels/`` by name, in alphabetical order.

    Raises:
        DatasetError: if a folder is missing or empty, or a chip has no partner.
    """
    images, labels = _chips(folder, "images"), _chips(folder, "labels")
    for have, lack, kind in ((images, labels, "labels"), (labels, images, "images")):
        alone = sorted(set(have) - set(lack))
        if alone:
            raise DatasetError(
                f"DATA_FOLDER {folder}: {len(alone)} chip(s) have no partner of the same name in {kind}/, "
                f"for example {have[alone[0]].name}. Each image chip needs a label chip; run the Raster "
                "Splitter again, or remove what does not belong there."
            )
    return [ChipPair(images[name], labels[name]) for name in sorted(images)]


def _chips(folder: Path, kind: str) -> dict[str, Path]:
    place = folder / kind
    if not place.is_dir():
        raise DatasetError(
            f"DATA_FOLDER {folder} holds no folder {kind}/. Name the folder that the Raster Splitter wrote "
            "(it holds images/ and labels/)."
        )
    found: dict[str, Path] = {}
    with os.scandir(place) as entries:
        names = sorted(entry.name for entry in entries if entry.is_file())
    for name in names:
        stem, suffix = os.path.splitext(name)  # noqa: PTH122 - thousands of these: a Path takes its time
        if name.startswith(".") or suffix.lower() in _NO_CHIP:
            continue
        if stem in found:
            raise DatasetError(f"{place} holds two chips named {stem}; remove one of them.")
        found[stem] = place / name
    if not found:
        raise DatasetError(f"DATA_FOLDER {folder}: {kind}/ holds no chip. Run the Raster Splitter first.")
    return found


def write_pairs(path: Path, pairs: Sequence[ChipPair], folder: Path) -> None:
    """Write the table of one set; paths are relative to ``folder``, where the table will lie."""
    parents = {chip.parent for pair in pairs for chip in (pair.image, pair.label)}
    to = {parent: _relative(parent, folder) for parent in parents}
    rows = [tuple(f"{to[chip.parent]}/{chip.name}" for chip in (pair.image, pair.label)) for pair in pairs]
    write_table(path, [("image", "mask"), *rows])


def read_pairs(path: Path, parameter: str = "DATASET_FOLDER") -> tuple[ChipPair, ...]:
    """Read the table of one set.

    Raises:
        DatasetError: if it is no such table, or a chip that it names does not exist.
    """
    rows = _read_rows(path, ("image", "mask"), parameter)
    pairs = tuple(ChipPair(_resolved(row["image"], path), _resolved(row["mask"], path)) for row in rows)
    for pair in pairs:
        for chip in (pair.image, pair.label):
            if not _is_there(chip):
                raise DatasetError(
                    f"{parameter}: {path} names the chip {shortened(chip)}, which does not exist. Was the folder moved "
                    "without its chips? Run the Dataset Maker again."
                )
    return pairs


def write_summary(
    path: Path,
    classes: ClassTable,
    counts: NDArray[np.int64],
    weights: NDArray[np.float64],
    scale: float | None,
) -> None:
    """Write the class summary; ``counts`` are labelled pixels ``(sets, classes)``."""
    header: list[object] = ["Class ID"]
    for title in _TITLES:
        header += [f"{title} Count", f"{title} Percentage"]
    header += ["Class Train Weight", "Scaler", "Ignored Background : Class Zero", "Class Name", "Class Color"]
    totals = counts.sum(axis=1)
    rows: list[Sequence[object]] = [header]
    for index, entry in enumerate(classes.entries):
        row: list[object] = [entry.value]
        for count, total in zip(counts[:, index], totals, strict=True):
            row += [int(count), f"{100 * count / total if total else 0:.2f}"]
        scaler = "None" if scale is None else f"{scale:.10g}"
        rows.append([*row, f"{weights[index]:.6f}", scaler, "Yes", entry.name, entry.color])
    write_table(path, rows)


def read_summary(path: Path) -> tuple[ClassTable, tuple[float, ...], float]:
    """Read classes, training weights and scaler; names and colours may be missing.

    Raises:
        DatasetError: if the table is missing or wrong.
    """
    if not path.is_file():
        raise DatasetError(f"{path.parent} holds no {path.name}. Run the Dataset Maker on it first.")
    rows = _read_rows(path, ("Class ID", "Class Train Weight"), "DATASET_FOLDER")
    if not rows:
        raise DatasetError(f"{path} names no class. Run the Dataset Maker again.")
    try:
        entries = []
        for index, row in enumerate(sorted(rows, key=_value)):
            name = row.get("Class Name") or f"class {_value(row)}"
            entries.append((ClassEntry(_value(row), name, row.get("Class Color") or color(index)), row))
        weights = tuple(float(row["Class Train Weight"] or 0) for _, row in entries)
        text = (rows[0].get("Scaler") or "").strip()
        scale = 1.0 if text.lower() in ("", "none", "nan") else float(text)
    except _NO_NUMBER as error:
        raise DatasetError(f"{path} holds a number that cannot be read: {shortened(error)}.") from error
    if not 0 < scale < math.inf:
        raise DatasetError(f"{path}: the scaler is {scale:g}; it must be a finite number greater than 0.")
    if not all(0 <= weight < math.inf for weight in weights):
        raise DatasetError(f"{path}: a class weight is negative or infinite. Run the Dataset Maker again.")
    try:
        return ClassTable(entries=tuple(entry for entry, _ in entries)), weights, scale
    except ConfigError as error:
        raise DatasetError(f"{path} cannot be used: {shortened(error)}") from error


def _value(row: Mapping[str, str]) -> int:
    """Read the class value of a row; spreadsheets write 1 as 1.0."""
    return int(float(row["Class ID"]))


def _band(row: Mapping[str, str]) -> int:
    """Read the number of a row's band."""
    return int(float(row["Band_Number"]))


def read_counts(path: Path) -> NDArray[np.int64] | None:
    """Read the labelled pixels ``(sets, classes)`` of the class summary; None where it has no such columns.

    Raises:
        DatasetError: if the table is wrong.
    """
    columns = [f"{title} Count" for title in _TITLES]
    rows = _read_rows(path, ("Class ID",), "DATASET_FOLDER")
    if any(column not in row for row in rows for column in columns):
        return None
    try:
        rows.sort(key=_value)
        counts = [[int(float(row[column] or 0)) for row in rows] for column in columns]
        if any(not 0 <= sum(row) <= LARGEST or min(row, default=0) < 0 for row in counts):
            raise ValueError("a count of pixels is negative or too large")
        return np.array(counts, np.int64)
    except _NO_NUMBER as error:
        raise DatasetError(f"{path} holds a number that cannot be read: {shortened(error)}.") from error


def write_statistics(path: Path, normalization: Normalization, bands: Sequence[Band]) -> None:
    """Write mean and standard deviation of the scaled values of each band."""
    rows: list[Sequence[object]] = [("Band_Number", "std", "mean", "Band_Name", "Wavelength", "Bad")]
    for index, band in enumerate(bands):
        wavelength = "" if band.wavelength_nm is None else f"{band.wavelength_nm:.10g}"
        statistics = (f"{normalization.std[index]:.17g}", f"{normalization.mean[index]:.17g}")
        rows.append((index + 1, *statistics, band.name, wavelength, int(normalization.bad[index])))
    write_table(path, rows)


def read_statistics(path: Path, scale: float) -> Normalization:
    """Read band statistics; the bad flags may be missing.

    Raises:
        DatasetError: if the table is wrong.
    """
    rows = _read_rows(path, ("Band_Number", "std", "mean"), "DATASET_FOLDER")
    try:
        rows.sort(key=_band)  # a spreadsheet may have sorted them otherwise
        if [_band(row) for row in rows] != list(range(1, len(rows) + 1)):
            raise ValueError("column Band_Number does not count from 1 without gaps")
        return Normalization(
            scale=scale,
            mean=tuple(float(row["mean"]) for row in rows),
            std=tuple(float(row["std"]) for row in rows),
            bad=tuple((row.get("Bad") or "0").strip().lower() not in ("0", "0.0", "false") for row in rows),
        )
    except _NO_NUMBER as error:
        raise DatasetError(f"{path} cannot be used: {shortened(error)}") from error


def _read_rows(path: Path, columns: Sequence[str], parameter: str) -> list[dict[str, str]]:
    """Read a CSV that has these columns."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or []
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{parameter}: {path} cannot be read as a table: {shortened(error)}") from error
    missing = [column for column in columns if column not in names]
    if missing:
        what = "Is it a table of the Dataset Maker?"
        if any(";" in name for name in names):
            what = "Its columns are parted by semicolons; save it with commas (and decimal points)."
        raise DatasetError(f"{parameter}: {path} lacks the column(s) {', '.join(missing)}. {what}")
    return rows


def _is_there(chip: Path) -> bool:
    """Tell whether a chip exists; a name that no file can have does not."""
    try:
        return chip.is_file()
    except (OSError, ValueError):
        return False


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    except ValueError:  # another drive
        return path.absolute().as_posix()


def _resolved(text: str, table: Path) -> Path:
    r"""Give the path of a chip; ``\\`` separates folders in tables from Windows, and may belong to a name elsewhere."""
    folder, text = table.absolute().parent, (text or "").strip()
    path = Path(os.path.normpath(folder / text))
    if "\\" in text and not _is_there(path):
        path = Path(os.path.normpath(folder / text.replace("\\", "/")))
    return path
