"""What readers make of damaged files, and what many solves do to a process.

``fuzz``: files of every format that is read are cut, and bytes of them flipped, put in, taken out and
repeated. Each one must be refused with an `OSError` or a `ValueError`, or be read: a crash, a hang, another
exception, or memory without bound is a failure. Where a format has a checksum, what is read must be what was
written.
``faults``: commands that write are killed at random moments, and get too little disk, a folder that is not to
be written to, and too few addresses. No file may be half of what its name says; when the fault is over, the
same command does what is missing.
``soak``: solves one after the other in one process, whose memory must not grow. ``together``: threads and
processes that solve at once have the answers of one.
"""

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import consoles
from benchmarks.robustness_commands import COMMANDS
from benchmarks.robustness_faults import faults
from benchmarks.robustness_files import READERS

WHAT = ("fuzz", "faults", "soak", "together")
SECONDS = 10.0
MEMORY = 1 << 30
FAILURES = ("crashed", "hung", "wrong exception", "out of memory", "silently other")
OUTCOMES = ("as it was", "refused", "other, no checksum", *FAILURES)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.robustness", description=__doc__)
    command.add_argument("--what", nargs="+", choices=WHAT, default=list(WHAT), help="default: all of it")
    command.add_argument("--reader", nargs="+", choices=list(READERS), default=list(READERS))
    command.add_argument("--mutations", type=int, default=10_000, help="of each reader")
    command.add_argument("--command", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    command.add_argument("--kills", type=int, default=10, help="of each command")
    command.add_argument("--solves", type=int, default=10_000, help="of the soak")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def mutated(content: bytes, seed: int) -> bytes:
    """One to four damages of a file."""
    rng = np.random.default_rng(seed)
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        if not data:
            break
        place, length = int(rng.integers(len(data))), int(rng.integers(1, 17))
        kind = rng.integers(7)
        if kind == 0:
            del data[place:]
        elif kind == 1:
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            data[place] = int(rng.integers(256))
        elif kind == 3:
            data[place:place] = rng.bytes(length)
        elif kind == 4:
            del data[place : place + length]
        elif kind == 5:
            data[place:place] = data[place : place + 8 * length]
        else:
            # What a length or a count is most harmful as.
            data[place : place + 8] = (b"\xff" * 8, b"\x00" * 8, b"99999999", b"\x7f" + b"\xff" * 7)[
                int(rng.integers(4))
            ]
    return bytes(data)


def victim(name: str, folder: str, channel: Any) -> None:
    """In a process of its own: read one damaged file after the other, and say what came of it."""
    reader = READERS[name]
    path = Path(folder) / reader.file
    whole = path.read_bytes()
    expected = reader.read(path)
    warnings_off()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    damaged = path.with_name("damaged" + "".join(path.suffixes))
    with open("/proc/self/statm", encoding="ascii") as held:
        size = int(held.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    channel.send("ready")
    while (seed := channel.recv()) is not None:
        damaged.write_bytes(mutated(whole, seed))
        try:
            found = reader.read(damaged)
        except MemoryError:
            outcome = "out of memory"
        except (OSError, ValueError):
            outcome = "refused"
        except Exception as error:
            outcome = f"wrong exception: {type(error).__name__}: {str(error)[:100]}"
        else:
            other = "silently other" if reader.checksum else "other, no checksum"
            outcome = "as it was" if found == expected else other
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - used
        channel.send(("out of memory" if grown > MEMORY else outcome, grown))


def warnings_off() -> None:
    """Damaged files may well be warned of."""
    import warnings

    warnings.simplefilter("ignore")


def fuzzed(name: str, mutations: int, seed: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """Counts of what came of so many mutations of a reader's file, and examples of failures."""
    counts: Counter[str] = Counter()
    examples: list[dict[str, Any]] = []
    slowest, grown = 0.0, 0
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        READERS[name].make(Path(folder))
        process, channel = _started(context, name, folder)
        for number in range(mutations):
            if number % 1000 == 0:
                progress(f"{name}: {number} of {mutations}")
            began = time.perf_counter()
            channel.send(seed + number)
            try:
                outcome, more = channel.recv() if channel.poll(SECONDS) else ("hung", 0)
            except EOFError:
                outcome, more = "crashed", 0
            slowest, grown = max(slowest, time.perf_counter() - began), max(grown, more)
            kind = outcome.partition(":")[0]
            counts[kind] += 1
            if kind in FAILURES:
                examples.append({"seed": seed + number, "outcome": outcome})
            if kind in ("hung", "crashed", "out of memory"):
                process.kill()
                process.join()
                process, channel = _started(context, name, folder)
        channel.send(None)
        process.join(5)
        process.kill()
    return {
        "reader": name,
        "mutations": mutations,
        **{outcome: counts[outcome] for outcome in OUTCOMES},
        "slowest": slowest,
        "grown_mib": grown / 2**20,
        "examples": examples[:20],
    }


def _started(context: Any, name: str, folder: str) -> tuple[Any, Any]:
    ours, theirs = context.Pipe()
    process = context.Process(target=victim, args=(name, folder, theirs), daemon=True)
    process.start()
    theirs.close()
    if not ours.poll(120) or ours.recv() != "ready":
        raise RuntimeError(f"the reader {name} does not read its own file")
    return process, ours


def soaked(solves: int) -> dict[str, Any]:
    """Memory of a process before and after so many solves of many kinds."""
    import scipy.sparse

    import learnsolve
    from learnsolve.problems import poisson

    problem = poisson.obstacles((24, 24), seed=0)
    matrix = scipy.sparse.csr_array(problem.A.to_scipy())
    b = problem.b[problem.A.active.numpy()]
    kinds: list[tuple[Any, Any, dict[str, Any]]] = [
        (problem.A, problem.b, {"method": "cg", "M": "multigrid"}),
        (problem.A, problem.b, {"method": "cg", "M": "learned-multigrid"}),
        (matrix, b, {"method": "cg", "M": "jacobi"}),
        (matrix, b, {"method": "gmres", "M": "ruge_stuben"}),
        (matrix, b, {"method": "minres"}),
        (matrix, b, {"method": "direct"}),
    ]

    def resident() -> float:
        with open("/proc/self/statm", encoding="ascii") as held:
            return int(held.read().split()[1]) * resource.getpagesize() / 2**20

    failed, marks = 0, []
    for number in range(solves):
        A, right, options = kinds[number % len(kinds)]
        failed += not learnsolve.solve(A, right, **options).success
        if number % max(solves // 10, 1) == 0:
            marks.append(resident())
    marks.append(resident())
    return {"solves": solves, "failed": failed, "resident_mib": marks, "grown_mib": marks[-1] - marks[1]}


def answer(seed: int) -> Any:
    """The answer of one solve."""
    import learnsolve
    from learnsolve.problems import poisson

    problem = poisson.obstacles((40, 40), seed=seed % 4)
    return learnsolve.solve(problem.A, problem.b, method="cg", M="multigrid", rtol=1e-10).x


def others(alone: list[Any], found: Any) -> int:
    """How many answers differ by more than rounding, which is not the same wherever memory lies."""
    pairs = zip(alone, found, strict=True)
    return sum(bool(np.abs(a - b).max() > 1e-8 * np.abs(a).max()) for a, b in pairs)


def together(count: int) -> dict[str, Any]:
    """Whether threads, and processes, that solve at once have the answers of one."""
    import torch

    torch.set_num_threads(1)
    seeds = list(range(count))
    alone = [answer(seed) for seed in seeds]
    rows = {}
    with ThreadPoolExecutor(2) as pool:
        rows["threads"] = others(alone, pool.map(answer, seeds))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, _one_thread) as processes:
        rows["processes"] = others(alone, processes.map(answer, seeds))
    return {"solves": count, "other_answers": rows, "threads_left": threading.active_count()}


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def table(rows: list[dict[str, Any]]) -> Table:
    """What came of the mutations."""
    shown = Table(title="damaged files", title_justify="left")
    for name in ("reader", "mutations", *OUTCOMES, "slowest", "memory"):
        shown.add_column(name, justify="left" if name == "reader" else "right")
    for row in rows:
        figures = [str(row[outcome]) for outcome in OUTCOMES]
        last = (f"{row['slowest']:.2f} s", f"{row['grown_mib']:.0f} MiB")
        shown.add_row(row["reader"], str(row["mutations"]), *figures, *last)
    return shown


def faults_table(rows: list[dict[str, Any]]) -> Table:
    """What commands left behind."""
    shown = Table(title="commands", title_justify="left")
    for name in ("command", "files", "killed", "disk full", "read-only", "little memory", "problems"):
        shown.add_column(name, justify="left")
    for row in rows:
        told = [_counts(row["disk"]), row["read_only"] or "not tried", _counts(row["memory"])]
        shown.add_row(
            row["command"], str(len(row["files"])), str(row["kills"]), *told, str(len(row["problems"]))
        )
    return shown


def _counts(found: dict[str, int] | None) -> str:
    return "not tried" if found is None else ", ".join(f"{count} {kind}" for kind, count in found.items())


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 1 if anything failed."""
    options = parser().parse_args(arguments)
    if sys.platform != "linux":
        print("memory is limited and read as Linux does it", file=sys.stderr)
        return 1
    console, progress = consoles()
    record: dict[str, Any] = {"conditions": measure.conditions(os.cpu_count() or 1)}
    record["options"] = {name: str(v) if isinstance(v, Path) else v for name, v in vars(options).items()}
    bad = False

    def say(line: str) -> None:
        progress.print(f"[dim]{line}[/]", highlight=False)

    if "fuzz" in options.what:
        record["fuzz"] = [fuzzed(name, options.mutations, options.seed, say) for name in options.reader]
        console.print(table(record["fuzz"]))
        for row in record["fuzz"]:
            for example in row["examples"][:5]:
                console.print(
                    f"{row['reader']}, seed {example['seed']}: {example['outcome']}", highlight=False
                )
            bad |= any(row[kind] for kind in FAILURES)
    if "faults" in options.what:
        record["faults"] = [faults(name, options.kills, options.seed, say) for name in options.command]
        console.print(faults_table(record["faults"]))
        for row in record["faults"]:
            for problem in row["problems"]:
                console.print(f"{row['command']}: {problem}", highlight=False, markup=False)
            bad |= bool(row["problems"])
    if "soak" in options.what:
        record["soak"] = soaked(options.solves)
        console.print(f"soak: {json.dumps(record['soak'])}", highlight=False, soft_wrap=True)
        bad |= record["soak"]["failed"] > 0
    if "together" in options.what:
        record["together"] = together(40)
        console.print(f"together: {json.dumps(record['together'])}", highlight=False, soft_wrap=True)
        bad |= any(record["together"]["other_answers"].values())
    path = measure.write("robustness", options.json, record)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
