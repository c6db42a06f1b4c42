# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of pretrained weights: what there is, what it was trained on, and what it wants to see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdeepmap.core.learn.firstlayer import TOLERANCE_NM

if TYPE_CHECKING:
    from specdeepmap.core.data.normalization import Normalization

    Wavelengths = Sequence[float | None]

THERMAL_NM = 3000.0
"""Bands of longer waves measure temperature."""

THERMAL_RANGE = (273.15 - 25, 273.15 + 45)
"""Kelvin that the Landsat sets map to 0 and 1."""


@dataclass(frozen=True)
class Weights:
    """A set of pretrained weights.

    Sets with a ``scale`` bring their own preprocessing: they see ``(value - offset) / scale`` of raw values, and
    thermal bands, in kelvin, over ``THERMAL_RANGE``. The others see what the dataset says.

    Attributes:
        title: for dialogs.
        source: method, what it was trained on, and the paper.
        licence: of the file.
        backbone: the only one that it fits; None = any.
        encoder_weights: the name that segmentation-models-pytorch knows it by, and downloads it.
        url: where we download it; ends in the file's name, and that in the first digits of its SHA-256.
        bands: names, in the order of the filters.
        wavelengths_nm: centres of the bands; None for panchromatic ones, which no single band can stand for.
        tolerance_nm: how far a band of the data may lie from one of these.
        scale: range of raw values that the network saw as 0 to 1; None = the dataset's own preprocessing.
        offset: raw value that it saw as 0.
        values: which raw values these are.
    """

    title: str
    source: str
    licence: str = ""
    backbone: str | None = None
    encoder_weights: str | None = None
    url: str | None = None
    bands: tuple[str, ...] = ()
    wavelengths_nm: tuple[float | None, ...] = ()
    tolerance_nm: float = TOLERANCE_NM
    scale: float | None = None
    offset: float = 0.0
    values: str = ""

    @property
    def file_name(self) -> str:
        """Name of the file; empty where there is none of ours."""
        return (self.url or "").rsplit("/", 1)[-1]

    @property
    def sha256_prefix(self) -> str:
        """The first eight hexadecimal digits of the file's SHA-256."""
        return self.file_name.rpartition("-")[2].partition(".")[0]


_HUB = "https://huggingface.co/torchgeo/"
_LANDSAT_FOLDER = "ssl4eo_landsat/resolve/1c88bb51b6e17a21dde5230738fa38b74bd74f76/"  # pragma: allowlist secret
_METHODS = {"moco": "MoCo", "simclr": "SimCLR", "dino": "DINO", "decur": "DeCUR"}

_S12 = "on SSL4EO-S12 (Sentinel-2 Level-1C), Wang et al. 2022, arXiv 2211.07044"
_DECUR = "on SSL4EO-S12 (Sentinel-1 and Sentinel-2 Level-1C), Wang et al. 2023, arXiv 2309.05300"
_L = "on SSL4EO-L (Landsat), Stewart et al. 2023, arXiv 2306.09424"

_DN_S2 = "Level-1C digital numbers (top-of-atmosphere reflectance × 10,000)"
_DN_SR = "Collection 2 Level-2 digital numbers (surface reflectance = number × 0.0000275 − 0.2)"
_TOA = "top-of-atmosphere reflectance 0 to 1, thermal bands in kelvin"

