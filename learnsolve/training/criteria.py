"""Criteria of pruning: which weights, or units, a network can do without."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from learnsolve.training.fit import Loss
from learnsolve.training.masks import Masked, masks_of
from learnsolve.training.modes import mode
from learnsolve.training.unit_chains import CONVOLUTIONS, unit_chains


class Criterion(Protocol):
    """Says what to prune first."""

    def weights(self, network: nn.Module) -> list[str] | None:
        """Names of the weights that need masks; None for all that can have one."""

    def scores(self, network: nn.Module) -> dict[str, Tensor]:
        """For each masked weight the importance of its pieces: a tensor that broadcasts to its shape.

        An axis of length one means that what lies along it is pruned as one.
        """


@dataclass(frozen=True)
class Magnitude:
    """The smallest ``|w|`` first.

    References
    ----------
    Han, Pool, Tran and Dally, *Learning both weights and connections for efficient neural networks*, NeurIPS
    2015.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.criteria import Magnitude
    >>> from learnsolve.training.pruning import prune
    >>> network = torch.nn.Linear(4, 1)
    >>> with torch.no_grad():
    ...     _ = network.weight.copy_(torch.tensor([[0.1, -3.0, 0.2, 1.0]]))
    >>> prune(network, 0.5, Magnitude())
    0.5
    >>> network.weight.tolist()
    [[0.0, -3.0, 0.0, 1.0]]
    """

    def weights(self, network: nn.Module) -> list[str] | None:
        return None

    def scores(self, network: nn.Module) -> dict[str, Tensor]:
        return {name: masked.weight.abs() for name, masked in masked_weights(network).items()}


@dataclass(frozen=True)
class Gradient:
    r"""The smallest :math:`|w \, \partial L / \partial w|` first: to first order, what pruning changes.

    Parameters
    ----------
    loss : callable
        As for `fit`; called in evaluation mode.
    batches : iterable
        What ``loss`` takes; the gradient is that of the mean over them. Gone through at each pruning.

    References
    ----------
    Lee, Ajanthan and Torr, *SNIP: single-shot network pruning based on connection sensitivity*, ICLR 2019,
    there before training.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.criteria import Gradient
    >>> from learnsolve.training.pruning import prune
    >>> network = torch.nn.Linear(2, 1, bias=False)
    >>> with torch.no_grad():
    ...     _ = network.weight.copy_(torch.tensor([[3.0, 1.0]]))
    >>> prune(network, 0.5, Gradient(lambda net, x: net(x).sum(), [torch.tensor([[0.1, 1.0]])]))
    0.5
    >>> network.weight.tolist()
    [[0.0, 1.0]]
    """

    loss: Loss
    batches: Iterable[Any]

    def weights(self, network: nn.Module) -> list[str] | None:
        return None

    def scores(self, network: nn.Module) -> dict[str, Tensor]:
        masks = masked_weights(network)
        originals = [masked.original for masked in masks.values()]
        totals = [torch.zeros_like(original) for original in originals]
        count = 0
        with mode(network, training=False), torch.enable_grad():
            for batch in self.batches:
                parts = torch.autograd.grad(self.loss(network, batch), originals, allow_unused=True)
                for total, part in zip(totals, parts, strict=True):
                    if part is not None:
                        total += part
                count += 1
        if not count:
            raise ValueError("batches are empty; the criterion needs one at least for its gradient")
        return {
            name: (masked.weight * total / count).abs()
            for (name, masked), total in zip(masks.items(), totals, strict=True)
        }


@dataclass(frozen=True)
class Structured:
    r"""Whole units of linear layers and channels of convolutions, those of the smallest weights first.

    The importance of a unit is the root mean square of the weights that lead to it. Its bias goes with it,
    and so do scale and shift of a batch normalisation that follows, where `unit_chains` finds one. What is
    pruned so, `learnsolve.training.compaction.compacted` cuts out.

    Parameters
    ----------
    layers : tuple of str, optional
        Names of the linear layers and convolutions whose outputs may go; by default all that `unit_chains`
        finds.

    References
    ----------
    Li, Kadav, Durdanovic, Samet and Graf, *Pruning filters for efficient ConvNets*, ICLR 2017, by the sum of
    absolute weights.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.criteria import Structured
    >>> from learnsolve.training.pruning import prune
    >>> network = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> prune(network, 0.25, Structured())
    0.75
    >>> int((network[0].weight == 0).all(1).sum())
    2
    """

    layers: tuple[str, ...] | None = None

    def weights(self, network: nn.Module) -> list[str]:
        return [name for weight, others in self.along(network).items() for name in (weight, *others)]

    def along(self, network: nn.Module) -> dict[str, list[str]]:
        """For each weight whose units may go the names of the parameters of which each unit has one."""
        chains = {chain.producer: chain for chain in unit_chains(network)}
        layers = tuple(chains) if self.layers is None else self.layers
        if not layers:
            raise ValueError("unit_chains finds no layer whose units can be cut out; name the layers")
        modules = dict(network.named_modules())
        found: dict[str, list[str]] = {}
        for layer in layers:
            module = modules.get(layer)
            if module is None:
                raise ValueError(f"the network has no layer {layer!r}")
            if not isinstance(module, (nn.Linear, *CONVOLUTIONS)):
                raise ValueError(
                    f"{layer} is {type(module).__name__}; linear layers and convolutions are accepted"
                )
            others = [f"{layer}.bias"]
            if layer in chains:
                others += [f"{norm}.{name}" for norm in chains[layer].norms for name in ("weight", "bias")]
            found[f"{layer}.weight".removeprefix(".")] = [
                name.removeprefix(".") for name in others if _attribute(network, name) is not None
            ]
        return found

    def scores(self, network: nn.Module) -> dict[str, Tensor]:
        masks = masks_of(network)
        scores = {}
        for name in self.along(network):
            weight = masks[name].weight
            size = weight.square().flatten(1).mean(1).sqrt()
            scores[name] = size.reshape(-1, *[1] * (weight.ndim - 1))
        return scores


def _attribute(network: nn.Module, name: str) -> Any:
    """What a network has under a name."""
    layer, _, attribute = name.rpartition(".")
    return getattr(network.get_submodule(layer), attribute)


def masked_weights(network: nn.Module) -> dict[str, Masked]:
    """The masked weights without masked biases."""
    return {name: masked for name, masked in masks_of(network).items() if masked.original.ndim > 1}


def alive(masked: Masked, scores: Tensor) -> Tensor:
    """Which pieces of a weight are left, in the shape of their scores."""
    whole = [axis for axis, length in enumerate(scores.shape) if length == 1]
    return masked.mask.mask.amax(whole, keepdim=True) if whole else masked.mask.mask


def prune_lowest(masks: Mapping[str, Masked], scores: Mapping[str, Tensor], count: int) -> None:
    """Mask so many of the pieces that are left, the lowest scores first; of each weight the highest stays."""
    ranks = []
    for name, masked in masks.items():
        rank = scores[name].where(alive(masked, scores[name]), -math.inf).flatten().clone()
        # The highest of a weight stays, and what is pruned already is not counted again.
        rank[rank.argmax()] = math.inf
        ranks.append(rank.where(rank != -math.inf, math.inf))
    joined = torch.cat(ranks)
    count = min(count, int((joined != math.inf).sum()))
    away = torch.zeros_like(joined, dtype=torch.bool)
    away[torch.argsort(joined, stable=True)[:count]] = True
    parts = away.split([rank.numel() for rank in ranks])
    for (name, masked), part in zip(masks.items(), parts, strict=True):
        masked.mask.mask &= ~part.reshape(scores[name].shape)
