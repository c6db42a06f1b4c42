# SPDX-License-Identifier: GPL-3.0-or-later
"""A file server on this computer, which can be made to behave badly."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


class FileServer:
    """Serve some files at ``url``; use it in a ``with`` statement.

    Args:
        files: name to content.
        ranges: understand requests for a part.
        status: what every request is answered with, other than 200.

    Attributes:
        cut: bytes after which the connection breaks; None = never. Only the next answer is cut.
        stall: bytes after which nothing comes any more; None = never.
        asked: for each request, its method and its Range.
        sent: bytes of content sent, over all requests.
    """

    def __init__(self, files: dict[str, bytes], ranges: bool = True, status: int = 200) -> None:
        self.files, self.ranges, self.status = files, ranges, status
        self.cut: int | None = None
        self.stall: int | None = None
        self.asked: list[tuple[str, str | None]] = []
        self.sent = 0
        self._over = threading.Event()
        house = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                house.asked.append(("HEAD", None))
                self.send_response(house.status)
                self.end_headers()

            def do_GET(self) -> None:
                house._answer(self)

            def log_message(self, *_: Any) -> None:
                """Be silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FileServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.asked.append(("GET", wanted))
        content = self.files.get(handler.path.lstrip("/"))
        if content is None or self.status != 200:
            handler.send_error(404 if self.status == 200 else self.status)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start and start >= len(content):
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        self._send(handler, content[start:])

    def _send(self, handler: BaseHTTPRequestHandler, content: bytes) -> None:
        ends = [end for end in (self.cut, self.stall) if end is not None]
        part = content[: min(ends, default=len(content))]
        handler.wfile.write(part)
        handler.wfile.flush()
        self.sent += len(part)
        if self.stall is not None:
            self._over.wait(60)
        self.cut = None
        handler.close_connection = True
        time.sleep(0)
