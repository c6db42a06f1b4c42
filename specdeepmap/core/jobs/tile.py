# SPDX-License-Identifier: GPL-3.0-or-later
"""The job to cut a raster and its labels into chips: the Raster Splitter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from specdeepmap.core.data.classes import ClassEntry
from specdeepmap.core.data.options import COMPRESSIONS, EDGES
from specdeepmap.core.jobs.base import Job, Result
from specdeepmap.core.record import ask, made, titles


@dataclass(frozen=True, kw_only=True)
class TileResult(Result):
    """What the Raster Splitter made."""

    output_folder: Path = made("folder", "Dataset folder")
    tile_count: int = made("number", "Chips written")
    skipped_count: int = made("number", "Chips left out")
    tile_index: Path = made("vector", "Chips")


@dataclass(frozen=True, kw_only=True)
class TileJob(Job):
    """Raster Splitter: cut a raster and its labels into chips."""

    verb: ClassVar[str] = "tile"
    result: ClassVar[type[Result]] = TileResult

    image: str = ask(
        "raster",
        "Image",
        "The raster to cut: any GDAL raster, any number of bands, any real number type.",
    )
    labels: str = ask(
        "labels",
        "Labels",
        "A raster of class ids, whole numbers from 0 to 255; 0 and its no-data value mean unlabelled. Or polygons or "
        "points with a class field. Labels on another grid or in another coordinate system are brought onto the "
        "image's grid (rasters: nearest neighbour; polygons: by pixel centres), and the log says so.",
    )
    class_field: str | None = ask(
        "field",
        "Class field (vector labels)",
        "The field of polygons or points that holds the class: ids from 1 to 255, or names as text, which get ids 1 "
        "to n in alphabetical order. Needed for vector labels. Default: not set.",
        None,
    )
    zero_as: int | None = ask(
        "integer",
        "Class for label value 0",
        "Label value 0 becomes this class id (1 to 255). Set it for masks of 0 and 1, where 0 is a class "
        "of its own. Default: not set, 0 means unlabelled.",
        None,
        minimum=1,
        maximum=255,
        advanced=True,
    )
    tile_size_x: int = ask(
        "integer",
        "Chip width (pixels)",
        "Width of a chip in pixels, at least 8. Default: 256. Smaller chips suit small scenes and sparse "
        "labels, larger ones show the network more surroundings.",
        256,
        minimum=8,
    )
    tile_size_y: int = ask(
        "integer",
        "Chip height (pixels)",
        "Height of a chip in pixels, at least 8. Default: 256.",
        256,
        minimum=8,
    )
    step_x: int = ask(
        "integer",
        "Horizontal step (pixels)",
        "Distance in pixels between the left borders of neighbouring chips. Default: 256. Smaller than "
        "the chip width = overlapping chips: more of them, but chips of different sets then share "
        "ground, which makes accuracy look better than it is. Larger = gaps.",
        256,
        minimum=1,
    )
    step_y: int = ask(
        "integer",
        "Vertical step (pixels)",
        "Distance in pixels between the upper borders of neighbouring chips. Default: 256.",
        256,
        minimum=1,
    )
    min_label_coverage: float = ask(
        "number",
        "Minimum label coverage (%)",
        "A chip is kept when at least this share of its pixels is labelled, in percent of the whole "
        "chip. Default: 50. Use a low value for sparse labels; 0 keeps every chip.",
        50.0,
        minimum=0,
        maximum=100,
    )
    edges: str = ask(
        "choice",
        "Chips over the border",
        "What happens to a chip that reaches over the right or lower border: pad fills it up with "
        "no-data (mirrored pixels where the image has no no-data value) and label 0; shift moves it "
        "inside; drop leaves it out. Default: pad.",
        "pad",
        options=titles(EDGES),
        advanced=True,
    )
    nodata: float | None = ask(
        "number",
        "No-data value of the image (image units)",
        "Overrides the image's own no-data value, in image units. Default: not set, the image's own. Set "
        "it when the image marks missing pixels by a value that its file does not declare.",
        None,
        advanced=True,
    )
    compression: str = ask(
        "choice",
        "Compression of the chips",
        "How the chips are compressed: none, lzw, deflate or zstd. Default: zstd, in our measurements the fastest of "
        "those that compress; none is faster still and takes more room. Choose another for software that cannot "
        "read it.",
        "zstd",
        options=titles(COMPRESSIONS),
        advanced=True,
    )
    output_folder: Path = ask(
        "folder_out",
        "Output folder",
        "The dataset folder: images/, labels/ and tiles.gpkg are written into it. Chips of the same image "
        "in it are replaced, those of other images stay.",
    )
    classes: tuple[ClassEntry, ...] = ()
    """Names and colours known from the layer's renderer; they win over those in the label file."""
