"""Networks that are cut along all that goes together."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from learnsolve.methods.dcdm_network import NetworkOptions
from learnsolve.training.masks import mask_weights
from learnsolve.training.narrowing import narrowed


class Residual(nn.Module):
    """A stream of channels with a block beside it, and the same weights at both ends."""

    def __init__(self, width=6, inner=4):
        super().__init__()
        self.enter = nn.Conv2d(2, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.first = nn.Conv2d(width, inner, 3, padding=1)
        self.second = nn.ConvTranspose2d(inner, width, 3, padding=1)
        self.leave = nn.Conv2d(width, 1, 1)

    def forward(self, x):
        h = self.norm(self.enter(x))
        return self.leave(h + self.second(torch.relu(self.first(h))))


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build()


def idle(network, stream=(1, 4), inner=(2,)):
    """Let some channels of a `Residual` do nothing."""
    with torch.no_grad():
        for layer, axis in (("enter", 0), ("first", 1), ("second", 1), ("leave", 1)):
            network.get_submodule(layer).weight.transpose(0, axis)[list(stream)] = 0
        network.second.bias[list(stream)] = 0
        network.norm.weight[list(stream)] = 0
        network.first.weight[list(inner)] = 0
        network.first.bias[list(inner)] = 0
        network.second.weight[list(inner)] = 0
    return network


def test_idle_channels_go_and_the_function_stays():
    network, x = idle(seeded(Residual)).eval(), torch.randn(2, 2, 5, 5)
    # Two of six and one of four, where 0.3 asks for 1.8 and 1.2.
    small = narrowed(network, x, 0.3).eval()
    torch.testing.assert_close(small(x), network(x))
    assert (small.enter.out_channels, small.norm.num_features, small.leave.in_channels) == (4, 4, 4)
    assert (small.first.in_channels, small.first.out_channels) == (4, 3)
    assert (small.second.in_channels, small.second.out_channels) == (3, 4)
    assert network.enter.out_channels == 6
    small(x).sum().backward()
    assert small.first.weight.grad.shape == (3, 4, 3, 3)


def test_an_importance_of_ones_own():
    network, x = seeded(Residual).eval(), torch.randn(1, 2, 4, 4)
    worth = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    worth["enter.weight"][3:] = 1.0
    small = narrowed(network, x, 0.5, importance=worth)
    torch.testing.assert_close(small.enter.weight, network.enter.weight[3:])


def test_tensors_of_two_layers_stay_one():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(5, 5), nn.Linear(5, 5)
            self.two.weight = self.one.weight
            self.enter, self.leave = nn.Linear(3, 5), nn.Linear(5, 1)

        def forward(self, x):
            return self.leave(self.two(self.one(self.enter(x))))

    small = narrowed(seeded(Tied), torch.ones(1, 3), 0.4)
    assert small.two.weight is small.one.weight and small.one.weight.shape == (3, 3)
    assert small.two.in_features == small.two.out_features == 3


def test_groups_stay_as_they_are():
    network = nn.Sequential(
        nn.Conv1d(1, 4, 1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv1d(4, 6, 1), nn.ReLU(), nn.Conv1d(6, 1, 1)
    )
    small = narrowed(network, torch.ones(1, 1, 8), 0.5)
    assert small[0].weight.shape == (4, 1, 1) and small[3].weight.shape == (3, 4, 1)
    with pytest.raises(ValueError, match="no units that can be cut out"):
        narrowed(
            nn.Sequential(*copy.deepcopy(list(network)[:3]), nn.Flatten(), nn.Linear(32, 1)),
            torch.ones(1, 1, 8),
            0.5,
        )


@settings(max_examples=20, deadline=None)
@given(
    share=st.floats(0.01, 0.99),
    channels=st.integers(2, 9),
    dims=st.sampled_from([2, 3]),
    architecture=st.sampled_from(["recursive", "paper"]),
)
def test_direction_networks_of_any_width(share, channels, dims, architecture):
    network = NetworkOptions(dims, architecture, channels, coarsest=2).build()
    small = network.narrowed(share)
    kept = max(channels - round(share * channels), 1)
    assert small.options.channels == kept and small.enter.out_channels == kept
    r = torch.randn(1, 1, *[7] * dims)
    assert small(r).shape == r.shape
    # Channels that are left have their weights, in their order.
    rows = {tuple(row.flatten().tolist()) for row in network.enter.weight}
    assert all(tuple(row.flatten().tolist()) in rows for row in small.enter.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda network: narrowed(network, torch.ones(1, 2, 4, 4), 1.0), r"share is 1.0; .*\(0, 1\)"),
        (
            lambda network: narrowed(
                network, torch.ones(1, 2, 4, 4), 0.5, importance={"leave.weight": torch.ones(2)}
            ),
            "importance has 'leave.weight' of shape",
        ),
        (
            lambda network: narrowed(
                network, torch.ones(1, 2, 4, 4), 0.5, importance={"leave.bias": -torch.ones(1)}
            ),
            "not negative",
        ),
    ],
)
def test_what_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        change(seeded(Residual))


def test_masks_and_weights_that_are_not_finite_are_refused():
    network = seeded(Residual)
    with torch.no_grad():
        network.leave.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"leave\.bias: weights, or their importance, are not finite"):
        narrowed(network, torch.ones(1, 2, 4, 4), 0.5)
    network = seeded(Residual)
    mask_weights(network, ["first.weight"])
    with pytest.raises(ValueError, match="the network has masks"):
        narrowed(network, torch.ones(1, 2, 4, 4), 0.5)
