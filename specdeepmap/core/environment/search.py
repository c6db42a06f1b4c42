# SPDX-License-Identifier: GPL-3.0-or-later
"""The search for the Python that does the work: where it may lie, and which modules it has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from specdeepmap.core.process import run_patiently

VARIABLE = "SPECDEEPMAP_PYTHON"
"""Environment variable that names the interpreter to use."""

STAMP = "requirements.installed"
"""File in the plugin's own environment; written last, so that one without it is half installed."""

PACKAGE = Path(__file__).resolve().parents[2]
"""The folder of the plugin."""

DATA_MODULES = ("osgeo", "numpy")
"""Modules that the torch-free jobs import."""

TORCH_MODULES = (
    *DATA_MODULES,
    "torch",
    "torchvision",
    "lightning",
    "segmentation_models_pytorch",
    "timm",
    "tensorboard",
)
"""Modules that training, testing, mapping and TensorBoard import."""

_PROBE = (
    "import importlib.util as u, json, sys; "
    "sys.stdout.write(json.dumps([m for m in sys.argv[1:] if u.find_spec(m) is None]))"
)


_PROBE_SECONDS = 60

Probe = Callable[[Path, Sequence[str]], tuple[str, ...]]


@dataclass(frozen=True)
class Search:
    """What a search for an interpreter found.

    Attributes:
        python: the interpreter to use, or None where no candidate has every module.
        looked_at: each candidate that exists, with the modules it lacks; the reason instead, where
            it could not be started.
    """

    python: Path | None
    looked_at: tuple[tuple[Path, tuple[str, ...]], ...]


