# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python that does the work: which one is used, how to make one, how to tell whether it works.

QGIS itself never imports torch: it is started in another Python process. That Python is looked for
in four places; one that was named or chosen is the only one, else the first that has every needed module wins:

1. the interpreter named by the environment variable ``SPECDEEPMAP_PYTHON``,
2. the interpreter that the user chose (``python -m specdeepmap.core.environment use …``, or the dialog),
3. the plugin's own environment, a venv in the user's QGIS data that sees QGIS's own packages,
4. QGIS's Python, if torch was installed there.

This package needs the standard library only, and runs by its path, too::

    python3 …/specdeepmap/core/environment install
"""

from __future__ import annotations

from specdeepmap.core.environment.ranks import is_first_process
from specdeepmap.core.environment.search import (
    DATA_MODULES,
    TORCH_MODULES,
    VARIABLE,
    Search,
    advice,
    candidates,
    child_environ,
    environment_python,
    find_python,
    missing_modules,
    own_python,
    profile_environment,
)

__all__ = [
    "DATA_MODULES",
    "TORCH_MODULES",
    "VARIABLE",
    "Search",
    "advice",
    "candidates",
    "child_environ",
    "environment_python",
    "find_python",
    "is_first_process",
    "missing_modules",
    "own_python",
    "profile_environment",
]
