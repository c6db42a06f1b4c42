# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation is true: commands, job files, quoted messages, tables and pictures agree with the code."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from specdeepmap.core.jobs import JOBS, job_from_json
from specdeepmap.core.learn.architectures import ARCHITECTURES
from specdeepmap.core.learn.losses import LOSSES
from specdeepmap.core.learn.weights import WEIGHTS
from specdeepmap.core.record import check_value, parse_number, spec_of

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "specdeepmap"

PAGES = sorted(path for path in DOCS.rglob("*.rst") if not {"_build", "generated"} & set(path.parts))
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in [*PAGES, ROOT / "README.rst"]}

ALGORITHMS = ("rastersplitter", "datasetmaker", "trainer", "tensorboard", "tester", "mapper")
MODELS = ("from_labels_to_map", "train_and_map")

SHOWN_BY_QGIS = {"LOAD_TABLES"}
"""Parameters that no job has."""


def load_tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_tables", DOCS / "tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS)
        spec.loader.exec_module(module)
    return module


TABLES = load_tables()
VERBS = {page: verb for verb, page in TABLES.PAGES.items()}


def asked(verb: str) -> dict[str, dataclasses.Field[object]]:
    return {field.name.upper(): field for field in dataclasses.fields(JOBS[verb]) if spec_of(field) is not None}


# Pages and tables


def test_each_algorithm_has_a_page_that_its_help_button_finds() -> None:
    assert set(TABLES.PAGES) == set(JOBS)
    assert {path.stem for path in (DOCS / "algorithms").glob("*.rst")} == {*ALGORITHMS, "index"}
    assert tuple(VERBS) == ALGORITHMS


@pytest.mark.parametrize("page", ALGORITHMS)
def test_page_shows_the_dialog_a_command_a_job_and_its_own_table(page: str) -> None:
    text = TEXTS[f"docs/algorithms/{page}.rst"]
    assert f"../images/dialog_{page}.png" in text
    assert f"qgis_process run specdeepmap:{page} -- " in text
    assert re.search(rf'"job": "{VERBS[page]}"', text)
    assert f".. include:: ../generated/{VERBS[page]}.txt" in text


@pytest.mark.parametrize("verb", JOBS)
def test_table_has_every_parameter_and_output(verb: str) -> None:
    text = TABLES.job_page(verb, JOBS[verb])
    inputs, _, outputs = text.partition("Outputs\n-------\n")
    for name, field in asked(verb).items():
        spec = spec_of(field)
        assert spec is not None
        row = inputs[inputs.index(f":parameter:`{name}`") :].split("\n   * - ")[0]
        assert TABLES.KINDS[spec.kind] in row, name
        assert TABLES.default_text(field) in row, name
        for option, title in (spec.options() if spec.options else {}).items():
            assert f"- ``{option}``: {TABLES.escaped(title)}" in row, name
        plain = re.sub(r"\\ :to-parameter:`(\w+)`\\ ", r"\1", row)
        assert TABLES.escaped(spec.help).replace("\\_", "_") in plain.replace("\\_", "_"), name
    for field in dataclasses.fields(JOBS[verb].result):
        if spec_of(field) is not None:
            row = outputs[outputs.index(f"``{field.name.upper()}``") :].split("\n   * - ")[0]
            assert len(row.splitlines()[-1].strip()) > len("- x"), field.name


@pytest.mark.parametrize("verb", JOBS)
def test_every_output_is_explained_and_nothing_else(verb: str) -> None:
    outputs = {field.name for field in dataclasses.fields(JOBS[verb].result) if spec_of(field) is not None}
    assert set(TABLES.MEANINGS[verb]) == outputs


@pytest.mark.parametrize("verb", JOBS)
def test_numbers_show_their_bounds(verb: str) -> None:
    for field in asked(verb).values():
        spec = spec_of(field)
        assert spec is not None
        for bound in (spec.minimum, spec.above, spec.maximum):
            if bound is not None:
                assert f"{bound:g}".replace("-", "−") in TABLES.limits(spec), field.name


def test_option_tables_have_every_entry() -> None:
    made = (TABLES.architecture_table(), TABLES.loss_table(), TABLES.weights_table())
    for table, text in zip((ARCHITECTURES, LOSSES, WEIGHTS), made, strict=True):
        for name in table:
            assert f"``{name}``" in text


