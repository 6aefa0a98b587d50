"""Every case of scipy's own table for its iterative solvers."""

import numpy as np
import pytest

import learnsolve
from learnsolve import Status

tables = pytest.importorskip("scipy.sparse.linalg._isolve.tests.test_iterative")
CASES = tables.IterativeParams().cases
RTOL = 1e-5


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_auto_solves_it(case):
    res = learnsolve.solve(case.A, case.b, rtol=RTOL)
    assert res.success, (res, res.method)
    A = case.A.toarray() if hasattr(case.A, "toarray") else case.A
    wide = A.astype(np.complex128)
    true = np.linalg.norm(case.b - wide @ res.x) / np.linalg.norm(case.b)
    assert true <= 1.5 * RTOL


@pytest.mark.filterwarnings("ignore::learnsolve.result.ConvergenceWarning")
@pytest.mark.parametrize("name", ["cg", "minres", "gmres", "bicgstab"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_shared_methods_agree_with_scipy(case, name):
    theirs = getattr(tables, name)
    if theirs in case.skip:
        pytest.skip("scipy leaves this pair out")
    x, info = learnsolve.solve(case.A, case.b, method=name, rtol=RTOL)
    # scipy's minres measures its tolerance against norm(A) norm(x), which is looser.
    options = {"rtol": 1e-9} if name == "minres" else {"rtol": RTOL, "atol": 0}
    expected, expected_info = theirs(case.A, case.b, **options)
    if expected_info:
        return
    res_ours, res_theirs = (np.linalg.norm(case.b - case.A @ v) for v in (x, expected))
    assert info == 0 or res_ours <= 2 * res_theirs
    if info == 0:
        condition = np.linalg.cond(case.A.toarray() if hasattr(case.A, "toarray") else case.A)
        difference = np.linalg.norm(x - expected) / np.linalg.norm(expected)
        assert difference <= 2.5 * RTOL * condition


def test_a_singular_case_is_reported():
    A = np.ones((3, 3))
    with pytest.warns(learnsolve.ConvergenceWarning):
        res = learnsolve.solve(A, np.array([1.0, 2.0, 3.0]))
    assert res.status in (Status.STAGNATED, Status.BREAKDOWN)
