# SPDX-License-Identifier: GPL-3.0-or-later
"""The launcher inside QGIS: it returns at once, its server lives until the plugin or QGIS goes, and nothing stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from specdeepmap.core.environment import VARIABLE
from tests.desktop import ROOT, Chain, environ
from tests.processes import descendants, linux, running, wait_until

pytestmark = [pytest.mark.torch, linux]

GONE_SECONDS = 3


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as page:  # noqa: S310 - an address of our own
            return bool(page.status == 200)
    except OSError:  # URLError, or a connection that breaks off
        return False


@pytest.fixture
def launcher(qgis: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The launcher as in QGIS with its windows; its servers end with the test."""
    from specdeepmap.algorithms import tensorboard

    monkeypatch.setattr(tensorboard, "iface", object())
    yield tensorboard
    tensorboard.TensorBoardLauncher.stop_servers()


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A folder of logs that no other test uses."""
    return make_logs(tmp_path / "logs ä")


def make_logs(folder: Path) -> Path:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        writer.add_scalar("loss", 0.5, 0)
    return folder


def launch(folder: Path, feedback: Any = None, **values: Any) -> dict[str, Any]:
    import processing

    given = {"LOG_FOLDER": str(folder), "PORT": 0, "OPEN_BROWSER": False, **values}
    results: dict[str, Any] = processing.run("specdeepmap:tensorboard", given, feedback=feedback)
    return results


def children() -> set[int]:
    """All that descends from this process, zombies included."""
    return {process.number for process in descendants(os.getpid())}


def test_server_outlives_the_run_and_ends_with_the_plugin(chain: Chain, launcher: Any, qgis: Any) -> None:
    logs, before = Path(chain.trainer["results"]["LOG_FOLDER"]), children()
    began = time.monotonic()
    results = launch(logs)
    assert time.monotonic() - began < 20  # it does not wait for the server's end
    assert results["URL"] == f"http://127.0.0.1:{results['PORT']}/"
    assert answers(results["URL"])
    assert children() > before
    qgis.provider.unload()
    assert not answers(results["URL"])
    assert wait_until(lambda: children() <= before, GONE_SECONDS), descendants(os.getpid())


def test_a_second_launch_starts_no_process(launcher: Any, logs: Path) -> None:
    first, before, began = launch(logs), children(), time.monotonic()
    assert launch(logs.parent / "." / logs.name, PORT=first["PORT"]) == first
    assert time.monotonic() - began < 1
    assert children() == before


def test_the_server_of_somebody_else_is_shown_and_outlives_us(launcher: Any, logs: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"job": "tensorboard", "log_folder": str(logs), "port": 0}), encoding="utf-8")
    command = [sys.executable, "-u", "-m", "specdeepmap.core", str(job)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as other:
        try:
            assert other.stdout is not None
            theirs = json.loads(b"".join(other.stdout.readline() for _ in range(4)))
            before = children()
            assert launch(logs)["URL"] == theirs["url"]
            assert wait_until(lambda: children() == before, GONE_SECONDS), "a Python that waits for nothing"
            assert launcher.TensorBoardLauncher._servers == []
            assert answers(theirs["url"])
        finally:
            other.send_signal(signal.SIGINT)
            assert other.wait(GONE_SECONDS) == 0


def test_after_a_servers_death_no_zombie_stays_and_a_launch_starts_a_new_one(launcher: Any, logs: Path) -> None:
    before = children()
    first = launch(logs)
    (child,) = {process.number for process in descendants(os.getpid()) if process.parent == os.getpid()} - before
    os.kill(child, signal.SIGKILL)
    assert wait_until(lambda: child not in children(), GONE_SECONDS), "a zombie"
    assert not answers(first["URL"])
    second = launch(logs)
    assert answers(second["URL"])
    assert launch(logs) == second


def test_servers_of_several_folders_end_together(launcher: Any, logs: Path, tmp_path: Path, qgis: Any) -> None:
    before = children()
    addresses = {launch(folder)["URL"] for folder in (logs, make_logs(tmp_path / "second"))}
    assert len(addresses) == 2
    assert all(answers(address) for address in addresses)
    began = time.monotonic()
    qgis.provider.unload()
    assert wait_until(lambda: children() <= before, GONE_SECONDS)
    assert time.monotonic() - began < GONE_SECONDS
    assert launcher.TensorBoardLauncher._servers == []


def test_a_folder_without_logs(launcher: Any, tmp_path: Path) -> None:
    from qgis.core import QgsProcessingException

    before = children()
    with pytest.raises(QgsProcessingException, match="holds no TensorBoard logs"):
        launch(tmp_path)
    assert children() == before


@pytest.mark.parametrize("deaf", [False, True])
def test_cancel_before_the_server_answers(
    launcher: Any, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: bool
) -> None:
    from qgis.core import QgsProcessingException, QgsProcessingFeedback

    if deaf:  # a Python that has every module, never answers and never hears
        path = tmp_path / "python"
        path.write_text("#!/bin/sh\ncase \"$*\" in *specdeepmap.core*) exec sleep 1000;; *) echo '[]';; esac\n")
        path.chmod(0o755)
        monkeypatch.setenv(VARIABLE, str(path))
    before, feedback = children(), QgsProcessingFeedback()
    canceled: list[float] = []

    def cancel() -> None:
        wait_until(lambda: launcher.TensorBoardLauncher._servers, 30)
        time.sleep(0.3)
        canceled.append(time.monotonic())
        feedback.cancel()

    clock = threading.Thread(target=cancel)
    clock.start()
    with pytest.raises(QgsProcessingException, match=r"Canceled\."):
        launch(logs, feedback)
    took = time.monotonic() - canceled[0]
    clock.join()
    assert took < 2
    assert children() <= before
    assert launcher.TensorBoardLauncher._servers == []


@pytest.mark.parametrize("wanted", [True, False])
def test_browser_is_opened_only_when_wanted(
    chain: Chain, launcher: Any, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(launcher.QDesktopServices, "openUrl", lambda url: opened.append(url.toString()))
    results = launch(Path(chain.trainer["results"]["LOG_FOLDER"]), OPEN_BROWSER=wanted, DURATION=0.2)
    assert opened == ([results["URL"]] if wanted else [])
    assert not answers(results["URL"])  # its time is over


# However QGIS ends

QGIS_WITH_A_SERVER = """
import sys, time
from tests import desktop
application, plugin = desktop.start_qgis()
import processing
from specdeepmap.algorithms import tensorboard
tensorboard.iface = object()
given = {"LOG_FOLDER": sys.argv[1], "PORT": 0, "OPEN_BROWSER": False}
sys.stdout.write(processing.run("specdeepmap:tensorboard", given)["URL"] + "\\n")
sys.stdout.flush()
end = sys.stdin.readline().strip()
if end == "quit":
    application.exitQgis()
