"""Coupled recurrences on a grid: all forms, adjoints, gradients, states, discretisations, bad input."""

import itertools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import coupled_plane as benchmark
from benchmarks.coupled_plane import double_loop
from learnsolve.kernels import coupled_plane, coupled_plane_reference, coupled_plane_scan
from learnsolve.sequence import linear_recurrence
from learnsolve.sequence.state_space import discretized
from learnsolve.sequence.state_space_2d import coupled_recurrence, discretized_diagonal, state_space_2d

SHAPES = [(1, 1, 1, 1), (2, 5, 7, 3), (1, 1, 9, 2), (3, 6, 1, 2), (1, 4, 33, 130), (2, 0, 3, 1), (2, 3, 0, 1)]
FORMS = {
    "dispatched": coupled_plane.coupled_plane,
    "wavefronts": coupled_plane_reference.coupled_plane,
    "scan": coupled_plane_scan.coupled_plane,
}
DTYPES = {torch.float32: 1e-6, torch.float64: 1e-14, torch.complex64: 1e-6, torch.complex128: 1e-14}


def drawn(shape, dtype=torch.float64, seed=0):
    """Coefficients whose absolute values sum to at most one for each state, drives, and a first column."""
    g = torch.Generator().manual_seed(seed)

    def some(*size):
        return torch.randn(size, generator=g, dtype=dtype)

    shares = [torch.rand(shape, generator=g, dtype=torch.float64) for _ in range(2)]
    signs = [torch.sgn(some(*shape)) for _ in range(4)]
    weights = shares[0], 1 - shares[0], 1 - shares[1], shares[1]
    a = [(sign * weight).to(dtype) for sign, weight in zip(signs, weights, strict=True)]
    groups, rows, _, channels = shape
    return a, [some(*shape), some(*shape)], [some(groups, rows, channels) for _ in range(2)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_double_loop(form, shape, dtype):
    given_ = drawn(shape, dtype)
    for one, wanted in zip(FORMS[form](*given_), double_loop(*given_), strict=True):
        assert one.shape == wanted.shape and one.dtype == dtype
        assert (one - wanted).norm() <= DTYPES[dtype] * wanted.norm()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("form", [coupled_plane, coupled_plane_reference])
def test_adjoints(form, shape, dtype):
    a, b, first = drawn(shape, dtype)
    none = [torch.zeros_like(one) for one in first]
    y = drawn(shape, dtype, seed=1)[1]
    forth = form.coupled_plane(a, b, none)
    back = form.coupled_plane_adjoint(a, y)
    one = sum(torch.vdot(p.flatten(), q.flatten()) for p, q in zip(forth, y, strict=True))
    two = sum(torch.vdot(p.flatten(), q.flatten()) for p, q in zip(b, back, strict=True))
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("form", FORMS)
def test_forms_agree_at_the_size_of_the_benchmark(form):
    given_ = drawn((1, 32, 512, 4), torch.float32)
    for one, wanted in zip(FORMS[form](*given_), coupled_plane.coupled_plane(*given_), strict=True):
        assert (one - wanted).norm() <= 1e-6 * wanted.norm()


@given(st.data())
@settings(max_examples=20, deadline=None)
def test_the_product_of_maps_is_associative(data):
    size = data.draw(st.integers(1, 4))
    g = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    x, y, z = (
        (torch.randn(size, size, generator=g).double(), torch.randn(size, generator=g).double())
        for _ in range(3)
    )
    product = coupled_plane_scan.composed
    for one, two in zip(product(product(x, y), z), product(x, product(y, z)), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 8, 13])
def test_scans_keep_the_order(length):
    words = torch.arange(length)
    # Of a product that is not commutative: first of the earlier, last of the later.
    first, last = coupled_plane_scan.scanned(lambda later, earlier: (earlier[0], later[1]), (words, words))
    assert first.tolist() == [0] * length and last.tolist() == list(range(length))


@pytest.mark.parametrize("method", ["auto", "scan"])
def test_gradients(method):
    a, b, first = drawn((2, 3, 3, 1))
    a[0], a[3] = a[0][:1], a[3][:, :, :1]
    given_ = [one.clone().requires_grad_() for one in (*a, *b, *first)]

    def all_of(*x):
        h, last = coupled_recurrence(x[:4], x[4:6], x[6:], method=method)
        return *h, *last

    assert torch.autograd.gradcheck(all_of, given_)


def test_gradients_of_complex_numbers():
    given_ = [one.clone().requires_grad_() for ones in drawn((1, 2, 3, 1), torch.complex128) for one in ones]
    assert torch.autograd.gradcheck(lambda *x: coupled_recurrence(x[:4], x[4:6], x[6:])[0], given_)


