# SPDX-License-Identifier: GPL-3.0-or-later
"""The plugin's own environment: a venv that sees QGIS's packages and holds PyTorch.

QGIS's own packages are never touched: all is installed into the venv, and constraints keep the numpy that the GDAL
bindings of QGIS were compiled against. The stamp is written last; without it the environment counts as half installed.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from specdeepmap.core.environment.findings import REQUIREMENTS, Findings, examine
from specdeepmap.core.environment.machine import NEEDED_GB, choose_build, graphics_cards, uv_backend
from specdeepmap.core.environment.packages import LOG, Packages, last_words
from specdeepmap.core.environment.search import (
    STAMP,
    TORCH_MODULES,
    environment_python,
    own_python,
    profile_environment,
)
from specdeepmap.core.errors import EnvironmentMissingError
from specdeepmap.core.progress import Progress

STATES = {
    "none": "not set up",
    "half": "half installed",
    "outdated": "made for an earlier version of the plugin or of QGIS",
    "ready": "set up",
}
"""What an environment can be, and how to say it."""


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
        return self.folder / LOG

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
            return self.examine(progress.check)
        if self._base is None:
            raise EnvironmentMissingError("QGIS's Python was not found, so that no environment can be made from it.")
        if self._is_foreign():
            raise EnvironmentMissingError(
                f"{self.folder} holds files of others, and was left as it is. Name an empty folder, or one that does "
                "not exist yet."
            )
        if self.state == "outdated" and not self._same_python():
            progress.info("It was made from another Python; it is made anew.")
            self.remove(progress)
        has_card = bool(graphics_cards())
        build = choose_build(build, has_card)
        if self.state == "none":
            self._check_space(build)  # of a half installed one, part is there
        self._make_folder()
        self.log.write_text("", encoding="utf-8")
        (self.folder / STAMP).unlink(missing_ok=True)
        progress.report(0.0, "Making the environment")
        packages = Packages(self.folder, self._base)
        self._make_venv(packages, progress)
        progress.report(0.02, "Bringing pip up to date")
        packages.install(["--upgrade", "pip"], progress.part(0.02, 0.04), must=False)
        backend = uv_backend(build, has_card)
        build = packages.install_torch(self.requirements, build, backend, progress.part(0.04, 0.5))
        wanted = [part for path in self.requirements for part in ("-r", str(path))]
        start = 0.5 if build in ("cpu", "nvidia") else 0.04
        packages.install(wanted, progress.part(start, 0.93), build)
        progress.report(0.93, "Checking: importing PyTorch and the others for the first time")
        findings = self.examine(progress.check)
        if not findings.ready:
            raise EnvironmentMissingError(
                f"The environment in {self.folder} was installed but does not work: {' '.join(findings.problems)} "
                f"Repair it, which makes it anew; what pip said stands in {self.log}."
            )
        (self.folder / STAMP).write_text(self._wanted(), encoding="utf-8")
        progress.report(1.0, "Ready")
        return findings

    def examine(self, check: Callable[[], None] | None = None) -> Findings:
        """See whether it can do what it is for; ``check`` is called meanwhile, and may raise to give up."""
        return examine(self.python, self.modules, self.requirements, check)

    def repair(self, progress: Progress, build: str = "auto") -> Findings:
        """Make it anew from nothing; what pip has in its cache is not downloaded again."""
        self.remove(progress)
        return self.install(progress, build)

    def remove(self, progress: Progress) -> None:
        """Remove it. Of a link to a folder elsewhere, such as one on a larger disk, the empty folder stays.

        Raises:
            EnvironmentMissingError: if the folder is no venv, or files are in use.
        """
        if not self.folder.exists():
            return
        if self._is_foreign():
            raise EnvironmentMissingError(
                f"{self.folder} is not an environment that was made here, and was left as it is."
            )
        progress.info(f"Removing {self.folder}")
        (self.folder / STAMP).unlink(missing_ok=True)  # a half removed one must not pass for whole
        try:
            for path in self.folder.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            if not self.folder.is_symlink():
                self.folder.rmdir()
        except OSError as error:
            raise EnvironmentMissingError(
                f"{self.folder} could not be removed ({error.strerror}: {error.filename}). Close what uses it, "
                "trainings and TensorBoard first, and try again."
            ) from error

    def _contents(self) -> set[str]:
        """Name what lies in the folder, besides the log."""
        return {path.name for path in self.folder.iterdir()} - {LOG} if self.folder.is_dir() else set()

    def _is_foreign(self) -> bool:
        """Tell whether the folder holds files and is no venv; one that was begun may be made of folders only."""
        if not self._contents() or (self.folder / "pyvenv.cfg").is_file():
            return False
        return any(not path.is_dir() for path in self.folder.rglob("*") if path.name != LOG)

    def _make_folder(self) -> None:
        """Make the folder, where it is not there.

        Raises:
            EnvironmentMissingError: if that is not possible.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            where = f", a link to {self.folder.readlink()}" if self.folder.is_symlink() else ""
            raise EnvironmentMissingError(
                f"{self.folder}{where}, cannot be made ({error.strerror}). Is its disk there, and may you write to it?"
            ) from error

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

    def _make_venv(self, packages: Packages, progress: Progress) -> None:
        folder = str(self.folder.resolve())  # venv takes no link
        code, said = packages.run([str(self._base), "-m", "venv", "--system-site-packages", folder], progress)
        if code == 0:
            return
        if "ensurepip" in said:
            raise EnvironmentMissingError(
                f"{self._base} cannot make environments: its module venv is not complete. On Debian and Ubuntu, "
                "install the package python3-venv, then try again."
            )
        raise EnvironmentMissingError(f"The environment in {self.folder} could not be made: {last_words(said)}")
