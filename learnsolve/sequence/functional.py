"""Recurrences over sequences, with gradients, initial and final states, and packed sequences."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from learnsolve.kernels import recurrence

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


class _Diagonal(torch.autograd.Function):
    """The solution of a bidiagonal system; its gradient is the adjoint's."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, first: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
        x, last = recurrence.diagonal(a, b, first, pieces)
        ctx.save_for_backward(a, x, first, pieces)
        return x, last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, x_bar: Tensor, last_bar: Tensor) -> tuple[Tensor | None, ...]:
        a, x, first, pieces = ctx.saved_tensors
        # The last state is the last value, so that what it receives comes from beyond the end.
        b_bar, first_bar = recurrence.diagonal_adjoint(a, x_bar, last_bar, pieces)
        a_bar = None
        if ctx.needs_input_grad[0]:
            before = torch.nn.functional.pad(x[:, :-1], (0, 0, 1, 0))
            full = pieces[:, 2] > pieces[:, 1]
            before[pieces[full, 0], pieces[full, 1]] = first[full]
            a_bar = (b_bar * before.conj()).sum_to_size(a.shape)
        return a_bar, b_bar, first_bar, None


def linear_recurrence(
    a: Tensor,
    b: Tensor,
    initial_state: Tensor | None = None,
    *,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""First-order recurrence of each channel: :math:`x_t = a_t x_{t-1} + b_t`.

    Parameters
    ----------
    a : Tensor
        Broadcasts to ``b``, of any sign, real or complex; constant in time if its time axis has length one.
    b : (B, T, D) Tensor
        float32, float64, complex64 or complex128; other floating dtypes are computed in float32.
    initial_state : (N, D) Tensor, optional
        :math:`x_0` of each sequence; zero by default.
    cu_seqlens : (N + 1,) int Tensor, optional
        Where packed sequences begin and end, from 0 to T; then B is 1. By default N is B.

    Returns
    -------
    x : (B, T, D) Tensor
    final_state : (N, D) Tensor

    Raises
    ------
    ValueError
        Shapes do not fit, or ``cu_seqlens`` does not rise from 0 to T.
    TypeError
        A dtype is no floating one.

    References
    ----------
    Blelloch, *Prefix sums and their applications*, CMU-CS-90-190, 1990, section 1.4.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence import linear_recurrence
    >>> x, last = linear_recurrence(torch.tensor(0.5), torch.ones(1, 3, 1))
    >>> x.flatten().tolist(), last.tolist()
    ([1.0, 1.5, 1.75], [[1.75]])
    """
    if b.ndim != 3:
        raise ValueError(f"b has shape {tuple(b.shape)}; (batch, time, channels) is accepted")
    for name, tensor in (("a", a), ("b", b), ("initial_state", initial_state)):
        if tensor is not None and not (tensor.is_floating_point() or tensor.is_complex()):
            raise TypeError(f"{name} is of {tensor.dtype}; floating and complex dtypes are accepted")
    pieces = sequences(b.shape[0], b.shape[1], cu_seqlens)
    wanted = torch.promote_types(a.dtype, b.dtype)
    dtype = wanted if wanted in DTYPES else torch.float32
    first = b.new_zeros(len(pieces), b.shape[2]) if initial_state is None else initial_state
    if first.shape != (len(pieces), b.shape[2]):
        found, expected = tuple(first.shape), (len(pieces), b.shape[2])
        raise ValueError(f"initial_state has shape {found}; {expected} is accepted")
    dtype = torch.promote_types(dtype, first.dtype)
    x, last = _Diagonal.apply(_aligned(a.to(dtype), b), b.to(dtype), first.to(dtype), pieces)
    return (x, last) if wanted in DTYPES else (x.to(wanted), last.to(wanted))


def _aligned(a: Tensor, b: Tensor) -> Tensor:
    """Coefficients (groups or one, times or one, channels)."""
    try:
        shape = torch.broadcast_shapes(a.shape, b.shape)
    except RuntimeError:
        shape = torch.Size()
    if shape != b.shape:
        raise ValueError(f"a has shape {tuple(a.shape)}, which does not broadcast to b's {tuple(b.shape)}")
    a = a.reshape((1,) * (3 - a.ndim) + tuple(a.shape))
    return a.expand(a.shape[0], a.shape[1], b.shape[2])


def sequences(batch: int, length: int, cu_seqlens: Tensor | None) -> Tensor:
    """Group, first time, and last time and one of each sequence.

    Raises
    ------
    ValueError
        Bounds do not rise from 0 to the length, or there is more than one group of packed sequences.

    Examples
    --------
    >>> import torch
    >>> sequences(1, 5, torch.tensor([0, 2, 5])).tolist()
    [[0, 0, 2], [0, 2, 5]]
    """
    if cu_seqlens is None:
        return torch.tensor([[group, 0, length] for group in range(batch)], dtype=torch.int64).reshape(-1, 3)
    bounds = cu_seqlens.detach().cpu().to(torch.int64)
    if batch != 1 or bounds.ndim != 1 or len(bounds) < 2:
        found = f"batch {batch} and cu_seqlens of shape {tuple(cu_seqlens.shape)}"
        raise ValueError(f"{found}; packed sequences are one batch, with at least two bounds")
    if bounds[0] != 0 or bounds[-1] != length or bool((bounds.diff() < 0).any()):
        raise ValueError(f"cu_seqlens is {bounds.tolist()}; bounds that rise from 0 to {length} are accepted")
    return torch.stack([0 * bounds[:-1], bounds[:-1], bounds[1:]], 1)


def apart(
    mix: Callable[..., tuple[Tensor, Any]],
    cu_seqlens: Tensor,
    *tensors: Tensor,
    states: Sequence[Any] | None = None,
) -> tuple[Tensor, list[Any]]:
    """Packed sequences one by one, for what mixes a single one.

    Parameters
    ----------
    mix : callable
        Takes the tensors of one sequence, and its state if there are any; gives an output and a state.
    cu_seqlens : (N + 1,) int Tensor
        Where sequences begin and end, from 0 to T.
    *tensors : (1, T, ...) Tensor
    states : sequence of length N, optional

    Returns
    -------
    y : (1, T, ...) Tensor
    states : list
        The last one of each sequence.

    Raises
    ------
    ValueError
        As by `sequences`, or there are not as many states.

    Examples
    --------
    >>> import torch
    >>> x = torch.arange(1, 6).reshape(1, 5, 1)
    >>> y, last = apart(lambda x: (x.cumsum(1), x.sum().item()), torch.tensor([0, 2, 5]), x)
    >>> y.flatten().tolist(), last
    ([1, 3, 3, 7, 12], [3, 12])
    """
    pieces = sequences(tensors[0].shape[0], tensors[0].shape[1], cu_seqlens).tolist()
    if states is not None and len(states) != len(pieces):
        raise ValueError(
            f"there are {len(states)} states for {len(pieces)} packed sequences; one each is accepted"
        )
    found = []
    for number, (_, begin, end) in enumerate(pieces):
        given = [one[:, begin:end] for one in tensors]
        found.append(mix(*given) if states is None else mix(*given, states[number]))
    return torch.cat([y for y, _ in found], 1), [state for _, state in found]


def check_heads(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Queries, keys and values must be of as many tokens and heads, and queries and keys of as many channels.

    Raises
    ------
    ValueError
        They are not.

    Examples
    --------
    >>> import torch
    >>> q, v = torch.zeros(1, 5, 2, 4), torch.zeros(1, 5, 2, 3)
    >>> check_heads(q, q, v)
    """
    if q.ndim != 4 or k.shape != q.shape or v.ndim != 4 or v.shape[:3] != q.shape[:3]:
        found = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
        raise ValueError(f"{found}; (B, T, H, K), the same, and (B, T, H, V) are accepted")


def check_width(width: int, heads: int, *, pairs: bool = False) -> None:
    """Heads must share the channels of a layer, in pairs where these are turned by their places.

    Raises
    ------
    ValueError
        They do not.

    Examples
    --------
    >>> check_width(8, 2, pairs=True)
    """
    if heads < 1 or width % heads or (pairs and width // heads % 2):
        among = " in pairs" if pairs else ""
        raise ValueError(f"{heads} heads do not share {width} channels{among}; a multiple is accepted")
