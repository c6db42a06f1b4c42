# SPDX-License-Identifier: GPL-3.0-or-later
"""The window "Set up deep-learning environment"."""

from __future__ import annotations

import html
from typing import Any

from qgis.core import Qgis
from qgis.PyQt.QtCore import Qt, QUrl
from qgis.PyQt.QtGui import QDesktopServices
from qgis.PyQt.QtWidgets import (
    QApplication,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QStyle,
    QTextEdit,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)
from qgis.utils import iface

from specdeepmap.core.environment.installation import STATES
from specdeepmap.core.environment.machine import BUILDS, NEEDED_GB
from specdeepmap.gui.environment_process import EnvironmentProcess
from specdeepmap.help import page_url

TITLE = "Set up deep-learning environment"

_INTRODUCTION = (
    "Training, testing and mapping need PyTorch. It is installed into an environment of the plugin's own, beside QGIS: "
    "QGIS's own packages are not touched. This is done once and takes some minutes."
)
_NOTHING_TO_DO = "Training, testing and mapping can start; nothing needs to be done here."
_NAMES = {
    "osgeo": "GDAL",
    "torch": "PyTorch",
    "lightning": "Lightning",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
    "tensorboard": "TensorBoard",
}
"""Modules that people know by another name."""
_DOING = {
    "status": "Looking at what is there",
    "install": "Installing",
    "repair": "Making the environment anew",
    "remove": "Removing the environment",
    "use": "Checking the Python",
    "report": "Writing the report",
}
_INSTALL_TEXTS = {"none": "Install", "half": "Complete", "outdated": "Update", "ready": "Install"}


