# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress spoken to QGIS."""

from __future__ import annotations

from qgis.core import QgsProcessingFeedback

from specdeepmap.core.errors import Canceled
from specdeepmap.core.progress import Progress


class FeedbackProgress(Progress):
    """Report to a Processing feedback, and hear its cancel button."""

    def __init__(self, feedback: QgsProcessingFeedback) -> None:
        super().__init__()
        self._feedback = feedback

    def info(self, text: str) -> None:
        """Show a line in the log."""
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
