# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the Dataset Maker's report, and of chips that others made."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from osgeo import gdal

from specdeepmap.core.data.census import source_of
from specdeepmap.core.data.dataset import Dataset
from specdeepmap.core.errors import DatasetError
from specdeepmap.core.jobs import TileJob
from specdeepmap.core.tasks.tile import tile_raster
from tests.chips import prepare, table
from tests.helpers import TRANSFORM, Array, Recorder, read_pixels, snapshot, write_raster

EVEN = {"train_percent": 60, "validation_percent": 20, "test_percent": 20}


def cut(folder: Path, image: Array, labels: Array, step: int = 8, **settings: Any) -> Path:
    """Let the splitter cut chips of 8 pixels; classes 7 and 200 have names that HTML could choke on."""
    source = write_raster(folder.parent / "scene.tif", image, **settings)
    names = {7: "Wald & <Wiese>", 200: 'the "sea"'}
    truth = write_raster(folder.parent / "truth.tif", labels, categories=names, colors={7: (1, 2, 3), 200: (9, 8, 7)})
    sizes = {"tile_size_x": 8, "tile_size_y": 8, "step_x": step, "step_y": step}
    job = TileJob(image=str(source), labels=str(truth), output_folder=folder, min_label_coverage=0, **sizes)
    tile_raster(job, Recorder())
    return folder


def foreign(folder: Path, count: int = 12, suffix: str = "tif", driver: str = "GTiff", **settings: Any) -> Path:
    """Write chips as others might: names of their own, one beside the other."""
    random = np.random.default_rng(4)
    for number in range(count):
        transform = (TRANSFORM[0] + 80 * number, *TRANSFORM[1:])
        usual: dict[str, Any] = {"transform": transform, "driver": driver, **settings}
        image = random.integers(1, 9, (2, 8, 8)).astype(np.int16)
        image[0, 0, :3] = -1
        name = f"patch.{number:02d} ä.{suffix}"
        write_raster(folder / "images" / name, image, nodata=-1, **usual)
        write_raster(folder / "labels" / name, random.choice([0, 3, 9], (8, 8)).astype(np.uint8), **usual)
    return folder


def text_of(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", page))


@pytest.mark.parametrize("output", [None, "aus gabe ä"])
def test_the_report_says_what_the_log_said(tmp_path: Path, random: np.random.Generator, output: str | None) -> None:
    labels = random.choice([0, 7, 200], (40, 40)).astype(np.uint8)
    labels[20, 20] = 31
    image = random.random((3, 40, 40))
    image[1], image[2] = -9, 4
    data = cut(
        tmp_path / "data", image, labels, step=6, nodata=-9, metadata=[{"wavelength": str(n)} for n in (450, 550, 650)]
    )
    progress = Recorder()
    result = prepare(data, progress, output_folder=None if output is None else tmp_path / output)
    assert result.report == (data if output is None else tmp_path / output) / "dataset_report.html"
    page = result.report.read_text(encoding="utf-8")
    text = text_of(page)
    assert len(progress.warnings) >= 4
    for warning in progress.warnings:
        assert warning in text
    (leaks,) = (warning for warning in progress.warnings if "share ground" in warning)
    assert int(leaks.split()[0]) > 10
    for name in ("Wald & <Wiese>", 'the "sea"', "class 31"):
        assert name in text
    assert "<Wiese>" not in page
    assert any("class shares differ by" in info and info in text for info in progress.infos)
    assert set(re.findall(r"[a-z]+://[^\"'\s<>)]+", page)) == {"http://www.w3.org/2000/svg"}
    assert str(tmp_path) not in page, "no path of this computer"
    boxes = page.count("<title>scene_tile_")
    assert boxes == len(list((data / "images").iterdir())), "every chip lies on the map"
    assert "wavelength (nm)" in page and "nan" not in page


def test_the_shares_and_counts_in_the_report(tmp_path: Path, random: np.random.Generator) -> None:
    labels = random.choice([0, 7, 200], (80, 80), p=[0.2, 0.7, 0.1]).astype(np.uint8)
    data = cut(tmp_path / "data", random.random((1, 80, 80)), labels)
    progress = Recorder()
    page = prepare(data, progress, **EVEN).report.read_text(encoding="utf-8")
    assert progress.warnings == [] and "None." in text_of(page)
    for row in table(data / "Summary_train_val.csv"):
        for title in ("Train", "Validation", "Test"):
            assert f">{row[f'{title} Percentage']} %<" in page
            assert f"<td>{int(row[f'{title} Count']):,}</td>" in page
        assert row["Class Color"] in page
    assert "60 training, 20 validation and 20 test chips" in text_of(page)


def test_a_report_without_statistics_has_no_bands(tmp_path: Path, random: np.random.Generator) -> None:
    data = cut(tmp_path / "data", random.random((1, 40, 40)), random.choice([7, 200], (40, 40)).astype(np.uint8))
    assert "Bands (training chips" in prepare(data).report.read_text(encoding="utf-8")
    assert "Bands (training chips" not in prepare(data, statistics=False).report.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("suffix", "driver"), [("tiff", "GTiff"), ("TIF", "GTiff"), ("img", "HFA"), ("bsq", "ENVI"), ("dat", "ENVI")]
)
@pytest.mark.parametrize("split", ["stratified", "blocks"])
def test_chips_of_others_with_other_extensions(tmp_path: Path, suffix: str, driver: str, split: str) -> None:
    data = foreign(tmp_path / "data", suffix=suffix, driver=driver)
    before = snapshot(data)
    progress = Recorder()
    prepare(data, progress, split=split, **EVEN)
    assert {name: content for name, content in snapshot(data).items() if "/" in name} == {
        name: content for name, content in before.items() if "/" in name
    }, "no side file beside the chips"
    dataset = Dataset.open(data)
    chips = [pair for pairs in dataset.chips.values() for pair in pairs]
    assert len(chips) == 12 and {pair.image.suffix for pair in chips} == {f".{suffix}"}
    assert all(pair.image.name == pair.label.name for pair in chips)
    assert dataset.classes.values == (3, 9)
    values = np.concatenate([read_pixels(pair.image).reshape(2, -1) for pair in dataset.chips["train"]], axis=1)
    assert dataset.statistics is not None
    for band, mean in zip(values, dataset.statistics.mean, strict=True):
        assert mean == pytest.approx(band[band != -1].mean())
    assert not any("share ground" in text for text in progress.warnings)


