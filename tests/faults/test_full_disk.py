# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk that is full at some time leaves earlier results as they were, and the user reads what to do."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from specdeepmap.core.errors import SpecDeepMapError
from tests.faults.bench import AT_ONCE, WRITING, Case, assert_is_sentence, sample, seeded, some
from tests.faults.conftest import CaseMaker
from tests.faults.digest import digest

PAGE = 4096

Disk = Callable[[Path, int], None]


@pytest.fixture
def disk() -> Iterator[Disk]:
    """Give a function that puts a disk of so many bytes at a folder, or makes the one that is there larger."""
    mounted: list[Path] = []

    def mount(folder: Path, size: int) -> None:
        again = "remount," if folder in mounted else ""
        order = ["mount", "-t", "tmpfs", "-o", f"{again}size={size}", "none", str(folder)]
        try:
            subprocess.run(order, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no disk can be mounted here: {error}")
        mounted.append(folder)

    yield mount
    for folder in dict.fromkeys(mounted):
        subprocess.run(["umount", "-l", str(folder)], check=True)


def room(folder: Path) -> int:
    """Give the bytes that files and folders take on a disk of pages."""
    return sum(PAGE + (-(-path.stat().st_size // PAGE) * PAGE if path.is_file() else 0) for path in folder.rglob("*"))


def put_on_disk(case: Case, disk: Disk, free: int) -> None:
    """Put the earlier results on a disk that has so many bytes left."""
    earlier = case.folder / "earlier"
    case.out.rename(earlier)
    case.out.mkdir()
    disk(case.out, room(earlier) + PAGE + free)
    shutil.copytree(earlier, case.out, dirs_exist_ok=True)
    case.seen()


def free_bytes(case: Case, seed: int) -> int:
    """Draw the room that is left, from none to all that the job needs."""
    return seeded(f"{case.bench.verb} {seed}").randrange(0, room(case.out)) // PAGE * PAGE


@pytest.mark.parametrize("seed", some(2, 40))
@pytest.mark.parametrize("verb", AT_ONCE)
def test_results(case: CaseMaker, disk: Disk, verb: str, seed: int) -> None:
    full = case(verb)
    put_on_disk(full, disk, free_bytes(full, seed))
    if full.outcome():
        full.assert_untouched()
    else:
        full.assert_whole()
    disk(full.out, 2**26)
    full.assert_next_run_works()


@pytest.mark.parametrize("seed", some(2, 40))
def test_checkpoints_and_logs(case: CaseMaker, disk: Disk, seed: int) -> None:
    full = case("train")
    put_on_disk(full, disk, free_bytes(full, seed))
    said = full.outcome()
    if not said:
        full.assert_whole()
        return
    assert "Free some space" in said or "disk full" in said
    digest(full.out)
    disk(full.out, 2**26)
    try:
        full.run(job=full.job(resume=True))
    except SpecDeepMapError as error:
        assert_is_sentence(str(error))
        full.run_anew()
    full.assert_whole()


@pytest.mark.parametrize(
    ("verb", "size"), sample([(verb, size) for size in (0, 500, 3000, 20_000) for verb in WRITING], 7)
)
def test_files_that_may_not_grow(case: CaseMaker, verb: str, size: int) -> None:
    """Where no disk can be mounted, this says what happens on a full one; and a quota works like that."""
    full = case(verb)
    said = full.outcome({"limit_files": size})
    assert said or size == 20_000
    if verb == "train":
        digest(full.out)
        full.run_anew()
    elif said:
        full.assert_untouched()
    full.assert_next_run_works()


@pytest.mark.parametrize(
    ("verb", "pages"),
    sample([("tile", 0), ("predict", 1), ("tile", 1), ("predict", 0), ("tile", 2), ("predict", 2)], 3),
)
def test_temporary_files(
    case: CaseMaker, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, pages: int
) -> None:
    """The child's log, and the file in which it is told what to do, lie in the system's temporary folder."""
    full = case(verb)
    place = tmp_path / "temporary"
    place.mkdir()
    disk(place, PAGE * 4)
    with (place / "filler").open("wb") as file:
        file.write(b"x" * PAGE * (4 - 1 - pages))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    said = full.outcome()
    if said:
        full.assert_untouched()
        assert "space" in said or "disk" in said
    else:
        full.assert_whole()
    Path(full.job().to_json().get("image", "")).unlink()
    assert "scene.tif" in full.outcome() or said, "an error that cannot be logged is told all the same"