@pytest.mark.parametrize("lengths", [(9,), (2, 0, 7), (1,) * 9])
def test_a_part_at_a_time_as_all_at_once(lengths):
    a, b, first = drawn((2, 4, 9, 3))
    h, last = coupled_recurrence(a, b, tuple(first))
    state, parts = tuple(first), []
    pieces = [[one.split(lengths, 2) for one in ones] for ones in (a, b)]
    for number in range(len(lengths)):
        now = [[one[number] for one in ones] for ones in pieces]
        found, state = coupled_recurrence(*now, state)
        parts.append(found)
    for axis in (0, 1):
        torch.testing.assert_close(torch.cat([one[axis] for one in parts], 2), h[axis])
        torch.testing.assert_close(state[axis], last[axis])


@given(st.integers(1, 4), st.integers(1, 12), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_states_stay_within_bounds(rows, columns, seed):
    """Where absolute values of coefficients sum to at most one, nothing grows by itself."""
    a, b, first = drawn((1, rows, columns, 2), seed=seed)
    (h1, h2), _ = coupled_recurrence(a, [0 * one for one in b], tuple(first))
    most = max(one.abs().max() for one in first)
    assert max(h1.abs().max(), h2.abs().max()) <= most * (1 + 1e-12)


def test_without_coupling_it_is_two_recurrences():
    a, b, first = drawn((2, 3, 5, 4))
    none = torch.zeros_like(a[1])
    (h1, h2), _ = coupled_recurrence([a[0], none, none, a[3]], b, tuple(first))
    wanted, _ = linear_recurrence(a[0].flatten(0, 1), b[0].flatten(0, 1), first[0].flatten(0, 1))
    torch.testing.assert_close(h1, wanted.unflatten(0, (2, 3)))
    down = [one.transpose(1, 2).flatten(0, 1) for one in (a[3], b[1])]
    wanted, _ = linear_recurrence(*down)
    torch.testing.assert_close(h2, wanted.unflatten(0, (2, 5)).transpose(1, 2))


def test_low_precision_is_computed_in_single():
    a, b, _ = drawn((1, 3, 6, 2), torch.float32)
    low = [[one.bfloat16() for one in ones] for ones in (a, b)]
    (h1, h2), last = coupled_recurrence(*low)
    (w1, w2), _ = coupled_recurrence(*[[one.float() for one in ones] for ones in low])
    assert h1.dtype == last[1].dtype == torch.bfloat16
    torch.testing.assert_close(h1, w1.bfloat16())
    torch.testing.assert_close(h2, w2.bfloat16())


@pytest.mark.parametrize("method", ["zoh", "bilinear", "euler", "backward", 0.3])
def test_diagonal_discretisations_are_those_of_matrices(method):
    A, dt = -torch.tensor([0.5, 2.0, 1e-7], dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    kept, gain = discretized_diagonal(A, dt, method)
    wanted, added = discretized(torch.diag(A), torch.ones(3, dtype=torch.float64), dt, method)
    torch.testing.assert_close(torch.diag(kept), wanted)
    torch.testing.assert_close(gain, added)


def test_gradients_of_the_discretisation_near_zero():
    A = torch.tensor([-1e-6, 0.0, -1.0], dtype=torch.float64, requires_grad=True)
    dt = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(discretized_diagonal, (A, dt))


def system(dtype=torch.float64):
    """A selective one: x, steps, matrices, inputs and outputs."""
    g = torch.Generator().manual_seed(3)

    def some(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64)

    x = some(2, 3, 5, 4)
    dt = [some(2, 3, 5, 4).exp(), some(2, 3, 5, 1).exp()]
    A = [-some(4, 2).exp(), some(4, 2), some(4, 2), -some(4, 1).exp()]
    A = [one.to(dtype) for one in A]
    return x, dt, A, [some(2, 3, 5, 2), some(4, 2)], [some(4, 2), some(2, 3, 5, 2)], some(4)


def by_definition(x, dt, A, B, C, D):
    """A place and a number at a time, with the exact step of a scalar equation."""
    y = torch.zeros_like(x)
    for n, d, k in itertools.product(range(x.shape[0]), range(x.shape[3]), range(2)):
        h1, h2 = {}, {}
        for v, t in itertools.product(range(x.shape[1]), range(x.shape[2])):
            a1, a2, a3, a4 = (one[d, k % one.shape[1]] for one in A)
            steps = [one[n, v, t, d % one.shape[3]] for one in dt]
            b1, b2 = B[0][n, v, t, k] * x[n, v, t, d], B[1][d, k] * x[n, v, t, d]
            kept, gain = torch.exp(steps[0] * a1), torch.expm1(steps[0] * a1) / a1
            h1[v, t] = kept * h1.get((v, t - 1), 0) + gain * (a2 * h2.get((v, t - 1), 0) + b1)
            kept, gain = torch.exp(steps[1] * a4), torch.expm1(steps[1] * a4) / a4
            h2[v, t] = kept * h2.get((v - 1, t), 0) + gain * (a3 * h1.get((v - 1, t), 0) + b2)
            y[n, v, t, d] += (C[0][d, k] * h1[v, t] + C[1][n, v, t, k] * h2[v, t]).real
    return y + D * x


@pytest.mark.parametrize("method", ["auto", "scan"])
def test_state_spaces_are_those_of_their_definition(method):
    given_ = system()
    y, last = state_space_2d(*given_, method=method)
    torch.testing.assert_close(y, by_definition(*given_))
    assert last[0].shape == last[1].shape == (2, 3, 4, 2)


def test_backwards_is_with_variates_in_the_other_order():
    x, dt, A, B, C, D = system()
    y, last = state_space_2d(x, dt, A, B, C, D, reverse=True)
    turned = [one.flip(1) if one.ndim == 4 else one for one in (*dt, *B, *C)]
    wanted, there = state_space_2d(x.flip(1), turned[:2], A, turned[2:4], turned[4:], D)
    torch.testing.assert_close(y, wanted.flip(1))
    torch.testing.assert_close(last[1], there[1].flip(1))
    half = [[one[:, :, :2] if one.ndim == 4 else one for one in ones] for ones in (dt, B, C)]
    rest = [[one[:, :, 2:] if one.ndim == 4 else one for one in ones] for ones in (dt, B, C)]
    before, state = state_space_2d(x[:, :, :2], half[0], A, *half[1:], D, reverse=True)
    after, _ = state_space_2d(x[:, :, 2:], rest[0], A, *rest[1:], D, reverse=True, initial_state=state)
    torch.testing.assert_close(torch.cat([before, after], 2), y)


def test_complex_systems_have_real_outputs():
    x, dt, A, B, C, D = system(torch.complex128)
    A[0] = A[0] + 2j
    y, last = state_space_2d(x, dt, A, B, C, D)
    assert y.dtype == torch.float64 and last[0].is_complex()
    torch.testing.assert_close(y, by_definition(x, dt, A, B, C, D))


@pytest.mark.parametrize("method", ["zoh", "bilinear"])
def test_state_spaces_have_gradients(method):
    x, dt, A, B, C, D = system()
    given_ = [one[:1, :2, :3] if one.ndim == 4 else one for one in (x, *dt, *A, *B, *C, D)]
    given_ = [one.clone().requires_grad_() for one in given_]

    def all_of(x, *rest):
        y, last = state_space_2d(
            x, rest[:2], rest[2:6], rest[6:8], rest[8:10], rest[10], discretization=method
        )
        return y, *last

    assert torch.autograd.gradcheck(all_of, given_)


def test_bad_input_of_recurrences():
    a, b, first = drawn((1, 2, 3, 2))
    with pytest.raises(ValueError, match="method is 'fast'"):
        coupled_recurrence(a, b, method="fast")
    with pytest.raises(ValueError, match="a are 3 tensors"):
        coupled_recurrence(a[:3], b)
    with pytest.raises(ValueError, match=r"a2 has shape \(1, 2, 3, 3\)"):
        coupled_recurrence([a[0], torch.zeros(1, 2, 3, 3), *a[2:]], b)
    with pytest.raises(ValueError, match="initial_state has shapes"):
        coupled_recurrence(a, b, (first[0], first[1][:, :1]))
    with pytest.raises(TypeError, match=r"torch\.int64"):
        coupled_recurrence([one.long() for one in a], b)


@pytest.mark.parametrize(
    ("place", "number", "value", "match"),
    [
        (0, None, torch.zeros(2, 3, 5), "x has shape"),
        (1, 0, -torch.ones(4), "dt1 is down to -1"),
        (1, 1, torch.ones(3), "dt2 has shape"),
        (2, 1, torch.zeros(3, 2), "A2 has shape"),
        (2, 0, None, "the first and last are tensors"),
        (3, 1, torch.zeros(4, 3), "has shape"),
        (4, 0, torch.zeros(2, 3, 4, 2), "C1 has shape"),
        (5, None, torch.zeros(3), "D has shape"),
    ],
)
def test_bad_input_of_state_spaces(place, number, value, match):
    given_ = list(system())
    if number is None:
        given_[place] = value
    else:
        given_[place][number] = value
    with pytest.raises(ValueError, match=match):
        state_space_2d(*given_)


def test_an_unknown_discretisation():
    with pytest.raises(ValueError, match="method is 'exact'"):
        discretized_diagonal(torch.ones(1), torch.ones(1), "exact")


def test_the_benchmark_compares_every_form(tmp_path):
    path = tmp_path / "rows.json"
    sizes = ["--times", "6", "--variates", "3", "--channels", "1", "2", "--repeats", "1"]
    assert benchmark.main([*sizes, "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert len(rows) == 8 and all(row["error"] < 1e-6 for row in rows)
