"""A recipe of ai-edge-quantizer (LiteRT, TFLite; 0.10): rules by the output tensor's name, of which the last counts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from quantgui.errors import ExportError
from quantgui.export.dialects.material import Imported, Material, Written, group_size, is_simple, left_out
from quantgui.export.dialects.reading import ReadLayer, aliases, imported, module_name
from quantgui.results import LayerInfo, NetworkSummary
from quantgui.spec.formats import FloatFormat, IntFormat
from quantgui.spec.granularity import Granularity, PerBlock, PerChannel, PerGroup, PerTensor
from quantgui.spec.presets import activation_spec
from quantgui.spec.quantizer import LayerSpec, MinMax, QuantizerSpec

_MIN_MAX, _CAST, _NONE = "min_max_uniform_quantize", "float_casting", "no_quantize"
_WHOLE = re.compile(r"^\(\^\|\[/;\]\)\(([^|)]*).*$")
"""The first name in an expression of ours."""
_SILENT = (
    "The rules find tensors as converters from ONNX and PyTorch call them; a rule that finds none is passed over in "
    "silence, so look at the size of the quantized file."
)
_BLOCK_SIZES = (32, 64, 128, 256)


def write(material: Material) -> Written:
    """Return the recipe: nothing quantized, then one rule for each layer by the name of its output tensor."""
    rules: list[dict[str, Any]] = [{"regex": ".*", "operation": "*", "algorithm_key": _NONE, "op_config": {}}]
    unknown = []
    outputs = [info.name for info in material.summary.outputs]
    for layer in material.summary.layers:
        spec = material.spec_of(layer)
        if layer.read_only or (spec.weights is None and spec.activations is None):
            continue
        rule = _rule(layer, spec, outputs)
        if rule is None:
            unknown.append(layer.name)
        else:
            rules.append(rule)
    notes = (
        *left_out(unknown, "as LiteRT has no such quantizer"),
        _SILENT,
    )
    return Written(json.dumps(rules, indent=1) + "\n", notes)


def _rule(layer: LayerInfo, spec: LayerSpec, outputs: Sequence[str]) -> dict[str, Any] | None:
    rule: dict[str, Any] = {"regex": _expression(layer, outputs), "operation": "*"}
    weights = spec.weights
    if weights is None:
        return None
    if isinstance(weights.format, FloatFormat):
        if weights.format.name != "float16":
            return None
        config = {
            "weight_tensor_config": {"num_bits": 16, "symmetric": True, "granularity": "TENSORWISE", "dtype": "FLOAT"},
            "compute_precision": "FLOAT",
            "explicit_dequantize": True,
            **_DEFAULTS,
        }
        return rule | {"algorithm_key": _CAST, "op_config": config}
    size = group_size(weights.granularity)
    if not re.fullmatch("int[248]", str(weights.format)) or not weights.symmetric or not is_simple(weights):
        return None
    if isinstance(weights.granularity, PerBlock):
        return None
    if size is not None and size not in _BLOCK_SIZES:
        return None
    granularity = f"BLOCKWISE_{size}" if size else "CHANNELWISE"
    if isinstance(weights.granularity, PerTensor):
        granularity = "TENSORWISE"
    told = {"num_bits": weights.bits, "symmetric": True, "granularity": granularity, "dtype": "INT"}
    config = {"weight_tensor_config": told, "compute_precision": "FLOAT", "explicit_dequantize": True, **_DEFAULTS}
    if spec.activations is not None and layer.quantizes_activations:
        fmt = spec.activations.format
        if not isinstance(fmt, IntFormat) or fmt.bits not in (8, 16):
            return None
        # 16-bit activations of LiteRT are symmetric.
        config |= {
            "activation_tensor_config": {
                "num_bits": fmt.bits, "symmetric": fmt.bits == 16, "granularity": "TENSORWISE", "dtype": "INT",
            },
            "compute_precision": "INTEGER",
            "explicit_dequantize": False,
        }  # fmt: skip
    return rule | {"algorithm_key": _MIN_MAX, "op_config": config}


def _expression(layer: LayerInfo, outputs: Sequence[str]) -> str:
    """Return what finds the layer's output tensor as converters call it, and none whose name only begins alike.

    litert-torch writes the path of a module as ``Net/torch.nn...Sequential_features/torch.nn...Conv2d_0;``, without
    modules that are not called themselves, such as lists; what the network returns it calls after its place.
    """
    names = [name.strip("/") for name in (layer.output_tensor, layer.name)]
    if layer.output_tensor in outputs:
        names.append(f"serving_default_output_{outputs.index(layer.output_tensor)}_output")
    whole = dict.fromkeys(re.escape(name) for name in names if name)
    parts = module_name(layer).split(".")
    steps = [f"/[^/;]*_{re.escape(part)}" for part in parts]
    # A list is followed by the place in it.
    path = [f"({step})?" if after.isdecimal() else step for step, after in zip(steps, [*parts[1:], ""], strict=True)]
    return f"(^|[/;])({'|'.join(whole)})([/;]|$)|(^|;)[^/;]*{''.join(path)};"


_DEFAULTS = {"skip_checks": False, "min_weight_elements": 0}


def recognises(text: str) -> bool:
    """Return whether `text` looks like a recipe."""
    return '"algorithm_key"' in text and '"regex"' in text


def read(text: str, summary: NetworkSummary) -> Imported:
    """Return the configuration of a recipe; the last rule that matches a layer's output tensor counts.

    Raises:
        ExportError: the text is no recipe.
    """
    try:
        rules = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExportError(f"The recipe is no JSON: {error}.") from error
    if (
        not isinstance(rules, list)
        or not rules
        or not all(isinstance(rule, Mapping) and "regex" in rule for rule in rules)
    ):
        raise ExportError("A recipe of ai-edge-quantizer is a list of rules with 'regex'.")
    found: dict[str, ReadLayer] = {}
    unmatched = []
    for rule in rules:
        try:
            expression = re.compile(str(rule["regex"]))
        except re.error as error:
            raise ExportError(f"'{rule['regex']}' is no regular expression: {error}.") from error
        layers = [
            layer
            for layer in summary.layers
            if any(expression.search(name) for name in (layer.output_tensor, *aliases(layer)) if name)
        ]
        if not layers:
            unmatched.append(re.sub(r"\\(.)", r"\1", _WHOLE.sub(r"\1", str(rule["regex"]))).replace(".*", ""))
        for layer in layers:
            found[layer.name] = _read(rule)
    known = [layer.output_tensor or layer.name for layer in summary.layers]
    return imported(found, unmatched, summary, known=known, name="LiteRT recipe")


def _read(rule: Mapping[str, Any]) -> ReadLayer:
    config = rule.get("op_config") or {}
    weights = config.get("weight_tensor_config")
    if rule.get("algorithm_key") == _NONE or weights is None:
        return ReadLayer()
    if weights.get("dtype") == "FLOAT":
        return ReadLayer(QuantizerSpec(FloatFormat("float16"), granularity=PerTensor()))
    word = str(weights.get("granularity", "TENSORWISE"))
    granularity: Granularity = PerTensor()
    if word.startswith("BLOCKWISE_"):
        granularity = PerGroup(int(word.rpartition("_")[2]))
    elif word == "CHANNELWISE":
        granularity = PerChannel()
    fmt = IntFormat(int(weights["num_bits"]))
    spec = QuantizerSpec(fmt, bool(weights.get("symmetric", True)), granularity, MinMax())
    activations = config.get("activation_tensor_config")
    return ReadLayer(spec, None if activations is None else activation_spec(int(activations["num_bits"])))
