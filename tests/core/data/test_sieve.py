# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of sieving class maps."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from osgeo import gdal

from specdeepmap.core.data.classes import ClassTable
from specdeepmap.core.data.grid import Grid
from specdeepmap.core.data.labels import names_and_colors
from specdeepmap.core.data.sieve import limits, sieve
from specdeepmap.core.data.writer import GeoTiff
from specdeepmap.core.errors import Canceled, RasterError
from specdeepmap.core.progress import Progress
from tests.helpers import TRANSFORM, Array, Recorder, full_disk, read_pixels, snapshot, utm, write_raster

# With GDAL's exceptions on, its destructor complains once more about the full disk.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

Patch = list[tuple[int, int]]
SIDES = ((0, 1), (1, 0), (0, -1), (-1, 0))

MAPS = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 3))
)


def patches(values: Array) -> list[Patch]:
    """Find the 4-connected patches of all classes, pixel by pixel."""
    seen = values == 0
    found = []
    for start in zip(*np.nonzero(~seen), strict=True):
        if seen[start]:
            continue
        seen[start] = True
        patch, queue = [], deque([start])
        while queue:
            pixel = queue.popleft()
            patch.append(pixel)
            for other in beside(values, pixel):
                if not seen[other] and values[other] == values[pixel]:
                    seen[other] = True
                    queue.append(other)
        found.append(patch)
    return found


def beside(values: Array, pixel: tuple[int, int]) -> Patch:
    """Give the pixels at a pixel's sides that hold a class."""
    places = [(pixel[0] + row, pixel[1] + column) for row, column in SIDES]
    inside = [p for p in places if 0 <= p[0] < values.shape[0] and 0 <= p[1] < values.shape[1]]
    return [p for p in inside if values[p] != 0]


def sieved(tmp_path: Path, values: Array, min_area: int) -> Array:
    source = write_raster(tmp_path / "map.tif", np.asarray(values, np.uint8), nodata=0)
    sieve(source, tmp_path / "sieved.tif", min_area, Progress())
    return read_pixels(tmp_path / "sieved.tif")[0]


@given(values=MAPS, min_area=st.integers(0, 12))
def test_what_sieving_promises(tmp_path: Path, values: Array, min_area: int) -> None:
    result = sieved(tmp_path, values, min_area)
    assert np.array_equal(result == 0, values == 0), "no data neither changes nor takes anything in"
    for patch in patches(values):
        if len(patch) >= min_area:
            assert {result[pixel] for pixel in patch} == {values[patch[0]]}, "large patches keep their pixels"
    size = np.zeros(values.shape, int)
    for patch in patches(result):
        size[tuple(np.transpose(patch))] = len(patch)
    for pixel in zip(*np.nonzero((result != 0) & (size < min_area)), strict=True):
        assert all(size[other] < min_area for other in beside(result, pixel)), "small patches have no large neighbour"
    for island in patches((values != 0).astype(np.uint8)):
        place = tuple(np.transpose(island))
        assert set(result[place]) <= set(values[place]), "no class crosses no data"


@given(values=MAPS)
def test_limits_of_no_and_one_pixel_change_nothing(tmp_path: Path, values: Array) -> None:
    assert np.array_equal(sieved(tmp_path, values, 0), values)
    assert np.array_equal(sieved(tmp_path, values, 1), values)


@given(values=MAPS, min_area=st.integers(2, 6))
def test_a_map_that_is_sieved_stays_so(tmp_path: Path, values: Array, min_area: int) -> None:
    values[0] = 1
    values = np.pad(values, ((5, 0), (1, 1)), constant_values=1)  # something large for every patch to join
    values[values == 0] = 2
    once = sieved(tmp_path, values, min_area)
    assert min(len(patch) for patch in patches(once)) >= min_area
    assert np.array_equal(sieved(tmp_path, once, min_area), once)


