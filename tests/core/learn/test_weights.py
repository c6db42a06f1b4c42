# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of pretrained weights: downloaded or from files of any make, and never a program from them."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import pickle
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from specdeepmap.core.errors import Canceled, CheckpointError, ConfigError
from specdeepmap.core.learn.architectures import build_network
from specdeepmap.core.learn.firstlayer import spread_over_bands
from specdeepmap.core.learn.network import Network, first_convolution
from specdeepmap.core.learn.weights import (
    WEIGHTS,
    Loaded,
    check_weights,
    load_weights,
    load_weights_file,
    own_normalization,
    read_tensors,
    unlikely_values,
)
from tests.chips import TINY, train
from tests.fileserver import FileServer
from tests.helpers import Recorder, valid_everywhere

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def pretrained() -> Network:
    torch.manual_seed(1)
    return build_network("unet", TINY, bands=3, classes=2)


def encoder_state(network: Network) -> dict[str, Tensor]:
    assert network.encoder is not None
    return {name: tensor.clone() for name, tensor in network.encoder.state_dict().items()}


def first_layer(network: Network) -> Tensor:
    assert network.encoder is not None
    return first_convolution(network.encoder).weight


def loaded(result: Loaded) -> tuple[float, bool]:
    assert result.note.endswith(".")
    return result.share, result.adapted


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
    assert loaded(load_weights_file(network, tmp_path / "weights.pth")) == (1.0, False)
    assert same(encoder_state(network), encoder_state(pretrained))


@pytest.mark.parametrize("suffix", ["pth", "pt", "bin", "ckpt", "safetensors", "SAFETENSORS"])
def test_every_file_type(pretrained: Network, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"Gewichte für später.{suffix}"
    (save_file if suffix.lower() == "safetensors" else torch.save)(encoder_state(pretrained), path)
    network = build_network("unet", TINY, bands=3, classes=2)
    assert loaded(load_weights_file(network, path)) == (1.0, False)
    assert same(encoder_state(network), encoder_state(pretrained))


@pytest.mark.parametrize(
    "backbone",
    [
        *("tu-resnet10t", "tu-convnext_atto", "tu-regnetx_002", "tu-mobilenetv3_small_050"),
        *("tu-densenet121", "tu-tinynet_e", "tu-efficientvit_b0"),
    ],
)
def test_files_of_timm(tmp_path: Path, backbone: str) -> None:
    import timm

    torch.manual_seed(2)
    whole = timm.create_model(backbone.removeprefix("tu-")).state_dict()
    torch.save(whole, tmp_path / "timm.pth")
    network = build_network("unet", backbone, bands=3, classes=2)
    assert load_weights_file(network, tmp_path / "timm.pth").share >= 0.95
    first = first_layer(network)
    assert any(torch.equal(first, tensor) for tensor in whole.values() if tensor.shape == first.shape)


def test_a_checkpoint_of_ours_gives_its_backbone(dataset_folder: Path, tmp_path: Path) -> None:
    checkpoint = train(dataset_folder, tmp_path, architecture="unet", epochs=1).best_checkpoint
    network = build_network("unet", TINY, bands=13, classes=2)
    assert loaded(load_weights_file(network, checkpoint)) == (1.0, False)
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    for name, tensor in encoder_state(network).items():
        assert torch.equal(tensor, state[f"network.model.encoder.{name}"])


@pytest.mark.parametrize("bands", [1, 2, 6, 13])
def test_another_band_count_adapts_the_first_layer(pretrained: Network, tmp_path: Path, bands: int) -> None:
    torch.save(encoder_state(pretrained), tmp_path / "weights.pth")
    network = build_network("unet", TINY, bands=bands, classes=2)
    assert loaded(load_weights_file(network, tmp_path / "weights.pth")) == (1.0, True)
    first, known = first_layer(network), first_layer(pretrained)
    assert torch.allclose(first, spread_over_bands(known, bands))
    others = encoder_state(network)
    changed = [name for name, tensor in encoder_state(pretrained).items() if tensor.shape != others[name].shape]
    assert len(changed) == 1
    assert all(torch.equal(others[name], t) for name, t in encoder_state(pretrained).items() if name not in changed)


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


@pytest.mark.parametrize(
    ("larger", "smaller"),
    [("resnet34", "resnet18"), ("tu-resnet34", "tu-resnet18"), ("tu-efficientnet_b1", "tu-efficientnet_b0")],
)
def test_weights_of_a_larger_backbone_are_refused(tmp_path: Path, larger: str, smaller: str) -> None:
    """All tensors of the smaller one stand in the file, by name and shape: with every second layer it would be junk."""
    torch.save(encoder_state(build_network("unet", larger, bands=3, classes=2)), tmp_path / "weights.pth")
    network = build_network("unet", smaller, bands=3, classes=2)
    with pytest.raises(CheckpointError, match=r"WEIGHTS_FILE .* layers more between .* larger one\. Set BACKBONE"):
        load_weights_file(network, tmp_path / "weights.pth")


def test_weights_that_are_no_numbers_are_refused(pretrained: Network, tmp_path: Path) -> None:
    state = encoder_state(pretrained)
    name = [key for key in state if key.endswith("weight")][5]
    state[name] = state[name].clone()
    state[name].view(-1)[3] = float("nan")
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=rf"not finite \(in {re.escape(name)}\)"):
        load_weights_file(build_network("unet", TINY, bands=3, classes=2), tmp_path / "weights.pth")


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


