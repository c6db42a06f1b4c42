# SPDX-License-Identifier: GPL-3.0-or-later
"""The choices of the data room, by the name that scripts use and the text that dialogs show."""

from __future__ import annotations

from dataclasses import dataclass

VECTOR_DRIVERS = {
    ".gpkg": "GPKG",
    ".shp": "ESRI Shapefile",
    ".geojson": "GeoJSON",
    ".json": "GeoJSON",
    ".fgb": "FlatGeobuf",
}
"""The OGR drivers of the vector files that are written, by the suffix in small letters."""


@dataclass(frozen=True)
class Choice:
    """One entry of a list of choices."""

    title: str


EDGES = {
    "pad": Choice("Pad with no-data"),
    "shift": Choice("Shift inside"),
    "drop": Choice("Drop"),
}

COMPRESSIONS = {
    "none": Choice("None"),
    "lzw": Choice("LZW"),
    "deflate": Choice("Deflate"),
    "zstd": Choice("Zstandard"),
}

SPLITS = {
    "stratified": Choice("Stratified by class"),
    "blocks": Choice("Spatial blocks, stratified"),
    "random": Choice("Random"),
    "given": Choice("As given in tiles.gpkg"),
}

MATCHES = {
    "none": Choice("As they stand"),
    "name": Choice("By name"),
    "wavelength": Choice("By wavelength"),
}

PROBABILITY_FORMATS = {
    "float32": Choice("0 to 1 (float32)"),
    "percent": Choice("Whole percent (Byte)"),
}
