# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of images and references: do bands, values and classes suit a model, and does it know the place?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.bandmatch import first_few, other_wavelength, plain_name, recoded
from specdeepmap.core.data.bands import SAME_CODING, Band
from specdeepmap.core.data.bandstatistics import UNIT_FACTOR, UNIT_SHARE
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.tiling import Window
from specdeepmap.core.learn.checkpoint import chip_mark
from specdeepmap.core.progress import Progress

if TYPE_CHECKING:
    from specdeepmap.core.data.classes import ClassTable
    from specdeepmap.core.data.normalization import Normalization
    from specdeepmap.core.learn.checkpoint import ModelCard

WINDOW = 32
"""Sides of the windows that are looked at, in pixels. The sides of most files' blocks are multiples of it."""

WINDOWS = 5
"""Windows in a row and in a column: the 5 × 32 rows of 32,768 are half a percent of a raster stored row by row."""

MANY_BANDS = 50
"""With more bands, where blocks are large, 2 × 2 windows do."""

ENOUGH = 100
"""Valid pixels of a band that say something."""

Floats = NDArray[np.float64]


def warn_of_other_bands(card: ModelCard, raster: Raster, parameter: str, progress: Progress) -> None:
    """Warn where as many bands as a model knows have other names, wavelengths or codings, or are flagged bad."""
    names = [band.name for band in raster.bands]
    renamed = [
        f"{number} ({known} / {name})"
        for number, (known, name) in enumerate(zip(card.bands, names, strict=True), 1)
        if plain_name(known) != plain_name(name)
    ]
    if renamed:
        progress.warning(f"{parameter}: band names differ from the model's (model / image): {first_few(renamed)}.")
    flagged = [
        str(number)
        for number, (good, bad) in enumerate(zip(raster.good, card.normalization.bad, strict=True), 1)
        if not good and not bad
    ]
    if flagged:
        progress.warning(
            f"{parameter}: bands that the model uses are flagged bad in the image: {first_few(flagged)}. They count as "
            "missing, and the result will be worse."
        )
    moved = [
        f"{number} ({known:g} / {band.wavelength_nm:g} nm)"
        for number, (known, band) in enumerate(zip(card.wavelengths_nm, raster.bands, strict=True), 1)
        if other_wavelength(known, band.wavelength_nm)
    ]
    if moved:
        progress.warning(f"{parameter}: wavelengths differ from the model's (model / image): {first_few(moved)}.")
    declared = zip(card.bands, card.band_scales, card.band_offsets, strict=False)  # an older card knows neither
    trained = [Band(name, scale=scale, offset=offset) for name, scale, offset in declared]
    if codings := recoded(trained, raster.bands[: len(trained)]):
        progress.warning(
            f"{parameter}: scale or offset differ from those of the training images (model / image): "
            f"{first_few(codings)}. Stored numbers are taken as they are. Where the same ground has other numbers in "
            f"them, the result is worth little: {SAME_CODING}."
        )


def warn_of_other_classes(classes: ClassTable, names: Mapping[int, str], parameter: str, progress: Progress) -> None:
    """Warn where a reference gives a class of the model another name: scores compare ids only."""
    renamed = classes.renamed(names)
    if renamed:
        progress.warning(
            f"{parameter}: classes have other names than in the model (model / reference): {first_few(renamed)}. "
            "Scores compare class ids. Where these are not the same classes, give the reference the ids of the model."
        )


def warn_of_known_image(card: ModelCard, stem: str, progress: Progress) -> None:
    """Warn where a model was trained on chips of the image that is to be scored.

    Args:
        card: of the model, with marks of the chips and of the images that they were cut from.
        stem: of the image, see ``image_stem``.
        progress: is warned.
    """
    if chip_mark(stem) in card.trained_on:
        progress.warning(
            f"GROUND_TRUTH: the model was trained or validated on chips of an image that is called {stem}, too. If it "
            "is this one, the scores will look better than they are: take reference data of other places, or the Deep "
            "Learning Tester with the test set."
        )


