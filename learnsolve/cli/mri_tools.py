"""Masks, coil maps, simulated scans and metrics from the command line."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from learnsolve.cli.common import FAILED, NOT_CONVERGED, Json, say_error

Acceleration = Annotated[float, typer.Option(help="Positions for each that is sampled.")]
Centre = Annotated[
    float | None,
    typer.Option(help="Of the rule: lines of the middle, or their share.", show_default=False),
]
Axis = Annotated[int, typer.Option(help="Of the rule: -1 or -2, along which lines are counted.")]


class Rule(StrEnum):
    """How to undersample."""

    random = "random"
    equispaced = "equispaced"
    equispaced_fraction = "equispaced_fraction"
    magic = "magic"
    gaussian_1d = "gaussian_1d"
    gaussian_2d = "gaussian_2d"
    poisson = "poisson"
    radial = "radial"
    spiral = "spiral"


def mask(
    rule: Annotated[Rule, typer.Argument(help="How to undersample.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A file .npy.")],
    shape: Annotated[tuple[int, int], typer.Option(metavar="HEIGHT WIDTH", help="Of k-space.")],
    acceleration: Acceleration = 4.0,
    centre: Centre = None,
    axis: Axis = -1,
    seed: Annotated[str, typer.Option(help="A number, or the name of a file, by fastMRI's rule.")] = "0",
) -> None:
    """Write a mask, and say its factor. Exit code 1: an option is wrong."""
    import numpy as np

    from learnsolve.files import replacing
    from learnsolve.mri import Sampling, acs_region, factor

    chosen = Sampling(
        rule.value, acceleration, centre=centre, axis=axis, seed=int(seed) if seed.isdigit() else seed
    )
    found = chosen.mask(shape)
    with replacing(out) as part, open(part, "wb") as stream:
        np.save(stream, found.numpy())
    tall, wide = acs_region(found)
    typer.echo(f"factor {factor(found):.4f}, middle {tall} x {wide}; wrote {out}")


def maps(
    file: Annotated[Path, typer.Argument(help="K-space.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="An HDF5 file.")],
    method: Annotated[str, typer.Option(help="espirit, walsh or low-resolution.")] = "espirit",
    sets: Annotated[int, typer.Option(min=1, help="Of espirit: how many maps for each coil.")] = 1,
    crop: Annotated[float, typer.Option(help="Of espirit: where the eigenvalue falls, the maps do.")] = 0.0,
) -> None:
    """Write what the coils see: maps (slices, sets, coils, height, width), and espirit's eigenvalues.

    Exit code 0: all is well; 2: slices were skipped; 1: the file has no k-space, or no slice could be used.
    """
    import h5py
    import numpy as np
    import torch

    from learnsolve.datasets.kspace import open_kspace
    from learnsolve.files import check_folder, check_room, replacing
    from learnsolve.mri import espirit
    from learnsolve.mri.reconstruct import MAPS

    skipped: list[int] = []
    check_folder(out)
    if method not in MAPS:
        raise ValueError(f"method is {method!r}; {', '.join(MAPS)} are accepted")
    if method != "espirit" and (sets > 1 or crop):
        raise ValueError(f"{method} has neither sets nor a crop; espirit has")
    with open_kspace(file) as kspace:
        slices, coils, height, width = kspace.shape
    check_room(out, slices * sets * height * width * (8 * coils + 4))
    with open_kspace(file) as kspace, replacing(out) as part, h5py.File(part, "w") as target:
        whole = target.create_dataset("maps", (slices, sets, coils, height, width), np.complex64)
        if method == "espirit":
            target.create_dataset("eigenvalues", (slices, sets, height, width), np.float32)
        for i in range(slices):
            k = torch.from_numpy(kspace[i])
            try:
                if method == "espirit":
                    found = espirit(k, maps=sets, crop=crop, centred=kspace.centred)
                    whole[i], target["eigenvalues"][i] = found.maps.numpy(), found.eigenvalues.numpy()
                else:
                    whole[i, 0] = MAPS[method](k, centred=kspace.centred).numpy()
            except ValueError as error:
                skipped.append(i)
                say_error(f"slice {i} skipped: {error}")
        if len(skipped) == slices:
            raise ValueError(f"{file} has no slice that maps could be found of")
    typer.echo(f"{method}: maps of {slices - len(skipped)} slices, {coils} coils; wrote {out}")
    if skipped:
        raise typer.Exit(NOT_CONVERGED)


def simulate(
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder.")],
    volumes: Annotated[int, typer.Option(min=1, help="How many files.")] = 1,
    slices: Annotated[int, typer.Option(min=1, help="Of each.")] = 8,
    size: Annotated[int, typer.Option(min=8, help="Height and width.")] = 128,
    coils: Annotated[int, typer.Option(min=1, help="Around the object.")] = 8,
    noise: Annotated[float, typer.Option(min=0, help="Energy of the noise over that of the signal.")] = 0.01,
    layout: Annotated[
        Literal["fastmri", "calgary", "ismrmrd"], typer.Option(help="Of the files.")
    ] = "fastmri",
    seed: Annotated[int, typer.Option(min=0, help="Of the objects.")] = 0,
) -> None:
    """Write scans of random objects, fully sampled, to learn from or to try methods on."""
    import numpy as np

    from learnsolve.datasets.kspace_writers import write_kspace
    from learnsolve.problems.scans import Volume

    out.mkdir(parents=True, exist_ok=True)
    for number in range(volumes):
        scan = Volume((size, size), coils=coils, slices=slices, noise=noise, seed=seed + number)
        path = out / f"{layout}_{seed + number}.h5"
        write_kspace(
            path, (scan[i].kspace for i in range(slices)), (slices, coils, size, size), layout,
            references=(_image(scan[i].kspace) for i in range(slices)),
            attributes={"acquisition": scan.contrast.sequence, "seed": np.int64(seed + number)},
        )  # fmt: skip
        typer.echo(f"wrote {path}")


def _image(kspace: Any) -> Any:
    import torch

    from learnsolve.mri import zero_filled

    return zero_filled(torch.from_numpy(kspace)).numpy()


def evaluate(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Files of reconstructions.")],
    reference: Annotated[
        Path, typer.Option("--reference", "-r", help="A file of k-space or of images, or a folder of such.")
    ],
    convention: Annotated[Literal["fastmri", "calgary"], typer.Option(help="Whose definitions.")] = "fastmri",
    as_json: Json = False,
) -> None:
    """Compare reconstructions with references: means over slices, and intervals that hold 95 of 100 means.

    Exit code 1: a file cannot be read, or two do not fit.
    """
    import numpy as np

    from learnsolve import mri
    from learnsolve.mri.metrics import DEFINITIONS

    failed = False
    if not as_json:
        typer.echo(f"{convention}: {DEFINITIONS[convention]}")
    for path in images:
        try:
            rows = []
            other = reference / path.name if reference.is_dir() else reference
            for image, wanted in _pairs(path, other):
                rows.append(mri.measures(wanted, image, convention=convention))
            if not rows:
                raise ValueError(f"all references of {path} are zero")
        except (OSError, ValueError) as error:
            failed = True
            say_error(error)
            continue
        record: dict[str, Any] = {"file": str(path), "slices": len(rows), "convention": convention}
        for name in rows[0]:
            values = [row[name] for row in rows]
            record[name] = {"mean": float(np.mean(values)), "interval": list(mri.interval(values))}
        if as_json:
            typer.echo(json.dumps(record))
            continue
        typer.echo(f"{path}: {len(rows)} slices")
        for name in rows[0]:
            low, high = record[name]["interval"]
            typer.echo(f"  {name} {record[name]['mean']:.4f} ({low:.4f} to {high:.4f})")
    if failed:
        raise typer.Exit(FAILED)


def _pairs(path: Path, other: Path) -> Any:
    """Images and references of each slice whose reference is not zero."""
    import h5py
    import numpy as np
    import torch

    from learnsolve.datasets.kspace import open_kspace
    from learnsolve.mri import zero_filled

    def opened(file: Path) -> Any:
        try:
            return h5py.File(file)
        except FileNotFoundError:
            raise FileNotFoundError(f"there is no file {file}") from None
        except OSError as error:
            raise ValueError(f"{file} is no HDF5 file, or is damaged ({error})") from None

    with opened(path) as file:
        if "reconstruction" not in file:
            raise ValueError(f"{path} has no dataset 'reconstruction'")
        held = file["reconstruction"]
        with opened(other) as known:
            name = next(
                (n for n in ("reconstruction_rss", "reconstruction_esc", "reconstruction") if n in known),
                None,
            )
            if name is not None:
                if known[name].shape != held.shape:
                    raise ValueError(f"{path} has images {held.shape}, and {other} {known[name].shape}")
                for image, wanted in zip(held, known[name], strict=True):
                    if np.any(wanted):
                        yield np.asarray(image), np.asarray(wanted)
                return
        with open_kspace(other) as kspace:
            slices, _, height, width = kspace.shape
            if held.shape != (slices, height, width):
                raise ValueError(f"{path} has images {held.shape}, and {other} k-space {kspace.shape}")
            for i in range(slices):
                wanted = zero_filled(torch.from_numpy(kspace[i]), centred=kspace.centred).numpy()
                if wanted.any():
                    yield np.asarray(held[i]), wanted
