# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders and files that one may only read, or not even that, and links in place of what they lead to."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from specdeepmap.core.jobs import PrepareJob, TrainJob
from tests.faults.bench import AT_ONCE, WRITING, Case, sample
from tests.faults.conftest import CaseMaker
from tests.faults.digest import digest

NOBODY = 65534
"""Number of a user who owns nothing; the administrator may write everywhere."""


@pytest.fixture
def guest(case: CaseMaker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Case]]:
    """Give a function that puts a job on the bench, in a folder that another user may use as well."""
    if os.getuid() != 0:
        pytest.skip("only the administrator can become another user")
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    place.chmod(0o755)
    scratch = place / "scratch"
    scratch.mkdir()
    scratch.chmod(0o777)
    real = tempfile.mkdtemp

    def open_to_others(*arguments: str, **more: str) -> str:
        made = real(*arguments, **more)  # type: ignore[call-overload]
        Path(made).chmod(0o755)
        return str(made)

    def make(verb: str) -> Case:
        made = case(verb)
        made.folder = Path(shutil.move(made.folder, place / "case"))
        for path in (made.folder, *made.folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        made.seen()
        return made

    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(tempfile, "mkdtemp", open_to_others)
    yield make
    shutil.rmtree(place)


BECOME = {"become": NOBODY}


def lock(*paths: Path) -> None:
    """Take the right to write away."""
    for path in paths:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))


def free(*paths: Path) -> None:
    for path in paths:
        path.chmod(path.stat().st_mode | stat.S_IWUSR)


@pytest.mark.parametrize("verb", sample(WRITING, 3))
def test_inputs_that_may_only_be_read(guest: Callable[[str], Case], verb: str) -> None:
    job = guest(verb)
    lock(*job.inputs.rglob("*"), job.inputs)
    job.run(BECOME)
    job.assert_whole()


@pytest.mark.parametrize("verb", WRITING)
def test_a_folder_of_results_that_may_only_be_read(guest: Callable[[str], Case], verb: str) -> None:
    job = guest(verb)
    folders = [job.out, *(path for path in job.out.rglob("*") if path.is_dir())]
    lock(*folders)
    assert "out" in job.complaint(BECOME)
    free(*folders)
    job.assert_untouched()
    job.assert_next_run_works()


@pytest.mark.parametrize(("verb", "name"), [("tile", "images"), ("tile", "labels"), ("evaluate", "predictions")])
def test_one_folder_of_results_that_may_only_be_read(guest: Callable[[str], Case], verb: str, name: str) -> None:
    job = guest(verb)
    lock(job.out / name)
    assert name in job.complaint(BECOME)
    free(job.out / name)
    job.assert_untouched()
    job.assert_next_run_works()


@pytest.mark.parametrize("verb", sample(AT_ONCE, 2))
def test_results_that_may_only_be_read_in_a_folder_that_may_be_written(guest: Callable[[str], Case], verb: str) -> None:
    """To replace a file is a matter of its folder."""
    job = guest(verb)
    lock(*(path for path in job.out.rglob("*") if path.is_file()))
    if not job.outcome(BECOME):
        job.assert_whole()
    else:
        job.assert_untouched()


@pytest.mark.parametrize("verb", sample(AT_ONCE, 2))
def test_a_folder_of_results_that_cannot_be_made(guest: Callable[[str], Case], verb: str) -> None:
    job = guest(verb)
    shutil.rmtree(job.out)
    job.seen()
    lock(job.folder)
    job.complaint(BECOME)
    assert not job.out.exists()
    free(job.folder)
    assert not list(job.folder.glob(".*"))


@pytest.mark.parametrize(
    ("verb", "name"),
    sample(
        [
            ("tile", "scene.tif"),
            ("tile", "truth/scene.tif"),
            ("prepare", "dataset/labels/scene_tile_0_0.tif"),
            ("prepare", "dataset"),
            ("train", "dataset/train_files.csv"),
            ("train", "dataset/Normalize_Bands.csv"),
            ("train", "dataset/images"),
            ("evaluate", "model.ckpt"),
            ("evaluate", "dataset/labels"),
            ("predict", "model.ckpt"),
            ("predict", "scene.tif"),
            ("predict", "truth"),
        ],
        6,
    ),
)
def test_inputs_that_may_not_be_read(guest: Callable[[str], Case], verb: str, name: str) -> None:
    job = guest(verb)
    path = job.inputs / name
    mode = path.stat().st_mode
    path.chmod(0)
    said = job.complaint(BECOME)
    path.chmod(mode)
    assert Path(name).name.split("_tile")[0] in said, said
    job.assert_inputs_untouched()
    if verb in AT_ONCE:
        job.assert_untouched()


def test_results_beside_inputs_that_may_only_be_read(guest: Callable[[str], Case]) -> None:
    """Where no folder for them is named, they belong into the dataset folder."""
    for verb, own in (("prepare", {"output_folder": None}), ("train", {"model_folder": None, "log_folder": None})):
        job = guest(verb)
        wanted = job.job(**own)
        assert isinstance(wanted, PrepareJob | TrainJob)
        lock(job.inputs / "dataset")
        assert "dataset" in job.complaint(BECOME, wanted)
        free(job.inputs / "dataset")
        job.assert_untouched()
        shutil.rmtree(job.folder)


# Links ------------------------------------------------------------------------------------------------------------


def put_elsewhere(path: Path, place: Path) -> Path:
    """Put a file or folder into another folder, and a link in its place."""
    place.mkdir()
    real = path.rename(place / f"real {path.name}")
    path.symlink_to(real, target_is_directory=real.is_dir())
    return real


LINKS = {
    "tile": ("in/scene.tif", "in/truth/scene.tif", "in/truth", "out", "out/images"),
    "prepare": ("in/dataset", "in/dataset/images", "in/dataset/labels", "in/dataset/images/scene_tile_0_0.tif", "out"),
    "train": ("in/dataset", "in/dataset/train_files.csv", "in/dataset/labels", "out", "out/models", "out/logs"),
    "evaluate": ("in/dataset", "in/dataset/images", "in/model.ckpt", "out", "out/predictions"),
    "predict": ("in/scene.tif", "in/model.ckpt", "out"),
}


@pytest.mark.parametrize(("verb", "name"), sample([(verb, name) for verb, names in LINKS.items() for name in names], 8))
def test_links(case: CaseMaker, verb: str, name: str) -> None:
    job = case(verb)
    link = job.folder / name
    real = put_elsewhere(link, job.folder / "elsewhere")
    job.run()
    assert link.is_symlink()
    if Path(name).parent == Path("out"):
        link.unlink()
        real.rename(link)
    assert digest(job.out) == job.wanted


@pytest.mark.parametrize("verb", sample(AT_ONCE, 2))
def test_a_link_to_nothing(case: CaseMaker, verb: str) -> None:
    job = case(verb)
    known = [path for path in sorted(job.out.rglob("*")) if path.is_file()]
    first = next((path for path in known if "scene" in path.name), known[0])
    first.unlink()
    first.symlink_to("nowhere")
    job.run()
    assert digest(job.out) == job.wanted
    assert not (first.parent / "nowhere").exists()
