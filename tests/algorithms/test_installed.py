# SPDX-License-Identifier: GPL-3.0-or-later
"""The zip of a release, installed in a fresh QGIS profile and run from there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.desktop import CHIPS, NAMES, Chain, environ
from tests.release import release

MODELS = ("from_labels_to_map", "train_and_map")


class Installation:
    """A profile with the plugin, as QGIS's plugin manager leaves it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        profile = folder / "profile" / "profiles" / "default"
        self.plugin = profile / "python" / "plugins" / "specdeepmap"
        self.plugin.parent.mkdir(parents=True)
        with zipfile.ZipFile(release()) as archive:
            archive.extractall(self.plugin.parent)
        settings = profile / "QGIS" / "QGIS3.ini"
        settings.parent.mkdir()
        settings.write_text("[PythonPlugins]\nspecdeepmap=true\n", encoding="utf-8")

    def call(self, *arguments: str) -> dict[str, Any]:
        """Run QGIS's own ``qgis_process`` with ``--json``, nothing of the checkout in sight."""
        program = shutil.which("qgis_process")
        assert program is not None
        own = environ(self.folder)
        for name in ("QGIS_PLUGINPATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"):
            own.pop(name, None)
        own["PATH"] = f"{Path(program).parent}{os.pathsep}{own['PATH']}"  # whose python3 QGIS takes
        done = subprocess.run(
            [program, "--json", *arguments],
            env=own,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("a computer é"))


def test_algorithms_and_models_are_there(installation: Installation) -> None:
    provider = installation.call("list")["providers"]["specdeepmap"]
    assert set(provider["algorithms"]) == {f"specdeepmap:{name}" for name in (*NAMES, *MODELS)}


def test_an_algorithm_runs_from_the_installed_files(installation: Installation, chain: Chain, tmp_path: Path) -> None:
    data = tmp_path / "data"
    values = {"IMAGE": chain.image, "LABELS": chain.labels, **CHIPS, "OUTPUT_FOLDER": data}
    given = [f"{name}={value}" for name, value in values.items()]
    results = installation.call("run", "specdeepmap:rastersplitter", "--", *given)["results"]
    assert results["TILE_COUNT"] == 9 == len(list((data / "images").glob("*.tif")))
    assert list(installation.plugin.rglob("__pycache__"))  # so it was these modules that ran


@pytest.mark.parametrize("name", [*NAMES, *MODELS])
def test_the_help_button_leads_to_a_page_of_the_installed_plugin(installation: Installation, name: str) -> None:
    address = installation.call("help", f"specdeepmap:{name}")["algorithm_details"]["help_url"]
    assert urlsplit(address).scheme == "file"
    page = Path(unquote(urlsplit(address).path))
    assert page.is_relative_to(installation.plugin.resolve() / "help")
    assert "SpecDeepMap" in page.read_text(encoding="utf-8")
