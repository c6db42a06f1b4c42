# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the perceptron that knows single pixels only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from specdeepmap.core.errors import Canceled
from specdeepmap.core.learn.pixelwise import Pixelwise
from specdeepmap.core.learn.spectral import SpectralNetwork
from specdeepmap.core.progress import Progress
from tests.helpers import Array

pytestmark = pytest.mark.torch

EVEN = torch.ones(3)


def crossed(count: int = 900, seed: int = 1) -> tuple[Array, Array]:
    """Give pixels ``(pixels, 2)`` of the classes 0 and 2 that no line tells apart: each in two opposite corners."""
    random = np.random.default_rng(seed)
    signs = random.choice([-1.0, 1.0], (count, 2))
    pixels = signs * 2 + random.normal(0, 0.5, (count, 2))
    return pixels.astype(np.float32), np.where(signs[:, 0] == signs[:, 1], 0, 2).astype(np.uint8)


def taught(seed: int = 5) -> Pixelwise:
    member = Pixelwise(2, 3)
    member.learn(*crossed(), EVEN, seed, Progress())
    return member


def logits_of(member: Pixelwise, pixels: Array) -> Tensor:
    """Give logits ``(pixels, classes)``."""
    images = torch.from_numpy(pixels.T[None, :, :, None])
    return member.rest(member.first(images))[0, :, :, 0].T


def test_it_learns_what_is_not_linear() -> None:
    pixels, indices = crossed(seed=2)
    assert (logits_of(taught(), pixels).argmax(dim=1).numpy() == indices).mean() > 0.97


def test_it_is_what_was_learnt_with_its_normalisations_in_the_weights() -> None:
    """Logits of the two known classes are each other's opposite, as centred ones are."""
    logits = logits_of(taught(), crossed()[0])
    assert torch.allclose(logits[:, 0], -logits[:, 2], atol=1e-4) and (logits[:, 1] == -20).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e5, 1e5, width=32), min_size=2, max_size=2))
def test_a_class_without_a_pixel_wins_nowhere(pixel: list[float]) -> None:
    assert int(logits_of(_TAUGHT, np.array([pixel], np.float32)).argmax()) != 1


_TAUGHT = taught()


def test_same_seed_same_numbers_and_nobody_elses_chance_is_used() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    first, second, other = taught(), taught(), taught(6)
    assert torch.equal(torch.rand(4), wanted)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    assert not torch.equal(first.get_buffer("weight0"), other.get_buffer("weight0"))


def test_weights_of_the_classes_count() -> None:
    random = np.random.default_rng(1)
    pixels = random.normal(0, 1, (600, 2)).astype(np.float32)  # nothing to tell classes apart by
    indices = (random.random(600) < 0.2).astype(np.uint8)
    shares = []
    for rare in (1.0, 16.0):
        member = Pixelwise(2, 2)
        member.learn(pixels, indices, torch.tensor([1.0, rare]), 1, Progress())
        shares.append(float((logits_of(member, pixels).argmax(dim=1) == 1).float().mean()))
    assert shares[0] < 0.3 < 0.7 < shares[1]


@pytest.mark.parametrize("count", [2, 3, 9, 40])
def test_few_pixels_and_such_that_are_no_numbers(count: int) -> None:
    pixels, indices = crossed(count)
    pixels[0, 0] = np.nan
    member = Pixelwise(2, 3)
    member.learn(pixels, indices, EVEN, 1, Progress())
    assert all(torch.isfinite(value).all() for value in member.state_dict().values())


def test_a_cancel_is_heard() -> None:
    class Canceling(Progress):
        def check(self) -> None:
            raise Canceled

    member = Pixelwise(2, 3)
    with pytest.raises(Canceled):
        member.learn(*crossed(), EVEN, 1, Canceling())
    assert not member.learnt


def test_no_optimiser_touches_it() -> None:
    assert not list(Pixelwise(2, 3).parameters())


def test_the_network_answers_with_the_mean_once_it_has_learnt() -> None:
    torch.manual_seed(1)
    network = SpectralNetwork(2, 3).eval()
    member = network.segmentation_head.pixelwise
    images = torch.randn(1, 2, 8, 8)
    with torch.inference_mode():
        alone = network(images)
    member.learn(*crossed(), EVEN, 1, Progress())
    with torch.inference_mode():
        together, own = network(images), member.rest(member.first(images))
        assert torch.allclose(together, (alone + own) / 2, atol=1e-5)
        network.train()
        for part in (network.spectrum, network.surroundings, network.segmentation_head.dropout):
            part.eval()
        assert torch.allclose(network(images), alone, atol=1e-5), "in training it stands aside"
