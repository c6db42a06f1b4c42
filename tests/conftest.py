# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.desktop import Chain

_WITH_QGIS = ("algorithms", "gui")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests without QGIS first: once loaded, Processing has switched GDAL's exceptions on for good."""
    items.sort(key=lambda item: item.path.parent.name in _WITH_QGIS or item.path.name == "test_soak.py")


@pytest.fixture(scope="session")
def qgis() -> Any:
    """QGIS in this process, with Processing and our provider; gives the plugin."""
    from tests import desktop

    return desktop.start_qgis()[1]


@pytest.fixture(scope="session")
def chain() -> Chain:
    """All steps once through ``qgis_process``, each when it is first asked for."""
    from tests import desktop

    return desktop.chain()
