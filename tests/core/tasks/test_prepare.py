# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of making a dataset of chips."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal

from specdeepmap.core.data.classes import ClassTable, class_weights
from specdeepmap.core.data.dataset import Dataset
from specdeepmap.core.data.grid import Grid
from specdeepmap.core.data.splits import SPLIT_NAMES
from specdeepmap.core.data.tileindex import read_splits, write_splits
from specdeepmap.core.data.writer import write_class_chip
from specdeepmap.core.errors import Canceled, ConfigError, DatasetError, RasterError
from specdeepmap.core.jobs import PrepareJob, TileJob
from specdeepmap.core.tasks.tile import tile_raster
from tests.chips import cut_by_8, prepare, sets_of, table
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

TABLES = {"train_files.csv", "validation_files.csv", "test_files.csv", "Summary_train_val.csv"}
STATISTICS = "Normalize_Bands.csv"
REPORT = "dataset_report.html"


@pytest.fixture
def data(tmp_path: Path, random: np.random.Generator) -> Path:
    """25 chips of an image with two bands and missing pixels; labels of the sparse classes 7 and 200."""
    image = random.normal(3000, 400, (2, 40, 40)).astype(np.float32)
    image[random.random(image.shape) < 0.1] = -9
    labels = random.choice([0, 7, 200], (40, 40), p=[0.3, 0.6, 0.1]).astype(np.uint8)
    return cut_by_8(tmp_path / "data", image, labels, nodata=-9, names=["rot", "grün"])


def pixels_of(folder: Path, name: str) -> tuple[Array, Array]:
    """Give the image pixels ``(bands, pixels)`` and the labels of all chips of a set."""
    rows = table(folder / f"{name}_files.csv")
    images = [read_pixels(folder / row["image"]) for row in rows]
    labels = [read_pixels(folder / row["mask"]) for row in rows]
    return (
        np.concatenate([image.reshape(len(image), -1) for image in images], axis=1).astype(np.float64),
        np.concatenate([label.ravel() for label in labels]),
    )


@pytest.mark.parametrize("split", ["stratified", "random"])
def test_sets_are_disjoint_complete_and_as_large_as_wanted(data: Path, split: str) -> None:
    result = prepare(data, split=split, train_percent=60, validation_percent=20, test_percent=20)
    sets = sets_of(data)
    assert [len(sets[name]) for name in SPLIT_NAMES] == [15, 5, 5]
    assert sorted(chip for members in sets.values() for chip in members) == sorted(
        path.stem for path in (data / "images").glob("*.tif")
    )
    assert result.train_csv == data / "train_files.csv" and result.statistics_csv == data / STATISTICS
    assert {path.name for path in data.iterdir()} == {*TABLES, STATISTICS, REPORT, "images", "labels", "tiles.gpkg"}
    marked = read_splits(data / "tiles.gpkg")
    assert marked == {chip: name for name, members in sets.items() for chip in members}


def test_less_than_100_percent_takes_a_subset(data: Path) -> None:
    prepare(data, train_percent=20, validation_percent=8, test_percent=0)
    assert [len(members) for members in sets_of(data).values()] == [5, 2, 0]
    assert sorted(read_splits(data / "tiles.gpkg").values()).count("") == 18


def test_the_tables_tell_what_the_chips_hold(data: Path) -> None:
    prepare(data, train_percent=60, validation_percent=20, test_percent=20)
    rows = table(data / "Summary_train_val.csv")
    assert [row["Class ID"] for row in rows] == ["7", "200"]
    counts = np.array([[np.sum(pixels_of(data, name)[1] == value) for value in (7, 200)] for name in SPLIT_NAMES])
    for title, count in zip(("Train", "Validation", "Test"), counts, strict=True):
        assert [int(row[f"{title} Count"]) for row in rows] == count.tolist()
        assert [row[f"{title} Percentage"] for row in rows] == [f"{100 * n / count.sum():.2f}" for n in count]
    weights = [float(row["Class Train Weight"]) for row in rows]
    assert weights == pytest.approx(class_weights(counts[0]), abs=1e-6)
    assert all(row["Scaler"] == "None" for row in rows)
    for name in SPLIT_NAMES:
        for row in table(data / f"{name}_files.csv"):
            assert list(row) == ["image", "mask"]
            assert row["image"].startswith("images/") and row["mask"].startswith("labels/")


