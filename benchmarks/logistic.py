"""Logistic regression by minibatches: schedules at their own rates, refined ones beside twice the steps.

Multinomial, without a penalty, from weights of zero; features are standardised by the part that is learned
from. A seed splits a set anew, class by class: three fifths are learned from, on a fifth a rate is chosen by
its cross entropy, on a fifth it is judged, of each seed on its own. A refined schedule takes the gradient
norms of the seed's linear run at its chosen rate, and then a rate of its own: two runs, so that linear decay
over twice the steps stands beside it.

All rates and seeds of a schedule are trained at once, in a loop of its own with torch's optimizers and
`BudgetLR`, a group of parameters for each rate: `learnsolve.training.fit` trains one network, and a step of
it takes about as long as one of these, which serves 40.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from scipy.io.arff import loadarff
from scipy.stats import studentized_range
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks import measure
from benchmarks.budgets import ranks
from benchmarks.poisson import consoles
from learnsolve.training import BudgetLR
from learnsolve.training.protocol import interval
from learnsolve.training.refinement import WEIGHTS, refined
from learnsolve.training.run_folder import finite
from learnsolve.training.seeding import seed_of

# Features with a one appended, (n, d + 1), and classes.
Part = tuple[Tensor, Tensor]

SETS = ("iris", "wine", "breast_cancer", "digits")
OPTIMIZERS = ("sgd", "adam")
SCHEDULES = ("constant", "linear", "cosine", "rex")
TWICE = "linear, twice the steps"
RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
SCORES = {"error": "error %", "cross_entropy": "cross entropy"}


@dataclass(frozen=True)
class LabelledSet:
    """Samples of classes.

    Parameters
    ----------
    name : str
    features : (n, d) float64 array
    classes : (n,) int64 array
        From zero on.

    Raises
    ------
    ValueError
        A feature is missing or not finite, there are none, fewer than two classes, or a class has too few
        samples to be in all three parts.
    """

    name: str
    features: NDArray[np.float64]
    classes: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not self.features.shape[-1]:
            raise ValueError(f"{self.name} has no numeric features; one or more are accepted")
        missing = np.argwhere(~np.isfinite(self.features))
        if len(missing):
            row, column = missing[0]
            raise ValueError(
                f"{self.name} has {len(missing)} missing or infinite values, the first in sample {row + 1}, "
                f"feature {column + 1}; finite numbers are accepted"
            )
        counts = np.bincount(self.classes)
        if len(counts) < 2 or counts.min() < 3:
            raise ValueError(
                f"{self.name} has classes of {', '.join(map(str, counts))} samples; two or more classes of "
                "at least 3 are accepted, one for each part"
            )


def from_sklearn(name: str) -> LabelledSet:
    """A set that scikit-learn carries.

    Raises
    ------
    ModuleNotFoundError
        scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{name} comes with scikit-learn, which is not installed: pip install learnsolve[digits], or "
            "--sets without names and --data with files"
        ) from None
    features, classes = getattr(datasets, f"load_{name}")(return_X_y=True)
    return LabelledSet(name, np.asarray(features, float), np.asarray(classes, np.int64))


def read(path: Path) -> LabelledSet:
    """A set out of a file.

    Of .arff the last nominal attribute is the class, numeric ones are features, others are left out. Of .csv
    the first line is names, the last column the class, and all others are features.

    Raises
    ------
    ValueError
        There is no such file, it is of another kind, damaged, or has missing values.
    """
    readers = {".arff": _arff, ".csv": _csv}
    if path.suffix.lower() not in readers or not path.is_file():
        raise ValueError(f"there is no file {path} that ends on .arff or .csv")
    try:
        features, labels = readers[path.suffix.lower()](path)
    except (OSError, ValueError, NotImplementedError, StopIteration, IndexError) as error:
        # All of these, scipy's reader of ARFF raises of files that are damaged or of kinds it does not know.
        raise ValueError(f"{path.name} is no table of numbers and a class: {error}") from None
    if np.isin(labels, ["", "?"]).any():
        raise ValueError(f"{path.name} has missing values among its classes; a name for each is accepted")
    _, classes = np.unique(labels, return_inverse=True)
    return LabelledSet(path.stem, features, classes.astype(np.int64))


