"""torchao's ``FqnToConfig`` as `config_to_dict` writes it (0.18): one config for each linear module, by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from quantgui.errors import ExportError
from quantgui.export.dialects.material import (
    Imported,
    Material,
    Written,
    block_format,
    group_size,
    is_simple,
    left_out,
)
from quantgui.export.dialects.reading import ReadLayer, imported, matching, module_name, read_json
from quantgui.results import LayerInfo, NetworkSummary
from quantgui.spec.formats import FloatFormat, Format, IntFormat, parse_format
from quantgui.spec.granularity import Granularity, PerChannel, PerGroup, PerTensor
from quantgui.spec.presets import activation_spec
from quantgui.spec.quantizer import BLOCK_FORMATS, LayerSpec, MinMax, QuantizerSpec

_LINEAR = ("Gemm", "MatMul")


def write(material: Material) -> Written:
    """Return the configuration; only linear layers are in it, as torchao quantizes no others."""
    entries: dict[str, Any] = {}
    others, unknown, static = [], [], []
    for layer in material.summary.layers:
        spec = material.spec_of(layer)
        if spec.weights is None or layer.read_only:
            continue
        config = _config(layer, spec)
        if layer.op not in _LINEAR or layer.rows is not None:
            others.append(layer.name)
        elif config is None:
            unknown.append(layer.name)
        else:
            entries[module_name(layer)] = config
            if spec.activations is not None:
                static.append(layer.name)
    value = {
        "_type": "FqnToConfig",
        "_version": 1,
        "_data": {"fqn_to_config": entries, "module_fqn_to_config": entries},
    }
    notes = (
        *left_out(others, "as torchao quantizes linear layers only"),
        *left_out(unknown, "as torchao has no such quantizer"),
    )
    if static:
        notes += ("torchao quantizes these activations anew for each row at run time, not with ranges of the data.",)
    return Written(json.dumps(value, indent=1) + "\n", notes)


def _config(layer: LayerInfo, spec: LayerSpec) -> dict[str, Any] | None:
    weights = spec.weights
    assert weights is not None
    fmt = weights.format
    if block_format(weights) == "nvfp4" and spec.activations is None:
        return _node("NVFP4WeightOnlyConfig", 1, use_dynamic_per_tensor_scale=True)
    if not is_simple(weights):
        return None
    if str(fmt) == "float8_e4m3fn":
        return _float8(weights.granularity, spec.activations)
    if spec.activations is not None and str(spec.activations.format) not in ("int8", "uint8"):
        return None
    if not isinstance(fmt, IntFormat) or not fmt.signed or fmt.bits > 8:
        return None
    granularity = _granularity(weights.granularity)
    if granularity is None or _has_remainder(layer, weights.granularity):
        return None
    mapping = "SYMMETRIC" if weights.symmetric else "ASYMMETRIC"
    common = {
        "intx_packing_format": _enum("IntxPackingFormat", "UNPACKED_TO_INT8"),
        "intx_choose_qparams_algorithm": _enum("IntxChooseQParamsAlgorithm", "AFFINE"),
    }
    dtype = _enum("torch.dtype", f"int{fmt.bits}")
    if spec.activations is None:
        return _node(
            "IntxWeightOnlyConfig", 2, weight_dtype=dtype, granularity=granularity,
            mapping_type=_enum("MappingType", mapping), scale_dtype=None, **common,
        )  # fmt: skip
    return _node(
        "Int8DynamicActivationIntxWeightConfig", 2, weight_dtype=dtype, weight_granularity=granularity,
        weight_mapping_type=_enum("MappingType", mapping), weight_scale_dtype=None,
        act_mapping_type=_enum("MappingType", "SYMMETRIC" if spec.activations.symmetric else "ASYMMETRIC"), **common,
    )  # fmt: skip


def _float8(granularity: Granularity, activations: QuantizerSpec | None) -> dict[str, Any] | None:
    """Return the config of E4M3 weights per channel, alone or beside E4M3 activations."""
    if not isinstance(granularity, PerChannel):
        return None
    dtype, rows = _enum("torch.dtype", "float8_e4m3fn"), _node("PerRow", 1, dim=-1)
    if activations is None:
        return _node(
            "Float8WeightOnlyConfig", 2, weight_dtype=dtype, set_inductor_config=True, granularity=rows
        )  # fmt: skip
    if str(activations) != "float8_e4m3fn":
        return None
    return _node(
        "Float8DynamicActivationFloat8WeightConfig", 2, activation_dtype=dtype, weight_dtype=dtype,
        granularity=[rows, rows],
    )  # fmt: skip


def _has_remainder(layer: LayerInfo, granularity: Granularity) -> bool:
    size = group_size(granularity)
    return size is not None and layer.elements_per_channel % size != 0


def _granularity(granularity: Granularity) -> dict[str, Any] | None:
    size = group_size(granularity)
    if size is not None:
        return _node("PerGroup", 1, group_size=size)
    return _node("PerAxis", 1, axis=0) if isinstance(granularity, PerChannel) else None


def _node(kind: str, version: int, **data: object) -> dict[str, Any]:
    return {"_type": kind, "_version": version, "_data": data}


def _enum(kind: str, value: str) -> dict[str, str]:
    return {"_type": kind, "_data": value}


def recognises(text: str) -> bool:
    """Return whether `text` looks like such a configuration."""
    return '"FqnToConfig"' in text or '"ModuleFqnToConfig"' in text


def read(text: str, summary: NetworkSummary) -> Imported:
    """Return the configuration of a serialized ``FqnToConfig``; its expressions (``re:``) and ``_default`` count.

    Raises:
        ExportError: the text is no such file, or has a config that is not known here.
    """
    value = read_json(text, "torchao settings")
    data = value.get("_data")
    entries = None if not isinstance(data, Mapping) else data.get("fqn_to_config", data.get("module_fqn_to_config"))
    if not isinstance(entries, Mapping):
        raise ExportError("The file holds no 'fqn_to_config', so it is no FqnToConfig of torchao.")
    linear = [layer for layer in summary.layers if layer.op in _LINEAR and layer.rows is None]
    found: dict[str, ReadLayer] = {}
    unmatched = []
    if (default := entries.get("_default")) is not None:
        found = {layer.name: _read_config(default) for layer in linear}
    # Names win over expressions, the first expression over later ones.
    named = sorted((name for name in entries if name != "_default"), key=lambda name: not name.startswith("re:"))
    for name in [*reversed([n for n in named if n.startswith("re:")]), *[n for n in named if not n.startswith("re:")]]:
        layers = matching(name, summary.layers)
        if not layers:
            unmatched.append(name)
        for layer in layers:
            found[layer.name] = ReadLayer() if entries[name] is None else _read_config(entries[name])
    known = [module_name(layer) for layer in summary.layers]
    return imported(found, unmatched, summary, known=known, name="torchao")


def _read_config(value: Mapping[str, Any]) -> ReadLayer:
    kind, data = value.get("_type"), value.get("_data", {})
    eight = QuantizerSpec(IntFormat(8), True, PerChannel(), MinMax())
    match kind:
        case "IntxWeightOnlyConfig":
            return ReadLayer(_read_weights(data, ""))
        case "Int8DynamicActivationIntxWeightConfig":
            return ReadLayer(_read_weights(data, "weight_"), activation_spec(8))
        case "Int8WeightOnlyConfig":
            size = data.get("group_size")
            return ReadLayer(QuantizerSpec(IntFormat(8), True, PerGroup(size) if size else PerChannel(), MinMax()))
        case "Int8DynamicActivationInt8WeightConfig" | "Int8StaticActivationInt8WeightConfig":
            return ReadLayer(eight, activation_spec(8))
        case "Int4WeightOnlyConfig":
            return ReadLayer(QuantizerSpec(IntFormat(4), True, PerGroup(int(data.get("group_size", 128))), MinMax()))
        case "Float8WeightOnlyConfig":
            fmt = parse_format(str(data.get("weight_dtype", {}).get("_data", "float8_e4m3fn")))
            return ReadLayer(QuantizerSpec(fmt, True, PerChannel(), MinMax()))
        case "Float8DynamicActivationFloat8WeightConfig":
            float8 = parse_format("float8_e4m3fn")
            weights = QuantizerSpec(float8, True, PerChannel(), MinMax())
            return ReadLayer(weights, QuantizerSpec(float8, True, PerTensor(), MinMax()))
        case "NVFP4WeightOnlyConfig":
            return ReadLayer(BLOCK_FORMATS["nvfp4"])
        case _:
            raise ExportError(f"torchao's '{kind}' is not known here, so the file cannot be taken over.")


def _read_weights(data: Mapping[str, Any], prefix: str) -> QuantizerSpec:
    fmt: Format = parse_format(str(data["weight_dtype"]["_data"]))
    if isinstance(fmt, FloatFormat):
        return QuantizerSpec(fmt, granularity=PerTensor())
    granularity = data[f"{prefix}granularity"]
    mapping = data[f"{prefix}mapping_type"]["_data"]
    size = granularity["_data"].get("group_size") if granularity["_type"] == "PerGroup" else None
    return QuantizerSpec(fmt, mapping != "ASYMMETRIC", PerGroup(size) if size else PerChannel(), MinMax())
