"""The user's module: found, made, filled with weights; what goes wrong is one sentence."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from quantgui.errors import NetworkError, QuantGuiError, SpecError
from quantgui.network.pytorch import converted
from quantgui.network.pytorch.module import code_parts, example_inputs, load_module
from quantgui.network.pytorch.opening import read_pytorch
from quantgui.network.pytorch.weights import fill, fill_from, read_sets, read_weights
from quantgui.spec.pytorch_source import (
    ExampleInput,
    PytorchOptions,
    is_factory,
    options_from_json,
    options_to_json,
    read_axes,
    read_example_input,
    split_factory,
)
from tests.pytorch_modules import Picture, picture

FILE = str(Path(__file__).parents[1] / "pytorch_modules.py")


def sentence(reference: str, **options: object) -> str:
    with pytest.raises(QuantGuiError) as caught:
        list(read_pytorch(reference, PytorchOptions(**{"trusted": True, **options}), Path("unused")))
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text
    return text


# --- what is named -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("pkg.module:factory", ("pkg.module", "factory")),
        ("net.py:make", ("net.py", "make")),
        ("/a b/net.py:make", ("/a b/net.py", "make")),
        ("C:\\nets\\net.py:make", ("C:\\nets\\net.py", "make")),
        ("net.onnx", None),
        ("C:\\net.onnx", None),
        ("random:4", None),
        ("a/b:c", None),
        ("net.py:", None),
    ],
)
def test_that_factories_are_told_from_files(text, split) -> None:
    assert split_factory(text) == split
    assert is_factory(text) == (split is not None)


def test_that_example_inputs_are_read_as_they_are_written() -> None:
    for text, shape, dtype in (("1x3x8x8", (1, 3, 8, 8), "float32"), ("1x128:int64", (1, 128), "int64")):
        assert read_example_input(text) == ExampleInput(shape, dtype)
        assert str(read_example_input(text)) == text
    assert read_example_input("scalar").shape == ()
    for wrong in ("", "3x", "0x3", "1x3:float", "axb", "999999999x999999999", "-1x2"):
        with pytest.raises(SpecError):
            read_example_input(wrong)


def test_that_axes_are_read_as_they_are_written() -> None:
    assert read_axes("0,2,3") == (0, 2, 3)
    assert read_axes("none") == ()
    with pytest.raises(SpecError):
        read_axes("batch")


def test_that_options_survive_json() -> None:
    options = PytorchOptions("w.pth", True, (ExampleInput((1, 2), "int64"),), "d.npz", ((0, 1), ()), "old")
    assert options_from_json(options_to_json(options)) == options
    assert options_from_json(None) is None
    with pytest.raises(SpecError):
        options_from_json({"weights": "w"})


# --- the code ----------------------------------------------------------------------------------------------------


def test_that_no_code_is_run_without_consent(tmp_path) -> None:
    trace = tmp_path / "trace"
    code = tmp_path / "net.py"
    code.write_text(f"open({str(trace)!r}, 'w').write('was here')\n")
    assert "agree to that" in sentence(f"{code}:make", trusted=False)
    assert not trace.exists()


def test_that_what_cannot_be_made_is_told(tmp_path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def make(:\n")
    needs = tmp_path / "needs.py"
    needs.write_text("import no_such_package_at_all\n")
    leaves = tmp_path / "leaves.py"
    leaves.write_text("raise SystemExit(3)\n")
    assert "did you mean 'picture'" in sentence(f"{FILE}:pictur")
    assert "ZeroDivisionError: no luck" in sentence(f"{FILE}:broken")
    assert "returned int" in sentence(f"{FILE}:number")
    assert "line 1" in sentence(f"{bad}:make")
    assert "no_such_package_at_all" in sentence(f"{needs}:make")
    assert "SystemExit" in sentence(f"{leaves}:make")
    assert "There is no file" in sentence(f"{tmp_path / 'none.py'}:make")
    assert "There is no module 'no_such_module'" in sentence("no_such_module:make")


def test_that_a_module_beside_the_working_folder_is_found(tmp_path, monkeypatch) -> None:
    (tmp_path / "beside_it.py").write_text("from torch import nn\ndef make():\n    return nn.Linear(2, 3)\n")
    monkeypatch.chdir(tmp_path)
    module, brought = load_module("beside_it:make")
    assert module.weight.shape == (3, 2)
    assert brought is None


def test_that_a_shape_is_asked_for_where_none_is_known() -> None:
    assert "1x3x224x224 for each input" in sentence(f"{FILE}:picture")
    assert "does not run on example inputs of x (1, 5)" in sentence(f"{FILE}:picture", inputs=(ExampleInput((1, 5)),))


def test_that_example_inputs_come_from_the_options_the_factory_or_the_data(tmp_path) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, labels=np.zeros(4, np.int64), x=np.zeros((4, 3, 8, 8)))
    module, brought = load_module(f"{FILE}:with_inputs")
    described = PytorchOptions(inputs=(ExampleInput((1, 3, 4, 4)),), data=str(data))
    assert example_inputs(module, brought, described)[0].shape == (1, 3, 4, 4)
    assert example_inputs(module, brought, PytorchOptions(data=str(data)))[0].shape == (1, 3, 16, 16)
    first = example_inputs(module, None, PytorchOptions(data=str(data)))[0]
    assert (first.shape, first.dtype) == ((2, 3, 8, 8), torch.float32)


# --- weights -----------------------------------------------------------------------------------------------------


def test_that_weights_are_read_from_every_kind_of_file(tmp_path) -> None:
    state = picture().state_dict()
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "checkpoint.pt")
    save_file(state, tmp_path / "safe.safetensors")
    for name in ("plain.pth", "checkpoint.pt", "safe.safetensors"):
        module = Picture()
        fill(module, read_weights(tmp_path / name), name)
        for key, values in module.state_dict().items():
            assert torch.equal(values, state[key])


def test_that_weights_that_do_not_fit_are_named_with_the_nearest() -> None:
    state = picture().state_dict()
    state["blocks.0.conv.weight"] = state.pop("blocks.0.conv1.weight")
    with pytest.raises(NetworkError, match=r"lacks 'blocks.0.conv1.weight' \(the file has 'blocks.0.conv.weight'\)"):
        fill(Picture(), state, "w.pth")
    state = picture().state_dict()
    state["head.weight"] = torch.zeros(7, 8)
    with pytest.raises(NetworkError, match=r"'head.weight' has the shape \(7, 8\)"):
        fill(Picture(), state, "w.pth")


def test_that_files_that_are_no_weights_are_refused_unread(tmp_path) -> None:
    trace = tmp_path / "trace"

    class Evil:
        def __reduce__(self):
            return Path.write_text, (trace, "was here")

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    torch.save(picture(), tmp_path / "module.pt")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "bad.safetensors").write_text("hello")
    torch.save({"a": 1}, tmp_path / "numbers.pth")
    for name, said in (
        ("evil.pth", "may run code"), ("module.pt", "state_dict"), ("text.pth", "text.pth"),
        ("bad.safetensors", "damaged"), ("numbers.pth", "no weights by name"), ("none.pth", "no file"),
    ):  # fmt: skip
        with pytest.raises(NetworkError, match=said) as caught:
            read_weights(tmp_path / name)
        assert str(caught.value).endswith(".")
    assert not trace.exists()


def test_that_torchscript_is_refused_with_what_to_do(tmp_path) -> None:
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.trace(picture().eval(), torch.zeros(1, 3, 8, 8)), path)
    with pytest.raises(NetworkError, match=r"TorchScript.*torch.export.save"):
        read_weights(path)


# --- what is kept -------------------------------------------------------------------------------------------------


def test_that_kept_forms_are_whole_and_bounded(tmp_path) -> None:
    about = converted.Converted(tmp_path, "old", ("axis 1 of 'x' at 5",), 1e-7, ("A note.",))
    first = converted.store(tmp_path, "one", b"x" * 100, about)
    found = converted.find(tmp_path, "one")
    assert found == first
    assert found.notes == ("A note.",)
    converted.store(tmp_path, "two", b"y" * 100, about, most_bytes=150)
    assert converted.find(tmp_path, "one") is None
    assert converted.find(tmp_path, "two").path.read_bytes() == b"y" * 100
    (tmp_path / "two.onnx").write_bytes(b"y")
    assert converted.find(tmp_path, "two") is None
    assert not list(tmp_path.glob(".*"))


def test_that_a_change_in_code_or_weights_is_another_network(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts_of_net.py").write_text("SIZE = 3\ndef size():\n    return SIZE\n")
    code = tmp_path / "net_of_parts.py"
    code.write_text(
        "from parts_of_net import size\nfrom torch import nn\ndef make():\n    return nn.Linear(2, size())\n"
    )

    def key() -> str:
        torch.manual_seed(0)
        module, _ = load_module(f"{code}:make")
        return converted.hash_of(code_parts(f"{code}:make", module))

    first = key()
    assert key() == first
    (tmp_path / "parts_of_net.py").write_text("SIZE = 3\ndef size():\n    return SIZE  # still\n")
    second = key()
    assert second != first
    code.write_text(code.read_text().replace("Linear(2, size())", "Linear(2, size(), bias=False)"))
    assert key() not in (first, second)


# --- checkpoints of trainers -------------------------------------------------------------------------------------


def saved(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path)
    return path


def shifted(by: float, prefix: str = "") -> dict[str, torch.Tensor]:
    return {f"{prefix}{k}": v + by if v.is_floating_point() else v for k, v in picture().state_dict().items()}


def is_filled(module: torch.nn.Module, by: float) -> bool:
    wanted = shifted(by)
    return all(torch.equal(values, wanted[name]) for name, values in module.state_dict().items())


@pytest.mark.parametrize("prefix", ["net.", "encoder.body.", "module._orig_mod."])
def test_that_any_prefix_of_all_weights_is_taken_off_and_others_beside_them_are_told(tmp_path, prefix) -> None:
    module = Picture()
    path = saved(tmp_path, {"state_dict": {"loss.weight": torch.ones(3), **shifted(0.5, prefix)}})
    (note,) = fill_from(module, read_sets(path))
    assert note == "Of the weights of 'checkpoint.pth', 1 is not of the module ('loss.weight'), and left out."
    assert is_filled(module, 0.5)


@pytest.mark.parametrize("key", ["ema", "student", "params_ema", "network"])
def test_that_weights_are_found_under_any_name(tmp_path, key) -> None:
    module = Picture()
    assert fill_from(module, read_sets(saved(tmp_path, {key: shifted(0.5), "steps": torch.tensor(3)}))) == ()
    assert is_filled(module, 0.5)


def test_that_several_sets_of_weights_are_told(tmp_path) -> None:
    module = Picture()
    path = saved(tmp_path, {"model_ema": shifted(2), "optimizer": {"state": {}}, "model": shifted(0.5)})
    (note,) = fill_from(module, read_sets(path))
    assert "those of 'model' are opened, not those of 'model_ema'" in note
    assert is_filled(module, 0.5)


class Settings:
    """What a trainer keeps beside the weights; making it again leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.write_text, (self.trace, "was here")


def test_that_settings_beside_the_weights_are_not_read(tmp_path) -> None:
    trace, module = tmp_path / "trace", Picture()
    beside = {"best": np.float64(0.9), "args": argparse.Namespace(rate=0.1), "history": np.arange(3)}
    fill_from(module, read_sets(saved(tmp_path, {"model": shifted(0.5), **beside})))
    assert is_filled(module, 0.5)
    for content in (Settings(trace), {"model": Settings(trace)}, {"model": picture()}):
        with pytest.raises(NetworkError, match="holds more than weights"):
            read_sets(saved(tmp_path, content))
    assert not trace.exists()
