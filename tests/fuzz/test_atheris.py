# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests that atheris finds nothing in a minute per reader; in the long run only, where it is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.fuzz.malice import TENSORS, content
from tests.fuzz.mutation import THOROUGH
from tests.fuzz.test_files import CARD, JOBS, PAIRS, STATISTICS, SUMMARY

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not THOROUGH, reason="set SPECDEEPMAP_ALL_FAULTS=1"),
    pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed"),
]

SECONDS = int(os.environ.get("SPECDEEPMAP_FUZZ_SECONDS", "60"))


def _seeds(reader: str, folder: Path) -> None:
    """Write valid files to begin with."""
    texts = {
        "job": [json.dumps(job).encode() for job in JOBS],
        "card": [json.dumps(CARD).encode()],
        "summary": [SUMMARY],
        "statistics": [STATISTICS],
        "pairs": [PAIRS],
    }
    for number, raw in enumerate(texts.get(reader, [])):
        (folder / f"{number}").write_bytes(raw)
    if reader in ("description", "checkpoint"):
        holds = {**content(), "state_dict": {"network.a": torch.ones(2)}}
        torch.save(holds, folder / "model", _use_new_zipfile_serialization=reader == "checkpoint")
        TENSORS["a size in the old format"](folder / "bad")


@pytest.mark.parametrize("reader", ["job", "card", "summary", "statistics", "pairs", "description", "checkpoint"])
def test_atheris_finds_nothing(tmp_path: Path, reader: str) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    _seeds(reader, corpus)
    options = [f"-max_total_time={SECONDS}", "-timeout=20", "-rss_limit_mb=3000", "-print_final_stats=1"]
    harness = [sys.executable, str(Path(__file__).with_name("harness.py")), reader, str(corpus), *options]
    ended = subprocess.run(harness, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS + 120)
    found = [path for path in tmp_path.iterdir() if path.name.startswith(("crash-", "timeout-", "oom-"))]
    assert ended.returncode == 0 and not found, ended.stderr[-3000:]
