# SPDX-License-Identifier: GPL-3.0-or-later
"""Pretrained encoder weights: how they get into a network, and what they want to see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from specdeepmap.core.errors import CheckpointError, ConfigError
from specdeepmap.core.learn.download import cache_folder, fetch, reachable, watched
from specdeepmap.core.learn.firstlayer import adapt_first_layer, match_bands
from specdeepmap.core.learn.weightfile import card_wavelengths, left_between, named_tensors, read_tensors, tensor_of
from specdeepmap.core.learn.weightsets import WEIGHTS, Weights, own_normalization, unlikely_values
from specdeepmap.core.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor, nn

    from specdeepmap.core.learn.network import Network

    Wavelengths = Sequence[float | None]

__all__ = [
    "WEIGHTS",
    "Loaded",
    "Weights",
    "check_weights",
    "known_file",
    "load_weights",
    "load_weights_file",
    "own_normalization",
    "read_tensors",
    "unlikely_values",
]

MINIMUM_COVERAGE = 0.95
"""Share of an encoder's tensors that a file must hold to count as its weights."""


@dataclass(frozen=True)
class Loaded:
    """What of pretrained weights came into a network.

    Attributes:
        share: of the encoder's tensors, 0 to 1.
        adapted: the first layer had to change, and needs training.
        note: for the log.
    """

    share: float
    adapted: bool
    note: str


def check_weights(weights: str, backbone: str, encoder: bool = True) -> None:
    """Check that a backbone has these weights.

    Args:
        weights: a name in ``WEIGHTS``.
        backbone: an encoder's name.
        encoder: whether the architecture has an encoder at all.

    Raises:
        ConfigError: if not.
    """
    import segmentation_models_pytorch as smp
    import timm

    entry = WEIGHTS[weights]
    if entry.url is None and entry.encoder_weights is None:
        return
    if not encoder:
        raise _no_encoder(f"PRETRAINED_WEIGHTS is {weights}", "set PRETRAINED_WEIGHTS to none")
    stem = backbone.removeprefix("tu-")
    if entry.backbone is not None:
        if stem.split(".")[0] != entry.backbone:
            raise ConfigError(
                f"PRETRAINED_WEIGHTS {weights} are made for BACKBONE {entry.backbone}, but BACKBONE is {backbone}. "
                f"Set BACKBONE to {entry.backbone}, or take other weights."
            )
        return
    if backbone.startswith("tu-"):
        has = timm.models.is_model_pretrained(stem)
    else:
        has = entry.encoder_weights in smp.encoders.encoders[backbone]["pretrained_settings"]
    if not has:
        raise ConfigError(
            f"PRETRAINED_WEIGHTS is {weights}, but there are no such weights for BACKBONE {backbone}. Set it to "
            "none, or take another backbone, for example resnet18."
        )


def load_weights(
    network: Network,
    weights: str,
    backbone: str,
    wavelengths_nm: Wavelengths,
    progress: Progress,
    cache: Path | None = None,
) -> Loaded:
    """Put pretrained weights into a network's encoder, downloaded if they are not here yet.

    Args:
        network: its encoder is changed.
        weights: a name in ``WEIGHTS`` other than none.
        backbone: the encoder's name.
        wavelengths_nm: of the data's bands, where known.
        progress: its 0 to 1 is the download.
        cache: folder of downloads; None = the user's.

    Raises:
        ConfigError: if they do not fit the backbone or the bands, or cannot be had.
        CheckpointError: if the file covers less than 95 % of the encoder.
    """
    entry = WEIGHTS[weights]
    check_weights(weights, backbone, network.encoder is not None)
    what = f"PRETRAINED_WEIGHTS {weights}"
    if entry.url is None:
        tensors = _from_library(weights, backbone, type(network.encoder).__name__ == "TimmViTEncoder", progress)
        return _fill(network, tensors, what, entry, wavelengths_nm)
    _check_bands(weights, _bands_of(network, what), wavelengths_nm)
    path = fetch(entry.url, cache or cache_folder(), entry.sha256_prefix, progress)
    tensors = named_tensors(read_tensors(path, what), f"{what} ({path})")
    return _fill(network, tensors, what, entry, wavelengths_nm)


