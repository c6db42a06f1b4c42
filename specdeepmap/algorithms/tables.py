# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables: CSV results as layers without geometry, for who wants to sort, join or plot them in QGIS."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from itertools import zip_longest
from pathlib import Path

from qgis.core import QgsProcessingContext, QgsProcessingUtils
from qgis.PyQt.QtCore import QUrl, QUrlQuery

from specdeepmap.core.record import Spec

_SPEC = Spec(
    "flag",
    "Load tables as layers",
    "Load the tables that were written (CSV) into the project, as layers without geometry. Default: no.",
    advanced=True,
)


@dataclass(frozen=True)
class _Asked:
    load_tables: bool = field(default=False, metadata={"spec": _SPEC})


LOAD_TABLES = (fields(_Asked)[0], _SPEC)
"""Field and spec of the parameter. It belongs to no job: the core has no layers."""


def load_table(context: QgsProcessingContext, path: Path, name: str, output: str) -> None:
    """Have a CSV table loaded, its numbers as numbers."""
    if context.project() is None:
        return
    kind = QgsProcessingUtils.LayerHint.Vector
    details = QgsProcessingContext.LayerDetails(name, context.project(), output, kind)
    details.forceName = True
    details.layerSortKey = -1  # below what can be seen on the map
    context.addLayerToLoadOnCompletion(table_source(path), details)


def table_source(path: Path) -> str:
    """Give what QGIS loads a CSV table by.

    The types are found here: GDAL 3.6 takes a column with a ``nan`` for text and a header of numbers for values, and
    QGIS takes a column of zeros and ones for true and false.
    """
    url, query = QUrl.fromLocalFile(str(path.resolve())), QUrlQuery()
    settings = [("type", "csv"), ("detectTypes", "yes"), ("geomType", "none")]
    settings += [("field", f"{name}:{kind}") for name, kind in _types(path).items() if ":" not in name]
    for name, value in settings:
        query.addQueryItem(name, bytes(QUrl.toPercentEncoding(value)).decode("ascii"))
    url.setQuery(query)
    return f"delimitedtext://{bytes(url.toEncoded()).decode('ascii')}"


def _types(path: Path) -> dict[str, str]:
    """Tell for each column what all of its values are: whole numbers, numbers or text."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        names, *rows = csv.reader(file)
    kinds = {}
    for name, values in zip(names, zip_longest(*rows, fillvalue=""), strict=False):
        found = (kind for kind, read in (("longlong", int), ("double", float)) if all(_reads(read, v) for v in values))
        kinds[name] = next(found, "text")
    return kinds


def _reads(read: Callable[[str], float], text: str) -> bool:
    try:
        read(text or "0")  # an empty cell is no value, of whatever kind
    except ValueError:
        return False
    return True
