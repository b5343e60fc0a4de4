"""Training of weights of one bit: gradients against plain torch, and real digits that are learned again."""

from __future__ import annotations

from pathlib import Path

import builders
import networks
import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor

from quantgui.analysis.calibration import calibrate
from quantgui.analysis.qat.network import TrainableNetwork
from quantgui.analysis.qat.training import train
from quantgui.analysis.simulation import activation_tensors
from quantgui.export.qdq import export_qdq
from quantgui.network.datasets import open_dataset
from quantgui.network.differentiable import DifferentiableNetwork
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.network.session import create_session
from quantgui.numerics.ste import BINARY_REACH, gradient_factor
from quantgui.results import TrainingReady
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import TableFormat
from quantgui.spec.presets import activation_spec, usual_weight_spec
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.training import Training

BINARY = TableFormat("binary")
W1 = LayerSpec(usual_weight_spec(BINARY))
W1A8 = LayerSpec(usual_weight_spec(BINARY), activation_spec(8))


class ClippedSign(torch.autograd.Function):
    """The sign of a weight, whose gradient passes within a limit, as binarized networks have it."""

    @staticmethod
    def forward(context, weight: Tensor, limit: Tensor) -> Tensor:
        context.save_for_backward(weight, limit)
        return weight.sign()

    @staticmethod
    def backward(context, gradient: Tensor) -> tuple[Tensor, None]:
        weight, limit = context.saved_tensors
        return gradient * (weight.abs() <= limit), None


def binarized(weight: Tensor, alpha: Tensor) -> Tensor:
    """Return a weight (out, in) as alpha (out,) times its sign; weights get the gradient of their product itself."""
    column = alpha[:, None]
    limit = BINARY_REACH * column.detach()
    # The gradient of a weight is that of the product, that of alpha goes through the sign alone.
    signs = weight.detach().sign()
    return column * signs + ClippedSign.apply(weight, limit) - signs


def test_that_gradients_of_a_network_of_binary_weights_are_those_of_plain_torch(tmp_path: Path) -> None:
    model = builders.model_of(
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["h"], name="first", transB=1),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], name="second", transB=1),
        ],
        [builders.tensor_info("x", ["n", 12])],
        [builders.tensor_info("y", ["n", 5])],
        {"w": builders.values(9, 12), "b": builders.values(9), "w2": builders.values(5, 9), "b2": builders.values(5)},
    )
    onnx.save(model, tmp_path / "network.onnx")
    network = open_network(tmp_path / "network.onnx")
    trainable = TrainableNetwork(network, QuantConfig(W1), {})
    x, target = builders.values(16, 12, seed=3), torch.from_numpy(builders.values(16, 5, seed=4))
    (outputs,) = trainable.run(DifferentiableNetwork(network), {"x": x}).values()
    (outputs - target).square().mean().backward()
    weights = {name: torch.from_numpy(network.constants[name].copy()).requires_grad_() for name in ("w", "w2")}
    alphas = {name: values.detach().abs().mean(1).requires_grad_() for name, values in weights.items()}
    b, b2 = (torch.from_numpy(network.constants[name].copy()) for name in ("b", "b2"))
    hidden = torch.from_numpy(x) @ binarized(weights["w"], alphas["w"]).T + b
    found = hidden.relu() @ binarized(weights["w2"], alphas["w2"]).T + b2
    torch.testing.assert_close(outputs, found)
    (found - target).square().mean().backward()
    for layer, name in (("first", "w"), ("second", "w2")):
        factor = gradient_factor(weights[name].shape[1], BINARY)
        own = trainable.parameters
        # The mean magnitude is the scale of the least squared error, and where training begins.
        torch.testing.assert_close(own[f"scale:{layer}"].value, alphas[name])
        torch.testing.assert_close(own[f"weight:{layer}"].value.grad, weights[name].grad)
        torch.testing.assert_close(own[f"scale:{layer}"].value.grad, alphas[name].grad * factor)


@pytest.mark.network
def test_that_one_bit_learns_digits_and_the_file_computes_what_was_told(tmp_path: Path) -> None:
    x, labels = networks.digits(640)
    network = open_network(networks.network_path("ccexam-mnist"))
    name = network.summary.inputs[0].name
    np.savez(tmp_path / "data.npz", **{name: x, "labels": labels})
    dataset = open_dataset(str(tmp_path / "data.npz"), network.summary.inputs, network.summary)
    executor = Executor(network)
    *_, calibrated = calibrate(executor, dataset, activation_tensors(network))
    training = Training(steps=40, batch_size=32, learning_rate=3e-2, patience=0)
    *_, last = train(
        executor, dataset, dataset, QuantConfig(W1A8), calibrated.activations, training, folder=tmp_path / "kept"
    )
    assert isinstance(last, TrainingReady)
    before, after = last.before.quantized_score.value, last.after.quantized_score.value
    assert before < 0.96
    assert 1 - after < 0.25 * (1 - before)
    list(export_qdq(network, last.trained, calibrated.activations, tmp_path / "trained.onnx"))
    session = create_session(
        onnx.load(tmp_path / "trained.onnx"), {}, threads=1, config={"session.disable_quant_qdq": "1"}
    )
    (scores,) = session.run(None, {name: x})
    assert float((scores.argmax(1) == labels).mean()) == pytest.approx(after, abs=0.005)
