"""Layers, their formats and schemes in words: as short as a cell of a table, or as part of a sentence."""

from __future__ import annotations

from quantgui.gui.texts import translate
from quantgui.results import LayerInfo
from quantgui.session.edits import FormatChoice
from quantgui.spec.formats import CodebookFormat, FloatFormat, Format, IntFormat, MinifloatFormat, TableFormat
from quantgui.spec.granularity import Granularity, PerBlock, PerChannel, PerGroup, PerTensor
from quantgui.spec.quantizer import QuantizerSpec, Trained


def format_text(chosen: Format | None) -> str:
    """Return the short name of a format for a chip.

    >>> format_text(IntFormat(4)), format_text(FloatFormat("bfloat16")), format_text(None)
    ('4', 'BF16', 'FP32')
    """
    match chosen:
        case None:
            return "FP32"
        case FloatFormat("float16"):
            return "FP16"
        case FloatFormat():
            return "BF16"
        case IntFormat(bits):
            return str(bits)
        case MinifloatFormat() | TableFormat() | CodebookFormat():
            return short_format(chosen)


def short_format(chosen: MinifloatFormat | TableFormat | CodebookFormat) -> str:
    """Return the short name of a format with uneven levels.

    >>> [short_format(each) for each in (MinifloatFormat(4, 3), TableFormat("nf4"), CodebookFormat(3))]
    ['E4M3', 'NF4', 'CB3']
    """
    match chosen:
        case MinifloatFormat(exponent, mantissa):
            return f"E{exponent}M{mantissa}"
        case TableFormat("binary"):
            return "1"
        case TableFormat(name):
            return name.upper()
        case CodebookFormat(bits):
            return f"CB{bits}"


def short_name(layer: LayerInfo) -> str:
    """Return the layer's name without what says nothing: the slash in front and the operator behind."""
    return layer.name.removeprefix("/").removesuffix(f"/{layer.op}") or layer.name


def why_fixed(layer: LayerInfo) -> str:
    """Return the sentence that says why a layer cannot be changed, or is left alone by presets; else empty."""
    if layer.read_only:
        return translate("layers", "Already {format} in the file: shown, not editable.").format(format=layer.dtype)
    if not layer.finite:
        return translate("layers", "Holds NaN or infinite values: it stays float.")
    if layer.signal_transform:
        return translate("layers", "Looks like a fixed signal transform (Fourier, mel): presets leave it float.")
    return ""


def is_trained(spec: QuantizerSpec | None) -> bool:
    """Return whether weights are as training left them."""
    return spec is not None and isinstance(spec.range_estimator, Trained)


def scheme_text(spec: QuantizerSpec | None) -> str:
    """Return granularity and symmetry in a few letters, such as ``channel, sym``, and whether weights are trained."""
    if spec is None or isinstance(spec.format, FloatFormat):
        return "–"
    if not spec.is_integer:
        return _granularity_text(spec.granularity)
    text = f"{_granularity_text(spec.granularity)}, {'sym' if spec.symmetric else 'asym'}"
    return translate("layers", "trained, {scheme}").format(scheme=text) if is_trained(spec) else text


def _granularity_text(granularity: Granularity) -> str:
    match granularity:
        case PerTensor():
            return "tensor"
        case PerChannel():
            return "channel"
        case PerGroup(size):
            return f"group {size}"
        case PerBlock(rows, columns):
            return f"block {rows}×{columns}"


def format_words(chosen: FormatChoice) -> str:
    """Return the name of a format within a sentence.

    >>> format_words(IntFormat(4)), format_words("mxfp8_e4m3"), format_words(None)
    ('4 bits', 'MXFP8 E4M3', 'float32')
    """
    if isinstance(chosen, str):
        return chosen.upper().replace("_", " ")
    return "float32" if chosen is None else f"{chosen.bits} bits" if isinstance(chosen, IntFormat) else str(chosen)


def describe_layers(names: list[str]) -> str:
    """Return how layers are called within a sentence."""
    return names[0] if len(names) == 1 else f"{len(names)} layers"