def known_file(path: Path | None) -> str:
    """Give the name in ``WEIGHTS`` of a file that bears the name of one of its files; none for others."""
    files = {entry.file_name: name for name, entry in WEIGHTS.items() if entry.url}
    return "none" if path is None else files.get(path.name, "none")


def load_weights_file(network: Network, path: Path, wavelengths_nm: Wavelengths = ()) -> Loaded:
    """Put encoder weights from a file into a network.

    The file's own wavelengths are known where it is a checkpoint of ours, or bears the name of a file in
    ``WEIGHTS``.

    Args:
        network: its encoder is changed.
        path: a state dict, also wrapped or prefixed as training programs write them.
        wavelengths_nm: of the data's bands, where known.

    Raises:
        CheckpointError: if the file is none, or covers less than 95 % of the encoder.
        ConfigError: if the network has no encoder.
    """
    what = f"WEIGHTS_FILE {path}"
    content = read_tensors(path, "WEIGHTS_FILE")
    known = known_file(path)
    if known != "none":
        _check_bands(known, _bands_of(network, what), wavelengths_nm)
    entry = WEIGHTS[known] if known != "none" else Weights(path.name, "", wavelengths_nm=card_wavelengths(content))
    return _fill(network, named_tensors(content, what), what, entry, wavelengths_nm)


def _fill(
    network: Network, found: Mapping[str, Tensor], what: str, entry: Weights, wavelengths_nm: Wavelengths
) -> Loaded:
    """Copy tensors into a network's encoder by name, the first layer adapted to the bands.

    Raises:
        CheckpointError: if too many are missing, if there are more between them, or if they are not finite.
        ConfigError: if there is no encoder.
    """
    from specdeepmap.core.learn.network import first_convolution

    encoder = _encoder(network, what)
    wanted = encoder.state_dict()
    first = first_convolution(encoder)
    first_name = next(name for name, module in encoder.named_modules() if module is first) + ".weight"
    seen = _bands(found, first_name), first.in_channels
    loaded = Loaded(0.0, False, "")
    taken: dict[str, Tensor] = {}
    for name, tensor in wanted.items():
        candidate = tensor_of(found, name)
        if candidate is not None and ((name == first_name and seen[0]) or _other_bands(candidate, tensor, seen)):
            adapted = adapt_first_layer(candidate, entry.wavelengths_nm, wavelengths_nm, seen[1], entry.tolerance_nm)
            candidate = adapted.weight
            loaded = Loaded(0.0, adapted.changed, adapted.note)
        if candidate is not None and candidate.shape == tensor.shape:
            taken[name] = candidate
    # Batch counters are no weights; many files lack them.
    needed = [name for name in wanted if not name.endswith("num_batches_tracked")]
    share = sum(name in taken for name in needed) / len(needed)
    if share < MINIMUM_COVERAGE:
        missing = next(name for name in needed if name not in taken)
        raise CheckpointError(
            f"{what} holds {100 * share:.0f} % of the backbone's tensors (missing, for example, {missing}); at least "
            f"{100 * MINIMUM_COVERAGE:.0f} % are needed. Is it made for this BACKBONE?"
        )
    between = left_between(found, wanted)
    if len(between) > (1 - MINIMUM_COVERAGE) * len(needed):
        raise CheckpointError(
            f"{what} holds {len(between)} layers more between those of the backbone (for example {between[0]}): it is "
            "made for a larger one. Set BACKBONE to that one."
        )
    broken = next((name for name, tensor in taken.items() if not bool(tensor.isfinite().all())), None)
    if broken is not None:
        raise CheckpointError(
            f"{what} holds numbers that are not finite (in {broken}): a training that went wrong, or a damaged file. "
            "Take other weights."
        )
    encoder.load_state_dict({**wanted, **taken})
    return Loaded(share, loaded.adapted, loaded.note)


def _bands(found: Mapping[str, Tensor], first_name: str) -> int:
    """Give the number of bands that the first layer of weights sees; 0 where they have none."""
    weight = tensor_of(found, first_name)
    return weight.shape[1] if weight is not None and weight.ndim == 4 else 0


