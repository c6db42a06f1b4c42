# SPDX-License-Identifier: GPL-3.0-or-later
"""Polygons of a memory layer as labels: copied to a file, with the classes of their renderer."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from osgeo import gdal

from specdeepmap.core.data.labels import names_and_colors
from specdeepmap.core.errors import Canceled
from tests.helpers import Array, utm, write_raster

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


SIZES = {"TILE_SIZE_X": 32, "TILE_SIZE_Y": 32, "STEP_X": 32, "STEP_Y": 32, "MIN_LABEL_COVERAGE": 0}


def image_below(folder: Path) -> Path:
    """Write an image on the ground of the polygons."""
    transform = (400000, 10, 0, 5800000, 0, -10)
    return write_raster(folder / "i.tif", np.ones((2, 32, 32), np.uint16), transform=transform, crs=utm())


def saved(layer: Any, path: Path) -> Any:
    """Save a layer to a file and open that."""
    from qgis.core import QgsCoordinateTransformContext, QgsVectorFileWriter, QgsVectorLayer

    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = QgsVectorFileWriter.driverForExtension(path.suffix)
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

    from specdeepmap.algorithms.layers import layer_doubts

    labels = saved(polygons, tmp_path / "fields.gpkg")
    image = QgsRasterLayer(str(image_below(tmp_path)), "below")

    def warnings_of(folder: str) -> list[str]:
        feedback = Feedback()
        values = {"IMAGE": image, "LABELS": labels, "CLASS_FIELD": "crop", **SIZES}
        out = {"OUTPUT_FOLDER": str(tmp_path / folder)}
        processing.run("specdeepmap:rastersplitter", {**values, **out}, feedback=feedback)
        return feedback.warned

    assert warnings_of("plain") == []
    image.dataProvider().setUserNoDataValue(1, [QgsRasterRange(-9999, -9999)])
    (text,) = warnings_of("told")
    assert "'below' has an additional no-data value in QGIS (-9999)" in text and "set NODATA" in text
    (text,) = layer_doubts(image, "LABELS")
    assert "NODATA" not in text and "value 0" in text, "that parameter is of the image"
    image.dataProvider().setUserNoDataValue(1, [])
    image.setCrs(QgsCoordinateReferenceSystem("EPSG:23033"))
    (text,) = layer_doubts(image, "IMAGE")
    assert "has the coordinate system EPSG:23033 in QGIS, but its file says EPSG:32633, and that counts" in text
    bare = write_raster(tmp_path / "bare.tif", np.ones((1, 4, 4), np.uint8), crs="")
    image = QgsRasterLayer(str(bare), "bare")
    image.setCrs(QgsCoordinateReferenceSystem("EPSG:32633"))
    (text,) = layer_doubts(image, "IMAGE")
    assert "EPSG:32633 in QGIS, but its file has none" in text and "Assign Projection" in text


@pytest.mark.parametrize("field", ["crop", "number"])
@pytest.mark.parametrize("kind", ["gpkg", "shp"])
def test_the_coordinate_system_that_a_vector_layer_has_in_qgis_counts(
    qgis: Any, polygons: Any, tmp_path: Path, field: str, kind: str
) -> None:
    """Whether the file says another one or none, and whatever else decides if the layer is copied."""
    from qgis.core import QgsCoordinateReferenceSystem, QgsField
    from qgis.PyQt.QtCore import QMetaType

    from specdeepmap.algorithms.layers import layer_doubts

    right = polygons.crs()
    polygons.dataProvider().addAttributes([QgsField("number", QMetaType.Type.Int)])
    polygons.updateFields()
    for number, feature in enumerate(list(polygons.getFeatures()), 1):
        polygons.dataProvider().changeAttributeValues({feature.id(): {1: number}})
    for name, crs in (("other", QgsCoordinateReferenceSystem("EPSG:32650")), ("none", QgsCoordinateReferenceSystem())):
        polygons.setCrs(crs)
        (tmp_path / name).mkdir()
        layer = saved(polygons, tmp_path / name / f"fields.{kind}")
        layer.setCrs(right)
        labels = cut(layer, tmp_path / name, field)
        assert (labels[:, :8] == 1).all() and (labels[:, 8:24] == 0).all() and (labels[:, 24:] == 2).all()
        assert not layer_doubts(layer, "LABELS")


def test_layers_that_lie_nowhere_are_named(qgis: Any, polygons: Any, tmp_path: Path) -> None:
    import processing
    from qgis.core import QgsProcessingException, QgsRasterLayer, QgsVectorLayer

    image = str(image_below(tmp_path))
    gdal.FileFromMemBuffer("/vsimem/i.tif", Path(image).read_bytes())
    values = {"IMAGE": image, "LABELS": polygons, "CLASS_FIELD": "crop", **SIZES, "OUTPUT_FOLDER": str(tmp_path / "o")}
    lines = QgsVectorLayer("LineString?crs=EPSG:32633&field=crop:string", "tracks / paths", "memory")
    for name, layer, said in (
        ("IMAGE", QgsRasterLayer("/vsimem/i.tif", "mine"), "'mine', whose data lies in the memory of QGIS only"),
        ("LABELS", lines, r"LABELS .*tracks _ paths\.gpkg holds neither polygons nor points"),
        ("IMAGE", QgsRasterLayer("/nowhere/gone.tif", "gone"), "IMAGE is 'gone', which cannot be opened as a raster"),
    ):
        with pytest.raises(QgsProcessingException, match=said):
            processing.run("specdeepmap:rastersplitter", {**values, name: layer})
    gdal.Unlink("/vsimem/i.tif")


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


def cut(layer: Any, folder: Path, field: str) -> Array:
    """Cut one chip from an image below the polygons, and give its labels."""
    import processing

    values = {"IMAGE": str(image_below(folder)), "LABELS": layer, "CLASS_FIELD": field, **SIZES}
    processing.run("specdeepmap:rastersplitter", {**values, "OUTPUT_FOLDER": str(folder / "out")})
    labels: Array = gdal.Open(str(folder / "out" / "labels" / "i_tile_0_0.tif")).ReadAsArray()
    return labels


def test_polygons_that_were_just_drawn_or_pasted(qgis: Any, polygons: Any, tmp_path: Path) -> None:
    """They have no number of a feature yet, or that of the copied one, which a GeoPackage would refuse."""
    from qgis.core import QgsFeature, QgsGeometry, QgsRectangle, QgsVectorLayerUtils

    layer = saved(polygons, tmp_path / "fields.gpkg")
    layer.startEditing()
    pasted = QgsFeature(next(layer.getFeatures()))
    middle = QgsGeometry.fromRect(QgsRectangle(400100, 5800000 - 320, 400140, 5800000))
    layer.addFeature(QgsVectorLayerUtils.createFeature(layer, middle, {1: "barley"}))
    pasted.setGeometry(QgsGeometry.fromRect(QgsRectangle(400140, 5800000 - 320, 400160, 5800000)))
    layer.addFeature(pasted)
    labels = cut(layer, tmp_path, "crop")
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    assert (labels[:, 10:14] == 1).all(), "barley comes first in the alphabet"
    assert (labels[:, 14:16] == labels[0, 0]).all() and not labels[:, 16:24].any()


@pytest.mark.parametrize("name", ["fid", "FID", "geom", "_fid"])
@pytest.mark.parametrize("kind", ["integer", "double"])
def test_class_fields_whose_names_a_geopackage_keeps_for_itself(
    qgis: Any, tmp_path: Path, name: str, kind: str
) -> None:
    from qgis.core import QgsFeature, QgsGeometry, QgsRectangle, QgsVectorLayer

    layer = QgsVectorLayer(
        f"Polygon?crs=EPSG:32633&field={name}:{kind}&field=cls:integer&field=CLS:string", "m", "memory"
    )
    for column, value in enumerate((7, 7, 9)):
        feature = QgsFeature(layer.fields())
        feature.setAttributes([value, 1, "x"])
        x, y = 400000 + 100 * column, 5800000
        feature.setGeometry(QgsGeometry.fromRect(QgsRectangle(x, y - 320, x + 100, y)))
        layer.dataProvider().addFeature(feature)
    labels = cut(layer, tmp_path, name)
    assert (labels[:, :20] == 7).all() and (labels[:, 20:30] == 9).all()


def test_fields_that_only_qgis_knows(qgis: Any, polygons: Any, tmp_path: Path) -> None:
    from qgis.core import QgsField
    from qgis.PyQt.QtCore import QMetaType

    layer = saved(polygons, tmp_path / "fields.gpkg")
    layer.addExpressionField("if(\"crop\" = 'wheat', 5, 4)", QgsField("code", QMetaType.Type.Int))
    (tmp_path / "a").mkdir()
    labels = cut(layer, tmp_path / "a", "code")
    assert (labels[:, :8] == 4).all() and (labels[:, 24:] == 5).all()
    (tmp_path / "b").mkdir()
    labels = cut(layer, tmp_path / "b", "fid")
    assert set(np.unique(labels)) == {0, 1, 2}


@pytest.mark.parametrize(("kind", "found"), [("Point", {0, 1}), ("Polygon", {0, 2})])
def test_a_file_with_points_and_polygons(qgis: Any, tmp_path: Path, kind: str, found: set[int]) -> None:
    """QGIS shows such a file as two layers."""
    from qgis.core import QgsVectorLayer

    def feature(kind: str, coordinates: Any, value: int) -> dict[str, Any]:
        return {
            "type": "Feature",
            "properties": {"cls": value},
            "geometry": {"type": kind, "coordinates": coordinates},
        }

    square = [[400000, 5799840], [400160, 5799840], [400160, 5800000], [400000, 5800000], [400000, 5799840]]
    features = [feature("Point", [400305, 5799995], 1), feature("Polygon", [square], 2)]
    crs = {"type": "name", "properties": {"name": "EPSG:32633"}}
    text = json.dumps({"type": "FeatureCollection", "crs": crs, "features": features})
    (tmp_path / "both.geojson").write_text(text, encoding="utf-8")
    layer = QgsVectorLayer(f"{tmp_path / 'both.geojson'}|geometrytype={kind}", "both", "ogr")
    assert layer.isValid() and layer.featureCount() == 1
    assert set(np.unique(cut(layer, tmp_path, "cls"))) == found


def test_edits_of_the_tile_index_must_be_saved(qgis: Any, polygons: Any, tmp_path: Path) -> None:
    import processing
    from qgis.core import QgsProcessingException, QgsProject, QgsVectorLayer

    cut(polygons, tmp_path, "crop")
    index = QgsVectorLayer(str(tmp_path / "out" / "tiles.gpkg"), "Chips of i", "ogr")
    QgsProject.instance().addMapLayer(index)
    try:
        index.startEditing()
        position = index.fields().lookupField("split")
        index.changeAttributeValue(next(index.getFeatures()).id(), position, "train")
        values = {"DATA_FOLDER": str(tmp_path / "out"), "SPLIT": "given"}
        with pytest.raises(QgsProcessingException, match="'Chips of i' has edits that are not saved yet"):
            processing.run("specdeepmap:datasetmaker", values)
        assert index.commitChanges()
        found = processing.run("specdeepmap:datasetmaker", values)
        assert len(Path(found["TRAIN_CSV"]).read_text(encoding="utf-8").splitlines()) == 2
    finally:
        QgsProject.instance().removeMapLayer(index)


def test_a_cancel_is_heard_while_a_layer_is_copied(qgis: Any, polygons: Any) -> None:
    from qgis.core import QgsProcessingContext, QgsProcessingFeedback

    from specdeepmap.algorithms.layers import LabelCopy

    feedback = QgsProcessingFeedback()
    feedback.cancel()
    with pytest.raises(Canceled):
        LabelCopy(polygons, 0, QgsProcessingContext()).write(feedback)


@pytest.mark.parametrize(
    ("stored", "told", "set_to"), [("UTF-8", "ISO-8859-1", "UTF-8"), ("windows-1252", "", "latin1")]
)
def test_names_of_a_shapefile_are_those_that_qgis_shows(
    qgis: Any, polygons: Any, tmp_path: Path, stored: str, told: str, set_to: str
) -> None:
    """What a Shapefile says of its encoding may be wrong or missing: the user sets it in the layer's properties."""
    from qgis.core import QgsCoordinateTransformContext, QgsVectorFileWriter, QgsVectorLayer

    first = next(polygons.getFeatures())
    polygons.dataProvider().changeAttributeValues({first.id(): {0: "Grünland"}})
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName, options.fileEncoding = "ESRI Shapefile", stored
    path = tmp_path / "felder.shp"
    QgsVectorFileWriter.writeAsVectorFormatV3(polygons, str(path), QgsCoordinateTransformContext(), options)
    path.with_suffix(".cpg").unlink()
    if told:
        path.with_suffix(".cpg").write_text(told)
    layer = QgsVectorLayer(str(path), "felder", "ogr")
    layer.setProviderEncoding(set_to)
    assert {feature["crop"] for feature in layer.getFeatures()} == {"Grünland", "wheat"}
    cut(layer, tmp_path, "crop")
    names, _ = names_and_colors(gdal.Open(str(tmp_path / "out" / "labels" / "i_tile_0_0.tif")), {1, 2})
    assert names == {1: "Grünland", 2: "wheat"}


