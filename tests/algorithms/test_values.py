# SPDX-License-Identifier: GPL-3.0-or-later
"""What users write for a parameter and QGIS would take for something else."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specdeepmap.core.errors import ConfigError
from specdeepmap.core.jobs import PredictJob
from specdeepmap.core.record import spec_of
from tests.helpers import TRANSFORM, utm, write_raster

pytestmark = pytest.mark.qgis


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "image.tif", np.ones((1, 20, 20), np.uint8), transform=TRANSFORM, crs=utm())


def extent_of(qgis: Any, image: Path, text: str) -> tuple[float, ...]:
    """Read EXTENT as the mapper does."""
    from qgis.core import QgsApplication, QgsProcessingContext, QgsProject

    from specdeepmap.algorithms.parameters import read_value

    context = QgsProcessingContext()
    context.setProject(QgsProject.instance())
    mapper = QgsApplication.processingRegistry().createAlgorithmById("specdeepmap:mapper")
    (field,) = (field for field in dataclasses.fields(PredictJob) if field.name == "extent")
    values = {"IMAGE": str(image), "EXTENT": text}
    return tuple(read_value(mapper, field, spec_of(field), values, context))


def test_an_extent_in_an_unknown_system_is_refused(qgis: Any, image: Path) -> None:
    """QGIS leaves the system out, and takes the numbers as those of the image."""
    x, y = TRANSFORM[0], TRANSFORM[3]
    numbers = f"{x},{x + 50},{y - 50},{y}"
    wanted = (x, y - 50, x + 50, y)
    assert extent_of(qgis, image, numbers) == wanted
    assert extent_of(qgis, image, f"{numbers} [EPSG:32633]") == pytest.approx(wanted)
    with pytest.raises(ConfigError, match=r"knows no coordinate system 'EPSG:99999'"):
        extent_of(qgis, image, f"{numbers} [EPSG:99999]")


@pytest.mark.parametrize(
    ("name", "output"), [("rastersplitter", "OUTPUT_FOLDER"), ("tester", "SCORES_CSV"), ("mapper", "VECTOR")]
)
def test_outputs_in_memory_are_refused(qgis: Any, image: Path, name: str, output: str) -> None:
    """A file of that name would come into being in the working directory."""
    from qgis.core import QgsApplication, QgsProcessingContext

    algorithm = QgsApplication.processingRegistry().createAlgorithmById(f"specdeepmap:{name}")
    fine, text = algorithm.checkParameterValues({output: "memory:"}, QgsProcessingContext())
    assert not fine and f"{output} is memory:, which is no file" in text
