"""Methods that tune themselves: they are never wrong, learn from every solve, and survive what goes wrong."""

import json
import threading
import warnings
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse

import learnsolve
from learnsolve import Status
from learnsolve.online import (
    ChebCB,
    Fixed,
    PolicyFileError,
    TsallisINF,
    TunedMultigrid,
    TunedSOR,
    TunedSSORCG,
    diagonal_excess,
    jacobi_radius,
)
from learnsolve.problems import poisson
from learnsolve.problems.heat import Heat, diffusion, shifted

PROBLEM = poisson.obstacles((24, 24), seed=1)
METHODS = (TunedSOR, TunedSSORCG, TunedMultigrid)
POLICIES = ("tsallis-inf", "log-barrier", "chebcb", "young")


def pairs():
    for kind in METHODS:
        for policy in POLICIES:
            if not (kind is TunedMultigrid and policy == "young"):
                yield pytest.param(kind, policy, id=f"{kind.name}-{policy}")


def true_residual(problem, x):
    return np.linalg.norm(problem.b - problem.A @ x) / np.linalg.norm(problem.b)


@pytest.mark.parametrize("kind, policy", list(pairs()))
def test_every_solve_is_right_and_taken_in(kind, policy):
    method = kind(policy)
    for _ in range(6):
        res = learnsolve.solve(PROBLEM.A, PROBLEM.b, method=method, rtol=1e-7, maxiter=20_000)
        assert res.success
        assert true_residual(PROBLEM, res.x) <= 1.01e-7
        assert res.method == kind.name
        assert set(res.extras) >= {"choice", "cost", "rescued", "regret"}
    assert method.policies[0].rounds == 6
    assert res.extras["regret"] >= -1e-9


@pytest.mark.parametrize("cost", ["iterations", "products", "seconds"])
@pytest.mark.parametrize("kind", METHODS)
def test_costs(kind, cost):
    method = kind(cost=cost)
    res = learnsolve.solve(PROBLEM.A, PROBLEM.b, method=method)
    paid = method.policies[0].totals.sum()
    assert paid == pytest.approx(res.extras["cost"])
    if cost == "iterations":
        assert paid == res.iterations
    if cost == "seconds":
        assert 0 < paid < res.seconds


def test_sor_comes_close_to_the_best_omega():
    steps = list(shifted(160, "low", seed=5))
    options = {"rtol": 1e-8, "maxiter": 20_000}
    counts = [
        learnsolve.solve(p.A, p.b, method="sor", omega=1.7, order="lexicographic", **options).iterations
        for p in steps
    ]
    method = TunedSOR(order="lexicographic")
    tuned = [learnsolve.solve(p.A, p.b, method=method, **options).iterations for p in steps]
    untuned = [
        learnsolve.solve(p.A, p.b, method="sor", omega=1.0, order="lexicographic", **options).iterations
        for p in steps
    ]
    assert sum(tuned[-60:]) < 1.25 * sum(counts[-60:])
    assert sum(tuned) < 0.6 * sum(untuned)


def test_a_context_lets_it_follow_the_instance():
    method = TunedSOR(ChebCB(20), context=lambda A: float(A.diagonal()[0]) - 4, order="lexicographic")
    choices = {}
    for p in shifted(400, "switch", seed=2):
        learnsolve.solve(p.A, p.b, method=method, rtol=1e-8, maxiter=20_000, check=True)
    for shift in (-0.1, 0.4):
        choices[shift] = method.omegas[method.policies[0].best(shift)[0]]
    assert choices[-0.1] > choices[0.4] + 0.1


def test_a_hopeless_choice_is_rescued():
    method = TunedSOR(TsallisINF(20), patience=1.5, order="lexicographic")
    policy = method.policies[0]
    steps = shifted(3, "low", seed=0)
    p = next(steps)
    for _ in range(3):
        policy.observe(16, 60.0)
    policy.choose = lambda context=None: 0
    res = learnsolve.solve(p.A, p.b, method=method, rtol=1e-10, maxiter=20_000)
    assert res.success
    assert res.extras["rescued"]
    assert res.iterations > 90


