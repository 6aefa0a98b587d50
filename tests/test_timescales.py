"""Recurrent networks with trainable timescales, their tasks, and the benchmark in miniature."""

import argparse
import json
import math
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import timescales as benchmark
from learnsolve.dynamics.timescale_analysis import (
    ablated,
    network_timescales,
    perturbed,
    single_neuron_timescales,
    spectral_radius,
)
from learnsolve.dynamics.timescales import GatedRNN, LeakyRNN
from learnsolve.problems.timescale_tasks import draw_length, n_dms, n_parity
from learnsolve.training.curriculum import Curriculum

KINDS = ["leaky", "gru", "lstm"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network_of(kind="leaky", neurons=6, heads=3, inputs=1, seed=0):
    made = seeded(seed)
    if kind == "leaky":
        return LeakyRNN(neurons, heads, inputs=inputs, generator=made).double()
    return GatedRNN(neurons, heads, inputs=inputs, kind=kind, generator=made).double()


def draw(*shape, seed=1):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def by_the_equation(network, x, first, silent=()):
    """Neuron by neuron, as the equation is written."""
    W, b, W_in, b_in, tau = (getattr(network, name).tolist() for name in ("W", "b", "W_in", "b_in", "tau"))
    rows = []
    for sequence, state in zip(x.tolist(), first.tolist(), strict=True):
        h, rows_of = [0.0 if i in silent else value for i, value in enumerate(state)], []
        for at in sequence:
            before, h = h, []
            for i, own in enumerate(tau):
                t = max(own, 1.0)
                others = sum(W[i][j] * before[j] for j in range(len(before)) if j != i)
                given = others + b[i] + sum(w * s for w, s in zip(W_in[i], at, strict=True)) + b_in[i]
                value = (1 - 1 / t) * before[i] + given / t
                h.append(0.0 if i in silent else max(value, 0.01 * value))
            rows_of.append(h)
        rows.append(rows_of)
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("inputs", [1, 3])
def test_states_are_those_of_the_equation(inputs):
    network, x, first = network_of(inputs=inputs), draw(4, 9, inputs), draw(4, 6, seed=2)
    with torch.no_grad():
        network.tau[0] = 0.5
        network.W.fill_diagonal_(7.0)
        found = network.states(x, first)
        torch.testing.assert_close(found, by_the_equation(network, x, first))
        said = network(x, [2, 0], first=first)
    wanted = torch.stack([found[:, -1] @ network.readout[k].T + network.offset[k] for k in (2, 0)], 1)
    torch.testing.assert_close(said, wanted)


def test_gradients():
    network, x, first = network_of(neurons=3, heads=2), draw(2, 4, 1), draw(2, 3, seed=2)
    with torch.no_grad():
        network.tau += 0.1
    names = [name for name, _ in network.named_parameters()]

    def said(x, first, *parameters):
        given_ones = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(network, given_ones, (x,), {"first": first})

    values = [one.detach().clone().requires_grad_() for one in (x, first, *network.parameters())]
    assert torch.autograd.gradcheck(said, values)


def test_tau_below_one_is_lifted_but_not_lowered():
    network = network_of()
    with torch.no_grad():
        network.tau.fill_(0.9)
    x, first = draw(5, 8, 1), draw(5, 6, seed=2)
    slopes = []
    for sign in (1, -1):
        network.zero_grad()
        (sign * network.states(x, first).square().sum()).backward()
        slopes.append(network.tau.grad.clone())
    assert (slopes[0] <= 0).all() and (slopes[1] <= 0).all()
    # One of the two signs lifts.
    assert ((slopes[0] < 0) ^ (slopes[1] < 0)).all()
    assert (single_neuron_timescales(network) == 1).all()


def test_training_keeps_the_diagonal_and_tau():
    network = network_of(neurons=20)
    network.float()
    with torch.no_grad():
        network.tau.sub_(0.95).clamp_(min=1)
    optimizer, made = torch.optim.SGD(network.parameters(), 0.5, momentum=0.1, nesterov=True), seeded()
    for _ in range(30):
        bits, labels = n_parity(16, 8, [2, 3, 4], made)
        loss = torch.nn.functional.cross_entropy(
            network(bits, generator=made).flatten(0, 1), labels.flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert network.W.shape == (20, 20) and not network.W.diagonal().any()
    assert not network.recurrent.diagonal().any() and network.W.abs().sum() > 1
    timescales = single_neuron_timescales(network)
    assert (timescales >= 1).all() and (timescales == 1).any() and (timescales > 1).any()
    assert timescales.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_one_interface(kind):
    network = network_of(kind)
    bits, _ = n_parity(5, 12, [2], seeded())
    assert network.states(bits, generator=seeded()).shape == (5, 12, 6)
    said = network(bits, generator=seeded())
    assert said.shape == (5, 3, 2)
    torch.testing.assert_close(network(bits[..., None], [1], generator=seeded()), said[:, 1:2])
    assert not torch.equal(network(bits, generator=seeded(3)), said)
    said.square().sum().backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in network.parameters())
    same, other = network_of(kind), network_of(kind, seed=1)
    assert torch.equal(same.weights, network.weights) and not torch.equal(other.weights, network.weights)


def test_first_states_are_a_tenth_of_uniform_numbers():
    network, kept = network_of(neurons=400), []
    network.interventions.append(lambda state: kept.append(state) or state)
    network.states(torch.zeros(3, 1), generator=seeded())
    first = kept[0]
    assert first.shape == (3, 400) and first.min() >= 0 and 0.095 < first.max() <= 0.1
    assert first.mean() == pytest.approx(0.05, abs=0.003) and not torch.equal(first[0], first[1])


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_spectral_radius(kind):
    """Gates are ordered r, z, n in torch's GRU, and i, f, g, o in its LSTM."""
    gated = network_of(kind)
    matrix = gated.cells.weight_hh_l0.detach()[12:18]
    assert spectral_radius(gated) == pytest.approx(float(torch.linalg.eigvals(matrix).abs().max()))
    network = network_of(neurons=3)
    with torch.no_grad():
        network.W.copy_(torch.tensor([[9.0, 2.0, 0.0], [2.0, 9.0, 0.0], [0.0, 0.0, 9.0]]))
    assert spectral_radius(network) == pytest.approx(2.0)


def alone(*taus):
    """Neurons that hear the input alone, and are never below zero."""
    network = network_of(neurons=len(taus))
    with torch.no_grad():
        network.W.zero_()
        network.b.zero_()
        network.b_in.fill_(1.0)
        network.W_in.fill_(1.0)
        network.tau.copy_(torch.tensor(taus))
    return network


def test_timescales_of_a_neuron_alone():
    """The autocorrelation of a leaky sum of independent bits is a power of what it keeps."""
    taus = (1.5, 3.0, 8.0)
    bits = torch.randint(2, (64, 2100), generator=seeded())
    found = network_timescales(alone(*taus), bits, generator=seeded())
    wanted = [-1 / math.log(1 - 1 / tau) for tau in taus]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=0.05, atol=0)


