# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the learning room: one small dataset and one trained model for all of its tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.chips import scene_dataset, train


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # chips are so small that threads only wait for each other


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scene_dataset(tmp_path_factory.mktemp("learn"))


@pytest.fixture(scope="session")
def checkpoint(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(dataset_folder, tmp_path_factory.mktemp("model")).best_checkpoint
