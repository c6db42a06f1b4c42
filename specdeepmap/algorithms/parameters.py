# SPDX-License-Identifier: GPL-3.0-or-later
"""From a Job's fields to Processing parameters and outputs, and from their values back to a Job's.

Values are read raw, before QGIS's own reading: that takes ``SCALER=1,5`` for 0 without a word.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsExpression,
    QgsMapLayer,
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingOutputDefinition,
    QgsProcessingOutputFile,
    QgsProcessingOutputFolder,
    QgsProcessingOutputHtml,
    QgsProcessingOutputLayerDefinition,
    QgsProcessingOutputNumber,
    QgsProcessingOutputRasterLayer,
    QgsProcessingOutputString,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterMapLayer,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
    QgsProperty,
)
from qgis.PyQt.QtCore import QVariant

from specdeepmap.algorithms.layers import label_source, raster_source
from specdeepmap.core.errors import ConfigError
from specdeepmap.core.record import Spec, check_value, parse_number

Field = dataclasses.Field[Any]

_WIDGETS = "specdeepmap.algorithms.widgets"
_DECIMALS = {"NODATA": 8, "SCALER": 6, "LEARNING_RATE": 8, "WEIGHT_DECAY": 6, "GRADIENT_CLIP": 4, "DURATION": 1}
"""Digits behind the point in dialogs where two are not right; QGIS cuts off the others."""

_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")

OUTPUTS: dict[str, Callable[[str, str], QgsProcessingOutputDefinition]] = {
    "folder": QgsProcessingOutputFolder,
    "file": QgsProcessingOutputFile,
    "html": QgsProcessingOutputHtml,
    "raster": QgsProcessingOutputRasterLayer,
    "vector": QgsProcessingOutputVectorLayer,
    "number": QgsProcessingOutputNumber,
    "text": QgsProcessingOutputString,
}
"""Kinds of results and the outputs that declare them."""


def make_parameter(field: Field, spec: Spec) -> QgsProcessingParameterDefinition:
    """Make the parameter that asks for a field."""
    parameter = _MAKERS[spec.kind](field.name.upper(), spec, field)
    parameter.setHelp(spec.help)
    flags = parameter.flags()
    if spec.advanced:
        flags |= QgsProcessingParameterDefinition.Flag.FlagAdvanced
    parameter.setFlags(flags)
    return parameter


def read_value(
    algorithm: QgsProcessingAlgorithm,
    field: Field,
    spec: Spec,
    parameters: Mapping[str, Any],
    context: QgsProcessingContext,
) -> Any:
    """Read the value that a user gave for a field; the default where there is none.

    Destinations may be read once only: QGIS gives a new temporary name each time.

    Raises:
        ConfigError: if it cannot be read.
    """
    name = field.name.upper()
    if spec.kind in DESTINATIONS:
        target = parameters.get(name)
        if isinstance(target, QgsProcessingOutputLayerDefinition) and _is_empty(target.sink):
            return None  # as batches give outputs that are not wanted; QGIS would expect a layer
        return DESTINATIONS[spec.kind](algorithm, name, parameters, context) or None
    raw = parameters.get(name)
    if isinstance(raw, QgsProperty) and spec.kind in _PLAIN:
        raw = _evaluated(name, raw, context)
    if is_unset(raw):
        if field.default is dataclasses.MISSING:
            raise ConfigError(f"{name} is missing; it has no default.")
        return field.default
    if spec.kind in _PLAIN:
        return _PLAIN[spec.kind](name, raw)
    return _READERS[spec.kind](algorithm, name, parameters, context)


def _evaluated(name: str, given: QgsProperty, context: QgsProcessingContext) -> Any:
    """Evaluate an expression; QGIS itself would take 0, or the default, for one that is wrong, without a word.

    Raises:
        ConfigError: if it cannot be evaluated.
    """
    value, known = given.value(context.expressionContext())
    if known:
        return value
    if given.propertyType() == QgsProperty.Type.ExpressionBasedProperty:
        expression = QgsExpression(given.expressionString())
        expression.evaluate(context.expressionContext())
        why = (expression.parserErrorString() or expression.evalErrorString()).strip()
        if not why:
            return None
        raise ConfigError(f"{name} is the expression {given.expressionString()}, which cannot be evaluated: {why}")
    return None


def _is_empty(sink: QgsProperty) -> bool:
    """Tell whether an output has no place; one that is known by an expression or a field only, has one."""
    computed = (QgsProperty.Type.ExpressionBasedProperty, QgsProperty.Type.FieldBasedProperty)
    return sink.propertyType() not in computed and not sink.staticValue()


def is_unset(raw: Any) -> bool:
    """Tell whether a raw value means that the user gave none."""
    return raw is None or raw == "" or (isinstance(raw, QVariant) and raw.isNull())


def check_raw(name: str, raw: Any, spec: Spec) -> None:
    """Check a raw value that QGIS would misread, or refuse without saying why.

    Raises:
        ConfigError: if it is no number, out of bounds, none of the options, neither true nor false, or no file.
    """
    if is_unset(raw) or isinstance(raw, QgsProperty):
        return
    if spec.kind in ("integer", "number"):
        check_value(name, parse_number(name, raw, whole=spec.kind == "integer"), spec)
    elif spec.kind == "choice":
        check_value(name, str(raw), spec)
    elif spec.kind == "flag":
        read_flag(name, raw)
    elif spec.kind in DESTINATIONS and str(raw).startswith("memory:"):
        raise ConfigError(
            f"{name} is {raw}, which is no file: only tools of QGIS keep results in memory. Give the path of a file or "
            f"folder, or {QgsProcessing.TEMPORARY_OUTPUT}."
        )


def read_flag(name: str, raw: Any) -> bool:
    """Read true or false, which may have been typed as text.

    Raises:
        ConfigError: if it is neither.
    """
    text = str(raw).strip().lower()
    if text not in (*_TRUE, *_FALSE):
        raise ConfigError(f"{name} is '{raw}'; it must be true or false.")
    return text in _TRUE


def _optional(field: Field) -> bool:
    return field.default is None


def _default(field: Field) -> Any:
    return None if field.default is dataclasses.MISSING else field.default


def _raster(name: str, spec: Spec, field: Field) -> QgsProcessingParameterDefinition:
    return QgsProcessingParameterRasterLayer(name, spec.label, None, _optional(field))


def _labels(name: str, spec: Spec, field: Field) -> QgsProcessingParameterDefinition:
    kinds = QgsProcessing.SourceType
    allowed = [kinds.TypeRaster, kinds.TypeVectorPolygon, kinds.TypeVectorPoint]
    return QgsProcessingParameterMapLayer(name, spec.label, None, _optional(field), allowed)


def _class_field(name: str, spec: Spec, field: Field) -> QgsProcessingParameterDefinition:
    # With the layer as its parent, QGIS 3.40 crashes where that is a raster: the widget looks it up by itself.
    parameter = QgsProcessingParameterField(name, spec.label, None, "", optional=_optional(field))
    parameter.setMetadata({"widget_wrapper": {"class": f"{_WIDGETS}.FieldWidgetWrapper", "layer": "LABELS"}})
    return parameter


def _file(name: str, spec: Spec, field: Field) -> QgsProcessingParameterDefinition:
    return QgsProcessingParameterFile(
        name,
        spec.label,
        QgsProcessingParameterFile.Behavior.File,
        defaultValue=None,
        optional=_optional(field),
        fileFilter=spec.files,
    )


def _folder(name: str, spec: Spec, field: Field) -> QgsProcessingParameterDefinition:
    behavior = QgsProcessingParameterFile.Behavior.Folder
    return QgsProcessingParameterFile(name, spec.label, behavior, defaultValue=None, optional=_optional(field))


def _number(name: str, spec: Spec, field: Field) -> QgsProcessingParameterDefinition:
    whole = spec.kind == "integer"
    kind = QgsProcessingParameterNumber.Type.Integer if whole else QgsProcessingParameterNumber.Type.Double
    parameter = QgsProcessingParameterNumber(name, spec.label, kind, _default(field), _optional(field))
    lowest = spec.above if spec.minimum is None else spec.minimum
    if lowest is not None:
        parameter.setMinimum(lowest)
    if spec.maximum is not None:
        parameter.setMaximum(spec.maximum)
    if not whole:
        parameter.setMetadata({"widget_wrapper": {"decimals": _DECIMALS.get(name, 2)}})
    return parameter


def _flag_parameter(name: str, spec: Spec, field: Field) -> QgsProcessingParameterDefinition:
    return QgsProcessingParameterBoolean(name, spec.label, _default(field), _optional(field))


def _choice(name: str, spec: Spec, field: Field) -> QgsProcessingParameterDefinition:
    titles = spec.options() if spec.options is not None else {}
    parameter = QgsProcessingParameterEnum(
        name, spec.label, list(titles), False, _default(field), _optional(field), usesStaticStrings=True
    )
    pairs = [list(pair) for pair in titles.items()]  # a map would lose its order on the way
    parameter.setMetadata({"widget_wrapper": {"class": f"{_WIDGETS}.ChoiceWidgetWrapper", "pairs": pairs}})
    return parameter


def _text(name: str, spec: Spec, field: Field) -> QgsProcessingParameterDefinition:
    parameter = QgsProcessingParameterString(name, spec.label, _default(field), False, _optional(field))
    if spec.suggestions:
        offered = list(spec.suggestions)
        parameter.setMetadata(
            {"widget_wrapper": {"class": f"{_WIDGETS}.SuggestionWidgetWrapper", "suggestions": offered}}
        )
    return parameter


def _extent(name: str, spec: Spec, field: Field) -> QgsProcessingParameterDefinition:
    return QgsProcessingParameterExtent(name, spec.label, None, _optional(field))


def _folder_out(name: str, spec: Spec, field: Field) -> QgsProcessingParameterDefinition:
    optional = _optional(field)
    return QgsProcessingParameterFolderDestination(name, spec.label, None, optional, not optional)


def _file_out(name: str, spec: Spec, field: Field) -> QgsProcessingParameterDefinition:
    optional = _optional(field)
    return QgsProcessingParameterFileDestination(name, spec.label, spec.files, None, optional, not optional)


def _raster_out(name: str, spec: Spec, field: Field) -> QgsProcessingParameterDefinition:
    optional = _optional(field)
    return QgsProcessingParameterRasterDestination(name, spec.label, None, optional, not optional)


def _vector_out(name: str, spec: Spec, field: Field) -> QgsProcessingParameterDefinition:
    optional = _optional(field)
    return QgsProcessingParameterVectorDestination(
        name, spec.label, defaultValue=None, optional=optional, createByDefault=not optional
    )


_MAKERS: dict[str, Callable[[str, Spec, Field], QgsProcessingParameterDefinition]] = {
    "raster": _raster,
    "labels": _labels,
    "field": _class_field,
    "file": _file,
    "folder": _folder,
    "integer": _number,
    "number": _number,
    "flag": _flag_parameter,
    "choice": _choice,
    "text": _text,
    "extent": _extent,
    "folder_out": _folder_out,
    "file_out": _file_out,
    "raster_out": _raster_out,
    "vector_out": _vector_out,
}

Reader = Callable[[QgsProcessingAlgorithm, str, Mapping[str, Any], QgsProcessingContext], Any]


def _read_raster(
    algorithm: QgsProcessingAlgorithm, name: str, parameters: Mapping[str, Any], context: QgsProcessingContext
) -> str:
    layer = algorithm.parameterAsRasterLayer(parameters, name, context)
    if layer is None or not layer.isValid():
        raise ConfigError(
            f"{name} is '{_named(parameters.get(name))}', which cannot be opened as a raster. Does it exist?"
        )
    return raster_source(layer, name)


def _named(raw: Any) -> str:
    """Name what was given for a layer, for messages."""
    return raw.name() if isinstance(raw, QgsMapLayer) else str(raw)


def _read_labels(
    algorithm: QgsProcessingAlgorithm, name: str, parameters: Mapping[str, Any], context: QgsProcessingContext
) -> str:
    layer = algorithm.parameterAsLayer(parameters, name, context)
    if layer is None or not layer.isValid():
        raise ConfigError(
            f"{name} is '{_named(parameters.get(name))}', which opens neither as a raster nor as vectors. Does it "
            "exist?"
        )
    raw = parameters.get("CLASS_FIELD")
    given = _evaluated("CLASS_FIELD", raw, context) if isinstance(raw, QgsProperty) else raw
    source, copy = label_source(layer, "" if is_unset(given) else str(given), name, context)
    if copy is not None:
        algorithm.copies.append(copy)
    return source


def _read_extent(
    algorithm: QgsProcessingAlgorithm, name: str, parameters: Mapping[str, Any], context: QgsProcessingContext
) -> tuple[float, float, float, float]:
    image = algorithm.parameterAsRasterLayer(parameters, "IMAGE", context)
    crs = image.crs() if image is not None else context.project().crs()
    named = re.fullmatch(r"[\d.,eE+\s-]+\[(.+)\]\s*", str(parameters[name]))  # QGIS leaves out what it does not know
    if named is not None and not QgsCoordinateReferenceSystem(named[1].strip()).isValid():
        raise ConfigError(f"{name} is '{parameters[name]}', and QGIS knows no coordinate system '{named[1]}'.")
    extent = algorithm.parameterAsExtent(parameters, name, context, crs)
    if extent.isNull() or extent.isEmpty():
        raise ConfigError(
            f"{name} is '{parameters[name]}', which cannot be read. Give xmin,xmax,ymin,ymax, with the coordinate "
            "system behind it where it is not the image's, as in 10.1,10.2,50.3,50.4 [EPSG:4326]."
        )
    return extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()


def _read_file(
    algorithm: QgsProcessingAlgorithm, name: str, parameters: Mapping[str, Any], context: QgsProcessingContext
) -> str:
    return algorithm.parameterAsFile(parameters, name, context)


_READERS: dict[str, Reader] = {
    "raster": _read_raster,
    "labels": _read_labels,
    "file": _read_file,
    "folder": _read_file,
    "extent": _read_extent,
}

_PLAIN: dict[str, Callable[[str, Any], Any]] = {
    "integer": lambda name, raw: parse_number(name, raw, whole=True),
    "number": lambda name, raw: parse_number(name, raw, whole=False),
    "flag": read_flag,
    **dict.fromkeys(("choice", "text", "field"), lambda name, raw: str(raw)),
}
"""Readers of values that need no QGIS."""

DESTINATIONS: dict[str, Reader] = {
    "folder_out": lambda algorithm, name, parameters, context: algorithm.parameterAsString(parameters, name, context),
    "file_out": lambda algorithm, name, parameters, context: algorithm.parameterAsFileOutput(parameters, name, context),
    "raster_out": lambda algorithm, name, parameters, context: algorithm.parameterAsOutputLayer(
        parameters, name, context
    ),
    "vector_out": lambda algorithm, name, parameters, context: algorithm.parameterAsOutputLayer(
        parameters, name, context
    ),
}
