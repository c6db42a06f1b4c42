# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests that go through QGIS Processing are left out where there is no QGIS."""

from __future__ import annotations

import pytest

pytest.importorskip("qgis.core", reason="needs QGIS's Python bindings")
