# SPDX-License-Identifier: GPL-3.0-or-later
"""The learning-rate finder: train copies of the network, with a growing rate and then with rates that stay.

The first is that of Smith 2017, Cyclical learning rates for training neural networks, arXiv 1506.01186. It comes to
high rates by and by, with a network that has learnt already, and says nothing of the network as it is used later, with
the running statistics of its batch normalisation. A training begins at the rate and ends with such a network: so the
rate is tried out.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from specdeepmap.core.errors import DatasetError
from specdeepmap.core.learn.criteria import mean_loss
from specdeepmap.core.learn.hardware import Hardware
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
"""The largest rate with such a loss is already unsteady; the rates tried out begin below it by this factor."""

TRIAL_STEPS = 30
"""Steps for which a rate is tried out: running statistics forget 96 % of what they were before."""

LOOKS = 3
"""How often the loss is measured in a trial: a network may find its way back from far off."""

LOOKED_AT = 5
"""Batches that the loss is measured on, at most."""

LOWER = 3.0
"""The next rate to try out is lower by this factor."""

TRIALS = 5
"""Rates that are tried out; of those that are much too high one may be as bad as the next."""


def find_rate(segmenter: Segmenter, loader: Loader, hardware: Hardware, progress: Progress) -> float:
    """Find a learning rate; the segmenter stays as it is.

    Args:
        segmenter: copies of it are trained.
        loader: of the training chips; it is gone through as often as needed.
        hardware: to compute on.
        progress: is told each step, and hears a cancel.

    Returns:
        The rate that brings a short training furthest, of a tenth of the largest rate whose mean loss is near the
        lowest and lower ones; rounded to two digits.

    Raises:
        DatasetError: if no training pixel is labelled, so that there is no loss to look at.
    """
    highest = _highest(_Copy(segmenter, hardware), loader, progress.part(0.0, 0.5))
    losses: dict[float, float] = {}
    for number in range(TRIALS):
        trial = progress.part(0.5 + 0.5 * number / TRIALS, 0.5 + 0.5 * (number + 1) / TRIALS)
        rate = highest / LOWER**number
        losses[rate] = _tried(_Copy(segmenter, hardware), loader, rate, trial)
    return float(f"{min(losses, key=lambda rate: (not math.isfinite(losses[rate]), losses[rate])):.2g}")


def _highest(copied: _Copy, loader: Loader, progress: Progress) -> float:
    """Find the highest rate to try out, while it grows."""
    window: deque[float] = deque(maxlen=min(max(len(loader), WINDOW[0]), WINDOW[1]))
    curve: dict[float, float] = {}
    rates = [LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1)) for step in range(STEPS)]
    rate = mean = math.nan
    for rate, loss in copied.train(loader, rates, progress):
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
    return max(rate for rate, loss in curve.items() if loss <= NEAR * lowest) / BELOW_LIMIT


def _tried(copied: _Copy, loader: Loader, rate: float, progress: Progress) -> float:
    """Give the mean loss in a short training at a rate."""
    losses = []
    for step, _ in enumerate(copied.train(loader, [rate] * TRIAL_STEPS, progress), 1):
        if step % (TRIAL_STEPS // LOOKS) == 0:
            losses.append(copied.loss(islice(_endless(loader), min(len(loader), LOOKED_AT)), progress))
    return sum(losses) / len(losses) if losses else math.nan


class _Copy:
    """A copy of a network that is trained in its stead.

    Args:
        segmenter: has network, loss, optimiser and augmentation.
        hardware: to compute on.
    """

    def __init__(self, segmenter: Segmenter, hardware: Hardware) -> None:
        self._segmenter, self._hardware = segmenter, hardware
        self._network = copy.deepcopy(segmenter.network).to(hardware.device)
        self._criterion = copy.deepcopy(segmenter.criterion).to(hardware.device)

    def train(self, loader: Loader, rates: Sequence[float], progress: Progress) -> Iterator[tuple[float, float]]:
        """Train a step at each rate, and yield rate and loss of each batch that has labels."""
        recipe = self._segmenter.recipe
        network = self._network
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = OPTIMIZERS[recipe.optimizer].build(trained, LOWEST, recipe.weight_decay)
        torch.manual_seed(seed_of(recipe.seed, NETWORK))
        for step, (rate, (images, labels)) in enumerate(zip(rates, _endless(loader), strict=False)):
            progress.check()
            network.train()
            for group in optimizer.param_groups:
                group["lr"] = rate
            images, labels = images.to(self._hardware.device), labels.to(self._hardware.device)
            random = generator(recipe.seed, AUGMENTATION, step)
            total, weight = self._parts(*self._segmenter.augmented(images, labels, random))
            optimizer.zero_grad()
            mean_loss(total, weight).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            progress.report((step + 1) / len(rates))
            if weight:
                yield rate, float(total.detach() / weight)

    @torch.no_grad()
    def loss(self, batches: Iterable[Sample], progress: Progress) -> float:
        """Give the mean loss of the network as it is used later; NaN where nothing is labelled."""
        self._network.eval()
        sums = torch.zeros(2, dtype=torch.float64)
        for images, labels in batches:
            progress.check()
            parts = self._parts(images.to(self._hardware.device), labels.to(self._hardware.device))
            sums += torch.stack(parts).double().cpu()
        return float(sums[0] / sums[1]) if sums[1] else math.nan

    def _parts(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Give the loss of a batch times its weight, and its weight."""
        with self._hardware.autocast():
            logits = self._network(images.contiguous(memory_format=self._network.layout))
            return self._criterion.parts(logits, labels.long())


def _endless(loader: Loader) -> Iterator[Sample]:
    while True:
        yield from loader
        loader.epoch += 1
