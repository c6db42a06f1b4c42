# SPDX-License-Identifier: GPL-3.0-or-later
"""Files made to do harm: each is written by a function of its own, none lies in the repository.

``MODELS`` are to be loaded as checkpoints, ``TENSORS`` as any file of weights. The programs in them would write into
the file ``MARK``, and do nothing else.
"""

from __future__ import annotations

import copy
import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from specdeepmap.core.learn.architectures import build_network
from specdeepmap.core.learn.checkpoint import KEY
from tests.trainings import BANDS, CLASSES, model_card

MARK = "executed"

Maker = Callable[[Path], None]


class Touch:
    """Writes into the mark when it is unpickled in a careless way."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self._mark, "x"))


class Command:
    """The same by a program of the system."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f'echo x > "{self._mark}"',))


class Eval:
    """The same by a text of Python."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, (f"__import__('pathlib').Path({str(self._mark)!r}).write_text('x')",))


def content(**card: Any) -> dict[str, Any]:
    """Give what a small model holds; ``card`` replaces values of its card."""
    torch.manual_seed(0)
    state = build_network("spectral", "", BANDS, CLASSES).state_dict()
    values = {**model_card().to_json(), "metrics": {"epoch": 0, "val_iou": 0.5}, **card}
    return {"state_dict": {f"network.{name}": tensor for name, tensor in state.items()}, KEY: values}


# Pickles by hand: what PyTorch's own would not write.


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def numbers(values: list[int]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key: str, size: int, kind: str = "FloatStorage") -> bytes:
    return b"(" + text("storage") + named("torch", kind) + text(key) + text("cpu") + number(size) + b"tQ"


def tensor(size: int, shape: list[int], stride: list[int], offset: int = 0, key: str = "0") -> bytes:
    place = storage(key, size) + number(offset) + numbers(shape) + numbers(stride)
    return (
        named("torch._utils", "_rebuild_tensor_v2")
        + b"("
        + place
        + b"\x89"
        + named("collections", "OrderedDict")
        + b")RtR"
    )


def called(module: str, name: str, arguments: bytes) -> bytes:
    return named(module, name) + b"(" + arguments + b"tR"


def entry(value: bytes) -> bytes:
    """A state dict of one entry."""
    return b"\x80\x02}" + text("weight") + value + b"s."


def shared(levels: int, first: bytes, join: Callable[[int], bytes]) -> bytes:
    """Something that holds twice what holds twice …: small in the file, without an end when it is looked through."""
    return first + b"q\0" + b"".join(join(level) + b"q" + bytes([level + 1]) for level in range(levels))


TWICE_IN_A_LIST = shared(60, b"]", lambda level: b"](h" + bytes([level]) + b"h" + bytes([level]) + b"e")
TWICE_IN_A_TUPLE = shared(60, b")", lambda level: b"h" + bytes([level]) + b"h" + bytes([level]) + b"\x86")


def archived(description: bytes, records: dict[str, bytes] | None = None, packed: bool = False) -> Maker:
    """Write an archive as PyTorch does."""

    def write(path: Path) -> None:
        method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("archive/data.pkl", description)
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/byteorder", "little")
            for key, raw in (records or {"0": bytes(16)}).items():
                archive.writestr(f"archive/data/{key}", raw)

    return write


def saved(**card: Any) -> Maker:
    return lambda path: torch.save(content(**card), path)


def with_program(kind: Callable[[Path], object], where: str = "more", zipped: bool = True) -> Maker:
    def write(path: Path) -> None:
        evil, holds = kind(path.with_name(MARK)), content()
        if where == "card":
            holds[KEY]["settings"] = {"deep": [{"er": evil}]}
        elif where == "weights":
            holds["state_dict"] = OrderedDict([("network.a", evil)])
        else:
            holds[where] = evil
        torch.save(holds, path, _use_new_zipfile_serialization=zipped)

    return write


def plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": Touch(path.with_name(MARK))}, 2))


def new_protocol(path: Path) -> None:
    archived(pickle.dumps({"state_dict": Touch(path.with_name(MARK))}, 4))(path)


def beside_the_description(path: Path) -> None:
    """A second description under another name, and a first that is harmless."""
    evil = pickle.dumps(Touch(path.with_name(MARK)), 2)
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in (("archive/data.pkl", b"\x80\x02}."), ("archive/DATA.PKL", evil), ("archive/version", b"3\n")):
            archive.writestr(name, raw)


def two_archives(path: Path) -> None:
    """One archive behind another: programs disagree on which of them counts."""
    archived(pickle.dumps(Touch(path.with_name(MARK)), 2))(path)
    first = path.read_bytes()
    saved()(path)
    path.write_bytes(first + path.read_bytes())


def commented(path: Path) -> None:
    saved()(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"PK\x05\x06" + bytes(40)


def path_tricks(path: Path) -> None:
    names = ("../outside", "/absolute", "archive/../../outside", "C:\\outside", "archive/data/../../../outside")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/version", "3\n")
        for name in names:
            archive.writestr(name, b"x")
        link = zipfile.ZipInfo("archive/data/0")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")


def tarred(path: Path) -> None:
    """The format before 2016, whose reading ran programs in spite of ``weights_only`` before PyTorch 2.6."""
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            raw = pickle.dumps(Touch(path.with_name(MARK)), 2)
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))


def torchscript(path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)  # type: ignore[no-untyped-call]


def legacy(description: bytes, keys: bytes = b"\x80\x02].") -> Maker:
    head = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    return lambda path: path.write_bytes(head + description + keys)  # type: ignore[return-value]


def strange_card(change: Callable[[dict[str, Any]], None]) -> Maker:
    def write(path: Path) -> None:
        holds = copy.deepcopy(content())
        change(holds[KEY])
        torch.save(holds, path)

    return write


def bands(count: int) -> dict[str, Any]:
    of = {"scale": 1.0, "mean": [0.0] * count, "std": [1.0] * count, "bad": [False] * count}
    return {"bands": ["B"] * count, "wavelengths_nm": [None] * count, "normalization": of}


def normalized(**values: Any) -> dict[str, Any]:
    return {**content()[KEY]["normalization"], **values}


def classes(*entries: tuple[Any, Any, Any]) -> dict[str, Any]:
    return {"entries": [dict(zip(("value", "name", "color"), entry, strict=True)) for entry in entries]}


def by_hand_card(name: str, value: bytes) -> Maker:
    """A card, one value of which is a pickle by hand."""

    def write(path: Path) -> None:
        card = b"\x80\x02}" + text(KEY) + b"}" + text("format") + b"K\x01s" + text(name) + value + b"ss."
        archived(card)(path)

    return write


GIANT = "tu-vit_giant_patch14_dinov2"

_FLOATS = 25 * 10**6

TENSORS: dict[str, Maker] = {
    "a program": with_program(Touch),
    "a command": with_program(Command),
    "a text of Python": with_program(Eval),
    "a program among the weights": with_program(Touch, "weights"),
    "a program in the old format": with_program(Command, zipped=False),
    "a plain pickle": plain_pickle,
    "a pickle of another protocol": new_protocol,
    "two descriptions": beside_the_description,
    "two archives": two_archives,
    "a comment that looks like an end": commented,
    "names that lead elsewhere": path_tricks,
    "a tar archive": tarred,
    "a program of TorchScript": torchscript,
    "packed zeros": archived(entry(tensor(_FLOATS, [_FLOATS], [1])), {"0": bytes(10**8)}, packed=True),
    "a packed description": archived(b"\x80\x02}." + bytes(10**8), packed=True),
    "more numbers than are there": archived(entry(tensor(10**6, [10**6], [1]))),
    "numbers without a record": archived(entry(tensor(4, [4], [1], key="7"))),
    "a negative size": archived(entry(tensor(-4, [4], [1]))),
    "a negative side": archived(entry(tensor(4, [-4], [1]))),
    "a negative offset": archived(entry(tensor(4, [2], [1], -2))),
    "a negative stride": archived(entry(tensor(4, [2], [-1]))),
    "an offset behind the end": archived(entry(tensor(4, [2], [1], 10**12))),
    "one number as many": archived(entry(tensor(4, [10**5, 10**5], [0, 0]))),
    "many dimensions": archived(entry(tensor(4, [1] * 10**4, [1] * 10**4))),
    "a tensor that grows": archived(entry(tensor(4, [2], [1]) + b"(" + storage("0", 4) + b"K\0" + b"))tb")),
    "a gigabyte by its size": archived(entry(called("builtins", "bytearray", number(10**9)))),
    "a tensor by its size": archived(entry(called("torch", "FloatTensor", number(10**9)))),
    "a storage by its size": archived(entry(called("torch.storage", "UntypedStorage", number(10**9)))),
    "a tensor without numbers": archived(
        entry(called("torch._utils", "_rebuild_meta_tensor_no_storage", named("torch", "float32") + b"))\x89"))
    ),
    "a slow encoding": archived(entry(called("_codecs", "encode", text("a" * 10**6) + text("idna")))),
    "a tuple that holds itself many times": archived(b"\x80\x02}" + TWICE_IN_A_TUPLE + b"Ns."),
    "numbers that collide": archived(
        b"\x80\x02}(" + b"".join(number(index * (2**61 - 1)) + b"N" for index in range(1, 40_000)) + b"u."
    ),
    "a place in memory without end": archived(b"\x80\x02" + b"}" * 10 + b"r\xff\xff\xff\xff" + b"0."),
    "many steps": archived(b"\x80\x02" + b"]" * 1_100_000 + b"."),
    "an archive without an end": lambda path: archived(entry(storage("0", 4)))(path) or _cut(path, 22),
    "nothing in the old format": legacy(b""),
    "a size in the old format": legacy(entry(tensor(10**10, [10**10], [1]))),
    "a gigabyte in the old format": legacy(entry(called("builtins", "bytearray", number(10**9)))),
}
"""No program that reads weights may load them, by what is wrong with them."""

MODELS: dict[str, Maker] = {
    "a program in the card": with_program(Eval, "card"),
    "a design that does not exist": saved(architecture="of_nobody"),
    "a design by its path": saved(architecture="../../unet"),
    "a backbone that does not exist": saved(architecture="unet", backbone="of_nobody"),
    "a backbone on the hub": saved(architecture="unet", backbone="tu-hf-hub:somebody/something"),
    "the largest backbone": saved(architecture="unet", backbone=GIANT),
    "the largest encoder": saved(architecture="unet", backbone="resnext101_32x48d"),
    "twenty thousand bands": saved(**bands(20_000)),
    "many bands": saved(architecture="unet", backbone="resnet18", **bands(10_000)),
    "no band": saved(**bands(0)),
    "no class": saved(classes=classes()),
    "twenty thousand classes": saved(classes=classes(*((value, "c", "#000000") for value in range(20_000)))),
    "a class of a huge number": saved(classes=classes((10**18, "c", "#000000"))),
    "a class without a number": saved(classes=classes(("1", "c", "#000000"))),
    "a class without a name": saved(classes=classes((1, None, "#000000"))),
    "a colour that is a program": saved(classes=classes((1, "c", '#000"><script>alert(1)</script>'))),
    "a colour that is none": saved(classes=classes((1, "c", "red; background: url(http://127.0.0.1)"))),
    "huge chips": saved(chip_width=10**9, chip_height=10**9),
    "a chip of no pixel": saved(chip_width=0),
    "a chip below nothing": saved(chip_height=-32),
    "a chip of a fraction": saved(chip_width=32.5),
    "a spread that is no number": saved(normalization=normalized(std=[float("nan")] * BANDS)),
    "a spread of 0": saved(normalization=normalized(std=[0.0] * BANDS)),
    "an infinite mean": saved(normalization=normalized(mean=[float("inf")] * BANDS)),
    "a scale of 0": saved(normalization=normalized(scale=0.0)),
    "a scale that is no number": saved(normalization=normalized(scale=float("nan"))),
    "a huge scale": saved(normalization=normalized(scale=10**400)),
    "means that are texts": saved(normalization=normalized(mean=["0"] * BANDS)),
    "a mean too many": saved(normalization=normalized(mean=[0.0] * 3, std=[1.0] * 3, bad=[False] * 3)),
    "wavelengths that are no numbers": saved(wavelengths_nm=[float("nan")] * BANDS),
    "an offset too many": saved(band_scales=[1.0] * BANDS, band_offsets=[0.0] * (BANDS + 1)),
    "scales without offsets": saved(band_scales=[1.0] * BANDS),
    "an offset that is no number": saved(band_scales=[1.0] * BANDS, band_offsets=[float("nan")] * BANDS),
    "a name of a megabyte": saved(architecture="unet" * 10**6),
    "a band of a megabyte": saved(bands=["B" * 10**6] * BANDS),
    "settings of a megabyte": saved(settings={"architecture_reason": "x" * 10**6}),
    "settings with a tensor": saved(settings={"seed": torch.zeros(10)}),
    "a format that is a tensor": saved(format=torch.zeros(3)),
    "another format": saved(format=10**9),
    "a format of a megabyte": saved(format="1" * 10**6),
    "a value of no name": strange_card(lambda card: card.update({7: 7})),
    "a value of a name of a megabyte": strange_card(lambda card: card.update({"x" * 10**6: 7})),
    "settings that hold themselves many times": by_hand_card("settings", TWICE_IN_A_LIST),
    "bands that hold themselves many times": by_hand_card("bands", TWICE_IN_A_LIST),
    "classes that hold themselves many times": by_hand_card("classes", TWICE_IN_A_LIST),
    "a format that holds itself many times": by_hand_card("format", TWICE_IN_A_LIST),
    "weights that are texts": lambda path: torch.save({**content(), "state_dict": {"network.a": "b"}}, path),
    "weights that are a list": lambda path: torch.save({**content(), "state_dict": [1, 2]}, path),
    "weights without names": lambda path: torch.save({**content(), "state_dict": {1: torch.zeros(2)}}, path),
    "no weights": lambda path: torch.save({**content(), "state_dict": {}}, path),
    "weights of one number": lambda path: torch.save({**content(), "state_dict": {"network.a": torch.zeros(1)}}, path),
}
"""No checkpoint of ours, by what is wrong with it; each can be read as a file of tensors."""


def _cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])
