"""The specification of one quantizer, and of one layer: hashable, comparable, serializable."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, get_args

from quantgui.errors import SpecError
from quantgui.spec.formats import CodebookFormat, FloatFormat, Format, IntFormat, MinifloatFormat, TableFormat
from quantgui.spec.granularity import Granularity, PerChannel, PerGroup, PerTensor

_STATE = re.compile("[0-9a-f]{8,64}")


@dataclass(frozen=True, slots=True)
class MinMax:
    """Range = smallest and largest value seen."""


@dataclass(frozen=True, slots=True)
class Percentile:
    """Range = the values between which the central ``percentile`` percent of all values lie."""

    percentile: float = 99.99

    def __post_init__(self) -> None:
        if not 50.0 <= self.percentile <= 100.0:
            raise SpecError(f"Percentile must be 50 to 100, got {self.percentile}.")


@dataclass(frozen=True, slots=True)
class TwoSidedPercentile:
    """Range = from the value below which ``lower`` percent of all values lie to that with ``upper`` percent below."""

    lower: float = 0.01
    upper: float = 99.99

    def __post_init__(self) -> None:
        if not 0.0 <= self.lower <= 50.0 <= self.upper <= 100.0:
            raise SpecError(
                f"The lower percentile must be 0 to 50 and the upper 50 to 100, got {self.lower} and {self.upper}."
            )


@dataclass(frozen=True, slots=True)
class LeastSquaredError:
    """Range = the one whose quantization has the least squared error, searched in each group."""


@dataclass(frozen=True, slots=True)
class InputWeightedError:
    """Range = the one whose quantization changes the layer's output least, searched in each group; weights only.

    The squared error of each value counts as much as the mean square of the input it is multiplied by, which comes
    from calibration data: that is the error of the output where inputs are not correlated. A layer's squared output
    error is ``dw H dw`` with H the second moments of its inputs; this is its diagonal.
    Sources: E. Frantar et al., "GPTQ", 2022, equation 1; B. Hassibi and D. Stork, "Second order derivatives for
    network pruning: optimal brain surgeon", 1992; llama.cpp's "importance matrix" weighs errors so.
    """


@dataclass(frozen=True, slots=True)
class Entropy:
    """Range = the one whose quantized histogram has the least KL divergence from the float histogram.

    Source: S. Migacz, "8-bit inference with TensorRT", GTC 2017.
    """


@dataclass(frozen=True, slots=True)
class FixedRange:
    """Range = ``low`` ... ``high``, set by hand or trained; in every group the same.

    `output`, which activations alone have, is the range of what the layer stores where that is not the one of what it
    reads (`at_input`, `at_output`).
    """

    low: float
    high: float
    output: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for low, high in ((self.low, self.high), self.output or (0.0, 0.0)):
            if not (math.isfinite(low) and math.isfinite(high) and low <= 0.0 <= high):
                raise SpecError(f"A fixed range must be finite and contain 0, got {low} to {high}.")


@dataclass(frozen=True, slots=True)
class MovingAverage:
    """Range = moving average of each sample's smallest and largest value, in their order; activations only.

    ``average = momentum * average + (1 - momentum) * value``, started with the first sample.
    Source: B. Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
    inference", 2018.
    """

    momentum: float = 0.9

    def __post_init__(self) -> None:
        if not 0.0 <= self.momentum < 1.0:
            raise SpecError(f"The momentum of a moving average must be 0 to below 1, got {self.momentum}.")


@dataclass(frozen=True, slots=True)
class SampleMean:
    """Range = mean of each sample's smallest value to mean of each sample's largest; activations only."""


@dataclass(frozen=True, slots=True)
class HalfQuadratic:
    """Range = that of min-max, shifted by whole steps to where large errors are few; asymmetric integer weights only.

    Source: H. Badri and A. Shaji, "Half-quadratic quantization of large machine learning models", 2023.
    """


@dataclass(frozen=True, slots=True)
class Trained:
    """Weights, and their scales, as training left them; integer weights only.

    `state` is the hash under which they are kept (`network.trained`). They hold for the rest of the specification
    that they were trained under: whoever changes it chooses another estimator too.
    """

    state: str

    def __post_init__(self) -> None:
        if not _STATE.fullmatch(self.state):
            raise SpecError(f"'{self.state[:80]}' names no trained weights; a name is 8 to 64 hexadecimal digits.")


RangeEstimator = (
    MinMax
    | Percentile
    | TwoSidedPercentile
    | LeastSquaredError
    | InputWeightedError
    | Entropy
    | FixedRange
    | MovingAverage
    | SampleMean
    | HalfQuadratic
    | Trained
)

ScaleFormat = Literal["float32", "float16", "bfloat16", "e8m0", "e4m3"]
SCALE_FORMATS: tuple[ScaleFormat, ...] = get_args(ScaleFormat)


@dataclass(frozen=True, slots=True)
class QuantizerSpec:
    """How one tensor is quantized.

    With ``symmetric`` the zero point is 0 (the middle of the grid for unsigned formats) and
    ``scale = absmax / quant_max``; with ``full_range`` it is ``absmax / ((quant_max - quant_min) / 2)``, which uses
    the lowest code too (1.4 dB better at 2 bits, 0.05 dB at 8) and clips the largest positive values by half a step.
    Minifloats and tables are symmetric: ``scale = absmax / largest level``. A `CodebookFormat` has no scale, its levels
    are the values themselves; range estimators have no meaning for it. A `FloatFormat` uses nothing but ``format``.

    ``scale_format`` is what scales, or the levels of a codebook, are stored in; values are quantized with the scales
    as stored. ``e8m0`` is a power of two, ``2**(floor(log2(absmax)) - floor(log2(largest level)))`` as the OCP
    Microscaling specification has it (asymmetric integers: the smallest that covers the range). ``e4m3`` comes with
    one float32 scale for the whole tensor, by which the largest scale becomes 448. With ``double_quantization``
    scales are int8 in runs of 256 with a float32 scale each, around their mean, as QLoRA stores them.
    """

    format: Format = IntFormat(8)
    symmetric: bool = True
    granularity: Granularity = PerChannel()
    range_estimator: RangeEstimator = MinMax()
    full_range: bool = False
    scale_format: ScaleFormat = "float32"
    double_quantization: bool = False

    def __post_init__(self) -> None:
        if self.scale_format not in SCALE_FORMATS:
            raise SpecError(f"'{self.scale_format}' is no scale format; use {', '.join(SCALE_FORMATS)}.")
        if not isinstance(self.format, IntFormat):
            if not self.symmetric or self.full_range:
                raise SpecError(f"{self.format} has no zero point; only integers are asymmetric or use the full range.")
            if isinstance(self.range_estimator, HalfQuadratic):
                raise SpecError(f"{self.format} has no zero point, which half-quadratic quantization moves.")
            if isinstance(self.range_estimator, Trained) and not self.has_scale:
                raise SpecError(f"Weights are trained in formats with a scale, not as {self.format}.")
        if isinstance(self.range_estimator, HalfQuadratic) and self.symmetric:
            raise SpecError("Half-quadratic quantization moves the zero point; choose asymmetric.")
        match self.format:
            case FloatFormat() if self.scale_format != "float32" or self.double_quantization:
                raise SpecError(f"{self.format} has no scales.")
            case CodebookFormat() if self.scale_format in ("e8m0", "e4m3") or self.double_quantization:
                raise SpecError("The levels of a codebook are stored as float32, float16 or bfloat16.")
            case CodebookFormat() if not isinstance(self.range_estimator, MinMax):
                raise SpecError("A codebook is fitted to all values; it has no range to estimate.")
            case _:
                pass
        if self.double_quantization and self.scale_format != "float32":
            raise SpecError(f"Scales are either quantized twice or {self.scale_format}, not both.")
        if isinstance(self.granularity, PerTensor) and (self.double_quantization or self.scale_format == "e4m3"):
            raise SpecError("One scale for the whole tensor is stored as float32; quantize scales of groups.")

    @property
    def bits(self) -> int:
        """Bits per value."""
        return self.format.bits

    @property
    def is_integer(self) -> bool:
        """Whether values are integers with a scale and a zero point."""
        return isinstance(self.format, IntFormat)

    @property
    def has_scale(self) -> bool:
        """Whether groups have a scale, which follows from a range."""
        return isinstance(self.format, IntFormat | MinifloatFormat | TableFormat)

    def __str__(self) -> str:
        if self.scale_format == "float32":
            # No block format has such scales.
            return str(self.format)
        bare = replace(self, range_estimator=MinMax())
        return next((name for name, spec in BLOCK_FORMATS.items() if spec == bare), str(self.format))


def _block_format(element: Format, size: int, scales: ScaleFormat) -> QuantizerSpec:
    return QuantizerSpec(element, granularity=PerGroup(size), scale_format=scales)


BLOCK_FORMATS: Mapping[str, QuantizerSpec] = MappingProxyType(
    {
        "mxfp8_e4m3": _block_format(MinifloatFormat(4, 3), 32, "e8m0"),
        "mxfp8_e5m2": _block_format(MinifloatFormat(5, 2, "ieee"), 32, "e8m0"),
        "mxfp6_e2m3": _block_format(MinifloatFormat(2, 3), 32, "e8m0"),
        "mxfp6_e3m2": _block_format(MinifloatFormat(3, 2), 32, "e8m0"),
        "mxfp4": _block_format(MinifloatFormat(2, 1), 32, "e8m0"),
        "mxint8": _block_format(IntFormat(8), 32, "e8m0"),
        "nvfp4": _block_format(MinifloatFormat(2, 1), 16, "e4m3"),
    }
)
"""What hardware calls a format, though it is three choices: a format, blocks along K, and a format of their scales.

