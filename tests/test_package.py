# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of package.py: the zip for a release, by the rules of QGIS's plugin site, and the link for development."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import package
from tests.release import pages, release, unpacked

ALGORITHMS = ("rastersplitter", "datasetmaker", "trainer", "tensorboard", "tester", "mapper")

# The plugin site runs Bandit on what is uploaded, and blocks it for findings of medium and high severity, and for
# those of the tests that it calls critical, whatever their severity: here those that can be found in a plugin of ours.
CRITICAL = (
    *("B102", "B103", "B105", "B106", "B107", "B201", "B202", "B301", "B302", "B304", "B305", "B306", "B307"),
    *("B321", "B323", "B401", "B402", "B412", "B413", "B501", "B502", "B503", "B505", "B506", "B507", "B601"),
    *("B602", "B604", "B605", "B609", "B612", "B613", "B615", "B701"),
)
ASSERT = "B101"

TEXTS = {".py", ".txt", ".rst", ".html", ".css", ".js", ".svg", ".qml", ".model3"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small repository with everything that the zip shall hold, and something that it shall not."""
    root = tmp_path / "check out é"
    for name, text in {
        "metadata.txt": "[general]\nname=SpecDeepMap\nversion=1.2.3\n",
        "requirements.txt": "numpy\n",
        "CHANGELOG.rst": "Changes\n",
        "LICENSE": "GPL\n",
        "tests/test_it.py": "",
        "specdeepmap/__init__.py": "",
        "specdeepmap/core/run.py": "run\n",
        "specdeepmap/core/__pycache__/run.cpython-311.pyc": "cache",
        "specdeepmap/core/.hidden": "",
        "specdeepmap/core/half.part": "",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (root / "specdeepmap" / "metadata.txt").symlink_to("../metadata.txt")
    return root


@pytest.fixture
def html(tmp_path: Path) -> Path:
    """Built help pages, with what Sphinx writes beside them."""
    folder = tmp_path / "html"
    for name in ("index.html", "algorithms/trainer.html", "_static/basic.css", "searchindex.js"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    for name in (".buildinfo", "objects.inv", "_sources/index.rst.txt", ".doctrees/environment.pickle"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("of no use to readers", encoding="utf-8")
    return folder


def test_zip_holds_the_plugin_its_pages_and_nothing_else(checkout: Path, html: Path) -> None:
    stale = checkout / "specdeepmap" / "help" / "gone.html"
    stale.parent.mkdir()
    stale.write_text("a page of another time", encoding="utf-8")
    made = package.make_zip(html, checkout)
    assert made == checkout / "dist" / "specdeepmap-1.2.3.zip"
    with zipfile.ZipFile(made) as archive:
        assert archive.namelist() == [
            "specdeepmap/CHANGELOG.rst",
            "specdeepmap/LICENSE",
            "specdeepmap/__init__.py",
            "specdeepmap/core/run.py",
            "specdeepmap/help/_static/basic.css",
            "specdeepmap/help/algorithms/trainer.html",
            "specdeepmap/help/index.html",
            "specdeepmap/help/searchindex.js",
            "specdeepmap/metadata.txt",
            "specdeepmap/requirements.txt",
        ]
        assert archive.read("specdeepmap/metadata.txt") == (checkout / "metadata.txt").read_bytes()
        assert all(stat.S_ISREG(entry.external_attr >> 16) for entry in archive.infolist())
    assert [path.name for path in made.parent.iterdir()] == [made.name]


def test_same_files_give_the_same_bytes(checkout: Path, html: Path, tmp_path: Path) -> None:
    copy, again = tmp_path / "copy", tmp_path / "again"
    shutil.copytree(checkout, copy, symlinks=True, copy_function=shutil.copyfile)
    shutil.copytree(html, again, copy_function=shutil.copyfile)
    assert package.make_zip(html, checkout).read_bytes() == package.make_zip(again, copy).read_bytes()


def test_zip_that_is_too_large_is_refused(checkout: Path, html: Path) -> None:
    with pytest.raises(SystemExit, match="MB at most"):
        package.make_zip(html, checkout, most_bytes=100)
    assert not list((checkout / "dist").iterdir())


def test_missing_file_is_named(checkout: Path, html: Path) -> None:
    (checkout / "LICENSE").unlink()
    with pytest.raises(SystemExit, match="LICENSE"):
        package.make_zip(html, checkout)


def test_without_sphinx_the_zip_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"Sphinx.*'make zip'.*requirements-dev\.txt"):
        package.build_pages(tmp_path / "html")


def test_faulty_pages_stop_the_zip(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "conf.py").write_text("", encoding="utf-8")
    (docs / "index.rst").write_text("Title\n=====\n\n:doc:`nowhere`\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="found faults"):
        package.build_pages(tmp_path / "html", tmp_path)


# The zip of this checkout


def test_pages_are_the_same_bytes_from_another_place_at_another_time(tmp_path: Path) -> None:
    copy = tmp_path / "another place"
    for name in ("docs", "specdeepmap"):
        shutil.copytree(package.ROOT / name, copy / name, ignore=shutil.ignore_patterns("_build", "__pycache__"))
    for name in package.EXTRAS:
        shutil.copyfile(package.ROOT / name, copy / name)
    again = package.build_pages(tmp_path / "html", copy)
    names = {path.relative_to(again) for path in package._pages(again)}
    assert names == {path.relative_to(pages()) for path in package._pages(pages())}
    assert [name for name in sorted(names) if (again / name).read_bytes() != (pages() / name).read_bytes()] == []


def test_zip_fits_the_plugin_site() -> None:
    assert release().stat().st_size <= package.MOST_BYTES
    with zipfile.ZipFile(release()) as archive:
        entries = archive.infolist()
    names = {entry.filename for entry in entries}
    needed = ("LICENSE", "metadata.txt", "icon.svg", "core/run.py", "models/train_and_map.model3")
    assert {f"specdeepmap/{name}" for name in needed} <= names
    assert {name.split("/")[0] for name in names} == {"specdeepmap"}
    assert not [entry.filename for entry in entries if (entry.external_attr >> 16) & 0o111]  # none is a program


def test_zip_holds_nothing_hidden_nothing_compiled_and_no_pictures_but_those_of_the_pages() -> None:
    strange = []
    for path in unpacked().rglob("*"):
        name = path.relative_to(unpacked() / "specdeepmap").as_posix() if path != unpacked() / "specdeepmap" else ""
        if path.is_dir() or name == "LICENSE":
            continue
        if path.suffix == ".png" and name.startswith("help/") and path.read_bytes().startswith(b"\x89PNG"):
            continue
        if path.name.startswith(".") or path.suffix not in TEXTS or b"\0" in path.read_bytes():
            strange.append(name)
    assert strange == []


def test_zip_holds_a_page_for_every_help_button() -> None:
    for page in ("index", "models", *(f"algorithms/{name}" for name in ALGORITHMS)):
        assert (unpacked() / "specdeepmap" / "help" / f"{page}.html").is_file(), page


def test_pages_need_no_internet_and_lead_to_pages_that_are_there() -> None:
    for page in (unpacked() / "specdeepmap" / "help").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"""<(?:script|img|link)[^>]*(?:src|href)=["'](?:https?:)?//""", text), page
        links = re.findall(r"""(?:src|href)=["']([^"'#:?]+)[#?"']""", text)
        assert [link for link in links if not (page.parent / link).exists()] == [], page


def test_bandit_finds_nothing_that_the_plugin_site_would_block() -> None:
    command = [sys.executable, "-m", "bandit", "-q", "-f", "json", "--ignore-nosec", "-r", str(unpacked())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["errors"] == []
    assert len(report["metrics"]) > 50  # it looked at all modules
    blocking = [
        f"{finding['test_id']} {finding['filename']}:{finding['line_number']} {finding['issue_text']}"
        for finding in report["results"]
        if finding["issue_severity"] in ("MEDIUM", "HIGH") or finding["test_id"] in (*CRITICAL, ASSERT)
    ]
    assert blocking == []


# The link


def test_link_leads_to_the_checkout(checkout: Path, tmp_path: Path) -> None:
    profile = tmp_path / "profile"
    made = package.link(profile, checkout)
    assert made == profile / "python" / "plugins" / "specdeepmap"
    assert made.is_symlink()
    assert made.samefile(checkout / "specdeepmap")


def test_link_replaces_a_link_also_a_broken_one(checkout: Path, tmp_path: Path) -> None:
    plugins = tmp_path / "profile" / "python" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "specdeepmap").symlink_to(tmp_path / "gone")
    assert package.link(tmp_path / "profile", checkout).samefile(checkout / "specdeepmap")
    assert package.link(tmp_path / "profile", checkout).samefile(checkout / "specdeepmap")


def test_link_never_replaces_an_installed_plugin(checkout: Path, tmp_path: Path) -> None:
    installed = tmp_path / "profile" / "python" / "plugins" / "specdeepmap"
    installed.mkdir(parents=True)
    (installed / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(SystemExit, match="is no link"):
        package.link(tmp_path / "profile", checkout)
    assert (installed / "mine.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("platform", "environ", "expected"),
    [
        ("linux", {"HOME": "home"}, "home/.local/share/QGIS/QGIS3/profiles/default"),
        ("linux", {"HOME": "home", "XDG_DATA_HOME": "data"}, "data/QGIS/QGIS3/profiles/default"),
        ("darwin", {"HOME": "home"}, "home/Library/Application Support/QGIS/QGIS3/profiles/default"),
        ("win32", {"USERPROFILE": "me", "APPDATA": "roaming"}, "roaming/QGIS/QGIS3/profiles/default"),
        ("linux", {"HOME": "home", "QGIS_CUSTOM_CONFIG_PATH": "own"}, "own/profiles/default"),
    ],
)
def test_default_profile_lies_where_qgis_keeps_it(platform: str, environ: dict[str, str], expected: str) -> None:
    assert package.default_profile(environ, platform) == Path(expected)


def test_command_line_links_into_a_given_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert package.main(["link", "--profile", str(tmp_path)]) == 0
    made = tmp_path / "python" / "plugins" / "specdeepmap"
    assert capsys.readouterr().out == f"{made}\n"
    assert made.samefile(package.ROOT / "specdeepmap")
