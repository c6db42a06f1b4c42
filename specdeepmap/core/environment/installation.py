# SPDX-License-Identifier: GPL-3.0-or-later
"""The plugin's own environment: a venv that sees QGIS's packages and holds PyTorch.

QGIS's own packages are never touched: all is installed into the venv, and constraints keep the numpy that the GDAL
bindings of QGIS were compiled against. The stamp is written last; without it the environment counts as half installed.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from specdeepmap.core.environment.findings import REQUIREMENTS, Findings, examine, read_requirements
from specdeepmap.core.environment.machine import NEEDED_GB, choose_build, graphics_cards, uv_backend
from specdeepmap.core.environment.pip import PipReport
from specdeepmap.core.environment.search import (
    STAMP,
    TORCH_MODULES,
    child_environ,
    choice_file,
    chosen_python,
    environment_python,
    own_python,
    profile_environment,
    site_packages,
)
from specdeepmap.core.errors import EnvironmentMissingError
from specdeepmap.core.process import run_lines
from specdeepmap.core.progress import Progress

STATES = {
    "none": "not set up",
    "half": "half installed",
    "outdated": "made for an earlier version of the plugin or of QGIS",
    "ready": "set up",
}
"""What an environment can be, and how to say it."""

_PAIRED = ("numpy",)
"""Packages whose major version compiled ones of QGIS are bound to."""

_TORCH = ("torch", "torchvision")  # a matching pair, from one source
_LOG = "install.log"


class Installation:
    """An environment in a folder, whether it is there already or not.

    Args:
        folder: the venv's folder; the plugin's own where not given.
        requirements: what it shall hold, in pip's format.
        python: the interpreter whose packages it sees: QGIS's own.
        modules: what it must be able to import to count as whole.
    """

    def __init__(
        self,
        folder: Path | None = None,
        requirements: Sequence[Path] = (REQUIREMENTS,),
        python: Path | None = None,
        modules: Sequence[str] = TORCH_MODULES,
    ) -> None:
        self.folder = (folder or profile_environment()).absolute()
        self.requirements = tuple(requirements)
        self.modules = tuple(modules)
        self._base = python or own_python()

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return environment_python(self.folder)

    @property
    def log(self) -> Path:
        """The file with all that pip said."""
        return self.folder / _LOG

    @property
    def state(self) -> str:
        """One of ``STATES``."""
        if not self.python.is_file():
            return "half" if self._contents() else "none"
        try:
            found = (self.folder / STAMP).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return "half"
        return "ready" if found == self._wanted() else "outdated"

    def install(self, progress: Progress, build: str = "auto") -> Findings:
        """Make what is missing of it; nothing where it is ready.

        Args:
            progress: hears what is done, and may cancel.
            build: the build of PyTorch, one of ``BUILDS``.

        Raises:
            Canceled: if the progress was canceled; the next ``install`` goes on from there.
            EnvironmentMissingError: if it could not be made, with what to do.
        """
        if self.state == "ready":
            progress.info(f"The environment in {self.folder} is ready.")
            return self.examine()
        if self._base is None:
            raise EnvironmentMissingError("QGIS's Python was not found, so that no environment can be made from it.")
        if self.state == "outdated" and not self._same_python():
            progress.info("It was made from another Python; it is made anew.")
            self.remove(progress)
        has_card = bool(graphics_cards())
        build = choose_build(build, has_card)
        if self.state == "none":
            self._check_space(build)  # of a half installed one, part is there
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log.write_text("", encoding="utf-8")
        (self.folder / STAMP).unlink(missing_ok=True)
        progress.report(0.0, "Making the environment")
        self._make_venv(progress)
        progress.report(0.02, "Bringing pip up to date")
        self._pip(progress.part(0.02, 0.04), ["--upgrade", "pip"], must=False)
        build = self._install_torch(progress.part(0.04, 0.5), uv_backend(build, has_card), build)
        wanted = [part for path in self.requirements for part in ("-r", str(path))]
        start = 0.5 if build in ("cpu", "nvidia") else 0.04
        self._pip(progress.part(start, 0.93), wanted, build)
        progress.report(0.93, "Checking: importing PyTorch and the others for the first time")
        findings = self.examine()
        if not findings.ready:
            raise EnvironmentMissingError(
                f"The environment in {self.folder} was installed but does not work: {' '.join(findings.problems)} "
                f"Repair it, which makes it anew; what pip said stands in {self.log}."
            )
        (self.folder / STAMP).write_text(self._wanted(), encoding="utf-8")
        progress.report(1.0, "Ready")
        return findings

    def examine(self) -> Findings:
        """See whether it can do what it is for."""
        return examine(self.python, self.modules, self.requirements)

    def repair(self, progress: Progress, build: str = "auto") -> Findings:
        """Make it anew from nothing; what pip has in its cache is not downloaded again."""
        self.remove(progress)
        return self.install(progress, build)

    def remove(self, progress: Progress) -> None:
        """Remove it.

        Raises:
            EnvironmentMissingError: if the folder is no venv, or files are in use.
        """
        if not self.folder.exists():
            return
        if self._contents() and not (self.folder / "pyvenv.cfg").is_file():
            raise EnvironmentMissingError(
                f"{self.folder} is not an environment that was made here, and was left as it is."
            )
        progress.info(f"Removing {self.folder}")
        (self.folder / STAMP).unlink(missing_ok=True)  # a half removed one must not pass for whole
        try:
            shutil.rmtree(self.folder)
        except OSError as error:
            raise EnvironmentMissingError(
                f"{self.folder} could not be removed ({error.strerror}: {error.filename}). Close what uses it, "
                "trainings and TensorBoard first, and try again."
            ) from error

    def _contents(self) -> set[str]:
        """Name what lies in the folder, besides the log."""
        return {path.name for path in self.folder.iterdir()} - {_LOG} if self.folder.is_dir() else set()

    def _wanted(self) -> str:
        """Give what the stamp of a whole environment says: a venv does not outlive its Python."""
        texts = (path.read_text(encoding="utf-8") for path in self.requirements)
        return "\n".join([self._python_line(), *texts])

    def _python_line(self) -> str:
        return f"# {self._base} {sys.version_info[0]}.{sys.version_info[1]}"

    def _same_python(self) -> bool:
        return (self.folder / STAMP).read_text(encoding="utf-8").splitlines()[:1] == [self._python_line()]

    def _check_space(self, build: str) -> None:
        """Refuse to begin what the disk cannot hold.

        Raises:
            EnvironmentMissingError: if there is too little room.
        """
        place = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        free, needed = shutil.disk_usage(place).free / 1e9, NEEDED_GB[build]
        if free < needed:
            raise EnvironmentMissingError(
                f"The environment needs {needed:g} GB in {self.folder}, and {free:.1f} GB are free. Make room there, "
                "or choose the build for the processor only, or an existing Python elsewhere."
            )

    def _make_venv(self, progress: Progress) -> None:
        code, said = self._run([str(self._base), "-m", "venv", "--system-site-packages", str(self.folder)], progress)
        if code == 0:
            return
        if "ensurepip" in said:
            raise EnvironmentMissingError(
                f"{self._base} cannot make environments: its module venv is not complete. On Debian and Ubuntu, "
                "install the package python3-venv, then try again."
            )
        raise EnvironmentMissingError(f"The environment in {self.folder} could not be made: {_last(said)}")

    def _install_torch(self, progress: Progress, backend: str | None, build: str) -> str:
        """Install the build of PyTorch that pip does not find by itself; give the build that was installed."""
        if backend is None:
            return "ordinary"
        progress.report(0.0, "Looking for the build of PyTorch that suits this machine")
        self._pip(progress.part(0.0, 0.05), ["uv"], must=False)
        lines = (line for path in self.requirements for line in read_requirements(path))
        wanted = [line for line in lines if re.split(r"[^\w-]", line)[0] in _TORCH]
        command = [str(self.python), "-m", "uv", "pip", "install", "--python", str(self.python), "--no-deps"]
        code, _ = self._run([*command, f"--torch-backend={backend}", *wanted], progress.part(0.05, 1.0))
        if code == 0:
            return build
        kind = {"cpu": "only-processor", "nvidia": "NVIDIA"}[build]
        progress.warning(
            f"The {kind} build of PyTorch could not be fetched from PyTorch's server; the ordinary one is installed "
            "instead."
            + (
                " It computes on the processor only."
                if sys.platform == "win32"
                else " It is larger, and works as well."
            )
        )
        self._check_space("ordinary")
        return "ordinary"

    def _pip(self, progress: Progress, what: Sequence[str], build: str = "", must: bool = True) -> None:
        """Install with the environment's pip, held by the constraints.

        Raises:
            EnvironmentMissingError: if it fails and ``must`` not.
        """
        constraints = self.folder / "constraints.txt"
        constraints.write_text("".join(f"{line}\n" for line in self._constraints()), encoding="utf-8")
        pip = [str(self.python), "-m", "pip", "--no-input", "--disable-pip-version-check", "install"]
        raw = ["--progress-bar", "raw"] if self._pip_version() >= (24, 1) else []
        options = ["--upgrade-strategy", "only-if-needed", "-c", str(constraints)]
        report = PipReport(progress, self.folder, build) if must else None
        code, said = self._run([*pip, *raw, *options, *what], progress, report)
        if code != 0 and must:
            raise EnvironmentMissingError(
                f"pip could not install the packages: {_last(said)} What it said stands in {self.log}. Is the internet "
                "within reach? Behind a proxy, set HTTPS_PROXY, or pip's own settings. What was installed stays; "
                "the next try goes on from there."
            )

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
        packages = (path.name for path in site_packages(self.folder).glob("pip-*.dist-info"))
        versions = (re.findall(r"\d+", name)[:2] for name in packages)
        return max((tuple(int(part) for part in version) for version in versions), default=(0,))

    def _run(self, command: Sequence[str], progress: Progress, report: PipReport | None = None) -> tuple[int, str]:
        """Run a command with its output in the log; give exit code and output.

        Raises:
            EnvironmentMissingError: if it cannot be started.
        """
        said: list[str] = []
        with self.log.open("a", encoding="utf-8") as log:
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


def choose(python: Path) -> Findings:
    """Have an existing Python used from now on instead of the plugin's own environment.

    Raises:
        EnvironmentMissingError: if it lacks something; nothing is changed then.
    """
    found = Path(shutil.which(str(python)) or python).absolute()
    if found.is_dir():  # a venv's, or conda's, folder
        inside = (environment_python(found), found / "python.exe")
        found = next((path for path in inside if path.is_file()), found)
    findings = examine(found)
    if not findings.ready:
        raise EnvironmentMissingError(
            f"{found} cannot be used: {' '.join(findings.problems)} Install what is missing there, from "
            f"{REQUIREMENTS}, or choose another Python."
        )
    file = choice_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(f"{found}\n", encoding="utf-8")
    part.replace(file)
    return findings


def forget_choice() -> Path | None:
    """Use the plugin's own environment again; give the Python that had been chosen."""
    chosen = chosen_python()
    choice_file().unlink(missing_ok=True)
    return chosen


def _install_environ() -> dict[str, str]:
    """Give the environment of an installation: what would send packages elsewhere than into the venv is left out."""
    kept = child_environ()
    del kept["PYTHONPATH"]
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX"):
        kept.pop(name, None)
    return {**kept, "PIP_USER": "0", "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1", "PIP_REQUIRE_VIRTUALENV": "1"}


def _last(said: str) -> str:
    """Give what a command ended with: its last line with an error, or its last."""
    lines = said.splitlines()
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or ["it said nothing."])[-1]
