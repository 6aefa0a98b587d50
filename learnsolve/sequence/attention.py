"""Linear attention and the delta rule, with gradients, states and packed sequences."""

import warnings
from typing import Any

import torch
from torch import Tensor

from learnsolve.kernels import attention
from learnsolve.sequence.functional import check_heads, sequences

# Of beta times the squared norm of a key: beyond, an eigenvalue leaves [-1, 1], and states may grow.
LARGEST = 2.0
# So much is laid to a key's normalisation.
ROUNDING = 2e-3


class _Attend(torch.autograd.Function):
    """A product with a semiseparable lower triangular matrix."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, *rest: Any) -> Any:
        first, pieces, scale = rest
        o, last = attention.attend(q, k, v, g, first, pieces, scale)
        ctx.save_for_backward(q, k, v, g, first, pieces, last)
        ctx.scale = scale
        return o, last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, do: Tensor, dlast: Tensor) -> Any:
        q, k, v, g, first, pieces, last = ctx.saved_tensors
        found = attention.attend_adjoint(q, k, v, g, first, pieces, ctx.scale, do, last, dlast)
        return *found, None, None


class _Delta(torch.autograd.Function):
    """A solve with a unit lower triangular matrix that is semiseparable, and a product with another."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor | None, *rest: Any) -> Any:
        first, pieces, scale = rest
        kept = any(ctx.needs_input_grad)
        o, last, u = attention.delta(q, k, v, beta, g, first, pieces, scale, kept=kept)
        ctx.save_for_backward(q, k, v, beta, g, first, pieces, u, o, last)
        ctx.scale = scale
        return o, last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, do: Tensor, dlast: Tensor) -> Any:
        q, k, v, beta, g, first, pieces, u, o, last = ctx.saved_tensors
        found = attention.delta_adjoint(q, k, v, beta, g, first, pieces, ctx.scale, u, o, do, last, dlast)
        return *found, None, None


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None = None,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Attention without a softmax, whose state is a matrix for each head.

    .. math:: S_t = \mathrm{diag}(e^{g_t}) S_{t-1} + k_t v_t^T, \qquad o_t = \text{scale} \cdot S_t^T q_t

    Over time that is the product with the lower triangular matrix of entries
    :math:`q_i^T \mathrm{diag}(e^{G_i - G_j}) k_j`, :math:`G` the running sum of :math:`g`.

    Parameters
    ----------
    q, k : (B, T, H, K) Tensor
    v : (B, T, H, V) Tensor
        float32 or float64; other floating dtypes are computed in float32.
    log_decay : (B, T, H) or (B, T, H, K) Tensor, optional
        :math:`g`, nowhere positive: of each head, or of each channel of its keys.
    scale : float, optional
        :math:`K^{-1/2}` by default.
    initial_state : (N, H, K, V) Tensor, optional
        Zero by default; N is B, or the number of packed sequences.
    cu_seqlens : (N + 1,) int Tensor, optional
        Where packed sequences begin and end, from 0 to T; then B is 1.

    Returns
    -------
    o : (B, T, H, V) Tensor
    final_state : (N, H, K, V) Tensor

    Raises
    ------
    ValueError
        Shapes do not fit, a decay's logarithm is positive, or ``cu_seqlens`` does not rise from 0 to T.
    TypeError
        A dtype is no floating one.

    References
    ----------
    Katharopoulos, Vyas, Pappas and Fleuret, *Transformers are RNNs*, ICML 2020, equations 18 to 20; Yang,
    Wang, Shen, Panda and Kim, *Gated linear attention transformers*, ICML 2024, equation 3.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence import linear_attention
    >>> one = torch.ones(1, 3, 1, 1)
    >>> o, state = linear_attention(one, one, one)
    >>> o.flatten().tolist(), state.shape
    ([1.0, 2.0, 3.0], torch.Size([1, 1, 1, 1]))
    """
    given, scale, pieces, wanted = _checked(q, k, v, None, log_decay, scale, initial_state, cu_seqlens)
    q, k, v, _, g, first = given
    o, last = _Attend.apply(q, k, v, g, first, pieces, scale)
    return o.to(wanted), last.to(wanted)


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None = None,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""The delta rule: what a key stands for is replaced, and not added to.

    .. math:: S_t = (I - \beta_t k_t k_t^T) e^{g_t} S_{t-1} + \beta_t k_t v_t^T, \qquad
        o_t = \text{scale} \cdot S_t^T q_t

    Over time that is the solution with a unit lower triangular matrix, :math:`I + \mathrm{diag}(\beta)
    \mathrm{stril}(K K^T)` where nothing decays, and the product with another.

    Parameters
    ----------
    q, k, v, scale, initial_state, cu_seqlens
        As for `linear_attention`.
    beta : (B, T, H) Tensor
        How much of the old is replaced. With keys of norm one, up to one the eigenvalues of a step are in
        [0, 1], and up to two in [-1, 1].
    log_decay : (B, T, H) Tensor, optional
        :math:`g`, nowhere positive.

    Returns
    -------
    o : (B, T, H, V) Tensor
    final_state : (N, H, K, V) Tensor

    Raises
    ------
    ValueError, TypeError
        As by `linear_attention`.

    Warns
    -----
    RuntimeWarning
        :math:`\beta |k|^2` is above two or below zero somewhere: the state may grow without bound.

    References
    ----------
    Yang, Wang, Zhang, Shen and Kim, *Parallelizing linear transformers with the delta rule over sequence
    length*, NeurIPS 2024, section 2.2; Grazzi, Siems, Zela, Franke, Hutter and Pontil, *Unlocking
    state-tracking in linear RNNs through negative eigenvalues*, ICLR 2025, section 4; Yang, Kautz and
    Hatamizadeh, *Gated delta networks*, ICLR 2025, equation 10.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence import delta_rule
    >>> one = torch.ones(1, 3, 1, 1)
    >>> v = torch.tensor([5.0, 6.0, 7.0]).reshape(1, 3, 1, 1)
    >>> delta_rule(one, one, v, torch.ones(1, 3, 1))[0].flatten().tolist()
    [5.0, 6.0, 7.0]
    """
    given, scale, pieces, wanted = _checked(q, k, v, beta, log_decay, scale, initial_state, cu_seqlens)
    q, k, v, beta, g, first = given
    if k.numel():
        size = beta.detach() * torch.linalg.vector_norm(k.detach(), dim=-1).square()
        if bool(((size > LARGEST + ROUNDING) | (size < -ROUNDING)).any()):
            text = f"beta times the squared norm of a key is between {size.min():.3g} and {size.max():.3g}"
            warnings.warn(
                f"{text}; outside of 0 to 2 states may grow without bound", RuntimeWarning, stacklevel=2
            )
    o, last = _Delta.apply(q, k, v, beta, g, first, pieces, scale)
    return o.to(wanted), last.to(wanted)


