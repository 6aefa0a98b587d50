"""Recurrences as triangular systems, and as functions with gradients."""

from functools import partial

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import learnsolve
from learnsolve.kernels import recurrence, recurrence_cyclic, recurrence_reference
from learnsolve.operators import Bidiagonal
from learnsolve.sequence import linear_recurrence

DTYPES = {torch.float32: 1e-5, torch.float64: 1e-12, torch.complex64: 1e-5, torch.complex128: 1e-12}


def draw(shape, dtype, seed):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def coefficients(shape, dtype, seed=0):
    """Of size at most one, of any sign."""
    a = draw(shape, dtype, seed)
    return a / (1 + a.abs())


def slow(a, b, first):
    """One sequence, one step after the other."""
    x, found = first, []
    for t in range(len(b)):
        x = a[t] * x + b[t]
        found.append(x)
    return torch.stack(found) if found else b, x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 63, 65, 100, 1000])
@pytest.mark.parametrize("constant", [(), (1,), (0, 1)])
def test_the_scan_is_the_recurrence(dtype, length, constant):
    b, first = draw((3, length, 5), dtype, 1), draw((3, 5), dtype, 2)
    shape = [1 if axis in constant else n for axis, n in enumerate(b.shape)]
    a = coefficients(shape, dtype)
    x, last = linear_recurrence(a, b, first)
    whole = a.expand(b.shape)
    for group in range(3):
        wanted, end = slow(whole[group].to(torch.complex128), b[group].to(torch.complex128), first[group])
        size = float(wanted.abs().max())
        np.testing.assert_allclose(x[group], wanted, atol=DTYPES[dtype] * size)
        np.testing.assert_allclose(last[group], end, atol=DTYPES[dtype] * size)
    assert x.dtype == last.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_the_forms_agree(dtype):
    a, b, first = coefficients((1, 40, 200), dtype), draw((1, 40, 200), dtype, 1), draw((3, 200), dtype, 2)
    pieces = torch.tensor([[0, 0, 7], [0, 7, 7], [0, 7, 40]])
    for name in ("diagonal", "diagonal_adjoint"):
        found = getattr(recurrence, name)(a, b, first, pieces)
        wanted = getattr(recurrence_reference, name)(a, b, first, pieces)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)
        reduced = getattr(recurrence_cyclic, name)(a, b, first, pieces)
        for one, other in zip(reduced, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_packed_sequences_do_not_see_each_other():
    bounds = torch.tensor([0, 4, 4, 9])
    a, b, first = (
        coefficients((1, 9, 3), torch.float64),
        draw((1, 9, 3), torch.float64, 1),
        draw((3, 3), torch.float64, 2),
    )
    x, last = linear_recurrence(a, b, first, cu_seqlens=bounds)
    for number, (begin, end) in enumerate([(0, 4), (4, 4), (4, 9)]):
        wanted, final = slow(a[0, begin:end], b[0, begin:end], first[number])
        torch.testing.assert_close(x[0, begin:end], wanted)
        torch.testing.assert_close(last[number], final)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 4), st.integers(0, 99))
def test_a_sequence_is_its_parts(before, after, channels, seed):
    """The final state of the first part begins the second."""
    length = before + after
    a, b = (
        coefficients((2, length, channels), torch.float64, seed),
        draw((2, length, channels), torch.float64, seed),
    )
    x, last = linear_recurrence(a, b)
    first, state = linear_recurrence(a[:, :before], b[:, :before])
    second, end = linear_recurrence(a[:, before:], b[:, before:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), x)
    torch.testing.assert_close(end, last)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("constant", [False, True])
def test_gradients_are_right(dtype, packed, constant):
    bounds = torch.tensor([0, 2, 2, 6]) if packed else None
    batch = 1 if packed else 2
    a = coefficients((1, 1 if constant else 6, 3), dtype).requires_grad_()
    b = draw((batch, 6, 3), dtype, 1).requires_grad_()
    first = draw((3 if packed else 2, 3), dtype, 2).requires_grad_()
    assert torch.autograd.gradcheck(partial(linear_recurrence, cu_seqlens=bounds), (a, b, first))


