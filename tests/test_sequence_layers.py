"""Layers and backbones: in parallel as one by one, packed as apart, gradients, files, bad input."""

from itertools import pairwise

import pytest
import torch

from learnsolve.sequence import delta_product, delta_rule, sliding_window_attention
from learnsolve.sequence.backbone import MIXERS, BackboneOptions, load, save
from learnsolve.sequence.layers import (
    LSSL,
    TCNCA,
    Attention,
    DeltaNet,
    GatedLinearAttention,
    LightNet,
    LinearAttention,
    Linformer,
    Longformer,
    Mega,
    MixtureOfMemories,
    Performer,
    Reformer,
    SeqBoat,
)
from learnsolve.sequence.places import PlaceEncoding, grid, rotation, turned
from learnsolve.training import WeightsError


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


LAYERS = {
    "deltanet": lambda: DeltaNet(8, 2),
    "negative": lambda: DeltaNet(8, 2, beta_max=2.0, beta_slope=10.0, expand_v=2.0),
    "gated": lambda: DeltaNet(8, 2, gated=True, conv=0),
    "products": lambda: DeltaNet(8, 2, householders=2, gated=True),
    "attention": lambda: Attention(8, 2),
    "window": lambda: Attention(8, 2, window=3),
    "places do not matter": lambda: Attention(8, 2, window=3, rotary=False),
    "gated linear": lambda: GatedLinearAttention(8, 2, rank=3),
    "gated linear of both signs": lambda: GatedLinearAttention(8, 2, beta_max=2.0),
    "linear": lambda: LinearAttention(8, 2),
    "lightnet": lambda: LightNet(8, 2, gate=3),
    "memories": lambda: MixtureOfMemories(8, 2),
    "memories of one": lambda: MixtureOfMemories(
        8, 2, memories=3, active=1, shared=False, rule="delta", conv=0
    ),
    "linear memories": lambda: MixtureOfMemories(8, 2, rule="gated-linear"),
    "chunks": lambda: Attention(8, 2, chunk=4),
    "mega": lambda: Mega(8, 4, averages=3),
    "tcnca": lambda: TCNCA(8, 4, taps=3, levels=2, dilation=2),
    "plain tcnca": lambda: TCNCA(8, 4, taps=2, levels=2, dilation=2, plain=True),
    "seqboat": lambda: SeqBoat(8, 3, averages=2),
    "longformer": lambda: Longformer(8, 2, window=3, anchors=2),
    "reformer": lambda: Reformer(8, 2, window=3, buckets=4, rounds=2),
    "linformer": lambda: Linformer(8, 2, block=4, rank=2),
    "performer": lambda: Performer(8, 2),
    "lssl": lambda: LSSL(8, 5, learned=True),
    "lstm": lambda: MIXERS["lstm"](BackboneOptions(2, 2, 8)),
}


def layer(name):
    torch.manual_seed(0)
    return LAYERS[name]().double()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("lengths", [(11,), (4, 7), (1,) * 11])
