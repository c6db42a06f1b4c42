# SPDX-License-Identifier: GPL-3.0-or-later
"""Band statistics: mean and standard deviation over the valid pixels of chips, in one streaming pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.bandmatch import first_few, other_wavelength, plain_name, recoded
from specdeepmap.core.data.bands import SAME_CODING, Band
from specdeepmap.core.data.census import source_of
from specdeepmap.core.data.dataset import ChipPair
from specdeepmap.core.data.normalization import Moments, Normalization
from specdeepmap.core.data.parallel import in_threads
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.errors import DatasetError
from specdeepmap.core.progress import Progress

_VALUES_AT_A_TIME = 400_000

FLAT_SHARE = 0.01
"""Of the training pixels that hold one value in all bands, from which on it is doubted that they have data."""

_FLAT_BANDS = 3

UNIT_FACTOR = 10.0
"""How many times smaller or larger than elsewhere all values must be to be unlikely.

Scenes differ by a factor of 3 or so, units by 100 (percent) or 10,000 (reflectance as an integer).
"""

UNIT_SHARE = 0.9
"""Of the bands that must be too small, or too large: water is dark in the infrared but not in the blue, and snow is
bright in the visible but not in the shortwave infrared.

In 1,419 chips of a lake district (HLS, 6 bands) the median over bands falls to 0.02 of the whole scene's, but this
quantile to no less than 0.22.
"""


@dataclass(frozen=True)
class BandStatistics:
    """What was measured, and what is odd about it.

    Attributes:
        normalization: mean and standard deviation per band.
        bands: as the first chip describes them; flagged bad where one of the images flags them so.
        remarks: what the user should know.
        warnings: what may be wrong.
    """

    normalization: Normalization
    bands: tuple[Band, ...]
    remarks: tuple[str, ...]
    warnings: tuple[str, ...]


def measure_bands(pairs: Sequence[ChipPair], scale: float, progress: Progress) -> BandStatistics:
    """Measure the bands of training chips.

    Args:
        pairs: the training chips.
        scale: values are divided by it before.
        progress: is reported to.

    Raises:
        DatasetError: if there is no chip, the chips differ in bands, or no band has a valid pixel.
    """
    if not pairs:
        raise DatasetError(
            "STATISTICS needs training chips, and the training set is empty. Raise TRAIN_PERCENT, lower "
            "BUFFER, or switch STATISTICS off."
        )
    first = Raster.open(pairs[0].image)
    bands, doubts = _described(pairs, first)

    def measure(part: Sequence[ChipPair]) -> tuple[Moments, dict[float, int]]:
        read = [_read(pair, pairs[0], len(bands)) for pair in part]
        values, valid = (np.concatenate(arrays, axis=1) for arrays in zip(*read, strict=True))
        return Moments.of(values, valid, scale), flat_values(values, valid)

    # Small chips are measured several at a time: a call costs as much as their pixels.
    size = min(max(_VALUES_AT_A_TIME // (first.count * first.width * first.height), 1), 16)
    by_source = [list(group) for _, group in groupby(pairs, key=lambda pair: source_of(pair.name))]
    parts = [group[start : start + size] for group in by_source for start in range(0, len(group), size)]
    found = in_threads(measure, parts, len(parts), progress, ahead=8)  # in order: the same sums in every run
    sources: dict[str, Moments] = {}
    flat: Counter[float] = Counter()
    for part, (measured, of_one_value) in zip(parts, found, strict=True):
        flat.update(of_one_value)
        source = source_of(part[0].name)
        sources[source] = sources.get(source, Moments.empty(len(bands))) + measured
    moments = sum(sources.values(), Moments.empty(len(bands)))
    normalization, empty, constant = moments.normalization(scale, tuple(band.bad for band in bands))
    if all(normalization.bad):
        raise DatasetError("DATA_FOLDER: no usable band of the training chips has one valid pixel.")
    flagged = [number for number, band in enumerate(bands, 1) if band.bad and number not in empty]
    remarks = [f"Bands flagged bad, which will not be used: {_listed(flagged)}."] if flagged else []
    pixels = int(moments.count.max())
    warnings = [*doubts, *_undeclared(flat, pixels), *_other_units(sources, np.array([band.bad for band in bands]))]
    if empty:
        warnings.append(f"Bands without one valid pixel, which will not be used: {_listed(empty)}.")
    if constant:
        warnings.append(f"Bands with the same value everywhere (standard deviation set to 1): {_listed(constant)}.")
    return BandStatistics(normalization, bands, tuple(remarks), tuple(warnings))


def _described(pairs: Sequence[ChipPair], first: Raster) -> tuple[tuple[Band, ...], list[str]]:
    """Give the bands of all images that chips were cut from, and what speaks against their being the same ones."""
    bands, doubts = first.bands, []
    for source, pair in {source_of(pair.name): pair for pair in reversed(pairs)}.items():
        others = Raster.open(pair.image).bands
        if len(others) != len(bands):
            continue  # told when it is read
        other = [
            f"{number} ({band.name} / {their.name})"
            for number, (band, their) in enumerate(zip(bands, others, strict=True), 1)
            if plain_name(band.name) != plain_name(their.name)
            or other_wavelength(band.wavelength_nm, their.wavelength_nm)
        ]
        if other:
            doubts.append(
                f"Chips of {source} have other bands than those of {source_of(pairs[0].name)}, by name or wavelength: "
                f"{first_few(other)}. One network learns from both: are they the same bands in the same order?"
            )
        if codings := recoded(first.bands, others):
            doubts.append(
                f"Chips of {source} declare another scale or offset than those of {source_of(pairs[0].name)}: "
                f"{first_few(codings)}. Stored numbers are taken as they are, and one network learns from both. Where "
                f"the same ground has other numbers in them, {SAME_CODING}."
            )
        flags = [band.bad or their.bad for band, their in zip(bands, others, strict=True)]
        bands = tuple(replace(band, bad=flag) for band, flag in zip(bands, flags, strict=True))
    return bands, doubts


def flat_values(values: NDArray[np.generic], valid: NDArray[np.bool_]) -> dict[float, int]:
    """Count the pixels that hold one value in all bands, by that value: what is measured hardly ever does.

    Args:
        values, valid: ``(bands, pixels)``, of three bands or more; nothing is found in fewer.
    """
    if len(values) < _FLAT_BANDS:
        return {}
    middle = len(values) // 2
    likely = np.flatnonzero((values[0] == values[middle]) & (values[0] == values[-1]) & valid[0])
    if not likely.size:
        return {}
    flat = likely[(values[:, likely] == values[0, likely]).all(axis=0) & valid[:, likely].all(axis=0)]
    found, counts = np.unique(values[0, flat], return_counts=True)
    return dict(zip(found.astype(float).tolist(), counts.tolist(), strict=True))


def _undeclared(flat: Mapping[float, int], pixels: int) -> list[str]:
    """Say which value so many pixels hold in all bands that it must mean that there is no data."""
    likely = [(count, value) for value, count in flat.items() if FLAT_SHARE * pixels <= count < pixels]
    if not likely:
        return []
    count, value = max(likely)
    return [
        f"{100 * count / pixels:.1f} % of the training pixels hold the value {value:g} in all bands, as pixels without "
        f"data do. If they have none, cut the images again with NODATA {value:g}: now that value is learnt, and counts "
        "in the statistics."
    ]


def _other_units(sources: Mapping[str, Moments], bad: NDArray[np.bool_]) -> list[str]:
    """Say whose values are so small or so large, in most bands, that they must be in another unit than the others'."""
    sizes = {name: np.hypot(found.mean, found.std) for name, found in sources.items()}
    known = {name: (found.count > 0) & ~bad & (sizes[name] > 0) for name, found in sources.items()}
    first = max(sources, key=lambda name: float(sources[name].count.sum()))
    doubts = []
    for name in sources:
        both = known[name] & known[first]
        if not both.any():
            continue
        factors = sizes[name][both] / sizes[first][both]
        if np.quantile(factors, UNIT_SHARE) < 1 / UNIT_FACTOR or np.quantile(factors, 1 - UNIT_SHARE) > UNIT_FACTOR:
            doubts.append(
                f"The values of {name} are about {float(np.median(factors)):.2g} times those of {first}. Are they in "
                "another unit or scaling (reflectance from 0 to 1 and from 0 to 10,000, for example)? One network "
                "learns from both: bring them to the same unit first."
            )
    return doubts


def _read(pair: ChipPair, first: ChipPair, bands: int) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Read a chip's values and validity: ``(bands, pixels)``."""
    raster = Raster.open(pair.image, georeference="NONE")
    if raster.count != bands:
        raise DatasetError(
            f"DATA_FOLDER: {pair.image} has {raster.count} bands, {first.image.name} has {bands}. Chips of one dataset "
            "need the same bands; put other images into a folder of their own."
        )
    values, valid = raster.read(raster.whole)
    return values.reshape(bands, -1), valid.reshape(bands, -1)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)
