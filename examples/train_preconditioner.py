"""
A multigrid trained on one's own rooms
======================================

The learned multigrid is trained on small domains like one's own and used on large ones. Here they are floors
of rooms with narrow doors, whose walls do not fall on the coarse grids' blocks: what a multigrid likes least.
"""

# %%
# Floors, small ones to train on and a large one to use.

import numpy as np
from matplotlib.figure import Figure

import learnsolve
from learnsolve.operators import GridPoisson
from learnsolve.plots import plot_convergence, plot_field
from learnsolve.preconditioners import LearnedMultigrid
from learnsolve.preconditioners.learned_multigrid_training import MultigridTraining, train
from learnsolve.training import FitOptions


def floor(size, seed):
    """Rooms of 11 cells, a door of 2 in each wall, and the value zero all around."""
    rng = np.random.default_rng(seed)
    cells = np.zeros((size, size), int)
    for wall in range(10, size, 11):
        cells[wall], cells[:, wall] = 1, 1
    for wall in range(10, size, 11):
        for begin in range(0, size, 11):
            door = begin + rng.integers(0, 8)
            cells[wall, door : door + 2] = 0
            door = begin + rng.integers(0, 8)
            cells[door : door + 2, wall] = 0
    return GridPoisson(cells, boundary="dirichlet")


# %%
# Training goes through four steps of conjugate gradients on floors of 44 cells, and takes less than a minute.

config = MultigridTraining(fit=FitOptions(steps=80, learning_rate=1e-2, warmup=10), coarsest=20)
network, run = train(config, [floor(44, seed) for seed in range(8)])
print(f"{run.step} steps in {run.seconds:.0f} s, last loss {run.loss:.2f}")

# %%
# Use: a floor of 330 cells that no training has seen.

A = floor(330, seed=1000)
b = np.ones(A.domain_shape) * A.active.numpy()
results = {
    "multigrid": learnsolve.solve(A, b, method="cg", M="multigrid", rtol=1e-8),
    "learned multigrid": learnsolve.solve(A, b, method="cg", M=LearnedMultigrid(network), rtol=1e-8),
}
for name, result in results.items():
    print(f"{name}: {result!r}")

# %%
# The residuals, and the answer.

figure = Figure(figsize=(9, 4), layout="constrained")
left, right = figure.subplots(1, 2)
for name, result in results.items():
    plot_convergence(result, left, label=f"{name}: {result.iterations}")
plot_field(results["learned multigrid"].x, right, A.cells)
figure.savefig("train_preconditioner.png", dpi=120)
