# SPDX-License-Identifier: GPL-3.0-or-later
"""Cut a raster and its labels into chips: the Raster Splitter."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.classes import UNLABELLED, ClassTable
from specdeepmap.core.data.dataset import INDEX_NAME
from specdeepmap.core.data.labels import LabelRaster, names_and_colors
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.tileindex import TileRecord, write_index
from specdeepmap.core.data.tiling import Window, split_windows
from specdeepmap.core.data.writer import GeoTiff, write_class_chip
from specdeepmap.core.errors import ConfigError, DatasetError, RasterError
from specdeepmap.core.jobs import TileJob, TileResult
from specdeepmap.core.progress import Progress
from specdeepmap.core.staging import Staging

_CHIP_NAME = re.compile(r"(?P<stem>.*)_tile_\d+_\d+\.tif(\..+)?", re.DOTALL)

_COMPRESSION = {
    "none": (),
    "lzw": ("COMPRESS=LZW",),
    "deflate": ("COMPRESS=DEFLATE", "ZLEVEL=1"),
    "zstd": ("COMPRESS=ZSTD", "ZSTD_LEVEL=1"),
}


@dataclass(frozen=True)
class _Chip:
    """Pixels of one chip: image ``(bands, rows, columns)``, its validity, labels ``(rows, columns)``."""

    image: NDArray[np.generic]
    valid: NDArray[np.bool_]
    labels: NDArray[np.uint8]


def tile_raster(job: TileJob, progress: Progress) -> TileResult:
    """Cut a raster and its labels into chips with enough labelled pixels."""
    image = Raster.open(job.image, job.nodata)
    _check_nodata(job, image)
    stem = Path(image.dataset.GetFileList()[0] if image.dataset.GetFileList() else job.image).stem
    labels = LabelRaster(job.labels, image.grid, progress, job.zero_as)
    values = labels.values(progress.part(0.0, 0.1))
    if not values:
        raise DatasetError(
            f"LABELS {job.labels} holds no labelled pixel on the image's ground: every value there is 0 or "
            "no-data. For a mask of 0 and 1, set ZERO_AS to give 0 a class id."
        )
    table = labels.table(values, job.classes)
    _check_neighbours(job, stem, image, table)
    windows = split_windows(
        (image.grid.width, image.grid.height),
        (job.tile_size_x, job.tile_size_y),
        (job.step_x, job.step_y),
        job.edges,
    )
    if not windows:
        raise ConfigError(
            f"TILE_SIZE_X, TILE_SIZE_Y {job.tile_size_x} x {job.tile_size_y} is larger than the image "
            f"({image.grid.width} x {image.grid.height}), and EDGES is drop: no chip is left. Take smaller "
            "chips, or EDGES pad."
        )
    progress.report(0.1, f"Cutting {len(windows)} chips")
    with Staging(progress) as staging:
        folder = staging.folder(job.output_folder)
        records = _write_chips(job, image, labels, table, windows, stem, folder, progress.part(0.1, 0.98))
        index = job.output_folder / INDEX_NAME
        write_index(staging.file(index), records, index if index.is_file() else None, stem)
        _replace_chips(folder, job.output_folder, stem)
    progress.report(1.0)
    skipped = len(windows) - len(records)
    progress.info(f"{len(records)} chips written, {skipped} left out for too few labelled pixels.")
    return TileResult(output_folder=job.output_folder, tile_count=len(records), skipped_count=skipped, tile_index=index)


def _write_chips(
    job: TileJob,
    image: Raster,
    labels: LabelRaster,
    table: ClassTable,
    windows: Sequence[Window],
    stem: str,
    folder: Path,
    progress: Progress,
) -> list[TileRecord]:
    """Write the chips with enough labels into a folder and give their records.

    Raises:
        ConfigError: if no chip has enough labels.
    """
    for kind in ("images", "labels"):
        (folder / kind).mkdir(exist_ok=True)
    limit = job.min_label_coverage
    best = 0.0
    records = []
    for number, window in enumerate(windows):
        progress.check()
        chip = _read_chip(image, labels, window)
        counts = np.bincount(chip.labels.ravel(), minlength=256)
        counts[UNLABELLED] = 0
        coverage = 100.0 * int(counts.sum()) / chip.labels.size
        best = max(best, coverage)
        if coverage >= limit:
            name = f"{stem}_tile_{window.x}_{window.y}"
            _write_chip(job, image, table, window, chip, folder, name)
            dominant = int(counts.argmax()) if counts.any() else UNLABELLED
            grid = image.grid.cut(window)
            records.append(TileRecord(name, stem, window.x, window.y, coverage, dominant, grid))
        progress.report((number + 1) / len(windows))
    if not records:
        raise ConfigError(
            f"MIN_LABEL_COVERAGE is {limit:g} %, and no chip reaches it; the best one has {best:.4g} %. Set "
            f"MIN_LABEL_COVERAGE to {_rounded_down(best)} or less, or take smaller chips."
        )
    return records


def _read_chip(image: Raster, labels: LabelRaster, window: Window) -> _Chip:
    """Read one chip; where the image has no data in any usable band, the label becomes unlabelled."""
    values, valid = image.read_padded(window, mirror=image.nodata is None)
    chip_labels = labels.read_padded(window)
    chip_labels[~valid[image.good].any(axis=0)] = UNLABELLED
    return _Chip(values, valid, chip_labels)


def _write_chip(
    job: TileJob, image: Raster, table: ClassTable, window: Window, chip: _Chip, folder: Path, name: str
) -> None:
    grid = image.grid.cut(window)
    values, nodata = chip.image, image.nodata
    if nodata is not None:
        # One no-data value stands for every band's own, and for what the mask left out.
        values = np.where(chip.valid, values, np.asarray(nodata, values.dtype))
    options = _COMPRESSION[job.compression]
    predictor = ("PREDICTOR=3" if values.dtype.kind == "f" else "PREDICTOR=2") if options else ""
    whole = (f"BLOCKYSIZE={window.height}",)
    layout = ("INTERLEAVE=BAND", *whole, *options, *((predictor,) if predictor else ()))
    with GeoTiff(folder / "images" / f"{name}.tif", grid, len(values), values.dtype, nodata, layout) as tif:
        tif.describe(tuple(replace(band, nodata=nodata) for band in image.bands))
        if nodata is None and not chip.valid.all():
            tif.write_mask(chip.valid.any(axis=0))
        tif.write(values)
    write_class_chip(folder / "labels" / f"{name}.tif", chip.labels, grid, table, (*whole, *options))


def _replace_chips(folder: Path, output: Path, stem: str) -> None:
    """Put the new chips in the place of all earlier ones of the same image.

    Raises:
        RasterError: if a chip cannot be moved; the earlier ones are then where they were.
    """
    moved: list[tuple[Path, Path]] = []

    def move(path: Path, target: Path) -> None:
        path.replace(target)
        moved.append((path, target))

    try:
        for kind in ("images", "labels"):
            target, earlier = output / kind, folder / f"earlier_{kind}"
            target.mkdir(exist_ok=True)
            earlier.mkdir()
            for path in _chips_of(target, stem):
                move(path, earlier / path.name)
            for path in sorted((folder / kind).iterdir()):
                move(path, target / path.name)
    except OSError as error:
        for path, target in reversed(moved):
            target.replace(path)
        raise RasterError(
            f"The chips in {output} cannot be replaced ({error.strerror}). Is one of them open in another "
            "program? Close it there and run again."
        ) from error


def _chips_of(folder: Path, stem: str) -> list[Path]:
    """List the chips of an image, with their side files."""
    named = ((path, _CHIP_NAME.fullmatch(path.name)) for path in folder.iterdir())
    return [path for path, name in named if name is not None and name["stem"] == stem]


def _check_nodata(job: TileJob, image: Raster) -> None:
    """Refuse a no-data value that the image's number type cannot hold."""
    if job.nodata is None or image.dtype.kind == "f":
        return
    limits = np.iinfo(image.dtype)  # type: ignore[type-var]
    whole = math.isfinite(job.nodata) and job.nodata.is_integer()
    if not whole or not limits.min <= job.nodata <= limits.max:
        raise ConfigError(
            f"NODATA is {job.nodata:g}, which an image of {image.dtype} cannot hold ({limits.min} to "
            f"{limits.max}). Give the value that missing pixels really have."
        )


