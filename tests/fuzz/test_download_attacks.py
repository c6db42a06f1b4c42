# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of downloads from a server that means harm: nothing of what it sends is kept."""

from __future__ import annotations

import hashlib
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from specdeepmap.core.errors import ConfigError
from specdeepmap.core.learn import download
from specdeepmap.core.learn.download import fetch
from tests.fileserver import FileServer
from tests.helpers import Recorder

NAME = "backbone-0.pth"
SECRET = b"what stands in a file of this computer"
PREFIX = hashlib.sha256(SECRET).hexdigest()[:8]


@contextmanager
def server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Answer every request in one's own way; gives the address of a file."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: Any) -> None:
            """Be silent."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}/{NAME}"
    finally:
        running.shutdown()
        running.server_close()


def pointing_to(address: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", address)
        handler.end_headers()

    return answer


@pytest.mark.parametrize("kind", ["file", "ftp", "data", "javascript", "loop"])
def test_a_server_that_points_elsewhere(tmp_path: Path, kind: str) -> None:
    """The hash is right, so only the address can be the reason."""
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    elsewhere = {"file": secret.as_uri(), "data": "data:,x", "loop": f"/{NAME}", "ftp": "ftp://127.0.0.1:9/x"}
    with (
        server(pointing_to(elsewhere.get(kind, "javascript:alert(1)"))) as url,
        pytest.raises(ConfigError, match=r"PRETRAINED_WEIGHTS: .* could not be downloaded") as caught,
    ):
        fetch(url, tmp_path / "cache", PREFIX, Recorder())
    assert kind == "loop" or "no safe address" in str(caught.value) or "not allowed" in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_from_a_safe_connection_to_an_open_one() -> None:
    asked = urllib.request.Request("https://localhost/a")
    redirection = download._OnTheWeb()
    assert redirection.redirect_request(asked, None, 302, "", Message(), "https://localhost/b") is not None
    with pytest.raises(download._BrokenError, match="no safe address"):
        redirection.redirect_request(asked, None, 302, "", Message(), "http://localhost/b")


def test_a_server_that_points_to_another_is_followed(tmp_path: Path) -> None:
    with FileServer({"there.bin": SECRET}) as other, server(pointing_to(f"{other.url}/there.bin")) as url:
        assert fetch(url, tmp_path, PREFIX, Recorder()).read_bytes() == SECRET


@pytest.mark.parametrize("announced", [None, 10**15, -5])
def test_a_body_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, announced: int | None) -> None:
    monkeypatch.setattr(download, "LARGEST_FILE", 3_000_000)
    sent = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        if announced is not None:
            handler.send_header("Content-Length", str(announced))
        handler.end_headers()
        try:
            while len(sent) < 500:
                handler.wfile.write(bytes(100_000))
                sent.append(100_000)
        except OSError:
            handler.close_connection = True

    with server(answer) as url, pytest.raises(ConfigError, match="sends more than"):
        fetch(url, tmp_path, PREFIX, Recorder())
    assert list(tmp_path.iterdir()) == []
    assert sum(sent) < 50_000_000


@pytest.mark.parametrize("raw", [SECRET + b"x", b"", bytes(10**6)])
def test_another_content(tmp_path: Path, raw: bytes) -> None:
    with FileServer({NAME: raw}) as running, pytest.raises(ConfigError, match=r"SHA-256|could not be downloaded"):
        fetch(f"{running.url}/{NAME}", tmp_path, PREFIX, Recorder())
    assert list(tmp_path.iterdir()) == []


def test_a_file_put_there_by_another(tmp_path: Path) -> None:
    """A file of the right name in the cache is believed by its hash alone."""
    (tmp_path / NAME).write_bytes(b"of another")
    with FileServer({NAME: SECRET}) as running:
        assert fetch(f"{running.url}/{NAME}", tmp_path, PREFIX, Recorder()).read_bytes() == SECRET
