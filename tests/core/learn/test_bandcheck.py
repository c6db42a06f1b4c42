# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the warnings before a model sees an image: other bands, and values in another unit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from osgeo import gdal

from specdeepmap.core.data.classes import ClassEntry, ClassTable
from specdeepmap.core.data.normalization import Normalization
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.tiling import Window
from specdeepmap.core.errors import Canceled, RasterError
from specdeepmap.core.learn.bandcheck import ENOUGH, sample_windows, warn_of_other_bands, warn_of_other_values
from specdeepmap.core.learn.checkpoint import ModelCard
from tests.cards import bare_card
from tests.helpers import Array, Recorder, write_raster

MEANS = np.array([400.0, 600.0, 800.0, 2500.0, 3000.0, 1800.0])
"""Land in six bands from blue to the shortwave infrared, reflectance × 10,000."""

STDS = MEANS * 0.4


def normalization(scale: float = 10_000.0, **changes: Any) -> Normalization:
    count = len(MEANS)
    usual = {"mean": tuple(MEANS / scale), "std": tuple(STDS / scale), "bad": (False,) * count}
    return Normalization(scale=scale, **{**usual, **changes})


def card_of(norm: Normalization | None = None, **changes: Any) -> ModelCard:
    norm = norm or normalization()
    names = tuple(f"B{number}" for number in range(1, len(norm.mean) + 1))
    usual: dict[str, Any] = {"bands": names, "normalization": norm}
    usual["wavelengths_nm"] = (490.0, 560.0, 665.0, 842.0, 1610.0, 2190.0)
    usual["classes"] = ClassTable(entries=(ClassEntry(value=1, name="a", color="#000000"),))
    return bare_card(**{**usual, **changes})


def land(seed: int = 1, size: int = 60) -> Array:
    """A scene with the statistics of the training: ``(bands, rows, columns)``, float32."""
    noise = np.random.default_rng(seed).standard_normal((len(MEANS), size, size))
    return (MEANS[:, None, None] + STDS[:, None, None] * noise).astype("f4")


def raster_of(folder: Path, image: Array, **more: Any) -> Raster:
    return Raster.open(write_raster(folder / "scene.tif", image, **more))


def test_bands_flagged_bad_in_the_image_only_are_told(tmp_path: Path) -> None:
    raster = raster_of(tmp_path, land(), metadata=[{"bbl": str(int(band not in (1, 4)))} for band in range(6)])
    for bad, said in ((False, "2, 5"), (True, "5")):
        progress = Recorder()
        card = card_of(normalization(bad=(False, bad, False, False, False, False)))
        warn_of_other_bands(card, raster, "IMAGE", progress)
        assert f"IMAGE: bands that the model uses are flagged bad in the image: {said}." in progress.warnings[-1]


def warnings_of(raster: Raster, norm: Normalization | None = None) -> list[str]:
    progress = Recorder()
    warn_of_other_values(card_of(norm), raster, "IMAGE", progress)
    return progress.warnings


@pytest.mark.parametrize("scale", [1.0, 10_000.0])
@pytest.mark.parametrize("factor", [1 / 3, 1.0, 3.0])
def test_darker_and_brighter_scenes_are_ordinary(tmp_path: Path, factor: float, scale: float) -> None:
    assert warnings_of(raster_of(tmp_path, land() * factor), normalization(scale)) == []


@pytest.mark.parametrize("scale", [1.0, 10_000.0])
@pytest.mark.parametrize("factor", [1 / 10_000, 1 / 100, 1 / 30, 30.0, 100.0, 10_000.0])
def test_another_unit_is_noticed(tmp_path: Path, factor: float, scale: float) -> None:
    (text,) = warnings_of(raster_of(tmp_path, land() * factor), normalization(scale))
    assert text.startswith(f"IMAGE {tmp_path / 'scene.tif'}: ") and "unit" in text and "Take the image" in text
    assert ("smaller" in text) == (factor < 1) and ("larger" in text) == (factor > 1)
    here, there = (float(number) for number in re.findall(r"around (\S+?)[,. ](?=\s|their|The)", text))
    assert here == pytest.approx(np.median(MEANS) * factor, rel=0.1)
    assert there == pytest.approx(np.median(MEANS), rel=0.01), "in the unit of the training's raw values"


def test_water_is_ordinary(tmp_path: Path) -> None:
    """A quarter of the spread; and nearly black in four of six bands, so that their median misleads."""
    calm = MEANS[:, None, None] * 0.5 + (land() - MEANS[:, None, None]) / 4
    assert warnings_of(raster_of(tmp_path, calm)) == []
    water = np.array([200.0, 150.0, 50.0, 40.0, 10.0, 5.0])[:, None, None] + np.zeros((6, 60, 60))
    assert warnings_of(raster_of(tmp_path, water.astype("f4"))) == []


