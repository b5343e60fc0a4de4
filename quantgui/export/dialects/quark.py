"""AMD Quark's ``QConfig`` for ONNX as its `to_dict` writes it (0.13): groups of nodes with one config each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from quantgui.errors import ExportError
from quantgui.export.dialects.material import Folded, Imported, Material, Written, block_format, is_simple, left_out
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
    """Return the configuration; layers that stay float are excluded.

    Quark takes the type and the symmetry of a single layer, but granularity, calibration and the kind of scale from the
    global settings alone, so the commonest spec stands there.
    """
    groups: dict[LayerSpec, list[str]] = {}
    excluded: list[str] = []
    unknown: list[str] = []
    alone: list[str] = []
    wanted = [(layer, material.spec_of(layer)) for layer in material.summary.layers]
    with_activations = any(
        layer.quantizes_activations and spec.activations is not None and _fits(spec) for layer, spec in wanted
    )
    names: dict[LayerSpec, list[str]] = {}
    for layer, spec in wanted:
        if not layer.quantizes_activations and with_activations and spec.weights is not None:
            # What has no activations to quantize takes whatever is said of them.
            spec = replace(spec, activations=spec.activations or _EIGHT)  # noqa: PLW2901 -- the rest goes by it
        if spec.weights is None and spec.activations is None:
            excluded += layer.users
        elif not _fits(spec):
            unknown.append(layer.name)
            excluded += layer.users
        elif with_activations and (spec.activations is None or spec.weights is None):
            alone.append(layer.name)
            excluded += layer.users
        else:
            groups.setdefault(spec, []).extend(layer.users)
            names.setdefault(spec, []).append(layer.name)
    everywhere = max(groups, key=lambda spec: len(groups[spec]), default=LayerSpec(_EIGHT, _EIGHT))
    value: dict[str, Any] = {
        "global_config": _layer(everywhere, whole=True),
        "specific_layer_config": [
            [_layer(spec), list(dict.fromkeys(nodes))] for spec, nodes in groups.items() if spec != everywhere
        ],
        "layer_type_config": [],
        "exclude": list(dict.fromkeys(excluded)),
        "algo_config": [],
        "use_external_data_format": False,
    }
    renamed = _renamed(value, material.folded)
    if renamed:
        value["folded_names"] = renamed
    if everywhere.activations is None:
        value["extra_options"] = {"WeightsOnly": True}
    others = [name for spec, each in names.items() if _manner(spec) != _manner(everywhere) for name in each]
    notes = (
        *left_out(unknown, "as Quark has no such quantizer for ONNX"),
        *left_out(alone, "as Quark quantizes weights and activations of all layers, or weights of all"),
        *_told_apart(others),
    )
    return Written(json.dumps(value, indent=1) + "\n", notes)


def _renamed(value: Mapping[str, Any], folded: Mapping[str, Folded]) -> dict[str, str]:
    """Add to each list of nodes what Quark calls them once it has folded BatchNormalization; return those names.

    Quark itself passes over the table of these names; it is for reading the file back.
    """
    found: dict[str, str] = {}
    for names in (value["exclude"], *(names for _, names in value["specific_layer_config"])):
        more = {name: folded[name].now for name in names if name in folded}
        names.extend(more.values())
        found |= more
    return found


_EIGHT = QuantizerSpec(IntFormat(8), True, PerTensor(), MinMax())


def _manner(spec: LayerSpec) -> tuple[object, ...]:
    """Return what Quark takes from its global settings alone."""
    keys = ("scale_type", "calibration_method", "quant_granularity")
    parts = [None if part is None else _tensor(part) for part in (spec.weights, spec.activations)]
    return tuple(part[key] for part in parts if part is not None for key in keys)


def _told_apart(names: list[str]) -> tuple[str, ...]:
    if not names:
        return ()
    shown = ", ".join(f"'{name}'" for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    rest = "granularity, calibration and the kind of scale are those of its global settings"
    return (f"Quark takes only type and symmetry of {shown}{more}: {rest}.",)


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


def _layer(spec: LayerSpec, *, whole: bool = False) -> dict[str, Any]:
    """Return the settings of a layer; global ones must be `whole`, even where only weights are quantized."""
    told = {}
    if spec.activations is not None or whole:
        told["input_tensors"] = _tensor(spec.activations or _EIGHT)
    if spec.weights is not None or whole:
        told["weight"] = _tensor(spec.weights or _EIGHT)
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
    weights_only = bool((value.get("extra_options") or {}).get("WeightsOnly"))
    everywhere = _read_layer(value["global_config"])
    if weights_only:
        everywhere.activations = None
    found = {
        layer.name: ReadLayer() if layer.keeps_float else ReadLayer(everywhere.weights, everywhere.activations)
        for layer in summary.layers
    }
    unmatched = []
    after_folding = set((value.get("folded_names") or {}).values())
    groups = [*value.get("layer_type_config", ()), *value.get("specific_layer_config", ())]
    groups.append((None, value.get("exclude")))
    for config, names in groups:
        for name in names or ():
            if name in after_folding:
                continue
            layers = [x for x in summary.layers if x.op == name] or matching(str(name), summary.layers)
            if not layers:
                unmatched.append(str(name))
            for layer in layers:
                found[layer.name] = ReadLayer() if config is None else _read_layer(config, everywhere)
    return imported(found, unmatched, summary, known=[layer.name for layer in summary.layers], name="Quark")


def _read_layer(value: Mapping[str, Any], everywhere: ReadLayer | None = None) -> ReadLayer:
    """Return what is said of a layer; what is not said is as it is `everywhere`."""
    default = everywhere or ReadLayer()
    weight, activation = value.get("weight"), value.get("input_tensors") or value.get("activation")
    return ReadLayer(
        default.weights if weight is None else _read_tensor(weight),
        default.activations if activation is None else _read_tensor(activation),
    )


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