elif end == "reload":
    plugin.unload()
    sys.stdout.write("unloaded\\n")
    sys.stdout.flush()
    time.sleep(60)
"""


@pytest.mark.parametrize("end", ["kill", "quit", "reload", "terminate"])
def test_nothing_is_left_however_qgis_ends(logs: Path, tmp_path: Path, end: str) -> None:
    own = environ(tmp_path, PYTHONPATH=str(ROOT))
    command = [sys.executable, "-c", QGIS_WITH_A_SERVER, str(logs)]
    with subprocess.Popen(
        command, cwd=ROOT, env=own, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as desktop:
        try:
            assert desktop.stdin is not None and desktop.stdout is not None
            address = next(line.strip() for line in desktop.stdout if line.startswith("http"))
            assert answers(address)
            family = {process.number for process in descendants(desktop.pid)}
            assert family
            began = time.monotonic()
            if end in ("kill", "terminate"):
                desktop.send_signal(signal.SIGKILL if end == "kill" else signal.SIGTERM)
            else:
                desktop.stdin.write(end + "\n")
                desktop.stdin.flush()
            assert wait_until(lambda: not running(family), GONE_SECONDS), running(family)
            assert time.monotonic() - began < GONE_SECONDS
            assert not answers(address)
            if end == "reload":
                assert desktop.stdout.readline() == "unloaded\n"
                assert desktop.poll() is None
                assert descendants(desktop.pid) == [], "a zombie"
        finally:
            desktop.kill()
