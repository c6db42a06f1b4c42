# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Python was found to be able to do: versions, graphics cards, and what is wrong with it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from specdeepmap.core.environment.search import PACKAGE, TORCH_MODULES, child_environ
from specdeepmap.core.process import run_patiently

REQUIREMENTS = PACKAGE / "requirements.txt"
"""What the Python that does the work needs."""

_PROBE = Path(__file__).with_name("probe.py")
_PROBE_SECONDS = 300
"""A first import of torch from a slow disk takes minutes."""


@dataclass(frozen=True)
class Findings:
    """What a Python said of itself.

    Attributes:
        python: its interpreter.
        version: its version, as in 3.11.2.
        modules: versions of the modules that a training imports; None for what cannot be imported.
        devices: names of the GPUs that torch can compute on.
        cuda: CUDA version that torch was built for.
        problems: sentences; empty if it can do all work.
    """

    python: Path
    version: str = ""
    modules: dict[str, str | None] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    cuda: str | None = None
    problems: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether it can do all work."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Give plain values."""
        return {**asdict(self), "python": str(self.python)}

    def lines(self) -> list[str]:
        """Say it for people, a line each."""
        found = [f"Python {self.version}: {self.python}"]
        found += [f"  {name} {version or 'missing'}" for name, version in self.modules.items()]
        built = f"; PyTorch is built for CUDA {self.cuda}" if self.cuda else ""
        found.append(f"  computes on: {', '.join(self.devices) or 'the processor'}{built}")
        return found + [f"  Problem: {text}" for text in self.problems]


def read_requirements(path: Path) -> tuple[str, ...]:
    """Read the requirements of a file in pip's format: its lines without comments."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return tuple(line for line in lines if line)


def examine(
    python: Path,
    modules: Sequence[str] = TORCH_MODULES,
    requirements: Sequence[Path] = (REQUIREMENTS,),
    check: Callable[[], None] | None = None,
) -> Findings:
    """Have a Python import what a training needs, in a process of its own, and compute a little.

    Args:
        python: the interpreter; it may be any program.
        modules: to import.
        requirements: files in pip's format, which say what versions are needed.
        check: is called while it is waited for, and may raise to give up.
    """
    wanted = [line for path in requirements for line in read_requirements(path)]
    command = [str(python), "-X", "utf8", str(_PROBE), *modules, "--", *wanted]
    try:
        done = run_patiently(command, child_environ(), _PROBE_SECONDS, check)
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return Findings(python, problems=(f"{python} did not answer within {_PROBE_SECONDS} seconds.",))
    except OSError as error:
        return Findings(python, problems=(f"{python} cannot be started: {error.strerror or error}.",))
    except ValueError:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:]
        reason = f" It said: {said[0]}" if said else ""
        return Findings(
            python, problems=(f"{python} does not answer as a Python (exit code {done.returncode}).{reason}",)
        )
    return Findings(
        python=python,
        version=str(answer["version"]),
        modules=answer["modules"],
        devices=tuple(answer["devices"]),
        cuda=answer["cuda"],
        problems=tuple(answer["problems"]),
    )
