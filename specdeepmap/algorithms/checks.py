# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks before Run: what can be told of values that are written down, without opening any file.

A dialog shows what is wrong in a message and starts nothing. QGIS never asks this of the steps inside a model, whose
inputs do not exist yet at that time.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qgis.core import QgsProcessing, QgsProcessingOutputLayerDefinition, QgsProperty

from specdeepmap.algorithms.parameters import DESTINATIONS, Field, is_unset, read_flag
from specdeepmap.core.errors import ConfigError
from specdeepmap.core.jobs import Job
from specdeepmap.core.record import Spec, parse_number


class _NotWrittenDownError(Exception):
    """A value is known only when the algorithm runs."""


def job_as_written(kind: type[Job], asked: Iterable[tuple[Field, Spec]], parameters: Mapping[str, Any]) -> Job | None:
    """Make a job of raw values, for its own checks; layers and temporary outputs are stood in for.

    Returns:
        The job; None where a value is missing, which QGIS tells, or known only when the algorithm runs.

    Raises:
        ConfigError: if the values do not fit together.
    """
    values: dict[str, Any] = {}
    for field, spec in asked:
        raw = parameters.get(field.name.upper())
        try:
            if not is_unset(raw):
                values[field.name] = _written(field.name, spec, raw)
            elif field.default is dataclasses.MISSING and spec.kind not in DESTINATIONS:
                return None
            elif field.default is dataclasses.MISSING:
                values[field.name] = _stand_in(field.name, spec)
        except _NotWrittenDownError:
            return None
    return kind(**values)


def check_inputs_are_there(job: Job, asked: Iterable[tuple[Field, Spec]]) -> None:
    """Check that files and folders exist.

    Raises:
        ConfigError: if one does not.
    """
    for field, spec in asked:
        path = getattr(job, field.name)
        if spec.kind not in ("file", "folder") or path is None:
            continue
        name = field.name.upper()
        try:
            found, right = path.exists(), path.is_dir() if spec.kind == "folder" else path.is_file()
        except OSError:
            continue  # a place that may not be looked at: the job says why when it opens it
        if not found:
            raise ConfigError(f"{name} {path} does not exist. Was it moved or renamed? Choose it again.")
        if not right:
            what = "a file, and a folder is needed" if spec.kind == "folder" else "a folder, and a file is needed"
            raise ConfigError(f"{name} {path} is {what}.")


def _written(name: str, spec: Spec, raw: Any) -> Any:
    """Give the value that a raw one stands for."""
    if isinstance(raw, QgsProperty):
        raise _NotWrittenDownError
    if spec.kind in DESTINATIONS:
        return _target(name, spec, raw)
    if spec.kind in ("integer", "number"):
        return parse_number(name.upper(), raw, whole=spec.kind == "integer")
    if spec.kind == "flag":
        return read_flag(name.upper(), raw)
    if spec.kind in ("raster", "labels"):
        return raw if isinstance(raw, str) else "a layer"
    if spec.kind == "extent":
        return None  # it takes the layer to read it
    if not isinstance(raw, str):
        raise _NotWrittenDownError
    return Path(raw) if spec.kind in ("file", "folder") else raw


def _target(name: str, spec: Spec, raw: Any) -> Path:
    if isinstance(raw, QgsProcessingOutputLayerDefinition):
        if raw.sink.propertyType() != QgsProperty.Type.StaticProperty:
            raise _NotWrittenDownError
        raw = raw.sink.staticValue()
    if raw == QgsProcessing.TEMPORARY_OUTPUT:
        return _stand_in(name, spec)
    if not isinstance(raw, str):
        raise _NotWrittenDownError
    return Path(raw)


def _stand_in(name: str, spec: Spec) -> Path:
    """Give the place of an output that QGIS will choose: asked now, it would be another one in the run."""
    return Path(tempfile.gettempdir(), f"{name}.{spec.suffix}" if spec.suffix else name)
