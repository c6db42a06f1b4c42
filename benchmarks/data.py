# SPDX-License-Identifier: GPL-3.0-or-later
"""Speed and memory of the data room, as ratios to stated limits measured in the same run: ``make bench-data``.

- The splitter against a bare loop in one thread that reads the same windows with GDAL and writes the same chip and
  label files with the same compression, and does nothing else.
- The splitter's peak memory on a small and a large raster.
- The dataset maker against reading every image and label chip once, in one thread.
- The stratified split against the best of 100,000 random permutations, by the largest difference of a class share.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from osgeo import gdal

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from table import Row, show  # noqa: E402

from specdeepmap.core.data.dataset import find_pairs  # noqa: E402
from specdeepmap.core.data.splits import imbalance, split_random, split_stratified  # noqa: E402
from specdeepmap.core.jobs import PrepareJob, TileJob  # noqa: E402
from specdeepmap.core.progress import Progress  # noqa: E402
from specdeepmap.core.tasks.prepare import make_dataset  # noqa: E402
from specdeepmap.core.tasks.tile import tile_raster  # noqa: E402

gdal.UseExceptions()

CLASSES = 8
PERMUTATIONS = 100_000
REPEATS = 3


def main() -> None:
    """Run all measurements, or print the memory of one run for the parent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", type=Path, help="split this folder's raster and print the peak memory")
    options = parser.parse_args()
    if options.memory:
        sys.stdout.write(str(peak_memory(options.memory)))
        return
    with tempfile.TemporaryDirectory(prefix="specdeepmap-bench-") as name:
        folder = Path(name)
        rows = [*bench_split(folder), bench_memory(folder), *bench_dataset(folder), bench_quality()]
    show(rows, "data")


