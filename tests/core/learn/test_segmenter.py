# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the network in training: what is counted, what is frozen, what is learnt."""

from __future__ import annotations

from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from specdeepmap.core.data.classes import IGNORE_INDEX
from specdeepmap.core.data.scores import Scores
from specdeepmap.core.learn.architectures import ARCHITECTURES, build_network
from specdeepmap.core.learn.checkpoint import load_checkpoint
from specdeepmap.core.learn.losses import CrossEntropy
from specdeepmap.core.learn.network import Network, first_convolution
from specdeepmap.core.learn.segmenter import Recipe, Segmenter, Tally
from tests.chips import TINY

pytestmark = pytest.mark.torch


def batches(bands: int = 3) -> list[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(6)
    return [
        (
            1 + 2 * torch.randn(4, bands, 32, 32, generator=random),
            torch.randint(7, (4, 32, 32), generator=random).to(torch.uint8),
        )
        for _ in range(3)
    ]


def fit(
    network: Network, checkpoint: Path, bands: int = 3, scheduler: str = "constant", validating: bool = True
) -> Segmenter:
    """Train one epoch, with validation."""
    card, _ = load_checkpoint(checkpoint)
    segmenter = Segmenter(network, card, None, Recipe("adam", 0.01, 0.0, scheduler))
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        num_sanity_val_steps=0,
        limit_val_batches=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(batches(bands), batch_size=None)  # type: ignore[arg-type]
    trainer.fit(segmenter, loader, loader if validating else None)
    return segmenter


def state(network: Network) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def changed(before: dict[str, Tensor], network: Network) -> set[str]:
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_pooled_scores_and_loss_do_not_depend_on_the_batch_size(size: int) -> None:
    random = torch.Generator().manual_seed(2)
    logits = torch.randn(12, 3, 6, 5, generator=random)
    labels = torch.randint(3, (12, 6, 5), generator=random)
    labels[torch.rand(12, 6, 5, generator=random) < 0.4] = IGNORE_INDEX
    labels[:4] = IGNORE_INDEX
    criterion = CrossEntropy(torch.tensor([1.0, 2.0, 0.5]))
    tally = Tally(3)
    for start in range(0, 12, size):
        part = slice(start, start + size)
        tally.add(*criterion.parts(logits[part], labels[part]), logits[part], labels[part])
    wanted = Scores.of(labels.numpy().astype(np.uint8), logits.argmax(1).numpy().astype(np.uint8), 3)
    assert np.array_equal(tally.scores.matrix, wanted.matrix)
    assert tally.loss == pytest.approx(criterion(logits, labels).item(), rel=1e-6)
    tally.reset()
    assert np.isnan(tally.loss) and tally.scores.matrix.sum() == 0


def test_validation_counts_what_the_network_says_in_evaluation_mode(checkpoint: Path) -> None:
    network = build_network("unet", TINY, bands=3, classes=7)
    segmenter = fit(network, checkpoint)
    images, labels = batches()[0]
    with torch.inference_mode():
        logits = network.eval()(images)
    wanted = Scores.of(labels.numpy(), logits.argmax(1).numpy().astype(np.uint8), 7)
    assert np.array_equal(segmenter.validation_tally.scores.matrix, wanted.matrix)
    assert segmenter.train_tally.scores.matrix.sum() == 12 * 32 * 32


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_frozen_backbone_does_not_drift(architecture: str, checkpoint: Path) -> None:
    network = build_network(architecture, TINY, bands=3, classes=7)
    network.freeze_encoder(first_layer=True)
    before = state(network)
    fit(network, checkpoint)
    moved = changed(before, network)
    assert any("running_mean" in name for name in before if name.startswith("model.encoder."))
    assert moved and not any(name.startswith("model.encoder.") for name in moved)


def test_adapted_first_layer_is_trained_and_nothing_else_of_the_backbone(checkpoint: Path) -> None:
    network = build_network("unet", TINY, bands=5, classes=7)
    network.freeze_encoder(first_layer=False)
    before = state(network)
    fit(network, checkpoint, bands=5)
    first = next(name for name, module in network.named_modules() if module is first_convolution(network.encoder))
    assert {name for name in changed(before, network) if name.startswith("model.encoder.")} == {f"{first}.weight"}


def test_free_backbone_is_trained_with_its_statistics(checkpoint: Path) -> None:
    network = build_network("unet", TINY, bands=3, classes=7)
    total, trained = network.parameter_counts()
    assert total == trained
    before = state(network)
    fit(network, checkpoint)
    moved = changed(before, network)
    assert any(name.endswith("running_mean") for name in moved if name.startswith("model.encoder."))
    assert {name for name, _ in network.named_parameters()} <= moved


def test_frozen_parameters_are_counted(checkpoint: Path) -> None:
    network = build_network("unet", TINY, bands=3, classes=7)
    encoder = sum(parameter.numel() for parameter in network.encoder.parameters())
    network.freeze_encoder(first_layer=True)
    total, trained = network.parameter_counts()
    assert trained == total - encoder


@pytest.mark.parametrize("scheduler", ["cosine", "one_cycle", "plateau", "constant"])
def test_every_schedule_trains(scheduler: str, checkpoint: Path) -> None:
    network = build_network("unet", TINY, bands=3, classes=7)
    before = state(network)
    fit(network, checkpoint, scheduler=scheduler)
    assert changed(before, network)


@pytest.mark.parametrize(("validating", "metric"), [(True, "val_loss"), (False, "train_loss")])
def test_plateau_follows_the_validation_loss_where_there_is_one(
    validating: bool, metric: str, checkpoint: Path
) -> None:
    network = build_network("unet", TINY, bands=3, classes=7)
    segmenter = fit(network, checkpoint, scheduler="plateau", validating=validating)
    (config,) = segmenter.trainer.lr_scheduler_configs
    tally = segmenter.validation_tally if validating else segmenter.train_tally
    assert config.monitor == metric
    assert config.scheduler.best == pytest.approx(tally.loss, rel=1e-5)
