# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of cutting a raster and its labels into chips."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from osgeo import gdal

from specdeepmap.core.data.classes import ClassEntry
from specdeepmap.core.data.labels import names_and_colors
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.tileindex import read_splits, write_splits
from specdeepmap.core.data.tiling import Window
from specdeepmap.core.errors import Canceled, ConfigError, DatasetError, RasterError
from specdeepmap.core.jobs import TileJob, TileResult
from specdeepmap.core.tasks.tile import tile_raster
from tests.helpers import (
    TRANSFORM,
    Array,
    Recorder,
    full_disk,
    open_as_in_qgis,
    read_pixels,
    snapshot,
    utm,
    write_raster,
)

# With GDAL's exceptions on, its destructor complains once more about the full disk.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def tile(folder: Path, image: Path, labels: Path, progress: Recorder | None = None, **values: Any) -> TileResult:
    """Run the splitter, by default with chips of 8 pixels, side by side, all of them kept."""
    settled = {"tile_size_x": 8, "tile_size_y": 8, "step_x": 8, "step_y": 8, "min_label_coverage": 0, **values}
    return tile_raster(
        TileJob(image=str(image), labels=str(labels), output_folder=folder, **settled), progress or Recorder()
    )


def index_rows(folder: Path) -> list[dict[str, Any]]:
    dataset = gdal.OpenEx(str(folder / "tiles.gpkg"), gdal.OF_VECTOR)
    layer = dataset.GetLayerByName("tiles")
    return [feature.items() for feature in layer]


def chips(folder: Path, kind: str = "images") -> dict[str, Array]:
    return {path.stem: read_pixels(path) for path in sorted((folder / kind).glob("*.tif"))}


def offsets(name: str) -> tuple[int, int]:
    column, row = name.rsplit("_tile_", 1)[1].split("_")
    return int(column), int(row)


@pytest.fixture
def scene(tmp_path: Path, random: np.random.Generator) -> tuple[Path, Path]:
    """An image of 24 x 16 pixels with three bands, and labels of classes 7 and 200."""
    image = random.integers(1, 1000, (3, 16, 24)).astype(np.int16)
    labels = random.choice([0, 7, 200], (16, 24)).astype(np.uint8)
    return (
        write_raster(tmp_path / "in" / "image.tif", image, nodata=-1),
        write_raster(tmp_path / "in" / "labels.tif", labels),
    )


