# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation's pages: where Help buttons lead, offline where the pages lie on this computer."""

from __future__ import annotations

import configparser
from collections.abc import Sequence
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent

FOLDERS = (_PACKAGE / "help", _PACKAGE.parent / "docs" / "_build" / "html")
"""Where the HTML pages lie: in a release, and in a checkout whose pages were built."""


def page_url(page: str, folders: Sequence[Path] = FOLDERS) -> str:
    """Give the address of a page: a file on this computer, else the page on the web.

    Args:
        page: its name without ending, as ``install`` or ``algorithms/trainer``.
        folders: that may hold the pages, the first one that does counts.
    """
    for folder in folders:
        file = folder / f"{page}.html"
        if file.is_file():
            return file.resolve().as_uri()
    return f"{_homepage()}/blob/main/docs/{page}.rst"


def _homepage() -> str:
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read(_PACKAGE / "metadata.txt", encoding="utf-8")
    return metadata["general"]["homepage"].rstrip("/")