SENTINEL = WEIGHTS["sentinel2_toa_resnet18"].wavelengths_nm
LEVEL_2A = tuple(nm for nm in SENTINEL if nm != 1375)  # without B10

HOSTED = {name: entry for name, entry in WEIGHTS.items() if entry.url}


def test_the_table_names_what_is_promised() -> None:
    promised = ["none", "imagenet", "sentinel2_toa_resnet18", "sentinel2_toa_resnet50"]
    assert list(WEIGHTS)[:4] == promised
    assert len({entry.title for entry in WEIGHTS.values()}) == len(WEIGHTS)
    assert len({entry.url for entry in HOSTED.values()}) == len(HOSTED) == 26


@pytest.mark.parametrize("name", HOSTED)
def test_an_entry_holds_together(name: str) -> None:
    entry = HOSTED[name]
    assert re.fullmatch(r"https://huggingface\.co/torchgeo/[\w-]+/resolve/[0-9a-f]{40}/[\w-]+\.pth", entry.url or "")
    assert re.fullmatch(r"[0-9a-f]{8}", entry.sha256_prefix) and f"-{entry.sha256_prefix}.pth" in entry.file_name
    assert len(entry.bands) == len(entry.wavelengths_nm) == len(set(entry.bands))
    assert entry.backbone in ("resnet18", "resnet50") and entry.backbone in name
    assert entry.file_name.startswith((entry.backbone, "rn50")) and entry.scale
    assert entry.licence and entry.values and "arXiv" in entry.source


@pytest.mark.parametrize(
    ("name", "raw", "seen"),
    [
        ("sentinel2_toa_resnet18", 2500.0, 0.25),
        ("landsat_oli_sr_resnet18", (0.2 + 0.15) / 0.0000275, 0.5),  # reflectance 0.15 of 0 to 0.3
        ("landsat_etm_sr_resnet50", 0.2 / 0.0000275, 0.0),
        ("landsat_tm_toa_resnet18", 0.1, 0.25),  # of 0 to 0.4
    ],
)
def test_weights_bring_their_preprocessing(name: str, raw: float, seen: float) -> None:
    bands = len(WEIGHTS[name].bands)
    normalization = own_normalization(name, (), (False,) * bands)
    assert normalization is not None
    image = np.full((bands, 2, 2), raw, np.float32)
    assert np.allclose(normalization.apply(image, valid_everywhere(image))[0], seen, atol=1e-5)


@pytest.mark.parametrize("waves", [(), WEIGHTS["landsat_tm_toa_resnet18"].wavelengths_nm, (11450.0, 490.0)])
def test_temperatures_are_scaled_as_temperatures(waves: tuple[float | None, ...]) -> None:
    bands = len(waves) or 7
    normalization = own_normalization("landsat_tm_toa_resnet18", waves, (False,) * bands)
    assert normalization is not None
    thermal = 0 if bands == 2 else 5
    image = np.full((bands, 1, 1), 0.4, np.float32)
    image[thermal] = 273.15 + 10
    seen = normalization.apply(image, valid_everywhere(image))[:, 0, 0]
    assert np.allclose(seen, [0.5 if band == thermal else 1.0 for band in range(bands)], atol=1e-5)


