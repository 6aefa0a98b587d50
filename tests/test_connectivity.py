"""Barriers between networks, what second derivatives say of them, and averages of networks."""

import copy
import math
import pickle
from functools import cache

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.autograd.functional import hessian, jacobian
from torch.func import functional_call
from torch.optim.swa_utils import update_bn

from learnsolve.problems.digits import digits
from learnsolve.training.connectivity import (
    averaged,
    barrier,
    barrier_estimate,
    judged,
    layer_barriers,
    layer_estimates,
    layers_of,
)  # fmt: skip
from learnsolve.training.matching import match, permuted
from learnsolve.training.merging import MergeError, merge
from tests.digit_classifiers import correct, held_out, trained


class Numbers(nn.Module):
    """Two parameters, each a layer."""

    def __init__(self, x, y):
        super().__init__()
        self.x = nn.Parameter(torch.tensor(x, dtype=torch.float64))
        self.y = nn.Parameter(torch.tensor(y, dtype=torch.float64))


def product(network):
    return (network.x * network.y - 1).square()


def wells(network):
    return (network.x.square() - 1).square() + (network.y.square() - 1).square()


def small(seed, *, kind=nn.Tanh, buffers=False):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        norm = [nn.BatchNorm1d(4)] if buffers else []
        network = nn.Sequential(nn.Linear(3, 4), *norm, kind(), nn.Linear(4, 2)).double()
        if buffers:
            for _ in range(seed + 1):
                network(torch.randn(8, 3, dtype=torch.float64))
        return network


X = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = X[:, :2].sin()


def squares(network):
    return (network(X) - Y).square().mean()


def same(one, other):
    return all(torch.equal(p, other.state_dict()[name]) for name, p in one.state_dict().items())


def test_barrier_of_a_product():
    """(x y - 1)^2 from (1, 1) to (-1, -1), where it is ((1 - 2 a)^2 - 1)^2 = (4 a (1 - a))^2."""
    found = barrier(Numbers(1.0, 1.0), Numbers(-1.0, -1.0), product, points=5)
    assert found.alphas.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.curve.tolist() == [0, 0.5625, 1, 0.5625, 0] == found.excess.tolist()
    assert (found.height, found.alpha, found.middle, found.bend, found.ends) == (1, 0.5, 1, 1, (0, 0))


def test_chord_of_ends_that_differ():
    found = barrier(Numbers(0.0, 1.0), Numbers(2.0, 1.0), lambda n: n.x.square(), points=3)
    assert found.ends == (0, 4) and found.curve.tolist() == [0, 1, 4]
    assert found.excess.tolist() == [0, -1, 0]
    assert (found.height, found.middle) == (0, -1)


def test_barrier_of_a_layer():
    """With y = 1, x goes from 1 to -1: the loss is (2 a)^2, convex, but both networks have none."""
    found = layer_barriers(Numbers(1.0, 1.0), Numbers(-1.0, -1.0), product, points=5)
    assert list(found) == ["x", "y"]
    assert found["x"].curve.tolist() == [0, 0.25, 1, 2.25, 4]
    assert (found["x"].height, found["x"].alpha) == (4, 1)
    assert (found["x"].middle, found["x"].bend) == (1, -1)


def test_estimates_of_a_product():
    """Quadratic in each layer, where they are exact; in both a quartic double well, where twice too large."""
    a, b = Numbers(1.0, 1.0), Numbers(-1.0, -1.0)
    assert layer_estimates(a, b, product) == {"x": 1, "y": 1}
    assert layer_estimates(a, b, product, around="middle") == {"x": -1, "y": -1}
    assert barrier_estimate(a, b, product) == 2
    assert barrier_estimate(a, b, product, layers=["x", "y"]) == 2


@pytest.mark.parametrize("layers", [None, ["0"], ["2"]])
def test_estimates_against_the_matrix_of_second_derivatives(layers):
    a, b = small(0), small(1)
    names = [name for layer in layers or layers_of(a) for name in layers_of(a)[layer]]
    ends = [dict(network.named_parameters()) for network in (a, b)]
    d = torch.cat([(ends[1][name] - ends[0][name]).detach().flatten() for name in names])

    def curved(network):
        moving = {name: dict(network.named_parameters())[name].detach() for name in names}

        def loss(vector):
            parts = vector.split([p.numel() for p in moving.values()])
            put = {name: part.view_as(p) for part, (name, p) in zip(parts, moving.items(), strict=True)}
            return (functional_call(network, put, (X,)) - Y).square().mean()

        vector = torch.cat([p.flatten() for p in moving.values()])
        gradient = jacobian(loss, vector)
        return float(gradient @ d), float(d @ hessian(loss, vector) @ d)

    middle = averaged([a, b], [0.5, 0.5], layers=layers)
    slope, curvature = curved(a)
    expected = (judged(a, squares) - judged(b, squares)) / 2 + slope / 2 + curvature / 8
    found = barrier_estimate(a, b, squares, layers=layers, around="start")
    assert found == pytest.approx(expected, rel=1e-10)
    found = barrier_estimate(a, b, squares, layers=layers)
    assert found == pytest.approx(-curved(middle)[1] / 8, rel=1e-10)


