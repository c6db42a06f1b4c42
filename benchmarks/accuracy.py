# SPDX-License-Identifier: GPL-3.0-or-later
"""Accuracy with default trainer settings on scenes with disjoint splits: ``make bench-accuracy DATA=folder``.

The folder holds ``image.tif``, ``labels_train.tif`` and ``labels_test.tif``, perhaps ``labels_val.tif``: label rasters
of the image's grid that share no pixel. Tile size and coverage per scene stand in ``SCENES`` and were fixed before any
training; the step is the tile size. Where there are no validation labels, all training chips are trained on, and the
last epoch counts. Test labels are in a dataset of their own, which the trainer never sees; its images are, at most,
at the edge of a training chip: a network sees at most the pixels of a chip.

Each figure is written down as soon as it is known; ``make bench-accuracy DATA=folder GO_ON=1`` goes on where an
interrupted measurement was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
from osgeo import gdal

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from pixels import CLASSIFIERS, Pixels, score  # noqa: E402
from table import OUT  # noqa: E402

from specdeepmap.core.data.dataset import CSV_NAMES, Dataset, find_pairs, read_pairs, write_pairs  # noqa: E402
from specdeepmap.core.data.tileindex import write_splits  # noqa: E402
from specdeepmap.core.jobs import EvaluateJob, PrepareJob, TileJob, TrainJob, TrainResult  # noqa: E402
from specdeepmap.core.progress import Progress  # noqa: E402
from specdeepmap.core.record import parse_number  # noqa: E402
from specdeepmap.core.staging import write_whole  # noqa: E402
from specdeepmap.core.tasks import perform  # noqa: E402

gdal.UseExceptions()

SEEDS = (42, 43, 44)
MEASURES = ("mean_iou", "overall_accuracy", "average_accuracy", "macro_f1", "kappa")
RANDOM_CHIPS = "network, random chips"
"""Not an accuracy: it shows by how much a split that is not disjoint flatters."""

METHODS = ("network", *CLASSIFIERS, RANDOM_CHIPS)


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


@dataclass(frozen=True)
class Figure:
    """What a method came to on a task with one seed.

    Attributes:
        task: scene and labels.
        method: network or classifier.
        seed: of everything that is drawn.
        settings: of the trainer, where they are not the defaults.
        values: of each measure; of a network also the best mean IoU on the validation chips, to choose settings by.
        seconds: that it took.
        commit: of the project, on which it was measured.
    """

    task: str
    method: str
    seed: int
    settings: dict[str, object]
    values: dict[str, float]
    seconds: float
    commit: str


class Book:
    """The figures of a scene, written down one by one, so that a measurement of hours can go on another day.

    Args:
        path: of the JSON file.
        settings: of the trainer, where they are not the defaults.
        going_on: keep the figures that stand there and were measured with these settings.
        wanted: methods to measure; others are passed by.
    """

    def __init__(self, path: Path, settings: Mapping[str, object], going_on: bool, wanted: Sequence[str]) -> None:
        self._path, self._settings, self._wanted = path, dict(settings), wanted
        known = json.loads(path.read_text(encoding="utf-8")) if going_on and path.is_file() else []
        self._figures = [figure for figure in (Figure(**entry) for entry in known) if figure.settings == self._settings]

    def measure(self, task: str, method: str, run: Callable[[int], dict[str, float]], seeds: Sequence[int]) -> None:
        """Run a method with each seed that is not known; it gives all measures. Print mean and spread."""
        if method not in self._wanted:
            return
        for seed in seeds:
            if not self._known(task, method, seed):
                started = time.monotonic()
                values = run(seed)
                seconds = time.monotonic() - started
                self._figures.append(Figure(task, method, seed, self._settings, values, seconds, commit()))
                self._write()
        self._show(task, method, [figure for seed in seeds for figure in self._known(task, method, seed)])

    def _known(self, task: str, method: str, seed: int) -> list[Figure]:
        return [figure for figure in self._figures if (figure.task, figure.method, figure.seed) == (task, method, seed)]

    def _write(self) -> None:
        self._path.parent.mkdir(exist_ok=True)
        text = json.dumps([asdict(figure) for figure in self._figures], indent=2) + "\n"
        write_whole(self._path, lambda part: part.write_text(text, encoding="utf-8"))

    @staticmethod
    def _show(task: str, method: str, figures: Sequence[Figure]) -> None:
        values = np.array([[figure.values[name] for name in MEASURES] for figure in figures])
        pairs = zip(values.mean(axis=0), values.std(axis=0), strict=True)
        cells = "".join(f"{f'{mean:.3f} ± {spread:.3f}':>16}" for mean, spread in pairs)
        seconds = np.mean([figure.seconds for figure in figures])
        sys.stdout.write(f"{task:<26}{method:<24}{cells}{seconds:>9.0f}\n")
        sys.stdout.flush()


def commit() -> str:
    """Give the project's commit; empty where it is no git clone."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    return found.stdout.strip()


