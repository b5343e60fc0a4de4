"""Modules that are called in other ways, or decide as they run: what becomes of them, and what is said of it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from quantgui.errors import NetworkError
from quantgui.network.pytorch.calls import as_inputs
from quantgui.network.pytorch.export import Form, export
from quantgui.network.pytorch.live import Live, live_module
from quantgui.network.pytorch.module import inputs_from_data
from quantgui.network.reader import read_network
from quantgui.network.session import create_session
from quantgui.spec.pytorch_source import Exporter, PytorchOptions
from tests import pytorch_calls as calls


def _form(
    module: nn.Module, inputs: Any, axes: tuple[int, ...] = (0,), exporter: Exporter = "auto"
) -> tuple[Live, Form]:
    torch.manual_seed(0)
    options = PytorchOptions(free_axes=(axes,), exporter=exporter)
    live = live_module(module, as_inputs(inputs, "the test"), options)
    exporting = export(live, exporter)
    while True:
        try:
            next(exporting)
        except StopIteration as stop:
            return live, stop.value


def _ran(form: Form, **feed: Tensor) -> list[np.ndarray]:
    return create_session(form.model, {}).run(None, {name: values.numpy() for name, values in feed.items()})


def _equal(found: list[np.ndarray], *wanted: Tensor) -> None:
    assert len(found) == len(wanted)
    for first, second in zip(found, wanted, strict=True):
        np.testing.assert_allclose(first, second.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_that_inputs_by_name_and_outputs_that_are_no_tensors_go_through() -> None:
    module, x, shift = calls.Answers(), torch.randn(2, 8), torch.randn(2, 6)
    wanted = module(x, shift=shift)
    live, form = _form(module, {"shift": shift, "x": x})
    assert live.names == ("x", "shift")
    assert form.notes == ("Outputs that are no tensors are left out (int).",)
    _equal(_ran(form, x=x, shift=shift), wanted["scores"], wanted["hidden"][0])


def test_that_inputs_in_tuples_go_through() -> None:
    module, x = calls.Remembers(), torch.randn(2, 3, 4)
    state = (torch.randn(1, 2, 5), torch.randn(1, 2, 5))
    wanted, (hidden, cell) = module(x, state)
    live, form = _form(module, (x, state), axes=())
    assert live.names == ("x", "state_0", "state_1")
    _equal(_ran(form, x=x, state_0=state[0], state_1=state[1]), wanted, hidden, cell)


def test_that_inputs_of_a_file_go_by_the_names_of_arguments_that_may_be_left_out(tmp_path: Path) -> None:
    module, x, shift = calls.Answers(), np.ones((3, 8), np.float32), np.ones((3, 6), np.float32)
    np.savez(tmp_path / "named.npz", shift=shift, x=x)
    (found,) = inputs_from_data(module, tmp_path / "named.npz")
    assert sorted(found) == ["shift", "x"]
    np.savez(tmp_path / "first.npz", x=x)
    (only,) = inputs_from_data(module, tmp_path / "first.npz")
    assert only.shape == (2, 8)


def test_that_example_inputs_of_another_kind_are_refused() -> None:
    with pytest.raises(NetworkError, match="must be tensors, in the order of forward or in a dict by its names"):
        as_inputs((torch.zeros(1), object()), "the test")


def test_that_a_module_that_changes_its_buffers_is_told_of_and_held_against_what_it_was() -> None:
    module, x = calls.Streams(), torch.randn(2, 2, 6)
    live, form = _form(module, x, axes=(2,))
    assert not form.frozen
    assert form.difference < 1e-5
    assert any("changes its 'past' whenever it runs" in note for note in form.notes)
    first, second = live.outputs([x]), live.outputs([x])
    np.testing.assert_array_equal(first[0], second[0])
    assert not module.past.any()


def test_that_a_module_that_answers_differently_each_time_is_told_of() -> None:
    _, form = _form(calls.Draws(), torch.randn(2, 4))
    assert any("answers the same inputs differently each time" in note for note in form.notes)
    assert not form.frozen


def test_that_code_that_decides_by_numbers_keeps_both_ways() -> None:
    module, x = calls.Decides(), torch.ones(2, 4)
    _, form = _form(module, x)
    assert form.exporter == "old"
    _equal(_ran(form, x=x), module.bright(x))
    _equal(_ran(form, x=-x), module.dark(-x))


def test_that_code_whose_decision_cannot_be_kept_is_refused_unless_asked_for() -> None:
    with pytest.raises(NetworkError, match="decides by the numbers of its input") as refused:
        _form(calls.DecidesInPython(), torch.ones(2, 4))
    assert refused.value.option == "--exporter old"
    assert "--" not in str(refused.value)
    _, form = _form(calls.DecidesInPython(), torch.ones(2, 4), exporter="old")
    assert "for other inputs it computes something else" in form.notes[0]


def test_that_a_loop_over_time_stays_one_where_its_code_can_be_compiled() -> None:
    module = calls.Steps()
    _, form = _form(module, torch.randn(2, 4, 3), axes=(0, 1))
    assert not form.frozen
    assert form.exporter == "old"
    longer = torch.randn(3, 9, 3)
    _equal(_ran(form, x=longer), module(longer))
    assert {"into", "state", "out"} <= {node.name for graph in _graphs(form) for node in graph.node}


def _graphs(form: Form) -> list[Any]:
    from quantgui.network.surgery import all_graphs

    return list(all_graphs(form.model.graph))


def test_that_a_loop_that_no_exporter_keeps_is_told_of_and_its_weights_have_names() -> None:
    _, form = _form(calls.Cells(), torch.randn(2, 3, 3), axes=(0, 1))
    assert form.frozen == ("axis 1 of 'x' at 3",)
    assert any("No exporter of PyTorch keeps axis 1 of 'x' at 3 free" in note for note in form.notes)
    assert {"cell.weight_ih", "cell.weight_hh"} <= {node.name for node in form.model.graph.node}


def test_that_an_axis_the_old_exporter_fixes_is_told_of_where_the_new_one_fails() -> None:
    inputs = (torch.randn(2, 5, 3), torch.tensor([5, 3]))
    _, form = _form(calls.packed(), inputs, axes=(0, 1))
    assert form.frozen == ("axis 1 of 'x' at 5",)
    assert len(form.notes) == 2
    assert "keeps axis 1 of 'x' at 5 free" in form.notes[1]


def test_that_a_failing_exporter_prints_nothing_to_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    _form(calls.Cells(), torch.randn(2, 3, 3), axes=(0, 1), exporter="old")
    assert capfd.readouterr().out == ""


def test_that_a_compiled_module_opens() -> None:
    module = torch.jit.script(calls.Steps())
    _, form = _form(module, torch.randn(2, 4, 3), axes=(0, 1))
    assert not form.frozen


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_that_numbers_onnx_runtime_does_not_compute_with_become_float32(dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU()).to(dtype)
    _, form = _form(module, torch.randn(2, 2, 8, dtype=dtype))
    assert form.notes[0].startswith(f"Its numbers of {str(dtype).removeprefix('torch.')} are float32 here")
    assert form.difference < 1e-5
    assert _ran(form, input=torch.randn(3, 2, 8))[0].dtype == np.float32


def test_that_rounding_of_float16_is_no_difference() -> None:
    module = nn.Sequential(nn.Conv1d(2, 8, 3), nn.ReLU(), nn.Conv1d(8, 4, 3)).half()
    _, form = _form(module, torch.randn(2, 2, 8))
    assert not form.notes
    assert not form.frozen


def test_that_weights_computed_of_others_are_named_by_their_modules() -> None:
    _, form = _form(calls.normalized(), torch.randn(2, 2, 12))
    names = [node.name for node in form.model.graph.node if node.op_type == "Conv"]
    assert names == ["0", "1.0", "2"]


def test_that_tied_tables_have_the_names_of_the_modules_that_use_them() -> None:
    _, form = _form(calls.Tied(), torch.tensor([[1, 2, 3]]))
    names = {node.op_type: node.name for node in form.model.graph.node if node.name in ("words", "head")}
    assert names["Gather"] == "words"


@pytest.mark.parametrize("exporter", ["dynamo", "old"])
def test_that_outputs_have_the_names_of_the_answer(exporter: Exporter) -> None:
    _, form = _form(calls.Answers(), torch.randn(2, 8), exporter=exporter)
    assert [value.name for value in form.model.graph.output] == ["scores", "hidden_0"]


def test_that_an_output_named_as_an_input_gets_a_number() -> None:
    x = torch.randn(2, 4)
    module = calls.Scaled()
    _, form = _form(module, (x,))
    assert [value.name for value in form.model.graph.output] == ["x_2"]
    _equal(_ran(form, x=x), module(x)["x"])


def test_that_weights_computed_in_ways_that_no_exporter_has_are_taken_as_they_are() -> None:
    module = nn.Sequential(parametrizations.orthogonal(nn.Linear(6, 6)), nn.ReLU(), nn.Linear(6, 2)).eval()
    x = torch.randn(2, 6)
    wanted = module(x)
    _, form = _form(copy.deepcopy(module), x)
    _equal(_ran(form, input=x), wanted)
    assert [node.name for node in form.model.graph.node] == ["0", "1/Relu", "2"]
    # The user's own module goes on computing its weight.
    assert parametrize.is_parametrized(module[0])
    torch.testing.assert_close(module(x), wanted)


class _Heads(nn.Module):
    """Projects to heads by Einsum, as some attentions do."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Parameter(torch.randn(2, 6, 4))
        self.back = nn.Parameter(torch.randn(2, 4, 6))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bthe,hed->btd", torch.relu(torch.einsum("btd,hde->bthe", x, self.into)), self.back)


def test_that_weights_of_einsum_are_layers_by_their_names(tmp_path: Path) -> None:
    module, x = nn.Sequential(_Heads()), torch.randn(2, 3, 6)
    _, form = _form(module, x)
    onnx.save(form.model, tmp_path / "net.onnx")
    *_, opened = read_network(str(tmp_path / "net.onnx"))
    assert [(layer.name, layer.op, layer.shape) for layer in opened.summary.layers] == [
        ("0.into", "MatMul", (6, 8)), ("0.back", "MatMul", (8, 6))
    ]  # fmt: skip


class _Spectrum(nn.Module):
    """Multiplies complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bf,fo->bo", torch.fft.rfft(x), torch.view_as_complex(self.weight)).abs()


def test_that_an_operator_without_an_onnx_form_is_named_with_what_to_do() -> None:
    told = r"no form of aten.einsum for complex numbers, .* \(torch.view_as_real\)\.$"
    with pytest.raises(NetworkError, match=told):
        _form(_Spectrum(), torch.randn(2, 4))
