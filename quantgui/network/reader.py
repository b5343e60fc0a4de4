"""Opening a network file: read safely, bring into canonical form, find the layers."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np
import onnx

from quantgui.errors import NetworkError
from quantgui.network.canonical import canonicalize
from quantgui.network.cost import count_macs
from quantgui.network.files import NetworkFile, read_file, stored_bytes
from quantgui.network.folding import remove_dead
from quantgui.network.graph import Program, to_skeleton
from quantgui.network.graph_reading import read_program
from quantgui.network.layers import find_layers
from quantgui.network.network import Network
from quantgui.network.whole import whole_session
from quantgui.results import Event, GraphNode, LayerInfo, NetworkOpened, NetworkSummary, Progress, TensorInfo

_STEPS = 5


def open_network(path: Path) -> Network:
    """Return the network of the file at `path`.

    Raises:
        NetworkError: the file cannot be read, or ONNX Runtime cannot run it.
    """
    reading = read_network(path)
    while True:
        try:
            next(reading)
        except StopIteration as stop:
            network: Network = stop.value
            return network


def read_network(path: Path) -> Generator[Event, None, Network]:
    """Yield progress and `NetworkOpened` while the file at `path` is read; return the network.

    Raises:
        NetworkError: the file cannot be read, or ONNX Runtime cannot run it.
    """
    path = Path(path)
    yield Progress(0, _STEPS, "Reading the file")
    file = read_file(path)
    program = read_program(file)
    yield Progress(1, _STEPS, "Folding constants")
    canonicalize(program)
    yield Progress(2, _STEPS, "Checking the operators")
    notes: tuple[str, ...] = ()
    try:
        skeleton = _checked(file, program)
    except NetworkError:
        # If only the simplified form is refused, the network is shown as it is.
        program = read_program(file)
        remove_dead(program)
        skeleton = _checked(file, program)
        notes = ("Constants of this network could not be folded, so some of its weights may not be shown.",)
    yield Progress(3, _STEPS, "Counting operations")
    macs = count_macs(program)
    yield Progress(4, _STEPS, "Finding the layers")
    summary = _summary(file, program, find_layers(program, macs), notes)
    network = Network(summary, skeleton, program.constants)
    yield NetworkOpened(summary)
    return network


def _checked(file: NetworkFile, program: Program) -> onnx.ModelProto:
    """Return the skeleton of a program, once ONNX Runtime has loaded it."""
    skeleton = to_skeleton(program, producer=file.model.producer_name)
    whole_session(skeleton, program.constants, optimize=False, config={"session.disable_prepacking": "1"})
    return skeleton


def _summary(
    file: NetworkFile, program: Program, layers: tuple[LayerInfo, ...], notes: tuple[str, ...]
) -> NetworkSummary:
    floats = [v for v in program.constants.values() if _is_float(v.dtype)]
    read_only = {layer.weight: layer.parameters for layer in layers if layer.read_only}
    return NetworkSummary(
        name=file.path.stem,
        path=str(file.path),
        fingerprint=file.fingerprint(),
        opset=program.opset,
        ir_version=program.ir_version,
        producer=" ".join(filter(None, (file.model.producer_name, file.model.producer_version))),
        parameters=sum(v.size for v in floats) + sum(read_only.values()),
        file_bytes=file.file_bytes,
        float_bytes=sum(stored_bytes(v) for v in program.constants.values()),
        inputs=tuple(_tensor_info(value) for value in program.graph.inputs),
        outputs=tuple(_tensor_info(value, is_output=True) for value in program.graph.outputs),
        layers=layers,
        nodes=_graph_nodes(program, layers),
        warnings=(*notes, *_warnings(layers)),
    )


def _is_float(dtype: np.dtype) -> bool:
    return dtype.kind == "f" or dtype.name.startswith(("bfloat", "float"))


def _tensor_info(value: onnx.ValueInfoProto, *, is_output: bool = False) -> TensorInfo:
    tensor = value.type.tensor_type
    dtype = "unknown"
    if tensor.elem_type:
        dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower().replace("float8", "float8_")
    dtype = {"float": "float32", "double": "float64"}.get(dtype, dtype)
    # Some exporters declare every output a scalar.
    if not tensor.HasField("shape") or (is_output and not tensor.shape.dim):
        return TensorInfo(value.name, dtype, None)
    shape: list[int | str] = []
    for i, dim in enumerate(tensor.shape.dim):
        fixed = dim.HasField("dim_value") and dim.dim_value > 0
        named = dim.dim_param if dim.dim_param not in ("", "?", "-1") else f"dim{i}"
        shape.append(dim.dim_value if fixed else named)
    return TensorInfo(value.name, dtype, tuple(shape))


def _graph_nodes(program: Program, layers: tuple[LayerInfo, ...]) -> tuple[GraphNode, ...]:
    rows: dict[str, str] = {}
    for layer in layers:
        for user in layer.users:
            rows.setdefault(user, layer.name)
    made: dict[str, int] = {}
    nodes: list[GraphNode] = []
    for _, node in program.walk():
        used = [*node.inputs, *(value.name for body in node.bodies.values() for value in body.outputs)]
        feeds = dict.fromkeys(made[name] for name in used if name in made)
        made.update((name, len(nodes)) for name in node.outputs if name)
        nodes.append(GraphNode(node.name, node.op, tuple(feeds), rows.get(node.name, "")))
    return tuple(nodes)


def _warnings(layers: tuple[LayerInfo, ...]) -> tuple[str, ...]:
    warnings = []
    count = sum(1 for layer in layers if layer.read_only)
    if not layers:
        warnings.append("The network has no layer with weights.")
    if count and count == len(layers):
        warnings.append("All layers of the network are already quantized; they are shown as they are.")
    elif count:
        warnings.append(f"{count} of {len(layers)} layers are already quantized and shown as they are.")
    warnings += [
        f"The weight of '{layer.name}' holds values that are not finite, so it stays float."
        for layer in layers
        if not layer.finite
    ]
    transforms = [layer.name for layer in layers if layer.signal_transform]
    if transforms:
        names = ", ".join(f"'{name}'" for name in transforms)
        warnings.append(f"Presets leave {names} float: the weight looks like a signal transform (Fourier, mel).")
    return tuple(warnings)
