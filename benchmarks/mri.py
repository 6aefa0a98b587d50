"""Reconstruction of a scan beside SigPy and BART, on the same arrays and one thread."""

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import measure, mri_bart
from benchmarks.poisson import consoles

# Kind, acceleration, sampled middle.
CASES = {"random": (3.66, 20), "equispaced_fraction": (4.0, 20), "poisson": (3.95, 24)}
# Weights of the peer, of which the best by the reference is taken: the scan's maximum is one.
WEIGHTS = {"cg": (1e-3, 1e-2, 5e-2), "l1": (3e-4, 1e-3, 3e-3), "tv": (3e-4, 1e-3, 3e-3)}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.mri", description=__doc__)
    command.add_argument("file", type=Path, help="fastMRI's layout, fully sampled: kspace of its first slice")
    command.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    command.add_argument("--axis", type=int, default=-2, help="along which lines are counted")
    command.add_argument("--seeds", type=int, default=1, help="masks of each kind")
    command.add_argument("--repeats", type=int, default=3)
    command.add_argument("--weights", default="small", help="of a network, or none")
    command.add_argument("--body-coil", action="store_true", help="judge the maps by kspace_bodycoil")
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def timed(task: Callable[[], Any], repeats: int) -> tuple[Any, float]:
    """What a task gives, and its median processor seconds."""
    spent = []
    for _ in range(repeats):
        began = time.process_time()
        found = task()
        spent.append(time.process_time() - began)
    return found, statistics.median(spent)


def sigpys(y: Any, sampled: Any, maps: Any) -> dict[str, list[Callable[[], Any]]]:
    """SigPy's solvers, a task for each weight."""
    from sigpy.mri import app

    weights = sampled.numpy().astype("float32")

    def task(kind: str, weight: float) -> Callable[[], Any]:
        options = {"weights": weights, "show_pbar": False}
        if kind == "cg":
            return lambda: app.SenseRecon(y, maps, lamda=weight, max_iter=30, **options).run()
        make = app.L1WaveletRecon if kind == "l1" else app.TotalVariationRecon
        return lambda: make(y, maps, weight, max_iter=100, **options).run()

    return {kind: [task(kind, weight) for weight in grid] for kind, grid in WEIGHTS.items()}


def compare(
    kspace: Any, truth: Any, case: str, seed: int, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Rows of one mask."""
    import numpy as np
    import torch

    from learnsolve import mri
    from learnsolve.mri.learned import load

    acceleration, centre = CASES[case]
    rule = mri.Sampling(case, acceleration, centre=centre, axis=options.axis, seed=seed)
    sampled = rule.mask(tuple(kspace.shape))
    y = torch.where(sampled, kspace, 0)
    reference = mri.rss(mri.images_of(kspace)).numpy()
    inside = mri.foreground(reference)

    def row(what: str, who: str, seconds: float, image: Any = None, maps: Any = None) -> dict[str, Any]:
        found = {"case": case, "seed": seed, "factor": mri.factor(sampled), "what": what, "who": who}
        found["seconds"] = seconds
        if image is not None:
            size = np.abs(np.asarray(image))
            found |= {
                "nmse": mri.nmse(reference, size),
                "foreground": mri.nmse(reference, size, where=inside),
                "ssim": mri.ssim(reference, size, where=inside),
            }
        if maps is not None and truth is not None:
            inner = (maps.conj() * truth).sum(0).abs() / (mri.rss(maps) * mri.rss(truth)).clamp_min(1e-12)
            found["unexplained"] = float((1 - inner.square())[torch.from_numpy(inside)].mean())
        return found

    found, seconds = timed(lambda: mri.espirit(y), options.repeats)
    maps = found.maps[0]
    rows = [
        row("zero-filled", "learnsolve", 0.0, mri.zero_filled(y)),
        row("espirit", "learnsolve", seconds, maps=maps),
    ]
    for kind, solver in (("cg", mri.cg_sense), ("l1", mri.l1_wavelet), ("tv", mri.total_variation)):
        res, seconds = timed(lambda solver=solver: solver(y, sampled, maps), options.repeats)
        rows.append(row(kind, "learnsolve", seconds, res.x))
    if options.weights != "none":
        network = load(options.weights)
        for check in (False, True):
            res, seconds = timed(
                lambda check=check: mri.recurrentvarnet(y, sampled, maps, weights=network, check=check),
                options.repeats,
            )
            rows.append(row("recurrentvarnet" + ", checked" * check, "learnsolve", seconds, res.x))
    if mri_bart.installed():
        best: dict[str, dict[str, Any]] = {}
        for kind, seconds, array in mri_bart.reconstructed(y.numpy(), centre):
            if kind == "espirit":
                rows.append(row(kind, "bart", seconds, maps=torch.from_numpy(array)))
                continue
            one = row(kind, "bart", seconds, array)
            best[kind] = min(one, best.get(kind, one), key=lambda found: found["nmse"])
        rows += best.values()
    else:
        print("bart is not installed", file=sys.stderr)
    try:
        from sigpy.mri import app
    except ImportError:
        print("sigpy is not installed", file=sys.stderr)
        return rows
    # A scale for which the grid of weights is meant.
    scaled = (y / float(reference.max())).numpy()
    calibrate = app.EspiritCalib
    theirs, seconds = timed(
        lambda: calibrate(scaled, calib_width=centre, crop=0, show_pbar=False).run(), options.repeats
    )
    rows.append(row("espirit", "sigpy", seconds, maps=torch.from_numpy(theirs)))
    for kind, tasks in sigpys(scaled, sampled, theirs).items():
        tried = [timed(task, options.repeats) for task in tasks]
        done = [row(kind, "sigpy", seconds, image * reference.max()) for image, seconds in tried]
        rows.append(min(done, key=lambda one: one["nmse"]))
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import h5py
    import torch

    from learnsolve import mri

    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    console, progress = consoles()
    with h5py.File(options.file) as file:
        kspace = torch.from_numpy(file["kspace"][0])
        body = torch.from_numpy(file["kspace_bodycoil"][0]) if options.body_coil else None
    truth = None
    if body is not None:
        seen = mri.images_of(body)
        truth = mri.images_of(kspace) / (mri.rss(seen) * torch.exp(1j * seen[0].angle()))
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in options.case:
            for seed in range(1, options.seeds + 1):
                progress.print(f"[dim]{case}, seed {seed}[/]", highlight=False)
                rows += compare(kspace, truth, case, seed, options)
    shown = Table(title=f"{options.file.name}, {tuple(kspace.shape)}, one thread", title_justify="left")
    headings = ("case", "seed", "what", "who", "processor s", "NMSE", "foreground", "SSIM", "unexplained")
    for heading in headings:
        shown.add_column(heading, justify="left" if heading in headings[:4] else "right")
    for one in rows:
        figures = (one.get(name) for name in ("nmse", "foreground", "ssim", "unexplained"))
        shown.add_row(
            f"{one['case']} {one['factor']:.2f}", str(one["seed"]), one["what"], one["who"],
            f"{one['seconds']:.3f}", *("" if value is None else f"{value:.4f}" for value in figures),
        )  # fmt: skip
    console.print(shown)
    path = measure.write_rows("mri", options, rows)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
