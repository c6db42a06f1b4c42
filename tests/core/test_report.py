# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of reports: whole pages of HTML."""

from __future__ import annotations

import base64
import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specdeepmap.core.report import Box, Columns, Report, duration

NAN = float("nan")
NASTY = "<b>Wald & \"Wiese\"</b> 'ä'"
VOID = ("meta", "br", "img")

DOT = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (70).to_bytes(4, "big") + (30).to_bytes(4, "big")
"""What a page reads of a PNG file of 70 × 30 pixels."""


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
    report.matrix([NASTY, "other"], [[1, 3], [0, 0]], ["#ff0000", "#00ff00"], NASTY)
    report.pictures([DOT], NASTY)
    report.facts([(NASTY, NASTY, NASTY)])
    report.links({NASTY: "scores.csv"})
    report.lines({"a": ("#222222", [(1, 2), (2, 1)])}, "x", "y", columns=Columns(NASTY, "#eeeeee", [(1, 2, 1.5)]))
    return report


def test_a_page_needs_nothing_from_elsewhere() -> None:
    page = full().html()
    addresses = set(re.findall(r"[a-z]+://[^\"'\s<>)]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}
    elements = {name for name, _ in Page(page).found}
    assert not elements & {"script", "link", "iframe", "image", "use", "object"}
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in Page(page).all("img"))
    assert "url(" not in page and "@import" not in page
    assert page.startswith("<!DOCTYPE html>") and 'charset="utf-8"' in page


def test_names_are_shown_as_they_are() -> None:
    page = full().html()
    assert "<b>" not in page and "&amp;" in page
    read = Page(page)
    shown = [text for text in read.texts if text.strip().strip("\xa0 ") == NASTY]
    # Title twice, heading, text, warning, header, cell, bars and their legend, lines and their axes, map, and the
    # corner, row and column of the matrix; three facts, a link, and the legend of the columns.
    assert len(shown) == 21
    assert [image["alt"] for image in read.all("img")] == [f"{NASTY} 1"]
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
    report.matrix([], [], [], "")
    report.pictures([], "")
    report.facts([])
    report.links({})
    report.lines({"a": ("#111111", [])}, "", "", columns=Columns("", "#111111", []))
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


def test_a_matrix_shows_counts_and_shades_their_share_of_the_row() -> None:
    report = Report("t")
    report.matrix(["a", "b", "c"], [[1500, 500, 0], [0, 9, 1], [0, 0, 0]], ["#111111"] * 3, "corner")
    page = Page(report.html())
    assert [text for text in page.texts if text.endswith(" %")] == [
        *("75.0 %", "25.0 %", "0.0 %"),
        *("0.0 %", "90.0 %", "10.0 %"),
    ]
    assert "1,500" in page.texts and page.texts.count("–") == 3
    styles = [str(cell.get("style")) for cell in page.all("td") if cell.get("style")]
    shades = [float(style.split("rgba(0, 114, 178, ")[1].split(")")[0]) for style in styles]
    assert shades == pytest.approx([0.675, 0.225, 0, 0, 0.81, 0.09])
    assert ["#fff" in style for style in styles] == [False] * 4 + [True, False], "dark cells have white figures"


def test_a_small_picture_is_enlarged_by_a_whole_factor() -> None:
    report = Report("t")
    report.pictures([DOT, DOT.replace((70).to_bytes(4, "big"), (500).to_bytes(4, "big"))], "chip")
    small, large = Page(report.html()).all("img")
    assert (small["width"], small["height"], small["alt"]) == ("280", "120", "chip 1")
    assert (large["width"], large["height"], large["alt"]) == ("500", "30", "chip 2")
    assert base64.b64decode(str(small["src"]).split(",")[1]) == DOT


def test_a_picture_is_enlarged_to_the_width_that_is_asked_for() -> None:
    report = Report("t")
    report.pictures([DOT], "chip", across=800)
    (picture,) = Page(report.html()).all("img")
    assert (picture["width"], picture["height"]) == ("770", "330")


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("scores.csv", "scores.csv"),
        ("more/scores of ä.csv", "more/scores%20of%20%C3%A4.csv"),
        ('a"><b>&#?.csv', "a%22%3E%3Cb%3E%26%23%3F.csv"),
        ("javascript:alert(1)", "javascript%3Aalert%281%29"),
        ("http://example.org/a.csv", "http%3A//example.org/a.csv"),
    ],
)
def test_a_link_leads_to_a_file_and_nowhere_else(path: str, address: str) -> None:
    report = Report("t")
    report.links({"<table>": path, "other": "b.csv"})
    page = Page(report.html())
    assert [link["href"] for link in page.all("a")] == [address, "b.csv"]
    assert "<table>" in page.texts and not page.all("b")


