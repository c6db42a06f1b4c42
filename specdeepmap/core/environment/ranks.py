# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of several processes that work on one job together this one is."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Tell whether this process speaks for all that work on a job together; alone, it does.

    The variables are those of ``torchrun``, Lightning and SLURM.
    """
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if name in os.environ:
            return os.environ[name] == "0" and os.environ.get("NODE_RANK", "0") == "0"
    return True
