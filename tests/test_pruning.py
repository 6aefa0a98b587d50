"""Masks on networks, and what is pruned and when."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from learnsolve.training import FitOptions, fit, load_weights, save_weights
from learnsolve.training.compaction import compacted
from learnsolve.training.criteria import Gradient, Magnitude, Structured
from learnsolve.training.masks import density, mask_weights, maskable, masks_of, remove_masks
from learnsolve.training.pruning import ActivateWhilePruning, prune, prune_iteratively
from tests.pruning_cases import mlp, seeded, with_values
from tests.training_cases import assert_same_bits, batches, line, loss, regressor, stop_at, weights


def values_of(network):
    return [layer.weight.tolist() for layer in network if hasattr(layer, "weight")]


# Masks


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "radam", "sgd"])
def test_a_masked_network_trains_as_one_whose_gradients_are_masked(optimizer):
    masked, plain = regressor(), regressor()
    mask = torch.rand(8, 3, generator=torch.Generator().manual_seed(1)) < 0.4
    mask_weights(masked)["0.weight"].mask.mask.copy_(mask)
    with torch.no_grad():
        plain[0].weight.mul_(mask)
    plain[0].weight.register_hook(lambda gradient: gradient * mask)
    options = FitOptions(30, 0.05, optimizer=optimizer, weight_decay=0.1, clip=0, ema=0.9)
    for network in (masked, plain):
        fit(network, loss, batches, options)
    assert density(masked) == (int(mask.sum()) + 8) / 32
    remove_masks(masked)
    assert_same_bits(weights(masked), weights(plain))
    assert bool((masked[0].weight[~mask] == 0).all()) and bool((masked[0].weight[mask] != 0).all())


def test_masks_survive_checkpoints_and_files(tmp_path):
    def pruned(network):
        prune(network, 0.5)
        return network

    def trained(folder, network, callback=None):
        fit(network, loss, batches, FitOptions(9, 0.1), folder=folder, callback=callback)
        return weights(network)

    whole = trained(tmp_path / "whole", pruned(regressor()))
    trained(tmp_path / "parts", pruned(regressor()), stop_at(4))
    # The masks too come from the checkpoint.
    blank = regressor()
    mask_weights(blank)
    assert_same_bits(trained(tmp_path / "parts", blank), whole)
    assert "0.parametrizations.weight.0.mask" in whole

    save_weights(tmp_path / "pruned.safetensors", blank)
    other = regressor(3)
    mask_weights(other)
    load_weights(tmp_path / "pruned.safetensors", other)
    assert_same_bits(weights(other), whole)
    x, _ = batches(0, torch.Generator().manual_seed(0))
    expected = other.eval()(x)
    remove_masks(other)
    assert weights(other).keys() == weights(regressor()).keys() and not masks_of(other)
    assert torch.equal(other(x), expected)


def test_what_is_masked_by_default():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.cells = nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.LSTM(3, 3)
            self.gain, self.scale = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
            self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 2)
            self.two.weight = self.one.weight
            self.normed = weight_norm(nn.Linear(2, 2))

    network = Net()
    assert sorted(maskable(network)) == ["conv.weight", "gain"]
    for name, words in [
        ("cells.weight_ih_l0", "kernels of LSTM read their weights past a mask"),
        ("one.weight", "one.weight and two.weight are one parameter"),
        ("normed.weight", "a parametrization of another kind"),
        ("nothing", "no parameter 'nothing'"),
    ]:
        with pytest.raises(ValueError, match=words):
            mask_weights(network, ["gain", name])
    assert not masks_of(network)
    assert mask_weights(network, ["scale"]).keys() == {"scale"}
    assert mask_weights(network).keys() == {"scale", "gain", "conv.weight"}
    assert maskable(network) == ["gain", "conv.weight"] or sorted(maskable(network)) == [
        "conv.weight",
        "gain",
    ]
    with pytest.raises(ValueError, match="no parameter of two axes"):
        mask_weights(nn.BatchNorm1d(2))


def test_a_copy_has_masks_of_its_own():
    network = mlp()
    prune(network, 0.5)
    other = copy.deepcopy(network)
    prune(other, 0.5)
    assert density(network) == pytest.approx(0.5, abs=0.01)
    assert density(other) == pytest.approx(0.25, abs=0.01)


def test_the_dense_gradient_is_that_of_a_network_without_masks():
    """Of a weight that is read twice as well."""
    network, plain = line(), line()
    masked = mask_weights(network)["weight"]
    masked.mask.mask[0, 1] = False
    with torch.no_grad():
        plain.weight[0, 1] = 0
    masked.mask.gradient = torch.zeros(1, 3)
    x, _ = batches(0, torch.Generator().manual_seed(0))
    for one in (network, plain):
        (one(x).sin() + one(2 * x)).sum().backward()
    assert torch.allclose(masked.mask.gradient, plain.weight.grad) and plain.weight.grad[0, 1] != 0
    assert torch.equal(masked.original.grad, plain.weight.grad * torch.tensor([1.0, 0.0, 1.0]))


# Pruning


def slowly_pruned(matrices, share, scope):
    """Names of the entries that go, one comparison after the other."""
    gone = set()
    for group in [matrices] if scope == "global" else [{name: one} for name, one in matrices.items()]:
        entries = [(abs(w), k, name) for k, (name, one) in enumerate(group.items()) for w in one]
        entries = [(size, k, i) for i, (size, k, _) in enumerate(entries)]
        stays = {max(one for one in entries if one[1] == k)[0:2] for k in range(len(group))}
        count = round(share * len(entries))
        candidates = sorted((size, i) for size, k, i in entries if (size, k) not in stays)
        flat = [(name, i) for name, one in group.items() for i in range(len(one))]
        gone |= {flat[i] for _, i in candidates[:count]}
    return gone


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.floats(0.05, 0.95), st.sampled_from(["global", "layer"]), st.integers(1, 7))
def test_magnitude_prunes_what_a_slow_search_would(seed, share, scope, width):
    network = mlp(seed, (3, width, 2))
    matrices = {name: network.get_parameter(name).flatten().tolist() for name in ("0.weight", "2.weight")}
    expected = slowly_pruned(matrices, share, scope)
    left = prune(network, share, Magnitude(), scope=scope)
    masks = {name: masked.mask.mask.flatten().tolist() for name, masked in masks_of(network).items()}
    gone = {(name, i) for name, mask in masks.items() for i, here in enumerate(mask) if not here}
    assert gone == expected
    assert left == density(network) == pytest.approx(1 - len(gone) / (5 * width))


def test_pruning_again_takes_from_what_is_left():
    network = mlp(sizes=(10, 20, 10))
    seen = torch.ones(2, 200, dtype=torch.bool)
    for wanted in (320, 256, 205, 164):
        assert round(prune(network, 0.2) * 400) == wanted
        now = torch.stack([masked.mask.mask.flatten() for masked in masks_of(network).values()])
        assert bool((seen | ~now).all())
        seen = now


def test_each_layer_keeps_its_most_important_weight():
    network = with_values([[0.01, 0.02]], [[5.0], [7.0], [6.0], [8.0]])
    prune(network, 0.95)
    assert values_of(network) == [[[0.0, pytest.approx(0.02)]], [[0.0], [0.0], [0.0], [8.0]]]


def test_gradient_criterion_by_hand():
    """Of ``w . mean(x)`` the terms are 3, 0.2, 4 and 2; the magnitudes would say otherwise."""
    network = with_values([[30.0, 0.2, -1.0, 0.5]])
    inputs = [torch.tensor([[0.2, 2.0, 8.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0, 8.0]])]
    criterion = Gradient(lambda net, x: net(x).sum(), inputs)
    network.train()
    assert prune(network, 0.5, criterion) == 0.5
    assert values_of(network) == [[[30.0, 0.0, -1.0, 0.0]]]
    assert network.training and all(p.grad is None for p in network.parameters())
    assert prune(network, 0.5, criterion) == 0.25
    assert values_of(network) == [[[0.0, 0.0, -1.0, 0.0]]]


def test_structured_prunes_whole_units_and_their_biases():
    network = with_values([[3.0, 4.0], [1.0, 1.0], [0.0, 9.0], [2.0, 2.0]], [[1.0, 1.0, 1.0, 1.0]])
    network[0].bias = nn.Parameter(torch.arange(1.0, 5.0))
    assert prune(network, 0.5, Structured()) == 0.5
    assert values_of(network)[0] == [[3.0, 4.0], [0.0, 0.0], [0.0, 9.0], [0.0, 0.0]]
    assert network[0].bias.tolist() == [1.0, 0.0, 3.0, 0.0]
    assert masks_of(network).keys() == {"0.weight", "0.bias"}
    # One unit stays.
    prune(network, 0.9, Structured())
    assert network[0].bias.tolist() == [0.0, 0.0, 3.0, 0.0]


def test_structured_takes_the_normalisation_along():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
    with torch.no_grad():
        for tensor in network[1].parameters():
            tensor.copy_(torch.arange(1.0, 5.0))
        network[0].weight[2:] *= 0.01
    assert prune(network, 0.5, Structured(("0",))) == 0.5
    assert network[1].weight.tolist() == network[1].bias.tolist() == [1.0, 2.0, 0.0, 0.0]
    assert compacted(network)[3].in_channels == 2


def test_structured_compares_layers_of_unequal_width():
    """By the mean square: the unit with many small weights goes, though their sum is the largest."""
    network = with_values([[0.5] * 16, [4.0] * 16], [[1.0, 1.0], [3.0, 0.0]], [[1.0, 1.0]])
    prune(network, 0.5, Structured(("0", "1")))
    assert values_of(network)[:2] == [[[0.0] * 16, [4.0] * 16], [[0.0, 0.0], [3.0, 0.0]]]


def test_activate_while_pruning_by_hand():
    """Of ten weights three go by magnitude; then, of the negative ones, the two that have moved least."""
    trained = [[0.1, -0.9], [2.0, -1.5], [0.3, -0.2]], [[-2.5, 1.1, -0.8]]
    before = {
        "0.weight": torch.tensor([[0.1, -1.0], [2.0, 0.5], [0.3, -0.2]]),
        "1.weight": torch.tensor([[-2.2, 1.1, -0.75]]),
    }
    network = with_values(*trained)
    network.append(nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        network[2].weight.fill_(4.0)
    before["2.weight"] = torch.tensor([[4.0]])
    options = {"companion": ActivateWhilePruning(0.2), "start": before}
    assert prune(network, 0.5, **options) == 0.5
    # By magnitude 0.1, -0.2 and 0.3; the distances are 0.1, 2.0, 0.3 and 0.05.
    left = [[[0.0, 0.0], [2.0, -1.5], [0.0, 0.0]], [[-2.5, pytest.approx(1.1), 0.0]], [[4.0]]]
    assert values_of(network) == left
    # Of the five that are left two go by magnitude. The one negative weight is the last one of its layer.
    assert prune(network, 0.5, **options) == pytest.approx(0.3)
    assert values_of(network) == [[[0.0, 0.0], [2.0, 0.0], [0.0, 0.0]], [[-2.5, 0.0, 0.0]], [[4.0]]]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.floats(0.1, 0.6), st.floats(0.1, 0.9))
def test_activate_while_pruning_against_a_slow_search(seed, share, part):
    network, start = mlp(seed, (4, 9, 3)), mlp(seed + 1, (4, 9, 3))
    names = ("0.weight", "2.weight")
    now = torch.cat([network.get_parameter(name).detach().flatten() for name in names])
    then = {name: start.get_parameter(name).detach() for name in names}
    moved = (now - torch.cat([one.flatten() for one in then.values()])).abs()
    q = part * share
    by_size = sorted(range(63), key=lambda i: abs(now[i]))[: round((share - q) * 63)]
    negative = [i for i in range(63) if now[i] < 0 and i not in by_size]
    by_distance = sorted(negative, key=lambda i: moved[i])[: round(q * 63)]
    prune(network, share, companion=ActivateWhilePruning(q), start=then)
    mask = torch.cat([masked.mask.mask.flatten() for masked in masks_of(network).values()])
    assert set((~mask).nonzero().flatten().tolist()) == {*by_size, *by_distance}


def test_activate_while_pruning_accompanies_units():
    """Of ten units four go; then of the 40 weights that led to the ten four single ones."""
    network, start = mlp(0, (4, 10, 3)), mlp(1, (4, 10, 3))
    then = {"0.weight": start[0].weight.detach()}
    moved = (network[0].weight - then["0.weight"]).abs().detach()
    prune(network, 0.5, Structured(), companion=ActivateWhilePruning(0.1), start=then)
    gone = ~masks_of(network)["0.weight"].mask.mask
    units = gone.all(1)
    assert int(units.sum()) == 4
    single = gone & ~units[:, None]
    values = masks_of(network)["0.weight"].original
    candidates = moved[(values < 0) & ~units[:, None]].sort().values
    assert moved[single].sort().values.tolist() == candidates[:4].tolist()


@pytest.mark.parametrize("companion", [None, ActivateWhilePruning(0.1)])
def test_cycles_rewind_all_but_the_masks(companion):
    def build():
        return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))

    network, seen = seeded(build), []
    initial = weights(network)

    def train(network, cycle):
        masks = {name: masked.mask.mask.clone() for name, masked in masks_of(network).items()}
        plain = copy.deepcopy(network)
        remove_masks(plain)
        start = {
            name: value.where(masks[name], 0) if name in masks else value for name, value in initial.items()
        }
        assert_same_bits(weights(plain), start)
        seen.append(cycle)
        return fit(network, loss, batches, FitOptions(20, 0.05)).loss

    records = prune_iteratively(network, train, cycles=3, share=0.25, companion=companion)
    assert seen == [record.cycle for record in records] == [0, 1, 2, 3]
    assert [round(32 * record.density) for record in records] == [32, 24, 18, 14] or companion
    assert all(record.metrics < 10 for record in records)
    # The network is left trained.
    assert int(network[1].num_batches_tracked) == 20


def test_without_rewinding_training_goes_on():
    network, starts = mlp(), []

    def train(network, cycle):
        starts.append(network[0].weight.detach().clone())
        with torch.no_grad():
            masks_of(network)["0.weight"].original.add_(1.0)

    prune_iteratively(network, train, cycles=2, share=0.2, rewind=False)
    for before, after in pairwise(starts):
        left = after != 0
        assert torch.allclose(after[left], before[left] + 1.0)


def broken():
    network = mlp()
    with torch.no_grad():
        network[0].weight[0, 0] = math.nan
    return network


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: prune(mlp(), 0.0), "share is 0.0"),
        (lambda: prune(mlp(), 1.0), "share is 1.0"),
        (lambda: prune(mlp(), 0.5, scope="unit"), "scope is 'unit'; 'global' and 'layer'"),
        (lambda: prune(nn.Identity(), 0.5), "no parameter of two axes"),
        (lambda: prune(broken(), 0.5), "0.weight: weights or their gradients are not finite"),
        (lambda: prune(mlp(), 0.1, companion=ActivateWhilePruning(0.1), start={}), "must be less than"),
        (lambda: prune(mlp(), 0.1, companion=ActivateWhilePruning()), "companion needs start"),
        (
            lambda: prune(mlp(), 0.1, companion=ActivateWhilePruning(), start={"0.weight": torch.ones(6, 3)}),
            "no values of the right shape for 2.weight, 4.weight",
        ),
        (lambda: ActivateWhilePruning(0.0), "share is 0.0"),
        (lambda: prune(mlp(), 0.5, Gradient(loss, [])), "batches are empty"),
        (lambda: prune(line(), 0.5, Structured()), "no layer whose units can be cut out"),
        (lambda: prune(mlp(), 0.5, Structured(("1",))), "1 is ReLU; linear layers and convolutions"),
        (lambda: prune(mlp(), 0.5, Structured(("6",))), "no layer '6'"),
        (lambda: prune_iteratively(mlp(), print, cycles=0), "cycles is 0"),
    ],
)
def test_what_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
