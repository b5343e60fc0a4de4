from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from quantgui.export.stored import Initializer, Part, StoredWeight, initializer, pack
from quantgui.export.weights import store_weight
from quantgui.spec.formats import FloatFormat, IntFormat
from quantgui.spec.granularity import Granularity, PerChannel, PerGroup, PerTensor
from quantgui.spec.quantizer import QuantizerSpec

RNG = np.random.default_rng(0)


def encoded_part(
    shape: tuple[int, ...], axis: int, fmt: IntFormat, granularity: Granularity, *, symmetric: bool
) -> tuple[Part, np.ndarray]:
    """Return random codes with random scales, and the float32 weight they stand for."""
    channels, elements = shape[axis], int(np.prod(shape)) // shape[axis]
    size = granularity.group_size if isinstance(granularity, PerGroup) else elements
    grid = (1, 1) if isinstance(granularity, PerTensor) else (channels, -(-elements // size))
    dtype = np.dtype(f"{'int' if fmt.signed else 'uint'}{8 if fmt.bits <= 8 else 16}")
    codes = RNG.integers(fmt.quant_min, fmt.quant_max + 1, shape).astype(dtype)
    scale = RNG.uniform(0.01, 0.1, grid).astype(np.float32)
    fixed = 0 if fmt.signed else 1 << (fmt.bits - 1)
    zero_point = np.full(grid, fixed) if symmetric else RNG.integers(fmt.quant_min, fmt.quant_max + 1, grid)
    matrix = np.moveaxis(codes, axis, 0).reshape(channels, elements).astype(np.int64)
    spread = [np.repeat(np.broadcast_to(x, (channels, grid[1])), size, 1)[:, :elements] for x in (scale, zero_point)]
    values = (matrix - spread[1]).astype(np.float32) * spread[0]
    moved = (shape[axis], *shape[:axis], *shape[axis + 1 :])
    spec = QuantizerSpec(fmt, symmetric, granularity)
    return Part(spec, codes, axis, scale, zero_point.astype(np.int32)), np.moveaxis(values.reshape(moved), 0, axis)


def unique_names() -> object:
    seen: dict[str, int] = {}

    def rename(name: str) -> str:
        seen[name] = seen.get(name, 0) + 1
        return name if seen[name] == 1 else f"{name}_{seen[name]}"

    return rename


def network_of(
    stored: StoredWeight, nodes: list[onnx.NodeProto], output: str, dtype: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    tensors = []
    for each in stored.initializers:
        tensor = TensorProto()
        tensor.CopyFrom(each.tensor)
        tensor.raw_data = each.data.tobytes()
        tensors.append(tensor)
    graph = helper.make_graph(
        [*stored.nodes, *nodes],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "k"])] if nodes else [],
        [helper.make_empty_tensor_value_info(output)],
        tensors,
    )
    graph.output[0].type.tensor_type.elem_type = dtype
    opset = helper.make_opsetid("", max(stored.opset, 10))
    return helper.make_model(graph, opset_imports=[opset], ir_version=helper.find_min_ir_version_for([opset]))


def run(model: onnx.ModelProto, *, fused: bool = False, **inputs: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not fused:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


FORMATS = [IntFormat(bits, signed) for bits in (2, 3, 4, 5, 8, 11, 16) for signed in (True, False)]
SHAPES = [((6, 10), 0), ((10, 6), 1), ((7, 5), 1), ((5, 2, 3, 3), 0), ((4, 6, 3, 3), 1), ((2, 9, 4), 2), ((7,), 0)]


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(), PerGroup(4), PerGroup(64)], ids=str)
@pytest.mark.parametrize(
    ("symmetric", "apart"), [(True, False), (False, True)], ids=["symmetric", "asymmetric, kept apart"]
)
def test_that_a_stored_weight_dequantizes_to_its_values_bit_for_bit(
    fmt: IntFormat, shape: tuple[int, ...], axis: int, granularity: Granularity, symmetric: bool, apart: bool
) -> None:
    part, values = encoded_part(shape, axis, fmt, granularity, symmetric=symmetric)
    stored = store_weight("w", [part], shape, np.dtype(np.float32), unique_names(), apart=apart)
    np.testing.assert_array_equal(run(network_of(stored, [], "w")), values)
    has_zero_point = any(each.tensor.name.startswith("w_zero_point") for each in stored.initializers)
    assert has_zero_point == (not symmetric or not fmt.signed)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("columns", [1, 4, 6, 13, 16])
