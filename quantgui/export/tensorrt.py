"""What TensorRT takes as explicit Q/DQ, checked before a file is written for it; the rest is converted when asked."""

from __future__ import annotations

from quantgui.analysis.simulation import weight_spec
from quantgui.errors import ExportError
from quantgui.export.lookup import needs_lookup
from quantgui.export.notes import listed
from quantgui.network.network import Network
from quantgui.spec.config import QuantConfig
from quantgui.spec.conversion import convert, sentences
from quantgui.spec.quantizer import FLOAT
from quantgui.spec.targets import find_target

_ADVICE = (
    "choose symmetric int8 (or float8_e4m3fn) for weights and activations, or symmetric int4 weights in groups of 64 "
    "or 128 beside float activations"
)
_FLOAT4 = (
    "FP4 and NVFP4 are multiplied by TensorRT only beside activations that its own operator TRT_FP4DynamicQuantize "
    "rounds, which ONNX has not and no runtime here can check (NVIDIA, 'Working with quantized types'; Model-Optimizer "
    "writes such files)"
)


def converted_for_tensorrt(network: Network, config: QuantConfig) -> tuple[QuantConfig, tuple[str, ...]]:
    """Return the nearest configuration that TensorRT runs, and a sentence on each change.

    Raises:
        ExportError: no layer would stay quantized.
    """
    layers = network.summary.layers
    converted, changes = convert(
        find_target("tensorrt"), layers, config, lambda _, spec: spec.weights is None or not needs_lookup(spec.weights)
    )
    wanted = [layer.name for layer in layers if weight_spec(layer, config) is not None]
    if wanted and all(converted.spec_for(name) == FLOAT for name in wanted):
        raise ExportError(f"Nothing of this configuration can be converted for TensorRT; {_ADVICE}.")
    return converted, sentences(changes)


def refuse_for_tensorrt(network: Network, config: QuantConfig) -> None:
    """Refuse what TensorRT does not run, or what no operator of its parser holds.

    Raises:
        ExportError: the sentence names the layers and says what to do.
    """
    layers = network.summary.layers
    asymmetric = [
        layer.name
        for layer in layers
        if layer.quantizes_activations
        and (spec := config.spec_for(layer.name).activations) is not None
        and spec.is_integer
        and not (spec.symmetric and str(spec.format) == "int8")
    ]
    if asymmetric:
        raise ExportError(
            f"TensorRT takes zero points of 0 alone, but the activations of {listed(asymmetric)} have others or are "
            "unsigned; choose symmetric int8 for them."
        )
    violations = find_target("tensorrt").violations(layers, config)
    if violations:
        names = listed([each.layer for each in violations])
        raise ExportError(f"{names}: {violations[0].sentence.rstrip('.')}; {_ADVICE}.")
    tables = [layer.name for layer in layers if (spec := weight_spec(layer, config)) and needs_lookup(spec)]
    if tables:
        four = all(str(config.spec_for(name).weights) in ("nvfp4", "mxfp4", "float4_e2m1") for name in tables)
        why = f"{_FLOAT4}; {_ADVICE}" if four else _ADVICE
        raise ExportError(f"The weights of {listed(tables)} have no Q/DQ that ONNX Runtime runs as well; {why}.")
