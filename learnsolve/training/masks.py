"""Masks over weights, kept on the network: what is masked is zero in every forward pass."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class WeightMask(nn.Module):
    """A parametrization: the weight where the mask is True, zero elsewhere.

    Parameters
    ----------
    weight : Tensor
        Gives shape and device; the mask is True everywhere.

    Attributes
    ----------
    mask : bool Tensor of the weight's shape
        A buffer, so that it is in the network's ``state_dict``.
    gradient : Tensor or None
        If a tensor, each backward pass adds the dense gradient to it: that of the masked weight, of
        entries that are masked too.
    """

    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))
        self.gradient: Tensor | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """The weight as the layer uses it."""
        masked = torch.where(self.mask, self.unmasked(weight), 0)
        if self.gradient is not None and masked.requires_grad:
            masked.register_hook(self._see)
        return masked

    def unmasked(self, weight: Tensor) -> Tensor:
        """The weight before it is masked."""
        return weight

    def _see(self, gradient: Tensor) -> None:
        """Add a part of the dense gradient: a weight that is read twice has two."""
        if self.gradient is not None:
            self.gradient += gradient.detach()


class Masked(NamedTuple):
    """A weight with a mask.

    Attributes
    ----------
    module : torch.nn.Module
        The layer.
    attribute : str
        Its attribute that holds the weight.
    mask : WeightMask
        The mask.
    """

    module: nn.Module
    attribute: str
    mask: WeightMask

    @property
    def original(self) -> nn.Parameter:
        """The parameter that is trained, whatever the mask."""
        return cast(Any, self.module).parametrizations[self.attribute].original

    @property
    def weight(self) -> Tensor:
        """The weight as the layer uses it, detached."""
        with torch.no_grad():
            return getattr(self.module, self.attribute).detach()


def maskable(network: nn.Module) -> list[str]:
    """Names of the weights that are masked by default: parameters of two axes and more.

    Left out are those of LSTM, GRU and RNN layers, whose kernels read their weights past a mask, those that
    several layers share, and those that have a parametrization of another kind.

    Parameters
    ----------
    network : torch.nn.Module
        With masks or without.

    Returns
    -------
    list of str
        As in ``named_parameters`` of the network without masks.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.masks import maskable
    >>> maskable(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)))
    ['0.weight']
    """
    places = _places(network).items()
    return [name for name, place in places if place.weight.ndim >= 2 and not _objection(place)]


def mask_weights(
    network: nn.Module, names: Iterable[str] | None = None, kind: type[WeightMask] = WeightMask
) -> dict[str, Masked]:
    """Put masks on weights, in place: True everywhere, so that the network computes what it did.

    Forward passes, gradients and every optimizer respect the masks, because the layer computes its weight
    from the parameter and the mask: a masked weight is zero, and so is the gradient of its parameter. In
    the network's ``state_dict``, and therefore in checkpoints of `fit` and in files of `save_weights`, a
    weight ``0.weight`` becomes ``0.parametrizations.weight.original`` and the mask
    ``0.parametrizations.weight.0.mask``: both survive, and such a file loads into a network with masks on
    the same weights. `remove_masks` brings the plain names back.

    Parameters
    ----------
    network : torch.nn.Module
        Changed in place. Masks that are there already stay as they are.
    names : iterable of str, optional
        As in ``named_parameters``, biases included; `maskable` by default.
    kind : type, optional
        Of the masks.

    Returns
    -------
    dict of Masked
        All masks of the network, as `masks_of`.

    Raises
    ------
    ValueError
        There is no such parameter, or it cannot be masked; or there is nothing to mask.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.masks import mask_weights
    >>> network = torch.nn.Linear(2, 1)
    >>> mask_weights(network)["weight"].mask.mask[0, 0] = False
    >>> bool(network(torch.tensor([[5.0, 0.0]])) == network.bias)
    True
    """
    places = _places(network)
    chosen = maskable(network) if names is None else list(names)
    for name in chosen:
        if name not in places:
            raise ValueError(f"the network has no parameter {name!r}; it has {', '.join(places) or 'none'}")
        objection = _objection(places[name])
        if objection:
            raise ValueError(f"{name} cannot be masked: {objection}")
    for name in chosen:
        place = places[name]
        if place.mask is None:
            _own_class(place.module)
            parametrize.register_parametrization(place.module, place.attribute, kind(place.weight))
    masks = masks_of(network)
    if not masks:
        raise ValueError("the network has no parameter of two axes that can be masked")
    return masks


def masks_of(network: nn.Module) -> dict[str, Masked]:
    """The masks of a network, by the names of their weights; empty if there are none.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.masks import masks_of
    >>> masks_of(torch.nn.Linear(2, 1))
    {}
    """
    return {
        name: Masked(place.module, place.attribute, place.mask)
        for name, place in _places(network).items()
        if place.mask is not None
    }


def remove_masks(network: nn.Module) -> None:
    """Make masked weights plain parameters again, with zeros where they were masked, in place.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.masks import mask_weights, remove_masks
    >>> network = torch.nn.Linear(2, 1)
    >>> mask_weights(network)["weight"].mask.mask.fill_(False)
    tensor([[False, False]])
    >>> remove_masks(network)
    >>> network.state_dict()["weight"]
    tensor([[0., 0.]])
    """
    for masked in masks_of(network).values():
        _own_class(masked.module)
        parametrize.remove_parametrizations(masked.module, masked.attribute)


def density(network: nn.Module) -> float:
    """Share of the masked weights that are left; one of a network without masks.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.masks import density, mask_weights
    >>> network = torch.nn.Linear(2, 1)
    >>> mask_weights(network)["weight"].mask.mask[0, 0] = False
    >>> density(network)
    0.5
    """
    masks = [masked.mask.mask for masked in masks_of(network).values()]
    return sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks) if masks else 1.0


def values_but_masks(network: nn.Module) -> dict[str, Tensor]:
    """The network's ``state_dict`` without its masks, which shares memory with the network."""
    masks = {id(masked.mask) for masked in masks_of(network).values()}
    skipped = {f"{name}.mask" for name, module in network.named_modules() if id(module) in masks}
    return {name: value for name, value in network.state_dict().items() if name not in skipped}


