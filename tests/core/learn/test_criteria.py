# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the criteria: those of the papers, and defined where the papers' are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from specdeepmap.core.data.classes import IGNORE_INDEX
from specdeepmap.core.learn.criteria import Criterion, CrossEntropy, CrossEntropyDice, Dice, Focal, Lovasz
from tests.helpers import Array

pytestmark = pytest.mark.torch

WEIGHTS = (None, (0.2, 1.0, 3.5, 0.9), (0.0, 1.0, 2.0, 1.0))
SCALE = 2.0**16
"""What training in float16 multiplies a loss by before gradients are computed."""

WEIGHTED = (CrossEntropy, Focal, Dice, CrossEntropyDice)
ALL: tuple[Callable[[], Criterion], ...] = (*WEIGHTED, Lovasz)
POOLED = (CrossEntropy, Focal)


def batch(unlabelled: float = 0.3, seed: int = 4) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(3, 4, 9, 7, generator=random)
    labels = torch.randint(4, (3, 9, 7), generator=random)
    labels[torch.rand(labels.shape, generator=random) < unlabelled] = IGNORE_INDEX
    return logits, labels


def tensor(weights: tuple[float, ...] | None) -> Tensor | None:
    return None if weights is None else torch.tensor(weights)


def by_hand(logits: Tensor, labels: Tensor) -> tuple[Array, Array]:
    """Give chances ``(P, K)`` and classes ``(P,)`` of the labelled pixels, in float64."""
    values = logits.double().movedim(1, -1).reshape(-1, logits.shape[1]).numpy()
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    truth = labels.flatten().numpy()
    labelled = truth != IGNORE_INDEX
    return (powers / powers.sum(axis=1, keepdims=True))[labelled], truth[labelled]


def dice_by_hand(chances: Array, truth: Array, weights: Array) -> float:
    present = sorted(set(truth.tolist()))
    lost = [1 - 2 * chances[truth == k, k].sum() / (chances[:, k].sum() + (truth == k).sum()) for k in present]
    return float(np.average(lost, weights=weights[present]))


def lovasz_by_hand(chances: Array, truth: Array) -> float:
    """Add up the steps of 1 - IoU while the errors of a class are let in one by one, the largest first."""
    lost = []
    for k in set(truth.tolist()):
        own = truth == k
        errors = np.where(own, 1 - chances[:, k], chances[:, k])
        wrong, value, before = np.zeros(len(truth), bool), 0.0, 0.0
        for pixel in np.argsort(-errors):
            wrong[pixel] = True
            jaccard = 1 - (own & ~wrong).sum() / (own | wrong).sum()
            value, before = value + errors[pixel] * (jaccard - before), jaccard
        lost.append(value)
    return float(np.mean(lost))


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("unlabelled", [0.0, 0.3, 0.95])
def test_cross_entropy_equals_pytorch(weights: tuple[float, ...] | None, unlabelled: float) -> None:
    logits, labels = batch(unlabelled)
    wanted = functional.cross_entropy(logits, labels, tensor(weights), ignore_index=IGNORE_INDEX)
    assert torch.allclose(CrossEntropy(tensor(weights))(logits, labels), wanted, rtol=1e-6)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("unlabelled", [0.0, 0.3, 0.95])
def test_values_are_those_of_the_papers(weights: tuple[float, ...] | None, unlabelled: float) -> None:
    logits, labels = batch(unlabelled)
    chances, truth = by_hand(logits, labels)
    own, per_class = chances[np.arange(len(truth)), truth], np.array(weights or (1.0,) * 4)
    entropy = np.average(-np.log(own), weights=per_class[truth])
    dice = dice_by_hand(chances, truth, per_class)
    wanted = {
        CrossEntropy: entropy,
        Focal: np.average(-((1 - own) ** 2) * np.log(own), weights=per_class[truth]),
        Dice: dice,
        CrossEntropyDice: entropy + dice,
    }
    for kind, value in wanted.items():
        assert kind(tensor(weights))(logits, labels).item() == pytest.approx(value, rel=1e-5), kind


@pytest.mark.parametrize("unlabelled", [0.0, 0.3, 0.95])
def test_lovasz_is_that_of_the_paper(unlabelled: float) -> None:
    logits, labels = batch(unlabelled)
    assert Lovasz()(logits, labels).item() == pytest.approx(lovasz_by_hand(*by_hand(logits, labels)), rel=1e-5)


def test_lovasz_of_a_decided_map_is_its_mean_iou_loss() -> None:
    _, labels = batch(0.0)
    mapped = labels.roll(1, dims=2)
    logits = 100.0 * functional.one_hot(mapped, 4).movedim(-1, 1)
    iou = [((labels == k) & (mapped == k)).sum() / ((labels == k) | (mapped == k)).sum() for k in range(4)]
    assert Lovasz()(logits, labels).item() == pytest.approx(1 - torch.stack(iou).mean().item(), rel=1e-5)


@pytest.mark.parametrize("kind", ALL)
def test_takes_logits_and_not_probabilities(kind: Callable[[], Criterion]) -> None:
    logits, labels = batch()
    criterion = kind()
    assert torch.allclose(criterion(logits, labels), criterion(logits.log_softmax(dim=1), labels), rtol=1e-5)
    assert not torch.allclose(criterion(logits, labels), criterion(logits.softmax(dim=1), labels), rtol=0.01)


