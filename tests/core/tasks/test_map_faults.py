# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the mapper when something goes wrong, of what it leaves behind, and of what its files say."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from osgeo import gdal, ogr
from torch import Tensor, nn

from specdeepmap.core.data import mapcheck
from specdeepmap.core.data.classes import AGREEMENT
from specdeepmap.core.environment import VARIABLE
from specdeepmap.core.errors import Canceled, ChildError, ConfigError, RasterError, SpecDeepMapError
from specdeepmap.core.jobs import PredictJob, PredictResult
from specdeepmap.core.learn.architectures import ARCHITECTURES, Architecture
from specdeepmap.core.run import run as run_in_child
from specdeepmap.core.tasks import predict as predict_module
from specdeepmap.core.tasks.predict import predict_raster
from tests.helpers import Array, Recorder, full_disk, read_pixels, snapshot, write_raster
from tests.maps import CLASSES, NODATA, invent, write_image, write_model

pytestmark = pytest.mark.torch

linux = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")

SLACK = 6.0
"""Seconds that a cancel may take: 2 are promised, and a machine under load takes its time to end a process."""


class Soft(nn.Module):
    """The band with the largest value is the class, with a probability that differs from pixel to pixel."""

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((1,), 0.05))

    def forward(self, images: Tensor) -> Tensor:
        return images * self.factor


@pytest.fixture(autouse=True)
def designs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "identity", Architecture("Identity", "", build=Soft, stride=1, local=True))


def job_of(folder: Path, **settings: Any) -> PredictJob:
    wanted = {"output": folder / "map.tif", "tile_size": 64, "device": "cpu", "precision": "float32", **settings}
    return PredictJob(image=str(folder / "image.tif"), checkpoint=folder / "model.ckpt", **wanted)


