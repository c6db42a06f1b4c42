# SPDX-License-Identifier: GPL-3.0-or-later
"""Hardware: the device, the precision and the memory that a network computes with, and who shares the work."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from typing import Any

import torch

from specdeepmap.core.errors import ConfigError, DeviceError


@dataclass(frozen=True)
class Hardware:
    """What a network runs on: the device and its precision, processes per computer, and computers."""

    device: torch.device
    precision: str
    devices: int = 1
    nodes: int = 1

    def autocast(self) -> torch.autocast:
        """Compute in this precision."""
        kind = torch.float16 if self.precision == "float16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=kind, enabled=self.precision != "float32")


def choose_device(device: str) -> torch.device:
    """Turn auto, cpu or gpu into a torch device.

    Raises:
        DeviceError: if ``gpu`` is wanted and there is none.
    """
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
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error) and "memory" in str(error)


def share_devices(devices: int, device: torch.device) -> tuple[int, int]:
    """Give the number of processes and of computers that do a job together, see ``processes_per_run``.

    Raises:
        DeviceError: if there are fewer GPUs than wanted.
    """
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
