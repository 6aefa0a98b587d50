"""State spaces in two dimensions, along time and across variates: discretised, selective, with gradients."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from learnsolve.kernels import coupled_plane, coupled_plane_scan
from learnsolve.sequence.functional import DTYPES
from learnsolve.sequence.state_space import ALPHAS, Discretization

Pair = tuple[Tensor, Tensor]


class _Coupled(torch.autograd.Function):
    """The solution of a triangular system on a grid; its gradient is the adjoint's."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Pair:
        a, b, first = tensors[:4], tensors[4:6], tensors[6:]
        h = coupled_plane.coupled_plane([one.expand_as(b[0]) for one in a], b, first)
        ctx.save_for_backward(*a, *h, *first)
        return h

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *h_bar: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        a, h, first = saved[:4], saved[4:6], saved[6:]
        full = [one.expand_as(h[0]) for one in a]
        b_bar = coupled_plane.coupled_plane_adjoint(full, h_bar)
        found: list[Tensor | None] = []
        for number, one in enumerate(a):
            # Each coefficient met one of both states, a place before along its axis.
            axis, which = number // 2, number % 2
            if not ctx.needs_input_grad[number]:
                found.append(None)
                continue
            came = first[which].unsqueeze(2) if axis == 0 else torch.zeros_like(h[which][:, :1])
            before = torch.cat([came, h[which].narrow(2 - axis, 0, h[which].shape[2 - axis] - 1)], 2 - axis)
            found.append((b_bar[axis] * before.conj()).sum_to_size(one.shape))
        begun = [(one[:, :, 0].conj() * b_bar[0][:, :, 0]) for one in full[:2]]
        return *found, *b_bar, *begun


def coupled_recurrence(
    a: Sequence[Tensor],
    b: Sequence[Tensor],
    initial_state: Pair | None = None,
    *,
    method: Literal["auto", "scan"] = "auto",
) -> tuple[Pair, Pair]:
    r"""Two recurrences on a grid of variates v and times t, each driven by both.

    .. math::
        h_1[v, t] &= a_1[v, t] h_1[v, t - 1] + a_2[v, t] h_2[v, t - 1] + b_1[v, t] \\
        h_2[v, t] &= a_3[v, t] h_1[v - 1, t] + a_4[v, t] h_2[v - 1, t] + b_2[v, t]

    Parameters
    ----------
    a : four Tensors
        Each has as many axes as those of ``b``, and broadcasts to them.
    b : two (B, V, T, D) Tensors
        float32, float64, complex64 or complex128; other floating dtypes are computed in float32.
    initial_state : two (B, V, D) Tensors, optional
        :math:`h_1` and :math:`h_2` before the first time; zero by default. Before the first variate both
        are zero.
    method : {"auto", "scan"}
        By a compiled sweep or wavefronts, whichever suits the device; or by an associative product of maps
        from time to time, of logarithmic depth.

    Returns
    -------
    h1, h2 : (B, V, T, D) Tensors
        A pair.
    final_state : two (B, V, D) Tensors

    Raises
    ------
    ValueError
        Shapes do not fit, or the method is unknown.
    TypeError
        A dtype is no floating one.

    References
    ----------
    Behrouz, Santacatterina and Zabih, *Chimera: effectively modeling multivariate time series with
    2-dimensional state space models*, NeurIPS 2024.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.state_space_2d import coupled_recurrence
    >>> half, one = torch.full((1, 1, 1, 1), 0.5), torch.ones(1, 2, 3, 1)
    >>> (h1, h2), last = coupled_recurrence([half] * 4, [one] * 2)
    >>> h1.flatten().tolist(), last[1].flatten().tolist()
    ([1.0, 2.0, 2.5, 1.0, 2.5, 3.5], [1.0, 2.75])
    """
    if method not in ("auto", "scan"):
        raise ValueError(f"method is {method!r}; auto and scan are accepted")
    shape = b[0].shape
    if len(a) != 4 or len(b) != 2 or len(shape) != 4 or b[1].shape != shape:
        found = f"a are {len(a)} tensors, and b have shapes {[tuple(one.shape) for one in b]}"
        raise ValueError(f"{found}; four, and two of (B, V, T, D), are accepted")
    for number, one in enumerate(a, 1):
        if one.ndim != 4 or any(n not in (1, m) for n, m in zip(one.shape, shape, strict=True)):
            raise ValueError(
                f"a{number} has shape {tuple(one.shape)}, which does not broadcast to {tuple(shape)}"
            )
    state = (shape[0], shape[1], shape[3])
    first = initial_state or (b[0].new_zeros(state), b[0].new_zeros(state))
    if len(first) != 2 or any(one.shape != state for one in first):
        raise ValueError(f"initial_state has shapes {[tuple(one.shape) for one in first]}; {state} twice is")
    every = [*a, *b, *first]
    if not all(one.is_floating_point() or one.is_complex() for one in every):
        raise TypeError(f"dtypes are {[one.dtype for one in every]}; floating and complex ones are accepted")
    wanted = every[0].dtype
    for one in every[1:]:
        wanted = torch.promote_types(wanted, one.dtype)
    dtype = wanted if wanted in DTYPES else torch.float32
    every = [one.to(dtype) for one in every]
    if not shape[2]:
        return (b[0].to(wanted), b[1].to(wanted)), (every[6].to(wanted), every[7].to(wanted))
    if method == "scan":
        full = [one.expand(shape) for one in every[:4]]
        h1, h2 = coupled_plane_scan.coupled_plane(full, every[4:6], every[6:])
    else:
        h1, h2 = _Coupled.apply(*every)
    h1, h2 = h1.to(wanted), h2.to(wanted)
    return (h1, h2), (h1[:, :, -1], h2[:, :, -1])


