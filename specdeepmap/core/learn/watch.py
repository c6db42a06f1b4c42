# SPDX-License-Identifier: GPL-3.0-or-later
"""Watchfulness: notice while a network trains that it learns nothing, and say what it may be due to.

A healthy training must never be warned of, so nothing counts before the training has *settled*: the third epoch
and ``SETTLING_STEPS`` steps. Validation runs on the running statistics of batch normalisation, which after n steps
still hold 0.9^n of where they started; at first they alone can make a network predict one class everywhere.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from specdeepmap.core.data.scores import Scores
from specdeepmap.core.learn.baselines import Baselines
from specdeepmap.core.learn.causes import FEW_CHIPS, Circumstances, possible_causes

SETTLING_EPOCHS, SETTLING_STEPS = 2, 30
"""Epochs and steps before anything counts; of the statistics' start 0.9^30 = 4 % are then left."""

COLLAPSED_SHARE, ONE_SIDED_SHARE, COLLAPSED_EPOCHS = 0.98, 0.95, 3
"""A share of pixels predicted as one class that is a collapse, where no class has this share of the reference, and
for how many epochs in a row."""

GAIN, FLAT_EPOCHS, LEAD = 0.005, 10, 0.05
"""A mean IoU that has not gained this for so many epochs is flat, however it jitters below; one that is this far above
one class everywhere is no failure."""


PERFECT = 0.98
"""A mean IoU that needs no advice, whoever else reaches it."""

EXPLODED, EXPLODED_TIMES = 100.0, 30.0
"""A training loss above this, and this many times that of the first epoch, has run away though it is finite."""


@dataclass(frozen=True, eq=False)
class EpochFacts:
    """What an epoch brought.

    Attributes:
        epoch: its number, from 0.
        train_loss: mean over the labelled pixels.
        scores: on the validation chips, or on the training chips where there are none.
        labelled: whether any training pixel is; without one there is no loss to speak of.
    """

    epoch: int
    train_loss: float
    scores: Scores
    labelled: bool = True


class Watcher:
    """Looks at every epoch of one training, in order.

    Args:
        circumstances: of the training.
        names: of the classes, for what is said.
        said: kinds of warnings that were said before an interruption.
    """

    def __init__(self, circumstances: Circumstances, names: Sequence[str] = (), said: Sequence[str] = ()) -> None:
        self._about, self._names = circumstances, tuple(names)
        self.said = set(said)
        """Kinds of warnings that were said."""
        self._collapsed = 0
        self._first_loss = math.inf
        self._recent: deque[float] = deque(maxlen=FLAT_EPOCHS)
        self._before = 0.0  # the best mean IoU of the epochs that came before the recent ones

    def look(self, facts: EpochFacts) -> list[str]:
        """Give the warnings that this epoch is a reason for, each kind once per training."""
        if facts.labelled and not math.isfinite(facts.train_loss):
            kind = "infinite" if math.isinf(facts.train_loss) else "not a number (NaN)"
            return self._say("loss", f"The training loss is {kind}: the network will hardly recover.", facts)
        if facts.labelled and math.isinf(self._first_loss):
            self._first_loss = facts.train_loss
        if facts.labelled and facts.train_loss > max(EXPLODED, EXPLODED_TIMES * self._first_loss):
            return self._say("loss", f"The training loss has run away to {facts.train_loss:.2g}.", facts)
        if not facts.scores.matrix.any():
            return []
        if not self._settled(facts.epoch):
            self._before = max(self._before, facts.scores.mean_iou)
            return []
        if len(self._recent) == FLAT_EPOCHS:
            self._before = max(self._before, self._recent[0])
        self._recent.append(facts.scores.mean_iou)
        self._collapsed = self._collapsed + 1 if _is_collapsed(facts.scores) else 0
        if self._collapsed >= COLLAPSED_EPOCHS:
            return self._say("collapse", self._collapse(facts.scores), facts)
        return self._say("flat", self._flat(facts.scores), facts) if self._is_flat(facts.scores) else []

    def _settled(self, epoch: int) -> bool:
        return epoch >= SETTLING_EPOCHS and epoch * self._about.steps_per_epoch >= SETTLING_STEPS

    def _bar(self, scores: Scores) -> float:
        """Give what one class everywhere reaches."""
        return self._about.majority_iou if math.isfinite(self._about.majority_iou) else _constant_iou(scores)

    def _is_flat(self, scores: Scores) -> bool:
        best = max(self._recent)
        if len(self._recent) < FLAT_EPOCHS or best > self._before + GAIN or np.count_nonzero(scores.support) < 2:
            return False
        return best < self._bar(scores) + LEAD

    def _flat(self, scores: Scores) -> str:
        return (
            f"The mean IoU has not risen for {FLAT_EPOCHS} epochs; it was {max(self._recent):.2f} at best, and one "
            f"class everywhere gives {self._bar(scores):.2f}: the network does not learn."
        )

    def _collapse(self, scores: Scores) -> str:
        predicted = scores.matrix.sum(axis=0)
        index = int(predicted.argmax())
        name = self._names[index] if self._names else f"number {index + 1}"
        named = name if name.startswith("class ") else f"class {name}"
        share, true = predicted[index] / predicted.sum(), scores.support[index] / predicted.sum()
        return (
            f"For {COLLAPSED_EPOCHS} epochs {100 * share:.0f} % of the labelled pixels have been predicted as "
            f"{named}, which has {100 * true:.0f} % of them: the network does not tell the classes apart."
        )

    def _say(self, kind: str, happened: str, facts: EpochFacts) -> list[str]:
        if kind in self.said:
            return []
        self.said.add(kind)
        causes = possible_causes(kind, self._about, facts.scores)
        if len(causes) == 1:
            return [f"{happened} {causes[0]}"]
        listed = " ".join(f"({number}) {cause}" for number, cause in enumerate(causes, 1))
        return [f"{happened} Possible causes, most likely first: {listed}"]


