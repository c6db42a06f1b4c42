# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the Deep Learning Mapper, with a network that says what stands in the first band."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from osgeo import gdal, ogr

from specdeepmap.core.data.bands import Band
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.scene import make_scene
from specdeepmap.core.errors import Canceled, ConfigError, RasterError
from specdeepmap.core.jobs import PredictJob
from specdeepmap.core.learn.predictor import Predictor
from specdeepmap.core.tasks import predict
from tests.helpers import Array, Recorder, read_pixels, snapshot, utm, write_raster
from tests.maps import CLASSES, NODATA
from tests.reading import CARD, Reader, invent, run

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("reader")]


@settings(max_examples=60)
@given(
    width=st.one_of(st.integers(1, 5), st.integers(6, 50)),
    height=st.one_of(st.integers(1, 5), st.integers(6, 50)),
    tile=st.sampled_from([0, 5, 16]),
    overlap=st.sampled_from([0.0, 10.0, 20.0, 37.5]),
    batch=st.sampled_from([0, 1, 3]),
)
def test_every_pixel_is_mapped_from_where_it_lies(
    width: int,
    height: int,
    tile: int,
    overlap: float,
    batch: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("map")
    values, wanted = invent(width, height, seed=width * height)
    image = write_raster(folder / "image.tif", values, nodata=NODATA)
    result = run(folder, image, tile_size=tile, overlap=overlap, batch_size=batch, confidence=folder / "sure.tif")
    assert np.array_equal(read_pixels(result.output)[0], wanted)
    assert Raster.open(result.output).grid.same_as(Raster.open(image).grid)
    sure = read_pixels(folder / "sure.tif")[0]
    assert np.array_equal(np.isnan(sure), wanted == 0)
    assert np.allclose(sure[wanted > 0], values[1][wanted > 0] / 100, atol=1e-6)


@pytest.mark.parametrize("size", [(17, 40), (3, 2), (49, 16)])
def test_overlap_hides_what_a_network_does_not_know_at_borders(
    size: tuple[int, int], tmp_path: Path, reader: type[Reader]
) -> None:
    values, wanted = invent(*size)
    image = write_raster(tmp_path / "image.tif", values, nodata=NODATA)
    reader.reach = 2
    run(tmp_path, image, tile_size=16, overlap=12.5)
    assert np.array_equal(read_pixels(tmp_path / "map.tif")[0], wanted)
    run(tmp_path, image, tile_size=16, overlap=0.0)
    assert not np.array_equal(read_pixels(tmp_path / "map.tif")[0], wanted) or max(size) <= 12


def test_tile_size_comes_from_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = write_raster(tmp_path / "image.tif", invent(32, 32)[0], nodata=NODATA)
    sizes: list[tuple[int, ...]] = []
    real = Reader.probabilities
    monkeypatch.setattr(
        Reader, "probabilities", lambda self, images: sizes.extend(i.shape for i in images) or real(self, images)
    )
    run(tmp_path, image, overlap=0.0)
    assert sizes == [(2, 16, 16)] * 4


def test_beyond_the_border_the_image_is_mirrored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(1, 2 * 7 * 5 + 1, dtype=np.int16).reshape(2, 7, 5)
    image = write_raster(tmp_path / "image.tif", values)
    seen: list[Array] = []
    real = Reader.probabilities
    monkeypatch.setattr(Reader, "probabilities", lambda self, images: seen.extend(images) or real(self, images))
    run(tmp_path, image, tile_size=11)
    (tile,) = seen
    assert np.array_equal(tile, np.pad(values, ((0, 0), (2, 2), (3, 3)), "symmetric"))


def bounds(image: Path, x: int, y: int, width: int, height: int) -> tuple[float, ...]:
    (left, bottom), (right, top) = (Raster.open(image).grid.ground(*at) for at in ((x, y + height), (x + width, y)))
    return left, bottom, right, top


@pytest.mark.parametrize("box", [(0, 0, 40, 33), (5, 7, 20, 11), (39, 32, 1, 1), (30, 0, 10, 33)])
def test_extent_gives_that_part_of_the_whole_map(tmp_path: Path, box: tuple[int, int, int, int]) -> None:
    values, wanted = invent(40, 33)
    image = write_raster(tmp_path / "image.tif", values, nodata=NODATA)
    run(tmp_path, image, output=tmp_path / "whole.tif")
    run(tmp_path, image, extent=bounds(image, *box))
    x, y, width, height = box
    part = read_pixels(tmp_path / "map.tif")[0]
    assert np.array_equal(part, read_pixels(tmp_path / "whole.tif")[0, y : y + height, x : x + width])
    assert np.array_equal(part, wanted[y : y + height, x : x + width])
    assert Raster.open(tmp_path / "map.tif").grid.extent == pytest.approx(bounds(image, *box))


@pytest.mark.parametrize("name", ["image", "ground_truth"])
def test_what_is_no_raster_is_told_by_its_parameter(tmp_path: Path, name: str) -> None:
    image = write_raster(tmp_path / "image.tif", invent(20, 20)[0], nodata=NODATA)
    settings = {"image": str(image)}
    missing, polygons = tmp_path / "nix.tif", tmp_path / "polygons.gpkg"
    ogr.GetDriverByName("GPKG").CreateDataSource(str(polygons)).CreateLayer("a", None, ogr.wkbPolygon)
    for path, advice in ((missing, "Choose a file that QGIS opens"), (polygons, "vector layer. Burn it into a raster")):
        given = {**settings, name: str(path)}
        with pytest.raises(RasterError) as caught:
            run(tmp_path, Path(given.pop("image")), **given)
        assert str(caught.value).startswith(f"{name.upper()}: {path} ") and advice in str(caught.value)


def test_a_picture_without_a_place_is_mapped_where_qgis_shows_it(tmp_path: Path) -> None:
    """QGIS lays its upper left corner to 0, 0 and its rows below: from there an extent is drawn."""
    values, wanted = invent(40, 33)
    image = write_raster(tmp_path / "image.tif", values, nodata=NODATA, crs="", transform=None)
    run(tmp_path, image, extent=(5.0, -30.0, 25.0, -10.0), vector=tmp_path / "map.gpkg")
    assert np.array_equal(read_pixels(tmp_path / "map.tif")[0], wanted[10:30, 5:25])
    assert gdal.Open(str(tmp_path / "map.tif")).GetGeoTransform() == (5, 1, 0, -10, 0, -1)
    polygons = ogr.Open(str(tmp_path / "map.gpkg"))
    west, east, south, north = polygons.GetLayer(0).GetExtent()
    assert 5 <= west < east <= 25 and -30 <= south < north <= -10


def test_an_image_that_is_placed_by_points_only(tmp_path: Path) -> None:
    values, wanted = invent(40, 33)
    image = write_raster(tmp_path / "image.tif", values, nodata=NODATA, crs="", transform=None)
    raster = gdal.Open(str(image), gdal.GA_Update)
    places = ((0, 0), (40, 0), (0, 33), (9, 8))
    raster.SetGCPs([gdal.GCP(5e5 + x * y, 5e6 - 2 * y + x, 0, x, y) for x, y in places], utm())
    raster = None
    progress = Recorder()
    run(tmp_path, image, progress)
    assert np.array_equal(read_pixels(tmp_path / "map.tif")[0], wanted)
    assert any("no grid on the ground" in text and "Warp it first" in text for text in progress.warnings)


def test_extent_reads_its_surroundings(tmp_path: Path, reader: type[Reader]) -> None:
    values, wanted = invent(48, 48)
    image = write_raster(tmp_path / "image.tif", values, nodata=NODATA)
    reader.reach = 3
    run(tmp_path, image, tile_size=16, overlap=20.0, extent=bounds(image, 10, 10, 20, 20))
    assert np.array_equal(read_pixels(tmp_path / "map.tif")[0], wanted[10:30, 10:30])


def test_extent_that_reaches_over_the_border_is_cut_and_one_outside_is_refused(tmp_path: Path) -> None:
    values, wanted = invent(20, 20)
    image = write_raster(tmp_path / "image.tif", values, nodata=NODATA)
    run(tmp_path, image, extent=bounds(image, 10, -5, 100, 10))
    assert np.array_equal(read_pixels(tmp_path / "map.tif")[0], wanted[:5, 10:])
    (tmp_path / "map.tif").unlink()
    with pytest.raises(ConfigError, match=r"EXTENT .* lies outside of IMAGE, which reaches over 500000, "):
        run(tmp_path, image, extent=bounds(image, 30, 30, 5, 5))
    assert not (tmp_path / "map.tif").exists()


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "geojson"])
def test_polygons_add_up_to_the_pixels(tmp_path: Path, suffix: str) -> None:
    values, wanted = invent(40, 33)
    image = write_raster(tmp_path / "image.tif", values, nodata=NODATA)
    run(tmp_path, image, vector=tmp_path / f"polygons.{suffix}")
    areas, names = polygons(tmp_path / f"polygons.{suffix}")
    left = {path.suffix for path in tmp_path.glob("*polygons*")} | {path.name for path in tmp_path.glob(".*")}
    assert left <= ({".shp", ".shx", ".dbf", ".prj", ".cpg"} if suffix == "shp" else {f".{suffix}"})
    assert names == {entry.value: entry.name for entry in CLASSES.entries}
    for value in CLASSES.values:
        assert areas[value] == pytest.approx(100 * (wanted == value).sum(), rel=0.01)


