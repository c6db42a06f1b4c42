# SPDX-License-Identifier: GPL-3.0-or-later
"""What the six algorithms have in common: a dialog becomes a Job, a Result becomes outputs.

``prepareAlgorithm`` makes the Job on the main thread, ``processAlgorithm`` runs it in the background.
"""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
)
from qgis.PyQt.QtGui import QIcon
from qgis.utils import iface

from specdeepmap.algorithms.feedback import FeedbackProgress
from specdeepmap.algorithms.parameters import OUTPUTS, Field, check_raw, make_parameter, read_value
from specdeepmap.core.errors import Canceled, ConfigError, SpecDeepMapError, nearest
from specdeepmap.core.jobs import Job, Result
from specdeepmap.core.progress import Progress
from specdeepmap.core.record import Spec, spec_of
from specdeepmap.core.run import run

_ICON = Path(__file__).parents[1] / "icon.svg"


class Algorithm(QgsProcessingAlgorithm):
    """A Processing algorithm made of a Job."""

    NAME: ClassVar[str]
    TITLE: ClassVar[str]
    ABOUT: ClassVar[str]
    """What it does and what comes before and after it, for the help panel."""
    JOB: ClassVar[type[Job]]

    def __init__(self) -> None:
        super().__init__()
        self._job: Job | None = None
        self._to_load: dict[str, QgsProcessingContext.LayerDetails] = {}

    def createInstance(self) -> Algorithm:
        """Give QGIS a fresh instance for each run."""
        return type(self)()

    def name(self) -> str:
        """Give the id that scripts use."""
        return self.NAME

    def displayName(self) -> str:
        """Give the name that the toolbox shows."""
        return self.TITLE

    def shortDescription(self) -> str:
        """Give the tooltip."""
        return self.ABOUT.split(". ")[0].rstrip(".") + "."

    def icon(self) -> QIcon:
        """Give the icon that the toolbox shows."""
        return QIcon(str(_ICON))

    def shortHelpString(self) -> str:
        """Give the help panel: what the algorithm does, then every parameter.

        ``qgis_process`` lists the parameters with their help by itself, as plain text.
        """
        if iface is None:
            return self.ABOUT
        entries = [
            f"<b>{html.escape(spec.label)}</b> <i>{field.name.upper()}</i><br>{html.escape(spec.help)}"
            for field, spec in self._asked()
        ]
        return "".join(f"<p>{text}</p>" for text in (html.escape(self.ABOUT), *entries))

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs as the Job and its Result have them."""
        for field, spec in self._asked():
            self.addParameter(make_parameter(field, spec))
        for field in dataclasses.fields(self.JOB.result):
            spec = spec_of(field)
            if spec is not None and self.outputDefinition(field.name.upper()) is None:
                self.addOutput(OUTPUTS[spec.kind](field.name.upper(), spec.label))

    def checkParameterValues(self, parameters: dict[str, Any], context: QgsProcessingContext) -> tuple[bool, str]:
        """Refuse what QGIS would take for a default without a word."""
        specs = {field.name.upper(): spec for field, spec in self._asked()}
        try:
            for name, raw in parameters.items():
                if name not in specs:
                    raise ConfigError(f"There is no parameter '{name}'.{nearest(name, specs)}")
                check_raw(name, raw, specs[name])
        except SpecDeepMapError as error:
            return False, str(error)
        return super().checkParameterValues(parameters, context)

    def prepareAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> bool:
        """Make the Job; layers may be touched here."""
        try:
            self._job = self.job(parameters, context)
        except SpecDeepMapError as error:
            raise QgsProcessingException(str(error)) from error
        self._to_load = context.layersToLoadOnCompletion()
        return True

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Run the Job in the background."""
        if self._job is None:
            raise QgsProcessingException("The algorithm was not prepared.")
        # In the background there is another context, whose layers replace those promised while preparing.
        context.setLayersToLoadOnCompletion({**self._to_load, **context.layersToLoadOnCompletion()})
        try:
            result = self.work(self._job, FeedbackProgress(feedback))
        except SpecDeepMapError as error:
            raise QgsProcessingException(str(error)) from error
        except (Canceled, KeyboardInterrupt):
            raise QgsProcessingException("Canceled.") from None
        self.finish(self._job, result, context)
        return outputs(result)

    def job(self, parameters: dict[str, Any], context: QgsProcessingContext) -> Job:
        """Make the Job of the dialog's values; subclasses add what no form asks for."""
        return self.JOB(**self.values(parameters, context))

    def values(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Read the values of all fields that the form asks for."""
        return {field.name: read_value(self, field, spec, parameters, context) for field, spec in self._asked()}

    def work(self, job: Job, progress: Progress) -> Result:
        """Do the work; subclasses may do it another way."""
        return run(job, progress)

    def finish(self, job: Job, result: Result, context: QgsProcessingContext) -> None:
        """Say how results are to be loaded; for subclasses."""

    @classmethod
    def _asked(cls) -> Iterator[tuple[Field, Spec]]:
        """Give the Job's fields that the form asks for."""
        for field in dataclasses.fields(cls.JOB):
            spec = spec_of(field)
            if spec is not None:
                yield field, spec


def outputs(result: Result) -> dict[str, Any]:
    """Turn a result into what Processing hands on: upper-case names, plain values, nothing that is not there."""
    declared = {field.name for field in dataclasses.fields(result) if spec_of(field) is not None}
    values = {name.upper(): value for name, value in result.to_json().items() if name in declared}
    return {
        name: value
        for name, value in values.items()
        if value is not None and not (isinstance(value, float) and math.isnan(value))
    }
