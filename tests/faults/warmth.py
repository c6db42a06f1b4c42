# SPDX-License-Identifier: GPL-3.0-or-later
"""A warm Python: a child that starts in a moment, since torch is loaded already.

``python -m specdeepmap.core job.json --events`` takes ten seconds on a busy machine before it looks at the job, most of
them for imports. Faults come by the hundred. So one process imports everything once, and forks for each job: the fork
then does what the command would have done, ``__main__`` and all, with the standard streams and the environment of
the one who asked.

This file is both sides. As ``python`` it takes the command line of a child, and either asks the warm process or, where
none is named, does the work itself; as ``serve`` it is the warm process. Both suffer the fault that they are told of.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

SOCKET = "SPECDEEPMAP_TEST_SOCKET"
FAULT = "SPECDEEPMAP_TEST_FAULT"
"""Environment variables: where the warm process listens, and what is to go wrong, see ``injection``."""


def as_python(arguments: list[str]) -> int:
    """Do what ``python`` would with these arguments; gives the exit code, negative for a signal."""
    place = os.environ.get(SOCKET)
    if place is None:
        return _work(arguments)
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(place)
        order = json.dumps([arguments, str(Path.cwd()), dict(os.environ)]).encode()
        socket.send_fds(line, [struct.pack("!I", len(order))], [0, 1, 2])
        line.sendall(order)
        return int(struct.unpack("!i", line.recv(4, socket.MSG_WAITALL))[0])


def serve(place: str) -> None:
    """Import all that a job may need, then fork for everyone who asks."""
    import lightning.pytorch.loggers  # noqa: F401
    import segmentation_models_pytorch  # noqa: F401
    import torch
    import torch.utils.tensorboard

    from specdeepmap.core.tasks import evaluate, predict, prepare, tile, train  # noqa: F401

    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(place)
        door.listen(16)
        while True:
            line, _ = door.accept()
            if os.fork() == 0:
                door.close()
                _look_after(line)
            line.close()


def _look_after(line: socket.socket) -> None:
    """Fork the worker, end it when the one who asked has ended, and say how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, streams, _, _ = socket.recv_fds(line, 4, 3)
    (size,) = struct.unpack("!I", head)
    arguments, folder, environ = json.loads(line.recv(size, socket.MSG_WAITALL))
    worker = os.fork()
    if worker == 0:
        line.close()
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environ)
        code = 1
        with contextlib.suppress(BaseException):
            code = _work(arguments)
            atexit._run_exitfuncs()
            sys.stderr.flush()
        os._exit(code)
    for stream in (*streams, 0, 1, 2):
        os.close(stream)
    while True:
        ended, status = os.waitpid(worker, os.WNOHANG)
        if ended:
            break
        if select.select([line], [], [], 0.01)[0] and not line.recv(1):
            os.kill(worker, signal.SIGKILL)
    with contextlib.suppress(OSError):
        line.sendall(struct.pack("!i", os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _work(arguments: list[str]) -> int:
    """Run a job, and let the fault happen that is asked for."""
    from tests.faults.injection import inject

    inject(json.loads(os.environ.get(FAULT, "{}")))
    from specdeepmap.core.__main__ import main

    return main(arguments[arguments.index("specdeepmap.core") + 1 :])


@contextlib.contextmanager
def warm_process(folder: Path) -> Iterator[str]:
    """Keep a warm process as long as it is needed; gives the socket that it listens at."""
    place = str(folder / "warm")
    repository = str(Path(__file__).resolve().parents[2])
    environ = {**os.environ, "PYTHONPATH": repository, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    with (folder / "warm.log").open("wb") as log:
        command = [sys.executable, "-X", "utf8", "-u", __file__, "serve", place]
        process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stderr=log, stdout=log)
    try:
        deadline = time.monotonic() + 180
        while not Path(place).exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "warm.log").read_text("utf-8", "replace"))
            time.sleep(0.05)
        yield place
    finally:
        process.kill()
        process.wait()


def write_python(path: Path) -> Path:
    """Write an executable that stands for ``python``: a script that goes on with this file."""
    path.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -X utf8 -u "{Path(__file__).resolve()}" python "$@"\n', "utf-8"
    )
    path.chmod(0o755)
    return path


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    exit_code = as_python(sys.argv[2:])
    if exit_code < 0:
        os.kill(os.getpid(), -exit_code)
    sys.exit(exit_code)
