# SPDX-License-Identifier: GPL-3.0-or-later
"""Serve TensorBoard: the TensorBoard Launcher."""

from __future__ import annotations

import atexit
import json
import os
import socket
import sys
import time
from http.client import OK, HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tensorboard import manager, program, version

from specdeepmap.core.errors import ConfigError
from specdeepmap.core.jobs import TensorBoardJob, TensorBoardResult
from specdeepmap.core.progress import Progress

HOST = "127.0.0.1"
_TRIES = 100
_ANSWER_SECONDS, _CURVE_SECONDS = 60, 5
"""How long to wait for the page, and then for curves on it: a training that has just begun has none."""


def serve(job: TensorBoardJob, progress: Progress) -> TensorBoardResult:
    """Start a server on the log folder, in a thread of this process, and wait until it answers.

    The server lives as long as this process, which ``__main__`` keeps alive. One that already runs on the same
    folder is used instead; the progress is then canceled, since there is nothing to stay alive for.

    Raises:
        ConfigError: if the folder holds no logs, or no port is free.
    """
    check_logs(job.log_folder)
    folder = str(job.log_folder.resolve())
    for known in manager.get_all():
        url = f"http://{HOST}:{known.port}/"
        if known.logdir == folder and _serves(url, folder):
            progress.info("TensorBoard runs on this folder already.")
            progress.cancel()
            return TensorBoardResult(url=url, port=known.port)
    port = _launch(folder, job.port)
    if job.port and port != job.port:
        progress.info(f"Port {job.port} is taken; using {port}.")
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
            "training, by default runs/<date-time>/logs in the dataset folder. A training that has only just begun "
            "writes them with its first epoch."
        )


def _launch(folder: str, wanted: int) -> int:
    """Start the server and give its port.

    Raises:
        ConfigError: if no port is free.
    """
    while True:
        port = free_port(wanted)
        board = program.TensorBoard()
        board.configure(argv=["tensorboard", "--logdir", folder, "--host", HOST, "--port", str(port)])
        try:
            board.launch()
        except program.TensorBoardPortInUseError:  # somebody took it in between
            wanted = port + 1 if wanted else 0
        else:
            return port


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
    raise ConfigError(
        f"PORT {wanted} and the next {_TRIES - 1} are taken, or reserved for the system as those below 1024 are. Give "
        "another PORT, or 0 for any free one."
    )


def _serves(url: str, folder: str) -> bool:
    """Tell whether a TensorBoard shows this folder; the note of a dead one may lead to another's port."""
    environment = _read(f"{url}data/environment")
    return isinstance(environment, dict) and environment.get("data_location") == folder


def _read(url: str) -> Any:
    """Read JSON from a server on this computer; None where nobody answers, or not in JSON."""
    address = urlsplit(url)
    connection = HTTPConnection(HOST, address.port, timeout=2)
    try:
        connection.request("GET", address.path)
        reply = connection.getresponse()
        return json.load(reply) if reply.status == OK else None
    except (OSError, ValueError, HTTPException):
        return None
    finally:
        connection.close()


def _wait(url: str, progress: Progress) -> None:
    """Wait until the page can be looked at: one that is opened before its curves are read stays empty.

    Raises:
        ConfigError: if it does not answer.
    """
    began = time.monotonic()
    while True:
        tags = _read(f"{url}data/plugin/scalars/tags")
        if tags or (tags is not None and time.monotonic() - began > _CURVE_SECONDS):
            return
        progress.check()
        if time.monotonic() - began > _ANSWER_SECONDS:
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
