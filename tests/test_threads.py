"""Kernels of several threads against those of one, where the test workers have one; and whose word counts."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import learnsolve
from learnsolve import Status
from learnsolve.kernels import attention, convolution, plane, recurrence
from learnsolve.kernels.threads import SMALL, threads
from learnsolve.problems import poisson
from tests.completion_cases import matrix

BOTH = 1, 2


@pytest.fixture(autouse=True)
def as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def by_each(task):
    """What one thread and two find."""
    found = []
    for count in BOTH:
        torch.set_num_threads(count)
        found.append(task())
    return found


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_small_work_takes_one_thread_and_torch_has_a_say():
    torch.set_num_threads(2)
    assert threads(SMALL - 1) == 1
    assert 1 <= threads(SMALL) <= 2
    torch.set_num_threads(1)
    assert threads(SMALL) == 1


SCAN = (
    "from learnsolve.sequence import linear_recurrence\n"
    "linear_recurrence(torch.tensor(0.5), torch.ones(1, 10000, 8))\n"
)
# The coarse levels of a domain with obstacles are graphs.
SOLVE = (
    "from learnsolve.problems.poisson import obstacles\n"
    "problem = obstacles((48, 48), 0)\n"
    "learnsolve.solve(problem.A, problem.b, method='cg', M='multigrid')\n"
)
SMOKE = (
    "from learnsolve.problems.pressure import pressure_systems\nnext(iter(pressure_systems((32, 32), 2)))\n"
)


@pytest.mark.parametrize("count", BOTH)
@pytest.mark.parametrize("work", [SCAN, SOLVE, SMOKE], ids=["scan", "solve", "smoke"])
def test_numba_does_not_change_how_many_threads_torch_has(work, count):
    """In a process of its own, since numba's pool starts once, here with more threads than torch has."""
    code = f"import torch, learnsolve\ntorch.set_num_threads({count})\n{work}print(torch.get_num_threads())"
    answer = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "3"},
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    assert answer.stdout.strip() == str(count)


@pytest.mark.parametrize("problem", [poisson.box, poisson.jump])
@pytest.mark.parametrize("sparse", [False, True])
def test_solves(problem, sparse):
    given = problem((32, 32, 32))
    A, b = given.A.to_scipy() if sparse else given.A, given.b
    b = A @ np.random.default_rng(0).normal(size=A.shape[1]) if sparse else b
    M = "smoothed_aggregation" if sparse else "multigrid"
    one, two = by_each(lambda: learnsolve.solve(A, b, method="cg", M=M, rtol=1e-10))
    assert one.status == two.status == Status.CONVERGED
    # Where threads share a sweep by rows, they see each other's rows as they were before it.
    assert abs(one.iterations - two.iterations) <= 1 + one.iterations // 5
    np.testing.assert_allclose(one.x, two.x, rtol=1e-5, atol=1e-6 * np.abs(one.x).max())


def test_a_completion_is_the_same_to_the_bit():
    M, rows, cols, values = matrix(700, 500, rank=4, noise=0.01, seed=33)
    one, two = by_each(lambda: learnsolve.complete((rows, cols, values), 4, shape=M.shape))
    assert np.array_equal(one.residuals, two.residuals)
    assert np.array_equal(one.U, two.U)


def test_kernels_of_sequences():
    q, k, v, beta = draw(3, 40, 4, 16), draw(3, 40, 4, 16, seed=1), draw(3, 40, 4, 16, seed=2), draw(3, 40, 4)
    k, beta = torch.nn.functional.normalize(k, dim=-1), beta.sigmoid()
    g, first = -draw(3, 40, 4, 1).abs(), draw(3, 4, 16, 16)
    pieces = torch.tensor([[n, 0, 40] for n in range(3)])
    do, dlast = draw(3, 40, 4, 16, seed=3), draw(3, 4, 16, 16, seed=4)

    def attend():
        o, last = attention.attend(q, k, v, g, first, pieces, 0.3)
        return o, last, *attention.attend_adjoint(q, k, v, g, first, pieces, 0.3, do, last, dlast)

    def delta():
        o, last, u = attention.delta(q, k, v, beta, g, first, pieces, 0.3)
        given = q, k, v, beta, g, first, pieces, 0.3, u, o, do, last, dlast
        return o, last, u, *attention.delta_adjoint(*given)

    wide, taps, span = draw(3, 40, 300), draw(4, 300), draw(3, 3, 300)
    across, down, b = (draw(2, 9, 11, 300, seed=seed) / 3 for seed in range(3))
    for task in (
        attend,
        delta,
        lambda: (attention.substitute(q, k, v, g, pieces),),
        lambda: recurrence.diagonal(wide.sigmoid(), wide, span[:, 0], pieces),
        lambda: recurrence.diagonal_adjoint(wide.sigmoid(), wide, span[:, 0], pieces),
        lambda: (convolution.convolve(wide, taps, span, pieces, 1),),
        lambda: convolution.convolve_adjoint(wide, taps, span, pieces, 1, wide),
        lambda: (plane.plane(across, down, b), plane.plane_adjoint(across, down, b)),
    ):
        one, two = by_each(task)
        for x, y in zip(one, two, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("M", ["multigrid", "learned-multigrid", "ruge_stuben", "ssor"])
def test_threads_share_a_solver(M):
    problem = poisson.obstacles((40, 40), seed=1)
    solver = learnsolve.prepare(problem.A, method="fcg", M=M)
    rights = [problem.A @ np.random.default_rng(seed).standard_normal((40, 40)) for seed in range(16)]
    alone = [solver.solve(b, rtol=1e-8) for b in rights]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda b: solver.solve(b, rtol=1e-8), rights))
    assert [res.iterations for res in together] == [res.iterations for res in alone]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other.x, one.x, atol=1e-9 * np.abs(one.x).max())
