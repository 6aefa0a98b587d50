r"""Attention with a state in plain torch, chunk by chunk: for devices that no compiled form serves.

Within a chunk of :math:`C` tokens, :math:`c` the running sum of the decay's logarithm, everything is a
product or a solve with matrices of :math:`C^2` entries :math:`x_i^T \mathrm{diag}(e^{c_i - c_j}) k_j`, all
chunks at once; from chunk to chunk goes the state. No exponent is positive. Functions have the shapes of
`learnsolve.kernels.attention_reference`; gradients keep one state for each segment of chunks, whose graphs
are made again one at a time, so that memory beyond the results does not grow with their number.

References
----------
Yang, Wang, Zhang, Shen and Kim, *Parallelizing linear transformers with the delta rule over sequence length*,
NeurIPS 2024, section 3.2.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

# Tokens of a chunk; where channels decay by themselves, its pairs of tokens have as many entries as channels.
CHUNK, CHUNK_OF_CHANNELS = 64, 16
# Chunks of a segment.
SEGMENT = 64


class Inputs(NamedTuple):
    """Of sequences of one length: (n, heads, time, K or V), and ``w`` and ``g``, which may be missing.

    Attributes
    ----------
    q, k, b : Tensor
        ``S = e^g S + k u'``, ``o = S' q``, and ``u`` is ``b``, or ``b - (e^g S)' w``.
    w, g : Tensor or None
    """

    q: Tensor
    k: Tensor
    b: Tensor
    w: Tensor | None
    g: Tensor | None


def segment(S: Tensor, given: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """The last state, o and u of some chunks; differentiable.

    Parameters
    ----------
    S : (n, heads, K, V) Tensor
    given : Inputs

    Examples
    --------
    >>> one = torch.ones(1, 1, 3, 1)
    >>> S, o, u = segment(torch.zeros(1, 1, 1, 1), Inputs(one, one, one, None, None))
    >>> S.item(), o.flatten().tolist(), u.flatten().tolist()
    (3.0, [1.0, 2.0, 3.0], [1.0, 1.0, 1.0])
    """
    size, length = _chunk(given), given.q.shape[2]
    q, k, b, w, g = (None if one is None else _split(one, size) for one in given)
    assert q is not None and k is not None and b is not None
    c = q.new_zeros(size, 1) if g is None else g.cumsum(-2)
    read, kept = q * c.exp(), k * (c[..., -1:, :] - c).exp()
    fades = c[..., -1:, :].mT.exp()
    weights = _pairs(q, k, c).tril()
    if w is not None:
        # (I + A) u = b - diag(e^c) W S, of which the state is not known yet.
        A = _pairs(w, k, c).tril(-1)
        right = torch.cat([b, w * c.exp()], -1)
        right = torch.linalg.solve_triangular(A, right, upper=False, unitriangular=True)
        b, w = right.split([b.shape[-1], w.shape[-1]], -1)
    u, o = [], []
    # Slices of a loop's tensors would cost each step's gradient a tensor of the whole.
    keys, values = kept.mT.unbind(2), b.unbind(2)
    corrections = [None] * len(keys) if w is None else w.unbind(2)
    steps = [fades] * len(keys) if g is None else fades.unbind(2)
    for x, K, v, W, fade, y in zip(
        read.unbind(2), keys, values, corrections, steps, weights.unbind(2), strict=True
    ):
        u.append(v if W is None else v - W @ S)
        o.append(x @ S + y @ u[-1])
        S = fade * S + K @ u[-1]
    return S, _joined(o, length), _joined(u, length)


def _pairs(x: Tensor, k: Tensor, c: Tensor) -> Tensor:
    """Entries ``x_i' diag(e^(c_i - c_j)) k_j`` up to the diagonal."""
    away = (c.unsqueeze(-2) - c.unsqueeze(-3)).clamp(max=0)
    if c.shape[-1] == 1:
        return (x @ k.mT) * away[..., 0].exp()
    return torch.einsum("...ik,...jk,...ijk->...ij", x, k, away.exp())


def _chunk(given: Inputs) -> int:
    return CHUNK_OF_CHANNELS if given.g is not None and given.g.shape[-1] > 1 else CHUNK


def _split(x: Tensor, size: int) -> Tensor:
    """(n, heads, chunks, time, channels): what is missing of the last chunk is zero, and changes nothing."""
    missing = -x.shape[2] % size
    return torch.nn.functional.pad(x, (0, 0, 0, missing)).unflatten(2, (-1, size))


def _joined(chunks: list[Tensor], length: int) -> Tensor:
    return torch.stack(chunks, 2).flatten(2, 3)[:, :, :length]


def _groups(pieces: Tensor) -> list[tuple[list[int], list[int], int, int]]:
    """Sequences that go together: their numbers, batches, first time, and last time and one."""
    found: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
    for number, (n, begin, end) in enumerate(pieces.tolist()):
        numbers, batches = found.setdefault((begin, end), ([], []))
        numbers.append(number)
        batches.append(n)
    return [(*one, *bounds) for bounds, one in found.items() if bounds[1] > bounds[0]]


def _taken(given: Inputs, batches: list[int], begin: int, end: int) -> Inputs:
    return Inputs._make(None if one is None else one[batches, begin:end].transpose(1, 2) for one in given)


def _fresh(given: Inputs) -> Inputs:
    """The same, of which a graph begins."""
    return Inputs._make(None if one is None else one.detach().requires_grad_() for one in given)


def _bounds(given: Inputs, begin: int, end: int) -> list[tuple[int, int]]:
    size = SEGMENT * _chunk(given)
    return [(low, min(low + size, end)) for low in range(begin, end, size)]


