"""Sparse linear layers, and networks from which idle units are cut out."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from learnsolve.methods.dcdm_network import NetworkOptions
from learnsolve.training import FitOptions, fit, load_weights, save_weights
from learnsolve.training.compaction import compacted
from learnsolve.training.criteria import Structured
from learnsolve.training.pruning import prune
from learnsolve.training.sparse_linear import SparseLinear
from learnsolve.training.unit_chains import unit_chains
from tests.pruning_cases import mlp, seeded, with_values
from tests.training_cases import assert_same_bits, batches, weights

# Sparse linear layers


@pytest.mark.parametrize("shape", [(1,), (5,), (0,), (2, 3), (), (1, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_sparse_linear_is_the_dense_one(shape, bias):
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(6, 9, dtype=torch.double, generator=generator)
    weight *= torch.rand(6, 9, generator=generator) < 0.3
    weight[2], weight[:, 4] = 0, 0
    offset = torch.randn(6, dtype=torch.double, generator=generator) if bias else None
    layer = SparseLinear(weight, offset)
    x = torch.randn(*shape, 9, dtype=torch.double, generator=generator, requires_grad=True)
    y, expected = layer(x), functional.linear(x, weight, offset)
    assert y.shape == expected.shape and torch.allclose(y, expected)

    def called(x, values):
        return torch.func.functional_call(layer, {"values": values}, x)

    assert torch.autograd.gradcheck(called, (x, layer.values))


def test_sparse_linear_without_entries():
    layer = SparseLinear(torch.zeros(2, 3), torch.ones(2))
    assert layer(torch.ones(4, 3)).tolist() == [[1.0, 1.0]] * 4
    layer(torch.ones(4, 3)).sum().backward()
    assert layer.values.grad.shape == (0,)


def test_sparse_linear_loads_another_structure(tmp_path):
    one, other = (SparseLinear(torch.tensor(w)) for w in ([[0.0, 2.0], [3.0, 0.0]], [[4.0, 5.0], [0.0, 0.0]]))
    save_weights(tmp_path / "one.safetensors", one)
    load_weights(tmp_path / "one.safetensors", other)
    x = torch.tensor([[1.0, 10.0]], requires_grad=True)
    assert other(x).tolist() == [[20.0, 3.0]]
    other(x).sum().backward()
    assert x.grad.tolist() == [[3.0, 2.0]]


def test_sparse_linear_is_trained_by_fit():
    network = SparseLinear(torch.tensor([[1.0, 0.0, 1.0]]), torch.zeros(1))

    def sum_of_two(net, batch):
        return functional.mse_loss(net(batch[0]), batch[0][:, :1] - batch[0][:, 2:])

    assert fit(network, sum_of_two, batches, FitOptions(200, 0.1)).loss < 1e-4
    assert torch.allclose(network.values, torch.tensor([1.0, -1.0]), atol=0.01)


@pytest.mark.parametrize(
    ("buffer", "value"),
    [
        ("indptr", 3),
        ("indptr", -1),
        ("indices", 2),
        ("indices", -1),
        ("columns", 9),
        ("rows", 5),
        ("order", 7),
    ],
)
def test_no_kernel_reads_what_a_damaged_file_points_at(buffer, value, tmp_path):
    one, other = (SparseLinear(torch.tensor([[0.0, 2.0], [3.0, 0.0]])) for _ in range(2))
    one(torch.ones(1, 2))
    getattr(one, buffer)[1] = value
    save_weights(tmp_path / "damaged.safetensors", one)
    load_weights(tmp_path / "damaged.safetensors", other)
    for layer in (one, other):
        with pytest.raises(ValueError, match="not a matrix in compressed rows"):
            layer(torch.ones(1, 2))


def test_what_sparse_linear_refuses():
    with pytest.raises(ValueError, match=r"\[\(2, 3\), \(3,\)\]"):
        SparseLinear(torch.ones(2, 3), torch.ones(3))
    with pytest.raises(ValueError, match=r"x has shape \(2, 2\); \(\.\.\., 3\)"):
        SparseLinear(torch.ones(2, 3))(torch.ones(2, 2))


# Compaction


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.inner, self.leave = nn.Linear(3, 8), nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x, scale=None):
        h = self.enter(x)
        h = h + self.leave(functional.leaky_relu(self.inner(h), 0.2))
        return h if scale is None else h * scale


class Untraceable(nn.Module):
    """Its forward pass depends on its input; those of its parts do not."""

    def __init__(self):
        super().__init__()
        self.enter, self.blocks, self.leave = (
            nn.Linear(3, 8),
            nn.ModuleList([mlp(1, (8, 7, 8))]),
            nn.Linear(8, 2),
        )

    def forward(self, x):
        h = self.enter(x)
        for block in self.blocks:
            h = h + block(h) if bool(h.sum() > -1e9) else h
        return self.leave(h)


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.SiLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 6, 3, padding=1), nn.InstanceNorm2d(6), nn.ReLU(inplace=True),
        nn.Conv2d(6, 5, 2), nn.Sigmoid(), nn.Conv2d(5, 4, 1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 9, 9),
        nn.GELU(), nn.Dropout(), nn.Linear(9, 2, bias=False),
    )  # fmt: skip


PAIRS = ("before.0", "after.0", "down.0", "down.1", "up.0", "up.1")
CASES = {
    "mlp": (lambda: mlp(0, (3, 12, 9, 2)), (5, 3), {("0", "2"), ("2", "4")}),
    "normalised": (
        lambda: nn.Sequential(nn.Linear(3, 9), nn.BatchNorm1d(9), nn.Softplus(), nn.Linear(9, 2)),
        (5, 3),
        {("0", "3")},
    ),
    "convolutional": (
        convolutional,
        (4, 1, 10, 10),
        {("0", "4"), ("4", "7"), ("7", "9"), ("9", "12"), ("12", "15")},
    ),
    "residual": (Residual, (5, 3), {("inner", "leave")}),
    "untraceable": (Untraceable, (5, 3), {("blocks.0.0", "blocks.0.2")}),
    "recursive": (
        NetworkOptions(dims=2, channels=6).build,
        (1, 1, 12, 9),
        {(f"{pair}.first", f"{pair}.second") for pair in PAIRS},
    ),
}  # fmt: skip


def shaken(build, seed=0):
    """A network in double precision whose every number is random, running statistics too."""
    network = seeded(build).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.normal_(generator=generator).mul_(0.5)
                if name.endswith("running_var"):
                    tensor.square_().add_(0.1)
    return network.eval(), generator


def size(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("case", CASES)
def test_where_units_can_be_cut(case):
    build, _, expected = CASES[case]
    network = build()
    assert {(chain.producer, chain.consumer) for chain in unit_chains(network)} == expected
    prune(network, 0.3)
    assert {(chain.producer, chain.consumer) for chain in unit_chains(network)} == expected


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["structured", "entries"])
def test_a_compacted_network_computes_the_same(case, seed, kind):
    build, shape, _ = CASES[case]
    network, generator = shaken(build, seed)
    prune(network, *((0.5, Structured()) if kind == "structured" else (0.9,)))
    x = torch.randn(shape, dtype=torch.double, generator=generator)
    before = weights(network)
    with torch.no_grad():
        expected = network(x)
        small = compacted(network, smallest=0, sparse_below=0.2)
        assert torch.allclose(small(x), expected, rtol=1e-10, atol=1e-12)
    assert_same_bits(weights(network), before)
    assert size(small) <= size(network)
    if kind == "structured":
        assert size(small) < size(network)
        # All that was pruned is gone, and nothing else.
        for chain in unit_chains(network):
            wide, narrow = (net.get_submodule(chain.producer) for net in (network, small))
            left = int((wide.weight != 0).flatten(1).any(1).sum())
            assert len(narrow.weight) == left


def test_a_constant_unit_goes_into_the_next_bias():
    """With a bias of 2 and no weights a unit is 2 everywhere; the next layer gets 2 times its weights."""
    network = with_values([[0.0], [1.0], [0.0]], [[5.0, 7.0, 0.5]])
    network[0].bias = nn.Parameter(torch.tensor([2.0, 1.0, -3.0]))
    network.insert(1, nn.ReLU())
    small = compacted(network)
    assert small[0].weight.tolist() == [[1.0]] and small[0].bias.tolist() == [1.0]
    assert small[2].weight.tolist() == [[7.0]] and small[2].bias.tolist() == [10.0]


@pytest.mark.parametrize(
    ("options", "left"), [({}, 1), ({"padding": 1}, 2), ({"padding": 1, "padding_mode": "circular"}, 1)]
)
def test_a_constant_channel_stays_where_zeros_are_padded(options, left):
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Identity(), nn.Conv2d(3, 2, 3, **options)).double()
    with torch.no_grad():
        network[0].weight[:2] = 0
        network[0].bias[1] = 0
    small = compacted(network)
    assert small[0].out_channels == small[2].in_channels == left
    x = torch.randn(2, 1, 8, 8, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(small(x), network(x), rtol=1e-12)


def test_what_nothing_reads_goes_and_so_does_what_led_there():
    network = mlp(0, (3, 4, 5, 1))
    with torch.no_grad():
        network[4].weight[0, 2:] = 0
        network[2].weight[:2, :3] = 0
    small = compacted(network)
    assert [layer.out_features for layer in small[::2]] == [1, 2, 1]
    x, _ = batches(0, torch.Generator().manual_seed(0))
    assert torch.allclose(small(x), network(x), atol=1e-6)


def test_one_unit_stays():
    network = mlp(0, (3, 4, 1))
    with torch.no_grad():
        network[0].weight.zero_()
    small = compacted(network)
    assert small[0].out_features == 1
    x, _ = batches(0, torch.Generator().manual_seed(0))
    assert torch.allclose(small(x), network(x), atol=1e-6)


class Reused(nn.Module):
    """Layers whose units are read, or whose weights are, at a second place."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x):
        x = self.b(self.a(self.a(x)).relu())
        x = self.d(torch.tanh(self.c(x)))
        return x @ self.c.weight


def test_what_is_used_twice_is_left_alone():
    assert unit_chains(Reused()) == []
    shared = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    shared[2].weight = shared[0].weight
    assert unit_chains(shared) == []
    assert unit_chains(nn.Sequential(weight_norm(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 4))) == []
    grouped = nn.Sequential(nn.Conv1d(4, 4, 3, groups=2), nn.ReLU(), nn.Conv1d(4, 4, 3))
    assert unit_chains(grouped) == []


def test_which_layers_become_sparse():
    network = mlp(0, (40, 50, 60, 30))
    prune(network, 0.9, scope="layer")
    kinds = {(0.2, 0): 3, (0.2, 2500): 1, (0.05, 0): 0, (0.0, 0): 0}
    for (below, smallest), count in kinds.items():
        small = compacted(network, sparse_below=below, smallest=smallest)
        assert sum(isinstance(layer, SparseLinear) for layer in small) == count
    with pytest.raises(ValueError, match="sparse_below is 2"):
        compacted(network, sparse_below=2)
