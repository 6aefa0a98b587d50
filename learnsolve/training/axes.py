"""Axes as products of factors, which change together once they are tied."""

from collections.abc import Iterable

from torch import Tensor


class Factor:
    """So many entries of an axis: units, or a product of such."""

    def __init__(self, size: int, fixed: bool = False) -> None:
        self.size, self.fixed = size, fixed
        self.parts: list[Factor] | None = None


# A product of factors, of which the last runs fastest; none if the axis has one entry.
Axis = list[Factor]


def axis_of(size: int, fixed: bool = False) -> Axis:
    """An axis of its own."""
    return [] if size == 1 else [Factor(size, fixed)]


def held(tensor: Tensor) -> list[Axis]:
    """Labels of a tensor whose entries stay where they are."""
    return [axis_of(n, fixed=True) for n in tensor.shape]


def leaves(axis: Iterable[Factor]) -> Axis:
    """The factors that are not products."""
    found: Axis = []
    for factor in axis:
        found += [factor] if factor.parts is None else leaves(factor.parts)
    return found


def hold(axes: Iterable[Axis]) -> None:
    """Nothing along these axes may change places."""
    for axis in axes:
        for factor in leaves(axis):
            factor.fixed = True


def free(axes: Iterable[Axis]) -> bool:
    """Whether anything along these axes may change places."""
    return any(not factor.fixed for axis in axes for factor in leaves(axis))


def tied(one: Axis, other: Axis) -> bool:
    """Let two axes of the same size change together; False if they cannot be taken apart alike."""
    p, q = leaves(one), leaves(other)
    while p and q:
        f, g = p.pop(0), q.pop(0)
        if f is g:
            continue
        if f.size < g.size:
            f, g, p, q = g, f, q, p
        if f.size % g.size:
            return not free([[f, *p], [g, *q]])
        if f.size == g.size:
            f.fixed |= g.fixed
            g.parts = [f]
        else:
            g.fixed |= f.fixed
            rest = Factor(f.size // g.size, f.fixed)
            f.parts = [g, rest]
            p.insert(0, rest)
        p, q = leaves(p), leaves(q)
    return True
