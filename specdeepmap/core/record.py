# SPDX-License-Identifier: GPL-3.0-or-later
"""Records: frozen dataclasses that check themselves and go to JSON and back.

A field that a user fills in carries a ``Spec``: its label, help, bounds and options. The dialog, the
help of ``qgis_process``, the check of a job and the documentation are all made from it, so that they
cannot disagree. In messages a field ``tile_size`` is called ``TILE_SIZE``, as in the dialogs.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import reprlib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from specdeepmap.core.errors import ConfigError, nearest

_WHOLE = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

LARGEST = 2**63 - 1
"""Of all whole numbers: files and libraries hold no larger ones."""

_SHOWN = reprlib.Repr()
_SHOWN.maxlevel, _SHOWN.maxother, _SHOWN.maxstring = 2, 200, 200

_LONGEST = 600
"""Characters of a path, or of what a library says of a value, that a message shows."""

Options = Callable[[], Mapping[str, str]]
"""Gives the names of an option and the texts that a dialog shows for them."""

_NAME = 100
"""Characters of a wrong name in which the right one is looked for."""

R = TypeVar("R", bound="Record")


@dataclass(frozen=True)
class Spec:
    """What a form shows of a field, and what the field may hold.

    Attributes:
        kind: how the value is asked for: raster, folder, file, integer, number, flag, choice, text, extent,
            or a destination (folder_out, file_out, raster_out, vector_out).
        label: the field's name in the dialog.
        help: what it does, its unit, its default, when to change it.
        minimum, maximum: inclusive bounds of a number.
        above: exclusive lower bound of a number.
        options: the names that a choice may take.
        files: a file dialog's filter, such as ``CSV files (*.csv)``.
        suffix: the file name extension of a destination.
        suggestions: values that a dialog offers for a text.
        advanced: shown in the advanced part of the dialog.
    """

    kind: str
    label: str
    help: str
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    options: Options | None = None
    files: str = ""
    suffix: str = ""
    suggestions: tuple[str, ...] = ()
    advanced: bool = False


def ask(
    kind: str,
    label: str,
    text: str,
    default: Any = dataclasses.MISSING,
    **settings: Any,
) -> Any:
    """Declare a field that a form asks for; without a default it must be given."""
    spec = Spec(kind, label, text, **settings)
    return dataclasses.field(default=default, metadata={"spec": spec})


def made(kind: str, label: str) -> Any:
    """Declare a field of a result: folder, file, html, raster, vector, number or text."""
    return dataclasses.field(metadata={"spec": Spec(kind, label, "")})


def spec_of(field: dataclasses.Field[Any]) -> Spec | None:
    """Give the spec of a field; None where no form asks for it."""
    return field.metadata.get("spec")


def shown(value: object) -> str:
    """Show a value in a message, shortened: values from files may be megabytes long, or hold themselves many times."""
    try:
        return _SHOWN.repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number of thousands of digits"


def shortened(text: object) -> str:
    """Give a text for a message whole, or where it is very long its beginning and its end."""
    whole = str(text)
    return whole if len(whole) <= _LONGEST else f"{whole[: _LONGEST // 2]}…{whole[-_LONGEST // 2 :]}"


def parse_number(name: str, value: object, whole: bool) -> int | float:
    """Read a number that may have been typed as text.

    Raises:
        ConfigError: if it is no number, or a fraction where a whole number is needed.
    """
    text = str(value).strip()
    wanted = "a whole number such as 8" if whole else "a number with a decimal point, such as 0.5"
    if isinstance(value, bool) or not (_WHOLE if whole else _NUMBER).fullmatch(text):
        if whole and isinstance(value, float) and value.is_integer():
            return int(value)
        raise ConfigError(f"{name} is '{text}', which cannot be read. Give {wanted}.")
    return int(text) if whole else float(text)


@dataclass(frozen=True, kw_only=True)
class Record:
    """A frozen dataclass that checks its fields and knows JSON."""

    def __post_init__(self) -> None:
        hints = _hints(typing.cast(Any, type(self)))
        for field in dataclasses.fields(self):
            value = _coerced(field.name.upper(), getattr(self, field.name), hints[field.name])
            object.__setattr__(self, field.name, value)
            spec = spec_of(field)
            if spec is not None and value is not None:
                check_value(field.name.upper(), value, spec)
        self.check()

    def check(self) -> None:
        """Check what concerns several fields; for subclasses.

        Raises:
            ConfigError: if the values do not fit together.
        """

    def to_json(self) -> dict[str, Any]:
        """Give plain values for JSON, in the order of the fields."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_json(cls: type[R], values: Mapping[str, Any]) -> R:
        """Make the record from plain values; what is left out takes its default.

        Raises:
            ConfigError: if a name is unknown, a mandatory one is missing, or a value is wrong.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for name in values:
            if name not in fields:
                raise ConfigError(f"There is no parameter {shown(name)}.{nearest(str(name)[:_NAME], fields)}")
        for name, field in fields.items():
            has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
            if name not in values and not has_default:
                raise ConfigError(f"{name.upper()} is missing; it has no default.")
        return cls(**values)


@functools.cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    """Give the types of a class's fields; finding them out takes long."""
    return typing.get_type_hints(typing.cast(Any, kind))


