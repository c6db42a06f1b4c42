# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of pictures, pixel by pixel."""

from __future__ import annotations

import io

import numpy as np
import pytest

from specdeepmap.core.data.classes import IGNORE_INDEX, ClassTable
from specdeepmap.core.learn.pictures import NOTHING, composite, paint, png_bytes, strip
from tests.helpers import Array

GREY = (NOTHING,) * 3


def marked(bands: int) -> Array:
    """An image of one row whose bands are told apart: band k is bright in column k only."""
    return 2 * np.eye(bands, dtype=np.float32)[:, None, :] - 1


def shown(picture: Array) -> list[int]:
    """Name the bands that are red, green and blue in a picture of ``marked``."""
    return [int(picture[0, :, color].argmax()) for color in range(3)]


def test_natural_colours_come_from_the_nearest_wavelengths() -> None:
    wavelengths = [443.0, 492.0, 560.0, 704.0, 664.0, None, 1610.0]
    assert shown(composite(marked(7), wavelengths)) == [4, 2, 1]
    bad = [False, False, False, False, True, False, False]
    assert shown(composite(marked(7), wavelengths, bad)) == [3, 2, 1], "704 nm is the nearest red that is left"


@pytest.mark.parametrize(
    ("wavelengths", "bad", "bands"),
    [
        ((), (), [0, 3, 7]),
        ((None,) * 8, (), [0, 3, 7]),
        ((1000.0, 1100.0, 1200.0, 1300.0, 1400.0, 1500.0, 1600.0, 1700.0), (), [0, 3, 7]),  # no visible light
        ((600.0, 610.0, 900.0, 950.0, 960.0, 970.0, 980.0, 990.0), (), [0, 3, 7]),  # no blue
        ((425.0, 560.0, 730.0, 950.0, 960.0, 970.0, 980.0, 990.0), (), [0, 3, 7]),  # violet and near infrared
        ((525.0, 900.0, 665.0, 950.0, 960.0, 970.0, 980.0, 990.0), (), [0, 3, 7]),  # one band, green and blue
        ((), (True, False, False, False, False, False, False, True), [1, 3, 6]),
    ],
)
def test_else_three_bands_spread_over_the_usable_ones(
    wavelengths: tuple[float | None, ...], bad: tuple[bool, ...], bands: list[int]
) -> None:
    assert shown(composite(marked(8), wavelengths, bad)) == bands


def test_one_band_is_grey_and_no_band_shows_nothing() -> None:
    picture = composite(np.array([[[-1, 1, 3]]], np.float32))
    np.testing.assert_array_equal(picture[..., 0], picture[..., 1])
    np.testing.assert_array_equal(picture[..., 0], picture[..., 2])
    assert composite(marked(2), bad=[True, True]).tolist() == [[list(GREY)] * 2]


def test_values_are_stretched_between_percentiles() -> None:
    # 101 values -50 to 50: percentile 2 is -48, percentile 98 is 48; the middle one would be no data if alone.
    values = np.arange(-50, 51, dtype=np.float32)
    picture = composite(np.stack([values, np.ones(101, np.float32), values]).reshape(3, 1, 101))
    expected = np.rint(255 * np.clip((values + 48) / 96, 0, 1))
    np.testing.assert_array_equal(picture[0, :, 0], expected)
    np.testing.assert_array_equal(picture[0, :, 1], 128)
    assert picture[0, :3, 0].tolist() == [0, 0, 0] and picture[0, -3:, 0].tolist() == [255, 255, 255]


def test_pixels_without_data_are_grey_and_do_not_stretch() -> None:
    values = np.array([[[0, 10, 11, 12, np.nan]]], np.float32)
    picture = composite(np.repeat(values, 3, axis=0))
    assert picture[0].tolist() == [[*GREY], [0] * 3, [128] * 3, [255] * 3, [*GREY]]
    everywhere = composite(np.zeros((3, 2, 2), np.float32))
    assert everywhere.shape == (2, 2, 3) and (everywhere == NOTHING).all()
    half = np.array([[[0, 5]], [[1, 6]], [[2, 7]]], np.float32)
    assert composite(half)[0, 0].tolist() == [0, 0, 0], "0 in one band is a value"
    bad = np.array([[[9, 9]], [[0, 6]], [[0, 7]]], np.float32)
    assert composite(bad, bad=[True, False, False])[0, 0].tolist() == [*GREY], "a bad band is no data"


def test_classes_have_their_colours() -> None:
    classes = ClassTable.of([2, 9], colors={2: "#ff0000", 9: "#000102"})
    picture = paint(np.array([[0, 1], [IGNORE_INDEX, 2]], np.uint8), classes)
    assert picture.dtype == np.uint8
    assert picture.tolist() == [[[255, 0, 0], [0, 1, 2]], [[*GREY], [*GREY]]]


def test_a_strip_stands_side_by_side_on_white() -> None:
    red, blue = np.zeros((2, 1, 3), np.uint8), np.zeros((1, 2, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    picture = strip(red, blue)
    white, r, b = [255] * 3, [255, 0, 0], [0, 0, 255]
    assert picture.tolist() == [[r, white, white, b, b], [r, white, white, white, white]]
    np.testing.assert_array_equal(strip(red), red)


def test_a_png_holds_the_very_pixels(random: np.random.Generator) -> None:
    from PIL import Image

    picture = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    file = png_bytes(picture.transpose(1, 0, 2))  # not contiguous
    assert file.startswith(b"\x89PNG\r\n\x1a\n")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(file))), picture.transpose(1, 0, 2))