def test_snow_is_ordinary(tmp_path: Path) -> None:
    snow = np.array([9500.0, 9400.0, 9200.0, 8000.0, 800.0, 500.0])[:, None, None] + np.zeros((6, 60, 60))
    assert warnings_of(raster_of(tmp_path, snow.astype("f4"))) == []


def test_single_pixels_have_no_say(tmp_path: Path) -> None:
    image, dark = land(), land() / 10_000
    image[:, :3, :20], dark[:, :3, :20] = 1e9, 3000
    assert warnings_of(raster_of(tmp_path, image)) == []
    assert len(warnings_of(raster_of(tmp_path, dark))) == 1


def test_missing_pixels_have_no_say(tmp_path: Path) -> None:
    image = land()
    image[:, :40] = -1e9
    assert warnings_of(raster_of(tmp_path, image, nodata=-1e9)) == []
    (text,) = warnings_of(raster_of(tmp_path, image))
    assert "larger" in text and "no-data" in text and "-1e+09" in text
    masked = land()
    masked[:, :50] /= 10_000
    rows = np.zeros((60, 60), bool)
    rows[50:] = True
    assert warnings_of(raster_of(tmp_path, masked, mask=rows)) == []
    assert len(warnings_of(raster_of(tmp_path, masked, mask=~rows))) == 1


def test_bad_bands_have_no_say(tmp_path: Path) -> None:
    image = land()
    image[2:] /= 10_000
    assert warnings_of(raster_of(tmp_path, image)) == []
    flags = (True, True, False, False, False, False)
    assert len(warnings_of(raster_of(tmp_path, image), normalization(bad=flags))) == 1
    image = land() / 10_000
    image[0] = 500
    bad = (True, *(False,) * 5)
    assert len(warnings_of(raster_of(tmp_path, image), normalization(bad=bad))) == 1
    assert warnings_of(raster_of(tmp_path, image), normalization(bad=(True,) * 6)) == []


def test_where_nothing_is_known_nothing_is_said(tmp_path: Path) -> None:
    assert warnings_of(raster_of(tmp_path, land() * 10_000), Normalization.none(6, 10_000)) == []
    few = land(size=9)
    assert few[0].size < ENOUGH
    assert warnings_of(raster_of(tmp_path, few * 10_000)) == []
    empty = np.full((6, 60, 60), -1, "f4")
    assert warnings_of(raster_of(tmp_path, empty, nodata=-1)) == []


def test_bands_of_which_nothing_is_known_have_no_say(tmp_path: Path) -> None:
    norm = normalization(mean=(0.0, *MEANS[1:] / 10_000), std=(1.0, *STDS[1:] / 10_000))
    image = land() / 100
    image[0] = 30_000
    assert len(warnings_of(raster_of(tmp_path, image), norm)) == 1


def test_degrees_instead_of_kelvin(tmp_path: Path) -> None:
    norm = normalization(1.0, mean=(290.0,) * 6, std=(8.0,) * 6)
    image = 290 + 8 * (land() - MEANS[:, None, None]) / STDS[:, None, None]
    assert warnings_of(raster_of(tmp_path, image.astype("f4")), norm) == []
    assert len(warnings_of(raster_of(tmp_path, (image - 273.15).astype("f4")), norm)) == 1