def polygons(path: Path) -> tuple[dict[int, float], dict[int, str]]:
    source = ogr.Open(str(path))
    layer = source.GetLayer(0)
    areas: dict[int, float] = {}
    names = {}
    for feature in layer:
        value = feature.GetField("class_id")
        areas[value] = areas.get(value, 0) + feature.GetField("area_m2")
        names[value] = feature.GetField("class_name")
    return areas, names


def test_polygons_in_degrees_have_areas_in_square_metres(tmp_path: Path) -> None:
    from osgeo import osr

    system = osr.SpatialReference()
    system.ImportFromEPSG(4326)
    values, wanted = invent(30, 20)
    step, south = 0.001, 52.0
    image = write_raster(
        tmp_path / "image.tif",
        values,
        nodata=NODATA,
        crs=system.ExportToWkt(),
        transform=(13.0, step, 0, south + 20 * step, 0, -step),
    )
    run(tmp_path, image, vector=tmp_path / "polygons.gpkg")
    areas, _ = polygons(tmp_path / "polygons.gpkg")
    latitude = np.radians(south + 10 * step)
    # WGS 84: lengths of a degree along the meridian and along the parallel
    north = 111132.954 - 559.822 * np.cos(2 * latitude) + 1.175 * np.cos(4 * latitude)
    east = np.pi / 180 * 6378137 * np.cos(latitude) / np.sqrt(1 - 0.00669438 * np.sin(latitude) ** 2)
    for value in CLASSES.values:
        assert areas[value] == pytest.approx(step**2 * north * east * (wanted == value).sum(), rel=0.01)


