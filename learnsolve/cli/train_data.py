"""What a training config describes: matrices, files of right-hand sides, and held-out systems."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learnsolve.cli.train_cells import digest, read_cells
from learnsolve.cli.train_config import DataOptions, HeldOutOptions
from learnsolve.datasets.ritz import write_ritz
from learnsolve.datasets.samples import Samples
from learnsolve.methods.dcdm_training import Source
from learnsolve.operators import GridPoisson
from learnsolve.operators.grid_stencil import AIR
from learnsolve.problems import poisson


def _jump(shape: tuple[int, ...], seed: int, **options: Any) -> poisson.LinearProblem:
    return poisson.jump(shape, seed=seed, **options)


FAMILIES: dict[str, Callable[..., poisson.LinearProblem]] = {
    "obstacles": poisson.obstacles,
    "free_surface": poisson.free_surface,
    "maze": poisson.maze,
    "jump": _jump,
}


@dataclass(frozen=True)
class HeldOut:
    """A system that no training step sees, and where it comes from."""

    family: str
    shape: tuple[int, ...]
    A: GridPoisson
    b: Tensor


def matrix(domain: str, shape: tuple[int, ...], device: torch.device | None = None) -> GridPoisson:
    """The matrix of an empty domain of `DataOptions`."""
    cells = np.zeros(shape, np.int8)
    if domain == "room":
        cells[-2:] = AIR
    return GridPoisson(cells, boundary="dirichlet" if domain == "dirichlet" else "solid", device=device)


def domains(data: DataOptions, device: torch.device | None = None) -> Iterator[tuple[str, GridPoisson]]:
    """Name and matrix of each domain that a network is trained on."""
    for shape in data.shapes:
        for domain in data.domains:
            if domain in FAMILIES:
                for seed in data.seeds:
                    A = FAMILIES[domain](shape, seed).A.to(device=device)
                    assert isinstance(A, GridPoisson)
                    yield f"{domain}{seed}", A
            elif domain not in data.files:
                yield domain, matrix(domain, shape, device)
    for file in data.files:
        cells = read_cells(file)
        yield f"{Path(file).stem}-{digest(cells)}", GridPoisson(cells, device=device)


def sources(data: DataOptions, device: torch.device, samples: Callable[..., Path] | None) -> list[Source]:
    """Matrices, and their right-hand sides if ``samples(name, A)`` gives files of them."""
    found = []
    for name, A in domains(data, device):
        if samples is None:
            found.append(Source(A))
        else:
            vectors = Samples(samples(name, A))
            found.append(Source(A, vectors, range(len(vectors))))
    return found


def samples_file(
    folder: Path,
    data: DataOptions,
    name: str,
    A: GridPoisson,
    progress: Callable[[int, int], Any] | None = None,
) -> Path:
    """The file of right-hand sides of a domain; written unless one of the same settings is there."""
    settings: dict[str, Any] = {
        "vectors": data.vectors,
        "samples": data.samples,
        "low": data.low,
        "weight": data.weight,
        "seed": data.seed,
    }
    # The name says all that the samples depend on, and a file is there only when it is whole.
    size = "x".join(map(str, A.domain_shape))
    parts = [name, size, *(f"{key}{value}" for key, value in settings.items())]
    path = folder / f"{'-'.join(parts)}.h5"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_ritz(path, A, **settings, progress=progress)
    return path


def held_out_systems(options: HeldOutOptions, device: torch.device) -> Iterator[HeldOut]:
    """The systems on which a network is judged, on a device."""
    for shape in options.shapes:
        for family in options.families:
            for rhs in options.rhs:
                for seed in options.seeds:
                    problem = FAMILIES[family](shape, seed, rhs=rhs)
                    A = problem.A.to(device=device)
                    assert isinstance(A, GridPoisson)
                    yield HeldOut(family, shape, A, torch.from_numpy(problem.b).to(device))
