# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the tester's report: which chips are kept, and what stands on the page."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdeepmap.core.data.calibration import Reliability
from specdeepmap.core.data.classes import ClassTable
from specdeepmap.core.data.normalization import Normalization
from specdeepmap.core.data.scores import Scores
from specdeepmap.core.errors import RasterError
from specdeepmap.core.learn.testreport import (
    SHOWN,
    SIDE,
    Examination,
    Showcase,
    draw_chip,
    make_page,
    write_report,
)
from tests.cards import bare_card

CARD = bare_card(
    backbone="resnet18",
    bands=("a", "b", "c"),
    normalization=Normalization.none(3, 1.0, (False, True, False)),
    classes=ClassTable.of([1, 5, 9], {1: "water & ice", 5: "wood", 9: "sand"}),
    chip_width=64,
    chip_height=32,
    fingerprint="0" * 64,
)

PICTURE = np.zeros((4, 14, 3), np.uint8)

# No pixel of the reference is sand; 10 of water are taken for it. Recall 0.5 and 0.9.
SCORES = Scores(np.array([[50, 40, 10], [4, 36, 0], [0, 0, 0]]))


def of_chip(right: int, wrong: int) -> Scores:
    return Scores(np.array([[right, wrong, 0], [0, 0, 0], [0, 0, 0]]))


def case(*chips: tuple[int, int]) -> Showcase:
    """Offer chips with so many right and wrong pixels, named after them."""
    showcase = Showcase()
    for right, wrong in chips:
        showcase.offer(f"{right} of {right + wrong}", of_chip(right, wrong), lambda: PICTURE)
    return showcase


def examination(**changes: object) -> Examination:
    usual = Examination(
        card=CARD,
        checkpoint="00002-val_iou_0.5500.ckpt",
        chips=1234,
        scores=SCORES,
        reliability=Reliability.of(np.repeat([0.9, 0.5], [100, 40]), np.repeat([True, False], [86, 54])),
        showcase=case((1, 9), (8, 2)),
    )
    return replace(usual, **changes)


def rows_of(page: str) -> list[list[str]]:
    """Read the cells of all table rows, without what is marked up in them."""
    return [
        [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", page)
    ]


def warnings_of(page: str) -> list[str]:
    return [html.unescape(text) for text in re.findall(r'<p class="warning">(.*?)</p>', page)]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=40))
