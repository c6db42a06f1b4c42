# SPDX-License-Identifier: GPL-3.0-or-later
"""Band matches: which band of an image is which band of a model, and an image shown in the model's order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from specdeepmap.core.data.bands import Band
from specdeepmap.core.data.options import MATCHES
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.errors import RasterError

TOLERANCE_NM = 10.0
"""How far the centres of two bands may lie apart to count as one.

It is the spacing of imaging spectrometers, and covers how differently the narrow bands of one sensor are given:
842 nm in the handbook of Sentinel-2 and 833 nm in the metadata of Sentinel-2A are its band 8.
"""

TOLERANCE_SHARE = 0.01
"""The same as a share of the wavelength, where that is more: bands grow wider with it (band 12 of Sentinel-2 is
2190 nm in the handbook and 2202 nm in the metadata of Sentinel-2A)."""

_FEW = 5
_INSTEAD = "Take an image with the model's bands, or set MATCH_BANDS to"

Names = Sequence[str]
Wavelengths = Sequence[float | None]


def match_bands(
    bands: tuple[Band, ...], names: Names, wavelengths_nm: Wavelengths, how: str, parameter: str
) -> tuple[int, ...]:
    """Find the bands of a model in an image, which may have more of them.

    Args:
        bands: of the image.
        names: of the model's bands.
        wavelengths_nm: of the model's bands, where known.
        how: a name in ``MATCHES``.
        parameter: names the image in errors.

    Returns:
        For each band of the model the index of the image's band, from 0; with ``none`` all bands of the image,
        however many they are.

    Raises:
        RasterError: if a band of the model is not in the image, or it is not certain which one it is.
    """
    return _HOW[how](bands, names, wavelengths_nm, parameter)


def other_wavelength(one: float | None, other: float | None) -> bool:
    """Tell whether two wavelengths in nanometres, where both are known, are not those of one band."""
    return one is not None and other is not None and abs(one - other) > 1


def plain_name(name: str) -> str:
    """Give what counts of a band's name: neither case nor spaces."""
    return "".join(name.split()).casefold()


def first_few(entries: Sequence[str]) -> str:
    """List the first entries and say how many more there are."""
    more = f" and {len(entries) - _FEW} more" if len(entries) > _FEW else ""
    return ", ".join(entries[:_FEW]) + more


def recoded(known: Sequence[Band], found: Sequence[Band]) -> list[str]:
    """List the bands whose equal stored numbers mean different measured ones: ``number (known / found)``."""
    return [
        f"{number} ({one.coding} / {other.coding})"
        for number, (one, other) in enumerate(zip(known, found, strict=True), 1)
        if not one.coded_like(other)
    ]


def reordered(raster: Raster, indices: Sequence[int]) -> Raster:
    """Show some bands of a raster, in another order; nothing is read or copied.

    Args:
        raster: stays open as long as the new one, and must not be read by another thread at the same time.
        indices: of its bands, from 0, in the new order.

    Returns:
        The raster itself where these are all of its bands in their order.

    Raises:
        RasterError: if it has no such band.
    """
    return raster if tuple(indices) == tuple(range(raster.count)) else _Reordered(raster, indices)


class _Reordered(Raster):
    """Bands of another raster in another order, from the same dataset."""

    def __init__(self, source: Raster, indices: Sequence[int]) -> None:
        missing = [index for index in indices if not 0 <= index < source.count]
        if missing:
            raise RasterError(f"{source.name} has {source.count} bands, and none with number {missing[0] + 1}.")
        super().__init__(source.dataset, source.name, direct=source._direct)
        self.count = len(indices)
        self.bands = tuple(source.bands[index] for index in indices)
        self._nodata = tuple(band.nodata for band in self.bands)
        if source.masked_by_band:
            masks = {band: mask for mask, band in source._masks}
            self._masks = [(masks[index], place) for place, index in enumerate(indices) if index in masks]
        else:
            self._masks = source._masks
        known: Sequence[int] = source._places if isinstance(source, _Reordered) else range(source.count)
        self._places: list[int] = [known[index] for index in indices]  # in the dataset

    def _read_bands(self, box: tuple[int, int, int, int]) -> Any:
        if self._direct:  # one by one, each would take as long as all of them together
            values = super()._read_bands(box)
            return None if values is None else values[self._places]
        numbers = [place + 1 for place in self._places]
        return self._dataset.ReadAsArray(*box, buf_type=self.type_code, band_list=numbers)


def _as_they_stand(
    bands: tuple[Band, ...], names: Names, wavelengths_nm: Wavelengths, parameter: str
) -> tuple[int, ...]:
    return tuple(range(len(bands)))


