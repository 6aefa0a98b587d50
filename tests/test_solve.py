"""`solve` over named systems, methods, dtypes and array libraries."""

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as sla
import torch

import learnsolve
from learnsolve import ConvergenceWarning, SolveError, Status
from learnsolve.methods import CG, GMRES, METHODS
from learnsolve.operators import CSR, GridPoisson
from learnsolve.preconditioners import AMG_KINDS, PRECONDITIONERS, Multigrid
from learnsolve.problems import poisson
from tests.cases import CASES, OWED

quiet = pytest.mark.filterwarnings("ignore::learnsolve.result.ConvergenceWarning")


def true_residual(A, x, b) -> float:
    return float(np.linalg.norm(b - A @ x) / np.linalg.norm(b))


@quiet
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("method", OWED)
def test_what_is_owed_is_solved_and_nothing_is_claimed_falsely(method, case):
    diagonal = case.A.diagonal() if sp.issparse(case.A) else np.diag(case.A)
    if method in ("jacobi", "gauss_seidel", "sor", "ssor") and (diagonal == 0).any():
        with pytest.raises(ValueError, match="diagonal"):
            learnsolve.solve(case.A, case.b, method=method)
        return
    res = learnsolve.solve(case.A, case.b, method=method, rtol=case.rtol, maxiter=1000)
    true = true_residual(case.A, res.x, case.b)
    rounding = 1e-5 if res.x.dtype in (np.float32, np.complex64) else 1e-12
    assert true == pytest.approx(res.relative_residual, rel=0.2, abs=rounding)
    assert res.success == (res.relative_residual <= case.rtol)
    if case.kind in OWED[method]:
        assert res.success, (res, res.extras)
        assert res.iterations + 1 == len(res.residuals)


@pytest.mark.parametrize("name", ["cg", "minres", "gmres", "bicgstab"])
def test_drop_in_for_scipy(name):
    for case in CASES[:1] if name == "minres" else CASES[:5:4]:
        x, info = learnsolve.solve(case.A, case.b, method=name, rtol=1e-10)
        theirs, their_info = getattr(sla, name)(case.A, case.b, rtol=1e-10, maxiter=4000)
        assert info == their_info == 0
        np.testing.assert_allclose(x, theirs, rtol=1e-6)


def test_info_counts_iterations_without_success_as_scipy_does():
    A, b = CASES[4].A, CASES[4].b
    with pytest.warns(ConvergenceWarning, match="MAXITER"):
        _, info = learnsolve.solve(A, b, method="cg", maxiter=3)
    assert info == sla.cg(A, b, maxiter=3)[1] == 3


A2, B2 = np.array([[4.0, 1.0], [1.0, 3.0]]), np.array([1.0, 2.0])
OF_ITS_OWN = {"fast_poisson", "dcdm", "substitution"}  # which take one kind of operator


