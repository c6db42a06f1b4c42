# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the six jobs: they survive JSON, and say what is wrong with them."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdeepmap.core.data.classes import ClassEntry
from specdeepmap.core.errors import ConfigError
from specdeepmap.core.jobs import JOBS, Job, PredictJob, TrainJob, job_from_json
from specdeepmap.core.jobs.base import check_apart
from specdeepmap.core.learn.augmentations import AUGMENTATIONS
from specdeepmap.core.record import Spec, spec_of
from specdeepmap.core.tasks import _VERBS

NEEDED: dict[str, dict[str, Any]] = {
    "tile": {"image": "a b.tif", "labels": "ß.tif", "output_folder": "out"},
    "prepare": {"data_folder": "chips"},
    "train": {"dataset_folder": "dataset"},
    "tensorboard": {"log_folder": "logs"},
    "evaluate": {"test_csv": "test.csv", "checkpoint": "a.ckpt", "scores_csv": "scores.csv"},
    "predict": {"image": "a.tif", "checkpoint": "a.ckpt", "output": "map.tif"},
}

FIELDS = [(verb, field) for verb, kind in JOBS.items() for field in dataclasses.fields(kind)]


def spec(field: dataclasses.Field[Any]) -> Spec:
    return spec_of(field) or Spec("none", "", "")


def those(condition: Callable[[Spec], object]) -> pytest.MarkDecorator:
    """Run a test for each field that fulfils a condition."""
    wanted = [pytest.param(verb, field, id=f"{verb}-{field.name}") for verb, field in FIELDS if condition(spec(field))]
    return pytest.mark.parametrize(("verb", "field"), wanted)


def make(verb: str, **values: Any) -> Job:
    return job_from_json({"job": verb, **NEEDED[verb], **values})


def test_every_job_can_be_performed() -> None:
    assert set(JOBS) == set(NEEDED) == set(_VERBS)
    assert all(kind.verb == verb for verb, kind in JOBS.items())


@pytest.mark.parametrize("verb", JOBS)
def test_through_a_file_and_back(verb: str, tmp_path: Path) -> None:
    job = make(verb)
    job.save(tmp_path / "job.json")
    values = json.loads((tmp_path / "job.json").read_text("utf-8"))
    assert values["job"] == verb and list(values)[1:] == [field.name for field in dataclasses.fields(job)]
    again = job_from_json(values)
    assert again == job and type(again) is JOBS[verb]
    for field in dataclasses.fields(job):
        assert type(getattr(again, field.name)) is type(getattr(job, field.name))


def test_classes_and_extents_survive() -> None:
    classes = (ClassEntry(3, "Äcker", "#00ff00"), ClassEntry(200, "", "#000000"))
    tile, box = make("tile", classes=classes), make("predict", extent=[1, 2.5, 3, 4])
    for job in (tile, box):
        assert job_from_json({"job": job.verb, **json.loads(json.dumps(job.to_json()))}) == job
    assert isinstance(box, PredictJob) and box.extent == (1.0, 2.5, 3.0, 4.0)


@pytest.mark.parametrize("verb", JOBS)
def test_unknown_parameters_are_named_with_the_nearest(verb: str) -> None:
    for name in NEEDED[verb]:
        with pytest.raises(ConfigError, match=f"no parameter '{name}x'.*Did you mean {name}"):
            make(verb, **{f"{name}x": 1})


@pytest.mark.parametrize("verb", JOBS)
def test_missing_parameters_are_named(verb: str) -> None:
    for name in NEEDED[verb]:
        values = {key: value for key, value in NEEDED[verb].items() if key != name}
        with pytest.raises(ConfigError, match=f"{name.upper()} is missing"):
            job_from_json({"job": verb, **values})


