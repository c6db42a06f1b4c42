# SPDX-License-Identifier: GPL-3.0-or-later
"""Accuracy with default trainer settings on scenes with disjoint splits: ``make bench-accuracy DATA=folder``.

The folder holds ``image.tif``, ``labels_train.tif`` and ``labels_test.tif``, perhaps ``labels_val.tif``: label rasters
of the image's grid that share no pixel. Tile size and coverage per scene stand in ``SCENES`` and were fixed before any
training; the step is the tile size. Where there are no validation labels, all training chips are trained on, and the
last epoch counts. Test labels are in a dataset of their own, which the trainer never sees; its images are, at most,
at the edge of a training chip: a network sees at most the pixels of a chip.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from osgeo import gdal

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from specdeepmap.core.data.dataset import CSV_NAMES, find_pairs, write_pairs  # noqa: E402
from specdeepmap.core.data.tileindex import write_splits  # noqa: E402
from specdeepmap.core.jobs import EvaluateJob, PrepareJob, TileJob, TrainJob  # noqa: E402
from specdeepmap.core.progress import Progress  # noqa: E402
from specdeepmap.core.record import parse_number  # noqa: E402
from specdeepmap.core.tasks import perform  # noqa: E402

gdal.UseExceptions()

SEEDS = (42, 43, 44)
MEASURES = ("mean_iou", "overall_accuracy", "macro_f1", "kappa")


@dataclass(frozen=True)
class Scene:
    """How a scene is cut: tile size in pixels, coverage in percent; and other label sets or folds that it has."""

    tile: int
    coverage: float
    labels: tuple[str, ...] = ("labels",)
    folds: str = ""


SCENES = {
    "enmap_potsdam": Scene(32, 0.1, folds="folds.tif"),
    "hls_water": Scene(128, 1, labels=("labels", "worldcover")),
    "s2_flood_spain": Scene(64, 1),
    "landsat7_chiapas": Scene(32, 0.1),
    "ndvi_slovenia": Scene(32, 1),
}


def main() -> None:
    """Measure one scene."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the scene")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many of the seeds")
    parser.add_argument("--only", default="", help="only tasks whose name contains this")
    parser.add_argument("trainer", nargs="*", help="NAME=VALUE for the trainer, to compare with the defaults")
    options = parser.parse_intermixed_args()
    settings = {name.lower(): _value(value) for name, value in (text.split("=", 1) for text in options.trainer)}
    sys.stdout.write(f"{'task':<28}{'mean IoU':>16}{'OA':>16}{'macro F1':>16}{'kappa':>16}{'seconds':>9}\n")
    with tempfile.TemporaryDirectory(prefix="specdeepmap-bench-") as name:
        for task, labels in tasks(options.data, Path(name)):
            if options.only in task:
                measure(task, options.data, labels, Path(name), SEEDS[: options.seeds], settings)


def _value(text: str) -> object:
    if text in ("true", "false"):
        return text == "true"
    try:
        return parse_number("NAME", text, whole="." not in text and "e" not in text)
    except ValueError:
        return text


def tasks(scene: Path, folder: Path) -> Iterator[tuple[str, Mapping[str, Path]]]:
    """Give the tasks of a scene: a name, and a label raster for each of train, perhaps val, and test."""
    about = SCENES.get(scene.name, Scene(64, 1))
    for kind in about.labels:
        found = {part: scene / f"{kind}_{part}.tif" for part in ("train", "val", "test")}
        yield scene.name + ("" if kind == "labels" else f" {kind}"), {p: f for p, f in found.items() if f.is_file()}
    if about.folds:
        folds, labels = (gdal.Open(str(scene / name)).ReadAsArray() for name in (about.folds, "labels.tif"))
        for fold in range(1, int(folds.max()) + 1):
            parts = {"train": (folds != fold) & (folds != 0), "test": folds == fold}
            places = {part: folder / f"fold{fold}_{part}.tif" for part in parts}
            for part, mask in parts.items():
                copy = gdal.GetDriverByName("GTiff").CreateCopy(str(places[part]), gdal.Open(str(scene / "labels.tif")))
                copy.GetRasterBand(1).WriteArray(np.where(mask, labels, 0))
                copy = None
            yield f"{scene.name} fold {fold}", places


def measure(
    task: str,
    scene: Path,
    labels: Mapping[str, Path],
    folder: Path,
    seeds: tuple[int, ...],
    settings: Mapping[str, object],
) -> None:
    """Cut, train with each seed, test, and print mean and spread."""
    about = SCENES.get(scene.name, Scene(64, 1))
    place = folder / task.replace(" ", "_")
    for part, raster in labels.items():
        cut(scene / "image.tif", raster, part, place / ("test" if part == "test" else "training"), about)
    prepare(place)
    found, started = [], time.monotonic()
    for seed in seeds:
        models = place / f"models{seed}"
        job = TrainJob(
            dataset_folder=place / "training",
            seed=seed,
            model_folder=models,
            log_folder=place / f"logs{seed}",
            **settings,  # type: ignore[arg-type]
        )
        best = perform(job, Progress()).best_checkpoint  # type: ignore[attr-defined]
        test = EvaluateJob(
            test_csv=place / "test" / CSV_NAMES["test"], checkpoint=best, scores_csv=models / "scores.csv"
        )
        result = perform(test, Progress())
        found.append([getattr(result, name) for name in MEASURES])
    means, spreads = np.mean(found, axis=0), np.std(found, axis=0)
    cells = "".join(f"{f'{mean:.3f} ± {spread:.3f}':>16}" for mean, spread in zip(means, spreads, strict=True))
    sys.stdout.write(f"{task:<28}{cells}{(time.monotonic() - started) / len(seeds):>9.0f}\n")
    sys.stdout.flush()


def cut(image: Path, labels: Path, part: str, dataset: Path, about: Scene) -> None:
    """Cut chips that are labelled by one raster; they bear the name of the part."""
    dataset.mkdir(parents=True, exist_ok=True)
    link = dataset / f"{part}.vrt"
    gdal.Translate(str(link), str(image), format="VRT")
    tile = {f"{name}_{axis}": about.tile for name in ("tile_size", "step") for axis in "xy"}
    job = TileJob(image=str(link), labels=str(labels), min_label_coverage=about.coverage, output_folder=dataset, **tile)
    perform(job, Progress())


def prepare(place: Path) -> None:
    """Make the dataset of training and validation chips, and the table of the test chips."""
    training, test = place / "training", place / "test"
    splits = {pair.name: "train" if pair.name.startswith("train_") else "validation" for pair in find_pairs(training)}
    write_splits(training / "tiles.gpkg", splits)
    perform(PrepareJob(data_folder=training, split="given"), Progress())
    write_pairs(test / CSV_NAMES["test"], find_pairs(test), test)


if __name__ == "__main__":
    main()
