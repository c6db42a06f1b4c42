# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the core's tests; they need no QGIS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from osgeo import gdal

from tests.helpers import Recorder

settings.register_profile(
    "core",
    deadline=None,
    max_examples=40,
    derandomize=True,  # the same examples in every run
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("core")


@pytest.fixture
def progress() -> Recorder:
    return Recorder()


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture(params=["returns", "raises"])
def gdal_errors(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test both with GDAL's return codes and with its exceptions; a host may set either."""
    had = gdal.GetUseExceptions()
    gdal.UseExceptions() if request.param == "raises" else gdal.DontUseExceptions()
    yield request.param
    gdal.UseExceptions() if had else gdal.DontUseExceptions()


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small dataset for all tests that learn."""
    from tests.chips import scene_dataset

    return scene_dataset(tmp_path_factory.mktemp("learn"))


@pytest.fixture(scope="session")
def checkpoint(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One trained model for all tests that use one."""
    from tests.chips import train

    return train(dataset_folder, tmp_path_factory.mktemp("model")).best_checkpoint