def _own_class(module: nn.Module) -> None:
    """Give a parametrized module a class of its own.

    Torch keeps the properties of its parametrized attributes in its class, which deep copies share: a
    property that one of them gets or loses, all would.
    """
    if parametrize.is_parametrized(module):
        shared = type(module)
        parts = {name: part for name, part in vars(shared).items() if name not in ("__dict__", "__weakref__")}
        module.__class__ = type(shared.__name__, shared.__bases__, parts)


class _Place(NamedTuple):
    """What stands behind the name of a parameter; ``readers`` are the names of layers that share it."""

    module: nn.Module
    attribute: str
    weight: Tensor
    mask: WeightMask | None
    parametrized: bool
    readers: list[str]


def _places(network: nn.Module) -> dict[str, _Place]:
    """What stands behind each name that the network has without masks."""
    places: dict[str, _Place] = {}
    readers: dict[int, list[str]] = {}
    for prefix, module in _layers(network):
        dot = f"{prefix}." if prefix else ""
        own: list[tuple[str, Tensor, WeightMask | None, bool]] = []
        if parametrize.is_parametrized(module):
            for attribute, chain in cast(Any, module).parametrizations.items():
                mask = chain[0] if isinstance(chain[0], WeightMask) else None
                # Parametrizations of other kinds may keep several tensors.
                weight = chain.original if hasattr(chain, "original") else chain.original0
                own.append((attribute, weight, mask, True))
        own += [
            (attribute, weight, None, False) for attribute, weight in module.named_parameters(recurse=False)
        ]
        for attribute, weight, mask, parametrized in own:
            together = readers.setdefault(id(weight), [])
            together.append(f"{dot}{attribute}")
            places[f"{dot}{attribute}"] = _Place(module, attribute, weight, mask, parametrized, together)
    return places


def _layers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules with their names, but for what parametrizations consist of."""
    inside: set[int] = set()
    for prefix, module in network.named_modules():
        if id(module) not in inside:
            yield prefix, module
        if parametrize.is_parametrized(module):
            inside |= {id(part) for part in cast(nn.Module, module.parametrizations).modules()}


def _objection(place: _Place) -> str:
    """Why a weight cannot be masked; empty if it can."""
    if isinstance(place.module, nn.RNNBase):
        return f"the kernels of {type(place.module).__name__} read their weights past a mask"
    if len(place.readers) > 1:
        return f"{' and '.join(place.readers)} are one parameter"
    if place.parametrized and place.mask is None:
        return "it has a parametrization of another kind"
    if not place.weight.is_floating_point() and not place.weight.is_complex():
        return f"its dtype is {place.weight.dtype}"
    return ""
