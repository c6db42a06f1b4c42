# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of which process speaks for all."""

from __future__ import annotations

import pytest

from specdeepmap.core.environment.ranks import is_first_process


@pytest.mark.parametrize(
    ("environ", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "1", "LOCAL_RANK": "1"}, False),
        ({"RANK": "4", "LOCAL_RANK": "0"}, False),  # torchrun: the first one of the second computer
        ({"LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "2"}, False),  # what Lightning starts
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, True),
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "3", "SLURM_LOCALID": "0"}, False),
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, False),  # Lightning's, in a job of one task
        ({"SLURM_PROCID": "2", "RANK": "0"}, True),  # torchrun in a job of several
        ({"RANK": "10"}, False),
    ],
)
def test_one_of_several_processes_speaks_for_all(
    environ: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() == first