def _arff(path: Path) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    records, about = loadarff(path)
    of_kind = {
        kind: [name for name, one in zip(about.names(), about.types(), strict=True) if one == kind]
        for kind in ("nominal", "numeric")
    }
    if not of_kind["nominal"]:
        raise ValueError("there is no nominal attribute; the last one is the class")
    features = np.array([records[name] for name in of_kind["numeric"]])
    return features.reshape(-1, len(records)).T, np.char.decode(records[of_kind["nominal"][-1]])


def _csv(path: Path) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    cells = np.loadtxt(
        path, str, comments=None, delimiter=",", skiprows=1, ndmin=2, encoding="utf-8", quotechar='"'
    )
    return np.where(cells == "", "nan", cells)[:, :-1].astype(float), cells[:, -1]


def split(data: LabelledSet, seed: int) -> list[Part]:
    """What to learn from, to choose a rate by, and to judge by; as large for every seed."""
    rng = np.random.default_rng(seed_of(seed, f"parts of {data.name}", 0))
    number = np.zeros(len(data.classes), int)
    for one in range(data.classes.max() + 1):
        places = rng.permutation(np.flatnonzero(data.classes == one))
        fifth = max(1, round(len(places) / 5))
        number[places[:fifth]], number[places[fifth : 2 * fifth]] = 1, 2
    learned = data.features[number == 0]
    x = (data.features - learned.mean(0)) / np.where(np.ptp(learned, 0) > 0, learned.std(0), 1)
    inputs, classes = torch.from_numpy(np.c_[x, np.ones(len(x))]).float(), torch.from_numpy(data.classes)
    return [(inputs[number == one], classes[number == one]) for one in range(3)]