@settings(max_examples=30)
@given(st.data())
def test_chips_equal_the_source(tmp_path: Path, data: st.DataObject) -> None:
    width, height = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    size = data.draw(st.integers(8, 16)), data.draw(st.integers(8, 16))
    step = data.draw(st.integers(3, 20)), data.draw(st.integers(3, 20))
    edges, nodata = data.draw(st.sampled_from(["pad", "shift", "drop"])), data.draw(st.sampled_from([None, -1]))
    limit = data.draw(st.sampled_from([0, 10, 25, 50, 100]))
    random = np.random.default_rng(data.draw(st.integers(0, 999)))
    image = random.integers(-1, 5, (2, height, width)).astype(np.int16)
    labels = random.choice([0, 3, 9], (height, width), p=random.dirichlet([1, 1, 1])).astype(np.uint8)
    labels[: height // 2] = data.draw(st.sampled_from([0, 3]))
    labels[-1, -1] = 9
    folder = tmp_path / "out"
    shutil.rmtree(folder, ignore_errors=True)
    sources = write_raster(tmp_path / "i.tif", image, nodata=nodata), write_raster(tmp_path / "l.tif", labels)

    far = 80
    pads = ((0, 0), (0, far), (0, far))
    whole = np.pad(image, pads, "symmetric") if nodata is None else np.pad(image, pads, constant_values=nodata)
    truth = np.pad(labels, ((0, far), (0, far)))
    if nodata is not None:
        truth[(whole == nodata).all(axis=0)] = 0
    starts = [list(range(0, length, by)) for length, by in zip((width, height), step, strict=True)]
    if edges == "shift":
        starts = [
            sorted({min(start, max(length - tile, 0)) for start in axis})
            for axis, length, tile in zip(starts, (width, height), size, strict=True)
        ]
    if edges == "drop":
        starts = [
            [start for start in axis if start + tile <= length]
            for axis, length, tile in zip(starts, (width, height), size, strict=True)
        ]
    windows = [(x, y) for x in starts[0] for y in starts[1]]
    coverage = {
        (x, y): 100 * np.count_nonzero(truth[y : y + size[1], x : x + size[0]]) / (size[0] * size[1])
        for x, y in windows
    }
    wanted = {window for window, percent in coverage.items() if percent >= limit}

    def run() -> TileResult:
        return tile(
            folder,
            *sources,
            tile_size_x=size[0],
            tile_size_y=size[1],
            step_x=step[0],
            step_y=step[1],
            edges=edges,
            min_label_coverage=limit,
        )

    if not wanted:
        with pytest.raises(ConfigError, match="MIN_LABEL_COVERAGE" if windows else "EDGES is drop"):
            run()
        assert not folder.exists()
        return
    result = run()
    assert (result.tile_count, result.skipped_count) == (len(wanted), len(windows) - len(wanted))
    images, masks = chips(folder), chips(folder, "labels")
    assert {offsets(name) for name in images} == wanted and list(masks) == list(images)
    for name, pixels in images.items():
        x, y = offsets(name)
        box = (slice(y, y + size[1]), slice(x, x + size[0]))
        assert np.array_equal(pixels, whole[(slice(None), *box)])
        assert np.array_equal(masks[name][0], truth[box])
    for row in index_rows(folder):
        assert row["coverage"] == pytest.approx(coverage[row["col"], row["row"]], abs=1e-12)


@pytest.mark.parametrize(("width", "height"), [(24, 16), (25, 17), (23, 15), (8, 8), (5, 3)])
def test_chips_partition_the_image_where_step_equals_tile(tmp_path: Path, width: int, height: int) -> None:
    ramp = np.arange(width * height, dtype=np.int32).reshape(height, width)
    image = write_raster(tmp_path / "i.tif", ramp, nodata=-1)
    tile(tmp_path / "out", image, write_raster(tmp_path / "l.tif", np.ones((height, width), np.uint8)))
    pixels = np.concatenate([chip.ravel() for chip in chips(tmp_path / "out").values()])
    assert sorted(pixels[pixels >= 0]) == list(range(width * height))


def test_reaching_the_limit_counts_with_the_padding(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "i.tif", np.ones((1, 8, 12), np.uint8))
    labels = np.zeros((8, 12), np.uint8)
    labels[:, 8:] = 1  # half of the second chip, whose other half is padding
    labels[0, 0] = 1
    source = write_raster(tmp_path / "l.tif", labels)
    result = tile(tmp_path / "out", image, source, min_label_coverage=50)
    assert (result.tile_count, result.skipped_count) == (1, 1)
    assert list(chips(tmp_path / "out")) == ["i_tile_8_0"]
    with pytest.raises(ConfigError):
        tile(tmp_path / "out", image, source, min_label_coverage=50.01)


def test_when_no_chip_reaches_the_limit_the_best_one_is_named(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "i.tif", np.ones((1, 16, 16), np.uint8))
    labels = np.zeros((16, 16), np.uint8)
    labels[0, :5] = 1
    labels[12, 12] = 1
    source = write_raster(tmp_path / "l.tif", labels)
    with pytest.raises(ConfigError, match=r"MIN_LABEL_COVERAGE is 60 %.*has 7\.812 %.* to 7\.81 or less"):
        tile(tmp_path / "out", image, source, min_label_coverage=60)
    assert not (tmp_path / "out").exists()
    assert tile(tmp_path / "out", image, source, min_label_coverage=7.81).tile_count == 1


def test_labels_vanish_where_no_good_band_has_data(tmp_path: Path, random: np.random.Generator) -> None:
    image = random.integers(1, 9, (3, 8, 8)).astype(np.float32)
    image[:, 0] = -9  # all bands
    image[:2, 1] = -9  # all good bands
    image[0, 2] = -9  # one good band
    image[2, 3] = -9  # the bad band
    image[:2, 4] = np.nan  # in all good bands
    source = write_raster(tmp_path / "i.tif", image, nodata=-9, metadata=[{"bbl": "1"}, {"bbl": "1"}, {"bbl": "0"}])
    labels = write_raster(tmp_path / "l.tif", np.full((8, 8), 5, np.uint8))
    tile(tmp_path / "out", source, labels)
    cut = chips(tmp_path / "out", "labels")["i_tile_0_0"][0]
    assert (cut[[0, 1, 4]] == 0).all() and (cut[[2, 3, 5, 6, 7]] == 5).all()
    assert index_rows(tmp_path / "out")[0]["coverage"] == 100 * 5 / 8
    assert read_pixels(tmp_path / "l.tif").min() == 5, "the input is not changed"


def test_a_mask_takes_labels_out_and_goes_along(tmp_path: Path, random: np.random.Generator) -> None:
    mask = random.random((8, 20)) < 0.7
    image = random.integers(0, 9, (4, 8, 20)).astype(np.uint8)
    source = write_raster(tmp_path / "i.tif", image, mask=mask)
    labels = write_raster(tmp_path / "l.tif", np.full((8, 20), 5, np.uint8))
    tile(tmp_path / "out", source, labels)
    for name, chip in chips(tmp_path / "out", "labels").items():
        x, _ = offsets(name)
        there = np.pad(mask, ((0, 0), (0, 8)))[:, x : x + 8]
        assert np.array_equal(chip[0] == 5, there)
        _, valid = Raster.open(tmp_path / "out" / "images" / f"{name}.tif").read(Window(0, 0, 8, 8))
        assert np.array_equal(valid[:, :, : 20 - x], np.broadcast_to(there[:, : 20 - x], (4, 8, min(8, 20 - x))))


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "i4", "i8", "f4", "f8"])
@pytest.mark.parametrize("nodata", [None, 3])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_chips_keep_type_place_nodata_and_bands(
    tmp_path: Path, random: np.random.Generator, dtype: str, nodata: int | None, compression: str
) -> None:
    image = random.integers(0, 9, (4, 12, 20)).astype(dtype)
    source = write_raster(
        tmp_path / "i.tif",
        image,
        nodata=nodata,
        names=["blau", "grün", "", "d"],
        metadata=[{"wavelength": "0.443", "wavelength_units": "Micrometers", "bbl": "1"}, {"bbl": "0"}, {}, {}],
    )
    labels = write_raster(tmp_path / "l.tif", np.ones((12, 20), np.uint8))
    tile(tmp_path / "out", source, labels, compression=compression)
    before = Raster.open(source)
    for name in chips(tmp_path / "out"):
        x, y = offsets(name)
        chip = Raster.open(tmp_path / "out" / "images" / f"{name}.tif")
        assert chip.bands == before.bands
        assert (chip.dtype, chip.masked) == (np.dtype(dtype), False)
        assert chip.grid.same_as(before.grid.cut(Window(x, y, 8, 8)), 1e-9)
        label = Raster.open(tmp_path / "out" / "labels" / f"{name}.tif")
        assert label.grid == chip.grid


