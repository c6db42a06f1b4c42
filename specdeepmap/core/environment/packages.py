# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages of an environment: installed by its own pip, and by uv where PyTorch lies on a server of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from specdeepmap.core.environment.findings import read_requirements
from specdeepmap.core.environment.pip import PipReport
from specdeepmap.core.environment.search import child_environ, environment_python, site_packages
from specdeepmap.core.errors import EnvironmentMissingError
from specdeepmap.core.process import run_lines
from specdeepmap.core.progress import Progress

LOG = "install.log"
"""File in the environment with all that pip said."""

_PAIRED = ("numpy",)
"""Packages whose major version compiled ones of QGIS are bound to."""

_TORCH = ("torch", "torchvision")  # a matching pair, from one source


class Packages:
    """The packages of an environment.

    Args:
        folder: the environment.
        base: the interpreter that it was made from: QGIS's own.
    """

    def __init__(self, folder: Path, base: Path) -> None:
        self._folder, self._base = folder, base
        self._python = environment_python(folder)
        self._log = folder / LOG

    def install(self, what: Sequence[str], progress: Progress, build: str = "", must: bool = True) -> None:
        """Install with the environment's pip, held by the constraints.

        Args:
            what: arguments of ``pip install``.
            progress: hears of it, and may cancel.
            build: the build of PyTorch that comes with it; none where it is there already.
            must: whether it is an error if it fails.

        Raises:
            EnvironmentMissingError: if it fails and must not.
        """
        constraints = self._folder / "constraints.txt"
        constraints.write_text("".join(f"{line}\n" for line in self._constraints()), encoding="utf-8")
        pip = [str(self._python), "-m", "pip", "--no-input", "--disable-pip-version-check", "install"]
        raw = ["--progress-bar", "raw"] if self._pip_version() >= (24, 1) else []
        options = ["--upgrade-strategy", "only-if-needed", "-c", str(constraints)]
        report = PipReport(progress, self._folder, build) if must else None
        code, said = self.run([*pip, *raw, *options, *what], progress, report)
        if code != 0 and must:
            raise EnvironmentMissingError(
                f"pip could not install the packages: {last_words(said)} What it said stands in {self._log}. Is "
                "the internet within reach? Behind a proxy, set HTTPS_PROXY, or pip's own settings. What was installed "
                "stays; the next try goes on from there."
            )

    def install_torch(self, requirements: Sequence[Path], build: str, backend: str | None, progress: Progress) -> str:
        """Install the build of PyTorch that pip does not find by itself.

        Args:
            requirements: files that name torch among others.
            build: the build that is meant, see ``choose_build``.
            backend: uv's name for it; None where pip finds it.
            progress: hears of it, and may cancel.

        Returns:
            The build that was installed; ``ordinary`` where pip is going to.
        """
        if backend is None:
            return "ordinary"
        progress.report(0.0, "Looking for the build of PyTorch that suits this machine")
        self.install(["uv"], progress.part(0.0, 0.05), must=False)
        lines = (line for path in requirements for line in read_requirements(path))
        wanted = [line for line in lines if re.split(r"[^\w-]", line)[0] in _TORCH]
        command = [str(self._python), "-m", "uv", "pip", "install", "--python", str(self._python), "--no-deps"]
        code, _ = self.run([*command, f"--torch-backend={backend}", *wanted], progress.part(0.05, 1.0))
        if code == 0:
            return build
        kind = {"cpu": "small (processor only)", "nvidia": "NVIDIA"}[build]
        but = "It computes on the processor only." if sys.platform == "win32" else "It is larger and works as well."
        progress.warning(
            f"The {kind} build of PyTorch could not be fetched from PyTorch's server; the ordinary one is installed "
            f"instead. {but}"
        )
        return "ordinary"

    def run(self, command: Sequence[str], progress: Progress, report: PipReport | None = None) -> tuple[int, str]:
        """Run a command with its output in the log; give exit code and output.

        Raises:
            EnvironmentMissingError: if it cannot be started.
        """
        said: list[str] = []
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(command)}\n")

            def heard(line: str) -> None:
                if report is not None:
                    report.hear(line)
                if line and not line.startswith("Progress "):
                    said.append(line)
                    log.write(line + "\n")
                    log.flush()

            try:
                code = run_lines(command, _install_environ(), progress, heard)
            except OSError as error:
                raise EnvironmentMissingError(f"{command[0]} cannot be started: {error.strerror}.") from error
        return code, "\n".join(said)

    def _constraints(self) -> list[str]:
        """Hold packages of QGIS's Python to the major version that its compiled modules need."""
        ask = (
            "import importlib.metadata as m, json, sys\n"
            "found = {}\n"
            "for name in sys.argv[1:]:\n"
            "    try: found[name] = m.version(name)\n"
            "    except m.PackageNotFoundError: pass\n"
            "print(json.dumps(found))"
        )
        done = subprocess.run(  # noqa: S603
            [str(self._base), "-s", "-c", ask, *_PAIRED],
            env=child_environ(),
            capture_output=True,
            text=True,
            check=False,
        )
        found: dict[str, str] = json.loads(done.stdout) if done.returncode == 0 else {}
        return [f"{name}>={version},<{int(version.split('.')[0]) + 1}" for name, version in found.items()]

    def _pip_version(self) -> tuple[int, ...]:
        packages = (path.name for path in site_packages(self._folder).glob("pip-*.dist-info"))
        versions = (re.findall(r"\d+", name)[:2] for name in packages)
        return max((tuple(int(part) for part in version) for version in versions), default=(0,))


def _install_environ() -> dict[str, str]:
    """Give the environment of an installation: what would send packages elsewhere than into the venv is left out."""
    kept = child_environ()
    del kept["PYTHONPATH"]
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX"):
        kept.pop(name, None)
    return {**kept, "PIP_USER": "0", "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1", "PIP_REQUIRE_VIRTUALENV": "1"}


def last_words(said: str) -> str:
    """Give what a command ended with: its last line with an error, or its last."""
    lines = said.splitlines()
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or ["it said nothing."])[-1]
