# SPDX-License-Identifier: GPL-3.0-or-later
"""Band statistics: mean and standard deviation over the valid pixels of chips, in one streaming pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from specdeepmap.core.data.bands import Band
from specdeepmap.core.data.dataset import ChipPair
from specdeepmap.core.data.normalization import Moments, Normalization
from specdeepmap.core.data.parallel import in_threads
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.errors import DatasetError
from specdeepmap.core.progress import Progress


@dataclass(frozen=True)
class BandStatistics:
    """What was measured, and what is odd about it.

    Attributes:
        normalization: mean and standard deviation per band.
        bands: as the first chip describes them.
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
            "STATISTICS needs training chips, and the training set is empty. Raise TRAIN_PERCENT, or switch "
            "STATISTICS off."
        )
    bands = Raster.open(pairs[0].image).bands

    def measure(pair: ChipPair) -> Moments:
        raster = Raster.open(pair.image, placed=False)
        if raster.count != len(bands):
            raise DatasetError(
                f"DATA_FOLDER: {pair.image} has {raster.count} bands, {pairs[0].image.name} has "
                f"{len(bands)}. Chips of one dataset need the same bands; put other images into a folder of "
                "their own."
            )
        return Moments.of(*raster.read(raster.whole), scale)

    moments = Moments.empty(len(bands))
    for part in in_threads(measure, pairs, len(pairs), progress):  # in order: the same sums in every run
        moments = moments + part
    normalization, empty, constant = moments.normalization(scale, tuple(band.bad for band in bands))
    if all(normalization.bad):
        raise DatasetError("DATA_FOLDER: no usable band of the training chips has one valid pixel.")
    flagged = [number for number, band in enumerate(bands, 1) if band.bad and number not in empty]
    remarks = [f"Bands flagged bad, which will not be used: {_listed(flagged)}."] if flagged else []
    warnings = []
    if empty:
        warnings.append(f"Bands without one valid pixel, which will not be used: {_listed(empty)}.")
    if constant:
        warnings.append(f"Bands with the same value everywhere (standard deviation set to 1): {_listed(constant)}.")
    return BandStatistics(normalization, bands, tuple(remarks), tuple(warnings))


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)
