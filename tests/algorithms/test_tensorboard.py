# SPDX-License-Identifier: GPL-3.0-or-later
"""The TensorBoard Launcher inside QGIS: it returns at once, and its server lives until the plugin goes."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.desktop import Chain

pytestmark = pytest.mark.torch


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as page:  # noqa: S310 - an address of our own
            return bool(page.status == 200)
    except urllib.error.URLError:
        return False


@pytest.fixture
def launcher(qgis: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The launcher as in QGIS with its windows; its servers end with the test."""
    from specdeepmap.algorithms import tensorboard

    monkeypatch.setattr(tensorboard, "iface", object())
    yield tensorboard
    tensorboard.TensorBoardLauncher.stop_servers()


def launch(folder: Path, **values: Any) -> dict[str, Any]:
    import processing

    given = {"LOG_FOLDER": str(folder), "PORT": 0, "OPEN_BROWSER": False, **values}
    results: dict[str, Any] = processing.run("specdeepmap:tensorboard", given)
    return results


def test_server_outlives_the_run_and_ends_with_the_plugin(chain: Chain, launcher: Any, qgis: Any) -> None:
    logs = Path(chain.trainer["results"]["LOG_FOLDER"])
    began = time.monotonic()
    results = launch(logs)
    assert time.monotonic() - began < 20  # it does not wait for the server's end
    assert results["URL"] == f"http://127.0.0.1:{results['PORT']}/"
    assert answers(results["URL"])
    assert launch(logs)["URL"] == results["URL"]  # the running one's
    qgis.provider.unload()
    assert not answers(results["URL"])


@pytest.mark.parametrize("wanted", [True, False])
def test_browser_is_opened_only_when_wanted(
    chain: Chain, launcher: Any, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(launcher.QDesktopServices, "openUrl", lambda url: opened.append(url.toString()))
    results = launch(Path(chain.trainer["results"]["LOG_FOLDER"]), OPEN_BROWSER=wanted, DURATION=0.2)
    assert opened == ([results["URL"]] if wanted else [])
    assert not answers(results["URL"])  # its time is over
