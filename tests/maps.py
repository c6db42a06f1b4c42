# SPDX-License-Identifier: GPL-3.0-or-later
"""Models with random weights and images to map, for tests of the mapper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from specdeepmap.core.data.classes import ClassEntry, ClassTable
from specdeepmap.core.learn.architectures import build_network
from specdeepmap.core.learn.checkpoint import KEY
from tests.cards import bare_card
from tests.helpers import Array, write_raster

NODATA = -99
CLASSES = ClassTable(
    entries=(ClassEntry(2, "water", "#0000ff"), ClassEntry(5, "Wald", "#00ff00"), ClassEntry(9, "Äcker", "#ff0000"))
)


def write_model(path: Path, architecture: str = "identity", chip: int = 16, backbone: str = "", **card: Any) -> Path:
    torch.manual_seed(0)
    state = build_network(architecture, backbone, 3, 3).state_dict()
    known = {"bands": ("red", "green", "blue"), "wavelengths_nm": (665.0, 560.0, 490.0), "classes": CLASSES}
    known |= {"architecture": architecture, "backbone": backbone, "date": "2026-01-01T00:00:00+00:00"}
    made = bare_card(chip=chip, **{**known, **card})
    torch.save({KEY: made.to_json(), "state_dict": {f"network.{name}": part for name, part in state.items()}}, path)
    return path


def invent(width: int, height: int, missing: float = 0.1, seed: int = 1) -> tuple[Array, Array]:
    """Give an image of three bands and the class values that the identity makes of it."""
    random = np.random.default_rng(seed)
    index = np.kron(random.integers(0, 3, (height // 3 + 1, width // 3 + 1)), np.ones((3, 3), int))[:height, :width]
    image = random.integers(0, 40, (3, height, width)).astype(np.int16)
    np.put_along_axis(image, index[None], 50, axis=0)
    gone = random.random((height, width)) < missing
    image[:, gone] = NODATA
    return image, np.where(gone, 0, np.array(CLASSES.values)[index]).astype(np.uint8)


def write_image(path: Path, values: Array) -> Path:
    return write_raster(path, values, nodata=NODATA, names=("red", "green", "blue")[: len(values)])
