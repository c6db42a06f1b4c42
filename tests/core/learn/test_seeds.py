# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of random numbers by place: they depend on the place alone."""

from __future__ import annotations

import random as python_random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specdeepmap.core.learn.seeds import AUGMENTATION, NETWORK, ORDER, generator, seed_of

pytestmark = pytest.mark.torch

PLACES = st.tuples(
    st.integers(0, 2**31), st.sampled_from([ORDER, AUGMENTATION, NETWORK]), st.integers(0, 500), st.integers(0, 5000)
)


@given(PLACES, PLACES)
def test_each_place_has_its_own_seed(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    assert (seed_of(*one) == seed_of(*other)) == (one == other)
    assert 0 <= seed_of(*one) < 2**63  # what PyTorch takes


def test_neighbouring_places_have_unrelated_numbers() -> None:
    draws = torch.stack([torch.rand(400, generator=generator(42, ORDER, epoch)) for epoch in range(20)])
    likeness = torch.corrcoef(draws) - torch.eye(20)
    assert likeness.abs().max() < 0.25


def test_seeds_stay_what_they_are_from_version_to_version() -> None:
    assert seed_of(42, ORDER, 3) == 2_541_993_491_002_287_814  # a training can be resumed after an update


def test_what_was_drawn_before_does_not_matter_and_nothing_global_moves() -> None:
    first = torch.rand(5, generator=generator(1, ORDER, 2))
    torch.manual_seed(3)
    np.random.seed(3)
    python_random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), python_random.getstate()  # type: ignore[index,union-attr]
    again = torch.rand(5, generator=generator(1, ORDER, 2))
    assert torch.equal(first, again)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # type: ignore[index]
    assert before[2] == python_random.getstate()
