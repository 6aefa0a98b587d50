"""Forecasts of a series by several horizons: a closed-form line, the last value, Chimera, and an LSTM.

Networks are trained on the first part of the file, their weights chosen by the second one, and all is judged
by the third, of which nothing is used before. The line stands in every table.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import consoles

if TYPE_CHECKING:
    from torch import Tensor, nn

    from learnsolve.forecasting import Ridge

MODELS = ("chimera", "chimera, 2-D Mamba", "line and lstm", "lstm")


class Data(NamedTuple):
    """A standardised series and its parts."""

    values: "Tensor"
    learned: tuple[int, int]
    valid: tuple[int, int]
    test: tuple[int, int]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.forecasting", description=__doc__)
    command.add_argument("--data", type=Path, required=True, help="CSV in the format of ETT")
    command.add_argument(
        "--split", choices=["months", "shares"], default="months", help="12/4/4 or 70/10/20 %"
    )
    command.add_argument("--horizons", type=int, nargs="+", default=[96, 192, 336, 720])
    command.add_argument("--look-back", type=int, default=512, help="of the networks")
    command.add_argument("--lines", type=int, nargs="+", default=[336, 512], help="look-backs of the line")
    command.add_argument("--models", nargs="+", choices=MODELS, default=["chimera", "lstm"])
    command.add_argument("--patch", type=int, default=24)
    command.add_argument("--width", type=int, default=16)
    command.add_argument("--dropout", type=float, default=0.5)
    command.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    command.add_argument("--steps", type=int, default=300)
    command.add_argument("--seeds", type=int, nargs="+", default=[0])
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def lstm(options: argparse.Namespace, variates: int, horizon: int, line: "Ridge | None") -> "nn.Module":
    """An LSTM over patches of all variates; it adds to the last value, or to the line."""
    import torch

    class Network(torch.nn.Module):
        """Of windows (B, V, L) what follows, (B, V, H)."""

        def __init__(self) -> None:
            super().__init__()
            self.mix = torch.nn.LSTM(variates * options.patch, 64, batch_first=True)
            self.drop = torch.nn.Dropout(options.dropout)
            self.out = torch.nn.Linear(64, variates * horizon)
            torch.nn.init.zeros_(self.out.weight)
            torch.nn.init.zeros_(self.out.bias)

        def forward(self, x: "Tensor") -> "Tensor":
            last = x[..., -1:]
            moved = x - last
            spread = moved.std(-1, keepdim=True, correction=0) + 1e-2
            whole = x.shape[-1] // options.patch * options.patch
            places = (moved / spread)[..., x.shape[-1] - whole :].unflatten(-1, (-1, options.patch))
            h = self.mix(places.transpose(1, 2).flatten(2))[0][:, -1]
            added = spread * self.out(self.drop(h)).unflatten(-1, (variates, horizon))
            return added + (last if line is None else line(x))

    return Network()


def built(model: str, options: argparse.Namespace, variates: int, horizon: int, line: "Ridge") -> "nn.Module":
    """A network, with random weights."""
    from learnsolve.forecasting import ChimeraOptions

    if "lstm" in model:
        return lstm(options, variates, horizon, line if "line" in model else None)
    network = ChimeraOptions(
        variates, options.look_back, horizon, patch=options.patch, width=options.width,
        dropout=options.dropout, coupled="Mamba" not in model,
    ).build()  # fmt: skip
    network.begin(line)
    return network


def trained(
    model: str, options: argparse.Namespace, data: Data, horizon: int, line: "Ridge", seed: int
) -> "tuple[nn.Module, dict[str, Any]]":
    """A network in evaluation mode, and its row."""
    import torch

    from learnsolve.forecasting import errors, train
    from learnsolve.training import FitOptions

    torch.manual_seed(seed)
    network = built(model, options, data.values.shape[1], horizon, line)
    fit = FitOptions(
        steps=options.steps, learning_rate=options.rate, schedule="cosine", warmup=min(20, options.steps - 1),
        optimizer="adamw", weight_decay=0.01, ema=0.98, seed=seed, validate_every=max(options.steps // 12, 1),
    )  # fmt: skip
    began = time.process_time()
    train(network, data.values, options.look_back, horizon, data.learned, data.valid, fit)
    seconds = time.process_time() - began
    network.eval()
    valid = errors(network, data.values, options.look_back, horizon, data.valid)
    test = errors(network, data.values, options.look_back, horizon, data.test)
    return network, row(f"{model}, {options.look_back}", horizon, seed, valid.mse, test, seconds)


def row(
    model: str, horizon: int, seed: int | None, valid: float, test: Any, seconds: float
) -> dict[str, Any]:
    """What a forecast is worth."""
    return {"model": model, "horizon": horizon, "seed": seed, "valid": valid, "mse": test.mse,
            "mae": test.mae, "seconds": seconds}  # fmt: skip


def rows_of(options: argparse.Namespace, data: Data, horizon: int) -> list[dict[str, Any]]:
    """All forecasts of a horizon."""
    import torch

    from learnsolve.forecasting import errors, fit_ridge, repeated

    values, found, lines = data.values, [], {}
    for look_back in sorted({*options.lines, options.look_back}):
        began = time.process_time()
        line = lines[look_back] = fit_ridge(values, look_back, horizon, data.learned, data.valid)
        seconds = time.process_time() - began
        test = errors(line, values, look_back, horizon, data.test)
        found.append(row(f"ridge, {look_back}", horizon, None, line.error, test, seconds))
    ranges = data.valid, data.test
    valid, test = (errors(lambda x: repeated(x, horizon), values, 1, horizon, one) for one in ranges)
    found.append(row("last value repeated", horizon, None, valid.mse, test, 0.0))
    for model in options.models:
        networks = []
        for seed in options.seeds:
            network, one = trained(model, options, data, horizon, lines[options.look_back], seed)
            networks.append(network)
            found.append(one)
        if len(networks) > 1:
            valid, test = (
                errors(
                    lambda x, networks=networks: torch.stack([one(x) for one in networks]).mean(0),
                    values, options.look_back, horizon, one,
                )
                for one in ranges
            )  # fmt: skip
            name = f"{model}, {options.look_back}: mean forecast of {len(networks)} seeds"
            found.append(row(name, horizon, None, valid.mse, test, 0.0))
    return found


def shown(rows: list[dict[str, Any]], horizons: list[int]) -> Table:
    """Mean squared errors by horizon, and their mean; of several seeds the mean and the range."""
    table = Table(title="MSE of all test windows; deviations of the training part", title_justify="left")
    table.add_column("forecast")
    for heading in (*map(str, horizons), "mean", "valid", "MAE", "seconds"):
        table.add_column(heading, justify="right")
    for model in dict.fromkeys(one["model"] for one in rows):
        parts = [[one for one in rows if one["model"] == model and one["horizon"] == h] for h in horizons]
        cells = []
        for part in parts:
            errors = [one["mse"] for one in part]
            text = f"{statistics.mean(errors):.4f}"
            cells.append(text if len(errors) < 2 else f"{text} ({min(errors):.4f}-{max(errors):.4f})")
        means = {
            name: statistics.mean(statistics.mean(one[name] for one in part) for part in parts)
            for name in ("mse", "valid", "mae")
        }
        seconds = sum(one["seconds"] for part in parts for one in part)
        cells += [f"{means[name]:.4f}" for name in ("mse", "valid", "mae")]
        table.add_row(model, *cells, f"{seconds:.0f}")
    return table


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    from learnsolve.datasets.series import read_series

    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    measure.keep_memory()
    console, progress = consoles()
    series = read_series(options.data)
    parts = series.months() if options.split == "months" else series.fractions()
    values = torch.tensor(series.standardised(parts.train).values, dtype=torch.float32)
    rows: list[dict[str, Any]] = []
    for horizon in options.horizons:
        rows += rows_of(options, Data(values, *parts), horizon)
        for one in rows:
            if one["horizon"] == horizon:
                told = f"{one['model']}, seed {one['seed']}: {one['mse']:.4f}, valid {one['valid']:.4f}"
                progress.print(f"[dim]{horizon}: {told}[/]", highlight=False)
    console.print(shown(rows, options.horizons))
    path = measure.write_rows("forecasting", options, rows)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
