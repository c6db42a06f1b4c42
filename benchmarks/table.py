# SPDX-License-Identifier: GPL-3.0-or-later
"""What all benchmarks share: a row per measurement, printed as a table and kept as JSON.

``ratio`` is always *larger is better*: limit / ours for times and sizes, ours / limit for rates. ``goal`` is its
lower bound.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

OUT = Path(__file__).parent / "out"


@dataclass(frozen=True)
class Row:
    """One measurement beside its limit, measured in the same run."""

    name: str
    ours: float
    limit: float
    unit: str
    ratio: float
    goal: float

    @classmethod
    def rate(cls, name: str, ours: float, limit: float, unit: str, goal: float) -> Row:
        """Compare rates: more is better."""
        return cls(name, ours, limit, unit, ours / limit, goal)

    @classmethod
    def cost(cls, name: str, ours: float, limit: float, unit: str, goal: float) -> Row:
        """Compare times, sizes or errors: less is better."""
        return cls(name, ours, limit, unit, limit / ours if ours else float("inf"), goal)


def peak_memory() -> int:
    """Give the largest memory of this process so far, in kilobytes; on Linux.

    ``getrusage`` would count what the process was before it became this program: a copy of its parent.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def show(rows: list[Row], name: str) -> None:
    """Print a table and write ``benchmarks/out/<name>.json``."""
    sys.stdout.write(f"\n{'name':<18}{'ours':>12}{'limit':>12}  {'unit':<12}{'ratio':>8}{'goal':>8}\n")
    for row in rows:
        mark = "" if row.ratio >= row.goal else "  below the goal"
        sys.stdout.write(
            f"{row.name:<18}{row.ours:>12.4g}{row.limit:>12.4g}  {row.unit:<12}"
            f"{row.ratio:>8.2f}{row.goal:>8.2f}{mark}\n"
        )
    OUT.mkdir(exist_ok=True)
    text = json.dumps([asdict(row) for row in rows], indent=2)
    (OUT / f"{name}.json").write_text(text + "\n", encoding="utf-8")
