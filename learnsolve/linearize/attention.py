"""Liger attention: softmax over a window beside a gated linear recurrence, of the same queries and keys."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from learnsolve.linearize.gates import gate_of
from learnsolve.linearize.state import LigerState
from learnsolve.sequence import sliding_window_attention

# What a padded key adds to the products of queries: next to nothing after the softmax, in half precision too.
MARK = -3e4


@dataclass(frozen=True)
class LigerOptions:
    """What stands in the place of softmax attention.

    Parameters
    ----------
    gate : str
        The recurrence, of `learnsolve.linearize.gates.GATES`.
    window : int
        How many tokens, the last among them, softmax attention sees.
    share : float
        Of the recurrence in what comes out, from 0 to 1; the rest is the window's.

    Raises
    ------
    ValueError
        There is no such gate, or a number is out of range.

    Examples
    --------
    >>> from learnsolve.linearize import LigerOptions
    >>> LigerOptions(window=32)
    LigerOptions(gate='gla', window=32, share=0.5)
    """

    gate: str = "gla"
    window: int = 64
    share: float = 0.5

    def __post_init__(self) -> None:
        gate_of(self.gate)
        if not isinstance(self.window, int) or self.window < 1:
            raise ValueError(f"window is {self.window!r}; a positive integer is accepted")
        number = isinstance(self.share, int | float) and not isinstance(self.share, bool)
        if not number or not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share!r}; a number from 0 to 1 is accepted")


def liger_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    turns: tuple[Tensor, Tensor],
    options: LigerOptions,
    state: LigerState | None = None,
    *,
    valid: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, LigerState]:
    r"""Half of softmax attention within a window, half of a gated linear recurrence over all that came.

    .. math:: y_t = (1 - \lambda) \, \mathrm{SWA}(R q, R k, v)_t + \lambda \, \mathrm{GRM}(q, k, v)_t

    R turns by places, and the recurrence takes queries and keys as they were before. :math:`\lambda` is the
    options' share.

    Parameters
    ----------
    q : (B, T, H, K) Tensor
    k, v : (B, T, G, K) Tensor
        H is a multiple of G: neighbouring heads of queries share one of keys.
    turns : (cos, sin)
        (B or 1, T, K) each, as Hugging Face's rotary embeddings give them.
    options : LigerOptions
    state : LigerState, optional
        Of an earlier call, which this one goes on from.
    valid : (B, T) bool Tensor, optional
        Which tokens are no padding.
    scale : float, optional
        Of the products in the softmax, :math:`K^{-1/2}` by default.

    Returns
    -------
    y : (B, T, H, K) Tensor
    state : LigerState

    Raises
    ------
    ValueError
        Shapes do not fit.

    References
    ----------
    Lan, Sun, Hu, Du and Cheng, *Liger: linearizing large language models to gated recurrent structures*,
    2025.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.linearize.attention import LigerOptions, liger_attention
    >>> q, k = torch.zeros(1, 5, 4, 8), torch.zeros(1, 5, 2, 8)
    >>> turns = torch.ones(1, 5, 8), torch.zeros(1, 5, 8)
    >>> y, state = liger_attention(q, k, k, turns, LigerOptions(window=3))
    >>> y.shape, state.keys.shape, state.recurrent[0].shape
    (torch.Size([1, 5, 4, 8]), torch.Size([1, 2, 2, 8]), torch.Size([1, 2, 8, 8]))
    """
    if q.ndim != 4 or k.shape != v.shape or k.ndim != 4 or q.shape[2] % max(1, k.shape[2]):
        found = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
        raise ValueError(
            f"{found}; (B, T, H, K), and twice (B, T, G, K) with H a multiple of G, are accepted"
        )
    groups = q.shape[2] // k.shape[2]
    seen = 0 if state is None else state.seen
    y, keys, values = _windowed(q, k, v, turns, options.window, state, valid, scale, groups)
    recurrent: tuple[Tensor, ...] = ()
    if options.share > 0:
        # A sum over thousands of tokens needs more than half precision.
        exact = torch.promote_types(q.dtype, torch.float32)
        keys_wide, values_wide = (_repeated(one.to(exact), groups, 2) for one in (k, v))
        before = None if state is None else tuple(_repeated(one, groups, 1) for one in state.recurrent)
        o, after = gate_of(options.gate)(q.to(exact), keys_wide, values_wide, valid, before)
        y = ((1 - options.share) * y + options.share * o).to(q.dtype)
        recurrent = tuple(one[:, ::groups].clone() for one in after)
    return y, LigerState(keys, values, recurrent, seen + q.shape[1])


def _windowed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    turns: tuple[Tensor, Tensor],
    window: int,
    state: LigerState | None,
    valid: Tensor | None,
    scale: float | None,
    groups: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Softmax attention within the window, and the keys and values that later tokens may see."""
    size = q.shape[3]
    q, k = _turned(q, *turns), _turned(k, *turns)
    before = None if state is None else (state.keys, state.values)
    if valid is not None or (before is not None and before[0].shape[3] > size):
        k = _marked(k, valid)
        q = pad(q, (0, 1), value=1.0)
        if before is not None and before[0].shape[3] == size:
            before = _marked(before[0], None), before[1]
    if before is not None:
        before = _repeated(before[0], groups, 2), _repeated(before[1], groups, 2)
    scale = size**-0.5 if scale is None else scale
    y, after = sliding_window_attention(
        q, _repeated(k, groups, 2), _repeated(v, groups, 2), window, scale=scale, initial_state=before
    )
    # A view would keep all keys alive.
    keys, values = (one[:, :, ::groups].clone() for one in after)
    return y, keys, values


