# SPDX-License-Identifier: GPL-3.0-or-later
"""Sphinx settings. The parameter tables are made from the jobs, so that they cannot be wrong."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from specdeepmap import __version__  # noqa: E402
from specdeepmap.core.jobs import JOBS, Job  # noqa: E402
from specdeepmap.core.learn.architectures import ARCHITECTURES  # noqa: E402
from specdeepmap.core.learn.weights import WEIGHTS  # noqa: E402
from specdeepmap.core.record import spec_of  # noqa: E402

project = "SpecDeepMap"
author = "SpecDeepMap team"
copyright = "SpecDeepMap team"  # noqa: A001 - Sphinx wants this name
release = version = __version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
autodoc_mock_imports = ["lightning", "torch", "segmentation_models_pytorch", "timm", "tensorboard", "osgeo"]
exclude_patterns = ["_build", "generated"]
html_theme = "alabaster"
html_theme_options = {"description": "Deep-learning mapping of spectral imagery", "page_width": "1080px"}


def parameter_table(job: type[Job]) -> str:
    """Give the parameters of a job as a reStructuredText table."""
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 25 75", "", "   * - Parameter", "     - Meaning"]
    for field in dataclasses.fields(job):
        spec = spec_of(field)
        if spec is None:
            continue
        marks = [mark for mark, is_so in (("advanced", spec.advanced), ("optional", field.default is None)) if is_so]
        note = f" *({', '.join(marks)})*" if marks else ""
        lines += [f"   * - ``{field.name.upper()}``{note}", f"     - **{spec.label}.** {escaped(spec.help)}"]
    return "\n".join(lines) + "\n"


def output_list(job: type[Job]) -> str:
    """Give the outputs of a job."""
    specs = ((field.name.upper(), spec_of(field)) for field in dataclasses.fields(job.result))
    return "Outputs: " + ", ".join(f"``{name}``" for name, spec in specs if spec is not None) + ".\n"


def architecture_table() -> str:
    """Give the architectures as a table."""
    lines = [".. list-table::", "   :header-rows: 1", "", "   * - Name", "     - Title", "     - Source"]
    for name, entry in ARCHITECTURES.items():
        lines += [f"   * - ``{name}``", f"     - {entry.title}", f"     - {entry.source}"]
    return "\n".join(lines) + "\n"


def local_list() -> str:
    """Say which networks see only the surroundings of a pixel."""
    local = [entry for entry in ARCHITECTURES.values() if entry.local]
    free, bound = (", ".join(entry.title for entry in local if entry.has_backbone == has) for has in (False, True))
    return (
        f"These are: {free}; and, with plain ResNet, ResNeXt, DenseNet, VGG, MobileNetV2 and ConvNeXt backbones (no "
        f"squeeze and excitation, no attention, no group normalisation): {bound}.\n"
    )


def weights_table() -> str:
    """Give the pretrained weights as a table."""
    rows = [("Name", "Bands", "Sees", "Source", "Licence", "File")]
    for name, entry in WEIGHTS.items():
        waves = zip(entry.bands, entry.wavelengths_nm, strict=True)
        bands = ", ".join(f"{band} {'(panchromatic)' if nm is None else f'{nm:g}'}" for band, nm in waves)
        file = f"`{entry.file_name} <{entry.url}>`__" if entry.url else "none"
        texts = (bands and f"{bands} nm", entry.values or "as the dataset says", entry.source, entry.licence)
        rows.append((f"``{name}``", *(escaped(text) or "none" for text in texts), file))
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 20 20 15 20 8 17", ""]
    for row in rows:
        lines += [f"   {'*' if column == 0 else ' '} - {cell}" for column, cell in enumerate(row)]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Keep characters that mean something in reStructuredText from doing so."""
    return text.replace("\\", "\\\\").replace("*", "\\*").replace("_", "\\_").replace("`", "\\`").replace("|", "\\|")


def generate(_: Any) -> None:
    """Write the generated parts."""
    target = HERE / "generated"
    target.mkdir(exist_ok=True)
    for verb, job in JOBS.items():
        (target / f"{verb}.txt").write_text(parameter_table(job) + "\n" + output_list(job), encoding="utf-8")
    (target / "weights.txt").write_text(weights_table(), encoding="utf-8")
    (target / "architectures.txt").write_text(architecture_table(), encoding="utf-8")
    (target / "local.txt").write_text(local_list(), encoding="utf-8")


def setup(app: Any) -> None:
    """Have the generated parts made before Sphinx reads."""
    app.connect("builder-inited", generate)
