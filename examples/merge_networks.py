"""
Two networks as one
===================

Two laboratories train the same direction network on rooms of their own, from weights of their own. Half-way
between the two is no network at all, until the channels of the one are in the order of the other's.
"""

import torch
from matplotlib.figure import Figure

import learnsolve
from learnsolve.methods import DCDM
from learnsolve.methods.dcdm_losses import RunningSolves, energy_loss
from learnsolve.methods.dcdm_network import NetworkOptions
from learnsolve.methods.dcdm_training import DCDMTraining, Source, train
from learnsolve.problems import poisson
from learnsolve.training import FitOptions
from learnsolve.training.connectivity import averaged, barrier
from learnsolve.training.landscape import plot_barriers
from learnsolve.training.matching import match, permuted
from learnsolve.training.merging import MergeError, merge

torch.set_num_threads(1)
SHAPE = (16, 16)


def trained(seed):
    """A network, from weights and rooms of a seed."""
    options = NetworkOptions(dims=2, channels=8, half=1)
    config = DCDMTraining(options, FitOptions(150, 1e-2, warmup=10, seed=seed), depth=8, cells=1024)
    return train(config, [Source(poisson.obstacles(SHAPE, 10 * seed + k).A) for k in range(4)])[0]


networks = [trained(0), trained(1)]

# %%
# They are judged by systems that none has seen: by what ten steps of a solve leave of the error, as the mean
# of its logarithm.

systems = []
for seed in (1001, 1002):
    problem = poisson.obstacles(SHAPE, seed)
    answer = learnsolve.solve(problem.A, torch.from_numpy(problem.b), method="cg", rtol=1e-8).x
    systems.append((problem.A, answer))


def loss(network):
    """The mean logarithm of the error's reduction in a step."""
    left = []
    for A, answer in systems:
        solves = RunningSolves(A, 1, depth=10)
        solves.tensors["e"][:] = answer
        left += [energy_loss(network, solves) for _ in range(10)]
    return torch.stack(left).mean()


# %%
# The way from the one to the other, and to the same network with its channels in another order.

first, second = networks
matched = permuted(second, match(first, second, torch.zeros(1, 1, *SHAPE)))
ways = {"as they are": second, "channels matched": matched}
found = {name: barrier(first, other, loss, points=11) for name, other in ways.items()}
figure = Figure(figsize=(6, 4), layout="constrained")
plot_barriers(found, figure.subplots())
figure.savefig("merge_networks.png", dpi=120)

# %%
# Averages that are worse than is accepted are an error, and not a network. Without an order of the channels,
# this one is refused.

try:
    merge(networks, loss=loss, accept=0.1, align=False)
except MergeError as refused:
    print(refused)
merged, report = merge(networks, loss=loss, accept=0.1)
print(f"barrier {report.barrier:.3f} of the average of {len(report.layers)} layers")

# %%
# What was averaged solves nearly as well as what it was made of. The average that was refused does not: its
# answer is right, as that of any network, but it comes later.

problem = poisson.obstacles(SHAPE, 1003)
apart = averaged(networks, [0.5, 0.5])
for name, network in {"first": first, "second": second, "merged": merged, "refused": apart}.items():
    result = learnsolve.solve(problem.A, problem.b, method=DCDM(network))
    print(f"{name}: {result!r}")
