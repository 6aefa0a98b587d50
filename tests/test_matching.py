"""Units that may change places, and the order in which one network is nearest to another."""

import ctypes
import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from learnsolve.methods.dcdm_network import NetworkOptions
from learnsolve.training.connectivity import barrier
from learnsolve.training.matching import match, permuted
from learnsolve.training.symmetries import symmetries


def filled(network, seed=0):
    """Double precision, and no parameter or buffer that is the same for all units."""
    generator = torch.Generator().manual_seed(seed)
    network = network.double().eval()
    with torch.no_grad():
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            if tensor.is_floating_point():
                values = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
                # Variances are positive.
                tensor.copy_(values + 0.5 if "var" in name else values - 0.5)
    return network


def shuffled(network, example, seed=0):
    """The network with all units that may change places in other places, and these orders."""
    generator = torch.Generator().manual_seed(seed)
    orders = {
        name: replace(units, order=torch.randperm(len(units.order), generator=generator))
        for name, units in symmetries(network, example).items()
    }
    return permuted(network, orders), orders


class Residual(nn.Module):
    """A stream with two branches, a gate that is softmaxed, and a mean over space."""

    def __init__(self):
        super().__init__()
        self.enter, self.first, self.second = nn.Conv2d(2, 5, 3), nn.Conv2d(5, 4, 1), nn.Conv2d(4, 5, 1)
        self.same, self.norm = nn.Conv2d(5, 5, 3, padding=1), nn.GroupNorm(1, 5)
        self.scale, self.leave = nn.Parameter(torch.ones(5)), nn.Linear(5, 3)

    def forward(self, x):
        h = self.enter(x)
        h = h + self.second(torch.sigmoid(self.first(h)))
        h = h + functional.gelu(self.same(self.norm(h)))
        h = h * self.scale.view(-1, 1, 1) * functional.softmax(h, 1)
        return self.leave(h.mean((2, 3)))


class Mixer(nn.Module):
    """Layers across two axes by turns, one of them applied twice, and products with parameters."""

    def __init__(self):
        super().__init__()
        self.features, self.along, self.back = nn.Linear(3, 6), nn.Linear(4, 5), nn.Linear(5, 4)
        self.twice, self.W, self.leave = nn.Linear(6, 6), nn.Parameter(torch.ones(6, 7)), nn.Linear(7, 2)

    def forward(self, x):
        h = self.features(x)
        h = self.back(self.along(h.transpose(1, 2)).exp()).mT
        h = self.twice(self.twice(h).relu())
        return self.leave(1 - (2 * h) @ self.W)


class Rolled(nn.Module):
    """A recurrence whose first state is zero."""

    def __init__(self):
        super().__init__()
        self.take, self.leave = nn.Linear(3, 5), nn.Linear(5, 2)
        self.keep = nn.Linear(5, 5)

    def forward(self, x):
        h = self.take(x[:, 0]).tanh()
        for k in range(1, x.shape[1]):
            h = torch.tanh(self.take(x[:, k]) + self.keep(h))
        return {"last": self.leave(h), "count": 3}


# Name: the network, the shape that it takes, and its sets of units.
NETWORKS = {
    "plain": (
        lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)),
        (7, 3),
        {"0": 5, "2": 4},
    ),
    "normalised": (
        lambda: nn.Sequential(
            nn.Linear(3, 5), nn.BatchNorm1d(5), nn.PReLU(5), nn.Linear(5, 4, bias=False), nn.LayerNorm(4),
            nn.SiLU(), nn.Dropout(), nn.Linear(4, 6), nn.RMSNorm(6), nn.ELU(), nn.Linear(6, 2),
        ),
        (7, 3),
        {"0": 5, "3": 4, "7": 6},
    ),
    "images": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, bias=False),
            nn.InstanceNorm2d(6, affine=True), nn.Flatten(), nn.Linear(24, 5), nn.ReLU(), nn.Linear(5, 2),
        ),
        (2, 2, 10, 10),
        {"0": 4, "4": 6, "7": 5},
    ),
    "one axis": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 4, 3), nn.LeakyReLU(), nn.AvgPool1d(2), nn.ConvTranspose1d(4, 3, 2), nn.Softplus(),
            nn.Conv1d(3, 2, 1),
        ),
        (2, 2, 9),
        {"0": 4, "3": 3},
    ),
    "three axes": (
        lambda: nn.Sequential(nn.Conv3d(1, 4, 2), nn.GELU(), nn.AdaptiveAvgPool3d(1), nn.Conv3d(4, 2, 1)),
        (2, 1, 3, 4, 5),
        {"0": 4},
    ),
    "groups": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 6, 3), nn.GroupNorm(3, 6), nn.ReLU(), nn.Conv1d(6, 9, 2, groups=3), nn.ReLU(),
            nn.Conv1d(9, 9, 2, groups=9), nn.ReLU(), nn.ConvTranspose1d(9, 3, 2, groups=3),
            nn.Conv1d(3, 2, 1),
        ),
        (2, 2, 12),
        {"0": 3, "0/2": 2, "3": 3},
    ),
    "residual": (Residual, (2, 2, 8, 8), {"enter": 5, "first": 4}),
    "mixer": (Mixer, (2, 4, 3), {"features": 6, "along": 5, "W": 7}),
    "recurrent": (Rolled, (4, 5, 3), {"take": 5}),
    "directions": (
        NetworkOptions(dims=2, channels=6).build,
        (1, 1, 9, 12),
        {
            "enter": 6, "before.0.first": 6, "down.0.first": 6, "down.1.first": 6, "up.0.first": 6,
            "up.1.first": 6, "after.0.first": 6,
        },
    ),
}  # fmt: skip


