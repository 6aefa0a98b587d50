"""
A chaotic system from a noisy series
====================================

Two variables of Hénon's map and three of Lorenz's flow are measured with noise. A model learned from the
series alone has their attractor, their spectrum and their exponents: its free run is another orbit of the
same system.
"""

import torch
from matplotlib.figure import Figure

from learnsolve import reconstruct_dynamics
from learnsolve.dynamics.measures import agreement
from learnsolve.dynamics.pictures import plot_portrait, plot_spectra
from learnsolve.problems.chaotic import henon, lorenz63, observed

torch.set_num_threads(1)

# %%
# The map first, which takes seconds. Its exponents are 0.419 and -1.623.

res = reconstruct_dynamics(
    observed(henon().orbit(8000, seed=1), noise=0.01, seed=1),
    hidden=50, length=20, steps=3000, learning_rate=1e-2, regularization=0.0,
)  # fmt: skip
print(res)
print("exponents", res.model.lyapunov_spectrum(50_000).exponents.round(3))

# %%
# Where it stays, and whether it would come back: fixed points are found exactly, region by region.

for point in res.model.fixed_points():
    x = point.state.numpy() * res.model.scale + res.model.mean
    print(x.round(3), "stable" if point.stable else "unstable", point.eigenvalues.abs().numpy().round(2))

# %%
# Lorenz's flow, with noise, and few steps; ``learnsolve dynamics fit`` takes 25 000, and comes nearer.

clean = lorenz63(dt=0.04).orbit(20_000, seed=2)
series = observed(lorenz63(dt=0.04).orbit(20_000, seed=1), noise=0.02, seed=1)
flow = reconstruct_dynamics(
    series, dt=0.04, hidden=100, length=30, steps=5000, learning_rate=5e-3, regularization=0.0
)
run = flow.model.simulate(20_000, x0=clean[0], transient=2000)
print(flow)
print("against a clean orbit:", agreement(clean, run))
print("largest exponent", flow.model.lyapunov_spectrum(50_000).exponents[0].round(2), "of 0.906")

# %%
# Both attractors, and how the power of the flow lies over frequencies.

figure = Figure(figsize=(12, 3.8), layout="constrained")
left, middle, right = figure.subplots(1, 3)
points = res.model.simulate(4000, transient=100)
left.plot(*henon().orbit(4000).T, ".", ms=1, label="Hénon")
left.plot(*points.T, ".", ms=1, label="model")
left.legend()
plot_portrait({"Lorenz": clean[:2500], "model": run[:2500]}, middle, variables=(0, 2))
plot_spectra({"Lorenz": clean, "model": run}, right, dt=0.04)
right.set_xlim(0, 5)
figure.savefig("lorenz63.png", dpi=100)