def test_in_parallel_as_one_by_one(name, lengths):
    mixer, x = layer(name), draw(2, 11, 8)
    whole, last = mixer(x)
    state, parts = None, []
    for part in x.split(lengths, 1):
        y, state = mixer(part, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    for one, two in zip(state, last, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("name", LAYERS)
def test_nothing_comes_from_the_future(name):
    mixer, x = layer(name), draw(1, 9, 8).requires_grad_()
    mixer(x)[0][:, 4].sum().backward()
    # Transforms round to what is not quite nothing.
    assert x.grad[:, :5].abs().max() > 1e-3 > 1e-12 > x.grad[:, 5:].abs().max()


@pytest.mark.parametrize("name", LAYERS)
def test_packed_as_apart(name):
    mixer, x = layer(name), draw(1, 12, 8)
    bounds = [0, 5, 6, 12]
    packed, _ = mixer(x, cu_seqlens=torch.tensor(bounds))
    apart = [mixer(x[:, a:b])[0] for a, b in pairwise(bounds)]
    torch.testing.assert_close(packed, torch.cat(apart, 1))


@pytest.mark.parametrize("name", ["attention", "window", "chunks"])
def test_packed_sequences_go_on(name):
    mixer, x, more = layer(name), draw(1, 12, 8), draw(1, 6, 8, seed=1)
    _, states = mixer(x, cu_seqlens=torch.tensor([0, 5, 12]))
    packed, _ = mixer(more, states, cu_seqlens=torch.tensor([0, 2, 6]))
    ends = [mixer(more[:, a:b], one)[0] for (a, b), one in zip([(0, 2), (2, 6)], states, strict=True)]
    torch.testing.assert_close(packed, torch.cat(ends, 1))
    with pytest.raises(ValueError, match="list of states"):
        mixer(more, states)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name):
    mixer, x = layer(name), draw(1, 4, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mixer(x)[0], x, nondet_tol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
)
@pytest.mark.parametrize("length", [1, 63, 65, 100, 1000])
@pytest.mark.parametrize("window", [None, 1, 7, 64])
@pytest.mark.parametrize("before", [0, 3, 100])
def test_windows_are_those_of_a_mask(length, window, before, dtype, tolerance):
    q, k, v = (draw(2, before + length, 3, n, seed=n) for n in (4, 4, 5))
    k = draw(2, before + length, 3, 4, seed=9)
    scores = torch.einsum("bihk,bjhk->bhij", q, k) / 2
    away = torch.arange(before + length)[:, None] - torch.arange(before + length)
    seen = (away >= 0) & (away < (window or 10**9))
    weights = torch.softmax(scores.masked_fill(~seen, -torch.inf), -1)
    wanted = torch.einsum("bhij,bjhv->bihv", weights, v)[:, before:]
    low = [one.to(dtype) for one in (q, k, v)]
    state = tuple(one[:, :before] for one in low[1:])
    o, after = sliding_window_attention(*(one[:, before:] for one in low), window, initial_state=state)
    assert o.dtype == dtype
    assert (o.double() - wanted).norm() <= tolerance * wanted.norm()
    kept = before + length if window is None else min(window - 1, before + length)
    assert torch.equal(after[0], low[1][:, before + length - kept :])


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("packed", [False, True])
def test_windows_have_gradients(window, packed):
    q, k, v = (draw(1, 9, 2, 3, seed=n).requires_grad_() for n in range(3))
    bounds = torch.tensor([0, 2, 2, 9]) if packed else None

    def attend(q, k, v):
        return sliding_window_attention(q, k, v, window, cu_seqlens=bounds)[0]

    assert torch.autograd.gradcheck(attend, (q, k, v), nondet_tol=1e-12)


@pytest.mark.parametrize("decay", [False, True])
def test_products_are_steps_one_after_the_other(decay):
    q, k, v, beta = (
        draw(2, 6, 3, 4),
        draw(2, 6, 2, 3, 4, seed=1),
        draw(2, 6, 2, 3, 5, seed=2),
        draw(2, 6, 2, 3, seed=3),
    )
    k, beta = torch.nn.functional.normalize(k, dim=-1), 2 * torch.sigmoid(beta)
    g = -draw(2, 6, 3, seed=4).abs() if decay else None
    o, last = delta_product(q, k, v, beta, g)
    state = None
    for t in range(6):
        for j in range(2):
            now = g[:, t : t + 1] if decay and j == 0 else None
            at = (slice(None), slice(t, t + 1), j)
            y, state = delta_rule(q[:, t : t + 1], k[at], v[at], beta[at], now, initial_state=state)
        torch.testing.assert_close(o[:, t], y[:, 0])
    torch.testing.assert_close(last, state)


def test_negative_eigenvalues_turn_a_state_around():
    """Only with beta above one can a token undo what the last but one did."""
    keys = torch.zeros(1, 2, 1, 2, dtype=torch.float64)
    keys[..., 0] = 1
    first = torch.ones(1, 1, 2, 1, dtype=torch.float64)
    for beta, expected in ((2.0, 1.0), (1.0, 0.0)):
        given = torch.full((1, 2, 1), beta, dtype=torch.float64)
        _, last = delta_rule(keys, keys, torch.zeros(1, 2, 1, 1).double(), given, initial_state=first)
        assert last[0, 0, 0, 0] == expected and last[0, 0, 1, 0] == 1


@pytest.mark.parametrize("name", MIXERS)
def test_backbones_generate_and_are_kept(name, tmp_path):
    torch.manual_seed(0)
    options = BackboneOptions(vocabulary=7, classes=7, width=16, mixers=(name, "deltanet"), layers=3)
    network = options.build().eval()
    tokens = torch.randint(7, (2, 5))
    found = network.generate(tokens, 6)
    for t in range(6):
        logits, _ = network(torch.cat([tokens, found[:, :t]], 1))
        assert torch.equal(logits[:, -1].argmax(-1), found[:, t])
    save(tmp_path / "a.safetensors", network, note="x")
    again = load(tmp_path / "a.safetensors")
    assert again.options == options
    torch.testing.assert_close(again(tokens)[0], network(tokens)[0])
    drawn = [
        network.generate(tokens, 20, temperature=1.0, generator=torch.Generator().manual_seed(s))
        for s in (1, 1, 2)
    ]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_vectors_instead_of_tokens():
    network = BackboneOptions(vocabulary=0, features=3, classes=4, width=8, mlp=0).build()
    assert network(torch.zeros(2, 5, 3))[0].shape == (2, 5, 4)
    with pytest.raises(ValueError, match=r"\(B, T, 3\)"):
        network(torch.zeros(2, 5, 2))


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsError):
        load(tmp_path / "a.safetensors")


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 2)])
def test_one_scan_of_several_axes_is_attention_to_all(shape):
    """The order of tokens does not matter, their places do."""
    torch.manual_seed(0)
    mixer = LightNet(24, 2, causal=False, axes=len(shape)).double()
    x = draw(2, *shape, 24)
    y, _ = mixer(x)
    assert y.shape == x.shape
    turns = rotation(grid(shape), 2, 12)
    flat = x.flatten(1, -2)
    q, k, v = (one(flat).unflatten(-1, (2, 12)) for one in (mixer.query, mixer.key, mixer.value))
    q, weights = turned(torch.nn.functional.silu(q), turns), turned(torch.softmax(k, 1), turns)
    scores = torch.einsum("bihk,bjhk->bhij", q, weights) / 12**0.5
    o = torch.einsum("bhij,bjhv->bihv", scores, v)
    wanted = mixer.out(mixer.norm(o.flatten(-2)) * torch.nn.functional.silu(mixer.gate(flat)))
    torch.testing.assert_close(y.flatten(1, -2), wanted)
    moved, _ = mixer(x.roll(1, 1))
    assert not torch.allclose(moved.roll(-1, 1), y)


