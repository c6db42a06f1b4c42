# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of checkpoints: they carry all that is needed, name nobody, and never run anything."""

from __future__ import annotations

import getpass
import json
import math
import pickle
import socket
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel

from specdeepmap.core.data.dataset import Dataset
from specdeepmap.core.errors import CheckpointError
from specdeepmap.core.learn.architectures import build_network
from specdeepmap.core.learn.checkpoint import FORMAT, KEY, ModelCard, chip_mark, load_checkpoint, rebuild_network
from specdeepmap.core.learn.predictor import Predictor
from specdeepmap.core.learn.weightfile import LIGHTNING_KEY, _is_foreign_lightning
from tests.chips import TINY
from tests.core.learn.test_weights import Evil

pytestmark = pytest.mark.torch


def content_of(path: Path) -> dict[str, Any]:
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def test_the_card_says_what_was_trained_on_what(checkpoint: Path, dataset_folder: Path) -> None:
    dataset = Dataset.open(dataset_folder)
    card, state = load_checkpoint(checkpoint)
    assert (card.format, card.architecture, card.backbone) == (FORMAT, "unet", TINY)
    assert card.bands[:3] == ("B1", "B2", "B3") and card.wavelengths_nm[1] == 490
    assert (card.normalization, card.classes) == (dataset.statistics, dataset.classes)
    assert (card.chip_width, card.chip_height) == (32, 32)
    assert card.settings["learning_rate"] == 0.001 and card.settings["seed"] == 42
    assert card.fingerprint == dataset.fingerprint
    known = [pair.name for name in ("train", "validation") for pair in dataset.chips[name]]
    images = {name.rpartition("_tile_")[0] for name in known}
    assert set(card.trained_on) == {chip_mark(name) for name in (*known, *images)} and len(images) == 1
    assert {"python", "torch", "lightning"} <= set(card.versions)
    assert f"val_iou_{card.metrics['val_iou']:.4f}" in checkpoint.name
    assert f"{card.metrics['epoch']:05d}-" in checkpoint.name
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values()) and state


def test_card_to_json_and_back(checkpoint: Path) -> None:
    card, _ = load_checkpoint(checkpoint)
    assert ModelCard.from_json(json.loads(json.dumps(card.to_json()))) == card
    assert ModelCard.from_json(json.loads(checkpoint.with_suffix(".json").read_text("utf-8"))) == card
    assert card.at({"val_iou": math.nan, "val_loss": 0.5}).metrics == {"val_iou": None, "val_loss": 0.5}


def test_last_checkpoint_is_a_model_too(checkpoint: Path) -> None:
    last = checkpoint.with_name("last.ckpt")
    card, state = load_checkpoint(last)
    assert card.metrics["epoch"] == 1
    assert state.keys() == load_checkpoint(checkpoint)[1].keys()
    assert "optimizer_states" in content_of(last) and "optimizer_states" not in content_of(checkpoint)
    assert last.with_suffix(".json").is_file()


def test_no_path_and_no_name_is_in_it(checkpoint: Path, dataset_folder: Path) -> None:
    names = {str(Path.home()), str(checkpoint.parents[2]), str(dataset_folder.parent), str(Path.cwd())}
    names |= {"pytest-of-", str(Path(torch.__file__).parents[1])}
    # Short ones, such as root, may stand there by chance.
    names |= {name for name in (getpass.getuser(), socket.gethostname()) if len(name) > 4}
    for path in checkpoint.parent.iterdir():
        if path.name == "job.json":  # to run the job again, its folders must stand in it
            continue
        raw = path.read_bytes()
        for name in names:
            assert name.encode() not in raw, f"{name} in {path.name}"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_cut_off_file(checkpoint: Path, tmp_path: Path, share: float) -> None:
    raw = checkpoint.read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(CheckpointError, match=r"CHECKPOINT .*cut\.ckpt"):
        load_checkpoint(tmp_path / "cut.ckpt")


def test_a_program_in_the_file_is_not_run(checkpoint: Path, tmp_path: Path) -> None:
    torch.save({**content_of(checkpoint), "more": Evil(tmp_path / "trace")}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="not loaded"):
        load_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "trace").exists()


def test_checkpoint_of_another_lightning_program(tmp_path: Path) -> None:
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(BoringModel())
    trainer.save_checkpoint(tmp_path / "foreign.ckpt")
    with pytest.raises(CheckpointError, match="Lightning checkpoint without a model card") as caught:
        load_checkpoint(tmp_path / "foreign.ckpt")
    assert_train_again(caught.value, "foreign.ckpt")


