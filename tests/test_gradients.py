"""First and second derivatives of a solve against finite differences."""

import numpy as np
import pytest
import torch

import learnsolve
from learnsolve.operators import CSR, Dense, FunctionOperator, GridPoisson

TIGHT = 1e-13


def _pattern(symmetric: bool) -> tuple[torch.Tensor, torch.Tensor]:
    dense = np.zeros((5, 5), bool)
    dense[np.arange(5), np.arange(5)] = True
    dense[np.arange(4), np.arange(1, 5)] = True
    if symmetric:
        dense |= dense.T
    else:
        dense[4, 0] = True
    rows, columns = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=5))])
    return torch.from_numpy(indptr), torch.from_numpy(columns)


def _values(symmetric: bool, dtype: torch.dtype) -> torch.Tensor:
    indptr, columns = _pattern(symmetric)
    rows = torch.repeat_interleave(torch.arange(5), indptr[1:] - indptr[:-1])
    values = torch.where(rows == columns, 4.0, -1.0).to(dtype)
    if dtype.is_complex:
        values = values + 0.3j * (columns - rows).to(dtype)
    return values.requires_grad_()


def _rhs(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize(
    ("method", "M", "symmetric"),
    [
        ("auto", None, True),
        ("auto", None, False),
        ("cg", None, True),
        ("cg", "jacobi", True),
        ("cg", "ic", True),
        ("gmres", None, False),
        ("gmres", "ilu", False),
        ("gmres", "ssor", False),
        ("bicgstab", "jacobi", False),
    ],
)
def test_sparse_values_and_right_hand_side(method, M, symmetric, dtype):
    indptr, indices = _pattern(symmetric)
    values, b = _values(symmetric, dtype), _rhs((5,), dtype)

    def answer(entries, rhs):
        A = CSR(indptr, indices, entries, (5, 5), hermitian=symmetric)
        return learnsolve.solve(A, rhs, method=method, M=M, rtol=TIGHT).x

    if symmetric:
        # Perturb within the Hermitian matrices, which cg needs: the diagonal is moved, the rest scaled.
        rows = torch.repeat_interleave(torch.arange(5), indptr[1:] - indptr[:-1])
        base = values.detach()

        def within(d, rhs):
            entries = torch.where(rows == indices, d[rows].to(dtype), base * d[rows] * d[indices] / 16)
            return answer(entries, rhs)

        diagonal = torch.linspace(4, 5, 5, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(within, (diagonal, b))
        assert torch.autograd.gradgradcheck(within, (diagonal, b))
    else:
        assert torch.autograd.gradcheck(answer, (values, b))
        assert torch.autograd.gradgradcheck(answer, (values, b))


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("M", [None, "jacobi", "multigrid"])
def test_grid_coefficients(shape, M):
    cells = torch.zeros(shape, dtype=torch.int8)
    cells.view(-1)[1] = 1
    generator = torch.Generator().manual_seed(0)
    k = (torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5).requires_grad_()
    b = _rhs(shape, torch.float64)

    def answer(coefficients, rhs):
        A = GridPoisson(cells, coefficients=coefficients, boundary="dirichlet")
        return learnsolve.solve(A, rhs, method="cg", M=M, rtol=TIGHT).x

    assert torch.autograd.gradcheck(answer, (k, b))
    assert torch.autograd.gradgradcheck(answer, (k, b))


def test_grid_absorption_and_faces():
    cells = torch.zeros(3, 3, dtype=torch.int8)
    faces = [torch.full(s, 1.5, dtype=torch.float64).requires_grad_() for s in ((4, 3), (3, 4))]
    sink = torch.full((3, 3), 0.5, dtype=torch.float64).requires_grad_()

    def answer(y, x, a):
        A = GridPoisson(cells, coefficients=(y, x), absorption=a)
        return learnsolve.solve(A, torch.ones(3, 3, dtype=torch.float64), method="cg", rtol=TIGHT).x

    assert torch.autograd.gradcheck(answer, (*faces, sink))


def test_dense_and_several_columns():
    A = (torch.eye(4, dtype=torch.float64) * 3 + torch.rand(4, 4, dtype=torch.float64)).requires_grad_()
    B = _rhs((4, 2), torch.float64)

    def answer(matrix, rhs):
        return learnsolve.solve(Dense(matrix), rhs, rtol=TIGHT).x

    assert torch.autograd.gradcheck(answer, (A, B))
    assert torch.autograd.gradgradcheck(answer, (A, B))


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_torch_sparse_tensor_gets_its_gradient():
    indptr, indices = _pattern(False)
    values = _values(False, torch.float64)

    def answer(entries):
        A = torch.sparse_csr_tensor(indptr, indices, entries, (5, 5))
        return learnsolve.solve(A, torch.ones(5, dtype=torch.float64), rtol=TIGHT).x

    answer(values).sum().backward()
    A = torch.sparse_csr_tensor(indptr, indices, values.detach(), (5, 5)).to_dense().requires_grad_()
    torch.linalg.solve(A, torch.ones(5, dtype=torch.float64)).sum().backward()
    rows = torch.repeat_interleave(torch.arange(5), indptr[1:] - indptr[:-1])
    torch.testing.assert_close(values.grad, A.grad[rows, indices])


def test_function_operator_without_adjoint_is_refused_in_the_backward_pass():
    A = FunctionOperator(lambda x: 2 * x, (3,), (3,), torch.float64)
    b = torch.ones(3, dtype=torch.float64, requires_grad=True)
    x = learnsolve.solve(A, b, method="gmres").x
    with pytest.raises(NotImplementedError, match="adjoint"):
        x.sum().backward()


def test_no_graph_where_nothing_requires_grad():
    x = learnsolve.solve(torch.eye(2), torch.ones(2)).x
    assert not x.requires_grad
