# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of what pip says, turned into progress."""

from __future__ import annotations

from pathlib import Path

from specdeepmap.core.environment.pip import PipReport
from specdeepmap.core.environment.search import site_packages
from tests.helpers import Recorder


class Listener(Recorder):
    """Remembers what is being done, too."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def _show(self, share: float, text: str) -> None:
        super()._show(share, text)
        self.texts += [text] if text else []


def test_downloads_then_packages_that_arrive(tmp_path: Path) -> None:
    folder = tmp_path / "lib" / "python3.11" / "site-packages"
    folder.mkdir(parents=True)
    assert site_packages(tmp_path) == folder
    progress = Listener()
    report = PipReport(progress, tmp_path, "ordinary")
    for line in (
        "Collecting torch>=2.6 (from -r requirements.txt (line 9))",
        "  Downloading https://somewhere/torch-2.9.0-cp311-cp311-linux_x86_64.whl (900.0 MB)",
        "Progress 0 of 900000000",
        "Progress 900000000 of 900000000",
        "  Downloading nvidia_cublas-13.1-py3-none-any.whl (600.0 MB)",
        "Progress 300000000 of 600000000",
    ):
        report.hear(line)
    assert progress.texts == [
        "Collecting torch>=2.6",
        "Downloading torch (900.0 MB)",
        "Downloading nvidia_cublas (600.0 MB)",
    ]
    downloaded = progress.shares[-1]
    assert 0.2 < downloaded < 0.4
    report.hear("Installing collected packages: torch, nvidia_cublas")
    for name in ("torch", "nvidia_cublas"):
        (folder / f"{name}-1.dist-info").mkdir()
        report.hear("")
    assert progress.shares == sorted(progress.shares)
    assert progress.shares[-2:] == [0.875, 1.0]


def test_errors_are_warnings() -> None:
    progress = Recorder()
    PipReport(progress, Path(), "").hear("ERROR: no matching distribution")
    assert progress.warnings == ["ERROR: no matching distribution"]
