# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of files that get their names all together or not at all, and of folders that one run has at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from specdeepmap.core.errors import Canceled, RasterError
from specdeepmap.core.staging import Staging, claim, claimed, remove_staged, write_whole
from specdeepmap.core.staging.exchange import JOURNAL_SUFFIX, Move, exchange, recover, undo
from tests.helpers import Recorder, snapshot


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files of an earlier run, and three of a new one: one of them has no predecessor."""
    for name in "abc":
        (tmp_path / name).write_text(f"old {name}")
    for name in "abd":
        (tmp_path / f"new {name}").write_text(f"new {name}")
    return tmp_path


def moves(folder: Path) -> list[Move]:
    return [Move(folder / "c"), *(Move(folder / name, folder / f"new {name}") for name in "abd")]


def journal(folder: Path) -> Path:
    return folder / f".1{JOURNAL_SUFFIX}"


WHOLE = {"a": "new a", "b": "new b", "d": "new d"}


def earlier(folder: Path) -> dict[str, str]:
    """Give all but the new files, of which nobody needs to keep what has no name yet."""
    return {name: mark for name, mark in snapshot(folder).items() if not name.startswith("new ")}


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_all_get_their_names(folder: Path) -> None:
    exchange(journal(folder), moves(folder))
    assert contents(folder) == WHOLE


class Stop(BaseException):
    """The process ends here, without a word."""


def stopped(monkeypatch: pytest.MonkeyPatch, number: int, error: type[BaseException], what: str = "replace") -> None:
    """Let the rename of this number fail, or end the process."""
    real, done = getattr(Path, what), 0

    def counted(self: Path, *arguments: Any, **more: Any) -> Any:
        nonlocal done
        done += 1
        if done == number:
            raise error(13, "in use") if issubclass(error, OSError) else error
        return real(self, *arguments, **more)

    monkeypatch.setattr(Path, what, counted)


@pytest.mark.parametrize("number", range(1, 9))
def test_where_one_cannot_have_its_name_none_has(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    before = earlier(folder)
    with monkeypatch.context() as patch, pytest.raises(PermissionError):
        stopped(patch, number, PermissionError)
        exchange(journal(folder), moves(folder))
    assert earlier(folder) == before


@pytest.mark.parametrize("way", ["undo", "recover", "remove_staged"])
@pytest.mark.parametrize("number", range(1, 9))
def test_who_comes_after_a_killed_process_puts_all_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, way: str
) -> None:
    before = earlier(folder)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stopped(patch, number, Stop)
        exchange(journal(folder), moves(folder))
    for _ in range(2):  # a second time does no harm
        if way == "undo":
            undo(journal(folder))
        elif way == "recover":
            recover(folder)
        else:
            remove_staged([journal(folder)])
    assert earlier(folder) == before


def test_an_exchange_that_was_final_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stopped(patch, 2, Stop, "unlink")
        exchange(journal(folder), moves(folder))
    assert len(contents(folder)) > len(WHOLE), "what is left of the earlier files lies there still"
    recover(folder)
    assert contents(folder) == WHOLE


def test_what_somebody_else_has_put_there_since_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stopped(patch, 5, Stop)  # c and a are done, b is on its way
        exchange(journal(folder), moves(folder))
    (folder / "a").write_text("of somebody else")
    undo(journal(folder))
    assert contents(folder) | {"new a": ""} == {
        "a": "of somebody else",
        "b": "old b",
        "c": "old c",
        "new a": "",
        "new b": "new b",
        "new d": "new d",
    }


def test_nothing_is_removed_where_it_cannot_be_put_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stopped(patch, 5, Stop)
        exchange(journal(folder), moves(folder))
    between = snapshot(folder)
    with monkeypatch.context() as patch:
        stopped(patch, 1, PermissionError)
        remove_staged([*folder.iterdir(), journal(folder)])
    assert snapshot(folder) == between
    recover(folder)
    assert (folder / "a").read_text() == "old a"


@pytest.mark.parametrize("text", ["", "[", "{}", '[{"target": 5}]'])
def test_a_journal_that_did_not_reach_the_disk(folder: Path, text: str) -> None:
    before = snapshot(folder)
    journal(folder).write_text(text)
    recover(folder)
    assert snapshot(folder) == before


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_whole(path, lambda part: part.write_text("first") and None)

    def half(part: Path) -> None:
        part.write_text("ha")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="space"):
        write_whole(path, half)
    assert contents(tmp_path) == {"table.csv": "first"}


# Claims -----------------------------------------------------------------------------------------------------------


def test_one_at_a_time(tmp_path: Path) -> None:
    with claim(tmp_path) as first, claim(tmp_path) as second:
        assert first and not second
    with claim(tmp_path) as again:
        assert again
    assert not list(tmp_path.iterdir())


def test_who_waits_is_told_and_gets_it(tmp_path: Path) -> None:
    progress = Recorder()
    with claim(tmp_path):
        thread = threading.Thread(target=lambda: claimed([tmp_path, tmp_path], progress).__enter__())
        thread.start()
        time.sleep(0.3)
        assert thread.is_alive() and "waiting" in progress.infos[0]
    thread.join(5)
    assert not thread.is_alive() and len(progress.infos) == 1


def test_who_does_not_want_to_wait(tmp_path: Path) -> None:
    with claim(tmp_path), pytest.raises(Canceled), claimed([tmp_path], Recorder(cancel_at=2)):
        pytest.fail("somebody else has it")


def test_a_canceled_wait_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("old")
    before = snapshot(tmp_path)
    with claim(tmp_path), pytest.raises(Canceled), Staging(Recorder(cancel_at=2)) as staging:
        staging.file(tmp_path / "old.csv").write_text("new")
    assert snapshot(tmp_path) == before


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_killed_process_lets_go(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from specdeepmap.core.staging import claim\n"
        "with claim(Path(sys.argv[1])) as mine:\n    print(mine, flush=True); time.sleep(60)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], env=environ, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"True\n"
        with claim(tmp_path) as mine:
            assert not mine
        other.kill()
        other.wait()
        with claim(tmp_path) as mine:
            assert mine


def test_a_name_that_is_too_long_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(RasterError, match="Choose another name"), Staging(Recorder()) as staging:
        staging.file(tmp_path / ("x" * 300 + ".tif"))


def test_a_name_that_leaves_no_room_for_a_temporary_one(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 245 + ".csv")
    with Staging(Recorder()) as staging:
        staging.file(target).write_text("whole")
    assert contents(tmp_path) == {target.name: "whole"}


def forged(folder: Path, **step: Any) -> Path:
    """A journal as it may come with a folder from somebody else."""
    path = journal(folder)
    path.write_text(json.dumps([{"target": "", "new": "", "aside": "", "stamp": None, **step}]))
    return path


def test_a_forged_journal_neither_takes_nor_removes_files_elsewhere(folder: Path, tmp_path_factory: Any) -> None:
    home = tmp_path_factory.mktemp("home")
    (home / "key").write_text("secret")
    known = (home / "key").stat()
    stamp = [known.st_mtime_ns, known.st_size]
    before = earlier(folder)
    for step in (
        {"target": str(folder / "mine"), "aside": str(home / "key")},
        {"target": str(folder / "a"), "aside": str(home / "key")},
        {"target": str(home / "key"), "new": str(folder / "gone"), "stamp": stamp},
        {"target": str(folder / ".." / home.name / "key"), "new": str(folder / "gone"), "stamp": stamp},
        {"target": "relative", "aside": "other"},
        {"target": 3},
    ):
        path = forged(folder, **step)
        recover(folder)
        assert not path.exists()
        assert (home / "key").read_text() == "secret"
        assert earlier(folder) == before
    path.write_text("[" * 100_000)
    recover(folder)
    assert earlier(folder) == before


def test_a_run_of_ours_that_died_is_undone_in_all_its_folders(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (folder / "new e").write_text("new e")
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stopped(patch, 5, Stop)
        exchange(journal(folder), [Move(other / "e", folder / "new e"), *moves(folder)])
    assert (other / "e").exists()
    remove_staged([journal(folder)])
    assert not (other / "e").exists()
    assert {name: (folder / name).read_text() for name in "abc"} == {name: f"old {name}" for name in "abc"}
