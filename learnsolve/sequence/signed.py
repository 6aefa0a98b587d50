"""Linear attention whose decays may change a channel's sign."""

import torch
from torch import Tensor

from learnsolve.sequence.attention import linear_attention
from learnsolve.sequence.functional import check_heads, sequences

# Smaller decays count as this, of their sign: what remains of the past is nothing in single precision.
SMALLEST = 1e-6


def signed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""`linear_attention` with decays from -1 to 1, which are the eigenvalues of a step.

    .. math:: S_t = \mathrm{diag}(a_t) S_{t-1} + k_t v_t^T, \qquad o_t = \text{scale} \cdot S_t^T q_t

    With :math:`\sigma_t` the product of the signs so far, :math:`\mathrm{diag}(\sigma_t) S_t` decays by
    :math:`|a_t|` and takes :math:`\sigma_t k_t`, so that signs cost nothing but a running sum.

    Parameters
    ----------
    q, k, v, scale, initial_state, cu_seqlens
        As for `linear_attention`.
    decay : (B, T, H) or (B, T, H, K) Tensor
        :math:`a`, at most one in size; below 1e-6 in size it counts as that.

    Returns
    -------
    o : (B, T, H, V) Tensor
    final_state : (N, H, K, V) Tensor

    Raises
    ------
    ValueError
        A decay is larger than one, or as by `linear_attention`.

    References
    ----------
    Grazzi and others, *Unlocking state-tracking in linear RNNs through negative eigenvalues*, ICLR 2025,
    section 4, equation 6.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence import signed_attention
    >>> one = torch.ones(1, 4, 1, 1)
    >>> signed_attention(one, one, one, -one)[0].flatten().tolist()
    [1.0, 0.0, 1.0, 0.0]
    """
    check_heads(q, k, v)
    if decay.shape not in (q.shape[:3], q.shape):
        raise ValueError(
            f"decay has shape {tuple(decay.shape)}; {tuple(q.shape[:3])} or {tuple(q.shape)} is accepted"
        )
    size = decay.abs()
    if bool((size.detach() > 1).any()):
        raise ValueError(f"decay is up to {size.max():.3g} in size; numbers from -1 to 1 are accepted")
    pieces = sequences(q.shape[0], q.shape[1], cu_seqlens)
    each = decay if decay.ndim == 4 else decay.unsqueeze(-1)
    turned = (each.detach() < 0).long().cumsum(1)
    if cu_seqlens is not None:
        # Each sequence counts its own.
        starts, lengths = pieces[:, 1], pieces[:, 2] - pieces[:, 1]
        before = torch.nn.functional.pad(turned, (0, 0, 0, 0, 1, 0))[:, starts.to(q.device)]
        turned = turned - before.repeat_interleave(lengths.to(q.device), 1)
    signs = (1 - 2 * (turned % 2)).to(q.dtype)
    o, state = linear_attention(
        signs * q, signs * k, v, size.clamp_min(SMALLEST).log(), scale=scale, initial_state=initial_state,
        cu_seqlens=cu_seqlens,
    )  # fmt: skip
    return o, state * _last(signs, pieces).to(state.dtype)


def _last(signs: Tensor, pieces: Tensor) -> Tensor:
    """Signs (n, heads, K or 1, 1) at each sequence's end; of an empty one, one."""
    full = pieces[:, 2] > pieces[:, 1]
    found = signs.new_ones(len(pieces), *signs.shape[2:])
    found[full.to(signs.device)] = signs[tuple((pieces[full][:, [0, 2]] - pieces.new_tensor([0, 1])).T)]
    return found.unsqueeze(-1)
