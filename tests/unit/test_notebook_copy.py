"""`explore` leaves the module as it is, whatever a script has done with it before."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quantgui.errors import NetworkError
from quantgui.network.pytorch.live import live_module
from quantgui.notebook import _copied
from quantgui.spec.pytorch_source import PytorchOptions


class Keeps(nn.Module):
    """Keeps what it computed, with its gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.maps: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.maps = [self.inner(x)]
        return torch.relu(self.maps[0])


def used(kind: str) -> nn.Module:
    """Return a module in training that has run, with gradients."""
    torch.manual_seed(0)
    module: nn.Module = Keeps()
    match kind:
        case "old weight norm":
            with pytest.warns(FutureWarning):
                module = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 4)))
        case "parametrized":
            module = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
        case "in parallel":
            module = nn.DataParallel(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    module.train()
    module(torch.ones(3, 4)).sum().backward()
    return module


@pytest.mark.parametrize("kind", ["keeps what it computed", "old weight norm", "parametrized", "in parallel"])
def test_that_a_module_in_training_is_copied_and_stays_as_it_is(kind: str) -> None:
    module = used(kind)
    state = {name: values.clone() for name, values in module.state_dict().items()}
    gradients = [None if each.grad is None else each.grad.clone() for each in module.parameters()]
    kinds = [type(each) for each in module.modules()]
    live = live_module(_copied(module), [torch.ones(2, 4)], PytorchOptions())
    assert not live.run.training
    assert live.names == (("x",) if kind.startswith("keeps") else ("input",))
    assert all(each.training for each in module.modules())
    assert [type(each) for each in module.modules()] == kinds
    assert state.keys() == module.state_dict().keys()
    assert all(torch.equal(values, state[name]) for name, values in module.state_dict().items())
    for parameter, gradient in zip(module.parameters(), gradients, strict=True):
        assert parameter.requires_grad
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(parameter.grad, gradient)
    module.eval()
    (found,) = live.outputs([torch.ones(2, 4)])
    torch.testing.assert_close(torch.from_numpy(found), module(torch.ones(2, 4)).detach())


def test_that_compiled_code_is_copied() -> None:
    module = torch.jit.script(nn.Sequential(nn.Linear(4, 4)))
    (found,) = live_module(_copied(module), [torch.ones(2, 4)], PytorchOptions()).outputs([torch.ones(2, 4)])
    torch.testing.assert_close(torch.from_numpy(found), module(torch.ones(2, 4)).detach())


@pytest.mark.parametrize(
    ("device", "words"), [("lazy", "has no size before the module has run"), ("meta", "no values")]
)
def test_that_weights_that_are_not_there_are_told(device: str, words: str) -> None:
    module = nn.Sequential(nn.LazyLinear(4)) if device == "lazy" else nn.Sequential(nn.Linear(4, 4)).to("meta")
    with pytest.raises(NetworkError, match=words):
        live_module(_copied(module), [torch.ones(2, 4)], PytorchOptions())
