r"""Two coupled recurrences on a grid as a parallel scan: an associative product of maps between columns.

A column of ``h1`` decides the rest of its column: along the rows, ``h2`` is a recurrence that ``h1`` drives,
:math:`h_2[:, t] = W_t h_1[:, t] + d_t` with a strictly lower triangular matrix. So a column follows from the
one before by an affine map,

.. math:: h_1[:, t] = M_t h_1[:, t - 1] + c_t, \qquad M_t = \mathrm{diag}(a_1) + \mathrm{diag}(a_2) W_{t - 1},
    \quad c_t = a_2 d_{t - 1} + b_1,

and maps compose: :math:`(M, c) \circ (M', c') = (M M', M c' + c)`. The depth is logarithmic in columns and
rows; a product of maps costs the cube of the rows. Shapes are those of `learnsolve.kernels.coupled_plane`.

References
----------
Blelloch, *Prefix sums and their applications*, CMU-CS-90-190, 1990, section 1.4.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from learnsolve.kernels.recurrence_cyclic import solved

Elements = tuple[Tensor, ...]


def composed(later: Elements, earlier: Elements) -> Elements:
    """Affine maps one after the other; associative, not commutative.

    Parameters
    ----------
    later, earlier : (..., V, V) and (..., V) Tensor

    Examples
    --------
    >>> two, one = torch.full((1, 1), 2.0), torch.ones(1)
    >>> M, c = composed((two, one), (two, 3 * one))
    >>> M.item(), c.item()
    (4.0, 7.0)
    """
    return later[0] @ earlier[0], (later[0] @ earlier[1].unsqueeze(-1)).squeeze(-1) + later[1]


def scanned(product: Callable[[Elements, Elements], Elements], elements: Elements) -> Elements:
    """All products of the first so many elements along the first axis, in 2 log2 steps.

    Parameters
    ----------
    product : callable
        ``product(later, earlier)``, associative, for any number of elements side by side.
    elements : tuple of (T, ...) Tensor

    Examples
    --------
    >>> scanned(lambda later, earlier: (later[0] + earlier[0],), (torch.arange(1, 6),))
    (tensor([ 1,  3,  6, 10, 15]),)
    """
    length = elements[0].shape[0]
    if length < 2:
        return elements
    whole = length // 2 * 2
    pairs = product(tuple(one[1:whole:2] for one in elements), tuple(one[0:whole:2] for one in elements))
    odd = scanned(product, pairs)
    found = tuple(torch.empty_like(one) for one in elements)
    later = tuple(one[2::2] for one in elements)
    even = product(later, tuple(one[: len(later[0])] for one in odd)) if length > 2 else later
    for all_of, one, first, rest in zip(found, odd, elements, even, strict=True):
        all_of[1::2], all_of[:1], all_of[2::2] = one, first[:1], rest
    return found


def coupled_plane(a: Sequence[Tensor], b: Sequence[Tensor], first: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """``h1`` follows both along the columns, and ``h2`` both along the rows.

    Examples
    --------
    >>> one, none = torch.ones(1, 2, 2, 1), torch.zeros(1, 2, 1)
    >>> h1, h2 = coupled_plane([one] * 4, [one] * 2, [none] * 2)
    >>> h1[0, ..., 0].tolist(), h2[0, ..., 0].tolist()
    ([[1.0, 3.0], [1.0, 5.0]], [[1.0, 1.0], [3.0, 5.0]])
    """
    columns = b[0].shape[2]
    if not b[0].numel():
        return b[0], b[1]
    # Columns first, then groups and channels, then rows.
    a1, a2, a3, a4, b1, b2 = (one.permute(2, 0, 3, 1) for one in (*a, *b))
    down = _down(a4, torch.diag_embed(a3[..., 1:], -1))
    alone = _down(a4, b2.unsqueeze(-1)).squeeze(-1)
    begin = (a[0][:, :, 0] * first[0] + a[1][:, :, 0] * first[1]).transpose(1, 2)
    M = torch.diag_embed(a1[1:]) + a2[1:].unsqueeze(-1) * down[: columns - 1]
    c = b1 + torch.cat([begin.unsqueeze(0), a2[1:] * alone[: columns - 1]])
    h1 = scanned(composed, (torch.cat([torch.zeros_like(down[:1]), M]), c))[1]
    above = torch.cat([torch.zeros_like(h1[..., :1]), h1[..., :-1]], -1)
    h2 = _down(a4, (a3 * above + b2).unsqueeze(-1)).squeeze(-1)
    return h1.permute(1, 3, 0, 2), h2.permute(1, 3, 0, 2)


def _down(a4: Tensor, driven: Tensor) -> Tensor:
    """The recurrence along the rows of what drives it, (..., V, n)."""
    rows, n = driven.shape[-2:]
    return solved(a4.reshape(-1, rows, 1), driven.reshape(-1, rows, n)).reshape(driven.shape)
