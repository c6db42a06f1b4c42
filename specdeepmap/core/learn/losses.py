# SPDX-License-Identifier: GPL-3.0-or-later
"""Losses: how far logits are from labels, over the labelled pixels only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from specdeepmap.core.data.classes import IGNORE_INDEX


class CrossEntropy(nn.Module):
    r"""Cross entropy, averaged over the labelled pixels with a weight per class.

    :math:`\sum_i -w_{y_i} \log p_{i, y_i} / \sum_i w_{y_i}`. A batch without one labelled pixel has loss 0
    and gradients 0, where PyTorch's own mean is 0 / 0 = NaN.

    Args:
        weights: per class; None = 1 each.
    """

    weights: Tensor | None

    def __init__(self, weights: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)

    def parts(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Give the weighted sum of the losses and the sum of the weights.

        Args:
            logits: ``(N, K, H, W)``.
            labels: class indices ``(N, H, W)``, int64.
        """
        total = functional.cross_entropy(
            logits.float(), labels, self.weights, ignore_index=IGNORE_INDEX, reduction="sum"
        )
        labelled = labels[labels != IGNORE_INDEX]
        weight = self.weights[labelled].sum() if self.weights is not None else labelled.new_tensor(labelled.numel())
        return total, weight.float()

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Give the mean over the labelled pixels."""
        total, weight = self.parts(logits, labels)
        return total / torch.clamp(weight, min=torch.finfo(torch.float32).tiny)
