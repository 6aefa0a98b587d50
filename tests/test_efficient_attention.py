"""Efficient attentions: full attention in their limits, unbiased features, buckets, bad input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.efficient_attention import peak
from learnsolve.sequence.blocks import blocks, remembered, side_by_side
from learnsolve.sequence.layers import Attention, Linformer, Longformer, Performer, Reformer, linformer
from learnsolve.sequence.layers.performer import orthogonal_directions, positive_features
from learnsolve.sequence.places import rotation, turned

LENGTH, WIDTH, HEADS = 13, 8, 2


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def alike(layer, other):
    """Give a layer another's projections."""
    layer.project.weight, layer.out.weight = other.project.weight, other.out.weight
    return layer.double()


def full(layer, x, seen):
    """Softmax attention with a layer's projections and turns, to what is seen."""
    q, k, v = (one.unflatten(-1, (HEADS, -1)) for one in layer.project(x).chunk(3, -1))
    turns = rotation(torch.arange(x.shape[1])[:, None], 1, q.shape[-1])
    q, k = turned(q, turns, halves=True), turned(k, turns, halves=True)
    scores = torch.einsum("bihk,bjhk->bhij", q, k) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return layer.out(torch.einsum("bhij,bjhv->bihv", weights, v).flatten(-2))


def masks(causal):
    places = torch.arange(LENGTH)
    return places[:, None] - places, torch.ones(LENGTH, LENGTH).tril().bool() if causal else torch.ones(
        LENGTH, LENGTH
    ).bool()


@pytest.mark.parametrize("anchors", [0, 2])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [1, 4, 2 * LENGTH])
def test_longformer_is_attention_by_its_mask(window, causal, anchors):
    torch.manual_seed(0)
    layer = Longformer(WIDTH, HEADS, window, anchors=anchors, causal=causal).double()
    away, allowed = masks(causal)
    near = (away < window) if causal else away.abs() <= window // 2
    seen = allowed & (near | (torch.arange(LENGTH) < anchors))
    if not causal:
        seen = seen | (torch.arange(LENGTH)[:, None] < anchors)
    x = draw(2, LENGTH, WIDTH)
    torch.testing.assert_close(layer(x)[0], full(layer, x, seen))


def test_a_long_window_is_full_attention():
    torch.manual_seed(0)
    attention, x = Attention(WIDTH, HEADS).double(), draw(2, LENGTH, WIDTH)
    layer = alike(Longformer(WIDTH, HEADS, LENGTH), attention)
    torch.testing.assert_close(layer(x)[0], attention(x)[0])


@pytest.mark.parametrize("causal", [True, False])
def test_linformer_without_compression_is_full_attention(causal):
    torch.manual_seed(0)
    block = 4 if causal else LENGTH
    layer = Linformer(WIDTH, HEADS, block, block, causal=causal).double()
    layer.E.data, layer.F.data = (torch.eye(block, dtype=torch.float64) for _ in range(2))
    x = draw(2, LENGTH, WIDTH)
    torch.testing.assert_close(layer(x)[0], full(layer, x, masks(causal)[1]))


def test_linformer_compresses_keys_and_values():
    torch.manual_seed(0)
    layer, x = Linformer(WIDTH, HEADS, 20, 3, causal=False, rotary=False).double(), draw(2, LENGTH, WIDTH)
    q, k, v = (one.unflatten(-1, (HEADS, -1)) for one in layer.project(x).chunk(3, -1))
    k, v = (torch.einsum("bthk,tr->brhk", one, w[:LENGTH]) for one, w in ((k, layer.E), (v, layer.F)))
    weights = (torch.einsum("bihk,bjhk->bhij", q, k) / 2).softmax(-1)
    wanted = layer.out(torch.einsum("bhij,bjhv->bihv", weights, v).flatten(-2))
    torch.testing.assert_close(layer(x)[0], wanted)


