"""The specification of one quantizer, and of one layer: hashable, comparable, serializable."""

from __future__ import annotations

import math
from dataclasses import dataclass

from quantgui.errors import SpecError
from quantgui.spec.formats import FloatFormat, Format, IntFormat
from quantgui.spec.granularity import Granularity, PerChannel, PerTensor


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
class LeastSquaredError:
    """Range = the one whose quantization has the least squared error, searched in each group."""


@dataclass(frozen=True, slots=True)
class Entropy:
    """Range = the one whose quantized histogram has the least KL divergence from the float histogram.

    Source: S. Migacz, "8-bit inference with TensorRT", GTC 2017.
    """


@dataclass(frozen=True, slots=True)
class FixedRange:
    """Range = ``low`` ... ``high``, set by hand; in every group the same."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= 0.0 <= self.high):
            raise SpecError(f"A fixed range must be finite and contain 0, got {self.low} to {self.high}.")


RangeEstimator = MinMax | Percentile | LeastSquaredError | Entropy | FixedRange


@dataclass(frozen=True, slots=True)
class QuantizerSpec:
    """How one tensor is quantized.

    With ``symmetric`` the zero point is 0 (the middle of the grid for unsigned formats) and
    ``scale = absmax / quant_max``; with ``full_range`` it is ``absmax / ((quant_max - quant_min) / 2)``, which uses
    the lowest code too (1.4 dB better at 2 bits, 0.05 dB at 8) and clips the largest positive values by half a step.
    A `FloatFormat` uses nothing but ``format``.
    """

    format: Format = IntFormat(8)
    symmetric: bool = True
    granularity: Granularity = PerChannel()
    range_estimator: RangeEstimator = MinMax()
    full_range: bool = False

    @property
    def bits(self) -> int:
        """Bits per value."""
        return self.format.bits

    @property
    def is_integer(self) -> bool:
        """Whether scale and zero point are used."""
        return isinstance(self.format, IntFormat)

    def __str__(self) -> str:
        return str(self.format)


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """What happens to one layer; ``None`` keeps float32.

    ``activations`` quantizes the layer's data input and, for convolutions, also its output (after the Relu or Clip
    that follows it), as integer runtimes need both.
    """

    weights: QuantizerSpec | None = None
    activations: QuantizerSpec | None = None

    def __post_init__(self) -> None:
        if self.activations is not None and not isinstance(self.activations.granularity, PerTensor):
            raise SpecError("Activations are quantized per tensor.")

    def __str__(self) -> str:
        weights = "float32" if self.weights is None else str(self.weights)
        return weights if self.activations is None else f"{weights} / {self.activations}"


FLOAT = LayerSpec()


def bits_of(spec: QuantizerSpec | None) -> int:
    """Return the bits per value of a spec; 32 where the tensor stays float."""
    return 32 if spec is None else spec.bits


__all__ = [
    "FLOAT",
    "Entropy",
    "FixedRange",
    "FloatFormat",
    "LayerSpec",
    "LeastSquaredError",
    "MinMax",
    "Percentile",
    "QuantizerSpec",
    "RangeEstimator",
    "bits_of",
]
