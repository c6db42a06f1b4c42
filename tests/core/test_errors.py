# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the errors that a user may see."""

from __future__ import annotations

import re
from pathlib import Path

import specdeepmap.core
from specdeepmap.core import errors

CORE = Path(specdeepmap.core.__file__).parent


def test_every_error_comes_out_of_the_child_process_as_itself() -> None:
    """One that is not in the table would be told as a crash."""
    known = "|".join(errors.ERRORS)
    made = {
        name
        for path in CORE.rglob("*.py")
        for name in re.findall(rf"^class (\w+)\((?:{known})\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert made == set(errors.ERRORS) - {"SpecDeepMapError"}
