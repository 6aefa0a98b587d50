"""The kernels that are measured, with the bytes that each must move.

Compulsory bytes count each array once for being read and once for being written, for one call, whatever the
caches do. With ``s`` bytes a value, a stencil takes ``S`` bytes a cell: 1 (unit: one code) or ``4 s``
(faces: the diagonal and three faces). On a grid, for each cell:

=====================  ==========================================================  ====================
kernel                 arrays                                                      bytes
=====================  ==========================================================  ====================
apply                  x read, y written                                           ``2 s + S``
residual               b and x read, r written                                     ``3 s + S``
jacobi                 b and x read, out written                                   ``3 s + S``
smooth, before         b read, x written, coarse b written (1/8)                   ``2 s + s/8 + S``
smooth, after          b read, x read and written, coarse x read (1/8)             ``3 s + s/8 + S``
dot                    x and y read                                                ``2 s``
square                 x read                                                      ``s``
combine                x read, y read and written                                  ``3 s``
descend                p and Ap read, x and r read and written                     ``6 s``
rescale                x read, out written in the other precision                  ``s + s'``
=====================  ==========================================================  ====================

"before" is the smoothing before a coarse correction: four half-sweeps from zero and the restriction of
the residual; "after" is a prolongation and four half-sweeps. Both are one pass. What they would move
if every step were a pass of its own: a half-sweep reads b and x and writes x (``3 s + S``; the first from
zero reads no x), a restriction is a residual (``3 s + S``), its reading and the coarse write (``s + s/8``),
a prolongation reads the coarse x and reads and writes x (``2 s + s/8``).

Sparse matrices have ``z`` entries a row with 4-byte indices: a product reads values, indices, row
pointers and x, and writes y (``z (s + 4) + 4 + 2 s``). A sweep of a graph level also reads b, the inverse
diagonal and the order (``z (s + 4) + 8 + 4 s``); "before" is two such sweeps from zero and a
residual with restriction (``z (s + 4) + 4 + 3 s`` more, and ``4 + s/8`` for the aggregates).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from learnsolve.kernels import graph as graph_kernels
from learnsolve.kernels import graph_numba, grid_numba, sparse_numba, vector_numba
from learnsolve.kernels.grid import as_numpy
from learnsolve.kernels.threads import threads
from learnsolve.operators import GridPoisson


@dataclass
class Kernel:
    """A call, and the bytes that it moves.

    Attributes
    ----------
    name, form, dtype : str
        What it is, on which stencil or format, in which precision.
    call : callable
        Runs it once.
    cells : int
        Cells, rows or elements.
    compulsory : float
        Bytes that must be moved.
    unfused : float
        Bytes that the same steps would move as passes of their own.
    """

    name: str
    form: str
    dtype: str
    call: Callable[[], Any]
    cells: int
    compulsory: float
    unfused: float


def filled(shape: tuple[int, ...], dtype: str, seed: int) -> np.ndarray:
    """Noise where a solve keeps its vectors: in torch's memory, which begins at a cache line."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=getattr(torch, dtype), generator=generator).numpy()


