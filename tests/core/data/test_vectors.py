# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of vector labels."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal, ogr, osr

from specdeepmap.core.data.grid import Grid
from specdeepmap.core.data.vectors import burn_vectors
from specdeepmap.core.data.vectorsource import VectorSource, is_vector
from specdeepmap.core.errors import Canceled, ConfigError, DatasetError, RasterError
from tests.helpers import TRANSFORM, Array, Recorder, full_disk, read_pixels, utm, write_raster

# With GDAL's exceptions on, its destructor complains once more about the full disk.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

GRID = Grid(30, 20, TRANSFORM, utm())
TEXT, INTEGER, REAL = ogr.OFTString, ogr.OFTInteger, ogr.OFTReal
Rows = Sequence[tuple[object, str]]
"""Class and WKT of each feature."""


def box(x: float, y: float, width: float, height: float) -> str:
    """Give the WKT of a box of pixels of the grid, from its upper left corner on."""
    (xmin, ymax), (xmax, ymin) = GRID.ground(x, y), GRID.ground(x + width, y + height)
    return f"POLYGON (({xmin} {ymin}, {xmax} {ymin}, {xmax} {ymax}, {xmin} {ymax}, {xmin} {ymin}))"


def point(x: float, y: float) -> str:
    return "POINT ({} {})".format(*GRID.ground(x, y))


def reference(crs: str | int) -> osr.SpatialReference:
    system = osr.SpatialReference()
    system.ImportFromEPSG(crs) if isinstance(crs, int) else system.ImportFromWkt(crs)
    system.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    return system


def write_layer(
    path: Path,
    rows: Rows,
    kind: int = TEXT,
    *,
    crs: str | int | None = 32633,
    name: str = "fields",
    geometry: int = ogr.wkbUnknown,
    field: str = "crop",
    driver: str = "GPKG",
) -> Path:
    """Write a layer; ``path`` may exist and gets one layer more. Fields are ``year``, the class, ``note``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = ogr.GetDriverByName(driver)
    dataset = (
        gdal.OpenEx(str(path), gdal.OF_VECTOR | gdal.OF_UPDATE) if path.exists() else own.CreateDataSource(str(path))
    )
    layer = dataset.CreateLayer(name, None if crs is None else reference(crs), geometry)
    for title, code in (("year", INTEGER), (field, kind), ("note", TEXT)):
        layer.CreateField(ogr.FieldDefn(title, code))
    for number, (value, wkt) in enumerate(rows):
        feature = ogr.Feature(layer.GetLayerDefn())
        feature.SetField("year", 2020 + number)
        if value is not None:
            feature.SetField(field, value)
        if wkt:
            feature.SetGeometry(ogr.CreateGeometryFromWkt(wkt))
        layer.CreateFeature(feature)
    del layer, dataset
    return path


def moved(wkt: str, crs: int) -> str:
    """Give a geometry of the grid in another CRS, x before y."""
    geometry = ogr.CreateGeometryFromWkt(wkt)
    geometry.Transform(osr.CoordinateTransformation(reference(32633), reference(crs)))
    return str(geometry.ExportToWkt())


def burn(
    source: Path | str,
    field: str | None = "crop",
    progress: Recorder | None = None,
    *,
    grid: Grid = GRID,
    zero_as: int | None = None,
) -> tuple[Array, dict[int, str]]:
    """Burn a source beside it; gives the pixels ``(rows, columns)`` and the names."""
    base = Path(VectorSource.parse(str(source)).name)
    target = base.parent / "burned" / "labels.tif"
    target.parent.mkdir(exist_ok=True)
    entries = burn_vectors(str(source), field, grid, target, zero_as, progress or Recorder())
    assert [path.name for path in target.parent.iterdir()] == ["labels.tif"], "nothing else is left"
    raster = gdal.Open(str(target))
    assert raster.GetRasterBand(1).DataType == gdal.GDT_Byte
    assert all(entry.color == "" for entry in entries)
    return read_pixels(target)[0], {entry.value: entry.name for entry in entries}


def rasterized(rows: Rows, crs: int) -> Array:
    """Let gdal.Rasterize burn the features, brought to the grid's CRS one by one, class by class."""
    wanted = np.zeros((GRID.height, GRID.width), np.uint8)
    for number, (_, wkt) in enumerate(rows, 1):
        geometry = ogr.CreateGeometryFromWkt(wkt)
        geometry.Transform(osr.CoordinateTransformation(reference(crs), reference(32633)))
        source = gdal.GetDriverByName("Memory").Create("", 0, 0, 0, gdal.GDT_Unknown)
        layer = source.CreateLayer("one", reference(32633), ogr.wkbUnknown)
        feature = ogr.Feature(layer.GetLayerDefn())
        feature.SetGeometry(geometry)
        layer.CreateFeature(feature)
        raster = gdal.GetDriverByName("MEM").Create("", GRID.width, GRID.height, 1, gdal.GDT_Byte)
        raster.SetGeoTransform(GRID.transform)
        raster.SetProjection(GRID.crs)
        gdal.Rasterize(raster, source, burnValues=[number])
        values = raster.ReadAsArray()
        wanted[values > 0] = number
    return wanted


