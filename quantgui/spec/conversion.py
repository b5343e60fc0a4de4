"""The nearest configuration that a runtime takes: what it refuses is changed, layer by layer, and every change is told.

A candidate is tried after the other, the nearest first, until the runtime refuses nothing: symmetric and signed instead
of asymmetric or unsigned, scales per channel instead of groups, 8 bits instead of fewer, groups of another size, and
at last float. More than 8 bits never become fewer: such layers become float.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import IntFormat, MinifloatFormat
from quantgui.spec.granularity import Granularity, PerBlock, PerChannel, PerGroup, PerTensor
from quantgui.spec.presets import without_training
from quantgui.spec.quantizer import FLOAT, HalfQuadratic, LayerSpec, MinMax, QuantizerSpec, Trained
from quantgui.spec.targets import Target, TargetLayer

_GROUPS = (32, 64, 128)
_BYTE = 8
_FEW = 4

Accepts = Callable[[TargetLayer, LayerSpec], bool]


@dataclass(frozen=True, slots=True)
class Change:
    """A layer that was changed for a runtime: its name, and what it was and became, in words."""

    layer: str
    before: str
    after: str


def convert(
    target: Target, layers: Iterable[TargetLayer], config: QuantConfig, accepts: Accepts = lambda *_: True
) -> tuple[QuantConfig, tuple[Change, ...]]:
    """Return `config` with every layer changed that `target` refuses, or `accepts` does not take; and the changes."""
    changed: dict[str, LayerSpec] = {}
    changes = []
    for layer in layers:
        if layer.read_only or not layer.finite:
            continue
        wanted = config.spec_for(layer.name)

        def fits(spec: LayerSpec, layer: TargetLayer = layer) -> bool:
            refusal = target.refusal(layer.op, spec, quantizes_activations=layer.quantizes_activations)
            return spec == FLOAT or (refusal is None and accepts(layer, spec))

        if fits(wanted):
            continue
        changed[layer.name] = found = next(spec for spec in _candidates(wanted) if fits(spec))
        changes.append(Change(layer.name, _words(wanted), _words(found)))
    return config.with_overrides(changed), tuple(changes)


def _candidates(wanted: LayerSpec) -> Iterator[LayerSpec]:
    """Yield what may stand for `wanted`, the nearest first; float last."""
    weights = list(_quantizers(wanted.weights))
    activations = list(_quantizers(wanted.activations, PerTensor()))
    for weight in weights:
        yield from (LayerSpec(weight, activation) for activation in activations)
    if wanted.activations is not None:
        # Weights alone are worth more than nothing.
        yield from (LayerSpec(weight) for weight in weights)
    yield FLOAT


def _quantizers(spec: QuantizerSpec | None, only: Granularity | None = None) -> Iterator[QuantizerSpec | None]:
    """Yield what may stand for the quantizer of one tensor; `only` is the granularity that it can have."""
    if spec is None:
        yield None
        return
    yield spec
    wide = spec.bits > _BYTE
    if wide:
        return
    if isinstance(spec.format, MinifloatFormat) and spec.bits == _BYTE:
        granularity = only or (PerChannel() if isinstance(spec.granularity, PerGroup) else spec.granularity)
        yield QuantizerSpec(MinifloatFormat(4, 3), True, granularity, without_training(spec).range_estimator)
        return
    # Trained weights hold for what they were trained under alone.
    plain = without_training(spec).range_estimator if isinstance(spec.format, IntFormat) else MinMax()
    estimator = MinMax() if isinstance(plain, HalfQuadratic) else plain
    bits = spec.bits if isinstance(spec.format, IntFormat) else max(spec.bits, _FEW)
    granularities = [only] if only else [spec.granularity, PerChannel()]
    for width in dict.fromkeys((bits, _BYTE)):
        yield from (QuantizerSpec(IntFormat(width), True, each, estimator) for each in granularities)
    if only is None and bits <= _FEW:
        size = spec.granularity.group_size if isinstance(spec.granularity, PerGroup) else _GROUPS[-1]
        sizes = sorted(_GROUPS, key=lambda each: abs(each - size))
        yield from (QuantizerSpec(IntFormat(_FEW), True, PerGroup(each), estimator) for each in sizes)


def _words(spec: LayerSpec) -> str:
    if spec == FLOAT:
        return "float"
    parts = (("weights", spec.weights), ("activations", spec.activations))
    return " with ".join(f"{name} {_quantizer_words(each)}" for name, each in parts if each is not None)


def _quantizer_words(spec: QuantizerSpec) -> str:
    if not spec.has_scale:
        return str(spec)
    kind = "" if spec.symmetric or not spec.is_integer else "asymmetric "
    trained = "trained " if isinstance(spec.range_estimator, Trained) else ""
    return f"{trained}{kind}{spec} {_granularity_words(spec.granularity)}"


def _granularity_words(granularity: Granularity) -> str:
    match granularity:
        case PerTensor():
            return "per tensor"
        case PerChannel():
            return "per channel"
        case PerGroup(group_size):
            return f"in groups of {group_size}"
        case PerBlock(rows, columns):
            return f"in blocks of {rows} x {columns}"


def sentences(changes: Iterable[Change]) -> tuple[str, ...]:
    """Return the changes in sentences, layers that were changed alike together."""
    alike: dict[tuple[str, str], list[str]] = {}
    for each in changes:
        alike.setdefault((each.before, each.after), []).append(each.layer)
    return tuple(f"Converted: {before} became {after} in {_named(names)}." for (before, after), names in alike.items())


def _named(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