def run(folder: Path, progress: Recorder | None = None, **settings: Any) -> PredictResult:
    return predict_raster(job_of(folder, **settings), progress or Recorder())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Image, model and labels, the labels with the class values that the model finds."""
    values, wanted = invent(150, 130)
    write_image(tmp_path / "image.tif", values)
    write_model(tmp_path / "model.ckpt")
    write_raster(tmp_path / "truth.tif", np.roll(wanted, 1, axis=1), nodata=0)
    return tmp_path


def everything(folder: Path, suffix: str = "gpkg") -> dict[str, Any]:
    """Give the settings of a run that writes all there is."""
    rasters = ("confidence", "probabilities", "margin", "entropy", "error_map")
    return {
        "output": folder / "map.tif",
        "ground_truth": str(folder.parent / "truth.tif") if folder.name == "new" else str(folder / "truth.tif"),
        **{name: folder / f"{name}.tif" for name in rasters},
        "vector": folder / f"polygons.{suffix}",
        "scores_csv": folder / "scores.csv",
        "confusion_csv": folder / "confusion.csv",
        "min_area": 4,
    }


# In a child process -----------------------------------------------------------------------------------------------


class Trigger(Recorder):
    """Do something once, after a text, when the share has passed a limit."""

    def __init__(self, text: str, share: float, action: Callable[[], object] | None = None) -> None:
        super().__init__()
        self.text, self.share, self.action = text, share, action or self.cancel
        self.heard, self.pulled_at = False, 0.0

    def _show(self, share: float, text: str) -> None:
        super()._show(share, text)
        self.heard |= text.startswith(self.text)
        if self.heard and share > self.share and not self.pulled_at:
            self.pulled_at = time.monotonic()
            self.action()


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give children this Python, one core, and a temporary folder by which their processes are known."""
    monkeypatch.setenv(VARIABLE, sys.executable)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def kill(scratch: Path) -> None:
    """End the children as the system does when the memory is full."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(scratch) in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:  # it has just ended
            continue


def speckle(folder: Path, size: int) -> Path:
    """Write an image of noise, whose map has about a polygon for every second pixel, and a small real network."""
    values = np.random.default_rng(1).integers(0, 2000, (3, size, size)).astype(np.int16)
    write_raster(folder / "truth.tif", np.full((size, size), 5, np.uint8), nodata=0)
    write_model(folder / "model.ckpt", "justo_unet_simple")
    return write_image(folder / "image.tif", values)


@linux
def test_a_cancel_is_quick_and_leaves_the_folder_as_it_was(tmp_path: Path, scratch: Path) -> None:
    work = tmp_path / "work"
    speckle(work, 1000)
    before = snapshot(work)
    progress = Trigger("Mapping", 0.1)
    with pytest.raises(Canceled):
        run_in_child(job_of(work, **everything(work), batch_size=1, blend=True), progress)
    assert progress.pulled_at and time.monotonic() - progress.pulled_at < SLACK
    assert snapshot(work) == before
    assert not list(scratch.iterdir())


@linux
def test_a_child_that_the_system_ends_damages_nothing(tmp_path: Path, scratch: Path) -> None:
    """GDAL keeps drafts and journals beside polygons, of which no name of an output tells."""
    work = tmp_path / "work"
    speckle(work, 150)
    wanted = {"confidence": work / "sure.tif", "vector": work / "polygons.gpkg"}
    for name in ("map.tif", "sure.tif", "polygons.gpkg"):
        (work / name).write_text("of an earlier run")
    before = snapshot(work)
    progress = Trigger("Making polygons", 0.95, lambda: kill(scratch))
    with pytest.raises(ChildError, match=r"ended by the system \(SIGKILL\).*smaller batch size"):
        run_in_child(job_of(work, **wanted), progress)
    assert progress.pulled_at and snapshot(work) == before
    result = predict_raster(job_of(work, **wanted), Recorder())
    assert (read_pixels(result.output) > 0).all()
    assert set(snapshot(work)) <= set(before) | {"map.tif.aux.xml"}


# Disks and folders ------------------------------------------------------------------------------------------------


def full_while(monkeypatch: pytest.MonkeyPatch, name: str, size: Callable[[Path], int], what: str = "") -> None:
    """Let the disk be full while a step of the mapper works, on the file whose name contains ``what``."""
    real = getattr(predict_module, name)

    def step(*arguments: Any, **more: Any) -> Any:
        if what not in str(arguments[0]):
            return real(*arguments, **more)
        with full_disk(size(arguments[0])):
            return real(*arguments, **more)

    monkeypatch.setattr(predict_module, name, step)


STEPS = {"sieve": 1000, "score_map": 300, "write_scores": 20, "write_confusion": 20, "polygonize": 3000}
"""Functions of the mapper's last steps, and what is too small for what they write, in bytes."""