def _other_bands(candidate: Tensor, tensor: Tensor, seen: tuple[int, int]) -> bool:
    """Tell whether a layer beside the first one sees the bands, too, as in MobileOne.

    Args:
        candidate: its pretrained weight.
        tensor: its weight in the network.
        seen: numbers of bands that the first layer sees, pretrained and in the network.
    """
    shapes = candidate.shape, tensor.shape
    counts = tuple(shape[1] if len(shape) == 4 else 0 for shape in shapes)
    return counts == seen and seen[0] != seen[1] and shapes[0][2:] == shapes[1][2:]


def _from_library(weights: str, backbone: str, plain: bool, progress: Progress) -> dict[str, Tensor]:
    """Give the tensors of an encoder whose weights segmentation-models-pytorch or timm download.

    Args:
        weights: a name in ``WEIGHTS``.
        backbone: an encoder's name.
        plain: it is a plain vision transformer, which segmentation-models-pytorch gives to single designs only.
        progress: hears what is being done.

    Raises:
        ConfigError: if they cannot be had.
    """
    import segmentation_models_pytorch as smp
    import timm
    from huggingface_hub.errors import HfHubHTTPError

    def load() -> Iterator[dict[str, Tensor]]:
        if plain:
            yield timm.create_model(backbone.removeprefix("tu-"), pretrained=True).state_dict()
            return
        wanted = True if backbone.startswith("tu-") else WEIGHTS[weights].encoder_weights
        yield smp.encoders.get_encoder(backbone, in_channels=3, weights=wanted).state_dict()

    progress.report(0.0, f"Loading the {weights} weights of {backbone}")
    # The parents of the hub's error: OSError, and what its HTTP library raises.
    failures: tuple[type[Exception], ...] = (OSError, RuntimeError, *HfHubHTTPError.__bases__)
    try:
        with _hub_online_or_off(progress):
            return next(watched(load(), progress))
    except failures as error:
        raise ConfigError(
            f"PRETRAINED_WEIGHTS {weights} for BACKBONE {backbone} could not be downloaded "
            f"({type(error).__name__}). Without internet, copy a file with these weights here and name it in "
            "WEIGHTS_FILE, with PRETRAINED_WEIGHTS none."
        ) from error


@contextmanager
def _hub_online_or_off(progress: Progress) -> Iterator[None]:
    """Switch the model hub's library off-line where its server does not answer.

    It then takes what it has on disk or fails at once; else it tries again for half a minute.
    """
    from huggingface_hub import constants

    had = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = had or not reachable(constants.ENDPOINT, progress)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = had


def _check_bands(weights: str, bands: int, wavelengths_nm: Wavelengths) -> None:
    """Check before the download that a set of weights can see these bands.

    Raises:
        ConfigError: if not, with the bands that it wants.
    """
    entry = WEIGHTS[weights]
    known = any(nm is not None for nm in wavelengths_nm)
    if match_bands(entry.wavelengths_nm, wavelengths_nm, entry.tolerance_nm) or (
        bands == len(entry.bands) and not known
    ):
        return
    why = "none of their wavelengths is one of these" if known else "their wavelengths are unknown"
    waves = ", ".join("panchromatic" if nm is None else f"{nm:g}" for nm in entry.wavelengths_nm)
    raise ConfigError(
        f"PRETRAINED_WEIGHTS {weights} want {len(entry.bands)} bands in the order {', '.join(entry.bands)} ({waves} "
        f"nm); the images have {bands}, and {why}. Take images of these bands, write the wavelengths into the images "
        "before cutting them into chips, or set PRETRAINED_WEIGHTS to imagenet or none."
    )


def _bands_of(network: Network, what: str) -> int:
    """Give the number of bands that a network sees."""
    from specdeepmap.core.learn.network import first_convolution

    return first_convolution(_encoder(network, what)).in_channels


def _encoder(network: Network, what: str) -> nn.Module:
    """Give a network's encoder.

    Raises:
        ConfigError: if it has none.
    """
    encoder: nn.Module | None = network.encoder
    if encoder is None:
        raise _no_encoder(f"{what} is set", "leave it out")
    return encoder


def _no_encoder(what: str, way_out: str) -> ConfigError:
    return ConfigError(
        f"{what}, but this ARCHITECTURE has no backbone that could start from pretrained weights. "
        f"Take another ARCHITECTURE, for example unet, or {way_out}."
    )
