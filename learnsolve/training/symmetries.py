"""Which units of a network may change places, derived from one run of it."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from learnsolve.training.axes import Axis, Factor, axis_of, free, held, hold, leaves, tied

# Value by value; or along an axis, and in whatever order its values are.
POINTWISE = frozenset(
    "abs add addcdiv addcmul alpha_dropout celu clamp clone contiguous cos detach div double dropout "
    "dropout1d dropout2d dropout3d elu eq erf exp feature_alpha_dropout float ge gelu gt hardsigmoid "
    "hardswish hardtanh layer_norm le leaky_relu lerp log log1p log_softmax logsigmoid lt masked_fill "
    "maximum minimum mish mul ne neg pow rdiv relu relu6 rms_norm rpow rsqrt rsub selu sigmoid sign silu "
    "sin softmax softmin softplus softshrink softsign sqrt square sub tanh tanhshrink threshold to "
    "truediv where".split()
)
# With one parameter for each entry of the second axis.
CHANNELWISE = frozenset({"batch_norm", "instance_norm", "prelu"})
RESHAPING = frozenset({"flatten", "reshape", "squeeze", "unflatten", "unsqueeze", "view"})
# Axes change places, or a sum or an extremum goes over them, whose terms may be in any order.
MOVING = frozenset("T amax amin mT mean movedim permute std sum swapaxes t transpose var".split())
# At which argument the axis stands that is cut or stretched.
ALONG = {"narrow": 1, "repeat_interleave": 2}
POOLS = {f"{kind}_pool{d}d": d for kind in ("adaptive_avg", "adaptive_max", "avg", "max") for d in (1, 2, 3)}
CONVOLUTIONS = {f"conv{kind}{d}d": d for kind in ("", "_transpose") for d in (1, 2, 3)}


# What is in such memory is written by a function that is not seen here, if it is not one of torch's.
BLANK = frozenset({"empty", "empty_like", "empty_strided", "new_empty"})
# Without a tensor as a value, and yet what it was given is seen elsewhere.
LEAVING = frozenset({"numpy", "setitem", "tolist"})


class Place(NamedTuple):
    """Where units stand in a parameter or buffer.

    Attributes
    ----------
    tensor : str
        Its name.
    axis : int
        The axis that the units are counted along.
    before : int
        So many blocks follow each other along it, each of which holds all units. Within a block, several
        entries in a row may belong to one unit.
    """

    tensor: str
    axis: int
    before: int


@dataclass(frozen=True, eq=False)
class Permutation:
    """An order of units, and all places where they change together.

    Attributes
    ----------
    order : (n,) int64 Tensor
        Which unit goes to each place.
    places : tuple of Place
    """

    order: Tensor
    places: tuple[Place, ...]


def symmetries(network: nn.Module, example: Any) -> dict[str, Permutation]:
    """Units of a network whose order does not change what it computes.

    A copy of the network runs once, in evaluation mode, and each function that it calls says which axes of
    its arguments go with which of its value. Known are linear layers, products of matrices, convolutions,
    whatever acts value by value, softmax, normalisation, pooling, sums and means over axes, and reshaping.
    The axes of input and output stay as they are, and so does what goes with them. Of the rest, axes that go
    together are one set of units, as those along a residual stream are; of an axis that is taken apart, as by
    groups of channels, each factor is a set.

    Parameters
    ----------
    network : torch.nn.Module
    example : Tensor, or tuple of arguments
        What the network is called with. Only its shapes count, and which way they lead through the code.

    Returns
    -------
    dict of str to Permutation
        In the order of the run, each under the name of the module where its units are first met, and in the
        order that they have now. Units of one entry are left out.

    Raises
    ------
    ValueError
        Units that may change places meet a function that is not known; the message names the module. Or the
        run does not meet a parameter, so that units which may lead to it elsewhere are not known.

    References
    ----------
    S. Ainsworth, J. Hayase, S. Srinivasa, *Git Re-Basin: merging models modulo permutation symmetries*,
    ICLR 2023, whose code states the same for each architecture by hand.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.symmetries import symmetries
    >>> network = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    >>> found = symmetries(network, torch.ones(1, 3))
    >>> [(name, len(units.order)) for name, units in found.items()]
    [('0', 5)]
    >>> [(place.tensor, place.axis) for place in found["0"].places]
    [('0.weight', 0), ('0.bias', 0), ('2.weight', 1)]
    """
    network = copy.deepcopy(network).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
    arguments = example if isinstance(example, tuple) else (example,)
    run = _Run(network)
    for tensor in _tensors(arguments):
        run.label(tensor, held(tensor))
    with torch.enable_grad(), run:
        value = network(*arguments)
    for tensor in _tensors(value, strict=True):
        hold(run.axes_of(tensor))
    missed = [name for name, _ in network.named_parameters() if name not in run.met]
    if missed:
        raise ValueError(
            f"{', '.join(missed)}: the run with the example does not meet them; one that leads through the "
            "whole network is accepted"
        )
    return run.permutations()


def _tensors(value: Any, strict: bool = False) -> Iterator[Tensor]:
    """Tensors in containers; strictly, there may be numbers and strings beside them, and nothing else."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list, Mapping)):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(entry, strict)
    elif is_dataclass(value) and not isinstance(value, type):
        for member in fields(value):
            yield from _tensors(getattr(value, member.name), strict)
    elif strict and not (value is None or isinstance(value, (bool, int, float, str))):
        raise ValueError(
            f"the network returns a {type(value).__name__}; tensors, and containers of them, are accepted"
        )