def test_a_choice_that_diverges_is_rescued():
    rng = np.random.default_rng(0)
    A = scipy.sparse.csr_array(np.diag(np.full(40, 4.0)) + 0.7 * np.triu(rng.uniform(-1, 1, (40, 40)), 1))
    A = A + 0.4 * scipy.sparse.csr_array(np.tril(rng.uniform(-1, 1, (40, 40)), -1))
    b = rng.standard_normal(40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = learnsolve.solve(A, b, method="sor", omega=1.95, order="lexicographic")
    assert plain.status is Status.DIVERGED
    method = TunedSOR(Fixed(20, action=19), order="lexicographic")
    res = learnsolve.solve(A, b, method=method)
    assert res.success
    assert res.extras["rescued"]
    assert np.linalg.norm(b - A @ res.x) <= 1.01e-5 * np.linalg.norm(b)


@pytest.mark.parametrize("kind", METHODS)
def test_a_solve_that_does_not_end_is_honest_and_costs_no_less_than_the_worst(kind):
    method = kind(seed=1)
    learnsolve.solve(PROBLEM.A, PROBLEM.b, method=method)
    worst = method.policies[0].worst
    with pytest.warns(learnsolve.ConvergenceWarning):
        res = learnsolve.solve(PROBLEM.A, PROBLEM.b, method=method, maxiter=1, rtol=1e-10)
    assert res.status is Status.MAXITER
    assert res.relative_residual == pytest.approx(true_residual(PROBLEM, res.x))
    assert method.policies[0].totals.sum() >= 2 * worst
    with pytest.warns(learnsolve.ConvergenceWarning):
        res = learnsolve.solve(PROBLEM.A, PROBLEM.b, method=method, timeout=1e-9)
    assert res.status is Status.TIMEOUT
    rounds = method.policies[0].rounds
    res = learnsolve.solve(PROBLEM.A, PROBLEM.b, method=method, callback=lambda progress: True)
    assert res.status is Status.STOPPED
    assert method.policies[0].rounds == rounds


@pytest.mark.parametrize("kind", METHODS)
def test_nothing_to_do_and_nan(kind):
    method = kind()
    res = learnsolve.solve(PROBLEM.A, np.zeros_like(PROBLEM.b), method=method)
    assert res.success
    assert method.policies[0].rounds == 0
    with pytest.warns(learnsolve.ConvergenceWarning):
        res = learnsolve.solve(PROBLEM.A, np.full_like(PROBLEM.b, np.nan), method=method)
    assert res.status is Status.NONFINITE


@pytest.mark.parametrize("kind", METHODS)
def test_goes_on_from_a_file_as_if_nothing_had_been(kind, tmp_path):
    method = kind(seed=4)
    for _ in range(4):
        learnsolve.solve(PROBLEM.A, PROBLEM.b, method=method)
    method.save(tmp_path / "method.json")
    loaded = kind.load(tmp_path / "method.json")
    for _ in range(4):
        a, b = (learnsolve.solve(PROBLEM.A, PROBLEM.b, method=m).extras for m in (method, loaded))
        assert (a["choice"], a["cost"], a["regret"]) == (b["choice"], b["cost"], b["regret"])


def test_stages_go_on_from_a_file_as_if_nothing_had_been(tmp_path):
    method = TunedMultigrid(TsallisINF(12, seed=2), stages=4)
    for _ in range(4):
        learnsolve.solve(PROBLEM.A, PROBLEM.b, method=method, rtol=1e-8)
    method.save(tmp_path / "method.json")
    loaded = TunedMultigrid.load(tmp_path / "method.json")
    for _ in range(5):
        a, b = (learnsolve.solve(PROBLEM.A, PROBLEM.b, method=m, rtol=1e-8).extras for m in (method, loaded))
        assert (a["choice"], a["cost"]) == (b["choice"], b["cost"])


def test_files_that_are_not_of_the_method(tmp_path):
    path = tmp_path / "method.json"
    TunedSOR().save(path)
    with pytest.raises(PolicyFileError, match="not a file of the method 'tuned-multigrid'"):
        TunedMultigrid.load(path)
    state = json.loads(path.read_text())
    for change in ({"options": {"low": 3.0}}, {"policies": []}, {"policies": [{}]}):
        path.write_text(json.dumps({**state, **change}))
        with pytest.raises(PolicyFileError):
            TunedSOR.load(path)


def test_methods_in_threads_do_not_disturb_each_other():
    def run(seed):
        method = TunedSSORCG(seed=seed)
        return [learnsolve.solve(PROBLEM.A, PROBLEM.b, method=method).extras["choice"] for _ in range(8)]

    alone = [run(seed) for seed in range(3)]
    together = [None] * 3
    threads = [threading.Thread(target=lambda s=seed: together.__setitem__(s, run(s))) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_one_method_in_many_threads_loses_no_cost():
    method = TunedSSORCG()

    def run():
        for _ in range(6):
            assert learnsolve.solve(PROBLEM.A, PROBLEM.b, method=method).success

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert method.policies[0].counts.sum() == 24


def test_stages_learn_the_work_that_is_left():
    method = TunedMultigrid("log-barrier", stages=5)
    for _ in range(10):
        res = learnsolve.solve(PROBLEM.A, PROBLEM.b, method=method, rtol=1e-8)
        assert res.success
    totals = [policy.totals.sum() for policy in method.policies]
    rounds = [policy.rounds for policy in method.policies]
    assert rounds[0] == 10
    assert all(a >= b > 0 for a, b in pairwise(rounds))
    assert all(a > b for a, b in pairwise(totals))


def test_bad_options():
    with pytest.raises(ValueError, match="no policy 'none'"):
        TunedSOR("none")
    with pytest.raises(ValueError, match="5 arms; there are 20"):
        TunedSOR(Fixed(5))
    with pytest.raises(ValueError, match="cost is 'money'"):
        TunedSOR(cost="money")
    with pytest.raises(ValueError, match=r"patience is 0\.5"):
        TunedSSORCG(patience=0.5)
    with pytest.raises(ValueError, match=r"low is 0\.0"):
        TunedSOR(low=0.0)
    with pytest.raises(ValueError, match="order is 'x'"):
        TunedSOR(order="x")
    with pytest.raises(ValueError, match="stages is 0"):
        TunedMultigrid(stages=0)
    with pytest.raises(ValueError, match="stages have none"):
        TunedMultigrid("chebcb", stages=2)
    with pytest.raises(ValueError, match="must not be empty"):
        TunedMultigrid(cycles=())
    with pytest.raises(TypeError, match="takes a GridPoisson"):
        learnsolve.solve(np.eye(3), np.ones(3), method=TunedMultigrid())
    with pytest.raises(ValueError, match=r"the context of .* is nan"):
        learnsolve.solve(np.eye(3), np.ones(3), method=TunedSOR("chebcb", context=lambda A: float("nan")))


def test_contexts():
    for shift in (0.0, 0.5):
        n = 12
        matrix = scipy.sparse.diags_array([-1.0, 2.0 + shift, -1.0], offsets=[-1, 0, 1], shape=(n, n))
        A = learnsolve.operators.CSR.from_scipy(matrix)
        expected = np.log10(1 - 2 * (n - 1) / (n * (2 + shift)))
        assert diagonal_excess(A) == pytest.approx(expected)
        assert jacobi_radius(A, rtol=1e-8) == pytest.approx(2 * np.cos(np.pi / (n + 1)) / (2 + shift))


def test_heat_is_the_equation():
    # A state of one mode decays by the factor of the scheme, where nothing is forced.
    heat = Heat((20, 30), dt=0.01)
    heat._forcing = lambda t: np.zeros((20, 30))
    y, x = (np.sin(np.pi * np.arange(1, n + 1) / (n + 1)) for n in (20, 30))
    heat.u = np.outer(y, x)
    heat.t = 0.7
    step = heat.problem()
    eigenvalue = sum((2 - 2 * np.cos(np.pi / (n + 1))) * (n + 1) ** 2 for n in (20, 30))
    now, then = (0.005 * diffusion(t) * eigenvalue for t in (0.7, 0.71))
    expected = np.outer(y, x) * (1 - now) / (1 + then)
    heat.accept(learnsolve.solve(step.A, step.b, method="cg", rtol=1e-12).x)
    np.testing.assert_allclose(heat.u, expected, atol=1e-12)
    assert step.context == pytest.approx(diffusion(0.71))
    assert heat.t == pytest.approx(0.71)


@pytest.mark.parametrize("kind", ["high", "low", "drift", "switch"])
def test_shifted_matrices_are_definite_and_reproducible(kind):
    steps = list(shifted(12, kind, seed=1))
    for step, again in zip(steps, shifted(12, kind, seed=1), strict=True):
        dense = step.A.to_scipy().toarray()
        assert np.linalg.eigvalsh(dense).min() > 0
        assert dense[0, 0] - 4 == pytest.approx(step.context)
        assert -0.15 <= step.context <= 0.45
        np.testing.assert_array_equal(step.b, again.b)


def test_problems_refuse_bad_input():
    with pytest.raises(ValueError, match="one or two positive"):
        Heat((3, 3, 3))
    with pytest.raises(ValueError, match="dt is 0"):
        Heat(4, dt=0)
    with pytest.raises(ValueError, match="kind is 'x'"):
        next(shifted(3, "x"))
    with pytest.raises(ValueError, match="indefinite"):
        next(shifted(3, shape=(20, 20)))
    with pytest.raises(ValueError, match="steps is -1"):
        next(shifted(-1))
