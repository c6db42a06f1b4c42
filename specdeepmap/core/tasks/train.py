# SPDX-License-Identifier: GPL-3.0-or-later
"""Train a network on a dataset folder: the Deep Learning Trainer."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import lightning
import numpy as np
import torch
from numpy.typing import NDArray

from specdeepmap.core.data.bandmatch import first_few
from specdeepmap.core.data.census import renamed_classes, source_of
from specdeepmap.core.data.dataset import Dataset
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.environment import is_first_process
from specdeepmap.core.errors import ConfigError, DatasetError, DeviceError
from specdeepmap.core.jobs import TrainJob, TrainResult
from specdeepmap.core.learn.architectures import ARCHITECTURES
from specdeepmap.core.learn.augmentations import build_augmenter
from specdeepmap.core.learn.baselines import Baselines, LinearClassifier, gather_pixels, measure_baselines
from specdeepmap.core.learn.callbacks import Journal, Patience, Steering
from specdeepmap.core.learn.causes import Circumstances
from specdeepmap.core.learn.checkpoint import (
    FORMAT,
    ModelCard,
    chip_mark,
    kept_nodata,
    library_versions,
    load_checkpoint,
    training_settings,
)
from specdeepmap.core.learn.fitting import Feed, fit
from specdeepmap.core.learn.hardware import Hardware, choose_device, choose_precision, is_out_of_memory, share_devices
from specdeepmap.core.learn.keeping import Checkpoints, Writer, find_checkpoints
from specdeepmap.core.learn.loader import Chips, fits_in_memory
from specdeepmap.core.learn.losses import LOSSES
from specdeepmap.core.learn.pictures import png_bytes
from specdeepmap.core.learn.ratefinder import find_rate
from specdeepmap.core.learn.review import Gallery, measure, show
from specdeepmap.core.learn.segmenter import Recipe, Segmenter, has_batch_norm
from specdeepmap.core.learn.spectral import SpectralNetwork
from specdeepmap.core.learn.trainreport import REPORT_NAME, TrainingStory, write_report
from specdeepmap.core.learn.watch import Watcher, verdict, warnings_before
from specdeepmap.core.learn.watching import Warnings, Watching
from specdeepmap.core.progress import Progress
from specdeepmap.core.staging import write_whole
from specdeepmap.core.tasks.runfolders import claim_models, known_folders, make_folders
from specdeepmap.core.tasks.start import Beginning, Start

_KEPT_VALUES = 50_000_000
"""Values of single pixels that are kept to learn from: 200 MB."""


def train(job: TrainJob, progress: Progress) -> TrainResult:
    """Train a network, keep its best checkpoints and write down how it went."""
    while True:
        training = None
        try:
            with ExitStack() as claims:
                training = _Training(job, progress, claims)
                return training.run()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            half = job.batch_size // 2
            if job.resume:  # another batch size would be another run
                raise DeviceError(
                    f"The memory does not suffice to go on with BATCH_SIZE {job.batch_size}. Start a new run with a "
                    "smaller one, from the interrupted run's last.ckpt as INIT_CHECKPOINT."
                ) from error
            if not job.halve_batch_size or not half:
                raise DeviceError(
                    f"The memory does not suffice for BATCH_SIZE {job.batch_size}. "
                    + (f"Set it to {half}, or take" if half else "Take")
                    + " smaller chips or a smaller BACKBONE."
                ) from error
        progress.warning(f"The memory does not suffice for BATCH_SIZE {job.batch_size}; starting again with {half}.")
        job = replace(job, batch_size=half)
        if training is not None:  # the folders that were made for it are used, not left behind
            job = replace(job, model_folder=training.folders.models, log_folder=training.folders.logs)
        training = None  # its memory is needed


class _Training:
    """One training from the dataset to the report.

    Args:
        job: the parameters.
        progress: is told.
        claims: keeps others from the model folder as long as it is open.

    Attributes:
        folders: where it writes.
    """

    def __init__(self, job: TrainJob, progress: Progress, claims: ExitStack) -> None:
        self._job, self._progress = job, progress
        self._started = time.monotonic()
        self._warnings = Warnings(progress)
        self._dataset = _open_dataset(job)
        renamed = renamed_classes(self._dataset)
        if renamed:
            self._warnings.say(
                "Classes have other names in the label chips than in the summary (summary / chips): "
                f"{first_few(renamed)}. Were chips cut again since? Then run the Dataset Maker again."
            )
        self._hardware = _choose_hardware(job, len(self._dataset.chips["validation"]))
        self._first = is_first_process()
        known = job.model_folder if job.model_folder is not None and job.model_folder.is_dir() else None
        if self._first and known is not None:  # what a resumed training goes on from must not change while it is read
            claim_models(known, claims)
        lightning.seed_everything(job.seed, workers=True, verbose=False)
        self._chip = Raster.open(self._dataset.chips["train"][0].image)
        beginning = Beginning(job, self._dataset, self._chip, int(self._dataset.counts[0].sum()), progress)
        self._start: Start = beginning.start()
        if self._start.interrupted:
            self._warnings.recall(self._start.interrupted.warnings)
        # Only now: what is wrong with the parameters has been found, and no empty folder is left behind for it.
        self.folders = make_folders(job) if self._first else known_folders(job)
        claims.callback(self.folders.remove_unused)
        if self._first and known is None:
            claim_models(self.folders.models, claims)
        self._chips = self._load_chips()

    def run(self) -> TrainResult:
        """Train and report."""
        job, progress = self._job, self._progress
        baselines = self._measure_baselines(self._gather_pixels())
        segmenter = self._segmenter()
        self._find_rate(segmenter)
        self._go_on(segmenter)
        circumstances = self._circumstances(segmenter, baselines)
        self._tell(segmenter)
        self._warnings.say(*warnings_before(circumstances))
        interrupted, models = self._start.interrupted, self.folders.models
        rows = interrupted.rows if interrupted else ()
        others = interrupted.others if interrupted else find_checkpoints(models)
        journal = Journal(models / "history.csv", progress, job.epochs, rows)
        writer = Writer()
        checkpoints = Checkpoints(models, journal, job.save_top_k, writer, others)
        callbacks: list[lightning.Callback] = [Steering(progress, job.epochs), journal]
        kinds = interrupted.kinds if interrupted else ()
        callbacks.append(Watching(Watcher(circumstances, self._dataset.classes.names, kinds), self._warnings))
        if job.early_stopping and self._validates:
            callbacks.append(Patience(journal, job.patience))
        callbacks += [checkpoints, Gallery(self._shown, self._hardware, job.epochs)]
        if self._first:
            if interrupted is not None and checkpoints.strays:
                progress.info(
                    f"MODEL_FOLDER {models} holds checkpoints of epochs after the interruption, which are trained "
                    f"again: {first_few(checkpoints.strays)}. What is not replaced then can be deleted."
                )
            if interrupted is None and checkpoints.last.is_file():
                self._warnings.say(
                    f"MODEL_FOLDER {models} holds an earlier training. Its best checkpoints stay; its last checkpoint, "
                    "history and report are replaced after the first epoch. To go on with it, cancel, and set RESUME."
                )
            write_whole(models / "job.json", job.save)
        progress.report(0.0, f"Training on {self._hardware.device.type}")
        fit(
            segmenter,
            self._feed(),
            self._hardware,
            job.epochs,
            job.gradient_clip,
            self._validates,
            self.folders.logs,
            writer,
            callbacks,
        )
        if len(journal.rows) < job.epochs:
            progress.info(
                f"Stopped early after epoch {len(journal.rows)}: the validation mean IoU did not rise for "
                f"{job.patience} epochs."
            )
        best, iou = checkpoints.best or (checkpoints.last, float("nan"))
        progress.info(f"Best checkpoint: {best.name}")
        if self._first:
            self._report(segmenter, journal, best, baselines)
        return TrainResult(
            best_checkpoint=best,
            last_checkpoint=checkpoints.last,
            best_val_iou=iou,
            epochs_trained=len(journal.rows),
            history_csv=journal.path,
            log_folder=self.folders.logs,
            model_folder=models,
            report=models / REPORT_NAME,
        )

    @property
    def _rate(self) -> float:
        """The learning rate that was set, or that suits the design."""
        return self._job.learning_rate or ARCHITECTURES[self._start.architecture].rate

    @property
    def _validates(self) -> bool:
        return bool(self._dataset.chips["validation"])

    @property
    def _shown(self) -> Chips:
        """The chips that examples are taken from."""
        return self._chips["validation" if self._validates else "train"]

    def _load_chips(self) -> dict[str, Chips]:
        """Make the sets of chips; decoded ones stay in memory where all fit."""
        pairs = {name: self._dataset.chips[name] for name in ("train", "validation")}
        bands = len(self._start.normalization.mean)
        cached = fits_in_memory([*pairs["train"], *pairs["validation"]], bands, self._hardware.devices)
        return {
            name: Chips(found, self._dataset.classes, self._start.normalization, cached)
            for name, found in pairs.items()
        }

    def _feed(self) -> Feed:
        job, gpu = self._job, self._hardware.device.type != "cpu"
        threads = job.num_workers
        if threads < 0:
            # Stacking chips that are in memory takes a millisecond; on the processor a thread would cost the network
            # a tenth of its speed.
            threads = min(os.cpu_count() or 1, 4) if gpu or not self._chips["train"].cached else 0
        pin = self._hardware.device.type == "cuda"
        train, validation = self._chips["train"], self._chips["validation"]
        return Feed(train, validation, job.batch_size, job.seed, threads, pin, validation.sizes)

    def _segmenter(self) -> Segmenter:
        """Put network, loss and optimiser together."""
        job, start = self._job, self._start
        recipe = Recipe(job.optimizer, self._rate, job.weight_decay, job.scheduler, job.seed, job.unfreeze_epoch)
        network = start.network.to(memory_format=start.network.layout)
        strengths, levels = job.augmentations(), start.normalization.levels
        augment = build_augmenter(strengths, levels) if strengths else None
        return Segmenter(network, self._card(), LOSSES[job.loss].build(self._class_weights), recipe, augment)

    def _find_rate(self, segmenter: Segmenter) -> None:
        """Find the learning rate, where it is wanted, and use it."""
        job = self._job
        if not job.lr_finder or self._start.interrupted:
            return
        self._progress.report(0.0, "Finding the learning rate")
        loader = self._feed().train_dataloader()
        rate = find_rate(segmenter, loader, self._hardware, self._progress.part(0.0, 0.0))
        self._progress.info(f"LR_FINDER: the learning rate is {rate:g}, instead of LEARNING_RATE {self._rate:g}.")
        self._use_rate(segmenter, rate)

    def _use_rate(self, segmenter: Segmenter, rate: float) -> None:
        segmenter.recipe = replace(segmenter.recipe, learning_rate=rate)
        settings = {**segmenter.card.settings, "learning_rate": rate}
        segmenter.card = replace(segmenter.card, settings=settings)

    def _go_on(self, segmenter: Segmenter) -> None:
        """Go on with an interrupted run, at the learning rate that it had."""
        interrupted = self._start.interrupted
        if interrupted is not None:
            segmenter.go_on(len(interrupted.rows), interrupted.optimizer, interrupted.schedule)
            rate = float(interrupted.card.settings["learning_rate"])
            self._use_rate(segmenter, rate)
            if self._job.learning_rate not in (None, rate):
                self._progress.info(f"RESUME: LEARNING_RATE stays {rate:g}, as before the interruption.")

    def _gather_pixels(self) -> LinearClassifier:
        """Gather training pixels for the linear classifier; a network that can learn from them does."""
        order = np.random.default_rng(self._job.seed).permutation(len(self._chips["train"])).tolist()
        start, model, counts = self._start, self._start.network.model, self._dataset.counts[0]
        learns = isinstance(model, SpectralNetwork) and start.interrupted is None
        chips = _arrays(self._chips["train"], order)
        gathered = gather_pixels(chips, counts, self._progress, _KEPT_VALUES if learns else 0)
        if start.new_head and isinstance(model, SpectralNetwork) and model.start_from(gathered, not start.anew):
            self._progress.info("The network starts as the linear discriminant of the training pixels.")
        if isinstance(model, SpectralNetwork) and gathered.sample is not None and (gathered.counts > 0).sum() > 1:
            lost = model.segmentation_head.pixelwise.known & (gathered.counts == 0)
            if lost.any():
                names = [name for name, gone in zip(self._dataset.classes.names, lost, strict=True) if gone]
                self._warnings.say(
                    f"INIT_CHECKPOINT: no training chip holds {first_few(names)}, which the model knows. Its "
                    "pixelwise member stays as it is, and the rest of the network will forget the class by and by."
                )
            else:
                self._learn_pixels(model, *gathered.sample)
        return gathered

    def _learn_pixels(self, model: SpectralNetwork, pixels: NDArray[np.float32], indices: NDArray[np.uint8]) -> None:
        """Let the pixelwise member learn single pixels."""
        self._progress.report(0.0, f"Learning {len(pixels)} single pixels")
        # Of large chips some pixels were gathered, of all classes alike: each stands for as many as there are.
        counts = self._dataset.counts[0]
        stands_for = torch.from_numpy(counts / np.maximum(np.bincount(indices, minlength=len(counts)), 1)).float()
        weights = stands_for * (self._class_weights if self._class_weights is not None else 1.0)
        model.segmentation_head.pixelwise.learn(pixels, indices, weights, self._job.seed, self._progress)

    @property
    def _class_weights(self) -> torch.Tensor | None:
        """The weights of the classes in the loss; None where they are not wanted."""
        job = self._job
        return class_weights(self._dataset.weights, job.class_weight_power) if job.class_weights else None

    def _measure_baselines(self, gathered: LinearClassifier) -> Baselines | None:
        """Measure what no network is needed for, on the same chips."""
        if not self._validates or not self._first:
            return None
        validation = _arrays(self._chips["validation"], range(len(self._chips["validation"])))
        return measure_baselines(gathered, self._dataset.counts[0], validation, self._progress)

    def _circumstances(self, segmenter: Segmenter, baselines: Baselines | None) -> Circumstances:
        job, network = self._job, segmenter.network
        total, trained = network.parameter_counts()
        return Circumstances(
            trained_share=trained / total,
            backbone_frozen=bool(self._start.frozen),
            chip_width=self._chip.grid.width,
            chip_height=self._chip.grid.height,
            stride=network.stride,
            batch_size=job.batch_size,
            has_batch_norm=has_batch_norm(network),
            train_chips=len(self._dataset.chips["train"]),
            class_weights=job.class_weights,
            learning_rate=segmenter.recipe.learning_rate,
            optimizer=job.optimizer,
            loss=job.loss,
            normalized=job.normalize,
            majority_iou=float("nan") if baselines is None else baselines.majority.mean_iou,
        )

    def _card(self) -> ModelCard:
        """Describe the model that is about to be trained."""
        job, start, chip = self._job, self._start, self._chip
        settings = {**training_settings(job), "learning_rate": self._rate, "frozen": start.frozen}
        if start.why:
            settings["architecture_reason"] = start.why
        chips = [pair.name for name in ("train", "validation") for pair in self._dataset.chips[name]]
        trained_on = (*chips, *map(source_of, chips))
        return ModelCard(
            format=FORMAT,
            architecture=start.architecture,
            backbone=start.backbone,
            bands=tuple(band.name for band in chip.bands),
            wavelengths_nm=tuple(band.wavelength_nm for band in chip.bands),
            band_scales=tuple(band.scale for band in chip.bands),
            band_offsets=tuple(band.offset for band in chip.bands),
            normalization=start.normalization,
            image_nodata=kept_nodata(chip.nodata),
            classes=self._dataset.classes,
            chip_width=chip.grid.width,
            chip_height=chip.grid.height,
            settings=settings,
            metrics={},
            fingerprint=self._dataset.fingerprint,
            trained_on=tuple(dict.fromkeys([*start.known_chips, *map(chip_mark, trained_on)])),
            versions=library_versions(),
            date="",
        )

    def _tell(self, segmenter: Segmenter) -> None:
        """Tell the user what will be trained on what."""
        job, dataset, hardware, progress = self._job, self._dataset, self._hardware, self._progress
        total, trained = segmenter.network.parameter_counts()
        backbone = f" with {self._start.backbone}" if self._start.backbone else ""
        many = "" if hardware.devices * hardware.nodes == 1 else f"{hardware.devices * hardware.nodes} × "
        progress.info(
            f"{ARCHITECTURES[self._start.architecture].title}{backbone}: {_count(total)} parameters, "
            f"{_count(trained)} of them trained; {len(dataset.chips['train'])} training and "
            f"{len(dataset.chips['validation'])} validation chips, {len(dataset.classes)} classes; "
            f"{many}{hardware.device.type}, {hardware.precision}; learning rate {segmenter.recipe.learning_rate:g}."
        )
        if job.class_weights and not LOSSES[job.loss].weighted:
            spectral = isinstance(segmenter.network.model, SpectralNetwork)
            where = "are used for the pixelwise member only" if spectral else "are not used"
            progress.info(f"Class weights {where}: LOSS {job.loss} counts every class alike.")
        elif job.class_weights:
            used = class_weights(dataset.weights, job.class_weight_power).tolist()
            pairs = zip(dataset.classes.names, used, strict=True)
            progress.info("Class weights: " + ", ".join(f"{name} {weight:.2f}" for name, weight in pairs) + ".")
        if job.unused_augmentations():
            self._warnings.say(f"AUGMENTATION is off: {', '.join(job.unused_augmentations())} without effect.")
        if job.unfreeze_epoch and not self._start.frozen:
            self._warnings.say("UNFREEZE_EPOCH has no effect: no backbone is frozen.")
        elif job.unfreeze_epoch >= job.epochs:
            self._warnings.say(
                f"UNFREEZE_EPOCH is {job.unfreeze_epoch}, and there are {job.epochs} EPOCHS: the backbone stays frozen."
            )
        unseen = [name for name, count in zip(dataset.classes.names, dataset.counts[0], strict=True) if not count]
        if unseen:
            self._warnings.say(
                f"No training chip holds a pixel of {', '.join(unseen)}, which cannot be learnt: where the model says "
                "so, it guesses. Label more of it, or move chips to the training set (Dataset Maker)."
            )
        shared = dataset.shared("train", "validation")
        if shared:
            self._warnings.say(
                f"{shared} of the {len(dataset.chips['validation'])} validation chips are training chips, too: the "
                "validation looks better than it is, and the best epoch is chosen by it. Run the Dataset Maker again."
            )
        if not self._validates or not dataset.counts[1].any():
            lack = "The validation chips hold no labelled pixel" if self._validates else "There are no validation chips"
            self._warnings.say(f"{lack}: the last epoch counts as the best, and EARLY_STOPPING has no effect.")

    def _report(self, segmenter: Segmenter, journal: Journal, best: Path, baselines: Baselines | None) -> None:
        """Look at the best checkpoint once more and write the report."""
        card, state = load_checkpoint(best, "MODEL_FOLDER:")
        segmenter.network.load_state_dict(state)
        scores = None
        if self._validates:
            feed = self._feed().val_dataloader()
            scores = measure(segmenter.network, feed, len(card.classes), self._hardware, self._progress)
        if scores is not None and baselines is not None:
            said = verdict(scores, baselines, bool(card.backbone))
            self._warnings.say(*([said] if said else []))
        earlier = self._start.interrupted.rows if self._start.interrupted else ()
        story = TrainingStory(
            card=card,
            rows=journal.rows,
            best=scores,
            best_epoch=int(card.metrics["epoch"] or 0),
            baselines=baselines,
            seconds=time.monotonic() - self._started + sum(row["seconds"] for row in earlier),
            warnings=self._warnings.said,
            examples=[png_bytes(picture) for picture in show(segmenter.network, self._shown, card, self._hardware)],
            checkpoint=best.name,
            chips={name: len(pairs) for name, pairs in self._dataset.chips.items()},
            pixels=self._dataset.counts,
        )
        write_whole(self.folders.models / REPORT_NAME, lambda part: write_report(part, story))


def class_weights(table: Sequence[float], power: float) -> torch.Tensor:
    """Give the weights of the loss: those of the summary table to a power; 0.5 = their square roots."""
    weights = torch.tensor(table, dtype=torch.float32)
    return torch.where(weights > 0, weights**power, 0.0)


def _count(number: int) -> str:
    return f"{number / 1e6:.2f} million" if number >= 1e5 else f"{number:,}"


def _arrays(chips: Chips, order: Sequence[int] | range) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    for index in order:
        image, labels = chips[index]
        yield image.numpy(), labels.numpy()


def _open_dataset(job: TrainJob) -> Dataset:
    """Open the dataset.

    Raises:
        DatasetError: if there is nothing to train on.
    """
    dataset = Dataset.open(job.dataset_folder)
    if not dataset.chips["train"]:
        raise DatasetError(
            f"DATASET_FOLDER {job.dataset_folder}: the training set is empty. Raise TRAIN_PERCENT in the Dataset "
            "Maker, or cut more chips."
        )
    return dataset


def _choose_hardware(job: TrainJob, validation_chips: int) -> Hardware:
    """Choose what to train on.

    Args:
        job: the parameters.
        validation_chips: how many there are.

    Raises:
        DeviceError: if there are fewer GPUs than wanted.
        ConfigError: if something does not go together with several devices.
    """
    device = choose_device(job.device)
    processes, nodes = share_devices(job.devices, device)
    alone = {
        "LR_FINDER": job.lr_finder,
        "UNFREEZE_EPOCH": bool(job.unfreeze_epoch),
        "HALVE_BATCH_SIZE": job.halve_batch_size,
    }
    name = next((name for name, wanted in alone.items() if wanted), "")
    if processes > 1 and name:
        raise ConfigError(f"{name} works on one device only. Set DEVICES to 1, or leave {name} out.")
    if 0 < validation_chips < processes:
        raise ConfigError(
            f"DEVICES: {processes} processes would train, and there are only {validation_chips} validation chips; each "
            f"needs one. Set DEVICES to {validation_chips}, or move chips to the validation set (Dataset Maker)."
        )
    return Hardware(device, choose_precision(job.precision, device), processes // nodes, nodes)
