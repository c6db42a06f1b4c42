# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the 2D-Justo-UNet-Simple against the figures of its paper."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from specdeepmap.core.learn.architectures import ARCHITECTURES
from specdeepmap.core.learn.justo import STRIDE, JustoUNetSimple

pytestmark = pytest.mark.torch


def numbers_of(network: nn.Module) -> int:
    """Count as Keras does: parameters and running statistics."""
    statistics = [value for name, value in network.named_buffers() if "running_" in name]
    return sum(value.numel() for value in (*network.parameters(), *statistics))


def test_it_has_as_many_parameters_as_in_the_paper() -> None:
    assert numbers_of(JustoUNetSimple(112, 3)) == 7641  # Justo et al. 2023, for HYPSO-1 with 112 bands and 3 classes


def test_filters_are_those_of_the_paper() -> None:
    layers = [layer for layer in JustoUNetSimple(112, 3).modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in layers] == [6, 12, 6, 3]
    assert {layer.kernel_size for layer in layers} == {(3, 3)}


def test_logits_are_raw() -> None:
    torch.manual_seed(1)
    network, images = JustoUNetSimple(7, 3), 3 * torch.randn(2, 7, 16, 24)
    logits = network(images)
    sums = logits.sum(dim=1)
    assert sums.std() > 0.1 and (sums - 1).abs().max() > 0.5 and logits.min() < 0
    with torch.inference_mode():
        network.eval()
        before = network(images)
        network.segmentation_head[1].bias += torch.tensor([-7.0, 0.0, 2.0])
        after = network(images)
    for index, shift in enumerate((-7.0, 0.0, 2.0)):  # an activation would bend what is added
        assert torch.allclose(after[:, index], before[:, index] + shift, atol=1e-4)


def test_its_stride_is_what_the_table_says() -> None:
    assert ARCHITECTURES["justo_unet_simple"].stride == STRIDE
    assert JustoUNetSimple(2, 5)(torch.randn(2, 2, 3 * STRIDE, STRIDE)).shape == (2, 5, 3 * STRIDE, STRIDE)
    assert JustoUNetSimple(2, 5)(torch.randn(2, 2, STRIDE + 1, STRIDE)).shape[-2] == STRIDE
