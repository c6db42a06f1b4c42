# SPDX-License-Identifier: GPL-3.0-or-later
"""Take the pictures of the documentation anew, into ``docs/images``: the six steps, done for real in QGIS desktop.

Needs QGIS, Xvfb, Chromium, and ``.venv``; takes some minutes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageChops

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from specdeepmap.core.data.scene import make_scene  # noqa: E402
from specdeepmap.core.environment import own_python  # noqa: E402
from specdeepmap.core.environment.installation import Installation  # noqa: E402
from specdeepmap.core.environment.search import STAMP  # noqa: E402
from tests.walking import walk  # noqa: E402

TARGET = ROOT / "docs" / "images"
NAMES = (
    "toolbox",
    "dialog_rastersplitter",
    "dialog_datasetmaker",
    "dialog_trainer",
    "dialog_tensorboard",
    "dialog_tester",
    "dialog_mapper",
    "environment",
    "map",
    "confidence",
    "report_dataset",
    "report_training",
    "report_test",
    "tensorboard",
)
"""The pictures that the documentation shows."""

HOME = Path("/home/user")
"""Home of the user in the pictures, whose paths are seen in there."""

SHADE = 8
"""Steps of red, green and blue in the pictures, out of 255: half the bytes of all of them."""

MARGIN = 16


def main() -> int:
    """Take the pictures; 0 where all came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=1200, help="after that, QGIS is ended")
    options = parser.parse_args()
    missing = [program for program in ("qgis", "Xvfb", "chromium") if shutil.which(program) is None]
    if missing:
        sys.stderr.write(f"Pictures need {', '.join(missing)}, which this machine has not.\n")
        return 1
    start = time.monotonic()
    home = make_home()
    try:
        complaint = take(home, options.epochs, options.seconds)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if complaint:
        sys.stderr.write(f"{complaint}\n")
        return 1
    total = sum((TARGET / f"{name}.png").stat().st_size for name in NAMES) / 1e6
    sys.stdout.write(f"{len(NAMES)} pictures, {total:.1f} MB, in {TARGET}; {time.monotonic() - start:.0f} s\n")
    return 0


def make_home() -> Path:
    """Make the home of the user in the pictures, under another name where this one is taken."""
    try:
        HOME.mkdir()
    except OSError as error:
        other = Path(tempfile.mkdtemp(prefix="user-"))
        sys.stderr.write(f"{error}. The pictures will show {other}.\n")
        return other
    return HOME


def take(home: Path, epochs: int, seconds: float) -> str:
    """Walk through QGIS with a camera, and bring the pictures into the documentation.

    Returns:
        What went wrong; empty where nothing did. Then, and only then, have the old pictures been replaced.
    """
    pictures = home / ".pictures"
    pictures.mkdir()
    install(home)
    image, labels = make_scene(home / "demo" / "scene")
    plan = {
        "image": str(image),
        "labels": str(labels),
        "folder": str(home / "demo"),
        "seconds": seconds,
        "tile": 64,
        "training": {"EPOCHS": epochs},
        "pictures": str(pictures),
    }
    walked = walk(plan, home, seconds + 60)
    for name, seen in walked.found.get("steps", {}).items():
        sys.stdout.write(f"{name}: {seen.get('seconds')} s\n")
    error = walked.found.get("error", "It found nothing.")
    if walked.code or error:
        return f"The walk through QGIS ended with {walked.code}.\n{error}\n{walked.output}"
    absent = [name for name in NAMES if not (pictures / f"{name}.png").exists()]
    if absent:
        return f"These pictures were not taken: {', '.join(absent)}."
    TARGET.mkdir(exist_ok=True)
    for name in NAMES:
        finish(pictures / f"{name}.png", TARGET / f"{name}.png")
    return ""


def install(home: Path) -> None:
    """Put plugin and environment where users have them, as links."""
    data = home / ".local/share/QGIS/QGIS3"
    plugin = data / "profiles/default/python/plugins/specdeepmap"
    plugin.parent.mkdir(parents=True)
    plugin.symlink_to(ROOT / "specdeepmap")
    environment = data / "specdeepmap" / "environment"
    environment.mkdir(parents=True)
    for entry in (ROOT / ".venv").iterdir():
        if entry.name != STAMP:
            (environment / entry.name).symlink_to(entry)
    # What a real installation writes last: QGIS would offer to update an environment without it.
    stamp = Installation(environment, python=own_python(Path(sys.base_prefix)))._wanted()
    (environment / STAMP).write_text(stamp, encoding="utf-8")


def finish(source: Path, target: Path) -> None:
    """Cut off what is empty below a page, and leave out shades that nobody tells apart."""
    with Image.open(source) as opened:
        picture = opened.convert("RGB")
    empty = Image.new("RGB", picture.size, picture.getpixel((0, picture.height - 1)))
    box = ImageChops.difference(picture, empty).getbbox()
    if source.stem.startswith("report") and box is not None:
        picture = picture.crop((0, 0, picture.width, min(box[3] + MARGIN, picture.height)))
    few = picture.point(lambda value: min(round(value / SHADE) * SHADE, 255))
    few.save(target, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
