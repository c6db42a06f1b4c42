# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of package.py: the zip for a release and the link for development."""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path

import pytest

import package


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


def test_zip_holds_the_plugin_and_nothing_else(checkout: Path) -> None:
    made = package.make_zip(checkout)
    assert made == checkout / "dist" / "specdeepmap-1.2.3.zip"
    with zipfile.ZipFile(made) as archive:
        assert archive.namelist() == [
            "specdeepmap/CHANGELOG.rst",
            "specdeepmap/LICENSE",
            "specdeepmap/__init__.py",
            "specdeepmap/core/run.py",
            "specdeepmap/metadata.txt",
            "specdeepmap/requirements.txt",
        ]
        assert archive.read("specdeepmap/metadata.txt") == (checkout / "metadata.txt").read_bytes()
        assert all(stat.S_ISREG(entry.external_attr >> 16) for entry in archive.infolist())
    assert [path.name for path in made.parent.iterdir()] == [made.name]


def test_same_files_give_the_same_bytes(checkout: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkout, copy, symlinks=True, copy_function=shutil.copyfile)
    assert package.make_zip(checkout).read_bytes() == package.make_zip(copy).read_bytes()


def test_zip_that_is_too_large_is_refused(checkout: Path) -> None:
    with pytest.raises(SystemExit, match="MB at most"):
        package.make_zip(checkout, most_bytes=100)
    assert not list((checkout / "dist").iterdir())


def test_missing_file_is_named(checkout: Path) -> None:
    (checkout / "LICENSE").unlink()
    with pytest.raises(SystemExit, match="LICENSE"):
        package.make_zip(checkout)


def test_this_checkout_fits_the_plugin_site(tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    root.mkdir()
    for name in (*package.EXTRAS, package.PLUGIN):
        (root / name).symlink_to(package.ROOT / name)
    with zipfile.ZipFile(package.make_zip(root)) as archive:
        names = archive.namelist()
    needed = ("LICENSE", "metadata.txt", "icon.svg", "core/run.py")
    assert {f"specdeepmap/{name}" for name in needed} <= set(names)
    assert {name.split("/")[0] for name in names} == {"specdeepmap"}


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
