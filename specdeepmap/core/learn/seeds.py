# SPDX-License-Identifier: GPL-3.0-or-later
"""Random numbers that depend on where a training stands, not on what was drawn before.

An epoch that is trained again after an interruption then draws what it drew the first time.
"""

from __future__ import annotations

import numpy as np
import torch

ORDER, AUGMENTATION, NETWORK = range(3)
"""What the numbers are for; each purpose has its own."""


def seed_of(*place: int) -> int:
    """Turn the seed of a run, a purpose, an epoch, a batch … into one seed of 64 bits."""
    return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(*place: int) -> torch.Generator:
    """Give the random numbers of a place, on the processor."""
    return torch.Generator().manual_seed(seed_of(*place))