@pytest.mark.parametrize("kind", ALL)
def test_unlabelled_pixels_count_neither_in_values_nor_in_gradients(kind: Callable[[], Criterion]) -> None:
    logits, labels = batch()
    ignored = (labels == IGNORE_INDEX)[:, None].expand_as(logits)
    other = logits.where(~ignored, 100 * torch.randn_like(logits)).requires_grad_(True)
    loss = kind()(other, labels)
    loss.backward()
    assert torch.equal(loss, kind()(logits, labels))
    assert other.grad is not None
    assert (other.grad[ignored] == 0).all() and (other.grad[~ignored] != 0).any()


@pytest.mark.parametrize("kind", ALL)
def test_batch_without_labels_changes_nothing(kind: Callable[[], Criterion]) -> None:
    logits, labels = batch(1.0)
    logits.requires_grad_(True)
    criterion = kind()
    loss = criterion(logits, labels)
    (SCALE * loss).backward()
    total, weight = criterion.parts(logits, labels)
    assert (loss.item(), total.item(), weight.item()) == (0, 0, 0)
    assert loss.shape == total.shape == weight.shape == ()
    assert logits.grad is not None and (logits.grad == 0).all()


@pytest.mark.parametrize("kind", WEIGHTED)
def test_batch_of_a_class_without_weight_changes_nothing(kind: Callable[[Tensor | None], Criterion]) -> None:
    logits, _ = batch()
    logits.requires_grad_(True)
    loss = kind(tensor(WEIGHTS[2]))(logits, torch.zeros(3, 9, 7, dtype=torch.int64))
    (SCALE * loss).backward()
    assert loss.item() == 0
    assert logits.grad is not None and (logits.grad == 0).all()


@pytest.mark.parametrize("kind", [Dice, Lovasz])
def test_absent_classes_count_neither_as_perfect_nor_as_lost(kind: Callable[[], Criterion]) -> None:
    sure = torch.zeros(1, 4, 5, 5)
    sure[:, 2] = 60.0
    right, wrong = torch.full((1, 5, 5), 2), torch.full((1, 5, 5), 1)
    assert kind()(sure, right).item() == pytest.approx(0.0, abs=1e-6)
    assert kind()(sure, wrong).item() == pytest.approx(1.0, abs=1e-6)
    more = torch.cat((sure, torch.full((1, 3, 5, 5), -60.0)), dim=1)  # three classes that nobody has seen
    assert kind()(more, wrong).item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("kind", POOLED)
def test_parts_of_two_batches_add_up_to_the_whole(
    kind: Callable[[Tensor | None], Criterion], weights: tuple[float, ...] | None
) -> None:
    criterion = kind(tensor(weights))
    logits, labels = batch()
    parts = [criterion.parts(logits[where], labels[where]) for where in (slice(0, 1), slice(1, 3))]
    pooled = sum(part[0] for part in parts) / sum(part[1] for part in parts)
    assert torch.allclose(pooled, criterion(logits, labels), rtol=1e-6)


@pytest.mark.parametrize("kind", ALL)
def test_weight_of_a_batch_is_that_of_its_pixels(kind: Callable[[], Criterion]) -> None:
    logits, labels = batch()
    total, weight = kind().parts(logits, labels)
    assert weight.item() == (labels != IGNORE_INDEX).sum().item()
    assert torch.allclose(total / weight, kind()(logits, labels))


@pytest.mark.parametrize("kind", ALL)
def test_half_precision_logits_lose_nothing_in_the_sum(kind: Callable[[], Criterion]) -> None:
    logits, labels = batch()
    coarse = logits.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        loss = kind()(coarse, labels)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, kind()(coarse.float(), labels))


@pytest.mark.parametrize("kind", WEIGHTED)
def test_weights_are_no_part_of_a_checkpoint(kind: Callable[[Tensor | None], Criterion]) -> None:
    assert not kind(tensor(WEIGHTS[1])).state_dict()


@pytest.mark.parametrize("kind", ALL)
def test_learns_what_is_labelled(kind: Callable[[], Criterion]) -> None:
    logits, labels = batch(seed=9)
    logits.requires_grad_(True)
    optimizer = torch.optim.Adam([logits], lr=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        kind()(logits, labels).backward()
        optimizer.step()
    labelled = labels != IGNORE_INDEX
    assert (logits.argmax(dim=1) == labels)[labelled].float().mean() > 0.99


@given(
    kind=st.sampled_from(ALL),
    seed=st.integers(0, 10_000),
    unlabelled=st.sampled_from([0.0, 0.5, 0.99]),
    spread=st.sampled_from([0.1, 1.0, 30.0]),
)
def test_losses_are_finite_and_blind_to_the_order_of_pixels(
    kind: Callable[[], Criterion], seed: int, unlabelled: float, spread: float
) -> None:
    logits, labels = batch(unlabelled, seed)
    logits = spread * logits
    logits.requires_grad_(True)
    loss = kind()(logits, labels)
    loss.backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert loss.isfinite() and loss.item() >= -1e-6
    order = torch.randperm(labels.numel(), generator=torch.Generator().manual_seed(seed))
    mixed = logits.detach().movedim(1, -1).reshape(-1, 4)[order].reshape(3, 9, 7, 4).movedim(-1, 1)
    assert torch.allclose(kind()(mixed, labels.flatten()[order].reshape(3, 9, 7)), loss, rtol=1e-4, atol=1e-6)


@given(kind=st.sampled_from(ALL), seed=st.integers(0, 10_000), unlabelled=st.sampled_from([0.0, 0.5, 0.99]))
def test_perfect_logits_cost_nothing(kind: Callable[[], Criterion], seed: int, unlabelled: float) -> None:
    _, labels = batch(unlabelled, seed)
    perfect = 60.0 * functional.one_hot(labels.where(labels != IGNORE_INDEX, 0), 4).movedim(-1, 1)
    assert kind()(perfect, labels).item() == pytest.approx(0.0, abs=1e-6)
