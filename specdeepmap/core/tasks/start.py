# SPDX-License-Identifier: GPL-3.0-or-later
"""What a training starts from: random or pretrained weights, a model of ours, or its own interrupted run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specdeepmap.core.data.classes import ClassTable
from specdeepmap.core.data.dataset import Dataset
from specdeepmap.core.data.normalization import Normalization
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.errors import CheckpointError, ConfigError, DatasetError
from specdeepmap.core.jobs import TrainJob
from specdeepmap.core.learn.architectures import (
    ARCHITECTURES,
    AUTO,
    build_network,
    check_backbone,
    choose_architecture,
)
from specdeepmap.core.learn.bandcheck import warn_of_other_bands, warn_of_other_values
from specdeepmap.core.learn.callbacks import Row, patience_is_over, read_history
from specdeepmap.core.learn.checkpoint import (
    OTHERS_KEY,
    SCHEDULE_KEY,
    WARNINGS_KEY,
    ModelCard,
    load_checkpoint,
    parse_checkpoint,
    rebuild_network,
)
from specdeepmap.core.learn.keeping import LAST_NAME
from specdeepmap.core.learn.network import Network
from specdeepmap.core.learn.weightfile import read_tensors
from specdeepmap.core.learn.weights import Loaded, check_weights, known_file, load_weights, load_weights_file
from specdeepmap.core.learn.weightsets import own_normalization, unlikely_values
from specdeepmap.core.progress import Progress

_MAY_DIFFER = {
    *("epochs", "early_stopping", "patience", "save_top_k", "num_workers", "resume", "device", "devices"),
    *("precision", "lr_finder", "learning_rate", "halve_batch_size"),
}
"""Parameters that a resumed training may change. What makes its numbers differ from those of one that was not
interrupted is logged."""

DOWNLOAD_SHARE = 0.05
"""Of the progress that a download shows; the epochs then go on from there."""

ALL, ALL_BUT_FIRST = "all", "all but the first layer"

_MATTERS = ("device", "devices", "precision", "epochs")


@dataclass(frozen=True)
class Interrupted:
    """Where an interrupted training stood.

    Attributes:
        card: of its last checkpoint.
        rows: one per epoch.
        optimizer, schedule: their states.
        others: names of the checkpoints that lay in its folder before.
        warnings, kinds: what it warned of.
    """

    card: ModelCard
    rows: list[Row]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    others: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Start:
    """A network ready to be trained, and what it wants to see.

    Attributes:
        network: with its weights; what stays fixed is frozen.
        architecture, backbone: names in the tables; the backbone is empty where the design has none.
        normalization: of raw values.
        why: why the architecture was chosen, where it was.
        frozen: what of the backbone is: nothing, "all", or "all but the first layer".
        anew: whether the network starts from random weights, those of a backbone aside.
        new_head: whether its last layers do.
        known_chips: marks of the chips that its weights have seen in earlier trainings.
        interrupted: the run that goes on.
    """

    network: Network
    architecture: str
    backbone: str
    normalization: Normalization
    why: str = ""
    frozen: str = ""
    anew: bool = False
    new_head: bool = False
    known_chips: tuple[str, ...] = ()
    interrupted: Interrupted | None = None


@dataclass
class Beginning:
    """Finds what a training starts from, and tells the user.

    Args:
        job: the parameters.
        dataset: to train on.
        chip: the first training chip.
        labelled: labelled training pixels.
        progress: is told.
    """

    job: TrainJob
    dataset: Dataset
    chip: Raster
    labelled: int
    progress: Progress
    _bands: int = field(init=False)

    def __post_init__(self) -> None:
        self._bands = len(self.chip.bands)

    def start(self) -> Start:
        """Give the start that the job asks for.

        Raises:
            ConfigError, CheckpointError, DatasetError: if it cannot be had.
        """
        if self.job.resume:
            return self._resume()
        if self.job.init_checkpoint is not None:
            return self._from_model(self.job.init_checkpoint)
        return self._anew()

    def _anew(self) -> Start:
        """Start from random or pretrained weights."""
        job, why = self.job, ""
        check_backbone(job.backbone)  # also where it turns out that none is needed: a typing error is one
        architecture = job.architecture
        if architecture == AUTO:
            architecture, why = choose_architecture(
                self._bands, min(self.chip.grid.width, self.chip.grid.height), self.labelled, self._wants_backbone()
            )
            self.progress.info(f"ARCHITECTURE auto: {ARCHITECTURES[architecture].title}, since {why}.")
        has_backbone = ARCHITECTURES[architecture].has_backbone
        check_weights(job.pretrained_weights, job.backbone, has_backbone)
        network = build_network(architecture, job.backbone, self._bands, len(self.dataset.classes))
        loaded = self._load(network)
        frozen = self._freeze(network, loaded is not None, adapted=loaded is not None and loaded.adapted)
        backbone, normalization = job.backbone if has_backbone else "", self._normalization()
        return Start(network, architecture, backbone, normalization, why, frozen, anew=True, new_head=True)

    def _wants_backbone(self) -> bool:
        """Tell whether the user asked for something that only a backbone has."""
        return self.job.pretrained_weights != "none" or self.job.weights_file is not None

    def _load(self, network: Network) -> Loaded | None:
        job, loaded = self.job, None
        if job.pretrained_weights != "none":
            part = self.progress.part(0.0, DOWNLOAD_SHARE)
            loaded = load_weights(network, job.pretrained_weights, job.backbone, self._good_wavelengths, part)
            what = f"PRETRAINED_WEIGHTS {job.pretrained_weights}"
        elif job.weights_file is not None:
            loaded = load_weights_file(network, job.weights_file, self._good_wavelengths)
            what = f"WEIGHTS_FILE {job.weights_file.name}"
        if loaded is not None:
            self.progress.info(f"{what}: {100 * loaded.share:.1f} % of the backbone's tensors. {loaded.note}".rstrip())
        return loaded

    @property
    def _wavelengths(self) -> tuple[float | None, ...]:
        return tuple(band.wavelength_nm for band in self.chip.bands)

    @property
    def _bad(self) -> tuple[bool, ...]:
        statistics = self.dataset.statistics
        return statistics.bad if statistics is not None else tuple(band.bad for band in self.chip.bands)

    @property
    def _good_wavelengths(self) -> tuple[float | None, ...]:
        """Wavelengths of the bands that a network sees: filters given to a bad band would be lost."""
        return tuple(None if bad else nm for nm, bad in zip(self._wavelengths, self._bad, strict=True))

    def _freeze(self, network: Network, trained_before: bool, adapted: bool) -> str:
        """Freeze a backbone that has been trained before, if it is wanted; say what is frozen."""
        if not self.job.freeze_backbone or network.encoder is None:
            return ""
        if not trained_before:
            self.progress.info("The backbone starts from random weights, so it is not frozen.")
            return ""
        network.freeze_encoder(first_layer=not adapted)
        note = f", but for its first layer, which was adapted to {self._bands} bands" if adapted else ""
        until = f" for {self.job.unfreeze_epoch} epochs" if self.job.unfreeze_epoch else ""
        self.progress.info(f"The backbone is frozen{until}{note}.")
        return ALL_BUT_FIRST if adapted else ALL

    def _normalization(self) -> Normalization:
        """Choose what the network sees of the raw values.

        Raises:
            DatasetError: if NORMALIZE is on and there are no statistics for these bands.
        """
        job, statistics = self.job, self.dataset.statistics
        if statistics is not None and len(statistics.mean) != self._bands:
            raise DatasetError(
                f"DATASET_FOLDER {job.dataset_folder}: Normalize_Bands.csv has {len(statistics.mean)} bands, the chips "
                f"have {self._bands}. Run the Dataset Maker again."
            )
        bad = self._bad
        weights = job.pretrained_weights if job.pretrained_weights != "none" else known_file(job.weights_file)
        own = own_normalization(weights, self._wavelengths, bad)
        if own is not None:
            self.progress.info(
                f"The weights {weights} bring their own preprocessing, of raw values; SCALER and NORMALIZE are not "
                "used."
            )
            if statistics is not None:
                raw = [mean * self.dataset.scale for mean in statistics.mean]
                unlikely = unlikely_values(weights, own, raw)
                if unlikely:
                    self.progress.warning(unlikely)
            return own
        if job.normalize and statistics is None:
            raise DatasetError(
                f"NORMALIZE is on, but DATASET_FOLDER {job.dataset_folder} holds no Normalize_Bands.csv. Run the "
                "Dataset Maker with STATISTICS on, or switch NORMALIZE off."
            )
        if job.normalize and statistics is not None:
            return statistics
        return Normalization.none(self._bands, self.dataset.scale, bad)

    def _from_model(self, path: Path) -> Start:
        """Start from a model of ours: its card decides what the network is and sees."""
        folder = self.job.model_folder
        if folder is not None and path.resolve() == (folder / LAST_NAME).resolve():
            raise ConfigError(
                f"INIT_CHECKPOINT {path} would be replaced by the {LAST_NAME} of this training. Choose another "
                "MODEL_FOLDER, or rename the checkpoint; to go on with an interrupted training, set RESUME instead."
            )
        card, state = load_checkpoint(path, "INIT_CHECKPOINT")
        if len(card.bands) != self._bands:
            raise ConfigError(
                f"INIT_CHECKPOINT {path} was trained on {len(card.bands)} bands, and the chips of DATASET_FOLDER have "
                f"{self._bands}. Take a model for these bands, or cut the chips from an image with the model's bands."
            )
        for name in ("architecture", "backbone"):
            mine, wanted = getattr(card, name), getattr(self.job, name)
            if wanted != mine:
                self.progress.info(
                    f"INIT_CHECKPOINT: {name.upper()} is {mine or 'none'}, as in the model; {wanted} is not used."
                )
        self.progress.info("INIT_CHECKPOINT: scaling and band statistics are those of the model.")
        network = rebuild_network(card, state, path, "INIT_CHECKPOINT")
        same = same_classes(card.classes, self.dataset.classes)
        if not same:
            network = build_network(card.architecture, card.backbone, self._bands, len(self.dataset.classes))
        warn_of_other_bands(card, self.chip, "INIT_CHECKPOINT", self.progress)
        warn_of_other_values(card, self.chip, "INIT_CHECKPOINT: the chip", self.progress)
        wanted_state = network.state_dict()
        taken = {
            name: tensor
            for name, tensor in state.items()
            if name in wanted_state and (same or not network.is_head(name)) and tensor.shape == wanted_state[name].shape
        }
        lacking = [name for name in wanted_state if name not in taken and (same or not network.is_head(name))]
        if lacking:
            raise CheckpointError(
                f"INIT_CHECKPOINT {path}: the weights do not fit the network that its card describes; {lacking[0]} is "
                "missing. The file is damaged, or was made with another version of a library."
            )
        network.load_state_dict({**wanted_state, **taken})
        head = "" if same else ", all but the last layers, which start anew for the classes of this dataset"
        self.progress.info(f"INIT_CHECKPOINT: {len(taken)} of {len(wanted_state)} tensors were taken{head}.")
        frozen = self._freeze(network, trained_before=True, adapted=False)
        design = (card.architecture, card.backbone, card.normalization)
        return Start(network, *design, frozen=frozen, new_head=not same, known_chips=card.trained_on)

    def _resume(self) -> Start:
        """Go on with the interrupted run in MODEL_FOLDER."""
        folder = self.job.model_folder
        if folder is None:
            raise ConfigError("RESUME is on, but MODEL_FOLDER is not set. Name the folder of the interrupted run.")
        path = folder / LAST_NAME
        if not path.is_file():
            raise ConfigError(
                f"RESUME is on, but MODEL_FOLDER {folder} holds no {LAST_NAME}. Name the folder of the interrupted "
                "run, or switch RESUME off."
            )
        content = read_tensors(path, "RESUME:")
        card, state = parse_checkpoint(content, path, "RESUME:")
        optimizers, schedule = content.get("optimizer_states"), content.get(SCHEDULE_KEY)
        others, said = content.get(OTHERS_KEY, []), content.get(WARNINGS_KEY, {})
        whole = isinstance(optimizers, list) and isinstance(schedule, dict) and isinstance(others, list)
        if not optimizers or not whole:
            raise CheckpointError(f"RESUME: {path} holds no state to go on from. Train without RESUME.")
        self._check_same(card, folder)
        done = int(card.metrics.get("epoch") or 0) + 1
        rows = [row for row in read_history(folder / "history.csv") if row["epoch"] < done]
        if len(rows) != done:
            raise DatasetError(f"RESUME: history.csv in {folder} has {len(rows)} rows for {done} epochs. Train anew.")
        if done >= self.job.epochs:
            raise ConfigError(
                f"RESUME: the run in {folder} has done its {done} epochs. Raise EPOCHS above {done} to train further."
            )
        if self.job.early_stopping and patience_is_over(rows, self.job.patience):
            raise ConfigError(
                f"RESUME: the run in {folder} stopped early after epoch {done}: the validation mean IoU did not rise "
                f"for {self.job.patience} epochs. Raise PATIENCE, or switch EARLY_STOPPING off, to train further."
            )
        network = rebuild_network(card, state, path, "RESUME:")
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(f"RESUME: the weights in {path} do not fit its network. Train anew.") from error
        frozen = str(card.settings.get("frozen", ""))
        if frozen:
            network.freeze_encoder(first_layer=frozen == ALL)
        self.progress.info(f"RESUME: going on after epoch {done} of the run in {folder}.")
        texts, kinds = (_texts(said, part) for part in ("texts", "kinds"))
        interrupted = Interrupted(card, rows, optimizers[0], schedule, tuple(map(str, others)), texts, kinds)
        why = str(card.settings.get("architecture_reason", ""))
        return Start(
            network,
            card.architecture,
            card.backbone,
            card.normalization,
            why,
            frozen,
            known_chips=card.trained_on,
            interrupted=interrupted,
        )

    def _check_same(self, card: ModelCard, folder: Path) -> None:
        """Check that the interrupted run was the same training.

        Raises:
            ConfigError: if a parameter or the dataset is another one.
        """
        if card.fingerprint != self.dataset.fingerprint or card.classes.values != self.dataset.classes.values:
            raise ConfigError(
                f"RESUME: the run in MODEL_FOLDER {folder} was trained on other chips, labels or classes than "
                f"DATASET_FOLDER {self.job.dataset_folder} has now. Name its dataset, or train without RESUME."
            )
        for name, value in self.job.to_json().items():
            if isinstance(getattr(self.job, name), Path) or name not in card.settings or value == card.settings[name]:
                continue
            if name not in _MAY_DIFFER or (name == "epochs" and self.job.scheduler == "one_cycle"):
                raise ConfigError(
                    f"RESUME: {name.upper()} is {value}, but the run in MODEL_FOLDER {folder} has "
                    f"{card.settings[name]}. Set it to that, or train without RESUME."
                )
            if name in _MATTERS:
                self.progress.info(
                    f"RESUME: {name.upper()} is {value} now and was {card.settings[name]}; the numbers will differ "
                    "from those of a run without interruption."
                )


def _texts(said: Any, part: str) -> tuple[str, ...]:
    """Read a list of texts from a checkpoint, which others may have written; an earlier version wrote none."""
    found = said.get(part, []) if isinstance(said, dict) else []
    return tuple(text for text in found if isinstance(text, str)) if isinstance(found, list) else ()


def same_classes(model: ClassTable, dataset: ClassTable) -> bool:
    """Tell whether two class lists mean the same: values and, where both have real ones, names."""
    names = {entry.value: entry.name for entry in dataset.entries}
    return model.values == dataset.values and not model.renamed(names)
