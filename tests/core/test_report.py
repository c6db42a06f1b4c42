# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of reports: whole pages of HTML."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specdeepmap.core.report import Box, Report

NAN = float("nan")
NASTY = "<b>Wald & \"Wiese\"</b> 'ä'"
VOID = ("meta", "br")


class Page(HTMLParser):
    """Read a page: its elements with their attributes, its texts; every element must be closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def full() -> Report:
    report = Report(NASTY)
    report.heading(NASTY)
    report.text(NASTY)
    report.warnings([NASTY, "second"])
    report.table([NASTY, "B"], [[NASTY, 1], ["plain", 2.5]], ["#ff0000", "#00ff00"])
    report.bars({NASTY: [1.0, NAN], "other": [0.0, -3.0]}, {NASTY: "#0000ff", "b": "#111111"}, "%")
    report.lines({NASTY: ("#222222", [(1, 2), (2, NAN), (3, 4)])}, NASTY, NASTY)
    report.map([Box((0, 0, 2, 1), "#333333", NASTY)])
    return report


def test_a_page_needs_nothing_from_elsewhere() -> None:
    page = full().html()
    addresses = set(re.findall(r"[a-z]+://[^\"'\s<>)]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}
    elements = {name for name, _ in Page(page).found}
    assert not elements & {"script", "link", "img", "iframe", "image", "use", "object"}
    assert "url(" not in page and "@import" not in page
    assert page.startswith("<!DOCTYPE html>") and 'charset="utf-8"' in page


def test_names_are_shown_as_they_are() -> None:
    page = full().html()
    assert "<b>" not in page and "&amp;" in page
    read = Page(page)
    shown = [text for text in read.texts if text.strip().strip("\xa0 ") == NASTY]
    # Title twice, heading, text, warning, header, cell, bars and their legend, lines and their axes, map.
    assert len(shown) == 13
    assert sum("second" in text for text in read.texts) == 1


def test_nan_interrupts_a_line() -> None:
    report = Report("t")
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, NAN), (3.0, 3.0), (4.0, math.inf), (5.0, 1.0), (6.0, 2.0), (7.0, 2.0)]
    report.lines({"a": ("#123456", points)}, "x", "y")
    page = Page(report.html())
    pieces = [str(line["points"]).split() for line in page.all("polyline")]
    assert [len(piece) for piece in pieces] == [2, 1, 3]
    assert len(page.all("circle")) == 1, "a single point is seen"
    assert "nan" not in report.html() and "inf" not in report.html()


def test_higher_values_lie_higher_and_later_ones_to_the_right() -> None:
    report = Report("t")
    report.lines({"a": ("#123456", [(400.0, -1.0), (900.0, 5.0)])}, "x", "y")
    points = str(Page(report.html()).all("polyline")[0]["points"]).split()
    (x0, y0), (x1, y1) = ([float(part) for part in point.split(",")] for point in points)
    assert x0 < x1 and y0 > y1


def test_empty_inputs_do_not_fail() -> None:
    report = Report("")
    report.warnings([])
    report.table([], [])
    report.table(["a"], [], [])
    report.bars({}, {}, "")
    report.bars({"a": []}, {}, "")
    report.lines({}, "", "")
    report.lines({"a": ("#111111", []), "b": ("#222222", [(NAN, 1.0), (1.0, NAN)])}, "", "")
    report.map([])
    report.legend({})
    page = Page(report.html())
    assert "None." in page.texts
    assert page.all("polyline") == []


numbers = st.one_of(st.floats(-1e100, 1e100), st.floats(-1e3, 1e3), st.just(NAN))


@given(
    st.lists(st.tuples(numbers, st.one_of(numbers, st.just(math.inf))), max_size=6),
    st.lists(numbers, min_size=1, max_size=4),
)
@settings(max_examples=200)
def test_any_numbers_make_a_page(points: list[tuple[float, float]], values: list[float]) -> None:
    report = Report("t")
    report.lines({"a": ("#111111", points)}, "x", "y")
    report.bars({"g": values}, {str(index): "#111111" for index in range(len(values))}, "%")
    page = Page(report.html())
    for line in page.all("polyline"):
        for point in str(line["points"]).split():
            assert all(math.isfinite(float(part)) for part in point.split(","))
    for bar in page.all("rect"):
        assert 0 <= float(bar["width"] or 0) <= 600.05


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-15, 1e17, -1e300])
def test_a_constant_line_has_axes(value: float) -> None:
    report = Report("t")
    report.lines({"a": ("#111111", [(1.0, value), (2.0, value)])}, "x", "y")
    assert len(Page(report.html()).all("polyline")) == 1


def test_tiny_values_have_ticks_that_differ() -> None:
    report = Report("t")
    report.lines({"a": ("#111111", [(1.0, 0.0), (2.0, 3e-14)])}, "x", "y")
    ticks = [text for text in Page(report.html()).texts if re.fullmatch(r"\d(\.\d+)?e-14", text)]
    assert len(ticks) == len(set(ticks)) >= 3


def test_a_map_is_north_up_and_to_scale() -> None:
    report = Report("t")
    report.map([Box((0, 0, 10, 10), "#111111", "south"), Box((0, 30, 10, 40), "#222222", "north")])
    page = Page(report.html())
    south, north = page.all("rect")
    assert float(north["y"] or 0) == 0 < float(south["y"] or 0)
    assert float(south["width"] or 0) == pytest.approx(float(south["height"] or 0)) == pytest.approx(160)
    report = Report("t")
    report.map([Box((5, 5, 5, 5), "#111111", "a point")])
    assert len(Page(report.html()).all("rect")) == 1
