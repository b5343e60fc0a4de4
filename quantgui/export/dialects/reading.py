"""What all readers of other tools' files share."""

from __future__ import annotations

import ast
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantgui.errors import ExportError, SpecError
from quantgui.export.dialects.material import Imported
from quantgui.results import LayerInfo, NetworkSummary
from quantgui.spec.config import QuantConfig, UnknownName
from quantgui.spec.granularity import PerTensor
from quantgui.spec.presets import activation_spec
from quantgui.spec.quantizer import FixedRange, LayerSpec, QuantizerSpec
from quantgui.spec.serialization import write_text_atomically

_LONGEST_FILE = 1 << 28
_WITH_OUTPUT = ("Conv", "ConvTranspose")
"""Operators whose `LayerSpec.activations` is for input and output, so no fixed range fits."""


def read_text(path: Path) -> str:
    """Return the text of the file at `path`.

    Raises:
        ExportError: it cannot be read, is no text, or is far larger than any such file.
    """
    try:
        if path.stat().st_size > _LONGEST_FILE:
            raise ExportError(f"'{path.name}' is too large for a file of settings.")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ExportError(f"Cannot read '{path}': {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ExportError(f"'{path.name}' is no text, so it is no file of settings.") from error


def write_text(text: str, path: Path) -> None:
    """Write `text` to `path`, replacing a file only by a whole one.

    Raises:
        ExportError: the file cannot be written.
    """
    try:
        write_text_atomically(path, text)
    except SpecError as error:
        raise ExportError(str(error)) from error


def unmatched(name: UnknownName) -> str:
    """Return a sentence on a name of the file that matches nothing."""
    hint = f"; the nearest is '{name.nearest}'" if name.nearest else ""
    return f"The file names '{name.name}', which the network does not have{hint}."


@dataclass
class ReadLayer:
    """What a file says of one layer."""

    weights: QuantizerSpec | None = None
    activations: QuantizerSpec | None = None


def read_json(text: str, what: str) -> Mapping[str, Any]:
    """Return the JSON object `text`.

    Raises:
        ExportError: it is none.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExportError(f"The {what} are no JSON: {error}.") from error
    if not isinstance(value, Mapping):
        raise ExportError(f"The {what} must be a JSON object.")
    return value


def imported(
    found: Mapping[str, ReadLayer],
    unmatched: Iterable[str],
    summary: NetworkSummary,
    *,
    known: Iterable[str],
    name: str,
) -> Imported:
    """Return the configuration of what was read; names in `unmatched` get the nearest of `known`."""
    layers = {layer.name: layer for layer in summary.layers}
    overrides, fixed, anew = {}, [], []
    for each, read in found.items():
        layer = layers[each]
        if layer.read_only or not layer.finite:
            fixed.append(each)
            continue
        activations = read.activations if layer.quantizes_activations else None
        if activations is not None and not isinstance(activations.granularity, PerTensor):
            activations = QuantizerSpec(
                activations.format, activations.symmetric, PerTensor(), activations.range_estimator
            )
        if activations is not None and isinstance(activations.range_estimator, FixedRange) and layer.op in _WITH_OUTPUT:
            activations = replace(activations, range_estimator=activation_spec(8).range_estimator)
            anew.append(each)
        overrides[each] = LayerSpec(read.weights, activations)
    names = list(dict.fromkeys(known))
    unknown = tuple(
        UnknownName(each, next(iter(difflib.get_close_matches(each, names, n=1, cutoff=0.0)), None))
        for each in unmatched
    )
    notes = tuple(f"'{each}' stays as it is in the network's file." for each in fixed)
    if anew:
        sentence = (
            f"Ranges of activations of convolutions ({len(anew)}) are found anew from data: in the file input and "
            "output have one each, in a configuration one together."
        )
        notes += (sentence,)
    return Imported(QuantConfig(name=name).with_overrides(overrides), unknown, notes)


def matching(pattern: str, layers: Iterable[LayerInfo]) -> list[LayerInfo]:
    """Return the layers whose name `pattern` is: a name, ``re:`` and an expression, or a name with ``*``.

    Raises:
        ExportError: the expression is none.
    """
    if pattern.startswith("re:"):
        expression = pattern[3:]
    elif "*" in pattern:
        expression = ".*".join(re.escape(part) for part in pattern.split("*"))
    else:
        return [layer for layer in layers if pattern in aliases(layer)]
    try:
        compiled = re.compile(expression)
    except re.error as error:
        raise ExportError(f"'{pattern}' is no regular expression: {error}.") from error
    return [layer for layer in layers if any(compiled.fullmatch(each) for each in aliases(layer))]


def aliases(layer: LayerInfo) -> tuple[str, ...]:
    """Return the names by which other tools may know a layer: its own, its weight's, and its module's."""
    return tuple(dict.fromkeys((layer.name, layer.weight, module_name(layer), *layer.users)))


def module_name(layer: LayerInfo) -> str:
    """Return the name of the PyTorch module a layer comes from, as far as the names of its file tell.

    >>> from quantgui.results import LayerInfo
    >>> module_name(LayerInfo("/enc/fc/MatMul", "MatMul", "onnx::MatMul_7", (2, 3), 1, 3, 2, ("/enc/fc/MatMul",)))
    'enc.fc'
    """
    if layer.weight.endswith(".weight"):
        return layer.weight.removesuffix(".weight")
    if layer.name.startswith("/") and layer.name.count("/") > 1:
        return layer.name[1:].rsplit("/", 1)[0].replace("/", ".")
    return layer.name


def literal(text: str, name: str) -> dict[str, Any]:
    """Return the dictionary that the program `text` assigns to `name`, without running anything of it.

    Raises:
        ExportError: it assigns none.
    """
    try:
        for statement in ast.parse(text).body:
            if isinstance(statement, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == name for target in statement.targets
            ):
                value = ast.literal_eval(statement.value)
                if isinstance(value, dict):
                    return value
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ExportError(f"The Python file cannot be read: {error}.") from error
    raise ExportError(f"The Python file holds no table '{name}'.")
