# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of what is shown of names from files: never as HTML, never as anything but a text."""

from __future__ import annotations

import csv
from html.parser import HTMLParser
from pathlib import Path

import pytest

from specdeepmap.core.data.classes import ClassEntry, ClassTable
from specdeepmap.core.data.scores import Scores, write_scores
from specdeepmap.core.errors import ConfigError
from specdeepmap.core.jobs import EvaluateJob, PrepareJob, TileJob, TrainJob
from specdeepmap.core.progress import Progress
from specdeepmap.core.tasks import perform
from tests.chips import SMALL, stripes
from tests.helpers import write_raster

pytestmark = pytest.mark.torch

EVIL = "<script>alert('a')</script><img src=x onerror=alert(1)>&amp;\"'"

FORMULA = "=cmd|' /C calc'!A0"


class Tags(HTMLParser):
    """Collects what a browser would make of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.texts = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts += data


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tags]:
    """All reports of a dataset whose classes, bands and files have names that are programs."""
    folder = tmp_path_factory.mktemp("pages")
    image, labels = stripes()
    name = "scene &lt;b&gt; <b onclick=alert(1)>'"
    scene = write_raster(folder / f"{name}.tif", image, names=[EVIL, f"{EVIL} 2", '"><script>3'])
    truth = write_raster(folder / "truth.tif", labels, categories={1: EVIL, 2: FORMULA, 4: "javascript:alert(1)"})
    dataset = folder / "dataset <i>"
    sizes = {"tile_size_x": 32, "tile_size_y": 32, "step_x": 32, "step_y": 32}
    perform(TileJob(image=str(scene), labels=str(truth), output_folder=dataset, **sizes), Progress())
    shares = {"train_percent": 50.0, "validation_percent": 25.0, "test_percent": 25.0}
    perform(PrepareJob(data_folder=dataset, **shares), Progress())
    where = {"model_folder": folder / "<u>models", "log_folder": folder / "logs"}
    device = {"device": "cpu", "precision": "float32"}
    training = TrainJob(dataset_folder=dataset, architecture=SMALL, epochs=1, batch_size=2, **where, **device)
    trained = perform(training, Progress())
    scores = folder / "<s>scores.csv"
    test = EvaluateJob(
        test_csv=dataset / "test_files.csv", checkpoint=trained.best_checkpoint, scores_csv=scores, device="cpu"
    )
    tested = perform(test, Progress())
    found = {"dataset": dataset / "dataset_report.html", "training": trained.report, "test": tested.report}
    return {kind: Tags(Path(page)) for kind, page in found.items()}


@pytest.mark.parametrize("kind", ["dataset", "training", "test"])
def test_names_are_no_html(pages: dict[str, Tags], kind: str) -> None:
    tags = pages[kind]
    assert not tags.names & {"script", "b", "i", "u", "s", "iframe", "object", "form"}
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    links = [value for name, value in tags.attributes if name in ("href", "src")]
    assert all(link.startswith(("data:image/png;base64,", "./")) or ":" not in link for link in links)
    assert EVIL in tags.texts, "the name stands there, as it is"


def test_nothing_is_fetched(pages: dict[str, Tags]) -> None:
    for tags in pages.values():
        styles = [value for name, value in tags.attributes if name == "style"]
        assert not [style for style in styles if "url" in style or "http" in style]


@pytest.mark.parametrize(
    "color", ['#000"><script>', "red", "", "#00000", "#0000000", "url(http://127.0.0.1)", "#00000g", "#000000;x"]
)
def test_colours_are_nothing_else(color: str) -> None:
    """They go as they are into the styles of reports."""
    with pytest.raises(ConfigError, match=r"colour of class 7 .* six hexadecimal digits"):
        ClassTable(entries=(ClassEntry(7, "a", color),))
    assert ClassTable.of([7], colors={7: color}).entries[0].color == "#e69f00"


def test_formulas_stay_what_they_are(tmp_path: Path) -> None:
    """A table is read back by programs, so a name is not changed in it; the documentation warns of spreadsheets."""
    table = ClassTable(entries=(ClassEntry(1, FORMULA, "#000000"),))
    write_scores(tmp_path / "scores.csv", Scores.empty(1), table)
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as file:
        assert next(csv.DictReader(file))["Name"] == FORMULA
