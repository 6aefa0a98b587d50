"""Sums of moving averages: definition, states, packed sequences, gradients, transforms, bad input."""

from itertools import pairwise

import pytest
import torch

from learnsolve.kernels import moving_average as kernels
from learnsolve.kernels import moving_average_reference as reference
from learnsolve.sequence import chunked_attention, moving_average
from learnsolve.sequence.functional import sequences
from learnsolve.sequence.moving_average import kernel

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def decays(*shape):
    return 1.6 * torch.sigmoid(draw(*shape, seed=9)) - 0.7


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 100])
@pytest.mark.parametrize("states", [1, 4, 6])
@pytest.mark.parametrize("channels", [1, 70])
def test_it_is_its_definition(dtype, length, states, channels):
    x, q, c = draw(2, length, channels), decays(states, channels), draw(states, channels, seed=2)
    first = draw(2, states, channels, seed=3)
    wanted = reference.average(x, q, c, first, sequences(2, length, None))
    given = [one.to(dtype) for one in (x, q, c)]
    found = moving_average(*given, initial_state=first.to(dtype))
    for one, two in zip(found, wanted, strict=True):
        assert one.dtype == dtype
        assert (one.double() - two).norm() <= TOLERANCES[dtype] * two.norm()


def test_transforms_give_the_same():
    x, q, c = draw(2, 200, 5), decays(3, 5).abs(), draw(3, 5, seed=2)
    for one, two in zip(moving_average(x, q, c), moving_average(x, q, c, method="fft"), strict=True):
        torch.testing.assert_close(one, two)
    taps = kernel(q, c, 4)
    torch.testing.assert_close(taps[3], (c * q**3).sum(0))


def test_packed_sequences_do_not_see_each_other():
    x, q, c, before = draw(1, 80, 3), decays(2, 3), draw(2, 3, seed=2), draw(4, 2, 3, seed=3)
    bounds = [0, 33, 33, 40, 80]
    y, last = moving_average(x, q, c, initial_state=before, cu_seqlens=torch.tensor(bounds))
    for number, (a, b) in enumerate(pairwise(bounds)):
        part, state = moving_average(x[:, a:b], q, c, initial_state=before[number : number + 1])
        torch.testing.assert_close(y[:, a:b], part)
        torch.testing.assert_close(last[number : number + 1], state)


@pytest.mark.parametrize("form", ["compiled", "by recurrence"])
def test_gradients(form, monkeypatch):
    if form == "by recurrence":
        # As on a device that has no compiled form.
        monkeypatch.setattr(kernels, "_NUMBA", ())
    bounds = torch.tensor([0, 3, 3, 40])
    given = [one.requires_grad_() for one in (draw(1, 40, 2), decays(3, 2), draw(3, 2), draw(3, 3, 2))]

    def task(x, q, c, first):
        return moving_average(x, q, c, initial_state=first, cu_seqlens=bounds)

    assert torch.autograd.gradcheck(task, given, nondet_tol=1e-12)


def test_forms_agree(monkeypatch):
    x, q, c, first = draw(2, 50, 5), decays(6, 5), draw(6, 5, seed=2), draw(2, 6, 5, seed=3)
    one = moving_average(x, q, c, initial_state=first)
    monkeypatch.setattr(kernels, "_NUMBA", ())
    two = moving_average(x, q, c, initial_state=first)
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"q": torch.zeros(2, 4)}, "q"),
        ({"c": torch.zeros(3, 3)}, "c"),
        ({"x": torch.zeros(5, 3)}, "x"),
        ({"initial_state": torch.zeros(1, 2, 4)}, "initial_state"),
        ({"method": "loop"}, "method"),
        ({"cu_seqlens": torch.tensor([0, 4])}, "cu_seqlens"),
        ({"method": "fft", "initial_state": torch.zeros(1, 2, 3)}, "transforms"),
        ({"method": "fft", "cu_seqlens": torch.tensor([0, 5])}, "transforms"),
    ],
)
def test_bad_input(changed, message):
    given = {"x": torch.zeros(1, 5, 3), "q": torch.zeros(2, 3), "c": torch.zeros(2, 3)} | changed
    with pytest.raises(ValueError, match=message):
        moving_average(**given)


def test_integers_are_no_numbers():
    with pytest.raises(TypeError, match="int64"):
        moving_average(torch.zeros(1, 5, 3, dtype=torch.int64), torch.zeros(2, 3), torch.zeros(2, 3))


@pytest.mark.parametrize("length", [1, 7, 8, 9, 30])
@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("before", [0, 3])
def test_chunks_are_those_of_a_mask(length, chunk, before):
    begun = min(before, chunk - 1)
    q, k, v = (draw(2, begun + length, 3, 4, seed=n) for n in range(3))
    places = torch.arange(begun + length)
    seen = (places[:, None] // chunk == places // chunk) & (places[:, None] >= places)
    scores = torch.einsum("bihk,bjhk->bhij", q, k) / 2
    weights = torch.softmax(scores.masked_fill(~seen, -torch.inf), -1)
    wanted = torch.einsum("bhij,bjhv->bihv", weights, v)[:, begun:]
    new, state = [one[:, begun:] for one in (q, k, v)], (k[:, :begun], v[:, :begun])
    o, after = chunked_attention(*new, chunk, initial_state=state)
    torch.testing.assert_close(o, wanted)
    assert torch.equal(after[0], k[:, (begun + length) // chunk * chunk :])


def test_chunks_of_packed_sequences():
    q, k, v = (draw(1, 12, 2, 3, seed=n) for n in range(3))
    o, states = chunked_attention(q, k, v, 3, cu_seqlens=torch.tensor([0, 5, 12]))
    parts = [chunked_attention(*(one[:, a:b] for one in (q, k, v)), 3) for a, b in ((0, 5), (5, 12))]
    torch.testing.assert_close(o, torch.cat([part for part, _ in parts], 1))
    for state, (_, wanted) in zip(states, parts, strict=True):
        assert torch.equal(state[0], wanted[0])
    more = [draw(1, 4, 2, 3, seed=n) for n in (5, 6, 7)]
    o, _ = chunked_attention(*more, 3, cu_seqlens=torch.tensor([0, 2, 4]), initial_state=states)
    one, _ = chunked_attention(*(x[:, 2:] for x in more), 3, initial_state=states[1])
    torch.testing.assert_close(o[:, 2:], one)


@pytest.mark.parametrize(
    ("chunk", "state", "message"), [(0, None, "chunk is 0"), (2, 2, "2 tokens of a chunk of 2")]
)
def test_chunks_refuse(chunk, state, message):
    q = draw(1, 4, 1, 2)
    before = None if state is None else (q[:, :state], q[:, :state])
    with pytest.raises(ValueError, match=message):
        chunked_attention(q, q, q, chunk, initial_state=before)
