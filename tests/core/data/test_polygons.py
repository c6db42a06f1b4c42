# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of class maps as polygons."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal, ogr, osr

from specdeepmap.core.data.classes import ClassTable
from specdeepmap.core.data.polygons import companions, other_layers, polygonize
from specdeepmap.core.errors import Canceled, RasterError
from specdeepmap.core.progress import Progress
from tests.helpers import TRANSFORM, Array, Recorder, full_disk, snapshot, utm, write_raster

# With GDAL's exceptions on, its destructor complains once more about the full disk.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CLASSES = ClassTable.of([1, 2, 7], {1: "Wälder und Äcker", 2: "水", 7: 'bare, "rock"'})
FILES = {
    ".gpkg": {".gpkg"},
    ".shp": {".shp", ".shx", ".dbf", ".prj", ".cpg"},
    ".geojson": {".geojson"},
    ".json": {".json"},
    ".fgb": {".fgb"},
}
every_format = pytest.mark.parametrize("suffix", FILES)


@dataclass(frozen=True)
class Layer:
    """What a vector file holds."""

    name: str
    crs: osr.SpatialReference | None
    fields: list[tuple[str, str]]
    rows: list[tuple[int, str, float | None]]
    shapes: list[ogr.Geometry]


def read(path: Path) -> Layer:
    """Read a file that must hold one layer of simple, valid polygons."""
    dataset = gdal.OpenEx(str(path), gdal.OF_VECTOR)
    assert dataset.GetLayerCount() == 1
    layer = dataset.GetLayer(0)
    definition = layer.GetLayerDefn()
    fields = [definition.GetFieldDefn(index) for index in range(definition.GetFieldCount())]
    features = list(layer)
    shapes = [feature.GetGeometryRef().Clone() for feature in features]
    assert all(shape.IsValid() for shape in shapes)
    crs = layer.GetSpatialRef()
    return Layer(
        layer.GetName(),
        None if crs is None else crs.Clone(),
        [(field.GetName(), field.GetTypeName()) for field in fields],
        [tuple(feature.GetField(name) for name in ("class_id", "class_name", "area_m2")) for feature in features],
        shapes,
    )


def polygons_of(
    tmp_path: Path,
    values: Array,
    suffix: str = ".gpkg",
    *,
    crs: str | None = None,
    transform: Sequence[float] | None = TRANSFORM,
    options: Sequence[str] = (),
    progress: Progress | None = None,
) -> Layer:
    class_map = write_raster(
        tmp_path / "in" / "map.tif",
        np.asarray(values, np.uint8),
        nodata=0,
        crs=crs,
        transform=transform,
        options=options,
    )
    (tmp_path / "out").mkdir(exist_ok=True)
    polygonize(class_map, tmp_path / "out" / f"ä b{suffix}", CLASSES, progress or Progress())
    return read(tmp_path / "out" / f"ä b{suffix}")


def system(definition: str) -> str:
    """Give the WKT of a CRS."""
    reference = osr.SpatialReference()
    reference.SetFromUserInput(definition)
    return str(reference.ExportToWkt())


def burned(layer: Layer, rows: int, columns: int) -> Array:
    """Burn polygons onto the grid of the test images, with GDAL alone."""
    reference = osr.SpatialReference(utm())
    reference.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    raster = gdal.GetDriverByName("MEM").Create("", columns, rows, 1)
    raster.SetGeoTransform(TRANSFORM)
    raster.SetProjection(utm())
    memory = ogr.GetDriverByName("Memory").CreateDataSource("")
    copy = memory.CreateLayer("a", reference)
    copy.CreateField(ogr.FieldDefn("value", ogr.OFTInteger))
    assert layer.crs is not None
    layer.crs.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    back = osr.CoordinateTransformation(layer.crs, reference)
    for row, shape in zip(layer.rows, layer.shapes, strict=True):
        shape.Transform(back)
        feature = ogr.Feature(copy.GetLayerDefn())
        feature.SetField(0, row[0])
        feature.SetGeometry(shape)
        copy.CreateFeature(feature)
    gdal.RasterizeLayer(raster, [1], copy, options=["ATTRIBUTE=value"])
    return np.asarray(raster.ReadAsArray())


