# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of spatial blocks: sets that lie apart on the ground."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specdeepmap.core.data.grid import Extent
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.splits import SPLIT_NAMES
from specdeepmap.core.data.tileindex import read_splits
from specdeepmap.core.errors import ConfigError
from specdeepmap.core.jobs import PrepareJob, TileJob
from specdeepmap.core.tasks.prepare import make_dataset
from specdeepmap.core.tasks.tile import tile_raster
from tests.helpers import TRANSFORM, Recorder, utm, write_raster


def prepare(folder: Path, progress: Recorder | None = None, **values: Any) -> None:
    job = PrepareJob(data_folder=folder, **{"split": "blocks", "statistics": False, **values})
    make_dataset(job, progress or Recorder())


def cut(
    folder: Path, name: str, side: tuple[int, int], size: tuple[int, int], step: tuple[int, int], **settings: Any
) -> None:
    """Cut an image of one band with stripes of two classes; all pairs are ``(x, y)`` in pixels."""
    random = np.random.default_rng(len(name))
    labels = random.choice([1, 2], (side[1], side[0])).astype(np.uint8)
    image = write_raster(folder.parent / "in" / f"{name}.tif", labels * 10, **settings)
    truth = write_raster(folder.parent / "in" / f"{name}_truth.tif", labels, **settings)
    job = TileJob(
        image=str(image),
        labels=str(truth),
        output_folder=folder,
        tile_size_x=size[0],
        tile_size_y=size[1],
        step_x=step[0],
        step_y=step[1],
        min_label_coverage=0,
    )
    tile_raster(job, Recorder())