FIELDS = [
    "POLYGON ((500013 5799997, 500133 5799991, 500091 5799903, 500013 5799997))",
    "POLYGON ((500150 5799990, 500290 5799960, 500260 5799850, 500160 5799880, 500150 5799990))",
    "MULTIPOLYGON (((500020 5799860, 500060 5799860, 500040 5799820, 500020 5799860)), "
    "((500100 5799860, 500140 5799864, 500120 5799810, 500100 5799860)))",
]


@pytest.mark.parametrize("crs", [32633, 32632, 4326, 3857, 25833])
@pytest.mark.parametrize("driver", ["GPKG", "GeoJSON", "ESRI Shapefile"])
def test_polygons_equal_gdals_own_rasterizing(tmp_path: Path, crs: int, driver: str, gdal_errors: str) -> None:
    crs = 4326 if driver == "GeoJSON" else crs
    rows = [(name, moved(wkt, crs)) for name, wkt in zip("abc", FIELDS, strict=True)]
    suffix = {"GPKG": "gpkg", "GeoJSON": "geojson", "ESRI Shapefile": "shp"}[driver]
    geometry = ogr.wkbMultiPolygon if driver == "ESRI Shapefile" else ogr.wkbUnknown
    path = write_layer(tmp_path / f"ä b.{suffix}", rows, crs=crs, driver=driver, geometry=geometry)
    progress = Recorder()
    values, names = burn(path, progress=progress)
    wanted = rasterized(rows, crs)
    assert len(np.unique(wanted)) == 4
    # GeoJSON holds seven decimals: a hundredth of a metre, which may decide on a pixel's centre.
    assert np.count_nonzero(values != wanted) <= (2 if driver == "GeoJSON" else 0)
    assert names == {1: "a", 2: "b", 3: "c"}
    told = any("transformed" in text for text in progress.infos)
    assert told == (crs != 32633)


def test_a_pixel_belongs_to_the_polygon_with_its_centre(tmp_path: Path) -> None:
    path = write_layer(tmp_path / "a.gpkg", [("x", box(2.6, 3.4, 4, 2)), ("y", box(20.2, 10.2, 0.2, 0.2))])
    values, _ = burn(path)
    wanted = np.zeros_like(values)
    wanted[3:5, 3:7] = 1  # the second one holds no centre
    assert np.array_equal(values, wanted)


def test_text_gets_ids_in_alphabetical_order_over_the_whole_layer(tmp_path: Path) -> None:
    rows = [("Weizen", box(0, 0, 3, 3)), ("Mais", box(5, 0, 3, 3)), ("Acker & <Brache>", box(10, 0, 3, 3))]
    rows += [("Mais", box(15, 0, 3, 3)), ("Hafer", box(900, 900, 3, 3))]  # the last one far from the image
    values, names = burn(write_layer(tmp_path / "a.gpkg", rows))
    assert names == {1: "Acker & <Brache>", 2: "Hafer", 3: "Mais", 4: "Weizen"}
    assert [values[1, x] for x in (1, 6, 11, 16)] == [4, 3, 1, 3]
    assert np.count_nonzero(values) == 36


