"""Additive attention: a running softmax, its states, packed sequences, gradients."""

from itertools import pairwise

import pytest
import torch

from learnsolve.sequence import additive_attention

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def problem(length, batch=2):
    return (
        draw(batch, length, 2, n, seed=seed) * scale for n, seed, scale in ((6, 0, 1), (6, 1, 3), (5, 2, 1))
    )


def definition(q, k, v):
    weights = k.exp()
    above = torch.einsum("bthk,bthv->bthkv", weights, v).cumsum(1)
    return torch.einsum("bthk,bthkv->bthv", q, above / weights.cumsum(1).unsqueeze(-1))


@pytest.mark.parametrize("length", [1, 63, 65, 100, 1000])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_it_is_a_running_softmax(length, dtype):
    q, k, v = (one.to(dtype) for one in problem(length))
    wanted = definition(*(one.double() for one in (q, k, v)))
    o, (mean, weight) = additive_attention(q, k, v)
    assert o.dtype == dtype
    assert (o.double() - wanted).norm() < TOLERANCES[dtype] * wanted.norm()
    error = 1e-12 if dtype == torch.float64 else 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(weight.double(), k.double().logsumexp(1), rtol=error, atol=error)
    whole, (same, _) = additive_attention(q, k, v, causal=False)
    assert (whole[:, -1].double() - wanted[:, -1]).norm() < 2 * TOLERANCES[dtype] * wanted[:, -1].norm()
    assert (mean.double() - same.double()).norm() < 2 * TOLERANCES[dtype] * same.double().norm()


def test_large_keys_neither_overflow_nor_vanish():
    q, k, v = problem(50)
    for shift in (-1e4, 1e4):
        torch.testing.assert_close(
            additive_attention(q, k + shift, v)[0], definition(q, k, v), rtol=1e-8, atol=1e-8
        )


@pytest.mark.parametrize("lengths", [(4, 7), (1,) * 11, (0, 11), (11, 0)])
def test_in_parts_as_in_one(lengths):
    q, k, v = problem(11)
    whole, last = additive_attention(q, k, v)
    state, rows = None, []
    for part in zip(*(one.split(lengths, 1) for one in (q, k, v)), strict=True):
        o, state = additive_attention(*part, initial_state=state)
        rows.append(o)
    torch.testing.assert_close(torch.cat(rows, 1), whole)
    torch.testing.assert_close(state, last)


def test_packed_as_apart():
    q, k, v = problem(12, batch=1)
    bounds = [0, 5, 6, 12]
    before = (draw(3, 2, 6, 5, seed=5), draw(3, 2, 6, seed=6))
    packed, last = additive_attention(q, k, v, initial_state=before, cu_seqlens=torch.tensor(bounds))
    for number, (begin, end) in enumerate(pairwise(bounds)):
        start = tuple(one[number : number + 1] for one in before)
        o, state = additive_attention(*(one[:, begin:end] for one in (q, k, v)), initial_state=start)
        torch.testing.assert_close(packed[:, begin:end], o)
        for one, two in zip(last, state, strict=True):
            torch.testing.assert_close(one[number : number + 1], two)


@pytest.mark.parametrize("causal", [True, False])
def test_gradients(causal):
    given = [one.requires_grad_() for one in problem(5, batch=1)]
    assert torch.autograd.gradcheck(lambda q, k, v: additive_attention(q, k, v, causal=causal)[0], given)
    if causal:
        before = [draw(1, 2, 6, 5, seed=5).requires_grad_(), draw(1, 2, 6, seed=6).requires_grad_()]

        def task(q, k, v, S, z):
            o, (mean, weight) = additive_attention(q, k, v, initial_state=(S, z))
            return o, mean, weight

        assert torch.autograd.gradcheck(task, (*given, *before))


def test_what_is_refused():
    q, k, v = problem(5)
    with pytest.raises(ValueError, match="the same"):
        additive_attention(q, k[:, :3], v)
    with pytest.raises(ValueError, match="without an order"):
        additive_attention(q, k, v, causal=False, cu_seqlens=torch.tensor([0, 5]))
    with pytest.raises(ValueError, match="z of initial_state"):
        additive_attention(q, k, v, initial_state=(draw(2, 2, 6, 5), draw(1, 2, 6)))
    with pytest.raises(ValueError, match="cu_seqlens"):
        additive_attention(*(one[:1] for one in (q, k, v)), cu_seqlens=torch.tensor([0, 6, 5]))