def warn_of_other_values(card: ModelCard, raster: Raster, parameter: str, progress: Progress) -> None:
    """Warn where a raster's values are so small or so large that they must be in another unit than in training.

    A sample is looked at. In each usable band the root mean square of its values, cut at percentiles 2 and 98, is
    compared with that of the training, ``sqrt(mean² + std²)``: not the spread, which is nearly 0 on calm water, too,
    nor the distance from the mean, since values near 0 are never many standard deviations away. Where the card
    says nothing of the values it was trained on, or there are too few valid pixels, nothing is said.

    Args:
        card: of a model for as many bands.
        raster: with the bands in the model's order.
        parameter: names the raster in the warning.
        progress: is warned, and asked whether to stop.

    Raises:
        RasterError: if the file is damaged.
    """
    normalization = card.normalization
    known = _known_bands(normalization)
    if not known.any():
        return
    sizes, middles = _measure(raster, known, progress)
    measured = np.isfinite(sizes)
    if not measured.any():
        return
    mean, std = np.asarray(normalization.mean)[measured], np.asarray(normalization.std)[measured]
    factors = sizes[measured] / (normalization.scale * np.hypot(mean, std))
    too_small = np.quantile(factors, UNIT_SHARE) < 1 / UNIT_FACTOR
    too_large = np.quantile(factors, 1 - UNIT_SHARE) > UNIT_FACTOR
    if not too_small and not too_large:
        return
    here, there = np.median(middles[measured]), np.median(mean * normalization.scale)
    progress.warning(
        f"{parameter} {raster.name}: the values are much {'smaller' if too_small else 'larger'} than those that the "
        f"model was trained on: the bands' medians lie around {here:.3g}, their means in training around {there:.3g}. "
        "The image is probably in another unit or scaling (reflectance from 0 to 1 or from 0 to 10,000, for example), "
        "or its no-data value is not set. Take the image in the unit of the training images: otherwise the result is "
        "worth little."
    )


def _known_bands(normalization: Normalization) -> NDArray[np.bool_]:
    """Tell of which usable bands the values in training are known: mean 0 and standard deviation 1 say nothing."""
    nothing = (np.asarray(normalization.mean) == 0) & (np.asarray(normalization.std) == 1)
    return np.asarray(~np.asarray(normalization.bad, np.bool_) & ~nothing)


def _measure(raster: Raster, wanted: NDArray[np.bool_], progress: Progress) -> tuple[Floats, Floats]:
    """Measure the size and the median of a sample of each band's raw values; NaN for bands with too few."""
    pixels: list[list[NDArray[Any]]] = [[] for _ in wanted]
    for window in sample_windows(raster.width, raster.height, WINDOWS if raster.count <= MANY_BANDS else 2):
        progress.check()
        values, valid = raster.read(window)
        for band in np.flatnonzero(wanted):
            pixels[band].append(values[band][valid[band]])
    sizes, middles = np.full(len(wanted), np.nan), np.full(len(wanted), np.nan)
    for band, parts in enumerate(pixels):
        sample = np.concatenate(parts).astype(np.float64) if parts else np.empty(0)
        if len(sample) >= ENOUGH:
            low, middles[band], high = np.percentile(sample, (2, 50, 98))
            sizes[band] = np.sqrt((sample.clip(low, high) ** 2).mean())
    return sizes, middles


def sample_windows(width: int, height: int, across: int = WINDOWS) -> Iterator[Window]:
    """Spread windows over a grid, row by row, so that they lie inside of a file's blocks; a small grid is one window.

    Args:
        width, height: of the grid in pixels.
        across: windows along each axis.
    """
    for y, rows in _sample_spans(height, across):
        for x, columns in _sample_spans(width, across):
            yield Window(x, y, columns, rows)


def _sample_spans(size: int, across: int) -> list[tuple[int, int]]:
    """Give start and length of the windows along an axis."""
    if size <= WINDOW * across:
        return [(0, size)]
    starts = {int((index + 0.5) * size / across) // WINDOW * WINDOW for index in range(across)}
    return [(start, min(WINDOW, size - start)) for start in sorted(starts)]
