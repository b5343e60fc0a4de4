"""The optimizer of training, against torch's Adam and the formulas of the paper that its step length is from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quantgui.analysis.qat.network import Parameter
from quantgui.analysis.qat.optimizer import Adam, reach_at


def parameter(*values):
    return Parameter(torch.tensor(values, dtype=torch.float32).requires_grad_(), torch.ones(()))


def bowl(value, centre):
    return 0.5 * (torch.tensor([1.0, 30.0, 0.01]) * (value - centre).square()).sum()


def test_that_steps_the_loss_allows_are_those_of_adam():
    own, other = parameter(1.0, -2.0, 3.0), torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    adam, reference = Adam({"w": own}), torch.optim.Adam([other], lr=1e-3, betas=(0.9, 0.99), eps=1e-20)
    for step in range(30):
        centre = torch.randn(3, generator=torch.Generator().manual_seed(step))
        loss = bowl(own.value, centre)
        loss.backward()
        assert adam.step(1e-3, float(loss.detach())) == pytest.approx(1e-3)
        reference.zero_grad()
        bowl(other, centre).backward()
        reference.step()
    torch.testing.assert_close(own.value, other, rtol=1e-5, atol=1e-6)


def test_that_longer_steps_are_those_of_momo_adam():
    own, x = parameter(1.0, -2.0, 3.0), np.array([1.0, -2.0, 3.0])
    adam, taken = Adam({"w": own}), []
    mean, square, loss_mean, product = np.zeros(3), np.zeros(3), 0.0, 0.0
    for step in range(1, 31):
        centre = 0.3 * np.random.default_rng(step).standard_normal(3)
        loss = bowl(own.value, torch.tensor(centre, dtype=torch.float32))
        loss.backward()
        taken.append(adam.step(0.5, float(loss.detach())))
        # Algorithm 2 of the paper, without weight decay, with 0 for the lower bound.
        curvatures = np.array([1.0, 30.0, 0.01])
        gradient, loss = curvatures * (x - centre), 0.5 * (curvatures * (x - centre) ** 2).sum()
        mean, square = 0.9 * mean + 0.1 * gradient, 0.99 * square + 0.01 * gradient**2
        loss_mean, product = 0.9 * loss_mean + 0.1 * loss, 0.9 * product + 0.1 * gradient @ x
        diagonal = np.sqrt(square / (1 - 0.99**step))
        left = max(loss_mean + mean @ x - product, 0.0)
        x = x - min(0.5 / (1 - 0.9**step), left / (mean**2 / diagonal).sum()) * mean / diagonal
    np.testing.assert_allclose(own.value.detach().numpy(), x, rtol=1e-3, atol=1e-4)
    assert min(taken) < 0.4


def test_that_many_values_together_do_not_overshoot():
    own = Parameter(torch.zeros(10_000).requires_grad_(), torch.ones(()))
    adam, losses = Adam({"w": own}), []
    for _ in range(40):
        loss = 0.5 * (own.value.sum() - 1).square()
        loss.backward()
        losses.append(float(loss.detach()))
        adam.step(0.01, losses[-1])
    assert max(losses) == losses[0]
    assert losses[-1] < 0.01 * losses[0]


@pytest.mark.parametrize("reach", [1.0, 1.5])
def test_that_the_first_step_foretells_its_share_of_the_loss(reach):
    own = Parameter(torch.full((4,), 2.0, requires_grad=True), torch.ones(4))
    loss = 0.5 * own.value.square().sum()
    loss.backward()
    gradient, before = own.value.grad.clone(), own.value.detach().clone()
    taken = Adam({"w": own}).step(100.0, float(loss.detach()), reach)
    assert taken < 100.0
    assert float(gradient @ (before - own.value.detach())) == pytest.approx(reach * float(loss.detach()), rel=1e-5)


def test_that_steps_reach_farther_than_the_loss_only_while_the_rate_is_high():
    reaches = [reach_at(step, 100) for step in range(100)]
    assert max(reaches) == pytest.approx(1.5)
    assert reaches[-1] == pytest.approx(1.0, abs=1e-3)
    assert min(reaches) >= 1.0


def test_that_nothing_moves_where_there_is_nothing_to_gain():
    own = parameter(1.0, 2.0)
    adam = Adam({"w": own, "unreached": parameter(1.0)})
    own.value.grad = torch.zeros(2)
    assert adam.step(0.1, 1.0) == 0.0
    own.value.grad = torch.ones(2)
    adam = Adam({"w": own})
    assert adam.step(0.1, 0.0) == 0.0
    assert own.value.tolist() == [1.0, 2.0]


def test_that_its_state_goes_on_where_it_was():
    def run(own, adam, steps):
        for step in steps:
            loss = bowl(own.value, 0.3 * torch.randn(3, generator=torch.Generator().manual_seed(step)))
            loss.backward()
            adam.step(0.5, float(loss.detach()))

    whole, first = parameter(1.0, -2.0, 3.0), parameter(1.0, -2.0, 3.0)
    run(whole, Adam({"w": whole}), range(20))
    adam = Adam({"w": first})
    run(first, adam, range(9))
    second = Parameter(first.value.detach().clone().requires_grad_(), torch.ones(()))
    again = Adam({"w": second})
    again.set_arrays(adam.arrays())
    run(second, again, range(9, 20))
    assert second.value.tolist() == whole.value.tolist()
