# SPDX-License-Identifier: GPL-3.0-or-later
"""An existing Python, chosen by the user instead of the plugin's own environment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from specdeepmap.core.environment.findings import REQUIREMENTS, Findings, examine
from specdeepmap.core.environment.search import VARIABLE, choice_file, chosen_python, environment_python
from specdeepmap.core.errors import EnvironmentMissingError
from specdeepmap.core.staging import write_whole


def choose(python: Path, check: Callable[[], None] | None = None) -> Findings:
    """Have an existing Python used from now on instead of the plugin's own environment.

    Args:
        python: its interpreter, or the folder of its environment.
        check: is called while it is looked at, and may raise to give up.

    Raises:
        EnvironmentMissingError: if it lacks something, or the choice cannot be written; nothing is changed then.
    """
    found = Path(shutil.which(str(python)) or python).absolute()
    if found.is_dir():  # a venv's, or conda's, folder
        inside = (environment_python(found), found / "python.exe")
        found = next((path for path in inside if path.is_file()), found)
    findings = examine(found, check=check)
    if not findings.ready:
        raise EnvironmentMissingError(
            f"{found} cannot be used: {' '.join(findings.problems)} Install what is missing there, from "
            f"{REQUIREMENTS}, or choose another Python."
        )
    with _writing(choice_file()) as file:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, lambda part: part.write_text(f"{found}\n", encoding="utf-8"))
    return findings


def overruled() -> tuple[str, ...]:
    """Say where an environment variable goes before what is chosen."""
    named = os.environ.get(VARIABLE)
    if not named:
        return ()
    return (
        f"This has no effect yet: the environment variable {VARIABLE} is set ({named}) and goes before. Remove it, in "
        "QGIS under Settings > Options > System > Environment, and start QGIS again.",
    )


def forget_choice() -> Path | None:
    """Use the plugin's own environment again; give the Python that had been chosen.

    Raises:
        EnvironmentMissingError: if the choice cannot be taken back.
    """
    chosen = chosen_python()
    with _writing(choice_file()) as file:
        file.unlink(missing_ok=True)
    return chosen


@contextmanager
def _writing(file: Path) -> Iterator[Path]:
    """Say what is wrong where the file that holds the choice cannot be written.

    Raises:
        EnvironmentMissingError: if it cannot.
    """
    try:
        yield file
    except OSError as error:
        raise EnvironmentMissingError(
            f"The choice cannot be written to {file} ({error.strerror}). May you write there, and is there room on the "
            f"disk? Or name the Python in the environment variable {VARIABLE}."
        ) from error