def _coerced(name: str, value: Any, hint: Any) -> Any:
    """Bring a value to the type of its field, or refuse it."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        if value is None:
            return None
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{name} is {shown(value)}; it must be a list.")
        item = typing.get_args(hint)[0]
        return tuple(_coerced(name, entry, item) for entry in value)
    if typing.get_origin(hint) is dict:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ConfigError(f"{name} is {shown(value)}; it must be an object of names and values.")
        return dict(value)
    if dataclasses.is_dataclass(hint):
        return _made_of(name, value, typing.cast(type[Any], hint))
    if hint is Path:
        if not isinstance(value, (str, Path)) or not str(value) or "\0" in str(value):
            raise ConfigError(f"{name} is {shown(value)}; it must be a path.")
        return Path(_text(name, str(value)))
    return _simple(name, value, hint)


def _made_of(name: str, value: Any, kind: type[Any]) -> Any:
    """Make a dataclass of an object with its fields; those of a record are its own to check."""
    if isinstance(value, kind):
        return value
    fields = [field.name for field in dataclasses.fields(kind)]
    try:
        if not issubclass(kind, Record):
            hints = _hints(typing.cast(Any, kind))
            value = {field: _coerced(f"{name}, {field}", entry, hints[field]) for field, entry in value.items()}
        return kind(**value)
    except (TypeError, AttributeError, KeyError) as error:
        raise ConfigError(f"{name} is {shown(value)}; it must be an object with {', '.join(fields)}.") from error


def _simple(name: str, value: Any, hint: Any) -> Any:
    """Check a text, a number or a flag."""
    if hint is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST:
        return float(value)
    if hint is Any or (isinstance(value, hint) and not (hint is int and isinstance(value, bool))):
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ConfigError(f"{name} is {shown(value)}; numbers this large cannot be used.")
        return _text(name, value) if isinstance(value, str) else value
    raise ConfigError(f"{name} is {shown(value)}; it must be {_NAMES.get(hint, hint)}.")


def _text(name: str, value: str) -> str:
    """Check that a text can be written: half of a character, which JSON and file names may hold, cannot."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{name} is {shown(value)}; it holds characters that are no text. Type it again, or rename the file."
        ) from error
    return value


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def check_value(name: str, value: Any, spec: Spec) -> None:
    """Check a value against the bounds and options of its spec.

    Raises:
        ConfigError: if it is none of the options, or out of bounds.
    """
    if spec.kind in ("raster", "text") and value == "":
        raise ConfigError(f"{name} is empty.")
    if spec.kind in ("file_out", "raster_out", "vector_out") and not value.name:
        raise ConfigError(f"{name} is '{value}', which names a folder; give the name of a file.")
    if spec.options is not None and value not in spec.options():
        known = spec.options()
        raise ConfigError(
            f"{name} is {shown(value)}, which does not exist.{nearest(str(value)[:_NAME], known)} It can be: "
            f"{', '.join(known)}."
        )
    if spec.kind not in ("integer", "number"):
        return
    if not math.isfinite(value) and not (spec.minimum is None and spec.above is None):
        raise ConfigError(f"{name} is {value}; it must be finite.")
    if spec.minimum is not None and value < spec.minimum:
        raise ConfigError(f"{name} is {value:.10g}; it must be at least {spec.minimum:g}.")
    if spec.above is not None and value <= spec.above:
        raise ConfigError(f"{name} is {value:.10g}; it must be greater than {spec.above:g}.")
    if spec.maximum is not None and value > spec.maximum:
        raise ConfigError(f"{name} is {value:.10g}; it must be at most {spec.maximum:g}.")


def _plain(value: Any) -> Any:
    """Turn a field's value into what JSON knows."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


class _Titled(typing.Protocol):
    @property
    def title(self) -> str: ...


def titles(table: Mapping[str, _Titled]) -> Options:
    """Offer the entries of an option table, each under its title."""
    return lambda: {name: entry.title for name, entry in table.items()}
