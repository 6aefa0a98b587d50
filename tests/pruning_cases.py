"""Small networks with known numbers, for the tests of pruning and compaction."""

from itertools import pairwise

import torch
from torch import nn


def seeded(build, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def mlp(seed=0, sizes=(3, 6, 5, 1)):
    def build():
        layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*layers[:-1])

    return seeded(build, seed)


def with_values(*rows):
    """Layers without biases, one of each matrix."""
    network = nn.Sequential(*(nn.Linear(len(one[0]), len(one), bias=False) for one in rows))
    with torch.no_grad():
        for layer, values in zip(network, rows, strict=True):
            layer.weight.copy_(torch.tensor(values))
    return network