loud = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""GDAL complains once more when it lets go of a file that could not be written."""


@loud
@pytest.mark.parametrize("step", STEPS)
def test_a_disk_that_fills_up_at_any_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch, gdal_errors: str, step: str
) -> None:
    """A write that fails when a file is closed is easily missed, and the last step must not keep what came first."""
    earlier = gdal_errors == "raises"  # as in the child process
    place = folder if earlier else folder / "new"
    if earlier:
        run(folder, **everything(place))
    before = snapshot(folder)
    with monkeypatch.context() as patched:
        full_while(patched, step, lambda path: STEPS[step])
        with pytest.raises(RasterError, match=r"cannot be (written|sieved).*Is the disk full"):
            run(folder, **everything(place))
    assert snapshot(folder) == before
    if not earlier:
        run(folder, **everything(place))


@loud
def test_a_disk_that_fills_up_at_the_overviews(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gdal_errors: str
) -> None:
    """The directory of the overviews still fits, their pixels do not: such a map is black when zoomed out."""
    write_model(tmp_path / "model.ckpt")
    write_image(tmp_path / "image.tif", invent(600, 600)[0])
    before = snapshot(tmp_path)
    full_while(monkeypatch, "build_overviews", lambda path: path.stat().st_size + 6000, ".map.")
    with pytest.raises(RasterError, match=r"cannot be written.*Is the disk full"):
        run(tmp_path, tile_size=0)
    assert snapshot(tmp_path) == before


@loud
@pytest.mark.parametrize("layer", ["output", "confidence", "probabilities", "margin", "entropy"])
def test_a_disk_that_is_full_for_one_layer(folder: Path, gdal_errors: str, layer: str) -> None:
    wanted = {layer: folder / f"{layer}.tif"}
    run(folder, **wanted)
    sizes = {path.name: path.stat().st_size for path in folder.glob("*.tif")}
    limit = sizes[f"{layer}.tif"] - 200  # the last blocks are written when the file is closed
    assert layer == "output" or sizes["map.tif"] < limit
    before = snapshot(folder)
    with full_disk(limit), pytest.raises(RasterError, match=r"cannot be written: .+Is the disk full"):
        run(folder, **wanted)
    assert snapshot(folder) == before


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "geojson", "fgb"])
def test_a_disk_that_is_full_for_polygons(folder: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    wanted = {"vector": folder / f"polygons.{suffix}"}
    run(folder, **wanted)
    before = snapshot(folder)
    limit = wanted["vector"].stat().st_size // 2
    full_while(monkeypatch, "polygonize", lambda path: limit)
    with pytest.raises(SpecDeepMapError, match="Is the disk full"):
        run(folder, **wanted)
    assert snapshot(folder) == before


OUTPUTS = tuple(name for name in everything(Path()) if name not in ("ground_truth", "min_area"))


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_file_where_the_folder_should_be(folder: Path, name: str) -> None:
    (folder / "taken").write_text("mine")
    before = snapshot(folder)
    wanted = everything(folder) | {name: folder / "taken" / "deep" / everything(folder)[name].name}
    with pytest.raises(RasterError, match=r"taken.* cannot be written"):
        run(folder, **wanted)
    assert snapshot(folder) == before


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_folder_that_cannot_be_written_is_found_before_the_work(folder: Path, name: str) -> None:
    """Not after the hours that a large image takes."""
    (folder / "taken").write_text("mine")
    progress = Recorder()
    with pytest.raises(RasterError, match="cannot be written"):
        run(folder, progress, **everything(folder) | {name: folder / "taken" / everything(folder)[name].name})
    assert max(progress.shares, default=0) <= 0.02


def test_missing_folders_are_made_and_go_again_when_the_run_fails(folder: Path) -> None:
    places = {name: folder / "a" / name / everything(folder)[name].name for name in OUTPUTS}
    wanted = everything(folder) | places
    before = snapshot(folder)
    progress = Trigger("Making polygons", 0.9)
    with pytest.raises(Canceled):
        run(folder, progress, **wanted)
    assert snapshot(folder) == before
    run(folder, **wanted)
    assert all(path.is_file() for path in places.values())


@pytest.mark.parametrize("text", ["Mapping", "Joining patches", "Comparing", "Making polygons"])
def test_a_cancel_at_any_step_leaves_the_earlier_result(folder: Path, text: str) -> None:
    run(folder, **everything(folder))
    write_image(folder / "image.tif", invent(150, 130, seed=2)[0])
    before = snapshot(folder)
    progress = Trigger(text, 0.0)
    with pytest.raises(Canceled):
        run(folder, progress, **everything(folder))
    assert progress.heard and snapshot(folder) == before


# Inputs -----------------------------------------------------------------------------------------------------------


def damage(path: Path, values: Array, **options: Any) -> Path:
    """Write a tiled, compressed raster whose last row of blocks is garbage."""
    write_raster(path, values, options=("ALPHA=NO", "TILED=YES", "BLOCKXSIZE=32", "BLOCKYSIZE=32", "COMPRESS=DEFLATE"))
    raster = gdal.Open(str(path))
    x, y = (-(-size // 32) - 1 for size in (raster.RasterXSize, raster.RasterYSize))
    offset, size = (
        int(raster.GetRasterBand(1).GetMetadataItem(f"BLOCK_{n}_{x}_{y}", "TIFF")) for n in ("OFFSET", "SIZE")
    )
    del raster
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xa5" * size)
    return path


@pytest.mark.parametrize("name", ["image", "truth"])
def test_an_input_that_is_damaged_at_its_end(folder: Path, gdal_errors: str, name: str) -> None:
    """Blocks that cannot be read are never mapped as if they were zeros."""
    run(folder, ground_truth=str(folder / "truth.tif"))
    damage(folder / f"{name}.tif", read_pixels(folder / f"{name}.tif"))
    before = snapshot(folder)
    progress = Recorder()
    with pytest.raises(SpecDeepMapError, match=rf"{name}\.tif"):
        run(folder, progress, ground_truth=str(folder / "truth.tif"))
    assert snapshot(folder) == before
    assert name == "truth" or max(progress.shares) > 0.3  # in the middle of the work


def test_an_image_that_is_cut_off(folder: Path, gdal_errors: str) -> None:
    path = folder / "image.tif"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = snapshot(folder)
    with pytest.raises(RasterError, match=r"image\.tif"):
        run(folder)
    assert snapshot(folder) == before


RASTERS = ("output", "confidence", "probabilities", "margin", "entropy", "error_map")


@pytest.mark.parametrize("name", RASTERS)
@pytest.mark.parametrize(("how", "other"), [("plain", "same"), ("dots", "truth.tif"), ("link", "image.tif")])
def test_no_two_files_are_one(folder: Path, name: str, how: str, other: str) -> None:
    """Whatever way leads to them: comparing names alone would not do."""
    wanted = everything(folder)
    path = wanted["margin" if name == "output" else "output"] if other == "same" else folder / other
    (folder / "sub").mkdir()
    (folder / "way").symlink_to(folder, target_is_directory=True)
    wanted[name] = {"plain": path, "dots": folder / "sub" / ".." / path.name, "link": folder / "way" / path.name}[how]
    before = snapshot(folder)
    with pytest.raises(ConfigError, match=r"are the same file.*Choose\s+another name"):
        run(folder, **wanted)
    assert snapshot(folder) == before


@pytest.mark.parametrize("name", ["{folder}/scene.vrt", "vrt://{folder}/image.tif", "GTIFF_DIR:1:{folder}/image.tif"])
def test_no_output_replaces_what_the_image_reads(folder: Path, name: str) -> None:
    """A virtual raster reads another file; so does a name that GDAL alone understands."""
    gdal.Translate(str(folder / "scene.vrt"), str(folder / "image.tif"), format="VRT")
    before = snapshot(folder)
    job = PredictJob(
        image=name.format(folder=folder), checkpoint=folder / "model.ckpt", output=folder / "image.tif", device="cpu"
    )
    with pytest.raises(ConfigError, match="OUTPUT"):
        predict_raster(job, Recorder())
    assert snapshot(folder) == before


# Results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "geojson", "fgb"])
def test_polygons_replace_earlier_ones(folder: Path, suffix: str) -> None:
    """They are neither added to those of another image, nor a folder of files."""
    path = folder / f"polygons.{suffix}"
    run(folder, vector=path)
    files = {entry.name for entry in folder.iterdir()}
    uniform = np.zeros((3, 40, 40), np.int16)
    uniform[1] = 50
    write_image(folder / "image.tif", uniform)
    run(folder, vector=path)
    assert path.is_file() and {entry.name for entry in folder.iterdir()} == files
    source = ogr.Open(str(path))
    assert source.GetLayerCount() == 1 and source.GetLayer(0).GetFeatureCount() == 1
    assert source.GetLayer(0).GetNextFeature()["class_name"] == "Wald"


@pytest.mark.parametrize("way", ["plain", "blend", "tta"])
def test_two_runs_make_the_same_files(folder: Path, way: str) -> None:
    wanted = everything(folder) | ({} if way == "plain" else {way: True})
    rasters = [wanted[name] for name in RASTERS]
    run(folder, **wanted)
    first = [read_pixels(path).tobytes() for path in rasters]
    tables = [wanted[name].read_bytes() for name in ("scores_csv", "confusion_csv")]
    run(folder, **wanted)
    assert [read_pixels(path).tobytes() for path in rasters] == first
    assert [wanted[name].read_bytes() for name in ("scores_csv", "confusion_csv")] == tables


def test_every_small_size_with_missing_pixels(tmp_path: Path) -> None:
    write_model(tmp_path / "model.ckpt")
    for width in range(1, 21):
        for height, blend in ((width, True), (21 - width, False)):
            values, wanted = invent(width, height, missing=0.3, seed=width)
            values = np.where(values == NODATA, np.nan, values).astype(np.float32)
            write_raster(tmp_path / "image.tif", values, nodata=float("nan"), names=("red", "green", "blue"))
            sure = tmp_path / "sure.tif"
            run(tmp_path, tile_size=8, overlap=25.0, blend=blend, confidence=sure)
            assert np.array_equal(read_pixels(tmp_path / "map.tif")[0], wanted), (width, height)
            assert np.array_equal(np.isnan(read_pixels(sure)[0]), wanted == 0), (width, height)


@pytest.mark.parametrize("nodata", [0, 255, None])
def test_missing_pixels_are_0_in_the_map_whatever_the_image_says(tmp_path: Path, nodata: int | None) -> None:
    """The no-data value of a Byte image is none of a Byte map, where it could be a class as well."""
    values, wanted = invent(60, 50, missing=0.2)
    gone = wanted == 0
    values = (values.clip(0) + 1).astype(np.uint8)
    values[:, gone] = 7 if nodata is None else nodata
    write_model(tmp_path / "model.ckpt")
    write_raster(tmp_path / "image.tif", values, nodata=nodata, names=("red", "green", "blue"))
    truth = write_raster(tmp_path / "truth.tif", np.where(gone, 255, wanted).astype(np.uint8), nodata=255)
    result = run(tmp_path, ground_truth=str(truth), min_area=0)
    found = read_pixels(tmp_path / "map.tif")[0]
    assert info(tmp_path / "map.tif")["bands"][0]["noDataValue"] == 0
    assert set(np.unique(found[~gone])) == set(CLASSES.values) and np.array_equal(found[~gone], wanted[~gone])
    assert (found[gone] == (2 if nodata is None else 0)).all()  # of equal values, the first class is taken
    assert result.overall_accuracy == 1.0


@pytest.mark.parametrize("architecture", ["identity", "justo_unet_simple"])
@pytest.mark.parametrize("way", ["plain", "blend", "tta"])
def test_no_pixel_with_data_is_left_without_a_class(tmp_path: Path, architecture: str, way: str) -> None:
    """Unlabelled, 0, is no class to be predicted; and 0 in an image without a no-data value is a value."""
    values, _ = invent(90, 70, missing=0.0)
    values[:, :30] = 0
    write_raster(tmp_path / "image.tif", values, names=("red", "green", "blue"))
    write_model(tmp_path / "model.ckpt", architecture)
    run(tmp_path, min_area=5, **({} if way == "plain" else {way: True}))
    assert set(np.unique(read_pixels(tmp_path / "map.tif"))) <= set(CLASSES.values)


def test_scores_are_pooled_over_the_whole_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of the scores of tiles is another number where tiles have different shares of the classes."""
    monkeypatch.setattr(mapcheck, "_BLOCK", 32)
    index = np.zeros((100, 100), int)
    index[:, 70:] = 1
    index[80:, 90:] = 2
    values = np.zeros((3, 100, 100), np.int16)
    np.put_along_axis(values, index[None], 50, axis=0)
    write_image(tmp_path / "image.tif", values)
    write_model(tmp_path / "model.ckpt")
    found = np.array(CLASSES.values)[index]
    random = np.random.default_rng(3)
    true = np.where(
        random.random((100, 100)) < np.linspace(0, 0.8, 100), random.choice(CLASSES.values, (100, 100)), found
    )
    true[random.random((100, 100)) < 0.2] = 0
    truth = write_raster(tmp_path / "truth.tif", true.astype(np.uint8), nodata=0)
    result = run(tmp_path, tile_size=32, ground_truth=str(truth), confusion_csv=tmp_path / "confusion.csv")
    counts = true > 0
    matrix = [
        [int((counts & (true == row) & (found == column)).sum()) for column in CLASSES.values] for row in CLASSES.values
    ]
    table = [line.split(",")[1:] for line in (tmp_path / "confusion.csv").read_text("utf-8").splitlines()[1:]]
    assert [[int(cell) for cell in row] for row in table] == matrix
    ious = [
        (counts & (true == value) & (found == value)).sum() / (counts & ((true == value) | (found == value))).sum()
        for value in CLASSES.values
    ]
    assert result.mean_iou == pytest.approx(np.mean(ious))
    assert result.overall_accuracy == pytest.approx((true == found)[counts].mean())


