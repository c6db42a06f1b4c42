# SPDX-License-Identifier: GPL-3.0-or-later
"""Inputs that are cut off, changed at random or taken for others: the user reads which file it is."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from specdeepmap.core.jobs import Job, TrainJob
from tests.faults.bench import ALL, AT_ONCE, Case, sample, seeded, some
from tests.faults.conftest import CaseMaker
from tests.faults.digest import digest
from tests.helpers import read_pixels, write_raster

Damage = Callable[[Path, random.Random], None]


# What can happen to a file ----------------------------------------------------------------------------------------


def empty(path: Path, _: random.Random) -> None:
    path.write_bytes(b"")


def cut_off(path: Path, chance: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: chance.randrange(1, len(content))])


def flip_bits(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 8, 200))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def lose_a_block(path: Path, chance: random.Random) -> None:
    """Turn a stretch to zeros, as a disk does that loses a block."""
    content = bytearray(path.read_bytes())
    start = chance.randrange(len(content))
    stretch = slice(start, start + 512)
    content[stretch] = bytes(len(content[stretch]))
    path.write_bytes(content)


def be_another_file(path: Path, _: random.Random) -> None:
    path.write_text("a letter to somebody\n" * 20, "utf-8")


def be_a_folder(path: Path, _: random.Random) -> None:
    path.unlink()
    path.mkdir()


def go(path: Path, _: random.Random) -> None:
    path.unlink()


DAMAGES: dict[str, Damage] = {
    "empty": empty,
    "cut off": cut_off,
    "flipped bits": flip_bits,
    "lost block": lose_a_block,
    "another file": be_another_file,
    "a folder": be_a_folder,
    "gone": go,
}
SEEDED = ("cut off", "flipped bits", "lost block")

FILES = {
    "tile": ("in/scene.tif", "in/truth/scene.tif", "out/tiles.gpkg"),
    "prepare": (
        "in/dataset/images/scene_tile_32_0.tif",
        "in/dataset/labels/scene_tile_32_0.tif",
        "in/dataset/tiles.gpkg",
    ),
    "train": (
        "in/dataset/images/scene_tile_32_0.tif",
        "in/dataset/labels/scene_tile_32_0.tif",
        "in/dataset/train_files.csv",
        "in/dataset/validation_files.csv",
        "in/dataset/Summary_train_val.csv",
        "in/dataset/Normalize_Bands.csv",
    ),
    "evaluate": ("in/dataset/train_files.csv", "in/dataset/images/scene_tile_32_0.tif", "in/model.ckpt"),
    "predict": ("in/scene.tif", "in/truth/scene.tif", "in/model.ckpt"),
}

PLAIN = ("empty", "another file", "a folder", "gone")
EVERYDAY = {"scene.tif": ("a folder",), "tiles.gpkg": ("another file",), "model.ckpt": ("empty", "another file")}


def damages(verb: str, name: str) -> Iterator[tuple[str, int]]:
    """Yield what happens to a file, and seeds: all there is, or what differs most."""
    for damage in SEEDED:
        yield from ((damage, seed) for seed in some(1, 12))
    yield from ((damage, 0) for damage in (PLAIN if ALL else EVERYDAY.get(Path(name).name, ("gone",))))


@pytest.mark.parametrize(
    ("verb", "name", "damage", "seed"),
    sample(
        (
            pytest.param(
                verb, name, damage, seed, id=f"{verb}-{Path(name).parent.name}/{Path(name).name}-{damage}-{seed}"
            )
            for verb, names in FILES.items()
            for name in names
            for damage, seed in damages(verb, name)
        ),
        27,
    ),
)
def test_one_file(case: CaseMaker, verb: str, name: str, damage: str, seed: int) -> None:
    broken = case(verb)
    DAMAGES[damage](broken.folder / name, seeded(f"{verb} {name} {damage} {seed}"))
    broken.seen()
    said = broken.outcome()
    judge(broken, said)
    if damage in ("empty", "another file", "a folder") and not name.endswith("dataset/tiles.gpkg"):
        if not said and verb == "prepare" and "/images/" in name:  # of other sets' images it needs the names only
            assert Path(name).name not in (broken.out / "train_files.csv").read_text(encoding="utf-8")
        else:
            assert said and Path(name).stem.split("_tile")[0] in said, said


def judge(broken: Case, said: str) -> None:
    """Check that what is left is whole: all is as it was where the job has complained."""
    if said and broken.bench.verb in AT_ONCE:
        broken.assert_untouched()
    else:  # what was changed may be a pixel: the job cannot know
        broken.assert_inputs_untouched()
        digest(broken.out)
        broken.assert_tidy()


# What a training goes on from -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "damage", "seed"),
    sample(
        [
            (name, damage, seed)
            for name in ("last.ckpt", "history.csv", "job.json", "last.json")
            for damage in ("empty", *SEEDED, "gone")
            for seed in some(1, 12)
        ],
        9,
    ),
)
def test_an_interrupted_training(case: CaseMaker, name: str, damage: str, seed: int) -> None:
    broken = case("train")
    job = cast(TrainJob, broken.bench.job(broken.folder, 1))
    DAMAGES[damage](broken.out / "models" / name, seeded(f"{name} {damage} {seed}"))
    left = broken.out / "models" / name
    before = left.read_bytes() if left.is_file() else None
    said = broken.outcome(job=TrainJob.from_json({**job.to_json(), "resume": True, "epochs": 4}))
    broken.assert_inputs_untouched()
    if said:
        assert "RESUME" in said
        assert (left.read_bytes() if left.is_file() else None) == before
    elif name.endswith(".ckpt"):
        digest(broken.out)


# Taken for another ------------------------------------------------------------------------------------------------


def other_size(path: Path) -> None:
    write_raster(path, read_pixels(path)[:, :20, :28], names=("red", "green", "blue")[: len(read_pixels(path))])


def one_band_less(path: Path) -> None:
    write_raster(path, read_pixels(path)[:2])


def a_band_more(path: Path) -> None:
    values = read_pixels(path)
    write_raster(path, np.concatenate([values, values[:1]]))


def label_for_image(path: Path) -> None:
    label = path.parents[1] / "labels" / path.name
    shutil.copy(label, path)


def image_for_label(path: Path) -> None:
    label = path.parents[1] / "labels" / path.name
    shutil.copy(path, label)


SWAPS: dict[str, Callable[[Path], None]] = {
    "another size": other_size,
    "a band less": one_band_less,
    "a band more": a_band_more,
    "a label for an image": label_for_image,
    "an image for a label": image_for_label,
}


def training_chip(broken: Case) -> Path:
    """Give the first chip to train or to test on."""
    listed = broken.wanted.get("train_files.csv")
    if isinstance(listed, list):  # the Dataset Maker has still to choose
        return Path(os.path.normpath(broken.out / listed[1][0]))
    table = broken.inputs / "dataset" / "train_files.csv"
    return table.parent / table.read_text("utf-8").splitlines()[1].split(",")[0]


@pytest.mark.parametrize(
    ("verb", "swap"), sample([(verb, swap) for verb in ("prepare", "train", "evaluate") for swap in SWAPS], 7)
)
def test_a_chip_that_is_another(case: CaseMaker, verb: str, swap: str) -> None:
    broken = case(verb)
    SWAPS[swap](training_chip(broken))
    broken.seen()
    if (verb, swap) == ("prepare", "another size"):
        broken.run()  # it looks at the sizes of the labels; the trainer, which needs both, finds out
        return
    judge(broken, broken.complaint())


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_tables_that_are_swapped(case: CaseMaker, verb: str) -> None:
    """Images under the heading of the labels, and the other way round."""
    broken = case(verb)
    table = broken.inputs / "dataset" / "train_files.csv"
    rows = [line.split(",") for line in table.read_text("utf-8").splitlines()]
    table.write_text("\n".join(",".join(reversed(row)) for row in rows) + "\n", "utf-8")
    broken.run()
    for row in rows[1:]:
        row.reverse()
    table.write_text("\n".join(",".join(row) for row in rows) + "\n", "utf-8")
    broken.seen()
    judge(broken, broken.complaint())


@pytest.mark.parametrize(("verb", "one", "other"), [("predict", "in/scene.tif", "in/truth/scene.tif")])
def test_inputs_that_are_swapped(case: CaseMaker, verb: str, one: str, other: str) -> None:
    broken = case(verb)
    paths = broken.folder / one, broken.folder / other
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, reversed(contents), strict=True):
        path.write_bytes(content)
    broken.seen()
    judge(broken, broken.complaint())


# Job files --------------------------------------------------------------------------------------------------------


def misprinted(job: Job, damage: Damage, chance: random.Random) -> Any:
    """Give a job whose file is damaged on its way to the child."""

    class Misprinted:
        result = job.result

        def save(self, path: Path) -> None:
            job.save(path)
            damage(path, chance)

    return Misprinted()


@pytest.mark.parametrize("seed", some(1, 20))
@pytest.mark.parametrize("damage", ["empty", *SEEDED, "another file"])
@pytest.mark.parametrize("verb", sample(["prepare", "evaluate"], 1))
def test_job_files(case: CaseMaker, verb: str, damage: str, seed: int) -> None:
    broken = case(verb)
    said = broken.outcome(job=misprinted(broken.job(), DAMAGES[damage], seeded(f"{verb} {damage} {seed}")))
    assert said or damage == "flipped bits"
    broken.assert_inputs_untouched()
    if said:
        broken.assert_untouched()
