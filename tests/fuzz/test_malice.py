# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests with files made to do harm: nothing runs, memory and time stay small, and a sentence names the file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from specdeepmap.core.data.raster import Raster
from specdeepmap.core.errors import CheckpointError, RasterError, SpecDeepMapError
from specdeepmap.core.jobs import EvaluateJob, Job, PredictJob, TrainJob
from specdeepmap.core.learn.inventory import take_inventory
from specdeepmap.core.progress import Progress
from specdeepmap.core.tasks import perform
from tests.chips import TINY, dataset_of, stripes
from tests.fuzz.malice import MARK, MODELS, TENSORS, content
from tests.helpers import snapshot, write_raster
from tests.trainings import BANDS

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured as Linux tells it"),
]

MEGABYTES = 300
"""What loading a bad file may take, beside what is loaded anyway."""

CASES = [("tensors", name) for name in TENSORS] + [("model", name) for name in (*TENSORS, *MODELS)]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """Load every bad file in one process, and the good one after them."""
    folder = tmp_path_factory.mktemp("malice")
    for number, make in enumerate((*TENSORS.values(), *MODELS.values())):
        make(folder / f"{number:03d}.ckpt")
    torch.save(content(), folder / "good.ckpt")
    numbers = {name: number for number, name in enumerate((*TENSORS, *MODELS))}
    todo = [(how, str(folder / f"{numbers[name]:03d}.ckpt")) for how, name in CASES]
    todo.append(("model", str(folder / "good.ckpt")))
    (folder / "list.json").write_text(json.dumps(todo), encoding="utf-8")
    before = snapshot(folder)
    watcher = [sys.executable, "-m", "tests.fuzz.watcher", str(folder / "list.json")]
    child = subprocess.run(watcher, capture_output=True, text=True, timeout=600)
    told = [json.loads(line) for line in child.stdout.splitlines()]
    answers = dict(zip([*CASES, ("model", "good")], told, strict=False))
    assert child.returncode == 0, f"ended after {list(answers)[-1:]}, before {todo[len(told)]}: {child.stderr[-2000:]}"
    assert not (folder / MARK).exists(), "a program ran"
    assert snapshot(folder) == before, "a file was written"
    return answers


@pytest.mark.parametrize(("how", "name"), CASES)
def test_a_file_made_to_do_harm(loaded: dict[tuple[str, str], dict[str, Any]], how: str, name: str) -> None:
    answer = loaded[how, name]
    assert answer["kind"] == "sentence", answer
    assert Path(answer["path"]).name in answer["said"] and len(answer["said"]) < 2000
    assert answer["megabytes"] < MEGABYTES
    assert answer["seconds"] < 10


def test_the_good_file_is_loaded(loaded: dict[tuple[str, str], dict[str, Any]]) -> None:
    assert loaded["model", "good"]["kind"] == "loaded", loaded["model", "good"]


