"""Derivatives of a solve, by the implicit function theorem, in one autograd function.

For ``x = A^-1 b`` and a cotangent ``g`` of ``x``: ``y = A^-H g`` is the cotangent of ``b``, and that of the
operator's parameters is what they receive when the product ``A x`` receives ``-y``. Both are written with
differentiable operations, the solve among them, so that second derivatives follow.
"""

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from learnsolve.loop import Limits, Outcome

if TYPE_CHECKING:
    from learnsolve.linear import Solver


def solve(solver: "Solver", b: Tensor, x: Tensor, limits: Limits, outcomes: list[Any]) -> Tensor:
    """Solve for one column, differentiably where anything requires grad; appends to ``outcomes``."""
    parameters = solver.A.parameters()
    if not (torch.is_grad_enabled() and any(t.requires_grad for t in (b, *parameters))):
        with torch.no_grad():
            found = solver.run(b, x, limits)
        outcomes.append(found)
        return found[0].x
    return _Solve.apply(solver, limits, x, outcomes, b, *parameters)


class _Solve(torch.autograd.Function):
    """``(b, parameters) -> A(parameters)^-1 b``."""

    @staticmethod
    def forward(
        ctx: Any, solver: Any, limits: Limits, x: Tensor, outcomes: list[Any], b: Tensor, *parameters: Tensor
    ):
        found: tuple[Outcome, Any] = solver.run(b.detach(), x, limits)
        outcomes.append(found)
        answer = found[0].x.clone()
        ctx.solver, ctx.limits = solver, limits
        ctx.save_for_backward(answer, *parameters)
        return answer

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = gradients
        answer, *parameters = ctx.saved_tensors
        solver = ctx.solver
        adjoint = solver.adjoint
        limits = Limits(ctx.limits.rtol, 0.0, ctx.limits.maxiter)
        g = g if solver.A.range_shape != solver.A.domain_shape else solver.A.enter(g)
        if torch.is_grad_enabled():
            adjoint = _with(adjoint, solver.A, parameters)
        y = solve(adjoint, g, torch.zeros_like(g), limits, [])
        slots: list[Tensor | None] = [None] * len(parameters)
        if any(ctx.needs_input_grad[5:]):
            slots = list(solver.A.with_parameters(tuple(parameters)).cotangents(answer, -y))
        return (None, None, None, None, y if ctx.needs_input_grad[4] else None, *slots)


def _with(adjoint: Any, A: Any, parameters: list[Tensor]) -> Any:
    """The adjoint solver, its operator tied to the parameters that autograd knows."""
    tied = copy.copy(adjoint)
    tied.A = A.with_parameters(tuple(parameters)).H
    return tied
