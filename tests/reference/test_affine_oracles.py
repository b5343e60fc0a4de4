"""Quantization against ONNX Runtime, torch and ml_dtypes."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from quantgui.numerics.affine import (
    Encoded,
    decode,
    encode,
    fake_quantize,
    fake_quantize_with,
    weight_qparams,
)
from quantgui.numerics.minifloat import from_bfloat16, to_bfloat16, to_float16
from quantgui.numerics.qparams import QParams
from quantgui.spec.formats import IntFormat
from quantgui.spec.granularity import PerChannel, PerGroup, PerTensor
from quantgui.spec.quantizer import QuantizerSpec

ONNX_TYPES = {
    (4, True): (TensorProto.INT4, ml_dtypes.int4),
    (4, False): (TensorProto.UINT4, ml_dtypes.uint4),
    (8, True): (TensorProto.INT8, np.int8),
    (8, False): (TensorProto.UINT8, np.uint8),
    (16, True): (TensorProto.INT16, np.int16),
    (16, False): (TensorProto.UINT16, np.uint16),
}


def adversarial_matrices() -> dict[str, np.ndarray]:
    """Return float32 matrices that break careless arithmetic."""
    rng = np.random.default_rng(0)
    ties = (np.arange(-40, 40, dtype=np.float32) / 2).reshape(8, 10)
    outlier = rng.standard_normal((8, 10)).astype(np.float32)
    outlier[3, 7] = 1e6
    return {
        "gaussian": rng.standard_normal((8, 10)).astype(np.float32),
        "odd": rng.standard_normal((7, 33)).astype(np.float32),
        "single": np.array([[0.3]], np.float32),
        "zero": np.zeros((8, 10), np.float32),
        "constant": np.full((8, 10), -0.7, np.float32),
        "outlier": outlier,
        "denormal": (rng.standard_normal((8, 10)) * 1e-40).astype(np.float32),
        "tiny": (rng.standard_normal((8, 10)) * 1e-36).astype(np.float32),
        "huge": (rng.standard_normal((8, 10)) * 1e37).astype(np.float32),
        "ties": ties,
        "uniform": rng.uniform(0.0, 6.0, (40, 30)).astype(np.float32),
    }


MATRICES = adversarial_matrices()


def run_qdq(x: np.ndarray, encoded: Encoded, fmt: IntFormat, axis: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Return codes and values as ONNX Runtime's QuantizeLinear and DequantizeLinear make them."""
    kind, numpy_type = ONNX_TYPES[fmt.bits, fmt.signed]
    scale, zero_point = encoded.qparams.scale, encoded.qparams.zero_point
    if encoded.scale_shape == (1, 1):
        shape: tuple[int, ...] = ()
        attributes = {}
    elif block:
        shape, attributes = encoded.scale_shape, {"axis": 1, "block_size": block}
    else:
        shape, attributes = (scale.size,), {"axis": axis}
    constants = [
        numpy_helper.from_array(scale.reshape(shape), "scale"),
        helper.make_tensor("zero_point", kind, shape, zero_point.tolist()),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero_point"], ["q"], **attributes),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero_point"], ["y"], **attributes),
    ]
    graph = helper.make_graph(
        nodes,
        "qdq",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape),
            helper.make_tensor_value_info("q", kind, x.shape),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    if fmt.bits == 4:
        # Codes of 4 bits do not leave the runtime as an array; the values tell them apart all the same.
        return session.run(["y"], {"x": x})[0], np.empty(0)
    y, q = session.run(["y", "q"], {"x": x})
    return y, q.astype(numpy_type)


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize(("bits", "signed"), ONNX_TYPES)
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("layout", ["tensor", "channel", "last channel", "block"])
def test_that_onnx_runtime_gives_the_same_codes_and_values(name, bits, signed, symmetric, layout):
    x = MATRICES[name]
    fmt = IntFormat(bits, signed)
    axis, block = 0, 0
    granularity = PerChannel()
    if layout == "tensor":
        granularity = PerTensor()
    elif layout == "last channel":
        axis = 1
    elif layout == "block":
        if x.shape[1] % 5:
            x = x[:, : x.shape[1] // 2 * 2] if x.shape[1] > 1 else np.repeat(x, 2, axis=1)
        block = 5 if x.shape[1] % 5 == 0 else 2
        granularity = PerGroup(block)
    x = np.ascontiguousarray(x)
    spec = QuantizerSpec(fmt, symmetric, granularity)
    encoded = encode(x, spec, axis)
    values, _ = fake_quantize(x, spec, axis)
    y, q = run_qdq(x, encoded, fmt, axis, block)
    assert np.array_equal(values.view(np.uint32), y.view(np.uint32))
    assert np.array_equal(decode(encoded, spec, axis).view(np.uint32), y.view(np.uint32))
    if q.size:
        assert np.array_equal(encoded.codes, q)


@pytest.mark.parametrize("bits", [2, 3, 5, 6, 7, 9, 12])
def test_that_odd_widths_are_the_next_larger_type_with_clipped_codes(bits):
    x = np.random.default_rng(1).standard_normal((16, 50)).astype(np.float32)
    spec = QuantizerSpec(IntFormat(bits), True, PerChannel())
    encoded = encode(x, spec, 0)
    wide = IntFormat(8 if bits < 8 else 16)
    y, q = run_qdq(x, encoded, wide, 0, 0)
    clipped = np.clip(q, spec.format.quant_min, spec.format.quant_max)
    assert np.array_equal(encoded.codes, clipped)
    assert np.array_equal(fake_quantize(x, spec, 0)[0], clipped * encoded.qparams.scale[:, None])
    assert y.shape == x.shape


def near_a_tie(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return where rounding ``x / scale`` may depend on the last bit of the quotient."""
    quotient = x.astype(np.float64) / scale.astype(np.float64)
    distance = np.abs(np.abs(quotient - np.floor(quotient)) - 0.5)
    return distance <= 2.0 * np.abs(quotient) * np.finfo(np.float32).eps


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize("name", [name for name in MATRICES if name not in ("denormal", "tiny")])
@pytest.mark.parametrize(("signed", "symmetric"), [(True, True), (True, False), (False, False), (False, True)])
def test_that_torch_differs_only_where_its_inverse_scale_meets_a_tie(name, signed, symmetric):
    x, fmt = MATRICES[name], IntFormat(8, signed)
    spec = QuantizerSpec(fmt, symmetric, PerTensor())
    encoded = encode(x, spec, 0)
    scale, zero_point = encoded.qparams.scale, encoded.qparams.zero_point
    kind = torch.qint8 if signed else torch.quint8
    codes = torch.quantize_per_tensor(torch.from_numpy(x), float(scale[0]), int(zero_point[0]), kind).int_repr().numpy()
    faked = torch.fake_quantize_per_tensor_affine(
        torch.from_numpy(x), float(scale[0]), int(zero_point[0]), fmt.quant_min, fmt.quant_max
    ).numpy()
    tie = near_a_tie(x, scale[0])
    assert np.array_equal(codes[~tie], encoded.codes[~tie])
    assert np.abs(codes.astype(int) - encoded.codes)[tie].max(initial=0) <= 1
    assert np.array_equal(faked[~tie], fake_quantize(x, spec, 0)[0][~tie])


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("axis", [0, 1])
def test_that_torch_per_channel_differs_only_at_ties(bits, axis):
    x = np.random.default_rng(2).standard_normal((100, 200)).astype(np.float32)
    fmt = IntFormat(bits)
    spec = QuantizerSpec(fmt, False, PerChannel())
    qparams = weight_qparams(x, spec, axis)
    expected = torch.fake_quantize_per_channel_affine(
        torch.from_numpy(x),
        torch.from_numpy(qparams.scale),
        torch.from_numpy(qparams.zero_point),
        axis,
        fmt.quant_min,
        fmt.quant_max,
    ).numpy()
    values, _ = fake_quantize_with(x, spec, qparams, axis)
    tie = near_a_tie(x, np.expand_dims(qparams.scale, 1 - axis))
    assert np.array_equal(values[~tie], expected[~tie])
    assert tie.mean() < 1e-3


def all_float32_patterns() -> np.ndarray:
    bits = np.random.default_rng(3).integers(0, 1 << 32, 200_000, dtype=np.uint64).astype(np.uint32)
    edges = np.arange(0, 1 << 32, 1 << 15, dtype=np.uint64).astype(np.uint32)
    special = np.array([0, 1 << 31, 1, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7F808000, 0x477FF000], np.uint32)
    return np.concatenate([bits, edges, edges + np.uint32(1), special]).view(np.float32)


def test_that_bfloat16_rounds_as_ml_dtypes_and_torch_do():
    x = all_float32_patterns()
    x = x[~np.isnan(x)]
    assert np.array_equal(to_bfloat16(x), x.astype(ml_dtypes.bfloat16).view(np.uint16))
    assert np.array_equal(from_bfloat16(to_bfloat16(x)), torch.from_numpy(x).bfloat16().float().numpy())


def test_that_bfloat16_keeps_not_a_number():
    x = np.array([0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(from_bfloat16(to_bfloat16(x))).all()


def test_that_float16_rounds_as_torch_does():
    x = all_float32_patterns()
    x = x[~np.isnan(x)]
    assert np.array_equal(to_float16(x), torch.from_numpy(x).half().numpy())


def test_that_the_error_is_that_of_the_values_in_double_precision():
    x = np.random.default_rng(4).standard_normal((64, 700)).astype(np.float32)
    spec = QuantizerSpec(IntFormat(4), True, PerChannel())
    values, error = fake_quantize(x, spec, 0)
    difference = x.astype(np.float64) - values
    assert error.mse == pytest.approx((difference**2).mean(), rel=1e-5)
    assert error.max_abs == pytest.approx(np.abs(difference).max(), rel=1e-6)
    expected = 10 * math.log10((x.astype(np.float64) ** 2).sum() / (difference**2).sum())
    assert error.sqnr_db == pytest.approx(expected, abs=1e-4)
    assert error.clipped == 0.0


def test_that_given_scales_clip_as_the_runtime_does():
    x = MATRICES["uniform"]
    fmt = IntFormat(8)
    qparams = QParams(np.array([0.01], np.float32), np.array([5], np.int32))
    spec = QuantizerSpec(fmt, False, PerTensor())
    values, error = fake_quantize_with(x, spec, qparams)
    y, _ = run_qdq(x, Encoded(np.empty(0, np.int8), qparams, (1, 1)), fmt, 0, 0)
    assert np.array_equal(values, y)
    assert error.clipped == pytest.approx(np.mean(np.rint(x / np.float32(0.01)) + 5 > 127))