def delta_product(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None = None,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""The delta rule with several corrections for each token, of which the last is read.

    A step is :math:`\prod_j (I - \beta_j k_j k_j^T)`: with :math:`\beta` up to two and n factors, any
    orthogonal matrix that leaves all but n directions as they are.

    Parameters
    ----------
    q : (B, T, H, K) Tensor
    k : (B, T, n, H, K) Tensor
    v : (B, T, n, H, V) Tensor
    beta : (B, T, n, H) Tensor
    log_decay, scale, initial_state, cu_seqlens
        As for `delta_rule`; the state decays once for each token.

    Returns
    -------
    o : (B, T, H, V) Tensor
    final_state : (N, H, K, V) Tensor

    Raises
    ------
    ValueError, TypeError
        As by `delta_rule`.

    References
    ----------
    Siems, Carstensen, Zela, Hutter, Pontil and Grazzi, *DeltaProduct: improving state-tracking in linear RNNs
    via Householder products*, NeurIPS 2025, section 3.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence import delta_product
    >>> q, v = torch.ones(1, 3, 1, 1), torch.tensor([5.0, 6.0, 7.0]).reshape(1, 3, 1, 1, 1)
    >>> delta_product(q, torch.ones_like(v), v, torch.ones(1, 3, 1, 1))[0].flatten().tolist()
    [5.0, 6.0, 7.0]
    """
    if k.ndim != 5 or v.ndim != 5 or beta.ndim != 4 or q.ndim != 4 or k.shape[2] < 1:
        found = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}, beta {tuple(beta.shape)}"
        raise ValueError(
            f"{found}; (B, T, H, K), (B, T, n, H, K), (B, T, n, H, V), (B, T, n, H) are accepted"
        )
    n = k.shape[2]
    if k.shape[:3] != v.shape[:3] or beta.shape != k.shape[:4] or q.shape[:2] != k.shape[:2]:
        found = f"k {tuple(k.shape)}, v {tuple(v.shape)}, beta {tuple(beta.shape)}"
        raise ValueError(f"{found} for q {tuple(q.shape)}; the same B, T and n are accepted")
    # All but the last correction are read by a query of zero.
    still = q.new_zeros(q.shape[0], q.shape[1], n - 1, *q.shape[2:])
    query = torch.cat([still, q.unsqueeze(2)], 2).flatten(1, 2)
    if log_decay is not None:
        rest = log_decay.new_zeros(log_decay.shape[0], log_decay.shape[1], n - 1, *log_decay.shape[2:])
        log_decay = torch.cat([log_decay.unsqueeze(2), rest], 2).flatten(1, 2)
    o, last = delta_rule(
        query, k.flatten(1, 2), v.flatten(1, 2), beta.flatten(1, 2), log_decay, scale=scale,
        initial_state=initial_state, cu_seqlens=None if cu_seqlens is None else cu_seqlens * n,
    )  # fmt: skip
    return o[:, n - 1 :: n], last


def _checked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor | None,
    log_decay: Tensor | None,
    scale: float | None,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Any, float, Tensor, torch.dtype]:
    """All tensors in the dtype of the work; the scale, the sequences, and the dtype that is given back."""
    check_heads(q, k, v)
    batch, length, heads, width = q.shape
    if beta is not None and beta.shape != q.shape[:3]:
        raise ValueError(f"beta has shape {tuple(beta.shape)}; {tuple(q.shape[:3])} is accepted")
    if log_decay is not None:
        if log_decay.shape == q.shape[:3]:
            log_decay = log_decay.unsqueeze(-1)
        elif beta is not None or log_decay.shape != q.shape:
            accepted = f"{tuple(q.shape[:3])}" + ("" if beta is not None else f" or {tuple(q.shape)}")
            raise ValueError(f"log_decay has shape {tuple(log_decay.shape)}; {accepted} is accepted")
        if bool((log_decay.detach() > 0).any()):
            raise ValueError(
                f"log_decay is up to {log_decay.max():.3g}; numbers of at most zero are accepted"
            )
    pieces = sequences(batch, length, cu_seqlens)
    shape = (len(pieces), heads, width, v.shape[3])
    if initial_state is not None and initial_state.shape != shape:
        raise ValueError(f"initial_state has shape {tuple(initial_state.shape)}; {shape} is accepted")
    tensors = (q, k, v, beta, log_decay, initial_state)
    for name, one in zip(("q", "k", "v", "beta", "log_decay", "initial_state"), tensors, strict=True):
        if one is not None and not one.is_floating_point():
            raise TypeError(f"{name} is of {one.dtype}; floating dtypes are accepted")
    double = any(one is not None and one.dtype == torch.float64 for one in tensors)
    dtype = torch.float64 if double else torch.float32
    as_given = not double and k.dtype == v.dtype == q.dtype and attention.reads_low(q)
    moved = [one if one is None or as_given else one.to(dtype) for one in tensors[:5]]
    first = q.new_zeros(shape, dtype=dtype) if initial_state is None else initial_state.to(dtype)
    factor = width**-0.5 if scale is None else float(scale)
    return (*moved, first), factor, pieces, torch.promote_types(q.dtype, v.dtype)
