# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets atheris look for bytes that readers do not stand: ``python tests/fuzz/harness.py READER CORPUS [options]``.

The options are those of libFuzzer, such as ``-max_total_time=60``. What it finds lies as ``crash-…`` in the current
folder.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
with atheris.instrument_imports(include=["specdeepmap"]):
    from specdeepmap.core.data import dataset
    from specdeepmap.core.errors import SpecDeepMapError
    from specdeepmap.core.jobs import job_from_json
    from specdeepmap.core.learn import checkpoint, inventory, weightfile

PLACE = Path(tempfile.mkdtemp(prefix="fuzz-"))


def _written(raw: bytes, name: str) -> Path:
    path = PLACE / name
    path.write_bytes(raw)
    return path


def _job(raw: bytes) -> None:
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError):
        return
    job_from_json(values)


def _summary(raw: bytes) -> None:
    path = _written(raw, "summary.csv")
    dataset.read_summary(path)
    dataset.read_counts(path)


def _card(raw: bytes) -> None:
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError):
        return
    checkpoint.parse_checkpoint({checkpoint.KEY: values, "state_dict": {}}, Path("x"), "CHECKPOINT")


def _description(raw: bytes) -> None:
    """A description in the old format, which needs no archive around it."""
    try:
        inventory.take_inventory(_written(raw, "x.pth"))
    except (inventory.ExcessError, inventory.ForeignError, *weightfile._DAMAGE):
        return


def _checkpoint(raw: bytes) -> None:
    checkpoint.load_checkpoint(_written(raw, "x.ckpt"))


READERS: dict[str, Callable[[bytes], None]] = {
    "job": _job,
    "summary": _summary,
    "statistics": lambda raw: (dataset.read_statistics(_written(raw, "statistics.csv"), 1.0), None)[1],
    "pairs": lambda raw: (dataset.read_pairs(_written(raw, "pairs.csv")), None)[1],
    "card": _card,
    "description": _description,
    "checkpoint": _checkpoint,
}


def main() -> None:
    """Fuzz the reader that the first argument names."""
    read = READERS[sys.argv.pop(1)]

    def once(raw: bytes) -> None:
        try:
            read(raw)
        except SpecDeepMapError as error:
            if len(str(error)) > 20 * len(raw) + 5000:
                raise

    atheris.Setup(sys.argv, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
