# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventory: what a file of PyTorch says that it holds, counted before anything of it is loaded.

``torch.load(weights_only=True)`` runs no program of the file. But it unpacks what is packed, makes a gigabyte of zeros
where a file of 100 bytes asks for it, and some versions believe what a file says about the size of its numbers. So
the description of the tensors, a pickle, is gone through step by step, and what it would make is added up.
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import IO

BIGGEST_DESCRIPTION = 2**25
"""Bytes of a description, at most: a network of 1000 tensors has 0.1 MB, the names of 100,000 chips have 2."""

MOST_STEPS = 2**20
"""Steps of a description, at most: enough for the names of 300,000 chips. Each may take some hundred bytes."""

SHARED = 4
"""How many times the file's size its tensors may hold together: weights that are used twice are stored once."""

_ALLOWANCE = 2**16  # bytes; small files are mostly padding

_ZIP, _END, _END64, _LOCATOR64 = b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"

_LONGEST = 2**63

_MOST_SIDES = 64
"""Dimensions of a tensor, as PyTorch allows them."""

_LEGACY_MARK = 0x1950A86A20F9469CFC6C

_LEGACY_PARTS = 5
"""Pickles at the beginning of a file from before PyTorch 1.6: a mark, a version, a system, the content, its keys."""

_VALUES = {
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINSTRING"),
}
"""Steps that make a plain value."""

_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

_TAKEN = {"APPEND": 1, "SETITEM": 2}
"""How many values a step puts into the list or dictionary before them."""

_ORDERED = "collections.OrderedDict"

_PLAIN = {
    *(_ORDERED, "collections.Counter", "builtins.set", "builtins.complex", "torch.Size"),
    *("torch.device", "torch.nn.parameter.Parameter", "torch.serialization._get_layout"),
    *("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"),
}
"""What state dicts hold beside tensors, and what is wrapped around them. None of it makes more than it is given."""

_TENSORS = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"}

_ENCODE = "_codecs.encode"
"""How bytes are written, as a text in Latin-1. Other encodings may take long."""

_BYTES = {
    **dict.fromkeys(("Byte", "Char", "Bool", "QUInt8", "QInt8", "Untyped", "QUInt4x2", "QUInt2x4"), 1),
    **dict.fromkeys(("Short", "Half", "BFloat16"), 2),
    **dict.fromkeys(("Int", "Float", "QInt32"), 4),
    **dict.fromkeys(("Long", "Double", "ComplexFloat"), 8),
    "ComplexDouble": 16,
}
"""Bytes of a number, by the name of its storage."""

_KINDS = {
    *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "uint16"),
    *("uint32", "uint64", "bool", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2"),
}
"""Number types, which stand in a file by their names."""


class ExcessError(Exception):
    """A file describes more than it can hold."""


class ForeignError(Exception):
    """A file describes something else than tensors and plain values."""


def take_inventory(path: Path) -> None:
    """Check that a file describes plain values, and tensors that it has room for; nothing is loaded.

    Raises:
        ExcessError: if it describes more than it can hold.
        ForeignError: if it describes anything else.
        Exception: whatever reading a damaged file raises.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) == _ZIP:
            _check_end(file, size)
            with zipfile.ZipFile(file) as archive:
                description, records = _description(archive, size)
            _Count(size, records).go_through(io.BytesIO(description))
            return
        file.seek(0)
        count = _Count(size)
        for _ in range(_LEGACY_PARTS):
            count.go_through(file)


def _check_end(file: IO[bytes], size: int) -> None:
    """Check that a zip archive ends where it should.

    Programs disagree on where the list of contents begins in archives with something before, between or behind;
    another one than PyTorch's could be counted.
    """
    file.seek(max(size - 98, 0))
    tail = file.read()
    end = tail[-22:]
    if end[:4] != _END or end[20:] != b"\0\0":
        raise zipfile.BadZipFile("no end")
    length, start = struct.unpack("<II", end[12:20])
    last = size - 22
    if tail[-42:-38] == _LOCATOR64:
        where = struct.unpack("<Q", tail[-34:-26])[0]
        if where != size - 98 or tail[:4] != _END64:
            raise zipfile.BadZipFile("another end")
        length, start = struct.unpack("<QQ", tail[40:56])
        last = where
    if start + length != last:
        raise zipfile.BadZipFile("a gap before the end")


def _description(archive: zipfile.ZipFile, size: int) -> tuple[bytes, dict[str, int]]:
    """Give the pickle of an archive, and the sizes of its records of numbers."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    root = names[0].split("/")[0] + "/"
    if len({name.lower() for name in names}) < len(names) or not all(name.startswith(root) for name in names):
        raise ForeignError
    if sum(entry.file_size for entry in entries) > size:
        raise ExcessError
    if any(name == f"{root}constants.pkl" for name in names):
        raise ForeignError
    whole = archive.getinfo(f"{root}data.pkl")
    if whole.file_size > BIGGEST_DESCRIPTION:
        raise ExcessError
    start = f"{root}data/"
    records = {name.removeprefix(start): entry.file_size for name, entry in zip(names, entries, strict=True)}
    return archive.read(whole), records


@dataclass(frozen=True)
class _Named:
    """Something that is found by its name."""

    name: str


@dataclass(frozen=True)
class _Made:
    """A list, a dictionary, or what a function gives; what is put into it does not matter."""

    by: str = ""


_CONTAINER = _Made()


@dataclass(frozen=True)
class _Storage:
    """Numbers in the file."""

    bytes_each: int


