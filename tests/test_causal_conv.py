"""Causal convolutions: definition, gradients, states, packed sequences, long kernels by transforms."""

import pytest
import torch

from learnsolve.kernels import convolution, convolution_reference
from learnsolve.sequence import causal_conv

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}
METHODS = ("direct", "fft")


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("taps", [1, 4])
@pytest.mark.parametrize("length", [1, 63, 65, 100, 1000])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_it_is_torchs_convolution(method, dilation, taps, length, dtype):
    x, weight, bias = draw(2, length, 5, seed=1), draw(5, taps, seed=2), draw(5, seed=3)
    span = (taps - 1) * dilation
    before = draw(2, 5, span, seed=4)
    whole = torch.cat([before, x.mT], 2)
    expected = torch.nn.functional.conv1d(whole, weight.unsqueeze(1), bias, dilation=dilation, groups=5).mT
    given = (one.to(dtype) for one in (x, weight, bias))
    y, last = causal_conv(*given, dilation=dilation, initial_state=before.to(dtype), method=method)
    assert y.dtype == last.dtype == dtype
    error = (y.double() - expected).norm() / expected.norm()
    assert error < TOLERANCES[dtype]
    torch.testing.assert_close(last, whole[:, :, whole.shape[2] - span :].to(dtype))


@pytest.mark.parametrize("method", METHODS)
def test_packed_sequences_do_not_see_each_other(method):
    x, weight = draw(1, 12, 3), draw(3, 4, seed=1)
    bounds = torch.tensor([0, 5, 5, 6, 12])
    before = draw(4, 3, 3, seed=2)
    y, last = causal_conv(x, weight, initial_state=before, cu_seqlens=bounds, method=method)
    for number, (begin, end) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        part, state = causal_conv(
            x[:, begin:end], weight, initial_state=before[number : number + 1], method=method
        )
        torch.testing.assert_close(y[:, begin:end], part)
        torch.testing.assert_close(last[number : number + 1], state)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dilation", [1, 2])
def test_gradients(method, dilation):
    tensors = [draw(1, 7, 3), draw(3, 3, seed=1), draw(3, seed=2), draw(2, 3, 2 * dilation, seed=3)]
    tensors = [one.requires_grad_() for one in tensors]

    def task(x, weight, bias, before):
        return causal_conv(
            x, weight, bias, dilation=dilation, activation="silu", initial_state=before,
            cu_seqlens=torch.tensor([0, 2, 7]), method=method,
        )  # fmt: skip

    assert torch.autograd.gradcheck(task, tensors)


def test_kernels_have_the_references_gradients():
    x, weight, first, dy = (
        draw(2, 9, 200),
        draw(4, 200, seed=1),
        draw(2, 6, 200, seed=2),
        draw(2, 9, 200, seed=3),
    )
    pieces = torch.tensor([[0, 0, 9], [1, 0, 9]])
    given = [one.clone().requires_grad_() for one in (x, weight, first)]
    y = convolution_reference.convolve(*given, pieces, 2)
    torch.testing.assert_close(convolution.convolve(x, weight, first, pieces, 2), y.detach())
    for ours, one in zip(
        convolution.convolve_adjoint(x, weight, first, pieces, 2, dy),
        torch.autograd.grad(y, given, dy),
        strict=True,
    ):
        torch.testing.assert_close(ours, one)


@pytest.mark.parametrize("method", METHODS)
def test_a_token_at_a_time_is_the_same(method):
    x, weight = draw(2, 20, 3), draw(3, 4, seed=1)
    whole, last = causal_conv(x, weight, activation="silu")
    state = None
    for t in range(20):
        y, state = causal_conv(x[:, t : t + 1], weight, activation="silu", initial_state=state, method=method)
        torch.testing.assert_close(y[:, 0], whole[:, t])
    torch.testing.assert_close(state, last)


def test_many_taps_go_by_transforms_and_agree():
    x, weight = draw(1, 300, 2), draw(2, 300, seed=1)
    torch.testing.assert_close(causal_conv(x, weight)[0], causal_conv(x, weight, method="direct")[0])


def test_empty_sequences():
    y, last = causal_conv(torch.zeros(2, 0, 3), torch.ones(3, 4))
    assert y.shape == (2, 0, 3) and last.shape == (2, 3, 3)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": torch.zeros(3, 4)}, ValueError, "x .3, 4."),
        ({"weight": torch.zeros(4, 2)}, ValueError, r"\(B, T, D\)"),
        ({"bias": torch.zeros(4)}, ValueError, "bias"),
        ({"dilation": 0}, ValueError, "dilation is 0"),
        ({"activation": "relu"}, ValueError, "activation 'relu'"),
        ({"method": "slow"}, ValueError, "'slow'"),
        ({"initial_state": torch.zeros(2, 3, 2)}, ValueError, "initial_state"),
        ({"cu_seqlens": torch.tensor([0, 2])}, ValueError, "cu_seqlens"),
        ({"x": torch.zeros(1, 4, 3, dtype=torch.complex64)}, TypeError, "complex64"),
    ],
)
def test_bad_input(change, error, words):
    given = {"x": torch.zeros(1, 4, 3), "weight": torch.zeros(3, 2)} | change
    with pytest.raises(error, match=words):
        causal_conv(given.pop("x"), given.pop("weight"), **given)


@pytest.mark.parametrize("form", ["compiled", "plain"])
def test_without_a_state_as_with_zeros(form, monkeypatch):
    if form == "plain":
        monkeypatch.setattr(convolution, "_NUMBA", ())
    given = [draw(1, 23, 5).requires_grad_(), draw(5, 6, seed=1).requires_grad_()]
    bounds = torch.tensor([0, 9, 9, 23])
    found = []
    for state in (None, torch.zeros(3, 5, 15, dtype=torch.float64)):
        y, last = causal_conv(*given, dilation=3, initial_state=state, cu_seqlens=bounds)
        found.append([y, last, *torch.autograd.grad((y**2).sum(), given)])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)
