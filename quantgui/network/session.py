"""The one place where ONNX Runtime sessions are made: options, injected weights, and its errors as sentences.

All sessions take their memory from one arena. By default each would keep an arena as large as its largest run, which
for a network cut into segments, float and simulated, comes to gigabytes that are never used at the same time.
"""

from __future__ import annotations

import ctypes
import functools
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import onnx
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _ort

from quantgui.errors import NetworkError, OutOfMemoryError
from quantgui.network.network import as_contiguous, injected_names
from quantgui.network.runtime_faults import faulty_optimizers
from quantgui.results import Array

RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    _ort.EPFail,
    _ort.Fail,
    _ort.InvalidArgument,
    _ort.InvalidGraph,
    _ort.InvalidProtobuf,
    _ort.NoModel,
    _ort.NoSuchFile,
    _ort.NotFound,
    _ort.NotImplemented,
    _ort.RuntimeException,
    RuntimeError,
    MemoryError,
)
"""What ONNX Runtime raises when a network cannot be loaded or run."""

_PROBE = 1 << 14
_M_ARENA_MAX = -8
"""glibc's number for the most heaps (malloc.h)."""
_SUB_BYTE = {
    onnx.TensorProto.INT4: 4,
    onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.INT2: 2,
    onnx.TensorProto.UINT2: 2,
    onnx.TensorProto.FLOAT4E2M1: 4,
}


def create_session(
    model: onnx.ModelProto,
    constants: Mapping[str, Array],
    *,
    threads: int = 2,
    simulate: bool = True,
    optimize: bool = True,
    disabled_optimizers: Sequence[str] = (),
    config: Mapping[str, str] | None = None,
    shapes_first: bool = False,
    passed: Collection[str] = (),
) -> onnxruntime.InferenceSession:
    """Return a session of `model`, whose injected initializers take their values from `constants`, not copied.

    Args:
        model: a skeleton (see `quantgui.network.network`).
        constants: values of at least the injected initializers; more do not matter. They are kept alive.
        threads: threads within an operator; sessions never spin while they wait.
        simulate: keep Q/DQ pairs and float weights as they are written; False gives what users of the file get.
        optimize: False turns every graph optimization off.
        disabled_optimizers: names of further optimizers to leave out.
        config: further session configuration entries.
        passed: injected initializers that nothing else keeps: ONNX Runtime copies them, and they are let go.
        shapes_first: run nodes that take the shape of a tensor as soon as it is there, so that it need not be kept.

    Raises:
        NetworkError: ONNX Runtime refuses the network.
    """
    options = onnxruntime.SessionOptions()
    # Errors become exceptions; on standard error they would be in the way of the one sentence.
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    if shapes_first:
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    # Several sessions in one process would fight for the cores otherwise.
    entries = {
        "session.intra_op.allow_spinning": "0",
        "session.inter_op.allow_spinning": "0",
        "session.use_env_allocators": "1",
    }
    disabled = [*disabled_optimizers, *(faulty_optimizers(model) if optimize else ())]
    if simulate:
        entries["session.disable_quant_qdq"] = "1"
        # It turns float weights between Q/DQ pairs into per-tensor int8 without a word.
        disabled.append("WeightBiasQuantization")
    for key, value in {**entries, **(config or {})}.items():
        options.add_session_config_entry(key, value)
    with runtime_errors("load"):
        _shared_arena()
        names = injected_names(model)
        values = [ort_value(constants[name]) for name in names]
        if names:
            options.add_external_initializers(names, values)
        own = frozenset(passed) if _copies_values() else frozenset()
        kept = {name: value for name, value in zip(names, values, strict=True) if name not in own}
        for name, value in kept.items():
            # Without this ONNX Runtime would copy what the graph was given, for as long as the session lives.
            options.add_initializer(name, value)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=disabled or None,
        )
    # ONNX Runtime reads the arrays in place and holds no reference to them.
    session.injected_values = list(kept.values())
    return session


@functools.cache
def _copies_values() -> bool:
    """Return whether sessions copy the values that their graph is handed, as those of ONNX Runtime 1.28 to 1.32 do."""
    values = np.zeros(4 * _PROBE, np.float32)
    declared = onnx.TensorProto(name="values", data_type=onnx.TensorProto.FLOAT, dims=values.shape)
    declared.data_location = onnx.TensorProto.EXTERNAL
    for key, text in (("location", "injected"), ("offset", "0"), ("length", str(values.nbytes))):
        declared.external_data.add(key=key, value=text)
    float_info = functools.partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "values"], ["y"])],
        "",
        [float_info("x", shape=[1])],
        [float_info("y", shape=list(values.shape))],
        [declared],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 9)], ir_version=4)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_external_initializers(["values"], [onnxruntime.OrtValue.ortvalue_from_numpy(values)])
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values[:] = 1
    return not np.any(session.run(None, {"x": np.zeros(1, np.float32)})[0])


