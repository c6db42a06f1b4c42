# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints: weights, and the model card with all that tester and mapper need.

A checkpoint holds tensors and plain values only and is loaded as such: loading never runs code from the
file. No path and no user name is in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import platform
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdeepmap.core.data.classes import ClassTable
from specdeepmap.core.data.normalization import Normalization
from specdeepmap.core.errors import CheckpointError, ConfigError
from specdeepmap.core.learn.architectures import ARCHITECTURES, build_network
from specdeepmap.core.learn.weightfile import LIGHTNING_KEY, read_tensors
from specdeepmap.core.record import Record, shown

if TYPE_CHECKING:
    from torch import Tensor, nn

    from specdeepmap.core.learn.network import Network

KEY = "specdeepmap"
SCHEDULE_KEY = "specdeepmap_schedule"
OTHERS_KEY = "specdeepmap_others"
WARNINGS_KEY = "specdeepmap_warnings"
"""Where a checkpoint to go on from keeps the state of the learning-rate schedule, and the names of earlier trainings'
checkpoints in its folder."""

FORMAT = 1

MOST_BANDS = 10_000

LONGEST_SIDE = 2**14
"""Of a chip, in pixels."""

MOST_VALUES = 2**30
"""Values in a chip of all bands: 4 GB."""

LONGEST_TEXT = 10_000
"""Characters of a text in a card."""

MOST_ENTRIES = 10_000
"""Values among the settings or metrics of a card, each counted as often as it stands there."""

SPARE_NUMBERS = 300_000_000
"""Numbers that building a network may make and throw away: a VGG's are 260 million, its classifier, twice."""

_PREFIX = "network."
_PACKAGES = ("torch", "segmentation-models-pytorch", "timm", "lightning", "numpy", "GDAL")


@dataclass(frozen=True, kw_only=True)
class ModelCard(Record):
    """What a model is and what it wants to see.

    Attributes:
        format: version of this card.
        architecture, backbone: names in the tables of the learning room; the backbone is empty where there is none.
        bands: names of the bands, in order.
        wavelengths_nm: of the bands, where known.
        band_scales, band_offsets: that the training images declared, see ``Band``; empty = not known.
        normalization: scaling, mean and standard deviation, bad bands.
        nodata: how missing pixels reach the network.
        image_nodata: no-data value of the first training chip, in image units, see ``kept_nodata``; None = none.
        classes: values, names and colours, in the order of the outputs.
        chip_width, chip_height: of the training chips, in pixels.
        settings: of the training.
        metrics: at the epoch of the checkpoint; None stands for not a number.
        fingerprint: of the split, see ``Dataset.fingerprint``.
        trained_on: ``chip_mark`` of each chip that was trained or validated on, and of each image that they were cut
            from.
        versions: of the libraries.
        date: of the checkpoint, ISO 8601 in UTC.
    """

    format: int
    architecture: str
    backbone: str
    bands: tuple[str, ...]
    wavelengths_nm: tuple[float | None, ...]
    band_scales: tuple[float, ...] = ()
    band_offsets: tuple[float, ...] = ()
    normalization: Normalization
    nodata: str = "missing pixels and bad bands are 0 after normalisation"
    image_nodata: float | None = None
    classes: ClassTable
    chip_width: int
    chip_height: int
    settings: dict[str, Any]
    metrics: dict[str, Any]
    fingerprint: str
    trained_on: tuple[str, ...]
    versions: dict[str, str]
    date: str

    def at(self, metrics: Mapping[str, float]) -> ModelCard:
        """Give the card of a moment in the training, with its metrics and the time."""
        plain = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        return replace(self, metrics=plain, date=datetime.now(timezone.utc).isoformat(timespec="seconds"))


def kept_nodata(nodata: float | None) -> float | None:
    """Give a no-data value as a card keeps it: None for NaN, and for whole numbers of 64 bits that are no float."""
    if nodata is None or not math.isfinite(nodata) or float(nodata) != nodata:
        return None
    return float(nodata)


