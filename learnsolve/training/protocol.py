"""The two-phase protocol: settings are sought on one stream of problems, and judged on another.

A method's best score over many settings, on the data on which they were sought, says how well it was
searched, not how good it is. Here every method gets equally many random trials on the first stream; the
settings that did best there are used, unchanged, on a second one with other data, which nothing sees before.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from rich.table import Table
from scipy.stats import t as student

from learnsolve.training.seeding import seed_of


@dataclass(frozen=True)
class Choice:
    """One of some values, each as likely."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        if not values:
            raise ValueError("a Choice has no values; at least one is accepted")
        object.__setattr__(self, "values", values)

    def draw(self, rng: np.random.Generator) -> Any:
        """A value."""
        return self.values[int(rng.integers(len(self.values)))]


@dataclass(frozen=True)
class Uniform:
    """A number between two, uniform."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(
                f"a range from {self.low} to {self.high}; two finite numbers that rise are accepted"
            )

    def draw(self, rng: np.random.Generator) -> float:
        """A number."""
        return float(rng.uniform(self.low, self.high))


@dataclass(frozen=True)
class LogUniform(Uniform):
    """A positive number between two, whose logarithm is uniform."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low <= 0:
            raise ValueError(f"low is {self.low}; a positive number is accepted")

    def draw(self, rng: np.random.Generator) -> float:
        """A number."""
        return float(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))


@dataclass(frozen=True)
class Contender:
    """A method with settings to be chosen.

    Parameters
    ----------
    run : callable
        ``run(settings, data, seed)``: do the work on data with settings, a dict, and give a score. One that
        is not finite counts as the worst.
    space : mapping of str to Choice, Uniform or LogUniform
        Where each setting is drawn from; empty for a method that has none.
    """

    run: Callable[[dict[str, Any], Any, int], float]
    space: Mapping[str, Choice | Uniform]


@dataclass(frozen=True)
class Phases:
    """A method in both phases.

    Attributes
    ----------
    method : str
    settings : dict
        Those that did best where they were sought.
    tuned : tuple of float
        Scores with them there, one of each seed.
    evaluated : tuple of float
        Scores with them on the other data.
    trials : tuple of (dict, float)
        All settings that were tried, with the mean of their scores.
    """

    method: str
    settings: dict[str, Any]
    tuned: tuple[float, ...]
    evaluated: tuple[float, ...]
    trials: tuple[tuple[dict[str, Any], float], ...]

    @property
    def gap(self) -> float:
        """By how much the mean score changed from the first phase to the second."""
        return float(np.mean(self.evaluated) - np.mean(self.tuned))


@dataclass(frozen=True)
class TwoPhase:
    """What `two_phase_evaluate` found.

    Attributes
    ----------
    rows : tuple of Phases
        Of each method, the best of the second phase first.
    better : {"less", "more"}
        Which scores are.
    """

    rows: tuple[Phases, ...]
    better: Literal["less", "more"]

    def ranks(self, phase: Literal["tuned", "evaluated"]) -> dict[str, int]:
        """Place of each method, from one on, by its mean score in a phase."""
        order = sorted(self.rows, key=lambda row: _worth(_mean(getattr(row, phase)), self.better))
        return {row.method: place for place, row in enumerate(order, 1)}

    def table(self, title: str = "tuned on one stream, judged on another") -> Table:
        """Both phases, with 95 % intervals over seeds, the gap, and places."""
        shown = Table(title=f"{title}; {self.better} is better", title_justify="left")
        for heading in ("method", "settings"):
            shown.add_column(heading)
        for heading in ("tuned", "evaluated", "gap", "place: tuned", "evaluated"):
            shown.add_column(heading, justify="right")
        first, second = self.ranks("tuned"), self.ranks("evaluated")
        for row in self.rows:
            settings = ", ".join(f"{name} {_text(value)}" for name, value in row.settings.items())
            both = (f"{_mean(one):.4g} ± {interval(one):.2g}" for one in (row.tuned, row.evaluated))
            places = str(first[row.method]), str(second[row.method])
            shown.add_row(row.method, settings, *both, f"{row.gap:+.3g}", *places)
        return shown

    def to_json(self) -> str:
        """All of it, every trial included; numbers that are not finite are null."""
        rows = [asdict(row) | {"gap": row.gap} for row in self.rows]
        return json.dumps(_finite({"better": self.better, "rows": rows}), indent=1)


