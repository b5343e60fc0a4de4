"""Network files that are missing, damaged or hostile give one sentence, and nothing outside their folder is read."""

from __future__ import annotations

import os
import pickle
import random
import zipfile
from contextlib import suppress

import numpy as np
import onnx
import psutil
import pytest
from builders import mlp_model, model_of, tensor_info, values
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from quantgui.errors import NetworkError
from quantgui.network import files
from quantgui.network.batch import Batch
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.network.session import create_session
from quantgui.network.simulation import Simulation, TensorQuantizer
from quantgui.spec.formats import IntFormat


def message_of(path) -> str:
    with pytest.raises(NetworkError) as caught:
        open_network(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith((".", "')."))
    assert len(text) < 400
    return text


def saved(model, path):
    path.write_bytes(model.SerializeToString())
    return path


def external(path, location, *, offset=0, length=None, size=8):
    """Save a network whose weight (64 x size) lies in the file `location`."""
    weight = values(64, size)
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")],
        [tensor_info("x", ["n", 64])],
        [tensor_info("y", ["n", size])],
        {"w": weight},
    )
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": str(offset), "length": str(length or weight.nbytes)}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    saved(model, path)
    return weight


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello, this is no network at all" * 10, "no ONNX network"),
        (b"\0" * 1000, "no ONNX network"),
        (pickle.dumps({"weight": [1.0, 2.0]}), "pickle"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "Keras"),
        (b"GGUF" + b"\0" * 100, "GGUF"),
        (b"\x1c\0\0\0TFL3" + b"\0" * 100, "TensorFlow Lite"),
        (b"\x1c\0\0\0ORTM" + b"\0" * 100, "ONNX Runtime's own format"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
    ],
)
def test_that_a_file_that_is_no_network_is_named_for_what_it_is(tmp_path, content, words):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    assert words in message_of(path)


