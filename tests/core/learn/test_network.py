# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of a network for chips of any size: padding, and a backbone that is frozen."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from specdeepmap.core.learn.architectures import build_network
from specdeepmap.core.learn.network import Network, band_layers, first_convolution
from tests.chips import TINY
from tests.trainings import changed, state

pytestmark = pytest.mark.torch


class Picky(nn.Module):
    """Takes sides that are multiples of the stride and not too small, and gives its input back."""

    def __init__(self, stride: int, minimum: int) -> None:
        super().__init__()
        self.stride, self.minimum = stride, minimum
        self.seen: tuple[int, int] = (0, 0)

    def forward(self, images: Tensor) -> Tensor:
        self.seen = (images.shape[-2], images.shape[-1])
        assert all(side % self.stride == 0 and side >= self.minimum for side in self.seen)
        return images


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    stride_minimum=st.sampled_from([(1, 0), (4, 0), (32, 0), (32, 64), (16, 48)]),
)
def test_chips_of_any_size_come_back_pixel_by_pixel(height: int, width: int, stride_minimum: tuple[int, int]) -> None:
    stride, minimum = stride_minimum
    network = Network(Picky(stride, minimum), stride, minimum)
    images = torch.arange(2 * height * width, dtype=torch.float32).reshape(2, 1, height, width)
    assert torch.equal(network(images), images)
    for seen, side in zip(network.model.seen, (height, width), strict=True):
        assert seen == max(side + -side % stride, minimum)  # not a pixel more than needed


def test_padding_repeats_the_border_and_adds_no_dark_edge() -> None:
    class Least(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images * 0 + images.amin()

    assert (Network(Least(), 32)(torch.full((1, 1, 20, 30), 5.0)) == 5).all()


def with_dropout() -> Network:
    """Build a network whose backbone leaves out whole branches by chance, and has batch normalisation."""
    network = build_network("unet", TINY, bands=3, classes=2)
    for name, module in list(network.encoder.named_modules()):  # type: ignore[union-attr]
        if isinstance(module, nn.ReLU) and "." in name:
            parent = network.encoder.get_submodule(name.rpartition(".")[0])  # type: ignore[union-attr]
            setattr(parent, name.rpartition(".")[2], nn.Sequential(nn.ReLU(), nn.Dropout(0.5)))
    return network


def training_modes(network: Network) -> set[bool]:
    return {module.training for module in network.encoder.modules()}  # type: ignore[union-attr]


def test_frozen_backbone_drops_nothing_by_chance_and_keeps_its_statistics() -> None:
    torch.manual_seed(2)
    network, images = with_dropout(), torch.randn(2, 3, 32, 32)
    assert not torch.equal(network.encoder(images)[-1], network.encoder(images)[-1])  # type: ignore[misc]
    network.freeze_encoder(first_layer=True)
    before = state(network.encoder)  # type: ignore[arg-type]
    for mode in (False, True, False):
        network.train(mode)
        assert torch.equal(network.encoder(images)[-1], network.encoder(images)[-1])  # type: ignore[misc]
        assert training_modes(network) == {False}
        assert network.model.decoder.training == mode
    assert not changed(before, network.encoder)  # type: ignore[arg-type]
    assert not any(parameter.requires_grad for parameter in network.encoder.parameters())  # type: ignore[union-attr]


@pytest.mark.parametrize("training", [True, False])
def test_unfrozen_backbone_is_trained_as_a_whole(training: bool) -> None:
    network = with_dropout()
    network.freeze_encoder(first_layer=False)
    network.train(training)
    network.unfreeze_encoder()
    assert training_modes(network) == {training}
    assert all(parameter.requires_grad for parameter in network.parameters())
    network.train()
    assert training_modes(network) == {True}


def test_first_layer_can_stay_free() -> None:
    network = build_network("unet", TINY, bands=5, classes=2)
    network.freeze_encoder(first_layer=False)
    encoder = network.encoder
    assert encoder is not None
    free = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    assert free == [first_convolution(encoder).weight] and free[0].shape[1] == 5


def test_parameters_are_counted() -> None:
    network = build_network("unet", TINY, bands=3, classes=7)
    total, trained = network.parameter_counts()
    assert total == trained == sum(parameter.numel() for parameter in network.parameters())
    encoder = sum(parameter.numel() for parameter in network.encoder.parameters())  # type: ignore[union-attr]
    network.freeze_encoder(first_layer=True)
    assert network.parameter_counts() == (total, total - encoder)


@pytest.mark.parametrize("architecture", ["spectral", "justo_unet_simple"])
def test_without_a_backbone_there_is_nothing_to_freeze(architecture: str) -> None:
    network = build_network(architecture, "", bands=3, classes=2)
    assert network.encoder is None
    network.freeze_encoder(first_layer=True)
    network.unfreeze_encoder()
    total, trained = network.parameter_counts()
    assert total == trained


@pytest.mark.parametrize("architecture", ["unet", "segformer", "deeplabv3plus", "spectral", "justo_unet_simple"])
def test_the_head_is_what_depends_on_the_number_of_classes(architecture: str) -> None:
    few, many = (build_network(architecture, TINY, bands=3, classes=classes).state_dict() for classes in (2, 9))
    network = build_network(architecture, TINY, bands=3, classes=2)
    differing = {name for name in few if few[name].shape != many[name].shape}
    assert differing and all(network.is_head(name) for name in differing)
    assert any(not network.is_head(name) for name in few)


def test_first_convolution() -> None:
    encoder = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)))
    assert first_convolution(encoder).out_channels == 4
    with pytest.raises(TypeError, match="Linear has no convolution"):
        first_convolution(nn.Linear(2, 2))


def test_all_layers_that_see_the_bands_are_found() -> None:
    alone = build_network("unet", "resnet18", 5, 2)
    assert [layer.in_channels for layer in band_layers(alone.encoder, 64)] == [5]  # type: ignore[arg-type]
    several = build_network("unet", "mobileone_s0", 5, 2)
    modes = [module.training for module in several.modules()]
    several.freeze_encoder(first_layer=False)
    seen = {name for name, layer in several.encoder.named_modules() if getattr(layer, "in_channels", 0) == 5}  # type: ignore[union-attr]
    trained = {
        name.rpartition(".")[0]
        for name, parameter in several.encoder.named_parameters()  # type: ignore[union-attr]
        if parameter.requires_grad
    }
    assert len(seen) > 1 and trained == seen
    several.unfreeze_encoder()
    assert [module.training for module in several.modules()] == modes


@pytest.mark.parametrize("backbone", ["mobileone_s0", "tu-repvgg_a0"])
def test_strided_convolutions_of_single_pixels_are_trained_in_a_layout_that_holds(backbone: str) -> None:
    """With channels last, their backward pass on a processor overwrites the heap: so in a process of its own."""
    program = (
        "import sys, torch\n"
        "from specdeepmap.core.learn.architectures import build_network\n"
        "torch.manual_seed(0)\n"
        "network = build_network('unet', sys.argv[1], 4, 3).train()\n"
        "network.to(memory_format=network.layout)\n"
        "for step in range(3):\n"
        "    images = torch.randn(8, 4, 64, 64).contiguous(memory_format=network.layout)\n"
        "    network(images).sum().backward()\n"
        "print('done', network.layout)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, backbone], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "done torch.contiguous_format" in done.stdout, done.stderr


def test_other_networks_are_trained_with_channels_last() -> None:
    assert build_network("unet", "resnet18", bands=4, classes=3).layout == torch.channels_last
    assert build_network("unet", "mobileone_s0", bands=8, classes=3).layout == torch.channels_last
