# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the spectral network: compact, and as good as a linear discriminant before it has learnt anything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from specdeepmap.core.learn.baselines import LinearClassifier
from specdeepmap.core.learn.spectral import COMPONENTS, DROPOUT, SpectralNetwork
from tests.helpers import Array

pytestmark = pytest.mark.torch


def network(bands: int = 5, classes: int = 3, seed: int = 1) -> SpectralNetwork:
    torch.manual_seed(seed)
    return SpectralNetwork(bands, classes)


def pixels_of(classes: int, bands: int, count: int = 400) -> tuple[Array, Array]:
    """Make pixels ``(pixels, bands)`` of classes that overlap, with correlated noise."""
    random = np.random.default_rng(4)
    indices = random.integers(0, classes, count).astype(np.uint8)
    centers, mixing = random.normal(size=(classes, bands)), random.normal(size=(bands, bands))
    return (centers[indices] + random.normal(size=(count, bands)) @ mixing).astype(np.float32), indices


def classifier_of(pixels: Array, indices: Array, classes: int) -> LinearClassifier:
    classifier = LinearClassifier(classes)
    classifier.add(pixels, indices)
    return classifier


def as_image(pixels: Array) -> Tensor:
    """Lay pixels ``(pixels, bands)`` out as one image ``(1, bands, rows, 20)``."""
    return torch.from_numpy(np.ascontiguousarray(pixels.T)).reshape(1, pixels.shape[1], -1, 20)


@pytest.mark.parametrize(("bands", "classes"), [(3, 2), (218, 12), (500, 20)])
def test_it_is_compact(bands: int, classes: int) -> None:
    assert (
        sum(parameter.numel() for parameter in network(bands, classes).parameters()) < 250_000
    )  # a U-Net with resnet18 has 14 million


@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_any_size(height: int, width: int) -> None:
    logits = network().eval()(torch.randn(2, 5, height, width))
    assert logits.shape == (2, 3, height, width) and torch.isfinite(logits).all()


@pytest.mark.parametrize("bands", [2, 7, 60])
def test_it_starts_as_the_linear_discriminant(bands: int) -> None:
    pixels, indices = pixels_of(4, bands)
    classifier = classifier_of(pixels, indices, 4)
    found, images = network(bands, 4), as_image(pixels)
    assert found.start_from(classifier)
    discriminant = classifier.fit()
    assert discriminant is not None
    for mode in (True, False):  # dropout has nothing to drop yet
        with torch.inference_mode():
            logits = found.train(mode)(images)[0].flatten(1).T.numpy()
        wanted = pixels @ discriminant.weights + discriminant.offsets
        wanted -= wanted.mean(axis=1, keepdims=True)
        assert np.allclose(logits, wanted, atol=1e-3 * np.abs(wanted).max())
    assert (logits.argmax(axis=1) == discriminant.predict(pixels)).mean() > 0.99


def test_a_class_without_a_pixel_is_never_predicted_and_can_be_learnt() -> None:
    pixels, indices = pixels_of(2, 5)
    found = network(5, 4)
    assert found.start_from(classifier_of(pixels, indices, 4))
    logits = found(as_image(pixels))
    assert torch.isfinite(logits).all() and int(logits.argmax(dim=1).max()) < 2
    nn.functional.cross_entropy(logits, torch.full(logits.shape[:1] + logits.shape[2:], 3)).backward()
    assert found.segmentation_head.linear.bias.grad[3] < 0


@given(value=st.floats(-1e4, 1e4), tilt=st.floats(-1e3, 1e3))
def test_nor_is_it_predicted_far_from_all_training_pixels(value: float, tilt: float) -> None:
    pixels, indices = pixels_of(2, 5)
    found = network(5, 4)
    assert found.start_from(classifier_of(pixels + 5, indices, 4))
    images = (value + tilt * torch.linspace(-1, 1, 5))[None, :, None, None].expand(1, 5, 8, 8)
    assert int(found.eval()(images).argmax(dim=1).max()) < 2


def test_its_components_are_uncorrelated_and_of_spread_1() -> None:
    pixels, indices = pixels_of(3, 60, count=2000)
    found = network(60)
    assert found.start_from(classifier_of(pixels, indices, 3))
    with torch.inference_mode():
        components = found.components(as_image(pixels))[0].flatten(1).double()
    assert components.shape[0] == COMPONENTS
    assert components.mean(dim=1).abs().max() < 1e-3
    assert torch.allclose(torch.cov(components), torch.eye(COMPONENTS, dtype=torch.float64), atol=0.02)


def test_bands_without_any_spread_do_no_harm() -> None:
    pixels, indices = pixels_of(3, 6)
    pixels[:, 2] = 0  # a bad band
    pixels[:, 4] = pixels[:, 3]
    found = network(6)
    assert found.start_from(classifier_of(pixels, indices, 3))
    assert torch.isfinite(found(as_image(pixels))).all()


@pytest.mark.parametrize("classes", [0, 1])
def test_without_two_classes_it_starts_as_any_network(classes: int) -> None:
    classifier = LinearClassifier(3)
    if classes:
        classifier.add(*pixels_of(classes, 5))
    found, other = network(), network()
    assert not found.start_from(classifier)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in found.state_dict().items())


def test_neighbours_count_once_something_is_learnt() -> None:
    found, images = network().eval(), torch.randn(1, 5, 32, 32)
    other = images.clone()
    other[:, :, 16, 16] += 3
    with torch.inference_mode():
        assert int((found(images) != found(other)).any(dim=1).sum()) == 1  # itself alone
        nn.init.normal_(found.segmentation_head.refinement.weight)
        touched = (found(images) != found(other)).any(dim=1)[0]
    assert touched[15:18, 15:18].all()


def test_the_border_is_no_place_of_its_own() -> None:
    """On an image of one colour all pixels get the same logits, those at the border, too."""
    found = network().eval()
    nn.init.normal_(found.segmentation_head.refinement.weight)
    with torch.inference_mode():
        logits = found(torch.randn(1, 5, 1, 1).expand(1, 5, 12, 20))
    assert torch.allclose(logits, logits[..., :1, :1].expand_as(logits), atol=1e-4)


def test_every_part_is_trained() -> None:
    found = network()
    optimizer = torch.optim.SGD(found.parameters(), lr=0.1)
    for _ in range(2):  # what lies before the refinement, which starts at 0, moves from the second step on
        optimizer.zero_grad()
        found(torch.randn(4, 5, 8, 8)).square().mean().backward()
        optimizer.step()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in found.parameters())


def test_whole_channels_are_dropped_in_training_only() -> None:
    found, images = network(), torch.randn(40, 5, 4, 4)
    dropouts = [module for module in found.modules() if isinstance(module, nn.Dropout2d)]
    assert dropouts and {module.p for module in dropouts} == {DROPOUT}
    nn.init.normal_(found.segmentation_head.refinement.weight)
    assert not torch.equal(found(images), found(images))
    found.eval()
    assert torch.equal(found(images), found(images))
