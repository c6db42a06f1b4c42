# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of tensors: read without running anything in them, whatever program wrote them."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdeepmap.core.errors import CheckpointError
from specdeepmap.core.learn.inventory import ExcessError, ForeignError, take_inventory

if TYPE_CHECKING:
    from torch import Tensor

_WRAPPERS = ("specdeepmap_state", "state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "network.", "model.", "encoder.", "encoder_q.", "backbone.")

LIGHTNING_KEY = "pytorch-lightning_version"
"""Stands in every checkpoint that Lightning writes."""

_PICKLE_BYTES = 2**20
"""How much of a file's description of its tensors is looked at: a network of 1000 tensors has 0.1 MB."""

_DAMAGE = (
    *(RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError),
    *(AssertionError, ArithmeticError, MemoryError, struct.error, zipfile.BadZipFile, zlib.error),
)
"""What reading a damaged file raises."""


def read_tensors(path: Path, parameter: str) -> Any:
    """Read a file of tensors without running any code in it.

    Raises:
        CheckpointError: if that is impossible.
    """
    import pickle

    import torch

    _look(path, parameter)
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                return load_file(path)
            except SafetensorError as error:
                raise CheckpointError(f"{parameter} {path} is damaged: {error}") from error
        take_inventory(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except ExcessError as error:
        raise CheckpointError(
            f"{parameter} {path} describes more numbers than a file of its size can hold. It was not loaded, since it "
            "could fill the memory: it is damaged, made to do harm, or packed once more by another program. Take the "
            "file as PyTorch wrote it, or save it as safetensors."
        ) from error
    except (pickle.UnpicklingError, ForeignError) as error:
        if not _looks_pickled(path):
            raise CheckpointError(f"{parameter} {path} is no PyTorch file.") from error
        if _is_foreign_lightning(path):
            raise CheckpointError(
                f"{parameter} {path} is a Lightning checkpoint that holds Python objects, as those of EnMAP-Box's own "
                "SpecDeepMap application do. It was not loaded, since loading it could run any program. Train the "
                "model again here, for which the dataset folder can be used as it is; or, where the weights alone are "
                "wanted, save them as a state dict or as safetensors."
            ) from error
        raise CheckpointError(
            f"{parameter} {path} holds more than tensors and plain values. It was not loaded, since such a file "
            "can run any program. Take a file that you trust, saved as a state dict or as safetensors."
        ) from error
    except _DAMAGE as error:
        raise CheckpointError(
            f"{parameter} {path} cannot be read: it is damaged, cut off, or no PyTorch file."
        ) from error


def _look(path: Path, parameter: str) -> None:
    """Check that a file is there and may be read.

    Raises:
        CheckpointError: if not.
    """
    try:
        if not path.is_file():
            raise CheckpointError(f"{parameter} {path} does not exist.")
        with path.open("rb"):
            return
    except OSError as error:
        raise CheckpointError(f"{parameter} {path} cannot be opened: {error.strerror}.") from error


def named_tensors(content: Any, what: str) -> dict[str, Tensor]:
    """Give the tensors that a file holds, by name; also without the prefixes that training programs put before it.

    Args:
        content: a state dict, or something around one.
        what: names the file in the error.

    Raises:
        CheckpointError: if there are none.
    """
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    entries = content.items() if isinstance(content, Mapping) else ()
    tensors = {str(name): value for name, value in entries if hasattr(value, "shape")}
    if not tensors:
        raise CheckpointError(f"{what} holds no tensors by name.")
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


def tensor_of(found: Mapping[str, Tensor], name: str) -> Tensor | None:
    """Find the tensor of an encoder's ``name``, as far as a file has it."""
    key = _key_of(found, name)
    return None if key is None else found[key]


def _key_of(found: Mapping[str, Tensor], name: str) -> str | None:
    """Find what a file calls an encoder's ``name``.

    An encoder of timm's takes apart what a model holds at its top: ``stages.0`` is ``stages_0``, ``features.conv0`` is
    ``features_conv0``.
    """
    short = name.removeprefix("model.")
    numbered, parted = re.sub(r"_(\d+)\.", r".\1.", short), short.replace("_", ".", 1)
    return next((key for key in (name, short, numbered, parted) if key in found), None)


def left_between(found: Mapping[str, Tensor], wanted: Iterable[str]) -> list[str]:
    """Give the layers of a file that lie between those of an encoder: one of a larger network fits a smaller one badly.

    What comes after an encoder's last layer, such as a classifier, and what is no part of it, is not meant.

    Args:
        found: tensors by all their names, see ``named_tensors``.
        wanted: names of the encoder's tensors.
    """
    used = {key for key in (_key_of(found, name) for name in wanted) if key is not None}
    names: dict[int, list[str]] = {}
    for name, tensor in found.items():
        names.setdefault(id(tensor), []).append(name)
    layers = {min(each, key=len): not used.isdisjoint(each) for each in names.values()}
    last: dict[str, _Place] = {}
    for name, is_used in layers.items():
        if is_used and (place := _place(name)):
            last[place[0][1]] = max(last.get(place[0][1], place), place)
    return [
        name
        for name, is_used in layers.items()
        if not is_used and name.endswith(".weight") and (place := _place(name)) and place < last.get(place[0][1], ())
    ]


_Place = tuple[tuple[int, str], ...]


def _place(name: str) -> _Place:
    """Give the place of a tensor in its network, as far as it is numbered: ``layer3.4.conv1.weight`` is layer, 3, 4.

    Numbers are written with leading zeros, so that places can be compared.
    """
    parts = re.findall(r"\d+|[^\d._]+", name)
    while parts and not parts[-1].isdigit():
        parts.pop()
    return tuple((int(part.isdigit()), part.zfill(6) if part.isdigit() else part) for part in parts)


def card_wavelengths(content: Any) -> tuple[float | None, ...]:
    """Give the wavelengths of a checkpoint of ours; nothing for other files."""
    card = content.get("specdeepmap") if isinstance(content, Mapping) else None
    waves = card.get("wavelengths_nm") if isinstance(card, Mapping) else None
    return tuple(nm if isinstance(nm, float | int) else None for nm in waves) if isinstance(waves, list | tuple) else ()


def _looks_pickled(path: Path) -> bool:
    """Tell whether a file begins as PyTorch's do: a zip archive, or a pickle."""
    with path.open("rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _is_foreign_lightning(path: Path) -> bool:
    """Tell whether a file is a checkpoint of Lightning, and none of ours, without unpickling it.

    ``pickletools`` only lists what a pickle would do. Of what is damaged, that before the damage counts.
    """
    import pickletools

    texts: set[object] = set()
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(name) as file:
                head = file.read(_PICKLE_BYTES)
        texts.update(argument for _, argument, _ in pickletools.genops(head) if isinstance(argument, str))
    except (*_DAMAGE, StopIteration):
        pass
    return LIGHTNING_KEY in texts and "specdeepmap" not in texts
