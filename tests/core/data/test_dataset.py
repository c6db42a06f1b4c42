# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the tables of a dataset folder."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from specdeepmap.core.data.bands import Band
from specdeepmap.core.data.classes import ClassTable
from specdeepmap.core.data.dataset import (
    SUMMARY_NAME,
    ChipPair,
    Dataset,
    find_pairs,
    read_counts,
    read_pairs,
    read_statistics,
    read_summary,
    write_pairs,
    write_statistics,
    write_summary,
)
from specdeepmap.core.data.normalization import Normalization
from specdeepmap.core.errors import DatasetError
from tests.helpers import write_raster


def chips(folder: Path, *names: str) -> list[ChipPair]:
    """Make empty chip files."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / kind / f"{name}.tif").touch()
    return [ChipPair(folder / "images" / f"{name}.tif", folder / "labels" / f"{name}.tif") for name in names]


def test_pairs_are_found_in_alphabetical_order_and_side_files_left_out(tmp_path: Path) -> None:
    made = chips(tmp_path, "b ä", "a.v1_tile_0_0", "c")
    for side in ("a.v1_tile_0_0.tif.aux.xml", "c.tfw", "c.qml", ".hidden.tif", "Thumbs.db"):
        (tmp_path / "images" / side).touch()
    (tmp_path / "labels" / "folder").mkdir()
    assert find_pairs(tmp_path) == [made[1], made[0], made[2]]
    assert made[1].name == "a.v1_tile_0_0"


@pytest.mark.parametrize(("kind", "lack"), [("images", "labels"), ("labels", "images")])
def test_chips_that_do_not_pair_are_named(tmp_path: Path, kind: str, lack: str) -> None:
    chips(tmp_path, "a", "b")
    (tmp_path / kind / "alone.tif").touch()
    with pytest.raises(DatasetError, match=rf"1 chip.* in {lack}/, .*alone\.tif"):
        find_pairs(tmp_path)


def test_folders_without_chips_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no folder images/"):
        find_pairs(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(DatasetError, match="images/ holds no chip"):
        find_pairs(tmp_path)
    chips(tmp_path, "a")
    (tmp_path / "images" / "a.png").touch()
    with pytest.raises(DatasetError, match="two chips named a"):
        find_pairs(tmp_path)


@pytest.mark.parametrize("place", [".", "elsewhere/deep", "../beside ö"])
def test_paths_are_relative_with_slashes_and_move_with_the_folder(tmp_path: Path, place: str) -> None:
    home = tmp_path / "home"
    made = chips(home / "data, ä", "a", "b")
    folder = (home / "data, ä" / place).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write_pairs(folder / "t.csv", made, folder)
    with (folder / "t.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["image", "mask"]
    assert all("\\" not in path and not Path(path).is_absolute() for row in rows[1:] for path in row)
    assert [Path(folder, row[0]).resolve() for row in rows[1:]] == [pair.image for pair in made]
    assert read_pairs(folder / "t.csv") == tuple(made)
    moved = tmp_path / "moved"
    home.rename(moved)
    table = moved / folder.relative_to(home) / "t.csv"
    assert [pair.image for pair in read_pairs(table)] == [moved / "data, ä" / "images" / f"{n}.tif" for n in "ab"]


def test_tables_of_others_are_read(tmp_path: Path) -> None:
    made = chips(tmp_path, "a", "b")
    lines = f"id,mask,image\r\n1,labels\\a.tif,images\\a.tif\r\n2,{made[1].label},{made[1].image}\r\n"
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    assert read_pairs(tmp_path / "t.csv") == tuple(made)


def test_an_empty_table_has_a_header(tmp_path: Path) -> None:
    write_pairs(tmp_path / "t.csv", [], tmp_path)
    assert (tmp_path / "t.csv").read_text().strip() == "image,mask"
    assert read_pairs(tmp_path / "t.csv") == ()


def test_wrong_tables_are_named(tmp_path: Path) -> None:
    chips(tmp_path, "a")
    table = tmp_path / "t.csv"
    for text, said in (
        ("image;mask\nimages/a.tif;labels/a.tif\n", "lacks the column.*parted by semicolons"),
        ("", "lacks the column"),
        ("image,mask\nimages/b.tif,labels/a.tif\n", r"b\.tif, which does not exist"),
        ("image,mask\nimages/a.tif\n", "does not exist"),
    ):
        table.write_text(text)
        with pytest.raises(DatasetError, match=said) as caught:
            read_pairs(table, "TEST_CSV")
        assert "TEST_CSV" in str(caught.value) and "t.csv" in str(caught.value)
    table.write_bytes(b"image,mask\n\xff\xfe\n")
    with pytest.raises(DatasetError, match="cannot be read as a table"):
        read_pairs(table)


@pytest.mark.parametrize("scale", [None, 10000.0, 0.37])
def test_the_summary_is_read_as_it_was_written(tmp_path: Path, scale: float | None) -> None:
    classes = ClassTable.of([7, 200], {200: "Straße, naß"}, {7: "#010203"})
    counts = np.array([[10, 30], [0, 0], [1, 2]])
    write_summary(tmp_path / "s.csv", classes, counts, np.array([1.25, 0.75]), scale)
    again, weights, read_scale = read_summary(tmp_path / "s.csv")
    assert again == classes and weights == (1.25, 0.75) and read_scale == (scale or 1.0)
    with (tmp_path / "s.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("Class ID", "Train Count", "Train Percentage", "Validation Count", "Validation Percentage"),
        *("Test Count", "Test Percentage", "Class Train Weight", "Scaler", "Ignored Background : Class Zero"),
        *("Class Name", "Class Color"),
    ]
    assert [row["Train Percentage"] for row in rows] == ["25.00", "75.00"]
    assert [row["Validation Percentage"] for row in rows] == ["0.00", "0.00"]
    assert [row["Test Percentage"] for row in rows] == ["33.33", "66.67"]


def test_the_counts_of_the_summary_come_back_by_set_and_class(tmp_path: Path) -> None:
    classes, counts = ClassTable.of([7, 200, 9]), np.array([[10, 30, 5], [0, 0, 0], [1, 2, 3_000_000_000]])
    path = tmp_path / "Summary_train_val.csv"
    write_summary(path, classes, counts, np.array([1.0, 1.0, 1.0]), None)
    found = read_counts(path)
    assert found.dtype == np.int64 and np.array_equal(found, counts)
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n", "utf-8")  # sorted by hand
    assert np.array_equal(read_counts(path), counts)
    for name in ("train", "validation", "test"):
        (tmp_path / f"{name}_files.csv").write_text("image,mask\n", "utf-8")
    assert np.array_equal(Dataset.open(tmp_path).counts, counts)
    path.write_text(path.read_text("utf-8").replace("3000000000", "many"), "utf-8")
    with pytest.raises(DatasetError, match=r"Summary_train_val\.csv holds a number that cannot be read"):
        read_counts(path)


@pytest.mark.parametrize(("dtype", "nodata"), [("i2", -9999), ("f4", -1.5), ("u1", 0)])
def test_labels_are_counted_where_the_summary_does_not(tmp_path: Path, dtype: str, nodata: float) -> None:
    labels = np.array([[1, 3, 3, nodata, 0]]).astype(dtype)
    for kind, values in (("images", np.ones((2, 1, 5), np.uint8)), ("labels", labels)):
        write_raster(tmp_path / kind / "a.tif", values, nodata=nodata if kind == "labels" else None)
    (tmp_path / "train_files.csv").write_text("image,mask\nimages/a.tif,labels/a.tif\n")
    (tmp_path / "Summary_train_val.csv").write_text("Class ID,Class Train Weight,Scaler\n3.0,2,None\n1.0,0.5,None\n")
    assert Dataset.open(tmp_path).counts.tolist() == [[1, 2], [0, 0], [0, 0]]


def test_a_dataset_with_the_mandatory_columns_only(tmp_path: Path) -> None:
    made = chips(tmp_path, "a", "b")
    (tmp_path / "train_files.csv").write_text("image,mask\nimages/a.tif,labels/a.tif\n")
    (tmp_path / "validation_files.csv").write_text("image,mask\nimages/b.tif,labels/b.tif\n")
    (tmp_path / "Summary_train_val.csv").write_text("Class ID,Class Train Weight,Scaler\n3.0,2,None\n1.0,0.5,None\n")
    (tmp_path / "Normalize_Bands.csv").write_text("Band_Number,std,mean\n1,2.5,10\n2,1,0\n")
    dataset = Dataset.open(tmp_path)
    assert dataset.chips == {"train": (made[0],), "validation": (made[1],), "test": ()}
    assert dataset.classes.values == (1, 3) and dataset.weights == (0.5, 2)
    assert dataset.scale == 1
    assert dataset.statistics == Normalization(scale=1, mean=(10, 0), std=(2.5, 1), bad=(False, False))
    (tmp_path / "Normalize_Bands.csv").unlink()
    assert Dataset.open(tmp_path).statistics is None


def test_pixels_are_counted_where_the_summary_does_not_tell(tmp_path: Path) -> None:
    made = chips(tmp_path, "a", "b")
    for pair, labels in zip(made, ([[1, 1, 3], [0, 9, 3]], [[3, 3, 3], [3, 3, 1]]), strict=True):
        write_raster(pair.label, np.array(labels, np.uint8), nodata=0)
    (tmp_path / "train_files.csv").write_text("image,mask\nimages/a.tif,labels/a.tif\n")
    (tmp_path / "validation_files.csv").write_text("image,mask\nimages/b.tif,labels/b.tif\n")
    (tmp_path / "Summary_train_val.csv").write_text("Class ID,Class Train Weight,Scaler\n3,2,None\n1,0.5,None\n")
    assert read_counts(tmp_path / "Summary_train_val.csv") is None
    assert Dataset.open(tmp_path).counts.tolist() == [[2, 2], [1, 5], [0, 0]]


def test_statistics_are_read_to_the_last_bit(tmp_path: Path, random: np.random.Generator) -> None:
    mean, std = random.normal(0, 1e5, 3), random.random(3) + 1e-9
    made = Normalization(scale=3.0, mean=tuple(mean), std=tuple(std), bad=(False, True, False))
    bands = (Band("a, b", 443.5), Band("Band 2"), Band("ä", bad=True))
    write_statistics(tmp_path / "n.csv", made, bands)
    assert read_statistics(tmp_path / "n.csv", 3.0) == made
    header, *rows = (tmp_path / "n.csv").read_text(encoding="utf-8").splitlines()
    assert header.startswith("Band_Number,std,mean")
    sorted_otherwise = [header, *(row[:-1] + "FALSE" if row.endswith(",0") else row for row in rows[::-1])]
    (tmp_path / "n.csv").write_text("\n".join(sorted_otherwise), encoding="utf-8")
    assert read_statistics(tmp_path / "n.csv", 3.0) == made
    (tmp_path / "n.csv").write_text("\n".join([header, *rows[1:]]), encoding="utf-8")
    with pytest.raises(DatasetError, match="does not count from 1"):
        read_statistics(tmp_path / "n.csv", 3.0)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("Summary_train_val.csv", "Class ID,Class Train Weight\n", "names no class"),
        ("Summary_train_val.csv", "Class ID,Class Train Weight\nx,1\n", "cannot be read"),
        ("Summary_train_val.csv", "Class ID,Class Train Weight\n1\n", "Class|cannot be read"),
        ("Summary_train_val.csv", "Class Train Weight,Class ID\n1\n", "cannot be read"),
        ("Summary_train_val.csv", "Class ID,Class Train Weight,Scaler\n1,1,0\n", "scaler is 0"),
        ("Summary_train_val.csv", "Class,Weight\n", "lacks the column"),
        ("Normalize_Bands.csv", "Band_Number,std,mean\n1,0,5\n", "cannot be used"),
        ("Normalize_Bands.csv", "Band_Number,std,mean\n1,nan,5\n", "cannot be used"),
        ("Normalize_Bands.csv", "Band_Number,std,mean\n1,2\n", "cannot be used"),
        ("Normalize_Bands.csv", "Band_Number,std,mean\n1,a,5\n", "cannot be used"),
    ],
)
def test_wrong_numbers_are_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    chips(tmp_path, "a")
    (tmp_path / "train_files.csv").write_text("image,mask\nimages/a.tif,labels/a.tif\n")
    (tmp_path / "Summary_train_val.csv").write_text("Class ID,Class Train Weight\n1,1\n2,1\n")
    Dataset.open(tmp_path)
    (tmp_path / name).write_text(text)
    if text.endswith("\n1\n") and text.startswith("Class ID"):
        assert Dataset.open(tmp_path).weights == (0.0,), "a weight may be missing"
        return
    with pytest.raises(DatasetError, match=said) as caught:
        Dataset.open(tmp_path)
    assert name in str(caught.value)


def test_folders_that_are_no_dataset_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist"):
        Dataset.open(tmp_path / "missing")
    with pytest.raises(DatasetError, match=r"no train_files\.csv"):
        Dataset.open(tmp_path)
    (tmp_path / "train_files.csv").write_text("image,mask\n")
    with pytest.raises(DatasetError, match=r"no Summary_train_val\.csv"):
        Dataset.open(tmp_path)


def test_the_fingerprint_tells_splits_apart_but_not_orders(tmp_path: Path) -> None:
    one, two, three = chips(tmp_path, "a", "b", "c")

    def fingerprint(**sets: tuple[ChipPair, ...]) -> str:
        chips = {"train": (), "validation": (), "test": (), **sets}
        return Dataset(tmp_path, chips, ClassTable.of([1]), (1.0,), 1.0, None).fingerprint

    assert fingerprint(train=(one, two), test=(three,)) == fingerprint(train=(two, one), test=(three,))
    assert fingerprint(train=(one, two), test=(three,)) != fingerprint(train=(one, three), test=(two,))
    assert fingerprint(train=(one, two)) != fingerprint(train=(one, two), test=(three,))
    found = []
    for counts in ([[5, 6], [0, 0], [0, 0]], [[6, 5], [0, 0], [0, 0]]):
        table = ClassTable.of([1, 2])
        write_summary(tmp_path / SUMMARY_NAME, table, np.array(counts), np.ones(2), None)
        found.append(fingerprint(train=(one, two)))
    assert len({*found, fingerprint(train=(one,))}) == 3, "labels that were cut again are others"


@pytest.mark.parametrize("name", ["validation_files.csv", "test_files.csv", "Normalize_Bands.csv"])
def test_a_table_that_is_no_file_is_no_missing_one(tmp_path: Path, name: str) -> None:
    """Taken for missing, the training would go on without validation chips and say nothing."""
    made = chips(tmp_path, "a")
    write_pairs(tmp_path / "train_files.csv", made, tmp_path)
    counts = np.array([[3, 4], [0, 0], [0, 0]])
    write_summary(tmp_path / "Summary_train_val.csv", ClassTable.of((1, 2)), counts, np.array([1.0, 1.0]), None)
    assert Dataset.open(tmp_path).chips["validation"] == ()
    (tmp_path / name).mkdir()
    with pytest.raises(DatasetError, match=name):
        Dataset.open(tmp_path)
