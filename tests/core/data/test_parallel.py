# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of work in threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specdeepmap.core.data.parallel import THREADS, in_threads
from specdeepmap.core.errors import Canceled
from tests.helpers import Recorder


class Source:
    """Items that tell how many of them were taken."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        for number in range(self.count):
            self.taken += 1
            yield number


@given(st.integers(0, 60), st.integers(1, 40), st.integers(0, 999))
@settings(max_examples=15)
def test_results_come_in_the_order_of_the_items(count: int, ahead: int, seed: int) -> None:
    def work(number: int) -> int:
        time.sleep((number * 7919 + seed) % 5 / 3000)  # later ones are often done first
        return number * number

    progress = Recorder()
    source = Source(count)
    assert list(in_threads(work, source, count, progress, ahead)) == [number**2 for number in range(count)]
    assert source.taken == count
    assert progress.shares == sorted(progress.shares)
    assert not count or progress.shares[-1] == 1


@pytest.mark.parametrize("ahead", [1, 3, 10])
def test_no_more_than_some_items_are_in_work_or_waiting(ahead: int) -> None:
    source = Source(100)
    in_work = most = 0
    lock = threading.Lock()

    def work(number: int) -> int:
        nonlocal in_work, most
        with lock:
            in_work += 1
            most = max(most, in_work)
        time.sleep(0.05 if number == 0 else 0.0005)  # all others wait for the first one
        with lock:
            in_work -= 1
        return number

    for yielded, _ in enumerate(in_threads(work, source, 100, Recorder(), ahead)):
        assert source.taken - yielded <= ahead
    assert most <= min(ahead, THREADS)
    assert source.taken == 100


def test_items_are_taken_in_the_calling_thread_and_worked_on_in_others() -> None:
    here = threading.get_ident()
    takers, workers = set(), set()

    def items() -> Iterator[int]:
        for number in range(8):
            takers.add(threading.get_ident())
            yield number

    def work(number: int) -> None:
        workers.add(threading.get_ident())

    list(in_threads(work, items(), 8, Recorder()))
    assert takers == {here} and here not in workers


def test_an_exception_of_a_worker_comes_out_and_stops_the_source() -> None:
    source = Source(1000)
    done: list[int] = []

    def work(number: int) -> int:
        if number == 5:
            raise OSError("the fifth")
        time.sleep(0.001)
        done.append(number)
        return number

    with pytest.raises(OSError, match="the fifth"):
        list(in_threads(work, source, 1000, Recorder(), 8))
    assert source.taken < 30 and len(done) < 30
    after = len(done)
    time.sleep(0.05)
    assert len(done) == after, "no thread works on"


def test_an_exception_of_the_source_comes_out() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        list(in_threads(lambda number: number, items(), 2, Recorder()))


def test_a_cancel_is_heard_soon_while_all_workers_are_busy() -> None:
    source, progress = Source(1000), Recorder()
    started: list[int] = []
    free = threading.Event()

    def work(number: int) -> int:
        started.append(number)
        free.wait(1.0)  # as one that cannot be interrupted
        return number

    threading.Timer(0.2, progress.cancel).start()
    begin = time.monotonic()
    with pytest.raises(Canceled):
        list(in_threads(work, source, 1000, progress, 32))
    assert time.monotonic() - begin < 2
    assert source.taken <= 32
    assert len(started) <= THREADS, "what waits for a thread is not begun any more"


def test_after_a_cancel_no_further_item_is_taken() -> None:
    source, progress = Source(1000), Recorder()
    for number in in_threads(lambda number: number, source, 1000, progress, 4):
        if number == 10:
            progress.cancel()
            taken = source.taken
            break_at = number
            break
    assert break_at == 10 and source.taken == taken <= 15
    source, progress = Source(1000), Recorder()
    results = in_threads(lambda number: number, source, 1000, progress, 4)
    next(results)
    taken = source.taken
    progress.cancel()
    with pytest.raises(Canceled):
        list(results)
    assert source.taken == taken


def test_who_stops_asking_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    results = in_threads(lambda number: number, Source(100), 100, Recorder())
    next(results)
    results.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_as_many_threads_work_as_are_wanted(threads: int) -> None:
    workers: set[int] = set()
    together = threading.Barrier(threads)

    def work(number: int) -> int:
        workers.add(threading.get_ident())
        together.wait(5)  # all of them at once, or a BrokenBarrierError
        return number

    count = 4 * threads
    assert list(in_threads(work, range(count), count, Recorder(), threads=threads)) == list(range(count))
    assert len(workers) == threads
