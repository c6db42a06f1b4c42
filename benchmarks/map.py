# SPDX-License-Identifier: GPL-3.0-or-later
"""Speed, memory and quality of mapping: ``make bench-map``, and ``make bench-tiles`` for the sheet of settings.

- ``map-s2-…`` and ``map-hyper-64``: megapixels per second of the whole job, from the opened image to the closed map,
  against the bare forward pass of the same tiles in memory, in the best of some batch sizes, with the same precision
  and layout. Pixels are those that the network computes, overlaps included, in both. The two take turns.
- ``map-memory``: peak memory of a mapping process on 2048 × 2048 pixels against that on 32768 × 32768, with a network
  of one layer.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from osgeo import gdal

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from table import Row, peak_memory, show  # noqa: E402

from specdeepmap.core.data.classes import ClassTable  # noqa: E402
from specdeepmap.core.data.normalization import Normalization  # noqa: E402
from specdeepmap.core.data.tiling import Window  # noqa: E402
from specdeepmap.core.jobs import PredictJob  # noqa: E402
from specdeepmap.core.learn.architectures import ARCHITECTURES, Architecture, build_network  # noqa: E402
from specdeepmap.core.learn.checkpoint import FORMAT, KEY, ModelCard, load_checkpoint  # noqa: E402
from specdeepmap.core.learn.hardware import Hardware  # noqa: E402
from specdeepmap.core.learn.network import Network  # noqa: E402
from specdeepmap.core.learn.predictor import Predictor  # noqa: E402
from specdeepmap.core.progress import Progress  # noqa: E402
from specdeepmap.core.tasks import perform  # noqa: E402
from specdeepmap.core.tasks.mapping import Plan  # noqa: E402

gdal.UseExceptions()

CLASSES = 5
REPEATS = 3
BATCHES = (1, 2, 4, 8, 16, 32)
SIZES = (2048, 8192, 32768)


@dataclass(frozen=True)
class Case:
    """A raster to map: its size and bands, the chips the model was trained on, and the tile size (0 = automatic)."""

    name: str
    size: int
    bands: int
    chip: int
    tile: int


CASES = (
    Case("map-s2-128", 4096, 10, 128, 128),
    Case("map-s2-256", 4096, 10, 128, 256),
    Case("map-s2-512", 4096, 10, 128, 512),
    Case("map-s2-auto", 4096, 10, 128, 0),
    Case("map-hyper-64", 1024, 200, 64, 0),
)


def main() -> None:
    """Run all measurements, or one part of them for the parent, which asks for its peak memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", type=Path, help="map this raster alone and print the peak memory")
    parser.add_argument("--only", default="", help="only measurements whose name contains this")
    options = parser.parse_args()
    if options.memory:
        ARCHITECTURES["one layer"] = Architecture("One layer", "", build=_one_layer, stride=1, local=True)
        gdal.SetCacheMax(32 * 2**20)  # as in the plugin's own process
        run(options.memory, options.memory.with_name("one_layer.ckpt"), 0)
        sys.stdout.write(str(peak_memory()))
        return
    gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory(prefix="specdeepmap-bench-") as name:
        known: dict[Case, Row] = {}
        goal = 0.8 if gpu else 0.9
        rows = [bench_speed(case, Path(name), goal, known) for case in CASES if options.only in case.name]
        if options.only in "map-memory":
            rows.append(bench_memory(Path(name)))
    show(rows, "map-gpu" if gpu else "map")


def _one_layer(bands: int, classes: int) -> torch.nn.Module:
    return torch.nn.Conv2d(bands, classes, 1)


