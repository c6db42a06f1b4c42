# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of how a job speaks and how it is stopped."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdeepmap.core.errors import Canceled
from specdeepmap.core.progress import EventProgress, Progress, TextProgress
from tests.helpers import Recorder


@given(st.lists(st.floats(-1, 2), min_size=1, max_size=30))
def test_shares_never_go_backwards_and_stay_between_0_and_1(shares: list[float]) -> None:
    progress = Recorder()
    for share in shares:
        progress.report(share)
    assert progress.shares == sorted(progress.shares)
    assert all(0 <= share <= 1 for share in progress.shares)
    assert progress.shares[-1] == pytest.approx(min(max(0, *shares), 1))


def test_parts_share_a_whole() -> None:
    progress = Recorder()
    first, second = progress.part(0.0, 0.4), progress.part(0.4, 1.0)
    inner = second.part(0.5, 1.0)
    for part in (first, second, inner):
        part.report(0.5)
    assert progress.shares == pytest.approx([0.2, 0.7, 0.85])
    first.report(1.0)
    assert progress.shares[-1] == pytest.approx(0.85), "a late first part does not turn it back"


def test_parts_speak_and_stop_with_the_whole() -> None:
    progress = Recorder()
    part = progress.part(0, 0.5).part(0, 0.5)
    part.info("a")
    part.warning("b")
    part.staged(Path("c"))
    assert (progress.infos, progress.warnings, progress.staged_paths) == (["a"], ["b"], [Path("c")])
    part.check()
    assert not part.canceled
    progress.cancel()
    assert part.canceled
    with pytest.raises(Canceled):
        part.check()
    other = Recorder()
    other.part(0, 1).cancel()
    with pytest.raises(Canceled):
        other.check()


def test_canceled_is_no_error() -> None:
    progress = Progress()
    progress.check()
    progress.cancel()
    with pytest.raises(Canceled) as caught:
        progress.check()
    assert not isinstance(caught.value, (ValueError, OSError, RuntimeError))


def test_text_for_a_person() -> None:
    stream = io.StringIO()
    progress = TextProgress(stream)
    progress.report(0.0, "Start")
    for step in range(1, 1001):
        progress.report(step / 1000)
    progress.info("ä")
    progress.warning("b")
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("Start") and lines[-2:] == ["ä", "Warning: b"]
    assert len(lines) == 13, "one line per ten percent"


def test_events_are_json_lines() -> None:
    stream = io.StringIO()
    progress = EventProgress(stream)
    progress.report(0.25, "Schön\nzwei")
    progress.info("i")
    progress.warning("w")
    progress.staged(Path("x") / "y.part")
    progress.send("result", values={"a": 1})
    lines = stream.getvalue().splitlines()
    assert all(line.isascii() for line in lines)
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events] == ["progress", "info", "warning", "staged", "result"]
    assert events[0] == {"event": "progress", "share": 0.25, "text": "Schön\nzwei"}
    assert Path(events[3]["path"]) == progress.staged_paths[0]


def test_events_are_few_but_the_end_is_told() -> None:
    stream = io.StringIO()
    progress = EventProgress(stream)
    for step in range(100001):
        progress.report(step / 100000)
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(events) <= 1002
    assert events[-1]["share"] == 1


def test_a_parent_that_is_gone_stops_the_job_without_an_error() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    progress = EventProgress(Gone())
    progress.info("hello")
    with pytest.raises(Canceled):
        progress.check()


def test_lines_of_several_threads_do_not_mix() -> None:
    stream = io.StringIO()
    progress = EventProgress(stream)
    threads = [threading.Thread(target=lambda: [progress.info("x" * 200) for _ in range(100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [json.loads(line)["text"] for line in stream.getvalue().splitlines()] == ["x" * 200] * 400
