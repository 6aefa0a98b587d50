"""Least squares by rows: numba against plain torch, and entries on a device."""

import numpy as np
import pytest
import torch

import learnsolve
from learnsolve.kernels import rows, rows_reference
from learnsolve.operators.sampled import InMemory, RowProblems
from learnsolve.operators.sampled_device import OnDevice
from learnsolve.problems.low_rank import low_rank
from tests.kernel_cases import close, row_case

FORMS = [(0, False, False), (0, True, True), (1, True, False), (2, False, True)]


@pytest.mark.parametrize("k", [1, 3, 10, 17])
@pytest.mark.parametrize(("loss", "weighted", "damped"), FORMS)
def test_numba_is_the_reference(loss, weighted, damped, k):
    problems, U = row_case(k, torch.float64, loss, weighted, damped)
    for steps in (0, 1, 3):
        close(rows.cg(problems, U, steps), rows_reference.cg(problems, U, steps, 0.0))
    close(rows.cg(problems, U, 9, 0.5), rows_reference.cg(problems, U, 9, 0.5))
    G, y = rows_reference.normal_equations(problems, U)
    whole = torch.linalg.matrix_rank(G) == k
    found, expected = rows.exact(problems, U), rows.solved(G, y)
    torch.testing.assert_close(found[whole], expected[whole], rtol=1e-6, atol=1e-6)
    # Where the matrix is singular, both meet what can be met.
    torch.testing.assert_close(
        torch.einsum("iab,ib->ia", G, found), torch.einsum("iab,ib->ia", G, expected), rtol=1e-4, atol=1e-4
    )


def test_the_reference_takes_what_the_others_do_not():
    problems, U = row_case(3, torch.float32, 0, False, True)
    double, V = row_case(3, torch.float64, 0, False, True)
    torch.testing.assert_close(rows.exact(problems, U).double(), rows.exact(double, V), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(rows.cg(problems, U, 2).double(), rows.cg(double, V, 2), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [(0, 0), (1, 0)])
def test_matrices_that_are_not_finite_end_as_nan(bad, place):
    G, y = torch.eye(2, dtype=torch.float64).repeat(3, 1, 1), torch.ones(3, 2, dtype=torch.float64)
    G[1][place] = bad
    G[1].T[place] = bad
    G[2] = 0
    found = rows.solved(G, y)
    assert found[0].tolist() == [1.0, 1.0]
    assert found[1].isnan().all()
    assert found[2].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("k", [3, 70])
def test_rows_of_features_that_are_not_finite_end(bad, k):
    problems, U = row_case(k, torch.float64, 0, False, False)
    problems.W[int(problems.indices[0]), 1] = bad
    assert not rows.exact(problems, U)[0].isfinite().all()


def device_problem(device):
    p = low_rank((90, 70), 3, entries=3000, seed=0)
    known = InMemory(p.rows, p.cols, p.values, p.shape, np.random.default_rng(0).uniform(0.5, 2, 3000))
    return p, known, OnDevice(known, device)


def check_device(device):
    _, known, there = device_problem(device)
    rng = np.random.default_rng(1)
    U, V, offset = rng.standard_normal((90, 4)), rng.standard_normal((70, 4)), rng.standard_normal(70)
    for how in (
        RowProblems(),
        RowProblems("cg", steps=3),
        RowProblems(ridge=0.1, loss="huber", reach=0.5),
        RowProblems("cg", unobserved=0.2, ridge=0.1),
        RowProblems("cg", ridge=0.1, shrinkage=0.3),
    ):
        one, other = (k.solve_rows(V, U, how, offset=offset, measure=True) for k in (known, there))
        assert other[0] == pytest.approx(one[0], rel=1e-8, abs=1e-8)
        assert other[1] == pytest.approx(one[1], rel=1e-8)
        one, other = (k.solve_rows(U, V, how, transposed=True)[0] for k in (known, there))
        assert other == pytest.approx(one, rel=1e-8, abs=1e-8)
    bias = rng.standard_normal(90), offset
    for ((_, one),), ((_, other),) in ((known.residual(U, V, *bias), there.residual(U, V, *bias)),):
        assert other == pytest.approx(one)
    assert there.times(U, transposed=True) == pytest.approx(known.times(U, transposed=True))
    assert there.times(V, change=np.square) == pytest.approx(known.times(V, change=np.square))
    assert there.mean() == known.mean()
    for how in (RowProblems("sketch"), RowProblems(nonnegative=True)):
        with pytest.raises(ValueError, match="'exact' or by 'cg'"):
            there.solve_rows(V, U, how)


def test_entries_on_a_device_are_those_in_memory():
    check_device("cpu")


def test_a_matrix_is_completed_on_a_device():
    p = low_rank((200, 150), 3, oversampling=6, seed=1)
    known = (p.rows, p.cols, p.values)
    one, other = (learnsolve.complete(known, 3, shape=p.shape, rtol=1e-9, device=d) for d in (None, "cpu"))
    assert other.success
    assert other.to_dense() == pytest.approx(one.to_dense(), abs=1e-7)
    with pytest.raises(ValueError, match="device"):
        learnsolve.complete(known, 3, shape=p.shape, device="nowhere")
    with pytest.raises(ValueError, match="sketch"):
        learnsolve.complete(known, 3, learnsolve.completion.AltMin("sketch"), shape=p.shape, device="cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu():
    check_device("cuda")
    p = low_rank((2000, 1500), 10, oversampling=6, seed=1)
    res = learnsolve.complete((p.rows, p.cols, p.values), 10, shape=p.shape, rtol=1e-9, device="cuda")
    assert res.success
    assert p.error(res.U, res.V) < 1e-7
