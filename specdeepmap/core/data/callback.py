# SPDX-License-Identifier: GPL-3.0-or-later
"""GDAL's own long operations, watched: they report, stop on a cancel, and fail loudly."""

from __future__ import annotations

from osgeo import gdal

from specdeepmap.core.errors import Canceled
from specdeepmap.core.progress import Progress


class GdalCallback:
    """A progress callback for GDAL. After an interruption GDAL gives an error; ``progress.check`` tells the reason."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __call__(self, share: float, *_: object) -> int:
        """Report, and give 0 to stop the work or 1 to go on."""
        try:
            self._progress.check()
        except Canceled:
            return 0
        self._progress.report(share)
        return 1


def expect(status: int | None) -> None:
    """Raise what GDAL only returned.

    Raises:
        RuntimeError: if something went wrong.
    """
    if status not in (None, 0):
        raise RuntimeError(gdal.GetLastErrorMsg())
