# SPDX-License-Identifier: GPL-3.0-or-later
"""The job to train a network: the Deep Learning Trainer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from specdeepmap.core.environment import TORCH_MODULES
from specdeepmap.core.errors import ConfigError
from specdeepmap.core.jobs.base import ANY_FILES, CHECKPOINT_FILES, DEVICE_HELP, PRECISION_HELP, Job, Result
from specdeepmap.core.learn.architectures import ARCHITECTURES, AUTO, USUAL_BACKBONES
from specdeepmap.core.learn.losses import LOSSES
from specdeepmap.core.learn.options import DEVICES, OPTIMIZERS, PRECISIONS, SCHEDULERS
from specdeepmap.core.learn.weights import WEIGHTS
from specdeepmap.core.record import ask, made, titles


@dataclass(frozen=True, kw_only=True)
class TrainResult(Result):
    """What the Deep Learning Trainer made."""

    best_checkpoint: Path = made("file", "Best checkpoint")
    last_checkpoint: Path = made("file", "Last checkpoint")
    best_val_iou: float = made("number", "Best validation mean IoU")
    epochs_trained: int = made("number", "Epochs trained")
    history_csv: Path = made("file", "History")
    log_folder: Path = made("folder", "Log folder")
    model_folder: Path = made("folder", "Model folder")
    report: Path = made("html", "Training report")


@dataclass(frozen=True, kw_only=True)
class TrainJob(Job):
    """Deep Learning Trainer: train a network on a dataset folder."""

    verb: ClassVar[str] = "train"
    result: ClassVar[type[Result]] = TrainResult
    modules: ClassVar[tuple[str, ...]] = TORCH_MODULES

    dataset_folder: Path = ask("folder", "Dataset folder", "The folder with the tables that the Dataset Maker wrote.")
    architecture: str = ask(
        "choice",
        "Architecture",
        "The network's design. auto takes spectral with less than three million labelled pixels and unet otherwise, "
        "and the log says which and why. unet is a sound choice for many labels; unetplusplus joins scales more "
        "densely and is slower; deeplabv3plus, deeplabv3, pspnet and upernet see wide surroundings; segformer, fpn and "
        "linknet have light decoders; manet and pan use attention (pan pads chips below 128 pixels); dpt works with "
        "vision transformers as backbone. spectral is a compact network for few labels and many bands, "
        "justo_unet_simple a tiny one made for satellites; both have no backbone. Default: auto.",
        AUTO,
        options=lambda: {AUTO: "Automatic", **titles(ARCHITECTURES)()},
    )
    backbone: str = ask(
        "text",
        "Backbone",
        "The encoder inside the network: any encoder name of segmentation-models-pytorch (resnet18, "
        "resnet50, efficientnet-b0, mit_b0 …) or tu- followed by a timm name (tu-convnext_tiny). Default: "
        "resnet18. Larger ones need more chips and memory. Architectures without a backbone do not look at it.",
        "resnet18",
        suggestions=USUAL_BACKBONES,
    )
    pretrained_weights: str = ask(
        "choice",
        "Pretrained weights",
        "What the backbone starts from: none (random), imagenet (photographs), or a set trained on satellite images, "
        "which fits one backbone and certain bands (see the documentation). Downloaded once. Default: none.",
        "none",
        options=titles(WEIGHTS),
    )
    weights_file: Path | None = ask(
        "file",
        "Weights file for the backbone",
        "Encoder weights from disk (pth, pt, ckpt, bin or safetensors), instead of a download. Default: "
        "not set. Only tensors are read from the file; it cannot run code.",
        None,
        files="Weights (*.pth *.PTH *.pt *.PT *.ckpt *.CKPT *.bin *.BIN *.safetensors *.SAFETENSORS)" + ANY_FILES,
        advanced=True,
    )
    init_checkpoint: Path | None = ask(
        "file",
        "Start from a model",
        "A checkpoint of ours to go on from or to fine-tune, also for other classes: then the last layers start anew. "
        "Architecture, backbone, scaling and band statistics are those of the model. Default: not set.",
        None,
        files=CHECKPOINT_FILES,
    )
    resume: bool = ask(
        "flag",
        "Resume an interrupted training",
        "Go on with the run whose last.ckpt lies in the model folder, with the same parameters: it ends where it would "
        "have ended without the interruption. Default: no.",
        False,
        advanced=True,
    )
    freeze_backbone: bool = ask(
        "flag",
        "Freeze the backbone",
        "Keep pretrained backbone weights fixed and train the rest. It takes effect with pretrained weights, a "
        "weights file or a model to start from only; random weights, and a first layer adapted to another number of "
        "bands, are always trained, and the log says so. Default: yes.",
        True,
    )
    unfreeze_epoch: int = ask(
        "integer",
        "Unfreeze the backbone after (epochs, 0 = never)",
        "A frozen backbone is trained, too, after this many epochs, at a tenth of the learning rate. Default: 0 = it "
        "stays frozen. Try 10 where there are many chips.",
        0,
        minimum=0,
        advanced=True,
    )
    augmentation: bool = ask(
        "flag",
        "Augmentation",
        "Flip and turn image and mask together, by chance, in each epoch; the advanced parameters add more. Default: "
        "yes. Switch it off where direction matters; the others are off then, too.",
        True,
    )
    augment_rotation: float = ask(
        "number",
        "Augmentation: rotation (degrees)",
        "Rotate half of the chips of each batch by chance, by at most this angle either way; corners that come in "
        "from outside are unlabelled. Default: 0 = off. 15 to 45 suits most scenes; quarter turns are part of "
        "Augmentation.",
        0.0,
        minimum=0,
        maximum=180,
        advanced=True,
    )
    augment_scale: float = ask(
        "number",
        "Augmentation: scale (%)",
        "Zoom half of the chips in or out by chance, by at most this much: 25 = by a factor from 0.8 to 1.25. "
        "Default: 0 = off. Use it where objects differ in size.",
        0.0,
        minimum=0,
        maximum=100,
        advanced=True,
    )
    augment_noise: float = ask(
        "number",
        "Augmentation: noise (standard deviations)",
        "Add Gaussian noise to the values of half of the chips, in standard deviations of a band where the bands "
        "are normalised, in image units after the scaler otherwise. Missing data stays missing. Default: 0 = off. "
        "Try 0.05.",
        0.0,
        minimum=0,
        maximum=2,
        advanced=True,
    )
    augment_gain: float = ask(
        "number",
        "Augmentation: gain (%)",
        "Multiply each band, and the chip as a whole, by factors around 1 with this standard deviation, as other "
        "light or another sensor would; half of the chips. Default: 0 = off. Try 5.",
        0.0,
        minimum=0,
        maximum=50,
        advanced=True,
    )
    augment_band_drop: float = ask(
        "number",
        "Augmentation: band dropping (%)",
        "Set this share of the bands to 0 in half of the chips, others each time, so that the network does not "
        "lean on a few. Default: 0 = off. Try 10 for images of many bands, with a network that has a backbone: the "
        "spectral network weighs all bands against each other, and loses more than it wins.",
        0.0,
        minimum=0,
        maximum=90,
        advanced=True,
    )
    augment_cutout: float = ask(
        "number",
        "Augmentation: cut-out (%)",
        "Hide a rectangle of at most this share of the chip, image and labels, in half of the chips. Default: 0 = "
        "off. Try 15.",
        0.0,
        minimum=0,
        maximum=75,
        advanced=True,
    )
    early_stopping: bool = ask(
        "flag",
        "Early stopping",
        "Stop when the mean IoU on the validation chips has not risen for a while (see Patience). Default: yes.",
        True,
    )
    patience: int = ask(
        "integer",
        "Patience (epochs)",
        "Epochs without a better validation mean IoU before early stopping ends the training. Default: 20.",
        20,
        minimum=1,
        advanced=True,
    )
    class_weights: bool = ask(
        "flag",
        "Class weights",
        "Weigh the loss so that rare classes count more; weights come from the summary table. Default: yes.",
        True,
    )
    class_weight_power: float = ask(
        "number",
        "Strength of the class weights (0–1)",
        "The weights of the summary table to this power: 1 lets rare classes count as much as frequent ones, 0.5 takes "
        "the square root, 0 is no weighting. Default: 0.5.",
        0.5,
        minimum=0,
        maximum=1,
        advanced=True,
    )
    normalize: bool = ask(
        "flag",
        "Normalise the bands",
        "Bring each band to mean 0 and standard deviation 1 with the statistics of the Dataset Maker. Default: yes.",
        True,
    )
    batch_size: int = ask(
        "integer",
        "Batch size (chips)",
        "Chips per training step. Default: 8. Larger is steadier and needs more memory.",
        8,
        minimum=1,
    )
    epochs: int = ask(
        "integer",
        "Epochs",
        "How often the training goes through all training chips, at most. Default: 50.",
        50,
        minimum=1,
    )
    learning_rate: float | None = ask(
        "number",
        "Learning rate (if skipped: what suits the architecture)",
        "Size of the steps of the optimiser at its peak. Default: empty = 0.003 for spectral, 0.001 for all other "
        "architectures; the log says which. Lower it when the loss jumps or becomes NaN.",
        None,
        above=0,
        maximum=100,
    )
    lr_finder: bool = ask(
        "flag",
        "Find the learning rate",
        "Try out growing learning rates on a copy of the network first, and use the rate found instead of the one "
        "above; the log says which. It takes a few hundred steps. Default: no.",
        False,
    )
    device: str = ask("choice", "Device", DEVICE_HELP, "auto", options=titles(DEVICES))
    loss: str = ask(
        "choice",
        "Loss",
        "What training makes small: cross_entropy; dice, which looks at the overlap of whole classes; focal, which "
        "looks at difficult pixels; cross_entropy_dice, the sum of both; lovasz, a stand-in for the IoU. Default: "
        "cross_entropy.",
        "cross_entropy",
        options=titles(LOSSES),
        advanced=True,
    )
    optimizer: str = ask(
        "choice",
        "Optimiser",
        "adam, adamw (weight decay kept apart from the gradient) or sgd (momentum 0.9). Default: adamw.",
        "adamw",
        options=titles(OPTIMIZERS),
        advanced=True,
    )
    weight_decay: float = ask(
        "number",
        "Weight decay",
        "Pulls weights towards 0, against overfitting. Default: 0.01, which suits adamw; with adam take 0.",
        0.01,
        minimum=0,
        maximum=10,
        advanced=True,
    )
    gradient_clip: float = ask(
        "number",
        "Largest norm of the gradients (0 = any)",
        "Longer gradients are cut to this, against jumps of the loss. Default: 0 = they are not. Try 1.",
        0.0,
        minimum=0,
        maximum=100000,
        advanced=True,
    )
    scheduler: str = ask(
        "choice",
        "Learning-rate schedule",
        "cosine warms up over the first twentieth of all steps and falls smoothly to 0; plateau divides "
        "the rate by 10 when the validation loss has not fallen for 5 epochs; one_cycle rises and falls "
        "once; constant stays. Default: cosine.",
        "cosine",
        options=titles(SCHEDULERS),
        advanced=True,
    )
    precision: str = ask(
        "choice",
        "Precision",
        PRECISION_HELP,
        "auto",
        options=titles(PRECISIONS),
        advanced=True,
    )
    devices: int = ask(
        "integer",
        "Devices",
        "How many GPUs, or processes on the processor, train together; each takes batches of the batch size. "
        "Default: 1.",
        1,
        minimum=1,
        advanced=True,
    )
    halve_batch_size: bool = ask(
        "flag",
        "Halve the batch size when memory runs out",
        "Start again with half of the batch size instead of ending with an error. Default: no.",
        False,
        advanced=True,
    )
    num_workers: int = ask(
        "integer",
        "Loader threads (−1 = automatic)",
        "Threads that read chips ahead. −1 = auto: one per core, four at most; none where all chips fit into memory "
        "and the processor trains. Default: −1.",
        -1,
        minimum=-1,
        advanced=True,
    )
    save_top_k: int = ask(
        "integer",
        "Checkpoints to keep (−1 = all)",
        "How many of the best checkpoints are kept; −1 = one per epoch. Default: 1.",
        1,
        minimum=-1,
        advanced=True,
    )
    seed: int = ask(
        "integer",
        "Random seed",
        "Same seed, same machine, processor: same result. Default: 42.",
        42,
        minimum=0,
        advanced=True,
    )
    log_folder: Path | None = ask(
        "folder_out",
        "Log folder (if skipped: in the dataset folder)",
        "Where the TensorBoard logs are written. Default: empty, runs/DATE_TIME/logs in the dataset folder.",
        None,
    )
    model_folder: Path | None = ask(
        "folder_out",
        "Model folder (if skipped: in the dataset folder)",
        "Where the checkpoints are written. Default: empty, runs/DATE_TIME/models in the dataset folder.",
        None,
    )

    def check(self) -> None:
        if self.save_top_k == 0:
            raise ConfigError("SAVE_TOP_K is 0; keep at least 1 checkpoint, or -1 for one per epoch.")
        if self.weights_file is not None and self.pretrained_weights != "none":
            raise ConfigError(
                f"WEIGHTS_FILE and PRETRAINED_WEIGHTS={self.pretrained_weights} are both set; "
                "the backbone can start from one only. Set PRETRAINED_WEIGHTS to none."
            )
        if self.init_checkpoint is not None and (self.weights_file is not None or self.pretrained_weights != "none"):
            name = "WEIGHTS_FILE" if self.weights_file is not None else "PRETRAINED_WEIGHTS"
            raise ConfigError(
                f"INIT_CHECKPOINT and {name} are both set; a training can start from one only. Leave {name} out."
            )
        if self.resume and self.model_folder is None:
            raise ConfigError("RESUME is on, but MODEL_FOLDER is not set. Name the folder of the interrupted run.")

    def augmentations(self) -> dict[str, float]:
        """Give the strength of each augmentation that is on, under its name in ``AUGMENTATIONS``."""
        strengths = {
            "flips_and_turns": 1.0,
            "rotation": self.augment_rotation,
            "scale": self.augment_scale / 100,
            "noise": self.augment_noise,
            "gain": self.augment_gain / 100,
            "band_drop": self.augment_band_drop / 100,
            "cutout": self.augment_cutout / 100,
        }
        return {name: strength for name, strength in strengths.items() if strength and self.augmentation}

    def unused_augmentations(self) -> list[str]:
        """Name the parameters of augmentations that are set while augmentation is off."""
        names = [name for name in self.to_json() if name.startswith("augment_") and getattr(self, name)]
        return [] if self.augmentation else [name.upper() for name in names]
