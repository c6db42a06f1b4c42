# SPDX-License-Identifier: GPL-3.0-or-later
"""The zip of a release, made once per test run from this checkout."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
import zipfile
from pathlib import Path

import package


@functools.cache
def folder() -> Path:
    """Make the folder that the zip and its parts lie in."""
    made = Path(tempfile.mkdtemp(prefix="specdeepmap release-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@functools.cache
def pages() -> Path:
    """Build the help pages."""
    return package.build_pages(folder() / "html")


@functools.cache
def release() -> Path:
    """Make the zip; ``dist`` of the checkout stays as it is."""
    built, root = pages(), folder() / "checkout"
    root.mkdir()
    for name in (*package.EXTRAS, package.PLUGIN):
        (root / name).symlink_to(package.ROOT / name)
    return package.make_zip(built, root)


@functools.cache
def unpacked() -> Path:
    """Give the folder with the plugin's folder, as QGIS unpacks it."""
    target = folder() / "unpacked"
    with zipfile.ZipFile(release()) as archive:
        archive.extractall(target)
    return target