def test_names_colours_and_overviews(tmp_path: Path) -> None:
    values, wanted = invent(600, 520)
    image = write_raster(tmp_path / "image.tif", values, nodata=NODATA)
    run(tmp_path, image, tile_size=256)
    raster = gdal.Open(str(tmp_path / "map.tif"))
    raster.GetMetadata()
    band = raster.GetRasterBand(1)
    assert np.array_equal(band.ReadAsArray(), wanted)
    assert band.DataType == gdal.GDT_Byte and band.GetNoDataValue() == 0
    assert band.GetCategoryNames() == CLASSES.category_names()
    for entry in CLASSES.entries:
        assert band.GetColorTable().GetColorEntry(entry.value)[:3] == entry.rgb
    assert band.GetOverviewCount() >= 1
    small = band.GetOverview(0).ReadAsArray()
    assert small.shape == (260, 300) and set(np.unique(small)) <= {0, 2, 5, 9}
    assert band.GetBlockSize()[1] > 1
    assert raster.GetMetadata("IMAGE_STRUCTURE")["COMPRESSION"]


def test_names_are_right_in_a_second_run_over_the_first(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "image.tif", invent(9, 9)[0], nodata=NODATA)
    for _ in range(2):
        run(tmp_path, image, confidence=tmp_path / "sure.tif", vector=tmp_path / "polygons.gpkg")
    assert polygons(tmp_path / "polygons.gpkg")[1]
    assert {path.name for path in tmp_path.iterdir()} <= {
        "image.tif",
        "image.tif.aux.xml",
        "map.tif",
        "map.tif.aux.xml",
        "sure.tif",
        "sure.tif.aux.xml",
        "polygons.gpkg",
    }


