"""``learnsolve mri``: what a file of k-space holds, and images from it."""

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from learnsolve.cli.solve import BAD_INPUT, NOT_CONVERGED

if TYPE_CHECKING:
    import torch

    from learnsolve.datasets.kspace import KSpace
    from learnsolve.mri import Sampling

app = typer.Typer(help="Magnetic resonance images from k-space.", no_args_is_help=True)
SUFFIXES = (".h5", ".hdf5", ".npy", ".npz", ".cfl")


class Method(StrEnum):
    """How to reconstruct."""

    l1_wavelet = "l1-wavelet"
    total_variation = "total-variation"
    cg_sense = "cg-sense"
    zero_filled = "zero-filled"


class Maps(StrEnum):
    """How to find what the coils see."""

    espirit = "espirit"
    walsh = "walsh"
    low_resolution = "low-resolution"


class Lines(StrEnum):
    """How to undersample what is fully sampled."""

    random = "random"
    equispaced = "equispaced"
    equispaced_fraction = "equispaced_fraction"
    magic = "magic"
    gaussian_1d = "gaussian_1d"
    gaussian_2d = "gaussian_2d"
    poisson = "poisson"
    radial = "radial"
    spiral = "spiral"


Key = Annotated[str | None, typer.Option(help="Name of the dataset.", show_default="kspace")]
Axes = Annotated[
    str | None,
    typer.Option(help="What the axes are: letters of scyxr, e.g. yxcs.", show_default="found"),
]


def _fail(error: BaseException) -> None:
    typer.echo(f"learnsolve: {' '.join(str(error).split()) or type(error).__name__}", err=True)


@app.command()
def info(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="HDF5, .npy, .npz or .cfl.")],
    key: Key = None,
    axes: Axes = None,
) -> None:
    """Say what files hold. Exit code 0: k-space; 1: one of them is something else."""
    from learnsolve.datasets.kspace import open_kspace

    failed = False
    for path in files:
        try:
            with open_kspace(path, key=key, axes=axes) as kspace:
                typer.echo(f"{path}: {kspace.verdict()}")
                for name, value in kspace.attributes.items():
                    typer.echo(f"  {name}: {str(value)[:100]}")
        except (OSError, ValueError) as error:
            failed = True
            _fail(error)
    if failed:
        raise typer.Exit(BAD_INPUT)


