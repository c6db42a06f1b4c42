# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the networks: every design takes every encoder, band count and chip size that it says it takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from specdeepmap.core.data.scores import Scores
from specdeepmap.core.errors import ConfigError
from specdeepmap.core.learn.architectures import (
    ARCHITECTURES,
    AUTO,
    SPARSE_PIXELS,
    USUAL_BACKBONES,
    build_network,
    check_backbone,
    choose_architecture,
)
from specdeepmap.core.learn.network import Network
from tests.chips import TINY

pytestmark = pytest.mark.torch

TINY_VIT = "tu-test_vit"
BACKBONES = ("resnet18", "mobilenet_v2", "tu-resnet18")
SIZES = ((33, 47), (8, 8), (1, 70), (64, 64))
WITH_BACKBONE = [name for name, design in ARCHITECTURES.items() if design.has_backbone and name != "dpt"]


def tiny(architecture: str, bands: int, classes: int, seed: int = 1) -> Network:
    """Build a network with the smallest encoder that fits."""
    torch.manual_seed(seed)
    return build_network(architecture, TINY_VIT if architecture == "dpt" else TINY, bands, classes)


@pytest.mark.parametrize("bands", [1, 3, 7, 218])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_any_band_count_and_chip_size(architecture: str, bands: int) -> None:
    network = tiny(architecture, bands, classes=4).eval()
    with torch.inference_mode():
        for height, width in SIZES[: 4 if bands == 3 else 1]:
            logits = network(torch.randn(2, bands, height, width))
            assert logits.shape == (2, 4, height, width)
            assert torch.isfinite(logits).all()


def test_five_hundred_bands() -> None:
    assert tiny("unet", 500, classes=2)(torch.randn(2, 500, 20, 20)).shape == (2, 2, 20, 20)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("architecture", WITH_BACKBONE)
def test_usual_backbones_go_with_every_design_but_dpt(architecture: str, backbone: str) -> None:
    network = build_network(architecture, backbone, bands=5, classes=4).eval()
    with torch.inference_mode():
        assert network(torch.randn(1, 5, 40, 56)).shape == (1, 4, 40, 56)


