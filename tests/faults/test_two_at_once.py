# SPDX-License-Identifier: GPL-3.0-or-later
"""Two runs that write into the same folder at once: what is left is what they had left one after the other."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from specdeepmap.core.errors import SpecDeepMapError
from specdeepmap.core.jobs import Job, TensorBoardResult, TileJob
from specdeepmap.core.staging import claim
from tests.faults.bench import ALL, AT_ONCE, Case, assert_is_sentence, sample, some, write_scene
from tests.faults.conftest import CaseMaker
from tests.faults.digest import digest


def together(case: Case, jobs: Sequence[Job]) -> list[str]:
    """Run jobs at the same time; gives what each has complained of, or nothing."""
    said = [""] * len(jobs)

    def work(number: int) -> None:
        own = Case(case.bench, case.folder, case.python, case.socket)
        try:
            own.run(job=jobs[number])
        except SpecDeepMapError as error:
            said[number] = str(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for text in filter(None, said):
        assert_is_sentence(text)
    return said


@pytest.mark.parametrize("seed", some(1, 8))
@pytest.mark.parametrize("verb", sample(AT_ONCE, 1))
def test_the_same_job_twice(case: CaseMaker, verb: str, seed: int) -> None:
    twice = case(verb)
    assert together(twice, [twice.job(), twice.job()]) == ["", ""]
    twice.assert_whole()


OTHER: dict[str, dict[str, Any]] = {
    "tile": {"step_x": 32, "step_y": 16},
    "prepare": {"seed": 7, "statistics": False},
    "evaluate": {"test_csv": "in/dataset/test_files.csv"},
    "predict": {"min_area": 0, "confidence": None},
}


def two_jobs(case: Case) -> list[Job]:
    changes = OTHER[case.bench.verb]
    return [
        case.job(),
        case.job(**{k: str(case.folder / v) if isinstance(v, str) else v for k, v in changes.items()}),
    ]


@pytest.mark.parametrize("seed", some(1, 8))
@pytest.mark.parametrize("verb", AT_ONCE)
def test_two_jobs_of_one_kind(case: CaseMaker, verb: str, seed: int) -> None:
    orders = []
    for name, order in (("first", (0, 1)), ("second", (1, 0))):
        one = case(verb, name)
        jobs = two_jobs(one)
        for number in order:
            one.run(job=jobs[number])
        orders.append(digest(one.out))
    assert orders[0] != orders[1]
    both = case(verb, "both")
    assert together(both, two_jobs(both)) == ["", ""]
    assert digest(both.out) in orders
    both.assert_tidy()


def test_two_images_into_one_folder(case: CaseMaker) -> None:
    """An array of cluster jobs cuts many scenes at once; no chip and no row of the index may be missing."""
    both = case("tile")
    write_scene(both.inputs / "more", 9, (80, 64), "other")
    images = {"image": str(both.inputs / "more/other.tif"), "labels": str(both.inputs / "more/truth/other.tif")}
    jobs = [both.job(), both.job(**images)]
    assert all(isinstance(job, TileJob) for job in jobs)
    one = shutil.copytree(both.folder, both.folder.parent / "one after the other")
    alone = Case(both.bench, Path(one), both.python, both.socket)
    for job in jobs:
        alone.run(job=type(job).from_json({**job.to_json(), "output_folder": str(alone.out)}))
    assert together(both, jobs) == ["", ""]
    assert digest(both.out) == digest(alone.out)
    both.assert_tidy()


def test_two_trainings_in_one_model_folder(case: CaseMaker) -> None:
    twice = case("train")
    said = together(twice, [twice.job(), twice.job()])
    assert sorted(map(bool, said)) == [False, True]
    assert "another training is writing into it" in "".join(said)
    twice.assert_whole()


def test_a_training_waits_for_nobody_who_has_ended(case: CaseMaker) -> None:
    alone = case("train")
    with claim(alone.out / "models") as mine:
        assert mine
        for changes in ({}, {"resume": True, "epochs": 9, "seed": 1}):
            assert "another training" in alone.complaint(job=alone.job(**changes))
        alone.assert_untouched()
    alone.assert_next_run_works()


def test_two_trainings_that_begin_in_the_same_second(case: CaseMaker) -> None:
    """Without a model folder each has its own, named by the time."""
    twice = case("train")
    jobs = [twice.job(model_folder=None, log_folder=None) for _ in range(3)]
    assert together(twice, jobs) == ["", "", ""]
    runs = sorted((twice.inputs / "dataset" / "runs").iterdir())
    assert len(runs) == 3
    results = [digest(run) for run in runs]
    assert results[0] == results[1] == results[2]


@pytest.mark.skipif(not ALL, reason="takes a while; set SPECDEEPMAP_ALL_FAULTS=1")
def test_two_servers_of_one_log_folder(case: CaseMaker) -> None:
    twice = case("tensorboard")
    first = twice.start(job=twice.job(duration=0))
    try:
        found = first.result(twice.progress, until_exit=False)
        assert isinstance(found, TensorBoardResult)
        again = twice.run()
        assert isinstance(again, TensorBoardResult) and again.url.startswith("http://127.0.0.1:")
    finally:
        first.stop()
    assert isinstance(twice.run(), TensorBoardResult)
    twice.assert_untouched()
