"""The Triton forms of sequences against the reference: on the CPU under TRITON_INTERPRET=1, else on a GPU.

Not collected by itself, as `triton_forms.py` is not.
"""

import os
from functools import cache

import pytest
import torch
from torch.nn.functional import normalize

from learnsolve.kernels import (
    attention_reference,
    attention_triton,
    chunked_adjoint_triton,
    chunked_triton,
    convolution_reference,
    convolution_triton,
    recurrence_reference,
    recurrence_triton,
)
from tests.kernel_cases import poison

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 2e-2}
# Two batches of two heads; then one of one, of which a program costs the interpreter less time.
SHAPES = [(2, 1, 2, 5, 3), (2, 15, 2, 5, 3), (1, 33, 1, 16, 7)]
LONG = [(1, 65, 1, 5, 16)]
WIDE = [(1, 9, 1, 40, 20)]
SHAPES += [] if INTERPRETED else [(2, 1000, 2, 64, 64), (1, 1000, 2, 100, 70)]
DTYPES = [torch.float64, torch.float32]


def kinds(cases, few):
    """All cases in both precisions; where they are interpreted, in single precision a few, for it is slow."""
    return [(torch.float64, one) for one in cases] + [
        (torch.float32, one) for one in (few if INTERPRETED else cases)
    ]


