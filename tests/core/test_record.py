# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of records: they check themselves, and go to JSON and back."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdeepmap.core.errors import ConfigError
from specdeepmap.core.record import Record, Spec, ask, parse_number, spec_of


@dataclass(frozen=True)
class Choice:
    title: str


@dataclass(frozen=True)
class Point:
    x: int
    name: str


@dataclass(frozen=True, kw_only=True)
class Recipe(Record):
    source: str = ask("raster", "Source", "What to cook.")
    tile_size: int = ask("integer", "Size", "How large.", 8, minimum=4, maximum=64)
    share: float = ask("number", "Share", "How much.", 0.5, above=0)
    offset: float | None = ask("number", "Offset", "How far.", None)
    mode: str = ask("choice", "Mode", "How.", "slow", options=lambda: {"slow": "Slowly", "fast": "Quickly"})
    loud: bool = ask("flag", "Loud", "Whether.", False)
    target: Path | None = ask("file_out", "Target", "Where to.", None)
    extent: tuple[float, ...] | None = None
    points: tuple[Point, ...] = ()
    extra: dict[str, Any] | None = None

    def check(self) -> None:
        if self.loud and self.mode == "slow":
            raise ConfigError("LOUD and MODE slow do not go together.")


def test_a_record_survives_json() -> None:
    recipe = Recipe(
        source="ä b.tif",
        tile_size=16,
        share=1e-3,
        target=Path("a") / "ß.csv",
        extent=(1.0, 2.0, 3.5, 4.0),
        points=(Point(1, "eins"), Point(2, "zwei")),
        extra={"k": [1, 2]},
    )
    again = Recipe.from_json(json.loads(json.dumps(recipe.to_json())))
    assert again == recipe
    assert isinstance(again.target, Path) and isinstance(again.points[1], Point)
    assert list(recipe.to_json())[:3] == ["source", "tile_size", "share"]


@given(st.integers(4, 64), st.floats(1e-6, 1e9), st.sampled_from(["slow", "fast"]), st.text(min_size=1))
def test_any_allowed_values_survive_json(size: int, share: float, mode: str, source: str) -> None:
    recipe = Recipe(source=source, tile_size=size, share=share, mode=mode)
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"tile_size": 3}, "TILE_SIZE is 3; it must be at least 4"),
        ({"tile_size": 65}, "TILE_SIZE is 65; it must be at most 64"),
        ({"tile_size": 8.5}, "TILE_SIZE .* whole number"),
        ({"tile_size": True}, "TILE_SIZE .* whole number"),
        ({"tile_size": None}, "TILE_SIZE"),
        ({"share": 0}, "SHARE is 0.*greater than 0"),
        ({"share": float("nan")}, "SHARE is nan; it must be finite"),
        ({"share": float("inf")}, "SHARE is inf; it must be finite"),
        ({"share": "a"}, "SHARE is 'a'; it must be a number"),
        ({"mode": "fst"}, "MODE is 'fst'.*Did you mean fast\\?.*slow, fast"),
        ({"loud": 1}, "LOUD is 1; it must be true or false"),
        ({"loud": True}, "LOUD and MODE"),
        ({"source": ""}, "SOURCE is empty"),
        ({"target": ""}, "TARGET is ''; it must be a path"),
        ({"extent": 7}, "EXTENT is 7; it must be a list"),
        ({"extent": ["a"]}, "EXTENT"),
        ({"extra": 7}, "EXTRA is 7"),
    ],
)
def test_wrong_values_are_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Recipe.from_json({"source": "a.tif", **values})


def test_unknown_and_missing_names_are_named() -> None:
    with pytest.raises(ConfigError, match=r"no parameter 'tilesize'\. Did you mean tile_size\?"):
        Recipe.from_json({"source": "a.tif", "tilesize": 8})
    with pytest.raises(ConfigError, match="SOURCE is missing"):
        Recipe.from_json({})


def test_bounds_are_inclusive_and_whole_numbers_serve_as_numbers() -> None:
    recipe = Recipe(source="a", tile_size=4, share=1)
    assert isinstance(recipe.share, float)
    assert Recipe(source="a", tile_size=64).tile_size == 64
    assert Recipe(source="a", offset=-1e9).offset == -1e9, "a number without bounds"


def test_a_record_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Recipe(source="a").tile_size = 9  # type: ignore[misc]


def test_specs_are_found_on_fields() -> None:
    fields = Recipe.__dataclass_fields__
    spec = spec_of(fields["tile_size"])
    assert isinstance(spec, Spec) and (spec.label, spec.minimum) == ("Size", 4)
    assert spec_of(fields["points"]) is None


@given(st.integers(-(10**9), 10**9))
def test_whole_numbers_are_read(number: int) -> None:
    assert parse_number("N", str(number), whole=True) == number
    assert parse_number("N", f" {number} ", whole=False) == number
    assert parse_number("N", float(number), whole=True) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_read(number: float) -> None:
    assert parse_number("N", repr(number), whole=False) == number
    assert parse_number("N", number, whole=False) == number


@pytest.mark.parametrize("text", ["ten", "1,5", "", "1.2.3", "0x10", "nan", "inf", "1e", "١٢a", None, True, "1 000"])
@pytest.mark.parametrize("whole", [True, False])
def test_what_is_no_number_is_refused_by_name(text: object, whole: bool) -> None:
    with pytest.raises(ConfigError, match="EPOCHS is"):
        parse_number("EPOCHS", text, whole)


@pytest.mark.parametrize("text", ["1.5", "8.0", "1e3", 2.5])
def test_fractions_are_no_whole_numbers(text: object) -> None:
    with pytest.raises(ConfigError, match="whole number"):
        parse_number("EPOCHS", text, whole=True)