@torch.no_grad()
def forward(given: Inputs, first: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """o, the last states, and u; tensors of ``given`` are (batch, time, heads, K or V).

    Examples
    --------
    >>> one = torch.ones(1, 3, 1, 1)
    >>> given = Inputs(one, one, one, one, None)
    >>> o, last, u = forward(given, torch.zeros(1, 1, 1, 1), torch.tensor([[0, 0, 3]]))
    >>> o.flatten().tolist(), last.item(), u.flatten().tolist()
    ([1.0, 1.0, 1.0], 1.0, [1.0, 0.0, 0.0])
    """
    o, u, last = torch.empty_like(given.b), torch.empty_like(given.b), first.clone()
    for numbers, batches, begin, end in _groups(pieces):
        S = first[numbers]
        for low, high in _bounds(given, begin, end):
            S, here, there = segment(S, _taken(given, batches, low, high))
            o[batches, low:high], u[batches, low:high] = here.transpose(1, 2), there.transpose(1, 2)
        last[numbers] = S
    return o, last, u


def backward(
    given: Inputs, first: Tensor, pieces: Tensor, do: Tensor, dlast: Tensor
) -> tuple[list[Any], Tensor]:
    """Gradients by each tensor of ``given``, and by ``first``.

    Examples
    --------
    >>> one = torch.ones(1, 3, 1, 1)
    >>> given, zero = Inputs(one, one, one, None, None), torch.zeros(1, 1, 1, 1)
    >>> backward(given, zero, torch.tensor([[0, 0, 3]]), one, zero)[0][2].flatten().tolist()
    [3.0, 2.0, 1.0]
    """
    found = [None if one is None else torch.empty_like(one) for one in given]
    dfirst = dlast.clone()
    for numbers, batches, begin, end in _groups(pieces):
        parts, states = _bounds(given, begin, end), [first[numbers]]
        with torch.no_grad():
            for low, high in parts[:-1]:
                states.append(segment(states[-1], _taken(given, batches, low, high))[0])
        dS = dlast[numbers]
        for (low, high), S in zip(reversed(parts), reversed(states), strict=True):
            with torch.enable_grad():
                start = S.detach().requires_grad_()
                part = _fresh(_taken(given, batches, low, high))
                after, here, _ = segment(start, part)
                wanted = [one for one in (start, *part) if one is not None]
                slopes = (do[batches, low:high].transpose(1, 2), dS)
                dS, *rest = torch.autograd.grad(
                    (here, after), wanted, slopes, allow_unused=True, materialize_grads=True
                )
            left = iter(rest)
            for one in found:
                if one is not None:
                    one[batches, low:high] = next(left).transpose(1, 2)
        dfirst[numbers] = dS
    return found, dfirst


def attend(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, first: Tensor, pieces: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """``S = e^g S + k v'``, ``o = scale S' q``, and the last states.

    Examples
    --------
    >>> one = torch.ones(1, 2, 1, 1)
    >>> attend(one, one, one, None, torch.zeros(1, 1, 1, 1), torch.tensor([[0, 0, 2]]), 1.0)[0].flatten()
    tensor([1., 2.])
    """
    return forward(Inputs(scale * q, k, v, None, g), first, pieces)[:2]


def attend_adjoint(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    first: Tensor,
    pieces: Tensor,
    scale: float,
    do: Tensor,
    dlast: Tensor,
) -> tuple[Any, ...]:
    """Gradients of `attend` by ``q``, ``k``, ``v``, ``g`` and ``first``."""
    (dq, dk, dv, _, dg), dfirst = backward(Inputs(scale * q, k, v, None, g), first, pieces, do, dlast)
    return scale * dq, dk, dv, dg, dfirst


def substitute(w: Tensor, k: Tensor, b: Tensor, g: Tensor | None, pieces: Tensor) -> Tensor:
    """``S = e^g S``, ``u = b - S' w``, ``S = S + k u'``, from nothing on: u.

    Examples
    --------
    >>> one = torch.ones(1, 2, 1, 1)
    >>> substitute(one, one, one, None, torch.tensor([[0, 0, 2]])).flatten()
    tensor([1., 0.])
    """
    first = b.new_zeros(len(pieces), *k.shape[2:], b.shape[3])
    return forward(Inputs(torch.zeros_like(k), k, b, w, g), first, pieces)[2]


def delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    first: Tensor,
    pieces: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """``S = e^g S``, ``u = beta (v - S' k)``, ``S = S + k u'``, ``o = scale S' q``: o, last states and u.

    Examples
    --------
    >>> one = torch.ones(1, 2, 1, 1)
    >>> delta(one, one, one, one[..., 0], None, torch.zeros(1, 1, 1, 1), torch.tensor([[0, 0, 2]]), 1.0)[1]
    tensor([[[[1.]]]])
    """
    b = beta.unsqueeze(-1)
    return forward(Inputs(scale * q, k, b * v, b * k, g), first, pieces)


def delta_adjoint(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    first: Tensor,
    pieces: Tensor,
    scale: float,
    do: Tensor,
    dlast: Tensor,
) -> tuple[Any, ...]:
    """Gradients of `delta` by ``q``, ``k``, ``v``, ``beta``, ``g`` and ``first``."""
    b = beta.unsqueeze(-1)
    given = Inputs(scale * q, k, b * v, b * k, g)
    (dq, dk, db, dw, dg), dfirst = backward(given, first, pieces, do, dlast)
    dbeta = (db * v).sum(-1) + (dw * k).sum(-1)
    return scale * dq, dk + b * dw, b * db, dbeta, dg, dfirst