def test_neurons_that_do_not_change_have_no_timescale():
    network = alone(2.0, 2.0)
    with torch.no_grad():
        network.W_in[1] = 0
    found = network_timescales(network, generator=seeded())
    assert found[0].isfinite() and found[1].isnan()
    with pytest.raises(ValueError, match="transient is 100 and lags 50 of 120 times"):
        network_timescales(network, torch.ones(2, 120))
    with pytest.raises(TypeError, match="a GatedRNN has no tau"):
        single_neuron_timescales(network_of("gru"))


@given(st.integers(0, 10**6), st.sets(st.integers(0, 5)))
def test_silent_neurons_of_the_equation(seed, silent):
    network, x, first = network_of(seed=seed), draw(2, 5, 1, seed=seed), draw(2, 6, seed=seed + 1)
    with ablated(network, sorted(silent)), torch.no_grad():
        found = network.states(x, first)
    torch.testing.assert_close(found, by_the_equation(network, x, first, silent))


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_nobody_hears_silent_neurons(kind):
    """Zeros in the columns that read them do the same for all others."""
    network, x, first = network_of(kind), draw(4, 7, 1), draw(4, 6, seed=2)
    rest = [0, 2, 3, 5]
    with torch.no_grad():
        at_once = network.states(x, first)
        with ablated(network, []):
            torch.testing.assert_close(network.states(x, first), at_once)
        with ablated(network, torch.tensor([1, 4])):
            found = network.states(x, first)
        assert not found[..., [1, 4]].any()
        network.weights[:, [1, 4]] = 0
        torch.testing.assert_close(found[..., rest], network.states(x, first)[..., rest])


