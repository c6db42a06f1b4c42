# SPDX-License-Identifier: GPL-3.0-or-later
"""The folders of a training: where checkpoints and logs are written, by one training at a time."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from specdeepmap.core.errors import ConfigError
from specdeepmap.core.jobs import TrainJob
from specdeepmap.core.staging import CLAIM_NAME, claim


@dataclass(frozen=True)
class RunFolders:
    """Where checkpoints and logs are written.

    Attributes:
        models, logs: the folders.
        made: those that did not exist before, and those that they lie in, the innermost first.
    """

    models: Path
    logs: Path
    made: tuple[Path, ...] = ()

    def remove_unused(self) -> None:
        """Remove what was made and is empty: a training may end before it has written anything."""
        for folder in self.made:
            with suppress(OSError):
                folder.rmdir()


def make_folders(job: TrainJob) -> RunFolders:
    """Make the folders of models and logs; those that the job does not name are new ones in the dataset folder.

    Raises:
        ConfigError: if one cannot be written.
    """
    runs = job.dataset_folder / "runs"
    run = runs / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    made = [] if runs.exists() else [runs]
    if job.model_folder is None or job.log_folder is None:
        run = _make_new(run)
        made.insert(0, run)
    folders = RunFolders(job.model_folder or run / "models", job.log_folder or run / "logs")
    for name, folder in (("MODEL_FOLDER", folders.models), ("LOG_FOLDER", folders.logs)):
        try:
            if not folder.exists():
                made.insert(0, folder)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".probe.part").touch()
            (folder / ".probe.part").unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{name} {folder} cannot be written ({error.strerror}). Choose a folder that you may write to."
            ) from error
    return replace(folders, made=tuple(made))


def known_folders(job: TrainJob) -> RunFolders:
    """Give the folders to a process that writes nothing, but must see which checkpoints of a resumed run are there."""
    return RunFolders(job.model_folder or Path(), job.log_folder or Path())


def _make_new(wanted: Path) -> Path:
    """Make a folder that no other run has; where two start in the same second, one gets a number behind its name."""
    folder, number = wanted, 1
    while True:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
            folder = wanted.with_name(f"{wanted.name}_{number}")
        except OSError as error:
            raise ConfigError(
                f"MODEL_FOLDER and LOG_FOLDER are not both set, and {folder} cannot be written ({error.strerror}). "
                "Name folders that you may write to."
            ) from error
        else:
            return folder


def claim_models(folder: Path, claims: ExitStack) -> None:
    """Keep other trainings from a model folder, and remove what one that was killed left half-written.

    Args:
        folder: it exists.
        claims: lets go of the folder when it is closed.

    Raises:
        ConfigError: if another training is writing into it.
    """
    if not claims.enter_context(claim(folder)):
        raise ConfigError(
            f"MODEL_FOLDER {folder}: another training is writing into it. Wait until it has ended, or choose another "
            "folder."
        )
    for part in set(folder.glob(".*.part")) - {folder / CLAIM_NAME}:
        part.unlink(missing_ok=True)
