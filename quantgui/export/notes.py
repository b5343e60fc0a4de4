"""What an exported file holds otherwise than the configuration wishes, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from quantgui.analysis.simulation import unreached_tensors, weight_spec
from quantgui.export.lookup import needs_lookup
from quantgui.network.network import Network
from quantgui.results import ActivationReady
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import IntFormat, MinifloatFormat
from quantgui.spec.profiles import ExportProfile

_FLOATS8 = (
    "ONNX Runtime computes 8-bit floats in Q/DQ rightly only with session.disable_quant_qdq=1 and basic optimizations."
)


def export_notes(
    network: Network, config: QuantConfig, activations: Mapping[str, ActivationReady], opset: int
) -> tuple[str, ...]:
    """Return sentences on the opset, on what is stored wider, and on what stays float."""
    notes = []
    if opset > network.summary.opset:
        notes.append(f"The opset was raised from {network.summary.opset} to {opset}, which the chosen formats need.")
    notes += [*_weight_notes(network, config), *_activation_notes(network, config)]
    kept = [
        layer.name
        for layer in network.summary.layers
        if config.spec_for(layer.name).weights is not None and not layer.read_only and not layer.finite
    ]
    if kept:
        notes.append(f"These layers stay float, as they hold values that are not finite: {listed(kept)}.")
    if unreached := unreached_tensors(network, config, activations):
        notes.append(f"These activations stay float, as no sample of the data reached them: {listed(unreached)}.")
    return tuple(notes)


def _weight_notes(network: Network, config: QuantConfig) -> list[str]:
    specs = [spec for layer in network.summary.layers if (spec := weight_spec(layer, config)) is not None]
    wider = Counter(
        (f"{spec.bits}-bit" if spec.is_integer else str(spec.format), spec.format.storage_bits)
        for spec in specs
        if spec.bits != spec.format.storage_bits
    )
    looked_up = Counter(str(spec) for spec in specs if needs_lookup(spec))
    return [
        *(
            f"{name} weights ({layers(count)}) are stored in {storage} bits each, the next width that fills bytes."
            for (name, storage), count in sorted(wider.items())
        ),
        *(
            f"{name} weights ({layers(count)}) are made of tables and scales, as DequantizeLinear does not know them: "
            "the file is small, but ONNX Runtime makes floats of them once, when it loads it."
            for name, count in sorted(looked_up.items())
        ),
    ]


def _activation_notes(network: Network, config: QuantConfig) -> list[str]:
    formats = [
        spec.format
        for layer in network.summary.layers
        if layer.quantizes_activations and (spec := config.spec_for(layer.name).activations) is not None
    ]
    narrow = Counter(fmt.bits for fmt in formats if isinstance(fmt, IntFormat) and fmt.bits not in (8, 16))
    uneven = Counter(str(fmt) for fmt in formats if isinstance(fmt, MinifloatFormat))
    return [
        *(
            f"{bits}-bit activations ({layers(count)}) are clipped to their range and carried as "
            f"{8 if bits < 8 else 16}-bit integers."
            for bits, count in sorted(narrow.items())
        ),
        *(
            f"{name} activations ({layers(count)}) are rounded and carried on as float32: ONNX Runtime has no kernels "
            "for them on this processor."
            for name, count in sorted(uneven.items())
        ),
    ]


def layers(count: int) -> str:
    """Return `count` with its noun."""
    return "1 layer" if count == 1 else f"{count} layers"


def listed(names: Sequence[str]) -> str:
    """Return up to three names in quotation marks, and how many there are beside them."""
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def profile_notes(
    network: Network, config: QuantConfig, profile: ExportProfile, blocked: Collection[str]
) -> tuple[str, ...]:
    """Return sentences on what the profile made of the layers; `blocked` are the weights of MatMulNBits."""
    if profile == "matmulnbits":
        names = [layer.name for layer in network.summary.layers if layer.weight in blocked]
        others = sum(weight_spec(layer, config) is not None for layer in network.summary.layers) - len(names)
        rest = f"; {layers(others)} as in the profile 'qdq'" if others else ""
        if not names:
            return ("No layer fits MatMulNBits (MatMul or Gemm, 2, 4 or 8 bits in groups of 16 to 256)" + rest + ".",)
        held = (
            f"MatMulNBits holds {layers(len(names))}, {listed(names)}, with accuracy level 1 (activations stay float32)"
        )
        return (f"{held}{rest}.",)
    if profile == "tensorrt":
        sentence = (
            "Activations are quantized in front of operators and biases stay float, as TensorRT wants it; the window "
            "shows them quantized where they are written, so quality may differ a little. Verify compares with this."
        )
        specs = (config.spec_for(layer.name).activations for layer in network.summary.layers)
        if not any(spec is not None and isinstance(spec.format, MinifloatFormat) for spec in specs):
            return (sentence,)
        return (sentence, _FLOATS8)
    return ()
