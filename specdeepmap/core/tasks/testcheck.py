# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of a test set: do its chips suit the model, and can its scores be believed?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np

from specdeepmap.core.data.bandmatch import first_few
from specdeepmap.core.data.census import source_of
from specdeepmap.core.data.chips import place_of
from specdeepmap.core.data.dataset import CSV_NAMES, FILES, ChipPair, read_pairs
from specdeepmap.core.data.grid import Extent
from specdeepmap.core.data.ground import leaks
from specdeepmap.core.data.labels import names_and_colors
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.errors import ConfigError, DatasetError
from specdeepmap.core.jobs import EvaluateJob
from specdeepmap.core.jobs.base import check_apart
from specdeepmap.core.learn.bandcheck import warn_of_other_bands, warn_of_other_classes, warn_of_other_values
from specdeepmap.core.learn.checkpoint import ModelCard, chip_mark
from specdeepmap.core.learn.predictor import Predictor
from specdeepmap.core.progress import Progress

MOST_SOURCES = 50
"""Images that a chip of is looked at, at most: chips that another program named are an image each."""


class Warned(Progress):
    """Pass warnings on and remember them for the report.

    Args:
        progress: is told.
    """

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress
        self.said: list[str] = []

    def info(self, text: str) -> None:
        """Pass it on."""
        self._progress.info(text)

    def warning(self, text: str) -> None:
        """Pass it on and remember it."""
        self.said.append(text)
        self._progress.warning(text)


def read_test_chips(job: EvaluateJob, progress: Progress) -> tuple[ChipPair, ...]:
    """Read the table of the test chips; one that stands there twice is tested once.

    Raises:
        DatasetError: if there are none, or their predictions would have one name.
        ConfigError: if an output would replace a chip, or a table of their dataset.
    """
    rows = read_pairs(job.test_csv, "TEST_CSV")
    if not rows:
        raise DatasetError(f"TEST_CSV {job.test_csv} names no chip. Raise TEST_PERCENT in the Dataset Maker.")
    pairs = tuple(dict.fromkeys(rows))
    if len(pairs) < len(rows):
        progress.warning(
            f"TEST_CSV {job.test_csv} names {len(rows) - len(pairs)} of its {len(pairs)} chips once more; each counts "
            "once."
        )
    twice = [name for name, count in Counter(pair.name for pair in pairs).items() if count > 1]
    if job.prediction_folder is not None and twice:
        raise DatasetError(
            f"TEST_CSV {job.test_csv} names several chips {twice[0]}; their predictions would have one name in "
            "PREDICTION_FOLDER. Test them one after the other."
        )
    _check_outputs(job, pairs)
    return pairs


def check_test_chips(job: EvaluateJob, pairs: Sequence[ChipPair], predictor: Predictor, progress: Warned) -> None:
    """Check a chip of each image for what does not suit the model; warn of chips that the model knows.

    Raises:
        RasterError: if a chip has another number of bands.
    """
    card = predictor.card
    firsts = list(islice({source_of(pair.name): pair for pair in reversed(pairs)}.values(), MOST_SOURCES))
    _check_images([Raster.open(pair.image) for pair in firsts], predictor, progress)
    known = sum(chip_mark(pair.name) in card.trained_on for pair in pairs)
    if known:
        progress.warning(
            f"{known} of the {len(pairs)} test chips have the names of chips that the model was trained or validated "
            "on: the scores will look better than they are. Test on the test set of the split that it was trained with."
        )
    _warn_of_shared_ground(job.test_csv.parent, pairs, card, progress)
    names: dict[int, str] = {}
    for pair in firsts:
        names |= names_and_colors(Raster.open(pair.label).dataset)[0]
    warn_of_other_classes(card.classes, names, "TEST_CSV", progress)


def _check_images(rasters: Sequence[Raster], predictor: Predictor, progress: Warned) -> None:
    """Check bands and values; of each doubt, the first image that gives rise to it is told."""
    what = "TEST_CSV: the chip"
    for raster in rasters:
        predictor.check_count(
            raster, what, "Take the test chips of the dataset that it was trained on, or others with the same bands."
        )
    for warn in (warn_of_other_bands, warn_of_other_values):
        before = len(progress.said)
        for raster in rasters:
            warn(predictor.card, raster, what, progress)
            if len(progress.said) > before:
                break


def _warn_of_shared_ground(folder: Path, pairs: Sequence[ChipPair], card: ModelCard, progress: Progress) -> None:
    """Warn where test chips overlap chips of the same dataset that the model was trained or validated on, or may do so.

    Their names say where in which image they were cut. Of the chips of another dataset only the images are known.
    """
    tables = [folder / CSV_NAMES[name] for name in ("train", "validation")]
    marks = set(card.trained_on)
    trained = [name for table in tables for name in _names_in(table) if chip_mark(name) in marks]
    tested = [pair.name for pair in pairs if chip_mark(pair.name) not in marks]
    if not trained:
        doubtful = sorted({source for source in map(source_of, tested) if chip_mark(source) in marks})
        if doubtful:
            progress.warning(
                f"TEST_CSV: the model was trained or validated on chips of {first_few(doubtful)}, too, and the tables "
                "beside TEST_CSV do not name them. Where the test chips share ground with them, the scores look better "
                "than they are. Take the test set of the dataset that the model was trained with, or other images."
            )
        return
    size = card.chip_width, card.chip_height
    known, here = _boxes(trained, size), _boxes(tested, size)
    shared = 0
    for source in known.keys() & here.keys():
        sets = np.repeat(np.array([0, 1], np.int8), [len(known[source]), len(here[source])])
        found = leaks([*known[source], *here[source]], sets)
        shared += sum(index >= len(known[source]) for index in found)
    if shared:
        progress.warning(
            f"{shared} of the {len(pairs)} test chips share ground with chips that the model was trained or validated "
            "on: the scores will look better than they are. Cut the chips with a step of the tile size, or take "
            "SPLIT blocks in the Dataset Maker, and train again."
        )


def _names_in(table: Path) -> Iterator[str]:
    """Give the names of the chips in a table of a dataset; none where it is missing or cannot be read."""
    try:
        yield from (pair.name for pair in read_pairs(table))
    except DatasetError:
        return


def _boxes(names: Sequence[str], size: tuple[int, int]) -> Mapping[str, list[Extent]]:
    """Give the boxes of chips by their image, in its pixels; of those whose names say where they lie."""
    found: dict[str, list[Extent]] = {}
    for name in names:
        with suppress(ValueError):
            source, x, y = place_of(name)
            found.setdefault(source, []).append((x, y, x + size[0], y + size[1]))
    return found


def _check_outputs(job: EvaluateJob, pairs: Sequence[ChipPair]) -> None:
    """Check that no output replaces a chip, a table of the dataset or the model's card.

    Raises:
        ConfigError: if one would.
    """
    chips = [path for pair in pairs for path in (pair.image, pair.label)]
    tables = [job.test_csv.with_name(name) for name in FILES]
    check_apart(job.outputs, {"TEST_CSV": [*tables, *chips], "CHECKPOINT": [job.checkpoint.with_suffix(".json")]})
    folders = {folder.resolve() for folder in {path.parent for path in chips}}
    if job.prediction_folder is not None and job.prediction_folder.resolve() in folders:
        raise ConfigError(
            f"PREDICTION_FOLDER {job.prediction_folder} holds chips of TEST_CSV; predictions there would be taken for "
            "such. Choose another folder."
        )
