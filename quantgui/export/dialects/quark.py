"""AMD Quark's ``QConfig`` for ONNX as its `to_dict` writes it (0.13): groups of nodes with one config each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from quantgui.errors import ExportError
from quantgui.export.dialects.material import Imported, Material, Written, block_format, is_simple, left_out
from quantgui.export.dialects.reading import ReadLayer, imported, matching, read_json
from quantgui.results import NetworkSummary
from quantgui.spec.formats import FloatFormat, IntFormat, parse_format
from quantgui.spec.granularity import Granularity, PerChannel, PerGroup, PerTensor
from quantgui.spec.quantizer import (
    BLOCK_FORMATS,
    Entropy,
    LayerSpec,
    LeastSquaredError,
    MinMax,
    Percentile,
    QuantizerSpec,
    RangeEstimator,
)

_TYPES = {
    "int8": "Int8", "uint8": "UInt8", "int16": "Int16", "uint16": "UInt16",
    "float16": "Float16", "bfloat16": "BFloat16",
}  # fmt: skip
_BLOCKS = {
    "mxfp8_e4m3": "MXFP8E4M3", "mxfp8_e5m2": "MXFP8E5M2", "mxfp6_e2m3": "MXFP6E2M3", "mxfp6_e3m2": "MXFP6E3M2",
    "mxfp4": "MXFP4E2M1", "mxint8": "MXInt8",
}  # fmt: skip
_FORMATS = {quark.lower(): name for name, quark in (_TYPES | _BLOCKS).items()}


def write(material: Material) -> Written:
    """Return the configuration; layers that stay float are excluded."""
    groups: dict[LayerSpec, list[str]] = {}
    excluded: list[str] = []
    unknown: list[str] = []
    for layer in material.summary.layers:
        spec = material.spec_of(layer)
        if spec.weights is None and spec.activations is None:
            excluded += layer.users
        elif not _fits(spec):
            unknown.append(layer.name)
            excluded += layer.users
        else:
            groups.setdefault(spec, []).extend(layer.users)
    eight = _tensor(QuantizerSpec(IntFormat(8), True, PerTensor()))
    value = {
        "global_config": {"activation": eight, "weight": eight},
        "specific_layer_config": [[_layer(spec), list(dict.fromkeys(nodes))] for spec, nodes in groups.items()],
        "layer_type_config": [],
        "exclude": list(dict.fromkeys(excluded)),
        "algo_config": [],
        "use_external_data_format": False,
    }
    return Written(json.dumps(value, indent=1) + "\n", left_out(unknown, "as Quark has no such quantizer for ONNX"))


def _fits(spec: LayerSpec) -> bool:
    return all(each is None or _type(each) is not None for each in (spec.weights, spec.activations))


def _type(spec: QuantizerSpec) -> str | None:
    """Return Quark's name of the type; None if it has none."""
    if (block := block_format(spec)) in _BLOCKS:
        return _BLOCKS[block]
    if not isinstance(spec.granularity, PerTensor | PerChannel) or not is_simple(replace(spec, scale_format="float32")):
        return None
    is_power = spec.scale_format == "e8m0" and isinstance(spec.format, IntFormat)
    return _TYPES.get(str(spec.format)) if spec.scale_format == "float32" or is_power else None


def _layer(spec: LayerSpec) -> dict[str, Any]:
    told = {}
    if spec.activations is not None:
        told["activation"] = _tensor(spec.activations)
    if spec.weights is not None:
        told["weight"] = _tensor(spec.weights)
    return told


def _tensor(spec: QuantizerSpec) -> dict[str, Any]:
    power = spec.scale_format == "e8m0" and not block_format(spec)
    return {
        "symmetric": spec.symmetric,
        "scale_type": f"ScaleType.{'PowerOf2' if power else 'Float32'}",
        "calibration_method": f"CalibMethod.{_method(spec.range_estimator)}",
        "quant_granularity": f"QuantGranularity.{'Channel' if isinstance(spec.granularity, PerChannel) else 'Tensor'}",
        "data_type": _type(spec),
    }


def _method(estimator: RangeEstimator) -> str:
    match estimator:
        case Percentile():
            return "Percentile"
        case LeastSquaredError():
            return "MinMSE"
        case Entropy():
            return "Entropy"
        case _:
            return "MinMax"


def recognises(text: str) -> bool:
    """Return whether `text` looks like such a configuration."""
    return '"global_config"' in text and '"specific_layer_config"' in text


def read(text: str, summary: NetworkSummary) -> Imported:
    """Return the configuration of a ``QConfig``.

    Raises:
        ExportError: the text is no such file, or has a type that is not known here.
    """
    value = read_json(text, "Quark settings")
    if "global_config" not in value:
        raise ExportError("The file holds no 'global_config', so it is no QConfig of Quark.")
    everywhere = _read_layer(value["global_config"])
    found = {
        layer.name: ReadLayer() if layer.keeps_float else ReadLayer(everywhere.weights, everywhere.activations)
        for layer in summary.layers
    }
    unmatched = []
    groups = [*value.get("layer_type_config", ()), *value.get("specific_layer_config", ())]
    groups.append((None, value.get("exclude")))
    for config, names in groups:
        for name in names or ():
            layers = [x for x in summary.layers if x.op == name] or matching(str(name), summary.layers)
            if not layers:
                unmatched.append(str(name))
            for layer in layers:
                found[layer.name] = ReadLayer() if config is None else _read_layer(config)
    return imported(found, unmatched, summary, known=[layer.name for layer in summary.layers], name="Quark")


def _read_layer(value: Mapping[str, Any]) -> ReadLayer:
    activation = value.get("activation") or value.get("input_tensors")
    return ReadLayer(_read_tensor(value.get("weight")), _read_tensor(activation))


def _read_tensor(value: Mapping[str, Any] | None) -> QuantizerSpec | None:
    if value is None:
        return None
    word = str(value.get("data_type", "Int8"))
    if word.lower() not in _FORMATS:
        raise ExportError(f"Quark's type '{word}' is not known here.")
    name = _FORMATS[word.lower()]
    if name in BLOCK_FORMATS:
        return BLOCK_FORMATS[name]
    fmt = parse_format(name)
    if isinstance(fmt, FloatFormat):
        return QuantizerSpec(fmt, granularity=PerTensor())
    granularity = str(value.get("quant_granularity", "QuantGranularity.Tensor")).rpartition(".")[2]
    where: Granularity = PerTensor()
    if granularity in ("Channel", "Group"):
        where = PerChannel() if granularity == "Channel" else PerGroup(128)
    methods: dict[str, RangeEstimator] = {
        "Percentile": Percentile(), "MinMSE": LeastSquaredError(), "Entropy": Entropy(),
    }  # fmt: skip
    method = str(value.get("calibration_method", "")).rpartition(".")[2]
    power = str(value.get("scale_type", "")).endswith("PowerOf2")
    return QuantizerSpec(
        fmt,
        bool(value.get("symmetric", True)),
        where,
        methods.get(method, MinMax()),
        scale_format="e8m0" if power else "float32",
    )
