# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of what a training starts from: random weights, pretrained ones, a model of ours."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from osgeo import gdal
from torch import Tensor

from specdeepmap.core.data.dataset import Dataset
from specdeepmap.core.errors import CheckpointError, ConfigError
from specdeepmap.core.learn.architectures import build_network
from specdeepmap.core.learn.checkpoint import chip_mark, load_checkpoint
from specdeepmap.core.learn.weights import Loaded
from specdeepmap.core.learn.weightsets import WEIGHTS, Weights
from tests.chips import SMALL, TINY, cut, dataset_of, history, stripes, train, train_job
from tests.helpers import Array, Recorder, write_raster

pytestmark = pytest.mark.torch

ENCODER, HEAD = "model.encoder.", "model.segmentation_head."

STILL = {"optimizer": "sgd", "learning_rate": 1e-30, "augmentation": False, "early_stopping": False}
"""A training that moves no parameter; statistics of batch normalisation move all the same."""


def state_of(path: Path) -> dict[str, Tensor]:
    return load_checkpoint(path)[1]


def changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor], start: str = "") -> set[str]:
    """Give the tensors that are not the same bit for bit."""
    names = [name for name in before if name.startswith(start)]
    assert names
    return {
        name for name in names if before[name].shape != after[name].shape or not torch.equal(before[name], after[name])
    }


def parameters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name.endswith((".weight", ".bias"))}


# A weights file, and freezing -------------------------------------------------------------------------------------


def test_random_weights_are_never_frozen(dataset_folder: Path, tmp_path: Path) -> None:
    progress = Recorder()
    result = train(dataset_folder, tmp_path, progress, epochs=1, freeze_backbone=True, save_top_k=-1)
    assert any("random weights, so it is not frozen" in text for text in progress.infos)
    free = train(dataset_folder, tmp_path / "free", epochs=1, freeze_backbone=False)
    first, second = (state_of(run.best_checkpoint) for run in (result, free))
    assert all(torch.equal(first[name], second[name]) for name in first)
    still = state_of(train(dataset_folder, tmp_path / "still", epochs=1, **STILL).best_checkpoint)
    assert changed(parameters(still), first, ENCODER)


@pytest.mark.parametrize("freeze", [True, False])
def test_weights_file_and_freezing(model: Path, shared_out: Path, tmp_path: Path, freeze: bool) -> None:
    progress = Recorder()
    result = train(shared_out, tmp_path, progress, weights_file=model, freeze_backbone=freeze)
    known, trained = (state_of(path) for path in (model, result.last_checkpoint))
    statistics = {name for name in known if name.startswith(ENCODER) and "running_" in name}
    moved = changed(known, trained, ENCODER)
    assert statistics and (not moved if freeze else moved > statistics)
    assert changed(known, trained, "model.decoder.") and changed(known, trained, HEAD)
    assert any("100.0 %" in text for text in progress.infos)
    assert any("backbone is frozen" in text for text in progress.infos) == freeze
    assert load_checkpoint(result.best_checkpoint)[0].settings["frozen"] == ("all" if freeze else "")


def test_weights_of_other_bands_and_freezing(checkpoint: Path, striped: Path, tmp_path: Path) -> None:
    progress = Recorder()
    result = train(striped, tmp_path, progress, weights_file=checkpoint, learning_rate=0.01)
    known, trained = (state_of(path) for path in (checkpoint, result.best_checkpoint))
    moved = changed(known, trained, ENCODER)
    assert len(moved) == 1
    (name,) = moved
    assert known[name].shape[1] == 13 and trained[name].shape[1] == 3
    still = state_of(train(striped, tmp_path / "still", weights_file=checkpoint, **STILL).best_checkpoint)
    assert not torch.equal(still[name], trained[name]), "an adapted first layer has to be trained"
    assert any("first layer, which was adapted to 3 bands" in text for text in progress.infos)


