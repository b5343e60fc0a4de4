"""Tiny networks made in code, as ONNX models and as `Network` values; no binary fixtures."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quantgui.network.network import INLINE_BYTES, Network, external_tensor
from quantgui.results import LayerInfo, NetworkSummary, TensorInfo

Array = np.ndarray
Dims = Sequence[int | str]


def values(*shape: int, seed: int = 0, scale: float = 1.0) -> Array:
    """Return Gaussian float32 values."""
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def tensor_info(name: str, dims: Dims | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """Return the declaration of a tensor; names stand for free dimensions."""
    return helper.make_tensor_value_info(name, kind, None if dims is None else list(dims))


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Mapping[str, Array],
    *,
    opset: int = 17,
) -> onnx.ModelProto:
    """Return a valid model with every constant inline and every node named."""
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    for index, node in enumerate(nodes):
        node.name = node.name or f"{node.op_type}_{index}"
    graph = helper.make_graph(list(nodes), "tiny", list(inputs), list(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def network_of(model: onnx.ModelProto, layers: Sequence[LayerInfo] = (), name: str = "tiny") -> Network:
    """Return `model` as a network: its large initializers are injected. It must be in canonical form already."""
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model)
    constants = {}
    del skeleton.graph.initializer[:]
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        constants[tensor.name] = array
        small = array.nbytes <= INLINE_BYTES
        skeleton.graph.initializer.append(tensor if small else external_tensor(tensor.name, array))
    size = sum(array.nbytes for array in constants.values())
    summary = NetworkSummary(
        name=name,
        path=f"{name}.onnx",
        fingerprint=name,
        opset=model.opset_import[0].version,
        ir_version=model.ir_version,
        producer="tests",
        parameters=sum(array.size for array in constants.values()),
        file_bytes=size,
        float_bytes=size,
        inputs=tuple(_info(value) for value in model.graph.input),
        outputs=tuple(_info(value) for value in model.graph.output),
        layers=tuple(layers),
    )
    return Network(summary, skeleton, constants)


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    kind = value.type.tensor_type
    dtype = str(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    if not kind.HasField("shape"):
        return TensorInfo(value.name, dtype, None)
    dims = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in kind.shape.dim)
    return TensorInfo(value.name, dtype, dims)


def mlp_model(
    widths: Sequence[int] = (8, 64, 64, 4), *, opset: int = 17, batch: int | str = "batch"
) -> onnx.ModelProto:
    """Return Gemm + Relu in a row; tensors are x, h0, h1 ... (before the Relu) a0, a1 ... and y."""
    nodes, constants = [], {}
    tensor = "x"
    for i, (inner, outer) in enumerate(itertools.pairwise(widths)):
        constants[f"w{i}"] = values(outer, inner, seed=2 * i, scale=inner**-0.5)
        constants[f"b{i}"] = values(outer, seed=2 * i + 1, scale=0.1)
        last = i == len(widths) - 2
        result = "y" if last else f"h{i}"
        nodes.append(helper.make_node("Gemm", [tensor, f"w{i}", f"b{i}"], [result], name=f"fc{i}", transB=1))
        if not last:
            nodes.append(helper.make_node("Relu", [result], [f"a{i}"], name=f"relu{i}"))
            tensor = f"a{i}"
    inputs, outputs = [tensor_info("x", [batch, widths[0]])], [tensor_info("y", [batch, widths[-1]])]
    return model_of(nodes, inputs, outputs, constants, opset=opset)


def residual_model(blocks: int = 3, channels: int = 8, *, batch: int | str = "batch") -> onnx.ModelProto:
    """Return conv + relu + residual blocks on images, with a weight shared by the first and last block."""
    constants = {"stem.w": values(channels, 3, 3, 3, seed=100, scale=0.3), "stem.b": values(channels, seed=101)}
    nodes = [
        helper.make_node("Conv", ["image", "stem.w", "stem.b"], ["s"], name="stem", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["s"], ["r"], name="stem_relu"),
    ]
    tensor = "r"
    for i in range(blocks):
        weight = "block0.w" if i == blocks - 1 else f"block{i}.w"
        constants.setdefault(weight, values(channels, channels, 3, 3, seed=i, scale=0.1))
        constants[f"block{i}.b"] = values(channels, seed=50 + i, scale=0.1)
        nodes += [
            helper.make_node("Conv", [tensor, weight, f"block{i}.b"], [f"c{i}"], name=f"conv{i}", pads=[1, 1, 1, 1]),
            helper.make_node("Add", [f"c{i}", tensor], [f"sum{i}"], name=f"add{i}"),
            helper.make_node("Relu", [f"sum{i}"], [f"r{i}"], name=f"relu{i}"),
        ]
        tensor = f"r{i}"
    constants["head.w"] = values(channels, 5, seed=102)
    nodes += [
        helper.make_node("GlobalAveragePool", [tensor], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "head.w"], ["logits"], name="head"),
    ]
    outputs = [tensor_info("logits", [batch, 5]), tensor_info("r", [batch, channels, 8, 8])]
    return model_of(nodes, [tensor_info("image", [batch, 3, 8, 8])], outputs, constants)


def lstm_model(*, hidden: int = 16, inputs: int = 8) -> onnx.ModelProto:
    """Return one LSTM step with carried state: x, h, c -> y, hn, cn."""
    constants = {
        "w": values(1, 4 * hidden, inputs, seed=1, scale=0.3),
        "r": values(1, 4 * hidden, hidden, seed=2, scale=0.3),
        "b": values(1, 8 * hidden, seed=3, scale=0.1),
        "time_axis": np.array([0], np.int64),
        "out.w": values(hidden, 1, seed=4),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["x", "time_axis"], ["step"], name="unsqueeze"),
        helper.make_node(
            "LSTM", ["step", "w", "r", "b", "", "h", "c"], ["ys", "hn", "cn"], name="lstm", hidden_size=hidden
        ),
        helper.make_node("Squeeze", ["hn", "time_axis"], ["last"], name="squeeze"),
        helper.make_node("MatMul", ["last", "out.w"], ["y"], name="out"),
    ]
    state = [1, "batch", hidden]
    return model_of(
        nodes,
        [tensor_info("x", ["batch", inputs]), tensor_info("h", state), tensor_info("c", state)],
        [tensor_info("y", ["batch", 1]), tensor_info("hn", state), tensor_info("cn", state)],
        constants,
    )


def if_model(*, width: int = 32) -> onnx.ModelProto:
    """Return a network with a weight inside each branch of an If, which also captures a tensor from outside."""
    constants = {f"w{i}": values(width, width, seed=i, scale=width**-0.5) for i in range(4)}
    then = helper.make_graph(
        [helper.make_node("MatMul", ["a", "w1"], ["t"], name="then/fc")], "then", [], [tensor_info("t", ["n", width])]
    )
    other = helper.make_graph(
        [
            helper.make_node("MatMul", ["a", "w2"], ["e0"], name="else/fc"),
            helper.make_node("Add", ["e0", "x"], ["e"], name="else/add"),
        ],
        "else",
        [],
        [tensor_info("e", ["n", width])],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"], name="fc0"),
        helper.make_node("Relu", ["h"], ["a"], name="relu0"),
        helper.make_node("If", ["flag"], ["branch"], name="if", then_branch=then, else_branch=other),
        helper.make_node("MatMul", ["branch", "w3"], ["y"], name="fc3"),
    ]
    inputs = [tensor_info("x", ["n", width]), tensor_info("flag", [], TensorProto.BOOL)]
    return model_of(nodes, inputs, [tensor_info("y", ["n", width])], constants)
