# SPDX-License-Identifier: GPL-3.0-or-later
"""QGIS desktop itself, in a profile of its own: all six dialogs, one after the other, up to the styled map."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from specdeepmap.core.data.land import CLASSES
from specdeepmap.core.data.scene import make_scene
from tests.desktop import NAMES
from tests.walking import ROOT, Walked, walk

pytestmark = [
    pytest.mark.gui,
    pytest.mark.torch,
    pytest.mark.skipif(
        shutil.which("qgis") is None or shutil.which("Xvfb") is None, reason="needs QGIS desktop and Xvfb"
    ),
]

SECONDS = 300
"""The walk takes about 40; this is for machines that have much else to do."""

LEGEND = [[entry.value, entry.name, entry.color] for entry in CLASSES.entries]

HANDED_ON = {
    ("datasetmaker", "DATA_FOLDER"): ("rastersplitter", "OUTPUT_FOLDER"),
    ("trainer", "DATASET_FOLDER"): ("datasetmaker", "OUTPUT_FOLDER"),
    ("tensorboard", "LOG_FOLDER"): ("trainer", "LOG_FOLDER"),
    ("tester", "TEST_CSV"): ("datasetmaker", "TEST_CSV"),
    ("tester", "CHECKPOINT"): ("trainer", "BEST_CHECKPOINT"),
    ("mapper", "CHECKPOINT"): ("trainer", "BEST_CHECKPOINT"),
}
"""What the user finds in a dialog, and which output of which step it is."""


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Walked:
    home = tmp_path_factory.mktemp("walk ä")
    image, labels = make_scene(home / "scene", size=96)
    smallest = {"ARCHITECTURE": "unet", "BACKBONE": "mobilenet_v2", "EPOCHS": 2, "BATCH_SIZE": 4, "NUM_WORKERS": 0}
    plan = {
        "image": str(image),
        "labels": str(labels),
        "folder": str(home / "results"),
        "seconds": SECONDS - 50,
        "tile": 32,
        "training": smallest,
        "device": "cpu",
    }
    own = {"QGIS_PLUGINPATH": str(ROOT), "SPECDEEPMAP_PYTHON": str(ROOT / ".venv" / "bin" / "python")}
    return walk(plan, home, SECONDS, own)


@pytest.fixture(scope="module")
def found(walked: Walked) -> dict[str, Any]:
    assert walked.found.get("error") is None, f"{walked.found.get('open_log')}\n{walked.found.get('error')}"
    assert walked.found, walked.output
    return walked.found


def layer(found: dict[str, Any], file_name: str) -> dict[str, Any]:
    """Give what was seen of the layer of a file."""
    (one,) = (entry for entry in found["layers"] if Path(entry["source"].split("|")[0]).name == file_name)
    return one


def test_qgis_ends_well_and_leaves_no_process_behind(walked: Walked, found: dict[str, Any]) -> None:
    assert walked.code == 0, walked.output
    assert walked.left == []
    assert "Traceback" not in walked.output
    assert "TensorBoard: http://127.0.0.1:" in found["steps"]["tensorboard"]["log"]  # it ran until QGIS closed


@pytest.mark.parametrize("name", NAMES)
def test_step_says_nothing_of_errors(name: str, found: dict[str, Any]) -> None:
    seen = found["steps"][name]
    assert seen["ok"]
    assert "finished" in seen["log"]
    for word in ("Traceback", "rror:", "not correctly generated", "Could not"):
        assert word not in seen["log"]


def test_log_panel_shows_no_error(found: dict[str, Any]) -> None:
    assert [text for level, _, text in found["messages"] if level == "error"] == []
    assert [text for _, _, text in found["messages"] if "specdeepmap" in text.lower() or "Traceback" in text] == []


def test_torch_and_its_like_are_never_loaded_into_qgis(found: dict[str, Any]) -> None:
    assert found["heavy_after_dialogs"] == []
    assert found["heavy_at_end"] == []


def test_plugin_loads_in_no_time(found: dict[str, Any]) -> None:
    # On an idle machine 0.2 s, and QGIS's own Python 0.5 to 1 s; compared, since machines are not always idle.
    plugin, python = found["start_seconds"].values()
    assert 0 < plugin < 2 * python


def test_toolbox_shows_algorithms_and_models(found: dict[str, Any]) -> None:
    assert set(found["toolbox"]) >= {
        "Raster Splitter",
        "Dataset Maker",
        "Deep Learning Trainer",
        "TensorBoard Launcher",
        "Deep Learning Tester",
        "Deep Learning Mapper",
        "From labels to map",
        "Train and map",
    }


def test_menu_opens_the_dialog_of_the_environment(found: dict[str, Any]) -> None:
    assert found["environment"]["ready"]
    assert found["environment"]["findings"]["modules"]["torch"]


@pytest.mark.parametrize(("name", "parameter"), HANDED_ON)
def test_dialog_starts_with_what_the_step_before_made(name: str, parameter: str, found: dict[str, Any]) -> None:
    step, output = HANDED_ON[name, parameter]
    assert found["steps"][name]["prefilled"][parameter] == found["steps"][step]["results"][output]


def test_map_is_shown_with_names_and_colours_of_its_classes(found: dict[str, Any]) -> None:
    seen = layer(found, "map.tif")
    assert seen["valid"]
    assert seen["shown"]
    assert seen["renderer"] == "paletted"
    assert seen["classes"] == LEGEND
    assert seen["legend"][-len(LEGEND) :] == [name for _, name, _ in LEGEND]


def test_the_map_lies_on_top_of_the_other_results(found: dict[str, Any]) -> None:
    names = [Path(entry["source"].split("|")[0]).name for entry in found["layers"]]
    results = [name for name in names if name in ("map.tif", "map.gpkg", "confidence.tif")]
    assert results == ["map.tif", "map.gpkg", "confidence.tif"]


def test_polygons_are_shown_like_the_map(found: dict[str, Any]) -> None:
    seen = layer(found, "map.gpkg")
    assert seen["valid"]
    assert seen["classes"] == LEGEND
    assert seen["legend"] == [name for _, name, _ in LEGEND]


def test_confidence_is_shown_with_a_ramp_from_0_to_1(found: dict[str, Any]) -> None:
    seen = layer(found, "confidence.tif")
    assert seen["valid"]
    assert seen["renderer"] == "singlebandpseudocolor"
    values, colors = zip(*seen["ramp"], strict=True)
    assert (values[0], values[-1]) == (0, 1)
    assert list(values) == sorted(values)
    assert len(set(colors)) == len(colors) > 2


def test_chips_are_shown_by_their_set(found: dict[str, Any]) -> None:
    seen = layer(found, "tiles.gpkg")
    assert seen["valid"]
    assert seen["legend"][:3] == ["train", "validation", "test"]
