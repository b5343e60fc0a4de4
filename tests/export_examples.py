"""What the tests of exported files share: tiny networks of every kind of layer, opened, simulated and run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import builders
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from quantgui.analysis.calibration import calibrate
from quantgui.analysis.simulation import activation_tensors, build_simulation
from quantgui.export.qdq import export_qdq
from quantgui.network.batch import Batch
from quantgui.network.datasets import Dataset, open_dataset
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.reader import open_network
from quantgui.results import ActivationReady, Calibrated, Exported
from quantgui.spec.config import QuantConfig
from quantgui.spec.quantizer import LayerSpec

Array = np.ndarray


def convolutions() -> onnx.ModelProto:
    """Return 2-D convolutions: plain, depthwise, grouped transposed; with biases."""
    constants = {
        "stem.w": builders.values(8, 3, 3, 3, seed=1, scale=0.3),
        "stem.b": builders.values(8, seed=2, scale=0.1),
        "depth.w": builders.values(8, 1, 3, 3, seed=3, scale=0.3),
        "up.w": builders.values(8, 6, 2, 2, seed=4, scale=0.3),
        "up.b": builders.values(12, seed=5, scale=0.1),
    }
    nodes = [
        helper.make_node("Conv", ["x", "stem.w", "stem.b"], ["s"], name="stem"),
        helper.make_node("Relu", ["s"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "depth.w"], ["d"], name="depth", group=8),
        helper.make_node("ConvTranspose", ["d", "up.w", "up.b"], ["y"], name="up", group=2, strides=[2, 2]),
    ]
    x, y = builders.tensor_info("x", ["n", 3, 10, 10]), builders.tensor_info("y", ["n", 12, 12, 12])
    return builders.model_of(nodes, [x], [y], constants)


def signals() -> onnx.ModelProto:
    """Return a 1-D convolution, a bidirectional GRU and a Gemm without transposition."""
    constants = {
        "conv.w": builders.values(6, 4, 5, seed=1, scale=0.3),
        "gru.w": builders.values(2, 24, 6, seed=2, scale=0.3),
        "gru.r": builders.values(2, 24, 8, seed=3, scale=0.3),
        "fc.w": builders.values(16, 7, seed=4, scale=0.3),
        "fc.b": builders.values(7, seed=5, scale=0.1),
        "flat": np.array([-1, 16], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv.w"], ["c"], name="conv"),
        helper.make_node("Transpose", ["c"], ["t"], name="turn", perm=[2, 0, 1]),
        helper.make_node(
            "GRU", ["t", "gru.w", "gru.r"], ["", "h"], name="gru", hidden_size=8, direction="bidirectional"
        ),
        helper.make_node("Transpose", ["h"], ["u"], name="back", perm=[1, 0, 2]),
        helper.make_node("Reshape", ["u", "flat"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "fc.w", "fc.b"], ["y"], name="fc"),
    ]
    x, y = builders.tensor_info("x", ["n", 4, 12]), builders.tensor_info("y", ["n", 7])
    return builders.model_of(nodes, [x], [y], constants)


def tokens() -> onnx.ModelProto:
    """Return an embedding, batched matrices of rank 3, and a MatMul whose columns are no multiple of 4."""
    constants = {
        "table": builders.values(20, 12, seed=1),
        "heads": builders.values(1, 12, 16, seed=2, scale=0.3),
        "out": builders.values(16, 6, seed=3, scale=0.3),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], name="embedding"),
        helper.make_node("MatMul", ["e", "heads"], ["h"], name="heads"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "out"], ["y"], name="out"),
    ]
    ids = builders.tensor_info("ids", ["n", 5], TensorProto.INT64)
    return builders.model_of(nodes, [ids], [builders.tensor_info("y", ["n", 5, 6])], constants)


def halves() -> onnx.ModelProto:
    """Return a network that computes in float16."""
    constants = {
        "w0": builders.values(8, 48, seed=1, scale=0.3).astype(np.float16),
        "w1": builders.values(48, 48, seed=2, scale=0.2).astype(np.float16),
    }
    nodes = [
        helper.make_node("Cast", ["x"], ["x16"], name="down", to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["x16", "w0"], ["h"], name="fc0"),
        helper.make_node("Relu", ["h"], ["a"], name="relu"),
        helper.make_node("MatMul", ["a", "w1"], ["z"], name="fc1"),
        helper.make_node("Cast", ["z"], ["y"], name="up", to=TensorProto.FLOAT),
    ]
    x, y = builders.tensor_info("x", ["n", 8]), builders.tensor_info("y", ["n", 48])
    return builders.model_of(nodes, [x], [y], constants)


def loop() -> onnx.ModelProto:
    """Return a Loop whose body multiplies its state by a weight, three times."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "w"], ["m"], name="body/fc"),
            helper.make_node("Tanh", ["m"], ["state_out"], name="body/tanh"),
            helper.make_node("Identity", ["go"], ["go_out"], name="body/go"),
        ],
        "body",
        [
            builders.tensor_info("step", [], TensorProto.INT64),
            builders.tensor_info("go", [], TensorProto.BOOL),
            builders.tensor_info("state", ["n", 24]),
        ],
        [builders.tensor_info("go_out", [], TensorProto.BOOL), builders.tensor_info("state_out", ["n", 24])],
    )
    constants = {"w": builders.values(24, 24, seed=1, scale=0.2), "three": np.array(3), "yes": np.array(True)}
    nodes = [helper.make_node("Loop", ["three", "yes", "x"], ["y"], name="loop", body=body)]
    x, y = builders.tensor_info("x", ["n", 24]), builders.tensor_info("y", ["n", 24])
    return builders.model_of(nodes, [x], [y], constants)


