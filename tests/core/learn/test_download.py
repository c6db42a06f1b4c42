# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of downloads: whole, resumed, or nothing, and always a sentence that helps."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from specdeepmap.core.errors import Canceled, ConfigError
from specdeepmap.core.learn import download
from specdeepmap.core.learn.download import cache_folder, fetch, reachable, watched
from tests.fileserver import FileServer
from tests.helpers import Recorder, full_disk

NAME = "backbone-0.pth"
CONTENT = bytes(range(251)) * 12_000  # 3 MB, no block like the one before
PREFIX = hashlib.sha256(CONTENT).hexdigest()[:8]


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer({NAME: CONTENT}) as running:
        yield running


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def get(server: FileServer, folder: Path, progress: Recorder | None = None, prefix: str = PREFIX) -> Path:
    return fetch(f"{server.url}/{NAME}", folder, prefix, progress or Recorder())


def failure(server: FileServer, folder: Path, prefix: str = PREFIX) -> str:
    with pytest.raises(ConfigError) as caught:
        get(server, folder, prefix=prefix)
    message = str(caught.value)
    for part in ("PRETRAINED_WEIGHTS", "WEIGHTS_FILE", NAME, f"{server.url}/{NAME}", str(folder)):
        assert part in message
    return message


def test_a_fresh_download(server: FileServer, tmp_path: Path, progress: Recorder) -> None:
    path = get(server, tmp_path / "neuer Ordner" / "für Gewichte", progress)
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == [NAME]
    assert server.asked == [("GET", None)]
    assert progress.shares == sorted(progress.shares) and progress.shares[-1] == 1.0
    assert any(0.1 < share < 0.9 for share in progress.shares)


