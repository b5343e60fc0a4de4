"""Quantize, dequantize, fake-quantize weights in any format; for integers bit for bit as ONNX does.

Integers: ``q = clamp(round_half_even(x / scale) + zero_point, quant_min, quant_max)`` and
``x' = (q - zero_point) * scale``, which is QuantizeLinear and DequantizeLinear. Minifloats and tables:
``x' = nearest level of (x / scale) * scale``. Codebooks: the nearest of the group's levels. All in float32.

Weights are walked in pieces that fit the cache: beside the result no temporary is larger than a few pieces. The input
is never written to; it may be float16, float32 or float64 (taken as float32), read-only or memory-mapped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from quantgui.errors import SpecError
from quantgui.numerics.codebooks import weight_codebooks
from quantgui.numerics.groups import (
    Piece,
    as_box,
    as_float32,
    as_matrix,
    compute_each,
    from_matrix,
    grid_shape,
    needs_reordering,
    pieces,
)
from quantgui.numerics.qparams import QParams
from quantgui.numerics.ranges import Extrema, estimate_range_from_statistics, weight_ranges
from quantgui.numerics.rounding import CodebookRounding, EvenRounding, Rounding, UnevenRounding, rounding_of
from quantgui.numerics.scales import choose_grid
from quantgui.numerics.statistics import decibels, decibels_each
from quantgui.results import Array, Histogram, TensorError, TensorStatistics
from quantgui.spec.formats import CodebookFormat, FloatFormat, IntFormat, UnevenFormat
from quantgui.spec.granularity import PerChannel, PerTensor
from quantgui.spec.quantizer import MinMax, QuantizerSpec


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A quantized weight.

    Attributes:
        codes: in the weight's shape. Integers: int8, uint8, int16 or uint16, the smallest that holds the format.
            Minifloats: bit patterns, uint8. Tables and codebooks: the number of the level from below, uint8.
        qparams: scale and zero point of each group, (G,), channel by channel.
        scale_shape: (C, groups per channel), (1, 1) per tensor; G is their product.
    """

    codes: Array
    qparams: QParams
    scale_shape: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class WeightMeasurement:
    """All that is shown of a quantized weight, measured on every value.

    Attributes:
        error: error of the whole weight.
        channel_sqnr_db: sqnr of each channel, (C,); inf where a channel is unchanged.
        quantized: histogram of the quantized values.
        error_histogram: histogram of ``x - x'``.
        qparams: scales and zero points, (G,); empty for float formats and without a spec.
    """

    error: TensorError
    channel_sqnr_db: Array
    quantized: Histogram
    error_histogram: Histogram
    qparams: QParams


# --- groups --------------------------------------------------------------------------------------------------------


def quantize_groups(groups: Array, qparams: QParams, fmt: IntFormat) -> Array:
    """Return the codes of groups (G, N), in the smallest integer type that holds the format."""
    piece = _one_piece(groups)
    rounding = EvenRounding.of(qparams, fmt, (len(groups), 1), PerChannel())
    codes: Array = rounding.codes(as_float32(groups)[None], piece)[0]
    return codes.astype(code_dtype(fmt))


def dequantize_groups(codes: Array, qparams: QParams) -> Array:
    """Return the float32 values of codes (G, N)."""
    zero_point = qparams.zero_point[:, None]
    return np.asarray((codes.astype(np.int32) - zero_point).astype(np.float32) * qparams.scale[:, None])


def code_dtype(fmt: IntFormat) -> type[np.signedinteger | np.unsignedinteger]:
    """Return the smallest numpy integer type that holds the codes of `fmt`."""
    if fmt.bits <= 8:
        return np.int8 if fmt.signed else np.uint8
    return np.int16 if fmt.signed else np.uint16


# --- weights -------------------------------------------------------------------------------------------------------


