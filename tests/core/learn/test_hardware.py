# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of devices, precisions and the memory."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace

import pytest
import torch

from specdeepmap.core.errors import ConfigError, DeviceError
from specdeepmap.core.learn.hardware import choose_device, choose_precision, processes_per_run, reuse_memory

pytestmark = pytest.mark.torch


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
def test_gpu_that_is_not_there() -> None:
    with pytest.raises(DeviceError, match=r"DEVICE is gpu.*Set DEVICE to auto or cpu"):
        choose_device("gpu")
    assert choose_device("auto").type == choose_device("cpu").type == "cpu"


def test_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == choose_device("gpu").type == "cuda"
    assert choose_device("cpu").type == "cpu"


def test_precisions_of_the_processor() -> None:
    cpu = torch.device("cpu")
    with pytest.raises(ConfigError, match=r"PRECISION is float16.*Take auto or bfloat16"):
        choose_precision("float16", cpu)
    assert [choose_precision(name, cpu) for name in ("float32", "bfloat16")] == ["float32", "bfloat16"]


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"amx_bf16": True, "avx512_bf16": False}, "bfloat16"),
        ({"amx_bf16": False, "avx512_bf16": True}, "bfloat16"),
        ({"avx512_bf16": False, "avx2": True, "avx512_vnni": True}, "float32"),
        ({}, "float32"),
        (None, "float32"),  # a PyTorch that does not tell
    ],
)
def test_auto_precision_of_the_processor_follows_its_flags(
    capabilities: dict[str, bool] | None, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    if capabilities is not None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_precision("auto", torch.device("cpu")) == precision


@pytest.mark.parametrize(("platform", "looked"), [("linux", 1), ("darwin", 0), ("win32", 0)])
def test_memory_is_reused_only_where_the_library_can(
    platform: str, looked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[None] = []

    def musl(name: None) -> SimpleNamespace:
        opened.append(name)
        return SimpleNamespace()

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", musl)
    reuse_memory()
    assert opened == [None] * looked


CLUSTER = ("LOCAL_WORLD_SIZE", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NNODES")


@pytest.mark.parametrize(
    ("devices", "environ", "wanted"),
    [
        (1, {}, (1, 1)),
        (3, {}, (3, 1)),
        (1, {"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}, (8, 2)),  # torchrun knows better than DEVICES
        (4, {"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "4"}, (4, 1)),
        (4, {"SLURM_PROCID": "3", "SLURM_NNODES": "2"}, (8, 2)),
        (4, {"SLURM_PROCID": "3"}, (4, 1)),
        (4, {"SLURM_NNODES": "2"}, (4, 1)),  # an allocation, but not started by it
    ],
)
def test_processes_that_train_together(
    devices: int, environ: dict[str, str], wanted: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CLUSTER:
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert processes_per_run(devices) == wanted


@pytest.mark.parametrize(
    ("has", "capability", "chosen"),
    [(True, (9, 0), "bfloat16"), (True, (8, 0), "bfloat16"), (True, (7, 5), "float32"), (False, (8, 0), "float32")],
)
def test_auto_precision_of_a_gpu(
    has: bool, capability: tuple[int, int], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: has)  # also where it is emulated
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    gpu = torch.device("cuda", 0)
    assert choose_precision("auto", gpu) == chosen
    assert choose_precision("float16", gpu) == "float16"
    assert choose_precision("auto", torch.device("mps")) == "float32"