def order(count: int, steps: int, batch: int, seed: int) -> Tensor:
    """Samples of each step's batch, (steps, batch): none comes twice before each was there once."""
    generator = torch.Generator().manual_seed(seed_of(seed, "batches", 0))
    rounds = -(-steps * batch // count)
    drawn = torch.cat([torch.randperm(count, generator=generator) for _ in range(rounds)])
    return drawn[: steps * batch].view(steps, batch)


def train(
    parts: Sequence[Sequence[Part]],
    orders: Sequence[Tensor],
    optimizer: str,
    profile: Any,
    rates: Sequence[float],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Train at R rates with S seeds.

    Parameters
    ----------
    parts : sequence of (S,) sequences of (Tensor, Tensor)
        For each seed what `split` gives.
    orders : sequence of (steps, batch) int64 Tensor
        For each seed.
    optimizer : {"sgd", "adam"}
        With momentum 0.9, as in `learnsolve.training.fit`; and with torch's defaults.
    profile : str, callable or sequence of float
        As `learnsolve.training.BudgetLR` takes it.
    rates : sequence of float

    Returns
    -------
    scores : (3, R, S) float32 array
        Cross entropy to choose a rate by; and what is judged, as in `SCORES`.
    norms : (steps, R, S, 2) float32 array
        Of gradients: Euclidean, and sums of absolute values.
    """
    (x, y), validated, judged = (
        [torch.stack(one) for one in zip(*part, strict=True)] for part in zip(*parts, strict=True)
    )
    batches = torch.stack(list(orders))
    seeds, steps, batch = batches.shape
    which = torch.arange(seeds)[:, None]
    # Every class has samples in every part.
    weights = [torch.zeros(seeds, x.shape[-1], 1 + int(y.max()), requires_grad=True) for _ in rates]
    groups = [{"params": [one], "lr": rate} for one, rate in zip(weights, rates, strict=True)]
    adam = optimizer == "adam"
    used = torch.optim.Adam(groups, fused=True) if adam else torch.optim.SGD(groups, momentum=0.9, fused=True)
    scheduler = BudgetLR(used, profile, steps)
    norms = torch.empty(steps, len(rates), seeds, 2)

    def entropies(logits: Tensor, wanted: Tensor) -> Tensor:
        every = wanted.expand(logits.shape[:-1])
        return cross_entropy(logits.flatten(0, 2), every.flatten(), reduction="none").view(every.shape)

    for step in range(steps):
        chosen = batches[:, step]
        used.zero_grad()
        logits = x[which, chosen] @ torch.stack(weights)
        (entropies(logits, y[which, chosen]).sum() / batch).backward()
        gradients = torch.stack([one.grad for one in weights if one.grad is not None]).flatten(2)
        for place, kind in enumerate((2, 1)):
            norms[step, ..., place] = torch.linalg.vector_norm(gradients, kind, -1)
        used.step()
        scheduler.step()
    with torch.no_grad():
        both = [(part[0] @ torch.stack(weights), part[1]) for part in (validated, judged)]
        chosen_by, entropy = (entropies(*part).mean(-1) for part in both)
        error = 100 * (both[1][0].argmax(-1) != judged[1]).float().mean(-1)
    return torch.stack([chosen_by, error, entropy]).numpy(), norms.numpy()


def best(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Place of each seed's rate by its validation; runs that flew away are the worst."""
    return np.asarray(np.where(np.isfinite(scores[0]), scores[0], np.inf).argmin(0))


def compare(
    data: LabelledSet, optimizer: str, seeds: Sequence[int], epochs: int, batch: int, rates: Sequence[float]
) -> list[dict[str, Any]]:
    """A row for each schedule."""
    parts = [split(data, seed) for seed in seeds]
    count = len(parts[0][0][1])
    steps = max(2, epochs * count // batch)
    orders, longer = ([order(count, n, batch, seed) for seed in seeds] for n in (steps, 2 * steps))
    found = {name: train(parts, orders, optimizer, name, rates) for name in SCHEDULES}
    scores = {name: one[0] for name, one in found.items()}
    scores[TWICE] = train(parts, longer, optimizer, "linear", rates)[0]
    norms = found["linear"][1][:, best(scores["linear"]), np.arange(len(seeds))]
    for form, (norm, power) in WEIGHTS.items():
        runs = []
        for place in range(len(seeds)):
            its = norms[:, place, ("l2", "l1").index(norm)]
            factors = refined(its[np.isfinite(its) & (its > 0)], "sgd" if form == "sgd" else "adam")
            one = slice(place, place + 1)
            runs.append(train(parts[one], orders[one], optimizer, factors, rates)[0])
        scores[f"refined, {norm}^{power:g}"] = np.concatenate(runs, -1)
    rows = []
    for name, its in scores.items():
        chosen = best(its)
        judged = its[1:, chosen, np.arange(len(seeds))].tolist()
        rows.append({
            "set": data.name, "optimizer": optimizer, "schedule": name,
            "steps": steps if name in SCHEDULES else 2 * steps,
            "rates": [rates[place] for place in chosen], **dict(zip(SCORES, judged, strict=True)),
        })  # fmt: skip
    return rows


def spread(values: Sequence[float], form: str) -> str:
    """The mean, and half the width of its 95 % interval."""
    return f"{np.mean(values):{form}} ± {interval(values):{form}}"


def scores_table(rows: Sequence[dict[str, Any]], rates: Sequence[float]) -> Table:
    """Of a set, what every schedule came to with each optimizer."""
    title = f"{rows[0]['set']}, {rows[0]['steps']} steps; * a rate at the end of the grid"
    shown = Table("schedule", title=title, title_justify="left")
    for optimizer in dict.fromkeys(row["optimizer"] for row in rows):
        for heading in (*SCORES.values(), "rates"):
            shown.add_column(f"{optimizer}: {heading}", justify="right")
    for name in dict.fromkeys(row["schedule"] for row in rows):
        cells = []
        for row in (row for row in rows if row["schedule"] == name):
            low, high = min(row["rates"]), max(row["rates"])
            star = "*" if min(rates) == low or max(rates) == high else ""
            cells += [spread(row["error"], ".2f"), spread(row["cross_entropy"], ".4f")]
            cells.append((f"{low:g}" if low == high else f"{low:g} to {high:g}") + star)
        shown.add_row(name, *cells)
    return shown


def differs(rows: Sequence[dict[str, Any]], name: str, other: str, score: str) -> str:
    """In how many sets a schedule is better than another one, and in how many it is worse.

    Only those count in which the 95 % interval of the differences over seeds is on one side of zero.
    """
    better = worse = 0
    of = {(row["set"], row["schedule"]): row[score] for row in rows}
    for one in dict.fromkeys(row["set"] for row in rows):
        change = np.subtract(of[one, name], of[one, other])
        mean, half = float(np.mean(change)), interval(change.tolist())
        better, worse = better + (mean + half < 0), worse + (mean - half > 0)
    return f"{better} : {worse}"


def places_table(rows: Sequence[dict[str, Any]], optimizer: str) -> Table:
    """Mean places over sets, and in how many of them a schedule is better and worse than linear decay.

    The title has Nemenyi's critical difference of mean places, at 5 %.

    References
    ----------
    J. Demšar, *Statistical comparisons of classifiers over multiple data sets*, JMLR 7, 2006, section 3.2.2.
    """
    its = [row for row in rows if row["optimizer"] == optimizer]
    count, compared = (len({row[name] for row in its}) for name in ("set", "schedule"))
    critical = studentized_range.ppf(0.95, compared, np.inf) * (compared * (compared + 1) / 12 / count) ** 0.5
    title = (
        f"{optimizer}, sets: {count}; mean places, critical difference {critical:.2f}; sets better : worse"
    )
    shown = Table("schedule", title=title, title_justify="left")
    for heading in ("place", "than linear", "than twice the steps"):
        for score in SCORES.values():
            shown.add_column(f"{heading}: {score}", justify="right")
    places = {
        score: ranks(
            [{"schedule": row["schedule"], "share": row["set"], "judged": row[score]} for row in its]
        )
        for score in SCORES
    }
    for name in places["error"]:
        means = [f"{np.mean(list(places[score][name].values())):.2f}" for score in SCORES]
        counts = [differs(its, name, other, score) for other in ("linear", TWICE) for score in SCORES]
        shown.add_row(name, *means, *counts)
    return shown


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(
        prog="python -m benchmarks.logistic", description=__doc__.split("\n")[0]
    )
    command.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS), help="of scikit-learn")
    command.add_argument("--data", nargs="*", type=Path, default=[], metavar="FILE", help=".arff or .csv")
    command.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    command.add_argument("--epochs", type=int, default=30)
    command.add_argument("--batch", type=int, default=16)
    command.add_argument("--rates", type=float, nargs="+", default=list(RATES), help="to choose from")
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    command = parser()
    options = command.parse_args(arguments)
    if min(options.epochs, options.batch) < 1 or not all(0 < rate < np.inf for rate in options.rates):
        command.error("--epochs, --batch and --rates take positive numbers")
    try:
        sets = [*map(from_sklearn, options.sets), *map(read, options.data)]
    except (ValueError, ModuleNotFoundError) as error:
        command.error(str(error))
    names = [one.name for one in sets]
    if not names or len(set(names)) < len(names):
        command.error(
            f"the sets are {', '.join(names) or 'none'}; one or more of different names are accepted"
        )
    torch.set_num_threads(1)
    measure.keep_memory()
    console, progress = consoles()
    rates = sorted(set(options.rates))
    rows: list[dict[str, Any]] = []
    for data in sets:
        found = []
        for optimizer in OPTIMIZERS:
            progress.print(f"[dim]{data.name}, {optimizer}[/]", highlight=False)
            found += compare(data, optimizer, options.seeds, options.epochs, options.batch, rates)
        console.print(scores_table(found, rates))
        rows += found
    for optimizer in OPTIMIZERS:
        console.print(places_table(rows, optimizer))
    told = [{**row, **{score: [finite(one) for one in row[score]] for score in SCORES}} for row in rows]
    options.data = [str(one) for one in options.data]
    path = measure.write_rows("logistic", options, told)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
