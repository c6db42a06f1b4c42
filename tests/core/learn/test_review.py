# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of what a network makes of chips: scores, pictures, and what TensorBoard shows of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from specdeepmap.core.data.classes import IGNORE_INDEX, ClassTable
from specdeepmap.core.data.scores import Scores
from specdeepmap.core.errors import Canceled
from specdeepmap.core.learn.callbacks import Journal
from specdeepmap.core.learn.hardware import Hardware
from specdeepmap.core.learn.loader import Loader, Order
from specdeepmap.core.learn.pictures import paint
from specdeepmap.core.learn.review import EXAMPLES, Gallery, confusion_table, measure, show
from tests.helpers import Recorder
from tests.trainings import (
    CLASSES,
    PROCESSOR,
    Samples,
    changed,
    fit_samples,
    model_card,
    samples,
    small_network,
    small_segmenter,
    state,
)

pytestmark = pytest.mark.torch


def loader_of(chips: Samples, batch_size: int = 3) -> Loader:
    return Loader(chips, Order(len(chips), batch_size, None))  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_scores_are_those_of_all_labelled_pixels(batch_size: int) -> None:
    network, chips, wanted = small_network(), samples(7, unlabelled=0.5), Scores.empty(CLASSES)
    for image, labels in chips:
        with torch.inference_mode():
            predicted = network.eval()(image[None])[0].argmax(dim=0).numpy().astype(np.uint8)
        wanted += Scores.of(labels.numpy(), predicted, CLASSES)
    before = state(network)
    scores = measure(network.train(), loader_of(chips, batch_size), CLASSES, PROCESSOR, Recorder())
    assert np.array_equal(scores.matrix, wanted.matrix)
    assert scores.matrix.sum() == sum(int((labels != IGNORE_INDEX).sum()) for _, labels in chips)
    assert not changed(before, network)  # nor its running statistics


def test_measuring_agrees_with_validation(tmp_path: Path) -> None:
    chips = samples(7)
    segmenter = fit_samples(small_segmenter(), tmp_path, samples(4), chips, epochs=2)
    scores = measure(segmenter.network, loader_of(chips), CLASSES, PROCESSOR, Recorder())
    assert np.array_equal(scores.matrix, segmenter.validation_tally.scores.matrix)


def test_measuring_hears_a_cancel_and_keeps_the_precision() -> None:
    with pytest.raises(Canceled):
        measure(small_network(), loader_of(samples(7)), CLASSES, PROCESSOR, Recorder(cancel_at=2))
    kinds = set()
    network = small_network()
    network.register_forward_hook(lambda module, images, logits: kinds.add(logits.dtype))
    measure(network, loader_of(samples(2)), CLASSES, Hardware(torch.device("cpu"), "bfloat16"), Recorder())
    assert kinds == {torch.bfloat16}


@pytest.mark.parametrize("training", [True, False])
def test_showing_leaves_the_network_as_it_was(training: bool) -> None:
    network = small_network().train(training)
    before = state(network)
    show(network, samples(3), model_card(), PROCESSOR)  # type: ignore[arg-type]
    assert all(module.training == training for module in network.modules())
    assert not changed(before, network)
    assert torch.is_grad_enabled()


def test_the_mode_is_restored_after_an_error() -> None:
    network = small_network()
    with pytest.raises(RuntimeError):
        show(network, samples(1, bands=5), model_card(), PROCESSOR)  # type: ignore[arg-type]
    assert network.training


@pytest.mark.parametrize(("count", "shown"), [(0, []), (1, [0]), (3, [0, 1, 2]), (10, [0, 3, 6, 9])])
def test_examples_are_evenly_spread(count: int, shown: list[int]) -> None:
    class Asked(list):  # type: ignore[type-arg]
        def __getitem__(self, index: Any) -> Any:
            asked.append(index)
            return super().__getitem__(index)

    chips: Any = Asked(samples(count))
    asked: list[int] = []
    pictures = show(small_network(), chips, model_card(), PROCESSOR)
    assert asked == shown and len(pictures) == len(shown) <= EXAMPLES


def test_a_picture_holds_the_reference_and_the_prediction_where_there_is_data() -> None:
    ((image, labels),) = samples(1, size=10)
    image[:, :4] = 0  # no data
    labels[:4] = IGNORE_INDEX
    labels[9] = IGNORE_INDEX  # data, but no label
    network, card = small_network(), model_card()
    (picture,) = show(network, [(image, labels)], card, PROCESSOR)  # type: ignore[arg-type]
    with torch.inference_mode():
        predicted = network.eval()(image[None])[0].argmax(dim=0).numpy().astype(np.uint8)
    predicted[:4] = IGNORE_INDEX
    reference, drawn = picture[:, 12:22], picture[:, 24:34]
    assert picture.shape == (10, 34, 3) and picture.dtype == np.uint8
    assert np.array_equal(reference, paint(labels.numpy(), card.classes))
    assert np.array_equal(drawn, paint(predicted, card.classes))


@pytest.mark.parametrize("validating", [True, False])
def test_tensorboard_shows_the_first_the_last_and_each_fifth_epoch(validating: bool, tmp_path: Path) -> None:
    chips, network_modes = samples(6), []

    class Modes(Journal):
        def on_train_epoch_start(self, trainer: Any, segmenter: Any) -> None:
            super().on_train_epoch_start(trainer, segmenter)
            network_modes.append(segmenter.network.training)

    journal = Modes(tmp_path / "history.csv", Recorder(), 7)
    gallery = Gallery(chips, PROCESSOR, 7)  # type: ignore[arg-type]
    validation = chips if validating else []
    fit_samples(small_segmenter(), tmp_path, chips, validation, epochs=7, callbacks=(journal, gallery))
    assert network_modes == [True] * 7
    logged = EventAccumulator(str(tmp_path / "logs"), size_guidance={"images": 0})
    logged.Reload()
    tags = logged.Tags()
    assert sorted(tags["images"]) == [f"image, reference, prediction/chip {number}" for number in (1, 2, 3, 4)]
    assert [event.step for event in logged.Images(tags["images"][0])] == [0, 4, 6]
    tables = [tag for tag in tags["tensors"] if "confusion" in tag]
    assert len(tables) == validating
    if validating:
        assert [event.step for event in logged.Tensors(tables[0])] == [0, 4, 6]


def test_the_confusion_matrix_is_a_table_in_percent() -> None:
    classes = ClassTable.of([1, 2, 5], names={1: "a|b"})
    table = confusion_table(Scores(np.array([[3, 1, 0], [0, 0, 0], [1, 1, 6]])), classes)
    lines = table.split("\n")
    assert lines[0] == "| reference ↓ predicted → | a/b | class 2 | class 5 | pixels |"
    assert lines[2] == "| **a/b** | 75.0 % | 25.0 % | 0.0 % | 4 |"
    assert lines[3] == "| **class 2** |  |  |  | 0 |"
    assert lines[4] == "| **class 5** | 12.5 % | 12.5 % | 75.0 % | 8 |"
    assert len({line.count("|") for line in lines}) == 1


def test_examples_bring_the_network_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning leaves it on the processor after a training."""
    moved: list[torch.device] = []

    class Parked(torch.nn.Module):
        def to(self, device: torch.device) -> Parked:  # type: ignore[override]
            moved.append(device)
            return self

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert moved
            return torch.zeros(len(images), CLASSES, *images.shape[-2:])

    hardware = Hardware(torch.device("cpu"), "float32")
    show(Parked(), samples(1), model_card(), hardware)  # type: ignore[arg-type]
    assert moved == [hardware.device]
