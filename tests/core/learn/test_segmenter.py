# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the network in training: what is counted, what is frozen, what is learnt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from specdeepmap.core.data.classes import IGNORE_INDEX
from specdeepmap.core.data.scores import Scores
from specdeepmap.core.learn.architectures import ARCHITECTURES, build_network
from specdeepmap.core.learn.callbacks import Journal
from specdeepmap.core.learn.criteria import CrossEntropy
from specdeepmap.core.learn.losses import LOSSES
from specdeepmap.core.learn.network import Network, first_convolution
from specdeepmap.core.learn.options import SCHEDULERS, cosine_factor
from specdeepmap.core.learn.segmenter import BACKBONE_RATE, Segmenter, Tally, has_batch_norm
from tests.chips import TINY
from tests.helpers import Recorder
from tests.trainings import CLASSES, changed, fit_samples, model_card, samples, small_network, small_segmenter, state

pytestmark = pytest.mark.torch


class Look(lightning.Callback):
    """Remembers what a training does: rates and losses per step, gradients before the optimiser takes them."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []
        self.losses: list[float] = []
        self.gradients: list[dict[str, Tensor]] = []
        self.before: list[dict[str, Tensor]] = []
        self.after_epoch: list[dict[str, Tensor]] = []
        self.autograd: list[tuple[bool, bool]] = []

    def on_train_batch_start(self, trainer: Any, segmenter: Any, *_: Any) -> None:
        self.autograd.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    def on_before_optimizer_step(self, trainer: Any, segmenter: Any, optimizer: Any) -> None:
        parameters = segmenter.network.named_parameters()
        self.gradients.append({name: p.grad.clone() for name, p in parameters if p.grad is not None})
        self.before.append(state(segmenter.network))

    def on_train_batch_end(self, trainer: Any, segmenter: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))

    def on_train_epoch_end(self, trainer: Any, segmenter: Any) -> None:
        self.after_epoch.append(state(segmenter.network))


def journal(folder: Path, epochs: int) -> Journal:
    return Journal(folder / "history.csv", Recorder(), epochs)


def plain_network(bands: int = 2) -> Network:
    """A network without dropout and batch normalisation."""
    torch.manual_seed(4)
    return Network(nn.Conv2d(bands, CLASSES, 1), 1)


def tiny_unet(seed: int = 2) -> Network:
    torch.manual_seed(seed)
    return build_network("unet", TINY, bands=3, classes=CLASSES)


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


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_validation_scores_do_not_depend_on_the_batch_size(batch_size: int, tmp_path: Path) -> None:
    network, chips = plain_network(), samples(7, seed=9, unlabelled=0.6)
    chips[3][1][:] = IGNORE_INDEX
    chips[4][1][:] = 0  # a chip of one class: its own mean IoU is another one
    segmenter = small_segmenter(network, optimizer="sgd", learning_rate=1e-30, weight_decay=0.0)
    fit_samples(segmenter, tmp_path, chips[:2], chips, batch_size=batch_size)
    images, labels = (torch.stack(part) for part in zip(*chips, strict=True))
    with torch.inference_mode():
        logits = network(images)
    wanted = Scores.of(labels.numpy(), logits.argmax(1).numpy().astype(np.uint8), CLASSES)
    assert np.array_equal(segmenter.validation_tally.scores.matrix, wanted.matrix)
    loss = functional.cross_entropy(logits, labels.long(), ignore_index=IGNORE_INDEX)
    assert segmenter.validation_tally.loss == pytest.approx(loss.item(), rel=1e-5)


def test_each_epoch_is_counted_anew(tmp_path: Path) -> None:
    segmenter = fit_samples(small_segmenter(), tmp_path, samples(6, unlabelled=0), samples(3, unlabelled=0), epochs=2)
    assert segmenter.train_tally.scores.matrix.sum() == 6 * 64
    assert segmenter.validation_tally.scores.matrix.sum() == 3 * 64


def test_validation_counts_what_the_network_says_in_evaluation_mode(tmp_path: Path) -> None:
    chips = samples(4, unlabelled=0)
    segmenter = fit_samples(small_segmenter(), tmp_path, chips, chips)
    images, labels = (torch.stack(part) for part in zip(*chips, strict=True))
    assert segmenter.network.training
    with torch.inference_mode():
        logits = segmenter.network.eval()(images)
    wanted = Scores.of(labels.numpy(), logits.argmax(1).numpy().astype(np.uint8), CLASSES)
    assert np.array_equal(segmenter.validation_tally.scores.matrix, wanted.matrix)


@pytest.mark.parametrize("weights", [None, (0.2, 1.0, 3.0)])
def test_the_loss_is_the_cross_entropy_of_raw_logits_with_class_weights(
    weights: tuple[float, ...] | None, tmp_path: Path
) -> None:
    network, (chip,) = plain_network(), samples(1)
    factors = None if weights is None else torch.tensor(weights)
    images, labels = chip[0][None].repeat(2, 1, 1, 1), chip[1][None].repeat(2, 1, 1).long()
    wanted = functional.cross_entropy(network(images), labels, factors, ignore_index=IGNORE_INDEX)
    gradient = torch.autograd.grad(wanted, network.model.weight)[0]
    look = Look()
    fit_samples(small_segmenter(network, CrossEntropy(factors)), tmp_path, [chip], callbacks=(look,))
    assert look.losses == [pytest.approx(wanted.item(), rel=1e-5)]
    assert torch.allclose(look.gradients[0]["model.weight"], gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_without_labels_teaches_nothing(loss: str, tmp_path: Path) -> None:
    look, chips = Look(), samples(4, unlabelled=1.0)
    segmenter = small_segmenter(criterion=LOSSES[loss].build(torch.tensor([0.5, 1.0, 2.0])), weight_decay=0.0)
    before = state(segmenter.network)
    fit_samples(segmenter, tmp_path, chips, chips, callbacks=(look,))
    assert look.losses == [0]
    assert look.gradients[0] and all((gradient == 0).all() for gradient in look.gradients[0].values())
    assert not changed(before, segmenter.network) & {name for name, _ in segmenter.network.named_parameters()}
    assert np.isnan(segmenter.train_tally.loss) and np.isnan(segmenter.validation_tally.scores.mean_iou)


def test_autograd_is_left_as_it_was_by_validation(tmp_path: Path) -> None:
    look = Look()
    fit_samples(small_segmenter(), tmp_path, samples(8), samples(4), epochs=3, callbacks=(journal(tmp_path, 3), look))
    assert look.autograd == [(True, False)] * 6
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert all(any((g != 0).any() for g in step.values()) for step in look.gradients)


WITH_BACKBONE = [name for name, design in ARCHITECTURES.items() if design.has_backbone]


@pytest.mark.parametrize("architecture", WITH_BACKBONE)
def test_frozen_backbone_does_not_drift(architecture: str, tmp_path: Path) -> None:
    network = build_network(architecture, "tu-test_vit" if architecture == "dpt" else TINY, bands=3, classes=CLASSES)
    network.freeze_encoder(first_layer=True)
    before = state(network)
    chips = samples(2, size=32, bands=3)
    fit_samples(small_segmenter(network, optimizer="adam", card=model_card(3)), tmp_path, chips, chips)
    assert architecture == "dpt" or any("running_mean" in name for name in before if "encoder." in name)
    moved = changed(before, network)
    assert moved and not any(name.startswith("model.encoder.") for name in moved)


def test_adapted_first_layer_is_trained_and_nothing_else_of_the_backbone(tmp_path: Path) -> None:
    network = build_network("unet", TINY, bands=5, classes=CLASSES)
    network.freeze_encoder(first_layer=False)
    before = state(network)
    fit_samples(small_segmenter(network), tmp_path, samples(4, size=32, bands=5))
    first = next(name for name, module in network.named_modules() if module is first_convolution(network.encoder))  # type: ignore[arg-type]
    assert {name for name in changed(before, network) if name.startswith("model.encoder.")} == {f"{first}.weight"}


def test_free_backbone_is_trained_with_its_statistics(tmp_path: Path) -> None:
    network = tiny_unet()
    before = state(network)
    # The last normalisation of each residual branch starts at 0: what lies before it moves from the second step on.
    fit_samples(small_segmenter(network), tmp_path, samples(4, size=32, bands=3), epochs=3)
    moved = changed(before, network)
    assert any(name.endswith("running_mean") for name in moved if name.startswith("model.encoder."))
    assert {name for name, _ in network.named_parameters()} <= moved


def test_backbone_comes_alive_at_its_epoch_at_a_tenth_of_the_rate(tmp_path: Path) -> None:
    network, look, rate = tiny_unet(), Look(), 0.5
    network.freeze_encoder(first_layer=True)
    chips = samples(4, size=32, bands=3)
    segmenter = small_segmenter(network, optimizer="sgd", learning_rate=rate, weight_decay=0.0, unfreeze_epoch=2)
    start = state(network)
    fit_samples(segmenter, tmp_path, chips, chips, epochs=5, callbacks=(look,))

    def backbone(since: dict[str, Tensor], until: dict[str, Tensor]) -> set[str]:
        return {name for name in since if "encoder." in name and not torch.equal(since[name], until[name])}

    assert backbone(start, look.after_epoch[1]) == set()
    awake = backbone(look.after_epoch[1], look.after_epoch[4])
    parameters = {name for name, _ in network.named_parameters() if "encoder." in name}
    assert len(awake & parameters) > 0.8 * len(parameters)  # in some the gradient is too small for float32
    assert any("running_var" in name for name in awake) and any("running_mean" in name for name in awake)
    assert look.rates == [[rate, pytest.approx(BACKBONE_RATE * rate)]] * 5
    assert not any("encoder." in name for name in look.gradients[1])
    first = {name: gradient for name, gradient in look.gradients[2].items() if "encoder." in name}
    assert first.keys() == parameters
    assert max(gradient.abs().max() for gradient in first.values()) > 0.001
    for name, gradient in first.items():  # the first step has no momentum yet
        step = look.before[2][name] - look.after_epoch[2][name]
        assert torch.allclose(step, 0.1 * rate * gradient, rtol=1e-3, atol=3e-7)
    assert all(module.training for module in network.modules())


def test_backbone_that_is_never_unfrozen_needs_no_room_in_the_optimiser(tmp_path: Path) -> None:
    network = tiny_unet()
    network.freeze_encoder(first_layer=True)
    look = Look()
    fit_samples(small_segmenter(network), tmp_path, samples(2, size=32, bands=3), callbacks=(look,))
    assert [len(rates) for rates in look.rates] == [1]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_schedule_trains_to_its_end(scheduler: str, tmp_path: Path) -> None:
    look, segmenter = Look(), small_segmenter(scheduler=scheduler, learning_rate=0.1)
    callbacks = (journal(tmp_path, 4), look)
    before = state(segmenter.network)
    fit_samples(segmenter, tmp_path, samples(12), samples(4), epochs=4, callbacks=callbacks)
    rates = [rate for (rate,) in look.rates]
    assert len(rates) == 12 and {name for name, _ in segmenter.network.named_parameters()} <= changed(
        before, segmenter.network
    )
    if scheduler == "cosine":
        assert rates == [pytest.approx(0.1 * cosine_factor(step, 12)) for step in range(12)]
    elif scheduler == "one_cycle":
        assert len(set(rates)) == 12 and 2 <= rates.index(max(rates)) <= 5 and rates[-1] < 0.02
    else:
        assert rates == [pytest.approx(0.1)] * 12


@pytest.mark.parametrize("validating", [True, False])
def test_plateau_watches_the_loss_once_an_epoch(validating: bool, tmp_path: Path) -> None:
    """Nothing is learnt at this rate: the first epoch is the best, and the fifth after it is one too many."""
    look = Look()
    segmenter = small_segmenter(
        plain_network(), scheduler="plateau", optimizer="sgd", learning_rate=1e-30, weight_decay=0.0
    )
    rows = journal(tmp_path, 9)
    chips = samples(8)
    validation = samples(4, seed=2) if validating else []
    fit_samples(segmenter, tmp_path, chips, validation, epochs=9, callbacks=(rows, look))
    assert [rate for (rate,) in look.rates][::2] == [pytest.approx(1e-30)] * 6 + [pytest.approx(1e-31)] * 3
    tally = segmenter.validation_tally if validating else segmenter.train_tally
    assert segmenter._schedule.best == pytest.approx(tally.loss, rel=1e-5)
    assert np.isfinite(tally.loss) and segmenter._schedule.last_epoch == 9


class Remember:
    """Stands for an augmentation: adds noise, and remembers the number that it drew."""

    def __init__(self) -> None:
        self.drawn: list[float] = []

    def __call__(self, images: Tensor, labels: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
        noise = torch.randn(images.shape, generator=random)
        self.drawn.append(float(noise.flatten()[0]))
        return images + 0.1 * noise, labels


def test_augmentation_draws_by_place_and_only_in_training(tmp_path: Path) -> None:
    first, later = Remember(), Remember()
    fit_samples(small_segmenter(augment=first), tmp_path, samples(8), samples(4), epochs=3)
    assert len(first.drawn) == 6 == len(set(first.drawn))
    torch.manual_seed(77)
    segmenter = small_segmenter(augment=later, network=small_network(seed=77))
    segmenter.first_epoch = 2
    fit_samples(segmenter, tmp_path, samples(8), samples(4), epochs=3)
    assert later.drawn == first.drawn[4:]
    other = Remember()
    fit_samples(small_segmenter(augment=other, seed=8), tmp_path, samples(8), epochs=1)
    assert not set(other.drawn) & set(first.drawn)


def resumed(
    segmenter: Segmenter, done: Segmenter, optimizer: dict[str, Any], schedule: dict[str, Any], epoch: int
) -> Segmenter:
    segmenter.network.load_state_dict(done.network.state_dict())
    segmenter.go_on(epoch, optimizer, schedule)
    return segmenter


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_an_interrupted_training_goes_on_as_if_nothing_had_been(scheduler: str, tmp_path: Path) -> None:
    """With dropout, augmentation and a schedule; whatever is drawn in between."""

    class Stop(lightning.Callback):
        states: tuple[dict[str, Any], dict[str, Any]]

        def on_train_epoch_end(self, trainer: Any, segmenter: Any) -> None:
            if segmenter.epoch == 1:
                schedule = dict(segmenter._schedule.state_dict())
                self.states = trainer.optimizers[0].state_dict(), schedule
                trainer.should_stop = True

    def make() -> Segmenter:
        return small_segmenter(scheduler=scheduler, augment=Remember())

    chips, validation = samples(9), samples(3, seed=5)
    whole, part, stop = make(), make(), Stop()
    fit_samples(whole, tmp_path, chips, validation, epochs=5, callbacks=(journal(tmp_path, 5),))
    fit_samples(part, tmp_path, chips, validation, epochs=5, callbacks=(journal(tmp_path, 5), stop))
    torch.manual_seed(123)
    torch.rand(17)
    rest = resumed(make(), part, *stop.states, epoch=2)
    fit_samples(rest, tmp_path, chips, validation, epochs=5, callbacks=(journal(tmp_path, 5),))
    assert not changed(state(whole.network), rest.network)
    assert changed(state(part.network), rest.network)
    assert rest.validation_tally.loss == whole.validation_tally.loss


@pytest.mark.parametrize(("clip", "norm"), [(0.0, None), (0.01, 0.01), (1000.0, None)])
def test_largest_norm_of_the_gradients(clip: float, norm: float | None, tmp_path: Path) -> None:
    look = Look()
    segmenter = small_segmenter(optimizer="sgd", learning_rate=1.0, weight_decay=0.0)
    fit_samples(segmenter, tmp_path, samples(4), clip=clip, callbacks=(look,))
    steps = [look.before[0][name] - look.after_epoch[0][name] for name in look.gradients[0]]
    own = torch.cat([gradient.flatten() for gradient in look.gradients[0].values()]).norm().item()
    assert own > 0.1
    assert torch.cat([step.flatten() for step in steps]).norm().item() == pytest.approx(norm or own, rel=1e-3)


class Others:
    """Stands for a trainer of two processes, of which the other one has counted the same."""

    world_size, current_epoch = 2, 0

    def __init__(self) -> None:
        self.strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=self.reduce)

    @staticmethod
    def reduce(value: Tensor, reduce_op: str) -> Tensor:
        return value * 2 if reduce_op == "sum" else value + 5


@pytest.fixture
def shared() -> Iterator[Segmenter]:
    segmenter = small_segmenter()
    segmenter._trainer = Others()  # type: ignore[assignment]
    yield segmenter
    segmenter._trainer = None


def test_processes_count_together(shared: Segmenter) -> None:
    logits, labels = torch.randn(2, CLASSES, 4, 4), torch.randint(CLASSES, (2, 4, 4))
    for tally in (shared.train_tally, shared.validation_tally):
        tally.add(*shared.criterion.parts(logits, labels), logits, labels)
    matrix, loss = shared.train_tally.scores.matrix, shared.train_tally.loss
    shared.pool()
    for tally in (shared.train_tally, shared.validation_tally):
        assert np.array_equal(tally.scores.matrix, 2 * matrix)
        assert tally.loss == pytest.approx(loss)  # a mean


def test_processes_validate_one_network(shared: Segmenter) -> None:
    norm = next(module for module in shared.network.modules() if isinstance(module, nn.BatchNorm2d))
    assert norm.running_mean is not None and norm.num_batches_tracked is not None
    norm.running_mean.fill_(1)
    norm.num_batches_tracked.fill_(3)
    shared.on_validation_epoch_start()
    assert (norm.running_mean == 6).all() and norm.num_batches_tracked == 3


def test_batch_norm_is_found() -> None:
    assert has_batch_norm(small_network()) and not has_batch_norm(plain_network())
