# SPDX-License-Identifier: GPL-3.0-or-later
"""The first layer: the one that sees the bands, and has to change where a dataset has other bands than the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    Wavelengths = Sequence[float | None]

TOLERANCE_NM = 30.0
"""How far apart two bands may lie to count as one.

Neighbouring bands of Sentinel-2 lie 35 nm or more apart (B5 and B6), but for B8 and B8A, which see the same; the
same band of two sensors differs by up to 25 nm in the visible and near infrared (Sentinel-2 B8, Landsat 5 B4).
"""

TOLERANCE_SHARE = 0.03
"""The same as a share of the wavelength: bands grow wider with it (1610 nm of Sentinel-2 is 1650 nm of Landsat 5)."""


@dataclass(frozen=True)
class Adapted:
    """A first layer for other bands.

    Attributes:
        weight: ``(out, bands, k, k)``.
        changed: False where the filters are the pretrained ones, in their order.
        note: what was done, for the log.
    """

    weight: Tensor
    changed: bool
    note: str


def match_bands(known_nm: Wavelengths, wanted_nm: Wavelengths, tolerance_nm: float = TOLERANCE_NM) -> dict[int, int]:
    """Find for each known band the wanted band of the same wavelength.

    The nearest pairs come first, and each wanted band is taken once as long as another one lies within the
    tolerance; so two bands of one wavelength keep their order. A known band whose only partner is taken
    shares it: B8A of Sentinel-2 is seen in B8 where the data have no B8A.

    Args:
        known_nm: wavelengths of the weights' bands; None where a band has none.
        wanted_nm: those of the data's bands.
        tolerance_nm: how far two bands may lie apart, at least; 3 % of the wavelength where that is more.

    Returns:
        Index of a known band to index of its wanted band; known bands without one are left out.
    """
    near = sorted(
        (abs(known - wanted), source, target)
        for source, known in enumerate(known_nm)
        for target, wanted in enumerate(wanted_nm)
        if known is not None and wanted is not None
        if abs(known - wanted) <= max(tolerance_nm, TOLERANCE_SHARE * known)
    )
    pairs: dict[int, int] = {}
    for _, source, target in near:
        if source not in pairs and target not in pairs.values():
            pairs[source] = target
    for _, source, target in near:
        pairs.setdefault(source, target)
    return pairs


def adapt_first_layer(
    weight: Tensor,
    known_nm: Wavelengths,
    wanted_nm: Wavelengths,
    bands: int,
    tolerance_nm: float = TOLERANCE_NM,
) -> Adapted:
    """Give the first layer of pretrained weights another set of bands.

    Where wavelengths are known, each band of the weights gives its filters to the band of the data that has its
    wavelength, and the filters of all other bands start at 0: the network begins as the pretrained one on the
    bands that it knows, and learns the others. Else the filters are repeated over the bands.

    Args:
        weight: of a convolution, ``(out, in, k, k)``.
        known_nm: wavelengths of the weights' bands; empty or None where unknown.
        wanted_nm: those of the data's bands.
        bands: number of the data's bands.
        tolerance_nm: as of ``match_bands``.
    """
    known = weight.shape[1]
    pairs = match_bands(known_nm[:known], wanted_nm[:bands], tolerance_nm)
    if known == bands and _in_order(pairs, known_nm, wanted_nm):
        return Adapted(weight, False, f"The {bands} bands of the data are taken as those of the weights, in order.")
    if not pairs:
        note = f"No band was found by wavelength: the filters of the weights' {known} bands are repeated over {bands}."
        return Adapted(spread_over_bands(weight, bands), True, note)
    adapted = weight.new_zeros(weight.shape[0], bands, *weight.shape[2:])
    for source, target in pairs.items():
        adapted[:, target] += weight[:, source]
    note = f"{len(pairs)} of the weights' {known} bands were found in the data by wavelength"
    lost = [known_nm[source] for source in range(min(known, len(known_nm))) if source not in pairs]
    if lost:
        note += f" (not: {', '.join('one without wavelength' if nm is None else f'{nm:g} nm' for nm in lost)})"
    fresh = bands - len(set(pairs.values()))
    note += f"; {fresh} of the data's {bands} bands start at 0." if fresh else "."
    return Adapted(adapted, True, note)


def spread_over_bands(weight: Tensor, bands: int) -> Tensor:
    """Give a first layer's weight ``(out, in, k, k)`` another number of bands.

    The input filters are repeated in order and scaled so that the layer's output keeps its size, as
    segmentation-models-pytorch does.
    """
    import torch

    known = weight.shape[1]
    order = torch.arange(bands) % known
    return weight[:, order] * (known / bands)


def _in_order(pairs: dict[int, int], known_nm: Wavelengths, wanted_nm: Wavelengths) -> bool:
    """Tell whether as many bands stand in the same order, as far as wavelengths say.

    No pair at all says nothing against it; a band that has a wavelength on both sides and is no pair does.
    """
    if not pairs:
        return True
    both = {index for index, nm in enumerate(zip(known_nm, wanted_nm, strict=False)) if None not in nm}
    return all(source == target for source, target in pairs.items()) and both <= set(pairs)
