"""A recipe of NVIDIA Model-Optimizer (0.47): patterns of quantizers' names, of which later ones win.

It is YAML, as `load_recipe` wants it, written so that it is JSON but for the axes of blocks. Only that form is read.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping
from typing import Any

from quantgui.errors import ExportError
from quantgui.export.dialects.material import Imported, Material, Written, block_format, group_size, is_simple, left_out
from quantgui.export.dialects.reading import ReadLayer, imported, module_name, read_json
from quantgui.results import LayerInfo, NetworkSummary
from quantgui.spec.formats import IntFormat, parse_format
from quantgui.spec.granularity import Granularity, PerBlock, PerChannel, PerGroup, PerTensor
from quantgui.spec.presets import activation_spec
from quantgui.spec.quantizer import BLOCK_FORMATS, MinMax, QuantizerSpec

_FLOATS = {"float8_e4m3fn": [4, 3], "float8_e5m2": [5, 2]}
_BLOCKS: Mapping[str, tuple[int | list[int], list[int]]] = {
    "mxfp8_e4m3": ([4, 3], [8, 0]), "mxfp6_e2m3": ([2, 3], [8, 0]), "mxfp6_e3m2": ([3, 2], [8, 0]),
    "mxfp4": ([2, 1], [8, 0]), "mxint8": (8, [8, 0]), "nvfp4": ([2, 1], [4, 3]),
}  # fmt: skip
"""Block format -> bits of the values, and of their scales."""
_DESCRIPTION = "Each layer quantized as chosen"


def write(material: Material) -> Written:
    """Return the settings as JSON; everything is off, then each layer is switched on."""
    entries: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    unknown, parts = [], []
    skewed = 0
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
            skewed += not spec.activations.symmetric
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
    if skewed:
        notes += (f"Model-Optimizer's integers are symmetric, so the activations of {skewed} layers become so.",)
    value = {
        "metadata": {"recipe_type": "ptq", "description": _DESCRIPTION},
        "quantize": {"algorithm": "max", "quant_cfg": entries},
    }
    # A recipe is YAML, of which JSON is a part; but the axes of blocks must be numbers.
    return Written(re.sub(r'"(-\d+)":', r"\1:", json.dumps(value, indent=1)) + "\n", notes)


def _escaped(name: str) -> str:
    """Return a pattern that matches `name` and nothing else."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _attributes(spec: QuantizerSpec, layer: LayerInfo, *, weight: bool) -> dict[str, Any] | None:
    """Return what a quantizer is told; keys of ``block_sizes`` are texts here."""
    if (block := block_format(spec)) in _BLOCKS:
        values, scales = _BLOCKS[block]
        size = group_size(spec.granularity)
        return {"num_bits": values, "block_sizes": {"-1": size, "scale_bits": scales, "type": "dynamic"}}
    if not is_simple(spec):
        return None
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
        return value | {"block_sizes": {"-1": size, "type": "static"}}
    if isinstance(spec.granularity, PerBlock):
        rows, columns = spec.granularity.rows, spec.granularity.columns
        return value | {"axis": None, "block_sizes": {"-1": columns, "-2": rows}}
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
    value = read_json(re.sub(r"([{,]\s*)(-\d+):", r'\1"\2":', text), "Model-Optimizer settings")
    settings = value.get("quantize", value)
    entries = settings.get("quant_cfg") if isinstance(settings, Mapping) else None
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
    size, rows, scales = blocks.get("-1"), blocks.get("-2"), blocks.get("scale_bits")
    granularity: Granularity = PerTensor() if settings.get("axis") is None else PerChannel()
    if size:
        granularity = PerBlock(int(rows), int(size)) if rows else PerGroup(int(size))
    if scales is not None:
        for name, told in _BLOCKS.items():
            if told == (bits, list(scales)) and granularity == BLOCK_FORMATS[name].granularity:
                return BLOCK_FORMATS[name]
        raise ExportError(f"Model-Optimizer's format {bits} with scales of {scales} bits is not known here.")
    if isinstance(bits, int):
        return QuantizerSpec(IntFormat(bits), True, granularity, MinMax()) if weight else activation_spec(bits)
    word = next((name for name, pair in _FLOATS.items() if list(bits) == pair), None)
    if word is None:
        raise ExportError(f"Model-Optimizer's format {bits} is not known here.")
    return QuantizerSpec(parse_format(word), True, granularity if weight else PerTensor(), MinMax())
