# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for all tests."""

from __future__ import annotations

import pytest

_WITH_QGIS = ("algorithms", "gui")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests without QGIS first: once loaded, Processing has switched GDAL's exceptions on for good."""
    items.sort(key=lambda item: item.path.parent.name in _WITH_QGIS)
