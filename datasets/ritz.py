"""Training data for learned conjugate directions: unit vectors rich in what plain CG reduces last."""

import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from learnsolve.datasets.lanczos import GIB, Progress, ritz
from learnsolve.datasets.samples import create_samples, new_file
from learnsolve.operators import Operator


def write_ritz(
    path: str | os.PathLike,
    A: Operator,
    *,
    vectors: int = 10_000,
    samples: int = 20_000,
    seed: int = 0,
    low: float = 0.55,
    weight: float = 9.0,
    chunk: int = 64,
    dtype: Literal["float32", "float64"] = "float32",
    memory: int = 2 * GIB,
    progress: Progress | None = None,
) -> Path:
    r"""Write random unit vectors whose energy lies in the low Ritz vectors of ``A``.

    .. math:: b = \sum_j c_j v_j / \Bigl\| \sum_j c_j v_j \Bigr\|, \qquad
              c_j \sim w_j\, N(0, 1), \quad
              w_j = \text{weight for the lowest Ritz values, else } 1

    The same arguments give the same file, bit by bit, on the same machine. Memory: the basis up to
    ``memory`` (else blocks of 256 MiB or one row), two or three times ``8 * vectors**2`` bytes, and four
    times a chunk in double precision; the set itself may be larger than memory. Every chunk reads the
    whole basis, so a basis on disk wants larger chunks.

    Parameters
    ----------
    path : str or os.PathLike
        The file is there when it is whole.
    A : Operator
        As in `lanczos`.
    vectors : int
        Steps of Lanczos' process.
    samples : int
        How many.
    seed : int
        Of the start and the coefficients.
    low : float
        The fraction of the Ritz values, from the lowest, that is weighted.
    weight : float
        Of their coefficients.
    chunk : int
        How many samples are made at a time.
    dtype : {"float32", "float64"}
        Of the file.
    memory : int
        Bytes of the basis; a larger one goes to a scratch file beside ``path``.
    progress : callable, optional
        Called after each step and each chunk with how much of ``vectors + samples`` is done.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    ValueError
        As in `ritz`; if a number is out of range.
    OSError
        If the file cannot be written.

    References
    ----------
    A. Kaneda et al., *A Deep Conjugate Direction Method for Iteratively Solving Linear Systems*,
    ICML 2023.

    Examples
    --------
    >>> from learnsolve.datasets.samples import Samples
    >>> from learnsolve.operators import GridPoisson
    >>> path = write_ritz("a.h5", GridPoisson(np.zeros((4, 4), int)), vectors=8, samples=3)
    >>> with Samples(path) as data:
    ...     data.batch([2, 0]).shape
    torch.Size([2, 4, 4])
    """
    for name, value in (("samples", samples), ("chunk", chunk)):
        if value < 1:
            raise ValueError(f"{name} is {value}; a positive number is accepted")
    if not 0 <= low <= 1:
        raise ValueError(f"low is {low}; a fraction from 0 to 1 is accepted")
    if not (np.isfinite(weight) and weight > 0):
        raise ValueError(f"weight is {weight}; a positive number is accepted")
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype is {dtype!r}; 'float32' and 'float64' are accepted")

    def report(done: int, _: int = 0) -> None:
        if progress is not None:
            progress(done, vectors + samples)

    path = Path(path)
    with new_file(path) as file:
        values, W, Q = ritz(A, vectors, seed=seed, memory=memory, folder=path.parent, progress=report)
        notes = {"seed": seed, "vectors": len(Q), "low": low, "weight": weight}
        out = create_samples(file, A.domain_shape, dtype, notes, samples)
        file.create_dataset("ritz_values", data=values, chunks=values.shape, fletcher32=True)
        weights = np.ones(len(values))
        weights[: round(low * len(values))] = weight
        rng = np.random.default_rng([seed, 1])
        recombine = torch.from_numpy(W.T).to(A.device)
        for start in range(0, samples, chunk):
            count = min(chunk, samples - start)
            c = torch.from_numpy(weights * rng.standard_normal((count, len(values))))
            b = Q.combine(c.to(A.device) @ recombine)
            b /= torch.linalg.vector_norm(b, dim=tuple(range(1, b.ndim)), keepdim=True)
            out[start : start + count] = b.cpu().numpy()
            report(vectors + start + count)
    return path
