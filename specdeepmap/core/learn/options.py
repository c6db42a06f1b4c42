# SPDX-License-Identifier: GPL-3.0-or-later
"""Optimisers, schedules, and names of precisions and devices. Builders import torch inside: dialogs need none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdeepmap.core.data.options import Choice

if TYPE_CHECKING:
    import torch

WARM_UP_SHARE = 0.05
"""Share of all steps in which the cosine schedule rises to the full rate."""


@dataclass(frozen=True)
class Optimizer:
    """An optimiser and how to build it from parameters, learning rate, weight decay, and whether it may be fused.

    A fused one updates all parameters in one pass. In mixed precision it also undoes the scaling of gradients only
    then, which is too late for clipping.
    """

    title: str
    build: Callable[..., torch.optim.Optimizer]


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule and how to build it from the optimiser and the number of steps."""

    title: str
    interval: str
    build: Callable[[torch.optim.Optimizer, int], Any]


def _adam(parameters: Iterable[Any], rate: float, decay: float, fuse: bool = True) -> torch.optim.Optimizer:
    import torch

    groups = list(parameters)
    return torch.optim.Adam(groups, lr=rate, weight_decay=decay, fused=fuse and _may_fuse(groups))


def _adamw(parameters: Iterable[Any], rate: float, decay: float, fuse: bool = True) -> torch.optim.Optimizer:
    import torch

    groups = list(parameters)
    return torch.optim.AdamW(groups, lr=rate, weight_decay=decay, fused=fuse and _may_fuse(groups))


def _may_fuse(groups: list[Any]) -> bool:
    """Tell whether PyTorch updates all parameters in one pass where they are; it does so on CPUs and CUDA."""
    parameters = (entry for group in groups for entry in (group["params"] if isinstance(group, dict) else [group]))
    return all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)


def _sgd(parameters: Iterable[Any], rate: float, decay: float, fuse: bool = False) -> torch.optim.Optimizer:
    import torch

    return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, momentum=0.9)


def cosine_factor(step: int, steps: int) -> float:
    """Give the share of the learning rate at a step: linear warm-up, then half a cosine (Loshchilov & Hutter 2017)."""
    warm_up = max(round(WARM_UP_SHARE * steps), 1)
    if step < warm_up:
        return (step + 1) / warm_up
    done = (step - warm_up) / max(steps - warm_up, 1)
    return 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


def _cosine(optimizer: torch.optim.Optimizer, steps: int) -> Any:
    import torch

    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine_factor(step, steps))


def _plateau(optimizer: torch.optim.Optimizer, steps: int) -> Any:
    import torch

    # After the fifth epoch without a lower loss: PyTorch counts those that are put up with.
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", factor=0.1, patience=4)


def _one_cycle(optimizer: torch.optim.Optimizer, steps: int) -> Any:
    import torch

    rates = [group["lr"] for group in optimizer.param_groups]
    # One step more than there are: the schedule moves on after the last one, too.
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rates, total_steps=steps + 1)


def _constant(optimizer: torch.optim.Optimizer, steps: int) -> Any:
    import torch

    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


OPTIMIZERS = {
    "adam": Optimizer("Adam", _adam),
    "adamw": Optimizer("AdamW", _adamw),
    "sgd": Optimizer("SGD with momentum", _sgd),
}

SCHEDULERS = {
    "cosine": Schedule("Cosine with warm-up", "step", _cosine),
    "plateau": Schedule("Reduce on plateau", "epoch", _plateau),
    "one_cycle": Schedule("One cycle", "step", _one_cycle),
    "constant": Schedule("Constant", "step", _constant),
}

PRECISIONS = {
    "auto": Choice("Automatic"),
    "float32": Choice("float32"),
    "bfloat16": Choice("bfloat16 (mixed)"),
    "float16": Choice("float16 (mixed, GPU only)"),
}

DEVICES = {
    "auto": Choice("Automatic"),
    "cpu": Choice("Processor (CPU)"),
    "gpu": Choice("Graphics card (GPU)"),
}
