# SPDX-License-Identifier: GPL-3.0-or-later
"""Augmentations: by chance, change image and mask together.

An augmentation takes an image ``(C, H, W)``, its labels ``(H, W)`` and a random generator and gives both
back; what moves a pixel of the image moves its label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor

    Augment = Callable[[Tensor, Tensor, Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Augmentation:
    """An augmentation and how to build it."""

    title: str
    build: Callable[[], Augment]


def turn(image: Tensor, labels: Tensor, quarters: int, flip: bool) -> tuple[Tensor, Tensor]:
    """Turn image and labels by quarters and, before, mirror them left to right."""
    import torch

    if flip:
        image, labels = image.flip(-1), labels.flip(-1)
    if quarters % 4:
        image, labels = torch.rot90(image, quarters, (-2, -1)), torch.rot90(labels, quarters, (-2, -1))
    return image, labels


def _flips_and_turns() -> Augment:
    import torch

    def augment(image: Tensor, labels: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
        choice = int(torch.randint(8, (), generator=random))
        quarters, flip = choice % 4, choice >= 4
        if image.shape[-1] != image.shape[-2]:
            quarters = 2 * (quarters % 2)  # a quarter turn would change the chip's shape
        return turn(image, labels, quarters, flip)

    return augment


AUGMENTATIONS = {"flips_and_turns": Augmentation("Flips and quarter turns", _flips_and_turns)}
"""Applied one after another where AUGMENTATION is on."""
