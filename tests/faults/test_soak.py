# SPDX-License-Identifier: GPL-3.0-or-later
"""Many small jobs one after another in one QGIS: nothing piles up, whether they end well, fail or are canceled."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("qgis.core", reason="needs QGIS's Python bindings")

from tests.desktop import Chain
from tests.faults.soak import Footprint, Work
from tests.processes import linux

pytestmark = [pytest.mark.gui, pytest.mark.torch, linux]

ROUNDS = 20 if os.environ.get("SPECDEEPMAP_ALL_FAULTS") else 2
"""Of ten jobs each; the first warms up: QGIS loads icons, data providers, projections and its history then."""

MEGABYTES, MEGABYTES_PER_ROUND = 6.0, 1.0
"""What QGIS may grow by: caches that are still filling, and in each round what QGIS itself loses, 0.05 MB with every
dialog, also with those of its own algorithms, and 0.1 MB with every Python algorithm that raises (its traceback)."""


def test_a_long_day_leaves_nothing_behind(
    chain: Chain, qgis: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, scratch = Work(chain, tmp_path / "out"), tmp_path / "scratch"
    chain.checkpoint  # noqa: B018 - trains it
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setenv("TMPDIR", str(scratch))
    footprints = []
    for _ in range(ROUNDS):
        for job in work.round():
            job()
        footprints.append(Footprint.taken(scratch))
    warm, end = footprints[0], footprints[-1]
    assert end.files <= warm.files, footprints
    assert end.threads <= warm.threads + 2, footprints  # Qt's pools start and end theirs as they please
    assert end.children <= warm.children, footprints
    assert end.temporary <= warm.temporary, footprints
    assert end.megabytes - warm.megabytes <= MEGABYTES + MEGABYTES_PER_ROUND * (ROUNDS - 1), footprints
