# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the plugin's own environment: made, completed, repaired, removed, and QGIS's packages left alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from specdeepmap.core.environment import choice
from specdeepmap.core.environment import installation as installing
from specdeepmap.core.environment.choice import choose, forget_choice
from specdeepmap.core.environment.findings import Findings
from specdeepmap.core.environment.installation import Installation
from specdeepmap.core.environment.packages import Packages
from specdeepmap.core.environment.search import STAMP, candidates, choice_file, profile_environment, site_packages
from specdeepmap.core.errors import Canceled, EnvironmentMissingError
from tests.helpers import Recorder

BASE = next(Path(sys.base_prefix, "bin").glob(f"python{sys.version_info[0]}.{sys.version_info[1]}"))
"""The Python whose packages the environments of these tests see: QGIS's own."""

Make = Callable[..., Installation]


@pytest.fixture
def make(wheel: Callable[..., Path], tmp_path: Path) -> Make:
    """Give an installation of the plugin's own folder that asks for the package ``tiny``."""
    wheel()
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("tiny  # with a comment\n", encoding="utf-8")

    def give(text: str = "", modules: Sequence[str] = ("json", "tiny"), python: Path = BASE) -> Installation:
        if text:
            requirements.write_text(text, encoding="utf-8")
        return Installation(requirements=[requirements], python=python, modules=modules)

    return give


