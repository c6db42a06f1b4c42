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

from specdeepmap.algorithms.checks import check_inputs_are_there, job_as_written
from specdeepmap.algorithms.feedback import FeedbackProgress
from specdeepmap.algorithms.handover import HandOver, Ways
from specdeepmap.algorithms.layers import LabelCopy, layer_doubts, reload_layers
from specdeepmap.algorithms.parameters import OUTPUTS, Field, check_raw, make_parameter, read_value
from specdeepmap.algorithms.tables import LOAD_TABLES, load_table
from specdeepmap.core.errors import Canceled, ConfigError, SpecDeepMapError, nearest
from specdeepmap.core.jobs import Job, Result
from specdeepmap.core.progress import Progress
from specdeepmap.core.record import Spec, spec_of
from specdeepmap.core.run import run
from specdeepmap.help import page_url

_PACKAGE = Path(__file__).parents[1]


class Algorithm(QgsProcessingAlgorithm):
    """A Processing algorithm made of a Job."""

    NAME: ClassVar[str]
    TITLE: ClassVar[str]
    ABOUT: ClassVar[str]
    """What it does and what comes before and after it, for the help panel."""
    JOB: ClassVar[type[Job]]
    TABLES: ClassVar[tuple[str, ...]] = ()
    """Outputs that are tables."""
    HANDS_ON: ClassVar[Ways] = ()
    """Which later steps go on with which outputs."""

    HANDOVER: ClassVar[HandOver] = HandOver()

    def __init__(self) -> None:
        super().__init__()
        self._job: Job | None = None
        self._refused: SpecDeepMapError | None = None
        self._to_load: dict[str, QgsProcessingContext.LayerDetails] = {}
        self._load_tables = False
        self._outputs: dict[str, Any] | None = None
        self.copies: list[LabelCopy] = []
        """Files that must be written before the work begins."""
        self.subject = ""
        """What the results are of, such as the image's name; results are called after it."""

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
        own = _PACKAGE / "icons" / f"{self.NAME}.svg"
        return QIcon(str(own if own.is_file() else _PACKAGE / "icon.svg"))

    def helpUrl(self) -> str:
        """Give the page that the dialog's Help button opens."""
        return page_url(f"algorithms/{self.NAME}")

    def shortHelpString(self) -> str:
        """Give the help panel: what the algorithm does, then every parameter.

        ``qgis_process`` lists the parameters with their help by itself, as plain text.
        """
        if iface is None:
            return self.ABOUT
        entries = [
            f"<b>{html.escape(spec.label)}</b> <i>{field.name.upper()}</i><br>{html.escape(spec.help)}"
            for field, spec in self._shown()
        ]
        return "".join(f"<p>{text}</p>" for text in (html.escape(self.ABOUT), *entries))

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs as the Job and its Result have them."""
        for field, spec in self._shown():
            self.addParameter(make_parameter(field, spec))
        for field in dataclasses.fields(self.JOB.result):
            spec = spec_of(field)
            if spec is not None and self.outputDefinition(field.name.upper()) is None:
                self.addOutput(OUTPUTS[spec.kind](field.name.upper(), spec.label))
        self.HANDOVER.offer(self)

    def checkParameterValues(self, parameters: dict[str, Any], context: QgsProcessingContext) -> tuple[bool, str]:
        """Refuse what QGIS would take for a default without a word, and what can be told before a run."""
        specs = {field.name.upper(): spec for field, spec in self._shown()}
        try:
            for name, raw in parameters.items():
                if name not in specs:
                    raise ConfigError(f"There is no parameter '{name}'.{nearest(name, specs)}")
                check_raw(name, raw, specs[name])
            job = job_as_written(self.JOB, self._asked(), parameters)
            if job is not None:
                check_inputs_are_there(job, self._asked())
                self.check(job, parameters, context)
        except SpecDeepMapError as error:
            return False, str(error)
        return super().checkParameterValues(parameters, context)

    def prepareAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> bool:
        """Make the Job; layers may be touched here.

        What is wrong is told when the Job would run: a batch in QGIS that fails here is over, with all its other rows.
        """
        try:
            self._job = self.job(parameters, context)
            self._load_tables = bool(self.TABLES) and read_value(self, *LOAD_TABLES, parameters, context)
        except SpecDeepMapError as error:
            self._refused = error
            return True
        for text in self._doubts(parameters, context):
            feedback.pushWarning(text)
        self._to_load = context.layersToLoadOnCompletion()
        return True

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Run the Job in the background."""
        if self._refused is not None:
            _close_inputs(parameters, context)
            raise QgsProcessingException(str(self._refused)) from self._refused
        if self._job is None:
            raise QgsProcessingException("The algorithm was not prepared.")
        # In the background there is another context, whose layers replace those promised while preparing.
        context.setLayersToLoadOnCompletion({**self._to_load, **context.layersToLoadOnCompletion()})
        try:
            for copy in self.copies:
                copy.write(feedback)
            result = self.work(self._job, FeedbackProgress(feedback, windows=iface is not None))
        except SpecDeepMapError as error:
            _close_inputs(parameters, context)
            raise QgsProcessingException(str(error)) from error
        except (Canceled, KeyboardInterrupt):
            _close_inputs(parameters, context)
            raise QgsProcessingException("Canceled.") from None
        self.finish(self._job, result, context)
        self._outputs = outputs(result)
        if self._load_tables:
            self._show_tables(context)
        return self._outputs

    def postProcessAlgorithm(self, context: QgsProcessingContext, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        """Show what a run made in layers that are open already, and hand it on to the dialogs of the next steps."""
        if self._outputs is not None:
            reload_layers(context.project(), (value for value in self._outputs.values() if isinstance(value, str)))
            if iface is not None:
                self.HANDOVER.remember(self.HANDS_ON, self._outputs)
        return {}

    def job(self, parameters: dict[str, Any], context: QgsProcessingContext) -> Job:
        """Make the Job of the dialog's values; subclasses add what no form asks for, and set the subject."""
        return self.JOB(**self.values(parameters, context))

    def values(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Read the values of all fields that the form asks for."""
        return {field.name: read_value(self, field, spec, parameters, context) for field, spec in self._asked()}

    def check(self, job: Job, parameters: dict[str, Any], context: QgsProcessingContext) -> None:
        """Check more before a run; for subclasses.

        Args:
            job: made of the raw values: layers and temporary outputs are stood in for.
            parameters: the raw values.
            context: of the run to come.

        Raises:
            ConfigError: if something is wrong.
        """

    def work(self, job: Job, progress: Progress) -> Result:
        """Do the work; subclasses may do it another way."""
        return run(job, progress)

    def finish(self, job: Job, result: Result, context: QgsProcessingContext) -> None:
        """Say how results are to be loaded; for subclasses."""

    def _doubts(self, parameters: dict[str, Any], context: QgsProcessingContext) -> Iterator[str]:
        """Say of the layers what QGIS was told and the work does not know."""
        for field, spec in self._asked():
            name = field.name.upper()
            layer = self.parameterAsLayer(parameters, name, context) if spec.kind in ("raster", "labels") else None
            if layer is not None:
                yield from layer_doubts(layer, name)

    def _show_tables(self, context: QgsProcessingContext) -> None:
        specs = {field.name.upper(): spec_of(field) for field in dataclasses.fields(self.JOB.result)}
        for name in self.TABLES:
            path, spec = (self._outputs or {}).get(name), specs[name]
            if path is not None and spec is not None:
                load_table(context, Path(path), f"{spec.label} of {self.subject}", name)

    @classmethod
    def _shown(cls) -> Iterator[tuple[Field, Spec]]:
        """Give all that the form asks for."""
        yield from cls._asked()
        if cls.TABLES:
            yield LOAD_TABLES

    @classmethod
    def _asked(cls) -> Iterator[tuple[Field, Spec]]:
        """Give the fields of the Job among it."""
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


def _close_inputs(parameters: dict[str, Any], context: QgsProcessingContext) -> None:
    """Close the inputs that were given by path, before an exception.

    QGIS never frees the context of a script's run in which Python raises: it would keep the files open, and on
    Windows nobody could replace or delete them.
    """
    store, given = context.temporaryLayerStore(), {value for value in parameters.values() if isinstance(value, str)}
    for key, layer in store.mapLayers().items():
        if layer.source() in given:
            store.removeMapLayer(key)
