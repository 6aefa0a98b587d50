"""The two-phase benchmark: phases that share nothing, scores by hand, the command in miniature."""

import json
import os

import numba
import numpy as np
import pytest
import torch

import learnsolve
from benchmarks import (
    contenders_completion,
    contenders_mri,
    contenders_preconditioner,
    contenders_relaxation,
    protocol,
)
from benchmarks.contenders import data_seed, part_of
from learnsolve import mri
from learnsolve.preconditioners import SSORPreconditioner
from learnsolve.training.protocol import Phases, TwoPhase, two_phase_evaluate

TINY = 0.01


@pytest.fixture
def as_before(monkeypatch):
    """What a benchmark sets for its process is set back."""
    threads = numba.get_num_threads(), torch.get_num_threads()
    monkeypatch.setattr("benchmarks.measure.keep_memory", lambda: None)
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    yield
    numba.set_num_threads(threads[0])
    torch.set_num_threads(threads[1])


@pytest.fixture
def small(monkeypatch):
    """Images and matrices are small."""
    monkeypatch.setattr(contenders_mri, "SIZE", 48)
    for problem in contenders_completion.PROBLEMS.values():
        monkeypatch.setitem(problem, "shape", (40, 30))
        monkeypatch.setitem(problem, "rank", 2)


def kind_of(name):
    if name == "continual":
        pytest.importorskip("sklearn")
    return protocol.kind_of(name)


def arrays(problems):
    """All numbers of the problems of a seed that tell them from others."""
    if hasattr(problems, "held_out"):
        A, b = problems.held_out
        return [A.diagonal().numpy(), b.numpy()]
    if hasattr(problems, "tasks"):
        return [np.array([*task.permutation, *task.digits]) for task in problems.tasks]
    if isinstance(problems, tuple):
        return [step.b for step in problems[0]]
    return [one.values if hasattr(one, "values") else one.kspace.numpy() for one in problems]


def same(one, other):
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", protocol.KINDS)
def test_data_belong_to_a_phase_and_a_seed(name):
    data = kind_of(name).data
    found = {phase: data(phase, [0, 3], TINY) for phase in ("tune", "evaluate")}
    drawn = [arrays(found[phase][seed]) for phase in ("tune", "evaluate") for seed in (0, 3)]
    assert all(not same(a, b) for k, a in enumerate(drawn) for b in drawn[:k])
    assert same(arrays(data("evaluate", [3], TINY)[3]), drawn[3])


def test_phases_of_digits_share_no_image_and_no_order():
    streams = [kind_of("continual").data(phase, [0], 1.0)[0] for phase in ("tune", "evaluate")]
    one, other = ([task for task in stream.tasks] for stream in streams)
    assert not set(one[0].digits) & set(other[0].digits)
    orders = [task.permutation for task in (*one, *other)]
    assert len(set(orders)) == len(orders) and tuple(range(64)) not in orders
    assert all(set(task.batches(0, torch.Generator()).labels.tolist()) <= set(range(5)) for task in other)


def test_families_sizes_and_masks_differ():
    tasks = [contenders_preconditioner.data(phase, [0], TINY)[0] for phase in ("tune", "evaluate")]
    assert tasks[0].family.along_y == 1 and tasks[1].family.along_y == 0.02
    sequences = [contenders_relaxation.data(phase, [0], TINY)[0] for phase in ("tune", "evaluate")]
    assert [len(steps) for steps, _ in sequences] == [2, 2]
    assert sequences[0][0][0].b.shape != sequences[1][0][0].b.shape
    slices = [contenders_mri.data(phase, [0], TINY)[0] for phase in ("tune", "evaluate")]
    lines = [[bool((one.sampled == one.sampled[:1]).all()) for one in some] for some in slices]
    assert lines == [[True], [True, False]]


