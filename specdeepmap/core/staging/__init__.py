# SPDX-License-Identifier: GPL-3.0-or-later
"""Staging: the outputs of one run, kept under temporary names until all of them are whole.

A run that fails or is canceled leaves its folder as it was: nothing half-written, and what an
earlier run wrote is still there. Outputs get their names all together or not at all, one run at a time.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

from specdeepmap.core.errors import RasterError, SpecDeepMapError
from specdeepmap.core.progress import Progress
from specdeepmap.core.staging.claim import CLAIM_NAME, claim, claimed
from specdeepmap.core.staging.exchange import JOURNAL_SUFFIX, Move, exchange, recover, undo

__all__ = ["CLAIM_NAME", "SQLITE_FILES", "Move", "Staging", "claim", "claimed", "remove_staged", "write_whole"]

_LONGEST = 255 - len(".aux.xml")  # bytes of a file name
_SIDECAR = ".aux.xml"

SQLITE_FILES = ("-wal", "-shm", "-journal")
"""Ends of the files that SQLite keeps beside a database while it is open."""

_RASTER = (_SIDECAR, ".ovr", ".msk")
_ADDED = {".tif": _RASTER, ".tiff": _RASTER, ".gpkg": SQLITE_FILES}
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

        The suffix stays, since GDAL chooses formats by it; that of a Shapefile in small letters, as GDAL writes it.

        Raises:
            RasterError: if the folder cannot be written.
        """
        suffix = ".shp" if target.suffix.lower() == ".shp" else target.suffix
        name = f".{target.stem}.{os.getpid()}.part{suffix}"
        if len(os.fsencode(name)) > _LONGEST:
            short = hashlib.sha256(os.fsencode(target.stem)).hexdigest()[:16]
            name = f".{short}.{os.getpid()}.part{suffix}"
        part = target.with_name(name)
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
        self.make(parent)
        self._progress.staged(folder)
        folder.mkdir(exist_ok=True)
        self._parts[folder] = folder
        return folder

    def scratch(self, path: Path) -> Path:
        """Take over a file that is only needed until the end of the run.

        Raises:
            RasterError: if the folder cannot be written.
        """
        self.make(path.parent)
        self._progress.staged(path)
        self._parts[path] = path
        return path

    def commit(self) -> None:
        """Give every part the name of its target, with its ``.aux.xml``; the temporary folders go.

        Raises:
            RasterError: if a target cannot be replaced; all are then what they were, and the parts are removed.
            Canceled: if the user does not want to wait for another run that writes into the same folder.
        """
        targets = [target for part, target in self._parts.items() if part != target]
        try:
            self.exchange([target.parent for target in targets], self._moves)
        except BaseException:
            self.discard()
            raise
        self._made.clear()
        remove_staged(part for part, target in self._parts.items() if part == target)

    def exchange(self, folders: Iterable[Path], moves: Callable[[], Iterable[Move]]) -> None:
        """Give files their names, all or none of them, while no other run does so in the same folders.

        Args:
            folders: that the files get into; they exist.
            moves: says which, when it is this run's turn.

        Raises:
            RasterError: if one cannot have its name.
            Canceled: if the user does not want to wait for another run.
        """
        folders = list(dict.fromkeys(folders))
        if not folders:
            return
        try:
            with claimed(folders, self._progress):
                for folder in folders:
                    recover(folder)
                journal = folders[0] / f".{os.getpid()}{JOURNAL_SUFFIX}"
                self._progress.staged(journal)
                exchange(journal, moves())
        except SpecDeepMapError:  # some are OSErrors, too
            raise
        except OSError as error:
            name = error.filename2 or error.filename or folders[0]
            advice = "Is it open in another program? Close it there, or choose another name."
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                advice = "Free some space or choose another folder."
            elif error.errno == errno.ENAMETOOLONG:
                advice = "Choose a shorter name."
            raise RasterError(f"The output {name} cannot be replaced ({error.strerror}). {advice}") from error

    def _moves(self) -> Iterator[Move]:
        for part, target in self._parts.items():
            if part == target:
                continue
            fresh, sidecar = part.with_name(part.name + _SIDECAR), target.with_name(target.name + _SIDECAR)
            if part.exists():
                yield Move(target, part)
                yield from (Move(stale) for stale in _side_files(target) if stale != sidecar and os.path.lexists(stale))
            elif part in self._companions and os.path.lexists(target):
                yield Move(target)
            if fresh.exists():
                yield Move(sidecar, fresh)
            elif part.exists() and sidecar in _side_files(target) and os.path.lexists(sidecar):
                yield Move(sidecar)

    def discard(self) -> None:
        """Remove every part, and the folders that were made for them and are empty."""
        remove_staged(self._parts)
        for folder in reversed(self._made):
            try:
                folder.rmdir()
            except OSError:  # somebody else put something there
                break

    def _register(self, part: Path, target: Path) -> None:
        try:
            is_folder = target.is_dir()
        except OSError as error:
            raise RasterError(
                f"The output {target} cannot be written ({error.strerror}). Choose another name."
            ) from error
        if is_folder:
            raise RasterError(f"The output {target} is a folder; name a file.")
        self.make(target.parent)
        self._progress.staged(part)
        self._parts[part] = target

    def make(self, folder: Path) -> None:
        """Make a folder where it is missing; it goes again when the run fails.

        Raises:
            RasterError: if it cannot be written.
        """
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
            self._progress.staged(probe)  # a child that is killed right now leaves not even this
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


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name, and give it its own when it is whole.

    Raises:
        OSError: if it cannot be written; an earlier file of that name is then what it was.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def remove_staged(paths: Iterable[Path]) -> None:
    """Remove temporary outputs, with their side files; what is gone already is no error.

    An exchange that did not come to its end is undone first. Where that fails nothing is removed: earlier results may
    be among it, and the next run in the folder tries again.
    """
    paths = list(paths)
    try:
        for path in paths:
            if path.name.endswith(JOURNAL_SUFFIX):
                undo(path)
    except OSError:
        return
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
            continue
        for entry in (path, path.with_name(path.name + _SIDECAR), path.with_name(path.name + "-journal")):
            try:
                entry.unlink(missing_ok=True)
            except OSError:
                continue