@pytest.mark.parametrize("turned", [False, True])
def test_the_largest_neighbour_wins_not_the_one_with_the_longest_border(tmp_path: Path, turned: bool) -> None:
    values = np.array(
        [
            [1, 1, 1, 1, 1, 1, 1, 1],
            [1, 2, 2, 2, 2, 2, 2, 1],
            [0, 2, 3, 3, 3, 3, 2, 1],
            [0, 2, 2, 0, 4, 2, 2, 1],
            [0, 0, 0, 0, 4, 4, 4, 1],
            [4, 4, 4, 4, 4, 4, 4, 4],
            [4, 4, 4, 4, 4, 4, 4, 4],
        ],
        np.uint8,
    )
    values = values.T if turned else values
    wanted = np.where(values == 3, 4, values)  # 12 pixels of 2 around it, but 20 of 4 at a single side
    assert np.array_equal(sieved(tmp_path, values, 5), wanted)


def test_neighbours_at_corners_are_none(tmp_path: Path) -> None:
    values = np.array([[2, 0, 1], [0, 1, 1], [1, 1, 1]], np.uint8)
    assert np.array_equal(sieved(tmp_path, values, 3), values)


def test_only_patches_below_the_limit_go(tmp_path: Path) -> None:
    values = np.ones((9, 9), np.uint8)
    values[2, 2:6] = 2
    assert np.array_equal(sieved(tmp_path, values, 4), values)
    assert np.array_equal(sieved(tmp_path, values, 5), np.ones((9, 9)))


def test_a_pass_without_a_change_is_not_the_last(tmp_path: Path) -> None:
    values = np.ones((12, 12), np.uint8)
    values[2, 1:11] = 2  # not touched by passes with the limits 2 and 5
    assert np.array_equal(sieved(tmp_path, values, 20), np.ones((12, 12)))


def test_a_pass_that_swaps_as_many_pixels_is_not_the_last(tmp_path: Path) -> None:
    """The first pass turns as many pixels from 1 to 2 as from 2 to 1: GDAL's checksum stays the same."""
    values = np.array([[1, 2, 1, 2], [2, 1, 2, 2], [1, 2, 1, 2], [2, 1, 1, 1]], np.uint8)
    assert min(len(patch) for patch in patches(sieved(tmp_path, values, 3))) >= 3


def test_speckle_grows_together(tmp_path: Path, random: np.random.Generator) -> None:
    values = random.integers(1, 6, (80, 80)).astype(np.uint8)
    result = sieved(tmp_path, values, 50)
    assert min(len(patch) for patch in patches(result)) >= 50, "a single pass of GDAL's sieve changes nothing here"
    assert len(patches(result)) > 10, "and the patches stay as small as they may"


@pytest.mark.parametrize(("classes", "min_area"), [(9, 20), (12, 5), (20, 3), (20, 20), (60, 3)])
def test_speckle_of_many_classes_takes_many_passes(
    tmp_path: Path, random: np.random.Generator, classes: int, min_area: int
) -> None:
    """With eight passes, small patches were left beside large ones."""
    values = random.integers(1, classes + 1, (150, 150)).astype(np.uint8)
    result = sieved(tmp_path, values, min_area)
    found = patches(result)
    if max(map(len, found)) >= min_area:
        assert min(map(len, found)) >= min_area
    assert np.array_equal(sieved(tmp_path, result, min_area), result)


def test_where_all_is_small_something_is_left(tmp_path: Path) -> None:
    island = np.zeros((5, 8), np.uint8)
    island[2, 2:6] = [1, 1, 2, 2]
    assert np.array_equal(sieved(tmp_path, island, 10), island)


def test_blocks_and_repeated_passes_do_not_show(tmp_path: Path, random: np.random.Generator) -> None:
    """A file that is changed in place, block by block, equals arrays that are sieved one after the other."""
    coarse = np.kron(random.integers(0, 4, (14, 12)), np.ones((45, 50), int)).astype(np.uint8)
    values = np.where(random.random(coarse.shape) < 0.3, random.integers(1, 4, coarse.shape), coarse)
    wanted = values.astype(np.uint8)
    for limit in [*limits(30), 30, 30, 30]:
        memory = gdal.GetDriverByName("MEM").Create("", wanted.shape[1], wanted.shape[0], 2)
        band, target = memory.GetRasterBand(1), memory.GetRasterBand(2)
        band.WriteArray(wanted)
        gdal.SieveFilter(band, band, target, limit, 4)
        wanted = np.where(wanted == 0, 0, target.ReadAsArray())
    assert np.array_equal(sieved(tmp_path, values, 30), wanted)