def test_the_worst_and_the_best_of_all_chips_are_kept_and_no_more(chips: list[tuple[int, int]]) -> None:
    showcase = case(*chips)
    accuracies = sorted(right / (right + wrong) for right, wrong in chips if right + wrong)
    few = min(SHOWN, (len(accuracies) + 1) // 2)
    assert [chip.scores.overall_accuracy for chip in showcase.worst] == accuracies[:few]
    many = min(SHOWN, len(accuracies) // 2)
    assert [chip.scores.overall_accuracy for chip in showcase.best] == accuracies[::-1][:many]
    assert len(showcase) == few + many <= 2 * SHOWN
    assert not {id(chip) for chip in showcase.worst} & {id(chip) for chip in showcase.best}, "no chip is both"


@pytest.mark.parametrize("chips", [2000 * [(5, 5)], [(n, 2000 - n) for n in range(2000)], [(2, 2), *20 * [(1, 0)]]])
def test_a_large_test_set_keeps_six_pictures(chips: list[tuple[int, int]]) -> None:
    showcase, drawn = Showcase(), 0
    for number, (right, wrong) in enumerate(chips):

        def draw() -> np.ndarray:
            nonlocal drawn
            drawn += 1
            return PICTURE

        showcase.offer(str(number), of_chip(right, wrong), draw)
        assert len(showcase) <= 2 * SHOWN
    assert len(showcase) == len(showcase.worst) + len(showcase.best) == 2 * SHOWN
    assert drawn >= 2 * SHOWN


def test_a_chip_that_is_neither_is_not_even_drawn() -> None:
    def fail() -> np.ndarray:
        raise AssertionError("drawn")

    showcase = case(*3 * [(0, 10)], *3 * [(10, 0)])
    showcase.offer("between", of_chip(5, 5), fail)
    showcase.offer("unlabelled", Scores.empty(3), fail)
    assert len(showcase) == 6


def test_of_equally_good_chips_the_larger_one_is_shown() -> None:
    showcase = case((0, 5), (0, 50), (0, 1), (0, 9), (5, 0), (50, 0), (1, 0), (9, 0))
    assert [chip.name for chip in showcase.worst] == ["0 of 50", "0 of 9", "0 of 5"]
    assert [chip.name for chip in showcase.best] == ["50 of 50", "9 of 9", "5 of 5"]


def test_a_chip_is_drawn_small_and_side_by_side() -> None:
    image = np.random.default_rng(2).normal(size=(3, 40, 60)).astype(np.float32)
    true, found = np.zeros((40, 60), np.uint8), np.ones((40, 60), np.uint8)
    true[:, 30:], found[:20] = 255, 255
    picture = draw_chip((image, true), found, CARD)
    assert picture.shape == (40, 3 * 60 + 2 * 2, 3)
    water, wood = (np.array(entry.rgb) for entry in CARD.classes.entries[:2])
    assert (picture[:, 62:92] == water).all() and (picture[:, 92:122] == 225).all(), "grey without a label"
    assert (picture[20:, 124:] == wood).all() and (picture[:20, 124:] == 225).all()
    large = np.ones((3, 2000, 700), np.float32), np.zeros((2000, 700), np.uint8)
    shown = draw_chip(large, large[1], CARD)
    assert shown.shape[0] <= SIDE and (shown.shape[1] - 4) // 3 == 700 // 8 + 1


def test_the_scores_stand_with_what_they_mean() -> None:
    (facts,) = re.findall(r'<table class="facts">.*?</table>', make_page(examination(), Path()))
    found = {row[0]: row[1:] for row in rows_of(facts)}
    numbers = {name: value for name, (value, _) in found.items()}
    assert numbers["Chips"] == "1,234" and numbers["Labelled pixels"] == "140"
    assert numbers["Mean IoU"] == f"{(50 / 104 + 36 / 80) / 2:.3f}"
    assert numbers["Overall accuracy"] == f"{86 / 140:.3f}"
    assert numbers["Average accuracy"] == "0.700"
    f1 = 100 / 154, 72 / 116
    assert numbers["Macro F1"] == f"{(f1[0] + f1[1]) / 2:.3f}"
    assert numbers["Weighted F1"] == f"{(100 * f1[0] + 40 * f1[1]) / 140:.3f}"
    assert numbers["Kappa"] == f"{SCORES.kappa:.3f}"
    assert numbers["Calibration error"] == f"{(abs(86 - 90) + abs(0 - 20)) / 140:.3f}"
    assert len(found) == 9 and all(meaning.endswith(".") for _, meaning in found.values())
    assert "0.171 means 17 percentage points" in found["Calibration error"][1]


@pytest.mark.parametrize(
    ("matrix", "rows", "warning"),
    [
        ([[90, 10], [10, 30]], ["0.357", "0.714"], None),
        ([[99, 1], [40, 0]], ["0.357", "0.714"], "The model's mean IoU and overall accuracy are not above"),
        ([[70, 30], [11, 29]], ["0.357", "0.714"], "The model's overall accuracy is not above"),
        ([[100, 0], [40, 0]], ["0.357", "0.714"], "The model's mean IoU and overall accuracy are not above"),
        ([[50, 50], [0, 0]], ["1.000", "1.000"], "All labelled pixels are water & ice"),
        ([[50, 0], [0, 0]], ["1.000", "1.000"], "All labelled pixels are water & ice"),
    ],
)
def test_the_model_stands_beside_its_most_frequent_class(
    matrix: list[list[int]], rows: list[str], warning: str | None
) -> None:
    whole = np.zeros((3, 3), np.int64)
    whole[:2, :2] = matrix
    page = make_page(examination(scores=Scores(whole)), Path())
    assert ["Most frequent class everywhere (water &amp; ice)", *rows] in rows_of(page)
    own = Scores(whole)
    assert ["Model", f"{own.mean_iou:.3f}", f"{own.overall_accuracy:.3f}"] in rows_of(page)
    said = warnings_of(page)
    assert [text.startswith(warning or "") for text in said] == [True] * (warning is not None)
    assert ("The model is above calling every pixel water &amp; ice in both." in page) == (warning is None)


def test_classes_and_their_confusion() -> None:
    page = make_page(examination(), Path())
    rows = rows_of(page)
    assert ["water &amp; ice", "1", "0.481", "0.926", "0.500", "0.649", "100"] in rows
    assert ["sand", "9", "–", "0.000", "–", "–", "0"] in rows
    assert ["water &amp; ice", "5050.0 %", "4040.0 %", "1010.0 %"] in rows
    assert ["sand", "–", "–", "–"] in rows
    assert "Without a reference pixel, and in no mean: sand." in page
    scores, areas = re.findall(r"<svg.*?</svg>", page)[:2]
    assert len(re.findall("<rect", scores)) == 12 and len(re.findall("<rect", areas)) == 6
    assert re.findall(r">([\d.]+) %<", areas) == ["71.43", "38.57", "28.57", "54.29", "0.00", "7.14"]


def test_two_classes_of_one_name_are_both_shown() -> None:
    card = replace(CARD, classes=ClassTable.of([1, 5, 9], {1: "wood", 5: "wood", 9: "sand"}))
    page = make_page(examination(card=card), Path())
    assert len(re.findall("<rect", re.findall(r"<svg.*?</svg>", page)[0])) == 12


def test_the_reliability_diagram() -> None:
    page = make_page(examination(), Path())
    chart = re.findall(r"<svg.*?</svg>", page)[2]
    assert len(re.findall("<rect", chart)) == 15
    assert len(re.findall("<polyline", chart)) == 3, "the diagonal and two bins without neighbours"
    assert "The model is 78.6 % sure on average, and right in 61.4 % of the labelled pixels: more sure" in page
    humble = Reliability.of(np.full(100, 0.5), np.repeat([True, False], [80, 20]))
    assert "right in 80.0 % of the labelled pixels: less sure" in make_page(examination(reliability=humble), Path())
    honest = Reliability.of(np.full(100, 0.8), np.repeat([True, False], [80, 20]))
    assert "right in 80.0 % of the labelled pixels. " in make_page(examination(reliability=honest), Path())


def test_chips_and_warnings_are_shown() -> None:
    page = make_page(examination(warnings=("All is <b>lost</b>.",)), Path())
    assert warnings_of(page) == ["All is <b>lost</b>.", *warnings_of(make_page(examination(), Path()))]
    assert "<b>lost" not in page
    assert "Fewest pixels right: 1 of 10, 10.0 % of 10 labelled pixels right" in page
    assert "Most pixels right: 8 of 10, 80.0 % of 10 labelled pixels right" in page
    assert page.count('src="data:image/png;base64,') == 2
    assert "1 labelled pixel right" in make_page(examination(showcase=case((0, 1))), Path())


def test_files_beside_the_page_are_linked_and_others_named(tmp_path: Path) -> None:
    files = {
        "Score table": tmp_path / "out" / "scores ä.csv",
        "Confusion matrix": tmp_path / "out" / "more" / "confusion.csv",
        "Scores per chip": tmp_path / "secret" / "chips.csv",
    }
    page = make_page(examination(files=files), tmp_path / "out")
    assert re.findall(r'<a href="(.*?)">(.*?)</a>', page) == [
        ("scores%20%C3%A4.csv", "Score table: scores ä.csv"),
        ("more/confusion.csv", "Confusion matrix: confusion.csv"),
    ]
    assert "Scores per chip: chips.csv, in another folder" in page
    assert "secret" not in page and str(tmp_path) not in page


def test_relative_paths_are_linked_like_absolute_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"Score table": Path("scores.csv")}
    assert 'href="scores.csv"' in make_page(examination(files=files), tmp_path)
    assert 'href="out/../scores.csv"' not in make_page(examination(files=files), Path("out"))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RasterError, match="REPORT cannot be written"):
        write_report(tmp_path / "missing" / "page.html", examination(), tmp_path)
    write_report(tmp_path / "page.html", examination(), tmp_path)
    assert (tmp_path / "page.html").read_text("utf-8").startswith("<!DOCTYPE html>")
