# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the search for a Python that has what a job needs, and of making one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from specdeepmap.core import environment
from specdeepmap.core.environment import (
    DATA_MODULES,
    TORCH_MODULES,
    VARIABLE,
    Search,
    advice,
    candidates,
    child_environ,
    environment_python,
    find_python,
    is_first_process,
    make_environment,
    missing_modules,
    own_python,
    profile_environment,
)

NO_MODULE = "no_module_of_this_name"


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o755)


def test_linux_qgis_is_not_led_astray_by_another_python_on_the_path(tmp_path: Path) -> None:
    usr, other = tmp_path / "usr", tmp_path / "shims" / "python3"
    touch(usr / "bin" / "python3.12", usr / "bin" / "python3", other)
    assert own_python(usr, other, (3, 12), "linux") == usr / "bin" / "python3.12"


def test_linux_without_a_versioned_name(tmp_path: Path) -> None:
    touch(tmp_path / "bin" / "python3")
    assert own_python(tmp_path, tmp_path / "bin" / "qgis", (3, 12), "linux") == tmp_path / "bin" / "python3"


def test_windows_qgis_is_not_taken_for_a_python(tmp_path: Path) -> None:
    prefix, qgis = tmp_path / "apps" / "Python312", tmp_path / "bin" / "qgis-bin.exe"
    touch(qgis)
    assert own_python(prefix, qgis, (3, 12), "win32") is None
    touch(prefix / "python3.exe")
    assert own_python(prefix, qgis, (3, 12), "win32") == prefix / "python3.exe"
    touch(prefix / "python.exe")
    assert own_python(prefix, qgis, (3, 12), "win32") == prefix / "python.exe"


def test_windows_venv_keeps_its_python_in_scripts(tmp_path: Path) -> None:
    python = tmp_path / "Scripts" / "python.exe"
    touch(python)
    assert own_python(tmp_path, python, (3, 12), "win32") == python


def test_mac_qgis_brings_its_python_in_the_bundle(tmp_path: Path) -> None:
    bundle = tmp_path / "QGIS.app" / "Contents" / "MacOS"
    touch(bundle / "QGIS")
    assert own_python(tmp_path / "Frameworks", bundle / "QGIS", (3, 9), "darwin") is None
    touch(bundle / "bin" / "python3")
    found = own_python(tmp_path / "Frameworks", bundle / "QGIS", (3, 9), "darwin")
    assert found == bundle / "bin" / "python3"


def test_this_python_finds_itself() -> None:
    found = own_python()
    assert found is not None
    assert found.samefile(sys.executable)


@pytest.mark.parametrize(
    ("platform", "environ", "expected"),
    [
        ("linux", {"HOME": "home"}, "home/.local/share/QGIS/QGIS3"),
        ("linux", {"HOME": "home", "XDG_DATA_HOME": "data"}, "data/QGIS/QGIS3"),
        ("linux", {"HOME": "home", "QGIS_CUSTOM_CONFIG_PATH": "own"}, "own"),
        ("linux", {"HOME": "home", "QGIS_CUSTOM_CONFIG_PATH": ""}, "home/.local/share/QGIS/QGIS3"),
        ("darwin", {"HOME": "home"}, "home/Library/Application Support/QGIS/QGIS3"),
        ("win32", {"USERPROFILE": "me", "APPDATA": "roaming"}, "roaming/QGIS/QGIS3"),
        ("win32", {"USERPROFILE": "me"}, "me/AppData/Roaming/QGIS/QGIS3"),
    ],
)
def test_environment_lies_in_the_user_data_of_qgis(platform: str, environ: dict[str, str], expected: str) -> None:
    assert profile_environment(environ, platform) == Path(expected, "specdeepmap", "environment")


def test_environment_does_not_lie_in_the_plugin() -> None:
    package = Path(environment.__file__).resolve().parents[1]
    assert package not in profile_environment().resolve().parents


def test_named_interpreter_is_the_only_candidate(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), VARIABLE: str(tmp_path / "none" / "python")}
    touch(environment_python(profile_environment(environ)))
    assert candidates(environ) == [tmp_path / "none" / "python"]


def test_named_interpreter_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "bin" / "python-x")
    monkeypatch.chdir(tmp_path)
    assert candidates({VARIABLE: os.path.join("bin", "python-x")}) == [tmp_path / "bin" / "python-x"]  # noqa: PTH118
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert candidates({VARIABLE: "python-x"}) == [tmp_path / "bin" / "python-x"]


@pytest.mark.parametrize("platform", ["linux", "win32", "darwin"])
def test_own_environment_comes_before_the_python_of_qgis(
    platform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), VARIABLE: ""}
    qgis = tmp_path / "python"
    touch(qgis)
    monkeypatch.setattr(environment, "own_python", lambda platform: qgis)
    assert candidates(environ, platform) == [qgis]
    venv = environment_python(profile_environment(environ, platform), platform)
    touch(venv)
    assert candidates(environ, platform) == [venv, qgis]