def discretized_diagonal(A: Tensor, dt: Tensor, method: Discretization = "zoh") -> tuple[Tensor, Tensor]:
    r"""What remains of a number that follows :math:`x' = A x + u` after a step, and what its input adds.

    .. math:: \bar A = \frac{1 + (1 - \alpha) \, dt \, A}{1 - \alpha \, dt \, A}, \quad
        \bar g = \frac{dt}{1 - \alpha \, dt \, A}; \qquad \text{zoh:} \quad
        \bar A = e^{dt A}, \quad \bar g = \frac{e^{dt A} - 1}{A}

    Parameters
    ----------
    A : Tensor
    dt : Tensor
        Broadcasts with A.
    method : float or {"zoh", "bilinear", "euler", "backward"}
        As by `learnsolve.sequence.state_space.discretized`, whose matrices are diagonal here.

    Returns
    -------
    A_bar, gain : Tensor

    Raises
    ------
    ValueError
        The method is unknown.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.state_space_2d import discretized_diagonal
    >>> kept, gain = discretized_diagonal(-torch.ones(1), torch.ones(1), "backward")
    >>> kept.item(), gain.item()
    (0.5, 0.5)
    """
    z = dt * A
    if method == "zoh":
        # Near zero the quotient is a quotient of rounding errors.
        small = z.abs() < 1e-4
        safe = torch.where(small, torch.ones_like(z), z)
        rest = torch.where(small, 1 + z / 2 + z * z / 6, torch.expm1(safe) / safe)
        return torch.exp(z), dt * rest
    alpha = ALPHAS.get(method) if isinstance(method, str) else float(method)
    if alpha is None or not 0 <= alpha <= 1:
        names = ", ".join(ALPHAS)
        raise ValueError(f"method is {method!r}; {names}, zoh, or a number from 0 to 1 are accepted")
    below = 1 - alpha * z
    return (1 + (1 - alpha) * z) / below, dt / below