@those(lambda asked: asked.kind in ("integer", "number"))
def test_bounds(verb: str, field: dataclasses.Field[Any]) -> None:
    name, asked = field.name, spec(field)
    step = 1 if asked.kind == "integer" else 0.001
    for limit, sign, text in (
        (asked.minimum, -1, "at least"),
        (asked.above, 0, "greater than"),
        (asked.maximum, 1, "at most"),
    ):
        if limit is None:
            continue
        wrong = type(step)(limit + sign * step)
        with pytest.raises(ConfigError, match=rf"{name.upper()} is .*must be {text} {limit:g}"):
            make(verb, **{name: wrong})


@those(lambda asked: asked.kind in ("integer", "number"))
def test_numbers_that_are_none(verb: str, field: dataclasses.Field[Any]) -> None:
    asked = spec(field)
    for wrong in ("ten", "1,5", True, [1], *([2.5] if asked.kind == "integer" else [])):
        with pytest.raises(ConfigError, match=f"{field.name.upper()} is .*must be a"):
            make(verb, **{field.name: wrong})
    if (asked.minimum, asked.above) != (None, None):
        for wrong in (math.nan, math.inf):
            with pytest.raises(ConfigError, match=field.name.upper()):
                make(verb, **{field.name: wrong})


@those(lambda asked: asked.options)
def test_choices(verb: str, field: dataclasses.Field[Any]) -> None:
    asked = spec(field)
    options = asked.options() if asked.options else {}
    assert field.default in options
    for name in options:
        if (verb, field.name) != ("prepare", "split"):  # some splits need other parameters
            assert getattr(make(verb, **{field.name: name}), field.name) == name
    first = next(iter(options))
    with pytest.raises(ConfigError, match=f"{field.name.upper()} is '{first}s', which does not exist.*{first}"):
        make(verb, **{field.name: first + "s"})


@those(lambda asked: True)
def test_every_parameter_is_explained(verb: str, field: dataclasses.Field[Any]) -> None:
    asked = spec_of(field)
    if asked is None:
        assert field.default is not dataclasses.MISSING
        return
    assert asked.label and asked.help.endswith(".")
    if field.default is not dataclasses.MISSING:
        assert "Default" in asked.help
    if asked.options is not None and len(asked.options()) < 8:
        assert all(name in asked.help for name in asked.options())


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.one_of(st.none(), st.integers(), st.text(max_size=5), st.lists(st.none(), max_size=2)),
        max_size=4,
    ),
    st.sampled_from([*JOBS, "x"]),
)
def test_anything_else_is_an_error_of_ours(values: dict[str, Any], verb: str) -> None:
    with pytest.raises(ConfigError):
        job_from_json({**values, "job": verb})


def test_unknown_verbs() -> None:
    with pytest.raises(ConfigError, match=r"job is 'trian'\. Did you mean train\?.* tile, prepare, train"):
        job_from_json({"job": "trian"})
    with pytest.raises(ConfigError, match="job is ''"):
        job_from_json({})
    for wrong in ([], "train", None, 5):
        with pytest.raises(ConfigError, match="one JSON object"):
            job_from_json(typing.cast(Any, wrong))


