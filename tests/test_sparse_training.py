"""Sparse networks from the start: densities, which weights come and go, and resumption."""

import copy
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from learnsolve.training import FitOptions, fit, load_weights, save_weights
from learnsolve.training.masks import mask_weights, masks_of, remove_masks
from learnsolve.training.pruning import prune
from learnsolve.training.sparse_training import GROWTHS, SparseTraining, sparsify, weights_per_layer
from tests.training_cases import assert_same_bits, batches, line, loss, regressor, stop_at, weights

SHAPES = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 40), st.integers(1, 40)),
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3)),
    ),
    min_size=1,
    max_size=5,
)


def masks(network):
    return {name: masked.mask.mask.clone() for name, masked in masks_of(network).items()}


# Densities


@settings(deadline=None)
@given(SHAPES, st.floats(0.2, 1.0), st.sampled_from(["erk", "uniform"]))
def test_the_total_is_exact(shapes, share, distribution):
    named = {str(k): shape for k, shape in enumerate(shapes)}
    sizes = {name: math.prod(shape) for name, shape in named.items()}
    total = round(share * sum(sizes.values()))
    try:
        counts = weights_per_layer(named, share, distribution)
    except ValueError as error:
        assert "without a weight" in str(error) and min(sizes.values()) < 3 * sum(map(sum, shapes))
        return
    assert sum(counts.values()) == total
    assert all(1 <= counts[name] <= sizes[name] for name in named)
    if distribution == "uniform":
        assert all(abs(counts[name] - total * sizes[name] / sum(sizes.values())) < 1 for name in named)
        return
    # One epsilon for all layers that are not dense, with which the dense ones would be full.
    sums = {name: sum(shape) for name, shape in named.items()}
    sparse = [name for name in named if counts[name] < sizes[name]]
    if sparse:
        low = max((counts[name] - 1) / sums[name] for name in sparse)
        high = min((counts[name] + 1) / sums[name] for name in sparse)
        assert low < high
        assert all((counts[name] - 1) / sums[name] < high for name in named)


def test_densities_by_hand():
    """ERK: epsilon 1.4 gives 1.4 * 110 = 154 and 1.4 * 102 = 142.8, together 296.8; 300 are asked for."""
    shapes = {"first": (100, 10), "last": (2, 100)}
    epsilon = 300 / 212
    assert weights_per_layer(shapes, 0.25) == {"first": round(epsilon * 110), "last": round(epsilon * 102)}
    assert weights_per_layer(shapes, 0.25, "uniform") == {"first": 250, "last": 50}
    # At 0.5 the last layer would get 1.4 times its size: it is dense, and the other gets the rest.
    assert weights_per_layer(shapes, 0.5) == {"first": 400, "last": 200}
    # A kernel's axes count as well: (8 + 8 + 3 + 3) / 576 against (8 + 8) / 64.
    assert weights_per_layer({"conv": (8, 8, 3, 3), "linear": (8, 8)}, 38 / 640) == {"conv": 22, "linear": 16}


@pytest.mark.parametrize("distribution", ["erk", "uniform"])
def test_masks_have_the_counts_at_places_by_the_seed(distribution):
    def sparse(seed):
        network = nn.Sequential(nn.Conv1d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 10))
        before = torch.get_rng_state()
        sparsify(network, 0.2, distribution, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        return masks(network)

    one = sparse(0)
    counts = weights_per_layer({"0.weight": (8, 2, 3), "3.weight": (10, 32)}, 0.2, distribution)
    assert {name: int(mask.sum()) for name, mask in one.items()} == counts
    assert sum(counts.values()) == round(0.2 * 368)
    assert_same_bits(one, sparse(0))
    assert not torch.equal(one["3.weight"], sparse(1)["3.weight"])


# Which weights come and go


def squares(network, number):
    """A loss of the batch of that number."""
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(number))
    return functional.mse_loss(network(x), x[:, :4] ** 2)


