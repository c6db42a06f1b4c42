# SPDX-License-Identifier: GPL-3.0-or-later
"""The 2D-Justo-UNet-Simple: a network of a few thousand parameters, made for a satellite's own computer."""

from __future__ import annotations

from torch import Tensor, nn

STRIDE = 4
"""Its input sizes must be a multiple of this."""


class JustoUNetSimple(nn.Module):
    """Two levels down and up again, without skip connections.

    After Justo et al. 2023, Semantic segmentation in satellite hyperspectral imagery by deep learning,
    arXiv 2310.16210: 3 × 3 convolutions with 6, 12 and 6 filters, batch normalisation after each, nearest-neighbour
    upsampling. The softmax at the end is left out: losses expect logits.

    Args:
        bands: number of input channels.
        classes: number of output channels.
    """

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_filters(bands, 6),
            nn.MaxPool2d(2),
            *_filters(6, 12),
            nn.MaxPool2d(2),
            nn.Upsample(scale_factor=2, mode="nearest"),
            *_filters(12, 6),
            nn.Upsample(scale_factor=2, mode="nearest"),
        )
        self.segmentation_head = nn.Sequential(nn.Conv2d(6, classes, 3, padding=1), nn.BatchNorm2d(classes))

    def forward(self, images: Tensor) -> Tensor:
        """Turn images ``(N, C, H, W)`` into logits ``(N, K, H, W)``."""
        logits: Tensor = self.segmentation_head(self.body(images))
        return logits


def _filters(entering: int, leaving: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(entering, leaving, 3, padding=1), nn.BatchNorm2d(leaving), nn.ReLU(inplace=True)
