# SPDX-License-Identifier: GPL-3.0-or-later
"""The launcher's page in a real browser: it shows the curves of a real training."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.desktop import Chain

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [pytest.mark.gui, pytest.mark.torch]

QUIET = (
    "--headless",
    "--no-sandbox",  # it shows a page of this computer only, also to root
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--no-first-run",
)
VALUES = {
    "loss/train": "train_loss",
    "loss/validation": "val_loss",
    "mean IoU/train": "train_iou",
    "mean IoU/validation": "val_iou",
}
"""Tags on the page and columns of the history."""


@pytest.fixture
def address(chain: Chain, qgis: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The page of the chain's training; the browser, as QGIS would open it, is not started."""
    import processing

    from specdeepmap.algorithms import tensorboard

    monkeypatch.setattr(tensorboard, "iface", object())
    given = {"LOG_FOLDER": chain.trainer["results"]["LOG_FOLDER"], "PORT": 0, "OPEN_BROWSER": False}
    yield processing.run("specdeepmap:tensorboard", given)["URL"]
    tensorboard.TensorBoardLauncher.stop_servers()


def read(address: str, path: str, **query: str) -> Any:
    with urllib.request.urlopen(f"{address}{path}?{urllib.parse.urlencode(query)}", timeout=20) as page:  # noqa: S310
        return json.load(page)


def shown(address: str, profile: Path) -> str:
    """Let the browser work at the page for a while of its own, fast time, and give what it then consists of."""
    command = [str(BROWSER), *QUIET, f"--user-data-dir={profile}", "--window-size=1600,2000"]
    command += ["--virtual-time-budget=200000", "--dump-dom", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def cards(page: str) -> dict[str, tuple[str, float, int]]:
    """Read the table below each curve: tag → run, value and step of its last point."""
    found = {}
    for card in re.findall(r"<scalar-card.*?</scalar-card>", page, flags=re.DOTALL):
        assert "<canvas" in card or "<svg" in card
        text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", card)).split())
        tag = re.findall(r'title="([^"]*/[^"]*)"', card)[0]
        row = re.search(r"Relative (?P<run>\S+) \S+ (?P<value>[-+.\de]+) (?P<step>\d+) ", text + " ")
        assert row is not None, text
        found[html.unescape(tag)] = (row["run"], float(row["value"]), int(row["step"]))
    return found


def read_history(chain: Chain) -> list[dict[str, float]]:
    with Path(chain.trainer["results"]["HISTORY_CSV"]).open(encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.skipif(BROWSER is None, reason="needs chromium, chromium-browser or google-chrome")
def test_the_browser_shows_the_curves_of_the_training(address: str, chain: Chain, tmp_path: Path) -> None:
    last = read_history(chain)[-1]
    # Groups of curves are closed at first; a filter opens those that it finds.
    filtered = f"{address}?tagFilter=loss%7Cmean#timeseries"
    for attempt in range(4):  # on a busy machine the fast time may be over before the page's own answers are there
        found = cards(shown(filtered, tmp_path / f"browser {attempt}"))
        if found:
            break
    assert found == {
        tag: (".", pytest.approx(last[column], abs=1e-4), int(last["epoch"])) for tag, column in VALUES.items()
    }


def test_the_page_has_the_values_of_the_history(address: str, chain: Chain) -> None:
    history = read_history(chain)
    deadline = time.monotonic() + 20
    while not (runs := read(address, "data/runs")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert runs == ["."]
    for tag, column in VALUES.items():
        points = read(address, "data/plugin/scalars/scalars", run=".", tag=tag)
        assert [(step, value) for _, step, value in points] == [
            (row["epoch"], pytest.approx(row[column], rel=1e-6)) for row in history
        ]