CHANGES = {
    "silent": lambda network: ablated(network, [0, 2]),
    "weights": lambda network: perturbed(network, "weights", 0.3, seeded(5)),
    "tau": lambda network: perturbed(network, "tau", 0.3, seeded(5)),
    "state": lambda network: perturbed(network, "state", 0.3, seeded(5)),
}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    ("kind", "change"),
    [(kind, name) for kind in KINDS for name in CHANGES if kind == "leaky" or name != "tau"],
)
def test_all_is_as_before(kind, change, fails):
    network, x, first = network_of(kind), draw(4, 7, 1), draw(4, 6, seed=2)
    if kind == "leaky":
        with torch.no_grad():
            network.tau[1] = 0.7
    before = {name: one.clone() for name, one in network.state_dict().items()}
    with torch.no_grad():
        untouched = network(x, first=first)
        try:
            with CHANGES[change](network):
                assert not torch.allclose(network(x, first=first), untouched)
                if fails:
                    raise KeyError("within")
        except KeyError:
            assert fails
        assert torch.equal(network(x, first=first), untouched)
    assert not network.interventions
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())


def test_changes_within_changes():
    network, x, first = network_of(), draw(4, 7, 1), draw(4, 6, seed=2)
    with torch.no_grad():
        with ablated(network, [3]):
            outer = network(x, first=first)
            with perturbed(network, "state", 0.1, seeded()), ablated(network, [0]):
                states = network.states(x, first)
            assert torch.equal(network(x, first=first), outer)
    assert not states[..., 0].any() and states[..., 3].all() and network.interventions == []


@pytest.mark.parametrize("kind", KINDS)
def test_noise_has_its_size(kind):
    network, x, first = network_of(kind), draw(4, 7, 1), draw(4, 6, seed=2)
    before = network.weights.detach().clone()
    with perturbed(network, "weights", 0.2, seeded()):
        found = float((network.weights.detach() - before).norm() / before.norm())
    assert found == pytest.approx(0.2)
    kept = []
    with torch.no_grad(), perturbed(network, "state", 0.2, seeded()):
        noisy = network.interventions[0]
        network.interventions[:] = [lambda state: kept.append((state, noisy(state))) or kept[-1][1]]
        network.states(x, first)
        network.interventions[:] = [noisy]
    assert len(kept) == 8
    for state, changed in kept:
        torch.testing.assert_close((changed - state).norm(dim=1), 0.2 * state.norm(dim=1))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda n: LeakyRNN(0, 1), "neurons is 0"),
        (lambda n: GatedRNN(3, 1, kind="rnn"), "gru, lstm are accepted"),
        (lambda n: n(torch.zeros(2, 4, 2)), "x has shape"),
        (lambda n: n(torch.zeros(2, 0)), "at least one time"),
        (lambda n: n(torch.zeros(2, 4), first=torch.zeros(2, 5)), "first has shape"),
        (lambda n: n(torch.zeros(2, 4), [3]), "0 to 2 are accepted"),
        (lambda n: ablated(n, [6]).__enter__(), "0 to 5 are accepted"),
        (lambda n: perturbed(n, "bias", 0.1).__enter__(), "kind is 'bias'"),
        (lambda n: perturbed(n, "tau", -0.1).__enter__(), "size -0.1"),
        (lambda n: perturbed(network_of("gru"), "tau", 0.1).__enter__(), "has no tau"),
        (lambda n: n_parity(2, 4, [5]), "counts"),
        (lambda n: n_parity(2, 4, []), "counts"),
        (lambda n: n_dms(2, 4, [1, 2]), "from 2 to the length"),
        (lambda n: draw_length(0), "longest is 0"),
    ],
)
def test_what_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(network_of())