def test_layers_by_number_and_filters_that_are_a_whole_select(qgis: Any, polygons: Any, tmp_path: Path) -> None:
    """QGIS shows both, and so they count; it names the layer by its number once such a filter is set."""
    from qgis.core import QgsCoordinateTransformContext, QgsVectorFileWriter, QgsVectorLayer

    path = tmp_path / "two.gpkg"
    options = QgsVectorFileWriter.SaveVectorOptions()
    for name in ("a", "b"):
        options.layerName = name
        QgsVectorFileWriter.writeAsVectorFormatV3(polygons, str(path), QgsCoordinateTransformContext(), options)
        options.actionOnExistingFile = QgsVectorFileWriter.ActionOnExistingFile.CreateOrOverwriteLayer
    by_number = QgsVectorLayer(f"{path}|layerid=1", "b", "ogr")
    selected = QgsVectorLayer(f"{path}|layername=b", "b", "ogr")
    assert selected.setSubsetString("SELECT * FROM b WHERE crop = 'wheat'") and selected.featureCount() == 1
    for name, layer, found in (("number", by_number, {0, 1, 2}), ("select", selected, {0, 1})):
        (tmp_path / name).mkdir()
        assert set(np.unique(cut(layer, tmp_path / name, "crop"))) == found


def test_a_style_of_another_band_says_nothing_of_the_labels(qgis: Any, tmp_path: Path) -> None:
    from qgis.core import QgsPalettedRasterRenderer, QgsRasterLayer
    from qgis.PyQt.QtGui import QColor

    from specdeepmap.algorithms.layers import class_entries

    layer = QgsRasterLayer(str(write_raster(tmp_path / "l.tif", np.ones((2, 4, 4), np.uint8))), "l")
    for band, found in ((1, {1: "water"}), (2, {})):
        entries = [QgsPalettedRasterRenderer.Class(1, QColor("#0000ff"), "water")]
        layer.setRenderer(QgsPalettedRasterRenderer(layer.dataProvider(), band, entries))
        assert {entry.value: entry.name for entry in class_entries(layer, None)} == found