@every_format
def test_one_layer_with_fields_place_and_pixels(tmp_path: Path, random: np.random.Generator, suffix: str) -> None:
    values = random.choice([0, 1, 2, 7], (33, 40))
    layer = polygons_of(tmp_path, values, suffix)
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == FILES[suffix], "and no draft"
    assert all(path.is_file() for path in (tmp_path / "out").iterdir())
    assert layer.fields == [("class_id", "Integer"), ("class_name", "String"), ("area_m2", "Real")]
    assert layer.name == ("ä b" if suffix == ".shp" else "classes")
    names = {entry.value: entry.name for entry in CLASSES.entries}
    assert {row[0] for row in layer.rows} == set(names)
    assert all(row[1] == names[row[0]] for row in layer.rows)
    assert layer.crs is not None
    assert layer.crs.GetAuthorityCode(None) == ("4326" if "json" in suffix else "32633")
    assert np.array_equal(burned(layer, 33, 40), values)


@every_format
def test_areas_are_those_of_the_pixels(tmp_path: Path, random: np.random.Generator, suffix: str) -> None:
    values = random.choice([0, 1, 2, 7], (33, 40))
    rows = polygons_of(tmp_path, values, suffix).rows
    for value in CLASSES.values:
        areas = sum(row[2] or 0.0 for row in rows if row[0] == value)
        assert areas == pytest.approx(100.0 * (values == value).sum(), rel=0.005)


@every_format
def test_a_map_without_classes_gives_a_layer_without_polygons(tmp_path: Path, suffix: str, gdal_errors: str) -> None:
    layer = polygons_of(tmp_path, np.zeros((20, 30)), suffix)
    assert layer.rows == []
    if "json" not in suffix:  # it has fields only where it has features
        assert [name for name, _ in layer.fields] == ["class_id", "class_name", "area_m2"]
        assert layer.crs is not None and layer.crs.GetAuthorityCode(None) == "32633"
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == FILES[suffix]


def test_geopackage_is_a_file_of_sqlite(tmp_path: Path) -> None:
    polygons_of(tmp_path, np.ones((4, 4)))
    assert (tmp_path / "out" / "ä b.gpkg").read_bytes().startswith(b"SQLite format 3")
    polygons_of(tmp_path, np.ones((4, 4)), ".fgb")
    assert (tmp_path / "out" / "ä b.fgb").read_bytes().startswith(b"fgb")


@every_format
def test_a_second_run_replaces_the_first(tmp_path: Path, suffix: str) -> None:
    polygons_of(tmp_path, np.arange(64).reshape(8, 8) % 2 + 1, suffix)
    assert len(polygons_of(tmp_path, np.ones((8, 8)), suffix).rows) == 1


def test_upper_case_suffix(tmp_path: Path) -> None:
    assert len(polygons_of(tmp_path, np.ones((4, 4)), ".GPKG").rows) == 1


def test_a_patch_over_many_blocks_is_one_polygon(tmp_path: Path) -> None:
    values = np.ones((100, 120))
    values[40:60, 50:70] = 2
    tiled = ("TILED=YES", "BLOCKXSIZE=16", "BLOCKYSIZE=16")
    layer = polygons_of(tmp_path, values, options=tiled)
    assert sorted(row[0] for row in layer.rows) == [1, 2]
    outer = layer.shapes[[row[0] for row in layer.rows].index(1)]
    assert outer.GetGeometryName() == "POLYGON" and outer.GetGeometryCount() == 2, "with a hole"


def test_pixels_that_touch_at_corners_are_apart(tmp_path: Path) -> None:
    layer = polygons_of(tmp_path, [[1, 0, 2], [0, 1, 2], [1, 0, 1]])
    assert sorted(row[0] for row in layer.rows) == [1, 1, 1, 1, 2]


def test_a_class_without_a_name(tmp_path: Path) -> None:
    assert [row[:2] for row in polygons_of(tmp_path, [[9]]).rows] == [(9, "")]


def test_geojson_is_as_the_standard_wants_it(tmp_path: Path) -> None:
    polygons_of(tmp_path, np.ones((4, 4)), ".geojson")
    document = json.loads((tmp_path / "out" / "ä b.geojson").read_text(encoding="utf-8"))
    assert "crs" not in document
    (x, y), *_ = document["features"][0]["geometry"]["coordinates"][0]
    assert (x, y) == (pytest.approx(15.0, abs=0.01), pytest.approx(52.35, abs=0.01))
    assert document["features"][0]["properties"]["class_name"] == "Wälder und Äcker"


