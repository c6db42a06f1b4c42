# SPDX-License-Identifier: GPL-3.0-or-later
"""A team: the processes that do one job together, without a common network to train."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import torch

from specdeepmap.core.learn.hardware import share_devices

_PATIENCE = timedelta(days=7)
"""How long one process waits for the others; PyTorch's own half an hour is less than a large map takes."""


@dataclass(frozen=True)
class Team:
    """This process among those that work together.

    Attributes:
        number: of this process, from 0.
        size: how many there are.
        device: of this process.
        mark: tells this team from others that work at the same time: the number of the first one's process.
    """

    number: int
    size: int
    device: torch.device
    mark: int

    @classmethod
    def join(cls, devices: int, device: torch.device) -> Team:
        """Start the processes on this computer, or find those that ``torchrun`` or SLURM started.

        Args:
            devices: processes on this computer.
            device: of a process that is alone; those of a team have one of this kind each.

        Raises:
            DeviceError: if there are fewer GPUs than wanted.
        """
        processes, nodes = share_devices(devices, device)
        if processes == 1:
            return cls(0, 1, device, os.getpid())
        from lightning.fabric import Fabric
        from lightning.fabric.strategies.ddp import DDPStrategy

        # They tell each other no more than that they are done: gloo does on every device.
        strategy = DDPStrategy(process_group_backend="gloo", timeout=_PATIENCE)
        kind = {"cpu": "cpu", "cuda": "gpu"}[device.type]
        fabric = Fabric(accelerator=kind, devices=processes // nodes, num_nodes=nodes, strategy=strategy)
        fabric.launch()
        alone = cls(fabric.global_rank, fabric.world_size, fabric.device, os.getpid())
        return replace(alone, mark=alone.total((0 if alone.number else alone.mark,))[0])

    def total(self, counts: Sequence[int]) -> list[int]:
        """Wait until all processes are here, and add up what they counted."""
        sums = torch.tensor(counts, dtype=torch.int64)
        if self.size > 1:
            torch.distributed.all_reduce(sums)
        return [int(number) for number in sums]