LOW = [torch.float16] if INTERPRETED else [torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Memory as it may be handed out: full of NaN."""
    for name in ("empty", "empty_like"):
        form = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *given, form=form, **options: poison(form(*given, **options)))


@pytest.fixture(params=[16] if INTERPRETED else [16, 32])
def chunk(monkeypatch, request):
    monkeypatch.setattr(chunked_triton, "CHUNK", request.param)


def draw(*shape, seed):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def split(batch, length):
    """One sequence for a batch, of the last one several: a short one, one of no time, and what is left."""
    cut, last = min(3, length), batch - 1
    whole = [[n, 0, length] for n in range(last)]
    return torch.tensor([*whole, [last, 0, cut], [last, cut, cut], [last, cut, length]])


def problem(shape, decay, dtype, kind=None):
    """Inputs by name; of a kind keys are nearly the same and every beta two, of another some forget all."""
    batch, length, heads, K, V = shape
    tokens, pieces = (batch, length, heads), split(batch, length)
    k, beta = draw(*tokens, K, seed=1), 2 * draw(*tokens, seed=2).sigmoid()
    if kind == "alike":
        k, beta = draw(1, 1, heads, K, seed=3) + 0.3 * k, torch.full_like(beta, 2.0)
    g = None if decay is None else -draw(*tokens, K if decay == "channel" else 1, seed=4).abs()
    if kind == "forgetful":
        g[:, [4, 9, 10, 18]] = -torch.inf
    states = torch.float64 if dtype == torch.float64 else torch.float32
    given = {
        "q": draw(*tokens, K, seed=0),
        "k": normalize(k, dim=-1),
        "v": draw(*tokens, V, seed=5),
        "beta": beta,
        "g": g,
        "first": draw(len(pieces), heads, K, V, seed=6).to(states),
        "do": draw(*tokens, V, seed=7),
        "dlast": draw(len(pieces), heads, K, V, seed=8).to(states),
    }
    for name in ("q", "k", "v", "beta", "g", "do"):
        given[name] = None if given[name] is None else given[name].to(dtype)
    return given, pieces


def on_device(*tensors):
    return [None if one is None else one.to(DEVICE) for one in tensors]


def close(found, wanted, tolerance):
    for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
        if other is not None:
            error = torch.linalg.vector_norm(one.cpu().double() - other)
            assert error <= tolerance * torch.linalg.vector_norm(other), (number, error)


@cache
def case(names, shape, decay, dtype, kind):
    """A problem, and of it values, last states and all gradients by the reference in double precision."""
    given, pieces = problem(shape, decay, dtype, kind)
    exact = {name: None if x is None else x.double().requires_grad_() for name, x in given.items()}
    form = attention_reference.delta if "beta" in names else attention_reference.attend
    wanted = form(*(exact[name] for name in names), pieces, 0.3)
    wished = [exact[name] for name in names if exact[name] is not None]
    slopes = iter(torch.autograd.grad(wanted, wished, (exact["do"], exact["dlast"])))
    slopes = [None if exact[name] is None else next(slopes) for name in names]
    return given, pieces, [one.detach() for one in wanted], slopes


def check(form, adjoint, names, shape, decay, dtype, kind=None):
    """Against the reference."""
    # A decay's gradient is a sum over all times that follow.
    tolerance = TOLERANCES[dtype] * (2 if shape[1] >= 1000 else 1)
    given, pieces, wanted, slopes = case(names, shape, decay, dtype, kind)
    inputs = on_device(*(given[name] for name in names))
    o, last, *more = form(*inputs, pieces, 0.3)
    assert (o.dtype, last.dtype) == (dtype, given["first"].dtype)
    close((o, last), wanted, tolerance)
    do, dlast = on_device(given["do"], given["dlast"])
    middle = (*more, o, do, last, dlast) if "beta" in names else (do, last, dlast)
    found = adjoint(*inputs, pieces, 0.3, *middle)
    assert [None if x is None else x.dtype for x in found] == [None if x is None else x.dtype for x in inputs]
    close(found, slopes, tolerance)


ATTEND, DELTA = ("q", "k", "v", "g", "first"), ("q", "k", "v", "beta", "g", "first")
STEPS = {
    ATTEND: (attention_triton.attend, attention_triton.attend_adjoint),
    DELTA: (attention_triton.delta, attention_triton.delta_adjoint),
}
CHUNKED = {
    ATTEND: (chunked_triton.attend, chunked_adjoint_triton.attend_adjoint),
    DELTA: (chunked_triton.delta, chunked_adjoint_triton.delta_adjoint),
}


@pytest.mark.parametrize(("dtype", "shape"), kinds(SHAPES + WIDE, SHAPES[1:2]))
@pytest.mark.parametrize("decay", [None, "head", "channel"])
def test_attention_by_steps(dtype, decay, shape):
    check(*STEPS[ATTEND], ATTEND, shape, decay, dtype)


@pytest.mark.parametrize(("dtype", "shape"), kinds(SHAPES + WIDE, SHAPES[1:2]))
@pytest.mark.parametrize("decay", [None, "head"])
def test_delta_by_steps(dtype, decay, shape):
    check(*STEPS[DELTA], DELTA, shape, decay, dtype)


@pytest.mark.parametrize(("dtype", "shape"), kinds(SHAPES + LONG + WIDE, SHAPES[:1]))
@pytest.mark.parametrize("decay", [None, "head"])
@pytest.mark.parametrize("names", [ATTEND, DELTA], ids=["attend", "delta"])
def test_chunks(chunk, dtype, names, decay, shape):
    check(*CHUNKED[names], names, shape, decay, dtype)


@pytest.mark.parametrize("shape", SHAPES[-1:])
@pytest.mark.parametrize("forms", [STEPS, CHUNKED], ids=["steps", "chunks"])
@pytest.mark.parametrize("names", [ATTEND, DELTA], ids=["attend", "delta"])
@pytest.mark.parametrize("dtype", LOW)
def test_low_precision(chunk, dtype, names, forms, shape):
    check(*forms[names], names, shape, "head", dtype)


@pytest.mark.parametrize("forms", [STEPS, CHUNKED], ids=["steps", "chunks"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_keys_that_are_alike_stay_exact(chunk, dtype, forms):
    check(*forms[DELTA], DELTA, (1, 65, 1, 16, 16), None, dtype, "alike")


@pytest.mark.parametrize("forms", [STEPS, CHUNKED], ids=["steps", "chunks"])
@pytest.mark.parametrize("names", [ATTEND, DELTA], ids=["attend", "delta"])
def test_what_is_forgotten_is_gone(chunk, names, forms):
    """A decay's logarithm may be minus infinity."""
    check(*forms[names], names, (1, 20, 1, 5, 3), "head", torch.float64, "forgetful")


@pytest.mark.parametrize("shape", SHAPES + WIDE)
@pytest.mark.parametrize("decay", [None, "head", "channel"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_substitution(dtype, decay, shape):
    given, pieces = problem(shape, decay, dtype)
    inputs = given["q"] / 4, given["k"], given["v"], given["g"]
    wanted = attention_reference.substitute(*(None if x is None else x.double() for x in inputs), pieces)
    found = attention_triton.substitute(*on_device(*inputs), pieces)
    close([found], [wanted], TOLERANCES[dtype])


@pytest.mark.parametrize("form", ["diagonal", "diagonal_adjoint"])
@pytest.mark.parametrize("constant", [(), (0,), (1,), (0, 1)])
@pytest.mark.parametrize(("dtype", "cut"), kinds([(1, 1024), (17, 1024), (40, 16)], []))
def test_recurrence(monkeypatch, dtype, cut, constant, form):
    length, part = cut
    monkeypatch.setattr(recurrence_triton, "PART", part)
    monkeypatch.setattr(recurrence_triton, "TIME", 16)
    pieces = split(2, length)
    a = draw(*(1 if axis in constant else n for axis, n in enumerate((2, length, 5))), seed=0).tanh()
    inputs = [x.to(dtype) for x in (a, draw(2, length, 5, seed=1), draw(len(pieces), 5, seed=2))]
    wanted = getattr(recurrence_reference, form)(*(x.double() for x in inputs), pieces)
    close(getattr(recurrence_triton, form)(*on_device(*inputs), pieces), wanted, TOLERANCES[dtype])


@pytest.mark.skipif(INTERPRETED, reason="slow")
@pytest.mark.parametrize("form", ["diagonal", "diagonal_adjoint"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_long_recurrence(dtype, form):
    a, b = draw(2, 5000, 70, seed=0).tanh().to(dtype), draw(2, 5000, 70, seed=1).to(dtype)
    pieces = split(2, 5000)
    first = draw(len(pieces), 70, seed=2).to(dtype)
    wanted = getattr(recurrence_reference, form)(*(x.double() for x in (a, b, first)), pieces)
    close(getattr(recurrence_triton, form)(*on_device(a, b, first), pieces), wanted, TOLERANCES[dtype])


def test_launches_refuse_what_they_cannot_do():
    x, pieces = torch.ones(1, 2, 3, dtype=torch.complex64), torch.tensor([[0, 0, 2]])
    with pytest.raises(TypeError, match="reference form"):
        recurrence_triton.diagonal(x, x, x[0, :1], pieces)
    with pytest.raises(TypeError, match="one dtype"):
        recurrence_triton.diagonal(x.real.double(), x.real, x.real[0, :1], pieces)
    given, pieces = problem((1, 4, 1, 5, 3), "channel", torch.float32)
    inputs = [given[name] for name in ("q", "k", "v", "beta", "g", "first")]
    attending = [*inputs[:3], *inputs[4:]]
    for call, arguments in (
        (attention_triton.delta, inputs),
        (chunked_triton.delta, inputs),
        (chunked_triton.attend, attending),
    ):
        with pytest.raises(ValueError, match="one of each head is accepted"):
            call(*arguments, pieces, 1.0)
    with pytest.raises(TypeError, match="reference form"):
        attention_triton.attend(*(x.cfloat() for x in attending), pieces, 1.0)


@pytest.mark.parametrize("forms", [STEPS, CHUNKED], ids=["steps", "chunks"])
def test_what_is_not_contiguous(chunk, forms):
    given, pieces = problem((1, 3, 2, 5, 6), "head", torch.float64)
    inputs = on_device(*(given[name] for name in DELTA))
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs]
    form, adjoint = forms[DELTA]
    wanted, found = form(*inputs, pieces, 0.3), form(*strided, pieces, 0.3)
    torch.testing.assert_close(found, wanted)
    o, last, u = found
    slopes = o.mT.contiguous().mT
    found = adjoint(*strided, pieces, 0.3, u, o, slopes, last, strided[-1])
    torch.testing.assert_close(found, adjoint(*inputs, pieces, 0.3, u, o, o, last, inputs[-1]))


@pytest.mark.parametrize("forms", [STEPS, CHUNKED], ids=["steps", "chunks"])
def test_no_time_and_no_sequences(forms):
    for shape in ((2, 0, 1, 5, 3), (0, 4, 1, 5, 3)):
        batch, length, heads, K, V = shape
        q, v = torch.zeros(batch, length, heads, K), torch.zeros(batch, length, heads, V)
        pieces = torch.tensor([[n, 0, length] for n in range(batch)]).reshape(-1, 3)
        first = draw(batch, heads, K, V, seed=0).float()
        inputs = [x.to(DEVICE) for x in (q, q, v, q[..., 0], first)]
        o, last, u = forms[DELTA][0](*inputs[:4], None, inputs[4], pieces, 1.0)
        torch.testing.assert_close(last.cpu(), first)
        found = forms[DELTA][1](*inputs[:4], None, inputs[4], pieces, 1.0, u, o, o, last, last)
        torch.testing.assert_close(found[-1].cpu(), first)
        assert found[0].shape == q.shape


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("taps", "dilation"), [(1, 1), (4, 1), (3, 5)])
def test_convolutions(taps, dilation, dtype):
    length, channels = (40, 35) if INTERPRETED else (1000, 300)
    pieces = torch.tensor([[0, 0, 3], [0, 3, 3], [0, 3, length]])
    x, weight = draw(1, length, channels, seed=0), draw(taps, channels, seed=1)
    first, dy = draw(3, (taps - 1) * dilation, channels, seed=2), draw(1, length, channels, seed=3)
    given = [one.requires_grad_() for one in (x, weight, first)]
    wanted = convolution_reference.convolve(*given, pieces, dilation)
    slopes = torch.autograd.grad(wanted, given, dy, allow_unused=True, materialize_grads=True)
    low = [one.detach().to(DEVICE, dtype) for one in given]
    found = convolution_triton.convolve(*low, pieces, dilation)
    adjoint = convolution_triton.convolve_adjoint(*low, pieces, dilation, dy.to(DEVICE, dtype))
    for one, other in zip((found, *adjoint), (wanted, *slopes), strict=True):
        assert one.dtype == dtype
        away = torch.linalg.vector_norm(one.cpu().double() - other.detach())
        assert away <= TOLERANCES[dtype] * torch.linalg.vector_norm(other.detach())
