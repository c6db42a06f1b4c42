# SPDX-License-Identifier: GPL-3.0-or-later
"""The entry in EnMAP-Box, with a stand-in for EnMAP-Box itself, which is not installed here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import specdeepmap
from tests.desktop import NAMES

pytestmark = pytest.mark.gui

TITLES = [
    "Raster Splitter",
    "Dataset Maker",
    "Deep Learning Trainer",
    "TensorBoard Launcher",
    "Deep Learning Tester",
    "Deep Learning Mapper",
    "",
    "From labels to map",
    "Train and map",
    "",
    "Set up deep-learning environment…",
]
"""The entries of the menu; separators have no text."""


class EnMAPBox:
    """What our application calls of it."""

    def __init__(self) -> None:
        self.ui: Any = None
        self.opened: list[tuple[str, dict[str, Any]]] = []

    def showProcessingAlgorithmDialog(self, algorithm: str, **options: Any) -> None:  # noqa: N802
        self.opened.append((algorithm, options))


@pytest.fixture
def box(qgis: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[EnMAPBox]:
    from qgis.PyQt.QtCore import QObject

    class EnMAPBoxApplication(QObject):
        def __init__(self, enmapBox: Any, parent: Any = None) -> None:  # noqa: N803
            super().__init__(parent)
            self.enmapbox, self.name, self.version, self.licence = enmapBox, None, None, None

    for name in ("enmapbox", "enmapbox.gui", "enmapbox.gui.applications"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["enmapbox.gui.applications"].EnMAPBoxApplication = EnMAPBoxApplication  # type: ignore[attr-defined]
    monkeypatch.delitem(sys.modules, "specdeepmap.enmapbox", raising=False)
    yield EnMAPBox()
    sys.modules.pop("specdeepmap.enmapbox", None)


@pytest.fixture
def application(box: EnMAPBox) -> Any:
    (made,) = specdeepmap.enmapboxApplicationFactory(box)
    return made


def test_menu_has_algorithms_in_the_order_of_work_models_and_the_environment(application: Any, box: EnMAPBox) -> None:
    from qgis.PyQt.QtWidgets import QMenu

    assert (application.name, application.version) == ("SpecDeepMap", specdeepmap.__version__)
    assert application.licence == "GNU GPL-3"
    bar = QMenu()
    menu = application.menu(bar)
    assert menu.title() == "SpecDeepMap"
    assert not menu.icon().isNull()
    assert [action.menu() for action in bar.actions()] == [menu]
    assert [action.text() for action in menu.actions()] == TITLES
    for action in menu.actions()[:-1]:
        action.trigger()
    wanted = [*NAMES, "from_labels_to_map", "train_and_map"]
    assert [name for name, _ in box.opened] == [f"specdeepmap:{name}" for name in wanted]
    assert all(options.get("modal") is False for _, options in box.opened)


def test_every_entry_has_an_icon_of_its_kind(application: Any) -> None:
    from qgis.PyQt.QtWidgets import QMenu

    bar = QMenu()  # deletes its menus when it goes
    entries = [action for action in application.menu(bar).actions() if not action.isSeparator()]
    pictures = [action.icon().pixmap(16, 16).toImage() for action in entries]
    assert not any(picture.isNull() for picture in pictures)
    assert [pictures.index(picture) for picture in pictures] == [0, 1, 2, 3, 4, 5, 6, 6, 8], "models share theirs"


def test_last_entry_opens_the_window_of_the_environment(
    application: Any, box: EnMAPBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qgis.PyQt.QtWidgets import QMenu, QWidget

    window = ModuleType("specdeepmap.gui.environment_dialog")
    parents: list[Any] = []
    window.open_dialog = parents.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, window.__name__, window)
    box.ui = QWidget()
    bar = QMenu()
    application.menu(bar).actions()[-1].trigger()
    assert parents == [box.ui]


def test_application_lists_no_processing_algorithms_twice(application: Any) -> None:
    own = type(application).__dict__.get("processingAlgorithms")
    assert own is None or application.processingAlgorithms() == []


@pytest.fixture
def setting(qgis: Any) -> Iterator[Any]:
    """Read EnMAP-Box's list of application folders; it lies in the profile of the session."""
    from qgis.core import QgsSettings

    def read() -> list[str]:
        value = QgsSettings("EnMAP", "EnMAP-Box").value("EMB_APPLICATION_PATH", "")
        return [entry for entry in str(value or "").split(";") if entry]

    yield read
    QgsSettings("EnMAP", "EnMAP-Box").remove("EMB_APPLICATION_PATH")


@pytest.mark.parametrize("others", [[], ["/opt/one", "C:/two with space"]])
def test_plugin_announces_its_folder_and_takes_it_back(qgis: Any, setting: Any, others: list[str]) -> None:
    from qgis.core import QgsSettings

    from specdeepmap.plugin import SpecDeepMapPlugin

    own = str(Path(specdeepmap.__file__).resolve().parent)
    QgsSettings("EnMAP", "EnMAP-Box").setValue("EMB_APPLICATION_PATH", ";".join(others))
    plugin = SpecDeepMapPlugin(None)
    plugin.initProcessing = lambda: None  # type: ignore[method-assign] - the session's provider stays the only one
    plugin.initGui()
    assert setting() == [*others, own]
    plugin.initGui()
    assert setting() == [*others, own]  # once is enough
    plugin.unload()
    assert setting() == others


def test_a_plugin_without_enmapbox_never_imports_it(qgis: Any) -> None:
    assert not any(name == "enmapbox" or name.startswith("enmapbox.") for name in sys.modules)


def test_unloading_takes_the_provider_out(qgis: Any, setting: Any) -> None:
    """Done to a second plugin whose provider has another id, since the session needs the first."""
    from qgis.core import QgsApplication

    from specdeepmap.plugin import SpecDeepMapPlugin
    from specdeepmap.provider import SpecDeepMapProvider

    class Second(SpecDeepMapProvider):
        def id(self) -> str:
            return "specdeepmap_second"

    from processing.gui.AlgorithmDialog import AlgorithmDialog

    registry = QgsApplication.processingRegistry()
    plugin = SpecDeepMapPlugin(None)
    plugin.provider = Second()
    assert registry.addProvider(plugin.provider)
    names = ("specdeepmap_second:rastersplitter", "specdeepmap_second:mapper", "specdeepmap:rastersplitter")
    _, working, other = dialogs = [AlgorithmDialog(registry.createAlgorithmById(name)) for name in names]
    for dialog in dialogs:
        dialog.show()
    working.cancelButton().setEnabled(True)  # as it is while it runs
    plugin.unload()
    assert [dialog.isVisible() for dialog in dialogs] == [False, True, True], "a click on Run would crash QGIS"
    for dialog in (working, other):
        dialog.cancelButton().setEnabled(False)
        dialog.close()
    assert registry.providerById("specdeepmap_second") is None
    assert registry.providerById("specdeepmap") is not None
