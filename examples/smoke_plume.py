"""
A smoke plume past obstacles
============================

Warm smoke rises from a source, meets a ball and a paddle that swings to and fro, and leaves through
the open top. In every step the pressure makes the flow free of divergence: one Poisson equation over
the fluid cells, with no flux through solids and the value zero in the air.
"""

# %%
# The scene
# ---------
# Lengths are in widths of the domain; axis 0 points up. An obstacle with a velocity moves, and gives
# its velocity to the fluid at its surface.

import math
import statistics

from matplotlib.figure import Figure

import learnsolve
from learnsolve.plots import plot_convergence, plot_smoke
from learnsolve.problems.smoke import Box, SmokeSimulation, Sphere

ball = Sphere((0.55, 0.40), 0.10)
paddle = Box((1.00, 0.55), (1.06, 0.80), velocity=lambda t: (0.0, 0.4 * math.cos(2 * t)))
sim = SmokeSimulation((144, 96), obstacles=[ball, paddle], dt=0.02)

# %%
# Time steps
# ----------
# A step calls :func:`learnsolve.prepare` on the new geometry and starts the solve from the last
# pressure, so that only a few iterations are needed.

figure = Figure(figsize=(9, 5), layout="constrained")
reports = []
for panel in range(3):
    reports += [sim.step() for _ in range(45)]
    plot_smoke(sim, figure.add_subplot(1, 3, panel + 1))
figure.savefig("smoke_plume.png", dpi=120)

print("median iterations:", statistics.median(r.iterations for r in reports))
print("median step, s:", round(statistics.median(r.step_seconds for r in reports), 4))
print("largest divergence:", max(r.divergence for r in reports))

# %%
# The last pressure equation
# --------------------------
# It is an ordinary linear problem, and any method can be tried on it.

A, b = sim.pressure_problem().A, sim.pressure_problem().b
ax = plot_convergence(learnsolve.solve(A, b, method="cg", M="multigrid", rtol=1e-8))
plot_convergence(learnsolve.solve(A, b, method="cg", rtol=1e-8), ax)
ax.figure.savefig("smoke_plume_convergence.png", dpi=120)
