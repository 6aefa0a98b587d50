"""Weights in safetensors files: nothing in them is executed, and every tensor is checked."""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from learnsolve.files import replacing

WEIGHTS_FORMAT = "learnsolve-weights-1"
MAX_BYTES = 256 * 2**20


class WeightsError(ValueError):
    """A file of weights is damaged, too large, or belongs to another network."""

    def __init__(self, path: str | os.PathLike, what: str) -> None:
        super().__init__(path, what)
        self.path = path
        self.what = what

    def __str__(self) -> str:
        return f"{os.fspath(self.path)}: {self.what}"


def write_tensors(
    path: str | os.PathLike, tensors: Mapping[str, Tensor], form: str, metadata: Mapping[str, Any]
) -> None:
    """Write tensors and what JSON can say of them to one file, whole or not at all."""
    from safetensors.torch import save

    text = {"format": form, "metadata": json.dumps(metadata, sort_keys=True)}
    # Tied weights share memory, which safetensors refuses: each name gets its own copy.
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    text["sha256"] = _digest(copies, text["metadata"])
    with replacing(path) as part:
        part.write_bytes(save(copies, metadata=text))


def read_tensors(
    path: str | os.PathLike, form: str, max_bytes: int | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote: the tensors, on the CPU, and the metadata.

    Raises
    ------
    WeightsError
        The file is larger than ``max_bytes``, damaged, of another format, or not what was written.
    OSError
        The file is not there or cannot be read.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load

    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if max_bytes is not None and size > max_bytes:
            raise WeightsError(path, f"{size} bytes are more than the {max_bytes} that are accepted")
        content = stream.read()
    try:
        with safe_open(path, framework="pt") as file:
            text = file.metadata() or {}
        if text.get("format") != form:
            raise WeightsError(path, f"its format is {text.get('format')!r}, expected {form!r}")
        # Not by the file's `get_tensor`, which keeps some bytes of every tensor for ever.
        tensors = load(content)
    except (SafetensorError, KeyError) as error:
        raise WeightsError(path, f"not a whole safetensors file ({error})") from None
    if text.get("sha256") != _digest(tensors, text.get("metadata", "")):
        raise WeightsError(path, "its checksum is missing or another: the file was changed or damaged")
    try:
        metadata = json.loads(text.get("metadata", "{}"))
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise WeightsError(path, "its metadata are not a JSON object")
    return tensors, metadata


def _digest(tensors: Mapping[str, Tensor], metadata: str) -> str:
    """A checksum of all that a file holds."""
    total = hashlib.sha256(metadata.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """The first way in which tensors do not fit those of a network; None if they do."""
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    if missing or extra:
        parts = [("lacks", missing), ("has unknown", extra)]
        return " and ".join(f"{verb} {_some(names)}" for verb, names in parts if names)
    for name, tensor in expected.items():
        other = found[name]
        if other.shape != tensor.shape:
            return f"{name} has shape {tuple(other.shape)}, expected {tuple(tensor.shape)}"
        if tensor.is_floating_point() and not other.is_floating_point():
            return f"{name} has dtype {other.dtype}, expected a floating one"
        if not tensor.is_floating_point() and other.dtype != tensor.dtype:
            return f"{name} has dtype {other.dtype}, expected {tensor.dtype}"
    return None


def save_weights(
    path: str | os.PathLike, network: torch.nn.Module, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write parameters and buffers of a network to a safetensors file.

    Parameters
    ----------
    path : str or os.PathLike
        The file; it is replaced whole or not at all.
    network : torch.nn.Module
        Its ``state_dict`` is written.
    metadata : mapping, optional
        Anything that JSON can hold, with names as keys.

    Raises
    ------
    OSError
        The folder does not exist or cannot be written to.
    TypeError
        JSON cannot hold ``metadata``.

    Examples
    --------
    >>> import tempfile, pathlib, torch
    >>> from learnsolve.training import load_weights, save_weights
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "weights.safetensors"
    >>> save_weights(path, torch.nn.Linear(2, 1), {"levels": 3})
    >>> load_weights(path, torch.nn.Linear(2, 1))
    {'levels': 3}
    """
    write_tensors(path, network.state_dict(), WEIGHTS_FORMAT, dict(metadata or {}))


def load_weights(
    path: str | os.PathLike, network: torch.nn.Module, *, max_bytes: int | None = MAX_BYTES
) -> dict[str, Any]:
    """Read what `save_weights` wrote into a network, which stays as it was if the file is refused.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    network : torch.nn.Module
        Gets the weights, in its own dtype and on its own device.
    max_bytes : int, optional
        Larger files are not read; None for no bound.

    Returns
    -------
    dict
        The metadata.

    Raises
    ------
    WeightsError
        The file is too large, cut short, of another format, or holds NaN or infinity; or its tensors
        are not those of the network: one is missing or unknown, or has another shape or kind of dtype.
    OSError
        The file is not there or cannot be read.
    """
    found, metadata = read_tensors(path, WEIGHTS_FORMAT, max_bytes)
    expected = network.state_dict()
    what = mismatch(expected, found)
    if what is not None:
        raise WeightsError(path, what)
    for name, tensor in found.items():
        if not bool(torch.isfinite(tensor).all()):
            raise WeightsError(path, f"{name} holds NaN or infinity")
    for name, tensor in expected.items():
        tensor.copy_(found[name])
    return metadata


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
