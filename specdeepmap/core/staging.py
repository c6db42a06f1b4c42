# SPDX-License-Identifier: GPL-3.0-or-later
"""Staging: the outputs of one run, kept under temporary names until all of them are whole.

A run that fails or is canceled leaves its folder as it was: nothing half-written, and what an
earlier run wrote is still there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from specdeepmap.core.errors import RasterError
from specdeepmap.core.progress import Progress

_SIDECAR = ".aux.xml"

_RASTER = (_SIDECAR, ".ovr", ".msk")
_ADDED = {".tif": _RASTER, ".tiff": _RASTER, ".gpkg": ("-wal", "-shm", "-journal")}
_INSTEAD = {".shp": (".qix", ".sbn", ".sbx", ".qpj", ".idm", ".ind")}
"""What other programs, or an earlier run, put beside a file: added to its name, or instead of its suffix.

Beside a new file of that name they would be taken for its own: other overviews, half of the features.
"""


class Staging:
    """Hand out temporary paths beside the targets, and rename all of them at the end.

    Use it in a ``with`` statement: it commits where the block ends well and discards otherwise.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._parts: dict[Path, Path] = {}
        self._made: list[Path] = []
        self._companions: set[Path] = set()

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()

    def file(self, target: Path) -> Path:
        """Give the temporary path of an output file; its folder is made where missing.

        The suffix stays, since GDAL chooses formats by it.

        Raises:
            RasterError: if the folder cannot be written.
        """
        part = target.with_name(f".{target.stem}.{os.getpid()}.part{target.suffix}")
        self._register(part, target)
        return part

    def companion(self, target: Path) -> None:
        """Take over a file that may come into being beside an output; where none does, an old one goes.

        Raises:
            RasterError: if the folder cannot be written.
        """
        self._companions.add(self.file(target))

    def folder(self, parent: Path) -> Path:
        """Give a new temporary folder inside ``parent``, removed at the end of the run.

        Raises:
            RasterError: if the folder cannot be written.
        """
        folder = parent / f".{os.getpid()}.part"
        self._writable(parent)
        self._progress.staged(folder)
        folder.mkdir(exist_ok=True)
        self._parts[folder] = folder
        return folder

    def scratch(self, path: Path) -> Path:
        """Take over a file that is only needed until the end of the run.

        Raises:
            RasterError: if the folder cannot be written.
        """
        self._writable(path.parent)
        self._progress.staged(path)
        self._parts[path] = path
        return path

    def commit(self) -> None:
        """Rename every part to its target, with its ``.aux.xml``; the temporary folders go.

        Raises:
            RasterError: if a target cannot be replaced; the parts that are left are then removed.
        """
        for part, target in self._parts.items():
            if part == target:
                continue
            fresh = part.with_name(part.name + _SIDECAR)
            try:
                if part.exists():
                    part.replace(target)
                    for stale in _side_files(target):
                        stale.unlink(missing_ok=True)
                elif part in self._companions:
                    target.unlink(missing_ok=True)
                if fresh.exists():
                    fresh.replace(target.with_name(target.name + _SIDECAR))
            except OSError as error:
                self.discard()
                raise RasterError(
                    f"The output {target} cannot be replaced ({error.strerror}). Is it open in another "
                    "program? Close it there, or choose another name."
                ) from error
        self._made.clear()
        remove_staged(part for part, target in self._parts.items() if part == target)

    def discard(self) -> None:
        """Remove every part, and the folders that were made for them and are empty."""
        remove_staged(self._parts)
        for folder in reversed(self._made):
            try:
                folder.rmdir()
            except OSError:  # somebody else put something there
                break

    def _register(self, part: Path, target: Path) -> None:
        if target.is_dir():
            raise RasterError(f"The output {target} is a folder; name a file.")
        self._writable(target.parent)
        self._progress.staged(part)
        self._parts[part] = target

    def _writable(self, folder: Path) -> None:
        missing = []
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        try:
            for entry in reversed(missing):
                entry.mkdir(exist_ok=True)
                self._made.append(entry)
            place = missing[0] if missing else folder
            probe = place / f".{os.getpid()}.probe"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise RasterError(
                f"The output folder {missing[0] if missing else folder} cannot be written "
                f"({error.strerror}). Choose a folder that you may write to."
            ) from error


def _side_files(path: Path) -> list[Path]:
    suffix = path.suffix.lower()
    added = (path.with_name(path.name + end) for end in _ADDED.get(suffix, (_SIDECAR,)))
    return [*added, *(path.with_suffix(end) for end in _INSTEAD.get(suffix, ()))]


def remove_staged(paths: Iterable[Path]) -> None:
    """Remove temporary outputs, with their side files; what is gone already is no error."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
            continue
        for entry in (path, path.with_name(path.name + _SIDECAR), path.with_name(path.name + "-journal")):
            try:
                entry.unlink(missing_ok=True)
            except OSError:
                continue
