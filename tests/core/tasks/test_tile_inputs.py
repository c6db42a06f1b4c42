# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of what the splitter can read: formats, sizes, class tables, vector labels."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from osgeo import gdal, ogr

from specdeepmap.core.data.classes import ClassEntry
from specdeepmap.core.data.grid import spatial_reference
from specdeepmap.core.data.labels import names_and_colors
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.tiling import Window
from specdeepmap.core.errors import Canceled, ConfigError, DatasetError, RasterError
from specdeepmap.core.jobs import TileJob, TileResult
from specdeepmap.core.tasks.tile import tile_raster
from tests.helpers import TRANSFORM, Array, Recorder, read_pixels, snapshot, utm, write_raster


def tile(
    folder: Path, image: Path | str, labels: Path | str, progress: Recorder | None = None, **values: Any
) -> TileResult:
    """Run the splitter, by default with chips of 8 pixels, side by side, all of them kept."""
    settled = {"tile_size_x": 8, "tile_size_y": 8, "step_x": 8, "step_y": 8, "min_label_coverage": 0, **values}
    job = TileJob(image=str(image), labels=str(labels), output_folder=folder, **settled)
    return tile_raster(job, progress or Recorder())


def chips(folder: Path, kind: str = "images") -> dict[str, Array]:
    return {path.stem: read_pixels(path) for path in sorted((folder / kind).glob("*.tif"))}


def put_together(folder: Path, stem: str, kind: str = "images", size: int = 8) -> Array:
    """Give the whole image back from its chips, which lie side by side."""
    parts = chips(folder, kind)
    assert all(name.startswith(f"{stem}_tile_") for name in parts)
    places = {name: [int(part) for part in name.rsplit("_", 2)[1:]] for name in parts}
    columns, rows = (max(place[axis] for place in places.values()) + size for axis in (0, 1))
    whole = np.zeros((len(next(iter(parts.values()))), rows, columns), next(iter(parts.values())).dtype)
    for name, (x, y) in places.items():
        whole[:, y : y + size, x : x + size] = parts[name]
    return whole


@pytest.fixture
def pixels(random: np.random.Generator) -> Array:
    return random.integers(1, 250, (3, 16, 24)).astype(np.uint8)


@pytest.fixture
def labels(tmp_path: Path, random: np.random.Generator) -> Path:
    return write_raster(tmp_path / "in ä" / "truth.tif", random.choice([0, 7, 200], (16, 24)).astype(np.uint8))


def test_an_image_that_is_placed_by_points_only(tmp_path: Path, pixels: Array) -> None:
    def image(name: str, *, points: bool, sensor: bool) -> Path:
        path = write_raster(tmp_path / name, pixels, crs="", transform=None)
        raster = gdal.Open(str(path), gdal.GA_Update)
        if points:
            places = ((0, 0), (24, 0), (0, 16), (20, 9))
            raster.SetGCPs([gdal.GCP(5e5 + 10 * x + x * y, 5e6 - 10 * y, 0, x, y) for x, y in places], utm())
        if sensor:
            coefficients = " ".join(["1", *["0"] * 19])
            axes, kinds = ("LINE", "SAMP", "LAT", "LONG", "HEIGHT"), ("OFF", "SCALE")
            numbers = {f"{axis}_{kind}": "1" for axis in axes for kind in kinds}
            series = {f"{part}_{of}_COEFF": coefficients for part in ("LINE", "SAMP") for of in ("NUM", "DEN")}
            raster.SetMetadata({**numbers, **series}, "RPC")
        return path

    truth = write_raster(tmp_path / "truth.tif", np.ones((16, 24), np.uint8), crs="", transform=None)
    for number, (points, sensor) in enumerate(((True, False), (False, True), (False, False))):
        progress = Recorder()
        place = image(f"{number}.tif", points=points, sensor=sensor)
        assert tile(tmp_path / f"out{number}", place, truth, progress).tile_count == 6
        assert any("no grid on the ground" in text for text in progress.warnings) == (points or sensor)
    placed = write_raster(tmp_path / "placed.tif", pixels)
    progress = Recorder()
    tile(tmp_path / "out", placed, write_raster(tmp_path / "t.tif", np.ones((16, 24), np.uint8)), progress)
    assert not progress.warnings


