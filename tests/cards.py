# SPDX-License-Identifier: GPL-3.0-or-later
"""Model cards of models that nobody trained: what a test does not care about is there, and empty."""

from __future__ import annotations

from typing import Any

from specdeepmap.core.data.normalization import Normalization
from specdeepmap.core.learn.checkpoint import FORMAT, ModelCard


def bare_card(*, bands: tuple[str, ...], chip: int = 16, **known: Any) -> ModelCard:
    """Describe a model that wants its images as they are, without wavelengths, but for what is said."""
    usual: dict[str, Any] = {
        "format": FORMAT,
        "architecture": "unet",
        "backbone": "",
        "wavelengths_nm": (None,) * len(bands),
        "normalization": Normalization.none(len(bands)),
        "chip_width": chip,
        "chip_height": chip,
        "settings": {},
        "metrics": {},
        "fingerprint": "",
        "trained_on": (),
        "versions": {},
        "date": "",
    }
    return ModelCard(bands=bands, **{**usual, **known})