def test_iterations_of_a_sequence_by_hand():
    problems = contenders_relaxation.data("tune", [1], 0.02)
    contenders = contenders_relaxation.contenders(1.0)
    steps, starts = problems[1]
    total = sum(
        learnsolve.solve(
            step.A, step.b, x0=x0, method="cg", M=SSORPreconditioner(1.3, "lexicographic"), rtol=1e-8
        ).iterations
        for step, x0 in zip(steps, starts, strict=True)
    )
    assert contenders["fixed omega"].run({"omega": 1.3}, problems, 1) == total
    # A single action leaves a bandit no choice: omega is the middle of 1 and 1.95.
    alone = contenders["tsallis-inf"].run({"arms": 1, "estimator": "importance"}, problems, 1)
    assert alone == contenders["fixed omega"].run({"omega": 1.475}, problems, 1)


def test_iterations_of_preconditioners():
    tasks = contenders_preconditioner.data("tune", [2], TINY)
    contenders = contenders_preconditioner.contenders(0.1)
    plain = contenders["diagonal"].run({}, tasks, 2)
    assert plain == tasks[2].plain
    # Without a sweep to speak of, over-relaxation is the diagonal.
    assert contenders["ssor"].run({"omega": 1e-6, "order": "lexicographic"}, tasks, 2) == pytest.approx(
        plain, abs=1
    )
    settings = {"rate": 1e-2, "channels": 4, "schedule": "linear"}
    learned = contenders["network"].run(settings, tasks, 2)
    assert learned < plain / 2 and learned == contenders["network"].run(settings, tasks, 2)
    assert learned < contenders["network"].run({**settings, "rate": 1e-6}, tasks, 2)


@pytest.mark.filterwarnings("ignore::learnsolve.result.ConvergenceWarning")
def test_errors_of_images_and_matrices():
    slices = contenders_mri.data("tune", [0], TINY)
    contenders = contenders_mri.contenders(1.0)
    (one,) = slices[0]
    image = mri.reconstruct(one.kspace, "cg-sense", weight=0.1, maxiter=4).x
    wanted = mri.nmse(one.reference, image.abs().numpy(), where=one.inside)
    assert contenders["cg-sense"].run({"weight": 0.1, "maxiter": 4}, slices, 0) == pytest.approx(
        wanted, rel=1e-4
    )
    assert contenders["recurrentvarnet"].run({}, slices, 0) < contenders["zero-filled"].run({}, slices, 0)
    problems = contenders_completion.data("tune", [0], TINY)
    contenders = contenders_completion.contenders(1.0)
    assert contenders["plain"].run({"rank": 5}, problems, 0) < 0.2
    # A penalty beside which entries do not count gives a matrix of zeros.
    held = contenders["shrinkage"].run({"rank": 5, "shrinkage": 1e9}, problems, 0)
    assert held == pytest.approx(1, rel=1e-6)


def test_continual_learners_keep_what_they_are_asked_to_keep():
    kind = kind_of("continual")
    streams, contenders = kind.data("tune", [0], 1.0), kind.contenders(0.3)
    settings = {"rate": 0.01}
    tuned = contenders["fine-tune"].run(dict(settings), streams, 0)
    assert contenders["ewc"].run({**settings, "strength": 0.0}, streams, 0) == tuned
    assert contenders["replay"].run({**settings, "memory": 32, "weight": 0.0}, streams, 0) == tuned
    assert contenders["replay"].run({**settings, "memory": 32, "weight": 1.0}, streams, 0) > tuned + 0.05