class EnvironmentDialog(QDialog):
    """Show which Python does the work, and set up, repair, remove or choose one.

    Closing it does not stop what it does: the end is told in QGIS's message bar.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(TITLE)
        self.resize(760, 700)
        self.status: dict[str, Any] | None = None
        self.process = EnvironmentProcess(self)
        self.process.progressed.connect(self._show_progress)
        self.process.said.connect(self._say)
        self.process.ended.connect(self._end)
        self._command = ""
        layout = QVBoxLayout(self)
        layout.addLayout(self._make_headline())
        layout.addWidget(self._make_found(), 3)
        layout.addWidget(self._make_own())
        layout.addWidget(self._make_existing())
        layout.addLayout(self._make_work())
        layout.addWidget(self._make_log(), 2)
        layout.addWidget(self._make_buttons())
        self.look()

    # What it shows

    def _make_headline(self) -> QHBoxLayout:
        row = QHBoxLayout()
        self.sign = QLabel()
        self.headline = QLabel()
        self.headline.setWordWrap(True)
        self.headline.setTextFormat(Qt.TextFormat.RichText)
        row.addWidget(self.sign, 0, Qt.AlignmentFlag.AlignTop)
        row.addWidget(self.headline, 1)
        return row

    def _make_found(self) -> QTreeWidget:
        self.found = QTreeWidget()
        self.found.setHeaderLabels(["What", "Found"])
        self.found.setRootIsDecorated(False)
        self.found.setAlternatingRowColors(True)
        self.found.setWordWrap(True)
        self.found.header().setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        return self.found

    def _make_own(self) -> QGroupBox:
        box = QGroupBox("The plugin's own environment")
        grid = QGridLayout(box)
        self.build = QComboBox()
        for name, title in BUILDS.items():
            self.build.addItem(title, name)
        self.build.setToolTip(
            "Which build of PyTorch is installed. The one for NVIDIA cards needs about "
            f"{NEEDED_GB['nvidia']:g} GB of disk, the one for the processor only {NEEDED_GB['cpu']:g} GB."
        )
        self.install = QPushButton("Install")
        self.repair = QPushButton("Repair")
        self.repair.setToolTip("Removes the environment and makes it anew.")
        self.remove = QPushButton("Remove")
        self.install.clicked.connect(lambda: self._start("install", "--build", self.build.currentData()))
        self.repair.clicked.connect(lambda: self._start("repair", "--build", self.build.currentData()))
        self.remove.clicked.connect(self._ask_and_remove)
        grid.addWidget(QLabel("Build of PyTorch"), 0, 0)
        grid.addWidget(self.build, 0, 1)
        for column, button in enumerate((self.install, self.repair, self.remove), 2):
            grid.addWidget(button, 0, column)
        grid.setColumnStretch(1, 1)
        return box

    def _make_existing(self) -> QGroupBox:
        box = QGroupBox("Or an existing Python (conda, a cluster's module, …)")
        row = QHBoxLayout(box)
        self.existing = QLabel()
        self.existing.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.choose = QPushButton("Choose…")
        self.choose.setToolTip("It is checked first: it needs the packages of requirements.txt and GDAL's bindings.")
        self.forget = QPushButton("Use it no more")
        self.forget.setMinimumWidth(120)
        self.choose.clicked.connect(self._choose)
        self.forget.clicked.connect(lambda: self._start("use", "--own"))
        row.addWidget(self.existing, 1)
        row.addWidget(self.choose)
        row.addWidget(self.forget)
        return box

    def _make_work(self) -> QHBoxLayout:
        row = QHBoxLayout()
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.doing = QLabel()
        self.cancel = QPushButton("Cancel")
        self.cancel.clicked.connect(self._cancel)
        row.addWidget(self.doing, 1)
        row.addWidget(self.bar, 1)
        row.addWidget(self.cancel)
        return row

    def _make_log(self) -> QTextEdit:
        self.log = QTextEdit()
        self.log.setReadOnly(True)
        self.log.setPlaceholderText("What is done is told here.")
        return self.log

    def _make_buttons(self) -> QDialogButtonBox:
        box = QDialogButtonBox(QDialogButtonBox.StandardButton.Close | QDialogButtonBox.StandardButton.Help)
        self.copy = box.addButton("Copy diagnostics", QDialogButtonBox.ButtonRole.ActionRole)
        self.copy.setToolTip("Copies a report for a bug report; the name of your home folder is left out.")
        self.again = box.addButton("Look again", QDialogButtonBox.ButtonRole.ActionRole)
        self.copy.clicked.connect(lambda: self._start("report", "--fact", f"QGIS={Qgis.QGIS_VERSION}"))
        self.again.clicked.connect(self.look)
        box.rejected.connect(self.close)
        box.helpRequested.connect(lambda: QDesktopServices.openUrl(QUrl(page_url("install"))))
        return box

    # What it does

    def look(self) -> None:
        """Find out what is there."""
        self._start("status")

    def _start(self, *arguments: str) -> None:
        """Run a command of ``specdeepmap.core.environment``."""
        if self.process.works:
            return
        self._command = arguments[0]
        self.bar.setValue(0)
        self.bar.setMaximum(0 if self._command in ("status", "report", "remove", "use") else 1000)
        self.doing.setText(_DOING[self._command])
        if self._command == "install":
            self.log.clear()
        self.process.start(*arguments)
        self._enable()

    def _end(self, result: Any, error: str) -> None:
        """Show what a command came to."""
        command, self._command = self._command, ""
        self.bar.setMaximum(1000)
        self.doing.clear()
        if error:
            self._say(error, True)
        if command == "status" and isinstance(result, dict):
            self._show_status(result)
        elif command == "report" and isinstance(result, str):
            QApplication.clipboard().setText(result)
            self._say("The report is in the clipboard; paste it into the bug report.", False)
        elif isinstance(result, str):
            self._say(result.strip(), False)
        self._enable()
        if command in ("install", "repair", "remove", "use"):
            self._announce(command, error, result is not None)
            self.look()

    def _announce(self, command: str, error: str, done: bool) -> None:
        """Tell the end to a user who has closed the window meanwhile."""
        if self.isVisible() or iface is None or not (error or done):
            return
        level = Qgis.MessageLevel.Critical if error else Qgis.MessageLevel.Success
        iface.messageBar().pushMessage("SpecDeepMap", error or f"{_DOING[command]}: done.", level)

    def _cancel(self) -> None:
        self.doing.setText("Stopping")
        self.cancel.setEnabled(False)
        self.process.cancel()

    def _ask_and_remove(self) -> None:
        folder = self.status["folder"] if self.status else ""
        answer = QMessageBox.question(self, TITLE, f"Remove the environment in\n{folder}?")
        if answer == QMessageBox.StandardButton.Yes:
            self._start("remove")

    def _choose(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Choose a Python interpreter (python, python3, python.exe)")
        if path:
            self._start("use", path)

    def _say(self, text: str, is_warning: bool) -> None:
        text = html.escape(text)
        self.log.append(f'<span style="color:#b3261e">{text}</span>' if is_warning else f"<span>{text}</span>")

    def _show_progress(self, share: float, text: str) -> None:
        if self.bar.maximum():
            self.bar.setValue(round(share * 1000))
        if text:
            self.doing.setText(text)

    def _show_status(self, status: dict[str, Any]) -> None:
        self.status = status
        style = QStyle.StandardPixmap.SP_DialogApplyButton if status["ready"] else None
        icon = self.style().standardIcon(style or QStyle.StandardPixmap.SP_MessageBoxWarning)
        self.sign.setPixmap(icon.pixmap(28, 28))
        below = _NOTHING_TO_DO if status["ready"] else _INTRODUCTION
        self.headline.setText(f"<b>{html.escape(status['headline'])}</b><br>{below}")
        self.found.clear()
        for name, text in _rows(status):
            item = QTreeWidgetItem([name, text])
            item.setToolTip(1, text)
            if name == "Problem":
                item.setForeground(1, Qt.GlobalColor.red)
            self.found.addTopLevelItem(item)
        self.install.setText(_INSTALL_TEXTS[status["state"]])
        path = status["findings"]["python"] if status["chosen"] and status["findings"] else ""
        self.existing.setText(path or ("chosen, but not working" if status["chosen"] else "none is chosen"))

    def _enable(self) -> None:
        """Offer what makes sense now."""
        idle = not self.process.works
        state = self.status["state"] if self.status else "none"
        chosen = bool(self.status and self.status["chosen"])
        self.install.setEnabled(idle and state != "ready")
        self.repair.setEnabled(idle and state != "none")
        self.remove.setEnabled(idle and state != "none")
        self.forget.setEnabled(idle and chosen)
        for button in (self.choose, self.copy, self.again, self.build):
            button.setEnabled(idle)
        self.cancel.setEnabled(not idle)
        for widget in (self.bar, self.cancel):
            widget.setVisible(not idle)
        self.doing.setVisible(not idle)


def _rows(status: dict[str, Any]) -> list[tuple[str, str]]:
    """Give what is found as names and texts."""
    findings = status["findings"]
    rows = []
    if findings:
        rows += [("Python in use", f"{findings['version']}, {status['source']}"), ("Where", findings["python"])]
        rows += [("Problem", text) for text in findings["problems"]]
        rows += [(_NAMES.get(name, name), version or "missing") for name, version in findings["modules"].items()]
        built = f" (PyTorch is built for CUDA {findings['cuda']})" if findings["cuda"] else ""
        rows.append(("Computes on", (", ".join(findings["devices"]) or "the processor") + built))
    else:
        rows += [("Problem", line) for line in status["lines"] if line.startswith("Looked at")]
    rows += [("Own environment", STATES[status["state"]]), ("Its folder", status["folder"])]
    rows.append(("Graphics cards", "; ".join(status["cards"]) or "no NVIDIA driver found"))
    rows.append(("Free disk space", f"{status['free_gb']:.1f} GB"))
    return rows


_windows: list[EnvironmentDialog] = []  # one at most; it goes on working when closed


def open_dialog(parent: QWidget | None = None) -> EnvironmentDialog:
    """Show the window; there is one."""
    if not _windows:
        _windows.append(EnvironmentDialog(parent))
    window = _windows[0]
    window.show()
    window.raise_()
    window.activateWindow()
    return window


def close_dialog() -> None:
    """Stop what the window does and let it go: the plugin is unloaded."""
    while _windows:
        window = _windows.pop()
        window.process.stop()
        window.close()
        window.deleteLater()
