"""What the runtimes accept: which formats, granularities and combinations each can run, and why it refuses others.

A target is a list of combinations (`Runs`). What one of them covers is accepted; for anything else the one that comes
nearest gives the reason. The rules are those of the vendors' documentation named in `Target.source`; what it leaves
open is said in `Target.unknown`. They tell what a runtime computes with, not how fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from quantgui.errors import SpecError
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import MINIFLOAT_NAMES
from quantgui.spec.granularity import Granularity, PerChannel, PerGroup, PerTensor
from quantgui.spec.quantizer import BLOCK_FORMATS, LayerSpec, QuantizerSpec

Kind = Literal["tensor", "channel", "group", "block"]
_NOTHING = "float32"
_ALL: frozenset[str] = frozenset()


class TargetLayer(Protocol):
    """What a target must know of a layer; `results.LayerInfo` has it."""

    @property
    def name(self) -> str: ...
    @property
    def op(self) -> str: ...
    @property
    def quantizes_activations(self) -> bool: ...
    @property
    def read_only(self) -> bool: ...
    @property
    def finite(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Runs:
    """A combination that a runtime can run.

    Attributes:
        weights, activations: names of formats, ``float32`` among them where the tensor may stay float.
        granularities: of the weights' scales, where they have any.
        operators: ONNX operators; empty for all.
        symmetric_weights, symmetric_activations: whether a zero point other than the middle is refused.
        group_sizes: of granularity ``group``; empty for any.
    """

    weights: frozenset[str]
    activations: frozenset[str]
    granularities: frozenset[Kind] = frozenset({"tensor", "channel"})
    operators: frozenset[str] = _ALL
    symmetric_weights: bool = False
    symmetric_activations: bool = False
    group_sizes: tuple[int, ...] = ()

    def refusals(self, op: str, spec: LayerSpec, *, no_activations: bool = False) -> tuple[str, ...]:
        """Return what of a layer with operator `op` keeps this combination from covering it, in parts of a sentence.

        With `no_activations` the layer has none that could be quantized.
        """
        weights, activations = spec.weights, spec.activations
        found = []
        if self.operators and op not in self.operators:
            found.append(f"{op} with {_name(weights)} weights (but {_listed(self.operators)})")
        if _name(weights) not in self.weights:
            beside = "" if activations is None else f" beside {_name(activations)} activations"
            found.append(f"{_name(weights)} weights{beside} (but {_listed(self.weights)})")
        if not no_activations and _name(activations) not in self.activations:
            found.append(
                f"{_name(activations)} activations beside {_name(weights)} weights (but {_listed(self.activations)})"
            )
        if weights is not None and weights.has_scale:
            kind = _kind(weights.granularity)
            if kind not in self.granularities:
                found.append(f"{_name(weights)} weights per {kind} (but per {_listed(self.granularities)})")
            size = weights.granularity.group_size if isinstance(weights.granularity, PerGroup) else None
            if size is not None and self.group_sizes and size not in self.group_sizes:
                found.append(f"groups of {size} (but of {_listed(str(each) for each in self.group_sizes)})")
            if self.symmetric_weights and not weights.symmetric:
                found.append("asymmetric weights")
        integers = activations is not None and activations.is_integer
        if integers and self.symmetric_activations and activations is not None and not activations.symmetric:
            found.append("asymmetric activations")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Violation:
    """What a target cannot run: the layer, and why, as a sentence."""

    layer: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Target:
    """A runtime.

    Attributes:
        name: as on the command line.
        title: for people.
        runs: the combinations it covers; empty for everything.
        source: where the rules come from.
        unknown: what the source leaves open, in sentences.
    """

    name: str
    title: str
    runs: tuple[Runs, ...]
    source: str
    unknown: tuple[str, ...] = ()

    def refusal(self, op: str, spec: LayerSpec, *, quantizes_activations: bool = True) -> str | None:
        """Return why this target cannot run a layer, as a sentence; None where it can.

        A layer that has no activations to quantize is judged by its weights alone.
        """
        if not self.runs or spec == LayerSpec():
            return None
        if self.covers(op, spec, quantizes_activations=quantizes_activations):
            return None
        judged = spec if quantizes_activations else LayerSpec(spec.weights)
        found = [each.refusals(op, judged, no_activations=not quantizes_activations) for each in self.runs]
        best = min(found, key=len)
        return f"{self.title} does not run {' nor '.join(best)}."

    def covers(self, op: str, spec: LayerSpec, *, quantizes_activations: bool = True) -> bool:
        """Return whether this target can run a layer; what `refusal` answers, without its words and quickly."""
        if not self.runs or spec == LayerSpec():
            return True
        weights, activations = spec.weights, spec.activations if quantizes_activations else None
        names = _name(weights), _name(activations) if quantizes_activations else None
        scaled = weights if weights is not None and weights.has_scale else None
        granularity = None if scaled is None else scaled.granularity
        kind = None if granularity is None else _kind(granularity)
        size = granularity.group_size if isinstance(granularity, PerGroup) else None
        asymmetric = scaled is not None and not scaled.symmetric
        shifted = activations is not None and activations.is_integer and not activations.symmetric
        return any(
            names[0] in each.weights
            and (names[1] is None or names[1] in each.activations)
            and (not each.operators or op in each.operators)
            and (kind is None or kind in each.granularities)
            and (size is None or not each.group_sizes or size in each.group_sizes)
            and not (asymmetric and each.symmetric_weights)
            and not (shifted and each.symmetric_activations)
            for each in self.runs
        )

    def violations(self, layers: Iterable[TargetLayer], config: QuantConfig) -> tuple[Violation, ...]:
        """Return what of a configuration this target cannot run, in the network's order."""
        found = []
        for layer in layers:
            if layer.read_only or not layer.finite:
                continue
            spec = config.spec_for(layer.name)
            sentence = self.refusal(layer.op, spec, quantizes_activations=layer.quantizes_activations)
            if sentence is not None:
                found.append(Violation(layer.name, sentence))
        return tuple(found)

    def excluded(self, layers: Iterable[TargetLayer], specs: Iterable[LayerSpec]) -> Mapping[str, frozenset[LayerSpec]]:
        """Return which of `specs` each layer cannot have, as `mix.Mix.excluded` wants it."""
        choices = tuple(specs)
        found = {}
        for layer in layers:
            refused = frozenset(
                spec
                for spec in choices
                if self.refusal(layer.op, spec, quantizes_activations=layer.quantizes_activations) is not None
            )
            if refused:
                found[layer.name] = refused
        return found


