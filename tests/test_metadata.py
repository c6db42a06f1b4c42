# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of metadata.txt: what QGIS and its plugin site ask of it."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
METADATA = ROOT / "metadata.txt"
PLUGIN = ROOT / "specdeepmap"


@pytest.fixture
def general() -> configparser.SectionProxy:
    # Read as QGIS does: a lone percent sign and a key that stands twice are errors.
    metadata = configparser.ConfigParser()
    metadata.read_string(METADATA.read_text(encoding="utf-8"))
    return metadata["general"]


@pytest.mark.parametrize(
    "key",
    [
        "name",
        "version",
        "description",
        "about",
        "author",
        "email",
        "qgisMinimumVersion",
        "qgisMaximumVersion",
        "homepage",
        "repository",
        "tracker",
        "category",
        "icon",
        "tags",
        "hasProcessingProvider",
        "experimental",
        "deprecated",
        "server",
    ],
)
def test_required_key_is_filled_in(general: configparser.SectionProxy, key: str) -> None:
    assert general[key].strip()


def test_file_has_no_percent_sign_and_no_inline_comment() -> None:
    text = METADATA.read_text(encoding="utf-8")
    assert "%" not in text
    assert not re.search(r"\s[#;]\s", text)


def test_no_key_stands_twice() -> None:
    keys = re.findall(r"^(\w+)\s*=", METADATA.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(keys) == sorted(set(keys))


def test_qgis_finds_the_provider(general: configparser.SectionProxy) -> None:
    assert general["hasProcessingProvider"] == "yes"
    assert general["qgisMinimumVersion"] == "3.40"


def test_icon_lies_in_the_plugin(general: configparser.SectionProxy) -> None:
    assert (PLUGIN / general["icon"]).read_text(encoding="utf-8").startswith("<svg")


def test_version_is_the_top_entry_of_the_change_log(general: configparser.SectionProxy) -> None:
    changes = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8")
    titles = re.findall(r"^(\d\S*)(?: \(.*\))?\n-+$", changes, re.MULTILINE)
    assert titles[0] == general["version"]


@pytest.mark.parametrize("name", ["metadata.txt", "requirements.txt"])
def test_link_in_the_plugin_is_relative(name: str) -> None:
    link = PLUGIN / name
    assert link.is_symlink()
    assert link.readlink() == Path("..", name)
    assert link.read_bytes() == (ROOT / name).read_bytes()
