"""What `benchmarks.scaling_model` extrapolates, and what it is compared with: measured, counted, simulated.

Each measurement has a process of its own: ``python -m benchmarks.scaling_model_measure SPEC FILE``
measures what ``SPEC`` says in JSON, and writes it to ``FILE``.
"""

import argparse
import heapq
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import measure
from benchmarks.memory import Peak
from learnsolve.preconditioners import LearnedMultigrid, Multigrid

METHODS = {"learned-multigrid": LearnedMultigrid, "multigrid": Multigrid}
# How wide an exchange of the matrix is.
NARROW = 2

Row = dict[str, Any]


def measured(spec: Row) -> Row:
    """What a fresh process measures."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        words = [sys.executable, "-m", "benchmarks.scaling_model_measure", json.dumps(spec), str(answer)]
        subprocess.run(words, cwd=measure.ROOT, env=measure.pinned(1), check=True)
        found: Row = json.loads(answer.read_text(encoding="utf-8"))
    return found


def seconds_of(
    task: Callable[[], Any], repeats: int, clock: Callable[[], float] = time.process_time
) -> float:
    """The least of a few runs after the first, in seconds of the processor: others use the machine, too."""
    spent = []
    for _ in range(repeats + 1):
        began = clock()
        task()
        spent.append(clock() - began)
    return min(spent[1:])


def bytes_of(held: Any) -> int:
    """Of all tensors and arrays in a level, an operator or a tuple of them."""
    if isinstance(held, torch.Tensor | np.ndarray):
        return int(held.nbytes)
    if isinstance(held, tuple):
        return sum(bytes_of(part) for part in held)
    return sum(bytes_of(part) for part in vars(held).values()) if hasattr(held, "__dict__") else 0


def solve(spec: Row) -> Row:
    """A solve, and its parts: set-up, an application's finest level and the levels below, and the rest."""
    import learnsolve
    from learnsolve.distributed.engines import CycleEngine
    from learnsolve.distributed.tiles import Partition
    from learnsolve.kernels.vector import combine, descend, dot
    from learnsolve.problems import poisson

    n, repeats = spec["side"], spec["repeats"]
    make = getattr(poisson, spec["family"])
    M = METHODS[spec["method"]]()
    # What is compiled and loaded once is not measured: three levels, of a grid, a graph and a dense matrix.
    small = make((32, 32, 32), seed=0)
    learnsolve.solve(small.A, small.b, method="cg", M=M)
    process = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    problem = make((n, n, n), seed=0)
    A = problem.A
    A.__dict__.pop("closed_regions", None)
    peak = Peak()
    began = time.process_time()
    cycle = M.build(A)
    _ = A.singular
    setup = time.process_time() - began
    setup_bytes = peak.bytes()
    setup = min(setup, seconds_of(lambda: M.build(A), 3))
    solver = learnsolve.prepare(A, method="cg", M=cycle)
    result = solver.solve(problem.b, rtol=spec["rtol"])
    whole_bytes = peak.bytes()
    each = seconds_of(lambda: solver.solve(problem.b, rtol=spec["rtol"]), repeats) / result.iterations
    whole = Partition.of_ranges([[n], [n], [n]], 0)
    engine = CycleEngine(cycle, whole)
    r = A.enter(torch.from_numpy(problem.b))
    size = float(r.norm())
    part, own = engine.down(r, size)
    below = seconds_of(lambda: cycle.correct(0, "W"), repeats)
    gathered, z, q, x = part.double(), r.clone(), r.clone(), torch.zeros_like(r)

    def spread() -> None:
        cycle.levels[1].b.reshape(-1)[engine.order] = gathered.clone().to(engine.dtype)

    def rest() -> None:
        A._apply(q)
        dot(q, z), dot(r, z)
        combine(1.0, z, 0.5, q)
        descend(1e-9, q, z, x, r)

    spreading, without = seconds_of(spread, repeats), seconds_of(rest, repeats)
    # The finest level alone.
    vars(cycle)["correct"] = lambda *_: None
    on_tile = seconds_of(lambda: engine.up(engine.down(r, size)[0], own), repeats)
    return {
        **spec,
        "cells": n**3,
        "unknowns": A.unknowns,
        "converged": result.success,
        "iterations": result.iterations,
        "setup": setup,
        "iteration": each,
        "fine": on_tile - spreading,
        "coarse": below + spreading,
        "rest": without,
        "setup_bytes": setup_bytes,
        "solve_bytes": whole_bytes,
        "operator_bytes": bytes_of(A),
        "level_bytes": [bytes_of(level) for level in cycle.levels],
        "gathered": sum(engine.parts),
        "process_bytes": process,
    }


def scans(spec: Row) -> Row:
    """Seconds of each of a few simulated files, and what is read, written and held."""
    from learnsolve.batch import map_files
    from learnsolve.batch.scans import Recipe, ReconstructFile
    from learnsolve.datasets.kspace_writers import write_kspace
    from learnsolve.mri import Sampling
    from learnsolve.problems.scans import Volume

    side, coils, slices = spec["side"], spec["coils"], spec["slices"]
    mask = Sampling("random", 4.0, centre=0.08, seed=0).mask((side, side)).numpy()
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number in range(spec["files"] + 1):
            volume = Volume((side, side), coils=coils, slices=slices, noise=0.01, seed=number)
            path = Path(folder) / f"{number}.h5"
            kept = (volume[i].kspace * mask for i in range(slices))
            write_kspace(path, kept, (slices, coils, side, side), sampled=mask)
            paths.append(path)
        task = ReconstructFile(Recipe(spec["method"]))
        out = Path(folder) / "images"
        # The first file pays for what is loaded and compiled.
        map_files(task, paths[:1], out, workers=0)
        peak, ends = Peak(), [time.process_time()]
        records = map_files(
            task, paths[1:], out, workers=0, progress=lambda _: ends.append(time.process_time())
        )
        held = peak.bytes()
        read = max(os.path.getsize(record.file) for record in records)
        written = max(os.path.getsize(record.out) for record in records)
    return {
        **spec,
        "failed": [record.error for record in records if record.error],
        "seconds": np.diff(ends).tolist(),
        "fallback": [len(record.result.get("fallback", [])) for record in records],
        "read": read,
        "written": written,
        "bytes": held,
    }