def _name(spec: QuantizerSpec | None) -> str:
    if spec is None:
        return _NOTHING
    # Scales that are powers of two, or were quantized themselves, are numbers like others where values are integers.
    return str(spec.format) if spec.is_integer else str(spec)


def _kind(granularity: Granularity) -> Kind:
    if isinstance(granularity, PerTensor):
        return "tensor"
    if isinstance(granularity, PerChannel):
        return "channel"
    return "group" if isinstance(granularity, PerGroup) else "block"


def _listed(names: Iterable[str]) -> str:
    *others, last = sorted(names, key=lambda name: (len(name), name))
    return f"{', '.join(others)} or {last}" if others else last


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FLOATS = _set("float32 float16")
_ORT_INTEGERS = _set("int2 uint2 int3 uint3 int4 uint4 int5 uint5 int6 uint6 int7 uint7 int8 uint8") | _set(
    " ".join(f"{sign}int{bits}" for bits in range(9, 17) for sign in ("", "u"))
)
_ORT_ACTIVATIONS = frozenset(name for name in _ORT_INTEGERS) | _set(
    "float32 float16 bfloat16 float8_e4m3fn float8_e5m2"
)
_LINEAR = _set("Gemm MatMul")
_CONVOLUTIONS = _set("Conv ConvTranspose")
_EVERY_KIND: frozenset[Kind] = frozenset({"tensor", "channel", "group", "block"})
_GROUPS: frozenset[Kind] = frozenset({"tensor", "channel", "group"})

