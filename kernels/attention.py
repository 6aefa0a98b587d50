"""Attention with a state: each call goes to the form that suits the tensors' device.

On the CPU, in single and double precision, that is numba's; on a GPU Triton's, by chunks where sequences are
long and have one decay for each head, and else step by step; elsewhere the one by chunks in plain torch.
Shapes: ``q``, ``k`` (batch, time, heads, K), ``v`` and results (batch, time, heads, V), ``beta`` (batch,
time, heads), the decay's logarithm ``g`` (batch, time, heads, K or 1) or None, states (n, heads, K, V),
``pieces`` (n, 3): of each sequence its batch, first time, and last time and one. Nothing is recorded for
differentiation; the functions named adjoint give the gradients.
"""

from typing import Any

import torch
from torch import Tensor

from learnsolve.kernels import attention_chunked, forms
from learnsolve.kernels.memory import inputs, scalar, views
from learnsolve.kernels.threads import threads

_NUMBA = (torch.float32, torch.float64)


# In less than single precision the GPU's tensor cores read what they are given.
LOW = (torch.float16, torch.bfloat16)
_TRITON = (torch.float32, torch.float64, *LOW)
# From how many tokens on chunks pay, and up to how many channels of a key they fit into registers.
LONG, WIDE = 64, 256


def reads_low(x: Tensor) -> bool:
    """Whether a tensor of less than single precision is read as it is, and need not be cast.

    Examples
    --------
    >>> reads_low(torch.ones(1, dtype=torch.bfloat16))
    False
    """
    return x.dtype in LOW and forms.by_triton(x, LOW)


def _triton(q: Tensor, g: Tensor | None = None) -> tuple[Any, Any] | None:
    """Triton's forms of a call and of its adjoint; None where there is none."""
    if not forms.by_triton(q, _TRITON):
        return None
    from learnsolve.kernels import attention_triton, chunked_adjoint_triton, chunked_triton

    one = g is None or g.shape[3] == 1
    if one and q.shape[1] >= LONG and q.shape[3] <= WIDE:
        return chunked_triton, chunked_adjoint_triton
    return attention_triton, attention_triton


def _decay(g: Tensor | None, q: Tensor) -> Tensor:
    return q.new_zeros(*q.shape[:3], 0) if g is None else g


def _threads(q: Tensor, v: Tensor) -> int:
    return threads(q.numel() * v.shape[-1])


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
    if form := _triton(q, g):
        answer: Any = form[0].attend(q, k, v, g, first, pieces, scale)
        return answer
    if not forms.by_numba(q, _NUMBA):
        return attention_chunked.attend(q, k, v, g, first, pieces, scale)
    from learnsolve.kernels import attention_numba

    o, last = torch.empty(v.shape, dtype=v.dtype), torch.empty(first.shape, dtype=v.dtype)
    given = inputs(q, k, v, _decay(g, q), first, pieces)
    attention_numba.attend(*given, scalar(scale, q), *views(o, last), _threads(q, v))
    return o, last


def attend_adjoint(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    first: Tensor,
    pieces: Tensor,
    scale: float,
    do: Tensor,
    last: Tensor,
    dlast: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """Gradients of `attend` by ``q``, ``k``, ``v``, ``g`` and ``first``."""
    if form := _triton(q, g):
        answer: Any = form[1].attend_adjoint(q, k, v, g, first, pieces, scale, do, last, dlast)
        return answer
    if not forms.by_numba(q, _NUMBA):
        return attention_chunked.attend_adjoint(q, k, v, g, first, pieces, scale, do, dlast)
    from learnsolve.kernels import attention_numba

    decay = _decay(g, q)
    found = [torch.empty(one.shape, dtype=q.dtype) for one in (q, k, v, decay)]
    carried = dlast.detach().clone(memory_format=torch.contiguous_format)
    given = inputs(q, k, v, decay, first, pieces)
    out = [*inputs(do, last), *views(*found, carried)]
    attention_numba.attend_adjoint(*given, scalar(scale, q), *out, _threads(q, v))
    return found[0], found[1], found[2], None if g is None else found[3], carried


def substitute(w: Tensor, k: Tensor, b: Tensor, g: Tensor | None, pieces: Tensor) -> Tensor:
    """``S = e^g S``, ``u = b - S' w``, ``S = S + k u'``, from nothing on: u.

    Examples
    --------
    >>> one = torch.ones(1, 2, 1, 1)
    >>> substitute(one, one, one, None, torch.tensor([[0, 0, 2]])).flatten()
    tensor([1., 0.])
    """
    if forms.by_triton(k, _TRITON):
        from learnsolve.kernels import attention_triton

        return attention_triton.substitute(w, k, b, g, pieces)
    if not forms.by_numba(k, _NUMBA):
        return attention_chunked.substitute(w, k, b, g, pieces)
    from learnsolve.kernels import attention_numba

    u = torch.empty(b.shape, dtype=b.dtype)
    attention_numba.substitute(*inputs(w, k, b, _decay(g, k), pieces), *views(u), _threads(k, b))
    return u


def delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    first: Tensor,
    pieces: Tensor,
    scale: float,
    *,
    kept: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """``S = e^g S``, ``u = beta (v - S' k)``, ``S = S + k u'``, ``o = scale S' q``: o, last states and u.

    Only the adjoint needs u, which may be empty where it is not to be ``kept``.

    Examples
    --------
    >>> one = torch.ones(1, 2, 1, 1)
    >>> delta(one, one, one, one[..., 0], None, torch.zeros(1, 1, 1, 1), torch.tensor([[0, 0, 2]]), 1.0)[1]
    tensor([[[[1.]]]])
    """
    if form := _triton(q, g):
        answer: Any = form[0].delta(q, k, v, beta, g, first, pieces, scale)
        return answer
    if not forms.by_numba(q, _NUMBA):
        return attention_chunked.delta(q, k, v, beta, g, first, pieces, scale)
    from learnsolve.kernels import attention_numba

    u, o = torch.empty(v.shape if kept else (0, 0, 0, 0), dtype=v.dtype), torch.empty(v.shape, dtype=v.dtype)
    last = torch.empty(first.shape, dtype=v.dtype)
    given = inputs(q, k, v, beta, _decay(g, q), first, pieces)
    attention_numba.delta(*given, scalar(scale, q), *views(u, o, last), _threads(q, v))
    return o, last, u


def delta_adjoint(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    first: Tensor,
    pieces: Tensor,
    scale: float,
    u: Tensor,
    o: Tensor,
    do: Tensor,
    last: Tensor,
    dlast: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """Gradients of `delta` by ``q``, ``k``, ``v``, ``beta``, ``g`` and ``first``."""
    if form := _triton(q, g):
        all_of_it = q, k, v, beta, g, first, pieces, scale, u, o, do, last, dlast
        answer: Any = form[1].delta_adjoint(*all_of_it)
        return answer
    if not forms.by_numba(q, _NUMBA):
        return attention_chunked.delta_adjoint(q, k, v, beta, g, first, pieces, scale, do, dlast)
    from learnsolve.kernels import attention_numba

    decay = _decay(g, q)
    found = [torch.empty(one.shape, dtype=q.dtype) for one in (q, k, v, beta, decay)]
    carried = dlast.detach().clone(memory_format=torch.contiguous_format)
    given = inputs(q, k, v, beta, decay, first, pieces)
    out = [*inputs(u, o, do, last), *views(*found, carried)]
    attention_numba.delta_adjoint(*given, scalar(scale, q), *out, _threads(q, v))
    return found[0], found[1], found[2], found[3], None if g is None else found[4], carried
