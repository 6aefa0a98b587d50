"""Where units of a network can be cut out: from the layer that computes them to the one that reads them."""

import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from learnsolve.training.masks import WeightMask
from learnsolve.training.modes import mode

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
# What acts on each entry by itself. Dropout does nothing in evaluation mode.
POINTWISE_MODULES = (
    nn.CELU, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.ELU, nn.GELU, nn.Hardtanh, nn.Identity,
    nn.LeakyReLU, nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Tanh,
)  # fmt: skip
POINTWISE_FUNCTIONS = {
    functional.celu, functional.dropout, functional.elu, functional.gelu, functional.hardtanh,
    functional.leaky_relu, functional.mish, functional.relu, functional.relu6, functional.selu,
    functional.silu, functional.softplus, functional.sigmoid, functional.tanh, torch.relu, torch.sigmoid,
    torch.tanh,
}  # fmt: skip
POINTWISE_METHODS = {"relu", "sigmoid", "tanh"}
# What acts on each channel by itself and leaves one of zeros as it is.
POOLINGS = (
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.MaxPool1d,
    nn.MaxPool2d, nn.MaxPool3d,
)  # fmt: skip


@dataclass(frozen=True)
class UnitChain:
    """A layer, what happens to each of its units by itself, and the one layer that reads them.

    Attributes
    ----------
    producer, consumer : str
        Names of two linear layers or convolutions.
    norms : tuple of str
        Names of the normalisations between them, which have parameters for each unit.
    steps : tuple of callable
        What becomes of units of one value everywhere: from a tensor of values ``(1, units, 1, ...)`` to
        another. NaN where they are no longer the same everywhere.
    takes_constants : bool
        Whether such a unit adds the same to each output of the consumer everywhere; if not, zero alone does.
    """

    producer: str
    consumer: str
    norms: tuple[str, ...]
    steps: tuple[Callable[[Tensor], Tensor], ...]
    takes_constants: bool


def unit_chains(network: nn.Module) -> list[UnitChain]:
    """The layers of a network whose units can be cut out without any change elsewhere.

    Those are linear layers and convolutions (not transposed, of one group) that are called at one place, and
    whose output goes through activations, batch normalisation, dropout, and, of convolutions, poolings,
    instance normalisation without parameters and flattening, to one other such layer and nowhere else. The
    network is traced by `torch.fx` with its optional arguments at their defaults. Where that fails, its parts
    are traced by themselves, and are taken to be used through their forward pass alone. Linear layers before
    a batch normalisation are taken to have inputs of two axes.

    Parameters
    ----------
    network : torch.nn.Module
        With masks or without.

    Returns
    -------
    list of UnitChain
        One of each producer.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.unit_chains import unit_chains
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 9), torch.nn.Tanh(), torch.nn.Linear(9, 1))
    >>> [(chain.producer, chain.consumer) for chain in unit_chains(network)]
    [('0', '2')]
    """
    chains: dict[str, UnitChain] = {}
    with mode(network, training=False):
        _collect(network, "", _names(network), chains)
    return list(chains.values())


class _Shallow(fx.Tracer):
    """Does not look into modules of the network's own classes."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not isinstance(m, nn.Sequential)


def _names(network: nn.Module) -> Counter[int]:
    """How many names each module and each parameter has in the network."""
    names = Counter(id(module) for _, module in network.named_modules(remove_duplicate=False))
    return names + Counter(id(p) for _, p in network.named_parameters(remove_duplicate=False))


def _collect(module: nn.Module, prefix: str, names: Counter[int], chains: dict[str, UnitChain]) -> None:
    """Chains of a module, and of its parts if it cannot be traced through them."""
    graph = _graph(module, fx.Tracer())
    if graph is None:
        for name, child in module.named_children():
            _collect(child, f"{prefix}{name}.", names, chains)
        graph = _graph(module, _Shallow())
    if graph is None:
        return
    modules = dict(module.named_modules(remove_duplicate=False))
    calls = Counter(id(modules[str(node.target)]) for node in graph.nodes if node.op == "call_module")
    read = [str(node.target) for node in graph.nodes if node.op == "get_attr"]

    def cuttable(name: str) -> bool:
        layer = modules[name]
        plain = isinstance(layer, nn.Linear) or (isinstance(layer, CONVOLUTIONS) and layer.groups == 1)
        own = [layer, *layer.parameters(recurse=False)]
        alone = all(names[id(one)] == 1 for one in own) and calls[id(layer)] == 1
        untouched = not any(target.startswith(f"{name}.") for target in read)
        return plain and alone and untouched and _masks_alone(layer)

    for node in graph.nodes:
        if node.op == "call_module" and cuttable(str(node.target)):
            chain = _followed(node, modules, cuttable, prefix)
            if chain is not None:
                chains.setdefault(chain.producer, chain)


def _masks_alone(layer: nn.Module) -> bool:
    """Whether no parametrization but masks stands before the layer's weights."""
    if not parametrize.is_parametrized(layer):
        return True
    chains: Any = layer.parametrizations
    return all(isinstance(part, WeightMask) for chain in chains.values() for part in chain)


