# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that a child does to itself, before it begins its work. Each is named by a key and told by its value."""

from __future__ import annotations

import atexit
import itertools
import locale
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any


def inject(faults: Mapping[str, Any]) -> None:
    """Let faults happen in this process."""
    for name, value in faults.items():
        _FAULTS[name](value)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _count_calls(report: str) -> None:
    """Count the calls of functions until the end, and write their number to a file."""
    calls = _watch_calls(0)
    atexit.register(lambda: Path(report).write_text(str(next(calls)), "utf-8"))


def _die_at_call(number: int) -> None:
    """End without a word, as for lack of memory, at the call of a function of this number: at any moment."""
    _watch_calls(number)


def _watch_calls(last: int) -> Iterator[int]:
    calls = itertools.count(1)

    def look(_frame: object, event: str, _value: object) -> None:
        if event in ("call", "c_call") and next(calls) == last:
            _die()

    threading.setprofile(look)
    sys.setprofile(look)
    return calls


def _die_at_rename(number: int) -> None:
    """End instead of the rename of this number, from 1: the moment in which a result gets its name."""
    _at_call(number, _die, "replace", "rename")


def _refuse_rename(number: int) -> None:
    """Let the rename of this number fail, from 1, as one does on a file that another program holds on Windows."""

    def fail() -> None:
        raise PermissionError(13, "Permission denied")

    _at_call(number, fail, "replace", "rename")


def _at_call(number: int, happen: Callable[[], None], *names: str) -> None:
    done = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal done
            done += 1
            if done == number:
                happen()
            return real(*arguments, **more)

        return call

    for name in names:
        setattr(os, name, counted(getattr(os, name)))


def _limit_files(size: int) -> None:
    """Let no file grow over so many bytes: a write then fails as it does on a full disk."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _become(user: int) -> None:
    """Go on as another user, who may do less than the administrator."""
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def _turn_clock(step: float) -> None:
    """Let the clock of the system go ``step`` seconds forward, or backward, whenever somebody looks at it."""
    real, looks = time.time, 0

    def now() -> float:
        nonlocal looks
        looks += 1
        return real() + looks * step

    time.time = now
    time.time_ns = lambda: int(now() * 1e9)


def _set_locale(name: str) -> None:
    """Write numbers as this language does, in all that C does, as a desktop program in it would."""
    locale.setlocale(locale.LC_ALL, name)


_FAULTS: dict[str, Callable[[Any], None]] = {
    "count_calls": _count_calls,
    "die_at_call": _die_at_call,
    "die_at_rename": _die_at_rename,
    "refuse_rename": _refuse_rename,
    "limit_files": _limit_files,
    "become": _become,
    "turn_clock": _turn_clock,
    "set_locale": _set_locale,
}
