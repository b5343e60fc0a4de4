"""Multiply-accumulates of a network's operators, from shapes on one assumed sample."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
import onnxruntime

from quantgui.errors import NetworkError
from quantgui.network.graph import Node, Program, free_values, to_skeleton
from quantgui.network.session import create_session, runtime_errors
from quantgui.network.shapes import Shapes, dimensions, infer_shapes
from quantgui.results import Array

_PICTURE = 224
_STEPS = (64, 576, 16000, 32)
"""Lengths tried for sequences, until the network runs on one."""
_SECONDS = 1.0
"""A trial run is stopped after this time."""
_MOST_PARAMETERS = 300_000_000
_COUNTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN")


def count_macs(program: Program) -> dict[str, int]:
    """Return the multiply-accumulates of one sample for each operator whose shapes are known, by node name.

    Free dimensions are assumed: one sample, pictures of 224 x 224, sequences of 64 steps. Shapes come from ONNX's
    shape inference; where that does not reach, from one run of the network.
    """
    shapes = infer_shapes(program, assumed_shapes(program, _STEPS[0]))
    unknown = [node for _, node in program.walk() if node.op in _COUNTED and not _is_known(node, program, shapes)]
    small = sum(values.size for values in program.constants.values()) <= _MOST_PARAMETERS
    # A loop may run for any time.
    if unknown and small and not any(node.op in ("Loop", "Scan") for _, node in program.walk()):
        shapes = _traced(program, shapes)
    return {node.name: macs for _, node in program.walk() if (macs := _macs(node, program, shapes))}


def assumed_shapes(program: Program, steps: int) -> dict[str, tuple[int, ...]]:
    """Return a plausible shape for each input of known rank; `steps` is the length of sequences."""
    named: dict[str, int] = {}
    assumed = {}
    for value in program.graph.inputs:
        if not (value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape")):
            continue
        known = dimensions(value)
        sizes = []
        for axis, (size, dim) in enumerate(zip(known, value.type.tensor_type.shape.dim, strict=True)):
            guess = size if size is not None else _assumed(axis, known, steps)
            sizes.append(named.setdefault(dim.dim_param, guess) if size is None and dim.dim_param else guess)
        assumed[value.name] = tuple(sizes)
    return assumed


def _assumed(axis: int, shape: tuple[int | None, ...], steps: int) -> int:
    # Recurrent states are (layers, batch, hidden).
    if axis == 0 or (len(shape) == 3 and axis == 1 and shape[0] is not None and shape[2] is not None):
        return 1
    if len(shape) == 4:
        is_channels = axis == 1 and shape[3] not in (1, 3)
        return 3 if is_channels else _PICTURE
    return steps


# --- a run -------------------------------------------------------------------------------------------------------


def _traced(program: Program, shapes: Shapes) -> Shapes:
    """Return the shapes seen in one run of the network, and what follows from them inside its bodies."""
    wanted = _wanted(program)
    model = to_skeleton(program)
    taken = set(program.used_names)
    outputs = {}
    for name in wanted:
        shape = f"{name}.shape"
        while shape in taken:
            shape += "_"
        outputs[shape] = name
        model.graph.node.append(onnx.NodeProto(op_type="Shape", input=[name], output=[shape]))
        model.graph.output.append(onnx.helper.make_tensor_value_info(shape, onnx.TensorProto.INT64, None))
    try:
        session = create_session(model, program.constants, optimize=False, config={"session.disable_prepacking": "1"})
    except NetworkError:
        return shapes  # a value that is no tensor has no shape
    for steps in _STEPS:
        inputs = assumed_shapes(program, steps)
        feeds = _feeds(program.graph.inputs, inputs)
        results = _run(session, list(outputs), feeds) if feeds is not None else None
        if results is not None:
            known = {name: tuple(map(int, shape)) for name, shape in zip(outputs.values(), results, strict=True)}
            return {**shapes, **infer_shapes(program, inputs, known), **known}
    return shapes


def _wanted(program: Program) -> list[str]:
    """Return the values of the main graph whose shapes tell the cost of a node, or are used inside a body."""
    made = {name for node in program.graph.nodes for name in node.outputs if name}
    wanted: dict[str, None] = {}
    for node in program.graph.nodes:
        if node.op in _COUNTED and not node.domain:
            wanted.update(dict.fromkeys((*node.inputs[:2], *node.outputs[:1])))
        if node.bodies:
            wanted.update(dict.fromkeys(free_values(node)))
    return [name for name in wanted if name in made]


def _feeds(values: Iterable[onnx.ValueInfoProto], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array] | None:
    rng = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for value in values:
        shape = shapes.get(value.name)
        if shape is None or math.prod(shape) > 1 << 26:
            return None
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        if dtype.kind == "f":
            feeds[value.name] = rng.standard_normal(shape, np.float32).astype(dtype)
        elif dtype.kind in "biu":
            feeds[value.name] = np.ones(shape, dtype)
        else:
            return None
    return feeds


def _run(session: onnxruntime.InferenceSession, outputs: list[str], feeds: dict[str, Array]) -> list[Array] | None:
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    timer = threading.Timer(_SECONDS, setattr, (options, "terminate", True))
    timer.start()
    try:
        with runtime_errors("run"):
            results: list[Array] = session.run(outputs, feeds, options)
    except NetworkError:
        return None  # not on inputs of these sizes, or not in time
    finally:
        timer.cancel()
    return results


# --- counting ----------------------------------------------------------------------------------------------------


def _size(name: str, program: Program, shapes: Shapes) -> tuple[int, ...] | None:
    shape = program.constants[name].shape if name in program.constants else shapes.get(name)
    if shape is None:
        return None
    known = tuple(size for size in shape if size is not None)
    return known if len(known) == len(shape) else None


def _operands(node: Node, program: Program, shapes: Shapes) -> Iterator[tuple[int, ...] | None]:
    names = [*node.inputs[:2], node.outputs[0] or node.inputs[0]]
    return (_size(name, program, shapes) for name in names)


def _is_known(node: Node, program: Program, shapes: Shapes) -> bool:
    return all(size is not None for size in _operands(node, program, shapes))


def _macs(node: Node, program: Program, shapes: Shapes) -> int:
    if node.domain or node.op not in _COUNTED or len(node.inputs) < 2 or not node.outputs:
        return 0
    data, weight, result = _operands(node, program, shapes)
    if not data or not weight or not result:
        return 0
    match node.op:
        case "Conv":
            return math.prod(result) * math.prod(weight[1:])
        case "ConvTranspose":
            return math.prod(data) * math.prod(weight[1:])
        case "Gemm":
            return math.prod(result) * data[0 if node.integer("transA", 0) else 1]
        case "MatMul":
            return math.prod(result) * data[-1]
        case _:
            recurrent = _size(node.inputs[2], program, shapes)
            return math.prod(data[:2]) * (math.prod(weight) + math.prod(recurrent)) if recurrent else 0
