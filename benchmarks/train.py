# SPDX-License-Identifier: GPL-3.0-or-later
"""Speed and memory of training, as ratios to the bare step measured in the same run: ``make bench-train``.

- ``train-…``: chips per second of the trainer, after its first epoch, against the bare step of the same network on
  random tensors in memory, with the same batch, precision and memory layout. Both take turns.
- ``train-layout``: the bare step with the trainer's layout and precision against plain eager float32.
- ``train-memory``: peak memory of the bare step in a process of its own, plus the decoded chips that the trainer keeps
  in memory, against the peak of a process that trains.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from osgeo import gdal
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from table import Row, peak_memory, show  # noqa: E402

from specdeepmap.core.jobs import PrepareJob, TrainJob  # noqa: E402
from specdeepmap.core.learn.architectures import build_network  # noqa: E402
from specdeepmap.core.learn.hardware import Hardware, choose_device, choose_precision, reuse_memory  # noqa: E402
from specdeepmap.core.learn.options import OPTIMIZERS  # noqa: E402
from specdeepmap.core.progress import Progress  # noqa: E402
from specdeepmap.core.tasks import perform  # noqa: E402

gdal.UseExceptions()

CLASSES = 5
REPEATS = 3
EPOCHS = 3


@dataclass(frozen=True)
class Case:
    """Chips to train on: their size, bands and number, the batch size and the goal."""

    name: str
    size: int
    bands: int
    chips: int
    batch: int
    goal: float


ON_CPU = (Case("train-128x10", 128, 10, 96, 16, 0.95), Case("train-64x200", 64, 200, 96, 16, 0.95))
ON_GPU = (
    Case("train-128x10", 128, 10, 4096, 16, 0.90),
    Case("train-64x200", 64, 200, 4096, 16, 0.90),
    Case("train-256x13", 256, 13, 20_000, 64, 0.90),
)
ARCHITECTURE, BACKBONE = "unet", "resnet18"


def main() -> None:
    """Run all measurements, or one part of them for the parent, which asks for its peak memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", choices=("bare", "train"), help="run this alone and print the peak memory")
    parser.add_argument("--folder", type=Path, help="dataset of the memory measurement")
    options = parser.parse_args()
    reuse_memory()  # as the trainer does: both have the same conditions
    gpu = torch.cuda.is_available()
    if options.memory:
        case = (ON_GPU if gpu else ON_CPU)[0]
        if options.memory == "bare":
            bare_rate(case, hardware(), 3)
        else:
            train_rate(case, options.folder)
        sys.stdout.write(str(peak_memory()))
        return
    with tempfile.TemporaryDirectory(prefix="specdeepmap-bench-") as name:
        folder = Path(name)
        rows = [bench_training(case, folder) for case in (ON_GPU if gpu else ON_CPU)]
        rows.append(bench_layout((ON_GPU if gpu else ON_CPU)[0]))
        rows.append(bench_memory((ON_GPU if gpu else ON_CPU)[0], folder))
    show(rows, "train-gpu" if gpu else "train")


def hardware() -> Hardware:
    """Give what the trainer takes by default."""
    device = choose_device("auto")
    return Hardware(device, choose_precision("auto", device))