def made(name, seed=0):
    build, shape, _ = NETWORKS[name]
    generator = torch.Generator().manual_seed(seed + 100)
    return filled(build(), seed), torch.randn(shape, generator=generator, dtype=torch.float64)


def value(network, x):
    found = network(x)
    return found["last"] if isinstance(found, dict) else found


@pytest.mark.parametrize("name", NETWORKS)
def test_sets_of_units(name):
    network, x = made(name)
    assert {key: len(units.order) for key, units in symmetries(network, x).items()} == NETWORKS[name][2]


@pytest.mark.parametrize("name", NETWORKS)
def test_units_change_places_and_the_function_does_not(name):
    network, x = made(name)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    turned, orders = shuffled(network, x)
    torch.testing.assert_close(value(turned, x), value(network, x), rtol=1e-9, atol=1e-11)
    for units in orders.values():
        for place in units.places:
            assert not torch.equal(turned.state_dict()[place.tensor], before[place.tensor])
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", NETWORKS)
def test_each_set_may_change_alone(name):
    network, x = made(name)
    for key, units in symmetries(network, x).items():
        turned = permuted(network, {key: replace(units, order=units.order.flip(0))})
        torch.testing.assert_close(value(turned, x), value(network, x), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_matched_to_its_own_permutation(name):
    network, x = made(name)
    turned, _ = shuffled(network, x, seed=3)

    def loss(network):
        return value(network, x).square().mean()

    assert barrier(network, turned, loss, points=3).excess.abs().max() > 1e-6
    back = permuted(turned, match(network, turned, x, generator=torch.Generator().manual_seed(0)))
    for key, tensor in network.state_dict().items():
        assert torch.equal(back.state_dict()[key], tensor), key
    found = barrier(network, back, loss)
    assert found.height <= 1e-12 * (1 + found.ends[0])


def test_places_of_a_flattened_image():
    network = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten(), nn.Linear(12, 2))
    units = symmetries(network, torch.ones(1, 1, 3, 3))["0"]
    assert units.places == (("0.weight", 0, 1), ("0.bias", 0, 1), ("2.weight", 1, 1))
    turned = permuted(network, {"0": replace(units, order=torch.tensor([2, 0, 1]))})
    columns = torch.tensor([8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 6, 7])
    assert torch.equal(turned[2].weight, network[2].weight[:, columns])


def test_what_goes_with_input_or_output_stays():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.stay, self.inner, self.back = nn.Linear(4, 4), nn.Linear(4, 6), nn.Linear(6, 4)

        def forward(self, x):
            return x + self.back(self.inner(x + self.stay(x)).relu())

    assert {name: len(units.order) for name, units in symmetries(Skip(), torch.ones(1, 4)).items()} == {
        "inner": 6
    }
    assert symmetries(nn.Linear(3, 3), torch.ones(1, 3)) == {}
    assert match(nn.Linear(3, 3), nn.Linear(3, 3), torch.ones(1, 3)) == {}


def test_a_function_that_is_not_known_of_the_input_alone_holds_its_parameters():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.cells = nn.Embedding(7, 4), nn.LSTM(4, 5, batch_first=True)
            self.inner, self.leave = nn.Linear(5, 6), nn.Linear(6, 2)

        def forward(self, tokens):
            return self.leave(self.inner(self.cells(self.table(tokens))[0]).relu())

    found = symmetries(Tokens(), torch.zeros(2, 3, dtype=torch.int64))
    assert {name: len(units.order) for name, units in found.items()} == {"inner": 6}


class Copied(torch.autograd.Function):
    """By code that does not call torch, as a compiled kernel."""

    @staticmethod
    def forward(ctx, x):
        value = torch.empty(x.shape)
        ctypes.memmove(value.data_ptr(), x.data_ptr(), x.numel() * x.element_size())
        return value

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Calls(nn.Module):
    def __init__(self, function, width=4):
        super().__init__()
        self.enter, self.leave, self.function = nn.Linear(3, 4), nn.Linear(width, 2), function

    def forward(self, x):
        return self.leave(self.function(self.enter(x)))


class Inner(nn.Module):
    def forward(self, x):
        return torch.cat([x, x], -1)


