# SPDX-License-Identifier: GPL-3.0-or-later
"""Distortions: what an augmentation does to the chips of a batch.

Each takes normalised images ``(N, C, H, W)`` float32, class indices ``(N, H, W)`` uint8, a random generator of the
processor and a strength, and gives new tensors. What moves a pixel moves its label. Numbers per chip are
drawn on the processor wherever the chips lie, so that a seed means the same on every device.

0 in an image is missing data or an unusable band and stays 0: a network gets exactly that in mapping, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional

from specdeepmap.core.data.classes import IGNORE_INDEX

CHANCE = 0.5
"""Share of the chips that a distortion changes; the rest stays as a map will show it. Flips change all."""

Batch = tuple[Tensor, Tensor]


def flip_and_turn(images: Tensor, labels: Tensor, random: Generator) -> Batch:
    """Give each chip one of the eight flips and turns of a square; of an oblong, one of four."""
    square = images.shape[-1] == images.shape[-2]
    draws = torch.randint(8 if square else 4, (len(images),), generator=random).tolist()
    order = _order(draws, *images.shape[-2:]).to(images.device)
    # Bands side by side, a pixel is moved in one piece: one copy of the batch.
    pixels = images.permute(0, 2, 3, 1)
    turned = pixels.flatten(0, 2).index_select(0, order).view(pixels.shape).permute(0, 3, 1, 2)
    return turned, labels.flatten().index_select(0, order).view(labels.shape)


def _order(draws: list[int], rows: int, columns: int) -> Tensor:
    """Number the pixels of a batch in the order in which the turned chips show them.

    A chip is mirrored by bit 0 and 1 of its draw along columns and rows, and these are swapped by bit 2.
    """
    places = torch.arange(rows * columns).view(rows, columns)
    turns = {}
    for draw in set(draws):
        swapped = places.T if draw & 4 else places
        turns[draw] = swapped.flip([axis for axis, bit in ((-1, 1), (-2, 2)) if draw & bit]).flatten()
    return torch.cat([turns[draw] + number * places.numel() for number, draw in enumerate(draws)])


def rotate(images: Tensor, labels: Tensor, random: Generator, degrees: float) -> Batch:
    """Rotate by an angle of at most ``degrees`` around the centre; what comes in from outside is unlabelled."""
    angle = math.radians(degrees) * _both_ways(random, len(images))
    cosine, sine, none = angle.cos(), angle.sin(), torch.zeros(len(images))
    matrices = torch.stack((cosine, -sine, none, sine, cosine, none), dim=1)
    return _resample(images, labels, _chosen(random, len(images)), matrices)


def rescale(images: Tensor, labels: Tensor, random: Generator, change: float) -> Batch:
    """Zoom by a factor from 1 / (1 + change) to 1 + change, in or out, and shift as far as there is room."""
    count, (height, width) = len(images), images.shape[-2:]
    step = (math.log1p(change) * _both_ways(random, count)).exp()
    room = (1 - step).abs() / 2
    none = torch.zeros(count)
    right, down = width * room * _both_ways(random, count), height * room * _both_ways(random, count)
    matrices = torch.stack((step, none, right, none, step, down), dim=1)
    return _resample(images, labels, _chosen(random, count), matrices)


def add_noise(images: Tensor, labels: Tensor, random: Generator, deviation: float) -> Batch:
    """Add Gaussian noise of a standard deviation to every value, each for itself."""
    chosen = _chosen(random, len(images)).to(images.device)
    # So many numbers are drawn where the chips lie; only their seed comes from the processor.
    seed = int(torch.randint(2**62, (), generator=random))
    picked = images[chosen]
    noise = torch.randn(picked.shape, device=images.device, generator=Generator(images.device).manual_seed(seed))
    return images.index_copy(0, chosen, picked + deviation * noise * (picked != 0)), labels


def change_gain(images: Tensor, labels: Tensor, random: Generator, deviation: float, levels: Sequence[float]) -> Batch:
    """Multiply each band's values, as they were before normalisation, by a factor, and all bands of a chip by another.

    The logarithms of the factors are Gaussian, with mean 0 and the standard deviation: factors are positive.

    Args:
        images, labels, random: as for all.
        deviation: of the logarithms.
        levels: mean of each band in training, divided by its standard deviation: what normalisation took away.
    """
    count, bands = images.shape[:2]
    exponents = torch.randn(count, bands, generator=random) + torch.randn(count, 1, generator=random)
    exponents[~_drawn(random, count)] = 0
    factors = (deviation * exponents).exp().to(images.device)[:, :, None, None]
    away = torch.tensor(levels, dtype=images.dtype, device=images.device)[:, None, None]
    return (images * factors + (factors - 1) * away) * (images != 0), labels


def drop_bands(images: Tensor, labels: Tensor, random: Generator, share: float) -> Batch:
    """Set a share of the bands to 0; at least one stays.

    Shares that make no whole number of bands are rounded up or down by chance, so that they hold on average.
    """
    count, bands = images.shape[:2]
    dropped = (share * bands + torch.rand(count, generator=random)).floor().clamp(max=bands - 1)
    dropped[~_drawn(random, count)] = 0
    order = torch.rand(count, bands, generator=random).argsort(dim=1)
    kept = (order >= dropped[:, None]).float()
    return images * kept.to(images.device)[:, :, None, None], labels


def cut_out(images: Tensor, labels: Tensor, random: Generator, share: float) -> Batch:
    """Hide a rectangle of at most a share of the chip: image 0 and no labels (DeVries & Taylor 2017).

    Its sides differ by a factor of 2 at most, relative to the chip's.
    """
    count, (height, width) = len(images), labels.shape[-2:]
    side = (share * torch.rand(count, generator=random)).sqrt()
    stretch = (math.log(2) / 2 * _both_ways(random, count)).exp()
    rows = _within(random, height, side * stretch)
    columns = _within(random, width, side / stretch)
    hidden = rows[:, :, None] & columns[:, None, :] & _drawn(random, count)[:, None, None]
    hidden = hidden.to(images.device)
    return images * ~hidden[:, None], labels.masked_fill(hidden, IGNORE_INDEX)


def _within(random: Generator, size: int, share: Tensor) -> Tensor:
    """Place a span of a share of an axis by chance, one for each chip: ``(N, size)``, true inside."""
    length = (share.clamp(max=1) * size).floor()
    start = (torch.rand(len(share), generator=random) * (size - length + 1)).floor()
    place = torch.arange(size)
    return (place >= start[:, None]) & (place < (start + length)[:, None])


def _resample(images: Tensor, labels: Tensor, chosen: Tensor, matrices: Tensor) -> Batch:
    """Take the pixels of the chosen chips from elsewhere: image bilinear, labels nearest.

    A bilinear mean counts pixels that have data only; otherwise the values at the rim of the chip and of missing
    data would fade to 0. Where single bands are missing they do: a normalised value of 0 may be a measured one.

    Args:
        images: ``(N, C, H, W)``.
        labels: ``(N, H, W)``.
        chosen: indices of chips.
        matrices: ``(N, 6)``, a matrix of two rows per chip that turns ``(x, y, 1)`` of a new pixel, in pixels from the
            centre, into the place it is taken from.
    """
    if not len(chosen):
        return images, labels
    grid = _grid(matrices[chosen].to(images.device), *images.shape[-2:])
    chosen = chosen.to(images.device)
    picked = images[chosen]
    data = (picked != 0).any(dim=1, keepdim=True).float()
    marked = labels[chosen][:, None].float() + 1  # 0 is what the library fills in from outside
    near = functional.grid_sample(torch.cat((marked, data), dim=1), grid, "nearest", "zeros", align_corners=False)
    mean = functional.grid_sample(torch.cat((picked, data), dim=1), grid, "bilinear", "zeros", align_corners=False)
    found, has_data = near[:, 0], near[:, 1:] > 0
    # The nearest pixel has at least a quarter of the weight: nothing is divided by 0 where it has data.
    moved = torch.where(has_data, mean[:, :-1] / mean[:, -1:], 0.0)
    moved_labels = torch.where(found > 0, found - 1, float(IGNORE_INDEX)).to(labels.dtype)
    return images.index_copy(0, chosen, moved), labels.index_copy(0, chosen, moved_labels)


def _grid(matrices: Tensor, height: int, width: int) -> Tensor:
    """Turn matrices ``(N, 6)`` into places ``(N, H, W, 2)``, with -1 and 1 at the outer borders of the chip."""
    x = torch.arange(width, device=matrices.device) - (width - 1) / 2
    y = (torch.arange(height, device=matrices.device) - (height - 1) / 2)[:, None]
    a, b, c, d, e, f = matrices[:, :, None, None].unbind(dim=1)
    return torch.stack(((a * x + b * y + c) * (2 / width), (d * x + e * y + f) * (2 / height)), dim=-1)


def _drawn(random: Generator, count: int) -> Tensor:
    return torch.rand(count, generator=random) < CHANCE


def _chosen(random: Generator, count: int) -> Tensor:
    return _drawn(random, count).nonzero()[:, 0]


def _both_ways(random: Generator, count: int) -> Tensor:
    """Draw numbers from -1 to 1, all alike."""
    return 2 * torch.rand(count, generator=random) - 1
