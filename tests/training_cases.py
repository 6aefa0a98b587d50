"""A small network, its batches and its loss, for the tests of the training loop."""

import torch
from torch import nn


def regressor(seed=0, hidden=8):
    """A small network with dropout, so that the loss has randomness of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, hidden), nn.Tanh(), nn.Dropout(0.1), nn.Linear(hidden, 1))


def line(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(3, 1)


def batches(number, generator):
    x = torch.randn(16, 3, generator=generator)
    return x, x.sum(dim=1, keepdim=True) - 0.5


def loss(network, batch):
    x, y = batch
    return nn.functional.mse_loss(network(x), y)


def weights(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def stop_at(step):
    return lambda progress: progress.step == step
