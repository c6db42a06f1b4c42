# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of outputs that appear when they are whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from specdeepmap.core.errors import Canceled, RasterError
from specdeepmap.core.staging import Staging, remove_staged
from tests.helpers import Recorder, snapshot


def test_files_appear_at_the_end(tmp_path: Path, progress: Recorder) -> None:
    target = tmp_path / "new ä" / "deep" / "out.v1.tif"
    with Staging(progress) as staging:
        part = staging.file(target)
        assert part.parent == target.parent and part.suffix == ".tif" and part != target
        part.write_text("whole")
        part.with_name(part.name + ".aux.xml").write_text("side")
        assert not target.exists()
    assert snapshot(target.parent).keys() == {"out.v1.tif", "out.v1.tif.aux.xml"}
    assert target.read_text() == "whole"
    assert part in progress.staged_paths


@pytest.mark.parametrize("error", [Canceled, RasterError, KeyError, KeyboardInterrupt])
def test_nothing_is_left_behind_after_an_error(tmp_path: Path, progress: Recorder, error: type[BaseException]) -> None:
    (tmp_path / "old.csv").write_text("old")
    before = snapshot(tmp_path)

    def work(staging: Staging) -> None:
        staging.file(tmp_path / "old.csv").write_text("half")
        part = staging.file(tmp_path / "a" / "b" / "new.tif")
        for name in (part.name, part.name + ".aux.xml", part.name + "-journal"):
            part.with_name(name).write_text("half")
        staging.file(tmp_path / "a" / "never-written.csv")
        folder = staging.folder(tmp_path / "c")
        (folder / "images").mkdir()
        (folder / "images" / "chip.tif").write_text("half")
        raise error

    with pytest.raises(error), Staging(progress) as staging:
        work(staging)
    assert snapshot(tmp_path) == before


def test_a_new_file_loses_the_side_file_of_the_old_one(tmp_path: Path, progress: Recorder) -> None:
    target = tmp_path / "map.tif"
    target.write_text("old")
    (tmp_path / "map.tif.aux.xml").write_text("old statistics")
    with Staging(progress) as staging:
        staging.file(target).write_text("new")
    assert snapshot(tmp_path).keys() == {"map.tif"}
    assert target.read_text() == "new"


def test_a_part_that_was_never_written_leaves_the_target_alone(tmp_path: Path, progress: Recorder) -> None:
    target = tmp_path / "map.tif"
    target.write_text("old")
    with Staging(progress) as staging:
        staging.file(target)
    assert target.read_text() == "old"


def test_temporary_folders_go_at_the_end(tmp_path: Path, progress: Recorder) -> None:
    with Staging(progress) as staging:
        folder = staging.folder(tmp_path / "out")
        (folder / "chip.tif").write_text("x")
        (folder / "chip.tif").rename(tmp_path / "out" / "chip.tif")
        (folder / "rest").mkdir()
    assert snapshot(tmp_path / "out").keys() == {"chip.tif"}
    assert folder in progress.staged_paths


def test_a_folder_that_somebody_else_uses_stays(tmp_path: Path, progress: Recorder) -> None:
    with pytest.raises(Canceled), Staging(progress) as staging:
        staging.file(tmp_path / "a" / "b" / "out.tif")
        (tmp_path / "a" / "mine.txt").write_text("x")
        raise Canceled
    assert snapshot(tmp_path).keys() == {"a", "a/mine.txt"}


@pytest.mark.parametrize("name", ["file/out.tif", "file/deep/er/out.tif"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, progress: Recorder, name: str) -> None:
    (tmp_path / "file").write_text("in the way")
    before = snapshot(tmp_path)
    for ask in (lambda s: s.file(tmp_path / name), lambda s: s.folder((tmp_path / name).parent)):
        said = r"file.* cannot be written.*Choose a folder"
        with pytest.raises(RasterError, match=said), Staging(progress) as staging:
            ask(staging)
        assert snapshot(tmp_path) == before


def test_a_folder_is_no_file(tmp_path: Path, progress: Recorder) -> None:
    with pytest.raises(RasterError, match="is a folder; name a file"), Staging(progress) as staging:
        staging.file(tmp_path)


def test_a_target_that_cannot_be_replaced_ends_with_a_sentence(tmp_path: Path, progress: Recorder) -> None:
    with pytest.raises(RasterError, match=r"b\.csv cannot be replaced"), Staging(progress) as staging:
        for name in "abc":
            staging.file(tmp_path / f"{name}.csv").write_text(name)
        (tmp_path / "b.csv").mkdir()  # as a file that another program holds on Windows
    assert snapshot(tmp_path).keys() == {"b.csv"}, "no part is left, and none of three belongs to another run"


def test_removing_what_is_gone_is_no_error(tmp_path: Path) -> None:
    remove_staged([tmp_path / "nothing", tmp_path / "no" / "where"])


@pytest.mark.parametrize(
    ("name", "old"),
    [
        ("map.tif", ("map.tif.ovr", "map.tif.msk", "map.tif.aux.xml")),
        ("map.gpkg", ("map.gpkg-wal", "map.gpkg-shm", "map.gpkg-journal")),
        ("map.shp", ("map.qix", "map.sbn", "map.qpj")),
    ],
)
def test_what_lay_beside_the_old_file_is_not_taken_for_the_new_one(
    name: str, old: tuple[str, ...], tmp_path: Path
) -> None:
    """Overviews, an index or half a database of the replaced file would be read as those of the new one."""
    for entry in (name, *old, "other.qix", "map.txt"):
        (tmp_path / entry).write_text("old", "utf-8")
    with Staging(Recorder()) as staging:
        staging.file(tmp_path / name).write_text("new", "utf-8")
    left = {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()}
    assert left == {name: "new", "other.qix": "old", "map.txt": "old"}


def test_a_companion_that_does_not_come_into_being_goes(tmp_path: Path) -> None:
    for entry in ("map.shp", "map.prj"):
        (tmp_path / entry).write_text("old", "utf-8")
    with Staging(Recorder()) as staging:
        staging.file(tmp_path / "map.shp").write_text("new", "utf-8")
        staging.companion(tmp_path / "map.prj")
    assert [path.name for path in tmp_path.iterdir()] == ["map.shp"]


def test_a_run_that_fails_leaves_what_lies_beside(tmp_path: Path) -> None:
    for entry in ("map.shp", "map.prj", "map.qix"):
        (tmp_path / entry).write_text("old", "utf-8")
    with pytest.raises(ZeroDivisionError), Staging(Recorder()) as staging:
        staging.file(tmp_path / "map.shp").write_text("new", "utf-8")
        staging.companion(tmp_path / "map.prj")
        raise ZeroDivisionError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.prj", "map.qix", "map.shp"]
