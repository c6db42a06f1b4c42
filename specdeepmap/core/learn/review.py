# SPDX-License-Identifier: GPL-3.0-or-later
"""Review: what a network makes of chips, as scores and as pictures, during a training and after it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from specdeepmap.core.data.classes import ClassTable
from specdeepmap.core.data.scores import Scores
from specdeepmap.core.learn.checkpoint import ModelCard
from specdeepmap.core.learn.hardware import Hardware
from specdeepmap.core.learn.loader import Chips, Loader
from specdeepmap.core.learn.network import Network
from specdeepmap.core.learn.pictures import RGB, composite, paint, strip
from specdeepmap.core.learn.segmenter import Segmenter
from specdeepmap.core.progress import Progress

EXAMPLES = 4
"""Chips that are shown."""

EXAMPLE_EPOCHS = 5
"""Epochs between two looks at them."""


def measure(network: Network, loader: Loader, classes: int, hardware: Hardware, progress: Progress) -> Scores:
    """Score a network on labelled chips as validation does, in the precision of the training."""
    network = network.to(hardware.device).eval()
    scores = Scores.empty(classes)
    with torch.inference_mode(), hardware.autocast():
        for images, labels in loader:
            progress.check()
            images = images.to(hardware.device).contiguous(memory_format=torch.channels_last)
            predicted = network(images).argmax(dim=1).byte().cpu().numpy()
            scores += Scores.of(labels.numpy(), predicted, classes)
    return scores


def show(network: Network, chips: Chips, card: ModelCard, hardware: Hardware) -> list[RGB]:
    """Show a few chips, evenly spread: the image, the reference and the prediction side by side.

    The prediction is shown wherever the image has data.
    """
    count = min(len(chips), EXAMPLES)
    pictures = []
    was_training = network.training
    network.to(hardware.device).eval()  # Lightning brings it back to the processor after a training
    try:
        for index in np.linspace(0, len(chips) - 1, count).round().astype(int).tolist():
            image, labels = chips[index]
            with torch.inference_mode(), hardware.autocast():
                logits = network(image[None].to(hardware.device).contiguous(memory_format=torch.channels_last))
            predicted = logits[0].argmax(dim=0).byte().cpu().numpy()
            predicted[~image.numpy().any(axis=0)] = 255
            natural = composite(image.numpy(), card.wavelengths_nm, card.normalization.bad)
            pictures.append(strip(natural, paint(labels.numpy(), card.classes), paint(predicted, card.classes)))
    finally:
        network.train(was_training)
    return pictures


class Gallery(Callback):
    """Put settings, example chips and the confusion matrix into TensorBoard, each few epochs and after the last one.

    Args:
        chips: to show: those of the validation, or where there are none, of the training.
        hardware: to compute on.
        epochs: how many there will be at most.
    """

    def __init__(self, chips: Chips, hardware: Hardware, epochs: int) -> None:
        self._chips, self._hardware, self._epochs = chips, hardware, epochs

    def on_train_start(self, trainer: Trainer, segmenter: Segmenter) -> None:  # type: ignore[override]
        """Note the settings, by which TensorBoard compares runs."""
        if isinstance(trainer.logger, TensorBoardLogger):
            design = {"architecture": segmenter.card.architecture, "backbone": segmenter.card.backbone}
            trainer.logger.log_hyperparams({**segmenter.card.settings, **design})

    def on_train_epoch_end(self, trainer: Trainer, segmenter: Segmenter) -> None:  # type: ignore[override]
        """Show, where it is time to."""
        epoch = segmenter.epoch
        if not isinstance(trainer.logger, TensorBoardLogger) or not trainer.is_global_zero:
            return
        if (epoch + 1) % EXAMPLE_EPOCHS and epoch not in (0, self._epochs - 1):
            return
        writer: Any = trainer.logger.experiment
        card = segmenter.card
        for number, picture in enumerate(show(segmenter.network, self._chips, card, self._hardware), 1):
            name = f"image, reference, prediction/chip {number}"
            writer.add_image(name, picture, epoch, dataformats="HWC")
        scores = segmenter.validation_tally.scores
        if scores.matrix.any():
            writer.add_text("confusion matrix (validation)", confusion_table(scores, card.classes), epoch)


def confusion_table(scores: Scores, classes: ClassTable) -> str:
    """Give a confusion matrix in percent of the reference, as a Markdown table: TensorBoard shows it as one."""
    names = [entry.name.replace("|", "/") for entry in classes.entries]
    lines = ["| reference ↓ predicted → | " + " | ".join(names) + " | pixels |", "|" + "---|" * (len(names) + 2)]
    for name, row, support in zip(names, scores.matrix, scores.support, strict=True):
        shares = [f"{100 * count / support:.1f} %" if support else "" for count in row]
        lines.append(f"| **{name}** | " + " | ".join(shares) + f" | {support} |")
    return "\n".join(lines)