def head_of(network: Network) -> nn.Parameter:
    """Give the bias of the very last layer."""
    layers = [layer for layer in network.model.segmentation_head.modules() if getattr(layer, "bias", None) is not None]
    return layers[-1].bias  # type: ignore[return-value]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_are_raw(architecture: str) -> None:
    network = tiny(architecture, bands=1, classes=3).eval()
    image = 3 * torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        before = network(image)
        head_of(network).add_(torch.tensor([-7.0, 0.0, 2.0]))
        after = network(image)
    for index, shift in enumerate((-7.0, 0.0, 2.0)):  # an activation would bend what is added
        assert torch.allclose(after[:, index], before[:, index] + shift, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_can_be_trained_on(architecture: str) -> None:
    network = tiny(architecture, bands=3, classes=2)
    assert all(module.training for module in network.modules())
    network(torch.randn(2, 3, 16, 24)).square().sum().backward()
    lacking = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    # Some decoders leave a part of their encoder out; the training of several processes is told so.
    assert not any(network.is_head(name) for name in lacking)
    assert not lacking or architecture in USES_A_PART


USES_A_PART = ("segformer", "fpn", "pspnet", "deeplabv3", "upernet", "dpt")


def four_chips() -> tuple[Tensor, Tensor]:
    """Make four chips of three classes that lie otherwise in each: ``(4, 3, 32, 32)`` and labels."""
    side = torch.arange(32) // 16
    below, right = side[:, None].expand(32, 32), side[None].expand(32, 32)
    labels = torch.stack([below, 2 * right, 1 + below, torch.where(below == 1, right, 2)])
    noise = 0.1 * torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    images = torch.stack([labels - 1.0, (labels == 1).float(), torch.zeros(4, 32, 32)], dim=1)
    return images + noise, labels


def mean_iou(network: Network, images: Tensor, labels: Tensor) -> float:
    network.eval()
    with torch.inference_mode():
        predicted = network(images).argmax(dim=1)
    network.train()
    return Scores.of(labels.numpy().astype(np.uint8), predicted.numpy().astype(np.uint8), 3).mean_iou


NARROW: dict[str, dict[str, Any]] = {
    "upernet": {"decoder_channels": 64},
    "dpt": {"decoder_intermediate_channels": (32, 32, 64, 64), "decoder_fusion_channels": 64},
}
"""Fewer channels for decoders that take long."""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_overfits_four_chips(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot learn four chips by heart has a wrong head, a wrong loss, or logits that are none."""
    design = ARCHITECTURES[architecture]
    settings = {**design.settings, **NARROW.get(architecture, {})}
    monkeypatch.setitem(ARCHITECTURES, architecture, replace(design, settings=settings))
    images, labels = four_chips()
    network = tiny(architecture, bands=3, classes=3)
    rate, warm_up, reached = (1e-3 if architecture == "dpt" else 5e-3), 10, 0.0
    assert mean_iou(network, images, labels) < 0.8
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    for step in range(1, 121):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(step / warm_up, 1.0)
        optimizer.zero_grad()
        functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        if step % 10 == 0 and step >= 20:
            reached = mean_iou(network, images, labels)
            if reached > 0.95:
                return
    raise AssertionError(f"mean IoU {reached:.3f}")


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


@pytest.mark.parametrize("architecture", ["spectral", "justo_unet_simple"])
def test_designs_of_ours_do_not_look_at_the_backbone(architecture: str) -> None:
    build_network(architecture, "does not exist", bands=3, classes=2)
    assert not ARCHITECTURES[architecture].has_backbone


@pytest.mark.parametrize(
    ("architecture", "backbone", "reason", "offers"),
    [
        ("unetplusplus", "mit_b0", "half the image's resolution", ("resnet18", "efficientnet-b0")),
        ("unetplusplus", "mit_b2", "half the image's resolution", ("resnet18", "efficientnet-b0")),
        ("linknet", "mit_b0", "half the image's resolution", ("resnet18", "efficientnet-b0")),
        ("unet", "tu-vit_tiny_patch16_224", "", ("resnet18", "efficientnet-b0")),
        ("dpt", "resnet18", "", ("tu-vit_tiny_patch16_224", "tu-deit_tiny_patch16_224")),
        ("dpt", "tu-resnet18", "", ("tu-vit_tiny_patch16_224", "tu-deit_tiny_patch16_224")),
    ],
)
def test_what_does_not_go_together_is_refused_with_a_reason_and_advice_that_works(
    architecture: str, backbone: str, reason: str, offers: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        build_network(architecture, backbone, bands=3, classes=2)
    text = str(caught.value)
    start = f"ARCHITECTURE {architecture} does not work with BACKBONE {backbone}: "
    assert text.startswith(start) and text.endswith(".") and ".." not in text
    assert reason in text and len(text.removeprefix(start).split(". ")[0]) > 10
    for offer in offers:
        assert offer in text
        assert build_network(architecture, offer, bands=3, classes=2).training


@pytest.mark.parametrize(
    ("labelled", "backbone", "wanted"),
    [
        (0, False, "spectral"),
        (SPARSE_PIXELS - 1, False, "spectral"),
        (SPARSE_PIXELS, False, "unet"),
        (10**9, False, "unet"),
        (0, True, "unet"),
        (10**9, True, "unet"),
    ],
)
@pytest.mark.parametrize(("bands", "chip_size"), [(3, 32), (218, 256)])
def test_the_design_is_chosen_by_what_there_is_to_learn_from(
    labelled: int, backbone: bool, wanted: str, bands: int, chip_size: int
) -> None:
    name, why = choose_architecture(bands, chip_size, labelled, backbone)
    assert name == wanted and name in ARCHITECTURES
    assert "backbone" in why if backbone else f"{labelled:,}" in why


def test_auto_is_no_design() -> None:
    assert AUTO not in ARCHITECTURES
    assert all(design.title and design.source for design in ARCHITECTURES.values())