def release_memory() -> None:
    """Give back to the system what sessions that are gone have left in the arena, and what else has been freed."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    _shared_arena().run(None, {"x": np.zeros(1, np.float32)}, options)
    # glibc keeps large blocks, such as torch's activations, once it has seen some freed.
    if (trim := _heap_trimmer()) is not None:
        trim(0)


@functools.cache
def _heap_trimmer() -> Callable[[int], int] | None:
    return None if (library := _glibc()) is None else library.malloc_trim


def _use_one_heap() -> None:
    """Let all threads share glibc's heap: one for each would keep what sessions built and dropped there have left."""
    if (library := _glibc()) is not None:
        library.mallopt(_M_ARENA_MAX, 1)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") and hasattr(library, "mallopt") else None


@functools.cache
def _shared_arena() -> onnxruntime.InferenceSession:
    """Make the arena of all sessions, and return a session that does nothing; the first one, and so kept for ever.

    The arena never gives back the memory of its first allocation, so this one is made small.
    """
    _use_one_heap()
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg({"max_mem": 0}))
    value = functools.partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT, shape=[1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "", [value("x")], [value("y")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 9)], ir_version=4)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.use_env_allocators", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.zeros(1, np.float32)})
    return session


def ort_value(values: Array) -> onnxruntime.OrtValue:
    """Return `values` as ONNX Runtime takes them, in place for every type wider than 4 bits."""
    contiguous = as_contiguous(values)
    if contiguous.dtype.kind in "biuf" and contiguous.dtype.isbuiltin:
        return onnxruntime.OrtValue.ortvalue_from_numpy(contiguous)
    kind = onnx.helper.np_dtype_to_tensor_dtype(contiguous.dtype)
    bits = _SUB_BYTE.get(kind)
    if bits is None:
        same_size = contiguous.view(f"u{contiguous.dtype.itemsize}")
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(same_size, kind)
    # ONNX Runtime takes the shape from the array, which has to have one byte per value, and reads the packed part.
    packed = np.zeros(contiguous.shape, np.uint8)
    packed.reshape(-1)[: -(-contiguous.size * bits // 8)] = _pack(contiguous, bits)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(packed, kind)


def _pack(values: Array, bits: int) -> Array:
    """Return the values packed into bytes, the first in the lowest bits, as ONNX stores them."""
    codes = values.view(np.uint8).reshape(-1) & np.uint8((1 << bits) - 1)
    per_byte = 8 // bits
    padded = np.zeros(-(-codes.size // per_byte) * per_byte, np.uint8)
    padded[: codes.size] = codes
    packed = np.zeros(padded.size // per_byte, np.uint8)
    for i in range(per_byte):
        packed |= padded[i::per_byte] << np.uint8(i * bits)
    return packed


@contextmanager
def runtime_errors(action: str) -> Iterator[None]:
    """Turn what ONNX Runtime raises inside the block into a `NetworkError` of one sentence.

    Args:
        action: what was tried, such as ``load`` or ``run``.
    """
    try:
        yield
    except RUNTIME_ERRORS as error:
        sentence = describe_error(error, action)
        raise (OutOfMemoryError if sentence == _NO_MEMORY.format(action=action) else NetworkError)(sentence) from error


_NO_MEMORY = "There is not enough memory to {action} the network."
_PATTERNS = (
    (
        r"No Op registered for (?P<op>\S+) with domain_version of (?P<version>\d+)",
        "The network needs the operator {op}, which ONNX Runtime does not know in opset {version}.",
    ),
    (
        r"Fatal error: (?P<op>[^\s:]*:?[^\s(]+)\([^)]*\) is not a registered function/op",
        "The network needs the operator {op}, which ONNX Runtime does not know; it belongs to an extension.",
    ),
    (
        r"Could not find an implementation for (?P<op>\S+?)\((?P<version>\d+)\) node with name '(?P<node>[^']*)'",
        "ONNX Runtime cannot run the operator {op} (version {version}, node '{node}') on a processor.",
    ),
    (
        r"Unsupported model IR version: (?P<version>\d+), max supported IR version: (?P<most>\d+)",
        "The network's file format (IR version {version}) is newer than ONNX Runtime reads (up to {most}).",
    ),
    (
        r"Opset (?P<version>\d+) is under development and support for this is limited",
        "The network's opset {version} is newer than ONNX Runtime supports.",
    ),
    (r"must be acyclic|[Cc]ycle", "The network's graph is cyclic, so it cannot be run."),
    (
        r"[Ff]ailed to allocate|bad allocation|bad_alloc|out of memory|MemoryError",
        _NO_MEMORY,
    ),
)


def describe_error(error: Exception, action: str) -> str:
    """Return one sentence for an error of ONNX Runtime."""
    text = " ".join(str(error).split()) or type(error).__name__
    for pattern, sentence in _PATTERNS:
        if match := re.search(pattern, text):
            return sentence.format(action=action, **match.groupdict())
    if isinstance(error, MemoryError):
        return _NO_MEMORY.format(action=action)
    detail = re.sub(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", text)
    detail = re.sub(r"^(Load model from \S+ failed:|Exception during initialization:)\s*", "", detail)
    detail = re.sub(r"\S*onnxruntime/\S+:\d+ \S.*? (?=[A-Z])", "", detail, count=1)
    return f"ONNX Runtime cannot {action} the network: {detail[:300].rstrip('. ')}."
