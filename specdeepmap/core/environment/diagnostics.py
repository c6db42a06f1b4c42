# SPDX-License-Identifier: GPL-3.0-or-later
"""What is there, for the user and for bug reports: the Python in use, the environment, the machine."""

from __future__ import annotations

import getpass
import os
import platform
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specdeepmap import __version__
from specdeepmap.core.environment.findings import Findings, examine
from specdeepmap.core.environment.installation import STATES, Installation
from specdeepmap.core.environment.machine import graphics_cards
from specdeepmap.core.environment.search import (
    TORCH_MODULES,
    VARIABLE,
    Search,
    chosen_python,
    environment_python,
    find_python,
    profile_environment,
    reason,
)

_TELLING = ("PYTHONHOME", "PYTHONPATH", "CUDA_VISIBLE_DEVICES", "PIP_INDEX_URL", "HTTPS_PROXY", "https_proxy")
"""Environment variables that explain failures. Only whether they are set is told: some hold passwords."""

_LOG_LINES = 40


@dataclass(frozen=True)
class Status:
    """What is there.

    Attributes:
        installation: the plugin's own environment, whether made or not.
        search: which Python would be used for a training.
        source: where that Python comes from, in words; empty where there is none.
        findings: what that Python can do; None where there is none.
        cards: graphics cards that the driver knows.
        free_gb: room on the disk of the environment.
    """

    installation: Installation
    search: Search
    source: str
    findings: Findings | None
    cards: tuple[str, ...]
    free_gb: float

    @classmethod
    def look(cls, check: Callable[[], None] | None = None) -> Status:
        """Look at all; takes some seconds, since PyTorch is imported in another process.

        Args:
            check: is called meanwhile, and may raise to give up.
        """
        installation, search = Installation(), find_python(TORCH_MODULES, check=check)
        place = next(path for path in (installation.folder, *installation.folder.parents) if path.exists())
        return cls(
            installation=installation,
            search=search,
            source=_source(search.python),
            findings=examine(search.python, check=check) if search.python else None,
            cards=graphics_cards(),
            free_gb=shutil.disk_usage(place).free / 1e9,
        )

    @property
    def ready(self) -> bool:
        """Whether a training could start."""
        return self.findings is not None and self.findings.ready

    @property
    def headline(self) -> str:
        """Say it in a sentence."""
        if self.findings is None:
            state = self.installation.state
            if self.search.looked_at and self.source_is_fixed:
                path, lacks = self.search.looked_at[0]
                return f"Not ready: {path}, which was named or chosen, {reason(lacks)}."
            return f"Not ready: the deep-learning environment is {STATES['none' if state == 'ready' else state]}."
        if not self.findings.ready:
            return f"Not ready: {self.findings.problems[0]}"
        where = ", ".join(self.findings.devices) or "the processor"
        return f"Ready: PyTorch {self.findings.modules.get('torch')} computes on {where}."

    @property
    def source_is_fixed(self) -> bool:
        """Whether the user named or chose the Python, so that the plugin's own environment is not looked at."""
        return bool(os.environ.get(VARIABLE)) or chosen_python() is not None

    def lines(self) -> list[str]:
        """Say all of it, a line each."""
        found = [self.headline]
        if self.source:
            found.append(f"Python in use: {self.source}")
        if self.findings is not None:
            found += self.findings.lines()
        found += [f"Looked at {path}: {reason(lacks)}" for path, lacks in self.search.looked_at]
        found.append(f"Own environment: {STATES[self.installation.state]} ({self.installation.folder})")
        found.append(f"Graphics cards: {'; '.join(self.cards) or 'no NVIDIA driver found'}")
        found.append(f"Free disk space: {self.free_gb:.1f} GB")
        return found

    def to_json(self) -> dict[str, Any]:
        """Give plain values, for the dialog."""
        return {
            "ready": self.ready,
            "headline": self.headline,
            "state": self.installation.state,
            "folder": str(self.installation.folder),
            "source": self.source,
            "fixed": self.source_is_fixed,
            "chosen": chosen_python() is not None,
            "findings": self.findings.to_json() if self.findings else None,
            "cards": list(self.cards),
            "free_gb": round(self.free_gb, 1),
            "lines": self.lines(),
        }


def report(status: Status, more: Mapping[str, str] | None = None) -> str:
    """Write a report to copy into a bug report: no name of the user, no secrets.

    Args:
        status: what is there.
        more: what the caller knows besides, as the version of QGIS.
    """
    facts = {
        "SpecDeepMap": __version__,
        **(more or {}),
        "System": platform.platform(),
        "Processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "Variables set": ", ".join(name for name in (VARIABLE, *_TELLING) if os.environ.get(name)) or "none",
    }
    lines = [f"{name}: {text}" for name, text in facts.items()] + status.lines()
    log = status.installation.log
    if log.is_file():
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        lines += ["", "End of the last installation's log:", *(f"  {line}" for line in said)]
    return anonymous("\n".join(lines) + "\n")


def anonymous(text: str, home: Path | None = None, user: str | None = None) -> str:
    """Take the home folder and the user's name out of a text, and passwords out of addresses."""
    home = home or Path.home()
    if user is None:
        try:
            user = getpass.getuser()
        except (KeyError, OSError):
            user = ""
    text = re.sub(r"(\w+://)[^/\s:@]+:[^/\s@]+@", r"\1", text)
    if len(home.parts) > 1:
        for form in {str(home), home.as_posix(), str(home).replace("\\", "\\\\")}:
            text = re.sub(re.escape(form) + r"(?![\w.-])", "~", text, flags=re.IGNORECASE if os.name == "nt" else 0)
    if len(user) > 1 and user != "root":
        text = re.sub(rf"(?<=[\\/]){re.escape(user)}(?=[\\/\s]|$)", "<user>", text, flags=re.MULTILINE)
    return text


def _source(python: Path | None) -> str:
    if python is None:
        return ""
    if os.environ.get(VARIABLE):
        return f"named by the environment variable {VARIABLE}"
    if chosen_python() is not None:
        return "chosen by you"
    if python == environment_python(profile_environment()).absolute():
        return "the plugin's own environment"
    return "QGIS's own Python"
