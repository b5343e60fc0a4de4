"""AIMET's encodings, versions 0.6.1 (as QNN's and SNPE's quantization overrides), 1.0.0 and 2.0.0.

AIMET counts the codes of b bits from 0, whatever their sign: ``x = (code + offset) * scale``, code = 0 ... 2**b - 1.
Version 2.0.0 has the terms of QuantizeLinear instead. Source: AIMET 2.42, "Encoding Format Specification".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from quantgui.errors import ExportError
from quantgui.export.dialects.material import (
    Activation,
    Imported,
    Material,
    Parameter,
    Written,
    group_size,
    left_out,
    numbers,
)
from quantgui.export.dialects.reading import ReadLayer, imported, read_json
from quantgui.results import Array, NetworkSummary
from quantgui.spec.formats import FloatFormat, Format, IntFormat, parse_format
from quantgui.spec.granularity import PerChannel, PerGroup, PerTensor
from quantgui.spec.presets import weight_spec
from quantgui.spec.quantizer import FixedRange, QuantizerSpec

_BLOCKS = "as their groups do not lie along one axis, or leave a remainder"
_PARTS = "as these weights are gates of a recurrent operator"
_NO_BLOCKS = "as version 0.6.1 has no groups"
_FOLD = (
    "Where the network has BatchNormalization, scales are those of weights it is folded into: call "
    "aimet_onnx.batch_norm_fold.fold_all_batch_norms_to_weight(model) before making a QuantizationSimModel."
)
_RENAMED = "folded_names"
"""A table of our own, which AIMET passes over: what it calls a tensor -> what the network's file calls it."""
_UNKNOWN = "as this version of AIMET's encodings has no such format"


# --- writing -----------------------------------------------------------------------------------------------------


def write_0_6_1(material: Material) -> Written:
    """Return encodings 0.6.1; ``is_symmetric`` is a string in them."""
    return _write_0_6_1(material, _named_by_aimet(material))


def write_qnn(material: Material) -> Written:
    """Return QNN's overrides: encodings 0.6.1, whose tensors are called as in the network's file."""
    return _write_0_6_1(replace(material, folded={}), {})


def _write_0_6_1(material: Material, names: Mapping[str, str]) -> Written:
    sorted_out = _sorted(material, names, blocks=False)
    parameters = {each.layer.weight: _entries_0_6_1(each) for each in sorted_out.parameters}
    activations = {each.tensor: [_entry_0_6_1(_grid(each))] for each in sorted_out.activations}
    value = {"version": "0.6.1", "activation_encodings": activations, "param_encodings": parameters}
    return Written(_text(value | sorted_out.renamed), sorted_out.notes)


def write_1_0_0(material: Material) -> Written:
    """Return encodings 1.0.0."""
    sorted_out = _sorted(material, _named_by_aimet(material))
    value = {
        "version": "1.0.0",
        "activation_encodings": [
            {"name": each.tensor, "enc_type": "PER_TENSOR", **_fields_1_0_0(_grid(each))}
            for each in sorted_out.activations
        ],
        "param_encodings": [_parameter_1_0_0(each) for each in sorted_out.parameters],
        "quantizer_args": _quantizer_args(material),
        "excluded_layers": [layer.name for layer in material.float_layers],
    }
    return Written(_text(value | sorted_out.renamed), sorted_out.notes)


def write_2_0_0(material: Material) -> Written:
    """Return encodings 2.0.0, in the terms of QuantizeLinear; they have no 16-bit floats."""
    sorted_out = _sorted(material, _named_by_aimet(material), floats=False)
    encodings: list[dict[str, Any]] = []
    for activation in sorted_out.activations:
        entry: dict[str, Any] = {"name": activation.tensor, "output_dtype": str(activation.format)}
        if isinstance(activation.format, IntFormat):
            entry["y_scale"] = numbers(np.array([activation.scale]))[0]
            if activation.zero_point:
                entry["y_zero_point"] = activation.zero_point
        encodings.append(entry)
    encodings += [_parameter_2_0_0(each) for each in sorted_out.parameters]
    return Written(_text({"version": "2.0.0", "encodings": encodings} | sorted_out.renamed), sorted_out.notes)


