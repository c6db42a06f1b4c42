# SPDX-License-Identifier: GPL-3.0-or-later
"""Split chips into training, validation and test sets and describe them: the Dataset Maker."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.bandmatch import first_few
from specdeepmap.core.data.bandstatistics import BandStatistics, measure_bands
from specdeepmap.core.data.census import Census, source_of, take_census
from specdeepmap.core.data.classes import class_weights
from specdeepmap.core.data.dataset import (
    CSV_NAMES,
    INDEX_NAME,
    REPORT_NAME,
    STATISTICS_NAME,
    SUMMARY_NAME,
    ChipPair,
    find_pairs,
    write_pairs,
    write_statistics,
    write_summary,
)
from specdeepmap.core.data.datasetreport import write_report
from specdeepmap.core.data.ground import (
    automatic_block_size,
    boxes_of,
    common_grounds,
    find_blocks,
    joined_grounds,
    leaks,
    leaks_across,
    shared_grounds,
    without_neighbours,
    without_neighbours_across,
)
from specdeepmap.core.data.splits import (
    LEFT_OUT,
    SPLIT_NAMES,
    Assignment,
    imbalance,
    split_random,
    split_stratified,
    split_thinned,
)
from specdeepmap.core.data.tileindex import copy_index, read_splits, write_splits
from specdeepmap.core.errors import ConfigError, DatasetError, RasterError
from specdeepmap.core.jobs import PrepareJob, PrepareResult
from specdeepmap.core.progress import Progress
from specdeepmap.core.staging import SQLITE_FILES, Staging, claimed, remove_staged

Grounds = list[NDArray[np.intp]]


def make_dataset(job: PrepareJob, progress: Progress) -> PrepareResult:
    """Split chips into sets and write the tables and the report of a dataset folder."""
    pairs = find_pairs(job.data_folder)
    progress.report(0.0, f"Counting the labels of {len(pairs)} chips")
    census = take_census(pairs, job.data_folder, progress.part(0.0, 0.4))
    sources = [source_of(pair.name) for pair in pairs]
    grounds = common_grounds(census.grids, sources)
    assignment, remarks = _assign(job, pairs, census, grounds, progress)
    remarks = [f"Split: {job.split}, seed {job.seed}.", *remarks, _summary(census, assignment)]
    warnings = [*_without_room(job, assignment), *_doubts(census, sources, assignment, grounds, job.split == "blocks")]
    for text in remarks:
        progress.info(text)
    sets = [[pair for pair, to in zip(pairs, assignment, strict=True) if to == index] for index in range(LEFT_OUT)]
    statistics = None
    if job.statistics:
        progress.report(0.4, f"Measuring the bands of {len(sets[0])} training chips")
        statistics = measure_bands(sets[0], job.scaler or 1.0, progress.part(0.4, 0.95))
        remarks, warnings = [*remarks, *statistics.remarks], [*warnings, *statistics.warnings]
        for text in statistics.remarks:
            progress.info(text)
    for text in warnings:
        progress.warning(text)
    output = job.output_folder or job.data_folder
    with Staging(progress) as staging:
        _write_tables(job, census, assignment, sets, statistics, output, staging)
        written = {output / name: staging.file(output / name).read_bytes() for name in CSV_NAMES.values()}
        weights = class_weights(census.counts[assignment == 0].sum(axis=0))
        names = [pair.name for pair in pairs]
        page = write_report(names, census, assignment, weights, grounds, (remarks, warnings), statistics)
        staging.file(output / REPORT_NAME).write_text(page, encoding="utf-8")
        if statistics is None:
            staging.companion(output / STATISTICS_NAME)  # one of an earlier split would be wrong now
    with claimed([output], progress):
        if all(path.read_bytes() == content for path, content in written.items()):  # else another run was faster
            _mark_index(job, output, pairs, assignment, progress)
    progress.report(1.0)
    return PrepareResult(
        output_folder=output,
        train_csv=output / CSV_NAMES["train"],
        validation_csv=output / CSV_NAMES["validation"],
        test_csv=output / CSV_NAMES["test"],
        summary_csv=output / SUMMARY_NAME,
        statistics_csv=None if statistics is None else output / STATISTICS_NAME,
        report=output / REPORT_NAME,
        tile_index=output / INDEX_NAME if (output / INDEX_NAME).is_file() else None,
    )


def _write_tables(
    job: PrepareJob,
    census: Census,
    assignment: Assignment,
    sets: Sequence[Sequence[ChipPair]],
    statistics: BandStatistics | None,
    output: Path,
    staging: Staging,
) -> None:
    """Write the three lists of chips, the summary and the band statistics."""
    for name, members in zip(SPLIT_NAMES, sets, strict=True):
        write_pairs(staging.file(output / CSV_NAMES[name]), members, output)
    pixels = np.stack([census.counts[assignment == index].sum(axis=0) for index in range(LEFT_OUT)])
    write_summary(staging.file(output / SUMMARY_NAME), census.classes, pixels, class_weights(pixels[0]), job.scaler)
    if statistics is not None:
        write_statistics(staging.file(output / STATISTICS_NAME), statistics.normalization, statistics.bands)


def _assign(
    job: PrepareJob, pairs: Sequence[ChipPair], census: Census, grounds: Grounds, progress: Progress
) -> tuple[Assignment, list[str]]:
    """Put each chip into a set; the second result says what the user should know of it.

    Raises:
        ConfigError, DatasetError: if no chip is left, or a given split cannot be read.
    """
    percents = (job.train_percent, job.validation_percent, job.test_percent)
    if job.split == "given":
        assignment = _given(job.data_folder, pairs)
        return assignment, _left_out(pairs, assignment)
    remarks: list[str] = []
    if job.split == "blocks":
        assignment, remarks = _split_blocks(job, census, grounds, percents, progress)
    elif job.split == "random":
        assignment = split_random(len(pairs), percents, job.seed)
    else:
        assignment = split_stratified(census.counts, percents, job.seed)
    if not np.any(assignment != LEFT_OUT):
        raise ConfigError(
            f"TRAIN_PERCENT, VALIDATION_PERCENT and TEST_PERCENT take no chip out of {len(pairs)}; raise them."
        )
    return assignment, remarks


def _split_blocks(
    job: PrepareJob, census: Census, grounds: Grounds, percents: Sequence[float], progress: Progress
) -> tuple[Assignment, list[str]]:
    """Put spatial blocks into sets and leave out chips that come too near to another set."""
    blocks = np.zeros(len(census.grids), np.intp)
    shared = shared_grounds(census.grids, grounds)
    sizes = []
    for positions, extents in joined_grounds(census.grids, grounds, shared):
        pixel = _pixel(census, positions)
        size = job.block_size * pixel if job.block_size else automatic_block_size(extents)
        sizes.append(round(size / pixel))
        blocks[positions] = find_blocks(extents, size) + (int(blocks.max()) + 1 if len(sizes) > 1 else 0)
    boxes = [boxes_of([census.grids[position] for position in positions]) for positions in grounds]
    buffers = [job.buffer * _pixel(census, ground.positions) for ground in shared]

    def thinned(assignment: Assignment) -> Assignment:
        progress.check()
        kept = assignment.copy()
        for positions, extents in zip(grounds, boxes, strict=True):
            buffer = job.buffer * _pixel(census, positions)
            kept[positions] = without_neighbours(extents, kept[positions], buffer)
        return without_neighbours_across(shared, kept, buffers)

    whole, assignment = split_thinned(census.counts, blocks, percents, job.seed, thinned)
    gone = int((assignment != whole).sum())
    text = f"{int(blocks.max()) + 1} blocks of {', '.join(map(str, sorted(set(sizes))))} pixels"
    return assignment, [f"{text}; {gone} chips left out, since they come too near to chips of another set."]


def _without_room(job: PrepareJob, assignment: Assignment) -> list[str]:
    """Say that blocks leave no room for a set that is wanted."""
    percents = (job.train_percent, job.validation_percent, job.test_percent)
    lacking = [
        name
        for index, (name, percent) in enumerate(zip(SPLIT_NAMES, percents, strict=True))
        if percent > 0 and not (assignment == index).any()
    ]
    if job.split != "blocks" or not lacking:
        return []
    size = f"BLOCK_SIZE {job.block_size}" if job.block_size else "blocks of automatic size"
    return [
        f"With {size} and BUFFER {job.buffer} there is no room for: {', '.join(lacking)}. Take smaller blocks, a "
        "smaller buffer, or more images."
    ]


def _pixel(census: Census, positions: NDArray[np.intp]) -> float:
    """Give the size of a pixel on a ground, in its units."""
    transform = census.grids[positions[0]].transform
    return float(np.hypot(transform[1], transform[4]))


def _left_out(pairs: Sequence[ChipPair], assignment: Assignment) -> list[str]:
    """Say of which images chips are in no set, as a user leaves them or a new cut makes them."""
    gone: dict[str, int] = {}
    for pair, to in zip(pairs, assignment, strict=True):
        gone[source_of(pair.name)] = gone.get(source_of(pair.name), 0) + (to == LEFT_OUT)
    listed = first_few([f"{count} of {source}" for source, count in gone.items() if count])
    return [f"Chips without a set in {INDEX_NAME}, which are left out: {listed}."] if listed else []


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


def _summary(census: Census, assignment: Assignment) -> str:
    """Say how the split came out."""
    sizes = [int((assignment == index).sum()) for index in range(LEFT_OUT)]
    return (
        f"{sizes[0]} training, {sizes[1]} validation and {sizes[2]} test chips; class shares differ by "
        f"{100 * imbalance(census.counts, assignment):.2f} percentage points at most."
    )


def _doubts(
    census: Census, sources: Sequence[str], assignment: Assignment, grounds: Grounds, blocks: bool
) -> list[str]:
    """Say what may be wrong with a split: empty sets, missing classes, chips that share ground."""
    sizes = [int((assignment == index).sum()) for index in range(LEFT_OUT)]
    warnings = [f"The {name} set is empty." for name, size in zip(SPLIT_NAMES, sizes, strict=True) if not size]
    wanted = sum(size > 0 for size in sizes)
    for index, entry in enumerate(census.classes.entries):
        lacking = [
            name
            for number, name in enumerate(SPLIT_NAMES)
            if sizes[number] and not census.counts[assignment == number, index].any()
        ]
        if lacking:
            having = census.counts[:, index] > 0
            few = f", and {wanted} sets are to be filled" if having.sum() < wanted else ""
            out = int((having & (assignment == LEFT_OUT)).sum())
            gone = f", {out} of which are in no set" if out else ""
            advice = ", or take a smaller BUFFER or BLOCK_SIZE, or another SEED" if out and blocks else ""
            warnings.append(
                f"Class {entry.value} ({entry.name}) is missing in: {', '.join(lacking)}. It stands in "
                f"{having.sum()} chip(s){gone}{few}. Label more of it, or take smaller chips{advice}."
            )
    shapes = {(grid.width, grid.height) for grid in census.grids}
    if len(shapes) > 1:
        listed = ", ".join(f"{width} x {height}" for width, height in sorted(shapes))
        warnings.append(
            f"The chips have different sizes ({listed} pixels). Are some of them left over from an earlier run? "
            "Remove those, or cut into an empty folder."
        )
    names: dict[str, list[int]] = {}
    for entry in census.classes.entries:
        names.setdefault(entry.name.strip().casefold(), []).append(entry.value)
    for same in (values for values in names.values() if len(values) > 1):
        warnings.append(
            f"Classes {', '.join(map(str, same))} have the same name, and are learnt as different ones. If they are "
            "the same, give the class one id in all label layers, and cut the images again."
        )
    used = {source for source, to in zip(sources, assignment, strict=True) if to != LEFT_OUT}
    unused = first_few([source for source in dict.fromkeys(sources) if source not in used])
    if unused:
        warnings.append(f"No chip of {unused} is in a set.")
    leaking = sum(len(leaks(boxes_of([census.grids[i] for i in group]), assignment[group])) for group in grounds)
    if leaking:
        warnings.append(
            f"{leaking} chips share ground with a chip of another set, so that accuracies will look better than they "
            "are. Take SPLIT blocks, or cut the chips with a step that is not smaller than the chip."
        )
    across = len(leaks_across(shared_grounds(census.grids, grounds), assignment))
    if across:
        warnings.append(
            f"{across} chips share ground with a chip of another set in another coordinate system, such as that of the "
            "next UTM zone, so that accuracies will look better than they are. Take SPLIT blocks, or warp the images "
            "into one system."
        )
    return warnings


def _mark_index(
    job: PrepareJob, output: Path, pairs: Sequence[ChipPair], assignment: Assignment, progress: Progress
) -> None:
    """Fill in the sets in tiles.gpkg; where that fails, the dataset is still good."""
    own, index = job.data_folder / INDEX_NAME, output / INDEX_NAME
    in_place = own.resolve() == index.resolve()
    if not own.is_file() or (job.split == "given" and in_place):
        return
    names = [*SPLIT_NAMES, ""]
    splits = {pair.name: names[given] for pair, given in zip(pairs, assignment, strict=True)}
    try:
        if in_place:
            write_splits(index, splits)
            return
        part = index.with_name(f".{index.stem}.{os.getpid()}.part{index.suffix}")
        progress.staged(part)
        try:
            copy_index(own, part)
            write_splits(part, splits)
            for end in SQLITE_FILES:  # of the earlier copy: SQLite would write them into the new one
                index.with_name(index.name + end).unlink(missing_ok=True)
            part.replace(index)
        finally:
            remove_staged([part])
    except (RasterError, DatasetError, OSError) as error:
        progress.warning(f"The field split of {index} could not be filled in: {error}")
