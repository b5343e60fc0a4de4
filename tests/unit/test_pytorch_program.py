"""Saved programs that are called in other ways than with tensors one after another, or answer more than tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from quantgui.network.pytorch.export import Form, export
from quantgui.network.pytorch.live import Live
from quantgui.network.pytorch.module import quiet
from quantgui.network.pytorch.program import load_program
from quantgui.network.session import create_session
from quantgui.spec.pytorch_source import PytorchOptions
from tests import pytorch_calls as calls


def _saved(module: nn.Module, path: Path, *inputs: Any, **keywords: Any) -> Live:
    with quiet():
        torch.export.save(torch.export.export(module.eval(), inputs, keywords), path)
    return load_program(path, PytorchOptions(free_axes=((),)))


def _exported(live: Live) -> Form:
    exporting = export(live, "dynamo")
    while True:
        try:
            next(exporting)
        except StopIteration as stop:
            return stop.value


def test_that_a_saved_program_may_take_inputs_by_keyword_in_any_order(tmp_path: Path) -> None:
    module, x, shift = calls.Answers(), torch.randn(2, 8), torch.randn(2, 6)
    wanted = module(x, shift=shift)
    live = _saved(module, tmp_path / "net.pt2", shift=shift, x=x)
    assert {name: each.shape[1] for name, each in zip(live.names, live.inputs, strict=True)} == {"x": 8, "shift": 6}
    form = _exported(live)
    assert form.difference < 1e-5
    assert form.notes[-1] == "Outputs that are no tensors are left out (int)."
    assert [value.name for value in form.model.graph.output] == ["scores", "hidden_0"]
    found = create_session(form.model, {}).run(None, {"x": x.numpy(), "shift": shift.numpy()})
    for first, second in zip(found, (wanted["scores"], wanted["hidden"][0]), strict=True):
        np.testing.assert_allclose(first, second.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_that_a_saved_program_may_take_tuples_and_constants(tmp_path: Path) -> None:
    x, state = torch.randn(2, 3, 4), (torch.randn(1, 2, 5), torch.randn(1, 2, 5))
    live = _saved(calls.Remembers(), tmp_path / "state.pt2", x, state)
    assert [tuple(each.shape) for each in live.inputs] == [(2, 3, 4), (1, 2, 5), (1, 2, 5)]
    assert _exported(live).difference < 1e-5
    scaled = _saved(calls.Scaled(), tmp_path / "scaled.pt2", torch.ones(2, 4), None, scale=0.5)
    form = _exported(scaled)
    assert form.difference < 1e-5
    assert [value.name for value in form.model.graph.input] == ["x"]


def test_that_a_saved_program_that_keeps_a_state_is_told_of_and_held_against_what_it_was(tmp_path: Path) -> None:
    path, x = tmp_path / "net.pt2", torch.randn(2, 2, 5)
    with quiet():
        auto = torch.export.Dim.AUTO
        torch.export.save(torch.export.export(calls.Streams(), (x,), dynamic_shapes={"x": {2: auto}}), path)
    live = load_program(path, PytorchOptions(free_axes=((),)))
    form = _exported(live)
    (note,) = form.notes
    assert note.startswith("The module changes its 'past' whenever it runs.")
    assert form.difference < 1e-5
    assert not form.frozen
    np.testing.assert_array_equal(live.outputs([x])[0], live.outputs([x])[0])
