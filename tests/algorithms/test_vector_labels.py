# SPDX-License-Identifier: GPL-3.0-or-later
"""Polygons of a memory layer as labels: copied to a file, with the classes of their renderer."""

from __future__ import annotations

import zipfile
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


SIZES = {"TILE_SIZE_X": 32, "TILE_SIZE_Y": 32, "STEP_X": 32, "STEP_Y": 32}


def image_below(folder: Path) -> Path:
    """Write an image on the ground of the polygons."""
    transform = (400000, 10, 0, 5800000, 0, -10)
    return write_raster(folder / "i.tif", np.ones((2, 32, 32), np.uint16), transform=transform, crs=utm())


def saved(layer: Any, path: Path) -> Any:
    """Save a layer to a file and open that."""
    from qgis.core import QgsCoordinateTransformContext, QgsVectorFileWriter, QgsVectorLayer

    options = QgsVectorFileWriter.SaveVectorOptions()
    QgsVectorFileWriter.writeAsVectorFormatV3(layer, str(path), QgsCoordinateTransformContext(), options)
    return QgsVectorLayer(str(path), path.stem, "ogr")


def test_a_memory_layer_is_burned_with_its_names_and_colors(qgis: Any, polygons: Any, tmp_path: Path) -> None:
    import processing

    values = {"IMAGE": str(image_below(tmp_path)), "LABELS": polygons, "CLASS_FIELD": "crop", **SIZES}
    result = processing.run("specdeepmap:rastersplitter", {**values, "OUTPUT_FOLDER": str(tmp_path / "out")})
    assert result["TILE_COUNT"] == 1
    chip = gdal.Open(str(tmp_path / "out" / "labels" / "i_tile_0_0.tif"))
    labels = chip.ReadAsArray()
    assert (labels[:, :8] == 1).all() and (labels[:, 8:24] == 0).all() and (labels[:, 24:] == 2).all()
    names, colors = names_and_colors(chip, {1, 2})
    assert names == {1: "maize", 2: "wheat"}
    assert colors == {1: COLORS["maize"], 2: COLORS["wheat"]}


def test_edits_that_are_not_saved_count(qgis: Any, polygons: Any, tmp_path: Path) -> None:
    """As they do for QGIS's own algorithms."""
    import processing

    layer = saved(polygons, tmp_path / "fields.gpkg")
    layer.startEditing()
    first = next(layer.getFeatures())
    layer.changeAttributeValue(first.id(), layer.fields().lookupField("crop"), "barley")
    values = {"IMAGE": str(image_below(tmp_path)), "LABELS": layer, "CLASS_FIELD": "crop", **SIZES}
    processing.run("specdeepmap:rastersplitter", {**values, "OUTPUT_FOLDER": str(tmp_path / "out")})
    chip = gdal.Open(str(tmp_path / "out" / "labels" / "i_tile_0_0.tif"))
    assert names_and_colors(chip, {1, 2})[0] == {1: "barley", 2: "wheat"}
    assert layer.isModified(), "nothing is saved for the user"
    layer.rollBack()


def test_what_only_qgis_knows_of_a_layer_is_told(qgis: Any, polygons: Any, tmp_path: Path) -> None:
    import processing
    from qgis.core import QgsCoordinateReferenceSystem, QgsProcessingFeedback, QgsRasterLayer, QgsRasterRange

    class Feedback(QgsProcessingFeedback):
        def __init__(self) -> None:
            super().__init__(False)
            self.warned: list[str] = []

        def pushWarning(self, warning: str) -> None:  # noqa: N802 - QGIS calls it so
            self.warned.append(warning)

    labels = saved(polygons, tmp_path / "fields.gpkg")
    image = QgsRasterLayer(str(image_below(tmp_path)), "below")

    def warnings_of(folder: str) -> list[str]:
        feedback = Feedback()
        values = {"IMAGE": image, "LABELS": labels, "CLASS_FIELD": "crop", **SIZES}
        out = {"OUTPUT_FOLDER": str(tmp_path / folder)}
        processing.run("specdeepmap:rastersplitter", {**values, **out}, feedback=feedback)
        return feedback.warned

    assert warnings_of("plain") == []
    labels.setCrs(QgsCoordinateReferenceSystem("EPSG:23033"))
    image.dataProvider().setUserNoDataValue(1, [QgsRasterRange(-9999, -9999)])
    image_text, labels_text = warnings_of("told")
    assert "'below' has an additional no-data value in QGIS (-9999)" in image_text and "Set NODATA" in image_text
    assert "has the coordinate system EPSG:23033 in QGIS, but its file says EPSG:32633" in labels_text


def test_numbers_of_a_style_that_are_text(qgis: Any) -> None:
    """A style file without types gives the values of its categories as text."""
    from qgis.core import QgsCategorizedSymbolRenderer, QgsFillSymbol, QgsRendererCategory, QgsVectorLayer

    from specdeepmap.algorithms.layers import class_entries

    layer = QgsVectorLayer("Polygon?crs=EPSG:32633&field=code:integer", "fields", "memory")
    symbol = QgsFillSymbol.createSimple({"color": "#00ff00"})
    titles = {"3": "water", "1": "forest", "2": "2", "": "others"}
    categories = [QgsRendererCategory(value, symbol.clone(), title) for value, title in titles.items()]
    layer.setRenderer(QgsCategorizedSymbolRenderer("code", categories))
    assert {entry.value: entry.name for entry in class_entries(layer, "code")} == {3: "water", 1: "forest", 2: ""}


def test_layers_in_an_archive(qgis: Any, polygons: Any, tmp_path: Path) -> None:
    """QGIS opens what is dropped onto it as a zip file by GDAL's name for it."""
    import processing
    from qgis.core import QgsRasterLayer, QgsVectorLayer

    image_below(tmp_path)
    saved(polygons, tmp_path / "fields.gpkg")
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        for name in ("i.tif", "fields.gpkg"):
            archive.write(tmp_path / name, name)
    inside = f"/vsizip/{tmp_path / 'both.zip'}"
    layers = {
        "IMAGE": QgsRasterLayer(f"{inside}/i.tif", "i", "gdal"),
        "LABELS": QgsVectorLayer(f"{inside}/fields.gpkg|layername=fields", "fields", "ogr"),
    }
    assert all(layer.isValid() for layer in layers.values())
    values = {**layers, "CLASS_FIELD": "crop", **SIZES, "OUTPUT_FOLDER": str(tmp_path / "out")}
    assert processing.run("specdeepmap:rastersplitter", values)["TILE_COUNT"] == 1