@pytest.mark.parametrize("layers", [None, ["0"]])
def test_the_estimate_of_the_bend_is_of_fourth_order(layers):
    def error(size):
        total = 0.0
        for seed in range(4):
            a = small(seed)
            b = averaged([a, small(seed + 1)], [1, size])
            bend = barrier(a, b, squares, points=3, layers=layers).bend
            total += abs(bend - barrier_estimate(a, b, squares, layers=layers))
        return total

    assert 12 < error(0.2) / error(0.1) < 20


def test_a_loss_without_curvature():
    assert barrier_estimate(Numbers(0.0, 0.0), Numbers(1.0, 1.0), lambda n: n.x + 2 * n.y) == 0
    start = barrier_estimate(Numbers(0.0, 0.0), Numbers(1.0, 1.0), lambda n: n.x + 2 * n.y, around="start")
    assert start == 0


def test_networks_are_left_alone_and_judged_as_they_are_used():
    a, b = small(0, kind=nn.Dropout), small(1, kind=nn.Dropout)
    copies, state = [copy.deepcopy(a), copy.deepcopy(b)], torch.get_rng_state()
    one, other = (barrier(a, b, squares, points=3) for _ in range(2))
    barrier_estimate(a, b, squares)
    assert torch.equal(one.curve, other.curve) and torch.equal(torch.get_rng_state(), state)
    assert same(a, copies[0]) and same(b, copies[1]) and a.training
    assert all(p.grad is None for p in a.parameters())


def test_buffers_move_and_counts_do_not():
    a, b = small(0, buffers=True), small(2, buffers=True)
    middle = averaged([a, b], [0.5, 0.5])
    assert torch.equal(middle[1].running_var, (a[1].running_var + b[1].running_var) / 2)
    assert middle[1].num_batches_tracked == 1 != b[1].num_batches_tracked
    layer = averaged([a, b], [0.5, 0.5], layers=["3"])
    assert torch.equal(layer[1].running_mean, a[1].running_mean) and not same(layer[3], a[3])
    assert "1.running_mean" in layers_of(a)["1"]
    assert math.isfinite(barrier_estimate(a, b, squares))


def test_statistics_made_anew_within_the_loss():
    a, b = small(0, buffers=True), small(2, buffers=True)
    before = copy.deepcopy(a)

    def renewed(network):
        update_bn([X], network)
        return squares(network)

    by_hand = averaged([a, b], [0.5, 0.5])
    update_bn([X], by_hand)
    found = barrier(a, b, renewed, points=3)
    assert found.curve[1].item() == pytest.approx(squares(by_hand.eval()).item())
    assert same(a, before)


def test_a_loss_that_is_not_finite_between():
    found = barrier(Numbers(1.0, 1.0), Numbers(-1.0, 1.0), lambda n: n.x.abs().log() + 0 / n.x, points=3)
    assert found.height == math.inf and found.alpha == 0.5


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: barrier(small(0), small(0)[:1], squares), ValueError, "second: lacks 2.bias, 2.weight"),
        (lambda: barrier(small(0), small(0), squares, points=4), ValueError, "points is 4; an odd number"),
        (lambda: barrier(small(0), small(0), squares, points=1), ValueError, "points is 1"),
        (lambda: barrier(small(0), small(0), squares, layers=["1"]), ValueError, "some of 0, 2 is accepted"),
        (lambda: barrier(small(0), small(0), squares, layers="0"), ValueError, "layers is '0'; a sequence"),
        (lambda: barrier(small(0), small(0), lambda n: math.nan), ValueError, "are nan and nan; both must"),
        (lambda: barrier_estimate(small(0), small(0), squares, around="end"), ValueError, "around is 'end'"),
        (lambda: barrier_estimate(small(0), small(0), lambda n: 1.0), TypeError, "a scalar tensor"),
        (lambda: barrier_estimate(small(0), small(0), lambda n: n(X)), TypeError, "a scalar tensor"),
        (lambda: merge([small(0)], loss=squares, accept=1), ValueError, "there are 1 networks; at least 2"),
        (
            lambda: merge([small(0), small(1)], loss=squares, accept=1, weights=[1, 0]),
            ValueError,
            r"weights are \[1.0, 0.0\]; 2 positive numbers",
        ),
        (
            lambda: merge([small(0), small(1)], loss=squares, accept=1, weights=[1]),
            ValueError,
            "2 positive numbers",
        ),
        (lambda: merge([small(0), small(1)], loss=squares, accept=-1), ValueError, "accept is -1"),
        (lambda: merge([small(0), small(1)], loss=squares, accept=math.nan), ValueError, "accept is nan"),
        (
            lambda: merge([small(0), small(1)], loss=squares, accept=1, layers="0"),
            ValueError,
            "'all' and 'auto' are accepted",
        ),
        (lambda: merge([small(0), small(0)[:1]], loss=squares, accept=1), ValueError, "do not fit"),
        (lambda: merge([small(0), small(1)], loss=lambda n: math.inf, accept=1), ValueError, "be finite"),
        (
            lambda: merge([Numbers(1.0, 1.0), Numbers(1.0, 1.0)], loss=product, accept=1),
            ValueError,
            "loss does not call the network",
        ),
        (
            lambda: merge([small(0), small(1)], loss=lambda n: n(input=X).sum(), accept=1),
            ValueError,
            "or names its arguments",
        ),
    ],
)
def test_what_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_merge_averages_by_weights():
    a, b, c = (averaged([small(0), small(k)], [1, 0.01 * k]) for k in (1, 2, 3))
    merged, report = merge([a, b, c], loss=squares, accept=0.01, align=False, weights=[2, 1, 1])
    for name, parameter in merged.named_parameters():
        ends = [dict(network.named_parameters())[name] for network in (a, b, c)]
        torch.testing.assert_close(parameter, ends[0] / 2 + ends[1] / 4 + ends[2] / 4)
    assert report.weights == (0.5, 0.25, 0.25) and report.layers == ("0", "2")
    assert report.losses == tuple(judged(network, squares) for network in (a, b, c))
    assert report.loss == pytest.approx(judged(merged, squares))
    mean = sum(w * value for w, value in zip(report.weights, report.losses, strict=True))
    assert report.barrier == pytest.approx(report.loss - mean)
    assert merged.training and report.layer_barriers == {}


