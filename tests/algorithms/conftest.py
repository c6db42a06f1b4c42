# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the tests that go through QGIS Processing."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("qgis.core", reason="needs QGIS's Python bindings")

from tests import desktop


@pytest.fixture(scope="session")
def qgis() -> Any:
    """QGIS in this process, with Processing and our provider; gives the plugin."""
    return desktop.start_qgis()[1]


@pytest.fixture(scope="session")
def chain() -> desktop.Chain:
    return desktop.chain()
