# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of making a dataset of the chips of several images, which need not suit each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from osgeo import gdal

from specdeepmap.core.data.dataset import STATISTICS_NAME
from specdeepmap.core.data.tileindex import read_splits, write_splits
from specdeepmap.core.errors import DatasetError
from specdeepmap.core.jobs import TileJob
from specdeepmap.core.tasks.tile import tile_raster
from tests.chips import cut_by_8, prepare, sets_of, table
from tests.helpers import Recorder, read_pixels, utm, write_raster


def two_images(folder: Path, random: np.random.Generator, **second: Any) -> Path:
    """Put the chips of two images into one folder, as by hand."""
    labels = random.choice([7, 200], (40, 40)).astype(np.uint8)
    image = random.normal(3000, 400, (2, 40, 40)).astype(np.float32)
    for name, settings in (("one", {"names": ["red", "green"]}), ("two", {"names": ["red", "green"], **second})):
        (folder / name).mkdir(parents=True)
        made = cut_by_8(folder / name / "data", image, labels, **settings)
        for kind in ("images", "labels"):
            (folder / "all" / kind).mkdir(parents=True, exist_ok=True)
            for path in (made / kind).iterdir():
                path.rename(folder / "all" / kind / path.name.replace("image_", f"{name}_"))
    return folder / "all"


def test_a_class_with_two_names_is_refused(tmp_path: Path, random: np.random.Generator) -> None:
    folder = two_images(tmp_path, random)
    for path in (folder / "labels").glob("two_*.tif"):
        dataset = gdal.Open(str(path), gdal.GA_Update)
        dataset.GetRasterBand(1).SetDefaultRAT(None)
        dataset.GetRasterBand(1).SetCategoryNames(["", *["?"] * 6, "rye"])
        dataset = None
    with pytest.raises(DatasetError, match=r"class 7 is '.*' in some chips and '.*' in (one|two)_"):
        prepare(folder)


@pytest.mark.parametrize("seed", range(4))
def test_a_band_flagged_bad_in_one_image_is_used_of_none(
    tmp_path: Path, random: np.random.Generator, seed: int
) -> None:
    folder = two_images(tmp_path, random, metadata=[{"bbl": "1"}, {"bbl": "0"}])
    prepare(folder, seed=seed)
    assert [row["Bad"] for row in table(folder / STATISTICS_NAME)] == ["0", "1"]


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"names": ["green", "red"]}, True),
        ({"metadata": [{"wavelength": "660"}, {"wavelength": "560"}]}, False),
        ({}, False),
    ],
)
def test_images_with_other_bands_are_warned_of(
    tmp_path: Path, random: np.random.Generator, second: dict[str, Any], said: bool
) -> None:
    progress = Recorder()
    prepare(two_images(tmp_path, random, **second), progress)
    assert any("have other bands than those of" in text for text in progress.warnings) == said


@pytest.mark.parametrize(("offset", "said"), [(-0.1, True), (0.0, False)])
def test_images_whose_numbers_mean_something_else_are_warned_of(
    tmp_path: Path, random: np.random.Generator, offset: float, said: bool
) -> None:
    folder = two_images(tmp_path, random)
    for path in (folder / "images").iterdir():
        chip = gdal.Open(str(path), gdal.GA_Update)
        chip.GetRasterBand(2).SetScale(1e-4)
        chip.GetRasterBand(2).SetOffset(offset if path.name.startswith("two_") else 0.0)
        chip = None
    progress = Recorder()
    prepare(folder, progress)
    told = [text for text in progress.warnings if "declare another scale or offset" in text]
    assert len(told) == said
    assert not said or ("2 (scale 0.0001, offset" in told[0] and "offset -0.1" in told[0])


