# SPDX-License-Identifier: GPL-3.0-or-later
"""A child that is killed, at any moment, damages nothing, and the next run goes well."""

from __future__ import annotations

from pathlib import Path

import pytest

from specdeepmap.core import run as run_module
from specdeepmap.core.errors import ChildError, SpecDeepMapError
from specdeepmap.core.jobs import TensorBoardResult
from specdeepmap.core.learn.checkpoint import load_checkpoint
from tests.faults.bench import ALL, AT_ONCE, Case, assert_is_sentence, sample, seeded, some
from tests.faults.conftest import CaseMaker
from tests.faults.digest import digest
from tests.helpers import snapshot

FIRST_RENAMES = {"tile": (1, 2, 17, 40), "prepare": (1, 7), "evaluate": (5,), "predict": (3,)}
"""Of the renames that each job does, those at which something else begins."""


@pytest.fixture
def nobody_cleans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the parent be killed, too, or the power fail: nobody removes what the child left."""
    monkeypatch.setattr(run_module, "remove_staged", lambda paths: None)


def kill(case: Case, **fault: int) -> None:
    with pytest.raises(ChildError, match="SIGKILL"):
        case.run(fault)


def moment(case: Case, seed: int, first: float = 0.0) -> int:
    """Draw the number of a call between a share of all calls and the end."""
    return seeded(f"{case.bench.verb} {seed}").randrange(int(first * case.calls), int(0.97 * case.calls))


@pytest.mark.parametrize("seed", some(1, 25))
@pytest.mark.parametrize("verb", AT_ONCE)
def test_at_a_random_moment(case: CaseMaker, verb: str, seed: int) -> None:
    killed = case(verb)
    kill(killed, die_at_call=moment(killed, seed))
    killed.assert_no_half_file()
    killed.assert_next_run_works()


@pytest.mark.parametrize(
    ("verb", "number"), [(verb, n) for verb in AT_ONCE for n in (range(1, 60) if ALL else FIRST_RENAMES[verb])]
)
def test_when_a_result_gets_its_name(case: CaseMaker, verb: str, number: int) -> None:
    killed = case(verb)
    try:
        kill(killed, die_at_rename=number)
    except pytest.fail.Exception:
        if not ALL:
            raise
        return  # it has fewer
    killed.assert_no_half_file()
    killed.assert_next_run_works()


@pytest.mark.usefixtures("nobody_cleans")
@pytest.mark.parametrize(("verb", "number"), sample([(verb, n) for verb in AT_ONCE for n in FIRST_RENAMES[verb]], 4))
def test_with_its_parent(case: CaseMaker, verb: str, number: int) -> None:
    killed = case(verb)
    kill(killed, die_at_rename=number)
    killed.run()
    assert digest(killed.out) == killed.wanted
    assert not [path for path in killed.out.rglob(".*") if "exchange" in path.name or "earlier" in path.name]


@pytest.mark.parametrize("seed", some(3, 40))
def test_a_training_goes_on_where_it_was(case: CaseMaker, seed: int) -> None:
    killed = case("train")
    earlier = {name: mark for name, mark in killed.before[1].items() if "/0" in name}  # checkpoints by their epoch
    assert len(earlier) == 4
    kill(killed, die_at_call=moment(killed, seed))
    digest(killed.out)  # all that has a name is whole
    assert earlier.items() <= snapshot(killed.out).items()
    last = load_checkpoint(killed.out / "models" / "last.ckpt")[0]
    if last.settings["seed"] == 2 and last.metrics["epoch"] < 2:
        killed.run(job=killed.job(resume=True))
    else:  # killed before its first epoch was written, or after its last one
        with pytest.raises(SpecDeepMapError, match="RESUME") as caught:
            killed.run(job=killed.job(resume=True))
        assert_is_sentence(str(caught.value))
        killed.run_anew()
    killed.assert_whole()


@pytest.mark.parametrize("seed", some(1, 6))
def test_tensorboard_starts_again(case: CaseMaker, seed: int) -> None:
    killed = case("tensorboard")
    child = killed.start({"die_at_call": moment(killed, seed, 0.5)})
    with pytest.raises(ChildError, match="SIGKILL"):
        killed.finish(child)
    killed.assert_untouched()
    result = killed.run()
    assert isinstance(result, TensorBoardResult) and str(result.port) in result.url
    killed.assert_untouched()


def test_cold_children(case: CaseMaker, tmp_path: Path) -> None:
    """The warm Python that the others use is no other one."""
    if not ALL:
        pytest.skip("takes a minute; set SPECDEEPMAP_ALL_FAULTS=1")
    for verb in ("train", "evaluate", "predict"):
        killed = case(verb, verb, cold=True)
        kill(killed, die_at_rename=1)
        killed.run()
        killed.assert_whole()
