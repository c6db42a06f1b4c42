# SPDX-License-Identifier: GPL-3.0-or-later
"""TensorBoard Launcher."""

from __future__ import annotations

from typing import ClassVar

from qgis.PyQt.QtCore import QUrl
from qgis.PyQt.QtGui import QDesktopServices
from qgis.utils import iface

from specdeepmap.algorithms.base import Algorithm
from specdeepmap.core.errors import Canceled, EnvironmentMissingError
from specdeepmap.core.jobs import Job, Result, TensorBoardJob
from specdeepmap.core.progress import Progress
from specdeepmap.core.run import Child, find_job_python, wait_while


class TensorBoardLauncher(Algorithm):
    """Watch a training in the browser."""

    NAME = "tensorboard"
    TITLE = "TensorBoard Launcher"
    ABOUT = (
        "Shows the learning curves of a training in the browser, also while it runs. The server listens on this "
        "computer only and ends with QGIS. Use it with the log folder of the Deep Learning Trainer."
    )
    JOB = TensorBoardJob

    _servers: ClassVar[list[Child]] = []  # they live as long as QGIS does

    def work(self, job: Job, progress: Progress) -> Result:
        """Start a server, say where it is, and wait as long as the job says."""
        python = find_job_python(job)
        if python is None:
            raise EnvironmentMissingError("No Python with TensorBoard was found.")
        child = Child(job, python)
        keep = False
        try:
            result = child.result(progress, until_exit=False)
            progress.info(f"TensorBoard: {result.url}")
            if job.open_browser:
                QDesktopServices.openUrl(QUrl(result.url))
            in_qgis = iface is not None
            if job.duration > 0:
                wait_while(lambda: child.alive, progress, job.duration)
            elif in_qgis:
                keep = True
            else:
                progress.info("Press Ctrl-C to stop it.")
                wait_while(lambda: child.alive, progress)
            return result
        except KeyboardInterrupt:
            raise Canceled("canceled") from None
        finally:
            if keep:
                self._servers.append(child)
            else:
                child.stop()

    @classmethod
    def stop_servers(cls) -> None:
        """Stop all servers that were started from here."""
        while cls._servers:
            cls._servers.pop().stop()
