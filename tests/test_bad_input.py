"""Each kind of wrong input gets the error or the status that the documentation promises."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import learnsolve
from learnsolve import ConvergenceWarning, Status
from learnsolve.methods import CG, GMRES, SOR, Chebyshev, Direct
from learnsolve.operators import CSR, Diagonal, GridPoisson, Identity
from learnsolve.preconditioners import AlgebraicMultigrid, Multigrid, SSORPreconditioner
from learnsolve.problems import poisson

A, b = np.array([[4.0, 1.0], [1.0, 3.0]]), np.array([1.0, 2.0])
GRID = np.zeros((4, 4), int)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_array, torch.from_numpy])
def test_nan_in_the_matrix_is_an_error(form, bad):
    with pytest.raises(ValueError, match="A holds NaN or infinity"):
        learnsolve.solve(form(np.array([[1.0, bad], [0.0, 1.0]])), b)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("method", ["auto", "cg", "gmres", "direct"])
def test_nan_in_the_right_hand_side_is_a_status(method, bad):
    with pytest.warns(ConvergenceWarning, match="NONFINITE"):
        res = learnsolve.solve(A, np.array([1.0, bad]), method=method)
    assert res.status is Status.NONFINITE and res.iterations <= 1 and res.info == -1


def test_nan_from_an_operator_or_a_preconditioner_is_a_status():
    class Poisoned:
        shape = (2, 2)
        calls = 0

        def __call__(self, x):
            self.calls += 1
            return A @ x if self.calls < 3 else np.full(2, np.nan)

    with pytest.warns(ConvergenceWarning):
        res = learnsolve.solve(Poisoned(), b, method="gmres", rtol=1e-14)
    assert not res.success and np.isfinite(res.x).all()
    with pytest.warns(ConvergenceWarning):
        assert not learnsolve.solve(A, b, method="cg", M=lambda_of(lambda r: r * np.nan)).success


def lambda_of(function):
    class Product:
        shape = (2, 2)

        def __call__(self, x):
            return function(x)

    return Product()


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((A, np.ones(3)), {}, ValueError, r"b has shape \(3,\)"),
        ((A, np.ones((3, 2))), {}, ValueError, r"b has shape \(3, 2\)"),
        ((A, 1.0), {}, ValueError, r"b has shape \(\)"),
        ((A, b), {"x0": np.ones(3)}, ValueError, "x0 has shape"),
        ((A, b), {"x0": np.array([1.0, np.nan])}, ValueError, "x0 holds NaN"),
        ((A, np.array([1, 2])), {}, TypeError, "b has dtype int64"),
        ((np.eye(2, dtype=int), b), {}, TypeError, "A has dtype int64"),
        ((sp.eye_array(2, dtype=int), b), {}, TypeError, "A has dtype int64"),
        ((torch.eye(2, dtype=torch.float16), b), {}, TypeError, "A has dtype torch.float16"),
        ((np.ones(2), b), {}, ValueError, "two axes"),
        ((np.ones((2, 2, 2)), b), {}, ValueError, "two axes"),
        ((np.empty((0, 0)), np.empty(0)), {}, ValueError, "nothing to solve"),
        (("matrix", b), {}, TypeError, "A is a str"),
        ((A, b), {"method": "magic"}, ValueError, "there is no method 'magic'; there are auto, cg"),
        ((A, b), {"method": "cg", "recomptue": 3}, TypeError, "unknown options.*recompute"),
        ((A, b), {"method": CG(), "recompute": 3}, TypeError, "has its own"),
        ((A, b), {"restart": 3}, TypeError, "takes none"),
        ((A, b), {"M": "magic", "method": "cg"}, ValueError, "there is no preconditioner 'magic'"),
        ((A, b), {"M": np.eye(3), "method": "cg"}, ValueError, "M has shape"),
        ((A, b), {"M": "multigrid", "method": "cg"}, TypeError, "multigrid takes a GridPoisson"),
        ((A, b), {"rtol": -1.0}, ValueError, "rtol"),
        ((A, b), {"rtol": np.nan}, ValueError, "rtol"),
        ((A, b), {"atol": np.inf}, ValueError, "atol"),
        ((A, b), {"maxiter": -1}, ValueError, "maxiter"),
        ((A, b), {"timeout": 0}, ValueError, "timeout"),
        ((np.ones((3, 2)), np.ones(3)), {"method": "cg"}, ValueError, "square"),
        ((np.ones((3, 2)), np.ones(3)), {"method": "direct"}, ValueError, "square"),
        (
            (np.diag([0.0, 1.0]), b),
            {"method": "jacobi"},
            ValueError,
            "zero in 1 places, first in row 0",
        ),
        ((np.diag([0.0, 1.0]), b), {"method": "cg", "M": "jacobi"}, ValueError, "diagonal"),
        ((np.diag([0.0, 1.0]), b), {"method": "cg", "M": "ssor"}, ValueError, "diagonal"),
        ((np.diag([-1.0, 1.0]), b), {"method": "cg", "M": "ic"}, ValueError, "positive diagonal"),
        ((np.array([[1.0, 2.0], [0.0, 1.0]]), b), {"method": "cg", "M": "ic"}, ValueError, "Hermitian"),
        ((lambda_of(lambda x: x), b), {"method": "sor"}, TypeError, "diagonal"),
        ((lambda_of(lambda x: x), b), {"method": "direct"}, TypeError, "entries"),
        ((lambda_of(lambda x: np.ones(3)), b), {"method": "cg"}, ValueError, "product has shape"),
        ((A, b), {"method": "fast_poisson"}, TypeError, "fast_poisson takes a GridPoisson"),
    ],
)
def test_errors_before_work_starts(arguments, options, error, words):
    with pytest.raises(error, match=words):
        learnsolve.solve(*arguments, **options)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: CG(recompute=0), ValueError),
        (lambda: GMRES(restart=0), ValueError),
        (lambda: SOR(omega=2.0), ValueError),
        (lambda: SOR(order="random"), ValueError),
        (lambda: Chebyshev(bounds=(2, 1)), ValueError),
        (lambda: Direct(package="magic"), ValueError),
        (lambda: Multigrid(cycle="X"), ValueError),
        (lambda: Multigrid(sweeps=0), ValueError),
        (lambda: Multigrid(omega=2.5), ValueError),
        (lambda: Multigrid(smoother="magic"), ValueError),
        (lambda: Multigrid(precision="half"), ValueError),
        (lambda: AlgebraicMultigrid(kind="magic"), ValueError),
        (lambda: SSORPreconditioner(omega=-1), ValueError),
        (lambda: GridPoisson(np.zeros((4, 4))), TypeError),
        (lambda: GridPoisson(np.zeros(4, int)), ValueError),
        (lambda: GridPoisson(np.zeros((0, 4), int)), ValueError),
        (lambda: GridPoisson(np.ones((4, 4), int)), ValueError),
        (lambda: GridPoisson(np.full((4, 4), 3)), ValueError),
        (lambda: GridPoisson(GRID, dtype=np.int32), TypeError),
        (lambda: GridPoisson(GRID, spacing=0.0), ValueError),
        (lambda: GridPoisson(GRID, boundary="open"), ValueError),
        (lambda: GridPoisson(GRID, boundary=(("solid", "solid"),)), ValueError),
        (lambda: GridPoisson(GRID, absorption=-1.0), ValueError),
        (lambda: GridPoisson(GRID, absorption=np.ones(3)), ValueError),
        (lambda: GridPoisson(GRID, coefficients=np.zeros((4, 4))), ValueError),
        (lambda: GridPoisson(GRID, coefficients=np.full((4, 4), np.nan)), ValueError),
        (lambda: GridPoisson(GRID, coefficients=np.ones((3, 4))), ValueError),
        (lambda: GridPoisson(GRID, coefficients=(np.ones((4, 4)), np.ones((4, 5)))), ValueError),
        (lambda: CSR(torch.tensor([0, 2]), torch.tensor([0]), torch.ones(1), (1, 1)), ValueError),
        (lambda: CSR(torch.tensor([0, 1]), torch.tensor([5]), torch.ones(1), (1, 1)), ValueError),
        (lambda: CSR(torch.tensor([0, 1, 1]), torch.tensor([0]), torch.ones(1), (1, 1)), ValueError),
        (lambda: Identity((2,), torch.float64) @ Identity((3,), torch.float64), ValueError),
        (lambda: Identity((2,), torch.float64) + Identity((3,), torch.float64), ValueError),
        (lambda: Diagonal(torch.ones(2)) @ torch.ones(3), ValueError),
        (lambda: poisson.box((4, 4, 4, 4)), ValueError),
        (lambda: poisson.box((4, 4), rhs="magic"), ValueError),
        (lambda: poisson.maze((8, 8), period=2), ValueError),
    ],
)
def test_constructors_refuse(make, error):
    with pytest.raises(error):
        make()


def test_an_indefinite_matrix_breaks_cg_down():
    with pytest.warns(ConvergenceWarning, match="BREAKDOWN"):
        res = learnsolve.solve(np.diag([1.0, -1.0]), b, method="cg")
    assert res.status is Status.BREAKDOWN and "not positive" in res.extras["detail"]
    assert learnsolve.solve(np.diag([1.0, -1.0]), b).success


def test_an_indefinite_preconditioner_breaks_cg_down():
    with pytest.warns(ConvergenceWarning):
        res = learnsolve.solve(A, b, method="cg", M=-np.eye(2))
    assert res.status is Status.BREAKDOWN


@pytest.mark.parametrize("method", ["auto", "cg", "minres", "gmres", "direct", "lsmr"])
def test_an_inconsistent_singular_system_is_never_success(method):
    singular = np.array([[1.0, -1.0], [-1.0, 1.0]])
    with pytest.warns(ConvergenceWarning):
        res = learnsolve.solve(singular, np.array([1.0, 0.5]), method=method)
    assert not res.success
    assert res.status in (Status.STAGNATED, Status.BREAKDOWN, Status.MAXITER, Status.DIVERGED)
    assert np.isfinite(res.x).all()


@pytest.mark.parametrize("method", ["auto", "cg", "minres", "gmres", "lsmr"])
def test_a_consistent_singular_system_is_solved(method):
    singular, rhs = np.array([[1.0, -1.0], [-1.0, 1.0]]), np.array([1.0, -1.0])
    res = learnsolve.solve(singular, rhs, method=method)
    assert res.success
    np.testing.assert_allclose(singular @ res.x, rhs, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "M"), [("auto", None), ("cg", "multigrid"), ("cg", None), ("fast_poisson", None)]
)
def test_a_closed_box_gets_the_minimum_norm_answer(method, M):
    problem = poisson.box((12, 9), boundary="solid")
    res = learnsolve.solve(problem.A, problem.b, method=method, M=M, rtol=1e-9)
    assert res.success and problem.A.singular
    exact = np.linalg.lstsq(problem.A.to_scipy().toarray(), problem.b.reshape(-1))[0].reshape(12, 9)
    np.testing.assert_allclose(res.x, exact, atol=1e-7)
    with pytest.warns(ConvergenceWarning, match="STAGNATED"):
        shifted = learnsolve.solve(problem.A, problem.b + 1, method=method, M=M, rtol=1e-9)
    assert "not in its range" in shifted.extras["detail"]
    np.testing.assert_allclose(shifted.x, exact, atol=1e-7)


@pytest.mark.parametrize("M", [None, "multigrid"])
def test_several_closed_regions(M):
    cells = np.zeros((12, 12), int)
    cells[5] = 1
    cells[:, 7] = 1
    cells[0, :4] = 2
    A = GridPoisson(cells)
    assert A.closed_regions is not None and int(A.closed_regions.max()) == 3
    rhs = A.project(
        torch.from_numpy(np.random.default_rng(0).standard_normal((12, 12)) * (cells == 0))
    ).numpy()
    res = learnsolve.solve(A, rhs, method="cg", M=M, rtol=1e-10)
    active = cells == 0
    exact = np.linalg.lstsq(A.to_scipy().toarray(), rhs[active])[0]
    assert res.success
    np.testing.assert_allclose(res.x[active], exact, atol=1e-8)


def test_a_callback_that_raises_is_heard():
    def callback(progress):
        raise KeyError("from the callback")

    with pytest.raises(KeyError, match="from the callback"):
        learnsolve.solve(A, b, method="cg", callback=callback)


def test_a_tolerance_beyond_the_precision_stagnates():
    problem = poisson.box((60, 60), dtype=np.float32)
    with pytest.warns(ConvergenceWarning):
        res = learnsolve.solve(problem.A, problem.b, method="cg", rtol=1e-12)
    assert res.status in (Status.STAGNATED, Status.MAXITER)
    assert 1e-12 < res.relative_residual < 1e-3


def test_a_diverging_iteration_says_so():
    with pytest.warns(ConvergenceWarning, match="DIVERGED"):
        res = learnsolve.solve(np.array([[1.0, 3.0], [3.0, 1.0]]), b, method="jacobi", maxiter=200)
    assert res.status is Status.DIVERGED
