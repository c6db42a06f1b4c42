# SPDX-License-Identifier: GPL-3.0-or-later
"""Sieving: small patches of a class map go into their neighbours.

A *patch* is what hangs together of one class over the sides of its pixels (4-connected). Value 0, no data, makes no
patch: it neither changes nor takes anything in.
"""

from __future__ import annotations

import zlib
from itertools import chain, repeat
from pathlib import Path

from osgeo import gdal

from specdeepmap.core.data.callback import GdalCallback, expect
from specdeepmap.core.data.raster import Raster
from specdeepmap.core.data.tiling import block_windows
from specdeepmap.core.data.writer import MAP_OPTIONS
from specdeepmap.core.errors import RasterError
from specdeepmap.core.progress import Progress

_GROWTH = 4
_SINGLE = 2  # the limit that only single pixels are below
_BLOCK = 2048  # pixels; rows and columns looked at between two checks for a cancel


def sieve(source: Path, target: Path, min_area: int, progress: Progress) -> None:
    """Copy a class map, and let patches of less than ``min_area`` pixels join their largest neighbour.

    One pass of GDAL's sieve gives a small patch the class that is found by going from largest neighbour to largest
    neighbour until a patch is large enough; it leaves the patch as it is where this way ends in a small one, as most
    ways do in speckle. So patches grow together first, in passes whose limit grows fourfold up to ``min_area``. Passes
    with that limit are repeated until nothing changes: five in pure speckle of few classes, some thirty in that of
    many, and not for ever, since each leaves fewer patches. Then

    - a patch that had ``min_area`` pixels or more has kept them all,
    - a patch below ``min_area`` is left only where all of its neighbours are below it, too, or where it has none.

    Which of several largest neighbours is joined is GDAL's choice. Names, colours, metadata and no-data value are
    copied, overviews are not. In memory are some rows of pixels, and some numbers for each patch.

    Args:
        source: a Byte raster with no-data 0.
        target: the GeoTIFF to write; it is overwritten.
        min_area: in pixels; 0 and 1 change nothing.
        progress: is reported to; a cancel stops the work.

    Raises:
        RasterError: if one cannot be read or the other cannot be written.
    """
    gdal.ErrorReset()
    try:
        _copy(source, target, progress.part(0.0, 0.1))
        if min_area > 1:
            _sieve(target, min_area, progress.part(0.1, 1.0))
        reason = gdal.GetLastErrorMsg() if gdal.GetLastErrorType() >= gdal.CE_Failure else None
    except (RuntimeError, AttributeError) as error:  # AttributeError: GDAL gave None
        reason = gdal.GetLastErrorMsg() or str(error)
    progress.check()  # GDAL reports an interruption as an error, too
    if reason is not None:  # raised without its cause: that would keep the files open
        raise RasterError(
            f"{source} cannot be sieved into {target.parent}: {reason or 'unknown reason'}. Is the disk full, or the "
            "folder write-protected? Free some space or choose another folder."
        )


def limits(min_area: int) -> list[int]:
    """Give the limits of the passes, ascending; the last one is ``min_area``."""
    found = [min_area]
    while found[-1] > _SINGLE:
        found.append(max(-(-found[-1] // _GROWTH), _SINGLE))
    return found[::-1]


def _copy(source: Path, target: Path, progress: Progress) -> None:
    original = copy = None
    try:
        original = Raster.open(source).dataset
        driver = gdal.GetDriverByName("GTiff")
        callback = GdalCallback(progress)
        copy = driver.CreateCopy(str(target), original, options=list(MAP_OPTIONS), callback=callback)
        copy.FlushCache()
    finally:
        original = copy = None  # an open file could not be removed on Windows


def _sieve(class_map: Path, min_area: int, progress: Progress) -> None:
    """Sieve in place."""
    *growing, last = limits(min_area)
    passes = chain(growing, repeat(last))
    expected = len(growing) + 2  # the last of these finds that nothing changes any more
    dataset = band = None
    try:
        dataset = gdal.OpenEx(str(class_map), gdal.OF_RASTER | gdal.OF_UPDATE | gdal.OF_VERBOSE_ERROR)
        band = dataset.GetRasterBand(1)
        before = _fingerprint(band, progress)
        for number, limit in enumerate(passes):
            place = min(number, expected - 1)
            callback = GdalCallback(progress.part(place / expected, (place + 1) / expected))
            # The map is its own mask. GDAL reads a row before it writes it, so that source and target may be the same.
            expect(gdal.SieveFilter(band, band, band, limit, 4, callback=callback))
            after = _fingerprint(band, progress)
            if limit == min_area and after == before:
                break
            before = after
        dataset.FlushCache()
    finally:
        band = dataset = None


def _fingerprint(band: gdal.Band, progress: Progress) -> list[int]:
    """Give a checksum of each block. GDAL's own would not do: it adds small values up, wherever they are."""
    found = []
    for window in block_windows(band.XSize, band.YSize, _BLOCK):
        progress.check()
        found.append(zlib.crc32(band.ReadRaster(window.x, window.y, window.width, window.height)))
    return found
