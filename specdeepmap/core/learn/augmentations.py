# SPDX-License-Identifier: GPL-3.0-or-later
"""Augmentations: by chance, change the chips of a batch, image and labels together, each chip in its own way.

Builders import torch inside, so that dialogs need none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from specdeepmap.core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from torch import Generator, Tensor

    Augment = Callable[[Tensor, Tensor, Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Augmentation:
    """An augmentation and how to build it.

    Attributes:
        title: for dialogs.
        build: makes it from its strength, and the mean of each band divided by its standard deviation. It takes
            normalised images ``(N, C, H, W)`` float32, class indices ``(N, H, W)`` uint8 and a random generator of the
            processor, and gives new images and labels.
        source: where it was published.
    """

    title: str
    build: Callable[[float, Sequence[float]], Augment]
    source: str = ""


@dataclass(frozen=True)
class Chain:
    """Augmentations one after another; without any, a batch stays as it is."""

    steps: tuple[Augment, ...]

    def __call__(self, images: Tensor, labels: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
        """Give the images and labels that come out at the end."""
        for step in self.steps:
            images, labels = step(images, labels, random)
        return images, labels


# Functions of a module, bound by partial: unlike closures, they can be pickled.


def _flips_and_turns(_: float, __: Sequence[float]) -> Augment:
    from specdeepmap.core.learn.distortions import flip_and_turn

    return flip_and_turn


def _rotation(strength: float, _: Sequence[float]) -> Augment:
    from specdeepmap.core.learn.distortions import rotate

    return partial(rotate, degrees=strength)


def _scale(strength: float, _: Sequence[float]) -> Augment:
    from specdeepmap.core.learn.distortions import rescale

    return partial(rescale, change=strength)


def _gain(strength: float, levels: Sequence[float]) -> Augment:
    from specdeepmap.core.learn.distortions import change_gain

    return partial(change_gain, deviation=strength, levels=tuple(levels))


def _noise(strength: float, _: Sequence[float]) -> Augment:
    from specdeepmap.core.learn.distortions import add_noise

    return partial(add_noise, deviation=strength)


def _band_drop(strength: float, _: Sequence[float]) -> Augment:
    from specdeepmap.core.learn.distortions import drop_bands

    return partial(drop_bands, share=strength)


def _cutout(strength: float, _: Sequence[float]) -> Augment:
    from specdeepmap.core.learn.distortions import cut_out

    return partial(cut_out, share=strength)


AUGMENTATIONS = {
    "flips_and_turns": Augmentation("Flips and quarter turns", _flips_and_turns),
    "rotation": Augmentation("Rotation", _rotation),
    "scale": Augmentation("Scale", _scale),
    "gain": Augmentation("Gain", _gain),
    "noise": Augmentation("Noise", _noise),
    "band_drop": Augmentation("Band drop", _band_drop),
    "cutout": Augmentation("Cutout", _cutout, "DeVries & Taylor 2017, arXiv 1708.04552"),
}
"""In the order in which they are applied; a strength is in degrees for rotation and a share for all others but
noise and gain, where it is a standard deviation. Flips and turns have none."""


def build_augmenter(strengths: Mapping[str, float], levels: Sequence[float]) -> Chain:
    """Chain the augmentations that have a strength above 0, in the order of ``AUGMENTATIONS``.

    Args:
        strengths: by name.
        levels: mean of each band in training, divided by its standard deviation, as ``Normalization.levels``.

    Raises:
        ConfigError: if there is no augmentation of a name.
    """
    for name in strengths:
        if name not in AUGMENTATIONS:
            known = ", ".join(AUGMENTATIONS)
            raise ConfigError(f"There is no augmentation '{name}'.{nearest(name, AUGMENTATIONS)} It can be: {known}.")
    wanted = [(name, entry) for name, entry in AUGMENTATIONS.items() if strengths.get(name, 0) > 0]
    return Chain(tuple(entry.build(strengths[name], levels) for name, entry in wanted))