def test_two_scans_are_running_means_from_either_end():
    torch.manual_seed(0)
    mixer = LightNet(16, 2, causal=False, axes=2, scans=2).double()
    x = draw(1, 3, 4, 16)
    y, _ = mixer(x)
    turns, flat = rotation(grid((3, 4)), 2, 8), x.flatten(1, 2)
    q, k, v = (one(flat).unflatten(-1, (2, 8)) for one in (mixer.query, mixer.key, mixer.value))
    q, rows = turned(torch.nn.functional.silu(q), turns), []
    # What a token weighs is turned as it comes, and then decays.
    ends = k.logcumsumexp(1), k.flip(1).logcumsumexp(1).flip(1)
    weights = [turned((k - z).exp(), turns) for z in ends]
    for t in range(12):
        row = 0
        for z, w, seen in zip(ends, weights, (slice(0, t + 1), slice(t, 12)), strict=True):
            w = w[:, seen] * (z[:, seen] - z[:, t : t + 1]).exp()
            row = row + torch.einsum("bhk,bshk,bshv->bhv", q[:, t], w, v[:, seen]) / (2 * 8**0.5)
        rows.append(row)
    o = torch.stack(rows, 1).flatten(-2)
    wanted = mixer.out(mixer.norm(o) * torch.nn.functional.silu(mixer.gate(flat)))
    torch.testing.assert_close(y.flatten(1, 2), wanted)
    with pytest.raises(ValueError, match="scans is"):
        LightNet(16, 2, scans=2)