def test_frozen_backbone_drops_nothing_by_chance() -> None:
    # mit_b0 leaves out whole layers by chance; train() and eval() of the library pass a frozen backbone by.
    network = build_network("unet", "mit_b0", 3, 2)
    network.freeze_encoder(first_layer=True)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    network.eval()
    with torch.inference_mode():
        assert torch.equal(network(images), network(images))
    network.train()
    network.unfreeze_encoder()
    assert network.encoder is not None and all(module.training for module in network.encoder.modules())


def test_staged_unfreezing(model: Path, shared_out: Path, tmp_path: Path) -> None:
    settings = {"weights_file": model, "unfreeze_epoch": 2, "epochs": 4, "save_top_k": -1, "learning_rate": 0.01}
    progress = Recorder()
    result = train(shared_out, tmp_path, progress, **settings)
    assert any("frozen for 2 epochs" in text for text in progress.infos)
    known = state_of(model)
    states = [state_of(path) for path in sorted(result.model_folder.glob("0*.ckpt"))]
    assert len(states) == 4
    assert not changed(known, states[0], ENCODER) and not changed(known, states[1], ENCODER)
    third = changed(states[1], states[2], ENCODER)
    assert {name for name in known if name.startswith(ENCODER) and "running_" in name} < third
    assert changed(parameters(states[2]), states[3], ENCODER)
    assert all(len(changed(parameters(a), b, "model.decoder.")) > 5 for a, b in itertools.pairwise(states))


def test_no_backbone_for_pretrained_weights(striped: Path, model: Path, tmp_path: Path) -> None:
    for settings in ({"pretrained_weights": "imagenet"}, {"weights_file": model}):
        with pytest.raises(ConfigError, match=r"has no backbone .* unet"):
            train(striped, tmp_path, architecture="spectral", **settings)
    assert not (tmp_path / "models").exists()


def test_automatic_architecture_has_a_backbone_for_weights(shared_out: Path, model: Path, tmp_path: Path) -> None:
    progress = Recorder()
    result = train(shared_out, tmp_path, progress, architecture="auto", weights_file=model, epochs=1)
    card = load_checkpoint(result.best_checkpoint)[0]
    assert (card.architecture, card.backbone) == ("unet", TINY)
    assert any("pretrained weights need a backbone" in text for text in progress.infos)