@pytest.mark.parametrize("scaler", [None, 10000.0, 0.37])
def test_statistics_equal_numpys_on_the_training_chips(data: Path, scaler: float | None) -> None:
    prepare(data, scaler=scaler)
    rows = table(data / STATISTICS)
    values, _ = pixels_of(data, "train")
    assert [row["Band_Number"] for row in rows] == ["1", "2"]
    assert [row["Band_Name"] for row in rows] == ["rot", "grün"]
    for row, band in zip(rows, values, strict=True):
        scaled = band[band != -9] / (scaler or 1)
        assert len(scaled) < len(band)
        assert float(row["mean"]) == pytest.approx(scaled.mean(), rel=1e-12)
        assert float(row["std"]) == pytest.approx(scaled.std(), rel=1e-12)
    assert {row["Scaler"] for row in table(data / "Summary_train_val.csv")} == {
        "None" if scaler is None else f"{scaler:g}"
    }
    assert Dataset.open(data).scale == (scaler or 1)


def test_a_dataset_is_opened_as_it_was_made(data: Path) -> None:
    prepare(data, scaler=100)
    dataset = Dataset.open(data)
    assert {name: [pair.name for pair in pairs] for name, pairs in dataset.chips.items()} == sets_of(data)
    assert dataset.classes.values == (7, 200)
    rows = table(data / STATISTICS)
    assert dataset.statistics is not None
    assert dataset.statistics.mean == tuple(float(row["mean"]) for row in rows)
    assert dataset.statistics.std == tuple(float(row["std"]) for row in rows)
    assert dataset.statistics.scale == 100


def test_empty_flagged_and_constant_bands(tmp_path: Path, random: np.random.Generator) -> None:
    image = random.normal(5, 1, (4, 16, 16))
    image[1], image[2] = -9, 0.1
    labels = random.choice([1, 2], (16, 16)).astype(np.uint8)
    flags = [{"bbl": flag} for flag in "1110"]
    data = cut_by_8(tmp_path / "data", image, labels, nodata=-9, metadata=flags)
    progress = Recorder()
    prepare(data, progress, train_percent=50, validation_percent=25, test_percent=25)
    rows = table(data / STATISTICS)
    assert [row["Bad"] for row in rows] == ["0", "1", "0", "1"]
    assert [(float(row["mean"]), float(row["std"])) for row in (rows[1], rows[3])] == [(0, 1), (0, 1)]
    assert float(rows[2]["mean"]) == pytest.approx(0.1) and float(rows[2]["std"]) == 1
    assert any("without one valid pixel" in text and text.endswith(" 2.") for text in progress.warnings)
    assert any("same value" in text and text.endswith(" 3.") for text in progress.warnings)
    assert any("flagged bad" in text and text.endswith(" 4.") for text in progress.infos)
    statistics = Dataset.open(data).statistics
    assert statistics is not None and statistics.bad == (False, True, False, True)


def test_no_valid_band_at_all(tmp_path: Path) -> None:
    data = cut_by_8(tmp_path / "data", np.full((1, 16, 16), np.nan), np.ones((16, 16), np.uint8))
    for index, path in enumerate(sorted((data / "labels").glob("*.tif"))):
        raster = gdal.Open(str(path), gdal.GA_Update)
        raster.WriteArray(np.full((8, 8), 1 + index % 2, np.uint8))
        del raster
    with pytest.raises(DatasetError, match=r"no usable band .* one valid pixel"):
        prepare(data)
    assert not (data / "train_files.csv").exists()


