# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of fusion: a network that is fused says the same, and one that cannot be is left alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from specdeepmap.core.learn.architectures import build_network
from specdeepmap.core.learn.fusion import fused
from specdeepmap.core.learn.network import Network

pytestmark = pytest.mark.torch


def trained(network: Network) -> Network:
    """Give normalisations statistics as training does: fresh ones change nothing, and hide mistakes."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("architecture", "backbone"),
    [
        ("unet", "resnet18"),
        ("unet", "densenet121"),
        ("unet", "tu-resnet18"),
        ("unet", "mobilenet_v2"),
        ("deeplabv3plus", "efficientnet-b0"),
        ("segformer", "mit_b0"),
        ("spectral", ""),
        ("justo_unet_simple", ""),
    ],
)
def test_a_fused_network_says_the_same(architecture: str, backbone: str) -> None:
    network = trained(build_network(architecture, backbone, 5, 3))
    state = copy.deepcopy(network.state_dict())
    quick = fused(network, 5)
    images = torch.randn(2, 5, 64, 96)
    with torch.no_grad():
        wanted, found = network(images), quick(images)
    assert (wanted - found).abs().max() <= 1e-3 * wanted.abs().max()
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(("architecture", "backbone"), [("unet", "resnet18"), ("spectral", "")])
def test_normalisations_are_gone(architecture: str, backbone: str) -> None:
    network = trained(build_network(architecture, backbone, 5, 3))
    assert norms(network) > 0 and norms(fused(network, 5)) == 0


class Otherwise(nn.Module):
    """Declares a convolution before a normalisation that does not follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.convolution(self.norm(images))
        return logits


def test_a_network_of_another_order_is_left_alone() -> None:
    network = trained(Network(Otherwise(), 1))
    assert fused(network, 4) is network and norms(network) == 1


def test_without_normalisations_nothing_happens() -> None:
    network = Network(nn.Conv2d(4, 2, 1), 1).eval()
    assert fused(network, 4) is network
