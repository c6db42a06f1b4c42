# SPDX-License-Identifier: GPL-3.0-or-later
"""The doors between the rooms: who may import what, read from the source texts without running them.

The tables ``ROOMS``, ``DOORS`` and ``LOADS`` hold the rules; the rest of this file applies them. An import
under ``if TYPE_CHECKING:`` is no import. One inside a function happens at call, every other one at load.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "specdeepmap"

TORCH = (
    "torch",
    "torchvision",
    "torchmetrics",
    "lightning",
    "pytorch_lightning",
    "segmentation_models_pytorch",
    "timm",
    "safetensors",
    "tensorboard",
)
GDAL = ("osgeo", "osgeo_utils")
QGIS = ("qgis", "processing", "enmapbox")

ABOVE = ("algorithms", "gui", "provider", "plugin", "enmapbox")

BASEMENT = ("errors", "progress", "process", "environment", "record", "staging")
ROOMS = (("", *BASEMENT, "report"), ("data",), ("learn",), ("jobs",), ("tasks",), ("run",), ("__main__",))
"""The rooms of ``specdeepmap.core``, by the names in it; each imports from itself and those before it."""

TABLES = tuple(
    f"specdeepmap.core.learn.{name}" for name in ("architectures", "augmentations", "losses", "options", "weights")
)
"""The modules of the learning room that a dialog reads its options from."""


@dataclass(frozen=True)
class Door:
    """Modules, and what they must not import; every name stands for all that lies under it, too."""

    why: str
    of: tuple[str, ...]
    never: tuple[str, ...]
    but: tuple[str, ...] = ()  # those of the modules that may
    fine: tuple[str, ...] = ()  # what they may import nevertheless
    at_load_only: bool = False  # inside functions it is fine


DOORS = (
    Door(
        "core knows neither QGIS nor what stands above it",
        of=("specdeepmap.core",),
        never=(*QGIS, *(f"specdeepmap.{name}" for name in ABOVE)),
    ),
    Door(
        "torch belongs to the learning room and the tasks",
        of=("specdeepmap",),
        never=TORCH,
        but=("specdeepmap.core.learn", "specdeepmap.core.tasks"),
    ),
    Door(
        "GDAL and pandas appear in the data room only; __main__ switches GDAL's exceptions on, probe tries it out",
        of=("specdeepmap",),
        never=(*GDAL, "pandas"),
        but=("specdeepmap.core.data", "specdeepmap.core.__main__", "specdeepmap.core.environment.probe"),
    ),
    Door(
        "a job takes from the learning room its option tables only",
        of=("specdeepmap.core.jobs",),
        never=("specdeepmap.core.learn",),
        fine=TABLES,
    ),
    Door(
        "only run and __main__ start tasks",
        of=("specdeepmap",),
        never=("specdeepmap.core.tasks",),
        but=("specdeepmap.core.tasks", "specdeepmap.core.run", "specdeepmap.core.__main__"),
    ),
    Door(
        "run and __main__ import tasks inside functions",
        of=("specdeepmap.core.run", "specdeepmap.core.__main__"),
        never=("specdeepmap.core.tasks",),
        at_load_only=True,
    ),
    Door(
        "only the provider imports algorithms",
        of=("specdeepmap",),
        never=("specdeepmap.algorithms",),
        but=("specdeepmap.provider", "specdeepmap.algorithms"),
    ),
    Door(
        "an algorithm knows jobs, run, classes and option tables, and computes nothing",
        of=("specdeepmap.algorithms",),
        never=("specdeepmap.core",),
        fine=(
            "specdeepmap.core.run",
            "specdeepmap.core.jobs",
            "specdeepmap.core.data.classes",
            "specdeepmap.core.data.options",
            *(f"specdeepmap.core.{name}" for name in BASEMENT),
            *TABLES,
        ),
    ),
    Door(
        "the plugin and EnMAP-Box's menu open windows, nobody else",
        of=("specdeepmap",),
        never=("specdeepmap.gui",),
        but=("specdeepmap.plugin", "specdeepmap.enmapbox", "specdeepmap.gui"),
    ),
    Door(
        "a window knows the basement only",
        of=("specdeepmap.gui",),
        never=("specdeepmap.core", "specdeepmap.algorithms", "specdeepmap.provider"),
        fine=tuple(f"specdeepmap.core.{name}" for name in BASEMENT),
    ),
    Door(
        "only enmapbox.py imports EnMAP-Box",
        of=("specdeepmap",),
        never=("enmapbox",),
        but=("specdeepmap.enmapbox",),
    ),
    Door(
        "enmapbox.py is loaded by EnMAP-Box, never by ours",
        of=("specdeepmap",),
        never=("specdeepmap.enmapbox",),
        at_load_only=True,
    ),
)


@dataclass(frozen=True)
class Load:
    """Modules, and what must not be loaded with them, on whatever path."""

    why: str
    of: tuple[str, ...]
    never: tuple[str, ...]


LOADS = (
    Load(
        "import specdeepmap needs the standard library only",
        ("specdeepmap",),
        (*QGIS, *GDAL, *TORCH, "numpy"),
    ),
    Load("a dialog lists its options on a stock QGIS", TABLES, (*GDAL, *TORCH, "pandas")),
    Load(
        "QGIS starts fast and never loads torch",
        ("specdeepmap.provider", "specdeepmap.core.jobs", "specdeepmap.core.run"),
        (*GDAL, *TORCH, "pandas"),
    ),
    Load(
        "tester and mapper start without Lightning, which takes half a second",
        ("specdeepmap.core.tasks.evaluate", "specdeepmap.core.tasks.predict"),
        ("lightning", "pytorch_lightning", "tensorboard"),
    ),
)


@dataclass(frozen=True)
class Import:
    """One import: ``target`` is the full dotted name, with the imported name where there is one."""

    module: str
    line: int
    target: str
    at_load: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


House = Mapping[str, "list[Import]"]


class _Reader(ast.NodeVisitor):
    """Collects the imports of one module."""

    def __init__(self, module: str, is_package: bool) -> None:
        self.module = module
        self.parents = [*module.split("."), "__init__"] if is_package else module.split(".")
        self.depth = 0
        self.imports: list[Import] = []

    def add(self, node: ast.AST, target: str) -> None:
        self.imports.append(Import(self.module, getattr(node, "lineno", 0), target, self.depth == 0))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.add(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = [*self.parents[: -node.level]] if node.level else []
        base += [node.module] if node.module else []
        for alias in node.names:
            self.add(node, ".".join(base if alias.name == "*" else [*base, alias.name]))

    def visit_Call(self, node: ast.Call) -> None:
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        first = node.args[0] if node.args else None
        if name in ("import_module", "__import__") and isinstance(first, ast.Constant):
            self.add(node, str(first.value))
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        name = getattr(node.test, "attr", getattr(node.test, "id", ""))
        for child in node.orelse if name == "TYPE_CHECKING" else [node.test, *node.body, *node.orelse]:
            self.visit(child)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.visit_FunctionDef(node)


def read_imports(module: str, source: str, is_package: bool = False) -> list[Import]:
    reader = _Reader(module, is_package)
    reader.visit(ast.parse(source))
    return reader.imports


def read_house(package: Path) -> House:
    house = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        house[module] = read_imports(module, path.read_text(encoding="utf-8"), is_package)
    return house


def within(name: str, rooms: tuple[str, ...]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def crossings(house: House, door: Door) -> list[str]:
    """List the imports that a door forbids."""
    return [
        str(entry)
        for module, imports in house.items()
        if within(module, door.of) and not within(module, door.but)
        for entry in imports
        if within(entry.target, door.never) and not within(entry.target, door.fine)
        if entry.at_load or not door.at_load_only
    ]


def loaded(house: House, root: str) -> Iterator[tuple[Import, str]]:
    """Walk through all that loading a module and its packages imports, each with the way there."""
    ways = {name: name for name in with_packages(house, root)}
    waiting = list(ways)
    while waiting:
        module = waiting.pop(0)
        for entry in house[module]:
            if entry.at_load:
                yield entry, ways[module]
                for name in with_packages(house, entry.target):
                    if name not in ways:
                        ways[name] = f"{ways[module]} → {name}"
                        waiting.append(name)


def with_packages(house: House, target: str) -> list[str]:
    """Name the modules that importing a dotted name loads: each package on the way, and itself."""
    parts = target.split(".")
    names = [".".join(parts[: end + 1]) for end in range(len(parts))]
    return [name for name in names if name in house]


def burdens(house: House, root: str, never: tuple[str, ...]) -> list[str]:
    """List the imports that must not be loaded with a module."""
    return [f"{way}: {entry}" for entry, way in loaded(house, root) if within(entry.target, never)]


def room(name: str) -> int | None:
    """Number the room of a name under ``specdeepmap.core``; None where it has none."""
    parts = name.split(".")
    own = parts[2] if len(parts) > 2 else ""
    return next((number for number, names in enumerate(ROOMS) if own in names), None)


def wrong_ways(house: House) -> list[str]:
    """List the imports from a later room, and the modules without a room."""
    found = []
    for module, imports in house.items():
        if not within(module, ("specdeepmap.core",)):
            continue
        here = room(module)
        if here is None:
            found.append(f"{module} stands in no room: give it one in ROOMS")
            continue
        for entry in imports:
            there = room(entry.target) if within(entry.target, ("specdeepmap.core",)) else 0
            if there is None or there > here:
                found.append(str(entry))
    return found


@pytest.fixture(scope="module")
def house() -> House:
    found = read_house(PACKAGE)
    assert len(found) > 30
    return found


def test_rooms_have_one_way_doors(house: House) -> None:
    assert wrong_ways(house) == []


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.why)
def test_door(house: House, door: Door) -> None:
    assert crossings(house, door) == []


@pytest.mark.parametrize(
    ("root", "load"),
    [pytest.param(root, load, id=f"{root}: {load.why}") for load in LOADS for root in load.of],
)
def test_load(house: House, root: str, load: Load) -> None:
    assert root in house
    assert burdens(house, root, load.never) == []


def test_environment_runs_on_a_bare_python(house: House) -> None:
    rooms = ("specdeepmap.core.environment",)
    targets = {entry.target.split(".")[0] for module in house if within(module, rooms) for entry in house[module]}
    assert targets - {"packaging"} <= {*sys.stdlib_module_names, "specdeepmap", "osgeo"}
    way = {entry.target for entry, _ in loaded(house, "specdeepmap.core.environment.__main__")}
    outside = {name for name in way if not within(name, ("specdeepmap",))}
    assert {name.split(".")[0] for name in outside} <= sys.stdlib_module_names


def test_no_module_of_environment_hides_a_standard_one() -> None:
    # Started by its path, the package has its own folder first on the search path.
    names = {path.stem for path in (PACKAGE / "core" / "environment").iterdir()}
    assert names.isdisjoint(sys.stdlib_module_names)


def small_house(**sources: str) -> House:
    """A house of three modules that break no rule, and the given ones; ``__`` in a name stands for a dot."""
    base = {"specdeepmap": "", "specdeepmap.core": "", "specdeepmap.core.run": "import json"}
    given = {f"specdeepmap.{name.replace('__', '.')}": source for name, source in sources.items()}
    return {
        module: read_imports(module, source, is_package=module in ("specdeepmap", "specdeepmap.core"))
        for module, source in (base | given).items()
    }


def violations(house: House) -> list[str]:
    found = wrong_ways(house)
    for door in DOORS:
        found += crossings(house, door)
    for load in LOADS:
        for root in load.of:
            found += burdens(house, root, load.never) if root in house else []
    return found


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ({"core__errors": "from qgis.core import Qgis"}, "core.errors:1 imports qgis.core.Qgis"),
        ({"core__record": "def f():\n    import processing"}, "core.record:2 imports processing"),
        ({"core__progress": "from ..algorithms import base"}, "imports specdeepmap.algorithms.base"),
        (
            {"core__data__raster": "def f():\n    import torch.nn as nn"},
            "core.data.raster:2 imports torch.nn",
        ),
        ({"core__tasks__train": "from osgeo import gdal"}, "core.tasks.train:1 imports osgeo.gdal"),
        ({"core__learn__loader": "def f():\n    import pandas as pd"}, "core.learn.loader:2 imports pandas"),
        ({"core__learn__weights": "import timm"}, "core.learn.weights:1 imports timm"),
        (
            {
                "core__learn__options": "from specdeepmap.core.learn import network",
                "core__learn__network": "try:\n    import torch\nexcept ImportError:\n    torch = None",
            },
            "learn.options → specdeepmap.core.learn.network: specdeepmap.core.learn.network:2 imports torch",
        ),
        (
            {"core__jobs": "from specdeepmap.core.learn.segmenter import Segmenter"},
            "learn.segmenter.Segmenter",
        ),
        ({"core__data__raster": "from ..jobs import TileJob"}, "imports specdeepmap.core.jobs.TileJob"),
        ({"core__tasks__train": "from specdeepmap.core.run import run"}, "imports specdeepmap.core.run.run"),
        ({"core__run": "from specdeepmap.core import tasks"}, "core.run:1 imports specdeepmap.core.tasks"),
        ({"core__misc": ""}, "specdeepmap.core.misc stands in no room"),
        (
            {"plugin": "from .algorithms.mapper import Mapper"},
            "plugin:1 imports specdeepmap.algorithms.mapper",
        ),
        (
            {"algorithms__mapper": "def f():\n    from ..core.tasks import perform"},
            "algorithms.mapper:2 imports specdeepmap.core.tasks.perform",
        ),
        ({"algorithms__mapper": "import specdeepmap.core.data.raster"}, "specdeepmap.core.data.raster"),
        ({"plugin": "def f():\n    import enmapbox"}, "plugin:2 imports enmapbox"),
        ({"plugin": "class A:\n    from . import enmapbox"}, "plugin:2 imports specdeepmap.enmapbox"),
        (
            {
                "provider": "from .algorithms.base import Base",
                "algorithms__base": "from ..core.data import classes",
                "core__data__classes": "if 1:\n    import pandas",
            },
            "algorithms.base → specdeepmap.core.data.classes: specdeepmap.core.data.classes:2 imports pandas",
        ),
        (
            {"core__data": "import osgeo", "core__jobs": "import specdeepmap.core.data.classes"},
            "imports osgeo",
        ),
        ({"core__run": "f = __import__('torch')"}, "core.run:1 imports torch"),
    ],
)
def test_checker_catches(sources: dict[str, str], found: str) -> None:
    assert any(found in text for text in violations(small_house(**sources)))


@pytest.mark.parametrize(
    "sources",
    [
        {},
        {"core__run": "def f():\n    from specdeepmap.core.tasks import perform"},
        {"core__learn__weights": "if TYPE_CHECKING:\n    import torch\ndef f():\n    import timm"},
        {"core__learn__criteria": "import torch\nfrom ..data.classes import ClassTable"},
        {"core__jobs": "from specdeepmap.core.learn.weights import WEIGHTS"},
        {"core__data__raster": "from osgeo import gdal"},
        {
            "provider": "from .algorithms.mapper import Mapper",
            "algorithms__mapper": "from ..core import jobs",
        },
        {
            "enmapbox": "from enmapbox.gui import applications",
            "plugin": "def f():\n    from . import enmapbox",
        },
    ],
)
def test_checker_lets_pass(sources: dict[str, str]) -> None:
    assert violations(small_house(**sources)) == []