def main() -> None:
    """Measure one scene."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the scene")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many of the seeds")
    parser.add_argument("--only", default="", help="only tasks whose name contains this")
    parser.add_argument("--method", choices=METHODS, action="append", help="only this method; may be given repeatedly")
    parser.add_argument("--go-on", action="store_true", help="keep the figures of an interrupted measurement")
    parser.add_argument("trainer", nargs="*", help="NAME=VALUE for the trainer, to compare with the defaults")
    options = parser.parse_intermixed_args()
    settings = {name.lower(): _value(value) for name, value in (text.split("=", 1) for text in options.trainer)}
    heads = "".join(f"{name:>16}" for name in ("mean IoU", "OA", "AA", "macro F1", "kappa"))
    sys.stdout.write(f"{'task':<26}{'method':<24}{heads}{'seconds':>9}\n")
    wanted = options.method or METHODS
    book = Book(OUT / f"accuracy-{options.data.name}.json", settings, options.go_on, wanted)
    with tempfile.TemporaryDirectory(prefix="specdeepmap-bench-") as name:
        for task, labels in tasks(options.data, Path(name)):
            if options.only in task:
                measure(book, task, options.data, labels, Path(name), SEEDS[: options.seeds], settings)


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
    book: Book,
    task: str,
    scene: Path,
    labels: Mapping[str, Path],
    folder: Path,
    seeds: tuple[int, ...],
    settings: Mapping[str, object],
) -> None:
    """Cut, train with each seed, test; the same with single pixels, and with chips that were drawn at random."""
    about = SCENES.get(scene.name, Scene(64, 1))
    place = folder / task.replace(" ", "_")
    for part, raster in labels.items():
        cut(scene / "image.tif", raster, part, place / ("test" if part == "test" else "training"), about)
    prepare(place)
    table = place / "test" / CSV_NAMES["test"]
    book.measure(task, "network", lambda seed: train_and_test(place / "training", table, seed, settings), seeds)
    dataset = Dataset.open(place / "training")
    if dataset.statistics is not None:
        pairs = (*dataset.chips["train"], *dataset.chips["validation"])
        train, test = (Pixels.of(found, dataset.classes, dataset.statistics) for found in (pairs, read_pairs(table)))
        count = len(dataset.classes)
        for name in CLASSIFIERS:
            book.measure(task, name, lambda seed, name=name: measures(score(name, train, test, count, seed)[0]), seeds)
    every = mix(scene, labels, place, about)
    table = every / CSV_NAMES["test"]
    book.measure(task, RANDOM_CHIPS, lambda seed: train_and_test(every, table, seed, settings), seeds[:1])


def measures(found: object) -> dict[str, float]:
    """Give the measures of scores, or of a result that has them."""
    return {name: float(getattr(found, name)) for name in MEASURES}


def train_and_test(dataset: Path, table: Path, seed: int, settings: Mapping[str, object]) -> dict[str, float]:
    """Train on a dataset folder with default settings; give what the tester finds on the chips of a table."""
    with tempfile.TemporaryDirectory(prefix="specdeepmap-bench-") as name:
        folders = {"model_folder": Path(name) / "models", "log_folder": Path(name) / "logs"}
        job = TrainJob(dataset_folder=dataset, seed=seed, **folders, **settings)  # type: ignore[arg-type]
        trained = cast(TrainResult, perform(job, Progress()))
        test = EvaluateJob(test_csv=table, checkpoint=trained.best_checkpoint, scores_csv=Path(name) / "scores.csv")
        chosen_by = {} if np.isnan(trained.best_val_iou) else {"validation_mean_iou": trained.best_val_iou}
        return measures(perform(test, Progress())) | chosen_by


def mix(scene: Path, labels: Mapping[str, Path], place: Path, about: Scene) -> Path:
    """Make a dataset of all labels whose chips are drawn at random, with sets as large as those of the disjoint split.

    Neighbours, and both halves of one field, come into different sets: what many papers report.
    """
    dataset, merged = place / "random", place / "labels_all.tif"
    parts = {part: gdal.Open(str(path)).ReadAsArray() for part, path in labels.items()}
    copy = gdal.GetDriverByName("GTiff").CreateCopy(str(merged), gdal.Open(str(labels["train"])))
    copy.GetRasterBand(1).WriteArray(np.maximum.reduce(list(parts.values())))
    copy = None
    cut(scene / "image.tif", merged, "all", dataset, about)
    pixels = {part: np.count_nonzero(values) for part, values in parts.items()}
    shares = {part: round(100 * count / sum(pixels.values()), 1) for part, count in pixels.items()}
    perform(
        PrepareJob(
            data_folder=dataset,
            split="random",
            train_percent=round(100 - shares.get("val", 0) - shares["test"], 1),
            validation_percent=shares.get("val", 0),
            test_percent=shares["test"],
        ),
        Progress(),
    )
    return dataset


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