def test_weights_that_bring_their_own_preprocessing(
    model: Path, striped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Weights(
        "Own", "test", backbone=TINY.removeprefix("tu-"), url=f"https://example.invalid/{model.name}", scale=5000.0,
        bands=("a", "b", "c"), wavelengths_nm=(665.0, 560.0, 490.0),
    )  # fmt: skip
    monkeypatch.setitem(WEIGHTS, "own", entry)
    monkeypatch.setattr("specdeepmap.core.learn.weights.fetch", lambda *_: model)
    progress = Recorder()
    result = train(striped, tmp_path, progress, pretrained_weights="own")
    card, state = load_checkpoint(result.best_checkpoint)
    assert card.normalization.scale == 5000
    assert set(card.normalization.mean) == {0.0} and set(card.normalization.std) == {1.0}
    assert any("own preprocessing" in text for text in progress.infos)
    assert not changed(state_of(model), state, ENCODER), "frozen"
    assert card.settings["pretrained_weights"] == "own"


# A model of ours --------------------------------------------------------------------------------------------------


def renumbered(folder: Path, values: Mapping[int, int], **shares: float) -> Path:
    """Make the dataset of stripes with other class values."""
    image, labels = stripes(96, 96)
    table = np.arange(256, dtype=np.uint8)
    for old, new in values.items():
        table[old] = new
    shares = shares or {"train_percent": 67.0, "validation_percent": 33.0}
    return dataset_of(folder, image, table[labels], **shares)


def test_a_model_goes_on_where_it_was(model: Path, shared_out: Path, tmp_path: Path) -> None:
    card, known = load_checkpoint(model)
    progress = Recorder()
    still = {**STILL, "freeze_backbone": False, "batch_size": 6}
    result = train(shared_out, tmp_path / "a", progress, init_checkpoint=model, epochs=1, **still)
    taken = state_of(result.last_checkpoint)
    assert not changed(parameters(known), taken)
    # The statistics of batch normalisation have moved by one batch of the same chips: the scores hardly have.
    (row,) = history(result.history_csv)
    assert row["val_iou"] == pytest.approx(card.metrics["val_iou"], abs=0.05) and row["val_iou"] > 0.8
    assert row["train_loss"] < 0.5
    anew = train(shared_out, tmp_path / "b", epochs=1, **still)
    assert history(anew.history_csv)[0]["val_iou"] < 0.5
    assert any(f"{len(known)} of {len(known)} tensors were taken." in text for text in progress.infos)


@pytest.mark.parametrize("architecture", [SMALL, "spectral"])
def test_the_first_score_is_that_of_the_model(noisy: Path, tmp_path: Path, architecture: str) -> None:
    first = train(noisy, tmp_path / "a", architecture=architecture, epochs=6, learning_rate=0.02)
    card = load_checkpoint(first.best_checkpoint)[0]

    def unmoving(*arguments: Any) -> torch.nn.Module:
        """Build a network whose batch normalisation learns nothing."""
        network = build_network(*arguments)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.0
        return network

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("specdeepmap.core.learn.checkpoint.build_network", unmoving)
        second = train(noisy, tmp_path / "b", init_checkpoint=first.best_checkpoint, epochs=1, **STILL)
    row = history(second.history_csv)[0]
    assert row["val_iou"] == card.metrics["val_iou"] and row["val_loss"] == card.metrics["val_loss"]


@pytest.mark.parametrize(
    "values", [{4: 3}, {4: 1}, {}], ids=["another list of the same length", "fewer classes", "the same classes"]
)
def test_other_classes(model: Path, tmp_path: Path, values: Mapping[int, int]) -> None:
    folder = renumbered(tmp_path, values)
    progress = Recorder()
    result = train(folder, tmp_path, progress, init_checkpoint=model, epochs=1, **STILL)
    known, taken = state_of(model), state_of(result.last_checkpoint)
    heads = {name for name in known if name.startswith(HEAD)}
    moved = changed(parameters(known), taken)
    assert {name for name in moved if name.startswith(HEAD)} == (heads if values else set())
    assert moved <= heads
    card = load_checkpoint(result.last_checkpoint)[0]
    assert card.classes.values == Dataset.open(folder).classes.values
    said = " ".join(text for text in progress.infos if "tensors were taken" in text)
    assert ("last layers, which start anew for the classes of this dataset" in said) == bool(values)
    assert f"{len(known) - len(heads) if values else len(known)} of {len(known)} tensors" in said


def test_architecture_and_preprocessing_are_those_of_the_model(model: Path, tmp_path: Path) -> None:
    known = load_checkpoint(model)[0]
    image, labels = stripes(96, 96)
    folder = dataset_of(
        tmp_path, (image // 2).astype(np.int16), labels, scaler=77.0, train_percent=67.0, validation_percent=33.0
    )
    progress = Recorder()
    settings = {"architecture": "fpn", "backbone": "resnet18", "normalize": False, "epochs": 1}
    card = load_checkpoint(train(folder, tmp_path, progress, init_checkpoint=model, **settings).best_checkpoint)[0]
    assert card.normalization == known.normalization != Dataset.open(folder).statistics
    assert (card.architecture, card.backbone) == ("unet", TINY)
    assert any(re.search("ARCHITECTURE is unet, as in the model; fpn is not used", text) for text in progress.infos)
    assert any("resnet18 is not used" in text for text in progress.infos)
    assert any("scaling and band statistics are those of the model" in text for text in progress.infos)


@pytest.mark.parametrize("freeze", [True, False])
def test_freezing_a_model(model: Path, shared_out: Path, tmp_path: Path, freeze: bool) -> None:
    result = train(shared_out, tmp_path, init_checkpoint=model, freeze_backbone=freeze, learning_rate=0.01)
    known, trained = state_of(model), state_of(result.last_checkpoint)
    assert bool(changed(known, trained, ENCODER)) != freeze
    assert changed(known, trained, "model.decoder.")


def bands(count: int) -> Array:
    return stripes(bands=count)[0]


def test_a_model_for_other_bands(model: Path, tmp_path: Path) -> None:
    folder = dataset_of(tmp_path, bands(4), stripes()[1])
    with pytest.raises(ConfigError, match=r"INIT_CHECKPOINT .*trained on 3 bands.*DATASET_FOLDER have 4"):
        train(folder, tmp_path, init_checkpoint=model)
    assert not (tmp_path / "models").exists()


def test_the_last_checkpoint_of_the_same_folder_would_be_replaced(striped: Path, model: Path, tmp_path: Path) -> None:
    last = tmp_path / "models" / "last.ckpt"
    last.parent.mkdir()
    shutil.copy(model, last)
    with pytest.raises(ConfigError, match=r"INIT_CHECKPOINT .*last\.ckpt would be replaced.*set RESUME instead"):
        train(striped, tmp_path, init_checkpoint=last)
    assert last.read_bytes() == model.read_bytes()


def test_no_model_of_ours(striped: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(2)}}, path)
    with pytest.raises(CheckpointError, match=r"INIT_CHECKPOINT .*other\.ckpt is no model of the Deep Learning"):
        train(striped, tmp_path, init_checkpoint=path)
    path.write_text("no checkpoint at all")
    with pytest.raises(CheckpointError, match="INIT_CHECKPOINT"):
        train(striped, tmp_path, init_checkpoint=path)
    with pytest.raises(CheckpointError, match="INIT_CHECKPOINT"):
        train(striped, tmp_path, init_checkpoint=tmp_path / "nowhere.ckpt")


