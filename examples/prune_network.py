"""
Pruning a network to the units that it needs
============================================

A perceptron learns where a state of Lorenz's system will be a quarter of a unit of time later. It has more
hidden units than it needs. Of each layer a third of them goes at a time, those of the smallest weights; what
is left is trained further, and in the end cut out into a small network that computes the same function.
"""

import torch
from matplotlib.figure import Figure

from learnsolve.problems.chaotic import lorenz63
from learnsolve.training import FitOptions, fit
from learnsolve.training.compaction import compacted
from learnsolve.training.criteria import Structured
from learnsolve.training.dead_neurons import dead_neuron_rate
from learnsolve.training.pruning import prune_iteratively

torch.set_num_threads(1)
AHEAD, CYCLES = 25, 6

# %%
# States from two orbits: one to learn from, and another that is held out.


def orbit(seed, length):
    """States a hundredth of a unit apart."""
    return torch.from_numpy(lorenz63(dt=0.01).orbit(length + AHEAD, seed=seed)).float()


learned, other = orbit(1, 20_000), orbit(2, 5_000)
learned, other = ((one - learned.mean(0)) / learned.std(0) for one in (learned, other))
(now, later), (held_out, after) = ((one[:-AHEAD], one[AHEAD:]) for one in (learned, other))


def batch(number, generator):
    """Some to learn from."""
    chosen = torch.randint(len(now), (128,), generator=generator)
    return now[chosen], later[chosen]


def error(network, batch):
    """Mean square, in parts of the variance."""
    return torch.nn.functional.mse_loss(network(batch[0]), batch[1])


# %%
# `prune_iteratively` calls a function for each training. Here it also says how good the network is on the
# other orbit, how many of its ReLU units are dead, for some states or for all, and what is left of it when it
# is cut.


def parameters(network):
    """How many there are."""
    return sum(parameter.numel() for parameter in network.parameters())


def train(network, cycle):
    """Train, and judge."""
    fit(network, error, batch, FitOptions(300, 5e-3, seed=cycle))
    small = compacted(network)
    with torch.no_grad():
        assert torch.allclose(small(held_out), network(held_out), atol=1e-4)
        loss = float(error(network, (held_out, after)))
    dead = dead_neuron_rate(small, [held_out])
    return loss, dead.dynamic, dead.static, (small[0].out_features, small[2].out_features), parameters(small)


torch.manual_seed(0)
network = torch.nn.Sequential(
    torch.nn.Linear(3, 64),
    torch.nn.ReLU(),
    torch.nn.Linear(64, 64),
    torch.nn.ReLU(),
    torch.nn.Linear(64, 3),
)
cycles = prune_iteratively(
    network, train, cycles=CYCLES, share=1 / 3, criterion=Structured(), scope="layer", rewind=False
)
print("units      parameters  error   dead for some  for all")
for cycle in cycles:
    loss, dynamic, static, units, count = cycle.metrics
    print(f"{units!s:<10} {count:>10} {loss:7.4f} {dynamic:14.2f} {static:8.2f}")

# %%
# The error falls at first, because training goes on in each cycle, and rises when fewer than half of the
# units are left. From the first pruning on no unit is dead for all states. The small network is an ordinary
# one, and can be trained and saved like any.

small = compacted(network)
print(small)

losses, dynamic, static, units, counts = zip(*(cycle.metrics for cycle in cycles), strict=True)
left = [sum(pair) / sum(units[0]) for pair in units]
figure = Figure(figsize=(9, 3.4), layout="constrained")
first, second = figure.subplots(1, 2)
first.loglog(left, losses, "o-")
first.set(xlabel="units left", ylabel="error on another orbit")
second.semilogx(left, dynamic, "o-", label="for some states")
second.semilogx(left, static, "o-", label="for all states")
second.set(xlabel="units left", ylabel="dead units", ylim=(0, None))
second.legend()
figure.savefig("prune_network.png", dpi=100)
