"""The Triton forms against the reference: on the CPU under TRITON_INTERPRET=1, else on a GPU.

Not collected by itself, for the interpreter must be chosen before the kernels are imported and then
replaces the compiler for the whole process: `test_kernels_triton.py` runs this file in one of its own.
"""

import os

import pytest
import torch

from learnsolve.kernels import (
    ahead_of_time,
    grid_reference,
    grid_triton,
    rows_reference,
    rows_triton,
    sparse_reference,
    sparse_triton,
)
from tests.kernel_cases import (
    close,
    grid_case,
    halved,
    poison,
    random,
    row_case,
    sparse_case,
    square_case,
    to,
)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
SHAPES = [(1, 1, 1), (1, 1, 8), (1, 9, 1), (5, 1, 1), (1, 7, 10), (3, 4, 5), (2, 2, 130)]
SHAPES += [] if INTERPRETED else [(1, 257, 513), (33, 65, 127), (64, 64, 64)]
FORMS = [("unit", torch.float64), ("face", torch.float64), ("unit", torch.float32), ("face", torch.float32)]
OMEGA = 1.3


def on_device(stencil, *vectors):
    return to(stencil, DEVICE), *(t.to(DEVICE) for t in vectors)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kind", "dtype"), FORMS)
def test_apply_residual_jacobi_and_relax(kind, dtype, shape):
    stencil, b, x = on_device(*grid_case(kind, shape, dtype))
    out = poison(x)
    grid_triton.apply(stencil, x, out)
    close(out, grid_reference.apply(stencil, x))
    out = poison(x)
    grid_triton.residual(stencil, b, x, out)
    close(out, grid_reference.residual(stencil, b, x))
    out = poison(x)
    grid_triton.jacobi(stencil, b, x, out, OMEGA)
    close(out, grid_reference.jacobi(stencil, b, x, OMEGA))
    for colour in (0, 1):
        expected, relaxed = x.clone(), x.clone()
        grid_reference.relax(stencil, b, expected, OMEGA, colour)
        grid_triton.relax(stencil, b, relaxed, OMEGA, colour)
        close(relaxed, expected)


@pytest.mark.parametrize("stages", [(0, 2, 1, True, 1), (1, 3, 0, False, 0), (1, 0, 0, False, 1)])
@pytest.mark.parametrize("axes", [(True, True, True), (False, True, False)])
@pytest.mark.parametrize("shape", [s for s in SHAPES if s != (2, 2, 130)])
@pytest.mark.parametrize(("kind", "dtype"), FORMS[:2] if INTERPRETED else FORMS)
def test_smooth(kind, dtype, shape, axes, stages):
    stencil, b, x = on_device(*grid_case(kind, shape, dtype))
    coarse_x = random(halved(shape, axes), dtype, torch.Generator().manual_seed(1)).to(DEVICE)
    coarse_b, expected, expected_b = poison(coarse_x), x.clone(), poison(coarse_x)
    grid_reference.smooth(stencil, b, expected, coarse_x, expected_b, OMEGA, *stages)
    x = poison(x) if stages[3] else x
    grid_triton.smooth(stencil, b, x, coarse_x, coarse_b, OMEGA, *stages)
    close(x, expected)
    if stages[4]:
        close(coarse_b, expected_b)