def weight_qparams(x: Array, spec: QuantizerSpec, channel_axis: int, *, importance: Array | None = None) -> QParams:
    """Return the scales and zero points, or the codebooks, of a weight, (G,), channel by channel.

    `importance` is that of `weight_ranges`.

    Raises:
        SpecError: the format has no grid, or the weight holds NaN.
    """
    match spec.format:
        case CodebookFormat() as fmt:
            return _checked(weight_codebooks(x, spec, channel_axis, fmt))
        case FloatFormat() as fmt:
            raise SpecError(f"{fmt} has no scale and no codes; choose an integer format.")
        case fmt:
            return _grids(weight_ranges(x, spec, channel_axis, importance=importance), spec, fmt)


def choose_weight_grid(low: Array, high: Array, spec: QuantizerSpec) -> QParams:
    """Return the scales and zero points, (G,), of a weight with given ranges, each of any shape with G values.

    Raises:
        ValueError: the format has no range.
        SpecError: a range is not a number.
    """
    if isinstance(spec.format, FloatFormat | CodebookFormat):
        raise ValueError(f"{spec.format} has no range.")
    return _grids((low, high), spec, spec.format)


def encode(x: Array, spec: QuantizerSpec, channel_axis: int, qparams: QParams | None = None) -> Encoded:
    """Return the codes of a weight, with the ranges that `spec` estimates unless `qparams` are given.

    Raises:
        SpecError: the format has no codes.
    """
    qparams = weight_qparams(x, spec, channel_axis) if qparams is None else qparams
    shape = grid_shape(x.shape, channel_axis, spec.granularity)
    if needs_reordering(x.shape, channel_axis, spec.granularity):
        reordered = encode(np.ascontiguousarray(as_matrix(x, channel_axis)), spec, 0, qparams)
        codes = np.ascontiguousarray(from_matrix(reordered.codes, x.shape, channel_axis))
        return Encoded(codes, qparams, shape)
    codes = np.empty(x.shape, code_dtype(spec.format) if isinstance(spec.format, IntFormat) else np.uint8)
    source, target = as_box(x, channel_axis), as_box(codes, channel_axis)
    rounding = _coder(rounding_of(x.shape, spec, qparams, channel_axis))

    def fill(piece: Piece) -> None:
        piece.take(target)[...] = rounding.codes(as_float32(piece.take(source)), piece)

    compute_each(fill, pieces(_shape3(source), spec.granularity), x.size)
    return Encoded(codes, qparams, shape)


def decode(encoded: Encoded, spec: QuantizerSpec, channel_axis: int) -> Array:
    """Return the float32 values of an encoded weight, in its shape."""
    codes = encoded.codes
    if needs_reordering(codes.shape, channel_axis, spec.granularity):
        matrix = np.ascontiguousarray(as_matrix(codes, channel_axis))
        reordered = decode(Encoded(matrix, encoded.qparams, encoded.scale_shape), spec, 0)
        return np.ascontiguousarray(from_matrix(reordered, codes.shape, channel_axis))
    out = np.empty(codes.shape, np.float32)
    source, target = as_box(codes, channel_axis), as_box(out, channel_axis)
    rounding = _coder(rounding_of(codes.shape, spec, encoded.qparams, channel_axis))

    def fill(piece: Piece) -> None:
        piece.take(target)[...] = rounding.values(piece.take(source), piece)

    compute_each(fill, pieces(_shape3(source), spec.granularity), codes.size)
    return out


def fake_quantize(
    x: Array, spec: QuantizerSpec | None, channel_axis: int, *, out: Array | None = None
) -> tuple[Array, TensorError]:
    """Return the weight as its quantized form represents it, float32 in its shape, and the error that makes.

    Without a spec the values are copied. `out` is filled and returned if given: contiguous float32 in the shape of
    `x`, sharing no memory with it.
    """
    has_grid = spec is not None and not isinstance(spec.format, FloatFormat)
    qparams = weight_qparams(x, spec, channel_axis) if spec is not None and has_grid else None
    return _fake_quantized(x, spec, qparams, channel_axis, out)


