# SPDX-License-Identifier: GPL-3.0-or-later
"""What breaks must break well: fixtures of the bench, and the number of faults that were tried."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.bench import Bank, Case

CaseMaker = Callable[..., Case]

if sys.platform == "win32":
    collect_ignore_glob = ["test_*.py"]  # signals, forks, users and small disks are those of Unix


@pytest.fixture(scope="session")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    """All jobs, ready to be put on the bench; the warm Python is started when one needs torch."""
    from tests.faults.warmth import warm_process, write_python

    with contextlib.ExitStack() as stack:
        short = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sdm")))  # the name of a socket is short
        started: list[str] = []

        def warm() -> str:
            if not started:
                started.append(stack.enter_context(warm_process(short)))
            return started[0]

        yield Bank(tmp_path_factory.mktemp("bank"), write_python(short / "python"), warm)


@pytest.fixture
def case(bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CaseMaker:
    """Give a function that puts a job on the bench."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def make(verb: str, name: str = "case", cold: bool = False) -> Case:
        return bank.case(verb, tmp_path / name, cold)

    return make


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many faults were tried."""
    own = "tests/faults/"
    tried = {
        report.nodeid
        for kind in ("passed", "failed", "xfailed", "xpassed")
        for report in terminalreporter.stats.get(kind, [])
        if report.nodeid.startswith(own) and "soak" not in report.nodeid
    }
    if tried:
        terminalreporter.write_line(f"faults: {len(tried)} cases")
