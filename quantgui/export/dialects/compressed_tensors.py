"""The ``quantization_config`` of compressed-tensors (vLLM, llm-compressor; 0.20): groups of modules with one scheme."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from quantgui.errors import ExportError
from quantgui.export.dialects.material import Imported, Material, Written, group_size, left_out
from quantgui.export.dialects.reading import ReadLayer, imported, matching, module_name, read_json
from quantgui.results import NetworkSummary
from quantgui.spec.formats import IntFormat, parse_format
from quantgui.spec.granularity import PerChannel, PerGroup, PerTensor
from quantgui.spec.presets import activation_spec
from quantgui.spec.quantizer import LayerSpec, MinMax, QuantizerSpec

_LINEAR = ("Gemm", "MatMul")
_FLOATS = {"float8_e4m3fn": 8, "float4_e2m1": 4}


def write(material: Material) -> Written:
    """Return the configuration; layers that share a spec share a group, the rest is ignored."""
    groups: dict[LayerSpec, list[str]] = {}
    ignored, unknown, others = [], [], []
    for layer in material.summary.layers:
        spec = material.spec_of(layer)
        if layer.op not in _LINEAR or layer.rows is not None:
            if spec.weights is not None and not layer.read_only:
                others.append(layer.name)
            continue
        if layer.read_only or (spec.weights is None and spec.activations is None):
            ignored.append(module_name(layer))
        elif spec.weights is None or _arguments(spec.weights) is None:
            unknown.append(layer.name)
            ignored.append(module_name(layer))
        else:
            groups.setdefault(spec, []).append(f"re:^{re.escape(module_name(layer))}$")
    value = {
        "quant_method": "compressed-tensors",
        "format": "mixed-precision" if len(groups) > 1 else "pack-quantized",
        "quantization_status": "initialized",
        "config_groups": {
            f"group_{number}": {
                "targets": targets,
                "weights": _arguments(spec.weights),
                "input_activations": None if spec.activations is None else _arguments(spec.activations),
            }
            for number, (spec, targets) in enumerate(groups.items())
        },
        "ignore": ignored,
    }
    notes = (
        *left_out(others, "as compressed-tensors is for linear layers"),
        *left_out(unknown, "as compressed-tensors has no such quantizer"),
    )
    return Written(json.dumps(value, indent=1) + "\n", notes)


def _arguments(spec: QuantizerSpec | None) -> dict[str, Any] | None:
    if spec is None:
        return None
    if isinstance(spec.format, IntFormat):
        value: dict[str, Any] = {"num_bits": spec.format.bits, "type": "int"}
    elif str(spec.format) in _FLOATS:
        value = {"num_bits": _FLOATS[str(spec.format)], "type": "float"}
    else:
        return None
    value |= {"symmetric": spec.symmetric, "dynamic": False}
    size = group_size(spec.granularity)
    if size is not None:
        return value | {"strategy": "group", "group_size": size}
    if not isinstance(spec.granularity, PerTensor | PerChannel):
        return None
    return value | {"strategy": "channel" if isinstance(spec.granularity, PerChannel) else "tensor"}


def recognises(text: str) -> bool:
    """Return whether `text` looks like such a configuration."""
    return '"config_groups"' in text


def read(text: str, summary: NetworkSummary) -> Imported:
    """Return the configuration of ``config_groups``; targets are names, ``re:`` expressions or ``Linear``.

    Raises:
        ExportError: the text is no such file.
    """
    value = read_json(text, "compressed-tensors settings")
    value = value.get("quantization_config", value)
    groups = value.get("config_groups")
    if not isinstance(groups, Mapping):
        raise ExportError("The file holds no 'config_groups', so it is no configuration of compressed-tensors.")
    linear = [layer for layer in summary.layers if layer.op in _LINEAR and layer.rows is None]
    found: dict[str, ReadLayer] = {}
    unmatched = []
    for group in groups.values():
        for target in group.get("targets", ()):
            layers = linear if target == "Linear" else matching(str(target), linear)
            if not layers and target != "Linear":
                unmatched.append(str(target))
            for layer in layers:
                found[layer.name] = ReadLayer(_spec(group.get("weights")), _spec(group.get("input_activations"), True))
    for target in value.get("ignore", ()):
        for layer in matching(str(target), linear):
            found.pop(layer.name, None)
    known = [module_name(layer) for layer in linear]
    return imported(found, unmatched, summary, known=known, name="compressed-tensors")


def _spec(value: Mapping[str, Any] | None, activations: bool = False) -> QuantizerSpec | None:  # noqa: FBT001, FBT002
    if value is None:
        return None
    bits, symmetric = int(value.get("num_bits", 8)), bool(value.get("symmetric", True))
    if value.get("type", "int") == "float":
        name = next((name for name, width in _FLOATS.items() if width == bits), None)
        if name is None:
            raise ExportError(f"Floats of {bits} bits are not known to compressed-tensors.")
        fmt = parse_format(name)
    else:
        fmt = IntFormat(bits)
    if activations:
        return activation_spec(bits) if isinstance(fmt, IntFormat) else QuantizerSpec(fmt, True, PerTensor(), MinMax())
    match value.get("strategy", "group" if value.get("group_size") else "tensor"):
        case "group" | "tensor_group":
            return QuantizerSpec(fmt, symmetric, PerGroup(int(value.get("group_size") or 128)), MinMax())
        case "channel":
            return QuantizerSpec(fmt, symmetric, PerChannel(), MinMax())
        case _:
            return QuantizerSpec(fmt, symmetric, PerTensor(), MinMax())
