# SPDX-License-Identifier: GPL-3.0-or-later
"""Set up the Python that does the work, from a terminal or for a dialog.

::

    python -m specdeepmap.core.environment status
    python …/specdeepmap/core/environment install

With ``--events`` everything goes to standard output as one JSON object per line, and a closed standard input
cancels, as in ``specdeepmap.core``.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:  # run by its path
    sys.path[0] = str(Path(__file__).resolve().parents[3])

from specdeepmap.core.environment.choice import choose, forget_choice, overruled
from specdeepmap.core.environment.diagnostics import Status, report
from specdeepmap.core.environment.findings import REQUIREMENTS
from specdeepmap.core.environment.installation import Installation
from specdeepmap.core.environment.machine import BUILDS
from specdeepmap.core.errors import Canceled, SpecDeepMapError
from specdeepmap.core.progress import EventProgress, Progress, TextProgress

CANCELED = 130
"""Exit code after a cancel, as shells have it for Ctrl-C."""

_GRACE_SECONDS = 1.5

Command = Callable[[argparse.Namespace, Progress], "dict[str, Any] | str"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; 0 = done, 1 = an error or not ready, 130 = canceled."""
    options = _parser().parse_args(arguments)
    command: Command = options.run
    progress: Progress = EventProgress(sys.stdout) if options.events else TextProgress(sys.stderr)
    if options.events:
        threading.Thread(target=_cancel_with_parent, args=(progress,), daemon=True).start()
    else:
        signal.signal(signal.SIGTERM, lambda *_: progress.cancel())
    try:
        answer = command(options, progress)
    except (Canceled, KeyboardInterrupt):
        _tell(progress, "canceled", "Canceled. What was installed stays; the next try goes on from there.")
        return CANCELED
    except SpecDeepMapError as error:
        _tell(progress, "error", str(error))
        return 1
    if isinstance(progress, EventProgress):
        progress.send("result", values=answer)
    else:
        sys.stdout.write(answer if isinstance(answer, str) else "\n".join(answer["lines"]) + "\n")
    return 0 if isinstance(answer, str) or answer["ready"] else 1


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--events", action="store_true", help="speak JSON lines to a parent process")
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--folder", type=Path, help="the environment's folder; else the plugin's own")
    making = argparse.ArgumentParser(add_help=False, parents=[common, place])
    making.add_argument("--build", choices=list(BUILDS), default="auto", help="the build of PyTorch; default: auto")
    making.add_argument("--requirements", type=Path, action="append", help="what to install, in pip's format")
    parser = argparse.ArgumentParser(
        prog="python -m specdeepmap.core.environment", description="Set up SpecDeepMap's deep-learning environment."
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, run: Command, text: str, parent: argparse.ArgumentParser = common) -> argparse.ArgumentParser:
        made = commands.add_parser(name, parents=[parent], help=text, description=text)
        made.set_defaults(run=run)
        return made

    add("status", _status, "say what is found: Python, PyTorch, graphics card, where")
    add("install", _install, "make the plugin's own environment, or complete a half installed one", making)
    add("repair", _repair, "make the plugin's own environment anew from nothing", making)
    remove = argparse.ArgumentParser(add_help=False, parents=[common, place])
    add("remove", _remove, "remove the plugin's own environment", remove)
    use = add("use", _use, "use an existing Python instead, or the plugin's own environment again")
    use.add_argument("python", nargs="?", type=Path, help="its interpreter, or the folder of its environment")
    use.add_argument("--own", action="store_true", help="use the plugin's own environment again")
    told = add("report", _report, "write a report to copy into a bug report")
    told.add_argument("--fact", action="append", default=[], metavar="NAME=TEXT", help="something to add to it")
    return parser


def _status(options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    return Status.look(progress.check).to_json()


def _install(options: argparse.Namespace, progress: Progress) -> dict[str, Any] | str:
    installation = _installation(options)
    if installation.state == "ready":
        return f"{installation.python} is ready.\n"
    findings = installation.install(progress, options.build)
    return {"ready": findings.ready, "lines": findings.lines()}


def _repair(options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    findings = _installation(options).repair(progress, options.build)
    return {"ready": findings.ready, "lines": findings.lines()}


def _remove(options: argparse.Namespace, progress: Progress) -> str:
    installation = Installation(options.folder)
    was = installation.folder.exists()
    installation.remove(progress)
    return f"{installation.folder} {'was removed' if was else 'is not there'}.\n"


def _use(options: argparse.Namespace, progress: Progress) -> dict[str, Any] | str:
    if options.python and not options.own:
        progress.report(0.0, f"Checking {options.python}")
        findings = choose(options.python, progress.check)
        return {"ready": findings.ready, "lines": [*findings.lines(), *overruled()]}
    if options.own:
        forget_choice()
        return "\n".join(("The plugin's own environment is used where it is set up.", *overruled(), ""))
    raise SpecDeepMapError("Name a Python, or give --own.")


def _report(options: argparse.Namespace, progress: Progress) -> str:
    facts = dict(fact.partition("=")[::2] for fact in options.fact)
    return report(Status.look(progress.check), facts)


def _installation(options: argparse.Namespace) -> Installation:
    return Installation(options.folder, options.requirements or [REQUIREMENTS])


def _tell(progress: Progress, event: str, text: str) -> None:
    if isinstance(progress, EventProgress):
        progress.send(event, text=text)
    else:
        sys.stderr.write(f"{'Error: ' if event == 'error' else ''}{text}\n")


def _cancel_with_parent(progress: Progress) -> None:
    """Wait for the parent to close standard input, then cancel: politely, and after a while for good."""
    while os.read(0, 1024):
        pass
    progress.cancel()
    time.sleep(_GRACE_SECONDS)
    os._exit(CANCELED)


if __name__ == "__main__":
    sys.exit(main())
