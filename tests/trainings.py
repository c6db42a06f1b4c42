# SPDX-License-Identifier: GPL-3.0-or-later
"""Small trainings in memory: no file is read, and the networks have some thousand parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from specdeepmap.core.data.classes import IGNORE_INDEX, ClassTable
from specdeepmap.core.learn.checkpoint import ModelCard
from specdeepmap.core.learn.criteria import Criterion, CrossEntropy
from specdeepmap.core.learn.fitting import Feed, fit
from specdeepmap.core.learn.hardware import Hardware
from specdeepmap.core.learn.keeping import Writer
from specdeepmap.core.learn.network import Network
from specdeepmap.core.learn.segmenter import Recipe, Segmenter
from tests.cards import bare_card

BANDS, CLASSES = 2, 3

PROCESSOR = Hardware(torch.device("cpu"), "float32")

Samples = list[tuple[Tensor, Tensor]]
"""Stands for ``Chips``."""


def model_card(bands: int = BANDS, classes: int = CLASSES) -> ModelCard:
    """Describe a model of classes 1, 2, … that wants its images as they are."""
    names = tuple(f"B{number}" for number in range(1, bands + 1))
    return bare_card(bands=names, chip=8, architecture="spectral", classes=ClassTable.of(range(1, classes + 1)))


def samples(count: int, seed: int = 1, size: int = 8, unlabelled: float = 0.1, bands: int = BANDS) -> Samples:
    """Make chips whose classes can be told apart, though not easily."""
    random = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        labels = torch.randint(CLASSES, (size, size), generator=random)
        shifts = torch.stack([labels - 1.0, (labels == 1).float(), *[labels * 0.0] * (bands - 2)])
        image = shifts + 0.7 * torch.randn(bands, size, size, generator=random)
        hidden = torch.rand(size, size, generator=random) < unlabelled
        made.append((image, labels.masked_fill(hidden, IGNORE_INDEX).to(torch.uint8)))
    return made


def small_network(seed: int = 3, bands: int = BANDS) -> Network:
    """Make a network with dropout and batch normalisation."""
    torch.manual_seed(seed)
    body = (nn.Conv2d(bands, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout2d(0.1))
    return Network(nn.Sequential(*body, nn.Conv2d(16, CLASSES, 1)), 1)


def small_segmenter(
    network: Network | None = None,
    criterion: Criterion | None = None,
    augment: Any = None,
    card: ModelCard | None = None,
    **recipe: Any,
) -> Segmenter:
    """Put a segmenter together; ``recipe`` changes single values of a plain one."""
    usual = {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.01, "scheduler": "constant", "seed": 7}
    chosen = Recipe(**{**usual, **recipe})
    return Segmenter(
        small_network() if network is None else network,
        card or model_card(),
        criterion or CrossEntropy(),
        chosen,
        augment,
    )


def fit_samples(
    segmenter: Segmenter,
    folder: Path,
    train: Samples,
    validation: Samples = (),  # type: ignore[assignment]
    epochs: int = 1,
    batch_size: int = 4,
    clip: float = 0.0,
    callbacks: Sequence[lightning.Callback] = (),
    writer: Writer | None = None,
) -> Segmenter:
    """Train on samples, as the trainer does on chips."""
    feed = Feed(train, list(validation), batch_size, 7, threads=0, pin=False)  # type: ignore[arg-type]
    fit(segmenter, feed, PROCESSOR, epochs, clip, bool(validation), folder / "logs", writer or Writer(), callbacks)
    return segmenter


def state(network: torch.nn.Module) -> dict[str, Tensor]:
    """Copy all parameters and buffers."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def changed(before: dict[str, Tensor], network: torch.nn.Module) -> set[str]:
    """Name the parameters and buffers that are not what they were."""
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