@app.command()
def recon(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files of k-space, or folders of them.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for files of the same names.")],
    method: Annotated[Method, typer.Option(help="How to reconstruct.")] = Method.l1_wavelet,
    maps: Annotated[Maps, typer.Option(help="How to find what the coils see.")] = Maps.espirit,
    mask: Annotated[
        Lines | None, typer.Option(help="Undersample by this rule first, to judge.", show_default=False)
    ] = None,
    acceleration: Annotated[float, typer.Option(help="Of the rule.")] = 4.0,
    centre: Annotated[
        float | None,
        typer.Option(help="Of the rule: lines of the middle, or their share.", show_default=False),
    ] = None,
    axis: Annotated[int, typer.Option(help="Of the rule: -1 or -2, along which lines are counted.")] = -1,
    seed: Annotated[int | None, typer.Option(help="Of the rule.", show_default="the file's name")] = None,
    key: Key = None,
    axes: Axes = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a record for each file.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Reconstruct volumes, a slice at a time; a run that was killed goes on.

    A file of the same name in the folder gets the dataset reconstruction (slices, height, width), and the
    attributes of how it was made. Exit code 0: all is well; 2: slices were skipped or did not converge; 1: a
    file was not read, or an option is wrong.
    """
    from learnsolve.mri import Sampling

    worst = 0
    try:
        rule = None
        if mask is not None:
            start: int | str = 0 if seed is None else seed
            rule = Sampling(mask.value, acceleration, centre=centre, axis=axis, seed=start)
        out.mkdir(parents=True, exist_ok=True)
        found = list(_listed(files))
        names = [path.stem for path in found]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two files are named {sorted(twice)[0]}, and both would be written to {out}")
    except (OSError, ValueError) as error:
        _fail(error)
        raise typer.Exit(BAD_INPUT) from None
    for path in found:
        try:
            record = _volume(
                path, out, method.value, maps.value, rule, seed is None, key, axes, quiet or as_json
            )
        except (OSError, ValueError) as error:
            _fail(error)
            worst = BAD_INPUT
            continue
        if as_json:
            typer.echo(json.dumps(record))
        elif not quiet:
            _show(record)
        if (record["skipped"] or record["not_converged"]) and worst == 0:
            worst = NOT_CONVERGED
    if worst:
        raise typer.Exit(worst)


def _listed(files: list[Path]) -> Iterator[Path]:
    for path in files:
        if path.is_dir():
            inside = sorted(entry for entry in path.iterdir() if entry.suffix in SUFFIXES)
            if not inside:
                raise FileNotFoundError(f"there is no {', '.join(SUFFIXES)} in the folder {path}")
            yield from inside
        else:
            yield path


def _volume(
    path: Path,
    out: Path,
    method: str,
    maps: str,
    rule: "Sampling | None",
    by_name: bool,
    key: str | None,
    axes: str | None,
    silent: bool,
) -> dict[str, Any]:
    """Reconstruct a file; what comes of it."""
    from dataclasses import replace

    import numpy as np
    import torch
    from rich.console import Console
    from rich.progress import Progress, TimeElapsedColumn, TimeRemainingColumn

    from learnsolve.datasets.kspace import open_kspace

    with open_kspace(path, key=key, axes=axes) as kspace:
        if rule is not None and by_name:
            rule = replace(rule, seed=path.name)
        sampled = None if rule is None else rule.mask(kspace.shape)
        if sampled is not None and not kspace.centred:
            sampled = torch.fft.ifftshift(sampled)
        if sampled is None and kspace.sampled is not None:
            sampled = torch.from_numpy(kspace.sampled)
        how = repr(
            (method, maps, rule, str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns, key, axes)
        )
        target = out / f"{path.stem}.h5"
        if target.resolve() == path.resolve():
            raise ValueError(f"{path} would be written over: --out must be another folder")
        parts = out / f".{path.stem}.{hashlib.sha256(how.encode()).hexdigest()[:12]}.parts"
        parts.mkdir(exist_ok=True)
        bar = Progress(
            *Progress.get_default_columns()[:3], TimeElapsedColumn(), TimeRemainingColumn(),
            console=Console(stderr=True), disable=silent,
        )  # fmt: skip
        with bar:
            task = bar.add_task(path.name, total=len(kspace))
            for i in range(len(kspace)):
                if not (parts / f"{i}.npz").is_file():
                    _slice(kspace, i, parts / f"{i}.npz", method, maps, sampled)
                bar.advance(task)
        record: dict[str, Any] = {"file": str(path), "out": str(target), "verdict": kspace.verdict()}
        record |= {"method": method, "maps": maps, "slices": len(kspace)}
        record |= _joined(kspace, parts, target, record, rule is not None)
        if sampled is not None:
            record["factor"] = sampled.numel() / max(int(sampled.sum()), 1)
        shutil.rmtree(parts)
        record["size"] = [int(n) for n in np.array(kspace.shape)]
        return record


def _slice(
    kspace: "KSpace", i: int, part: Path, method: Any, maps: str, sampled: "torch.Tensor | None"
) -> None:
    """Reconstruct a slice into a file of its own."""
    import numpy as np
    import torch

    import learnsolve
    from learnsolve.files import replacing
    from learnsolve.mri import reconstruct

    height, width = kspace.shape[2:]
    image, status, why = np.zeros((height, width), np.float32), "SKIPPED", ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", learnsolve.ConvergenceWarning)
            k = torch.from_numpy(kspace[i])
            res = reconstruct(k, method, sampled=sampled, maps=maps, centred=kspace.centred)
        found = res.x.abs().numpy()
        if np.isfinite(found).all():
            image, status = found.astype(np.float32), res.status.name
        else:
            why = "the image is not finite"
    except (ValueError, torch.linalg.LinAlgError) as error:
        why = str(error)
    with replacing(part) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, image=image, status=status, why=why)


def _joined(
    kspace: "KSpace", parts: Path, target: Path, about: dict[str, Any], judged: bool
) -> dict[str, Any]:
    """Write the slices into one file, and compare them with what they should be."""
    import h5py
    import numpy as np
    import torch

    from learnsolve import mri
    from learnsolve.files import replacing

    skipped, slow, errors = [], [], []
    with replacing(target) as part, h5py.File(part, "w") as file:
        height, width = kspace.shape[2:]
        images = file.create_dataset("reconstruction", (len(kspace), height, width), np.float32)
        for i in range(len(kspace)):
            with np.load(parts / f"{i}.npz") as held:
                images[i], status, why = held["image"], str(held["status"]), str(held["why"])
            if status == "SKIPPED":
                skipped.append({"slice": i, "why": why})
                continue
            if status != "CONVERGED":
                slow.append({"slice": i, "status": status})
            if judged:
                full = torch.from_numpy(kspace[i])
                reference = mri.zero_filled(full, centred=kspace.centred).numpy()
                inside = mri.foreground(reference)
                errors.append(
                    {
                        "nmse": mri.nmse(reference, images[i]),
                        "psnr": mri.psnr(reference, images[i]),
                        "ssim": mri.ssim(reference, images[i]) if min(height, width) >= 7 else float("nan"),
                        "foreground_nmse": mri.nmse(reference, images[i], where=inside),
                    }
                )
        file.attrs["learnsolve"] = json.dumps({**about, "skipped": skipped, "not_converged": slow})
    means = {name: float(np.mean([one[name] for one in errors])) for name in errors[0]} if errors else {}
    return {"skipped": skipped, "not_converged": slow, "metrics": means}


def _show(record: dict[str, Any]) -> None:
    typer.echo(f"{record['file']}: {record['verdict']}")
    factor = f", factor {record['factor']:.2f}" if "factor" in record else ""
    typer.echo(f"  {record['method']}, maps by {record['maps']}{factor}")
    if record["metrics"]:
        shown = ", ".join(f"{name} {value:.4f}" for name, value in record["metrics"].items())
        typer.echo(f"  means over slices: {shown}")
    for one in record["skipped"]:
        typer.echo(f"  slice {one['slice']} skipped: {one['why']}")
    for one in record["not_converged"]:
        typer.echo(f"  slice {one['slice']}: {one['status']}")
    typer.echo(f"  wrote {record['out']}")