def write_dataset(case: Case, folder: Path) -> Path:
    """Write chips with texture, all of them for training."""
    if folder.exists():
        return folder
    random = np.random.default_rng(0)
    driver = gdal.GetDriverByName("GTiff")
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number in range(case.chips):
        land = np.kron(random.integers(0, CLASSES, (case.size // 8, case.size // 8)), np.ones((8, 8), np.int64))
        values = 500 + 300 * land[None] * (1 + 0.3 * np.sin(np.arange(case.bands)))[:, None, None]
        values += random.normal(0, 40, values.shape)
        for kind, bands, code in (("images", case.bands, gdal.GDT_Int16), ("labels", 1, gdal.GDT_Byte)):
            path = str(folder / kind / f"chip_{number:05d}.tif")
            target = driver.Create(path, case.size, case.size, bands, code, ["COMPRESS=ZSTD", "ZSTD_LEVEL=1"])
            target.WriteArray(values.astype(np.int16) if kind == "images" else (land + 1).astype(np.uint8))
            target = None
    shares = {"train_percent": 100.0, "validation_percent": 0.0, "test_percent": 0.0}
    perform(PrepareJob(data_folder=folder, split="random", **shares), Progress())
    return folder


def train_rate(case: Case, dataset: Path) -> float:
    """Train and give chips per second, the first epoch, which reads the chips, left out."""
    with tempfile.TemporaryDirectory(prefix="specdeepmap-bench-") as name:
        job = TrainJob(
            dataset_folder=dataset,
            architecture=ARCHITECTURE,
            backbone=BACKBONE,
            epochs=EPOCHS,
            batch_size=case.batch,
            model_folder=Path(name) / "models",
            log_folder=Path(name) / "logs",
        )
        perform(job, Progress())
        with (Path(name) / "models" / "history.csv").open(encoding="utf-8") as file:
            seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    return case.chips * (EPOCHS - 1) / sum(seconds[1:])


def bare_rate(case: Case, on: Hardware, steps: int, plain: bool = False) -> float:
    """Step the network on random tensors and give chips per second, the first steps left out."""
    torch.manual_seed(0)
    layout = torch.contiguous_format if plain else torch.channels_last
    network = build_network(ARCHITECTURE, BACKBONE, case.bands, CLASSES).to(on.device, memory_format=layout).train()
    optimizer = OPTIMIZERS["adamw"].build(network.parameters(), 1e-3, 0.01)
    images = torch.randn(case.batch, case.bands, case.size, case.size, device=on.device).contiguous(
        memory_format=layout
    )
    labels = torch.randint(CLASSES, (case.batch, case.size, case.size), device=on.device)
    started = 0.0
    for step in range(steps + 2):
        if step == 2:
            _settle(on)
            started = time.perf_counter()
        with Hardware(on.device, "float32" if plain else on.precision).autocast():
            logits = network(images)
        loss = functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    _settle(on)
    return case.batch * steps / (time.perf_counter() - started)


def _settle(on: Hardware) -> None:
    if on.device.type == "cuda":
        torch.cuda.synchronize()


def bench_training(case: Case, folder: Path) -> Row:
    """Compare training with the bare step; medians of turns."""
    dataset = write_dataset(case, folder / case.name)
    ours, limit = [], []
    for _ in range(REPEATS):
        limit.append(bare_rate(case, hardware(), case.chips // case.batch))
        ours.append(train_rate(case, dataset))
    return Row.rate(case.name, statistics.median(ours), statistics.median(limit), "chips/s", case.goal)


def bench_layout(case: Case) -> Row:
    """Compare the layout and precision that the trainer takes with plain float32; medians of turns."""
    ours, plain = [], []
    for _ in range(REPEATS):
        ours.append(bare_rate(case, hardware(), 5))
        plain.append(bare_rate(case, hardware(), 5, plain=True))
    return Row.rate("train-layout", statistics.median(ours), statistics.median(plain), "chips/s", 1.5)


def bench_memory(case: Case, folder: Path) -> Row:
    """Compare peak memories, in processes of their own."""
    dataset = write_dataset(case, folder / case.name)
    peaks = {}
    for kind in ("bare", "train"):
        command = [sys.executable, __file__, "--memory", kind, "--folder", str(dataset)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
        peaks[kind] = int(answer.stdout.splitlines()[-1]) / 1024  # kilobytes
    cache = case.chips * case.size**2 * (4 * case.bands + 1) / 2**20
    return Row.cost("train-memory", peaks["train"], peaks["bare"] + cache, "MB peak", 1.0)


if __name__ == "__main__":
    main()
