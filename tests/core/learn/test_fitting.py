# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of Lightning's trainer as it is set up here: who gets which chips, how long, in which precision."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch

from specdeepmap.core.learn.callbacks import Journal
from specdeepmap.core.learn.checkpoint import load_checkpoint
from specdeepmap.core.learn.fitting import VALIDATION_BATCH, Feed, _on_slurm, fit
from specdeepmap.core.learn.hardware import Hardware
from specdeepmap.core.learn.keeping import Checkpoints, Writer
from specdeepmap.core.learn.loader import Loader, Order
from tests.helpers import Recorder
from tests.trainings import Samples, changed, fit_samples, samples, small_segmenter, state

pytestmark = pytest.mark.torch


def numbered(count: int) -> Samples:
    """Make chips whose first label is their number."""
    return [(torch.zeros(1, 2, 2), torch.full((2, 2), number, dtype=torch.uint8)) for number in range(count)]


def numbers_of(loader: Loader) -> list[list[int]]:
    return [labels[:, 0, 0].tolist() for _, labels in loader]


def feed_of(train: int, validation: int, rank: int | None = None, ranks: int = 1) -> Feed:
    feed = Feed(numbered(train), numbered(validation), 4, 7, threads=0, pin=False)  # type: ignore[arg-type]
    if rank is not None:
        feed.trainer = SimpleNamespace(global_rank=rank, world_size=ranks)  # type: ignore[assignment]
    return feed


def test_a_feed_shuffles_training_and_validates_in_larger_batches() -> None:
    feed = feed_of(10, 40)
    assert numbers_of(feed.train_dataloader()) == Order(10, 4, 7).batches(0)
    assert numbers_of(feed.val_dataloader()) == Order(40, 4 * VALIDATION_BATCH, None).batches(0)


@pytest.mark.parametrize("ranks", [2, 3])
def test_processes_share_the_chips(ranks: int) -> None:
    feeds = [feed_of(10, 7, rank, ranks) for rank in range(ranks)]
    train = [numbers_of(feed.train_dataloader()) for feed in feeds]
    assert [sum(len(batch) for batch in part) for part in train] == [-(-10 // ranks)] * ranks
    assert {number for part in train for batch in part for number in batch} == set(range(10))
    validated = [number for feed in feeds for batch in numbers_of(feed.val_dataloader()) for number in batch]
    assert sorted(validated) == list(range(7))


class Seen(lightning.Callback):
    """Remembers the order of the training chips."""

    def __init__(self) -> None:
        self.epochs: list[list[list[float]]] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.epochs.append([])

    def on_train_batch_start(self, trainer: Any, segmenter: Any, batch: Any, *_: Any) -> None:
        self.epochs[-1].append(batch[0][:, 0, 0, 0].tolist())


@pytest.mark.parametrize("first", [0, 2])
def test_each_epoch_has_its_own_order_also_after_an_interruption(first: int, tmp_path: Path) -> None:
    chips, seen, segmenter = samples(10), Seen(), small_segmenter()
    segmenter.first_epoch = first
    fit_samples(segmenter, tmp_path, chips, epochs=4, callbacks=(seen,))
    firsts = [float(image[0, 0, 0]) for image, _ in chips]
    wanted = [
        [[firsts[index] for index in batch] for batch in Order(10, 4, 7).batches(epoch)] for epoch in range(first, 4)
    ]
    assert seen.epochs == wanted
    assert len({str(epoch) for epoch in wanted}) == len(wanted)


def test_without_validation_nothing_is_validated(tmp_path: Path) -> None:
    class Never(lightning.Callback):
        def on_validation_start(self, *_: Any) -> None:
            raise AssertionError

    fit_samples(small_segmenter(), tmp_path, samples(4), callbacks=(Never(),))


def test_nothing_is_validated_before_the_training(tmp_path: Path) -> None:
    said: list[str] = []

    class Say(lightning.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            said.append("train")

        def on_validation_start(self, *_: Any) -> None:
            said.append("validate")

    fit_samples(small_segmenter(), tmp_path, samples(8), samples(3), epochs=2, callbacks=(Say(),))
    assert said == ["train", "train", "validate"] * 2


class Held(lightning.Callback):
    """Counts the gradients that are held while a batch goes forward."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def on_train_batch_start(self, trainer: Any, segmenter: Any, *_: Any) -> None:
        self.counts.append(sum(parameter.grad is not None for parameter in segmenter.parameters()))


def test_no_gradient_is_held_while_a_batch_goes_forward(tmp_path: Path) -> None:
    held, segmenter = Held(), small_segmenter()
    fit_samples(segmenter, tmp_path, samples(10), epochs=2, callbacks=(held,))
    assert held.counts == [0] * 6, "they are as large as the network"


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    ends = []
    for name in ("one", "two"):
        torch.manual_seed(len(ends))
        segmenter = fit_samples(small_segmenter(), tmp_path / name, samples(9), samples(3), epochs=2)
        ends.append(segmenter.network)
    assert not changed(state(ends[0]), ends[1])


@pytest.mark.parametrize(
    ("precision", "kind"), [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_autocast(precision: str, kind: torch.dtype) -> None:
    layer = torch.nn.Linear(4, 4)
    with Hardware(torch.device("cpu"), precision).autocast():
        assert layer(torch.ones(1, 4)).dtype == kind


def test_training_and_what_is_looked_at_beside_it_have_one_precision(tmp_path: Path) -> None:
    kinds: list[torch.dtype] = []
    segmenter = small_segmenter()
    segmenter.network.register_forward_hook(lambda module, images, logits: kinds.append(logits.dtype))
    hardware = Hardware(torch.device("cpu"), "bfloat16")
    feed = Feed(samples(4), samples(4), 4, 7, 0, pin=False)  # type: ignore[arg-type]
    fit(segmenter, feed, hardware, 1, 0.0, True, tmp_path, Writer(), ())
    assert kinds == [torch.bfloat16] * 2
    assert {parameter.dtype for parameter in segmenter.network.parameters()} == {torch.float32}


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_being_written_is_waited_for(fails: bool, tmp_path: Path) -> None:
    """Also where the training ends with an error: the last checkpoints are then worth most."""
    writer, journal = Writer(), Journal(tmp_path / "history.csv", Recorder(), 3)
    checkpoints = Checkpoints(tmp_path, journal, 1, writer)

    class Slow(lightning.Callback):
        def on_train_epoch_start(self, trainer: Any, segmenter: Any) -> None:
            writer.do(lambda: threading.Event().wait(0.3) and None)
            if fails and segmenter.epoch == 2:
                raise ZeroDivisionError

    arguments: Any = (small_segmenter(), tmp_path, samples(4), samples(4), 3)
    if fails:
        with pytest.raises(ZeroDivisionError):
            fit_samples(*arguments, callbacks=(Slow(), journal, checkpoints), writer=writer)
    else:
        fit_samples(*arguments, callbacks=(Slow(), journal, checkpoints), writer=writer)
    assert len(list(tmp_path.glob("0*.ckpt"))) == 1 and checkpoints.last.is_file()
    assert not list(tmp_path.glob(".*")) and checkpoints.last.with_suffix(".json").is_file()
    assert load_checkpoint(checkpoints.last)[0].metrics["epoch"] == (1 if fails else 2)  # no state is due by then


@pytest.mark.parametrize(
    ("environ", "several"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train"}, True),
        ({"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train"}, False),
        ({"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "bash"}, False),  # somebody at a terminal
    ],
)
def test_slurm(environ: dict[str, str], several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_NTASKS", "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert _on_slurm() == several