@pytest.mark.parametrize(("same_place", "split"), [(True, "stratified"), (True, "blocks"), (False, "stratified")])
def test_ground_shared_across_utm_zones_is_told(
    tmp_path: Path, random: np.random.Generator, same_place: bool, split: str
) -> None:
    west = 280_000.0 if same_place else 500_000.0  # of zone 33, where zone 32 has its east
    image = random.integers(1, 100, (2, 64, 64)).astype(np.int16)
    labels = np.tile(np.repeat(np.array([1, 2], np.uint8), 4), (64, 8))
    place = (west, 10.0, 0.0, 5_800_000.0, 0.0, -10.0)
    paths = [
        write_raster(tmp_path / f"a{kind}.tif", values, transform=place)
        for kind, values in (("image", image), ("labels", labels))
    ]
    if same_place:
        for path in paths:
            options = {"dstSRS": "EPSG:32632", "xRes": 10, "yRes": 10, "dstNodata": 0}
            gdal.Warp(str(path.with_name(path.name.replace("a", "b", 1))), str(path), **options)
    else:
        for kind, values in (("image", image), ("labels", labels)):
            write_raster(tmp_path / f"b{kind}.tif", values, transform=place, crs=utm(32))
    for stem in "ab":
        job = TileJob(
            image=str(tmp_path / f"{stem}image.tif"),
            labels=str(tmp_path / f"{stem}labels.tif"),
            output_folder=tmp_path / "out",
            tile_size_x=8,
            tile_size_y=8,
            step_x=8,
            step_y=8,
            min_label_coverage=90,
        )
        tile_raster(job, Recorder())
    progress = Recorder()
    prepare(tmp_path / "out", progress, split=split)
    told = any("in another coordinate system" in text for text in progress.warnings)
    assert told == (same_place and split != "blocks")  # blocks keep them apart
    if split == "blocks":
        assert min(map(len, sets_of(tmp_path / "out").values())) > 0
        assert sum(map(len, sets_of(tmp_path / "out").values())) > 0.8 * len(list((tmp_path / "out/images").iterdir()))
    assert not any("cut the chips with a step" in text for text in progress.warnings)


@pytest.mark.parametrize(("factor", "told"), [(1.0, False), (3.0, False), (1e-4, True), (100.0, True)])
def test_images_in_another_unit_are_told(
    tmp_path: Path, random: np.random.Generator, factor: float, told: bool
) -> None:
    folder = two_images(tmp_path, random)
    for path in (folder / "images").glob("two_*.tif"):
        pixels, raster = read_pixels(path), gdal.Open(str(path), gdal.GA_Update)
        raster.WriteArray(pixels * factor)
        raster = None
    progress = Recorder()
    prepare(folder, progress)
    said = [text for text in progress.warnings if "another unit or scaling" in text]
    assert bool(said) == told and (not told or ("two" in said[0] and "one" in said[0]))


def test_a_name_that_two_classes_have_is_told(tmp_path: Path, random: np.random.Generator) -> None:
    folder = two_images(tmp_path, random)
    for path in (folder / "labels").glob("*.tif"):
        dataset = gdal.Open(str(path), gdal.GA_Update)
        dataset.GetRasterBand(1).SetDefaultRAT(None)
        dataset.GetRasterBand(1).SetCategoryNames(["", *["?"] * 6, "Water", *["?"] * 192, "water"])
        dataset = None
    progress = Recorder()
    prepare(folder, progress)
    assert any("Classes 7, 200 have the same name" in text for text in progress.warnings)


def test_chips_without_a_set_are_told_by_image(tmp_path: Path, random: np.random.Generator) -> None:
    image = write_raster(tmp_path / "a.tif", random.normal(100, 9, (2, 16, 32)).astype(np.float32))
    other = write_raster(tmp_path / "b.tif", random.normal(100, 9, (2, 16, 32)).astype(np.float32))
    labels = write_raster(tmp_path / "labels.tif", np.tile(np.array([1, 2], np.uint8), (16, 16)))
    out, sizes = tmp_path / "out", dict.fromkeys(("tile_size_x", "tile_size_y", "step_x", "step_y"), 8)

    def split(source: Path) -> None:
        job = TileJob(image=str(source), labels=str(labels), output_folder=out, min_label_coverage=0, **sizes)
        tile_raster(job, Recorder())

    split(image)
    splits = {name: "train" if name.endswith("_0") else "test" for name in read_splits(out / "tiles.gpkg")}
    write_splits(out / "tiles.gpkg", splits)
    split(image)
    assert read_splits(out / "tiles.gpkg") == splits, "what was put into sets by hand stays"
    split(other)
    progress = Recorder()
    prepare(out, progress, split="given")
    assert "Chips without a set in tiles.gpkg, which are left out: 8 of b." in progress.infos
    assert any("No chip of b is in a set" in text for text in progress.warnings)
