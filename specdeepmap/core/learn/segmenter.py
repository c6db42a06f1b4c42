# SPDX-License-Identifier: GPL-3.0-or-later
"""The segmenter: a network, its loss and its optimiser, as Lightning trains them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from specdeepmap.core.data.classes import IGNORE_INDEX
from specdeepmap.core.data.scores import Scores
from specdeepmap.core.learn.checkpoint import KEY, ModelCard
from specdeepmap.core.learn.losses import CrossEntropy
from specdeepmap.core.learn.network import Network
from specdeepmap.core.learn.options import OPTIMIZERS, SCHEDULERS

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Recipe:
    """How to optimise: names in the option tables, learning rate, weight decay."""

    optimizer: str
    learning_rate: float
    weight_decay: float
    scheduler: str


class Tally:
    """Loss and confusion over an epoch, pooled over all pixels: batch sizes do not matter."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._matrix: Tensor | None = None
        self._loss: Tensor | None = None

    def add(self, loss: Tensor, weight: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a batch; nothing is moved off the device.

        Args:
            loss: weighted sum of the pixels' losses.
            weight: sum of the pixels' weights.
            logits: ``(N, K, H, W)``.
            labels: class indices ``(N, H, W)``.
        """
        labelled = labels != IGNORE_INDEX
        pairs = labels[labelled] * self._classes + logits.detach().argmax(dim=1)[labelled]
        matrix = torch.bincount(pairs, minlength=self._classes**2)
        sums = (
            torch.stack((loss.detach(), weight)).double()
            if loss.device.type != "mps"
            else torch.stack((loss.detach(), weight))
        )
        self._matrix = matrix if self._matrix is None else self._matrix + matrix
        self._loss = sums if self._loss is None else self._loss + sums

    @property
    def scores(self) -> Scores:
        """The scores so far."""
        if self._matrix is None:
            return Scores.empty(self._classes)
        matrix = self._matrix.cpu().numpy().astype(np.int64)
        return Scores(matrix.reshape(self._classes, self._classes))

    @property
    def loss(self) -> float:
        """The mean loss per labelled pixel so far; NaN without any."""
        if self._loss is None or float(self._loss[1]) == 0:
            return float("nan")
        return float(self._loss[0] / self._loss[1])


class Segmenter(lightning.LightningModule):
    """A network in training.

    Args:
        network: gives logits.
        card: goes into every checkpoint.
        class_weights: of the loss; None = all equal.
        recipe: how to optimise.
    """

    def __init__(self, network: Network, card: ModelCard, class_weights: Tensor | None, recipe: Recipe) -> None:
        super().__init__()
        self.network = network
        self.card = card
        self.criterion = CrossEntropy(class_weights)
        self.recipe = recipe
        self.train_tally = Tally(len(card.classes))
        self.validation_tally = Tally(len(card.classes))

    def forward(self, images: Tensor) -> Tensor:
        """Turn images ``(N, C, H, W)`` into logits ``(N, K, H, W)``."""
        logits: Tensor = self.network(images)
        return logits

    def on_train_epoch_start(self) -> None:
        """Start counting anew."""
        self.train_tally.reset()

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Give the loss of a batch."""
        images, labels = batch[0], batch[1].long()
        logits = self.network(images)
        total, weight = self.criterion.parts(logits, labels)
        self.train_tally.add(total, weight, logits, labels)
        loss: Tensor = total / torch.clamp(weight, min=torch.finfo(torch.float32).tiny)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Start counting anew."""
        self.validation_tally.reset()

    def validation_step(self, batch: Batch, _: int) -> None:
        """Count a batch."""
        images, labels = batch[0], batch[1].long()
        logits = self.network(images)
        self.validation_tally.add(*self.criterion.parts(logits, labels), logits, labels)

    def on_validation_epoch_end(self) -> None:
        """Make the pooled scores known to early stopping and schedules."""
        self.log("val_iou", self.validation_tally.scores.mean_iou)
        self.log("val_loss", self.validation_tally.loss)

    def on_train_epoch_end(self) -> None:
        """Make the training loss known to schedules."""
        self.log("train_loss", self.train_tally.loss)

    def configure_optimizers(self) -> Any:
        """Build optimiser and schedule for the parameters that are trained."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = OPTIMIZERS[self.recipe.optimizer].build(
            trained, self.recipe.learning_rate, self.recipe.weight_decay
        )
        schedule = SCHEDULERS[self.recipe.scheduler]
        steps = int(self.trainer.estimated_stepping_batches)
        monitor = "val_loss" if self.trainer.enable_validation else "train_loss"
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": schedule.build(optimizer, steps),
                "interval": schedule.interval,
                "monitor": monitor,
            },
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the card; take out what callbacks remember, since that names folders of this computer."""
        checkpoint[KEY] = self.card.to_json()
        checkpoint.pop("callbacks", None)