def test_grid_launches_refuse_what_they_cannot_do():
    stencil, b, x = on_device(*grid_case("face", (2, 3, 4), torch.complex64))
    with pytest.raises(TypeError, match="reference form"):
        grid_triton.apply(stencil, x, b)
    stencil, b, x = on_device(*grid_case("face", (2, 3, 4), torch.float64))
    with pytest.raises(TypeError, match="one dtype"):
        grid_triton.apply(stencil, x, b.float())
    with pytest.raises(ValueError, match="contiguous"):
        grid_triton.apply(stencil, x.mT.contiguous().mT, b)
    with pytest.raises(ValueError, match="shape"):
        grid_triton.apply(stencil, x[:1].clone(), b[:1].clone())
    with pytest.raises(ValueError, match="halve"):
        grid_triton.smooth(stencil, b, x, x[:, :1].clone(), x, 1.0, 1, 0, 0, False, 0)


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize("width", [None, 1, 9])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (30, 20)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_sparse_products(dtype, shape, width, index):
    indptr, indices, values = (t.to(DEVICE) for t in sparse_case(*shape, dtype, index)[:3])
    generator = torch.Generator().manual_seed(1)
    tail = () if width is None else (width,)
    b, x = (random((n, *tail), dtype, generator).to(DEVICE) for n in shape)
    y, r, sampled = poison(b), poison(b), poison(values)
    sparse_triton.spmv(indptr, indices, values, x, y)
    close(y, sparse_reference.spmv(indptr, indices, values, x))
    sparse_triton.residual(indptr, indices, values, b, x, r)
    close(r, sparse_reference.residual(indptr, indices, values, b, x))
    sparse_triton.sampled_product(indptr, indices, b, x, sampled)
    close(sampled, sparse_reference.sampled_product(indptr, indices, b, x))


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_sparse_relaxation(dtype, index):
    *matrix, diagonal, _ = square_case(23, dtype, index)
    colours = sparse_reference.colouring(*matrix[:2]).to(DEVICE)
    *matrix, diagonal = (t.to(DEVICE) for t in (*matrix, diagonal))
    b, both = (random((23, n), dtype, torch.Generator().manual_seed(n)).to(DEVICE) for n in (1, 2))
    for colour in range(int(colours.max()) + 1):
        rows = torch.nonzero(colours == colour)[:, 0].to(index)
        expected, relaxed = both.clone(), both.clone()
        sparse_reference.relax_rows(*matrix, diagonal, b[:, 0], expected[:, 1], rows, OMEGA)
        sparse_triton.relax_rows(*matrix, diagonal, b[:, 0], relaxed[:, 1], rows, OMEGA)
        close(relaxed, expected)
    with pytest.raises(TypeError, match="reference form"):
        sparse_triton.spmv(*matrix[:2], matrix[2].cfloat(), b[:, 0].cfloat(), b[:, 0].cfloat())


@pytest.mark.skipif(not INTERPRETED, reason="the compiler is there")
def test_the_interpreter_compiles_nothing():
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET"):
        ahead_of_time.compile_all()


LOSSES = [(0, False, False), (0, True, True), (1, True, False), (2, False, True)]
PRECISIONS = [(torch.float64, 10), (torch.float64, 1), (torch.float64, 3)]
PRECISIONS += [(torch.float32, k) for k in (3, 1, 10)]


@pytest.mark.parametrize(
    ("loss", "weighted", "damped", "dtype", "k"),
    [
        (*loss, *precision)
        for number, loss in enumerate(LOSSES)
        for place, precision in enumerate(PRECISIONS)
        # The interpreter is slow: there a loss comes with ten columns, all but the first with one case more.
        if not INTERPRETED or place == 0 or number == place
    ],
)
def test_row_problems(loss, weighted, damped, dtype, k):
    rows, U = row_case(k, dtype, loss, weighted, damped)
    rows, U = type(rows)(*(part.to(DEVICE) if torch.is_tensor(part) else part for part in rows)), U.to(DEVICE)
    expected = rows_reference.normal_equations(rows, U)
    for found, truth in zip(rows_triton.normal_equations(rows, U), expected, strict=True):
        close(found, truth)
    some = rows_triton.normal_equations(rows, U, 3, 4)
    for found, truth in zip(some, expected, strict=True):
        close(found, truth[3:7])
    for steps in (0, 1, 3):
        close(rows_triton.cg(rows, U, steps, 0.0), rows_reference.cg(rows, U, steps, 0.0))
    close(rows_triton.cg(rows, U, 9, 0.5), rows_reference.cg(rows, U, 9, 0.5))


def test_row_launches_refuse_what_they_cannot_do():
    rows, U = row_case(3, torch.float64, 0, False, False)
    with pytest.raises(TypeError, match="reference form"):
        rows_triton.cg(rows, U.cfloat(), 1, 0.0)
    with pytest.raises(TypeError, match="one dtype"):
        rows_triton.cg(rows, U.float(), 1, 0.0)
    with pytest.raises(ValueError, match="contiguous"):
        rows_triton.cg(rows, U.mT.contiguous().mT, 1, 0.0)
