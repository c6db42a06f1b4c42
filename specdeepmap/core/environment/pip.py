# SPDX-License-Identifier: GPL-3.0-or-later
"""What pip says while it installs, turned into progress."""

from __future__ import annotations

import re
from pathlib import Path

from specdeepmap.core.environment.search import site_packages
from specdeepmap.core.progress import Progress

_DOWNLOAD_BYTES = {"ordinary": 3.4e9, "nvidia": 0.15e9, "cpu": 0.15e9, "": 5e6}
"""What there is to download in all, roughly: with a build of its own, PyTorch is there already."""

_DOWNLOADS, _UNPACKS = 0.75, 1.0  # where these phases end, of the whole

_LOADING = re.compile(r"\s*Downloading (\S+) \(([^)]*)\)")
_BYTES = re.compile(r"Progress (\d+) of (\d+)")


class PipReport:
    """Listen to pip, line by line, and report.

    pip says how many bytes of a file have come (with ``--progress-bar raw``), but nothing while it unpacks: there the
    packages that have arrived in the environment are counted.

    Args:
        progress: told of each file and of the share done.
        folder: the environment.
        build: the build of PyTorch, which says how much there is to download.
    """

    def __init__(self, progress: Progress, folder: Path, build: str) -> None:
        self._progress, self._folder = progress, folder
        self._expected = _DOWNLOAD_BYTES[build]
        self._before, self._file, self._size = 0, "", ""
        self._current = 0
        self._unpacking, self._there = 0, 0

    def hear(self, line: str) -> None:
        """Take a line of pip's; ``""`` for a moment of silence."""
        if loading := _LOADING.match(line):
            self._before, self._current = self._before + self._current, 0
            self._file, self._size = loading[1].rpartition("/")[2].split("-")[0], loading[2]
            self._progress.report(self._downloaded(), f"Downloading {self._file} ({self._size})")
        elif come := _BYTES.match(line):
            self._current = int(come[1])
            self._progress.report(self._downloaded())
        elif line.startswith(("Collecting ", "Processing ")):
            self._progress.report(self._downloaded(), line.split(" (from")[0])
        elif line.startswith("Installing collected packages:"):
            self._unpacking, self._there = line.count(",") + 1, self._packages()
            self._progress.report(_DOWNLOADS, f"Unpacking {self._unpacking} packages")
        elif self._unpacking and not line:
            share = min((self._packages() - self._there) / self._unpacking, 1)
            self._progress.report(_DOWNLOADS + share * (_UNPACKS - _DOWNLOADS))
        elif line.startswith(("ERROR", "WARNING: Retrying")):
            self._progress.warning(line)

    def _downloaded(self) -> float:
        return min((self._before + self._current) / self._expected, 1) * _DOWNLOADS

    def _packages(self) -> int:
        """Count the packages in the environment."""
        return sum(1 for _ in site_packages(self._folder).glob("*.dist-info"))