@pytest.mark.parametrize("at_once", [1, 8, 1024])
@pytest.mark.parametrize(("block", "rank"), [(4, 2), (5, 1), (1, 1), (20, 3)])
def test_linformer_sees_summaries_of_full_blocks(block, rank, at_once, monkeypatch):
    monkeypatch.setattr(linformer, "AT_ONCE", at_once)
    torch.manual_seed(0)
    layer, x = Linformer(WIDTH, HEADS, block, rank).double(), draw(2, LENGTH, WIDTH)
    q, k, v = (one.unflatten(-1, (HEADS, -1)) for one in layer.project(x).chunk(3, -1))
    turns = rotation(torch.arange(LENGTH)[:, None], 1, q.shape[-1])
    q, k = turned(q, turns, halves=True), turned(k, turns, halves=True)
    rows = []
    for t in range(LENGTH):
        begin = t // block * block
        keys, values = [k[:, begin : t + 1]], [v[:, begin : t + 1]]
        for first in range(0, begin, block):
            keys.append(torch.einsum("bthk,tr->brhk", k[:, first : first + block], layer.E))
            values.append(torch.einsum("bthk,tr->brhk", v[:, first : first + block], layer.F))
        scores = torch.einsum("bhk,bshk->bhs", q[:, t], torch.cat(keys, 1)) * q.shape[-1] ** -0.5
        rows.append(torch.einsum("bhs,bshk->bhk", scores.softmax(-1), torch.cat(values, 1)))
    torch.testing.assert_close(layer(x)[0], layer.out(torch.stack(rows, 1).flatten(-2)))


def test_linformer_makes_weights_again_for_gradients(monkeypatch):
    torch.manual_seed(0)
    layer, x = Linformer(WIDTH, HEADS, 4, 2).double(), draw(1, LENGTH, WIDTH).requires_grad_()
    wanted = torch.autograd.grad(layer(x)[0].square().sum(), [x, *layer.parameters()])
    monkeypatch.setattr(linformer, "AT_ONCE", 8)
    y, state = layer(x)
    torch.testing.assert_close(torch.autograd.grad(y.square().sum(), [x, *layer.parameters()]), wanted)
    # Also where the first blocks are in the state, and one is half full.
    more = draw(1, 11, WIDTH, seed=1)
    found, _ = layer(more, state)
    torch.testing.assert_close(found, layer(torch.cat([x, more], 1))[0][:, LENGTH:])


def test_linformer_holds_few_weights_at_a_time():
    layer, x = Linformer(16, 1, 32, 8), torch.randn(1, 4096, 16)
    most = peak(lambda: layer(x)[0].sum().backward())
    # All weights would be 4096 times 1024 numbers of 4 bytes, several times over.
    assert most < 2 * 4096 * 1024 * 4


def reformed(layer, x):
    """Reformer's equations token by token."""
    shared, v = (one.unflatten(-1, (HEADS, -1)) for one in layer.project(x).chunk(2, -1))
    bucket = layer.hashes(shared)
    turns = rotation(torch.arange(x.shape[1])[:, None], 1, shared.shape[-1])
    k = turned(torch.nn.functional.normalize(shared, dim=-1), turns, halves=True)
    q = turned(shared * shared.shape[-1] ** -0.5, turns, halves=True)
    found = torch.zeros_like(v)
    for b in range(x.shape[0]):
        for h in range(HEADS):
            for i in range(x.shape[1]):
                parts = []
                for r in range(layer.rounds):
                    its = [j for j in range(x.shape[1]) if bucket[b, j, h, r] == bucket[b, i, h, r]]
                    at = its.index(i)
                    last = at + 1 if layer.causal else at + layer.window
                    its = its[max(0, at - layer.window + 1) : last]
                    scores = torch.stack(
                        [q[b, i, h] @ k[b, j, h] if j != i else q.new_tensor(-1e5) for j in its]
                    )
                    parts.append((scores.logsumexp(0), scores.softmax(0) @ v[b, its, h]))
                weights = torch.stack([one for one, _ in parts]).softmax(0)
                found[b, i, h] = sum(w * o for w, (_, o) in zip(weights, parts, strict=True))
    return layer.out(found.flatten(-2))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("buckets", "rounds", "window"), [(1, 1, LENGTH), (4, 1, 3), (4, 3, 2), (2, 2, 100)])
