"""
Tuned on one stream, judged on another
======================================

A fixed over-relaxation and two bandits that look for one are compared on sequences of linear systems. Each of
them has settings, and each is shown at its best if its best settings are looked up on the systems on which it
is shown. So they are chosen on one stream, and judged, unchanged, on another that is made afterwards.
"""

from rich.console import Console

import learnsolve
from learnsolve.methods import SOR
from learnsolve.online import ChebCB, TsallisINF, TunedSOR
from learnsolve.problems.heat import shifted
from learnsolve.training.protocol import Choice, Contender, Uniform, two_phase_evaluate

# %%
# A stream has a sequence of systems for each seed. In the first one the shift of the matrix is drawn at
# random for each system; in the second it moves through its whole range, slowly.

SEEDS, SYSTEMS = range(2), 30


def stream(kind, first):
    """Sequences by their seeds."""
    return {seed: list(shifted(SYSTEMS, kind, shape=(8, 8), seed=first + seed)) for seed in SEEDS}


# %%
# A method is a function of settings, a stream and a seed that gives a score, here mean iterations; and where
# its settings are drawn from. Bandits begin anew with each sequence.


def iterations(method, systems):
    """The mean over a sequence."""
    options = {"method": method, "rtol": 1e-4, "maxiter": 10_000}
    return sum(learnsolve.solve(step.A, step.b, **options).iterations for step in systems) / len(systems)


def fixed(settings, stream, seed):
    """One over-relaxation for all."""
    return iterations(SOR(settings["omega"], "lexicographic"), stream[seed])


def bandit(kind):
    """One that is looked for while the systems are solved."""

    def run(settings, stream, seed):
        policy = kind(seed=seed, **settings)
        return iterations(TunedSOR(policy, arms=policy.arms, order="lexicographic"), stream[seed])

    return run


contenders = {
    "fixed omega": Contender(fixed, {"omega": Uniform(1.0, 1.95)}),
    "Tsallis-INF": Contender(bandit(TsallisINF), {"arms": Choice(3, 5, 10, 20)}),
    "ChebCB": Contender(bandit(ChebCB), {"arms": Choice(5, 10, 20), "degree": Choice(3, 5, 10)}),
}

# %%
# Every method gets as many trials. The second stream is asked for when all settings are chosen.

found = two_phase_evaluate(
    contenders,
    tune=stream("high", first=0),
    evaluate=lambda: stream("drift", first=100),
    trials=6,
    seeds=SEEDS,
)
Console(width=110).print(found.table("mean iterations"))

# %%
# A gap is what the best tuned score has promised too much, or how much harder the second stream is: it is the
# places that can be compared.

for row in found.rows:
    tuned, evaluated = (found.ranks(phase)[row.method] for phase in ("tuned", "evaluated"))
    print(f"{row.method}: place {tuned}, then {evaluated}")
