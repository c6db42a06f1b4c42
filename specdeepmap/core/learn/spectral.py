# SPDX-License-Identifier: GPL-3.0-or-later
"""The spectral network: compact, for few labels and many bands.

Where some thousand pixels are labelled, networks of millions of parameters learn them by heart, and a linear
discriminant of single pixels is hard to beat. This network starts as that discriminant and learns what to add to
it: what is not linear in a spectrum, and what the neighbours tell. Beside it stands a perceptron that knows single
pixels only; the network answers with the mean of their logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from specdeepmap.core.learn.baselines import LinearClassifier
from specdeepmap.core.learn.pixelwise import UNKNOWN, Pixelwise

COMPONENTS = 40
"""Principal components that the network looks at, at most."""

FLOOR = 1e-5
"""Share of the total variance that is added to each component's before it is brought to 1: noise stays small."""

WIDTHS = (64, 32)
"""Channels of the two layers that combine the components."""

LEVELS = (48, 64, 96)
"""Channels at half, a quarter and an eighth of the resolution."""

STRIDE = 8
"""The sides of its inputs are best a multiple of this: what the lowest resolution needs."""

DROPOUT = 0.1


class SpectralNetwork(nn.Module):
    """A linear function of each pixel, plus a small network on its principal components and its surroundings.

    This is trained by itself. Where it is not in training, the logits are the mean of its own and those of the
    pixelwise member, once that has learnt: two that err differently, one of which cannot be misled by what lies around.

    The small network is a multilayer perceptron per pixel, whose features are refined by those at lower
    resolutions, as in a feature pyramid (Lin et al. 2017, arXiv 1612.03144). Dropout leaves out whole channels
    (Tompson et al. 2015, arXiv 1411.4280). Its last layer starts at 0: at first only the linear function counts.

    Args:
        bands: number of input channels.
        classes: number of output channels.
    """

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        components, (wide, narrow) = min(bands, COMPONENTS), WIDTHS
        self.components = nn.Conv2d(bands, components, 1)
        self.spectrum = nn.Sequential(
            *_layer(components, wide, 1), nn.Dropout2d(DROPOUT), *_layer(wide, narrow, 1), Neighbours(narrow)
        )
        self.surroundings = Surroundings(narrow, LEVELS)
        self.segmentation_head = Head(bands, narrow, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Turn images ``(N, C, H, W)`` into logits ``(N, K, H, W)``.

        Sums over the bands are taken in float32, also under autocast: bfloat16 has three digits, and neighbouring bands
        differ by less.
        """
        head = self.segmentation_head
        with torch.autocast(images.device.type, enabled=False):
            components, discriminant = self.components(images), head.linear(images)
            pixelwise = None if self.training else head.pixelwise.first(images)
        logits: Tensor = head(discriminant, self.surroundings(self.spectrum(components)))
        if pixelwise is None:
            return logits
        return torch.lerp(logits.float(), head.pixelwise.rest(pixelwise).float(), 0.5 * head.pixelwise.learnt)

    @torch.no_grad()
    def start_from(self, classifier: LinearClassifier, head_only: bool = False) -> bool:
        """Start as the linear discriminant of these pixels, with their principal components.

        Args:
            classifier: has gathered the pixels.
            head_only: leave the components as they are: what follows them was trained on them.

        Returns:
            Whether that was possible; two classes at least must have pixels.
        """
        discriminant = classifier.fit()
        if discriminant is None:
            return False
        weights, offsets = discriminant.weights.copy(), discriminant.offsets.copy()
        known = np.isfinite(offsets)
        # Less their mean, which makes no difference to which of them wins: so the largest is never below 0, and a class
        # without a training pixel never wins, wherever in the space of the bands a pixel lies.
        weights[:, known] -= weights[:, known].mean(axis=1, keepdims=True)
        offsets[known] -= offsets[known].mean()
        weights[:, ~known], offsets[~known] = 0.0, -UNKNOWN
        _set(self.segmentation_head.linear, weights.T, offsets)
        if head_only:
            return True
        mean, covariance = classifier.moments()
        values, vectors = np.linalg.eigh(covariance)
        count = self.components.out_channels
        # Largest first. A rank below the number of bands leaves variances of about 0, also below it.
        values, vectors = np.maximum(values[::-1][:count], 0), vectors[:, ::-1][:, :count]
        total = float(np.trace(covariance))
        filters = (vectors / np.sqrt(values + FLOOR * (total or 1.0))).T
        _set(self.components, filters, -filters @ mean)
        return True


class Head(nn.Module):
    """A linear function of the bands, and one of the features that is added to it.

    Args:
        bands, features: numbers of channels that enter.
        classes: number of channels that leave.
    """

    def __init__(self, bands: int, features: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(bands, classes, 1)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.refinement = nn.Conv2d(features, classes, 1)
        self.pixelwise = Pixelwise(bands, classes)
        nn.init.zeros_(self.refinement.weight)
        nn.init.zeros_(self.refinement.bias)  # type: ignore[arg-type]

    def forward(self, discriminant: Tensor, features: Tensor) -> Tensor:
        """Add to the values of the linear function; give logits ``(N, K, H, W)``."""
        logits: Tensor = discriminant + self.refinement(self.dropout(features))
        return logits


class Neighbours(nn.Module):
    """Add to each pixel what its eight neighbours tell: a depth-wise separable layer (Chollet 2017, arXiv 1610.02357).

    Args:
        channels: entering and leaving.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="replicate", groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            *_layer(channels, channels, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Keep the shape ``(N, C, H, W)``."""
        added: Tensor = features + self.body(features)
        return added


class Surroundings(nn.Module):
    """Add to each pixel what lower resolutions tell, each halved from the one above.

    Args:
        channels: entering and leaving.
        levels: channels of the lower resolutions.
    """

    def __init__(self, channels: int, levels: Sequence[int]) -> None:
        super().__init__()
        widths = (channels, *levels)
        self.down = nn.ModuleList(
            nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), *_layer(above, below, 3), nn.Dropout2d(DROPOUT))
            for above, below in pairwise(widths)
        )
        self.up = nn.ModuleList(nn.Conv2d(below, above, 1, bias=False) for above, below in pairwise(widths))

    def forward(self, features: Tensor) -> Tensor:
        """Keep the shape ``(N, C, H, W)``."""
        found = [features]
        for down in self.down:
            found.append(down(found[-1]))
        joined = found.pop()
        for up in reversed(self.up):
            above = found.pop()
            wide = functional.interpolate(up(joined), size=above.shape[-2:], mode="bilinear", align_corners=False)
            joined = above + wide
        return joined


def _layer(entering: int, leaving: int, size: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(entering, leaving, size, padding=size // 2, padding_mode="replicate", bias=False)
    return convolution, nn.BatchNorm2d(leaving), nn.GELU()


def _set(layer: nn.Conv2d, weights: NDArray[np.float64], offsets: NDArray[np.float64]) -> None:
    """Give a 1 × 1 layer its weights ``(out, in)`` and offsets ``(out,)``."""
    layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(weights)).float()[:, :, None, None])
    if layer.bias is not None:
        layer.bias.copy_(torch.from_numpy(np.ascontiguousarray(offsets)).float())