FORMATS = {
    "bsq": ("ENVI", ["INTERLEAVE=BSQ"]),
    "bil": ("ENVI", ["INTERLEAVE=BIL"]),
    "bip": ("ENVI", ["INTERLEAVE=BIP"]),
    "dat": ("ENVI", []),
    "": ("ENVI", []),  # ENVI's own custom: no extension beside a .hdr
    "img": ("HFA", []),
    "TIF": ("GTiff", ["TILED=YES", "INTERLEAVE=PIXEL"]),
    "tiff": ("COG", ["COMPRESS=DEFLATE"]),
    "vrt": ("VRT", []),
    "jp2": ("JP2OpenJPEG", ["QUALITY=100", "REVERSIBLE=YES"]),
    "png": ("PNG", ["WORLDFILE=YES"]),
}


@pytest.mark.parametrize("suffix", list(FORMATS))
def test_images_of_any_format(tmp_path: Path, pixels: Array, labels: Path, suffix: str) -> None:
    driver, options = FORMATS[suffix]
    found = gdal.GetDriverByName(driver)
    if found is None or not (found.GetMetadataItem("DCAP_CREATE") or found.GetMetadataItem("DCAP_CREATECOPY")):
        pytest.skip(f"this GDAL writes no {driver}")
    source = write_raster(tmp_path / "in ä" / "source.tif", pixels, names=["blau", "grün", "rot"])
    stem = "my scene.v1 ö"
    image = tmp_path / "in ä" / (f"{stem}.{suffix}" if suffix else "my scene ö")
    gdal.Translate(str(image), str(source), format=driver, creationOptions=options)
    before = snapshot(tmp_path / "in ä")
    tile(tmp_path / "aus gabe ß", image, labels)
    assert snapshot(tmp_path / "in ä") == before, "nothing is written beside the inputs"
    assert np.array_equal(put_together(tmp_path / "aus gabe ß", stem if suffix else "my scene ö"), pixels)
    first = Raster.open(next(iter(sorted((tmp_path / "aus gabe ß" / "images").iterdir()))))
    wanted = Raster.open(image)
    assert first.bands == wanted.bands and first.dtype == np.uint8
    assert first.grid.same_as(wanted.grid.cut(Window(0, 0, 8, 8)), 1e-6) or suffix == "png"


@pytest.mark.parametrize("suffix", ["bsq", "bil", "bip"])
@pytest.mark.parametrize("dtype", ["u2", "i2", "i4", "f4", "f8"])
def test_an_envi_cube_keeps_wavelengths_and_bad_bands(
    tmp_path: Path, random: np.random.Generator, labels: Path, suffix: str, dtype: str
) -> None:
    cube = random.integers(-5 if dtype != "u2" else 0, 9000, (5, 16, 24)).astype(dtype)
    image = tmp_path / f"cube.{suffix}"
    write_raster(image, cube, driver="ENVI", options=[f"INTERLEAVE={suffix.upper()}"])
    header = image.with_suffix(".hdr")
    text = header.read_text() + "wavelength units = Micrometers\nwavelength = {0.45, 0.55, 0.65, 1.4, 2.2}\n"
    header.write_text(text + "fwhm = {0.01, 0.01, 0.01, 0.01, 0.01}\nbbl = {1, 1, 1, 0, 1}\ndata ignore value = 0\n")
    tile(tmp_path / "out", image, labels)
    assert np.array_equal(put_together(tmp_path / "out", "cube"), cube)
    for path in (tmp_path / "out" / "images").iterdir():
        chip = Raster.open(path)
        assert [band.wavelength_nm for band in chip.bands] == [450, 550, 650, 1400, 2200]
        assert [band.bad for band in chip.bands] == [False, False, False, True, False]
        assert (chip.dtype, chip.nodata) == (np.dtype(dtype), 0)


