# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads: files that are fetched once, checked by their hash, and kept for good.

A download is written under a name ``<file>.<mark>.part`` of its own, so two processes never write into one file,
and renamed when it is whole and right. What an interrupted one leaves becomes ``<file>.part``, which the next
one takes up by renaming it: only one process can win that. What a killed one leaves is taken up when it has
not grown for a minute, which is far longer than a living download waits for its server.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import math
import os
import queue
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from specdeepmap import __version__
from specdeepmap.core.errors import ConfigError
from specdeepmap.core.progress import Progress

TIMEOUT = 15.0
"""Seconds that a server may be silent."""

ABANDONED = 60.0
"""Seconds after which a part that does not grow belongs to nobody."""

LARGEST_FILE = 4_000_000_000
"""Bytes of a download, at most; a server that sends without an end would fill the disk."""

_BLOCK = 1 << 18
_AGENT = {"User-Agent": f"SpecDeepMap/{__version__}"}

Item = TypeVar("Item")


@dataclass(frozen=True)
class _Answer:
    """What a server says before it sends: where the content starts, and how long the whole file is."""

    start: int
    size: int | None


class _BrokenError(Exception):
    """A download that did not come to its end, with the reason."""


class _OnTheWeb(urllib.request.HTTPRedirectHandler):
    """Goes on to where a server points: on the web only, and from a safe connection to safe ones only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        kinds = ("https",) if req.full_url.startswith("https:") else ("https", "http")
        if urllib.parse.urlsplit(newurl).scheme not in kinds:
            raise _BrokenError(f"the server points to {newurl[:200]}, which is no safe address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def cache_folder() -> Path:
    """Give the folder of downloaded files: ``SPECDEEPMAP_CACHE``, else ``specdeepmap`` in the user's cache folder."""
    chosen = os.environ.get("SPECDEEPMAP_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    usual = {"win32": Path.home() / "AppData" / "Local", "darwin": Path.home() / "Library" / "Caches"}
    named = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    return (Path(named) if named else usual.get(sys.platform, Path.home() / ".cache")) / "specdeepmap"


def fetch(url: str, folder: Path, sha256_prefix: str, progress: Progress) -> Path:
    """Give a file of pretrained weights, downloaded if it is not there yet.

    A file of that name in the folder is taken if its hash is right, whoever put it there.

    Args:
        url: ends in the file's name.
        folder: made if it does not exist.
        sha256_prefix: how the SHA-256 of the file begins, in hexadecimal digits.
        progress: its 0 to 1 is this download.

    Raises:
        ConfigError: if the file cannot be had, with the ways to get it by hand.
    """
    target = folder / url.rsplit("/", 1)[-1]
    try:
        if target.is_file():
            if _hash(target, progress).startswith(sha256_prefix):
                return target
            progress.warning(f"{target} is damaged (its SHA-256 does not begin with {sha256_prefix}); it is replaced.")
        part = _claim(target)
        try:
            _fill(part, url, sha256_prefix, progress)
            part.replace(target)
        finally:
            if part.exists():
                part.replace(_part(target)) if part.stat().st_size else part.unlink()
    except (_BrokenError, OSError) as error:
        raise ConfigError(_by_hand(target, url, error)) from error
    for left in _abandoned(target):
        left.unlink(missing_ok=True)
    progress.report(1.0)
    return target


def reachable(url: str, progress: Progress, timeout: float = 8.0) -> bool:
    """Tell whether a server answers at all within some seconds, be it with an error."""

    def ask() -> Iterator[bool]:
        request = urllib.request.Request(url, headers=_AGENT, method="HEAD")  # noqa: S310 - no user's address
        try:
            with urllib.request.build_opener(_OnTheWeb).open(request, timeout=timeout):
                yield True
        except urllib.error.HTTPError as error:
            error.close()
            yield True
        except (OSError, http.client.HTTPException):
            yield False

    try:
        return next(watched(ask(), progress, timeout))
    except TimeoutError:  # a name with many addresses, each of which is silent for as long
        return False


def watched(items: Iterable[Item], progress: Progress, timeout: float | None = None) -> Generator[Item, None, None]:
    """Iterate in another thread, so that a cancel takes effect while this one waits for an item.

    Raises:
        Canceled: at once after ``progress.cancel``; the thread ends by itself at its next item.
        TimeoutError: if the end is not reached within so many seconds.
    """
    until = time.monotonic() + (math.inf if timeout is None else timeout)
    ready: queue.Queue[tuple[str, Item | BaseException | None]] = queue.Queue(maxsize=4)
    gone = threading.Event()

    def put(kind: str, value: Item | BaseException | None) -> None:
        while not gone.is_set():
            try:
                return ready.put((kind, value), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                put("item", item)
                if gone.is_set():
                    break
            put("end", None)
        except BaseException as error:  # handed to the thread that waits
            put("error", error)
        finally:
            getattr(iterator, "close", lambda: None)()

    threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            progress.check()
            try:
                kind, value = ready.get(timeout=0.1)
            except queue.Empty:
                if time.monotonic() > until:
                    raise TimeoutError(f"nothing came within {timeout:g} seconds") from None
                continue
            if kind == "error" and isinstance(value, BaseException):
                raise value
            if kind == "end":
                return
            yield value  # type: ignore[misc]  # the third kind is an item
    finally:
        gone.set()


def _fill(part: Path, url: str, sha256_prefix: str, progress: Progress) -> None:
    """Bring a part to its end and check it.

    Raises:
        _BrokenError: if that fails. The part stays if more of it can be fetched later.
    """
    have = part.stat().st_size
    if have and _hash(part, progress).startswith(sha256_prefix):
        return  # only the renaming was missing
    try:
        _receive(part, url, progress)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _BrokenError(f"the server says {error.code} {error.reason}") from error
        part.write_bytes(b"")  # longer than the file itself: not a part of it
        _receive(part, url, progress)
    except urllib.error.URLError as error:
        raise _BrokenError(str(error.reason)) from error
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _BrokenError(f"the connection broke: {type(error).__name__}") from error
    found = _hash(part, progress)
    if not found.startswith(sha256_prefix):
        part.unlink()
        raise _BrokenError(f"what came has another SHA-256, {found[:8]} instead of {sha256_prefix}, and was removed")


def _receive(part: Path, url: str, progress: Progress) -> None:
    """Receive what a part lacks, or all where the server sends all.

    Raises:
        _BrokenError: if the server sends less than it announced, or more than any file has.
    """
    size: int | None = None
    told = -1
    with part.open("r+b") as file, contextlib.closing(watched(_sent(url, part.stat().st_size), progress)) as messages:
        for message in messages:
            if isinstance(message, _Answer):
                file.truncate(message.start)
                file.seek(message.start)
                size = message.size
            if max(file.tell(), size or 0) > LARGEST_FILE:
                file.truncate(0)
                raise _BrokenError(f"the server sends more than {LARGEST_FILE / 1e9:g} GB")
            if isinstance(message, _Answer):
                continue
            file.write(message)
            megabytes = file.tell() // 1_000_000
            of = f" of {size / 1e6:.0f}" if size else ""
            text = f"Downloading {url.rsplit('/', 1)[-1]}: {megabytes}{of} MB" if megabytes != told else ""
            progress.report(file.tell() / size if size else 0.0, text)
            told = megabytes
        done = file.tell()
    if size is not None and done < size:
        raise _BrokenError(f"the connection broke after {done / 1e6:.1f} of {size / 1e6:.1f} MB")


def _sent(url: str, have: int) -> Iterator[_Answer | bytes]:
    """Give what a server sends: its answer first, then blocks."""
    wanted = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(url, headers={**_AGENT, **wanted})  # noqa: S310 - the addresses are ours
    opener = urllib.request.build_opener(_OnTheWeb)
    with opener.open(request, timeout=TIMEOUT) as reply:
        announced = reply.headers.get("Content-Length", "")
        length = int(announced) if announced.isdecimal() else None
        resumed = reply.status == http.client.PARTIAL_CONTENT and reply.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        start = have if resumed else 0
        yield _Answer(start, None if length is None else start + length)
        while block := reply.read1(_BLOCK):
            yield block


def _claim(target: Path) -> Path:
    """Take up the longest part that nobody works on, or begin one, under a name of one's own.

    Raises:
        ConfigError: if the folder cannot be written.
    """
    own = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        own.touch()
    except OSError as error:
        raise ConfigError(
            f"PRETRAINED_WEIGHTS: the folder of downloaded weights, {target.parent}, cannot be written "
            f"({error.strerror}). Set the environment variable SPECDEEPMAP_CACHE to a folder that can."
        ) from error
    for left in [_part(target), *_abandoned(target)]:
        try:
            left.replace(own)
        except OSError:
            continue  # not there, taken by another process, or held open by one on Windows
        os.utime(own)
        break
    return own


def _part(target: Path) -> Path:
    """Name what an interrupted download leaves."""
    return target.with_name(f"{target.name}.part")


def _abandoned(target: Path) -> list[Path]:
    """List the parts of killed downloads, the longest first."""
    found = []
    for path in target.parent.glob(f"{target.name}.*.part"):
        try:
            state = path.stat()
        except OSError:
            continue
        if time.time() - state.st_mtime > ABANDONED:
            found.append((state.st_size, path))
    return [path for _, path in sorted(found, reverse=True)]


def _hash(path: Path, progress: Progress) -> str:
    """Give the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            progress.check()
            digest.update(block)
    return digest.hexdigest()


def _by_hand(target: Path, url: str, error: Exception) -> str:
    """Say what failed and how the file gets here without a download."""
    reason = getattr(error, "strerror", None) or error
    return (
        f"PRETRAINED_WEIGHTS: {target.name} could not be downloaded ({reason}). Try again: what has arrived is kept. "
        f"Without internet, fetch {url} elsewhere and put it into {target.parent}, or name the file in WEIGHTS_FILE, "
        "with PRETRAINED_WEIGHTS none."
    )
