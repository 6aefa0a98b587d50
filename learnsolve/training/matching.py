"""Weight matching: the order of a network's units in which its weights are nearest to another's."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from learnsolve.training.connectivity import must_fit, tensors_of
from learnsolve.training.symmetries import Permutation, Place, symmetries

ROUNDS = 100


def match(
    reference: nn.Module, other: nn.Module, example: Any, *, generator: torch.Generator | None = None
) -> dict[str, Permutation]:
    r"""Orders of the units of one network in which its parameters are near to those of a reference.

    Over the orders P of all sets of units that `symmetries` finds, the sum over parameters of
    :math:`\langle A, P(B) \rangle` is made large, A being those of the reference, biases included. One order
    after the other is chosen again, given all others, until none gains: each time a linear assignment. That
    is done from two starts, of which the better end counts: the orders that there are, and orders chosen from
    the input on, each by what is next to those chosen before. The second finds a network in its own
    permutation.

    Parameters
    ----------
    reference, other : torch.nn.Module
        Of the same parameters and shapes.
    example : Tensor, or tuple of arguments
        What the networks are called with, as `symmetries` takes it.
    generator : torch.Generator, optional
        On the CPU; draws the order in which the sets are gone through again. Without it, that of the run.

    Returns
    -------
    dict of str to Permutation
        For `permuted`. No order gains if it is changed alone, but all together may not be the best.

    Raises
    ------
    ValueError
        The networks have other tensors, or such as are not finite; or `symmetries` refuses the reference.

    References
    ----------
    S. Ainsworth, J. Hayase, S. Srinivasa, *Git Re-Basin: merging models modulo permutation symmetries*,
    ICLR 2023, where this coordinate descent has the first of the two starts.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.matching import match, permuted
    >>> network = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    >>> found = match(network, network, torch.ones(1, 3))
    >>> found["0"].order
    tensor([0, 1, 2, 3, 4])
    """
    must_fit(reference, other)
    found = symmetries(reference, example)
    named = dict(reference.named_parameters())
    ours, theirs = (
        {name: p.detach().to("cpu", torch.float64) for name, p in network.named_parameters()}
        for network in (reference, other)
    )
    for name in ours:
        if not (ours[name].isfinite().all() and theirs[name].isfinite().all()):
            raise ValueError(f"{name} of one of the networks holds NaN or infinity")
    # Running statistics follow the units, and do not say which they are.
    places = {name: [p for p in units.places if p.tensor in named] for name, units in found.items()}
    present = {name: units.order for name, units in found.items()}
    searches = [_Search(ours, theirs, dict(present), places) for _ in range(2)]
    searches[0].guess()
    for search in searches:
        search.descend(generator)
    best = max(searches, key=lambda search: search.agreement(ours))
    return {name: replace(units, order=best.orders[name]) for name, units in found.items()}


def permuted(network: nn.Module, permutations: Mapping[str, Permutation]) -> nn.Module:
    """A copy of a network with its units in other orders, which computes the same up to rounding.

    Parameters
    ----------
    network : torch.nn.Module
    permutations : mapping of str to Permutation
        From `match`, or from `symmetries` with other orders.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ValueError
        An order is no permutation, or the network has no such tensor, or one of another size.

    Examples
    --------
    >>> from dataclasses import replace
    >>> import torch
    >>> from learnsolve.training.matching import permuted
    >>> from learnsolve.training.symmetries import symmetries
    >>> network = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    >>> units = symmetries(network, torch.ones(1, 3))["0"]
    >>> turned = permuted(network, {"0": replace(units, order=torch.tensor([4, 3, 2, 1, 0]))})
    >>> torch.equal(turned[0].weight, network[0].weight.flip(0))
    True
    """
    network = copy.deepcopy(network)
    tensors = tensors_of(network)
    for name, units in permutations.items():
        if not torch.equal(units.order.sort().values.cpu(), torch.arange(len(units.order))):
            raise ValueError(f"the order of {name} is {units.order.tolist()}, which is no permutation")
        for place in units.places:
            tensor = tensors.get(place.tensor)
            if tensor is None or tensor.shape[place.axis] % (place.before * len(units.order)):
                raise ValueError(
                    f"the network has {'no tensor' if tensor is None else tuple(tensor.shape)} at {place}, "
                    f"where {len(units.order)} units are to change places"
                )
            with torch.no_grad():
                tensor.copy_(selected(tensor, place, len(units.order), units.order))
    return network


def selected(tensor: Tensor, place: Place, count: int, which: Tensor) -> Tensor:
    """Some or all of the units at a place of a tensor, in any order.

    Parameters
    ----------
    tensor : Tensor
    place : Place
        Where it has units.
    count : int
        How many units there are.
    which : (m,) int64 Tensor

    Returns
    -------
    Tensor
        Of m units at that place.
    """
    taken = taken_apart(tensor, place, count).index_select(place.axis + 1, which.to(tensor.device))
    return taken.flatten(place.axis, place.axis + 2)


def taken_apart(tensor: Tensor, place: Place, count: int) -> Tensor:
    """The axis of the units as three: blocks, units, entries of a unit."""
    return tensor.unflatten(place.axis, (place.before, count, -1))


class _Search:
    """Orders, and how far they may be improved one at a time."""

    def __init__(
        self,
        ours: Mapping[str, Tensor],
        theirs: Mapping[str, Tensor],
        orders: dict[str, Tensor],
        places: dict[str, list[Place]],
    ) -> None:
        self.ours, self.theirs, self.orders, self.places = ours, theirs, orders, places
        self.by_tensor: dict[str, list[tuple[str, Place]]] = {}
        for name, where in places.items():
            for place in where:
                self.by_tensor.setdefault(place.tensor, []).append((name, place))

    def guess(self) -> None:
        """Choose from the input on, each order by the tensors that no order touches which is still open."""
        known: set[str] = set()
        for name, where in self.places.items():
            others = {place: {n for n, p in self.by_tensor[place.tensor] if p != place} for place in where}
            near = [place for place in where if others[place] <= known]
            self.orders[name] = _assigned(self.likeness(name, near))
            known.add(name)

    def descend(self, generator: torch.Generator | None) -> None:
        """Choose one order after the other again, until none gains."""
        names = list(self.orders)
        for _ in range(ROUNDS):
            drawn = (
                range(len(names)) if generator is None else torch.randperm(len(names), generator=generator)
            )
            if not any([self.improve(names[int(k)]) for k in drawn]):
                break

    def improve(self, name: str) -> bool:
        """Choose one order again, given all others; whether that gained."""
        tensors = dict.fromkeys(place.tensor for place in self.places[name])
        before, order = self.agreement(tensors), self.orders[name]
        self.orders[name] = _assigned(self.likeness(name, self.places[name]))
        if self.agreement(tensors) > before + 1e-12 * abs(before):
            return True
        self.orders[name] = order
        return False

    def agreement(self, tensors: Iterable[str]) -> float:
        """The sum of the inner products of some tensors."""
        return sum(float((self.ours[name] * self.turned(name)).sum()) for name in tensors)

    def likeness(self, name: str, where: list[Place]) -> Tensor:
        """Inner products of each unit of the reference with each of the other network, (n, n)."""
        count = len(self.orders[name])
        total = torch.zeros(count, count, dtype=torch.float64)
        for place in where:
            pair = (self.ours[place.tensor], self.turned(place.tensor, but=place))
            rows = [taken_apart(t, place, count).movedim(place.axis + 1, 0).flatten(1) for t in pair]
            total += rows[0] @ rows[1].T
        return total

    def turned(self, tensor: str, but: Place | None = None) -> Tensor:
        """A tensor of the other network in the present orders, except at one place."""
        value = self.theirs[tensor]
        for name, place in self.by_tensor.get(tensor, []):
            if place != but:
                value = selected(value, place, len(self.orders[name]), self.orders[name])
        return value


def _assigned(likeness: Tensor) -> Tensor:
    """For each unit of the reference one of the other network; the sum of their products is largest."""
    from scipy.optimize import linear_sum_assignment

    return torch.from_numpy(linear_sum_assignment(likeness.numpy(), maximize=True)[1])
