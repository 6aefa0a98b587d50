"""Schedules under budgets: each at its own best rate, and the ranks that they take.

A rate is chosen by validation, on data that is neither learned from nor judged by; one at the end of the grid
is marked, for a better one may lie beyond it. "refined" spends two runs of its budget: linear decay, and one
by its gradient norms.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from rich.table import Table
from scipy.stats import rankdata

SCHEDULES = ("constant", "rex", "linear", "cosine", "step", "exponential", "polynomial", "refined")
SHARES = (0.01, 0.05, 0.25, 1.0)
LOW = 0.05


@dataclass(frozen=True)
class Trained:
    """What came of a run: a score to choose by, one to judge by, both better if less; and gradient norms."""

    validated: float
    judged: float
    norms: Any


@dataclass(frozen=True)
class Learner:
    """What is trained under a budget.

    Attributes
    ----------
    run : callable
        Gets `learnsolve.training.FitOptions`.
    steps : int
        The whole budget.
    rates : tuple of float
    score : str
        What is judged by.
    """

    run: Callable[[Any], Trained]
    steps: int
    rates: tuple[float, ...]
    score: str


@cache
def _systems(first: int, count: int) -> list[Any]:
    """Poisson's equation around obstacles on 32 by 32 cells, with noise on the right."""
    import torch

    from learnsolve.problems.poisson import obstacles

    found = [obstacles((32, 32), seed, rhs="noise") for seed in range(first, first + count)]
    return [(problem.A, torch.from_numpy(problem.b)) for problem in found]


def preconditioner(options: Any) -> Trained:
    """A direction network; scores are mean numbers of iterations to 1e-6, at most 200 each."""
    from learnsolve.methods.dcdm_network import NetworkOptions
    from learnsolve.methods.dcdm_training import DCDMTraining, Source, iterations, train

    network = NetworkOptions(dims=2, channels=8, half=1)
    sources = [Source(A) for A, _ in _systems(0, 8)]
    trained, result = train(DCDMTraining(network, options, cells=4096), sources)
    validated, judged = (
        float(np.mean([iterations(trained, A, b, 1e-6, 200) for A, b in _systems(first, 8)]))
        for first in (1000, 2000)
    )
    return Trained(validated, judged, result.gradient_norms)


def classifier(options: Any) -> Trained:
    """A perceptron that tells digits; scores are cross entropies."""
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy

    from learnsolve.problems.digits import digits
    from learnsolve.training import fit

    images, classes = digits("learned")
    kept = torch.arange(len(images)) % 6 > 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    x, y = images[kept], classes[kept]

    def batches(number: int, generator: Any) -> Any:
        chosen = torch.randint(len(x), (32,), generator=generator)
        return x[chosen], y[chosen]

    result = fit(network, lambda wrapped, batch: cross_entropy(wrapped(batch[0]), batch[1]), batches, options)
    with torch.no_grad():
        parts = (images[~kept], classes[~kept]), digits("judged")
        validated, judged = (float(cross_entropy(network(one), wanted)) for one, wanted in parts)
    return Trained(validated, judged, result.gradient_norms)


LEARNERS = {
    "preconditioner": Learner(preconditioner, 400, (2e-3, 6e-3, 2e-2), "iterations to 1e-6"),
    "digits": Learner(classifier, 2000, (3e-4, 1e-3, 3e-3, 1e-2, 3e-2), "cross entropy"),
}


def budgets(
    learner: Learner, seeds: Sequence[int], shares: Sequence[float] = SHARES
) -> Iterator[dict[str, Any]]:
    """A row for each schedule at each share of the budget."""
    from learnsolve.training import FitOptions
    from learnsolve.training.refinement import refined

    for share in shares:
        steps = max(round(share * learner.steps), 2)
        for name in SCHEDULES:
            scores: dict[float, list[Trained]] = {}
            for rate in learner.rates:
                scores[rate] = []
                for seed in seeds:
                    options = FitOptions(
                        steps, rate, "linear" if name == "refined" else name, seed=seed,
                        gradient_norms=name == "refined",
                    )  # fmt: skip
                    found = learner.run(options)
                    if name == "refined":
                        factors = refined(found.norms[:, 1].numpy(), "adam")
                        found = learner.run(FitOptions(steps, rate, tuple(factors), seed=seed))
                    scores[rate].append(found)
            best = min(scores, key=lambda rate: _worst_of_nan([one.validated for one in scores[rate]]))
            yield {
                "schedule": name, "share": share, "steps": steps, "rate": best,
                "edge": best in (learner.rates[0], learner.rates[-1]),
                "judged": [one.judged for one in scores[best]],
            }  # fmt: skip


def _worst_of_nan(scores: Sequence[float]) -> float:
    mean = float(np.mean(scores))
    return mean if np.isfinite(mean) else np.inf


def ranks(rows: Sequence[dict[str, Any]]) -> dict[str, dict[float, float]]:
    """Of each schedule, at each share, its place by the mean score; the same for two that are level."""
    found: dict[str, dict[float, float]] = {row["schedule"]: {} for row in rows}
    for share in dict.fromkeys(row["share"] for row in rows):
        its = [row for row in rows if row["share"] == share]
        places = rankdata([_worst_of_nan(row["judged"]) for row in its])
        for row, place in zip(its, places, strict=True):
            found[row["schedule"]][share] = float(place)
    return found


def tables(rows: Sequence[dict[str, Any]], title: str, score: str) -> list[Table]:
    """Scores with their intervals, and places."""
    from learnsolve.training.protocol import interval

    shares = list(dict.fromkeys(row["share"] for row in rows))
    places = ranks(rows)
    shown = Table(title=f"{title}: {score}; * a rate at the end of the grid", title_justify="left")
    ranked = Table(title=f"{title}: places", title_justify="left")
    for one in (shown, ranked):
        one.add_column("schedule")
    for share in shares:
        shown.add_column(f"{share:.0%}", justify="right")
        ranked.add_column(f"{share:.0%}", justify="right")
    for heading in ("low budgets", "high budgets"):
        ranked.add_column(heading, justify="right")
    for name, its in places.items():
        cells = []
        for share in shares:
            row = next(one for one in rows if (one["schedule"], one["share"]) == (name, share))
            star = "*" if row["edge"] else ""
            cells.append(
                f"{np.mean(row['judged']):.4g} ± {interval(row['judged']):.1g} at {row['rate']:g}{star}"
            )
        shown.add_row(name, *cells)
        low = [place for share, place in its.items() if share <= LOW]
        high = [place for share, place in its.items() if share > LOW]
        means = (f"{np.mean(some):.2f}" if some else "-" for some in (low, high))
        ranked.add_row(name, *(f"{its[share]:g}" for share in shares), *means)
    return [shown, ranked]
