# SPDX-License-Identifier: GPL-3.0-or-later
"""The segmenter: a network, its loss and its optimiser, as Lightning trains them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn

from specdeepmap.core.data.classes import IGNORE_INDEX
from specdeepmap.core.data.scores import Scores
from specdeepmap.core.learn.checkpoint import KEY, SCHEDULE_KEY, ModelCard
from specdeepmap.core.learn.criteria import Criterion, mean_loss
from specdeepmap.core.learn.network import Network
from specdeepmap.core.learn.options import OPTIMIZERS, SCHEDULERS
from specdeepmap.core.learn.seeds import AUGMENTATION, NETWORK, generator, seed_of

if TYPE_CHECKING:
    from specdeepmap.core.learn.augmentations import Augment

Batch = tuple[Tensor, Tensor]

BACKBONE_RATE = 0.1
"""Learning rate of a backbone that is trained after a while, relative to the rest: its weights are good already."""


@dataclass(frozen=True)
class Recipe:
    """How to optimise.

    Attributes:
        optimizer, scheduler: names in the option tables.
        learning_rate, weight_decay: of the optimiser.
        seed: of dropout and augmentation.
        unfreeze_epoch: from which epoch on a frozen backbone is trained, too; 0 = never.
    """

    optimizer: str
    learning_rate: float
    weight_decay: float
    scheduler: str
    seed: int = 42
    unfreeze_epoch: int = 0


class Tally:
    """Loss and confusion over an epoch, pooled over all pixels: batch sizes do not matter."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._matrix = torch.zeros(self._classes**2, dtype=torch.int64)
        self._loss = torch.zeros(2, dtype=torch.float64)

    def add(self, loss: Tensor, weight: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a batch; nothing is moved off the device.

        Args:
            loss: weighted sum of the pixels' losses.
            weight: sum of the pixels' weights.
            logits: ``(N, K, H, W)``.
            labels: class indices ``(N, H, W)``.
        """
        # Unlabelled pixels are counted in a bin behind the matrix: picking out the others would take longer.
        cells = self._classes**2
        pairs = labels * self._classes + logits.detach().argmax(dim=1)
        counted = torch.bincount(pairs.where(labels != IGNORE_INDEX, cells).flatten(), minlength=cells + 1)
        self._matrix = self._matrix.to(labels.device) + counted[:cells]
        sums = torch.stack((loss.detach(), weight))
        exact = sums if sums.device.type == "mps" else sums.double()  # MPS has no float64
        self._loss = self._loss.to(exact.dtype).to(exact.device) + exact

    def pool(self, trainer: lightning.Trainer) -> None:
        """Add up what all processes counted."""
        device = trainer.strategy.root_device
        self._matrix = trainer.strategy.reduce(self._matrix.to(device), reduce_op="sum")
        if device.type != "mps":
            self._loss = trainer.strategy.reduce(self._loss.to(device), reduce_op="sum")

    @property
    def scores(self) -> Scores:
        """The scores so far."""
        matrix = self._matrix.cpu().numpy().astype(np.int64)
        return Scores(matrix.reshape(self._classes, self._classes))

    @property
    def loss(self) -> float:
        """The mean loss per labelled pixel so far; NaN without any."""
        return float("nan") if float(self._loss[1]) == 0 else float(self._loss[0] / self._loss[1])


class Segmenter(lightning.LightningModule):
    """A network in training.

    Args:
        network: gives logits; what is frozen in it stays so, see ``Recipe.unfreeze_epoch``.
        card: goes into every checkpoint.
        criterion: the loss.
        recipe: how to optimise.
        augment: changes a batch by chance.
    """

    def __init__(
        self, network: Network, card: ModelCard, criterion: Criterion, recipe: Recipe, augment: Augment | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.card = card
        self.criterion = criterion
        self.recipe = recipe
        self.first_epoch = 0
        """Epochs that were trained before an interruption."""
        self.train_tally = Tally(len(card.classes))
        self.validation_tally = Tally(len(card.classes))
        self._augment = augment
        self._schedule: Any = None
        self._interrupted: dict[str, Any] = {}
        self._frozen = [parameter for parameter in network.parameters() if not parameter.requires_grad]

    @property
    def epoch(self) -> int:
        """The number of the epoch, from 0, those before an interruption counted in."""
        return int(self.trainer.current_epoch) + self.first_epoch

    def forward(self, images: Tensor) -> Tensor:
        """Turn images ``(N, C, H, W)`` into logits ``(N, K, H, W)``."""
        logits: Tensor = self.network(images.contiguous(memory_format=self.network.layout))
        return logits

    def go_on(self, epoch: int, optimizer: dict[str, Any], schedule: dict[str, Any]) -> None:
        """Go on with an interrupted training.

        Args:
            epoch: the next one to train.
            optimizer, schedule: their states after the last one.
        """
        self.first_epoch = epoch
        self._interrupted = {"optimizer": optimizer, "schedule": schedule}

    def on_train_start(self) -> None:
        """Bring optimiser and schedule to where an interrupted training left them."""
        if self._interrupted:
            self.trainer.optimizers[0].load_state_dict(self._interrupted["optimizer"])
            self._schedule.load_state_dict(self._interrupted["schedule"])
            if isinstance(self._schedule, torch.optim.lr_scheduler.LambdaLR):  # there may be more EPOCHS now
                curves = zip(self._schedule.base_lrs, self._schedule.lr_lambdas, strict=True)
                for group, (rate, curve) in zip(self.trainer.optimizers[0].param_groups, curves, strict=True):
                    group["lr"] = rate * curve(self._schedule.last_epoch)
            self._interrupted = {}

    def on_train_epoch_start(self) -> None:
        """Start counting anew; seed what the network itself draws; train the backbone, too, where it is time."""
        self.train_tally.reset()
        torch.manual_seed(seed_of(self.recipe.seed, NETWORK, self.epoch, self.global_rank))
        if self._frozen and 0 < self.recipe.unfreeze_epoch <= self.epoch:
            self.network.unfreeze_encoder()

    def training_step(self, batch: Batch, number: int) -> Tensor:
        """Give the loss of a batch."""
        place = (self.recipe.seed, AUGMENTATION, self.epoch, number, self.global_rank)
        images, labels = self.augmented(batch[0], batch[1], generator(*place))
        labels = labels.long()
        logits = self(images)
        total, weight = self.criterion.parts(logits, labels)
        self.train_tally.add(total, weight, logits, labels)
        return mean_loss(total, weight)

    def augmented(self, images: Tensor, labels: Tensor, random: torch.Generator) -> Batch:
        """Change a batch by chance, if this training does so at all."""
        return (images, labels) if self._augment is None else self._augment(images, labels, random)

    def on_train_batch_end(self, *_: Any) -> None:
        """Move a schedule of steps on; let the gradients go, which are of no use while the next batch goes forward."""
        for optimizer in self.trainer.optimizers:
            optimizer.zero_grad(set_to_none=True)
        if SCHEDULERS[self.recipe.scheduler].interval == "step":
            self._schedule.step()

    def on_validation_epoch_start(self) -> None:
        """Start counting anew; let all processes validate the same network."""
        self.validation_tally.reset()
        if self.trainer.world_size > 1:
            for buffer in self.network.buffers():
                if buffer.is_floating_point():  # running statistics; each process has seen other chips
                    buffer.copy_(self.trainer.strategy.reduce(buffer.clone(), reduce_op="mean"))

    def validation_step(self, batch: Batch, _: int) -> None:
        """Count a batch."""
        images, labels = batch[0], batch[1].long()
        logits = self(images)
        self.validation_tally.add(*self.criterion.parts(logits, labels), logits, labels)

    def pool(self) -> None:
        """Add up what all processes counted in this epoch."""
        if self.trainer.world_size > 1:
            self.train_tally.pool(self.trainer)
            self.validation_tally.pool(self.trainer)

    def finish_epoch(self, loss: float) -> None:
        """Move a schedule of epochs on by the loss that it watches."""
        if SCHEDULERS[self.recipe.scheduler].interval == "epoch":
            self._schedule.step(loss)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build optimiser and schedule for the parameters that are trained, now or later."""
        recipe = self.recipe
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = [{"params": trained}]
        if self._frozen and recipe.unfreeze_epoch:
            groups.append({"params": self._frozen, "lr": BACKBONE_RATE * recipe.learning_rate})
        fuse = not self.trainer.gradient_clip_val or self.trainer.precision == "32-true"
        optimizer = OPTIMIZERS[recipe.optimizer].build(groups, recipe.learning_rate, recipe.weight_decay, fuse)
        steps = int(self.trainer.estimated_stepping_batches)
        steps += self.first_epoch * int(self.trainer.num_training_batches)
        self._schedule = SCHEDULERS[recipe.scheduler].build(optimizer, steps)
        return optimizer

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the card and, for going on, the schedule; take out what names folders of this computer."""
        checkpoint[KEY] = self.card.to_json()
        checkpoint.pop("callbacks", None)
        if "optimizer_states" in checkpoint:
            checkpoint[SCHEDULE_KEY] = self._schedule.state_dict()


def has_batch_norm(network: nn.Module) -> bool:
    """Tell whether a network normalises by the statistics of its batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