def write_scene(path: Path, size: int, bands: int) -> Path:
    """Write a tiled raster with texture, repeated, so that it takes seconds."""
    if path.exists():
        return path
    random = np.random.default_rng(0)
    block = random.normal(1500, 300, (bands, 256, 256)).astype(np.uint16)
    options = ["TILED=YES", "BLOCKXSIZE=256", "BLOCKYSIZE=256", "BIGTIFF=IF_SAFER"]
    target = gdal.GetDriverByName("GTiff").Create(str(path), size, size, bands, gdal.GDT_UInt16, options)
    for y in range(0, size, 256):
        target.WriteArray(np.tile(block, (1, 1, -(-size // 256)))[..., :size], 0, y)
    target = None
    return path


def write_model(path: Path, bands: int, chip: int, architecture: str = "unet", backbone: str = "resnet18") -> Path:
    """Write a checkpoint with random weights."""
    if path.exists():
        return path
    torch.manual_seed(0)
    network = build_network(architecture, backbone, bands, CLASSES)
    card = ModelCard(
        format=FORMAT,
        architecture=architecture,
        backbone=backbone,
        bands=tuple(f"Band {number + 1}" for number in range(bands)),
        wavelengths_nm=(None,) * bands,
        normalization=Normalization(scale=1.0, mean=(1500.0,) * bands, std=(300.0,) * bands, bad=(False,) * bands),
        classes=ClassTable.of(range(1, CLASSES + 1)),
        chip_width=chip,
        chip_height=chip,
        settings={},
        metrics={},
        fingerprint="",
        trained_on=(),
        versions={},
        date="",
    )
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({KEY: card.to_json(), "state_dict": state}, path)
    return path


def run(image: Path, model: Path, tile: int) -> float:
    """Map a raster and give the seconds."""
    with tempfile.TemporaryDirectory(prefix="specdeepmap-bench-", dir=image.parent) as name:
        job = PredictJob(image=str(image), checkpoint=model, tile_size=tile, output=Path(name) / "map.tif")
        started = time.perf_counter()
        perform(job, Progress())
        return time.perf_counter() - started


def bench_speed(case: Case, folder: Path, goal: float, known: dict[Case, Row]) -> Row:
    """Compare a mapping with the bare forward pass; medians of turns.

    Args:
        case: to measure.
        folder: for its files.
        goal: lower bound of the ratio.
        known: what was measured by the tile size that came of it; an automatic one may be among it. It is added to.
    """
    image = write_scene(folder / f"{case.size}x{case.bands}.tif", case.size, case.bands)
    model = write_model(folder / f"{case.bands}x{case.chip}.ckpt", case.bands, case.chip)
    predictor = Predictor(model, "auto")
    card, state = load_checkpoint(model)
    bare = build_network(card.architecture, card.backbone, case.bands, CLASSES)
    bare.load_state_dict(state)
    bare.eval().to(predictor.device).to(memory_format=torch.channels_last)
    overlap = round((case.tile or case.chip) * 0.1)
    tile = (case.tile, case.tile) if case.tile else predictor.tile_size(case.size, case.size, overlap)
    settled = replace(case, name="", tile=tile[0])
    if settled in known:
        sys.stdout.write(f"{case.name}: tiles of {tile[0]}, as {known[settled].name}\n")
        return replace(known[settled], name=case.name)
    plan = Plan(Window(0, 0, case.size, case.size), tile, overlap, 1)
    pixels = sum(map(len, plan.rows)) * tile[0] * tile[1] / 1e6
    best = max(BATCHES, key=lambda batch: bare_rate(case, bare, predictor, tile, batch, 2))
    ours, limit = [], []
    for _ in range(REPEATS):
        limit.append(bare_rate(case, bare, predictor, tile, best, 8))
        ours.append(pixels / run(image, model, case.tile))
    rate = statistics.median(ours)
    kept = case.size**2 / 1e6 / pixels
    sys.stdout.write(
        f"{case.name}: tiles of {tile[0]}, batch {predictor.batch_size(*tile)} (best bare: {best}), "
        f"{rate * kept:.2f} MP/s of map\n"
    )
    known[settled] = Row.rate(case.name, rate, statistics.median(limit), "MP/s", goal)
    return known[settled]


def bare_rate(
    case: Case, network: Network, predictor: Predictor, tile: tuple[int, int], batch: int, steps: int
) -> float:
    """Run the network on a random batch in memory and give megapixels per second; 0 for one that is too large."""
    pixels = batch * tile[0] * tile[1]
    most = 2**24 if predictor.device.type == "cuda" else 2**19
    if batch > 1 and (pixels > most or pixels * case.bands > 2**26):
        return 0.0
    images = torch.randn(batch, case.bands, tile[1], tile[0]).to(predictor.device)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), Hardware(predictor.device, predictor.precision).autocast():
        network(images)
        _settle(predictor)
        times = []
        for _ in range(steps):
            started = time.perf_counter()
            network(images)
            _settle(predictor)
            times.append(time.perf_counter() - started)
    return batch * tile[0] * tile[1] / 1e6 / statistics.median(times)


def _settle(predictor: Predictor) -> None:
    if predictor.device.type == "cuda":
        torch.cuda.synchronize()


def bench_memory(folder: Path) -> Row:
    """Compare peak memories of small and large maps, in processes of their own."""
    ARCHITECTURES["one layer"] = Architecture("One layer", "", build=_one_layer, stride=1, local=True)
    peaks = []
    for size in SIZES:
        place = folder / str(size)
        place.mkdir()
        image = place / "image.tif"
        options = ["TILED=YES", "SPARSE_OK=TRUE", "BIGTIFF=IF_SAFER"]
        gdal.GetDriverByName("GTiff").Create(str(image), size, size, 4, gdal.GDT_UInt16, options)
        write_model(place / "one_layer.ckpt", 4, 128, "one layer", "")
        command = [sys.executable, __file__, "--memory", str(image)]
        started = time.perf_counter()
        answer = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
        peaks.append(int(answer.stdout.splitlines()[-1]) / 1024)  # kilobytes
        seconds = time.perf_counter() - started
        sys.stdout.write(f"map-memory: {size} x {size}: {peaks[-1]:.0f} MB, {seconds:.0f} s\n")
    return Row.cost("map-memory", max(peaks), min(peaks), "MB peak", 1 / 1.15)


if __name__ == "__main__":
    main()
