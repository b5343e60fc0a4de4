"""Quantize, dequantize, fake-quantize: the arithmetic of ONNX's QuantizeLinear and DequantizeLinear, bit for bit.

``q = clamp(round_half_even(x / scale) + zero_point, quant_min, quant_max)``, ``x' = (q - zero_point) * scale``, all in
float32. Weights are walked in pieces that fit the cache: beside the result no temporary is larger than a few pieces.
The input is never written to; it may be float16, float32 or float64 (taken as float32), read-only or memory-mapped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from quantgui.errors import SpecError
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
from quantgui.numerics.qparams import QParams, choose_qparams, grid_ends
from quantgui.numerics.ranges import estimate_range_from_statistics, weight_ranges
from quantgui.numerics.statistics import decibels, decibels_each
from quantgui.results import Array, Histogram, TensorError, TensorStatistics
from quantgui.spec.formats import FloatFormat, FloatName, Format, IntFormat
from quantgui.spec.granularity import Granularity, PerTensor
from quantgui.spec.quantizer import MinMax, QuantizerSpec


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """An integer-quantized weight.

    Attributes:
        codes: integers in the weight's shape; int8, uint8, int16 or uint16, the smallest that holds the format.
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
    codes: Array = _codes(as_float32(groups)[None], _Grids.of(qparams, fmt, (len(groups), 1)), piece, fmt)[0]
    return codes


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


def weight_qparams(x: Array, spec: QuantizerSpec, channel_axis: int) -> QParams:
    """Return the scales and zero points of a weight, (G,), channel by channel."""
    return _grid_of(weight_ranges(x, spec, channel_axis), spec, _int_format(spec))


def encode(x: Array, spec: QuantizerSpec, channel_axis: int, qparams: QParams | None = None) -> Encoded:
    """Return the integer codes of a weight, with the ranges that `spec` estimates unless `qparams` are given.

    Raises:
        SpecError: the format has no codes.
    """
    fmt = _int_format(spec)
    qparams = weight_qparams(x, spec, channel_axis) if qparams is None else qparams
    shape = grid_shape(x.shape, channel_axis, spec.granularity)
    if needs_reordering(x.shape, channel_axis, spec.granularity):
        reordered = encode(np.ascontiguousarray(as_matrix(x, channel_axis)), spec, 0, qparams)
        codes = np.ascontiguousarray(from_matrix(reordered.codes, x.shape, channel_axis))
        return Encoded(codes, qparams, shape)
    codes = np.empty(x.shape, code_dtype(fmt))
    source, target = as_box(x, channel_axis), as_box(codes, channel_axis)
    grids = _Grids.of(qparams, fmt, shape)

    def fill(piece: Piece) -> None:
        piece.take(target)[...] = _codes(as_float32(piece.take(source)), grids, piece, fmt)

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
    scale = encoded.qparams.scale.reshape(encoded.scale_shape)
    zero_point = encoded.qparams.zero_point.reshape(encoded.scale_shape).astype(np.float32)

    def fill(piece: Piece) -> None:
        # Codes have at most 16 bits, so the difference is exact in float32.
        difference = piece.take(source) - piece.spread(zero_point)
        np.multiply(difference, piece.spread(scale), out=piece.take(target))

    compute_each(fill, pieces(_shape3(source), spec.granularity), codes.size)
    return out


def fake_quantize(
    x: Array, spec: QuantizerSpec | None, channel_axis: int, *, out: Array | None = None
) -> tuple[Array, TensorError]:
    """Return the weight as its quantized form represents it, float32 in its shape, and the error that makes.

    Without a spec the values are copied. `out` is filled and returned if given: contiguous float32 in the shape of
    `x`, sharing no memory with it.
    """
    qparams = weight_qparams(x, spec, channel_axis) if spec is not None and spec.is_integer else None
    return _fake_quantized(x, spec, qparams, channel_axis, out)


def fake_quantize_with(
    x: Array, spec: QuantizerSpec, qparams: QParams, channel_axis: int = 0, *, out: Array | None = None
) -> tuple[Array, TensorError]:
    """Return what `fake_quantize` does, on given scales and zero points (G,)."""
    return _fake_quantized(x, spec, qparams, channel_axis, out)


def measure_weight(x: Array, spec: QuantizerSpec | None, channel_axis: int, *, bins: int = 512) -> WeightMeasurement:
    """Return error and histograms of a weight under `spec`, without making the quantized weight."""
    granularity = PerTensor() if spec is None or not spec.is_integer else spec.granularity
    if needs_reordering(x.shape, channel_axis, granularity):
        x, channel_axis = np.ascontiguousarray(as_matrix(x, channel_axis)), 0
    ends = weight_ranges(x, QuantizerSpec(granularity=granularity, range_estimator=MinMax()), channel_axis)
    qparams = _NO_QPARAMS
    if spec is not None and isinstance(spec.format, IntFormat):
        # Min-max ranges are at hand; any other is estimated.
        ranges = ends if isinstance(spec.range_estimator, MinMax) else weight_ranges(x, spec, channel_axis)
        qparams = _grid_of(ranges, spec, spec.format)
    quantizer = _Quantizer.of(x.shape, spec, qparams, channel_axis)
    source = as_box(x, channel_axis)
    low, high, reach = quantizer.bounds(*ends)
    edges, error_edges = _edges(low, high, bins), _edges(-reach, reach, bins | 1)

    def measure(piece: Piece) -> tuple[_Sums, Array, Array]:
        part = as_float32(piece.take(source))
        quantized, clipped = quantizer.quantized(part, piece)
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


