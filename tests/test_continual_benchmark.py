"""The benchmark of continual learning: its network, its loss, its solver, and the command in miniature."""

import json
import math
import os

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import spsolve

import learnsolve
from benchmarks import continual as benchmark
from benchmarks.elliptic_preconditioner import (
    MOST,
    RTOL,
    FamilyTask,
    MultiscaleNetwork,
    flexible_cg,
    residual_left,
    systems,
)
from learnsolve.operators import GridPoisson
from learnsolve.problems.elliptic_families import ELLIPTIC_FAMILIES
from learnsolve.training import FitOptions, fit
from learnsolve.training.stream_scores import StreamScores

FAMILIES = list(ELLIPTIC_FAMILIES.values())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(name="discs", count=3, cells=16, dtype=torch.float64):
    return systems(ELLIPTIC_FAMILIES[name], count, cells, seeded(2), dtype)


def network_of(channels=4, levels=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MultiscaleNetwork(channels, levels).double()


def solved(A, b):
    """By elimination."""
    x = torch.zeros_like(b)
    x[A.active] = torch.from_numpy(spsolve(A.to_scipy().tocsc(), b[A.active].numpy()))
    return x


@pytest.mark.parametrize(("cells", "levels"), [(4, 1), (4, 3), (16, 2), (24, 4)])
def test_the_network_is_linear(cells, levels):
    A, b = drawn(cells=cells)
    network, c = network_of(levels=levels), b.flip(0) * A.active

    def answer(rhs):
        return network(rhs, A.active, A.diagonal())

    torch.testing.assert_close(answer(2 * b - 3 * c), 2 * answer(b) - 3 * answer(c))
    assert answer(b).shape == b.shape and not answer(b)[~A.active].any() and not answer(0 * b).any()
    # Where there is no unknown nothing is looked at, and no member of a batch looks at another.
    torch.testing.assert_close(answer(torch.where(A.active, b, math.nan)), answer(b))
    alone = network(b[1:2], A.active[1:2], A.diagonal()[1:2])
    torch.testing.assert_close(alone[0], answer(b)[1])


def test_without_weights_the_network_is_the_inverse_of_the_diagonal():
    A, b = drawn()
    network = network_of()
    torch.nn.init.zeros_(network.out.weight)
    torch.testing.assert_close(
        network(b, A.active, A.diagonal())[A.active], (b / A.diagonal())[A.active], rtol=0, atol=0
    )


def test_every_level_is_heard():
    """A network of four levels carries one cell's value over all of its square."""
    A, b = drawn("inclusions", count=1, cells=16)
    network, one = network_of(levels=4), torch.zeros_like(b)
    one[0, 0, 0] = 1
    with torch.no_grad():
        assert network(one, A.active, A.diagonal())[0, -1, -1] != 0
    gradients = torch.autograd.grad(residual_left(network, (A, b)), list(network.parameters()))
    assert all(bool(gradient.any()) for gradient in gradients)


def test_the_loss_is_what_least_squares_leaves():
    A, b = drawn("along-y")
    network = network_of()
    left = []
    for one, image in zip(b, A @ network(b, A.active, A.diagonal()), strict=True):
        image, one = image.detach().flatten()[:, None].numpy(), one.flatten().numpy()
        rest = np.linalg.lstsq(image, one)[1]
        left.append(float(rest[0]) / (one @ one))
    assert residual_left(network, (A, b)).item() == pytest.approx(np.mean(left))
    assert residual_left(lambda b, active, diagonal: -7 * solved(A, b), (A, b)) < 1e-20
    assert residual_left(lambda b, active, diagonal: 0 * b, (A, b)) == 1


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("way", ["diagonal", "network", "varies"])
def test_flexible_cg_against_elimination(family, way):
    A, b = drawn(family.name, cells=12)
    diagonal, network, calls = torch.where(A.active, A.diagonal(), 1), network_of(levels=2), []

    def precondition(r):
        calls.append(r)
        if way == "network":
            return network(r, A.active, diagonal)
        # Alternately two preconditioners: neither linear nor the same in every step.
        return r / diagonal.sqrt() ** (len(calls) % 2) if way == "varies" else r / diagonal

    with torch.no_grad():
        x, iterations = flexible_cg(A, b, precondition, 400)
    assert len(calls) == iterations.max() < 400
    rest = (b - A @ x).flatten(1).norm(dim=1)
    assert (rest <= RTOL * b.flatten(1).norm(dim=1)).all()
    torch.testing.assert_close(x, solved(A, b), rtol=0, atol=1e-4 * float(x.abs().max()))


def test_iterations_are_those_of_each_system_alone():
    A, b = drawn("along-x", count=3)
    diagonal = torch.where(A.active, A.diagonal(), 1)
    _, iterations = flexible_cg(A, b, lambda r: r / diagonal)
    found = []
    for place in range(3):
        cells = A.cells[place : place + 1]
        faces = (torch.zeros(2, 16, 16), torch.full((1, 17, 16), 0.02), torch.ones(1, 16, 17))
        walls = (("solid", "solid"), *[("dirichlet", "dirichlet")] * 2)
        alone = GridPoisson(cells, coefficients=faces, boundary=walls)
        found.append(
            learnsolve.solve(alone, b[place : place + 1], method="cg", M="jacobi", rtol=RTOL).iterations
        )
    assert iterations.tolist() == found and len(set(found)) > 1


def test_flexible_cg_at_its_ends():
    A, b = drawn()
    x, iterations = flexible_cg(A, b, lambda r: solved(A, r))
    assert iterations.tolist() == [1, 1, 1]
    torch.testing.assert_close(x, solved(A, b))
    # One that is solved at once does not disturb those that take longer.
    diagonal = torch.where(A.active, A.diagonal(), 1)
    alone = flexible_cg(A, b, lambda r: r / diagonal)[1]

    def mixed(r):
        return torch.cat((solved(A, r)[:1], (r / diagonal)[1:]))

    x, iterations = flexible_cg(A, b, mixed)
    assert iterations.tolist() == [1, *alone[1:].tolist()] and bool(x.isfinite().all())
    assert flexible_cg(A, b, lambda r: r / diagonal, 3)[1].tolist() == [3, 3, 3]
    assert flexible_cg(A, b, lambda r: math.nan * r, 5)[1].tolist() == [5, 5, 5]
    assert flexible_cg(A, b, lambda r: 0 * r, 5)[1].tolist() == [5, 5, 5]


def test_a_task_is_judged_by_what_it_never_learns_from():
    task, again = (FamilyTask(ELLIPTIC_FAMILIES["discs"], 16, 4, 3) for _ in range(2))
    (A, b), (_, same) = task.held_out, again.held_out
    assert torch.equal(b, same) and A.dtype == torch.float64 and b.shape == (3, 16, 16)
    batches = [task.batches(0, seeded(seed)) for seed in (0, 0, 1)]
    assert batches[0][1].dtype == batches[0][0].dtype == torch.float32
    assert torch.equal(batches[0][1], batches[1][1]) and not torch.equal(batches[0][1], batches[2][1])
    assert not batches[0][1][~batches[0][0].active].any()
    wanted = flexible_cg(A, b, lambda r: r / torch.where(A.active, A.diagonal(), 1))[1]
    assert task.plain == pytest.approx(float(wanted.double().mean()))
    nothing = network_of().float()
    torch.nn.init.zeros_(nothing.out.weight)
    with torch.no_grad():
        assert task.score(nothing) == pytest.approx(task.plain, abs=1)
        assert task.score(lambda b, active, diagonal: math.nan * b) == MOST


def test_training_halves_the_iterations():
    task = FamilyTask(ELLIPTIC_FAMILIES["discs"], 16, 8, 4)
    network = network_of(8, 4).float()
    result = fit(network, residual_left, task.batches, FitOptions(40, 1e-2))
    with torch.no_grad():
        assert result.loss < 0.2 and task.score(network) < task.plain / 2


@pytest.fixture
def as_before(monkeypatch):
    """What a benchmark sets for its process is set back."""
    threads = torch.get_num_threads()
    monkeypatch.setattr("benchmarks.measure.keep_memory", lambda: None)
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(threads)


TINY = "--tasks 2 --steps 2 --batch 2 --cells 8 --channels 2 --held-out 2 --memory 2"


def rows_of(arguments, path):
    assert benchmark.main([*f"{TINY} {arguments} --json".split(), str(path)]) == 0
    return json.loads(path.read_text(encoding="utf-8"))["rows"]


def test_families(tmp_path, capsys, as_before):
    path = tmp_path / "rows.json"
    rows = rows_of("--stream families --seeds 0 3 --methods hypernetwork replay", path)
    methods = ["diagonal", "fine-tune", "joint", "hypernetwork", "replay"]
    assert [(row["seed"], row["method"]) for row in rows] == [(s, name) for s in (0, 3) for name in methods]
    for row in rows:
        assert row["stream"] == "families" and row["better"] == "less"
        assert row["tasks"] == ["discs", "along-x"] and np.shape(row["matrix"]) == (2, 2)
        assert row["learning_rate"] == 0.01 and row["strength"] == 1e7
        assert row["average"] == pytest.approx(np.mean(row["matrix"][-1]))
        assert 1 <= np.min(row["matrix"]) <= np.max(row["matrix"]) <= MOST
        assert (row["seconds"] > 0) == (row["method"] != "diagonal")
    first, fine_tuned, joint, _, replay = rows[:5]
    assert first["matrix"] == rows[5]["matrix"] and first["backward_transfer"] == 0
    # All begin with one network, another for each seed; replay has nothing to replay in the first task.
    assert fine_tuned["untrained"] == joint["untrained"] != rows[6]["untrained"]
    assert fine_tuned["matrix"][0] == replay["matrix"][0]
    shown = capsys.readouterr().out
    for words in (
        "seed 0: scores",
        "seed 3: scores",
        "2 seeds: means",
        "the first task",
        "after the last",
        "±",
    ):
        assert words in shown
    again = rows_of("--stream families --seeds 3 --methods", path)
    assert [row["matrix"] for row in again] == [row["matrix"] for row in rows[5:8]]


def test_digits(tmp_path, capsys, as_before):
    pytest.importorskip("sklearn")
    path = tmp_path / "rows.json"
    rows = rows_of("--stream digits --seeds 1 --methods ewc hypernetwork-mlp --learning-rate 0.1", path)
    assert [row["method"] for row in rows] == ["fine-tune", "joint", "ewc", "hypernetwork-mlp"]
    for row in rows:
        assert row["tasks"] == ["pixels-1", "pixels-2"] and row["better"] == "more"
        assert row["learning_rate"] == 0.1 and 0 <= np.min(row["matrix"]) <= np.max(row["matrix"]) <= 1
    shown = capsys.readouterr().out
    assert "seed 1: scores" in shown and "the first task" in shown
    assert "±" not in shown and "means" not in shown


def test_one_task_has_no_transfer(tmp_path, as_before):
    rows = rows_of("--stream families --tasks 1 --seeds 0 --methods", tmp_path / "rows.json")
    assert [row["backward_transfer"] for row in rows] == [None, None, None]


def test_the_first_task_by_hand():
    def scores(after, last):
        return StreamScores(["a", "b"], [[after, 50], [last, 20]], [60, 60], better="less")

    table = benchmark.first_task({"x": [scores(10, 20), scores(10, 10)], "y": [scores(0, 5)] * 2}, "t")
    methods, after, last, change = (list(column.cells) for column in table.columns)
    assert methods == ["x", "y"] and after[0] == "10 ± 0"
    # Student's t of one degree of freedom at 97.5 % is 12.706; the mean of two has half their distance.
    assert last[0] == "15 ± 64" and change[0] == "+50.0 ± 6.4e+02 %"
    assert change[1].startswith("+nan") or change[1].startswith("nan")
    table = benchmark.means({"x": [scores(10, 20)]}, "t")
    assert [next(iter(column.cells)) for column in table.columns] == [
        "x", "20", "20", "20", "-10", "+10", "15"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--tasks 6", "--tasks takes at most 5 families"),
        ("--stream digits --tasks 0", "positive numbers"),
        ("--cells 12", "--cells takes multiples of 8"),
        ("--cells 0", "--cells takes multiples of 8"),
        ("--steps 0", "positive numbers"),
        ("--held-out 0", "positive numbers"),
        ("--methods masks-of-iron", "invalid choice"),
    ],
)
def test_refusals(arguments, words, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(arguments.split())
    assert words in capsys.readouterr().err