MODELS = {
    "mlp": builders.mlp_model,
    "residual": builders.residual_model,
    "lstm": builders.lstm_model,
    "if": builders.if_model,
    "convolutions": convolutions,
    "signals": signals,
    "tokens": tokens,
    "halves": halves,
    "loop": loop,
}


def opened(folder: Path, model: onnx.ModelProto) -> Network:
    """Save `model` and open it as the program does."""
    path = folder / "network.onnx"
    onnx.save(model, path)
    return open_network(path)


def data_for(network: Network, samples: int = 6) -> Dataset:
    return open_dataset(f"random:{samples}", network.summary.inputs, network.summary, network=network)


def config_of(network: Network, spec: LayerSpec) -> QuantConfig:
    """Return `spec` for every layer, whatever presets would leave out."""
    return QuantConfig(spec)


def calibrated(network: Network, config: QuantConfig, data: Dataset) -> Mapping[str, ActivationReady]:
    tensors = activation_tensors(network, config)
    events = list(calibrate(Executor(network), data, tensors)) if tensors else []
    return next((event.activations for event in events if isinstance(event, Calibrated)), {})


def exported(network: Network, config: QuantConfig, activations: Mapping[str, ActivationReady], path: Path) -> Exported:
    *_, last = export_qdq(network, config, activations, path)
    assert isinstance(last, Exported)
    return last


def run_file(path: Path, batch: Batch, *, fused: bool = False) -> dict[str, Array]:
    """Run the file as it is written, or (`fused`) as ONNX Runtime runs it by default."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    disabled = None
    if not fused:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        disabled = ["WeightBiasQuantization"]
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
    )
    names = [info.name for info in session.get_outputs()]
    answers = session.run(names, {info.name: batch.inputs[info.name] for info in session.get_inputs()})
    return dict(zip(names, answers, strict=True))


def simulated(
    network: Network, config: QuantConfig, activations: Mapping[str, ActivationReady], batch: Batch
) -> dict[str, Array]:
    """Run the simulation of the whole network in one session."""
    return Executor(network, segmented=False).run(batch, build_simulation(network, config, activations))


def constant_of(model: onnx.ModelProto, name: str) -> Array:
    """Return what the nodes of `model` that depend on no input make of its initializers, called `name`."""
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    makers = {output: node for node in model.graph.node for output in node.output}
    wanted, found = [name], []
    while wanted:
        node = makers.get(wanted.pop())
        if node is not None and node not in found:
            found.append(node)
            wanted += node.input
    del cut.graph.node[:], cut.graph.input[:], cut.graph.output[:]
    cut.graph.node.extend(node for node in model.graph.node if node in found)
    cut.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    (values,) = onnxruntime.InferenceSession(cut.SerializeToString(), options).run([name], {})
    return np.asarray(values)
