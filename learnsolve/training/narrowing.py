"""A network with fewer units along all that goes together, residual streams too."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from learnsolve.training.masks import WeightMask
from learnsolve.training.matching import selected, taken_apart
from learnsolve.training.symmetries import Permutation, symmetries

# Names of the sizes that layers keep beside their tensors, and along which axis of the weight they stand.
SIZES = {
    "out_features": 0, "in_features": 1, "embedding_dim": 1, "num_features": 0, "num_channels": 0,
    "num_parameters": 0,
}  # fmt: skip


def narrowed(
    network: nn.Module,
    example: Any,
    share: float,
    *,
    importance: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    r"""A smaller network: of each set of units that go together, the least important ones are cut out.

    Sets of units are those that `symmetries` finds: all that is computed along a residual stream is one set,
    which masks on single layers cannot make smaller. The importance of a unit is the sum over the tensors of
    the set of the mean of :math:`w^2` over its entries, each divided by the mean over all units. What is left
    is as it was, so that the network does not compute the same: train it again.

    Parameters
    ----------
    network : torch.nn.Module
        Without masks; not changed.
    example : Tensor, or tuple of arguments
        What the network is called with, as `symmetries` takes it.
    share : float
        In (0, 1), of the units of each set: ``round(share * n)`` go, and one at least stays. Sets that meet a
        convolution or a normalisation of several groups stay as they are.
    importance : mapping of str to Tensor, optional
        By the names of parameters, of their shapes and not negative, in place of :math:`w^2`: for example
        the squares of weights times `learnsolve.training.weight_importance.squared_gradients`.

    Returns
    -------
    torch.nn.Module
        A copy, of smaller tensors.

    Raises
    ------
    ValueError
        The share or an importance is not accepted, the network has masks, `symmetries` refuses it, or there
        is nothing in it that can be cut.

    References
    ----------
    Fang, Ma, Song, Mi and Wang, *DepGraph: towards any structural pruning*, CVPR 2023, for layers that must
    be cut together, and the importance of their sum.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.narrowing import narrowed
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> narrowed(network, torch.ones(1, 2), 0.75)
    Sequential(
      (0): Linear(in_features=2, out_features=2, bias=True)
      (1): ReLU()
      (2): Linear(in_features=2, out_features=1, bias=True)
    )
    """
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; a share in (0, 1) is accepted")
    if any(isinstance(module, WeightMask) for module in network.modules()):
        raise ValueError("the network has masks: compacted cuts out what they leave idle, and removes them")
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    worth = {name: p.square() for name, p in parameters.items()}
    for name, given in (importance or {}).items():
        if name not in parameters or given.shape != parameters[name].shape or bool((given < 0).any()):
            raise ValueError(
                f"importance has {name!r} of shape {tuple(given.shape)}; numbers that are not negative, for "
                "parameters of the network in their shapes, are accepted"
            )
        worth[name] = given.to(parameters[name])
    broken = [name for name, one in worth.items() if not bool(one.isfinite().all())]
    if broken:
        raise ValueError(f"{', '.join(broken)}: weights, or their importance, are not finite")
    sets = {
        name: units for name, units in symmetries(network, example).items() if not _grouped(network, units)
    }
    if not sets:
        raise ValueError("the network has no units that can be cut out")
    small = copy.deepcopy(network)
    holders = _holders(small)
    for units in sets.values():
        kept = _most_important(worth, units, share)
        for place in units.places:
            layer, name = _owner(small, place.tensor)
            old = getattr(layer, name)
            new = selected(old.detach(), place, len(units.order), kept)
            if isinstance(old, nn.Parameter):
                new = nn.Parameter(new, requires_grad=old.requires_grad)
            holders[id(new)] = holders[id(old)]
            for holder, its in holders[id(old)]:
                setattr(holder, its, new)
    for layer in small.modules():
        _resize(layer)
    return small


def _holders(network: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """All places where a network keeps each of its tensors, by the tensor's id."""
    found: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in network.modules():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for name, tensor in own:
            found.setdefault(id(tensor), []).append((module, name))
    return found


def _most_important(worth: Mapping[str, Tensor], units: Permutation, share: float) -> Tensor:
    """Which units of a set stay, in their order."""
    count = len(units.order)
    total = torch.zeros(count, dtype=torch.float64)
    for place in units.places:
        if place.tensor in worth:
            apart = taken_apart(worth[place.tensor].to("cpu", torch.float64), place, count)
            size = apart.movedim(place.axis + 1, 0).flatten(1).mean(1)
            total += size / size.mean().clamp(min=torch.finfo(size.dtype).tiny)
    kept = max(count - round(share * count), 1)
    return torch.argsort(total, descending=True, stable=True)[:kept].sort().values


def _owner(network: nn.Module, tensor: str) -> tuple[nn.Module, str]:
    layer, _, name = tensor.rpartition(".")
    return network.get_submodule(layer), name


def _grouped(network: nn.Module, units: Permutation) -> bool:
    """Whether cutting out units would change how many groups a layer has, or what is in them."""
    layers = (_owner(network, place.tensor)[0] for place in units.places)
    return any(getattr(layer, name, 1) > 1 for layer in layers for name in ("groups", "num_groups"))


def _resize(layer: nn.Module) -> None:
    """Let a layer say the sizes that its tensors have."""
    weight = getattr(layer, "weight", None)
    if weight is None:
        weight = getattr(layer, "running_mean", None)
    if weight is None:
        return
    if isinstance(layer, nn.modules.conv._ConvNd):
        sides = ("in_channels", "out_channels") if layer.transposed else ("out_channels", "in_channels")
        for axis, side in enumerate(sides):
            if layer.groups == 1:
                setattr(layer, side, weight.shape[axis])
        return
    for name, axis in SIZES.items():
        if hasattr(layer, name):
            setattr(layer, name, weight.shape[axis])
    if isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = tuple(weight.shape)