def assert_train_again(error: CheckpointError, name: str) -> None:
    text = str(error)
    assert text.startswith("CHECKPOINT ") and name in text and "EnMAP-Box's own SpecDeepMap application" in text
    assert "Train the model again here" in text and "dataset folder can be used as it is" in text


class Preprocessing:
    """Stands for what other programs keep beside the weights."""


def foreign_content(**more: Any) -> dict[str, Any]:
    """What EnMAP-Box's application leaves behind, in small."""
    hyper = {"architecture": "Unet", "backbone": "resnet18", "in_channels": 13, "classes": 4, "scaler": 10000}
    return {
        "epoch": 3,
        "global_step": 12,
        LIGHTNING_KEY: "2.5.0",
        "state_dict": {"model.encoder.conv1.weight": torch.zeros(2, 13, 3, 3)},
        "hyper_parameters": {**hyper, **more},
    }


def test_objects_of_the_application_in_enmap_box_are_not_loaded(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for extra in (Preprocessing(), Evil(trace)):
        torch.save(foreign_content(preprocess=extra), tmp_path / "older.ckpt")
        with pytest.raises(CheckpointError, match="not loaded, since loading it could run any program") as caught:
            load_checkpoint(tmp_path / "older.ckpt")
        assert_train_again(caught.value, "older.ckpt")
        assert not trace.exists()
    torch.load(tmp_path / "older.ckpt", weights_only=False)
    assert trace.exists(), "the file is as evil as the test needs it"


def test_model_of_the_application_without_objects(tmp_path: Path) -> None:
    torch.save(foreign_content(), tmp_path / "older.ckpt")
    with pytest.raises(CheckpointError, match="without a model card") as caught:
        load_checkpoint(tmp_path / "older.ckpt")
    assert_train_again(caught.value, "older.ckpt")
    assert "bands" in str(caught.value) and "run any program" not in str(caught.value)


def test_where_lightning_wrote_no_file_the_message_is_another(checkpoint: Path, tmp_path: Path) -> None:
    """Neither a program in a text, nor one in a model of ours, makes a checkpoint one of another application."""
    older = foreign_content(preprocess=Preprocessing())
    renamed = {name.replace("version", "versions"): value for name, value in older.items()}
    ours = {**content_of(checkpoint), LIGHTNING_KEY: "2.5.0", "more": Preprocessing()}
    for content in (renamed, {"text": f"a {LIGHTNING_KEY}", "more": Preprocessing()}, ours):
        torch.save(content, tmp_path / "other.ckpt")
        with pytest.raises(CheckpointError, match="holds more than tensors and plain values") as caught:
            load_checkpoint(tmp_path / "other.ckpt")
        assert "EnMAP-Box" not in str(caught.value)


@pytest.mark.parametrize("kept", [0.2, 0.9])
def test_pickle_that_ends_early_tells_what_came_before(tmp_path: Path, kept: float) -> None:
    torch.save(foreign_content(preprocess=Preprocessing(), names=["x" * 50] * 50), tmp_path / "whole.ckpt")
    with zipfile.ZipFile(tmp_path / "whole.ckpt") as whole, zipfile.ZipFile(tmp_path / "cut.ckpt", "w") as cut:
        for name in whole.namelist():
            content = whole.read(name)
            cut.writestr(name, content[: int(kept * len(content))] if name.endswith("data.pkl") else content)
    with pytest.raises(CheckpointError, match=r"CHECKPOINT .*cut\.ckpt"):
        load_checkpoint(tmp_path / "cut.ckpt")


def test_little_of_a_huge_pickle_is_looked_at(tmp_path: Path) -> None:
    """64 MB that look like nothing in the archive: reading them all would take that memory."""
    with zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps([LIGHTNING_KEY, Preprocessing()], 2) + bytes(2**26))
    tracemalloc.start()
    assert _is_foreign_lightning(tmp_path / "bomb.ckpt")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


@pytest.mark.parametrize("content", [{}, [1, 2], 7, {KEY: 5}, {KEY: "card"}, {"state_dict": {}}])
def test_what_is_no_checkpoint(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="no model of the Deep Learning Trainer"):
        load_checkpoint(tmp_path / "other.ckpt")