def fake_quantize_with(
    x: Array, spec: QuantizerSpec, qparams: QParams, channel_axis: int = 0, *, out: Array | None = None
) -> tuple[Array, TensorError]:
    """Return what `fake_quantize` does, on given scales and zero points (G,)."""
    return _fake_quantized(x, spec, qparams, channel_axis, out)


def fake_quantization_error(x: Array, spec: QuantizerSpec, qparams: QParams, channel_axis: int) -> TensorError:
    """Return the error that `fake_quantize_with` tells, without making the quantized weight."""
    rounding = rounding_of(x.shape, spec, qparams, channel_axis)
    if needs_reordering(x.shape, channel_axis, rounding.granularity):
        x, channel_axis = np.ascontiguousarray(as_matrix(x, channel_axis)), 0
    source = as_box(x, channel_axis)
    parts = pieces(_shape3(source), rounding.granularity)
    return _Sums.joined(compute_each(lambda p: _quantized_piece(rounding, p, source, None), parts, x.size), x.size)


def measure_weight(
    x: Array,
    spec: QuantizerSpec | None,
    channel_axis: int,
    *,
    bins: int = 512,
    values: Array | None = None,
    given: QParams | None = None,
) -> WeightMeasurement:
    """Return error and histograms of a weight under `spec`, without making the quantized weight.

    Args:
        x: the weight.
        spec: how it is quantized, None for not at all.
        channel_axis: axis of its channels.
        bins: of the histograms.
        values: what is quantized instead of `x`, such as trained weights; the error is that against `x`.
        given: the grids, where they are not those that `spec` estimates.
    """
    granularity = PerTensor() if spec is None or isinstance(spec.format, FloatFormat) else spec.granularity
    if needs_reordering(x.shape, channel_axis, granularity):
        values = None if values is None else np.ascontiguousarray(as_matrix(values, channel_axis))
        x, channel_axis = np.ascontiguousarray(as_matrix(x, channel_axis)), 0
    minmax = QuantizerSpec(granularity=granularity, range_estimator=MinMax())
    ends = weight_ranges(x if values is None else values, minmax, channel_axis)
    qparams = _measured_grids(x, spec, channel_axis, ends) if given is None else given
    rounding = rounding_of(x.shape, spec, qparams, channel_axis)
    source, quantized_source = as_box(x, channel_axis), as_box(x if values is None else values, channel_axis)
    low, high, reach = rounding.bounds(*ends)
    if values is not None:
        reach += float(np.abs(values - x).max(initial=0.0))
    edges, error_edges = _edges(low, high, bins), _edges(-reach, reach, bins | 1)

    def measure(piece: Piece) -> tuple[_Sums, Array, Array]:
        part = as_float32(piece.take(source))
        quantized, clipped = rounding.quantized(as_float32(piece.take(quantized_source)), piece)
        counts = _binned(quantized, edges)
        error = np.subtract(part, quantized)
        return _Sums.by_channel(part, error, clipped, piece), counts, _binned(error, error_edges)

    measured = compute_each(measure, pieces(_shape3(source), granularity), x.size)
    signal, noise = np.zeros(source.shape[1]), np.zeros(source.shape[1])
    counts, error_counts = np.zeros(bins, np.int64), np.zeros(bins | 1, np.int64)
    for sums, part_counts, part_error_counts in measured:
        signal[sums.channels] += sums.channel_signal
        noise[sums.channels] += sums.channel_noise
        counts += part_counts
        error_counts += part_error_counts
    return WeightMeasurement(
        _Sums.joined([sums for sums, _, _ in measured], x.size),
        decibels_each(signal, noise),
        Histogram(edges, counts),
        Histogram(error_edges, error_counts),
        qparams,
    )


