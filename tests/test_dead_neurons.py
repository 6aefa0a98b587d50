"""Units that are zero: counted by hand, one by one, and on digits while a network is pruned."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from learnsolve.training import FitOptions, fit
from learnsolve.training.dead_neurons import dead_neuron_rate
from learnsolve.training.pruning import ActivateWhilePruning, prune_iteratively
from tests.pruning_cases import mlp, seeded


def test_dead_units_by_hand():
    """Of three units one is dead for all inputs, one for two of three, one never."""
    network = nn.Sequential(nn.Linear(1, 3), nn.ReLU())
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[0.0], [1.0], [0.0]]))
        network[0].bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
    report = dead_neuron_rate(network, [torch.tensor([[-1.0], [0.0]]), torch.tensor([[2.0]])])
    assert report.dynamic == pytest.approx(2 / 9) and report.static == pytest.approx(1 / 3)
    assert report.per_layer == {"1": (report.dynamic, report.static)}


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4 * 9, 5)
        self.relu, self.drop = nn.ReLU(inplace=True), nn.Dropout(0.9)

    def forward(self, x):
        return self.relu(self.head(self.drop(self.relu(self.conv(x)).flatten(1))))


def test_dead_units_one_by_one():
    network = seeded(Twice).train()
    x = torch.randn(7, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    report = dead_neuron_rate(network, x.split(3))
    assert network.training
    network.eval()
    with torch.no_grad():
        first = network.conv(x).relu().flatten(1)
        layers = {"relu": first, "relu#2": network.head(first).relu()}
    counts = []
    for name, values in layers.items():
        zero = [[bool(value == 0) for value in row] for row in values]
        static = [all(column) for column in zip(*zero, strict=True)]
        dynamic = sum(sum(z and not s for z, s in zip(row, static, strict=True)) for row in zero)
        cells = 7 * len(static)
        assert report.per_layer[name] == (dynamic / cells, sum(static) / len(static))
        counts.append((dynamic, cells, sum(static), len(static)))
    dynamic, cells, static, units = (sum(column) for column in zip(*counts, strict=True))
    assert (report.dynamic, report.static) == (dynamic / cells, static / units)
    assert 0 < report.dynamic < 1 and not network.conv._forward_hooks


def test_dead_units_that_cannot_be_counted():
    with pytest.raises(ValueError, match=r"no torch.nn.ReLU was called"):
        dead_neuron_rate(nn.Linear(1, 1), [torch.ones(1, 1)])
    with pytest.raises(ValueError, match="or no batches"):
        dead_neuron_rate(nn.ReLU(), [])
    relu = nn.ReLU()
    with pytest.raises(ValueError, match=r"shape \(2,\) for one batch and \(3,\) for another"):
        dead_neuron_rate(relu, [torch.ones(1, 2), torch.ones(1, 3)])
    assert not relu._forward_hooks


def test_dead_units_of_digits_fall_with_pruning():
    """On images that are not learned from."""
    pytest.importorskip("sklearn")
    from learnsolve.problems.digits import digits

    (images, classes), (judged, answers) = (digits(part) for part in ("learned", "judged"))
    images, judged = ((one.flatten(1) + 1) / 2 for one in (images, judged))

    def batch(number, generator):
        chosen = torch.randint(len(images), (64,), generator=generator)
        return images[chosen], classes[chosen]

    def entropy(network, batch):
        return functional.cross_entropy(network(batch[0]), batch[1])

    def train(network, cycle):
        fit(network, entropy, batch, FitOptions(150, 1e-2, seed=cycle))
        with torch.no_grad():
            accuracy = (network(judged).argmax(1) == answers).double().mean()
        return float(accuracy), dead_neuron_rate(network, [judged])

    network = mlp(0, (64, 100, 100, 10))
    records = prune_iteratively(network, train, cycles=4, share=0.5, companion=ActivateWhilePruning(0.05))
    accuracies, reports = zip(*(record.metrics for record in records), strict=True)
    assert records[-1].density == pytest.approx(1 / 16, abs=1e-3)
    assert reports[0].dynamic > reports[2].dynamic > reports[4].dynamic
    assert reports[4].dynamic < reports[0].dynamic / 2
    assert accuracies[0] > 0.94 and accuracies[4] > 0.9
