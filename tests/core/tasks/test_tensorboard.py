# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the TensorBoard Launcher."""

from __future__ import annotations

import json
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from specdeepmap.core.errors import ConfigError
from specdeepmap.core.jobs import TensorBoardJob, TensorBoardResult
from specdeepmap.core.run import Child
from specdeepmap.core.tasks.tensorboard import HOST, check_logs, free_port
from tests.helpers import Recorder

pytestmark = pytest.mark.torch


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.socket() as server:
        server.bind((HOST, 0))
        server.listen()
        yield int(server.getsockname()[1])


def test_free_port(taken: int) -> None:
    port = free_port(taken)
    assert taken < port < taken + 100
    with socket.socket() as server:
        server.bind((HOST, port))
    assert free_port(0) > 1023
    assert free_port(0) != 0


def test_no_free_port(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    monkeypatch.setattr("specdeepmap.core.tasks.tensorboard._TRIES", 1)
    with pytest.raises(ConfigError, match=rf"PORT {taken} .* 0 for any"):
        free_port(taken)


def test_free_port_at_the_end_of_the_range() -> None:
    assert free_port(65535) == 65535


def test_folders_without_logs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        check_logs(tmp_path / "none")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "hparams.yaml").touch()
    with pytest.raises(ConfigError, match="no TensorBoard logs"):
        check_logs(tmp_path)
    (tmp_path / "run" / "events.out.tfevents.1.x").touch()
    check_logs(tmp_path)


def logs(folder: Path, tag: str = "loss") -> Path:
    writer = SummaryWriter(str(folder))
    writer.add_scalar(tag, torch.tensor(0.5), 0)
    writer.close()
    return folder


Start = Callable[..., tuple[Child, TensorBoardResult]]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start servers whose notes lie in a folder of this test."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    children = []

    def launch(folder: Path, port: int = 0) -> tuple[Child, TensorBoardResult]:
        child = Child(TensorBoardJob(log_folder=folder, port=port), Path(sys.executable))
        children.append(child)
        result = child.result(Recorder(), until_exit=False)
        assert isinstance(result, TensorBoardResult)
        return child, result

    yield launch
    for child in children:
        child.stop()


def answer(result: TensorBoardResult, path: str = "") -> str:
    with urllib.request.urlopen(result.url + path, timeout=10) as page:  # noqa: S310
        assert page.status == 200
        return str(page.read().decode())


def test_serves_the_logs_on_this_computer_only_until_it_is_stopped(tmp_path: Path, start: Start, taken: int) -> None:
    child, result = start(logs(tmp_path / "Läufe 1"), taken)
    assert taken < result.port < taken + 100 and result.url == f"http://127.0.0.1:{result.port}/"
    assert "TensorBoard" in answer(result)
    assert json.loads(answer(result, "data/environment"))["data_location"] == str(tmp_path / "Läufe 1")
    if Path("/proc/net/tcp").exists():
        listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        addresses = {
            fields[1] for fields in listening if fields[1].endswith(f":{result.port:04X}") and fields[3] == "0A"
        }
        assert addresses == {f"0100007F:{result.port:04X}"}
    time.sleep(1)
    assert child.alive  # not only until its result is there
    child.stop()
    assert not child.alive
    with pytest.raises((urllib.error.URLError, OSError)):
        answer(result)
    assert {path.name for path in (tmp_path / "scratch").iterdir()} <= {".tensorboard-info"}


def test_second_launch_gives_the_running_server(tmp_path: Path, start: Start) -> None:
    folder = logs(tmp_path / "logs")
    _, first = start(folder)
    _, second = start(tmp_path / "." / "logs", first.port)
    assert second == first
    _, other = start(logs(tmp_path / "other"))
    assert other.port != first.port


def test_the_note_of_a_dead_server_does_not_lead_to_the_logs_of_others(tmp_path: Path, start: Start) -> None:
    first = logs(tmp_path / "first")
    child, result = start(first)
    notes = tmp_path / "scratch" / ".tensorboard-info"
    kept = {path: path.read_text() for path in notes.iterdir()}
    child.stop()
    for path, text in kept.items():  # as after a power cut
        path.write_text(text)
    _, other = start(logs(tmp_path / "other"), result.port)
    assert other.port == result.port
    _, again = start(first)
    assert again.port != other.port
    assert json.loads(answer(again, "data/environment"))["data_location"] == str(first)


def test_error_of_the_child(tmp_path: Path, start: Start) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no TensorBoard logs"):
        start(tmp_path / "empty")


def test_a_process_with_nothing_to_serve_ends(tmp_path: Path, start: Start) -> None:
    folder = logs(tmp_path / "logs")
    first, _ = start(folder)
    second, _ = start(folder)
    deadline = time.monotonic() + 3
    while second.alive:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert first.alive


def test_a_port_that_is_taken_at_the_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    from tensorboard import program

    from specdeepmap.core.tasks import tensorboard

    tried: list[int] = []

    def launch(self: program.TensorBoard) -> None:
        tried.append(self.flags.port)
        if len(tried) == 1:
            raise program.TensorBoardPortInUseError("somebody was faster")

    monkeypatch.setattr(program.TensorBoard, "launch", launch)
    port = tensorboard._launch(str(tmp_path), taken)
    assert tried[0] > taken
    assert tried == [tried[0], port]
    assert port > tried[0]


def test_what_is_logged_later_is_shown(tmp_path: Path, start: Start) -> None:
    with SummaryWriter(str(tmp_path / "logs")) as writer:
        writer.add_scalar("loss", 0.5, 0)
        writer.flush()
        _, result = start(tmp_path / "logs")
        writer.add_scalar("loss", 0.25, 1)
        writer.flush()
        deadline = time.monotonic() + 20
        while len(points := json.loads(answer(result, "data/plugin/scalars/scalars?run=.&tag=loss"))) < 2:
            assert time.monotonic() < deadline, points
            time.sleep(0.3)
    assert [(step, value) for _, step, value in points] == [(0, 0.5), (1, 0.25)]


def test_the_page_has_its_curves_when_its_address_is_told(tmp_path: Path, start: Start) -> None:
    """The browser opens it then, and a page that finds nothing stays empty."""
    for run in range(5):
        logs(tmp_path / "logs" / f"run {run}")
    _, result = start(tmp_path / "logs")
    assert json.loads(answer(result, "data/plugin/scalars/tags"))


@pytest.mark.parametrize(("answers", "ends"), [({}, True), (None, False)])
def test_a_training_without_curves_so_far_is_shown_but_not_a_server_that_is_silent(
    monkeypatch: pytest.MonkeyPatch, answers: object, ends: bool
) -> None:
    from specdeepmap.core.tasks import tensorboard

    monkeypatch.setattr(tensorboard, "_CURVE_SECONDS", 0.2)
    monkeypatch.setattr(tensorboard, "_ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(tensorboard, "_read", lambda url: answers)
    began = time.monotonic()
    if ends:
        tensorboard._wait("http://here/", Recorder())
        assert time.monotonic() - began < 0.5
    else:
        with pytest.raises(ConfigError, match="does not answer at http://here/"):
            tensorboard._wait("http://here/", Recorder())