@dataclass(frozen=True, eq=False)
class _Tuple:
    """A tuple, and how many values are looked at where it is compared: one that holds another twice, both."""

    values: tuple[object, ...]
    weight: int

    @classmethod
    def of(cls, values: list[object]) -> _Tuple:
        return cls(tuple(values), 1 + sum(value.weight if isinstance(value, _Tuple) else 1 for value in values))


@dataclass
class _Count:
    """Goes through pickles as PyTorch does, makes nothing, and adds up what would be made.

    Args:
        size: of the file, in bytes.
        records: sizes of its records of numbers, by key; None where they follow the pickles.
    """

    size: int
    records: dict[str, int] | None = None
    _known: dict[str, int] = field(default_factory=dict)
    _stored: int = 0
    _held: int = 0
    _steps: int = 0

    def go_through(self, file: IO[bytes]) -> None:
        """Go through one pickle; the file is then behind it."""
        start = file.tell()
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}
        for step, argument, position in pickletools.genops(file):
            self._spend(1)
            if (position or start) - start > BIGGEST_DESCRIPTION:
                raise ExcessError
            self._take(step.name, argument)

    def _spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MOST_STEPS:
            raise ExcessError

    def _take(self, step: str, argument: object) -> None:
        """Take one step."""
        stack = self._stack
        if step in _VALUES:
            # A dictionary of numbers that differ by multiples of one of 61 bits may take hours.
            if isinstance(argument, int) and abs(argument) >= _LONGEST and argument != _LEGACY_MARK:
                raise ForeignError
            stack.append(argument)
        elif step in ("BINPUT", "LONG_BINPUT"):
            self._memo[_number(argument)] = stack[-1]
        elif step in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[_number(argument)])
            self._spend(stack[-1].weight if isinstance(stack[-1], _Tuple) else 0)
        elif step == "MARK":
            self._marks.append(len(stack))
        elif step in ("TUPLE", *_TUPLES):
            count = len(stack) - self._marks.pop() if step == "TUPLE" else _TUPLES[step]
            stack.append(_Tuple.of(self._pop(count)))
        elif step in ("APPENDS", "SETITEMS", *_TAKEN):
            self._pop(_TAKEN.get(step) or len(stack) - self._marks.pop())
        elif step in ("EMPTY_LIST", "EMPTY_DICT"):
            stack.append(_CONTAINER)
        else:
            self._make(step, argument)

    def _make(self, step: str, argument: object) -> None:
        """Take a step that names, calls or changes something."""
        stack = self._stack
        if step == "GLOBAL":
            stack.append(_found(*str(argument).split(" ", 1)))
        elif step in ("REDUCE", "NEWOBJ"):
            function, values = self._pop(2)
            stack.append(self._called(function, values.values if isinstance(values, _Tuple) else ()))
        elif step == "BINPERSID":
            stack.append(self._persistent(*self._pop(1)))
        elif step == "BUILD":
            self._pop(1)
            if stack[-1] != _Made(_ORDERED):  # a tensor could change its size
                raise ForeignError
        elif step not in ("PROTO", "STOP"):
            raise ForeignError

    def _pop(self, count: int) -> list[object]:
        """Take the last values away."""
        if not 0 <= count <= len(self._stack):
            raise LookupError
        start = len(self._stack) - count
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _called(self, function: object, values: tuple[object, ...]) -> _Made:
        """Give what a function would."""
        if not isinstance(function, _Named):
            raise ForeignError
        if function.name in _TENSORS:
            storage, offset, size = values[:3]
            if not isinstance(storage, _Storage) or not isinstance(size, _Tuple) or len(size.values) > _MOST_SIDES:
                raise ForeignError
            _number(offset)
            self._held += prod(map(_number, size.values)) * storage.bytes_each
            if self._held > SHARED * self.size + _ALLOWANCE:
                raise ExcessError
        elif function.name == _ENCODE and values[1:] not in (("latin1",), (b"latin1",)):
            raise ForeignError
        return _Made(function.name)

    def _persistent(self, saved: object) -> _Storage:
        """Give a storage, and count what of the file it takes."""
        values = saved.values if isinstance(saved, _Tuple) else ()
        if len(values) < 5 or values[0] != "storage" or not isinstance(values[1], _Storage):
            raise ForeignError
        key, size = str(values[2]), _number(values[4]) * values[1].bytes_each
        if self.records is not None and size > self.records.get(key, 0):
            raise ExcessError
        known = self._known.get(key, 0)
        self._stored += max(size - known, 0)
        self._known[key] = max(size, known)
        if self._stored > self.size:
            raise ExcessError
        return values[1]


def _found(module: str, name: str) -> _Named | _Storage | None:
    """Find what a pickle names; None stands for a number type.

    Raises:
        ForeignError: if it has no business in a file of tensors.
    """
    full = f"{module.replace('__builtin__', 'builtins')}.{name}"
    if full in _PLAIN or full in _TENSORS or full == _ENCODE:
        return _Named(full)
    bytes_each = _BYTES.get(name.removesuffix("Storage"))
    if module in ("torch", "torch.storage", "torch.cuda") and name.endswith("Storage") and bytes_each:
        return _Storage(bytes_each)
    if module == "torch" and name in _KINDS:
        return None
    raise ForeignError


def _number(value: object) -> int:
    """Check that a value is a count.

    Raises:
        ForeignError: if not.
    """
    if not isinstance(value, int) or not 0 <= value < _LONGEST:
        raise ForeignError
    return value