class Late(Recorder):
    """Canceled from the check of this number on."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def check(self) -> None:
        if self.checks + 1 >= self.number:
            self.cancel()
        super().check()


@pytest.mark.parametrize("check", [1, 2, 4, 6, 8])
def test_cancel_leaves_nothing_new_and_nothing_damaged(tmp_path: Path, check: int) -> None:
    image = write_raster(tmp_path / "image.tif", invent(48, 48)[0], nodata=NODATA)
    (tmp_path / "map.tif").write_bytes(b"of an earlier run")
    before = snapshot(tmp_path)
    with pytest.raises(Canceled):
        run(
            tmp_path,
            image,
            Late(check),
            overlap=0.0,
            batch_size=2,
            confidence=tmp_path / "sure.tif",
            vector=tmp_path / "polygons.gpkg",
        )
    assert snapshot(tmp_path) == before


def test_a_failure_leaves_nothing_new(tmp_path: Path, reader: type[Reader]) -> None:
    image = write_raster(tmp_path / "image.tif", invent(48, 48)[0], nodata=NODATA)
    before = snapshot(tmp_path)
    calls: list[int] = []

    def fail(self: Reader, images: Sequence[Array]) -> Array:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("CUDA error")
        return Reader.probabilities(self, images)

    reader.probabilities = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="CUDA error"):
        run(tmp_path, image, batch_size=1, overlap=0.0, confidence=tmp_path / "sure.tif")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["map.img", "map", "map.tif.gz"])
def test_outputs_are_geotiffs(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"OUTPUT is .*must end in \.tif"):
        run(tmp_path, tmp_path / "image.tif", output=tmp_path / name)
    with pytest.raises(ConfigError, match=r"CONFIDENCE is .*must end in \.tif"):
        run(tmp_path, tmp_path / "image.tif", confidence=tmp_path / name)


def test_vector_of_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"VECTOR .*'.kml'; it can end in .gpkg, .shp, .geojson, .json, .fgb"):
        PredictJob(image="image.tif", checkpoint=tmp_path, output=tmp_path / "map.tif", vector=tmp_path / "map.kml")


@pytest.mark.parametrize("suffix", ["SHP", "GPKG", "GeoJSON"])
def test_vector_suffixes_in_capitals(tmp_path: Path, suffix: str) -> None:
    """GDAL names the files of a Shapefile in small letters, whatever it was asked for."""
    image = write_raster(tmp_path / "image.tif", invent(9, 9)[0], nodata=NODATA)
    run(tmp_path, image, vector=tmp_path / f"polygons.{suffix}")
    assert polygons(tmp_path / f"polygons.{suffix}")[1]
    assert not list(tmp_path.glob(".*"))


def test_outputs_whose_names_differ_in_capitals_only(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "image.tif", invent(9, 9)[0], nodata=NODATA)
    (tmp_path / "A").touch()
    if (tmp_path / "a").exists():
        pytest.skip("they are one file on this disk")
    run(tmp_path, image, output=tmp_path / "map.tif", confidence=tmp_path / "map.TIF")
    assert (read_pixels(tmp_path / "map.tif").dtype, read_pixels(tmp_path / "map.TIF").dtype) == (np.uint8, np.float32)


def test_a_process_that_takes_part_removes_its_share_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process tidies up, too, but perhaps before this one's files, and GDAL's beside them, are closed."""
    image = write_raster(tmp_path / "image.tif", invent(40, 33)[0], nodata=NODATA)
    before = snapshot(tmp_path)

    def fail(*_: object) -> None:
        assert len(list((tmp_path / "maps").glob(".map*.part.tif"))) == 1
        for part in list((tmp_path / "maps").iterdir()):
            part.with_name(f"{part.name}.aux.xml").touch()
        raise Canceled

    monkeypatch.setattr(predict.Team, "join", lambda devices, device: predict.Team(1, 2, device, 77))
    monkeypatch.setattr(predict, "map_area", fail)
    with pytest.raises(Canceled):
        run(tmp_path, image, output=tmp_path / "maps" / "map.tif", tile_size=16)
    (tmp_path / "maps").rmdir()
    assert snapshot(tmp_path) == before


