"""Operators whose solution is a scan, beside the dense triangular matrices that they stand for."""

import numpy as np
import pytest
import scipy.linalg
import torch

import learnsolve
from learnsolve.kernels import attention, attention_reference, plane, plane_reference
from learnsolve.operators import CausalToeplitz, GridRecurrence, Semiseparable

SMALL = {torch.float64: 1e-12, torch.complex128: 1e-12, torch.float32: 1e-5, torch.complex64: 1e-5}
REAL = (torch.float64, torch.float32)


def draw(shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def toeplitz(dtype):
    decay = 0.7 ** torch.arange(12, dtype=torch.float64)
    c = draw((12, 2), dtype) * decay[:, None].to(dtype)
    c[0] = 1.5
    return CausalToeplitz(c)


def plain(dtype, rows=4, columns=5):
    return GridRecurrence(0.5 * draw((rows, columns, 2), dtype), 0.5 * draw((rows, columns, 2), dtype, 1))


def semiseparable(dtype, decay=None, unit=True, length=9):
    q, k = (torch.nn.functional.normalize(draw((2, length, 2, 3), dtype, seed), dim=-1) for seed in (0, 1))
    shape = {None: None, "head": (2, length, 2), "channel": (2, length, 2, 3)}[decay]
    g = None if shape is None else -draw(shape, dtype, 2).abs()
    return Semiseparable(q, k, g, width=2, unit=unit)


CASES = [(make, dtype) for make in (toeplitz, plain) for dtype in SMALL]
CASES += [
    (lambda dtype, decay=decay: semiseparable(dtype, decay), dtype)
    for decay in (None, "head", "channel")
    for dtype in REAL
]


def dense(A):
    """The matrix, column by column."""
    size = A.shape[1]
    columns = [(A @ torch.eye(size, dtype=A.dtype)[i].reshape(A.domain_shape)).flatten() for i in range(size)]
    return torch.stack(columns, 1)


def test_products_are_the_definitions():
    A = semiseparable(torch.float64, "channel", unit=False)
    matrix = dense(A).reshape(*A.domain_shape, *A.domain_shape)
    q, k, g = A.q[1, :, 0], A.k[1, :, 0], A.log_decay[1, :, 0]
    expected = torch.zeros(9, 9, dtype=torch.float64)
    for i in range(9):
        for j in range(i + 1):
            expected[i, j] = (q[i] * g[j + 1 : i + 1].sum(0).exp() * k[j]).sum()
    torch.testing.assert_close(matrix[1, :, 0, 1, 1, :, 0, 1], expected)
    assert not matrix[1, :, 0, 1, 0, :, 0, 1].any()
    A = toeplitz(torch.float64)
    matrix = dense(A).reshape(12, 2, 12, 2)[:, 1, :, 1]
    expected = scipy.linalg.toeplitz(A.coefficients[:, 1].numpy(), np.zeros(12))
    np.testing.assert_allclose(matrix, expected, atol=1e-14)


def test_unit_has_ones_on_the_diagonal_and_the_rest_below():
    for decay in (None, "head", "channel"):
        unit, whole = (dense(semiseparable(torch.float64, decay, unit)) for unit in (True, False))
        torch.testing.assert_close(unit, torch.eye(len(unit), dtype=torch.float64) + whole.tril(-1))


@pytest.mark.parametrize(("make", "dtype"), CASES)
@pytest.mark.parametrize("adjoint", [False, True])
def test_solve_is_a_triangular_solve(make, dtype, adjoint):
    A = make(dtype)
    matrix = dense(A).numpy()
    b = draw(A.domain_shape, dtype, 5)
    res = learnsolve.solve(A.H if adjoint else A, b, rtol=SMALL[dtype])
    assert res.success and res.method == "substitution"
    wanted = scipy.linalg.solve_triangular(
        matrix, b.flatten().numpy(), lower=True, trans="C" if adjoint else "N"
    )
    error = np.linalg.norm(res.x.flatten().numpy() - wanted) / np.linalg.norm(wanted)
    assert error < 20 * SMALL[dtype]


@pytest.mark.parametrize(
    ("make", "dtype"), [*CASES, (lambda dtype: semiseparable(dtype, "head", False), REAL[0])]
)
def test_products_are_adjoint(make, dtype):
    A = make(dtype)
    x, y = draw(A.domain_shape, dtype, 1), draw(A.domain_shape, dtype, 2)
    left, right = torch.vdot((A @ x).flatten(), y.flatten()), torch.vdot(x.flatten(), (A.H @ y).flatten())
    assert (left - right).abs() < 100 * SMALL[dtype] * x.norm() * y.norm()
    torch.testing.assert_close(A.diagonal().flatten(), dense(A).diagonal(), rtol=1e-4, atol=1e-5)
    assert A.to(dtype=torch.promote_types(dtype, torch.float64)).domain_shape == A.domain_shape


@pytest.mark.parametrize(
    "make",
    [toeplitz, lambda dtype: plain(dtype, 2, 3), lambda dtype: semiseparable(dtype, None, length=3)]
    + [lambda dtype, decay=decay: semiseparable(dtype, decay, length=3) for decay in ("head", "channel")],
)
def test_gradients_go_to_what_operators_are_made_of(make):
    A = make(torch.float64)
    given = [one.detach().clone().requires_grad_() for one in A.parameters()]
    b = draw(A.domain_shape, seed=5).requires_grad_()

    def solved(b, *given):
        return learnsolve.solve(A.with_parameters(given), b, rtol=1e-13).x

    assert torch.autograd.gradcheck(solved, (b, *given))


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("decay", [None, "head", "channel"])
def test_cotangents_are_slopes(unit, decay):
    A = semiseparable(torch.float64, decay, unit)
    x, y = draw(A.domain_shape, seed=7), draw(A.domain_shape, seed=8)
    for number, (one, found) in enumerate(zip(A.parameters(), A.cotangents(x, y), strict=True)):
        step = 1e-6 * draw(one.shape, seed=9)
        ends = []
        for sign in (1, -1):
            changed = list(A.parameters())
            changed[number] = one + sign * step
            ends.append(torch.vdot(y.flatten(), (A.with_parameters(tuple(changed)) @ x).flatten()))
        torch.testing.assert_close((ends[0] - ends[1]) / 2, (found * step).sum(), rtol=1e-5, atol=1e-12)


def test_state_is_what_a_product_leaves():
    A = semiseparable(torch.float64, "head", unit=False)
    x = draw(A.domain_shape, seed=3)
    after = A.log_decay.flip(1).cumsum(1).flip(1) - A.log_decay
    expected = torch.einsum("bth,bthk,bthv->bhkv", after.exp(), A.k, x)
    torch.testing.assert_close(A.state(x), expected)


@pytest.mark.parametrize("dtype", SMALL)
def test_sweeps_agree_with_wavefronts(dtype):
    given = [0.5 * draw((2, 7, 9, 130), dtype, seed) for seed in range(3)]
    for name in ("plane", "plane_adjoint"):
        ours, theirs = getattr(plane, name)(*given), getattr(plane_reference, name)(*given)
        assert (ours - theirs).norm() < SMALL[dtype] * theirs.norm()


@pytest.mark.parametrize("decay", [None, "head", "channel"])
def test_substitution_agrees_with_the_reference(decay):
    A = semiseparable(torch.float64, decay, length=20)
    b, pieces = draw(A.domain_shape, seed=4), torch.tensor([[0, 0, 20], [1, 0, 7], [1, 7, 20]])
    given = A.q, A.k, b, A._decay, pieces
    torch.testing.assert_close(attention.substitute(*given), attention_reference.substitute(*given))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CausalToeplitz(torch.ones(3)), "time, channels"),
        (lambda: GridRecurrence(torch.ones(3, 2), torch.ones(3, 2)), "rows, columns"),
        (lambda: GridRecurrence(torch.ones(3, 2, 1), torch.ones(2, 2, 1)), "rows, columns"),
        (lambda: Semiseparable(torch.ones(1, 2, 1, 1), torch.ones(1, 3, 1, 1)), "heads, K"),
        (lambda: Semiseparable(*[torch.ones(1, 2, 1, 1)] * 2, width=0), "width 0"),
        (lambda: Semiseparable(*[torch.ones(1, 2, 1, 1)] * 3), "at most zero"),
        (lambda: Semiseparable(*[torch.ones(1, 2, 1, 1)] * 2, torch.ones(2)), "log_decay has shape"),
    ],
)
def test_what_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_zero_on_the_diagonal_is_not_solved():
    A = CausalToeplitz(torch.tensor([[0.0], [1.0]]))
    with pytest.raises(TypeError, match="solve themselves"):
        learnsolve.solve(A, torch.ones(2, 1), method="substitution")