def test_low_precision_is_computed_in_single():
    a, b = coefficients((1, 50, 4), torch.float32), draw((1, 50, 4), torch.float32, 1)
    x, last = linear_recurrence(a.bfloat16(), b.bfloat16())
    assert x.dtype == last.dtype == torch.bfloat16
    wanted, _ = linear_recurrence(a.bfloat16().float(), b.bfloat16().float())
    assert torch.linalg.vector_norm(x.float() - wanted) < 4e-3 * torch.linalg.vector_norm(wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("adjoint", [False, True])
def test_solve_is_the_scan(dtype, adjoint):
    a, b = coefficients((20, 3), dtype), draw((20, 3), dtype, 1)
    A = Bidiagonal(a)
    A = A.H if adjoint else A
    rtol = 1e-12 if dtype in (torch.float64, torch.complex128) else 1e-6
    res = learnsolve.solve(A, b, rtol=rtol)
    assert res.success
    assert res.method == "substitution"
    for channel in range(3):
        dense = np.eye(20, dtype=complex) - np.diag(a[1:, channel].numpy(), -1)
        options = {"lower": True, "trans": "C" if adjoint else "N"}
        wanted = scipy.linalg.solve_triangular(dense, b[:, channel].numpy(), **options)
        np.testing.assert_allclose(res.x[:, channel], wanted, atol=20 * DTYPES[dtype] * np.abs(wanted).max())


def test_products_are_adjoint():
    A = Bidiagonal(coefficients((2, 9, 3), torch.complex128))
    x, y = draw((2, 9, 3), torch.complex128, 1), draw((2, 9, 3), torch.complex128, 2)
    torch.testing.assert_close(
        torch.vdot((A @ x).flatten(), y.flatten()), torch.vdot(x.flatten(), (A.H @ y).flatten())
    )
    torch.testing.assert_close(A.substitute(A @ x), x)
    torch.testing.assert_close(A.substitute_adjoint(A.H @ x), x)
    assert A.to(dtype=torch.complex64).dtype == torch.complex64


def test_gradients_of_solve_go_to_the_coefficients():
    a = coefficients((6, 2), torch.float64).requires_grad_()
    b = draw((6, 2), torch.float64, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: learnsolve.solve(Bidiagonal(a), b, rtol=1e-13).x, (a, b))


def test_what_is_refused():
    a, b = torch.ones(1, 4, 2), torch.ones(1, 4, 2)
    for arguments, options, error, what in (
        ((a, b[0]), {}, ValueError, "b has shape"),
        ((torch.ones(3, 1, 1), b), {}, ValueError, "does not broadcast"),
        ((torch.ones(1, 2), torch.ones(1, 4, 1)), {}, ValueError, "does not broadcast"),
        ((a, b.long()), {}, TypeError, "b is of torch.int64"),
        ((a, b, torch.ones(2, 2)), {}, ValueError, "initial_state has shape"),
        ((a, b), {"cu_seqlens": torch.tensor([0, 3, 2, 4])}, ValueError, "rise from 0 to 4"),
        ((a, b), {"cu_seqlens": torch.tensor([0, 3])}, ValueError, "rise from 0 to 4"),
        ((a, b.expand(2, 4, 2)), {"cu_seqlens": torch.tensor([0, 4])}, ValueError, "one batch"),
    ):
        with pytest.raises(error, match=what):
            linear_recurrence(*arguments, **options)
    with pytest.raises(ValueError, match="coefficients have shape"):
        Bidiagonal(torch.ones(3))
    with pytest.raises(TypeError, match="solve themselves"):
        learnsolve.solve(np.eye(3), np.ones(3), method="substitution")
