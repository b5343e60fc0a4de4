"""llama.cpp's ``--tensor-type-file``: one ``expression=type`` a line; the first that matches a tensor's name counts.

Source: llama.cpp, tools/quantize/README.md; types of GGML as in gguf 0.19.
"""

from __future__ import annotations

import re

from quantgui.errors import ExportError
from quantgui.export.dialects.material import Imported, Material, Written, left_out
from quantgui.export.dialects.reading import ReadLayer, aliases, imported
from quantgui.results import NetworkSummary
from quantgui.spec.formats import FloatFormat, IntFormat, TableFormat
from quantgui.spec.granularity import PerGroup, PerTensor
from quantgui.spec.quantizer import BLOCK_FORMATS, MinMax, QuantizerSpec

_SYMMETRIC = {2: "q2_k", 3: "q3_k", 4: "q4_0", 5: "q5_0", 6: "q6_k", 8: "q8_0"}
_ASYMMETRIC = {2: "q2_k", 3: "q3_k", 4: "q4_1", 5: "q5_1"}
_EXACT = {"float16": "f16", "bfloat16": "bf16", "mxfp4": "mxfp4", "nvfp4": "nvfp4"}
_NEAREST = {"nf4": "iq4_nl", "binary": "q1_0"}
_BITS = {
    "q1_0": 1, "iq1_s": 1, "iq1_m": 1, "tq1_0": 2, "tq2_0": 2, "q2_k": 2, "iq2_xxs": 2, "iq2_xs": 2, "iq2_s": 2,
    "q3_k": 3, "iq3_xxs": 3, "iq3_s": 3, "q4_0": 4, "q4_1": 4, "q4_k": 4, "iq4_xs": 4, "iq4_nl": 4,
    "q5_0": 5, "q5_1": 5, "q5_k": 5, "q6_k": 6, "q8_0": 8, "q8_1": 8, "q8_k": 8,
}  # fmt: skip
_BLOCKS = 32


def write(material: Material) -> Written:
    """Return the file: the type of GGML nearest to each layer's format, by the name of its weight."""
    lines, unknown, approximate = [], [], []
    for layer in material.summary.layers:
        if layer.rows is not None or layer.read_only:
            continue
        spec = material.spec_of(layer).weights
        kind = "f32" if spec is None else _type(spec)
        if kind is None:
            unknown.append(layer.name)
            continue
        if spec is not None and kind not in _EXACT.values():
            approximate.append(layer.name)
        lines.append(f"{re.escape(layer.weight)}={kind}")
    notes = left_out(unknown, "as GGML has no such type")
    if approximate:
        count = f"{len(approximate)} layer{'s' if len(approximate) != 1 else ''}"
        notes += (f"{count}: nearest type of GGML only, which has blocks, scales and levels of its own.",)
    if not lines:
        raise ExportError("GGML has no type for any of these layers, so there is nothing to write for llama.cpp.")
    return Written("\n".join(lines) + "\n", notes)


def _type(spec: QuantizerSpec) -> str | None:
    name = str(spec)
    if name in _EXACT:
        return _EXACT[name]
    if isinstance(spec.format, IntFormat) and spec.format.narrow_range and spec.format.bits == 2:
        return "tq2_0"
    if isinstance(spec.format, IntFormat):
        bits = 8 if spec.format.bits == 7 else spec.format.bits
        return (_SYMMETRIC if spec.symmetric else _ASYMMETRIC | {6: "q6_k", 8: "q8_0"}).get(bits)
    return _NEAREST.get(str(spec.format))


def recognises(text: str) -> bool:
    """Return whether every word of `text` is ``expression=type`` with a type of GGML."""
    kinds = {*_BITS, *_EXACT.values(), *_NEAREST.values(), "f32"}
    words = text.split()
    return bool(words) and all("=" in word and word.rpartition("=")[2].lower() in kinds for word in words)


def read(text: str, summary: NetworkSummary) -> Imported:
    """Return the configuration of such a file: integers of the type's width in blocks of 32.

    Raises:
        ExportError: a line is no ``expression=type``, or has an unknown type.
    """
    found: dict[str, ReadLayer] = {}
    unmatched = []
    if not text.split():
        raise ExportError("The file of tensor types is empty.")
    for word in text.split():
        pattern, equals, kind = word.rpartition("=")
        if not equals:
            raise ExportError(f"'{word}' is not of the form expression=type.")
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise ExportError(f"'{pattern}' is no regular expression: {error}.") from error
        spec = _spec(kind.lower())
        layers = [layer for layer in summary.layers if any(expression.search(name) for name in aliases(layer))]
        if not layers:
            unmatched.append(re.sub(r"\\(.)", r"\1", pattern))
        for layer in layers:
            found.setdefault(layer.name, ReadLayer(spec))
    known = [layer.weight for layer in summary.layers]
    return imported(found, unmatched, summary, known=known, name="llama.cpp")


def _spec(kind: str) -> QuantizerSpec | None:
    if kind == "f32":
        return None
    if kind in ("f16", "bf16"):
        return QuantizerSpec(FloatFormat("float16" if kind == "f16" else "bfloat16"), granularity=PerTensor())
    if kind in BLOCK_FORMATS:
        return BLOCK_FORMATS[kind]
    if kind == "q1_0":
        return QuantizerSpec(TableFormat("binary"), True, PerGroup(128), MinMax())
    if kind == "iq4_nl":
        return QuantizerSpec(TableFormat("nf4"), True, PerGroup(_BLOCKS), MinMax())
    if kind in ("tq1_0", "tq2_0"):
        return QuantizerSpec(IntFormat(2, narrow_range=True), True, PerGroup(256), MinMax())
    if kind not in _BITS:
        raise ExportError(f"GGML's type '{kind}' is not known here.")
    bits = _BITS[kind]
    symmetric = not kind.endswith("_1")
    return QuantizerSpec(IntFormat(max(bits, 2), symmetric), symmetric, PerGroup(_BLOCKS), MinMax())
