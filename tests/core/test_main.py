# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of ``python -m specdeepmap.core job.json``, as a server or a cluster runs it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from specdeepmap.core import __main__ as entry
from specdeepmap.core import tasks
from specdeepmap.core.environment import child_environ
from specdeepmap.core.jobs import Job, TileJob, TrainJob
from specdeepmap.core.progress import Progress
from specdeepmap.core.run import OTHERS_ERROR
from tests.chips import dataset_of, stripes, train_job
from tests.helpers import write_raster

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals")


def command(job_file: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "specdeepmap.core", str(job_file), *more]


def start(
    job: Job | Path, folder: Path, *more: str, forbidden: tuple[str, ...] = ("qgis", "processing", "enmapbox", "PyQt5")
) -> subprocess.Popen[str]:
    """Start a job where some packages cannot be imported."""
    blocked = folder / "blocked"
    for name in forbidden:
        (blocked / name).mkdir(parents=True, exist_ok=True)
        (blocked / name / "__init__.py").write_text(f"raise RuntimeError('{name} was imported')\n")
    environ = child_environ()
    environ["PYTHONPATH"] = f"{blocked}{':' if sys.platform != 'win32' else ';'}{environ['PYTHONPATH']}"
    job_file = job
    if isinstance(job, Job):
        job_file = folder / "job of ü.json"
        job.save(job_file)
    return subprocess.Popen(
        command(Path(str(job_file)), *more),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
        text=True,
        encoding="utf-8",
        cwd=folder,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for the end: exit code, standard output, standard error. Standard input stays open until then."""
    try:
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, output, errors


def tile_job(folder: Path) -> TileJob:
    image, labels = stripes()
    return TileJob(
        image=str(write_raster(folder / "image.tif", image)),
        labels=str(write_raster(folder / "truth.tif", labels)),
        tile_size_x=32,
        tile_size_y=32,
        step_x=32,
        step_y=32,
        output_folder=folder / "dataset",
    )


@pytest.fixture(scope="module")
def striped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset_of(tmp_path_factory.mktemp("striped"), *stripes())


@pytest.mark.torch
def test_trains_without_qgis(striped: Path, tmp_path: Path) -> None:
    job = train_job(striped, tmp_path)
    code, output, errors = finish(start(job, tmp_path))
    assert code == 0, errors
    result = TrainJob.result.from_json(json.loads(output))  # nothing but the result
    assert result.to_json()["epochs_trained"] == 2
    assert Path(result.to_json()["best_checkpoint"]).is_file()
    assert "Epoch 2 of 2" in errors and "Traceback" not in errors
    assert {path.name for path in tmp_path.iterdir()} == {"blocked", "job of ü.json", "models", "logs"}


def test_data_jobs_need_no_torch(tmp_path: Path) -> None:
    job = tile_job(tmp_path)
    code, output, errors = finish(start(job, tmp_path, forbidden=("qgis", "torch", "lightning", "timm")))
    assert code == 0, errors
    assert json.loads(output)["tile_count"] == 4


WRONG = {
    "no file": (None, "cannot be read"),
    "no JSON": ("{", "is no JSON"),
    "no object": ("[]", "one JSON object"),
    "no verb": ("{}", "It can be: tile, prepare, train"),
    "a wrong verb": ('{"job": "trian"}', "Did you mean train"),
    "a wrong parameter": ('{"job": "train", "epoch": 5, "dataset_folder": "x"}', "Did you mean epochs"),
    "a missing parameter": ('{"job": "train"}', "DATASET_FOLDER is missing"),
    "a value out of bounds": ('{"job": "train", "dataset_folder": "x", "epochs": 0}', "EPOCHS is 0"),
    "an error of the job": ('{"job": "prepare", "data_folder": "nowhere"}', "nowhere"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_job_files(name: str, tmp_path: Path) -> None:
    text, message = WRONG[name]
    if text is not None:
        (tmp_path / "job.json").write_text(text, "utf-8")
    code, output, errors = finish(start(tmp_path / "job.json", tmp_path))
    assert code == 1 and not output
    assert errors.startswith("Error: ") and message in errors and "Traceback" not in errors


@pytest.mark.torch
def test_events_are_the_only_thing_on_standard_output(striped: Path, tmp_path: Path) -> None:
    process = start(train_job(striped, tmp_path), tmp_path, "--events")
    assert process.stdout is not None and process.stdin is not None
    with process:
        events = [json.loads(line) for line in process.stdout]
        process.stdin.close()
        assert process.wait(30) == 0
    kinds = {event["event"] for event in events}
    assert kinds == {"progress", "info", "warning", "result"}
    assert events[-1]["event"] == "result" and events[-1]["values"]["epochs_trained"] == 2
    shares = [event["share"] for event in events if event["event"] == "progress"]
    assert shares == sorted(shares) and shares[-1] == 1
    assert TrainJob.result.from_json(events[-1]["values"])


def test_errors_as_events(tmp_path: Path) -> None:
    job = tile_job(tmp_path)
    Path(job.image).unlink()
    process = start(job, tmp_path, "--events")
    assert process.stdout is not None and process.stderr is not None and process.stdin is not None
    with process:
        last = [json.loads(line) for line in process.stdout][-1]
        log = process.stderr.read()
    assert last["event"] == "error" and last["kind"] == "RasterError" and "image.tif" in last["text"]
    assert "Traceback" in log
    assert process.returncode == 1


@pytest.mark.parametrize("rank", ["0", "1"])
def test_an_error_of_another_process_is_left_for_the_parent(
    rank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tile_job(tmp_path)
    Path(job.image).unlink()
    monkeypatch.setenv("RANK", rank)
    process = start(job, tmp_path, "--events")
    assert process.stdout is not None
    output = process.stdout.read()
    finish(process)
    assert process.returncode == 1 and bool(output) == (rank == "0")
    word = tmp_path / OTHERS_ERROR
    assert word.exists() == (rank == "1")
    if word.exists():
        left = json.loads(word.read_text("utf-8"))
        assert left["kind"] == "RasterError" and "image.tif" in left["text"]


@pytest.mark.parametrize("more", [(), ("--events",)])
@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_processes_that_work_together_the_first_one_speaks(
    rank: str, more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", rank)
    process = start(tile_job(tmp_path), tmp_path, *more)
    assert process.stdout is not None and process.stderr is not None
    output, errors = process.stdout.read(), process.stderr.read()
    finish(process)
    assert process.returncode == 0, errors
    assert bool(output) == (rank == "0")
    assert more or bool(errors) == (rank == "0")


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("text", ["[../pair.cc:547] Connection closed by peer [127.0.1.1]:1", "another bug"])
def test_a_process_whose_peer_is_gone_ends_without_a_traceback(
    rank: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own errors are shown as they are."""

    def perform(*_: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(tasks, "perform", perform)
    monkeypatch.setattr(entry, "_stop_on_signals", lambda progress: None)
    monkeypatch.setenv("RANK", rank)
    path = tmp_path / "job.json"
    tile_job(tmp_path).save(path)
    if "peer" in text:
        assert entry._run_for_person(path) == 1
        assert "Another of the processes has ended" in capsys.readouterr().err
        monkeypatch.setattr(entry, "_stop_on_signals", Progress.cancel)
        assert entry._run_for_person(path) == entry.CANCELED, "a cluster tells all of them to stop"
        assert capsys.readouterr().err.endswith("Canceled.\n")
    else:
        with pytest.raises(RuntimeError, match=re.escape(text)):
            entry._run_for_person(path)


@posix
@pytest.mark.torch
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_a_training_and_keeps_its_checkpoints(
    striped: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = start(train_job(striped, tmp_path, epochs=100_000), tmp_path)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Epoch 2 "):
            break
    started = time.monotonic()
    process.send_signal(number)
    code, output, errors = finish(process)
    assert time.monotonic() - started < 5
    assert code == 130 and not output
    assert errors.endswith("Canceled.\n") and "Traceback" not in errors
    assert (tmp_path / "models" / "last.ckpt").is_file()


@posix
@pytest.mark.torch
def test_closed_standard_input_cancels(striped: Path, tmp_path: Path) -> None:
    process = start(train_job(striped, tmp_path, epochs=100_000), tmp_path, "--events")
    assert process.stdout is not None and process.stdin is not None
    events = []
    with process:
        for line in process.stdout:
            events.append(json.loads(line))
            if events[-1].get("text", "").startswith("Epoch 2 "):
                process.stdin.close()
        assert process.wait(10) == 130
    assert events[-1] == {"event": "canceled"}