def _graph(module: nn.Module, tracer: fx.Tracer) -> fx.Graph | None:
    """The calls of a module's forward pass; None if they depend on the input."""
    parameters = inspect.signature(module.forward).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    try:
        return tracer.trace(module, concrete_args=defaults or None)
    # Whatever a forward pass raises when it is handed placeholders.
    except Exception:
        return None


def _followed(
    node: fx.Node, modules: dict[str, nn.Module], cuttable: Callable[[str], bool], prefix: str
) -> UnitChain | None:
    """The chain that begins with a call of a layer, if it ends with another."""
    producer = modules[str(node.target)]
    convolution = isinstance(producer, CONVOLUTIONS)
    norms: list[str] = []
    steps: list[Callable[[Tensor], Tensor]] = []
    flat = False
    last = node
    while len(last.users) == 1:
        before, last = last, next(iter(last.users))
        if not last.args or last.args[0] is not before or last.all_input_nodes != [before]:
            return None
        if last.op in ("call_function", "call_method"):
            known = POINTWISE_FUNCTIONS if last.op == "call_function" else POINTWISE_METHODS
            if last.target in known:
                steps.append(_step(last))
            elif convolution and not flat and _flattens(last):
                flat = True
            else:
                return None
            continue
        if last.op != "call_module":
            return None
        name = str(last.target)
        module = modules[name]
        if isinstance(module, POINTWISE_MODULES):
            steps.append(module)
        elif isinstance(module, BATCH_NORMS) and not flat and module.track_running_stats:
            steps.append(module)
            norms.append(name)
        elif convolution and not flat and isinstance(module, (*POOLINGS, *INSTANCE_NORMS)):
            if isinstance(module, INSTANCE_NORMS):
                if module.affine or module.track_running_stats:
                    return None
                norms.append(name)
            steps.append(_zero_alone)
        elif convolution and not flat and isinstance(module, nn.Flatten) and _to_two_axes(module):
            flat = True
        elif cuttable(name) and _reads(module, producer, flat):
            ends = (f"{prefix}{node.target}", f"{prefix}{name}")
            between = tuple(f"{prefix}{norm}" for norm in norms)
            return UnitChain(*ends, between, tuple(steps), not _pads_with_zeros(module))
        else:
            return None
    return None


def _reads(consumer: nn.Module, producer: nn.Module, flat: bool) -> bool:
    """Whether a layer takes another's units along the axis where it expects them."""
    if isinstance(consumer, nn.Linear):
        return flat or isinstance(producer, nn.Linear)
    # Not their types, which masks change.
    return not flat and any(isinstance(consumer, one) and isinstance(producer, one) for one in CONVOLUTIONS)


def _pads_with_zeros(layer: nn.Module) -> bool:
    """Whether a constant input is not constant any more once the layer has padded it."""
    if not isinstance(layer, CONVOLUTIONS) or layer.padding_mode != "zeros":
        return False
    return layer.padding not in ("valid", (0,) * len(layer.kernel_size))


def _zero_alone(values: Tensor) -> Tensor:
    """What poolings and instance normalisation make of constants, so far as that is the same everywhere."""
    return values.where(values == 0, torch.nan)


def _step(node: fx.Node) -> Callable[[Tensor], Tensor]:
    """A call of a function or method, of its first argument alone."""
    target: Any = getattr(torch, str(node.target)) if node.op == "call_method" else node.target
    return lambda values: target(values, *node.args[1:], **node.kwargs)


def _flattens(node: fx.Node) -> bool:
    """Whether a call flattens all axes but the first."""
    called = node.target is torch.flatten or (node.op == "call_method" and node.target == "flatten")
    return called and (node.args[1:], node.kwargs) in (((1,), {}), ((), {"start_dim": 1}))


def _to_two_axes(module: nn.Flatten) -> bool:
    return module.start_dim == 1 and module.end_dim == -1