def write_sensitivity(material: Material) -> Written:
    """Return the ranking of a sensitivity sweep, most sensitive first; the score is the metric."""
    table = material.sensitivity
    if table is None:
        raise ExportError("A ranking is made of a sensitivity sweep: measure one first.")
    column = list(table.orders)[len(table.orders) // 2]
    values = {each.layer: each for each in table.candidates if each.format == column}
    ranking = [
        {
            "rank": rank,
            "name": place.layer,
            "score": values[place.layer].value,
            "detail": {"metric": table.metric, "format": column, "stderr": values[place.layer].stderr}
            | {"certain": place.certain, "samples": values[place.layer].samples},
        }
        for rank, place in enumerate(table.orders[column], 1)
    ]
    return Written(_text({"ranking": ranking}))


class _Sorted:
    """What a file can hold, and notes on the rest."""

    def __init__(self, material: Material, names: Mapping[str, str], *, blocks: bool, floats: bool) -> None:
        self.floats = floats
        self.parameters: list[Parameter] = []
        parts, groups, unknown = [], [], []
        for each in material.parameters:
            if each.is_part:
                parts.append(each.layer.name)
            elif not self._has(each.spec.format):
                unknown.append(each.layer.name)
            elif not isinstance(each.spec.granularity, PerTensor | PerChannel) and not (blocks and _blocks_fit(each)):
                groups.append(each.layer.name)
            else:
                self.parameters.append(each)
        known = [each for each in material.activations if self._has(each.format)]
        self.activations = [replace(each, tensor=names.get(each.tensor, each.tensor)) for each in known]
        renamed = {names[each.tensor]: each.tensor for each in known if each.tensor in names}
        self.renamed: dict[str, Any] = {_RENAMED: renamed} if renamed else {}
        tensors = [each.tensor for each in material.activations if not self._has(each.format)]
        self.notes = (
            *left_out(tensors, _UNKNOWN),
            *left_out(parts, _PARTS),
            *left_out(groups, _BLOCKS if blocks else _NO_BLOCKS),
            *left_out(unknown, _UNKNOWN),
            *((_FOLD,) if material.folded else ()),
        )

    def _has(self, fmt: Format) -> bool:
        return isinstance(fmt, IntFormat) or (self.floats and str(fmt) == "float16")


def _blocks_fit(parameter: Parameter) -> bool:
    """Return whether the groups lie along one axis, and the same number of values is in each."""
    size, axis = group_size(parameter.spec.granularity), parameter.block_axis
    return size is not None and axis is not None and parameter.layer.shape[axis] % size == 0


def _sorted(material: Material, names: Mapping[str, str], *, blocks: bool = True, floats: bool = True) -> _Sorted:
    return _Sorted(material, names, blocks=blocks, floats=floats)


def _named_by_aimet(material: Material) -> dict[str, str]:
    """Return what AIMET calls outputs once it has folded BatchNormalization, by what they are called here."""
    return {each.now: each.own for each in material.folded.values()}


class _Grid:
    """A grid in AIMET's terms: arrays of the same length."""

    def __init__(self, fmt: Format, symmetric: bool, scale: Array, zero_point: Array) -> None:  # noqa: FBT001
        self.format, self.symmetric = fmt, symmetric
        self.scale = np.asarray(scale, np.float32).reshape(-1)
        lowest = -(1 << (fmt.bits - 1)) if isinstance(fmt, IntFormat) and fmt.signed else 0
        self.offset = (lowest - np.asarray(zero_point, np.int64)).reshape(-1)


def _grid(each: Activation | Parameter) -> _Grid:
    if isinstance(each, Activation):
        fmt = each.format
        scale, zero_point = np.array([each.scale]), np.array([each.zero_point])
        symmetric = each.symmetric
    else:
        fmt, symmetric = each.spec.format, each.spec.symmetric
        scale = np.ones(1) if each.scale is None else each.scale
        zero_point = np.zeros(1) if each.zero_point is None else each.zero_point
    return _Grid(fmt, symmetric, scale, zero_point)


def _entries_0_6_1(parameter: Parameter) -> list[dict[str, Any]]:
    grid = _grid(parameter)
    if isinstance(grid.format, FloatFormat):
        return [{"bitwidth": 16, "dtype": "float"}]
    return [
        _entry_0_6_1(_Grid(grid.format, grid.symmetric, scale, zero_point))
        for scale, zero_point in zip(
            np.asarray(parameter.scale).reshape(-1), np.asarray(parameter.zero_point).reshape(-1), strict=True
        )
    ]


def _entry_0_6_1(grid: _Grid) -> dict[str, Any]:
    if isinstance(grid.format, FloatFormat):
        return {"bitwidth": 16, "dtype": "float"}
    scale, offset = numbers(grid.scale)[0], int(grid.offset[0])
    return {
        "bitwidth": grid.format.bits,
        "dtype": "int",
        "is_symmetric": str(grid.symmetric),
        "min": scale * offset,
        "max": scale * (offset + (1 << grid.format.bits) - 1),
        "offset": offset,
        "scale": scale,
    }


def _fields_1_0_0(grid: _Grid) -> dict[str, Any]:
    if isinstance(grid.format, FloatFormat):
        return {"dtype": "FLOAT", "bw": 16}
    return {
        "dtype": "INT",
        "bw": grid.format.bits,
        "is_sym": grid.symmetric,
        "scale": numbers(grid.scale),
        "offset": [int(each) for each in grid.offset],
    }


def _parameter_1_0_0(parameter: Parameter) -> dict[str, Any]:
    granularity = parameter.spec.granularity
    size = None if isinstance(parameter.spec.format, FloatFormat) else group_size(granularity)
    per_channel = isinstance(granularity, PerChannel) and not isinstance(parameter.spec.format, FloatFormat)
    kind = "PER_BLOCK" if size else "PER_CHANNEL" if per_channel else "PER_TENSOR"
    entry = {"name": parameter.layer.weight, "enc_type": kind, **_fields_1_0_0(_grid(parameter))}
    return entry if size is None else entry | {"block_size": size}


def _parameter_2_0_0(parameter: Parameter) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": parameter.layer.weight, "output_dtype": str(parameter.spec.format)}
    if parameter.scale is None or parameter.zero_point is None:
        return entry
    scale = np.array(numbers(parameter.scale)).reshape(parameter.scale.shape)
    zero_point = np.asarray(parameter.zero_point)
    size, axis = group_size(parameter.spec.granularity), parameter.block_axis
    zeros: Any
    if size is not None and axis is not None:
        entry |= {"y_scale": _as_blocks(parameter, scale, axis), "axis": axis, "block_size": size}
        zeros = _as_blocks(parameter, zero_point, axis)
    elif isinstance(parameter.spec.granularity, PerChannel):
        entry |= {"y_scale": scale.reshape(-1).tolist(), "axis": parameter.layer.channel_axis}
        zeros = zero_point.reshape(-1).tolist()
    else:
        entry["y_scale"] = float(scale.reshape(-1)[0])
        zeros = int(zero_point.reshape(-1)[0])
    if np.any(zero_point):
        entry["y_zero_point"] = zeros
    return entry


def _as_blocks(parameter: Parameter, values: Array, axis: int) -> Any:
    """Return (C, groups) values in the shape of the weight, with the groups in place of the elements along `axis`."""
    shape = [1] * len(parameter.layer.shape)
    shape[parameter.layer.channel_axis], shape[axis] = values.shape
    ordered = values if parameter.layer.channel_axis < axis else values.T
    return ordered.reshape(shape).tolist()


def _quantizer_args(material: Material) -> dict[str, Any]:
    parameters = [each.spec for each in material.parameters if isinstance(each.spec.format, IntFormat)]
    activations = [each.format.bits for each in material.activations if isinstance(each.format, IntFormat)]
    return {
        "activation_bitwidth": max(activations, default=32),
        "dtype": "int",
        "is_symmetric": all(spec.symmetric for spec in parameters),
        "param_bitwidth": max((spec.bits for spec in parameters), default=32),
        "per_channel_quantization": any(isinstance(spec.granularity, PerChannel) for spec in parameters),
        "quant_scheme": "min_max",
    }


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1) + "\n"


