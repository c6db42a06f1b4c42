# SPDX-License-Identifier: GPL-3.0-or-later
"""Claims: of several runs that write into a folder, one at a time does.

The system keeps a claim, and lets go of it when the process ends, however it ends: none is ever left behind.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from specdeepmap.core.progress import Progress

CLAIM_NAME = ".claim.part"
"""What is locked in a folder on Windows."""

_POLL_SECONDS = 0.1

if sys.platform == "win32":
    import msvcrt

    def _lock(folder: Path) -> int:
        """Lock a file in the folder, since folders cannot be; gives its number."""
        number = os.open(folder / CLAIM_NAME, os.O_RDWR | os.O_CREAT)
        try:
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            os.close(number)
            raise BlockingIOError from error
        return number

    def _unlock(folder: Path, number: int) -> None:
        msvcrt.locking(number, msvcrt.LK_UNLCK, 1)
        os.close(number)
        with contextlib.suppress(OSError):  # another run waits for it
            (folder / CLAIM_NAME).unlink()

else:
    import fcntl

    def _lock(folder: Path) -> int:
        """Lock the folder itself; gives the number under which it is open."""
        number = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(number)
            raise
        return number

    def _unlock(folder: Path, number: int) -> None:
        os.close(number)


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Keep others from a folder that exists; False where somebody else has it.

    Some file systems, of networks most of all, know no locks: there everybody gets what is asked for.
    """
    try:
        number = _lock(folder)
    except BlockingIOError:
        yield False
        return
    except OSError:
        yield True
        return
    try:
        yield True
    finally:
        _unlock(folder, number)


@contextlib.contextmanager
def claimed(folders: Iterable[Path], progress: Progress) -> Iterator[None]:
    """Keep others from folders that exist; wait for those who have them.

    Raises:
        Canceled: if the user does not want to wait.
    """
    with contextlib.ExitStack() as held:
        # All ask in the same order, or they would wait for each other.
        for folder in sorted({folder.resolve() for folder in folders}):
            told = False
            while not held.enter_context(claim(folder)):
                if not told:
                    progress.info(f"Another run is writing into {folder}; waiting until it has ended.")
                told = True
                progress.check()
                time.sleep(_POLL_SECONDS)
        yield
