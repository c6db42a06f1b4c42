# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the losses: those of PyTorch, and defined where PyTorch's are not."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from specdeepmap.core.data.classes import IGNORE_INDEX
from specdeepmap.core.learn.losses import CrossEntropy

pytestmark = pytest.mark.torch

WEIGHTS = (None, (0.2, 1.0, 3.5, 0.9), (0.0, 1.0, 2.0, 1.0))


def batch(unlabelled: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(4)
    logits = 4 * torch.randn(3, 4, 9, 7, generator=random)
    labels = torch.randint(4, (3, 9, 7), generator=random)
    labels[torch.rand(labels.shape, generator=random) < unlabelled] = IGNORE_INDEX
    return logits, labels


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("unlabelled", [0.0, 0.3, 0.95])
def test_equals_pytorch(weights: tuple[float, ...] | None, unlabelled: float) -> None:
    logits, labels = batch(unlabelled)
    tensor = None if weights is None else torch.tensor(weights)
    wanted = functional.cross_entropy(logits, labels, tensor, ignore_index=IGNORE_INDEX)
    assert torch.allclose(CrossEntropy(tensor)(logits, labels), wanted, rtol=1e-6)


def test_takes_logits_and_not_probabilities() -> None:
    logits, labels = batch()
    labelled = labels != IGNORE_INDEX
    chances = logits.softmax(dim=1).movedim(1, -1)[labelled]
    by_hand = -chances.gather(1, labels[labelled][:, None]).log().mean()
    assert torch.allclose(CrossEntropy()(logits, labels), by_hand, rtol=1e-5)
    assert not torch.allclose(CrossEntropy()(logits.softmax(dim=1), labels), by_hand, rtol=0.01)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_batch_without_labels_changes_nothing(weights: tuple[float, ...] | None) -> None:
    logits, labels = batch()
    labels[:] = IGNORE_INDEX
    logits.requires_grad_(True)
    loss = CrossEntropy(None if weights is None else torch.tensor(weights))(logits, labels)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and (logits.grad == 0).all()


def test_batch_of_a_class_without_weight_changes_nothing() -> None:
    logits, _ = batch()
    logits.requires_grad_(True)
    loss = CrossEntropy(torch.tensor(WEIGHTS[2]))(logits, torch.zeros(3, 9, 7, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and (logits.grad == 0).all()


def test_parts_of_two_batches_add_up_to_the_whole() -> None:
    criterion = CrossEntropy(torch.tensor(WEIGHTS[1]))
    logits, labels = batch()
    whole = criterion(logits, labels)
    parts = [criterion.parts(logits[where], labels[where]) for where in (slice(0, 1), slice(1, 3))]
    assert torch.allclose(sum(p[0] for p in parts) / sum(p[1] for p in parts), whole, rtol=1e-6)


def test_half_precision_logits_lose_nothing_in_the_sum() -> None:
    logits, labels = batch()
    coarse = logits.to(torch.bfloat16)
    assert torch.equal(CrossEntropy()(coarse, labels), CrossEntropy()(coarse.float(), labels))


def test_weights_are_no_part_of_a_checkpoint() -> None:
    assert not CrossEntropy(torch.tensor(WEIGHTS[1])).state_dict()