class Nothing:
    """A task that costs nothing, to see what keeping the records costs."""

    suffix = ".out"

    def __call__(self, path: Path, target: Path) -> Row:
        target.touch()
        return {}


def machine(spec: Row) -> Row:
    """How fast a core copies, what a file costs `map_files`, and how long a worker takes to begin."""
    from learnsolve.batch import map_files

    source = torch.zeros(spec["megabytes"] << 17, dtype=torch.float64)
    target = torch.empty_like(source)
    copying = seconds_of(lambda: target.copy_(source), 5)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.h5" for number in range(spec["files"])]
        began = time.perf_counter()
        map_files(Nothing(), paths, Path(folder) / "out", workers=0)
        keeping = (time.perf_counter() - began) / len(paths)
    words = [sys.executable, "-c", "import learnsolve.batch, learnsolve.batch.scans, learnsolve.mri"]
    starting = seconds_of(lambda: subprocess.run(words, check=True), 3, time.perf_counter)
    return {**spec, "copy": source.nbytes / copying, "record": keeping, "start": starting}


TASKS: dict[str, Callable[[Row], Row]] = {"solve": solve, "scans": scans, "machine": machine}


def counted(family: str, counts: list[list[int]]) -> list[Row]:
    """What each rank receives in an iteration: the index sets of exchange and engines, without MPI."""
    from learnsolve.distributed.engines import CycleEngine
    from learnsolve.distributed.tiles import Box, Partition
    from learnsolve.problems import poisson

    cycle = Multigrid().build(getattr(poisson, family)(tuple(map(sum, counts)), seed=0).A)
    found = []
    for rank in range(prod(map(len, counts))):
        cut = Partition.of_ranges(counts, rank)
        engine = CycleEngine(cycle, cut)
        cells = 0
        for width, times in ((engine.width, 2), (NARROW, 1)):
            # What PETSc's grid shows a process.
            seen = Box(
                tuple(max(a - width, 0) for a in cut.owned.start),
                tuple(min(b + width, n) for b, n in zip(cut.owned.stop, cut.sizes, strict=True)),
            )
            if width == engine.width and any(part.start < 0 for part in engine.tile.inside(seen)):
                raise AssertionError(f"{engine.tile} is not seen in {seen}")
            for other in cut.boxes[:rank] + cut.boxes[rank + 1 :]:
                ends = zip(seen.start, seen.stop, other.start, other.stop, strict=True)
                cells += times * prod(max(min(b, d) - max(a, c), 0) for a, b, c, d in ends)
        own, gathered = engine.parts[rank], sum(engine.parts)
        found.append({"halo": 8 * cells, "gather": 8 * (gathered - own), "own": own, "gathered": gathered})
    return found


@dataclass(frozen=True)
class Files:
    """Seconds of each file that was measured, bytes that one reads and writes, and what else there is."""

    seconds: tuple[float, ...]
    bytes: float
    record: float
    start: float

    def elapsed(self, files: int, workers: int, storage: float) -> tuple[float, str]:
        """Seconds by the formula, and what limits them."""
        passing = self.bytes / storage
        limits = {
            "computing": files * self.busy(storage) / workers,
            "storage": files * passing,
            "records": files * self.record,
            "longest": max(self.seconds) + passing + self.record,
        }
        limit = max(limits, key=lambda name: limits[name])
        return self.start + limits[limit], limit

    def busy(self, storage: float) -> float:
        """Seconds that a file keeps a worker."""
        return sum(self.seconds) / len(self.seconds) + self.bytes / storage + self.record

    def simulated(self, files: int, workers: int, storage: float, seed: int = 0) -> float:
        """Seconds by events: a free worker is handed a file, moves its bytes, computes."""
        free, handed, stored = [self.start] * workers, 0.0, 0.0
        for seconds in np.random.default_rng(seed).choice(self.seconds, files).tolist():
            handed = max(heapq.heappop(free), handed) + self.record
            stored = max(handed, stored) + self.bytes / storage
            heapq.heappush(free, stored + seconds)
        return max(free)


def taken(options: argparse.Namespace, report: Any) -> Row:
    """All that is measured."""
    report("copies and records")
    found: Row = {"machine": measured({"what": "machine", "megabytes": 64, "files": 500}), "solve": {}}
    for method in options.methods:
        spec = {"what": "solve", "method": method}
        spec |= {name: getattr(options, name) for name in ("family", "rtol", "repeats")}
        found["solve"][method] = []
        for side in sorted(set(options.sides)):
            report(f"{method}, {side} cells along each axis")
            found["solve"][method].append(measured({**spec, "side": side}))
    found["scans"] = {}
    names = dict(zip(("files", "slices", "coils", "side"), options.scan, strict=True))
    for method in options.scan_methods:
        report(f"{method}, files of scans")
        found["scans"][method] = measured({"what": "scans", "method": method, **names})
    return found


def main() -> None:
    """Measure what the first argument says, and write it to the file that the second names."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    spec, path = json.loads(sys.argv[1]), Path(sys.argv[2])
    path.write_text(json.dumps(TASKS[spec["what"]](spec)), encoding="utf-8")


if __name__ == "__main__":
    main()