def user_folder(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Give the plugin's folder in QGIS's user data: beside the profiles, outside the plugin."""
    home = Path(environ.get("USERPROFILE" if platform == "win32" else "HOME") or Path.home())
    if environ.get("QGIS_CUSTOM_CONFIG_PATH"):
        base = Path(environ["QGIS_CUSTOM_CONFIG_PATH"])
    elif platform == "win32":
        base = Path(environ.get("APPDATA") or home / "AppData" / "Roaming") / "QGIS" / "QGIS3"
    elif platform == "darwin":
        base = home / "Library" / "Application Support" / "QGIS" / "QGIS3"
    else:
        base = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "QGIS" / "QGIS3"
    return base / "specdeepmap"


def profile_environment(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Give the folder of the plugin's own environment."""
    return user_folder(environ, platform) / "environment"


def choice_file(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Give the file that names the Python which the user chose; it is not there where none was chosen."""
    return user_folder(environ, platform) / "python.txt"


def chosen_python(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path | None:
    """Give the Python that the user chose instead of the plugin's own environment."""
    try:
        text = choice_file(environ, platform).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return Path(text) if text else None


def environment_python(folder: Path, platform: str = sys.platform) -> Path:
    """Give the interpreter inside a venv folder."""
    return folder / "Scripts" / "python.exe" if platform == "win32" else folder / "bin" / "python"


def site_packages(folder: Path) -> Path:
    """Give the folder of the packages in a venv; the likely one where there is none yet."""
    found = sorted(folder.glob("lib/python*/site-packages"))
    return found[-1] if found else folder / "Lib" / "site-packages"


def own_python(
    prefix: Path = Path(sys.exec_prefix),
    executable: Path = Path(sys.executable or "python"),
    version: tuple[int, int] = sys.version_info[:2],
    platform: str = sys.platform,
) -> Path | None:
    """Find the interpreter of the Python that runs here.

    Inside QGIS ``sys.executable`` is QGIS itself on Windows and macOS, and the first ``python3`` on the
    PATH on Linux, which may be another Python. So it comes last, and only where its name begins with
    ``python``.

    Args:
        prefix: ``sys.exec_prefix``.
        executable: ``sys.executable``.
        version: major and minor version.
        platform: ``sys.platform``.
    """
    name = f"python{version[0]}.{version[1]}"
    if platform == "win32":
        found = [prefix / "python.exe", prefix / "python3.exe"]
    elif platform == "darwin":
        bundle = [executable.parent / "bin" / "python3", executable.parent / "python3"]
        found = [prefix / "bin" / name, prefix / "bin" / "python3", *bundle]
    else:
        found = [prefix / "bin" / name, prefix / "bin" / "python3"]
    if executable.name.lower().startswith("python"):
        found.append(executable)
    return next((path for path in found if path.is_file()), None)


def candidates(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> list[Path]:
    """List the interpreters to look at, in order; a named or chosen one is the only one."""
    if environ.get(VARIABLE):
        return [Path(shutil.which(environ[VARIABLE]) or environ[VARIABLE]).absolute()]
    chosen = chosen_python(environ, platform)
    if chosen is not None:
        return [chosen]
    folder = profile_environment(environ, platform)
    venv = environment_python(folder, platform) if (folder / STAMP).is_file() else None
    own = own_python(platform=platform)
    return [path.absolute() for path in (venv, own) if path is not None and path.is_file()]


def child_environ(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Give the environment of a child Python: without PYTHONHOME, PYTHONPATH only the package's parent.

    QGIS sets both for its own Python; in another one they shadow numpy or stop it from starting.
    """
    kept = {key: value for key, value in environ.items() if key not in ("PYTHONHOME", "PYTHONPATH")}
    kept["PYTHONPATH"] = str(PACKAGE.parent)
    kept["PYTHONDONTWRITEBYTECODE"] = "1"
    return kept


def missing_modules(python: Path, modules: Sequence[str], check: Callable[[], None] | None = None) -> tuple[str, ...]:
    """Ask an interpreter which modules it lacks; it looks for them and imports none.

    Args:
        python: the interpreter; on a slow disk it may take its time.
        modules: that are needed.
        check: is called while it is waited for, and may raise to give up.

    Raises:
        OSError: if it cannot be started, or is no Python.
    """
    command = [str(python), "-X", "utf8", "-c", _PROBE, *modules]
    try:
        done = run_patiently(command, child_environ(), _PROBE_SECONDS, check)
        done.check_returncode()
        return tuple(json.loads(done.stdout))
    except (subprocess.SubprocessError, ValueError) as error:
        raise OSError(f"it does not answer as a Python ({type(error).__name__})") from error


def find_python(
    modules: Sequence[str],
    paths: Sequence[Path] | None = None,
    probe: Probe | None = None,
    check: Callable[[], None] | None = None,
) -> Search:
    """Find the first interpreter that has every module.

    Args:
        modules: that are needed.
        paths: of the interpreters to ask; those of this computer where not given.
        probe: asks one of them.
        check: is called while one is waited for, and may raise to give up.
    """
    probe = probe or partial(missing_modules, check=check)
    looked_at: list[tuple[Path, tuple[str, ...]]] = []
    for path in candidates() if paths is None else paths:
        try:
            lacks = probe(path, modules)
        except OSError as error:
            lacks = (str(error.strerror or error),)
        if not lacks:
            return Search(path, tuple(looked_at))
        looked_at.append((path, lacks))
    return Search(None, tuple(looked_at))


def advice(search: Search) -> str:
    """Say what no interpreter had and how to mend it, in QGIS and without."""
    looked = "; ".join(f"{path} ({reason(lacks)})" for path, lacks in search.looked_at) or "no interpreter at all"
    named = os.environ.get(VARIABLE)
    if named or chosen_python() is not None:
        how = (
            f"It is named in the environment variable {VARIABLE}, so no other is looked at. Correct the variable, or "
            "unset it"
            if named
            else "It was chosen, so no other is looked at. Choose another, or use it no more, in QGIS with the menu "
            "Plugins > SpecDeepMap > Set up deep-learning environment"
        )
        return f"The Python that is to do the work cannot be used: {looked}. {how}."
    folder = profile_environment()
    half = ""
    if environment_python(folder).is_file() and not (folder / STAMP).is_file():
        half = f" The environment in {folder} is only half installed."
    return (
        f"No Python with the deep-learning packages was found. Looked at: {looked}.{half} Set it up once, beside "
        "QGIS's own packages: in QGIS with the menu Plugins > SpecDeepMap > Set up deep-learning environment, or in a "
        f"terminal with: {install_command()}  — or name a Python that has the packages of requirements.txt in the "
        f"environment variable {VARIABLE}."
    )


def reason(lacks: Sequence[str]) -> str:
    """Say of an interpreter that does not do which modules it lacks, or why it does not start."""
    if all(name.isidentifier() for name in lacks):
        return f"lacks {', '.join(lacks)}"
    return f"cannot be used: {' '.join(lacks)}"


def install_command() -> str:
    """Give the command that makes the plugin's own environment, for a terminal."""
    return f'"{own_python() or Path("python3")}" "{Path(__file__).resolve().parent}" install'
