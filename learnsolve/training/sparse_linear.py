"""A linear layer that stores, and computes with, the weights that are not zero."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from learnsolve.kernels import sparse as kernels


class _Product(torch.autograd.Function):
    """``A x`` with gradients for the values of ``A`` and for ``x``."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, x: Tensor, *structure: Tensor) -> Tensor:
        ctx.save_for_backward(values, x, *structure)
        return kernels.spmv(structure[0], structure[1], values, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, x, indptr, indices, columns, rows, order = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_values = of_x = None
        if ctx.needs_input_grad[0]:
            of_values = kernels.sampled_product(indptr, indices, gradient, x)
        if ctx.needs_input_grad[1]:
            of_x = kernels.spmv(columns, rows, values[order], gradient)
        return (of_values, of_x, *[None] * 5)


class SparseLinear(nn.Module):
    """``y = x A^T + b`` with the weight ``A`` in compressed sparse rows.

    Which entries there are is fixed; their values and the bias are trained. The products are those of
    `learnsolve.kernels.sparse`. Gradients of gradients are not defined.

    Parameters
    ----------
    weight : (outputs, inputs) float Tensor
        Its entries that are not zero become the values.
    bias : (outputs,) Tensor, optional
        None for no bias.

    Attributes
    ----------
    values : (entries,) nn.Parameter
        Row by row.
    indptr, indices : int32 Tensor
        Where each row begins, and columns: buffers, so that they are in the ``state_dict``, as is the same
        structure by columns.
    bias : nn.Parameter or None
        The bias.

    Raises
    ------
    ValueError
        The weight or the bias is of another shape; or, in a forward pass, the input is, or the buffers were
        changed to what is no such matrix.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.sparse_linear import SparseLinear
    >>> layer = SparseLinear(torch.tensor([[0.0, 2.0], [0.0, 0.0]]), torch.ones(2))
    >>> layer(torch.tensor([[5.0, 7.0]])).tolist(), layer.values.numel()
    ([[15.0, 1.0]], 1)
    """

    values: nn.Parameter
    indptr: Tensor
    indices: Tensor
    columns: Tensor
    rows: Tensor
    order: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
            shapes = [None if one is None else tuple(one.shape) for one in (weight, bias)]
            raise ValueError(
                f"weight and bias have shapes {shapes}; (outputs, inputs) and (outputs,) are accepted"
            )
        self.out_features, self.in_features = weight.shape
        weight = weight.detach()
        rows, columns = weight.nonzero(as_tuple=True)
        self.values = nn.Parameter(weight[rows, columns])
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        order = torch.argsort(columns, stable=True)
        structure = {
            "indptr": _begins(rows, self.out_features),
            "indices": columns.int(),
            # The same by columns, for gradients: where each begins, rows, and places among the values.
            "columns": _begins(columns, self.in_features),
            "rows": rows[order].int(),
            "order": order,
        }
        for name, tensor in structure.items():
            self.register_buffer(name, tensor)
        self._checked: tuple[tuple[int, int], ...] = ()

    def _structure(self) -> tuple[Tensor, ...]:
        """The buffers, checked whenever they have changed: kernels read wherever indices say."""
        structure = (self.indptr, self.indices, self.columns, self.rows, self.order)
        # Tensors of inference mode count no versions.
        state = tuple((id(one), 0 if one.is_inference() else one._version) for one in structure)
        if state != self._checked:
            bounds = (self.in_features, self.out_features, self.values.numel())
            begins = all(_rise(one, self.values.numel()) for one in (self.indptr, self.columns))
            places = zip((self.indices, self.rows, self.order), bounds, strict=True)
            if not (begins and all(_within(one, bound) for one, bound in places)):
                raise ValueError("the layer's buffers are not a matrix in compressed rows of its size")
            self._checked = state
        return structure

    def forward(self, x: Tensor) -> Tensor:
        """Of inputs ``(..., inputs)`` outputs ``(..., outputs)``."""
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"x has shape {tuple(x.shape)}; (..., {self.in_features}) is accepted")
        vectors = x.reshape(-1, self.in_features).T
        # One vector takes the faster of two kernels.
        vectors = vectors[:, 0] if vectors.shape[1] == 1 else vectors
        y = _Product.apply(self.values, vectors.contiguous(), *self._structure())
        y = (y if y.ndim == 1 else y.T).reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """What `print` shows between the brackets."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, entries={self.values.numel()}"
        )


def _begins(ascending: Tensor, count: int) -> Tensor:
    """Where each of so many numbers begins once they are in order."""
    ends = torch.bincount(ascending, minlength=count).cumsum(0)
    return torch.cat([ends.new_zeros(1), ends]).int()


def _rise(begins: Tensor, entries: int) -> bool:
    """Whether begins of rows rise from zero to the number of entries."""
    rises = bool((begins[1:] >= begins[:-1]).all())
    return rises and int(begins[0]) == 0 and int(begins[-1]) == entries


def _within(places: Tensor, bound: int) -> bool:
    return not places.numel() or (int(places.min()) >= 0 and int(places.max()) < bound)
