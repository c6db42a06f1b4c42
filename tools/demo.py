# SPDX-License-Identifier: GPL-3.0-or-later
"""Run all six steps through ``qgis_process`` and show what came out.

Without rasters of the user's own, a Sentinel-2-like scene is made first.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from specdeepmap.core.data.classes import UNLABELLED, ClassTable  # noqa: E402
from specdeepmap.core.data.dataset import read_summary  # noqa: E402
from specdeepmap.core.data.labels import LabelRaster  # noqa: E402
from specdeepmap.core.data.raster import Raster  # noqa: E402
from specdeepmap.core.data.scene import make_scene  # noqa: E402
from specdeepmap.core.data.tiling import Window  # noqa: E402
from specdeepmap.core.data.vectors import burn_vectors  # noqa: E402
from specdeepmap.core.data.vectorsource import is_vector  # noqa: E402
from specdeepmap.core.errors import SpecDeepMapError  # noqa: E402
from specdeepmap.core.progress import Progress  # noqa: E402

RGB_NM = (665.0, 560.0, 490.0)
CHIPS_WANTED = 40
SHOWN = 1024  # pixels at most on a side of the picture's panels


def main() -> int:
    """Run the demo; 0 where every step did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where everything is written")
    parser.add_argument("--image", default="", help="an image of your own")
    parser.add_argument("--labels", default="", help="its labels")
    parser.add_argument("--class-field", default="", help="field with the class, where the labels are vectors")
    parser.add_argument("--sensor", default="sentinel2", help="of the scene that is made: sentinel2 or enmap")
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    if bool(options.image) != bool(options.labels):
        sys.stderr.write("Give both IMAGE and LABELS, or none.\n")
        return 2
    folder = options.folder.resolve()
    start = time.monotonic()
    try:
        if options.image:
            image, labels = options.image, options.labels
        else:
            say("Making a scene")
            image, labels = map(str, make_scene(folder / "scene", options.sensor))
        run_steps(image, labels, options.class_field, folder, options.epochs)
        picture = draw(image, labels, options.class_field, folder)
    except (SpecDeepMapError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"\nThe demo stopped: {error}\n")
        return 1
    show_scores(folder / "scores.csv")
    say(f"Map: {folder / 'map.tif'}\nPicture: {picture}\nDone in {time.monotonic() - start:.0f} s")
    return 0


def run_steps(image: str, labels: str, class_field: str, folder: Path, epochs: int) -> None:
    """Run splitter, maker, trainer, TensorBoard, tester and mapper."""
    raster = Raster.open(image)
    side = chip_size(raster.grid.width, raster.grid.height)
    data = folder / "dataset"
    sides = (f"TILE_SIZE_X={side}", f"TILE_SIZE_Y={side}", f"STEP_X={side}", f"STEP_Y={side}")
    coverage = "MIN_LABEL_COVERAGE=1"  # labels of one's own are often sparse
    inputs = [f"IMAGE={image}", f"LABELS={labels}", *([f"CLASS_FIELD={class_field}"] if class_field else [])]
    step("rastersplitter", *inputs, *sides, coverage, f"OUTPUT_FOLDER={data}")
    shares = ("TRAIN_PERCENT=60", "VALIDATION_PERCENT=20", "TEST_PERCENT=20")
    step("datasetmaker", f"DATA_FOLDER={data}", *shares)
    places = (f"LOG_FOLDER={folder / 'logs'}", f"MODEL_FOLDER={folder / 'models'}")
    trained = step("trainer", f"DATASET_FOLDER={data}", f"EPOCHS={epochs}", *places)
    step("tensorboard", f"LOG_FOLDER={folder / 'logs'}", "DURATION=1", "OPEN_BROWSER=false")
    checkpoint = f"CHECKPOINT={trained['BEST_CHECKPOINT']}"
    tests = f"TEST_CSV={data / 'test_files.csv'}"
    step("tester", tests, checkpoint, f"SCORES_CSV={folder / 'scores.csv'}")
    layers = (
        f"OUTPUT={folder / 'map.tif'}",
        f"CONFIDENCE={folder / 'confidence.tif'}",
        f"VECTOR={folder / 'map.gpkg'}",
    )
    step("mapper", f"IMAGE={image}", checkpoint, *layers)


