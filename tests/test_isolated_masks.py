"""Streams of tasks with a mask for each: nothing is forgotten, and what grows is what the task needs."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from learnsolve.training import FitOptions, fit
from learnsolve.training.continual import NamedTask, TaskStream, learn_stream
from learnsolve.training.continual_methods import compare_methods
from learnsolve.training.isolated_masks import IsolatedMasks
from learnsolve.training.masks import density, mask_weights, masks_of
from learnsolve.training.seeding import seed_of
from learnsolve.training.sparse_training import SparseTraining
from learnsolve.training.task_masks import TaskMasks
from tests.pruning_cases import mlp, seeded
from tests.training_cases import assert_same_bits, weights

OPTIONS = FitOptions(30, 0.03)


def normalised():
    return seeded(lambda: nn.Sequential(nn.Linear(20, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 1)))


def difference(one, other):
    """To tell the difference of two of twenty inputs; scores are losses."""

    def batches(number, generator):
        x = torch.randn(32, 20, generator=generator)
        return x, x[:, [one]] - x[:, [other]]

    def score(network):
        return error(network, batches(0, torch.Generator().manual_seed(9)))

    return NamedTask(f"{one}-{other}", batches, score)


def error(network, batch):
    return functional.mse_loss(network(batch[0]), batch[1])


STREAM = TaskStream([difference(3, 8), difference(1, 15), difference(0, 8)], error, better="less")


def assert_nothing_is_forgotten(scores):
    assert scores.backward_transfer == 0
    for task in range(len(scores.names)):
        assert (scores.matrix[task:, task] == scores.matrix[task, task]).all()


@pytest.mark.parametrize(
    ("growth", "optimizer"),
    [(None, "adamw"), ("random", "sgd"), ("unfired", "adam"), ("gradient", "radam"), ("momentum", "adamw")],
)
def test_nothing_is_forgotten_to_the_bit(growth, optimizer):
    """Losses of a network with statistics of its own, against decay, momentum and averages of weights."""
    options = FitOptions(30, 0.03, optimizer=optimizer, weight_decay=0.1, ema=0.9)
    result = learn_stream(normalised(), STREAM, IsolatedMasks(0.3, growth=growth, every=5), options)
    assert_nothing_is_forgotten(result.scores)
    matrix = result.scores.matrix
    assert len(np.unique(matrix[:2, 2])) == 2, "the task learned last answers for those to come"
    assert 0.3 < result.learner.masks.used < 0.9
    for index in (2, 0, 1, 0):
        network = copy.deepcopy(result.learner.network_for(index)).eval()
        with torch.no_grad():
            assert float(STREAM.tasks[index].score(network)) == matrix[index, index]


def digit_streams():
    pytest.importorskip("sklearn")
    from learnsolve.problems.digit_streams import digit_loss, permuted_digits, split_digits

    return {
        name: TaskStream(tasks, digit_loss)
        for name, tasks in (("permuted", permuted_digits(2)), ("split", split_digits()))
    }


@pytest.mark.parametrize("name", ["permuted", "split"])
@pytest.mark.parametrize("norm", [nn.Identity, nn.BatchNorm1d])
def test_digits_are_learned_and_not_forgotten(name, norm):
    network = seeded(lambda: nn.Sequential(nn.Linear(64, 48), norm(48), nn.ReLU(), nn.Linear(48, 10)))
    method = IsolatedMasks(0.2, "erk", every=10)
    result = learn_stream(network, digit_streams()[name], method, FitOptions(60, 0.01))
    assert_nothing_is_forgotten(result.scores)
    assert result.scores.average > {"permuted": 0.65, "split": 0.95}[name]


@pytest.mark.parametrize("growth", ["gradient", "momentum"])
def test_growth_finds_the_inputs_that_count(growth):
    """Of twenty weights a task gets four: two of them are those that it needs, if masks change."""
    alone, options = TaskStream(STREAM.tasks[:1], error, better="less"), FitOptions(150, 0.1)

    def learned(growth):
        network = seeded(lambda: nn.Linear(20, 1))
        return learn_stream(network, alone, IsolatedMasks(0.2, growth=growth, every=5), options)

    grown, static = learned(growth), learned(None)
    assert grown.scores.average < 1e-3 and static.scores.average > 0.5
    assert bool(masks_of(grown.learner.network)["weight"].mask.mask[0, [3, 8]].all())
    assert grown.learner.masks.used == static.learner.masks.used == 0.2
    assert grown.learner.sparse.explored > 0.2 and static.learner.sparse is None


def test_a_stream_is_what_one_would_do_by_hand():
    method = IsolatedMasks(0.3, "erk", "momentum", every=4, drop=0.7, stop=0.6)
    result = learn_stream(normalised(), STREAM, method, OPTIONS)
    network = normalised()
    masks = TaskMasks(network, 0.3, "erk", seed=OPTIONS.seed)
    for index, task in enumerate(STREAM.tasks):
        masks.begin(task.name)
        sparse = SparseTraining(
            network, steps=30, growth="momentum", every=4, drop=0.7, stop=0.6,
            seed=seed_of(OPTIONS.seed, "masks", index),
        )  # fmt: skip
        own = FitOptions(30, 0.03, seed=seed_of(OPTIONS.seed, "task", index))
        fit(network, sparse.loss(error), task.batches, own)
        masks.keep()
    assert result.learner.sparse.explored == sparse.explored > density(network)
    for index, task in enumerate(STREAM.names):
        masks.use(task)
        assert_same_bits(weights(result.learner.network_for(index)), weights(network))


def test_masks_that_are_static_or_have_no_time_to_change():
    drawn = TaskMasks(normalised(), 0.3, seed=OPTIONS.seed)
    for method in (IsolatedMasks(0.3, growth=None), IsolatedMasks(0.3, every=24)):
        learner = learn_stream(normalised(), STREAM, method, OPTIONS).learner
        for index, task in enumerate(STREAM.names):
            if task not in drawn.tasks:
                drawn.begin(task)
                drawn.keep()
            drawn.use(task)
            masks = masks_of(learner.network_for(index)).items()
            wanted = masks_of(drawn.network)
            assert all(torch.equal(mask.mask.mask, wanted[name].mask.mask) for name, mask in masks)
    changed = learn_stream(normalised(), STREAM, IsolatedMasks(0.3, every=20), OPTIONS).learner
    found = masks_of(changed.network_for(2)).items()
    assert any(not torch.equal(mask.mask.mask, wanted[name].mask.mask) for name, mask in found)


def test_layers_without_masks_belong_to_each_task():
    learner = learn_stream(normalised(), STREAM, IsolatedMasks(0.3, names=("0.weight",)), OPTIONS).learner
    heads = []
    for index in range(3):
        network = learner.network_for(index)
        assert masks_of(network).keys() == {"0.weight"} and density(network) == 72 / 240
        heads.append(network[3].weight.detach().clone())
    assert all(bool((head != 0).all()) for head in heads)
    assert not torch.equal(heads[0], heads[1]) and not torch.equal(heads[1], heads[2])


def test_the_network_is_masked_where_a_method_may_do_so():
    network = normalised()
    before = weights(network)
    rows = compare_methods(network, STREAM, {"masks": IsolatedMasks(0.3)}, FitOptions(5, 0.1))
    assert not masks_of(network)
    assert_same_bits(weights(network), before)
    assert density(rows["masks"].learner.network) < 1 and rows["masks"].scores.backward_transfer == 0
    assert rows["fine-tune"].scores.backward_transfer != 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"distribution": "even"}, "no distribution 'even'; there are erk, uniform"),
        ({"growth": "static"}, "no growth 'static'; there are random, unfired, gradient, momentum and None"),
        ({"density": 0.0}, r"density is 0.0; a number in \(0, 1\]"),
        ({"density": 1.5}, r"density is 1.5; a number in \(0, 1\]"),
        ({"density": float("nan")}, "density is nan"),
        ({"drop": 0.0}, r"drop is 0.0; a number in \(0, 1\]"),
        ({"stop": 1.1}, r"stop is 1.1; a number in \(0, 1\]"),
        ({"every": 0}, "every is 0; at least 1"),
    ],
)
def test_what_is_refused_on_construction(wrong, words):
    with pytest.raises(ValueError, match=words):
        IsolatedMasks(**wrong)


def masked():
    network = mlp(0, (20, 4, 1))
    mask_weights(network)
    return network


@pytest.mark.parametrize(
    ("network", "method", "words"),
    [
        (masked, IsolatedMasks(), "has masks already"),
        (lambda: mlp(0, (20, 4, 1)), IsolatedMasks(0.01), "without a weight"),
        (lambda: mlp(0, (20, 4, 1)), IsolatedMasks(names=("4.weight",)), "no parameter '4.weight'"),
        (lambda: nn.BatchNorm1d(20), IsolatedMasks(), "no parameter of two axes"),
    ],
)
def test_what_a_stream_refuses_before_it_begins(network, method, words):
    with pytest.raises(ValueError, match=words):
        learn_stream(network(), STREAM, method, OPTIONS)
