"""What is sparse runs faster: idle units are cut out, and sparse layers compute with what is left."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from learnsolve.training.masks import remove_masks
from learnsolve.training.modes import mode
from learnsolve.training.sparse_linear import SparseLinear
from learnsolve.training.unit_chains import UnitChain, unit_chains


def compacted(network: nn.Module, *, sparse_below: float = 0.05, smallest: int = 1 << 18) -> nn.Module:
    """A smaller network that computes the same function in evaluation mode, but for rounding.

    First, units of linear layers and channels of convolutions are cut out that nothing reads, or to which no
    weights lead: their constant value, if it is not zero, goes into the biases of the next layer. Which
    layers can be cut `unit_chains` says; a convolution that pads with zeros cannot take in a constant, and of
    each layer one unit stays. Then linear layers become `SparseLinear` where that is likely to be faster.
    Masks are gone from the result: zeros that are left in dense layers are trained like any weight.

    Parameters
    ----------
    network : torch.nn.Module
        With masks or without; not changed.
    sparse_below : float
        A linear layer in which the share of weights that are not zero is below this becomes a `SparseLinear`;
        zero for none.
    smallest : int
        Linear layers of fewer weights than this, zeros included, stay dense.

    Returns
    -------
    torch.nn.Module
        A copy. A `SparseLinear` has no ``weight``: code that reads one directly needs ``sparse_below=0``.

    Raises
    ------
    ValueError
        ``sparse_below`` is not in [0, 1].

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.compaction import compacted
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 9), torch.nn.ReLU(), torch.nn.Linear(9, 1))
    >>> with torch.no_grad():
    ...     network[0].weight[3:] = 0
    >>> compacted(network)[0]
    Linear(in_features=2, out_features=3, bias=True)
    """
    if not 0 <= sparse_below <= 1:
        raise ValueError(f"sparse_below is {sparse_below}; a share in [0, 1] is accepted")
    compact = copy.deepcopy(network)
    remove_masks(compact)
    with torch.no_grad(), mode(compact, training=False):
        # What is cut may have been all that read a unit before.
        while any([_cut(compact, chain) for chain in unit_chains(compact)]):
            pass
        _make_sparse(compact, sparse_below, smallest)
    return compact


def _cut(network: nn.Module, chain: UnitChain) -> bool:
    """Cut out what can be of a layer's units; whether there were any."""
    producer: Any = network.get_submodule(chain.producer)
    consumer: Any = network.get_submodule(chain.consumer)
    weight: Tensor = producer.weight
    silent = (weight == 0).flatten(1).all(1)
    constant = weight.new_zeros(len(weight)) if producer.bias is None else producer.bias
    constant = constant.where(silent, 0).reshape(1, -1, *[1] * (weight.ndim - 2))
    for step in chain.steps:
        # A copy, for some act in place.
        constant = step(constant.clone())
    constant = constant.flatten()

    read = _by_unit(consumer, len(weight))
    unread = (read == 0).transpose(0, 1).flatten(1).all(1)
    away = unread | (silent & ((constant == 0) | (constant.isfinite() & chain.takes_constants)))
    if bool(away.all()):
        away[0] = False
    if not bool(away.any()):
        return False
    taken_in = read.flatten(2).sum(2) @ constant.where(away & ~unread, 0)
    if bool((taken_in != 0).any()):
        _add_to_bias(consumer, taken_in)
    for name in (chain.producer, *chain.norms):
        _keep_outputs(network.get_submodule(name), ~away)
    _keep_inputs(consumer, read[:, ~away])
    return True


def _by_unit(consumer: Any, units: int) -> Tensor:
    """A layer's weight as (outputs, units, ...): after flattening a channel has several columns."""
    weight: Tensor = consumer.weight
    return weight.reshape(len(weight), units, -1) if isinstance(consumer, nn.Linear) else weight


def _replaced(old: Tensor, new: Tensor) -> nn.Parameter:
    return nn.Parameter(new.clone(), requires_grad=old.requires_grad)


def _add_to_bias(layer: Any, constant: Tensor) -> None:
    if layer.bias is None:
        layer.bias = _replaced(layer.weight, constant)
    else:
        layer.bias = _replaced(layer.bias, layer.bias + constant)


def _keep_outputs(layer: Any, kept: Tensor) -> None:
    """Cut a layer, or a normalisation, down to some of its units."""
    for name, parameter in list(layer.named_parameters(recurse=False)):
        setattr(layer, name, _replaced(parameter, parameter[kept]))
    for name, buffer in list(layer.named_buffers(recurse=False)):
        if buffer.ndim:
            setattr(layer, name, buffer[kept])
    sizes = ("out_features", "out_channels", "num_features")
    setattr(layer, next(size for size in sizes if hasattr(layer, size)), int(kept.sum()))


def _keep_inputs(layer: Any, weight: Tensor) -> None:
    """Give a layer the weight, as `_by_unit`, of fewer inputs."""
    linear = isinstance(layer, nn.Linear)
    layer.weight = _replaced(layer.weight, weight.flatten(1) if linear else weight)
    setattr(layer, "in_features" if linear else "in_channels", layer.weight.shape[1])


def _make_sparse(network: nn.Module, below: float, smallest: int) -> None:
    """Replace linear layers, by all their names, that have few weights left."""
    made: dict[int, SparseLinear] = {}
    for name, layer in list(network.named_modules(remove_duplicate=False)):
        # A subclass may have a forward pass of its own.
        if type(layer) is not nn.Linear or layer.weight.numel() < smallest or not name:
            continue
        if int((layer.weight != 0).sum()) >= below * layer.weight.numel():
            continue
        if id(layer) not in made:
            made[id(layer)] = SparseLinear(layer.weight, layer.bias)
        parent, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(parent), attribute, made[id(layer)])
