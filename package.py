# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the plugin's zip for a release, or link this checkout into a QGIS profile for development.

::

    python package.py zip
    python package.py link [--profile FOLDER]

Needs the standard library only; ``zip`` needs Sphinx, too, which builds the help pages.
"""

from __future__ import annotations

import argparse
import configparser
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from specdeepmap.core.environment import profile_environment

ROOT = Path(__file__).resolve().parent
PLUGIN = "specdeepmap"
EXTRAS = ("CHANGELOG.rst", "LICENSE", "metadata.txt", "requirements.txt")
"""Files of the repository that the plugin's folder in the zip holds, too."""

HELP = "help"
"""The folder in the plugin's that holds the help pages, which the dialogs' Help buttons open."""

MOST_BYTES = 25_000_000
"""The plugin site takes no larger zip."""

_TIME = (1980, 1, 1, 0, 0, 0)  # the same in every zip, so that the same files give the same bytes


def version(root: Path = ROOT) -> str:
    """Read the plugin's version from metadata.txt."""
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read(root / "metadata.txt", encoding="utf-8")
    return metadata["general"]["version"]


def build_pages(target: Path, root: Path = ROOT) -> Path:
    """Build the help pages from ``docs``; the same sources and tools give the same bytes.

    Args:
        target: a folder that is made.
        root: the checkout.

    Returns:
        The folder.

    Raises:
        SystemExit: if Sphinx is missing, or finds faults.
    """
    if importlib.util.find_spec("sphinx") is None:
        raise SystemExit(
            f"The zip was not made: Sphinx, which builds its help pages, is missing in {sys.executable}. Run 'make "
            "zip', which brings it along, or install what requirements-dev.txt names and try again."
        )
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", cache]
        # A fixed date and fixed hashes, so that no page and no index differs from one build to the next.
        environ = {**os.environ, "SOURCE_DATE_EPOCH": "315532800", "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
        done = subprocess.run([*command, str(root / "docs"), str(target)], env=environ, check=False)  # noqa: S603
    if done.returncode != 0:
        raise SystemExit("The zip was not made: Sphinx found faults in docs/, which are named above.")
    return target


def make_zip(pages: Path, root: Path = ROOT, most_bytes: int = MOST_BYTES) -> Path:
    """Write ``dist/specdeepmap-<version>.zip``: one folder, links as real files, always the same bytes.

    Args:
        pages: the folder with the built help pages.
        root: the checkout.
        most_bytes: a larger zip is refused.

    Raises:
        SystemExit: if a file is missing, or the zip is too large for the plugin site.
    """
    files = {f"{PLUGIN}/{path.relative_to(root / PLUGIN).as_posix()}": path for path in _plugin_files(root)}
    files.update({f"{PLUGIN}/{name}": root / name for name in EXTRAS})
    files.update({f"{PLUGIN}/{HELP}/{path.relative_to(pages).as_posix()}": path for path in _pages(pages)})
    missing = sorted(str(path) for path in files.values() if not path.is_file())
    if missing:
        raise SystemExit(f"The zip was not made: these files are missing: {', '.join(missing)}.")
    made = root / "dist" / f"{PLUGIN}-{version(root)}.zip"
    made.parent.mkdir(exist_ok=True)
    part = made.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system = 3  # Unix, on every system
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name].read_bytes())
    size = part.stat().st_size
    if size > most_bytes:
        part.unlink()
        raise SystemExit(
            f"The zip was not made: it would have {size / 1e6:.1f} MB, and the plugin site takes "
            f"{most_bytes / 1e6:g} MB at most. Make the files in {PLUGIN}/ smaller."
        )
    return part.replace(made)


def _plugin_files(root: Path) -> Iterator[Path]:
    """List the plugin's files, without caches, hidden and half-written ones, and help pages of another time."""
    for folder, names, files in os.walk(root / PLUGIN, followlinks=True):
        names[:] = [name for name in names if name != "__pycache__" and not name.startswith(".")]
        if Path(folder) == root / PLUGIN:
            names[:] = [name for name in names if name != HELP]
        for name in files:
            if not name.startswith(".") and not name.endswith((".pyc", ".part")):
                yield Path(folder) / name


def _pages(folder: Path) -> Iterator[Path]:
    """List the help pages, without what Sphinx writes for itself and for other tools."""
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        of_no_use = any(part in ("_sources", "objects.inv") or part.startswith(".") for part in parts)
        if path.is_file() and not of_no_use:
            yield path


def default_profile(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Give the folder of QGIS's default profile; the plugin's environment lies beside the profiles."""
    return profile_environment(environ, platform).parents[1] / "profiles" / "default"


def link(profile: Path, root: Path = ROOT) -> Path:
    """Make a QGIS profile load the plugin from this checkout.

    Raises:
        SystemExit: if something that is no link lies there, or the system allows no link.
    """
    made = profile / "python" / "plugins" / PLUGIN
    if made.exists() and not made.is_symlink():
        raise SystemExit(f"{made} is no link and was left as it is. Uninstall that SpecDeepMap first.")
    made.parent.mkdir(parents=True, exist_ok=True)
    made.unlink(missing_ok=True)
    try:
        made.symlink_to(root / PLUGIN, target_is_directory=True)
    except OSError as error:
        raise SystemExit(
            f"{made} could not be linked: {error.strerror}. On Windows, switch on the developer mode first."
        ) from error
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="Package SpecDeepMap.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("zip", help="write the zip for a release into dist/")
    linking = commands.add_parser("link", help="link this checkout into a QGIS profile")
    linking.add_argument("--profile", type=Path, help="the profile's folder; else QGIS's default profile")
    options = parser.parse_args(arguments)
    if options.command == "zip":
        with tempfile.TemporaryDirectory() as folder:
            made = make_zip(build_pages(Path(folder) / "html"))
    else:
        made = link(options.profile or default_profile())
    sys.stdout.write(f"{made}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
