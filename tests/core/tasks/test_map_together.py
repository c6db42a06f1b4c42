# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of several processes that make one map, on the processor: of one computer, and as a cluster starts them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specdeepmap.core.data.normalization import Normalization
from specdeepmap.core.environment import VARIABLE
from specdeepmap.core.errors import Canceled, ConfigError
from specdeepmap.core.jobs import PredictJob, PredictResult
from specdeepmap.core.run import run
from tests.helpers import Recorder, read_pixels, snapshot, write_raster
from tests.maps import invent, write_image, write_model

pytestmark = pytest.mark.torch

TOO_LONG = 90.0
ROOT = Path(__file__).resolve().parents[3]


class Watchdog(Recorder):
    """Cancel what hangs; and, where wanted, once the mapping has begun."""

    def __init__(self, cancel: bool = False) -> None:
        super().__init__()
        self._deadline, self._cancel = time.monotonic() + TOO_LONG, cancel

    def check(self) -> None:
        if time.monotonic() > self._deadline:
            pytest.fail("the processes wait for each other")
        if self._cancel and any(0.05 < share < 0.8 for share in self.shares):
            self.cancel()
        super().check()


@pytest.fixture(autouse=True)
def children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, sys.executable)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def job_of(folder: Path, size: int = 100, **settings: Any) -> PredictJob:
    values, _ = invent(size, size)
    values[:, :30, :] = -99  # rows of tiles without data
    wanted = {
        "image": str(write_image(folder / "image.tif", values)),
        "checkpoint": write_model(folder / "model.ckpt", "justo_unet_simple"),
        "output": folder / "map.tif",
        "tile_size": 24,
        "overlap": 20.0,
        "device": "cpu",
        **settings,
    }
    return PredictJob(**wanted)


def test_two_teams_at_once_do_not_share_files(tmp_path: Path) -> None:
    """Both write to one name; the files of their shares had the same names, too."""
    job = job_of(tmp_path, devices=2, confidence=tmp_path / "confidence.tif")
    alone = job_of(tmp_path, output=tmp_path / "alone.tif")
    run(alone, Watchdog())
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: run(job, Watchdog()), range(2)))
    assert np.array_equal(read_pixels(job.output), read_pixels(alone.output))
    assert not [path.name for path in tmp_path.iterdir() if ".part" in path.name]


@pytest.mark.parametrize("blend", [False, True])
def test_two_processes_make_the_map_of_one(tmp_path: Path, blend: bool) -> None:
    chances = tmp_path / "chances.tif"
    truth = write_raster(tmp_path / "truth.tif", np.where(invent(100, 100)[1] > 5, 9, 5).astype(np.uint8), nodata=0)
    settings = {"blend": blend, "min_area": 3, "ground_truth": str(truth), "probabilities": chances}
    settings["vector"] = tmp_path / "map.gpkg"
    alone = run(job_of(tmp_path, **settings), Watchdog())
    assert isinstance(alone, PredictResult)
    wanted = read_pixels(alone.output), read_pixels(chances)
    before = {path.name for path in tmp_path.iterdir()}
    progress = Watchdog()
    together = run(job_of(tmp_path, devices=2, **settings), progress)
    assert isinstance(together, PredictResult)
    assert np.array_equal(read_pixels(together.output), wanted[0])
    assert np.array_equal(read_pixels(chances), wanted[1], equal_nan=True)
    assert (together.mean_iou, together.overall_accuracy) == (alone.mean_iou, alone.overall_accuracy)
    assert {path.name for path in tmp_path.iterdir()} == before
    assert progress.shares == sorted(progress.shares) and progress.warnings == []


def test_torchrun(tmp_path: Path) -> None:
    """Each process is started with the variables of torchrun, as on nodes of a cluster."""
    whole = run(job_of(tmp_path), Watchdog())
    assert isinstance(whole, PredictResult)
    wanted = read_pixels(whole.output)
    whole.output.unlink()
    job = tmp_path / "job.json"
    job_of(tmp_path, output=tmp_path / "new" / "folder" / "map.tif").save(job)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(2):
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
        environ = {**os.environ, "PYTHONPATH": str(ROOT), **{name: str(value) for name, value in variables.items()}}
        command = [sys.executable, "-m", "specdeepmap.core", str(job)]
        started.append(
            subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    answers = [process.communicate(timeout=TOO_LONG) for process in started]
    assert [process.returncode for process in started] == [0, 0], answers
    assert json.loads(answers[0][0])["output"].endswith("map.tif") and not answers[1][0].strip()
    assert np.array_equal(read_pixels(tmp_path / "new" / "folder" / "map.tif"), wanted)
    assert {path.name for path in (tmp_path / "new" / "folder").iterdir()} <= {"map.tif", "map.tif.aux.xml"}


def test_more_processes_than_rows_of_tiles(tmp_path: Path) -> None:
    wanted = read_pixels(run(job_of(tmp_path, 15), Watchdog()).output)  # type: ignore[attr-defined]
    run(job_of(tmp_path, 15, devices=3), Watchdog())
    assert np.array_equal(read_pixels(tmp_path / "map.tif"), wanted)


def test_a_cancel_leaves_nothing(tmp_path: Path) -> None:
    job = job_of(tmp_path, 1500, devices=2, batch_size=1)
    before = snapshot(tmp_path)
    with pytest.raises(Canceled):
        run(job, Watchdog(cancel=True))
    assert snapshot(tmp_path) == before


def test_what_is_wrong_is_said_before_the_others_are_started(tmp_path: Path) -> None:
    job = job_of(tmp_path, devices=2)
    with pytest.raises(ConfigError, match="same file"):
        run(PredictJob.from_json({**job.to_json(), "confidence": str(job.output)}), Watchdog())
    assert not job.output.exists()


def test_what_the_others_could_not_map_is_told(tmp_path: Path) -> None:
    """The warning counts the pixels of all processes; the last rows of tiles are not those of the first."""
    values = invent(100, 100, missing=0.0)[0].astype(np.float32)
    values[0, 90, 50] = 3e38
    image = write_raster(tmp_path / "extreme.tif", values, names=("red", "green", "blue"))
    narrow = Normalization(scale=1.0, mean=(0.0,) * 3, std=(0.1,) * 3, bad=(False,) * 3)
    job = job_of(tmp_path, devices=2, precision="float32")
    model = write_model(tmp_path / "narrow.ckpt", "justo_unet_simple", normalization=narrow)
    progress = Watchdog()
    run(PredictJob.from_json({**job.to_json(), "image": str(image), "checkpoint": str(model)}), progress)
    lost = int((read_pixels(job.output) == 0).sum())
    assert lost > 0 and any(f"{lost} pixels got no class" in text for text in progress.warnings)
