"""Permuted and split digits, and what is forgotten of them."""

import copy

import pytest
import torch
from torch import nn

from learnsolve.problems.digit_streams import DigitTask, digit_loss, permuted_digits, split_digits
from learnsolve.training import FitOptions
from learnsolve.training.continual import TaskStream, learn_stream
from learnsolve.training.continual_methods import FineTune, TaskHypernetwork

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


def test_permuted_digits():
    first, second, third = permuted_digits(3, batch=9, seed=1)
    assert first.permutation == tuple(range(64)) != second.permutation != third.permutation
    one, other = (task.batches(0, torch.Generator().manual_seed(4)) for task in (first, second))
    assert one.images.shape == (9, 64) and torch.equal(one.labels, other.labels)
    assert torch.equal(one.images[:, list(second.permutation)], other.images)
    assert sorted(second.permutation) == list(range(64)) and one.classes.tolist() == list(range(10))
    assert permuted_digits(3, batch=9, seed=1)[2] == third != permuted_digits(3, batch=9, seed=2)[2]


@pytest.mark.parametrize(
    ("scenario", "classes", "labels"),
    [("task", [8, 3], {0, 1}), ("domain", [0, 1], {0, 1}), ("class", list(range(10)), {8, 3})],
)
def test_split_digits(scenario, classes, labels):
    order = (8, 3, 0, 1, 2, 4, 5, 6, 7, 9)
    tasks = split_digits(2, scenario=scenario, batch=64, order=order)
    batch = tasks[0].batches(0, torch.Generator().manual_seed(0))
    assert batch.classes.tolist() == classes and set(batch.labels.tolist()) == labels
    assert tasks[0].name == "digits-83" and len({task.name for task in tasks}) == 5
    # Of an image the same digit is asked for, whatever it is called.
    whole = DigitTask("all", order, order, tuple(range(10)), 1, tuple(range(64)))
    images, names = (getattr(whole._images("learned"), part) for part in ("images", "labels"))
    for image, label in zip(batch.images, batch.labels, strict=True):
        digit = order[int(names[(images == image).all(1).nonzero()[0, 0]])]
        assert digit == {"class": int(label)}.get(scenario, order[int(label)])


def test_score_of_digits_is_of_held_out_ones():
    task = split_digits(5)[0]
    judged, learned = task._images("judged"), task._images("learned")
    assert not (judged.images[:, None] == learned.images[None]).all(2).any()

    def known(images):
        """The answer to each held-out image, looked up."""
        places = (images[:, None] == judged.images[None]).all(2).float().argmax(1)
        return nn.functional.one_hot(judged.labels[places], 10).float()

    assert task.score(known) == 1
    assert task.score(lambda images: -known(images)) == 0
    certain = digit_loss(lambda images: 100 * known(images), judged)
    assert float(certain) == pytest.approx(0, abs=1e-6)


def test_fine_tuning_forgets_permuted_digits_and_the_regularised_hypernetwork_does_not():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10))
    stream, options = TaskStream(permuted_digits(3), digit_loss), FitOptions(steps=80, learning_rate=5e-3)
    fine_tuned = learn_stream(copy.deepcopy(network), stream, FineTune(), options).scores
    kept = learn_stream(network, stream, TaskHypernetwork(), options).scores
    free = learn_stream(network, stream, TaskHypernetwork(beta=0), options).scores
    assert fine_tuned.backward_transfer < -0.2 and free.backward_transfer < -0.2
    assert kept.backward_transfer > -0.05 and kept.average > 0.85
    assert kept.matrix[-1, 0] > fine_tuned.matrix[-1, 0] + 0.2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: permuted_digits(0), "tasks is 0"),
        (lambda: permuted_digits(2, batch=0), "batch 0; at least 1"),
        (lambda: split_digits(3), "classes_per_task is 3; 1, 2, 5 and 10"),
        (lambda: split_digits(batch=0), "batch is 0"),
        (lambda: split_digits(scenario="both"), "no scenario 'both'; there are task, domain"),
        (lambda: split_digits(order=[0, 1]), r"order is \[0, 1\]; the ten digits"),
    ],
)
def test_what_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