def interval(scores: Sequence[float], level: float = 0.95) -> float:
    """Half the width of Student's interval for the mean; infinite of a single score.

    Examples
    --------
    >>> from learnsolve.training.protocol import interval
    >>> round(interval([1.0, 2.0, 3.0]), 3)
    2.484
    """
    n = len(scores)
    if n < 2:
        return math.inf
    return float(student.ppf((1 + level) / 2, n - 1) * np.std(scores, ddof=1) / math.sqrt(n))


def two_phase_evaluate(
    contenders: Mapping[str, Contender],
    *,
    tune: Any,
    evaluate: Callable[[], Any],
    trials: int = 30,
    seeds: Sequence[int] = range(5),
    better: Literal["less", "more"] = "less",
    seed: int = 0,
    callback: Callable[[str, dict[str, Any], float], Any] | None = None,
) -> TwoPhase:
    """Choose settings of each method on one stream, and judge it on another.

    Parameters
    ----------
    contenders : mapping of str to Contender
        Methods of any kind: preconditioners, reconstruction, continual learners.
    tune
        Data of the first phase, as every ``run`` takes it.
    evaluate : callable
        Makes the data of the second phase; called when all settings are chosen, so that none can depend on
        them.
    trials : int
        Random settings of each method, the same number for all. A method without settings has one.
    seeds : sequence of int
        Each setting is tried with each, in both phases.
    better : {"less", "more"}
    seed : int
        For the settings. Those of a method depend on its name, not on who else is there.
    callback : callable, optional
        Gets the name, the settings and the mean score of each trial.

    Returns
    -------
    TwoPhase

    Raises
    ------
    ValueError
        There are no methods or seeds, or a number is not accepted.

    References
    ----------
    S. Cha, K. Cho, *Hyperparameters in continual learning: a reality check*, TMLR 2025.

    Examples
    --------
    >>> from learnsolve.training.protocol import Contender, Uniform, two_phase_evaluate
    >>> def run(settings, data, seed):
    ...     return (settings["x"] - data) ** 2
    >>> found = two_phase_evaluate(
    ...     {"search": Contender(run, {"x": Uniform(0, 1)})}, tune=0.5, evaluate=lambda: 0.9, trials=20
    ... )
    >>> found.rows[0].gap > 0
    True
    """
    if not contenders or not seeds:
        raise ValueError(
            f"there are {len(contenders)} contenders and {len(seeds)} seeds; one or more of each are accepted"
        )
    if trials < 1 or better not in ("less", "more"):
        raise ValueError(
            f"trials is {trials} and better {better!r}; at least 1, and 'less' or 'more', are accepted"
        )
    chosen = {}
    for name, contender in contenders.items():
        rng = np.random.default_rng(seed_of(seed, f"settings of {name}", 0))
        done: list[tuple[dict[str, Any], tuple[float, ...]]] = []
        for _ in range(trials if contender.space else 1):
            settings = {key: drawn.draw(rng) for key, drawn in contender.space.items()}
            done.append((settings, _scores(contender, settings, tune, seeds)))
            if callback is not None:
                callback(name, settings, _mean(done[-1][1]))
        best = min(done, key=lambda one: _worth(_mean(one[1]), better))
        chosen[name] = (*best, tuple((settings, _mean(scores)) for settings, scores in done))
    data = evaluate()
    rows = [
        Phases(name, settings, scores, _scores(contenders[name], settings, data, seeds), tried)
        for name, (settings, scores, tried) in chosen.items()
    ]
    rows.sort(key=lambda row: _worth(_mean(row.evaluated), better))
    return TwoPhase(tuple(rows), better)


def _scores(
    contender: Contender, settings: dict[str, Any], data: Any, seeds: Sequence[int]
) -> tuple[float, ...]:
    return tuple(float(contender.run(dict(settings), data, one)) for one in seeds)


def _mean(scores: Sequence[float]) -> float:
    return float(np.mean(scores))


def _worth(score: float, better: str) -> float:
    """What is least of the best score; what is not finite is worst."""
    if not math.isfinite(score):
        return math.inf
    return score if better == "less" else -score


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _finite(value: Any) -> Any:
    """With None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