def _measured_grids(x: Array, spec: QuantizerSpec | None, channel_axis: int, ends: tuple[Array, Array]) -> QParams:
    """Return the grids of a weight whose extremes are known."""
    if spec is None or isinstance(spec.format, FloatFormat):
        return _NO_QPARAMS
    if isinstance(spec.range_estimator, MinMax) and not isinstance(spec.format, CodebookFormat):
        # These ranges are at hand; any other is estimated.
        return _grids(ends, spec, spec.format)
    return weight_qparams(x, spec, channel_axis)


def activation_qparams(statistics: TensorStatistics, spec: QuantizerSpec, extrema: Extrema | None = None) -> QParams:
    """Return the scale and zero point, (1,), of a tensor from its statistics.

    `extrema` are the smallest and the largest value of each sample, which some estimators average.

    Raises:
        SpecError: the format has no scale.
    """
    if isinstance(spec.format, FloatFormat | CodebookFormat):
        raise SpecError(f"{spec.format} has no scale; choose an integer or an 8-bit float for activations.")
    low, high = estimate_range_from_statistics(statistics, spec, extrema)
    return choose_grid(np.array([low]), np.array([high]), spec, spec.format)


# --- kernels -------------------------------------------------------------------------------------------------------

_NOT_A_NUMBER = "The weight holds values that are not numbers; leave it float."
_NO_QPARAMS = QParams(np.empty(0, np.float32), np.empty(0, np.int32))


def _grids(ranges: tuple[Array, Array], spec: QuantizerSpec, fmt: IntFormat | UnevenFormat) -> QParams:
    low, high = (ends.ravel() for ends in ranges)
    if np.isnan(low).any() or np.isnan(high).any():
        raise SpecError(_NOT_A_NUMBER)
    return choose_grid(low, high, spec, fmt)


def _checked(qparams: QParams) -> QParams:
    if qparams.levels is not None and np.isnan(qparams.levels).any():
        raise SpecError(_NOT_A_NUMBER)
    return qparams


def _coder(rounding: Rounding) -> EvenRounding | UnevenRounding | CodebookRounding:
    assert isinstance(rounding, EvenRounding | UnevenRounding | CodebookRounding)
    return rounding


def _shape3(box: Array) -> tuple[int, int, int]:
    a, c, b = box.shape
    return a, c, b


def _one_piece(groups: Array) -> Piece:
    rows, columns = groups.shape
    everything = (slice(0, 1), slice(0, rows), slice(0, columns))
    return Piece(everything, (1, rows, columns), (slice(0, rows), slice(0, 1)), (0, 2))


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """What one piece adds to the error of the whole."""

    signal: float
    noise: float
    max_abs: float
    clipped: int
    channels: slice = field(default_factory=lambda: slice(0, 0))
    channel_signal: Array | float = 0.0
    channel_noise: Array | float = 0.0

    @staticmethod
    def of(part: Array, error: Array, clipped: int) -> _Sums:
        """Return the sums of a piece."""
        return _Sums(_squares(part), _squares(error), _largest(error), clipped)

    @staticmethod
    def by_channel(part: Array, error: Array, clipped: int, piece: Piece) -> _Sums:
        """Return the sums of a piece, as a whole and in each of its channels."""
        signal, noise = _channel_squares(part, piece), _channel_squares(error, piece)
        return _Sums(float(signal.sum()), float(noise.sum()), _largest(error), clipped, piece.slices[1], signal, noise)

    @staticmethod
    def joined(parts: list[_Sums], size: int) -> TensorError:
        if not size:
            return TensorError(math.inf, 0.0, 0.0, 0.0)
        signal, noise = math.fsum(p.signal for p in parts), math.fsum(p.noise for p in parts)
        return TensorError(
            decibels(signal, noise), noise / size, max(p.max_abs for p in parts), sum(p.clipped for p in parts) / size
        )


