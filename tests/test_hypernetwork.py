"""Hypernetworks against their equations written out, and growth that changes nothing."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from learnsolve.training import FitOptions, fit, load_weights, save_weights
from learnsolve.training.hypernetwork import GENERATORS, Hypernetwork
from tests.training_cases import assert_same_bits, batches, loss, regressor, weights


def made(generator, target=None, *, hidden=6, head=0.3, dtype=None, tasks=3, **options):
    """A small hypernetwork whose head is not zero, as after a training."""
    target = regressor() if target is None else target
    network = Hypernetwork(
        target.to(dtype), tasks, generator=generator, hidden=hidden, embedding=4, chunk=7, **options
    )
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.head.parameters():
            weight.copy_(head * torch.randn(weight.shape, generator=draw))
    return network.eval()


def convolutions():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 1, 1, bias=False)
        )


class Tied(nn.Module):
    """There and back through one matrix, with a parameter that is not learned."""

    def __init__(self):
        super().__init__()
        self.there, self.back = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.there.weight)
        self.back.weight = self.there.weight
        self.fixed = nn.Parameter(torch.tensor(2.0), requires_grad=False)
        self.register_buffer("shift", torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, x, *, times=1):
        return times * self.fixed * self.back(self.there(x).tanh()) + self.shift


TARGETS = {
    "perceptron": (regressor, (5, 3)),
    "convolutions": (convolutions, (2, 1, 6, 6)),
    "tied": (Tied, (4, 3)),
    "recurrent": (lambda: nn.GRU(3, 2, batch_first=True), (2, 5, 3)),
}


def flat(answer):
    return answer[0] if isinstance(answer, tuple) else answer


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("name", TARGETS)
def test_every_task_begins_with_the_target(name, generator):
    build, shape = TARGETS[name]
    target, x = build().eval(), torch.randn(shape, generator=torch.Generator().manual_seed(0))
    network = Hypernetwork(target, tasks=2, generator=generator, chunk=5).eval()
    for network.task in (0, 1):
        assert torch.equal(flat(network(x)), flat(target(x)))


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("name", TARGETS)
def test_target_is_a_plain_network_with_the_weights_of_its_task(name, generator):
    build, shape = TARGETS[name]
    target, x = build().eval(), torch.randn(shape, generator=torch.Generator().manual_seed(0))
    before = weights(target)
    network = made(generator, target)
    answers = []
    for network.task in (0, 2):
        plain = network.target(network.task)
        assert type(plain) is type(target) and weights(plain).keys() == before.keys()
        torch.testing.assert_close(flat(plain(x)), flat(network(x)))
        for parameter, original in zip(plain.parameters(), target.parameters(), strict=True):
            assert parameter.requires_grad == original.requires_grad and parameter.is_leaf
        answers.append(flat(plain(x)))
    assert not torch.allclose(*answers)
    assert_same_bits(before, weights(target))


def test_what_is_not_written_is_shared_and_options_are_passed_on():
    network, x = made("lstm", Tied()), torch.ones(1, 3)
    assert network.weights_written == 9 and network.shapes.keys() == {"there.weight"}
    plain = network.target(1)
    assert plain.fixed == 2 and plain.back.weight is plain.there.weight
    network.task = 1
    twice, shift = network(x, times=2), plain.shift
    torch.testing.assert_close(twice - shift, 2 * (network(x) - shift))


def by_hand(network, task):
    """The weights of a task, chunk after chunk, by the equations of an LSTM or a perceptron."""
    e, hidden = network.task_vectors[task], network.hidden
    h = c = torch.zeros(hidden, dtype=e.dtype)
    written = []
    for chunk in network.chunk_vectors:
        x = torch.cat((e, chunk))
        if network.kind == "lstm":
            lstm = network.generator
            gates = lstm.weight_ih_l0 @ x + lstm.bias_ih_l0 + lstm.weight_hh_l0 @ h + lstm.bias_hh_l0
            i, f, g, o = gates.split(hidden)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        else:
            first, _, second, _ = network.generator
            h = (second.weight @ (first.weight @ x + first.bias).tanh() + second.bias).tanh()
        written.append(network.head.weight @ h + network.head.bias)
    given = torch.cat([parameter.flatten() for parameter in network.template.parameters()])
    return given + torch.cat(written)[: len(given)]


@pytest.mark.parametrize("generator", GENERATORS)
def test_written_weights_equal_the_equations(generator):
    network = made(generator, dtype=torch.float64)
    found = network.flat_weights([2, 0])
    torch.testing.assert_close(found, torch.stack([by_hand(network, 2), by_hand(network, 0)]))
    named = network.weights(2)
    assert [tuple(weight.shape) for weight in named.values()] == [(8, 3), (8,), (1, 8), (1,)]
    torch.testing.assert_close(torch.cat([weight.flatten() for weight in named.values()]), found[0])


@pytest.mark.parametrize(("generator", "reached"), [("lstm", [2, 3, 4, 5]), ("mlp", [2])])
def test_a_chunk_depends_on_those_before_it(generator, reached):
    network = made(generator)
    assert len(network.chunk_vectors) == 6 and network.weights_written == 41
    before = network.flat_weights([0])[0]
    with torch.no_grad():
        network.chunk_vectors[2] += 1
    changed = (network.flat_weights([0])[0] != before).nonzero().flatten()
    assert sorted({place // 7 for place in changed.tolist()}) == reached


@pytest.mark.parametrize("generator", GENERATORS)
def test_gradients_are_those_of_differences(generator):
    network = made(generator, nn.Linear(3, 2), hidden=3, dtype=torch.float64, tasks=2)
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    names = [
        "task_vectors.0",
        "chunk_vectors",
        "head.weight",
        *(n for n in weights(network) if "genera" in n),
    ]

    def answer(*values):
        return torch.func.functional_call(network, dict(zip(names, values, strict=True)), (x,))

    held = dict(network.named_parameters())
    assert torch.autograd.gradcheck(answer, [held[name].detach().requires_grad_() for name in names])


@pytest.mark.parametrize("generator", GENERATORS)
def test_gradient_is_that_of_the_plain_network_taken_through_the_writing(generator):
    network = made(generator, dtype=torch.float64)
    network.task = 1
    batch = [part.double() for part in batches(0, torch.Generator().manual_seed(0))]
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    whole = torch.autograd.grad(loss(network, batch), trained, materialize_grads=True)
    plain = network.target(1)
    towards = torch.autograd.grad(loss(plain, batch), list(plain.parameters()))
    flat_gradient = torch.cat([gradient.flatten() for gradient in towards])
    parts = torch.autograd.grad(
        network.flat_weights([1])[0], trained, grad_outputs=flat_gradient, materialize_grads=True
    )
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)
    assert not any(parameter.requires_grad for parameter in network.template.parameters())


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(GENERATORS), st.integers(1, 9), st.lists(st.integers(1, 7), min_size=1, max_size=3))
def test_growth_preserves_the_function(generator, hidden, steps):
    network = made(generator, hidden=hidden, head=1.0)
    before, x = network.flat_weights(range(3)).detach(), torch.ones(5, 3)
    answers = [network.target(task)(x) for task in range(3)]
    for units in steps:
        network.grow(units)
    assert network.hidden == network.head.in_features == hidden + sum(steps)
    assert (network.flat_weights(range(3)).detach() - before).abs().max() <= 1e-6
    for network.task, answer in enumerate(answers):
        torch.testing.assert_close(network(x), answer, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("generator", GENERATORS)
def test_what_is_grown_learns(generator):
    """Nothing leads out of the new units at first, but gradients lead in."""
    network = made(generator)
    network.grow(4)
    head = network.head.weight
    assert not head[:, 6:].any()
    network.flat_weights([0]).square().sum().backward()
    assert bool((head.grad[:, 6:] != 0).all())
    with torch.no_grad():
        head -= 0.1 * head.grad
    network.zero_grad()
    network.flat_weights([0]).square().sum().backward()
    incoming = {"lstm": "weight_ih_l0", "mlp": "2.weight"}[generator]
    gradient = network.generator.get_parameter(incoming).grad
    assert bool((gradient[6:10] != 0).all())


def test_drift_by_hand():
    network = made("mlp", nn.Linear(1, 1), tasks=3)
    now = network.flat_weights([0, 1]).detach()
    before = now + torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    importance = torch.tensor([[1.0, 2.0], [4.0, 0.0]])
    assert network.drift(now).item() == 0
    assert network.drift(before).item() == pytest.approx((1 + 4 + 0.25 + 9) / 2)
    assert network.drift(before, importance).item() == pytest.approx((1 + 8 + 1 + 0) / 2)
    network.drift(before).backward()
    assert all(vector.grad is None for vector in network.task_vectors)
    assert network.chunk_vectors.grad.any() and network.head.weight.grad.any()


def test_a_task_more():
    network = made("lstm")
    before = network.flat_weights(range(3))
    assert network.add_task() == 3
    assert torch.equal(network.flat_weights(range(3)), before)
    vectors = torch.stack(list(network.task_vectors))
    assert len(vectors.unique(dim=0)) == 4 and vectors.requires_grad


@pytest.mark.parametrize("generator", GENERATORS)
def test_weights_come_back_from_a_file(tmp_path, generator):
    network = made(generator, seed=1)
    save_weights(tmp_path / "weights.safetensors", network)
    other = made(generator, regressor(seed=5), head=0.0, seed=2)
    load_weights(tmp_path / "weights.safetensors", other)
    assert torch.equal(other.flat_weights(range(3)), network.flat_weights(range(3)))


def test_seed_says_all_and_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    one, other, third = (Hypernetwork(regressor(), 2, seed=seed) for seed in (3, 3, 4))
    for network in (one, other, third):
        network.grow(5)
        network.add_task()
    assert_same_bits(weights(one), weights(other))
    assert not torch.equal(one.chunk_vectors, third.chunk_vectors)
    assert torch.equal(torch.get_rng_state(), state)


def test_one_task_is_learned_as_by_a_plain_network():
    target = regressor()
    network = Hypernetwork(target, tasks=1, chunk=10)
    fit(network, loss, batches, FitOptions(steps=150, learning_rate=0.01))
    plain, held_out = network.target(0).eval(), batches(0, torch.Generator().manual_seed(99))
    assert loss(plain, held_out) < 0.2 * loss(target.eval(), held_out)


@pytest.mark.parametrize(
    ("target", "given_options", "words"),
    [
        (nn.Linear(1, 1), {"tasks": 0}, "tasks is 0; at least 1"),
        (nn.Linear(1, 1), {"hidden": 0}, "hidden is 0"),
        (nn.Linear(1, 1), {"embedding": -1}, "embedding is -1"),
        (nn.Linear(1, 1), {"chunk": 0}, "chunk is 0"),
        (nn.Linear(1, 1), {"generator": "gru"}, "no generator 'gru'; there are lstm, mlp"),
        (nn.ReLU(), {}, "nothing to write"),
        (nn.Linear(1, 1).requires_grad_(False), {}, "nothing to write"),
        (nn.Sequential(nn.Conv1d(1, 2, 1), nn.BatchNorm1d(2)), {}, "target's 1 has running statistics"),
        (nn.BatchNorm1d(2), {}, "target's BatchNorm1d has running statistics"),
        (
            nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()),
            {},
            "torch.float32 on cpu, torch.float64 on cpu; one real dtype",
        ),
        (nn.Linear(1, 1, dtype=torch.complex64), {}, "one real dtype on one device is accepted"),
    ],
)
def test_what_is_refused(target, given_options, words):
    with pytest.raises(ValueError, match=words):
        Hypernetwork(target, **{"tasks": 2, **given_options})


def test_what_is_refused_later():
    network = Hypernetwork(nn.Linear(1, 1), tasks=2)
    copied = copy.deepcopy(network.state_dict())
    for call in (network.weights, network.target, lambda task: network.flat_weights([0, task])):
        for task in (-1, 2):
            with pytest.raises(ValueError, match=f"no task {task}; there are 2, from 0 on"):
                call(task)
    with pytest.raises(ValueError, match="units is 0"):
        network.grow(0)
    with pytest.raises(ValueError, match=r"before has shape \(2, 3\); \(2, 2\) is accepted"):
        network.drift(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"importance has shape \(1, 2\); \(2, 2\) is accepted"):
        network.drift(torch.zeros(2, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="no task 2"):
        network.drift(torch.zeros(3, 2))
    assert_same_bits(copied, network.state_dict())