# --- reading -----------------------------------------------------------------------------------------------------


def recognises(text: str, version: str = "") -> bool:
    """Return whether `text` looks like encodings, of a version that starts so."""
    named = re.search(rf'"version"\s*:\s*"{re.escape(version)}', text)
    return named is not None and ('"param_encodings"' in text or '"encodings"' in text)


def read(text: str, summary: NetworkSummary) -> Imported:
    """Return the configuration of encodings of any of the three versions.

    Formats, symmetry and granularity are taken over; of activations also the range. Scales of weights belong to single
    channels and are computed anew.

    Raises:
        ExportError: the text is no such file.
    """
    value = read_json(text, "encodings")
    version = str(value.get("version", ""))
    readers: dict[str, Callable[[Mapping[str, Any]], Iterator[_Read]]] = {
        "0.6.1": _read_0_6_1,
        "1.0.0": _read_1_0_0,
        "2.0.0": _read_2_0_0,
        "2.1.0": _read_2_0_0,
    }
    if version not in readers:
        raise ExportError(f"Encodings of version '{version}' are not known; 0.6.1, 1.0.0 and 2.0.0 are.")
    try:
        tensors = list(readers[version](value))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ExportError(f"The encodings cannot be read: {type(error).__name__} at {error}.") from error
    told = value.get(_RENAMED)
    return _imported(tensors, summary, told if isinstance(told, Mapping) else {})


class _Read:
    """A tensor read: its name, and its spec (None for float)."""

    def __init__(self, name: str, spec: QuantizerSpec | None) -> None:
        self.name, self.spec = name, spec


