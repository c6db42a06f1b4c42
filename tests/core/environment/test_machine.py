# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the choice of a build of PyTorch by what the machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from specdeepmap.core.environment.machine import BUILDS, NEEDED_GB, choose_build, graphics_cards, uv_backend


@pytest.mark.parametrize(
    ("build", "has_card", "platform", "meant"),
    [
        ("auto", True, "linux", "nvidia"),
        ("auto", False, "linux", "cpu"),
        ("auto", True, "win32", "nvidia"),
        ("auto", False, "win32", "ordinary"),  # which is the one for processors there
        ("auto", False, "darwin", "ordinary"),
        ("cpu", True, "linux", "cpu"),
        ("cpu", True, "win32", "ordinary"),
        ("nvidia", False, "linux", "ordinary"),  # which is the one for NVIDIA cards there
        ("nvidia", False, "win32", "nvidia"),
        ("ordinary", True, "linux", "ordinary"),
    ],
)
def test_choose_build(build: str, has_card: bool, platform: str, meant: str) -> None:
    assert choose_build(build, has_card, platform) == meant


def test_every_build_that_can_be_meant_has_its_need_of_disk() -> None:
    assert set(NEEDED_GB) == set(BUILDS) - {"auto"}


def test_uv_backend() -> None:
    assert uv_backend("cpu", False) == "cpu"
    assert uv_backend("nvidia", True) == "auto"  # uv asks the driver
    assert uv_backend("nvidia", False).startswith("cu")  # type: ignore[union-attr]
    assert uv_backend("ordinary", True) is None


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program named as the driver's, on an otherwise empty PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "nvidia-smi"


def test_graphics_cards(driver: Path) -> None:
    assert graphics_cards() == ()
    driver.write_text("#!/bin/sh\necho 'NVIDIA A100, 550.54'\necho 'NVIDIA A100, 550.54'\n", encoding="utf-8")
    driver.chmod(0o755)
    assert graphics_cards() == ("NVIDIA A100, 550.54",) * 2


def test_a_driver_that_does_not_answer_is_none(driver: Path) -> None:
    driver.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n", encoding="utf-8")
    driver.chmod(0o755)
    assert graphics_cards() == ()
