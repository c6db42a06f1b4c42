# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports: one self-contained HTML file with texts, tables and charts, for the browser and QGIS's results viewer.

Charts are SVG, written here: a plotting library would take longer to import than a small dataset to read.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 980px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; } td, th { padding: .2em .9em .2em 0; text-align: right; }
td:first-child, th:first-child { text-align: left; } th { border-bottom: 1px solid #999; font-weight: 600; }
tr:nth-child(even) td { background: #f6f6f6; } .warning { background: #fff3d6; padding: .4em .8em; margin: .4em 0; }
.swatch { display: inline-block; width: .8em; height: .8em; margin-right: .4em; border: 1px solid #0003; }
.wide { overflow-x: auto; } .matrix td, .matrix th { padding: .25em .6em; min-width: 3.2em; text-align: center; }
.matrix td:first-child, .matrix th:first-child { text-align: left; } .matrix small { display: block; opacity: .8; }
.matrix tr td:first-child { background: none; }
.facts td { text-align: left; vertical-align: top; } .facts td:not(:last-child) { white-space: nowrap; }
.facts td:nth-child(2) { font-weight: 600; }
img { margin: 0 .8em .8em 0; image-rendering: pixelated; vertical-align: top; }
svg { max-width: 100%; height: auto; margin-top: .8em; } svg text { font: 12px system-ui, sans-serif; fill: #333; }
"""

_SHADE = "0, 114, 178"
"""Red, green and blue of a matrix cell that holds its whole row."""

_PICTURE_WIDTH = 300
"""Pixels on the page that a small picture is enlarged to."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A rectangle on a map: bounds ``xmin, ymin, xmax, ymax`` in map units, fill colour, text on hovering."""

    bounds: tuple[float, float, float, float]
    color: str
    title: str


@dataclass(frozen=True)
class Columns:
    """What stands behind lines: a name, a colour, and per column where it begins, where it ends, how high it is."""

    name: str
    color: str
    sides: Sequence[tuple[float, float, float]]


@dataclass
class Report:
    """A page that is filled from top to bottom.

    Args:
        title: of the page.
    """

    title: str
    _parts: list[str] = field(default_factory=list)

    def heading(self, text: str) -> None:
        """Start a section."""
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def warnings(self, texts: Sequence[str]) -> None:
        """Add warnings, or say that there are none."""
        if not texts:
            self.text("None.")
        self._parts += [f'<p class="warning">{html.escape(text)}</p>' for text in texts]

    def facts(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """Add what was found, line by line: a name, a value, and a sentence that says what it means."""
        lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
        self._parts.append(f'<table class="facts">{"".join(f"<tr>{line}</tr>" for line in lines)}</table>')

    def links(self, files: Mapping[str, str]) -> None:
        """Add links to files: what is shown, and the path relative to the page's folder, with ``/``."""
        entries = (f'<a href="{html.escape(quote(path))}">{html.escape(text)}</a>' for text, path in files.items())
        self._parts.append(f"<p>{', '.join(entries)}</p>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]], colors: Sequence[str] = ()) -> None:
        """Add a table; ``colors`` put a swatch before the first cell of each row."""
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        body = []
        for number, row in enumerate(rows):
            cells = [html.escape(str(cell)) for cell in row]
            if colors:
                cells[0] = _swatch(colors[number]) + cells[0]
            body.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        self._parts.append(f"<table><tr>{head}</tr>{''.join(body)}</table>")

    def matrix(self, names: Sequence[str], counts: Sequence[Sequence[int]], colors: Sequence[str], corner: str) -> None:
        """Add a square table of counts, each with its share of the row, by which it is shaded.

        Args:
            names: of the rows and, alike, of the columns.
            counts: row by row.
            colors: of the names.
            corner: says what rows and columns are.
        """
        heads = [_swatch(color) + html.escape(name) for name, color in zip(names, colors, strict=True)]
        lines = [f"<tr><th>{html.escape(corner)}</th>{''.join(f'<th>{head}</th>' for head in heads)}</tr>"]
        for head, row in zip(heads, counts, strict=True):
            cells = "".join(_shaded(count, sum(row)) for count in row)
            lines.append(f"<tr><td>{head}</td>{cells}</tr>")
        self._parts.append(f'<div class="wide"><table class="matrix">{"".join(lines)}</table></div>')

    def pictures(self, files: Sequence[bytes], text: str, across: int = _PICTURE_WIDTH) -> None:
        """Add pictures in a row, which breaks where the page ends.

        Args:
            files: contents of PNG files; they become part of the page.
            text: says what a picture shows, to who cannot see it.
            across: pixels on the page that a small picture is enlarged to, by a whole factor: its pixels stay squares.
        """
        shown = []
        for number, file in enumerate(files, 1):
            width, height = (int.from_bytes(file[start : start + 4], "big") for start in (16, 20))  # IHDR is first
            factor = max(across // max(width, 1), 1)
            size = f'width="{factor * width}" height="{factor * height}"'
            data = base64.b64encode(file).decode("ascii")
            shown.append(f'<img {size} alt="{html.escape(text)} {number}" src="data:image/png;base64,{data}">')
        self._parts.append(f"<p>{''.join(shown)}</p>")

    def bars(
        self, groups: Mapping[str, Sequence[float]], series: Mapping[str, str], unit: str, longest: float = 0.0
    ) -> None:
        """Add horizontal bars in groups.

        Args:
            groups: name of a group to one value per series.
            series: name of a series to its colour.
            unit: written behind each value.
            longest: value of the longest bar; 0 = the highest of the values.
        """
        thickness, gap, left, width = 12, 12, 190, 600
        found = (value for values in groups.values() for value in values if value > 0)
        highest = longest or max(found, default=1.0)
        marks, y = [], 4.0
        for name, values in groups.items():
            middle = y + thickness * len(series) / 2 + 4
            marks.append(f'<text x="{left - 8}" y="{middle:.0f}" text-anchor="end">{html.escape(name)}</text>')
            for value, color in zip(values, series.values(), strict=True):
                length = 0 if math.isnan(value) else width * max(value, 0) / highest
                bar = f'<rect x="{left}" y="{y:.0f}" width="{length:.1f}" height="{thickness - 1}" fill="{color}"/>'
                shown = "–" if math.isnan(value) else f"{value:.2f} {html.escape(unit)}"
                label = f'<text x="{left + length + 5:.1f}" y="{y + 10:.0f}">{shown}</text>'
                marks.append(bar + label)
                y += thickness
            y += gap
        self._svg(left + width + 100, y, marks)
        self.legend(series)

    def lines(
        self,
        series: Mapping[str, tuple[str, Sequence[Point]]],
        x_label: str,
        y_label: str,
        whole_x: bool = False,
        columns: Columns | None = None,
    ) -> None:
        """Add lines over a common axis.

        Args:
            series: name to colour and points; a point that is not finite interrupts the line.
            x_label, y_label: of the axes.
            whole_x: x counts something: only whole numbers stand at its axis.
            columns: stand behind the lines, whose every point is then marked.
        """
        points = [point for _, line in series.values() for point in line if math.isfinite(sum(point))]
        if not points:
            return
        frame = _Frame(_limits([x for x, _ in points]), _limits([y for _, y in points]))
        marks = frame.axes(x_label, y_label, 1.0 if whole_x else 0.0)
        marks += [] if columns is None else [frame.column(*sides, columns.color) for sides in columns.sides]
        for color, line in series.values():
            for piece in _pieces(line):
                path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(frame.place, piece))
                marks.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.6"/>')
                if len(piece) == 1 or columns is not None:
                    dots = (
                        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>'
                        for x, y in map(frame.place, piece)
                    )
                    marks += dots
        self._svg(frame.WIDTH, frame.HEIGHT, marks)
        self.legend(
            {name: color for name, (color, _) in series.items()} | ({columns.name: columns.color} if columns else {})
        )

    def map(self, boxes: Sequence[Box]) -> None:
        """Add a map of rectangles, north up."""
        if not boxes:
            return
        xmin, ymin = (min(box.bounds[side] for box in boxes) for side in (0, 1))
        xmax, ymax = (max(box.bounds[side] for box in boxes) for side in (2, 3))
        scale = 640 / max(xmax - xmin, ymax - ymin, 1e-12)
        marks = []
        for box in boxes:
            x, y = (box.bounds[0] - xmin) * scale, (ymax - box.bounds[3]) * scale
            width, height = (box.bounds[2] - box.bounds[0]) * scale, (box.bounds[3] - box.bounds[1]) * scale
            marks.append(
                f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{box.color}" '
                f'stroke="#fff" stroke-width=".5"><title>{html.escape(box.title)}</title></rect>'
            )
        self._svg((xmax - xmin) * scale, (ymax - ymin) * scale, marks)

    def legend(self, colors: Mapping[str, str]) -> None:
        """Add a line that says what colours mean."""
        entries = (f"{_swatch(color)}{html.escape(name)} &nbsp; " for name, color in colors.items())
        self._parts.append(f"<p>{''.join(entries)}</p>")

    def html(self) -> str:
        """Give the page."""
        title = html.escape(self.title)
        head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        return f"<!DOCTYPE html><html><head>{head}</head><body><h1>{title}</h1>{''.join(self._parts)}</body></html>\n"

    def _svg(self, width: float, height: float, marks: Sequence[str]) -> None:
        size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
        self._parts.append(f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(marks)}</svg>')


@dataclass(frozen=True)
class _Frame:
    """The frame of a line chart: limits of x and y, and where a point lies in it."""

    x: tuple[float, float]
    y: tuple[float, float]

    WIDTH = 900
    HEIGHT = 320
    LEFT, RIGHT, TOP, BOTTOM = 70, 880, 10, 270

    def place(self, point: Point) -> Point:
        across = (point[0] - self.x[0]) / (self.x[1] - self.x[0])
        up = (point[1] - self.y[0]) / (self.y[1] - self.y[0])
        return self.LEFT + across * (self.RIGHT - self.LEFT), self.BOTTOM - up * (self.BOTTOM - self.TOP)

    def column(self, start: float, end: float, height: float, color: str) -> str:
        (left, top), right = self.place((start, height)), self.place((end, height))[0]
        size = f'width="{right - left - 1:.1f}" height="{self.BOTTOM - top:.1f}"'
        return f'<rect x="{left:.1f}" y="{top:.1f}" {size} fill="{color}"/>'

    def axes(self, x_label: str, y_label: str, least_x: float) -> list[str]:
        marks = []
        for value in _ticks(*self.x, least_x):
            x = self.place((value, self.y[0]))[0]
            marks.append(f'<text x="{x:.1f}" y="{self.BOTTOM + 18}" text-anchor="middle">{value:g}</text>')
        for value in _ticks(*self.y):
            y = self.place((self.x[0], value))[1]
            marks.append(f'<line x1="{self.LEFT}" x2="{self.RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e4e4"/>')
            marks.append(f'<text x="{self.LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
        middle = (self.LEFT + self.RIGHT) / 2
        marks.append(f'<text x="{middle}" y="{self.HEIGHT - 8}" text-anchor="middle">{html.escape(x_label)}</text>')
        place = f'transform="translate(14 {(self.TOP + self.BOTTOM) / 2}) rotate(-90)"'
        return [*marks, f'<text {place} text-anchor="middle">{html.escape(y_label)}</text>']


def _swatch(color: str) -> str:
    return f'<span class="swatch" style="background:{html.escape(color)}"></span>'


def _shaded(count: int, total: int) -> str:
    """Give the cell of a count that is part of a total."""
    if not total:
        return "<td>–</td>"
    share = count / total
    ink = "; color: #fff" if share > 0.75 else ""
    style = f"background: rgba({_SHADE}, {0.9 * share:.3f}){ink}"
    return f'<td style="{style}">{count:,}<small>{100 * share:.1f} %</small></td>'


def duration(seconds: float) -> str:
    """Say how long something takes, in the two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Give the range of values, never empty."""
    low, high = min(values), max(values)
    largest = max(abs(low), abs(high))
    if high - low > 1e-12 * max(largest, 1e-100):  # less is lost in rounding
        return low, high
    margin = max(0.5, 1e-6 * largest)
    return low - margin, high + margin


def _ticks(low: float, high: float, least: float = 0.0) -> list[float]:
    """Give round numbers in a range, about five and at least so far apart."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    step = max(step, least)
    first = math.ceil(low / step)
    return [float(f"{index * step:.12g}") for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _pieces(line: Sequence[Point]) -> list[list[Point]]:
    """Cut a line where a point is not finite."""
    pieces: list[list[Point]] = [[]]
    for point in line:
        if math.isfinite(sum(point)):
            pieces[-1].append(point)
        else:
            pieces.append([])
    return [piece for piece in pieces if piece]
