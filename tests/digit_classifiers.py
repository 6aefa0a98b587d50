"""Small classifiers of digits and their loss on images held out, for the tests of what lies between them."""

from functools import cache

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from learnsolve.problems.digits import digits


def classifier(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
        )


@cache
def trained(first, order):
    """A classifier of digits from initial weights and an order of the images, both of a seed."""
    pytest.importorskip("sklearn")
    images, classes = digits("learned")
    network, generator = classifier(first), torch.Generator().manual_seed(order)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.2)
    epochs, batch = 20, 32
    steps = epochs * (len(images) // batch)
    slower = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(epochs):
        for some in torch.randperm(len(images), generator=generator)[: steps // epochs * batch].split(batch):
            optimizer.zero_grad()
            cross_entropy(network(images[some]), classes[some]).backward()
            optimizer.step()
            slower.step()
    return network


def held_out(network):
    """The loss on images that are not learned from."""
    images, classes = digits("judged")
    return cross_entropy(network(images), classes)


def correct(network):
    images, classes = digits("judged")
    return (network(images).argmax(-1) == classes).double().mean().item()
