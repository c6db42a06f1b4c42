# SPDX-License-Identifier: GPL-3.0-or-later
"""Train a network on a dataset folder: the Deep Learning Trainer."""

from __future__ import annotations

import math
import os
from datetime import datetime
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger

from specdeepmap.core.data.bands import Band
from specdeepmap.core.data.dataset import Dataset
from specdeepmap.core.data.normalization import Normalization
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.errors import ConfigError, DatasetError, DeviceError
from specdeepmap.core.jobs import TrainJob, TrainResult
from specdeepmap.core.learn.architectures import ARCHITECTURES, build_network, check_backbone
from specdeepmap.core.learn.callbacks import Checkpoints, Journal, Steering
from specdeepmap.core.learn.checkpoint import (
    FORMAT,
    ModelCard,
    chip_mark,
    library_versions,
    training_settings,
)
from specdeepmap.core.learn.loader import Chips, Sample, fits_in_memory, make_loader
from specdeepmap.core.learn.network import Network
from specdeepmap.core.learn.options import choose_device, choose_precision
from specdeepmap.core.learn.segmenter import Recipe, Segmenter
from specdeepmap.core.learn.weights import WEIGHTS, check_weights, load_weights_file
from specdeepmap.core.progress import Progress

_LIGHTNING_PRECISION = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


def train(job: TrainJob, progress: Progress) -> TrainResult:
    """Train a network, keep its best checkpoints and write down how it went."""
    dataset = Dataset.open(job.dataset_folder)
    if not dataset.chips["train"]:
        raise DatasetError(
            f"DATASET_FOLDER {job.dataset_folder}: the training set is empty. Raise TRAIN_PERCENT in the Dataset "
            "Maker, or cut more chips."
        )
    check_backbone(job.backbone)
    device = choose_device(job.device)
    precision = choose_precision(job.precision, device)
    folders = _make_folders(job)
    lightning.seed_everything(job.seed, workers=True, verbose=False)
    first = Raster.open(dataset.chips["train"][0].image)
    normalization = _normalization(job, dataset, first.bands)
    network = _network(job, len(first.bands), len(dataset.classes), progress)
    segmenter = Segmenter(
        network,
        _card(job, dataset, first, normalization),
        torch.tensor(dataset.weights) if job.class_weights else None,
        Recipe(job.optimizer, job.learning_rate, job.weight_decay, job.scheduler),
    )
    _tell(job, dataset, network, device, precision, progress)
    journal = Journal(folders[0] / "history.csv", progress, job.epochs)
    checkpoints = Checkpoints(folders[0], journal, job.save_top_k)
    _fit(job, dataset, normalization, segmenter, (device, precision), folders[1], (journal, checkpoints), progress)
    best, iou = checkpoints.best or (checkpoints.last, float("nan"))
    progress.info(f"Best checkpoint: {best.name}")
    return TrainResult(
        best_checkpoint=best,
        last_checkpoint=checkpoints.last,
        best_val_iou=iou,
        epochs_trained=len(journal.rows),
        history_csv=journal.path,
        log_folder=folders[1],
        model_folder=folders[0],
    )


def _fit(
    job: TrainJob,
    dataset: Dataset,
    normalization: Normalization,
    segmenter: Segmenter,
    hardware: tuple[torch.device, str],
    log_folder: Path,
    record: tuple[Journal, Checkpoints],
    progress: Progress,
) -> None:
    """Run the training itself.

    Raises:
        DeviceError: if the memory does not suffice.
    """
    device, precision = hardware
    validating = bool(dataset.chips["validation"])
    callbacks: list[lightning.Callback] = [Steering(progress, job.epochs), *record]
    if job.early_stopping and validating:
        callbacks.append(EarlyStopping("val_iou", mode="max", patience=job.patience, check_finite=False))
    trainer = lightning.Trainer(
        accelerator={"cpu": "cpu", "cuda": "gpu", "mps": "mps"}[device.type],
        devices=1,
        precision=_LIGHTNING_PRECISION[precision],  # type: ignore[arg-type]
        max_epochs=job.epochs,
        callbacks=callbacks,
        logger=TensorBoardLogger(str(log_folder), name="", version=""),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        deterministic="warn",
    )
    loaders = _loaders(job, dataset, normalization, device.type == "cuda")
    progress.report(0.0, f"Training on {device.type}")
    try:
        trainer.fit(segmenter, loaders[0], loaders[1] if validating else None)
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"The memory of the GPU does not suffice for BATCH_SIZE {job.batch_size}. Set it to "
            f"{max(job.batch_size // 2, 1)}, or take a smaller BACKBONE."
        ) from error
    if len(record[0].rows) < job.epochs:
        progress.info(
            f"Stopped early after epoch {len(record[0].rows)}: the validation mean IoU did not rise for "
            f"{job.patience} epochs."
        )


def _loaders(
    job: TrainJob, dataset: Dataset, normalization: Normalization, pin: bool
) -> tuple[torch.utils.data.DataLoader[Sample], torch.utils.data.DataLoader[Sample]]:
    """Make the loaders of training and validation chips."""
    pairs = [*dataset.chips["train"], *dataset.chips["validation"]]
    cached = fits_in_memory(pairs, len(normalization.mean))
    workers = job.num_workers
    if workers < 0:
        workers = 0 if cached else min(os.cpu_count() or 1, 4)
    # Processes have a memory of their own: with them every chip would be kept several times.
    chips = {
        name: Chips(dataset.chips[name], dataset.classes, normalization, cached and workers == 0)
        for name in ("train", "validation")
    }
    return (
        make_loader(chips["train"], job.batch_size, workers, job.seed, job.augmentation, pin),
        make_loader(chips["validation"], job.batch_size, workers, None, False, pin),
    )


