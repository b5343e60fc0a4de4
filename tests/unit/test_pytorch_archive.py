"""What a .pt2 file may hold, and what is refused before torch reads it."""

from __future__ import annotations

import contextlib
import json
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from quantgui.errors import NetworkError
from quantgui.network.pytorch.archive import checked_program
from quantgui.network.pytorch.program import load_program
from quantgui.network.pytorch.strings import is_operator, is_shape_expression, is_structure
from quantgui.spec.pytorch_source import PytorchOptions
from tests.pytorch_modules import Picture

TREE = '[1, {"type": "builtins.tuple", "context": "null", "children_spec": []}]'


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self.trace, "was here")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    batch = torch.export.Dim.AUTO
    exported = torch.export.export(Picture().eval(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes={"x": {0: batch}})
    torch.export.save(exported, path)
    return path


def rewritten(program: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """Copy an archive; what `change` returns for a record takes its place, None leaves it out."""
    with zipfile.ZipFile(program) as source, zipfile.ZipFile(target, "w") as copy:
        for info in source.infolist():
            content = change(info.filename.partition("/")[2], source.read(info))
            if content is not None:
                copy.writestr(info.filename, content)
    return target


def changed_graph(program: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    def edit(name: str, content: bytes) -> bytes:
        if name != "models/model.json":
            return content
        value = json.loads(content)
        change(value)
        return json.dumps(value).encode()

    return rewritten(program, target, edit)


def refusal(path: Path) -> str:
    with pytest.raises(NetworkError) as caught:
        checked_program(path)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def test_that_a_saved_program_computes_the_same_after_it_was_looked_through(program) -> None:
    live = load_program(program, PytorchOptions())
    original = torch.export.load(program).module()
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(torch.from_numpy(live.outputs([x])[0]), original(x))
    assert live.names == ("x",)
    assert live.free_axes == ((0,),)


def test_that_pickled_example_inputs_are_never_run(program, tmp_path) -> None:
    trace = tmp_path / "trace"
    evil = pickle.dumps(Evil(trace))
    path = rewritten(program, tmp_path / "evil.pt2", lambda n, c: evil if n == "data/sample_inputs/model.pt" else c)
    live = load_program(path, PytorchOptions())
    assert live.inputs[0].shape == (2, 3, 8, 8)
    assert not trace.exists()


def test_that_a_pickled_weight_is_refused(program, tmp_path) -> None:
    trace = tmp_path / "trace"

    def edit(name: str, content: bytes) -> bytes:
        if name == "data/weights/weight_0":
            return pickle.dumps(Evil(trace))
        if name == "data/weights/model_weights_config.json":
            value = json.loads(content)
            next(iter(value["config"].values()))["use_pickle"] = True
            return json.dumps(value).encode()
        return content

    assert "pickled" in refusal(rewritten(program, tmp_path / "evil.pt2", edit))
    assert not trace.exists()


def test_that_an_object_among_the_constants_is_refused(program, tmp_path) -> None:
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    listed = json.dumps({"config": {"thing": entry}}).encode()
    path = rewritten(
        program, tmp_path / "evil.pt2", lambda n, c: listed if n == "data/constants/model_constants_config.json" else c
    )
    assert "pickled" in refusal(path)


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.load_library",
        "torch.load",
        "torch.os.system",
        "torch.hub.load",
        "torch.ops.aten.from_file.default",
        "torch.ops.inline.triton.default",
        "_operator.methodcaller",
        "_operator.attrgetter",
        "math.__loader__",
        "#custom:thing",
        "os.system",
    ],
)
def test_that_a_target_that_is_no_operator_of_a_network_is_refused(program, tmp_path, target) -> None:
    def edit(value: dict[str, Any]) -> None:
        value["graph_module"]["graph"]["nodes"][0]["target"] = target

    assert "operator" in refusal(changed_graph(program, tmp_path / "evil.pt2", edit))


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "().__class__.__bases__[0].__subclasses__()",
        "s0.__class__",
        "eval(Symbol('s0'))",
        "Symbol('__import__')",
        "lambda: 1",
        "[x for x in (1, 2)]",
        "Pow(Integer(9), Pow(Integer(9), Integer(9)))",
        "9 ** 999999999",
        "open",
        "f'{s0}'",
        "s0 if s0 else s1",
    ],
)
def test_that_an_expression_that_is_no_arithmetic_of_sizes_is_refused(program, tmp_path, expression) -> None:
    assert not is_shape_expression(expression)

    def edit(value: dict[str, Any]) -> None:
        value["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0] = {
            "as_expr": {"expr_str": expression, "hint": None}
        }

    assert "expression" in refusal(changed_graph(program, tmp_path / "evil.pt2", edit))


@pytest.mark.parametrize(
    "expression",
    [
        "Symbol('s77', positive=True, integer=True)",
        "Mul(Integer(4), Symbol('s77', positive=True, integer=True))",
        "2*s0 + 1",
        "FloorDiv(s0 - 1, 2) + 1",
        "Pow(Symbol('s0', integer=True), Integer(2))",
        "Eq(Mod(s0, 8), 0)",
        "Max(1, u0)",
        "Float('0.5', precision=53)*s0",
        "-Pow(Integer(2), Integer(-1))",
    ],
)
def test_that_arithmetic_of_sizes_passes(expression) -> None:
    assert is_shape_expression(expression)


