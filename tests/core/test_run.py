# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the child process: results, errors, cancel, and that nothing is left behind, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from specdeepmap.core.environment import VARIABLE
from specdeepmap.core.errors import Canceled, ChildError, EnvironmentMissingError, RasterError
from specdeepmap.core.jobs import PredictJob, TensorBoardJob, TileJob, TileResult
from specdeepmap.core.run import OTHERS_ERROR, Child, find_job_python, run, run_here
from tests.chips import dataset_of, stripes, train, train_job
from tests.helpers import Recorder, snapshot, write_raster

posix = pytest.mark.skipif(sys.platform == "win32", reason="shell scripts and signals")
linux = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give children this Python and a temporary folder by which their processes are known."""
    monkeypatch.setenv(VARIABLE, sys.executable)
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(scope="module")
def striped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset_of(tmp_path_factory.mktemp("striped"), *stripes(bands=2))


@pytest.fixture(scope="module")
def model(striped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(striped, tmp_path_factory.mktemp("model"), epochs=1).best_checkpoint


def processes(folder: Path) -> list[int]:
    """Give the processes with a path in this folder on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.fsencode(folder) in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:  # it has just ended
            continue
    return [number for number in found if number != os.getpid()]


def wait_for(condition: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class Trigger(Recorder):
    """Do something once, when a report of progress or a message fulfils a condition."""

    def __init__(self, condition: Callable[[float, str], bool], action: Callable[[Trigger], object]) -> None:
        super().__init__()
        self.condition, self.action, self.pulled_at = condition, action, 0.0

    def info(self, text: str) -> None:
        super().info(text)
        self._look(text)

    def _show(self, share: float, text: str) -> None:
        super()._show(share, text)
        self._look(text)

    def _look(self, text: str) -> None:
        if not self.pulled_at and self.condition(self._share, text):
            self.pulled_at = time.monotonic()
            self.action(self)


def after_epoch_2(_: float, text: str) -> bool:
    return text.startswith("Epoch 2 ")


def in_the_middle(share: float, _: str) -> bool:
    return 0.05 < share < 0.9


def tile_job(folder: Path) -> TileJob:
    image, labels = stripes()
    return TileJob(
        image=str(write_raster(folder / "Bild ä.tif", image)),
        labels=str(write_raster(folder / "truth.tif", labels)),
        tile_size_x=32,
        tile_size_y=32,
        step_x=32,
        step_y=32,
        output_folder=folder / "chips of ü",
    )


def test_a_job_gives_its_result(tmp_path: Path, scratch: Path) -> None:
    progress = Recorder()
    result = run(tile_job(tmp_path), progress)
    assert isinstance(result, TileResult) and result.tile_count == 4
    assert result.output_folder == tmp_path / "chips of ü" and len(list(result.output_folder.glob("images/*.tif"))) == 4
    assert progress.shares == sorted(progress.shares) and progress.shares[-1] == 1 and progress.infos
    assert not list(scratch.iterdir())


def test_an_error_arrives_as_it_was(tmp_path: Path, scratch: Path) -> None:
    job = tile_job(tmp_path)
    Path(job.image).write_text("no raster")
    with pytest.raises(RasterError) as here:
        run_here(job, Recorder())
    with pytest.raises(RasterError) as there:
        run(job, Recorder())
    assert type(there.value) is type(here.value)
    assert str(there.value).split(":")[0] == str(here.value).split(":")[0]
    assert "Bild ä.tif" in str(there.value) and "Traceback" not in str(there.value)
    assert not any(scratch.iterdir()), "a log that no message names is litter"


@pytest.mark.parametrize(("name", "value"), [("PYTHONHOME", "/nowhere"), ("PYTHONPATH", "/nowhere")])
def test_what_qgis_sets_for_its_own_python_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert isinstance(run(tile_job(tmp_path), Recorder()), TileResult)


def test_no_interpreter(tmp_path: Path, striped: Path, monkeypatch: pytest.MonkeyPatch, scratch: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "no python"))
    with pytest.raises(EnvironmentMissingError) as caught:
        run(train_job(striped, tmp_path), Recorder())
    for part in (
        "cannot be used",
        str(tmp_path / "no python"),
        "(cannot be used: No such file or directory)",
        f"named in the environment variable {VARIABLE}",
    ):
        assert part in str(caught.value)
    with pytest.raises(EnvironmentMissingError):
        find_job_python(TensorBoardJob(log_folder=tmp_path), Recorder())
    assert isinstance(run(tile_job(tmp_path), Recorder()), TileResult)  # in place
    assert not list(scratch.iterdir())


