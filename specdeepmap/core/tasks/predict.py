# SPDX-License-Identifier: GPL-3.0-or-later
"""Map a whole raster with a model: the Deep Learning Mapper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.classes import UNLABELLED
from specdeepmap.core.data.labels import LabelRaster
from specdeepmap.core.data.polygons import companions, driver_name, polygonize
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.scores import Scores, write_scores
from specdeepmap.core.data.tiling import TileWindow, Window, map_windows
from specdeepmap.core.data.writer import GeoTiff, overview_levels
from specdeepmap.core.errors import ConfigError
from specdeepmap.core.jobs import PredictJob, PredictResult
from specdeepmap.core.learn.loader import data_mask
from specdeepmap.core.learn.predictor import Predictor
from specdeepmap.core.progress import Progress
from specdeepmap.core.staging import Staging

_OPTIONS = ("TILED=YES", "COMPRESS=DEFLATE", "BIGTIFF=IF_SAFER")


@dataclass(frozen=True)
class _Tile:
    """A tile ready for the network: windows in image pixels, input, and where the image has data."""

    window: TileWindow
    image: NDArray[np.float32]
    has_data: NDArray[np.bool_]


class _Reference:
    """The ground truth under a map, and the scores so far.

    Args:
        labels: on the image's grid.
        predictor: knows the classes.
    """

    def __init__(self, labels: LabelRaster, predictor: Predictor) -> None:
        self._labels, self._classes = labels, predictor.card.classes
        self.scores = Scores.empty(len(self._classes))
        self.unknown: dict[int, int] = {}

    def add(self, window: Window, indices: NDArray[np.uint8], has_data: NDArray[np.bool_]) -> None:
        """Score the pixels of a window that have image data."""
        true = self._labels.read(window)
        true[~has_data] = UNLABELLED
        values, counts = np.unique(true, return_counts=True)
        for value in self._classes.unknown(values):
            self.unknown[value] = self.unknown.get(value, 0) + int(counts[values == value][0])
        self.scores = self.scores + Scores.of(self._classes.encode(true), indices, len(self._classes))


def predict_raster(job: PredictJob, progress: Progress) -> PredictResult:
    """Predict every pixel of a raster, tile by tile, and write the map."""
    if job.vector is not None:
        driver_name(job.vector)
    _check_files(job)
    image = Raster.open(job.image)
    predictor = Predictor(job.checkpoint, job.device)
    predictor.check_raster(image, "IMAGE", progress)
    area = _area(job, image)
    reference = None
    if job.ground_truth is not None:
        labels = LabelRaster(job.ground_truth, image.grid, progress, parameter="GROUND_TRUTH")
        reference = _Reference(labels, predictor)
    with Staging(progress) as staging:
        output = staging.file(job.output)
        confidence = staging.file(job.confidence) if job.confidence is not None else None
        share = 0.8 if job.vector is not None else 0.97
        _map(job, image, area, predictor, reference, (output, confidence), progress.part(0.0, share))
        if job.vector is not None:
            progress.report(share, "Making polygons")
            vector = staging.file(job.vector)
            for path in companions(job.vector):
                staging.file(path)
            polygonize(output, vector, predictor.card.classes, progress.part(share, 0.99))
        if reference is not None and job.scores_csv is not None:
            write_scores(staging.file(job.scores_csv), reference.scores, predictor.card.classes)
    progress.report(1.0)
    scores = None if reference is None else _tell(reference, progress)
    return PredictResult(
        output=job.output,
        confidence=job.confidence,
        vector=job.vector,
        scores_csv=job.scores_csv,
        mean_iou=None if scores is None else scores.mean_iou,
        overall_accuracy=None if scores is None else scores.overall_accuracy,
        classes=predictor.card.classes.entries,
    )


def _check_files(job: PredictJob) -> None:
    """Check that no output replaces an input or another output.

    Raises:
        ConfigError: if one would.
    """
    inputs = {"IMAGE": job.image, "GROUND_TRUTH": job.ground_truth, "CHECKPOINT": job.checkpoint}
    outputs = {"OUTPUT": job.output, "CONFIDENCE": job.confidence, "VECTOR": job.vector, "SCORES_CSV": job.scores_csv}
    known = {Path(path).resolve(): name for name, path in inputs.items() if path is not None}
    for name, path in outputs.items():
        if path is None:
            continue
        other = known.setdefault(path.resolve(), name)
        if other != name:
            raise ConfigError(f"{name} and {other} are the same file, {path}. Choose another name for {name}.")


def _area(job: PredictJob, image: Raster) -> Window:
    """Give the pixels to map.

    Raises:
        ConfigError: if the extent lies outside of the image.
    """
    whole = Window(0, 0, image.grid.width, image.grid.height)
    if job.extent is None:
        return whole
    if image.grid.transform[2] or image.grid.transform[4]:
        raise ConfigError("EXTENT cannot be used with IMAGE, whose grid is rotated. Warp it to a north-up grid first.")
    xmin, ymin, xmax, ymax = job.extent
    area = image.grid.window_of((xmin, ymin, xmax, ymax))
    if not area.width or not area.height:
        wanted, has = (", ".join(f"{number:.10g}" for number in box) for box in (job.extent, image.grid.extent))
        raise ConfigError(f"EXTENT {wanted} lies outside of IMAGE, which reaches over {has} (xmin, ymin, xmax, ymax).")
    return area


def _map(
    job: PredictJob,
    image: Raster,
    area: Window,
    predictor: Predictor,
    reference: _Reference | None,
    paths: tuple[Path, Path | None],
    progress: Progress,
) -> None:
    """Predict all tiles of an area and write class map and confidence."""
    card = predictor.card
    size = job.tile_size or max(card.chip_width, card.chip_height)
    windows = [
        TileWindow(tile.read.moved(area.x, area.y), tile.keep.moved(area.x, area.y))
        for tile in map_windows(area.width, area.height, size, round(size * job.overlap / 100))
    ]
    batch_size = job.batch_size or predictor.batch_size(size, size)
    image.expect(size)
    progress.report(0.0, f"Mapping {len(windows)} tiles of {size} x {size} pixels on {predictor.device.type}")
    grid = image.grid.cut(area)
    with ExitStack() as stack:
        tif = stack.enter_context(GeoTiff(paths[0], grid, 1, np.uint8, UNLABELLED, _OPTIONS))
        tif.classify(card.classes)
        certainty = None
        if paths[1] is not None:
            certainty = stack.enter_context(
                GeoTiff(paths[1], grid, 1, np.float32, float("nan"), (*_OPTIONS, "PREDICTOR=3"))
            )
        done = 0
        for batch in _batches(image, windows, batch_size, predictor):
            progress.check()
            probabilities = predictor.probabilities([tile.image for tile in batch])
            for tile, chances in zip(batch, probabilities, strict=True):
                keep = tile.window.keep
                core = keep.moved(-tile.window.read.x, -tile.window.read.y)
                part = np.s_[core.y : core.y_end, core.x : core.x_end]
                kept, has_data = chances[:, part[0], part[1]], tile.has_data[part]
                indices = kept.argmax(axis=0).astype(np.uint8)
                place = keep.moved(-area.x, -area.y)
                tif.write(np.where(has_data, card.classes.decode(indices), UNLABELLED)[None], place)
                if certainty is not None:
                    certainty.write(np.where(has_data, kept.max(axis=0), np.float32("nan"))[None], place)
                if reference is not None:
                    reference.add(keep, indices, has_data)
            done += len(batch)
            progress.report(done / len(windows))
        tif.close(overview_levels(grid))


def _batches(
    image: Raster, windows: Sequence[TileWindow], batch_size: int, predictor: Predictor
) -> Iterator[list[_Tile]]:
    """Read batches of tiles; the next one is read while the network works on the last."""

    def read(start: int) -> list[_Tile]:
        tiles = []
        for window in windows[start : start + batch_size]:
            values, valid = image.read_padded(window.read, mirror=True)
            normalization = predictor.card.normalization
            tiles.append(_Tile(window, normalization.apply(values, valid), data_mask(valid, normalization)))
        return tiles

    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(read, 0)
        for start in range(batch_size, len(windows), batch_size):
            batch = ahead.result()
            ahead = reader.submit(read, start)
            yield batch
        yield ahead.result()


def _tell(reference: _Reference, progress: Progress) -> Scores:
    for value, count in sorted(reference.unknown.items()):
        progress.warning(f"The model does not know class {value}; its {count} reference pixels are left out.")
    scores = reference.scores
    if not scores.matrix.any():
        progress.warning("GROUND_TRUTH has no labelled pixel of a known class on the map; there are no scores.")
    else:
        progress.info(f"Mean IoU {scores.mean_iou:.4f}, overall accuracy {scores.overall_accuracy:.4f}.")
    return scores
