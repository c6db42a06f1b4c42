# SPDX-License-Identifier: GPL-3.0-or-later
"""A network that reads: it says what stands in the first band, so that every map can be known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from specdeepmap.core.jobs import PredictJob, PredictResult
from specdeepmap.core.learn.predictor import Predictor
from specdeepmap.core.tasks import predict
from tests.cards import bare_card
from tests.helpers import Array, Recorder
from tests.maps import CLASSES, NODATA

CARD = bare_card(bands=("Band 1", "Band 2"), backbone="none", classes=CLASSES)


class Reader:
    """Stands for a predictor: its class is the number in the first band, its confidence that in the second.

    Away from the middle of a tile it knows nothing, like a network that does not see enough; ``reach`` pixels from each
    border are wrong.
    """

    card = CARD
    device = torch.device("cpu")
    precision = "float32"
    reach = 0
    check_raster, check_count = Predictor.check_raster, Predictor.check_count
    batch_size = Predictor.batch_size

    def __init__(self, checkpoint: Path, device: str, precision: str = "auto", turns: bool = False) -> None:
        self.batches: list[int] = []

    def use(self, device: torch.device) -> None:
        pass

    def tile_size(self, width: int, height: int, overlap: int) -> tuple[int, int]:
        return self.card.chip_width, self.card.chip_height

    def classes(self, images: Sequence[Array]) -> Array:
        return self.probabilities(images).argmax(axis=1).astype(np.uint8)

    def both(self, images: Sequence[Array]) -> tuple[Array, Array]:
        chances = self.probabilities(images)
        return chances.argmax(axis=1).astype(np.uint8), chances

    def probabilities(self, images: Sequence[Array]) -> Array:
        self.batches.append(len(images))
        chances = []
        for image in images:
            index = CLASSES.encode(image[0].astype(np.uint8))
            index[index > 2] = 0  # no data
            if self.reach:
                known = np.zeros(index.shape, bool)
                known[self.reach : -self.reach, self.reach : -self.reach] = True
                index = np.where(known, index, (index + 1) % 3)
            sure = np.where(image[1] > 0, image[1] / 100, 0.9)
            chance = np.repeat(((1 - sure) / 2)[None], 3, axis=0)
            np.put_along_axis(chance, index[None], sure[None], axis=0)
            chances.append(chance.astype(np.float32))
        return np.stack(chances)


def invent(width: int, height: int, seed: int = 1) -> tuple[Array, Array]:
    """Give an image and the map that the reader makes of it; a few pixels have no data."""
    random = np.random.default_rng(seed)
    blocks = random.choice(np.array([2, 5, 9], np.int16), (height // 3 + 1, width // 3 + 1))
    wanted = np.kron(blocks, np.ones((3, 3), np.int16))[:height, :width]
    image = np.stack([wanted, random.integers(50, 100, (height, width), np.int16)])
    gone = random.random((height, width)) < 0.1
    image[:, gone] = NODATA
    return image, np.where(gone, 0, wanted).astype(np.uint8)


def run(folder: Path, image: Path, progress: Recorder | None = None, **settings: Any) -> PredictResult:
    job = PredictJob(
        image=str(image), checkpoint=folder / "none.ckpt", device="cpu", **{"output": folder / "map.tif", **settings}
    )
    return predict.predict_raster(job, progress or Recorder())