def test_a_nodata_that_the_type_cannot_hold_pads_with_a_mirror(tmp_path: Path) -> None:
    ramp = np.arange(1, 101, dtype=np.uint8).reshape(10, 10)
    source = write_raster(tmp_path / "i.tif", ramp, nodata=-9999)
    tile(tmp_path / "out", source, write_raster(tmp_path / "l.tif", np.ones((10, 10), np.uint8)))
    assert np.array_equal(chips(tmp_path / "out")["i_tile_8_8"][0], np.pad(ramp, (0, 6), "symmetric")[8:, 8:])


def test_label_chips_keep_names_and_colours(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    labels = write_raster(
        tmp_path / "l.tif",
        read_pixels(scene[1])[0].astype(np.uint8),
        categories={7: "Wald", 200: "Straße"},
        colors={7: (1, 2, 3), 200: (4, 5, 6)},
    )
    tile(tmp_path / "out", scene[0], labels, classes=(ClassEntry(200, "Road", "#aabbcc"),))
    for path in (tmp_path / "out" / "labels").glob("*.tif"):
        raster = gdal.Open(str(path))
        band = raster.GetRasterBand(1)
        assert (band.DataType, band.GetNoDataValue(), raster.RasterCount) == (gdal.GDT_Byte, 0, 1)
        names, colors = names_and_colors(raster)
        assert (names[7], colors[7], names[200], colors[200]) == ("Wald", "#010203", "Road", "#aabbcc")


def test_the_index(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    result = tile(tmp_path / "out", *scene)
    rows = {row["name"]: row for row in index_rows(tmp_path / "out")}
    assert result.tile_index == tmp_path / "out" / "tiles.gpkg"
    masks = chips(tmp_path / "out", "labels")
    assert rows.keys() == masks.keys() and len(rows) == result.tile_count == 6
    for name, row in rows.items():
        assert list(row) == ["name", "source", "col", "row", "coverage", "dominant", "split"]
        assert (row["source"], row["col"], row["row"], row["split"]) == ("image", *offsets(name), "")
        counts = np.bincount(masks[name].ravel(), minlength=256)
        counts[0] = 0
        assert counts[row["dominant"]] == counts.max() > 0
        assert row["coverage"] == 100 * counts.sum() / 64


def test_a_rerun_replaces_all_chips_of_the_image_and_no_others(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    out = tmp_path / "out"
    other = tmp_path / "in" / "image_tile_0.tif"
    shutil.copy(scene[0], other)
    tile(out, *scene)
    tile(out, other, scene[1])
    strange = out / "images" / "image_tile_0_0.tif.msk"
    strange.touch()
    write_splits(out / "tiles.gpkg", {"image_tile_0_tile_8_8": "train", "image_tile_8_8": "test"})
    before = {name: pixels for name, pixels in chips(out).items() if name.startswith("image_tile_0_tile")}
    with pytest.raises(ConfigError, match="another image with 8 x 8"):
        tile(out, *scene, tile_size_x=16, tile_size_y=16)
    tile(out, *scene, step_x=16, step_y=16)
    now = chips(out)
    assert {name for name in now if name not in before} == {"image_tile_0_0", "image_tile_16_0"}
    assert all(np.array_equal(now[name], pixels) for name, pixels in before.items())
    assert chips(out, "labels").keys() == now.keys() and not strange.exists()
    splits = read_splits(out / "tiles.gpkg")
    assert splits.keys() == now.keys()
    assert splits["image_tile_0_tile_8_8"] == "train"


def test_splits_that_were_saved_while_qgis_shows_the_index_are_kept(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    out = tmp_path / "out"
    tile(out, *scene)
    wanted = dict.fromkeys(read_splits(out / "tiles.gpkg"), "train")
    with open_as_in_qgis(out / "tiles.gpkg", "train"):
        assert (out / "tiles.gpkg-wal").stat().st_size
        tile(out, write_raster(tmp_path / "other.tif", read_pixels(scene[0])), scene[1])
    found = read_splits(out / "tiles.gpkg")
    assert len(found) == 2 * len(wanted) and {name: found[name] for name in wanted} == wanted


def test_a_rerun_with_another_chip_size_leaves_none_of_the_old_ones(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    tile(out, *scene)
    tile(out, *scene, tile_size_x=12, tile_size_y=16, step_x=12, step_y=16)
    tile(fresh, *scene, tile_size_x=12, tile_size_y=16, step_x=12, step_y=16)
    assert snapshot(out / "images") == snapshot(fresh / "images")
    assert snapshot(out / "labels") == snapshot(fresh / "labels")
    assert index_rows(out) == index_rows(fresh)
    assert snapshot(out).keys() == snapshot(fresh).keys()


def test_an_image_of_the_same_name_from_another_place_is_refused(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    out, pixels, labels = tmp_path / "out", read_pixels(scene[0]), read_pixels(scene[1])[0].astype(np.uint8)
    tile(out, *scene)
    before = snapshot(out)
    moved = (TRANSFORM[0] + 24 * TRANSFORM[1], *TRANSFORM[1:])
    for number, place in enumerate(({"transform": moved}, {"crs": utm(32)})):
        other = write_raster(tmp_path / str(number) / "image.tif", pixels, nodata=-1, **place)
        truth = write_raster(tmp_path / str(number) / "labels.tif", labels, **place)
        with pytest.raises(ConfigError, match="another image of the name image, from another place"):
            tile(out, other, truth)
    assert snapshot(out) == before


def test_an_image_of_the_same_name_and_place_with_other_pixels_is_refused(
    tmp_path: Path, scene: tuple[Path, Path]
) -> None:
    """Such as another date, or another layer of the same container."""
    out, pixels = tmp_path / "out", read_pixels(scene[0])
    tile(out, *scene)
    before = snapshot(out)
    for number, (other, said) in enumerate(((pixels + 1, "with other pixels"), (pixels[:-1], "instead of"))):
        image = write_raster(tmp_path / str(number) / "image.tif", other, nodata=-1)
        with pytest.raises(ConfigError, match=f"another image of the name image, .*{said}.*remove its old chips"):
            tile(out, image, scene[1])
    assert snapshot(out) == before
    for path in (*(out / "images").iterdir(), *(out / "labels").iterdir()):
        path.unlink()
    assert tile(out, image, scene[1]).tile_count == 6


def test_the_same_image_in_another_file_takes_the_place_of_its_chips(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    out, pixels = tmp_path / "out", read_pixels(scene[0])
    tile(out, *scene)
    copy = write_raster(tmp_path / "copy" / "image.tif", pixels.astype(np.float64), nodata=-1)
    assert tile(out, copy, scene[1], edges="shift", tile_size_x=12).tile_count
    damaged = next((out / "images").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:99])
    assert tile(out, *scene).tile_count == 6


def test_subdatasets_of_one_container_do_not_take_each_others_place(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    out, pixels = tmp_path / "out", read_pixels(scene[0])
    container = tmp_path / "both.gpkg"
    for number, year in enumerate(("y2021", "y2022")):
        single = write_raster(tmp_path / f"{year}.tif", (pixels[:1] * 0 + number + 1).astype(np.uint8))
        more = ["APPEND_SUBDATASET=YES"] if number else []
        gdal.Translate(str(container), str(single), creationOptions=[f"RASTER_TABLE={year}", *more])
    first, second = (f"GPKG:{container}:{year}" for year in ("y2021", "y2022"))
    tile(out, first, scene[1])
    before = snapshot(out)
    with pytest.raises(ConfigError, match="another image of the name both, with other pixels"):
        tile(out, second, scene[1])
    assert snapshot(out) == before
    assert tile(out, first, scene[1]).tile_count


def test_names_of_all_images_in_the_folder_count(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    labels, out = read_pixels(scene[1])[0].astype(np.uint8), tmp_path / "out"
    image = read_pixels(scene[0])
    for stem, known in (("a", {7: "barley"}), ("b", {7: "barley", 200: "rye"})):
        own = np.where(np.isin(labels, list(known)), labels, 0).astype(np.uint8)
        truth = write_raster(tmp_path / f"{stem}_labels.tif", own, categories=known)
        tile(out, write_raster(tmp_path / f"{stem}.tif", image), truth)
    truth = write_raster(tmp_path / "c_labels.tif", labels, categories={7: "barley", 200: "wheat"})
    with pytest.raises(ConfigError, match="class 200 is 'rye'; here it is 'wheat'"):
        tile(out, write_raster(tmp_path / "c.tif", image), truth)


@pytest.mark.skipif(int(gdal.VersionInfo()) >= 3070000, reason="signed bytes have a number type of their own")
@pytest.mark.parametrize("which", ["image", "labels"])
def test_signed_bytes_are_refused(tmp_path: Path, scene: tuple[Path, Path], which: str) -> None:
    path = tmp_path / "signed.tif"
    gdal.GetDriverByName("GTiff").Create(str(path), 24, 16, 1, gdal.GDT_Byte, ["PIXELTYPE=SIGNEDBYTE"]).FlushCache()
    with pytest.raises(RasterError, match=r"signed\.tif holds signed bytes"):
        tile(tmp_path / "out", *((path, scene[1]) if which == "image" else (scene[0], path)))


@pytest.mark.parametrize("case", ["width", "height", "bands", "names"])
def test_chips_of_another_kind_are_refused_before_work(
    tmp_path: Path, scene: tuple[Path, Path], random: np.random.Generator, case: str
) -> None:
    out = tmp_path / "out"
    named = {7: "Wald", 200: "Straße"}
    labels = read_pixels(scene[1])[0].astype(np.uint8)
    tile(out, scene[0], write_raster(tmp_path / "a.tif", labels, categories=named))
    image = tmp_path / "in" / "other.tif"
    write_raster(image, random.integers(1, 9, (2 if case == "bands" else 3, 16, 24)).astype(np.int16))
    own = {**named, 7: "Wiese"} if case == "names" else named
    source = write_raster(tmp_path / "b.tif", labels, categories=own)
    sizes = {"width": {"tile_size_x": 9}, "height": {"tile_size_y": 9}}.get(case, {})
    before = snapshot(out)
    with pytest.raises(ConfigError, match=rf"OUTPUT_FOLDER .*{'Wald.*Wiese' if case == 'names' else 'bands'}"):
        tile(out, image, source, **sizes)
    assert snapshot(out) == before
    if case == "names":
        tile(out, image, write_raster(tmp_path / "c.tif", labels, categories=named))
        assert len(chips(out)) == 12


def test_cancel_at_every_moment_leaves_what_was_there(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    out, new = tmp_path / "out", tmp_path / "new" / "deep"
    tile(out, *scene)
    before = snapshot(out)
    counted = Recorder()
    tile(tmp_path / "count", *scene, counted, step_x=4)
    assert counted.checks > 6
    for moment in range(1, counted.checks + 1):
        for folder in (out, new):
            progress = Recorder(cancel_at=moment)
            try:
                tile(folder, *scene, progress, step_x=4)
            except Canceled:
                continue
            assert progress.checks < moment, "threads that were faster than before"
            return
        assert snapshot(out) == before, moment
        assert not new.parent.exists(), moment


@pytest.mark.parametrize("size", [0, 1000, 20_000, 60_000])
def test_a_full_disk_ends_with_a_sentence_and_leaves_what_was_there(
    tmp_path: Path, random: np.random.Generator, gdal_errors: str, size: int
) -> None:
    # Image chips have 98 kB, label chips 4 kB; an index without rows has about 100 kB.
    image = write_raster(tmp_path / "i.tif", random.random((3, 64, 128)))
    labels = write_raster(tmp_path / "l.tif", random.integers(1, 9, (64, 128)).astype(np.uint8))
    sizes = {"tile_size_x": 64, "tile_size_y": 64, "step_x": 64, "step_y": 64}
    out = tmp_path / "out"
    tile(out, image, labels, **sizes)
    before = snapshot(out)
    for folder in (out, tmp_path / "new" / "deep"):
        with full_disk(size), pytest.raises(RasterError, match=r"cannot be written.*Is the disk full"):
            tile(folder, image, labels, **sizes)
    assert snapshot(out) == before
    assert not (tmp_path / "new").exists()


def test_a_full_disk_at_the_index(tmp_path: Path, scene: tuple[Path, Path], gdal_errors: str) -> None:
    out = tmp_path / "out"  # chips are small here, the index is not
    with full_disk(30_000), pytest.raises(RasterError, match=r"cannot be written.*Is the disk full"):
        tile(out, *scene)
    assert not out.exists()
    tile(out, *scene)
    before = snapshot(out)
    with full_disk(30_000), pytest.raises(RasterError, match="cannot be written"):
        tile(out, *scene, step_x=4)
    assert snapshot(out) == before


def test_chips_that_cannot_be_replaced_stay(
    tmp_path: Path, scene: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    tile(out, *scene)
    before = snapshot(out)
    replace = Path.replace
    moves = 0

    def fail_once(self: Path, target: Path) -> Path:
        nonlocal moves
        moves += 1
        if moves == stop:  # as for a chip that another program holds on Windows
            raise PermissionError(13, "in use")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_once)
    for stop in (1, 4, 8, 11, 20, 26):
        moves = 0
        with pytest.raises(RasterError, match=r"cannot be replaced.*in use"):
            tile(out, *scene, step_x=4)
        assert snapshot(out) == before, stop


@pytest.mark.parametrize("place", ["file", "file/out", "file/out/deep"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, scene: tuple[Path, Path], place: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RasterError, match=r"file.* cannot be written"):
        tile(tmp_path / place, *scene)
    assert (tmp_path / "file").read_text() == "in the way"


def test_zero_as_a_class(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    binary = np.zeros((16, 24), np.uint8)
    binary[:, 10:] = 1
    labels = write_raster(tmp_path / "l.tif", binary)
    tile(tmp_path / "out", scene[0], labels, zero_as=2, tile_size_x=16, step_x=16)
    for name, chip in chips(tmp_path / "out", "labels").items():
        x, y = offsets(name)
        wanted = np.pad(np.where(binary == 0, 2, 1), ((0, 0), (0, 8)))[y : y + 8, x : x + 16]
        assert np.array_equal(chip[0], wanted), "padding stays unlabelled"
    with pytest.raises(ConfigError, match="ZERO_AS is 1"):
        tile(tmp_path / "other", scene[0], labels, zero_as=1)
    for nodata, said in ((None, False), (0, False), (255, True)):
        progress = Recorder()
        other = write_raster(tmp_path / f"{nodata}.tif", np.where(binary == 0, 0, 1).astype(np.uint8), nodata=nodata)
        tile(tmp_path / f"with {nodata}", scene[0], other, progress=progress)
        assert any("value 0 beside its no-data value" in text for text in progress.warnings) == said
    blank = write_raster(tmp_path / "blank.tif", np.zeros((16, 24), np.uint8))
    with pytest.raises(DatasetError, match=r"holds no labelled pixel.*ZERO_AS"):
        tile(tmp_path / "other", scene[0], blank)
    assert not (tmp_path / "other").exists()


def test_an_override_of_nodata(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    image = read_pixels(scene[0]).astype(np.int16)
    image[:, :4, :6] = 777
    source = write_raster(tmp_path / "i.tif", image, nodata=-1)
    tile(tmp_path / "out", source, scene[1], nodata=777, tile_size_x=16)
    assert (chips(tmp_path / "out", "labels")["i_tile_0_0"][0][:4, :6] == 0).all()
    assert (chips(tmp_path / "out")["i_tile_16_0"][:, :, 8:] == 777).all()
    assert Raster.open(tmp_path / "out" / "images" / "i_tile_0_0.tif").nodata == 777


@pytest.mark.parametrize("nodata", [40000, -40000, 0.5, float("nan"), float("inf")])
def test_an_override_that_the_image_cannot_hold_is_refused(
    tmp_path: Path, scene: tuple[Path, Path], nodata: float
) -> None:
    with pytest.raises(ConfigError, match=r"NODATA is .*int16.*-32768 to 32767"):
        tile(tmp_path / "out", *scene, nodata=nodata)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stem", ["a b", "S2A.20240101.v1", "ä", "my.tif.copy", "x_tile_3_4", "it's", "[1]*"])
def test_any_name_of_the_image(tmp_path: Path, scene: tuple[Path, Path], stem: str) -> None:
    image = tmp_path / "ö in" / f"{stem}.tif"
    image.parent.mkdir()
    shutil.copy(scene[0], image)
    out = tmp_path / "aus gabe ß"
    tile(out, image, scene[1], step_x=4, step_y=4)
    tile(out, image, scene[1])
    wanted = {f"{stem}_tile_{x}_{y}" for x in (0, 8, 16) for y in (0, 8)}
    assert chips(out).keys() == chips(out, "labels").keys() == wanted
    assert {row["name"] for row in index_rows(out)} == wanted
    assert {row["source"] for row in index_rows(out)} == {stem}


def test_nothing_is_left_between_and_inputs_are_not_touched(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    before = snapshot(tmp_path / "in")
    progress = Recorder()
    tile(tmp_path / "out", *scene, progress)
    assert snapshot(tmp_path / "in") == before
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"images", "labels", "tiles.gpkg"}
    assert progress.shares == sorted(progress.shares) and progress.shares[-1] == 1
    assert progress.staged_paths and not any(path.exists() for path in progress.staged_paths)


def test_an_image_smaller_than_a_chip(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "i.tif", np.array([[5]], np.uint8))
    labels = write_raster(tmp_path / "l.tif", np.array([[1]], np.uint8))
    tile(tmp_path / "out", image, labels)
    assert (chips(tmp_path / "out")["i_tile_0_0"] == 5).all(), "mirrored"
    assert chips(tmp_path / "out", "labels")["i_tile_0_0"].sum() == 1
    with pytest.raises(ConfigError, match=r"larger than the image.*EDGES pad"):
        tile(tmp_path / "out2", image, labels, edges="drop")


def test_labels_on_another_grid_are_told(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    shifted = (TRANSFORM[0] + 80, *TRANSFORM[1:])
    labels = write_raster(tmp_path / "l.tif", np.full((16, 24), 3, np.uint8), transform=shifted)
    progress = Recorder()
    tile(tmp_path / "out", scene[0], labels, progress)
    assert any("warped" in text for text in progress.infos)
    assert {row["name"]: row["coverage"] for row in index_rows(tmp_path / "out")}["image_tile_0_0"] == 0
    assert chips(tmp_path / "out", "labels")["image_tile_8_0"].min() == 3


def test_tables_of_a_dataset_of_the_chips_before_are_told(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    out, progress = tmp_path / "out", Recorder()
    tile(out, *scene, progress)
    assert not progress.warnings
    (out / "train_files.csv").write_text("image,mask\n")
    tile(out, *scene, progress)
    assert any("Run the Dataset Maker again before you train" in text for text in progress.warnings)
