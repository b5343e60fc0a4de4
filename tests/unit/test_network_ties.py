"""Groups of layers that meet in an Add or Concat, on graphs small enough to see them."""

from __future__ import annotations

from pathlib import Path

import builders
import onnx
import pytest
from networks import network_path
from onnx import helper

from quantgui.network.reader import open_network
from quantgui.network.ties import tied_layers


def groups(model: onnx.ModelProto, folder: Path) -> tuple[tuple[str, ...], ...]:
    onnx.save(model, folder / "network.onnx")
    return tied_layers(open_network(folder / "network.onnx"))


def model_of(nodes: list[onnx.NodeProto], outputs: str = "y", weights: int = 3) -> onnx.ModelProto:
    constants = {f"w{i}": builders.values(8, 8, seed=i) for i in range(weights)} | {"c": builders.values(8, seed=9)}
    info = [builders.tensor_info(name, ["batch", None]) for name in outputs.split()]
    return builders.model_of(nodes, [builders.tensor_info("x", ["batch", 8])], info, constants)


def multiplied(name: str, source: str, weight: str) -> onnx.NodeProto:
    return helper.make_node("MatMul", [source, weight], [name], name=name)


def test_that_layers_on_both_sides_of_a_residual_add_are_tied(tmp_path: Path) -> None:
    # The stem and all blocks lie on one chain of additions; the head behind the pooling does not.
    assert groups(builders.residual_model(), tmp_path) == (("stem", "conv0", "conv1"),)


def test_that_layers_of_a_plain_chain_are_free(tmp_path: Path) -> None:
    assert groups(builders.mlp_model(), tmp_path) == ()


@pytest.mark.parametrize("join", ["Add", "Concat"])
def test_that_activation_functions_and_constants_do_not_part_what_meets(join: str, tmp_path: Path) -> None:
    nodes = [
        multiplied("a", "x", "w0"),
        helper.make_node("Relu", ["a"], ["ar"], name="relu"),
        multiplied("b", "x", "w1"),
        helper.make_node("Add", ["b", "c"], ["bc"], name="bias"),
        helper.make_node("Mul", ["c", "bc"], ["bm"], name="scaled"),
        helper.make_node(join, ["ar", "bm"], ["y"], name="join", **({"axis": 1} if join == "Concat" else {})),
        multiplied("z", "x", "w2"),
    ]
    assert groups(model_of(nodes, "y z"), tmp_path) == (("a", "b"),)


def test_that_a_product_of_two_activations_and_a_softmax_part_layers(tmp_path: Path) -> None:
    nodes = [
        multiplied("a", "x", "w0"),
        multiplied("b", "x", "w1"),
        helper.make_node("Mul", ["a", "b"], ["product"], name="product"),
        multiplied("d", "x", "w2"),
        helper.make_node("Softmax", ["d"], ["soft"], name="soft"),
        helper.make_node("Add", ["product", "soft"], ["y"], name="add"),
    ]
    assert groups(model_of(nodes), tmp_path) == ()


def test_that_groups_that_share_a_layer_are_one(tmp_path: Path) -> None:
    nodes = [
        *(multiplied(name, "x", f"w{i}") for i, name in enumerate("abd")),
        helper.make_node("Add", ["a", "b"], ["y"], name="first"),
        helper.make_node("Add", ["b", "d"], ["z"], name="second"),
    ]
    assert groups(model_of(nodes, "y z"), tmp_path) == (("a", "b", "d"),)


@pytest.mark.network
def test_that_the_projections_of_a_stage_of_efficientnet_are_tied() -> None:
    network = open_network(network_path("efficientnet-lite0"))
    found = tied_layers(network)
    # Stages of 2, 2, 3, 3 and 4 blocks; the single blocks of the first and last have no residual.
    assert [len(group) for group in found] == [2, 2, 3, 3, 4]
    assert all("project_conv" in name for group in found for name in group)
