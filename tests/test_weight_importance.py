"""Squared gradients by hand and against a Jacobian."""

import copy

import pytest
import torch
from torch import nn

from learnsolve.training.weight_importance import squared_gradients
from tests.training_cases import batches, loss, regressor


def test_squared_gradients_by_hand():
    """Of ``(w x + b - y)^2`` at ``w = 2, b = 1``: the residual times twice x, and twice one."""
    network = nn.Linear(1, 1)
    with torch.no_grad():
        network.weight.fill_(2.0)
        network.bias.fill_(1.0)
    data = [(1.0, 2.0), (-1.0, 3.0), (0.5, 2.0)]

    def batch(number, generator):
        return torch.tensor([[data[number][0]]]), torch.tensor([[data[number][1]]])

    found = squared_gradients(network, loss, batch, count=3)
    residuals = [2 * x + 1 - y for x, y in data]
    assert found["bias"].item() == pytest.approx(sum((2 * r) ** 2 for r in residuals) / 3)
    by_weight = sum((2 * r * x) ** 2 for r, (x, _) in zip(residuals, data, strict=True)) / 3
    assert found["weight"].item() == pytest.approx(by_weight)
    assert network.weight.grad is None


def test_squared_gradients_against_a_jacobian():
    network, seen = regressor(), []

    def batch(number, generator):
        seen.append(batches(number, generator))
        return seen[-1]

    found = squared_gradients(network, loss, batch, count=3, seed=5)
    names, values = zip(*network.named_parameters(), strict=True)
    still = copy.deepcopy(network).eval()

    def losses(*given_ones):
        named = dict(zip(names, given_ones, strict=True))
        return torch.stack(
            [loss(lambda x: torch.func.functional_call(still, named, (x,)), batch) for batch in seen]
        )

    jacobians = torch.autograd.functional.jacobian(losses, values)
    for name, jacobian in zip(names, jacobians, strict=True):
        torch.testing.assert_close(found[name], jacobian.square().mean(0))
    assert network.training


def test_squared_gradients_of_what_is_trained_alone():
    network = regressor()
    network[0].weight.requires_grad_(False)
    assert "0.weight" not in squared_gradients(network, loss, batches, count=1)
    with pytest.raises(ValueError, match="count is 0"):
        squared_gradients(network, loss, batches, count=0)
