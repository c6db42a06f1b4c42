# SPDX-License-Identifier: GPL-3.0-or-later
"""Serve TensorBoard: the TensorBoard Launcher."""

from __future__ import annotations

import atexit
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tensorboard import manager, program, version

from specdeepmap.core.errors import ConfigError
from specdeepmap.core.jobs import TensorBoardJob, TensorBoardResult
from specdeepmap.core.progress import Progress

HOST = "127.0.0.1"
_TRIES = 100
_ANSWER_SECONDS = 60


def serve(job: TensorBoardJob, progress: Progress) -> TensorBoardResult:
    """Start a server on the log folder, in a thread of this process, and wait until it answers.

    The server lives as long as this process, which ``__main__`` keeps alive. One that already runs on the same
    folder is used instead.

    Raises:
        ConfigError: if the folder holds no logs, or no port is free.
    """
    check_logs(job.log_folder)
    folder = str(job.log_folder.resolve())
    for known in manager.get_all():
        url = f"http://{HOST}:{known.port}/"
        if known.logdir == folder and _serves(url, folder):
            progress.info("TensorBoard runs on this folder already.")
            return TensorBoardResult(url=url, port=known.port)
    port = free_port(job.port)
    if job.port and port != job.port:
        progress.info(f"Port {job.port} is taken; using {port}.")
    board = program.TensorBoard()
    board.configure(argv=["tensorboard", "--logdir", folder, "--host", HOST, "--port", str(port)])
    board.launch()
    url = f"http://{HOST}:{port}/"
    _wait(url, progress)
    _announce(folder, port)
    return TensorBoardResult(url=url, port=port)


def check_logs(folder: Path) -> None:
    """Check that a folder holds TensorBoard logs.

    Raises:
        ConfigError: if not.
    """
    if not folder.is_dir():
        raise ConfigError(f"LOG_FOLDER {folder} does not exist.")
    if next(folder.rglob("*tfevents*"), None) is None:
        raise ConfigError(
            f"LOG_FOLDER {folder} holds no TensorBoard logs (no file named *tfevents*). Name the log folder of a "
            "training, by default runs/<date-time>/logs in the dataset folder."
        )


def free_port(wanted: int) -> int:
    """Give the wanted port, or the next free one; any free one for 0.

    Raises:
        ConfigError: if none of the next 100 is free.
    """
    for port in range(wanted, min(wanted + _TRIES, 65536)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            if sys.platform != "win32":  # there it would allow two servers on one port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ConfigError(f"PORT {wanted} and the next {_TRIES - 1} are taken. Give another PORT, or 0 for any free one.")


def _serves(url: str, folder: str) -> bool:
    """Tell whether a TensorBoard shows this folder; the note of a dead one may lead to another's port."""
    try:
        with urllib.request.urlopen(f"{url}data/environment", timeout=2) as page:  # noqa: S310 - an address of our own
            return bool(json.load(page).get("data_location") == folder)
    except (urllib.error.URLError, OSError, ValueError, AttributeError):  # nobody, or no TensorBoard
        return False


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as page:  # noqa: S310 - an address of our own
            return bool(page.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _wait(url: str, progress: Progress) -> None:
    deadline = time.monotonic() + _ANSWER_SECONDS
    while not _answers(url):
        progress.check()
        if time.monotonic() > deadline:
            raise ConfigError(f"TensorBoard does not answer at {url}.")
        time.sleep(0.1)


def _announce(folder: str, port: int) -> None:
    """Let later launches find this server, the way TensorBoard itself does; the note goes with the process."""
    atexit.register(manager.remove_info_file)
    manager.write_info_file(
        manager.TensorBoardInfo(
            version=version.VERSION,
            start_time=int(time.time()),
            pid=os.getpid(),
            port=port,
            path_prefix="",
            logdir=folder,
            db="",
            cache_key="specdeepmap",
        )
    )
