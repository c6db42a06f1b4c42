# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures: chips, labels and predictions as RGB images ``(rows, columns, 3)`` of 8 bits."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.classes import ClassTable

RGB = NDArray[np.uint8]

NATURAL_NM = (665.0, 560.0, 490.0)
"""Red, green and blue: the band centres of Sentinel-2's B4, B3 and B2, rounded."""

NEAR_NM = 60.0
"""A band farther than this from a colour does not show it."""

NOTHING = 225
"""The grey of pixels without data and without a label."""

STRETCH = (2.0, 98.0)
"""Percentiles of a band's values that become black and white."""


def composite(image: NDArray[np.float32], wavelengths_nm: Sequence[float | None] = (), bad: Sequence[bool] = ()) -> RGB:
    """Show an image in natural colours where its wavelengths are known, else three bands spread over all.

    Args:
        image: ``(bands, rows, columns)``, normalised; a pixel that is 0 in all usable bands has no data.
        wavelengths_nm: of the bands, where known.
        bad: bands that are not shown.
    """
    usable = [index for index in range(len(image)) if not (index < len(bad) and bad[index])]
    if not usable:
        return np.full((*image.shape[1:], 3), NOTHING, np.uint8)
    valid = np.asarray((image[usable] != 0).any(axis=0) & np.isfinite(image[usable]).all(axis=0))
    bands = _natural(usable, wavelengths_nm) or [usable[at] for at in _spread(len(usable))]
    picture = np.stack([_stretch(image[band], valid) for band in bands], axis=-1)
    picture[~valid] = NOTHING
    return picture


def paint(indices: NDArray[np.uint8], classes: ClassTable) -> RGB:
    """Show class indices ``(rows, columns)`` in the colours of their classes, and grey what has none."""
    lookup = np.full((256, 3), NOTHING, np.uint8)
    for index, entry in enumerate(classes.entries):
        lookup[index] = entry.rgb
    return lookup[indices]


def strip(*pictures: RGB, gap: int = 2) -> RGB:
    """Put pictures side by side, upper sides level, on white; ``gap`` pixels lie between them."""
    rows = max(picture.shape[0] for picture in pictures)
    columns = sum(picture.shape[1] for picture in pictures) + gap * (len(pictures) - 1)
    whole = np.full((rows, columns, 3), 255, np.uint8)
    left = 0
    for picture in pictures:
        height, width = picture.shape[:2]
        whole[:height, left : left + width] = picture
        left += width + gap
    return whole


def png_bytes(picture: RGB) -> bytes:
    """Give a picture as the content of a PNG file."""
    from PIL import Image  # type: ignore[import-untyped, unused-ignore]  # comes with torchvision, typed from 10.1

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "PNG", optimize=True)
    return file.getvalue()


def _natural(usable: Sequence[int], wavelengths_nm: Sequence[float | None]) -> list[int]:
    """Choose the bands nearest to red, green and blue; none where one is too far or stands for two colours."""
    known = {band: nm for band in usable if band < len(wavelengths_nm) and (nm := wavelengths_nm[band]) is not None}
    found = []
    for color in NATURAL_NM:
        near = [band for band, nm in known.items() if abs(nm - color) <= NEAR_NM]
        found += sorted(near, key=lambda band: abs(known[band] - color))[:1]
    return found if len(set(found)) == len(NATURAL_NM) else []


def _spread(count: int) -> list[int]:
    """Choose the first, the middle and the last; of fewer, some twice."""
    return [0, (count - 1) // 2, count - 1]


def _stretch(band: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Bring a band to 0 to 255; a constant one becomes medium grey."""
    values = band[valid].astype(np.float64)
    low, high = np.percentile(values, STRETCH) if values.size else (0.0, 0.0)
    if high <= low:
        return np.full(band.shape, 128, np.uint8)
    plain = np.where(valid, band, low).astype(np.float64)
    return np.asarray(np.rint(255 * np.clip((plain - low) / (high - low), 0, 1)), np.uint8)
