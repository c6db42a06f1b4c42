# SPDX-License-Identifier: GPL-3.0-or-later
"""Normalization: scale, mean and standard deviation per band, learnt on training chips only.

Everything that a network sees goes through ``Normalization.apply``, in training, validation, testing
and mapping alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.errors import ConfigError
from specdeepmap.core.record import Record

Floats = NDArray[np.float64]

_BLOCK = 2**16
"""Values that are normalised at a time: 256 KB of float32, which fit into a core's cache."""


@dataclass(frozen=True, kw_only=True)
class Normalization(Record):
    """What turns raw values into network input: ``(value / scale - mean) / std``.

    Attributes:
        scale: divisor of raw values.
        mean, std: per band, of scaled values.
        bad: bands that become 0 everywhere.
    """

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bad: tuple[bool, ...]

    def check(self) -> None:
        """Check that there is one usable number per band."""
        if not len(self.mean) == len(self.std) == len(self.bad):
            raise ConfigError("Mean, standard deviation and bad-band flags need one value per band each.")
        finite = np.isfinite(self.mean).all() and np.isfinite(self.std).all()
        if not finite or min(self.std, default=1) <= 0:
            raise ConfigError("Band statistics must be finite, standard deviations above 0.")
        if not 0 < self.scale < np.inf:
            raise ConfigError(f"The scaler is {self.scale:g}; it must be a finite number greater than 0.")
        if not all(np.isfinite(numbers).all() for numbers in self._linear()):
            raise ConfigError("Band statistics, or the scaler, are too large or too small to compute with.")

    def _linear(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Give what each band is multiplied with, and what is added then."""
        std, mean = np.asarray(self.std, np.float64), np.asarray(self.mean, np.float64)
        with np.errstate(over="ignore", divide="ignore"):
            return (1.0 / (self.scale * std)).astype(np.float32), (-mean / std).astype(np.float32)

    @property
    def levels(self) -> tuple[float, ...]:
        """The mean of each band divided by its standard deviation: where the value 0 lies, with its sign turned."""
        return tuple(mean / std for mean, std in zip(self.mean, self.std, strict=True))

    @classmethod
    def none(cls, count: int, scale: float = 1.0, bad: tuple[bool, ...] = ()) -> Normalization:
        """Give the normalization that only scales."""
        return cls(scale=scale, mean=(0.0,) * count, std=(1.0,) * count, bad=bad or (False,) * count)

    def apply(
        self, values: NDArray[np.generic], valid: NDArray[np.bool_], pixels: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Normalise an image ``(bands, rows, columns)``; missing pixels and bad bands become 0.

        0 is the mean of a normalised band: a network sees missing data as average, never as an extreme.
        Computed in float32, one multiplication and one addition per value. Some rows at a time, so that what is between
        stays in the processor's cache, and so that turning the bands round costs nothing.

        Args:
            values: raw ones.
            valid: which of them are data.
            pixels: where to put the result, ``(rows, columns, bands)``; by default in memory of its own.

        Returns:
            ``(bands, rows, columns)`` with the bands of a pixel side by side in memory, as networks want them.
        """
        bands, rows, columns = values.shape
        bad = np.asarray(self.bad, np.bool_)
        side_by_side = values.strides[0] == values.itemsize and values.strides[2] == bands * values.itemsize
        factor, offset = self._linear()
        if side_by_side:  # of each band of each pixel of a row, which is one long loop
            factor, offset = (np.tile(numbers, (columns, 1)) for numbers in (factor, offset))
        else:
            factor, offset = (numbers[:, None, None] for numbers in (factor, offset))
        if pixels is None:
            pixels = np.empty((rows, columns, bands), np.float32)
        step = max(_BLOCK // max(bands * columns, 1), 1)
        with np.errstate(invalid="ignore", over="ignore"):  # missing pixels may hold anything
            for start in range(0, rows, step):
                raw, known = values[:, start : start + step], valid[:, start : start + step]
                block = pixels[start : start + step]
                if side_by_side:
                    _scale(raw.transpose(1, 2, 0), known.transpose(1, 2, 0), factor, offset, block)
                else:  # band by band, and turned round when they are scaled
                    scaled = np.empty(raw.shape, np.float32)
                    _scale(raw, known, factor, offset, scaled)
                    block[...] = scaled.transpose(1, 2, 0)
                if bad.any():
                    block[..., bad] = 0
        return pixels.transpose(2, 0, 1)


def _scale(
    values: NDArray[np.generic],
    valid: NDArray[np.bool_],
    factor: NDArray[np.float32],
    offset: NDArray[np.float32],
    scaled: NDArray[np.float32],
) -> None:
    """Scale values in the order in which they lie in memory; what is no data becomes 0.

    Args:
        values, valid: any numbers, and which of them are data.
        factor, offset: of the same number of axes, or fewer, as for numpy.
        scaled: gets the result.
    """
    scaled[...] = values
    scaled *= factor
    scaled += offset
    if not valid.all():
        np.copyto(scaled, 0, where=~valid)


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and sum of squared deviations per band, which can be merged.

    The update is that of Chan, Golub & LeVeque 1979: one pass, stable in float64.
    """

    count: Floats
    mean: Floats
    squares: Floats

    @classmethod
    def empty(cls, bands: int) -> Moments:
        """Give the moments of nothing."""
        return cls(np.zeros(bands), np.zeros(bands), np.zeros(bands))

    @classmethod
    def of(cls, values: NDArray[np.generic], valid: NDArray[np.bool_], scale: float = 1.0) -> Moments:
        """Measure the valid pixels of an image ``(bands, rows, columns)``, divided by ``scale``."""
        bands = len(values)
        scaled = values.reshape(bands, -1).astype(np.float64)
        if scale != 1.0:
            scaled /= scale
        if valid.all():
            pixels = np.full(bands, float(scaled.shape[1]))
            mean = scaled.mean(axis=1)
            scaled -= mean[:, None]
            return cls(pixels, mean, np.einsum("ij,ij->i", scaled, scaled))
        used = valid.reshape(bands, -1)
        count = used.sum(axis=1).astype(np.float64)
        total = np.where(used, scaled, 0).sum(axis=1)
        mean = np.divide(total, count, out=np.zeros(bands), where=count > 0)
        squares = (np.where(used, scaled - mean[:, None], 0) ** 2).sum(axis=1)
        return cls(count, mean, squares)

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        share = np.divide(other.count, count, out=np.zeros_like(count), where=count > 0)
        delta = other.mean - self.mean
        mean = self.mean + delta * share
        squares = self.squares + other.squares + delta**2 * self.count * share
        return Moments(count, mean, squares)

    @property
    def std(self) -> Floats:
        """Population standard deviation per band; 0 without pixels."""
        variance = np.divide(self.squares, self.count, out=np.zeros_like(self.count), where=self.count > 0)
        return np.asarray(np.sqrt(variance), np.float64)

    def normalization(self, scale: float, bad: tuple[bool, ...]) -> tuple[Normalization, list[int], list[int]]:
        """Turn the moments into a normalization that always holds.

        A band that is flagged bad or has no valid pixel gets mean 0, std 1 and the bad flag; a constant
        band keeps its mean and gets std 1.

        Returns:
            The normalization, the numbers (from 1) of the empty bands, and those of the constant ones.
        """
        empty = self.count == 0
        unusable = empty | np.asarray(bad, np.bool_)
        # A spread below the rounding of float64 sums is no spread.
        constant = ~unusable & (self.std <= 1e-9 * np.maximum(np.abs(self.mean), 1e-9))
        mean = np.where(unusable, 0.0, self.mean)
        std = np.where(unusable | constant, 1.0, self.std)
        made = Normalization(
            scale=scale,
            mean=tuple(mean.tolist()),
            std=tuple(std.tolist()),
            bad=tuple(unusable.tolist()),
        )
        return made, (np.flatnonzero(empty) + 1).tolist(), (np.flatnonzero(constant) + 1).tolist()
