"""Kernels for compressed sparse rows: scipy, the reference, and numba through the dispatcher."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from learnsolve.kernels import sparse, sparse_numba, sparse_reference
from tests.kernel_cases import close, numpy, random, sparse_case, square_case

# Each compiles every kernel anew, so half of the combinations are left to the slow tests.
FORMS = [
    (torch.float64, torch.int32),
    (torch.complex64, torch.int64),
    pytest.param(torch.float32, torch.int64, marks=pytest.mark.slow),
    pytest.param(torch.complex128, torch.int32, marks=pytest.mark.slow),
]
SHAPES = [(1, 1), (1, 9), (7, 1), (30, 20), (17, 40)]


def vectors(rows, columns, width, dtype):
    generator = torch.Generator().manual_seed(1)
    tail = () if width is None else (width,)
    return random((rows, *tail), dtype, generator), random((columns, *tail), dtype, generator)


@pytest.mark.parametrize("width", [None, 1, 3])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "index"), FORMS)
def test_products(dtype, index, shape, width):
    *matrix, scipys = sparse_case(*shape, dtype, index)
    b, x = vectors(*shape, width, dtype)
    expected = torch.from_numpy(np.asarray(scipys @ x.numpy()))
    close(sparse_reference.spmv(*matrix, x), expected)
    close(sparse_reference.residual(*matrix, b, x), b - expected)
    y, r = torch.full_like(b, torch.nan), torch.full_like(b, torch.nan)
    assert sparse.spmv(*matrix, x, y) is y
    close(y, expected)
    assert sparse.residual(*matrix, b, x, r) is r
    close(r, b - expected)
    close(sparse.spmv(*matrix, x), expected)
    close(sparse.residual(*matrix, b, x), b - expected)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_any_number_of_threads(shape, threads):
    *matrix, scipys = sparse_case(*shape, torch.float64, torch.int32)
    b, x = vectors(*shape, None, torch.float64)
    y = torch.full_like(b, torch.nan)
    sparse_numba.spmv(*numpy(*matrix, x, y), threads)
    close(y, torch.from_numpy(scipys @ x.numpy()))


@pytest.mark.parametrize("width", [None, 1, 3])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "index"), FORMS)
def test_sampled_products(dtype, index, shape, width):
    indptr, indices, _, _ = sparse_case(*shape, dtype, index)
    u, v = vectors(*shape, width, dtype)
    full = (u @ v.mH) if width else torch.outer(u, v.conj())
    rows = torch.repeat_interleave(torch.arange(shape[0]), indptr.diff().long())
    expected = full[rows, indices.long()]
    close(sparse_reference.sampled_product(indptr, indices, u, v), expected)
    close(sparse.sampled_product(indptr, indices, u, v), expected)


@pytest.mark.parametrize("width", [None, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("dtype", "index"), FORMS)
def test_relaxation_by_colours_and_in_order(dtype, index, width):
    n = 23
    *matrix, diagonal, scipys = square_case(n, dtype, index)
    b, x = vectors(n, n, width, dtype)
    colours = sparse.colouring(*matrix[:2])
    pattern = scipys.toarray() != 0
    same = colours[:, None].numpy() == colours.numpy()
    assert not (pattern & same & ~np.eye(n, dtype=bool)).any()
    order = torch.argsort(colours, stable=True)
    permuted = scipys[order.numpy()][:, order.numpy()]
    expected = x[order].clone()
    permuted_csr = [torch.from_numpy(np.array(t)) for t in (permuted.indptr, permuted.indices, permuted.data)]
    sparse_reference.gauss_seidel(*permuted_csr, diagonal[order], b[order], expected, 1.25, False)
    for form in (sparse_reference, sparse):
        by_colour = x.clone()
        for colour in range(int(colours.max()) + 1):
            rows = torch.nonzero(colours == colour)[:, 0].to(index)
            form.relax_rows(*matrix, diagonal, b, by_colour, rows, 1.25)
        close(by_colour[order], expected)
    for reverse in (False, True):
        expected, in_order = x.clone(), x.clone()
        sparse_reference.gauss_seidel(*matrix, diagonal, b, expected, 1.25, reverse)
        sparse.gauss_seidel(*matrix, diagonal, b, in_order, 1.25, reverse)
        close(in_order, expected)
        assert torch.equal(in_order[n // 2], x[n // 2])


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize(("n", "density"), [(1, 0.0), (12, 0.0), (12, 0.05), (30, 0.1), (9, 1.0)])
def test_colouring(n, density, index):
    indptr, indices, *_ = sparse_case(n, n, torch.float64, index, density=density)
    colours = sparse.colouring(indptr, indices)
    assert colours.dtype == torch.int32
    assert torch.equal(colours, sparse_reference.colouring(indptr, indices))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_the_reference_is_differentiable_twice(dtype):
    indptr, indices, values, _ = sparse_case(4, 5, dtype, torch.int32, density=0.3)
    for width in (None, 2):
        b, x = vectors(4, 5, width, dtype)
        inputs = [t.requires_grad_() for t in (values.clone(), b, x)]

        def functions(values, b, x):
            return (
                sparse_reference.residual(indptr, indices, values, b, x),
                sparse_reference.sampled_product(indptr, indices, b, x),
            )

        assert torch.autograd.gradcheck(functions, inputs)
        assert torch.autograd.gradgradcheck(functions, inputs)


def test_the_gradient_of_a_product_is_a_sampled_product():
    indptr, indices, values, _ = sparse_case(6, 5, torch.complex64, torch.int64)
    b, x = vectors(6, 5, 2, torch.complex64)
    values.requires_grad_()
    (gradient,) = torch.autograd.grad(sparse_reference.spmv(indptr, indices, values, x), values, b)
    close(sparse.sampled_product(indptr, indices, b, x), gradient)


def test_views_that_are_not_contiguous_or_lazily_conjugated():
    *matrix, scipys = sparse_case(20, 20, torch.complex64, torch.int64)
    x, y = vectors(20, 20, 6, torch.complex64)
    expected = torch.from_numpy(scipys @ x.conj().resolve_conj().numpy()[:, ::2])
    wide = y.clone()
    sparse.spmv(*matrix, x.conj()[:, ::2], wide[:, ::2])
    close(wide[:, ::2], expected)
    assert torch.equal(wide[:, 1::2], y[:, 1::2])
    with pytest.raises(ValueError, match="conjugated"):
        sparse.spmv(*matrix, x, y.conj())


def test_other_dtypes_are_served_by_the_reference():
    *matrix, scipys = sparse_case(8, 8, torch.float32, torch.int32)
    matrix[2] = matrix[2].bfloat16()
    answer = sparse.spmv(*matrix, torch.ones(8, dtype=torch.bfloat16))
    torch.testing.assert_close(answer.float(), torch.from_numpy(scipys.sum(1)), rtol=0.05, atol=0.05)


def test_what_does_not_fit_is_refused():
    *matrix, diagonal, _ = square_case(5, torch.float64, torch.int32)
    b, x = vectors(5, 5, None, torch.float64)
    with pytest.raises(ValueError, match="shape"):
        sparse.spmv(*matrix, x, x[:4])
    with pytest.raises(ValueError, match="shape"):
        sparse.residual(*matrix, b[:4], x)
    with pytest.raises(TypeError, match="dtype"):
        sparse.spmv(*matrix, x.float())
    with pytest.raises(TypeError, match="dtype"):
        sparse.relax_rows(*matrix, diagonal, b.float(), x, torch.tensor([0]), 1.0)
    with pytest.raises(NotImplementedError, match="relax_rows"):
        sparse.gauss_seidel(*(t.to("meta") for t in (*matrix, diagonal, b, x)), 1.0)


def test_a_second_process_takes_parallel_kernels_from_the_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    script = """
import numpy as np
from learnsolve.kernels import sparse_numba
x, y = np.ones(2, np.float32), np.empty(2, np.float32)
sparse_numba.spmv(np.array([0, 1, 3]), np.array([0, 0, 1]), np.ones(3, np.float32), x, y, 2)
print(list(y), sum(sparse_numba._vector.parallel.stats.cache_hits.values()))
"""
    for hits in (0, 1):
        command = [sys.executable, "-W", "error", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[-1] == str(hits)