def test_merge_refuses_what_costs_too_much():
    networks = [Numbers(-1.0, 1.0), Numbers(1.0, 1.0)]
    with pytest.raises(MergeError, match=r"of the average is 1, and at most 0.5 is accepted") as caught:
        merge(networks, loss=wells, accept=0.5, align=False)
    assert caught.value.report.barrier == 1 and caught.value.report.layers == ("x", "y")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert merge(networks, loss=wells, accept=1, align=False)[1].barrier == 1
    with pytest.raises(MergeError, match="barrier of the average is inf"):
        merge(networks, loss=lambda n: n.x.abs().log(), accept=1e9, align=False)


def test_auto_averages_the_layers_that_may_be():
    networks = [Numbers(-1.0, 1.0), Numbers(1.0, 1.0)]
    merged, report = merge(networks, loss=wells, accept=0.5, align=False, layers="auto")
    assert (merged.x.item(), merged.y.item()) == (-1, 1)
    assert report.layers == ("y",) and report.layer_barriers == {"x": 1, "y": 0} and report.barrier == 0


def test_auto_adds_layers_while_all_together_may_be():
    networks = [Numbers(-1.0, -1.0), Numbers(1.0, 0.9)]
    merged, report = merge(networks, loss=wells, accept=1.5, align=False, layers="auto")
    assert report.layers == ("y",) and 0 < report.layer_barriers["y"] < report.layer_barriers["x"] < 1.5
    assert merged.x.item() == -1 and merged.y.item() == pytest.approx(-0.05)
    with pytest.raises(MergeError, match=r"the least barrier of a layer is 0.97.*, and at most 0.1"):
        merge(networks, loss=wells, accept=0.1, align=False, layers="auto")


PAIRS = [(0, 1), (1, 2), (2, 0)]


@cache
def aligned(one, other):
    a, b = trained(one, one), trained(other, other)
    return permuted(b, match(a, b, digits("learned")[0][:1]))


@pytest.mark.parametrize("pair", PAIRS)
def test_alignment_takes_the_barrier_between_classifiers_of_digits(pair):
    a, b = (trained(k, k) for k in pair)
    assert min(correct(a), correct(b)) > 0.95
    assert barrier(a, b, held_out, points=11).height >= 0.3
    found = barrier(a, aligned(*pair), held_out, points=11)
    assert found.height <= 0.05
    before, after = (correct(averaged([a, other], [0.5, 0.5])) for other in (b, aligned(*pair)))
    assert after > max(before, 0.95)


def test_merged_classifiers_of_digits():
    networks = [trained(k, k) for k in range(3)]
    with pytest.raises(MergeError):
        merge(networks, loss=held_out, accept=0.3, align=False)
    merged, report = merge(networks, loss=held_out, accept=0.1, generator=torch.Generator().manual_seed(0))
    assert report.barrier < 0.1 and correct(merged) > 0.93
    partly, report = merge(networks[:2], loss=held_out, accept=0.12, align=False, layers="auto")
    assert 0 < len(report.layers) < 3 and judged(partly, held_out) == pytest.approx(report.loss)


@pytest.mark.parametrize("around", ["start", "middle"])
def test_layer_barriers_are_predicted(around):
    """From the start what an average of one layer costs, from the middle how the loss bends on the way."""
    predicted, measured = [], []
    for pair in PAIRS:
        for b in (trained(pair[1], pair[1]), aligned(*pair)):
            for ends in ((trained(pair[0], pair[0]), b), (b, trained(pair[0], pair[0]))):
                predicted += layer_estimates(*ends, held_out, around=around).values()
                found = layer_barriers(*ends, held_out).values()
                measured += [one.middle if around == "start" else one.bend for one in found]
    assert len(measured) == 36 and spearmanr(predicted, measured).statistic >= 0.7