def test_an_extent_beside_an_image_without_crs_is_told(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "image.tif", invent(9, 9)[0], nodata=NODATA, crs="")
    with pytest.raises(ConfigError, match=r"lies outside of IMAGE.* IMAGE has no coordinate system"):
        run(tmp_path, image, extent=(13.0, 52.0, 13.1, 52.1))


def _as_image(folder: Path) -> dict[str, Any]:
    return {"output": folder / "image.tif"}


def _as_truth(folder: Path) -> dict[str, Any]:
    return {"ground_truth": str(folder / "truth.tif"), "output": folder / "." / "truth.tif"}


def _twice(folder: Path) -> dict[str, Any]:
    return {"confidence": folder / "map.tif"}


@pytest.mark.parametrize("outputs", [_as_image, _as_truth, _twice])
def test_no_output_replaces_an_input_or_another_output(
    tmp_path: Path, outputs: Callable[[Path], dict[str, Any]]
) -> None:
    values, wanted = invent(9, 9)
    image = write_raster(tmp_path / "image.tif", values, nodata=NODATA)
    write_raster(tmp_path / "truth.tif", wanted, nodata=0)
    before = snapshot(tmp_path)
    with pytest.raises(ConfigError, match="same file"):
        run(tmp_path, image, **outputs(tmp_path))
    assert snapshot(tmp_path) == before


def test_image_of_other_bands(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "image.tif", np.ones((3, 9, 9), np.int16))
    with pytest.raises(RasterError, match="has 3 bands, but the model was trained on 2"):
        run(tmp_path, image)
    assert Band("Band 1") == Raster.open(image).bands[0]


def test_overlap_that_leaves_nothing(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "image.tif", invent(9, 9)[0], nodata=NODATA)
    with pytest.raises(ConfigError, match="OVERLAP leaves nothing"):
        run(tmp_path, image, tile_size=2, overlap=45.0)
    assert not list(tmp_path.glob(".*"))