def test_a_damaged_file_and_a_cancelled_job(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", land(size=300))
    with pytest.raises(Canceled):
        warn_of_other_values(card_of(), Raster.open(path), "IMAGE", Recorder(cancel_at=3))
    path.write_bytes(path.read_bytes()[:200_000])
    with pytest.raises(RasterError, match=r"scene\.tif cannot be"):
        warn_of_other_values(card_of(), Raster.open(path), "IMAGE", Recorder())


def test_a_small_raster_is_seen_whole() -> None:
    assert list(sample_windows(1, 1)) == [Window(0, 0, 1, 1)]
    assert list(sample_windows(160, 97)) == [Window(0, 0, 160, 97)]


@pytest.mark.parametrize(
    ("width", "height"), [(161, 161), (170, 40), (2000, 10), (10_980, 10_980), (32_768, 32_768), (100_001, 333)]
)
def test_windows_lie_inside_apart_and_all_over(width: int, height: int) -> None:
    windows = list(sample_windows(width, height))
    assert 5 <= len(windows) <= 25 and len(set(windows)) == len(windows)
    seen = {(x, y) for window in windows for x in (window.x, window.x_end - 1) for y in (window.y, window.y_end - 1)}
    assert all(0 <= x < width and 0 <= y < height for x, y in seen)
    for axis, size in ((0, width), (1, height)):
        places = sorted({corner[axis] for corner in seen})
        assert places[0] < max(0.12 * size, 1) and places[-1] >= 0.85 * size - 1
    assert sum(window.width * window.height for window in windows) <= 160**2


@pytest.mark.parametrize("block", [(32_768, 1), (32_768, 32), (32, 32), (256, 256), (512, 512)])
def test_of_a_large_raster_little_is_decoded(block: tuple[int, int]) -> None:
    touched = set()
    for window in sample_windows(32_768, 32_768):
        for row in range(window.y // block[1], (window.y_end - 1) // block[1] + 1):
            for column in range(window.x // block[0], (window.x_end - 1) // block[0] + 1):
                touched.add((row, column))
    assert len(touched) * block[0] * block[1] <= 0.01 * 32_768**2
    assert block[0] > 512 or len(touched) == 25, "each window lies inside of one block"


def test_only_the_sample_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.tif"
    options = ["TILED=YES", "COMPRESS=DEFLATE", "SPARSE_OK=TRUE"]
    gdal.GetDriverByName("GTiff").Create(str(path), 32_768, 32_768, 6, gdal.GDT_Int16, options=options).FlushCache()
    raster, read = Raster.open(path), []
    plain = raster.read
    monkeypatch.setattr(raster, "read", lambda window: read.append(window) or plain(window))
    (text,) = warnings_of(raster)
    assert len(read) == 25 and sum(window.width * window.height for window in read) < 1e-4 * 32_768**2
    assert "smaller" in text and "around 0," in text


def raster_with(folder: Path, names: list[str], waves: list[float]) -> Raster:
    metadata = [{"wavelength": f"{nm}", "wavelength_units": "Nanometers"} for nm in waves]
    return raster_of(folder, np.ones((6, 2, 2), "u1"), names=names, metadata=metadata)


@pytest.mark.parametrize(
    ("scale", "offset", "said"),
    [
        (1e-4, 0.0, ""),
        (1.00000001e-4, 0.0, ""),
        (1e-4, -0.1, "offset -0.1"),
        (2.5e-5, 0.0, "scale 2.5e-05"),
        (1, 0, "1"),
    ],
)
def test_numbers_that_mean_something_else_are_told(tmp_path: Path, scale: float, offset: float, said: str) -> None:
    """Sentinel-2 since 2022 holds 1,000 more in every pixel, and says so: nothing else would notice."""
    path = write_raster(tmp_path / "scene.tif", land())
    image = gdal.Open(str(path), gdal.GA_Update)
    for number in range(1, 7):
        image.GetRasterBand(number).SetScale(scale)
        image.GetRasterBand(number).SetOffset(offset)
    image = None
    known = {"bands": tuple(f"Band {number}" for number in range(1, 7)), "wavelengths_nm": (None,) * 6}
    progress = Recorder()
    card = card_of(band_scales=(1e-4,) * 6, band_offsets=(0.0,) * 6, **known)
    warn_of_other_bands(card, Raster.open(path), "IMAGE", progress)
    assert len(progress.warnings) == bool(said)
    if said:
        assert f"1 (scale 0.0001, offset 0 / scale {scale:g}, offset {offset:g})" in progress.warnings[0]
        assert said in progress.warnings[0] and "-unscale" in progress.warnings[0]
    warn_of_other_bands(card_of(**known), Raster.open(path), "IMAGE", progress)
    assert len(progress.warnings) == bool(said), "a model of earlier versions does not know"


def test_other_names_and_other_wavelengths_are_told(tmp_path: Path) -> None:
    card, progress = card_of(), Recorder()
    names, waves = list(card.bands), [float(nm or 0) for nm in card.wavelengths_nm]
    same = [name.lower().replace("b", "b ") for name in names]
    warn_of_other_bands(card, raster_with(tmp_path, same, [nm + 0.9 for nm in waves]), "IMAGE", progress)
    assert progress.warnings == [], "neither case nor spaces nor a fraction of a nanometre"
    names[2], waves[4] = "other", 1000.0
    warn_of_other_bands(card, raster_with(tmp_path, names, waves), "IMAGE", progress)
    assert len(progress.warnings) == 2
    assert "3 (B3 / other)" in progress.warnings[0] and "5 (1610 / 1000 nm)" in progress.warnings[1]
    warn_of_other_bands(card, raster_with(tmp_path, list("uvwxyz"), [300.0] * 6), "IMAGE", progress)
    assert all(text.endswith("and 1 more.") for text in progress.warnings[2:]) and len(progress.warnings) == 4
