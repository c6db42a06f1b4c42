# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of these pages, made from the jobs and the option tables, so that they cannot be wrong.

``conf.py`` writes them into ``generated/`` before Sphinx reads; the pages include them.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from wording import JOB_FILE_ONLY, KINDS, MEANINGS, UNITS

import specdeepmap
from specdeepmap.core.environment.machine import BUILDS, NEEDED_GB
from specdeepmap.core.jobs import JOBS, Job
from specdeepmap.core.learn.architectures import ARCHITECTURES
from specdeepmap.core.learn.losses import LOSSES
from specdeepmap.core.learn.weights import WEIGHTS
from specdeepmap.core.record import Spec, spec_of

PAGES = {
    "tile": "rastersplitter",
    "prepare": "datasetmaker",
    "train": "trainer",
    "tensorboard": "tensorboard",
    "evaluate": "tester",
    "predict": "mapper",
}
"""A job's verb and its algorithm, which is also the name of its page."""

Row = Sequence[str]

_ALGORITHMS = Path(specdeepmap.__file__).parent / "algorithms"


def generate(target: Path) -> None:
    """Write all generated parts into a folder."""
    target.mkdir(exist_ok=True)
    parts = {
        **{verb: job_page(verb, job) for verb, job in JOBS.items()},
        "weights": weights_table(),
        "architectures": architecture_table(),
        "losses": loss_table(),
        "builds": build_list(),
    }
    for name, text in parts.items():
        (target / f"{name}.txt").write_text(text, encoding="utf-8")


def job_page(verb: str, job: type[Job]) -> str:
    """Give parameters and outputs of a job."""
    fields = dataclasses.fields(job)
    main, advanced = (
        [field for field in fields if (spec := spec_of(field)) is not None and spec.advanced == wanted]
        for wanted in (False, True)
    )
    hidden = [field.name for field in fields if spec_of(field) is None]
    parts = [_section("Parameters", parameter_table(job, main))]
    if advanced:
        parts.append(_section("Advanced parameters", parameter_table(job, advanced)))
    if PAGES[verb] in algorithms_with_tables():
        parts.append(_section("In QGIS only", parameter_table(job, [load_tables()])))
    if hidden:
        rows = [(f":parameter:`{name}`", "in job files only", JOB_FILE_ONLY[name]) for name in hidden]
        parts.append(_section("In job files only", _table(("Name", "", "What it is"), rows, (26, 20, 54))))
    parts.append(_section("Outputs", output_table(verb, job)))
    return "\n".join(parts)


def parameter_table(job: type[Job], fields: Iterable[dataclasses.Field[Any]]) -> str:
    """Give parameters as a table."""
    known = {field.name.upper() for field in dataclasses.fields(job)}
    rows = []
    for field in fields:
        spec = spec_of(field)
        if spec is not None:
            name = f"{escaped(spec.label)}\n\n:parameter:`{field.name.upper()}`"
            rows.append((name, value_text(field, spec), linked(spec.help, known) + option_list(spec)))
    return _table(("Parameter", "Value", "What it does"), rows, (24, 22, 54))