def test_with_a_real_model(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "Predictor", Predictor)
    image, labels = make_scene(tmp_path, size=80)
    progress = Recorder()
    results = [
        predict.predict_raster(
            PredictJob(
                image=str(image),
                checkpoint=checkpoint,
                device="cpu",
                batch_size=batch,
                ground_truth=str(labels),
                output=tmp_path / f"{batch}.tif",
            ),
            progress,
        )
        for batch in (0, 1)
    ]
    first, second = (read_pixels(result.output)[0] for result in results)
    assert (first != second).mean() < 0.001  # batches of other sizes may round otherwise
    gone = (read_pixels(image) == 0).all(axis=0)
    assert gone.any() and np.array_equal(first == 0, gone)
    assert results[0].mean_iou == pytest.approx(results[1].mean_iou, abs=0.01)
    assert progress.shares == sorted(progress.shares)
    assert len(progress.warnings) == 2  # it was trained on chips of this scene
    assert all("chips of an image that is called sentinel2_image, too" in text for text in progress.warnings)


def bordered(folder: Path, nodata: float | None = None) -> tuple[Path, Array]:
    """Write an image whose border of -777 is not declared as no-data; give also the map that knows it is."""
    values, wanted = invent(30, 20)
    values[:, wanted == 0] = np.array([[5], [90]])
    values[:, :, :7] = -777
    wanted = np.where(wanted == 0, 5, wanted)
    wanted[:, :7] = 0
    return write_raster(folder / "image.tif", values, nodata=nodata), wanted


def test_nodata_that_the_image_does_not_declare(tmp_path: Path) -> None:
    image, wanted = bordered(tmp_path)
    assert read_pixels(run(tmp_path, image).output)[0].all(), "a border that nobody calls no-data is mapped"
    assert np.array_equal(read_pixels(run(tmp_path, image, nodata=-777.0).output)[0], wanted)
    with pytest.raises(ConfigError, match=r"NODATA is 0\.5, which an image of int16 cannot hold"):
        run(tmp_path, image, nodata=0.5)


@pytest.mark.parametrize(
    ("trained", "declared", "given", "taken"),
    [
        (-777.0, None, {}, True),
        (-777.0, -5, {}, False),
        (-777.0, None, {"nodata": -5.0}, False),
        (-77777.0, None, {}, False),  # more than 16 bits hold
        (None, None, {}, False),
    ],
)
def test_nodata_of_the_training_chips(
    tmp_path: Path,
    reader: type[Reader],
    trained: float | None,
    declared: int | None,
    given: dict[str, float],
    taken: bool,
) -> None:
    reader.card = replace(CARD, image_nodata=trained)
    image, wanted = bordered(tmp_path, declared)
    progress = Recorder()
    found = read_pixels(run(tmp_path, image, progress, **given).output)[0]
    assert np.array_equal(found, wanted) == taken and found.all() != taken
    assert any("declares no no-data value; -777 is taken" in text for text in progress.infos) == taken


def test_other_layers_of_a_geopackage_are_not_lost(tmp_path: Path) -> None:
    project = tmp_path / "project.gpkg"
    ogr.GetDriverByName("GPKG").CreateDataSource(str(project)).CreateLayer("training", None, ogr.wkbPolygon)
    before = project.read_bytes()
    image = write_raster(tmp_path / "image.tif", invent(20, 20)[0], nodata=NODATA)
    with pytest.raises(ConfigError, match=r"VECTOR .*project\.gpkg exists and holds other layers \(training\)"):
        run(tmp_path, image, vector=project)
    assert project.read_bytes() == before


def test_a_band_flagged_bad_in_the_image_is_missing(tmp_path: Path, reader: type[Reader]) -> None:
    seen: list[Array] = []
    look = reader.probabilities

    def looking(self: Reader, images: Sequence[Array]) -> Array:
        seen.extend(images)
        return look(self, images)

    reader.probabilities = looking  # type: ignore[method-assign]
    values, _ = invent(12, 12)
    flags = [{"bbl": "1"}, {"bbl": "0"}]
    image = write_raster(tmp_path / "image.tif", values, nodata=NODATA, metadata=flags)
    progress = Recorder()
    run(tmp_path, image, progress)
    assert seen and all((tile[1] == 0).all() and tile[0].any() for tile in seen)
    assert any("flagged bad in the image: 2." in text for text in progress.warnings)
