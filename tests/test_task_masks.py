"""Masks for tasks: what an earlier task computes, no later one changes."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from learnsolve.training import FitOptions, fit, load_weights, save_weights
from learnsolve.training.masks import mask_weights, masks_of
from learnsolve.training.sparse_training import SparseTraining
from learnsolve.training.task_masks import TaskMasks
from tests.training_cases import batches


def normalised():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))


def power(k):
    def loss(network, batch):
        return functional.mse_loss(network(batch[0])[:, 0], batch[0][:, 0] ** k)

    return loss


def learn(tasks, task, optimizer="adamw", growth="gradient"):
    """A task by all that could change what is not its own: decay, averages, momentum, changing masks."""
    tasks.begin(task)
    sparse = SparseTraining(tasks.network, steps=60, growth=growth, every=5)
    options = FitOptions(60, 0.05, optimizer=optimizer, weight_decay=0.1, ema=0.9)
    fit(tasks.network, sparse.loss(power(int(task))), batches, options, carried=sparse.carried)
    tasks.keep()


def answers(network):
    x, _ = batches(0, torch.Generator().manual_seed(9))
    with torch.no_grad():
        return network.eval()(x)


@pytest.mark.parametrize(
    ("optimizer", "growth"),
    [("adamw", "gradient"), ("adam", "momentum"), ("radam", "random"), ("sgd", "unfired")],
)
def test_backward_transfer_is_zero_to_the_bit(optimizer, growth):
    network = normalised()
    tasks = TaskMasks(network, 0.4)
    known = {}
    for task in ("1", "2", "3"):
        learn(tasks, task, optimizer, growth)
        known[task] = answers(network)
        for earlier, answer in known.items():
            tasks.use(earlier)
            assert torch.equal(answers(network), answer)
        assert (
            not all(torch.equal(answer, known[task]) for other, answer in known.items() if other != task)
            or task == "1"
        )
    assert tasks.tasks == ("1", "2", "3")
    assert not torch.equal(known["1"], known["2"]) and not torch.equal(known["2"], known["3"])


def test_a_task_learns_and_reads_what_is_there():
    network = normalised()
    tasks = TaskMasks(network, 0.5, seed=3)
    used = []
    for task in ("1", "2"):
        learn(tasks, task)
        used.append(tasks.used)
    x, _ = batches(0, torch.Generator().manual_seed(9))
    for task in ("1", "2"):
        tasks.use(task)
        network.eval()
        assert power(int(task))(network, (x,)).item() < 0.2 * float((x[:, 0] ** int(task)).var())
    assert used[0] == 0.5 and 0.5 < used[1] < 1
    shared = [masked.mask.frozen & masked.mask.mask for masked in masks_of(network).values()]
    assert all(
        torch.equal(one, masked.mask.mask)
        for one, masked in zip(shared, masks_of(network).values(), strict=True)
    )


def test_biases_normalisation_and_statistics_belong_to_a_task():
    network = normalised()
    tasks = TaskMasks(network, 0.5)
    tasks.begin("a")
    with torch.no_grad():
        network[0].bias.fill_(1.0)
        network[1].weight.fill_(2.0)
        network[1].running_mean.fill_(3.0)
        network[1].num_batches_tracked.fill_(4)
    tasks.keep()
    tasks.begin("b")
    fresh = normalised()
    assert torch.equal(network[0].bias, fresh[0].bias) and torch.equal(network[1].weight, fresh[1].weight)
    assert float(network[1].running_mean.abs().max()) == int(network[1].num_batches_tracked) == 0
    tasks.keep()
    tasks.use("a")
    got = [t.flatten()[0].item() for t in (network[0].bias, network[1].weight, network[1].running_mean)]
    assert [*got, int(network[1].num_batches_tracked)] == [1.0, 2.0, 3.0, 4]


def test_free_weights_start_where_the_network_did():
    network = normalised()
    initial = network[0].weight.detach().clone()
    tasks = TaskMasks(network, 0.5)
    learn(tasks, "1")
    mask = masks_of(network)["0.weight"].mask
    frozen = mask.frozen.clone()
    tasks.begin("2")
    new = mask.mask & ~frozen
    assert torch.equal(network[0].weight[new], initial[new]) and bool(new.any())
    assert torch.equal(network[0].weight[mask.mask & frozen], mask.kept[mask.mask & frozen])


def test_tasks_are_saved_and_restored(tmp_path):
    network, other = normalised(), normalised()
    tasks, again = TaskMasks(network, 0.4), TaskMasks(other, 0.4, seed=8)
    for task in ("1", "2"):
        learn(tasks, task)
    save_weights(tmp_path / "network.safetensors", network)
    load_weights(tmp_path / "network.safetensors", other)
    again.restore(tasks.tensors())
    for task in again.tasks:
        tasks.use(task)
        again.use(task)
        assert torch.equal(answers(network), answers(other))
    broken = {name: tensor for name, tensor in tasks.tensors().items() if name != "2|1.bias"}
    with pytest.raises(ValueError, match=r"the task '2' lacks 1\.bias"):
        again.restore(broken)
    assert again.tasks == ("1", "2")


def unfinished():
    tasks = TaskMasks(normalised(), 0.5)
    tasks.begin("a")
    return tasks


def kept():
    tasks = unfinished()
    tasks.keep()
    return tasks


def masked():
    network = normalised()
    mask_weights(network)
    return network


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: TaskMasks(masked(), 0.5), "has masks already"),
        (lambda: TaskMasks(normalised(), 0.01), "leaves 3.weight without a weight"),
        (lambda: unfinished().begin("b"), "'a' is being learned: keep it first"),
        (lambda: unfinished().use("a"), "'a' is being learned"),
        (lambda: kept().keep(), "no task is being learned"),
        (lambda: kept().begin("a"), "'a' was learned before"),
        (lambda: kept().use("b"), "there is no task 'b'; there are a"),
    ],
)
def test_what_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