@pytest.mark.parametrize(
    "form",
    [
        lambda A: A,
        sp.csr_matrix,
        sp.csc_array,
        sp.coo_array,
        sp.bsr_array,
        sp.dia_array,
        sp.lil_array,
        sp.dok_array,
        lambda A: sla.aslinearoperator(A),
        torch.from_numpy,
        lambda A: torch.from_numpy(A).to_sparse(),
        lambda A: CSR.from_scipy(sp.csr_array(A)),
        lambda A: np.asfortranarray(A),
        lambda A: A.tolist(),
    ],
)
@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy, lambda b: b[::-1][::-1]])
@pytest.mark.parametrize("method", ["auto", "cg", "gmres"])
def test_libraries(form, library, method):
    b = library(B2)
    res = learnsolve.solve(form(A2), b, method=method, rtol=1e-10)
    assert type(res.x) is type(b) and res.x.shape == b.shape
    np.testing.assert_allclose(np.asarray(res.x), np.linalg.solve(A2, B2), rtol=1e-8)


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_torch_csr_and_a_callable_with_a_shape():
    A = torch.from_numpy(A2).to_sparse_csr()
    np.testing.assert_allclose(learnsolve.solve(A, B2, rtol=1e-10).x, np.linalg.solve(A2, B2))

    class Product:
        shape = (2, 2)

        def __call__(self, x):
            return A2 @ x

    np.testing.assert_allclose(learnsolve.solve(Product(), B2, rtol=1e-10).x, np.linalg.solve(A2, B2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("method", ["auto", "cg", "minres", "gmres", "bicgstab", "direct"])
def test_dtypes(dtype, method):
    A, b = A2.astype(dtype), B2.astype(dtype)
    if dtype in (np.complex64, np.complex128):
        A = A + np.array([[0, 0.5j], [-0.5j, 0]], dtype)
        b = b * (1 + 0.5j)
    res = learnsolve.solve(A, b.astype(dtype), method=method, rtol=1e-5)
    assert res.x.dtype == dtype and res.success
    np.testing.assert_allclose(res.x, np.linalg.solve(A, b), rtol=1e-4)


def test_mixed_dtypes_take_the_wider():
    assert learnsolve.solve(A2.astype(np.float32), B2).x.dtype == np.float64
    assert learnsolve.solve(A2, B2.astype(np.complex64)).x.dtype == np.complex128


@pytest.mark.parametrize("method", ["auto", "cg", "lsmr"])
def test_columns(method):
    B = np.random.default_rng(0).standard_normal((2, 3))
    B[:, 1] = 0
    res = learnsolve.solve(A2, B, method=method, rtol=1e-10)
    np.testing.assert_allclose(res.x, np.linalg.solve(A2, B), rtol=1e-7, atol=1e-12)
    assert res.residuals.shape[1] == 3
    assert learnsolve.solve(A2, np.zeros((2, 0)), method=method).x.shape == (2, 0)


@pytest.mark.parametrize("shape", [(30, 20), (20, 30)], ids=str)
def test_rectangular_systems_get_least_squares_of_minimum_norm(shape):
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal(shape), rng.standard_normal(shape[0])
    res = learnsolve.solve(A, b, rtol=1e-10)
    assert res.success and res.method == "lsmr"
    np.testing.assert_allclose(res.x, np.linalg.lstsq(A, b, rcond=None)[0], rtol=1e-6, atol=1e-8)
    sparse = learnsolve.solve(sp.csr_array(A), b, rtol=1e-10)
    np.testing.assert_allclose(sparse.x, res.x, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("M", [None, *PRECONDITIONERS, *AMG_KINDS])
@pytest.mark.parametrize("method", ["cg", "fcg", "minres", "gmres", "bicgstab", "chebyshev"])
def test_preconditioners_on_a_sparse_system(method, M):
    problem = poisson.box((24, 17))
    A, b = problem.A.to_scipy(), problem.b.reshape(-1)
    if M in ("multigrid", "learned-multigrid", "dcdm"):
        with pytest.raises(TypeError, match=r"GridPoisson|grids"):
            learnsolve.solve(A, b, method=method, M=M)
        return
    if M == "air" and method in ("cg", "minres", "chebyshev"):
        pytest.skip("AIR's cycle is not symmetric")
    res = learnsolve.solve(A, b, method=method, M=M, rtol=1e-8)
    assert res.success, res
    np.testing.assert_allclose(res.x, sla.spsolve(A.tocsc(), b), rtol=1e-5, atol=1e-7)


def test_M_may_be_a_matrix_a_callable_or_an_operator():
    inverse = np.diag(1 / np.diag(A2))

    class Product:
        shape = (2, 2)

        def __call__(self, r):
            return inverse @ r

    for M in (inverse, sp.csr_array(inverse), sla.aslinearoperator(inverse), Product()):
        assert learnsolve.solve(A2, B2, method="cg", M=M).success
    grid = poisson.box((6, 5))
    diagonal = sp.diags_array(np.full(30, 0.25)).tocsr()
    assert learnsolve.solve(grid.A, grid.b, method="cg", M=diagonal).success


def test_a_nonlinear_preconditioner_switches_cg_to_its_flexible_form():
    problem = poisson.box((20, 20))

    class Erratic(learnsolve.operators.Identity):
        linear = False

        def _apply(self, x):
            return x * (1 + 0.5 * torch.tanh(x / x.abs().max()))

    M = Erratic(problem.A.domain_shape, torch.float64)
    res = learnsolve.solve(problem.A, problem.b, method="cg", M=M, rtol=1e-8)
    assert res.success
    assert learnsolve.solve(problem.A, problem.b, method="gmres", M=M, rtol=1e-8).success


def test_callback_sees_every_iteration_and_can_stop():
    problem = poisson.box((20, 20))
    seen = []

    def callback(progress):
        seen.append((progress.iteration, progress.residual, progress.x.shape))
        return progress.iteration == 4

    res = learnsolve.solve(problem.A, problem.b, method="cg", callback=callback)
    assert res.status is Status.STOPPED and not res
    assert [entry[0] for entry in seen] == [1, 2, 3, 4]
    assert seen[-1][2] == (20, 20)
    np.testing.assert_allclose([entry[1] for entry in seen], res.residuals[1:], rtol=1e-6)


def test_x0_that_solves_needs_no_iteration():
    x = np.linalg.solve(A2, B2)
    for method in METHODS:
        if method in OF_ITS_OWN:
            continue
        res = learnsolve.solve(A2, B2, method=method, x0=x)
        assert res.iterations == 0 and res.success


def test_x0_is_not_changed_and_helps():
    problem = poisson.box((30, 30))
    exact = learnsolve.solve(problem.A, problem.b, rtol=1e-12).x
    x0 = exact + 1e-4 * np.random.default_rng(0).standard_normal(exact.shape)
    before = x0.copy()
    near = learnsolve.solve(problem.A, problem.b, method="cg", x0=x0)
    far = learnsolve.solve(problem.A, problem.b, method="cg")
    np.testing.assert_array_equal(x0, before)
    assert near.iterations < far.iterations


@pytest.mark.parametrize("method", sorted(set(METHODS) - OF_ITS_OWN))
def test_zero_right_hand_side(method):
    res = learnsolve.solve(A2, np.zeros(2), method=method)
    assert res.success and res.iterations == 0 and not res.x.any()


def test_timeout_and_check():
    problem = poisson.box((200, 200))
    with pytest.warns(ConvergenceWarning):
        res = learnsolve.solve(problem.A, problem.b, method="jacobi", timeout=0.2, rtol=1e-12)
    assert res.status is Status.TIMEOUT and res.seconds < 20
    with pytest.raises(SolveError) as caught:
        learnsolve.solve(problem.A, problem.b, method="cg", maxiter=2, check=True)
    assert caught.value.result.status is Status.MAXITER


def test_prepare_keeps_the_set_up():
    problem = poisson.obstacles((32, 32))
    solver = learnsolve.prepare(problem.A, method="cg", M=Multigrid(cycle="V"))
    first = solver.solve(problem.b)
    inverse = solver.stages[0].M
    second = solver.solve(2 * problem.b)
    assert solver.stages[0].M is inverse
    np.testing.assert_allclose(second.x, 2 * first.x, rtol=1e-4, atol=1e-6)


def test_auto_says_what_it_took():
    box, rooms = poisson.box((16, 16)), poisson.obstacles((24, 24))
    assert learnsolve.solve(box.A, box.b).method == "fast_poisson"
    assert learnsolve.solve(rooms.A, rooms.b).method == "cg + multigrid"
    assert learnsolve.solve(A2, B2).method == "direct"
    large = poisson.box((160, 160)).A.to_scipy()
    assert learnsolve.solve(large, np.ones(large.shape[0])).method == "cg + smoothed_aggregation"
    drift = sp.diags_array([-1.0, 2.5, -0.5], offsets=[-1, 0, 1], shape=(30_000, 30_000)).tocsr()
    res = learnsolve.solve(drift, np.ones(30_000))
    assert res.success and res.method == "gmres + ilu"


def test_result_reads_well():
    res = learnsolve.solve(A2, B2, method=CG())
    assert repr(res).startswith("<Result CONVERGED: 2 iterations, |r|/|b| = ")
    assert bool(res)
    names = dict(learnsolve.methods_table())
    assert set(METHODS) < set(names) and "M=multigrid" in names


def test_grid_vectors_over_the_unknowns():
    problem = poisson.free_surface((20, 20), seed=3)
    assert not problem.A.singular
    flat = problem.b[problem.A.active.numpy()]
    res = learnsolve.solve(problem.A, flat, rtol=1e-9)
    assert res.x.shape == flat.shape
    np.testing.assert_allclose(res.x, sla.spsolve(problem.A.to_scipy().tocsc(), flat), rtol=1e-6, atol=1e-8)


def test_gmres_restarts_and_counts_inner_iterations():
    problem = poisson.box((20, 20))
    res = learnsolve.solve(problem.A.to_scipy(), problem.b.reshape(-1), method=GMRES(restart=5), rtol=1e-6)
    assert res.success and res.iterations > 5


@pytest.mark.gpu
def test_a_grid_on_the_gpu():
    problem = poisson.obstacles((64, 64, 64))
    A = problem.A.to("cuda")
    b = torch.from_numpy(problem.b).cuda()
    res = learnsolve.solve(A, b, rtol=1e-8)
    assert res.success and res.x.is_cuda
    np.testing.assert_allclose(
        res.x.cpu().numpy(), learnsolve.solve(problem.A, problem.b, rtol=1e-8).x, atol=1e-5
    )


def test_float32_grid():
    problem = poisson.obstacles((40, 40))
    A = GridPoisson(problem.A.cells, dtype=np.float32)
    res = learnsolve.solve(A, problem.b.astype(np.float32), rtol=1e-4)
    assert res.success and res.x.dtype == np.float32


def test_incomplete_cholesky_where_a_cell_is_walled_in():
    cells = np.zeros((7, 7), int)
    cells[2:5, 2:5] = 1
    cells[3, 3] = 0
    A = GridPoisson(cells, boundary="dirichlet")
    b = np.where(cells == 0, 1.0, 0.0)
    b[3, 3] = 0
    res = learnsolve.solve(A, b, method="cg", M="ic")
    assert res.success
    np.testing.assert_allclose(A @ res.x, b, atol=1e-5)
