# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of files and folders that other programs stumble over: every step goes through them, to the same results."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from specdeepmap.core.errors import SpecDeepMapError
from specdeepmap.core.jobs import EvaluateJob, PredictJob, PrepareJob, TileJob
from tests.chips import train_job
from tests.faults.bench import ALL, Bank, write_network, write_scene
from tests.faults.conftest import CaseMaker
from tests.faults.digest import digest
from tests.helpers import read_pixels

NAMES = {
    "spaces": "  two  words ",
    "single quotes": "o'clock 'x'",
    "double quotes": 'a "quoted" name',
    "umlauts": "Äcker_größer",
    "decomposed": "A\u0308cker",
    "Chinese": "漢字",
    "emoji": "🌳tree",
    "commas": "a,b,,c",
    "semicolons": "a;b",
    "percent": "100%d%20%s",
    "hash and question": "a#b?c=1&d",
    "brackets": "a[0]{1}(2)*",
    "dollar": "$HOME ${x} ~",
    "backslash": "a\\b\\n",
    "colon": "C:a|b<c>",
    "leading dash": "-rf --help",
    "leading dots": "...hidden",
    "many dots": "a.tar.gz.b",
    "tab": "a\tb",
    "equals": "=1+1",
    "long": "ü" * 60 + "x" * 90,
    "very long": "x" * 205,
}
EVERYDAY = ("commas", "double quotes", "dollar", "very long")


@pytest.fixture(scope="session")
def usual(bank: Bank, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """What the results hold where all names are plain."""
    return go_all_the_way(bank, tmp_path_factory.mktemp("usual"), "plain", True)


@pytest.mark.parametrize("kind", NAMES if ALL else EVERYDAY)
def test_the_whole_way(bank: Bank, usual: list[object], kind: str, tmp_path: Path) -> None:
    """From a scene to a map, where the scene, all folders and all results bear the name."""
    with_training = ALL or kind in ("commas", "dollar")
    assert go_all_the_way(bank, tmp_path, NAMES[kind], with_training) == usual


def go_all_the_way(bank: Bank, place: Path, name: str, with_training: bool) -> list[object]:
    """Do every step; gives what the results hold."""
    worker, network = bank.case("tile", place / "tile"), bank.case("predict", place / "predict")
    short = name if len(name) < 60 else name[:30]  # SQLite takes paths of 500 bytes
    folder = place / short
    image, labels = write_scene(folder / short, 1, (96, 96), name)
    dataset = folder / f"{short} out"
    sizes = {"tile_size_x": 32, "tile_size_y": 32, "step_x": 32, "step_y": 32}
    found: list[object] = []
    worker.run(job=TileJob(image=str(image), labels=str(labels), output_folder=dataset, **sizes))
    found.append([read_pixels(path).tobytes() for path in sorted((dataset / "images").glob("*.tif"))])
    worker.run(job=PrepareJob(data_folder=dataset, train_percent=60.0, validation_percent=20.0, test_percent=20.0))
    tables = digest(dataset)
    found.append([tables[table] for table in ("Summary_train_val.csv", "Normalize_Bands.csv")])
    write_network(folder)
    model = (folder / "model.ckpt").rename(folder / f"{short}.ckpt")
    scores = folder / f"{short} scores" / f"{name}.csv"
    network.run(
        job=EvaluateJob(
            test_csv=dataset / "train_files.csv",
            checkpoint=model,
            scores_csv=scores,
            confusion_csv=scores.with_name("confusion.csv"),
            report=scores.with_name("report.html"),
            prediction_folder=scores.parent / short,
            device="cpu",
        )
    )
    found.append(scores.read_text("utf-8"))
    result = folder / f"{name}.tif"
    network.run(
        job=PredictJob(
            image=str(image),
            checkpoint=model,
            ground_truth=str(labels),
            output=result,
            vector=folder / f"{name}.gpkg",
            min_area=3,
            device="cpu",
        )
    )
    found.append(read_pixels(result).tobytes())
    if with_training:
        job = train_job(dataset, folder / f"{short} runs", architecture="spectral", epochs=1)
        network.run(job=job)
        assert list((folder / f"{short} runs" / "logs").glob("*tfevents*")), "the logs are where they should be"
        assert (folder / f"{short} runs" / "models" / "last.ckpt").is_file()
    hidden = [path for path in folder.rglob(".*") if path.name.endswith((".part", ".json")) or ".part." in path.name]
    assert not hidden
    return found


def test_names_that_are_too_long_for_a_file(case: CaseMaker) -> None:
    for verb, parameter in (("predict", "output"), ("evaluate", "scores_csv")):
        job = case(verb, verb)
        suffix = Path(str(job.job().to_json()[parameter])).suffix
        said = job.complaint(job=job.job(**{parameter: str(job.out / ("x" * 260 + suffix))}))
        assert "xxx" in said
        job.assert_untouched()


def test_a_stem_that_leaves_no_room_for_the_name_of_a_chip(case: CaseMaker) -> None:
    job = case("tile")
    long = job.inputs / ("x" * 250 + ".tif")
    shutil.move(job.inputs / "scene.tif", long)
    job.seen()
    job.complaint(job=job.job(image=str(long)))
    job.assert_untouched()


def test_names_that_are_no_text(case: CaseMaker) -> None:
    """Linux takes any bytes for a name."""
    job = case("tile")
    odd = job.inputs / "sc\udce4ne.tif"
    try:
        shutil.copy(job.inputs / "scene.tif", odd)
    except (OSError, UnicodeError):
        pytest.skip("this file system takes text only")
    job.seen()
    with pytest.raises(SpecDeepMapError, match="no text"):
        job.run(job=job.job(image=str(odd)))
    job.assert_untouched()
