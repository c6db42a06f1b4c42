# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of optimisers, schedules, devices and precisions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specdeepmap.core.learn.options import DEVICES, OPTIMIZERS, PRECISIONS, SCHEDULERS, WARM_UP_SHARE, cosine_factor

pytestmark = pytest.mark.torch


@given(steps=st.integers(2, 3000))
def test_cosine_warms_up_to_1_and_falls_to_almost_0(steps: int) -> None:
    factors = [cosine_factor(step, steps) for step in range(steps)]
    warm_up = max(round(WARM_UP_SHARE * steps), 1)
    assert factors[:warm_up] == sorted(factors[:warm_up])
    assert factors[warm_up - 1] == pytest.approx(1)
    assert factors[warm_up:] == sorted(factors[warm_up:], reverse=True)
    assert all(0 < factor <= 1 for factor in factors)
    assert cosine_factor(steps, steps) == pytest.approx(0, abs=1e-12)
    assert cosine_factor(steps + 5, steps) == pytest.approx(0, abs=1e-12)


def test_cosine_is_a_half_in_the_middle() -> None:
    assert cosine_factor(50 + 475, 1000) == pytest.approx(0.5)


def rates(name: str, steps: int) -> list[float]:
    optimizer = OPTIMIZERS["sgd"].build([torch.nn.Parameter(torch.zeros(1))], 0.1, 0.0)
    schedule = SCHEDULERS[name].build(optimizer, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step(*([1.0] if name == "plateau" else []))
    return found


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_schedule_steps(name: str) -> None:
    found = rates(name, 60)
    assert max(found) == pytest.approx(0.1, rel=0.01)
    assert min(found) > 0
    assert (len(set(found)) == 1) == (name == "constant")


def test_shapes_of_the_schedules() -> None:
    assert rates("plateau", 60)[:7] == [0.1] * 6 + [pytest.approx(0.01)], "after five without a better one"
    assert rates("plateau", 60)[-1] < 0.01 * 0.1
    one_cycle = rates("one_cycle", 60)
    peak = one_cycle.index(max(one_cycle))
    assert 5 < peak < 40 and one_cycle[0] < 0.01 and one_cycle[-1] < 0.001
    cosine = rates("cosine", 60)
    assert cosine.index(max(cosine)) <= 3 and cosine[-1] < 0.001


@pytest.mark.parametrize(("change", "rate"), [(-0.01, 0.1), (0.01, 0.01)])
def test_plateau_waits_while_the_loss_falls(change: float, rate: float) -> None:
    optimizer = OPTIMIZERS["sgd"].build([torch.nn.Parameter(torch.zeros(1))], 0.1, 0.0)
    schedule = SCHEDULERS["plateau"].build(optimizer, 0)
    for epoch in range(9):
        optimizer.step()
        schedule.step(1.0 + change * epoch)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_downhill(name: str) -> None:
    place = torch.nn.Parameter(torch.tensor([3.0]))
    optimizer = OPTIMIZERS[name].build([place], 0.05, 0.0)
    for _ in range(200):
        optimizer.zero_grad()
        (place**2).sum().backward()
        optimizer.step()
    assert abs(place.item()) < 0.5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_rate_and_decay(name: str) -> None:
    optimizer = OPTIMIZERS[name].build([torch.nn.Parameter(torch.zeros(1))], 0.05, 0.02)
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (0.05, 0.02)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_each_group_keeps_its_own_rate(name: str) -> None:
    """A backbone that is trained at a tenth of the rate stays at a tenth of it."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))]}, {"params": [torch.nn.Parameter(torch.zeros(1))]}]
    optimizer = OPTIMIZERS["adamw"].build([groups[0], {**groups[1], "lr": 0.01}], 0.1, 0.0)
    schedule = SCHEDULERS[name].build(optimizer, 20)
    for _ in range(20):
        optimizer.step()
        schedule.step(*([1.0] if name == "plateau" else []))
        large, small = (group["lr"] for group in optimizer.param_groups)
        assert small == pytest.approx(0.1 * large)


def test_every_option_has_a_title() -> None:
    for table in (DEVICES, PRECISIONS, OPTIMIZERS, SCHEDULERS):
        assert all(entry.title for entry in table.values())