def test_more_than_255_texts_are_refused(tmp_path: Path) -> None:
    rows = [(f"n{number}", box(number % 30, number // 30, 1, 1)) for number in range(256)]
    with pytest.raises(DatasetError, match=r"CLASS_FIELD crop has 256 different texts.*255"):
        burn(write_layer(tmp_path / "a.gpkg", rows))
    values, names = burn(write_layer(tmp_path / "b.gpkg", rows[:255]))
    assert len(names) == 255 and len(np.unique(values)) == 256


@pytest.mark.parametrize("kind", [INTEGER, REAL, ogr.OFTInteger64])
def test_whole_numbers_are_the_ids(tmp_path: Path, kind: int) -> None:
    rows = [(7, box(0, 0, 3, 3)), (255, box(5, 0, 3, 3)), (0, box(10, 0, 3, 3)), (7, box(15, 0, 3, 3))]
    values, names = burn(write_layer(tmp_path / "a.gpkg", rows, kind))
    assert names == {}
    assert [values[1, x] for x in (1, 6, 11, 16)] == [7, 255, 0, 7]


@pytest.mark.parametrize("value", [300, 256, -1, 1.5, math.nan, math.inf])
def test_numbers_that_are_no_class_ids_are_refused(tmp_path: Path, value: float, gdal_errors: str) -> None:
    rows = [(3, box(0, 0, 3, 3)), (value, box(5, 0, 3, 3))]
    path = write_layer(tmp_path / "fields.fgb", rows, REAL, driver="FlatGeobuf")  # GeoPackage keeps no NaN
    with pytest.raises(DatasetError, match=rf"CLASS_FIELD crop of LABELS .* the value {value:g}\. .*0 to 255"):
        burn(path)


@pytest.mark.parametrize("kind", [ogr.OFTDate, ogr.OFTStringList, ogr.OFTIntegerList])
def test_a_field_of_another_kind_is_refused(tmp_path: Path, kind: int, gdal_errors: str) -> None:
    value = {ogr.OFTDate: "2024/01/31", ogr.OFTStringList: ["a"], ogr.OFTIntegerList: [1, 2]}[kind]
    feature = {"type": "Feature", "properties": {"crop": value}}
    feature["geometry"] = {"type": "Point", "coordinates": [15.0, 52.34]}
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    with pytest.raises(ConfigError, match=r"CLASS_FIELD crop .*(whole numbers|text)"):
        burn(path)


@pytest.mark.parametrize("kind", [TEXT, INTEGER, REAL])
def test_features_without_a_class_or_a_geometry_are_left_out_with_a_warning(tmp_path: Path, kind: int) -> None:
    one, two = ("a", "b") if kind == TEXT else (1, 2)
    rows = [(one, box(0, 0, 3, 3)), (None, box(1, 1, 3, 3)), (two, ""), (two, "POLYGON EMPTY")]
    rows += [("", box(6, 6, 3, 3)), ("  ", box(6, 6, 3, 3))] if kind == TEXT else []
    progress = Recorder()
    values, _ = burn(write_layer(tmp_path / "a.gpkg", rows, kind), progress=progress)
    assert np.count_nonzero(values) == 9
    count = len(rows) - 1
    assert [text for text in progress.warnings if f" {count} feature(s)" in text] == progress.warnings


def test_when_no_feature_has_a_class_the_field_is_doubted(tmp_path: Path) -> None:
    path = write_layer(tmp_path / "a.gpkg", [(None, box(0, 0, 3, 3)), (None, box(5, 0, 3, 3))])
    with pytest.raises(DatasetError, match=r"No feature of LABELS .* has a class.*CLASS_FIELD"):
        burn(path)


def test_where_polygons_overlap_the_last_one_wins_and_the_log_counts(tmp_path: Path) -> None:
    rows = [("b", box(0, 0, 10, 10)), ("a", box(5, 5, 10, 10)), ("c", box(6, 0, 3, 7)), ("a", box(25, 0, 5, 5))]
    progress = Recorder()
    values, _ = burn(write_layer(tmp_path / "a.gpkg", rows), progress=progress)
    wanted = np.zeros_like(values)
    wanted[:10, :10], wanted[5:15, 5:15], wanted[:7, 6:9], wanted[:5, 25:] = 2, 1, 3, 1
    assert np.array_equal(values, wanted)
    assert len(progress.warnings) == 1
    assert "40 pixels" in progress.warnings[0] and "last one" in progress.warnings[0]
    progress = Recorder()
    values, _ = burn(write_layer(tmp_path / "b.gpkg", rows[::-1]), progress=progress)
    assert values[6, 6] == 2 and "40 pixels" in progress.warnings[0]


def test_many_polygons_on_one_pixel_are_still_an_overlap(tmp_path: Path) -> None:
    progress = Recorder()
    burn(write_layer(tmp_path / "a.gpkg", [("a", box(0, 0, 2, 2))] * 257), progress=progress)
    assert "4 pixels" in progress.warnings[0]


def test_polygons_that_touch_do_not_overlap(tmp_path: Path) -> None:
    rows = [(name, box(5 * index, 0, 5, 20)) for index, name in enumerate("abcdef")]
    progress = Recorder()
    values, _ = burn(write_layer(tmp_path / "a.gpkg", rows), progress=progress)
    assert np.array_equal(values, np.repeat(np.arange(1, 7), 5) * np.ones((20, 1)))
    assert progress.warnings == []


@pytest.mark.parametrize("crs", [32633, 4326])
def test_points_burn_single_pixels(tmp_path: Path, crs: int) -> None:
    rows = [("b", point(3.2, 4.9)), ("a", point(29.5, 19.5)), ("a", point(0.5, 0.5)), ("b", point(-3, 4))]
    rows.append(("c", "MULTIPOINT ({} {}, {} {})".format(*GRID.ground(10.5, 2.5), *GRID.ground(11.5, 2.5))))
    progress = Recorder()
    path = write_layer(tmp_path / "a.gpkg", [(name, moved(wkt, crs)) for name, wkt in rows], crs=crs)
    values, _ = burn(path, progress=progress)
    wanted = np.zeros_like(values)
    wanted[4, 3], wanted[19, 29], wanted[0, 0], wanted[2, 10:12] = 2, 1, 1, 3
    assert np.array_equal(values, wanted)
    assert progress.warnings == []


@pytest.mark.parametrize("geometry", [ogr.wkbLineString, ogr.wkbMultiLineString, ogr.wkbUnknown])
def test_lines_are_refused(tmp_path: Path, geometry: int) -> None:
    line = "LINESTRING (500000 5799900, 500100 5799900)"
    line = f"MULTI{line[:11]}({line[11:]})" if geometry == ogr.wkbMultiLineString else line
    path = write_layer(tmp_path / "a.gpkg", [("a", line)], geometry=geometry)
    with pytest.raises(ConfigError, match=r"LABELS .*a\.gpkg holds neither polygons nor points.*Buffer"):
        burn(path)


def test_a_table_without_geometry_is_refused(tmp_path: Path) -> None:
    path = write_layer(tmp_path / "a.gpkg", [("a", "")], geometry=ogr.wkbNone, crs=None)
    with pytest.raises(ConfigError, match="neither polygons nor points"):
        burn(path)


def test_the_class_field_must_be_named_and_exist(tmp_path: Path) -> None:
    path = write_layer(tmp_path / "a.gpkg", [("a", box(0, 0, 3, 3))])
    with pytest.raises(ConfigError, match=r"CLASS_FIELD is not set.*year, crop, note"):
        burn(path, None)
    with pytest.raises(ConfigError, match=r"CLASS_FIELD is 'corp', .*crop.*year, crop, note") as caught:
        burn(path, "corp")
    assert str(caught.value).index("crop") < str(caught.value).index("It has"), "the nearest one is offered"
    with pytest.raises(ConfigError, match=r"CLASS_FIELD is 'zzz'.*It has: year, crop, note"):
        burn(path, "zzz")


def test_one_of_several_layers_must_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    write_layer(path, [("a", box(0, 0, 3, 3))], name="crops")
    write_layer(path, [("b", box(9, 9, 3, 3))], name="roads & ä")
    with pytest.raises(ConfigError, match=r"holds 2 layers \(crops, roads & ä\).*\|layername="):
        burn(path)
    assert burn(f"{path}|layername=crops")[0][1, 1] == 1
    values, names = burn(f"{path}|layername=roads & ä")
    assert values[10, 10] == 1 and values[1, 1] == 0 and names == {1: "b"}
    with pytest.raises(ConfigError, match=r"no layer 'corps'.*crops"):
        burn(f"{path}|layername=corps")


def test_a_filter_takes_some_features(tmp_path: Path, gdal_errors: str) -> None:
    rows = [("a", box(0, 0, 3, 3)), ("b", box(5, 0, 3, 3)), ("c=d", box(10, 0, 3, 3))]
    path = write_layer(tmp_path / "a.gpkg", rows)
    for subset, columns in (('"year" >= 2021', (6, 11)), ("crop = 'c=d'", (11,)), ("crop IN ('a','b')", (1, 6))):
        for source in (f"{path}|layername=fields|subset={subset}", f"{path}|subset={subset}"):
            values, _ = burn(source)
            assert set(np.flatnonzero(values[1]) // 5) == {column // 5 for column in columns}
            assert np.count_nonzero(values) == 9 * len(columns)
    with pytest.raises(ConfigError, match="the filter 'no such field = 3' cannot be used"):
        burn(f"{path}|subset=no such field = 3")


def test_a_filter_may_hold_a_bar(tmp_path: Path) -> None:
    rows = [("a|b", box(0, 0, 3, 3)), ("c", box(5, 0, 3, 3))]
    path = write_layer(tmp_path / "a.gpkg", rows)
    values, names = burn(f"{path}|layername=fields|subset=crop = 'a|b'")
    assert names == {1: "a|b", 2: "c"} and np.count_nonzero(values) == 9


def test_a_filter_changes_no_class_id(tmp_path: Path) -> None:
    rows = [("b", box(0, 0, 3, 3)), ("a", box(5, 0, 3, 3)), ("c", box(10, 0, 3, 3))]
    path = write_layer(tmp_path / "a.gpkg", rows)
    values, names = burn(f"{path}|layername=fields|subset=crop = 'c'")
    assert set(np.unique(values)) == {0, 3} and names == {1: "a", 2: "b", 3: "c"}


def test_no_common_ground_is_an_error(tmp_path: Path, gdal_errors: str) -> None:
    for number, (crs, rows) in enumerate(
        (
            (32633, [("a", box(40, 0, 3, 3)), ("b", box(0, -900, 3, 3))]),
            (32633, [("a", box(30, 0, 3, 3))]),  # touches
            (4326, [("a", "POLYGON ((10 10, 11 10, 11 11, 10 11, 10 10))")]),
            (4326, [("a", "POLYGON ((52.3 15, 52.4 15, 52.4 15.1, 52.3 15.1, 52.3 15))")]),  # latitude first
        )
    ):
        path = write_layer(tmp_path / f"{number}.gpkg", rows, crs=crs)
        with pytest.raises(RasterError, match=r"LABELS .*gpkg and the image have no common ground"):
            burn(path)


def test_a_layer_without_features_is_named(tmp_path: Path) -> None:
    for number, geometry in enumerate((ogr.wkbPolygon, ogr.wkbUnknown)):
        empty = write_layer(tmp_path / f"{number}.gpkg", [], geometry=geometry)
        with pytest.raises(DatasetError, match=r"LABELS .*gpkg holds no feature\."):
            burn(empty)
    path = write_layer(tmp_path / "some.gpkg", [("a", box(0, 0, 3, 3))])
    with pytest.raises(DatasetError, match=r"holds no feature that fits the filter\."):
        burn(f"{path}|subset=year > 2050")


def test_axis_order_of_geographic_coordinates_is_x_before_y(tmp_path: Path) -> None:
    """Files hold longitude first, though EPSG:4326 itself names latitude first."""
    rows = [("a", moved(box(4, 2, 6, 8), 4326))]
    longitude = float(rows[0][1].split("((")[1].split(" ")[0])
    assert 14 < longitude < 16
    path = write_layer(tmp_path / "a.gpkg", rows, crs=4326)
    wanted = np.zeros((20, 30))
    wanted[2:10, 4:10] = 1
    assert np.array_equal(burn(path)[0], wanted)
    wgs84 = reference(4326).ExportToWkt()
    corner = osr.CoordinateTransformation(reference(32633), reference(4326)).TransformPoint(*GRID.ground(0, 0))
    grid = Grid(30, 20, (corner[0], 1e-4, 0.0, corner[1], 0.0, -1e-4), wgs84)
    values, _ = burn(write_layer(tmp_path / "b.gpkg", [("a", box(-20, -20, 90, 90))]), grid=grid)
    assert values.all(), "polygons in UTM on a grid in degrees"


def test_missing_coordinate_systems(tmp_path: Path, gdal_errors: str) -> None:
    rows = [("a", box(0, 0, 3, 3))]
    without = write_layer(tmp_path / "without.gpkg", rows, crs=None)
    there = write_layer(tmp_path / "there.gpkg", rows)
    bare = Grid(30, 20, TRANSFORM)
    progress = Recorder()
    values, _ = burn(without, progress=progress, grid=bare)
    assert values[1, 1] == 1 and "no coordinate system" in progress.warnings[0]
    with pytest.raises(RasterError, match=r"^The image has no coordinate system.*Assign Projection"):
        burn(there, grid=bare)
    with pytest.raises(RasterError, match=r"^LABELS .*without\.gpkg has no coordinate system.*Assign projection"):
        burn(without)


def test_features_that_lie_beyond_the_projection_are_left_out(tmp_path: Path, gdal_errors: str) -> None:
    far = "POLYGON ((-75 89, -74 89, -74 91, -75 91, -75 89))"  # latitude 91
    path = write_layer(tmp_path / "a.gpkg", [("far", far), ("near", moved(box(0, 0, 3, 3), 4326))], crs=4326)
    progress = Recorder()
    values, names = burn(path, progress=progress)
    assert names == {1: "far", 2: "near"} and values[1, 1] == 2 and np.count_nonzero(values) == 9
    assert any("1 feature(s)" in text for text in progress.warnings)


@pytest.mark.parametrize("kind", [INTEGER, REAL])
def test_zero_becomes_a_class_only_where_a_feature_says_0(tmp_path: Path, kind: int) -> None:
    rows = [(0, box(0, 0, 3, 3)), (1, box(5, 0, 3, 3))]
    path = write_layer(tmp_path / "a.gpkg", rows, kind)
    progress = Recorder()
    assert np.count_nonzero(burn(path, progress=progress)[0]) == 9
    assert [text for text in progress.warnings if "CLASS_FIELD crop holds the value 0" in text]
    progress = Recorder()
    values, _ = burn(path, zero_as=9, progress=progress)
    assert values[1, 1] == 9 and values[1, 6] == 1 and np.count_nonzero(values) == 18
    assert not progress.warnings
    with pytest.raises(ConfigError, match=r"ZERO_AS is 1, but CLASS_FIELD crop already holds a class 1"):
        burn(path, zero_as=1)
    free = write_layer(tmp_path / "b.gpkg", rows[1:], kind)
    assert burn(free, zero_as=1)[0][1, 6] == 1, "nothing to take the place of"


def test_names_that_differ_by_blanks_at_their_ends_are_one_class(tmp_path: Path) -> None:
    rows = [("wood", box(0, 0, 3, 3)), ("wood ", box(5, 0, 3, 3)), (" field", box(0, 5, 3, 3))]
    values, names = burn(write_layer(tmp_path / "a.gpkg", rows))
    assert names == {1: "field", 2: "wood"}
    assert values[1, 1] == values[1, 6] == 2 and values[6, 1] == 1


@pytest.mark.parametrize("order", [1, -1])
def test_a_layer_of_points_polygons_and_lines(tmp_path: Path, order: int) -> None:
    """Whatever comes first: overlaps and meetings are told, and lines are left out."""
    line = "LINESTRING (400000 5800000, 400100 5799900)"
    nested = f"GEOMETRYCOLLECTION ({point(9.5, 7.5)}, {point(10.5, 7.5)})"
    rows = [
        ("a", point(9.5, 0.5)),
        ("b", point(9.5, 0.5)),
        ("a", box(0, 0, 3, 3)),
        ("b", box(1, 1, 3, 3)),
        ("c", line),
        ("d", nested),
    ]
    progress = Recorder()
    values, names = burn(write_layer(tmp_path / "a.gpkg", rows[::order]), progress=progress)
    said = " ".join(progress.warnings)
    assert "5 pixels lie in several features" in said
    assert "1 feature(s) are neither polygons nor points" in said
    assert names == {1: "a", 2: "b", 3: "c", 4: "d"} and (values[7, 9:11] == 4).all() and not (values == 3).any()
    assert "different classes" in said


def test_text_in_an_encoding_that_no_file_tells(tmp_path: Path) -> None:
    rows = [("Gruenland", box(0, 0, 3, 3)), ("Wald", box(5, 0, 3, 3))]
    path = write_layer(tmp_path / "a.shp", rows, name="a", geometry=ogr.wkbPolygon, driver="ESRI Shapefile")
    path.with_suffix(".cpg").unlink(missing_ok=True)
    table = path.with_suffix(".dbf")
    table.write_bytes(table.read_bytes().replace(b"Gruenland", "Grünland ".encode("latin-1")))
    content = bytearray(table.read_bytes())
    content[29] = 0  # no code page
    table.write_bytes(bytes(content))
    with pytest.raises(
        DatasetError, match=r"CLASS_FIELD crop of LABELS .*a\.shp holds text whose encoding.*GeoPackage"
    ):
        burn(path)
    path.with_suffix(".cpg").write_text("ISO-8859-1")
    assert burn(path)[1] == {1: "Grünland", 2: "Wald"}


def test_cancel_stops_at_every_moment(tmp_path: Path, gdal_errors: str) -> None:
    rows = [(f"n{number % 50}", box(number % 30, number % 20, 3, 3)) for number in range(3000)]
    path = write_layer(tmp_path / "a.gpkg", rows)
    counted = Recorder()
    burn(path, progress=counted)
    assert counted.checks > 6
    assert counted.shares == sorted(counted.shares)
    for moment in range(1, counted.checks + 1):
        with pytest.raises(Canceled):
            burn(path, progress=Recorder(cancel_at=moment))


@pytest.mark.parametrize("size", [0, 3000])
def test_a_full_disk_ends_with_a_sentence(tmp_path: Path, gdal_errors: str, size: int) -> None:
    path = write_layer(tmp_path / "a.gpkg", [("a", box(0, 0, 1000, 1000)), ("b", point(2, 2))])
    grid = Grid(1000, 1000, TRANSFORM, utm())
    random = np.random.default_rng(1)
    rows = [(f"n{number}", box(*random.integers(0, 990, 2), 7, 7)) for number in range(200)]
    path = write_layer(tmp_path / "b.gpkg", rows)
    with full_disk(size), pytest.raises(RasterError, match=r"cannot be (written|burned)"):
        burn(path, grid=grid)


def test_what_cannot_be_opened_is_named(tmp_path: Path, gdal_errors: str) -> None:
    (tmp_path / "a.gpkg").write_text("hello")
    for name in ("a.gpkg", "missing.gpkg"):
        with pytest.raises(RasterError, match=rf"LABELS .*{name} cannot be opened"):
            burn(tmp_path / name)


def test_vectors_are_told_from_rasters(tmp_path: Path, gdal_errors: str) -> None:
    raster = write_raster(tmp_path / "r.tif", np.ones((8, 8), np.uint8))
    vector = write_layer(tmp_path / "ä v.gpkg", [("a", box(0, 0, 3, 3))])
    assert is_vector(str(vector)) and is_vector(f"{vector}|layername=fields|subset=year = 1")
    assert not is_vector(str(raster)) and not is_vector(str(tmp_path / "missing.tif"))
    both = tmp_path / "both.gpkg"
    gdal.Translate(str(both), str(raster), format="GPKG")
    write_layer(both, [("a", box(0, 0, 3, 3))])
    assert is_vector(f"{both}|layername=fields"), "a layer's name tells which of the two is meant"
    assert not is_vector(str(both))


def test_sources_are_taken_apart() -> None:
    for text, parts in (
        ("a b.shp", ("a b.shp", "", "")),
        ("a.gpkg|layername=x y|subset=a = 'b=c'", ("a.gpkg", "x y", "a = 'b=c'")),
        ("a.gpkg|LayerName=x|geometrytype=Polygon", ("a.gpkg", "x", "")),
        ("a.gpkg|layername=x|subset=a = 'b|c' OR d|geometrytype=Point", ("a.gpkg", "x", "a = 'b|c' OR d")),
    ):
        assert VectorSource.parse(text) == VectorSource(text, *parts)


def test_a_class_of_which_no_pixel_is_left_is_told(tmp_path: Path) -> None:
    small = [("orchard", box(x + 0.6, 3.6, 0.3, 0.3)) for x in (2, 7, 12)]
    rows = [("wheat", box(0, 0, 20, 10)), *small, ("maize", box(25, 0, 5, 5)), ("far", box(900, 0, 5, 5))]
    progress = Recorder()
    values, names = burn(write_layer(tmp_path / "a.gpkg", rows), progress=progress)
    assert {names[value] for value in np.unique(values[values > 0])} == {"wheat", "maize"}
    assert len(progress.warnings) == 1 and "get no pixel: orchard (3 features)." in progress.warnings[0]
    progress = Recorder()
    covered = [("below", box(1, 1, 2, 2)), ("above", box(0, 0, 9, 9))]
    burn(write_layer(tmp_path / "b.gpkg", covered), progress=progress)
    assert "get no pixel: below (1 features)" in progress.warnings[-1]


def test_points_of_two_classes_in_a_pixel_are_told(tmp_path: Path) -> None:
    rows = [("a", point(3.2, 4.2)), ("b", point(3.8, 4.9)), ("a", point(7.1, 2.2)), ("a", point(7.6, 2.6))]
    rows += [("b", point(12.5, 2.5)), ("a", point(-3.2, 4.2)), ("b", point(-3.3, 4.3))]
    progress = Recorder()
    values, _ = burn(write_layer(tmp_path / "a.gpkg", rows), progress=progress)
    assert values[4, 3] == 2 and values[2, 7] == 1
    assert progress.warnings == [
        "LABELS: 1 pixels hold points of different classes; the last one in the layer wins.",
    ]


def test_numbers_as_text_are_names_and_that_is_told(tmp_path: Path) -> None:
    rows = [(text, box(5 * index, 0, 5, 5)) for index, text in enumerate(("0", "1", "2", "10"))]
    progress = Recorder()
    values, names = burn(write_layer(tmp_path / "a.gpkg", rows), progress=progress)
    assert values[0, ::5].tolist()[:4] == [1, 2, 4, 3] and names == {1: "0", 2: "1", 3: "10", 4: "2"}
    assert "holds numbers as text" in progress.warnings[0] and "'10' is class 3" in progress.warnings[0]
    progress = Recorder()
    burn(write_layer(tmp_path / "b.gpkg", [*rows, ("oats", box(25, 0, 5, 5))]), progress=progress)
    assert not progress.warnings