def warnings_before(about: Circumstances) -> list[str]:
    """Give the warnings that the circumstances alone are a reason for."""
    found = []
    if about.too_small:
        found.append(
            f"The chips are {about.chip_width} × {about.chip_height} pixels, and the backbone joins {about.stride} × "
            f"{about.stride} into one: it sees hardly any surroundings. Cut chips of {2 * about.stride} pixels or more "
            "(TILE_SIZE_X, TILE_SIZE_Y in the Raster Splitter)."
        )
    if about.single:
        found.append(
            "BATCH_SIZE is 1 and the network uses batch normalisation, which then measures single chips: the scores on "
            "validation chips will be unsteady. Set BATCH_SIZE to 4 or more."
        )
    if about.train_chips < FEW_CHIPS:
        found.append(
            f"There {'is' if about.train_chips == 1 else 'are'} only {about.train_chips} training "
            f"chip{'' if about.train_chips == 1 else 's'}: a network will learn them by heart. Cut more, for example "
            "smaller or overlapping ones, or label more."
        )
    return found


def verdict(best: Scores, baselines: Baselines, backbone: bool = True) -> str | None:
    """Give a warning where the network is not above what needs no network; None where it is.

    Args:
        best: of the network's best epoch, on the validation chips of the baselines.
        baselines: scores of the same chips.
        backbone: whether the network has one, for the advice.
    """
    own, constant = best.mean_iou, baselines.majority.mean_iou
    linear = math.nan if baselines.linear is None else baselines.linear.mean_iou
    start = f"On the validation chips the network's mean IoU of {own:.3f} is not above "
    if own <= constant:
        beside = f" (a linear classifier of single pixels reaches {linear:.3f})" if linear > constant else ""
        return (
            f"{start}the {constant:.3f} of one class everywhere{beside}: it has learnt nothing. Do not map with it. "
            "Look at the labels and the image on the map, then change LEARNING_RATE"
            + (" and switch FREEZE_BACKBONE off." if backbone else ".")
        )
    if own <= linear and own < PERFECT:
        return (
            f"{start}the {linear:.3f} of a linear classifier of single pixels: it gains nothing from the surroundings. "
            "Raise EPOCHS, cut more chips or label more"
            + (", start from pretrained weights or take a smaller BACKBONE" if backbone else "")
            + "; until then a per-pixel classifier makes the better map."
        )
    return None


def _is_collapsed(scores: Scores) -> bool:
    """Tell whether nearly everything is predicted as one class, though it should not and does not do well."""
    total = int(scores.matrix.sum())
    return bool(
        scores.matrix.sum(axis=0).max() >= COLLAPSED_SHARE * total
        and scores.support.max() < ONE_SIDED_SHARE * total
        and scores.mean_iou < _constant_iou(scores) + LEAD
    )


def _constant_iou(scores: Scores) -> float:
    """Give the mean IoU of the reference's largest class, predicted everywhere."""
    support = scores.support
    return float(support.max() / support.sum() / np.count_nonzero(support))
