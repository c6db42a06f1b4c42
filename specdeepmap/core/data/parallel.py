# SPDX-License-Identifier: GPL-3.0-or-later
"""Work in threads: reading and writing chips, where GDAL and the compressors leave Python's lock."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

from specdeepmap.core.progress import Progress

T = TypeVar("T")
U = TypeVar("U")

_SWITCH_SECONDS = 0.0005
"""Python's own 5 ms would let a thread that comes back from GDAL wait longer than its work on a chip takes."""

THREADS = min(os.cpu_count() or 1, 8)


def in_threads(
    work: Callable[[T], U],
    items: Iterable[T],
    count: int,
    progress: Progress,
    ahead: int = 32,
    group: int = 1,
    threads: int = THREADS,
) -> Generator[U, None, None]:
    """Work on items in threads and yield the results in the order of the items.

    Items are taken in the calling thread, and only as many as ``ahead`` are in work, so that memory stays
    bounded whatever their number. A cancel is heard twice a second; work that has begun is waited for.

    Args:
        work: done for each item.
        items: may be read from disk while earlier ones are in work.
        count: number of items, for the progress.
        progress: is reported to.
        ahead: items in work or done and not yet yielded, at most.
        group: items that a thread takes at a time; more than one where an item is done in a millisecond.
        threads: that work.
    """
    waiting: deque[Future[list[U]]] = deque()
    source = iter(items)
    taken = yielded = 0
    interval = sys.getswitchinterval()
    with ThreadPoolExecutor(threads) as pool:
        sys.setswitchinterval(_SWITCH_SECONDS)
        try:
            while True:
                progress.check()
                while taken - yielded + group <= ahead and (part := list(islice(source, group))):
                    waiting.append(pool.submit(_each, work, part))
                    taken += len(part)
                    progress.check()
                if not waiting:
                    return
                if not waiting[0].done():
                    wait((waiting[0],), timeout=0.5)
                    continue
                for result in waiting.popleft().result():
                    yield result
                    yielded += 1
                    progress.report(yielded / max(count, 1))
        finally:
            sys.setswitchinterval(interval)
            for future in waiting:
                future.cancel()


def _each(work: Callable[[T], U], items: Sequence[T]) -> list[U]:
    return [work(item) for item in items]