def _make_folders(job: TrainJob) -> tuple[Path, Path]:
    """Make the folders of models and logs.

    Raises:
        ConfigError: if one cannot be written.
    """
    run = job.dataset_folder / "runs" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folders = (job.model_folder or run / "models", job.log_folder or run / "logs")
    for name, folder in zip(("MODEL_FOLDER", "LOG_FOLDER"), folders, strict=True):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".probe").touch()
            (folder / ".probe").unlink()
        except OSError as error:
            raise ConfigError(
                f"{name} {folder} cannot be written ({error.strerror}). Choose a folder that you may write to."
            ) from error
    return folders


def _normalization(job: TrainJob, dataset: Dataset, bands: tuple[Band, ...]) -> Normalization:
    """Choose what the network sees of the raw values.

    Raises:
        DatasetError: if NORMALIZE is on and there are no statistics for these bands.
    """
    statistics = dataset.statistics
    if statistics is not None and len(statistics.mean) != len(bands):
        raise DatasetError(
            f"DATASET_FOLDER {job.dataset_folder}: Normalize_Bands.csv has {len(statistics.mean)} bands, the chips "
            f"have {len(bands)}. Run the Dataset Maker again."
        )
    if job.normalize and statistics is None:
        raise DatasetError(
            f"NORMALIZE is on, but DATASET_FOLDER {job.dataset_folder} holds no Normalize_Bands.csv. Run the Dataset "
            "Maker with STATISTICS on, or switch NORMALIZE off."
        )
    bad = statistics.bad if statistics is not None else tuple(band.bad for band in bands)
    if job.normalize and statistics is not None:
        return statistics
    return Normalization.none(len(bands), dataset.scale, bad)


def _network(job: TrainJob, bands: int, classes: int, progress: Progress) -> Network:
    """Build the network, load pretrained weights and freeze what is to be frozen."""
    weights = WEIGHTS[job.pretrained_weights]
    check_weights(job.pretrained_weights, job.backbone)
    if weights.encoder_weights is not None:
        network = _downloaded(job, bands, classes)
        pretrained, adapted = True, bands != 3
    else:
        network = build_network(job.architecture, job.backbone, bands, classes)
        pretrained = job.weights_file is not None
        adapted = False
        if job.weights_file is not None:
            share, adapted = load_weights_file(network, job.weights_file)
            progress.info(f"Backbone weights from {job.weights_file.name}: {100 * share:.1f} % of its tensors.")
    if job.freeze_backbone and pretrained:
        network.freeze_encoder(first_layer=not adapted)
        progress.info(
            "The backbone is frozen"
            + (f", but for its first layer, which was adapted to {bands} bands." if adapted else ".")
        )
    elif job.freeze_backbone:
        progress.info("The backbone starts from random weights, so it is not frozen.")
    return network


def _downloaded(job: TrainJob, bands: int, classes: int) -> Network:
    """Build the network with weights that the libraries download, or say what to do without internet.

    Raises:
        ConfigError: if they cannot be had.
    """
    encoder_weights = WEIGHTS[job.pretrained_weights].encoder_weights
    try:
        return build_network(job.architecture, job.backbone, bands, classes, encoder_weights)
    except (OSError, RuntimeError) as error:  # what the download libraries raise
        raise ConfigError(
            f"PRETRAINED_WEIGHTS {job.pretrained_weights} for BACKBONE {job.backbone} could not be downloaded "
            f"({type(error).__name__}). Without internet, copy a file with these weights here and name it in "
            "WEIGHTS_FILE, with PRETRAINED_WEIGHTS none."
        ) from error


def _card(job: TrainJob, dataset: Dataset, chip: Raster, normalization: Normalization) -> ModelCard:
    """Describe the model that is about to be trained."""
    return ModelCard(
        format=FORMAT,
        architecture=job.architecture,
        backbone=job.backbone,
        bands=tuple(band.name for band in chip.bands),
        wavelengths_nm=tuple(band.wavelength_nm for band in chip.bands),
        normalization=normalization,
        classes=dataset.classes,
        chip_width=chip.grid.width,
        chip_height=chip.grid.height,
        settings=training_settings(job),
        metrics={},
        fingerprint=dataset.fingerprint,
        trained_on=tuple(chip_mark(pair.name) for name in ("train", "validation") for pair in dataset.chips[name]),
        versions=library_versions(),
        date="",
    )


def _tell(
    job: TrainJob, dataset: Dataset, network: Network, device: torch.device, precision: str, progress: Progress
) -> None:
    """Tell the user what will be trained on what."""
    total, trained = network.parameter_counts()
    chips = {name: len(pairs) for name, pairs in dataset.chips.items()}
    progress.info(
        f"{ARCHITECTURES[job.architecture].title} with {job.backbone}: {total / 1e6:.2f} million parameters, "
        f"{trained / 1e6:.2f} million of them trained; {chips['train']} training and {chips['validation']} "
        f"validation chips, {len(dataset.classes)} classes; {device.type}, {precision}."
    )
    if job.class_weights:
        weights = zip(dataset.classes.names, dataset.weights, strict=True)
        progress.info("Class weights: " + ", ".join(f"{name} {weight:.2f}" for name, weight in weights) + ".")
    if not dataset.chips["validation"]:
        progress.warning(
            "There are no validation chips: the last epoch counts as the best, and EARLY_STOPPING has no effect."
        )
    if chips["train"] < math.ceil(job.batch_size / 2):
        progress.info(f"There are fewer training chips than half of BATCH_SIZE {job.batch_size}: one step per epoch.")
