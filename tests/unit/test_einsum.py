"""Einsum with a weight computes the same as MatMul, and its weight is a layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantgui.network.network import Network
from quantgui.network.reader import read_network
from quantgui.network.session import create_session

SIZES = {"b": 2, "t": 3, "d": 4, "h": 5, "e": 6, "s": 7, "n": 8, "o": 1, "i": 3}


def _network(path: Path, equation: str, weight: int) -> tuple[Network, dict[str, np.ndarray], np.ndarray]:
    """Return a network of one Einsum whose input number `weight` is a weight, its inputs, and what comes out."""
    generator = np.random.default_rng(0)
    terms = equation.partition("->")[0].replace(" ", "").split(",")
    arrays = [generator.normal(size=[SIZES[axis] for axis in term]).astype(np.float32) for term in terms]
    names = [f"w{place}" if place == weight else f"x{place}" for place in range(len(terms))]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}_{axis}" for axis in range(array.ndim)])
        for name, array in zip(names, arrays, strict=True)
        if name.startswith("x")
    ]
    node = helper.make_node("Einsum", names, ["y"], name="heads", equation=equation)
    wanted = np.einsum(equation, *arrays)
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * wanted.ndim)]
    held = [numpy_helper.from_array(arrays[weight], names[weight])]
    model = helper.make_model(
        helper.make_graph([node], "g", inputs, outputs, held), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    onnx.save(model, path)
    reading = read_network(str(path))
    while True:
        try:
            next(reading)
        except StopIteration as stop:
            feed = {name: array for name, array in zip(names, arrays, strict=True) if name.startswith("x")}
            return stop.value, feed, wanted


@pytest.mark.parametrize(
    ("equation", "weight"),
    [
        ("bd,dh->bh", 1), ("btd,dne->bnte", 1), ("btd,nde->bnte", 1), ("bnte,ned->btd", 1), ("de,btd->bte", 0),
        ("bhts,bhse,hed->btd", 2), ("bd,be,hde->bh", 2), ("btd,bde->bte", 1), ("nd,nde->ne", 1), ("btnd,nde->bnte", 1),
        ("d,de->e", 1), ("bde,de->b", 1), ("bt,tb->", 1), ("bd, dh", 1), ("tbnd,bde->etnb", 1),
    ],
)  # fmt: skip
def test_that_einsum_with_a_weight_is_the_matmul_it_is(tmp_path, equation, weight) -> None:
    network, feed, wanted = _network(tmp_path / "net.onnx", equation, weight)
    (layer,) = network.summary.layers
    assert (layer.name, layer.op) == ("heads", "MatMul")
    (found,) = create_session(network.skeleton, network.constants).run(None, feed)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    term = equation.partition("->")[0].replace(" ", "").split(",")[weight]
    assert layer.parameters == np.prod([SIZES[axis] for axis in term])


@pytest.mark.parametrize("equation", ["bd,he->bhde", "bii,ih->bh", "btd,dh->bh", "bd,deh->bh", "bo,oh->bh"])
def test_that_einsum_stays_where_no_matmul_computes_it(tmp_path, equation) -> None:
    network, feed, wanted = _network(tmp_path / "net.onnx", equation, 1)
    assert network.summary.layers == ()
    (found,) = create_session(network.skeleton, network.constants).run(None, feed)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