def test_facts_stand_in_three_columns() -> None:
    report = Report("t")
    report.facts([("Chips", "3", "What was tested."), ("Kappa", "–", "Agreement.")])
    cells = re.findall("<td>(.*?)</td>", report.html())
    assert cells == ["Chips", "3", "What was tested.", "Kappa", "–", "Agreement."]


def test_columns_stand_on_the_axis_behind_a_line_with_dots() -> None:
    line = [(0.0, 0.0), (0.5, 1.0), (1.0, 1.0)]
    plain, columned = Report("t"), Report("t")
    plain.lines({"a": ("#111111", line)}, "x", "y")
    columned.lines({"a": ("#111111", line)}, "x", "y", columns=Columns("c", "#eeeeee", [(0.0, 0.5, 0.25), (0.5, 1, 0)]))
    assert Page(plain.html()).all("rect") == [] == Page(plain.html()).all("circle")
    page = Page(columned.html())
    high, none = page.all("rect")
    start, middle, end = (float(dot["cx"] or 0) for dot in page.all("circle"))
    bottom, top = (float(dot["cy"] or 0) for dot in page.all("circle")[:2])
    assert float(high["x"] or 0) == start and float(none["x"] or 0) == middle < end
    assert float(high["y"] or 0) + float(high["height"] or 0) == pytest.approx(bottom)
    assert float(high["height"] or 0) == pytest.approx((bottom - top) / 4)
    assert float(none["height"] or 0) == 0
    assert columned.html().index("<rect") < columned.html().index("<polyline"), "the line is seen"
    assert "c" in [text.strip("\xa0 ") for text in page.texts]


def test_the_longest_bar_may_be_given() -> None:
    free, fixed = Report("t"), Report("t")
    free.bars({"a": [0.5, NAN]}, {"x": "#111111", "y": "#222222"}, "")
    fixed.bars({"a": [0.5, NAN]}, {"x": "#111111", "y": "#222222"}, "", longest=1.0)
    widths = [[float(bar["width"] or 0) for bar in Page(report.html()).all("rect")] for report in (free, fixed)]
    assert widths == [[600, 0], [300, 0]]
    assert "–" in Page(fixed.html()).texts and "nan" not in fixed.html()


def test_an_axis_of_counts_has_whole_numbers() -> None:
    for last, ticks in ((2, ["1", "2"]), (1, ["1"]), (11, ["2", "4", "6", "8", "10"])):
        report = Report("t")
        points = [(1.0, 0.05), *((float(x), 0.07) for x in range(1, last + 1))]
        report.lines({"a": ("#111111", points)}, "epoch", "y", whole_x=True)
        numbers = [text for text in Page(report.html()).texts if re.fullmatch(r"[\d.]+", text)]
        at_x = [text for text in numbers if float(text) >= 0.5]
        assert at_x == ticks


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.2, "0 s"), (0.4, "0 s"), (59.6, "1 min 0 s"), (61, "1 min 1 s")),
        *((83, "1 min 23 s"), (3600, "1 h 0 min"), (7322, "2 h 2 min"), (7325, "2 h 2 min")),
    ],
)
def test_a_duration_is_told_in_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
