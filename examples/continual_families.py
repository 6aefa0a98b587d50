"""
A preconditioner that learns one family of problems after the other
====================================================================

A network that proposes corrections is trained on problems with holes, then on ones that conduct along x
alone, then on ones with a sink everywhere. Trained as if there were no other, it forgets the first family. A
hypernetwork, which writes the weights for each family, and masks, which give each family a part of the
network, do not.
"""

import torch
from matplotlib.figure import Figure
from rich.console import Console
from torch import nn

from learnsolve.problems.elliptic_families import ELLIPTIC_FAMILIES
from learnsolve.training import FitOptions
from learnsolve.training.continual import NamedTask, TaskStream
from learnsolve.training.continual_methods import Replay, compare_methods
from learnsolve.training.isolated_masks import IsolatedMasks
from learnsolve.training.stream_scores import score_table
from learnsolve.training.task_hypernetwork import TaskHypernetwork

torch.set_num_threads(1)
CELLS = 16


class Corrections(nn.Module):
    """A linear function of the right-hand side that sees some cells far."""

    def __init__(self, channels=8):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1, bias=False),
            nn.Conv2d(channels, channels, 5, padding=4, dilation=2, bias=False),
            nn.Conv2d(channels, 1, 5, padding=4, dilation=2, bias=False),
        )

    def forward(self, A, b):
        scaled = b / A.diagonal().where(A.active, 1)
        return (scaled + self.layers(scaled[:, None])[:, 0]) * A.active


# %%
# A task is where its batches come from, and what it is judged by: here how much of the residual is left after
# the best step along what the network proposes, on problems that are not among the batches.


def residual_left(network, batch):
    """Between zero and one."""
    A, b = batch
    Az = A @ network(A, b)
    step = (b * Az).sum((1, 2)) / (Az * Az).sum((1, 2))
    rest = b - step[:, None, None] * Az
    return ((rest * rest).sum((1, 2)) / (b * b).sum((1, 2))).mean()


def task(name):
    """A family as a task."""
    family = ELLIPTIC_FAMILIES[name]

    def batches(number, generator):
        A = family.draw(16, CELLS, generator)
        return A, torch.randn(A.domain_shape, generator=generator) * A.active

    held_out = batches(0, torch.Generator().manual_seed(1000))
    return NamedTask(name, batches, lambda network: residual_left(network, held_out))


stream = TaskStream([task(name) for name in ("discs", "along-x", "screened")], residual_left, better="less")

# %%
# Fine-tuning and joint training stand in every table: what forgets most, and what sees all at once.

torch.manual_seed(0)
methods = {
    "replay": Replay(16),
    "hypernetwork": TaskHypernetwork(beta=1.0, hidden=16),
    "masks": IsolatedMasks(density=0.3, every=20),
}
found = compare_methods(Corrections(), stream, methods, FitOptions(100, 1e-2))
Console(width=100).print(score_table({name: one.scores for name, one in found.items()}, "residual left"))

# %%
# The first family after each of the three: fine-tuning loses it at once.

figure = Figure(figsize=(5.5, 3.2), layout="constrained")
axes = figure.subplots()
for name, one in found.items():
    axes.plot(stream.names, one.scores.matrix[:, 0], marker="o", label=name)
axes.set_xlabel("learned last")
axes.set_ylabel(f"residual left of {stream.names[0]}")
axes.legend()
figure.savefig("continual_families.png", dpi=100)
