# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors a user may see; each says which value, what is wrong and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SpecDeepMapError(Exception):
    """Root of all errors whose message is meant for the user."""


class ConfigError(SpecDeepMapError, ValueError):
    """A parameter has a value that cannot be worked with."""


class RasterError(SpecDeepMapError, OSError):
    """A raster cannot be read, written or used."""


class NoRasterError(RasterError):
    """GDAL opens no raster by a name."""


class DatasetError(SpecDeepMapError, ValueError):
    """A folder of chips, or a table beside them, is not what it should be."""


class CheckpointError(SpecDeepMapError, ValueError):
    """A file is no checkpoint of ours, or does not fit the data."""


class DeviceError(SpecDeepMapError, RuntimeError):
    """The wanted device is absent or too small."""


class EnvironmentMissingError(SpecDeepMapError, ImportError):
    """No Python was found that has the packages a job needs."""


class ChildError(SpecDeepMapError, RuntimeError):
    """The child Python ended without a result."""


class Canceled(Exception):  # noqa: N818 - it is no error
    """The user asked to stop. Deliberately no ``SpecDeepMapError``."""


ERRORS: dict[str, type[SpecDeepMapError]] = {
    kind.__name__: kind
    for kind in (
        ConfigError,
        RasterError,
        NoRasterError,
        DatasetError,
        CheckpointError,
        DeviceError,
        EnvironmentMissingError,
        ChildError,
        SpecDeepMapError,
    )
}
"""Name to class, for errors that come out of the child process."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Say which known names are nearest to a wrong one: ``Did you mean a, b?``, or nothing."""
    lowered = {entry.lower(): entry for entry in known}
    found = difflib.get_close_matches(name.lower(), list(lowered), n=count, cutoff=0.5)
    return f" Did you mean {', '.join(lowered[entry] for entry in found)}?" if found else ""
