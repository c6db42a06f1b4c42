# SPDX-License-Identifier: GPL-3.0-or-later
"""Valid files, changed here and there: in their structure, in their texts, in their bytes.

The changes are the same in every run; with ``SPECDEEPMAP_ALL_FAULTS=1`` there are many more, and others each time.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

THOROUGH = os.environ.get("SPECDEEPMAP_ALL_FAULTS") == "1"

FUZZ = settings(
    deadline=None,
    max_examples=5000 if THOROUGH else 120,
    derandomize=not THOROUGH,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

SCRIPT = "<script>alert(1)</script>"

TEXTS = st.one_of(
    st.sampled_from(
        [
            *("", " ", "0", "-1", "1e400", "-1e400", "nan", "inf", "None", "1.5", "9" * 400, "9" * 600, "0x10", "1_0"),
            *(
                "../../etc/passwd",
                "/etc/passwd",
                "C:\\x",
                "/vsicurl/http://127.0.0.1:9/x.tif",
                "a\0b",
                "\ud800",
                "x" * 5000,
            ),
            *(SCRIPT, "=cmd|' /C calc'!A0", "'; DROP TABLE tiles; --", "\u202e", "ä\n\r\t,;\"'", "#zzzzzz", "%s%n{0}"),
        ]
    ),
    st.text(max_size=20),
)

VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([2**31, 2**63, -(2**63), 10**400, 10**9]),
        st.floats(),
        TEXTS,
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def _places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Give the ways to all values inside a value of JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(place for key, entry in inner for place in _places(entry, (*way, key)))]


@st.composite
def changed_json(draw: st.DrawFn, valid: Any) -> Any:
    """Replace, remove or add some values of a valid one."""
    value = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        way = draw(st.sampled_from(_places(value)))
        if not way:
            value = draw(VALUES) if draw(st.integers(0, 9)) == 0 else value
            continue
        holder = value
        for key in way[:-1]:
            holder = holder[key]
        what = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if what == "remove":
            del holder[way[-1]]
        elif what == "add" and isinstance(holder, dict):
            holder[draw(TEXTS)] = draw(VALUES)
        else:
            holder[way[-1]] = draw(VALUES)
    return value


@st.composite
def changed_bytes(draw: st.DrawFn, valid: bytes) -> bytes:
    """Overwrite, cut, double or insert some bytes."""
    raw = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(raw) - 1, 0)))
        length = draw(st.integers(0, 16))
        what = draw(st.sampled_from(["overwrite", "cut", "double", "insert", "end"]))
        if what == "overwrite":
            new = draw(st.binary(min_size=1, max_size=8))
            raw[at : at + len(new)] = new
        elif what == "cut":
            del raw[at : at + length]
        elif what == "double":
            raw[at:at] = raw[at : at + length] * draw(st.integers(1, 50))
        elif what == "insert":
            raw[at:at] = draw(st.binary(max_size=16))
        else:
            del raw[at:]
    return bytes(raw)


@st.composite
def changed_table(draw: st.DrawFn, valid: bytes) -> bytes:
    """Change cells, rows and the header of a CSV, or its bytes."""
    if draw(st.integers(0, 3)) == 0:
        return draw(changed_bytes(valid))
    rows = list(csv.reader(io.StringIO(valid.decode("utf-8-sig"))))
    for _ in range(draw(st.integers(1, 4))):
        row = draw(st.sampled_from(rows))
        what = draw(st.sampled_from(["cell", "cell", "cell", "short", "long", "twice", "gone"]))
        if what == "cell" and row:
            row[draw(st.integers(0, len(row) - 1))] = draw(TEXTS)
        elif what == "short":
            del row[-1:]
        elif what == "long":
            row.append(draw(TEXTS))
        elif what == "twice":
            rows.append(list(row))
        elif len(rows) > 1:
            rows.remove(row)
    out = io.StringIO()
    csv.writer(out, lineterminator=draw(st.sampled_from(["\n", "\r\n"]))).writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


def as_json(value: Any) -> str:
    """Write JSON as other programs may: halves of characters included."""
    return json.dumps(value, ensure_ascii=True)
