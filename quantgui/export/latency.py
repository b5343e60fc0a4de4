"""How long each layer takes in ONNX Runtime: its own node, float and as it is exported, run by itself.

The node of a layer, with the Relu or Clip behind it, is cut out as a network of its own, exported in each format like
the whole network would be, and timed on one sample with ONNX Runtime's default options; all forms of a layer are run in
turns, and medians count. What is added up from that leaves out what only the whole network has: conversions between
float and integers that neighbours in the same format share, fusions across layers, and weights that other layers drive
out of the processor's cache. It ranks formats by what this machine's kernels make of them; Verify times whole files.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from quantgui.errors import ExportError, NetworkError
from quantgui.export.qdq import export_qdq
from quantgui.network.batch import Batch
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.runtime_faults import faulty_optimizers
from quantgui.network.segments import part_of
from quantgui.network.session import create_session, runtime_errors
from quantgui.results import ActivationReady, Array, LayerInfo, Progress, TensorInfo
from quantgui.spec.config import QuantConfig
from quantgui.spec.quantizer import FLOAT, LayerSpec

LATENCY_SECONDS = 0.2
"""Time spent on the forms of one layer."""
FEWEST_ROUNDS, MOST_ROUNDS = 7, 100
_WHOLE_ROUNDS = 15

Seconds = MutableMapping[tuple[str, LayerSpec], float]
"""Time of a layer's nodes with a spec, as a part of the whole float network's."""


def measure_latencies(
    executor: Executor,
    batch: Batch,
    wanted: Mapping[str, Iterable[LayerSpec]],
    activations: Mapping[str, ActivationReady],
    known: Seconds,
) -> Generator[Progress, None, None]:
    """Fill `known` with the time of each wanted layer float and with each wanted spec, as parts of the whole network's.

    Layers inside of If and Loop bodies, whose inputs cannot be seen, are left out, as are formats that cannot be
    exported. A layer that several nodes use is taken to need the time of its first one for each of them.

    Args:
        executor: runs the network.
        batch: one sample.
        wanted: specs by layer.
        activations: statistics of the tensors that the specs quantize.
        known: what was measured before; it is not measured again.

    Raises:
        DataError: `activations` lacks a tensor that a spec quantizes.
        NetworkError: the network cannot be run.
    """
    missing = {
        name: [spec for spec in dict.fromkeys([FLOAT, *specs]) if (name, spec) not in known]
        for name, specs in wanted.items()
    }
    missing = {name: [FLOAT, *(spec for spec in specs if spec != FLOAT)] for name, specs in missing.items() if specs}
    whole = 0.0
    for done, (name, specs) in enumerate(missing.items()):
        yield Progress(done, len(missing), "Timing the layers")
        whole = whole or _whole_seconds(executor, batch)
        layer = executor.network.layers[name]
        cut = _cut_out(executor, layer, batch)
        if cut is not None:
            network, feeds = cut
            times = _form_seconds(network, layer, specs, activations, feeds, threads=executor.threads)
            known.update({(name, spec): len(layer.users) * each / whole for spec, each in times.items()})


def _whole_seconds(executor: Executor, batch: Batch) -> float:
    network = executor.network
    session = create_session(network.skeleton, network.constants, threads=executor.threads, simulate=False)
    feeds = {info.name: batch.inputs[info.name] for info in session.get_inputs()}
    return _medians([(session, feeds)], rounds=_WHOLE_ROUNDS)[0]


def _cut_out(executor: Executor, layer: LayerInfo, batch: Batch) -> tuple[Network, dict[str, Array]] | None:
    """Return the layer as a network of its own with its inputs on a batch; None where they cannot be seen."""
    network = executor.network
    graph = network.skeleton.graph
    node = next((node for node in graph.node if node.name == layer.node), None)
    if layer.scope or node is None:
        return None
    output = layer.output_tensor or next(name for name in node.output if name)
    nodes = {layer.node, *(each.name for each in graph.node if output in each.output)}
    part = part_of(network, nodes, output)
    if len(part.nodes) != len(nodes) or not all(executor.fetchable(name) for name in (*part.inputs, output)):
        return None
    values = executor.run(batch, fetch=[*part.inputs, output])
    feeds = {name: np.ascontiguousarray(values[name]) for name in part.inputs}
    model = onnx.ModelProto(
        ir_version=network.skeleton.ir_version,
        opset_import=network.skeleton.opset_import,
        functions=network.skeleton.functions,
    )
    model.graph.name = layer.node
    model.graph.node.extend(part.nodes)
    model.graph.input.extend(_info(name, value) for name, value in feeds.items())
    model.graph.output.append(_info(output, values[output]))
    model.graph.initializer.extend(each for each in graph.initializer if each.name in part.initializers)
    constants = {name: network.constants[name] for name in part.initializers}
    summary = replace(
        network.summary,
        path="",
        float_bytes=sum(value.nbytes for value in constants.values()),
        inputs=tuple(TensorInfo(name, str(value.dtype), value.shape) for name, value in feeds.items()),
        outputs=(TensorInfo(output, str(values[output].dtype), values[output].shape),),
        layers=(replace(layer, users=(layer.node,)),),
        nodes=(),
    )
    return Network(summary, model, constants, whole=network), feeds


def _info(name: str, value: Array) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def _form_seconds(
    network: Network,
    layer: LayerInfo,
    specs: Sequence[LayerSpec],
    activations: Mapping[str, ActivationReady],
    feeds: dict[str, Array],
    *,
    threads: int,
) -> dict[LayerSpec, float]:
    """Return the median seconds of the layer in each form that can be exported and run."""
    sessions: dict[LayerSpec, onnxruntime.InferenceSession] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, spec in enumerate(specs):
            try:
                sessions[spec] = _session(network, layer, spec, activations, Path(folder, f"{number}.onnx"), threads)
            except (ExportError, NetworkError):
                continue  # this runtime does not take the format, so it cannot be chosen for its speed
        return dict(zip(sessions, _medians([(each, feeds) for each in sessions.values()]), strict=True))


def _session(
    network: Network,
    layer: LayerInfo,
    spec: LayerSpec,
    activations: Mapping[str, ActivationReady],
    path: Path,
    threads: int,
) -> onnxruntime.InferenceSession:
    if spec == FLOAT:
        return create_session(network.skeleton, network.constants, threads=threads, simulate=False)
    config = QuantConfig().with_overrides({layer.name: spec})
    for _ in export_qdq(network, config, activations, path):
        pass
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with runtime_errors("load"):
        return onnxruntime.InferenceSession(
            str(path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(faulty_optimizers(network.skeleton)) or None,
        )


def _medians(
    runs: Sequence[tuple[onnxruntime.InferenceSession, Mapping[str, Array]]], *, rounds: int | None = None
) -> list[float]:
    """Return the median seconds of each session, run in turns."""
    times: list[list[float]] = [[] for _ in runs]
    started = time.perf_counter()
    done = 0
    while done < (rounds or FEWEST_ROUNDS) or (
        rounds is None and done < MOST_ROUNDS and time.perf_counter() - started < LATENCY_SECONDS
    ):
        for own, (session, feeds) in zip(times, runs, strict=True):
            with runtime_errors("run"):
                before = time.perf_counter()
                session.run(None, dict(feeds))
                own.append(time.perf_counter() - before)
        done += 1
    # The first round allocates.
    return [float(np.median(own[1:])) for own in times]
