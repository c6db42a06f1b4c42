# SPDX-License-Identifier: GPL-3.0-or-later
"""Chips: windows of an image and of its labels, read together and written as two files of the same name."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specdeepmap.core.data.classes import UNLABELLED, ClassTable
from specdeepmap.core.data.labels import LabelRaster
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.tiling import Window, block_windows
from specdeepmap.core.data.writer import GeoTiff, write_class_chip
from specdeepmap.core.errors import RasterError
from specdeepmap.core.progress import Progress

_PLACE = re.compile(r"(?P<stem>.*)_tile_(?P<x>\d+)_(?P<y>\d+)", re.DOTALL)
_NAME = re.compile(rf"{_PLACE.pattern}\.tif(\..+)?", re.DOTALL)  # of a chip's file, or of one beside it
_BLOCK = 256  # pixels; rows and columns read at once, of all bands, when a whole image is searched

_ROWS_COMPARED = 16  # of a chip

_COMPRESSION = {
    "none": (),
    "lzw": ("COMPRESS=LZW",),
    "deflate": ("COMPRESS=DEFLATE", "ZLEVEL=1"),
    "zstd": ("COMPRESS=ZSTD", "ZSTD_LEVEL=1"),
}


@dataclass(frozen=True, eq=False)
class Chip:
    """Pixels of one chip.

    Attributes:
        window: in the source image; it may reach over the border.
        image: ``(bands, rows, columns)``.
        valid: of the same shape; None where every value is valid.
        labels: class values ``(rows, columns)``; unlabelled where the image has no data.
    """

    window: Window
    image: NDArray[np.generic]
    valid: NDArray[np.bool_] | None
    labels: NDArray[np.uint8]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Labelled pixels per class value, 0 to 255."""
        counts = np.bincount(self.labels.ravel(), minlength=256)
        counts[UNLABELLED] = 0
        return counts


def read_chip(image: Raster, labels: LabelRaster, window: Window) -> Chip:
    """Read one chip; beyond the border it is no-data, or mirrored where the image has no no-data value."""
    values, valid = image.read_padded(window, mirror=image.nodata is None)
    chip_labels = labels.read_padded(window)
    if valid.all():
        return Chip(window, values, None, chip_labels)
    good = image.good
    chip_labels[~(valid if good.all() else valid[good]).any(axis=0)] = UNLABELLED
    return Chip(window, values, valid, chip_labels)