def test_classes_come_from_all_chips_with_their_own_colours(data: Path) -> None:
    # A second image, whose chips come later in the alphabet and hold a class of their own.
    own = ClassTable.of([7, 40], {40: "Moor"}, {40: "#123456"})
    write_class_chip(
        data / "labels" / "zebra_tile_0_0.tif",
        np.full((8, 8), 40, np.uint8),
        Grid(8, 8, TRANSFORM, utm()),
        own,
    )
    shutil.copy(data / "images" / "image_tile_0_0.tif", data / "images" / "zebra_tile_0_0.tif")
    for seed in range(3):
        prepare(data, seed=seed)
        classes = Dataset.open(data).classes
        assert classes.values == (7, 40, 200)
        assert (classes.entries[1].name, classes.entries[1].color) == ("Moor", "#123456")


def test_one_class_only_names_zero_as(tmp_path: Path, random: np.random.Generator) -> None:
    labels = np.zeros((16, 16), np.uint8)
    labels[3:9, 3:9] = 4
    data = cut_by_8(tmp_path / "data", random.random((1, 16, 16)), labels)
    before = snapshot(data)
    with pytest.raises(DatasetError, match=r"only class 4.*ZERO_AS"):
        prepare(data)
    assert snapshot(data) == before


def test_chips_that_do_not_pair_are_named(data: Path) -> None:
    (data / "labels" / "image_tile_8_8.tif").unlink()
    with pytest.raises(DatasetError, match=r"labels/, for example image_tile_8_8\.tif"):
        prepare(data)


def test_percentages_over_100_and_of_0_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"TRAIN_PERCENT.* add up to 100.5"):
        PrepareJob(data_folder=tmp_path, train_percent=80, validation_percent=10, test_percent=10.5)
    with pytest.raises(ConfigError, match="all 0"):
        PrepareJob(data_folder=tmp_path, train_percent=0, validation_percent=0, test_percent=0)
    PrepareJob(data_folder=tmp_path, train_percent=33.3, validation_percent=33.3, test_percent=33.4)


def test_so_few_percent_that_no_chip_is_taken(data: Path) -> None:
    with pytest.raises(ConfigError, match="take no chip out of 25"):
        prepare(data, train_percent=1, validation_percent=0, test_percent=0)


def test_empty_sets_are_written_with_a_header_and_told(data: Path) -> None:
    progress = Recorder()
    prepare(data, progress, train_percent=100, validation_percent=0, test_percent=0)
    for name in ("validation", "test"):
        assert (data / f"{name}_files.csv").read_text().strip() == "image,mask"
        assert any(f"{name} set is empty" in text for text in progress.warnings)
    assert len(Dataset.open(data).chips["train"]) == 25


def test_statistics_need_training_chips(data: Path) -> None:
    with pytest.raises(DatasetError, match="training set is empty"):
        prepare(data, train_percent=0, validation_percent=50, test_percent=50)
    result = prepare(data, train_percent=0, validation_percent=50, test_percent=50, statistics=False)
    assert result.statistics_csv is None


def test_without_statistics_those_of_an_earlier_run_go(data: Path) -> None:
    prepare(data)
    assert (data / STATISTICS).exists()
    prepare(data, statistics=False)
    assert not (data / STATISTICS).exists() and Dataset.open(data).statistics is None


def test_another_output_folder_leaves_the_chips_folder_untouched(tmp_path: Path, data: Path) -> None:
    before = snapshot(data)
    out = tmp_path / "aus gabe ä" / "deep"
    prepare(data, output_folder=out)
    assert snapshot(data) == before
    assert {path.name for path in out.iterdir()} == {*TABLES, STATISTICS, REPORT, "tiles.gpkg"}
    first = table(out / "train_files.csv")[0]
    assert first["image"].startswith("../../data/images/") and (out / first["image"]).is_file()
    assert read_splits(out / "tiles.gpkg") == {c: name for name, chips in sets_of(out).items() for c in chips}
    shutil.move(out.parent, tmp_path / "moved")
    assert len(Dataset.open(tmp_path / "moved" / "deep").chips["train"]) == 20, "at the same depth it still fits"


def test_the_same_folder_in_other_words(data: Path) -> None:
    progress = Recorder()
    prepare(data, progress, output_folder=data / "images" / "..")
    assert not any("could not be filled in" in text for text in progress.warnings)
    assert set(read_splits(data / "tiles.gpkg").values()) == set(SPLIT_NAMES)