def write_scene(folder: Path, size: int, bands: int, dtype: type[np.integer]) -> None:
    """Write an image with texture, so that compression has to work, and labels in patches."""
    folder.mkdir()
    random = np.random.default_rng(0)
    code = gdal.GDT_UInt16 if dtype is np.uint16 else gdal.GDT_Int16
    options = ["TILED=YES", "BIGTIFF=IF_SAFER", "INTERLEAVE=BAND"]
    dataset = gdal.GetDriverByName("GTiff").Create(str(folder / "image.tif"), size, size, bands, code, options)
    dataset.SetGeoTransform((400000, 10, 0, 5800000, 0, -10))
    dataset.GetRasterBand(1).SetNoDataValue(0)
    land = np.kron(random.integers(500, 3000, (size // 64, size // 64)), np.ones((64, 64), np.int64))
    for band in range(bands):
        values = land * (1 + 0.3 * np.sin(band)) + random.normal(0, 40, (size, size))
        dataset.GetRasterBand(band + 1).WriteArray(np.clip(values, 1, 9999).astype(dtype))
    dataset = None
    labels = gdal.GetDriverByName("GTiff").Create(
        str(folder / "labels.tif"), size, size, 1, gdal.GDT_Byte, ["TILED=YES"]
    )
    labels.SetGeoTransform((400000, 10, 0, 5800000, 0, -10))
    labels.GetRasterBand(1).WriteArray((land % CLASSES + 1).astype(np.uint8))
    labels = None


def split(folder: Path, tile: int, output: Path) -> float:
    """Run the splitter and give its time in seconds."""
    job = TileJob(
        image=str(folder / "image.tif"),
        labels=str(folder / "labels.tif"),
        tile_size_x=tile,
        tile_size_y=tile,
        step_x=tile,
        step_y=tile,
        output_folder=output,
    )
    os.sync()  # what an earlier run has not yet written would cost this one
    start = time.perf_counter()
    tile_raster(job, Progress())
    return time.perf_counter() - start


def bare_split(folder: Path, tile: int, output: Path, like: Path) -> float:
    """Read the same windows and write the same files in a plain loop; give its time in seconds."""
    pattern = find_pairs(like)[0]
    image, labels = gdal.Open(str(folder / "image.tif")), gdal.Open(str(folder / "labels.tif"))
    chip = gdal.Open(str(pattern.image))
    kind, bands, nodata = chip.GetRasterBand(1).DataType, chip.RasterCount, chip.GetRasterBand(1).GetNoDataValue()
    compression = ["COMPRESS=ZSTD", "ZSTD_LEVEL=1", f"BLOCKYSIZE={tile}"]
    mask = gdal.Open(str(pattern.label))
    mask.GetMetadata()
    colors, names = mask.GetRasterBand(1).GetColorTable(), mask.GetRasterBand(1).GetCategoryNames()
    driver = gdal.GetDriverByName("GTiff")
    for kind_name in ("images", "labels"):
        (output / kind_name).mkdir(parents=True)
    os.sync()
    start = time.perf_counter()
    a, b, c, d, e, f = image.GetGeoTransform()
    for y in range(0, image.RasterYSize, tile):
        for x in range(0, image.RasterXSize, tile):
            place = (a + x * b, b, c, d + y * f, e, f)
            name = f"image_tile_{x}_{y}.tif"
            options = [*compression, "PREDICTOR=2", "INTERLEAVE=BAND"]
            target = driver.Create(str(output / "images" / name), tile, tile, bands, kind, options)
            target.SetGeoTransform(place)
            target.GetRasterBand(1).SetNoDataValue(nodata)
            target.WriteArray(image.ReadAsArray(x, y, tile, tile))
            target = None
            target = driver.Create(str(output / "labels" / name), tile, tile, 1, gdal.GDT_Byte, compression)
            target.SetGeoTransform(place)
            band = target.GetRasterBand(1)
            band.SetNoDataValue(0)
            band.SetColorTable(colors)
            band.SetCategoryNames(names)
            band.WriteArray(labels.ReadAsArray(x, y, tile, tile))
            target = band = None
    return time.perf_counter() - start


def bench_split(folder: Path) -> list[Row]:
    """Measure the splitter in MB/s of image pixels; ours and the limit take turns, the best of each counts."""
    rows = []
    cases = (("split-s2-128", 4096, 10, np.uint16, 128), ("split-s2-256", 4096, 10, np.uint16, 256))
    for name, size, bands, dtype, tile in (*cases, ("split-hyper-64", 1024, 200, np.int16, 64)):
        scene = folder / f"{size}x{bands}"
        if not scene.exists():
            write_scene(scene, size, bands, dtype)
        ours, limit = [], []
        for _ in range(REPEATS):
            ours.append(split(scene, tile, folder / "ours"))
            limit.append(bare_split(scene, tile, folder / "bare", folder / "ours"))
            shutil.rmtree(folder / "ours")
            shutil.rmtree(folder / "bare")
        megabytes = size * size * bands * 2 / 1e6
        rows.append(Row.rate(name, megabytes / min(ours), megabytes / min(limit), "MB/s", 1.2))
    return rows


def peak_memory(folder: Path) -> int:
    """Run the splitter as QGIS does, in a child, and give the child's peak memory in kilobytes."""
    names = {"image": str(folder / "image.tif"), "labels": str(folder / "labels.tif")}
    job = folder / "job.json"
    TileJob(**names, output_folder=folder / "chips").save(job)
    subprocess.run([sys.executable, "-m", "specdeepmap.core", str(job)], cwd=ROOT, capture_output=True, check=True)  # noqa: S603
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def bench_memory(folder: Path) -> Row:
    """Compare the splitter's peak memory on 16384 and 4096 pixels a side, one band, in processes of their own."""
    peaks = []
    for size in (4096, 16384):
        scene = folder / f"memory-{size}"
        scene.mkdir()
        for name, code in (("image", gdal.GDT_UInt16), ("labels", gdal.GDT_Byte)):
            options = ["TILED=YES", "SPARSE_OK=TRUE", "COMPRESS=ZSTD", "BIGTIFF=YES"]
            path = str(scene / f"{name}.tif")
            dataset = gdal.GetDriverByName("GTiff").Create(path, size, size, 1, code, options)
            dataset.SetGeoTransform((400000, 10, 0, 5800000, 0, -10))
            dataset.GetRasterBand(1).Fill(1)
            dataset = None
        command = [sys.executable, __file__, "--memory", str(scene)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
        peaks.append(int(answer.stdout) / 1024)  # kilobytes
        shutil.rmtree(scene)
    return Row.cost("split-memory", peaks[1], peaks[0], "MB peak", 0.85)


def bench_dataset(folder: Path) -> list[Row]:
    """Measure the dataset maker in seconds; the limit reads every chip once."""
    rows = []
    for count, size, tile in ((250, 4096, 128), (1000, 4096, 128), (10_000, 6464, 64)):
        scene = folder / f"{size}x10"
        if not scene.exists():
            write_scene(scene, size, 10, np.uint16)
        chips = folder / f"chips-{count}"
        split(scene, tile, chips)
        pairs = find_pairs(chips)
        for pair in pairs[count:]:
            pair.image.unlink()
            pair.label.unlink()
            pair.label.with_name(pair.label.name + ".aux.xml").unlink(missing_ok=True)
        (chips / "tiles.gpkg").unlink()
        ours, limit = [], []
        for _ in range(REPEATS):
            start = time.perf_counter()
            for pair in pairs[:count]:
                gdal.Open(str(pair.image)).ReadAsArray()
                gdal.Open(str(pair.label)).ReadAsArray()
            limit.append(time.perf_counter() - start)
            start = time.perf_counter()
            make_dataset(PrepareJob(data_folder=chips), Progress())
            ours.append(time.perf_counter() - start)
        rows.append(Row.cost(f"dataset-{count}", min(ours), min(limit), "s", 0.67))
        shutil.rmtree(chips)
    return rows


def bench_quality() -> Row:
    """Compare the stratified split with the best of many random ones, scored by the same distance."""
    random = np.random.default_rng(1)
    counts = (random.dirichlet(np.full(CLASSES, 0.2), 300) * 4096).astype(np.int64)
    percents = (80.0, 10.0, 10.0)
    best = min(imbalance(counts, split_random(len(counts), percents, seed)) for seed in range(PERMUTATIONS))
    ours = imbalance(counts, split_stratified(counts, percents, 42))
    return Row.cost("split-quality", 100 * ours, 100 * best, "% points", 1.0)


if __name__ == "__main__":
    main()