# Numbers to images of 8 bits: reflectance 0 to 0.3 (surface) or 0 to 0.4 (top of atmosphere), temperature −25 to 45 °C,
# cut at both ends; 8 bits to network input: ÷ 255. TorchGeo, experiments/ssl4eo/landsat/compress_*.sh and
# compress_dataset.py; in range, this is (value - offset) / scale but for the rounding to 8 bits.
_SR = {"scale": 0.3 / 0.0000275, "offset": 0.2 / 0.0000275, "values": _DN_SR}
_SENSORS: dict[str, dict[str, Any]] = {
    # Wavelengths: ESA, Sentinel-2 user handbook; USGS, middle of the band designations for the Landsat satellites.
    "sentinel2_toa": {
        "title": "Sentinel-2 TOA",
        "bands": "B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 B10 B11 B12",
        "nm": (443, 490, 560, 665, 705, 740, 783, 842, 865, 945, 1375, 1610, 2190),
        "see": {"scale": 10_000.0, "values": _DN_S2},
    },
    "sentinel2_rgb": {
        "title": "Sentinel-2 RGB",
        "bands": "B4 B3 B2",
        "nm": (665, 560, 490),
        "see": {"scale": 10_000.0, "values": _DN_S2},
    },
    "landsat_tm_toa": {
        "title": "Landsat 4–5 TOA",
        "bands": "B1 B2 B3 B4 B5 B6 B7",
        "nm": (485, 560, 660, 830, 1650, 11450, 2215),
        "see": {"scale": 0.4, "values": _TOA},
    },
    "landsat_etm_toa": {
        "title": "Landsat 7 TOA",
        "bands": "B1 B2 B3 B4 B5 B6_low_gain B6_high_gain B7 B8",
        "nm": (485, 560, 660, 835, 1650, 11450, 11450, 2220, None),
        "see": {"scale": 0.4, "values": _TOA},
    },
    "landsat_etm_sr": {
        "title": "Landsat 7 SR",
        "bands": "B1 B2 B3 B4 B5 B7",
        "nm": (485, 560, 660, 835, 1650, 2220),
        "see": _SR,
    },
    "landsat_oli_tirs_toa": {
        "title": "Landsat 8–9 TOA",
        "bands": "B1 B2 B3 B4 B5 B6 B7 B8 B9 B10 B11",
        "nm": (443, 482, 561, 655, 865, 1609, 2201, None, 1373, 10895, 12005),
        "see": {"scale": 0.4, "values": _TOA},
    },
    "landsat_oli_sr": {
        "title": "Landsat 8–9 SR",
        "bands": "B1 B2 B3 B4 B5 B6 B7",
        "nm": (443, 482, 561, 655, 865, 1609, 2201),
        "see": _SR,
    },
}

_SENTINEL_FILES = (
    # sensor, backbone, method, source, licence, file
    *(
        (sensor, backbone, method, _S12, "CC BY 4.0", f"{stem}/resolve/{commit}/{stem}-{digits}.pth")
        for sensor, backbone, method, stem, commit, digits in (
            ("sentinel2_toa", "resnet18", "moco", "resnet18_sentinel2_all_moco",
             "5b8cddc9a14f3844350b7f40b85bcd32aed75918", "59bfdff9"),  # pragma: allowlist secret
            ("sentinel2_toa", "resnet50", "moco", "resnet50_sentinel2_all_moco",
             "da4f3c9dbe09272eb902f3b37f46635fa4726879", "df8b932e"),  # pragma: allowlist secret
            ("sentinel2_toa", "resnet50", "dino", "resnet50_sentinel2_all_dino",
             "d7f14bf5530d70ac69d763e58e77e44dbecfec7c", "d6c330e9"),  # pragma: allowlist secret
            ("sentinel2_rgb", "resnet18", "moco", "resnet18_sentinel2_rgb_moco",
             "e1c032e7785fd0625224cdb6699aa138bb304eec", "e3a335e3"),  # pragma: allowlist secret
            ("sentinel2_rgb", "resnet50", "moco", "resnet50_sentinel2_rgb_moco",
             "efd9723b59a88e9dc1420dc1e96afb25b0630a3c", "2b57ba8b"),  # pragma: allowlist secret
        )
    ),
    ("sentinel2_toa", "resnet50", "decur", _DECUR, "Apache 2.0",
     "decur/resolve/eba7ae5945d482a4319be046d34b552db5dd9950/"  # pragma: allowlist secret
     "rn50_ssl4eo-s12_ms_decur_ep100-fc6b09ff.pth"),
)  # fmt: skip

