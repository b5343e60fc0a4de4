from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantgui.errors import ExportError
from quantgui.export.opset import opset_for_activations, raise_opset
from quantgui.export.placement import insert_stored
from quantgui.export.stored import StoredWeight, initializer
from quantgui.spec.formats import FloatFormat, Format, IntFormat


def info(name: str, shape: list[object], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def stored(*names: str) -> dict[str, StoredWeight]:
    return {
        name: StoredWeight(
            (helper.make_node("DequantizeLinear", [f"{name}_codes", f"{name}_scale"], [name], name=f"make_{name}"),),
            (initializer(f"{name}_codes", np.zeros((4, 4), np.int8)),),
            10,
        )
        for name in names
    }


def branch(uses: list[str], name: str, nodes: list[onnx.NodeProto] | None = None) -> onnx.GraphProto:
    made = [helper.make_node("MatMul", ["x", use], [f"{name}_{use}"], name=f"{name}_{use}") for use in uses]
    result = helper.make_node("Identity", ["x"], [f"{name}_out"])
    return helper.make_graph([*(nodes or []), *made, result], name, [], [info(f"{name}_out", ["n", 4])])


def if_node(name: str, then: onnx.GraphProto, otherwise: onnx.GraphProto) -> onnx.NodeProto:
    return helper.make_node("If", ["c"], [f"{name}_y"], name=name, then_branch=then, else_branch=otherwise)


def places(graph: onnx.GraphProto, path: str = "") -> dict[str, str]:
    found = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            assert node.input[0] in {tensor.name for tensor in graph.initializer}
            found[node.output[0]] = path
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found |= places(attribute.g, f"{path}/{node.name}.{attribute.name}")
    return found


def test_that_each_weight_is_made_in_the_innermost_branch_around_its_uses() -> None:
    inner = if_node("inner", branch(["deep", "both"], "it"), branch(["both"], "ie"))
    outer = if_node("outer", branch(["shared"], "ot", [inner]), branch(["shared", "single"], "oe"))
    nodes = [helper.make_node("MatMul", ["x", "main"], ["m"], name="m"), outer]
    model = helper.make_model(helper.make_graph(nodes, "network", [info("x", ["n", 4])], [info("m", ["n", 4])]))
    insert_stored(model, stored("deep", "both", "shared", "single", "main", "unused"))
    assert places(model.graph) == {
        "deep": "/outer.then_branch/inner.then_branch",
        "both": "/outer.then_branch",
        "shared": "",
        "single": "/outer.else_branch",
        "main": "",
    }


def test_that_a_weight_of_a_loop_is_made_once_before_it() -> None:
    inside = if_node("inside", branch(["w"], "it"), branch([], "ie"))
    body = helper.make_graph(
        [inside, helper.make_node("Identity", ["k"], ["k_out"])],
        "body",
        [info("i", [], TensorProto.INT64), info("k", [], TensorProto.BOOL)],
        [info("k_out", [], TensorProto.BOOL)],
    )
    loop = helper.make_node("Loop", ["n", "c"], [], name="loop", body=body)
    model = helper.make_model(helper.make_graph([loop], "network", [info("x", ["n", 4])], []))
    insert_stored(model, stored("w"))
    assert places(model.graph) == {"w": ""}


def relu_network(opset: int, *extra: onnx.NodeProto) -> onnx.ModelProto:
    constant = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="mine"), *extra]
    graph = helper.make_graph(nodes, "network", [info("x", ["n", 4])], [info("y", ["n", 4])], [constant])
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("other", 3)],
        ir_version=4,
    )


@pytest.mark.parametrize("opset", [9, 13, 21, 25])
def test_that_names_and_other_domains_outlive_the_raised_opset(opset: int) -> None:
    raised = raise_opset(relu_network(9), opset)
    assert [(o.domain, o.version) for o in raised.opset_import] == [("", opset), ("other", 3)]
    assert [node.name for node in raised.graph.node] == ["mine"]
    onnx.checker.check_model(raised)


def test_that_the_opset_is_never_lowered() -> None:
    assert raise_opset(relu_network(17), 13).opset_import[0].version == 17


def test_that_declarations_of_injected_weights_outlive_the_raised_opset() -> None:
    model = relu_network(11)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="injected")
    raised = raise_opset(model, 25).graph.initializer[0]
    assert (raised.data_location, list(raised.dims)) == (TensorProto.EXTERNAL, [4, 4])


def test_that_an_operator_without_a_newer_form_is_named() -> None:
    model = relu_network(9, helper.make_node("ImageScaler", ["y"], ["z"], scale=2.0))
    with pytest.raises(ExportError, match=r"need opset 21, but the operator ImageScaler cannot be converted"):
        raise_opset(model, 21)


@pytest.mark.parametrize(
    ("fmt", "opset"),
    [
        (IntFormat(8, signed=False), 10),
        (IntFormat(4), 11),
        (IntFormat(16), 21),
        (IntFormat(9), 21),
        (FloatFormat("float16"), 1),
        (FloatFormat("bfloat16"), 13),
    ],
    ids=str,
)
def test_that_activations_ask_for_no_newer_opset_than_needed(fmt: Format, opset: int) -> None:
    assert opset_for_activations(fmt) == opset