@pytest.mark.parametrize(
    ("min_area", "wanted"), [(2, [2]), (3, [2, 3]), (5, [2, 5]), (20, [2, 5, 20]), (100, [2, 7, 25, 100])]
)
def test_limits_grow_fourfold(min_area: int, wanted: list[int]) -> None:
    assert limits(min_area) == wanted


def test_names_colours_place_and_metadata_stay(tmp_path: Path, random: np.random.Generator) -> None:
    classes = ClassTable.of([1, 2, 9], {1: "Wälder", 9: "water"}, {2: "#123456"})
    grid = Grid(300, 280, TRANSFORM, utm())
    with GeoTiff(tmp_path / "map.tif", grid, 1, np.uint8, 0, ("TILED=YES",)) as tif:
        tif.classify(classes)
        tif.note({"MODEL": "best.ckpt", "TIFFTAG_SOFTWARE": "SpecDeepMap"})
        tif.write(random.choice([0, 1, 2, 9], (1, 280, 300)).astype(np.uint8))
    before = snapshot(tmp_path)
    sieve(tmp_path / "map.tif", tmp_path / "sieved.tif", 10, Progress())
    assert before.items() <= snapshot(tmp_path).items(), "the source is only read"
    maps = [gdal.Open(str(tmp_path / name)) for name in ("map.tif", "sieved.tif")]
    assert names_and_colors(maps[1]) == names_and_colors(maps[0])
    assert names_and_colors(maps[1])[0][1] == "Wälder"
    assert maps[1].GetRasterBand(1).GetNoDataValue() == 0
    assert maps[1].GetGeoTransform() == TRANSFORM and maps[1].GetProjection() == maps[0].GetProjection()
    for key in ("MODEL", "TIFFTAG_SOFTWARE"):
        assert maps[1].GetMetadataItem(key) == maps[0].GetMetadataItem(key)
    assert maps[1].GetRasterBand(1).GetBlockSize() == [256, 256]
    assert maps[1].GetMetadata("IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"


class Late(Recorder):
    """Canceled from the check of this number on."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def check(self) -> None:
        if self.checks + 1 >= self._number:
            self.cancel()
        super().check()


@pytest.mark.parametrize("check", [1, 2, 5, 60, 120])
def test_cancel(tmp_path: Path, random: np.random.Generator, gdal_errors: str, check: int) -> None:
    source = write_raster(tmp_path / "map.tif", random.integers(0, 4, (50, 50)).astype(np.uint8), nodata=0)
    before = snapshot(tmp_path)
    with pytest.raises(Canceled):
        sieve(source, tmp_path / "sieved.tif", 10, Late(check))
    (tmp_path / "sieved.tif").unlink(missing_ok=True)
    assert snapshot(tmp_path) == before


def test_progress_goes_on_to_the_end(tmp_path: Path, random: np.random.Generator, progress: Recorder) -> None:
    source = write_raster(tmp_path / "map.tif", random.integers(0, 4, (50, 50)).astype(np.uint8), nodata=0)
    sieve(source, tmp_path / "sieved.tif", 10, progress)
    assert progress.shares[-1] == 1.0 and len(set(progress.shares)) > 20


def test_errors_say_what_cannot_be_done(tmp_path: Path, gdal_errors: str, progress: Recorder) -> None:
    with pytest.raises(RasterError, match=r"none\.tif cannot be opened"):
        sieve(tmp_path / "none.tif", tmp_path / "sieved.tif", 10, progress)
    source = write_raster(tmp_path / "map.tif", np.ones((5, 5), np.uint8))
    with pytest.raises(RasterError, match=r"no folder.*disk full"):
        sieve(source, tmp_path / "no folder" / "sieved.tif", 10, progress)


def test_a_full_disk(tmp_path: Path, random: np.random.Generator, gdal_errors: str, progress: Recorder) -> None:
    values = random.integers(1, 200, (400, 400)).astype(np.uint8)
    source = write_raster(tmp_path / "map.tif", values, nodata=0)
    with full_disk(60_000), pytest.raises(RasterError, match="disk full"):
        sieve(source, tmp_path / "sieved.tif", 3, progress)
