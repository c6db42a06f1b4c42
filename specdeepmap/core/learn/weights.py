# SPDX-License-Identifier: GPL-3.0-or-later
"""Pretrained encoder weights: what there is, and how it gets into a network."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdeepmap.core.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from specdeepmap.core.learn.network import Network

MINIMUM_COVERAGE = 0.95
"""Share of an encoder's tensors that a file must hold to count as its weights."""

_WRAPPERS = ("specdeepmap_state", "state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "network.", "model.", "encoder.", "encoder_q.", "backbone.")


@dataclass(frozen=True)
class Weights:
    """A set of pretrained weights.

    Attributes:
        title: for dialogs.
        encoder_weights: the name that segmentation-models-pytorch knows it by; None = random.
        source: what it was trained on, and its licence.
    """

    title: str
    encoder_weights: str | None
    source: str


WEIGHTS = {
    "none": Weights("None (random)", None, "random initialisation"),
    "imagenet": Weights("ImageNet (photographs)", "imagenet", "ImageNet-1k, red, green, blue; see smp and timm"),
}


def check_weights(weights: str, backbone: str) -> None:
    """Check that a backbone has these weights.

    Raises:
        ConfigError: if not.
    """
    import segmentation_models_pytorch as smp
    import timm

    wanted = WEIGHTS[weights].encoder_weights
    if wanted is None:
        return
    if backbone.startswith("tu-"):
        has = timm.models.is_model_pretrained(backbone.removeprefix("tu-"))
    else:
        has = wanted in smp.encoders.encoders[backbone]["pretrained_settings"]
    if not has:
        raise ConfigError(
            f"PRETRAINED_WEIGHTS is {weights}, but there are no such weights for BACKBONE {backbone}. Set it to "
            "none, or take another backbone, for example resnet18."
        )


def load_weights_file(network: Network, path: Path) -> tuple[float, bool]:
    """Load encoder weights from a file into a network.

    Args:
        network: its encoder is changed.
        path: a state dict, also wrapped or prefixed as training programs write them.

    Returns:
        The share of the encoder's tensors that the file had, and whether the first layer had to be
        adapted to another number of bands.

    Raises:
        CheckpointError: if the file is none, or covers less than 95 % of the encoder.
    """
    from specdeepmap.core.learn.network import first_convolution, spread_over_bands

    found = _stripped(_unwrapped(read_tensors(path, "WEIGHTS_FILE"), path))
    wanted = network.encoder.state_dict()
    first = first_convolution(network.encoder)
    first_name = next(name for name, module in network.encoder.named_modules() if module is first) + ".weight"
    adapted = False
    taken: dict[str, Tensor] = {}
    for name, tensor in wanted.items():
        candidate = _named(found, name)
        if candidate is None:
            continue
        if name == first_name and candidate.ndim == 4 and candidate.shape[1] != tensor.shape[1]:
            candidate = spread_over_bands(candidate, tensor.shape[1])
            adapted = True
        if candidate.shape == tensor.shape:
            taken[name] = candidate
    # Batch counters are no weights; many files lack them.
    needed = [name for name in wanted if not name.endswith("num_batches_tracked")]
    share = sum(name in taken for name in needed) / len(needed)
    if share < MINIMUM_COVERAGE:
        missing = next(name for name in needed if name not in taken)
        raise CheckpointError(
            f"WEIGHTS_FILE {path} holds {100 * share:.0f} % of the backbone's tensors (missing, for example, "
            f"{missing}); at least {100 * MINIMUM_COVERAGE:.0f} % are needed. Is it made for this BACKBONE?"
        )
    network.encoder.load_state_dict({**wanted, **taken})
    return share, adapted


def read_tensors(path: Path, parameter: str) -> Any:
    """Read a file of tensors without running any code in it.

    Raises:
        CheckpointError: if that is impossible.
    """
    import pickle

    import torch

    if not path.is_file():
        raise CheckpointError(f"{parameter} {path} does not exist.")
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                return load_file(path)
            except SafetensorError as error:
                raise CheckpointError(f"{parameter} {path} is damaged: {error}") from error
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not _looks_pickled(path):
            raise CheckpointError(f"{parameter} {path} is no PyTorch file.") from error
        raise CheckpointError(
            f"{parameter} {path} holds more than tensors and plain values. It was not loaded, since such a file "
            "can run any program. Take a file that you trust, saved as a state dict or as safetensors."
        ) from error
    except _DAMAGE as error:
        raise CheckpointError(
            f"{parameter} {path} cannot be read: it is damaged, cut off, or no PyTorch file."
        ) from error


_DAMAGE = (
    *(RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError),
    *(AssertionError, ArithmeticError, struct.error),
)
"""What reading a damaged file raises."""


def _looks_pickled(path: Path) -> bool:
    """Tell whether a file begins as PyTorch's do: a zip archive, or a pickle."""
    with path.open("rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _named(found: dict[str, Tensor], name: str) -> Tensor | None:
    """Find the tensor of an encoder's ``name``; what is ``stages_0`` there is ``stages.0`` in files of timm."""
    short = name.removeprefix("model.")
    return next((found[key] for key in (name, short, re.sub(r"_(\d+)\.", r".\1.", short)) if key in found), None)


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """Find the state dict in what a file holds."""
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = (
        {str(name): value for name, value in content.items() if hasattr(value, "shape")}
        if (isinstance(content, Mapping))
        else {}
    )
    if not tensors:
        raise CheckpointError(f"WEIGHTS_FILE {path} holds no tensors by name.")
    return tensors


def _stripped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add each tensor's name without the prefixes that training programs put before it."""
    names = dict(tensors)
    for name, tensor in tensors.items():
        short = name
        for _ in range(len(_PREFIXES)):
            prefix = next((prefix for prefix in _PREFIXES if short.startswith(prefix)), None)
            if prefix is None:
                break
            short = short.removeprefix(prefix)
            names.setdefault(short, tensor)
    return names
