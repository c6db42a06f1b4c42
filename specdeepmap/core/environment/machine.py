# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine: its graphics card, and the build of PyTorch that suits it.

PyTorch comes in builds for processors and for graphics cards. What pip finds by itself differs: on Linux the build for
NVIDIA cards (large, and works without one), on Windows the one for processors, on macOS one for both. The others lie on
PyTorch's own servers, which uv knows (https://docs.astral.sh/uv/guides/integration/pytorch/).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

BUILDS: dict[str, str] = {
    "auto": "Automatic: what this machine has",
    "nvidia": "For an NVIDIA graphics card",
    "cpu": "For the processor only (smallest)",
    "ordinary": "What pip finds by itself",
}
"""The builds of PyTorch that can be chosen, and their titles."""

NEEDED_GB = {"ordinary": 7.5, "nvidia": 7.5, "cpu": 2.5}
"""Disk space to install a build with all packages, in gigabytes: measured, with a little room."""


def graphics_cards() -> tuple[str, ...]:
    """Name the NVIDIA cards that the driver knows, with the driver's version; empty where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None and sys.platform == "win32":
        beside = Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32" / "nvidia-smi.exe"
        program = str(beside) if beside.is_file() else None
    if program is None:
        return ()
    command = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in answer.stdout.splitlines() if line.strip())


def choose_build(build: str, has_card: bool, platform: str = sys.platform) -> str:
    """Give the build that is meant: ``nvidia``, ``cpu`` or ``ordinary``; never ``auto``.

    Args:
        build: one of ``BUILDS``.
        has_card: whether there is an NVIDIA card.
        platform: ``sys.platform``.
    """
    if build == "auto":
        build = "nvidia" if has_card else "cpu"
    if platform == "darwin" or (platform == "win32" and build == "cpu"):
        return "ordinary"  # it is the one that was asked for
    if build == "nvidia" and not has_card and platform != "win32":
        return "ordinary"  # it is the one for NVIDIA cards, and no driver says which version
    return build


def uv_backend(build: str, has_card: bool) -> str | None:
    """Give uv's name for a build; None where pip finds it by itself.

    Without a card, as on the login node of a cluster, a version must be named: one that drivers since 2024 run.
    """
    if build == "cpu":
        return "cpu"
    if build == "nvidia":
        return "auto" if has_card else "cu126"
    return None
