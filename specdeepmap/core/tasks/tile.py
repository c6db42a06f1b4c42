# SPDX-License-Identifier: GPL-3.0-or-later
"""Cut a raster and its labels into chips: the Raster Splitter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from specdeepmap.core.data.census import source_of
from specdeepmap.core.data.chips import Chip, ChipWriter, chip_nodata, chips_of, difference_from, image_stem, read_chip
from specdeepmap.core.data.classes import UNLABELLED, ClassEntry, ClassTable
from specdeepmap.core.data.dataset import CSV_NAMES, INDEX_NAME
from specdeepmap.core.data.labels import LabelRaster, names_and_colors
from specdeepmap.core.data.parallel import THREADS, in_threads
from specdeepmap.core.data.raster import Raster, check_nodata, open_input, warn_of_alpha, warn_of_points
from specdeepmap.core.data.tileindex import TileRecord, write_index
from specdeepmap.core.data.tiling import Window, split_windows
from specdeepmap.core.data.vectors import burn_vectors
from specdeepmap.core.data.vectorsource import is_vector
from specdeepmap.core.errors import ConfigError, DatasetError, RasterError
from specdeepmap.core.jobs import TileJob, TileResult
from specdeepmap.core.progress import Progress
from specdeepmap.core.staging import SQLITE_FILES, Move, Staging

_KINDS = ("images", "labels")

_BYTES_AHEAD = 64_000_000
"""Pixels that may wait for being written."""

_COMPARED = 16
"""Chips of an earlier run that are compared with the image."""


def tile_raster(job: TileJob, progress: Progress) -> TileResult:
    """Cut a raster and its labels into chips with enough labelled pixels."""
    image = open_input("IMAGE", job.image, job.nodata)
    check_nodata(job.nodata, image)
    warn_of_points(image, progress)
    warn_of_alpha(image, progress)
    stem = image_stem(image)
    image.expect(job.tile_size_y)
    windows = _windows(job, image)
    index = job.output_folder / INDEX_NAME
    with Staging(progress) as staging:
        folder = staging.folder(job.output_folder)
        labels, known = _labels(job, image, folder, progress.part(0.0, 0.1))
        table = _class_table(job, labels, known, progress.part(0.1, 0.2))
        _check_neighbours(job, stem, image, table)
        nodata = chip_nodata(image, progress)
        writer = ChipWriter(image, nodata, table, folder, stem, job.compression)
        progress.report(0.2, f"Cutting {len(windows)} chips")
        records = _write_chips(job, image, labels, windows, writer, progress.part(0.2, 0.98))
        places = [job.output_folder, *(job.output_folder / kind for kind in _KINDS)]
        for place in places:
            staging.make(place)

        def moves() -> Iterator[Move]:
            _check_neighbours(job, stem, image, table)  # another run may have come first
            write_index(folder / INDEX_NAME, records, index if index.is_file() else None, stem)
            return _moves(folder, job.output_folder, stem)

        staging.exchange(places, moves)
    progress.report(1.0)
    skipped = len(windows) - len(records)
    progress.info(f"{len(records)} chips written, {skipped} left out for too few labelled pixels.")
    if any((job.output_folder / name).exists() for name in CSV_NAMES.values()):
        progress.warning(
            f"OUTPUT_FOLDER {job.output_folder} holds the tables of a dataset that was made of the chips before. Run "
            "the Dataset Maker again before you train."
        )
    return TileResult(output_folder=job.output_folder, tile_count=len(records), skipped_count=skipped, tile_index=index)


def _windows(job: TileJob, image: Raster) -> list[Window]:
    """Place the chips.

    Raises:
        ConfigError: if there is no place for one.
    """
    windows = split_windows(
        (image.grid.width, image.grid.height), (job.tile_size_x, job.tile_size_y), (job.step_x, job.step_y), job.edges
    )
    if not windows:
        raise ConfigError(
            f"TILE_SIZE_X, TILE_SIZE_Y {job.tile_size_x} x {job.tile_size_y} is larger than the image "
            f"({image.grid.width} x {image.grid.height}), and EDGES is drop: no chip is left. Take smaller "
            "chips, or EDGES pad."
        )
    return windows


def _labels(
    job: TileJob, image: Raster, folder: Path, progress: Progress
) -> tuple[LabelRaster, tuple[ClassEntry, ...]]:
    """Open the labels on the image's grid; vectors are burned first.

    Returns:
        The labels, and what is known of names and colours from elsewhere.
    """
    if not is_vector(job.labels):
        if job.class_field is not None:
            progress.info("CLASS_FIELD is left aside: LABELS is a raster.")
        return LabelRaster(job.labels, image.grid, progress, job.zero_as), job.classes
    burned = folder / "labels.tif"
    progress.report(0.0, "Burning the labels onto the image's grid")
    names = burn_vectors(job.labels, job.class_field, image.grid, burned, job.zero_as, progress)
    colors = {entry.name: entry.color for entry in job.classes}
    known = tuple(replace(entry, color=colors.get(entry.name, "")) for entry in names) or job.classes
    return LabelRaster(str(burned), image.grid, progress), known


def _class_table(job: TileJob, labels: LabelRaster, known: tuple[ClassEntry, ...], progress: Progress) -> ClassTable:
    """Find the classes that occur.

    Raises:
        DatasetError: if there is none.
    """
    values = labels.values(progress)
    if not values:
        raise DatasetError(
            f"LABELS {job.labels} holds no labelled pixel on the image's ground: every value there is 0 or "
            "no-data. For a mask of 0 and 1, set ZERO_AS to give 0 a class id."
        )
    if labels.zeros_may_be_a_class:
        progress.warning(
            f"LABELS {job.labels} has pixels of value 0 beside its no-data value. They count as unlabelled; if 0 is a "
            "class of its own, set ZERO_AS to an id that is free."
        )
    return labels.table(values, known)


def _write_chips(
    job: TileJob,
    image: Raster,
    labels: LabelRaster,
    windows: Sequence[Window],
    writer: ChipWriter,
    progress: Progress,
) -> list[TileRecord]:
    """Write the chips with enough labels and give their records; reading and writing overlap.

    Raises:
        ConfigError: if no chip has enough labels.
    """
    for kind in _KINDS:
        (writer.folder / kind).mkdir()
    best = 0.0
    records: list[TileRecord] = []

    def chips() -> Iterator[Chip]:
        nonlocal best
        for number, window in enumerate(windows):
            progress.check()
            progress.report(number / len(windows))
            chip = read_chip(image, labels, window)
            counts = chip.counts
            coverage = 100.0 * int(counts.sum()) / chip.labels.size
            best = max(best, coverage)
            if coverage >= job.min_label_coverage:
                dominant = int(counts.argmax()) if counts.any() else UNLABELLED
                place = (window.x, window.y, coverage, dominant, image.grid.cut(window))
                records.append(TileRecord(writer.name(window), writer.stem, *place))
                yield chip

    bytes_per_chip = 2 * image.dtype.itemsize * len(image.bands) * job.tile_size_x * job.tile_size_y
    ahead = min(max(_BYTES_AHEAD // bytes_per_chip, THREADS), 64)
    for _ in in_threads(writer.write, chips(), len(windows), progress, ahead):
        pass
    if not records:
        raise ConfigError(
            f"MIN_LABEL_COVERAGE is {job.min_label_coverage:g} %, and no chip reaches it; the best one has {best:.4g} "
            f"%. Set MIN_LABEL_COVERAGE to {_rounded_down(best)} or less, or take smaller chips."
        )
    return records


def _moves(folder: Path, output: Path, stem: str) -> Iterator[Move]:
    """Put the new chips and their index in the place of the earlier index and all earlier chips of the same image."""
    index = output / INDEX_NAME
    for kind in _KINDS:
        names = sorted(path.name for path in (folder / kind).iterdir())
        gone = {path.name for path in chips_of(output / kind, stem)}.difference(names)
        yield from (Move(output / kind / name) for name in sorted(gone))
        yield from (Move(output / kind / name, folder / kind / name) for name in names)
    beside = [index.with_name(index.name + end) for end in SQLITE_FILES]
    yield from (Move(path) for path in beside if path.exists())
    yield Move(index, folder / INDEX_NAME)


def _check_neighbours(job: TileJob, stem: str, image: Raster, table: ClassTable) -> None:
    """Refuse a folder whose chips of other images do not go together with the new ones."""
    images, labels = job.output_folder / "images", job.output_folder / "labels"
    own = set(chips_of(images, stem)) if images.is_dir() else set()
    _check_same_image(job, image, own)
    others = [path for path in sorted(images.glob("*.tif")) if path not in own]
    if not others:
        return
    chip = Raster.open(others[0])
    have = (chip.grid.width, chip.grid.height, len(chip.bands))
    want = (job.tile_size_x, job.tile_size_y, len(image.bands))
    if have != want:
        raise ConfigError(
            f"OUTPUT_FOLDER {job.output_folder} holds chips of another image with {have[0]} x {have[1]} "
            f"pixels and {have[2]} bands; the new ones would have {want[0]} x {want[1]} and {want[2]}. "
            "Choose an empty folder, or the same chip size and bands."
        )
    # Each image brings the names of its own classes only.
    for other in {source_of(path.stem): path for path in others}.values():
        label = labels / other.name
        names = names_and_colors(Raster.open(label).dataset)[0] if label.is_file() else {}
        for entry in table.entries:
            if names.get(entry.value, entry.name) != entry.name:
                raise ConfigError(
                    f"OUTPUT_FOLDER {job.output_folder} holds chips of another image in which class "
                    f"{entry.value} is '{names[entry.value]}'; here it is '{entry.name}'. Use the same class "
                    "table, or an empty folder."
                )


def _check_same_image(job: TileJob, image: Raster, own: Iterable[Path]) -> None:
    """Refuse to replace the chips of an image with the same file name: of another place, another date or layer."""
    chips = sorted(path for path in own if path.suffix.lower() == ".tif")
    for path in chips[:: -(-len(chips) // _COMPARED) or 1]:
        try:
            difference = difference_from(image, path)
        except RasterError:
            continue  # a damaged chip is no loss
        if difference:
            raise ConfigError(
                f"OUTPUT_FOLDER {job.output_folder} holds chips of another image of the name {source_of(path.stem)}, "
                f"{difference} (chip {path.name}); they would be replaced by those of IMAGE {job.image}. Rename one of "
                "the images, or choose another folder. If it is a new version of the same image, remove its old chips "
                "first."
            )


def _rounded_down(percent: float) -> str:
    """Give a percentage that is surely reached, short enough to type."""
    return f"{int(percent * 100) / 100:g}"
