# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of what a Python is found to be able to do."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from specdeepmap.core.environment.findings import Findings, examine, read_requirements
from specdeepmap.core.errors import Canceled
from tests.processes import descendants, linux, running, wait_until

PYTHON = Path(sys.executable)


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.txt"
    path.write_text("# why\nnumpy>=1\n\npackaging  # because\n", encoding="utf-8")
    return path


def test_read_requirements(requirements: Path) -> None:
    assert read_requirements(requirements) == ("numpy>=1", "packaging")


@pytest.mark.torch
def test_this_python_is_ready_and_its_gpu_or_none_is_named() -> None:
    findings = examine(PYTHON)
    assert findings.ready, findings.problems
    assert findings.version == ".".join(str(part) for part in sys.version_info[:3])
    assert all(findings.modules.values())
    text = "\n".join(findings.lines())
    assert "torch" in text and "computes on" in text


def test_what_is_missing_or_does_not_fit_is_a_sentence(tmp_path: Path, requirements: Path) -> None:
    requirements.write_text("numpy>=99\nno_such_package_of_ours\n", encoding="utf-8")
    findings = examine(PYTHON, ("json", "no_module_of_this_name"), [requirements])
    assert not findings.ready
    assert findings.modules["json"] and findings.modules["no_module_of_this_name"] is None
    first, second, third = findings.problems
    assert first.startswith("no_module_of_this_name cannot be imported (ModuleNotFoundError")
    assert second.startswith("numpy ") and second.endswith("is installed, but numpy>=99 is needed.")
    assert third == "The package no_such_package_of_ours is not installed."
    assert "missing" in "\n".join(findings.lines())


def test_gdal_and_numpy_are_tried_together(tmp_path: Path, requirements: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where numpy 2 was installed beside bindings that were compiled against numpy 1."""
    assert examine(PYTHON, ("osgeo", "numpy"), [requirements]).ready
    fake = tmp_path / "fake" / "osgeo"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("__version__ = '3.6'\n", encoding="utf-8")
    (fake / "gdal.py").write_text("def UseExceptions(): pass\n", encoding="utf-8")
    (fake / "gdal_array.py").write_text(
        "raise ImportError('numpy.core.multiarray failed to import')\n", encoding="utf-8"
    )
    monkeypatch.setattr("specdeepmap.core.environment.findings.child_environ", lambda: {"PYTHONPATH": str(fake.parent)})
    findings = examine(PYTHON, ("osgeo", "numpy"), [requirements])
    assert findings.problems == (
        "GDAL with numpy does not work (ImportError: numpy.core.multiarray failed to import).",
    )


def test_chatter_on_import_is_not_taken_for_the_answer(
    tmp_path: Path, requirements: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "noisy.py").write_text("print('{\"hello\": 1}')\n", encoding="utf-8")
    monkeypatch.setattr("specdeepmap.core.environment.findings.child_environ", lambda: {"PYTHONPATH": str(tmp_path)})
    assert examine(PYTHON, ("noisy",), [requirements]).ready


@linux
def test_what_is_given_up_ends_with_all_that_it_started(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nsleep 300\necho awake\n", encoding="utf-8")
    program.chmod(0o755)
    started: set[int] = set()

    def check() -> None:
        started.update(process.number for process in descendants(os.getpid()))
        if len(started) > 1:
            raise Canceled

    with pytest.raises(Canceled):
        examine(program, check=check)
    assert wait_until(lambda: not running(started), 2)


def test_what_is_no_python_is_told(tmp_path: Path) -> None:
    assert "cannot be started" in examine(tmp_path / "none").problems[0]
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho oops >&2\nexit 3\n", encoding="utf-8")
    program.chmod(0o755)
    assert examine(program).problems == (f"{program} does not answer as a Python (exit code 3). It said: oops",)
    assert not Findings(program, problems=("x",)).ready
