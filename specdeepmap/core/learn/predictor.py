# SPDX-License-Identifier: GPL-3.0-or-later
"""The predictor: a checkpoint at work, from pixels to classes and their probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from specdeepmap.core.data.classes import IGNORE_INDEX
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.tiling import even_tile
from specdeepmap.core.errors import CheckpointError, DeviceError, RasterError
from specdeepmap.core.learn.architectures import ARCHITECTURES
from specdeepmap.core.learn.bandcheck import warn_of_other_bands, warn_of_other_values
from specdeepmap.core.learn.checkpoint import load_checkpoint, rebuild_network
from specdeepmap.core.learn.fusion import fused
from specdeepmap.core.learn.hardware import Hardware, choose_device, choose_precision, is_out_of_memory, reuse_memory
from specdeepmap.core.learn.loader import channels_last, stacked
from specdeepmap.core.progress import Progress

Images = Sequence[NDArray[np.float32]] | NDArray[np.float32]
"""Of one size, each ``(bands, rows, columns)``, from ``card.normalization.apply``; or all in one array."""

_Read = Callable[[Tensor], Tensor]
"""A way to read logits ``(N, K, H, W)``."""

LONGEST_TILE = 576
"""Longest side of an automatic tile, in pixels: 512, and what reaches over it. See the benchmarks."""

TILE_VALUES = 2**24
"""Values in an automatic tile, at most; 64 MB of float32."""

BATCH_PIXELS = {"cpu": 2**17, "mps": 2**20, "cuda": 2**22}
"""Pixels in a batch of automatic size: processors are fastest while what a layer gives stays near their caches."""

PIXEL_BYTES = 8192
"""Memory of a graphics card per pixel of a batch: more than U-Net with resnet50 needs."""


class Predictor:
    """A model ready to predict.

    Args:
        checkpoint: made by the trainer.
        device: auto, cpu or gpu.
        precision: auto, float32, bfloat16 or float16.
        turns: predict each image in all eight flips and quarter turns, and average the probabilities.

    Raises:
        CheckpointError: if it is no checkpoint of ours.
        DeviceError: if there is no such device.
        ConfigError: if the device has no such precision.
    """

    def __init__(self, checkpoint: Path, device: str, precision: str = "auto", turns: bool = False) -> None:
        self.card, state = load_checkpoint(checkpoint)
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        self._turns = range(8) if turns else range(1)
        self._fitting: int | None = None  # images at a time, once more of them did not fit into the memory
        card = self.card
        network = rebuild_network(card, state, checkpoint)
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(
                f"CHECKPOINT {checkpoint}: the weights do not fit the network that its card describes "
                f"({card.architecture}, {card.backbone}). The file is damaged, or was made with another version of "
                "segmentation-models-pytorch or timm."
            ) from error
        reuse_memory()
        quick = fused(network.eval(), len(card.bands))
        self.network = quick.to(self.device).to(memory_format=torch.channels_last)

    def use(self, device: torch.device) -> None:
        """Move to another device of the same kind."""
        self.device = device
        self.network.to(device)

    def tile_size(self, width: int, height: int, overlap: int) -> tuple[int, int]:
        """Give the automatic size of the tiles of a map, ``(x, y)`` in pixels.

        A network that sees only the nearest surroundings of a pixel gives the same in larger tiles, of which fewer
        pixels are computed twice. All others get what they were trained on: in larger tiles, the deepest layers of a
        U-Net meet neighbours where padding was in training, and a model of small chips fails.

        Args:
            width, height: of the map.
            overlap: pixels dropped at each side of a tile.
        """
        card = self.card
        trained = (card.chip_width, card.chip_height)
        if not ARCHITECTURES[card.architecture].local:
            return trained
        stride = self.network.stride
        longest = min(LONGEST_TILE, int((TILE_VALUES / len(card.bands)) ** 0.5))
        lengths = (
            even_tile(size, overlap, max(longest // stride, -(-chip // stride)) * stride, stride)
            for size, chip in zip((width, height), trained, strict=True)
        )
        x, y = (max(length, stride) for length in lengths)
        return x, y

    def batch_size(self, height: int, width: int) -> int:
        """Give the automatic batch size for images of this size."""
        pixels = BATCH_PIXELS[self.device.type]
        if self.device.type == "cuda":
            pixels = min(pixels, torch.cuda.mem_get_info(self.device)[0] // (PIXEL_BYTES + 8 * len(self.card.bands)))
        return max(pixels // (height * width), 1)

    def classes(self, images: Images) -> NDArray[np.uint8]:
        """Give the index of the likeliest class of each pixel, ``(images, rows, columns)``.

        It is the ignore index where the network gives no number.

        Raises:
            DeviceError: if the memory does not suffice.
        """
        if len(self._turns) > 1:
            return self.both(images)[0]
        return np.asarray(self._predict(images, (_likeliest,))[0], np.uint8)

    def probabilities(self, images: Images) -> NDArray[np.float32]:
        """Give the probability of each class at each pixel.

        Returns:
            ``(images, classes, rows, columns)``; those of a pixel add up to 1, or are all NaN where the network gives
            no number.

        Raises:
            DeviceError: if the memory does not suffice.
        """
        return np.asarray(self._predict(images, (_chances,))[0], np.float32)

    def both(self, images: Images) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Give what ``classes`` and ``probabilities`` give, from one pass.

        Two classes may have the same probability after rounding: the classes are those of the network's outputs, so
        that they are the same whether probabilities are asked for or not. Over several turns, those of the mean count.
        """
        if len(self._turns) > 1:
            chances = self.probabilities(images)
            return np.stack([likeliest(each) for each in chances]), chances
        classes, probabilities = self._predict(images, (_likeliest, _chances))
        return np.asarray(classes, np.uint8), np.asarray(probabilities, np.float32)

    def _predict(self, images: Images, reads: Sequence[_Read]) -> list[NDArray[np.generic]]:
        """Run the network, in smaller batches where the memory does not suffice, and read its outputs in these ways."""
        size = min(self._fitting or len(images), len(images))
        while True:
            try:
                parts = [self._run(images[start : start + size], reads) for start in range(0, len(images), size)]
                return parts[0] if len(parts) == 1 else [np.concatenate(found) for found in zip(*parts, strict=True)]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    columns, rows = images[0].shape[2], images[0].shape[1]
                    raise DeviceError(
                        f"The memory does not suffice for one image of {columns} x {rows} pixels. Take smaller tiles "
                        f"(TILE_SIZE {max(min(rows, columns) // 2, 1)}), or DEVICE cpu."
                    ) from error
            size = self._fitting = size // 2

    def _run(self, images: Images, reads: Sequence[_Read]) -> list[NDArray[np.generic]]:
        with torch.inference_mode(), Hardware(self.device, self.precision).autocast():
            batch = _together(images).to(self.device)
            logits = self.network(batch)
            found = [read(logits) for read in reads]
            for turn in self._turns[1:]:
                logits = self.network(turned(batch, turn))
                for total, read in zip(found, reads, strict=True):
                    total += turned(read(logits), turn, back=True)
            if len(self._turns) > 1:
                for total in found:
                    total /= len(self._turns)
            return [np.asarray(total.cpu().contiguous().numpy()) for total in found]

    def check_raster(self, raster: Raster, parameter: str, progress: Progress) -> None:
        """Check that a raster has the bands that the model knows.

        Raises:
            RasterError: if it has another number of bands; other names, wavelengths or values are a warning.
        """
        more = raster.count > len(self.card.bands)
        advice = "Take the image with the same bands in the same order"
        self.check_count(raster, parameter, f"{advice}, or let MATCH_BANDS find them." if more else f"{advice}.")
        warn_of_other_bands(self.card, raster, parameter, progress)
        warn_of_other_values(self.card, raster, parameter, progress)

    def check_count(self, raster: Raster, parameter: str, advice: str) -> None:
        """Check that a raster has as many bands as the model knows.

        Raises:
            RasterError: if not, with an advice.
        """
        if raster.count != len(self.card.bands):
            raise RasterError(
                f"{parameter} {raster.name} has {raster.count} bands, but the model was trained on "
                f"{len(self.card.bands)}. {advice}"
            )


