# SPDX-License-Identifier: GPL-3.0-or-later
"""The spectral network: compact, for few labels and many bands.

It looks at the spectrum of a pixel first and at its neighbours a little: where some thousand pixels are labelled,
networks of millions of parameters learn them by heart.
"""

from __future__ import annotations

from torch import Tensor, nn

WIDTHS = (64, 32)
"""Channels after the two layers that reduce the spectrum."""

DROPOUT = 0.1


class SpectralNetwork(nn.Module):
    """Two 1 × 1 layers that reduce the spectrum, and one residual 3 × 3 layer that looks around.

    The 1 × 1 layers are a multilayer perceptron per pixel. The layer after them is depth-wise separable (Chollet 2017,
    arXiv 1610.02357), so that it has few parameters. Dropout leaves out whole channels (Tompson et al. 2015,
    arXiv 1411.4280).

    Args:
        bands: number of input channels.
        classes: number of output channels.
    """

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        wide, narrow = WIDTHS
        self.spectrum = nn.Sequential(*_reduced(bands, wide), *_reduced(wide, narrow))
        self.surroundings = Surroundings(narrow)
        self.segmentation_head = nn.Conv2d(narrow, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Turn images ``(N, C, H, W)`` into logits ``(N, K, H, W)``."""
        logits: Tensor = self.segmentation_head(self.surroundings(self.spectrum(images)))
        return logits


class Surroundings(nn.Module):
    """Add to each pixel what its eight neighbours tell.

    Args:
        channels: entering and leaving.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="replicate", groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.GELU(),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Keep the shape ``(N, C, H, W)``."""
        added: Tensor = features + self.body(features)
        return added


def _reduced(entering: int, leaving: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(entering, leaving, 1, bias=False), nn.BatchNorm2d(leaving), nn.GELU(), nn.Dropout2d(DROPOUT)