# Interpreters of our own ------------------------------------------------------------------------------------------


def script(folder: Path, text: str) -> Path:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    path.chmod(0o755)
    return path


def outcome(folder: Path, text: str, progress: Recorder | None = None) -> None:
    child = Child(TensorBoardJob(log_folder=folder), script(folder, text))
    try:
        child.result(progress or Recorder(), until_exit=True)
    finally:
        child.stop()
    assert not child.alive


@posix
def test_environment_of_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    progress = Recorder()
    with pytest.raises(ChildError, match="without a result"):
        outcome(tmp_path, 'printf \'{"event":"info","text":"%s|%s|%s"}\\n\' "$PYTHONHOME" "$PYTHONPATH" "$*"', progress)
    home, path, arguments = progress.infos[0].split("|")
    assert (home, path) == ("", str(REPOSITORY))
    assert arguments.startswith("-X utf8 -u -m specdeepmap.core /") and arguments.endswith("job.json --events")


@posix
def test_what_libraries_print_is_not_taken_for_events(tmp_path: Path) -> None:
    progress = Recorder()
    with pytest.raises(ChildError, match=r"exit code 3.*log\.txt"):
        outcome(tmp_path, 'echo hello; echo "{"; echo 5; echo \'{"event":"info","text":"a"}\'; exit 3', progress)
    assert progress.infos == ["a"]


@posix
def test_errors_that_nobody_thought_of_name_the_log(tmp_path: Path, scratch: Path) -> None:
    with pytest.raises(ChildError, match=r"ZeroDivisionError.*log\.txt"):
        outcome(tmp_path, 'echo why >&2; echo \'{"event":"error","kind":"","text":"ZeroDivisionError: x"}\'; exit 1')
    (log,) = scratch.glob("*/log.txt")
    assert log.read_text("utf-8") == "why\n"


@posix
@pytest.mark.parametrize(
    "end", ["kill -KILL $$", """echo '{"event":"error","kind":"","text":"peer is gone"}'; exit 1"""]
)
@pytest.mark.parametrize(
    "word", ['{"kind":"RasterError","text":"row 7 is damaged"}', '{"kind":"Other","text":"x"}', "{"]
)
def test_what_another_of_the_processes_says_is_the_reason(tmp_path: Path, scratch: Path, end: str, word: str) -> None:
    """It is gone before the first one, which only sees that, or is killed, and nobody listens to it."""
    left = f'printf %s \'{word}\' >"$(dirname "$6")/{OTHERS_ERROR}"'
    kind, text = (RasterError, "row 7 is damaged") if "Raster" in word else (ChildError, r"log\.txt")
    with pytest.raises(kind, match=text):
        outcome(tmp_path, f"{left}; {end}")
    assert any(scratch.iterdir()) == (kind is ChildError)


@posix
@pytest.mark.parametrize(("number", "hint"), [("KILL", True), ("BUS", True), ("SEGV", False)])
def test_ended_by_a_signal(tmp_path: Path, number: str, hint: bool) -> None:
    with pytest.raises(ChildError, match=f"SIG{number}") as caught:
        outcome(tmp_path, f"kill -{number} $$")
    assert ("smaller batch size" in str(caught.value)) == hint


@posix
def test_a_deaf_child_is_ended_and_its_outputs_removed(tmp_path: Path, scratch: Path) -> None:
    part = tmp_path / ".map.part.tif"
    part.write_text("half")
    event = f'{{"event":"staged","path":"{part}"}}'
    busy = '{"event":"info","text":"busy"}'
    progress = Trigger(lambda _, text: text == "busy", lambda own: (time.sleep(0.3), own.cancel()))
    started = time.monotonic()
    with pytest.raises(Canceled):
        # The name of the output comes when nobody listens any more.
        outcome(tmp_path, f"trap '' TERM; echo '{busy}'; echo '{event}'; while :; do sleep 0.1; done", progress)
    assert time.monotonic() - started < 4
    assert not part.exists()
    assert not list(scratch.iterdir())


