"""
A coefficient field from a few observed solutions
=================================================

How well does each part of a plate conduct heat? A few heat sources are switched on, one at a time,
and the temperatures are measured. Gradient descent through :func:`learnsolve.prepare` finds the field:
the solve's gradient is one more solve with the same operator, whatever the number of iterations.
"""

# %%
# The plate, kept at zero at its boundary, with a good and a bad conductor in it, and the measurements.

import torch
from matplotlib.figure import Figure

import learnsolve
from learnsolve.operators import GridPoisson
from learnsolve.plots import plot_field

n = 24
cells = torch.zeros(n, n, dtype=torch.int8)
y, x = torch.meshgrid(*2 * [torch.linspace(0, 1, n, dtype=torch.float64)], indexing="ij")
truth = 1.0 + 2.0 * torch.exp(-((y - 0.3) ** 2 + (x - 0.35) ** 2) / 0.02)
truth = truth - 0.7 * torch.exp(-((y - 0.7) ** 2 + (x - 0.65) ** 2) / 0.02)
centres = [(0.2, 0.2), (0.2, 0.8), (0.5, 0.5), (0.8, 0.2), (0.8, 0.8)]
sources = [torch.exp(-((y - a) ** 2 + (x - c) ** 2) / 0.01) for a, c in centres]


def temperatures(conductivity):
    """Temperatures for each source."""
    plate = learnsolve.prepare(GridPoisson(cells, coefficients=conductivity, boundary="dirichlet"))
    return torch.stack([plate.solve(b, rtol=1e-8).x for b in sources])


measured = temperatures(truth)

# %%
# Gradient descent on the logarithm of the field, which keeps the field positive.

log_field = torch.zeros(n, n, dtype=torch.float64, requires_grad=True)
descent = torch.optim.LBFGS([log_field], max_iter=10, history_size=20, line_search_fn="strong_wolfe")


def misfit():
    """Relative squared misfit, with its gradient."""
    descent.zero_grad()
    loss = ((temperatures(log_field.exp()) - measured) ** 2).sum() / (measured**2).sum()
    loss.backward()
    return loss


for rounds in range(5):
    error = (log_field.detach().exp() - truth).norm() / truth.norm()
    misfit_before = descent.step(misfit).item()
    print(f"{10 * rounds:2d} iterations: misfit {misfit_before:.1e}, error of the field {error:.3f}")

figure = Figure(figsize=(8, 4), layout="constrained")
for ax, field in zip(figure.subplots(1, 2), (truth, log_field.exp()), strict=True):
    plot_field(field, ax, vmin=0, vmax=3, colorbar=True)
figure.savefig("differentiable_solve.png", dpi=120)
