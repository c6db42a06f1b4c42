# SPDX-License-Identifier: GPL-3.0-or-later
"""Clocks that jump and languages that write 0,5: the results are the same to the last bit."""

from __future__ import annotations

import locale
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.bench import BENCHES, WRITING, sample
from tests.faults.conftest import CaseMaker

DECADE = 10 * 365 * 86400.0


@pytest.mark.parametrize("step", [-3600.0, 86400.0], ids=["backward", "forward"])
@pytest.mark.parametrize("verb", sample(BENCHES, 3))
def test_a_clock_that_jumps(case: CaseMaker, verb: str, step: float) -> None:
    job = case(verb)
    job.run({"turn_clock": step})
    job.assert_whole()


@pytest.mark.parametrize("when", [DECADE, -4 * DECADE], ids=["future", "past"])
@pytest.mark.parametrize("verb", sample(WRITING, 2))
def test_files_from_another_time(case: CaseMaker, verb: str, when: float) -> None:
    job = case(verb)
    for path in (*job.inputs.rglob("*"), *job.out.rglob("*")):
        os.utime(path, (time.time() + when, time.time() + when))
    job.run()
    job.assert_whole()


@pytest.fixture(scope="session")
def comma(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """Give a locale with a decimal comma, and the environment in which it is found; made where none is installed."""
    known = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout.split()
    for name in ("de_DE.utf8", "de_DE.UTF-8", "fr_FR.utf8", "fr_FR.UTF-8"):
        if name in known:
            return name, {}
    folder = tmp_path_factory.mktemp("locales")
    try:
        order = ["localedef", "-f", "UTF-8", "-i", "de_DE", str(folder / "de_DE.UTF-8")]
        subprocess.run(order, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no locale with a decimal comma is here, and none can be made: {error}")
    return "de_DE.UTF-8", {"LOCPATH": str(folder)}


def test_the_comma_is_one(comma: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in comma[1].items():
        monkeypatch.setenv(name, value)
    before = locale.setlocale(locale.LC_NUMERIC)
    try:
        locale.setlocale(locale.LC_NUMERIC, comma[0])
        assert locale.localeconv()["decimal_point"] == ","
    finally:
        locale.setlocale(locale.LC_NUMERIC, before)


@pytest.mark.parametrize(
    ("verb", "way"), sample([(verb, way) for verb in WRITING for way in ("process", "environment")], 5)
)
def test_a_decimal_comma(
    case: CaseMaker, verb: str, way: str, comma: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = case(verb)
    name, environ = comma
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    fault: dict[str, Any] = {}
    if way == "process":
        fault = {"set_locale": name}
    else:
        for key in ("LC_ALL", "LANG", "LC_NUMERIC"):
            monkeypatch.setenv(key, name)
    job.run(fault)
    job.assert_whole()


@pytest.mark.parametrize(
    "settings", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}]
)
@pytest.mark.parametrize("verb", sample(WRITING, 2))
def test_a_bare_system(
    case: CaseMaker, verb: str, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Class names with umlauts, and a folder with one, where the system knows ASCII only."""
    job = case(verb, "Wälder 漢")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    job.run()
    job.assert_whole()
