"""Bytes per second of each kernel, beside the memory bandwidth of the machine."""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import consoles

COUNTED = """\
Bytes are compulsory: each array once for being read and once for being written in one call (the formulas are
in benchmarks/kernel_table.py). The triad a = b + s c counts 24 bytes an element; what a processor moves
besides, to fetch a line before it is written, is counted for nobody, so a kernel that only reads or writes in
place may pass 100 %. "apart" is the bandwidth that the same steps would need as passes of their own."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    command.add_argument("--shape", nargs=3, type=int, default=[256, 256, 256])
    command.add_argument(
        "--sparse-shape",
        nargs=3,
        type=int,
        help="for matrices, which take more memory; default: at most 128 128 128",
    )
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--repeats", type=int, default=7)
    command.add_argument("--triad-mib", type=float, default=256.0, help="size of each of the triad's arrays")
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def seconds(call: Callable[[], Any], calls: int) -> float:
    """Of one of several calls in a row."""
    began = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - began) / calls


def calls_for(call: Callable[[], Any], least: float = 0.02) -> int:
    """How many calls take a time that can be measured; the first one, which loads the kernel, is left out."""
    call()
    return max(1, min(1000, int(least / max(seconds(call, 1), 1e-7))))


def triad(mib: float, threads: int) -> tuple[Callable[[], Any], int]:
    """A call of the triad and its bytes."""
    import numpy as np

    from benchmarks.triad import triad as run

    size = int(mib * 2**20 / 8)
    # numpy asks for huge pages, which torch does not: the machine's bandwidth at its best.
    a, b, c = (np.full(size, value) for value in (0.0, 1.0, 2.0))
    return lambda: run(a, b, c, 3.0, threads), 24 * size


def groups(shape: tuple[int, ...], sparse: tuple[int, ...]) -> Iterable[Callable[[], list[Any]]]:
    """Makers of the kernels that are measured together, so that only their arrays are held."""
    from benchmarks.kernel_table import on_grids, on_sparse, on_vectors

    size = shape[0] * shape[1] * shape[2]
    for dtype in ("float64", "float32"):
        for form in ("unit", "face"):
            yield lambda dtype=dtype, form=form: list(on_grids(shape, dtype, form))
        yield lambda dtype=dtype: list(on_vectors(size, dtype))
        yield lambda dtype=dtype: list(on_sparse(sparse, dtype))


def rounds(kernels: list[Any], base: tuple[Callable[[], Any], int], repeats: int) -> list[dict[str, Any]]:
    """Measure the kernels of a group and the triad in turn; one row for each kernel."""
    stream, size = base
    counts = [calls_for(kernel.call) for kernel in kernels]
    stream_runs: list[float] = []
    runs: list[list[float]] = [[] for _ in kernels]
    for _ in range(repeats):
        stream_runs.append(seconds(stream, 1))
        for kernel, count, found in zip(kernels, counts, runs, strict=True):
            found.append(seconds(kernel.call, count))
    bandwidth = size / statistics.median(stream_runs)
    rows = []
    for kernel, found in zip(kernels, runs, strict=True):
        middle = statistics.median(found)
        rows.append(
            {
                "kernel": kernel.name,
                "form": kernel.form,
                "dtype": kernel.dtype,
                "cells": kernel.cells,
                "seconds": middle,
                "bytes": kernel.compulsory,
                "bytes_per_second": kernel.compulsory / middle,
                "of_triad": kernel.compulsory / middle / bandwidth,
                "unfused_bytes": kernel.unfused,
                "unfused_bytes_per_second": kernel.unfused / middle,
                "unfused_of_triad": kernel.unfused / middle / bandwidth,
                "cells_per_second": kernel.cells / middle,
                "triad_bytes_per_second": bandwidth,
                "runs": found,
                "triad_runs": stream_runs,
            }
        )
    return rows


def table(rows: list[dict[str, Any]], shape: list[int], threads: int) -> Table:
    """The rows for people."""
    bandwidth = statistics.median(row["triad_bytes_per_second"] for row in rows)
    shown = Table(
        title=f"{'x'.join(map(str, shape))}, {threads} threads: triad {bandwidth / 1e9:.1f} GB/s",
        title_justify="left",
    )
    for heading in ("kernel", "on", "dtype"):
        shown.add_column(heading, no_wrap=True)
    for heading in (
        "cells",
        "ms",
        "bytes/cell",
        "GB/s",
        "of triad",
        "apart GB/s",
        "apart of triad",
        "Gcells/s",
    ):
        shown.add_column(heading, justify="right")
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None and (before["form"], before["dtype"]) != (row["form"], row["dtype"]):
            shown.add_section()
        fused = row["unfused_bytes"] != row["bytes"]
        shown.add_row(
            row["kernel"],
            row["form"],
            row["dtype"],
            f"{row['cells']:,}",
            f"{row['seconds'] * 1e3:.2f}",
            f"{row['bytes'] / row['cells']:.1f}",
            f"{row['bytes_per_second'] / 1e9:.1f}",
            f"{row['of_triad']:.0%}",
            f"{row['unfused_bytes_per_second'] / 1e9:.1f}" if fused else "",
            f"{row['unfused_of_triad']:.0%}" if fused else "",
            f"{row['cells_per_second'] / 1e9:.2f}",
        )
    return shown


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    command = parser()
    options = command.parse_args(arguments)
    sparse = options.sparse_shape or [min(n, 128) for n in options.shape]
    if min(*options.shape, *sparse, options.threads, options.repeats) < 1 or options.triad_mib <= 0:
        command.error("shapes, threads, repeats and sizes are positive")
    os.environ.update(dict.fromkeys(measure.THREAD_VARIABLES, str(options.threads)))
    import numba
    import torch

    numba.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    console, progress = consoles()
    base = triad(options.triad_mib, options.threads)
    calls_for(base[0])
    rows: list[dict[str, Any]] = []
    for make in groups(tuple(options.shape), tuple(sparse)):
        kernels = make()
        first = kernels[0]
        progress.print(f"[dim]{first.dtype}, {first.form}[/]", highlight=False)
        rows += rounds(kernels, base, options.repeats)
        del kernels, first
    console.print(table(rows, options.shape, options.threads))
    console.print(COUNTED, style="dim", highlight=False)
    record = {"conditions": measure.conditions(options.threads), "counted": COUNTED, "rows": rows}
    record["conditions"]["threading_layer"] = numba.threading_layer()
    record["options"] = {**vars(options), "sparse_shape": sparse, "json": str(options.json)}
    path = measure.write("kernels", options.json, record)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