def _quantized_piece(rounding: Rounding, piece: Piece, source: Array, target: Array | None) -> _Sums:
    """Quantize one piece, into `target` if there is one, and return its sums."""
    part = as_float32(piece.take(source))
    quantized, clipped = rounding.quantized(part, piece, None if target is None else piece.take(target))
    return _Sums.of(part, np.subtract(part, quantized), clipped)


def _wide(largest: float) -> bool:
    """Return whether squares of values up to `largest` may leave the range of float32."""
    return largest != 0.0 and not 1e-12 < largest < 1e15


def _largest(values: Array) -> float:
    return max(float(values.max()), -float(values.min()))


def _squares(values: Array) -> float:
    """Return the sum of squares, in double precision where single would overflow or underflow."""
    flat, letters = (values.reshape(-1), "n,n->") if values.flags.c_contiguous else (values, "abc,abc->")
    with np.errstate(over="ignore", under="ignore"):
        total = float(np.einsum(letters, flat, flat))
    if 1e-24 * values.size < total < 1e37:
        return total
    flat = flat.astype(np.float64)
    return float(np.einsum(letters, flat, flat))


def _channel_squares(values: Array, piece: Piece) -> Array:
    """Return the sum of squares in each channel of a piece, float64."""
    if piece.axes == (2,) or (piece.block and not piece.transposed):
        letters = "cgn,cgn->c"
    elif piece.transposed:
        letters = "gnc,gnc->c"
    elif values.shape[0] == 1 and values.shape[2] < 64:
        # Loops over columns are long where those over rows are short.
        values, letters = np.ascontiguousarray(values[0].T), "bc,bc->c"
    else:
        letters = "acb,acb->c"
    with np.errstate(over="ignore", under="ignore"):
        totals = np.einsum(letters, values, values)
    if ((totals > 1e-20) & (totals < 1e37)).all():
        return np.asarray(totals, np.float64)
    values = values.astype(np.float64)
    return np.asarray(np.einsum(letters, values, values))


def _fake_quantized(
    x: Array, spec: QuantizerSpec | None, qparams: QParams | None, channel_axis: int, out: Array | None
) -> tuple[Array, TensorError]:
    out = np.empty(x.shape, np.float32) if out is None else out
    rounding = rounding_of(x.shape, spec, qparams, channel_axis)
    if needs_reordering(x.shape, channel_axis, rounding.granularity):
        matrix, error = _fake_quantized(np.ascontiguousarray(as_matrix(x, channel_axis)), spec, qparams, 0, None)
        out[...] = from_matrix(matrix, x.shape, channel_axis)
        return out, error
    source = as_box(x, channel_axis)
    target = out.reshape(source.shape, copy=False)
    parts = pieces(_shape3(source), rounding.granularity)
    sums = compute_each(lambda piece: _quantized_piece(rounding, piece, source, target), parts, x.size)
    return out, _Sums.joined(sums, x.size)


def _edges(low: float, high: float, bins: int) -> Array:
    if not (math.isfinite(low) and math.isfinite(high)) or low == high:
        low, high = -0.5, 0.5
    return np.linspace(low, high, bins + 1)


def _binned(values: Array, edges: Array) -> Array:
    """Return the counts of values in bins of equal width; those beyond the ends are put into the last bins."""
    bins, low, high = len(edges) - 1, float(edges[0]), float(edges[-1])
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if _wide(high - low):
            values = values.astype(np.float64)
        index = values.ravel() - values.dtype.type(low)
        index *= values.dtype.type(bins / (high - low))
    np.clip(index, 0, bins - 1, out=index)
    return np.bincount(index.astype(np.intp), minlength=bins)


__all__ = [
    "Encoded",
    "QParams",
    "WeightMeasurement",
    "activation_qparams",
    "choose_weight_grid",
    "code_dtype",
    "decode",
    "dequantize_groups",
    "encode",
    "fake_quantization_error",
    "fake_quantize",
    "fake_quantize_with",
    "measure_weight",
    "quantize_groups",
    "weight_qparams",
]
