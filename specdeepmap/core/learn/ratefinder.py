# SPDX-License-Identifier: GPL-3.0-or-later
"""The learning-rate finder: train a copy of the network with a growing rate and see where the loss falls.

After Smith 2017, Cyclical learning rates for training neural networks, arXiv 1506.01186.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Iterator
from itertools import islice

import torch

from specdeepmap.core.errors import DatasetError
from specdeepmap.core.learn.criteria import mean_loss
from specdeepmap.core.learn.fitting import Hardware
from specdeepmap.core.learn.loader import Loader, Sample
from specdeepmap.core.learn.options import OPTIMIZERS
from specdeepmap.core.learn.seeds import AUGMENTATION, NETWORK, generator, seed_of
from specdeepmap.core.learn.segmenter import Segmenter
from specdeepmap.core.progress import Progress

STEPS = 120
LOWEST, HIGHEST = 1e-6, 1.0
WINDOW = (10, 30)
"""Steps whose mean loss is looked at, at least and at most: an epoch, so that all chips count, if it is that long."""

DIVERGED = 4.0
"""The search ends where the loss is this many times the lowest."""

NEAR = 1.05
"""A loss up to this many times the lowest is as good as it; a network that starts well has its lowest at any rate."""

BELOW_LIMIT = 10.0
"""The largest rate with such a loss is already unsteady; the rate found is lower by this factor."""


def find_rate(segmenter: Segmenter, loader: Loader, hardware: Hardware, progress: Progress) -> float:
    """Find a learning rate; the segmenter stays as it is.

    Args:
        segmenter: a copy of it is trained.
        loader: of the training chips; it is gone through as often as needed.
        hardware: to compute on.
        progress: is told each step, and hears a cancel.

    Returns:
        A tenth of the largest rate whose mean loss is near the lowest, rounded to two digits.

    Raises:
        DatasetError: if no training pixel is labelled, so that there is no loss to look at.
    """
    window: deque[float] = deque(maxlen=min(max(len(loader), WINDOW[0]), WINDOW[1]))
    curve: dict[float, float] = {}
    rate = mean = math.nan
    for rate, loss in _train_copy(segmenter, loader, hardware, progress):
        window.append(loss)
        mean = sum(window) / len(window)
        if not math.isfinite(mean) or mean > DIVERGED * min(curve.values(), default=mean):
            break
        if len(window) == window.maxlen:
            curve[rate] = mean
    if not window:
        raise DatasetError("LR_FINDER: no training chip has a labelled pixel, so there is no loss to look at.")
    if not curve and math.isfinite(mean):  # there were few batches with labels
        curve[rate] = mean
    if not curve:
        raise DatasetError(
            "LR_FINDER: the loss is no finite number at any learning rate. Check the image values for extremes that "
            "are not declared as no-data, and switch NORMALIZE on."
        )
    lowest = min(curve.values())
    return float(f"{max(rate for rate, loss in curve.items() if loss <= NEAR * lowest) / BELOW_LIMIT:.2g}")


def _train_copy(
    segmenter: Segmenter, loader: Loader, hardware: Hardware, progress: Progress
) -> Iterator[tuple[float, float]]:
    """Train a copy of the network and yield learning rate and loss of each batch that has labels."""
    network = copy.deepcopy(segmenter.network).to(hardware.device).train()
    criterion = copy.deepcopy(segmenter.criterion).to(hardware.device)
    recipe = segmenter.recipe
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = OPTIMIZERS[recipe.optimizer].build(trained, LOWEST, recipe.weight_decay)
    torch.manual_seed(seed_of(recipe.seed, NETWORK))
    for step, (images, labels) in enumerate(islice(_endless(loader), STEPS)):
        progress.check()
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
        for group in optimizer.param_groups:
            group["lr"] = rate
        images, labels = images.to(hardware.device), labels.to(hardware.device)
        images, labels = segmenter.augmented(images, labels, generator(recipe.seed, AUGMENTATION, step))
        with hardware.autocast():
            logits = network(images.contiguous(memory_format=network.layout))
            total, weight = criterion.parts(logits, labels.long())
        optimizer.zero_grad()
        mean_loss(total, weight).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        progress.report((step + 1) / STEPS)
        if weight:
            yield rate, float(total.detach() / weight)


def _endless(loader: Loader) -> Iterator[Sample]:
    while True:
        yield from loader
        loader.epoch += 1