def test_a_model_that_lacks_tensors(model: Path, shared_out: Path, tmp_path: Path) -> None:
    content = torch.load(model, weights_only=True)
    gone = next(name for name in content["state_dict"] if "decoder" in name)
    del content["state_dict"][gone]
    torch.save(content, tmp_path / "half.ckpt")
    with pytest.raises(CheckpointError, match=r"INIT_CHECKPOINT .*half\.ckpt: the weights do not fit"):
        train(shared_out, tmp_path, init_checkpoint=tmp_path / "half.ckpt")


def test_only_one_start(model: Path, shared_out: Path, tmp_path: Path) -> None:
    job = train_job(shared_out, tmp_path, init_checkpoint=model)
    for settings, name in (({"pretrained_weights": "imagenet"}, "PRETRAINED_WEIGHTS"), ({"weights_file": model}, "WE")):
        with pytest.raises(ConfigError, match=f"INIT_CHECKPOINT and {name}"):
            replace(job, **settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="WEIGHTS_FILE and PRETRAINED_WEIGHTS"):
        train_job(shared_out, tmp_path, weights_file=model, pretrained_weights="imagenet")


def renamed(folder: Path, names: Mapping[str, str]) -> Path:
    """Give the classes of a dataset other names in its summary."""
    path = folder / "Summary_train_val.csv"
    text = path.read_text("utf-8")
    for old, new in names.items():
        text = text.replace(f",{old},", f",{new},")
    path.write_text(text, "utf-8")
    return folder


def test_chips_in_another_unit_are_warned_of(model: Path, tmp_path: Path) -> None:
    image, labels = stripes()
    for folder, values in ((tmp_path / "same", image), (tmp_path / "other", image.astype(np.float32) / 10_000)):
        folder.mkdir()
        progress = Recorder()
        train(dataset_of(folder, values, labels), folder, progress, epochs=1, init_checkpoint=model)
        said = [text for text in progress.warnings if "values are much smaller than those that the model" in text]
        assert len(said) == (folder.name == "other")


def test_classes_with_the_same_values_and_other_names_are_others(tmp_path: Path) -> None:
    names = {"class 1": "forest", "class 2": "water", "class 4": "sand"}
    first = renamed(dataset_of(tmp_path / "a", *stripes()), names)
    model = train(first, tmp_path / "one", epochs=1).best_checkpoint
    for new, kept in (({**names, "class 2": "crop"}, False), ({**names, "class 2": "Water"}, True), ({}, True)):
        folder = renamed(dataset_of(tmp_path / f"b{len(new)}{kept}", *stripes()), new)
        progress = Recorder()
        train(folder, tmp_path / f"two{len(new)}{kept}", progress, init_checkpoint=model, epochs=1, **STILL)
        said = " ".join(progress.infos)
        assert ("start anew for the classes" in said) != kept, new