def watched(growth, **options):
    """A sparse network, its sparse training, and the rest of a step after that has begun it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4))
    sparsify(network, 0.3, "uniform")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)

    def go_on(number):
        optimizer.zero_grad()
        squares(network, number).backward()
        optimizer.step()

    return network, SparseTraining(network, growth=growth, **options), go_on


def sizes(network):
    return {name: masked.weight.abs().clone() for name, masked in masks_of(network).items()}


@pytest.mark.parametrize("growth", GROWTHS)
def test_as_many_come_as_go_at_the_right_steps(growth):
    network, sparse, go_on = watched(growth, steps=20, every=4, drop=0.6, stop=0.75)
    changes = []
    for number in range(20):
        before, size = masks(network), sizes(network)
        if sparse.begin_step():
            changes.append(number)
        for name, mask in masks(network).items():
            assert int(mask.sum()) == int(before[name].sum())
            # The end is step 15: a share of 0.6 (1 + cos(pi t / 15)) / 2.
            share = 0.3 * (1 + math.cos(math.pi * number / 15)) if number in (4, 8, 12) else 0
            count = round(share * int(before[name].sum()))
            smallest = size[name][before[name]].sort().values[:count]
            gone, new = before[name] & ~mask, mask & ~before[name]
            assert set(size[name][gone].tolist()) <= set(smallest.tolist())
            assert bool((sizes(network)[name][new] == 0).all())
            assert torch.equal(sizes(network)[name][mask & ~new], size[name][mask & ~new])
        go_on(number)
    assert changes == [4, 8, 12] and sparse.step == 20


@pytest.mark.parametrize("growth", ["gradient", "momentum"])
def test_what_grows_by_the_dense_gradient(growth):
    """Against gradients of a network without masks, and averages of Adam that are made of them."""
    network, sparse, go_on = watched(growth, steps=100, every=3, stop=1.0)
    worth, mean, square = {}, {}, {}
    grown = 0
    for number in range(10):
        before, size = masks(network), sizes(network)
        assert sparse.begin_step() == (number in (3, 6, 9))
        for name, mask in masks(network).items() if number in (3, 6, 9) else ():
            count = round(sparse.share(number) * int(before[name].sum()))
            expected = before[name].flatten().clone()
            expected[size[name].where(before[name], math.inf).flatten().argsort(stable=True)[:count]] = False
            best = worth[name].flatten().where(~expected, -1).argsort(descending=True, stable=True)
            expected[best[:count]] = True
            assert torch.equal(mask.flatten(), expected)
            grown += int((mask & ~before[name]).sum())
        plain = copy.deepcopy(network)
        remove_masks(plain)
        squares(plain, number).backward()
        for name in before:
            gradient = plain.get_parameter(name).grad
            mean[name] = 0.9 * mean.get(name, 0) + 0.1 * gradient
            square[name] = 0.999 * square.get(name, 0) + 0.001 * gradient**2
            average = mean[name].abs() / (square[name].sqrt() + 1e-8)
            worth[name] = average if growth == "momentum" else gradient.abs()
        go_on(number)
    assert grown > 6


def test_unfired_ones_come_first():
    network, sparse, go_on = watched("unfired", steps=1000, every=1, stop=1.0)
    ever = masks(network)
    for number in range(12):
        before = masks(network)
        sparse.begin_step()
        for name, mask in masks(network).items():
            new = mask & ~before[name]
            fresh = new & ~ever[name]
            # An old one comes only when there is none left that never was in.
            assert torch.equal(fresh, new) or bool((ever[name] | fresh).all())
            ever[name] |= mask
        total = sum(int(one.sum()) for one in ever.values())
        assert sparse.explored == total / 100
        go_on(number)
    assert sparse.explored == 1


def test_dense_layers_stay_as_they_are():
    network = nn.Linear(3, 3)
    mask_weights(network)
    sparse = SparseTraining(network, steps=10, growth="random", every=1)
    before = network.weight.detach().clone()
    assert [sparse.begin_step() for _ in range(3)] == [False, True, True]
    assert torch.equal(network.weight, before)


def test_a_gradient_that_is_not_finite_changes_nothing():
    network = line()
    sparsify(network, 0.34)
    sparse = SparseTraining(network, steps=10, every=1)
    sparse.begin_step()
    (network(torch.ones(1, 3)) * math.inf).sum().backward()
    before = masks(network)
    assert not sparse.begin_step()
    assert_same_bits(masks(network), before)
    network(torch.ones(1, 3)).sum().backward()
    assert sparse.begin_step()


@pytest.mark.parametrize("growth", GROWTHS)
def test_a_run_that_goes_on_is_the_same_to_the_bit(growth, tmp_path):
    def trained(folder, callback=None):
        network = regressor()
        sparsify(network, 0.3)
        sparse = SparseTraining(network, steps=16, growth=growth, every=3, seed=1)
        options = FitOptions(16, 0.05, ema=0.5)
        fit(
            network, sparse.loss(loss), batches, options, folder=folder, callback=callback,
            carried=sparse.carried,
        )  # fmt: skip
        return {**weights(network), **sparse.carried}

    whole = trained(tmp_path / "whole")
    for step in (2, 3, 4, 9):
        folder = tmp_path / f"stopped at {step}"
        trained(folder, stop_at(step))
        assert_same_bits(trained(folder), whole)


def test_gradient_growth_finds_the_few_inputs_that_matter():
    """Of 40 inputs two; a mask at random that stays has them with probability 0.006."""

    def apart(network, x):
        return functional.mse_loss(network(x)[:, 0], x[:, 3] - x[:, 8])

    def inputs(number, generator):
        return torch.randn(32, 40, generator=generator)

    ends = {}
    for growth in (None, "gradient", "momentum"):
        network = nn.Linear(40, 1)
        sparsify(network, 0.1)
        sparse = SparseTraining(network, steps=200, growth=growth or "random", every=10)
        of_step = sparse.loss(apart) if growth else apart
        fit(network, of_step, inputs, FitOptions(200, 0.1), carried=sparse.carried)
        held_out = torch.randn(500, 40, generator=torch.Generator().manual_seed(5))
        ends[growth] = apart(network, held_out).item()
    assert ends["gradient"] < 1e-3 and ends["momentum"] < 1e-3 and ends[None] > 0.5


def train_as(rank, folder):
    """What each of two processes runs, on batches of its own."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    for growth in ("gradient", "momentum"):
        network = regressor()
        sparsify(network, 0.3)
        sparse = SparseTraining(network, steps=12, growth=growth, every=3)
        fit(network, sparse.loss(loss), batches, FitOptions(12, 0.05), carried=sparse.carried)
        save_weights(f"{folder}/{growth}{rank}.safetensors", network)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_same_masks(tmp_path):
    root = Path(__file__).parents[1]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); from tests.test_sparse_training import train_as; "
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen([sys.executable, "-c", f"{code} train_as({k}, {str(tmp_path)!r})"], env=environment)
        for k in (0, 1)
    ]
    try:
        assert [process.wait(timeout=120) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
    for growth in ("gradient", "momentum"):
        ends = []
        for k in (0, 1):
            network = regressor(3)
            mask_weights(network)
            load_weights(tmp_path / f"{growth}{k}.safetensors", network)
            ends.append(weights(network))
        assert_same_bits(*ends)
        first = regressor()
        sparsify(first, 0.3)
        assert not torch.equal(masks(first)["0.weight"], masks(network)["0.weight"])


def pruned():
    network = line()
    prune(network, 0.5)
    return network


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: weights_per_layer({"a": (2, 2)}, 0.0), r"density is 0.0; a number in \(0, 1\]"),
        (lambda: weights_per_layer({"a": (2, 2)}, 1.1), "density is 1.1"),
        (
            lambda: weights_per_layer({"a": (2, 2)}, 0.5, "equal"),
            "no distribution 'equal'; there are erk, uniform",
        ),
        (
            lambda: weights_per_layer({"a": (2, 2), "b": (99, 99)}, 0.01, "uniform"),
            "leaves a without a weight",
        ),
        (lambda: sparsify(nn.Identity(), 0.5), "no parameter of two axes"),
        (lambda: SparseTraining(line(), steps=1), "has no masks: call sparsify"),
        (lambda: SparseTraining(pruned(), steps=0), "steps is 0"),
        (lambda: SparseTraining(pruned(), steps=1, every=0), "every is 0"),
        (lambda: SparseTraining(pruned(), steps=1, drop=1.5), "drop is 1.5"),
        (lambda: SparseTraining(pruned(), steps=1, stop=0.0), "stop is 0.0"),
        (
            lambda: SparseTraining(pruned(), steps=1, growth="best"),
            "no growth 'best'; there are random, unfired",
        ),
    ],
)
def test_what_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
