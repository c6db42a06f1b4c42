# SPDX-License-Identifier: GPL-3.0-or-later
"""What the mapper's settings cost and bring: ``make bench-tiles IMAGE=… CHECKPOINT=… LABELS=…``.

Maps an image with each setting and prints the seconds, how many pixels the network computes per pixel of the map, the
scores against labels that the model was not trained on, and the share of the pixels that differ from a map made in a
single tile.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from osgeo import gdal

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from specdeepmap.core.data.tiling import Window  # noqa: E402
from specdeepmap.core.jobs import PredictJob, PredictResult  # noqa: E402
from specdeepmap.core.learn.predictor import Predictor  # noqa: E402
from specdeepmap.core.progress import Progress  # noqa: E402
from specdeepmap.core.tasks import perform  # noqa: E402
from specdeepmap.core.tasks.predict import plan_of  # noqa: E402

gdal.UseExceptions()

SETTINGS: dict[str, dict[str, Any]] = {
    "automatic (default)": {},
    "tile 64": {"tile_size": 64},
    "tile 128": {"tile_size": 128},
    "tile 256": {"tile_size": 256},
    "tile 512": {"tile_size": 512},
    "overlap 0": {"overlap": 0.0},
    "overlap 25": {"overlap": 25.0},
    "tile 128, overlap 0": {"tile_size": 128, "overlap": 0.0},
    "tile 128, overlap 25": {"tile_size": 128, "overlap": 25.0},
    "blend": {"blend": True},
    "TTA": {"tta": True},
    "float32": {"precision": "float32"},
}


def main() -> None:
    """Map with every setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("labels", type=Path, help="label raster that the model was not trained on")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="specdeepmap-bench-") as name:
        raster = gdal.Open(str(options.image))
        longest = max(raster.RasterXSize, raster.RasterYSize)
        whole = run(options, Path(name) / "whole.tif", tile_size=-(-longest // 32) * 32 + 64, overlap=1.0)
        sys.stdout.write(f"{'setting':<24}{'seconds':>9}{'computed':>10}{'mean IoU':>10}{'OA':>8}{'differs':>10}\n")
        report("one tile", whole, whole)
        for title, settings in SETTINGS.items():
            report(title, run(options, Path(name) / "map.tif", **settings), whole)


@dataclass(frozen=True)
class Run:
    """A map, and what it cost: seconds, and pixels that the network computed per pixel of the map."""

    seconds: float
    computed: float
    result: PredictResult
    values: np.ndarray


def run(options: argparse.Namespace, target: Path, **settings: Any) -> Run:
    """Map once."""
    job = PredictJob(
        image=str(options.image),
        checkpoint=options.checkpoint,
        ground_truth=str(options.labels),
        output=target,
        **settings,
    )
    started = time.perf_counter()
    result = perform(job, Progress())
    seconds = time.perf_counter() - started
    if not isinstance(result, PredictResult):
        raise TypeError(type(result).__name__)
    values = gdal.Open(str(target)).ReadAsArray()
    return Run(seconds, computed(job, values.shape[1], values.shape[0]), result, values)


def computed(job: PredictJob, width: int, height: int) -> float:
    """Give the pixels that the network computes per pixel of a map of this size."""
    plan = plan_of(job, Window(0, 0, width, height), Predictor(job.checkpoint, job.device))
    pixels = sum(map(len, plan.rows)) * plan.tile[0] * plan.tile[1]
    return (8 if job.tta else 1) * pixels / (width * height)


def report(title: str, made: Run, whole: Run) -> None:
    """Print a line."""
    differs = 100 * (made.values != whole.values)[whole.values > 0].mean()
    scores = f"{made.result.mean_iou:>10.4f}{made.result.overall_accuracy:>8.4f}"
    sys.stdout.write(f"{title:<24}{made.seconds:>9.1f}{made.computed:>10.2f}{scores}{differs:>9.2f} %\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
