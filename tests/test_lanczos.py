"""Ritz vectors are what they should be."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from learnsolve.datasets.lanczos import Basis, lanczos, ritz
from learnsolve.operators import Dense, Diagonal, GridPoisson
from tests.grid_cases import GRIDS, rows


@pytest.fixture(params=GRIDS)
def grid(request):
    return GRIDS[request.param]


def spectrum(A):
    return np.linalg.eigvalsh(A.to(dtype=torch.float64).to_scipy().toarray())


def tridiagonal(alpha, beta):
    return np.diag(alpha) + np.diag(beta, 1) + np.diag(beta, -1)


def check_lanczos(A, steps):
    alpha, beta, Q = lanczos(A, steps)
    assert Q.shape == (len(alpha), *A.domain_shape) and len(beta) == len(alpha) - 1
    fluid = A.active.numpy().ravel()
    dense = rows(Q)[:, fluid]
    matrix = A.to(dtype=torch.float64).to_scipy().toarray()
    scale = np.abs(matrix).sum(1).max()
    assert np.abs(dense @ dense.T - np.eye(len(Q))).max() <= 1e-10
    rest = matrix @ dense.T - dense.T @ tridiagonal(alpha, beta)
    assert np.abs(rest[:, :-1]).max(initial=0) <= 1e-10 * scale
    if len(Q) < min(steps, A.shape[0]):
        assert np.abs(rest[:, -1]).max() <= 1e-10 * scale
    assert (rows(Q)[:, ~fluid] == 0).all()
    return Q


@pytest.mark.parametrize("steps", [1, 30, 1000])
def test_lanczos_gives_an_orthonormal_basis_and_three_terms(grid, steps):
    check_lanczos(grid, steps)


cell_arrays = hnp.arrays(
    np.int8, hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6), elements=st.integers(0, 2)
).filter(lambda cells: (cells == 0).any())


@settings(max_examples=40, deadline=None)
@given(cell_arrays, st.integers(1, 60))
def test_lanczos_on_any_cells(cells, steps):
    A = GridPoisson(cells)
    matrix = A.to_scipy().toarray()
    if matrix.any():
        check_lanczos(A, steps)
    else:
        with pytest.raises(ValueError, match="finite and not zero"):
            lanczos(A, steps)


def test_ritz_values_lie_in_the_spectrum_and_reach_its_ends(grid):
    exact = spectrum(grid)
    positive = exact[exact > 1e-8 * exact[-1]]
    values, W, Q = ritz(grid, 1000)
    assert W.shape == (len(Q), len(values))
    assert (np.diff(values) >= 0).all()  # equal ones are of a multiple eigenvalue
    np.testing.assert_allclose(values[[0, -1]], positive[[0, -1]], rtol=1e-8)
    nearest = np.abs(values[:, None] - exact).min(1)
    assert nearest.max() <= 1e-8 * exact[-1]
    few, *_ = ritz(grid, 12)
    assert few[0] >= positive[0] * (1 - 1e-10) and few[-1] <= exact[-1] * (1 + 1e-10)
    assert few[-1] == pytest.approx(exact[-1], rel=0.1)


def test_ritz_vectors_are_eigenvectors_when_the_basis_is_whole(grid):
    values, W, Q = ritz(grid, 1000)
    vectors = Q.combine(torch.from_numpy(W.T))
    A = grid.to(dtype=torch.float64)
    for value, v in zip(values, vectors, strict=True):
        assert torch.linalg.vector_norm(A @ v - value * v) <= 1e-8 * values[-1]


def test_a_singular_system_has_no_null_vectors():
    A = GRIDS["closed-3d"]
    assert A.singular
    values, W, Q = ritz(A, 1000)
    assert values[0] > 1e-8 * values[-1]
    vectors = Q.combine(torch.from_numpy(W.T))
    assert max(float((v - A.project(v)).abs().max()) for v in vectors) < 1e-10


def test_lanczos_ends_at_an_invariant_subspace():
    A = Diagonal(torch.tensor([1.0, 2.0, 2.0, 5.0, 5.0, 5.0], dtype=torch.float64))
    alpha, _, Q = lanczos(A, 6)
    assert len(alpha) == len(Q) == 3
    assert len(lanczos(A, 6, start=np.array([0, 3, 4, 0, 0, 0]))[0]) == 1


def test_a_start_is_taken_and_orthogonality_stays_where_it_is_hard():
    values = np.concatenate([np.logspace(-6, 0, 150), [1e3, 1e4, 1e5]])
    A = Diagonal(torch.from_numpy(values))
    start = np.ones(len(values))
    start.setflags(write=False)
    _, _, Q = lanczos(A, 100, start=start)
    dense = rows(Q)
    np.testing.assert_allclose(dense[0], start / np.linalg.norm(start))
    assert np.abs(dense @ dense.T - np.eye(len(Q))).max() <= 1e-10


@pytest.mark.parametrize("block", [1, 3000, 1 << 20])
def test_a_basis_on_disk_is_the_one_in_memory(tmp_path, monkeypatch, block):
    monkeypatch.setattr("learnsolve.datasets.lanczos.BLOCK", block)
    A = GRIDS["obstacles-2d"]
    alpha, beta, Q = lanczos(A, 40)
    on_disk = lanczos(A, 40, memory=100, folder=tmp_path)
    np.testing.assert_array_equal(on_disk[0], alpha)
    np.testing.assert_array_equal(on_disk[1], beta)
    np.testing.assert_array_equal(np.asarray(on_disk[2]), np.asarray(Q))
    c = torch.randn(5, len(Q))
    torch.testing.assert_close(on_disk[2].combine(c), Q.combine(c), rtol=0, atol=0)
    np.testing.assert_allclose(rows(Q.combine(c)), c.double().numpy() @ rows(Q), atol=1e-13)
    assert list(tmp_path.iterdir()) == []


def test_a_basis_cannot_be_had_without_a_copy():
    Q = Basis(3, (2, 2), torch.device("cpu"))
    assert np.asarray(Q).shape == Q.shape == (0, 2, 2)
    with pytest.raises(ValueError, match="without a copy"):
        np.array(Q, copy=False)


@pytest.mark.parametrize(
    ("A", "options", "message"),
    [
        (Dense(torch.eye(3)[[1, 2, 0]]), {}, "not real and symmetric"),
        (Dense(torch.ones(2, 3)), {}, "not real and symmetric"),
        (Diagonal(torch.ones(3, dtype=torch.complex64)), {}, "not real and symmetric"),
        (Diagonal(torch.tensor([1.0, -1.0, 2.0])), {}, "not positive semi-definite"),
        (Diagonal(-torch.ones(3)), {}, "not positive semi-definite"),
        (Diagonal(torch.zeros(3)), {}, "finite and not zero"),
        (Diagonal(torch.tensor([1.0, torch.inf, 2.0])), {}, "finite"),
        (Diagonal(torch.tensor([1.0, torch.inf, 2.0])), {"start": torch.ones(3)}, "not finite"),
        (Diagonal(torch.ones(3)), {"start": [0.0, 0.0, 0.0]}, "finite and not zero"),
        (Diagonal(torch.ones(3)), {"start": [0.0, np.nan, 0.0]}, "finite and not zero"),
        (Diagonal(torch.ones(3)), {"start": [1.0, 1.0]}, "start has shape"),
        (Diagonal(torch.ones(3)), {"steps": 0}, "a positive number"),
    ],
)
def test_wrong_input_to_ritz(A, options, message):
    with pytest.raises(ValueError, match=message):
        ritz(A, **{"steps": 3, **options})


@pytest.mark.gpu
def test_the_work_is_done_where_the_operator_is():
    A = GRIDS["obstacles-2d"]
    values, _, Q = ritz(A.to("cuda"), 30)
    assert Q.combine(torch.ones(1, len(Q))).device.type == "cuda"
    np.testing.assert_allclose(values, ritz(A, 30)[0], rtol=1e-8)