def chip_size(width: int, height: int) -> int:
    """Give the largest usual chip size that cuts the image into enough chips; 32 for small ones."""
    sizes = (256, 128, 64)
    return next((side for side in sizes if (width // side) * (height // side) >= CHIPS_WANTED), 32)


def step(algorithm: str, *arguments: str) -> dict[str, str]:
    """Run an algorithm through ``qgis_process``, showing what it says, and give its outputs.

    Raises:
        CalledProcessError: if it failed.
    """
    say(f"specdeepmap:{algorithm} {' '.join(arguments)}")
    command = [str(ROOT / "tools" / "qgis_process"), "run", f"specdeepmap:{algorithm}", "--", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603
    shown = b""
    if process.stdout is not None:
        while part := os.read(process.stdout.fileno(), 4096):
            shown += part
            sys.stdout.buffer.write(part)
            sys.stdout.flush()
    if process.wait() != 0:
        raise subprocess.CalledProcessError(process.returncode, f"specdeepmap:{algorithm}")
    results = shown.decode().rpartition("Results\n")[2]
    pairs = (line.split(":\t", 1) for line in results.splitlines() if ":\t" in line)
    return {name: value.strip() for name, value in pairs}


def show_scores(path: Path) -> None:
    """Print the score table."""
    say("Scores on the test chips, which share no ground with the training chips")
    with path.open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    for row in rows[1:-1]:
        sys.stdout.write(
            f"{row[0]:>4} {row[2]:<24} IoU {float(row[1]):.3f}   F1 {float(row[5]):.3f}   {row[6]:>8} px\n"
        )
    sys.stdout.write(f"     {'Mean IoU':<24}     {mean_iou(path):.3f}\n")


def mean_iou(path: Path) -> float:
    """Read the mean IoU of a score table."""
    with path.open(encoding="utf-8") as file:
        return float(list(csv.reader(file))[-1][1])


def draw(image: str, labels: str, class_field: str, folder: Path) -> Path:
    """Draw image, reference and map side by side."""
    raster = Raster.open(image)
    classes, _, _ = read_summary(folder / "dataset" / "Summary_train_val.csv")
    if is_vector(labels):
        burned = folder / "labels.tif"
        burn_vectors(labels, class_field, raster.grid, burned, None, Progress())
        labels = str(burned)
    reference = thinned(LabelRaster(labels, raster.grid, Progress()).read, raster)
    mapped = Raster.open(folder / "map.tif")
    predicted = thinned(lambda window: mapped.read(window)[0][0], raster)
    figure, axes = plt.subplots(1, 3, figsize=(16, 6.2))
    axes[0].imshow(true_color(raster))
    lookup = ListedColormap([color(classes, value) for value in range(256)])
    for axis, values in ((axes[1], reference), (axes[2], predicted)):
        axis.imshow(values, cmap=lookup, vmin=0, vmax=255, interpolation="nearest")
    map_title = f"Map (mean IoU on the test chips {mean_iou(folder / 'scores.csv'):.2f})"
    for axis, title in zip(axes, ("Image", "Reference", map_title), strict=True):
        axis.set_title(title)
        axis.set_axis_off()
    patches = [Patch(color=entry.color, label=entry.name) for entry in classes.entries]
    figure.legend(handles=patches, loc="lower center", ncol=max(len(patches), 1), frameon=False)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.94, bottom=0.08, wspace=0.03)
    path = folder / "demo.png"
    figure.savefig(path, dpi=110)
    return path


def thinned(read: Callable[[Window], NDArray[Any]], raster: Raster) -> NDArray[Any]:
    """Read what fits into a panel, row by row: a whole scene may not fit into the memory."""
    width, height = raster.grid.width, raster.grid.height
    thin = max(-(-max(width, height) // SHOWN), 1)
    return np.concatenate([read(Window(0, y, width, 1))[..., ::thin] for y in range(0, height, thin)], axis=-2)


def true_color(raster: Raster) -> NDArray[np.float64]:
    """Give red, green, blue for the eye, 0 to 1; the first bands where wavelengths are not known."""
    known = [(band.wavelength_nm, index) for index, band in enumerate(raster.bands) if band.wavelength_nm]
    if known:
        chosen = [min(known, key=lambda pair, nm=nm: abs(pair[0] - nm))[1] for nm in RGB_NM]
    else:
        chosen = [min(index, len(raster.bands) - 1) for index in (2, 1, 0)]

    def read(window: Window) -> NDArray[np.float64]:
        values, valid = raster.read(window)
        return np.where(valid[chosen], values[chosen], np.nan)

    bands: list[NDArray[np.float64]] = []
    for band in thinned(read, raster):
        there = np.isfinite(band)
        low, high = np.percentile(band[there], (2, 98)) if there.any() else (0, 1)
        bands.append(np.where(there, np.clip((band - low) / max(high - low, 1e-9), 0, 1), 0))
    return np.dstack(bands)


def color(classes: ClassTable, value: int) -> str:
    """Give the colour of a class value; white for none."""
    known = {entry.value: entry.color for entry in classes.entries}
    return known.get(value, "#ffffff" if value == UNLABELLED else "#000000")


def say(text: str) -> None:
    """Print a heading."""
    sys.stdout.write(f"\n== {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
