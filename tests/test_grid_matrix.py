"""A grid operator found again from its assembled matrix."""

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import learnsolve
from learnsolve.operators import GridPoisson, grid_from_matrix


def widened(A):
    """The assembled matrix over all cells, ones on the diagonal where there is no unknown."""
    active = A.active.numpy().reshape(-1)
    place = scipy.sparse.eye_array(active.size).tocsr()[:, active]
    return (place @ A.to_scipy() @ place.T + scipy.sparse.diags_array((~active).astype(float))).tocsr()


def random_grid(seed, dims, absorbing):
    generator = np.random.default_rng(seed)
    shape = tuple(generator.integers(2, 8, dims))
    cells = generator.choice([0, 0, 0, 1, 2], shape)
    cells[(0,) * dims] = 0
    cells[(1,) + (0,) * (dims - 1)] = 0
    return GridPoisson(
        cells,
        coefficients=generator.uniform(0.1, 10, shape),
        spacing=generator.uniform(0.5, 2, dims),
        absorption=generator.uniform(0, 1, shape) if absorbing else None,
        boundary=[tuple(generator.choice(["solid", "dirichlet"], 2)) for _ in range(dims)],
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([2, 3]), st.booleans())
def test_it_is_the_same_operator(seed, dims, absorbing):
    A = random_grid(seed, dims, absorbing)
    matrix = widened(A)
    B = grid_from_matrix(matrix, A.cells.shape)
    # A lone unknown is a row with nothing but its diagonal.
    lone = np.diff(A.to_scipy().indptr) == 1
    active = A.active.numpy().copy()
    active[active] = ~lone
    np.testing.assert_array_equal(B.active.numpy(), active)
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal(A.cells.shape)) * B.active
    torch.testing.assert_close(B._apply(x), A._apply(x) * B.active, rtol=1e-12, atol=1e-12)


def test_fixed_values_that_were_not_eliminated():
    """Rows of ones at a boundary whose columns the neighbours still name."""
    A = GridPoisson(np.zeros((7, 6), int), boundary="dirichlet")
    matrix = A.to_scipy().tolil()
    edge = np.ones((7, 6), bool)
    edge[1:-1, 1:-1] = False
    for row in np.flatnonzero(edge):
        matrix[row] = 0
        matrix[row, row] = 1
    B = grid_from_matrix(scipy.sparse.csr_array(matrix), (7, 6))
    assert B.unknowns == 20
    b = np.random.default_rng(0).standard_normal((7, 6))
    b[edge] = 0
    res = learnsolve.solve(B, b, method="cg", M="multigrid", rtol=1e-10)
    expected = scipy.sparse.linalg.spsolve(scipy.sparse.csc_array(matrix), b.reshape(-1)).reshape(7, 6)
    np.testing.assert_allclose(res.x, expected, atol=1e-8)


def laplacian(shape=(5, 4)):
    return GridPoisson(np.zeros(shape, int), boundary="dirichlet").to_scipy().tolil()


def broken(what):
    matrix = laplacian()
    if what == "symmetric":
        matrix[1, 0] = -0.5
    elif what == "positive coupling":
        matrix[0, 1] = matrix[1, 0] = 1
    elif what == "negative sum":
        matrix[6, 6] = 1
    elif what == "no neighbour":
        matrix[0, 7] = -1
    elif what == "NaN":
        matrix[3, 3] = np.nan
    elif what == "diagonal":
        matrix = scipy.sparse.eye_array(20)
    return scipy.sparse.csr_array(matrix)


@pytest.mark.parametrize(
    "what", ["symmetric", "positive coupling", "negative sum", "no neighbour", "NaN", "diagonal"]
)
def test_what_is_no_grid_operator_is_refused(what):
    with pytest.raises(ValueError, match=what):
        grid_from_matrix(broken(what), (5, 4))


def test_an_entry_across_the_end_of_a_row_is_no_neighbour():
    matrix = laplacian()
    matrix[3, 4] = matrix[4, 3] = -1
    with pytest.raises(ValueError, match="no neighbour"):
        grid_from_matrix(scipy.sparse.csr_array(matrix), (5, 4))


def test_wrong_kinds_are_refused():
    with pytest.raises(TypeError, match="sparse"):
        grid_from_matrix(np.eye(4), (2, 2))
    with pytest.raises(TypeError, match="complex"):
        grid_from_matrix(scipy.sparse.csr_array(laplacian() * 1j), (5, 4))
    with pytest.raises(ValueError, match="a row a cell"):
        grid_from_matrix(scipy.sparse.csr_array(laplacian()), (5, 5))
