"""What lies between two networks: perceptrons that tell digits, judged by images that none has learned from.

matching: the barrier between networks that began apart, as they are and with their units in one order, and
what `merge` says of their averages. layers: what averaging one layer costs, beside what second derivatives,
or the distance alone, say of it. fork: the barrier between two branches of a run, by the epoch at which they
part. mountainside: a surface that is fitted to losses in the plane through two networks, without the line
between them, and the barrier there.
"""

import argparse
import copy
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.table import Table
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks import measure
from benchmarks.poisson import consoles
from learnsolve.files import replacing
from learnsolve.problems.digits import digits
from learnsolve.training.connectivity import averaged, barrier, layer_barriers, layer_estimates, layers_of
from learnsolve.training.landscape import (
    Mountainside,
    Plane,
    fit_mountainside,
    measure_plane,
    plot_mountainside,
)
from learnsolve.training.matching import match, permuted
from learnsolve.training.merging import MergeError, merge
from learnsolve.training.protocol import interval
from learnsolve.training.schedules import factor_at, linear
from learnsolve.training.seeding import seed_of, seeded
from learnsolve.training.symmetries import symmetries

Row = dict[str, Any]

# What is asked of the barrier, naive and matched, and of the rank correlation of estimates.
APART, TOGETHER, CORRELATED = 0.3, 0.05, 0.7
ORDERS = "naive", "matched"
RESAMPLES = 1000