def test_reformer_attends_within_buckets(causal, buckets, rounds, window):
    torch.manual_seed(0)
    layer = Reformer(WIDTH, HEADS, window, buckets=buckets, rounds=rounds, causal=causal).double()
    x = draw(2, LENGTH, WIDTH)
    torch.testing.assert_close(layer(x)[0], reformed(layer, x))


def test_what_hashes_alike_is_close():
    torch.manual_seed(0)
    layer = Reformer(64, 1, buckets=16, rounds=64, rotary=False)
    x = torch.nn.functional.normalize(torch.randn(64), dim=0)
    near = torch.nn.functional.normalize(x + 0.03 * torch.randn(64), dim=0)
    far = torch.nn.functional.normalize(torch.randn(64), dim=0)
    same = [float((layer.hashes(x) == layer.hashes(one)).float().mean()) for one in (near, far)]
    assert same[0] > 0.5 > 0.3 > same[1]


@pytest.mark.parametrize("orthogonal", [True, False])
def test_features_are_unbiased(orthogonal):
    generator = torch.Generator().manual_seed(0)
    x, y = (0.35 * torch.randn(6, generator=generator, dtype=torch.float64) for _ in range(2))
    found = []
    for _ in range(4000):
        if orthogonal:
            w = orthogonal_directions(6, 6, generator)
        else:
            w = torch.randn(6, 6, generator=generator, dtype=torch.float64)
        found.append(positive_features(x, w) @ positive_features(y, w))
    estimates = torch.stack(found)
    error = estimates.std() / len(estimates) ** 0.5
    assert (estimates.mean() - torch.exp(x @ y)).abs() < 4 * error < 0.1 * torch.exp(x @ y)


def test_orthogonal_directions_err_less():
    generator = torch.Generator().manual_seed(0)
    pairs = [(draw(8, seed=n) / 2, draw(8, seed=100 + n) / 2) for n in range(10)]

    def error(directions):
        return sum(
            float((positive_features(x, w) @ positive_features(y, w) - torch.exp(x @ y)) ** 2)
            for w in (directions() for _ in range(300))
            for x, y in pairs
        )

    independent = error(lambda: torch.randn(8, 8, generator=generator, dtype=torch.float64))
    assert error(lambda: orthogonal_directions(8, 8, generator)) < 0.95 * independent


def test_many_features_are_softmax_attention():
    torch.manual_seed(0)
    layer = Performer(WIDTH, HEADS, features=20000).double()
    x = draw(1, LENGTH, WIDTH)
    plain = Attention(WIDTH, HEADS, rotary=False).double()
    plain.project.weight, plain.out.weight = layer.project.weight, layer.out.weight
    wanted = plain(x)[0]
    assert (layer(x)[0] - wanted).norm() < 0.05 * wanted.norm()
    few = layer.directions.clone()
    layer.redraw(torch.Generator().manual_seed(1))
    assert not torch.equal(few, layer.directions)


@pytest.mark.parametrize("causal", [True, False])
def test_performer_is_attention_by_its_kernel(causal):
    torch.manual_seed(0)
    layer, x = Performer(WIDTH, HEADS, causal=causal).double(), draw(2, LENGTH, WIDTH)
    q, k, v = (one.unflatten(-1, (HEADS, -1)) for one in layer.project(x).chunk(3, -1))
    scale = q.shape[-1] ** -0.25
    q, k = (positive_features(scale * one, layer.directions) for one in (q, k))
    kernel = torch.einsum("bihm,bjhm->bhij", q, k) * masks(causal)[1]
    weights = kernel / kernel.sum(-1, keepdim=True)
    wanted = layer.out(torch.einsum("bhij,bjhv->bihv", weights, v).flatten(-2))
    torch.testing.assert_close(layer(x)[0], wanted)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("channels", [4, 32, 256])
