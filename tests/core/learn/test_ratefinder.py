# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the learning-rate finder: what it finds is of use, and it leaves no trace."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from specdeepmap.core.errors import Canceled, DatasetError
from specdeepmap.core.learn import ratefinder
from specdeepmap.core.learn.architectures import build_network
from specdeepmap.core.learn.hardware import Hardware
from specdeepmap.core.learn.loader import Loader, Order
from specdeepmap.core.learn.network import Network
from specdeepmap.core.learn.ratefinder import HIGHEST, LOWEST, STEPS, find_rate
from tests.chips import TINY
from tests.helpers import Recorder
from tests.trainings import BANDS, CLASSES, PROCESSOR, Samples, changed, fit_samples, samples, small_segmenter, state

pytestmark = pytest.mark.torch


def loader_of(chips: Samples, batch_size: int = 4) -> Loader:
    return Loader(chips, Order(len(chips), batch_size, 7))  # type: ignore[arg-type]


def hidden_layer(seed: int = 5) -> Network:
    """A network of a hidden layer: it neither learns at any rate nor forgives every one."""
    torch.manual_seed(seed)
    return Network(nn.Sequential(nn.Conv2d(2, 32, 1), nn.Tanh(), nn.Conv2d(32, CLASSES, 1)), 1)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_rate_found_trains_better_than_rates_far_from_it(optimizer: str, tmp_path: Path) -> None:
    chips = samples(12, unlabelled=0)
    network = hidden_layer()
    settings = {"optimizer": optimizer, "weight_decay": 0.0}
    rate = find_rate(small_segmenter(network, **settings), loader_of(chips), PROCESSOR, Recorder())
    assert LOWEST < rate < HIGHEST
    losses = []
    for factor in (0.01, 1, 100):
        segmenter = small_segmenter(copy.deepcopy(network), learning_rate=factor * rate, **settings)
        fit_samples(segmenter, tmp_path, chips, chips, epochs=8)
        losses.append(segmenter.validation_tally.loss)
    slow, good, fast = (math.inf if math.isnan(loss) else loss for loss in losses)
    assert good < 0.95 * slow and good < fast


def test_a_training_at_the_rate_found_never_does_worse_than_guessing(tmp_path: Path) -> None:
    """In a deep network of few chips running statistics are far off at rates that the growing one passes well.

    A rate that was not tried out from the first step on gave three times the loss of guessing.
    """
    torch.manual_seed(1)
    network = build_network("unet", TINY, BANDS, CLASSES)
    chips = samples(10, size=32)
    rate = find_rate(small_segmenter(network), loader_of(chips), PROCESSOR, Recorder())
    segmenter = small_segmenter(network, learning_rate=rate)
    for epoch in range(3):
        fit_samples(segmenter, tmp_path / str(epoch), chips, chips)
        assert segmenter.validation_tally.loss < 1.5 * math.log(CLASSES)


def test_the_rate_has_two_digits_and_is_the_same_each_time() -> None:
    rates = {find_rate(small_segmenter(), loader_of(samples(9)), PROCESSOR, Recorder()) for _ in range(2)}
    (rate,) = rates
    assert rate == float(f"{rate:.2g}")


class Noise:
    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, random: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return images + torch.randn(images.shape, generator=random), labels


def test_the_segmenter_and_its_training_are_as_without_the_search(tmp_path: Path) -> None:
    chips, ends = samples(9), []
    for searched in (True, False):
        segmenter = small_segmenter(augment=Noise())
        if searched:
            before, modes = state(segmenter.network), [module.training for module in segmenter.network.modules()]
            chip_before = [image.clone() for image, _ in chips]
            find_rate(segmenter, loader_of(chips), PROCESSOR, Recorder())
            assert not changed(before, segmenter.network)
            assert [module.training for module in segmenter.network.modules()] == modes
            assert all(parameter.grad is None for parameter in segmenter.network.parameters())
            assert all(torch.equal(image, old) for (image, _), old in zip(chips, chip_before, strict=True))
        fit_samples(segmenter, tmp_path / str(searched), chips, samples(3, seed=4), epochs=2)
        ends.append(state(segmenter.network))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_what_is_frozen_stays_frozen() -> None:
    segmenter = small_segmenter()
    for parameter in segmenter.network.model[0].parameters():
        parameter.requires_grad_(False)
    assert find_rate(segmenter, loader_of(samples(4)), PROCESSOR, Recorder()) > 0


@pytest.mark.parametrize("count", [1, 3])
def test_few_chips_are_gone_through_again_and_again(count: int) -> None:
    progress, loader = Recorder(), loader_of(samples(count))
    find_rate(small_segmenter(), loader, PROCESSOR, progress)
    assert progress.checks > STEPS and loader.epoch > 20
    assert progress.shares == sorted(progress.shares) and 0.2 < progress.shares[-1] <= 1


def test_the_loss_of_batches_without_labels_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratefinder, "STEPS", 60)
    chips = [pair for chip, empty in zip(samples(6), samples(6, unlabelled=1.0), strict=True) for pair in (chip, empty)]
    rate = find_rate(small_segmenter(), loader_of(chips, batch_size=1), PROCESSOR, Recorder())
    assert LOWEST < rate < HIGHEST


def test_without_a_label_there_is_nothing_to_find() -> None:
    with pytest.raises(DatasetError, match="LR_FINDER: no training chip has a labelled pixel"):
        find_rate(small_segmenter(), loader_of(samples(5, unlabelled=1.0)), PROCESSOR, Recorder())


@pytest.mark.parametrize("cancel_at", [1, 7])
def test_cancel_is_heard_at_each_step(cancel_at: int) -> None:
    progress = Recorder(cancel_at)
    with pytest.raises(Canceled):
        find_rate(small_segmenter(), loader_of(samples(5)), PROCESSOR, progress)
    assert len(progress.shares) == cancel_at - 1
    assert not progress.shares or progress.shares[-1] == pytest.approx((cancel_at - 1) / STEPS / 2)


def test_it_searches_in_the_precision_of_the_training() -> None:
    kinds = set()
    segmenter = small_segmenter()
    segmenter.network.model[0].register_forward_hook(lambda module, images, out: kinds.add(out.dtype))
    find_rate(segmenter, loader_of(samples(4)), Hardware(torch.device("cpu"), "bfloat16"), Recorder())
    assert kinds == {torch.bfloat16}
