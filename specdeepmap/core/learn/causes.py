# SPDX-License-Identifier: GPL-3.0-or-later
"""Causes: what a failing training may be due to, and what to do about it, most likely first."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from specdeepmap.core.data.scores import Scores

ALMOST_NOTHING = 0.1
"""Share of the parameters: with fewer than this trained, hardly more than the last layer learns."""

FEW_CHIPS = 10
UNEVEN = 0.7
"""Share of the labelled pixels that makes a class overwhelming where classes are not weighed."""

RATES = {"adam": (1e-5, 1e-2), "adamw": (1e-5, 1e-2), "sgd": (1e-4, 0.5)}
"""Learning rates up to the first are slow and from the second on dangerous, per optimiser."""


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """Under what a network is trained, as far as it can be the cause of a failure.

    Attributes:
        trained_share: of the parameters, 0 to 1.
        backbone_frozen: whether the encoder is.
        chip_width, chip_height: of the training chips, in pixels.
        stride: pixels of a side that the encoder's deepest layer joins into one.
        batch_size: as set.
        has_batch_norm: whether layers are normalised over the batch.
        train_chips: how many.
        class_weights: whether the loss weighs the classes.
        learning_rate: as set.
        optimizer, loss: names in their tables.
        normalized: whether the bands are.
        majority_iou: mean IoU of the class most frequent in training, predicted everywhere; NaN where not known.
    """

    trained_share: float
    backbone_frozen: bool
    chip_width: int
    chip_height: int
    stride: int
    batch_size: int
    has_batch_norm: bool
    train_chips: int
    class_weights: bool
    learning_rate: float
    optimizer: str = "adam"
    loss: str = "cross_entropy"
    normalized: bool = True
    majority_iou: float = math.nan

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the optimiser."""
        return max(math.ceil(self.train_chips / max(self.batch_size, 1)), 1)

    @property
    def too_small(self) -> bool:
        """Whether a chip is smaller than what the encoder joins into one pixel."""
        return min(self.chip_width, self.chip_height) < self.stride

    @property
    def single(self) -> bool:
        """Whether batch statistics are those of one chip."""
        return self.has_batch_norm and self.batch_size == 1


@dataclass(frozen=True)
class _Seen:
    """What causes are looked for in: the circumstances, and the scores of the epoch."""

    about: Circumstances
    scores: Scores

    @property
    def largest(self) -> float:
        """Share of the largest class in the reference."""
        return float(self.scores.support.max() / max(int(self.scores.support.sum()), 1))

    @property
    def favours_rare(self) -> bool:
        """Whether the class that is predicted most has less than half of the largest class's pixels."""
        support = self.scores.support
        return bool(2 * support[int(self.scores.matrix.sum(axis=0).argmax())] < support.max())

    def rate(self, end: int) -> float:
        """The bound of slow (0) or dangerous (1) learning rates."""
        return RATES.get(self.about.optimizer, RATES["adam"])[end]


@dataclass(frozen=True)
class _Cause:
    """A possible cause: of which failures, when it may be one, and what to do about it."""

    of: tuple[str, ...]
    holds: Callable[[_Seen], bool]
    advice: Callable[[_Seen], str]


_CAUSES = (
    _Cause(
        ("collapse", "flat"),
        lambda seen: seen.about.trained_share < ALMOST_NOTHING,
        lambda seen: (
            f"Only {100 * seen.about.trained_share:.2g} % of the parameters are trained"
            + (": switch FREEZE_BACKBONE off." if seen.about.backbone_frozen else ".")
        ),
    ),
    _Cause(
        ("loss", "collapse", "flat"),
        lambda seen: seen.about.learning_rate >= seen.rate(1),
        lambda seen: (
            f"LEARNING_RATE {seen.about.learning_rate:g} is high for {seen.about.optimizer}: divide it by 10 or more."
        ),
    ),
    _Cause(
        ("collapse", "flat"),
        lambda seen: seen.about.learning_rate <= seen.rate(0),
        lambda seen: (
            f"LEARNING_RATE {seen.about.learning_rate:g} is very low for {seen.about.optimizer}: multiply it by 10 "
            "or more."
        ),
    ),
    _Cause(
        ("loss", "collapse", "flat"),
        lambda seen: not seen.about.normalized,
        lambda _: "The bands are not normalised: switch NORMALIZE on.",
    ),
    _Cause(
        ("collapse", "flat"),
        lambda seen: not seen.about.class_weights and seen.largest >= UNEVEN,
        lambda seen: (
            f"One class has {100 * seen.largest:.0f} % of the labelled pixels and classes are not weighed: switch "
            "CLASS_WEIGHTS on."
        ),
    ),
    _Cause(
        ("collapse",),
        lambda seen: seen.about.class_weights and seen.favours_rare,
        lambda _: "CLASS_WEIGHTS make a rare class outweigh the others: switch them off, or leave that class out.",
    ),
    _Cause(
        ("collapse", "flat"),
        lambda seen: seen.about.too_small,
        lambda seen: (
            f"Chips of {seen.about.chip_width} × {seen.about.chip_height} pixels are smaller than the "
            f"{seen.about.stride} pixels that the backbone joins into one: cut larger chips."
        ),
    ),
    _Cause(
        ("loss", "collapse", "flat"),
        lambda seen: seen.about.single,
        lambda _: "Batch normalisation needs more than one chip per step: raise BATCH_SIZE to 4 or more.",
    ),
    _Cause(
        ("collapse", "flat"),
        lambda seen: seen.about.train_chips < FEW_CHIPS,
        lambda seen: (
            f"{seen.about.train_chips} training chips are few: cut more, for example overlapping ones, and switch "
            "AUGMENTATION on."
        ),
    ),
    _Cause(
        ("collapse", "flat"),
        lambda seen: seen.about.backbone_frozen and seen.about.trained_share >= ALMOST_NOTHING,
        lambda _: (
            "The backbone is frozen, and what it was pretrained on may be too different: switch FREEZE_BACKBONE off."
        ),
    ),
    _Cause(
        ("loss", "collapse", "flat"),
        lambda seen: seen.about.loss != "cross_entropy",
        lambda seen: f"LOSS {seen.about.loss} can get stuck early on: try cross_entropy.",
    ),
)
"""Most likely first."""

_ELSE = {
    "loss": "LEARNING_RATE may be too high for these data: divide it by 10. Also look for extreme image values that "
    "are not declared as no-data.",
    "collapse": "Look at the labels and the image on the map, whether they lie on each other, and try another "
    "LEARNING_RATE.",
    "flat": "Look at the labels and the image on the map, whether they lie on each other, and try another "
    "LEARNING_RATE.",
}
"""What to do where nothing known is conspicuous."""


def possible_causes(kind: str, about: Circumstances, scores: Scores) -> list[str]:
    """Give advice by cause, most likely first; one piece of advice at least.

    Args:
        kind: of the failure: ``loss`` (not finite), ``collapse`` (one class everywhere) or ``flat``.
        about: the training.
        scores: of the epoch.
    """
    seen = _Seen(about, scores)
    return [cause.advice(seen) for cause in _CAUSES if kind in cause.of and cause.holds(seen)] or [_ELSE[kind]]