def state_space_2d(
    x: Tensor,
    dt: Sequence[Tensor],
    A: Sequence[Tensor | None],
    B: Sequence[Tensor],
    C: Sequence[Tensor],
    D: Tensor | None = None,
    *,
    discretization: Discretization = "zoh",
    initial_state: Pair | None = None,
    reverse: bool = False,
    method: Literal["auto", "scan"] = "auto",
) -> tuple[Tensor, Pair]:
    r"""A state space with two states: one goes along time, one across variates, and each drives the other.

    .. math::
        \partial_t h_1 &= A_1 h_1 + A_2 h_2 + B_1 x \\
        \partial_v h_2 &= A_3 h_1 + A_4 h_2 + B_2 x \\
        y &= C_1 h_1 + C_2 h_2 + D x

    :math:`A_1` and :math:`A_4` are discretised; what couples the states, and the input, is constant over a
    step: :math:`\bar A_2 = \bar g_1 A_2` and :math:`\bar B_1 = \bar g_1 B_1`, with the gain of
    `discretized_diagonal`. All are diagonal, and may depend on the input; then the system is selective.

    Parameters
    ----------
    x : (B, V, T, D) Tensor
        Of D channels, each a system of its own.
    dt : two Tensors
        Steps along time and across variates, at least zero, (B, V, T, D) or broadcasting to it.
    A : four Tensors, of which the second and third may be None
        Each (D, N), or (D, 1) for one number of all states of a channel; None for states that are not
        coupled: without both, the system is a selective state space along time beside one across variates.
    B, C : two Tensors each
        (D, N), or (B, V, T, N) for all channels of a place.
    D : (D,) Tensor, optional
    discretization
        As by `discretized_diagonal`.
    initial_state : two (B, V, D, N) Tensors, optional
        Zero by default.
    reverse : bool
        From the last variate to the first.
    method
        As of `coupled_recurrence`.

    Returns
    -------
    y : (B, V, T, D) Tensor
        Real where x is.
    final_state : two (B, V, D, N) Tensors

    Raises
    ------
    ValueError
        Shapes do not fit, or an option is unknown.

    References
    ----------
    Behrouz, Santacatterina and Zabih, *Chimera: effectively modeling multivariate time series with
    2-dimensional state space models*, NeurIPS 2024; for steps that depend on the input, Gu and Dao, *Mamba:
    linear-time sequence modeling with selective state spaces*, 2023, section 3.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.sequence.state_space_2d import state_space_2d
    >>> x, one = torch.ones(1, 2, 3, 1), torch.ones(1, 1)
    >>> step = torch.ones(1)
    >>> y, last = state_space_2d(x, (step, step), (-one, None, None, -one), (one, one), (one, one))
    >>> [round(value, 3) for value in y[0, :, :, 0].sum(1).tolist()], last[0].shape
    ([4.343, 5.041], torch.Size([1, 2, 1, 1]))
    """
    size = _checked(x, dt, A, B, C, D)
    if reverse:
        flipped = [one.flip(1) if one.ndim == 4 and one.shape[1] > 1 else one for one in (*dt, *B, *C)]
        state = None if initial_state is None else (initial_state[0].flip(1), initial_state[1].flip(1))
        y, last = state_space_2d(
            x.flip(1), flipped[:2], A, flipped[2:4], flipped[4:], D, discretization=discretization,
            initial_state=state, method=method,
        )  # fmt: skip
        return y.flip(1), (last[0].flip(1), last[1].flip(1))
    shape = (*x.shape, size)
    a: list[Tensor | None] = [None] * 4
    b = []
    for axis, own, other in ((0, 0, 1), (1, 3, 2)):
        rate, coupling = A[own], A[other]
        assert rate is not None
        kept, gain = discretized_diagonal(rate, dt[axis].unsqueeze(-1), discretization)
        a[own], a[other] = kept, None if coupling is None else gain * coupling
        b.append(gain * (_wide(B[axis]) * x.unsqueeze(-1)))
    none = b[0].new_zeros(())
    flat = [(none if one is None else one).expand(shape).flatten(-2) for one in a]
    first = None
    if initial_state is not None:
        first = initial_state[0].flatten(-2), initial_state[1].flatten(-2)
    h, last = coupled_recurrence(flat, [one.expand(shape).flatten(-2) for one in b], first, method=method)
    read = [(_wide(C[axis]) * h[axis].unflatten(-1, shape[-2:])).sum(-1) for axis in (0, 1)]
    y = read[0] + read[1]
    y = y if x.is_complex() or not y.is_complex() else y.real
    return y if D is None else y + D * x, (
        last[0].unflatten(-1, shape[-2:]),
        last[1].unflatten(-1, shape[-2:]),
    )


def _wide(one: Tensor) -> Tensor:
    """With an axis for channels: all have the same where there is one for each place."""
    return one.unsqueeze(-2) if one.ndim == 4 else one


def _checked(
    x: Tensor,
    dt: Sequence[Tensor],
    A: Sequence[Tensor | None],
    B: Sequence[Tensor],
    C: Sequence[Tensor],
    D: Tensor | None,
) -> int:
    """Size of a channel's state."""
    if x.ndim != 4 or (len(dt), len(A), len(B), len(C)) != (2, 4, 2, 2) or A[0] is None or A[3] is None:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, and there are {len(dt)} dt, {len(A)} A, {len(B)} B, {len(C)} C;"
            " (B, V, T, D), and 2, 4 of which the first and last are tensors, 2 and 2 are accepted"
        )
    channels, size = x.shape[3], max(one.shape[-1] for one in (*(one for one in A if one is not None), *B))
    matrices = {"A": A, "B": B, "C": C}
    for name, ones in matrices.items():
        for number, one in enumerate(ones, 1):
            accepted = [(channels, size), (channels, 1)] if name == "A" else [
                (channels, size), (*x.shape[:3], size)
            ]  # fmt: skip
            if one is not None and tuple(one.shape) not in accepted:
                words = " or ".join(map(str, accepted))
                raise ValueError(f"{name}{number} has shape {tuple(one.shape)}; {words} is accepted")
    for name, one in (("dt1", dt[0]), ("dt2", dt[1]), ("D", D)):
        if one is None:
            continue
        fits = one.ndim <= 4 and all(
            n in (1, m) for n, m in zip(one.shape[::-1], tuple(x.shape)[::-1], strict=False)
        )
        if not fits or (name == "D" and one.ndim > 1):
            raise ValueError(f"{name} has shape {tuple(one.shape)}; it must broadcast to {tuple(x.shape)}")
        if name != "D" and not bool((one.detach() >= 0).all()):
            raise ValueError(f"{name} is down to {one.min():.3g}; steps of at least 0 are accepted")
    return size