def test_turns_are_of_distances():
    turns = rotation(grid((5, 6)), 2, 8)
    x, y = draw(2, 8), draw(2, 8, seed=1)
    u, v = (turned(one.expand(1, 30, 2, 8), turns).reshape(5, 6, 2, 8) for one in (x, y))
    torch.testing.assert_close((u[1, 2] * v[3, 5]).sum(-1), (u[0, 1] * v[2, 4]).sum(-1))
    assert not torch.allclose((u[1, 2] * v[3, 5]).sum(-1), (u[1, 2] * v[4, 5]).sum(-1))


def test_places_are_averages_along_each_axis():
    torch.manual_seed(0)
    encoding = PlaceEncoding(8, 2, axes=2).double()
    x = draw(1, 4, 5, 8)
    decays = torch.sigmoid(encoding.decay).repeat_interleave(4, 1)
    total = torch.zeros_like(x)
    for i in range(4):
        for j in range(5):
            down = sum((1 - decays[0]) * decays[0] ** (i - s) * x[0, s, j] for s in range(i + 1))
            across = sum((1 - decays[1]) * decays[1] ** (j - s) * x[0, i, s] for s in range(j + 1))
            total[0, i, j] = down + across
    torch.testing.assert_close(encoding(x), x + encoding.out(encoding.norm(total)))
    assert torch.autograd.gradcheck(encoding, x[:, :2, :3].clone().requires_grad_())


def test_a_memory_sees_its_own_tokens_alone():
    """What a token is sent elsewhere for does not change what those of another memory read."""
    mixer = MixtureOfMemories(8, 2, memories=2, active=1, shared=False).double()
    with torch.no_grad():
        mixer.route.weight.zero_()
        mixer.route.weight[0, 0], mixer.route.weight[1, 0] = 50.0, -50.0
    x = draw(1, 10, 8)
    x[:, :, 0] = torch.where(torch.arange(10) % 3 == 0, 1.0, -1.0)
    y, state = mixer(x)
    first = x[:, ::3]
    alone, own = mixer(first)
    torch.testing.assert_close(y[:, ::3], alone)
    torch.testing.assert_close(state.memory[0], own.memory[0])
    changed = x.clone()
    changed[:, 1, 1:] += 1
    other, _ = mixer(changed)
    torch.testing.assert_close(other[:, ::3], y[:, ::3])
    assert not torch.allclose(other[:, 2], y[:, 2])


def test_one_memory_for_all_is_a_single_recurrence():
    mixer = MixtureOfMemories(8, 2, memories=1, active=1, shared=False, rule="delta", conv=0).double()
    x = draw(2, 6, 8)
    q, (k, v, beta) = mixer.query(x), (x @ mixer.write[0]).split([8, 8, 4], -1)
    q, k, v = (one.unflatten(-1, (2, 4)) for one in (q, k, v))
    q, k = (torch.nn.functional.normalize(one, dim=-1) for one in (q, k))
    o, _ = delta_rule(q, k, v, torch.sigmoid(beta[..., :2]))
    gate = torch.nn.functional.silu(mixer.gate(x))
    torch.testing.assert_close(mixer(x)[0], mixer.out(mixer.norm(o).flatten(-2) * gate))


