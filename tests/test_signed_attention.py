"""Linear attention with decays of either sign, against its definition step by step."""

from itertools import pairwise

import pytest
import torch

from learnsolve.sequence import linear_attention, signed_attention


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def problem(batch, length, channels):
    q, k, v = (draw(batch, length, 2, n, seed=seed) for seed, n in enumerate((3, 3, 4)))
    a = draw(batch, length, 2, *((3,) if channels else ()), seed=4)
    return q, k, v, a.sign() * (0.2 + 0.7 * a.abs() / a.abs().max())


def slow(q, k, v, a, S):
    """One sequence, one step after the other."""
    rows = []
    for t in range(len(q)):
        S = a[t].reshape(2, -1, 1) * S + k[t].unsqueeze(-1) * v[t].unsqueeze(-2)
        rows.append((q[t].unsqueeze(-2) @ S)[:, 0] * 3**-0.5)
    return (torch.stack(rows) if rows else v), S


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("bounds", [None, [0, 4, 4, 11]])
def test_it_is_the_recurrence(channels, bounds):
    q, k, v, a = problem(2 if bounds is None else 1, 11, channels)
    pieces = [(n, 0, 11) for n in range(2)] if bounds is None else [(0, *two) for two in pairwise(bounds)]
    first = draw(len(pieces), 2, 3, 4, seed=9)
    packed = None if bounds is None else torch.tensor(bounds)
    o, last = signed_attention(q, k, v, a, initial_state=first, cu_seqlens=packed)
    for number, (n, begin, end) in enumerate(pieces):
        wanted, S = slow(*(one[n, begin:end] for one in (q, k, v, a)), first[number])
        torch.testing.assert_close(o[n, begin:end], wanted)
        torch.testing.assert_close(last[number], S)


@pytest.mark.parametrize("channels", [False, True])
def test_gradients_are_right(channels):
    q, k, v, a = (one.requires_grad_() for one in problem(1, 6, channels))
    first = draw(1, 2, 3, 4, seed=9).requires_grad_()

    def attend(q, k, v, a, first):
        return signed_attention(q, k, v, a, initial_state=first)

    assert torch.autograd.gradcheck(attend, (q, k, v, a, first))


def test_positive_decays_are_those_of_linear_attention():
    q, k, v, a = problem(2, 9, True)
    torch.testing.assert_close(
        signed_attention(q, k, v, a.abs()), linear_attention(q, k, v, a.abs().log()), rtol=1e-12, atol=1e-12
    )


def test_a_decay_of_zero_forgets():
    q, k, v, a = problem(1, 5, False)
    a = torch.where(torch.arange(5)[:, None] == 3, 0.0, a)
    o, _ = signed_attention(q, k, v, a)
    alone, _ = signed_attention(*(one[:, 3:] for one in (q, k, v, a)))
    torch.testing.assert_close(o[:, 3:], alone, rtol=1e-5, atol=1e-5)


def test_what_is_refused():
    q, k, v, a = problem(1, 5, False)
    with pytest.raises(ValueError, match="up to"):
        signed_attention(q, k, v, 2 * a)
    with pytest.raises(ValueError, match="decay has shape"):
        signed_attention(q, k, v, a[:, :2])
    with pytest.raises(ValueError, match="are accepted"):
        signed_attention(q, k[:, :2], v, a)
