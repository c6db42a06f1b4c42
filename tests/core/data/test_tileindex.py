# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the tile index."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from osgeo import gdal, ogr

from specdeepmap.core.data.grid import Grid, bounds_in
from specdeepmap.core.data.tileindex import TileRecord, read_splits, write_index, write_splits
from specdeepmap.core.data.tiling import Window
from specdeepmap.core.errors import DatasetError, RasterError
from tests.helpers import TRANSFORM, full_disk, utm

# With GDAL's exceptions on, its destructor complains once more about the full disk.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

FIELDS = ["name", "source", "col", "row", "coverage", "dominant", "split"]


def records(source: str, crs: str = "", count: int = 3) -> list[TileRecord]:
    whole = Grid(100, 100, TRANSFORM, crs or utm())
    return [
        TileRecord(f"{source}_tile_{x}_0", source, x, 0, x / 3, 7, whole.cut(Window(x, 0, 10, 20)))
        for x in range(0, 10 * count, 10)
    ]


def rows(path: Path) -> list[tuple[object, ...]]:
    dataset = gdal.OpenEx(str(path), gdal.OF_VECTOR)
    layer = dataset.GetLayerByName("tiles")
    return [tuple(feature.GetField(name) for name in FIELDS) for feature in layer]


def test_rows_fields_and_polygons(tmp_path: Path) -> None:
    path = tmp_path / "ä tiles.gpkg"
    made = records("image")
    write_index(path, made, None, "image")
    assert rows(path) == [(r.name, r.source, r.col, r.row, r.coverage, r.dominant, "") for r in made]
    dataset = gdal.OpenEx(str(path), gdal.OF_VECTOR)
    layer = dataset.GetLayerByName("tiles")
    assert layer.GetGeomType() == ogr.wkbPolygon
    assert layer.GetSpatialRef().GetAuthorityCode(None) == "32633"
    for feature, record in zip(layer, made, strict=True):
        xmin, xmax, ymin, ymax = feature.geometry().GetEnvelope()
        assert (xmin, ymin, xmax, ymax) == pytest.approx(record.grid.extent)
        assert feature.geometry().Area() == pytest.approx(10 * 20 * 100)


def test_rows_of_other_sources_stay_and_own_ones_are_replaced(tmp_path: Path) -> None:
    earlier, path = tmp_path / "tiles.gpkg", tmp_path / "new.gpkg"
    write_index(earlier, records("it's"), None, "it's")
    write_index(path, records("two", count=2), earlier, "two")
    write_splits(path, {"it's_tile_10_0": "train", "two_tile_0_0": "test"})
    last = tmp_path / "last.gpkg"
    write_index(last, records("it's", count=1), path, "it's")
    assert [(row[0], row[6]) for row in rows(last)] == [
        ("two_tile_0_0", "test"),
        ("two_tile_10_0", ""),
        ("it's_tile_0_0", ""),
    ]
    assert len(rows(earlier)) == 3 and len(rows(path)) == 5, "what it starts from is not changed"


def test_a_second_image_in_another_crs_is_brought_to_the_first_ones(tmp_path: Path) -> None:
    first, both = tmp_path / "a.gpkg", tmp_path / "b.gpkg"
    write_index(first, records("one"), None, "one")
    other = records("two", utm(32), 1)
    write_index(both, other, first, "two")
    dataset = gdal.OpenEx(str(both), gdal.OF_VECTOR)
    feature = list(dataset.GetLayerByName("tiles"))[-1]
    xmin, xmax, ymin, ymax = feature.geometry().GetEnvelope()
    assert (xmin, ymin, xmax, ymax) == pytest.approx(bounds_in(other[0].grid, utm()), abs=1)


def test_chips_without_a_crs_or_without_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    write_index(path, [TileRecord("n", "s", 0, 0, 0.0, 0, Grid(8, 8))], None, "s")
    assert rows(path) == [("n", "s", 0, 0, 0.0, 0, "")]


def test_splits_are_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    write_index(path, records("i"), None, "i")
    assert read_splits(path) == {"i_tile_0_0": "", "i_tile_10_0": "", "i_tile_20_0": ""}
    write_splits(path, {"i_tile_0_0": "train", "i_tile_20_0": "test", "unknown": "train"})
    assert read_splits(path) == {"i_tile_0_0": "train", "i_tile_10_0": "", "i_tile_20_0": "test"}
    write_splits(path, {"i_tile_10_0": "validation"})
    assert read_splits(path) == {"i_tile_0_0": "", "i_tile_10_0": "validation", "i_tile_20_0": ""}


