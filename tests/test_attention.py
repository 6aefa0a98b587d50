"""Linear attention and the delta rule: definitions, gradients, states, packed sequences."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.linalg
import torch

from learnsolve.kernels import attention, attention_chunked, attention_reference
from learnsolve.sequence import delta_rule, linear_attention

FORMS = ["numba", "chunked"]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.fixture
def form(request, monkeypatch):
    """By chunks all devices can, so that the CPU tells how the others fare."""
    if request.param == "chunked":
        monkeypatch.setattr(attention, "_NUMBA", ())
    return request.param


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def problem(length, batch=2, heads=2, K=6, V=5, decay=None, seed=0):
    q, k, v = (
        draw(batch, length, heads, K, seed=seed),
        draw(batch, length, heads, K, seed=seed + 1),
        draw(batch, length, heads, V, seed=seed + 2),
    )
    k = torch.nn.functional.normalize(k, dim=-1)
    beta = 2 * torch.rand(
        batch, length, heads, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    g = None
    if decay is not None:
        g = -draw(batch, length, heads, *((K,) if decay == "channel" else ()), seed=seed + 3).abs()
    return q, k, v, beta, g


def dense(q, k, g):
    """The lower triangular matrix of one head: q_i diag(e^(G_i - G_j)) k_j."""
    length, K = q.shape
    G = (
        torch.zeros(length, K, dtype=q.dtype)
        if g is None
        else g.reshape(length, -1).expand(length, K).cumsum(0)
    )
    M = torch.zeros(length, length, dtype=q.dtype)
    for i in range(length):
        for j in range(i + 1):
            M[i, j] = (q[i] * (G[i] - G[j]).exp() * k[j]).sum()
    return M


@pytest.mark.parametrize("decay", [None, "head", "channel"])
def test_attention_is_a_product_with_a_triangular_matrix(decay):
    q, k, v, _, g = problem(9, decay=decay)
    o, _ = linear_attention(q, k, v, g, scale=1.0)
    for b in range(2):
        for h in range(2):
            M = dense(q[b, :, h], k[b, :, h], None if g is None else g[b, :, h])
            torch.testing.assert_close(o[b, :, h], M @ v[b, :, h])


@pytest.mark.parametrize("decay", [None, "head"])
def test_the_delta_rule_is_a_triangular_solve(decay):
    q, k, v, beta, g = problem(9, decay=decay)
    o, state = delta_rule(q, k, v, beta, g, scale=1.0)
    for b in range(2):
        for h in range(2):
            at = b, slice(None), h
            decays = None if g is None else g[at]
            lower = dense(k[at], k[at], decays).tril(-1)
            A = torch.eye(9, dtype=torch.float64) + beta[at][:, None] * lower
            u = scipy.linalg.solve_triangular(A, beta[at][:, None] * v[at], lower=True, unit_diagonal=True)
            torch.testing.assert_close(o[at], dense(q[at], k[at], decays) @ torch.from_numpy(u))
    assert state.shape == (2, 2, 6, 5)


@pytest.mark.parametrize("form", FORMS, indirect=True)
@pytest.mark.parametrize("length", [1, 63, 65, 100, 1000])
@pytest.mark.parametrize("decay", [None, "head", "channel"])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_all_forms_agree_with_the_reference(form, length, decay, dtype):
    q, k, v, beta, g = (None if one is None else one.to(dtype) for one in problem(length, 1, decay=decay))
    first = draw(1, 2, 6, 5, seed=9, dtype=torch.float64).to(dtype)
    exact = [None if one is None else one.double() for one in (q, k, v, beta, g, first)]
    pieces, scale = torch.tensor([[0, 0, length]]), 6**-0.5
    channels = None if exact[4] is None else exact[4].reshape(1, length, 2, -1)
    wanted = [attention_reference.attend(*exact[:3], channels, exact[5], pieces, scale)]
    found = [linear_attention(q, k, v, g, initial_state=first)]
    if decay != "channel":
        wanted.append(attention_reference.delta(*exact[:4], channels, exact[5], pieces, scale))
        with pytest.MonkeyPatch.context() as patch:
            # Keys of norm one are a little longer, once they are rounded.
            patch.setattr("learnsolve.sequence.attention.LARGEST", 2.1)
            found.append(delta_rule(q, k, v, beta, g, initial_state=first))
    for one, other in zip(found, wanted, strict=True):
        for x, y in zip(one, other, strict=True):
            assert x.dtype == dtype
            assert torch.linalg.vector_norm(x.double() - y) <= TOLERANCES[dtype] * torch.linalg.vector_norm(y)


@pytest.mark.parametrize("form", FORMS, indirect=True)
@pytest.mark.parametrize("decay", [None, "head", "channel"])
@pytest.mark.parametrize("packed", [False, True])
def test_gradients_are_right(form, decay, packed):
    q, k, v, beta, g = problem(7, 1 if packed else 2, K=3, V=2, decay=decay)
    bounds = torch.tensor([0, 3, 3, 7]) if packed else None
    first = draw(3 if packed else 2, 2, 3, 2, seed=8)
    given = [one.requires_grad_() for one in (q, k, v, first, *(() if g is None else (g,)))]

    def attend(q, k, v, first, g=None):
        return linear_attention(
            q, k, v, None if g is None else -g.abs(), initial_state=first, cu_seqlens=bounds
        )

    assert torch.autograd.gradcheck(attend, given)
    if decay == "channel":
        return

    def delta(q, k, v, first, beta, g=None):
        return delta_rule(
            q, k, v, beta, None if g is None else -g.abs(), initial_state=first, cu_seqlens=bounds
        )

    given = [*given[:4], (0.8 * beta).requires_grad_(), *given[4:]]
    assert torch.autograd.gradcheck(delta, given)


def test_gradients_where_nothing_is_replaced():
    q, k, v, beta, _ = problem(5)
    beta = torch.where(torch.arange(5)[:, None] % 2 == 0, 0.0, beta).requires_grad_()
    assert torch.autograd.gradcheck(lambda beta: delta_rule(q, k, v, beta), beta)


@pytest.mark.parametrize("form", FORMS, indirect=True)
@pytest.mark.parametrize("decay", [None, "head"])
def test_decoding_is_the_parallel_form(form, decay):
    q, k, v, beta, g = problem(12, decay=decay)
    for call in (lambda q, k, v, beta, g, S: linear_attention(q, k, v, g, initial_state=S),
                 lambda q, k, v, beta, g, S: delta_rule(q, k, v, beta, g, initial_state=S)):  # fmt: skip
        o, last = call(q, k, v, beta, g, None)
        state = None
        for t in range(12):
            at = slice(t, t + 1)
            now, state = call(
                q[:, at], k[:, at], v[:, at], beta[:, at], None if g is None else g[:, at], state
            )
            torch.testing.assert_close(now, o[:, at])
        torch.testing.assert_close(state, last)


def test_packed_sequences_do_not_see_each_other():
    q, k, v, beta, g = problem(11, 1, decay="head")
    bounds = [0, 4, 4, 11]
    first = draw(3, 2, 6, 5, seed=8)
    o, last = delta_rule(q, k, v, beta, g, initial_state=first, cu_seqlens=torch.tensor(bounds))
    for number, (begin, end) in enumerate(pairwise(bounds)):
        at = slice(begin, end)
        alone, state = delta_rule(
            q[:, at], k[:, at], v[:, at], beta[:, at], g[:, at], initial_state=first[number : number + 1]
        )
        torch.testing.assert_close(o[:, at], alone)
        torch.testing.assert_close(last[number : number + 1], state)


@pytest.mark.parametrize("form", FORMS, indirect=True)
@pytest.mark.parametrize("keys", ["correlated", "identical"])
def test_keys_that_are_alike_stay_exact(form, keys):
    """Beta of two and keys that hardly differ is where powers of the matrix are not finite."""
    q, k, v, beta, _ = problem(256, 1, K=32, V=32)
    common = draw(1, 1, 2, 32, seed=5)
    k = common + (0.3 * k if keys == "correlated" else 0 * k)
    k = torch.nn.functional.normalize(k, dim=-1)
    two = torch.full_like(beta, 2.0)
    wanted, _ = delta_rule(q, k, v, two)
    single = [one.float() for one in (q, torch.nn.functional.normalize(k.float(), dim=-1), v, two)]
    found, _ = delta_rule(*single)
    assert torch.isfinite(found).all()
    assert torch.linalg.vector_norm(found.double() - wanted) <= 5e-5 * torch.linalg.vector_norm(wanted)


@pytest.mark.parametrize("decay", [None, "head", "channel"])
def test_chunks_and_their_segments_are_the_recurrence(decay, monkeypatch):
    """Ragged last chunks, several segments, sequences of several lengths, and one that is empty."""
    monkeypatch.setattr(attention_chunked, "CHUNK", 8)
    monkeypatch.setattr(attention_chunked, "CHUNK_OF_CHANNELS", 4)
    monkeypatch.setattr(attention_chunked, "SEGMENT", 2)
    q, k, v, beta, g = problem(50, decay=decay)
    g = None if g is None else 30 * g.reshape(2, 50, 2, -1)
    pieces = torch.tensor([[0, 0, 20], [0, 20, 20], [0, 20, 50], [1, 0, 20], [1, 20, 50]])
    first, dlast = draw(5, 2, 6, 5, seed=8), draw(5, 2, 6, 5, seed=5)
    do = draw(2, 50, 2, 5, seed=4)
    o, last = attention_chunked.attend(q, k, v, g, first, pieces, 0.5)
    torch.testing.assert_close((o, last), attention.attend(q, k, v, g, first, pieces, 0.5))
    found = attention_chunked.attend_adjoint(q, k, v, g, first, pieces, 0.5, do, dlast)
    torch.testing.assert_close(
        found, attention.attend_adjoint(q, k, v, g, first, pieces, 0.5, do, last, dlast)
    )
    torch.testing.assert_close(
        attention_chunked.substitute(q, k, v, g, pieces), attention.substitute(q, k, v, g, pieces)
    )
    if decay == "channel":
        return
    o, last, u = attention_chunked.delta(q, k, v, beta, g, first, pieces, 0.5)
    torch.testing.assert_close((o, last, u), attention.delta(q, k, v, beta, g, first, pieces, 0.5))
    found = attention_chunked.delta_adjoint(q, k, v, beta, g, first, pieces, 0.5, do, dlast)
    wanted = attention.delta_adjoint(q, k, v, beta, g, first, pieces, 0.5, u, o, do, last, dlast)
    torch.testing.assert_close(found, wanted)


def test_empty_sequences_and_what_is_refused():
    q, k, v, beta, g = problem(4, decay="head")
    o, state = delta_rule(q[:, :0], k[:, :0], v[:, :0], beta[:, :0])
    assert o.shape == (2, 0, 2, 5)
    assert not state.any()
    for call, what in (
        (lambda: linear_attention(q, k[:, :2], v), "are accepted"),
        (lambda: linear_attention(q, k, v, -g), "at most zero"),
        (lambda: delta_rule(q, k, v, beta[..., 0]), "beta has shape"),
        (lambda: delta_rule(q, k, v, beta, g.unsqueeze(-1).expand_as(k)), "log_decay has shape"),
        (lambda: linear_attention(q, k, v, initial_state=draw(1, 2, 6, 5)), "initial_state has shape"),
        (lambda: linear_attention(q, k, v, cu_seqlens=torch.tensor([0, 4])), "one batch"),
        (lambda: linear_attention(q[:1], k[:1], v[:1], cu_seqlens=torch.tensor([0, 3, 2, 4])), "rise from"),
    ):
        with pytest.raises(ValueError, match=what):
            call()
    with pytest.raises(TypeError, match=r"q is of torch\.int64"):
        linear_attention(q.long(), k, v)
    with pytest.warns(RuntimeWarning, match="may grow without bound"):
        delta_rule(q, k, v, 2 * beta + 2)


def test_channels_of_several_threads_are_those_of_one():
    q, k, v, beta, _ = problem(300, 1, heads=4, K=16, V=16)
    o, _ = delta_rule(q, k, v, beta)
    alone = [
        delta_rule(q[:, :, h : h + 1], k[:, :, h : h + 1], v[:, :, h : h + 1], beta[:, :, h : h + 1])[0]
        for h in range(4)
    ]
    np.testing.assert_allclose(o, torch.cat(alone, 2), rtol=1e-10, atol=1e-12)
