# SPDX-License-Identifier: GPL-3.0-or-later
"""What all benchmarks share: a row per measurement, printed as a table and kept as JSON and as a figure.

``ratio`` is always *larger is better*: limit / ours for times and sizes, ours / limit for rates. ``goal`` is its
lower bound.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import matplotlib as mpl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
mpl.use("Agg")

import matplotlib.pyplot as plt

from specdeepmap.core.environment.machine import graphics_cards

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


def machine() -> dict[str, str]:
    """Say what was measured on: processor, graphics card, and versions of what computes."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    found = {
        "processor": f"{models[0] if models else platform.processor()}, {os.cpu_count()} cores",
        "system": platform.system(),
        "python": platform.python_version(),
    }
    for package in ("numpy", "gdal", "torch", "segmentation-models-pytorch", "lightning"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    if cards := graphics_cards():
        found["graphics cards"] = "; ".join(cards)
    return found


def draw(rows: list[Row], name: str) -> None:
    """Draw each ratio as a bar beside its goal, into ``benchmarks/out/<name>.png``."""
    import matplotlib as mpl  # here, since processes whose memory is measured import this module, too

    mpl.use("Agg")

    figure, axes = plt.subplots(figsize=(8, 0.45 * len(rows) + 1.2), layout="constrained")
    places = range(len(rows))
    colors = ["#009e73" if row.ratio >= row.goal else "#d55e00" for row in rows]
    axes.barh(places, [row.ratio for row in rows], color=colors, height=0.6)
    for place, row in zip(places, rows, strict=True):
        axes.plot([row.goal, row.goal], [place - 0.4, place + 0.4], color="black", linewidth=2)
        axes.text(row.ratio, place, f" {row.ratio:.2f}", va="center")
    axes.set_yticks(places, [row.name for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("ratio to the limit measured in the same run, larger is better; black: goal")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(OUT / f"{name}.png", dpi=110)
    plt.close(figure)


def show(rows: list[Row], name: str) -> None:
    """Print a table and write it, with the machine, to ``benchmarks/out/<name>.json`` and ``.png``."""
    sys.stdout.write(f"\n{'name':<18}{'ours':>12}{'limit':>12}  {'unit':<12}{'ratio':>8}{'goal':>8}\n")
    for row in rows:
        mark = "" if row.ratio >= row.goal else "  below the goal"
        sys.stdout.write(
            f"{row.name:<18}{row.ours:>12.4g}{row.limit:>12.4g}  {row.unit:<12}"
            f"{row.ratio:>8.2f}{row.goal:>8.2f}{mark}\n"
        )
    OUT.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}, indent=2)
    (OUT / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    draw(rows, name)
