# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints: weights, and the model card with all that tester and mapper need.

A checkpoint holds tensors and plain values only and is loaded as such: loading never runs code from the
file. No path and no user name is in it.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdeepmap.core.data.classes import ClassTable
from specdeepmap.core.data.normalization import Normalization
from specdeepmap.core.errors import CheckpointError, ConfigError
from specdeepmap.core.learn.weightfile import LIGHTNING_KEY, read_tensors
from specdeepmap.core.record import Record

if TYPE_CHECKING:
    from torch import Tensor

KEY = "specdeepmap"
SCHEDULE_KEY = "specdeepmap_schedule"
"""Where a checkpoint to go on from keeps the state of the learning-rate schedule."""

FORMAT = 1

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
        normalization: scaling, mean and standard deviation, bad bands.
        nodata: how missing pixels reach the network.
        classes: values, names and colours, in the order of the outputs.
        chip_width, chip_height: of the training chips, in pixels.
        settings: of the training.
        metrics: at the epoch of the checkpoint; None stands for not a number.
        fingerprint: of the split, see ``Dataset.fingerprint``.
        trained_on: ``chip_mark`` of each chip that was trained or validated on.
        versions: of the libraries.
        date: of the checkpoint, ISO 8601 in UTC.
    """

    format: int
    architecture: str
    backbone: str
    bands: tuple[str, ...]
    wavelengths_nm: tuple[float | None, ...]
    normalization: Normalization
    nodata: str = "missing pixels and bad bands are 0 after normalisation"
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
    if values.get("format") != FORMAT:
        raise CheckpointError(
            f"{parameter} {path} has card format {values.get('format')}, and this version reads {FORMAT}. Update "
            "SpecDeepMap, or train the model again."
        )
    try:
        card = ModelCard.from_json(values)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{parameter} {path} has a damaged model card: {error}") from error
    state = content.get("state_dict")
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{parameter} {path} holds no weights.")
    return card, {name.removeprefix(_PREFIX): tensor for name, tensor in state.items() if name.startswith(_PREFIX)}