def test_that_a_zip_as_pytorch_writes_it_is_not_unpacked(tmp_path):
    path = tmp_path / "net.onnx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"cos\nsystem\n(S'exit 1'\ntR.")
    assert "not opened" in message_of(path)


def test_that_missing_files_and_folders_are_named(tmp_path):
    assert "no file" in message_of(tmp_path / "nowhere.onnx")
    assert "folder" in message_of(tmp_path)


def test_that_a_file_cut_short_anywhere_gives_a_sentence(tmp_path):
    content = mlp_model((8, 128, 128, 4)).SerializeToString()
    path = tmp_path / "net.onnx"
    for size in {*range(1, len(content), len(content) // 60), len(content) - 1}:
        path.write_bytes(content[:size])
        message_of(path)


def test_that_flipped_bytes_give_a_sentence_or_a_network(tmp_path):
    content = mlp_model((8, 16, 4)).SerializeToString()
    path = tmp_path / "net.onnx"
    chance = random.Random(0)
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        with suppress(NetworkError):
            open_network(path)


@pytest.mark.parametrize(
    "location", ["../weights.bin", "a/../../weights.bin", "..\\weights.bin", "", "C:\\weights.bin"]
)
def test_that_external_data_outside_the_folder_is_refused(tmp_path, location):
    folder = tmp_path / "folder"
    (folder / "a").mkdir(parents=True)
    (tmp_path / "weights.bin").write_bytes(b"\0" * 4096)
    external(folder / "net.onnx", location)
    assert "outside the network's folder" in message_of(folder / "net.onnx")


def test_that_absolute_external_data_is_refused_even_inside_the_folder(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"\0" * 4096)
    external(tmp_path / "net.onnx", str(tmp_path / "weights.bin"))
    assert "outside the network's folder" in message_of(tmp_path / "net.onnx")


def test_that_a_link_out_of_the_folder_is_refused(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(b"\0" * 4096)
    os.symlink(tmp_path / "weights.bin", folder / "weights.bin")
    external(folder / "net.onnx", "weights.bin")
    assert "outside the network's folder" in message_of(folder / "net.onnx")


def test_that_missing_and_short_external_data_is_named(tmp_path):
    external(tmp_path / "net.onnx", "weights.bin")
    assert "'weights.bin' of the network is missing" in message_of(tmp_path / "net.onnx")
    (tmp_path / "weights.bin").write_bytes(b"\0" * 100)
    assert "damaged or incomplete" in message_of(tmp_path / "net.onnx")
    external(tmp_path / "net.onnx", "weights.bin", length=4)
    assert "damaged or incomplete" in message_of(tmp_path / "net.onnx")


def test_that_external_data_is_mapped_and_gives_the_values(tmp_path):
    weight = external(tmp_path / "net.onnx", "data/weights.bin", offset=4096)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/weights.bin").write_bytes(b"\1" * 4096 + weight.tobytes())
    network = open_network(tmp_path / "net.onnx")
    [layer] = network.summary.layers
    stored = network.weight(layer)
    np.testing.assert_array_equal(stored, weight)
    assert not stored.flags.owndata
    assert not stored.flags.writeable
    assert network.summary.file_bytes > 4096 + weight.nbytes


def test_that_a_network_of_more_than_two_gigabytes_opens_without_being_read(tmp_path):
    size = 1 << 29  # floats: 2 GiB
    (tmp_path / "weights.bin").touch()
    os.truncate(tmp_path / "weights.bin", size * 4 + 4096)
    external(tmp_path / "net.onnx", "weights.bin", offset=4096)
    model = onnx.load(tmp_path / "net.onnx", load_external_data=False)
    model.graph.initializer[0].dims[:] = [64, size // 64]
    model.graph.initializer[0].external_data[2].value = str(size * 4)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = size // 64
    saved(model, tmp_path / "net.onnx")
    before = resident_bytes()
    network = open_network(tmp_path / "net.onnx")
    assert network.summary.parameters == size
    assert network.summary.file_bytes > 1 << 31
    assert not network.constants["w"].flags.owndata
    # Pages of the mapped file may be resident, but no copy of them.
    assert resident_bytes() - before < 200 << 20


def resident_bytes() -> int:
    """Return the memory of this process that is not backed by a file."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))


def test_that_a_cyclic_graph_is_refused(tmp_path):
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="second"),
        helper.make_node("Relu", ["b"], ["y"], name="third"),
    ]
    graph = helper.make_graph(nodes, "g", [tensor_info("x", [4])], [tensor_info("y", [4])])
    assert "cyclic" in message_of(saved(helper.make_model(graph), tmp_path / "net.onnx"))


def test_that_nodes_in_any_order_are_sorted(tmp_path):
    model = mlp_model()
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    network = open_network(saved(model, tmp_path / "net.onnx"))
    assert [layer.name for layer in network.summary.layers] == ["fc0", "fc1", "fc2"]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (helper.make_node("Frobnicate", ["x"], ["y"]), "operator Frobnicate"),
        (helper.make_node("Frobnicate", ["x"], ["y"], domain="my.own"), "Frobnicate"),
        (helper.make_node("Relu", ["nowhere"], ["y"]), "'nowhere'"),
        (helper.make_node("Relu", ["x"], ["x"]), "twice"),
    ],
)
def test_that_a_node_that_cannot_be_run_is_named(tmp_path, node, words):
    graph = helper.make_graph([node], "g", [tensor_info("x", [4])], [tensor_info(node.output[0], [4])])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("my.own", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    assert words in message_of(saved(model, tmp_path / "net.onnx"))


@pytest.mark.parametrize("name", ["two\nlines", "zero\0byte"])
def test_that_names_that_are_no_text_are_refused(tmp_path, name):
    model = mlp_model()
    model.graph.node[0].name = name
    assert "no text" in message_of(saved(model, tmp_path / "net.onnx"))


def test_that_a_newer_opset_is_named(tmp_path):
    model = mlp_model()
    model.opset_import[0].version = 99
    assert "99" in message_of(saved(model, tmp_path / "net.onnx"))


def test_that_the_newest_opset_runs_and_is_quantized_as_the_one_before(tmp_path):
    # ONNX Runtime 1.32 reads opset 28 and has no kernels for its Cast and QuantizeLinear.
    results = []
    for opset in (27, 28):
        nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Cast", ["a"], ["y"], to=TensorProto.DOUBLE)]
        outputs = [tensor_info("y", [2, 8], TensorProto.DOUBLE)]
        model = model_of(nodes, [tensor_info("x", [2, 8])], outputs, {}, opset=opset)
        network = open_network(saved(model, tmp_path / f"{opset}.onnx"))
        batch = Batch({"x": values(2, 8)}, None, 0, 2, "two samples")
        quantizer = TensorQuantizer(IntFormat(8), 0.01, 0, frozenset({"Cast_1"}))
        executor = Executor(network)
        (expected,) = ReferenceEvaluator(model).run(None, batch.inputs)
        np.testing.assert_array_equal(executor.run(batch)["y"], expected)
        results.append(executor.run(batch, Simulation(quantizers={"a": (quantizer,)}))["y"])
        np.testing.assert_allclose(results[-1], np.minimum(np.rint(expected / 0.01), 127) * 0.01, rtol=1e-6)
    np.testing.assert_array_equal(*results)


def test_that_what_only_the_newest_opset_has_is_refused(tmp_path):
    node = helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=2, mode="CRD")
    model = model_of([node], [tensor_info("x", [1, 4, 4, 4])], [tensor_info("y", [1, 16, 2, 2])], {}, opset=28)
    assert "mode" in message_of(saved(model, tmp_path / "net.onnx"))


@pytest.mark.parametrize("dims", [[1 << 40, 8], [64, 9], [-64, 8], [1 << 62, 1 << 62]])
def test_that_a_tensor_whose_shape_and_data_differ_is_refused(tmp_path, dims):
    model = mlp_model((64, 8))
    model.graph.initializer[0].dims[:] = dims
    assert "damaged" in message_of(saved(model, tmp_path / "net.onnx"))


@pytest.mark.parametrize("field", ["float_data", "raw_data"])
def test_that_a_small_tensor_with_missing_values_is_refused(tmp_path, field):
    model = mlp_model((64, 8))
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    if field == "float_data":
        tensor.float_data.extend([1.0, 2.0])
    else:
        tensor.raw_data = b"123"
    assert "damaged" in message_of(saved(model, tmp_path / "net.onnx"))


@pytest.mark.parametrize("op", ["ConstantOfShape", "Expand", "Tile"])
def test_that_a_network_that_asks_for_any_amount_of_memory_is_refused(tmp_path, op):
    inputs = {"ConstantOfShape": ["shape"], "Expand": ["one", "shape"], "Tile": ["one", "shape"]}[op]
    nodes = [helper.make_node(op, inputs, ["huge"]), helper.make_node("Add", ["x", "huge"], ["y"])]
    shape = np.array([1 << 20, 1 << 20], np.int64)
    constants = {"shape": shape, "one": np.ones((1, 1), np.float32)}
    graph = helper.make_graph(
        nodes,
        "g",
        [tensor_info("x", [1])],
        [tensor_info("y", None)],
        [numpy_helper.from_array(constants[name], name) for name in inputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert "more than fit into memory" in message_of(saved(model, tmp_path / "net.onnx"))


def test_that_a_loop_without_end_does_not_hold_up_opening(tmp_path):
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("MatMul", ["v", "w"], ["v_out"])],
        "body",
        [tensor_info("i", [], TensorProto.INT64), tensor_info("go", [], TensorProto.BOOL), tensor_info("v", None)],
        [tensor_info("go_on", [], TensorProto.BOOL), tensor_info("v_out", None)],
        [numpy_helper.from_array(values(8, 8), "w")],
    )
    model = model_of(
        [helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body)],
        [tensor_info("x", ["n", 8])],
        [tensor_info("y", ["n", 8])],
        {"trips": np.array(1 << 62, np.int64)},
    )
    [layer] = open_network(saved(model, tmp_path / "net.onnx")).summary.layers
    assert layer.scope == ("Loop_0",)


def test_that_raw_data_of_large_tensors_is_not_parsed_with_the_structure(tmp_path):
    weight = values(300, 300)
    model = mlp_model((300, 300))
    model.graph.initializer[0].raw_data = weight.tobytes()
    file = files.read_file(saved(model, tmp_path / "net.onnx"))
    assert file.model.ByteSize() < 5000
    np.testing.assert_array_equal(file.array(file.model.graph.initializer[0]), weight)
    values_of_bias = file.array(file.model.graph.initializer[1])
    np.testing.assert_array_equal(values_of_bias, numpy_helper.to_array(model.graph.initializer[1]))


def test_that_the_fingerprint_changes_with_any_byte(tmp_path):
    model = mlp_model((64, 64))
    path = saved(model, tmp_path / "net.onnx")
    first = open_network(path).summary.fingerprint
    assert open_network(path).summary.fingerprint == first
    raw = bytearray(model.graph.initializer[0].raw_data)
    raw[7777] ^= 1
    model.graph.initializer[0].raw_data = bytes(raw)
    assert open_network(saved(model, path)).summary.fingerprint != first


def test_that_opened_weights_in_external_data_take_no_memory_until_they_are_used(tmp_path):
    weight = external(tmp_path / "net.onnx", "weights.bin", size=250_001)  # 64 MB, no whole number of pages
    (tmp_path / "weights.bin").write_bytes(weight.tobytes())
    before = psutil.Process().memory_info().rss
    network = open_network(tmp_path / "net.onnx")
    assert psutil.Process().memory_info().rss - before < 0.5 * weight.nbytes
    np.testing.assert_array_equal(network.constants["w"], weight)


def test_that_the_fingerprint_covers_external_data(tmp_path):
    weight = external(tmp_path / "net.onnx", "weights.bin")
    (tmp_path / "weights.bin").write_bytes(weight.tobytes())
    first = open_network(tmp_path / "net.onnx").summary.fingerprint
    weight[63, 7] += 1
    (tmp_path / "weights.bin").write_bytes(weight.tobytes())
    assert open_network(tmp_path / "net.onnx").summary.fingerprint != first


def test_that_overwriting_a_small_file_does_not_pull_the_weights_away(tmp_path):
    model = mlp_model((64, 64))
    path = saved(model, tmp_path / "net.onnx")
    network = open_network(path)
    before = {name: np.array(array) for name, array in network.constants.items()}
    os.truncate(path, 0)
    session = create_session(network.skeleton, network.constants)
    x = values(1, 64)
    got = session.run(None, {"x": x})[0]
    np.testing.assert_allclose(got, x @ before["w0"].T + before["b0"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT4])
@pytest.mark.parametrize("raw", [True, False])
def test_that_every_way_to_store_a_tensor_gives_its_values(tmp_path, kind, raw):
    numpy_type = helper.tensor_dtype_to_np_dtype(kind)
    array = np.arange(-8, 7).repeat(3).reshape(5, 9).astype(numpy_type)
    tensor = (
        numpy_helper.from_array(array, "t")
        if raw
        else helper.make_tensor("t", kind, array.shape, array.reshape(-1).tolist())
    )
    network_file = files.read_file(saved(mlp_model(), tmp_path / "net.onnx"))
    np.testing.assert_array_equal(network_file.array(tensor).astype(np.float32), array.astype(np.float32))


def test_that_python_code_is_asked_for_the_function_that_makes_the_network(tmp_path):
    path = tmp_path / "net.py"
    path.write_text("def make():\n    pass\n")
    assert "net.py:function" in message_of(path)
