"""Linear mode connectivity: how far the loss rises between two networks, in all layers or in some."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from learnsolve.training.weights import mismatch

Loss = Callable[[nn.Module], Tensor | float]


@dataclass(frozen=True, eq=False)
class Barrier:
    """The loss on a segment between two networks, and how far it lies above that of its ends.

    Attributes
    ----------
    height : float
        The largest of ``excess``; at least zero, and infinite where the loss is not finite.
    alpha : float
        Where that is.
    middle : float
        The excess at one half, which may be negative. Of one layer this is the layer-wise barrier.
    bend : float
        The loss at one half above the mean of the first and last of ``curve``: the same as ``middle``, unless
        only some layers were interpolated.
    alphas, curve : (points,) float64 Tensor
        Places on the segment, and the loss there.
    excess : (points,) float64 Tensor
        The curve above the chord from the loss of the first network to that of the second.
    ends : (float, float)
        The losses of the two networks.
    """

    height: float
    alpha: float
    middle: float
    bend: float
    alphas: Tensor = field(repr=False)
    curve: Tensor = field(repr=False)
    excess: Tensor = field(repr=False)
    ends: tuple[float, float] = field(repr=False)


def barrier(
    a: nn.Module, b: nn.Module, loss: Loss, *, points: int = 21, layers: Sequence[str] | None = None
) -> Barrier:
    r"""The barrier between two networks on the straight line between their parameters.

    .. math:: \max_{0 \le \alpha \le 1} L\bigl((1 - \alpha) a + \alpha b\bigr)
              - \bigl[(1 - \alpha) L(a) + \alpha L(b)\bigr]

    With ``layers``, only their tensors move, and all others stay those of ``a``. At one, these layers are
    those of ``b``, amid others of ``a``: there the maximum often is. Their average is at one half.

    Parameters
    ----------
    a, b : torch.nn.Module
        Of the same parameters and buffers. They are left alone: copies in evaluation mode are judged.
        Floating buffers, such as the statistics of batch normalisation, move as parameters do; others are
        those of ``a``.
    loss : callable
        ``loss(network)``, a number, always of the same data, which are best held out of the training. It may
        change the network that it is given, a copy: ``torch.optim.swa_utils.update_bn`` makes the statistics
        of batch normalisation anew.
    points : int
        Places on the line, an odd number, the ends among them.
    layers : sequence of str, optional
        Of those that `layers_of` names.

    Returns
    -------
    Barrier

    Raises
    ------
    ValueError
        The networks do not fit, there is no such layer, ``points`` is not odd or less than three, or the loss
        of a network is not finite.

    References
    ----------
    J. Frankle, G. K. Dziugaite, D. M. Roy, M. Carbin, *Linear mode connectivity and the lottery ticket
    hypothesis*, ICML 2020. Of layers: L. Adilova, M. Andriushchenko, M. Kamp, A. Fischer, M. Jaggi,
    *Layer-wise linear mode connectivity*, ICLR 2024, whose code measures the middle.

    Examples
    --------
    A double well, whose bottoms are at -1 and 1:

    >>> import torch
    >>> from learnsolve.training.connectivity import barrier
    >>> a, b = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    >>> for network, value in ((a, -1.0), (b, 1.0)):
    ...     _ = torch.nn.init.constant_(network.weight, value)
    >>> found = barrier(a, b, lambda network: (network.weight.square() - 1).square().sum())
    >>> found.height, found.alpha
    (1.0, 0.5)
    """
    must_fit(a, b)
    if points < 3 or points % 2 == 0:
        raise ValueError(f"points is {points}; an odd number of at least 3 is accepted")
    ends = judged(a, loss), judged(b, loss)
    if not all(math.isfinite(end) for end in ends):
        raise ValueError(f"the losses of the two networks are {ends[0]} and {ends[1]}; both must be finite")
    alphas = torch.linspace(0, 1, points, dtype=torch.float64)
    losses = [_value(averaged([a, b], [1 - x, x], layers=layers), loss) for x in alphas.tolist()]
    curve = torch.tensor(losses, dtype=torch.float64).nan_to_num(nan=math.inf)
    excess = curve - (1 - alphas) * ends[0] - alphas * ends[1]
    highest, half = int(excess.argmax()), points // 2
    return Barrier(
        height=max(0.0, float(excess[highest])),
        alpha=float(alphas[highest]),
        middle=float(excess[half]),
        bend=float(curve[half] - (curve[0] + curve[-1]) / 2),
        alphas=alphas,
        curve=curve,
        excess=excess,
        ends=ends,
    )


def layer_barriers(a: nn.Module, b: nn.Module, loss: Loss, *, points: int = 3) -> dict[str, Barrier]:
    """The `barrier` of each layer by itself, all others being those of ``a``.

    The middle of each is the layer-wise barrier: what it costs to average this layer and no other. It differs
    with the networks exchanged.

    Parameters
    ----------
    a, b, loss, points
        As of `barrier`; the middle needs three points.

    Returns
    -------
    dict of str to Barrier
        By the names, and in the order, of `layers_of`.

    Raises
    ------
    ValueError
        As of `barrier`.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.connectivity import layer_barriers
    >>> network = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    >>> found = layer_barriers(network, network, lambda network: network(torch.ones(1, 3)).sum())
    >>> {name: one.height for name, one in found.items()}
    {'0': 0.0, '2': 0.0}
    """
    return {layer: barrier(a, b, loss, points=points, layers=[layer]) for layer in layers_of(a)}


def barrier_estimate(
    a: nn.Module,
    b: nn.Module,
    loss: Loss,
    *,
    layers: Sequence[str] | None = None,
    around: str = "middle",
) -> float:
    r"""The loss half-way between two networks above the mean of the ends, from second derivatives.

    With :math:`d = b - a`, in all layers or in some, and H the second derivatives of the loss:

    - Around the ``"middle"`` of the segment it is :math:`-\frac18 d^T H d`. Odd terms cancel: the error is of
      fourth order. It estimates `Barrier.bend`, and says that a barrier needs negative curvature along d, a
      ridge. Between the bottoms of a quartic double well it is twice the barrier.
    - Around the ``"start"``, with the gradient g and H at a, it is
      :math:`\frac12 (L(a) - L(b)) + \frac12 g^T d + \frac18 d^T H d`. It estimates `Barrier.middle`, and
      so the layer-wise barrier of one layer, from what is near a.

    Both are Taylor expansions, derived here. The paper below announces an analysis of the barrier height that
    predicts layer-wise connectivity as well; its expressions may be others.

    Parameters
    ----------
    a, b, layers
        As of `barrier`. Buffers are held: in the middle at their means, at the start at those of a.
    loss : callable
        As of `barrier`; a scalar tensor that may be differentiated twice. Of networks of piecewise linear
        functions the curvature at their kinks is missed.
    around : {"middle", "start"}

    Returns
    -------
    float

    Raises
    ------
    ValueError
        The networks do not fit, or there is no such layer or expansion.
    TypeError
        The loss is no scalar tensor with a gradient.

    References
    ----------
    S. P. Singh, L. Adilova, M. Kamp, A. Fischer, B. Schölkopf, T. Hofmann, *Landscaping linear mode
    connectivity*, HiLD workshop at ICML 2024.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.connectivity import barrier_estimate
    >>> a, b = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    >>> for network, value in ((a, -1.0), (b, 1.0)):
    ...     _ = torch.nn.init.constant_(network.weight, value)
    >>> barrier_estimate(a, b, lambda network: (network.weight.square() - 1).square().sum())
    2.0
    """
    must_fit(a, b)
    if around not in ("middle", "start"):
        raise ValueError(f"around is {around!r}; 'middle' and 'start' are accepted")
    half = 0.5 if around == "middle" else 0.0
    network = averaged([a, b], [1 - half, half], layers=layers).eval()
    moving = set(_tensors_of(a, layers))
    ends = [dict(end.named_parameters()) for end in (a, b)]
    parameters, d = [], []
    for name, parameter in network.named_parameters():
        if name in moving:
            parameters.append(parameter.requires_grad_(True))
            d.append(ends[1][name].detach().to(parameter) - ends[0][name].detach())
    with torch.enable_grad():
        value = loss(network)
        if not (isinstance(value, Tensor) and value.ndim == 0 and value.requires_grad):
            raise TypeError("loss must return a scalar tensor that depends on the parameters that move")
        gradient = torch.autograd.grad(value, parameters, create_graph=True, materialize_grads=True)
        slope = _inner(gradient, d)
    curvature = 0.0
    if slope.requires_grad:
        curvature = float(_inner(torch.autograd.grad(slope, parameters, materialize_grads=True), d))
    if around == "middle":
        return -curvature / 8
    return (value.item() - judged(b, loss) + slope.item()) / 2 + curvature / 8


def layer_estimates(a: nn.Module, b: nn.Module, loss: Loss, *, around: str = "start") -> dict[str, float]:
    """The `barrier_estimate` of each layer by itself, as `layer_barriers` measures it.

    Parameters
    ----------
    a, b, loss, around
        As of `barrier_estimate`.

    Returns
    -------
    dict of str to float

    Raises
    ------
    ValueError, TypeError
        As of `barrier_estimate`.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.connectivity import layer_estimates
    >>> network = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    >>> layer_estimates(network, network, lambda network: network(torch.ones(1, 3)).square().sum())
    {'0': 0.0, '2': 0.0}
    """
    return {layer: barrier_estimate(a, b, loss, layers=[layer], around=around) for layer in layers_of(a)}


def layers_of(network: nn.Module) -> dict[str, tuple[str, ...]]:
    """Layers: the modules that have parameters or buffers of their own, and the names of these.

    What the network has itself and not in a module is a layer each.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.connectivity import layers_of
    >>> layers_of(torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh()))
    {'0': ('0.weight', '0.bias')}
    """
    found: dict[str, tuple[str, ...]] = {}
    for name in tensors_of(network):
        layer = name.rpartition(".")[0] or name
        found[layer] = (*found.get(layer, ()), name)
    return found


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of a network, each once, with the buffers that files of weights leave out."""
    return dict(network.named_parameters()) | dict(network.named_buffers())


