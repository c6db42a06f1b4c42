# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the networks: every design takes every encoder, band count and chip size that it says it takes."""

from __future__ import annotations

import pytest
import torch

from specdeepmap.core.errors import ConfigError
from specdeepmap.core.learn.architectures import ARCHITECTURES, USUAL_BACKBONES, build_network, check_backbone
from tests.chips import TINY

pytestmark = pytest.mark.torch

BACKBONES = ("resnet18", "mobilenet_v2", "tu-resnet18")
SIZES = ((8, 8), (33, 33), (40, 56), (1, 70))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_any_chip_size_keeps_its_size(architecture: str, backbone: str) -> None:
    network = build_network(architecture, backbone, bands=5, classes=4).eval()
    with torch.inference_mode():
        for height, width in SIZES:
            logits = network(torch.randn(2, 5, height, width))
            assert logits.shape == (2, 4, height, width)
            assert torch.isfinite(logits).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_are_raw(architecture: str) -> None:
    network = build_network(architecture, TINY, bands=1, classes=3).eval()
    image = 3 * torch.randn(2, 1, 64, 64)
    bias = network.model.segmentation_head[0].bias
    with torch.inference_mode():
        before = network(image)
        bias += torch.tensor([-7.0, 0.0, 2.0])
        after = network(image)
    for index, shift in enumerate((-7.0, 0.0, 2.0)):  # an activation would bend what is added
        assert torch.allclose(after[:, index], before[:, index] + shift, atol=1e-4)


def test_size_by_size_the_same_as_padded_by_hand() -> None:
    network = build_network("unet", TINY, bands=2, classes=2).eval()
    image = torch.randn(1, 2, 30, 45)
    by_hand = torch.nn.functional.pad(image, (0, 19, 0, 2), mode="replicate")
    with torch.inference_mode():
        assert torch.equal(network(image), network(by_hand)[..., :30, :45])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_batch_can_be_trained_on(backbone: str) -> None:
    network = build_network("unet", backbone, bands=3, classes=2)
    assert network.training
    network(torch.randn(2, 3, 16, 24)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("backbone", USUAL_BACKBONES)
def test_suggested_backbones_exist(backbone: str) -> None:
    check_backbone(backbone)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("resnet81", "resnet18"),
        ("Resnet-50", "resnet50"),
        ("tu-resnet188", "tu-resnet18"),
        ("efficientnet_b0", "efficientnet-b0"),
    ],
)
def test_wrong_backbone_offers_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(ConfigError, match="BACKBONE") as caught:
        build_network("unet", wrong, bands=3, classes=2)
    assert wrong in str(caught.value)
    assert right in str(caught.value).split("Did you mean")[1].split("?")[0]


@pytest.mark.parametrize("backbone", ["mit_b0", "mit_b2"])
def test_unetplusplus_refuses_mix_transformers(backbone: str) -> None:
    with pytest.raises(ConfigError, match="unetplusplus") as caught:
        build_network("unetplusplus", backbone, bands=3, classes=2)
    assert backbone in str(caught.value)
    assert "Take BACKBONE resnet18" in str(caught.value)


def test_encoder_without_feature_levels_is_refused_with_advice() -> None:
    with pytest.raises(ConfigError, match="Take BACKBONE") as caught:
        build_network("unet", "tu-vit_tiny_patch16_224", bands=3, classes=2)
    assert "tu-vit_tiny_patch16_224" in str(caught.value)
