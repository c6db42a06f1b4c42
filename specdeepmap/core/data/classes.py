# SPDX-License-Identifier: GPL-3.0-or-later
"""A class table: which values a label raster holds, what they mean, how a network counts them.

A class *value* stands in the raster, 1 to 255 and as sparse as the user likes. A class *index* is a
network's output channel, 0 to n - 1, in ascending order of the values. Value 0 is unlabelled: it has
no index, is encoded as ``IGNORE_INDEX`` and can never be predicted.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.errors import ConfigError
from specdeepmap.core.record import Record, shown

UNLABELLED = 0
"""The class value of a pixel that has no label."""

IGNORE_INDEX = 255
"""What stands for a class index where a pixel has no label. 255 classes at most: 0 to 254."""

# Colours that people with colour-blindness tell apart: Okabe & Ito 2008, "Color Universal Design",
# without black, reordered so that the first two differ most.
_PALETTE = ("#e69f00", "#0072b2", "#009e73", "#d55e00", "#56b4e9", "#f0e442", "#cc79a7")


_COLOR = re.compile(r"#[0-9a-fA-F]{6}([0-9a-fA-F]{2})?")
"""Nothing else: colours go as they are into reports."""

_LONGEST_NAME = 1000


@dataclass(frozen=True)
class ClassEntry:
    """One class: its value in the raster, its name, its colour as ``#rrggbb``."""

    value: int
    name: str
    color: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The colour as red, green, blue, 0 to 255."""
        red, green, blue = bytes.fromhex(self.color.lstrip("#")[:6])
        return red, green, blue


@dataclass(frozen=True, kw_only=True)
class ClassTable(Record):
    """The classes of a dataset or a model, in ascending order of their values."""

    entries: tuple[ClassEntry, ...]

    def check(self) -> None:
        """Sort the entries and check their colours, names, and that the values are unique and 1 to 255."""
        entries = tuple(sorted(self.entries, key=lambda entry: entry.value))
        object.__setattr__(self, "entries", entries)
        values = [entry.value for entry in entries]
        if len(set(values)) < len(values):
            raise ConfigError(f"The class values {shown(values)} are not unique.")
        wrong = [value for value in values if not 1 <= value <= 255]
        if wrong:
            raise ConfigError(f"The class values {shown(wrong)} lie outside 1 to 255; 0 means unlabelled.")
        for entry in entries:
            if not _COLOR.fullmatch(entry.color):
                raise ConfigError(
                    f"The colour of class {entry.value} is {shown(entry.color)}; it must be # and six hexadecimal "
                    "digits, such as #0072b2."
                )
            if len(entry.name) > _LONGEST_NAME:
                raise ConfigError(
                    f"The name of class {entry.value} has {len(entry.name)} characters; {_LONGEST_NAME} are allowed."
                )

    @classmethod
    def of(
        cls,
        values: Iterable[int],
        names: Mapping[int, str] | None = None,
        colors: Mapping[int, str] | None = None,
    ) -> ClassTable:
        """Make a table of values; 0 is left out, missing names and colours, and what is no colour, are filled in."""
        names = names or {}
        colors = {value: text for value, text in (colors or {}).items() if _COLOR.fullmatch(text)}
        wanted = sorted({int(value) for value in values} - {UNLABELLED})
        own: dict[int, str] = {}
        for value in wanted:  # colours that another image's classes were given for want of any are none
            if value in colors and not (colors[value] in _PALETTE and colors[value] in own.values()):
                own[value] = colors[value]
        free = (text for text in map(color, count()) if text not in own.values())
        filled = {value: own.get(value) or next(free) for value in wanted}
        return cls(
            entries=tuple(ClassEntry(value, names.get(value) or f"class {value}", filled[value]) for value in wanted)
        )

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def values(self) -> tuple[int, ...]:
        """Class values, ascending; position is class index."""
        return tuple(entry.value for entry in self.entries)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of the class indices."""
        return tuple(entry.name for entry in self.entries)

    @property
    def titles(self) -> tuple[str, ...]:
        """Class names in the order of the class indices, with the id where several classes have one name."""
        return tuple(
            f"{entry.name} ({entry.value})" if self.names.count(entry.name) > 1 else entry.name
            for entry in self.entries
        )

    @property
    def legend(self) -> dict[str, str]:
        """The colour of each class, by its title."""
        return {title: entry.color for title, entry in zip(self.titles, self.entries, strict=True)}

    def encode(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn class values into class indices; unlabelled and unknown values become the ignore index."""
        lookup = np.full(256, IGNORE_INDEX, np.uint8)
        lookup[list(self.values)] = np.arange(len(self), dtype=np.uint8)
        return np.asarray(lookup[labels], np.uint8)

    def decode(self, indices: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Turn class indices into class values; the ignore index becomes unlabelled."""
        lookup = np.full(256, UNLABELLED, np.uint8)
        lookup[: len(self)] = self.values
        return np.asarray(lookup[indices], np.uint8)

    def renamed(self, names: Mapping[int, str]) -> list[str]:
        """List the classes that have another name elsewhere, as ``2 (meadow / water)``; ``class 2`` is no name."""
        pairs = [(entry, names.get(entry.value) or entry.name) for entry in self.entries]
        return [
            f"{entry.value} ({entry.name} / {name})"
            for entry, name in pairs
            if entry.name.casefold() != name.casefold() and f"class {entry.value}" not in (entry.name, name)
        ]

    def unknown(self, values: Iterable[int]) -> list[int]:
        """Give those of the values, other than unlabelled, that the table does not know."""
        return sorted({int(value) for value in values} - {UNLABELLED, *self.values})

    def category_names(self) -> list[str]:
        """Give the names by value, from 0 on, as GDAL wants them."""
        names = [""] * (max(self.values, default=0) + 1)
        names[UNLABELLED] = "unlabelled"
        for entry in self.entries:
            names[entry.value] = entry.name
        return names


AGREEMENT = ClassTable(entries=(ClassEntry(1, "agrees", "#56b4e9"), ClassEntry(2, "disagrees", "#d55e00")))
"""The values of an error map. Sky blue and vermilion are told apart by the colour-blind (Okabe & Ito 2008)."""


def color(index: int) -> str:
    """Give the colour of the class at an index: colour-blind-safe first, then spread hues."""
    if index < len(_PALETTE):
        return _PALETTE[index]
    hue = (index * 0.618034) % 1.0  # the golden ratio spreads any number of hues
    rgb = colorsys.hls_to_rgb(hue, 0.35 + 0.15 * (index % 3), 0.65)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def class_weights(counts: Sequence[int] | NDArray[np.integer[Any]], bound: float = 10.0) -> NDArray[np.float64]:
    r"""Weigh classes by inverse frequency, bounded and normalised.

    With :math:`n_c` pixels of class *c*, :math:`n` pixels of *k* classes that occur,

    .. math:: w_c = \min(n / (k \, n_c), b \, \min_j n / (k \, n_j))

    divided by the mean over the classes that occur, so that weights average 1 and the largest is at most
    :math:`b` times the smallest. The inverse-frequency heuristic is that of King & Zeng 2001,
    "Logistic Regression in Rare Events Data".

    Args:
        counts: pixels per class.
        bound: largest ratio between two weights.

    Returns:
        A weight per class; 0 for a class without a pixel.
    """
    pixels = np.asarray(counts, np.float64)
    weights = np.zeros_like(pixels)
    present = pixels > 0
    if not present.any():
        return weights
    inverse = pixels.sum() / (present.sum() * pixels[present])
    inverse = np.minimum(inverse, bound * inverse.min())
    weights[present] = inverse / inverse.mean()
    return weights
