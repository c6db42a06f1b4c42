# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking at processes through Linux's ``/proc``: who descends from whom, who is a zombie, who holds what."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

PROC = Path("/proc")

linux = pytest.mark.skipif(not (PROC / "self" / "stat").exists(), reason="looks at processes in /proc")


@dataclass(frozen=True)
class Process:
    """A process as it was when it was looked at; a zombie has ended, but its parent has not taken notice."""

    number: int
    parent: int
    zombie: bool
    command: str


def processes() -> list[Process]:
    """Give all processes of this machine that can be looked at."""
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            command = os.fsdecode((entry / "cmdline").read_bytes()).replace("\0", " ").strip()
        except OSError:  # it has just ended
            continue
        found.append(Process(int(entry.name), int(parent), state == "Z", command))
    return found


def descendants(number: int) -> list[Process]:
    """Give the children of a process, theirs and so on, zombies included."""
    everyone, found, wanted = processes(), [], {number}
    while wanted:
        young = [process for process in everyone if process.parent in wanted]
        found += young
        wanted = {process.number for process in young}
    return found


def running(numbers: set[int]) -> set[int]:
    """Give those that still run; a zombie does not."""
    return {process.number for process in processes() if process.number in numbers and not process.zombie}


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    """Wait until something holds; whether it did in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
