"""Recurrences beside what else computes them: a loop of torch's, its attention, SciPy's filters, an FFT.

Where lengths are many, the last table says how our time and memory grow with them.
"""

import argparse
import math
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import consoles

HEADS, WIDTH, CHANNELS = 4, 64, 64
KINDS = ("delta", "diagonal", "decoding")
DTYPES = ("float32", "bfloat16", "float64")
Row = dict[str, Any]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.sequence", description=__doc__)
    command.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096, 16384])
    command.add_argument("--what", nargs="+", choices=KINDS, default=list(KINDS))
    command.add_argument("--longest-peer", type=int, default=16384, help="beyond, peers are not run")
    command.add_argument("--repeats", type=int, default=5)
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    command.add_argument("--dtype", choices=DTYPES, default="float32")
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def seconds(task: Callable[[], Any], options: argparse.Namespace) -> float:
    """Median time, after a call that is not counted: of the processor, or of the GPU's events."""
    import torch

    spent = []
    task()
    for _ in range(options.repeats):
        if options.device == "cpu":
            began = time.process_time()
            task()
            spent.append(time.process_time() - began)
            continue
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        task()
        end.record()
        torch.cuda.synchronize()
        spent.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(spent)


def drawn(length: int, options: argparse.Namespace) -> tuple[Any, ...]:
    """Queries, keys of norm one, values, and beta."""
    import torch

    generator = torch.Generator().manual_seed(0)
    shape = (1, length, HEADS, WIDTH)
    q, k, v = (torch.randn(shape, generator=generator) for _ in range(3))
    k, beta = torch.nn.functional.normalize(k, dim=-1), torch.rand(shape[:3], generator=generator)
    return tuple(one.to(options.device, getattr(torch, options.dtype)) for one in (q, k, v, beta))


def loop(q: Any, k: Any, v: Any, beta: Any) -> Any:
    """The delta rule as a loop over time, with one matrix product for all heads a line."""
    import torch

    S = q.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3])
    found = []
    for x, y, z, b in zip(q.unbind(1), k.unbind(1), v.unbind(1), beta.unbind(1), strict=True):
        u = b[..., None] * (z - (y[..., None, :] @ S)[..., 0, :])
        S = torch.addcmul(S, y[..., None], u[..., None, :])
        found.append((x[..., None, :] @ S)[..., 0, :])
    return torch.stack(found, 1)


def softmax(q: Any, k: Any, v: Any, _: Any) -> Any:
    """Torch's own attention to all that came before."""
    from torch.nn.functional import scaled_dot_product_attention

    return scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), is_causal=True)


def peers_of_delta(options: argparse.Namespace) -> dict[str, Callable[..., Any]]:
    """What else there is, on a GPU flash-linear-attention where it is installed."""
    found: dict[str, Callable[..., Any]] = {"torch's loop": loop, "softmax attention": softmax}
    if options.device == "cuda":
        del found["torch's loop"]
        try:
            from fla.ops.delta_rule import chunk_delta_rule
        except ImportError:
            return found
        found["flash-linear-attention"] = lambda q, k, v, beta: chunk_delta_rule(q, k, v, beta)[0]
    return found


def delta(length: int, ours: bool, options: argparse.Namespace) -> list[Row]:
    """Rows of the delta rule, forward and with its gradient."""
    import torch

    from learnsolve.sequence import delta_rule

    given = drawn(length, options)
    tasks = {"learnsolve": lambda *one: delta_rule(*one)[0]} if ours else peers_of_delta(options)
    rows = []
    for name, task in tasks.items():
        with torch.no_grad():
            spent = seconds(lambda task=task: task(*given), options)
        rows.append({"what": "delta rule", "length": length, "who": name, "seconds": spent})
        if name == "torch's loop":
            continue
        learned = [one.clone().requires_grad_() for one in given]
        spent = seconds(lambda task=task, learned=learned: task(*learned).sum().backward(), options)
        rows.append({"what": "delta rule and gradient", "length": length, "who": name, "seconds": spent})
    return rows


def decoding(length: int, ours: bool, options: argparse.Namespace) -> list[Row]:
    """Rows of one token more, after so many: a state of constant size, or all keys and values."""
    import torch

    from learnsolve.sequence import delta_rule

    q, k, v, beta = drawn(length, options)
    last = [one[:, -1:] for one in (q, k, v, beta)]
    state = torch.zeros(1, HEADS, WIDTH, WIDTH, device=options.device)

    def remembered() -> Any:
        return delta_rule(*last, initial_state=state)[0]

    def looked_up() -> Any:
        one, keys, values = (x.transpose(1, 2) for x in (last[0], k, v))
        return torch.nn.functional.scaled_dot_product_attention(one, keys, values)

    name, task = ("learnsolve", remembered) if ours else ("softmax attention", looked_up)
    with torch.no_grad():
        spent = seconds(task, options)
    return [{"what": "decoding", "length": length, "who": name, "seconds": spent}]


