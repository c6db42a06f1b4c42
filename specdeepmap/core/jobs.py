# SPDX-License-Identifier: GPL-3.0-or-later
"""The six Jobs and their Results: every input and output of SpecDeepMap on one page.

A Job holds all that one step needs, checks itself, saves as JSON and runs anywhere. The fields that
a form asks for are declared with ``ask``; the dialogs, ``qgis_process`` and the documentation show
these very labels and help texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from specdeepmap.core.data.classes import ClassEntry
from specdeepmap.core.data.options import COMPRESSIONS, EDGES, SPLITS
from specdeepmap.core.environment import DATA_MODULES, TORCH_MODULES
from specdeepmap.core.errors import ConfigError, nearest
from specdeepmap.core.learn.architectures import ARCHITECTURES, USUAL_BACKBONES
from specdeepmap.core.learn.options import DEVICES, OPTIMIZERS, PRECISIONS, SCHEDULERS
from specdeepmap.core.learn.weights import WEIGHTS
from specdeepmap.core.record import Record, ask, made, titles

_DEVICE = (
    "Where the network runs: auto takes a GPU where there is one and the processor otherwise; cpu; gpu "
    "(CUDA or Apple MPS; an error where there is none). Default: auto."
)
_CHECKPOINT = (
    "A model trained with the Deep Learning Trainer (.ckpt). Bands, scaling, classes and chip size are "
    "read from it; nothing of that is asked again."
)
_ANY = ";;All files (*)"
_CSV = "CSV files (*.csv *.CSV)" + _ANY
_CKPT = "Checkpoints (*.ckpt *.CKPT)" + _ANY


@dataclass(frozen=True, kw_only=True)
class Result(Record):
    """What a job made; every field is an output of the algorithm, under its upper-case name."""


@dataclass(frozen=True, kw_only=True)
class Job(Record):
    """Everything one step needs."""

    verb: ClassVar[str]
    result: ClassVar[type[Result]]
    modules: ClassVar[tuple[str, ...]] = DATA_MODULES
    """Modules that the job's Python must have."""

    def save(self, path: Path) -> None:
        """Write the job as JSON, for ``python -m specdeepmap.core``."""
        text = json.dumps({"job": self.verb, **self.to_json()}, indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class TileResult(Result):
    """What the Raster Splitter made."""

    output_folder: Path = made("folder", "Dataset folder")
    tile_count: int = made("number", "Chips written")
    skipped_count: int = made("number", "Chips left out")
    tile_index: Path = made("vector", "Chips")


@dataclass(frozen=True, kw_only=True)
class TileJob(Job):
    """Raster Splitter: cut a raster and its labels into chips."""

    verb: ClassVar[str] = "tile"
    result: ClassVar[type[Result]] = TileResult

    image: str = ask(
        "raster",
        "Image",
        "The raster to cut: any GDAL raster, any number of bands, any real number type.",
    )
    labels: str = ask(
        "labels",
        "Labels",
        "A raster of class ids, whole numbers from 0 to 255; 0 and its no-data value mean unlabelled. Or polygons or "
        "points with a class field. Labels on another grid or in another coordinate system are brought onto the "
        "image's grid (rasters: nearest neighbour; polygons: by pixel centres), and the log says so.",
    )
    class_field: str | None = ask(
        "field",
        "Class field (vector labels)",
        "The field of polygons or points that holds the class: ids from 1 to 255, or names as text, which get ids 1 "
        "to n in alphabetical order. Needed for vector labels. Default: not set.",
        None,
    )
    zero_as: int | None = ask(
        "integer",
        "Class for label value 0",
        "Label value 0 becomes this class id (1 to 255). Set it for masks of 0 and 1, where 0 is a class "
        "of its own. Default: not set, 0 means unlabelled.",
        None,
        minimum=1,
        maximum=255,
        advanced=True,
    )
    tile_size_x: int = ask(
        "integer",
        "Chip width (pixels)",
        "Width of a chip in pixels, at least 8. Default: 256. Smaller chips suit small scenes and sparse "
        "labels, larger ones show the network more surroundings.",
        256,
        minimum=8,
    )
    tile_size_y: int = ask(
        "integer",
        "Chip height (pixels)",
        "Height of a chip in pixels, at least 8. Default: 256.",
        256,
        minimum=8,
    )
    step_x: int = ask(
        "integer",
        "Horizontal step (pixels)",
        "Distance in pixels between the left borders of neighbouring chips. Default: 256. Smaller than "
        "the chip width = overlapping chips: more of them, but chips of different sets then share "
        "ground, which makes accuracy look better than it is. Larger = gaps.",
        256,
        minimum=1,
    )
    step_y: int = ask(
        "integer",
        "Vertical step (pixels)",
        "Distance in pixels between the upper borders of neighbouring chips. Default: 256.",
        256,
        minimum=1,
    )
    min_label_coverage: float = ask(
        "number",
        "Minimum label coverage (%)",
        "A chip is kept when at least this share of its pixels is labelled, in percent of the whole "
        "chip. Default: 50. Use a low value for sparse labels; 0 keeps every chip.",
        50.0,
        minimum=0,
        maximum=100,
    )
    edges: str = ask(
        "choice",
        "Chips over the border",
        "What happens to a chip that reaches over the right or lower border: pad fills it up with "
        "no-data (mirrored pixels where the image has no no-data value) and label 0; shift moves it "
        "inside; drop leaves it out. Default: pad.",
        "pad",
        options=titles(EDGES),
        advanced=True,
    )
    nodata: float | None = ask(
        "number",
        "No-data value of the image",
        "Overrides the image's own no-data value, in image units. Default: not set, the image's own. Set "
        "it when the image marks missing pixels by a value that its file does not declare.",
        None,
        advanced=True,
    )
    compression: str = ask(
        "choice",
        "Compression of the chips",
        "How the chips are compressed: none, lzw, deflate or zstd. Default: zstd, in our measurements the fastest of "
        "those that compress; none is faster still and takes more room. Choose another for software that cannot "
        "read it.",
        "zstd",
        options=titles(COMPRESSIONS),
        advanced=True,
    )
    output_folder: Path = ask(
        "folder_out",
        "Output folder",
        "The dataset folder: images/, labels/ and tiles.gpkg are written into it. Chips of the same image "
        "in it are replaced, those of other images stay.",
    )
    classes: tuple[ClassEntry, ...] = ()
    """Names and colours known from the layer's renderer; they win over those in the label file."""


@dataclass(frozen=True, kw_only=True)
class PrepareResult(Result):
    """What the Dataset Maker made."""

    output_folder: Path = made("folder", "Dataset folder")
    train_csv: Path = made("file", "Training files")
    validation_csv: Path = made("file", "Validation files")
    test_csv: Path = made("file", "Test files")
    summary_csv: Path = made("file", "Class summary")
    statistics_csv: Path | None = made("file", "Band statistics")
    report: Path = made("html", "Report")


@dataclass(frozen=True, kw_only=True)
class PrepareJob(Job):
    """Dataset Maker: split chips into training, validation and test sets."""

    verb: ClassVar[str] = "prepare"
    result: ClassVar[type[Result]] = PrepareResult

    data_folder: Path = ask(
        "folder", "Folder with chips", "The folder that holds images/ and labels/, made by the Raster Splitter."
    )
    train_percent: float = ask(
        "number",
        "Training chips (%)",
        "Share of the chips to train on, in percent. Default: 80. The three shares may add up to less "
        "than 100; the rest is then left out.",
        80.0,
        minimum=0,
        maximum=100,
    )
    validation_percent: float = ask(
        "number",
        "Validation chips (%)",
        "Share of the chips that choose the best model during training, in percent. Default: 10.",
        10.0,
        minimum=0,
        maximum=100,
    )
    test_percent: float = ask(
        "number",
        "Test chips (%)",
        "Share of the chips kept for the accuracy assessment, in percent. Default: 10.",
        10.0,
        minimum=0,
        maximum=100,
    )
    split: str = ask(
        "choice",
        "Split",
        "stratified gives the three sets class shares that are as equal as possible; blocks does so with spatial "
        "blocks of chips, so that the sets lie apart: the honest choice where neighbouring chips are alike; random "
        "draws chips by chance; given takes the sets from the field split of tiles.gpkg (train, validation, test), "
        "which you may edit in QGIS; the percentages are then ignored. Default: stratified.",
        "stratified",
        options=titles(SPLITS),
    )
    block_size: int = ask(
        "integer",
        "Block size (pixels, 0 = automatic)",
        "Side of a square block in pixels, for SPLIT blocks. Default: 0 = auto, as large as leaves about two dozen "
        "blocks.",
        0,
        minimum=0,
        advanced=True,
    )
    buffer: int = ask(
        "integer",
        "Buffer (pixels)",
        "Chips of different sets keep at least this distance, for SPLIT blocks; chips that come nearer are left "
        "out. Default: 0, they may touch but never overlap.",
        0,
        minimum=0,
        advanced=True,
    )
    scaler: float | None = ask(
        "number",
        "Scaler",
        "Divides all image values, for example 10000 to turn stored integers into reflectance. It is "
        "recorded, and applied in training and prediction. Default: not set, values stay as they are; "
        "not needed when the bands are normalised.",
        None,
        above=0,
    )
    statistics: bool = ask(
        "flag",
        "Compute band statistics",
        "Write mean and standard deviation of each band over the training chips, without no-data, to "
        "Normalize_Bands.csv. The trainer needs them to normalise. Default: yes.",
        True,
    )
    seed: int = ask(
        "integer",
        "Random seed",
        "Same seed, same split. Default: 42.",
        42,
        minimum=0,
        advanced=True,
    )
    output_folder: Path | None = ask(
        "folder_out",
        "Output folder (if skipped: the folder with chips)",
        "Where the tables are written. Default: empty, the folder with chips. Elsewhere, tiles.gpkg is "
        "copied along and the folder with chips stays untouched.",
        None,
    )

    def check(self) -> None:
        total = self.train_percent + self.validation_percent + self.test_percent
        if total > 100 + 1e-9:
            raise ConfigError(
                f"TRAIN_PERCENT, VALIDATION_PERCENT and TEST_PERCENT add up to {total:g}; "
                "they may be 100 together. Lower one of them."
            )
        for name, value in (("BLOCK_SIZE", self.block_size), ("BUFFER", self.buffer)):
            if value and self.split != "blocks":
                raise ConfigError(f"{name} is {value}, but only SPLIT blocks uses it; SPLIT is {self.split}.")
        if self.split != "given" and total == 0:
            raise ConfigError("TRAIN_PERCENT, VALIDATION_PERCENT and TEST_PERCENT are all 0; raise one of them.")


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
        "The network's design. unet is a sound first choice; unetplusplus joins scales more densely and is "
        "slower; deeplabv3plus, deeplabv3, pspnet and upernet see wide surroundings; segformer, fpn and linknet have "
        "light decoders; manet and pan use attention (pan pads chips below 128 pixels). Default: unet.",
        "unet",
        options=titles(ARCHITECTURES),
    )
    backbone: str = ask(
        "text",
        "Backbone",
        "The encoder inside the network: any encoder name of segmentation-models-pytorch (resnet18, "
        "resnet50, efficientnet-b0, mit_b0 …) or tu- followed by a timm name (tu-convnext_tiny). Default: "
        "resnet18. Larger ones need more chips and memory.",
        "resnet18",
        suggestions=USUAL_BACKBONES,
    )
    pretrained_weights: str = ask(
        "choice",
        "Pretrained weights",
        "What the backbone starts from: none (random) or imagenet (photographs; downloaded once). Default: none.",
        "none",
        options=titles(WEIGHTS),
    )
    weights_file: Path | None = ask(
        "file",
        "Weights file for the backbone",
        "Encoder weights from disk (pth, pt, ckpt, bin or safetensors), instead of a download. Default: "
        "not set. Only tensors are read from the file; it cannot run code.",
        None,
        files="Weights (*.pth *.pt *.ckpt *.bin *.safetensors)" + _ANY,
        advanced=True,
    )
    freeze_backbone: bool = ask(
        "flag",
        "Freeze the backbone",
        "Keep pretrained backbone weights fixed and train the rest. It takes effect with pretrained "
        "weights or a weights file only; random weights, and a first layer adapted to another number of "
        "bands, are always trained, and the log says so. Default: yes.",
        True,
    )
    augmentation: bool = ask(
        "flag",
        "Augmentation",
        "Flip and turn image and mask together, by chance, in each epoch. Default: yes. Switch it off "
        "where direction matters.",
        True,
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
        "Weigh the loss so that rare classes count as much as frequent ones; weights come from the "
        "summary table. Default: yes.",
        True,
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
    learning_rate: float = ask(
        "number",
        "Learning rate",
        "Size of the steps of the optimiser at its peak. Default: 0.001. Lower it when the loss jumps or becomes NaN.",
        0.001,
        above=0,
    )
    device: str = ask("choice", "Device", _DEVICE, "auto", options=titles(DEVICES))
    optimizer: str = ask(
        "choice",
        "Optimiser",
        "adam, adamw (weight decay kept apart from the gradient) or sgd (momentum 0.9). Default: adam.",
        "adam",
        options=titles(OPTIMIZERS),
        advanced=True,
    )
    weight_decay: float = ask(
        "number",
        "Weight decay",
        "Pulls weights towards 0, against overfitting. Default: 0. Try 0.01 with adamw.",
        0.0,
        minimum=0,
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
        "Numbers the network computes with: float32, bfloat16 or float16 (GPU only). auto takes bfloat16 on "
        "a GPU that has it and float32 elsewhere. Default: auto.",
        "auto",
        options=titles(PRECISIONS),
        advanced=True,
    )
    num_workers: int = ask(
        "integer",
        "Loader processes (−1 = automatic)",
        "Processes that read chips ahead. −1 = auto: none where all chips fit into memory, else one per "
        "core, four at most. Default: −1.",
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
        "Where the TensorBoard logs are written. Default: empty, runs/<date-time>/logs in the dataset folder.",
        None,
    )
    model_folder: Path | None = ask(
        "folder_out",
        "Model folder (if skipped: in the dataset folder)",
        "Where the checkpoints are written. Default: empty, runs/<date-time>/models in the dataset folder.",
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


@dataclass(frozen=True, kw_only=True)
class TensorBoardResult(Result):
    """Where TensorBoard answers."""

    url: str = made("text", "Address")
    port: int = made("number", "Port")


@dataclass(frozen=True, kw_only=True)
class TensorBoardJob(Job):
    """TensorBoard Launcher: watch a training in the browser."""

    verb: ClassVar[str] = "tensorboard"
    result: ClassVar[type[Result]] = TensorBoardResult
    modules: ClassVar[tuple[str, ...]] = ("osgeo", "numpy", "tensorboard")

    log_folder: Path = ask(
        "folder",
        "Log folder",
        "The folder with the trainer's TensorBoard logs, or one above several of them to compare runs.",
    )
    port: int = ask(
        "integer",
        "Port",
        "The port on this computer (127.0.0.1) to listen on; if it is taken, the next free one; 0 = any. "
        "Default: 6006.",
        6006,
        minimum=0,
        maximum=65535,
    )
    open_browser: bool = ask("flag", "Open the browser", "Show the page once it answers. Default: yes.", True)
    duration: float = ask(
        "number",
        "Duration (seconds, 0 = until QGIS closes)",
        "Stop the server after this many seconds; the algorithm waits that long. Default: 0: in QGIS the "
        "server runs on until QGIS closes; in qgis_process it stays in the foreground until Ctrl-C.",
        0.0,
        minimum=0,
        advanced=True,
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateResult(Result):
    """What the Deep Learning Tester measured and wrote."""

    scores_csv: Path = made("file", "Score table")
    confusion_csv: Path = made("file", "Confusion matrix")
    chip_scores_csv: Path | None = made("file", "Scores per chip")
    prediction_folder: Path | None = made("folder", "Predictions")
    mean_iou: float = made("number", "Mean IoU")
    overall_accuracy: float = made("number", "Overall accuracy")
    macro_f1: float = made("number", "Macro F1")
    kappa: float = made("number", "Kappa")


@dataclass(frozen=True, kw_only=True)
class EvaluateJob(Job):
    """Deep Learning Tester: score a model on test chips."""

    verb: ClassVar[str] = "evaluate"
    result: ClassVar[type[Result]] = EvaluateResult
    modules: ClassVar[tuple[str, ...]] = TORCH_MODULES

    test_csv: Path = ask(
        "file",
        "Test files",
        "The table test_files.csv of the Dataset Maker (columns image and mask).",
        files=_CSV,
    )
    checkpoint: Path = ask("file", "Checkpoint", _CHECKPOINT, files=_CKPT)
    device: str = ask("choice", "Device", _DEVICE, "auto", options=titles(DEVICES))
    batch_size: int = ask(
        "integer",
        "Batch size (chips, 0 = automatic)",
        "Chips per step. Default: 0 = auto, as many as make about 4 million values. It does not change the scores.",
        0,
        minimum=0,
        advanced=True,
    )
    mask_unlabelled: bool = ask(
        "flag",
        "Mask unlabelled pixels",
        "Exported predictions are 0 where the label is 0. Default: yes. Scores never count such pixels.",
        True,
    )
    scores_csv: Path = ask(
        "file_out",
        "Score table",
        "IoU, precision, recall, F1 and pixel count of each class, and the mean IoU, as CSV.",
        files=_CSV,
        suffix="csv",
    )
    confusion_csv: Path | None = ask(
        "file_out",
        "Confusion matrix (if skipped: beside the score table)",
        "Pixels by true class (rows) and predicted class (columns), as CSV. Default: beside the score "
        "table, its name with _confusion.",
        None,
        files=_CSV,
        suffix="csv",
        advanced=True,
    )
    chip_scores_csv: Path | None = ask(
        "file_out",
        "Scores per chip",
        "Mean IoU and accuracy of each chip, to find the worst ones. Default: not written.",
        None,
        files=_CSV,
        suffix="csv",
        advanced=True,
    )
    prediction_folder: Path | None = ask(
        "folder_out",
        "Folder for predictions",
        "Write the predicted classes of each chip as <chip>_prediction.tif. Default: not written.",
        None,
    )

    def check(self) -> None:
        tables = [path for path in (self.scores_csv, self.confusion_csv, self.chip_scores_csv) if path is not None]
        if len(set(tables)) < len(tables):
            raise ConfigError("SCORES_CSV, CONFUSION_CSV and CHIP_SCORES_CSV must be different files.")


@dataclass(frozen=True, kw_only=True)
class PredictResult(Result):
    """What the Deep Learning Mapper made."""

    output: Path = made("raster", "Map")
    confidence: Path | None = made("raster", "Confidence")
    vector: Path | None = made("vector", "Polygons")
    scores_csv: Path | None = made("file", "Score table")
    mean_iou: float | None = made("number", "Mean IoU")
    overall_accuracy: float | None = made("number", "Overall accuracy")
    classes: tuple[ClassEntry, ...] = ()
    """Names and colours to show the map with; no output of its own."""


@dataclass(frozen=True, kw_only=True)
class PredictJob(Job):
    """Deep Learning Mapper: map a whole raster with a model."""

    verb: ClassVar[str] = "predict"
    result: ClassVar[type[Result]] = PredictResult
    modules: ClassVar[tuple[str, ...]] = TORCH_MODULES

    image: str = ask(
        "raster",
        "Image",
        "The raster to map, of any size, with the bands that the model was trained on, in the same order "
        "and the same units.",
    )
    checkpoint: Path = ask("file", "Checkpoint", _CHECKPOINT, files=_CKPT)
    ground_truth: str | None = ask(
        "raster",
        "Ground truth",
        "A label raster that scores the map; another grid is warped (nearest neighbour). It never changes "
        "the map. Default: none.",
        None,
    )
    extent: tuple[float, ...] | None = ask(
        "extent",
        "Extent",
        "Map only this part of the image. Default: the whole image.",
        None,
        advanced=True,
    )
    overlap: float = ask(
        "number",
        "Overlap (%)",
        "Share of a tile that is cropped on each side, so that tile borders do not show in the map. "
        "Default: 10. More is smoother and slower.",
        10.0,
        minimum=0,
        maximum=45,
    )
    device: str = ask("choice", "Device", _DEVICE, "auto", options=titles(DEVICES))
    tile_size: int = ask(
        "integer",
        "Tile size (pixels, 0 = automatic)",
        "Width and height of the tiles the image is mapped in. Default: 0 = auto, at least the chip size of the model.",
        0,
        minimum=0,
        advanced=True,
    )
    batch_size: int = ask(
        "integer",
        "Batch size (tiles, 0 = automatic)",
        "Tiles per step. Default: 0 = auto, as many as make about 4 million values.",
        0,
        minimum=0,
        advanced=True,
    )
    output: Path = ask(
        "raster_out",
        "Map",
        "Class ids as a Byte raster; 0 = no data; with class names, colours and overviews.",
        suffix="tif",
    )
    confidence: Path | None = ask(
        "raster_out",
        "Confidence",
        "Probability of the chosen class, 0 to 1. Default: not written.",
        None,
        suffix="tif",
    )
    vector: Path | None = ask(
        "vector_out",
        "Polygons",
        "The map as polygons with class id, name and area in square metres. Default: not written.",
        None,
        suffix="gpkg",
    )
    scores_csv: Path | None = ask(
        "file_out",
        "Score table",
        "IoU, precision, recall and F1 of each class against the ground truth, as CSV. Default: not written.",
        None,
        files=_CSV,
        suffix="csv",
    )

    def check(self) -> None:
        for name, path in (("OUTPUT", self.output), ("CONFIDENCE", self.confidence)):
            if path is not None and path.suffix.lower() not in (".tif", ".tiff"):
                raise ConfigError(f"{name} is {path}; it is written as GeoTIFF, so its name must end in .tif.")
        if self.scores_csv is not None and self.ground_truth is None:
            raise ConfigError("SCORES_CSV is set, but scores need GROUND_TRUTH; name a label raster there.")
        if self.extent is not None:
            if len(self.extent) != 4:
                raise ConfigError("EXTENT must hold four numbers: xmin, ymin, xmax, ymax in the image's units.")
            if not (self.extent[0] < self.extent[2] and self.extent[1] < self.extent[3]):
                raise ConfigError(f"EXTENT {list(self.extent)} is empty; it is xmin, ymin, xmax, ymax.")


JOBS: dict[str, type[Job]] = {
    kind.verb: kind for kind in (TileJob, PrepareJob, TrainJob, TensorBoardJob, EvaluateJob, PredictJob)
}
"""Verb to job, in the order of work."""


def job_from_json(values: Mapping[str, Any]) -> Job:
    """Make the job that a ``job.json`` describes.

    Raises:
        ConfigError: if its verb or one of its parameters is wrong.
    """
    if not isinstance(values, Mapping):
        raise ConfigError('A job file must hold one JSON object: {"job": "train", …}.')
    verb = str(values.get("job", ""))
    if verb not in JOBS:
        raise ConfigError(f"job is '{verb}'.{nearest(verb, JOBS)} It can be: {', '.join(JOBS)}.")
    return JOBS[verb].from_json({name: value for name, value in values.items() if name != "job"})