def test_parameter_that_only_qgis_has_is_shown_where_the_algorithm_has_it() -> None:
    assert TABLES.load_tables().name == "load_tables"
    with_tables = TABLES.algorithms_with_tables()
    assert with_tables
    for verb, page in TABLES.PAGES.items():
        assert (":parameter:`LOAD_TABLES`" in TABLES.job_page(verb, JOBS[verb])) == (page in with_tables)


# Commands


def commands() -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Yield each ``qgis_process`` command: where it stands, the algorithm, names and values."""
    for place, text in TEXTS.items():
        joined = re.sub(r"\\\n\s+", "", text)
        for algorithm, rest in re.findall(r"run \"?specdeepmap:(\w+)\"? -- (.*)", joined):
            yield place, algorithm, re.findall(r"([A-Za-z_]+)=(\"[^\"]*\"|[^\s`]+)", rest)


def test_there_are_commands_for_all() -> None:
    assert {algorithm for _, algorithm, _ in commands()} == {*ALGORITHMS, *MODELS}


def test_ids_exist() -> None:
    for place, text in TEXTS.items():
        for name in re.findall(r"specdeepmap:(\w+)", text):
            assert name in (*ALGORITHMS, *MODELS), (place, name)


def test_commands_name_parameters_that_exist_with_values_that_are_allowed() -> None:
    for place, algorithm, pairs in commands():
        if algorithm in MODELS:
            continue
        fields = asked(VERBS[algorithm])
        for name, value in pairs:
            assert name in fields or name in SHOWN_BY_QGIS, (place, name)
            spec = spec_of(fields[name])
            assert spec is not None
            if spec.kind in ("integer", "number"):
                check_value(name, parse_number(name, value, whole=spec.kind == "integer"), spec)
            elif spec.kind == "choice":
                check_value(name, value, spec)
            elif spec.kind == "flag":
                assert value in ("true", "false"), (place, name)


def test_commands_give_what_must_be_given() -> None:
    for place, algorithm, pairs in commands():
        if algorithm in MODELS or "…" in str(pairs) or not pairs:
            continue
        wanted = {name for name, field in asked(VERBS[algorithm]).items() if field.default is dataclasses.MISSING}
        assert wanted <= {name for name, _ in pairs}, (place, algorithm)


def test_commands_of_models_name_their_inputs_and_outputs() -> None:
    for place, algorithm, pairs in commands():
        if algorithm in MODELS:
            model = (PACKAGE / "models" / f"{algorithm}.model3").read_text(encoding="utf-8")
            for name, _ in pairs:
                # An input stands under its name; the id of an output is its name, too.
                assert re.search(rf'(name|parameter_name|id)="?[^>]*"{name}"', model), (place, algorithm, name)


def test_values_in_the_text_exist() -> None:
    """``SPLIT=blocks``, anywhere."""
    every: dict[str, list[object]] = {}
    for verb in JOBS:
        for name, field in asked(verb).items():
            every.setdefault(name, []).append(spec_of(field))
    for place, text in TEXTS.items():
        for name, value in re.findall(r"``([A-Z][A-Z_]+)=([\w.+-]+)``", text):
            if name.startswith(("PIP_", "HTTPS_", "QGIS_")):
                continue
            assert name in every, (place, name)
            for spec in every[name]:
                options = getattr(spec, "options", None)
                if options is not None:
                    assert value in options(), (place, name, value)


def test_names_in_capitals_are_parameters() -> None:
    known = {name for verb in JOBS for name in asked(verb)} | SHOWN_BY_QGIS
    known |= {field.name.upper() for job in JOBS.values() for field in dataclasses.fields(job.result)}
    known |= {
        "SPECDEEPMAP_PYTHON",
        "SPECDEEPMAP_CACHE",
        "PYTHONPATH",
        "TMPDIR",
        "HTTPS_PROXY",
        "GDAL_VRT_ENABLE_PYTHON",
    }  # variables of the system
    known |= {"MODEL", "MODEL_NETWORK", "MODEL_DATE", "TIFFTAG_SOFTWARE", "TIFFTAG_DATETIME"}  # metadata of maps
    known |= {"ARCHITECTURES", "LOSSES", "WEIGHTS", "AUGMENTATIONS", "MEANINGS"}  # tables in the code
    for place, text in TEXTS.items():
        for name in re.findall(r"``([A-Z][A-Z_]{3,})``", text):
            assert name in known, (place, name)


# Job files


def job_files() -> Iterator[tuple[str, dict[str, object]]]:
    for place, text in TEXTS.items():
        for block in re.findall(r"^( *)(\{(?:.*\n)+?)(?=\n\S|\n\n *[^\s\"{}\[]|\Z)", text, re.MULTILINE):
            source = block[1][: block[1].rindex("}") + 1]
            if '"job"' in source:
                yield place, json.loads(source)


def test_job_files_are_accepted() -> None:
    seen = set()
    for place, values in job_files():
        job = job_from_json(values)
        seen.add(job.verb)
        assert job_from_json({"job": job.verb, **job.to_json()}) == job, place
    assert seen == set(JOBS)


def test_no_job_file_is_overlooked() -> None:
    assert len(list(job_files())) == sum(text.count('"job": "') for text in TEXTS.values())


# Messages


def said_in_code() -> list[str]:
    """Give all texts of the package; what differs in them is an ellipsis."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                found.append("".join(str(part) for part in parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def quoted_messages() -> Iterator[tuple[str, str]]:
    """Yield the messages that stand as terms of definition lists."""
    for place in ("docs/troubleshooting.rst", "docs/install.rst"):
        for message in re.findall(r"^``(.+)``\n   \S", TEXTS[place], re.MULTILINE):
            yield place, message


