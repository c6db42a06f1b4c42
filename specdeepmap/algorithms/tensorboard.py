# SPDX-License-Identifier: GPL-3.0-or-later
"""TensorBoard Launcher."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from qgis.PyQt.QtCore import QUrl
from qgis.PyQt.QtGui import QDesktopServices
from qgis.utils import iface

from specdeepmap.algorithms.base import Algorithm
from specdeepmap.core.errors import EnvironmentMissingError
from specdeepmap.core.jobs import Result, TensorBoardJob, TensorBoardResult
from specdeepmap.core.progress import Progress
from specdeepmap.core.run import Child, find_job_python, wait_while

_LOOK_SECONDS = 0.5


@dataclass(eq=False)
class _Server:
    """A child that serves a folder; without a result as long as it has not answered."""

    folder: Path
    child: Child
    result: TensorBoardResult | None = None


class TensorBoardLauncher(Algorithm):
    """Watch a training in the browser."""

    NAME = "tensorboard"
    TITLE = "TensorBoard Launcher"
    ABOUT = (
        "Shows the learning curves of a training in the browser, also while it runs: tick 'Reload data' in the page's "
        "settings (the gear at its top right) to see them grow. The server listens on this computer only and ends "
        "with QGIS. Use it with the log folder of the Deep Learning Trainer."
    )
    JOB = TensorBoardJob

    _servers: ClassVar[list[_Server]] = []  # also those that only start, so that they end with the plugin

    def work(self, job: TensorBoardJob, progress: Progress) -> Result:
        """Start a server, or find the one of this folder; say where it is, and wait as long as the job says."""
        server = self._find(job.log_folder)
        if server is None:
            return self._serve(job, progress)
        progress.info("TensorBoard runs on this folder already.")
        _tell(server.result, job, progress)
        wait_while(lambda: server.child.alive, progress, job.duration)
        return server.result

    @classmethod
    def _find(cls, folder: Path) -> _Server | None:
        """Find the server that was started from here and answers already."""
        for server in cls._servers:
            if server.folder == folder.resolve() and server.result is not None and server.child.alive:
                return server
        return None

    def _serve(self, job: TensorBoardJob, progress: Progress) -> Result:
        python = find_job_python(job, progress)
        if python is None:
            raise EnvironmentMissingError("No Python with TensorBoard was found.")
        server = _Server(job.log_folder.resolve(), Child(job, python))
        self._servers.append(server)
        keep = False
        try:
            result = server.child.result(progress, until_exit=False)
            server.result = result
            _tell(result, job, progress)
            if job.duration > 0:
                wait_while(lambda: server.child.alive, progress, job.duration)
            elif iface is not None:
                keep = True
            else:
                progress.info("It runs until Ctrl-C.")
                wait_while(lambda: server.child.alive, progress)
            return result
        finally:
            if keep:
                threading.Thread(target=self._see_off, args=(server,), daemon=True).start()
            else:
                self._stop(server)

    @classmethod
    def stop_servers(cls) -> None:
        """Stop all servers that were started from here, at once: each may take a while."""
        stops = [threading.Thread(target=cls._stop, args=(server,)) for server in list(cls._servers)]
        for stop in stops:
            stop.start()
        for stop in stops:
            stop.join()

    @classmethod
    def _see_off(cls, server: _Server) -> None:
        """Tidy up after a server that ends by itself; without this it would stay a zombie until QGIS closes."""
        while server.child.alive:
            time.sleep(_LOOK_SECONDS)
        cls._stop(server)

    @classmethod
    def _stop(cls, server: _Server) -> None:
        server.child.stop()
        with contextlib.suppress(ValueError):  # another thread was first
            cls._servers.remove(server)


def _tell(result: TensorBoardResult, job: TensorBoardJob, progress: Progress) -> None:
    """Say where the page is, and open it where that is wanted."""
    progress.info(f"TensorBoard: {result.url}")
    if job.open_browser:
        QDesktopServices.openUrl(QUrl(result.url))
