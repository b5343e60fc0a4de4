"""coremltools' settings for one op at a time, as a Python file that makes an `OptimizationConfig` (coremltools 9).

coremltools reads settings for linear quantization and palettization from Python only, so this is a program; it is read
back without running it, from the literal table in it.
"""

from __future__ import annotations

from pprint import pformat
from typing import Any

from quantgui.export.dialects.material import Imported, Material, Written, group_size, is_simple, left_out
from quantgui.export.dialects.reading import ReadLayer, imported, literal, matching
from quantgui.results import NetworkSummary
from quantgui.spec.formats import CodebookFormat, IntFormat, parse_format
from quantgui.spec.granularity import Granularity, PerChannel, PerGroup, PerTensor
from quantgui.spec.quantizer import MinMax, QuantizerSpec

_HEAD = '''"""Weights of a Core ML network, layer by layer: apply(mlmodel) returns the compressed one."""

import coremltools.optimize.coreml as cto

# Name of the op -> kind of compression and its settings; None leaves the op as it is.
'''
_TAIL = '''
KINDS = {"linear": cto.OpLinearQuantizerConfig, "palette": cto.OpPalettizerConfig}


def config(kind):
    """Return the settings for the ops that are compressed in this way; all others are left alone."""
    ops = {name: KINDS[k](**settings) for name, (k, settings) in LAYERS.items() if k == kind}
    return cto.OptimizationConfig(op_name_configs=ops)


def apply(mlmodel):
    """Return `mlmodel` with its weights compressed."""
    if any(kind == "linear" for kind, _ in LAYERS.values()):
        mlmodel = cto.linear_quantize_weights(mlmodel, config=config("linear"))
    if any(kind == "palette" for kind, _ in LAYERS.values()):
        mlmodel = cto.palettize_weights(mlmodel, config=config("palette"))
    return mlmodel
'''
_WIDTHS = (4, 8)
_PALETTES = (1, 2, 3, 4, 6, 8)


def write(material: Material) -> Written:
    """Return the program: linear quantization for 4- and 8-bit integers, palettes for codebooks."""
    layers: dict[str, tuple[str, dict[str, Any]]] = {}
    unknown, activations = [], []
    tables = 0
    for layer in material.summary.layers:
        spec = material.spec_of(layer)
        if spec.weights is None or layer.read_only:
            continue
        settings = _settings(spec.weights)
        if settings is None or layer.rows is not None:
            unknown.append(layer.name)
            continue
        layers[layer.name] = settings
        tables += isinstance(spec.weights.format, CodebookFormat) and spec.weights.scale_format != "float32"
        if spec.activations is not None:
            activations.append(layer.name)
    notes = (
        *left_out(unknown, "as Core ML has no such compression"),
        *left_out(activations, "as their activations need coremltools' own calibration"),
        "A converter to Core ML may have given ops other names; check that every name matches one.",
    )
    if tables:
        notes += (f"{tables} layers: Core ML stores the levels of a palette in the network's own float type.",)
    return Written(f"{_HEAD}LAYERS = {pformat(layers, width=110, sort_dicts=False)}\n{_TAIL}", notes)


def _settings(spec: QuantizerSpec) -> tuple[str, dict[str, Any]] | None:
    size = group_size(spec.granularity)
    if size is None and not isinstance(spec.granularity, PerTensor | PerChannel):
        return None
    granularity = "per_block" if size else "per_channel" if isinstance(spec.granularity, PerChannel) else "per_tensor"
    blocks = {"block_size": size} if size else {}
    if isinstance(spec.format, IntFormat) and spec.format.bits in _WIDTHS and is_simple(spec):
        mode = "linear_symmetric" if spec.symmetric else "linear"
        # A symmetric quantizer of Core ML is signed.
        kind = f"{'' if spec.symmetric or spec.format.signed else 'u'}int{spec.format.bits}"
        settings = {"mode": mode, "dtype": kind, "granularity": granularity, **blocks, "weight_threshold": None}
        return "linear", settings
    # Groups of Core ML's palettes are whole channels, here they are parts of one.
    if isinstance(spec.format, CodebookFormat) and spec.format.bits in _PALETTES and size is None:
        grouped = {"granularity": "per_grouped_channel", "group_size": 1} if granularity == "per_channel" else {}
        return "palette", {"mode": "kmeans", "nbits": spec.format.bits, **grouped, "weight_threshold": None}
    return None


def recognises(text: str) -> bool:
    """Return whether `text` looks like such a program."""
    return "coremltools.optimize" in text and "LAYERS = " in text


def read(text: str, summary: NetworkSummary) -> Imported:
    """Return the configuration in the table of such a program, which is not run.

    Raises:
        ExportError: there is no such table.
    """
    layers = literal(text, "LAYERS")
    found: dict[str, ReadLayer] = {}
    unmatched = []
    for name, entry in layers.items():
        matched = matching(str(name), summary.layers)
        if not matched:
            unmatched.append(str(name))
        for layer in matched:
            found[layer.name] = ReadLayer(_spec(*entry))
    known = [layer.name for layer in summary.layers]
    return imported(found, unmatched, summary, known=known, name="coremltools")


def _spec(kind: str, settings: dict[str, Any]) -> QuantizerSpec:
    size = settings.get("block_size")
    granularity: Granularity = PerTensor()
    if size:
        granularity = PerGroup(int(size))
    elif settings.get("granularity") in ("per_channel", "per_grouped_channel"):
        granularity = PerChannel()
    if kind == "palette":
        return QuantizerSpec(parse_format(f"codebook{settings['nbits']}"), True, granularity)
    fmt = parse_format(str(settings["dtype"]))
    return QuantizerSpec(fmt, settings["mode"] == "linear_symmetric", granularity, MinMax())