def packages(python: Path) -> str:
    """List the packages of a Python with their versions, without those of the environment of this test run."""
    ask = "import importlib.metadata as m; print(sorted({(d.name, d.version) for d in m.distributions()}))"
    clean = {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run([str(python), "-c", ask], env=clean, capture_output=True, text=True, check=True).stdout


def can_import(python: Path, module: str) -> bool:
    return subprocess.run([str(python), "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def test_packages_of_qgis_are_the_same_before_and_after(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, text in {"PIP_USER": "1", "PIP_TARGET": str(tmp_path / "target"), "PYTHONPATH": "/nowhere"}.items():
        monkeypatch.setenv(name, text)  # settings that would lead pip out of the environment
    before = packages(BASE)
    environment = make()
    assert environment.state == "none"
    assert candidates() == [Path(sys.prefix, "bin", BASE.name)]
    environment.install(Recorder(), "ordinary")
    assert packages(BASE) == before
    assert not (tmp_path / "target").exists() and not (tmp_path / "home" / ".local").exists()
    assert can_import(environment.python, "tiny") and not can_import(BASE, "tiny")
    assert can_import(environment.python, "numpy")  # QGIS's own
    assert environment.folder == profile_environment()
    assert environment.state == "ready"
    assert candidates()[0] == environment.python


def test_a_ready_environment_is_left_alone_and_a_changed_one_is_updated(make: Make, wheel: Callable[..., Path]) -> None:
    environment, progress = make(), Recorder()
    environment.install(progress, "ordinary")
    assert progress.shares == sorted(progress.shares) and progress.shares[-1] == 1
    made = environment.log.stat().st_mtime_ns
    environment.install(Recorder(), "ordinary")
    assert environment.log.stat().st_mtime_ns == made
    wheel("more", "2.0")
    updated = make("tiny\nmore>=2\n", ["more"])
    assert updated.state == "outdated"
    assert candidates()[0] == updated.python  # it serves until then
    findings = updated.install(Recorder(), "ordinary")
    assert findings.modules == {"more": "2.0"}
    assert updated.state == "ready"


def test_a_canceled_installation_is_marked_and_completed_later(make: Make) -> None:
    class Impatient(Recorder):
        def _show(self, share: float, text: str) -> None:
            super()._show(share, text)
            if text.startswith("Processing ") and "tiny" in text:
                self.cancel()

    environment = make()
    with pytest.raises(Canceled):
        environment.install(Impatient(), "ordinary")
    assert environment.python.is_file()
    assert environment.state == "half"
    assert environment.python not in candidates()
    environment.install(Recorder(), "ordinary")
    assert environment.state == "ready"


def test_what_cannot_be_imported_is_not_taken_for_whole_until_it_is_repaired(
    make: Make, wheel: Callable[..., Path]
) -> None:
    wheel(code="raise OSError('libcudart.so.12: cannot open')\n")
    environment = make()
    with pytest.raises(EnvironmentMissingError, match=r"tiny cannot be imported \(OSError: libcudart.* Repair it"):
        environment.install(Recorder(), "ordinary")
    assert environment.state == "half"
    assert environment.python not in candidates()
    (environment.folder / "leftover").touch()
    wheel()
    environment.repair(Recorder(), "ordinary")
    assert environment.state == "ready"
    assert not (environment.folder / "leftover").exists()


def test_an_environment_of_another_python_is_made_anew(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = make()
    environment.install(Recorder(), "ordinary")
    (environment.folder / "leftover").touch()
    monkeypatch.setattr(installing, "sys", SimpleNamespace(version_info=(3, 99), platform=sys.platform))
    assert environment.state == "outdated"
    progress = Recorder()
    environment.install(progress, "ordinary")
    assert not (environment.folder / "leftover").exists()
    assert environment.state == "ready"


def test_what_pip_cannot_find_is_told(make: Make) -> None:
    environment = make("tiny\nno_such_package_of_ours\n")
    with pytest.raises(EnvironmentMissingError, match=r"no_such_package_of_ours.*install\.log.*internet") as caught:
        environment.install(Recorder(), "ordinary")
    assert "\n" not in str(caught.value)
    assert environment.state == "half"
    assert "no_such_package_of_ours" in environment.log.read_text(encoding="utf-8")


def test_numpy_keeps_the_major_version_that_gdal_was_compiled_against(make: Make, wheel: Callable[..., Path]) -> None:
    import importlib.metadata

    own = int(importlib.metadata.version("numpy").split(".")[0])
    wheel("numpy", f"{own + 1}.0.0")
    wheel("greedy", needs=f"numpy>={own + 1}")
    environment = make("greedy\n", ["greedy"])
    with pytest.raises(EnvironmentMissingError, match="pip could not install"):
        environment.install(Recorder(), "ordinary")
    assert not list(site_packages(environment.folder).glob("numpy*"))


def test_a_full_disk_is_told_before_anything_is_made(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1e9))
    environment = make()
    with pytest.raises(EnvironmentMissingError, match=r"needs 7.5 GB in .*, and 1.0 GB are free. Make room"):
        environment.install(Recorder(), "ordinary")
    assert not environment.folder.exists()


def test_a_python_without_venv_is_explained(make: Make, tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\necho 'ensurepip is not available'\nexit 1\n", encoding="utf-8")
    python.chmod(0o755)
    with pytest.raises(EnvironmentMissingError, match="install the package python3-venv"):
        make(python=python).install(Recorder(), "ordinary")
    assert make().state == "none"


def test_remove(make: Make, tmp_path: Path) -> None:
    environment = make()
    environment.remove(Recorder())  # nothing is there
    environment.install(Recorder(), "ordinary")
    environment.remove(Recorder())
    assert not environment.folder.exists()
    assert environment.state == "none"
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").touch()
    with pytest.raises(EnvironmentMissingError, match="left as it is"):
        Installation(precious).remove(Recorder())
    with pytest.raises(EnvironmentMissingError, match="holds files of others"):
        Installation(precious, requirements=environment.requirements, python=BASE).install(Recorder(), "ordinary")
    assert [path.name for path in precious.iterdir()] == ["thesis.txt"]


def test_a_folder_on_another_disk_behind_a_link(make: Make, tmp_path: Path) -> None:
    elsewhere, environment = tmp_path / "large disk", make()
    environment.folder.parent.mkdir(parents=True)
    environment.folder.symlink_to(elsewhere)
    with pytest.raises(EnvironmentMissingError, match=r"a link to .*large disk, cannot be made .* Is its disk there"):
        environment.install(Recorder(), "ordinary")
    elsewhere.mkdir()
    environment.install(Recorder(), "ordinary")
    assert environment.state == "ready" and (elsewhere / STAMP).is_file()
    environment.repair(Recorder(), "ordinary")
    assert environment.state == "ready" and environment.folder.is_symlink()
    environment.remove(Recorder())
    assert environment.state == "none" and environment.folder.readlink() == elsewhere
    assert not list(elsewhere.iterdir())


def test_a_folder_in_use_cannot_be_removed_and_is_half_then(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = make()
    environment.install(Recorder(), "ordinary")

    def rmtree(folder: Path) -> None:
        raise PermissionError(13, "used by another process", "torch.dll")

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    with pytest.raises(EnvironmentMissingError, match=r"used by another process: torch\.dll.*Close what uses it"):
        environment.remove(Recorder())
    assert environment.state == "half"


@pytest.mark.parametrize(
    ("build", "cards", "backend"),
    [("cpu", (), "cpu"), ("auto", (), "cpu"), ("auto", ("NVIDIA H200, 570",), "auto"), ("ordinary", ("a card",), None)],
)
@pytest.mark.parametrize("reachable", [True, False])
def test_builds_that_pip_does_not_find_come_through_uv(
    build: str,
    cards: tuple[str, ...],
    backend: str | None,
    reachable: bool,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment = make("torch>=2.6\ntorchvision>=0.21\ntimm\n")
    commands: list[Sequence[str]] = []

    def run(self: Packages, command: Sequence[str], *_: object) -> tuple[int, str]:
        commands.append(command)
        return int("uv" in command and "--torch-backend" in str(command) and not reachable), ""

    monkeypatch.setattr(installing, "graphics_cards", lambda: cards)
    monkeypatch.setattr(Packages, "run", run)
    monkeypatch.setattr(Installation, "examine", lambda self, check: SimpleNamespace(ready=True))
    monkeypatch.setattr(sys, "platform", "linux")
    progress = Recorder()
    environment.install(progress, build)
    through_uv = [command for command in commands if "--python" in command]
    if backend is None:
        assert through_uv == []
    else:
        (command,) = through_uv
        assert command[-3:] == [f"--torch-backend={backend}", "torch>=2.6", "torchvision>=0.21"]
        assert "--no-deps" in command
    assert ["-r" in command for command in commands][-1]  # pip does the rest, in any case
    assert bool(progress.warnings) == (backend is not None and not reachable)


def test_choose_checks_a_python_and_remembers_it(wheel: Callable[..., Path], make: Make, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentMissingError, match=r"cannot be started.*Install what is missing there"):
        choose(tmp_path / "none")
    assert not choice_file().exists()


def test_a_choice_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "examine", lambda python, check: Findings(python))
    (tmp_path / "file").touch()
    monkeypatch.setattr(choice, "choice_file", lambda: tmp_path / "file" / "python.txt")
    for try_it in (lambda: choose(Path(sys.executable)), forget_choice):
        with pytest.raises(EnvironmentMissingError, match=r"choice cannot be written to .*python\.txt \("):
            try_it()


@pytest.mark.torch
def test_a_chosen_python_is_used_until_it_is_forgotten(tmp_path: Path) -> None:
    findings = choose(Path(sys.prefix))  # the folder of its environment will do
    assert findings.ready and findings.modules["torch"]
    assert candidates() == [Path(sys.prefix, "bin", "python")]
    assert forget_choice() == Path(sys.prefix, "bin", "python")
    assert candidates() != [Path(sys.prefix, "bin", "python")]
    assert forget_choice() is None
    assert not (profile_environment() / STAMP).exists()
    assert json.dumps(findings.to_json())
