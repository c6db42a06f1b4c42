# SPDX-License-Identifier: GPL-3.0-or-later
"""What all jobs share: their base, and texts that several forms show."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

from specdeepmap.core.environment import DATA_MODULES
from specdeepmap.core.errors import ConfigError
from specdeepmap.core.record import Record

DEVICE_HELP = (
    "Where the network runs: auto takes a GPU where there is one and the processor otherwise; cpu; gpu "
    "(CUDA or Apple MPS; an error where there is none). Default: auto."
)
PRECISION_HELP = (
    "Numbers the network computes with: float32, bfloat16 or float16 (GPU only). auto takes bfloat16 "
    "where the GPU or the processor computes with it in hardware, and float32 elsewhere. Default: auto."
)
CHECKPOINT_HELP = (
    "A model trained with the Deep Learning Trainer (.ckpt). Bands, scaling, classes and chip size are "
    "read from it; nothing of that is asked again."
)
ANY_FILES = ";;All files (*)"
CSV_FILES = "CSV files (*.csv *.CSV)" + ANY_FILES
CHECKPOINT_FILES = "Checkpoints (*.ckpt *.CKPT)" + ANY_FILES
HTML_FILES = "HTML files (*.html *.HTML *.htm *.HTM)" + ANY_FILES


@dataclass(frozen=True, kw_only=True)
class Result(Record):
    """What a job made; every field is an output of the algorithm, under its upper-case name."""


@dataclass(frozen=True, kw_only=True)
class Job(Record):
    """Everything one step needs."""

    verb: ClassVar[str]
    result: ClassVar[type[Result]]
    modules: ClassVar[tuple[str, ...]] = DATA_MODULES
    """Modules that the job's Python must have."""

    def save(self, path: Path) -> None:
        """Write the job as JSON, for ``python -m specdeepmap.core``."""
        text = json.dumps({"job": self.verb, **self.to_json()}, indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


def check_apart(outputs: Mapping[str, Iterable[Path]], inputs: Mapping[str, Iterable[Path]]) -> None:
    """Check that no output replaces an input or another output.

    Args:
        outputs, inputs: the files that each parameter stands for, by its name. Inputs may share some.

    Raises:
        ConfigError: if one would.
    """
    folder = cache(Path.resolve)  # that of thousands of chips is looked up once

    def place(path: Path) -> Path:
        try:
            return path.resolve() if path.is_symlink() else folder(path.parent) / path.name
        except (OSError, ValueError, RuntimeError):  # what GDAL reads need not be a path: XML, for example
            return path

    known = {place(path): name for name, paths in inputs.items() for path in paths}
    for name, paths in outputs.items():
        for path in paths:
            other = known.setdefault(place(path), name)
            if other != name:
                raise ConfigError(
                    f"{name} and {other} are the same file, {path}, or would need it both. Choose another name for "
                    f"{name}."
                )
