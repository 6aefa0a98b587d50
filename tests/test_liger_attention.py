"""Liger attention beside a slow form, in pieces, with padding; gradients."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learnsolve.linearize import GATES, LigerAttention, LigerOptions, LoRAOptions, liger_attention, windows


def drawn(length, heads=4, groups=2, size=4, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, length, n, size) for n in (heads, heads // groups, heads // groups)]
    q, k, v = (torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes)
    angles = torch.arange(length)[:, None] * torch.tensor([1.0, 0.1] * 2)[None].double()
    return q, k, v, (angles.cos()[None], angles.sin()[None])


def part(given, begin, end):
    q, k, v, (cos, sin) = given
    return *(one[:, begin:end] for one in (q, k, v)), (cos[:, begin:end], sin[:, begin:end])


def softmax(row):
    return (row - row.max()).exp() / (row - row.max()).exp().sum()


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def recurrence(gate, q, k, v):
    """Token after token, of one head."""
    S, z, found = torch.zeros(4, 4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64), []
    for t in range(len(q)):
        if gate in ("gla", "scalar-gla"):
            alpha = sigmoid(k[t] if gate == "gla" else k[t].mean().expand(4)) ** (1 / 16)
            S = alpha[:, None] * S + torch.outer(softmax(k[t]), v[t])
            found.append(S.T @ softmax(q[t]))
        elif gate == "hgrn2":
            S = sigmoid(k[t])[:, None] * S + torch.outer(1 - sigmoid(k[t]), v[t])
            found.append(S.T @ softmax(q[t]))
        elif gate == "lightnet":
            S, z = S + torch.outer(k[t].exp(), v[t]), z + k[t].exp()
            found.append((S / z[:, None]).T @ softmax(q[t]))
        else:
            beta = sigmoid(k[t].mean())
            key, query = k[t] / k[t].norm(), q[t] / q[t].norm()
            S = beta ** (1 / 16) * S
            S = S + beta * torch.outer(key, v[t] - S.T @ key)
            found.append(S.T @ query)
    return torch.stack(found)


def within(q, k, v, angles, window):
    """Softmax attention token after token, of one head."""

    def turned(x):
        one, two = x.chunk(2, -1)
        cos, sin = angles
        return torch.cat([one * cos[:, :2] - two * sin[:, :2], two * cos[:, 2:] + one * sin[:, 2:]], -1)

    q, k, found = turned(q), turned(k), []
    for t in range(len(q)):
        begin = max(0, t + 1 - window)
        found.append(softmax(k[begin : t + 1] @ q[t] / math.sqrt(4)) @ v[begin : t + 1])
    return torch.stack(found)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(
    ("length", "window", "share"), [(1, 3, 0.5), (13, 4, 0.5), (29, 1, 0.3), (9, 30, 1.0)]
)
def test_the_fast_form_is_the_slow_one(gate, length, window, share):
    q, k, v, turns = given = drawn(length)
    y, _ = liger_attention(*given, LigerOptions(gate, window, share))
    for row in range(2):
        for head in range(4):
            one = q[row, :, head], k[row, :, head // 2], v[row, :, head // 2]
            near = within(*one, (turns[0][0], turns[1][0]), window)
            expected = (1 - share) * near + share * recurrence(gate, *one)
            torch.testing.assert_close(y[row, :, head], expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("gate", GATES)
@settings(max_examples=15)
@given(cuts=st.lists(st.integers(0, 17), max_size=5), window=st.integers(1, 8))
def test_in_pieces_as_at_once(gate, cuts, window):
    given, options = drawn(17), LigerOptions(gate, window)
    whole, last = liger_attention(*given, options)
    found, state = [], None
    for begin, end in pairwise([0, *sorted(cuts), 17]):
        y, state = liger_attention(*part(given, begin, end), options, state)
        found.append(y)
    torch.testing.assert_close(torch.cat(found, 1), whole)
    assert state.seen == last.seen == 17 and state.keys.shape[1] == min(window - 1, 17)
    for one, other in zip([state.keys, state.values, *state.recurrent],
                          [last.keys, last.values, *last.recurrent], strict=True):  # fmt: skip
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("gate", GATES)
def test_later_tokens_change_nothing_earlier(gate):
    (q, k, v, turns), options = drawn(12), LigerOptions(gate, 5)
    before, _ = liger_attention(q, k, v, turns, options)
    for one in (q, k, v):
        one[:, 8:] += 1
    after, _ = liger_attention(q, k, v, turns, options)
    torch.testing.assert_close(before[:, :8], after[:, :8])
    assert (before[:, 8:] - after[:, 8:]).abs().amax((2, 3)).min() > 1e-4


@pytest.mark.parametrize("gate", GATES)
def test_what_left_the_window_still_counts(gate):
    (q, k, v, turns), options = drawn(12), LigerOptions(gate, 3)
    before, _ = liger_attention(q, k, v, turns, options)
    v[:, 0] += 1
    after, _ = liger_attention(q, k, v, turns, options)
    assert (before[:, -1] - after[:, -1]).abs().max() > 1e-4
    alone = LigerOptions(gate, 3, share=0.0)
    ends = liger_attention(q, k, v, turns, alone)[0][:, -1]
    v[:, 0] += 1
    assert torch.equal(liger_attention(q, k, v, turns, alone)[0][:, -1], ends)


@pytest.mark.parametrize("gate", GATES)
def test_gradients(gate):
    q, k, v, turns = drawn(5, heads=2, batch=1)
    inputs = [one.requires_grad_() for one in (q, k, v)]
    options = LigerOptions(gate, 3)
    assert torch.autograd.gradcheck(lambda *x: liger_attention(*x, turns, options)[0], inputs)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("split", [9, 6, 3])
def test_padding_leaves_no_trace(gate, split):
    # Five tokens without padding, and the same ones after four that are padding.
    given, options = drawn(9), LigerOptions(gate, 4)
    expected, _ = liger_attention(*part(given, 4, 9), options)
    valid = torch.ones(2, 9, dtype=torch.bool)
    valid[1, :4] = False
    found, state = [], None
    for begin, end in ((0, split), (split, 9)):
        mask = valid[:, begin:end]
        y, state = liger_attention(
            *part(given, begin, end), options, state, valid=None if mask.all() else mask
        )
        found.append(y)
    y = torch.cat(found, 1)
    torch.testing.assert_close(y[1, 4:], expected[1])
    torch.testing.assert_close(y[0], liger_attention(*given, options)[0][0])


def test_padding_that_comes_late_is_known_too():
    given, options = drawn(8, batch=1), LigerOptions("gla", 6)
    _, state = liger_attention(*part(given, 0, 3), options)
    _, state = liger_attention(*part(given, 3, 5), options, state, valid=torch.zeros(1, 2, dtype=torch.bool))
    found, _ = liger_attention(*part(given, 5, 8), options, state)
    q, k, v, (cos, sin) = given
    there = [0, 1, 2, 5, 6, 7]
    # The window counts what is padded, so that of six tokens it still holds all of these but for the last.
    expected, _ = liger_attention(
        q[:, there], k[:, there], v[:, there], (cos[:, there], sin[:, there]), LigerOptions("gla", 4)
    )
    torch.testing.assert_close(found[:, 0], expected[:, 3])


def test_sums_are_kept_in_single_precision():
    q, k, v, turns = drawn(6)
    half = [one.to(torch.bfloat16) for one in (q, k, v)]
    y, state = liger_attention(*half, tuple(one.to(torch.bfloat16) for one in turns), LigerOptions(window=3))
    assert y.dtype == state.keys.dtype == torch.bfloat16 and state.recurrent[0].dtype == torch.float32
    expected, _ = liger_attention(q, k, v, turns, LigerOptions(window=3))
    torch.testing.assert_close(y.double(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LigerOptions("none"), "gate is 'none'; gla, "),
        (lambda: LigerOptions(window=0), "window is 0"),
        (lambda: LigerOptions(window=2.5), "window is 2.5"),
        (lambda: LigerOptions(share=1.5), "share is 1.5"),
        (lambda: LoRAOptions(rank=0), "rank is 0"),
        (lambda: LoRAOptions(alpha=-1), "alpha -1"),
        (lambda: LigerAttention(torch.nn.Linear(2, 2), LigerOptions()), "Linear is no attention"),
        (lambda: liger_attention(drawn(3, 3, 1)[0], *drawn(3)[1:], LigerOptions()), "a multiple"),
        (lambda: windows(torch.arange(5), 2, 5), "length 5"),
        (lambda: windows(torch.arange(5), 0, 3), "0 windows"),
    ],
)
def test_what_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
