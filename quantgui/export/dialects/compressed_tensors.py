"""The ``quantization_config`` of compressed-tensors (vLLM, llm-compressor; 0.20): groups of modules with one scheme."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from quantgui.errors import ExportError
from quantgui.export.dialects.material import Imported, Material, Written, block_format, group_size, is_simple, left_out
from quantgui.export.dialects.reading import ReadLayer, imported, matching, module_name, read_json
from quantgui.results import LayerInfo, NetworkSummary
from quantgui.spec.formats import Format, IntFormat, parse_format
from quantgui.spec.granularity import PerBlock, PerChannel, PerGroup, PerTensor
from quantgui.spec.presets import activation_spec
from quantgui.spec.quantizer import BLOCK_FORMATS, LayerSpec, MinMax, QuantizerSpec

_LINEAR = ("Gemm", "MatMul")
_BLOCKS = {"mxfp8_e4m3": (8, 32), "mxfp6_e2m3": (6, 32), "mxfp4": (4, 32), "nvfp4": (4, 16)}
"""Block format -> bits of its floats, and values in a block."""
_E8M0, _E4M3 = "torch.uint8", "torch.float8_e4m3fn"
_COMPRESSORS = {
    "mxfp8_e4m3": "mxfp8-quantized", "mxfp6_e2m3": "mxfp6-pack-quantized", "mxfp4": "mxfp4-pack-quantized",
    "nvfp4": "nvfp4-pack-quantized", "float8_e4m3fn": "float-quantized",
}  # fmt: skip


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
        elif not _fits(layer, spec):
            unknown.append(layer.name)
            ignored.append(module_name(layer))
        else:
            groups.setdefault(spec, []).append(f"re:^{re.escape(module_name(layer))}$")
    formats = {_compressor(spec) for spec in groups}
    value = {
        "quant_method": "compressed-tensors",
        "format": formats.pop() if len(formats) == 1 else "mixed-precision" if formats else "dense",
        "quantization_status": "initialized",
        "config_groups": {
            f"group_{number}": {
                "targets": targets,
                "format": _compressor(spec),
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


def _fits(layer: LayerInfo, spec: LayerSpec) -> bool:
    if spec.weights is None or _arguments(spec.weights) is None:
        return False
    if spec.activations is not None and _arguments(spec.activations) is None:
        return False
    size = group_size(spec.weights.granularity)
    return size is None or layer.elements_per_channel % size == 0


def _compressor(spec: LayerSpec) -> str:
    """Return the name of the layout in which such weights are stored."""
    assert spec.weights is not None
    if str(spec.weights) in _COMPRESSORS:
        return _COMPRESSORS[str(spec.weights)]
    return "pack-quantized" if spec.activations is None else "int-quantized"


def _arguments(spec: QuantizerSpec | None) -> dict[str, Any] | None:
    if spec is None:
        return None
    block = block_format(spec)
    if block in _BLOCKS:
        bits, size = _BLOCKS[block]
        strategy, scale = ("tensor_group", _E4M3) if block == "nvfp4" else ("group", _E8M0)
        return {
            "num_bits": bits, "type": "float", "symmetric": True, "dynamic": False, "strategy": strategy,
            "group_size": size, "scale_dtype": scale,
        }  # fmt: skip
    if not is_simple(spec):
        return None
    if isinstance(spec.format, IntFormat) and spec.format.bits <= 8:
        value: dict[str, Any] = {"num_bits": spec.format.bits, "type": "int"}
    elif str(spec.format) == "float8_e4m3fn":
        value = {"num_bits": 8, "type": "float"}
    else:
        return None
    value |= {"symmetric": spec.symmetric, "dynamic": False}
    match spec.granularity:
        case PerGroup(group_size=size):
            return value | {"strategy": "group", "group_size": size}
        case PerBlock(rows, columns):
            return value | {"strategy": "block", "block_structure": [rows, columns]}
        case _:
            pass
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
                found[layer.name] = ReadLayer(
                    _spec(group.get("weights")), _spec(group.get("input_activations"), activations=True)
                )
    for target in value.get("ignore", ()):
        for layer in matching(str(target), linear):
            found.pop(layer.name, None)
    known = [module_name(layer) for layer in linear]
    return imported(found, unmatched, summary, known=known, name="compressed-tensors")


def _spec(value: Mapping[str, Any] | None, *, activations: bool = False) -> QuantizerSpec | None:
    if value is None:
        return None
    bits, symmetric = int(value.get("num_bits", 8)), bool(value.get("symmetric", True))
    if value.get("type", "int") == "float":
        scale = str(value.get("scale_dtype") or "")
        size = int(value.get("group_size") or 0)
        for name, (width, count) in _BLOCKS.items():
            if (width, count) == (bits, size) and (name == "nvfp4" or scale.endswith("uint8")):
                return BLOCK_FORMATS[name] if not activations else None
        if bits != 8:
            raise ExportError(f"Floats of {bits} bits in groups of {size} are no format of compressed-tensors.")
        fmt: Format = parse_format("float8_e4m3fn")
    else:
        fmt = IntFormat(bits)
    if activations:
        return activation_spec(bits) if isinstance(fmt, IntFormat) else QuantizerSpec(fmt, True, PerTensor(), MinMax())
    match value.get("strategy", "group" if value.get("group_size") else "tensor"):
        case "group" | "tensor_group":
            return QuantizerSpec(fmt, symmetric, PerGroup(int(value.get("group_size") or 128)), MinMax())
        case "block":
            rows, columns = value.get("block_structure") or (128, 128)
            return QuantizerSpec(fmt, symmetric, PerBlock(int(rows), int(columns)), MinMax())
        case "channel":
            return QuantizerSpec(fmt, symmetric, PerChannel(), MinMax())
        case _:
            return QuantizerSpec(fmt, symmetric, PerTensor(), MinMax())