def _together(images: Images) -> Tensor:
    """Give images as one batch ``(N, C, H, W)``, without a copy where they lie together."""
    if isinstance(images, np.ndarray):
        return torch.from_numpy(images)
    tensors = [channels_last(image) for image in images]
    return stacked(tensors) if len(tensors) > 1 else tensors[0][None]


def likeliest(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Give the index of the likeliest class from ``(classes, rows, columns)``; the ignore index where they are NaN."""
    indices = probabilities.argmax(axis=0)
    return np.where(np.isnan(probabilities[0]), np.uint8(IGNORE_INDEX), indices.astype(np.uint8))


def _chances(logits: Tensor) -> Tensor:
    """Give probabilities from logits ``(N, K, H, W)``."""
    return logits.float().softmax(dim=1)


def _likeliest(logits: Tensor) -> Tensor:
    """The same from logits ``(N, K, H, W)``; what is not finite is rare, and looked for only where there is some."""
    indices = logits.argmax(dim=1).to(torch.uint8)
    if not bool(logits.amax().isfinite()):
        indices[~logits.amax(dim=1).isfinite()] = IGNORE_INDEX
    return indices


def turned(images: Tensor, turn: int, back: bool = False) -> Tensor:
    """Flip and turn images ``(N, C, H, W)``: one of the eight symmetries of a square, or back again.

    Args:
        images: any.
        turn: bits 0 and 1 mirror columns and rows, bit 2 swaps them.
        back: undo it.
    """
    axes = [axis for axis, bit in ((-1, 1), (-2, 2)) if turn & bit]
    if back:
        mirrored = images.flip(axes)
        return mirrored.transpose(-1, -2) if turn & 4 else mirrored
    swapped = images.transpose(-1, -2) if turn & 4 else images
    return swapped.flip(axes)
