"""
A network proposes, conjugate directions certify
================================================

The Deep Conjugate Direction Method asks a network for each search direction, makes it conjugate to the
last two and takes the exact step along it. The shipped network was trained on grids of at most 128 cells an
axis. Here it meets the pressure equation of a smoke plume among obstacles, on one more than twice as large.
"""

# %%
# A plume rises past two balls and a beam for some steps; its next pressure equation is the problem.

from matplotlib.figure import Figure

import learnsolve
from learnsolve.methods import DCDM
from learnsolve.plots import plot_convergence, plot_field
from learnsolve.problems.pressure import pressure_systems
from learnsolve.problems.smoke_scene import Box, Sphere

obstacles = [Sphere((0.5, 0.4), 0.08), Sphere((0.9, 0.65), 0.1), Box((1.2, 0.3), (0.06, 0.3))]
*_, problem = pressure_systems((288, 192), 12, obstacles=obstacles, seed=0)

# %%
# Two methods, one tolerance. Whatever the network says, the answer is certified by its true residual.

results = {
    "conjugate gradients": learnsolve.solve(problem.A, problem.b, method="cg", rtol=1e-6),
    "deep conjugate directions": learnsolve.solve(
        problem.A, problem.b, method=DCDM.load("poisson2d"), rtol=1e-6
    ),
}
for name, result in results.items():
    print(f"{name}: {result!r}")
print(results["deep conjugate directions"].extras)

# %%
# The residuals, and the pressure.

figure = Figure(figsize=(9, 4), layout="constrained")
left, right = figure.subplots(1, 2)
for name, result in results.items():
    plot_convergence(result, left, label=f"{name}: {result.iterations}")
left.set_xscale("symlog", linthresh=10)
plot_field(results["deep conjugate directions"].x, right, problem.A.cells)
figure.savefig("dcdm_obstacles.png", dpi=120)