def test_other_weights_see_what_the_dataset_says() -> None:
    assert own_normalization("imagenet", (), (False,) * 3) is None
    assert own_normalization("none", (), (False,) * 3) is None


@pytest.mark.parametrize(
    ("name", "mean", "likely"),
    [
        ("sentinel2_toa_resnet18", 1500.0, True),
        ("sentinel2_toa_resnet18", 0.15, False),
        ("landsat_oli_sr_resnet18", 9500.0, True),
        ("landsat_oli_sr_resnet18", 0.15, False),
        ("landsat_etm_sr_resnet18", 1500.0, False),  # numbers × 10,000 without the offset
        ("landsat_tm_toa_resnet18", 1500.0, False),
    ],
)
def test_values_in_another_unit_are_noticed(name: str, mean: float, likely: bool) -> None:
    bands = len(WEIGHTS[name].bands)
    normalization = own_normalization(name, (), (False,) * bands)
    assert normalization is not None
    means = [290.0 if nm and nm > 3000 else mean for nm in WEIGHTS[name].wavelengths_nm]
    text = unlikely_values(name, normalization, means)
    assert (text == "") == likely
    assert likely or (name in text and WEIGHTS[name].values in text)


@pytest.mark.parametrize("backbone", ["resnet50", "efficientnet-b0", "tu-resnet34"])
def test_a_set_wants_its_backbone(backbone: str) -> None:
    with pytest.raises(ConfigError, match="Set BACKBONE to resnet18") as caught:
        check_weights("sentinel2_toa_resnet18", backbone)
    assert backbone in str(caught.value) and "sentinel2_toa_resnet18" in str(caught.value)
    check_weights("sentinel2_toa_resnet18", "resnet18")
    check_weights("sentinel2_toa_resnet18", "tu-resnet18.a1_in1k")


class NoEncoder(Network):
    """A network without a backbone."""

    @property
    def encoder(self) -> None:
        return None


def test_a_network_without_backbone_takes_no_weights(tmp_path: Path, progress: Recorder) -> None:
    network = NoEncoder(torch.nn.Conv2d(3, 2, 1), 1)
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "weights.pth")
    check_weights("none", "resnet18", encoder=False)
    for weights in ("imagenet", "sentinel2_toa_resnet18"):
        with pytest.raises(ConfigError, match=f"PRETRAINED_WEIGHTS is {weights}.*no backbone"):
            check_weights(weights, "resnet18", encoder=False)
        with pytest.raises(ConfigError, match="no backbone"):
            load_weights(network, weights, "resnet18", (), progress, tmp_path)
    with pytest.raises(ConfigError, match=r"WEIGHTS_FILE .*no backbone"):
        load_weights_file(network, tmp_path / "weights.pth")


@pytest.fixture(scope="module")
def sentinel() -> dict[str, Tensor]:
    """The tensors of a ResNet-18 for 13 bands, as a file of such weights has them."""
    import timm

    torch.manual_seed(4)
    state: dict[str, Tensor] = timm.create_model("resnet18", in_chans=13).state_dict()
    return state