def test_what_is_no_tile_index_is_named(tmp_path: Path, gdal_errors: str) -> None:
    (tmp_path / "text.gpkg").write_text("hello")
    dataset = ogr.GetDriverByName("GPKG").CreateDataSource(str(tmp_path / "other.gpkg"))
    dataset.CreateLayer("roads")
    del dataset
    dataset = ogr.GetDriverByName("GPKG").CreateDataSource(str(tmp_path / "fields.gpkg"))
    dataset.CreateLayer("tiles").CreateField(ogr.FieldDefn("name"))
    del dataset
    for name in ("text", "other", "fields", "missing"):
        with pytest.raises(DatasetError, match=rf"{name}\.gpkg"):
            read_splits(tmp_path / f"{name}.gpkg")
        with pytest.raises((DatasetError, RasterError), match=rf"{name}\.gpkg"):
            write_splits(tmp_path / f"{name}.gpkg", {})


def test_what_gdal_says_without_letters_is_a_complaint(tmp_path: Path, gdal_errors: str) -> None:
    path = tmp_path / "a.gpkg"
    write_index(path, records("i"), None, "i")
    content, name = path.read_bytes(), b"sqlite_autoindex_gpkg_ogr_contents_1"
    assert content.count(name) == 1
    path.write_bytes(content.replace(name, name.replace(b"e", b"\xe0", 1)))  # no text in UTF-8: the error has none
    with pytest.raises((RasterError, DatasetError), match=r"a\.gpkg .*: .*(malformed database schema|layer)"):
        write_splits(path, {"i_tile_0_0": "train"})


@pytest.mark.parametrize("size", [0, 20_000, 110_000, 300_000])
def test_a_full_disk_ends_with_a_sentence(tmp_path: Path, gdal_errors: str, size: int) -> None:
    path = tmp_path / "out" / "a.gpkg"
    path.parent.mkdir()
    many = records("i" * 200, count=3000)  # more than a megabyte
    with full_disk(size), pytest.raises(RasterError, match=r"out cannot be written: ."):
        write_index(path, many, None, "i")
    earlier = tmp_path / "tiles.gpkg"
    write_index(earlier, records("old"), None, "old")
    path.unlink(missing_ok=True)
    with full_disk(size), pytest.raises(RasterError, match=r"out cannot be written: ."):
        write_index(path, many, earlier, "i")
    assert len(rows(earlier)) == 3


def test_a_full_disk_while_splits_are_written(tmp_path: Path, gdal_errors: str) -> None:
    path = tmp_path / "a.gpkg"
    made = records("i", count=4000)
    write_index(path, made, None, "i")
    before = read_splits(path)
    with full_disk(path.stat().st_size), pytest.raises(RasterError, match="cannot be changed"):
        write_splits(path, {record.name: "validation" * 20 for record in made})
    assert read_splits(path) == before


def test_images_with_and_without_a_crs_go_into_one_index(tmp_path: Path, gdal_errors: str) -> None:
    bare = [TileRecord("n", "bare", 0, 0, 0.0, 0, Grid(8, 8))]
    for number, (first, second) in enumerate(((bare, records("there")), (records("there"), bare))):
        one, both = tmp_path / f"{number}.gpkg", tmp_path / f"{number}_both.gpkg"
        write_index(one, first, None, first[0].source)
        write_index(both, second, one, second[0].source)
        assert [row[0] for row in rows(both)] == [record.name for record in (*first, *second)]


def test_qgis_styles_the_index_by_set(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    write_index(path, records("i"), None, "i")
    later = tmp_path / "b.gpkg"
    write_index(later, records("j"), path, "j")
    for index in (path, later):
        dataset = gdal.OpenEx(str(index), gdal.OF_VECTOR)
        (style,) = list(dataset.GetLayerByName("layer_styles"))
        assert (style["f_table_name"], style["f_geometry_column"]) == (
            "tiles",
            dataset.GetLayerByName("tiles").GetGeometryColumn(),
        )
        assert style["useAsDefault"]
        root = ElementTree.fromstring(style["styleQML"])  # noqa: S314 - our own file
        renderer = root.find("renderer-v2")
        assert renderer is not None
        assert (renderer.get("type"), renderer.get("attr")) == ("categorizedSymbol", "split")
        values = {category.get("value") for category in renderer.iter("category")}
        assert values >= {"train", "validation", "test"}
