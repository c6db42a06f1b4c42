# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of pretrained weights: from files of any make, and never a program from them."""

from __future__ import annotations

import pickle
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from specdeepmap.core.errors import CheckpointError, ConfigError
from specdeepmap.core.learn.architectures import build_network
from specdeepmap.core.learn.network import Network, first_convolution, spread_over_bands
from specdeepmap.core.learn.weights import WEIGHTS, check_weights, load_weights_file, read_tensors
from tests.chips import TINY, train

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def pretrained() -> Network:
    torch.manual_seed(1)
    return build_network("unet", TINY, bands=3, classes=2)


def encoder_state(network: Network) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.encoder.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("prefix", "wrapper"),
    [
        ("", None),
        ("encoder.", None),
        ("module.", "state_dict"),
        ("module.encoder_q.", "state_dict"),
        ("backbone.", "model"),
        ("network.model.encoder.", "state_dict"),
        ("model.encoder.", "model_state_dict"),
    ],
)
def test_prefixes_and_wrappers(pretrained: Network, tmp_path: Path, prefix: str, wrapper: str | None) -> None:
    state: dict[str, Any] = {prefix + name: tensor for name, tensor in encoder_state(pretrained).items()}
    state["head.weight"] = torch.zeros(3)
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 7}, tmp_path / "weights.pth")
    network = build_network("segformer", TINY, bands=3, classes=5)
    assert not same(encoder_state(network), encoder_state(pretrained))
    assert load_weights_file(network, tmp_path / "weights.pth") == (1.0, False)
    assert same(encoder_state(network), encoder_state(pretrained))