def averaged(
    networks: Sequence[nn.Module], weights: Sequence[float], *, layers: Sequence[str] | None = None
) -> nn.Module:
    """A copy of the first network, in which some layers, or all, are weighted sums of those of all networks.

    Parameters
    ----------
    networks : sequence of torch.nn.Module
        Of the same tensors.
    weights : sequence of float
        One for each; that they sum to one is not asked for. Tensors of whole numbers are those of the first.
    layers : sequence of str, optional
        Of `layers_of`.

    Raises
    ------
    ValueError
        There is no such layer.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.connectivity import averaged
    >>> one, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    >>> middle = averaged([one, other], [0.5, 0.5])
    >>> torch.allclose(middle.weight, (one.weight + other.weight) / 2)
    True
    """
    network = copy.deepcopy(networks[0])
    parts = [tensors_of(one) for one in networks]
    own = tensors_of(network)
    with torch.no_grad():
        for name in _tensors_of(network, layers):
            if own[name].is_floating_point() or own[name].is_complex():
                total = torch.zeros_like(own[name], dtype=torch.promote_types(own[name].dtype, torch.float64))
                for weight, part in zip(weights, parts, strict=True):
                    total += weight * part[name].to(total)
                own[name].copy_(total)
    return network


def judged(network: nn.Module, loss: Loss) -> float:
    """The loss of a copy of a network in evaluation mode.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training.connectivity import judged
    >>> judged(torch.nn.Dropout(), lambda network: network(torch.ones(3)).sum())
    3.0
    """
    return _value(copy.deepcopy(network), loss)


def must_fit(a: nn.Module, b: nn.Module) -> None:
    """Refuse networks whose tensors have other names or shapes.

    Raises
    ------
    ValueError
    """
    what = mismatch(tensors_of(a), tensors_of(b))
    if what is not None:
        raise ValueError(f"the networks do not fit each other; the second: {what}")


def _value(network: nn.Module, loss: Loss) -> float:
    """The loss of a network that may be changed."""
    with torch.no_grad():
        return float(loss(network.eval()))


def _tensors_of(network: nn.Module, layers: Sequence[str] | None) -> list[str]:
    """The names of the tensors of some layers."""
    known = layers_of(network)
    chosen = known if layers is None else layers
    unknown = [layer for layer in chosen if layer not in known]
    if unknown or isinstance(chosen, str):
        raise ValueError(f"layers is {layers!r}; a sequence of some of {', '.join(known)} is accepted")
    return [name for layer in chosen for name in known[layer]]


def _inner(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """The real inner product over all tensors."""
    return torch.stack([(x.conj() * y).sum().real for x, y in zip(one, other, strict=True)]).sum()
