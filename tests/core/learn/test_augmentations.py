# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of augmentations: what moves a pixel of the image moves its label."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from specdeepmap.core.learn.augmentations import AUGMENTATIONS, turn

pytestmark = pytest.mark.torch


def pair(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Give an image whose last band is the label of each pixel; no two pixels are alike."""
    labels = torch.arange(height * width, dtype=torch.uint8).reshape(height, width)
    return torch.stack((torch.rand(height, width), labels.float())), labels


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("quarters", range(4))
def test_turn_moves_image_and_labels_together(quarters: int, flip: bool) -> None:
    image, labels = pair(7, 7)
    turned, moved = turn(image, labels, quarters, flip)
    assert torch.equal(turned[1].to(torch.uint8), moved)
    assert torch.equal(moved, labels) == (quarters == 0 and not flip)
    assert torch.equal(moved.flatten().sort().values, labels.flatten().sort().values)


def test_eight_turns_are_eight_different_pictures() -> None:
    image, labels = pair(5, 5)
    seen = {tuple(turn(image, labels, q, flip)[1].flatten().tolist()) for q in range(4) for flip in (False, True)}
    assert len(seen) == 8


@pytest.mark.parametrize(("shape", "pictures"), [((6, 6), 8), ((6, 9), 4)])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_by_chance(name: str, shape: tuple[int, int], pictures: int) -> None:
    augment, random = AUGMENTATIONS[name].build(), Generator().manual_seed(1)
    image, labels = pair(*shape)
    seen = set()
    for _ in range(100):
        changed, moved = augment(image, labels, random)
        assert changed.shape == image.shape and moved.shape == labels.shape
        assert torch.equal(changed[1].to(torch.uint8), moved)
        seen.add(tuple(moved.flatten().tolist()))
    assert len(seen) == pictures


def test_same_seed_same_changes() -> None:
    image, labels = pair(6, 6)
    runs = []
    for _ in range(2):
        augment, random = AUGMENTATIONS["flips_and_turns"].build(), Generator().manual_seed(7)
        runs.append(torch.stack([augment(image, labels, random)[1] for _ in range(20)]))
    assert torch.equal(runs[0], runs[1])


def test_the_chip_itself_is_left_alone() -> None:
    augment, random = AUGMENTATIONS["flips_and_turns"].build(), Generator().manual_seed(1)
    image, labels = pair(6, 6)
    before = image.clone(), labels.clone()
    for _ in range(10):
        changed, moved = augment(image, labels, random)
    assert torch.equal(image, before[0]) and torch.equal(labels, before[1])
    assert not torch.equal(moved, labels) or torch.equal(changed, image)
