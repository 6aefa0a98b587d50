"""Schedules under budgets: each at its own best rate, and the ranks that they take.

A rate is chosen by validation, on data that is neither learned from nor judged by. The search goes on beyond
a rate that did best at the end of those tried, so that none is marked unless the ladder itself ends there.
"refined" spends its budget on two runs, each of half the steps: linear decay, and one by its gradient norms.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
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
        That may be tried, rising.
    start : float
        The one of them that is tried first, with its neighbours.
    score : str
        What is judged by.
    """

    run: Callable[[Any], Trained]
    steps: int
    rates: tuple[float, ...]
    start: float
    score: str


@cache
def _task() -> Any:
    """Poisson's equation around discs on 32 by 32 cells; a batch is small, so that gradients are noisy."""
    from benchmarks.elliptic_preconditioner import FamilyTask
    from learnsolve.problems.elliptic_families import ELLIPTIC_FAMILIES

    return FamilyTask(ELLIPTIC_FAMILIES["discs"], cells=32, batch=4, held_out=64)


@cache
def _validation() -> Any:
    """Systems to choose rates by."""
    import torch

    from benchmarks.elliptic_preconditioner import systems
    from learnsolve.training.seeding import seed_of

    generator = torch.Generator().manual_seed(seed_of(0, "validation", 32))
    return systems(_task().family, 32, 32, generator, torch.float64)


def preconditioner(options: Any) -> Trained:
    """A linear multiscale network; scores are mean numbers of iterations to 1e-6."""
    import torch

    from benchmarks.elliptic_preconditioner import MultiscaleNetwork, mean_iterations, residual_left
    from learnsolve.training import fit

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = MultiscaleNetwork(channels=8, levels=4)
    result = fit(network, residual_left, _task().batches, options)
    with torch.no_grad():
        validated, judged = (
            mean_iterations(network, *systems) for systems in (_validation(), _task().held_out)
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


# Rates by factors of about three.
LADDER = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
LEARNERS = {
    "preconditioner": Learner(preconditioner, 800, LADDER, 1e-2, "iterations to 1e-6"),
    "digits": Learner(classifier, 2000, LADDER, 1e-2, "cross entropy"),
}


def budgets(
    learner: Learner, seeds: Sequence[int], shares: Sequence[float] = SHARES
) -> Iterator[dict[str, Any]]:
    """A row for each schedule at each share of the budget."""
    for share in shares:
        steps = max(round(share * learner.steps), 4)
        for name in SCHEDULES:
            scores = searched(partial(_of_seeds, learner, name, steps, seeds), learner.rates, learner.start)
            best = _best(scores)
            yield {
                "schedule": name, "share": share, "steps": steps, "rate": best,
                "edge": best in (learner.rates[0], learner.rates[-1]), "tried": sorted(scores),
                "judged": [one.judged for one in scores[best]],
            }  # fmt: skip


def _of_seeds(learner: Learner, name: str, steps: int, seeds: Sequence[int], rate: float) -> list[Trained]:
    return [_trained(learner, name, steps, rate, seed) for seed in seeds]


def _trained(learner: Learner, name: str, steps: int, rate: float, seed: int) -> Trained:
    """A run, or the second one of two of half the steps."""
    from learnsolve.training import FitOptions
    from learnsolve.training.refinement import refined

    if name != "refined":
        return learner.run(FitOptions(steps, rate, name, seed=seed))
    half = steps // 2
    first = learner.run(FitOptions(half, rate, "linear", seed=seed, gradient_norms=True))
    factors = refined(first.norms[:, 1].numpy(), "adam")
    return learner.run(FitOptions(half, rate, tuple(factors), seed=seed))


def searched(
    run: Callable[[float], list[Trained]], rates: Sequence[float], start: float
) -> dict[float, list[Trained]]:
    """What came of a rate and its neighbours, and of further ones as long as the best is at an end."""
    place = rates.index(start)
    low, high = max(place - 1, 0), min(place + 1, len(rates) - 1)
    scores = {rate: run(rate) for rate in rates[low : high + 1]}
    while True:
        best = _best(scores)
        if best == rates[low] and low > 0:
            low -= 1
            scores[rates[low]] = run(rates[low])
        elif best == rates[high] and high < len(rates) - 1:
            high += 1
            scores[rates[high]] = run(rates[high])
        else:
            return scores


def _best(scores: Mapping[float, Sequence[Trained]]) -> float:
    return min(scores, key=lambda rate: _worst_of_nan([one.validated for one in scores[rate]]))


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
