"""What the benchmarks share: pinned threads, fresh processes, interleaved repeats, conditions, files."""

import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

# Every library of every solver that starts threads reads one of these when it is loaded.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
# Options of glibc's `mallopt`.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
PACKAGES = ("numpy", "scipy", "torch", "numba", "pyamg", "pyamgcl")

Run = dict[str, Any]


def pinned(threads: int) -> dict[str, str]:
    """The environment of a process in which every library takes so many threads."""
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}


def keep_memory() -> None:
    """Let glibc keep what is freed: fresh pages cost more than what is timed, for all alike.

    On a machine that reclaims idle memory a page costs microseconds, and a tensor of a million numbers a
    thousand of them.
    """
    if sys.platform != "linux":
        return
    with suppress(AttributeError):
        allocator = ctypes.CDLL(None)
        for option, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 1 << 28)):
            allocator.mallopt(option, value)


def once(spec: Run, timeout: float) -> Run:
    """One measurement by `benchmarks.worker` in a fresh process.

    Parameters
    ----------
    spec : dict
        What to measure; see `benchmarks.worker.measure`.
    timeout : float
        Seconds after which the process is ended.

    Returns
    -------
    dict
        What the worker wrote, or ``{"word": why there is nothing}``.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "benchmarks.worker", json.dumps(spec), str(answer)]
        try:
            ended = subprocess.run(
                command,
                cwd=ROOT,
                env=pinned(spec["threads"]),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"word": f"ended after {timeout:g} s"}
        if answer.is_file():
            return json.loads(answer.read_text(encoding="utf-8"))
    if ended.returncode < 0:
        return {"word": f"ended by signal {-ended.returncode}"}
    lines = ended.stderr.strip().splitlines()
    return {"word": lines[-1] if lines else f"ended with code {ended.returncode}"}


def interleaved(
    specs: dict[str, Run],
    *,
    repeats: int,
    timeout: float,
    slow_after: float = float("inf"),
    slow_repeats: int = 1,
    keep: Callable[[str, dict[str, list[Run]]], bool] = lambda name, runs: True,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, list[Run]]:
    """Measure round by round, each solver once a round, so that a busy minute falls on all alike.

    Parameters
    ----------
    specs : dict
        What to measure, by name.
    repeats : int
        Rounds.
    timeout : float
        Seconds for each measurement; a solver that fails is not tried again.
    slow_after, slow_repeats : float, int
        A solver whose set-up and solve took longer than ``slow_after`` seconds gets ``slow_repeats`` rounds.
    keep : callable
        ``keep(name, runs)`` is asked before each round after the first.
    report : callable
        Is told what is being done.

    Returns
    -------
    dict
        The runs of each name, in order.
    """
    runs: dict[str, list[Run]] = {name: [] for name in specs}
    for turn in range(repeats):
        for name, spec in specs.items():
            done = runs[name]
            slow = bool(done) and done[0].get("total", 0.0) > slow_after
            if turn and ("word" in done[-1] or (slow and turn >= slow_repeats) or not keep(name, runs)):
                continue
            report(f"round {turn + 1} of {repeats}: {name}")
            done.append(once(spec, timeout))
    return runs


def median(runs: Iterable[Run], field: str) -> float | None:
    """The median of a field over the runs that have it."""
    values = [run[field] for run in runs if run.get(field) is not None]
    return statistics.median(values) if values else None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _versions() -> dict[str, str | None]:
    import learnsolve

    found: dict[str, str | None] = {"python": platform.python_version(), "learnsolve": learnsolve.__version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def conditions(threads: int) -> dict[str, Any]:
    """Machine, load, versions, commit: what a figure means nothing without."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, OSError, ValueError):
        memory = None
    changes = _git("status", "--porcelain")
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": cores,
            "memory_gib": memory,
            "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        },
        "threads": threads,
        "commit": _git("rev-parse", "--verify", "HEAD"),
        "uncommitted_changes": None if changes is None else bool(changes),
        "versions": _versions(),
    }


def write(name: str, path: Path | None, record: dict[str, Any]) -> Path:
    """Write a record, without the option ``json``, to ``path`` or to a new file in ``benchmarks/results``."""
    from learnsolve.files import replacing

    options = {key: value for key, value in record.get("options", {}).items() if key != "json"}
    record = {**record, "options": options} if options else record

    if path is None:
        stamp = record["conditions"]["when"].replace(":", "").replace("-", "")
        path = ROOT / "benchmarks" / "results" / f"{name}-{stamp}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path


def write_rows(name: str, options: Any, rows: list[dict[str, Any]], threads: int = 1) -> Path:
    """Write the rows of a table with their conditions and the options of the command (see `write`)."""
    about = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    return write(name, options.json, {"conditions": conditions(threads), "options": about, "rows": rows})
