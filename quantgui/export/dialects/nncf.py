"""NNCF's ``IgnoredScope`` (3.4): which layers it must leave float, as a Python snippet."""

from __future__ import annotations

from pprint import pformat

from quantgui.export.dialects.material import Imported, Material, Written, is_simple, left_out
from quantgui.export.dialects.reading import ReadLayer, imported, literal, matching
from quantgui.results import NetworkSummary
from quantgui.spec.formats import IntFormat
from quantgui.spec.presets import find_preset
from quantgui.spec.quantizer import FLOAT, LayerSpec

_TEXT = '''"""Quantization with NNCF that leaves the same layers float."""

import nncf

SCOPE = {{
    "names": {names},
}}


def quantize(model, data):
    """Return `model` in 8 bits; `data` is an iterable of the model's inputs."""
    scope = nncf.IgnoredScope(names=SCOPE["names"])
    return nncf.quantize(model, nncf.Dataset(data), ignored_scope=scope, preset=nncf.QuantizationPreset.{preset})
'''


def write(material: Material) -> Written:
    """Return the snippet; NNCF's static quantization has 8 bits for all other layers."""
    left = [user for layer in material.summary.layers if _is_float(material.spec_of(layer)) for user in layer.users]
    specs = {layer.name: material.spec_of(layer) for layer in material.summary.layers}
    symmetric = [spec.activations.symmetric for spec in specs.values() if spec.activations is not None]
    half = [name for name, spec in specs.items() if spec != FLOAT and _is_float(spec)]
    others = [name for name, spec in specs.items() if not _is_float(spec) and not _is_int8(spec)]
    notes = (
        *left_out(half, "as NNCF's static quantization has no layers of which only weights are quantized"),
        *left_out(others, "as NNCF's static quantization has 8-bit integers for all layers, so for these too"),
    )
    preset = "PERFORMANCE" if symmetric and all(symmetric) else "MIXED"
    names = pformat(list(dict.fromkeys(left)), width=100).replace("\n", "\n    ")
    return Written(_TEXT.format(names=names, preset=preset), notes)


def _is_float(spec: LayerSpec) -> bool:
    return spec.weights is None or spec.activations is None


def _is_int8(spec: LayerSpec) -> bool:
    return all(
        part is not None and isinstance(part.format, IntFormat) and part.bits == 8 and is_simple(part)
        for part in (spec.weights, spec.activations)
    )


def recognises(text: str) -> bool:
    """Return whether `text` looks like such a snippet."""
    return "IgnoredScope" in text and "SCOPE = " in text


def read(text: str, summary: NetworkSummary) -> Imported:
    """Return the configuration: 8 bits but for the layers named; the snippet is not run.

    Raises:
        ExportError: it holds no scope.
    """
    names = literal(text, "SCOPE").get("names", [])
    eight = find_preset("W8A8").spec
    found = {
        layer.name: ReadLayer() if layer.keeps_float else ReadLayer(eight.weights, eight.activations)
        for layer in summary.layers
    }
    unmatched = []
    for name in names:
        layers = matching(str(name), summary.layers)
        if not layers:
            unmatched.append(str(name))
        for layer in layers:
            found[layer.name] = ReadLayer()
    return imported(found, unmatched, summary, known=[layer.name for layer in summary.layers], name="NNCF")
