# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the table of losses: what it offers is what it builds."""

from __future__ import annotations

import pytest
import torch

from specdeepmap.core.learn.losses import LOSSES

pytestmark = pytest.mark.torch

WEIGHTS = torch.tensor([0.2, 1.0, 3.5])


def test_names_stand_for_their_losses() -> None:
    kinds = {name: type(loss.build(None)).__name__ for name, loss in LOSSES.items()}
    assert kinds == {
        "cross_entropy": "CrossEntropy",
        "dice": "Dice",
        "focal": "Focal",
        "cross_entropy_dice": "CrossEntropyDice",
        "lovasz": "Lovasz",
    }
    assert len({loss.title for loss in LOSSES.values()}) == len(LOSSES)
    assert all(loss.source for loss in LOSSES.values())


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.weighted])
def test_weights_matter(name: str) -> None:
    random = torch.Generator().manual_seed(8)
    logits, labels = torch.randn(2, 3, 6, 6, generator=random), torch.randint(3, (2, 6, 6), generator=random)
    logits[:, 2] += 3  # so that classes are lost to different degrees
    equal, twice, weighted = (
        LOSSES[name].build(weights)(logits, labels) for weights in (None, torch.full((3,), 2.0), WEIGHTS)
    )
    assert torch.allclose(equal, twice, rtol=1e-6)
    assert abs(equal - weighted) > 0.01


def test_loss_that_uses_no_weights_counts_every_class_alike() -> None:
    assert [name for name, loss in LOSSES.items() if not loss.weighted] == ["lovasz"]
    logits, labels = torch.zeros(1, 3, 10, 10), torch.zeros(1, 10, 10, dtype=torch.int64)
    labels[0, 0, 0], labels[0, 0, 1] = 1, 2
    logits[:, 0] = 30.0  # a class of 98 pixels is right, two of one pixel each are lost
    for weights in (None, WEIGHTS):
        loss = LOSSES["lovasz"].build(weights)(logits, labels)
        assert loss.item() == pytest.approx((2 / 100 + 1 + 1) / 3, rel=1e-4)