def _by_name(bands: tuple[Band, ...], names: Names, wavelengths_nm: Wavelengths, parameter: str) -> tuple[int, ...]:
    """Find bands by name.

    Raises:
        RasterError: if there are no names, or a name is not there once in the model and once in the image.
    """
    for who, given in (("the model's bands", names), (f"the bands of {parameter}", [band.name for band in bands])):
        if all(name == f"Band {number}" for number, name in enumerate(given, 1)):
            raise RasterError(
                f"MATCH_BANDS is name, but {who} have no names, only numbers. Set MATCH_BANDS to wavelength, or to "
                "none for an image with the model's bands in their order."
            )
    places: dict[str, list[int]] = {}
    for index, band in enumerate(bands):
        places.setdefault(plain_name(band.name), []).append(index)
    wanted = [plain_name(name) for name in names]
    missing = [name for name, plain in zip(names, wanted, strict=True) if plain not in places]
    if missing:
        raise RasterError(
            f"MATCH_BANDS is name, but {parameter} has no bands of these names of the model: {first_few(missing)}. "
            f"{_INSTEAD} wavelength."
        )
    several = [name for name, plain in zip(names, wanted, strict=True) if len(places[plain]) > 1]
    if several:
        raise RasterError(
            f"MATCH_BANDS is name, but {parameter} has more than one band of these names: {first_few(several)}. "
            "Rename the bands, or set MATCH_BANDS to wavelength."
        )
    return _each_once([places[plain][0] for plain in wanted], names, bands, "name", parameter)


def _by_wavelength(
    bands: tuple[Band, ...], names: Names, wavelengths_nm: Wavelengths, parameter: str
) -> tuple[int, ...]:
    """Find bands by centre wavelength; of two that are as near, one of the same name, or else the first.

    Raises:
        RasterError: if a wavelength is unknown, a band is too far off or not the only one of that wavelength, or one
            would stand for two.
    """
    unknown = [name for name, nm in zip(names, wavelengths_nm, strict=True) if nm is None]
    if unknown:
        raise RasterError(
            "MATCH_BANDS is wavelength, but the model knows no wavelength of these of its bands: "
            f"{first_few(unknown)}. Set MATCH_BANDS to name, or to none for an image with the model's bands in their "
            "order."
        )
    known = [(index, band, band.wavelength_nm) for index, band in enumerate(bands) if band.wavelength_nm is not None]
    if not known:
        raise RasterError(
            f"MATCH_BANDS is wavelength, but the bands of {parameter} have no wavelengths. Set them in the image's "
            "metadata, or set MATCH_BANDS to name, or to none."
        )
    found, missing, twice = [], [], []
    for name, nm in zip(names, wavelengths_nm, strict=True):
        wanted = 0.0 if nm is None else nm
        off, renamed, index = min(
            (abs(own - wanted), plain_name(band.name) != plain_name(name), index) for index, band, own in known
        )
        found.append(index)
        rivals = (band.name for _, band, own in known if own == bands[index].wavelength_nm)
        same = [other for other in rivals if renamed or plain_name(other) == plain_name(name)]
        if len(same) > 1:
            twice.append(f"{wanted:g} nm ({', '.join(same)})")
        if off > max(TOLERANCE_NM, TOLERANCE_SHARE * wanted):
            missing.append(f"{wanted:g} nm ({name}; nearest is {bands[index].wavelength_nm:g} nm)")
    if missing:
        raise RasterError(
            f"MATCH_BANDS is wavelength, but {parameter} has no bands within {TOLERANCE_NM:g} nm, or "
            f"{100 * TOLERANCE_SHARE:g} % of the wavelength, of these of the model: {first_few(missing)}. "
            f"{_INSTEAD} name."
        )
    if twice:
        raise RasterError(
            f"MATCH_BANDS is wavelength, but {parameter} has several bands of the same wavelength, as stacks of "
            f"several dates have: {first_few(twice)}. Take an image with one of each, or set MATCH_BANDS to name."
        )
    return _each_once(found, names, bands, "wavelength", parameter)


def _each_once(
    found: Sequence[int], names: Names, bands: tuple[Band, ...], how: str, parameter: str
) -> tuple[int, ...]:
    """Check that no band of the image stands for two of the model.

    Raises:
        RasterError: if one does.
    """
    takers: dict[int, list[str]] = {}
    for index, name in zip(found, names, strict=True):
        takers.setdefault(index, []).append(name)
    shared = [f"{bands[index].name} for {' and '.join(all_)}" for index, all_ in takers.items() if len(all_) > 1]
    if shared:
        others = " or ".join(other for other in MATCHES if other != how)
        raise RasterError(
            f"MATCH_BANDS is {how}, but one band of {parameter} would stand for several of the model: "
            f"{first_few(shared)}. Take an image with all of the model's bands, or set MATCH_BANDS to {others}."
        )
    return tuple(found)


_HOW: dict[str, Callable[[tuple[Band, ...], Names, Wavelengths, str], tuple[int, ...]]] = {
    "none": _as_they_stand,
    "name": _by_name,
    "wavelength": _by_wavelength,
}