@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(), PerGroup(16), PerGroup(32)], ids=str)
def test_that_matmul_fused_with_the_weight_stays_close_to_float(
    bits: int, columns: int, granularity: Granularity
) -> None:
    part, values = encoded_part((70, columns), 1, IntFormat(bits), granularity, symmetric=True)
    stored = store_weight("w", [part], values.shape, np.dtype(np.float32), unique_names(), apart=bits == 2)
    model = network_of(stored, [helper.make_node("MatMul", ["x", "w"], ["y"])], "y")
    x = RNG.standard_normal((9, 70)).astype(np.float32)
    error = run(model, fused=True, x=x) - x @ values
    # int8 activations inside MatMulNBits: 40 dB, not garbage.
    assert np.square(error).sum() < 1e-3 * np.square(x @ values).sum()


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_that_16_bit_float_weights_are_stored_as_such(name: str) -> None:
    import ml_dtypes

    dtype = np.dtype(np.float16 if name == "float16" else ml_dtypes.bfloat16)
    values = RNG.standard_normal((3, 4)).astype(dtype)
    part = Part(QuantizerSpec(FloatFormat(name)), values, 0)
    stored = store_weight("w", [part], values.shape, np.dtype(np.float32), unique_names())
    assert stored.initializers[0].data.nbytes == 24
    np.testing.assert_array_equal(run(network_of(stored, [], "w")), values.astype(np.float32))


def test_that_a_float16_weight_stays_of_its_type() -> None:
    part, values = encoded_part((6, 4), 0, IntFormat(4), PerChannel(), symmetric=True)
    stored = store_weight("w", [part], (6, 4), np.dtype(np.float16), unique_names())
    result = run(network_of(stored, [], "w", TensorProto.FLOAT16))
    assert result.dtype == np.float16
    np.testing.assert_array_equal(result, values.astype(np.float16))


def test_that_gates_of_different_formats_are_put_together() -> None:
    specs = [
        (IntFormat(4), PerChannel()),
        (IntFormat(3), PerTensor()),
        (IntFormat(4), PerGroup(4)),
        (IntFormat(8, signed=False), PerChannel()),
    ]
    parts, values = zip(*(encoded_part((6, 10), 0, f, g, symmetric=True) for f, g in specs), strict=True)
    plain = RNG.standard_normal((6, 10)).astype(np.float32)
    half = RNG.standard_normal((6, 10)).astype(np.float16)
    rest = [Part(None, plain, 0), Part(QuantizerSpec(FloatFormat("float16")), half, 0)]
    stored = store_weight("w", [*parts, *rest], (2, 18, 10), np.dtype(np.float32), unique_names())
    joined = np.concatenate([*values, plain, half.astype(np.float32)]).reshape(2, 18, 10)
    np.testing.assert_array_equal(run(network_of(stored, [], "w")), joined)
    # The first two are 4-bit integers with a scale per row.
    assert [node.op_type for node in stored.nodes].count("DequantizeLinear") == 3


def test_that_equal_gates_share_one_dequantize_linear() -> None:
    parts, values = zip(
        *(encoded_part((6, 10), 0, IntFormat(8), PerChannel(), symmetric=True) for _ in range(4)), strict=True
    )
    stored = store_weight("w", parts, (1, 24, 10), np.dtype(np.float32), unique_names())
    assert [node.op_type for node in stored.nodes] == ["DequantizeLinear", "Reshape"]
    np.testing.assert_array_equal(run(network_of(stored, [], "w"))[0], np.concatenate(values))


@pytest.mark.parametrize(
    ("fmt", "granularity", "opset"),
    [
        (IntFormat(8), PerTensor(), 10),
        (IntFormat(6), PerChannel(), 13),
        (IntFormat(8), PerGroup(64), 13),
        (IntFormat(8), PerGroup(4), 21),
        (IntFormat(4), PerTensor(), 21),
        (IntFormat(12), PerTensor(), 21),
        (IntFormat(2), PerChannel(), 25),
    ],
    ids=str,
)
def test_that_no_newer_opset_is_asked_for_than_needed(fmt: IntFormat, granularity: Granularity, opset: int) -> None:
    part, _ = encoded_part((6, 10), 0, fmt, granularity, symmetric=True)
    assert store_weight("w", [part], (6, 10), np.dtype(np.float32), unique_names()).opset == opset


@pytest.mark.parametrize(("bits", "kind"), [(2, TensorProto.INT2), (4, TensorProto.UINT4), (4, TensorProto.INT4)])
@pytest.mark.parametrize("count", [0, 1, 3, 8, 11])
def test_that_codes_are_packed_as_onnx_packs_them(bits: int, kind: int, count: int) -> None:
    low, high = (0, 1 << bits) if kind == TensorProto.UINT4 else (-(1 << (bits - 1)), 1 << (bits - 1))
    codes = RNG.integers(low, high, count)
    each: Initializer = initializer("codes", codes.astype(np.int8), kind)
    tensor = TensorProto()
    tensor.CopyFrom(each.tensor)
    tensor.raw_data = each.data.tobytes()
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor).astype(np.int64), codes)
    assert pack(codes, bits).nbytes == -(-count * bits // 8)
