"""Weights of DIRECT's RecurrentVarNet, by the names that its parts have here."""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from learnsolve.mri.recurrent_varnet import INITIAL_CHANNELS, SEEN, RecurrentVarNet, RecurrentVarNetOptions

# DIRECT's names, and those of here; two versions of its U-Net name their layers differently.
NAMES = (
    (r"^block_list\.(\d+)\.learning_rate$", r"blocks.\1.alpha"),
    (r"^block_list\.(\d+)\.regularizer\.conv_blocks\.(\d+)\.1\.", r"blocks.\1.unit.blocks.\2.1."),
    (r"^block_list\.(\d+)\.regularizer\.reset_gates\.(\d+)\.0\.", r"blocks.\1.unit.reset.\2."),
    (r"^block_list\.(\d+)\.regularizer\.update_gates\.(\d+)\.0\.", r"blocks.\1.unit.update.\2."),
    (r"^block_list\.(\d+)\.regularizer\.out_gates\.(\d+)\.0\.", r"blocks.\1.unit.proposal.\2."),
    (r"^initializer\.conv_blocks\.(\d+)\.1\.", r"initialiser.blocks.\1.1."),
    (r"^initializer\.out_blocks\.(\d+)\.0\.", r"initialiser.heads.\1."),
)
LAYERS = ((r"\.(?:layers\.0|layer_1\.conv)\.", ".0."), (r"\.(?:layers\.4|layer_2\.conv)\.", ".3."))
UNET = (
    (r"^down_sample_layers\.(\d+)\.", r"refinement.down.\1."),
    (r"^up_transpose_conv\.(\d+)\.(?:layers\.0|conv)\.", r"refinement.up.\1.0."),
    (r"^up_conv\.(\d+)\.1\.(weight|bias)$", r"refinement.last.\2"),
    (r"^up_conv\.(\d+)\.(?:0\.)?(?=layer)", r"refinement.merge.\1."),
    (r"^conv\.", "refinement.bottom."),
)


def from_direct(
    model: Mapping[str, Tensor], sensitivity: Mapping[str, Tensor] | None = None, *, steps: int | None = None
) -> RecurrentVarNet:
    """A network of the parts of a checkpoint of DIRECT's.

    Parameters
    ----------
    model : mapping of Tensor
        State of its ``RecurrentVarNet``; the sizes are found from the tensors.
    sensitivity : mapping of Tensor, optional
        State of its ``UnetModel2d`` for sensitivities; without, nothing is refined.
    steps : int, optional
        Of a network whose steps share one set of weights, which its state does not tell.

    Returns
    -------
    RecurrentVarNet
        In evaluation mode.

    Raises
    ------
    ValueError
        A tensor is unknown, missing or of another shape, or the network is of a kind that is not built here:
        with normalised states, or an initialiser of other sizes.

    References
    ----------
    Yiasemis and others, *DIRECT: Deep Image REConstruction Toolkit*, Journal of Open Source Software 7, 2022.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.mri.direct_weights import from_direct
    >>> from_direct({"block_list.0.learning_rate": torch.ones(1)})
    Traceback (most recent call last):
    ValueError: block_list.0.regularizer.conv_blocks.0.1.weight is missing
    """
    model = {name.removeprefix("module."): tensor for name, tensor in model.items()}
    if any(".convgru." in name for name in model):
        raise ValueError("the network normalises its states; one that does not is accepted")
    first = "block_list.0.regularizer.conv_blocks.0.1.weight"
    if first not in model:
        raise ValueError(f"{first} is missing")
    blocks = _count(model, r"block_list\.(\d+)\.")
    layers = _count(model, r"block_list\.0\.regularizer\.reset_gates\.(\d+)\.")
    if steps is not None and steps != blocks != 1:
        raise ValueError(f"steps is {steps}, and the network has {blocks} of their own weights")
    options = RecurrentVarNetOptions(
        steps=steps or blocks,
        hidden=len(model[first]),
        layers=layers,
        shared=blocks == 1 and steps not in (None, 1),
        initialiser=any(name.startswith("initializer.") for name in model),
        refine=sensitivity is not None,
    )
    network = options.build()
    held = {_renamed(name, NAMES): tensor for name, tensor in model.items()}
    for name, tensor in (sensitivity or {}).items():
        held[_unet(name.removeprefix("module."))] = tensor
    wanted = network.state_dict()
    for name in [*(held.keys() - wanted.keys()), *(wanted.keys() - held.keys())]:
        raise ValueError(f"{name} is {'unknown' if name in held else 'missing'}: sizes of the initialiser "
                         f"{INITIAL_CHANNELS}, of which the last {SEEN} are seen, are accepted")  # fmt: skip
    for name, tensor in wanted.items():
        if held[name].numel() != tensor.numel() or (tensor.ndim and held[name].shape != tensor.shape):
            raise ValueError(f"{name} has shape {tuple(held[name].shape)}; {tuple(tensor.shape)} is accepted")
        if not torch.isfinite(held[name]).all():
            raise ValueError(f"{name} holds NaN or infinity")
        tensor.copy_(held[name].reshape(tensor.shape))
    return network.eval()


def load_direct(path: str | os.PathLike, *, steps: int | None = None) -> RecurrentVarNet:
    """The network of a file ``model_*.pt`` of DIRECT's, of which nothing but tensors is read.

    Raises
    ------
    ValueError
        The file is no such checkpoint, or as from `from_direct`.
    OSError
        There is no such file.
    """
    with open(path, "rb") as stream:
        try:
            held: Any = torch.load(stream, map_location="cpu", weights_only=True)
        except Exception as error:
            # A damaged archive raises errors of many kinds.
            raise ValueError(f"{os.fspath(path)} is no checkpoint of tensors ({error})") from None
    if not isinstance(held, Mapping) or not isinstance(held.get("model"), Mapping):
        raise ValueError(f"{os.fspath(path)} has no state of a model")
    try:
        return from_direct(held["model"], held.get("sensitivity_model"), steps=steps)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None


def _count(names: Iterable[str], pattern: str) -> int:
    """One more than the largest number that a pattern finds."""
    found = (re.match(pattern, name) for name in names)
    return 1 + max((int(one.group(1)) for one in found if one), default=-1)


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, other in rules:
        name, count = re.subn(pattern, other, name)
        if count:
            return name
    return name


def _unet(name: str) -> str:
    name = _renamed(name, UNET)
    return _renamed(name, LAYERS)
