# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the search for a Python that has what a job needs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from specdeepmap.core.environment import search as searching
from specdeepmap.core.environment.search import (
    DATA_MODULES,
    STAMP,
    TORCH_MODULES,
    VARIABLE,
    Search,
    advice,
    candidates,
    child_environ,
    choice_file,
    environment_python,
    find_python,
    missing_modules,
    own_python,
    profile_environment,
)
from specdeepmap.core.errors import Canceled

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
    assert searching.PACKAGE not in profile_environment().resolve().parents


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
    monkeypatch.setattr(searching, "own_python", lambda platform: qgis)
    assert candidates(environ, platform) == [qgis]
    folder = profile_environment(environ, platform)
    venv = environment_python(folder, platform)
    touch(venv)
    assert candidates(environ, platform) == [qgis]  # half installed: it has no stamp
    touch(folder / STAMP)
    assert candidates(environ, platform) == [venv, qgis]


def test_a_chosen_python_is_the_only_candidate_but_for_a_named_one(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    folder = profile_environment(environ, "linux")
    touch(environment_python(folder), folder / STAMP)
    file = choice_file(environ, "linux")
    file.write_text("/opt/conda/bin/python\n", encoding="utf-8")
    assert candidates(environ, "linux") == [Path("/opt/conda/bin/python")]
    assert candidates({**environ, VARIABLE: "/other/python"}, "linux") == [Path("/other/python")]
    file.write_text("\n", encoding="utf-8")
    assert candidates(environ, "linux")[0] == environment_python(folder)


def test_child_sees_our_package_and_none_of_the_settings_of_qgis() -> None:
    given = {"PYTHONHOME": "/qgis", "PYTHONPATH": "/qgis/python", "PATH": "/bin", "LANG": "C"}
    environ = child_environ(given)
    assert "PYTHONHOME" not in environ
    found = Path(environ["PYTHONPATH"], "specdeepmap", "core", "environment", "search.py")
    assert found.samefile(searching.__file__)
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


def test_a_python_that_does_not_answer_can_be_canceled(tmp_path: Path) -> None:
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 30\n", encoding="utf-8")
    slow.chmod(0o755)
    began = time.monotonic()

    def check() -> None:
        if time.monotonic() - began > 0.5:
            raise Canceled

    with pytest.raises(Canceled):
        find_python(("json",), [slow], check=check)
    assert time.monotonic() - began < 2


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
    assert f'"{Path(searching.__file__).resolve().parent}" install' in text
    assert "Plugins > SpecDeepMap > Set up deep-learning environment" in text
    assert "no interpreter at all" in advice(Search(None, ()))


def test_advice_on_a_python_that_was_named_or_chosen_leads_to_no_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other is looked at, so that installing would change nothing."""
    found = Search(None, ((tmp_path / "gone", ("No such file or directory",)),))
    monkeypatch.setenv("QGIS_CUSTOM_CONFIG_PATH", str(tmp_path))
    assert "install" in advice(found)
    choice_file().parent.mkdir(parents=True)
    choice_file().write_text(str(tmp_path / "gone"), encoding="utf-8")
    assert "It was chosen" in advice(found) and "use it no more" in advice(found)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone"))
    assert f"named in the environment variable {VARIABLE}" in advice(found)
    assert "install" not in advice(found) and "gone (cannot be used: No such file or directory)" in advice(found)


def test_advice_tells_of_a_half_installed_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QGIS_CUSTOM_CONFIG_PATH", str(tmp_path))
    assert "half installed" not in advice(Search(None, ()))
    touch(environment_python(profile_environment()))
    assert f"{profile_environment()} is only half installed" in advice(Search(None, ()))
    touch(profile_environment() / STAMP)
    assert "half installed" not in advice(Search(None, ()))


def test_torch_jobs_need_all_that_data_jobs_need() -> None:
    assert set(DATA_MODULES) < set(TORCH_MODULES)