def diagonal(length: int, ours: bool, options: argparse.Namespace) -> list[Row]:
    """Rows of the diagonal recurrence, of coefficients that are constant in time, as the peers need."""
    import numpy as np
    import torch

    from learnsolve.sequence import linear_recurrence

    generator = torch.Generator().manual_seed(0)
    b = torch.randn(1, length, CHANNELS, generator=generator).to(options.device)
    a = 0.99 * torch.rand(CHANNELS, generator=generator).to(options.device)
    wanted = linear_recurrence(a.double(), b.double())[0][0].cpu()
    tasks: dict[str, Callable[[], Any]] = {"learnsolve": lambda: linear_recurrence(a, b)[0]}
    if not ours:
        tasks = peers_of_diagonal(a, b, options)
    rows = []
    for name, task in tasks.items():
        found = task()
        found = found.cpu() if isinstance(found, torch.Tensor) else torch.as_tensor(np.asarray(found))
        error = float((found.reshape(length, CHANNELS).double() - wanted).norm() / wanted.norm())
        row = {"what": "diagonal recurrence", "length": length, "who": name}
        rows.append({**row, "seconds": seconds(task, options), "error": error})
    return rows


def peers_of_diagonal(a: Any, b: Any, options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """Filters, banded solves and transforms; on a GPU accelerated-scan where it is installed."""
    import numpy as np
    import torch
    from scipy.linalg import solve_banded
    from scipy.signal import lfilter

    length = b.shape[1]

    def transformed() -> Any:
        kernel = a ** torch.arange(length, device=a.device)[:, None]
        spectra = torch.fft.rfft(kernel, 2 * length, dim=0) * torch.fft.rfft(b[0], 2 * length, dim=0)
        return torch.fft.irfft(spectra, 2 * length, dim=0)[:length]

    found: dict[str, Callable[[], Any]] = {"FFT": transformed}
    if options.device == "cuda":
        try:
            from accelerated_scan.warp import scan
        except ImportError:
            return found
        gates, tokens = a[:, None].expand(CHANNELS, length).contiguous()[None], b.mT.contiguous()
        found["accelerated-scan"] = lambda: scan(gates, tokens).mT
        return found
    flat, rates = b[0].numpy(), a.tolist()

    def filtered() -> Any:
        return np.stack([lfilter([1.0], [1.0, -rates[d]], flat[:, d]) for d in range(CHANNELS)], 1)

    def banded() -> Any:
        bands, rows = np.ones((2, length), np.float32), []
        for d in range(CHANNELS):
            bands[1] = -rates[d]
            rows.append(solve_banded((1, 0), bands, flat[:, d]))
        return np.stack(rows, 1)

    return {"lfilter": filtered, "solve_banded": banded, **found}


def growth(rows: list[Row]) -> Table:
    """Exponents between the shortest and the longest length."""
    shown = Table(title="growth of ours with the length", title_justify="left")
    for heading in ("what", "from", "to", "exponent of time", "exponent of memory"):
        shown.add_column(heading, justify="left" if heading == "what" else "right")
    ours = sorted((row for row in rows if row["who"] == "learnsolve"), key=lambda row: row["what"])
    for what, its in groupby(ours, lambda row: row["what"]):
        first, *_, last = sorted(its, key=lambda row: row["length"])
        times = math.log(last["length"] / first["length"])
        exponents = [
            f"{math.log(last[name] / first[name]) / times:.2f}" if min(last[name], first[name]) > 0 else ""
            for name in ("seconds", "megabytes")
        ]
        shown.add_row(what, str(first["length"]), str(last["length"]), *exponents)
    return shown


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    measure.keep_memory()
    console, progress = consoles()
    kinds = {"delta": delta, "diagonal": diagonal, "decoding": decoding}
    rows: list[Row] = []
    lengths = sorted(options.lengths)
    # Peers come last, so that the peak of memory is ours until then.
    for ours in (True, False):
        for what in options.what:
            kinds[what](64, ours, options)
            begin = _peak(options)
            for length in lengths:
                if ours or length <= options.longest_peer:
                    progress.print(f"[dim]{what}, {length}[/]", highlight=False)
                    found = kinds[what](length, ours, options)
                    used = (_peak(options) - begin) / 2**20
                    rows += [{**row, **({"megabytes": used} if ours else {})} for row in found]
    title = f"{HEADS} heads of {WIDTH}, or {CHANNELS} channels; {options.dtype}, {options.device}, seconds"
    shown = Table(title=title, title_justify="left")
    for heading in ("what", "length", "who", "seconds", "of ours", "error", "peak MiB"):
        shown.add_column(heading, justify="left" if heading in ("what", "who") else "right")
    mine = {(row["what"], row["length"]): row["seconds"] for row in rows if row["who"] == "learnsolve"}
    for row in sorted(rows, key=lambda row: (row["what"], row["length"])):
        shown.add_row(
            row["what"], str(row["length"]), row["who"], f"{row['seconds']:.5f}",
            f"{row['seconds'] / mine[row['what'], row['length']]:.1f}",
            f"{row['error']:.1e}" if "error" in row else "",
            f"{row['megabytes']:.0f}" if "megabytes" in row else "",
        )  # fmt: skip
    console.print(shown)
    if len(lengths) > 1:
        console.print(growth(rows))
    path = measure.write_rows("sequence", options, rows)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


def _peak(options: argparse.Namespace) -> float:
    """Bytes."""
    import torch

    if options.device == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    sys.exit(main())