@given(st.integers(1, 8), st.integers(2, 20), st.lists(st.integers(2, 20), min_size=1), st.integers(0, 10**6))
def test_answers_are_those_of_python(count, length, counts, seed):
    counts = [min(one, length) for one in counts]
    for task in (n_parity, n_dms):
        bits, labels = task(count, length, counts, seeded(seed))
        assert bits.dtype == labels.dtype == torch.int64
        assert bits.shape == (count, length) and labels.shape == (count, len(counts))
        assert set(bits.unique().tolist()) <= {0, 1}
        for row, asked in zip(bits.tolist(), labels.tolist(), strict=True):
            if task is n_parity:
                assert asked == [sum(row[-N:]) % 2 for N in counts]
            else:
                assert asked == [int(row[-N] == row[-1]) for N in counts]
        again = task(count, length, counts, seeded(seed))
        assert torch.equal(again.bits, bits) and torch.equal(again.labels, labels)


def test_bits_and_lengths_are_drawn_as_said():
    shares = n_parity(4000, 50, [2], seeded()).bits.double().mean(1)
    assert shares.mean() == pytest.approx(0.5, abs=0.02) and shares.std() == pytest.approx(12**-0.5, abs=0.03)
    even = n_dms(4000, 50, [2], seeded()).bits.double().mean(1)
    assert even.mean() == pytest.approx(0.5, abs=0.01) and even.std() == pytest.approx(
        0.5 / 50**0.5, abs=0.01
    )
    made = seeded()
    lengths = [draw_length(3, made) for _ in range(1000)]
    assert set(lengths) == set(range(5, 14))


def options_of(**changed):
    given_ones = {"task": "parity", "neurons": 64, "batch": 64, "steps": 200, "until": 3, "epochs": 8}
    return argparse.Namespace(**given_ones, single_head="own", noise=0.1, width=2, **changed)


def test_two_and_three_bits_are_learned():
    trainee, curriculum = benchmark.Trainee("cumulative", "leaky", 0, options_of()), Curriculum("cumulative")
    seen = []
    for epoch in range(12):
        seen.append(curriculum.sizes)
        trainee.epoch(curriculum.sizes)
        if curriculum.update(trainee.accuracies(curriculum.sizes, epoch)) and curriculum.newest == 4:
            break
    assert seen[0] == (2,) and seen[-1] == (2, 3) and curriculum.newest == 4
    assert min(trainee.accuracies([2, 3], 100).values()) > 0.98


@pytest.fixture
def as_before(monkeypatch):
    """What a benchmark sets for its process is set back."""
    threads = torch.get_num_threads()
    monkeypatch.setattr("benchmarks.measure.keep_memory", lambda: None)
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("task", "model", "more"),
    [("dms", "leaky", ""), ("parity", "gru", "--single-head shared"), ("dms", "lstm", "")],
)
def test_the_benchmark(task, model, more, tmp_path, capsys, as_before):
    path = tmp_path / "found.json"
    arguments = f"--kind single cumulative sliding none --task {task} --model {model} --neurons 8 --batch 8 "
    arguments += f"--steps 2 --until 3 --epochs 2 --json {path} {more}"
    assert benchmark.main(arguments.split()) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("epochs until", "spectral radius", "quickest"))
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert [row["kind"] for row in rows] == ["single", "cumulative", "sliding", "none"]
    for row in rows:
        assert row["trained"] == 2 and 0 <= row["robustness"]["random"] <= 1
        assert (row["robustness"]["tau"] is None) == (model != "leaky")


def test_the_benchmark_says_when_each_was_passed(monkeypatch):
    """With accuracies made up: three epochs for each size, and those without a curriculum by themselves."""
    looks = []

    def accuracies(self, sizes, seed):
        looks.append(sizes)
        return {size: float(len(looks) % 3 == 0 or size == 2) for size in sizes}

    monkeypatch.setattr(benchmark.Trainee, "epoch", lambda self, sizes: None)
    monkeypatch.setattr(benchmark.Trainee, "accuracies", accuracies)
    wanted = {"single": {2: 1, 3: 3}, "cumulative": {2: 1, 3: 3}, "none": {2: 1, 3: 3}}
    for kind, epochs in wanted.items():
        looks.clear()
        row = benchmark.run(kind, "leaky", 0, options_of())
        assert row["epochs"] == epochs and row["reached"] == 3 and row["trained"] == 3
        assert list(row["tau"]) == [2, 3] and row["tau"][2] == row["tau"][3]
