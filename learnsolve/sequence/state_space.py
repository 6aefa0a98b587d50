"""Linear state spaces: as a convolution, as a recurrence, and step by step."""

from typing import Any, Literal

import torch
from torch import Tensor

from learnsolve.sequence.convolution import causal_conv

Discretization = float | Literal["bilinear", "euler", "backward", "zoh"]
# Weights of the new state in the generalised bilinear transform.
ALPHAS = {"bilinear": 0.5, "euler": 0.0, "backward": 1.0}


def hippo(n: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    r"""The matrix and the input of HiPPO-LegS, whose state are coefficients of all that came before.

    .. math:: A_{ij} = -\sqrt{(2i+1)(2j+1)} \;(i > j), \quad -(i+1) \;(i = j), \quad 0 \;(i < j), \qquad
        B_i = \sqrt{2i+1}

    Parameters
    ----------
    n : int
        Size of the state.
    dtype : torch.dtype

    Returns
    -------
    A : (n, n) Tensor
    B : (n,) Tensor

    References
    ----------
    Gu, Dao, Ermon, Rudra and Re, *HiPPO: recurrent memory with optimal polynomial projections*, NeurIPS 2020,
    theorem 2.

    Examples
    --------
    >>> A, B = hippo(2)
    >>> A.diagonal().tolist(), round(B[1].item(), 3)
    ([-1.0, -2.0], 1.732)
    """
    if n < 1:
        raise ValueError(f"n is {n}; a positive number is accepted")
    B = (2 * torch.arange(n, dtype=torch.float64) + 1).sqrt()
    A = -(B[:, None] * B).tril(-1) - torch.diag(torch.arange(1, n + 1, dtype=torch.float64))
    return A.to(dtype), B.to(dtype)


def discretized(
    A: Tensor, B: Tensor, dt: Tensor, method: Discretization = "bilinear"
) -> tuple[Tensor, Tensor]:
    r"""A recurrence that follows :math:`x' = A x + B u` in steps.

    .. math:: \bar A = (I - \alpha \, dt \, A)^{-1} (I + (1 - \alpha) \, dt \, A), \qquad
        \bar B = dt \, (I - \alpha \, dt \, A)^{-1} B

    Parameters
    ----------
    A : (..., N, N) Tensor
    B : (..., N) Tensor
    dt : (...) Tensor
        Positive; broadcasts with the batches of A and B.
    method : float or {"bilinear", "euler", "backward", "zoh"}
        :math:`\alpha` in [0, 1], or its name: 1/2, 0, 1. With "zoh" it is exact for an input that is constant
        over each step.

    Returns
    -------
    A_bar : (..., N, N) Tensor
    B_bar : (..., N) Tensor

    Raises
    ------
    ValueError
        Shapes do not fit, a step is not positive, or the method is unknown.

    References
    ----------
    Gu and others, *Combining recurrent, convolutional, and continuous-time models with linear state-space
    layers*, NeurIPS 2021, section 2 and equation 3.

    Examples
    --------
    >>> import torch
    >>> A, B = discretized(-torch.ones(1, 1), torch.ones(1), torch.tensor(1.0), "backward")
    >>> A.item(), B.item()
    (0.5, 0.5)
    """
    if A.ndim < 2 or A.shape[-1] != A.shape[-2] or B.shape[-1:] != A.shape[-1:]:
        raise ValueError(
            f"A has shape {tuple(A.shape)} and B {tuple(B.shape)}; (..., N, N) and (..., N) are accepted"
        )
    if not bool((dt.detach() > 0).all()):
        raise ValueError(f"dt is down to {dt.min():.3g}; positive steps are accepted")
    size = A.shape[-1]
    step = dt.to(A.dtype)[..., None, None]
    if method == "zoh":
        # The exponential of a block matrix has both.
        above = torch.cat([step * A, (step * B.unsqueeze(-1)).expand(*(step * A).shape[:-1], 1)], -1)
        whole = torch.cat([above, torch.zeros_like(above[..., :1, :])], -2)
        found = torch.linalg.matrix_exp(whole)
        return found[..., :size, :size], found[..., :size, size]
    alpha = ALPHAS.get(method) if isinstance(method, str) else float(method)
    if alpha is None or not 0 <= alpha <= 1:
        names = ", ".join(ALPHAS)
        raise ValueError(f"method is {method!r}; {names}, zoh, or a number from 0 to 1 are accepted")
    one = torch.eye(size, dtype=A.dtype, device=A.device)
    right = torch.cat(
        [one + (1 - alpha) * step * A, (step * B.unsqueeze(-1)).expand(*(step * A).shape[:-1], 1)], -1
    )
    found = torch.linalg.solve(one - alpha * step * A, right)
    return found[..., :size], found[..., size]


def krylov(A: Tensor, b: Tensor, length: int) -> Tensor:
    """The vectors ``b, A b, A^2 b, ...``, (..., N, length), by squaring: as many products as its logarithm.

    Parameters
    ----------
    A : (..., N, N) Tensor
    b : (..., N) Tensor
    length : int

    Examples
    --------
    >>> import torch
    >>> krylov(torch.tensor([[2.0]]), torch.tensor([1.0]), 5).tolist()
    [[1.0, 2.0, 4.0, 8.0, 16.0]]
    """
    found, power = b.unsqueeze(-1), A
    while found.shape[-1] < length:
        following = power @ found
        found = torch.cat([found, following], -1)
        power = power @ power if found.shape[-1] < length else power
    return found[..., :length]


def state_space(
    u: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt: Tensor | float = 1.0,
    *,
    discretization: Discretization = "bilinear",
    initial_state: Tensor | None = None,
    method: Literal["convolution", "scan"] = "convolution",
) -> tuple[Tensor, Tensor]:
    r"""What a linear system makes of an input: :math:`x' = A x + B u`, :math:`y = C x + D u`, in steps.

    A state space in time, a convolution by :math:`K_i = C \bar A^i \bar B`, and a recurrence are one thing:
    the convolution is for whole sequences, the scan for one token at a time.

    Parameters
    ----------
    u : (B, T, H) Tensor
        Of H channels, each a system of its own.
    A : (N, N) or (H, N, N) Tensor
    B : (N,) or (H, N) Tensor
    C : (H, N) Tensor
    D : (H,) Tensor, optional
    dt : float or (H,) Tensor
        Of a step.
    discretization
        As by `discretized`.
    initial_state : (B, H, N) Tensor, optional
        Zero by default.
    method : {"convolution", "scan"}

    Returns
    -------
    y : (B, T, H) Tensor
    final_state : (B, H, N) Tensor

    Raises
    ------
    ValueError
        Shapes do not fit, or an option is unknown.

    References
    ----------
    Gu and others, *Combining recurrent, convolutional, and continuous-time models with linear state-space
    layers*, NeurIPS 2021, section 3.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence import state_space
    >>> one = torch.ones(1, 1)
    >>> y, state = state_space(torch.ones(1, 4, 1), -one, one[0], one, dt=1.0, discretization="backward")
    >>> [round(value, 4) for value in y.flatten().tolist()], state.item()
    ([0.5, 0.75, 0.875, 0.9375], 0.9375)
    """
    batch, length, channels = _checked(u, A, B, C, D, initial_state)
    if method not in ("convolution", "scan"):
        raise ValueError(f"method is {method!r}; convolution and scan are accepted")
    steps = torch.as_tensor(dt, dtype=A.dtype, device=A.device)
    a, b = discretized(A, B, steps, discretization)
    n = A.shape[-1]
    a, b = a.expand(channels, n, n), b.expand(channels, n)
    state = u.new_zeros(batch, channels, n) if initial_state is None else initial_state
    found = _scanned(u, a, b, C, state) if method == "scan" else _convolved(u, a, b, C, state, length)
    y, last = found
    return y if D is None else y + D * u, last


def _checked(u: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor | None) -> Any:
    if u.ndim != 3 or A.ndim not in (2, 3) or A.shape[-1] != A.shape[-2]:
        raise ValueError(
            f"u has shape {tuple(u.shape)} and A {tuple(A.shape)}; (B, T, H) and (N, N) are accepted"
        )
    channels, n = u.shape[2], A.shape[-1]
    wanted: dict[str, tuple[Tensor | None, list[tuple[int, ...]]]] = {
        "A": (A, [(n, n), (channels, n, n)]),
        "B": (B, [(n,), (channels, n)]),
        "C": (C, [(channels, n)]),
        "D": (D, [(channels,)]),
        "initial_state": (state, [(u.shape[0], channels, n)]),
    }
    for name, (one, shapes) in wanted.items():
        if one is not None and tuple(one.shape) not in shapes:
            accepted = " or ".join(map(str, shapes))
            raise ValueError(f"{name} has shape {tuple(one.shape)}; {accepted} is accepted")
    return tuple(u.shape)


def _scanned(u: Tensor, a: Tensor, b: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    rows = []
    for now in u.unbind(1):
        state = torch.einsum("hmn,bhn->bhm", a, state) + b * now.unsqueeze(-1)
        rows.append((C * state).sum(-1))
    return (torch.stack(rows, 1) if rows else u), state


def _convolved(
    u: Tensor, a: Tensor, b: Tensor, C: Tensor, state: Tensor, length: int
) -> tuple[Tensor, Tensor]:
    if length == 0:
        return u, state
    columns = krylov(a, b, length)
    taps = torch.einsum("hn,hnt->ht", C, columns)
    y, _ = causal_conv(u, taps.flip(1), method="fft")
    last = torch.einsum("hnt,bth->bhn", columns.flip(-1), u)
    if bool((state != 0).any()) or state.requires_grad:
        # What was there before goes on by itself.
        alone = krylov(a, torch.einsum("hmn,bhn->bhm", a, state), length)
        y = y + torch.einsum("hn,bhnt->bth", C, alone)
        last = last + alone[..., -1]
    return y, last