def test_shapefile_says_that_it_is_utf8(tmp_path: Path) -> None:
    polygons_of(tmp_path, np.ones((4, 4)), ".shp")
    assert (tmp_path / "out" / "ä b.cpg").read_text() == "UTF-8"


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".fgb", ".shp"])
def test_a_map_without_crs_has_areas_in_map_units(tmp_path: Path, suffix: str) -> None:
    values = np.zeros((300, 8))
    values[200:] = 1  # farther from the origin than any latitude
    layer = polygons_of(tmp_path, values, suffix, crs="", transform=(0, 0.5, 0, 0, 0, -0.5))
    assert [row[2] for row in layer.rows] == [200.0]
    assert layer.shapes[0].GetEnvelope() == (0.0, 4.0, -150.0, -100.0)


def test_large_areas_fit_into_a_shapefile(tmp_path: Path, gdal_errors: str) -> None:
    layer = polygons_of(tmp_path, np.ones((40, 33)), ".shp", transform=(3e5, 20_000, 0, 6e6, 0, -20_000))
    assert layer.rows[0][2] == pytest.approx(1320 * 4e8, rel=0.1)  # UTM stretches what is far from its meridian
    layer = polygons_of(tmp_path, np.ones((1, 1)), ".shp", transform=(3e5, 0.03, 0, 6e6, 0, -0.03))
    assert layer.rows[0][2] == pytest.approx(9e-4, rel=1e-2)


def test_areas_in_feet_become_square_metres(tmp_path: Path) -> None:
    feet = 'LOCAL_CS["site",UNIT["foot",0.3048]]'
    layer = polygons_of(tmp_path, np.ones((4, 5)), crs=feet, transform=(0, 10, 0, 0, 0, -10))
    assert layer.rows[0][2] == pytest.approx(2000 * 0.3048**2)


def on_a_sphere(south: float, north: float, width: float) -> float:
    """Give the area between two parallels, in square metres; angles in degrees. The radius has the Earth's surface."""
    radius = 6371007.181
    return radius**2 * math.radians(width) * (math.sin(math.radians(north)) - math.sin(math.radians(south)))


@pytest.mark.parametrize("west", [13.0, 179.95, -180.0, 359.0])
@pytest.mark.parametrize("north", [89.9, 52.0, 0.1, -70.0])
def test_areas_in_degrees(tmp_path: Path, west: float, north: float) -> None:
    values = np.ones((8, 10))
    values[6:] = 2
    step = 0.1 / 8
    layer = polygons_of(tmp_path, values, crs=system("EPSG:4326"), transform=(west, step, 0, north, 0, -step))
    areas = {row[0]: row[2] for row in layer.rows}
    assert areas[1] == pytest.approx(on_a_sphere(north - 6 * step, north, 10 * step), rel=0.01)
    assert areas[2] == pytest.approx(on_a_sphere(north - 8 * step, north - 6 * step, 10 * step), rel=0.01)


WORLDS = pytest.mark.parametrize("west", [-180.0, 0.0, 20.0, -0.125, -180.125, 179.875])


@WORLDS
def test_areas_of_the_whole_world(tmp_path: Path, west: float) -> None:
    values = np.ones((18, 36))
    values[:9] = 2
    layer = polygons_of(tmp_path, values, crs=system("EPSG:4326"), transform=(west, 10, 0, 90, 0, -10))
    for row in layer.rows:
        assert row[2] == pytest.approx(5.100656e14 / 2, rel=1e-5), "of WGS 84"


@WORLDS
def test_areas_at_the_edges_of_the_world(tmp_path: Path, west: float) -> None:
    """An edge beyond half a turn is no edge on the other side of the Earth."""
    values = np.zeros((18, 36))
    values[8, :2], values[8, -2:] = 1, 2
    layer = polygons_of(tmp_path, values, crs=system("EPSG:4326"), transform=(west, 10, 0, 90, 0, -10))
    wanted = pytest.approx(on_a_sphere(0, 10, 20), rel=0.01)
    assert [row[2] for row in layer.rows] == [wanted, wanted]


