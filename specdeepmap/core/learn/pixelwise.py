# SPDX-License-Identifier: GPL-3.0-or-later
"""The pixelwise member of the spectral network: a perceptron of single pixels, learnt before the first epoch.

Chips as batches hold pixels that are alike, and some hundred steps of them are few. Pixels that are drawn from all
chips independently make every batch a picture of the whole dataset.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from specdeepmap.core.learn.options import cosine_factor
from specdeepmap.core.progress import Progress

WIDTHS = (64, 32)
"""Neurons of the two hidden layers."""

STEPS = 1500
BATCH = 4096
"""Of pixels; with fewer than eight times as many, an eighth of them."""

PASSES = 100
"""How often each pixel is seen at most, on average: with few pixels there are fewer steps."""

RATE, DECAY, DROPOUT = 0.003, 0.01, 0.1

UNKNOWN = 20.0
"""How far below the others a class lies that has no training pixel; e⁻²⁰ is never predicted."""

_HEARD = 25  # steps between two looks for a cancel


class Pixelwise(nn.Module):
    """A multilayer perceptron of single pixels, which no optimiser of the training touches: its numbers are buffers.

    Until it has learnt, ``learnt`` is 0, and so are its logits.

    Args:
        bands: number of input channels.
        classes: number of output channels.
    """

    learnt: Tensor

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        sizes = (bands, *WIDTHS, classes)
        for number, (entering, leaving) in enumerate(pairwise(sizes)):
            self.register_buffer(f"weight{number}", torch.zeros(leaving, entering, 1, 1))
            self.register_buffer(f"bias{number}", torch.zeros(leaving))
        self.register_buffer("learnt", torch.zeros(()))

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which classes it has learnt."""
        offsets = self.get_buffer("bias2")
        return np.asarray(((self.learnt > 0) & (offsets > -UNKNOWN)).cpu().numpy(), np.bool_)

    def first(self, images: Tensor) -> Tensor:
        """Combine the bands ``(N, C, H, W)``."""
        return functional.conv2d(images, self.get_buffer("weight0"), self.get_buffer("bias0"))

    def rest(self, hidden: Tensor) -> Tensor:
        """Give logits ``(N, K, H, W)`` of what ``first`` gave."""
        for number in (1, 2):
            weight, bias = self.get_buffer(f"weight{number}"), self.get_buffer(f"bias{number}")
            hidden = functional.conv2d(functional.gelu(hidden), weight, bias)
        return hidden

    def learn(
        self,
        pixels: NDArray[np.float32],
        indices: NDArray[np.uint8],
        weights: Tensor,
        seed: int,
        progress: Progress,
    ) -> None:
        """Learn pixels, with AdamW and a cosine.

        Args:
            pixels: ``(pixels, bands)``.
            indices: the class of each.
            weights: of the classes in the loss.
            seed: of the first weights, the order and the dropout.
            progress: hears a cancel.
        """
        values, targets = torch.from_numpy(np.nan_to_num(pixels)), torch.from_numpy(indices.astype(np.int64))
        batch = min(BATCH, max(len(values) // 8, min(len(values), 32)))
        steps = min(STEPS, max(PASSES * len(values) // batch, 1))
        random = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            body = _perceptron((values.shape[1], *WIDTHS, len(weights)))
            optimizer = torch.optim.AdamW(body.parameters(), lr=RATE, weight_decay=DECAY)
            for step in range(steps):
                if step % _HEARD == 0:
                    progress.check()
                for group in optimizer.param_groups:
                    group["lr"] = RATE * cosine_factor(step, steps)
                drawn = torch.randint(len(values), (batch,), generator=random)
                loss = functional.cross_entropy(body(values[drawn]), targets[drawn], weight=weights)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        self._take(body.eval(), np.bincount(indices, minlength=len(weights)) > 0)

    @torch.no_grad()
    def _take(self, body: nn.Sequential, known: NDArray[np.bool_]) -> None:
        """Take over a perceptron, with its normalisations in the weights, and centred.

        What all classes have in common makes no difference; without it the largest value is never below 0, and a class
        without a training pixel never wins.
        """
        linear = [layer for layer in body if isinstance(layer, nn.Linear)]
        norms = [layer for layer in body if isinstance(layer, nn.BatchNorm1d)]
        for number, layer in enumerate(linear):
            weight, bias = layer.weight.clone(), torch.zeros(layer.out_features)
            if number < len(norms):
                norm = norms[number]
                if norm.running_mean is None or norm.running_var is None:
                    raise TypeError("a normalisation without statistics")
                factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
                weight, bias = weight * factor[:, None], norm.bias - norm.running_mean * factor
            else:
                mask = torch.from_numpy(known)
                bias = layer.bias.clone()
                weight, bias = weight - weight[mask].mean(dim=0), bias - bias[mask].mean()
                weight[~mask], bias[~mask] = 0.0, -UNKNOWN
            self.get_buffer(f"weight{number}").copy_(weight[:, :, None, None])
            self.get_buffer(f"bias{number}").copy_(bias)
        self.learnt.fill_(1.0)


def _perceptron(sizes: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for entering, leaving in pairwise(sizes[:-1]):
        layers += [nn.Linear(entering, leaving, bias=False), nn.BatchNorm1d(leaving), nn.GELU(), nn.Dropout(DROPOUT)]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))
