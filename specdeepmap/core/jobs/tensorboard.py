# SPDX-License-Identifier: GPL-3.0-or-later
"""The job to watch a training: the TensorBoard Launcher."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from specdeepmap.core.jobs.base import Job, Result
from specdeepmap.core.record import ask, made


@dataclass(frozen=True, kw_only=True)
class TensorBoardResult(Result):
    """Where TensorBoard answers."""

    url: str = made("text", "Address")
    port: int = made("number", "Port")


@dataclass(frozen=True, kw_only=True)
class TensorBoardJob(Job):
    """TensorBoard Launcher: watch a training in the browser."""

    verb: ClassVar[str] = "tensorboard"
    result: ClassVar[type[Result]] = TensorBoardResult
    modules: ClassVar[tuple[str, ...]] = ("osgeo", "numpy", "tensorboard")

    log_folder: Path = ask(
        "folder",
        "Log folder",
        "The folder with the trainer's TensorBoard logs, or one above several of them to compare runs.",
    )
    port: int = ask(
        "integer",
        "Port",
        "The port on this computer (127.0.0.1) to listen on; if it is taken, the next free one; 0 = any. "
        "Default: 6006.",
        6006,
        minimum=0,
        maximum=65535,
    )
    open_browser: bool = ask("flag", "Open the browser", "Show the page once it answers. Default: yes.", True)
    duration: float = ask(
        "number",
        "Duration (seconds, 0 = until QGIS closes)",
        "Stop the server after this many seconds, a week at most; the algorithm waits that long. Default: 0: in QGIS "
        "the server runs on until QGIS closes; in qgis_process it stays in the foreground until Ctrl-C.",
        0.0,
        minimum=0,
        maximum=604800,
        advanced=True,
    )