@pytest.mark.parametrize(
    ("name", "seeds"),
    [
        ("relaxation", "1 4"),
        ("preconditioner", "1"),
        ("continual", "4"),
        ("mri", "1"),
        ("completion", "4"),
    ],
)
def test_the_command(name, seeds, tmp_path, capsys, small, as_before):
    kind = kind_of(name)
    path = tmp_path / "rows.json"
    arguments = f"--kind {name} --trials 2 --seeds {seeds} --share {TINY} --json {path}".split()
    assert protocol.main(arguments) == 0
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    contenders = kind.contenders(TINY)
    assert {row["method"] for row in rows} == set(contenders) and len(rows) >= 4
    for row in rows:
        assert row["kind"] == name and row["better"] == kind.better
        assert len(row["trials"]) == (2 if contenders[row["method"]].space else 1)
        assert set(row["settings"]) == set(contenders[row["method"]].space)
        assert len(row["tuned"]) == len(row["evaluated"]) == len(seeds.split())
        assert np.isfinite([*row["tuned"], *row["evaluated"]]).all()
        best = min if kind.better == "less" else max
        assert np.mean(row["tuned"]) == pytest.approx(best(score for _, score in row["trials"]))
        assert row["gap"] == pytest.approx(np.mean(row["evaluated"]) - np.mean(row["tuned"]))
    assert [row["places"][1] for row in rows] == list(range(1, len(rows) + 1))
    assert sorted(row["places"][0] for row in rows) == list(range(1, len(rows) + 1))
    shown = capsys.readouterr().out
    for words in (kind.score, "±", "By the best tuned score", "By the second phase", "Places that changed"):
        assert words in shown


@pytest.mark.parametrize("name", protocol.KINDS)
def test_the_second_data_are_made_last(name):
    kind = kind_of(name)
    order = []

    def watched(method, contender):
        def run(settings, data, seed):
            order.append((method, data))
            return 0.0

        return type(contender)(run, contender.space)

    def evaluate():
        order.append("made")
        return "later"

    contenders = {method: watched(method, one) for method, one in kind.contenders(TINY).items()}
    two_phase_evaluate(contenders, tune="now", evaluate=evaluate, trials=3, seeds=[0])
    tried = sum(3 if one.space else 1 for one in contenders.values())
    assert [one[1] for one in order[:tried]] == ["now"] * tried and order[tried] == "made"
    assert {one for one in order[tried + 1 :]} == {(method, "later") for method in contenders}


def phases(method, tuned, evaluated):
    return Phases(method, {}, tuned, evaluated, ())


def test_what_is_concluded():
    found = TwoPhase(
        (
            phases("steady", (10.0, 20.0, 30.0), (10.0, 20.0, 30.0)),
            phases("near", (11.1, 21.0, 31.2), (11.1, 21.0, 31.2)),
            phases("lucky", (1.0, 1.1, 0.9), (90.0, 91.0, 92.0)),
        ),
        "less",
    )
    assert protocol.level(found, "tuned", paired=False) == ("lucky", ["steady", "near"])
    # Problems are as different as scores are, but each of them is one more for the second method.
    assert protocol.level(found, "evaluated", paired=False) == ("steady", ["near"])
    assert protocol.level(found, "evaluated", paired=True) == ("steady", [])
    first, second, moved = protocol.conclusion(found)
    assert "tuned score lucky is first of 3" in first and "overlap with its own: steady; near." in first
    assert "second phase steady is first of 3" in second and "not told from it: none." in second
    assert moved == "Places that changed: steady 2 to 1; near 3 to 2; lucky 1 to 3."


def test_more_may_be_better_and_one_seed_tells_nothing_apart():
    found = TwoPhase((phases("a", (0.9,), (0.9,)), phases("b", (0.1,), (0.1,))), "more")
    assert protocol.level(found, "evaluated", paired=True) == ("a", ["b"])
    assert protocol.conclusion(found)[2] == "Places that changed: none."


def test_shares_and_seeds():
    assert [part_of(200, share) for share in (1.0, 0.1, 1e-6, 2.0)] == [200, 20, 1, 400]
    seeds = {data_seed(phase, seed) for phase in ("tune", "evaluate") for seed in range(50)}
    assert len(seeds) == 100 and 0 <= min(seeds) and max(seeds) < 2**32


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--trials 0", "--trials is 0"),
        ("--share 0", "--share is 0.0"),
        ("--share nan", "--share is nan"),
        ("--seeds 1 1", "--seeds are [1, 1]"),
        ("--seeds -1", "--seeds are [-1]"),
        ("--kind astrology", "invalid choice"),
    ],
)
def test_refusals(arguments, words, capsys):
    with pytest.raises(SystemExit):
        protocol.main(arguments.split())
    assert words in capsys.readouterr().err