def test_the_index_while_qgis_shows_an_earlier_one(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(data, output_folder=out, seed=1)
    with open_as_in_qgis(out / "tiles.gpkg", "train"):
        prepare(data, output_folder=out, seed=2)
    wanted = {name: split for split, names in sets_of(out).items() for name in names}
    assert read_splits(out / "tiles.gpkg") == wanted
    with open_as_in_qgis(data / "tiles.gpkg", "test"):
        prepare(data, output_folder=out, split="given", statistics=False)
    assert set(read_splits(out / "tiles.gpkg").values()) == {"test"}


def test_a_given_split(data: Path, tmp_path: Path) -> None:
    names = sorted(path.stem for path in (data / "images").glob("*.tif"))
    wanted = {"train": names[:6], "validation": names[6:9], "test": names[20:]}
    write_splits(data / "tiles.gpkg", {chip: name for name, members in wanted.items() for chip in members})
    before = (data / "tiles.gpkg").read_bytes()
    prepare(data, split="given", train_percent=0, validation_percent=0, test_percent=0)
    assert sets_of(data) == wanted
    assert (data / "tiles.gpkg").read_bytes() == before
    prepare(data, split="given", output_folder=tmp_path / "out")
    assert sets_of(tmp_path / "out") == wanted
    write_splits(data / "tiles.gpkg", {names[0]: "training"})
    with pytest.raises(DatasetError, match=r"into 'training'.*train, validation, test"):
        prepare(data, split="given")
    write_splits(data / "tiles.gpkg", {})
    with pytest.raises(DatasetError, match="empty for every chip"):
        prepare(data, split="given")
    (data / "tiles.gpkg").unlink()
    with pytest.raises(DatasetError, match=r"holds no tiles\.gpkg"):
        prepare(data, split="given")


def test_same_seed_same_bytes_and_other_seed_other_split(tmp_path: Path, data: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        prepare(data, output_folder=tmp_path / name, seed=seed)
    for name in (*TABLES, STATISTICS, REPORT):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sets_of(tmp_path / "a") != sets_of(tmp_path / "c")


@pytest.mark.parametrize("split", ["stratified", "random"])
def test_the_split_does_not_depend_on_the_order_of_the_file_system(
    data: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    prepare(data, split=split)
    before = snapshot(data)
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(iterdir(self), reverse=True)))
    prepare(data, split=split)
    monkeypatch.undo()
    after = snapshot(data)
    assert {name: after[name] for name in (*TABLES, STATISTICS, REPORT)} == {
        name: before[name] for name in (*TABLES, STATISTICS, REPORT)
    }


@pytest.mark.parametrize(("step", "leaks"), [(8, False), (12, False), (6, True)])
def test_chips_that_share_ground_are_a_warning(
    tmp_path: Path, random: np.random.Generator, step: int, leaks: bool
) -> None:
    labels = random.choice([1, 2], (40, 40)).astype(np.uint8)
    data = cut_by_8(tmp_path / "data", random.random((1, 40, 40)), labels, step=step)
    progress = Recorder()
    prepare(data, progress)
    assert any("share ground" in text for text in progress.warnings) == leaks


def test_a_class_with_too_few_chips_is_named(tmp_path: Path, random: np.random.Generator) -> None:
    labels = random.choice([1, 2], (40, 40)).astype(np.uint8)
    labels[3, 3] = 9
    data = cut_by_8(tmp_path / "data", random.random((1, 40, 40)), labels)
    progress = Recorder()
    prepare(data, progress)
    about = [text for text in progress.warnings if "is missing in" in text]
    assert len(about) == 1 and about[0].startswith("Class 9 (class 9)")
    assert "in 1 chip(s), and 3 sets are to be filled" in about[0]


def test_chips_that_differ_in_bands_are_named(data: Path, random: np.random.Generator) -> None:
    name = sorted((data / "images").glob("*.tif"))[3].name
    write_raster(data / "images" / name, random.random((5, 8, 8)), transform=TRANSFORM)
    before = snapshot(data)
    with pytest.raises(DatasetError, match=r"has 5 bands.*has 2|has 2 bands.*has 5"):
        prepare(data, train_percent=100, validation_percent=0, test_percent=0)
    assert snapshot(data) == before


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_a_damaged_chip_is_named(data: Path, kind: str, gdal_errors: str) -> None:
    (data / kind / "image_tile_8_8.tif").write_text("no raster")
    with pytest.raises(RasterError, match=r"image_tile_8_8\.tif cannot be opened"):
        prepare(data, train_percent=100, validation_percent=0, test_percent=0)


def test_label_values_that_are_no_class_are_named(data: Path) -> None:
    write_raster(data / "labels" / "image_tile_8_8.tif", np.full((8, 8), 300, np.int16))
    with pytest.raises(DatasetError, match=r"image_tile_8_8\.tif holds the value 300"):
        prepare(data)


def test_cancel_at_every_moment_leaves_what_was_there(tmp_path: Path, data: Path) -> None:
    prepare(data)
    before = snapshot(data)
    new = tmp_path / "new" / "deep"
    for moment in (1, 2, 3, 4):
        for folder in (None, new):
            with pytest.raises(Canceled):
                prepare(data, Recorder(cancel_at=moment), seed=7, output_folder=folder)
        assert snapshot(data) == before and not new.parent.exists()


@pytest.mark.parametrize("size", [0, 100])
def test_a_full_disk_ends_with_a_sentence_and_leaves_what_was_there(tmp_path: Path, data: Path, size: int) -> None:
    prepare(data)
    before = snapshot(data)
    for folder in (None, tmp_path / "new" / "deep"):
        with full_disk(size), pytest.raises(RasterError, match="cannot be written"):
            prepare(data, seed=7, output_folder=folder)
    assert snapshot(data) == before
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, data: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RasterError, match=r"file.* cannot be written"):
        prepare(data, output_folder=tmp_path / "file" / "out")