Sources: OCP Microscaling Formats (MX) Specification 1.0, 2023; NVIDIA, "Introducing NVFP4", 2025.
"""


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """What happens to one layer; ``None`` keeps float32.

    ``activations`` quantizes the layer's data input and, for convolutions, also its output (after the Relu or Clip
    that follows it), as integer runtimes need both.
    """

    weights: QuantizerSpec | None = None
    activations: QuantizerSpec | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and isinstance(self.weights.range_estimator, MovingAverage | SampleMean):
            raise SpecError("Weights have no samples to average over; choose another range estimator for them.")
        if self.activations is None:
            return
        if not isinstance(self.activations.granularity, PerTensor):
            raise SpecError("Activations are quantized per tensor.")
        if isinstance(self.activations.format, TableFormat | CodebookFormat):
            raise SpecError(f"Activations cannot be {self.activations.format}; it is a format for weights.")
        if isinstance(self.activations.range_estimator, HalfQuadratic):
            raise SpecError("Half-quadratic quantization is for weights; choose another range estimator.")
        if isinstance(self.activations.range_estimator, InputWeightedError):
            raise SpecError("Input-weighted error is for weights; choose another range estimator.")
        if isinstance(self.activations.range_estimator, Trained):
            raise SpecError("Trained ranges of activations are fixed ranges; choose another range estimator.")

    def __str__(self) -> str:
        weights = "float32" if self.weights is None else str(self.weights)
        return weights if self.activations is None else f"{weights} / {self.activations}"


FLOAT = LayerSpec()


def at_input(spec: QuantizerSpec) -> QuantizerSpec:
    """Return what the spec of a layer's activations means for the tensor that the layer reads."""
    match spec.range_estimator:
        case FixedRange(low, high, output) if output is not None:
            return replace(spec, range_estimator=FixedRange(low, high))
        case _:
            return spec


def at_output(spec: QuantizerSpec) -> QuantizerSpec:
    """Return what the spec of a layer's activations means for the tensor that the layer stores."""
    match spec.range_estimator:
        case FixedRange(_, _, output) if output is not None:
            return replace(spec, range_estimator=FixedRange(*output))
        case _:
            return spec


def bits_of(spec: QuantizerSpec | None) -> int:
    """Return the bits per value of a spec; 32 where the tensor stays float."""
    return 32 if spec is None else spec.bits


__all__ = [
    "BLOCK_FORMATS",
    "FLOAT",
    "SCALE_FORMATS",
    "Entropy",
    "FixedRange",
    "FloatFormat",
    "HalfQuadratic",
    "InputWeightedError",
    "LayerSpec",
    "LeastSquaredError",
    "MinMax",
    "MovingAverage",
    "Percentile",
    "QuantizerSpec",
    "RangeEstimator",
    "SampleMean",
    "ScaleFormat",
    "Trained",
    "TwoSidedPercentile",
    "at_input",
    "at_output",
    "bits_of",
]
