# SPDX-License-Identifier: GPL-3.0-or-later
"""Split chips into training, validation and test sets and describe them: the Dataset Maker."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.bands import Band
from specdeepmap.core.data.classes import ClassTable, class_weights
from specdeepmap.core.data.dataset import (
    CSV_NAMES,
    INDEX_NAME,
    STATISTICS_NAME,
    SUMMARY_NAME,
    ChipPair,
    find_pairs,
    write_pairs,
    write_statistics,
    write_summary,
)
from specdeepmap.core.data.labels import LabelRaster, names_and_colors
from specdeepmap.core.data.normalization import Moments, Normalization
from specdeepmap.core.data.raster import Grid, Raster
from specdeepmap.core.data.splits import (
    LEFT_OUT,
    SPLIT_NAMES,
    Assignment,
    imbalance,
    leaks,
    split_random,
    split_stratified,
)
from specdeepmap.core.data.tileindex import read_splits, write_splits
from specdeepmap.core.data.tiling import Window
from specdeepmap.core.errors import ConfigError, DatasetError, RasterError
from specdeepmap.core.jobs import PrepareJob, PrepareResult
from specdeepmap.core.progress import Progress
from specdeepmap.core.staging import Staging

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class _LabelChip:
    """What was read of a label chip: pixels per value 0 to 255, place, names and colours by value."""

    counts: NDArray[np.int64]
    grid: Grid
    names: dict[int, str]
    colors: dict[int, str]


def make_dataset(job: PrepareJob, progress: Progress) -> PrepareResult:
    """Split chips into sets and write the tables of a dataset folder."""
    pairs = find_pairs(job.data_folder)
    progress.report(0.0, f"Counting the labels of {len(pairs)} chips")
    chips = _in_threads(_read_label_chip, [pair.label for pair in pairs], progress.part(0.0, 0.4))
    classes = _class_table(chips, job.data_folder)
    counts = np.stack([chip.counts for chip in chips])[:, list(classes.values)]
    assignment = _assign(job, pairs, counts)
    _tell(assignment, counts, classes, chips, progress)
    output = job.output_folder or job.data_folder
    with Staging(progress) as staging:
        sets = [
            [pair for pair, given in zip(pairs, assignment, strict=True) if given == index]
            for index in range(len(SPLIT_NAMES))
        ]
        for name, members in zip(SPLIT_NAMES, sets, strict=True):
            write_pairs(staging.file(output / CSV_NAMES[name]), members, output)
        pixels = np.stack([counts[assignment == index].sum(axis=0) for index in range(len(SPLIT_NAMES))])
        summary = staging.file(output / SUMMARY_NAME)
        write_summary(summary, classes, pixels, class_weights(pixels[0]), job.scaler)
        statistics = None
        if job.statistics:
            statistics = output / STATISTICS_NAME
            _write_statistics(job, sets[0], staging.file(statistics), progress.part(0.4, 0.95))
    if statistics is None:
        (output / STATISTICS_NAME).unlink(missing_ok=True)  # one of an earlier split would be wrong now
    _mark_index(job, output, pairs, assignment, progress)
    progress.report(1.0)
    return PrepareResult(
        output_folder=output,
        train_csv=output / CSV_NAMES["train"],
        validation_csv=output / CSV_NAMES["validation"],
        test_csv=output / CSV_NAMES["test"],
        summary_csv=output / SUMMARY_NAME,
        statistics_csv=statistics,
    )


def _in_threads(read: Callable[[T], U], items: Sequence[T], progress: Progress) -> list[U]:
    """Read items in threads, in their order; stops soon after a cancel."""
    results: dict[int, U] = {}
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        for index, result in _completed(pool, read, items, progress):
            results[index] = result
            progress.report(len(results) / len(items))
    return [results[index] for index in range(len(items))]


def _completed(
    pool: ThreadPoolExecutor, read: Callable[[T], U], items: Sequence[T], progress: Progress
) -> Iterator[tuple[int, U]]:
    """Yield results as they come, with few items in flight, so that memory stays bounded."""
    waiting: dict[Future[U], int] = {}
    source = iter(enumerate(items))
    try:
        while True:
            progress.check()
            for index, item in source:
                waiting[pool.submit(read, item)] = index
                if len(waiting) >= 32:
                    break
            if not waiting:
                return
            done, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                yield waiting.pop(future), future.result()
    finally:
        for future in waiting:
            future.cancel()


def _read_label_chip(path: Path) -> _LabelChip:
    grid = Raster.open(path).grid
    labels = LabelRaster(str(path), grid, Progress(), parameter="DATA_FOLDER: the label chip")
    values = labels.read(Window(0, 0, grid.width, grid.height))
    counts = np.bincount(values.ravel(), minlength=256)
    names, colors = names_and_colors(Raster.open(path).dataset)
    # A colour table has 256 entries, most of them for nothing.
    own = {value: color for value, color in colors.items() if value in names or counts[value]}
    return _LabelChip(counts, grid, names, own)


def _class_table(chips: Sequence[_LabelChip], folder: Path) -> ClassTable:
    """Make the table of the classes of all chips.

    Raises:
        DatasetError: if there are fewer than two.
    """
    values = np.flatnonzero(sum(chip.counts for chip in chips))
    names: dict[int, str] = {}
    colors: dict[int, str] = {}
    for chip in chips:
        names = {**chip.names, **names}
        colors = {**chip.colors, **colors}
    table = ClassTable.of((int(value) for value in values), names, colors)
    if len(table) < 2:
        found = f"only class {table.values[0]}" if len(table) else "no class at all"
        raise DatasetError(
            f"DATA_FOLDER {folder}: the label chips hold {found}, and a network needs two. Value 0 means "
            "unlabelled; if it is a class of its own, run the Raster Splitter again with ZERO_AS set."
        )
    return table


def _assign(job: PrepareJob, pairs: Sequence[ChipPair], counts: NDArray[np.int64]) -> Assignment:
    """Put each chip into a set.

    Raises:
        ConfigError, DatasetError: if no chip would be trained on, or a given split cannot be read.
    """
    percents = (job.train_percent, job.validation_percent, job.test_percent)
    if job.split == "given":
        assignment = _given(job.data_folder, pairs)
    elif job.split == "random":
        assignment = split_random(len(pairs), percents, job.seed)
    else:
        assignment = split_stratified(counts, percents, job.seed)
    if job.split != "given" and not np.any(assignment != LEFT_OUT):
        raise ConfigError(
            f"TRAIN_PERCENT, VALIDATION_PERCENT and TEST_PERCENT take no chip out of {len(pairs)}; raise them."
        )
    return assignment


def _given(folder: Path, pairs: Sequence[ChipPair]) -> Assignment:
    """Take the sets from the tile index."""
    path = folder / INDEX_NAME
    if not path.is_file():
        raise DatasetError(
            f"SPLIT is given, but {folder} holds no {INDEX_NAME}. Run the Raster Splitter, or take another SPLIT."
        )
    splits = read_splits(path)
    assignment = np.full(len(pairs), LEFT_OUT, np.int8)
    for index, pair in enumerate(pairs):
        name = splits.get(pair.name, "")
        if name in SPLIT_NAMES:
            assignment[index] = SPLIT_NAMES.index(name)
        elif name:
            raise DatasetError(
                f"SPLIT is given, but {path} puts {pair.name} into '{name}'. It can be: "
                f"{', '.join(SPLIT_NAMES)}, or empty for none."
            )
    if np.all(assignment == LEFT_OUT):
        raise DatasetError(
            f"SPLIT is given, but the field split of {path} is empty for every chip. Fill it in QGIS with "
            f"{', '.join(SPLIT_NAMES)}, or run once with another SPLIT and edit that."
        )
    return assignment


def _tell(
    assignment: Assignment,
    counts: NDArray[np.int64],
    classes: ClassTable,
    chips: Sequence[_LabelChip],
    progress: Progress,
) -> None:
    """Tell the user how the split came out, and what may be wrong with it."""
    sizes = [int((assignment == index).sum()) for index in range(len(SPLIT_NAMES))]
    progress.info(
        f"{sizes[0]} training, {sizes[1]} validation and {sizes[2]} test chips; class shares differ by "
        f"{100 * imbalance(counts, assignment):.2f} percentage points at most."
    )
    for name, size in zip(SPLIT_NAMES, sizes, strict=True):
        if not size:
            progress.warning(f"The {name} set is empty.")
    wanted = sum(size > 0 for size in sizes)
    for index, entry in enumerate(classes.entries):
        lacking = [
            name
            for number, name in enumerate(SPLIT_NAMES)
            if sizes[number] and not counts[assignment == number, index].any()
        ]
        if lacking:
            having = int((counts[:, index] > 0).sum())
            progress.warning(
                f"Class {entry.value} ({entry.name}) is missing in: {', '.join(lacking)}. It stands in "
                f"{having} chip(s), {wanted} would be needed; label more of it, or take smaller chips."
            )
    for positions in _by_crs(chips):
        leaking = leaks([chips[i].grid.extent for i in positions], assignment[positions])
        if leaking:
            progress.warning(
                f"{len(leaking)} chips share ground with a chip of another set, so that accuracies will look "
                "better than they are. Cut the chips with a step that is not smaller than the chip."
            )


def _by_crs(chips: Sequence[_LabelChip]) -> Iterable[NDArray[np.intp]]:
    """Group the positions of georeferenced chips by CRS; chips without one cannot be compared."""
    systems = np.array([chip.grid.crs for chip in chips])
    for crs in sorted(set(systems) - {""}):
        yield np.flatnonzero(systems == crs)


def _write_statistics(job: PrepareJob, pairs: Sequence[ChipPair], path: Path, progress: Progress) -> None:
    """Measure the bands over the training chips and write the table.

    Raises:
        DatasetError: if there is no training chip, or the chips differ in bands.
    """
    if not pairs:
        raise DatasetError(
            "STATISTICS needs training chips, and the training set is empty. Raise TRAIN_PERCENT, or switch "
            "STATISTICS off."
        )
    progress.report(0.0, f"Measuring the bands of {len(pairs)} training chips")
    scale = job.scaler or 1.0
    bands = Raster.open(pairs[0].image).bands

    def measure(pair: ChipPair) -> Moments:
        raster = Raster.open(pair.image)
        if len(raster.bands) != len(bands):
            raise DatasetError(
                f"DATA_FOLDER: {pair.image} has {len(raster.bands)} bands, {pairs[0].image.name} has "
                f"{len(bands)}. Chips of one dataset need the same bands; put other images into a folder of "
                "their own."
            )
        return Moments.of(*raster.read(Window(0, 0, raster.grid.width, raster.grid.height)), scale)

    moments = Moments.empty(len(bands))
    for part in _in_threads(measure, pairs, progress):  # in order: sums are the same in every run
        moments = moments + part
    normalization, empty, constant = moments.normalization(scale, tuple(band.bad for band in bands))
    _warn_of_bands(normalization, empty, constant, bands, progress)
    write_statistics(path, normalization, bands)


def _warn_of_bands(
    normalization: Normalization,
    empty: Sequence[int],
    constant: Sequence[int],
    bands: Sequence[Band],
    progress: Progress,
) -> None:
    flagged = [index + 1 for index, band in enumerate(bands) if band.bad and index + 1 not in empty]
    if flagged:
        progress.info(f"Bands flagged bad, which will not be used: {_listed(flagged)}.")
    if empty:
        progress.warning(f"Bands without one valid pixel, which will not be used: {_listed(empty)}.")
    if constant:
        progress.warning(f"Bands with the same value everywhere (standard deviation set to 1): {_listed(constant)}.")
    if all(normalization.bad):
        raise DatasetError("DATA_FOLDER: no band of the training chips has one valid pixel.")


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)


def _mark_index(
    job: PrepareJob, output: Path, pairs: Sequence[ChipPair], assignment: Assignment, progress: Progress
) -> None:
    """Fill in the sets in tiles.gpkg; where that fails, the dataset is still good."""
    own, index = job.data_folder / INDEX_NAME, output / INDEX_NAME
    in_place = own.resolve() == index.resolve()
    if not own.is_file() or (job.split == "given" and in_place):
        return
    names = [*SPLIT_NAMES, ""]
    try:
        if not in_place:
            shutil.copyfile(own, index)
        write_splits(index, {pair.name: names[given] for pair, given in zip(pairs, assignment, strict=True)})
    except (RasterError, DatasetError, OSError) as error:
        progress.warning(f"The field split of {index} could not be filled in: {error}")