def test_an_index_that_cannot_be_filled_in_is_a_warning(data: Path) -> None:
    (data / "tiles.gpkg").write_text("broken")
    progress = Recorder()
    prepare(data, progress)
    assert any("could not be filled in" in text for text in progress.warnings)
    assert len(Dataset.open(data).chips["train"]) == 20


def test_chips_without_an_index_are_fine(data: Path) -> None:
    (data / "tiles.gpkg").unlink()
    progress = Recorder()
    prepare(data, progress)
    assert not (data / "tiles.gpkg").exists() and not progress.warnings
    assert progress.shares == sorted(progress.shares) and progress.shares[-1] == 1


@pytest.mark.parametrize(
    ("value", "pixels", "told"), [(-9999.0, 40, True), (0.0, 40, True), (-9999.0, 2, False), (-9999.0, 0, False)]
)
def test_a_value_that_stands_for_missing_pixels_and_is_not_declared_is_told(
    tmp_path: Path, random: np.random.Generator, value: float, pixels: int, told: bool
) -> None:
    """It would make statistics of nothing: a mean of -2,300 and a standard deviation of 4,200 for reflectance."""
    image = random.normal(0.4, 0.1, (4, 32, 32)).astype(np.float32)
    image.reshape(4, -1)[:, :pixels] = value
    labels = np.tile(np.array([1, 2], np.uint8), (32, 16))
    folder = tmp_path / "data"
    job = TileJob(
        image=str(write_raster(tmp_path / "a.tif", image)),
        labels=str(write_raster(tmp_path / "l.tif", labels)),
        output_folder=folder,
        min_label_coverage=0,
        **dict.fromkeys(("tile_size_x", "tile_size_y", "step_x", "step_y"), 16),
    )
    tile_raster(job, Recorder())
    progress = Recorder()
    prepare(folder, progress, train_percent=100, validation_percent=0, test_percent=0)
    said = [text for text in progress.warnings if "in all bands, as pixels without data do" in text]
    assert bool(said) == told and (not told or f"with NODATA {value:g}" in said[0])