def _check_neighbours(job: TileJob, stem: str, image: Raster, table: ClassTable) -> None:
    """Refuse a folder whose chips of other images do not go together with the new ones."""
    images, labels = job.output_folder / "images", job.output_folder / "labels"
    own = set(_chips_of(images, stem)) if images.is_dir() else set()
    other = next((path for path in sorted(images.glob("*.tif")) if path not in own), None)
    if other is None:
        return
    chip = Raster.open(other)
    have = (chip.grid.width, chip.grid.height, len(chip.bands))
    want = (job.tile_size_x, job.tile_size_y, len(image.bands))
    if have != want:
        raise ConfigError(
            f"OUTPUT_FOLDER {job.output_folder} holds chips of another image with {have[0]} x {have[1]} "
            f"pixels and {have[2]} bands; the new ones would have {want[0]} x {want[1]} and {want[2]}. "
            "Choose an empty folder, or the same chip size and bands."
        )
    label = labels / other.name
    names = names_and_colors(Raster.open(label).dataset)[0] if label.is_file() else {}
    for entry in table.entries:
        if names.get(entry.value, entry.name) != entry.name:
            raise ConfigError(
                f"OUTPUT_FOLDER {job.output_folder} holds chips of another image in which class "
                f"{entry.value} is '{names[entry.value]}'; here it is '{entry.name}'. Use the same class "
                "table, or an empty folder."
            )


def _rounded_down(percent: float) -> str:
    """Give a percentage that is surely reached, short enough to type."""
    return f"{int(percent * 100) / 100:g}"
