# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads files in a process of its own and tells, for each, how it ended and how much memory that took.

``python -m tests.fuzz.watcher LIST``: a JSON list of ``[how, path]``; the answers come as JSON, one per line.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

SECONDS = 20
"""How long a file may take."""


def _model(path: Path) -> object:
    from specdeepmap.core.learn.checkpoint import load_checkpoint, rebuild_network

    card, state = load_checkpoint(path)
    network = rebuild_network(card, state, path)
    try:
        return network.load_state_dict(state)
    except RuntimeError:  # the predictor says it
        from specdeepmap.core.errors import CheckpointError

        raise CheckpointError(f"CHECKPOINT {path}: the weights do not fit") from None


def _tensors(path: Path) -> object:
    from specdeepmap.core.learn.weightfile import named_tensors, read_tensors

    return named_tensors(read_tensors(path, "WEIGHTS_FILE"), f"WEIGHTS_FILE {path}")


HOW: dict[str, Callable[[Path], object]] = {"model": _model, "tensors": _tensors}


def _megabytes(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def main() -> None:
    """Load all files of the list."""
    import resource

    import segmentation_models_pytorch
    import timm
    import torch

    from specdeepmap.core.errors import SpecDeepMapError

    torch.set_num_threads(1)
    ready = (segmentation_models_pytorch.__version__, timm.__version__)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for how, name in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak counts from here
        before, start, kind, said = _megabytes("VmRSS"), time.monotonic(), "loaded", ""
        signal.alarm(SECONDS)
        try:
            HOW[how](Path(name))
        except SpecDeepMapError as error:
            kind, said = "sentence", str(error)
        except Exception as error:  # what the tests look for
            kind, said = type(error).__name__, str(error)[:500]
        signal.alarm(0)
        told = {"kind": kind, "said": said, "megabytes": _megabytes("VmHWM") - before}
        told["seconds"] = time.monotonic() - start
        sys.stdout.write(json.dumps({"path": name, "with": ready, **told}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