# What GDAL says of the files --------------------------------------------------------------------------------------


def info(path: Path) -> dict[str, Any]:
    described = gdal.Info(str(path), format="json")
    assert isinstance(described, dict)
    return described


def test_what_gdalinfo_says_of_the_files(tmp_path: Path) -> None:
    values, wanted = invent(600, 60)
    write_image(tmp_path / "image.tif", values)
    write_model(tmp_path / "model.ckpt")
    write_raster(tmp_path / "truth.tif", wanted, nodata=0)
    made = everything(tmp_path)
    run(tmp_path, **made)
    told = {name: info(made[name]) for name in RASTERS}
    for name in RASTERS:
        assert told[name]["size"] == [600, 60] and told[name]["driverShortName"] == "GTiff"
        assert told[name]["geoTransform"] == info(tmp_path / "image.tif")["geoTransform"]
        assert "33N" in told[name]["coordinateSystem"]["wkt"]
        assert [entry["size"] for entry in told[name]["bands"][0]["overviews"]] == [[300, 30]], name
    for name in RASTERS[:-1]:
        notes = told[name]["metadata"][""]
        assert (notes["MODEL"], notes["MODEL_NETWORK"]) == ("model.ckpt", "Identity")
    for name, classes in (("output", CLASSES), ("error_map", AGREEMENT)):
        (band,) = told[name]["bands"]
        assert (band["type"], band["noDataValue"], band["colorInterpretation"]) == ("Byte", 0, "Palette")
        colors = band["colorTable"]["entries"]
        assert [tuple(colors[entry.value]) for entry in classes.entries] == [(*e.rgb, 255) for e in classes.entries]
        raster = gdal.Open(str(made[name]))
        raster.GetMetadata()  # GDAL reads the side file, where names of classes are, only now
        names = raster.GetRasterBand(1).GetCategoryNames()
        assert [names[entry.value] for entry in classes.entries] == list(classes.names)
    for name in RASTERS[1:-1]:
        for band in told[name]["bands"]:
            assert band["type"] == "Float32" and np.isnan(float(band["noDataValue"]))
    assert [band["description"] for band in told["probabilities"]["bands"]] == list(CLASSES.names)
    # An overview of classes holds classes, not means of them.
    raster = gdal.Open(str(made["output"]))
    assert set(np.unique(raster.GetRasterBand(1).GetOverview(0).ReadAsArray())) <= {0, *CLASSES.values}
