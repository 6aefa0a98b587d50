"""
A solver that tunes itself while the simulation runs
====================================================

The heat equation with a coefficient that changes a hundredfold, by implicit steps: each is a linear system,
and the best over-relaxation is another one for each. A bandit that hears of iteration counts alone finds
a good one for all, and one that is told the coefficient a good one for each.
"""

# %%
# Four ways to solve two thousand systems.

from matplotlib.figure import Figure

import learnsolve
from learnsolve.online import TunedSSORCG
from learnsolve.plots import plot_choices, plot_regret
from learnsolve.preconditioners import SSORPreconditioner
from learnsolve.problems.heat import Heat

STEPS = 2000


def simulate(method, M=None, tell=None):
    """Iterations of each step, and what was chosen for it."""
    heat, iterations, choices = Heat(32), [], []
    for _ in range(STEPS):
        problem = heat.problem()
        if tell is not None:
            tell(problem.context)
        result = learnsolve.solve(problem.A, problem.b, method=method, M=M, x0=heat.u, rtol=1e-8, check=True)
        heat.accept(result.x)
        iterations.append(result.iterations)
        choices.append(result.extras.get("choice"))
    return iterations, choices


now = {"diffusion": 0.0}
contextual = TunedSSORCG("chebcb", context=lambda A: now["diffusion"])
runs = {
    "omega 1": simulate("cg", SSORPreconditioner(1.0, "lexicographic")),
    "omega 1.6": simulate("cg", SSORPreconditioner(1.6, "lexicographic")),
    "Tsallis-INF": simulate(TunedSSORCG("tsallis-inf")),
    "ChebCB": simulate(contextual, tell=lambda diffusion: now.update(diffusion=diffusion)),
}
for name, (iterations, _) in runs.items():
    print(f"{name}: {sum(iterations)} iterations")

# %%
# What each has cost beyond a good fixed value, and what was chosen.

figure = Figure(figsize=(9, 4), layout="constrained")
left, right = figure.subplots(1, 2)
for name, (iterations, choices) in runs.items():
    plot_regret(iterations, runs["omega 1.6"][0], left, label=name)
    if choices[0] is not None:
        plot_choices(choices, right, label=name)
figure.savefig("tuned_heat.png", dpi=120)

# %%
# The method goes into the simulation's checkpoint, and goes on as if nothing had been.

contextual.save("tuned_heat.json")
again = TunedSSORCG.load("tuned_heat.json", context=lambda A: now["diffusion"])
print(again.policies[0].rounds, "systems are remembered")
