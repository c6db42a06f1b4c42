# SPDX-License-Identifier: GPL-3.0-or-later
"""The tile index looks in QGIS as it should: chips by set, without a style file beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from specdeepmap.core.data.grid import Grid
from specdeepmap.core.data.tileindex import TileRecord, write_index, write_splits
from tests.helpers import TRANSFORM, utm


def test_chips_are_shown_by_set(qgis: Any, tmp_path: Path) -> None:
    from qgis.core import QgsVectorLayer

    path = tmp_path / "tiles ä.gpkg"
    grid = Grid(8, 8, TRANSFORM, utm())
    write_index(path, [TileRecord(f"i_tile_{x}_0", "i", x, 0, 50.0, 1, grid) for x in (0, 8, 16)], None, "i")
    write_splits(path, {"i_tile_0_0": "train", "i_tile_8_0": "test"})
    layer = QgsVectorLayer(f"{path}|layername=tiles", "tiles", "ogr")
    assert layer.isValid() and layer.featureCount() == 3
    _, found = layer.loadDefaultStyle()
    assert found, "QGIS finds the style inside the GeoPackage"
    renderer = layer.renderer()
    assert (renderer.type(), renderer.classAttribute()) == ("categorizedSymbol", "split")
    colors = {entry.value(): entry.symbol().color().name() for entry in renderer.categories()}
    assert {"train", "validation", "test", ""} <= set(colors)
    assert len({colors[name] for name in ("train", "validation", "test", "")}) == 4
