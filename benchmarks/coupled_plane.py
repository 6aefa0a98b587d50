"""Two coupled recurrences on a grid: every form beside the double loop over its places."""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import consoles


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.coupled_plane", description=__doc__)
    command.add_argument("--times", type=int, default=512)
    command.add_argument("--variates", type=int, default=32)
    command.add_argument("--channels", type=int, nargs="+", default=[1, 16])
    command.add_argument("--repeats", type=int, default=5)
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def double_loop(a: Any, b: Any, first: Any) -> tuple[Any, Any]:
    """A place after the other, as the equations are written."""
    import torch

    _, rows, columns, _ = b[0].shape
    h1, h2 = torch.zeros_like(b[0]), torch.zeros_like(b[1])
    for v in range(rows):
        for t in range(columns):
            left = [
                one[:, v, t - 1] if t else begun[:, v] for one, begun in zip((h1, h2), first, strict=True)
            ]
            h1[:, v, t] = a[0][:, v, t] * left[0] + a[1][:, v, t] * left[1] + b[0][:, v, t]
            h2[:, v, t] = b[1][:, v, t]
            if v:
                h2[:, v, t] += a[2][:, v, t] * h1[:, v - 1, t] + a[3][:, v, t] * h2[:, v - 1, t]
    return h1, h2


def forms() -> dict[str, Callable[[Any, Any, Any], Any]]:
    """Each by its name; the first is what the others are measured by."""
    from learnsolve.kernels import coupled_plane, coupled_plane_reference
    from learnsolve.sequence.state_space_2d import coupled_recurrence

    return {
        "double loop": double_loop,
        "wavefronts": coupled_plane_reference.coupled_plane,
        "scan": lambda a, b, first: coupled_recurrence(a, b, first, method="scan")[0],
        "compiled": coupled_plane.coupled_plane,
    }


def rows(options: argparse.Namespace, channels: int) -> list[dict[str, Any]]:
    """Seconds and errors of each form, in single precision."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Any:
        return torch.randn(shape, generator=generator)

    shape = 1, options.variates, options.times, channels
    a = [0.5 * draw(*shape).tanh() for _ in range(4)]
    b, first = [draw(*shape) for _ in range(2)], [draw(1, options.variates, channels) for _ in range(2)]
    wanted, found = None, []
    for name, form in forms().items():
        got = torch.stack(list(form(a, b, first)))
        wanted = got if wanted is None else wanted
        spent = []
        for _ in range(1 if name == "double loop" else options.repeats):
            began = time.process_time()
            form(a, b, first)
            spent.append(time.process_time() - began)
        error = float((got - wanted).norm() / wanted.norm())
        found.append(
            {"form": name, "channels": channels, "seconds": statistics.median(spent), "error": error}
        )
    for row in found:
        row["times"] = found[0]["seconds"] / max(row["seconds"], 1e-9)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    measure.keep_memory()
    console, _ = consoles()
    found = [row for channels in options.channels for row in rows(options, channels)]
    title = f"{options.times} times, {options.variates} variates, float32; one thread, processor seconds"
    shown = Table(title=title, title_justify="left")
    for heading in ("channels", "form", "seconds", "double loop's over it", "error"):
        shown.add_column(heading, justify="right")
    for row in found:
        shown.add_row(
            str(row["channels"]), row["form"], f"{row['seconds']:.5f}", f"{row['times']:.0f}",
            f"{row['error']:.1e}",
        )  # fmt: skip
    console.print(shown)
    path = measure.write_rows("coupled_plane", options, found)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