def test_child_sees_our_package_and_none_of_the_settings_of_qgis() -> None:
    given = {"PYTHONHOME": "/qgis", "PYTHONPATH": "/qgis/python", "PATH": "/bin", "LANG": "C"}
    environ = child_environ(given)
    assert "PYTHONHOME" not in environ
    assert Path(environ["PYTHONPATH"], "specdeepmap", "core", "environment.py").samefile(environment.__file__)
    assert {key: environ[key] for key in ("PATH", "LANG")} == {"PATH": "/bin", "LANG": "C"}
    assert given["PYTHONHOME"] == "/qgis"


def test_missing_modules_of_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")  # would keep it from starting
    assert missing_modules(Path(sys.executable), ("json", "numpy", NO_MODULE)) == (NO_MODULE,)
    assert missing_modules(Path(sys.executable), ()) == ()


def test_what_cannot_be_started_or_is_no_python_has_a_reason(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        missing_modules(tmp_path / "none", ("json",))
    no_python = tmp_path / "python"
    no_python.write_text("#!/bin/sh\necho hello\n", encoding="utf-8")
    no_python.chmod(0o755)
    with pytest.raises(OSError, match="does not answer as a Python"):
        missing_modules(no_python, ("json",))


def test_find_python_takes_the_first_that_has_all_and_gives_reasons_for_the_others() -> None:
    broken, bare, good, never = (Path(name) for name in ("broken", "bare", "good", "never"))
    asked: list[Path] = []

    def probe(path: Path, modules: Sequence[str]) -> tuple[str, ...]:
        asked.append(path)
        if path == broken:
            raise PermissionError(13, "Permission denied")
        return tuple(modules) if path == bare else ()

    search = find_python(("torch", "timm"), [broken, bare, good, never], probe)
    assert search == Search(good, ((broken, ("Permission denied",)), (bare, ("torch", "timm"))))
    assert asked == [broken, bare, good]
    assert find_python(("torch",), [bare], probe) == Search(None, ((bare, ("torch",)),))
    assert find_python(("torch",), [], probe) == Search(None, ())


def test_find_python_asks_the_named_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, sys.executable)
    assert find_python(("json",)).python == Path(sys.executable)
    assert find_python((NO_MODULE,)) == Search(None, ((Path(sys.executable), (NO_MODULE,)),))


def test_advice_names_what_is_missing_where_and_the_command() -> None:
    text = advice(Search(None, ((Path("/a b/python"), ("torch", "timm")), (Path("/gone"), ("No such file",)))))
    for part in ("/a b/python", "torch, timm", "/gone", "No such file", VARIABLE, str(own_python())):
        assert part in text
    assert f'"{Path(environment.__file__).resolve()}"' in text
    assert "no interpreter at all" in advice(Search(None, ()))


def test_torch_jobs_need_all_that_data_jobs_need() -> None:
    assert set(DATA_MODULES) < set(TORCH_MODULES)


def test_make_environment_makes_it_once_and_again_when_something_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, requirements = tmp_path / "with space é", tmp_path / "requirements.txt"
    requirements.write_text("# nothing\n", encoding="utf-8")
    python = Path(sys.executable)
    made = make_environment(folder, [requirements], python)
    assert made == environment_python(folder)
    assert missing_modules(made, ("json", "pip")) == ()

    commands: list[Sequence[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command))
    assert make_environment(folder, [requirements], python) == made
    assert commands == []

    requirements.write_text("# something\n", encoding="utf-8")
    make_environment(folder, [requirements], python)
    assert [command[2] for command in commands] == ["venv", "pip"]

    commands.clear()
    monkeypatch.setattr(sys, "version_info", (3, 99))
    make_environment(folder, [requirements], python)
    assert [command[2] for command in commands] == ["venv", "pip"]


def test_an_environment_whose_packages_failed_is_not_taken_for_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: Sequence[str], **_: object) -> None:
        if "pip" in command:
            raise subprocess.CalledProcessError(1, command)
        touch(environment_python(tmp_path / "made"))

    monkeypatch.setattr(subprocess, "run", run)
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError):
            make_environment(tmp_path / "made", [], Path(sys.executable))


def test_command_says_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert environment.main([str(tmp_path / "made"), str(tmp_path / "none.txt")]) == 1
    assert str(tmp_path / "made") in capsys.readouterr().err
    monkeypatch.setattr(environment, "make_environment", lambda folder, requirements, python: folder / "python")
    assert environment.main([str(tmp_path / "made")]) == 0
    assert str(tmp_path / "made" / "python") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("environ", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "1", "LOCAL_RANK": "1"}, False),
        ({"RANK": "4", "LOCAL_RANK": "0"}, False),  # torchrun: the first one of the second computer
        ({"LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "2"}, False),  # what Lightning starts
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, True),
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "3", "SLURM_LOCALID": "0"}, False),
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, False),  # Lightning's, in a job of one task
        ({"SLURM_PROCID": "2", "RANK": "0"}, True),  # torchrun in a job of several
        ({"RANK": "10"}, False),
    ],
)
def test_one_of_several_processes_speaks_for_all(
    environ: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() == first
