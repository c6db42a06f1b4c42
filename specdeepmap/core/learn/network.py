# SPDX-License-Identifier: GPL-3.0-or-later
"""A segmentation network for chips of any size."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_SAFE_CHANNELS = 8


class Network(nn.Module):
    """A network that takes chips of any size: padded to its stride, cropped back.

    Args:
        model: gives logits; its last layers are ``segmentation_head``, and its backbone, if it has one, ``encoder``.
        stride: what its input sizes must be a multiple of.
        minimum: smallest side of an input, in pixels.
    """

    def __init__(self, model: Any, stride: int, minimum: int = 0) -> None:
        super().__init__()
        self.model = model
        self.stride = stride
        self.minimum = minimum

    def forward(self, images: Tensor) -> Tensor:
        """Turn images ``(N, C, H, W)`` into logits ``(N, K, H, W)``."""
        height, width = images.shape[-2:]
        right, below = (self._lacking(size) for size in (width, height))
        if right or below:
            images = functional.pad(images, (0, right, 0, below), mode="replicate")
        logits: Tensor = self.model(images)
        return logits[..., :height, :width]

    @cached_property
    def layout(self) -> torch.memory_format:
        """How images lie in memory while it is trained: with the bands of a pixel side by side, which is fastest.

        Not so with strided convolutions of single pixels of two to seven channels, as MobileOne and RepVGG have beside
        their first layer: their backward pass on a processor then writes where it must not (PyTorch 2.14), and the
        process dies.
        """
        fragile = any(
            isinstance(layer, nn.Conv2d)
            and layer.kernel_size == (1, 1)
            and max(layer.stride) > 1
            and layer.in_channels < _SAFE_CHANNELS
            for layer in self.modules()
        )
        return torch.contiguous_format if fragile else torch.channels_last

    def _lacking(self, size: int) -> int:
        """Give the pixels by which a side is padded."""
        return max(-size % self.stride, self.minimum - size)

    @property
    def encoder(self) -> nn.Module | None:
        """The backbone; None where the design has none."""
        encoder: nn.Module | None = getattr(self.model, "encoder", None)
        return encoder

    def freeze_encoder(self, first_layer: bool) -> None:
        """Stop training the backbone, its running statistics and its dropout included.

        Without a backbone, nothing happens.

        Args:
            first_layer: freeze the first layer, too; not where it was adapted to another band count.
        """
        if self.encoder is None:
            return
        self.model.freeze_encoder()
        # From now on train() and eval() of segmentation-models-pytorch pass the backbone by: what it drops by chance
        # would be dropped in validation, too.
        self.encoder.eval()
        if not first_layer:
            for layer in band_layers(self.encoder, 2 * self.stride):
                layer.requires_grad_(True)

    def unfreeze_encoder(self) -> None:
        """Train the backbone again, with its running statistics and its dropout."""
        if self.encoder is not None:
            self.model.unfreeze_encoder()
            self.encoder.train(self.training)

    def is_head(self, name: str) -> bool:
        """Tell whether a tensor of ``state_dict`` belongs to the last layers, which know the classes."""
        return name.startswith("model.segmentation_head.")

    def parameter_counts(self) -> tuple[int, int]:
        """Count the parameters: all, and those that are trained."""
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in self.parameters()]
        return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


@torch.no_grad()
def band_layers(encoder: nn.Module, size: int) -> list[nn.Conv2d]:
    """Give the layers that see the bands: the first one, and in some designs, such as MobileOne, others beside it.

    Args:
        encoder: is run once.
        size: side of an image that it takes.
    """
    first = first_convolution(encoder)
    images = torch.zeros(1, first.in_channels, size, size, device=first.weight.device)
    found = {id(first): first}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0] is images and isinstance(layer, nn.Conv2d):
            found[id(layer)] = layer

    hooks = [layer.register_forward_pre_hook(note) for layer in encoder.modules() if isinstance(layer, nn.Conv2d)]
    modes = {layer: layer.training for layer in encoder.modules()}
    encoder.eval()
    encoder(images)
    for layer, mode in modes.items():
        layer.training = mode
    for hook in hooks:
        hook.remove()
    return list(found.values())


def first_convolution(encoder: nn.Module) -> nn.Conv2d:
    """Give the layer that sees the bands."""
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            return module
    raise TypeError(f"{type(encoder).__name__} has no convolution")
