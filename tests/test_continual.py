"""Streams of tasks that are points, sums and matrices; methods against their equations."""

import copy
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn

import learnsolve
from learnsolve.training import FitOptions, fit
from learnsolve.training.continual import Learner, Method, NamedTask, TaskStream, learn_stream
from learnsolve.training.continual_methods import (
    CONTINUAL_METHODS,
    EWC,
    FineTune,
    Joint,
    Replay,
    TaskHypernetwork,
    compare_methods,
)
from learnsolve.training.isolated_masks import IsolatedMasks
from tests.training_cases import assert_same_bits, batches, line, loss, regressor, weights


class Point(nn.Module):
    """A network that is one number."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.tensor(0.0))

    def forward(self):
        return self.place


def towards(name, place):
    """To be where ``place`` is."""
    return NamedTask(
        name,
        lambda number, generator: place + 0.01 * torch.randn(4, generator=generator),
        lambda network: (network() - place).abs(),
    )


def apart(network, places):
    return (network() - places).square().mean()


PLACES = (1.0, 3.0, 2.0)
LINE = TaskStream([towards(f"at {place}", place) for place in PLACES], apart, better="less")
OPTIONS = FitOptions(steps=150, learning_rate=0.1)


def test_matrix_holds_the_score_of_each_task_after_each():
    network = Point()
    result = learn_stream(network, LINE, FineTune(), OPTIONS)
    wanted = [[abs(i - j) for j in PLACES] for i in PLACES]
    np.testing.assert_allclose(result.scores.matrix, wanted, atol=0.03)
    np.testing.assert_array_equal(result.scores.untrained, PLACES)
    assert result.scores.backward_transfer == pytest.approx(-1, abs=0.03)
    assert result.scores.forward_transfer == pytest.approx((3 - 2 + 2 - 1) / 2, abs=0.03)
    assert all(fitted.finished for fitted in result.fits) and len(result.fits) == 3
    assert float(network.place.detach()) == pytest.approx(2, abs=0.03)


def test_joint_training_is_between_the_tasks():
    so_far = learn_stream(Point(), LINE, Joint(), OPTIONS).scores.matrix
    assert so_far[0, 0] < 0.05 and (so_far[1, :2] > 0.3).all() and (so_far[2, :2] > 0.3).all()
    everything = learn_stream(Point(), LINE, Joint("all"), OPTIONS).scores.matrix
    assert (everything[:, :2] > 0.3).all() and everything[-1, 2] < 0.7


def test_one_hypernetwork_is_at_all_places():
    network = Point()
    method = TaskHypernetwork(beta=1.0, hidden=8, embedding=4)
    result = learn_stream(network, LINE, method, replace(OPTIONS, learning_rate=0.03))
    assert result.scores.matrix.diagonal().max() < 0.1
    assert result.scores.matrix[-1].max() < 0.15
    assert network.place == 0


@dataclass(frozen=True)
class Copies(Method):
    """A network for each task: nothing is shared, and nothing forgotten."""

    name: ClassVar[str] = "copies"

    def start(self, network, stream, options):
        return CopiesLearner(self, network, stream, options)


class CopiesLearner(Learner):
    def __init__(self, *given_ones):
        super().__init__(*given_ones)
        self.first, self.done, self.calls = copy.deepcopy(self.network), [], []

    def begin(self, index):
        super().begin(index)
        self.network = copy.deepcopy(self.first)
        self.calls.append(("begin", index))

    def after_step(self, progress):
        assert all(parameter.grad is not None for parameter in self.network.parameters())
        self.calls.append(("step", progress.step))

    def finish(self, result):
        self.done.append(self.network)
        self.calls.append(("finish", result.step))

    def network_for(self, index):
        return self.done[index] if index < len(self.done) else self.first


def test_a_method_of_ones_own():
    """What is isolated has a backward transfer of zero, exactly; so methods by masks must have."""
    result = learn_stream(Point(), LINE, Copies(), replace(OPTIONS, steps=3))
    assert result.scores.backward_transfer == 0
    matrix = result.scores.matrix
    assert (matrix[np.tril_indices(3)] == matrix.diagonal()[np.tril_indices(3)[1]]).all()
    stages = [("begin", i) for i in range(3)], [("step", 1), ("step", 2), ("step", 3), ("finish", 3)]
    assert result.learner.calls == [call for begin in stages[0] for call in (begin, *stages[1])]


def test_a_callback_ends_a_task_and_not_the_stream():
    seen = []

    def callback(name, progress):
        seen.append((name, progress.step))
        return name == "at 3.0" and progress.step == 2

    result = learn_stream(Point(), LINE, FineTune(), replace(OPTIONS, steps=4), callback=callback)
    assert [fitted.step for fitted in result.fits] == [4, 2, 4]
    assert result.fits[1].status == "stopped" and result.scores.matrix.shape == (3, 3)
    assert seen[3:7] == [("at 1.0", 4), ("at 3.0", 1), ("at 3.0", 2), ("at 2.0", 1)]


def sums(name, wanted):
    """A task for the networks of `training_cases`: a weighted sum of three numbers, learned from noise."""
    of = torch.tensor(wanted)[:, None]

    def drawn(number, generator):
        x, _ = batches(number, generator)
        return x, x @ of + 0.3 * torch.randn(len(x), 1, generator=generator)

    x, _ = batches(0, torch.Generator().manual_seed(10**6))
    held_out = x, x @ of
    return NamedTask(name, drawn, lambda network: loss(network, held_out))


SUMS = TaskStream(
    [sums("first", [1.0, 1.0, 0.0]), sums("second", [0.0, 1.0, -1.0]), sums("third", [1.0, 0.0, 1.0])],
    loss,
    better="less",
)
METHODS = {
    "fine-tune": FineTune(),
    "joint": Joint(),
    "ewc": EWC(strength=1.0, batches=2),
    "replay": Replay(memory=3),
    "hypernetwork": TaskHypernetwork(importance=2, growth=2, hidden=5, embedding=3, chunk=9),
    "masks": IsolatedMasks(0.5, every=2),
}


def test_all_methods_are_in_the_table():
    assert {name: type(method) for name, method in METHODS.items()} == CONTINUAL_METHODS


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_seed_says_all(method):
    options, state = FitOptions(steps=4, learning_rate=0.01, seed=3), torch.get_rng_state()
    one = learn_stream(regressor(), SUMS, method, options)
    other = learn_stream(regressor(), SUMS, method, options)
    np.testing.assert_array_equal(one.scores.matrix, other.scores.matrix)
    assert_same_bits(weights(one.learner.network_for(1)), weights(other.learner.network_for(1)))
    third = learn_stream(regressor(), SUMS, method, replace(options, seed=4))
    assert (third.scores.matrix != one.scores.matrix).any()
    assert torch.equal(torch.get_rng_state(), state)


def test_modes_of_the_network_are_left_and_held_out_problems_see_evaluation():
    network = regressor()
    network[0].eval()
    learn_stream(network, SUMS, FineTune(), FitOptions(steps=2))
    assert [module.training for module in network] == [False, True, True, True]
    untrained = learn_stream(network, SUMS, FineTune(), FitOptions(steps=1, learning_rate=1e-9)).scores
    with torch.no_grad():
        assert untrained.untrained[0] == SUMS.tasks[0].score(copy.deepcopy(network).eval())


def test_with_nothing_to_remember_methods_are_plain_training():
    stream, options = TaskStream(SUMS.tasks[:1], loss, better="less"), FitOptions(steps=5, learning_rate=0.01)
    plain, *others = (
        weights(learn_stream(regressor(), stream, METHODS[name], options).learner.network)
        for name in ("fine-tune", "ewc", "replay")
    )
    assert any((plain[name] != weight).any() for name, weight in weights(regressor()).items())
    for other in others:
        assert_same_bits(plain, other)


@pytest.mark.parametrize(
    "method", [EWC(strength=0), Replay(weight=0)], ids=["ewc of no strength", "replay of no weight"]
)
def test_a_method_switched_off_is_fine_tuning(method):
    options = FitOptions(steps=5, learning_rate=0.01)
    plain = learn_stream(line(), SUMS, FineTune(), options)
    other = learn_stream(line(), SUMS, method, options)
    np.testing.assert_allclose(other.scores.matrix, plain.scores.matrix, rtol=1e-5)


def test_penalty_of_ewc_against_its_gradient_by_hand():
    method, network = EWC(strength=3.0, batches=2), line()
    learner = method.start(network, SUMS, FitOptions(steps=1))
    rest, stiffness = [], []
    for index in range(2):
        learner.begin(index)
        result = fit(network, learner.loss, learner.batches, FitOptions(steps=3, learning_rate=0.1))
        learner.finish(result)
        rest.append({name: weight.clone() for name, weight in weights(network).items()})
        stiffness.append(learner.springs[index][1])
    learner.begin(2)
    with torch.no_grad():
        network.weight += 1.0
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    batch = x, x.sum(1, keepdim=True)
    whole, plain = learner.loss(network, batch), loss(network, batch)
    parameters = dict(network.named_parameters())
    by_hand = sum(
        1.5 * (stiffness[j][name] * (parameters[name].detach() - rest[j][name]) ** 2).sum()
        for j in range(2)
        for name in parameters
    )
    assert by_hand > 0
    torch.testing.assert_close((whole - plain).detach(), by_hand)
    gradients = torch.autograd.grad(whole - plain, list(parameters.values()))
    for name, gradient in zip(parameters, gradients, strict=True):
        pull = sum(3.0 * stiffness[j][name] * (parameters[name].detach() - rest[j][name]) for j in range(2))
        torch.testing.assert_close(gradient, pull)


def test_strong_springs_hold():
    options = FitOptions(steps=100, learning_rate=0.05)
    loose, held = (learn_stream(line(), SUMS, method, options).scores for method in (FineTune(), EWC(1e5)))
    assert loose.matrix[-1, 0] > 0.5 and held.matrix[-1, 0] < 0.01
    assert held.matrix[2, 2] > loose.matrix[2, 2]


def test_a_reservoir_keeps_each_batch_with_the_same_probability():
    memory, offers, runs = 4, 20, 600
    counts = np.zeros(offers)
    for seed in range(runs):
        learner = Replay(memory=memory).start(line(), SUMS, FitOptions(steps=1, seed=seed))
        for number in range(offers):
            learner.offer(number)
        assert len(set(learner.kept)) == memory
        counts[learner.kept] += 1
    share = memory / offers
    assert np.abs(counts - runs * share).max() < 5 * math.sqrt(runs * share * (1 - share))


def test_replay_learns_kept_batches_of_earlier_tasks_beside_new_ones():
    worth = {"a": 1.0, "b": 2.0, "c": 4.0}
    tasks = [NamedTask(name, lambda n, g, name=name: (name, n), lambda network: 0.0) for name in worth]
    stream = TaskStream(tasks, lambda network, batch: torch.tensor(worth[batch[0]]))
    learner = Replay(memory=50, weight=0.5).start(line(), stream, FitOptions(steps=1))
    seen = set()
    for index, name in enumerate(worth):
        learner.begin(index)
        for step in range(20):
            new, old = learner.batches(step, torch.Generator().manual_seed(step))
            assert new == (name, step) and (old is None) == (index == 0)
            extra = 0 if old is None else 0.5 * worth[old[0]]
            assert learner.loss(learner.network, (new, old)).item() == worth[name] + extra
            seen.add((name, old and old[0]))
    assert seen == {("a", None), ("b", "a"), ("c", "a"), ("c", "b")}
    assert len(learner.kept) == 50 and {name for name, _ in learner.kept} == worth.keys()


def test_comparison_has_both_rows_to_compare_with():
    network = regressor()
    before = weights(network)
    found = compare_methods(network, SUMS, {"springs": EWC()}, FitOptions(steps=2))
    assert list(found) == ["fine-tune", "joint", "springs"]
    assert_same_bits(before, weights(network))
    given_ones = {"joint": Joint("all"), "fine-tune": FineTune()}
    found = compare_methods(network, SUMS, given_ones, FitOptions(steps=2))
    assert list(found) == ["fine-tune", "joint"] and found["joint"].learner.method == Joint("all")


CELLS = 40


class Diagonal(nn.Module):
    """A preconditioner that is a diagonal matrix, by its logarithms."""

    def __init__(self):
        super().__init__()
        self.logarithms = nn.Parameter(torch.zeros(CELLS))

    def forward(self):
        return self.logarithms


def scaled(name, contrast):
    """The Laplacian of a line between diagonal matrices of a contrast; the inverse diagonal is learned."""
    size = contrast * torch.sin(torch.arange(CELLS) / 5)
    T = sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(CELLS, CELLS))
    D = sparse.diags_array(np.exp(size.numpy().astype(float) / 2))
    A, b = (D @ T @ D).tocsr(), np.random.default_rng(0).normal(size=CELLS)

    def score(network):
        M = sparse.diags_array(np.exp(network().numpy().astype(float))).tocsr()
        return learnsolve.solve(A, b, M=M, method="cg", rtol=1e-8, maxiter=400).iterations

    def drawn(number, generator):
        return math.log(2) + size + 0.1 * torch.randn(CELLS, generator=generator)

    return NamedTask(name, drawn, score)


def test_iterations_of_conjugate_gradients():
    def loss(network, logarithms):
        return (network() + logarithms).square().mean()

    contrasts = {"weak": 1.0, "strong": 4.0, "reversed": -2.0}
    stream = TaskStream([scaled(*item) for item in contrasts.items()], loss, better="less")
    options = FitOptions(steps=120, learning_rate=0.1)
    forgotten = learn_stream(Diagonal(), stream, FineTune(), options).scores
    kept = learn_stream(
        Diagonal(), stream, TaskHypernetwork(hidden=10, embedding=4, chunk=10), options
    ).scores
    for scores in (forgotten, kept):
        assert (scores.matrix.diagonal() <= 50).all()
    assert forgotten.matrix[-1, 0] > 1.5 * forgotten.matrix[0, 0] and forgotten.backward_transfer < -30
    assert kept.matrix[-1, 0] <= 1.1 * kept.matrix[0, 0] and kept.backward_transfer > -3


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: TaskStream([], loss), ValueError, "the stream has no task"),
        (lambda: TaskStream([LINE.tasks[0]] * 2, apart), ValueError, "several tasks are named 'at 1.0'"),
        (lambda: TaskStream(LINE.tasks, apart, better="lower"), ValueError, "better is 'lower'; 'more' and"),
        (lambda: learn_stream(line(), SUMS, "ewc", OPTIONS), TypeError, "method is 'ewc'; a Method"),
        (lambda: Joint("some"), ValueError, "tasks is 'some'; 'so far' and 'all'"),
        (lambda: EWC(strength=-1), ValueError, "strength is -1"),
        (lambda: EWC(strength=math.nan), ValueError, "strength is nan"),
        (lambda: EWC(batches=0), ValueError, "batches 0"),
        (lambda: Replay(memory=0), ValueError, "memory is 0"),
        (lambda: Replay(weight=-1), ValueError, "weight -1"),
        (lambda: TaskHypernetwork(beta=-1), ValueError, "beta is -1; at least 0"),
        (lambda: TaskHypernetwork(importance=-1), ValueError, "importance is -1"),
        (lambda: TaskHypernetwork(growth=-1), ValueError, "growth is -1"),
        (
            lambda: learn_stream(line(), SUMS, TaskHypernetwork(generator="gru"), OPTIONS),
            ValueError,
            "no generator 'gru'",
        ),
    ],
)
def test_what_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
