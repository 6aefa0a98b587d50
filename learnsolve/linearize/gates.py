"""Gated linear recurrences whose gates are a key's own channels, so that nothing is learned besides."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize, softmax

from learnsolve.sequence import additive_attention, delta_rule, linear_attention

# What logarithms of decays are divided by: at gates of zero a state then lasts for some twenty tokens.
NORMALIZER = 16.0
# Stands for the logarithm of nothing where minus infinity would leave no number.
NOTHING = -1e4

State = tuple[Tensor, ...]
Gate = Callable[[Tensor, Tensor, Tensor, Tensor | None, State | None], tuple[Tensor, State]]


def _seen(x: Tensor, valid: Tensor | None) -> Tensor:
    """Zero where a token is padding."""
    return x if valid is None else x * valid.reshape(*valid.shape, *[1] * (x.ndim - 2)).to(x.dtype)


def _linear(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, valid: Tensor | None, state: State | None
) -> tuple[Tensor, State]:
    first = None if state is None else state[0]
    o, last = linear_attention(q, k, _seen(v, valid), _seen(g, valid), scale=1.0, initial_state=first)
    return o, (last,)


def gla(
    q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None = None, state: State | None = None
) -> tuple[Tensor, State]:
    r"""Gated linear attention, each channel of the key being its own gate.

    .. math:: S_t = \mathrm{diag}(\alpha_t) S_{t-1} + \mathrm{softmax}(k_t) v_t^T, \qquad
        \log \alpha_t = \tfrac{1}{16} \log \sigma(k_t), \qquad o_t = S_t^T \mathrm{softmax}(q_t)

    Parameters
    ----------
    q, k, v : (B, T, H, K) Tensor
        Queries, keys and values before positions are put into them.
    valid : (B, T) bool Tensor, optional
        Of tokens that are no padding; those that are leave the state as it was.
    state : tuple of Tensor, optional
        Of what came before.

    Returns
    -------
    o : (B, T, H, K) Tensor
    state : tuple of Tensor

    References
    ----------
    Lan, Sun, Hu, Du and Cheng, *Liger: linearizing large language models to gated recurrent structures*,
    2025; Yang, Wang, Shen, Panda and Kim, *Gated linear attention transformers*, ICML 2024, equation 3.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.linearize.gates import gla
    >>> o, (state,) = gla(*torch.zeros(3, 1, 5, 2, 4))
    >>> o.shape, state.shape
    (torch.Size([1, 5, 2, 4]), torch.Size([1, 2, 4, 4]))
    """
    return _linear(softmax(q, -1), softmax(k, -1), v, logsigmoid(k) / NORMALIZER, valid, state)


def scalar_gla(
    q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None = None, state: State | None = None
) -> tuple[Tensor, State]:
    r"""As `gla`, with one gate for each head, as of Mamba-2: the mean of its key's channels.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.linearize.gates import scalar_gla
    >>> scalar_gla(*torch.zeros(3, 1, 5, 2, 4))[0].shape
    torch.Size([1, 5, 2, 4])
    """
    return _linear(softmax(q, -1), softmax(k, -1), v, logsigmoid(k.mean(-1)) / NORMALIZER, valid, state)


def hgrn2(
    q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None = None, state: State | None = None
) -> tuple[Tensor, State]:
    r"""A state that forgets what it writes over: what a channel's gate lets go of is what it takes.

    .. math:: S_t = \mathrm{diag}(\sigma(k_t)) S_{t-1} + (1 - \sigma(k_t)) v_t^T, \qquad
        o_t = S_t^T \mathrm{softmax}(q_t)

    References
    ----------
    Qin and others, *HGRN2: gated linear RNNs with state expansion*, COLM 2024, section 3.2; there the decay
    has a lower bound that is learned, here it has none.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.linearize.gates import hgrn2
    >>> hgrn2(*torch.zeros(3, 1, 5, 2, 4))[0].shape
    torch.Size([1, 5, 2, 4])
    """
    return _linear(softmax(q, -1), torch.sigmoid(-k), v, logsigmoid(k), valid, state)


def lightnet(
    q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None = None, state: State | None = None
) -> tuple[Tensor, State]:
    r"""A running mean of values, each channel of the key weighing all that came by its exponential.

    See `additive_attention`; queries are as of `gla`. The state is the mean and the logarithm of its weights.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.linearize.gates import lightnet
    >>> lightnet(*torch.zeros(3, 1, 5, 2, 4))[0].shape
    torch.Size([1, 5, 2, 4])
    """
    if valid is not None:
        k = k.masked_fill(~valid[..., None, None], NOTHING)
    first = None if state is None else (state[0], state[1])
    return additive_attention(softmax(q, -1), k, _seen(v, valid), initial_state=first)


def gated_delta(
    q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None = None, state: State | None = None
) -> tuple[Tensor, State]:
    r"""The gated delta rule, the mean of a key's channels being both of its gates.

    .. math:: S_t = (I - \beta_t \hat k_t \hat k_t^T) \alpha_t S_{t-1} + \beta_t \hat k_t v_t^T, \qquad
        \beta_t = \sigma(\bar k_t), \quad \log \alpha_t = \tfrac{1}{16} \log \sigma(\bar k_t), \qquad
        o_t = S_t^T \hat q_t

    where :math:`\hat q, \hat k` are of norm one.

    References
    ----------
    Yang, Kautz and Hatamizadeh, *Gated delta networks*, ICLR 2025, equation 10.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.linearize.gates import gated_delta
    >>> gated_delta(*torch.zeros(3, 1, 5, 2, 4))[0].shape
    torch.Size([1, 5, 2, 4])
    """
    pooled = k.mean(-1)
    first = None if state is None else state[0]
    o, last = delta_rule(
        normalize(q, dim=-1), normalize(k, dim=-1), v, _seen(torch.sigmoid(pooled), valid),
        _seen(logsigmoid(pooled) / NORMALIZER, valid), scale=1.0, initial_state=first,
    )  # fmt: skip
    return o, (last,)


# All gated recurrences, by their names.
GATES: dict[str, Gate] = {
    "gla": gla,
    "scalar-gla": scalar_gla,
    "hgrn2": hgrn2,
    "lightnet": lightnet,
    "gated-delta": gated_delta,
}


def gate_of(name: Any) -> Gate:
    """The recurrence of a name.

    Raises
    ------
    ValueError
        There is none.

    Examples
    --------
    >>> from learnsolve.linearize.gates import gate_of
    >>> gate_of("gla").__name__
    'gla'
    """
    if name not in GATES:
        raise ValueError(f"gate is {name!r}; {', '.join(GATES)} are accepted")
    return GATES[name]
