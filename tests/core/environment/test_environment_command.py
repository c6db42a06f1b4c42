# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the command that sets the environment up, run as users and the dialog run it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import specdeepmap.core.environment as package
from specdeepmap.core.environment.__main__ import main
from specdeepmap.core.environment.search import profile_environment

FOLDER = Path(package.__file__).parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command by its path, from a folder where our package is not found."""
    command = [sys.executable, str(FOLDER), *arguments]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=100, check=False)


def test_runs_by_its_path_and_says_that_nothing_is_set_up(profile: Path) -> None:
    done = run("report", "--fact", "QGIS=3.40")
    assert done.returncode == 0
    assert "QGIS: 3.40" in done.stdout and "Own environment: not set up" in done.stdout
    done = run("remove")
    assert (done.returncode, done.stdout) == (0, f"{profile / 'environment'} is not there.\n")


def test_an_error_is_a_sentence_and_an_exit_code(tmp_path: Path) -> None:
    done = run("use", str(tmp_path / "none"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"Error: {tmp_path / 'none'} cannot be used")
    assert "Traceback" not in done.stderr
    assert run("use").stderr == "Error: Name a Python, or give --own.\n"
    assert run("use", "--own").returncode == 0


def test_a_choice_that_a_variable_goes_before_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no effect" not in run("use", "--own").stdout
    monkeypatch.setenv("SPECDEEPMAP_PYTHON", "/nowhere/python")
    said = run("use", "--own").stdout
    assert "no effect yet" in said and "SPECDEEPMAP_PYTHON is set (/nowhere/python)" in said


def test_events_for_the_dialog(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specdeepmap.core.environment.__main__._cancel_with_parent", lambda progress: None)
    assert main(["remove", "--events"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "event": "result",
        "values": f"{profile_environment()} is not there.\n",
    }


def test_a_closed_standard_input_cancels_within_two_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While pip waits for a server that does not answer; pip goes, too."""
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("tiny\n", encoding="utf-8")
    command = [sys.executable, "-u", str(FOLDER), "install", "--events", "--build", "ordinary"]
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        process = subprocess.Popen(
            [*command, "--requirements", str(wanted)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            if process.stdin is None or process.stdout is None:
                raise AssertionError
            silent.accept()
            began = time.monotonic()
            process.stdin.close()
            assert process.wait(timeout=30) == 130
            assert time.monotonic() - began < 2.5
            assert json.loads(process.stdout.read().splitlines()[-1])["event"] == "canceled"
        finally:
            process.kill()
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in left