@pytest.mark.parametrize("suffix", ["pth", "pt", "bin", "ckpt", "safetensors", "SAFETENSORS"])
def test_every_file_type(pretrained: Network, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"Gewichte für später.{suffix}"
    (save_file if suffix.lower() == "safetensors" else torch.save)(encoder_state(pretrained), path)
    network = build_network("unet", TINY, bands=3, classes=2)
    assert load_weights_file(network, path) == (1.0, False)
    assert same(encoder_state(network), encoder_state(pretrained))


@pytest.mark.parametrize("backbone", ["tu-resnet10t", "tu-convnext_atto", "tu-regnetx_002", "tu-mobilenetv3_small_050"])
def test_files_of_timm(tmp_path: Path, backbone: str) -> None:
    import timm

    torch.manual_seed(2)
    whole = timm.create_model(backbone.removeprefix("tu-")).state_dict()
    torch.save(whole, tmp_path / "timm.pth")
    network = build_network("unet", backbone, bands=3, classes=2)
    assert load_weights_file(network, tmp_path / "timm.pth")[0] >= 0.95
    first = first_convolution(network.encoder).weight
    assert any(torch.equal(first, tensor) for tensor in whole.values() if tensor.shape == first.shape)


def test_a_checkpoint_of_ours_gives_its_backbone(checkpoint: Path) -> None:
    network = build_network("unet", TINY, bands=13, classes=2)
    assert load_weights_file(network, checkpoint) == (1.0, False)
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    for name, tensor in encoder_state(network).items():
        assert torch.equal(tensor, state[f"network.model.encoder.{name}"])


@pytest.mark.parametrize("bands", [1, 2, 6, 13])
def test_another_band_count_adapts_the_first_layer(pretrained: Network, tmp_path: Path, bands: int) -> None:
    torch.save(encoder_state(pretrained), tmp_path / "weights.pth")
    network = build_network("unet", TINY, bands=bands, classes=2)
    assert load_weights_file(network, tmp_path / "weights.pth") == (1.0, True)
    first, known = (first_convolution(net.encoder).weight for net in (network, pretrained))
    assert torch.allclose(first, spread_over_bands(known, bands))
    others = encoder_state(network)
    changed = [name for name, tensor in encoder_state(pretrained).items() if tensor.shape != others[name].shape]
    assert len(changed) == 1
    assert all(torch.equal(others[name], t) for name, t in encoder_state(pretrained).items() if name not in changed)


def test_repeated_bands_are_seen_as_once() -> None:
    weight, image = torch.randn(4, 3, 3, 3), torch.randn(1, 3, 9, 9)
    wide = spread_over_bands(weight, 6)
    assert torch.allclose(torch.conv2d(image.repeat(1, 2, 1, 1), wide), torch.conv2d(image, weight), atol=1e-5)


def test_too_little_of_the_backbone_is_refused(pretrained: Network, tmp_path: Path) -> None:
    state = encoder_state(pretrained)
    needed = [name for name in state if not name.endswith("num_batches_tracked")]
    for name in needed[: len(needed) // 10]:
        del state[name]
    torch.save(state, tmp_path / "weights.pth")
    network = build_network("unet", TINY, bands=3, classes=2)
    before = encoder_state(network)
    with pytest.raises(CheckpointError, match=r"WEIGHTS_FILE .* 9\d %") as caught:
        load_weights_file(network, tmp_path / "weights.pth")
    assert needed[0] in str(caught.value)
    assert same(encoder_state(network), before)


def test_weights_of_another_backbone_are_refused(tmp_path: Path) -> None:
    torch.save(encoder_state(build_network("unet", "mobilenet_v2", bands=3, classes=2)), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="BACKBONE"):
        load_weights_file(build_network("unet", TINY, bands=3, classes=2), tmp_path / "weights.pth")


class Evil:
    """Make a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("kind", ["torch", "legacy torch", "pickle"])
def test_a_program_in_the_file_is_not_run(tmp_path: Path, kind: str) -> None:
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    content = {"state_dict": {"conv1.weight": torch.zeros(3)}, "more": Evil(trace)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "torch")
    network = build_network("unet", TINY, bands=3, classes=2)
    with pytest.raises(CheckpointError, match="not loaded"):
        load_weights_file(network, path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.pth", b""),
        ("text.pth", b"image,mask\na,b\n"),
        ("zeros.pth", bytes(1000)),
        ("zip.pth", b"PK\x03\x04" + bytes(100)),
        ("empty.safetensors", b""),
        ("text.safetensors", b"no tensors at all, but text"),
    ],
)
def test_what_is_no_weights_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="WEIGHTS_FILE") as caught:
        read_tensors(tmp_path / name, "WEIGHTS_FILE")
    assert "run any program" not in str(caught.value)


@pytest.mark.parametrize("content", [[1, 2], 5, {}, {"a": 1}, torch.zeros(3)])
def test_what_has_no_tensors_by_name(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="no tensors by name"):
        load_weights_file(build_network("unet", TINY, bands=3, classes=2), tmp_path / "weights.pth")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        read_tensors(tmp_path / "none.pth", "WEIGHTS_FILE")


@settings(max_examples=150)
@given(place=st.floats(0, 1), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_file_gives_an_error_of_ours_or_loads(
    tmp_path_factory: pytest.TempPathFactory, place: float, value: int, cut: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    torch.save(
        {"state_dict": {"a": torch.arange(4.0), "b": torch.ones(2)}, "text": "x", "numbers": [1, 2.5, None]}, path
    )
    content = bytearray(path.read_bytes())
    position = min(int(place * len(content)), len(content) - 1)
    content[position] = value
    path.write_bytes(content[:position] if cut else content)
    try:
        read_tensors(path, "WEIGHTS_FILE")
    except CheckpointError as error:
        assert "WEIGHTS_FILE" in str(error)


def test_imagenet_needs_a_backbone_that_has_it() -> None:
    check_weights("none", TINY)
    check_weights("imagenet", "resnet18")
    check_weights("imagenet", "tu-resnet18")
    for backbone in ("tu-botnet50ts_256", "dpn68b"):
        with pytest.raises(ConfigError, match="PRETRAINED_WEIGHTS is imagenet") as caught:
            check_weights("imagenet", backbone)
        assert backbone in str(caught.value) and "none" in str(caught.value)


@pytest.mark.parametrize("backbone", ["resnet18", "tu-resnet18", "mit_b0"])
@pytest.mark.parametrize("weights", [name for name, entry in WEIGHTS.items() if entry.encoder_weights])
def test_without_internet_the_message_names_the_way_out(
    weights: str, backbone: str, dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_name(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # otherwise it tries for half a minute
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    started = time.monotonic()
    with pytest.raises(ConfigError, match="WEIGHTS_FILE") as caught:
        train(dataset_folder, tmp_path, backbone=backbone, pretrained_weights=weights)
    assert "internet" in str(caught.value) and backbone in str(caught.value)
    assert time.monotonic() - started < 10
