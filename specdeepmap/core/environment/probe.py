# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a Python what it can do: run by that Python itself, as a script, with the modules and requirements to look at.

Writes one JSON object to standard output. It runs in interpreters that we know nothing of, also ones too old for
the rest of the plugin, and so keeps to what every Python 3 understands.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

OLDEST = (3, 10)


def main(arguments: list[str]) -> dict[str, Any]:
    """Look at the modules before ``--`` and at the requirements after it."""
    border = arguments.index("--") if "--" in arguments else len(arguments)
    answer: dict[str, Any] = {
        "python": sys.executable,
        "version": ".".join(str(part) for part in sys.version_info[:3]),
        "modules": {},
        "problems": [],
        "devices": [],
        "cuda": None,
    }
    if sys.version_info[:2] < OLDEST:
        answer["problems"].append("Python {} is too old; 3.10 or later is needed.".format(answer["version"]))
    loaded: dict[str, Any] = {}
    for name in arguments[:border]:
        try:
            loaded[name] = importlib.import_module(name)
            answer["modules"][name] = str(getattr(loaded[name], "__version__", "")) or "?"
        except Exception as error:  # whatever a broken package raises is the answer
            answer["modules"][name] = None
            answer["problems"].append(f"{name} cannot be imported ({type(error).__name__}: {error}).")
    for name, check in (("GDAL with numpy", check_gdal), ("PyTorch", check_torch)):
        try:
            check(loaded, answer)
        except Exception as error:
            answer["problems"].append(f"{name} does not work ({type(error).__name__}: {error}).")
    answer["problems"].extend(misfits(arguments[border + 1 :]))
    return answer


def check_gdal(loaded: dict[str, Any], answer: dict[str, Any]) -> None:
    """Check that GDAL and numpy work together."""
    if "osgeo" in loaded and "numpy" in loaded:
        from osgeo import gdal, gdal_array

        gdal.UseExceptions()
        values = loaded["numpy"].arange(6, dtype="float32").reshape(2, 3)
        dataset = gdal_array.OpenArray(values)
        if dataset.ReadAsArray().tolist() != values.tolist():
            raise ValueError("an array comes back from GDAL changed")


def check_torch(loaded: dict[str, Any], answer: dict[str, Any]) -> None:
    """Check that PyTorch computes, and see on what."""
    torch = loaded.get("torch")
    if torch is None:
        return
    image = torch.from_numpy(loaded["numpy"].ones((1, 2, 4, 4), "float32")) if "numpy" in loaded else None
    if image is not None:
        torch.nn.Conv2d(2, 3, 3)(image)
    if "torchvision" in loaded:
        loaded["torchvision"].ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    answer["cuda"] = torch.version.cuda
    if torch.cuda.is_available():
        answer["devices"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    elif getattr(torch.backends, "mps", None) is not None and torch.backends.mps.is_available():
        answer["devices"] = ["Apple GPU (MPS)"]


def misfits(requirements: list[str]) -> list[str]:
    """Say which installed packages do not fit the requirements; of those that are missing, their import tells."""
    try:
        from importlib.metadata import PackageNotFoundError, version

        from packaging.requirements import Requirement
    except ImportError:  # it comes with the packages that are asked for
        return []
    found = []
    for text in requirements:
        wanted = Requirement(text)
        try:
            installed = version(wanted.name)
        except PackageNotFoundError:
            found.append(f"The package {wanted.name} is not installed.")
            continue
        if not wanted.specifier.contains(installed, prereleases=True):
            found.append(f"{wanted.name} {installed} is installed, but {text} is needed.")
    return found


if __name__ == "__main__":
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what packages print on import is not part of the answer
    json.dump(main(sys.argv[1:]), stream)
    stream.close()
