# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the invented scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from osgeo import gdal

from specdeepmap.core.data.land import CLASSES
from specdeepmap.core.data.scene import SENSORS, make_scene
from specdeepmap.core.errors import ConfigError, RasterError

Array = NDArray[np.float64]
Numbers = NDArray[np.int32]


def read(path: Path) -> Numbers:
    raster = gdal.Open(str(path))
    return np.asarray(raster.ReadAsArray(), np.int32)


@pytest.fixture(scope="module")
def sentinel2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_scene(tmp_path_factory.mktemp("sentinel2"))


@pytest.fixture(scope="module")
def enmap(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_scene(tmp_path_factory.mktemp("enmap"), "enmap", size=96)


def test_file_names_and_return_value(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    paths = make_scene(folder, "enmap", size=64)
    assert paths == (folder / "enmap_image.tif", folder / "enmap_labels.tif")
    assert all(path.exists() for path in paths)


def test_same_seed_gives_the_same_pixels(tmp_path: Path) -> None:
    first, again, other = (
        [read(path) for path in make_scene(tmp_path / name, size=96, seed=seed)]
        for name, seed in (("first", 7), ("again", 7), ("other", 8))
    )
    for kind in range(2):
        assert first[kind].tobytes() == again[kind].tobytes()
        assert (first[kind] != other[kind]).mean() > 0.2


def test_all_sensors_see_the_same_land(tmp_path: Path) -> None:
    labels = [read(make_scene(tmp_path, sensor, size=80)[1]) for sensor in SENSORS]
    assert all(np.array_equal(labels[0], other) for other in labels[1:])


@pytest.mark.parametrize(
    ("sensor", "bands", "gdal_type", "nodata", "pixel_m"),
    [("sentinel2", 13, gdal.GDT_UInt16, 0, 10.0), ("enmap", 224, gdal.GDT_Int16, -32768, 30.0)],
)
def test_grid_and_type(
    sensor: str, bands: int, gdal_type: int, nodata: int, pixel_m: float, request: pytest.FixtureRequest
) -> None:
    image, labels = (gdal.Open(str(path)) for path in request.getfixturevalue(sensor))
    assert image.RasterCount == bands
    for index in range(bands):
        band = image.GetRasterBand(index + 1)
        assert (band.DataType, band.GetNoDataValue()) == (gdal_type, nodata)
    assert image.GetSpatialRef().GetAuthorityCode(None) == "32633"
    assert image.GetGeoTransform()[1::4] == (pixel_m, -pixel_m)
    assert image.GetGeoTransform() == labels.GetGeoTransform()
    assert image.GetProjection() == labels.GetProjection()
    assert (image.RasterXSize, image.RasterYSize) == (labels.RasterXSize, labels.RasterYSize)
    structure = image.GetMetadata("IMAGE_STRUCTURE")
    assert structure["COMPRESSION"] == "DEFLATE"
    assert image.GetRasterBand(1).GetBlockSize() == [128, 128]


@pytest.mark.parametrize("name", SENSORS)
def test_band_metadata(name: str, request: pytest.FixtureRequest) -> None:
    image = gdal.Open(str(request.getfixturevalue(name)[0]))
    sensor = SENSORS[name]
    for index in range(image.RasterCount):
        band = image.GetRasterBand(index + 1)
        assert band.GetDescription() == sensor.names[index]
        assert float(band.GetMetadataItem("wavelength")) == pytest.approx(sensor.wavelengths_nm[index])
        assert float(band.GetMetadataItem("fwhm")) == pytest.approx(sensor.fwhm_nm[index])
        assert band.GetMetadataItem("wavelength_units") == "Nanometers"
        assert band.GetMetadataItem("bbl") == ("0" if index in sensor.bad else "1")


def test_wavelengths_of_the_sensors() -> None:
    named = dict(zip(SENSORS["sentinel2"].names, SENSORS["sentinel2"].wavelengths_nm, strict=True))
    assert (named["B2"], named["B8A"], named["B12"]) == (490, 865, 2190)
    enmap_nm = SENSORS["enmap"].wavelengths_nm
    assert (min(enmap_nm), max(enmap_nm)) == pytest.approx((418.4, 2445.5))
    assert all(1340 < enmap_nm[index] < 1450 for index in SENSORS["enmap"].bad)


def test_six_bands_of_enmap_have_no_data(enmap: tuple[Path, Path]) -> None:
    empty = (read(enmap[0]) == -32768).all(axis=(1, 2))
    assert np.flatnonzero(empty).tolist() == [130, 131, 132, 133, 134, 135]


@pytest.mark.parametrize("name", SENSORS)
def test_corner_without_data_is_the_same_in_all_bands(name: str, request: pytest.FixtureRequest) -> None:
    image, labels = (read(path) for path in request.getfixturevalue(name))
    good = [index for index in range(len(image)) if index not in SENSORS[name].bad]
    outside = image[good] == SENSORS[name].nodata
    assert (outside == outside[0]).all()
    assert outside[0, -1, -1] and not outside[0, 0, 0]
    assert 0.02 < outside[0].mean() < 0.08
    assert (labels[outside[0]] > 0).mean() > 0.9


def test_every_quadrant_has_all_classes(sentinel2: tuple[Path, Path]) -> None:
    labels = read(sentinel2[1])
    for rows in (slice(0, 256), slice(256, 512)):
        for columns in (slice(0, 256), slice(256, 512)):
            shares = np.bincount(labels[rows, columns].ravel(), minlength=len(CLASSES) + 1) / 256**2
            assert shares[1:].min() > 0.03
            assert 0 < shares[0] < 0.02
            assert len(shares) == len(CLASSES) + 1


def test_names_and_colours_survive_reopening(sentinel2: tuple[Path, Path]) -> None:
    raster = gdal.Open(str(sentinel2[1]))
    band = raster.GetRasterBand(1)
    assert (band.DataType, band.GetNoDataValue()) == (gdal.GDT_Byte, 0)
    names, colors = band.GetCategoryNames(), band.GetColorTable()
    assert names == CLASSES.category_names()
    for entry in CLASSES.entries:
        assert colors.GetColorEntry(entry.value)[:3] == entry.rgb


def test_small_sizes_and_limits(tmp_path: Path) -> None:
    for size in (64, 65, 130):
        image, labels = make_scene(tmp_path, size=size)
        assert read(image).shape == (13, size, size)
        assert len(np.unique(read(labels))) > 3
    with pytest.raises(ConfigError, match="63"):
        make_scene(tmp_path, size=63)
    with pytest.raises(ConfigError, match="sentinel2"):
        make_scene(tmp_path, "sentinel-2")


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RasterError, match="file"):
        make_scene(tmp_path / "file", size=64)
    (tmp_path / "sentinel2_image.tif").mkdir()
    with pytest.raises(RasterError, match="sentinel2_image"):
        make_scene(tmp_path, size=64)


def accuracy(features: Array, labels: Numbers, train: NDArray[np.bool_], test: NDArray[np.bool_]) -> float:
    """Give the share of test pixels that linear discriminant analysis classifies well."""
    known, truth = features[:, train].T, labels[train]
    values = np.unique(truth)
    priors = np.array([(truth == value).mean() for value in values])
    means = np.array([known[truth == value].mean(axis=0) for value in values])
    within = known - means[np.searchsorted(values, truth)]
    scatter = within.T @ within / len(known)
    weights = np.linalg.solve(scatter + 1e-3 * np.diag(np.diag(scatter)), means.T)
    scores = features[:, test].T @ weights - 0.5 * (means.T * weights).sum(axis=0) + np.log(priors)
    return float((values[scores.argmax(axis=1)] == labels[test]).mean())


def surroundings(bands: Array, reach: int = 4) -> Array:
    """Give the means and standard deviations of the pixels around each pixel."""
    size = 2 * reach + 1

    def mean(values: Array) -> Array:
        sums = np.pad(values, ((0, 0), (reach + 1, reach), (reach + 1, reach)), "edge").cumsum(1).cumsum(2)
        box = sums[:, size:, size:] - sums[:, :-size, size:] - sums[:, size:, :-size]
        return np.asarray((box + sums[:, :-size, :-size]) / size**2)

    spread = np.sqrt(np.maximum(mean(bands**2) - mean(bands) ** 2, 0))
    return np.concatenate([mean(bands), spread])


def test_spectrum_and_context_are_both_needed(sentinel2: tuple[Path, Path]) -> None:
    bands, labels = read(sentinel2[0]) / 10000, read(sentinel2[1])
    usable = (labels > 0) & (bands[0] > 0)
    train, test = usable.copy(), usable.copy()
    train[:, 256:] = False  # learn in the west, test in the east
    test[:, :256] = False
    grey = bands.mean(axis=0, keepdims=True)
    majority = np.bincount(labels[test]).max() / test.sum()
    spectrum = accuracy(bands, labels, train, test)
    context = accuracy(np.concatenate([grey, surroundings(grey)]), labels, train, test)
    both = accuracy(np.concatenate([bands, surroundings(bands)]), labels, train, test)
    assert majority + 0.3 < spectrum < 0.88
    assert context < spectrum - 0.1
    assert spectrum + 0.02 < both
