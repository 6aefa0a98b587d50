"""Random operators and vectors for the kernel tests, as torch tensors."""

import numpy as np
import torch
from scipy import sparse

from learnsolve.kernels.rows_reference import Rows
from learnsolve.kernels.stencil import FaceStencil, UnitStencil

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12, torch.complex64: 2e-5, torch.complex128: 1e-12}


def close(actual, expected):
    tolerance = TOLERANCE[expected.dtype]
    torch.testing.assert_close(actual.cpu(), expected.cpu(), rtol=tolerance, atol=10 * tolerance)


def poison(like):
    """Memory as it may be handed out: full of NaN."""
    return torch.full_like(like, torch.nan)


def random(shape, dtype, generator):
    values = torch.rand(shape, dtype=dtype, generator=generator)
    return values + 0.5 if not dtype.is_complex else values + (0.5 + 0.2j)


def grid_case(kind, shape, dtype, seed=0):
    """A stencil with inactive cells, `b` nonzero everywhere and `x` zero on inactive cells."""
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(shape, generator=generator) < 0.8
    active[0, 0, 0] = True
    if kind == "unit":
        weights = random(3, dtype, generator)
        if shape[0] == 1:
            weights[0] = 0
        z, y, x = torch.randint(0, 3, (3, *shape), generator=generator)
        code = (z | (y << 2) | (x << 4) | (active.long() << 6)).to(torch.uint8)
        stencil = UnitStencil(code, weights, random(1, dtype, generator))
    else:
        faces = []
        for axis in range(3):
            first, others = active.narrow(axis, 0, 1), active.narrow(axis, 0, shape[axis] - 1)
            before = torch.cat([torch.zeros_like(first), others], axis)
            faces.append(random(shape, dtype, generator) * active * before)
        if shape[0] == 1:
            faces[0] = torch.zeros((1, 1, 1), dtype=dtype)
        stencil = FaceStencil(4 * random(shape, dtype, generator) * active, *faces)
    b = random(shape, dtype, generator) - 1
    x = (random(shape, dtype, generator) - 1) * active
    return stencil, b, x


def halved(shape, axes=(True, True, True)):
    return tuple((n + 1) // 2 if along else n for n, along in zip(shape, axes, strict=True))


def to(stencil, device):
    return type(stencil)(*(t.to(device) for t in stencil))


def numpy(*tensors):
    """Views of tensors and stencils on their memory."""
    views = [
        type(t)(*(field.numpy() for field in t)) if isinstance(t, UnitStencil | FaceStencil) else t.numpy()
        for t in tensors
    ]
    return views[0] if len(views) == 1 else views


def sparse_case(rows, columns, dtype, index, seed=0, density=0.2):
    """A random CSR matrix with empty and with long rows: indptr, indices, values, and scipy's."""
    rng = np.random.default_rng(seed)
    pattern = rng.random((rows, columns)) < density * rng.integers(0, 4, (rows, 1))
    values = rng.random((rows, columns)) - 0.5
    if dtype.is_complex:
        values = values + 1j * rng.random((rows, columns))
    matrix = sparse.csr_array((pattern * values).astype(torch.empty(0, dtype=dtype).numpy().dtype))
    tensors = [torch.from_numpy(np.array(t)) for t in (matrix.indptr, matrix.indices, matrix.data)]
    return tensors[0].to(index), tensors[1].to(index), tensors[2], matrix


def square_case(n, dtype, index, seed=0):
    """A square random CSR matrix with a dominant diagonal, which is zero in one row; and the diagonal."""
    *_, matrix = sparse_case(n, n, dtype, index, seed)
    diagonal = np.full(n, n, matrix.dtype)
    diagonal[n // 2] = 0
    matrix = sparse.csr_array(matrix + sparse.diags_array(diagonal - matrix.diagonal()))
    matrix.eliminate_zeros()
    tensors = [torch.from_numpy(np.array(t)) for t in (matrix.indptr, matrix.indices, matrix.data, diagonal)]
    return tensors[0].to(index), tensors[1].to(index), tensors[2], tensors[3], matrix


def row_case(k, dtype, loss, weighted, damped):
    """Least-squares problems of eleven rows, one of them empty, one short, one long."""
    generator = torch.Generator().manual_seed(k)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    counts = torch.tensor([7, 0, 300, 1, *torch.randint(5, 40, (7,), generator=generator).tolist()])
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    indices = torch.cat(
        [torch.randperm(400, generator=generator)[:count].sort().values for count in counts.tolist()]
    )
    nnz, half = len(indices), normal(k, k)
    weights = normal(nnz if weighted else 0).abs() + 0.1
    zero = torch.zeros(k, k, dtype=dtype)
    matrix = half @ half.mT / k
    rows = Rows(
        indptr, indices.int(), normal(nnz), weights, normal(400), normal(400, k),
        0.1 * matrix if damped else zero, matrix if damped else zero, 0.05 if damped else 0.0, loss, 1.2,
    )  # fmt: skip
    return rows, normal(11, k)
