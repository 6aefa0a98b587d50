"""Recurrences beside what else computes them: a loop of torch's, its attention, SciPy's filters, an FFT."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from rich.table import Table

from benchmarks import measure
from benchmarks.mri import timed
from benchmarks.poisson import consoles

HEADS, WIDTH, CHANNELS = 4, 64, 64


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.sequence", description=__doc__)
    command.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096, 16384])
    command.add_argument("--what", nargs="+", choices=("delta", "diagonal"), default=["delta", "diagonal"])
    command.add_argument("--longest-peer", type=int, default=16384, help="beyond, peers are not run")
    command.add_argument("--repeats", type=int, default=5)
    return command


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


def delta(length: int, peers: bool, repeats: int) -> list[dict[str, Any]]:
    """Rows of the delta rule, forward and with its gradient."""
    import torch
    from torch.nn.functional import normalize, scaled_dot_product_attention

    from learnsolve.sequence import delta_rule

    generator = torch.Generator().manual_seed(0)
    shape = (1, length, HEADS, WIDTH)
    q, k, v = (torch.randn(shape, generator=generator) for _ in range(3))
    k, beta = normalize(k, dim=-1), torch.rand(shape[:3], generator=generator)

    def attention(q: Any, k: Any, v: Any, _: Any) -> Any:
        return scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), is_causal=True)

    tasks: dict[str, Callable[..., Any]] = {"learnsolve": lambda *given: delta_rule(*given)[0]}
    if peers:
        tasks |= {"torch's loop": loop, "softmax attention": attention}
    rows = []
    for name, task in tasks.items():
        with torch.no_grad():
            _, seconds = timed(lambda task=task: task(q, k, v, beta), repeats)
        rows.append({"what": "delta rule", "length": length, "who": name, "seconds": seconds})
        if name == "torch's loop":
            continue
        given = [one.clone().requires_grad_() for one in (q, k, v, beta)]
        _, seconds = timed(lambda task=task, given=given: task(*given).sum().backward(), repeats)
        rows.append({"what": "delta rule and gradient", "length": length, "who": name, "seconds": seconds})
    return rows


def diagonal(length: int, peers: bool, repeats: int) -> list[dict[str, Any]]:
    """Rows of the diagonal recurrence; of peers that need it, the coefficients are constant in time."""
    import numpy as np
    import torch
    from scipy.linalg import solve_banded
    from scipy.signal import lfilter

    from learnsolve.sequence import linear_recurrence

    generator = torch.Generator().manual_seed(0)
    b = torch.randn(1, length, CHANNELS, generator=generator)
    a = 0.99 * torch.rand(CHANNELS, generator=generator)
    whole, flat = a.expand(b.shape).contiguous(), b[0].numpy()

    def filtered() -> Any:
        return np.stack([lfilter([1.0], [1.0, -float(a[d])], flat[:, d]) for d in range(CHANNELS)], 1)

    def banded() -> Any:
        bands = np.ones((2, length), np.float32)
        found = []
        for d in range(CHANNELS):
            bands[1] = -float(a[d])
            found.append(solve_banded((1, 0), bands, flat[:, d]))
        return np.stack(found, 1)

    def transformed() -> Any:
        kernel = a ** torch.arange(length)[:, None]
        spectra = torch.fft.rfft(kernel, 2 * length, dim=0) * torch.fft.rfft(b[0], 2 * length, dim=0)
        return torch.fft.irfft(spectra, 2 * length, dim=0)[:length]

    tasks: dict[str, Callable[[], Any]] = {"learnsolve": lambda: linear_recurrence(whole, b)[0]}
    if peers:
        tasks |= {"lfilter": filtered, "solve_banded": banded, "FFT": transformed}
    rows = []
    for name, task in tasks.items():
        found, seconds = timed(task, repeats)
        wanted = linear_recurrence(whole.double(), b.double())[0][0]
        away = torch.as_tensor(np.asarray(found)).reshape(length, CHANNELS).double() - wanted
        error = float(away.norm() / wanted.norm())
        row = {
            "what": "diagonal recurrence",
            "length": length,
            "who": name,
            "seconds": seconds,
            "error": error,
        }
        rows.append(row)
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    console, progress = consoles()
    # What is compiled once is not timed.
    kinds = {"delta": delta, "diagonal": diagonal}
    rows = []
    for what in options.what:
        kinds[what](64, False, 1)
        for length in options.lengths:
            progress.print(f"[dim]{what}, {length}[/]", highlight=False)
            rows += kinds[what](length, length <= options.longest_peer, options.repeats)
    title = f"{HEADS} heads of {WIDTH}, or {CHANNELS} channels; float32, one thread, processor seconds"
    shown = Table(title=title, title_justify="left")
    for heading in ("what", "length", "who", "seconds", "of ours", "error"):
        shown.add_column(heading, justify="left" if heading in ("what", "who") else "right")
    ours = {(row["what"], row["length"]): row["seconds"] for row in rows if row["who"] == "learnsolve"}
    for row in rows:
        ratio = row["seconds"] / ours[row["what"], row["length"]]
        error = f"{row['error']:.1e}" if "error" in row else ""
        shown.add_row(
            row["what"], str(row["length"]), row["who"], f"{row['seconds']:.4f}", f"{ratio:.1f}", error
        )
    console.print(shown)
    path = measure.write_rows("sequence", options, rows)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