@dataclass(frozen=True)
class Setting:
    """A perceptron and how it learns."""

    width: int
    depth: int
    epochs: int
    batch: int
    rate: float

    def network(self, seed: int) -> nn.Module:
        """One of random weights."""
        sizes = [64, *[self.width] * self.depth]
        with seeded(seed_of(seed, "perceptron", 0), torch.device("cpu")):
            hidden = [(nn.Linear(*some), nn.ReLU()) for some in pairwise(sizes)]
            return nn.Sequential(nn.Flatten(), *sum(hidden, ()), nn.Linear(self.width, 10))

    def learn(
        self,
        network: nn.Module,
        order: tuple[int, str],
        epochs: tuple[int, int],
        classes: Sequence[int] = range(10),
    ) -> nn.Module:
        """Some epochs of a run by SGD, in place, on some classes, whose images are repeated.

        An epoch has as many steps whatever the classes. The order of images depends on it and on ``order``.
        """
        images, labels = digits("learned")
        steps = len(images) // self.batch
        kept = torch.isin(labels, torch.tensor(classes)).nonzero().flatten()
        optimizer = torch.optim.SGD(network.parameters(), lr=self.rate)
        for epoch in range(*epochs):
            generator = torch.Generator().manual_seed(seed_of(*order, epoch))
            rounds = -(-steps * self.batch // len(kept))
            drawn = torch.cat([kept[torch.randperm(len(kept), generator=generator)] for _ in range(rounds)])
            for step, chosen in enumerate(drawn[: steps * self.batch].split(self.batch)):
                factor = factor_at(linear, epoch * steps + step, self.epochs * steps)
                optimizer.param_groups[0]["lr"] = self.rate * factor
                optimizer.zero_grad()
                cross_entropy(network(images[chosen]), labels[chosen]).backward()
                optimizer.step()
        return network


@cache
def run(setting: Setting, seed: int) -> tuple[nn.Module, nn.Module]:
    """A network before and after it has learned."""
    first = setting.network(seed)
    return first, setting.learn(copy.deepcopy(first), (seed, "order"), (0, setting.epochs))


def pairs_of(setting: Setting, count: int) -> Iterator[tuple[int, nn.Module, nn.Module]]:
    """Networks that have learned; none is in two pairs."""
    for pair in range(count):
        yield pair, run(setting, 2 * pair)[1], run(setting, 2 * pair + 1)[1]


def held_out(network: nn.Module) -> Tensor:
    """The cross entropy on images that are not learned from."""
    images, classes = digits("judged")
    return cross_entropy(network(images), classes)


def correct(*networks: nn.Module) -> float:
    """The share of those images that a network, or the average of several, names rightly."""
    images, classes = digits("judged")
    network = averaged(networks, [1 / len(networks)] * len(networks))
    return float((network(images).argmax(-1) == classes).double().mean())


def in_order_of(a: nn.Module, b: nn.Module, *others: nn.Module) -> tuple[nn.Module, ...]:
    """A network in the order of a reference, and others in which its units have the same places."""
    found = match(a, b, digits("learned")[0][:1])
    return tuple(permuted(network, found) for network in (b, *others))


def shuffled(network: nn.Module, seed: int) -> nn.Module:
    """The same function, with units in any order."""
    generator = torch.Generator().manual_seed(seed_of(seed, "permutation", 0))
    found = symmetries(network, digits("learned")[0][:1])
    drawn = {name: torch.randperm(len(units.order), generator=generator) for name, units in found.items()}
    return permuted(network, {name: replace(found[name], order=order) for name, order in drawn.items()})


def matching(setting: Setting, options: argparse.Namespace) -> Iterator[Row]:
    """Of each pair: barriers, accuracies, and what `merge` says."""
    for pair, a, b in pairs_of(setting, options.pairs):
        turned = shuffled(a, pair)
        row: Row = {
            "pair": pair, "parents": [correct(a), correct(b)],
            "permuted": barrier(a, turned, held_out).height,
            "permuted_matched": barrier(a, in_order_of(a, turned)[0], held_out).height,
        }  # fmt: skip
        for name, other in zip(ORDERS, (b, in_order_of(a, b)[0]), strict=True):
            row |= {name: barrier(a, other, held_out).height, f"{name}_middle": correct(a, other)}
            try:
                merge([a, b], loss=held_out, accept=options.accept, align=name == "matched")
                row[f"{name}_accepted"] = True
            except MergeError:
                row[f"{name}_accepted"] = False
        yield row


def layers(setting: Setting, options: argparse.Namespace) -> Iterator[Row]:
    """Of each layer of each pair, from each of its networks: what is measured and what is estimated."""
    for pair, a, b in pairs_of(setting, options.pairs):
        for order, other in zip(ORDERS, (b, in_order_of(a, b)[0]), strict=True):
            for start, one, two in (("first", a, other), ("second", other, a)):
                measured = layer_barriers(one, two, held_out)
                starts, middles = (layer_estimates(one, two, held_out, around=w) for w in ("start", "middle"))
                parts = one.state_dict(), two.state_dict()
                for layer, names in layers_of(one).items():
                    d = torch.cat([(parts[1][name] - parts[0][name]).flatten() for name in names])
                    yield {
                        "pair": pair, "order": order, "start": start, "layer": layer,
                        "barrier": measured[layer].middle, "bend": measured[layer].bend,
                        "from start": starts[layer], "from middle": middles[layer],
                        "distance": float(d.square().sum()),
                    }  # fmt: skip


def fork(setting: Setting, options: argparse.Namespace) -> Iterator[Row]:
    """Two branches of each run: of all images by several rates, and of half of the classes each."""
    conditions = {f"rate {rate:g}": (rate, (range(10), range(10))) for rate in options.fork_rates}
    conditions[f"halves of the classes, rate {setting.rate:g}"] = setting.rate, (range(5), range(5, 10))
    for name, (rate, parts) in conditions.items():
        its = replace(setting, rate=rate)
        for pair in range(options.pairs):
            trunk, done = its.network(pair), 0
            for epoch in sorted(options.fork_at):
                its.learn(trunk, (pair, "trunk"), (done, epoch))
                done = epoch
                a, b = (
                    its.learn(copy.deepcopy(trunk), (pair, f"branch {k}"), (epoch, its.epochs), part)
                    for k, part in enumerate(parts)
                )
                found = barrier(a, b, held_out)
                yield {
                    "condition": name, "epoch": epoch, "pair": pair, "height": found.height,
                    "middle": found.middle, "ends": found.ends, "branches": [correct(a), correct(b)],
                    "average": correct(a, b),
                }  # fmt: skip


def mountainside(setting: Setting, options: argparse.Namespace) -> Iterator[Row]:
    """Of each pair: the barrier, and what a surface has that fits all of the plane but its line v = 1."""
    for pair, a, b in pairs_of(setting, options.pairs):
        before, after = (run(setting, seed)[0] for seed in (2 * pair, 2 * pair + 1))
        for order, (other, begun) in zip(ORDERS, ((b, after), in_order_of(a, b, after)), strict=True):
            plane = measure_plane(averaged([before, begun], [0.5, 0.5]), a, other, held_out)
            surface, explained = fit_mountainside(Plane(plane.u, plane.v[:-1], plane.losses[:-1]))
            if options.plot is not None and (pair, order) == (0, ORDERS[0]):
                draw(surface, plane, options.plot)
            yield {
                "pair": pair, "order": order, "measured": barrier(a, other, held_out).height,
                "predicted": surface.barrier((-1, 1), (1, 1)), "explained": explained,
                "ends": [float(surface(u, 1.0)) for u in (-1, 1)], "top": float(surface(0, 1.0)),
                "measured_ends": plane.losses[-1, [0, -1]].tolist(),
                "measured_top": float(plane.losses[-1, len(plane.u) // 2]),
            }  # fmt: skip


def draw(surface: Mountainside, plane: Plane, path: Path) -> None:
    """The surface with the measured lines, and the losses between the networks."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    plot_mountainside(surface, left, plane=plane).set_title("fitted (filled) and measured (dashed)")
    across = np.linspace(-1, 1, 101)
    right.plot(plane.u, plane.losses[-1], "o", label="measured")
    right.plot(across, surface(across, 1.0), label="predicted")
    right.set(xlabel="across, u, at v = 1", ylabel="loss", xticks=np.linspace(-1, 1, 5))
    right.legend(frameon=False)
    with replacing(path) as part:
        figure.savefig(part, dpi=120, format=path.suffix.removeprefix(".") or "png")


def rank_correlation(rows: Sequence[Row], one: str, other: str) -> float:
    """Spearman's."""
    return float(spearmanr([row[one] for row in rows], [row[other] for row in rows]).statistic)


def agreement(rows: Sequence[Row], one: str, other: str) -> tuple[float, tuple[float, float], list[float]]:
    """Rank correlation over all rows, its 95 % interval with pairs drawn anew, and those within each pair.

    Within a pair naive and matched networks are taken by themselves, and the mean is given.
    """
    pairs = sorted({row["pair"] for row in rows})
    orders = sorted({row["order"] for row in rows})
    parts = [[[row for row in rows if (row["pair"], row["order"]) == (p, o)] for o in orders] for p in pairs]
    within = [float(np.mean([rank_correlation(part, one, other) for part in its])) for its in parts]
    rng, drawn = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        some = [row for k in rng.choice(len(pairs), len(pairs)) for part in parts[k] for row in part]
        drawn.append(rank_correlation(some, one, other))
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    return rank_correlation(rows, one, other), (low, high), within


def spread(values: Sequence[float]) -> str:
    """The mean, and of several values half the width of its 95 % interval."""
    mean = f"{np.mean(values):.3g}"
    return f"{mean} ± {interval(values):.2g}" if len(values) > 1 else mean


def table(title: str, first: str, *headings: str) -> Table:
    """One with a column of words and others of numbers."""
    shown = Table(title=title, title_justify="left")
    shown.add_column(first)
    for heading in headings:
        shown.add_column(heading, justify="right")
    return shown


def matching_table(rows: Sequence[Row]) -> Table:
    """Barriers before and after."""
    headings = "barrier", "from", "to", "asked", "right half way", "merge accepts"
    shown = table(f"matching: {len(rows)} pairs that began apart", "", *headings)
    names = {
        "naive": f">= {APART:g}", "matched": f"<= {TOGETHER:g}", "permuted": "", "permuted_matched": ""
    }  # fmt: skip
    titles = *ORDERS, "a permutation of itself", "the same, matched"
    for title, (name, asked) in zip(titles, names.items(), strict=True):
        heights, rest = [row[name] for row in rows], ("", "")
        if name in ORDERS:
            accepted = f"{sum(row[f'{name}_accepted'] for row in rows)} of {len(rows)}"
            rest = spread([row[f"{name}_middle"] for row in rows]), accepted
        shown.add_row(title, spread(heights), f"{min(heights):.3g}", f"{max(heights):.3g}", asked, *rest)
    parents = spread([right for row in rows for right in row["parents"]])
    shown.add_row("the networks", "", "", "", "", parents, "")
    return shown


def layers_table(rows: Sequence[Row]) -> Table:
    """Rank correlations of what is estimated with what is measured."""
    title = f"layers: rank correlations over {len(rows)} barriers of one layer; asked: {CORRELATED:g}"
    shown = table(title, "estimate", "of", "networks", "all", "95 % from", "to", "within a pair")
    for told, measured in (("from start", "barrier"), ("distance", "barrier"), ("from middle", "bend")):
        for order in (*ORDERS, "both"):
            its = [row for row in rows if order in (row["order"], "both")]
            whole, ends, within = agreement(its, measured, told)
            figures = (f"{value:.2f}" for value in (whole, *ends))
            shown.add_row(told, measured, order, *figures, spread(within))
    return shown


def fork_table(rows: Sequence[Row]) -> Table:
    """By condition and epoch."""
    headings = "epoch", "barrier", "excess half way", "branches right", "average right"
    shown = table("fork: two branches of a run", "condition", *headings)
    for name, epoch in dict.fromkeys((row["condition"], row["epoch"]) for row in rows):
        its = [row for row in rows if (row["condition"], row["epoch"]) == (name, epoch)]
        means = (
            [float(np.mean(row[key])) for row in its] for key in ("height", "middle", "branches", "average")
        )
        shown.add_row(name, str(epoch), *map(spread, means))
    return shown


def mountainside_table(rows: Sequence[Row]) -> Table:
    """Predicted and measured barriers."""
    whole = rank_correlation(rows, "measured", "predicted")
    headings = "networks", "measured", "predicted", "explained", "rank correlation"
    shown = table(f"mountainside: rank correlation over all {whole:.2f}", "pair", *headings)
    names = "measured", "predicted", "explained"
    for row in rows:
        shown.add_row(str(row["pair"]), row["order"], *(f"{row[name]:.3g}" for name in names), "")
    for order in ORDERS:
        its = [row for row in rows if row["order"] == order]
        means = (spread([row[name] for row in its]) for name in names)
        shown.add_row("mean", order, *means, f"{rank_correlation(its, 'measured', 'predicted'):.2f}")
    return shown


WHAT = {
    "matching": (matching, matching_table), "layers": (layers, layers_table), "fork": (fork, fork_table),
    "mountainside": (mountainside, mountainside_table),
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.connectivity", description=__doc__)
    command.add_argument("--what", nargs="+", choices=list(WHAT), default=list(WHAT))
    command.add_argument(
        "--pairs", type=int, default=6, help="of networks, and runs that fork; each of its seeds"
    )
    command.add_argument("--width", type=int, default=128, help="of hidden layers")
    command.add_argument("--depth", type=int, default=2, help="how many there are")
    command.add_argument("--epochs", type=int, default=20)
    command.add_argument("--batch", type=int, default=32)
    command.add_argument("--learning-rate", type=float, default=0.2, help="of SGD; it decays linearly")
    command.add_argument("--accept", type=float, default=TOGETHER, help="the barrier that merge accepts")
    command.add_argument("--fork-rates", type=float, nargs="+", default=[0.2, 0.6, 1.0])
    command.add_argument("--fork-at", type=int, nargs="+", default=[0, 1, 2, 4, 8, 16], help="epochs")
    command.add_argument("--plot", type=Path, help="a picture of the first pair's mountainside")
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    command = parser()
    options = command.parse_args(arguments)
    if min(options.pairs, options.width, options.depth, options.epochs, options.batch) < 1:
        command.error("--pairs, --width, --depth, --epochs and --batch take positive numbers")
    if not 0 <= min(options.fork_at) <= max(options.fork_at) <= options.epochs:
        command.error(f"--fork-at takes epochs from 0 to {options.epochs}")
    if not (min(options.learning_rate, *options.fork_rates) > 0 and options.accept >= 0):
        command.error("rates take positive numbers, and --accept one of at least 0")
    torch.set_num_threads(1)
    measure.keep_memory()
    console, progress = consoles()
    setting = Setting(options.width, options.depth, options.epochs, options.batch, options.learning_rate)
    rows: list[Row] = []
    for name in options.what:
        measured, shown = WHAT[name]
        with progress.status(name):
            found = list(measured(setting, options))
        console.print(shown(found))
        rows += [{"what": name, **row} for row in found]
    path = measure.write_rows("connectivity", options, rows)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
