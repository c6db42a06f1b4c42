# SPDX-License-Identifier: GPL-3.0-or-later
"""Fitting: Lightning's trainer, set up for a segmenter, on one device or several."""

from __future__ import annotations

import inspect
import logging
import os
import signal
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from specdeepmap.core.learn.hardware import Hardware, reuse_memory
from specdeepmap.core.learn.keeping import Writer
from specdeepmap.core.learn.loader import Chips, Loader, Order
from specdeepmap.core.learn.segmenter import Segmenter

VALIDATION_BATCH = 4
"""Validation batches are larger than training batches by this factor: without gradients they need less memory."""

_PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


class Feed(lightning.LightningDataModule):
    """The chips of a training, shared among the processes that train together.

    Args:
        train, validation: the chips.
        batch_size: training chips per batch and process.
        seed: of the order.
        threads: that read ahead.
        pin: page-lock batches, for a GPU.
        sizes: of the validation chips; None = all alike.
    """

    def __init__(
        self,
        train: Chips,
        validation: Chips,
        batch_size: int,
        seed: int,
        threads: int,
        pin: bool,
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        super().__init__()
        self._sizes = sizes
        self._train, self._validation = train, validation
        self._batch_size, self._seed, self._threads, self._pin = batch_size, seed, threads, pin

    def train_dataloader(self) -> Loader:
        """Give this process's share of the training chips."""
        rank, ranks = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        order = Order(len(self._train), self._batch_size, self._seed, rank, ranks)
        return Loader(self._train, order, self._threads, self._pin)

    def val_dataloader(self) -> Loader:
        """Give this process's share of the validation chips: each chip belongs to one process, none is doubled."""
        rank, ranks = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        size = VALIDATION_BATCH * self._batch_size
        order = Order(len(self._validation), size, None, rank, ranks, self._sizes)
        return Loader(self._validation, order, self._threads, self._pin)


class Shuffle(lightning.Callback):
    """Tell the loader of the training chips which epoch it is, since that decides the order."""

    def on_train_epoch_start(self, trainer: lightning.Trainer, segmenter: Segmenter) -> None:  # type: ignore[override]
        """Set the epoch before the first batch is asked for."""
        loader = trainer.train_dataloader
        if isinstance(loader, Loader):
            loader.epoch = segmenter.epoch


class _OwnSignals(lightning.Callback):
    """Leave it to this process how it answers SIGTERM.

    Lightning's answer waits for all processes that train together. Where these wait for each other in a step, or hear
    the signal at different moments, none of them would ever end.
    """

    def __init__(self) -> None:
        self._answer = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take back what Lightning has set just before."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._answer)


class _Logger(TensorBoardLogger):
    """Write logs into the very folder that is named; Lightning takes ``$`` and ``~`` in it for variables."""

    @property
    def log_dir(self) -> str:
        """The folder."""
        return str(self.root_dir)


def fit(
    segmenter: Segmenter,
    feed: Feed,
    hardware: Hardware,
    epochs: int,
    clip: float,
    validating: bool,
    log_folder: Path,
    writer: Writer,
    callbacks: Sequence[lightning.Callback],
) -> None:
    """Train.

    Args:
        segmenter: is changed.
        feed: the chips.
        hardware: to train on.
        epochs: how many at most, those before an interruption counted in.
        clip: largest norm of the gradients; 0 = any.
        validating: whether there are validation chips.
        log_folder: of TensorBoard.
        writer: of checkpoints; it is waited for.
        callbacks: what happens beside.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its hints are not for our users
    reuse_memory()
    # Deterministic algorithms would otherwise fill each new tensor with NaN before they fill it for good.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    device, together = hardware.device, hardware.devices * hardware.nodes > 1
    trainer = lightning.Trainer(
        accelerator={"cpu": "cpu", "cuda": "gpu", "mps": "mps"}[device.type],
        devices=hardware.devices,
        num_nodes=hardware.nodes,
        strategy=_together() if together else "auto",
        precision=_PRECISIONS[hardware.precision],  # type: ignore[arg-type]
        max_epochs=epochs - segmenter.first_epoch,
        gradient_clip_val=clip or None,
        callbacks=[_OwnSignals(), Shuffle(), *callbacks],
        logger=_Logger(str(log_folder), name="", version="", default_hp_metric=False),
        plugins=[writer, *([SLURMEnvironment(auto_requeue=False)] if _on_slurm() else [])],
        limit_val_batches=None if validating else 0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        sync_batchnorm=together and device.type == "cuda",
        deterministic="warn",
    )
    try:
        with warnings.catch_warnings():
            # A frozen backbone is in eval mode on purpose.
            warnings.filterwarnings("ignore", message=".*in eval mode at the start of training")
            trainer.fit(segmenter, datamodule=feed)
    finally:
        writer.wait()


def _together() -> DDPStrategy:
    """Let several processes train one network.

    Statistics of batch normalisation are averaged before validation instead of copied at every step: the
    copying waits for all processes, also in validation, where one may have fewer batches than another.
    """
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    settings: dict[str, Any] = {"find_unused_parameters": True, name: False}
    return DDPStrategy(**settings)


def _on_slurm() -> bool:
    """Tell whether SLURM started this process as one of several."""
    return SLURMEnvironment.detect() and int(os.environ.get("SLURM_NTASKS", "1")) > 1
