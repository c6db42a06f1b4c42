# SPDX-License-Identifier: GPL-3.0-or-later
"""Land: an invented landscape, with a class and a mixture of materials in every pixel.

Materials have smooth spectra, so that any sensor may look at the same land. Neither spectrum nor context
alone tells the classes apart: gardens reflect like meadows, old roofs like soil, the shadows in a forest
like water, and an orchard is rows of trees with grass between.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.classes import UNLABELLED, ClassEntry, ClassTable

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Parcels = NDArray[np.intp]

WATER, FOREST, CROPLAND, GRASSLAND, BARE_SOIL, BUILT_UP, ORCHARD = range(1, 8)

CLASSES = ClassTable(
    entries=(
        ClassEntry(WATER, "water", "#2b7bba"),
        ClassEntry(FOREST, "forest", "#1b6e3c"),
        ClassEntry(CROPLAND, "cropland", "#f0d264"),
        ClassEntry(GRASSLAND, "grassland", "#a6d96a"),
        ClassEntry(BARE_SOIL, "bare soil", "#a6703c"),
        ClassEntry(BUILT_UP, "built-up", "#d7302f"),
        ClassEntry(ORCHARD, "orchard", "#b07cc6"),
    )
)
"""The classes of a scene. The roads between the villages bear no label."""


def bump(nm: Array, centre: float, width: float) -> Array:
    """Give a bell curve over wavelengths: 1 at its centre, ``exp(-1)`` at ``width`` from it."""
    return np.asarray(np.exp(-(((nm - centre) / width) ** 2)))


def _step(nm: Array, centre: float, width: float) -> Array:
    return np.asarray(1 / (1 + np.exp((centre - nm) / width)))


def _leaf(nm: Array, green: float, plateau: float, water: float) -> Array:
    """Reflect like leaves: a green peak, a red edge, a plateau, and the absorption by their water."""
    depth = 0.1 * bump(nm, 970, 35) + 0.2 * bump(nm, 1190, 70) + 0.45 * _step(nm, 1380, 25)
    depth += 1.2 * bump(nm, 1450, 80) + 0.6 * _step(nm, 1850, 30) + 1.0 * bump(nm, 1940, 120)
    depth += 0.5 * _step(nm, 2330, 60)
    edge = _step(nm, 717, 13)
    visible = 0.018 + 0.012 * _step(nm, 590, 30) + green * bump(nm, 555, 45)
    return np.asarray(visible * (1 - edge) + plateau * np.exp(-water * depth) * edge)


def _earth(nm: Array, level: float) -> Array:
    """Reflect like soil: a steady rise, with dips by iron, water and clay."""
    dips = 0.08 * bump(nm, 900, 90) + 0.2 * bump(nm, 1915, 60) + 0.15 * bump(nm, 2205, 40)
    return np.asarray(level * (1 - np.exp((380 - nm) / 600)) * (1 - dips))


MATERIALS: dict[str, Callable[[Array], Array]] = {
    "water": lambda nm: 0.004 + 0.035 * bump(nm, 520, 130),
    "shadow": lambda nm: 0.007 + 0.2 * _leaf(nm, 0.04, 0.28, 1.3),
    "conifer": lambda nm: _leaf(nm, 0.026, 0.26, 1.2),
    "broadleaf": lambda nm: _leaf(nm, 0.042, 0.42, 1.1),
    "grass": lambda nm: _leaf(nm, 0.065, 0.44, 0.85),
    "blossom": lambda nm: _leaf(nm, 0.06, 0.42, 0.8) + 0.15 * bump(nm, 630, 85),
    "straw": lambda nm: (0.03 + 0.33 * _step(nm, 580, 60)) * (1 - 0.2 * bump(nm, 2100, 90)),
    "soil": lambda nm: _earth(nm, 0.46),
    "humus": lambda nm: _earth(nm, 0.24),
    "asphalt": lambda nm: 0.08 + 0.05 * (nm - 400) / 2000,
    "tile": lambda nm: 0.05 + 0.2 * _step(nm, 590, 35) + 0.1 * _step(nm, 1200, 300),
    "concrete": lambda nm: 0.22 + 0.12 * _step(nm, 600, 150),
}

# Use of a parcel: its class and the share of the open land that it is to have.
_USES = {
    "wheat": (CROPLAND, 0.15),
    "ripe": (CROPLAND, 0.13),
    "rape": (CROPLAND, 0.08),
    "maize": (CROPLAND, 0.11),
    "meadow": (GRASSLAND, 0.22),
    "fallow": (BARE_SOIL, 0.16),
    "orchard": (ORCHARD, 0.15),
}


class Land:
    """A class per pixel, ``labels``, and the share of each material there, ``(materials, rows, columns)``.

    ``gain`` is the brightness of a pixel, about 1; ``tilt`` is how much it rises per micrometre.
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self._rng, self._size = rng, size
        self._blocks = max(1, round(size / 256))  # a village, a wood and a lake in each block
        self._block = size / self._blocks
        self._y, self._x = np.mgrid[:size, :size].astype(float)
        self._u = self._x + 0.05 * self._block * self._noise(self._block / 2)
        self._v = self._y + 0.05 * self._block * self._noise(self._block / 2)
        self._patch, self._grain = self._noise(7), rng.standard_normal((size, size))
        self.labels = np.zeros((size, size), np.uint8)
        self.mixture = np.zeros((len(MATERIALS), size, size), np.float32)
        self.gain = 1 + 0.04 * self._noise(size / 3) + 0.02 * self._grain
        self.tilt = 0.02 * self._noise(self._block / 3)
        self._paint()
        self.mixture = _blur(self.mixture / self.mixture.sum(0))

    def _noise(self, cell: float) -> Array:
        """Give a smooth random field of mean 0 and variance 1 with bumps about ``cell`` pixels wide."""
        knots = int(self._size / cell) + 4
        away = np.abs(np.arange(self._size)[:, None] / cell + 1 - np.arange(knots))
        spline = np.where(away < 1, 4 - 6 * away**2 + 3 * away**3, np.clip(2 - away, 0, None) ** 3)
        field = spline @ self._rng.standard_normal((knots, knots)) @ spline.T
        return np.asarray((field - field.mean()) / field.std())

    def _split(self, where: Mask, area: float) -> tuple[Parcels, Array]:
        """Cut the pixels there into parcels, each across its longer side, until they are small enough.

        Returns:
            The parcel of each pixel, 0 elsewhere, and the direction of each parcel in radians.
        """
        ids, angles = np.zeros(where.shape, np.intp), [0.0]
        x, y, places = self._u[where], self._v[where], np.flatnonzero(where)
        heap = [(np.arange(places.size), self._rng.uniform(0, np.pi))]
        while heap:
            part, angle = heap.pop()
            if part.size < area * self._rng.uniform(0.7, 2.2):
                ids.flat[places[part]] = len(angles)
                angles.append(angle)
                continue
            along = x[part] * np.cos(angle) + y[part] * np.sin(angle)
            aside = y[part] * np.cos(angle) - x[part] * np.sin(angle)
            side = along if np.ptp(along) * self._rng.uniform(0.7, 1.3) > np.ptp(aside) else aside
            first = side < np.quantile(side, self._rng.uniform(0.35, 0.65))
            heap += [(part[half], angle + self._rng.normal(0, 0.05)) for half in (first, ~first)]
        return ids, np.array(angles)

    def _lay(self, where: Mask, value: int, gain: Array | float = 1.0, **shares: Array | float) -> None:
        """Put a class there, and materials in these proportions, in place of what there was."""
        self.labels[where] = value
        self.mixture[:, where] = 0
        self.gain[where] *= np.broadcast_to(gain, where.shape)[where]
        for name, share in shares.items():
            layer = self.mixture[list(MATERIALS).index(name)]
            layer[where] = np.broadcast_to(share, where.shape)[where].clip(0.001)  # never none at all

    def _paint(self) -> None:
        """Lay out the land, from the fields up to the roads."""
        turns = self._rng.uniform(0, 2 * np.pi, (self._blocks, self._blocks))
        cells = np.arange(self._blocks) + 0.5
        anchors = []
        for turn in (turns, turns + 2.1, turns + 4.2):
            away = self._rng.uniform(0.24, 0.32, turns.shape)
            columns, rows = cells + away * np.cos(turn), cells[:, None] + away * np.sin(turn)
            anchors.append(np.stack([columns, rows], -1) * self._block)
        village, wood, lake = (self._from_points(points) for points in anchors)
        course = self._size / 2 + 0.22 * self._block * self._noise(self._block / 2.5)[0]
        river = self._from_line(course).T
        shore = lake / 0.12 + 0.25 * self._noise(self._block / 8) + 0.06 * self._patch
        stands, _ = self._split(np.ones_like(self.labels, bool), self._block**2 / 180)
        cover = np.tanh(self._noise(self._block / 4)) + 3 * np.exp(-((wood / 0.2) ** 2))
        streets, _ = self._split(village < 0.3, 75)
        built = _mean(village / 0.17 + 0.18 * self._noise(self._block / 7), streets) < 1
        water = (shore < 1) | (river < 3 + 0.5 * self._patch)
        meadow = (shore < 1.3) | (river < 0.05 * self._block + 2 * self._patch)
        forest = (_mean(cover + 0.1 * self._patch, stands) > 0.9) & ~meadow
        self._paint_fields(~(meadow | built | forest), meadow)
        self._paint_forest(forest, stands)
        self._paint_village(built, streets)
        self._lay(water, WATER, water=1.0, humus=0.06 + 0.05 * self._patch)
        self._paint_roads(anchors[0])

    def _from_points(self, points: Array) -> Array:
        """Give the distance, in blocks, to the nearest of some points."""
        away = [np.hypot(self._x - x, self._y - y) for x, y in points.reshape(-1, 2)]
        return np.asarray(np.min(away, axis=0) / self._block)

    def _from_line(self, line: Array) -> Array:
        """Give the distance, in pixels, to a line that has a row for each column."""
        return np.asarray(np.abs(self._y - line) / np.hypot(1, np.gradient(line)))

    def _paint_fields(self, free: Mask, meadow: Mask) -> None:
        """Divide the land into parcels, each with one use."""
        ids, angles = self._split(np.ones_like(free), self._block**2 / 55)
        uses = self._uses(ids, free)[ids]
        some, more, bright = self._rng.random((3, len(angles)))[:, ids]
        along = self._u * np.cos(angles)[ids] + self._v * np.sin(angles)[ids]
        track, trees = 0.5 * (along % 7 < 1), 1.0 * (along % 4 < 2)
        damp = 0.08 * self._patch + 0.04 * self._grain
        soil, humus, bare = 0.2 + more, 1.0 - more, 0.2 * some
        recipes: dict[str, dict[str, Array]] = {
            "wheat": {"grass": 1.6 + 1.5 * some + damp, "soil": bare + track, "humus": 0.1 + track},
            "ripe": {"straw": 1.5 + some + damp, "soil": soil + track, "humus": 0.6 * humus},
            "rape": {"blossom": 1 + some, "grass": 0.4 + more + 2 * track + damp},
            "maize": {"grass": 0.4 + 0.9 * some + damp, "soil": soil, "humus": humus + track},
            "meadow": {"grass": 1.6 + some + 3 * damp, "straw": 0.1 + more - 3 * damp, "soil": bare},
            "fallow": {
                "soil": soil - 2 * damp,
                "humus": humus + 3 * damp,
                "straw": bare,
                "grass": 0.6 * bright**3,
            },
            "orchard": {"broadleaf": 1.3 * trees + 0.3, "shadow": 0.2 * trees, "grass": 1.5 - trees + damp},
        }
        for number, (name, (value, _)) in enumerate(_USES.items()):
            self._lay(uses == number, value, 0.92 + 0.16 * bright, **recipes[name])
        self._lay(meadow, GRASSLAND, **recipes["meadow"])

    def _uses(self, ids: Parcels, free: Mask) -> Parcels:
        """Choose a use for each parcel, largest first: the one that lacks most in its block."""
        areas = np.bincount(ids.ravel(), free.ravel())
        parcels, places = np.unique(ids, return_index=True)
        homes = (self._y // self._block * self._blocks + self._x // self._block).flat[places]
        wanted, uses = np.array([share for _, share in _USES.values()]), np.zeros(areas.size, np.intp)
        for home in np.unique(homes):
            here = parcels[homes == home]
            lack = wanted * areas[here].sum()
            for parcel in here[np.argsort(-areas[here], kind="stable")]:
                uses[parcel] = np.argmax(lack * self._rng.uniform(0.7, 1.3, lack.size))
                lack[uses[parcel]] -= areas[parcel]
        return uses

    def _paint_forest(self, where: Mask, stands: Parcels) -> None:
        """Plant conifers and broadleaf trees, with shadows between the crowns and some glades."""
        conifers = (self._rng.random(stands.max() + 1) ** 0.7)[stands] + 0.15 * self._patch
        dark = np.clip(0.2 + 0.5 * self._grain + 0.2 * self._patch, 0, 2) * (0.4 + conifers)
        glade = 3.0 * (self._patch > 1.9)
        self._lay(where, FOREST, conifer=conifers, broadleaf=1.1 - conifers, shadow=dark, grass=glade)

    def _paint_village(self, where: Mask, blocks: Parcels) -> None:
        """Build streets with rows of houses, gardens behind them, some halls and some parks."""
        street = np.zeros(where.shape, bool)
        street[:, :-1] |= blocks[:, :-1] != blocks[:, 1:]
        street[:-1] |= blocks[:-1] != blocks[1:]
        roadside = _blur(street[None].astype(np.float32))[0] > 0
        fate, roof = self._rng.random((2, blocks.max() + 1))[:, blocks]
        hall = ~street & (fate < 0.12)
        house = ~street & ~hall & roadside & (fate < 0.9) & (self._grain > -0.7)
        garden = ~(street | hall | house)
        trees, old = garden & (self._grain > 0.8), house & (roof < 0.5)
        self._lay(
            where,
            BUILT_UP,
            1 + 0.06 * self._grain,
            asphalt=street + house * (roof > 0.75) + 0.3 * hall,
            tile=house * (roof < 0.75) * (0.3 + roof),
            soil=0.8 * old,
            concrete=1.0 * hall,
            grass=garden * (1 + roof),
            straw=0.4 * garden,
            broadleaf=1.5 * trees,
        )

    def _paint_roads(self, villages: Array) -> None:
        """Join the villages by roads, which bear no label outside of them."""
        reach = np.arange(self._size)
        for line in range(self._blocks):
            for stops, turned in ((villages[line], False), (villages[:, line, ::-1], True)):
                bends = np.interp(reach, *stops.T) + 2 * self._noise(self._block / 6)[0]
                away = self._from_line(bends)
                road = (away.T if turned else away) < 0.9
                inside = road & (self.labels == BUILT_UP)
                self._lay(road, UNLABELLED, asphalt=1.0)
                self.labels[inside] = BUILT_UP


def _mean(field: Array, parcels: Parcels) -> Array:
    """Give each pixel the mean of its parcel."""
    sums, counts = np.bincount(parcels.ravel(), field.ravel()), np.bincount(parcels.ravel())
    return np.asarray((sums / np.maximum(counts, 1))[parcels])


def _blur(layers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Let each pixel see a fifth of each neighbour, along the rows and along the columns."""
    wide = np.pad(layers, ((0, 0), (1, 1), (1, 1)), mode="edge")
    for axis in (1, 2):
        wide = np.float32(0.6) * wide + np.float32(0.2) * (np.roll(wide, 1, axis) + np.roll(wide, -1, axis))
    return wide[:, 1:-1, 1:-1]
