# SPDX-License-Identifier: GPL-3.0-or-later
"""Polygons of a memory layer as labels: copied to a file, with the classes of their renderer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from osgeo import gdal

from specdeepmap.core.data.labels import names_and_colors
from tests.helpers import utm, write_raster

pytestmark = pytest.mark.qgis

COLORS = {"wheat": "#e8c33c", "maize": "#2f7d32"}


@pytest.fixture
def polygons(qgis: Any) -> Any:
    """A maize field west, a wheat field east; the middle has no label."""
    from qgis.core import (
        QgsCategorizedSymbolRenderer,
        QgsFeature,
        QgsFillSymbol,
        QgsGeometry,
        QgsRectangle,
        QgsRendererCategory,
        QgsVectorLayer,
    )

    layer = QgsVectorLayer("Polygon?crs=EPSG:32633&field=crop:string", "fields", "memory")
    for crop, west in (("maize", 0), ("wheat", 24)):
        feature = QgsFeature(layer.fields())
        feature.setAttributes([crop])
        x, y = 400000 + 10 * west, 5800000
        feature.setGeometry(QgsGeometry.fromRect(QgsRectangle(x, y - 320, x + 80, y)))
        layer.dataProvider().addFeature(feature)
    categories = [
        QgsRendererCategory(crop, QgsFillSymbol.createSimple({"color": color}), crop) for crop, color in COLORS.items()
    ]
    layer.setRenderer(QgsCategorizedSymbolRenderer("crop", categories))
    return layer


def test_a_memory_layer_is_burned_with_its_names_and_colors(qgis: Any, polygons: Any, tmp_path: Path) -> None:
    import processing

    transform = (400000, 10, 0, 5800000, 0, -10)
    image = write_raster(tmp_path / "i.tif", np.ones((2, 32, 32), np.uint16), transform=transform, crs=utm())
    sizes = {"TILE_SIZE_X": 32, "TILE_SIZE_Y": 32, "STEP_X": 32, "STEP_Y": 32}
    values = {"IMAGE": str(image), "LABELS": polygons, "CLASS_FIELD": "crop", **sizes}
    result = processing.run("specdeepmap:rastersplitter", {**values, "OUTPUT_FOLDER": str(tmp_path / "out")})
    assert result["TILE_COUNT"] == 1
    chip = gdal.Open(str(tmp_path / "out" / "labels" / "i_tile_0_0.tif"))
    labels = chip.ReadAsArray()
    assert (labels[:, :8] == 1).all() and (labels[:, 8:24] == 0).all() and (labels[:, 24:] == 2).all()
    names, colors = names_and_colors(chip, {1, 2})
    assert names == {1: "maize", 2: "wheat"}
    assert colors == {1: COLORS["maize"], 2: COLORS["wheat"]}