@pytest.mark.parametrize("split", ["stratified", "blocks", "random"])
def test_chips_of_others_without_any_place(tmp_path: Path, split: str) -> None:
    data = foreign(tmp_path / "data", crs="", transform=None)
    progress = Recorder()
    prepare(data, progress, split=split, **EVEN)
    assert sum(len(pairs) for pairs in Dataset.open(data).chips.values()) == 12
    assert progress.warnings == [], "chips without a place do not leak"


def test_the_image_that_a_chip_was_cut_from() -> None:
    assert source_of("scene_tile_0_8") == "scene"
    assert source_of("x_tile_3_4_tile_0_8") == "x_tile_3_4"
    assert source_of("patch 7") == "patch 7"


def test_chips_left_over_from_another_size_are_a_warning(tmp_path: Path, random: np.random.Generator) -> None:
    data = foreign(tmp_path / "data")
    for kind, values in (("images", random.integers(1, 9, (2, 16, 12)).astype(np.int16)), ("labels", None)):
        image = np.full((16, 12), 3, np.uint8) if values is None else values
        write_raster(data / kind / "old_tile_0_0.tif", image, transform=(4e5, *TRANSFORM[1:]))
    progress = Recorder()
    prepare(data, progress)
    assert any("different sizes (8 x 8, 12 x 16 pixels)" in text for text in progress.warnings)


def test_every_chip_has_a_nodata_value_of_its_own(tmp_path: Path) -> None:
    """Neither that of the first band nor that of the first chip holds for all."""
    folder = tmp_path / "data"
    random = np.random.default_rng(2)
    kept: list[list[float]] = [[], []]
    for number, nodata in enumerate(((-1.0, 5.0), (5.0, float("nan")), (None, -1.0), (float("nan"), None))):
        image = random.choice([-1.0, 5.0, 2.0, np.nan], (2, 8, 8)).astype(np.float32)
        for band, (values, none) in enumerate(zip(image, nodata, strict=True)):
            write_raster(tmp_path / f"{number}_{band}.tif", values)
            kept[band] += [value for value in values.ravel().tolist() if value == value and value != none]
        (folder / "images").mkdir(parents=True, exist_ok=True)
        path = folder / "images" / f"chip_{number}.vrt"
        made = gdal.BuildVRT(str(path), [str(tmp_path / f"{number}_{band}.tif") for band in (0, 1)], separate=True)
        for band, none in enumerate(nodata):
            if none is not None:
                made.GetRasterBand(band + 1).SetNoDataValue(none)
        del made
        write_raster(folder / "labels" / f"chip_{number}.tif", random.choice([1, 2], (8, 8)).astype(np.uint8))
    prepare(folder, train_percent=100, validation_percent=0, test_percent=0, scaler=0.25)
    rows = table(folder / "Normalize_Bands.csv")
    for row, values in zip(rows, kept, strict=True):
        assert float(row["mean"]) == pytest.approx(np.mean(values) / 0.25, rel=1e-12)
        assert float(row["std"]) == pytest.approx(np.std(values) / 0.25, rel=1e-12)


def test_nodata_of_labels_is_no_class(tmp_path: Path, random: np.random.Generator) -> None:
    folder = tmp_path / "data"
    for number, nodata in enumerate((255, 9, None, -1)):
        labels = random.choice([1, 2, 9 if nodata is None else nodata], (8, 8)).astype(np.int16)
        write_raster(folder / "labels" / f"chip_{number}.tif", labels, nodata=nodata)
        write_raster(folder / "images" / f"chip_{number}.tif", random.random((1, 8, 8)))
    prepare(folder, train_percent=100, validation_percent=0, test_percent=0)
    rows = table(folder / "Summary_train_val.csv")
    assert [row["Class ID"] for row in rows] == ["1", "2", "9"], "9 is a class in the third chip only"
    labels = read_pixels(folder / "labels" / "chip_2.tif")
    assert int(rows[2]["Train Count"]) == np.count_nonzero(labels == 9)


@pytest.mark.parametrize("scaler", [0.001, 0.5, 3.7])
def test_a_fractional_scaler_is_kept_as_it_is(tmp_path: Path, scaler: float) -> None:
    data = foreign(tmp_path / "data")
    prepare(data, **EVEN)
    plain = Dataset.open(data).statistics
    prepare(data, scaler=scaler, **EVEN)
    scaled = Dataset.open(data).statistics
    assert plain is not None and scaled is not None and scaled.scale == scaler
    assert scaled.mean == pytest.approx([mean / scaler for mean in plain.mean])
    assert scaled.std == pytest.approx([std / scaler for std in plain.std])


def test_damaged_label_values_leave_the_folder_as_it_was(tmp_path: Path) -> None:
    data = foreign(tmp_path / "data")
    write_raster(data / "labels" / "patch.05 ä.tif", np.full((8, 8), 2.5, np.float32))
    before = snapshot(data)
    with pytest.raises(DatasetError, match=r"patch\.05 ä\.tif holds the value 2\.5"):
        prepare(data)
    assert snapshot(data) == before