def test_a_subdataset_and_a_virtual_path(tmp_path: Path, pixels: Array, labels: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", pixels)
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "scene.tif")
    tile(tmp_path / "zip", f"/vsizip/{packed}/scene.tif", labels)
    assert np.array_equal(put_together(tmp_path / "zip", "scene"), pixels)
    tile(tmp_path / "first", f"GTIFF_DIR:1:{source}", labels)
    assert np.array_equal(put_together(tmp_path / "first", "scene"), pixels)


@pytest.mark.parametrize(("width", "height"), [(5, 20), (20, 5), (5, 3), (1, 1), (8, 8)])
@pytest.mark.parametrize("edges", ["pad", "shift", "drop"])
@pytest.mark.parametrize("nodata", [None, 0])
def test_chips_larger_than_the_raster(
    tmp_path: Path, random: np.random.Generator, width: int, height: int, edges: str, nodata: int | None
) -> None:
    image = random.integers(1, 99, (1, height, width)).astype(np.uint16)
    truth = random.integers(1, 4, (height, width)).astype(np.uint8)
    sources = (
        write_raster(tmp_path / "i.tif", image, nodata=nodata),
        write_raster(tmp_path / "l.tif", truth),
    )
    if edges == "drop" and (width < 8 or height < 8):
        with pytest.raises(ConfigError, match=rf"8 x 8 is larger than the image \({width} x {height}\).*EDGES is drop"):
            tile(tmp_path / "out", *sources, edges=edges)
        assert not (tmp_path / "out").exists()
        return
    tile(tmp_path / "out", *sources, edges=edges)
    far = ((0, 0), (0, 64), (0, 64))
    whole = np.pad(image, far, "symmetric") if nodata is None else np.pad(image, far, constant_values=nodata)
    masks = chips(tmp_path / "out", "labels")
    for name, chip in chips(tmp_path / "out").items():
        x, y = (int(part) for part in name.rsplit("_", 2)[1:])
        assert edges == "pad" or (x <= max(width - 8, 0) and y <= max(height - 8, 0))
        assert np.array_equal(chip, whole[:, y : y + 8, x : x + 8])
        assert np.array_equal(masks[name][0], np.pad(truth, 64)[64 + y : 72 + y, 64 + x : 72 + x])
    count = len(range(0, width, 8)) * len(range(0, height, 8))
    assert len(masks) == count


def attributes(path: Path, usages: bool = True) -> None:
    """Write a raster attribute table beside a label raster, as QGIS and ArcGIS do."""
    raster = gdal.Open(str(path), gdal.GA_Update)
    table = gdal.RasterAttributeTable()
    columns = (
        ("Value", gdal.GFT_Integer, gdal.GFU_MinMax),
        ("Class", gdal.GFT_String, gdal.GFU_Name),
        ("R", gdal.GFT_Integer, gdal.GFU_Red),
        ("G", gdal.GFT_Integer, gdal.GFU_Green),
        ("B", gdal.GFT_Integer, gdal.GFU_Blue),
    )
    for name, kind, usage in columns:
        table.CreateColumn(name, kind, usage if usages else gdal.GFU_Generic)
    for row, values in enumerate(((200, "Straße & Weg", 1, 2, 3), (7, "Wald", 255, 0, 16), (99, "nowhere", 9, 9, 9))):
        for column, value in enumerate(values):
            if isinstance(value, str):
                table.SetValueAsString(row, column, value)
            else:
                table.SetValueAsInt(row, column, value)
    raster.GetRasterBand(1).SetDefaultRAT(table)
    raster.FlushCache()


