"""Sums of exponential moving averages: each call goes to the form that suits the tensors' device.

On the CPU, in single and double precision, that is numba's; elsewhere each state is a channel of a
first-order recurrence. Shapes: ``x`` and ``y`` (groups, time, channels), ``q`` and ``c`` (states, channels),
``first`` and the last states (n, states, channels), ``pieces`` (n, 3): of each sequence its group, first
time, and last time and one. Nothing is recorded for differentiation.
"""

import torch
from torch import Tensor

from learnsolve.kernels import forms, recurrence
from learnsolve.kernels.memory import inputs, views
from learnsolve.kernels.parts import parts
from learnsolve.kernels.threads import threads

_NUMBA = (torch.float32, torch.float64)


def average(
    x: Tensor, q: Tensor, c: Tensor, first: Tensor, pieces: Tensor, *, kept: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """``h[t] = q h[t - 1] + x[t]`` of each state, and ``y[t] = sum of c h[t]``.

    Returns ``y``, the last states, and where ``kept`` what `average_adjoint` wants of the states between.

    Examples
    --------
    >>> x, half = torch.ones(1, 3, 1), torch.full((1, 1), 0.5)
    >>> average(x, half, 2 * half, torch.zeros(1, 1, 1), torch.tensor([[0, 0, 3]]))[0].flatten().tolist()
    [1.0, 1.5, 1.75]
    """
    if not forms.by_numba(x, _NUMBA):
        with torch.no_grad():
            h, last = recurrence.diagonal(_row(q), _spread(x, len(q)), first.flatten(1), pieces)
            y = (h.unflatten(2, q.shape) * c).sum(2)
        return y, last.unflatten(1, q.shape), h if kept else h[:0]
    from learnsolve.kernels import moving_average_numba

    bounds, cut = parts(pieces, moving_average_numba.PART)
    states = len(q)
    q, c, first = _padded(q, 0), _padded(c, 0), _padded(first, 1)
    y, last = torch.empty(x.shape, dtype=x.dtype), torch.empty_like(first)
    marks = first.new_empty(len(cut) if kept else 0, *q.shape)
    given = inputs(x, q, c, first, pieces, bounds)
    moving_average_numba.average(*given, *views(y, last, marks), threads(x.numel() * states))
    return y, last[:, :states], marks


def average_adjoint(
    x: Tensor, q: Tensor, c: Tensor, first: Tensor, pieces: Tensor, kept: Tensor, dy: Tensor, dlast: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients by ``x``, ``q``, ``c`` and ``first``; ``kept`` is what `average` returned last."""
    if not forms.by_numba(x, _NUMBA):
        with torch.no_grad():
            return _by_recurrence(q, c, first, pieces, kept, dy, dlast)
    from learnsolve.kernels import moving_average_numba

    bounds, _ = parts(pieces, moving_average_numba.PART)
    states = len(q)
    q, c, dlast = _padded(q, 0), _padded(c, 0), _padded(dlast, 1)
    dx, dfirst = torch.zeros(x.shape, dtype=x.dtype), torch.empty_like(dlast)
    dq, dc = torch.zeros_like(dlast), torch.zeros_like(dlast)
    given = inputs(x, q, c, kept, pieces, bounds, dy, dlast)
    moving_average_numba.average_adjoint(*given, *views(dx, dq, dc, dfirst), threads(x.numel() * states))
    return dx, dq.sum(0)[:states], dc.sum(0)[:states], dfirst[:, :states]


def _by_recurrence(
    q: Tensor, c: Tensor, first: Tensor, pieces: Tensor, h: Tensor, dy: Tensor, dlast: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same by the states of all times, ``h``."""
    dh = (dy[:, :, None] * c).flatten(2)
    back, dfirst = recurrence.diagonal_adjoint(_row(q), dh, dlast.flatten(1), pieces)
    before = torch.nn.functional.pad(h[:, :-1], (0, 0, 1, 0))
    full = pieces[:, 2] > pieces[:, 1]
    before[pieces[full, 0], pieces[full, 1]] = first.flatten(1)[full]
    dq = (back * before).sum((0, 1)).reshape(q.shape)
    dc = (dy[:, :, None] * h.unflatten(2, q.shape)).sum((0, 1))
    return back.unflatten(2, q.shape).sum(2), dq, dc, dfirst.unflatten(1, q.shape)


def _row(q: Tensor) -> Tensor:
    """Coefficients of a recurrence, one for each state and channel."""
    return q.reshape(1, 1, -1)


def _spread(x: Tensor, states: int) -> Tensor:
    """What each state is driven by."""
    return x[:, :, None].expand(-1, -1, states, -1).flatten(2)


def _padded(one: Tensor, axis: int) -> Tensor:
    """With states of zero, to a multiple of four."""
    more = -one.shape[axis] % 4
    return torch.cat([one, one.new_zeros(*one.shape[:axis], more, *one.shape[axis + 1 :])], axis)
