"""Whether a target runs a choice at all, so that what it never runs can be greyed while choosing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from quantgui.errors import SpecError
from quantgui.results import LayerInfo
from quantgui.spec.formats import FloatFormat, IntFormat, MinifloatFormat
from quantgui.spec.granularity import Granularity, PerChannel, PerGroup, PerTensor
from quantgui.spec.presets import activation_spec, weight_spec
from quantgui.spec.quantizer import BLOCK_FORMATS, LayerSpec, QuantizerSpec
from quantgui.spec.sweep import Sweep
from quantgui.spec.targets import Target

_E4M3 = QuantizerSpec(MinifloatFormat(4, 3), granularity=PerTensor())
_ACTIVATIONS: tuple[QuantizerSpec | None, ...] = (
    None,
    activation_spec(8),
    activation_spec(16),
    QuantizerSpec(IntFormat(8), granularity=PerTensor()),
    QuantizerSpec(IntFormat(16), granularity=PerTensor()),
    _E4M3,
    QuantizerSpec(FloatFormat("float16"), granularity=PerTensor()),
)
_WEIGHTS: tuple[QuantizerSpec | None, ...] = (
    None,
    weight_spec(8),
    weight_spec(4),
    weight_spec(16),
    replace(_E4M3, granularity=PerChannel()),
    BLOCK_FORMATS["nvfp4"],
    QuantizerSpec(FloatFormat("float16"), granularity=PerTensor()),
)
_GROUP_SIZES = (32, 64, 128, 256)


def weights_refusal(
    target: Target, layers: Iterable[LayerInfo], weights: QuantizerSpec | None, *, any_granularity: bool
) -> str:
    """Return why `target` runs `weights` in none of `layers`, whatever is beside them; empty where it does in one.

    With `any_granularity` the format is judged alone: some granularity is enough.
    """
    tried = tuple(_granularities(weights)) if any_granularity and weights is not None else (weights,)
    return _refusal(target, layers, [LayerSpec(each, other) for each in tried for other in _ACTIVATIONS])


def activations_refusal(target: Target, layers: Iterable[LayerInfo], activations: QuantizerSpec | None) -> str:
    """Return why `target` runs `activations` in none of `layers`, whatever weights are beside them; else empty."""
    return _refusal(target, layers, [LayerSpec(weights, activations) for weights in _WEIGHTS])


def sweep_refusals(target: Target, layers: Iterable[LayerInfo], sweep: Sweep) -> dict[LayerSpec, str]:
    """Return why `target` runs a candidate of `sweep` in none of its layers, for each spec of which that is so.

    Unlike a choice that something else may be put beside, a candidate is all that a layer gets.
    """
    if not target.runs:
        return {}
    known = tuple(layers)
    swept = set(sweep.swept(known))
    kinds = dict.fromkeys((layer.op, layer.quantizes_activations) for layer in known if layer.name in swept)
    reasons = {}
    for spec in sweep.specs:
        candidate = sweep.candidate("", spec)
        found = [target.refusal(op, candidate, quantizes_activations=able) for op, able in kinds]
        if found and None not in found:
            reasons[spec] = next(filter(None, found))
    return reasons


def _granularities(spec: QuantizerSpec) -> Iterator[QuantizerSpec]:
    yield spec
    if str(spec) in BLOCK_FORMATS:
        return
    granularities: tuple[Granularity, ...] = (PerChannel(), PerTensor(), *map(PerGroup, _GROUP_SIZES))
    for granularity in granularities:
        for symmetric in (True, False):
            # What cannot be one spec is no way to run the format.
            try:
                yield replace(spec, granularity=granularity, symmetric=symmetric)
            except SpecError:
                continue


def _refusal(target: Target, layers: Iterable[LayerInfo], specs: list[LayerSpec]) -> str:
    if not target.runs:
        return ""
    kinds = tuple(dict.fromkeys((layer.op, layer.quantizes_activations) for layer in layers))
    # Words are dear, and wanted only where nothing fits.
    if not kinds or any(target.covers(op, spec, quantizes_activations=able) for op, able in kinds for spec in specs):
        return ""
    op, able = kinds[0]
    return target.refusal(op, specs[0], quantizes_activations=able) or ""