class _Call(NamedTuple):
    """A function of torch, what it was given, and what it returned."""

    name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    value: Any

    @property
    def tensors(self) -> list[Tensor]:
        """All that it was given."""
        return list(_tensors((self.args, self.kwargs)))

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """One of the arguments, wherever it stands."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)


class _Run(TorchFunctionMode):
    """While it is active, labels the axes of all that functions of torch return."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        named = [*network.named_parameters(), *network.named_buffers()]
        self.stored = {id(tensor): name for name, tensor in named}
        self.met: dict[str, list[Axis]] = {}
        # With the tensors, so that no other gets their ids.
        self.labels: dict[int, tuple[Tensor, list[Axis]]] = {}
        self.blank: dict[int, Tensor] = {}
        self.inside: list[str] = []
        for name, module in network.named_modules():
            described = f"{name or 'the network'} ({type(module).__name__})"
            module.register_forward_pre_hook(
                lambda _, given, described=described: self._enter(given, described)
            )
            module.register_forward_hook(lambda _, given, value: self._leave(value))

    def _enter(self, given: Any, described: str) -> None:
        """Remember the module; what it is given comes from the one around it."""
        for tensor in _tensors(given):
            self.axes_of(tensor)
        self.inside.append(described)

    def _leave(self, value: Any) -> None:
        """Forget the module; what it returns is its own."""
        for tensor in _tensors(value):
            self.axes_of(tensor)
        self.inside.pop()

    def label(self, tensor: Tensor, axes: list[Axis]) -> None:
        """Keep the labels of a tensor."""
        self.labels[id(tensor)] = tensor, axes

    def axes_of(self, tensor: Tensor) -> list[Axis]:
        """Labels of a tensor: those it got, fresh ones of a parameter, fixed ones of a constant."""
        if id(tensor) not in self.labels:
            name = self.stored.get(id(tensor))
            if name is None and (tensor.requires_grad or id(tensor) in self.blank):
                raise self.refused("a function outside of torch")
            self.label(tensor, held(tensor) if name is None else [axis_of(n) for n in tensor.shape])
            if name is not None:
                self.met[name] = self.labels[id(tensor)][1]
        return self.labels[id(tensor)][1]

    def refused(self, what: str) -> ValueError:
        """The error to raise where units meet something that is not known."""
        where = self.inside[-1] if self.inside else "the network"
        return ValueError(
            f"the symmetries of {where} cannot be derived: units that may change places meet {what}, and it "
            "is not known what becomes of them"
        )

    def tie(self, one: Axis, other: Axis, call: _Call) -> None:
        """Let two axes change together, or refuse."""
        if not tied(one, other):
            raise self.refused(call.name)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name == "__get__":
            name = cast(Any, func).__self__.__name__
        call = _Call(name.strip("_"), func, args, kwargs or {}, func(*args, **(kwargs or {})))
        found = list(_tensors(call.value))
        if call.name in BLANK:
            self.blank |= {id(tensor): tensor for tensor in found}
        elif found or call.name in LEAVING:
            axes = None
            if isinstance(call.value, Tensor) and args and isinstance(args[0], Tensor):
                axes = self._known(call)
            labels = self._unknown(call, found) if axes is None else [axes]
            for tensor, own in zip(found, labels, strict=True):
                self.label(tensor, own)
        return call.value

    def _unknown(self, call: _Call, found: list[Tensor]) -> list[list[Axis]]:
        """Labels of what a function returns of which nothing is known: nothing may change."""
        for tensor in call.tensors:
            if id(tensor) in self.stored:
                hold(self.axes_of(tensor))
            elif free(self.axes_of(tensor)):
                raise self.refused(resolve_name(call.func) or call.name)
        return [held(tensor) for tensor in found]

    def _known(self, call: _Call) -> list[Axis] | None:
        """Labels of what a function returns, or None if it is not one of those that are known."""
        name, value = call.name, call.value
        x = self.axes_of(call.args[0])
        if name in POINTWISE:
            shapes = [tensor.shape for tensor in call.tensors]
            fits = torch.broadcast_shapes(*shapes) == value.shape
            return self._together([self.axes_of(t) for t in call.tensors], value.ndim, call) if fits else None
        if name in CHANNELWISE or name == "group_norm":
            if name == "group_norm":
                groups = call.argument(1, "num_groups")
                self.tie(x[1], [*axis_of(groups), *axis_of(value.shape[1] // groups)], call)
            for tensor in call.tensors[1:]:
                self.tie(x[1], self.axes_of(tensor)[0], call) if tensor.numel() > 1 else None
            return x
        if name in RESHAPING:
            made = [axis_of(n) for n in value.shape]
            self.tie([f for axis in x for f in axis], [f for axis in made for f in axis], call)
            return made
        if name in MOVING:
            # Sizes that say which axis became which; an axis that is summed over is gone or of size one.
            probe = torch.empty(tuple(range(2, 2 + len(x))), device="meta")
            moved = call.func(probe, *call.args[1:], **call.kwargs)
            return [x[n - 2] if n > 1 else [] for n in moved.shape]
        if name in ALONG:
            dim = call.argument(ALONG[name], "dim")
            return None if dim is None else self._cut(x, [dim], value)
        if name in POOLS or name == "pad":
            last = POOLS.get(name) or len(call.argument(1, "pad")) // 2
            return self._cut(x, range(-last, 0), value)
        if name in CONVOLUTIONS:
            return self._convolution(x, call)
        if name == "linear":
            weight = self.axes_of(call.argument(1, "weight"))
            bias = call.argument(2, "bias")
            self.tie(x[-1], weight[1], call)
            if bias is not None:
                self.tie(weight[0], self.axes_of(bias)[0], call)
            return [*x[:-1], weight[0]]
        if name in ("matmul", "mm", "bmm"):
            y = self.axes_of(call.argument(1, "other"))
            if min(len(x), len(y)) < 2:
                return None
            self.tie(x[-1], y[-2], call)
            return [*self._together([x[:-2], y[:-2]], value.ndim - 2, call), x[-2], y[-1]]
        return None

    def _together(self, parts: list[list[Axis]], count: int, call: _Call) -> list[Axis]:
        """Axes of what is broadcast together, the last to the last."""
        axes: list[Axis] = [[] for _ in range(count)]
        for part in parts:
            for place, axis in enumerate(part, count - len(part)):
                if axes[place] and axis:
                    self.tie(axes[place], axis, call)
                axes[place] = axes[place] or axis
        return axes

    def _cut(self, x: list[Axis], dims: Iterable[int], value: Tensor) -> list[Axis] | None:
        """Axes of what is cut, stretched or pooled along some of them, which must be fixed."""
        axes = list(x)
        for dim in dims:
            if free([axes[dim]]):
                return None
            axes[dim] = axis_of(value.shape[dim], fixed=True)
        return axes

    def _convolution(self, x: list[Axis], call: _Call) -> list[Axis] | None:
        """Axes of a convolution: the channels of a group on both sides go with those of the weight."""
        d = CONVOLUTIONS[call.name]
        transposed = "transpose" in call.name
        weights = call.argument(1, "weight")
        groups = call.argument(6, "groups", 1)
        weight = self.axes_of(weights)
        hold(weight[2:])
        parts, entering, leaving = axis_of(groups), weight[1], weight[0]
        if transposed:
            entering, leaving = axis_of(weights.shape[0] // groups), weight[1]
            self.tie(weight[0], [*parts, *entering], call)
            leaving = [*parts, *leaving]
        elif groups > 1:
            leaving = [*parts, *axis_of(weights.shape[0] // groups)]
            self.tie(weight[0], leaving, call)
        self.tie(x[-1 - d], [*parts, *entering], call)
        bias = call.argument(2, "bias")
        if bias is not None:
            self.tie(leaving, self.axes_of(bias)[0], call)
        axes = self._cut(x, range(-d, 0), call.value)
        if axes is not None:
            axes[-1 - d] = leaving
        return axes

    def permutations(self) -> dict[str, Permutation]:
        """What may change places, all together."""
        places: dict[Factor, list[Place]] = {}
        for name, axes in self.met.items():
            for number, axis in enumerate(axes):
                before = 1
                for factor in leaves(axis):
                    if not factor.fixed:
                        places.setdefault(factor, []).append(Place(name, number, before))
                    before *= factor.size
        found: dict[str, Permutation] = {}
        for factor, where in places.items():
            module = where[0].tensor.rpartition(".")[0] or where[0].tensor
            used = sum(name == module or name.startswith(f"{module}/") for name in found)
            name = f"{module}/{used + 1}" if used else module
            found[name] = Permutation(torch.arange(factor.size), tuple(where))
        return found
