# SPDX-License-Identifier: GPL-3.0-or-later
"""Optimisers, schedules, precisions and devices. Builders import torch inside, so that dialogs need none."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdeepmap.core.data.options import Choice
from specdeepmap.core.errors import ConfigError, DeviceError

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


def choose_device(device: str) -> torch.device:
    """Turn auto, cpu or gpu into a torch device.

    Raises:
        DeviceError: if ``gpu`` is wanted and there is none.
    """
    import torch

    if device != "cpu":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        if torch.backends.mps.is_available():
            return torch.device("mps")
        if device == "gpu":
            raise DeviceError(
                "DEVICE is gpu, but PyTorch finds no GPU on this computer (neither CUDA nor Apple MPS). "
                "Set DEVICE to auto or cpu, or install a PyTorch that fits the GPU's driver."
            )
    return torch.device("cpu")


def choose_precision(precision: str, device: torch.device) -> str:
    """Turn a PRECISION into one that the device has: float32, bfloat16 or float16.

    Raises:
        ConfigError: if float16 is wanted on the processor.
    """
    import torch

    if precision == "auto":
        if device.type == "cuda":
            emulated = torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0)
            return "bfloat16" if torch.cuda.is_bf16_supported() and not emulated else "float32"
        return "bfloat16" if device.type == "cpu" and _processor_has_bfloat16() else "float32"
    if precision == "float16" and device.type == "cpu":
        raise ConfigError(
            "PRECISION is float16, which needs a GPU; this run is on the processor. Take auto or bfloat16."
        )
    return precision


def _processor_has_bfloat16() -> bool:
    """Tell from the processor's flags, never by timing, whether it multiplies bfloat16 in hardware."""
    import torch

    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # since PyTorch 2.10
    return any(capabilities.get(flag, False) for flag in ("amx_bf16", "avx512_bf16"))


def reuse_memory() -> None:
    """Keep freed memory for what comes next, on Linux.

    The C library there gives every block above 32 MB back to the system at once, and a new one costs a page fault for
    each 4 KB of it: copying a batch of 50 MB takes four times as long (see M_MMAP_THRESHOLD in mallopt(3)).
    """
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    # Older versions take no more than 32 MB, and musl has no such thing. The other setting alone would do harm.
    if hasattr(library, "mallopt") and any(library.mallopt(mmap_threshold, size) for size in (2**30, 2**25)):
        library.mallopt(trim_threshold, 2**31 - 1)
        library.mallopt(arena_max, 1)  # a thread's own arena gives back whatever is free


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether a GPU's memory, or that of the processor, is exhausted."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error) and "memory" in str(error)


def share_devices(devices: int, device: torch.device) -> tuple[int, int]:
    """Give the number of processes and of computers that do a job together, see ``processes_per_run``.

    Raises:
        DeviceError: if there are fewer GPUs than wanted.
    """
    import torch

    processes, nodes = processes_per_run(devices)
    if device.type == "cuda" and torch.cuda.device_count() < processes // nodes:
        raise DeviceError(f"DEVICES is {devices}, but this computer has {torch.cuda.device_count()} GPU(s).")
    if device.type == "mps" and processes > 1:
        raise DeviceError(f"DEVICES is {devices}, but an Apple GPU can only be used by one process. Set it to 1.")
    return processes, nodes


def processes_per_run(devices: int) -> tuple[int, int]:
    """Give the number of processes and of computers that train together.

    More than one computer is what a cluster says: ``torchrun`` or SLURM start the processes there.
    """
    environment = os.environ
    if "LOCAL_WORLD_SIZE" in environment:
        local = int(environment["LOCAL_WORLD_SIZE"])
        return local * (nodes := int(environment["WORLD_SIZE"]) // local), nodes
    nodes = int(environment.get("SLURM_NNODES", 1)) if "SLURM_PROCID" in environment else 1
    return devices * nodes, nodes