def load_tables() -> dataclasses.Field[Any]:
    """Give the parameter that no job has, as its source text declares it: that module needs QGIS to be imported."""
    tree = ast.parse((_ALGORITHMS / "tables.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Spec"]
    spec = Spec(*(ast.literal_eval(argument) for argument in calls[0].args), advanced=True)
    made = dataclasses.make_dataclass(
        "Asked", [("load_tables", bool, dataclasses.field(default=False, metadata={"spec": spec}))]
    )
    return dataclasses.fields(made)[0]


def algorithms_with_tables() -> set[str]:
    """Name the algorithms that have this parameter."""
    found = set()
    for path in _ALGORITHMS.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                values = {
                    ast.unparse(part.targets[0]): part.value for part in node.body if isinstance(part, ast.Assign)
                }
                if "TABLES" in values and "NAME" in values:
                    found.add(str(ast.literal_eval(values["NAME"])))
    return found


def value_text(field: dataclasses.Field[Any], spec: Spec) -> str:
    """Say what a value may be, and what it is where nobody gives one."""
    parts = [KINDS[spec.kind], limits(spec)]
    if spec.suffix:
        parts.append(f".{spec.suffix}")
    return f"{', '.join(part for part in parts if part)}\n\n{default_text(field)}"


def limits(spec: Spec) -> str:
    """Give the bounds of a number, with its unit where the label names one."""
    found = re.search(r"\((?:[^)]*?)(" + "|".join(map(re.escape, UNITS)) + r")", spec.label)
    unit = f" {found[1]}" if found else ""
    if spec.above is not None and spec.maximum is not None:
        return f"greater than {spec.above:g}, at most {spec.maximum:g}{unit}"
    if spec.minimum is not None and spec.maximum is not None:
        return f"{spec.minimum:g} to {spec.maximum:g}{unit}"
    if spec.minimum is not None:
        # A unit after a lowest value of -1 or 0 with a meaning of its own would read oddly.
        return f"at least {_minus(spec.minimum)}{unit}"
    if spec.above is not None:
        return f"greater than {spec.above:g}{unit}"
    return unit.strip()


def default_text(field: dataclasses.Field[Any]) -> str:
    """Say what holds where nobody gives a value."""
    if field.default is dataclasses.MISSING:
        return "*must be given*"
    if field.default is None:
        return "*optional*"
    if isinstance(field.default, bool):
        return f"default: ``{str(field.default).lower()}``"
    value = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
    return f"default: ``{value}``"


def option_list(spec: Spec) -> str:
    """List the names of a choice, as scripts write them, with the texts that a dialog shows."""
    if spec.options is not None:
        return "\n\n" + "\n".join(f"- ``{name}``: {escaped(title)}" for name, title in spec.options().items())
    if spec.suggestions:
        return "\n\nOffered in the dialog: " + ", ".join(f"``{name}``" for name in spec.suggestions) + "."
    return ""


def output_table(verb: str, job: type[Job]) -> str:
    """Give the outputs of a job as a table."""
    known = {field.name.upper() for field in dataclasses.fields(job)}
    rows = []
    for field in dataclasses.fields(job.result):
        spec = spec_of(field)
        if spec is not None:
            meaning = _linked_plain(MEANINGS[verb][field.name], known)
            rows.append((f"{escaped(spec.label)}\n\n``{field.name.upper()}``", KINDS[spec.kind], meaning))
    return _table(("Output", "Type", "What it is"), rows, (24, 22, 54))


def architecture_table() -> str:
    """Give the architectures as a table."""
    rows = []
    for name, entry in ARCHITECTURES.items():
        backbone = "any" if entry.has_backbone and not entry.refused else "none"
        if entry.refused:
            backbone = "any but " + ", ".join(f"``{start}*``" for start in entry.refused)
        if entry.stride == 0:
            backbone = "vision transformers of timm"
        rows.append((f"``{name}``", escaped(entry.title), backbone, f"{entry.rate:g}", escaped(entry.source)))
    return _table(("Name", "Title", "Backbones", "Learning rate", "Source"), rows, (18, 20, 18, 10, 34))


def loss_table() -> str:
    """Give the losses as a table."""
    rows = [
        (f"``{name}``", escaped(entry.title), "yes" if entry.weighted else "no", escaped(entry.source))
        for name, entry in LOSSES.items()
    ]
    return _table(("Name", "Title", "Class weights", "Source"), rows, (20, 20, 12, 48))


def build_list() -> str:
    """List the builds of PyTorch that can be installed."""
    rows = []
    for name, title in BUILDS.items():
        rows.append(f"- ``{name}``: {escaped(title)}" + (f"; {NEEDED_GB[name]:g} GB" if name in NEEDED_GB else ""))
    return "\n".join(rows) + "\n"


def substitutions() -> str:
    """Give numbers that stand in the text."""
    return "".join(f".. |gb-{name}| replace:: {number:g} GB\n" for name, number in NEEDED_GB.items())


def weights_table() -> str:
    """Give the pretrained weights as a table."""
    rows = []
    for name, entry in WEIGHTS.items():
        waves = zip(entry.bands, entry.wavelengths_nm, strict=True)
        bands = ", ".join(f"{band} {'(panchromatic)' if nm is None else f'{nm:g}'}" for band, nm in waves)
        file = f"`{entry.file_name} <{entry.url}>`__" if entry.url else "none"
        texts = (bands and f"{bands} nm", entry.values or "as the dataset says", entry.source, entry.licence)
        rows.append((f"``{name}``", *(escaped(text) or "none" for text in texts), file))
    return _table(("Name", "Bands", "Sees", "Source", "Licence", "File"), rows, (20, 20, 15, 20, 8, 17))


def escaped(text: str) -> str:
    """Keep characters that mean something in reStructuredText from doing so."""
    return text.replace("\\", "\\\\").replace("*", "\\*").replace("_", "\\_").replace("`", "\\`").replace("|", "\\|")


def linked(text: str, names: set[str]) -> str:
    """Escape a text and link the parameters in it to their rows."""
    return "".join(
        f"\\ :to-parameter:`{part}`\\ " if part in names else escaped(part)
        for part in re.split(r"\b([A-Z][A-Z_]{2,})\b", text)
    )


def _linked_plain(text: str, names: set[str]) -> str:
    """Link the parameters in a text that is reStructuredText already."""
    return "".join(
        f"\\ :to-parameter:`{part}`\\ " if part in names else part
        for part in re.split(r"(?<!`)\b([A-Z][A-Z_]{2,})\b(?!`)", text)
    )


def _minus(number: float) -> str:
    return f"{number:g}".replace("-", "−")


def _section(title: str, text: str) -> str:
    return f"{title}\n{'-' * len(title)}\n\n{text}"


def _table(header: Row, rows: Iterable[Row], widths: Sequence[int]) -> str:
    """Make a table whose cells may hold several paragraphs."""
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {' '.join(map(str, widths))}", ""]
    for row in (header, *rows):
        for column, cell in enumerate(row):
            first, *others = cell.split("\n")
            lines.append(f"   {'*' if column == 0 else ' '} - {first}".rstrip())
            lines += [f"       {line}".rstrip() for line in others]
    return "\n".join(lines) + "\n"
