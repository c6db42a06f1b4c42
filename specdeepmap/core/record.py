# SPDX-License-Identifier: GPL-3.0-or-later
"""Records: frozen dataclasses that check themselves and go to JSON and back.

A field that a user fills in carries a ``Spec``: its label, help, bounds and options. The dialog, the
help of ``qgis_process``, the check of a job and the documentation are all made from it, so that they
cannot disagree. In messages a field ``tile_size`` is called ``TILE_SIZE``, as in the dialogs.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from specdeepmap.core.errors import ConfigError, nearest

_WHOLE = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

Options = Callable[[], Mapping[str, str]]
"""Gives the names of an option and the texts that a dialog shows for them."""

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
        hints = typing.get_type_hints(type(self))
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
                raise ConfigError(f"There is no parameter '{name}'.{nearest(name, fields)}")
        for name, field in fields.items():
            has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
            if name not in values and not has_default:
                raise ConfigError(f"{name.upper()} is missing; it has no default.")
        return cls(**values)


def _coerced(name: str, value: Any, hint: Any) -> Any:
    """Bring a value to the type of its field, or refuse it."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        if value is None:
            return None
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{name} is {value!r}; it must be a list.")
        item = typing.get_args(hint)[0]
        return tuple(_coerced(name, entry, item) for entry in value)
    if typing.get_origin(hint) is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} is {value!r}; it must be an object of names and values.")
        return dict(value)
    if dataclasses.is_dataclass(hint):
        kind = typing.cast(type[Any], hint)
        if isinstance(value, kind):
            return value
        try:
            return kind(**value)
        except TypeError as error:
            names = ", ".join(field.name for field in dataclasses.fields(kind))
            raise ConfigError(f"{name} is {value!r}; it must be an object with {names}.") from error
    if hint is Path:
        if not isinstance(value, (str, Path)) or not str(value):
            raise ConfigError(f"{name} is {value!r}; it must be a path.")
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Any or (isinstance(value, hint) and not (hint is int and isinstance(value, bool))):
        return value
    raise ConfigError(f"{name} is {value!r}; it must be {_NAMES.get(hint, hint)}.")


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def check_value(name: str, value: Any, spec: Spec) -> None:
    """Check a value against the bounds and options of its spec.

    Raises:
        ConfigError: if it is none of the options, or out of bounds.
    """
    if spec.kind in ("raster", "text") and value == "":
        raise ConfigError(f"{name} is empty.")
    if spec.options is not None and value not in spec.options():
        known = spec.options()
        raise ConfigError(
            f"{name} is '{value}', which does not exist.{nearest(str(value), known)} It can be: {', '.join(known)}."
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