def test_text_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("a text", "utf-8")
    with pytest.raises(CheckpointError, match="no PyTorch file"):
        load_checkpoint(tmp_path / "text.ckpt")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match="INIT_CHECKPOINT"):
        load_checkpoint(tmp_path / "none.ckpt", "INIT_CHECKPOINT")


def _newer(card: dict[str, Any]) -> None:
    card["format"] = FORMAT + 1


def _no_bands(card: dict[str, Any]) -> None:
    del card["bands"]


def _wrong_type(card: dict[str, Any]) -> None:
    card["normalization"] = [1, 2]


def _wrong_classes(card: dict[str, Any]) -> None:
    card["classes"] = {"entries": [{"value": 0, "name": "a", "color": "#000000"}]}


def _no_std(card: dict[str, Any]) -> None:
    card["normalization"]["std"][0] = 0.0


def _huge_mean(card: dict[str, Any]) -> None:
    card["normalization"]["mean"][0] = 1e300


def _half_a_letter(card: dict[str, Any]) -> None:
    card["metrics"]["\ud800"] = 0.5


def _architecture(card: dict[str, Any]) -> None:
    card["architecture"] = "of_the_future"


def _backbone(card: dict[str, Any]) -> None:
    card["backbone"] = "of_the_future"


def _other_backbone(card: dict[str, Any]) -> None:
    card["backbone"] = "resnet18"


def _fewer_bands(card: dict[str, Any]) -> None:
    card["bands"] = card["bands"][:-1]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_newer, "Update SpecDeepMap"),
        (_no_bands, "BANDS is missing"),
        (_wrong_type, "damaged model card"),
        (_wrong_classes, "outside 1 to 255"),
        (_no_std, "above 0"),
        (_huge_mean, "too large or too small"),
        (_half_a_letter, "holds what is no text"),
        (_architecture, "of_the_future"),
        (_backbone, "of_the_future"),
        (_other_backbone, "do not fit"),
        (_fewer_bands, "card"),
    ],
)
def test_cards_that_cannot_be_used(
    checkpoint: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], text: str
) -> None:
    content = content_of(checkpoint)
    change(content[KEY])
    torch.save(content, tmp_path / "changed.ckpt")
    with pytest.raises(CheckpointError, match=text) as caught:
        Predictor(tmp_path / "changed.ckpt", "cpu")
    assert "changed.ckpt" in str(caught.value)


def test_weights_that_are_missing(checkpoint: Path, tmp_path: Path) -> None:
    content = content_of(checkpoint)
    del content["state_dict"]
    torch.save(content, tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_checkpoint(tmp_path / "none.ckpt")


DESIGNS = [
    ("unet", "resnet18"),
    ("fpn", "mobilenet_v2"),  # makes a classifier and throws it away
    ("unet", "tu-vgg11"),  # makes one of 123 million numbers, twice
    ("unet", "tu-convnext_tiny"),
    ("segformer", "mit_b0"),  # cannot be built without memory
    ("spectral", ""),
]


@pytest.mark.parametrize(("architecture", "backbone"), DESIGNS)
def test_the_network_of_an_honest_card_is_built(checkpoint: Path, architecture: str, backbone: str) -> None:
    card = replace(load_checkpoint(checkpoint)[0], architecture=architecture, backbone=backbone)
    state = build_network(architecture, backbone, len(card.bands), len(card.classes)).state_dict()
    rebuilt = rebuild_network(card, state, checkpoint)
    rebuilt.load_state_dict(state)
    assert {tensor.device.type for tensor in rebuilt.state_dict().values()} == {"cpu"}
    built = build_network(architecture, backbone, len(card.bands), len(card.classes))
    built.load_state_dict(state)
    images = torch.randn(1, len(card.bands), 64, 64)
    with torch.inference_mode():
        assert torch.equal(rebuilt.eval()(images), built.eval()(images))
    assert rebuilt.train().parameter_counts() == built.train().parameter_counts()


@pytest.mark.parametrize("backbone", ["resnet152", "tu-eva_giant_patch14_224"])
def test_a_card_that_promises_more_than_the_file_holds_is_refused(checkpoint: Path, backbone: str) -> None:
    card, state = load_checkpoint(checkpoint)
    with pytest.raises(CheckpointError, match=r"CHECKPOINT .*(more numbers than the file|cannot be built here)"):
        network = rebuild_network(replace(card, architecture="unet", backbone=backbone), state, checkpoint)
        network.load_state_dict(state)
