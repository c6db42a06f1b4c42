# SPDX-License-Identifier: GPL-3.0-or-later
"""Work in threads: reading and writing chips, where GDAL and the compressors leave Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from specdeepmap.core.progress import Progress

T = TypeVar("T")
U = TypeVar("U")

THREADS = min(os.cpu_count() or 1, 8)


def in_threads(
    work: Callable[[T], U], items: Iterable[T], count: int, progress: Progress, ahead: int = 32
) -> Iterator[U]:
    """Work on items in threads and yield the results in the order of the items.

    Items are taken in the calling thread, and only as many as ``ahead`` are in work, so that memory stays
    bounded whatever their number. A cancel is heard twice a second; work that has begun is waited for.

    Args:
        work: done for each item.
        items: may be read from disk while earlier ones are in work.
        count: number of items, for the progress.
        progress: is reported to.
        ahead: items in work or done and not yet yielded, at most.
    """
    results: dict[int, U] = {}
    waiting: dict[Future[U], int] = {}
    source = enumerate(items)
    given = yielded = 0
    exhausted = False
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            while True:
                progress.check()
                while not exhausted and given - yielded < ahead and len(waiting) < ahead:
                    entry = next(source, None)
                    if entry is None:
                        exhausted = True
                        break
                    waiting[pool.submit(work, entry[1])] = entry[0]
                    given += 1
                    progress.check()
                while yielded in results:
                    yield results.pop(yielded)
                    yielded += 1
                    progress.report(yielded / max(count, 1))
                if exhausted and yielded == given:
                    return
                done, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    results[waiting.pop(future)] = future.result()
        finally:
            for future in waiting:
                future.cancel()