def test_messages_in_the_pages_are_said_in_the_code() -> None:
    said = said_in_code()
    messages = list(quoted_messages())
    assert len(messages) > 30
    for place, message in messages:
        fragments = [re.escape(part) for part in message.split("…") if part.strip(" .:'()%")]
        pattern = re.compile(".*".join(fragments), re.DOTALL)
        assert any(pattern.search(text) for text in said), (place, message)


# Pictures and links


def test_pictures_have_a_text_and_one_place() -> None:
    for place, text in TEXTS.items():
        figures = re.findall(r"\.\. (?:figure|image):: (\S+)\n(.*)", text)
        for picture, next_line in figures:
            assert re.search(r":alt: .{15,}", next_line), (place, picture)
            folder = (ROOT / place).parent
            assert (folder / picture).resolve().parent == DOCS / "images", (place, picture)


def test_pictures_exist() -> None:
    missing = {
        picture
        for place, text in TEXTS.items()
        for picture in re.findall(r"\.\. (?:figure|image):: (\S+)", text)
        if not ((ROOT / place).parent / picture).is_file()
    }
    assert not missing


def test_no_page_needs_the_internet() -> None:
    for path in [*DOCS.glob("_static/*"), DOCS / "conf.py"]:
        assert "http" not in path.read_text(encoding="utf-8"), path


def test_picture_of_the_house_has_every_module() -> None:
    text = TEXTS["docs/architecture.rst"]
    modules = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    missing = [path.relative_to(PACKAGE).as_posix() for path in modules if not re.search(rf"\b{path.name}\b", text)]
    assert not missing


# The whole


def build(folder: Path, seed: int) -> Path:
    """Build the pages, with a seed of Python's hashes, and a date, of their own."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(folder / "doctrees")]
    changes = {"PYTHONHASHSEED": str(seed), "SOURCE_DATE_EPOCH": str(seed * 10**8)}
    done = subprocess.run(
        [*command, str(DOCS), str(folder / "html")],
        env={**os.environ, **changes},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("docs"), seed=1)


def test_pages_build_without_a_warning(built: Path) -> None:
    for page in ("index", "install", "tutorial", *(f"algorithms/{name}" for name in ALGORITHMS)):
        assert (built / f"{page}.html").is_file(), page


def test_built_pages_load_nothing_from_elsewhere(built: Path) -> None:
    for page in built.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<(?:script|img|link|iframe)[^>]+(?:src|href)=\"(?:https?:)?//", text), page


def test_pages_are_the_same_bytes_each_time(built: Path, tmp_path: Path) -> None:
    again = build(tmp_path, seed=11)
    files = {path.relative_to(built): path.read_bytes() for path in built.rglob("*") if path.is_file()}
    assert files == {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()}


def test_built_pages_do_not_tell_where_they_were_built(built: Path) -> None:
    for page in built.rglob("*.html"):
        assert str(ROOT) not in page.read_text(encoding="utf-8"), page


def test_links_lead_to_something(built: Path) -> None:
    for page in built.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"<a [^>]*href=\"([^\"]*)\"", text):
            file, _, anchor = target.partition("#")
            if file.startswith(("http", "mailto")):
                continue
            there = (page.parent / file).resolve() if file else page
            assert there.is_file(), (page.name, target)
            if anchor and there.suffix == ".html":
                assert f'id="{anchor}"' in there.read_text(encoding="utf-8"), (page.name, target)
