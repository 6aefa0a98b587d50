"""Completion of entries in a file, under a limit of memory, killed on the way and resumed."""

import argparse
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np

from benchmarks import measure

ROWS = 1000


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.stored", description=__doc__)
    command.add_argument("--size", type=int, default=100_000, help="rows, and as many columns")
    command.add_argument("--entries", type=int, default=100_000_000)
    command.add_argument("--rank", type=int, default=10)
    command.add_argument("--folder", type=Path, required=True, help="of the entries and of the checkpoint")
    command.add_argument("--limit", type=float, help="GiB of memory, all addresses counted")
    command.add_argument("--kill", type=int, help="kill this process after so many sweeps")
    command.add_argument("--rtol", type=float, default=1e-6)
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def factors(options: argparse.Namespace) -> tuple[Any, Any]:
    """Those of the matrix."""
    rng = np.random.default_rng(options.seed)
    U, V = (rng.standard_normal((options.size, options.rank)) for _ in range(2))
    return U, V


def parts(options: argparse.Namespace) -> Iterator[tuple[Any, Any, Any]]:
    """The entries of some rows at a time, at columns drawn at random."""
    U, V = factors(options)
    rng = np.random.default_rng(options.seed + 1)
    each = options.entries // options.size
    for first in range(0, options.size, ROWS):
        rows = np.repeat(np.arange(first, min(first + ROWS, options.size)), each)
        cols = rng.integers(options.size, size=rows.size)
        yield rows, cols, np.einsum("pc,pc->p", U[rows], V[cols])


def unseen(options: argparse.Namespace, res: Any, count: int = 1_000_000) -> float:
    """Relative error at places drawn anew."""
    rng = np.random.default_rng(options.seed + 2)
    rows, cols = rng.integers(options.size, size=(2, count))
    U, V = factors(options)
    truth = np.einsum("pc,pc->p", U[rows], V[cols])
    return float(np.linalg.norm(res.predict(rows, cols) - truth) / np.linalg.norm(truth))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    command = parser()
    options = command.parse_args(arguments)
    if not options.folder.is_dir():
        command.error(f"there is no folder {options.folder}")
    if options.limit is not None:
        most = int(options.limit * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    import learnsolve
    from learnsolve.completion import StoredEntries, store_entries

    numba.set_num_threads(options.threads)
    path, record = options.folder / "entries.h5", {}
    if not path.exists():
        began = time.perf_counter()
        store_entries(path, parts(options), (options.size, options.size)).close()
        record["storing"] = time.perf_counter() - began
        print(f"stored in {record['storing']:.0f} s, {path.stat().st_size / 1e9:.2f} GB", flush=True)
    times = [time.perf_counter()]

    def callback(now: Any) -> None:
        times.append(time.perf_counter())
        print(
            f"sweep {now.iteration}: observed {now.observed:.2e}, {times[-1] - times[-2]:.1f} s", flush=True
        )
        if options.kill is not None and now.iteration >= options.kill:
            os.kill(os.getpid(), 9)

    known = StoredEntries(path)
    res = learnsolve.complete(
        known,
        options.rank,
        rtol=options.rtol,
        callback=callback,
        checkpoint=options.folder / "checkpoint.npz",
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    record |= {
        "entries": known.nnz,
        "status": res.status.name,
        "sweeps": res.iterations,
        "sweep": float(np.median(np.diff(times))) if len(times) > 1 else None,
        "error": unseen(options, res),
        "peak": peak,
    }
    print(repr(res))
    print(f"{known.nnz:,} entries, error at unseen places {record['error']:.1e}, peak {peak:.2f} GiB")
    written = measure.write_rows("stored", options, [record], options.threads)
    print(f"written to {written}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