@posix
def test_stopping_twice_does_no_harm(tmp_path: Path) -> None:
    child = Child(TensorBoardJob(log_folder=tmp_path), script(tmp_path, "read line"))
    assert child.alive
    child.stop()
    child.stop()
    assert not child.alive


# Trainings and maps -----------------------------------------------------------------------------------------------


@pytest.fixture
def no_process_left(scratch: Path) -> Iterator[None]:
    yield
    if Path("/proc/self/cmdline").exists():
        assert wait_for(lambda: not processes(scratch), 1), processes(scratch)


@linux
@pytest.mark.torch
@pytest.mark.usefixtures("no_process_left")
@pytest.mark.parametrize("workers", [0, 2])
def test_cancel_of_a_training(striped: Path, tmp_path: Path, scratch: Path, workers: int) -> None:
    progress = Trigger(after_epoch_2, Trigger.cancel)
    with pytest.raises(Canceled):
        run(train_job(striped, tmp_path, epochs=100_000, num_workers=workers), progress)
    assert time.monotonic() - progress.pulled_at < 2
    models = tmp_path / "models"
    assert (models / "last.ckpt").is_file() and len(list(models.glob("0*-val_iou_nan.ckpt"))) == 1
    assert not list(models.glob(".*"))
    assert not list(scratch.iterdir())


def big_image(folder: Path) -> Path:
    return write_raster(folder / "big.tif", np.ones((2, 1800, 1800), np.int16), options=("ALPHA=NO", "COMPRESS=LZW"))


def map_job(image: Path, model: Path, folder: Path) -> PredictJob:
    return PredictJob(
        image=str(image),
        checkpoint=model,
        device="cpu",
        tile_size=32,
        batch_size=1,
        output=folder / "out" / "map.tif",
        confidence=folder / "out" / "sure.tif",
    )


@linux
@pytest.mark.torch
@pytest.mark.usefixtures("no_process_left")
def test_cancel_of_a_map(model: Path, tmp_path: Path, scratch: Path) -> None:
    job = map_job(big_image(tmp_path), model, tmp_path)
    progress = Trigger(in_the_middle, Trigger.cancel)
    with pytest.raises(Canceled):
        run(job, progress)
    assert time.monotonic() - progress.pulled_at < 2
    assert not (tmp_path / "out").exists() or not snapshot(tmp_path / "out")
    assert not list(scratch.iterdir())


def kill(scratch: Path) -> Callable[[Trigger], None]:
    def action(_: Trigger) -> None:
        for number in processes(scratch):
            os.kill(number, signal.SIGKILL)

    return action


@linux
@pytest.mark.torch
@pytest.mark.usefixtures("no_process_left")
def test_child_that_the_system_ends(model: Path, tmp_path: Path, scratch: Path) -> None:
    job = map_job(big_image(tmp_path), model, tmp_path)
    with pytest.raises(ChildError, match=r"SIGKILL.*smaller batch size"):
        run(job, Trigger(in_the_middle, kill(scratch)))
    assert not snapshot(tmp_path / "out")


@linux
@pytest.mark.torch
@pytest.mark.usefixtures("no_process_left")
@pytest.mark.parametrize("workers", [0, 2])
def test_parent_that_is_killed_takes_its_child_along(
    striped: Path, tmp_path: Path, scratch: Path, workers: int
) -> None:
    job_file = tmp_path / "training.json"
    train_job(striped, tmp_path, epochs=100_000, num_workers=workers).save(job_file)
    program = (
        "import json, sys, tempfile; from pathlib import Path\n"
        "tempfile.tempdir = sys.argv[2]\n"
        "from specdeepmap.core.jobs import job_from_json; from specdeepmap.core.progress import Progress\n"
        "from specdeepmap.core.run import run\n"
        "run(job_from_json(json.loads(Path(sys.argv[1]).read_text('utf-8'))), Progress())\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(job_file), str(scratch)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    try:
        assert wait_for((tmp_path / "models" / "last.ckpt").is_file, 60)
        assert len(processes(scratch)) >= 2
    finally:
        parent.kill()
        parent.wait()
    assert wait_for(lambda: not processes(scratch), 10), processes(scratch)