def test_what_is_there_is_not_asked_for(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(CONTENT)  # put there by hand
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == []


def test_a_damaged_file_is_replaced(server: FileServer, tmp_path: Path, progress: Recorder) -> None:
    (tmp_path / NAME).write_bytes(CONTENT[:-1] + b"x")
    assert get(server, tmp_path, progress).read_bytes() == CONTENT
    assert any("damaged" in text for text in progress.warnings)


def test_a_broken_connection_is_resumed_where_it_broke(server: FileServer, tmp_path: Path) -> None:
    server.cut = 1_000_000
    assert "broke after 1.0 of 3.0 MB" in failure(server, tmp_path)
    assert names(tmp_path) == [f"{NAME}.part"]
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == [("GET", None), ("GET", "bytes=1000000-")]
    assert server.sent == len(CONTENT)
    assert names(tmp_path) == [NAME]


def test_a_server_that_knows_no_ranges_sends_all_again(tmp_path: Path) -> None:
    with FileServer({NAME: CONTENT}, ranges=False) as server:
        server.cut = 1_000_000
        failure(server, tmp_path)
        assert get(server, tmp_path).read_bytes() == CONTENT
        assert server.sent == 1_000_000 + len(CONTENT)


def test_a_part_that_is_whole_needs_no_server(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == []


def test_a_part_that_is_too_long_is_thrown_away(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT + b"more")
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_a_wrong_hash_leaves_nothing(server: FileServer, tmp_path: Path) -> None:
    message = failure(server, tmp_path, prefix="00000000")
    assert "SHA-256" in message and PREFIX in message and "removed" in message
    assert names(tmp_path) == []


def test_a_wrong_part_is_not_kept(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(bytes(1000))
    assert "SHA-256" in failure(server, tmp_path)
    assert get(server, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [404, 403, 503])
def test_what_the_server_says_stands_in_the_message(tmp_path: Path, status: int) -> None:
    with FileServer({NAME: CONTENT}, status=status) as server:
        assert str(status) in failure(server, tmp_path)
    assert names(tmp_path) == []


def test_no_server_at_all(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/{NAME}"
    with pytest.raises(ConfigError, match="WEIGHTS_FILE") as caught:
        fetch(address, tmp_path, PREFIX, Recorder())
    assert "refused" in str(caught.value)
    assert names(tmp_path) == []


def test_a_silent_server_is_given_up(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    server.stall = 500_000
    failure(server, tmp_path)
    assert (tmp_path / f"{NAME}.part").read_bytes() == CONTENT[:500_000]


def test_cancel_takes_effect_while_the_server_is_silent(server: FileServer, tmp_path: Path, progress: Recorder) -> None:
    server.stall = 700_000
    started: list[float] = []

    def cancel() -> None:
        while server.sent == 0:
            time.sleep(0.01)
        time.sleep(0.3)
        started.append(time.monotonic())
        progress.cancel()

    threading.Thread(target=cancel, daemon=True).start()
    with pytest.raises(Canceled):
        get(server, tmp_path, progress)
    assert time.monotonic() - started[0] < 1
    assert names(tmp_path) == [f"{NAME}.part"]
    assert (tmp_path / f"{NAME}.part").read_bytes() == CONTENT[:700_000]
    server.stall = None
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == ("GET", "bytes=700000-")


def test_two_at_once_do_not_disturb_each_other(server: FileServer, tmp_path: Path) -> None:
    server.cut = 1_000_000
    failure(server, tmp_path)
    got: list[bytes] = []
    both = [threading.Thread(target=lambda: got.append(get(server, tmp_path).read_bytes())) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert got == [CONTENT, CONTENT]
    assert names(tmp_path) == [NAME]


@pytest.mark.parametrize(("age", "taken_up"), [(3600.0, True), (1.0, False)])
def test_what_a_killed_process_left_is_taken_up(server: FileServer, tmp_path: Path, age: float, taken_up: bool) -> None:
    left = tmp_path / f"{NAME}.0123abcd.part"
    left.write_bytes(CONTENT[:2_000_000])
    os.utime(left, (time.time() - age,) * 2)
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == [("GET", "bytes=2000000-" if taken_up else None)]
    assert names(tmp_path) == ([NAME] if taken_up else [NAME, left.name])  # a young one may be another process's


def test_a_full_disk(server: FileServer, tmp_path: Path) -> None:
    with full_disk(1_500_000):
        message = failure(server, tmp_path)
    assert "large" in message or "space" in message


def test_a_folder_that_cannot_be_written(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match="SPECDEEPMAP_CACHE"):
        get(server, tmp_path / "file")


def test_reachable(tmp_path: Path, progress: Recorder) -> None:
    with FileServer({}, status=500) as server:
        assert reachable(server.url, progress)
        address = server.url
    assert not reachable(address, progress)


def test_a_silent_server_is_not_reachable(progress: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def silent(*_: object, **__: object) -> None:  # as a name with many addresses that drop what comes
        over.wait(20)

    monkeypatch.setattr("urllib.request.OpenerDirector.open", silent)
    started = time.monotonic()
    assert not reachable("http://127.0.0.1", progress, timeout=0.3)
    assert time.monotonic() - started < 2
    over.set()


def test_watched_gives_all_and_hands_errors_on(progress: Recorder) -> None:
    def items() -> Iterator[int]:
        yield from range(100)
        raise OSError("over")

    seen = []
    with pytest.raises(OSError, match="over"):
        for item in watched(items(), progress):
            seen.append(item)
    assert seen == list(range(100))


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SPECDEEPMAP_CACHE", raising=False)
    for platform, variable, usual in (
        ("linux", "XDG_CACHE_HOME", ".cache"),
        ("win32", "LOCALAPPDATA", "AppData/Local"),
        ("darwin", "XDG_CACHE_HOME", "Library/Caches"),
    ):
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.delenv(variable, raising=False)
        assert cache_folder() == Path.home() / usual / "specdeepmap"
        monkeypatch.setenv(variable, str(tmp_path))
        assert cache_folder() == tmp_path / "specdeepmap"
    monkeypatch.setenv("SPECDEEPMAP_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
