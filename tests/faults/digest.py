# SPDX-License-Identifier: GPL-3.0-or-later
"""What a folder of results holds, without what differs from run to run: times, versions, the order inside a database.

A file that is not whole has no digest: reading it raises. Two runs of a job on the same inputs have the same digest.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from osgeo import ogr

from specdeepmap.core.learn.checkpoint import load_checkpoint
from tests.helpers import read_pixels


def digest(folder: Path) -> dict[str, object]:
    """Read all files below a folder; logs of TensorBoard are left out, and what is hidden.

    Raises:
        ValueError: if a file is not whole.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and "tfevents" not in path.name and path.suffix in _READERS:
            try:
                found[path.relative_to(folder).as_posix()] = _READERS[path.suffix](path)
            except Exception as error:
                raise ValueError(f"{path} is not whole: {error}") from error
    return found


def _pixels(path: Path) -> object:
    return hashlib.sha256(read_pixels(path).tobytes()).hexdigest()


def _table(path: Path) -> object:
    """Give a table; the last row of a whole one ends."""
    text = path.read_text("utf-8")
    rows = list(csv.reader(text.splitlines()))
    if not text.endswith("\n"):
        raise ValueError("its last row is cut off")
    dropped = rows[0].index("seconds") if rows and "seconds" in rows[0] else None
    return [row[:dropped] for row in rows]


def _layers(path: Path) -> object:
    source = ogr.Open(str(path))
    rows = []
    for layer in source:
        for feature in layer:
            fields = feature.ExportToJson(as_object=True, options=[])
            fields["properties"].pop("update_time", None)
            rows.append([layer.GetName(), fields["properties"], fields["geometry"]])
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


def _page(path: Path) -> object:
    text = path.read_text("utf-8")
    if not text.endswith("</html>\n"):
        raise ValueError("the page is cut off")
    return "page"


def _model(path: Path) -> object:
    card, state = load_checkpoint(path)
    return [
        [card.architecture, card.bands, card.fingerprint, card.metrics.get("epoch")],
        {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in state.items()},
    ]


def _json(path: Path) -> object:
    values: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return sorted(values)


_READERS: dict[str, Callable[[Path], object]] = {
    ".tif": _pixels,
    ".csv": _table,
    ".gpkg": _layers,
    ".html": _page,
    ".ckpt": _model,
    ".json": _json,
}