def test_that_operators_that_networks_have_pass() -> None:
    names = ["aten.conv2d.default", "aten._softmax.default", "aten.add.Tensor", "aten.__and__.Tensor"]
    assert all(is_operator(f"torch.ops.{name}") for name in names)
    assert is_operator("_operator.floordiv")
    assert is_operator("torch.sym_max")


@pytest.mark.parametrize(
    "place",
    ["name", "guards", "structure", "argument name"],
)
def test_that_no_text_becomes_code_of_the_graph(program, tmp_path, place) -> None:
    trace = tmp_path / "trace"
    code = f"__import__('pathlib').Path({str(trace)!r}).write_text('was here')"

    def edit(value: dict[str, Any]) -> None:
        graph = value["graph_module"]["graph"]
        match place:
            case "name":
                graph["inputs"][-1]["as_tensor"]["name"] = f"x={code}"
            case "guards":
                value["guards_code"] = [code]
            case "structure":
                signature = value["graph_module"]["module_call_graph"][0]["signature"]
                signature["in_spec"] = TREE.replace("builtins.tuple", "collections.defaultdict").replace(
                    "null", '{"default_factory_module": "antigravity", "default_factory_name": "fly"}'
                )
            case "argument name":
                value["graph_module"]["module_call_graph"][0]["signature"]["forward_arg_names"] = [f"x={code}"]

    path = changed_graph(program, tmp_path / "evil.pt2", edit)
    if place == "guards":
        load_program(path, PytorchOptions())  # they are left out
    else:
        refusal(path)
    assert not trace.exists()


def test_that_structures_are_tuples_lists_and_dicts() -> None:
    assert is_structure(TREE)
    assert not is_structure(TREE.replace("builtins.tuple", "collections.defaultdict"))
    assert not is_structure(TREE.replace('"null"', '"[{\\"__enum__\\": \\"os:x\\"}]"'))


def test_that_records_with_paths_out_of_the_archive_are_refused(program, tmp_path) -> None:
    for name in ("net/../../evil", "/net/models/model.json", "net/a\\b", "C:/net/x"):
        path = tmp_path / "evil.pt2"
        path.write_bytes(program.read_bytes())
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, b"")
        refusal(path)


def test_that_an_archive_that_unpacks_to_more_than_it_is_is_refused(program, tmp_path) -> None:
    path = tmp_path / "bomb.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/models/model.json", b"0" * 10_000_000)
    assert "more than it is" in refusal(path)


def test_that_a_record_that_is_there_twice_is_refused(program, tmp_path) -> None:
    path = tmp_path / "twice.pt2"
    path.write_bytes(program.read_bytes())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(archive.namelist()[0], b"")
    assert "twice" in refusal(path)


def test_that_other_files_are_named_for_what_they_are(program, tmp_path) -> None:
    state, script, text = tmp_path / "state.pt2", tmp_path / "script.pt2", tmp_path / "text.pt2"
    torch.save(Picture().state_dict(), state)
    with zipfile.ZipFile(script, "w") as archive:
        archive.writestr("net/constants.pkl", b"")
        archive.writestr("net/code/__torch__.py", b"")
    text.write_text("hello")
    assert "weights" in refusal(state)
    assert "TorchScript" in refusal(script)
    assert "no program" in refusal(text)
    assert "no file" in refusal(tmp_path / "nowhere.pt2")


def test_that_a_program_cut_short_gives_a_sentence(program, tmp_path) -> None:
    content = program.read_bytes()
    for size in range(0, len(content), max(1, len(content) // 40)):
        path = tmp_path / "short.pt2"
        path.write_bytes(content[:size])
        refusal(path)


def test_that_missing_weights_are_told(program, tmp_path) -> None:
    path = rewritten(program, tmp_path / "gap.pt2", lambda n, c: None if n == "data/weights/weight_0" else c)
    assert "no values" in refusal(path)


def test_that_a_program_with_changed_entries_gives_a_sentence_or_a_program(program, tmp_path) -> None:
    choice = random.Random(5)
    values = ("x", "lambda", "", None, 0, -1, 1 << 70, 1.5, [], {}, "torch.ops.aten.relu.default", {"as_int": -5})

    def entries(value: Any) -> list[tuple[Any, Any]]:
        keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        return [place for key in keys for place in ((value, key), *entries(value[key]))]

    def edit(value: dict[str, Any]) -> None:
        holder, key = choice.choice(entries(value))
        if choice.random() < 0.3:
            del holder[key]
        else:
            holder[key] = choice.choice(values)

    for _ in range(40):
        path = changed_graph(program, tmp_path / "changed.pt2", edit)
        with contextlib.suppress(NetworkError):
            load_program(path, PytorchOptions())