def on_grids(shape: tuple[int, int, int], dtype: str, form: str) -> Iterator[Kernel]:
    """The fine-level kernels on a box with values zero around it."""
    rng = np.random.default_rng(0)
    kind = np.dtype(dtype).type
    coefficients = None if form == "unit" else rng.uniform(1, 2, shape)
    cells = np.zeros(shape, np.int8)
    A = GridPoisson(cells, coefficients=coefficients, boundary="dirichlet", dtype=getattr(torch, dtype))
    stencil = as_numpy(A.stencil)
    del A, coefficients
    b, x, out = (filled(shape, dtype, seed) for seed in range(3))
    coarse = filled(tuple((n + 1) // 2 for n in shape), dtype, 3)
    empty, no_aggregate = np.empty((0, 0, 0), dtype), np.empty((0, 0, 0), np.int32)
    unweighted = np.empty((0, 0, 0, 0), dtype)
    n, s, count, one = b.size, kind().itemsize, threads(b.size), kind(1)
    S = 1 if form == "unit" else 4 * s
    part = s * coarse.size / n
    half = 3 * s + S

    def smooth(coarse_x, coarse_b, first, fresh):
        prolongs, restricts = int(coarse_x is not empty), int(coarse_b is not empty)
        grid_numba.smooth(
            stencil, b, x, coarse_x, coarse_b, no_aggregate, unweighted, one,
            prolongs, 4, first, fresh, restricts, count,
        )  # fmt: skip

    table: list[tuple[str, Callable[[], Any], float, float]] = [
        ("apply", lambda: grid_numba.apply(stencil, b, out, count), 2 * s + S, 2 * s + S),
        ("residual", lambda: grid_numba.residual(stencil, b, x, out, count), half, half),
        ("jacobi", lambda: grid_numba.jacobi(stencil, b, x, out, one, count), half, half),
        (
            "smooth, before",
            lambda: smooth(empty, coarse, 0, True),
            2 * s + part + S,
            (2 * s + S) + 3 * half + half + s + part,
        ),
        (
            "smooth, after",
            lambda: smooth(coarse, empty, 1, False),
            half + part,
            4 * half + 2 * s + part,
        ),
    ]
    for name, call, compulsory, unfused in table:
        yield Kernel(name, form, dtype, call, n, compulsory * n, unfused * n)


def on_vectors(size: int, dtype: str) -> Iterator[Kernel]:
    """What a conjugate gradient iteration does beside the operator and the preconditioner."""
    kind, other = np.dtype(dtype).type, "float32" if dtype == "float64" else "float64"
    x, y, p, q = (filled((size,), dtype, seed) for seed in range(4))
    out = filled((size,), other, 4)
    small, half, count = kind(1e-6), kind(0.5), threads(size)
    s, t = kind().itemsize, out.itemsize
    table: list[tuple[str, Callable[[], Any], float]] = [
        ("dot", lambda: vector_numba.dot(x, y, count), 2 * s),
        ("square", lambda: vector_numba.square(x, count), s),
        ("combine", lambda: vector_numba.combine(half, x, half, y, count), 3 * s),
        ("descend", lambda: vector_numba.descend(small, p, q, x, y, count), 6 * s),
        (f"rescale to {other}", lambda: vector_numba.rescale(out.dtype.type(0.5), x, out, count), s + t),
    ]
    for name, call, bytes_each in table:
        yield Kernel(name, "vector", dtype, call, size, bytes_each * size, bytes_each * size)


def on_sparse(shape: tuple[int, int, int], dtype: str) -> Iterator[Kernel]:
    """The product of a matrix in compressed rows, and the sweeps of a graph level, of the same operator."""
    rng = np.random.default_rng(0)
    kind = np.dtype(dtype).type
    A = GridPoisson(np.zeros(shape, np.int8), boundary="dirichlet", dtype=getattr(torch, dtype))
    matrix = A.to_scipy()
    indptr, indices = matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32)
    n, s, z, count = matrix.shape[0], kind().itemsize, matrix.nnz / matrix.shape[0], threads(matrix.shape[0])
    x, y, b = rng.standard_normal(n).astype(dtype), np.zeros(n, dtype), rng.standard_normal(n).astype(dtype)
    product = z * (s + 4) + 4 + 2 * s
    yield Kernel(
        "product",
        "compressed rows",
        dtype,
        lambda: sparse_numba.spmv(indptr, indices, matrix.data, x, y, count),
        n,
        product * n,
        product * n,
    )
    order, colours = graph_kernels.colour_order(indptr, indices)
    matrix = matrix[order][:, order]
    couplings = matrix.copy()
    couplings.setdiag(0)
    couplings.eliminate_zeros()
    w = couplings.nnz / n
    parts = (couplings.indptr.astype(np.int32), couplings.indices.astype(np.int32), -couplings.data)
    graph = graph_kernels.graph(*parts, matrix.diagonal(), colours)
    fields = [field.numpy() for field in graph[:5]]
    places = np.arange(n, dtype=np.int32).reshape(shape)
    blocks = [(length + 1) // 2 for length in shape]
    k, j, i = np.unravel_index(places, shape)
    aggregate = ((k // 2 * blocks[1] + j // 2) * blocks[2] + i // 2).astype(np.int32).reshape(-1)[order]
    coarse, empty, none = np.zeros(int(np.prod(blocks)), dtype), np.empty(0, dtype), np.empty(0, np.int32)
    several = threads(8 * n)

    def smooth(coarse_b, to, sweeps, fresh, restricts):
        indptr, indices, weights, diagonal, inverse = fields
        graph_numba.smooth(
            indptr, indices, weights, diagonal, inverse, b, x, graph.colours,
            empty, coarse_b, to, kind(1), 0, sweeps, False, fresh, restricts, several,
        )  # fmt: skip

    sweep = w * (s + 4) + 8 + 4 * s
    restriction = w * (s + 4) + 4 + 3 * s + 4 + s * coarse.size / n
    yield Kernel("sweep", "graph", dtype, lambda: smooth(empty, none, 1, False, 0), n, sweep * n, sweep * n)
    # Beside a sweep's arrays the aggregates and the coarse vector; the diagonal is read in place of x.
    fused = sweep + 4 + s * coarse.size / n
    steps = 2 * sweep + s + restriction
    yield Kernel(
        "smooth, before",
        "graph",
        dtype,
        lambda: smooth(coarse, aggregate, 2, True, 1),
        n,
        fused * n,
        steps * n,
    )
