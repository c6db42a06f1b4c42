# SPDX-License-Identifier: GPL-3.0-or-later
"""Exchange: many files take the place of many others as if they were one.

A journal lies on the disk while files are moved. Whoever finds one, after the process that wrote it has ended without a
word, puts everything back with ``undo``. An exchange is final when its journal gets another name; whoever finds that
removes what is left of the earlier files.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

JOURNAL_SUFFIX = ".exchange.json"
_DONE_SUFFIX = ".exchanged.json"

_LOCK = threading.Lock()  # nobody undoes in this process what is only half-done

Stamp = tuple[int, int]


@dataclass(frozen=True)
class Move:
    """A file that gets its final name.

    Attributes:
        target: the final name; what bears it now goes.
        new: what is to bear it, on the same disk; None = nothing.
    """

    target: Path
    new: Path | None = None


@dataclass(frozen=True)
class _Step:
    """A line of the journal: names as text, and by what the new file is known when it bears the name of the target."""

    target: str
    new: str
    aside: str
    stamp: Stamp | None


def exchange(journal: Path, moves: Iterable[Move]) -> None:
    """Give new files their names; where one of them cannot have it, all is as it was.

    Args:
        journal: a file that is written for a while; its name ends in ``JOURNAL_SUFFIX``, and what comes before that
            begins the names of the files that have to go.
        moves: no two with the same target.

    Raises:
        OSError: if a file cannot be moved; its attribute ``filename`` or ``filename2`` names it.
    """
    prefix = journal.name.removesuffix(JOURNAL_SUFFIX)
    steps = [_step(move, f"{prefix}.{number}.earlier") for number, move in enumerate(moves)]
    with _LOCK:
        try:
            _write(journal, steps)
            for step in steps:
                if Path(step.target).is_dir():
                    raise IsADirectoryError(21, "it is a folder", step.target)
                if step.aside:
                    Path(step.target).replace(step.aside)
                if step.new:
                    Path(step.new).replace(step.target)
            journal.replace(_done(journal))
        except OSError:
            _undo(journal, steps)
            raise
        _finish(_done(journal), steps)


def undo(journal: Path, is_known: bool = True) -> None:
    """Put everything back that an exchange has moved which did not come to its end; one that did is tidied up.

    Files that somebody else has put in a place since then stay there.

    Args:
        journal: of the exchange.
        is_known: whether it is from a process of ours. One that was found may have come with a folder from somebody
            else: it removes nothing outside of its folder.

    Raises:
        OSError: if a file cannot be moved; the journal stays, so that it can be tried again.
    """
    with _LOCK:
        if _done(journal).exists():
            _finish(_done(journal), _read(_done(journal), is_known))
        elif journal.exists():
            _undo(journal, _read(journal, is_known))
        _part(journal).unlink(missing_ok=True)


def recover(folder: Path) -> None:
    """Undo, or tidy up, what ended without a word in a folder. Nobody may be at work there: see ``claimed``.

    Raises:
        OSError: if a file cannot be moved.
    """
    for suffix in (JOURNAL_SUFFIX, _DONE_SUFFIX, _part(Path(JOURNAL_SUFFIX)).name):
        for path in sorted(folder.glob(f".*{suffix}")):
            undo(path.with_name(path.name.removesuffix(suffix) + JOURNAL_SUFFIX), is_known=False)


def _done(journal: Path) -> Path:
    return journal.with_name(journal.name.removesuffix(JOURNAL_SUFFIX) + _DONE_SUFFIX)


def _part(journal: Path) -> Path:
    return journal.with_suffix(".part")


def _step(move: Move, aside: str) -> _Step:
    return _Step(
        target=str(move.target.absolute()),
        new="" if move.new is None else str(move.new.absolute()),
        aside=str(move.target.absolute().with_name(aside)) if os.path.lexists(move.target) else "",
        stamp=None if move.new is None else _stamp(move.new),
    )


def _stamp(path: Path | str) -> Stamp:
    known = os.lstat(path)
    return known.st_mtime_ns, known.st_size


def _write(journal: Path, steps: Sequence[_Step]) -> None:
    """Write the journal; under its name it is whole."""
    part = _part(journal)
    try:
        part.write_text(json.dumps([asdict(step) for step in steps]), encoding="utf-8")
        part.replace(journal)
    finally:
        part.unlink(missing_ok=True)


def _read(journal: Path, is_known: bool) -> list[_Step]:
    """Read a journal; one that no exchange can have written is as good as empty."""
    prefix = journal.name.removesuffix(JOURNAL_SUFFIX).removesuffix(_DONE_SUFFIX)
    try:
        values = json.loads(journal.read_text(encoding="utf-8"))
        steps = [_Step(**{**value, "stamp": value["stamp"] and tuple(value["stamp"])}) for value in values]
        if not all(_is_ours(step, number, prefix) for number, step in enumerate(steps)):
            return []
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # or the power failed before it was whole
        return []
    here = journal.absolute().parent
    return [
        step for step in steps if is_known or step.aside or Path(os.path.normpath(step.target)).is_relative_to(here)
    ]


def _lies_in(path: str, folder: Path) -> bool:
    return Path(os.path.normpath(path)).is_relative_to(folder)


def _is_ours(step: _Step, number: int, prefix: str) -> bool:
    """Tell whether the earlier file of a step has the name that only an exchange gives, beside the target."""
    target = Path(step.target)
    return target.is_absolute() and step.aside in ("", str(target.with_name(f"{prefix}.{number}.earlier")))


def _undo(journal: Path, steps: Sequence[_Step]) -> None:
    for step in reversed(steps):
        taken = os.path.lexists(step.target)
        ours = bool(step.new) and not os.path.lexists(step.new) and taken and _stamp(step.target) == step.stamp
        if step.aside and os.path.lexists(step.aside):
            if ours or not taken:
                Path(step.aside).replace(step.target)
            else:
                Path(step.aside).unlink()
        elif ours and not step.aside:
            Path(step.target).unlink()
    journal.unlink(missing_ok=True)


def _finish(done: Path, steps: Sequence[_Step]) -> None:
    with contextlib.suppress(OSError):  # they are in nobody's way
        for step in steps:
            if step.aside:
                Path(step.aside).unlink(missing_ok=True)
        done.unlink(missing_ok=True)