def _check_usable(card: ModelCard) -> None:
    """Check that the values of a card from a file fit together, and are such as a model has.

    They decide how much memory is used.

    Raises:
        ConfigError: if not.
    """
    counts = (len(card.bands), len(card.wavelengths_nm), len(card.normalization.mean))
    if len(set(counts)) > 1 or not 1 <= counts[0] <= MOST_BANDS:
        raise ConfigError(
            f"it has {counts[0]} bands, {counts[1]} wavelengths and {counts[2]} means; there must be as many of "
            f"each, 1 to {MOST_BANDS}."
        )
    if not card.classes.entries:
        raise ConfigError("it has no class.")
    if any(nm is not None and not 0 < nm < math.inf for nm in card.wavelengths_nm):
        raise ConfigError("a wavelength is not a finite number above 0.")
    if {len(card.band_scales), len(card.band_offsets)} not in ({0}, {counts[0]}):
        raise ConfigError(f"it has {len(card.band_scales)} scales and {len(card.band_offsets)} offsets of bands.")
    if not all(map(math.isfinite, (*card.band_scales, *card.band_offsets))):
        raise ConfigError("a scale or an offset of a band is not a finite number.")
    if card.image_nodata is not None and not math.isfinite(card.image_nodata):
        raise ConfigError("its no-data value is not a finite number.")
    sides = card.chip_width, card.chip_height
    if not (min(sides) >= 1 and max(sides) <= LONGEST_SIDE and math.prod(sides) * counts[0] <= MOST_VALUES):
        raise ConfigError(f"its chips have {sides[0]} × {sides[1]} pixels and {counts[0]} bands; no model has.")
    for name in ("settings", "metrics", "versions"):
        _check_plain(name.upper(), getattr(card, name))
    texts = (card.architecture, card.backbone, card.nodata, card.fingerprint, card.date)
    if any(len(text) > LONGEST_TEXT for text in (*texts, *card.bands, *card.trained_on)):
        raise ConfigError(f"it holds a text of more than {LONGEST_TEXT} characters.")


def _check_plain(name: str, values: Mapping[str, Any]) -> None:
    """Check that all that stands in settings or metrics is plain, and not too much.

    Raises:
        ConfigError: if not.
    """
    waiting: list[Any] = [values]
    for _ in range(MOST_ENTRIES):
        if not waiting:
            return
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, str) and len(value) > LONGEST_TEXT:
            raise ConfigError(f"{name} holds a text of more than {LONGEST_TEXT} characters.")
        elif not isinstance(value, str | int | float | None):
            raise ConfigError(f"{name} holds {shown(value)}; only texts and numbers are allowed.")
    raise ConfigError(f"{name} holds more than {MOST_ENTRIES} values.")


def chip_mark(name: str) -> str:
    """Give eight hexadecimal digits that stand for a chip's name."""
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def training_settings(job: Record) -> dict[str, Any]:
    """Give the settings of a training that belong into a card: all but paths."""
    return {name: value for name, value in job.to_json().items() if not isinstance(getattr(job, name), Path)}


def library_versions() -> dict[str, str]:
    """Give the versions of Python and the libraries that a model depends on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_card(path: Path, card: ModelCard) -> None:
    """Write the human-readable copy of a card."""
    path.write_text(json.dumps(card.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_checkpoint(path: Path, parameter: str = "CHECKPOINT") -> tuple[ModelCard, dict[str, Tensor]]:
    """Read a model's card and its network's state.

    Raises:
        CheckpointError: if it is no checkpoint of ours, damaged, or holds more than tensors and plain values.
    """
    return parse_checkpoint(read_tensors(path, parameter), path, parameter)


def parse_checkpoint(content: Any, path: Path, parameter: str) -> tuple[ModelCard, dict[str, Tensor]]:
    """Find the card and the network's state in what a file holds.

    Raises:
        CheckpointError: if they are missing or damaged.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get(KEY), Mapping):
        if isinstance(content, Mapping) and LIGHTNING_KEY in content:
            raise CheckpointError(
                f"{parameter} {path} is a Lightning checkpoint without a model card, such as EnMAP-Box's own "
                "SpecDeepMap application makes: it does not say which bands, values and classes it was trained on. "
                "Train the model again here; the dataset folder can be used as it is."
            )
        raise CheckpointError(
            f"{parameter} {path} is no model of the Deep Learning Trainer: it has no model card. Take a .ckpt file "
            "from the model folder of a training."
        )
    values = content[KEY]
    number = values.get("format")
    if not isinstance(number, int) or number != FORMAT:
        raise CheckpointError(
            f"{parameter} {path} has card format {shown(number)}, and this version reads {FORMAT}. Update "
            "SpecDeepMap, or train the model again."
        )
    try:
        card = ModelCard.from_json(values)
        _check_usable(card)
        json.dumps(card.to_json(), ensure_ascii=False).encode()  # it will be written beside what is made of it
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{parameter} {path} has a damaged model card: {error}") from error
    except UnicodeEncodeError as error:
        raise CheckpointError(f"{parameter} {path} has a damaged model card: it holds what is no text.") from error
    if card.architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"{parameter} {path} has the architecture {shown(card.architecture)}, which this version does not know. "
            "Update SpecDeepMap, or train the model again."
        )
    return card, _network_state(content.get("state_dict"), path, parameter)


