# SPDX-License-Identifier: GPL-3.0-or-later
"""Losses: what training makes small. Builders import torch inside, so that dialogs need none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from specdeepmap.core.learn.criteria import Criterion


@dataclass(frozen=True)
class Loss:
    """A loss and how to build it.

    Attributes:
        title: for dialogs.
        source: where the loss was published.
        weighted: whether it uses class weights; one that does not counts rare classes as much as frequent ones anyway.
        build: makes the criterion from the weights of the classes; None = all equal.
    """

    title: str
    source: str
    weighted: bool
    build: Callable[[Tensor | None], Criterion]


def _cross_entropy(weights: Tensor | None) -> Criterion:
    from specdeepmap.core.learn.criteria import CrossEntropy

    return CrossEntropy(weights)


def _dice(weights: Tensor | None) -> Criterion:
    from specdeepmap.core.learn.criteria import Dice

    return Dice(weights)


def _focal(weights: Tensor | None) -> Criterion:
    from specdeepmap.core.learn.criteria import Focal

    return Focal(weights)


def _cross_entropy_dice(weights: Tensor | None) -> Criterion:
    from specdeepmap.core.learn.criteria import CrossEntropyDice

    return CrossEntropyDice(weights)


def _lovasz(_: Tensor | None) -> Criterion:
    from specdeepmap.core.learn.criteria import Lovasz

    return Lovasz()


LOSSES = {
    "cross_entropy": Loss(
        "Cross entropy", "Bishop 2006, Pattern recognition and machine learning, section 4.3.4", True, _cross_entropy
    ),
    "dice": Loss("Dice", "Milletari et al. 2016, arXiv 1606.04797; Sudre et al. 2017, arXiv 1707.03237", True, _dice),
    "focal": Loss("Focal", "Lin et al. 2017, arXiv 1708.02002", True, _focal),
    "cross_entropy_dice": Loss(
        "Cross entropy + Dice", "Isensee et al. 2021, doi 10.1038/s41592-020-01008-z", True, _cross_entropy_dice
    ),
    "lovasz": Loss("Lovász-Softmax", "Berman et al. 2018, arXiv 1705.08790", False, _lovasz),
}
"""Each is computed over the labelled pixels only."""
