# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python that does the work: which modules it needs, where it may lie, how to make one.

QGIS itself never imports torch: it is started in another Python process. That Python is looked for
in three places, and the first that has every needed module wins:

1. the interpreter named by the environment variable ``SPECDEEPMAP_PYTHON``,
2. the plugin's own environment, a venv in the user's QGIS profile that sees QGIS's own packages,
3. QGIS's Python, if torch was installed there.

This file needs the standard library only and runs by its path, too: that is the one command which
makes the environment::

    python3 …/specdeepmap/core/environment.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "SPECDEEPMAP_PYTHON"
"""Environment variable that names the interpreter to use."""

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


def profile_environment(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Give the folder of the plugin's own environment, in QGIS's user data and outside the plugin."""
    home = Path(environ.get("USERPROFILE" if platform == "win32" else "HOME") or Path.home())
    if environ.get("QGIS_CUSTOM_CONFIG_PATH"):
        base = Path(environ["QGIS_CUSTOM_CONFIG_PATH"])
    elif platform == "win32":
        base = Path(environ.get("APPDATA") or home / "AppData" / "Roaming") / "QGIS" / "QGIS3"
    elif platform == "darwin":
        base = home / "Library" / "Application Support" / "QGIS" / "QGIS3"
    else:
        base = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "QGIS" / "QGIS3"
    return base / "specdeepmap" / "environment"


def environment_python(folder: Path, platform: str = sys.platform) -> Path:
    """Give the interpreter inside a venv folder."""
    return folder / "Scripts" / "python.exe" if platform == "win32" else folder / "bin" / "python"


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
    """List the interpreters to look at, in order; a named one is the only one."""
    if environ.get(VARIABLE):
        return [Path(shutil.which(environ[VARIABLE]) or environ[VARIABLE]).absolute()]
    own = own_python(platform=platform)
    venv = environment_python(profile_environment(environ, platform), platform)
    return [path.absolute() for path in (venv, own) if path is not None and path.is_file()]


def child_environ(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Give the environment of a child Python: without PYTHONHOME, PYTHONPATH only the package's parent.

    QGIS sets both for its own Python; in another one they shadow numpy or stop it from starting.
    """
    kept = {key: value for key, value in environ.items() if key not in ("PYTHONHOME", "PYTHONPATH")}
    kept["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    kept["PYTHONDONTWRITEBYTECODE"] = "1"
    return kept


def missing_modules(python: Path, modules: Sequence[str]) -> tuple[str, ...]:
    """Ask an interpreter which modules it lacks; it looks for them and imports none.

    Raises:
        OSError: if it cannot be started, or is no Python.
    """
    command = [str(python), "-X", "utf8", "-c", _PROBE, *modules]
    try:
        answer = subprocess.run(  # noqa: S603
            command, env=child_environ(), capture_output=True, text=True, timeout=60, check=True
        )
        return tuple(json.loads(answer.stdout))
    except (subprocess.SubprocessError, ValueError) as error:
        raise OSError(f"it does not answer as a Python ({type(error).__name__})") from error


def find_python(
    modules: Sequence[str],
    paths: Sequence[Path] | None = None,
    probe: Callable[[Path, Sequence[str]], tuple[str, ...]] = missing_modules,
) -> Search:
    """Find the first interpreter that has every module."""
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
    """Say what no interpreter had and the one command that mends it."""
    looked = [f"{path} (lacks: {', '.join(lacks)})" for path, lacks in search.looked_at]
    own = own_python() or Path("python3")
    return (
        "No Python with PyTorch was found. Looked at: "
        + ("; ".join(looked) or "no interpreter at all")
        + f'. Install it once, outside of QGIS\'s own packages, with this command in a terminal: "{own}" '
        f'"{Path(__file__).resolve()}"  — or set the environment variable {VARIABLE} to a Python that '
        "has the packages of requirements.txt."
    )


def make_environment(folder: Path, requirements: Sequence[Path], python: Path) -> Path:
    """Make a venv that sees the packages of a Python, and install requirements into it.

    A venv whose Python and requirements have not changed since is left as it is.

    Args:
        folder: the venv's folder, made where missing.
        requirements: files in pip's requirements format.
        python: the interpreter whose packages the venv sees: QGIS's own.

    Returns:
        The venv's interpreter.

    Raises:
        OSError, subprocess.CalledProcessError: if a step fails.
    """
    made = environment_python(folder)
    stamp = folder / "requirements.installed"
    # A venv does not outlive its Python: with QGIS's next one it must be made anew.
    version = f"# {python} {sys.version_info[0]}.{sys.version_info[1]}"
    wanted = "\n".join([version, *(path.read_text(encoding="utf-8") for path in requirements)])
    if made.is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return made
    venv = [str(python), "-m", "venv", "--system-site-packages", str(folder)]
    subprocess.run(venv, env=child_environ(), check=True)  # noqa: S603
    install = [str(made), "-m", "pip", "install", "--upgrade-strategy", "only-if-needed"]
    for path in requirements:
        install += ["-r", str(path)]
    subprocess.run(install, env=child_environ(), check=True)  # noqa: S603
    stamp.write_text(wanted, encoding="utf-8")
    return made


def is_first_process() -> bool:
    """Tell whether this process speaks for all that work on a job together; alone, it does.

    The variables are those of ``torchrun``, Lightning and SLURM.
    """
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if name in os.environ:
            return os.environ[name] == "0" and os.environ.get("NODE_RANK", "0") == "0"
    return True


def main(arguments: Sequence[str]) -> int:
    """Make the plugin's own environment, or the one in a given folder with given requirements."""
    package = Path(__file__).resolve().parents[1]
    folder = Path(arguments[0]) if arguments else profile_environment()
    requirements = [Path(name) for name in arguments[1:]] or [package / "requirements.txt"]
    python = own_python()
    if python is None:
        sys.stderr.write("No interpreter of this Python was found.\n")
        return 1
    try:
        made = make_environment(folder, requirements, python)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"The environment in {folder} could not be made: {error}\n")
        return 1
    sys.stdout.write(f"SpecDeepMap's Python: {made}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