@dataclass(frozen=True, eq=False)
class ChipWriter:
    """Writes chips of one image; its threads may share it.

    Attributes:
        image: the source; only what is known of it is used, not its pixels.
        nodata: no-data value of the chips; None = none.
        classes: names and colours of the labels.
        folder: holds ``images/`` and ``labels/``.
        stem: first part of the chips' names.
        compression: a name in ``COMPRESSIONS``.
    """

    image: Raster
    nodata: float | None
    classes: ClassTable
    folder: Path
    stem: str
    compression: str

    def name(self, window: Window) -> str:
        """Give a chip's name: by its offsets in the source image."""
        return f"{self.stem}_tile_{window.x}_{window.y}"

    def write(self, chip: Chip) -> None:
        """Write a chip.

        Raises:
            RasterError: if it cannot be written.
        """
        name, grid = self.name(chip.window), self.image.grid.cut(chip.window)
        values = chip.image
        if self.nodata is not None and chip.valid is not None:
            # One no-data value stands for every band's own, and for what the mask left out.
            values = np.where(chip.valid, values, np.asarray(self.nodata, values.dtype))
        options = _COMPRESSION[self.compression]
        rows = f"BLOCKYSIZE={chip.window.height}"  # a chip is always read as a whole
        predictor = (f"PREDICTOR={3 if values.dtype.kind == 'f' else 2}",) if options else ()
        layout = ("INTERLEAVE=BAND", rows, *options, *predictor)
        path = self.folder / "images" / f"{name}.tif"
        with GeoTiff(path, grid, len(values), values.dtype, self.nodata, layout) as tif:
            tif.describe(tuple(replace(band, nodata=self.nodata) for band in self.image.bands))
            if self.nodata is None and chip.valid is not None:
                tif.write_mask(self._whole(chip.valid))
            tif.write(values)
        write_class_chip(self.folder / "labels" / f"{name}.tif", chip.labels, grid, self.classes, (rows, *options))

    def _whole(self, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Say which pixels ``(rows, columns)`` are data: a chip has one mask, where the image may have one per band."""
        if self.image.masked_by_band:
            return np.asarray(valid[self.image.good].all(axis=0), np.bool_)
        return np.asarray(valid.any(axis=0), np.bool_)


def image_stem(image: Raster) -> str:
    """Give the first part of the names of an image's chips; none of them may be hidden."""
    files = image.dataset.GetFileList()
    return Path(files[0] if files else image.name).stem.lstrip(".") or "image"


def place_of(name: str) -> tuple[str, int, int]:
    """Give the stem of the image that a chip was cut from, and the column and row where, as its name says.

    Raises:
        ValueError: if it is no name of a chip that the Raster Splitter gives.
    """
    place = _PLACE.fullmatch(name)
    if place is None:
        raise ValueError(f"{name} says no place")
    return place["stem"], int(place["x"]), int(place["y"])


def chips_of(folder: Path, stem: str) -> list[Path]:
    """List the chips of an image in a folder, with their side files."""
    named = ((path, _NAME.fullmatch(path.name)) for path in folder.iterdir())
    return [path for path, name in named if name is not None and name["stem"] == stem]


def difference_from(image: Raster, path: Path) -> str:
    """Tell in what an image differs from the one that a chip was cut from; empty where it may be the same.

    Place, bands and some rows of pixels are compared.

    Raises:
        RasterError: if one of them cannot be read.
    """
    chip = Raster.open(path)
    column, row = place_of(path.stem)[1:]
    there, here = chip.grid, image.grid.cut(Window(column, row, 1, 1))
    pixel = max(map(abs, here.transform[1:3]))
    if not there.same_crs(here) or not np.allclose(there.transform, here.transform, rtol=0, atol=0.01 * pixel):
        return "from another place"
    if len(chip.bands) != len(image.bands):
        return f"with {len(chip.bands)} bands instead of {len(image.bands)}"
    middle = chip.height // 2
    rows = Window(column, row + middle, chip.width, min(_ROWS_COMPARED, chip.height - middle))
    seen = rows.clipped(image.width, image.height)
    if seen.width < 1 or seen.height < 1:
        return ""
    old, old_valid = chip.read(seen.moved(-column, -row))
    new, new_valid = image.read(seen)
    return "with other pixels" if np.any((old != new) & old_valid & new_valid) else ""


def chip_nodata(image: Raster, progress: Progress) -> float | None:
    """Choose the one no-data value that a GeoTIFF can have.

    That is the image's own. Where its bands declare different ones, a value is searched for that no band has as a
    valid pixel; the whole image is read for that.

    Raises:
        RasterError: if there is none.
    """
    if len({str(band.nodata) for band in image.bands}) == 1:  # as text, since NaN equals nothing
        return image.nodata
    found = [value for value in dict.fromkeys(band.nodata for band in image.bands) if value is not None]
    if image.dtype.kind == "f":
        found.append(float("nan"))
    else:
        limits = np.iinfo(image.dtype)  # type: ignore[type-var]
        found += [float(limits.min), float(limits.max)]
    progress.info("The bands have different no-data values; looking for one that fits all of them.")
    free: dict[float, None] = dict.fromkeys(found)
    for window in block_windows(image.width, image.height, _BLOCK):
        progress.check()
        values, valid = image.read(window)
        free = {value: None for value in free if not np.any(valid & (values == value))}
        if not free:
            raise RasterError(
                f"IMAGE {image.name}: its bands have different no-data values, and each of them is a valid pixel in "
                "another band. Set one no-data value for all bands first (Raster > Conversion > Translate)."
            )
    return next(iter(free))