def places(folder: Path) -> list[tuple[str, str, Extent, str]]:
    """Give the set, name, extent and CRS of each chip that stands in a set, from the tables and the chips."""
    found = []
    for name in SPLIT_NAMES:
        with (folder / f"{name}_files.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                grid = Raster.open(folder / row["image"]).grid
                found.append((name, Path(row["image"]).stem, grid.extent, grid.crs))
    return found


def smallest_gap(folder: Path, pixel: float = 10.0) -> float:
    """Give the smallest gap between chips of different sets, in pixels; negative where they overlap."""
    smallest = np.inf
    chips = places(folder)
    for one, (own, name, a, crs) in enumerate(chips):
        for other, other_name, b, other_crs in chips[:one]:
            together = crs == other_crs and (crs or name.rpartition("_tile_")[0] == other_name.rpartition("_tile_")[0])
            if own != other and together:
                gap = max(max(a[0], b[0]) - min(a[2], b[2]), max(a[1], b[1]) - min(a[3], b[3]))
                smallest = min(smallest, gap / pixel)
    return float(smallest)


@settings(max_examples=15)
@given(st.data())
def test_blocks_and_a_buffer_leave_no_leak(tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "data"
    shutil.rmtree(folder, ignore_errors=True)
    size = data.draw(st.tuples(st.integers(8, 20), st.integers(8, 20)))
    step = data.draw(st.tuples(st.integers(4, 24), st.integers(4, 24)))
    cut(folder, "one", data.draw(st.tuples(st.integers(20, 90), st.integers(20, 90))), size, step)
    if data.draw(st.booleans()):  # a second image whose ground overlaps the first one's, between its pixels
        shift = data.draw(st.integers(-60, 60))
        transform = (TRANSFORM[0] + 10 * shift + 4, 10.0, 0.0, TRANSFORM[3] - 33, 0.0, -10.0)
        cut(folder, "other", (40, 40), size, step, transform=transform)
    buffer = data.draw(st.sampled_from([0, 1, 5, 30]))
    progress = Recorder()
    prepare(
        folder,
        progress,
        block_size=data.draw(st.sampled_from([0, 10, 25, 60])),
        buffer=buffer,
        seed=data.draw(st.integers(0, 99)),
        train_percent=data.draw(st.sampled_from([60, 40])),
        validation_percent=20,
        test_percent=20,
    )
    assert smallest_gap(folder) >= buffer - 1e-6
    assert not any("share ground" in text for text in progress.warnings)
    index = read_splits(folder / "tiles.gpkg")
    chips = places(folder)
    assert {name: split for name, split in index.items() if split} == {name: split for split, name, _, _ in chips}
    left_out = sum(not split for split in index.values())
    assert left_out == len(index) - len(chips)


def test_stratified_chips_that_overlap_do_leak(tmp_path: Path) -> None:
    """What the blocks are for: the same chips in the usual split."""
    cut(tmp_path / "data", "one", (80, 80), (16, 16), (8, 8))
    progress = Recorder()
    prepare(tmp_path / "data", progress, split="stratified")
    assert smallest_gap(tmp_path / "data") < 0
    assert any("share ground" in text for text in progress.warnings)


def test_chips_side_by_side_are_all_kept_and_fill_the_sets(tmp_path: Path) -> None:
    cut(tmp_path / "data", "one", (160, 160), (8, 8), (8, 8))
    progress = Recorder()
    prepare(tmp_path / "data", progress, train_percent=60, validation_percent=20, test_percent=20)
    sizes = [sum(split == name for split, *_ in places(tmp_path / "data")) for name in SPLIT_NAMES]
    assert sum(sizes) == 400
    assert sizes == pytest.approx([240, 80, 80], abs=8), "half a block"
    assert any("25 blocks of 32 pixels; 0 chips left out" in text for text in progress.infos)
    prepare(tmp_path / "data", progress, block_size=80)
    assert any("4 blocks of 80 pixels" in text for text in progress.infos)


IMAGES = ("north", "west", "bare", "naked")


def test_images_in_other_coordinate_systems_or_in_none(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    cut(folder, "north", (50, 50), (8, 8), (6, 6))
    cut(folder, "west", (50, 50), (8, 8), (6, 6), crs=utm(32))
    cut(folder, "bare", (50, 50), (8, 8), (6, 6), crs="", transform=None)
    cut(folder, "naked", (50, 50), (8, 8), (6, 6), crs="", transform=None)
    for buffer in (0, 6):
        prepare(folder, buffer=buffer, block_size=20, train_percent=60, validation_percent=20, test_percent=20)
        for pixel, kept in ((10.0, ("north", "west")), (1.0, ("bare", "naked"))):
            only = tmp_path / f"{buffer}_{pixel:g}"
            shutil.copytree(folder, only)
            for name in SPLIT_NAMES:
                lines = (only / f"{name}_files.csv").read_text().splitlines()
                (only / f"{name}_files.csv").write_text(
                    "\n".join([lines[0], *(line for line in lines if line[7:].startswith(kept))])
                )
            assert len(places(only)) > 20
            assert smallest_gap(only, pixel) >= buffer - 1e-6
    found = places(folder)
    sets = {image: {split for split, name, _, _ in found if name.startswith(image)} for image in IMAGES}
    assert all(sets.values()) and max(map(len, sets.values())) > 1, "each image has blocks of its own"


@pytest.mark.parametrize("split", ["stratified", "random", "given"])
@pytest.mark.parametrize(("name", "value"), [("block_size", 64), ("buffer", 5)])
def test_blocks_settings_belong_to_blocks(tmp_path: Path, split: str, name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"{name.upper()} is {value}, but only SPLIT blocks .* SPLIT is {split}"):
        PrepareJob(data_folder=tmp_path, split=split, **{name: value})
    PrepareJob(data_folder=tmp_path, split=split, **{name: 0})
    PrepareJob(data_folder=tmp_path, split="blocks", **{name: value})


def test_the_same_seed_gives_the_same_blocks(tmp_path: Path) -> None:
    cut(tmp_path / "data", "one", (80, 80), (8, 8), (6, 6))
    sets = []
    for seed in (1, 1, 2):
        prepare(tmp_path / "data", seed=seed, buffer=2, output_folder=tmp_path / "out")
        sets.append(read_splits(tmp_path / "out" / "tiles.gpkg"))
    assert sets[0] == sets[1] != sets[2]


def test_a_buffer_that_leaves_no_training_chip_is_told(tmp_path: Path) -> None:
    cut(tmp_path / "data", "one", (24, 24), (8, 8), (8, 8))
    progress = Recorder()
    prepare(tmp_path / "data", progress, buffer=500, train_percent=40, validation_percent=30, test_percent=30)
    left = {split for split, *_ in places(tmp_path / "data")}
    assert len(left) == 1
    for name in set(SPLIT_NAMES) - left:
        assert any(f"The {name} set is empty" in text for text in progress.warnings)
    (said,) = [text for text in progress.warnings if "BUFFER 500 there is no room for" in text]
    assert all((name in said.split(":")[1]) == (name not in left) for name in SPLIT_NAMES)
