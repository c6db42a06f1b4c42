# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for the tests of the tasks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from specdeepmap.core.tasks import predict
from tests.chips import dataset_of, noisy_stripes, stripes, train
from tests.reading import Reader


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # chips are so small that threads only wait for each other


@pytest.fixture(scope="session")
def striped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four chips of three classes that any network can tell apart, all for training."""
    return dataset_of(tmp_path_factory.mktemp("striped"), *stripes())


@pytest.fixture(scope="session")
def shared_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine chips of three classes: six to train and three, an odd number, to validate."""
    folder = tmp_path_factory.mktemp("shared_out")
    return dataset_of(folder, *stripes(96, 96), train_percent=67.0, validation_percent=33.0)


@pytest.fixture(scope="session")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, in noise: single pixels do not tell the classes apart, so that no start is perfect."""
    folder = tmp_path_factory.mktemp("noisy")
    return dataset_of(folder, *noisy_stripes(96, 96), train_percent=67.0, validation_percent=33.0)


@pytest.fixture(scope="session")
def model(shared_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that tells the three classes apart."""
    folder = tmp_path_factory.mktemp("model")
    return train(shared_out, folder, epochs=12, learning_rate=0.01, augmentation=False).best_checkpoint


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> type[Reader]:
    """Let the mapper have a network that says what stands in the first band; what is set on it is this test's own."""
    kind = type("Reader", (Reader,), {})
    monkeypatch.setattr(predict, "Predictor", kind)
    return kind