def _spec(
    bits: int, *, symmetric: bool, channels: int, block_size: int = 0, low: float = 0.0, high: float = 0.0
) -> QuantizerSpec:
    granularity = PerGroup(block_size) if block_size else PerChannel() if channels > 1 else PerTensor()
    signed = symmetric
    usual = weight_spec(bits, granularity)
    estimator = FixedRange(min(low, 0.0), max(high, 0.0)) if high > low else usual.range_estimator
    return QuantizerSpec(IntFormat(bits, signed), symmetric, granularity, estimator)


def _read_0_6_1(value: Mapping[str, Any]) -> Iterator[_Read]:
    for part in ("param_encodings", "activation_encodings"):
        for name, entries in value.get(part, {}).items():
            first = entries[0]
            if first.get("dtype", "int") == "float":
                yield _Read(name, _float(int(first["bitwidth"])))
                continue
            bits, symmetric = int(first["bitwidth"]), str(first["is_symmetric"]).lower() == "true"
            limits = (float(first["min"]), float(first["max"])) if part == "activation_encodings" else (0.0, 0.0)
            yield _Read(name, _spec(bits, symmetric=symmetric, channels=len(entries), low=limits[0], high=limits[1]))


def _read_1_0_0(value: Mapping[str, Any]) -> Iterator[_Read]:
    for part in ("param_encodings", "activation_encodings"):
        for entry in value.get(part, ()):
            bits = int(entry["bw"])
            if entry.get("dtype", "INT") == "FLOAT":
                yield _Read(entry["name"], _float(bits))
                continue
            scale, offset = entry["scale"], entry["offset"]
            low, high = 0.0, 0.0
            if part == "activation_encodings":
                low, high = scale[0] * offset[0], scale[0] * (offset[0] + (1 << bits) - 1)
            channels = 1 if entry.get("enc_type") == "PER_TENSOR" else 2
            block = int(entry.get("block_size", 0)) if entry.get("enc_type") in ("PER_BLOCK", "LPBQ") else 0
            spec = _spec(bits, symmetric=bool(entry["is_sym"]), channels=channels, block_size=block, low=low, high=high)
            yield _Read(entry["name"], spec)


def _read_2_0_0(value: Mapping[str, Any]) -> Iterator[_Read]:
    for entry in value["encodings"]:
        fmt = parse_format(str(entry["output_dtype"]))
        if not isinstance(fmt, IntFormat):
            yield _Read(entry["name"], _float(fmt.bits) if fmt.bits >= 16 else QuantizerSpec(fmt, True, PerTensor()))
            continue
        scale = np.asarray(entry.get("y_scale", entry.get("per_channel_float_scale", 1.0)), np.float64)
        zero_point = np.asarray(entry.get("y_zero_point", 0))
        symmetric = fmt.signed and not np.any(zero_point)
        block = int(entry.get("block_size", 0))
        granularity = PerGroup(block) if block else PerChannel() if "axis" in entry else PerTensor()
        estimator = weight_spec(fmt.bits).range_estimator
        spec = QuantizerSpec(fmt, symmetric, granularity, estimator)
        if scale.size == 1:
            low = float(scale.reshape(-1)[0]) * float(fmt.quant_min - zero_point.reshape(-1)[0])
            high = float(scale.reshape(-1)[0]) * float(fmt.quant_max - zero_point.reshape(-1)[0])
            spec = QuantizerSpec(fmt, symmetric, granularity, FixedRange(min(low, 0.0), max(high, 0.0)))
        yield _Read(entry["name"], spec)


def _float(bits: int) -> QuantizerSpec | None:
    return QuantizerSpec(FloatFormat("float16"), granularity=PerTensor()) if bits == 16 else None


def _imported(tensors: Iterable[_Read], summary: NetworkSummary, renamed: Mapping[str, str]) -> Imported:
    weights = {layer.weight: layer.name for layer in summary.layers if layer.rows is None}
    inputs: dict[str, list[str]] = {}
    for layer in summary.layers:
        if layer.quantizes_activations:
            inputs.setdefault(layer.input_tensor, []).append(layer.name)
    outputs = {layer.output_tensor for layer in summary.layers}
    found: dict[str, ReadLayer] = {}
    unmatched = []
    for tensor in tensors:
        tensor.name = renamed.get(tensor.name, tensor.name)
        if tensor.name in weights:
            found.setdefault(weights[tensor.name], ReadLayer()).weights = tensor.spec
        elif tensor.name in inputs:
            for name in inputs[tensor.name]:
                found.setdefault(name, ReadLayer()).activations = tensor.spec
        elif tensor.name not in outputs:
            unmatched.append(tensor.name)
    return imported(found, unmatched, summary, known=[*weights, *inputs, *outputs], name="AIMET encodings")
