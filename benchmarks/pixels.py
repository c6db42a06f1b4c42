# SPDX-License-Identifier: GPL-3.0-or-later
"""Per-pixel classifiers of scikit-learn, beside which the networks are held: trained and tested on the same pixels.

Their settings are tuned by cross-validation on the training part only, with whole chips left out, so that neighbours of
a pixel are not in the other half. Like the networks they see the bands scaled and normalised by the training chips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.svm import SVC

from specdeepmap.core.data.classes import IGNORE_INDEX, ClassTable
from specdeepmap.core.data.dataset import ChipPair
from specdeepmap.core.data.normalization import Normalization
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.scores import Scores

FOLDS = 3
MOST_PIXELS = {"random forest": 100_000, "SVM": 10_000}
"""More training pixels are thinned out evenly, class by class; an SVM's time grows with their square."""
TUNING_PIXELS = 5_000


@dataclass(frozen=True)
class Pixels:
    """Labelled pixels: ``values`` ``(pixels, bands)``, their class indices, and the number of their chip."""

    values: NDArray[np.float32]
    classes: NDArray[np.uint8]
    chips: NDArray[np.int64]

    @classmethod
    def of(cls, pairs: Sequence[ChipPair], table: ClassTable, normalization: Normalization) -> Pixels:
        """Read the labelled pixels of chips, normalised as for a network."""
        values, classes, chips = [], [], []
        for number, pair in enumerate(pairs):
            image, labels = (Raster.open(path, georeference="NONE") for path in (pair.image, pair.label))
            pixels, valid = image.read(image.whole)
            indices = table.encode(labels.read(labels.whole)[0][0])
            known = indices != IGNORE_INDEX
            values.append(normalization.apply(pixels, valid)[:, known].T.astype(np.float32))
            classes.append(indices[known])
            chips.append(np.full(int(known.sum()), number))
        return cls(np.concatenate(values), np.concatenate(classes), np.concatenate(chips))

    def thinned(self, most: int, seed: int) -> Pixels:
        """Keep at most so many, of every class the same share, but no class below a hundred."""
        if len(self.classes) <= most:
            return self
        random, kept = np.random.default_rng(seed), []
        for index in np.unique(self.classes):
            places = np.flatnonzero(self.classes == index)
            count = min(len(places), max(100, round(most * len(places) / len(self.classes))))
            kept.append(random.choice(places, count, replace=False))
        places = np.sort(np.concatenate(kept))
        return Pixels(self.values[places], self.classes[places], self.chips[places])


def forest(seed: int) -> tuple[Any, dict[str, list[Any]]]:
    """Give a random forest and the settings to try."""
    settings = {"max_features": ["sqrt", 0.3], "min_samples_leaf": [1, 3, 10]}
    return RandomForestClassifier(300, random_state=seed, n_jobs=-1), settings


def machine(seed: int) -> tuple[Any, dict[str, list[Any]]]:
    """Give a support vector machine and the settings to try."""
    return SVC(random_state=seed, cache_size=1000), {"C": [1, 10, 100, 1000], "gamma": ["scale", 0.01, 0.001]}


CLASSIFIERS: dict[str, Callable[[int], tuple[Any, dict[str, list[Any]]]]] = {"random forest": forest, "SVM": machine}


def score(name: str, train: Pixels, test: Pixels, classes: int, seed: int) -> tuple[Scores, dict[str, Any]]:
    """Tune and train a classifier, and score it.

    Returns:
        The scores, and the settings that were chosen.
    """
    model, settings = CLASSIFIERS[name](seed)
    tuning = train.thinned(TUNING_PIXELS, seed)
    folds = GroupKFold(min(FOLDS, len(np.unique(tuning.chips))))
    search = GridSearchCV(model, settings, scoring="f1_macro", cv=folds, refit=False)
    search.fit(tuning.values, tuning.classes, groups=tuning.chips)
    model.set_params(**search.best_params_)
    sample = train.thinned(MOST_PIXELS[name], seed)
    model.fit(sample.values, sample.classes)
    return Scores.of(test.classes, model.predict(test.values).astype(np.uint8), classes), search.best_params_