def written(h):
    empty = torch.zeros(len(h), 4)
    empty[:] = h
    return empty


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Calls(Inner(), 8), r"symmetries of function \(Inner\) cannot be derived: .* meet torch.cat"),
        (
            nn.Sequential(nn.Linear(3, 4), nn.TransformerEncoderLayer(4, 2, 8), nn.Linear(4, 2)),
            r"1.self_attn \(MultiheadAttention\)",
        ),
        (Calls(Copied.apply), r"the network \(Calls\) .* a function outside of torch"),
        (Calls(lambda h: h[:, :2], 2), r"the network \(Calls\) .* meet torch.Tensor.__getitem__"),
        (Calls(lambda h: h.cumsum(-1)), "cumsum"),
        (Calls(written), "__setitem__"),
        (Calls(lambda h: torch.from_numpy(h.detach().numpy())), "numpy"),
        (Calls(lambda h: functional.pad(h, (1, 0)), 5), "pad"),
        (Calls(lambda h: functional.avg_pool1d(h, 2), 2), "avg_pool1d"),
        (Calls(lambda h: h.narrow(1, 0, 3), 3), "narrow"),
        (
            nn.Sequential(nn.Linear(3, 6), nn.GroupNorm(2, 6), nn.GroupNorm(3, 6)),
            r"2 \(GroupNorm\) .* group_norm",
        ),
    ],
)
def test_what_is_not_known_is_refused(network, words):
    with pytest.raises(ValueError, match=words):
        symmetries(network, torch.ones(2, 3))


def test_parameters_that_the_run_does_not_meet_are_refused():
    """On a grid that is not pooled a recursive network leaves out all that it does on coarser ones."""
    network = NetworkOptions(dims=2, channels=4, coarsest=4).build()
    with pytest.raises(ValueError, match=r"down\.0\.first\.weight.*the run with the example does not meet"):
        symmetries(network, torch.ones(1, 1, 4, 4))
    assert "down.0.first" in symmetries(network, torch.ones(1, 1, 8, 8))


def test_an_output_without_tensors_is_refused():
    class Strange(nn.Linear):
        def forward(self, x):
            return {1, 2}

    with pytest.raises(ValueError, match="the network returns a set"):
        symmetries(Strange(3, 2), torch.ones(1, 3))


def agreement(one, other):
    return sum((p * q).sum().item() for p, q in zip(one.parameters(), other.parameters(), strict=True))


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6))
def test_one_hidden_layer_gets_the_best_of_all_orders(seed):
    build = NETWORKS["plain"][0]
    a, b = (filled(nn.Sequential(*list(build())[2:]), seed + k) for k in (0, 1))
    x = torch.ones(1, 5, dtype=torch.float64)
    units = symmetries(a, x)["0"]
    all_orders = [
        permuted(b, {"0": replace(units, order=torch.tensor(order))})
        for order in itertools.permutations(range(4))
    ]
    found = permuted(b, match(a, b, x))
    assert agreement(a, found) == pytest.approx(max(agreement(a, one) for one in all_orders), abs=1e-12)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6))
def test_no_order_gains_alone(seed):
    a, x = made("residual", seed)
    b, _ = made("residual", seed + 1)
    found = match(a, b, x, generator=torch.Generator().manual_seed(seed))
    reached = agreement(a, permuted(b, found))
    assert reached >= agreement(a, b) - 1e-12
    for order in itertools.permutations(range(4)):
        changed = found | {"first": replace(found["first"], order=torch.tensor(order))}
        assert agreement(a, permuted(b, changed)) <= reached + 1e-12


def test_a_generator_draws_and_the_global_one_is_left_alone():
    a, x = made("directions")
    b, _ = made("directions", 1)
    before = torch.get_rng_state()
    runs = [match(a, b, x, generator=torch.Generator().manual_seed(seed)) for seed in (4, 4)]
    assert all(torch.equal(units.order, runs[1][name].order) for name, units in runs[0].items())
    assert torch.equal(torch.get_rng_state(), before)


def test_single_precision_is_kept():
    network = filled(NETWORKS["images"][0]()).float()
    x = torch.rand(2, 2, 10, 10, generator=torch.Generator().manual_seed(0))
    turned, _ = shuffled(network, x)
    assert all(p.dtype == torch.float32 for p in turned.parameters())
    torch.testing.assert_close(turned(x), network(x), rtol=1e-4, atol=1e-5)


def test_what_is_refused():
    a, x = made("plain")
    units = symmetries(a, x)["0"]
    with pytest.raises(ValueError, match=r"second: lacks 4.bias, 4.weight"):
        match(a, a[:4], x)
    with pytest.raises(ValueError, match=r"second: 0.weight has shape \(6, 3\), expected \(5, 3\)"):
        match(a[:1], nn.Sequential(nn.Linear(3, 6)), x)
    broken = filled(NETWORKS["plain"][0]())
    nn.init.constant_(broken[2].bias, torch.nan)
    with pytest.raises(ValueError, match=r"2.bias of one of the networks holds NaN"):
        match(a, broken, x)
    with pytest.raises(ValueError, match=r"order of 0 is \[0, 0, 1, 2, 3\]"):
        permuted(a, {"0": replace(units, order=torch.tensor([0, 0, 1, 2, 3]))})
    with pytest.raises(ValueError, match="the network has no tensor at"):
        permuted(nn.Linear(3, 5), {"0": units})
    with pytest.raises(ValueError, match=r"the network has \(4, 3\) at"):
        permuted(nn.Sequential(nn.Linear(3, 4)), {"0": units})
