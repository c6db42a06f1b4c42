# SPDX-License-Identifier: GPL-3.0-or-later
"""Criteria: how far logits are from labels, over the labelled pixels only.

Unlabelled pixels count neither in a value nor in a gradient. A batch without one labelled pixel, or whose
classes all weigh nothing, has loss 0 and gradients 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from specdeepmap.core.data.classes import IGNORE_INDEX

FOCUS = 2.0
"""Gamma of the focal loss, the value that Lin et al. 2017 found best."""

LEAST_WEIGHT = 1e-6
"""Less than a pixel weighs, and enough for gradients times the scale of float16 training to stay finite."""


def mean_loss(total: Tensor, weight: Tensor) -> Tensor:
    """Turn the parts of a batch into its loss; 0 where nothing weighs anything."""
    return total / torch.clamp(weight, min=LEAST_WEIGHT)


class Criterion(nn.Module):
    """A loss that can be pooled: the mean over batches is the sum of totals over the sum of weights.

    It is computed from raw logits, in float32 whatever they come in: a subclass keeps to operations that autocast
    leaves in float32 (no matrix products).

    Args:
        weights: per class; None = 1 each.
    """

    weights: Tensor | None

    def __init__(self, weights: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)

    def parts(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Give the loss of a batch times its weight, and its weight.

        Args:
            logits: ``(N, K, H, W)``.
            labels: class indices ``(N, H, W)``, int64.

        Returns:
            Two scalars; the weight is the sum of the class weights over the labelled pixels.
        """
        weights = self._pixel_weights(labels)
        return self._total(logits.float(), labels, weights), weights.sum()

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Give the loss of a batch."""
        total, weight = self.parts(logits, labels)
        return mean_loss(total, weight)

    def _total(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Give the loss of a batch times the sum of the pixels' weights ``(N, H, W)``."""
        raise NotImplementedError

    def _pixel_weights(self, labels: Tensor) -> Tensor:
        """Give each pixel the weight of its class, and 0 where there is no label."""
        labelled = labels != IGNORE_INDEX
        if self.weights is None:
            return labelled.float()
        return self.weights.float()[labels.where(labelled, 0)] * labelled


class CrossEntropy(Criterion):
    r"""Cross entropy, averaged over the labelled pixels with a weight per class.

    :math:`\sum_i -w_{y_i} \log p_{i, y_i} / \sum_i w_{y_i}`.
    """

    def _total(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        return (weights * _surprise(logits, labels)).sum()


class Focal(Criterion):
    r"""Cross entropy that leaves the pixels alone that are right already (Lin et al. 2017, arXiv 1708.02002).

    :math:`\sum_i -w_{y_i} (1 - p_{i, y_i})^\gamma \log p_{i, y_i} / \sum_i w_{y_i}`. The weights are the alpha
    of the paper; the mean is that of cross entropy, so that with gamma 0 the two are the same.
    """

    def _total(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        surprise = _surprise(logits, labels)
        return (weights * ((-torch.expm1(-surprise)) ** FOCUS * surprise)).sum()


class Dice(Criterion):
    r"""Soft Dice over all pixels of a batch (Milletari et al. 2016; Sudre et al. 2017, arXiv 1707.03237).

    :math:`\sum_k w_k (1 - 2 \sum_i p_{ik} g_{ik} / \sum_i (p_{ik} + g_{ik})) / \sum_k w_k`, over the classes k that
    are in the batch's labels. For an absent class the fraction is 0 whatever the network says: counted as
    perfect or as lost, it would only tell which classes the batch happens to have. What is mapped as an absent
    class by mistake is still paid for, by the classes that are there. (``DiceLoss`` of
    segmentation-models-pytorch counts absent classes as perfect.)
    """

    def _total(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        classes = torch.arange(logits.shape[1], device=logits.device).reshape(1, -1, 1, 1)
        reference = (labels[:, None] == classes).float()
        chances = logits.softmax(dim=1) * (labels != IGNORE_INDEX)[:, None]
        pixels = (0, 2, 3)
        counts = reference.sum(pixels)
        sizes = torch.where(counts > 0, counts + chances.sum(pixels), 1.0)
        lost = 1.0 - 2.0 * (chances * reference).sum(pixels) / sizes
        shares = (counts > 0).float() if self.weights is None else (counts > 0) * self.weights.float()
        return mean_loss((shares * lost).sum(), shares.sum()) * weights.sum()


class CrossEntropyDice(Criterion):
    """The sum of cross entropy and Dice: the one is steady, the other looks at small classes, too."""

    def __init__(self, weights: Tensor | None = None) -> None:
        super().__init__(weights)
        self.cross_entropy, self.dice = CrossEntropy(weights), Dice(weights)

    def _total(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        return self.cross_entropy._total(logits, labels, weights) + self.dice._total(logits, labels, weights)


class Lovasz(Criterion):
    """The Lovász extension of 1 − IoU, over all pixels of a batch (Berman et al. 2018, arXiv 1705.08790).

    Averaged over the classes that are in the batch's labels. It takes no weights: each class counts alike.
    """

    def __init__(self) -> None:
        super().__init__()
        from segmentation_models_pytorch.losses import LovaszLoss

        self.lovasz = LovaszLoss("multiclass", ignore_index=IGNORE_INDEX)

    def _total(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        if not weights.any():
            return logits[:0].sum()  # the library gives an empty tensor here, which is no loss
        loss: Tensor = self.lovasz(logits, labels)
        return loss * weights.sum()


def _surprise(logits: Tensor, labels: Tensor) -> Tensor:
    """Give -log p of each pixel's own class, 0 where there is none: ``(N, H, W)``."""
    return functional.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="none")