def activation_qparams(statistics: TensorStatistics, spec: QuantizerSpec) -> QParams:
    """Return the scale and zero point, (1,), of a tensor from its statistics.

    Raises:
        SpecError: the format has no scale.
    """
    low, high = estimate_range_from_statistics(statistics, spec)
    return choose_qparams(low, high, _int_format(spec), symmetric=spec.symmetric, full_range=spec.full_range)


# --- floating-point formats ----------------------------------------------------------------------------------------


def to_float16(x: Array) -> Array:
    """Return `x` as float16, rounded half to even; what is too large becomes infinite."""
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(x, np.float32).astype(np.float16)


def to_bfloat16(x: Array) -> Array:
    """Return the bit patterns of `x` in bfloat16, uint16, rounded half to even (the upper half of a float32)."""
    bits = as_float32(np.ascontiguousarray(x)).view(np.uint32)
    rounded = (bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16
    # Rounding would carry the digits of a NaN into its sign.
    nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return np.where(nan, (bits >> 16) & 0x8000 | 0x7FC0, rounded).astype(np.uint16)


def from_bfloat16(bits: Array) -> Array:
    """Return the float32 values of bfloat16 bit patterns (uint16)."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def round_to_format(x: Array, name: FloatName) -> Array:
    """Return `x` rounded to a floating-point format, as float32."""
    match name:
        case "float16":
            return to_float16(x).astype(np.float32)
        case "bfloat16":
            return from_bfloat16(to_bfloat16(x))


# --- kernels -------------------------------------------------------------------------------------------------------

_NO_QPARAMS = QParams(np.empty(0, np.float32), np.empty(0, np.int32))


def _int_format(spec: QuantizerSpec) -> IntFormat:
    match spec.format:
        case IntFormat() as fmt:
            return fmt
        case FloatFormat() as fmt:
            raise SpecError(f"{fmt} has no scale and no codes; choose an integer format.")


def _grid_of(ranges: tuple[Array, Array], spec: QuantizerSpec, fmt: IntFormat) -> QParams:
    low, high = (ends.ravel() for ends in ranges)
    grids = choose_qparams(low, high, fmt, symmetric=spec.symmetric, full_range=spec.full_range)
    used = (low != 0) | (high != 0)
    if used.all() or not used.any():
        return grids
    # Any grid holds a group of zeros; the finest of the others keeps it from looking like the widest.
    return QParams(np.where(used, grids.scale, grids.scale[used].min()), grids.zero_point)


def _shape3(box: Array) -> tuple[int, int, int]:
    a, c, b = box.shape
    return a, c, b


def _one_piece(groups: Array) -> Piece:
    rows, columns = groups.shape
    everything = (slice(0, 1), slice(0, rows), slice(0, columns))
    return Piece(everything, (1, rows, columns), (slice(0, rows), slice(0, 1)), (0, 2))


@dataclass(frozen=True, slots=True, eq=False)
class _Grids:
    """Scales and smallest and largest ``q - zero_point``, (C, groups per channel); ends are numbers if all alike."""

    scale: Array
    low: Array | float
    high: Array | float
    zero_point: Array

    @staticmethod
    def of(qparams: QParams, fmt: IntFormat, shape: tuple[int, int]) -> _Grids:
        low, high = grid_ends(qparams, fmt)
        scale = qparams.scale.astype(np.float32, copy=False).reshape(shape)
        zero_point = qparams.zero_point.reshape(shape).astype(np.float32)
        if low.size and (low == low[0]).all():
            return _Grids(scale, float(low[0]), float(high[0]), zero_point)
        return _Grids(scale, low.reshape(shape), high.reshape(shape), zero_point)

    def levels(self, part: Array, piece: Piece) -> tuple[Array, int]:
        """Return ``q - zero_point`` of a piece as float32, and how many values are clipped."""
        with np.errstate(over="ignore", under="ignore"):
            units = np.divide(part, _filled(piece.spread(self.scale), piece))
        np.rint(units, out=units)
        if isinstance(self.low, float) and isinstance(self.high, float):
            clipped = 0
            if units.max() > self.high:
                clipped += int(np.count_nonzero(units > self.high))
            if units.min() < self.low:
                clipped += int(np.count_nonzero(units < self.low))
            if clipped:
                np.clip(units, self.low, self.high, out=units)
        else:
            low, high = (_filled(piece.spread(np.asarray(end)), piece) for end in (self.low, self.high))
            clipped = int(np.count_nonzero(units > high)) + int(np.count_nonzero(units < low))
            if clipped:
                np.clip(units, low, high, out=units)
        # Integers know no negative zero.
        units += np.float32(0.0)
        return units, clipped


def _filled(per_group: Array, piece: Piece) -> Array:
    """Return values that broadcast to a piece; written out where inner loops would be too short to be fast."""
    if piece.shape[2] >= 128 or per_group.shape[2] != 1 or per_group.size == 1:
        return per_group
    return (
        np.repeat(per_group.ravel(), piece.shape[2]).reshape(per_group.shape[:2] + piece.shape[2:])
        if (piece.shape[0] == per_group.shape[0])
        else per_group
    )


def _codes(part: Array, grids: _Grids, piece: Piece, fmt: IntFormat) -> Array:
    levels, _ = grids.levels(part, piece)
    levels += piece.spread(grids.zero_point)
    return levels.astype(code_dtype(fmt))


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


@dataclass(frozen=True, slots=True, eq=False)
class _Quantizer:
    """Quantizes pieces of one weight."""

    format: Format | None
    grids: _Grids | None
    granularity: Granularity

    @staticmethod
    def of(
        shape: tuple[int, ...], spec: QuantizerSpec | None, qparams: QParams | None, channel_axis: int
    ) -> _Quantizer:
        if spec is None or isinstance(spec.format, FloatFormat) or qparams is None:
            return _Quantizer(None if spec is None else spec.format, None, PerTensor())
        grids = _Grids.of(qparams, spec.format, grid_shape(shape, channel_axis, spec.granularity))
        return _Quantizer(spec.format, grids, spec.granularity)

    def quantized(self, part: Array, piece: Piece, out: Array | None = None) -> tuple[Array, int]:
        """Return the float32 piece as its quantized form represents it, and how many values are clipped."""
        if self.grids is not None:
            levels, clipped = self.grids.levels(part, piece)
            with np.errstate(over="ignore"):
                out = np.multiply(levels, _filled(piece.spread(self.grids.scale), piece), out=out)
            return out, clipped
        quantized = round_to_format(part, self.format.name) if isinstance(self.format, FloatFormat) else part
        if out is not None:
            out[...] = quantized
        return quantized, 0 if quantized is part else int(np.count_nonzero(np.isinf(quantized)))

    def bounds(self, low: Array, high: Array) -> tuple[float, float, float]:
        """Return the smallest and largest quantized value there can be, and the largest error.

        `low` and `high` are the smallest and largest value of each group, or 0.
        """
        if not low.size:
            return 0.0, 0.0, 0.0
        if self.grids is None:
            largest = max(-float(low.min()), float(high.max()))
            digits = {"None": 53, "float16": 11, "bfloat16": 8}[str(self.format)]
            lowest, highest = np.float32(low.min()), np.float32(high.max())
            if isinstance(self.format, FloatFormat):
                lowest, highest = round_to_format(np.array([lowest, highest]), self.format.name)
            return float(lowest), float(highest), largest * 2.0**-digits
        scale = self.grids.scale.astype(np.float64)
        first, last = self.grids.low * scale, self.grids.high * scale
        reach = max(float((scale / 2).max()), float((high - last).max()), float((first - low).max()))
        # Rounding takes a value at most half a step outwards.
        low, high = np.maximum(low - scale / 2, first), np.minimum(high + scale / 2, last)
        return float(low.min()), float(high.max()), reach * (1 + 1e-6)

    def sums(self, piece: Piece, source: Array, target: Array) -> _Sums:
        """Quantize one piece into `target`, and return its sums."""
        part = as_float32(piece.take(source))
        quantized, clipped = self.quantized(part, piece, piece.take(target))
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
    if piece.axes == (2,):
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
    granularity = PerTensor() if spec is None or not spec.is_integer else spec.granularity
    if needs_reordering(x.shape, channel_axis, granularity):
        matrix, error = _fake_quantized(np.ascontiguousarray(as_matrix(x, channel_axis)), spec, qparams, 0, None)
        out[...] = from_matrix(matrix, x.shape, channel_axis)
        return out, error
    quantizer = _Quantizer.of(x.shape, spec, qparams, channel_axis)
    source = as_box(x, channel_axis)
    target = out.reshape(source.shape, copy=False)
    sums = compute_each(
        lambda piece: quantizer.sums(piece, source, target), pieces(_shape3(source), granularity), x.size
    )
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
    "choose_qparams",
    "code_dtype",
    "decode",
    "dequantize_groups",
    "encode",
    "fake_quantize",
    "fake_quantize_with",
    "from_bfloat16",
    "measure_weight",
    "quantize_groups",
    "round_to_format",
    "to_bfloat16",
    "to_float16",
    "weight_qparams",
]
