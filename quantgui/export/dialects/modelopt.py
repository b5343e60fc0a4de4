"""NVIDIA Model-Optimizer's ``quant_cfg`` (0.47): a list of patterns of quantizers' names, of which later ones win."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from typing import Any

from quantgui.errors import ExportError
from quantgui.export.dialects.material import Imported, Material, Written, group_size, left_out
from quantgui.export.dialects.reading import ReadLayer, imported, module_name, read_json
from quantgui.results import LayerInfo, NetworkSummary
from quantgui.spec.formats import IntFormat, parse_format
from quantgui.spec.granularity import PerChannel, PerGroup, PerTensor
from quantgui.spec.presets import activation_spec
from quantgui.spec.quantizer import MinMax, QuantizerSpec

_FLOATS = {"float8_e4m3fn": [4, 3], "float8_e5m2": [5, 2], "float4_e2m1": [2, 1]}


def write(material: Material) -> Written:
    """Return the settings as JSON; everything is off, then each layer is switched on."""
    entries: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    unknown, parts = [], []
    for layer in material.summary.layers:
        spec = material.spec_of(layer)
        if layer.read_only or (spec.weights is None and spec.activations is None):
            continue
        if layer.rows is not None:
            parts.append(layer.name)
            continue
        name = _escaped(module_name(layer))
        weights = None if spec.weights is None else _attributes(spec.weights, layer, weight=True)
        activations = None
        if spec.activations is not None and layer.quantizes_activations:
            activations = _attributes(spec.activations, layer, weight=False)
            if activations is None:
                unknown.append(layer.name)
                continue
        if spec.weights is not None and weights is None:
            unknown.append(layer.name)
            continue
        if weights is not None:
            entries.append({"quantizer_name": f"{name}.weight_quantizer", "cfg": weights})
        if activations is not None:
            entries.append({"quantizer_name": f"{name}.input_quantizer", "cfg": activations})
    notes = (
        *left_out(unknown, "as Model-Optimizer has no such quantizer"),
        *left_out(parts, "as Model-Optimizer does not tell the gates of recurrent weights apart"),
    )
    return Written(json.dumps({"quant_cfg": entries, "algorithm": "max"}, indent=1) + "\n", notes)


def _escaped(name: str) -> str:
    """Return a pattern that matches `name` and nothing else."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _attributes(spec: QuantizerSpec, layer: LayerInfo, *, weight: bool) -> dict[str, Any] | None:
    """Return what a quantizer is told; JSON keys of ``block_sizes`` are text."""
    bits: Any
    if isinstance(spec.format, IntFormat):
        if not spec.symmetric and weight:
            return None
        bits = spec.format.bits
    elif str(spec.format) in _FLOATS:
        bits = _FLOATS[str(spec.format)]
    else:
        return None
    value: dict[str, Any] = {"num_bits": bits}
    size = group_size(spec.granularity)
    if size is not None:
        return value | {"block_sizes": {"-1": size}}
    if not isinstance(spec.granularity, PerTensor | PerChannel):
        return None
    return value | {"axis": _torch_channel_axis(layer) if isinstance(spec.granularity, PerChannel) else None}


def _torch_channel_axis(layer: LayerInfo) -> int:
    return 1 if layer.op == "ConvTranspose" else 0


def recognises(text: str) -> bool:
    """Return whether `text` looks like such settings."""
    return '"quant_cfg"' in text and '"quantizer_name"' in text


def read(text: str, summary: NetworkSummary) -> Imported:
    """Return the configuration of a ``quant_cfg`` list; later entries win, patterns match as by fnmatch.

    Raises:
        ExportError: the text is no such file.
    """
    entries = read_json(text, "Model-Optimizer settings").get("quant_cfg")
    if not isinstance(entries, list) or not all(isinstance(each, Mapping) for each in entries):
        raise ExportError("The file holds no list 'quant_cfg'; older forms of Model-Optimizer are not read.")
    found: dict[str, ReadLayer] = {}
    unmatched = []
    for entry in entries:
        pattern = str(entry.get("quantizer_name", "*"))
        matched = False
        for layer in summary.layers:
            for part in ("weight_quantizer", "input_quantizer"):
                if fnmatch.fnmatchcase(f"{module_name(layer)}.{part}", pattern):
                    matched = True
                    _apply(found.setdefault(layer.name, ReadLayer()), part, entry)
        # Quantizers of outputs and of attention have no counterpart here.
        if not matched and pattern.endswith(("weight_quantizer", "input_quantizer")):
            unmatched.append(pattern.rsplit(".", 1)[0])
    return imported(found, unmatched, summary, known=[module_name(x) for x in summary.layers], name="Model-Optimizer")


def _apply(layer: ReadLayer, part: str, entry: Mapping[str, Any]) -> None:
    settings = entry.get("cfg")
    if entry.get("enable", True) is False:
        spec = None
    elif isinstance(settings, Mapping):
        spec = _spec(settings, weight=part == "weight_quantizer")
    else:
        return
    if part == "weight_quantizer":
        layer.weights = spec
    else:
        layer.activations = spec


def _spec(settings: Mapping[str, Any], *, weight: bool) -> QuantizerSpec:
    bits = settings.get("num_bits", 8)
    blocks = settings.get("block_sizes") or {}
    size = blocks.get("-1", blocks.get(-1))
    granularity = PerGroup(int(size)) if size else PerTensor() if settings.get("axis") is None else PerChannel()
    if isinstance(bits, int):
        return QuantizerSpec(IntFormat(bits), True, granularity, MinMax()) if weight else activation_spec(bits)
    name = next((name for name, pair in _FLOATS.items() if list(bits) == pair), None)
    if name is None:
        raise ExportError(f"Model-Optimizer's format {bits} is not known here.")
    return QuantizerSpec(parse_format(name), True, granularity if weight else PerTensor(), MinMax())
