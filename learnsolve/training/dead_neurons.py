"""How many ReLU units of a network are dead."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from learnsolve.training.modes import mode


@dataclass(frozen=True)
class DeadNeuronReport:
    """Shares of units whose output is zero.

    Attributes
    ----------
    dynamic : float
        Share of the units that are zero for an input, but not for all; the mean over the inputs.
    static : float
        Share of the units that are zero for every input that was given.
    per_layer : dict of str to (float, float)
        Both, in this order, of each ReLU; the second call of one that is called twice is ``"name#2"``.
    """

    dynamic: float
    static: float
    per_layer: dict[str, tuple[float, float]]


class _Layer:
    """How often each unit of a ReLU was zero."""

    def __init__(self, output: Tensor) -> None:
        self.zero = torch.zeros(output.shape[1:], dtype=torch.int64, device=output.device)
        self.inputs = 0

    def add(self, output: Tensor) -> None:
        self.zero += (output == 0).sum(0)
        self.inputs += output.shape[0]

    def counts(self) -> tuple[int, int]:
        """Zeros of units that are zero for some input only; units that are zero for every input."""
        static = self.zero == self.inputs
        return int(self.zero[~static].sum()), int(static.sum())


def dead_neuron_rate(network: nn.Module, batches: Iterable[Any]) -> DeadNeuronReport:
    """Share of the ReLU units that are dead: for single inputs, and for all.

    A unit is one entry of what an `torch.nn.ReLU` module returns for one input: of a convolution, one
    channel at one place. It is dead for an input if it is zero, so that no gradient passes. One that is dead
    for every input of ``batches`` is static, whatever the reason: no weights left that lead to it, or a bias
    far below zero; the more inputs, the fewer. The others count, for each input, as dynamic.

    Parameters
    ----------
    network : torch.nn.Module
        Called in evaluation mode, without gradients. ``functional.relu`` is not seen, nor are leaky ones.
    batches : iterable
        What ``network(...)`` takes, each with the inputs along its first axis. The other axes are of one
        size in all.

    Returns
    -------
    DeadNeuronReport
        Over all layers, a unit counts as one.

    Raises
    ------
    ValueError
        No `torch.nn.ReLU` was called, or batches differ in more than the number of their inputs.

    References
    ----------
    Liu, Ghosh, Tan and Motani, *AP: Selective Activation for De-sparsifying Pruned Networks*, TMLR 2023.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.dead_neurons import dead_neuron_rate
    >>> network = torch.nn.Sequential(torch.nn.Identity(), torch.nn.ReLU())
    >>> report = dead_neuron_rate(network, [torch.tensor([[1.0, -1.0], [-1.0, -1.0]])])
    >>> report.dynamic, report.static
    (0.25, 0.5)
    """
    layers: dict[str, _Layer] = {}
    calls: dict[str, int] = {}

    def see(name: str, module: nn.Module, given: Any, output: Tensor) -> None:
        calls[name] = calls.get(name, 0) + 1
        key = name if calls[name] == 1 else f"{name}#{calls[name]}"
        layer = layers.setdefault(key, _Layer(output))
        if layer.zero.shape != output.shape[1:]:
            raise ValueError(
                f"the ReLU {key} returned units of shape {tuple(layer.zero.shape)} for one batch and "
                f"{tuple(output.shape[1:])} for another; batches may differ in their first axis alone"
            )
        layer.add(output)

    hooks = [
        module.register_forward_hook(partial(see, name))
        for name, module in network.named_modules()
        if isinstance(module, nn.ReLU)
    ]
    try:
        with torch.no_grad(), mode(network, training=False):
            for batch in batches:
                calls.clear()
                network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    if not any(layer.inputs for layer in layers.values()):
        raise ValueError(
            "no torch.nn.ReLU was called with an input: there are none in the network (functional.relu is "
            "not seen), or no batches"
        )
    per_layer, totals = {}, [0, 0, 0, 0]
    for name, layer in layers.items():
        dynamic, static = layer.counts()
        units = layer.zero.numel()
        cells = units * layer.inputs
        per_layer[name] = (dynamic / cells, static / units)
        totals = [total + own for total, own in zip(totals, (dynamic, cells, static, units), strict=True)]
    return DeadNeuronReport(totals[0] / totals[1], totals[2] / totals[3], per_layer)