TARGETS = (
    Target("simulation", "Simulation only", (), "This program's own arithmetic: everything is allowed."),
    Target(
        "ort-cpu",
        "ONNX Runtime on a CPU",
        (
            Runs(
                _ORT_INTEGERS
                | _set("float32 float16 bfloat16 binary nf4")
                | frozenset(MINIFLOAT_NAMES.values())
                | frozenset(BLOCK_FORMATS)
                | frozenset(f"codebook{bits}" for bits in range(1, 9)),
                _ORT_ACTIVATIONS,
                _EVERY_KIND,
            ),
        ),
        "Measured with ONNX Runtime 1.31: Q/DQ up to opset 25, tables for what has no kernel.",
        ("Integer kernels are used for 8 bits (and 4 or 2 bits in MatMulNBits); all else is computed as float.",),
    ),
    Target(
        "tensorrt",
        "TensorRT (explicit Q/DQ)",
        (
            Runs(_set("int8"), _set("int8"), symmetric_weights=True, symmetric_activations=True),
            Runs(_set("float8_e4m3fn"), _set("float8_e4m3fn"), symmetric_weights=True, symmetric_activations=True),
            Runs(
                _set("int4"), _FLOATS | _set("bfloat16"), frozenset({"group"}), _LINEAR,
                symmetric_weights=True, group_sizes=(64, 128),
            ),
            Runs(
                _set("nvfp4"), _set("float4_e2m1 float8_e4m3fn float16 float32"), frozenset({"group"}), _LINEAR,
                symmetric_weights=True,
            ),
            Runs(_FLOATS | _set("bfloat16"), _FLOATS | _set("bfloat16")),
        ),
        "NVIDIA TensorRT 10 and 11, 'Working with quantized types': symmetric INT8, FP8 E4M3, FP4 E2M1 for weights and "
        "activations, INT4 for weights only.",
        (
            "Which block sizes of INT4 other than 64 and 128 have fast kernels is not documented.",
            "FP8 needs compute capability 8.9, FP4 10.0; the card is not known here.",
        ),
    ),
    Target(
        "ort-cuda",
        "ONNX Runtime with CUDA or TensorRT",
        (
            Runs(_set("int8"), _set("int8"), symmetric_weights=True, symmetric_activations=True),
            Runs(_set("float8_e4m3fn"), _set("float8_e4m3fn"), symmetric_weights=True, symmetric_activations=True),
            Runs(
                _set("int4 uint4 int8 uint8"), _FLOATS | _set("bfloat16"), frozenset({"group"}), _LINEAR,
                group_sizes=(16, 32, 64, 128, 256),
            ),
            Runs(_FLOATS | _set("bfloat16"), _FLOATS | _set("bfloat16")),
        ),
        "ONNX Runtime's documentation of quantization (TensorRT provider: symmetric INT8) and of MatMulNBits.",
        ("The CUDA provider alone runs other Q/DQ pairs as float; that is slow, and not counted as running them.",),
    ),
    Target(
        "openvino",
        "OpenVINO",
        (
            Runs(_set("int8 uint8"), _set("int8 uint8"), frozenset({"tensor", "channel"})),
            Runs(_set("int8 uint8"), _FLOATS | _set("bfloat16"), _GROUPS),
            Runs(
                _set("int4 uint4 nf4 float8_e4m3fn mxfp4"), _FLOATS | _set("bfloat16"), _GROUPS, _LINEAR | {"Gather"}
            ),
            Runs(_set("float8_e4m3fn float8_e5m2"), _set("float8_e4m3fn float8_e5m2"), operators=_LINEAR),
            Runs(_FLOATS | _set("bfloat16"), _FLOATS | _set("bfloat16")),
        ),
        "OpenVINO 2024 to 2026, 'CPU device' and 'Weight compression'; it reads ONNX Q/DQ directly.",
        (
            "Which of these a given device (CPU, GPU, NPU) runs fast differs and is not told apart here.",
            "Q/DQ whose groups leave a remainder is not loaded (2026.4); that is not checked here.",
        ),
    ),
    Target(
        "qnn",
        "QNN (Hexagon HTP)",
        (
            Runs(_set("int8"), _set("uint8 int8 uint16 int16"), symmetric_weights=True),
            Runs(_set("int4"), _set("uint8 int8 uint16 int16"), symmetric_weights=True),
            Runs(
                _set("int4"), _set("uint16 int16"), frozenset({"group"}), _LINEAR | {"Conv"},
                symmetric_weights=True, group_sizes=(16, 32, 64, 128),
            ),
            Runs(_set("int16"), _set("uint16 int16"), frozenset({"tensor", "channel"}), symmetric_weights=True),
            Runs(_set("int2"), _set("uint8 int8"), frozenset({"channel"}), _LINEAR, symmetric_weights=True),
            Runs(_set("float16 float32"), _set("float16 float32")),
        ),
        "Qualcomm AI Engine Direct, 'HTP op definition' and its revision history (2.43 to 2.49); AIMET's HTP notes.",
        (
            "Weights beside float16 activations (FP16W8, FP16W4) depend on SDK and chip, and are not allowed here.",
            "Limits of single operators (rank, dilation, direction of recurrent nets) are not known here.",
        ),
    ),
    Target(
        "litert",
        "LiteRT (TFLite)",
        (
            Runs(_set("int8"), _set("uint8 int8 int16"), symmetric_weights=True),
            Runs(
                _set("int4"), _set("uint8 int8"), frozenset({"tensor", "channel"}), _LINEAR | {"Conv"},
                symmetric_weights=True,
            ),
            Runs(_set("int4 int8"), _set("float32"), symmetric_weights=True),
            Runs(
                _set("int4 int2"), _set("float32"), frozenset({"group"}), _LINEAR | {"Gather"},
                symmetric_weights=True, group_sizes=(32, 64, 128, 256),
            ),
            Runs(_FLOATS, _FLOATS),
        ),
        "LiteRT 8-bit quantization specification; ai-edge-quantizer 0.10. Weights use -127 ... 127.",
        ("Activations of 16 bits must be symmetric; an asymmetric grid is converted to a symmetric one.",),
    ),
    Target(
        "coreml",
        "Core ML",
        (
            Runs(_set("int8"), _set("int8 uint8"), frozenset({"tensor", "channel"}), symmetric_weights=True),
            Runs(_set("int4 uint4 int8 uint8"), _FLOATS, _GROUPS),
            Runs(frozenset(f"codebook{bits}" for bits in (1, 2, 3, 4, 6, 8)), _FLOATS, _GROUPS),
            Runs(_FLOATS, _FLOATS),
        ),
        "coremltools 9, 'Optimization: what's new': 8 bits from iOS 16, activations from iOS 17, 4 bits and blocks "
        "from iOS 18 (macOS 15).",
        ("Which parts run on the Neural Engine is decided by Core ML and is not known here.",),
    ),
    Target(
        "mcu-int8",
        "Microcontroller (int8)",
        (
            Runs(
                _set("int8"), _set("int8 uint8"), frozenset({"tensor", "channel"}), _LINEAR | _CONVOLUTIONS,
                symmetric_weights=True,
            ),
            Runs(
                _set("int8"), _set("int16"), frozenset({"tensor", "channel"}), _LINEAR | _CONVOLUTIONS,
                symmetric_weights=True, symmetric_activations=True,
            ),
        ),
        "TensorFlow Lite for Microcontrollers and CMSIS-NN: the LiteRT 8-bit specification, and 16x8.",
        ("Which operators a firmware has linked in is not known here.",),
    ),
)  # fmt: skip


def find_target(name: str) -> Target:
    """Return the target called `name`.

    Raises:
        SpecError: there is none.
    """
    for target in TARGETS:
        if target.name == name.lower():
            return target
    raise SpecError(f"There is no target '{name}'; choose one of {', '.join(target.name for target in TARGETS)}.")