@pytest.fixture
def hosted(sentinel: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Host a file for the name ``sentinel2_toa_resnet18``."""
    buffer = io.BytesIO()
    torch.save(sentinel, buffer)
    name = f"resnet18-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.pth"
    with FileServer({name: buffer.getvalue()}) as server:
        entry = dataclasses.replace(WEIGHTS["sentinel2_toa_resnet18"], url=f"{server.url}/{name}")
        monkeypatch.setitem(WEIGHTS, "sentinel2_toa_resnet18", entry)
        yield server


@pytest.mark.parametrize("backbone", ["resnet18", "tu-resnet18"])
@pytest.mark.parametrize("waves", [(), SENTINEL])
def test_a_hosted_set_comes_into_the_network(
    hosted: FileServer,
    sentinel: dict[str, Tensor],
    tmp_path: Path,
    progress: Recorder,
    backbone: str,
    waves: tuple[float | None, ...],
) -> None:
    network = build_network("unet", backbone, bands=13, classes=2)
    result = load_weights(network, "sentinel2_toa_resnet18", backbone, waves, progress, tmp_path)
    assert loaded(result) == (1.0, False)
    assert progress.shares[-1] == 1.0
    for name, tensor in encoder_state(network).items():
        assert torch.equal(tensor, sentinel[name.removeprefix("model.")])
    load_weights(network, "sentinel2_toa_resnet18", backbone, waves, progress, tmp_path)
    assert len(hosted.asked) == 1


def test_a_hosted_set_finds_its_bands(
    hosted: FileServer, sentinel: dict[str, Tensor], tmp_path: Path, progress: Recorder
) -> None:
    network = build_network("unet", "resnet18", bands=12, classes=2)
    result = load_weights(network, "sentinel2_toa_resnet18", "resnet18", LEVEL_2A, progress, tmp_path)
    assert loaded(result) == (1.0, True)
    wanted = torch.cat([sentinel["conv1.weight"][:, :10], sentinel["conv1.weight"][:, 11:]], 1)
    assert torch.equal(first_layer(network), wanted)


@pytest.mark.parametrize("waves", [(), (None,) * 4, (9000.0,) * 4])
def test_a_hosted_set_says_which_bands_it_wants(
    hosted: FileServer, tmp_path: Path, progress: Recorder, waves: tuple[float | None, ...]
) -> None:
    network = build_network("unet", "resnet18", bands=4, classes=2)
    with pytest.raises(ConfigError, match=r"want 13 bands in the order B1, B2, .*the images have 4") as caught:
        load_weights(network, "sentinel2_toa_resnet18", "resnet18", waves, progress, tmp_path)
    assert ("unknown" in str(caught.value)) == (9000.0 not in waves)
    assert hosted.asked == []  # said before anything is downloaded


def test_thirteen_bands_of_another_kind_are_not_taken_for_these(
    hosted: FileServer, tmp_path: Path, progress: Recorder
) -> None:
    network = build_network("unet", "resnet18", bands=13, classes=2)
    with pytest.raises(ConfigError, match="want 13 bands"):
        load_weights(network, "sentinel2_toa_resnet18", "resnet18", (9000.0,) * 13, progress, tmp_path)


def test_a_file_put_into_the_cache_by_hand_is_enough(
    hosted: FileServer, tmp_path: Path, progress: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (name,) = hosted.files
    (tmp_path / name).write_bytes(hosted.files[name])
    monkeypatch.setenv("SPECDEEPMAP_CACHE", str(tmp_path))
    network = build_network("unet", "resnet18", bands=13, classes=2)
    assert load_weights(network, "sentinel2_toa_resnet18", "resnet18", (), progress).share == 1.0
    assert hosted.asked == []


def test_a_file_known_by_its_name_finds_its_bands(sentinel: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / WEIGHTS["sentinel2_toa_resnet18"].file_name
    torch.save(sentinel, path)
    network = build_network("unet", "resnet18", bands=12, classes=2)
    assert loaded(load_weights_file(network, path, LEVEL_2A)) == (1.0, True)
    assert torch.equal(first_layer(network)[:, 10], sentinel["conv1.weight"][:, 11])
    unknown = path.rename(tmp_path / "unknown.pth")
    load_weights_file(network, unknown, LEVEL_2A)
    assert torch.allclose(first_layer(network), spread_over_bands(sentinel["conv1.weight"], 12))


def test_a_checkpoint_of_ours_knows_its_bands(pretrained: Network, tmp_path: Path) -> None:
    state = {f"network.model.encoder.{name}": tensor for name, tensor in encoder_state(pretrained).items()}
    card = {"wavelengths_nm": [842.0, None, 490.0]}
    torch.save({"state_dict": state, "specdeepmap": card}, tmp_path / "00001-val_iou_0.5.ckpt")
    network = build_network("unet", TINY, bands=4, classes=2)
    result = load_weights_file(network, tmp_path / "00001-val_iou_0.5.ckpt", (490.0, 560.0, 842.0, 1610.0))
    assert loaded(result) == (1.0, True)
    assert torch.equal(first_layer(network)[:, [2, 0]], first_layer(pretrained)[:, [0, 2]])
    assert not first_layer(network)[:, [1, 3]].any()


@pytest.fixture
def photographs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Give weights of the test's making where the libraries would download some."""
    import segmentation_models_pytorch as smp

    real = smp.encoders.get_encoder
    given: dict[str, Tensor] = {}

    def get_encoder(name: str, in_channels: int = 3, weights: Any = None) -> Any:
        assert in_channels == 3 and weights == (True if name.startswith("tu-") else "imagenet")
        torch.manual_seed(6)
        encoder = real(name, in_channels=3, weights=None)
        given.update(encoder.state_dict())
        return encoder

    monkeypatch.setattr(smp.encoders, "get_encoder", get_encoder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # so that its server is not asked
    return given


@pytest.mark.parametrize("backbone", ["resnet18", TINY, "mobileone_s0"])
def test_photographs_go_to_red_green_and_blue(photographs: dict[str, Tensor], backbone: str) -> None:
    network = build_network("unet", backbone, bands=13, classes=2)
    assert loaded(load_weights(network, "imagenet", backbone, SENTINEL, Recorder())) == (1.0, True)
    state = encoder_state(network)
    adapted = [name for name, tensor in photographs.items() if tensor.shape != state[name].shape]
    assert adapted
    for name, tensor in photographs.items():
        if name in adapted:
            assert torch.equal(state[name][:, [3, 2, 1]], tensor)
            assert not state[name][:, [0, *range(4, 13)]].any()
        else:
            assert torch.equal(state[name], tensor)


@pytest.mark.parametrize("bands", [1, 2, 3, 7, 500])
def test_photographs_on_bands_without_wavelengths(photographs: dict[str, Tensor], bands: int) -> None:
    network = build_network("unet", TINY, bands=bands, classes=2)
    assert loaded(load_weights(network, "imagenet", TINY, (None,) * bands, Recorder())) == (1.0, bands != 3)
    known = next(tensor for tensor in photographs.values() if tensor.ndim == 4)
    assert torch.allclose(first_layer(network), spread_over_bands(known, bands))


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the internet away, and what was downloaded before."""

    def no_name(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("SPECDEEPMAP_CACHE", str(tmp_path / "ours"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("backbone", ["resnet18", "tu-resnet18", "mit_b0"])
def test_without_internet_the_message_names_the_way_out(backbone: str, progress: Recorder) -> None:
    network = build_network("unet", backbone, bands=4, classes=2)
    started = time.monotonic()
    with pytest.raises(ConfigError, match="WEIGHTS_FILE") as caught:
        load_weights(network, "imagenet", backbone, (), progress)
    assert "internet" in str(caught.value) and backbone in str(caught.value)
    assert time.monotonic() - started < 5


@pytest.mark.usefixtures("offline")
def test_without_internet_a_hosted_set_names_file_and_folder(tmp_path: Path, progress: Recorder) -> None:
    network = build_network("unet", "resnet18", bands=13, classes=2)
    with pytest.raises(ConfigError, match="WEIGHTS_FILE") as caught:
        load_weights(network, "sentinel2_toa_resnet18", "resnet18", (), progress)
    for part in (WEIGHTS["sentinel2_toa_resnet18"].url or "", str(tmp_path / "ours"), "name resolution"):
        assert part in str(caught.value)


def test_cancel_does_not_wait_for_the_libraries(monkeypatch: pytest.MonkeyPatch, progress: Recorder) -> None:
    import segmentation_models_pytorch as smp

    network = build_network("unet", TINY, bands=3, classes=2)
    done = threading.Event()

    def slow(*_: Any, **__: Any) -> Any:
        progress.cancel()
        done.wait(20)

    monkeypatch.setattr(smp.encoders, "get_encoder", slow)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    started = time.monotonic()
    with pytest.raises(Canceled):
        load_weights(network, "imagenet", TINY, (), progress)
    assert time.monotonic() - started < 2
    done.set()