def test_chips_of_the_model_stay_known_after_fine_tuning(model: Path, striped: Path, tmp_path: Path) -> None:
    result = train(striped, tmp_path, init_checkpoint=model, epochs=1, **STILL)
    before, after = load_checkpoint(model)[0].trained_on, load_checkpoint(result.last_checkpoint)[0].trained_on
    own = {chip_mark(pair.name) for pair in Dataset.open(striped).chips["train"]}
    assert set(after) == {*before, *own} and len(after) == len(set(after))


def test_a_known_weights_file_brings_its_preprocessing(
    model: Path, striped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Weights(
        "Own", "test", backbone=TINY.removeprefix("tu-"), url="https://x.invalid/known-12345678.ckpt", scale=5000.0,
        bands=("a", "b", "c"), wavelengths_nm=(665.0, 560.0, 490.0),
    )  # fmt: skip
    monkeypatch.setitem(WEIGHTS, "own", entry)
    known = Path(shutil.copy(model, tmp_path / "known-12345678.ckpt"))
    for path, scale in ((known, 5000.0), (model, 1.0)):
        card = load_checkpoint(train(striped, tmp_path / path.stem, weights_file=path).best_checkpoint)[0]
        assert card.normalization.scale == scale
        assert (set(card.normalization.mean) == {0.0}) == (path == known)


def test_no_filters_are_given_to_a_bad_band(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, labels = stripes(bands=4)
    waves = (490.0, 560.0, 655.0, 665.0)  # the last one, on which red lies, is bad; its neighbour is good
    metadata = [{"wavelength": f"{nm}", "wavelength_units": "Nanometers", "bbl": f"{nm != 665:d}"} for nm in waves]
    raster = write_raster(tmp_path / "scene.tif", image, metadata=metadata)
    truth = write_raster(tmp_path / "truth.tif", labels)
    shares = {"train_percent": 100.0, "validation_percent": 0.0, "test_percent": 0.0}
    folder = cut(raster, truth, tmp_path / "dataset", **shares)
    given: list[Any] = []
    monkeypatch.setattr(
        "specdeepmap.core.tasks.start.load_weights",
        lambda network, weights, backbone, wavelengths, progress: given.append(wavelengths) or Loaded(1.0, True, ""),
    )
    train(folder, tmp_path / "out", pretrained_weights="imagenet", backbone="resnet18", epochs=1)
    assert given == [(490.0, 560.0, 655.0, None)]


def test_a_class_that_the_chips_lack_is_not_lost_at_once(tmp_path: Path) -> None:
    """The pixelwise member would be learnt anew, and never say the class again."""
    parts = {"train_percent": 67.0, "validation_percent": 33.0}
    image, labels = stripes(96, 96)
    whole = dataset_of(tmp_path / "whole", image, labels, **parts)
    model = train(whole, tmp_path / "a", architecture="spectral", epochs=2).best_checkpoint
    names = {pair.name for pair in Dataset.open(whole).chips["train"]}
    rare = max(Dataset.open(whole).classes.values)
    for chip in (whole / "labels").glob("*.tif"):
        if chip.stem in names:
            raster = gdal.Open(str(chip), gdal.GA_Update)
            values = raster.ReadAsArray()
            raster.WriteArray(np.where(values == rare, 0, values))
            raster = None
    progress = Recorder()
    result = train(whole, tmp_path / "b", progress, init_checkpoint=model, epochs=1, **STILL)
    before, after = state_of(model), state_of(result.last_checkpoint)
    assert not {name for name in changed(before, after) if ".pixelwise." in name}
    assert any(f"no training chip holds class {rare}, which the model knows" in text for text in progress.warnings)