def _marked(k: Tensor, valid: Tensor | None) -> Tensor:
    """Keys with one channel more, in which padded ones are marked."""
    if valid is None:
        return pad(k, (0, 1))
    mark = torch.where(valid, 0.0, MARK).to(k.dtype)
    return torch.cat([k, mark[..., None, None].expand(*k.shape[:3], 1)], -1)


def _repeated(x: Tensor, groups: int, axis: int) -> Tensor:
    return x if groups == 1 else x.repeat_interleave(groups, axis)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each channel of the first half with that of the second, by the angle of its place."""
    first, second = x.chunk(2, -1)
    return x * cos.unsqueeze(2) + torch.cat([-second, first], -1) * sin.unsqueeze(2)


class LigerAttention(nn.Module):
    """Liger attention in the place of a Llama's, Mistral's or Qwen2's, whose projections it takes over.

    Its parameters are the replaced module's own, of the same names.

    Parameters
    ----------
    replaced : nn.Module
        With ``q_proj``, ``k_proj``, ``v_proj``, ``o_proj``, ``head_dim``, ``scaling`` and ``layer_idx``.
    options : LigerOptions

    Raises
    ------
    ValueError
        The module has none of those, or its projections are of other sizes than whole heads.

    Examples
    --------
    Of a stand-in for a Llama's attention:

    >>> import torch
    >>> from learnsolve.linearize import LigerAttention, LigerOptions
    >>> one = torch.nn.Module()
    >>> one.head_dim, one.scaling, one.layer_idx = 4, 0.5, 0
    >>> for name, size in zip("qkvo", (8, 4, 4, 8)):
    ...     one.add_module(f"{name}_proj", torch.nn.Linear(8, size, bias=False))
    >>> turns = torch.ones(1, 5, 4), torch.zeros(1, 5, 4)
    >>> LigerAttention(one, LigerOptions())(torch.zeros(2, 5, 8), turns)[0].shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, replaced: nn.Module, options: LigerOptions) -> None:
        super().__init__()
        named: Any = replaced
        try:
            self.q_proj, self.k_proj = named.q_proj, named.k_proj
            self.v_proj, self.o_proj = named.v_proj, named.o_proj
            self.head_dim, self.scaling = int(named.head_dim), float(named.scaling)
            self.layer_idx = int(named.layer_idx)
        except AttributeError as error:
            raise ValueError(f"{type(replaced).__name__} is no attention that is accepted: {error}") from None
        self.options = options

    def extra_repr(self) -> str:
        """The options."""
        return str(self.options)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        cache: Any = None,
        past_key_values: Any = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Mix (B, T, width), as Hugging Face's decoder layers ask for it.

        Parameters
        ----------
        hidden_states : (B, T, width) Tensor
        position_embeddings : (cos, sin)
        attention_mask : (B, T) bool Tensor, optional
            Which of these tokens are no padding.
        cache, past_key_values : transformers.Cache, optional
            One of them, whose layer of this one's number is read and changed. Versions differ in the name.

        Raises
        ------
        ValueError
            The mask is not of these tokens, or the cache is another kind's.
        """
        heads = (*hidden_states.shape[:-1], -1, self.head_dim)
        q, k, v = (one(hidden_states).view(heads) for one in (self.q_proj, self.k_proj, self.v_proj))
        if attention_mask is not None and attention_mask.shape != hidden_states.shape[:2]:
            raise ValueError(
                f"attention_mask has shape {tuple(attention_mask.shape)}; one of tokens, (batch, time), is "
                "accepted"
            )
        kept = cache if cache is not None else past_key_values
        layer = None
        if kept is not None:
            from learnsolve.linearize.cache import layer_of

            layer = layer_of(kept, self.layer_idx)
        y, state = liger_attention(
            q, k, v, position_embeddings, self.options, None if layer is None else layer.state,
            valid=attention_mask, scale=self.scaling,
        )  # fmt: skip
        if layer is not None:
            layer.state = state
        return self.o_proj(y.flatten(-2)), None