@pytest.mark.parametrize(
    ("verb", "values", "message"),
    [
        ("train", {"save_top_k": 0}, "SAVE_TOP_K is 0"),
        ("train", {"weights_file": "a.pth", "pretrained_weights": "imagenet"}, "WEIGHTS_FILE and PRETRAINED_WEIGHTS"),
        ("train", {"init_checkpoint": "a.ckpt", "weights_file": "a.pth"}, "INIT_CHECKPOINT and WEIGHTS_FILE .*Leave W"),
        (
            "train",
            {"init_checkpoint": "a.ckpt", "pretrained_weights": "imagenet"},
            "INIT_CHECKPOINT and PRETRAINED_WEIGHTS .*Leave PRETRAINED_WEIGHTS out",
        ),
        ("train", {"resume": True}, "RESUME is on, but MODEL_FOLDER is not set"),
        ("prepare", {"train_percent": 80, "validation_percent": 20, "test_percent": 1}, "add up to 101"),
        ("predict", {"scores_csv": "a.csv"}, "GROUND_TRUTH"),
        ("predict", {"output": "map.jpg"}, r"end in \.tif"),
        ("predict", {"extent": [1, 2, 3]}, "four numbers"),
        ("predict", {"extent": [3, 2, 1, 4]}, "is empty"),
        ("tile", {"image": ""}, "IMAGE is empty"),
        ("tile", {"classes": [{"value": 1}]}, "CLASSES"),
        ("tile", {"classes": [5]}, "CLASSES"),
        ("train", {"dataset_folder": ""}, "DATASET_FOLDER"),
        ("train", {"augmentation": "no"}, "AUGMENTATION is 'no'; it must be true or false"),
    ],
)
def test_values_that_do_not_fit_together(verb: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(verb, **values)


@pytest.mark.parametrize(
    ("verb", "values"),
    [
        ("predict", {"output": "map.TIFF"}),
        ("train", {"save_top_k": -1}),
        ("train", {"resume": True, "model_folder": "models"}),
        ("train", {"init_checkpoint": "a.ckpt"}),
    ],
)
def test_values_that_fit(verb: str, values: dict[str, Any]) -> None:
    assert make(verb, **values)


@pytest.mark.parametrize("verb", JOBS)
def test_jobs_do_not_change(verb: str) -> None:
    job = make(verb)
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.__setattr__(dataclasses.fields(job)[0].name, "x")


AUGMENTS = [field.name for field in dataclasses.fields(TrainJob) if field.name.startswith("augment_")]


def augmentations(**values: Any) -> dict[str, float]:
    job = make("train", **values)
    assert isinstance(job, TrainJob)
    return job.augmentations()


def test_only_flips_and_turns_are_on_by_default_and_one_switch_turns_all_off() -> None:
    assert augmentations() == {"flips_and_turns": 1.0}
    assert augmentations(augmentation=False, **dict.fromkeys(AUGMENTS, 1)) == {}


@pytest.mark.parametrize("name", AUGMENTS)
def test_each_augmentation_has_a_strength_that_the_table_knows(name: str) -> None:
    own = augmentations(**{name: 1.5})
    (found,) = set(own) - {"flips_and_turns"}
    assert found in AUGMENTATIONS and found == name.removeprefix("augment_")
    per_cent = "(%)" in spec(next(field for field in dataclasses.fields(TrainJob) if field.name == name)).label
    assert own[found] == pytest.approx(0.015 if per_cent else 1.5)


def test_every_augmentation_can_be_had() -> None:
    assert set(augmentations(**dict.fromkeys(AUGMENTS, 1))) == set(AUGMENTATIONS)


@pytest.mark.parametrize("way", ["plain", "dots", "link", "linked folder"])
def test_files_are_the_same_whatever_they_are_called(tmp_path: Path, way: str) -> None:
    """An output that is reached another way would replace an input all the same."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.csv").touch()
    (tmp_path / "link.csv").symlink_to(tmp_path / "a.csv")
    (tmp_path / "way").symlink_to(tmp_path, target_is_directory=True)
    names = {"plain": "a.csv", "dots": "sub/../a.csv", "link": "link.csv", "linked folder": "way/a.csv"}
    other = tmp_path / names[way]
    check_apart({"B": [tmp_path / "b.csv"]}, {"A": [other], "ALSO": [tmp_path / "a.csv"]})
    for outputs, inputs in (
        ({"B": [tmp_path / "a.csv"]}, {"A": [other]}),
        ({"B": [other]}, {"A": [tmp_path / "a.csv"]}),
    ):
        with pytest.raises(ConfigError, match=r"B and A are the same file.*Choose another name for B\."):
            check_apart(outputs, inputs)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    check_apart({"B": [loop]}, {"A": [Path("<VRTDataset>" * 1000), Path("nul\0.tif"), tmp_path / ("x" * 300)]})
    with pytest.raises(ConfigError, match="C and B are the same file"):
        check_apart({"B": [tmp_path / "a.csv"], "C": [tmp_path / "b.csv", other]}, {})