@every_format
def test_a_rotated_pole(tmp_path: Path, suffix: str, gdal_errors: str) -> None:
    """As weather models have it; such a CRS can only be written as WKT 2."""
    rotated = osr.SpatialReference()
    rotated.SetFromUserInput("+proj=ob_tran +o_proj=longlat +o_lat_p=39.25 +o_lon_p=0 +lon_0=18 +datum=WGS84 +type=crs")
    crs, recorder = rotated.ExportToWkt(["FORMAT=WKT2_2019"]), Recorder()
    transform = (0, 0.01, 0, 0.05, 0, -0.01)
    layer = polygons_of(tmp_path, np.ones((10, 20)), suffix, crs=crs, transform=transform, progress=recorder)
    assert layer.rows[0][2] == pytest.approx(on_a_sphere(-0.05, 0.05, 0.2), rel=0.01)
    assert layer.shapes[0].GetEnvelope() == pytest.approx((0, 0.2, -0.05, 0.05))
    assert "has no coordinate system" in recorder.warnings[0]


@pytest.mark.parametrize(
    ("crs", "centre", "scale"),
    [
        ("EPSG:3857", (0.0, 8399737.89), 1.99497 * 1.99837),  # at 60 degrees north: lengths by east and by north
        ("EPSG:3031", (0.0, 0.0), 0.97276901**2),  # scale factor 1 at 71 degrees south, this one at the pole
        ("EPSG:32633", (500000.0, 5.8e6), 0.9996**2),
        ("EPSG:2263", (984000.0, 200000.0), 1 / 0.3048006**2),
        ("+proj=eqc +R=3396190 +units=m", (0.0, 0.0), 1.0),  # Mars
    ],
)
def test_areas_are_those_on_the_ground(tmp_path: Path, crs: str, centre: tuple[float, float], scale: float) -> None:
    transform = (centre[0] - 50, 10, 0, centre[1] + 50, 0, -10)
    layer = polygons_of(tmp_path, np.ones((10, 10)), crs=system(crs), transform=transform)
    assert layer.rows[0][2] == pytest.approx(10000 / scale, rel=0.002)


def test_long_edges_are_not_straight_on_the_ground(tmp_path: Path) -> None:
    """A comb of 200 km at 60 degrees north, in Web Mercator: its back is an arc that rises more than a kilometre."""
    values = np.zeros((40, 100))
    values[0] = 1
    values[1, ::2] = 1
    pixel, top, radius = 4000.0, 8399737.89, 6378137.0
    layer = polygons_of(tmp_path, values, crs=system("EPSG:3857"), transform=(0, pixel, 0, top, 0, -pixel))
    north, middle, south = (
        math.degrees(2 * math.atan(math.exp((top - row * pixel) / radius)) - math.pi / 2) for row in range(3)
    )
    width = math.degrees(100 * pixel / radius)
    wanted = on_a_sphere(middle, north, width) + on_a_sphere(south, middle, width / 2)
    assert [row[2] for row in layer.rows] == [pytest.approx(wanted, rel=0.01)]


def test_rotated_grid(tmp_path: Path) -> None:
    turn = math.radians(30)
    a, b = 10 * math.cos(turn), 10 * math.sin(turn)
    layer = polygons_of(tmp_path, np.ones((8, 9)), transform=(500000.0, a, b, 5800000.0, b, -a))
    assert layer.rows[0][2] == pytest.approx(7200.0, rel=0.005)


def test_outside_of_the_projection_there_is_no_area_but_a_polygon(tmp_path: Path, gdal_errors: str) -> None:
    values = np.array([[1, 0, 0], [0, 2, 0], [0, 0, 0]])  # the upper left corner of a geostationary image is space
    transform = (-5.5e6, 3.6e6, 0, 5.5e6, 0, -3.6e6)
    layer = polygons_of(tmp_path, values, crs=system("+proj=geos +h=35785831 +lon_0=0"), transform=transform)
    areas = {row[0]: row[2] for row in layer.rows}
    assert areas[1] is None and areas[2] is not None


