"""
Training on a budget
====================

How long a network may be trained is often decided before it is trained at all. The learning rate has to come
down within these steps, and there are many ways. Here a small network learns to guess the solution of
Poisson's equation on a square with holes, under a small budget and a larger one.
"""

import torch
from matplotlib.figure import Figure
from torch import nn

import learnsolve
from learnsolve.problems.elliptic_families import ELLIPTIC_FAMILIES
from learnsolve.training import FitOptions, fit
from learnsolve.training.schedules import schedule

torch.set_num_threads(1)
CELLS = 16

# %%
# The problems: four holes at random places, the value zero in them and around the square, and one on the
# right-hand side. All of a set are one block diagonal operator, so that one call solves them. Rates will be
# chosen by the second set, and judged by the third.


def drawn(count, seed):
    """Where there is no hole, and solutions."""
    generator = torch.Generator().manual_seed(seed)
    A = ELLIPTIC_FAMILIES["discs"].draw(count, CELLS, generator, dtype=torch.float64)
    solved = learnsolve.solve(A, A.active.double(), method="cg", rtol=1e-6)
    return A.active.float(), solved.x.float()


(inside, solutions), chosen_by, judged_by = (drawn(count, seed) for seed, count in enumerate((512, 128, 256)))
scale = solutions.std()

# %%
# The learner: from the picture of the holes to the solution.


def loss(network, batch):
    """Mean squared error, in units of the solutions' spread."""
    inside, solutions = batch
    guess = inside * network(inside.flatten(1)).view_as(inside)
    return nn.functional.mse_loss(guess, solutions / scale)


def batches(number, generator):
    """Four problems: so few that each step's gradient is a noisy one."""
    some = torch.randint(len(inside), (4,), generator=generator)
    return inside[some], solutions[some]


def trained(name, steps, rate):
    """A run that is validated and judged ten times."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(CELLS**2, 64), nn.ReLU(), nn.Linear(64, CELLS**2))

    def validate(network):
        return {"validated": loss(network, chosen_by), "judged": loss(network, judged_by)}

    options = FitOptions(steps, rate, name, validate_every=steps // 10)
    return fit(network, loss, batches, options, validate=validate)


# %%
# Four schedules, each at the better of two rates, under both budgets. The larger is not the smaller one
# prolonged: its rates fall later, for a schedule is a function of the share of the budget that is spent.

SCHEDULES, BUDGETS, RATES = ("constant", "rex", "linear", "exponential"), (20, 300), (1e-2, 2e-2)
found = {}
for steps in BUDGETS:
    for name in SCHEDULES:
        runs = {rate: trained(name, steps, rate) for rate in RATES}
        rate = min(runs, key=lambda rate: runs[rate].metrics["validated"])
        found[name, steps] = runs[rate]
        print(f"{steps} steps, {name}: {runs[rate].metrics['judged']:.3f} at a rate of {rate:g}")

# %%
# In a few steps all are much alike. With more of them the noise of the gradients is what is left: a rate that
# stays high keeps it, one that falls to zero takes it away, and one that falls by decades stood still long
# before the end. These are single runs: the benchmarks of training have intervals over seeds.

figure = Figure(figsize=(9, 5.5), layout="constrained")
rates, held_out = figure.subplots(2, len(BUDGETS), sharex="col")
for column, steps in enumerate(BUDGETS):
    for name in SCHEDULES:
        factor = schedule(name)
        rates[column].plot(range(steps), [factor(step / steps) for step in range(steps)])
        history = found[name, steps].history
        losses = [line["metrics"]["judged"] for line in history]
        held_out[column].plot([line["step"] for line in history], losses, label=name)
    rates[column].set(title=f"{steps} steps", ylabel="factor of the rate")
    held_out[column].set(xlabel="steps", ylabel="held-out loss")
held_out[0].legend()
figure.savefig("train_on_a_budget.png", dpi=100)
