# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the trainer's report: what stands on the page."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from specdeepmap.core.data.classes import ClassTable
from specdeepmap.core.data.normalization import Normalization
from specdeepmap.core.data.scores import Scores
from specdeepmap.core.errors import RasterError
from specdeepmap.core.learn.baselines import Baselines, majority
from specdeepmap.core.learn.pictures import png_bytes
from specdeepmap.core.learn.trainreport import REPORT_NAME, TrainingStory, make_page, write_report
from tests.cards import bare_card

NAN = math.nan

CARD = bare_card(
    backbone="resnet18",
    bands=("a", "b", "c"),
    normalization=Normalization.none(3, 1.0, (False, True, False)),
    classes=ClassTable.of([1, 5, 9], {1: "water & ice", 5: "wood", 9: "sand"}),
    chip_width=64,
    chip_height=32,
    settings={"learning_rate": 0.001, "freeze_backbone": True, "log_folder": None, "loss": "cross_entropy"},
    fingerprint="0" * 64,
    trained_on=("abcdef01",),
    versions={"torch": "2.6"},
)

# No pixel of the reference is sand, and nothing is predicted as it: IoU 0.6, 0.5 and none.
BEST = Scores(np.array([[60, 40, 0], [0, 40, 0], [0, 0, 0]]))
LINEAR = Scores(np.array([[90, 10, 0], [10, 30, 0], [0, 0, 0]]))

STORY = TrainingStory(
    card=CARD,
    rows=[
        {
            **{"epoch": epoch, "train_loss": 2.0 - epoch, "train_iou": 0.1 * epoch, "val_loss": 9.0},
            **{"val_iou": 0.2 * epoch, "lr": 0.001, "seconds": 7.0},
        }
        for epoch in range(3)
    ],
    best=BEST,
    best_epoch=2,
    baselines=Baselines(majority(BEST.support, BEST.support), LINEAR),
    seconds=83.0,
    warnings=("All is <b>lost</b>.",),
    examples=(png_bytes(np.zeros((32, 100, 3), np.uint8)),) * 2,
    checkpoint="00002-val_iou_0.5500.ckpt",
    chips={"train": 7, "validation": 2, "test": 0},
    pixels=np.array([[7000, 10, 1], [100, 40, 0], [0, 0, 0]]),
)


def rows_of(page: str) -> list[list[str]]:
    """Read the cells of all table rows, without what is marked up in them."""
    return [
        [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", page)
    ]


def test_the_network_stands_beside_what_needs_none() -> None:
    rows = rows_of(make_page(STORY))
    start = rows.index(["On the same validation chips", "Mean IoU", "Overall accuracy"])
    assert rows[start + 1 : start + 4] == [
        ["Network, best epoch", "0.550", "0.714"],
        ["Linear classifier of single pixels", f"{LINEAR.mean_iou:.3f}", "0.857"],
        ["Most frequent class everywhere", "0.357", "0.714"],
    ]
    summary = re.findall(r"<p>(.*?)</p>", make_page(STORY))[0]
    for part in ("U-Net", "resnet18", "3 epochs in 1 min 23 s", "number 3", "0.550", STORY.checkpoint):
        assert part in summary


def test_classes_and_their_confusion_are_those_of_the_best_epoch() -> None:
    rows = rows_of(make_page(STORY))
    assert ["water &amp; ice", "1", "0.600", "0.750", "1.000", "0.600", "100"] in rows
    assert ["wood", "5", "0.500", "0.667", "0.500", "1.000", "40"] in rows
    assert ["sand", "9", "–", "–", "–", "–", "0"] in rows
    assert ["water &amp; ice", "6060.0 %", "4040.0 %", "00.0 %"] in rows
    assert ["sand", "–", "–", "–"] in rows


def test_the_curves_show_the_epochs_and_the_baselines() -> None:
    page = make_page(STORY)
    charts = re.findall(r"<svg.*?</svg>", page)
    assert [len(re.findall("<polyline", chart)) for chart in charts] == [2, 4, 1]
    assert re.findall(r'<text [^>]*"middle">(\d+)<', charts[0]) == ["1", "2", "3"]
    lines = re.findall(r'points="([^"]+)"', charts[1])
    assert [len(line.split()) for line in lines] == [3] * 4
    levels = [{point.split(",")[1] for point in line.split()} for line in lines]
    assert [len(level) for level in levels] == [3, 3, 1, 1], "a baseline is the same in all epochs"


def test_settings_dataset_warnings_and_examples_are_shown() -> None:
    page = make_page(STORY)
    rows = rows_of(page)
    for row in (["LEARNING_RATE", "0.001"], ["FREEZE_BACKBONE", "yes"], ["LOG_FOLDER", "not set"], ["torch", "2.6"]):
        assert row in rows
    assert ["Class", "Id", "train pixels", "validation pixels", "test pixels"] in rows
    assert ["water &amp; ice", "1", "7,000", "100", "0"] in rows
    assert "Chips: 7 train, 2 validation, 0 test; 64 × 32 pixels, 3 bands, 1 of them bad and not used." in page
    assert '<p class="warning">All is &lt;b&gt;lost&lt;/b&gt;.</p>' in page
    assert page.count('src="data:image/png;base64,') == 2


@pytest.mark.parametrize("best", [None, Scores.empty(3)])
def test_without_labelled_validation_pixels_nothing_is_claimed(best: Scores | None) -> None:
    rows = [{**row, "val_loss": NAN, "val_iou": NAN} for row in STORY.rows]
    bare = replace(STORY, best=best, baselines=None, rows=rows, examples=(), warnings=(), pixels=None, chips={})
    page = make_page(bare)
    assert "No validation chip with labelled pixels" in page and "after epoch 3" in page
    assert "Confusion" not in page and "Precision" not in page and "Mean IoU</th>" not in page
    assert "nan" not in page.lower() and ">validation<" not in page and "None." in page
    assert [len(re.findall("<polyline", chart)) for chart in re.findall(r"<svg.*?</svg>", page)] == [1, 1, 1]


def test_numbers_that_are_none_do_not_break_the_page() -> None:
    lost = [{**row, "train_loss": NAN, "val_loss": math.inf} for row in STORY.rows]
    page = make_page(replace(STORY, rows=lost, baselines=Baselines(BEST, None)))
    assert "Loss</h2>" not in page and "Linear classifier" not in page
    assert "Training report" in make_page(replace(STORY, rows=[], card=replace(CARD, architecture="unknown")))


def test_the_page_is_written_or_it_is_said_why_not(tmp_path: Path) -> None:
    write_report(tmp_path / REPORT_NAME, STORY)
    assert (tmp_path / REPORT_NAME).read_text("utf-8") == make_page(STORY)
    with pytest.raises(RasterError, match=r"MODEL_FOLDER .* cannot be written"):
        write_report(tmp_path / "absent" / REPORT_NAME, STORY)
