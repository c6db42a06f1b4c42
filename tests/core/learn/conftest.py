# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for the tests of the learning room."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # chips are so small that threads only wait for each other
