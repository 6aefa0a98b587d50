"""Every operator against its matrix: product, adjoint, diagonal, dtype, promises; and the algebra."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learnsolve.operators import CSR, Dense, Diagonal, FunctionOperator, GridPoisson, Identity, Operator

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


def random(shape, dtype, seed=0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def grid(dtype, dims, **options) -> GridPoisson:
    rng = np.random.default_rng(3)
    cells = rng.choice([0, 0, 0, 1, 2], (7, 5, 4)[3 - dims :])
    return GridPoisson(cells, dtype=dtype, **options)


def grid_faces(dtype) -> GridPoisson:
    rng = np.random.default_rng(0)
    return GridPoisson(
        np.zeros((4, 5), int), coefficients=(rng.random((5, 5)), rng.random((4, 6))), dtype=dtype
    )


def sparse(dtype, shape=(6, 5)) -> CSR:
    mask = random(shape, torch.float64, 1) > 0.3
    return CSR.from_scipy(sp.csr_array((random(shape, dtype, 2) * mask).numpy()))


FACTORIES = {
    "grid-2d": lambda d: grid(d, 2),
    "grid-3d": lambda d: grid(d, 3, boundary="dirichlet", spacing=(1.0, 0.5, 2.0)),
    "grid-mixed": lambda d: grid(d, 2, boundary=(("solid", "dirichlet"), ("dirichlet", "neumann"))),
    "grid-absorbing": lambda d: grid(d, 3, absorption=0.7),
    "grid-variable": lambda d: grid(d, 3, coefficients=np.random.default_rng(1).random((7, 5, 4)) + 0.1),
    "grid-field": lambda d: grid(d, 2, absorption=np.random.default_rng(1).random((5, 4))),
    "grid-faces": grid_faces,
    "csr": sparse,
    "csr-adjoint": lambda d: sparse(d).H,
    "dense": lambda d: Dense(random((4, 6), d)),
    "diagonal": lambda d: Diagonal(random(5, d)),
    "identity": lambda d: Identity((3, 2), d),
    "function": lambda d: FunctionOperator(
        lambda x: 2 * x.flip(0), (4,), (4,), d, adjoint=lambda y: 2 * y.flip(0)
    ),
    "product": lambda d: sparse(d) @ Dense(random((5, 3), d)),
    "gram": lambda d: sparse(d).H @ sparse(d),
    "sum": lambda d: sparse(d) - 2.0 * Dense(random((6, 5), d)),
    "scaled": lambda d: -(0.5 * grid(d, 2)),
}
every = pytest.mark.parametrize("name", FACTORIES)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def matrix(A: Operator) -> torch.Tensor:
    """Column by column, in the flattened shapes of the domain and the range."""
    columns = []
    size = int(np.prod(A.domain_shape))
    for i in range(size):
        e = torch.zeros(size, dtype=A.dtype)
        e[i] = 1
        e = A.enter(e.reshape(A.domain_shape))
        columns.append(A._apply(e).reshape(-1))
    return torch.stack(columns, 1)


def tolerance(dtype) -> dict[str, float]:
    return (
        {"rtol": 1e-4, "atol": 1e-4}
        if dtype in (torch.float32, torch.complex64)
        else {"rtol": 1e-10, "atol": 1e-10}
    )


@every
@dtypes
def test_adjoint(name, dtype):
    A = FACTORIES[name](dtype)
    x = A.enter(random(A.domain_shape, dtype, 4))
    y = random(A.range_shape, dtype, 5)
    y = A.enter(y) if A.domain_shape == A.range_shape else y
    left = torch.vdot(y.reshape(-1), A._apply(x).reshape(-1))
    right = torch.vdot(A.H._apply(y).reshape(-1), x.reshape(-1))
    torch.testing.assert_close(left, right, **tolerance(dtype))
    assert A._apply(x).dtype == dtype and A._apply(x).shape == A.range_shape


@every
@dtypes
def test_linear_and_equal_to_its_matrix(name, dtype):
    A = FACTORIES[name](dtype)
    x, y = (A.enter(random(A.domain_shape, dtype, seed)) for seed in (6, 7))
    torch.testing.assert_close(A._apply(2 * x - y), 2 * A._apply(x) - A._apply(y), **tolerance(dtype))
    torch.testing.assert_close(matrix(A) @ x.reshape(-1), A._apply(x).reshape(-1), **tolerance(dtype))
    np.testing.assert_allclose(np.asarray(A @ x.numpy()), A._apply(x).numpy(), rtol=1e-5, atol=1e-5)


@every
def test_promises_diagonal_and_scipy(name):
    A = FACTORIES[name](torch.float64)
    M = matrix(A).numpy()
    if A.hermitian:
        np.testing.assert_allclose(M, M.T.conj())
    if A.positive_definite:
        assert np.linalg.eigvalsh(M)[0] > -1e-10
    if A.shape[0] == A.shape[1]:
        try:
            diagonal = A.diagonal()
        except NotImplementedError:
            pass
        else:
            np.testing.assert_allclose(diagonal.numpy().reshape(-1), np.diag(M), atol=1e-12)
    theirs = A.to_scipy()
    host = A.inner.inner if name == "scaled" else A
    active = host.active.numpy().reshape(-1) if isinstance(host, GridPoisson) else slice(None)
    x = np.random.default_rng(0).standard_normal(theirs.shape[1])
    expected = M[active][:, active] @ x
    if isinstance(theirs, np.ndarray) or sp.issparse(theirs):
        np.testing.assert_allclose(theirs @ x, expected, atol=1e-10)
    else:
        np.testing.assert_allclose(theirs.matvec(x), expected, atol=1e-10)
    assert repr(A).startswith("<")


@every
def test_precision_can_be_changed(name):
    A = FACTORIES[name](torch.float32)
    wide = A.to(dtype=torch.float64)
    assert wide.dtype == torch.float64
    if name != "function":
        x = A.enter(random(A.domain_shape, torch.float32))
        torch.testing.assert_close(wide._apply(x.double()), A._apply(x).double(), rtol=1e-5, atol=1e-5)
    assert A.to(dtype=torch.float32) is A


def definition(cells, x, outside, k, spacing, sink) -> np.ndarray:
    """The docstring's formula, face by face."""
    y = np.zeros(cells.shape)
    for cell in np.ndindex(*cells.shape):
        if cells[cell] != 0:
            continue
        y[cell] = sink * x[cell]
        for axis in range(cells.ndim):
            for step in (-1, 1):
                other = list(cell)
                other[axis] += step
                inside = 0 <= other[axis] < cells.shape[axis]
                kind = cells[tuple(other)] if inside else outside
                if kind == 1:
                    continue
                value, weight = 0.0, k[cell]
                if kind == 0:
                    value = x[tuple(other)]
                    weight = 2 * k[cell] * k[tuple(other)] / (k[cell] + k[tuple(other)])
                y[cell] += weight / spacing[axis] ** 2 * (x[cell] - value)
    return y


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=3).map(tuple),
    seed=st.integers(0, 10_000),
    closed=st.booleans(),
    variable=st.booleans(),
    sink=st.sampled_from([0.0, 0.3]),
)
def test_grid_operator_is_its_definition(shape, seed, closed, variable, sink):
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 3, shape)
    cells.flat[0] = 0
    spacing = rng.uniform(0.5, 2, len(shape))
    k = rng.uniform(0.5, 2, shape)
    A = GridPoisson(
        cells,
        coefficients=k if variable else None,
        spacing=spacing,
        absorption=sink or None,
        boundary="solid" if closed else "dirichlet",
    )
    x = rng.standard_normal(shape) * (cells == 0)
    expected = definition(cells, x, 1 if closed else 2, k if variable else np.ones(shape), spacing, sink)
    np.testing.assert_allclose(A @ x, expected, atol=1e-12)
    np.testing.assert_allclose(A.to_scipy() @ x[cells == 0], expected[cells == 0], atol=1e-12)
    ones = (cells == 0) * 1.0
    null = A.project(torch.from_numpy(ones)).numpy()
    if A.singular:
        np.testing.assert_allclose(A @ (ones - null), 0, atol=1e-12)
    else:
        assert np.linalg.matrix_rank(A.to_scipy().toarray()) == A.shape[0]


def test_values_off_the_fluid_are_ignored():
    cells = np.array([[0, 1, 0], [2, 0, 0]])
    A = GridPoisson(cells)
    x = np.random.default_rng(0).standard_normal((2, 3))
    np.testing.assert_array_equal(A @ x, A @ (x * (cells == 0)))


def test_columns_of_a_flat_operator():
    A = sparse(torch.float64)
    X = np.random.default_rng(0).standard_normal((5, 3))
    np.testing.assert_allclose(A @ X, A.to_scipy() @ X)


def test_csr_finds_out_whether_it_is_hermitian():
    dense = random((6, 6), torch.complex128)
    assert CSR.from_scipy(sp.csr_array((dense + dense.mH).resolve_conj().numpy())).hermitian
    assert not CSR.from_scipy(sp.csr_array((dense + dense.mT).numpy())).hermitian
    assert not sparse(torch.float64).hermitian