class Late(Recorder):
    """Canceled from the check of this number on."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def check(self) -> None:
        if self.checks + 1 >= self._number:
            self.cancel()
        super().check()


@every_format
@pytest.mark.parametrize("check", [1, 10, 40, 65, 67])
def test_cancel_leaves_no_draft(
    tmp_path: Path, random: np.random.Generator, suffix: str, check: int, gdal_errors: str
) -> None:
    values = random.integers(1, 3, (60, 60)).astype(np.uint8)
    class_map = write_raster(tmp_path / "map.tif", values, nodata=0)
    before = snapshot(tmp_path)
    target = tmp_path / f"a{suffix}"
    progress = Late(check)
    with pytest.raises(Canceled):
        polygonize(class_map, target, CLASSES, progress)
    for path in (target, *companions(target)):  # the caller's, who has staged them
        path.unlink(missing_ok=True)
    assert snapshot(tmp_path) == before
    assert tmp_path / "a.draft.fgb" in progress.staged_paths, "so that a killed process leaves none, either"


@every_format
@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_full_disk_is_noticed_and_leaves_no_draft(
    tmp_path: Path, random: np.random.Generator, suffix: str, share: float, gdal_errors: str
) -> None:
    classes = ClassTable.of([1, 2], dict.fromkeys([1, 2], "a long name " * 20))  # the target is larger than the draft
    values = random.integers(1, 3, (60, 60)).astype(np.uint8)
    class_map = write_raster(tmp_path / "map.tif", values, nodata=0)
    target = tmp_path / f"a{suffix}"
    polygonize(class_map, target, classes, Progress())
    files = [path for path in (target, *companions(target)) if path.exists()]
    size = max(path.stat().st_size for path in files)
    for path in files:
        path.unlink()
    before = snapshot(tmp_path)
    with full_disk(int(size * share)), pytest.raises(RasterError, match="disk full"):
        polygonize(class_map, target, classes, Progress())
    for path in (target, *companions(target)):
        path.unlink(missing_ok=True)
    assert snapshot(tmp_path) == before


@every_format
def test_a_folder_that_is_not_there(tmp_path: Path, suffix: str, gdal_errors: str) -> None:
    class_map = write_raster(tmp_path / "map.tif", np.ones((4, 4), np.uint8), nodata=0)
    with pytest.raises(RasterError, match="cannot be written"):
        polygonize(class_map, tmp_path / "none" / f"a{suffix}", CLASSES, Progress())
    assert {path.name for path in tmp_path.iterdir()} == {"map.tif"}


def test_mars_does_not_fit_into_geojson(tmp_path: Path, gdal_errors: str) -> None:
    with pytest.raises(RasterError, match="WGS84"):
        polygons_of(tmp_path, np.ones((4, 4)), ".geojson", crs=system("+proj=eqc +R=3396190 +units=m"))
    assert not list((tmp_path / "out").glob("*draft*"))


def test_progress_goes_on_to_the_end(tmp_path: Path, random: np.random.Generator, progress: Recorder) -> None:
    values = random.integers(1, 3, (60, 60)).astype(np.uint8)
    polygonize(write_raster(tmp_path / "map.tif", values, nodata=0), tmp_path / "a.gpkg", CLASSES, progress)
    assert len(set(progress.shares)) > 20 and 0.49 < max(progress.shares) <= 1.0


def test_layers_of_others_in_a_geopackage_are_found(tmp_path: Path) -> None:
    path = tmp_path / "project.gpkg"
    assert other_layers(path) == []
    path.write_text("no database")
    assert other_layers(path) == []
    path.unlink()
    class_map = write_raster(tmp_path / "map.tif", np.ones((8, 8), np.uint8), nodata=0)
    polygonize(class_map, path, CLASSES, Recorder())
    assert other_layers(path) == []
    assert other_layers(path.with_suffix(".shp")) == []
    dataset = gdal.OpenEx(str(path), gdal.OF_VECTOR | gdal.OF_UPDATE)
    for name in ("layer_styles", "roads"):
        dataset.CreateLayer(name, None, ogr.wkbPoint)
    del dataset
    assert other_layers(path) == ["roads"]
    own = tmp_path / "own.gpkg"
    ogr.GetDriverByName("GPKG").CreateDataSource(str(own)).CreateLayer("classes", None, ogr.wkbPolygon)
    assert other_layers(own) == ["classes"], "a layer of that name which is none of ours"