def test_balance_is_one_where_memories_are_used_alike():
    mixer = MixtureOfMemories(8, 2, memories=4, active=1).double()
    x = draw(4, 100, 8)
    mixer(x)
    assert 0.9 < mixer.balance.item() < 2
    with torch.no_grad():
        mixer.route.weight.zero_()
        mixer.route.weight[0, 0] = 100
    mixer(x.abs())
    assert mixer.balance.item() == pytest.approx(4, rel=0.05)
    mixer.balance.backward()
    assert mixer.route.weight.grad is not None
    network = BackboneOptions(5, 5, 8, mixers=("memories",), balance=0.5).build()
    network(torch.zeros(1, 4, dtype=torch.int64))
    assert network.balance().item() >= 0.4
    assert BackboneOptions(5, 5, 8).build().balance() == 0


ZEROS = torch.zeros(1, 4, 2, 2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DeltaNet(8, 3), "3 heads"),
        (lambda: DeltaNet(8, 2, beta_max=2.5), "beta_max is 2.5"),
        (lambda: Attention(8, 8), "in pairs"),
        (lambda: LinearAttention(8, 3), "3 heads"),
        (lambda: LightNet(8, 2, axes=2), "axes 2"),
        (lambda: MixtureOfMemories(8, 3), "heads 3"),
        (lambda: MixtureOfMemories(8, 2, active=5), "1 to 4"),
        (lambda: MixtureOfMemories(8, 2, rule="delay"), "'delay'"),
        (lambda: LightNet(8, 2)(torch.zeros(1, 3, 3, 8)), "1 axes"),
        (lambda: PlaceEncoding(8, 2)(torch.zeros(1, 3, 3, 8)), "1 axes"),
        (lambda: PlaceEncoding(8, 3), "3 heads"),
        (lambda: LSSL(8, 5)(torch.zeros(1, 4, 8), cu_seqlens=torch.tensor([0, 3])), "from 0 to 4"),
        (
            lambda: LSSL(8, 5)(
                torch.zeros(1, 4, 8), torch.zeros(1, 8, 5), cu_seqlens=torch.tensor([0, 1, 4])
            ),
            "1 states for 2 packed",
        ),
        (lambda: rotation(grid((2, 2)), 1, 2), "no pairs"),
        (lambda: BackboneOptions(2, 2, mixers=("nothing",)), "deltanet, attention"),
        (lambda: BackboneOptions(0, 2), "one of them"),
        (lambda: BackboneOptions(2, 2, width=0), "must be positive"),
        (lambda: BackboneOptions(2, 2).build()(torch.tensor([[2]])), "0 to 1 are accepted"),
        (lambda: BackboneOptions(2, 2).build()(torch.tensor([2.0])), "int64"),
        (lambda: BackboneOptions(2, 3).build().generate(torch.tensor([[0]]), 2), "as many classes"),
        (lambda: sliding_window_attention(ZEROS, ZEROS, ZEROS, 0), "window is 0"),
        (lambda: sliding_window_attention(ZEROS, ZEROS[:, :2], ZEROS), "the same"),
        (
            lambda: sliding_window_attention(*[ZEROS] * 3, initial_state=(ZEROS[..., :1], ZEROS)),
            "keys of the state",
        ),
        (
            lambda: sliding_window_attention(
                *[ZEROS] * 3, initial_state=(ZEROS, ZEROS), cu_seqlens=torch.tensor([0, 4])
            ),
            "one by one",
        ),
        (lambda: delta_product(ZEROS, ZEROS, ZEROS, ZEROS[..., 0]), "n, H, K"),
        (lambda: delta_product(ZEROS, ZEROS[:, :, None], ZEROS[:, :, None], ZEROS), "same B, T and n"),
    ],
)
def test_what_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