def test_styles_and_options_that_the_work_leaves_aside_are_told(qgis: Any, tmp_path: Path) -> None:
    from qgis.core import (
        QgsCategorizedSymbolRenderer,
        QgsFillSymbol,
        QgsRasterLayer,
        QgsRendererCategory,
        QgsVectorLayer,
    )

    from specdeepmap.algorithms.layers import class_entries, layer_doubts

    layer = QgsVectorLayer("Polygon?crs=EPSG:32633&field=code:integer", "fields", "memory")
    symbol = QgsFillSymbol.createSimple({"color": "#00ff00"})
    single = [QgsRendererCategory(1, symbol.clone(), "water")]
    layer.setRenderer(QgsCategorizedSymbolRenderer('"code"', single))
    assert [entry.name for entry in class_entries(layer, "code")] == ["water"], "a quoted field is one"
    assert not layer_doubts(layer, "LABELS")
    layer.setRenderer(
        QgsCategorizedSymbolRenderer("code", [*single, QgsRendererCategory([2, 3], symbol.clone(), "both")])
    )
    (text,) = layer_doubts(layer, "LABELS")
    assert "several values as one class (both)" in text
    path = image_below(tmp_path)
    gdal.Open(str(path), gdal.GA_Update).BuildOverviews("NEAREST", [2])
    assert not layer_doubts(QgsRasterLayer(str(path), "i"), "IMAGE")
    (text,) = layer_doubts(QgsRasterLayer(f"{path}|option:OVERVIEW_LEVEL=0", "i"), "IMAGE")
    assert "opened in QGIS with options (OVERVIEW_LEVEL=0)" in text
