"""Layers of every kind are found with their channels, users and tensors, in the main graph and in bodies."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from builders import if_model, lstm_model, mlp_model, residual_model, tensor_info, values
from onnx import TensorProto, helper, numpy_helper

from quantgui.network.reader import open_network, read_network
from quantgui.network.session import create_session
from quantgui.results import NetworkOpened, Progress


def model_of(nodes, inputs, outputs, constants, *, opset=17):
    """Return a network as exporters write them: names and shapes may be missing."""
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def opened(model, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return open_network(path)


def same_outputs(network, model, feeds):
    before = create_session(model, {}, optimize=False).run(None, feeds)
    after = create_session(network.skeleton, network.constants).run(None, feeds)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


def single(nodes, constants, shape, out, *, opset=17):
    return model_of(nodes, [tensor_info("x", shape)], [tensor_info("y", out)], constants, opset=opset)


def test_that_reading_reports_progress_and_ends_with_the_summary(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(mlp_model().SerializeToString())
    events = list(read_network(path))
    assert all(isinstance(event, Progress) for event in events[:-1])
    assert isinstance(events[-1], NetworkOpened)
    summary = events[-1].summary
    assert summary.name == "net"
    assert summary.opset == 17
    assert summary.file_bytes == path.stat().st_size
    assert [str(info) for info in summary.inputs] == ["x (float32, batch x 8)"]
    assert summary.parameters == 8 * 64 + 64 * 64 + 64 * 4 + 64 + 64 + 4
    assert summary.float_bytes == 4 * summary.parameters


def test_that_outputs_are_taken_after_a_relu_that_alone_uses_them(tmp_path):
    layers = {layer.name: layer for layer in opened(residual_model(), tmp_path).summary.layers}
    assert layers["stem"].input_tensor == "image"
    assert layers["stem"].output_tensor == "r"
    assert layers["conv1"].output_tensor == "c1"
    assert layers["head"].channel_axis == 1


def test_that_a_shared_weight_is_one_layer_with_its_users(tmp_path):
    layers = {layer.name: layer for layer in opened(residual_model(), tmp_path).summary.layers}
    assert layers["conv0"].users == ("conv0", "conv2")
    assert "conv2" not in layers
    assert layers["conv0"].macs == 2 * layers["conv1"].macs


def test_that_layers_inside_bodies_carry_their_scope(tmp_path):
    model = if_model()
    network = opened(model, tmp_path)
    scopes = {layer.name: layer.scope for layer in network.summary.layers}
    assert scopes == {"fc0": (), "then/fc": ("if",), "else/fc": ("if",), "fc3": ()}
    for flag in (True, False):
        same_outputs(network, model, {"x": values(3, 32), "flag": np.array(flag)})


def test_that_weights_inside_bodies_are_hoisted_under_unique_names(tmp_path):
    weights = {name: values(8, 8, seed=i) for i, name in enumerate(("then", "else"))}
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["out"], name="fc")],
            name,
            [],
            [tensor_info("out", ["n", 8])],
            [numpy_helper.from_array(weight, "w")],
        )
        for name, weight in weights.items()
    }
    node = helper.make_node("If", ["flag"], ["y"], name="if", **branches)
    inputs = [tensor_info("x", ["n", 8]), tensor_info("flag", [], TensorProto.BOOL)]
    model = model_of([node], inputs, [tensor_info("y", ["n", 8])], {})
    network = opened(model, tmp_path)
    first, second = network.summary.layers
    assert {first.name, second.name} == {"fc", "fc_1"}
    assert first.weight != second.weight
    for flag in (True, False):
        same_outputs(network, model, {"x": values(3, 8), "flag": np.array(flag)})


def test_that_a_branch_that_is_always_taken_is_inlined(tmp_path):
    model = if_model()
    del model.graph.input[1]
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "flag"))
    network = opened(model, tmp_path)
    assert [layer.name for layer in network.summary.layers] == ["fc0", "then/fc", "fc3"]
    assert all(layer.scope == () for layer in network.summary.layers)
    same_outputs(network, model, {"x": values(3, 32)})


def test_that_a_branch_may_return_a_constant_or_an_outer_value(tmp_path):
    then = helper.make_graph([], "then", [], [tensor_info("c", [4])], [numpy_helper.from_array(values(4), "c")])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["e"])], "else", [], [tensor_info("e", [4])])
    node = helper.make_node("If", ["flag"], ["y"], then_branch=then, else_branch=other)
    model = model_of([node], [tensor_info("x", [4]), tensor_info("flag", [], TensorProto.BOOL)],
                     [tensor_info("y", [4])], {})  # fmt: skip
    network = opened(model, tmp_path)
    for flag in (True, False):
        same_outputs(network, model, {"x": values(4, seed=1), "flag": np.array(flag)})


def loop_model():
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),
            helper.make_node("MatMul", ["v", "wt"], ["m"], name="inner"),
            helper.make_node("Tanh", ["m"], ["v_out"]),
        ],
        "body",
        [tensor_info("i", [], TensorProto.INT64), tensor_info("go", [], TensorProto.BOOL), tensor_info("v", None)],
        [tensor_info("go_on", [], TensorProto.BOOL), tensor_info("v_out", None)],
    )
    node = helper.make_node("Loop", ["trips", "", "x"], ["y"], name="loop", body=body)
    constants = {"trips": np.array(3, np.int64), "w": values(8, 8)}
    return model_of([node], [tensor_info("x", ["n", 8])], [tensor_info("y", ["n", 8])], constants)


def test_that_weights_of_loops_are_folded_and_found(tmp_path):
    model = loop_model()
    network = opened(model, tmp_path)
    [layer] = network.summary.layers
    assert (layer.name, layer.scope) == ("inner", ("loop",))
    same_outputs(network, model, {"x": values(2, 8)})


def scan_model():
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["step", "w"], ["m"], name="inner"),
            helper.make_node("Add", ["m", "state"], ["state_out"]),
            helper.make_node("Identity", ["state_out"], ["each"]),
        ],
        "body",
        [tensor_info("state", [4]), tensor_info("step", [8])],
        [tensor_info("state_out", [4]), tensor_info("each", [4])],
        [numpy_helper.from_array(values(8, 4), "w")],
    )
    node = helper.make_node("Scan", ["start", "x"], ["last", "y"], name="scan", num_scan_inputs=1, body=body)
    outputs = [tensor_info("y", [5, 4]), tensor_info("last", [4])]
    return model_of([node], [tensor_info("x", [5, 8])], outputs, {"start": values(4)})


def test_that_weights_of_scans_are_found(tmp_path):
    model = scan_model()
    network = opened(model, tmp_path)
    assert [(layer.name, layer.scope) for layer in network.summary.layers] == [("inner", ("scan",))]
    same_outputs(network, model, {"x": values(5, 8)})


def test_that_a_recurrent_network_shows_gates_with_the_cost_of_each(tmp_path):
    network = opened(lstm_model(), tmp_path)
    layers = {layer.name: layer for layer in network.summary.layers}
    assert list(layers)[:4] == [f"lstm/W.forward.{gate}" for gate in ("input", "output", "forget", "cell")]
    assert layers["lstm/R.forward.cell"].rows == (48, 64)
    assert layers["lstm/R.forward.cell"].macs == 16 * 16
    assert layers["lstm/W.forward.cell"].macs == 16 * 8
    np.testing.assert_array_equal(
        network.weight(layers["lstm/R.forward.forget"]), values(1, 64, 16, seed=2, scale=0.3)[0, 32:48]
    )


MATMULS = {
    "right": (["x", "w"], (8, 5), (3, 8), 1),
    "left": (["w", "x"], (5, 8), (8, 3), 0),
    "batched": (["x", "w"], (4, 8, 5), (4, 3, 8), 2),
    "batched left": (["w", "x"], (4, 5, 8), (4, 8, 3), 1),
}


@pytest.mark.parametrize("case", MATMULS)
def test_that_matmul_has_its_channels_on_the_side_of_the_weight(tmp_path, case):
    inputs, shape, data, axis = MATMULS[case]
    model = single([helper.make_node("MatMul", inputs, ["y"], name="fc")], {"w": values(*shape)}, data, None)
    [layer] = opened(model, tmp_path).summary.layers
    assert (layer.channel_axis, layer.channels) == (axis, 5)
    assert layer.input_tensor == "x"
    assert layer.macs == 3 * 5 * 8 * (4 if len(shape) == 3 else 1)


GEMMS = {
    "plain": ({}, (8, 5), ["x", "w"], (3, 8), 1),
    "transposed": ({"transB": 1}, (5, 8), ["x", "w"], (3, 8), 0),
    "left": ({}, (5, 8), ["w", "x"], (8, 3), 0),
    "left transposed": ({"transA": 1}, (8, 5), ["w", "x"], (8, 3), 1),
}


@pytest.mark.parametrize("case", GEMMS)
def test_that_gemm_has_its_channels_on_the_side_of_the_weight(tmp_path, case):
    attributes, shape, inputs, data, axis = GEMMS[case]
    model = single(
        [helper.make_node("Gemm", inputs, ["y"], name="fc", **attributes)], {"w": values(*shape)}, data, None
    )
    [layer] = opened(model, tmp_path).summary.layers
    assert (layer.channel_axis, layer.channels, layer.macs) == (axis, 5, 120)


def test_that_a_matmul_of_two_activations_is_no_layer(tmp_path):
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    summary = opened(single(nodes, {}, (3, 8), (3, 3)), tmp_path).summary
    assert summary.layers == ()
    assert summary.warnings == ("The network has no layer with weights.",)


def test_that_an_embedding_is_a_layer_and_a_lookup_of_integers_is_none(tmp_path):
    nodes = [
        helper.make_node("Gather", ["ids", "x"], ["i"], name="lookup"),
        helper.make_node("Gather", ["table", "i"], ["y"], name="embedding"),
    ]
    model = model_of(
        nodes,
        [tensor_info("x", ["n"], TensorProto.INT64)],
        [tensor_info("y", ["n", 6])],
        {"ids": np.arange(20, dtype=np.int64), "table": values(20, 6)},
    )
    [layer] = opened(model, tmp_path).summary.layers
    assert (layer.name, layer.op, layer.channels) == ("embedding", "Gather", 20)
    assert not layer.quantizes_activations
    assert layer.input_tensor == ""


def test_that_a_table_with_infinite_values_is_marked(tmp_path):
    table = values(20, 6)
    table[3] = -np.inf
    model = model_of(
        [helper.make_node("Gather", ["table", "x"], ["y"], name="embedding")],
        [tensor_info("x", ["n"], TensorProto.INT64)],
        [tensor_info("y", ["n", 6])],
        {"table": table},
    )
    summary = opened(model, tmp_path).summary
    assert not summary.layers[0].finite
    assert summary.layers[0].keeps_float
    assert "not finite" in summary.warnings[0]


CHAINS = {
    "Identity": ([("Identity", {}, [])], lambda w: w),
    "Transpose": ([("Transpose", {"perm": [1, 0]}, [])], lambda w: w.T),
    "Cast": ([("Cast", {"to": TensorProto.FLOAT16}, []), ("Cast", {"to": TensorProto.FLOAT}, [])],
             lambda w: w.astype(np.float16).astype(np.float32)),
    "Mul": ([("Mul", {}, ["two"])], lambda w: w * 2),
    "Reshape": ([("Reshape", {}, ["shape"])], lambda w: w.reshape(16, 4)),
    "Unsqueeze and Squeeze": ([("Unsqueeze", {}, ["zero"]), ("Squeeze", {}, ["zero"])], lambda w: w),
    "Slice": ([("Slice", {}, ["zero", "four"])], lambda w: w[:4]),
    "Concat": ([("Concat", {"axis": 0}, ["w"])], lambda w: np.concatenate([w, w])),
    "Flatten": ([("Flatten", {"axis": 1}, [])], lambda w: w),
}  # fmt: skip


@pytest.mark.parametrize("chain", CHAINS)
def test_that_a_weight_computed_from_constants_is_folded(tmp_path, chain):
    steps, expected = CHAINS[chain]
    constants = {
        "w": values(8, 8),
        "two": np.array(2, np.float32),
        "shape": np.array([16, -1], np.int64),
        "zero": np.array([0], np.int64),
        "four": np.array([4], np.int64),
    }
    nodes, name = [], "w"
    for i, (op, attributes, more) in enumerate(steps):
        nodes.append(helper.make_node(op, [name, *more], [f"s{i}"], name=f"step{i}", **attributes))
        name = f"s{i}"
    weight = expected(constants["w"])
    nodes.append(helper.make_node("MatMul", ["x", name], ["y"], name="fc"))
    model = single(nodes, constants, (2, weight.shape[0]), None)
    network = opened(model, tmp_path)
    assert [node.op_type for node in network.skeleton.graph.node] == ["MatMul"]
    np.testing.assert_array_equal(network.weight(network.summary.layers[0]), weight)


def test_that_folding_stores_no_more_than_the_file(tmp_path):
    nodes = [
        helper.make_node("Expand", ["row", "shape"], ["big"]),
        helper.make_node("Mul", ["x", "big"], ["y"]),
    ]
    constants = {"row": values(1, 100), "shape": np.array([1000, 100], np.int64)}
    network = opened(single(nodes, constants, (1000, 100), None), tmp_path)
    assert [node.op_type for node in network.skeleton.graph.node] == ["Expand", "Mul"]


def test_that_random_operators_are_not_folded(tmp_path):
    nodes = [
        helper.make_node("RandomNormalLike", ["w"], ["noise"]),
        helper.make_node("MatMul", ["x", "noise"], ["y"], name="fc"),
    ]
    network = opened(single(nodes, {"w": values(8, 8)}, (2, 8), None), tmp_path)
    assert network.skeleton.graph.node[0].op_type == "RandomNormalLike"


def test_that_weights_in_constant_nodes_are_found(tmp_path):
    weight = values(40, 40)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weight)),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="fc"),
    ]
    network = opened(single(nodes, {}, (2, 40), None), tmp_path)
    np.testing.assert_array_equal(network.weight(network.summary.layers[0]), weight)


def test_that_names_of_inputs_and_outputs_are_kept_when_identities_go(tmp_path):
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["b"], name="fc"),
        helper.make_node("Identity", ["b"], ["y"]),
        helper.make_node("Identity", ["b"], ["z"]),
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Identity", ["w"], ["weight"]),
    ]
    outputs = [tensor_info(name, None) for name in ("y", "z", "same", "weight")]
    model = model_of(nodes, [tensor_info("x", [2, 8])], outputs, {"w": values(8, 8)})
    network = opened(model, tmp_path)
    same_outputs(network, model, {"x": values(2, 8)})
    session = create_session(network.skeleton, network.constants)
    assert [value.name for value in session.get_outputs()] == ["y", "z", "same", "weight"]


def test_that_an_initializer_may_be_an_output(tmp_path):
    model = single([helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], {"w": values(8, 8)}, (2, 8), None)
    model.graph.output.append(tensor_info("w", [8, 8]))
    network = opened(model, tmp_path)
    same_outputs(network, model, {"x": values(2, 8)})


def test_that_initializers_listed_as_inputs_are_no_inputs(tmp_path):
    model = mlp_model()
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(tensor_info(tensor.name, tensor.dims))
    network = opened(model, tmp_path)
    assert [info.name for info in network.summary.inputs] == ["x"]
    assert network.summary.ir_version == 3
    same_outputs(network, mlp_model(), {"x": values(2, 8)})


def test_that_unnamed_and_repeated_names_become_unique(tmp_path):
    model = mlp_model()
    for node, name in zip(model.graph.node, ["", "same", "same", "", "same_1"], strict=True):
        node.name = name
    nodes = [node.name for node in opened(model, tmp_path).skeleton.graph.node]
    assert nodes == ["Gemm_h0", "same", "same_2", "Relu_a1", "same_1"]


def test_that_functions_are_inlined(tmp_path):
    function = helper.make_function(
        "my.own", "Dense", ["a", "w"], ["r"],
        [helper.make_node("MatMul", ["a", "w"], ["m"], name="inner"), helper.make_node("Relu", ["m"], ["r"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("Dense", ["x", "w"], ["y"], domain="my.own", name="dense")],
        "g",
        [tensor_info("x", [2, 300])],
        [tensor_info("y", None)],
        [numpy_helper.from_array(values(300, 30), "w")],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("my.own", 1)]
    model = helper.make_model(graph, functions=[function], opset_imports=imports, ir_version=8)
    network = opened(model, tmp_path)
    assert [layer.shape for layer in network.summary.layers] == [(300, 30)]
    same_outputs(network, model, {"x": values(2, 300)})


def test_that_a_sparse_weight_is_made_dense(tmp_path):
    dense = np.zeros((6, 5), np.float32)
    dense[1, 2], dense[4, 0] = 3.0, -2.0
    places = np.flatnonzero(dense).astype(np.int64)
    sparse = onnx.SparseTensorProto(
        values=numpy_helper.from_array(dense.reshape(-1)[places], "w"),
        indices=numpy_helper.from_array(places),
        dims=dense.shape,
    )
    model = single([helper.make_node("MatMul", ["x", "d"], ["y"], name="fc")], {"d": dense}, (2, 6), None)
    model.graph.node[0].input[1] = "w"
    del model.graph.initializer[:]
    model.graph.sparse_initializer.append(sparse)
    network = opened(model, tmp_path)
    np.testing.assert_array_equal(network.weight(network.summary.layers[0]), dense)


def test_that_a_graph_node_is_linked_to_what_feeds_it(tmp_path):
    nodes = opened(residual_model(), tmp_path).summary.nodes
    names = [node.name for node in nodes]
    add = nodes[names.index("add0")]
    assert [names[i] for i in add.inputs] == ["conv0", "stem_relu"]
    assert nodes[names.index("conv2")].layer == "conv0"


def test_that_a_bias_added_after_a_convolution_joins_it(tmp_path):
    constants = {"w": values(6, 4, 3, 3), "b": values(6, 1, 1, seed=1)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], name="conv"), helper.make_node("Add", ["b", "c"], ["y"])]
    model = single(nodes, constants, (1, 4, 8, 8), None)
    network = opened(model, tmp_path)
    assert [node.op_type for node in network.skeleton.graph.node] == ["Conv"]
    same_outputs(network, model, {"x": values(1, 4, 8, 8)})


def test_that_a_batchnorm_others_look_past_is_kept(tmp_path):
    constants = {"w": values(6, 4, 3, 3), **{name: np.abs(values(6, seed=i)) for i, name in enumerate("sbmv")}}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], name="norm"),
        helper.make_node("Add", ["c", "n"], ["y"], name="add"),
    ]
    model = single(nodes, constants, (1, 4, 8, 8), None)
    network = opened(model, tmp_path)
    assert "BatchNormalization" in {node.op_type for node in network.skeleton.graph.node}
    same_outputs(network, model, {"x": values(1, 4, 8, 8)})


def test_that_a_weight_shared_before_two_batchnorms_is_parted(tmp_path):
    constants = {"w": values(6, 4, 1, 1), **{name: np.abs(values(6, seed=i)) + 0.1 for i, name in enumerate("sbmvtu")}}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv0"),
        helper.make_node("Conv", ["x", "w"], ["d"], name="conv1"),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"]),
        helper.make_node("BatchNormalization", ["d", "t", "b", "m", "u"], ["o"]),
        helper.make_node("Add", ["n", "o"], ["y"]),
    ]
    model = single(nodes, constants, (1, 4, 8, 8), None)
    network = opened(model, tmp_path)
    assert len(network.summary.layers) == 2
    same_outputs(network, model, {"x": values(1, 4, 8, 8)})


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_that_other_float_types_keep_theirs(tmp_path, kind):
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")],
        [tensor_info("x", [2, 40], element)],
        [tensor_info("y", [2, 30], element)],
        {"w": values(40, 30).astype(kind)},
    )
    network = opened(model, tmp_path)
    [layer] = network.summary.layers
    assert layer.dtype == np.dtype(kind).name
    assert network.weight(layer).dtype == kind
    assert network.summary.float_bytes == layer.stored_bytes == 1200 * np.dtype(kind).itemsize
    assert layer.float_bits == 8 * np.dtype(kind).itemsize


def test_that_a_weight_computed_from_sizes_and_positions_is_told_as_the_float_it_is(tmp_path) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["filled"], value=helper.make_tensor("v", 1, [1], [0.25])),
        helper.make_node("Cast", ["positions"], ["places"], to=1),
        helper.make_node("Mul", ["places", "step"], ["angles"]),
        helper.make_node("Cos", ["angles"], ["wave"]),
        helper.make_node("MatMul", ["x", "filled"], ["h"], name="first"),
        helper.make_node("MatMul", ["h", "wave"], ["y"], name="second"),
    ]
    constants = {
        "size": np.array([8, 12], np.int64),
        "positions": np.outer(np.arange(12), np.arange(6)),
        "step": np.array(0.3, np.float32),
    }
    model = model_of(nodes, [tensor_info("x", ["n", 8])], [tensor_info("y", ["n", 6])], constants)
    assert {layer.name: layer.dtype for layer in opened(model, tmp_path).summary.layers} == {
        "first": "float32",
        "second": "float32",
    }
