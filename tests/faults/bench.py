# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench that jobs are put on to be broken: each with inputs, with results of an earlier run, and with a judge.

A case is a folder of its own with ``in``, which no job may change, and ``out``, which holds what an earlier run of the
same job wrote. A job that ends well leaves the same as a job that nothing happened to; one that does not leaves ``out``
as it was, to the byte, and says why in a sentence.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from specdeepmap.core.errors import SpecDeepMapError
from specdeepmap.core.jobs import EvaluateJob, Job, PredictJob, PrepareJob, Result, TensorBoardJob, TileJob
from specdeepmap.core.run import Child
from tests.chips import cut, train_job
from tests.faults.digest import digest
from tests.faults.warmth import FAULT, SOCKET
from tests.helpers import Array, Recorder, snapshot, write_raster

ALL = bool(os.environ.get("SPECDEEPMAP_ALL_FAULTS"))
"""Whether everything is tried that there is, or so much that one can wait for it."""

T = TypeVar("T")

FAULTLESS: Mapping[str, Any] = {}


def some(few: int, many: int) -> range:
    """Give the seeds of a fault: a few in everyday tests, many where all faults are wanted."""
    return range(many if ALL else few)


def sample(cases: Iterable[T], few: int) -> list[T]:
    """Give a few of many cases, evenly spread, or all where all faults are wanted."""
    cases = list(cases)
    return cases if ALL or len(cases) <= few else [cases[number * len(cases) // few] for number in range(few)]


def seeded(text: str) -> random.Random:
    """Give the chance of a case: the same in every run."""
    return random.Random(text)  # noqa: S311 - nothing here is secret


# The jobs ---------------------------------------------------------------------------------------------------------


def scene(width: int, height: int, seed: int) -> tuple[Array, Array]:
    """Make an image of three bands, brightest where its class is, and class values 2, 5 and 9, with a few gaps."""
    chance = np.random.default_rng(seed)
    index = np.kron(chance.integers(0, 3, (height // 8 + 1, width // 8 + 1)), np.ones((8, 8), int))[:height, :width]
    image = chance.integers(0, 70, (3, height, width)).astype(np.int16)
    np.put_along_axis(image, index[None], 50, axis=0)
    image[:, chance.random((height, width)) < 0.05] = -99
    return image, np.where((image == -99).all(0), 0, np.array((2, 5, 9))[index]).astype(np.uint8)


def write_scene(
    folder: Path, seed: int = 1, size: tuple[int, int] = (96, 96), name: str = "scene"
) -> tuple[Path, Path]:
    """Write image and labels."""
    image, labels = scene(*size, seed)
    raster = write_raster(folder / f"{name}.tif", image, nodata=-99, names=("red", "green", "blue"))
    return raster, write_raster(folder / "truth" / f"{name}.tif", labels, nodata=0)


def write_dataset(folder: Path) -> None:
    """Make a dataset of nine chips: five to train, two to validate, two to test."""
    scratch = folder / "scratch"
    image, labels = write_scene(scratch)
    cut(image, labels, folder / "dataset", train_percent=56.0, validation_percent=22.0, test_percent=22.0)
    shutil.rmtree(scratch)


def write_network(folder: Path, seed: int = 0) -> None:
    """Write a small network with random weights, that takes the scene."""
    import torch

    from tests.maps import write_model

    write_model(folder / "model.ckpt", "justo_unet_simple", chip=32)
    if seed:
        content = torch.load(folder / "model.ckpt", weights_only=True)
        chance = torch.Generator().manual_seed(seed)
        content["state_dict"] = {
            name: part + torch.randn(part.shape, generator=chance) * 0.1 if part.is_floating_point() else part
            for name, part in content["state_dict"].items()
        }
        torch.save(content, folder / "model.ckpt")


@dataclass(frozen=True)
class Bench:
    """A job that can be put on the bench.

    Attributes:
        verb: of the job.
        torch: whether it needs torch.
        write: fills a folder with inputs; the second argument is 1 for the earlier run and 2 for the one under test.
        job: makes the job, of a folder with ``in`` and ``out``, and the number of the run.
    """

    verb: str
    torch: bool
    write: Callable[[Path, int], None]
    job: Callable[[Path, int], Job]


def _write_tile(folder: Path, run: int) -> None:
    if run == 2:  # the same image with other labels: those of another image would be refused
        write_raster(folder / "truth" / "scene.tif", scene(96, 96, run)[1], nodata=0)
    if run == 1:  # with chips of another image, which must outlive all that happens
        write_scene(folder, run)
        image, labels = write_scene(folder / "neighbour", 7, (64, 64), "neighbour")
        cut(image, labels, folder.parent / "out")
        shutil.rmtree(folder / "neighbour")
        for path in (*(folder.parent / "out").glob("*.csv"), *(folder.parent / "out").glob("*.html")):
            path.unlink()


def _tile(folder: Path, run: int) -> Job:
    return TileJob(
        image=str(folder / "in" / "scene.tif"),
        labels=str(folder / "in" / "truth" / "scene.tif"),
        tile_size_x=32,
        tile_size_y=32,
        step_x=32 if run == 1 else 24,  # some chips have the same name, some go, some come
        step_y=32,
        min_label_coverage=0.0,
        output_folder=folder / "out",
    )


def _write_prepare(folder: Path, run: int) -> None:
    if run == 1:
        write_dataset(folder)
        for path in (*(folder / "dataset").glob("*.csv"), *(folder / "dataset").glob("*.html")):
            path.unlink()


def _prepare(folder: Path, run: int) -> Job:
    shares = {"train_percent": 45.0, "validation_percent": 33.0, "test_percent": 22.0}
    return PrepareJob(
        data_folder=folder / "in" / "dataset",
        seed=run,
        scaler=10.0 * run,
        split="random",
        output_folder=folder / "out",
        **shares,
    )


def _write_train(folder: Path, run: int) -> None:
    if run == 1:
        write_dataset(folder)


def _train(folder: Path, run: int) -> Job:
    return train_job(
        folder / "in" / "dataset",
        folder / "out",
        architecture="spectral",
        epochs=3,
        seed=run,
        batch_size=4,
        num_workers=0,
        save_top_k=2,
    )


def _write_evaluate(folder: Path, run: int) -> None:
    if run == 1:
        write_dataset(folder)
    write_network(folder, run)


def _evaluate(folder: Path, run: int) -> Job:
    place = folder / "out"
    return EvaluateJob(
        test_csv=folder / "in" / "dataset" / "train_files.csv",
        checkpoint=folder / "in" / "model.ckpt",
        device="cpu",
        scores_csv=place / "scores.csv",
        chip_scores_csv=place / "chips.csv",
        prediction_folder=place / "predictions",
    )


def _write_predict(folder: Path, run: int) -> None:
    write_scene(folder, run)
    write_network(folder, run)


def _predict(folder: Path, run: int) -> Job:
    place = folder / "out"
    return PredictJob(
        image=str(folder / "in" / "scene.tif"),
        ground_truth=str(folder / "in" / "truth" / "scene.tif"),
        checkpoint=folder / "in" / "model.ckpt",
        device="cpu",
        tile_size=32,
        min_area=3,
        output=place / "map.tif",
        confidence=place / "sure.tif",
        vector=place / "polygons.gpkg",
        error_map=place / "errors.tif",
        scores_csv=place / "scores.csv",
    )


def _write_logs(folder: Path, run: int) -> None:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    (folder / "logs").mkdir(parents=True, exist_ok=True)
    EventFileWriter(str(folder / "logs")).close()


def _tensorboard(folder: Path, run: int) -> Job:
    return TensorBoardJob(log_folder=folder / "in" / "logs", port=0, duration=1)


BENCHES = {
    bench.verb: bench
    for bench in (
        Bench("tile", False, _write_tile, _tile),
        Bench("prepare", False, _write_prepare, _prepare),
        Bench("train", True, _write_train, _train),
        Bench("evaluate", True, _write_evaluate, _evaluate),
        Bench("predict", True, _write_predict, _predict),
        Bench("tensorboard", True, _write_logs, _tensorboard),
    )
}

AT_ONCE = ("tile", "prepare", "evaluate", "predict")
"""Jobs whose results appear when all of them are whole. A training writes epoch by epoch."""

WRITING = (*AT_ONCE, "train")


# A case -----------------------------------------------------------------------------------------------------------


@dataclass
class Case:
    """A job on the bench, in a folder of its own.

    Attributes:
        bench: the job.
        folder: holds ``in`` and ``out``.
        python: stands for the interpreter.
        socket: of the warm process; None = a cold child.
        wanted: digest of ``out`` after a run that nothing happened to.
        calls: of functions that run took.
    """

    bench: Bench
    folder: Path
    python: Path
    socket: str | None
    wanted: dict[str, object] = field(default_factory=dict)
    calls: int = 0
    progress: Recorder = field(default_factory=Recorder)

    def __post_init__(self) -> None:
        self.seen()
        self._undisturbed = dict(self.wanted)

    @property
    def inputs(self) -> Path:
        return self.folder / "in"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def seen(self) -> None:
        """Take folders as they are for what must not change."""
        self.before = snapshot(self.inputs), snapshot(self.out)

    def job(self, **changes: Any) -> Job:
        """Make the job under test; values that are given replace its own."""
        job = self.bench.job(self.folder, 2)
        return type(job).from_json({**job.to_json(), **changes}) if changes else job

    def start(self, fault: Mapping[str, Any] = FAULTLESS, job: Job | None = None) -> Child:
        """Start the job in a child to which a fault happens."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OMP_NUM_THREADS", "1")
            patch.setenv(FAULT, json.dumps(fault))
            if self.socket is None:
                patch.delenv(SOCKET, raising=False)
            else:
                patch.setenv(SOCKET, self.socket)
            return Child(job or self.job(), self.python)

    def finish(self, child: Child) -> Result:
        """Wait for a child, as ``run`` does."""
        try:
            return child.result(self.progress, until_exit=True)
        finally:
            child.stop()

    def run(self, fault: Mapping[str, Any] = FAULTLESS, job: Job | None = None) -> Result:
        """Run the job to its end."""
        self.progress = Recorder()
        return self.finish(self.start(fault, job))

    def run_anew(self) -> None:
        """Run the job once more. A training keeps its hands off the checkpoints that the last one has left."""
        left = {name: mark for name, mark in digest(self.out).items() if is_checkpoint(name)}
        used = {Path(name).stem for name in left}
        self.run()
        self.wanted = left | {
            renamed(name, used) if is_checkpoint(name) and name not in self.before[1] else name: mark
            for name, mark in self._undisturbed.items()
        }

    def complaint(self, fault: Mapping[str, Any] = FAULTLESS, job: Job | None = None) -> str:
        """Run the job, which must not end well; gives the sentence that the user reads."""
        with pytest.raises(SpecDeepMapError) as caught:
            self.run(fault, job)
        assert_is_sentence(str(caught.value))
        return str(caught.value)

    def outcome(self, fault: Mapping[str, Any] = FAULTLESS, job: Job | None = None) -> str:
        """Run the job, which may end well, and then without a word, or not, and then with a sentence."""
        try:
            self.run(fault, job)
        except SpecDeepMapError as error:
            assert_is_sentence(str(error))
            return str(error)
        return ""

    # The judge

    def assert_untouched(self) -> None:
        """Check that inputs and earlier results are what they were, and that nothing else came."""
        self.assert_inputs_untouched()
        assert snapshot(self.out) == self.before[1]

    def assert_inputs_untouched(self) -> None:
        """Check that nothing has changed an input, nor come beside it."""
        assert snapshot(self.inputs) == self.before[0]

    def assert_whole(self) -> None:
        """Check that the results are those of a run that nothing happened to, and the inputs what they were."""
        self.assert_inputs_untouched()
        found, wanted = digest(self.out), dict(self.wanted)
        if any("could not be filled in" in text for text in self.progress.warnings):
            found.pop("tiles.gpkg", None)  # the user knows, and the dataset is good without
            wanted.pop("tiles.gpkg", None)
        assert found == wanted
        self.assert_tidy()

    def assert_tidy(self) -> None:
        """Check that no temporary file is left."""
        hidden = list(self.out.rglob(".*"))
        assert not hidden, hidden

    def assert_no_half_file(self) -> None:
        """Check that each file is one of the earlier run, to the byte, or a whole one of this run, and none is lost.

        So it is after a child was killed while it gave its results their names.
        """
        self.assert_inputs_untouched()
        self.assert_tidy()
        whole, found = digest(self.out), snapshot(self.out)
        changed = {name for name, mark in found.items() if self.before[1].get(name) != mark}
        assert not [name for name in changed & whole.keys() if whole[name] != self.wanted[name]]
        lost = self.before[1].keys() - found.keys()
        assert not [name for name in lost if name in self.wanted]

    def assert_next_run_works(self) -> None:
        """Check that the same job, run again without the fault, ends well."""
        self.run_anew()
        self.assert_whole()


def is_checkpoint(name: str) -> bool:
    """Tell whether a result is one of a training's best checkpoints, or the copy of its card."""
    return name.startswith("models/0")


def renamed(name: str, used: Container[str]) -> str:
    """Give the name that a checkpoint gets where earlier ones have used some."""
    path = Path(name)
    base = re.sub(r"-v\d+$", "", path.stem)
    stem = next(stem for stem in (base, *(f"{base}-v{number}" for number in range(1, 9))) if stem not in used)
    return path.with_name(stem + path.suffix).as_posix()


def assert_is_sentence(text: str) -> None:
    """Check that a message is for people: it says what happened, and no traceback."""
    assert "Something went wrong that should not" not in text, text + read_log(text)
    assert text and "Traceback" not in text, text
    assert "without a result" not in text, text + read_log(text)


def read_log(text: str) -> str:
    """Give what the child said in the log that a message names."""
    for word in text.split():
        path = Path(word)
        if path.name == "log.txt" and path.is_file():
            return "\n" + path.read_text("utf-8", "replace")[-3000:]
    return ""


class Bank:
    """Makes cases: the inputs and the earlier results of each job once, a copy of them for every case."""

    def __init__(self, folder: Path, python: Path, warm: Callable[[], str]) -> None:
        self._folder, self._python, self._warm = folder, python, warm
        self._known: dict[str, Case] = {}

    def case(self, verb: str, folder: Path, cold: bool = False) -> Case:
        """Put a job on the bench, in an empty folder or one that does not exist."""
        known = self._template(verb)
        shutil.copytree(known.folder / "start", folder, dirs_exist_ok=True)
        socket = None if cold else known.socket
        return Case(known.bench, folder, self._python, socket, known.wanted, known.calls)

    def _template(self, verb: str) -> Case:
        if verb not in self._known:
            bench = BENCHES[verb]
            folder = self._folder / verb
            start, done = folder / "start", folder / "done"
            socket = self._warm() if bench.torch else None
            for run in (1, 2):
                bench.write(start / "in", run)
                if run == 1 and verb in WRITING:
                    Case(bench, start, self._python, socket).run(job=bench.job(start, 1))
            (start / "out").mkdir(exist_ok=True)
            shutil.copytree(start, done)
            case = Case(bench, done, self._python, socket)
            case.run({"count_calls": str(folder / "calls")})
            calls = int((folder / "calls").read_text("utf-8"))
            self._known[verb] = Case(bench, folder, self._python, socket, digest(done / "out"), calls)
        return self._known[verb]


def quiet_temporary_folder(folder: Path) -> None:
    """Let this process, and so its children, keep temporary files in a folder."""
    folder.mkdir(exist_ok=True)
    tempfile.tempdir = str(folder)