_LANDSAT_DIGITS = {
    # sensor: ResNet-18 MoCo and SimCLR, ResNet-50 MoCo and SimCLR
    "landsat_tm_toa": ("1c691b4f", "d2d38ace", "ba1ce753", "a1c93432"),
    "landsat_etm_toa": ("bb88689c", "4d813f79", "e9a84d5a", "70b5575f"),
    "landsat_etm_sr": ("4f078acd", "8e8543b4", "1266cde3", "e5d185d7"),
    "landsat_oli_tirs_toa": ("a3002f51", "b0635cc6", "de7f5e0f", "030cebfe"),
    "landsat_oli_sr": ("660e82ed", "7bced5be", "ff580dad", "94f78913"),
}
_LANDSAT_FILES = tuple(
    (sensor, backbone, method, _L, "CC0 1.0", f"{_LANDSAT_FOLDER}{backbone}_{sensor}_{method}-{digits}.pth")
    for sensor, all_digits in _LANDSAT_DIGITS.items()
    for (backbone, method), digits in zip(
        (("resnet18", "moco"), ("resnet18", "simclr"), ("resnet50", "moco"), ("resnet50", "simclr")),
        all_digits,
        strict=True,
    )
)


def _hosted() -> Iterator[tuple[str, Weights]]:
    """Make the entries of the sets that we download; MoCo is the method where a name says none."""
    for sensor, backbone, method, source, licence, file in (*_SENTINEL_FILES, *_LANDSAT_FILES):
        facts = _SENSORS[sensor]
        yield (
            f"{sensor}_{backbone}" + ("" if method == "moco" else f"_{method}"),
            Weights(
                f"{facts['title']}, {len(facts['nm'])} bands, ResNet-{backbone[-2:]} ({_METHODS[method]})",
                f"{_METHODS[method]} {source}",
                licence,
                backbone=backbone,
                url=_HUB + file,
                bands=tuple(facts["bands"].split()),
                wavelengths_nm=tuple(None if nm is None else float(nm) for nm in facts["nm"]),
                **facts["see"],
            ),
        )


WEIGHTS = {
    "none": Weights("None (random)", "random initialisation"),
    "imagenet": Weights(
        "ImageNet (photographs)",
        "ImageNet-1k, or more where the backbone's default weights say so; see segmentation-models-pytorch and timm",
        "that of the backbone's file",
        encoder_weights="imagenet",
        bands=("red", "green", "blue"),
        wavelengths_nm=(665.0, 560.0, 490.0),
        tolerance_nm=50.0,  # the filters of a camera are 100 nm wide
    ),
    **dict(_hosted()),
}


def own_normalization(weights: str, wavelengths_nm: Wavelengths, bad: Sequence[bool]) -> Normalization | None:
    """Give the preprocessing that weights bring; None where the dataset's own is to be taken.

    Args:
        weights: a name in ``WEIGHTS``.
        wavelengths_nm: of the data's bands, where known; without any, the bands count as those of the weights.
        bad: flags of the data's bands.
    """
    from specdeepmap.core.data.normalization import Normalization

    entry = WEIGHTS[weights]
    if entry.scale is None:
        return None
    known = [nm for nm in wavelengths_nm if nm is not None]
    waves = list(wavelengths_nm) if known else list(entry.wavelengths_nm)
    waves = [*waves, *[None] * len(bad)][: len(bad)]
    thermal = [nm is not None and nm > THERMAL_NM for nm in waves]
    low, high = THERMAL_RANGE
    return Normalization(
        scale=entry.scale,
        mean=tuple((low if hot else entry.offset) / entry.scale for hot in thermal),
        std=tuple((high - low) / entry.scale if hot else 1.0 for hot in thermal),
        bad=tuple(bad),
    )


def unlikely_values(weights: str, normalization: Normalization, means: Sequence[float]) -> str:
    """Say it where raw values look as if they were in another unit than the weights expect; else nothing.

    Args:
        weights: a name in ``WEIGHTS``.
        normalization: that of the weights.
        means: mean raw value of each band.
    """
    if WEIGHTS[weights].scale is None:
        return ""
    norm = zip(means, normalization.mean, normalization.std, normalization.bad, strict=True)
    seen = [(value / normalization.scale - mean) / std for value, mean, std, bad in norm if not bad]
    # Between dark water and fresh snow; values in another unit are 100 times off or more, or below the offset.
    if not seen or (min(seen) > -0.4 and 0.01 < max(seen) < 4.0):
        return ""
    return (
        f"PRETRAINED_WEIGHTS {weights} take {WEIGHTS[weights].values}. The images look different: their bands have "
        f"means of {min(means):g} to {max(means):g}. Weights that see values in another unit are worth little."
    )