def test_names_and_colours_of_a_raster_attribute_table(tmp_path: Path, pixels: Array, labels: Path) -> None:
    attributes(labels)
    image = write_raster(tmp_path / "i.tif", pixels)
    tile(tmp_path / "out", image, labels)
    for path in (tmp_path / "out" / "labels").glob("*.tif"):
        names, colors = names_and_colors(gdal.Open(str(path)))
        assert {value: name for value, name in names.items() if value} == {7: "Wald", 200: "Straße & Weg"}
        assert (colors[7], colors[200]) == ("#ff0010", "#010203")


def write_fields(path: Path, rows: list[tuple[object, tuple[int, int, int, int]]], kind: int = ogr.OFTString) -> Path:
    """Write polygons: class, and the box ``x, y, x_end, y_end`` in pixels of the image."""
    dataset = ogr.GetDriverByName("GPKG").CreateDataSource(str(path))
    layer = dataset.CreateLayer("fields", spatial_reference(utm()), ogr.wkbPolygon)
    layer.CreateField(ogr.FieldDefn("crop", kind))
    for value, (x, y, x_end, y_end) in rows:
        feature = ogr.Feature(layer.GetLayerDefn())
        feature.SetField("crop", value)
        xs = [TRANSFORM[0] + 10 * side for side in (x, x_end)]
        ys = [TRANSFORM[3] - 10 * side for side in (y, y_end)]
        corners = [(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]
        ring = ", ".join(f"{xs[a]} {ys[b]}" for a, b in corners)
        feature.SetGeometry(ogr.CreateGeometryFromWkt(f"POLYGON (({ring}))"))
        layer.CreateFeature(feature)
    del layer, dataset
    return path


def test_polygons_as_labels(tmp_path: Path, pixels: Array) -> None:
    image = write_raster(tmp_path / "i.tif", pixels)
    rows = [("Weizen", (0, 0, 10, 16)), ("Mais", (10, 0, 20, 9)), ("Acker", (500, 500, 510, 510))]
    fields = write_fields(tmp_path / "ä fields.gpkg", rows)
    before = snapshot(tmp_path)
    out = tmp_path / "out"
    colors = (ClassEntry(9, "Mais", "#aabbcc"), ClassEntry(1, "nobody", "#000000"))
    tile(out, image, fields, class_field="crop", classes=colors)
    wanted = np.zeros((16, 24), np.uint8)
    wanted[:, :10], wanted[:9, 10:20] = 3, 2  # Acker is 1, though it lies elsewhere
    assert np.array_equal(put_together(out, "i", "labels")[0], wanted)
    for path in (out / "labels").glob("*.tif"):
        names, shown = names_and_colors(gdal.Open(str(path)))
        assert {value: name for value, name in names.items() if value} == {2: "Mais", 3: "Weizen"}
        assert shown[2] == "#aabbcc", "the renderer's colour, by name"
    assert {path.name for path in out.iterdir()} == {"images", "labels", "tiles.gpkg"}
    assert {name: content for name, content in snapshot(tmp_path).items() if not name.startswith("out")} == before


def test_numbers_in_polygons_and_zero_as(tmp_path: Path, pixels: Array) -> None:
    image = write_raster(tmp_path / "i.tif", pixels)
    rows: list[tuple[object, tuple[int, int, int, int]]] = [(0, (0, 0, 10, 16)), (1, (10, 0, 20, 9))]
    fields = write_fields(tmp_path / "fields.gpkg", rows, ogr.OFTInteger)
    wanted = np.zeros((16, 24), np.uint8)
    wanted[:9, 10:20] = 1
    tile(tmp_path / "plain", image, fields, class_field="crop")
    assert np.array_equal(put_together(tmp_path / "plain", "i", "labels")[0], wanted)
    tile(tmp_path / "zero", image, fields, class_field="crop", zero_as=9)
    wanted[:, :10] = 9
    assert np.array_equal(put_together(tmp_path / "zero", "i", "labels")[0], wanted), "beside all polygons it stays 0"
    for field, value, said in (("crop", 1, "ZERO_AS is 1"), ("crap", None, "'crap'.*crop"), (None, None, "not set")):
        with pytest.raises(ConfigError, match=said):
            tile(tmp_path / "no", image, fields, class_field=field, zero_as=value)
    assert not (tmp_path / "no").exists()


def test_polygons_elsewhere_are_an_error_that_leaves_nothing(tmp_path: Path, pixels: Array) -> None:
    image = write_raster(tmp_path / "i.tif", pixels)
    fields = write_fields(tmp_path / "fields.gpkg", [("a", (50, 50, 60, 60))])
    with pytest.raises(RasterError, match="no common ground"):
        tile(tmp_path / "out", image, fields, class_field="crop")
    between = write_fields(tmp_path / "between.gpkg", [("a", (3, 3, 3, 3)), ("b", (50, 0, 60, 9))])
    with pytest.raises((RasterError, DatasetError), match=r"LABELS"):
        tile(tmp_path / "out", image, between, class_field="crop")
    assert not (tmp_path / "out").exists()


def test_cancel_while_polygons_are_burned_leaves_what_was_there(tmp_path: Path, pixels: Array) -> None:
    image = write_raster(tmp_path / "i.tif", pixels)
    fields = write_fields(tmp_path / "fields.gpkg", [("a", (0, 0, 10, 16)), ("b", (10, 0, 20, 9))])
    counted = Recorder()
    tile(tmp_path / "count", image, fields, counted, class_field="crop")
    assert counted.shares == sorted(counted.shares)
    before = snapshot(tmp_path / "count")
    for moment in range(1, counted.checks + 1):
        for folder in (tmp_path / "count", tmp_path / "new" / "deep"):
            progress = Recorder(cancel_at=moment)
            try:
                tile(folder, image, fields, progress, class_field="crop")
            except Canceled:
                continue
            assert progress.checks < moment, "threads that were faster than before"
            return
        assert snapshot(tmp_path / "count") == before and not (tmp_path / "new").exists()


def test_a_class_field_for_rasters_is_left_aside(tmp_path: Path, pixels: Array, labels: Path) -> None:
    progress = Recorder()
    tile(tmp_path / "out", write_raster(tmp_path / "i.tif", pixels), labels, progress, class_field="crop")
    assert any("CLASS_FIELD is left aside" in text for text in progress.infos)


def test_a_chip_that_was_not_written_does_not_count(
    tmp_path: Path, pixels: Array, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread's failed write ends the run; it is neither counted nor hidden."""
    from specdeepmap.core.data import chips as module

    image = write_raster(tmp_path / "i.tif", pixels)
    write, calls = module.write_class_chip, 0

    def fail_once(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise RasterError("the fourth chip")
        write(*arguments)

    monkeypatch.setattr(module, "write_class_chip", fail_once)
    with pytest.raises(RasterError, match="the fourth chip"):
        tile(tmp_path / "out", image, labels)
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    result = tile(tmp_path / "out", image, labels)
    assert result.tile_count == len(chips(tmp_path / "out")) == len(chips(tmp_path / "out", "labels")) == 6


def test_an_alpha_band_is_told(tmp_path: Path, random: np.random.Generator) -> None:
    pixels = random.integers(1, 255, (4, 16, 24)).astype(np.uint8)
    labels = write_raster(tmp_path / "l.tif", np.ones((16, 24), np.uint8))
    for alpha in ("NO", "YES"):
        progress = Recorder()
        image = write_raster(tmp_path / f"{alpha}.tif", pixels, options=("PHOTOMETRIC=RGB", f"ALPHA={alpha}"))
        tile(tmp_path / f"out {alpha}", image, labels, progress)
        assert any("band 4 is an alpha band" in text for text in progress.warnings) == (alpha == "YES")
