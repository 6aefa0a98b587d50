"""A network beside classical methods on simulated scans that it has not seen, as its config draws them."""

import argparse
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import consoles


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.mri_learned", description=__doc__)
    command.add_argument("--weights", default="small", help="a name, or a .safetensors file")
    command.add_argument("--config", default="small", help="of masks, noise and coils")
    command.add_argument("--slices", type=int, default=40)
    command.add_argument("--size", type=int, default=128, help="pixels each way")
    command.add_argument("--seed", type=int, default=2001, help="of the objects, none of the training's")
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    from learnsolve.cli.mri_config import MRIConfig
    from learnsolve.cli.mri_train import compare
    from learnsolve.mri.learned import load

    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    console, progress = consoles()
    config = MRIConfig.read(options.config)
    if options.seed in (config.data.seed, config.held_out.seed):
        raise SystemExit(f"seed {options.seed} is that of scans which the network was trained or chosen on")
    held_out = replace(config.held_out, slices=options.slices, sizes=(options.size,), seed=options.seed)
    progress.print("[dim]scans, masks and maps[/]", highlight=False)
    examples = replace(config, held_out=held_out).examples()
    progress.print("[dim]methods[/]", highlight=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figures = compare(load(options.weights), examples, checked=True)
    title = f"{options.slices} slices of {options.size} x {options.size}, means, one thread, maps not counted"
    shown = Table(title=title, title_justify="left")
    names = list(figures["recurrentvarnet"])
    shown.add_column("method")
    for name in names:
        shown.add_column(name.replace("_", " "), justify="right")
    for method, row in figures.items():
        shown.add_row(method, *(f"{row[name]:.4g}" for name in names))
    console.print(shown)
    path = measure.write_rows(
        "mri_learned", options, [{"method": method, **row} for method, row in figures.items()]
    )
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
