# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress spoken to QGIS."""

from __future__ import annotations

import re

from qgis.core import QgsProcessingFeedback

from specdeepmap.core.errors import Canceled
from specdeepmap.core.progress import Progress

_EPOCH = re.compile(r"Epoch \d+ of \d+: ")


class FeedbackProgress(Progress):
    """Report to a Processing feedback, and hear its cancel button.

    Args:
        feedback: of the run.
        windows: whether somebody looks at a progress bar.
    """

    def __init__(self, feedback: QgsProcessingFeedback, windows: bool = False) -> None:
        super().__init__()
        self._feedback, self._windows = feedback, windows

    def info(self, text: str) -> None:
        """Show a line in the log; an epoch's, which tells the time left, beside the progress bar, too.

        What stands there the dialog writes into the log by itself; ``qgis_process`` does not.
        """
        if self._windows and _EPOCH.match(text):
            self._feedback.setProgressText(text)
        else:
            self._feedback.pushInfo(text)

    def warning(self, text: str) -> None:
        """Show a warning in the log."""
        self._feedback.pushWarning(text)

    def check(self) -> None:
        """Stop here if the user asked for it."""
        super().check()
        if self._feedback.isCanceled():
            raise Canceled("canceled")

    def _show(self, share: float, text: str) -> None:
        self._feedback.setProgress(100 * share)
        if text:
            self._feedback.setProgressText(text)