@pytest.mark.parametrize("name", [name for name in TENSORS if name.startswith("a program") or "Python" in name])
def test_the_programs_would_run(tmp_path: Path, name: str) -> None:
    """Else the tests above would show nothing."""
    if "TorchScript" in name:
        pytest.skip("it holds one that does nothing")
    TENSORS[name](tmp_path / "evil.ckpt")
    torch.load(tmp_path / "evil.ckpt", weights_only=False)
    assert (tmp_path / MARK).exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_what_pytorch_writes_is_described_well(tmp_path: Path, zipped: bool) -> None:
    """All number types, views, weights used twice, parameters, bytes, and the states of an optimiser."""
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    kinds = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool, torch.complex64)
    whole = torch.arange(12.0)
    holds = {
        "state_dict": layer.state_dict(),
        "optimizer": optimizer.state_dict(),
        "kinds": [torch.ones(3, dtype=kind) for kind in kinds],
        "views": [whole[3:], whole.view(3, 4).t(), torch.ones(1).expand(5), torch.tensor(1.0), torch.empty(0, 4)],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "others": (b"bytes", 1.5, None, True, -7, 2**40, "ä", {1, 2}, torch.Size([2]), torch.float32, 1 + 2j),
    }
    torch.save(holds, tmp_path / "all.pth", _use_new_zipfile_serialization=zipped)
    take_inventory(tmp_path / "all.pth")
    assert torch.load(tmp_path / "all.pth", weights_only=True).keys() == holds.keys()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small dataset and its scene."""
    folder = tmp_path_factory.mktemp("scene")
    dataset_of(folder, *stripes(bands=BANDS))
    return folder


def run_with(use: str, path: Path, scene: Path) -> None:
    """Run a job that reads the file as a user would name it."""
    dataset, out = scene / "dataset", path.parent / "out"
    usual = {"dataset_folder": dataset, "epochs": 2, "device": "cpu"}
    fresh = {"model_folder": out / "models", "log_folder": out / "logs"}
    jobs: dict[str, Callable[[], Job]] = {
        "WEIGHTS_FILE": lambda: TrainJob(**usual, **fresh, architecture="unet", backbone=TINY, weights_file=path),
        "INIT_CHECKPOINT": lambda: TrainJob(**usual, **fresh, init_checkpoint=path),
        "RESUME": lambda: TrainJob(**usual, model_folder=path.parent, log_folder=out / "logs", resume=True),
        "tester": lambda: EvaluateJob(
            test_csv=dataset / "train_files.csv", checkpoint=path, scores_csv=out / "s.csv", device="cpu"
        ),
        "mapper": lambda: PredictJob(
            image=str(scene / "scene.tif"), checkpoint=path, output=out / "m.tif", device="cpu"
        ),
    }
    perform(jobs[use](), Progress())


WORST = ["a program", "a program in the old format", "packed zeros"]


@pytest.mark.parametrize("name", WORST)
@pytest.mark.parametrize("use", ["WEIGHTS_FILE", "INIT_CHECKPOINT", "RESUME", "tester", "mapper"])
def test_wherever_a_file_may_be_named(tmp_path: Path, scene: Path, use: str, name: str) -> None:
    path = tmp_path / "last.ckpt"
    TENSORS[name](path)
    before = snapshot(tmp_path)
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        run_with(use, path, scene)
    assert snapshot(tmp_path) == before, "nothing ran, nothing was written"


@pytest.mark.parametrize("use", ["tester", "mapper"])
def test_a_harmless_file_comes_further(tmp_path: Path, scene: Path, use: str) -> None:
    """Else the test above would show nothing."""
    torch.save({**content(), "state_dict": {}}, tmp_path / "last.ckpt")
    with pytest.raises(SpecDeepMapError, match="the weights do not fit the network that its card describes"):
        run_with(use, tmp_path / "last.ckpt", scene)


def test_a_program_in_a_raster_does_not_run(tmp_path: Path) -> None:
    """A file of GDAL's that names a function of Python: GDAL runs none unless it is told to."""
    image = write_raster(tmp_path / "image.tif", np.ones((4, 4), np.uint8))
    mark = tmp_path / MARK
    (tmp_path / "evil.tif").write_text(
        '<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1" '
        'subClass="VRTDerivedRasterBand"><PixelFunctionType>run</PixelFunctionType>'
        "<PixelFunctionLanguage>Python</PixelFunctionLanguage><PixelFunctionCode><![CDATA[\n"
        f"def run(*a, **k):\n    open({str(mark)!r}, 'w').write('x')\n]]></PixelFunctionCode><SimpleSource>"
        f'<SourceFilename relativeToVRT="0">{image}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>',
        encoding="utf-8",
    )
    with pytest.raises(RasterError):
        raster = Raster.open(tmp_path / "evil.tif")
        raster.read(raster.whole)
    assert not mark.exists()
