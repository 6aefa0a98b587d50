"""LightNet on pictures of digits: one scan that sees all pixels beside two that run from either end.

The same network, data and steps; judged by images that it has not seen.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import consoles


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.lightnet", description=__doc__)
    command.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    command.add_argument("--steps", type=int, default=600)
    command.add_argument("--batch", type=int, default=64)
    command.add_argument("--width", type=int, default=32)
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def network(width: int, scans: int) -> Any:
    """Two blocks over an image's pixels, and the mean of what they found."""
    import torch

    from learnsolve.sequence.layers import LightNet

    class Block(torch.nn.Module):
        """A scan and an MLP, each added to what was there."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.RMSNorm(width)
            self.mix = LightNet(width, 4, causal=False, axes=2, scans=scans)
            hidden = torch.nn.Linear(width, 2 * width), torch.nn.SiLU(), torch.nn.Linear(2 * width, width)
            self.mlp = torch.nn.Sequential(torch.nn.RMSNorm(width), *hidden)

        def forward(self, x: Any) -> Any:
            x = x + self.mix(self.norm(x))[0]
            return x + self.mlp(x)

    class Classifier(torch.nn.Module):
        """Classes of images (B, 8, 8)."""

        def __init__(self) -> None:
            super().__init__()
            self.enter, self.leave = torch.nn.Linear(1, width), torch.nn.Linear(width, 10)
            self.blocks = torch.nn.Sequential(Block(), Block())

        def forward(self, images: Any) -> Any:
            return self.leave(self.blocks(self.enter(images.unsqueeze(-1))).mean((1, 2)))

    return Classifier()


def run(scans: int, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train, judge, and time steps."""
    import torch
    from torch.nn.functional import cross_entropy

    from learnsolve.problems.digits import digits
    from learnsolve.training import FitOptions, fit

    images, classes = digits("learned")
    torch.manual_seed(seed)
    model = network(options.width, scans)

    def batches(_: int, generator: torch.Generator) -> Any:
        chosen = torch.randint(len(images), (options.batch,), generator=generator)
        return images[chosen], classes[chosen]

    def loss(wrapped: Any, batch: Any) -> Any:
        return cross_entropy(wrapped(batch[0]), batch[1])

    began = time.process_time()
    fit(model, loss, batches, FitOptions(options.steps, learning_rate=3e-3, warmup=30, seed=seed))
    seconds = time.process_time() - began
    judged, wanted = digits("judged")
    with torch.no_grad():
        right = float((model(judged).argmax(-1) == wanted).double().mean())
    spent = []
    for _ in range(20):
        began = time.process_time()
        loss(model, (images[:64], classes[:64])).backward()
        spent.append(time.process_time() - began)
    step = statistics.median(spent)
    return {"scans": scans, "seed": seed, "right": right, "seconds": seconds, "step": step}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    measure.keep_memory()
    console, _ = consoles()
    # By turns, so that a busy minute falls on both.
    rows = [run(scans, seed, options) for seed in options.seeds for scans in (1, 2)]
    shown = Table(title="digits of 8 x 8, held out; one thread, processor seconds", title_justify="left")
    for heading in ("scans", "seed", "right", "training", "a step of 64 images"):
        shown.add_column(heading, justify="right")
    for row in rows:
        shown.add_row(
            str(row["scans"]), str(row["seed"]), f"{row['right']:.4f}", f"{row['seconds']:.1f}",
            f"{row['step']:.4f}",
        )  # fmt: skip
    for scans in (1, 2):
        its = [row for row in rows if row["scans"] == scans]
        right, seconds, step = (
            statistics.mean(row[name] for row in its) for name in ("right", "seconds", "step")
        )
        shown.add_row(str(scans), "mean", f"{right:.4f}", f"{seconds:.1f}", f"{step:.4f}")
    console.print(shown)
    path = measure.write_rows("lightnet", options, rows)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
