# SPDX-License-Identifier: GPL-3.0-or-later
"""Start QGIS desktop in a throw-away profile and have it take the walk of ``tests/gui/walk.py``."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "tests" / "gui" / "walk.py"
PLAN = "SPECDEEPMAP_WALK"
"""Environment variable that names the walk's plan; every process that comes of the walk has it, too."""

SCREEN = "1600x1200x24"

_SETTINGS = """\
[PythonPlugins]
processing=true
specdeepmap=true
MetaSearch=false
db_manager=false
grassprovider=false
otbprovider=false

[app]
plugin_installer\\checkOnStart=false

[core]
NewsFeed\\httpsfeedqgisorg\\disabled=true

[locale]
overrideFlag=true
userLocale=en_US

[qgis]
checkVersion=false
"""
"""What keeps QGIS from greeting, asking and calling home."""


@dataclass(frozen=True)
class Walked:
    """What came of a walk.

    Attributes:
        code: exit code of QGIS.
        found: what the walk found; empty where it did not get as far as writing it.
        output: what QGIS and its children wrote to standard output and error.
        left: command lines of processes that outlived QGIS; they were ended.
    """

    code: int
    found: dict[str, Any]
    output: str
    left: list[str]


def walk(plan: Mapping[str, Any], home: Path, seconds: float, environ: Mapping[str, str] | None = None) -> Walked:
    """Start QGIS, have it walk, and wait until it has closed.

    Args:
        plan: see ``Plan`` in ``tests/gui/walk.py``.
        home: the user's home in there; QGIS's profile and temporary files lie in it.
        seconds: after that, QGIS is ended.
        environ: changes to the environment.
    """
    paths = {name: home / name for name in ("plan.json", "found.json", "output.txt")}
    _write_profile(home)
    paths["plan.json"].write_text(json.dumps({**plan, "found": str(paths["found.json"])}), encoding="utf-8")
    own = {
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "XDG_RUNTIME_DIR": str(home / "runtime"),
        "DBUS_SESSION_BUS_ADDRESS": "disabled:",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
        "QT_XCB_GL_INTEGRATION": "none",
        "QT_QPA_PLATFORM": "xcb",
        PLAN: str(paths["plan.json"]),
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "QGIS_", "PYTHON"))}
    changed = {**kept, **own, **(environ or {})}
    # QGIS takes its Python from the first python3 on the PATH: let that be the one that lies beside QGIS.
    program = str(shutil.which("qgis"))
    changed["PATH"] = f"{Path(program).parent}{os.pathsep}{changed['PATH']}"
    command = [program, "--nologo", "--noversioncheck", "--nocustomization", "--code", str(SCRIPT)]
    with paths["output.txt"].open("wb") as output, _display() as display:
        process = subprocess.Popen(command, env={**changed, "DISPLAY": display}, stdout=output, stderr=output)
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
        left = _end_left(str(paths["plan.json"]))
        process.wait()
    found = paths["found.json"]
    return Walked(
        code=code,
        left=left,
        found=json.loads(found.read_text(encoding="utf-8")) if found.exists() else {},
        output=paths["output.txt"].read_text(encoding="utf-8", errors="replace"),
    )


def _write_profile(home: Path) -> None:
    """Write QGIS's settings, and make the folders that the system would have."""
    for name in ("tmp", "runtime"):
        (home / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    settings = home / ".local/share/QGIS/QGIS3/profiles/default/QGIS/QGIS3.ini"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(_SETTINGS, encoding="utf-8")


@contextlib.contextmanager
def _display() -> Iterator[str]:
    """Run an X server whose screen has a known size, and give its name.

    It chooses its number itself, so that several may be started at once.
    """
    answer, told = os.pipe()
    command = ["Xvfb", "-displayfd", str(told), "-screen", "0", SCREEN, "-dpi", "96", "-nolisten", "tcp"]
    with os.fdopen(answer) as numbers:
        server = subprocess.Popen(command, pass_fds=[told], stderr=subprocess.DEVNULL)
        os.close(told)
        try:
            yield f":{numbers.readline().strip()}"
        finally:
            server.terminate()
            server.wait()


def _end_left(plan: str, grace: float = 3) -> list[str]:
    """Give the command lines of processes that still run after a moment, and end them."""
    deadline = time.monotonic() + grace
    while (left := _processes(plan)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return list(left.values())


def _processes(plan: str) -> dict[int, str]:
    """Find the processes that have a plan in their environment."""
    mark = f"{PLAN}={plan}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                found[int(folder.name)] = " ".join(words).strip()
        except OSError:  # it has ended, or is another user's
            continue
    return found