def _network_state(state: Any, path: Path, parameter: str) -> dict[str, Tensor]:
    """Give the tensors of the network, without its prefix.

    Raises:
        CheckpointError: if there is anything but tensors.
    """
    import torch

    if not isinstance(state, Mapping):
        raise CheckpointError(f"{parameter} {path} holds no weights.")
    found = {name: tensor for name, tensor in state.items() if isinstance(name, str) and name.startswith(_PREFIX)}
    if not all(isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided for tensor in found.values()):
        raise CheckpointError(f"{parameter} {path} holds weights that are no numbers.")
    return {name.removeprefix(_PREFIX): tensor for name, tensor in found.items()}


def rebuild_network(card: ModelCard, state: Mapping[str, Tensor], path: Path, parameter: str = "CHECKPOINT") -> Network:
    """Build the network that a card describes, if the file can hold its weights. All of them must be loaded then.

    A card of some bytes may describe the largest of all networks. So it is sketched first, without memory for its
    numbers; that is given to it afterwards, since drawing numbers by chance that are overwritten takes half a second.
    Some cannot be sketched: these are given up while they are built, once they have become far too large.

    Raises:
        CheckpointError: if it has more numbers than the file, or cannot be built here.
    """
    numbers = sum(tensor.numel() for tensor in state.values())
    design = (card.architecture, card.backbone, len(card.bands), len(card.classes))
    what = f"the network that its card describes ({shown(card.architecture)}, {shown(card.backbone)})"
    try:
        sketch = _sketched(*design)
        if sketch is not None and sum(tensor.numel() for tensor in sketch.state_dict().values()) > numbers:
            raise _TooLargeError
        if sketch is not None and _all_is_state(sketch):
            return sketch.to_empty(device="cpu")
        with _at_most(2 * numbers + SPARE_NUMBERS):
            return build_network(*design)
    except _TooLargeError as error:
        raise CheckpointError(
            f"{parameter} {path}: the weights do not fit {what}: it has more numbers than the file. The file is "
            "damaged, or was made with another version of segmentation-models-pytorch or timm."
        ) from error
    except (ConfigError, KeyError) as error:
        raise CheckpointError(
            f"{parameter} {path}: {what} cannot be built here. It was made with another version of SpecDeepMap, "
            "segmentation-models-pytorch or timm; update them, or train the model again."
        ) from error


def _sketched(architecture: str, backbone: str, bands: int, classes: int) -> Network | None:
    """Build a network without memory for its numbers; None where it cannot be built so."""
    import torch

    try:
        with torch.device("meta"):
            return build_network(architecture, backbone, bands, classes)
    except (ConfigError, KeyError, RuntimeError, NotImplementedError):
        return None


def _all_is_state(sketch: Network) -> bool:
    """Tell whether a network has no numbers beside those of its state, such as tables that it computes when built."""
    import torch

    tensors = {
        **dict(sketch.named_parameters(remove_duplicate=False)),
        **dict(sketch.named_buffers(remove_duplicate=False)),
    }
    others = any(isinstance(value, torch.Tensor) for module in sketch.modules() for value in vars(module).values())
    return not others and tensors.keys() == sketch.state_dict().keys()


@contextlib.contextmanager
def _at_most(most: int) -> Iterator[None]:
    """Let no network with more numbers be built in this thread, counting those that are thrown away while building.

    Raises:
        _TooLargeError: if one gets there.
    """
    from torch.nn.modules.module import register_module_parameter_registration_hook

    here, made = threading.get_ident(), 0

    def count(_: nn.Module, __: str, parameter: nn.Parameter | None) -> None:
        nonlocal made
        if parameter is not None and threading.get_ident() == here:
            made += parameter.numel()
            if made > most:
                raise _TooLargeError

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


class _TooLargeError(Exception):
    """A network has more numbers than its file."""
