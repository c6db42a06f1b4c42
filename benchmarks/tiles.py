# SPDX-License-Identifier: GPL-3.0-or-later
"""What the mapper's settings cost and bring: ``make bench-tiles IMAGE=… CHECKPOINT=… LABELS=…``.

Maps an image with each setting and prints the seconds, the scores against labels that the model was not trained on, and
the share of the pixels that differ from a map made in a single tile.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from osgeo import gdal

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from specdeepmap.core.jobs import PredictJob, PredictResult  # noqa: E402
from specdeepmap.core.progress import Progress  # noqa: E402
from specdeepmap.core.tasks import perform  # noqa: E402

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
        sys.stdout.write(f"{'setting':<24}{'seconds':>9}{'mean IoU':>10}{'OA':>8}{'differs':>10}\n")
        report("one tile", whole, whole)
        for title, settings in SETTINGS.items():
            report(title, run(options, Path(name) / "map.tif", **settings), whole)


Run = tuple[float, PredictResult, np.ndarray]


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
    return seconds, result, gdal.Open(str(target)).ReadAsArray()


def report(title: str, made: Run, whole: Run) -> None:
    """Print a line."""
    seconds, result, values = made
    differs = 100 * (values != whole[2])[whole[2] > 0].mean()
    scores = f"{result.mean_iou:>10.4f}{result.overall_accuracy:>8.4f}"
    sys.stdout.write(f"{title:<24}{seconds:>9.1f}{scores}{differs:>9.2f} %\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
