# SPDX-License-Identifier: GPL-3.0-or-later
"""The window that sets the environment up, as a user works with it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.eventloop import Lateness, percentile, wait

pytestmark = pytest.mark.gui


@pytest.fixture
def window(qgis: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The window, in a profile where nothing is set up and the internet is out of reach; it has looked around."""
    from specdeepmap.gui import environment_dialog

    monkeypatch.setenv("QGIS_CUSTOM_CONFIG_PATH", str(tmp_path / "profile ä"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("SPECDEEPMAP_PYTHON", str(tmp_path / "gone" / "python"))
    opened = environment_dialog.open_dialog()
    wait(lambda: not opened.process.works, 60)
    yield opened
    environment_dialog.close_dialog()


def rows(window: Any) -> dict[str, str]:
    items = [window.found.topLevelItem(index) for index in range(window.found.topLevelItemCount())]
    return {item.text(0): item.text(1) for item in items}


def test_it_shows_what_is_missing_and_offers_what_makes_sense(window: Any, tmp_path: Path) -> None:
    from specdeepmap.gui.environment_dialog import open_dialog

    assert str(tmp_path / "gone" / "python") in window.headline.text()
    shown = rows(window)
    assert "No such file" in shown["Problem"]
    assert shown["Own environment"] == "not set up"
    assert Path(shown["Its folder"]).is_relative_to(tmp_path / "profile ä")
    assert window.install.isEnabled() and window.choose.isEnabled()
    assert not window.repair.isEnabled() and not window.remove.isEnabled() and not window.forget.isEnabled()
    assert not window.bar.isVisible()
    assert open_dialog() is window  # there is one


def test_a_failed_installation_is_explained_and_can_be_removed(
    window: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qgis.PyQt.QtWidgets import QMessageBox

    window.build.setCurrentIndex(window.build.findData("ordinary"))
    window.install.click()
    assert window.cancel.isVisible() and not window.install.isEnabled()
    wait(lambda: not window.process.works, 90)
    assert "pip could not install the packages" in window.log.toPlainText()
    assert window.status["state"] == "half"
    assert window.install.text() == "Complete"
    assert window.repair.isEnabled()
    folder = Path(window.status["folder"])
    assert folder.is_dir()
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes)
    window.remove.click()
    wait(lambda: not window.process.works and window.status["state"] == "none", 60)
    assert not folder.exists()
    assert window.install.text() == "Install"


def test_cancel_takes_less_than_two_seconds_and_qgis_never_waits(window: Any) -> None:
    lateness = Lateness()
    window.build.setCurrentIndex(window.build.findData("ordinary"))
    window.install.click()
    wait(lambda: Path(window.status["folder"]).is_dir(), 30)
    began = time.monotonic()
    window.cancel.click()
    wait(lambda: not window.process.works or window._command == "status", 10)
    assert time.monotonic() - began < 2.2
    assert "Canceled." in window.log.toPlainText()
    assert percentile(lateness.stop(), 99) < 0.1
    wait(lambda: not window.process.works, 60)
    assert window.status["state"] in ("half", "none")


def test_a_command_that_dies_is_told(window: Any) -> None:
    window.copy.click()
    wait(lambda: window.process.works and window.process._process.processId(), 30)
    os.kill(window.process._process.processId(), signal.SIGKILL)
    wait(lambda: "was ended from outside, or crashed" in window.log.toPlainText(), 30)
    wait(lambda: not window.process.works, 60)


def test_a_chosen_python_is_checked(window: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qgis.PyQt.QtWidgets import QFileDialog

    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / "no python"), ""))
    window.choose.click()
    wait(lambda: not window.process.works, 60)
    assert f"{tmp_path / 'no python'} cannot be used" in window.log.toPlainText()
    assert not window.status["chosen"]


def test_diagnostics_go_to_the_clipboard(window: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from qgis.core import Qgis
    from qgis.PyQt.QtWidgets import QApplication

    QApplication.clipboard().clear()
    window.copy.click()
    wait(lambda: not window.process.works, 60)
    text = QApplication.clipboard().text()
    assert f"QGIS: {Qgis.QGIS_VERSION}" in text and "Own environment: not set up" in text


def test_the_end_is_told_to_who_has_closed_the_window(window: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from specdeepmap.gui import environment_dialog

    told: list[tuple[str, ...]] = []

    class Interface:
        def messageBar(self) -> Interface:  # noqa: N802
            return self

        def pushMessage(self, *arguments: Any) -> None:  # noqa: N802
            told.append(arguments)

    monkeypatch.setattr(environment_dialog, "iface", Interface())
    window.build.setCurrentIndex(window.build.findData("ordinary"))
    window.install.click()
    window.close()
    wait(lambda: told, 90)
    assert told[0][0] == "SpecDeepMap" and "pip could not install" in told[0][1]


def test_unloading_the_plugin_stops_what_it_does(window: Any) -> None:
    from specdeepmap.gui.environment_dialog import close_dialog

    window.install.click()
    process = window.process
    wait(lambda: Path(window.status["folder"]).is_dir(), 30)
    close_dialog()
    assert not process.works
