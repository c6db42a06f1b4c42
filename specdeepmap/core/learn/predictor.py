# SPDX-License-Identifier: GPL-3.0-or-later
"""The predictor: a checkpoint at work, from pixels to class probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from specdeepmap.core.data.raster import Raster
from specdeepmap.core.errors import CheckpointError, ConfigError, DeviceError, RasterError
from specdeepmap.core.learn.architectures import build_network
from specdeepmap.core.learn.checkpoint import load_checkpoint, warn_of_other_bands
from specdeepmap.core.learn.options import choose_device, is_out_of_memory
from specdeepmap.core.progress import Progress

_BATCH_VALUES = 4_000_000  # values in a batch of automatic size; 16 MB of float32


class Predictor:
    """A model ready to predict.

    Args:
        checkpoint: made by the trainer.
        device: auto, cpu or gpu.

    Raises:
        CheckpointError: if it is no checkpoint of ours.
        DeviceError: if there is no such device.
    """

    def __init__(self, checkpoint: Path, device: str) -> None:
        self.card, state = load_checkpoint(checkpoint)
        self.device = choose_device(device)
        card = self.card
        try:
            network = build_network(card.architecture, card.backbone, len(card.bands), len(card.classes))
        except (ConfigError, KeyError) as error:
            raise CheckpointError(
                f"CHECKPOINT {checkpoint}: the network that its card describes ({card.architecture}, {card.backbone}) "
                "cannot be built here. It was made with another version of SpecDeepMap, segmentation-models-pytorch "
                "or timm; update them, or train the model again."
            ) from error
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(
                f"CHECKPOINT {checkpoint}: the weights do not fit the network that its card describes "
                f"({card.architecture}, {card.backbone}). The file is damaged, or was made with another version of "
                "segmentation-models-pytorch or timm."
            ) from error
        self._network = network.eval().to(self.device)

    def batch_size(self, height: int, width: int) -> int:
        """Give the automatic batch size for chips of this size."""
        return max(_BATCH_VALUES // (len(self.card.bands) * height * width), 1)

    def probabilities(self, images: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Predict images of one size.

        Args:
            images: each ``(bands, rows, columns)``, from ``card.normalization.apply``.

        Returns:
            ``(images, classes, rows, columns)``; the classes of a pixel add up to 1.

        Raises:
            DeviceError: if the memory does not suffice.
        """
        try:
            with torch.inference_mode():
                batch = torch.from_numpy(np.stack(images)).to(self.device)
                probabilities: NDArray[np.float32] = self._network(batch).float().softmax(dim=1).cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise DeviceError(
                f"The memory does not suffice for BATCH_SIZE {len(images)} with tiles of {images[0].shape[2]} x "
                f"{images[0].shape[1]} pixels. Set BATCH_SIZE to {max(len(images) // 2, 1)}, or take smaller tiles."
            ) from error
        return probabilities

    def check_raster(self, raster: Raster, parameter: str, progress: Progress) -> None:
        """Check that a raster has the bands that the model knows.

        Raises:
            RasterError: if it has another number of bands; other names or wavelengths are a warning.
        """
        names = [band.name for band in raster.bands]
        if len(names) != len(self.card.bands):
            raise RasterError(
                f"{parameter} {raster.name} has {len(names)} bands, but the model was trained on "
                f"{len(self.card.bands)}. Take the image with the same bands in the same order."
            )
        warn_of_other_bands(self.card, raster, parameter, progress)