def test_performer_withstands_large_inputs(channels, causal):
    torch.manual_seed(0)
    layer = Performer(2 * channels, 2, causal=causal)
    for scale in (1.0, 3.0, 30.0, 1000.0):
        x = (scale * torch.randn(1, 40, 2 * channels)).requires_grad_()
        y, _ = layer(x)
        y.sum().backward()
        assert bool(y.isfinite().all() and x.grad.isfinite().all())
        if scale <= 3:
            wide = Performer(2 * channels, 2, causal=causal).double()
            wide.load_state_dict(layer.state_dict())
            torch.testing.assert_close(y.double(), wide(x.double())[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
def test_performer_in_half_precision_is_that_in_single(dtype, tolerance, causal):
    torch.manual_seed(0)
    layer, x = Performer(64, 2, causal=causal).to(dtype), (4 * torch.randn(1, 100, 64)).to(dtype)
    y, wanted = layer(x)[0], layer.float()(x.float())[0]
    assert y.dtype == dtype
    assert (y.float() - wanted).norm() < tolerance * wanted.norm()


CAUSAL = {
    "longformer": lambda: Longformer(WIDTH, HEADS, 3, anchors=2),
    "reformer": lambda: Reformer(WIDTH, HEADS, 3, buckets=4, rounds=3),
    "linformer": lambda: Linformer(WIDTH, HEADS, 4, 2),
    "performer": lambda: Performer(WIDTH, HEADS),
}


@pytest.mark.parametrize("name", CAUSAL)
def test_what_comes_later_changes_nothing(name):
    """A gradient would not tell: which bucket a token is in has none."""
    torch.manual_seed(0)
    layer, x = CAUSAL[name]().double(), draw(2, 40, WIDTH)
    y, _ = layer(x)
    for t in range(1, 40, 3):
        other = torch.cat([x[:, :t], 10 * draw(2, 40 - t, WIDTH, seed=t)], 1)
        found, _ = layer(other)
        torch.testing.assert_close(found[:, :t], y[:, :t], rtol=1e-10, atol=1e-12)
        assert not torch.allclose(found[:, t:], y[:, t:])


@pytest.mark.parametrize("name", CAUSAL)
def test_packed_ones_go_on_from_their_states(name):
    torch.manual_seed(0)
    layer, first, second = CAUSAL[name]().double(), draw(1, 12, WIDTH), draw(1, 9, WIDTH, seed=1)
    _, state = layer(first, cu_seqlens=torch.tensor([0, 5, 5, 12]))
    y, _ = layer(second, state, cu_seqlens=torch.tensor([0, 2, 6, 9]))
    pieces = [
        (first[:, :5], second[:, :2]), (first[:, 5:5], second[:, 2:6]), (first[:, 5:], second[:, 6:])
    ]  # fmt: skip
    wanted = [layer(torch.cat([old, new], 1))[0][:, old.shape[1] :] for old, new in pieces]
    torch.testing.assert_close(y, torch.cat(wanted, 1))


@pytest.mark.parametrize("name", CAUSAL)
def test_no_tokens_leave_a_state_as_it_is(name):
    torch.manual_seed(0)
    layer, x = CAUSAL[name]().double(), draw(2, 7, WIDTH)
    nothing, empty = layer(x[:, :0])
    assert nothing.shape == (2, 0, WIDTH)
    y, state = layer(x, empty)
    torch.testing.assert_close(y, layer(x)[0])
    nothing, same = layer(x[:, :0], state)
    assert nothing.shape == (2, 0, WIDTH)
    for one, two in zip(same, state, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("make", [
    lambda: Performer(WIDTH, HEADS, causal=False),
    lambda: Reformer(WIDTH, HEADS, 3, causal=False),
    lambda: Longformer(WIDTH, HEADS, 4, causal=False),
    lambda: Linformer(WIDTH, HEADS, 9, 4, causal=False),
])  # fmt: skip
def test_those_that_are_not_causal(make):
    torch.manual_seed(0)
    layer, x = make().double(), draw(1, 9, WIDTH)
    y, state = layer(x)
    assert state is None
    # The future counts.
    assert (layer(torch.cat([x[:, :8], -x[:, 8:]], 1))[0][:, 7] - y[:, 7]).abs().max() > 1e-6
    # Packed there are more tokens than any of them may have.
    packed, state = layer(torch.cat([x, x[:, :4]], 1), cu_seqlens=torch.tensor([0, 4, 9, 13]))
    apart = [layer(one)[0] for one in (x[:, :4], x[:, 4:], x[:, :4])]
    torch.testing.assert_close(packed, torch.cat(apart, 1))
    assert state is None
    assert torch.autograd.gradcheck(lambda x: layer(x)[0], x[:, :4].requires_grad_(), nondet_tol=1e-12)
    with pytest.raises(ValueError, match="state"):
        layer(x, y)


@pytest.mark.parametrize("kind", [Longformer, Reformer, Linformer, Performer])
def test_heads_share_channels(kind):
    with pytest.raises(ValueError, match="3 heads"):
        kind(8, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Longformer(8, 2, 0), "window is 0"),
        (lambda: Longformer(8, 2, 4, anchors=-1), "anchors -1"),
        (lambda: Reformer(8, 2, buckets=3), "buckets 3"),
        (lambda: Reformer(8, 2, rounds=0), "rounds 0"),
        (lambda: Linformer(8, 2, 4, 5), "rank is 5"),
        (lambda: Performer(8, 2, features=0), "features is 0"),
        (lambda: Linformer(8, 2, 4, 2, causal=False)(torch.zeros(1, 5, 8)), "5 tokens"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 20), st.integers(0, 6), st.integers(0, 5), st.integers(0, 5), st.booleans())
def test_blocks_hold_what_is_near(length, before, behind, ahead, owned):
    before = 0 if owned else before
    k = torch.arange(float(before + length)).reshape(1, -1, 1, 1)
    owner = torch.arange(length) // 3 if owned else None
    q, near, _, seen = blocks(k[:, before:], k, k, behind, ahead, owner)
    for i in range(length):
        block, row = divmod(i, q.shape[2])
        found = near[0, block, seen[block, row], 0, 0].tolist()
        wanted = [j for j in range(before + length) if -ahead <= before + i - j <= behind]
        if owned:
            wanted = [j for j in wanted if j // 3 == i // 3]
        assert found == wanted
    assert bool(seen.any(-1).all())


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 3), max_size=8), min_size=1, max_size=4), st.integers(0, 3))
def test_rows_side_by_side_are_lists(times, room):
    """Each time some rows come to each of four owners."""
    kept, had = [torch.zeros(4, room)], torch.zeros(4, dtype=torch.int64)
    lists = [[] for _ in range(4)]
    value = 0.0
    for time in times:
        owner = torch.tensor(sorted(time), dtype=torch.int64)
        rows = value + torch.arange(1.0, len(time) + 1)
        value += len(time)
        bounds, place, (stream,) = side_by_side(owner, 4, room, [rows], kept, had)
        assert torch.equal(stream[place], rows)
        for number in range(4):
            old = lists[number][max(0, len(lists[number]) - room) :]
            lists[number] += rows[owner == number].tolist()
            assert (
                stream[bounds[number] : bounds[number + 1]].tolist() == old + rows[owner == number].tolist()
            )
        kept = [remembered(stream, bounds, room)]
        had = had + torch.bincount(owner, minlength=4)
    for one, number in zip(kept[0].tolist(), range(4), strict=True):
        wanted = lists[number][max(0, len(lists[number]) - room) :]
        assert one == [0.0] * (room - len(wanted)) + wanted
