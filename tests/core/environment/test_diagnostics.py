# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the report for bug reports: complete, and without the user's name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from specdeepmap import __version__
from specdeepmap.core.environment import diagnostics
from specdeepmap.core.environment.diagnostics import Status, anonymous, report
from specdeepmap.core.environment.findings import Findings
from specdeepmap.core.environment.installation import Installation
from specdeepmap.core.environment.search import STAMP, VARIABLE, choice_file, environment_python, profile_environment


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/anna/map.tif", "~/map.tif"),
        ("in '/home/anna'.", "in '~'."),
        ("/home/annabel/map.tif", "/home/annabel/map.tif"),
        ("/media/anna/disk", "/media/<user>/disk"),
        ("C:\\Users\\anna\\x", "C:\\Users\\<user>\\x"),
        ("https://anna:secret@proxy:8080/x", "https://proxy:8080/x"),
        ("savannah anna bananna", "savannah anna bananna"),
    ],
)
def test_anonymous(text: str, expected: str) -> None:
    assert anonymous(text, Path("/home/anna"), "anna") == expected


def test_a_root_without_a_home_is_not_replaced_everywhere() -> None:
    assert anonymous("/usr/bin/python3", Path("/"), "root") == "/usr/bin/python3"


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Findings:
    """Let the examination find a Python that is ready."""
    findings = Findings(Path("/x/python"), "3.11.2", {"torch": "2.9"}, ("NVIDIA A100",), "12.8")
    monkeypatch.setattr(diagnostics, "examine", lambda python, check: findings)
    return findings


def test_status_tells_which_python_is_used_and_why(
    found: Findings, profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specdeepmap.core.environment.search.TORCH_MODULES", ("json",))
    monkeypatch.setattr(diagnostics, "TORCH_MODULES", ("json",))
    assert Status.look().source == "QGIS's own Python"
    python = environment_python(profile_environment())
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (profile_environment() / STAMP).touch()
    assert Status.look().source == "the plugin's own environment"
    choice_file().write_text(sys.executable, encoding="utf-8")
    assert Status.look().source == "chosen by you"
    monkeypatch.setenv(VARIABLE, sys.executable)
    status = Status.look()
    assert status.source == f"named by the environment variable {VARIABLE}"
    assert status.ready
    assert status.headline == "Ready: PyTorch 2.9 computes on NVIDIA A100."
    assert status.to_json()["headline"] == status.headline


def test_headline_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(diagnostics, "TORCH_MODULES", ("no_module_of_this_name",))
    assert Status.look().headline == "Not ready: the deep-learning environment is not set up."
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone"))
    status = Status.look()
    assert f"{tmp_path / 'gone'}, which was named or chosen, cannot be used: No such file" in status.headline
    assert not any("lacks No such" in line for line in status.lines())


def test_report_holds_what_matters_and_no_secret(
    found: Findings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(diagnostics, "TORCH_MODULES", ("json",))
    monkeypatch.setenv("HTTPS_PROXY", "http://anna:secret@proxy:8080")
    home = tmp_path / "home"
    installation = Installation()
    installation.folder.mkdir(parents=True)
    installation.log.write_text(f"ERROR: no room in {home}/x\n", encoding="utf-8")
    text = report(Status.look(), {"QGIS": "3.40.6"})
    for part in (
        f"SpecDeepMap: {__version__}",
        "QGIS: 3.40.6",
        "System: ",
        "HTTPS_PROXY",
        "torch 2.9",
        "no room in ~/x",
    ):
        assert part in text
    assert str(home) not in text and "secret" not in text
